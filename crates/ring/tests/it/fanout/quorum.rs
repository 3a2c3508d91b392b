//! Who is asked, what is returned, and when it has failed.

use ringkit_ring::{Desc, Fault, Operation, RingOptions, Snapshot};

use super::*;
use crate::support::active;

#[tokio::test(start_paused = true)]
async fn nobody_to_ask_is_an_empty_answer_whatever_is_tolerated() {
    for (max_errors, max_zones) in [(0, 0), (1, 0), (0, 1)] {
        for options in [everybody(), minimizing()] {
            let stage = stage([]);
            assert_eq!(told(stage.ask(&set("", max_errors, max_zones), &options).await), "");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn one_instance_decides_alone_even_if_it_may_be_lost() {
    for options in [everybody(), minimizing()] {
        let good = stage([]);
        assert_eq!(told(good.ask(&set("a1", 0, 0), &options).await), "a1");
        let bad = stage([("a1", Does::Fail(1))]);
        assert_eq!(told(bad.ask(&set("a1", 0, 0), &options).await), "(a1:1) a1 failed");
        let zone_aware = ReplicationSet { zone_awareness_enabled: true, ..set("a1", 0, 0) };
        assert_eq!(told(bad.ask(&zone_aware, &options).await), "(a1:1) a1 failed");
        for tolerant in [set("a1", 1, 0), set("a1", 0, 1)] {
            assert_eq!(told(good.ask(&tolerant, &options).await), "a1");
            assert_eq!(told(bad.ask(&tolerant, &options).await), "(a1:1) a1 failed");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_set_that_tolerates_instances_and_has_zones_contradicts_itself() {
    let stage = stage([]);
    let set = ReplicationSet { zone_awareness_enabled: true, ..set("a1 b1 c1", 1, 0) };
    let error = stage.ask(&set, &everybody()).await.unwrap_err();
    assert!(matches!(error, FanoutError::MaxErrorsWithZones { max_errors: 1 }), "{error}");
    assert!(stage.called().is_empty());
}

#[tokio::test(start_paused = true)]
async fn calls_run_at_the_same_time() {
    let stage = stage([]);
    let outcome = timed(stage.ask(&set("a1 a2 a3 a4 a5", 0, 0), &everybody())).await;
    assert_eq!((told(outcome.0), outcome.1), ("a1 a2 a3 a4 a5".into(), 1));
}

#[tokio::test(start_paused = true)]
async fn only_the_first_results_of_a_quorum_are_returned_and_slow_ones_not_awaited() {
    let stage = stage([("a2", Does::Answer(30)), ("a4", Does::Hang)]);
    let outcome = timed(stage.ask(&set("a1 a2 a3 a4 a5", 2, 0), &everybody())).await;
    assert_eq!((told(outcome.0), outcome.1), ("a1 a3 a5".into(), 1));
    assert_eq!(stage.dropped(), ["a2", "a4"]);
}

#[tokio::test(start_paused = true)]
async fn when_all_succeed_at_once_the_surplus_is_cleaned_up_or_never_made() {
    for (ids, max_errors, max_zones, kept) in [("a1 a2 a3", 1, 0, 2), ("a1 a2 b1 b2 c1 c2", 0, 1, 4)] {
        let stage = stage([]);
        let results = stage.ask(&set(ids, max_errors, max_zones), &everybody()).await.unwrap();
        assert_eq!(results.len(), kept);
        let made = stage.answered();
        assert_eq!(sorted(&[results, stage.cleaned()].concat()), made);
    }
}

#[tokio::test(start_paused = true)]
async fn by_zone_the_answer_is_that_of_the_first_whole_zones() {
    let stage = stage([("a2", Does::Answer(5)), ("c1", Does::Answer(2)), ("c2", Does::Answer(2))]);
    let outcome = timed(stage.ask(&set("a1 a2 b1 b2 c1 c2", 0, 1), &everybody())).await;
    assert_eq!((told(outcome.0), outcome.1), ("b1 b2 c1 c2".into(), 2));
    assert_eq!(stage.cleaned(), ["a1"], "its zone was not whole");
    assert_eq!(stage.dropped(), ["a2"]);
}

#[tokio::test(start_paused = true)]
async fn failures_are_tolerated_up_to_the_limit_and_the_last_one_is_told() {
    use Does::Fail;
    let five = set("a1 a2 a3 a4 a5", 1, 0);
    let one = stage([("a2", Fail(0))]);
    assert_eq!(told(one.ask(&five, &everybody()).await), "a1 a3 a4 a5");
    let two = stage([("a2", Fail(0)), ("a5", Fail(3)), ("a1", Does::Hang)]);
    assert_eq!(told(two.ask(&five, &everybody()).await), "(a5:1) a5 failed");
    assert_eq!(two.cleaned(), ["a3", "a4"], "results of a failed request are cleaned up");
    assert_eq!(two.cancelled().len(), 5);
}

#[tokio::test(start_paused = true)]
async fn zones_fail_as_one_however_many_of_their_instances_fail() {
    use Does::Fail;
    let zones = "a1 a2 a3 b1 b2 b3 c1 c2 c3";
    let whole = stage([("b1", Fail(0)), ("b2", Fail(0)), ("b3", Fail(0))]);
    assert_eq!(told(whole.ask(&set(zones, 0, 1), &everybody()).await), "a1 a2 a3 c1 c2 c3");
    let partly = stage([("b2", Fail(0))]);
    assert_eq!(told(partly.ask(&set(zones, 0, 1), &everybody()).await), "a1 a2 a3 c1 c2 c3");
    let two = stage([("b2", Fail(0)), ("c1", Fail(0))]);
    assert_eq!(told(two.ask(&set(zones, 0, 1), &everybody()).await), "(c1:1) c1 failed");
    let five = set("a1 b1 c1 d1 e1", 0, 2);
    assert_eq!(told(two.ask(&five, &everybody()).await), "a1 b1 d1");
    let two_of_five = stage([("b1", Fail(0)), ("c1", Fail(0))]);
    assert_eq!(told(two_of_five.ask(&five, &everybody()).await), "a1 d1 e1");
    let three_of_five = stage([("b1", Fail(0)), ("c1", Fail(0)), ("e1", Fail(0))]);
    assert_eq!(told(three_of_five.ask(&five, &everybody()).await), "(e1:1) e1 failed");
}

#[tokio::test(start_paused = true)]
async fn a_zone_whose_result_came_before_its_failure_is_cleaned_up_at_once() {
    let stage = stage([("a2", Does::Fail(2)), ("b1", Does::Answer(5)), ("c1", Does::Answer(5))]);
    let set = set("a1 a2 b1 c1", 0, 1);
    let options = everybody();
    let mut request = Box::pin(stage.ask(&set, &options));
    let before_the_end = tokio::time::timeout(Duration::from_secs(3), &mut request).await;
    assert!(before_the_end.is_err());
    assert_eq!(stage.cleaned(), ["a1"]);
    assert_eq!(told(request.await), "b1 c1");
    assert_eq!(stage.cleaned(), ["a1"], "once");
}

#[tokio::test(start_paused = true)]
async fn a_terminal_error_ends_everything_at_once() {
    for options in [everybody(), minimizing()] {
        for set in [set("a1 b1 c1", 2, 0), set("a1 b1 c1", 0, 2)] {
            let all = [("a1", Does::Fatal(1)), ("b1", Does::Fatal(1)), ("c1", Does::Fatal(1))];
            let stage = stage(all);
            let error = stage.ask(&set, &options).await.unwrap_err();
            let FanoutError::Terminal { instance, error } = error else { panic!("{error}") };
            assert_eq!(error, format!("{} is fatal", instance.id));
            assert_eq!(stage.cancelled(), stage.called(), "nobody goes on");
            assert_eq!(stage.called().len(), if options.minimize_requests { 1 } else { 3 });
        }
    }
}

#[tokio::test(start_paused = true)]
async fn what_speaks_for_all_may_depend_on_the_request() {
    let word = "a1".to_owned();
    let of_request = UntilQuorumOptions {
        is_terminal_error: Arc::new(move |error: &String| error.starts_with(&word)),
        ..everybody()
    };
    let stage = stage([("a1", Does::Fail(1)), ("b1", Does::Hang)]);
    // A clone is the same in every respect.
    let outcome = stage.ask(&set("a1 b1 c1", 2, 0), &of_request.clone()).await;
    assert!(matches!(outcome, Err(FanoutError::Terminal { .. })), "{outcome:?}");
    assert_eq!(stage.cancelled().len(), 3);
}

#[tokio::test(start_paused = true)]
async fn the_cause_of_a_failure_can_be_found_and_whether_it_is_worth_another_try() {
    use std::error::Error as _;
    let options = UntilQuorumOptions {
        is_terminal_error: Arc::new(|error: &std::io::Error| error.kind() == std::io::ErrorKind::NotFound),
        ..UntilQuorumOptions::default()
    };
    let ask = async |kind: std::io::ErrorKind| {
        let call = async |_| Err::<(), _>(std::io::Error::from(kind));
        do_until_quorum(&set("a1", 0, 0), &options, call, drop).await.unwrap_err()
    };
    let failed = ask(std::io::ErrorKind::TimedOut).await;
    let fault = failed.source().and_then(|fault| fault.downcast_ref::<Fault<std::io::Error>>());
    assert!(matches!(fault, Some(Fault::Error(error)) if error.kind() == std::io::ErrorKind::TimedOut));
    let terminal = ask(std::io::ErrorKind::NotFound).await;
    assert!(terminal.source().is_some_and(<dyn std::error::Error>::is::<std::io::Error>));
    assert_eq!((failed.is_retryable(), terminal.is_retryable()), (true, false));
    assert!(
        !FanoutError::<String>::NoSets.is_retryable()
            && !Fault::<String>::Panicked("p".into()).is_retryable()
    );
}

#[tokio::test(start_paused = true)]
async fn a_call_that_panics_has_failed() {
    let tolerated = stage([("a1", Does::Panic(0)), ("a2", Does::PanicAtOnce)]);
    assert_eq!(told(tolerated.ask(&set("a1 a2 a3", 2, 0), &everybody()).await), "a3");
    let error = tolerated.ask(&set("a2 a3", 0, 0), &everybody()).await.unwrap_err();
    assert_eq!(error.to_string(), "(a2:1) the call panicked: a2 panicked at once");
    assert_eq!(error.into_error(), None);
}

#[tokio::test(start_paused = true)]
async fn a_cleanup_that_panics_keeps_no_other_from_being_done() {
    let cleaned = Mutex::new(0);
    let cleanup = |_: String| {
        *cleaned.lock().unwrap() += 1;
        panic!("boom")
    };
    let stage = stage([]);
    let zones = set("a1 a2 b1 b2 c1 c2 d1 d2", 0, 3);
    let results = do_until_quorum(&zones, &everybody(), stage.calls(), cleanup).await.unwrap();
    assert_eq!(results.len(), 2);
    assert_eq!(*cleaned.lock().unwrap(), stage.answered().len() - 2);
}

#[tokio::test(start_paused = true)]
async fn a_call_is_told_how_many_it_is_one_of() {
    let told = async |call: ReplicaCall| Ok::<_, String>(call.replicas);
    let results = do_until_quorum(&set("a1 b1 c1", 1, 0), &everybody(), told, drop).await.unwrap();
    assert_eq!(results, [3, 3]);
}

#[tokio::test(start_paused = true)]
async fn sets_of_a_zone_aware_ring_are_read_by_instance_for_a_key_and_by_zone_as_a_whole() {
    let members = ["a1", "a2", "b1", "b2", "c1", "c2"];
    let entry = |(at, id): (u32, &str)| active(id, &id[..1], &[at * 10]);
    let desc: Desc = (0..).zip(members).map(entry).collect();
    let options = RingOptions { zone_awareness_enabled: true, ..RingOptions::default() };
    let ring = Snapshot::first_sight(&desc, 1000, &options);
    let read = |set: ReplicationSet| async move {
        let stage = stage([("b1", Does::Fail(0))]);
        told(stage.ask(&set, &everybody()).await)
    };
    let key = ring.get(5, Operation::READ, 1000).unwrap().to_set();
    assert_eq!((key.max_errors, key.zone_awareness_enabled), (1, false));
    assert_eq!(read(key).await.split(' ').count(), 2);
    let whole = ring.replication_set(Operation::READ, 1000).unwrap().to_set();
    assert_eq!((whole.max_unavailable_zones, whole.zone_awareness_enabled), (1, true));
    assert_eq!(read(whole).await, "a1 a2 c1 c2");
    // With a zone down none may be lost any more, and the set is still one of zones.
    let mut down = desc.clone();
    let mut dead = active("c1", "c", &[40]).1;
    dead.timestamp = 0;
    down.insert("c1", dead);
    let ring = Snapshot::first_sight(&down, 1000, &options);
    let whole = ring.replication_set(Operation::READ, 1000).unwrap().to_set();
    assert_eq!((whole.max_unavailable_zones, whole.zone_awareness_enabled), (0, true));
    assert_eq!(read(whole).await, "(b1:1) b1 failed");
}
