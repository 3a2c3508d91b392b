use std::time::{Duration, Instant};

use super::fake::Behaviour::{Ack, Fail, Hang};
use super::harness::{Cluster, NOW, eventually, many, series};

#[tokio::test(flavor = "multi_thread")]
async fn every_sample_is_on_every_replica_when_all_are_up() {
    let cluster = Cluster::new(3);
    let answer = cluster.push(&many(100)).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    eventually("the last replica", || cluster.fakes.iter().all(|fake| fake.num_samples("tenant") == 100))
        .await;
    assert_eq!(
        cluster.metric(r#"cortex_distributor_received_samples_total{user="tenant",type="float"}"#),
        100.0
    );
    assert_eq!(cluster.metric(r#"ringkit_forwarded_series_total{path="raw"}"#), 100.0);
    assert_eq!(cluster.metric(r#"ringkit_quorum_outcomes_total{outcome="ok"}"#), 1.0);
    assert_eq!(
        cluster.metric(r#"cortex_distributor_ingester_appends_total{ingester="ingester-1",type="samples"}"#),
        1.0
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn six_ingesters_hold_each_sample_three_times() {
    let cluster = Cluster::new(6);
    assert_eq!(cluster.push(&many(200)).await.status, 200);
    let total = || cluster.fakes.iter().map(|fake| fake.num_samples("tenant")).sum::<usize>();
    eventually("all replicas", || total() == 600).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_dead_replica_does_not_matter_and_two_do() {
    let mut cluster = Cluster::new(3);
    cluster.fakes[0].kill();
    assert_eq!(cluster.push(&many(10)).await.status, 200);
    cluster.fakes[1].kill();
    let answer = cluster.push(&many(10)).await;
    assert!(answer.status.is_server_error(), "{} {}", answer.status, answer.text());
    assert_eq!(cluster.metric(r#"ringkit_quorum_outcomes_total{outcome="server_error"}"#), 1.0);
    assert_eq!(cluster.fakes[2].num_samples("tenant"), 10);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hanging_replica_is_not_waited_for() {
    let cluster =
        Cluster::configured(3, |config| config.distributor.remote_timeout = Duration::from_millis(500));
    cluster.fakes[0].set(Hang);
    let started = Instant::now();
    assert_eq!(cluster.push(&many(10)).await.status, 200);
    assert!(started.elapsed() < Duration::from_millis(450), "{:?}", started.elapsed());
    let inflight = || cluster.metric("cortex_distributor_inflight_client_requests");
    assert_eq!(inflight(), 1.0, "the call to the hanging replica goes on");
    eventually("its timeout", || inflight() == 0.0).await;
    assert_eq!(cluster.metric("cortex_distributor_ingester_push_timeouts_total"), 1.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn two_hanging_replicas_are_a_server_error_after_the_timeout() {
    let cluster =
        Cluster::configured(3, |config| config.distributor.remote_timeout = Duration::from_millis(200));
    cluster.fakes[0].set(Hang);
    cluster.fakes[1].set(Hang);
    let answer = cluster.push(&many(1)).await;
    assert_eq!(answer.status, 500, "{}", answer.text());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_2xx_takes_two_acknowledgements_and_a_4xx_never_hides_a_success() {
    let cluster = Cluster::new(3);
    let all = [Ack, Fail(400), Fail(500), Fail(503)];
    for first in all {
        for second in all {
            for third in all {
                let told = [first, second, third];
                cluster.fakes.iter().zip(told).for_each(|(fake, behaviour)| fake.set(behaviour));
                let answer = cluster.push(&many(3)).await;
                let count =
                    |wanted: fn(&super::fake::Behaviour) -> bool| told.iter().filter(|b| wanted(b)).count();
                let acks = count(|b| *b == Ack);
                let client = count(|b| matches!(b, Fail(400..500)));
                match (acks, client) {
                    (2.., _) => assert_eq!(answer.status, 200, "{told:?}"),
                    (_, 2..) => assert_eq!(answer.status, 400, "{told:?} {}", answer.text()),
                    // One of each: which family decides depends on who answers last.
                    (1, 1) => assert!(answer.status.as_u16() >= 400, "{told:?}"),
                    _ => assert!(answer.status.is_server_error(), "{told:?} {}", answer.status),
                }
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn codes_of_ingesters_reach_the_client() {
    let cluster = Cluster::new(3);
    let failures = |status: &str| {
        let labels = format!("{{ingester=\"ingester-0\",type=\"samples\",status=\"{status}\"}}");
        cluster.metric(&format!("cortex_distributor_ingester_append_failures_total{labels}"))
    };
    for (code, all) in [(400, 1.0), (429, 2.0), (503, 3.0)] {
        cluster.fakes.iter().for_each(|fake| fake.set(Fail(code)));
        let answer = cluster.push(&many(1)).await;
        assert_eq!(answer.status, code);
        assert!(answer.text().contains(&format!("told to fail with {code}")), "{}", answer.text());
        // What two have decided, the third may still be asked for: with this code, not with the next.
        eventually("the third call", || failures("4xx") + failures("5xx") >= all).await;
    }
    eventually("the counters", || (failures("4xx"), failures("5xx")) == (2.0, 1.0)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn too_few_live_replicas_are_a_server_error_and_nothing_is_sent() {
    let stale = |index: usize, entry: &mut ringkit_ring::InstanceDesc| {
        if index > 0 {
            entry.timestamp -= 600;
        }
    };
    let cluster = Cluster::with(3, |_| (), stale);
    let answer = cluster.push(&many(1)).await;
    assert_eq!(answer.status, 500);
    assert!(
        answer.text().starts_with("at least 2 live replicas required, could only find 1"),
        "{}",
        answer.text()
    );
    assert_eq!(cluster.fakes[0].num_samples("tenant"), 0);
    assert_eq!(cluster.metric(r#"ringkit_quorum_outcomes_total{outcome="too_few_replicas"}"#), 1.0);
    assert_eq!(Cluster::new(0).push(&many(1)).await.status, 500);
}

#[tokio::test(flavor = "multi_thread")]
async fn repeating_a_request_is_harmless() {
    let cluster = Cluster::new(3);
    for _ in 0..2 {
        assert_eq!(cluster.push(&many(5)).await.status, 200);
    }
    let read = cluster.read(NOW - 1000, NOW).await.unwrap();
    assert!(read.len() == 5 && read.iter().all(|(_, samples)| samples.len() == 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn too_fast_is_429_with_a_time_to_wait_and_stores_nothing() {
    let cluster = Cluster::configured(3, |config| {
        config.limits.ingestion_rate = 1.0;
        config.limits.ingestion_burst_size = 10;
    });
    assert_eq!(cluster.push(&many(10)).await.status, 200);
    eventually("all replicas", || cluster.fakes.iter().all(|fake| fake.num_samples("tenant") == 10)).await;
    let answer = cluster.push(&[series("late", "x", &[(NOW, 1.0)])]).await;
    assert_eq!(answer.status, 429);
    assert_eq!(answer.headers["retry-after"], "1");
    assert_eq!(answer.text(), "ingestion rate limit (1) exceeded while adding 1 samples and 0 metadata\n");
    assert!(cluster.fakes.iter().all(|fake| fake.num_samples("tenant") == 10));
    let discarded = r#"cortex_discarded_samples_total{reason="rate_limited",user="tenant"}"#;
    assert_eq!(cluster.metric(discarded), 1.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn limits_that_were_changed_hold_from_the_next_request_on() {
    let cluster = Cluster::configured(3, |config| {
        config.limits.ingestion_rate = 1.0;
        config.limits.ingestion_burst_size = 5;
    });
    assert_eq!(cluster.push(&many(5)).await.status, 200);
    assert_eq!(cluster.push(&many(5)).await.status, 429);
    cluster.reload("overrides: {tenant: {ingestion_rate: 1000, ingestion_burst_size: 5000}}");
    assert_eq!(cluster.push(&many(5)).await.status, 200);
    cluster.reload("overrides: {tenant: {ingestion_burst_size: 4}}");
    let answer = cluster.push(&many(5)).await;
    assert_eq!(answer.status, 429);
    assert!(answer.text().starts_with("ingestion rate limit (1) exceeded"), "{}", answer.text());
    // Somebody else's limits are somebody else's, and rules of validation change too.
    cluster.reload("overrides: {tenant: {max_label_value_length: 1}, other: {ingestion_burst_size: 1}}");
    let answer = cluster.push(&[series("m", "long", &[(NOW, 1.0)])]).await;
    assert_eq!(answer.status, 400, "{}", answer.text());
    cluster.reload("");
    assert_eq!(cluster.push(&[series("m", "long", &[(NOW, 1.0)])]).await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_global_rate_is_shared_by_the_distributors() {
    let cluster = Cluster::configured(3, |config| {
        config.limits.ingestion_rate = 1.0;
        config.limits.ingestion_burst_size = 1;
        config.limits.ingestion_rate_strategy = ringkit_config::IngestionRateStrategy::Global;
    });
    assert_eq!(cluster.push(&many(1)).await.status, 200);
    // The harness has two distributors, so this one has half the rate.
    let answer = cluster.push(&many(1)).await;
    assert!(answer.text().contains("ingestion rate limit (0.5) exceeded"), "{}", answer.text());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_overloaded_process_says_503() {
    let cluster = Cluster::configured(3, |config| {
        config.distributor.instance_limits.max_inflight_client_requests = 1;
        config.distributor.remote_timeout = Duration::from_secs(60);
    });
    cluster.fakes.iter().for_each(|fake| fake.set(Hang));
    let requests = many(1);
    let stuck = cluster.push(&requests);
    let second = async {
        eventually("the first request", || {
            cluster.metric("cortex_distributor_inflight_client_requests") == 3.0
        })
        .await;
        cluster.push(&requests).await
    };
    tokio::select! {
        _ = stuck => panic!("nobody answers the first request"),
        answer = second => {
            assert_eq!(answer.status, 503);
            assert_eq!(answer.text(), "too many inflight ingester client requests in distributor\n");
            assert_eq!(cluster.metric(r#"ringkit_rejected_requests_total{reason="overload"}"#), 1.0);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_under_way_ends_with_its_owner() {
    let cluster =
        Cluster::configured(3, |config| config.distributor.remote_timeout = Duration::from_secs(60));
    cluster.fakes[0].set(Hang);
    assert_eq!(cluster.push(&many(1)).await.status, 200);
    let report = cluster.distributor.background.shutdown(Duration::from_millis(10)).await;
    assert_eq!(report.late, ["batch call"]);
    eventually("the hanging call", || cluster.metric("cortex_distributor_inflight_client_requests") == 0.0)
        .await;
    // Without its background a distributor cannot write, and says so.
    assert!(cluster.push(&many(1)).await.status.is_server_error());
}
