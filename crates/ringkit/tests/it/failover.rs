//! A write is acknowledged while a quorum of its replicas is there, and never without one.

use std::time::Duration;

use ringkit::cluster::{Cluster, ClusterOptions, Kind};
use ringkit_loadgen::{Load, LoadOptions, VerifyOptions, verify};
use ringkit_runtime::CancellationToken;
use ringkit_testkit::eventually;

use crate::http::{Answer, Api, now_ms};

const SERIES: u32 = 50;

/// Writes one sample into each of many series, so that every part of the token circle is met.
async fn push_everywhere(api: &Api, run: &str) -> Vec<Answer> {
    let mut answers = Vec::new();
    for index in 0..SERIES {
        let index = index.to_string();
        let labels = [("__name__", "failover"), ("index", index.as_str()), ("run", run)];
        answers.push(api.push(&labels, now_ms(), 1.0).await);
    }
    answers
}

async fn healthy_ingesters(api: &Api) -> usize {
    let page = reqwest::Client::new()
        .get(format!("{}/ingester/ring", api.url))
        .header("accept", "application/json")
        .send()
        .await
        .unwrap();
    let page: serde_json::Value = serde_json::from_str(&page.text().await.unwrap()).unwrap();
    page["shards"].as_array().map_or(0, |shards| shards.iter().filter(|s| s["state"] == "ACTIVE").count())
}

async fn cluster(dir: &std::path::Path) -> (Cluster, Api) {
    let cluster = Cluster::start(ClusterOptions::new(dir)).await.unwrap();
    tokio::time::timeout(Duration::from_secs(30), cluster.ready()).await.expect("ready within 30 s").unwrap();
    let api = Api::new(cluster.urls(Kind::Distributor).remove(0));
    (cluster, api)
}

#[tokio::test(flavor = "multi_thread")]
async fn writes_go_on_with_one_of_three_ingesters_stopped_and_fail_with_two() {
    let dir = tempfile::tempdir().unwrap();
    let (mut cluster, api) = cluster(dir.path()).await;
    for answer in push_everywhere(&api, "three").await {
        assert_eq!(answer.status, 200, "{}", answer.text);
    }

    assert!(cluster.stop_member("ingester-1").await.unwrap().is_clean());
    for answer in push_everywhere(&api, "two").await {
        assert_eq!(answer.status, 200, "with one stopped: {}", answer.text);
    }

    assert!(cluster.stop_member("ingester-2").await.unwrap().is_clean());
    for answer in push_everywhere(&api, "one").await {
        assert!((500..600).contains(&answer.status), "with two stopped: {answer:?}");
    }

    cluster.restart("ingester-2").await.unwrap();
    eventually(Duration::from_secs(20), || async { healthy_ingesters(&api).await == 2 }).await.unwrap();
    for answer in push_everywhere(&api, "two again").await {
        assert_eq!(answer.status, 200, "with one back: {}", answer.text);
    }
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_ingesters_are_tolerated_up_to_one_as_well() {
    let dir = tempfile::tempdir().unwrap();
    let (mut cluster, api) = cluster(dir.path()).await;
    cluster.kill_member("ingester-3").unwrap();
    for answer in push_everywhere(&api, "two").await {
        assert_eq!(answer.status, 200, "with one killed: {}", answer.text);
    }
    // What was acknowledged is read back complete, although one replica is gone.
    let answer = api.get("/api/v1/samples?match[]=failover").await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    assert_eq!(answer.text.lines().count(), SERIES as usize);

    cluster.kill_member("ingester-1").unwrap();
    for answer in push_everywhere(&api, "one").await {
        assert!((500..600).contains(&answer.status), "with two killed: {answer:?}");
    }
    let answer = api.get("/api/v1/samples?match[]=failover").await;
    assert!((500..600).contains(&answer.status), "a read without a quorum must fail: {answer:?}");
}

/// Kills each ingester in turn under load and brings it back, `rounds` times: no write may fail, and the ledger must be complete
/// while it is gone and once it is back.
async fn kills_under_load(rounds: usize, rate: f64, pause: Duration) {
    let dir = tempfile::tempdir().unwrap();
    let (mut cluster, api) = cluster(dir.path()).await;
    let load =
        LoadOptions { urls: vec![api.url.clone()], series: 500, rate, batch: 100, ..LoadOptions::default() };
    let load = Load::new(load).unwrap();
    let ledger = load.ledger();
    let stop = CancellationToken::new();
    let loading = tokio::spawn({
        let stop = stop.clone();
        async move { load.run(stop).await }
    });
    let options = VerifyOptions { url: api.url.clone(), ..VerifyOptions::default() };
    for round in 0..rounds {
        tokio::time::sleep(pause).await;
        let name = format!("ingester-{}", round % 3 + 1);
        cluster.kill_member(&name).unwrap();
        tokio::time::sleep(pause).await;
        // The load goes on meanwhile, so there may be more than the ledger held when the check began; never less.
        let report = verify(&ledger, &options).await.unwrap();
        let complete = report.missing + report.wrong + report.duplicates == 0 && report.acked > 0;
        assert!(complete, "round {round}, without {name}: {report:?}");
        cluster.restart(&name).await.unwrap();
        cluster.ready().await.unwrap();
    }
    stop.cancel();
    let summary = loading.await.unwrap().unwrap();
    assert_eq!(summary.failed_writes, 0, "{summary}");
    let report = verify(&ledger, &options).await.unwrap();
    assert!(report.is_clean() && report.acked == summary.acked_samples, "{report:?}\n{summary}");
    println!(
        "{rounds} kills at {rate} samples/s: {} acknowledged, {} missing\n{summary}",
        report.acked, report.missing
    );
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ingesters_killed_in_turn_under_load_fail_no_write_and_lose_nothing() {
    kills_under_load(3, 5_000.0, Duration::from_millis(400)).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "soak"]
async fn soak_kills_of_one_ingester_at_20_000_samples_a_second() {
    kills_under_load(30, 20_000.0, Duration::from_secs(1)).await;
}
