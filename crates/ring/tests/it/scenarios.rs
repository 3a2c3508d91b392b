//! Scenarios of Cortex's and dskit's own suites that neither vectors nor laws cover by name.

use std::collections::BTreeMap;
use std::time::Duration;

use proptest::prelude::*;
use ringkit_ring::{
    Desc, Error, InstanceDesc, Operation, RingOptions, Snapshot, State, Tokens, find_difference, merge,
};

use crate::answers;
use crate::support::active;

const NOW: i64 = 1000;

use State::{Active, Joining, Leaving, Left, Pending, ReadOnly};

fn ring<const N: usize>(entries: [(&str, State, i64, &[u32]); N]) -> Desc {
    let entry = |(id, state, timestamp, tokens): (&str, State, i64, &[u32])| {
        (id.to_owned(), InstanceDesc { state, timestamp, ..active(id, "", tokens).1 })
    };
    entries.map(entry).into_iter().collect()
}

fn seen(desc: &Desc, options: &RingOptions) -> Snapshot {
    Snapshot::first_sight(desc, NOW, options)
}

#[test]
fn an_instance_is_healthy_for_what_its_state_allows_while_it_is_heard() {
    let serves =
        [(Active, true, true), (Leaving, false, true), (Joining, false, true), (Pending, false, true)];
    let serves = serves.into_iter().chain([(Left, false, false), (ReadOnly, false, true)]);
    for (state, writes, reads) in serves {
        for (age, minute, fresh) in [(60, 60, true), (61, 60, false), (10_000, 0, true)] {
            let options =
                RingOptions { heartbeat_timeout: Duration::from_secs(minute), ..RingOptions::default() };
            let snapshot = seen(&ring([("a", state, NOW - age, &[1])]), &options);
            let healthy = |op| snapshot.is_healthy("a", op, NOW);
            let found = [Operation::WRITE, Operation::READ, Operation::REPORTING].map(healthy);
            assert_eq!(found, [writes && fresh, reads && fresh, fresh], "{state}, {age} s old");
        }
    }
}

#[test]
fn an_entry_that_is_added_again_replaces_all_of_the_old_one() {
    let mut desc = ring([("a", Leaving, NOW, &[1, 2])]);
    desc.insert("a", active("a", "z", &[3]).1);
    assert_eq!((desc.len(), desc.all_tokens()), (1, vec![3]));
    assert_eq!(desc.get("a").unwrap().state, Active);
}

#[test]
fn lists_of_tokens_are_equal_if_they_hold_the_same_in_the_same_order() {
    let list = |tokens: &[u32]| Tokens::from(tokens);
    assert_eq!(list(&[]), Tokens::empty());
    assert_eq!(list(&[1, 2]), list(&[1, 2]));
    for other in [&[][..], &[1], &[2, 1], &[1, 3], &[1, 2, 2]] {
        assert_ne!(list(&[1, 2]), list(other));
    }
}

#[test]
fn all_tokens_come_sorted_from_no_one_and_many_lists() {
    assert!(Desc::new().all_tokens().is_empty());
    assert_eq!(ring([("a", Active, 1, &[3, 1])]).all_tokens(), [1, 3]);
    let many = ring([("a", Active, 1, &[u32::MAX, 0]), ("b", Active, 1, &[]), ("c", Left, 1, &[0, 7])]);
    assert_eq!(many.all_tokens(), [0, 0, 7, u32::MAX], "what is claimed twice is there twice");
}

#[test]
fn from_an_absent_ring_everything_is_written_and_to_one_everything_deleted() {
    let some = ring([("a", Active, 5, &[1]), ("b", Left, 5, &[])]);
    assert_eq!(find_difference(None, None), ringkit_ring::Difference::default());
    assert_eq!(find_difference(None, Some(&mut some.clone())).to_update, some);
    assert_eq!(find_difference(Some(&some), None).to_delete, ["a", "b"]);
    let to_empty = find_difference(Some(&some), Some(&mut Desc::new()));
    assert_eq!((to_empty.to_update.len(), to_empty.to_delete.len()), (0, 2));
    let same = find_difference(Some(&some), Some(&mut some.clone()));
    assert!(same.to_update.is_empty() && same.to_delete.is_empty());
    let mut older = ring([("a", Leaving, 4, &[1]), ("b", Active, 5, &[])]);
    let older = find_difference(Some(&some), Some(&mut older));
    assert!(older.to_update.is_empty(), "older and equally old entries never overwrite");
}

#[test]
fn a_joiner_takes_over_the_tokens_of_a_leaver_in_whatever_order_they_arrive() {
    let (leaver, joiner) = (ring([("a", Leaving, NOW, &[1, 2])]), ring([("b", Joining, NOW, &[1, 2])]));
    let mut ends = Vec::new();
    for order in [[&leaver, &joiner], [&joiner, &leaver]] {
        let mut local = Desc::new();
        order.iter().for_each(|incoming| drop(merge(&mut local, incoming, false, NOW)));
        assert_eq!(local.get("b").unwrap().tokens.as_slice(), [1, 2]);
        ends.push(local);
    }
    assert_eq!(ends[0], ends[1]);
    // Whatever else they are, the smaller id keeps them.
    for (first, second) in [(Joining, Active), (Pending, ReadOnly), (Leaving, Leaving)] {
        let mut local = ring([("a", first, NOW, &[1])]);
        merge(&mut local, &ring([("b", second, NOW, &[1])]), false, NOW);
        assert_eq!(local.get("a").unwrap().tokens.len(), 1, "{first} and {second}");
        assert!(local.get("b").unwrap().tokens.is_empty());
    }
}

#[test]
fn claims_are_settled_when_tokens_change_or_somebody_joins_and_only_then() {
    let contested = [("a", Active, NOW, &[1][..]), ("b", Active, NOW, &[1])];
    let settled = |desc: &Desc| desc.get("b").unwrap().tokens.is_empty();
    let after = |incoming: Desc, mut local: Desc| {
        merge(&mut local, &incoming, false, NOW);
        local
    };
    assert!(!settled(&after(ring([("a", Active, NOW + 1, &[1])]), ring(contested))), "a heartbeat");
    assert!(settled(&after(ring([("a", Active, NOW + 1, &[1, 5])]), ring(contested))), "a new token");
    assert!(settled(&after(ring([("c", Joining, NOW, &[])]), ring(contested))), "somebody joins");
    let mut joining = ring(contested);
    joining.insert("c", active("c", "", &[]).1);
    let mut joins = (**joining.get("c").unwrap()).clone();
    joins.state = Joining;
    joining.insert("c", joins);
    assert!(settled(&after(ring([("a", Active, NOW + 1, &[1])]), joining)), "a heartbeat meanwhile");
}

#[test]
fn what_has_left_already_is_not_deleted_again() {
    let mut local = ring([("a", Left, NOW - 5, &[]), ("b", Active, NOW, &[1])]);
    let before = local.clone();
    assert_eq!(merge(&mut local, &ring([("b", Active, NOW, &[1])]), true, NOW + 9).change, None);
    assert_eq!(local, before);
    let change = merge(&mut local, &Desc::new(), true, NOW + 9).change.unwrap();
    let gone = change.get("b").unwrap();
    assert_eq!((change.len(), gone.state, gone.timestamp, gone.tokens.len()), (1, Left, NOW + 9, 0));
    let mut other = before.clone();
    assert_eq!(merge(&mut other, &Desc::new(), false, NOW + 9).change, None, "gossip deletes nobody");
}

#[test]
fn replicas_are_shared_out_among_zones() {
    // Replication factor, zones, and how many replicas the zones get, largest share first.
    let cases: [(usize, u32, &[usize]); 8] = [
        (3, 3, &[1, 1, 1]),
        (3, 2, &[2, 1]),
        (3, 1, &[3]),
        (2, 3, &[1, 1]),
        (1, 3, &[1]),
        (4, 3, &[2, 1, 1]),
        (5, 3, &[2, 2, 1]),
        (9, 3, &[3, 3, 3]),
    ];
    let names = ["a", "b", "c"];
    for (replication_factor, zones, shares) in cases {
        let options =
            RingOptions { replication_factor, zone_awareness_enabled: true, ..RingOptions::default() };
        let instance = |n: u32| {
            active(&format!("i{n:02}"), names[(n % zones) as usize], &[n.wrapping_mul(2_654_435_761)])
        };
        let snapshot = seen(&(0..12).map(instance).collect(), &options);
        for key in (0..50u32).map(|n| n.wrapping_mul(85_899_345)) {
            let set = snapshot.get(key, Operation::WRITE, NOW).unwrap();
            let mut found = BTreeMap::<_, usize>::new();
            set.iter().for_each(|instance| *found.entry(instance.zone().clone()).or_default() += 1);
            let mut found: Vec<_> = found.into_values().collect();
            found.sort_unstable_by(|a, b| b.cmp(a));
            assert_eq!(found, shares, "{replication_factor} over {zones}, key {key}");
        }
    }
}

#[test]
fn too_few_zones_or_instances_are_told_as_such() {
    let options = RingOptions { zone_awareness_enabled: true, ..RingOptions::default() };
    let snapshot = seen(&[active("a", "a", &[1])].into_iter().collect(), &options);
    let error = snapshot.get(5, Operation::WRITE, NOW).unwrap_err().to_string();
    let text = "at least 2 live replicas required across different availability zones, could only find 1";
    assert_eq!(error, text);
}

#[test]
fn questions_to_a_ring_without_instances_or_without_tokens_say_that_it_is_empty() {
    let options = RingOptions::default();
    let (nobody, no_tokens) =
        (seen(&Desc::new(), &options), seen(&ring([("a", Pending, NOW, &[])]), &options));
    for snapshot in [&nobody, &no_tokens] {
        assert_eq!(answers::get(snapshot, 1, Operation::READ, NOW), Err(Error::EmptyRing));
        assert_eq!(answers::replication_set(snapshot, Operation::READ, NOW), Err(Error::EmptyRing));
    }
    assert_eq!(nobody.all_healthy(Operation::READ, NOW), Err(Error::EmptyRing));
    assert_eq!(nobody.split_by_health(Operation::READ, NOW), Err(Error::EmptyRing));
    assert_eq!(no_tokens.all_healthy(Operation::READ, NOW).unwrap().len(), 1);
    assert_eq!(no_tokens.split_by_health(Operation::WRITE, NOW).unwrap().1.len(), 1);
}

/// Factor, zones with their number of instances, which instances are dead, and: how many answer, how many zones may fail.
type WholeRing<'a> = (usize, &'a [usize], &'a [(usize, usize)], Option<(usize, usize)>);

#[test]
fn whole_rings_tolerate_failing_zones_up_to_half_the_replicas() {
    let cases: [WholeRing<'_>; 17] = [
        (1, &[1], &[], Some((1, 0))),
        (1, &[1], &[(0, 0)], None),
        (1, &[1, 1, 1], &[], Some((3, 0))),
        (1, &[1, 1, 1], &[(1, 0)], None),
        (2, &[1, 1], &[], Some((2, 1))),
        (2, &[1, 1], &[(0, 0)], Some((1, 0))),
        (3, &[1, 1, 1], &[], Some((3, 1))),
        (3, &[2, 2, 2], &[(0, 1)], Some((4, 0))),
        (3, &[3, 3, 3], &[(2, 0), (2, 2)], Some((6, 0))),
        (3, &[2, 2, 2], &[(0, 0), (1, 1)], None),
        (3, &[1, 1, 1], &[(0, 0), (1, 0), (2, 0)], None),
        (3, &[2, 2], &[(0, 0)], Some((2, 0))),
        (3, &[2], &[], Some((2, 0))),
        (3, &[2], &[(0, 0)], None),
        (5, &[1, 2, 3, 1, 1], &[(2, 0), (2, 1)], Some((5, 1))),
        (5, &[1, 2, 3, 1, 1], &[(1, 0), (2, 1)], Some((3, 0))),
        (5, &[1, 2, 3, 1, 1], &[(0, 0), (1, 0), (2, 1)], None),
    ];
    for (replication_factor, zones, dead, expected) in cases {
        let options =
            RingOptions { replication_factor, zone_awareness_enabled: true, ..RingOptions::default() };
        let mut desc = Desc::new();
        for (zone, &count) in zones.iter().enumerate() {
            for number in 0..count {
                let (id, entry) =
                    active(&format!("z{zone}-{number}"), &format!("z{zone}"), &[desc.len() as u32]);
                let age = if dead.contains(&(zone, number)) { 61 } else { 0 };
                desc.insert(id, InstanceDesc { timestamp: NOW - age, ..entry });
            }
        }
        let found = answers::replication_set(&seen(&desc, &options), Operation::READ, NOW);
        let found = found.map(|(ids, max_errors, zones)| {
            assert_eq!(max_errors, 0);
            (ids.len(), zones)
        });
        let expected = expected.ok_or(Error::TooManyUnhealthyInstances);
        assert_eq!(found, expected, "{replication_factor} {zones:?} {dead:?}");
    }
}

/// As many instances as zones are named, all ACTIVE, with tokens of their own.
fn layout(zones: &[usize], tokens: &[u32]) -> Desc {
    let mut deal = tokens.chunks(3);
    let instances = zones.iter().enumerate().flat_map(|(zone, &count)| (0..count).map(move |n| (zone, n)));
    instances
        .map(|(zone, n)| {
            active(&format!("z{zone}-{n}"), &format!("z{zone}"), deal.next().unwrap_or_default())
        })
        .collect()
}

proptest! {
    #[test]
    fn one_instance_more_or_less_moves_at_most_one_replica_of_a_key(
        tokens in prop::collection::btree_set(any::<u32>(), 60), shuffled in any::<u64>(),
        layout_number in 0..6usize, factor in 1..7usize, gone in any::<prop::sample::Index>(), keys in prop::collection::vec(any::<u32>(), 1..20),
    ) {
        let zones: [&[usize]; 6] = [&[9], &[4, 4], &[3, 3, 3], &[2, 2, 2, 2, 2], &[6, 1, 3], &[5, 4, 3]];
        let mut tokens: Vec<_> = tokens.into_iter().collect();
        tokens.sort_by_key(|token| (u64::from(*token) ^ shuffled).wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let more = layout(zones[layout_number], &tokens);
        for zone_awareness_enabled in [false, true] {
            let options = RingOptions {
                replication_factor: factor,
                zone_awareness_enabled,
                strategy: ringkit_ring::Strategy::IgnoreUnhealthy,
                ..RingOptions::default()
            };
            let mut less = more.clone();
            let id = more.iter().nth(gone.index(more.len())).unwrap().0.clone();
            less.remove(&id);
            let (more, less) = (seen(&more, &options), seen(&less, &options));
            if more.zones() != less.zones() {
                // The last of its zone: all others have larger shares then.
                continue;
            }
            for &key in &keys {
                let with = answers::get(&more, key, Operation::WRITE, NOW).unwrap().0;
                let without = answers::get(&less, key, Operation::WRITE, NOW).unwrap().0;
                let lost: Vec<_> = with.iter().filter(|id| !without.contains(id)).collect();
                let won: Vec<_> = without.iter().filter(|id| !with.contains(id)).collect();
                prop_assert!(lost.len() <= 1 && won.len() <= 1, "{:?} {:?}", with, without);
                prop_assert!(lost.iter().all(|lost| **lost == id.as_str()), "only who is gone loses a key");
                // Nobody extends: never more than asked for.
                prop_assert!(with.len() <= factor);
                prop_assert_eq!(&answers::get(&more, key, Operation::WRITE, NOW).unwrap().0, &with, "again");
            }
        }
    }
}
