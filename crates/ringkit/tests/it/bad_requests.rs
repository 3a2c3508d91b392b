//! Bad requests get a clear answer and the right status, are counted, and harm nobody else.

use std::time::Duration;

use ringkit::cluster::{Cluster, ClusterOptions, Kind};

use crate::http::{Api, now_ms, snappy, write_request};

/// One distributor and one ingester with a replication factor of 1.
async fn small_cluster(dir: &std::path::Path, auth: bool) -> (Cluster, Api) {
    let mut options =
        ClusterOptions { ingesters: 1, zones: 1, store_gateways: 0, ..ClusterOptions::new(dir) };
    options.config.ingester.lifecycler.ring.replication_factor = 1;
    options.auth_enabled = auth;
    let cluster = Cluster::start(options).await.unwrap();
    tokio::time::timeout(Duration::from_secs(30), cluster.ready()).await.expect("ready within 30 s").unwrap();
    let api = Api::new(cluster.urls(Kind::Distributor).remove(0));
    (cluster, api)
}

type Labels<'a> = Vec<(&'a str, &'a str)>;
/// Instead of the right ones.
type Headers<'a> = &'a [(&'static str, &'a str)];

const GOOD: &[(&str, &str)] = &[("__name__", "good"), ("job", "test")];

#[tokio::test(flavor = "multi_thread")]
async fn bodies_that_are_no_write_request_are_refused_and_counted() {
    let dir = tempfile::tempdir().unwrap();
    let (cluster, api) = small_cluster(dir.path(), false).await;
    let body = snappy(&write_request(&[(GOOD, now_ms(), 1.0)]));

    let truncated = body[..body.len() / 2].to_vec();
    // Varints that claim 1 MB and 4 GB, before four bytes of content.
    let lying = [&[0xc0, 0x84, 0x3d][..], &body[1..5]].concat();
    let lying_hugely = [&[0xff, 0xff, 0xff, 0xff, 0x0f][..], &body[1..5]].concat();
    let not_protobuf = snappy(b"\x0a\xff\xff\xff\xff\x0fno protobuf");
    let cases: [(&str, Vec<u8>, Headers<'_>, u16, &str); 7] = [
        ("truncated snappy", truncated, &[], 400, "snappy"),
        ("a length that lies", lying, &[], 400, "snappy"),
        ("a length that lies beyond the limit", lying_hugely, &[], 413, "larger than max"),
        ("no protobuf inside", not_protobuf, &[], 400, "protobuf"),
        ("wrong content type", body.clone(), &[("content-type", "text/html")], 415, "application/x-protobuf"),
        (
            "remote write 2.0",
            body.clone(),
            &[("content-type", "application/x-protobuf;proto=io.prometheus.write.v2.Request")],
            415,
            "application/x-protobuf",
        ),
        ("wrong encoding", body.clone(), &[("content-encoding", "gzip")], 415, "snappy"),
    ];
    for (what, body, headers, status, names) in cases {
        let before =
            api.metric("cortex_request_duration_seconds_count", &format!("status_code=\"{status}\"")).await;
        let answer = api.push_body(body, headers).await;
        assert_eq!(answer.status, status, "{what}: {answer:?}");
        assert!(answer.text.to_lowercase().contains(names), "{what} should name {names}: {}", answer.text);
        let after =
            api.metric("cortex_request_duration_seconds_count", &format!("status_code=\"{status}\"")).await;
        assert!(after > before, "{what}: no counter moved");
    }

    let answer = api.push(GOOD, now_ms(), 2.0).await;
    assert_eq!(answer.status, 200, "the process is alive: {answer:?}");
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn series_that_break_a_rule_are_counted_by_reason_and_the_others_are_stored() {
    let dir = tempfile::tempdir().unwrap();
    let (cluster, api) = small_cluster(dir.path(), false).await;
    let long = "x".repeat(5000);
    let cases: [(&str, Labels<'_>, &str); 5] = [
        ("duplicate label names", vec![("__name__", "bad"), ("a", "1"), ("a", "2")], "duplicate_label_names"),
        ("no metric name", vec![("a", "1")], "missing_metric_name"),
        ("a bad label name", vec![("__name__", "bad"), ("not-a-label", "1")], "label_invalid"),
        ("a bad metric name", vec![("__name__", "bad name")], "metric_name_invalid"),
        ("a label value too long", vec![("__name__", "bad"), ("a", &long)], "label_value_too_long"),
    ];
    for (index, (what, labels, reason)) in cases.iter().enumerate() {
        let beside = format!("beside_{index}");
        let good = [("__name__", beside.as_str())];
        let body = snappy(&write_request(&[(labels, now_ms(), 1.0), (&good, now_ms(), 1.0)]));
        let answer = api.push_body(body, &[]).await;
        assert_eq!(answer.status, 400, "{what}: {answer:?}");
        assert!(answer.text.len() > 10, "{what}: {answer:?}");
        let counted = api.metric("cortex_discarded_samples_total", &format!("reason=\"{reason}\"")).await;
        assert!((counted - 1.0).abs() < 0.1, "{what}: {reason} counted {counted} times");
        let stored = api.get(&format!("/api/v1/samples?match[]={beside}")).await;
        assert_eq!(stored.text.lines().count(), 1, "{what}: the good series beside it was lost: {stored:?}");
    }
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn labels_out_of_order_never_split_a_series() {
    let dir = tempfile::tempdir().unwrap();
    let (cluster, api) = small_cluster(dir.path(), false).await;
    let now = now_ms();
    let sorted = api.push(&[("__name__", "m"), ("a", "1"), ("b", "2")], now, 1.0).await;
    assert_eq!(sorted.status, 200, "{sorted:?}");
    let unsorted = api.push(&[("b", "2"), ("a", "1"), ("__name__", "m")], now + 1, 2.0).await;
    // Cortex's distributor sorts labels; were they refused, it would have to be a 400 that is counted.
    if unsorted.status != 200 {
        assert_eq!(unsorted.status, 400, "{unsorted:?}");
        assert!(api.metric("cortex_discarded_samples_total", "labels_not_sorted").await > 0.0);
    }
    let stored = api.get("/api/v1/samples?match[]=m").await;
    assert_eq!(stored.text.lines().count(), 1, "{stored:?}");
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_of_100_mb_is_refused_without_being_kept() {
    let dir = tempfile::tempdir().unwrap();
    let (cluster, api) = small_cluster(dir.path(), false).await;
    let answer = api.push_body(vec![b'x'; (100 << 20) + 1], &[]).await;
    assert_eq!(answer.status, 413, "{answer:?}");
    // Small on the wire, 100 MB once decompressed.
    let bomb = snappy(&vec![0; (100 << 20) + 1]);
    assert!(bomb.len() < 10 << 20);
    let answer = api.push_body(bomb, &[]).await;
    assert!(matches!(answer.status, 400 | 413), "{answer:?}");
    assert!(api.metric("cortex_request_duration_seconds_count", "status_code=\"413\"").await >= 1.0);
    assert_eq!(api.push(GOOD, now_ms(), 1.0).await.status, 200);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tenants_must_be_given_and_fit_for_a_path() {
    let dir = tempfile::tempdir().unwrap();
    let (cluster, api) = small_cluster(dir.path(), true).await;
    let body = snappy(&write_request(&[(GOOD, now_ms(), 1.0)]));
    assert_eq!(api.push_body(body.clone(), &[]).await.status, 401);
    for id in ["../../etc/passwd", "a/b", "..", "a b"] {
        let answer = api.push_body(body.clone(), &[("x-scope-orgid", id)]).await;
        assert_eq!(answer.status, 400, "{id}: {answer:?}");
        assert!(answer.text.contains("tenant"), "{id}: {answer:?}");
    }
    assert!(api.metric("cortex_request_duration_seconds_count", "status_code=\"400\"").await >= 4.0);
    assert_eq!(api.push_body(body, &[("x-scope-orgid", "team-a")]).await.status, 200);
    let other = reqwest::Client::new()
        .get(format!("{}/api/v1/samples?match[]=good", api.url))
        .header("x-scope-orgid", "team-b")
        .send()
        .await
        .unwrap();
    assert_eq!(other.text().await.unwrap(), "", "a tenant sees its own samples only");
    cluster.stop().await;
}
