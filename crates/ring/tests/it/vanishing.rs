//! Readers on a store that forgets: which removals they believe, and when.

use std::sync::Arc;
use std::time::Duration;

use ringkit_kv::{Client, Decision, InMemory};
use ringkit_ring::{Desc, InstanceDesc, Operation, Ring, RingOptions, State};
use ringkit_runtime::{Clock, Jumps, Meter, ServiceHandle};
use tokio::sync::watch;
use tokio::time::{advance, sleep};

use crate::support::active;

const START_MS: i64 = 1_000_000;
const MINUTE: Duration = Duration::from_secs(60);

/// A ring of `i0`, `i1`, … that follows a store in virtual time.
struct World {
    client: Client<Desc>,
    ring: Ring,
    clock: Clock,
    jumps: Jumps,
    meter: Meter,
    changes: watch::Receiver<u64>,
    _service: ServiceHandle,
}

fn id(of: u32) -> String {
    format!("i{of}")
}

impl World {
    async fn new(members: u32) -> Self {
        Self::with(members, RingOptions::default()).await
    }

    async fn with(members: u32, options: RingOptions) -> Self {
        let client = Client::new(Arc::new(InMemory::default()), &Meter::disabled());
        let (clock, jumps) = Clock::jumping(START_MS);
        let meter = Meter::new(Arc::new(metrics::NoopRecorder));
        let (ring, service) = Ring::new(options, client.clone(), clock.clone(), &meter);
        let handle = ServiceHandle::new("ring", Box::new(service));
        handle.start_async().unwrap();
        handle.await_running().await.unwrap();
        let changes = ring.changed();
        let mut world = Self { client, ring, clock, jumps, meter, changes, _service: handle };
        world.beat(0..members).await;
        world.changes.mark_unchanged();
        world
    }

    fn entry(&self, of: u32, state: State) -> InstanceDesc {
        let (_, entry) = active(&id(of), "z", &[of, 1000 + of]);
        InstanceDesc { timestamp: self.clock.now_secs(), state, ..entry }
    }

    /// These write their entries, or write them again.
    async fn beat(&self, of: impl IntoIterator<Item = u32>) {
        self.put(of, State::Active).await;
    }

    async fn put(&self, of: impl IntoIterator<Item = u32>, state: State) {
        for of in of {
            self.client.upsert_own("ring", &id(of), &self.entry(of, state)).await.unwrap();
        }
        self.settle().await;
    }

    /// The store loses these in one step.
    async fn lose(&self, of: impl IntoIterator<Item = u32>) {
        let gone: Vec<_> = of.into_iter().map(id).collect();
        let lose = |desc: Option<&Desc>| {
            let mut desc = desc.cloned().unwrap_or_default();
            desc.retain(|id, _| !gone.iter().any(|gone| gone == id));
            Decision::Write(desc, ())
        };
        self.client.cas("ring", lose).await.unwrap();
        self.settle().await;
    }

    /// Lets the reader take in what was written.
    async fn settle(&self) {
        sleep(Duration::from_millis(1)).await;
    }

    fn served(&self) -> usize {
        self.ring.snapshot().instances().len()
    }

    fn serves(&self, of: u32) -> bool {
        self.ring.snapshot().instance(&id(of)).is_some()
    }

    fn healthy(&self, of: u32) -> bool {
        self.ring.snapshot().is_healthy(&id(of), Operation::WRITE, self.ring.clock().now_secs())
    }

    /// Members held back, and how often that began, as shown to operators.
    fn held(&self) -> (u64, u64) {
        let text = self.meter.render_collected();
        let value = |name: &str| {
            let line = text.lines().find(|line| line.starts_with(name));
            line.and_then(|line| line.rsplit(' ').next()).unwrap().parse().unwrap()
        };
        (
            value(r#"ringkit_ring_vanish_held_members{name="ingester"}"#),
            value(r#"ringkit_ring_vanish_holds_total{name="ingester"}"#),
        )
    }

    fn notified(&mut self) -> bool {
        let changed = self.changes.has_changed().unwrap();
        self.changes.mark_unchanged();
        changed
    }
}

#[tokio::test(start_paused = true)]
async fn a_store_that_restarts_empty_and_refills_moves_nothing_and_wakes_nobody() {
    let mut world = World::new(10).await;
    let before = world.ring.snapshot();
    world.client.delete("ring").await.unwrap();
    world.settle().await;
    assert_eq!((world.served(), world.held()), (10, (0, 0)), "an absent key is no news");
    for of in 0..10 {
        sleep(Duration::from_secs(1)).await;
        world.beat([of]).await;
        assert_eq!(world.served(), 10);
        assert_eq!(world.held(), (9 - u64::from(of), 1));
    }
    let after = world.ring.snapshot();
    assert!(std::ptr::eq(before.tokens(), after.tokens()), "no table was built anew");
    assert!(!world.notified());
    assert_eq!(after.seen("i3"), Some(START_MS / 1000 + 4));
}

#[tokio::test(start_paused = true)]
async fn an_empty_ring_in_the_store_is_held_back_like_a_lost_one() {
    let mut world = World::new(3).await;
    world.lose(0..3).await;
    assert_eq!((world.served(), world.held()), (3, (3, 1)));
    sleep(MINUTE).await;
    assert_eq!((world.served(), world.held()), (0, (0, 1)), "but not for ever");
    assert!(world.notified());
}

#[tokio::test(start_paused = true)]
async fn half_may_leave_and_who_said_so_may_all_leave_at_once() {
    let mut world = World::new(10).await;
    world.put(0..7, State::Leaving).await;
    world.lose(0..7).await;
    assert_eq!((world.served(), world.held()), (3, (0, 0)));
    assert!(world.notified());
    world.put(7..10, State::Left).await;
    world.lose(7..10).await;
    assert_eq!((world.served(), world.held()), (0, (0, 0)));
}

#[tokio::test(start_paused = true)]
async fn the_dead_may_all_be_forgotten_at_once() {
    let world = World::new(10).await;
    sleep(MINUTE + Duration::from_secs(1)).await;
    world.beat(0..3).await;
    world.lose(3..10).await;
    assert_eq!((world.served(), world.held()), (3, (0, 0)));
}

#[tokio::test(start_paused = true)]
async fn a_loss_in_steps_is_noticed() {
    let world = World::new(10).await;
    for of in [0, 2, 4, 6] {
        world.lose([of, of + 1]).await;
        sleep(Duration::from_secs(2)).await;
    }
    assert_eq!((world.served(), world.held()), (6, (4, 1)), "no more than half of them");
    sleep(MINUTE).await;
    assert_eq!((world.served(), world.held()), (2, (0, 1)));
}

#[tokio::test(start_paused = true)]
async fn a_rolling_removal_is_never_held_back() {
    let world = World::new(10).await;
    for of in 0..10 {
        world.lose([of]).await;
        assert!(!world.serves(of));
        sleep(Duration::from_secs(1)).await;
        world.beat([of]).await;
    }
    for of in 0..10 {
        world.put([of], State::Leaving).await;
        world.lose([of]).await;
        assert!(!world.serves(of));
    }
    assert_eq!(world.held(), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_store_that_was_silent_for_long_and_returns_empty_is_not_believed() {
    let world = World::new(10).await;
    sleep(10 * MINUTE).await;
    // One write of the first to notice: all others are gone.
    let first = world.entry(3, State::Active);
    let empty =
        |_: Option<&Desc>| Decision::Write([(id(3), first.clone())].into_iter().collect::<Desc>(), ());
    world.client.cas("ring", empty).await.unwrap();
    world.settle().await;
    assert_eq!((world.served(), world.held()), (10, (9, 1)));
}

/// As when each unregisters right after it said that it was LEAVING, and the reader sees only that it is gone.
#[tokio::test(start_paused = true)]
async fn those_who_go_one_after_the_other_without_a_word_are_not_held_back() {
    let world = World::new(10).await;
    for of in 0..10 {
        world.lose([of]).await;
        assert!(!world.serves(of));
    }
    assert_eq!(world.held(), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn those_held_back_die_like_all_who_fall_silent() {
    let options = RingOptions { vanish_grace: Some(5 * MINUTE), ..RingOptions::default() };
    let world = World::with(4, options).await;
    world.lose(0..3).await;
    sleep(MINUTE - Duration::from_secs(1)).await;
    assert!(world.healthy(0));
    world.beat([3]).await;
    sleep(Duration::from_secs(2)).await;
    assert!(!world.healthy(0) && world.serves(0) && world.healthy(3));
    sleep(4 * MINUTE).await;
    assert!(!world.serves(0) && world.serves(3));
}

#[tokio::test(start_paused = true)]
async fn all_but_removals_passes_meanwhile() {
    let mut world = World::new(6).await;
    world.lose(0..4).await;
    assert!(!world.notified());
    world.put([4], State::Leaving).await;
    assert_eq!(world.ring.snapshot().instance("i4").unwrap().state(), State::Leaving);
    assert!(world.notified());
    world.beat([7]).await;
    assert!(world.serves(7) && world.serves(0) && world.notified());
    assert_eq!(world.ring.snapshot().tokens().len(), 14);
    world.lose([4]).await;
    assert!(!world.serves(4) && world.serves(0), "who said goodbye goes");
    world.beat([0]).await;
    assert_eq!(world.held(), (3, 1));
    let moved = InstanceDesc { zone: "y".into(), tokens: vec![77].into(), ..world.entry(1, State::Active) };
    world.client.upsert_own("ring", "i1", &moved).await.unwrap();
    world.settle().await;
    assert!(world.ring.snapshot().tokens().contains(&77), "who is back is as it is now");
    sleep(MINUTE).await;
    let left: Vec<_> = world.ring.snapshot().instances().iter().map(|member| member.id.to_string()).collect();
    assert_eq!(left, ["i0", "i1", "i5", "i7"]);
    assert!(world.notified());
}

#[tokio::test(start_paused = true)]
async fn a_key_that_vanishes_during_a_hold_keeps_everybody() {
    let world = World::new(6).await;
    world.lose(0..5).await;
    world.client.delete("ring").await.unwrap();
    sleep(10 * MINUTE).await;
    assert_eq!((world.served(), world.held()), (6, (5, 1)));
    world.beat([1]).await;
    assert_eq!(
        (world.served(), world.held()),
        (6, (5, 1)),
        "nobody could be heard meanwhile: the sixth is lost too"
    );
    sleep(MINUTE).await;
    assert_eq!((world.served(), world.held()), (1, (0, 1)));
}

#[tokio::test(start_paused = true)]
async fn switched_off_every_word_of_the_store_is_believed() {
    let off = RingOptions { max_vanish_fraction: 0.0, ..RingOptions::default() };
    let at_once = RingOptions { vanish_grace: Some(Duration::ZERO), ..RingOptions::default() };
    for options in [off, at_once] {
        let world = World::with(10, options).await;
        world.lose(1..10).await;
        assert_eq!((world.served(), world.held()), (1, (0, 0)));
    }
    let small = World::new(2).await;
    small.lose(0..2).await;
    assert_eq!(small.served(), 0);
}

#[tokio::test(start_paused = true)]
async fn without_a_heartbeat_timeout_a_minute_is_waited() {
    let options = RingOptions { heartbeat_timeout: Duration::ZERO, ..RingOptions::default() };
    let world = World::with(10, options).await;
    world.lose(0..9).await;
    sleep(MINUTE - Duration::from_secs(1)).await;
    assert_eq!(world.served(), 10);
    sleep(Duration::from_secs(1)).await;
    assert_eq!(world.served(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_reader_whose_clock_jumps_loses_nobody_and_keeps_no_dead() {
    for hour in [3_600_000, -3_600_000] {
        let world = World::new(2).await;
        advance(Duration::from_secs(30)).await;
        world.jumps.jump_ms(hour);
        assert!(world.healthy(0) && world.healthy(1));
        // The others' clocks are right: their timestamps go on as before.
        world.jumps.jump_ms(-hour);
        world.beat([0]).await;
        world.jumps.jump_ms(hour);
        advance(Duration::from_secs(32)).await;
        assert!(world.healthy(0), "{hour}");
        assert!(!world.healthy(1), "silent for more than a minute, {hour}");
    }
}
