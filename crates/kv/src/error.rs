//! Why a key-value operation failed.

use std::time::Duration;

use ringkit_runtime::Cause;

use crate::codec::DecodeError;
use crate::store::EntryId;

/// Why a key-value operation failed. Messages are complete: causes are part of them, not behind `source()`.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Other writers changed the key between our read and our write on every attempt. Nothing was written.
    #[error("compare-and-swap on `{key}` lost {attempts} races in a row")]
    Contended {
        /// The key.
        key: String,
        /// How often it was tried.
        attempts: u32,
    },
    /// The backend did not answer, or answered with a fault of its own. A write may or may not have landed.
    #[error("key-value store {backend} is unavailable: {}", chain(&**cause))]
    Unavailable {
        /// Which backend.
        backend: &'static str,
        /// What it said.
        cause: Cause,
    },
    /// What is stored cannot be read. Somebody else wrote it, or with another codec: look at the entry, forget or delete it.
    #[error("cannot read {}: {cause}", place(key, entry.as_ref()))]
    Decode {
        /// The key.
        key: String,
        /// The entry at fault; none if the value as a whole is unreadable.
        entry: Option<EntryId>,
        /// What is wrong with the bytes.
        cause: DecodeError,
    },
    /// The change would exceed a bound of the store. Nothing was written.
    #[error("cannot write `{key}`: {size} {what} exceed the limit of {limit}{}", remedy(what))]
    TooLarge {
        /// The key.
        key: String,
        /// What is counted, with its unit.
        what: &'static str,
        /// How much it would be.
        size: usize,
        /// How much it may be.
        limit: usize,
    },
    /// No answer in time. A write may or may not have landed.
    #[error("{operation} of `{key}` on {backend} did not finish within {after:?}")]
    Deadline {
        /// Which operation, as in the metrics' labels.
        operation: &'static str,
        /// The key or prefix.
        key: String,
        /// Which backend.
        backend: &'static str,
        /// How long it was given.
        after: Duration,
    },
    /// The configured store is not part of this build.
    #[error(
        "key-value store `{store}` is not available in this build; set `kvstore.store: inmemory` for `{kv_name}` to run within one process"
    )]
    NotBuilt {
        /// The configured store.
        store: String,
        /// Whose configuration it is, for example `ingester-ring`.
        kv_name: String,
    },
    /// The configuration of the store cannot be used.
    #[error("cannot use {backend}: `{key}` {reason}")]
    Misconfigured {
        /// Which backend.
        backend: &'static str,
        /// The key of its block.
        key: &'static str,
        /// What is wrong with it.
        reason: String,
    },
    /// The server understood and said no; asking again does not help.
    #[error("{backend} refused a request: {reason}")]
    Refused {
        /// Which backend.
        backend: &'static str,
        /// What it said.
        reason: String,
    },
    /// The key is kept in another layout than this process is configured for. Nothing was written.
    #[error(
        "`{key}` is kept in the layout `{found}`: set `kvstore.layout: {found}` for this ring, the same in all processes, or delete the key"
    )]
    OtherLayout {
        /// The key.
        key: String,
        /// The layout that was found.
        found: &'static str,
    },
    /// More entries than fit into one transaction of the server were to be written, and another writer came in between.
    #[error(
        "only some of the entries of `{key}` were written before somebody else wrote it: read it and decide again"
    )]
    Partly {
        /// The key.
        key: String,
    },
    /// The decision of a compare-and-swap said no. Nothing was written.
    #[error("compare-and-swap on `{key}` was given up: {}", chain(&**cause))]
    Aborted {
        /// The key.
        key: String,
        /// What the decision said.
        cause: Cause,
    },
    /// The store was closed.
    #[error("the key-value store was closed")]
    Closed,
}

impl Error {
    /// Whether the same call may succeed later without anyone changing anything.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Contended { .. } | Self::Unavailable { .. } | Self::Deadline { .. } => true,
            Self::Decode { .. }
            | Self::TooLarge { .. }
            | Self::NotBuilt { .. }
            | Self::Misconfigured { .. }
            | Self::Refused { .. }
            | Self::OtherLayout { .. }
            | Self::Partly { .. }
            | Self::Aborted { .. }
            | Self::Closed => false,
        }
    }
}

/// What helps against a value that is too large for its store.
pub(crate) const REMEDY: &str = "use fewer tokens per instance, forget instances that are gone, use `kvstore.layout: per_instance`, or raise the \
                                 server's own limit and `max_value_bytes` with it";
/// What is counted when a whole value is too large.
pub(crate) const WHOLE_VALUE: &str = "bytes of the whole value";
/// What is counted when an entry is too large that has a key of its own.
pub(crate) const ONE_ENTRY: &str = "bytes of one entry";

fn remedy(what: &str) -> String {
    if what == WHOLE_VALUE { format!(": {REMEDY}") } else { String::new() }
}

/// An error with its causes, so that a message is complete wherever it ends up.
pub(crate) fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

fn place(key: &str, entry: Option<&EntryId>) -> String {
    match entry {
        Some(entry) => format!("entry `{entry}` of `{key}`"),
        None => format!("the value of `{key}`"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_name_the_thing_at_fault() {
        let cause = DecodeError::new("truncated");
        let error = Error::Decode { key: "ring".into(), entry: Some("a".into()), cause: cause.clone() };
        assert_eq!(error.to_string(), "cannot read entry `a` of `ring`: truncated");
        let refused = std::io::Error::new(std::io::ErrorKind::ConnectionRefused, cause.clone());
        let error = Error::Unavailable { backend: "consul", cause: Box::new(refused) };
        assert!(error.to_string().ends_with("consul is unavailable: truncated"), "{error}");
        let error = Error::Decode { key: "ring".into(), entry: None, cause };
        assert_eq!(error.to_string(), "cannot read the value of `ring`: truncated");
    }
}
