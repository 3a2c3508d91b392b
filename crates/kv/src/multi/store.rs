//! [`Multi`] as a [`Store`]: what becomes of a read and of a write.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use ringkit_config::{KvStore, MirrorMode, MultiConfig};
use ringkit_runtime::{Clock, Meter};
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use tracing::{debug, warn};

use super::control::Control;
use super::core::{Core, FAILOVER_TIMEOUT, Parts, READ_TIMEOUT};
use super::health::is_outage;
use super::key::OpenKey;
use super::metrics::Metrics;
use super::mode::{Context, Mode};
use super::place::{Both, Place};
use super::report::MultiReport;
use super::state::{Begun, State};
use super::tasks::Tasks;
use super::unsettled::Unsettled;
use super::{report, switch, worker};
use crate::error::Error;
use crate::shared::Trouble;
use crate::store::{Applied, Change, Key, Precondition, Store, Stored, Subscription};

const BACKEND: &str = "multi";
/// How often is looked whether everything was mirrored before the process ends.
const DRAIN_POLL_PERIOD: Duration = Duration::from_millis(20);

/// One of the two stores that a [`Multi`] is made of.
#[derive(Clone)]
pub struct Child {
    name: KvStore,
    pub(super) store: Arc<dyn Store>,
    /// The same, of which is asked what no wrapper passes on.
    pub(super) plain: Arc<dyn Store>,
}

impl Child {
    /// A store by the name that the configuration has for it.
    pub fn new(name: KvStore, store: Arc<dyn Store>) -> Self {
        Self { name, plain: Arc::clone(&store), store }
    }

    /// The same, asked through a wrapper of it.
    #[must_use]
    pub fn through(self, wrap: impl FnOnce(Arc<dyn Store>) -> Arc<dyn Store>) -> Self {
        Self { store: wrap(Arc::clone(&self.plain)), ..self }
    }

    pub(super) fn kind(&self) -> KvStore {
        self.name
    }

    pub(super) fn name(&self) -> &'static str {
        self.name.as_str()
    }
}

impl fmt::Debug for Child {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Child").field(&self.name()).finish()
    }
}

/// How two stores are one.
#[derive(Clone, Debug)]
pub struct MultiOptions {
    /// The `multi` block. Which stores it names is not looked at.
    pub config: MultiConfig,
    /// Whose store it is, such as `ingester-ring`: label of the metrics, and what the runtime configuration calls it.
    pub kv_name: String,
    /// What the process says while it runs.
    pub control: Control,
    /// Where to count.
    pub meter: Meter,
    /// Wall time.
    pub clock: Clock,
}

/// Two stores at once: see the [module](super). What it follows ends with it.
pub struct Multi {
    core: Arc<Core>,
    tasks: Tasks,
}

impl Multi {
    /// Begins to follow the runtime configuration. A key is followed, in both stores, from its first use on.
    ///
    /// # Errors
    ///
    /// [`Error::Misconfigured`] if both stores are the same one, or one of them is two, and without a tokio runtime.
    pub fn start(primary: Child, secondary: Child, options: MultiOptions) -> Result<Self, Error> {
        check(primary.name, secondary.name)?;
        let runtime = Handle::try_current().map_err(|_| wrong("store", "needs a tokio runtime"))?;
        let MultiOptions { config, kv_name, control, meter, clock } = options;
        let metrics = Metrics::register(&meter, &kv_name, &Both::new(primary.name(), secondary.name()));
        let children = Both::new(primary, secondary);
        let core = Arc::new(Core::new(Parts { config, kv_name, children, control, clock, metrics }));
        let tasks = Tasks::new(runtime);
        tasks.spawn(switch::run(Arc::clone(&core), switch::begin(&core)));
        Ok(Self { core, tasks })
    }

    /// How both stores stand, for people and their tools.
    pub fn report(&self) -> MultiReport {
        report::report(&self.core)
    }

    /// Waits until everything is mirrored that is on its way, at most for `mirror_drain_timeout`: before the process ends, and
    /// after the last write. Returns whether it is.
    pub async fn drain(&self) -> bool {
        let within = self.core.config.mirror_drain_timeout;
        for open in self.core.open_keys() {
            Place::BOTH.iter().for_each(|place| open.urgent[*place].notify_one());
        }
        let drained = timeout(within, async {
            while self.core.totals().queue_length > 0 {
                sleep(DRAIN_POLL_PERIOD).await;
            }
        });
        let is_drained = drained.await.is_ok();
        if !is_drained {
            let (kv_name, left) = (self.core.kv_name.as_str(), self.core.totals().queue_length);
            warn!(kv_name, left, ?within, "not everything was mirrored before the end");
        }
        is_drained
    }

    /// Whether nothing is on its way to either store.
    pub(crate) fn is_mirrored(&self) -> bool {
        self.core.totals().queue_length == 0
    }

    /// Whether somebody follows a key, for which no client is needed any more.
    pub(crate) fn is_watched(&self) -> bool {
        self.core.open_keys().iter().any(|open| open.is_watched())
    }

    /// What an operator should know, a sentence each.
    pub fn remarks(&self) -> Vec<String> {
        report::remarks(&self.core)
    }

    /// Reads what was never heard of a key: a removal of it means what it is known to hold.
    async fn hear(&self, open: &OpenKey) {
        for place in Place::BOTH {
            let is_synced = *self.core.children[place].store.synced().borrow();
            if is_synced && open.look(|state| state.snapshot(place)).is_none() {
                // If it does not say, what the other one holds is all there is to know.
                let _ = self.core.read(open, place).await;
            }
        }
    }

    /// The key, from now on in use.
    fn open(&self, key: &Key) -> Result<Arc<OpenKey>, Error> {
        let mut keys = self.core.keys.lock();
        if let Some(open) = keys.get(&key.name) {
            if open.key.codec.id() != key.codec.id() {
                let (used, asked) = (open.key.codec.id(), key.codec.id());
                let reason =
                    format!("`{}` is read as `{used}` here, and cannot be as `{asked}` too", key.name);
                return Err(Error::Refused { backend: BACKEND, reason });
            }
            open.touch();
            return Ok(Arc::clone(open));
        }
        let open = Arc::new(OpenKey::new(key.clone()));
        keys.insert(Arc::clone(&key.name), Arc::clone(&open));
        self.tasks.spawn(worker::run(Arc::clone(&self.core), Arc::clone(&open)));
        Ok(open)
    }

    /// Writes a change: to the store that was the primary when it began, or what is acceptable of it to the other one in its
    /// stead. What lands is taken note of, also if the caller goes away before it is answered.
    async fn write(
        &self,
        open: &Arc<OpenKey>,
        begun: &Begun,
        change: &Change,
        place: Place,
    ) -> Result<Applied, Error> {
        let core = &self.core;
        let (written, when, within) = if place == begun.place {
            (change.clone(), begun.when, Self::patience(begun))
        } else {
            let acceptable = open.with(core, |state, context| state.fail_over(context, begun, change));
            (acceptable, Precondition::None, Some(FAILOVER_TIMEOUT))
        };
        let unsettled = Unsettled { core, tasks: &self.tasks, open, begun, change: Some(change), place };
        let apply = core.children[place].store.apply(&open.key, written, when);
        let applied = core.call(place, "CAS", &open.key.name, within, apply).await;
        self.settle(unsettled, begun, applied.as_ref().err());
        match applied? {
            Applied::Done(stored) => Ok(self.finish(open, begun, change, stored, place).await),
            Applied::Conflict => Ok(Applied::Conflict),
        }
    }

    /// The store answered. If with an error that leaves it open what landed, and the other store is not told instead, it is looked
    /// after as if its writer had gone away.
    fn settle(&self, unsettled: Unsettled<'_>, begun: &Begun, error: Option<&Error>) {
        let is_open = error.is_some_and(|error| is_outage(error) || matches!(error, Error::Partly { .. }));
        if is_open && !begun.fails_over && self.core.mode().mirror {
            drop(unsettled);
        } else {
            unsettled.settle();
        }
    }

    /// Ends a write that landed at `place`, where `stored` was answered.
    async fn finish(
        &self,
        open: &OpenKey,
        begun: &Begun,
        change: &Change,
        stored: Stored,
        place: Place,
    ) -> Applied {
        let (entries, is_absent) = (Arc::clone(&stored.entries), stored.version == 0);
        let number = self.core.commit(open, begun, change, stored, place);
        self.told(open, begun, place, number).await;
        Applied::Done(match open.look(State::shown) {
            Some(shown) => shown.unwrap_or_else(Stored::absent),
            None if is_absent => Stored::absent(),
            // The primary was not heard yet: this is what there is to know.
            None => Stored { version: self.core.next_version(), entries },
        })
    }

    /// What landed at `place` is on its way to the other store under this number; waits for the first attempt if so configured.
    async fn told(&self, open: &OpenKey, begun: &Begun, place: Place, number: Option<u64>) {
        let Some(number) = number else { return };
        let other = place.other();
        open.queued[other].notify_one();
        // Nobody waits for a primary that does not answer, nor for a store that has yet to find its cluster.
        let is_synced = *self.core.children[other].store.synced().borrow();
        if self.core.config.mirror_mode == MirrorMode::Sync && place == begun.place && is_synced {
            open.urgent[other].notify_one();
            let within = self.core.config.mirror_timeout;
            open.tried(other, number, Some(within).filter(|within| !within.is_zero())).await;
        }
    }

    /// Whether a write that the primary takes no notice of may go to the other store, and for how long to wait for the primary.
    fn patience(begun: &Begun) -> Option<Duration> {
        begun.fails_over.then_some(FAILOVER_TIMEOUT)
    }

    /// Writes to the secondary what the primary does not take, because of `error`.
    async fn fail_over(
        &self,
        open: &Arc<OpenKey>,
        begun: &Begun,
        change: &Change,
        error: Error,
    ) -> Result<Applied, Error> {
        debug!(key = &*open.key.name, %error, "the primary store does not take a change, the other one is told");
        // If that does not either, what the primary said is what there is to know.
        self.write(open, begun, change, begun.place.other()).await.map_err(|_| error)
    }

    /// Removes a key, in the secondary if the primary does not answer; returns whether it was what `begun` says.
    async fn remove(&self, open: &Arc<OpenKey>, begun: &Begun) -> Result<bool, Error> {
        let removed = if begun.fails_over && self.core.health[begun.place].is_down() {
            Err(self.down(begun.place))
        } else {
            self.remove_from(open, begun, begun.place).await
        };
        match removed {
            Err(error) if begun.fails_over && is_outage(&error) => {
                self.remove_from(open, begun, begun.place.other()).await.map_err(|_| error)
            }
            removed => removed,
        }
    }

    async fn remove_from(&self, open: &Arc<OpenKey>, begun: &Begun, place: Place) -> Result<bool, Error> {
        let (core, key) = (&self.core, &open.key);
        let store = &core.children[place].store;
        let delete = async {
            match begun.when {
                Precondition::None => store.delete(key).await.map(|()| true),
                Precondition::Version(Some(at)) | Precondition::Entries(Some(at)) => {
                    store.delete_at(key, at).await
                }
                Precondition::Version(None) | Precondition::Entries(None) => Ok(false),
            }
        };
        let unsettled = Unsettled { core, tasks: &self.tasks, open, begun, change: None, place };
        let removed = core.call(place, "Delete", &key.name, Self::patience(begun), delete).await;
        self.settle(unsettled, begun, removed.as_ref().err());
        if !removed? {
            return Ok(false);
        }
        let number = core.commit_deletion(open, begun, place);
        self.told(open, begun, place, number).await;
        Ok(true)
    }

    fn down(&self, place: Place) -> Error {
        let cause = self.core.health[place]
            .trouble()
            .map_or_else(|| "it did not answer".to_owned(), |trouble| trouble.cause.to_string());
        let backend = self.core.children[place].store.backend();
        Error::Unavailable { backend, cause: cause.into() }
    }

    /// What readers are shown, if the primary need not be asked first.
    fn shown_without_asking(&self, open: &OpenKey, mode: Mode) -> Option<Option<Stored>> {
        let known = open.look(State::shown);
        known.filter(|_| mode.union && self.core.health[mode.primary].is_down())
    }

    async fn list_from(&self, place: Place, prefix: &str, union: bool) -> Result<Vec<String>, Error> {
        let list = self.core.children[place].store.list(prefix);
        self.core.call(place, "List", prefix, union.then_some(READ_TIMEOUT), list).await
    }
}

/// Whether these two can be one store.
pub(crate) fn check(primary: KvStore, secondary: KvStore) -> Result<(), Error> {
    if primary == secondary {
        let reason = "is the primary too: primary and secondary stores must be different";
        return Err(wrong("secondary", reason));
    }
    for (key, store) in [("primary", primary), ("secondary", secondary)] {
        if store == KvStore::Multi {
            return Err(wrong(key, "is multi: primary and secondary stores cannot be multi-stores"));
        }
    }
    Ok(())
}

fn wrong(key: &'static str, reason: &str) -> Error {
    Error::Misconfigured { backend: BACKEND, key, reason: reason.to_owned() }
}

#[async_trait]
impl Store for Multi {
    fn backend(&self) -> &'static str {
        BACKEND
    }

    async fn get(&self, key: &Key) -> Result<Option<Stored>, Error> {
        let open = self.open(key)?;
        let mode = self.core.mode();
        if let Some(known) = self.shown_without_asking(&open, mode) {
            return Ok(known);
        }
        let how = open.look(|state| state.begin_read(mode.primary));
        let within = mode.union.then_some(READ_TIMEOUT);
        let get = self.core.children[mode.primary].store.get(key);
        match self.core.call(mode.primary, "GET", &key.name, within, get).await {
            Ok(stored) => {
                open.learn(&self.core, mode.primary, stored.clone(), how);
                // Shown is what both stores hold; only at first it may be that there is nothing to show yet.
                let known = || stored.map(|stored| Stored { version: self.core.next_version(), ..stored });
                Ok(open.look(State::shown).unwrap_or_else(known))
            }
            Err(error) if mode.union && is_outage(&error) => open.look(State::shown).ok_or(error),
            Err(error) => Err(error),
        }
    }

    async fn list(&self, prefix: &str) -> Result<Vec<String>, Error> {
        let mode = self.core.mode();
        if !mode.union {
            return self.list_from(mode.primary, prefix, false).await;
        }
        let helps = mode.secondary_counts && !self.core.health[mode.secondary()].is_down();
        let ask_other = async {
            if helps { self.list_from(mode.secondary(), prefix, true).await } else { Ok(Vec::new()) }
        };
        let is_down = self.core.health[mode.primary].is_down();
        let ask_own = async {
            if is_down {
                Err(self.down(mode.primary))
            } else {
                self.list_from(mode.primary, prefix, true).await
            }
        };
        let (own, other) = tokio::join!(ask_own, ask_other);
        let is_known = own.is_ok();
        let own: BTreeSet<String> = match own {
            Ok(own) => own.into_iter().collect(),
            Err(error) if is_outage(&error) && helps && other.is_ok() => BTreeSet::new(),
            Err(error) => return Err(error),
        };
        let mut names = own.clone();
        names.extend(other.unwrap_or_default());
        for open in self.core.open_keys() {
            let name = &*open.key.name;
            if !name.starts_with(prefix) || own.contains(name) {
                continue;
            }
            match open.look(State::shown) {
                // The other store has not been told yet that it is gone.
                Some(None) => {
                    names.remove(name);
                }
                Some(Some(_)) if !is_known => {
                    names.insert(name.to_owned());
                }
                _ => (),
            }
        }
        Ok(names.into_iter().collect())
    }

    async fn delete(&self, key: &Key) -> Result<(), Error> {
        let open = self.open(key)?;
        if self.core.mode().mirror {
            self.hear(&open).await;
        }
        let begin = |state: &mut State, context: &Context| state.begin_deletion(context, Precondition::None);
        let Some(begun) = open.with(&self.core, begin) else { return Ok(()) };
        self.remove(&open, &begun).await?;
        Ok(())
    }

    async fn delete_at(&self, key: &Key, version: u64) -> Result<bool, Error> {
        let open = self.open(key)?;
        let when = Precondition::Version(Some(version));
        let begin = |state: &mut State, context: &Context| state.begin_deletion(context, when);
        let Some(begun) = open.with(&self.core, begin) else { return Ok(false) };
        self.remove(&open, &begun).await
    }

    async fn apply(&self, key: &Key, change: Change, when: Precondition) -> Result<Applied, Error> {
        let open = self.open(key)?;
        let begun = open.with(&self.core, |state, context| state.begin(context, &change, when));
        // What it builds on is no longer so.
        let Some(begun) = begun else { return Ok(Applied::Conflict) };
        if begun.fails_over && self.core.health[begun.place].is_down() {
            return self.fail_over(&open, &begun, &change, self.down(begun.place)).await;
        }
        let is_decision = when != Precondition::None;
        if is_decision && self.core.mode().mirror && self.core.health[begun.place].is_down() {
            // Only the primary can tell whether it still holds what the decision builds on. What is its writer's own can go on.
            return Err(self.down(begun.place));
        }
        match self.write(&open, &begun, &change, begun.place).await {
            Err(error) if begun.fails_over && is_outage(&error) => {
                self.fail_over(&open, &begun, &change, error).await
            }
            applied => applied,
        }
    }

    fn answers_whole(&self) -> bool {
        self.core.children[self.core.mode().primary].store.answers_whole()
    }

    async fn watch(&self, key: &Key) -> Result<Subscription, Error> {
        Ok(self.open(key)?.subscribe())
    }

    /// True once the primary is synced, or once it was waited for long enough and the secondary is.
    fn synced(&self) -> watch::Receiver<bool> {
        self.core.synced.subscribe()
    }

    fn proceed_unsynced(&self) {
        for place in Place::BOTH {
            self.core.children[place].store.proceed_unsynced();
        }
    }

    fn trouble(&self) -> watch::Receiver<Option<Trouble>> {
        self.core.trouble.subscribe()
    }
}

impl fmt::Debug for Multi {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Multi")
            .field("kv_name", &self.core.kv_name)
            .field("stores", &Place::BOTH.map(|place| self.core.children[place].name()))
            .finish_non_exhaustive()
    }
}
