//! `/config`: the effective configuration, what of it differs from the defaults, or the defaults.

use std::sync::Arc;

use axum::Router;
use axum::extract::Query;
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use ringkit_config::Config;
use serde::Deserialize;

use crate::status::HttpError;

pub(crate) fn routes(config: Arc<Config>) -> Router {
    Router::new().route("/config", get(async move |Query(mode): Query<Mode>| answer(&config, &mode)))
}

#[derive(Deserialize)]
struct Mode {
    #[serde(default)]
    mode: String,
}

/// Secrets are masked by the configuration itself.
fn answer(config: &Config, mode: &Mode) -> Response {
    const YAML: HeaderValue = HeaderValue::from_static("text/yaml; charset=utf-8");
    let yaml = match mode.mode.as_str() {
        "" => config.to_yaml(),
        "diff" => config.diff_yaml(),
        "defaults" => Config::defaults_yaml(),
        _ => {
            return HttpError::bad_request("unknown mode: known modes are diff and defaults").into_response();
        }
    };
    ([(header::CONTENT_TYPE, YAML)], yaml).into_response()
}
