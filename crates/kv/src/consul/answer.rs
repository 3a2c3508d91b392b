//! What comes back from a request, and what that means for whoever asked.

use std::time::Duration;

use reqwest_011 as reqwest;
use ringkit_runtime::Cause;
use serde::Deserialize;

use super::BACKEND;
use crate::error::Error;

/// No answer is larger.
const MAX_ANSWER_BYTES: usize = 256 << 20;

/// An answer, whatever its status.
pub(super) struct Answer {
    pub(super) status: u16,
    /// None if the server does not tell one that can be waited for.
    pub(super) index: Option<u64>,
    /// Whether what is told may be old because the server that told it knows no leader.
    pub(super) leaderless: bool,
    pub(super) retry_after: Option<Duration>,
    pub(super) body: Vec<u8>,
}

/// A key with what is under it.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Pair {
    pub(super) key: String,
    #[serde(default)]
    pub(super) value: Option<String>,
    pub(super) modify_index: u64,
}

/// What a failed request means for who asked.
pub(super) struct Failure {
    pub(super) error: Error,
    pub(super) retry_after: Option<Duration>,
}

/// Reads an answer to its end.
pub(super) async fn receive(response: reqwest::Result<reqwest::Response>) -> Result<Answer, Cause> {
    let mut response = response.map_err(reqwest::Error::without_url)?;
    let number = |name: &str| {
        let value = response.headers().get(name)?;
        value.to_str().ok()?.trim().parse::<u64>().ok()
    };
    let index = number("x-consul-index").filter(|index| *index > 0);
    let leader = response.headers().get("x-consul-knownleader");
    let leaderless = leader.is_some_and(|known| known.as_bytes() == b"false");
    let retry_after = number("retry-after").map(Duration::from_secs);
    let status = response.status().as_u16();
    let mut body = Vec::new();
    while let Some(piece) = response.chunk().await? {
        if body.len() + piece.len() > MAX_ANSWER_BYTES {
            return Err(format!("an answer of more than {MAX_ANSWER_BYTES} bytes").into());
        }
        body.extend_from_slice(&piece);
    }
    Ok(Answer { status, index, leaderless, retry_after, body })
}

/// An answer, if it says that the request was done.
pub(super) fn succeeded(answer: Answer) -> Result<Answer, Failure> {
    if answer.status == 200 { Ok(answer) } else { Err(failure(&answer)) }
}

fn failure(answer: &Answer) -> Failure {
    let text = String::from_utf8_lossy(answer.body.get(..200).unwrap_or(&answer.body)).trim().to_owned();
    match answer.status {
        400..=499 if !matches!(answer.status, 408 | 429) => refused(answer.status, &text),
        status => Failure {
            error: Error::Unavailable {
                backend: BACKEND,
                cause: format!("unexpected response code {status}: {text}").into(),
            },
            retry_after: answer.retry_after,
        },
    }
}

/// The server will not do it, however often it is asked.
pub(super) fn refused(status: u16, text: &str) -> Failure {
    let advice = if matches!(status, 401 | 403) { "; look at `acl_token` and its rights" } else { "" };
    let reason = format!("response code {status}: {text}{advice}");
    Failure { error: Error::Refused { backend: BACKEND, reason }, retry_after: None }
}

/// There is no answer that can be used: it may be asked again.
pub(super) fn unavailable(cause: Cause) -> Failure {
    Failure { error: Error::Unavailable { backend: BACKEND, cause }, retry_after: None }
}
