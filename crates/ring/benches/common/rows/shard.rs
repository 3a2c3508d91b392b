//! Shuffle sharding.

use std::cell::Cell;
use std::sync::Arc;
use std::time::Duration;

use ringkit_ring::{RingOptions, Snapshot, shard_seed};

use crate::common::rings::{NOW, Zone, options, ring};
use crate::common::{Goal, Row, go_ring, go_shard, timed};

/// Nine members, three of each zone.
const SIZE: usize = 9;

/// A tenant's shard chosen anew, remembered, and with look-back.
pub(crate) fn shards(instances: usize) -> Vec<Row> {
    vec![cold(instances), cached(instances), with_lookback(instances)]
}

fn tenants() -> impl FnMut() -> String {
    let next = Cell::new(0u32);
    move || {
        next.set(next.get() + 1);
        format!("tenant-{}", next.get())
    }
}

fn rings(instances: usize, shard_cache: bool) -> (Snapshot, go_ring::Client) {
    let desc = ring(instances, 128, Zone::Healthy);
    let options = RingOptions { shard_cache, ..options(true) };
    let client = go_ring::Client::new(Arc::new(go_ring::entries(&desc)), true);
    (Snapshot::first_sight(&desc, NOW, &options), client)
}

/// Another tenant each time, nothing remembered.
fn cold(instances: usize) -> Row {
    let (snapshot, client) = rings(instances, false);
    let plain = client.ring.into_inner().unwrap();
    for tenant in ["a", "b", "c"] {
        let ours: Vec<_> = snapshot.shuffle_shard(tenant, SIZE as i64).instances().cloned().collect();
        let theirs = go_shard::shuffle_shard(&plain, tenant, SIZE, None, shard_seed);
        assert!(ours.iter().all(|instance| theirs.entries.contains_key(instance.id.as_str())));
        assert_eq!(ours.len(), theirs.entries.len(), "both arms choose alike");
    }
    let (mut tenant, mut their_tenant) = (tenants(), tenants());
    let ours = timed(move || snapshot.shuffle_shard(&tenant(), SIZE as i64).len());
    let go = timed(move || go_shard::shuffle_shard(&plain, &their_tenant(), SIZE, None, shard_seed));
    let row = Row::new("shuffle shard of 9, cold", instances, Goal::OneIn(10), ours).against(go);
    row.recorded([110_000, 100_000, 100_000])
}

/// One of a hundred tenants.
fn cached(instances: usize) -> Row {
    let (snapshot, client) = rings(instances, true);
    let tenants: Vec<String> = std::iter::repeat_with(tenants()).take(100).collect();
    let cache = go_shard::Cache::default();
    for tenant in &tenants {
        let shard = {
            let plain = client.ring.read().unwrap();
            go_shard::shuffle_shard(&plain, tenant, SIZE, None, shard_seed)
        };
        cache.store(tenant, SIZE, shard);
        snapshot.shuffle_shard(tenant, SIZE as i64);
    }
    let (mut turn, mut their_turn, their_tenants) = (0, 0, tenants.clone());
    let ours = timed(move || {
        turn = (turn + 1) % tenants.len();
        snapshot.shuffle_shard(&tenants[turn], SIZE as i64).len()
    });
    let go = timed(move || {
        their_turn = (their_turn + 1) % their_tenants.len();
        cache.get(&client.ring, &their_tenants[their_turn], SIZE)
    });
    let goal = Goal::Within(Duration::from_nanos(50));
    Row::new("shuffle shard of 9, cached", instances, goal, ours).against(go).recorded([380, 370, 380])
}

/// Everybody registered within the period, so everybody met on the way is a member too.
fn with_lookback(instances: usize) -> Row {
    let (snapshot, client) = rings(instances, false);
    let plain = client.ring.into_inner().unwrap();
    let period = Duration::from_secs(12 * 3_600);
    let until = NOW - period.as_secs() as i64;
    let ours = snapshot.shuffle_shard_with_lookback("a", SIZE as i64, period, NOW).len();
    let theirs = go_shard::shuffle_shard(&plain, "a", SIZE, Some(until), shard_seed);
    assert_eq!(ours, theirs.entries.len(), "both arms choose alike");
    let (mut tenant, mut their_tenant) = (tenants(), tenants());
    let ours = timed(move || snapshot.shuffle_shard_with_lookback(&tenant(), SIZE as i64, period, NOW).len());
    let go = timed(move || go_shard::shuffle_shard(&plain, &their_tenant(), SIZE, Some(until), shard_seed));
    let row = Row::new("shuffle shard with look-back, cold", instances, Goal::OneIn(20), ours).against(go);
    row.recorded([2_200_000, 46_000_000, 0])
}
