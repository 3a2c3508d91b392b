//! Two stores that can be made to fail, and processes that use both.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;
use ringkit_config::{KvStore, MultiConfig};
use ringkit_kv::multi::{Child, Control, Freshness, MultiOptions, MultiReport, MultiRuntime};
use ringkit_kv::{
    Applied, Change, Client, Error, InMemory, Key, Limits, Multi, Precondition, Store, Stored, Subscription,
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
    is_apart: Arc<AtomicBool>,
    writes: Arc<AtomicU64>,
    synced: Arc<watch::Sender<bool>>,
}

impl Faulty {
    pub(crate) fn new(limits: Limits) -> Self {
        Self {
            inner: InMemory::new(limits),
            weather: Arc::new(watch::Sender::new(Weather::Fine)),
            latency: Arc::default(),
            answers_late: Arc::default(),
            is_apart: Arc::default(),
            writes: Arc::default(),
            synced: Arc::new(watch::Sender::new(true)),
        }
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

    /// It is one where each entry has a key of its own.
    pub(crate) fn set_apart(&self) {
        self.is_apart.store(true, Ordering::Relaxed);
    }

    pub(crate) fn set_synced(&self, synced: bool) {
        self.synced.send_replace(synced);
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

    /// Does something, and is late to say so.
    async fn late<T>(&self, what: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
        let late = *self.answers_late.lock();
        self.pass().await?;
        let done = what.await;
        if !late.is_zero() {
            sleep(late).await;
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
        self.inner.get(key).await
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
        self.late(self.inner.apply(key, change, when)).await
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

    /// A process whose primary is `consul`.
    pub(crate) fn process(&self, config: MultiConfig) -> Process {
        self.metered(config, &Meter::disabled())
    }

    pub(crate) fn metered(&self, config: MultiConfig, meter: &Meter) -> Process {
        self.start([KvStore::Consul, KvStore::Memberlist], config, watch::Sender::default(), None, meter)
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
            Child::new(name, Arc::new(store.clone()))
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
        let (client, clock) = (client.clone(), self.clock.clone());
        self.tasks.lock().spawn(async move {
            let mut ticks = interval(HEARTBEAT);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            loop {
                ticks.tick().await;
                let _ = client.upsert_own(KEY, id, &instance(clock.now_secs(), State::Active)).await;
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
