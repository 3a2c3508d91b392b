//! HTTP requests: measured per route of the router, and logged.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::body::Body;
use axum::extract::MatchedPath;
use axum::http::{Method, Request, Response, header};
use http_body::Body as _;
use pin_project_lite::pin_project;
use ringkit_runtime::Meter;
use tower::{Layer, Service};
use tracing::Level;

use super::{Route, UnderWay};

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
const METHODS: [&str; 8] = ["GET", "POST", "HEAD", "PUT", "DELETE", "OPTIONS", "PATCH", "other"];
const OTHER: usize = 7;

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

#[expect(clippy::cast_precision_loss, reason = "sizes of bodies lie far below 2⁵³")]
fn as_f64(bytes: u64) -> f64 {
    bytes as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_route_is_labelled_by_the_words_of_its_path() {
        let labels =
            ["/", "/metrics", "/api/v1/push", "/Toy/{id}", "/ingester/all_user_stats"].map(route_label);
        assert_eq!(labels, ["root", "metrics", "api_v1_push", "toy_id", "ingester_all_user_stats"]);
    }

    #[test]
    fn methods_are_a_closed_set() {
        let of = |name: &str| METHODS[method_index(&Method::from_bytes(name.as_bytes()).unwrap())];
        assert_eq!([of("GET"), of("PATCH"), of("BREW")], ["GET", "PATCH", "other"]);
    }
}
