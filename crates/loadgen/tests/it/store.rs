//! A store in a map, over HTTP, that can be told to misbehave.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::IntoResponse;
use axum::routing::post;
use parking_lot::Mutex;
use prost::Message as _;
use ringkit_proto::{cortexpb, remote};
use tokio::task::JoinSet;

type Labels = Vec<(String, String)>;
/// Bits of the value by timestamp.
type Samples = BTreeMap<i64, u64>;

/// How a store misbehaves.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) enum Fault {
    #[default]
    None,
    Always(u16),
    EveryThirdIs(u16),
    /// Status and `Retry-After` of the first answer.
    FirstIs(u16, &'static str),
    /// Acknowledges this request, counted from 1, and stores nothing of it.
    AckAndDrop(u64),
    /// The first answer takes this long.
    StallOnce(Duration),
}

#[derive(Default)]
struct Inner {
    fault: Fault,
    requests: u64,
    out_of_order: u64,
    failing_reads: u64,
    tenants: HashMap<String, BTreeMap<Labels, Samples>>,
}

pub(crate) struct Store {
    url: String,
    inner: Arc<Mutex<Inner>>,
    _server: JoinSet<()>,
}

impl Store {
    pub(crate) async fn start() -> Self {
        let inner = Arc::new(Mutex::new(Inner::default()));
        let router = Router::new()
            .route("/api/v1/push", post(push))
            .route("/prometheus/api/v1/read", post(read))
            .with_state(Arc::clone(&inner));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let mut server = JoinSet::new();
        server.spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { url, inner, _server: server }
    }

    pub(crate) fn url(&self) -> String {
        self.url.clone()
    }

    pub(crate) fn set(&self, fault: Fault) {
        self.inner.lock().fault = fault;
    }

    pub(crate) fn fail_reads(&self, count: u64) {
        self.inner.lock().failing_reads = count;
    }

    pub(crate) fn out_of_order(&self) -> u64 {
        self.inner.lock().out_of_order
    }

    pub(crate) fn samples(&self) -> BTreeMap<Labels, Samples> {
        self.inner.lock().tenants.get("").cloned().unwrap_or_default()
    }

    pub(crate) fn lose_one(&self) {
        self.change(|samples| assert!(samples.pop_first().is_some()));
    }

    pub(crate) fn flip_one_bit(&self) {
        self.change(|samples| *samples.first_entry().unwrap().get_mut() ^= 1);
    }

    pub(crate) fn invent_one(&self) {
        self.change(|samples| {
            let (t, bits) = samples.first_key_value().map(|(t, bits)| (*t, *bits)).unwrap();
            samples.insert(t + 1, bits);
        });
    }

    fn change(&self, change: impl FnOnce(&mut Samples)) {
        let mut inner = self.inner.lock();
        change(inner.tenants.get_mut("").unwrap().values_mut().nth(3).unwrap());
    }
}

fn tenant(headers: &HeaderMap) -> String {
    headers.get("x-scope-orgid").map_or(String::new(), |value| value.to_str().unwrap().to_owned())
}

async fn push(
    State(inner): State<Arc<Mutex<Inner>>>,
    headers: HeaderMap,
    body: Bytes,
) -> axum::response::Response {
    assert_eq!(headers["content-encoding"], "snappy");
    let (fault, request) = {
        let mut inner = inner.lock();
        inner.requests += 1;
        (inner.fault, inner.requests)
    };
    match fault {
        Fault::Always(status) => return StatusCode::from_u16(status).unwrap().into_response(),
        Fault::EveryThirdIs(status) if request.is_multiple_of(3) => {
            // Stored all the same: a failed request may have arrived.
            store(&mut inner.lock(), &tenant(&headers), &body);
            return StatusCode::from_u16(status).unwrap().into_response();
        }
        Fault::FirstIs(status, after) if request == 1 => {
            return (StatusCode::from_u16(status).unwrap(), [("retry-after", after)]).into_response();
        }
        Fault::AckAndDrop(number) if request == number => return StatusCode::OK.into_response(),
        Fault::StallOnce(delay) if request == 1 => tokio::time::sleep(delay).await,
        _ => {}
    }
    store(&mut inner.lock(), &tenant(&headers), &body);
    StatusCode::OK.into_response()
}

fn store(inner: &mut Inner, tenant: &str, body: &[u8]) {
    let message = snap::raw::Decoder::new().decompress_vec(body).unwrap();
    let request = cortexpb::WriteRequest::decode(message.as_slice()).unwrap();
    let Inner { out_of_order, tenants, .. } = inner;
    let all = tenants.entry(tenant.to_owned()).or_default();
    for series in request.timeseries {
        let series = cortexpb::TimeSeries::decode(series).unwrap();
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        let labels = series.labels.iter().map(|label| (text(&label.name), text(&label.value))).collect();
        let stored: &mut Samples = all.entry(labels).or_default();
        for sample in series.samples {
            let t = sample.timestamp_ms;
            if stored.last_key_value().is_some_and(|(last, _)| t < *last) {
                *out_of_order += 1;
            }
            stored.insert(t, sample.value.to_bits());
        }
    }
}

async fn read(
    State(inner): State<Arc<Mutex<Inner>>>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Vec<u8>, StatusCode> {
    let mut inner = inner.lock();
    if inner.failing_reads > 0 {
        inner.failing_reads -= 1;
        return Err(StatusCode::INTERNAL_SERVER_ERROR);
    }
    let message = snap::raw::Decoder::new().decompress_vec(&body).unwrap();
    let request = remote::ReadRequest::decode(message.as_slice()).unwrap();
    let query = &request.queries[0];
    let matches = |labels: &Labels| {
        query.matchers.iter().all(|m| labels.iter().any(|(name, value)| *name == m.name && *value == m.value))
    };
    let stored = inner.tenants.get(&tenant(&headers));
    let series =
        stored.into_iter().flatten().filter(|(labels, _)| matches(labels)).map(|(labels, samples)| {
            let label =
                |(name, value): &(String, String)| remote::Label { name: name.clone(), value: value.clone() };
            let inside = samples.range(query.start_timestamp_ms..=query.end_timestamp_ms);
            remote::TimeSeries {
                labels: labels.iter().map(label).collect(),
                samples: inside
                    .map(|(t, bits)| remote::Sample { value: f64::from_bits(*bits), timestamp: *t })
                    .collect(),
            }
        });
    let result = remote::QueryResult { timeseries: series.collect() };
    let response = remote::ReadResponse { results: vec![result] }.encode_to_vec();
    Ok(snap::raw::Encoder::new().compress_vec(&response).unwrap())
}
