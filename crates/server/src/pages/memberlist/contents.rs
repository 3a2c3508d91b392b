//! What a key holds, and what is known of a message: to look at, to read by a program, to take away.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use axum::Json;
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use ringkit_kv::Value as _;
use ringkit_kv::memberlist::{KeyContents, Memberlist};
use ringkit_ring::{Desc, InstanceDesc, RingCodec};
use serde::Serialize;

use super::encode::indented;
use super::{report, silent};
use crate::pages::time::{age, go_default};
use crate::status::{HttpError, text};

/// How something is shown. Named as in Cortex.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    /// JSON on one line.
    Json,
    /// JSON over many lines.
    JsonPretty,
    /// For a person to read.
    Struct,
}

impl Format {
    pub(super) fn called(name: Option<&str>) -> Result<Self, HttpError> {
        match name {
            None | Some("struct") => Ok(Self::Struct),
            Some("json") => Ok(Self::Json),
            Some("json-pretty") => Ok(Self::JsonPretty),
            Some(_) => Err(HttpError::bad_request("unknown format: known are json, json-pretty and struct")),
        }
    }
}

/// What `key` holds. `now` is in Unix seconds.
pub(super) async fn key(
    member: &Memberlist,
    key: &str,
    format: Format,
    now: i64,
) -> Result<Response, HttpError> {
    let contents = read(member, key).await?;
    if contents.codec == RingCodec::ID {
        return match format {
            Format::Struct => Ok(text(StatusCode::OK, ring_in_words(&contents, now))),
            Format::Json | Format::JsonPretty => json(&RingJson::of(&contents), format).await,
        };
    }
    let stored = std::str::from_utf8(&contents.stored);
    match (format, stored) {
        (Format::Struct, Ok(stored)) => Ok(text(StatusCode::OK, stored)),
        (Format::Struct, Err(_)) => Ok(text(StatusCode::OK, STANDARD.encode(&contents.stored))),
        // What nobody here can read is told as JSON already.
        (Format::Json, Ok(registers)) if contents.codec.is_empty() => Ok(as_json(registers.to_owned())),
        (Format::JsonPretty, Ok(registers)) if contents.codec.is_empty() => Ok(as_json(indented(registers))),
        (_, Ok(stored)) => json(stored, format).await,
        (_, Err(_)) => json(&STANDARD.encode(&contents.stored), format).await,
    }
}

/// The bytes that the key's codec makes of it, as a file.
pub(super) async fn download(member: &Memberlist, key: &str) -> Result<Response, HttpError> {
    const HEADERS: [(HeaderName, HeaderValue); 2] = [
        (header::CONTENT_TYPE, HeaderValue::from_static("application/octet-stream")),
        (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
    ];
    let KeyContents { version, stored, .. } = read(member, key).await?;
    let plain = |letter: char| letter.is_ascii_alphanumeric() || "-._/".contains(letter);
    let name: String = key.chars().map(|letter| if plain(letter) { letter } else { '_' }).collect();
    let disposition = [(header::CONTENT_DISPOSITION, format!("attachment; filename={version}-{name}"))];
    Ok((HEADERS, disposition, stored).into_response())
}

/// What is known of a message that was sent or received. Of its bytes nothing is kept.
pub(super) async fn message(member: &Memberlist, id: &str, format: Format) -> Result<Response, HttpError> {
    let id: u64 = id.parse().map_err(|_| HttpError::bad_request("`viewMsg` is no number of a message"))?;
    let report = report(member).await?;
    let mut messages = report.sent.iter().chain(&report.received);
    let found = messages.find(|message| message.id == id);
    let found = found.ok_or_else(|| HttpError::new(StatusCode::NOT_FOUND, "message not found"))?;
    match format {
        Format::Struct => Ok(text(StatusCode::OK, format!("{found:#?}\n"))),
        Format::Json | Format::JsonPretty => json(found, format).await,
    }
}

/// What is kept under `key`, or 404.
pub(super) async fn read(member: &Memberlist, key: &str) -> Result<KeyContents, HttpError> {
    let contents = member.contents(key).await.map_err(|error| silent(&error))?;
    contents.ok_or_else(|| HttpError::new(StatusCode::NOT_FOUND, "key not found"))
}

async fn json<T: Serialize + ?Sized>(value: &T, format: Format) -> Result<Response, HttpError> {
    let line = Json(value).into_response();
    if format != Format::JsonPretty {
        return Ok(line);
    }
    let broken = |what: String| HttpError::internal(format!("cannot write JSON: {what}"));
    let (parts, body) = line.into_parts();
    let body = axum::body::to_bytes(body, usize::MAX).await.map_err(|error| broken(error.to_string()))?;
    let body = std::str::from_utf8(&body).map_err(|error| broken(error.to_string()))?;
    if !parts.status.is_success() {
        return Err(broken(body.to_owned()));
    }
    Ok(as_json(indented(body)))
}

fn as_json(text: String) -> Response {
    const TYPE: HeaderValue = HeaderValue::from_static("application/json");
    ([(header::CONTENT_TYPE, TYPE)], text).into_response()
}

/// A ring, as Cortex writes its `Desc` in JSON, except that states have names and that what cannot be read is there too.
#[derive(Serialize)]
struct RingJson<'a> {
    ingesters: BTreeMap<&'a str, EntryJson>,
    /// Who was removed lately, and for how long they have been.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    removed: BTreeMap<&'a str, RemovedJson>,
}

#[derive(Serialize)]
#[serde(untagged)]
enum EntryJson {
    Read(Box<InstanceJson>),
    Unreadable { error: String },
}

#[derive(Serialize)]
struct InstanceJson {
    state: String,
    addr: String,
    timestamp: i64,
    tokens: Vec<u32>,
    zone: String,
    #[serde(skip_serializing_if = "is_zero")]
    registered_timestamp: i64,
    #[serde(skip_serializing_if = "String::is_empty")]
    id: String,
    #[serde(skip_serializing_if = "is_zero")]
    read_only_updated_timestamp: i64,
    #[serde(skip_serializing_if = "is_false")]
    read_only: bool,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    versions: BTreeMap<u64, u64>,
}

#[derive(Serialize)]
struct RemovedJson {
    age_seconds: u64,
}

fn is_zero(number: &i64) -> bool {
    *number == 0
}

fn is_false(flag: &bool) -> bool {
    !*flag
}

impl<'a> RingJson<'a> {
    fn of(contents: &'a KeyContents) -> Self {
        let ingesters = contents.entries.iter().map(|(id, bytes)| (id.as_str(), EntryJson::of(id, bytes)));
        let removed = contents.removed.iter();
        let removed =
            removed.map(|(id, age_seconds)| (id.as_str(), RemovedJson { age_seconds: *age_seconds }));
        Self { ingesters: ingesters.collect(), removed: removed.collect() }
    }
}

impl EntryJson {
    fn of(id: &str, bytes: &Bytes) -> Self {
        match Desc::decode_entry(id, bytes) {
            Ok(instance) => Self::Read(Box::new(InstanceJson::from(instance))),
            Err(error) => Self::Unreadable { error: error.to_string() },
        }
    }
}

impl From<InstanceDesc> for InstanceJson {
    fn from(instance: InstanceDesc) -> Self {
        Self {
            state: instance.state.to_string(),
            addr: instance.addr.to_string(),
            timestamp: instance.timestamp,
            tokens: instance.tokens.to_vec(),
            zone: instance.zone.to_string(),
            registered_timestamp: instance.registered_timestamp,
            id: instance.id.to_string(),
            read_only_updated_timestamp: instance.read_only_updated_timestamp,
            read_only: instance.read_only,
            versions: instance.versions,
        }
    }
}

/// A ring for a person: a line for each instance. Names are quoted, because they may hold anything.
fn ring_in_words(contents: &KeyContents, now: i64) -> String {
    let KeyContents { codec, version, entries, removed, .. } = contents;
    let mut words = format!("codec {codec}, version {version}, {} entries\n", entries.len());
    for (id, bytes) in entries {
        // Writing to a string cannot fail.
        let _ = match Desc::decode_entry(id, bytes) {
            Ok(instance) => writeln!(words, "{id:?}: {}", instance_in_words(&instance, now)),
            Err(error) => writeln!(words, "{id:?}: cannot be read: {error}"),
        };
    }
    for (id, age_seconds) in removed {
        let ago = age(i64::try_from(*age_seconds).unwrap_or(i64::MAX));
        let _ = writeln!(words, "{id:?}: removed {ago} ago");
    }
    words
}

fn instance_in_words(instance: &InstanceDesc, now: i64) -> String {
    let InstanceDesc { addr, timestamp, state, tokens, zone, .. } = instance;
    let mut words = format!(
        "{state}, zone {zone:?}, address {addr:?}, heartbeat {} ({} ago), {} tokens",
        go_default(*timestamp),
        age(now.saturating_sub(*timestamp)),
        tokens.len()
    );
    if instance.registered_at() != 0 {
        let _ = write!(words, ", registered {}", go_default(instance.registered_at()));
    }
    if instance.is_read_only() {
        words.push_str(", read-only");
    }
    words
}
