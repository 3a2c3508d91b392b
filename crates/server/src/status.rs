//! From errors to HTTP answers: one table, and plain text as Cortex writes it.

use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};

use crate::tenant::TenantError;

/// An error answer: a status and one line of plain text.
///
/// `?` in a handler turns the errors of the layers below into it:
///
/// | error | status |
/// |---|---|
/// | no tenant | 401 |
/// | bad tenant id | 400 |
/// | process stopping | 503 |
/// | key-value store | 503 if the same call may succeed later, else 500 |
/// | ring | 503: what is missing are instances |
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{status}: {message}")]
pub struct HttpError {
    /// The answer's status.
    pub status: StatusCode,
    /// The answer's text, without a line end.
    pub message: String,
}

impl HttpError {
    /// An answer with this status and text.
    pub fn new(status: StatusCode, message: impl Into<String>) -> Self {
        Self { status, message: message.into() }
    }

    /// 400.
    pub fn bad_request(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, message)
    }

    /// 500.
    pub fn internal(message: impl Into<String>) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, message)
    }

    /// 503.
    pub fn unavailable(message: impl Into<String>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, message)
    }
}

impl IntoResponse for HttpError {
    fn into_response(self) -> Response {
        text(self.status, self.message + "\n")
    }
}

impl From<TenantError> for HttpError {
    fn from(error: TenantError) -> Self {
        Self::new(error.status(), error.to_string())
    }
}

impl From<ringkit_runtime::Closed> for HttpError {
    fn from(error: ringkit_runtime::Closed) -> Self {
        Self::unavailable(error.to_string())
    }
}

impl From<ringkit_kv::Error> for HttpError {
    fn from(error: ringkit_kv::Error) -> Self {
        let status = if error.is_retryable() {
            StatusCode::SERVICE_UNAVAILABLE
        } else {
            StatusCode::INTERNAL_SERVER_ERROR
        };
        Self::new(status, error.to_string())
    }
}

impl From<ringkit_ring::Error> for HttpError {
    fn from(error: ringkit_ring::Error) -> Self {
        Self::unavailable(error.to_string())
    }
}

/// A plain-text answer that no browser takes for anything else.
pub fn text(status: StatusCode, body: impl Into<String>) -> Response {
    const HEADERS: [(HeaderName, HeaderValue); 2] = [
        (header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8")),
        (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
    ];
    (status, HEADERS, body.into()).into_response()
}
