use std::collections::BTreeSet;
use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::desc::InstanceDesc;
use crate::snapshot::Instance;

/// Instances by their zones, one letter each; a space is no zone.
fn set(zones: &str, max_errors: usize, max_unavailable_zones: usize) -> ReplicationSet {
    let instance = |(number, zone): (usize, char)| {
        let zone = zone.to_string().trim().into();
        let desc = InstanceDesc { addr: format!("i{number}:1").into(), zone, ..InstanceDesc::default() };
        Arc::new(Instance { id: format!("i{number}").as_str().into(), desc: Arc::new(desc) })
    };
    let instances = zones.chars().enumerate().map(instance).collect();
    ReplicationSet { instances, max_errors, max_unavailable_zones, ..ReplicationSet::default() }
}

fn minimizing(set: &ReplicationSet) -> QuorumTracker {
    QuorumTracker::new(set, true, None, &ZoneOrder::Random, 7)
}

fn started(tracker: &mut QuorumTracker) -> Vec<usize> {
    let mut places = Vec::new();
    while let Some(action) = tracker.poll_action() {
        if let Action::Start(place) = action {
            places.push(place);
        }
    }
    places
}

#[test]
fn everybody_starts_when_requests_are_not_minimized() {
    for set in [set("    ", 1, 0), set("aabbcc", 0, 1), set("a", 0, 0)] {
        let mut tracker = QuorumTracker::new(&set, false, None, &ZoneOrder::Random, 7);
        assert_eq!(started(&mut tracker), (0..set.len()).collect::<Vec<_>>());
    }
}

#[test]
fn as_many_instances_are_held_back_as_may_fail_and_each_failure_releases_one() {
    let mut tracker = minimizing(&set("     ", 2, 0));
    let first = started(&mut tracker);
    assert_eq!(first.len(), 3);
    tracker.handle_reply(first[0], Reply::Failed);
    let second = started(&mut tracker);
    assert_eq!(second.len(), 1);
    tracker.handle_reply(second[0], Reply::Failed);
    let third = started(&mut tracker);
    assert_eq!(third.len(), 1);
    let all: BTreeSet<_> = first.iter().chain(&second).chain(&third).collect();
    assert_eq!(all.len(), 5, "nobody twice");
    assert_eq!(tracker.verdict(), Verdict::Pending);
    tracker.handle_reply(third[0], Reply::Failed);
    assert_eq!(tracker.verdict(), Verdict::Failed);
    assert!(started(&mut tracker).is_empty());
}

#[test]
fn a_request_that_may_lose_everybody_needs_one_all_the_same() {
    for (zones, max_errors, max_zones) in [("   ", 3, 0), ("   ", 5, 0), ("abc", 0, 3), ("abc", 0, 9)] {
        for minimize in [false, true] {
            let set = set(zones, max_errors, max_zones);
            let mut tracker = QuorumTracker::new(&set, minimize, None, &ZoneOrder::Random, 7);
            let first = started(&mut tracker);
            assert_eq!((tracker.verdict(), first.len()), (Verdict::Pending, if minimize { 1 } else { 3 }));
            tracker.handle_reply(first[0], Reply::Ok);
            assert_eq!(tracker.verdict(), Verdict::Reached, "{zones:?} {max_errors} {max_zones}");
        }
    }
}

#[test]
fn nobody_is_needed_where_there_is_nobody() {
    for (max_errors, max_zones) in [(0, 0), (1, 0), (0, 1)] {
        let tracker = minimizing(&set("", max_errors, max_zones));
        assert_eq!(tracker.verdict(), Verdict::Reached);
    }
}

#[test]
fn only_the_first_failure_of_a_zone_releases_another() {
    let mut tracker = minimizing(&set("aabbccddee", 0, 2));
    let first = started(&mut tracker);
    assert_eq!(first.len(), 6);
    tracker.handle_reply(first[0], Reply::Failed);
    assert_eq!(started(&mut tracker).len(), 2);
    // Its neighbour was cancelled with it.
    tracker.handle_reply(first[1], Reply::Terminal);
    assert_eq!(tracker.verdict(), Verdict::Pending);
    assert!(started(&mut tracker).is_empty());
    assert!(!tracker.keeps(first[1]));
}

#[test]
fn ticks_release_one_more_as_long_as_somebody_is_held_back() {
    let delay = Duration::from_secs(1);
    let mut tracker = QuorumTracker::new(&set("aabbcc", 0, 2), true, Some(delay), &ZoneOrder::Random, 7);
    assert_eq!(started(&mut tracker).len(), 2);
    for _ in 0..2 {
        assert_eq!(tracker.tick_after(), Some(delay));
        tracker.handle_tick();
        assert_eq!(started(&mut tracker).len(), 2);
    }
    assert_eq!(tracker.tick_after(), None);
    tracker.handle_tick();
    assert!(started(&mut tracker).is_empty());
}

#[test]
fn a_delay_of_zero_is_no_hedging_and_neither_is_one_with_nobody_held_back() {
    let tick = |minimize, delay| {
        QuorumTracker::new(&set("   ", 1, 0), minimize, Some(delay), &ZoneOrder::Random, 7).tick_after()
    };
    assert_eq!(tick(true, Duration::ZERO), None);
    assert_eq!(tick(false, Duration::from_secs(1)), None);
}

#[test]
fn a_terminal_error_starts_nobody() {
    let mut tracker = minimizing(&set("    ", 3, 0));
    let first = started(&mut tracker);
    tracker.handle_reply(first[0], Reply::Terminal);
    assert_eq!((tracker.verdict(), started(&mut tracker)), (Verdict::Terminal, vec![]));
}

#[test]
fn a_set_that_has_no_zone_to_lose_is_still_asked_by_zone() {
    let zone_aware = ReplicationSet { zone_awareness_enabled: true, ..set("aabb", 0, 0) };
    let mut tracker = minimizing(&zone_aware);
    let first = started(&mut tracker);
    assert_eq!(first.len(), 4);
    tracker.handle_reply(0, Reply::Failed);
    assert_eq!(tracker.verdict(), Verdict::Failed);
}

#[test]
fn zones_are_released_in_the_order_asked_for() {
    let set = set("aabbcc", 0, 2);
    let order = |order: &ZoneOrder, seed| {
        let mut tracker = QuorumTracker::new(&set, true, None, order, seed);
        let mut order = String::new();
        while let [place, _] = started(&mut tracker)[..] {
            order.push_str(set.instances[place].zone());
            tracker.handle_tick();
        }
        order
    };
    for seed in 0..20 {
        assert_eq!(order(&ZoneOrder::Preferred(vec!["c".into(), "x".into(), "a".into()]), seed), "cab");
        assert!(order(&ZoneOrder::Preferred(vec!["b".into()]), seed).starts_with('b'));
        let reversed: ZoneOrder = ZoneOrder::By(Arc::new(|zones| zones.sort_by(|a, b| b.cmp(a))));
        assert_eq!(order(&reversed, seed), "cba");
        // A sorter that loses zones, or makes some up, cannot make the request miss one or ask it twice.
        let hostile = ZoneOrder::By(Arc::new(|zones| *zones = vec!["b".into(), "b".into(), "x".into()]));
        let mut drawn: Vec<char> = order(&hostile, seed).chars().collect();
        assert_eq!(drawn[0], 'b');
        drawn.sort_unstable();
        assert_eq!(drawn, ['a', 'b', 'c']);
    }
    let drawn: BTreeSet<String> = (0..100).map(|seed| order(&ZoneOrder::Random, seed)).collect();
    assert_eq!(drawn.len(), 6, "all orders occur");
    assert_eq!(order(&ZoneOrder::Random, 5), order(&ZoneOrder::Random, 5));
}

#[test]
fn instances_are_drawn_evenly_and_one_seed_gives_one_choice() {
    let set = set("    ", 2, 0);
    let mut times = [0u32; 4];
    for seed in 0..4000 {
        let draw = || started(&mut QuorumTracker::new(&set, true, None, &ZoneOrder::Random, seed));
        assert_eq!(draw(), draw());
        draw().into_iter().for_each(|place| times[place] += 1);
    }
    assert!(times.iter().all(|times| (1800..2200).contains(times)), "{times:?}");
}

#[derive(Clone, Copy, Debug)]
enum Event {
    /// The running call at this place, counted around, replies.
    Reply(usize, bool),
    Tick,
}

fn event() -> impl Strategy<Value = Event> {
    let reply = (any::<usize>(), prop::bool::weighted(0.7)).prop_map(|(turn, ok)| Event::Reply(turn, ok));
    prop_oneof![9 => reply, 1 => Just(Event::Tick)]
}

fn any_set() -> impl Strategy<Value = ReplicationSet> {
    let by_instance = (0usize..9, 0usize..5).prop_map(|(n, max_errors)| set(&" ".repeat(n), max_errors, 0));
    let by_zone = ("[a-e]{0,12}", 0usize..4).prop_map(|(zones, max_unavailable)| ReplicationSet {
        zone_awareness_enabled: true,
        ..set(&zones, 0, max_unavailable)
    });
    prop_oneof![by_instance, by_zone]
}

/// Groups of places that start, fail and count together, told in the plainest way.
fn groups(set: &ReplicationSet) -> Vec<Vec<usize>> {
    if !set.zone_awareness_enabled {
        return (0..set.len()).map(|place| vec![place]).collect();
    }
    let zones: BTreeSet<_> = set.instances.iter().map(|instance| instance.zone()).collect();
    let members = |zone| (0..set.len()).filter(|place| set.instances[*place].zone() == zone).collect();
    zones.into_iter().map(members).collect()
}

proptest! {
    #[test]
    fn a_request_succeeds_exactly_with_a_quorum_and_asks_no_more_than_it_must(
        set in any_set(),
        minimize: bool,
        seed: u64,
        events in prop::collection::vec(event(), 60),
    ) {
        let groups = groups(&set);
        let tolerated = tolerated(groups.len(), set.max_errors + set.max_unavailable_zones);
        let needed = groups.len().saturating_sub(tolerated);
        let mut tracker = QuorumTracker::new(&set, minimize, Some(Duration::from_secs(1)), &ZoneOrder::Random, seed);
        let (mut started, mut cancelled) = (BTreeSet::new(), BTreeSet::new());
        let (mut ok, mut failed) = (BTreeSet::new(), BTreeSet::new());
        let mut ticks = 0;
        let mut events = events.into_iter();
        loop {
            while let Some(action) = tracker.poll_action() {
                match action {
                    Action::Start(place) => prop_assert!(started.insert(place), "started twice"),
                    Action::Cancel(place) => {
                        prop_assert!(started.contains(&place));
                        prop_assert!(cancelled.insert(place), "cancelled twice");
                    }
                }
            }
            let whole = |group: &&Vec<usize>| group.iter().all(|place| ok.contains(place));
            let broken = |group: &&Vec<usize>| group.iter().any(|place| failed.contains(place));
            let (good, bad) = (groups.iter().filter(whole).count(), groups.iter().filter(broken).count());
            let expected = if good >= needed {
                Verdict::Reached
            } else if bad > tolerated {
                Verdict::Failed
            } else {
                Verdict::Pending
            };
            prop_assert_eq!(tracker.verdict(), expected);
            let begun = groups.iter().filter(|group| group.iter().any(|place| started.contains(place))).count();
            prop_assert!(!minimize || begun <= needed + bad + ticks, "{} groups of {}", begun, groups.len());
            if expected != Verdict::Pending {
                // The kept results are those of the first groups that were complete, and of no others.
                let kept: BTreeSet<_> = (0..set.len()).filter(|place| tracker.keeps(*place)).collect();
                if expected == Verdict::Reached {
                    let full: BTreeSet<_> = groups.iter().filter(whole).flatten().copied().collect();
                    prop_assert_eq!(&kept, &full);
                    prop_assert_eq!(good, needed);
                }
                prop_assert!(kept.is_subset(&ok) && kept.is_disjoint(&cancelled));
                let before = tracker.verdict();
                started.iter().for_each(|place| tracker.handle_reply(*place, Reply::Ok));
                tracker.handle_tick();
                prop_assert_eq!((tracker.verdict(), tracker.poll_action()), (before, None), "decided once");
                break;
            }
            let replied: BTreeSet<_> = ok.union(&failed).copied().collect();
            let running: Vec<usize> =
                started.iter().filter(|at| !replied.contains(at) && !cancelled.contains(at)).copied().collect();
            prop_assert!(!running.is_empty(), "nobody is left who could decide it");
            match events.next() {
                None => break,
                Some(Event::Tick) => {
                    ticks += 1;
                    tracker.handle_tick();
                }
                Some(Event::Reply(turn, is_ok)) => {
                    let place = running[turn % running.len()];
                    if is_ok { &mut ok } else { &mut failed }.insert(place);
                    tracker.handle_reply(place, if is_ok { Reply::Ok } else { Reply::Failed });
                }
            }
        }
    }
}
