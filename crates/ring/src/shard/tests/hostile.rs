//! Rings made to hurt: what is asked of them must be answered at once.

use std::time::Instant;

use super::*;
use crate::operation::Operation;

/// Fails if `work` takes far longer than some steps per token, member and zone, even on a slow machine.
fn at_once<T>(what: &str, work: impl FnOnce() -> T) -> T {
    let begun = Instant::now();
    let done = work();
    assert!(begun.elapsed() < Duration::from_secs(3), "{what} took {:?}", begun.elapsed());
    done
}

fn member(zone: &str, tokens: Vec<u32>) -> InstanceDesc {
    InstanceDesc {
        timestamp: NOW,
        state: State::Active,
        tokens: tokens.into(),
        zone: zone.into(),
        registered_timestamp: NOW - 10,
        ..InstanceDesc::default()
    }
}

/// Asks for shards of all kinds, small and large.
fn ask(desc: &Desc, zone_aware: bool, dialect: Dialect) {
    let snapshot =
        at_once("the ring", || Snapshot::first_sight(desc, NOW, &options(zone_aware, dialect, false)));
    let lookback = Asked::Lookback(Duration::from_secs(3_600));
    for asked in [Asked::Plain, Asked::ZoneStable, lookback] {
        for size in [3, desc.len() as i64 - 1] {
            at_once(&format!("{asked:?} {size}"), || ids(&snapshot, "tenant", size, asked, NOW));
        }
    }
}

fn ask_all(desc: &Desc) {
    for dialect in [Dialect::Cortex, Dialect::Dskit] {
        ask(desc, true, dialect);
        ask(desc, false, dialect);
    }
}

#[test]
fn a_zone_for_everybody_and_one_token_for_all() {
    let entry = |n: usize| (format!("i{n:05}"), member(&format!("z{n:05}"), vec![7]));
    ask_all(&(0..20_000).map(entry).collect());
}

#[test]
fn a_zone_for_everybody_with_some_tokens_each() {
    let tokens = crate::TokenGenerator::random(Some(1)).generate(60_000, &Desc::new());
    let entry = |n: usize| {
        let own = tokens.iter().copied().skip(n).step_by(20_000).collect();
        (format!("i{n:05}"), member(&format!("z{n:05}"), own))
    };
    ask_all(&(0..20_000).map(entry).collect());
}

#[test]
fn the_same_token_over_and_over_in_one_entry() {
    let entry = |n: usize| {
        let own = if n == 0 { vec![7; 300_000] } else { vec![n as u32 * 1_000] };
        (format!("i{n:05}"), member(&format!("z{}", n % 3), own))
    };
    ask_all(&(0..3_000).map(entry).collect());
}

#[test]
fn nearly_all_tokens_in_one_entry_in_the_way_of_every_draw() {
    let entry = |n: usize| {
        let own = if n == 0 { (1_000_000..1_600_000).collect() } else { vec![n as u32] };
        (format!("i{n:05}"), member(&format!("z{}", n % 3), own))
    };
    ask_all(&(0..12_000).map(entry).collect());
}

#[test]
fn a_view_of_many_members_in_as_many_zones() {
    let entry = |n: usize| {
        let state = if n == 0 { State::Leaving } else { State::Active };
        let entry = InstanceDesc { state, ..member(&format!("z{:06}", 200_000 - n), vec![n as u32]) };
        (format!("i{n:06}"), entry)
    };
    let desc: Desc = (0..200_000).map(entry).collect();
    let snapshot = Snapshot::first_sight(&desc, NOW, &options(false, Dialect::Cortex, false));
    let shard = at_once("the view", || snapshot.subring_for_states(Operation::WRITE));
    assert_eq!((shard.len(), shard.zones().count()), (199_999, 199_999));
}
