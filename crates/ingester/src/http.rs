//! The ingester's HTTP endpoints.

use std::fmt::Write as _;
use std::sync::Arc;

use axum::Router;
use axum::extract::{Form, FromRequest as _, Query, Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{Html, IntoResponse, Response};
use axum::routing::{get, post};
use ringkit_ring::State as RingState;
use serde::{Deserialize, Serialize};

use crate::head::Tenant;
use crate::ingester::Ingester;
use crate::rpc::user_stats;

/// What can be looked at, as absolute paths.
pub(crate) fn routes(ingester: Arc<Ingester>) -> Router {
    Router::new()
        .route("/ingester/mode", get(show_mode))
        .route("/ingester/all_user_stats", get(all_user_stats))
        .route("/ingester/tsdb", get(tsdb))
        .with_state(ingester)
}

/// What changes something, as absolute paths; those without `/ingester` are older names.
pub(crate) fn admin_routes(ingester: Arc<Ingester>) -> Router {
    Router::new()
        .route("/ingester/mode", post(mode))
        .route("/ingester/flush", post(flush))
        .route("/flush", post(flush))
        .route("/ingester/shutdown", post(shutdown))
        .route("/shutdown", post(shutdown))
        .route("/ingester/renewTokens", post(renew_tokens))
        .with_state(ingester)
}

#[derive(Debug, Default, Deserialize)]
struct Mode {
    mode: Option<String>,
}

/// Says what the mode is. Changing it by GET, as Cortex allows, is refused: a link must not drain an ingester.
async fn show_mode(State(ingester): State<Arc<Ingester>>, Query(asked): Query<Mode>) -> Response {
    if asked.mode.is_some() {
        return (
            StatusCode::METHOD_NOT_ALLOWED,
            [(header::ALLOW, "POST")],
            "this changes something: use POST",
        )
            .into_response();
    }
    match ingester.handle() {
        Some(handle) => format!("Ingester mode {}", handle.state()).into_response(),
        None => (StatusCode::SERVICE_UNAVAILABLE, "ingester is not in the ring yet").into_response(),
    }
}

/// Changes between ACTIVE and READONLY, or says what it is.
async fn mode(State(ingester): State<Arc<Ingester>>, request: Request) -> Response {
    // The field may be in the query or in the body.
    let query = Query::<Mode>::try_from_uri(request.uri()).map(|query| query.0).unwrap_or_default();
    let form = Form::<Mode>::from_request(request, &()).await.map(|form| form.0).unwrap_or_default();
    let Some(handle) = ingester.handle() else {
        return (StatusCode::SERVICE_UNAVAILABLE, "ingester is not in the ring yet").into_response();
    };
    let Some(wanted) = query.mode.or(form.mode) else {
        return format!("Ingester mode {}", handle.state()).into_response();
    };
    let state = match wanted.to_ascii_uppercase().as_str() {
        "ACTIVE" => RingState::Active,
        "READONLY" => RingState::ReadOnly,
        _ => {
            let text = format!("invalid mode `{wanted}`: use READONLY or ACTIVE");
            return (StatusCode::BAD_REQUEST, text).into_response();
        }
    };
    if ingester.is_draining() {
        let text =
            "this ingester is being drained, which goes by READONLY: its mode cannot be changed any more";
        return (StatusCode::CONFLICT, text).into_response();
    }
    if handle.state() == state {
        return format!("Ingester mode {state}").into_response();
    }
    match handle.change_state(state).await {
        Ok(()) => format!("Ingester mode {state}").into_response(),
        Err(error) => {
            let text = format!("failed to change ingester mode from {} to {state}: {error}", handle.state());
            (StatusCode::BAD_REQUEST, text).into_response()
        }
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Flush {
    wait: bool,
}

/// Writes a snapshot, so that the log before it can go. The header says so: in Cortex this writes blocks.
async fn flush(State(ingester): State<Arc<Ingester>>, Query(Flush { wait }): Query<Flush>) -> Response {
    let mut flushed = ingester.flushed.subscribe();
    flushed.mark_unchanged();
    let mut ended = ingester.ended.subscribe();
    ingester.flush.notify_one();
    if wait {
        tokio::select! {
            _ = flushed.changed() => (),
            _ = ended.wait_for(|ended| *ended) => (),
        }
    }
    (StatusCode::NO_CONTENT, [("x-ringkit-flush", "snapshot")]).into_response()
}

/// How much of the tokens one call renews.
const RENEWED: f64 = 0.1;

/// Gives up a tenth of the tokens for new ones. Cortex does so by GET as well.
async fn renew_tokens(State(ingester): State<Arc<Ingester>>) -> Response {
    let Some(handle) = ingester.handle() else {
        return (StatusCode::SERVICE_UNAVAILABLE, "ingester is not in the ring yet").into_response();
    };
    match handle.renew_tokens(RENEWED).await {
        Ok(_) => StatusCode::NO_CONTENT.into_response(),
        Err(error) => (StatusCode::CONFLICT, error.to_string()).into_response(),
    }
}

/// Leaves the ring for good and ends the ingester; answers when that is done. The process goes on.
async fn shutdown(State(ingester): State<Arc<Ingester>>) -> Response {
    if let Some(handle) = ingester.handle() {
        handle.set_unregister_on_shutdown(true);
    }
    ingester.shutdown.cancel();
    let mut ended = ingester.ended.subscribe();
    let _ = ended.wait_for(|ended| *ended).await;
    StatusCode::NO_CONTENT.into_response()
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct UserStats {
    #[serde(rename = "userID")]
    user_id: String,
    ingestion_rate: f64,
    num_series: u64,
    #[serde(rename = "APIIngestionRate")]
    api_ingestion_rate: f64,
    #[serde(rename = "RuleIngestionRate")]
    rule_ingestion_rate: f64,
    active_series: u64,
    loaded_blocks: u64,
}

async fn all_user_stats(State(ingester): State<Arc<Ingester>>, headers: HeaderMap) -> Response {
    let stats: Vec<UserStats> = tenants(&ingester)
        .iter()
        .map(|tenant| {
            let stats = user_stats(tenant);
            UserStats {
                user_id: tenant.id.to_string(),
                ingestion_rate: stats.ingestion_rate,
                num_series: stats.num_series,
                api_ingestion_rate: stats.api_ingestion_rate,
                rule_ingestion_rate: stats.rule_ingestion_rate,
                active_series: stats.active_series,
                loaded_blocks: stats.loaded_blocks,
            }
        })
        .collect();
    if wants_json(&headers) {
        return axum::Json(stats).into_response();
    }
    let rows = stats.iter().map(|user| {
        vec![user.user_id.clone(), user.num_series.to_string(), format!("{:.2}", user.ingestion_rate)]
    });
    page("Ingester Stats", &[], &["User", "Series", "Samples per second"], rows)
}

#[derive(Debug, Serialize)]
struct Tsdb {
    series: usize,
    chunks: usize,
    samples: usize,
    wal_bytes: u64,
    wal_segments: usize,
    wal_failure: Option<String>,
    tenants: Vec<TenantTsdb>,
}

#[derive(Debug, Serialize)]
struct TenantTsdb {
    tenant: String,
    series: usize,
    chunks: usize,
    samples: usize,
    /// Milliseconds since 1970.
    max_time: Option<i64>,
}

async fn tsdb(State(ingester): State<Arc<Ingester>>, headers: HeaderMap) -> Response {
    // Walks all series: not on a thread that others wait for.
    let report = tokio::task::spawn_blocking(move || report(&ingester)).await;
    let Ok(report) = report else { return StatusCode::INTERNAL_SERVER_ERROR.into_response() };
    if wants_json(&headers) {
        return axum::Json(report).into_response();
    }
    let failure = report.wal_failure.as_deref().unwrap_or("none");
    let facts = [
        ("Series", report.series.to_string()),
        ("Chunks", report.chunks.to_string()),
        ("Samples", report.samples.to_string()),
        ("Bytes of log since the last snapshot", report.wal_bytes.to_string()),
        ("Log segments", report.wal_segments.to_string()),
        ("Log failure", failure.to_owned()),
    ];
    let rows = report.tenants.iter().map(|tenant| {
        let counts = [tenant.series, tenant.chunks, tenant.samples].map(|count| count.to_string());
        [tenant.tenant.clone()].into_iter().chain(counts).collect()
    });
    page("Ingester TSDB", &facts, &["User", "Series", "Chunks", "Samples"], rows)
}

fn report(ingester: &Ingester) -> Tsdb {
    let tenants: Vec<TenantTsdb> = tenants(ingester).iter().map(|tenant| of_tenant(tenant)).collect();
    let log = ingester.opened().map(|open| &open.log);
    let (wal_bytes, wal_segments) = log.map(crate::wal::Log::usage).unwrap_or_default();
    Tsdb {
        series: tenants.iter().map(|tenant| tenant.series).sum(),
        chunks: tenants.iter().map(|tenant| tenant.chunks).sum(),
        samples: tenants.iter().map(|tenant| tenant.samples).sum(),
        wal_bytes,
        wal_segments,
        wal_failure: log.and_then(crate::wal::Log::failure).map(|failed| failed.to_string()),
        tenants,
    }
}

fn of_tenant(tenant: &Tenant) -> TenantTsdb {
    let mut out = TenantTsdb {
        tenant: tenant.id.to_string(),
        series: tenant.num_series(),
        chunks: 0,
        samples: 0,
        max_time: tenant.max_time(),
    };
    for shard in tenant.shards() {
        for (_, series) in shard.read().iter() {
            out.chunks += series.num_chunks();
            out.samples += series.num_samples();
        }
    }
    out
}

fn tenants(ingester: &Ingester) -> Vec<Arc<Tenant>> {
    ingester.opened().map(|open| open.head.tenants()).unwrap_or_default()
}

fn wants_json(headers: &HeaderMap) -> bool {
    let accept = headers.get(header::ACCEPT).and_then(|accept| accept.to_str().ok());
    accept.is_some_and(|accept| accept.contains("application/json"))
}

fn page(
    title: &str,
    facts: &[(&str, String)],
    columns: &[&str],
    rows: impl Iterator<Item = Vec<String>>,
) -> Response {
    let mut html = format!(
        "<!DOCTYPE html><html><head><meta charset=\"utf-8\"><title>{title}</title></head><body><h1>{title}</h1><dl>"
    );
    for (name, value) in facts {
        let _ = write!(html, "<dt>{name}</dt><dd>{}</dd>", escaped(value));
    }
    html.push_str("</dl><table border=\"1\"><thead><tr>");
    for column in columns {
        let _ = write!(html, "<th>{column}</th>");
    }
    html.push_str("</tr></thead><tbody>");
    for row in rows {
        html.push_str("<tr>");
        for cell in row {
            let _ = write!(html, "<td>{}</td>", escaped(&cell));
        }
        html.push_str("</tr>");
    }
    html.push_str("</tbody></table></body></html>");
    Html(html).into_response()
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
