//! `/multikv`: how rings stand that are kept in two stores, as this process sees them: who decides, what is missing where, and
//! what stands in the way of what the runtime configuration asks for. Tools also learn here who the process is.

mod html;
mod json;

use std::sync::Arc;

use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use axum::{Json, Router};
use ringkit_config::RuntimeConfig;
use ringkit_kv::Stores;
use ringkit_runtime::Live;

use self::json::{Identity, Status};
use super::wants_json;
use crate::process::Process;
use crate::status::text;

/// What the page is called.
pub(crate) const TITLE: &str = "Multi KV Status";

const UNUSED: &str = "This instance doesn't use multi KV.";

/// The page. `runs` tells which roles the process runs.
pub(crate) fn routes(process: &Process, runs: impl Fn(&str) -> bool) -> Router {
    let page = Page {
        stores: process.stores.clone(),
        live: process.live_config.clone(),
        identity: Identity::of(&process.config, runs),
    };
    page.routes()
}

/// What the page is made of.
struct Page {
    /// Asked for its multi stores each time: roles open them.
    stores: Stores,
    live: Live<RuntimeConfig>,
    identity: Identity,
}

impl Page {
    fn routes(self) -> Router {
        let page = Arc::new(self);
        Router::new().route("/multikv", get(async move |headers: HeaderMap| page.answer(&headers)))
    }

    fn answer(&self, headers: &HeaderMap) -> Response {
        // One address gives two things, and both are of the moment.
        const HEADERS: [(HeaderName, HeaderValue); 2] = [
            (header::VARY, HeaderValue::from_static("accept")),
            (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
        ];
        let config = self.live.get();
        let reports = self.stores.multis().iter().map(|multi| multi.report()).collect();
        let status = Status::of(&config, &self.identity, reports);
        let answer = if wants_json(headers) {
            // Also without such stores: a tool asks who the process is.
            Json(&status).into_response()
        } else if status.stores.is_empty() {
            text(StatusCode::OK, UNUSED)
        } else {
            html::page(&status)
        };
        (HEADERS, answer).into_response()
    }
}

#[cfg(test)]
mod tests;
