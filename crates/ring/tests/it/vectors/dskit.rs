//! Lookups in the dskit dialect.

use ringkit_ring::{Dialect, Operation, RingOptions, Snapshot};

use super::get::{check_get, ids};
use crate::support::{count, list, number, options, ring, text, vectors};

fn operation(name: &str) -> Operation {
    match name {
        "Write" => Operation::DSKIT_WRITE,
        "WriteNoExtend" => Operation::DSKIT_WRITE_NO_EXTEND,
        "Read" => Operation::DSKIT_READ,
        "Reporting" => Operation::REPORTING,
        other => panic!("unknown operation {other}"),
    }
}

#[test]
fn lookups_in_the_dskit_dialect_agree_with_dskit() {
    let file = vectors("dskit_rings");
    for (name, bits) in file["op_bitmaps"].as_object().unwrap() {
        assert_eq!(u64::from(operation(name).bits()), bits.as_u64().unwrap(), "{name}");
    }
    let (mut gets, mut sets) = (0, 0);
    for case in list(&file, "rings") {
        let (name, now) = (text(case, "name"), number(case, "now"));
        let options = RingOptions { dialect: Dialect::Dskit, ..options(&case["config"]) };
        let snapshot = Snapshot::first_sight(&ring(list(case, "instances")), now, &options);
        for (op, queries) in case["get"].as_object().into_iter().flatten() {
            for query in queries.as_array().unwrap() {
                check_get(name, &snapshot, operation(op), query, now);
                gets += 1;
            }
        }
        for set in list(case, "sets") {
            let place = format!("{name}: {set}");
            match snapshot.replication_set(operation(text(set, "op")), now) {
                Ok(found) => {
                    let mut sorted: Vec<_> = found.ids().map(ToString::to_string).collect();
                    sorted.sort();
                    assert_eq!(sorted, ids(&set["replication_set_ids"]), "{place}");
                    assert_eq!(found.max_errors(), count(set, "replication_set_max_errors"), "{place}");
                    let zones = count(set, "replication_set_max_unavailable_zones");
                    assert_eq!(found.max_unavailable_zones(), zones, "{place}");
                }
                Err(error) => assert_eq!(error.to_string(), text(set, "replication_set_error"), "{place}"),
            }
            sets += 1;
        }
    }
    assert_eq!(gets, 96);
    assert!(sets > 0, "{sets}");
}
