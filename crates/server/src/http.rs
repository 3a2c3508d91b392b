//! The HTTP side: one router out of everybody's routes, measured and guarded.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use axum::Router;
use axum::http::StatusCode;
use axum::response::Response;
use metrics::{Counter, Unit};
use ringkit_config::ServerConfig;
use ringkit_runtime::Meter;
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::timeout::RequestBodyTimeoutLayer;

use crate::error::Error;
use crate::measure::MeasureHttp;
use crate::status::{HttpError, text};

/// Puts the routers together, under the configured prefix, measured, and safe from panics in handlers.
pub(crate) fn router(
    routers: impl Iterator<Item = Router>,
    config: &ServerConfig,
    meter: &Meter,
) -> Result<Router, Error> {
    // axum reports routes that overlap by panicking.
    let merged = catch_unwind(AssertUnwindSafe(|| {
        let all = routers.fold(Router::new(), Router::merge);
        match config.http_path_prefix.trim_matches('/') {
            "" => all,
            prefix => Router::new().nest(&format!("/{prefix}"), all),
        }
    }));
    let merged = merged.map_err(|payload| Error::Routes { message: panic_words(payload.as_ref()) })?;
    let panics = panics(meter);
    let read_timeout = at_least_a_moment(config.http_server_read_timeout);
    Ok(merged
        .fallback(async || HttpError::new(StatusCode::NOT_FOUND, "404 page not found"))
        .layer(RequestBodyTimeoutLayer::new(read_timeout))
        .layer(CatchPanicLayer::custom(move |payload: Box<dyn Any + Send>| {
            panicked(&panics, payload.as_ref())
        }))
        .layer(MeasureHttp::new(meter, config.log_request_at_info_level_enabled)))
}

/// Counts panics of handlers, HTTP and gRPC.
pub(crate) fn panics(meter: &Meter) -> Counter {
    let help = "Requests whose handler panicked; each is a bug.";
    meter.counter("ringkit_request_panics_total", Unit::Count, help)
}

fn panicked(panics: &Counter, payload: &(dyn Any + Send)) -> Response {
    panics.increment(1);
    tracing::error!(panic = panic_words(payload), "a request's handler panicked");
    text(StatusCode::INTERNAL_SERVER_ERROR, "internal error: the request's handler panicked\n")
}

pub(crate) fn panic_words(payload: &(dyn Any + Send)) -> String {
    let words = payload.downcast_ref::<&str>().map(|words| (*words).to_owned());
    words.or_else(|| payload.downcast_ref().cloned()).unwrap_or_else(|| "without a message".to_owned())
}

/// A timeout of zero means none.
fn at_least_a_moment(timeout: Duration) -> Duration {
    const NONE: Duration = Duration::from_secs(365 * 24 * 3600);
    if timeout.is_zero() { NONE } else { timeout }
}
