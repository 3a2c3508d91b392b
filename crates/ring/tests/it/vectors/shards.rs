use std::time::Duration;

use ringkit_ring::{Dialect, RingOptions, Shard, Snapshot};
use serde_json::Value;

use crate::support::{count, list, number, options, ring, text, vectors};

fn ids(value: &Value) -> Vec<&str> {
    value.as_array().into_iter().flatten().map(|id| id.as_str().unwrap()).collect()
}

fn shard<'a>(snapshot: &'a Snapshot, case: &Value, now: i64) -> Shard<'a> {
    let (identifier, size) = (text(case, "identifier"), number(case, "size"));
    let period = Duration::from_secs(count(case, "lookback_s") as u64);
    match case["mode"].as_str() {
        Some("zone_stable") => snapshot.shuffle_shard_zone_stable(identifier, size),
        Some("plain") => snapshot.shuffle_shard(identifier, size),
        Some("lookback") => snapshot.shuffle_shard_with_lookback(identifier, size, period, now),
        // dskit's cases tell it by the period, where zero is plain either way.
        None => snapshot.shuffle_shard_with_lookback(identifier, size, period, now),
        Some(other) => panic!("unknown mode {other}"),
    }
}

/// How many selections were checked.
fn check_ring(case: &Value, now: i64, dialect: Dialect) -> usize {
    for shard_cache in [false, true] {
        let options = RingOptions { dialect, shard_cache, ..options(&case["config"]) };
        let snapshot = Snapshot::first_sight(&ring(list(case, "instances")), now, &options);
        // The second time the kept ones are asked for.
        for selected in list(case, "shards").iter().chain(list(case, "shards")) {
            let shard = shard(&snapshot, selected, now);
            let is_full_ring = selected["is_full_ring"] == true;
            let expected = if is_full_ring {
                snapshot.instances().iter().map(|member| member.id.as_str()).collect()
            } else {
                ids(&selected["ids"])
            };
            let name = text(case, "name");
            assert!(
                shard.instances().map(|member| member.id.as_str()).eq(expected.clone()),
                "{name}: {selected}"
            );
            assert!(!is_full_ring || shard.is_whole(), "{name}: {selected}");
            assert_eq!(shard.len(), expected.len());
            assert!(
                snapshot
                    .instances()
                    .iter()
                    .all(|member| { shard.contains(&member.id) == expected.contains(&member.id.as_str()) })
            );
        }
    }
    list(case, "shards").len()
}

#[test]
fn shards_agree_with_cortex() {
    let file = vectors("shuffle_shard");
    let now = number(&file, "now");
    let checked: Vec<_> =
        list(&file, "rings").iter().map(|case| check_ring(case, now, Dialect::Cortex)).collect();
    assert_eq!((checked.len(), checked.iter().sum::<usize>()), (6, 318));
}

#[test]
fn shards_agree_with_dskit() {
    let file = vectors("dskit_rings");
    let rings = list(&file, "rings").iter();
    let checked: Vec<_> = rings.map(|case| check_ring(case, number(case, "now"), Dialect::Dskit)).collect();
    assert_eq!((checked.len(), checked.iter().sum::<usize>()), (11, 120));
}
