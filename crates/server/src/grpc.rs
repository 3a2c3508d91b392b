//! The gRPC side: one router out of everybody's services, with health, deadlines, and what Go peers need.

use std::any::Any;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::Router;
use axum::http::{HeaderMap, Request, Response};
use futures::FutureExt as _;
use futures::future::CatchUnwind;
use metrics::Counter;
use pin_project_lite::pin_project;
use ringkit_config::ServerConfig;
use ringkit_grpc::{HttpCodeLayer, SnappyLayer};
use ringkit_runtime::Meter;
use tokio::time::Sleep;
use tonic::Status;
use tonic::body::Body;
use tonic::service::RoutesBuilder;
use tower::{Layer, Service, ServiceBuilder};

use crate::http::{panic_words, panics};
use crate::measure::MeasureGrpc;
use crate::ready::Ready;

/// Puts the services together with the health service: measured, held to the callers' deadlines, safe from panics in
/// handlers, and fit for Go peers.
pub(crate) fn router(
    mut services: RoutesBuilder,
    ready: Ready,
    config: &ServerConfig,
    meter: &Meter,
) -> Router {
    services.add_service(ringkit_grpc::health_server(move || ready.is_serving()));
    let layers = ServiceBuilder::new()
        .layer(MeasureGrpc::new(meter))
        .layer(GuardLayer { panics: panics(meter) })
        .layer(HttpCodeLayer)
        .layer(SnappyLayer::server(config.grpc_server_max_recv_msg_size));
    services.routes().prepare().into_axum_router().layer(layers)
}

/// Ends a call when the caller's `grpc-timeout` has passed, and answers for a handler that panicked.
#[derive(Clone)]
struct GuardLayer {
    panics: Counter,
}

impl<S> Layer<S> for GuardLayer {
    type Service = Guarded<S>;

    fn layer(&self, inner: S) -> Self::Service {
        Guarded { inner, panics: self.panics.clone() }
    }
}

#[derive(Clone)]
struct Guarded<S> {
    inner: S,
    panics: Counter,
}

impl<S, R> Service<Request<R>> for Guarded<S>
where
    S: Service<Request<R>, Response = Response<Body>>,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = GuardedFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<R>) -> Self::Future {
        let deadline = grpc_timeout(request.headers()).map(tokio::time::sleep);
        let answer = AssertUnwindSafe(self.inner.call(request)).catch_unwind();
        GuardedFuture { answer, deadline, panics: self.panics.clone() }
    }
}

pin_project! {
    struct GuardedFuture<F> {
        #[pin]
        answer: CatchUnwind<AssertUnwindSafe<F>>,
        #[pin]
        deadline: Option<Sleep>,
        panics: Counter,
    }
}

impl<F, E> Future for GuardedFuture<F>
where
    F: Future<Output = Result<Response<Body>, E>>,
{
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        if let Poll::Ready(answer) = this.answer.poll(cx) {
            return Poll::Ready(answer.unwrap_or_else(|payload| Ok(panicked(this.panics, payload.as_ref()))));
        }
        let Some(deadline) = this.deadline.as_pin_mut() else { return Poll::Pending };
        ready!(deadline.poll(cx));
        Poll::Ready(Ok(Status::deadline_exceeded("the caller's deadline has passed").into_http()))
    }
}

fn panicked(panics: &Counter, payload: &(dyn Any + Send)) -> Response<Body> {
    panics.increment(1);
    tracing::error!(panic = panic_words(payload), "a call's handler panicked");
    Status::internal("internal error: the call's handler panicked").into_http()
}

/// The `grpc-timeout` header: up to eight digits and a unit. Anything else counts as no timeout.
fn grpc_timeout(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get("grpc-timeout")?.to_str().ok()?;
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if digits.is_empty() || digits.len() > 8 || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let amount = digits.parse::<u64>().ok()?;
    Some(match unit {
        "H" => Duration::from_secs(amount * 3600),
        "M" => Duration::from_secs(amount * 60),
        "S" => Duration::from_secs(amount),
        "m" => Duration::from_millis(amount),
        "u" => Duration::from_micros(amount),
        "n" => Duration::from_nanos(amount),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use tonic::Code;

    use super::*;

    #[test]
    fn a_deadline_is_digits_and_a_unit_and_everything_else_is_none() {
        let of = |text: &str| {
            grpc_timeout(&HeaderMap::from_iter([("grpc-timeout".parse().unwrap(), text.parse().unwrap())]))
        };
        assert_eq!(of("100m"), Some(Duration::from_millis(100)));
        assert_eq!(of("99999999H"), Some(Duration::from_secs(99_999_999 * 3600)));
        assert_eq!(of("2S"), Some(Duration::from_secs(2)));
        for bad in ["", "m", "1", "-1S", "123456789S", "1x", "1 S"] {
            assert_eq!(of(bad), None, "{bad:?}");
        }
    }

    /// The status that a guarded handler answers with.
    async fn guarded<F>(timeout: &str, handler: fn() -> F) -> Code
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let inner = tower::service_fn(move |_: Request<()>| async move {
            handler().await;
            Ok::<_, Infallible>(Status::ok("").into_http())
        });
        let mut service = GuardLayer { panics: Counter::noop() }.layer(inner);
        let request = Request::builder().header("grpc-timeout", timeout).body(()).unwrap();
        let answer = service.call(request).await.unwrap();
        Status::from_header_map(answer.headers()).unwrap().code()
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_ends_with_its_callers_deadline() {
        async fn slow() {
            tokio::time::sleep(Duration::from_secs(2)).await;
        }
        assert_eq!(guarded("3S", slow).await, Code::Ok);
        assert_eq!(guarded("1S", slow).await, Code::DeadlineExceeded);
    }

    #[tokio::test]
    async fn a_panic_is_an_internal_error() {
        async fn broken() {
            panic!("oh");
        }
        assert_eq!(guarded("1S", broken).await, Code::Internal);
    }
}
