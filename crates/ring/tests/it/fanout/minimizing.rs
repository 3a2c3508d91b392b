//! Fewer calls than instances: who is held back, and what releases them.

use smol_str::SmolStr;

use ringkit_ring::ZoneOrder;

use super::*;

fn hedging(secs: u64) -> UntilQuorumOptions<String> {
    UntilQuorumOptions { hedging_delay: Some(Duration::from_secs(secs)), ..minimizing() }
}

fn zones_in_order() -> UntilQuorumOptions<String> {
    let order = ["b", "c", "a"].map(SmolStr::new).to_vec();
    UntilQuorumOptions { zone_order: ZoneOrder::Preferred(order), ..minimizing() }
}

#[tokio::test(start_paused = true)]
async fn no_more_are_called_than_needed_when_nobody_fails() {
    let stage = stage([]);
    assert_eq!(stage.ask(&set("a1 a2 a3 a4 a5", 2, 0), &minimizing()).await.unwrap().len(), 3);
    assert_eq!(stage.called().len(), 3);
    assert!(stage.cleaned().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_failure_calls_one_more() {
    for bad in ["a1", "a2", "a3"] {
        let stage = stage([(bad, Does::Fail(1))]);
        let results = stage.ask(&set("a1 a2 a3", 1, 0), &minimizing()).await.unwrap();
        assert_eq!(results.len(), 2);
        assert!(!results.iter().any(|id| id == bad));
        let was_asked = stage.called().iter().any(|id| id == bad);
        assert_eq!(stage.called().len(), if was_asked { 3 } else { 2 });
    }
}

#[tokio::test(start_paused = true)]
async fn preferred_zones_are_called_first_and_the_next_when_one_fails() {
    let zones = set("a1 a2 b1 b2 c1 c2", 0, 1);
    let good = stage([]);
    assert_eq!(told(good.ask(&zones, &zones_in_order()).await), "b1 b2 c1 c2");
    assert_eq!(good.called(), ["b1", "b2", "c1", "c2"]);
    let bad = stage([("b2", Does::Fail(0))]);
    assert_eq!(told(bad.ask(&zones, &zones_in_order()).await), "a1 a2 c1 c2");
    assert_eq!(bad.called().len(), 6);
}

#[tokio::test(start_paused = true)]
async fn without_preference_all_zones_get_their_share() {
    let zones = set("a1 b1 c1", 0, 1);
    let mut times = BTreeMap::<String, u32>::new();
    for seed in 0..300 {
        let stage = stage([]);
        let options = UntilQuorumOptions { seed: Some(seed), ..minimizing() };
        stage.ask(&zones, &options).await.unwrap();
        stage.called().into_iter().for_each(|id| *times.entry(id).or_default() += 1);
    }
    assert!(times.len() == 3 && times.values().all(|times| (150..250).contains(times)), "{times:?}");
}

#[tokio::test(start_paused = true)]
async fn a_slow_instance_is_hedged_by_one_more_each_time_the_delay_passes() {
    // Whoever is asked first hangs: three are needed of five, two are held back.
    let first = stage([]);
    let five = set("a1 a2 a3 a4 a5", 2, 0);
    first.ask(&five, &hedging(10)).await.unwrap();
    let asked = first.called();
    let [slow, slower, _] = &asked[..] else { panic!("{asked:?}") };
    let mut stage = stage([]);
    for (id, role) in ["a1", "a2", "a3", "a4", "a5"].iter().map(|id| (*id, Does::Hang)) {
        if id == slow || id == slower {
            stage.roles.insert(id, role);
        }
    }
    let outcome = timed(stage.ask(&five, &hedging(10))).await;
    assert_eq!((outcome.0.unwrap().len(), outcome.1), (3, 21));
    assert_eq!(stage.called().len(), 5);
}

#[tokio::test(start_paused = true)]
async fn a_slow_zone_is_hedged_by_a_whole_one() {
    let stage = stage([("b2", Does::Answer(60))]);
    let options = UntilQuorumOptions { hedging_delay: Some(Duration::from_secs(4)), ..zones_in_order() };
    let outcome = timed(stage.ask(&set("a1 a2 b1 b2 c1 c2", 0, 1), &options)).await;
    assert_eq!((told(outcome.0), outcome.1), ("a1 a2 c1 c2".into(), 5));
    assert_eq!(stage.cleaned(), ["b1"]);
    assert_eq!(stage.dropped(), ["b2"]);
}

#[tokio::test(start_paused = true)]
async fn without_hedging_a_slow_instance_is_waited_for() {
    let slow = [("a1", Does::Answer(60)), ("a2", Does::Answer(60)), ("a3", Does::Answer(60))];
    for delay in [None, Some(Duration::ZERO), Some(Duration::MAX)] {
        let stage = stage(slow);
        let options = UntilQuorumOptions { hedging_delay: delay, ..minimizing() };
        let outcome = timed(stage.ask(&set("a1 a2 a3", 1, 0), &options)).await;
        assert_eq!((outcome.0.unwrap().len(), outcome.1), (2, 60));
        assert_eq!(stage.called().len(), 2);
    }
}
