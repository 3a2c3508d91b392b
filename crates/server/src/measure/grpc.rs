//! gRPC calls: measured per method, by the status behind the answer.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use arc_swap::ArcSwap;
use axum::http::{HeaderMap, Request, Response};
use bytes::Bytes;
use http_body::{Frame, SizeHint};
use pin_project_lite::pin_project;
use ringkit_runtime::Meter;
use tower::{Layer, Service};

use super::{Route, UnderWay};

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
        let route = Route::new(&self.meter, "gRPC", method.to_owned().into());
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
