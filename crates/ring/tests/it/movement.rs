//! What moves when a ring changes, and how evenly it lies.

use std::collections::BTreeSet;

use proptest::collection::vec;
use proptest::prelude::*;
use ringkit_ring::{
    Balance, Desc, InstanceDesc, Movement, Operation, RingOptions, ShardMovement, Snapshot, State,
    Strategy as Filter, TokenGenerator,
};

use crate::support::active;

/// A circle of 256 cells, all of them equally long: tokens are multiples of it.
const CELL: u32 = 1 << 24;

fn options(replication_factor: usize, zone_awareness_enabled: bool) -> RingOptions {
    RingOptions { replication_factor, zone_awareness_enabled, ..RingOptions::default() }
}

fn snapshot(ring: &Desc, options: &RingOptions) -> Snapshot {
    Snapshot::first_sight(ring, 1000, options)
}

/// Instances `z0-0`, `z1-0`, …, each with 128 random tokens, in `zones` zones in turn.
fn random_ring(instances: usize, zones: usize, seed: u64) -> Desc {
    let mut generator = TokenGenerator::random(Some(seed));
    let mut ring = Desc::new();
    for number in 0..instances {
        let zone = format!("z{}", number % zones);
        let tokens = generator.generate(128, &ring);
        let (id, entry) = active(&format!("{zone}-{}", number / zones), &zone, &tokens);
        ring.insert(id, entry);
    }
    ring
}

fn without(ring: &Desc, gone: impl Fn(&str, &InstanceDesc) -> bool) -> Desc {
    let mut ring = ring.clone();
    ring.retain(|id, entry| !gone(id, entry));
    ring
}

fn near(value: f64, expected: f64, tolerance: f64) {
    assert!((value - expected).abs() <= tolerance, "{value} is not within {tolerance} of {expected}");
}

#[test]
fn a_small_ring_is_measured_to_the_position() {
    let half = 1 << 31;
    let old: Desc = [active("a", "", &[half])].into_iter().collect();
    let new: Desc = [active("a", "", &[half]), active("b", "", &[half / 2])].into_iter().collect();
    let one = options(1, false);
    let join = Movement::between(&snapshot(&old, &one), &snapshot(&new, &one));
    // `b` takes what lies from `a`'s token around to its own: three quarters of the circle.
    let quarter = u64::from(half / 2);
    let a = &join.holdings()[0];
    assert_eq!(
        (a.before, a.after, a.taken, a.given, a.owns),
        (4 * quarter, quarter, 0, 3 * quarter, (true, true))
    );
    let b = &join.holdings()[1];
    assert_eq!(
        (b.before, b.after, b.taken, b.given, b.owns),
        (0, 3 * quarter, 3 * quarter, 0, (false, true))
    );
    assert_eq!(
        (join.changed(), join.moved(), join.least_moved(), join.even_moved()),
        (0.75, 0.75, 0.75, 0.5)
    );
    assert_eq!((join.takers(), join.givers(), join.newcomer_quorum()), (1, 1, 0.75));
    assert_eq!(join.balance(), Balance { max_over_mean: 1.5, min_over_mean: 0.5, variation: 0.5 });
    assert_eq!(join.balance(), Balance::of_ranges(&snapshot(&new, &one)));

    // With two replicas the second instance copies everything and nobody gives anything up.
    let two = options(2, false);
    let join = Movement::between(&snapshot(&old, &two), &snapshot(&new, &two));
    assert_eq!((join.changed(), join.moved(), join.even_moved(), join.givers()), (1.0, 0.5, 0.5, 0));
    assert_eq!((join.mean_replicas(), join.fewest_replicas()), ((1.0, 2.0), (1, 2)));
    assert_eq!(join.newcomer_quorum(), 0.0);
}

#[test]
fn rings_without_tokens_hold_nothing_and_the_first_instance_takes_all() {
    let (none, all) = (Desc::new(), random_ring(1, 1, 1));
    let three = options(3, false);
    let (none, all) = (snapshot(&none, &three), snapshot(&all, &three));
    let nothing = Movement::between(&none, &none);
    assert_eq!((nothing.changed(), nothing.moved(), nothing.mean_replicas()), (0.0, 0.0, (0.0, 0.0)));
    assert_eq!((nothing.balance(), Balance::of_ranges(&none)), (Balance::default(), Balance::default()));
    let first = Movement::between(&none, &all);
    assert_eq!((first.changed(), first.moved(), first.even_moved()), (1.0, 1.0, 1.0));
    assert_eq!(first.newcomer_quorum(), 0.0, "nobody held anything that could be missed");
    let last = Movement::between(&all, &none);
    assert_eq!((last.changed(), last.moved(), last.givers(), last.takers()), (1.0, 0.0, 1, 0));
    assert_eq!(last.fewest_replicas(), (1, 0));
}

#[test]
fn the_nth_instance_takes_about_one_nth_and_leaves_as_cheaply() {
    for (zones, zone_aware) in [(1, false), (3, true)] {
        let ring = random_ring(31, zones, 7);
        let options = options(3, zone_aware);
        let new = snapshot(&ring, &options);
        let old = snapshot(&without(&ring, |id, _| id == format!("z0-{}", 30 / zones)), &options);
        let join = Movement::between(&old, &new);
        // In a zone-aware ring the eleventh instance of its zone takes an eleventh of one replica of three.
        let expected = if zone_aware { 1.0 / 33.0 } else { 1.0 / 31.0 };
        near(join.even_moved(), expected, 1e-9);
        near(join.moved(), expected, 0.25 * expected);
        near(join.changed(), 3.0 * join.moved(), 1e-9);
        assert_eq!((join.takers(), join.least_moved()), (1, join.moved()));
        assert_eq!(join.newcomer_quorum(), 0.0);
        let leave = Movement::between(&new, &old);
        assert_eq!((leave.moved(), leave.changed(), leave.givers()), (join.moved(), join.changed(), 1));
    }
}

#[test]
fn a_zone_that_leaves_is_replaced_by_the_others_and_a_fourth_takes_a_quarter() {
    let ring = random_ring(40, 4, 3);
    let options = options(3, true);
    let four = snapshot(&ring, &options);
    let three = snapshot(&without(&ring, |_, entry| entry.zone == "z3"), &options);
    let two = snapshot(&without(&ring, |_, entry| matches!(entry.zone.as_str(), "z2" | "z3")), &options);
    let leave = Movement::between(&three, &two);
    // Each key has lost one replica of three and finds another in one of the two zones that are left.
    assert_eq!((leave.changed(), leave.moved(), leave.takers(), leave.givers()), (1.0, 1.0 / 3.0, 20, 10));
    near(leave.even_moved(), 1.0 / 3.0, 1e-9);
    let join = Movement::between(&three, &four);
    near(join.moved(), 0.25, 0.02);
    near(join.even_moved(), 0.25, 0.02);
    assert_eq!(join.takers(), 10);
}

#[test]
fn ranges_are_compared_within_their_zone_and_shared_tokens_count_once() {
    let quarter = 1 << 30;
    let ring: Desc = [
        active("a", "x", &[0, quarter]),
        active("b", "x", &[2 * quarter]),
        // The only instance of a zone owns all of it; so does it where one of its tokens is claimed twice.
        active("c", "y", &[5, 5, 9]),
        active("d", "z", &[]),
    ]
    .into_iter()
    .collect();
    let balance = Balance::of_ranges(&snapshot(&ring, &options(3, true)));
    assert_eq!((balance.max_over_mean, balance.min_over_mean), (1.5, 0.5));
    near(balance.variation, (0.5_f64 / 3.0).sqrt(), 1e-12);
}

#[test]
fn one_more_instance_changes_few_shards_and_each_by_one_member() {
    let ring = random_ring(31, 3, 5);
    let options = options(3, true);
    let tenants: Vec<String> = (0..500).map(|number| format!("tenant-{number}")).collect();
    let new = snapshot(&ring, &options);
    let old = snapshot(&without(&ring, |id, _| id == "z0-10"), &options);
    let still = ShardMovement::between(&new, &new, &tenants, 6);
    assert_eq!((still.tenants, still.changed, still.members, still.joined, still.left), (500, 0, 3000, 0, 0));
    let join = ShardMovement::between(&old, &new, &tenants, 6);
    // Two of the eleven instances of the zone are in a shard.
    assert_eq!(
        (join.changed, join.joined, join.left, join.most_joined),
        (join.joined, join.left, join.joined, 1)
    );
    near(join.changed as f64 / 500.0, 2.0 / 11.0, 0.06);
    let whole = ShardMovement::between(&old, &new, &tenants, 0);
    assert_eq!((whole.changed, whole.members, whole.joined, whole.left), (500, 500 * 31, 500, 0));
}

/// Any ring whose tokens are multiples of [`CELL`]: any states, tokens claimed twice, instances without tokens or zone.
fn cell_ring() -> impl Strategy<Value = Desc> {
    let states: Vec<State> =
        State::KNOWN.into_iter().chain([State::Unknown(9), State::Unknown(77)]).collect();
    let entry = (vec(0..256u32, 0..6), 0..5usize, prop::sample::select(states));
    prop::collection::btree_map(0..9u8, entry, 0..8).prop_map(|members| {
        let entry = |(tokens, zone, state): (Vec<u32>, usize, State)| InstanceDesc {
            tokens: tokens.into_iter().map(|cell| cell * CELL).collect(),
            zone: ["", "x", "y", "z", "z"][zone].into(),
            state,
            ..InstanceDesc::default()
        };
        members.into_iter().map(|(id, member)| (format!("i{id}"), entry(member))).collect()
    })
}

/// The same ring with everybody ACTIVE and heard of, in which one replica is enough.
fn healthy(ring: &Desc, options: &RingOptions) -> Snapshot {
    let heal = |entry: &InstanceDesc| InstanceDesc { state: State::Active, timestamp: 1000, ..entry.clone() };
    let ring: Desc = ring.iter().map(|(id, entry)| (id.clone(), heal(entry))).collect();
    snapshot(&ring, &RingOptions { strategy: Filter::IgnoreUnhealthy, ..options.clone() })
}

fn ids(ring: &Snapshot, key: u32) -> BTreeSet<String> {
    let set = ring.get(key, Operation::WRITE, 1000);
    set.map(|set| set.ids().map(ToString::to_string).collect()).unwrap_or_default()
}

proptest! {
    #[test]
    fn the_measure_agrees_with_lookups_in_every_cell_of_the_circle(
        old in cell_ring(), new in cell_ring(), factors in (1..5usize, 1..5usize), zones: (bool, bool),
    ) {
        let (before, after) = (options(factors.0, zones.0), options(factors.1, zones.1));
        let movement = Movement::between(&snapshot(&old, &before), &snapshot(&new, &after));
        let looked_up = (healthy(&old, &before), healthy(&new, &after));
        let cell = u64::from(CELL);
        let (mut changed, mut sums) = (0, std::collections::BTreeMap::<String, [u64; 4]>::new());
        for key in (0..256).map(|number| number * CELL) {
            let (was, is) = (ids(&looked_up.0, key), ids(&looked_up.1, key));
            changed += u32::from(was != is);
            was.iter().for_each(|id| sums.entry(id.clone()).or_default()[0] += cell);
            is.iter().for_each(|id| sums.entry(id.clone()).or_default()[1] += cell);
            is.difference(&was).for_each(|id| sums.entry(id.clone()).or_default()[2] += cell);
            was.difference(&is).for_each(|id| sums.entry(id.clone()).or_default()[3] += cell);
        }
        prop_assert_eq!(movement.changed(), f64::from(changed) / 256.0);
        for holding in movement.holdings() {
            let sums = sums.remove(holding.id.as_str()).unwrap_or_default();
            prop_assert_eq!([holding.before, holding.after, holding.taken, holding.given], sums, "{}", holding.id);
        }
        prop_assert_eq!(sums.len(), 0);
    }

    #[test]
    fn a_ring_that_stays_moves_nothing_and_the_way_back_mirrors_the_way(
        old in cell_ring(), new in cell_ring(), factor in 1..5usize, zone_aware: bool,
    ) {
        let options = options(factor, zone_aware);
        let (old, new) = (snapshot(&old, &options), snapshot(&new, &options));
        let still = Movement::between(&old, &old);
        prop_assert_eq!((still.changed(), still.moved(), still.even_moved(), still.newcomer_quorum()), (0.0, 0.0, 0.0, 0.0));
        let (there, back) = (Movement::between(&old, &new), Movement::between(&new, &old));
        prop_assert_eq!(there.changed(), back.changed());
        prop_assert_eq!(there.mean_replicas(), (back.mean_replicas().1, back.mean_replicas().0));
        for (there, back) in there.holdings().iter().zip(back.holdings()) {
            prop_assert_eq!((there.taken, there.given), (back.given, back.taken));
            prop_assert_eq!(there.after + there.given, there.before + there.taken);
        }
        prop_assert!(there.least_moved() <= there.moved() + 1e-12);
        prop_assert!(there.moved() <= 1.0 && there.newcomer_quorum() <= there.changed());
    }
}
