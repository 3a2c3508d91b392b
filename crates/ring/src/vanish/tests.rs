use std::collections::BTreeSet;

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

const GRACE: Duration = Duration::from_secs(60);

/// A store and a reader of it, in which the guard decides; members never age.
struct World {
    guard: Guard,
    started: Instant,
    now: Instant,
    stored: BTreeSet<EntryId>,
    served: BTreeSet<EntryId>,
    /// Losses let go at once.
    let_go: Vec<(Instant, EntryId)>,
}

fn ids(of: impl IntoIterator<Item = u32>) -> BTreeSet<EntryId> {
    of.into_iter().map(|id| format!("i{id}").into()).collect()
}

impl World {
    fn new(max_fraction: f64, members: u32) -> Self {
        let now = Instant::now();
        let all = ids(0..members);
        let guard = Guard::new(max_fraction, GRACE);
        Self { guard, started: now, now, stored: all.clone(), served: all, let_go: Vec::new() }
    }

    fn at(&mut self, seconds: u64) -> Option<Event> {
        self.now = self.started + Duration::from_secs(seconds);
        let (released, event) = self.guard.handle_time(self.now);
        let (stored, guard) = (&self.stored, &self.guard);
        let before = self.served.len();
        self.served.retain(|id| stored.contains(id) || guard.holds(id));
        assert_eq!(released, self.served.len() < before);
        event
    }

    /// The store now holds `stored`; of those that are gone `graceful` said that they would.
    fn update(&mut self, stored: BTreeSet<EntryId>, graceful: &BTreeSet<EntryId>) -> Vec<Event> {
        let present: Vec<_> = stored.difference(&self.stored).cloned().collect();
        let gone: Vec<_> =
            self.served.difference(&stored).filter(|id| !self.guard.holds(id)).cloned().collect();
        let lost: Vec<_> = gone.iter().filter(|id| !graceful.contains(*id)).cloned().collect();
        let served = self.served.clone();
        let events = self.guard.handle_update(self.now, &present, lost.clone(), |guard| Served {
            members: served.len(),
            losable: served.iter().filter(|id| !guard.holds(id)).count(),
        });
        self.let_go.extend(lost.into_iter().filter(|id| !self.guard.holds(id)).map(|id| (self.now, id)));
        self.let_go.retain(|(_, id)| !stored.contains(id));
        self.served = stored.iter().cloned().chain(self.guard.held().cloned()).collect();
        self.stored = stored;
        events
    }

    fn stores(&mut self, stored: impl IntoIterator<Item = u32>) -> Vec<Event> {
        self.update(ids(stored), &BTreeSet::new())
    }
}

fn alarm(lost: usize, of: usize, held: usize) -> Alarm {
    Alarm { lost, of, held }
}

#[test]
fn half_may_vanish_and_more_may_not() {
    let mut world = World::new(0.5, 10);
    assert_eq!(world.stores(5..10), []);
    assert_eq!(world.served, ids(5..10));
    let mut world = World::new(0.5, 10);
    assert_eq!(world.stores(6..10), [Event::Began(alarm(6, 10, 6))]);
    assert_eq!(world.served, ids(0..10));
}

#[test]
fn a_hold_ends_when_all_are_back_and_not_before() {
    let mut world = World::new(0.5, 10);
    world.stores([0]);
    world.at(10);
    assert_eq!(world.stores(0..9), [], "one is missing, and will be waited for");
    assert_eq!(world.served, ids(0..10));
    assert_eq!(world.stores(0..10), [Event::Ended(Ended { returned: 9, let_go: 0 })]);
    assert_eq!(world.guard.deadline(), None);
}

#[test]
fn who_does_not_return_is_let_go_after_the_grace_period() {
    let mut world = World::new(0.5, 10);
    world.stores(0..2);
    world.stores(0..4);
    assert_eq!(world.at(59), None);
    assert_eq!(world.served, ids(0..10));
    assert_eq!(world.at(60), Some(Event::Ended(Ended { returned: 2, let_go: 6 })));
    assert_eq!(world.served, ids(0..4));
    assert_eq!(world.stores(0..3), [], "what was held back in full does not count any more");
    assert_eq!(world.served, ids(0..3));
}

#[test]
fn losses_in_steps_count_together_and_what_went_before_stays_gone() {
    let mut world = World::new(0.5, 10);
    for (second, left) in [(0, 8), (15, 6), (45, 5)] {
        world.at(second);
        assert_eq!(world.stores(0..left), [], "{left}");
    }
    world.at(59);
    assert_eq!(world.stores(0..3), [Event::Began(alarm(7, 10, 2))], "who went alone counts as well");
    assert_eq!(world.stores(0..2), [Event::Grew(alarm(8, 10, 3))]);
    assert_eq!(world.served, ids(0..5));
    assert_eq!(world.at(119), Some(Event::Ended(Ended { returned: 0, let_go: 3 })));
    assert_eq!(world.served, ids(0..2));
}

#[test]
fn losses_that_are_a_grace_period_apart_do_not_count_together() {
    let mut world = World::new(0.5, 10);
    assert_eq!(world.stores(0..5), []);
    world.at(60);
    assert_eq!(world.stores(0..3), []);
}

#[test]
fn each_loss_is_held_back_for_a_grace_period_of_its_own() {
    let mut world = World::new(0.5, 10);
    world.stores(0..4);
    world.at(50);
    world.stores(0..3);
    assert_eq!(world.at(60), None);
    assert_eq!(world.served, ids(0..4));
    assert!(world.at(110).is_some());
    assert_eq!(world.served, ids(0..3));
}

#[test]
fn a_rolling_replacement_is_never_held_back() {
    let mut world = World::new(0.5, 10);
    for (second, restarted) in (0..).zip(0..10) {
        world.at(second);
        assert_eq!(world.stores((0..10).filter(|id| *id != restarted)), []);
        assert_eq!(world.served.len(), 9, "{restarted} is gone at once");
        assert_eq!(world.stores(0..10), []);
    }
}

#[test]
fn those_who_said_so_may_all_leave() {
    let mut world = World::new(0.5, 10);
    assert_eq!(world.update(ids([0]), &ids(1..10)), []);
    assert_eq!(world.served, ids([0]));
}

#[test]
fn small_rings_and_single_losses_are_not_held_back() {
    let mut world = World::new(0.5, 2);
    assert_eq!(world.stores([]), []);
    let mut world = World::new(0.1, 10);
    for left in (0..10).rev() {
        assert_eq!(world.stores(0..left), [], "one after the other");
        assert_eq!(world.served, ids(0..left));
    }
    let mut world = World::new(0.5, 3);
    world.stores(0..2);
    assert_eq!(world.stores([]), [Event::Began(alarm(3, 3, 2))], "the ring counts as of before");
    let mut world = World::new(0.1, 4);
    assert_eq!(world.stores(0..2), [Event::Began(alarm(2, 4, 2))]);
}

#[test]
fn zero_switches_it_off() {
    for (fraction, grace) in [(0.0, GRACE), (0.5, Duration::ZERO)] {
        let mut world = World::new(fraction, 10);
        world.guard = Guard::new(fraction, grace);
        assert_eq!(world.stores([]), []);
        assert_eq!(world.served, ids([]));
    }
}

#[test]
fn time_without_the_key_is_no_grace() {
    let mut world = World::new(0.5, 10);
    world.stores(0..2);
    world.guard.handle_absent();
    assert_eq!(world.guard.deadline(), None);
    assert_eq!(world.at(1000), None);
    assert_eq!(world.stores(0..3), []);
    assert_eq!(world.served, ids(0..10));
    assert_eq!(world.guard.deadline(), Some(world.now + GRACE));
}

fn recent_since(let_go: &[(Instant, EntryId)], now: Instant) -> usize {
    let_go.iter().filter(|(at, _)| *at == now).map(|(_, id)| id).collect::<BTreeSet<_>>().len()
}

proptest! {
    /// Whatever a store does: nobody is served who is neither stored nor held back, nobody is held back for more than a
    /// grace period, and within any grace period no more than the fraction is lost at once.
    #[test]
    fn no_grace_period_loses_more_than_the_fraction(
        fraction in 0.05f64..0.95, members in 0u32..20,
        steps in vec((0u64..40, vec(0u32..20, 0..12), vec(0u32..20, 0..6), any::<bool>()), 0..20),
    ) {
        let mut world = World::new(fraction, members);
        let (mut second, mut held_since) = (0, BTreeMap::new());
        for (later, gone, back, graceful) in steps {
            second += later + 1;
            world.at(second);
            let (gone, back) = (ids(gone), ids(back));
            let stored: BTreeSet<_> = world.stored.difference(&gone).chain(&back).cloned().collect();
            let before = world.served.len();
            let events = world.update(stored, &if graceful { gone } else { BTreeSet::new() });

            let held: BTreeSet<EntryId> = world.guard.held().cloned().collect();
            prop_assert!(held.is_disjoint(&world.stored));
            held_since.retain(|id, _| held.contains(id));
            for id in held {
                let since = *held_since.entry(id).or_insert(world.now);
                prop_assert!(world.now - since < GRACE);
            }
            let now = world.now;
            let recent = world.let_go.iter().filter(|(at, _)| now < *at + GRACE);
            let recent: BTreeSet<_> = recent.map(|(_, id)| id).collect();
            let now_gone = recent_since(&world.let_go, now);
            let all = before + recent.len() - now_gone;
            prop_assert!(
                now_gone < MIN_LOST
                    || all < MIN_MEMBERS || recent.len() as f64 <= fraction * all as f64,
                "{} of {all} lost", recent.len(),
            );
            prop_assert_eq!(
                world.guard.deadline().is_none(),
                held_since.is_empty(),
                "somebody wakes up for those who are held back"
            );
            if let Some(Event::Began(alarm) | Event::Grew(alarm)) = events.last() {
                prop_assert!(alarm.lost as f64 > fraction * alarm.of as f64, "held back for a reason");
                prop_assert_eq!(alarm.held, held_since.len());
            }
        }
        for _ in 0..2 {
            second += GRACE.as_secs();
            world.at(second);
        }
        prop_assert_eq!(&world.served, &world.stored, "in the end the store is believed");
    }
}
