//! [`RingOptions`]: how a reader looks at a ring.

use std::time::Duration;

use crate::strategy::Strategy;

/// Whose rules decide where keys lie, where the two systems differ. All readers and writers of a ring must agree.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Dialect {
    /// Cortex.
    #[default]
    Cortex,
    /// dskit, as in Mimir, Loki and Tempo: one replica per zone at most, quorums counted before dead replicas are left out,
    /// read-only as a flag of its own. Use it with the operations that are named after it.
    Dskit,
}

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
    /// Whose rules decide where keys lie.
    pub dialect: Dialect,
    /// Whether only zones with tokens share the replicas. In Cortex a zone whose instances own nothing yet has a share too,
    /// so the first instance of a new zone costs every key a replica. With it, sets for reading the whole ring leave such zones out: they neither fail nor stand in
    /// for one that holds keys. Changes where keys lie: set it everywhere or nowhere.
    pub zones_with_tokens_only: bool,
    /// Whether a token that several instances claim belongs to the one whom a merge would leave it, rather than to the one
    /// with the greatest id as in Cortex. Changes where keys lie: set it everywhere or nowhere.
    pub merge_winner_owns_duplicates: bool,
    /// Whether metrics tell each member's tokens.
    pub detailed_metrics: bool,
    /// Whether tenants' shards are kept for the next request. False is Cortex's `subring_cache_disabled`.
    pub shard_cache: bool,
    /// In rings of more members than this, metrics do not tell each member's tokens, whatever `detailed_metrics` says.
    pub detailed_metrics_limit: usize,
    /// Which part of the members, 0 to 1, may vanish without a word, several at a time within a grace period, before their
    /// removal is held back; 0 = any. Who was LEAVING, LEFT or dead does not count, and rings below three members are not guarded.
    pub max_vanish_fraction: f64,
    /// For how long such removals are held back; `None` = `heartbeat_timeout`, or a minute if that is zero. Zero = not at
    /// all. Those held back age meanwhile like all others.
    pub vanish_grace: Option<Duration>,
}

impl RingOptions {
    /// For how long removals are held back.
    pub(crate) fn vanish_grace(&self) -> Duration {
        const WITHOUT_HEARTBEATS: Duration = Duration::from_secs(60);
        let timeout = Some(self.heartbeat_timeout).filter(|timeout| !timeout.is_zero());
        self.vanish_grace.or(timeout).unwrap_or(WITHOUT_HEARTBEATS)
    }
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
            dialect: Dialect::Cortex,
            zones_with_tokens_only: false,
            merge_winner_owns_duplicates: false,
            detailed_metrics: true,
            shard_cache: true,
            detailed_metrics_limit: 1000,
            max_vanish_fraction: 0.5,
            vanish_grace: None,
        }
    }
}
