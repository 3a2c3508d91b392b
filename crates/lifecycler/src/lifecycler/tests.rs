use std::sync::atomic::{AtomicBool, Ordering};

use metrics_exporter_prometheus::PrometheusBuilder;
use parking_lot::Mutex;
use ringkit_config::{AutoDuration, ReadinessCheck};
use ringkit_kv::{Applied, Change, InMemory, Key, Precondition, Store, Stored, Subscription};
use ringkit_ring::{RingOptions, Snapshot, State};
use ringkit_runtime::{ServiceHandle, ServiceState};
use tokio::time::{advance, sleep, timeout};

use super::*;
use crate::delegate::Delegates;
use crate::options::{RegisteredAt, TokenChoice};
use crate::tokens_file::OnCorrupt;

/// The wall time at which tests begin, in Unix seconds.
const START: i64 = 1_700_000_000;

pub(super) fn options(id: &str) -> Options {
    Options {
        name: "ingester",
        key: "ring".into(),
        id: id.into(),
        addr: format!("{id}:9095"),
        zone: String::new(),
        num_tokens: 8,
        token_choice: TokenChoice::Random,
        heartbeat_period: Duration::from_secs(5),
        heartbeat_timeout: Duration::from_secs(60),
        observe_period: AutoDuration::Auto,
        join_after: AutoDuration::Auto,
        min_ready_duration: Duration::ZERO,
        final_sleep: Duration::ZERO,
        tokens_file_path: None,
        unregister_on_shutdown: true,
        on_corrupt: OnCorrupt::Ring,
        readiness_check: ReadinessCheck::Ring,
        auto_forget: None,
        basic_metrics: false,
        delegates: Delegates::default(),
        auto_join: true,
        registered_at: RegisteredAt::Now,
        join_as: State::Active,
    }
}

/// A store that fails or hangs on demand and remembers who wrote when.
#[derive(Default)]
pub(super) struct TestStore {
    inner: InMemory,
    is_down: AtomicBool,
    hangs: AtomicBool,
    /// Whether it was told not to wait for its cluster.
    proceeds: AtomicBool,
    writes: Mutex<Vec<(Instant, Change)>>,
    /// What watches deliver, if the test decides it.
    seen: Mutex<Option<watch::Sender<Option<Stored>>>>,
}

impl TestStore {
    async fn trouble(&self) -> Result<(), ringkit_kv::Error> {
        if self.hangs.load(Ordering::Relaxed) {
            pending::<()>().await;
        }
        if self.is_down.load(Ordering::Relaxed) {
            return Err(ringkit_kv::Error::Unavailable {
                backend: "test",
                cause: "connection refused".into(),
            });
        }
        Ok(())
    }

    fn num_writes(&self) -> usize {
        self.writes.lock().len()
    }
}

#[async_trait]
impl Store for TestStore {
    fn backend(&self) -> &'static str {
        "test"
    }

    async fn get(&self, key: &Key) -> Result<Option<Stored>, ringkit_kv::Error> {
        self.trouble().await?;
        self.inner.get(key).await
    }

    async fn list(&self, prefix: &str) -> Result<Vec<String>, ringkit_kv::Error> {
        self.trouble().await?;
        self.inner.list(prefix).await
    }

    async fn delete(&self, key: &Key) -> Result<(), ringkit_kv::Error> {
        self.trouble().await?;
        self.inner.delete(key).await
    }

    async fn delete_at(&self, key: &Key, version: u64) -> Result<bool, ringkit_kv::Error> {
        self.trouble().await?;
        self.inner.delete_at(key, version).await
    }

    async fn apply(
        &self,
        key: &Key,
        change: Change,
        when: Precondition,
    ) -> Result<Applied, ringkit_kv::Error> {
        self.trouble().await?;
        self.writes.lock().push((Instant::now(), change.clone()));
        self.inner.apply(key, change, when).await
    }

    async fn watch(&self, key: &Key) -> Result<Subscription, ringkit_kv::Error> {
        self.trouble().await?;
        if let Some(seen) = &*self.seen.lock() {
            return Ok(Subscription::new(seen.subscribe()));
        }
        self.inner.watch(key).await
    }

    fn synced(&self) -> watch::Receiver<bool> {
        self.inner.synced()
    }

    fn proceed_unsynced(&self) {
        self.proceeds.store(true, Ordering::Relaxed);
    }
}

/// Instances on one store, in virtual time.
pub(super) struct World {
    pub(super) store: Arc<TestStore>,
    pub(super) clock: Clock,
    pub(super) meter: Meter,
}

pub(super) struct Instance {
    pub(super) service: ServiceHandle,
    pub(super) handle: Handle,
}

impl World {
    pub(super) fn new() -> Self {
        Self { store: Arc::default(), clock: Clock::paused_at(START * 1000), meter: Meter::disabled() }
    }

    pub(super) fn client(&self) -> Client<Desc> {
        Client::new(Arc::clone(&self.store) as Arc<dyn Store>, &Meter::disabled())
    }

    pub(super) fn start(&self, options: Options) -> Instance {
        // One seed for all: instances must differ all the same.
        let (lifecycler, handle) = new(options, self.client(), self.clock.clone(), &self.meter, Some(1));
        let service = ServiceHandle::new("lifecycler", Box::new(lifecycler));
        service.start_async().unwrap();
        Instance { service, handle }
    }

    /// The ring as it is, past whatever trouble the store has for others.
    pub(super) async fn ring(&self) -> Arc<Desc> {
        let client = Client::<Desc>::new(Arc::new(self.store.inner.clone()), &Meter::disabled());
        client.get("ring").await.unwrap().map(|view| view.value).unwrap_or_default()
    }

    pub(super) async fn entry(&self, id: &str) -> Option<Arc<InstanceDesc>> {
        self.ring().await.get(id).cloned()
    }
}

impl Instance {
    pub(super) async fn published(&self, state: State) {
        let mut status = self.handle.watch();
        let published = status.wait_for(|status| status.state == state && status.published);
        timeout(Duration::from_secs(600), published).await.expect("in time").unwrap();
    }

    pub(super) async fn stop(&self) {
        self.service.stop_async();
        self.service.await_terminated().await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn an_instance_joins_becomes_active_and_ready() {
    let world = World::new();
    let instance = world.start(options("a"));
    assert!(instance.handle.ready().is_err());
    instance.published(State::Active).await;
    let entry = world.entry("a").await.unwrap();
    assert_eq!((entry.state, entry.tokens.len(), &*entry.addr), (State::Active, 8, "a:9095"));
    assert_eq!(entry.registered_timestamp, START);
    assert_eq!(instance.handle.registered_at(), START);
    assert_eq!(instance.handle.ready(), Ok(()));
    assert_eq!(instance.handle.healthy_instances(), 1);
    assert_eq!(instance.service.state(), ServiceState::Running);
}

#[tokio::test(start_paused = true)]
async fn only_who_is_given_a_delay_goes_on_without_the_cluster() {
    let after = |secs| AutoDuration::After(Duration::from_secs(secs));
    for (join_after, proceeds) in [(AutoDuration::Auto, false), (after(0), false), (after(10), true)] {
        let world = World::new();
        let instance = world.start(Options { join_after, ..options("a") });
        instance.published(State::Active).await;
        sleep(Duration::from_secs(20)).await;
        assert_eq!(world.store.proceeds.load(Ordering::Relaxed), proceeds, "{join_after:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn instances_that_start_together_and_minimize_spread_own_alike() {
    let (world, began) = (World::new(), Instant::now());
    let options = |number| Options {
        num_tokens: 32,
        token_choice: TokenChoice::MinimizeSpread,
        ..options(&format!("i{number}"))
    };
    let instances: Vec<_> = (0..10).map(|number| world.start(options(number))).collect();
    for instance in &instances {
        instance.published(State::Active).await;
    }
    let snapshot = Snapshot::first_sight(&*world.ring().await, START, &RingOptions::default());
    assert_eq!((snapshot.instances().len(), snapshot.tokens().len()), (10, 320));
    let shares = snapshot.ownership().of_circle();
    assert!(shares.iter().all(|share| (share.fraction() * 10.0 - 1.0).abs() < 0.05), "{shares:?}");
    assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn whom_an_instance_waits_for_can_be_seen() {
    let world = World::new();
    // One that has registered, and whose data takes long to load.
    let first = Options { auto_join: false, token_choice: TokenChoice::MinimizeSpread, ..options("first") };
    let first = world.start(first);
    first.published(State::Pending).await;
    let second = world.start(Options { token_choice: TokenChoice::MinimizeSpread, ..options("second") });
    let mut status = second.handle.watch();
    timeout(Duration::from_secs(5), status.wait_for(|status| status.waits_for.as_deref() == Some("first")))
        .await
        .expect("in time")
        .unwrap();
    assert_eq!(second.handle.state(), State::Pending);
    first.handle.join();
    second.published(State::Active).await;
    assert_eq!(second.handle.watch().borrow().waits_for, None);
}

#[tokio::test(start_paused = true)]
async fn heartbeats_come_exactly_once_per_period_and_nothing_else_is_written() {
    let world = World::new();
    let recorder = PrometheusBuilder::new().build_recorder();
    let rendered = recorder.handle();
    let world = World { meter: Meter::new(Arc::new(recorder)), ..world };
    let instance = world.start(options("a"));
    instance.published(State::Active).await;
    let joining = world.store.num_writes();
    sleep(Duration::from_secs(500)).await;
    let writes = world.store.writes.lock()[joining..].to_vec();
    assert_eq!(writes.len(), 100);
    for pair in writes.windows(2) {
        // Tokio's timers have a resolution of one millisecond.
        let between = pair[1].0 - pair[0].0;
        assert!(between.abs_diff(Duration::from_secs(5)) <= Duration::from_millis(2), "{between:?}");
    }
    assert!(world.entry("a").await.unwrap().timestamp >= START + 494);
    let text = rendered.render();
    for line in [
        r#"cortex_member_consul_heartbeats_total{name="ingester"} 100"#,
        r#"cortex_member_ring_tokens_owned{name="ingester"} 8"#,
        r#"cortex_member_ring_tokens_to_own{name="ingester"} 8"#,
    ] {
        assert!(text.contains(line), "{line} is missing in\n{text}");
    }
}

#[tokio::test(start_paused = true)]
async fn it_leaves_stays_for_the_final_sleep_unregisters_and_never_reappears() {
    let world = World::new();
    let instance = world.start(Options { final_sleep: Duration::from_secs(30), ..options("a") });
    instance.published(State::Active).await;
    instance.service.stop_async();
    instance.published(State::Leaving).await;
    assert_eq!(world.entry("a").await.unwrap().state, State::Leaving);
    assert_eq!(instance.service.state(), ServiceState::Stopping);
    let left_at = Instant::now();
    instance.service.await_terminated().await.unwrap();
    assert!(left_at.elapsed().abs_diff(Duration::from_secs(30)) <= Duration::from_millis(2));
    assert_eq!(world.entry("a").await, None);
    let writes = world.store.num_writes();
    sleep(Duration::from_secs(3_600)).await;
    assert_eq!(world.store.num_writes(), writes);
    assert!(matches!(instance.handle.change_state(State::Active).await, Err(Error::NotRunning)));
}

#[tokio::test(start_paused = true)]
async fn an_instance_that_stops_before_its_first_heartbeat_does_not_beat_afterwards() {
    let world = World::new();
    let instance = world.start(options("a"));
    instance.published(State::Active).await;
    instance.stop().await;
    sleep(Duration::from_secs(60)).await;
    assert!(world.ring().await.is_empty());
}

#[tokio::test(start_paused = true)]
async fn whether_to_unregister_may_be_decided_at_the_last_moment() {
    let world = World::new();
    let instance = world.start(Options { final_sleep: Duration::from_secs(10), ..options("a") });
    instance.published(State::Active).await;
    instance.service.stop_async();
    instance.published(State::Leaving).await;
    instance.handle.set_unregister_on_shutdown(false);
    instance.service.await_terminated().await.unwrap();
    assert_eq!(world.entry("a").await.unwrap().state, State::Leaving);
}

#[tokio::test(start_paused = true)]
async fn a_restart_keeps_tokens_and_registration_time() {
    let world = World::new();
    let first = world.start(Options { unregister_on_shutdown: false, ..options("a") });
    first.published(State::Active).await;
    first.stop().await;
    let before = world.entry("a").await.unwrap();
    advance(Duration::from_secs(100)).await;
    let second = world.start(Options { addr: "elsewhere:1".into(), ..options("a") });
    second.published(State::Active).await;
    let after = world.entry("a").await.unwrap();
    assert_eq!((&after.tokens, after.registered_timestamp), (&before.tokens, before.registered_timestamp));
    assert_eq!((&*after.addr, after.state), ("elsewhere:1", State::Active));
}

#[tokio::test(start_paused = true)]
async fn a_crash_says_nothing_and_the_next_start_takes_over() {
    let world = World::new();
    let first = world.start(options("a"));
    first.published(State::Active).await;
    first.service.abort();
    let before = world.entry("a").await.unwrap();
    sleep(Duration::from_secs(100)).await;
    assert_eq!(world.entry("a").await.unwrap(), before, "a dead process does not beat");
    let second = world.start(options("a"));
    sleep(Duration::from_millis(10)).await;
    let after = world.entry("a").await.unwrap();
    assert_eq!((&after.tokens, after.registered_timestamp), (&before.tokens, before.registered_timestamp));
    assert!(after.timestamp >= START + 100);
    assert_eq!(second.handle.state(), State::Active);
}

#[tokio::test(start_paused = true)]
async fn the_tokens_file_survives_the_loss_of_the_ring() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("tokens.json");
    let options = || Options { tokens_file_path: Some(path.clone()), ..options("a") };
    let world = World::new();
    let first = world.start(options());
    first.published(State::Active).await;
    let tokens = first.handle.watch().borrow().tokens.clone();
    first.handle.change_state(State::ReadOnly).await.unwrap();
    first.stop().await;
    assert_eq!(tokens_file::load(&path, "a").unwrap().unwrap().tokens, tokens);
    let other_world = World::new();
    let second = other_world.start(options());
    second.published(State::ReadOnly).await;
    assert_eq!(other_world.entry("a").await.unwrap().tokens, tokens);
}

#[tokio::test(start_paused = true)]
async fn many_joiners_at_once_never_share_a_token() {
    let world = World::new();
    let instances: Vec<_> = (0..20).map(|number| world.start(options(&format!("i{number}")))).collect();
    for instance in &instances {
        instance.published(State::Active).await;
    }
    sleep(Duration::from_millis(10)).await;
    let all = world.ring().await.all_tokens();
    assert_eq!(all.len(), 20 * 8);
    assert!(all.is_sorted_by(|a, b| a < b), "a token is shared");
    assert!(instances.iter().all(|instance| instance.handle.healthy_instances() == 20));
}

#[tokio::test(start_paused = true)]
async fn a_start_without_a_store_waits_for_it_and_says_so() {
    let world = World::new();
    world.store.is_down.store(true, Ordering::Relaxed);
    let instance = world.start(options("a"));
    instance.service.await_running().await.unwrap();
    sleep(Duration::from_secs(120)).await;
    let reason = instance.handle.ready().unwrap_err();
    assert!(
        reason.contains("error talking to the KV store") && reason.contains("connection refused"),
        "{reason}"
    );
    world.store.is_down.store(false, Ordering::Relaxed);
    instance.published(State::Active).await;
    assert_eq!(instance.handle.ready(), Ok(()));
}

#[tokio::test(start_paused = true)]
async fn an_outage_is_survived_and_the_state_of_the_meantime_is_written_afterwards() {
    let world = World::new();
    let instance = world.start(options("a"));
    instance.published(State::Active).await;
    world.store.is_down.store(true, Ordering::Relaxed);
    sleep(Duration::from_secs(120)).await;
    assert_eq!(instance.service.state(), ServiceState::Running);
    assert_eq!(instance.handle.ready(), Ok(()), "who was ready stays ready");
    let error = instance.handle.change_state(State::ReadOnly).await.unwrap_err();
    assert!(matches!(error, Error::Unpublished { state: State::ReadOnly, .. }), "{error}");
    world.store.is_down.store(false, Ordering::Relaxed);
    instance.published(State::ReadOnly).await;
    sleep(Duration::from_secs(10)).await;
    let entry = world.entry("a").await.unwrap();
    assert_eq!(entry.state, State::ReadOnly);
    assert!(entry.timestamp >= START + 120);
}

#[tokio::test(start_paused = true)]
async fn a_store_that_lost_everything_gets_the_entry_back_as_a_new_registration() {
    let world = World::new();
    let instance = world.start(options("a"));
    instance.published(State::Active).await;
    let before = world.entry("a").await.unwrap();
    sleep(Duration::from_secs(100)).await;
    world.client().delete("ring").await.unwrap();
    sleep(Duration::from_secs(2)).await;
    let after = world.entry("a").await.unwrap();
    assert_eq!(after.tokens, before.tokens);
    assert_eq!(after.registered_timestamp, START + 100);
    assert_eq!(instance.handle.registered_at(), START + 100);
}

#[tokio::test(start_paused = true)]
async fn a_watch_that_lags_behind_the_own_writes_is_not_believed() {
    let world = World::new();
    let (seen, _) = watch::channel(None);
    *world.store.seen.lock() = Some(seen.clone());
    let instance = world.start(options("a"));
    let mut history =
        world.store.inner.watch(&Key::new("ring", <Desc as ringkit_kv::Value>::codec())).await.unwrap();
    history.changed().await.unwrap();
    let joining = history.changed().await.unwrap();
    instance.published(State::Active).await;
    let writes = world.store.num_writes();
    let old = Stored { version: 1, ..joining.unwrap() };
    seen.send_replace(Some(Stored { entries: Arc::default(), ..old }));
    sleep(Duration::from_secs(1)).await;
    assert_eq!(world.store.num_writes(), writes, "it looked as if the entry had vanished");
    assert_eq!(instance.handle.registered_at(), START);
}

#[tokio::test(start_paused = true)]
async fn a_store_that_is_down_or_hangs_does_not_hold_up_the_exit_for_long() {
    for (hangs, outage) in [(false, 0), (true, 0), (false, 300), (true, 300)] {
        let world = World::new();
        let instance = world.start(options("a"));
        instance.published(State::Active).await;
        let trouble = if hangs { &world.store.hangs } else { &world.store.is_down };
        trouble.store(true, Ordering::Relaxed);
        sleep(Duration::from_secs(outage)).await;
        let stopped_at = Instant::now();
        timeout(Duration::from_secs(600), instance.stop()).await.unwrap();
        // What is under way, the farewell, and the removal.
        assert!(stopped_at.elapsed() <= 3 * WRITE_TIMEOUT, "{:?}", stopped_at.elapsed());
    }
}

#[tokio::test(start_paused = true)]
async fn a_store_gateway_registers_as_joining_and_activates_itself() {
    let world = World::new();
    let recorder = PrometheusBuilder::new().build_recorder();
    let rendered = recorder.handle();
    let world = World { meter: Meter::new(Arc::new(recorder)), ..world };
    let instance = world.start(Options {
        name: "store-gateway",
        join_as: State::Joining,
        basic_metrics: true,
        ..options("a")
    });
    instance.published(State::Joining).await;
    sleep(Duration::from_secs(60)).await;
    let entry = world.entry("a").await.unwrap();
    assert_eq!((entry.state, entry.tokens.len()), (State::Joining, 8));
    instance.handle.activate().await.unwrap();
    assert_eq!(world.entry("a").await.unwrap().state, State::Active);
    let text = rendered.render();
    assert!(text.contains(r#"cortex_ring_member_tokens_owned{name="store-gateway"} 8"#), "{text}");
    assert!(text.contains(r#"cortex_ring_member_heartbeats_total{name="store-gateway"} 12"#), "{text}");
    instance.stop().await;
    let text = rendered.render();
    assert!(text.contains(r#"cortex_ring_member_tokens_owned{name="store-gateway"} 0"#), "{text}");
    assert!(text.contains(r#"cortex_ring_member_tokens_to_own{name="store-gateway"} 0"#), "{text}");
}

#[tokio::test(start_paused = true)]
async fn joining_may_be_asked_for_before_the_start() {
    let world = World::new();
    let (lifecycler, handle) = new(
        Options { auto_join: false, ..options("a") },
        world.client(),
        world.clock.clone(),
        &world.meter,
        None,
    );
    handle.join();
    let service = ServiceHandle::new("lifecycler", Box::new(lifecycler));
    service.start_async().unwrap();
    let instance = Instance { service, handle };
    instance.published(State::Active).await;
}

#[tokio::test(start_paused = true)]
async fn without_being_told_to_join_an_instance_is_pending_and_not_ready() {
    let world = World::new();
    let instance = world.start(Options { auto_join: false, ..options("a") });
    sleep(Duration::from_secs(60)).await;
    assert_eq!(world.entry("a").await.unwrap().state, State::Pending);
    let reason = instance.handle.ready().unwrap_err();
    assert!(reason.starts_with("this instance owns no tokens"), "{reason}");
    assert!(matches!(instance.handle.change_state(State::Leaving).await, Err(Error::Disallowed { .. })));
    instance.handle.join();
    instance.published(State::Active).await;
}

#[tokio::test(start_paused = true)]
async fn two_rings_on_one_store_do_not_disturb_each_other() {
    let world = World::new();
    let ingester = world.start(options("a"));
    let gateway = world.start(Options { key: "store-gateway".into(), ..options("a") });
    ingester.published(State::Active).await;
    gateway.published(State::Active).await;
    ingester.stop().await;
    assert_eq!(world.ring().await.len(), 0);
    let other = world.client().get("store-gateway").await.unwrap().unwrap();
    assert_eq!(other.value.len(), 1);
}
