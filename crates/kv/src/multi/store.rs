//! [`Multi`] as a [`Store`]: what becomes of a read and of a write.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;
use ringkit_config::{KvStore, MirrorMode, MultiConfig};
use ringkit_runtime::{Clock, Meter};
use tokio::sync::{RwLockReadGuard, watch};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tracing::{debug, warn};

use super::control::Control;
use super::core::{Core, FAILOVER_TIMEOUT, Parts, READ_TIMEOUT};
use super::health::is_outage;
use super::held::Landing;
use super::key::OpenKey;
use super::metrics::Metrics;
use super::mode::Mode;
use super::place::{Both, Place};
use super::report::MultiReport;
use super::state::{Begun, State};
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
    tasks: Mutex<JoinSet<()>>,
}

impl Multi {
    /// Begins to follow the runtime configuration. A key is followed, in both stores, from its first use on.
    ///
    /// # Errors
    ///
    /// [`Error::Misconfigured`] if both stores are the same one, or one of them is two, and without a tokio runtime.
    pub fn start(primary: Child, secondary: Child, options: MultiOptions) -> Result<Self, Error> {
        check(primary.name, secondary.name)?;
        if tokio::runtime::Handle::try_current().is_err() {
            return Err(wrong("store", "needs a tokio runtime"));
        }
        let MultiOptions { config, kv_name, control, meter, clock } = options;
        let metrics = Metrics::register(&meter, &kv_name, &Both::new(primary.name(), secondary.name()));
        let children = Both::new(primary, secondary);
        let core = Arc::new(Core::new(Parts { config, kv_name, children, control, clock, metrics }));
        let mut tasks = JoinSet::new();
        tasks.spawn(switch::run(Arc::clone(&core), switch::begin(&core)));
        Ok(Self { core, tasks: Mutex::new(tasks) })
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

    /// What an operator should know, a sentence each.
    pub fn remarks(&self) -> Vec<String> {
        report::remarks(&self.core)
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
        let mut tasks = self.tasks.lock();
        while tasks.try_join_next().is_some() {}
        tasks.spawn(worker::run(Arc::clone(&self.core), Arc::clone(&open)));
        Ok(open)
    }

    /// Begins a write; `None` if what it builds on is no longer so.
    fn begin(&self, open: &OpenKey, change: &Change, when: Precondition) -> Option<Begun> {
        open.with(&self.core, |state, context| state.begin(context, change, when))
    }

    /// Writes to a store. What comes with the answer is to be kept until note was taken of it.
    async fn write<'a>(
        &self,
        open: &'a OpenKey,
        place: Place,
        change: Change,
        when: Precondition,
        within: Option<Duration>,
    ) -> Result<(Applied, RwLockReadGuard<'a, ()>), Error> {
        let store = &self.core.children[place].store;
        let write = async {
            let turn = open.writing[place].read().await;
            Ok::<_, Error>((store.apply(&open.key, change, when).await?, turn))
        };
        self.core.call(place, "CAS", &open.key.name, within, write).await
    }

    /// Takes note of a change that was written. Returns under which number the other store is to be told of it.
    fn commit(
        &self,
        open: &OpenKey,
        begun: &Begun,
        change: &Change,
        stored: Stored,
        place: Place,
    ) -> Option<u64> {
        let core = &self.core;
        // Whoever writes an entry whatever else there is writes its own.
        let is_own = begun.when == Precondition::None;
        if is_own {
            core.control.set_own(&open.key.name, change.upserts.keys(), true);
            let removed = change.removals.iter().filter(|id| !change.upserts.contains_key(*id));
            core.control.set_own(&open.key.name, removed, false);
        }
        let landing = Landing { place, whole: core.children[place].store.answers_whole() };
        let number = open.with(core, |state, context| {
            state.commit(context, begun, change, stored, landing, &|id| is_own || core.is_own(open, id))
        });
        open.news.notify_one();
        // What was under way to the same store may have come too late.
        open.queued[place].notify_one();
        number
    }

    /// Ends a write that landed at `place`, where `stored` was answered.
    async fn finish(
        &self,
        open: &OpenKey,
        begun: &Begun,
        change: &Change,
        written: (Stored, RwLockReadGuard<'_, ()>),
        place: Place,
    ) -> Applied {
        let (stored, turn) = written;
        let (entries, is_absent) = (Arc::clone(&stored.entries), stored.version == 0);
        let number = self.commit(open, begun, change, stored, place);
        drop(turn);
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
        open: &OpenKey,
        begun: &Begun,
        change: &Change,
        error: Error,
    ) -> Result<Applied, Error> {
        let place = begun.place.other();
        debug!(key = &*open.key.name, %error, "the primary store does not take a change, the other one is told");
        let acceptable = open.with(&self.core, |state, context| state.fail_over(context, begun, change));
        let within = Some(FAILOVER_TIMEOUT);
        match self.write(open, place, acceptable, Precondition::None, within).await {
            Ok((Applied::Done(stored), turn)) => {
                Ok(self.finish(open, begun, change, (stored, turn), place).await)
            }
            Ok((Applied::Conflict, _)) => Ok(Applied::Conflict),
            // What the primary said is what there is to know.
            Err(_) => Err(error),
        }
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

    async fn delete_from(&self, place: Place, key: &Key, begun: &Begun) -> Result<(), Error> {
        let delete = self.core.children[place].store.delete(key);
        self.core.call(place, "Delete", &key.name, Self::patience(begun), delete).await
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
        let Some(begun) = self.begin(&open, &Change::default(), Precondition::None) else { return Ok(()) };
        let core = &self.core;
        let deleted = if begun.fails_over && core.health[begun.place].is_down() {
            Err(self.down(begun.place))
        } else {
            self.delete_from(begun.place, key, &begun).await
        };
        let place = match deleted {
            Ok(()) => begun.place,
            Err(error) if begun.fails_over && is_outage(&error) => {
                let other = begun.place.other();
                self.delete_from(other, key, &begun).await.map_err(|_| error)?;
                other
            }
            Err(error) => return Err(error),
        };
        let number = open.with(core, |state, context| state.commit_deletion(context, &begun, place));
        open.news.notify_one();
        self.told(&open, &begun, place, number).await;
        Ok(())
    }

    async fn delete_at(&self, key: &Key, version: u64) -> Result<bool, Error> {
        let is_meant = |state: &State| matches!(state.shown(), Some(Some(shown)) if shown.version == version);
        if !self.open(key)?.look(is_meant) {
            return Ok(false);
        }
        self.delete(key).await?;
        Ok(true)
    }

    async fn apply(&self, key: &Key, change: Change, when: Precondition) -> Result<Applied, Error> {
        let open = self.open(key)?;
        let Some(begun) = self.begin(&open, &change, when) else { return Ok(Applied::Conflict) };
        if begun.fails_over && self.core.health[begun.place].is_down() {
            return self.fail_over(&open, &begun, &change, self.down(begun.place)).await;
        }
        let is_decision = when != Precondition::None;
        if is_decision && self.core.mode().mirror && self.core.health[begun.place].is_down() {
            // Only the primary can tell whether it still holds what the decision builds on. What is its writer's own can go on.
            return Err(self.down(begun.place));
        }
        let written =
            self.write(&open, begun.place, change.clone(), begun.when, Self::patience(&begun)).await;
        match written {
            Ok((Applied::Done(stored), turn)) => {
                Ok(self.finish(&open, &begun, &change, (stored, turn), begun.place).await)
            }
            Ok((Applied::Conflict, _)) => Ok(Applied::Conflict),
            Err(error) if begun.fails_over && is_outage(&error) => {
                self.fail_over(&open, &begun, &change, error).await
            }
            Err(error) => Err(error),
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
