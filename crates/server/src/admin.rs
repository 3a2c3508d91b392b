//! Who may change something: POST only, not from a foreign page, and with the token if there is one.

use std::fs;
use std::sync::Arc;

use axum::extract::Request;
use axum::http::{HeaderMap, Method, StatusCode, Uri, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse as _, Response};
use axum::{Router, http::HeaderName};
use ringkit_config::ServerConfig;

use crate::error::Error;
use crate::status::HttpError;

/// Guards actions that change something. Cheap to clone.
///
/// A browser tells where a request comes from: one from a foreign page is refused, so that nobody's visit to a page stops an
/// ingester. Other clients say nothing and pass. With `server.admin_token_file`, everybody needs
/// `Authorization: Bearer <token>` besides.
#[derive(Clone, Debug)]
pub(crate) struct Admin {
    token: Option<Arc<Token>>,
}

struct Token(String);

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("********")
    }
}

impl Admin {
    /// Reads the token, if one is configured.
    ///
    /// # Errors
    ///
    /// [`Error::AdminToken`] when the file cannot be read or is empty: an open door is not what was asked for.
    pub(crate) fn open(config: &ServerConfig) -> Result<Self, Error> {
        let file = &config.admin_token_file;
        if file.is_empty() {
            return Ok(Self { token: None });
        }
        let problem = |problem: String| Error::AdminToken { file: file.clone(), problem };
        let text = fs::read_to_string(file).map_err(|error| problem(error.to_string()))?;
        match text.trim() {
            "" => Err(problem("it is empty".to_owned())),
            token => Ok(Self { token: Some(Arc::new(Token(token.to_owned()))) }),
        }
    }

    /// Whether a browser's form can pass: not if a token is needed.
    pub(crate) fn takes_forms(&self) -> bool {
        self.token.is_none()
    }

    /// Whether a request with these headers may change something.
    ///
    /// # Errors
    ///
    /// 403 from a foreign page, 401 without the token.
    pub(crate) fn check(&self, headers: &HeaderMap) -> Result<(), HttpError> {
        if !is_same_origin(headers) {
            let message = "this request comes from a page of another origin";
            return Err(HttpError::new(StatusCode::FORBIDDEN, message));
        }
        let Some(token) = &self.token else { return Ok(()) };
        let given = text(headers, &header::AUTHORIZATION).and_then(|value| value.strip_prefix("Bearer "));
        if given.is_some_and(|given| same_secret(given.trim().as_bytes(), token.0.as_bytes())) {
            return Ok(());
        }
        let message = "this needs the token of `server.admin_token_file`, as `Authorization: Bearer <token>`";
        Err(HttpError::new(StatusCode::UNAUTHORIZED, message))
    }

    /// Puts the guard before every route of `router`.
    pub(crate) fn guard(&self, router: Router) -> Router {
        let admin = self.clone();
        router.layer(middleware::from_fn(move |request: Request, next: Next| {
            let admin = admin.clone();
            async move { admin.pass(request, next).await }
        }))
    }

    async fn pass(&self, request: Request, next: Next) -> Response {
        if request.method() != Method::POST {
            let refusal = HttpError::new(StatusCode::METHOD_NOT_ALLOWED, "this changes something: use POST");
            return ([(header::ALLOW, "POST")], refusal).into_response();
        }
        match self.check(request.headers()) {
            Ok(()) => next.run(request).await,
            Err(refusal) => refusal.into_response(),
        }
    }
}

/// What browsers say of a request's origin; all current ones send at least one of the two.
fn is_same_origin(headers: &HeaderMap) -> bool {
    const SITE: HeaderName = HeaderName::from_static("sec-fetch-site");
    if headers.contains_key(&SITE) {
        return matches!(text(headers, &SITE), Some("same-origin" | "none"));
    }
    if !headers.contains_key(header::ORIGIN) {
        return true;
    }
    let origin = text(headers, &header::ORIGIN).and_then(|origin| origin.parse::<Uri>().ok());
    let origin = origin.as_ref().and_then(Uri::authority).map(http::uri::Authority::as_str);
    origin.is_some() && origin == text(headers, &header::HOST)
}

fn text<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

/// Compares without telling by its duration how far two texts agree.
fn same_secret(one: &[u8], other: &[u8]) -> bool {
    one.len() == other.len() && one.iter().zip(other).fold(0, |differs, (a, b)| differs | (a ^ b)) == 0
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.insert(*name, value.parse().unwrap());
        }
        headers
    }

    fn admin(token: Option<&str>) -> Admin {
        Admin { token: token.map(|token| Arc::new(Token(token.to_owned()))) }
    }

    fn status(admin: &Admin, pairs: &[(&'static str, &'static str)]) -> u16 {
        admin.check(&headers(pairs)).map_or_else(|refusal| refusal.status.as_u16(), |()| 200)
    }

    #[test]
    fn foreign_pages_are_refused_and_everybody_else_passes() {
        let open = admin(None);
        for (pairs, expected) in [
            (&[][..], 200),
            (&[("sec-fetch-site", "same-origin")], 200),
            (&[("sec-fetch-site", "none")], 200),
            (&[("sec-fetch-site", "cross-site")], 403),
            (&[("sec-fetch-site", "same-site")], 403),
            (&[("origin", "http://a:80"), ("host", "a:80")], 200),
            (&[("origin", "http://b"), ("host", "a")], 403),
            (&[("origin", "null"), ("host", "a")], 403),
            (&[("origin", "http://a")], 403),
        ] {
            assert_eq!(status(&open, pairs), expected, "{pairs:?}");
        }
    }

    #[test]
    fn with_a_token_nobody_passes_without_it() {
        let closed = admin(Some("secret"));
        assert_eq!(status(&closed, &[("authorization", "Bearer secret")]), 200);
        for wrong in ["Bearer secre", "Bearer secret2", "Basic secret", "Bearer ", "secret"] {
            assert_eq!(status(&closed, &[("authorization", wrong)]), 401, "{wrong}");
        }
        assert_eq!(status(&closed, &[]), 401);
        assert_eq!(
            status(&closed, &[("authorization", "Bearer secret"), ("sec-fetch-site", "cross-site")]),
            403
        );
        assert!(!format!("{closed:?}").contains("secret"));
    }

    #[test]
    fn a_token_file_must_hold_a_token() {
        let of = |file: &str| {
            Admin::open(&ServerConfig { admin_token_file: file.into(), ..ServerConfig::default() })
        };
        assert!(of("").unwrap().takes_forms());
        let error = of("/nonexistent/token").unwrap_err().to_string();
        assert!(error.starts_with("`server.admin_token_file`: /nonexistent/token: "), "{error}");
        let mut file = tempfile::NamedTempFile::new().unwrap();
        assert!(of(file.path().to_str().unwrap()).unwrap_err().to_string().ends_with("it is empty"));
        writeln!(file, "secret").unwrap();
        let admin = of(file.path().to_str().unwrap()).unwrap();
        assert_eq!(status(&admin, &[("authorization", "Bearer secret")]), 200);
    }
}
