//! Why something about an instance's life failed.

use std::path::PathBuf;

use ringkit_ring::State;

use crate::tokens_file::Problem;

/// Why something about an instance's life failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// An instance cannot go from one state to the other. Nothing changed.
    #[error("changing instance state from {from} -> {to} is disallowed")]
    Disallowed {
        /// The state it is in.
        from: State,
        /// The state asked for.
        to: State,
    },
    /// The state changed within the process, but the ring does not know yet: the store failed. It is tried again until
    /// it works.
    #[error("instance is {state}, but the ring does not know yet: {cause}")]
    Unpublished {
        /// The state it is in.
        state: State,
        /// What the store said.
        cause: String,
    },
    /// The change was made, and another one after it before the ring knew.
    #[error("instance went on from {to} to {state} before the ring knew")]
    Superseded {
        /// The state asked for.
        to: State,
        /// The state it is in.
        state: State,
    },
    /// The instance does not take part in the ring, so it has no tokens to renew.
    #[error("instance is {state} and does not take part in the ring yet, or no longer")]
    NotJoined {
        /// The state it is in.
        state: State,
    },
    /// The lifecycler has stopped.
    #[error("lifecycler not running")]
    NotRunning,
    /// The configuration does not describe an instance.
    #[error("{key}: {problem}")]
    Config {
        /// Path of the key at fault.
        key: &'static str,
        /// What is wrong, and what to do.
        problem: String,
    },
    /// The tokens file cannot be read, used or written.
    #[error("tokens file `{}`: {problem}", path.display())]
    TokensFile {
        /// The file.
        path: PathBuf,
        /// What is wrong, and what to do.
        problem: Problem,
    },
}
