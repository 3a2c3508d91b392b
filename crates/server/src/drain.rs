//! `/drain`: takes the process out of its rings, and tells how far that is.

use std::sync::Arc;

use axum::Router;
use axum::extract::{Form, FromRequest as _, Query, Request};
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};
use parking_lot::Mutex;
use ringkit_runtime::{Drainable, Stage};
use serde::{Deserialize, Serialize};

/// What of a process can be drained. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Drains(Arc<Mutex<Vec<Arc<dyn Drainable>>>>);

impl Drains {
    /// Adds one, once it is in service.
    pub fn add(&self, drain: impl Drainable + 'static) {
        self.0.lock().push(Arc::new(drain));
    }

    fn all(&self) -> Vec<Arc<dyn Drainable>> {
        self.0.lock().clone()
    }
}

#[derive(Serialize)]
struct Report {
    drains: Vec<Progress>,
}

#[derive(Serialize)]
struct Progress {
    instance: String,
    stage: String,
    state: String,
    forced: bool,
    missing: Vec<String>,
    /// `null` if it is not known.
    estimate_seconds: Option<u64>,
}

fn report(drains: &[Arc<dyn Drainable>]) -> Report {
    let progress = |drain: &Arc<dyn Drainable>| {
        let ringkit_runtime::Progress { instance, stage, state, forced, missing, estimate } =
            drain.progress();
        // Rounded up: what is left is never told as nothing.
        let estimate_seconds =
            estimate.map(|left| left.as_secs().saturating_add(u64::from(left.subsec_nanos() > 0)));
        Progress { instance, stage: stage.to_string(), state, forced, missing, estimate_seconds }
    };
    Report { drains: drains.iter().map(progress).collect() }
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Asked {
    force: bool,
}

/// What can be looked at.
pub(crate) fn routes(drains: Drains) -> Router {
    Router::new().route("/drain", get(async move || axum::Json(report(&drains.all()))))
}

/// What changes something.
pub(crate) fn admin_routes(drains: Drains) -> Router {
    Router::new().route("/drain", post(async move |request: Request| begin(&drains, request).await))
}

async fn begin(drains: &Drains, request: Request) -> Response {
    // The field may be in the query or in the body.
    let query = match Query::<Asked>::try_from_uri(request.uri()) {
        Ok(query) => query.0,
        Err(wrong) => return (StatusCode::BAD_REQUEST, format!("force: {wrong}\n")).into_response(),
    };
    let form = Form::<Asked>::from_request(request, &()).await.map(|form| form.0).unwrap_or_default();
    let force = query.force || form.force;
    let drains = drains.all();
    if drains.is_empty() {
        let text = "no instance of this process is in a ring yet: there is nothing to drain\n";
        return (StatusCode::SERVICE_UNAVAILABLE, text).into_response();
    }
    // All or none: a process that is half drained serves nobody.
    let not_begun = |drain: &&Arc<dyn Drainable>| drain.progress().stage == Stage::None;
    let refusals: Vec<String> =
        drains.iter().filter(not_begun).filter_map(|drain| drain.may_begin().err()).collect();
    if !force && !refusals.is_empty() {
        let text = format!("{}; with force=true it is drained all the same\n", refusals.join("; "));
        return (StatusCode::CONFLICT, text).into_response();
    }
    for drain in &drains {
        if let Err(reason) = drain.begin(force) {
            return (StatusCode::CONFLICT, format!("{reason}\n")).into_response();
        }
    }
    (StatusCode::ACCEPTED, axum::Json(report(&drains))).into_response()
}
