//! Reads that never end.

use std::sync::Arc;
use std::time::Duration;

use ringkit_ring::{Desc, DoAllOptions, ReplicationSet, RingOptions, Snapshot, do_all};

use crate::support::active;

const NOW: i64 = 1000;

fn set(instances: u32, max_errors: usize) -> ReplicationSet {
    let desc: Desc = (0..instances).map(|n| active(&format!("i{n}"), "", &[n])).collect();
    let snapshot = Snapshot::first_sight(&desc, NOW, &RingOptions::default());
    let instances = snapshot.instances().iter().map(Arc::clone).collect();
    ReplicationSet { instances, max_errors, ..ReplicationSet::default() }
}

/// With a delay, and a part of the answer allowed, each failure in Cortex wakes a delayed call through a channel that holds
/// as many as may fail: the next failure waits for a reader for ever, and no deadline of the caller's ends it.
#[tokio::test(start_paused = true)]
async fn h16_more_failures_than_delayed_calls_end_a_read_all_the_same() {
    for (instances, max_errors) in [(3, 0), (3, 1), (5, 2), (5, 4)] {
        for partial_data in [false, true] {
            let options =
                DoAllOptions { delay: Duration::from_secs(3600), partial_data, ..DoAllOptions::default() };
            let failing = do_all(&set(instances, max_errors), &options, |_| async { Err::<(), _>("down") })
                .await
                .map(|answers| answers.results.len());
            assert!(failing.is_err(), "{instances}, {max_errors}: all failed, nothing to give in part");
        }
    }
}

/// The same where something is left to give.
#[tokio::test(start_paused = true)]
async fn h16_what_was_answered_is_returned_when_too_many_fail() {
    let options =
        DoAllOptions { delay: Duration::from_secs(3600), partial_data: true, ..DoAllOptions::default() };
    let five = set(5, 1);
    let answers =
        do_all(
            &five,
            &options,
            |call| async move { if call.instance.id == "i0" { Ok(7) } else { Err("down") } },
        );
    let answers = answers.await.unwrap();
    assert_eq!(answers.results, [7]);
    let partial = answers.partial.unwrap();
    assert!(partial.to_string().starts_with("query result may contain partial data\n("), "{partial}");
    assert_eq!(partial.faults.len(), 4);
}
