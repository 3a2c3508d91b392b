//! The store-gateway, and how queries reach it.

use std::time::Duration;

use crate::{
    distributor::ShardingStrategy,
    ingester::{GrpcCompression, HealthcheckConfig, NO_TLS},
    kv::KvStoreConfig,
    lifecycler::{TokensFileOnCorrupt, check_auto_forget, interfaces},
    limits::LimitsConfig,
    problems::Rules,
    schema::section,
    units::{AutoDuration, Csv, Hostname, hostname},
    validate::heartbeats,
};

section! {
    /// The store-gateway.
    pub struct StoreGatewayConfig {
        /// Share the blocks among gateways by a ring.
        pub sharding_enabled: bool = false, "sharding-enabled";
        /// The gateways' ring.
        pub sharding_ring: StoreGatewayRingConfig, "sharding-ring.";
        /// Gateways of a tenant: default (all) or shuffle-sharding.
        pub sharding_strategy: ShardingStrategy, "sharding-strategy", unused;
        /// Tenants that are served, separated by commas; empty means all.
        pub enabled_tenants: Vec<String> as Csv, "enabled-tenants", unused;
        /// Tenants that are not served, separated by commas.
        pub disabled_tenants: Vec<String> as Csv, "disabled-tenants", unused;
        /// Longest wait for gateways to say that they have loaded a new block (ringkit's own key).
        pub announce_timeout: Duration = Duration::from_secs(30), "announce-timeout", unused;
    }
}

section! {
    /// The gateways' ring; each has 512 tokens.
    pub struct StoreGatewayRingConfig {
        /// Key-value store of this ring.
        pub kvstore: KvStoreConfig, "";
        /// Time between two refreshes of this instance's entry; 0 switches heartbeats off.
        pub heartbeat_period: Duration = Duration::from_secs(15), "heartbeat-period";
        /// Age of a heartbeat after which a gateway counts as unhealthy; 0 means never.
        pub heartbeat_timeout: Duration = Duration::from_secs(60), "heartbeat-timeout";
        /// Gateways that hold each block.
        pub replication_factor: usize = 3, "replication-factor";
        /// File that keeps the tokens over a restart; empty means none.
        pub tokens_file_path: String, "tokens-file-path";
        /// Spread the replicas of a block over zones.
        pub zone_awareness_enabled: bool = false, "zone-awareness-enabled";
        /// Leave the entry in the ring at shutdown.
        pub keep_instance_in_the_ring_on_shutdown: bool = false, "keep-instance-in-the-ring-on-shutdown";
        /// Keep a tenant's shard where it is when zones come and go.
        pub zone_stable_shuffle_sharding: bool = true, "zone-stable-shuffle-sharding", unused;
        /// Metrics per member of the ring.
        pub detailed_metrics_enabled: bool = true, "detailed-metrics-enabled";
        /// Least time the ring must be quiet before the first load of blocks; 0 means do not wait.
        pub wait_stability_min_duration: Duration = Duration::from_secs(60), "wait-stability-min-duration";
        /// Longest wait for that.
        pub wait_stability_max_duration: Duration = Duration::from_secs(300), "wait-stability-max-duration";
        /// Longest wait for this instance's own entry to appear in a state.
        pub wait_instance_state_timeout: Duration = Duration::from_secs(600), "wait-instance-state-timeout";
        /// Time to stay up after leaving, so that the last metrics are scraped.
        pub final_sleep: Duration = Duration::ZERO, "final-sleep";
        /// What to do if the tokens file cannot be read: previous (use its last copy, else as ring), ring (use the tokens that the
        /// ring has for this instance, else new ones), regenerate (draw new ones) or fail (do not start).
        pub tokens_file_on_corrupt: TokensFileOnCorrupt, "tokens-file-on-corrupt";
        /// Remove other instances from the ring that have not been heard of for this long; 0 means never, auto ten times the
        /// heartbeat timeout.
        pub auto_forget_delay: AutoDuration, "auto-forget-delay";
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
        /// Zone of this instance.
        pub instance_availability_zone: String, "instance-availability-zone";
    }
}

section! {
    /// Queries, as far as they concern store-gateways.
    pub struct QuerierConfig {
        /// Gateways to ask when they do not share the blocks by a ring, separated by commas.
        pub store_gateway_addresses: Vec<String> as Csv, "store-gateway-addresses", unused;
        /// The gRPC client that calls gateways.
        pub store_gateway_client: StoreGatewayClientConfig, "store-gateway-client.";
        /// Statistics of gateways in the answer.
        pub store_gateway_query_stats: bool = true, "store-gateway-query-stats-enabled", unused;
        /// Rounds in which blocks that no gateway had are asked of other replicas.
        pub store_gateway_consistency_check_max_attempts: usize = 3, "store-gateway-consistency-check-max-attempts", unused;
        /// Series per message of a gateway.
        pub store_gateway_series_batch_size: usize = 1, "store-gateway-series-batch-size", unused;
    }
}

section! {
    /// The gRPC client that calls gateways.
    pub struct StoreGatewayClientConfig {
        /// Use TLS (not built yet: an error if true).
        pub tls_enabled: bool = false, "tls-enabled";
        /// Client certificate file (PEM).
        pub tls_cert_path: String, "tls-cert-path", unused;
        /// Client key file (PEM).
        pub tls_key_path: String, "tls-key-path", unused;
        /// CA certificates file (PEM); the system's if empty.
        pub tls_ca_path: String, "tls-ca-path", unused;
        /// Name expected in the server's certificate.
        pub tls_server_name: String, "tls-server-name", unused;
        /// Do not verify the server's certificate.
        pub tls_insecure_skip_verify: bool = false, "tls-insecure-skip-verify", unused;
        /// Compression: gzip, snappy, snappy-block, zstd, or empty for none.
        pub grpc_compression: GrpcCompression, "grpc-compression", unused;
        /// Health checks that take an instance out of use.
        pub healthcheck_config: HealthcheckConfig, "healthcheck.";
        /// Longest wait for a connection; 0 means 20s.
        pub connect_timeout: Duration = Duration::from_secs(5), "connect-timeout", unused;
    }
}

impl StoreGatewayConfig {
    pub(crate) fn validate(&self, limits: &LimitsConfig, rules: &mut Rules<'_>) {
        let Self {
            sharding_enabled,
            sharding_ring,
            sharding_strategy,
            enabled_tenants: _,
            disabled_tenants: _,
            announce_timeout,
        } = self;
        sharding_ring.validate(*sharding_enabled, &mut rules.below("sharding_ring"));
        rules.require(
            !sharding_enabled
                || *sharding_strategy == ShardingStrategy::Default
                || limits.store_gateway_tenant_shard_size > 0.0,
            "sharding_strategy",
            "shuffle-sharding needs `limits.store_gateway_tenant_shard_size` above 0",
        );
        rules.require(!announce_timeout.is_zero(), "announce_timeout", "must be longer than 0");
    }
}

impl StoreGatewayRingConfig {
    fn validate(&self, used: bool, rules: &mut Rules<'_>) {
        let Self {
            // Rings share stores: the root checks them.
            kvstore: _,
            heartbeat_period,
            heartbeat_timeout,
            replication_factor,
            tokens_file_path: _,
            zone_awareness_enabled,
            keep_instance_in_the_ring_on_shutdown: _,
            zone_stable_shuffle_sharding: _,
            detailed_metrics_enabled: _,
            wait_stability_min_duration,
            wait_stability_max_duration,
            wait_instance_state_timeout: _,
            final_sleep: _,
            instance_id,
            instance_interface_names,
            auto_forget_delay,
            auto_forget_min_healthy_fraction,
            tokens_file_on_corrupt: _,
            instance_port: _,
            instance_addr,
            instance_availability_zone,
        } = self;
        heartbeats(*heartbeat_period, *heartbeat_timeout, rules);
        let delay = auto_forget_delay.given().unwrap_or_default();
        check_auto_forget(delay, *heartbeat_timeout, *auto_forget_min_healthy_fraction, rules);
        rules.require(*replication_factor > 0, "replication_factor", "must be at least 1");
        rules.require(
            wait_stability_min_duration <= wait_stability_max_duration,
            "wait_stability_min_duration",
            "is longer than `wait_stability_max_duration`",
        );
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
        rules.advise(
            !used || !zone_awareness_enabled || !instance_availability_zone.is_empty(),
            "instance_availability_zone",
            "is empty, but the ring is zone-aware: all instances without a zone count as one zone",
        );
    }
}

impl QuerierConfig {
    pub(crate) fn validate(&self, rules: &mut Rules<'_>) {
        let Self {
            store_gateway_addresses: _,
            store_gateway_client,
            store_gateway_query_stats: _,
            store_gateway_consistency_check_max_attempts: _,
            store_gateway_series_batch_size: _,
        } = self;
        store_gateway_client.validate(&mut rules.below("store_gateway_client"));
    }
}

impl StoreGatewayClientConfig {
    fn validate(&self, rules: &mut Rules<'_>) {
        let Self {
            tls_enabled,
            tls_cert_path: _,
            tls_key_path: _,
            tls_ca_path: _,
            tls_server_name: _,
            tls_insecure_skip_verify: _,
            grpc_compression,
            healthcheck_config,
            connect_timeout: _,
        } = self;
        rules.require(!tls_enabled, "tls_enabled", NO_TLS);
        grpc_compression.validate(rules);
        healthcheck_config.validate(&mut rules.below("healthcheck_config"));
    }
}
