//! [`Memberlist`]: a store without a server. The processes that use it are the members of a cluster, of which each has all of
//! it, and tell each other by gossip what changes.
//!
//! What is here is a [`Store`] on top of a member: how entries become registers and registers become views, how a
//! member is configured, and what is told of it. How members find and tell each other is in `ringkit_gossip`.
//!
//! A write is in this process's view when it returns, and on its way to the others. Writers of different entries never disturb
//! each other; of two who write the same entry at the same time, one wins with everybody. So a compare-and-swap protects
//! from whatever this process has heard of, and from nothing else.

mod address;
mod history;
mod keys;
mod metrics;
mod observed;
mod options;
mod remarks;
mod report;
mod tls;
mod traces;
mod upkeep;
mod views;
mod write;

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use ringkit_config::MemberlistConfig;
use ringkit_gossip::api::Phase;
use ringkit_gossip::driver::{Access, Closed, Handle, StartError, State};
use ringkit_gossip::node::{BEACON_KEY, MEMBERS_KEY};
use ringkit_runtime::{Clock, CollectGuard, Meter};
use smol_str::SmolStr;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tracing::info;

pub use ringkit_gossip::driver::{Counts, LeaveReport};

pub use self::report::{
    ClockReport, KeyContents, KeyReport, KeyringReport, MemberReport, MessageReport, PropagationReport,
    QueueReport, Report, SeedReport,
};

use self::observed::Observed;
use self::options::{Facts, Prepared};
use self::report::Outside;
use self::views::Views;
use crate::error::{Error, chain};
use crate::store::{Applied, Change, Key, Precondition, Standing, Store, Stored, Subscription, Traces};

const BACKEND: &str = "memberlist";

/// How a process is a member.
#[derive(Clone, Debug)]
pub struct MemberlistOptions {
    /// The `memberlist` block.
    pub config: MemberlistConfig,
    /// The zone of this process; empty = none.
    pub zone: String,
    /// What others are to see of the program: its version.
    pub build: String,
    /// Where to count.
    pub meter: Meter,
    /// Wall time.
    pub clock: Clock,
    /// After which time since the start reads and writes go on if the cluster was not found by then; `None` = never, unless
    /// somebody [says so](Store::proceed_unsynced).
    pub proceed_after: Option<Duration>,
}

/// A member of a cluster, and the store that all its members are together. Cheap to clone; clones are the same member, which
/// ends at once, as if killed, when the last one is dropped.
#[derive(Clone)]
pub struct Memberlist {
    inner: Arc<Inner>,
}

struct Inner {
    handle: Handle<Views>,
    observed: Arc<Observed>,
    facts: Arc<Facts>,
    /// How long what was removed is shown as such.
    tombstone_timeout: Duration,
    // Both end with the member.
    _collected: CollectGuard,
    _upkeep: JoinSet<()>,
}

impl Memberlist {
    /// Listens, and begins to look for the others in the background.
    ///
    /// # Errors
    ///
    /// [`Error::Misconfigured`] names the key at fault: also where an address cannot be listened at, and without a tokio runtime.
    pub fn start(options: &MemberlistOptions) -> Result<Self, Error> {
        let Prepared { driver, facts, keys_file } = options::prepare(options)?;
        let config = &options.config;
        let observed = Arc::new(Observed::new(
            metrics::propagation(&options.meter),
            config.message_history_buffer_bytes,
        ));
        let handle = Handle::start(driver, Views::new(Arc::clone(&observed)));
        let handle = handle.map_err(|error| not_started(&error))?;
        let facts = Arc::new(facts);
        let collector = metrics::Collector { handle: handle.clone(), observed: Arc::clone(&observed) };
        let collected = options.meter.collect(Arc::new(collector));
        let mut upkeep = JoinSet::new();
        upkeep.spawn(upkeep::run(handle.clone(), Arc::clone(&observed), keys_file));
        if let Some(after) = options.proceed_after {
            upkeep.spawn(upkeep::proceed_after(after, handle.state(), Arc::clone(&observed)));
        }
        info!(
            name = facts.name,
            addr = %handle.addr(),
            label = facts.label,
            zone = facts.zone,
            "a member of the gossip cluster starts"
        );
        let inner = Inner {
            handle,
            observed,
            facts,
            tombstone_timeout: config.tombstone_timeout,
            _collected: collected,
            _upkeep: upkeep,
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// The member's name.
    pub fn name(&self) -> &str {
        &self.inner.facts.name
    }

    /// Where others reach the member.
    pub fn addr(&self) -> SocketAddr {
        self.inner.handle.addr()
    }

    /// Where the member listens.
    pub fn bound(&self) -> &[SocketAddr] {
        self.inner.handle.bound()
    }

    /// What went through the member's sockets.
    pub fn counts(&self) -> &Counts {
        self.inner.handle.counts()
    }

    /// How the member stands.
    ///
    /// # Errors
    ///
    /// [`Error::Closed`] after it left, [`Error::Unavailable`] after it failed.
    pub async fn report(&self) -> Result<Report, Error> {
        let outside = Outside {
            facts: Arc::clone(&self.inner.facts),
            state: self.inner.handle.state().borrow().clone(),
            seeds: self.inner.handle.seeds().borrow().clone(),
            addr: self.addr().to_string(),
        };
        let observed = Arc::clone(&self.inner.observed);
        self.call(move |access| report::report(access, &outside, &observed)).await
    }

    /// What a key holds; `None` if nothing is known of it. Does not wait for the cluster.
    ///
    /// # Errors
    ///
    /// As [`Memberlist::report`].
    pub async fn contents(&self, key: &str) -> Result<Option<KeyContents>, Error> {
        let (key, removed_for) = (key.to_owned(), self.inner.tombstone_timeout);
        self.call(move |access| report::contents(access, &key, removed_for)).await
    }

    /// Writes anew, as this member, what a clock that was ahead has written and what would outlast all other writes: of one entry
    /// everything, of a whole key what is ahead of this member's clock. What is held does not change. Returns how many registers
    /// were written.
    ///
    /// # Errors
    ///
    /// As [`Memberlist::report`].
    pub async fn heal(&self, key: &str, id: Option<&str>) -> Result<usize, Error> {
        let (key, id) = (SmolStr::new(key), id.map(SmolStr::new));
        self.call(move |access| access.heal(&key, id)).await
    }

    /// Forgets the messages that are kept for the status page.
    pub async fn clear_messages(&self) {
        self.inner.observed.told().history.clear();
    }

    /// Leaves the cluster: the others know at once that this member is gone, and do not look for it. What it wrote stays. All
    /// calls fail from then on, and watches end.
    pub async fn leave(&self) -> LeaveReport {
        let report = self.inner.handle.leave().await;
        info!(name = self.name(), told = report.told, took = ?report.took, "left the gossip cluster");
        report
    }

    /// Ends the member as SIGKILL would: the others are told nothing and find it dead. Calls fail from then on.
    pub fn abort(&self) {
        self.inner.handle.abort();
    }

    /// Waits until the member has ended, for whatever reason, and its ports are free. Cancel safe.
    pub async fn ended(&self) {
        self.inner.handle.ended().await;
    }

    /// Waits until the member cannot go on, and says why. Never returns if it leaves.
    ///
    /// Cancel safe.
    pub async fn failed(&self) -> Error {
        let mut state = self.inner.handle.state();
        let failed = state.wait_for(|state| state.failure.is_some()).await;
        match failed.ok().and_then(|state| state.failure.clone()) {
            Some(failure) => unavailable(failure),
            None => std::future::pending().await,
        }
    }

    /// What an operator should know, a sentence each; as of a second ago.
    pub fn remarks(&self) -> Vec<String> {
        let state = self.inner.handle.state().borrow().clone();
        let seeds = self.inner.handle.seeds().borrow().clone();
        remarks::remarks(&state, &seeds, &self.inner.observed)
    }

    /// Waits until reads reflect the cluster, or need not.
    async fn ready(&self) -> Result<(), Error> {
        let (mut state, mut proceeds) = (self.inner.handle.state(), self.inner.observed.proceeds.subscribe());
        loop {
            if let Some(ready) = readiness(&state.borrow_and_update()) {
                return ready;
            }
            if *proceeds.borrow_and_update() {
                return Ok(());
            }
            tokio::select! {
                changed = state.changed() => changed.map_err(|_| self.why_ended())?,
                // The sender is here.
                _ = proceeds.changed() => (),
            }
        }
    }

    async fn call<T: Send + 'static>(
        &self,
        f: impl FnOnce(&mut Access<'_, Views>) -> T + Send + 'static,
    ) -> Result<T, Error> {
        self.inner.handle.call(f).await.map_err(|Closed| self.why_ended())
    }

    /// Why calls fail once the member has ended.
    fn why_ended(&self) -> Error {
        self.inner.handle.state().borrow().failure.clone().map_or(Error::Closed, unavailable)
    }
}

#[async_trait]
impl Store for Memberlist {
    fn backend(&self) -> &'static str {
        BACKEND
    }

    async fn get(&self, key: &Key) -> Result<Option<Stored>, Error> {
        check(key)?;
        self.ready().await?;
        let key = key.clone();
        let read = move |access: &mut Access<'_, Views>| {
            let stored = access.observer.open(access.node(), access.now(), &key);
            access.observer.forget_unused(&key.name);
            stored
        };
        self.call(read).await?
    }

    async fn list(&self, prefix: &str) -> Result<Vec<String>, Error> {
        self.ready().await?;
        let prefix = prefix.to_owned();
        let list = move |access: &mut Access<'_, Views>| {
            let registers = access.node().store();
            let keys = registers.keys().filter(|key| key.starts_with(&prefix) && !is_internal(key));
            keys.filter(|key| views::is_present(registers, key)).map(str::to_owned).collect::<Vec<_>>()
        };
        self.call(list).await
    }

    async fn delete(&self, key: &Key) -> Result<(), Error> {
        check(key)?;
        self.ready().await?;
        let key = key.clone();
        self.call(move |access| write::delete(access, &key)).await?
    }

    async fn delete_at(&self, key: &Key, version: u64) -> Result<bool, Error> {
        check(key)?;
        self.ready().await?;
        let key = key.clone();
        self.call(move |access| write::delete_at(access, &key, version)).await?
    }

    async fn apply(&self, key: &Key, change: Change, when: Precondition) -> Result<Applied, Error> {
        check(key)?;
        self.inner.observed.told().writes.0 += 1;
        let applied = async {
            self.ready().await?;
            let key = key.clone();
            self.call(move |access| write::apply(access, &key, &change, when)).await?
        };
        let applied = applied.await;
        let mut told = self.inner.observed.told();
        match &applied {
            Ok(Applied::Done(_)) => told.writes.1 += 1,
            Ok(Applied::Conflict) | Err(_) => told.writes.2 += 1,
        }
        applied
    }

    async fn watch(&self, key: &Key) -> Result<Subscription, Error> {
        check(key)?;
        self.ready().await?;
        let key = key.clone();
        let watch =
            move |access: &mut Access<'_, Views>| access.observer.watch(access.node(), access.now(), &key);
        self.call(watch).await?
    }

    /// True once reads reflect the cluster, or once it was given up to wait for that.
    fn synced(&self) -> watch::Receiver<bool> {
        self.inner.observed.synced.subscribe()
    }

    fn proceed_unsynced(&self) {
        self.inner.observed.proceed();
    }

    fn removals_are_meant(&self) -> bool {
        true
    }

    fn standing(&self) -> Option<Standing> {
        let state = self.inner.handle.state();
        let state = state.borrow();
        let joined = state.synced && !state.gave_up;
        Some(Standing { joined, num_others: state.members.saturating_sub(1) })
    }

    async fn traces(&self, key: &Key) -> Option<Traces> {
        let (key, removed_for) = (Arc::clone(&key.name), self.inner.tombstone_timeout);
        self.call(move |access| traces::traces(access, &key, removed_for)).await.ok()
    }
}

impl fmt::Debug for Memberlist {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Memberlist")
            .field("name", &self.name())
            .field("addr", &self.addr())
            .finish_non_exhaustive()
    }
}

/// Whether calls may go on; `None` = not yet.
fn readiness(state: &State) -> Option<Result<(), Error>> {
    if let Some(failure) = &state.failure {
        return Some(Err(unavailable(failure.clone())));
    }
    if state.phase == Phase::Left {
        return Some(Err(Error::Closed));
    }
    (state.synced || state.gave_up).then_some(Ok(()))
}

fn unavailable(failure: String) -> Error {
    Error::Unavailable { backend: BACKEND, cause: failure.into() }
}

fn not_started(error: &StartError) -> Error {
    let key = match error {
        StartError::Bind { .. } => "bind_addr",
        StartError::Unreachable { .. } => "advertise_addr",
        _ => "store",
    };
    Error::Misconfigured { backend: BACKEND, key, reason: format!("does not work: {}", chain(error)) }
}

/// Keys that members use for themselves.
fn is_internal(key: &str) -> bool {
    // The empty name stands for all keys.
    key.is_empty() || key == MEMBERS_KEY || key == BEACON_KEY
}

fn check(key: &Key) -> Result<(), Error> {
    if is_internal(&key.name) {
        let reason = format!("`{}` is a key that members keep for themselves", key.name);
        return Err(Error::Refused { backend: BACKEND, reason });
    }
    Ok(())
}

/// Whole milliseconds.
fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
