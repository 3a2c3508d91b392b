//! Healing: what this member holds of a key is told anew as newer than whatever others have, by an operator's wish. It is for
//! entries with versions from a clock that was far ahead, which nobody else can overrule.

use axum::extract::{FromRequest as _, Request};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use axum::{Form, Json};
use ringkit_kv::Stores;
use serde::{Deserialize, Serialize};

use super::contents::read;
use super::{UNUSED, report, silent};
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
    /// How many registers were written anew.
    rewritten: usize,
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
    // Also what members keep for themselves is none of the keys.
    if !report(&member).await?.keys.iter().any(|known| known.key == key) {
        return Err(HttpError::new(StatusCode::NOT_FOUND, "key not found"));
    }
    if let Some(id) = id {
        let contents = read(&member, key).await?;
        if !contents.entries.contains_key(id) && !contents.removed.iter().any(|(removed, _)| removed == id) {
            return Err(HttpError::new(StatusCode::NOT_FOUND, "entry not found"));
        }
    }
    let rewritten = member.heal(key, id).await.map_err(|error| silent(&error))?;
    if rewritten > 0 {
        let what = "healed on an operator's wish: what is known here overrules all others";
        tracing::warn!(key, entry = id, rewritten, "{what}");
    }
    let message = message(key, id, rewritten);
    if wants_json(&headers) {
        return Ok(Json(Outcome { key, id, rewritten, message }).into_response());
    }
    if asked.page == "1" {
        let to = format!("../memberlist?told={}", Encoded(&message));
        return Ok((StatusCode::SEE_OTHER, [(header::LOCATION, to)]).into_response());
    }
    Ok(text(StatusCode::OK, message + "\n"))
}

/// The same for a person to read.
fn message(key: &str, id: Option<&str>, rewritten: usize) -> String {
    let what = id.map_or_else(|| format!("`{key}`"), |id| format!("entry `{id}` of `{key}`"));
    if rewritten == 0 {
        return format!("Nothing had to be healed of {what}.");
    }
    let registers = if rewritten == 1 { "register" } else { "registers" };
    format!(
        "Healed {what}: {rewritten} {registers} rewritten, so that what this member holds there is for all the newest there is."
    )
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
