//! Forgetting instances: removing their entries from the ring, by an operator's wish.

use axum::Json;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use ringkit_kv::Client;
use ringkit_ring::{Desc, Operation, Ring};
use serde::{Deserialize, Serialize};

use crate::pages::{Encoded, wants_json};
use crate::status::HttpError;

/// How many ids a message names; it travels in an address.
const NAMED: usize = 5;
/// Up to how many letters of an id, or of an error, a message shows.
const SHOWN_OF_ID: usize = 80;
const SHOWN_OF_ERROR: usize = 300;

/// The form.
#[derive(Deserialize)]
pub(super) struct Asked {
    /// Whom to forget.
    #[serde(default)]
    forget: String,
    /// `true` forgets everybody who is unhealthy.
    #[serde(default)]
    forget_unhealthy: String,
    /// `1` in forms of this page, which can show what came of it.
    #[serde(default)]
    page: String,
}

/// What came of it.
#[derive(Serialize)]
struct Outcome {
    forgotten: Vec<String>,
    /// Not in the ring as this process sees it. Their removal is success too: they are gone.
    unknown: Vec<String>,
    failed: Vec<Failed>,
    /// The store that holds the ring.
    acknowledged_by: &'static str,
    message: String,
}

#[derive(Serialize)]
struct Failed {
    id: String,
    error: String,
}

/// Removes what was asked for; a living instance comes back with its next heartbeat. Unless JSON is wanted, answers with
/// Cortex's redirect, or to a form of this page with one that tells what happened, and, unlike Cortex, with an error when
/// nothing could be removed.
pub(super) async fn forget(
    ring: &Ring,
    client: &Client<Desc>,
    asked: &Asked,
    headers: &HeaderMap,
) -> Result<Response, HttpError> {
    let mut outcome = if !asked.forget.is_empty() {
        one(ring, client, &asked.forget).await?
    } else if asked.forget_unhealthy == "true" {
        all_unhealthy(ring, client).await?
    } else {
        let message = "say whom to forget: `forget=<instance id>` or `forget_unhealthy=true`";
        return Err(HttpError::bad_request(message));
    };
    outcome.message = outcome.in_words();
    if wants_json(headers) {
        return Ok(Json(outcome).into_response());
    }
    if asked.page == "1" {
        let to = format!("?told={}", Encoded(&outcome.message));
        return Ok((StatusCode::SEE_OTHER, [(header::LOCATION, to)]).into_response());
    }
    Ok((StatusCode::FOUND, [(header::LOCATION, "#")]).into_response())
}

async fn one(ring: &Ring, client: &Client<Desc>, id: &str) -> Result<Outcome, HttpError> {
    // Told by what this process sees. The store is asked to remove it in any case: it may hold entries that are not seen here,
    // because they cannot be read or belong to an excluded zone.
    let known = ring.snapshot().instance(id).is_some();
    remove(ring, client, id).await?;
    let mut outcome = Outcome::nothing(client.backend());
    let removed = if known { &mut outcome.forgotten } else { &mut outcome.unknown };
    removed.push(id.to_owned());
    Ok(outcome)
}

async fn all_unhealthy(ring: &Ring, client: &Client<Desc>) -> Result<Outcome, HttpError> {
    let mut outcome = Outcome::nothing(client.backend());
    let mut first_error: Option<HttpError> = None;
    let mut silent = false;
    for id in unhealthy(ring) {
        // Each attempt on a store that does not answer takes as long as its deadline.
        if silent {
            let error = "not tried, because the store did not answer before".to_owned();
            outcome.failed.push(Failed { id, error });
            continue;
        }
        match remove(ring, client, &id).await {
            Ok(()) => outcome.forgotten.push(id),
            Err(error) => {
                silent = error.is_retryable();
                outcome.failed.push(Failed { id, error: error.to_string() });
                if first_error.is_none() {
                    first_error = Some(error.into());
                }
            }
        }
    }
    match first_error {
        Some(error) if outcome.forgotten.is_empty() => Err(error),
        _ => Ok(outcome),
    }
}

fn unhealthy(ring: &Ring) -> Vec<String> {
    let (snapshot, now) = (ring.snapshot(), ring.clock().now_secs());
    let members = snapshot.instances().iter();
    let unhealthy = members.filter(|member| !snapshot.is_healthy(&member.id, Operation::REPORTING, now));
    unhealthy.map(|member| member.id.to_string()).collect()
}

async fn remove(ring: &Ring, client: &Client<Desc>, id: &str) -> Result<(), ringkit_kv::Error> {
    let name = &ring.options().name;
    client.remove_own(&ring.options().key, id).await.inspect_err(|error| {
        tracing::error!(ring = name, instance = id, %error, "instance could not be forgotten");
    })?;
    tracing::info!(ring = name, instance = id, "instance forgotten on an operator's wish");
    Ok(())
}

impl Outcome {
    fn nothing(acknowledged_by: &'static str) -> Self {
        let (forgotten, unknown, failed) = (Vec::new(), Vec::new(), Vec::new());
        Self { forgotten, unknown, failed, acknowledged_by, message: String::new() }
    }

    fn in_words(&self) -> String {
        let store = self.acknowledged_by;
        let mut sentences = Vec::new();
        if !self.forgotten.is_empty() {
            sentences.push(format!(
                "Forgot {}: {store} has acknowledged the removal. An instance that is alive comes back with its next heartbeat.",
                names(&self.forgotten)
            ));
        }
        if !self.unknown.is_empty() {
            sentences.push(format!(
                "{} was not in the ring as this process sees it: nothing to forget. {store} has acknowledged that it is gone.",
                names(&self.unknown)
            ));
        }
        if let Some(Failed { id, error }) = self.failed.first() {
            sentences.push(format!(
                "{} could not be forgotten, first {}: {}.",
                self.failed.len(),
                cut(id, SHOWN_OF_ID),
                cut(error, SHOWN_OF_ERROR)
            ));
        }
        if sentences.is_empty() {
            return "Nobody is unhealthy: there was nothing to forget.".to_owned();
        }
        sentences.join(" ")
    }
}

fn names(ids: &[String]) -> String {
    let named: Vec<String> = ids.iter().take(NAMED).map(|id| cut(id, SHOWN_OF_ID)).collect();
    let named = named.join(", ");
    match ids.len().saturating_sub(NAMED) {
        0 => named,
        more => format!("{} instances ({named} and {more} more)", ids.len()),
    }
}

fn cut(text: &str, letters: usize) -> String {
    match text.char_indices().nth(letters) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}
