//! Several sets at once.

use ringkit_ring::{Cancellation, do_multi_until_quorum, do_multi_until_quorum_keeping_successes};

use super::*;

fn two_sets() -> [ReplicationSet; 2] {
    [set("a1 a2 a3", 1, 0), set("b1 c1 d1", 0, 1)]
}

async fn ask(
    stage: &Stage,
    options: &UntilQuorumOptions<String>,
) -> Result<Vec<String>, FanoutError<String>> {
    do_multi_until_quorum(&two_sets(), options, stage.calls(), stage.cleanup()).await
}

async fn keep(
    stage: &Stage,
    options: &UntilQuorumOptions<String>,
) -> Result<Vec<String>, FanoutError<String>> {
    do_multi_until_quorum_keeping_successes(&two_sets(), options, stage.calls(), stage.cleanup()).await
}

#[tokio::test(start_paused = true)]
async fn no_sets_are_an_error() {
    let stage = stage([]);
    let outcome = do_multi_until_quorum(&[], &everybody(), stage.calls(), stage.cleanup()).await;
    assert_eq!(told(outcome), "no replication sets");
}

#[tokio::test(start_paused = true)]
async fn the_results_of_all_sets_come_set_after_set() {
    let stage = stage([("a1", Does::Answer(9)), ("c1", Does::Fail(0))]);
    let outcome = timed(ask(&stage, &everybody())).await;
    assert_eq!((told(outcome.0), outcome.1), ("a2 a3 b1 d1".into(), 1));
    assert_eq!(stage.cancelled().len(), 6);
}

#[tokio::test(start_paused = true)]
async fn each_set_is_minimized_on_its_own() {
    let stage = stage([]);
    assert_eq!(ask(&stage, &minimizing()).await.unwrap().len(), 4);
    assert_eq!(stage.called().len(), 4);
}

#[tokio::test(start_paused = true)]
async fn the_first_set_to_fail_ends_the_others_and_all_results_are_cleaned_up() {
    // The first set has its quorum long before the second fails.
    let roles = [("a3", Does::Hang), ("c1", Does::Fail(2)), ("d1", Does::Fail(3))];
    for keeps in [false, true] {
        let stage = stage(roles);
        let outcome = if keeps { keep(&stage, &everybody()).await } else { ask(&stage, &everybody()).await };
        assert_eq!(told(outcome), "(d1:1) d1 failed");
        assert_eq!(stage.cleaned(), ["a1", "a2", "b1"]);
        assert_eq!(stage.cancelled(), stage.called());
    }
}

#[tokio::test(start_paused = true)]
async fn a_set_that_fails_does_not_wait_for_a_slow_one() {
    let stage = stage([("a1", Does::Hang), ("a2", Does::Hang), ("b1", Does::Fatal(1))]);
    let outcome = timed(ask(&stage, &everybody())).await;
    assert_eq!((told(outcome.0), outcome.1), ("(b1:1) b1 is fatal".into(), 1));
    assert_eq!(stage.cancelled(), stage.called());
}

#[tokio::test(start_paused = true)]
async fn one_contradictory_set_keeps_anybody_from_being_called() {
    let stage = stage([]);
    let sets = [set("a1", 0, 0), ReplicationSet { zone_awareness_enabled: true, ..set("b1 b2", 1, 0) }];
    let outcome = do_multi_until_quorum(&sets, &everybody(), stage.calls(), stage.cleanup()).await;
    assert!(matches!(outcome, Err(FanoutError::MaxErrorsWithZones { max_errors: 1 })));
    assert!(stage.called().is_empty());
}

#[tokio::test(start_paused = true)]
async fn the_owner_ends_all_sets_with_its_cause() {
    let stop = Cancellation::new();
    let options = UntilQuorumOptions { stop: stop.clone(), ..everybody() };
    let stage = stage([("c1", Does::Hang), ("d1", Does::Hang)]);
    let owner = async {
        sleep(Duration::from_secs(5)).await;
        stop.cancel("enough");
    };
    let (outcome, ()) = tokio::join!(ask(&stage, &options), owner);
    assert_eq!(told(outcome), "enough");
    assert_eq!(stage.cleaned(), stage.answered());
    assert_eq!(stage.cancelled(), stage.called());
}

#[tokio::test(start_paused = true)]
async fn a_dropped_request_cleans_up_sets_that_were_done_and_those_that_were_not() {
    for keeps in [false, true] {
        let stage = stage([("c1", Does::Hang), ("d1", Does::Hang)]);
        let options = everybody();
        let five = Duration::from_secs(5);
        let given_up = if keeps {
            tokio::time::timeout(five, keep(&stage, &options)).await.is_err()
        } else {
            tokio::time::timeout(five, ask(&stage, &options)).await.is_err()
        };
        assert!(given_up);
        assert_eq!(stage.cleaned(), stage.answered());
        assert_eq!(stage.cancelled(), stage.called());
    }
}

#[tokio::test(start_paused = true)]
async fn kept_tokens_are_cancelled_by_their_holders_before_after_and_twice() {
    let stop = Cancellation::new();
    let options = UntilQuorumOptions { stop: stop.clone(), ..everybody() };
    let stage = stage([("a3", Does::Hang), ("d1", Does::Hang)]);
    let inner = stage.calls();
    let call = move |call: ReplicaCall| {
        // Before its own result is there: the result counts all the same.
        if call.instance.id == "a1" {
            call.cancel.cancel();
        }
        inner(call)
    };
    let outcome = do_multi_until_quorum_keeping_successes(&two_sets(), &options, call, stage.cleanup()).await;
    assert_eq!(told(outcome), "a1 a2 b1 c1");
    assert_eq!(stage.cancelled(), ["a1", "a3", "d1"]);
    stage.token("a1").cancel();
    stage.token("b1").cancel();
    stage.token("b1").cancel();
    assert_eq!(stage.cancelled(), ["a1", "a3", "b1", "d1"]);
    stop.cancel("done");
    assert_eq!(stage.cancelled().len(), 6);
}
