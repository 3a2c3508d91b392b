//! A whole ingester: process, ring entry, gRPC, HTTP, directory.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "helpers of tests may panic")]

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use prost::Message as _;
use ringkit_config::Config;
use ringkit_grpc::{PeerChannel, PoolOptions, http_code};
use ringkit_kv::Stores;
use ringkit_proto::client::ingester_client::IngesterClient;
use ringkit_proto::client::{self, LabelMatcher, MatchType, QueryRequest};
use ringkit_proto::cortexpb::{LabelPair, Sample, TimeSeries, WriteRequest};
use ringkit_ring::{Desc, State};
use ringkit_runtime::{Clock, Meter};
use ringkit_server::{App, Running};
use ringkit_testkit::http;
use tonic::Request;

/// Milliseconds since 1970; the ingester compares samples with each other, not with the clock, unless they lie ahead.
const T0: i64 = 1_700_000_000_000;

type Client = IngesterClient<PeerChannel>;

fn config(dir: &Path, more: &str) -> Config {
    let text = format!(
        "target: ingester\n\
         auth_enabled: true\n\
         ring: {{store: inmemory}}\n\
         ingester:\n  \
           lifecycler:\n    \
             id: ingester-1\n    \
             address: 127.0.0.1\n    \
             num_tokens: 16\n    \
             join_after: 0s\n    \
             observe_period: 0s\n    \
             min_ready_duration: 0s\n    \
             final_sleep: 0s\n    \
             ring: {{replication_factor: 1}}\n\
         blocks_storage: {{tsdb: {{dir: \"{}\"}}}}\n\
         {more}",
        dir.display()
    );
    ringkit_config::parse_yaml("test.yaml", &text).unwrap_or_else(|error| panic!("{error}\n{text}")).config
}

async fn start(config: Config, stores: &Stores) -> Running {
    let listener = || std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let app = App::builder(config).roles(&[ringkit_ingester::ROLE]).stores(stores.clone());
    let running = app.listeners(listener(), listener()).start().await.unwrap();
    tokio::time::timeout(Duration::from_secs(30), running.ready()).await.expect("not ready in time").unwrap();
    running
}

async fn stop(running: Running) {
    let report = running.stop().await;
    assert!(report.late.is_empty(), "{report:?}");
}

fn client(addr: SocketAddr) -> Client {
    IngesterClient::new(ringkit_grpc::peer(&addr.to_string(), &PoolOptions::default()).unwrap())
}

fn of_tenant<T>(tenant: &str, message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.metadata_mut().insert("x-scope-orgid", tenant.parse().unwrap());
    request
}

fn series(instance: &str, samples: &[(i64, f64)]) -> TimeSeries {
    let label =
        |name: &str, value: &str| LabelPair { name: name.to_owned().into(), value: value.to_owned().into() };
    TimeSeries {
        labels: vec![label("__name__", "up"), label("instance", instance)],
        samples: samples
            .iter()
            .map(|(timestamp_ms, value)| Sample { value: *value, timestamp_ms: *timestamp_ms })
            .collect(),
        ..TimeSeries::default()
    }
}

fn write(series: &[TimeSeries]) -> WriteRequest {
    WriteRequest {
        timeseries: series.iter().map(|series| series.encode_to_vec().into()).collect(),
        ..WriteRequest::default()
    }
}

fn matcher(r#type: MatchType, name: &str, value: &str) -> LabelMatcher {
    LabelMatcher { r#type: r#type.into(), name: name.to_owned(), value: value.to_owned() }
}

/// All samples of the metric `up`, by instance.
async fn query(client: &mut Client, tenant: &str) -> BTreeMap<String, Vec<(i64, f64)>> {
    let request = QueryRequest {
        start_timestamp_ms: i64::MIN,
        end_timestamp_ms: i64::MAX,
        matchers: vec![matcher(MatchType::Equal, "__name__", "up")],
    };
    let mut messages = client.query_stream(of_tenant(tenant, request)).await.unwrap().into_inner();
    let mut found = BTreeMap::new();
    while let Some(message) = messages.message().await.unwrap() {
        for series in message.chunkseries {
            assert_eq!(series.from_ingester_id, "ingester-1");
            let instance = series.labels.iter().find(|label| label.name == "instance").unwrap();
            let mut samples = Vec::new();
            for chunk in series.chunks {
                assert_eq!(chunk.encoding, ringkit_proto::ENCODING_PROMETHEUS_XOR);
                samples.extend(ringkit_tsdb::xor::iter(&chunk.data).map(Result::unwrap));
            }
            let instance = String::from_utf8(instance.value.to_vec()).unwrap();
            assert!(found.insert(instance, samples).is_none(), "one series in two messages");
        }
    }
    found
}

async fn registered(stores: &Stores, config: &Config) -> Option<(State, i64)> {
    let kv = config.kv(ringkit_config::RingName::Ingester);
    let ring = stores.client::<Desc>(&kv, "test", &Meter::disabled(), &Clock::system()).unwrap();
    let view = ring.get("ring").await.unwrap()?;
    let entry = view.value.get("ingester-1")?;
    Some((entry.state, entry.registered_timestamp))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_acknowledged_is_there_after_a_kill() {
    let dir = tempfile::tempdir().unwrap();
    let (stores, config) = (Stores::new(), config(dir.path(), ""));
    let mut expected = BTreeMap::new();
    let mut registration = None;
    for round in 0..3_i64 {
        let running = start(config.clone(), &stores).await;
        let (state, registered_at) = registered(&stores, &config).await.unwrap();
        assert_eq!(state, State::Active);
        assert_eq!(
            *registration.get_or_insert(registered_at),
            registered_at,
            "an ingester with its data is the same"
        );
        let mut client = client(running.grpc_addr);
        assert_eq!(query(&mut client, "team-a").await, expected, "round {round}");
        for step in 0..200 {
            let time = T0 + round * 1_000_000 + step * 1000;
            let request: Vec<_> = (0..10).map(|n| series(&format!("i{n}"), &[(time, step as f64)])).collect();
            client.push(of_tenant("team-a", write(&request))).await.unwrap();
            for n in 0..10 {
                expected.entry(format!("i{n}")).or_insert_with(Vec::new).push((time, step as f64));
            }
        }
        assert_eq!(query(&mut client, "team-a").await, expected);
        assert!(query(&mut client, "team-b").await.is_empty());
        running.abort();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_orderly_stop_keeps_everything_and_leaves_the_ring() {
    let dir = tempfile::tempdir().unwrap();
    let (stores, config) = (Stores::new(), config(dir.path(), ""));
    let running = start(config.clone(), &stores).await;
    let mut first = client(running.grpc_addr);
    first.push(of_tenant("a", write(&[series("x", &[(T0, 1.0), (T0 + 1, 2.0)])]))).await.unwrap();
    let answer = http::post(running.http_addr, "/ingester/flush?wait=true", &[], b"").await.unwrap();
    assert_eq!(answer.status, 204);
    first.push(of_tenant("a", write(&[series("x", &[(T0 + 2, 3.0)])]))).await.unwrap();
    stop(running).await;
    assert_eq!(registered(&stores, &config).await, None);
    let running = start(config, &stores).await;
    let found = query(&mut client(running.grpc_addr), "a").await;
    assert_eq!(found["x"], [(T0, 1.0), (T0 + 1, 2.0), (T0 + 2, 3.0)]);
    stop(running).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_ingester_that_lost_its_directory_is_a_new_one() {
    let (stores, dir) = (Stores::new(), tempfile::tempdir().unwrap());
    let running = start(config(dir.path(), ""), &stores).await;
    let (_, before) = registered(&stores, &config(dir.path(), "")).await.unwrap();
    running.abort();
    // Registration has a resolution of one second.
    tokio::time::sleep(Duration::from_millis(1100)).await;
    let other = tempfile::tempdir().unwrap();
    let running = start(config(other.path(), ""), &stores).await;
    let (state, after) = registered(&stores, &config(dir.path(), "")).await.unwrap();
    assert_eq!(state, State::Active);
    assert!(after > before, "{after} is not after {before}");
    stop(running).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refusals_are_400_in_cortex_words_and_counted_once() {
    let dir = tempfile::tempdir().unwrap();
    let stores = Stores::new();
    let running = start(config(dir.path(), "limits: {max_series_per_metric: 3}\n"), &stores).await;
    let mut client = client(running.grpc_addr);
    let mut push = async |request: WriteRequest| {
        let answer = client.push(of_tenant("team-a", request)).await;
        answer.map(drop).map_err(|status| (http_code(&status), status.message().to_owned()))
    };
    push(write(&[series("x", &[(T0, 1.0)])])).await.unwrap();
    push(write(&[series("x", &[(T0, 1.0)])])).await.unwrap();
    let (code, text) =
        push(write(&[series("x", &[(T0 - 5, 1.0)]), series("y", &[(T0, 1.0)])])).await.unwrap_err();
    assert_eq!(code, Some(400));
    assert_eq!(
        text,
        "user=team-a: err: out of order sample. timestamp=2023-11-14T22:13:19.995Z, \
         series={__name__=\"up\", instance=\"x\"}"
    );
    let (code, text) = push(write(&[series("x", &[(T0, 2.0)])])).await.unwrap_err();
    assert_eq!(code, Some(400));
    assert!(text.contains("duplicate sample for timestamp"), "{text}");
    let (code, text) =
        push(write(&[series("z", &[(T0, 1.0)]), series("w", &[(T0, 1.0)])])).await.unwrap_err();
    assert_eq!(code, Some(400));
    assert!(
        text.contains(
            "per-metric series limit of 3 exceeded, please contact administrator to raise it (local limit: 3"
        ),
        "{text}"
    );
    let mut no_tenant = self::client(running.grpc_addr);
    let status = no_tenant.push(write(&[])).await.unwrap_err();
    assert_eq!(http_code(&status), Some(401));
    let metrics = running.metrics();
    for line in [
        "cortex_discarded_samples_total{reason=\"sample-out-of-order\",user=\"team-a\"} 1",
        "cortex_discarded_samples_total{reason=\"new-value-for-timestamp\",user=\"team-a\"} 1",
        "cortex_discarded_samples_total{reason=\"per_metric_series_limit\",user=\"team-a\"} 1",
        "cortex_ingester_ingested_samples_total 3",
        "ringkit_ingester_duplicate_samples_total 1",
        "cortex_ingester_memory_series 3",
        "cortex_ingester_memory_users 1",
    ] {
        assert!(metrics.contains(line), "{line} is not in\n{metrics}");
    }
    stop(running).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn labels_and_series_can_be_listed() {
    let dir = tempfile::tempdir().unwrap();
    let running = start(config(dir.path(), ""), &Stores::new()).await;
    let mut client = client(running.grpc_addr);
    let request: Vec<_> = (0..3).map(|n| series(&format!("i{n}"), &[(T0 + n, 1.0)])).collect();
    client.push(of_tenant("a", write(&request))).await.unwrap();
    let names = client.label_names(of_tenant("a", client::LabelNamesRequest::default())).await.unwrap();
    assert_eq!(names.into_inner().label_names, ["__name__", "instance"]);
    let request = client::LabelValuesRequest {
        label_name: "instance".into(),
        end_timestamp_ms: T0 + 1,
        matchers: Some(client::LabelMatchers {
            matchers: vec![matcher(MatchType::NotEqual, "instance", "i0")],
        }),
        ..Default::default()
    };
    let values = client.label_values(of_tenant("a", request)).await.unwrap();
    assert_eq!(values.into_inner().label_values, ["i1"]);
    let request = client::MetricsForLabelMatchersRequest {
        end_timestamp_ms: i64::MAX,
        matchers_set: ["i0", "i0|i2"]
            .map(|value| client::LabelMatchers {
                matchers: vec![matcher(MatchType::RegexMatch, "instance", value)],
            })
            .to_vec(),
        ..Default::default()
    };
    let found = client.metrics_for_label_matchers(of_tenant("a", request.clone())).await.unwrap();
    assert_eq!(found.into_inner().metric.len(), 2);
    let mut stream =
        client.metrics_for_label_matchers_stream(of_tenant("a", request)).await.unwrap().into_inner();
    assert_eq!(stream.message().await.unwrap().unwrap().metric.len(), 2);
    let stats = client.user_stats(of_tenant("a", client::UserStatsRequest {})).await.unwrap();
    assert_eq!(stats.into_inner().num_series, 3);
    let bad = QueryRequest { matchers: vec![matcher(MatchType::RegexMatch, "a", "(")], ..Default::default() };
    let status = client.query_stream(of_tenant("a", bad)).await.unwrap_err();
    assert_eq!(http_code(&status), Some(400));
    stop(running).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_operator_can_change_the_mode_and_end_the_ingester() {
    let dir = tempfile::tempdir().unwrap();
    let (stores, config) = (Stores::new(), config(dir.path(), ""));
    let running = start(config.clone(), &stores).await;
    let addr = running.http_addr;
    let mut client = client(running.grpc_addr);
    client.push(of_tenant("a", write(&[series("x", &[(T0, 1.0)])]))).await.unwrap();
    let answer = http::get(addr, "/ingester/mode").await.unwrap();
    assert_eq!((answer.status, answer.text().as_str()), (200, "Ingester mode ACTIVE"));
    let answer = http::post(addr, "/ingester/mode?mode=readonly", &[], b"").await.unwrap();
    assert_eq!((answer.status, answer.text().as_str()), (200, "Ingester mode READONLY"));
    assert_eq!(registered(&stores, &config).await.unwrap().0, State::ReadOnly);
    let answer = http::post(addr, "/ingester/mode?mode=sideways", &[], b"").await.unwrap();
    assert_eq!(answer.status, 400);
    for by_link in ["/ingester/mode?mode=ACTIVE", "/ingester/flush", "/ingester/shutdown"] {
        assert_eq!(http::get(addr, by_link).await.unwrap().status, 405, "{by_link}");
    }
    let foreign = [("origin", "http://elsewhere.example"), ("sec-fetch-site", "cross-site")];
    let answer = http::post(addr, "/ingester/shutdown", &foreign, b"").await.unwrap();
    assert_eq!(answer.status, 403, "{}", answer.text());
    let answer = http::post(addr, "/ingester/mode?mode=ACTIVE", &[], b"").await.unwrap();
    assert_eq!((answer.status, answer.text().as_str()), (200, "Ingester mode ACTIVE"));

    let stats =
        http::request(addr, "GET", "/ingester/all_user_stats", &[("accept", "application/json")], b"").await;
    let stats: serde_json::Value = serde_json::from_slice(&stats.unwrap().body).unwrap();
    assert_eq!((&stats[0]["userID"], &stats[0]["numSeries"]), (&"a".into(), &1.into()));
    let tsdb =
        http::request(addr, "GET", "/ingester/tsdb", &[("accept", "application/json")], b"").await.unwrap();
    let tsdb: serde_json::Value = serde_json::from_slice(&tsdb.body).unwrap();
    assert_eq!((&tsdb["samples"], &tsdb["wal_segments"]), (&1.into(), &1.into()));
    assert!(http::get(addr, "/ingester/tsdb").await.unwrap().text().contains("<td>a</td>"));

    let answer = http::post(addr, "/ingester/shutdown", &[], b"").await.unwrap();
    assert_eq!(answer.status, 204);
    assert_eq!(registered(&stores, &config).await, None);
    let status = client.push(of_tenant("a", write(&[series("x", &[(T0 + 1, 1.0)])]))).await.unwrap_err();
    assert_eq!(http_code(&status), Some(503));
    assert_eq!(http::get(addr, "/ready").await.unwrap().status, 503);
    stop(running).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_ingesters_cannot_use_one_directory() {
    let dir = tempfile::tempdir().unwrap();
    let running = start(config(dir.path(), ""), &Stores::new()).await;
    let listener = || std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let second = App::builder(config(dir.path(), "")).roles(&[ringkit_ingester::ROLE]);
    let mut second = second.listeners(listener(), listener()).start().await.unwrap();
    let reason = tokio::time::timeout(Duration::from_secs(20), second.wait()).await.unwrap().to_string();
    assert!(reason.contains("in use by another ingester"), "{reason}");
    stop(running).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn limits_of_series_change_with_the_file_and_without_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("runtime.yaml");
    std::fs::write(&file, "overrides: {a: {max_series_per_user: 1}}").unwrap();
    let more = format!("runtime_config: {{file: \"{}\", period: 20ms}}\n", file.display());
    let running = start(config(dir.path(), &more), &Stores::new()).await;
    let mut client = client(running.grpc_addr);
    let mut push = async |tenant: &str, name: &str| {
        client.push(of_tenant(tenant, write(&[series(name, &[(T0, 1.0)])]))).await.map(drop)
    };
    push("a", "one").await.unwrap();
    let refusal = push("a", "two").await.unwrap_err();
    assert!(refusal.message().contains("per-user series limit of 1 exceeded"), "{refusal}");
    push("b", "one").await.unwrap();
    push("b", "two").await.unwrap();

    std::fs::write(&file, "overrides: {a: {max_series_per_user: 2}}\ningester_limits: {max_tenants: 2}\n")
        .unwrap();
    let deadline = tokio::time::Instant::now() + Duration::from_secs(20);
    while let Err(refusal) = push("a", "two").await {
        assert!(tokio::time::Instant::now() < deadline, "the limit stays: {refusal}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let refusal = push("a", "three").await.unwrap_err();
    assert!(refusal.message().contains("per-user series limit of 2 exceeded"), "{refusal}");
    let refusal = push("c", "one").await.unwrap_err();
    assert_eq!(http_code(&refusal), Some(503), "no third tenant: {refusal}");
    stop(running).await;
}
