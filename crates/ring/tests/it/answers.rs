//! Everything that can be asked of a snapshot, compared between two of them.
//!
//! Shared by the integration tests, the unit tests of `follow` and the fuzz targets, so it uses nothing but the public face.

use std::time::Duration;

use ringkit_ring::{Error, Operation, Replicas, Shard, Snapshot};

/// All named operations, and two that nobody has: everything accepted and extending, nothing accepted.
pub(crate) const OPERATIONS: [Operation; 19] = [
    Operation::WRITE,
    Operation::WRITE_NO_EXTEND,
    Operation::READ,
    Operation::REPORTING,
    Operation::BLOCKS_OWNER_SYNC,
    Operation::BLOCKS_OWNER_READ,
    Operation::BLOCKS_READ,
    Operation::RULER,
    Operation::RULER_LIST,
    Operation::ALERTMANAGER,
    Operation::ALERTMANAGER_NO_EXTENSION,
    Operation::ALERTMANAGER_SYNC,
    Operation::ALERTMANAGER_SYNC_NO_EXTENSION,
    Operation::COMPACTOR,
    Operation::DSKIT_WRITE,
    Operation::DSKIT_WRITE_NO_EXTEND,
    Operation::DSKIT_READ,
    Operation::from_bits(0x003F_FFFF),
    Operation::from_bits(0),
];

/// Ids, how many may fail, in how many zones.
type Set = (Vec<String>, usize, usize);

/// The answer to [`Snapshot::get`].
pub(crate) fn get(snapshot: &Snapshot, key: u32, op: Operation, now: i64) -> Result<Set, Error> {
    snapshot.get(key, op, now).map(|set| told(&set))
}

/// The answer to [`Snapshot::replication_set`].
pub(crate) fn replication_set(snapshot: &Snapshot, op: Operation, now: i64) -> Result<Set, Error> {
    snapshot.replication_set(op, now).map(|set| told(&set))
}

/// The answer to [`Snapshot::get_with_factor`].
pub(crate) fn get_with_factor(
    snapshot: &Snapshot,
    key: u32,
    op: Operation,
    factor: usize,
    now: i64,
) -> Result<Set, Error> {
    snapshot.get_with_factor(key, op, factor, now).map(|set| told(&set))
}

/// What is borrowed and what is owned say the same, however they are asked.
fn told(set: &Replicas<'_>) -> Set {
    let owned = set.to_set();
    let ids: Vec<String> = owned.instances.iter().map(|instance| instance.id.to_string()).collect();
    assert!(set.ids().eq(&ids) && set.addresses().eq(owned.addresses()));
    assert_eq!(
        (set.len(), set.is_empty(), set.zone_count()),
        (owned.len(), owned.is_empty(), owned.zone_count())
    );
    // Both look at one after the other, so not all of a large set are looked for.
    assert!(ids.iter().take(9).all(|id| set.contains(id)));
    assert!(set.addresses().take(9).all(|addr| set.includes(addr)));
    assert_eq!(
        (set.max_errors(), set.max_unavailable_zones()),
        (owned.max_errors, owned.max_unavailable_zones)
    );
    (ids, owned.max_errors, owned.max_unavailable_zones)
}

/// `keys`, and the keys around some of the snapshot's tokens and around both ends of the circle.
pub(crate) fn telling_keys(snapshot: &Snapshot, keys: &[u32], most: usize) -> Vec<u32> {
    let tokens = snapshot.tokens();
    let ends = [0, u32::MAX].into_iter().chain(tokens.first().copied()).chain(tokens.last().copied());
    let step = (tokens.len() / most.max(1)).max(1);
    let some = tokens.iter().step_by(step).flat_map(|t| [t.wrapping_sub(1), *t, t.wrapping_add(1)]);
    keys.iter().copied().chain(ends).chain(some).collect()
}

/// The first answer in which `a` and `b` differ at `now` (Unix seconds), asked about `keys` in every operation.
pub(crate) fn difference(a: &Snapshot, b: &Snapshot, keys: &[u32], now: i64) -> Option<String> {
    whole(a, b).or_else(|| shards(a, b, keys, now)).or_else(|| {
        OPERATIONS.into_iter().find_map(|op| {
            by_health(a, b, op, now).or_else(|| {
                keys.iter().find_map(|&key| {
                    let what = format!("get({key}, {:#x}, {now})", op.bits());
                    differ(&what, &get(a, key, op, now), &get(b, key, op, now)).or_else(|| {
                        let more = |s: &Snapshot| {
                            get_with_factor(s, key, op, s.options().replication_factor + 2, now)
                        };
                        differ(&format!("{what} with 2 more"), &more(a), &more(b))
                    })
                })
            })
        })
    })
}

fn differ<T: PartialEq + std::fmt::Debug>(what: &str, a: &T, b: &T) -> Option<String> {
    (a != b).then(|| format!("{what}:\n  {a:?}\n  {b:?}"))
}

/// What does not depend on time and operation.
fn whole(a: &Snapshot, b: &Snapshot) -> Option<String> {
    let instances = |snapshot: &Snapshot| -> Vec<_> {
        let of = |instance: &std::sync::Arc<ringkit_ring::Instance>| {
            let id = instance.id.as_str();
            // By place, by id and by address it is the same one.
            let by_id = snapshot.instance(id).map(|found| (*found).clone());
            let by_addr = snapshot.id_by_addr(instance.addr()).cloned();
            ((**instance).clone(), by_id, by_addr, snapshot.seen(id))
        };
        snapshot.instances().iter().map(of).collect()
    };
    differ("instances", &instances(a), &instances(b))
        .or_else(|| differ("tokens", &a.tokens(), &b.tokens()))
        .or_else(|| differ("zones", &a.zones(), &b.zones()))
        .or_else(|| differ("duplicate tokens", &a.duplicate_tokens(), &b.duplicate_tokens()))
        .or_else(|| differ("ownership", a.ownership(), b.ownership()))
        .or_else(|| differ("nobody", &a.instance("nobody").is_none(), &b.instance("nobody").is_none()))
}

/// Shards of all kinds, small, large, and with windows as long as can be.
fn shards(a: &Snapshot, b: &Snapshot, keys: &[u32], now: i64) -> Option<String> {
    let keys = &keys[..keys.len().min(3)];
    [1, 4].into_iter().find_map(|size| {
        let windows = [61, u64::MAX].map(Duration::from_secs);
        let looking_back = windows.into_iter().find_map(|period| {
            let of = |snapshot: &Snapshot| {
                shard(&snapshot.shuffle_shard_with_lookback("tenant", size, period, now), keys, now)
            };
            differ(&format!("shard of {size} and the last {period:?} at {now}"), &of(a), &of(b))
        });
        let plain = |snapshot: &Snapshot| shard(&snapshot.shuffle_shard("tenant", size), keys, now);
        let stable =
            |snapshot: &Snapshot| shard(&snapshot.shuffle_shard_zone_stable("tenant", size), keys, now);
        looking_back
            .or_else(|| differ(&format!("shard of {size}"), &plain(a), &plain(b)))
            .or_else(|| differ(&format!("stable shard of {size}"), &stable(a), &stable(b)))
    })
}

/// What a shard answers.
fn shard(shard: &Shard<'_>, keys: &[u32], now: i64) -> impl PartialEq + std::fmt::Debug + use<> {
    let ids: Vec<String> = shard.instances().map(|instance| instance.id.to_string()).collect();
    let zones: Vec<String> = shard.zones().map(ToString::to_string).collect();
    let gets: Vec<_> =
        keys.iter().map(|&key| shard.get(key, Operation::WRITE, now).map(|set| told(&set))).collect();
    let read = shard.replication_set(Operation::READ, now).map(|set| told(&set));
    (shard.is_whole(), ids, zones, gets, read, shard.split_by_health(Operation::READ, now))
}

fn by_health(a: &Snapshot, b: &Snapshot, op: Operation, now: i64) -> Option<String> {
    let bits = op.bits();
    let healthy = |snapshot: &Snapshot| -> Vec<bool> {
        snapshot.instances().iter().map(|instance| snapshot.is_healthy(&instance.id, op, now)).collect()
    };
    differ(&format!("is_healthy({bits:#x}, {now})"), &healthy(a), &healthy(b))
        .or_else(|| {
            let what = format!("split_by_health({bits:#x}, {now})");
            differ(&what, &a.split_by_health(op, now), &b.split_by_health(op, now))
        })
        .or_else(|| {
            let what = format!("all_healthy({bits:#x}, {now})");
            differ(&what, &a.all_healthy(op, now), &b.all_healthy(op, now))
        })
        .or_else(|| {
            let what = format!("replication_set({bits:#x}, {now})");
            differ(&what, &replication_set(a, op, now), &replication_set(b, op, now))
        })
}
