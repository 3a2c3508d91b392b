//! `/services`: the state of every service.

use std::fmt::Write as _;

use axum::http::HeaderMap;
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use axum::{Json, Router};
use ringkit_runtime::{Clock, ServiceState};
use serde::Serialize;

use super::time::rfc3339;
use super::{Escaped, page, wants_json};
use crate::ready::Ready;

pub(crate) fn routes(ready: &Ready) -> Router {
    let ready = ready.clone();
    Router::new().route("/services", get(async move |headers: HeaderMap| answer(&ready, &headers)))
}

#[derive(Serialize)]
struct Services<'a> {
    now: String,
    services: Vec<ServiceStatus<'a>>,
}

#[derive(Serialize)]
struct ServiceStatus<'a> {
    name: &'a str,
    status: String,
}

fn answer(ready: &Ready, headers: &HeaderMap) -> Response {
    let now = rfc3339(Clock::system().now());
    if wants_json(headers) {
        let services = ready.services();
        let services =
            services.map(|(name, state)| ServiceStatus { name, status: state.to_string() }).collect();
        return Json(Services { now, services }).into_response();
    }
    let mut body = format!("<p>Current time: {now}</p>\n<div class=\"scroll\"><table>\n");
    body.push_str("<thead><tr><th>Service</th><th>Status</th></tr></thead>\n<tbody>\n");
    for (name, state) in ready.services() {
        // Writing to a string cannot fail.
        let (name, class) = (Escaped(name), class(state));
        let _ = writeln!(body, "<tr><td>{name}</td><td class=\"{class}\">{state}</td></tr>");
    }
    body.push_str("</tbody>\n</table></div>\n");
    page("Services", &body)
}

fn class(state: ServiceState) -> &'static str {
    match state {
        ServiceState::Running => "good",
        ServiceState::New | ServiceState::Starting | ServiceState::Stopping => "busy",
        ServiceState::Terminated => "idle",
        ServiceState::Failed => "bad",
    }
}
