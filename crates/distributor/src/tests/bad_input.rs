//! Hostile and broken requests: each gets its status, moves its counter, and leaves the process serving.

use axum::body::Body;
use http::Request;
use prost::Message as _;
use ringkit_proto::cortexpb::{MetricMetadata, WriteRequest};
use ringkit_proto::remote;

use super::harness::{Cluster, NOW, compressed, many, push_request, series, write_request};

fn with_header(name: &'static str, value: &'static str) -> Request<Body> {
    let mut request = push_request(compressed(&write_request(&many(1))));
    request.headers_mut().insert(name, http::HeaderValue::from_static(value));
    request
}

fn without_tenant() -> Request<Body> {
    let mut request = push_request(compressed(&write_request(&many(1))));
    request.headers_mut().remove("x-scope-orgid");
    request
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_that_cannot_be_read_are_refused_and_counted() {
    let cluster = Cluster::configured(3, |config| config.distributor.max_recv_msg_size = 10_000);
    let good = compressed(&write_request(&many(1)));
    let truncated = good[..good.len() / 2].to_vec();
    let bomb = compressed(&vec![0; 100_000]);
    // Claims 9000 bytes and holds three.
    let lie = vec![0xa8, 0x46, 0x00];
    let broken_series = WriteRequest { timeseries: vec![vec![0x0a, 0x7f].into()], ..WriteRequest::default() };
    let cases: Vec<(&str, Request<Body>, u16, &str)> = vec![
        ("no tenant", without_tenant(), 401, "tenant"),
        ("bad tenant", with_header("x-scope-orgid", "a/b"), 400, "tenant"),
        ("json", with_header("content-type", "application/json"), 415, "content_type"),
        (
            "remote write 2.0",
            with_header("content-type", "application/x-protobuf;proto=io.prometheus.write.v2.Request"),
            415,
            "content_type",
        ),
        ("gzip", with_header("content-encoding", "gzip"), 415, "content_type"),
        ("too large", push_request(vec![0; 10_001]), 413, "too_large"),
        ("bomb", push_request(bomb), 413, "too_large"),
        ("empty", push_request(vec![]), 400, "snappy"),
        ("no snappy", push_request(vec![0xff; 100]), 400, "snappy"),
        ("truncated", push_request(truncated), 400, "snappy"),
        ("lying length", push_request(lie), 400, "snappy"),
        ("no protobuf", push_request(compressed(&[0xff; 20])), 400, "protobuf"),
        ("broken series", push_request(compressed(&broken_series.encode_to_vec())), 400, "protobuf"),
    ];
    for (what, request, status, reason) in cases {
        let counter = format!("ringkit_rejected_requests_total{{reason=\"{reason}\"}}");
        let before = cluster.metric(&counter);
        let answer = cluster.send(request).await;
        assert_eq!(answer.status, status, "{what}: {}", answer.text());
        assert_eq!(cluster.metric(&counter), before + 1.0, "{what}");
        assert!(answer.text().ends_with('\n') && answer.body.len() > 5, "{what}: {}", answer.text());
        assert_eq!(cluster.push(&many(1)).await.status, 200, "after {what}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn invalid_series_are_told_and_valid_ones_stored() {
    let cluster = Cluster::new(3);
    let request = [
        series("1bad", "x", &[(NOW, 1.0), (NOW + 1, 1.0)]),
        series("good", "x", &[(NOW, 7.0)]),
        series("late", "x", &[(NOW + 3_600_000, 1.0)]),
    ];
    let answer = cluster.push(&request).await;
    assert_eq!(
        (answer.status.as_u16(), answer.text().as_str()),
        (400, "sample invalid metric name: \"1bad\"\n")
    );
    let read = cluster.read(NOW - 10, NOW + 10_000_000).await.unwrap();
    assert_eq!(read, [("__name__=good,label=x".to_owned(), vec![(NOW, 7.0)])]);
    let discarded = |reason: &str| {
        cluster.metric(&format!("cortex_discarded_samples_total{{reason=\"{reason}\",user=\"tenant\"}}"))
    };
    assert_eq!((discarded("metric_name_invalid"), discarded("too_far_in_future")), (2.0, 1.0));
    assert_eq!(cluster.metric(r#"cortex_distributor_samples_in_total{user="tenant",type="float"}"#), 4.0);
    assert_eq!(
        cluster.metric(r#"cortex_distributor_received_samples_total{user="tenant",type="float"}"#),
        1.0
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn histograms_are_refused_while_floats_exemplars_and_metadata_pass() {
    let cluster = Cluster::new(3);
    let mut histogram = series("histogram", "x", &[]);
    histogram.histograms.push(vec![8, 1].into());
    let mut exemplar = series("exemplar", "x", &[(NOW, 1.0)]);
    exemplar.exemplars.push(ringkit_proto::cortexpb::Exemplar::default());
    let request = WriteRequest {
        timeseries: [histogram, exemplar].iter().map(|series| series.encode_to_vec().into()).collect(),
        metadata: vec![MetricMetadata::default()],
        ..WriteRequest::default()
    };
    let answer = cluster.send(push_request(compressed(&request.encode_to_vec()))).await;
    assert_eq!(answer.status, 400);
    assert!(answer.text().starts_with("native histograms are not supported"), "{}", answer.text());
    assert_eq!(cluster.read(NOW - 10, NOW).await.unwrap().len(), 1);
    let counter = |name: &str| cluster.metric(&format!("{name}{{user=\"tenant\"}}"));
    assert_eq!(counter("cortex_distributor_received_exemplars_total"), 1.0);
    assert_eq!(counter("cortex_distributor_received_metadata_total"), 1.0);
    let discarded = r#"cortex_discarded_samples_total{reason="native-histogram-unsupported",user="tenant"}"#;
    assert_eq!(cluster.metric(discarded), 1.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_request_is_accepted() {
    let cluster = Cluster::new(3);
    assert_eq!(cluster.push(&[]).await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn remote_reads_that_cannot_be_understood_are_refused() {
    let cluster = Cluster::new(3);
    let request = |body: Vec<u8>| {
        Request::post("/api/prom/api/v1/read")
            .header("x-scope-orgid", "tenant")
            .body(Body::from(body))
            .unwrap()
    };
    let query = |matcher: remote::LabelMatcher| {
        let query = remote::Query { matchers: vec![matcher], ..remote::Query::default() };
        compressed(&remote::ReadRequest { queries: vec![query], ..Default::default() }.encode_to_vec())
    };
    let matcher = |kind: i32, value: &str| remote::LabelMatcher {
        r#type: kind,
        name: "a".to_owned(),
        value: value.to_owned(),
    };
    for (what, body, status) in [
        ("not snappy", vec![0xff; 10], 400),
        ("not protobuf", compressed(&[0xff; 10]), 400),
        ("bad expression", query(matcher(2, "(")), 400),
        ("unknown type", query(matcher(9, "x")), 400),
        ("huge expression", query(matcher(2, &"x".repeat(100_000))), 400),
        ("too large", vec![0; 2 << 20], 413),
    ] {
        assert_eq!(cluster.send(request(body)).await.status, status, "{what}");
    }
    let no_tenant = Request::post("/api/v1/read").body(Body::empty()).unwrap();
    assert_eq!(cluster.send(no_tenant).await.status, 401);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_authentication_everything_belongs_to_one_tenant() {
    let cluster = Cluster::configured(3, |config| config.auth_enabled = false);
    assert_eq!(cluster.send(without_tenant()).await.status, 200);
    super::harness::eventually("the samples", || cluster.fakes[0].num_samples("fake") == 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_older_paths_lead_to_the_same_place() {
    let cluster = Cluster::new(3);
    let (mut parts, body) = push_request(compressed(&write_request(&many(1)))).into_parts();
    parts.uri = "/api/prom/push".parse().unwrap();
    assert_eq!(cluster.send(Request::from_parts(parts, body)).await.status, 200);
    let wrong_method = Request::get("/api/v1/push").body(Body::empty()).unwrap();
    assert_eq!(cluster.send(wrong_method).await.status, 405);
}
