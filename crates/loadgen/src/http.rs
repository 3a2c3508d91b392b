//! The HTTP client of loads and verifications: plain HTTP, no redirects, bounded answers.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use reqwest::{Client, RequestBuilder, Url};

use crate::error::Error;

/// Largest answer that is read: a server gone wrong must not fill our memory.
pub const MAX_ANSWER_BYTES: usize = 256 << 20;
/// How much of an error answer is shown.
const SHOWN_CHARS: usize = 300;

/// The header that names the tenant.
pub const TENANT_HEADER: &str = "x-scope-orgid";

/// Parses the address of a server. Given without a path (`http://localhost:9009`), `default_path` is added.
///
/// # Errors
///
/// [`Error::Option`] under the name `option` if this is no `http://` address.
pub fn endpoint(option: &'static str, address: &str, default_path: &str) -> Result<Url, Error> {
    let mut url = Url::parse(address).map_err(|cause| {
        Error::option(option, format!("`{address}` is no address ({cause}): give http://host:port"))
    })?;
    if url.scheme() != "http" || !url.has_host() {
        return Err(Error::option(option, format!("`{address}`: only http:// addresses are supported")));
    }
    if url.path() == "/" {
        url.set_path(default_path);
    }
    Ok(url)
}

/// A client whose requests give up after `timeout`, connecting included.
///
/// # Errors
///
/// [`Error::Option`] if the client cannot be built.
pub fn client(timeout: Duration) -> Result<Client, Error> {
    Client::builder()
        .timeout(timeout)
        .connect_timeout(timeout.min(Duration::from_secs(5)))
        .redirect(reqwest::redirect::Policy::none())
        .user_agent(concat!("ringkit-loadgen/", env!("CARGO_PKG_VERSION")))
        .build()
        .map_err(|cause| Error::option("timeout", chain(&cause)))
}

/// Sends a request and returns status and body.
///
/// # Errors
///
/// What went wrong, in words, if there was no complete answer of at most [`MAX_ANSWER_BYTES`].
pub(crate) async fn exchange(request: RequestBuilder) -> Result<(u16, Bytes), String> {
    let mut response = request.send().await.map_err(|cause| chain(&cause))?;
    let mut body = BytesMut::new();
    while let Some(part) = response.chunk().await.map_err(|cause| chain(&cause))? {
        if body.len() + part.len() > MAX_ANSWER_BYTES {
            return Err(format!("answer longer than {MAX_ANSWER_BYTES} bytes"));
        }
        body.extend_from_slice(&part);
    }
    Ok((response.status().as_u16(), body.freeze()))
}

/// Gets a JSON document.
///
/// # Errors
///
/// [`Error::Option`] for an address that is none; [`Error::Http`] without an answer, with another status than 200 and for an
/// answer that is no JSON.
pub async fn get_json(
    address: &str,
    default_path: &str,
    timeout: Duration,
) -> Result<serde_json::Value, Error> {
    let (url, body) = get(address, default_path, "application/json", timeout).await?;
    serde_json::from_slice(&body).map_err(|cause| Error::Http {
        url: url.to_string(),
        problem: format!("the answer is no JSON ({cause}): {}", shown(&body)),
    })
}

/// Gets a text.
///
/// # Errors
///
/// [`Error::Option`] for an address that is none; [`Error::Http`] without an answer, with another status than 200 and for an
/// answer that is no UTF-8.
pub async fn get_text(address: &str, default_path: &str, timeout: Duration) -> Result<String, Error> {
    let (url, body) = get(address, default_path, "*/*", timeout).await?;
    String::from_utf8(body.into()).map_err(|_| Error::Http {
        url: url.to_string(),
        problem: "the answer is no text in UTF-8".to_owned(),
    })
}

/// The address that was asked and the body of a 200.
async fn get(
    address: &str,
    default_path: &str,
    accept: &'static str,
    timeout: Duration,
) -> Result<(Url, Bytes), Error> {
    let url = endpoint("url", address, default_path)?;
    let fail = |problem| Error::Http { url: url.to_string(), problem };
    let request = client(timeout)?.get(url.clone()).header("accept", accept);
    let (status, body) = exchange(request).await.map_err(fail)?;
    if status != 200 {
        return Err(fail(format!("status {status}: {}", shown(&body))));
    }
    Ok((url, body))
}

/// The beginning of an answer, on one line.
pub(crate) fn shown(body: &[u8]) -> String {
    let text = String::from_utf8_lossy(&body[..body.len().min(4 * SHOWN_CHARS)]);
    let line: String = text.trim().chars().take(SHOWN_CHARS).collect();
    line.replace(['\n', '\r'], " ")
}

/// An error with its causes: reqwest's own text stops at "error sending request".
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bare_address_gets_the_path_of_its_use() {
        let url = |address| endpoint("url", address, "/api/v1/push").map(|url| url.to_string());
        assert_eq!(url("http://localhost:9009").unwrap(), "http://localhost:9009/api/v1/push");
        assert_eq!(url("http://localhost:9009/x/push").unwrap(), "http://localhost:9009/x/push");
        for bad in ["localhost:9009", "https://localhost", "nonsense", ""] {
            assert!(url(bad).unwrap_err().to_string().contains("`url`"), "{bad}");
        }
    }
}
