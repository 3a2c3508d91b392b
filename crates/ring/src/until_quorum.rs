//! Reading from the instances of a [`ReplicationSet`] until enough have answered.
//!
//! [`do_until_quorum`] is the way to read: it returns the answers of one quorum and no more. [`do_multi_until_quorum`]
//! does so for several sets at once, and [`do_all`] is Cortex's older way. What is decided lies in pure trackers; the
//! shell owns the calls as futures and polls them in place, so that whoever drops a request ends all of it. Whom to ask
//! is [`crate::Snapshot`]'s business, what to ask the caller's.

mod all;
mod engine;
mod error;
mod options;
mod tracker;

use std::fmt;
use std::sync::Arc;

use futures::future::try_join_all;
use ringkit_runtime::{CancellationToken, Supervisor};

pub use self::all::{Answers, do_all};
use self::engine::{Dropped, Engine, HandedOver, Leftovers, Owed};
pub use self::error::{FanoutError, Fault, PartialData};
pub use self::options::{DoAllOptions, ErrorTest, UntilQuorumOptions, ZoneOrder, ZoneSorter};
use self::tracker::{QuorumTracker, seed_of};
use crate::replicas::ReplicationSet;
use crate::snapshot::Instance;

/// One instance's part of a request: what the function that makes the calls gets.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ReplicaCall {
    /// Whom to ask.
    pub instance: Arc<Instance>,
    /// Cancelled when the call, or what it returned, is of no use any more. The call may cancel it itself, which concerns
    /// nobody else.
    pub cancel: CancellationToken,
    /// How many instances the set has that is asked.
    pub replicas: usize,
}

/// Asks the instances of `set` concurrently, until a quorum has answered, and returns the results of that quorum.
///
/// *By zone* if the set is zone-aware ([`ReplicationSet::zone_awareness_enabled`], or zones that may be unavailable): a
/// quorum is all zones but [`ReplicationSet::max_unavailable_zones`], each with a result from every instance, and the first
/// failure in a zone cancels the others there. *By instance* otherwise: a quorum is all instances but
/// [`ReplicationSet::max_errors`]. One is needed in any case, also where the set says that all may fail, which dskit takes
/// for an answer. Results come in the order of the set, and only those of the quorum that was first
/// complete. Every other result is given to `cleanup`, exactly once; if that panics, it is logged.
///
/// When this returns or is dropped, the tokens of all calls have been cancelled and calls without an answer are dropped;
/// nothing is left behind. A call that panics has failed; one that panics when it is dropped is logged, and changes nothing.
/// Nobody is called after [`UntilQuorumOptions::stop`]. The calls share the caller's task: one that computes long should do
/// so on its own.
///
/// # Errors
///
/// [`FanoutError::Failed`] with the failure that was one too many, [`FanoutError::Terminal`] with an error that speaks for
/// all, [`FanoutError::Cancelled`] with the cause, [`FanoutError::MaxErrorsWithZones`] for a set that contradicts itself.
///
/// # Source
///
/// dskit's `DoUntilQuorum`. Differs in dropping calls instead of leaving them to notice that they were cancelled; see
/// [`do_until_quorum_in_background`] for those that must not be dropped.
///
/// # Examples
///
/// ```
/// use std::sync::Arc;
///
/// use ringkit_ring::{Instance, InstanceDesc, ReplicationSet, UntilQuorumOptions, do_until_quorum};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// // Three instances of which one may fail; a ring gives such a set for an operation.
/// let instance = |id: &str| {
///     let desc = InstanceDesc { addr: format!("{id}:9095").into(), ..InstanceDesc::default() };
///     Arc::new(Instance { id: id.into(), desc: Arc::new(desc) })
/// };
/// let instances = ["a", "b", "c"].map(instance).into_iter().collect();
/// let set = ReplicationSet { instances, max_errors: 1, ..ReplicationSet::default() };
///
/// // Two are enough, so only two are asked, and the third if one of them fails.
/// let options = UntilQuorumOptions { minimize_requests: true, ..UntilQuorumOptions::default() };
/// let ask = async |call: ringkit_ring::ReplicaCall| match call.instance.id.as_str() {
///     "b" => Err("b is down"),
///     id => Ok(format!("from {id}")),
/// };
/// let answers = do_until_quorum(&set, &options, ask, drop).await.unwrap();
/// assert_eq!(answers, ["from a", "from c"]);
/// # }
/// ```
pub async fn do_until_quorum<T, E, F, Fut, C>(
    set: &ReplicationSet,
    options: &UntilQuorumOptions<E>,
    call: F,
    cleanup: C,
) -> Result<Vec<T>, FanoutError<E>>
where
    E: fmt::Display,
    F: Fn(ReplicaCall) -> Fut,
    Fut: Future<Output = Result<T, E>>,
    C: Fn(T),
{
    let request = Request { options, parent: options.stop.token().clone(), keep_tokens: false };
    request.one(set, 0, &call, &cleanup, Dropped).await
}

/// As [`do_until_quorum`], for results that live on, such as streams: their tokens are not cancelled when this returns.
///
/// They remain descendants of the token of [`UntilQuorumOptions::stop`], so that still ends them; else whoever holds a
/// result cancels its [`ReplicaCall::cancel`] when done. If this fails or is dropped, all tokens are cancelled.
///
/// # Errors
///
/// As for [`do_until_quorum`].
///
/// # Source
///
/// dskit's `DoUntilQuorumWithoutSuccessfulContextCancellation`.
pub async fn do_until_quorum_keeping_successes<T, E, F, Fut, C>(
    set: &ReplicationSet,
    options: &UntilQuorumOptions<E>,
    call: F,
    cleanup: C,
) -> Result<Vec<T>, FanoutError<E>>
where
    E: fmt::Display,
    F: Fn(ReplicaCall) -> Fut,
    Fut: Future<Output = Result<T, E>>,
    C: Fn(T),
{
    let request = Request { options, parent: options.stop.token().clone(), keep_tokens: true };
    request.one(set, 0, &call, &cleanup, Dropped).await
}

/// As [`do_until_quorum`], for calls that must not be dropped half-way: one that is of no use any more has its token
/// cancelled and then runs to its own end, after the return as work of `background`, which also bounds its life.
///
/// What such a call still returns is given to `cleanup` too.
///
/// # Errors
///
/// As for [`do_until_quorum`].
pub async fn do_until_quorum_in_background<T, E, F, Fut, C>(
    set: &ReplicationSet,
    options: &UntilQuorumOptions<E>,
    background: &Supervisor,
    call: F,
    cleanup: C,
) -> Result<Vec<T>, FanoutError<E>>
where
    T: Send,
    E: fmt::Display + Send,
    F: Fn(ReplicaCall) -> Fut,
    Fut: Future<Output = Result<T, E>> + Send + 'static,
    C: Fn(T) + Send + Sync + 'static,
{
    let cleanup = Arc::new(cleanup);
    let cleanup = move |result| cleanup(result);
    let request = Request { options, parent: options.stop.token().clone(), keep_tokens: false };
    request.one(set, 0, &call, cleanup, HandedOver(background)).await
}

/// As [`do_until_quorum`] for each of `sets`, all at once: returns the results of all, set after set.
///
/// # Errors
///
/// [`FanoutError::NoSets`] without sets; else the first error of one of them, which ends the others: their results are
/// given to `cleanup`.
///
/// # Source
///
/// dskit's `DoMultiUntilQuorumWithoutSuccessfulContextCancellation`, of which this is the form that cancels.
pub async fn do_multi_until_quorum<T, E, F, Fut, C>(
    sets: &[ReplicationSet],
    options: &UntilQuorumOptions<E>,
    call: F,
    cleanup: C,
) -> Result<Vec<T>, FanoutError<E>>
where
    E: fmt::Display,
    F: Fn(ReplicaCall) -> Fut,
    Fut: Future<Output = Result<T, E>>,
    C: Fn(T),
{
    let request = Request { options, parent: options.stop.token().child_token(), keep_tokens: true };
    let _cancelled_at_the_end = request.parent.clone().drop_guard();
    request.several(sets, &call, &cleanup).await
}

/// As [`do_multi_until_quorum`], for results that live on: see [`do_until_quorum_keeping_successes`].
///
/// # Errors
///
/// As for [`do_multi_until_quorum`].
///
/// # Source
///
/// dskit's `DoMultiUntilQuorumWithoutSuccessfulContextCancellation`. The token that all calls share needs no count of its
/// users here: it is freed with the last of their tokens.
pub async fn do_multi_until_quorum_keeping_successes<T, E, F, Fut, C>(
    sets: &[ReplicationSet],
    options: &UntilQuorumOptions<E>,
    call: F,
    cleanup: C,
) -> Result<Vec<T>, FanoutError<E>>
where
    E: fmt::Display,
    F: Fn(ReplicaCall) -> Fut,
    Fut: Future<Output = Result<T, E>>,
    C: Fn(T),
{
    let request = Request { options, parent: options.stop.token().child_token(), keep_tokens: true };
    let cancelled_on_failure = request.parent.clone().drop_guard();
    let results = request.several(sets, &call, &cleanup).await?;
    cancelled_on_failure.disarm();
    Ok(results)
}

/// One call of the functions above.
struct Request<'a, E> {
    options: &'a UntilQuorumOptions<E>,
    /// What all tokens descend from.
    parent: CancellationToken,
    keep_tokens: bool,
}

impl<E: fmt::Display> Request<'_, E> {
    /// Asks set number `number`.
    async fn one<T, F, Fut, C, L>(
        &self,
        set: &ReplicationSet,
        number: usize,
        call: F,
        cleanup: C,
        leftovers: L,
    ) -> Result<Vec<T>, FanoutError<E>>
    where
        F: Fn(ReplicaCall) -> Fut,
        Fut: Future<Output = Result<T, E>>,
        C: Fn(T) + Clone,
        L: Leftovers<Fut, C>,
    {
        validate(set)?;
        let UntilQuorumOptions {
            minimize_requests,
            hedging_delay,
            is_terminal_error,
            zone_order,
            seed,
            stop,
        } = self.options;
        let tracker =
            QuorumTracker::new(set, *minimize_requests, *hedging_delay, zone_order, seed_of(*seed, number));
        let engine = Engine {
            set,
            stop,
            parent: self.parent.clone(),
            is_terminal: &**is_terminal_error,
            cleanup,
            leftovers,
            keep_tokens: self.keep_tokens,
        };
        let mut results = engine.run(tracker, call).await?.results;
        results.sort_unstable_by_key(|(place, _)| *place);
        Ok(results.into_iter().map(|(_, result)| result).collect())
    }

    async fn several<T, F, Fut, C>(
        &self,
        sets: &[ReplicationSet],
        call: &F,
        cleanup: &C,
    ) -> Result<Vec<T>, FanoutError<E>>
    where
        F: Fn(ReplicaCall) -> Fut,
        Fut: Future<Output = Result<T, E>>,
        C: Fn(T),
    {
        if sets.is_empty() {
            return Err(FanoutError::NoSets);
        }
        sets.iter().try_for_each(validate)?;
        // Results wait for the other sets, and are cleaned up if that comes to nothing.
        let owed = |(number, set)| async move {
            let results = self.one(set, number, call, cleanup, Dropped).await?;
            Ok::<_, FanoutError<E>>(Owed { results, cleanup })
        };
        let all = try_join_all(sets.iter().enumerate().map(owed)).await?;
        Ok(all.into_iter().flat_map(Owed::release).collect())
    }
}

fn validate<E>(set: &ReplicationSet) -> Result<(), FanoutError<E>> {
    if set.zone_awareness_enabled && set.max_errors > 0 {
        return Err(FanoutError::MaxErrorsWithZones { max_errors: set.max_errors });
    }
    Ok(())
}
