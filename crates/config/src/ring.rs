//! Rings: the ingester ring's own keys, and what all rings share.

use std::time::Duration;

use crate::{
    kv::{ConsulConfig, EtcdConfig, KvStore, KvStoreConfig, MultiConfig},
    problems::Rules,
    schema::section,
    units::{AutoDuration, Csv, Optional},
};

section! {
    /// The ingester ring, as every process reads it.
    pub struct RingConfig {
        /// Key-value store of this ring.
        pub kvstore: KvStoreConfig, "";
        /// Age of a heartbeat after which an instance counts as unhealthy; 0 means never.
        pub heartbeat_timeout: Duration = Duration::from_secs(60), "ring.heartbeat-timeout";
        /// Ingesters that hold each series.
        pub replication_factor: usize = 3, "distributor.replication-factor";
        /// Spread the replicas of a series over zones.
        pub zone_awareness_enabled: bool = false, "distributor.zone-awareness-enabled";
        /// Zones whose instances are left out, separated by commas.
        pub excluded_zones: Vec<String> as Csv, "distributor.excluded-zones";
        /// Metrics per member of the ring.
        pub detailed_metrics_enabled: bool = true, "ring.detailed-metrics-enabled";
    }
}

section! {
    /// Defaults for every ring of this process (ringkit's own block).
    pub struct RingDefaults {
        /// Store of every ring that sets none of its own; empty means consul, as in Cortex. The flag `-ring.store` is Cortex's and sets the ingester ring's store only.
        pub store: Option<KvStore> as Optional, "ring.default-store";
        /// Backend blocks for rings that have none of their own.
        pub kvstore: BackendsConfig, "ring.kvstore.";
        /// Largest part of a ring's members (0 to 1) that may vanish from the store, several at a time, without having left; the removal of more is held back. A member that vanishes alone is removed. 0 means no guard.
        pub max_vanish_fraction: f64 = 0.5, "ring.max-vanish-fraction";
        /// How long such removals are held back; auto means the ring's heartbeat timeout, or 1m if that is 0.
        pub vanish_grace: AutoDuration, "ring.vanish-grace";
    }
}

section! {
    /// Backend blocks that rings share.
    pub struct BackendsConfig {
        /// Keys in Consul and etcd: single (one for the whole ring, as Cortex) or per_instance (one for each instance).
        pub layout: crate::Layout, "layout";
        /// Consul client.
        pub consul: ConsulConfig, "consul.";
        /// etcd client.
        pub etcd: EtcdConfig, "etcd.";
        /// Two stores at once.
        pub multi: MultiConfig, "multi.";
    }
    extra {
        /// Which blocks were given. Set by the loader.
        #[doc(hidden)]
        pub own: crate::kv::Own;
    }
}

impl RingConfig {
    pub(crate) fn validate(&self, rules: &mut Rules<'_>) {
        let Self {
            // Rings share stores: the root checks them.
            kvstore: _,
            heartbeat_timeout: _,
            replication_factor,
            zone_awareness_enabled: _,
            excluded_zones: _,
            detailed_metrics_enabled: _,
        } = self;
        rules.require(*replication_factor > 0, "replication_factor", "must be at least 1");
        rules.advise(
            *replication_factor != 2,
            "replication_factor",
            "with 2 replicas a quorum is both of them: one ingester that is down stops all writes",
        );
    }
}

impl RingDefaults {
    pub(crate) fn validate(&self, rules: &mut Rules<'_>) {
        // The backends are checked where a ring uses them.
        let Self {
            store: _,
            kvstore: BackendsConfig { layout: _, consul: _, etcd: _, multi: _, own: _ },
            max_vanish_fraction,
            vanish_grace: _,
        } = self;
        rules.require(
            (0.0..=1.0).contains(max_vanish_fraction),
            "max_vanish_fraction",
            "is a part of the members: from 0 (no guard) to 1",
        );
    }
}
