//! Readers on a store: how snapshots follow it, whose word counts for a heartbeat, and what is measured.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use ringkit_kv::{self as kv, Client, InMemory};
use ringkit_ring::{Desc, InstanceDesc, Operation, Ring, RingOptions, RingService, State, Unsettled};
use ringkit_runtime::{CancellationToken, Clock, ManualClock, Meter, Service as _, ServiceHandle};
use tokio::sync::watch;

use crate::support::active;

const START: i64 = 1000;

struct World {
    client: Client<Desc>,
    ring: Ring,
    clock: ManualClock,
    meter: Meter,
    _service: ServiceHandle,
}

fn parts(options: RingOptions) -> (Client<Desc>, Ring, RingService, ManualClock, Meter) {
    let client = Client::new(Arc::new(InMemory::default()), &Meter::disabled());
    let (clock, hand) = Clock::manual(START * 1000);
    let meter = Meter::new(Arc::new(metrics::NoopRecorder));
    let (ring, service) = Ring::new(options, client.clone(), clock, &meter);
    (client, ring, service, hand, meter)
}

/// A ring that follows a store which holds `entries`.
async fn world(entries: impl IntoIterator<Item = (String, InstanceDesc)>) -> World {
    let (client, ring, service, clock, meter) = parts(RingOptions::default());
    for (id, entry) in entries {
        client.upsert_own("ring", &id, &entry).await.unwrap();
    }
    let handle = ServiceHandle::new("ring", Box::new(service));
    handle.start_async().unwrap();
    handle.await_running().await.unwrap();
    World { client, ring, clock, meter, _service: handle }
}

impl World {
    async fn write(&self, id: &str, change: impl FnOnce(&mut InstanceDesc)) {
        let mut entry = (**self.client.get("ring").await.unwrap().unwrap().value.get(id).unwrap()).clone();
        change(&mut entry);
        self.client.upsert_own("ring", id, &entry).await.unwrap();
        let timestamp = entry.timestamp;
        self.until(|ring| {
            ring.snapshot()
                .instance(id)
                .is_some_and(|seen| seen.desc.timestamp == timestamp && seen.state() == entry.state)
        })
        .await;
    }

    async fn until(&self, reached: impl Fn(&Ring) -> bool) {
        tokio::time::timeout(Duration::from_secs(10), async {
            while !reached(&self.ring) {
                tokio::task::yield_now().await;
            }
        })
        .await
        .expect("the ring follows its store");
    }

    fn healthy(&self, id: &str) -> bool {
        self.ring.snapshot().is_healthy(id, Operation::WRITE, self.ring.clock().now_secs())
    }
}

fn notified(changes: &mut watch::Receiver<u64>) -> bool {
    let changed = changes.has_changed().unwrap();
    changes.mark_unchanged();
    changed
}

#[tokio::test]
async fn a_started_ring_shows_what_the_store_holds_and_follows_it() {
    let world = world([active("a", "z", &[10])]).await;
    assert_eq!(world.ring.snapshot().tokens(), [10]);
    let (id, entry) = active("b", "z", &[20]);
    world.client.upsert_own("ring", &id, &entry).await.unwrap();
    world.until(|ring| ring.snapshot().instances().len() == 2).await;
    assert_eq!(world.ring.snapshot().tokens(), [10, 20]);
    world.client.remove_own("ring", "a").await.unwrap();
    world.until(|ring| ring.snapshot().instances().len() == 1).await;
    assert_eq!(world.ring.snapshot().tokens(), [20]);
}

#[tokio::test]
async fn an_absent_ring_is_empty_at_first_and_a_vanished_one_is_kept() {
    let world = world([]).await;
    assert_eq!(world.ring.snapshot().instances().len(), 0);
    let (id, entry) = active("a", "", &[10]);
    world.client.upsert_own("ring", &id, &entry).await.unwrap();
    world.until(|ring| ring.snapshot().instances().len() == 1).await;
    world.client.delete("ring").await.unwrap();
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    assert_eq!(world.ring.snapshot().instances().len(), 1);
}

#[tokio::test]
async fn heartbeats_share_tokens_with_the_snapshot_before_and_wake_nobody() {
    let world = world([active("a", "", &[10]), active("b", "", &[20])]).await;
    let mut changes = world.ring.changed();
    let before = world.ring.snapshot();
    world.write("a", |entry| entry.timestamp += 5).await;
    let after = world.ring.snapshot();
    assert!(std::ptr::eq(before.tokens(), after.tokens()));
    assert!(Arc::ptr_eq(&before.instance("b").unwrap(), &after.instance("b").unwrap()));
    assert!(!notified(&mut changes));
    world.write("a", |entry| (entry.timestamp, entry.state) = (START + 6, State::Leaving)).await;
    assert!(notified(&mut changes), "a state is news");
    assert!(std::ptr::eq(before.tokens(), world.ring.snapshot().tokens()), "yet no reason to rebuild tokens");
    assert_eq!(*changes.borrow(), world.ring.snapshot().generation());
}

#[tokio::test]
async fn whatever_lookups_read_is_rebuilt_when_it_changes() {
    let world = world([active("a", "x", &[10]), active("b", "x", &[20])]).await;
    let mut changes = world.ring.changed();
    world.write("a", |entry| (entry.timestamp, entry.zone) = (START + 1, "y".into())).await;
    assert_eq!(world.ring.snapshot().zones(), ["x", "y"]);
    assert!(notified(&mut changes));
    world.write("a", |entry| (entry.timestamp, entry.tokens) = (START + 2, vec![30].into())).await;
    assert_eq!(world.ring.snapshot().tokens(), [20, 30]);
    assert!(notified(&mut changes));
    world.write("a", |entry| (entry.timestamp, entry.addr) = (START + 3, "new:1".into())).await;
    assert_eq!(world.ring.snapshot().id_by_addr("new:1").unwrap(), "a");
    assert!(notified(&mut changes));
}

#[tokio::test]
async fn an_instance_that_falls_silent_dies_and_one_that_is_heard_again_lives_and_is_news() {
    let world = world([active("a", "", &[10])]).await;
    let mut changes = world.ring.changed();
    world.clock.advance(Duration::from_secs(60));
    assert!(world.healthy("a"));
    world.clock.advance(Duration::from_secs(1));
    assert!(!world.healthy("a"));
    world.write("a", |entry| entry.timestamp = START + 61).await;
    assert!(world.healthy("a"));
    assert!(notified(&mut changes));
}

/// A clock that runs ahead by an hour: its entry must not look alive for an hour after its last word.
#[tokio::test]
async fn a_timestamp_from_the_future_does_not_outlive_its_owner() {
    let (id, mut entry) = active("a", "", &[10]);
    entry.timestamp = START + 3600;
    let world = world([(id, entry)]).await;
    world.clock.advance(Duration::from_secs(61));
    assert!(!world.healthy("a"));
    world.write("a", |entry| entry.timestamp += 5).await;
    assert_eq!(world.ring.snapshot().seen("a"), Some(START + 61));
    assert!(world.healthy("a"));
}

/// A clock that is an hour behind: alive as long as its timestamps advance, once they were seen to.
#[tokio::test]
async fn a_clock_that_is_behind_does_not_kill_who_beats() {
    let (id, mut entry) = active("a", "", &[10]);
    entry.timestamp = START - 3600;
    let world = world([(id, entry)]).await;
    assert!(!world.healthy("a"), "nothing is known but an old timestamp");
    world.write("a", |entry| entry.timestamp += 5).await;
    assert!(world.healthy("a"));
    world.clock.advance(Duration::from_secs(30));
    world.write("a", |entry| entry.state = State::Leaving).await;
    assert_eq!(
        world.ring.snapshot().seen("a"),
        Some(START),
        "a change without an advancing timestamp is no heartbeat"
    );
}

#[tokio::test]
async fn excluded_zones_are_left_out() {
    let options = RingOptions { excluded_zones: vec!["bad".into()], ..RingOptions::default() };
    let desc: Desc = [active("a", "good", &[10]), active("b", "bad", &[20])].into_iter().collect();
    let ring = Ring::fixed(desc, options, Clock::manual(START * 1000).0);
    let snapshot = ring.snapshot();
    assert_eq!((snapshot.instances().len(), snapshot.tokens()), (1, &[10][..]));
    assert_eq!(snapshot.zones(), ["good"]);
}

#[tokio::test]
async fn members_are_found_by_id_and_address() {
    let (id, mut entry) = active("a", "z", &[10]);
    entry.registered_timestamp = -62_135_596_800;
    let ring =
        Ring::fixed([(id, entry)].into_iter().collect::<Desc>(), RingOptions::default(), Clock::manual(0).0);
    let snapshot = ring.snapshot();
    assert_eq!(snapshot.instance("a").unwrap().registered_timestamp(), 0, "unknown, not the year 1");
    assert_eq!(snapshot.id_by_addr("a:1").unwrap(), "a");
    assert!(snapshot.instance("b").is_none() && snapshot.id_by_addr("b:1").is_none());
}

#[tokio::test]
async fn stopping_ends_the_service_in_order() {
    let (_, _ring, mut service, ..) = parts(RingOptions::default());
    let stop = CancellationToken::new();
    service.start(&stop).await.unwrap();
    stop.cancel();
    service.run(stop).await.unwrap();
}

#[tokio::test]
async fn metrics_show_the_ring_of_the_moment() {
    let mut leaving = active("b", "y", &[20, 30]);
    leaving.1.state = State::Leaving;
    let world = world([active("a", "x", &[10]), leaving]).await;
    let text = world.meter.render_collected();
    let shown = |text: &str, line: &str| assert!(text.lines().any(|l| l == line), "{line} in\n{text}");
    shown(&text, "# HELP cortex_ring_members Number of members in the ring");
    shown(&text, r#"cortex_ring_members{name="ingester",state="ACTIVE",zone="x"} 1"#);
    shown(&text, r#"cortex_ring_members{name="ingester",state="LEAVING",zone="x"} 0"#);
    shown(&text, r#"cortex_ring_members{name="ingester",state="LEAVING",zone="y"} 1"#);
    shown(&text, r#"cortex_ring_members{name="ingester",state="Unhealthy",zone="y"} 0"#);
    shown(&text, r#"cortex_ring_oldest_member_timestamp{name="ingester",state="ACTIVE"} 1000"#);
    shown(&text, r#"cortex_ring_oldest_member_timestamp{name="ingester",state="PENDING"} 0"#);
    shown(&text, r#"cortex_ring_tokens_total{name="ingester"} 3"#);
    shown(&text, r#"cortex_ring_duplicate_tokens{name="ingester"} 0"#);
    shown(&text, r#"cortex_ring_tokens_owned{name="ingester",member="b"} 2"#);
    shown(
        &text,
        r#"cortex_ring_member_ownership_percent{name="ingester",member="b"} 0.0000000046566128730773926"#,
    );
    assert!(!text.contains("LEFT"));

    world.clock.advance(Duration::from_secs(61));
    let text = world.meter.render_collected();
    shown(&text, r#"cortex_ring_members{name="ingester",state="Unhealthy",zone="x"} 1"#);
    shown(&text, r#"cortex_ring_members{name="ingester",state="ACTIVE",zone="x"} 0"#);

    world.client.remove_own("ring", "b").await.unwrap();
    world.until(|ring| ring.snapshot().instances().len() == 1).await;
    let text = world.meter.render_collected();
    assert!(
        !text.contains(r#"zone="y""#) && !text.contains(r#"member="b""#),
        "nothing stays behind:\n{text}"
    );
    let World { ring, meter, .. } = world;
    drop(ring);
    assert_eq!(meter.render_collected(), "");
}

#[tokio::test]
async fn metrics_without_details_name_no_members() {
    let options = RingOptions { detailed_metrics: false, ..RingOptions::default() };
    let (_client, _ring, _service, _clock, meter) = parts(options);
    assert!(!meter.render_collected().contains("member="));
}

/// A store that cannot be watched at first.
struct Down {
    inner: InMemory,
    failures: std::sync::atomic::AtomicU32,
    error: fn() -> kv::Error,
    trouble: watch::Sender<Option<kv::Trouble>>,
}

#[async_trait::async_trait]
impl kv::Store for Down {
    fn backend(&self) -> &'static str {
        "down"
    }
    async fn get(&self, key: &kv::Key) -> Result<Option<kv::Stored>, kv::Error> {
        self.inner.get(key).await
    }
    async fn list(&self, prefix: &str) -> Result<Vec<String>, kv::Error> {
        self.inner.list(prefix).await
    }
    async fn delete(&self, key: &kv::Key) -> Result<(), kv::Error> {
        self.inner.delete(key).await
    }
    async fn delete_at(&self, key: &kv::Key, version: u64) -> Result<bool, kv::Error> {
        self.inner.delete_at(key, version).await
    }
    async fn apply(
        &self,
        key: &kv::Key,
        change: kv::Change,
        when: kv::Precondition,
    ) -> Result<kv::Applied, kv::Error> {
        self.inner.apply(key, change, when).await
    }
    async fn watch(&self, key: &kv::Key) -> Result<kv::Subscription, kv::Error> {
        let one_less =
            self.failures.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1));
        match one_less {
            Ok(_) => Err((self.error)()),
            Err(_) => self.inner.watch(key).await,
        }
    }
    fn synced(&self) -> watch::Receiver<bool> {
        self.inner.synced()
    }
    fn trouble(&self) -> watch::Receiver<Option<kv::Trouble>> {
        self.trouble.subscribe()
    }
}

async fn start_on(failures: u32, error: fn() -> kv::Error) -> Result<(), ringkit_runtime::Cause> {
    let store = Down {
        inner: InMemory::default(),
        failures: failures.into(),
        error,
        trouble: watch::Sender::default(),
    };
    let client = Client::new(Arc::new(store), &Meter::disabled());
    let (_ring, mut service) =
        Ring::new(RingOptions::default(), client, Clock::manual(0).0, &Meter::disabled());
    service.start(&CancellationToken::new()).await
}

#[tokio::test(start_paused = true)]
async fn a_store_that_is_down_delays_the_start_and_does_not_fail_it() {
    let down = || kv::Error::Unavailable { backend: "down", cause: "connection refused".into() };
    start_on(20, down).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_store_that_will_never_answer_fails_the_start() {
    let error = start_on(1, || kv::Error::Closed).await.unwrap_err();
    assert_eq!(error.to_string(), "the key-value store was closed");
}

/// A fixed ring cannot change, so these follow a store in virtual time.
async fn settling(change_after: Option<Duration>) -> (Result<(), Unsettled>, Duration) {
    let (client, ring, mut service, ..) = parts(RingOptions::default());
    let (id, mut entry) = active("a", "", &[10]);
    client.upsert_own("ring", &id, &entry).await.unwrap();
    let stop = CancellationToken::new();
    service.start(&stop).await.unwrap();
    let background = tokio::spawn({
        let stop = stop.clone();
        async move {
            service.run(stop).await.unwrap();
        }
    });
    let started = tokio::time::Instant::now();
    let changes = async {
        loop {
            let Some(after) = change_after else { std::future::pending().await };
            tokio::time::sleep(after).await;
            entry.timestamp += 1;
            entry.state = if entry.state == State::Active { State::Joining } else { State::Active };
            client.upsert_own("ring", &id, &entry).await.unwrap();
        }
    };
    let wait =
        ring.wait_settled(Operation::BLOCKS_OWNER_SYNC, Duration::from_secs(60), Duration::from_secs(300));
    let result = tokio::select! { result = wait => result, () = changes => unreachable!() };
    let took = started.elapsed();
    stop.cancel();
    background.await.unwrap();
    (result, took)
}

#[tokio::test(start_paused = true)]
async fn a_ring_that_does_not_change_is_settled_after_the_least_time() {
    let (result, took) = settling(None).await;
    assert_eq!((result, took), (Ok(()), Duration::from_secs(60)));
}

#[tokio::test(start_paused = true)]
async fn a_ring_that_never_rests_is_given_up_on() {
    let (result, took) = settling(Some(Duration::from_secs(30))).await;
    assert_eq!(took, Duration::from_secs(300));
    assert_eq!(result.unwrap_err().to_string(), "the ring did not stay unchanged for 60s within 300s");
}

#[tokio::test(start_paused = true)]
async fn states_do_not_matter_to_who_waits_for_tokens() {
    let desc: Desc = [active("a", "", &[10])].into_iter().collect();
    let ring = Ring::fixed(desc, RingOptions::default(), Clock::manual(START * 1000).0);
    let (least, most) = (Duration::from_secs(5), Duration::from_secs(6));
    assert_eq!(ring.wait_tokens_settled(Operation::WRITE, least, most).await, Ok(()));
    assert_eq!(ring.wait_settled(Operation::WRITE, Duration::ZERO, Duration::ZERO).await, Ok(()), "at once");
}

#[tokio::test]
async fn waiting_for_a_state_ends_when_the_ring_shows_it() {
    let world = world([active("a", "", &[10])]).await;
    world.ring.wait_instance_state("a", State::Active).await;
    let leaving = async {
        tokio::task::yield_now().await;
        world.write("a", |entry| (entry.timestamp, entry.state) = (START + 1, State::Leaving)).await;
    };
    tokio::join!(world.ring.wait_instance_state("a", State::Leaving), leaving);
}

#[tokio::test(start_paused = true)]
async fn nobody_grows_older_while_the_store_is_silent() {
    let trouble = watch::Sender::default();
    let error = || kv::Error::Closed;
    let store = Down { inner: InMemory::default(), failures: 0.into(), error, trouble: trouble.clone() };
    let client = Client::new(Arc::new(store), &Meter::disabled());
    let (clock, hand) = Clock::manual(START * 1000);
    let meter = Meter::disabled();
    let (ring, service) = Ring::new(RingOptions::default(), client.clone(), clock, &meter);
    let beat = async |id: &str, timestamp: i64| {
        let (_, entry) = active(id, "", &[u32::try_from(timestamp).unwrap() + u32::from(id.as_bytes()[0])]);
        client.upsert_own("ring", id, &InstanceDesc { timestamp, ..entry }).await.unwrap();
    };
    beat("alive", START).await;
    beat("dead", START - 100).await;
    let handle = ServiceHandle::new("ring", Box::new(service));
    handle.start_async().unwrap();
    handle.await_running().await.unwrap();
    let pass = async |secs: u64| {
        for _ in 0..secs {
            hand.advance(Duration::from_secs(1));
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    };
    let healthy = |id: &str| ring.snapshot().is_healthy(id, Operation::WRITE, ring.clock().now_secs());
    assert!(healthy("alive") && !healthy("dead"));

    // It is noticed late that the store has not answered for ten seconds.
    let heard = tokio::time::Instant::now();
    pass(10).await;
    let since = tokio::time::Instant::now();
    trouble.send_replace(Some(kv::Trouble { heard, since, cause: "gone".into() }));
    for _ in 0..30 {
        pass(10).await;
        assert!(healthy("alive") && !healthy("dead"), "after {:?}", since.elapsed());
    }
    trouble.send_replace(None);
    // It has as long as before to say that it lives, and no longer.
    pass(57).await;
    assert!(healthy("alive") && !healthy("dead"));
    pass(6).await;
    assert!(!healthy("alive") && !healthy("dead"));
    beat("alive", START + 400).await;
    pass(1).await;
    assert!(healthy("alive") && !healthy("dead"));
}
