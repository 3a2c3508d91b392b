//! Two stores that can be made to fail, and processes that use both.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;
use ringkit_config::{KvStore, MultiConfig};
use ringkit_kv::multi::{Child, Control, Freshness, MultiOptions, MultiReport, MultiRuntime};
use ringkit_kv::{
    Applied, Change, Client, Entries, EntryId, Error, InMemory, Key, Limits, Multi, Precondition, Standing,
    Store, Stored, Subscription, Traces,
};
use ringkit_ring::{Desc, InstanceDesc, State};
use ringkit_runtime::{Clock, Meter};
use ringkit_testkit::eventually_ok;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, sleep};

pub(crate) const KEY: &str = "ring";
/// Within what things must have settled that nothing stands in the way of.
pub(crate) const SOON: Duration = Duration::from_secs(30);
pub(crate) const HEARTBEAT: Duration = Duration::from_secs(5);

/// How a store is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Weather {
    Fine,
    /// It takes every request, and answers none.
    Silent,
    Refusing,
}

/// A store in memory that can be made to fail. Clones are the same.
#[derive(Clone)]
pub(crate) struct Faulty {
    inner: InMemory,
    weather: Arc<watch::Sender<Weather>>,
    latency: Arc<Mutex<Duration>>,
    answers_late: Arc<Mutex<Duration>>,
    loses_answers: Arc<AtomicBool>,
    writes: Arc<AtomicU64>,
    synced: Arc<watch::Sender<bool>>,
    /// Changes of this entry conflict.
    contended: Arc<Mutex<Option<EntryId>>>,
    standing: Arc<Mutex<Option<Standing>>>,
    /// What others than their owners wrote; `None` = it is not told apart.
    brought: Arc<Mutex<Option<BTreeMap<EntryId, Bytes>>>>,
    /// Each entry has a key of its own: a write answers with other entries as this process last read them.
    is_apart: Arc<AtomicBool>,
    heard: Arc<Mutex<Stored>>,
}

impl Faulty {
    pub(crate) fn new(limits: Limits) -> Self {
        Self {
            inner: InMemory::new(limits),
            weather: Arc::new(watch::Sender::new(Weather::Fine)),
            latency: Arc::default(),
            answers_late: Arc::default(),
            loses_answers: Arc::default(),
            writes: Arc::default(),
            synced: Arc::new(watch::Sender::new(true)),
            contended: Arc::default(),
            standing: Arc::default(),
            brought: Arc::default(),
            is_apart: Arc::default(),
            heard: Arc::new(Mutex::new(Stored::absent())),
        }
    }

    /// The same store as another process has it.
    fn for_process(&self) -> Self {
        Self { heard: Arc::new(Mutex::new(Stored::absent())), ..self.clone() }
    }

    pub(crate) fn set(&self, weather: Weather) {
        self.weather.send_replace(weather);
    }

    /// Every request takes so long.
    pub(crate) fn set_latency(&self, latency: Duration) {
        *self.latency.lock() = latency;
    }

    /// Whoever changes something is told of it so long after it happened. Holds for what is asked for from now on.
    pub(crate) fn set_late(&self, late: Duration) {
        *self.answers_late.lock() = late;
    }

    /// Whoever changes something from now on is not told of it, although it happened.
    pub(crate) fn lose_answers(&self, lost: bool) {
        self.loses_answers.store(lost, Ordering::Relaxed);
    }

    pub(crate) fn set_synced(&self, synced: bool) {
        self.synced.send_replace(synced);
    }

    /// However often it is read, nobody can change this entry on the ground of it.
    pub(crate) fn set_contended(&self, id: &str) {
        *self.contended.lock() = Some(id.into());
    }

    /// From now on it is one that the processes are together, among which this one stands like that.
    pub(crate) fn set_standing(&self, standing: Standing) {
        *self.standing.lock() = Some(standing);
    }

    /// From now on it tells which entries others than their owners wrote.
    pub(crate) fn tells_who_wrote(&self) {
        *self.brought.lock() = Some(BTreeMap::new());
    }

    /// Each entry has a key of its own, as far as its users can tell. To be said before anybody uses it.
    pub(crate) fn set_apart(&self) {
        self.is_apart.store(true, Ordering::Relaxed);
    }

    /// Writes that were asked for.
    pub(crate) fn num_writes(&self) -> u64 {
        self.writes.load(Ordering::Relaxed)
    }

    /// A client that goes past all faults.
    pub(crate) fn direct(&self) -> Client<Desc> {
        Client::new(Arc::new(self.inner.clone()), &Meter::disabled())
    }

    /// What it holds: each entry's time and state.
    pub(crate) async fn holds(&self) -> Vec<(String, i64, State)> {
        let view = self.direct().get(KEY).await.unwrap();
        view.iter().flat_map(|view| listed(&view.value)).collect()
    }

    /// Takes note of who wrote what.
    fn note(&self, change: &Change) {
        if let Some(brought) = &mut *self.brought.lock() {
            for (id, bytes) in &change.upserts {
                if change.relayed.contains(id) {
                    brought.insert(id.clone(), bytes.clone());
                } else {
                    brought.remove(id);
                }
            }
        }
    }

    /// What a write answers after which the store holds this.
    fn answer(&self, stored: Stored, change: &Change) -> Stored {
        if self.answers_whole() || stored.version == 0 {
            return stored;
        }
        let mut heard = self.heard.lock();
        let mut entries = Entries::clone(&heard.entries);
        for id in &change.removals {
            entries.remove(id);
        }
        for id in change.upserts.keys() {
            if let Some(entry) = stored.entries.get(id) {
                entries.insert(id.clone(), entry.clone());
            }
        }
        *heard = Stored { version: stored.version, entries: Arc::new(entries) };
        heard.clone()
    }

    /// Does something, and is late to say so.
    async fn late<T>(&self, what: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
        let late = *self.answers_late.lock();
        self.pass().await?;
        let done = what.await;
        if !late.is_zero() {
            sleep(late).await;
        }
        if self.loses_answers.load(Ordering::Relaxed) {
            return Err(Error::Unavailable { backend: "faulty", cause: "the answer is lost".into() });
        }
        done
    }

    async fn pass(&self) -> Result<(), Error> {
        let latency = *self.latency.lock();
        if !latency.is_zero() {
            sleep(latency).await;
        }
        let mut weather = self.weather.subscribe();
        let now = *weather.wait_for(|weather| *weather != Weather::Silent).await.unwrap();
        match now {
            Weather::Refusing => Err(Error::Unavailable { backend: "faulty", cause: "refused".into() }),
            _ => Ok(()),
        }
    }
}

#[async_trait]
impl Store for Faulty {
    fn backend(&self) -> &'static str {
        "faulty"
    }

    async fn get(&self, key: &Key) -> Result<Option<Stored>, Error> {
        self.pass().await?;
        let stored = self.inner.get(key).await?;
        *self.heard.lock() = stored.clone().unwrap_or_else(Stored::absent);
        Ok(stored)
    }

    async fn list(&self, prefix: &str) -> Result<Vec<String>, Error> {
        self.pass().await?;
        self.inner.list(prefix).await
    }

    async fn delete(&self, key: &Key) -> Result<(), Error> {
        self.late(self.inner.delete(key)).await
    }

    async fn delete_at(&self, key: &Key, version: u64) -> Result<bool, Error> {
        self.late(self.inner.delete_at(key, version)).await
    }

    async fn apply(&self, key: &Key, change: Change, when: Precondition) -> Result<Applied, Error> {
        self.writes.fetch_add(1, Ordering::Relaxed);
        if self.contended.lock().as_ref().is_some_and(|id| change.upserts.contains_key(id)) {
            return Ok(Applied::Conflict);
        }
        let applied = self.late(self.inner.apply(key, change.clone(), when)).await?;
        let Applied::Done(stored) = applied else { return Ok(Applied::Conflict) };
        self.note(&change);
        Ok(Applied::Done(self.answer(stored, &change)))
    }

    fn answers_whole(&self) -> bool {
        !self.is_apart.load(Ordering::Relaxed)
    }

    async fn watch(&self, key: &Key) -> Result<Subscription, Error> {
        self.pass().await?;
        self.inner.watch(key).await
    }

    fn synced(&self) -> watch::Receiver<bool> {
        self.synced.subscribe()
    }

    fn standing(&self) -> Option<Standing> {
        *self.standing.lock()
    }

    async fn traces(&self, key: &Key) -> Option<Traces> {
        let brought = self.brought.lock().clone()?;
        let held = self.inner.get(key).await.ok()?;
        // What is there by now may be from an owner who is past all this.
        let is_there = |id: &EntryId, bytes: &Bytes| {
            let entry = held.as_ref().and_then(|stored| stored.entries.get(id));
            entry.is_some_and(|entry| entry.bytes == *bytes)
        };
        let relayed =
            brought.into_iter().filter(|(id, bytes)| is_there(id, bytes)).map(|(id, _)| id).collect();
        Some(Traces { relayed, ..Traces::default() })
    }
}

/// Two stores, by the names of `consul` and `memberlist`, and the time. What runs ends with it.
pub(crate) struct World {
    pub(crate) consul: Faulty,
    pub(crate) memberlist: Faulty,
    pub(crate) clock: Clock,
    tasks: Mutex<JoinSet<()>>,
}

/// A process that uses both.
pub(crate) struct Process {
    pub(crate) multi: Arc<Multi>,
    pub(crate) client: Client<Desc>,
    pub(crate) control: Control,
    runtime: watch::Sender<MultiRuntime>,
}

pub(crate) fn config() -> MultiConfig {
    MultiConfig {
        primary: Some(KvStore::Consul),
        secondary: Some(KvStore::Memberlist),
        mirror_enabled: true,
        reconcile_interval: Duration::from_secs(10),
        ..MultiConfig::default()
    }
}

impl World {
    pub(crate) fn new() -> Self {
        Self::with_limits(Limits::default())
    }

    /// One whose `memberlist` takes no more than this.
    pub(crate) fn with_limits(limits: Limits) -> Self {
        Self {
            consul: Faulty::new(Limits::default()),
            memberlist: Faulty::new(limits),
            clock: Clock::paused_at(1_700_000_000_000),
            tasks: Mutex::default(),
        }
    }

    /// One in which `consul`, or `memberlist`, or both keep each entry under a key of its own.
    pub(crate) fn apart([consul, memberlist]: [bool; 2]) -> Self {
        let world = Self::new();
        for (store, is_apart) in [(&world.consul, consul), (&world.memberlist, memberlist)] {
            if is_apart {
                store.set_apart();
            }
        }
        world
    }

    /// A process whose primary is `consul`.
    pub(crate) fn process(&self, config: MultiConfig) -> Process {
        self.metered(config, &Meter::disabled())
    }

    pub(crate) fn metered(&self, config: MultiConfig, meter: &Meter) -> Process {
        self.start([KvStore::Consul, KvStore::Memberlist], config, watch::Sender::default(), None, meter)
    }

    /// A process whose primary is `consul`, unless its runtime configuration says otherwise, which is this when it starts.
    pub(crate) fn told(&self, config: MultiConfig, runtime: MultiRuntime) -> Process {
        let names = [KvStore::Consul, KvStore::Memberlist];
        self.start(names, config, watch::Sender::new(runtime), None, &Meter::disabled())
    }

    /// A process whose primary is `memberlist`.
    pub(crate) fn turned(&self, config: MultiConfig) -> Process {
        let names = [KvStore::Memberlist, KvStore::Consul];
        self.start(names, config, watch::Sender::default(), None, &Meter::disabled())
    }

    /// Another store over both in the same process.
    pub(crate) fn twin(&self, process: &Process, config: MultiConfig) -> Process {
        let (runtime, control) = (process.runtime.clone(), Some(process.control.clone()));
        self.start([KvStore::Consul, KvStore::Memberlist], config, runtime, control, &Meter::disabled())
    }

    fn start(
        &self,
        names: [KvStore; 2],
        config: MultiConfig,
        runtime: watch::Sender<MultiRuntime>,
        control: Option<Control>,
        meter: &Meter,
    ) -> Process {
        let control = control.unwrap_or_else(|| Control::new(runtime.subscribe()));
        let freshness = Freshness { heartbeat_period: HEARTBEAT, ..Freshness::default() };
        control.set_freshness("test", freshness);
        let [primary, secondary] = names.map(|name| {
            let store = if name == KvStore::Consul { &self.consul } else { &self.memberlist };
            Child::new(name, Arc::new(store.for_process()))
        });
        let options = MultiOptions {
            config,
            kv_name: "test".into(),
            control: control.clone(),
            meter: meter.clone(),
            clock: self.clock.clone(),
        };
        let multi = Arc::new(Multi::start(primary, secondary, options).unwrap());
        let client = Client::new(Arc::clone(&multi) as Arc<dyn Store>, &Meter::disabled());
        Process { multi, client, control, runtime }
    }

    pub(crate) fn now(&self) -> i64 {
        self.clock.now_secs()
    }

    /// Somebody renews an entry from now on, as long as the store takes it.
    pub(crate) fn beats(&self, client: &Client<Desc>, id: &'static str) {
        self.beats_behind(client, id, 0);
    }

    /// The same, by a clock that is so many seconds slow.
    pub(crate) fn beats_behind(&self, client: &Client<Desc>, id: &'static str, secs: i64) {
        let (client, clock) = (client.clone(), self.clock.clone());
        self.tasks.lock().spawn(async move {
            let mut ticks = interval(HEARTBEAT);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            loop {
                ticks.tick().await;
                let entry = instance(clock.now_secs() - secs, State::Active);
                let _ = client.upsert_own(KEY, id, &entry).await;
            }
        });
    }

    /// Counts how often a watch shows one of these missing, or not ACTIVE, after it was first there; and how often its time goes
    /// back.
    pub(crate) fn observe(&self, client: &Client<Desc>, ids: &'static [&'static str]) -> Arc<AtomicU64> {
        let (client, lapses) = (client.clone(), Arc::new(AtomicU64::new(0)));
        let counted = Arc::clone(&lapses);
        self.tasks.lock().spawn(async move {
            let mut watch = client.watch(KEY).await.unwrap();
            let mut seen = std::collections::BTreeMap::new();
            while let Some(update) = watch.next().await {
                let ring = update.value.unwrap_or_default();
                for &id in ids {
                    let entry = ring.get(id);
                    let is_fine = entry.is_some_and(|entry| entry.state == State::Active);
                    let timestamp = entry.map_or(0, |entry| entry.timestamp);
                    let before = seen.get(id).copied();
                    if before.is_some_and(|before| !is_fine || timestamp < before) {
                        counted.fetch_add(1, Ordering::Relaxed);
                    }
                    if is_fine {
                        seen.insert(id, timestamp);
                    }
                }
            }
        });
        lapses
    }

    /// Counts how often a watch shows this one, from now on.
    pub(crate) fn sightings(&self, client: &Client<Desc>, id: &'static str) -> Arc<AtomicU64> {
        let (client, sightings) = (client.clone(), Arc::new(AtomicU64::new(0)));
        let counted = Arc::clone(&sightings);
        self.tasks.lock().spawn(async move {
            let mut watch = client.watch(KEY).await.unwrap();
            while let Some(update) = watch.next().await {
                if update.value.is_some_and(|ring| ring.contains(id)) {
                    counted.fetch_add(1, Ordering::Relaxed);
                }
            }
        });
        sightings
    }
}

impl Process {
    /// What readers see: each entry's time and state.
    pub(crate) async fn sees(&self) -> Vec<(String, i64, State)> {
        let view = self.client.get(KEY).await.unwrap();
        view.iter().flat_map(|view| listed(&view.value)).collect()
    }

    /// What the runtime configuration says from now on.
    pub(crate) fn says(&self, change: impl FnOnce(&mut MultiRuntime)) {
        self.runtime.send_modify(change);
    }

    pub(crate) fn report(&self) -> MultiReport {
        self.multi.report()
    }

    /// Waits until this store is the primary.
    pub(crate) async fn is_on(&self, name: &str) {
        let switched = || async {
            let report = self.report();
            if report.primary == name { Ok(()) } else { Err(format!("{:?}", report.switch)) }
        };
        eventually_ok(SOON, switched).await.unwrap();
    }

    /// Waits until mirroring has begun, or has ended.
    pub(crate) async fn mirrors(&self, mirrors: bool) {
        let is_so = || async {
            let report = self.report();
            if report.mirror == mirrors { Ok(()) } else { Err(format!("{:?}", report.switch)) }
        };
        eventually_ok(SOON, is_so).await.unwrap();
    }
}

/// The sum of all series of this name that have all of these labels.
pub(crate) fn sum(text: &str, name: &str, labels: &[&str]) -> f64 {
    let series = text.lines().filter(|line| line.starts_with(&format!("{name}{{")));
    let meant = series.filter(|line| labels.iter().all(|label| line.contains(label)));
    meant.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
}

pub(crate) fn instance(timestamp: i64, state: State) -> InstanceDesc {
    InstanceDesc {
        addr: "10.0.0.1:9095".into(),
        timestamp,
        state,
        tokens: vec![1, 2, 3].into(),
        ..InstanceDesc::default()
    }
}

fn listed(ring: &Desc) -> Vec<(String, i64, State)> {
    ring.iter().map(|(id, entry)| (id.to_string(), entry.timestamp, entry.state)).collect()
}

/// The ids alone.
pub(crate) fn ids(entries: &[(String, i64, State)]) -> Vec<&str> {
    entries.iter().map(|(id, ..)| id.as_str()).collect()
}

/// Waits until a store holds just these entries.
pub(crate) async fn holds(store: &Faulty, expected: &[&str]) {
    let held = || async {
        let held = store.holds().await;
        if ids(&held) == expected { Ok(()) } else { Err(format!("{held:?}")) }
    };
    eventually_ok(SOON, held).await.unwrap();
}
