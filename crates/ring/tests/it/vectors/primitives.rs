use std::time::Duration;

use ringkit_ring::token::distance;
use ringkit_ring::{
    Desc, Error, InstanceDesc, Operation, RingOptions, Share, Snapshot, State, Strategy, search_token,
};
use serde_json::Value;

use crate::support::{count, list, number, ring, strategy, text, token, vectors};

#[test]
fn tokens_are_searched_as_in_cortex() {
    for case in list(&vectors("primitives"), "search_token") {
        let tokens: Vec<_> = list(case, "tokens").iter().map(token).collect();
        assert_eq!(search_token(&tokens, token(&case["key"])), count(case, "index"), "{case}");
    }
    assert_eq!(search_token(&[], 5), 0, "even among none");
}

#[test]
fn distances_are_those_of_cortex() {
    for case in list(&vectors("primitives"), "token_distance") {
        let found = distance(token(&case["from"]), token(&case["to"]));
        assert_eq!(found, case["distance"].as_u64().unwrap(), "{case}");
    }
}

#[test]
fn ownership_is_counted_as_in_cortex() {
    for case in list(&vectors("primitives"), "ownership") {
        let name = text(case, "name");
        let snapshot = Snapshot::first_sight(&ring(list(case, "instances")), 0, &RingOptions::default());
        let ownership = snapshot.ownership();
        assert_eq!(ownership.of_circle().len(), case["num_tokens"].as_object().unwrap().len());
        for (place, instance) in snapshot.instances().iter().enumerate() {
            let id = instance.id.as_str();
            let share = |tokens: &Value, positions: &Value| Share {
                tokens: count(tokens, id),
                positions: u64::try_from(number(positions, id)).unwrap(),
            };
            let circle = share(&case["num_tokens"], &case["owned_range"]);
            assert_eq!(ownership.of_circle()[place], circle, "{name}: {id}");
            let tokens = &case["num_tokens_by_zone"][instance.zone().as_str()];
            assert_eq!(
                ownership.of_zone()[place],
                share(tokens, &case["owned_range_by_zone"]),
                "{name}: {id} by zone"
            );
        }
    }
}

#[test]
fn replicas_are_filtered_as_in_cortex() {
    let now = 1_700_000_000;
    let file = vectors("primitives");
    assert_eq!(list(&file, "strategy_filter").len(), 93);
    for case in list(&file, "strategy_filter") {
        let factor = count(case, "replication_factor");
        let instances = list(case, "instances");
        let op = if text(case, "op") == "Read" { Operation::READ } else { Operation::WRITE };
        let desc: Desc =
            instances.iter().enumerate().map(|(place, state)| replica(place, state, now)).collect();
        let options = RingOptions {
            strategy: strategy(text(case, "strategy")),
            replication_factor: factor,
            heartbeat_timeout: Duration::from_secs(60),
            ..RingOptions::default()
        };
        let snapshot = Snapshot::first_sight(&desc, now, &options);
        let (healthy, unhealthy): (Vec<_>, Vec<_>) =
            snapshot.instances().iter().partition(|instance| snapshot.is_healthy(&instance.id, op, now));
        let found = healthy.len();
        let error = match options.strategy.tolerated(factor, found) {
            Ok(max_errors) => {
                assert_eq!(
                    (found, max_errors),
                    (count(case, "healthy"), count(case, "max_failures")),
                    "{case}"
                );
                assert_eq!(text(case, "error"), "", "{case}");
                continue;
            }
            Err(required) => {
                let unhealthy: Vec<_> = unhealthy.iter().map(|instance| instance.addr().as_str()).collect();
                let unhealthy = unhealthy.join(",");
                match options.strategy {
                    Strategy::Quorum => {
                        Error::TooFewReplicas { required, found, zone_aware: false, unhealthy }
                    }
                    Strategy::IgnoreUnhealthy => Error::NoHealthyReplica { unhealthy },
                }
            }
        };
        assert_eq!(error.to_string(), text(case, "error"), "{case}");
    }
}

fn replica(place: usize, state: &Value, now: i64) -> (String, InstanceDesc) {
    let (state, age) = match state.as_str().unwrap() {
        "DEAD" => (State::Active, 61),
        name => (name.parse().unwrap(), 0),
    };
    let desc = InstanceDesc {
        addr: place.to_string().into(),
        timestamp: now - age,
        state,
        tokens: vec![place as u32].into(),
        ..InstanceDesc::default()
    };
    (format!("{place:03}"), desc)
}
