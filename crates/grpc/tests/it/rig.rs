//! A server with an ingester that does as the request's matchers say, and ways to call it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::{Buf, Bytes};
use futures::{StreamExt as _, stream};
use http::{HeaderMap, Request};
use http_body_util::{BodyExt as _, Full};
use ringkit_grpc::{HttpCodeLayer, PeerChannel, PoolOptions, SnappyLayer, health_server, http_status, peer};
use ringkit_proto::client::ingester_client::IngesterClient;
use ringkit_proto::client::ingester_server::{Ingester, IngesterServer};
use ringkit_proto::client::{
    LabelNamesRequest, LabelNamesResponse, QueryRequest, QueryStreamResponse, TimeSeriesChunk,
};
use ringkit_proto::cortexpb::{WriteRequest, WriteResponse};
use ringkit_runtime::CancellationToken;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::body::Body;
use tonic::codegen::BoxStream;
use tonic::transport::{Channel, Endpoint, Server};
use tonic::{Response, Status};
use tower::ServiceExt as _;

pub(crate) const LIMIT: usize = 1 << 20;

/// Does as the fields of a request say.
struct Scripted {
    /// Opened by [`Rig::release`].
    gate: CancellationToken,
}

#[tonic::async_trait]
impl Ingester for Scripted {
    /// Answers with the number of bytes received.
    async fn push(&self, request: tonic::Request<WriteRequest>) -> Result<Response<WriteResponse>, Status> {
        let bytes = request.get_ref().timeseries.iter().map(Bytes::len).sum::<usize>();
        Ok(Response::new(WriteResponse { samples: i64::try_from(bytes).unwrap(), ..Default::default() }))
    }

    /// Fails at once with the HTTP code `limit`, or answers with a long list.
    async fn label_names(
        &self,
        request: tonic::Request<LabelNamesRequest>,
    ) -> Result<Response<LabelNamesResponse>, Status> {
        match u16::try_from(request.get_ref().limit).unwrap() {
            0 => Ok(Response::new(LabelNamesResponse { label_names: vec!["a".repeat(1000); 100] })),
            code => Err(http_status(code, format!("code {code}: schlüssig"))),
        }
    }

    /// Answers with one series of as many bytes as the end time, then fails with the HTTP code in the start time, if
    /// any. With a matcher, what follows the series waits for the gate.
    async fn query_stream(
        &self,
        request: tonic::Request<QueryRequest>,
    ) -> Result<Response<BoxStream<QueryStreamResponse>>, Status> {
        let request = request.into_inner();
        let user_id = "u".repeat(usize::try_from(request.end_timestamp_ms).unwrap());
        let series = TimeSeriesChunk { user_id, ..Default::default() };
        let mut items = vec![Ok(QueryStreamResponse { chunkseries: vec![series] })];
        if let Some(code) = u16::try_from(request.start_timestamp_ms).ok().filter(|code| *code > 0) {
            items.push(Err(http_status(code, "later")));
        }
        let gate = (!request.matchers.is_empty()).then(|| self.gate.clone());
        let rest = items.split_off(1);
        let rest = stream::once(async move {
            if let Some(gate) = gate {
                gate.cancelled().await;
            }
            stream::iter(rest)
        });
        Ok(Response::new(Box::pin(stream::iter(items).chain(rest.flatten()))))
    }
}

/// A server that ends when dropped.
pub(crate) struct Rig {
    pub(crate) address: SocketAddr,
    pub(crate) healthy: Arc<AtomicBool>,
    gate: CancellationToken,
    stop: CancellationToken,
    tasks: JoinSet<()>,
}

impl Rig {
    pub(crate) async fn start() -> Self {
        Self::start_at("127.0.0.1:0".parse().unwrap()).await
    }

    pub(crate) async fn start_at(address: SocketAddr) -> Self {
        let listener = TcpListener::bind(address).await.unwrap();
        let address = listener.local_addr().unwrap();
        let healthy = Arc::new(AtomicBool::new(true));
        let (gate, stop) = (CancellationToken::new(), CancellationToken::new());
        let told = Arc::clone(&healthy);
        let ingester = Scripted { gate: gate.clone() };
        let server = Server::builder()
            .layer(SnappyLayer::server(LIMIT))
            .layer(HttpCodeLayer)
            .add_service(health_server(move || told.load(Ordering::SeqCst)))
            .add_service(IngesterServer::new(ingester).max_decoding_message_size(LIMIT))
            .serve_with_incoming_shutdown(TcpListenerStream::new(listener), stop.clone().cancelled_owned());
        let mut tasks = JoinSet::new();
        tasks.spawn(async move { server.await.unwrap() });
        Self { address, healthy, gate, stop, tasks }
    }

    /// Closes the port and tells connected clients to go away; calls under way may end.
    pub(crate) fn begin_stop(&self) {
        self.stop.cancel();
    }

    /// Lets streams go on that wait.
    pub(crate) fn release(&self) {
        self.gate.cancel();
    }

    /// Ends the server and waits until all connections are closed.
    pub(crate) async fn stop(mut self) {
        self.begin_stop();
        while self.tasks.join_next().await.is_some() {}
    }

    pub(crate) fn client(&self, options: &PoolOptions) -> IngesterClient<PeerChannel> {
        IngesterClient::new(peer(&self.address.to_string(), options).unwrap())
    }

    fn raw_channel(&self) -> Channel {
        Endpoint::from_shared(format!("http://{}", self.address)).unwrap().connect_lazy()
    }

    /// Calls `service/method` with these bytes as body, as a peer without our layers would.
    pub(crate) async fn raw(&self, method: &str, headers: &[(&str, &str)], body: Vec<u8>) -> Answer {
        let uri = format!("http://{}/{method}", self.address);
        let mut request =
            Request::post(uri).header("content-type", "application/grpc").header("te", "trailers");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Body::new(Full::new(Bytes::from(body)))).unwrap();
        let response = self.raw_channel().oneshot(request).await.unwrap();
        let headers = response.headers().clone();
        let body = response.into_body().collect().await.unwrap();
        Answer { headers, trailers: body.trailers().cloned(), body: body.to_bytes() }
    }
}

/// An answer as it was on the wire.
pub(crate) struct Answer {
    pub(crate) headers: HeaderMap,
    pub(crate) trailers: Option<HeaderMap>,
    pub(crate) body: Bytes,
}

impl Answer {
    /// Flag and payload of each message.
    pub(crate) fn messages(&self) -> Vec<(u8, Bytes)> {
        let mut rest = self.body.clone();
        let mut messages = Vec::new();
        while rest.has_remaining() {
            let (flag, len) = (rest.get_u8(), rest.get_u32());
            messages.push((flag, rest.split_to(len as usize)));
        }
        messages
    }
}

pub(crate) fn framed(flag: u8, payload: &[u8]) -> Vec<u8> {
    let len = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&[flag], &len[..], payload].concat()
}

pub(crate) fn snappy(payload: &[u8]) -> Vec<u8> {
    snap::raw::Encoder::new().compress_vec(payload).unwrap()
}
