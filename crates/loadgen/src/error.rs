//! Why a load or a verification could not be done.

use std::path::PathBuf;

/// Why a load or a verification could not be done (a sample that is missing is no error, but part of the report).
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// An option is out of range or contradicts another one.
    #[error("`{option}`: {problem}")]
    Option {
        /// Name of the option, as in [`crate::LoadOptions`] or [`crate::VerifyOptions`].
        option: &'static str,
        /// What is wrong with it and what to give instead.
        problem: String,
    },
    /// The ledger file cannot be read or written.
    #[error("ledger {}: {cause}", path.display())]
    LedgerIo {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        #[source]
        cause: std::io::Error,
    },
    /// The ledger file is damaged before its end, so that records are lost which nobody can name.
    #[error("ledger {}: damaged at byte {offset}: {problem}", path.display())]
    LedgerCorrupt {
        /// The file.
        path: PathBuf,
        /// Where the first bad record begins.
        offset: u64,
        /// What is wrong there.
        problem: &'static str,
    },
    /// The ledger belongs to a load with another plan.
    #[error("ledger {} was written with {found}, this load has {wanted}: use the same numbers or another file", path.display())]
    LedgerPlan {
        /// The file.
        path: PathBuf,
        /// Plan in the file.
        found: String,
        /// Plan of this load.
        wanted: String,
    },
    /// A read failed on every attempt, so that nothing can be said about the samples asked for.
    #[error("reading back from {url} failed: {problem}")]
    Read {
        /// Address asked.
        url: String,
        /// The last failure.
        problem: String,
    },
    /// A plain HTTP request failed.
    #[error("{url}: {problem}")]
    Http {
        /// Address asked.
        url: String,
        /// What happened.
        problem: String,
    },
}

impl Error {
    pub(crate) fn option(option: &'static str, problem: impl Into<String>) -> Self {
        Self::Option { option, problem: problem.into() }
    }
}
