//! `POST /api/v1/push`: Prometheus remote write 1.0 over HTTP.

use std::sync::Arc;

use axum::body::Body;
use http::{HeaderMap, header};
use prost::Message as _;
use ringkit_proto::cortexpb::WriteRequest;
use ringkit_server::Tenant;

use crate::body;
use crate::distributor::Distributor;
use crate::error::Refusal;

/// What a client is told whose format is not understood.
const ACCEPTED: &str = "only remote write 1.0 is accepted: Content-Type `application/x-protobuf` or \
    `application/x-protobuf;proto=prometheus.WriteRequest`, Content-Encoding `snappy`";

/// Takes one write request of `tenant`. Returning `Ok` is the promise that it is stored.
///
/// # Errors
///
/// 503 under overload, 415 for another format, 413 for too large a body, 400 for a broken one, and what [`Distributor::push`] says.
pub(crate) async fn push(
    distributor: &Arc<Distributor>,
    tenant: &Tenant,
    headers: &HeaderMap,
    body: Body,
) -> Result<(), Refusal> {
    let _inflight = distributor.admit()?;
    check_format(headers).inspect_err(|_| distributor.metrics.reject("content_type"))?;
    let max = distributor.config.distributor.max_recv_msg_size;
    let refuse = |error: &body::Error| {
        distributor.metrics.reject(error.reason());
        Refusal::new(error.status(), error.to_string())
    };
    let compressed = body::read(headers, body, max).await.map_err(|error| refuse(&error))?;
    let bytes = body::decompress(&compressed, max).map_err(|error| refuse(&error))?;
    drop(compressed);
    let request = WriteRequest::decode(bytes).map_err(|error| {
        distributor.metrics.reject("protobuf");
        Refusal::new(400, format!("the body is not a remote-write request: {error}"))
    })?;
    distributor.push(tenant, &request).await
}

/// Whether the headers describe remote write 1.0. Missing ones are taken to, as in Cortex.
fn check_format(headers: &HeaderMap) -> Result<(), Refusal> {
    let text = |name| headers.get(name).map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned());
    let refuse = |what: &str, value: &str| {
        let value = crate::text::quote(value.as_bytes());
        Err(Refusal::new(415, format!("{what} {value} is not accepted by this server; {ACCEPTED}")))
    };
    let encoding = text(header::CONTENT_ENCODING).unwrap_or_default();
    if !encoding.is_empty() && !encoding.eq_ignore_ascii_case("snappy") {
        return refuse("Content-Encoding", &encoding);
    }
    let Some(content_type) = text(header::CONTENT_TYPE).filter(|value| !value.is_empty()) else {
        return Ok(());
    };
    let mut parts = content_type.split(';').map(str::trim);
    let protobuf = parts.next().is_some_and(|kind| kind.eq_ignore_ascii_case("application/x-protobuf"));
    let is_v1 = |parameter: &str| match parameter.split_once('=') {
        Some((name, value)) if name.trim().eq_ignore_ascii_case("proto") => {
            value.trim().trim_matches('"') == "prometheus.WriteRequest"
        }
        _ => true,
    };
    if protobuf && parts.all(is_v1) { Ok(()) } else { refuse("Content-Type", &content_type) }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn check(content_type: Option<&'static str>, encoding: Option<&'static str>) -> Option<u16> {
        let mut headers = HeaderMap::new();
        if let Some(value) = content_type {
            headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(value));
        }
        if let Some(value) = encoding {
            headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static(value));
        }
        check_format(&headers).err().map(|refusal| refusal.status())
    }

    #[test]
    fn remote_write_1_is_accepted_in_every_spelling() {
        for content_type in [
            None,
            Some(""),
            Some("application/x-protobuf"),
            Some("Application/X-Protobuf; charset=utf-8"),
            Some("application/x-protobuf;proto=prometheus.WriteRequest"),
            Some("application/x-protobuf; proto=\"prometheus.WriteRequest\""),
        ] {
            for encoding in [None, Some(""), Some("snappy"), Some("Snappy")] {
                assert_eq!(check(content_type, encoding), None, "{content_type:?} {encoding:?}");
            }
        }
    }

    #[test]
    fn anything_else_is_told_what_is_accepted() {
        for content_type in [
            "application/json",
            "application/x-protobuf;proto=io.prometheus.write.v2.Request",
            ";",
            "text/plain",
        ] {
            assert_eq!(check(Some(content_type), None), Some(415), "{content_type}");
        }
        assert_eq!(check(None, Some("gzip")), Some(415));
        let mut headers = HeaderMap::new();
        headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static("zstd"));
        let text = check_format(&headers).unwrap_err().to_string();
        assert!(text.contains("\"zstd\"") && text.contains("remote write 1.0"), "{text}");
    }
}
