//! What Go peers need beyond tonic: status codes above 16, `snappy-block` compression, pools of health-checked
//! channels, and the health service as Cortex answers it.
//!
//! A server mounts [`SnappyLayer::server`] and [`HttpCodeLayer`] over all its services. A client gets its channels from
//! a [`Pool`], or builds one with [`peer`]; either way it is a [`PeerChannel`], which a generated client takes as it is.

pub mod health;
pub mod pool;
mod reframe;
pub mod snappy;
pub mod status;

pub use health::{HealthServer, health_server};
pub use pool::{PeerChannel, Pool, PoolOptions, PoolService, peer};
pub use snappy::{Compression, SnappyLayer};
pub use status::{HttpCodeLayer, http_code, http_status};
