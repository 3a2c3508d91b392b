//! Limits per tenant: defaults here, overrides in the runtime configuration.

use std::time::Duration;

use crate::{
    problems::Rules,
    schema::section,
    units::{PromDuration, choice},
};

choice! {
    /// What a tenant's ingestion rate applies to.
    pub enum IngestionRateStrategy {
        /// Each distributor.
        Local = "local",
        /// All distributors together.
        Global = "global",
    }
}

const HOUR: u64 = 3600;

section! {
    /// Limits per tenant. A limit of 0 means none, unless said otherwise.
    pub struct LimitsConfig {
        /// Samples per second.
        pub ingestion_rate: f64 = 25_000.0, "distributor.ingestion-rate-limit";
        /// What the rate applies to: local (each distributor) or global (all together).
        pub ingestion_rate_strategy: IngestionRateStrategy, "distributor.ingestion-rate-limit-strategy";
        /// Samples that may exceed the rate at once; a request with more is refused.
        pub ingestion_burst_size: usize = 50_000, "distributor.ingestion-burst-size";
        /// Accept samples of one replica of a Prometheus only (not built yet).
        pub accept_ha_samples: bool = false, "distributor.ha-tracker.enable-for-all-users", unused;
        /// Label that names the group of replicas.
        pub ha_cluster_label: String = "cluster".into(), "distributor.ha-tracker.cluster", unused;
        /// Label that names the replica.
        pub ha_replica_label: String = "__replica__".into(), "distributor.ha-tracker.replica", unused;
        /// Most groups of replicas.
        pub ha_max_clusters: usize = 0, "distributor.ha-tracker.max-clusters", unused;
        /// Time without samples after which another replica is accepted.
        pub ha_tracker_failover_timeout: Duration as PromDuration = Duration::from_secs(30), "distributor.ha-tracker.failover-timeout", unused;
        /// Labels that are removed from series.
        pub drop_labels: Vec<String>, "distributor.drop-label";
        /// Longest label name, in bytes.
        pub max_label_name_length: usize = 1024, "validation.max-length-label-name";
        /// Longest label value, in bytes.
        pub max_label_value_length: usize = 2048, "validation.max-length-label-value";
        /// Most labels of a series.
        pub max_label_names_per_series: usize = 30, "validation.max-label-names-per-series";
        /// Most bytes of a series' labels together.
        pub max_labels_size_bytes: usize = 0, "validation.max-labels-size-bytes";
        /// Reject samples older than `reject_old_samples_max_age`.
        pub reject_old_samples: bool = false, "validation.reject-old-samples";
        /// That age.
        pub reject_old_samples_max_age: Duration as PromDuration = Duration::from_secs(14 * 24 * HOUR), "validation.reject-old-samples.max-age";
        /// How far in the future a sample may lie.
        pub creation_grace_period: Duration as PromDuration = Duration::from_secs(600), "validation.create-grace-period";
        /// Reject series without a metric name.
        pub enforce_metric_name: bool = true, "validation.enforce-metric-name";
        /// Ingesters of this tenant with shuffle sharding; 0 means all. Reads do not ask whom only a larger shard had: lower it, or set it at first, when ingesters no longer have to answer for what was written before.
        pub ingestion_tenant_shard_size: usize = 0, "distributor.ingestion-tenant-shard-size";
        /// Series of a tenant in one ingester.
        pub max_series_per_user: usize = 5_000_000, "ingester.max-series-per-user";
        /// Series of a metric in one ingester.
        pub max_series_per_metric: usize = 50_000, "ingester.max-series-per-metric";
        /// Series of a tenant in all ingesters.
        pub max_global_series_per_user: usize = 0, "ingester.max-global-series-per-user";
        /// Series of a metric in all ingesters.
        pub max_global_series_per_metric: usize = 0, "ingester.max-global-series-per-metric";
        /// How far a sample may lie behind its series' newest (not built yet).
        pub out_of_order_time_window: Duration as PromDuration = Duration::ZERO, "ingester.out-of-order-time-window", unused;
        /// Chunks of one query.
        pub max_fetched_chunks_per_query: usize = 2_000_000, "querier.max-fetched-chunks-per-query";
        /// Series of one query.
        pub max_fetched_series_per_query: usize = 0, "querier.max-fetched-series-per-query";
        /// Bytes of chunks of one query.
        pub max_fetched_chunk_bytes_per_query: usize = 0, "querier.max-fetched-chunk-bytes-per-query";
        /// Bytes of data of one query, labels included.
        pub max_fetched_data_bytes_per_query: usize = 0, "querier.max-fetched-data-bytes-per-query";
        /// Age up to which ingesters are asked; 0 means always.
        pub query_ingesters_within: Duration as PromDuration = Duration::ZERO, "limits.query-ingesters-within";
        /// Age from which store-gateways are asked; 0 means always.
        pub query_store_after: Duration as PromDuration = Duration::ZERO, "limits.query-store-after", unused;
        /// How far back ingesters that left a tenant's shard because others joined are still asked, or as far as a query of samples goes if that is further; 0 means ask all ingesters.
        pub shuffle_sharding_ingesters_lookback_period: Duration as PromDuration = Duration::ZERO, "limits.shuffle-sharding-ingesters-lookback-period";
        /// Rulers of a tenant, in Cortex.
        pub ruler_tenant_shard_size: f64 = 0.0, "ruler.tenant-shard-size", unused;
        /// Store-gateways of this tenant with shuffle sharding, below 1 as a part of all; 0 means all.
        pub store_gateway_tenant_shard_size: f64 = 0.0, "store-gateway.tenant-shard-size", unused;
        /// Age after which blocks are deleted; 0 means never.
        pub compactor_blocks_retention_period: Duration as PromDuration = Duration::ZERO, "compactor.blocks-retention-period", unused;
        /// Compactors of a tenant, in Cortex.
        pub compactor_tenant_shard_size: f64 = 0.0, "compactor.tenant-shard-size", unused;
    }
}

impl LimitsConfig {
    pub(crate) fn validate(&self, rules: &mut Rules<'_>) {
        let Self {
            ingestion_rate,
            ingestion_rate_strategy: _,
            ingestion_burst_size,
            accept_ha_samples: _,
            ha_cluster_label: _,
            ha_replica_label: _,
            ha_max_clusters: _,
            ha_tracker_failover_timeout: _,
            drop_labels: _,
            max_label_name_length: _,
            max_label_value_length: _,
            max_label_names_per_series: _,
            max_labels_size_bytes: _,
            reject_old_samples: _,
            reject_old_samples_max_age: _,
            creation_grace_period: _,
            enforce_metric_name: _,
            ingestion_tenant_shard_size: _,
            max_series_per_user: _,
            max_series_per_metric: _,
            max_global_series_per_user: _,
            max_global_series_per_metric: _,
            out_of_order_time_window: _,
            max_fetched_chunks_per_query: _,
            max_fetched_series_per_query: _,
            max_fetched_chunk_bytes_per_query: _,
            max_fetched_data_bytes_per_query: _,
            query_ingesters_within,
            query_store_after,
            shuffle_sharding_ingesters_lookback_period: lookback,
            ruler_tenant_shard_size: _,
            store_gateway_tenant_shard_size,
            compactor_blocks_retention_period: _,
            compactor_tenant_shard_size: _,
        } = self;
        rules.require(*ingestion_rate >= 0.0, "ingestion_rate", "cannot be negative");
        rules.advise(
            *ingestion_burst_size > 0 || *ingestion_rate == 0.0,
            "ingestion_burst_size",
            "is 0: no sample is ever accepted",
        );
        rules.require(
            *store_gateway_tenant_shard_size >= 0.0,
            "store_gateway_tenant_shard_size",
            "cannot be negative; 0 means all store-gateways",
        );
        rules.advise(
            query_ingesters_within.is_zero() || query_store_after < query_ingesters_within,
            "query_store_after",
            "is not below `query_ingesters_within`: nobody is asked for the time between them",
        );
        rules.advise(
            lookback.is_zero() || query_store_after <= lookback,
            "shuffle_sharding_ingesters_lookback_period",
            "is below `query_store_after`: who left a tenant's shard between them is not asked for what it has; Cortex refuses to start",
        );
    }
}
