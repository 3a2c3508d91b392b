//! `/drain`: takes the process out of its rings, and tells how far that is.

use std::sync::Arc;
use std::time::Duration;

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
pub struct Drains(Arc<Mutex<Known>>);

#[derive(Debug, Default)]
struct Known {
    /// How many there will be.
    announced: usize,
    drains: Vec<Arc<dyn Drainable>>,
}

/// How often it is looked whether all is done.
const PERIOD: Duration = Duration::from_millis(50);

impl Drains {
    /// There will be one more: until it is [added](Drains::add), nothing of the process can be drained.
    pub fn announce(&self) {
        self.0.lock().announced += 1;
    }

    /// Adds one that was announced, once it is in service.
    pub fn add(&self, drain: impl Drainable + 'static) {
        self.0.lock().drains.push(Arc::new(drain));
    }

    /// Waits until everything that was announced is drained: only then may the process end, because one that ends early takes
    /// down what others of the process have not handed over yet.
    pub async fn all_done(&self) {
        loop {
            let all = self.all();
            if all.is_some_and(|all| all.iter().all(|drain| drain.progress().stage == Stage::Done)) {
                return;
            }
            tokio::time::sleep(PERIOD).await;
        }
    }

    /// All of them; `None` while some are not in service yet.
    fn all(&self) -> Option<Vec<Arc<dyn Drainable>>> {
        let known = self.0.lock();
        (known.drains.len() >= known.announced).then(|| known.drains.clone())
    }

    fn present(&self) -> Vec<Arc<dyn Drainable>> {
        self.0.lock().drains.clone()
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
    Router::new().route("/drain", get(async move || axum::Json(report(&drains.present()))))
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
    let Some(drains) = drains.all().filter(|drains| !drains.is_empty()) else {
        let text = "not all of this process is in its rings yet: ask again when it is ready\n";
        return (StatusCode::SERVICE_UNAVAILABLE, text).into_response();
    };
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
