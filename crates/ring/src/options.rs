//! [`RingOptions`]: how a reader looks at a ring.

use std::time::Duration;

use crate::strategy::Strategy;

/// How a reader looks at a ring. All readers and writers of one ring must agree on replication and zones.
#[derive(Clone, Debug, PartialEq)]
pub struct RingOptions {
    /// The metrics' `name` label, such as `ingester`.
    pub name: String,
    /// Where the ring is stored, without the store's prefix.
    pub key: String,
    /// After how long without a heartbeat an instance counts as dead; zero = never.
    pub heartbeat_timeout: Duration,
    /// How many replicas a key has; 0 is taken as 1.
    pub replication_factor: usize,
    /// Whether replicas are spread over zones.
    pub zone_awareness_enabled: bool,
    /// Instances of these zones are ignored.
    pub excluded_zones: Vec<String>,
    /// How many of a key's replicas must be healthy.
    pub strategy: Strategy,
    /// Whether metrics tell each member's tokens.
    pub detailed_metrics: bool,
}

impl Default for RingOptions {
    fn default() -> Self {
        Self {
            name: "ingester".into(),
            key: "ring".into(),
            heartbeat_timeout: Duration::from_secs(60),
            replication_factor: 3,
            zone_awareness_enabled: false,
            excluded_zones: Vec::new(),
            strategy: Strategy::Quorum,
            detailed_metrics: true,
        }
    }
}
