//! Request metrics in Cortex's names. Handles are kept per route and found without hashing on HTTP, and with one hash of
//! the method's name on gRPC.

use std::collections::HashMap;
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use axum::body::Body;
use axum::extract::MatchedPath;
use axum::http::{HeaderMap, Method, Request, Response, header};
use bytes::Bytes;
use http_body::{Body as _, Frame, SizeHint};
use metrics::{Gauge, Histogram, SharedString, Unit};
use pin_project_lite::pin_project;
use ringkit_runtime::Meter;
use tower::{Layer, Service};
use tracing::Level;

/// Measures the routes of an axum router: apply it with `Router::layer`, so that each route gets its own handles.
#[derive(Clone)]
pub(crate) struct MeasureHttp {
    meter: Meter,
    log_at_info: bool,
}

impl MeasureHttp {
    /// Measures, and logs each request at level info or else debug.
    pub(crate) fn new(meter: &Meter, log_at_info: bool) -> Self {
        Self { meter: meter.clone(), log_at_info }
    }
}

impl<S> Layer<S> for MeasureHttp {
    type Service = MeasuredHttp<S>;

    fn layer(&self, inner: S) -> Self::Service {
        let route = HttpRoute { meter: self.meter.clone(), route: OnceLock::new() };
        MeasuredHttp { inner, route: Arc::new(route), log_at_info: self.log_at_info }
    }
}

#[derive(Clone)]
pub(crate) struct MeasuredHttp<S> {
    inner: S,
    route: Arc<HttpRoute>,
    log_at_info: bool,
}

/// One route of a router. Its name is known from the first request.
struct HttpRoute {
    meter: Meter,
    route: OnceLock<[Route; METHODS.len()]>,
}

/// The method label is one of these: what else a client invents counts as `other`.
const METHODS: [&str; 9] = ["GET", "POST", "HEAD", "PUT", "DELETE", "OPTIONS", "PATCH", "other", "gRPC"];
const OTHER: usize = 7;
const GRPC: usize = 8;

fn method_index(method: &Method) -> usize {
    METHODS.iter().take(OTHER).position(|known| method == *known).unwrap_or(OTHER)
}

impl HttpRoute {
    fn of<B>(&self, request: &Request<B>) -> Option<&Route> {
        let routes = self.route.get_or_init(|| {
            let path = request.extensions().get::<MatchedPath>();
            let label = path.map_or_else(|| "other".to_owned(), |path| route_label(path.as_str()));
            METHODS.map(|method| Route::new(&self.meter, method, label.clone().into()))
        });
        routes.get(method_index(request.method()))
    }
}

/// Cortex's route label: a path template with everything but letters and digits turned into `_`.
///
/// # Source
///
/// weaveworks/common `middleware/path_rewrite.go` and `instrument.go`, `MakeLabelValue`.
fn route_label(path: &str) -> String {
    let words = path.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty());
    let label = words.map(str::to_ascii_lowercase).collect::<Vec<_>>().join("_");
    if label.is_empty() { "root".to_owned() } else { label }
}

impl<S, B> Service<Request<Body>> for MeasuredHttp<S>
where
    S: Service<Request<Body>, Response = Response<B>, Error = Infallible>,
    B: http_body::Body,
{
    type Response = Response<B>;
    type Error = Infallible;
    type Future = MeasuredHttpFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let ws = request.headers().get(header::UPGRADE).is_some();
        let under_way = self.route.of(&request).map(|route| {
            let started = route.start();
            if let Some(size) = request.body().size_hint().exact() {
                started.route.0.request_bytes.get().record(as_f64(size));
            }
            started
        });
        let log = Log::of(&request, self.log_at_info);
        MeasuredHttpFuture { inner: self.inner.call(request), under_way, ws, log }
    }
}

pin_project! {
    pub(crate) struct MeasuredHttpFuture<F> {
        #[pin]
        inner: F,
        under_way: Option<UnderWay>,
        ws: bool,
        log: Option<Log>,
    }
}

impl<F, B> Future for MeasuredHttpFuture<F>
where
    F: Future<Output = Result<Response<B>, Infallible>>,
    B: http_body::Body,
{
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let Ok(response) = ready!(this.inner.poll(cx));
        if let Some(under_way) = this.under_way.take() {
            if let Some(size) = response.body().size_hint().exact() {
                under_way.route.0.response_bytes.get().record(as_f64(size));
            }
            if let Some(log) = this.log.take() {
                log.write(response.status().as_u16(), under_way.started.elapsed());
            }
            under_way.finish(u32::from(response.status().as_u16()), *this.ws);
        }
        Poll::Ready(Ok(response))
    }
}

/// A line for the log, if somebody reads it.
struct Log {
    method: Method,
    path: String,
    at_info: bool,
}

impl Log {
    fn of<B>(request: &Request<B>, at_info: bool) -> Option<Self> {
        let wanted = if at_info { tracing::enabled!(Level::INFO) } else { tracing::enabled!(Level::DEBUG) };
        wanted.then(|| Self {
            method: request.method().clone(),
            // Without the query: it may hold what nobody should read.
            path: request.uri().path().to_owned(),
            at_info,
        })
    }

    fn write(self, status: u16, took: Duration) {
        let Self { method, path, at_info } = self;
        if at_info {
            tracing::info!(%method, path, status, ?took, "request");
        } else {
            tracing::debug!(%method, path, status, ?took, "request");
        }
    }
}

/// The handles of one method of one route. Cheap to clone.
#[derive(Clone)]
struct Route(Arc<RouteInner>);

struct RouteInner {
    meter: Meter,
    inflight: Lazy<Gauge>,
    request_bytes: Lazy<Histogram>,
    response_bytes: Lazy<Histogram>,
    /// A few entries, read without a lock and searched from the front.
    durations: ArcSwap<Vec<(u32, bool, Histogram)>>,
}

/// A handle that is registered at its first use, so that routes never asked for leave no series.
struct Lazy<T> {
    handle: OnceLock<T>,
    register: Box<dyn Fn() -> T + Send + Sync>,
}

impl<T> Lazy<T> {
    fn new(register: impl Fn() -> T + Send + Sync + 'static) -> Self {
        Self { handle: OnceLock::new(), register: Box::new(register) }
    }

    fn get(&self) -> &T {
        self.handle.get_or_init(&self.register)
    }
}

impl Route {
    fn new(meter: &Meter, method: &'static str, route: SharedString) -> Self {
        let meter = meter.with("method", method).with("route", route);
        let [a, b, c] = [meter.clone(), meter.clone(), meter.clone()];
        Self(Arc::new(RouteInner {
            inflight: Lazy::new(move || {
                a.gauge("cortex_inflight_requests", Unit::Count, "Current number of inflight requests.")
            }),
            request_bytes: Lazy::new(move || {
                let help = "Size (in bytes) of messages received in the request.";
                b.histogram("cortex_request_message_bytes", Unit::Bytes, help)
            }),
            response_bytes: Lazy::new(move || {
                let help = "Size (in bytes) of messages sent in response.";
                c.histogram("cortex_response_message_bytes", Unit::Bytes, help)
            }),
            durations: ArcSwap::default(),
            meter,
        }))
    }

    fn start(&self) -> UnderWay {
        self.0.inflight.get().increment(1.0);
        UnderWay { route: self.clone(), started: Instant::now() }
    }

    fn observe(&self, status: u32, ws: bool, seconds: f64) {
        let durations = self.0.durations.load();
        if let Some((.., known)) = durations.iter().find(|entry| (entry.0, entry.1) == (status, ws)) {
            return known.record(seconds);
        }
        let label: SharedString = match status {
            0 => "success".into(),
            1 => "cancel".into(),
            2..100 => "error".into(),
            code => code.to_string().into(),
        };
        let meter = self.0.meter.with("status_code", label).with("ws", if ws { "true" } else { "false" });
        let help = "Time (in seconds) spent serving HTTP requests.";
        let histogram = meter.histogram("cortex_request_duration_seconds", Unit::Seconds, help);
        histogram.record(seconds);
        self.0.durations.rcu(|known| {
            let mut known = Vec::clone(known);
            known.push((status, ws, histogram.clone()));
            known
        });
    }
}

/// A request under way; one that is dropped without an answer is only taken off the gauge.
struct UnderWay {
    route: Route,
    started: Instant,
}

impl UnderWay {
    fn finish(self, status: u32, ws: bool) {
        self.route.observe(status, ws, self.started.elapsed().as_secs_f64());
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.route.0.inflight.get().decrement(1.0);
    }
}

/// Measures gRPC calls, from the request's head to the last byte of the answer. Place it outside of what rewrites
/// `grpc-status`: codes above 16 become the status label as they are.
#[derive(Clone)]
pub(crate) struct MeasureGrpc(Arc<GrpcRoutes>);

struct GrpcRoutes {
    meter: Meter,
    by_method: ArcSwap<HashMap<String, Route>>,
}

/// More methods than any process has; what lies beyond is somebody guessing names.
const MAX_GRPC_METHODS: usize = 256;
const UNIMPLEMENTED: u32 = 12;

impl MeasureGrpc {
    pub(crate) fn new(meter: &Meter) -> Self {
        Self(Arc::new(GrpcRoutes { meter: meter.clone(), by_method: ArcSwap::default() }))
    }
}

impl GrpcRoutes {
    fn known(&self, method: &str) -> Option<Route> {
        self.by_method.load().get(method).cloned()
    }

    /// A method that exists, as its first answer shows.
    fn learn(&self, method: &str) -> Option<Route> {
        if self.by_method.load().len() >= MAX_GRPC_METHODS {
            return None;
        }
        let route = Route::new(&self.meter, METHODS[GRPC], method.to_owned().into());
        self.by_method.rcu(|known| {
            let mut known = HashMap::clone(known);
            known.entry(method.to_owned()).or_insert_with(|| route.clone());
            known
        });
        Some(route)
    }
}

impl<S> Layer<S> for MeasureGrpc {
    type Service = MeasuredGrpc<S>;

    fn layer(&self, inner: S) -> Self::Service {
        MeasuredGrpc { inner, routes: Arc::clone(&self.0) }
    }
}

#[derive(Clone)]
pub(crate) struct MeasuredGrpc<S> {
    inner: S,
    routes: Arc<GrpcRoutes>,
}

impl<S, B, R> Service<Request<R>> for MeasuredGrpc<S>
where
    S: Service<Request<R>, Response = Response<B>>,
{
    type Response = Response<MeasuredBody<B>>;
    type Error = S::Error;
    type Future = MeasuredGrpcFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<R>) -> Self::Future {
        let call = match self.routes.known(request.uri().path()) {
            Some(route) => Call::Known(route.start()),
            None => Call::New {
                routes: Arc::clone(&self.routes),
                method: request.uri().path().to_owned(),
                started: Instant::now(),
            },
        };
        MeasuredGrpcFuture { inner: self.inner.call(request), call: Some(call) }
    }
}

enum Call {
    Known(UnderWay),
    New { routes: Arc<GrpcRoutes>, method: String, started: Instant },
}

impl Call {
    fn finish(self, status: u32) {
        match self {
            Self::Known(under_way) => under_way.finish(status, false),
            Self::New { .. } if status == UNIMPLEMENTED => (),
            Self::New { routes, method, started } => {
                if let Some(route) = routes.learn(&method) {
                    route.observe(status, false, started.elapsed().as_secs_f64());
                }
            }
        }
    }
}

pin_project! {
    pub(crate) struct MeasuredGrpcFuture<F> {
        #[pin]
        inner: F,
        call: Option<Call>,
    }
}

impl<F, B, E> Future for MeasuredGrpcFuture<F>
where
    F: Future<Output = Result<Response<B>, E>>,
{
    type Output = Result<Response<MeasuredBody<B>>, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let response = ready!(this.inner.poll(cx))?;
        let mut call = this.call.take();
        // An answer without a body carries its status in the head.
        if let Some(status) = grpc_status(response.headers())
            && let Some(call) = call.take()
        {
            call.finish(status);
        }
        Poll::Ready(Ok(response.map(|inner| MeasuredBody { inner, call })))
    }
}

fn grpc_status(headers: &HeaderMap) -> Option<u32> {
    headers.get("grpc-status")?.to_str().ok()?.parse().ok()
}

pin_project! {
    /// A body that tells the end of a call: by its trailers, or by being dropped, which means that the caller left.
    pub(crate) struct MeasuredBody<B> {
        #[pin]
        inner: B,
        call: Option<Call>,
    }

    impl<B> PinnedDrop for MeasuredBody<B> {
        fn drop(this: Pin<&mut Self>) {
            const CANCELLED: u32 = 1;
            if let Some(call) = this.project().call.take() {
                call.finish(CANCELLED);
            }
        }
    }
}

impl<B: http_body::Body<Data = Bytes>> http_body::Body for MeasuredBody<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let this = self.project();
        let frame = ready!(this.inner.poll_frame(cx));
        const UNKNOWN: u32 = 2;
        let status = match &frame {
            Some(Ok(frame)) => frame.trailers_ref().map(|trailers| grpc_status(trailers).unwrap_or(UNKNOWN)),
            Some(Err(_)) => Some(UNKNOWN),
            None => Some(UNKNOWN),
        };
        if let Some(status) = status
            && let Some(call) = this.call.take()
        {
            call.finish(status);
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

#[expect(clippy::cast_precision_loss, reason = "sizes of bodies lie far below 2⁵³")]
fn as_f64(bytes: u64) -> f64 {
    bytes as f64
}
