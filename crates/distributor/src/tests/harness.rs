//! A distributor with fake ingesters behind it, called through its HTTP routes.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::BodyExt as _;
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use prost::Message as _;
use ringkit_config::{Config, RuntimeConfig, RuntimeFile};
use ringkit_grpc::{Pool, PoolOptions};
use ringkit_proto::cortexpb::{LabelPair, Sample, TimeSeries, WriteRequest};
use ringkit_proto::remote;
use ringkit_ring::{Desc, InstanceDesc, Ring, RingOptions, Tokens};
use ringkit_runtime::{Clock, CollectGuard, Meter, Publisher, Supervisor};
use tower::ServiceExt as _;

use super::fake::Fake;
use crate::clients::Ingesters;
use crate::distributor::Distributor;
use crate::routes::routes;

/// The wall clock of the tests, in milliseconds.
pub(crate) const NOW: i64 = 1_700_000_000_000;

pub(crate) struct Cluster {
    pub(crate) fakes: Vec<Fake>,
    pub(crate) distributor: Arc<Distributor>,
    live_config: Publisher<RuntimeConfig>,
    router: Router,
    meter: Meter,
    rendered: PrometheusHandle,
    _published: CollectGuard,
}

impl Cluster {
    /// `num` ingesters, replication factor 3.
    pub(crate) fn new(num: usize) -> Self {
        Self::with(num, |_| (), |_, _| ())
    }

    pub(crate) fn configured(num: usize, change: impl FnOnce(&mut Config)) -> Self {
        Self::with(num, change, |_, _| ())
    }

    /// Also changes the ingesters' entries in the ring.
    pub(crate) fn with(
        num: usize,
        change: impl FnOnce(&mut Config),
        entry: impl Fn(usize, &mut InstanceDesc),
    ) -> Self {
        Self::of((0..num).map(|_| Fake::start()).collect(), change, entry)
    }

    /// Another distributor in place of this one, in front of the same ingesters.
    pub(crate) fn replaced(
        self,
        change: impl FnOnce(&mut Config),
        entry: impl Fn(usize, &mut InstanceDesc),
    ) -> Self {
        Self::of(self.fakes, change, entry)
    }

    fn of(
        fakes: Vec<Fake>,
        change: impl FnOnce(&mut Config),
        entry: impl Fn(usize, &mut InstanceDesc),
    ) -> Self {
        let mut config = Config::default();
        config.distributor.remote_timeout = Duration::from_secs(1);
        change(&mut config);
        let clock = Clock::manual(NOW).0;
        let mut desc = Desc::new();
        for (index, fake) in fakes.iter().enumerate() {
            let tokens: Vec<u32> =
                (0..64).map(|t| t * (u32::MAX / 64) + u32::try_from(index).unwrap() * 1000).collect();
            let mut instance = InstanceDesc {
                addr: fake.addr.to_string().into(),
                timestamp: NOW / 1000,
                tokens: Tokens::from(tokens),
                registered_timestamp: NOW / 1000 - 86_400,
                ..InstanceDesc::default()
            };
            entry(index, &mut instance);
            desc.insert(format!("ingester-{index}"), instance);
        }
        let ring = Ring::fixed(&desc, RingOptions::default(), clock.clone());
        let recorder = PrometheusBuilder::new().build_recorder();
        let rendered = recorder.handle();
        let meter = Meter::new(Arc::new(recorder));
        let pool = Pool::new(PoolOptions::default(), metrics::Gauge::noop());
        let ingesters = Ingesters::new(pool, &config);
        let background = Supervisor::new("background");
        let live_config = Publisher::new(RuntimeConfig::new(&config));
        let distributor = Arc::new(Distributor::new(
            (Arc::new(config), live_config.live()),
            clock,
            ring,
            ingesters,
            &meter,
            background,
            Box::new(|| 2),
        ));
        let published = distributor.publish(&meter);
        let router = routes(Arc::clone(&distributor)).unwrap();
        Self { fakes, distributor, live_config, router, meter, rendered, _published: published }
    }

    /// What the runtime configuration says from now on.
    pub(crate) fn reload(&self, yaml: &str) {
        let file = RuntimeFile { name: "runtime.yaml", bytes: yaml.as_bytes() };
        let (config, _warnings) = self.live_config.live().get().read(&[file]).unwrap();
        self.live_config.publish(config);
    }

    pub(crate) async fn send(&self, request: Request<Body>) -> Answer {
        Answer::of(self.router.clone().oneshot(request).await.unwrap()).await
    }

    pub(crate) async fn push(&self, series: &[TimeSeries]) -> Answer {
        self.send(push_request(compressed(&write_request(series)))).await
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        let request = Request::get(path).header("x-scope-orgid", "tenant").body(Body::empty()).unwrap();
        self.send(request).await
    }

    /// Reads everything of the tenant back by remote read: series as text, with their samples.
    pub(crate) async fn read(&self, start: i64, end: i64) -> Result<Vec<(String, Vec<(i64, f64)>)>, Answer> {
        let answer = self.send(read_request(start, end)).await;
        if answer.status != StatusCode::OK {
            return Err(answer);
        }
        let bytes = snap::raw::Decoder::new().decompress_vec(&answer.body).unwrap();
        let mut response = remote::ReadResponse::decode(Bytes::from(bytes)).unwrap();
        assert_eq!(response.results.len(), 1);
        let series = response.results.remove(0).timeseries.into_iter().map(|series| {
            let labels: Vec<_> = series.labels.iter().map(|l| format!("{}={}", l.name, l.value)).collect();
            let samples = series.samples.iter().map(|s| (s.timestamp, s.value)).collect();
            (labels.join(","), samples)
        });
        Ok(series.collect())
    }

    /// The value of one metric series, written as in the exposition; 0 if it is not there.
    pub(crate) fn metric(&self, series: &str) -> f64 {
        let text = self.rendered.render() + &self.meter.render_collected();
        let line = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
        line.map_or(0.0, |value| value.parse().unwrap())
    }
}

#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: http::HeaderMap,
    pub(crate) body: Bytes,
}

impl Answer {
    async fn of(response: Response<Body>) -> Self {
        let (parts, body) = response.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        Self { status: parts.status, headers: parts.headers, body }
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap()
    }
}

/// A series named `name` with one more label and these samples.
pub(crate) fn series(name: &str, label: &str, samples: &[(i64, f64)]) -> TimeSeries {
    let pair = |name: &str, value: &str| LabelPair {
        name: Bytes::copy_from_slice(name.as_bytes()),
        value: Bytes::copy_from_slice(value.as_bytes()),
    };
    TimeSeries {
        labels: vec![pair("__name__", name), pair("label", label)],
        samples: samples.iter().map(|&(timestamp_ms, value)| Sample { value, timestamp_ms }).collect(),
        ..TimeSeries::default()
    }
}

/// `num` series with one sample each.
pub(crate) fn many(num: usize) -> Vec<TimeSeries> {
    (0..num).map(|n| series("metric", &n.to_string(), &[(NOW, n as f64)])).collect()
}

pub(crate) fn write_request(series: &[TimeSeries]) -> Vec<u8> {
    let timeseries = series.iter().map(|series| series.encode_to_vec().into()).collect();
    WriteRequest { timeseries, ..WriteRequest::default() }.encode_to_vec()
}

pub(crate) fn compressed(bytes: &[u8]) -> Vec<u8> {
    snap::raw::Encoder::new().compress_vec(bytes).unwrap()
}

pub(crate) fn push_request(body: Vec<u8>) -> Request<Body> {
    Request::post("/api/v1/push")
        .header("x-scope-orgid", "tenant")
        .header("content-type", "application/x-protobuf")
        .header("content-encoding", "snappy")
        .body(body.into())
        .unwrap()
}

/// A remote-read request for all series between two times.
pub(crate) fn read_request(start_timestamp_ms: i64, end_timestamp_ms: i64) -> Request<Body> {
    let matcher = remote::LabelMatcher {
        r#type: remote::label_matcher::Type::Re.into(),
        name: "__name__".into(),
        value: ".+".into(),
    };
    let query = remote::Query { start_timestamp_ms, end_timestamp_ms, matchers: vec![matcher], hints: None };
    let request = remote::ReadRequest { queries: vec![query], accepted_response_types: vec![] };
    Request::post("/prometheus/api/v1/read")
        .header("x-scope-orgid", "tenant")
        .body(compressed(&request.encode_to_vec()).into())
        .unwrap()
}

/// Waits until something holds; fails the test if it takes too long.
pub(crate) async fn eventually(what: &str, holds: impl Fn() -> bool) {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(10);
    while !holds() {
        assert!(tokio::time::Instant::now() < deadline, "still waiting for: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
