//! How requests and calls are ended, and what lives on.

use ringkit_ring::{Cancellation, do_until_quorum_in_background, do_until_quorum_keeping_successes};
use ringkit_runtime::Supervisor;

use super::*;

/// One set of each kind, each with calls that hang.
fn hanging() -> [(Stage, ReplicationSet); 2] {
    let roles = [("b1", Does::Hang), ("c1", Does::Hang), ("a1", Does::Answer(1))];
    [(stage(roles), set("a1 b1 c1", 1, 0)), (stage(roles), set("a1 b1 c1", 0, 1))]
}

#[tokio::test(start_paused = true)]
async fn a_request_stopped_from_outside_tells_the_cause_and_cleans_up() {
    for options in [everybody, minimizing] {
        for (stage, set) in hanging() {
            let stop = Cancellation::new();
            let options = UntilQuorumOptions { stop: stop.clone(), ..options() };
            let request = stage.ask(&set, &options);
            let owner = async {
                sleep(Duration::from_secs(5)).await;
                stop.cancel("the query timed out");
            };
            let (outcome, ()) = tokio::join!(request, owner);
            assert_eq!(outcome.unwrap_err().to_string(), "the query timed out");
            assert_eq!(stage.cancelled(), stage.called());
            assert_eq!(stage.cleaned(), stage.answered());
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_request_stopped_before_it_begins_calls_nobody() {
    let stop = Cancellation::new();
    stop.cancel("too late");
    let options = UntilQuorumOptions { stop, ..everybody() };
    for (stage, set) in hanging() {
        assert_eq!(told(stage.ask(&set, &options).await), "too late");
        assert!(stage.called().is_empty());
    }
}

#[tokio::test(start_paused = true)]
async fn a_dropped_request_cancels_its_calls_and_cleans_up() {
    for options in [everybody(), minimizing()] {
        for (stage, set) in hanging() {
            let request = stage.ask(&set, &options);
            assert!(tokio::time::timeout(Duration::from_secs(5), request).await.is_err());
            assert_eq!(stage.cancelled(), stage.called());
            assert_eq!(stage.cleaned(), stage.answered());
            let ended = sorted(&[stage.answered(), stage.dropped()].concat());
            assert_eq!(ended, stage.called(), "nothing goes on");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_failure_cancels_its_call_alone_and_by_zone_its_whole_zone_at_once() {
    let roles = [("a1", Does::Fail(1)), ("a2", Does::Hang), ("b1", Does::Hang), ("c1", Does::Hang)];
    for (set, gone) in [(set("a1 a2 b1 c1", 2, 0), vec!["a1"]), (set("a1 a2 b1 c1", 0, 1), vec!["a1", "a2"])]
    {
        let stage = stage(roles);
        let options = everybody();
        let mut request = Box::pin(stage.ask(&set, &options));
        assert!(tokio::time::timeout(Duration::from_secs(2), &mut request).await.is_err());
        assert_eq!(stage.cancelled(), gone);
        assert_eq!(stage.dropped(), gone[1..], "and is dropped");
    }
}

#[tokio::test(start_paused = true)]
async fn tokens_of_all_calls_are_cancelled_once_the_answer_is_returned() {
    let stage = stage([("c1", Does::Hang)]);
    let set = set("a1 b1 c1", 1, 0);
    let options = everybody();
    let mut request = Box::pin(stage.ask(&set, &options));
    assert!(futures::poll!(&mut request).is_pending());
    assert!(stage.cancelled().is_empty(), "not while they run");
    assert_eq!(told(request.await), "a1 b1");
    assert_eq!(stage.cancelled(), ["a1", "b1", "c1"]);
}

#[tokio::test(start_paused = true)]
async fn results_that_live_on_keep_their_tokens_until_their_holder_or_the_owner_ends_them() {
    for zones in [set("a1 b1 c1", 1, 0), set("a1 b1 c1", 0, 1)] {
        let stage = stage([("c1", Does::Hang)]);
        let stop = Cancellation::new();
        let options = UntilQuorumOptions { stop: stop.clone(), ..everybody() };
        let request = do_until_quorum_keeping_successes(&zones, &options, stage.calls(), stage.cleanup());
        assert_eq!(told(request.await), "a1 b1");
        assert_eq!(stage.cancelled(), ["c1"], "not needed any more");
        stage.token("a1").cancel();
        assert_eq!(stage.cancelled(), ["a1", "c1"], "each on its own");
        stop.cancel("done");
        assert_eq!(stage.cancelled(), ["a1", "b1", "c1"]);
    }
}

#[tokio::test(start_paused = true)]
async fn surplus_results_lose_their_tokens_even_where_others_keep_them() {
    let stage = stage([("a2", Does::Answer(9))]);
    let zones = set("a1 a2 b1 c1", 0, 1);
    let options = everybody();
    let request = do_until_quorum_keeping_successes(&zones, &options, stage.calls(), stage.cleanup());
    assert_eq!(told(request.await), "b1 c1");
    assert_eq!(stage.cancelled(), ["a1", "a2"]);
    assert_eq!(stage.cleaned(), ["a1"]);
}

#[tokio::test(start_paused = true)]
async fn no_token_outlives_a_request_that_failed_or_was_dropped() {
    for role in [Does::Fail(3), Does::Hang] {
        let stage = stage([("b1", role)]);
        let zones = set("a1 b1", 0, 0);
        let options = everybody();
        let request = do_until_quorum_keeping_successes(&zones, &options, stage.calls(), stage.cleanup());
        let outcome = tokio::time::timeout(Duration::from_secs(5), request).await;
        assert!(!matches!(outcome, Ok(Ok(_))));
        assert_eq!(stage.cancelled(), ["a1", "b1"]);
        assert_eq!(stage.cleaned(), ["a1"]);
    }
}

#[tokio::test(start_paused = true)]
async fn calls_that_must_not_be_dropped_end_in_the_background_and_their_results_are_cleaned_up() {
    let background = Supervisor::new("test");
    let stage = stage([("b1", Does::AnswerLate)]);
    let three = set("a1 b1 c1", 1, 0);
    let options = everybody();
    let request =
        do_until_quorum_in_background(&three, &options, &background, stage.calls(), stage.cleanup());
    assert_eq!(told(request.await), "a1 c1");
    assert!(stage.cleaned().is_empty() && stage.dropped().is_empty());
    assert!(background.shutdown(Duration::from_secs(5)).await.late.is_empty());
    assert_eq!(stage.cleaned(), ["b1"]);
}

#[tokio::test(start_paused = true)]
async fn a_dropped_request_leaves_its_calls_to_the_background() {
    let background = Supervisor::new("test");
    let stage = stage([("b1", Does::AnswerLate), ("c1", Does::AnswerLate)]);
    let three = set("a1 b1 c1", 1, 0);
    let options = everybody();
    let request =
        do_until_quorum_in_background(&three, &options, &background, stage.calls(), stage.cleanup());
    assert!(tokio::time::timeout(Duration::from_secs(3), request).await.is_err());
    assert_eq!(stage.cleaned(), ["a1"]);
    assert!(background.shutdown(Duration::from_secs(5)).await.late.is_empty());
    assert_eq!(stage.cleaned(), ["a1", "b1", "c1"]);
}

#[tokio::test(start_paused = true)]
async fn a_call_cancelled_with_its_zone_may_still_answer_which_counts_for_nothing() {
    let background = Supervisor::new("test");
    let roles =
        [("a1", Does::Fail(1)), ("a2", Does::AnswerLate), ("b1", Does::Answer(9)), ("c1", Does::Answer(9))];
    let stage = stage(roles);
    let zones = set("a1 a2 b1 c1", 0, 1);
    let options = everybody();
    let request =
        do_until_quorum_in_background(&zones, &options, &background, stage.calls(), stage.cleanup());
    assert_eq!(told(request.await), "b1 c1");
    assert_eq!((stage.cleaned(), stage.dropped()), (vec!["a2".into()], vec![]));
}

#[tokio::test(start_paused = true)]
async fn the_background_ends_with_its_owner() {
    let background = Supervisor::new("test");
    let stage = stage([("b1", Does::Hang)]);
    let pair = set("a1 b1", 1, 0);
    let options = everybody();
    let request = do_until_quorum_in_background(&pair, &options, &background, stage.calls(), stage.cleanup());
    assert_eq!(told(request.await), "a1");
    assert_eq!(background.num_tasks(), 1);
    background.abort_all();
    while background.num_tasks() > 0 {
        tokio::task::yield_now().await;
    }
    assert_eq!(stage.dropped(), ["b1"]);
}

#[test]
fn a_request_dropped_after_its_runtime_ends_there() {
    let background = Supervisor::new("test");
    let stage = stage([]);
    let pair = set("a1 b1", 0, 0);
    let options = everybody();
    let mut request =
        Box::pin(do_until_quorum_in_background(&pair, &options, &background, stage.calls(), stage.cleanup()));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    runtime.block_on(async { assert!(futures::poll!(&mut request).is_pending()) });
    drop(runtime);
    drop(request);
    assert_eq!(stage.dropped(), ["a1", "b1"]);
}

#[test]
fn no_timer_is_needed_where_nothing_is_delayed() {
    let set = set("a1 b1", 1, 0);
    let at_once = async |call: ReplicaCall| Ok::<_, String>(call.instance.id.to_string());
    let options = everybody();
    let request = do_until_quorum(&set, &options, at_once, drop);
    assert_eq!(futures::FutureExt::now_or_never(request).unwrap().unwrap().len(), 1);
}

#[test]
fn requests_can_be_sent_between_threads() {
    fn assert_send<T: Send>(_: &T) {}
    let set = set("a1", 0, 0);
    let options = everybody();
    let call = |_: ReplicaCall| async { Ok::<(), String>(()) };
    assert_send(&do_until_quorum(&set, &options, call, drop));
}

/// A call that panics when it is dropped, whatever came of it.
struct Bomb<F>(std::pin::Pin<Box<F>>);

impl<F: Future> Future for Bomb<F> {
    type Output = F::Output;

    fn poll(
        mut self: std::pin::Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
    ) -> std::task::Poll<F::Output> {
        self.0.as_mut().poll(context)
    }
}

impl<F> Drop for Bomb<F> {
    fn drop(&mut self) {
        panic!("dropped");
    }
}

#[tokio::test(start_paused = true)]
async fn calls_that_panic_when_they_are_dropped_harm_nobody() {
    let background = Supervisor::new("test");
    let options = everybody();
    for (set, expected) in [(set("a1 a2 b1 c1 c2", 2, 0), "a1 b1 c2"), (set("a1 a2 b1 c1 c2", 0, 2), "b1")] {
        // One fails, which cancels its zone; one hangs; the others answer.
        let roles = [("a2", Does::Fail(2)), ("c1", Does::Hang)];
        let expected = |told: String| assert_eq!(told, expected);
        let here = stage(roles);
        let calls = here.calls();
        expected(told(
            do_until_quorum(&set, &options, |call| Bomb(Box::pin(calls(call))), here.cleanup()).await,
        ));
        assert!(here.dropped().contains(&"c1".to_owned()));
        let there = stage(roles);
        let calls = there.calls();
        let call = |call| Bomb(Box::pin(calls(call)));
        let request = do_until_quorum_in_background(&set, &options, &background, call, there.cleanup());
        expected(told(request.await));
        let abandoned = stage([("a1", Does::Hang)]);
        let calls = abandoned.calls();
        let request =
            do_until_quorum(&set, &options, |call| Bomb(Box::pin(calls(call))), abandoned.cleanup());
        let mut request = Box::pin(request);
        assert!(futures::poll!(&mut request).is_pending());
        drop(request);
        assert_eq!(abandoned.dropped().len(), 5);
    }
    background.abort_all();
    while background.num_tasks() > 0 {
        tokio::task::yield_now().await;
    }
}
