//! Selection against a plain rendering, the laws of shards, and the cache.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use proptest::collection::vec;
use proptest::prelude::*;

use crate::desc::{Desc, InstanceDesc, State};
use crate::options::{Dialect, RingOptions};
use crate::snapshot::Snapshot;

mod caching;
mod hostile;
mod laws;
mod plain;
mod sets;
mod view;

pub(super) const NOW: i64 = 1_700_000_000;

/// A shard to ask for.
#[derive(Clone, Copy, Debug)]
pub(super) enum Asked {
    Plain,
    ZoneStable,
    Lookback(Duration),
}

pub(super) fn ids(
    snapshot: &Snapshot,
    identifier: &str,
    size: i64,
    asked: Asked,
    now: i64,
) -> BTreeSet<String> {
    let shard = match asked {
        Asked::Plain => snapshot.shuffle_shard(identifier, size),
        Asked::ZoneStable => snapshot.shuffle_shard_zone_stable(identifier, size),
        Asked::Lookback(period) => snapshot.shuffle_shard_with_lookback(identifier, size, period, now),
    };
    shard.instances().map(|member| member.id.to_string()).collect()
}

pub(super) fn asked() -> impl Strategy<Value = Asked> {
    prop_oneof![
        Just(Asked::Plain),
        Just(Asked::ZoneStable),
        (0..100u64).prop_map(|secs| Asked::Lookback(Duration::from_secs(secs))),
        (0..100_000u64).prop_map(|ms| Asked::Lookback(Duration::from_millis(ms))),
    ]
}

pub(super) fn dialect() -> impl Strategy<Value = Dialect> {
    prop::sample::select(vec![Dialect::Cortex, Dialect::Dskit])
}

/// Up to a dozen and a half members in up to four zones, in any state and order of tokens, of which some are claimed twice.
pub(super) fn any_ring() -> impl Strategy<Value = Desc> {
    let token = prop_oneof![3 => any::<u32>(), 1 => (0..12u32).prop_map(|n| n << 28)];
    let since = prop_oneof![1 => Just(0), 1 => NOW - 120..=NOW + 3, 1 => Just(NOW - 9_000)];
    let state = prop_oneof![3 => Just(State::Active), 2 => prop::sample::select(State::KNOWN.to_vec())];
    let read_only = (prop::bool::weighted(0.2), since.clone());
    let entry = (0..4usize, vec(token, 0..6), state, since, read_only);
    let entry =
        entry.prop_map(|(zone, tokens, state, registered_timestamp, (read_only, changed))| InstanceDesc {
            timestamp: NOW,
            state,
            tokens: tokens.into(),
            zone: ["", "a", "b", "c"][zone].into(),
            registered_timestamp,
            read_only,
            read_only_updated_timestamp: changed,
            ..InstanceDesc::default()
        });
    vec(entry, 0..18).prop_map(|entries| {
        let named = |(place, entry)| {
            (format!("i{place}"), InstanceDesc { addr: format!("{place}:1").into(), ..entry })
        };
        entries.into_iter().enumerate().map(named).collect()
    })
}

pub(super) fn options(zone_awareness_enabled: bool, dialect: Dialect, shard_cache: bool) -> RingOptions {
    RingOptions { zone_awareness_enabled, dialect, shard_cache, ..RingOptions::default() }
}

/// `n` ACTIVE members with `tokens` tokens each, dealt out to `zones` zones in turns.
pub(super) fn even_ring(n: usize, zones: usize, tokens: usize, seed: u64) -> BTreeMap<String, InstanceDesc> {
    let all = crate::TokenGenerator::random(Some(seed)).generate(n * tokens, &Desc::new());
    let member = |place: usize| {
        let entry = InstanceDesc {
            timestamp: NOW,
            tokens: all.iter().copied().skip(place).step_by(n).collect(),
            zone: format!("z{}", place % zones).into(),
            ..InstanceDesc::default()
        };
        (format!("i{place:04}"), entry)
    };
    (0..n).map(member).collect()
}
