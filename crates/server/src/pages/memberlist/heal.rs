//! Healing: what this member holds of a key is told anew as newer than whatever others have, by an operator's wish. It is for
//! entries with versions from a clock that was far ahead, which nobody else can overrule.

use axum::extract::{FromRequest as _, Request};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use axum::{Form, Json};
use ringkit_kv::Stores;
use serde::{Deserialize, Serialize};

use super::contents::read;
use super::{UNUSED, silent};
use crate::pages::{Encoded, wants_json};
use crate::status::{HttpError, text};

/// The form, or the same as JSON.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Asked {
    key: String,
    /// One entry only.
    id: Option<String>,
    /// `1` in forms of this page, which can show what came of it.
    page: String,
}

/// What came of it.
#[derive(Serialize)]
struct Outcome<'a> {
    key: &'a str,
    id: Option<&'a str>,
    message: String,
}

pub(super) async fn answer(stores: &Stores, request: Request) -> Result<Response, HttpError> {
    let headers = request.headers().clone();
    let asked = asked(&headers, request).await?;
    let Some(member) = stores.memberlist() else {
        return Err(HttpError::new(StatusCode::NOT_FOUND, UNUSED));
    };
    let (key, id) = (asked.key.as_str(), asked.id.as_deref().filter(|id| !id.is_empty()));
    if key.is_empty() {
        return Err(HttpError::bad_request("say what to heal: `key=<key>`, and `id=<entry>` for one entry"));
    }
    let contents = read(&member, key).await?;
    if let Some(id) = id
        && !contents.entries.contains_key(id)
        && !contents.removed.iter().any(|(removed, _)| removed == id)
    {
        return Err(HttpError::new(StatusCode::NOT_FOUND, "entry not found"));
    }
    member.heal(key, id).await.map_err(|error| silent(&error))?;
    tracing::warn!(key, entry = id, "healed on an operator's wish: what is known here overrules all others");
    let what = id.map_or_else(|| format!("`{key}`"), |id| format!("entry `{id}` of `{key}`"));
    let message =
        format!("Healed {what}: what this member holds of it is told to all as the newest there is.");
    if wants_json(&headers) {
        return Ok(Json(Outcome { key, id, message }).into_response());
    }
    if asked.page == "1" {
        let to = format!("../memberlist?told={}", Encoded(&message));
        return Ok((StatusCode::SEE_OTHER, [(header::LOCATION, to)]).into_response());
    }
    Ok(text(StatusCode::OK, message + "\n"))
}

async fn asked(headers: &HeaderMap, request: Request) -> Result<Asked, HttpError> {
    let content_type = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    if content_type.is_some_and(|value| value.starts_with("application/json")) {
        let json = Json::<Asked>::from_request(request, &()).await;
        return json.map(|json| json.0).map_err(|wrong| HttpError::new(wrong.status(), wrong.body_text()));
    }
    let form = Form::<Asked>::from_request(request, &()).await;
    form.map(|form| form.0).map_err(|wrong| HttpError::new(wrong.status(), wrong.body_text()))
}
