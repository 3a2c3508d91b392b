//! What a person sees of a process: pages without outside assets, readable on a phone, light or dark as the reader
//! prefers.

mod config;
mod index;
pub(crate) mod memberlist;
pub(crate) mod multikv;
pub(crate) mod ring;
pub(crate) mod runtime_config;
mod services;
mod table;
mod time;

use std::fmt;
use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::sync::Arc;

use axum::Router;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{Html, IntoResponse as _, Response};
use axum::routing::get;
use metrics_exporter_prometheus::PrometheusHandle;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use ringkit_config::Config;
use ringkit_runtime::Meter;
use tokio::sync::watch;

use crate::process::Link;
use crate::ready::Ready;
use crate::status::text;

/// Sections of the index page, named as in Cortex.
pub(crate) const ADMIN: &str = "Admin Endpoints:";

/// The routes that every process has.
pub(crate) fn routes(
    config: &Arc<Config>,
    ready: &Ready,
    mut links: Vec<Link>,
    recorder: PrometheusHandle,
    meter: &Meter,
    scrapes: watch::Sender<u64>,
) -> Router {
    for (path, title) in [
        ("/config", "Current Config (including the default values)"),
        ("/config?mode=diff", "Current Config (show only values that differ from the defaults)"),
        ("/services", "Service Status"),
        ("/ready", "Readiness"),
        ("/metrics", "Metrics"),
    ] {
        links.push(Link { section: ADMIN, path: path.to_owned(), title: title.to_owned() });
    }
    let mut router = Router::new()
        .merge(index::routes(&config.server.http_path_prefix, &links))
        .merge(services::routes(ready))
        .merge(config::routes(Arc::clone(config)))
        .route(
            "/ready",
            get({
                let ready = ready.clone();
                async move || match ready.check() {
                    Ok(()) => match ready.remarks() {
                        remarks if remarks.is_empty() => text(StatusCode::OK, "ready"),
                        remarks => text(StatusCode::OK, format!("ready\n{remarks}")),
                    },
                    Err(reasons) => text(StatusCode::SERVICE_UNAVAILABLE, reasons + &ready.remarks()),
                }
            }),
        );
    if config.server.register_instrumentation {
        let meter = meter.clone();
        router = router.route(
            "/metrics",
            get(async move || {
                let page = metrics_page(&recorder, &meter);
                scrapes.send_modify(|scrapes| *scrapes += 1);
                page
            }),
        );
    }
    router
}

fn metrics_page(recorder: &PrometheusHandle, meter: &Meter) -> Response {
    const TYPE: HeaderValue = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    ([(header::CONTENT_TYPE, TYPE)], metrics_text(recorder, meter)).into_response()
}

/// All metrics of a process, in the text exposition format.
pub(crate) fn metrics_text(recorder: &PrometheusHandle, meter: &Meter) -> String {
    recorder.run_upkeep();
    let mut text = recorder.render();
    text.push_str(&meter.render_collected());
    text
}

/// Whether the caller asks for JSON, by Cortex's rule: the header contains the words.
pub(crate) fn wants_json(headers: &HeaderMap) -> bool {
    let accepted = headers.get_all(header::ACCEPT).iter();
    accepted.filter_map(|value| value.to_str().ok()).any(|value| value.contains("application/json"))
}

/// A whole page. `body` is HTML, the title is text.
pub(crate) fn page(title: &str, body: &str) -> Response {
    const POLICY: HeaderValue = HeaderValue::from_static(
        "default-src 'none'; style-src 'unsafe-inline'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'",
    );
    ([(header::CONTENT_SECURITY_POLICY, POLICY)], document(title, "", body)).into_response()
}

/// A whole page with a script, the only one that may run on it, and a style of its own behind the common one.
pub(crate) fn page_with_script(title: &str, style: &str, body: &str, script: &str) -> Response {
    let nonce = nonce();
    let policy = format!(
        "default-src 'none'; script-src 'nonce-{nonce}'; connect-src 'self'; style-src 'unsafe-inline'; \
         form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
    );
    let body = format!("{body}<script nonce=\"{nonce}\">{script}</script>\n");
    ([(header::CONTENT_SECURITY_POLICY, policy)], document(title, style, &body)).into_response()
}

fn document(title: &str, style: &str, body: &str) -> Html<String> {
    let title = Escaped(title);
    Html(format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta name=\"color-scheme\" content=\"light dark\">\n\
         <title>{title} · ringkit</title>\n<style>{STYLE}{style}</style>\n</head>\n<body>\n<main>\n\
         <h1>{title}</h1>\n{body}</main>\n</body>\n</html>\n"
    ))
}

/// What nobody can guess, once per answer: only the page's own script carries it, so no other one runs.
fn nonce() -> String {
    // The keys of each state come from the operating system's source of randomness.
    let half = || RandomState::new().build_hasher().finish();
    format!("{:016x}{:016x}", half(), half())
}

/// Text that stands for itself in HTML, between tags and in quoted attributes.
pub(crate) struct Escaped<'a>(pub(crate) &'a str);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rest = self.0;
        while let Some(at) = rest.find(['&', '<', '>', '"', '\'']) {
            let (plain, special) = rest.split_at(at);
            f.write_str(plain)?;
            let mut letters = special.chars();
            f.write_str(match letters.next() {
                Some('&') => "&amp;",
                Some('<') => "&lt;",
                Some('>') => "&gt;",
                Some('"') => "&quot;",
                _ => "&#39;",
            })?;
            rest = letters.as_str();
        }
        f.write_str(rest)
    }
}

/// What cannot stand for itself in the query of an address.
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// Text as a value in the query of an address.
pub(crate) struct Encoded<'a>(pub(crate) &'a str);

impl fmt::Display for Encoded<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&utf8_percent_encode(self.0, ENCODED), f)
    }
}

const STYLE: &str = include_str!("pages/style.css");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn html_is_escaped() {
        let hostile = "<script>alert('x')</script> & \"ü\"";
        let safe = "&lt;script&gt;alert(&#39;x&#39;)&lt;/script&gt; &amp; &quot;ü&quot;";
        assert_eq!(Escaped(hostile).to_string(), safe);
        assert_eq!(Escaped("").to_string(), "");
    }

    #[test]
    fn addresses_are_encoded() {
        assert_eq!(Encoded("collectors/ring ü&'").to_string(), "collectors%2Fring%20%C3%BC%26%27");
    }
}
