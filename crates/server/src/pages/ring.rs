//! A ring's status: who is in it, in which state, since when, and how much of it everybody owns.

mod forget;
mod html;
mod status;

use std::sync::Arc;

use axum::extract::Query;
use axum::http::{HeaderMap, HeaderName, HeaderValue, header};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{MethodRouter, get};
use axum::{Form, Json, Router};
use ringkit_kv::Client;
use ringkit_ring::{Desc, Ring};
use serde::Deserialize;

use self::forget::{Asked, forget};
use self::status::{Status, trouble};
use super::wants_json;
use crate::admin::Admin;

/// The page, to look at.
pub(crate) fn routes(path: &str, title: &str, ring: Ring) -> Router {
    let page = RingPage { title: title.to_owned(), ring, client: None, forgets: Forgets::Never };
    Router::new().route(path, page.shown())
}

/// The page, on which instances can be forgotten too.
pub(crate) fn routes_with_forget(
    path: &str,
    title: &str,
    ring: Ring,
    client: Client<Desc>,
    admin: Admin,
) -> Router {
    let page = RingPage {
        title: title.to_owned(),
        ring: ring.clone(),
        client: Some(client.clone()),
        forgets: if admin.takes_forms() { Forgets::ByForm } else { Forgets::ByToken },
    };
    Router::new().route(
        path,
        page.shown().post(async move |headers: HeaderMap, Form(asked): Form<Asked>| {
            admin.check(&headers)?;
            forget(&ring, &client, &asked, &headers).await
        }),
    )
}

/// One ring's page.
struct RingPage {
    title: String,
    ring: Ring,
    /// Who knows whether the store answers.
    client: Option<Client<Desc>>,
    forgets: Forgets,
}

/// Whether the page offers to forget instances.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Forgets {
    Never,
    /// By plain forms, which work without scripts.
    ByForm,
    /// By scripts only: forms cannot send the token that is needed.
    ByToken,
}

#[derive(Default, Deserialize)]
struct Options {
    /// `true` lists all tokens on the page; `false` leaves them out of the JSON, most of whose bytes they are.
    #[serde(default)]
    tokens: String,
    /// What became of the form that led here.
    #[serde(default)]
    told: String,
}

impl RingPage {
    fn shown(self) -> MethodRouter {
        let page = Arc::new(self);
        get(async move |Query(options): Query<Options>, headers: HeaderMap| -> Response {
            page.answer(&options, &headers)
        })
    }

    fn answer(&self, options: &Options, headers: &HeaderMap) -> Response {
        // One address gives two things, and both are of the moment.
        const HEADERS: [(HeaderName, HeaderValue); 2] = [
            (header::VARY, HeaderValue::from_static("accept")),
            (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
        ];
        let answer = if wants_json(headers) {
            Json(self.status(options.tokens != "false")).into_response()
        } else {
            self.html(&self.status(options.tokens == "true"), options)
        };
        (HEADERS, answer).into_response()
    }

    fn status(&self, with_tokens: bool) -> Status {
        Status::of(&self.ring, with_tokens, self.client.as_ref().and_then(trouble))
    }
}

#[cfg(test)]
mod tests;
