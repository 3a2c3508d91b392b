//! Batches against instances that answer, fail, panic, hang or stop.

mod ending;

use std::borrow::Borrow;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use proptest::prelude::*;
use ringkit_ring::{
    BatchError, BatchReport, CallError, Desc, Error, Family, Operation, RingOptions, Snapshot, State,
    do_batch,
};
use ringkit_runtime::Supervisor;
use tokio::sync::Notify;

use crate::support::active;

const NOW: i64 = 1000;

fn snapshot(desc: &Desc) -> Snapshot {
    Snapshot::first_sight(desc, NOW, &RingOptions::default())
}

/// Six instances at 10, 20, … 60: key 5 lies on a, b, c and key 35 on d, e, f.
fn six() -> Snapshot {
    let instances = ["a", "b", "c", "d", "e", "f"].into_iter().zip([[10], [20], [30], [40], [50], [60]]);
    snapshot(&instances.map(|(id, tokens)| active(id, "", &tokens)).collect())
}

async fn write<F, Fut>(
    snapshot: impl Borrow<Snapshot>,
    tokens: &[u32],
    call: F,
) -> Result<BatchReport, BatchError>
where
    F: Fn(String, Vec<usize>) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<(), CallError>> + Send + 'static,
{
    let background = Supervisor::new("test");
    let call = move |instance: Arc<ringkit_ring::Instance>, items| call(instance.id.to_string(), items);
    do_batch(snapshot.borrow(), Operation::WRITE, tokens, NOW, &background, call).await
}

#[tokio::test]
async fn each_instance_is_called_once_with_its_items_in_order() {
    let calls: Arc<Mutex<BTreeMap<String, Vec<usize>>>> = Arc::default();
    let seen = Arc::clone(&calls);
    let report = write(six(), &[5, 15, 35, 5], move |id, items| {
        assert_eq!(seen.lock().unwrap().insert(id, items), None, "called twice");
        // Nobody is done before all have been called.
        let everyone_called = Arc::clone(&seen);
        async move {
            while everyone_called.lock().unwrap().len() < 6 {
                tokio::task::yield_now().await;
            }
            Ok(())
        }
    });
    assert_eq!(report.await.unwrap().calls, 6);
    let expected = [("a", vec![0, 3]), ("b", vec![0, 1, 3]), ("c", vec![0, 1, 3]), ("d", vec![1, 2])];
    let calls = calls.lock().unwrap();
    for (id, items) in expected {
        assert_eq!(calls[id], items, "{id}");
    }
}

#[tokio::test]
async fn an_empty_batch_is_done_at_once_and_an_empty_ring_takes_none() {
    let nobody = |_, _| async { panic!("called") };
    assert_eq!(write(six(), &[], nobody).await, Ok(BatchReport::default()));
    let error = write(snapshot(&Desc::new()), &[1], nobody).await.unwrap_err();
    assert_eq!(error.to_string(), "DoBatch: InstancesCount <= 0");
}

#[tokio::test]
async fn nobody_is_called_if_one_item_has_no_quorum() {
    let mut desc: Desc =
        [active("a", "", &[10]), active("b", "", &[20]), active("c", "", &[30])].into_iter().collect();
    let mut old = active("c", "", &[30]).1;
    old.timestamp = 0;
    desc.insert("c", old.clone());
    (old.addr, old.tokens) = ("b:1".into(), vec![20].into());
    desc.insert("b", old);
    let error = write(snapshot(&desc), &[5], |_, _| async { panic!("called") }).await.unwrap_err();
    assert!(
        matches!(error, BatchError::Ring(Error::TooFewReplicas { required: 2, found: 1, .. })),
        "{error}"
    );
    let text = "at least 2 live replicas required, could only find 1 - unhealthy instances: b:1,c:1";
    assert_eq!(error.to_string(), text);
}

#[tokio::test(start_paused = true)]
async fn a_quorum_is_answered_while_the_slowest_call_goes_on_in_the_background() {
    let background = Supervisor::new("test");
    let (finish, finished) = (Arc::new(Notify::new()), Arc::new(AtomicUsize::new(0)));
    let (hung, done) = (Arc::clone(&finish), Arc::clone(&finished));
    let call = move |instance: Arc<ringkit_ring::Instance>, _| {
        let (hung, done) = (Arc::clone(&hung), Arc::clone(&done));
        async move {
            if instance.id == "b" {
                hung.notified().await;
            }
            done.fetch_add(1, Ordering::SeqCst);
            Ok(())
        }
    };
    let report = do_batch(&six(), Operation::WRITE, &[5], NOW, &background, call).await.unwrap();
    assert_eq!(report, BatchReport { calls: 3, unanswered: 1 });
    finish.notify_one();
    assert!(background.shutdown(Duration::from_secs(1)).await.late.is_empty());
    assert_eq!(finished.load(Ordering::SeqCst), 3);
}

/// The defect of Cortex: three successes of item 0 completed item 1 too.
#[tokio::test]
async fn successes_of_one_item_never_stand_in_for_another() {
    let result = write(six(), &[5, 35], |id, _| async move {
        if id.as_str() <= "c" { Ok(()) } else { Err(CallError::new(500, "down")) }
    });
    assert!(matches!(result.await, Err(BatchError::Failed { code: 500, .. })));
}

/// Two instances behind one address are two replicas: one of them failing is tolerated, their replies are two.
#[tokio::test]
async fn instances_on_one_address_are_called_and_counted_apart() {
    let mut desc: Desc =
        [active("a", "", &[10]), active("b", "", &[20]), active("c", "", &[30])].into_iter().collect();
    let mut twin = active("b", "", &[20]).1;
    twin.addr = "a:1".into();
    desc.insert("b", twin);
    let calls = Arc::new(AtomicUsize::new(0));
    let seen = Arc::clone(&calls);
    let result = write(snapshot(&desc), &[5], move |id, items| {
        assert_eq!(items, [0]);
        seen.fetch_add(1, Ordering::SeqCst);
        async move { if id == "a" { Ok(()) } else { Err(CallError::new(503, "busy")) } }
    });
    assert!(result.await.is_err(), "one success is not a quorum");
    assert_eq!(calls.load(Ordering::SeqCst), 3);
}

#[tokio::test]
async fn a_failure_names_how_it_came_about_and_keeps_the_code() {
    let error = write(six(), &[5], |_, _| async { Err(CallError::new(429, "slow down")) }).await.unwrap_err();
    let BatchError::Failed { code, message } = error else { panic!("{error}") };
    assert_eq!(code, 429);
    let (start, end) =
        ("maxFailure (quorum) on a given error family, addr=", " state=ACTIVE zone=, slow down");
    assert!(message.starts_with(start) && message.ends_with(end), "{message}");
}

#[tokio::test(start_paused = true)]
async fn the_last_straw_is_named_when_nobody_is_left() {
    let error = write(six(), &[5], |id, _| async move {
        let (after, outcome) = match id.as_str() {
            "a" => (1, Ok(())),
            "b" => (2, Err(CallError::new(400, "bad"))),
            _ => (3, Err(CallError::new(503, "busy"))),
        };
        tokio::time::sleep(Duration::from_secs(after)).await;
        outcome
    });
    let message = "not enough remaining instances to try, addr=c:1 state=ACTIVE zone=, bad";
    assert_eq!(error.await, Err(BatchError::Failed { code: 400, message: message.into() }));
}

#[tokio::test]
async fn calls_that_panic_are_errors_of_the_replica() {
    for at_once in [true, false] {
        let error = write(six(), &[5], move |_, _| {
            assert!(!at_once, "boom");
            async { panic!("boom") }
        });
        let BatchError::Failed { code, message } = error.await.unwrap_err() else { panic!() };
        assert_eq!(code, 500);
        assert!(message.ends_with("the call panicked: boom"), "{message}");
    }
}

#[tokio::test]
async fn calls_cut_off_by_their_owner_are_errors_and_not_a_wait_without_end() {
    let background = Supervisor::new("test");
    let owner = background.clone();
    let call = move |_, _| {
        owner.abort_all();
        std::future::pending()
    };
    let result = do_batch(&six(), Operation::WRITE, &[5], NOW, &background, call).await;
    assert!(result.unwrap_err().to_string().ends_with("the call ended without an answer"));
    // And when the owner has stopped before the batch begins.
    let result = do_batch(&six(), Operation::WRITE, &[5], NOW, &background, |_, _| async { Ok(()) }).await;
    assert!(result.unwrap_err().to_string().ends_with("the call ended without an answer"));
}

#[tokio::test(start_paused = true)]
async fn calls_go_on_when_the_caller_gives_up() {
    let background = Supervisor::new("test");
    let done = Arc::new(AtomicUsize::new(0));
    let seen = Arc::clone(&done);
    let call = move |_, _| {
        let seen = Arc::clone(&seen);
        async move {
            tokio::time::sleep(Duration::from_secs(2)).await;
            seen.fetch_add(1, Ordering::SeqCst);
            Ok(())
        }
    };
    let snapshot = six();
    let batch = do_batch(&snapshot, Operation::WRITE, &[5], NOW, &background, call);
    assert!(tokio::time::timeout(Duration::from_secs(1), batch).await.is_err());
    assert!(background.shutdown(Duration::from_secs(5)).await.late.is_empty());
    assert_eq!(done.load(Ordering::SeqCst), 3);
}

#[tokio::test]
async fn a_leaving_replica_is_replaced_by_the_next() {
    let mut desc: Desc = [("a", 10), ("b", 20), ("c", 30), ("d", 40)]
        .map(|(id, at)| active(id, "", &[at]))
        .into_iter()
        .collect();
    let mut leaving = active("b", "", &[20]).1;
    leaving.state = State::Leaving;
    desc.insert("b", leaving);
    let called: Arc<Mutex<Vec<String>>> = Arc::default();
    let seen = Arc::clone(&called);
    let report = write(snapshot(&desc), &[5], move |id, _| {
        seen.lock().unwrap().push(id);
        async { Ok(()) }
    });
    assert_eq!(report.await.unwrap().calls, 3);
    assert!(!called.lock().unwrap().contains(&"b".to_owned()));
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Reply {
    Ok,
    Client,
    Server,
}

/// What the replies in this order mean, told in the plainest way: reply by reply, over all items.
fn model(items: &[Vec<usize>], order: &[usize], replies: &[Reply]) -> Option<Result<(), Family>> {
    let mut counts = vec![(0, 0, 0); items.len()];
    for &instance in order {
        for (item, owners) in items.iter().enumerate().filter(|(_, owners)| owners.contains(&instance)) {
            let (ok, client, server) = &mut counts[item];
            *match replies[instance] {
                Reply::Ok => &mut *ok,
                Reply::Client => &mut *client,
                Reply::Server => &mut *server,
            } += 1;
            let (n, tolerated) = (owners.len(), owners.len() - (owners.len() / 2 + 1));
            let too_many = *client > tolerated || *server > tolerated;
            let nobody_left = *ok + *client + *server == n && *ok < n - tolerated;
            if too_many || nobody_left {
                return Some(Err(if *server > *client { Family::Server } else { Family::Client }));
            }
        }
        let satisfied = |(owners, (ok, ..)): (&Vec<usize>, &(usize, usize, usize))| *ok > owners.len() / 2;
        if items.iter().zip(&counts).all(satisfied) {
            return Some(Ok(()));
        }
    }
    None
}

fn reply() -> impl Strategy<Value = Reply> {
    prop_oneof![3 => Just(Reply::Ok), 1 => Just(Reply::Client), 1 => Just(Reply::Server)]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn replies_in_any_order_agree_with_a_simple_model(
        keys in prop::collection::vec(0u32..70, 1..12),
        replies in prop::collection::vec(reply(), 6),
        order in Just((0..6usize).collect::<Vec<_>>()).prop_shuffle(),
    ) {
        let ring = six();
        let place = |id: &str| ring.instances().iter().position(|instance| instance.id == id).unwrap();
        let owners = |key: &u32| -> Vec<usize> {
            let set = ring.get(*key, Operation::WRITE, NOW).unwrap();
            set.ids().map(|id| place(id)).collect()
        };
        let items: Vec<_> = keys.iter().map(owners).collect();
        let expected = model(&items, &order, &replies);

        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        let result = runtime.block_on(async {
            let (order, replies) = (order.clone(), replies.clone());
            write(&ring, &keys, move |id, _| {
                let instance = usize::from(id.as_bytes()[0] - b'a');
                let turn = order.iter().position(|&at| at == instance).unwrap();
                let reply = replies[instance];
                async move {
                    tokio::time::sleep(Duration::from_secs(turn as u64)).await;
                    match reply {
                        Reply::Ok => Ok(()),
                        Reply::Client => Err(CallError::new(400, "bad")),
                        Reply::Server => Err(CallError::new(503, "busy")),
                    }
                }
            }).await
        });
        let result = match result {
            Ok(_) => Ok(()),
            Err(BatchError::Failed { code: 400, .. }) => Err(Family::Client),
            Err(BatchError::Failed { code: 503, .. }) => Err(Family::Server),
            Err(other) => panic!("{other}"),
        };
        prop_assert_eq!(Some(result), expected);
    }
}

#[tokio::test]
async fn a_batch_for_a_shard_calls_its_members_only() {
    let members = (0..60u32).map(|n| active(&format!("i{n}"), "", &[n << 26, (n << 26) + 77]));
    let ring = snapshot(&members.collect());
    let shard = ring.shuffle_shard("tenant", 4);
    let called = Arc::new(Mutex::new(Vec::new()));
    let calls = Arc::clone(&called);
    let call = move |instance: Arc<ringkit_ring::Instance>, _: Vec<usize>| {
        calls.lock().unwrap().push(instance.id.to_string());
        async { Ok(()) }
    };
    let tokens: Vec<_> = (0..100u32).map(|n| n.wrapping_mul(2_654_435_761)).collect();
    let background = Supervisor::new("test");
    let report = do_batch(&shard, Operation::WRITE, &tokens, NOW, &background, call).await.unwrap();
    assert_eq!(report.calls, 4);
    while called.lock().unwrap().len() < report.calls {
        tokio::task::yield_now().await;
    }
    let mut called = called.lock().unwrap().clone();
    called.sort();
    let members: Vec<_> = shard.instances().map(|member| member.id.to_string()).collect();
    assert_eq!(called, members);
}
