//! Lives that delegates decide, ghosts, and two processes under one id.

use ringkit_ring::InstanceDesc;

use super::tests::{World, options};
use super::*;
use crate::delegate::{
    Delegate, Delegates, InstanceRegister, LeaveOnStopping, Place, Registration, TokensPersistency,
};
use crate::forget::AutoForget;
use crate::tokens_file::OnCorrupt;
use ringkit_ring::State;
use std::sync::atomic::AtomicUsize;
use tokio::time::sleep;

fn delegated(id: &str, delegates: Vec<Arc<dyn Delegate>>) -> Options {
    let basic = Options::basic("service", "ring", id, format!("{id}:9095"), 8, Delegates::new(delegates));
    Options { heartbeat_period: Duration::from_secs(5), ..basic }
}

fn registers(state: State) -> Arc<dyn Delegate> {
    Arc::new(InstanceRegister(state))
}

#[tokio::test(start_paused = true)]
async fn an_instance_registers_as_its_delegate_says() {
    for state in [State::Active, State::Joining, State::Pending] {
        let world = World::new();
        let instance = world.start(delegated("a", vec![registers(state)]));
        instance.published(state).await;
        sleep(Duration::from_secs(60)).await;
        let entry = world.entry("a").await.unwrap();
        let tokens = if state == State::Pending { 0 } else { 8 };
        assert_eq!((entry.state, entry.tokens.len()), (state, tokens));
        instance.stop().await;
        assert_eq!(world.entry("a").await, None, "unregistered");
    }
}

#[tokio::test(start_paused = true)]
async fn tokens_of_the_ring_are_kept_and_missing_ones_are_drawn() {
    let world = World::new();
    let entry =
        InstanceDesc { tokens: vec![1, 2, 3].into(), state: State::Leaving, ..InstanceDesc::default() };
    world.client().upsert_own("ring", "a", &entry).await.unwrap();
    let instance = world.start(delegated("a", vec![registers(State::Active)]));
    instance.published(State::Active).await;
    let tokens = world.entry("a").await.unwrap().tokens.clone();
    assert_eq!(tokens.len(), 8);
    assert!([1, 2, 3].iter().all(|token| tokens.contains(token)));
}

#[tokio::test(start_paused = true)]
async fn it_leaves_only_if_a_delegate_says_so_and_beats_while_it_does() {
    /// Takes half a minute over something before it goes.
    #[derive(Debug)]
    struct Slow;
    impl Delegate for Slow {
        fn on_stopping<'a>(&'a self, _handle: &'a Handle) -> BoxFuture<'a, ()> {
            Box::pin(sleep(Duration::from_secs(30)))
        }
    }
    for leaves in [false, true] {
        let world = World::new();
        let mut delegates = vec![registers(State::Active)];
        if leaves {
            delegates.push(Arc::new(LeaveOnStopping));
        }
        delegates.push(Arc::new(Slow));
        let options = Options { unregister_on_shutdown: false, ..delegated("a", delegates) };
        let instance = world.start(options);
        instance.published(State::Active).await;
        let before = world.clock.now_secs();
        instance.stop().await;
        let entry = world.entry("a").await.unwrap();
        assert_eq!(entry.state, if leaves { State::Leaving } else { State::Active });
        assert!(entry.timestamp >= before + 25, "beats went on: {} after {before}", entry.timestamp);
    }
}

#[tokio::test(start_paused = true)]
async fn tokens_come_back_from_the_file_in_the_state_of_the_delegate() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("tokens.json");
    let options = || {
        let file = TokensPersistency::new(&path, State::Joining, OnCorrupt::Previous);
        delegated("a", vec![registers(State::Active), Arc::new(file), Arc::new(LeaveOnStopping)])
    };
    let world = World::new();
    let first = world.start(options());
    first.published(State::Active).await;
    let tokens = world.entry("a").await.unwrap().tokens.clone();
    first.stop().await;
    let other_world = World::new();
    let second = other_world.start(options());
    second.published(State::Joining).await;
    assert_eq!(other_world.entry("a").await.unwrap().tokens, tokens);
}

#[tokio::test(start_paused = true)]
async fn a_tokens_file_that_must_not_be_broken_prevents_the_start() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("tokens.json");
    std::fs::write(&path, "{broken").unwrap();
    let with = |on_corrupt| Options { tokens_file_path: Some(path.clone()), on_corrupt, ..options("a") };
    let file = TokensPersistency::new(&path, State::Active, OnCorrupt::Fail);
    for options in [with(OnCorrupt::Fail), delegated("a", vec![registers(State::Active), Arc::new(file)])] {
        let world = World::new();
        let instance = world.start(options);
        let error = instance.service.await_running().await.unwrap_err().to_string();
        assert!(error.contains(&path.display().to_string()), "{error}");
        assert_eq!(world.entry("a").await, None);
    }
    // The others live on, the one with the ring's tokens, the other with new ones.
    for (on_corrupt, keeps) in
        [(OnCorrupt::Ring, true), (OnCorrupt::Previous, true), (OnCorrupt::Regenerate, false)]
    {
        // A file of its own for each: whoever joined before may still be writing to its own.
        let path = directory.path().join(format!("{on_corrupt:?}.json"));
        std::fs::write(&path, "{broken").unwrap();
        let world = World::new();
        let tokens = vec![1, 2, 3, 4, 5, 6, 7, 8];
        let entry = InstanceDesc { tokens: tokens.clone().into(), ..InstanceDesc::default() };
        world.client().upsert_own("ring", "a", &entry).await.unwrap();
        let instance = world.start(Options { tokens_file_path: Some(path), ..with(on_corrupt) });
        instance.published(State::Active).await;
        let now = world.entry("a").await.unwrap().tokens.clone();
        assert_eq!(now[..] == tokens[..], keeps, "{on_corrupt:?}: {now:?}");
        assert_eq!(now.len(), 8);
    }
}

#[tokio::test(start_paused = true)]
async fn delegates_are_asked_in_their_order_and_told_of_tokens_once() {
    #[derive(Debug, Default)]
    struct Counts(AtomicUsize);
    impl Delegate for Counts {
        fn on_register(&self, place: Place<'_>, registration: Registration) -> Registration {
            assert_eq!((place.id, place.entry), ("a", None));
            assert_eq!(registration.state, State::Active, "the one before was asked");
            registration
        }
        fn on_tokens(&self, id: &str, tokens: &ringkit_ring::Tokens, state: State) -> Result<(), Error> {
            assert_eq!((id, tokens.len(), state), ("a", 8, State::Active));
            self.0.fetch_add(1, Ordering::Relaxed);
            Ok(())
        }
    }
    let world = World::new();
    let counts = Arc::new(Counts::default());
    let instance =
        world.start(delegated("a", vec![registers(State::Active), Arc::clone(&counts) as Arc<dyn Delegate>]));
    instance.published(State::Active).await;
    sleep(Duration::from_secs(60)).await;
    instance.stop().await;
    assert_eq!(counts.0.load(Ordering::Relaxed), 1);
}

#[tokio::test(start_paused = true)]
async fn ghosts_are_forgotten_and_who_beats_is_not() {
    let world = World::new();
    let rules = AutoForget { after: Duration::from_secs(600), min_healthy_fraction: 0.5 };
    let forgets: Arc<dyn Delegate> = Arc::new(rules);
    let a = world.start(delegated("a", vec![registers(State::Active), forgets]));
    let b = world.start(options("b"));
    a.published(State::Active).await;
    b.published(State::Active).await;
    // One of whom only the entry is left, with a clock that was far ahead.
    let ghost = InstanceDesc { timestamp: world.clock.now_secs() + 86_400, ..InstanceDesc::default() };
    world.client().upsert_own("ring", "ghost", &ghost).await.unwrap();
    sleep(Duration::from_secs(590)).await;
    assert!(world.entry("ghost").await.is_some());
    sleep(Duration::from_secs(30)).await;
    assert_eq!(world.entry("ghost").await, None);
    sleep(Duration::from_secs(3600)).await;
    assert_eq!(world.ring().await.len(), 2, "both live");
}

#[tokio::test(start_paused = true)]
async fn h10_a_heartbeat_timeout_of_zero_forgets_nobody() {
    let world = World::new();
    let forgets: Arc<dyn Delegate> =
        Arc::new(AutoForget { after: Duration::from_secs(10), min_healthy_fraction: 0.0 });
    let options = delegated("a", vec![registers(State::Active), forgets]);
    let a = world.start(Options { heartbeat_timeout: Duration::ZERO, ..options });
    a.published(State::Active).await;
    world.client().upsert_own("ring", "b", &InstanceDesc::default()).await.unwrap();
    sleep(Duration::from_secs(3600)).await;
    assert!(world.entry("b").await.is_some());
}

#[tokio::test(start_paused = true)]
async fn two_processes_under_one_id_are_named() {
    let recorder = metrics_exporter_prometheus::PrometheusBuilder::new().build_recorder();
    let rendered = recorder.handle();
    let world = World { meter: Meter::new(Arc::new(recorder)), ..World::new() };
    let one = world.start(options("a"));
    one.published(State::Active).await;
    sleep(Duration::from_secs(60)).await;
    let rivals = || {
        let text = rendered.render();
        let found = text
            .lines()
            .find_map(|line| line.strip_prefix("ringkit_lifecycler_rivals_total{name=\"ingester\"} "));
        found.map(str::to_owned)
    };
    assert_eq!(rivals().as_deref(), Some("0"));
    let other = world.start(Options { addr: "elsewhere:9095".into(), ..options("a") });
    sleep(Duration::from_secs(120)).await;
    assert!(rivals().is_some_and(|count| count != "0"), "{}", rendered.render());
    other.service.abort();
}

#[tokio::test(start_paused = true)]
async fn a_restart_at_another_address_is_no_rival() {
    let recorder = metrics_exporter_prometheus::PrometheusBuilder::new().build_recorder();
    let rendered = recorder.handle();
    let world = World { meter: Meter::new(Arc::new(recorder)), ..World::new() };
    let one = world.start(options("a"));
    one.published(State::Active).await;
    let tokens = world.entry("a").await.unwrap().tokens.clone();
    one.service.abort();
    sleep(Duration::from_secs(1)).await;
    let next = world.start(Options { addr: "elsewhere:9095".into(), ..options("a") });
    next.published(State::Active).await;
    sleep(Duration::from_secs(120)).await;
    let entry = world.entry("a").await.unwrap();
    assert_eq!((&*entry.addr, &entry.tokens), ("elsewhere:9095", &tokens));
    let text = rendered.render();
    assert!(text.contains("ringkit_lifecycler_rivals_total{name=\"ingester\"} 0"), "{text}");
}
