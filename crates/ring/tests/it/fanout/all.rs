//! Cortex's way to read: everybody, with results as they come.

use ringkit_ring::{Answers, Cancellation, DoAllOptions, do_all};

use super::Does::{Fail, Fatal, Hang};
use super::*;

fn at_once() -> DoAllOptions<String> {
    DoAllOptions { is_limit_error: Arc::new(|error| error.ends_with("fatal")), ..DoAllOptions::default() }
}

fn delayed(secs: u64) -> DoAllOptions<String> {
    DoAllOptions { delay: Duration::from_secs(secs), ..at_once() }
}

async fn ask(
    stage: &Stage,
    set: &ReplicationSet,
    options: &DoAllOptions<String>,
) -> Result<Answers<String, String>, FanoutError<String>> {
    do_all(set, options, stage.calls()).await
}

/// Sorted results, or the error.
async fn asked(stage: &Stage, set: &ReplicationSet, options: &DoAllOptions<String>) -> String {
    told(ask(stage, set, options).await.map(|answers| {
        assert!(answers.partial.is_none());
        sorted(&answers.results)
    }))
}

#[tokio::test(start_paused = true)]
async fn everybody_answers_where_nobody_may_fail() {
    assert_eq!(asked(&stage([]), &set("a1 b1 c1", 0, 0), &at_once()).await, "a1 b1 c1");
    assert_eq!(asked(&stage([]), &set("", 0, 0), &at_once()).await, "");
    assert_eq!(asked(&stage([("a1", Fail(0))]), &set("a1", 0, 0), &at_once()).await, "(a1:1) a1 failed");
    let last_of_three = stage([("c1", Fail(5))]);
    assert_eq!(asked(&last_of_three, &set("a1 b1 c1", 0, 0), &at_once()).await, "(c1:1) c1 failed");
}

#[tokio::test(start_paused = true)]
async fn as_many_may_fail_as_are_tolerated() {
    let five = set("a1 b1 c1 d1 e1", 1, 0);
    assert_eq!(asked(&stage([("e1", Fail(0))]), &five, &at_once()).await, "a1 b1 c1 d1");
    let last = stage([("d1", Fail(5)), ("e1", Fail(6))]);
    assert_eq!(asked(&last, &five, &at_once()).await, "(e1:1) e1 failed");
}

#[tokio::test(start_paused = true)]
async fn one_must_answer_though_all_may_fail() {
    for options in [at_once(), delayed(5)] {
        for set in [set("a1 b1", 2, 0), set("a1 b1", 0, 2)] {
            let one = stage([("a1", Fail(0))]);
            let outcome = timed(asked(&one, &set, &options)).await;
            assert_eq!((outcome.0.as_str(), outcome.1), ("b1", 1), "somebody is called at once");
            let none = stage([("a1", Fail(0)), ("b1", Fail(1))]);
            assert_eq!(asked(&none, &set, &options).await, "(b1:1) b1 failed");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn one_failure_more_than_tolerated_is_one_too_many() {
    let first_fail = |count: usize| {
        let mut stage = stage([]);
        stage.roles = ["a1", "b1", "c1"].into_iter().take(count).map(|id| (id, Fail(0))).collect();
        stage
    };
    for tolerated in 0..3 {
        for set in [set("a1 b1 c1 d1", tolerated, 0), set("a1 b1 c1 d1", 0, tolerated)] {
            let results = asked(&first_fail(tolerated), &set, &at_once()).await;
            assert_eq!(results.split(' ').count(), 4 - tolerated, "as soon as the others are complete");
            let one_more = asked(&first_fail(tolerated + 1), &set, &at_once()).await;
            assert!(one_more.ends_with("failed"), "{one_more}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn the_first_results_of_a_quorum_come_in_order_of_arrival() {
    let stage = stage([("a1", Does::Answer(2)), ("b1", Hang)]);
    let answers = ask(&stage, &set("a1 b1 c1", 1, 0), &at_once()).await.unwrap();
    assert_eq!(answers.results, ["c1", "a1"]);
    assert_eq!((stage.cancelled().len(), stage.dropped()), (3, vec!["b1".into()]));
}

#[tokio::test(start_paused = true)]
async fn the_last_ones_are_not_called_when_the_first_suffice_in_time() {
    let quick = stage([]);
    assert_eq!(asked(&quick, &set("a1 b1 c1", 1, 0), &delayed(10)).await, "a1 b1");
    assert_eq!(quick.called(), ["a1", "b1"]);
    // All who wait are called together.
    let slow = stage([("a1", Hang), ("b1", Hang)]);
    let five = set("a1 b1 c1 d1 e1", 2, 0);
    let outcome = timed(asked(&slow, &five, &delayed(10))).await;
    assert_eq!((outcome.0.as_str(), outcome.1), ("c1 d1 e1", 11));
    // Zones are never delayed.
    let zones = stage([]);
    asked(&zones, &set("a1 b1 c1", 0, 1), &delayed(10)).await;
    assert_eq!(zones.called().len(), 3);
}

#[tokio::test(start_paused = true)]
async fn each_failure_calls_one_who_waits_at_once() {
    let stage = stage([("a1", Fail(1)), ("b1", Hang)]);
    let set = set("a1 b1 c1 d1 e1", 2, 0);
    let options = delayed(60);
    let mut request = Box::pin(ask(&stage, &set, &options));
    assert!(tokio::time::timeout(Duration::from_secs(3), &mut request).await.is_err());
    assert_eq!(stage.called(), ["a1", "b1", "c1", "d1"]);
    let (outcome, took) = timed(request).await;
    assert_eq!((sorted(&outcome.unwrap().results).join(" "), took), ("c1 d1 e1".into(), 58));
}

/// The defect of Cortex: more failures than delayed calls, while a part of the answer is allowed, waited for ever.
#[tokio::test(start_paused = true)]
async fn more_failures_than_delayed_calls_do_not_block_a_partial_answer() {
    for max_errors in 0..3 {
        let stage = stage([("a1", Fail(1)), ("b1", Fail(1)), ("c1", Fail(1)), ("d1", Fail(1))]);
        let options = DoAllOptions { partial_data: true, ..delayed(5) };
        let request = ask(&stage, &set("a1 b1 c1 d1 e1", max_errors, 0), &options).await.unwrap();
        assert_eq!(request.results, ["e1"]);
        assert_eq!(request.partial.unwrap().faults.len(), 4);
    }
}

#[tokio::test(start_paused = true)]
async fn zones_may_be_lost_as_a_whole() {
    let three = set("a1 b1 c1", 0, 1);
    assert_eq!(asked(&stage([("b1", Fail(0))]), &three, &at_once()).await, "a1 c1");
    let two = stage([("b1", Fail(0)), ("c1", Fail(2))]);
    assert_eq!(asked(&two, &three, &at_once()).await, "(c1:1) c1 failed");
    let pairs = set("a1 a2 b1 b2 c1 c2", 0, 1);
    let one_zone = stage([("b1", Fail(0)), ("b2", Fail(0))]);
    assert_eq!(asked(&one_zone, &pairs, &at_once()).await, "a1 a2 c1 c2");
    let five = set("a1 b1 c1 d1 e1", 0, 2);
    let three_of_five = stage([("a1", Fail(0)), ("c1", Fail(0)), ("e1", Fail(2))]);
    assert_eq!(asked(&three_of_five, &five, &at_once()).await, "(e1:1) e1 failed");
    let pairs = set("a1 a2 b1 b2 c1 c2 d1 d2 e1 e2", 0, 2);
    let two_of_five = stage([("a1", Fail(0)), ("c1", Fail(0)), ("c2", Fail(0))]);
    let told = asked(&two_of_five, &pairs, &at_once()).await;
    assert_eq!(
        told, "a2 b1 b2 d1 d2 e1 e2",
        "calls of a failed zone go on, and what they return is returned"
    );
}

#[tokio::test(start_paused = true)]
async fn a_quorum_of_zone_results_leaves_out_zones_that_have_not_all_replied() {
    let roles = [("a2", Hang), ("b1", Does::Answer(2)), ("c1", Does::Answer(2))];
    let zones = set("a1 a2 b1 b2 c1 c2", 0, 1);
    assert_eq!(asked(&stage(roles), &zones, &at_once()).await, "a1 b1 b2 c1 c2");
    let whole = DoAllOptions { zone_results_quorum: true, ..at_once() };
    assert_eq!(asked(&stage(roles), &zones, &whole).await, "b1 b2 c1 c2");
}

#[tokio::test(start_paused = true)]
async fn a_part_of_the_answer_names_who_is_missing() {
    let partial = DoAllOptions { partial_data: true, ..at_once() };
    let two = stage([("b1", Fail(1)), ("c1", Fail(2))]);
    let zones = set("a1 a2 a3 b1 c1", 0, 1);
    // Two of five instances are half of them, as Cortex halves: not worth giving.
    assert_eq!(asked(&two, &zones, &partial).await, "(c1:1) c1 failed");
    let zones = set("a1 a2 a3 a4 b1 c1", 0, 1);
    let answers = ask(&two, &zones, &partial).await.unwrap();
    assert_eq!(sorted(&answers.results), ["a1", "a2", "a3", "a4"]);
    let text = "query result may contain partial data\n(b1:1, b) b1 failed\n(c1:1, c) c1 failed";
    assert_eq!(answers.partial.unwrap().to_string(), text);
    let by_instance = ask(&two, &set("a1 b1 c1", 1, 0), &partial).await.unwrap();
    let text = "query result may contain partial data\n(b1:1) b1 failed\n(c1:1) c1 failed";
    assert_eq!(
        (by_instance.results, by_instance.partial.unwrap().to_string()),
        (vec!["a1".into()], text.into())
    );
}

#[tokio::test(start_paused = true)]
async fn no_part_of_the_answer_is_given_when_everybody_failed_nor_over_a_limit() {
    let partial = DoAllOptions { partial_data: true, ..at_once() };
    let all = stage([("a1", Fail(1)), ("b1", Fail(2)), ("c1", Fail(3))]);
    assert_eq!(asked(&all, &set("a1 b1 c1", 0, 1), &partial).await, "(b1:1) b1 failed");
    assert_eq!(asked(&all, &set("a1 b1 c1", 1, 0), &partial).await, "(c1:1) c1 failed");
    let limited = stage([("a1", Fatal(2)), ("b1", Hang), ("c1", Hang)]);
    for set in [set("a1 b1 c1", 1, 0), set("a1 b1 c1", 0, 1)] {
        for options in [&partial, &at_once()] {
            let outcome = timed(asked(&limited, &set, options)).await;
            assert_eq!((outcome.0.as_str(), outcome.1), ("(a1:1) a1 is fatal", 2));
        }
    }
}

#[tokio::test(start_paused = true)]
async fn the_owner_ends_it_while_calls_hang_or_wait() {
    for options in [at_once(), delayed(60)] {
        let stage = stage([("a1", Hang), ("b1", Hang), ("c1", Hang)]);
        let stop = Cancellation::new();
        let options = DoAllOptions { stop: stop.clone(), ..options };
        let set = set("a1 b1 c1", 1, 0);
        let owner = async {
            sleep(Duration::from_secs(5)).await;
            stop.cancel("enough");
        };
        let (outcome, ()) = tokio::join!(ask(&stage, &set, &options), owner);
        assert_eq!(outcome.unwrap_err().to_string(), "enough");
        assert_eq!(stage.cancelled(), stage.called());
    }
}
