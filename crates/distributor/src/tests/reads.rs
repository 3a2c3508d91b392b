use std::time::{Duration, Instant};

use http::Request;

use super::fake::Behaviour::{Ack, CutOff, Fail, Hang, Slow};
use super::harness::{Cluster, NOW, eventually, many, read_request, series};

async fn written(cluster: &Cluster, num: usize) {
    assert_eq!(cluster.push(&many(num)).await.status, 200);
    let all = || cluster.fakes.iter().map(|fake| fake.num_samples("tenant")).sum::<usize>() == 3 * num;
    eventually("all replicas", all).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_written_is_read_back_sorted_and_once() {
    let cluster = Cluster::new(3);
    let stale = f64::from_bits(ringkit_tsdb::STALE_NAN_BITS);
    let request = [series("b", "1", &[(NOW - 2, 1.5), (NOW - 1, stale)]), series("a", "1", &[(NOW, 0.5)])];
    assert_eq!(cluster.push(&request).await.status, 200);
    let read = cluster.read(NOW - 10, NOW).await.unwrap();
    assert_eq!(read[0].0, "__name__=a,label=1");
    assert_eq!(read[1].0, "__name__=b,label=1");
    assert_eq!(read[0].1, [(NOW, 0.5)]);
    assert_eq!(read[1].1[1].1.to_bits(), ringkit_tsdb::STALE_NAN_BITS);
    assert_eq!(read[1].1.len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_dead_ingester_does_not_matter_and_two_are_a_server_error() {
    let mut cluster = Cluster::new(3);
    written(&cluster, 20).await;
    cluster.fakes[0].kill();
    assert_eq!(cluster.read(NOW - 10, NOW).await.unwrap().len(), 20);
    cluster.fakes[1].kill();
    let answer = cluster.read(NOW - 10, NOW).await.unwrap_err();
    assert!(answer.status.is_server_error(), "{} {}", answer.status, answer.text());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hanging_ingester_gets_its_grace_and_no_more() {
    let cluster = Cluster::configured(3, |config| config.distributor.read_grace = Duration::from_millis(50));
    written(&cluster, 5).await;
    cluster.fakes[2].set(Hang);
    let started = Instant::now();
    assert_eq!(cluster.read(NOW - 10, NOW).await.unwrap().len(), 5);
    assert!(started.elapsed() < Duration::from_secs(1), "{:?}", started.elapsed());
    assert_eq!(cluster.metric("cortex_distributor_inflight_client_requests"), 0.0, "the rest is cancelled");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slower_ingester_still_adds_its_data() {
    let cluster = Cluster::configured(3, |config| config.distributor.read_grace = Duration::from_secs(10));
    written(&cluster, 5).await;
    cluster.fakes[0].wipe();
    cluster.fakes[1].wipe();
    cluster.fakes[2].set(Slow(Duration::from_millis(100)));
    assert_eq!(cluster.read(NOW - 10, NOW).await.unwrap().len(), 5);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_just_stops_is_no_answer() {
    let cluster = Cluster::new(3);
    written(&cluster, 5).await;
    cluster.fakes[0].set(CutOff);
    assert_eq!(cluster.read(NOW - 10, NOW).await.unwrap().len(), 5);
    cluster.fakes[1].set(CutOff);
    let answer = cluster.read(NOW - 10, NOW).await.unwrap_err();
    assert_eq!(answer.status, 500);
    assert!(answer.text().contains("without a final status"), "{}", answer.text());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_emptied_ingester_cannot_stand_in_for_one_that_has_the_data() {
    let young = |index: usize, entry: &mut ringkit_ring::InstanceDesc| {
        if index == 2 {
            entry.registered_timestamp = NOW / 1000;
        }
    };
    for (kind, status) in
        [(ringkit_config::ReadQuorum::Aware, 500), (ringkit_config::ReadQuorum::Cortex, 200)]
    {
        let cluster = Cluster::with(3, |config| config.distributor.read_quorum = kind, young);
        written(&cluster, 5).await;
        cluster.fakes[0].set(Fail(500));
        cluster.fakes[2].wipe();
        let answer = cluster.send(read_request(NOW - 10_000, NOW)).await;
        assert_eq!(answer.status, status, "{kind:?}: {}", answer.text());
        let shortfalls = cluster.metric("ringkit_read_quorum_shortfalls_total");
        assert_eq!(shortfalls, if status == 500 { 1.0 } else { 0.0 });
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_limit_of_an_ingester_or_of_ours_is_422() {
    let cluster = Cluster::configured(3, |config| config.limits.max_fetched_series_per_query = 4);
    written(&cluster, 5).await;
    let answer = cluster.read(NOW - 10, NOW).await.unwrap_err();
    assert_eq!(answer.status, 422);
    assert!(answer.text().contains("max number of series limit (limit: 4 series)"), "{}", answer.text());
    let cluster = Cluster::new(3);
    cluster.fakes[1].set(Fail(422));
    cluster.fakes[0].set(Slow(Duration::from_millis(200)));
    cluster.fakes[2].set(Slow(Duration::from_millis(200)));
    assert_eq!(cluster.read(NOW - 10, NOW).await.unwrap_err().status, 422);
}

#[tokio::test(flavor = "multi_thread")]
async fn extreme_times_are_answered() {
    let cluster = Cluster::new(3);
    written(&cluster, 3).await;
    assert_eq!(cluster.read(i64::MIN, i64::MAX).await.unwrap().len(), 3);
    assert_eq!(cluster.read(i64::MAX, i64::MIN).await.unwrap().len(), 0);
    assert_eq!(cluster.read(NOW + 1, i64::MAX).await.unwrap().len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn ingesters_are_not_asked_for_what_they_no_longer_hold() {
    let cluster = Cluster::configured(3, |config| {
        config.limits.query_ingesters_within = Duration::from_secs(3600);
    });
    written(&cluster, 3).await;
    let asked = || cluster.metric(r#"cortex_distributor_ingester_queries_total{ingester="ingester-0"}"#);
    assert_eq!(cluster.read(0, NOW - 3_600_001).await.unwrap().len(), 0);
    assert_eq!(asked(), 0.0);
    assert_eq!(cluster.read(0, NOW).await.unwrap().len(), 3);
    assert_eq!(asked(), 1.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn spare_ingesters_are_asked_late_or_when_somebody_fails() {
    let cluster = Cluster::configured(3, |config| {
        config.distributor.extra_queue_delay = Duration::from_secs(600);
    });
    written(&cluster, 3).await;
    let asked = || cluster.metric(r#"cortex_distributor_ingester_queries_total{ingester="ingester-2"}"#);
    assert_eq!(cluster.read(NOW - 10, NOW).await.unwrap().len(), 3);
    assert_eq!(asked(), 0.0);
    cluster.fakes[0].set(Fail(500));
    assert_eq!(cluster.read(NOW - 10, NOW).await.unwrap().len(), 3);
    assert_eq!(asked(), 1.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn samples_come_as_json_lines() {
    let cluster = Cluster::new(3);
    let request = [series("b", "1", &[(NOW, 1.5)]), series("a", "1", &[(NOW - 1, f64::NAN), (NOW, 2.0)])];
    assert_eq!(cluster.push(&request).await.status, 200);
    let answer =
        cluster.get("/api/v1/samples?match[]=%7B__name__%3D~%22.%2B%22%7D&start=0&end=1700000000").await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let expected = format!(
        "{{\"labels\":{{\"__name__\":\"a\",\"label\":\"1\"}},\"samples\":[[{},\"NaN\"],[{NOW},\"2\"]]}}\n\
         {{\"labels\":{{\"__name__\":\"b\",\"label\":\"1\"}},\"samples\":[[{NOW},\"1.5\"]]}}\n",
        NOW - 1
    );
    assert_eq!(answer.text(), expected);
    assert_eq!(cluster.get("/api/v1/samples").await.status, 400);
    assert_eq!(cluster.get("/api/v1/samples?match[]=%7B").await.status, 400);
}

#[tokio::test(flavor = "multi_thread")]
async fn labels_and_series_are_told_in_prometheus_json() {
    let cluster = Cluster::new(3);
    written(&cluster, 2).await;
    let data = |answer: super::harness::Answer| {
        let json = answer.json();
        assert_eq!((answer.status.as_u16(), &json["status"]), (200, &"success".into()), "{json}");
        json["data"].to_string()
    };
    assert_eq!(data(cluster.get("/prometheus/api/v1/labels").await), r#"["__name__","label"]"#);
    assert_eq!(data(cluster.get("/prometheus/api/v1/labels?limit=1").await), r#"["__name__"]"#);
    assert_eq!(data(cluster.get("/api/prom/api/v1/label/label/values").await), r#"["0","1"]"#);
    let form = Request::post("/prometheus/api/v1/series")
        .header("x-scope-orgid", "tenant")
        .header("content-type", "application/x-www-form-urlencoded")
        .body("match[]=metric&limit=1".into())
        .unwrap();
    assert_eq!(data(cluster.send(form).await), r#"[{"__name__":"metric","label":"0"}]"#);
    let bad = cluster.get("/prometheus/api/v1/series").await;
    assert_eq!((bad.status.as_u16(), &bad.json()["errorType"]), (400, &"bad_data".into()));
    cluster.fakes.iter().for_each(|fake| fake.set(Fail(503)));
    assert_eq!(cluster.get("/prometheus/api/v1/labels").await.status, 503);
}

#[tokio::test(flavor = "multi_thread")]
async fn statistics_count_each_series_once_for_a_tenant() {
    let cluster = Cluster::new(3);
    written(&cluster, 4).await;
    let stats = cluster.get("/api/v1/user_stats").await.json();
    assert_eq!((&stats["numSeries"], &stats["queriedIngesters"]), (&4.into(), &3.into()));
    let all = Request::get("/distributor/all_user_stats").header("accept", "application/json");
    let all = cluster.send(all.body(axum::body::Body::empty()).unwrap()).await.json();
    assert_eq!((&all[0]["userID"], &all[0]["numSeries"]), (&"tenant".into(), &12.into()));
    cluster.fakes[1].set(Fail(503));
    assert_eq!(cluster.get("/api/v1/user_stats").await.status, 503, "a sum over two of three would be wrong");
    cluster.fakes[1].set(Ack);
    let page = cluster.get("/all_user_stats").await;
    assert!(page.text().contains("<td>tenant</td><td>12</td>"), "{}", page.text());
}
