//! Which members make up a set when some zones own nothing yet.

use super::*;
use crate::operation::Operation;
use crate::{Replicas, View};

/// Two members with tokens in zone a, `idle` in zone b without, and two with tokens in zone c where `two` zones are full.
fn ring(two: bool, idle: State) -> Desc {
    let entry = |zone: &str, state: State, tokens: Vec<u32>| InstanceDesc {
        timestamp: NOW,
        state,
        tokens: tokens.into(),
        zone: zone.into(),
        ..InstanceDesc::default()
    };
    let mut ring = vec![
        ("a1", entry("a", State::Active, vec![1, 100])),
        ("a2", entry("a", State::Active, vec![50, 150])),
        ("b1", entry("b", idle, vec![])),
    ];
    if two {
        ring.push(("c1", entry("c", State::Active, vec![25, 125])));
        ring.push(("c2", entry("c", State::Active, vec![75, 175])));
    }
    ring.into_iter().collect()
}

fn told(set: Result<Replicas<'_>, crate::Error>) -> Result<(Vec<String>, usize), crate::Error> {
    set.map(|set| (set.ids().map(ToString::to_string).collect(), set.max_unavailable_zones()))
}

/// What the ring, and the part of it with everybody who reports, answer to `op`.
fn sets(desc: &Desc, only: bool, op: Operation) -> [Result<(Vec<String>, usize), crate::Error>; 2] {
    let options = RingOptions { zones_with_tokens_only: only, ..options(true, Dialect::Cortex, false) };
    let whole = Snapshot::first_sight(desc, NOW, &options);
    // One more member in no set, so that the others are a part.
    let mut more = desc.clone();
    let odd = InstanceDesc { state: State::Unknown(9), tokens: vec![9].into(), ..InstanceDesc::default() };
    more.insert("odd", odd);
    let more = Snapshot::first_sight(&more, NOW, &options);
    let all = Operation::new(&State::KNOWN, &[]);
    let part = more.subring_for_states(all);
    assert!(!part.is_whole());
    [told(View::replication_set(&whole, op, NOW)), told(part.replication_set(op, NOW))]
}

fn names(ids: &[&str]) -> Vec<String> {
    ids.iter().map(ToString::to_string).collect()
}

#[test]
fn the_answer_of_a_zone_without_tokens_is_not_one_of_those_that_complete_a_read() {
    let desc = ring(false, State::Pending);
    let idle_counts = Ok((names(&["a1", "a2", "b1"]), 1));
    assert_eq!(sets(&desc, false, Operation::READ), [idle_counts.clone(), idle_counts]);
    let alone = Ok((names(&["a1", "a2"]), 0));
    assert_eq!(sets(&desc, true, Operation::READ), [alone.clone(), alone]);
    let desc = ring(true, State::Pending);
    let both = Ok((names(&["a1", "a2", "c1", "c2"]), 1));
    assert_eq!(sets(&desc, true, Operation::READ), [both.clone(), both]);
}

#[test]
fn a_zone_without_tokens_does_not_fail_either() {
    let desc = ring(true, State::Pending);
    let lost = Ok((names(&["a1", "a2", "c1", "c2"]), 0));
    assert_eq!(sets(&desc, false, Operation::WRITE), [lost.clone(), lost]);
    let kept = Ok((names(&["a1", "a2", "c1", "c2"]), 1));
    assert_eq!(sets(&desc, true, Operation::WRITE), [kept.clone(), kept]);
}
