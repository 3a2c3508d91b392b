//! What holds whatever the instances do, and whenever it ends.

use proptest::prelude::*;
use ringkit_ring::quorum::{ItemTracker, Verdict};
use ringkit_ring::{Desc, Family, Operation, RingOptions, Snapshot, do_until_quorum_in_background};
use ringkit_runtime::Supervisor;

use super::*;
use crate::support::active;

const IDS: [&str; 9] = ["a1", "a2", "a3", "b1", "b2", "b3", "c1", "c2", "c3"];

fn does() -> impl Strategy<Value = Does> {
    prop_oneof![
        4 => (0u64..4).prop_map(Does::Answer),
        2 => (0u64..4).prop_map(Does::Fail),
        1 => (0u64..4).prop_map(Does::Panic),
        1 => Just(Does::PanicAtOnce),
        1 => Just(Does::Hang),
        1 => Just(Does::AnswerLate),
    ]
}

fn block_on<T>(work: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    runtime.unwrap().block_on(work)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn every_result_is_returned_or_cleaned_up_exactly_once(
        roles in prop::collection::vec(does(), 9),
        num in 0usize..10,
        tolerance in 0usize..3,
        by_zone: bool,
        minimize: bool,
        background: bool,
        given_up_after in prop::option::of(0u64..6),
    ) {
        let mut stage = stage([]);
        stage.roles = IDS.into_iter().zip(roles).collect();
        let (max_errors, max_zones) = if by_zone { (0, tolerance) } else { (tolerance, 0) };
        let set = ReplicationSet {
            zone_awareness_enabled: by_zone,
            ..set(&IDS[..num].join(" "), max_errors, max_zones)
        };
        let options = UntilQuorumOptions {
            hedging_delay: Some(Duration::from_secs(2)),
            minimize_requests: minimize,
            ..everybody()
        };
        let returned = block_on(async {
            let owner = Supervisor::new("test");
            // Nobody waits for ever.
            let patience = Duration::from_millis(given_up_after.map_or(20_000, |secs| secs * 1000 + 500));
            let outcome = if background {
                let request =
                    do_until_quorum_in_background(&set, &options, &owner, stage.calls(), stage.cleanup());
                tokio::time::timeout(patience, request).await
            } else {
                tokio::time::timeout(patience, stage.ask(&set, &options)).await
            };
            let _ = owner.shutdown(Duration::from_secs(60)).await;
            outcome
        });
        prop_assert_eq!(stage.cancelled(), stage.called(), "all tokens are cancelled in the end");
        let returned = returned.ok().and_then(Result::ok).unwrap_or_default();
        prop_assert_eq!(sorted(&[returned, stage.cleaned()].concat()), stage.answered());
    }

    #[test]
    fn a_read_that_succeeds_has_asked_somebody_who_acknowledged_the_write(
        members in prop::collection::vec((0usize..3, 0u32..1000), 3..10),
        zone_aware: bool,
        key in 0u32..1000,
        acknowledges in prop::collection::vec(any::<bool>(), 10),
        fails in prop::collection::vec(prop::bool::weighted(0.2), 10),
        minimize: bool,
        seed: u64,
    ) {
        // The first three make sure that every zone has somebody.
        let ids: Vec<String> = (0..members.len()).map(|number| format!("{number}")).collect();
        let zone = |number: usize, drawn: usize| ["a", "b", "c"][if number < 3 { number } else { drawn }];
        let entry = |(number, &(drawn, token)): (usize, &(usize, u32))| {
            // Tokens differ.
            active(&ids[number], zone(number, drawn), &[token * 10 + number as u32])
        };
        let desc: Desc = members.iter().enumerate().map(entry).collect();
        let options = RingOptions { zone_awareness_enabled: zone_aware, ..RingOptions::default() };
        let ring = Snapshot::first_sight(&desc, 1000, &options);

        let owners = ring.get(key * 10, Operation::WRITE, 1000).unwrap().to_set();
        let mut item = ItemTracker::new(owners.len(), owners.max_errors);
        let place = |instance: &Instance| instance.id.parse::<usize>().unwrap();
        let mut acknowledged = Vec::new();
        let mut is_written = false;
        for (number, instance) in owners.instances.iter().enumerate() {
            let verdict = if acknowledges[place(instance)] {
                acknowledged.push(instance.id.to_string());
                item.success()
            } else {
                item.error(Family::Server, number as u32)
            };
            is_written |= verdict == Verdict::Satisfied;
        }
        if !is_written {
            return Ok(());
        }

        let set = ring.replication_set(Operation::READ, 1000).unwrap().to_set();
        let options = UntilQuorumOptions { minimize_requests: minimize, seed: Some(seed), ..everybody() };
        let call = async |call: ReplicaCall| {
            let id = call.instance.id.to_string();
            if fails[place(&call.instance)] { Err(format!("{id} failed")) } else { Ok(id) }
        };
        if let Ok(read) = block_on(do_until_quorum(&set, &options, call, drop)) {
            prop_assert!(read.iter().any(|id| acknowledged.contains(id)), "{:?} {:?}", read, acknowledged);
        }
    }
}
