//! Which path leads where, and whose request it is.

use std::collections::BTreeSet;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::rejection::FormRejection;
use axum::extract::{Form, Path, State};
use axum::response::{Html, IntoResponse, Response};
use axum::routing::{MethodRouter, get, post};
use http::{HeaderMap, Request, StatusCode, header};
use ringkit_config::Config;
use ringkit_server::{Tenant, tenant};

use crate::api::{self, Params};
use crate::distributor::Distributor;
use crate::error::Refusal;
use crate::{push, remote_read};

type App = State<Arc<Distributor>>;
type Pairs = Result<Form<Vec<(String, String)>>, FormRejection>;

/// A path prefix that cannot be served.
#[derive(Debug, thiserror::Error)]
#[error("`{key}`: `{prefix}` cannot be part of a path: use letters, digits, `/`, `-`, `_`, `.`")]
pub(crate) struct BadPrefix {
    key: &'static str,
    prefix: String,
}

/// All routes of this role.
///
/// # Errors
///
/// [`BadPrefix`] naming the configuration key.
pub(crate) fn routes(distributor: Arc<Distributor>) -> Result<Router, BadPrefix> {
    let Config { http_prefix, api, .. } = &*distributor.config;
    let legacy = prefix("http_prefix", http_prefix)?;
    let prometheus = prefix("api.prometheus_http_prefix", &api.prometheus_http_prefix)?;
    // Prefixes may coincide; each path is served once.
    let mut seen = BTreeSet::new();
    let mut router = Router::new();
    let mut add = |path: String, handler: MethodRouter<Arc<Distributor>>| {
        if seen.insert(path.clone()) {
            router = std::mem::take(&mut router).route(&path, handler);
        }
    };
    add("/api/v1/push".to_owned(), post(push));
    add(format!("{legacy}/push"), post(push));
    for base in [format!("{prometheus}/api/v1"), "/api/v1".to_owned(), format!("{legacy}/api/v1")] {
        add(format!("{base}/read"), post(read));
        add(format!("{base}/labels"), get(label_names).post(label_names));
        add(format!("{base}/label/{{name}}/values"), get(label_values));
        add(format!("{base}/series"), get(series).post(series));
    }
    add(format!("{legacy}/read"), post(read));
    add("/api/v1/samples".to_owned(), get(samples));
    add("/api/v1/user_stats".to_owned(), get(user_stats));
    add(format!("{legacy}/user_stats"), get(user_stats));
    add("/distributor/all_user_stats".to_owned(), get(all_user_stats));
    add("/all_user_stats".to_owned(), get(all_user_stats));
    Ok(router.with_state(distributor))
}

/// A prefix with one slash in front and none behind; empty for the root.
fn prefix(key: &'static str, value: &str) -> Result<String, BadPrefix> {
    let bare = value.trim_matches('/');
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"/-_.".contains(&byte);
    if !bare.bytes().all(allowed) || bare.contains("//") {
        return Err(BadPrefix { key, prefix: value.to_owned() });
    }
    Ok(if bare.is_empty() { String::new() } else { format!("/{bare}") })
}

fn resolve(distributor: &Distributor, headers: &HeaderMap) -> Result<Tenant, Refusal> {
    tenant::resolve(headers, distributor.config.auth_enabled).map_err(|error| {
        distributor.metrics.reject("tenant");
        Refusal::new(error.status().as_u16(), error.to_string())
    })
}

async fn push(State(distributor): App, request: Request<Body>) -> Result<StatusCode, Refusal> {
    let (parts, body) = request.into_parts();
    let tenant = resolve(&distributor, &parts.headers)?;
    push::push(&distributor, &tenant, &parts.headers, body).await?;
    Ok(StatusCode::OK)
}

async fn read(State(distributor): App, request: Request<Body>) -> Result<Response, Refusal> {
    let (parts, body) = request.into_parts();
    let tenant = resolve(&distributor, &parts.headers)?;
    remote_read::read(&distributor, tenant.as_str(), &parts.headers, body).await
}

/// Tenant and parameters of a request to one of the JSON endpoints.
fn ask(distributor: &Distributor, headers: &HeaderMap, pairs: Pairs) -> Result<(Tenant, Params), Refusal> {
    let tenant = resolve(distributor, headers)?;
    let Form(pairs) = pairs.map_err(|error| Refusal::new(400, error.body_text()))?;
    Ok((tenant, Params::parse(&pairs)?))
}

async fn label_names(State(distributor): App, headers: HeaderMap, pairs: Pairs) -> Response {
    let answer = async {
        let (tenant, params) = ask(&distributor, &headers, pairs)?;
        distributor.label_names(tenant.as_str(), &params).await
    };
    api::prometheus(answer.await)
}

async fn label_values(
    State(distributor): App,
    Path(name): Path<String>,
    headers: HeaderMap,
    pairs: Pairs,
) -> Response {
    let answer = async {
        let (tenant, params) = ask(&distributor, &headers, pairs)?;
        distributor.label_values(tenant.as_str(), &name, &params).await
    };
    api::prometheus(answer.await)
}

async fn series(State(distributor): App, headers: HeaderMap, pairs: Pairs) -> Response {
    let answer = async {
        let (tenant, params) = ask(&distributor, &headers, pairs)?;
        distributor.series(tenant.as_str(), &params).await.map(|series| api::label_sets(&series))
    };
    api::prometheus(answer.await)
}

async fn samples(State(distributor): App, headers: HeaderMap, pairs: Pairs) -> Result<Response, Refusal> {
    let (tenant, params) = ask(&distributor, &headers, pairs)?;
    Ok(api::json_lines(distributor.samples(tenant.as_str(), &params).await?))
}

async fn user_stats(State(distributor): App, headers: HeaderMap) -> Result<Response, Refusal> {
    let tenant = resolve(&distributor, &headers)?;
    Ok(axum::Json(distributor.user_stats(tenant.as_str()).await?).into_response())
}

async fn all_user_stats(State(distributor): App, headers: HeaderMap) -> Result<Response, Refusal> {
    let stats = distributor.all_user_stats().await?;
    let json = headers
        .get(header::ACCEPT)
        .is_some_and(|accept| String::from_utf8_lossy(accept.as_bytes()).contains("json"));
    // As in Cortex, JSON is the list alone.
    Ok(if json { axum::Json(&stats.stats).into_response() } else { Html(stats.html()).into_response() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_are_brought_into_one_form() {
        for (given, used) in [("", ""), ("/", ""), ("/api/prom", "/api/prom"), ("api/prom/", "/api/prom")] {
            assert_eq!(prefix("k", given).unwrap(), used);
        }
        for bad in ["/{x}", "/a b", "/a//b", "/*", "/:x", "/ü"] {
            assert!(prefix("http_prefix", bad).unwrap_err().to_string().contains("http_prefix"));
        }
    }
}
