//! Wire types of the services: messages and gRPC stubs, compiled from `proto/*.proto`, and no logic beyond [`walk`],
//! which reads encoded series in place.
//!
//! Every `bytes` field is a [`bytes::Bytes`], so decoding from one slices instead of copying.

pub mod walk;

pub use walk::{SeriesView, WalkError};

/// Declares a module of generated code.
macro_rules! generated {
    ($(#[$doc:meta])* $name:ident, $package:literal) => {
        $(#[$doc])*
        #[allow(
            missing_docs,
            unreachable_pub,
            rust_2018_idioms,
            clippy::all,
            clippy::pedantic,
            clippy::unwrap_used,
            clippy::expect_used,
            reason = "generated code: documented in proto/*.proto where there is something to say"
        )]
        pub mod $name {
            tonic::include_proto!($package);
        }
    };
}

generated!(
    /// Samples, labels and write requests, shared by the services (package `cortexpb`).
    cortexpb,
    "cortexpb"
);
generated!(
    /// The ingester's gRPC service, client and server, and its messages (package `cortex`).
    client,
    "cortex"
);
generated!(
    /// Prometheus remote read (package `prometheus`).
    remote,
    "prometheus"
);
generated!(
    /// HTTP answers inside gRPC errors (package `httpgrpc`).
    httpgrpc,
    "httpgrpc"
);
generated!(
    /// The error detail message of gRPC (package `google.rpc`).
    rpc,
    "google.rpc"
);

/// [`client::Chunk::encoding`] of a Prometheus XOR chunk.
pub const ENCODING_PROMETHEUS_XOR: i32 = 4;
