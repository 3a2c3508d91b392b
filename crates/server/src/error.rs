//! Why a process could not be started.

use std::io;

/// Why [`AppBuilder::start`](crate::AppBuilder::start) failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A listener could not be opened.
    #[error(
        "cannot listen on {address}: {cause}; it is set by `server.{protocol}_listen_address` and \
         `server.{protocol}_listen_port` (flag `-server.{protocol}-listen-port`): {advice}"
    )]
    Listen {
        /// `http` or `grpc`.
        protocol: &'static str,
        /// What was asked for.
        address: String,
        /// What the operating system said.
        #[source]
        cause: io::Error,
        /// What to do.
        advice: &'static str,
    },
    /// The modules could not be put together or built.
    #[error(transparent)]
    Modules(#[from] ringkit_runtime::Error),
    /// Two roles serve the same path, or a path is malformed.
    #[error("HTTP routes do not fit together: {message}")]
    Routes {
        /// What is wrong with them.
        message: String,
    },
    /// The file with the admin token is of no use.
    #[error("`server.admin_token_file`: {file}: {problem}")]
    AdminToken {
        /// The file.
        file: String,
        /// What is wrong with it.
        problem: String,
    },
    /// The runtime configuration cannot be read or used.
    #[error("failed to load runtime config: {problem}")]
    RuntimeConfig {
        /// What is wrong with it, one problem per line.
        problem: String,
    },
    /// The buckets or labels of the metrics were refused.
    #[error("metrics recorder: {message}")]
    Recorder {
        /// What is wrong with it.
        message: String,
    },
}
