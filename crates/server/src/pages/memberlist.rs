//! `/memberlist`: gossip as this process sees it: how far it has joined, who else is there, what is kept, and what was refused.
//!
//! # Source
//!
//! Cortex `pkg/ring/kv/memberlist/http_status_handler.go`: the paths, the parameters and the first fields of the JSON. What is
//! told behind `Ringkit`, the sealing and the healing are not there.

mod contents;
mod encode;
mod heal;
mod html;
mod json;

use std::sync::Arc;

use axum::extract::{Query, Request};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use ringkit_kv::Stores;
use ringkit_kv::memberlist::{Memberlist, Report};
use ringkit_runtime::Clock;
use serde::Deserialize;

use self::contents::Format;
use super::wants_json;
use crate::admin::Admin;
use crate::process::Process;
use crate::status::{HttpError, text};

/// What the page is called.
pub(crate) const TITLE: &str = "Memberlist Status";

const UNUSED: &str = "This instance doesn't use memberlist.";

/// The page, and the action on it that changes something, which is guarded.
pub(crate) fn routes(process: &Process) -> Router {
    let page = Page {
        stores: process.stores.clone(),
        clock: process.clock.clone(),
        keeps_messages: process.config.memberlist.message_history_buffer_bytes > 0,
        heals_by_form: process.admin.takes_forms(),
    };
    page.routes(&process.admin)
}

/// What the page knows beside what the member reports.
struct Page {
    /// Asked for the member each time: it may not be there yet.
    stores: Stores,
    clock: Clock,
    /// Whether messages are kept to be looked at.
    keeps_messages: bool,
    /// Whether a plain form may heal; else it takes a script, which can send the token that is needed.
    heals_by_form: bool,
}

/// What the address asks for. Names as in Cortex.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Asked {
    view_key: Option<String>,
    download_key: Option<String>,
    view_msg: Option<String>,
    delete_messages: Option<String>,
    format: Option<String>,
    /// What became of the form that led here.
    told: String,
}

impl Page {
    fn routes(self, admin: &Admin) -> Router {
        let page = Arc::new(self);
        let healing = Arc::clone(&page);
        let shown = get(async move |Query(asked): Query<Asked>, headers: HeaderMap| {
            page.answer(&asked, &headers).await
        });
        let heals = post(async move |request: Request| heal::answer(&healing.stores, request).await);
        Router::new()
            .route("/memberlist", shown)
            .merge(admin.guard(Router::new().route("/memberlist/heal", heals)))
    }

    async fn answer(&self, asked: &Asked, headers: &HeaderMap) -> Result<Response, HttpError> {
        // One address gives two things, and both are of the moment.
        const HEADERS: [(HeaderName, HeaderValue); 2] = [
            (header::VARY, HeaderValue::from_static("accept")),
            (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
        ];
        let Some(member) = self.stores.memberlist() else { return Ok(text(StatusCode::OK, UNUSED)) };
        let answer = self.answer_of(&member, asked, headers).await?;
        Ok((HEADERS, answer).into_response())
    }

    async fn answer_of(
        &self,
        member: &Memberlist,
        asked: &Asked,
        headers: &HeaderMap,
    ) -> Result<Response, HttpError> {
        let format = || Format::called(asked.format.as_deref());
        if let Some(key) = &asked.download_key {
            return contents::download(member, key).await;
        }
        if let Some(key) = &asked.view_key {
            return contents::key(member, key, format()?, self.clock.now_secs()).await;
        }
        if let Some(id) = &asked.view_msg {
            return contents::message(member, id, format()?).await;
        }
        if asked.delete_messages.as_deref() == Some("true") {
            member.clear_messages().await;
            let back = [(header::LOCATION, HeaderValue::from_static("?deleteMessages=false"))];
            return Ok((StatusCode::FOUND, back).into_response());
        }
        let report = report(member).await?;
        if wants_json(headers) {
            return Ok(Json(json::Status::of(&report)).into_response());
        }
        Ok(self.html(&report, &asked.told))
    }
}

async fn report(member: &Memberlist) -> Result<Report, HttpError> {
    member.report().await.map_err(|error| silent(&error))
}

/// The member ends before the listeners do.
fn silent(error: &ringkit_kv::Error) -> HttpError {
    HttpError::unavailable(format!("the gossip of this process does not answer: {error}"))
}

#[cfg(test)]
mod tests;
