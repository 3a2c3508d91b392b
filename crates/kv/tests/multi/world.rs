//! Two stores that can be made to fail, and processes that use both.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
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
    writes: Arc<AtomicU64>,
    synced: Arc<watch::Sender<bool>>,
}

impl Faulty {
    pub(crate) fn new(limits: Limits) -> Self {
        Self {
            inner: InMemory::new(limits),
            weather: Arc::new(watch::Sender::new(Weather::Fine)),
            latency: Arc::default(),
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
        self.pass().await?;
        self.inner.delete(key).await
    }

    async fn apply(&self, key: &Key, change: Change, when: Precondition) -> Result<Applied, Error> {
        self.writes.fetch_add(1, Ordering::Relaxed);
        self.pass().await?;
        self.inner.apply(key, change, when).await
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
        Self {
            consul: Faulty::new(Limits::default()),
            memberlist: Faulty::new(Limits::default()),
            clock: Clock::paused_at(1_700_000_000_000),
            tasks: Mutex::default(),
        }
    }

    /// A process whose primary is `consul`.
    pub(crate) fn process(&self, config: MultiConfig) -> Process {
        self.metered(config, Control::default, &Meter::disabled())
    }

    /// A process whose primary is `memberlist`.
    pub(crate) fn turned(&self, config: MultiConfig) -> Process {
        let children = [self.child(KvStore::Memberlist), self.child(KvStore::Consul)];
        start(children, config, None, self.clock.clone(), &Meter::disabled())
    }

    pub(crate) fn metered(
        &self,
        config: MultiConfig,
        control: impl FnOnce() -> Control,
        meter: &Meter,
    ) -> Process {
        let control = Some(control()).filter(|control| !format!("{control:?}").contains("primary: None"));
        start(self.children(), config, control, self.clock.clone(), meter)
    }

    fn children(&self) -> [Child; 2] {
        [self.child(KvStore::Consul), self.child(KvStore::Memberlist)]
    }

    fn child(&self, name: KvStore) -> Child {
        let store = if name == KvStore::Consul { &self.consul } else { &self.memberlist };
        Child::new(name, Arc::new(store.clone()))
    }
}
