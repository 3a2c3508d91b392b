//! A ring's status: who is in it, in which state, since when, and how much of it everybody owns.

use std::fmt::Write as _;
use std::time::{Duration, UNIX_EPOCH};

use axum::extract::Query;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{MethodRouter, get};
use axum::{Form, Json, Router};
use ringkit_kv::Client;
use ringkit_ring::{Desc, Operation, Ring, Share, Snapshot};
use serde::{Deserialize, Serialize};

use super::time::{age, go_default, rfc3339};
use super::{Escaped, page, wants_json};
use crate::admin::Admin;
use crate::status::HttpError;

/// What Cortex calls an instance whose heartbeats have stopped, in place of its state.
const UNHEALTHY: &str = "Unhealthy";

/// The page, to look at.
pub(crate) fn routes(path: &str, title: &str, ring: Ring) -> Router {
    Router::new().route(path, shown(title, ring, false))
}

/// The page, on which instances can be forgotten too.
pub(crate) fn routes_with_forget(
    path: &str,
    title: &str,
    ring: Ring,
    client: Client<Desc>,
    admin: Admin,
) -> Router {
    let shown = shown(title, ring.clone(), admin.takes_forms());
    Router::new().route(
        path,
        shown.post(async move |headers: HeaderMap, Form(asked): Form<Forget>| {
            admin.check(&headers)?;
            forget(&ring, &client, &asked.forget).await
        }),
    )
}

fn shown(title: &str, ring: Ring, forgets: bool) -> MethodRouter {
    let title = title.to_owned();
    get(async move |Query(options): Query<Options>, headers: HeaderMap| -> Response {
        if wants_json(&headers) {
            return Json(status(&ring)).into_response();
        }
        html(&title, &ring, &options, forgets)
    })
}

#[derive(Deserialize)]
struct Forget {
    forget: String,
}

/// Removes an instance; a living one comes back with its next heartbeat. Answers with Cortex's redirect to the page, and, unlike
/// Cortex, says so when it failed.
async fn forget(ring: &Ring, client: &Client<Desc>, id: &str) -> Result<Response, HttpError> {
    let name = &ring.options().name;
    client.remove_own(&ring.options().key, id).await.inspect_err(|error| {
        tracing::error!(ring = name, instance = id, %error, "instance could not be forgotten");
    })?;
    tracing::info!(ring = name, instance = id, "instance forgotten on an operator's wish");
    Ok((StatusCode::FOUND, [(header::LOCATION, "#")]).into_response())
}

#[derive(Deserialize)]
struct Options {
    /// `?tokens=true` lists all tokens.
    #[serde(default)]
    tokens: String,
}

/// Cortex's JSON, field by field.
///
/// # Source
///
/// Cortex `pkg/ring/http.go`, `httpResponse` and `ingesterDesc`. Times are in UTC here, in the server's zone there.
#[derive(Serialize)]
struct Status {
    /// `null` for an empty ring, as Go writes a slice that was never filled.
    shards: Option<Vec<Shard>>,
    now: String,
    #[serde(rename = "storageLastUpdated")]
    storage_last_updated: String,
}

#[derive(Serialize)]
struct Shard {
    id: String,
    state: String,
    address: String,
    timestamp: String,
    registered_timestamp: String,
    zone: String,
    tokens: Option<Vec<u32>>,
}

fn status(ring: &Ring) -> Status {
    let (snapshot, now) = (ring.snapshot(), ring.clock().now_secs());
    let shards = snapshot.instances().iter().map(|instance| {
        let desc = &instance.desc;
        Shard {
            id: instance.id.to_string(),
            state: state(&snapshot, &instance.id, now).to_string(),
            address: desc.addr.to_string(),
            timestamp: go_default(desc.timestamp),
            registered_timestamp: registered(desc.registered_at()),
            zone: desc.zone.to_string(),
            tokens: (!desc.tokens.is_empty()).then(|| desc.tokens.to_vec()),
        }
    });
    let shards: Vec<_> = shards.collect();
    Status {
        shards: (!shards.is_empty()).then_some(shards),
        now: rfc3339(ring.clock().now()),
        storage_last_updated: rfc3339(last_updated(&snapshot)),
    }
}

fn registered(seconds: i64) -> String {
    if seconds == 0 { String::new() } else { go_default(seconds) }
}

/// When a heartbeat last arrived from the store.
fn last_updated(snapshot: &Snapshot) -> std::time::SystemTime {
    let newest = snapshot.instances().iter().filter_map(|instance| snapshot.seen(&instance.id)).max();
    UNIX_EPOCH + Duration::from_secs(newest.and_then(|seconds| u64::try_from(seconds).ok()).unwrap_or(0))
}

enum Shown {
    State(ringkit_ring::State),
    Unhealthy,
}

impl std::fmt::Display for Shown {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::State(state) => state.fmt(f),
            Self::Unhealthy => f.write_str(UNHEALTHY),
        }
    }
}

impl Shown {
    /// The colour says the same as the word.
    fn class(&self) -> &'static str {
        use ringkit_ring::State::{Active, Joining, Leaving, Left, Pending, ReadOnly, Unknown};
        match self {
            Self::Unhealthy => "bad",
            Self::State(Active) => "good",
            Self::State(Pending | Joining | Leaving) => "busy",
            Self::State(Left | ReadOnly | Unknown(_)) => "idle",
        }
    }
}

fn state(snapshot: &Snapshot, id: &str, now: i64) -> Shown {
    match snapshot.instance(id) {
        Some(instance) if snapshot.is_healthy(id, Operation::REPORTING, now) => {
            Shown::State(instance.state())
        }
        _ => Shown::Unhealthy,
    }
}

fn html(title: &str, ring: &Ring, options: &Options, forgets: bool) -> Response {
    let (snapshot, now) = (ring.snapshot(), ring.clock().now_secs());
    let mut body = String::new();
    // Writing to a string cannot fail.
    let _ = writeln!(
        body,
        "<p>Current time: {}<br>Storage last updated: {}<br>{} members, {} tokens</p>",
        rfc3339(ring.clock().now()),
        rfc3339(last_updated(&snapshot)),
        snapshot.instances().len(),
        snapshot.tokens().len(),
    );
    body.push_str(
        "<div class=\"scroll\"><table>\n<thead><tr><th>Instance ID</th><th>Availability Zone</th><th>State</th>\
         <th>Address</th><th>Registered At</th><th>Last Heartbeat</th><th class=\"number\">Tokens</th>\
         <th class=\"number\">Ownership</th><th class=\"number\">Diff From Expected</th>",
    );
    body.push_str(if forgets { "<th>Actions</th></tr>" } else { "</tr>" });
    body.push_str("</thead>\n<tbody>\n");
    let shares = shares(ring, &snapshot);
    for (instance, share) in snapshot.instances().iter().zip(&shares) {
        let (desc, state) = (&instance.desc, state(&snapshot, &instance.id, now));
        let heartbeat = go_default(desc.timestamp);
        let _ = write!(
            body,
            "<tr><td>{}</td><td>{}</td><td class=\"{}\">{state}</td><td>{}</td><td>{}</td>\
             <td><span title=\"{heartbeat}\">{} ago</span></td><td class=\"number\">{}</td>",
            Escaped(&instance.id),
            Escaped(&desc.zone),
            state.class(),
            Escaped(&desc.addr),
            registered(desc.registered_at()),
            age(now - desc.timestamp),
            desc.tokens.len(),
        );
        let _ = write!(body, "<td class=\"number\">{:.2}%</td><td class=\"number\">", share.owned * 100.0);
        if let Some(excess) = share.excess() {
            let _ = write!(body, "{:+.2}%", excess * 100.0);
        }
        body.push_str("</td>");
        if forgets {
            let _ = write!(
                body,
                "<td><form method=\"post\"><button name=\"forget\" value=\"{}\">Forget</button></form></td>",
                Escaped(&instance.id)
            );
        }
        body.push_str("</tr>\n");
    }
    body.push_str("</tbody>\n</table></div>\n");
    if options.tokens == "true" {
        tokens(&mut body, &snapshot);
    } else {
        body.push_str("<p><a href=\"?tokens=true\">Show tokens</a></p>\n");
    }
    page(title, &body)
}

fn tokens(body: &mut String, snapshot: &Snapshot) {
    for instance in snapshot.instances() {
        let tokens: Vec<String> = instance.desc.tokens.iter().map(ToString::to_string).collect();
        let (id, tokens) = (Escaped(&instance.id), tokens.join(" "));
        let _ = writeln!(body, "<h2>Tokens of {id}</h2>\n<p>{tokens}</p>");
    }
    body.push_str("<p><a href=\"?\">Hide tokens</a></p>\n");
}

/// What a member owns and what would be fair, as fractions of the circle that it shares.
struct Owned {
    owned: f64,
    expected: f64,
}

impl Owned {
    /// How much of what it owns is more (or, negative, less) than fair: Cortex's measure. `None` if it owns nothing.
    fn excess(&self) -> Option<f64> {
        (self.owned > 0.0).then(|| 1.0 - self.expected / self.owned)
    }
}

/// With zone awareness, members share the circle with those of their zone only.
fn shares(ring: &Ring, snapshot: &Snapshot) -> Vec<Owned> {
    let by_zone = ring.options().zone_awareness_enabled;
    let ownership = snapshot.ownership();
    let shares = if by_zone { ownership.of_zone() } else { ownership.of_circle() };
    let instances = snapshot.instances();
    let owned = instances.iter().zip(shares).map(|(instance, share): (_, &Share)| {
        let sharing = instances.iter().filter(|other| !by_zone || other.zone() == instance.zone()).count();
        #[expect(clippy::cast_precision_loss, reason = "a number of instances")]
        let expected = 1.0 / sharing as f64;
        Owned { owned: share.fraction(), expected }
    });
    owned.collect()
}

#[cfg(test)]
mod tests;
