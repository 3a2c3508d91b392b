//! The distributor.

use std::time::Duration;

use crate::{
    kv::KvStoreConfig,
    lifecycler::{check_auto_forget, interfaces},
    limits::LimitsConfig,
    problems::Rules,
    schema::section,
    units::{Hostname, choice, hostname},
    validate::heartbeats,
};

choice! {
    /// Which instances serve a tenant.
    pub enum ShardingStrategy {
        /// All of them.
        Default = "default",
        /// A shard of its own for each tenant.
        ShuffleSharding = "shuffle-sharding",
    }
}

choice! {
    /// Which answers of ingesters make a read complete.
    pub enum ReadQuorum {
        /// Enough of those that were there when the data was written.
        Aware = "aware",
        /// Enough of any, as in Cortex.
        Cortex = "cortex",
    }
}

section! {
    /// The distributor.
    pub struct DistributorConfig {
        /// Connections to ingesters.
        pub pool: PoolConfig, "";
        /// Choice of one among several replicas of a Prometheus (not built yet).
        pub ha_tracker: HaTrackerConfig, "ha-tracker.";
        /// Largest remote-write request, in bytes, before and after decompression.
        pub max_recv_msg_size: usize = 104_857_600, "max-recv-msg-size";
        /// Largest OTLP request, in bytes; ringkit does not take OTLP.
        pub otlp_max_recv_msg_size: usize = 104_857_600, "otlp-max-recv-msg-size", unused;
        /// Longest wait for an ingester.
        pub remote_timeout: Duration = Duration::from_secs(2), "remote-timeout";
        /// Wait before asking more ingesters than a read needs.
        pub extra_queue_delay: Duration = Duration::ZERO, "extra-query-delay";
        /// Ingesters of a tenant: default (all) or shuffle-sharding.
        pub sharding_strategy: ShardingStrategy, "sharding-strategy";
        /// Place a series by all its labels. ringkit always does, so `false` has no effect; set `true` here and in Go processes that share the ring.
        pub shard_by_all_labels: bool = false, "shard-by-all-labels";
        /// Write to the next instance where one is not ACTIVE.
        pub extend_writes: bool = true, "extend-writes";
        /// Sign write requests.
        pub sign_write_requests: bool = false, "sign-write-requests", unused;
        /// Keys for signing, separated by commas.
        pub sign_write_requests_keys: crate::Secret, "sign-write-requests-keys", unused;
        /// Push over streams.
        pub use_stream_push: bool = false, "use-stream-push", unused;
        /// Accept remote write 2.0.
        pub remote_writev2_enabled: bool = false, "remote-writev2-enabled", unused;
        /// Accept write requests of an unknown content type.
        pub accept_unknown_remote_write_content_type: bool = false, "accept-unknown-remote-write-content-type", unused;
        /// The distributors' own ring, joined when `limits.ingestion_rate_strategy` is global.
        pub ring: DistributorRingConfig, "ring.";
        /// Worker threads for pushes in Cortex.
        pub num_push_workers: usize = 0, "num-push-workers", unused;
        /// Worker threads for queries in Cortex.
        pub num_query_workers: usize = 0, "num-query-workers", unused;
        /// Limits of the whole process.
        pub instance_limits: DistributorInstanceLimits, "instance-limits.";
        /// Time that ingesters beyond the quorum of a read get to add their data; 0 means none, as in Cortex (ringkit's own key).
        pub read_grace: Duration = Duration::from_millis(100), "read-grace";
        /// Which answers make a read complete: aware (of who was there when the data was written) or cortex (ringkit's own key).
        pub read_quorum: ReadQuorum, "read-quorum";
    }
}

section! {
    /// Connections to ingesters.
    pub struct PoolConfig {
        /// Time between two looks for connections that are no longer needed.
        pub client_cleanup_period: Duration = Duration::from_secs(15), "client-cleanup-period";
        /// Check the health of each ingester then.
        pub health_check_ingesters: bool = true, "health-check-ingesters";
    }
}

section! {
    /// Choice of one among several replicas of a Prometheus (not built yet).
    pub struct HaTrackerConfig {
        /// Accept samples of one replica only.
        pub enable_ha_tracker: bool = false, "enable";
        /// Time between two writes of a replica's timestamp.
        pub ha_tracker_update_timeout: Duration = Duration::from_secs(15), "update-timeout", unused;
        /// Random time added to that, at most.
        pub ha_tracker_update_timeout_jitter_max: Duration = Duration::from_secs(5), "update-timeout-jitter-max", unused;
        /// Read all replicas at start.
        pub enable_startup_sync: bool = false, "enable-startup-sync", unused;
        /// Where the chosen replicas are kept.
        pub kvstore: KvStoreConfig = KvStoreConfig { prefix: "ha-tracker/".into(), ..KvStoreConfig::default() }, "";
    }
}

section! {
    /// The distributors' own ring.
    pub struct DistributorRingConfig {
        /// Key-value store of this ring.
        pub kvstore: KvStoreConfig, "";
        /// Time between two refreshes of this instance's entry; 0 switches heartbeats off.
        pub heartbeat_period: Duration = Duration::from_secs(5), "heartbeat-period";
        /// Age of a heartbeat after which a distributor counts as unhealthy; 0 means never.
        pub heartbeat_timeout: Duration = Duration::from_secs(60), "heartbeat-timeout";
        /// Metrics per member of the ring.
        pub detailed_metrics_enabled: bool = true, "detailed-metrics-enabled";
        /// Remove other instances from the ring that have not been heard of for this long; 0 means never.
        pub auto_forget_delay: Duration = Duration::ZERO, "auto-forget-delay";
        /// Remove nobody while less than this part of the ring is healthy.
        pub auto_forget_min_healthy_fraction: f64 = 0.5, "auto-forget-min-healthy-fraction";
        /// Name in the ring, which must be unique; this machine's name if not given.
        pub instance_id: String as Hostname = hostname(), "instance-id";
        /// Network interfaces whose address is advertised, in order of preference.
        pub instance_interface_names: Vec<String> = interfaces(), "instance-interface-names";
        /// Port to advertise; 0 means the gRPC listener's.
        pub instance_port: u16 = 0, "instance-port";
        /// Address to advertise; empty means that of the first interface found.
        pub instance_addr: String, "instance-addr";
    }
}

section! {
    /// Limits of a whole distributor; 0 means none.
    pub struct DistributorInstanceLimits {
        /// Samples per second.
        pub max_ingestion_rate: f64 = 0.0, "max-ingestion-rate";
        /// Pushes in flight.
        pub max_inflight_push_requests: usize = 0, "max-inflight-push-requests";
        /// Calls to ingesters in flight.
        pub max_inflight_client_requests: usize = 0, "max-inflight-client-requests";
    }
}

impl DistributorConfig {
    pub(crate) fn validate(&self, limits: &LimitsConfig, rules: &mut Rules<'_>) {
        let Self {
            pool: PoolConfig { client_cleanup_period, health_check_ingesters: _ },
            ha_tracker,
            max_recv_msg_size,
            otlp_max_recv_msg_size: _,
            remote_timeout,
            extra_queue_delay: _,
            sharding_strategy,
            shard_by_all_labels: _,
            extend_writes: _,
            sign_write_requests: _,
            sign_write_requests_keys: _,
            use_stream_push: _,
            remote_writev2_enabled: _,
            accept_unknown_remote_write_content_type: _,
            ring,
            num_push_workers: _,
            num_query_workers: _,
            instance_limits,
            read_grace: _,
            read_quorum: _,
        } = self;
        rules.require(
            !client_cleanup_period.is_zero(),
            "pool.client_cleanup_period",
            "must be longer than 0",
        );
        ha_tracker.validate(&mut rules.below("ha_tracker"));
        rules.require(*max_recv_msg_size > 0, "max_recv_msg_size", "must be at least 1");
        rules.require(!remote_timeout.is_zero(), "remote_timeout", "must be longer than 0");
        rules.require(
            *sharding_strategy == ShardingStrategy::Default || limits.ingestion_tenant_shard_size > 0,
            "sharding_strategy",
            "shuffle-sharding needs `limits.ingestion_tenant_shard_size` above 0",
        );
        ring.validate(&mut rules.below("ring"));
        instance_limits.validate(&mut rules.below("instance_limits"));
    }
}

impl HaTrackerConfig {
    fn validate(&self, rules: &mut Rules<'_>) {
        let Self {
            enable_ha_tracker,
            ha_tracker_update_timeout: _,
            ha_tracker_update_timeout_jitter_max: _,
            enable_startup_sync: _,
            kvstore: _,
        } = self;
        rules.advise(
            !enable_ha_tracker,
            "enable_ha_tracker",
            "is not built yet: samples of all replicas of a Prometheus are stored",
        );
    }
}

impl DistributorRingConfig {
    fn validate(&self, rules: &mut Rules<'_>) {
        let Self {
            // Rings share stores: the root checks them.
            kvstore: _,
            heartbeat_period,
            heartbeat_timeout,
            detailed_metrics_enabled: _,
            instance_id,
            instance_interface_names,
            auto_forget_delay,
            auto_forget_min_healthy_fraction,
            instance_port: _,
            instance_addr,
        } = self;
        heartbeats(*heartbeat_period, *heartbeat_timeout, rules);
        check_auto_forget(*auto_forget_delay, *heartbeat_timeout, *auto_forget_min_healthy_fraction, rules);
        rules.require(
            !instance_id.is_empty(),
            "instance_id",
            "is empty: an instance needs a name that no other has",
        );
        rules.require(
            !instance_addr.is_empty() || !instance_interface_names.is_empty(),
            "instance_interface_names",
            "is empty, and `instance_addr` too: there is nothing to advertise",
        );
    }
}

impl DistributorInstanceLimits {
    fn validate(&self, rules: &mut Rules<'_>) {
        let Self { max_ingestion_rate, max_inflight_push_requests: _, max_inflight_client_requests: _ } =
            self;
        rules.require(
            *max_ingestion_rate >= 0.0,
            "max_ingestion_rate",
            "cannot be negative; 0 means no limit",
        );
    }
}
