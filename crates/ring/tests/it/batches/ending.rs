//! Batches that end early, by their owner or by a deadline, and what is freed when.

use ringkit_ring::Cancellation;

use super::*;

/// Counts how often it was dropped.
struct Held(Arc<AtomicUsize>);

impl Drop for Held {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

#[tokio::test(start_paused = true)]
async fn what_a_batch_holds_is_freed_once_and_after_the_last_call_even_if_one_panics() {
    let background = Supervisor::new("test");
    let (freed, ended) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let (held, ends, freed_before) = (Held(Arc::clone(&freed)), Arc::clone(&ended), Arc::clone(&freed));
    let call = move |instance: Arc<ringkit_ring::Instance>, _| {
        let _request = &held;
        let (ends, freed) = (Arc::clone(&ends), Arc::clone(&freed_before));
        async move {
            let after = u64::from(instance.id.as_bytes()[0] - b'a');
            tokio::time::sleep(Duration::from_secs(after)).await;
            assert_eq!(freed.load(Ordering::SeqCst), 0, "a call still runs");
            ends.fetch_add(1, Ordering::SeqCst);
            assert!(instance.id != "c", "boom");
            Ok(())
        }
    };
    let report = do_batch(&six(), Operation::WRITE, &[5], NOW, &background, call).await.unwrap();
    assert_eq!((report.unanswered, freed.load(Ordering::SeqCst)), (1, 0));
    assert!(background.shutdown(Duration::from_secs(9)).await.late.is_empty());
    assert_eq!((ended.load(Ordering::SeqCst), freed.load(Ordering::SeqCst)), (3, 1));
}

#[tokio::test]
async fn what_a_batch_holds_is_freed_when_nobody_is_called() {
    let dead: Desc = [("a", 10), ("b", 20)].map(|(id, at)| active(id, "", &[at])).into_iter().collect();
    for (ring, now) in [(snapshot(&Desc::new()), NOW), (snapshot(&dead), NOW + 3600)] {
        let freed = Arc::new(AtomicUsize::new(0));
        let held = Held(Arc::clone(&freed));
        let background = Supervisor::new("test");
        let call = move |_, _| {
            let _request = &held;
            async { Ok(()) }
        };
        assert!(do_batch(&ring, Operation::WRITE, &[5], now, &background, call).await.is_err());
        assert_eq!((freed.load(Ordering::SeqCst), background.num_tasks()), (1, 0));
    }
}

#[tokio::test]
async fn a_batch_stopped_before_it_begins_calls_nobody() {
    let stop = Cancellation::new();
    stop.cancel("the client hung up");
    let outcome = stop.until(write(six(), &[5], |_, _| async { panic!("called") })).await;
    assert_eq!(outcome.unwrap_err().to_string(), "the client hung up");
}

#[tokio::test(start_paused = true)]
async fn a_batch_stopped_on_its_way_tells_the_cause_and_its_calls_go_on() {
    let background = Supervisor::new("test");
    let done = Arc::new(AtomicUsize::new(0));
    let seen = Arc::clone(&done);
    let call = move |_, _| {
        let seen = Arc::clone(&seen);
        async move {
            tokio::time::sleep(Duration::from_secs(5)).await;
            seen.fetch_add(1, Ordering::SeqCst);
            Ok(())
        }
    };
    let (ring, stop) = (six(), Cancellation::new());
    let owner = async {
        tokio::time::sleep(Duration::from_secs(2)).await;
        stop.cancel("deadline of the push passed");
    };
    let batch = stop.until(do_batch(&ring, Operation::WRITE, &[5], NOW, &background, call));
    let (outcome, ()) = tokio::join!(batch, owner);
    assert_eq!(outcome.unwrap_err().to_string(), "deadline of the push passed");
    assert_eq!(done.load(Ordering::SeqCst), 0);
    assert!(background.shutdown(Duration::from_secs(9)).await.late.is_empty());
    assert_eq!(done.load(Ordering::SeqCst), 3);
}

#[tokio::test]
async fn whose_fault_an_error_is_may_be_said_apart_from_its_code() {
    // Two errors of one family are too many, whatever their codes.
    let error = write(six(), &[5], |id, _| async move {
        let code = if id == "a" { 503 } else { 429 };
        Err(CallError { family: Family::Client, code, message: id })
    });
    let BatchError::Failed { message, .. } = error.await.unwrap_err() else { panic!() };
    assert!(message.starts_with("maxFailure (quorum) on a given error family"), "{message}");
}

/// Replies of a, b and c in this order; `dead` is an instance without a heartbeat.
#[tokio::test(start_paused = true)]
async fn with_one_owner_dead_the_other_two_decide_together() {
    let cases = [
        (["ok", "ok", "dead"], None),
        (["ok", "4xx", "dead"], Some(400)),
        (["4xx", "ok", "dead"], Some(400)),
        (["ok", "dead", "5xx"], Some(503)),
        (["dead", "5xx", "4xx"], Some(503)),
        (["dead", "4xx", "5xx"], Some(400)),
        (["ok", "4xx", "5xx"], Some(400)),
        (["5xx", "4xx", "4xx"], Some(400)),
        (["4xx", "5xx", "5xx"], Some(503)),
        (["4xx", "ok", "ok"], None),
    ];
    for (replies, expected) in cases {
        let entry = |(id, reply): (&str, &str)| {
            let (name, mut entry) = active(id, "", &[u32::from(id.as_bytes()[0])]);
            entry.timestamp -= if reply == "dead" { 3600 } else { 0 };
            (name, entry)
        };
        let desc: Desc = ["a", "b", "c"].into_iter().zip(replies).map(entry).collect();
        let outcome = write(snapshot(&desc), &[5], move |id, _| async move {
            let turn = usize::from(id.as_bytes()[0] - b'a');
            tokio::time::sleep(Duration::from_secs(turn as u64)).await;
            match replies[turn] {
                "ok" => Ok(()),
                "4xx" => Err(CallError::new(400, "bad")),
                "5xx" => Err(CallError::new(503, "busy")),
                other => panic!("called: {other}"),
            }
        });
        let code = match outcome.await {
            Ok(_) => None,
            Err(BatchError::Failed { code, .. }) => Some(code),
            Err(other) => panic!("{replies:?}: {other}"),
        };
        assert_eq!(code, expected, "{replies:?}");
    }
}
