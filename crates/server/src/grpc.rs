//! The gRPC side: one router out of everybody's services, health, deadlines, and HTTP/2 with its limits.

use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::{HeaderMap, Request, Response};
use futures::future::BoxFuture;
use hyper::server::conn::http2;
use hyper_util::rt::TokioTimer;
use ringkit_config::ServerConfig;
use ringkit_grpc::{HttpCodeLayer, SnappyLayer};
use ringkit_runtime::{CancellationToken, Meter};
use tonic::service::RoutesBuilder;
use tonic::{Code, Status};
use tower::{Layer, Service, ServiceBuilder};

use crate::measure::MeasureGrpc;
use crate::ready::Ready;
use crate::serve::{Protocol, Streams};

/// Puts the services together with the health service, measured, held to the callers' deadlines, and fit for Go peers.
pub(crate) fn router(
    mut services: RoutesBuilder,
    ready: Ready,
    config: &ServerConfig,
    meter: &Meter,
) -> Router {
    services.add_service(ringkit_grpc::health_server(move || ready.is_serving()));
    let layers = ServiceBuilder::new()
        .layer(MeasureGrpc::new(meter))
        .layer(DeadlineLayer)
        .layer(HttpCodeLayer)
        .layer(SnappyLayer::server(config.grpc_server_max_recv_msg_size));
    services.routes().prepare().into_axum_router().layer(layers)
}

/// HTTP/2 as the configuration wants it.
pub(crate) fn protocol(config: &ServerConfig) -> Protocol {
    let streams = CancellationToken::new();
    let mut builder = http2::Builder::new(Streams(streams.clone()));
    let at_once = config.grpc_server_max_concurrent_streams;
    builder
        .timer(TokioTimer::new())
        .max_concurrent_streams((at_once > 0).then_some(at_once))
        .keep_alive_interval(
            (!config.grpc_server_keepalive_time.is_zero()).then_some(config.grpc_server_keepalive_time),
        )
        .keep_alive_timeout(config.grpc_server_keepalive_timeout)
        // The windows follow the link: bulk pushes between zones are not held to one fixed window per round trip.
        .adaptive_window(true);
    Protocol::Http2 { builder, streams }
}

/// Drops a call's handler when the caller's `grpc-timeout` has passed.
#[derive(Clone)]
struct DeadlineLayer;

impl<S> Layer<S> for DeadlineLayer {
    type Service = Deadline<S>;

    fn layer(&self, inner: S) -> Self::Service {
        Deadline(inner)
    }
}

#[derive(Clone)]
struct Deadline<S>(S);

impl<S> Service<Request<Body>> for Deadline<S>
where
    S: Service<Request<Body>, Response = Response<tonic::body::Body>, Future: Send + 'static>,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = BoxFuture<'static, Result<Self::Response, S::Error>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let timeout = grpc_timeout(request.headers());
        let answer = self.0.call(request);
        match timeout {
            None => Box::pin(answer),
            Some(timeout) => {
                Box::pin(async move {
                    match tokio::time::timeout(timeout, answer).await {
                        Ok(answer) => answer,
                        Err(_) => Ok(Status::new(Code::DeadlineExceeded, "the caller's deadline has passed")
                            .into_http()),
                    }
                })
            }
        }
    }
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
}
