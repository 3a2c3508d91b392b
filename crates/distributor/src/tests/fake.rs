//! An ingester for tests: keeps what it is sent, and fails as told.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::{StreamExt as _, TryStreamExt as _, stream};
use http_body_util::{BodyExt as _, StreamBody};
use parking_lot::Mutex;
use ringkit_grpc::{HttpCodeLayer, SnappyLayer, http_status};
use ringkit_proto::client::ingester_server::{Ingester, IngesterServer};
use ringkit_proto::client::{self, Chunk, QueryRequest, QueryStreamResponse, TimeSeriesChunk};
use ringkit_proto::cortexpb::{LabelPair, Metric, WriteRequest, WriteResponse};
use ringkit_proto::walk::SeriesView;
use ringkit_tsdb::XorChunk;
use tokio::runtime::Runtime;
use tonic::codegen::BoxStream;
use tonic::{Request, Response, Status};
use tower::ServiceBuilder;

/// What a fake ingester does with the calls it gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Behaviour {
    Ack,
    /// Answers with this HTTP code and stores nothing.
    Fail(u16),
    /// Stores nothing and never answers.
    Hang,
    /// Answers queries with data and then stops, without a status.
    CutOff,
    /// Answers after a while.
    Slow(Duration),
}

type Labels = Vec<(Bytes, Bytes)>;
type Stored = BTreeMap<Labels, BTreeMap<i64, f64>>;

#[derive(Clone)]
struct Shared {
    behaviour: Arc<Mutex<Behaviour>>,
    stored: Arc<Mutex<BTreeMap<String, Stored>>>,
}

/// A running fake. It lives on a runtime of its own, so that it can be killed as a process is.
pub(crate) struct Fake {
    pub(crate) addr: SocketAddr,
    shared: Shared,
    runtime: Option<Runtime>,
}

impl Fake {
    pub(crate) fn start() -> Self {
        let shared = Shared { behaviour: Arc::new(Mutex::new(Behaviour::Ack)), stored: Arc::default() };
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let addr = listener.local_addr().unwrap();
        let service = shared.clone();
        let behaviour = Arc::clone(&shared.behaviour);
        runtime.spawn(async move {
            let cut = move |response: http::Response<tonic::body::Body>| {
                if *behaviour.lock() == Behaviour::CutOff { without_trailers(response) } else { response }
            };
            let layers = ServiceBuilder::new()
                .map_response(cut)
                .layer(HttpCodeLayer)
                .layer(SnappyLayer::server(100 << 20))
                .into_inner();
            let listener = tokio::net::TcpListener::from_std(listener).unwrap();
            tonic::transport::Server::builder()
                .layer(layers)
                .add_service(IngesterServer::new(service))
                .serve_with_incoming(tokio_stream::wrappers::TcpListenerStream::new(listener))
                .await
                .unwrap();
        });
        Self { addr, shared, runtime: Some(runtime) }
    }

    pub(crate) fn set(&self, behaviour: Behaviour) {
        *self.shared.behaviour.lock() = behaviour;
    }

    /// As SIGKILL does: nothing is said, connections break, nobody listens.
    pub(crate) fn kill(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }

    /// Loses all data.
    pub(crate) fn wipe(&self) {
        self.shared.stored.lock().clear();
    }

    /// How many samples of a tenant it has.
    pub(crate) fn num_samples(&self, tenant: &str) -> usize {
        self.shared.stored.lock().get(tenant).map_or(0, |series| series.values().map(BTreeMap::len).sum())
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        self.kill();
    }
}

/// What a peer looks like whose last words were lost: data, and the end of the body.
fn without_trailers(response: http::Response<tonic::body::Body>) -> http::Response<tonic::body::Body> {
    response.map(|body| {
        let data = body.into_data_stream().map_ok(http_body::Frame::data);
        tonic::body::Body::new(StreamBody::new(data))
    })
}

impl Shared {
    /// Waits or fails as told; tells the tenant.
    async fn enter<T>(&self, request: &Request<T>) -> Result<String, Status> {
        let tenant = request.metadata().get("x-scope-orgid").and_then(|id| id.to_str().ok());
        let tenant = tenant.ok_or_else(|| http_status(401, "no org id"))?.to_owned();
        let behaviour = *self.behaviour.lock();
        match behaviour {
            Behaviour::Ack | Behaviour::CutOff => Ok(tenant),
            Behaviour::Fail(code) => Err(http_status(code, format!("told to fail with {code}"))),
            Behaviour::Hang => std::future::pending().await,
            Behaviour::Slow(delay) => {
                tokio::time::sleep(delay).await;
                Ok(tenant)
            }
        }
    }

    fn stored(&self, tenant: &str) -> Stored {
        self.stored.lock().get(tenant).cloned().unwrap_or_default()
    }
}

#[tonic::async_trait]
impl Ingester for Shared {
    async fn push(&self, request: Request<WriteRequest>) -> Result<Response<WriteResponse>, Status> {
        let tenant = self.enter(&request).await?;
        let mut stored = self.stored.lock();
        let series = stored.entry(tenant).or_default();
        for bytes in request.into_inner().timeseries {
            let view = SeriesView::parse(&bytes).map_err(|error| http_status(400, error.to_string()))?;
            let labels = view.labels().map(|(n, v)| (Bytes::copy_from_slice(n), Bytes::copy_from_slice(v)));
            series.entry(labels.collect()).or_default().extend(view.samples());
        }
        Ok(Response::new(WriteResponse::default()))
    }

    async fn query_stream(
        &self,
        request: Request<QueryRequest>,
    ) -> Result<Response<BoxStream<QueryStreamResponse>>, Status> {
        let tenant = self.enter(&request).await?;
        let query = request.into_inner();
        let range = query.start_timestamp_ms..=query.end_timestamp_ms;
        let messages: Vec<_> = self
            .stored(&tenant)
            .into_iter()
            .map(|(labels, samples)| {
                let mut chunk = XorChunk::new();
                for (timestamp, value) in samples.range(range.clone()) {
                    chunk.append(*timestamp, *value).unwrap();
                }
                let chunk = Chunk { encoding: 4, data: chunk.into_bytes(), ..Chunk::default() };
                let labels = labels.into_iter().map(|(name, value)| LabelPair { name, value }).collect();
                let series = TimeSeriesChunk { labels, chunks: vec![chunk], ..TimeSeriesChunk::default() };
                Ok(QueryStreamResponse { chunkseries: vec![series] })
            })
            .collect();
        Ok(Response::new(stream::iter(messages).boxed()))
    }

    async fn label_names(
        &self,
        request: Request<client::LabelNamesRequest>,
    ) -> Result<Response<client::LabelNamesResponse>, Status> {
        let tenant = self.enter(&request).await?;
        let labels = self.stored(&tenant).into_keys().flatten();
        let mut label_names: Vec<_> =
            labels.map(|(name, _)| String::from_utf8_lossy(&name).into_owned()).collect();
        label_names.sort_unstable();
        label_names.dedup();
        Ok(Response::new(client::LabelNamesResponse { label_names }))
    }

    async fn label_values(
        &self,
        request: Request<client::LabelValuesRequest>,
    ) -> Result<Response<client::LabelValuesResponse>, Status> {
        let tenant = self.enter(&request).await?;
        let wanted = request.into_inner().label_name;
        let labels = self.stored(&tenant).into_keys().flatten().filter(|(name, _)| name == &wanted);
        let mut label_values: Vec<_> =
            labels.map(|(_, value)| String::from_utf8_lossy(&value).into_owned()).collect();
        label_values.sort_unstable();
        label_values.dedup();
        Ok(Response::new(client::LabelValuesResponse { label_values }))
    }

    async fn metrics_for_label_matchers(
        &self,
        request: Request<client::MetricsForLabelMatchersRequest>,
    ) -> Result<Response<client::MetricsForLabelMatchersResponse>, Status> {
        let tenant = self.enter(&request).await?;
        let convert = |labels: Labels| Metric {
            labels: labels.into_iter().map(|(name, value)| LabelPair { name, value }).collect(),
        };
        let metric = self.stored(&tenant).into_keys().map(convert).collect();
        Ok(Response::new(client::MetricsForLabelMatchersResponse { metric }))
    }

    async fn user_stats(
        &self,
        request: Request<client::UserStatsRequest>,
    ) -> Result<Response<client::UserStatsResponse>, Status> {
        let tenant = self.enter(&request).await?;
        let num_series = self.stored(&tenant).len() as u64;
        Ok(Response::new(client::UserStatsResponse { num_series, ..client::UserStatsResponse::default() }))
    }

    async fn all_user_stats(
        &self,
        request: Request<client::UserStatsRequest>,
    ) -> Result<Response<client::UsersStatsResponse>, Status> {
        self.enter(&request).await?;
        let one = |(user_id, series): (&String, &Stored)| client::UserIdStatsResponse {
            user_id: user_id.clone(),
            data: Some(client::UserStatsResponse {
                num_series: series.len() as u64,
                ..client::UserStatsResponse::default()
            }),
        };
        let stats = self.stored.lock().iter().map(one).collect();
        Ok(Response::new(client::UsersStatsResponse { stats }))
    }
}
