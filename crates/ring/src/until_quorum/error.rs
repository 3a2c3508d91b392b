//! Why asking a set of instances came to nothing.

use std::any::Any;
use std::fmt;
use std::sync::Arc;

use crate::cancel::Cancelled;
use crate::snapshot::Instance;

/// How one call failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault<E> {
    /// It returned an error.
    #[error(transparent)]
    Error(E),
    /// It panicked; the text of the panic.
    #[error("the call panicked: {0}")]
    Panicked(String),
}

impl<E> Fault<E> {
    /// Whether the same call may succeed later, as far as can be told here: what it returned may know better.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Error(_) => true,
            Self::Panicked(_) => false,
        }
    }

    pub(super) fn from_panic(panic: &(dyn Any + Send)) -> Self {
        let text = text_of(panic);
        tracing::error!(panic = text, "a call to an instance panicked");
        Self::Panicked(text.to_owned())
    }
}

/// What a panic says.
pub(super) fn text_of(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("no text")
}

/// Why asking a set of instances came to nothing.
///
/// The texts are Cortex's, which say the cause as well; as an error with a source it is there for whoever looks for it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FanoutError<E> {
    /// More instances, or zones, failed than may.
    #[error("({}) {fault}", .instance.addr())]
    Failed {
        /// Whose failure was one too many.
        instance: Arc<Instance>,
        /// How it failed.
        #[source]
        fault: Fault<E>,
    },
    /// An instance returned an error that speaks for all.
    #[error("({}) {error}", .instance.addr())]
    Terminal {
        /// Who returned it.
        instance: Arc<Instance>,
        /// What it returned.
        #[source]
        error: E,
    },
    /// The owner of the request gave up.
    #[error(transparent)]
    Cancelled(#[from] Cancelled),
    /// Tolerance by instance makes no sense in a set that answers by zone. Nobody was called.
    #[error("invalid replication set: max_errors is {max_errors} and zone awareness is enabled")]
    MaxErrorsWithZones {
        /// How many errors the set tolerates.
        max_errors: usize,
    },
    /// There are no sets to ask.
    #[error("no replication sets")]
    NoSets,
}

impl<E> FanoutError<E> {
    /// Whether the same request may succeed later: if it failed for what its calls returned, other than one that spoke for
    /// all.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Failed { fault, .. } => fault.is_retryable(),
            Self::Terminal { .. } | Self::Cancelled(_) | Self::MaxErrorsWithZones { .. } | Self::NoSets => {
                false
            }
        }
    }

    /// What the deciding instance returned; `None` if it panicked or none decided.
    pub fn into_error(self) -> Option<E> {
        match self {
            Self::Failed { fault: Fault::Error(error), .. } | Self::Terminal { error, .. } => Some(error),
            Self::Failed { fault: Fault::Panicked(_), .. }
            | Self::Cancelled(_)
            | Self::MaxErrorsWithZones { .. }
            | Self::NoSets => None,
        }
    }
}

/// The answer is not complete: who did not contribute, in order of failure.
///
/// The text is Cortex's: a first line that clients look for, and a line per failure.
#[derive(Clone, Debug, thiserror::Error)]
pub struct PartialData<E> {
    /// Failures in the order in which they came.
    pub faults: Vec<(Arc<Instance>, Fault<E>)>,
    pub(super) by_zone: bool,
}

impl<E: fmt::Display> fmt::Display for PartialData<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("query result may contain partial data")?;
        for (instance, fault) in &self.faults {
            if self.by_zone {
                write!(f, "\n({}, {}) {fault}", instance.addr(), instance.zone())?;
            } else {
                write!(f, "\n({}) {fault}", instance.addr())?;
            }
        }
        Ok(())
    }
}
