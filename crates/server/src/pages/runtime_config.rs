//! `/runtime_config`: what the runtime configuration's files say now, or what of it differs from the main configuration.

use axum::Router;
use axum::extract::Query;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use ringkit_config::RuntimeConfig;
use ringkit_runtime::Live;
use serde::Deserialize;

use crate::status::{HttpError, text};

/// SHA-256 of the files in use, in hexadecimal: whoever changes them sees by it which processes have followed.
const HASH: HeaderName = HeaderName::from_static("x-ringkit-config-hash");
/// `multi_kv_config.generation` of the files in use.
const GENERATION: HeaderName = HeaderName::from_static("x-ringkit-config-generation");

/// Cortex's words.
const NO_FILE: &str = "runtime config file doesn't exist";

pub(crate) fn routes(live: Live<RuntimeConfig>) -> Router {
    Router::new()
        .route("/runtime_config", get(async move |Query(mode): Query<Mode>| answer(&live.get(), &mode)))
}

#[derive(Deserialize)]
struct Mode {
    #[serde(default)]
    mode: String,
}

fn answer(config: &RuntimeConfig, mode: &Mode) -> Response {
    const YAML: HeaderValue = HeaderValue::from_static("text/yaml; charset=utf-8");
    let yaml: fn(&RuntimeConfig) -> String = match mode.mode.as_str() {
        "" => RuntimeConfig::to_yaml,
        "diff" => RuntimeConfig::diff_yaml,
        _ => return HttpError::bad_request("unknown mode: the known mode is diff").into_response(),
    };
    let Some(sha256) = &config.sha256 else { return text(StatusCode::OK, NO_FILE) };
    let mut headers = HeaderMap::new();
    headers.insert(header::CONTENT_TYPE, YAML);
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(GENERATION, config.multi_kv_config.generation.into());
    // Hexadecimal digits always can be a header.
    if let Ok(sha256) = HeaderValue::from_str(sha256) {
        headers.insert(HASH, sha256);
    }
    (headers, yaml(config)).into_response()
}
