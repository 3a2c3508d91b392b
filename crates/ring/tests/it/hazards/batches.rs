//! Writes and reads that end too early, or never.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use ringkit_ring::{BatchError, CallError, Desc, Instance, Operation, RingOptions, Snapshot, do_batch};
use ringkit_runtime::Supervisor;

use crate::support::active;

const NOW: i64 = 1000;

fn ring(ids: &[&str]) -> Desc {
    ids.iter().zip(1u32..).map(|(id, place)| active(id, "", &[place * 10])).collect()
}

fn seen(desc: &Desc) -> Snapshot {
    Snapshot::first_sight(desc, NOW, &RingOptions::default())
}

/// Cortex counts every success of an item beyond its quorum as that of another item: three successes for item 0 end a
/// batch of which item 1 is nowhere.
#[tokio::test(start_paused = true)]
async fn h01_a_batch_is_not_done_before_each_item_is() {
    // Item 0 lies on a, b, c; item 1 on d, e, f, which take longer.
    let snapshot = seen(&ring(&["a", "b", "c", "d", "e", "f"]));
    let answered = Arc::new(AtomicUsize::new(0));
    let slow = Arc::clone(&answered);
    let call = move |instance: Arc<Instance>, _| {
        let slow = Arc::clone(&slow);
        async move {
            if instance.id.as_str() >= "d" {
                tokio::time::sleep(Duration::from_secs(1)).await;
                slow.fetch_add(1, Ordering::SeqCst);
            }
            Ok(())
        }
    };
    let background = Supervisor::new("test");
    do_batch(&snapshot, Operation::WRITE, &[5, 35], NOW, &background, call).await.unwrap();
    assert!(answered.load(Ordering::SeqCst) >= 2, "item 1 has a quorum of its own");
}

/// The same where item 1 fails in the end: Cortex has long told the caller that all is well.
#[tokio::test(start_paused = true)]
async fn h01_a_failing_item_fails_the_batch_however_well_others_do() {
    let snapshot = seen(&ring(&["a", "b", "c", "d", "e", "f"]));
    let call = |instance: Arc<Instance>, _| async move {
        if instance.id.as_str() < "d" {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
        Err(CallError::new(503, "busy"))
    };
    // Many items of the good kind, so that any miscounting has successes to spare.
    let tokens = [5, 5, 5, 5, 35, 5, 5, 5];
    let background = Supervisor::new("test");
    let result = do_batch(&snapshot, Operation::WRITE, &tokens, NOW, &background, call).await;
    assert!(matches!(result, Err(BatchError::Failed { code: 503, .. })), "{result:?}");
}

/// Cortex groups a batch by address: two instances on one address are one call with the item listed twice, and its one
/// reply counts as two replicas.
#[tokio::test]
async fn h20_one_reply_is_one_replica_also_where_two_share_an_address() {
    let mut desc = ring(&["a", "b", "c"]);
    for id in ["a", "b"] {
        let mut twin = (**desc.get(id).unwrap()).clone();
        twin.addr = "same:1".into();
        desc.insert(id, twin);
    }
    let snapshot = seen(&desc);
    let (calls, background) = (Arc::new(AtomicUsize::new(0)), Supervisor::new("test"));
    let counted = Arc::clone(&calls);
    let call = move |instance: Arc<Instance>, items: Vec<usize>| {
        counted.fetch_add(1, Ordering::SeqCst);
        async move {
            assert_eq!(items, [0], "the item once");
            if instance.id == "a" { Ok(()) } else { Err(CallError::new(500, "down")) }
        }
    };
    let result = do_batch(&snapshot, Operation::WRITE, &[5], NOW, &background, call).await;
    assert!(matches!(result, Err(BatchError::Failed { code: 500, .. })), "{result:?}");
    assert_eq!(calls.load(Ordering::SeqCst), 3);
}
