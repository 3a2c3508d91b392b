//! What each instance holds and owns, as dskit says.

use ringkit_ring::{RingOptions, Snapshot};

use crate::support::{list, number, options, ring, text, token, vectors};

#[test]
fn the_keys_of_an_instance_are_those_of_dskit() {
    let mut cases = 0;
    for ring_case in list(&vectors("dskit_rings"), "rings") {
        let desc = ring(list(ring_case, "instances"));
        let snapshot = Snapshot::first_sight(&desc, number(ring_case, "now"), &options(&ring_case["config"]));
        for case in list(ring_case, "token_ranges") {
            cases += 1;
            let name = format!("{}: {}", text(ring_case, "name"), text(case, "id"));
            match snapshot.token_ranges(text(case, "id")) {
                Ok(ranges) => {
                    let flat: Vec<u32> = ranges.iter().flat_map(|(first, last)| [first, last]).collect();
                    let expected: Vec<_> = list(case, "ranges").iter().map(token).collect();
                    assert_eq!(flat, expected, "{name}");
                    assert!(flat.iter().all(|&end| ranges.includes(end)), "{name}");
                }
                Err(error) => assert_eq!(error.to_string(), text(case, "error"), "{name}"),
            }
        }
    }
    assert_eq!(cases, 21);
}

#[test]
fn tokens_are_counted_by_zone_as_in_dskit() {
    let mut cases = 0;
    for case in list(&vectors("dskit_rings"), "rings") {
        let Some(expected) = case["owned_range"].as_object() else { continue };
        cases += 1;
        let snapshot = Snapshot::first_sight(&ring(list(case, "instances")), 0, &RingOptions::default());
        assert_eq!(snapshot.instances().len(), expected.len());
        for (member, share) in snapshot.instances().iter().zip(snapshot.ownership().of_zone()) {
            let positions = expected[member.id.as_str()].as_u64().unwrap();
            assert_eq!(share.positions, positions, "{}: {}", text(case, "name"), member.id);
        }
    }
    assert_eq!(cases, 6);
}
