use ringkit_ring::{Operation, Snapshot};
use serde_json::Value;

use crate::support::{count, list, number, options, ring, text, token, vectors};

fn operation(name: &str) -> Operation {
    match name {
        "Write" => Operation::WRITE,
        "WriteNoExtend" => Operation::WRITE_NO_EXTEND,
        "Read" => Operation::READ,
        "Reporting" => Operation::REPORTING,
        "BlocksOwnerSync" => Operation::BLOCKS_OWNER_SYNC,
        "BlocksOwnerRead" => Operation::BLOCKS_OWNER_READ,
        "BlocksRead" => Operation::BLOCKS_READ,
        "ListRuleRingOp" => Operation::RULER_LIST,
        "AlertmanagerSyncRingOp" => Operation::ALERTMANAGER_SYNC,
        other => panic!("unknown operation {other}"),
    }
}

pub(crate) fn ids(value: &Value) -> Vec<String> {
    value.as_array().into_iter().flatten().map(|id| id.as_str().unwrap().to_owned()).collect()
}

fn check_ring(case: &Value) -> (usize, usize) {
    let (name, now) = (text(case, "name"), number(case, "now"));
    let snapshot = Snapshot::first_sight(&ring(list(case, "instances")), now, &options(&case["config"]));
    let mut gets = 0;
    for (op, queries) in case["get"].as_object().into_iter().flatten() {
        for query in queries.as_array().unwrap() {
            check_get(name, &snapshot, operation(op), query, now);
            gets += 1;
        }
    }
    for set in list(case, "sets") {
        check_set(name, &snapshot, set, now);
    }
    assert_eq!(snapshot.zones(), ids(&case["ring_zones"]), "{name}: zones");
    assert_eq!(snapshot.tokens().len(), count(case, "ring_tokens_count"), "{name}: tokens");
    assert_eq!(snapshot.duplicate_tokens(), count(case, "duplicate_tokens"), "{name}: duplicates");
    (gets, list(case, "sets").len())
}

pub(crate) fn check_get(name: &str, snapshot: &Snapshot, op: Operation, query: &Value, now: i64) {
    let result = snapshot.get(token(&query[0]), op, now);
    match (result, query[3].as_str()) {
        (Ok(set), None) => {
            let found: Vec<_> = set.ids().map(ToString::to_string).collect();
            assert_eq!(found, ids(&query[1]), "{name}: {op:?} {query}");
            assert_eq!(
                set.max_errors() as u64,
                query[2].as_u64().unwrap_or_default(),
                "{name}: {op:?} {query}"
            );
            assert_eq!(set.max_unavailable_zones(), 0);
        }
        (Err(error), Some(expected)) => assert_eq!(error.to_string(), expected, "{name}: {op:?} {query}"),
        (result, _) => panic!("{name}: {op:?} {query}: {result:?}"),
    }
}

fn check_set(name: &str, snapshot: &Snapshot, set: &Value, now: i64) {
    let op = operation(text(set, "op"));
    let place = format!("{name}: {set}");
    match snapshot.split_by_health(op, now) {
        Ok((healthy, unhealthy)) => {
            let sorted = |list: &[std::sync::Arc<ringkit_ring::Instance>]| -> Vec<_> {
                list.iter().map(|instance| instance.id.to_string()).collect()
            };
            assert_eq!(sorted(&healthy), ids(&set["all_healthy"]), "{place}");
            assert_eq!(sorted(&unhealthy), ids(&set["all_unhealthy"]), "{place}");
            assert_eq!(snapshot.all_healthy(op, now).unwrap(), healthy);
        }
        Err(error) => {
            assert!(set.to_string().contains(&error.to_string()), "{place}: {error}");
            assert!(ids(&set["all_healthy"]).is_empty() && ids(&set["all_unhealthy"]).is_empty(), "{place}");
        }
    }
    let error = text(set, "replication_set_error");
    match snapshot.replication_set(op, now) {
        Ok(found) => {
            let mut sorted: Vec<_> = found.ids().map(ToString::to_string).collect();
            sorted.sort();
            assert_eq!(error, "", "{place}");
            assert_eq!(sorted, ids(&set["replication_set_ids"]), "{place}");
            assert_eq!(found.max_errors(), count(set, "replication_set_max_errors"), "{place}");
            assert_eq!(
                found.max_unavailable_zones(),
                count(set, "replication_set_max_unavailable_zones"),
                "{place}"
            );
        }
        Err(found) => assert_eq!(found.to_string(), error, "{place}"),
    }
}

#[test]
fn lookups_in_designed_rings_agree_with_cortex() {
    let file = vectors("get_worked");
    for (name, bits) in file["op_bitmaps"].as_object().unwrap() {
        assert_eq!(u64::from(operation(name).bits()), bits.as_u64().unwrap(), "{name}");
    }
    let checked: Vec<_> = list(&file, "rings").iter().map(check_ring).collect();
    assert_eq!((checked.len(), checked.iter().map(|c| c.0).sum::<usize>()), (39, 291));
    assert_eq!(checked.iter().map(|c| c.1).sum::<usize>(), 68);
}

#[test]
fn lookups_in_random_rings_agree_with_cortex() {
    let checked: Vec<_> = list(&vectors("get_random"), "rings").iter().map(check_ring).collect();
    assert_eq!((checked.len(), checked.iter().map(|c| c.0).sum::<usize>()), (12, 240));
    assert_eq!(checked.iter().map(|c| c.1).sum::<usize>(), 48);
}
