//! Whose request this is: the tenant header and what may stand in it.

use std::fmt;
use std::sync::{Arc, LazyLock};

use axum::http::{HeaderMap, StatusCode};

/// The header, and gRPC metadata key, that names the tenant.
pub const HEADER: &str = "x-scope-orgid";

/// The tenant of every request when authentication is off.
pub const FAKE: &str = "fake";

/// The longest tenant id, in bytes.
pub const MAX_LENGTH: usize = 150;

/// A valid tenant id. Cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tenant(pub Arc<str>);

impl Tenant {
    /// The tenant of every request when authentication is off.
    pub fn fake() -> Self {
        static TENANT: LazyLock<Tenant> = LazyLock::new(|| Tenant(FAKE.into()));
        TENANT.clone()
    }

    /// The id.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Tenant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Why a request has no tenant. The texts are Cortex's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TenantError {
    /// Authentication is on and the header is missing or empty.
    #[error("no org id")]
    Missing,
    /// The id is longer than [`MAX_LENGTH`].
    #[error("tenant ID is too long: max {MAX_LENGTH} characters")]
    TooLong,
    /// The id is not made of `a-z A-Z 0-9 ! - _ . * ' ( )`.
    #[error("tenant ID '{id}' contains unsupported character '{character}'")]
    UnsupportedCharacter {
        /// The id, as far as it is text.
        id: String,
        /// The first offender.
        character: char,
    },
    /// The id would name a directory: `.` or `..`.
    #[error("tenant ID is '.' or '..'")]
    UnsafePath,
}

impl TenantError {
    /// 401 for a missing id, 400 for a bad one.
    pub fn status(&self) -> StatusCode {
        match self {
            Self::Missing => StatusCode::UNAUTHORIZED,
            _ => StatusCode::BAD_REQUEST,
        }
    }
}

/// The tenant named by `headers`, or [`FAKE`] when authentication is off.
///
/// # Errors
///
/// [`TenantError::Missing`] without the header, else as [`validate`].
pub fn resolve(headers: &HeaderMap, auth_enabled: bool) -> Result<Tenant, TenantError> {
    if !auth_enabled {
        return Ok(Tenant::fake());
    }
    let value = headers.get(HEADER).map(axum::http::HeaderValue::as_bytes).unwrap_or_default();
    if value.is_empty() {
        return Err(TenantError::Missing);
    }
    match std::str::from_utf8(value) {
        Ok(id) => validate(id).map(|()| Tenant(id.into())),
        Err(_) => {
            let id = String::from_utf8_lossy(value).into_owned();
            Err(TenantError::UnsupportedCharacter { id, character: char::REPLACEMENT_CHARACTER })
        }
    }
}

/// Checks that `id` may name a tenant: it becomes a directory, a metric label and an object prefix.
///
/// # Errors
///
/// The first rule broken.
///
/// # Source
///
/// Cortex `pkg/tenant/tenant.go`, `ValidTenantID`.
pub fn validate(id: &str) -> Result<(), TenantError> {
    if id.is_empty() {
        return Err(TenantError::Missing);
    }
    let allowed = |c: char| c.is_ascii_alphanumeric() || "!-_.*'()".contains(c);
    if let Some(character) = id.chars().find(|c| !allowed(*c)) {
        return Err(TenantError::UnsupportedCharacter { id: id.to_owned(), character });
    }
    if id.len() > MAX_LENGTH {
        return Err(TenantError::TooLong);
    }
    if id == "." || id == ".." {
        return Err(TenantError::UnsafePath);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    fn of(id: &[u8]) -> Result<Tenant, TenantError> {
        let mut headers = HeaderMap::new();
        headers.insert(HEADER, HeaderValue::from_bytes(id).unwrap());
        resolve(&headers, true)
    }

    #[test]
    fn the_header_names_the_tenant() {
        assert_eq!(of(b"team-a_1.x*'()!").unwrap().as_str(), "team-a_1.x*'()!");
    }

    #[test]
    fn without_authentication_everybody_is_the_same_tenant() {
        let mut headers = HeaderMap::new();
        headers.insert(HEADER, HeaderValue::from_static("../x"));
        assert_eq!(resolve(&headers, false).unwrap().as_str(), FAKE);
    }

    #[test]
    fn a_missing_id_is_401_and_a_bad_one_400() {
        let missing = resolve(&HeaderMap::new(), true).unwrap_err();
        assert_eq!((missing.status().as_u16(), missing.to_string().as_str()), (401, "no org id"));
        assert_eq!(of(b"").unwrap_err().status().as_u16(), 401);
        for bad in [&b"a/b"[..], b"a|b", b"..", b".", b"a b", "ü".as_bytes(), b"\xff", &[b'a'; 151]] {
            assert_eq!(of(bad).unwrap_err().status().as_u16(), 400, "{bad:?}");
        }
        assert!(of(&[b'a'; 150]).is_ok());
        assert_eq!(of(b"a/b").unwrap_err().to_string(), "tenant ID 'a/b' contains unsupported character '/'");
    }
}
