//! What must not allocate does not. A binary of its own, because counting takes a global allocator.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "tests; helpers of an integration test are not seen as such"
)]

use allocation_counter::{AllocationInfo, measure};
use ringkit_kv::Value as _;
use ringkit_ring::bench_support::publish;
use ringkit_ring::{
    Desc, EntryId, InstanceDesc, Operation, Ring, RingOptions, Snapshot, State, TokenGenerator, merge,
};
use ringkit_runtime::Clock;

const NOW: i64 = 1_700_000_000;

/// `instances` in three zones, of which the first is in `state` and was heard at `heard`.
fn ring(instances: usize, tokens: usize, state: State, heard: i64) -> Desc {
    let all = TokenGenerator::random(Some(1)).generate(instances * tokens, &Desc::new());
    let entry = |place: usize| {
        let (state, timestamp) = if place.is_multiple_of(3) { (state, heard) } else { (State::Active, NOW) };
        InstanceDesc {
            addr: format!("10.0.{}.{}:9095", place / 250, place % 250).into(),
            timestamp,
            state,
            tokens: all.iter().copied().skip(place * 7 % instances).step_by(instances).collect(),
            zone: format!("zone-{}", place % 3).into(),
            ..InstanceDesc::default()
        }
    };
    (0..instances).map(|place| (format!("ingester-{place:05}"), entry(place))).collect()
}

fn healthy(instances: usize, tokens: usize) -> Desc {
    ring(instances, tokens, State::Active, NOW)
}

fn options(zone_awareness_enabled: bool) -> RingOptions {
    RingOptions { zone_awareness_enabled, ..RingOptions::default() }
}

fn keys() -> impl Iterator<Item = u32> {
    (0..1_000u32).map(|n| n.wrapping_mul(2_654_435_761))
}

#[test]
fn a_lookup_never_allocates() {
    for (what, state, heard) in [
        ("healthy", State::Active, NOW),
        ("one zone LEAVING", State::Leaving, NOW),
        ("one zone READONLY", State::ReadOnly, NOW),
        ("one zone unhealthy", State::Active, NOW - 61),
    ] {
        let desc = ring(90, 64, state, heard);
        for zone_aware in [true, false] {
            let snapshot = Snapshot::first_sight(&desc, NOW, &options(zone_aware));
            for op in [Operation::WRITE, Operation::WRITE_NO_EXTEND, Operation::READ] {
                // Without zones a few keys lack a quorum, and saying so allocates the message.
                let has_quorum = |key: &u32| snapshot.get(*key, op, NOW).is_ok();
                let keys: Vec<u32> = keys().filter(has_quorum).collect();
                assert!(keys.len() > if zone_aware { 999 } else { 600 }, "{what}, {op:?}: {}", keys.len());
                let info = measure(|| {
                    for &key in &keys {
                        let set = snapshot.get(key, op, NOW);
                        assert!(set.is_ok_and(|set| set.addresses().len() == set.len()));
                    }
                });
                assert_eq!(info.count_total, 0, "{what}, zones: {zone_aware}, {op:?}");
            }
        }
    }
}

#[test]
fn a_shard_that_is_remembered_is_found_without_allocating() {
    let snapshot = Snapshot::first_sight(&healthy(90, 64), NOW, &options(true));
    let hour = std::time::Duration::from_secs(3_600);
    let members = |tenant| {
        let plain = snapshot.shuffle_shard(tenant, 9).len();
        let stable = snapshot.shuffle_shard_zone_stable(tenant, 10).len();
        plain + stable + snapshot.shuffle_shard_with_lookback(tenant, 9, hour, NOW).len()
    };
    for tenant in ["a", "somebody-with-a-rather-long-name"] {
        let first = measure(|| assert_eq!(members(tenant), 9 + 10 + 9));
        let again = measure(|| assert_eq!(members(tenant), 9 + 10 + 9));
        assert!(first.count_total > 0, "the first time is counted");
        assert_eq!(again.count_total, 0, "{tenant}");
        let lookups = measure(|| {
            let shard = snapshot.shuffle_shard(tenant, 9);
            keys().for_each(|key| assert!(shard.get(key, Operation::WRITE, NOW).is_ok()));
        });
        assert_eq!(lookups.count_total, 0, "{tenant}: lookups in a shard");
    }
}

#[test]
fn lookups_in_a_small_shard_do_not_allocate_however_many_zones_there_are() {
    for (zones, zone_aware) in [(9, true), (1_000, false)] {
        let mut desc = healthy(1_000, 8);
        for (place, (id, entry)) in desc.clone().iter().enumerate() {
            let zone = format!("rack-{:04}", place % zones).into();
            desc.insert(id.clone(), InstanceDesc { zone, ..(**entry).clone() });
        }
        let snapshot = Snapshot::first_sight(&desc, NOW, &options(zone_aware));
        let shard = snapshot.shuffle_shard("tenant", 9);
        assert_eq!((shard.len(), shard.is_whole()), (9, false));
        assert!(shard.get(0, Operation::WRITE, NOW).is_ok(), "the first one looks into the tokens");
        let lookups = measure(|| {
            keys().for_each(|key| assert!(shard.get(key, Operation::WRITE, NOW).is_ok()));
        });
        assert_eq!(lookups.count_total, 0, "{zones} zones");
    }
}

/// What one heartbeat costs, seen by a reader in full: its value comes with tokens of its own.
fn seen(instances: usize, tokens: usize) -> AllocationInfo {
    let desc = healthy(instances, tokens);
    let shown = Ring::fixed(&desc, options(true), Clock::manual(NOW * 1000).0);
    let (id, next) = beat(&desc);
    let mut after = desc.clone();
    after.insert(id.clone(), next);
    let changed = [id];
    measure(|| assert!(publish(&shown, &after, &changed), "the lookup tables are kept"))
}

/// The heartbeat of an instance in the middle.
fn beat(desc: &Desc) -> (EntryId, InstanceDesc) {
    let (id, entry) = desc.iter().nth(desc.len() / 2).unwrap();
    let tokens = entry.tokens.as_slice().into();
    (id.clone(), InstanceDesc { timestamp: NOW + 5, tokens, ..(**entry).clone() })
}

/// What one heartbeat costs that arrives as bytes and is merged.
fn merged(instances: usize, tokens: usize) -> AllocationInfo {
    let mut local = Desc::new();
    merge(&mut local, &healthy(instances, tokens), false, NOW);
    let (id, next) = beat(&local);
    let bytes = Desc::encode_entry(&next);
    measure(|| {
        let known = local.get(&id).unwrap();
        let entry = Desc::decode_next(&id, &bytes, known).unwrap();
        let incoming = Desc::from_iter([(id.clone(), entry)]);
        assert!(merge(&mut local, &incoming, false, NOW).change.is_some());
    })
}

#[test]
fn what_a_heartbeat_allocates_depends_neither_on_tokens_nor_on_the_ring() {
    let (small, more_tokens, large) = (seen(150, 16), seen(150, 512), seen(3_000, 16));
    assert_eq!(small, more_tokens, "seen");
    assert_eq!(small.count_total, large.count_total, "seen");
    // Snapshots share their members in chunks; of the list of chunks each has its own.
    let list_of_chunks = 2 * 16 * 3_000 / 128;
    let more = large.bytes_total - small.bytes_total;
    assert!(more <= list_of_chunks + 4_096, "seen: {more} bytes more");

    let (small, more_tokens, large) = (merged(150, 16), merged(150, 512), merged(3_000, 16));
    assert_eq!(small, more_tokens, "merged");
    assert_eq!(small, large, "merged");
}
