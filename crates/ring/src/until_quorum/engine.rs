//! The shell around a decision: owns the calls, polls them in place, and leaves nothing behind.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};

use futures::stream::FuturesUnordered;
use futures::{StreamExt as _, TryFuture};
use ringkit_runtime::{CancellationToken, Supervisor};
use tokio::time::Sleep;

use super::ReplicaCall;
use super::error::{FanoutError, Fault, text_of};
use super::tracker::{Action, Decide, Reply, Verdict};
use crate::cancel::Cancellation;
use crate::replicas::ReplicationSet;
use crate::snapshot::Instance;

/// One request to one set.
pub(super) struct Engine<'a, E, C, L> {
    pub(super) set: &'a ReplicationSet,
    pub(super) stop: &'a Cancellation,
    /// What the tokens of the calls descend from.
    pub(super) parent: CancellationToken,
    pub(super) is_terminal: &'a (dyn Fn(&E) -> bool + Send + Sync),
    pub(super) cleanup: C,
    pub(super) leftovers: L,
    /// Whether the tokens of returned results stay as they are.
    pub(super) keep_tokens: bool,
}

/// What came of a request.
pub(super) struct Outcome<T, E> {
    /// Kept results with their places in the set, in order of arrival.
    pub(super) results: Vec<(usize, T)>,
    /// Tolerated failures with their places, in order of arrival.
    pub(super) faults: Vec<(usize, Fault<E>)>,
    pub(super) is_partial: bool,
}

impl<E: fmt::Display, C, L> Engine<'_, E, C, L> {
    /// Runs until `core` has decided.
    pub(super) async fn run<T, D, F, Fut>(self, mut core: D, call: F) -> Result<Outcome<T, E>, FanoutError<E>>
    where
        D: Decide,
        F: Fn(ReplicaCall) -> Fut,
        Fut: Future<Output = Result<T, E>>,
        C: Fn(T) + Clone,
        L: Leftovers<Fut, C>,
    {
        let Self { set, stop, parent, is_terminal, cleanup, leftovers, keep_tokens } = self;
        if let Some(cancelled) = stop.reason() {
            return Err(cancelled.into());
        }
        let mut flight = Flight::new(set, &parent, cleanup, leftovers);
        let mut faults: Vec<(usize, Fault<E>)> = Vec::new();
        // No timer where none is asked for: then any executor will do.
        let mut tick = pin!(core.tick_after().map(tokio::time::sleep));
        loop {
            flight.obey(&mut core, &call);
            let verdict = core.verdict();
            match verdict {
                Verdict::Pending => (),
                Verdict::Reached | Verdict::Partly => {
                    let results = flight.land(|place| core.keeps(place), keep_tokens);
                    return Ok(Outcome { results, faults, is_partial: verdict == Verdict::Partly });
                }
                Verdict::Failed | Verdict::Terminal => return Err(decided_by(set, verdict, faults.pop())),
            }
            let hedging = core.tick_after();
            tokio::select! {
                biased;
                cancelled = stop.cancelled() => return Err(cancelled.into()),
                Some((place, outcome)) = flight.calls.next() => {
                    let reply = reply_of(&outcome, is_terminal);
                    // The reply of a cancelled call counts for nothing.
                    if flight.slots[place].is_cancelled {
                        flight.discard(outcome.ok());
                        continue;
                    }
                    match outcome {
                        Ok(value) => flight.keep(place, value),
                        Err(fault) => {
                            let id = &set.instances[place].id;
                            tracing::debug!(instance = %id, error = %fault, "a call failed");
                            faults.push((place, fault));
                        }
                    }
                    core.handle_reply(place, reply);
                }
                () = elapsed(tick.as_mut()), if hedging.is_some() => {
                    core.handle_tick();
                    tick.set(hedging.map(tokio::time::sleep));
                }
            }
        }
    }
}

fn reply_of<T, E>(outcome: &Result<T, Fault<E>>, is_terminal: impl Fn(&E) -> bool) -> Reply {
    match outcome {
        Ok(_) => Reply::Ok,
        Err(Fault::Error(error)) if is_terminal(error) => Reply::Terminal,
        Err(_) => Reply::Failed,
    }
}

async fn elapsed(tick: Pin<&mut Option<Sleep>>) {
    match tick.as_pin_mut() {
        Some(tick) => tick.await,
        None => std::future::pending().await,
    }
}

fn decided_by<E>(set: &ReplicationSet, verdict: Verdict, last: Option<(usize, Fault<E>)>) -> FanoutError<E> {
    #[expect(
        clippy::expect_used,
        reason = "invariant: only a failure that was just recorded fails a request"
    )]
    let (place, fault) = last.expect("a failed request has a failure");
    let instance = Arc::clone(&set.instances[place]);
    match fault {
        Fault::Error(error) if verdict == Verdict::Terminal => FanoutError::Terminal { instance, error },
        fault => FanoutError::Failed { instance, fault },
    }
}

/// The calls of one request. Dropped before it has landed, it cancels them and cleans up what they had returned.
struct Flight<'a, Fut, C, L>
where
    Fut: TryFuture,
    C: Fn(Fut::Ok) + Clone,
    L: Leftovers<Fut, C>,
{
    instances: &'a [Arc<Instance>],
    /// Ancestor of the tokens of all calls.
    root: CancellationToken,
    calls: FuturesUnordered<Answer<Fut>>,
    slots: Vec<Slot<Fut::Ok>>,
    /// Places of results, in order of arrival.
    arrived: Vec<usize>,
    has_landed: bool,
    cleanup: C,
    leftovers: L,
}

struct Slot<T> {
    token: Option<CancellationToken>,
    result: Option<T>,
    is_cancelled: bool,
}

impl<'a, Fut, C, L> Flight<'a, Fut, C, L>
where
    Fut: TryFuture,
    C: Fn(Fut::Ok) + Clone,
    L: Leftovers<Fut, C>,
{
    fn new(set: &'a ReplicationSet, parent: &CancellationToken, cleanup: C, leftovers: L) -> Self {
        let empty = || Slot { token: None, result: None, is_cancelled: false };
        Self {
            instances: &set.instances,
            root: parent.child_token(),
            calls: FuturesUnordered::new(),
            slots: set.instances.iter().map(|_| empty()).collect(),
            arrived: Vec::new(),
            has_landed: false,
            cleanup,
            leftovers,
        }
    }

    fn obey(&mut self, core: &mut impl Decide, call: &impl Fn(ReplicaCall) -> Fut) {
        let mut any_cancelled = false;
        while let Some(action) = core.poll_action() {
            match action {
                Action::Start(place) => self.start(place, call),
                Action::Cancel(place) => {
                    self.cancel(place);
                    any_cancelled = true;
                }
            }
        }
        if any_cancelled && L::DROPS_CANCELLED {
            let is_cancelled = |answer: &&mut Answer<Fut>| self.slots[answer.place].is_cancelled;
            self.calls.iter_mut().filter(is_cancelled).for_each(|answer| answer.work = Work::Dropped);
        }
    }

    fn start(&mut self, place: usize, call: &impl Fn(ReplicaCall) -> Fut) {
        let token = self.root.child_token();
        self.slots[place].token = Some(token.clone());
        let instance = Arc::clone(&self.instances[place]);
        let replica = ReplicaCall { instance, cancel: token, replicas: self.instances.len() };
        let work = match catch_unwind(AssertUnwindSafe(|| call(replica))) {
            Ok(future) => Work::Running(Running(Some(Box::pin(future)))),
            Err(panic) => Work::Panicked(panic),
        };
        self.calls.push(Answer { place, work });
    }

    fn cancel(&mut self, place: usize) {
        let slot = &mut self.slots[place];
        slot.is_cancelled = true;
        if let Some(token) = &slot.token {
            token.cancel();
        }
        let result = slot.result.take();
        self.discard(result);
    }

    fn keep(&mut self, place: usize, value: Fut::Ok) {
        self.slots[place].result = Some(value);
        self.arrived.push(place);
    }

    fn discard(&self, value: Option<Fut::Ok>) {
        if let Some(value) = value {
            clean(&self.cleanup, value);
        }
    }

    /// Takes the results that are kept; everything else is cancelled.
    fn land(&mut self, keeps: impl Fn(usize) -> bool, keep_tokens: bool) -> Vec<(usize, Fut::Ok)> {
        self.has_landed = true;
        if keep_tokens {
            let unneeded = self.slots.iter().enumerate().filter(|(place, _)| !keeps(*place));
            unneeded.filter_map(|(_, slot)| slot.token.as_ref()).for_each(CancellationToken::cancel);
        } else {
            self.root.cancel();
        }
        let kept = self.arrived.iter().filter(|place| keeps(**place));
        kept.filter_map(|&place| Some((place, self.slots[place].result.take()?))).collect()
    }
}

impl<Fut, C, L> Drop for Flight<'_, Fut, C, L>
where
    Fut: TryFuture,
    C: Fn(Fut::Ok) + Clone,
    L: Leftovers<Fut, C>,
{
    fn drop(&mut self) {
        if !self.has_landed {
            self.root.cancel();
        }
        for slot in &mut self.slots {
            if let Some(value) = slot.result.take() {
                clean(&self.cleanup, value);
            }
        }
        self.leftovers.take(std::mem::take(&mut self.calls), &self.cleanup);
    }
}

/// A cleanup that panics must not keep others from being done, least of all while a future is dropped.
fn clean<T>(cleanup: &impl Fn(T), value: T) {
    if let Err(panic) = catch_unwind(AssertUnwindSafe(|| cleanup(value))) {
        tracing::error!(panic = text_of(&*panic), "cleaning up a surplus result panicked");
    }
}

/// Results that are cleaned up unless they are released.
pub(super) struct Owed<'a, T, C: Fn(T)> {
    pub(super) results: Vec<T>,
    pub(super) cleanup: &'a C,
}

impl<T, C: Fn(T)> Owed<'_, T, C> {
    pub(super) fn release(mut self) -> Vec<T> {
        std::mem::take(&mut self.results)
    }
}

impl<T, C: Fn(T)> Drop for Owed<'_, T, C> {
    fn drop(&mut self) {
        self.results.drain(..).for_each(|result| clean(self.cleanup, result));
    }
}

/// What becomes of calls that are of no use any more.
pub(super) trait Leftovers<Fut: TryFuture, C> {
    /// Whether a cancelled call is dropped at once.
    const DROPS_CANCELLED: bool;
    /// Takes the calls that have not answered. Their tokens have been cancelled.
    fn take(&mut self, calls: FuturesUnordered<Answer<Fut>>, cleanup: &C);
}

/// They end where they are.
pub(super) struct Dropped;

impl<Fut: TryFuture, C> Leftovers<Fut, C> for Dropped {
    const DROPS_CANCELLED: bool = true;

    fn take(&mut self, _calls: FuturesUnordered<Answer<Fut>>, _cleanup: &C) {}
}

/// They run to their own end as work of a supervisor, and what they still return is cleaned up.
pub(super) struct HandedOver<'a>(pub(super) &'a Supervisor);

impl<Fut, C> Leftovers<Fut, C> for HandedOver<'_>
where
    Fut: TryFuture + Send + 'static,
    Fut::Ok: Send,
    Fut::Error: Send,
    C: Fn(Fut::Ok) + Clone + Send + 'static,
{
    const DROPS_CANCELLED: bool = false;

    fn take(&mut self, mut calls: FuturesUnordered<Answer<Fut>>, cleanup: &C) {
        // Without a runtime there is nobody to run them: the future is dropped after its runtime was.
        if calls.is_empty() || tokio::runtime::Handle::try_current().is_err() {
            return;
        }
        let cleanup = cleanup.clone();
        self.0.spawn_detached_work("surplus calls", async move {
            while let Some((_, outcome)) = calls.next().await {
                if let Ok(value) = outcome {
                    clean(&cleanup, value);
                }
            }
        });
    }
}

/// One call, with its place in the set; a panic is its failure.
pub(super) struct Answer<Fut> {
    place: usize,
    work: Work<Fut>,
}

enum Work<Fut> {
    Running(Running<Fut>),
    /// Already when it was called.
    Panicked(Box<dyn std::any::Any + Send>),
    /// Nothing comes of it.
    Dropped,
}

/// A call's future, whose destructor may panic without harm to the other calls, wherever it is dropped.
struct Running<Fut>(Option<Pin<Box<Fut>>>);

impl<Fut> Drop for Running<Fut> {
    fn drop(&mut self) {
        let future = self.0.take();
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| drop(future))) {
            tracing::error!(panic = text_of(&*panic), "dropping a call panicked");
        }
    }
}

// The future is boxed, so nothing here is pinned.
impl<Fut> Unpin for Answer<Fut> {}

impl<Fut: TryFuture> Future for Answer<Fut> {
    type Output = (usize, Result<Fut::Ok, Fault<Fut::Error>>);

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let outcome = match &mut self.work {
            Work::Dropped => return Poll::Pending,
            Work::Panicked(panic) => Err(Fault::from_panic(&**panic)),
            Work::Running(Running(None)) => return Poll::Pending,
            Work::Running(Running(Some(future))) => {
                match catch_unwind(AssertUnwindSafe(|| future.as_mut().try_poll(context))) {
                    Ok(Poll::Pending) => return Poll::Pending,
                    Ok(Poll::Ready(outcome)) => outcome.map_err(Fault::Error),
                    Err(panic) => Err(Fault::from_panic(&*panic)),
                }
            }
        };
        self.work = Work::Dropped;
        Poll::Ready((self.place, outcome))
    }
}
