//! Why a launcher failed, with what a developer should do about it.

use std::path::PathBuf;
use std::time::Duration;

/// Why something a test needs is not there.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A program is not installed.
    #[error("`{program}` is not on the PATH; install it with:  {install}")]
    NotInstalled {
        /// Its name.
        program: String,
        /// The one line to run.
        install: String,
    },
    /// A process could not be started or signalled.
    #[error("{what} {}: {cause}", program.display())]
    Process {
        /// What was tried.
        what: &'static str,
        /// The program.
        program: PathBuf,
        /// What the operating system said.
        #[source]
        cause: std::io::Error,
    },
    /// A process ended although it should have gone on.
    #[error("{name} ended early ({status}); its last output:\n{output}")]
    Ended {
        /// The process.
        name: String,
        /// How it ended.
        status: String,
        /// The last lines.
        output: String,
    },
    /// Something did not happen in time.
    #[error("{what}: not within {within:?}{detail}")]
    Late {
        /// What was waited for.
        what: String,
        /// For how long.
        within: Duration,
        /// What was seen instead, beginning on a new line, or empty.
        detail: String,
    },
    /// An HTTP request got no usable answer.
    #[error("{method} {url}: {problem}")]
    Http {
        /// GET or POST.
        method: &'static str,
        /// The address.
        url: String,
        /// What happened.
        problem: String,
    },
    /// A file or socket of the test itself failed.
    #[error("{what}: {cause}")]
    Io {
        /// What was tried.
        what: String,
        /// What the operating system said.
        #[source]
        cause: std::io::Error,
    },
}

impl Error {
    pub(crate) fn io(what: impl Into<String>, cause: std::io::Error) -> Self {
        Self::Io { what: what.into(), cause }
    }
}
