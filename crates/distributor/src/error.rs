//! Why a request was not served, as the client hears it.

use std::time::Duration;

use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode, header};

/// A refused request: an HTTP status and one line of text.
///
/// 4xx means that repeating the request cannot help; 5xx and 429 mean that it may.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub(crate) struct Refusal {
    status: u16,
    message: String,
    retry_after: Option<Duration>,
}

impl Refusal {
    /// A refusal with this status and text. A status that is no HTTP error becomes 500.
    pub(crate) fn new(status: u16, message: impl Into<String>) -> Self {
        let status = if (400..600).contains(&status) { status } else { 500 };
        Self { status, message: message.into(), retry_after: None }
    }

    /// 429, with the time after which the same request would pass.
    pub(crate) fn too_fast(message: String, retry_after: Duration) -> Self {
        Self { retry_after: Some(retry_after), ..Self::new(429, message) }
    }

    /// The HTTP status, 400 to 599.
    pub(crate) fn status(&self) -> u16 {
        self.status
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut response = (status, format!("{}\n", self.message)).into_response();
        let headers = response.headers_mut();
        // The text holds parts of the request: no browser shall take it for a page.
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
        headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        if let Some(after) = self.retry_after {
            let seconds = after.as_secs() + u64::from(after.subsec_nanos() > 0);
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds.max(1)));
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retry_after_is_in_whole_seconds_and_never_early() {
        for (after, seconds) in [(0, "1"), (1, "1"), (1000, "1"), (1001, "2")] {
            let response = Refusal::too_fast("slow".into(), Duration::from_millis(after)).into_response();
            assert_eq!(response.status(), 429);
            assert_eq!(response.headers()[header::RETRY_AFTER], seconds);
        }
    }

    #[test]
    fn only_error_statuses_get_out() {
        for (given, status) in [(200, 500), (400, 400), (503, 503), (600, 500), (0, 500)] {
            assert_eq!(Refusal::new(given, "").status(), status);
        }
    }
}
