//! The ingester, and how others connect to it.

use std::time::Duration;

use crate::{lifecycler::LifecyclerConfig, problems::Rules, schema::section, units::choice};

section! {
    /// The ingester.
    pub struct IngesterConfig {
        /// How it joins its ring, keeps its entry fresh, and leaves.
        pub lifecycler: LifecyclerConfig, "";
        /// Period over which rates are averaged.
        pub rate_update_period: Duration = Duration::from_secs(15), "rate-update-period";
        /// Limits of the whole process; also reloaded from the runtime configuration.
        pub instance_limits: IngesterInstanceLimits, "instance-limits.";
        /// Metrics to which the limits per metric do not apply, separated by commas.
        pub ignore_series_limit_for_metric_names: Vec<String> as crate::units::Csv, "ignore-series-limit-for-metric-names";
        /// What is added to the message of an error about a limit.
        pub admin_limit_message: String = "please contact administrator to raise it".into(), "admin-limit-message";
    }
}

section! {
    /// Limits of a whole ingester; 0 means none.
    pub struct IngesterInstanceLimits {
        /// Samples per second.
        pub max_ingestion_rate: f64 = 0.0, "max-ingestion-rate";
        /// Tenants.
        pub max_tenants: u64 = 0, "max-tenants";
        /// Series in memory.
        pub max_series: u64 = 0, "max-series";
        /// Pushes in flight.
        pub max_inflight_push_requests: u64 = 0, "max-inflight-push-requests";
        /// Queries in flight.
        pub max_inflight_query_requests: u64 = 0, "max-inflight-query-requests";
    }
}

section! {
    /// How ingesters are called.
    pub struct IngesterClientConfig {
        /// The gRPC client.
        pub grpc_client_config: GrpcClientConfig, "";
        /// Most pushes in flight to one ingester; 0 means no limit.
        pub max_inflight_push_requests: u64 = 0, "max-inflight-push-requests";
    }
}

choice! {
    /// Compression of gRPC messages. Empty means none.
    pub enum GrpcCompression {
        /// Not compressed.
        None = "",
        /// gzip.
        Gzip = "gzip",
        /// Snappy, framed.
        Snappy = "snappy",
        /// Snappy, one block per message.
        SnappyBlock = "snappy-block",
        /// zstd.
        Zstd = "zstd",
    }
}

section! {
    /// A gRPC client.
    pub struct GrpcClientConfig {
        /// Largest message received, in bytes.
        pub max_recv_msg_size: usize = 104_857_600, "grpc-max-recv-msg-size";
        /// Largest message sent, in bytes.
        pub max_send_msg_size: usize = 16_777_216, "grpc-max-send-msg-size";
        /// Compression: gzip, snappy, snappy-block, zstd, or empty for none.
        pub grpc_compression: GrpcCompression = GrpcCompression::SnappyBlock, "grpc-compression";
        /// Most calls per second; 0 means no limit.
        pub rate_limit: f64 = 0.0, "grpc-client-rate-limit", unused;
        /// Calls that may exceed the rate at once; 0 means as many as the rate.
        pub rate_limit_burst: usize = 0, "grpc-client-rate-limit-burst", unused;
        /// Wait and repeat when a rate limit is hit.
        pub backoff_on_ratelimits: bool = false, "backoff-on-ratelimits", unused;
        /// Waits between such repetitions.
        pub backoff_config: BackoffConfig, "backoff-";
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
        /// Longest wait for a connection; 0 means 20s.
        pub connect_timeout: Duration = Duration::from_secs(5), "connect-timeout";
        /// Health checks that take an instance out of use.
        pub healthcheck_config: HealthcheckConfig, "healthcheck.";
    }
}

section! {
    /// Waits between repetitions.
    pub struct BackoffConfig {
        /// Least wait.
        pub min_period: Duration = Duration::from_millis(100), "min-period", unused;
        /// Longest wait.
        pub max_period: Duration = Duration::from_secs(10), "max-period", unused;
        /// Most repetitions.
        pub max_retries: usize = 10, "retries", unused;
    }
}

section! {
    /// Health checks of an instance that is called.
    pub struct HealthcheckConfig {
        /// Failures in a row after which calls fail at once; 0 means no checks.
        pub unhealthy_threshold: u64 = 0, "unhealthy-threshold", unused;
        /// Time between two checks of an instance.
        pub interval: Duration = Duration::from_secs(5), "interval", unused;
        /// Longest wait for the answer to a check.
        pub timeout: Duration = Duration::from_secs(1), "timeout", unused;
    }
}

/// What a client's `tls_enabled` is answered with until TLS is built.
pub(crate) const NO_TLS: &str = "TLS is not built yet: set it to false to speak in plain text";

impl IngesterConfig {
    pub(crate) fn validate(&self, rules: &mut Rules<'_>) {
        let Self {
            lifecycler,
            rate_update_period,
            instance_limits,
            ignore_series_limit_for_metric_names: _,
            admin_limit_message: _,
        } = self;
        lifecycler.validate(&mut rules.below("lifecycler"));
        rules.require(!rate_update_period.is_zero(), "rate_update_period", "must be longer than 0");
        instance_limits.validate(&mut rules.below("instance_limits"));
    }
}

impl IngesterInstanceLimits {
    pub(crate) fn validate(&self, rules: &mut Rules<'_>) {
        let Self {
            max_ingestion_rate,
            max_tenants: _,
            max_series: _,
            max_inflight_push_requests: _,
            max_inflight_query_requests: _,
        } = self;
        rules.require(
            *max_ingestion_rate >= 0.0,
            "max_ingestion_rate",
            "cannot be negative; 0 means no limit",
        );
    }
}

impl IngesterClientConfig {
    pub(crate) fn validate(&self, rules: &mut Rules<'_>) {
        let Self { grpc_client_config, max_inflight_push_requests: _ } = self;
        grpc_client_config.validate(&mut rules.below("grpc_client_config"));
    }
}

impl GrpcClientConfig {
    fn validate(&self, rules: &mut Rules<'_>) {
        let Self {
            max_recv_msg_size,
            max_send_msg_size,
            grpc_compression,
            rate_limit,
            rate_limit_burst: _,
            backoff_on_ratelimits: _,
            backoff_config: BackoffConfig { min_period, max_period, max_retries: _ },
            tls_enabled,
            tls_cert_path: _,
            tls_key_path: _,
            tls_ca_path: _,
            tls_server_name: _,
            tls_insecure_skip_verify: _,
            connect_timeout: _,
            healthcheck_config,
        } = self;
        rules.require(*max_recv_msg_size > 0, "max_recv_msg_size", "must be at least 1");
        rules.require(*max_send_msg_size > 0, "max_send_msg_size", "must be at least 1");
        grpc_compression.validate(rules);
        rules.require(*rate_limit >= 0.0, "rate_limit", "cannot be negative; 0 means no limit");
        rules.require(min_period <= max_period, "backoff_config.min_period", "is longer than `max_period`");
        rules.require(!tls_enabled, "tls_enabled", NO_TLS);
        healthcheck_config.validate(&mut rules.below("healthcheck_config"));
    }
}

impl GrpcCompression {
    pub(crate) fn validate(self, rules: &mut Rules<'_>) {
        rules.advise(
            matches!(self, Self::None | Self::SnappyBlock),
            "grpc_compression",
            "only snappy-block and none are built yet",
        );
    }
}

impl HealthcheckConfig {
    pub(crate) fn validate(&self, rules: &mut Rules<'_>) {
        let Self { unhealthy_threshold, interval, timeout } = self;
        rules.require(*unhealthy_threshold == 0 || !interval.is_zero(), "interval", "must be longer than 0");
        rules.require(*unhealthy_threshold == 0 || !timeout.is_zero(), "timeout", "must be longer than 0");
    }
}
