//! The process's listeners and logs.

use std::time::Duration;

use crate::{
    problems::Rules,
    schema::section,
    units::{choice, duration::LONGEST},
};

choice! {
    /// Form of log lines.
    pub enum LogFormat {
        /// `key=value` pairs.
        Logfmt = "logfmt",
        /// One JSON object per line.
        Json = "json",
    }
}

choice! {
    /// Least severity that is logged.
    pub enum LogLevel {
        /// What an operator would put on a timeline.
        Info = "info",
        /// Branches worth knowing.
        Debug = "debug",
        /// What failed and was coped with.
        Warn = "warn",
        /// What is broken.
        Error = "error",
    }
}

section! {
    /// HTTP and gRPC listeners, and logs.
    pub struct ServerConfig {
        /// Network of the HTTP listener: tcp, tcp4 or tcp6.
        pub http_listen_network: String = "tcp".into(), "http-listen-network";
        /// Address of the HTTP listener; empty means all.
        pub http_listen_address: String, "http-listen-address";
        /// Port of the HTTP listener; 0 means any free one.
        pub http_listen_port: u16 = 80, "http-listen-port";
        /// Most HTTP connections at once; 0 means no limit.
        pub http_listen_conn_limit: usize = 0, "http-conn-limit";
        /// Network of the gRPC listener: tcp, tcp4 or tcp6.
        pub grpc_listen_network: String = "tcp".into(), "grpc-listen-network";
        /// Address of the gRPC listener; empty means all.
        pub grpc_listen_address: String, "grpc-listen-address";
        /// Port of the gRPC listener; 0 means any free one.
        pub grpc_listen_port: u16 = 9095, "grpc-listen-port";
        /// Most gRPC connections at once; 0 means no limit.
        pub grpc_listen_conn_limit: usize = 0, "grpc-conn-limit";
        /// TLS cipher suites, separated by commas.
        pub tls_cipher_suites: String, "tls-cipher-suites", unused;
        /// Oldest TLS version.
        pub tls_min_version: String, "tls-min-version", unused;
        /// TLS of the HTTP listener (not built yet: an error if set).
        pub http_tls_config: ListenerTlsConfig, "http-tls-";
        /// TLS of the gRPC listener (not built yet: an error if set).
        pub grpc_tls_config: ListenerTlsConfig, "grpc-tls-";
        /// Serve /metrics.
        pub register_instrumentation: bool = true, "register-instrumentation";
        /// Longest wait at shutdown for requests in flight.
        pub graceful_shutdown_timeout: Duration = Duration::from_secs(30), "graceful-shutdown-timeout";
        /// Longest time to read an HTTP request.
        pub http_server_read_timeout: Duration = Duration::from_secs(30), "http-read-timeout";
        /// Longest time to write an HTTP answer.
        pub http_server_write_timeout: Duration = Duration::from_secs(30), "http-write-timeout";
        /// Time after which an idle HTTP connection is closed.
        pub http_server_idle_timeout: Duration = Duration::from_secs(120), "http-idle-timeout";
        /// Largest gRPC message received, in bytes.
        pub grpc_server_max_recv_msg_size: usize = 4_194_304, "grpc-max-recv-msg-size-bytes";
        /// Largest gRPC message sent, in bytes.
        pub grpc_server_max_send_msg_size: usize = 4_194_304, "grpc-max-send-msg-size-bytes";
        /// Most concurrent calls per gRPC connection; 0 means no limit.
        pub grpc_server_max_concurrent_streams: u32 = 100, "grpc-max-concurrent-streams";
        /// Worker threads for gRPC streams in Cortex.
        pub grpc_server_num_stream_workers: usize = 0, "grpc_server-num-stream-workers", unused;
        /// Time after which an idle gRPC connection is closed.
        pub grpc_server_max_connection_idle: Duration = LONGEST, "grpc.keepalive.max-connection-idle";
        /// Longest life of a gRPC connection.
        pub grpc_server_max_connection_age: Duration = LONGEST, "grpc.keepalive.max-connection-age";
        /// Time beyond that before the connection is cut.
        pub grpc_server_max_connection_age_grace: Duration = LONGEST, "grpc.keepalive.max-connection-age-grace";
        /// Quiet time after which a gRPC connection is probed.
        pub grpc_server_keepalive_time: Duration = Duration::from_secs(7200), "grpc.keepalive.time";
        /// Longest wait for the answer to a probe.
        pub grpc_server_keepalive_timeout: Duration = Duration::from_secs(20), "grpc.keepalive.timeout";
        /// Least time between two pings of a client.
        pub grpc_server_min_time_between_pings: Duration = Duration::from_secs(10), "grpc.keepalive.min-time-between-pings", unused;
        /// Accept pings on idle connections.
        pub grpc_server_ping_without_stream_allowed: bool = true, "grpc.keepalive.ping-without-stream-allowed", unused;
        /// gRPC channelz, which ringkit does not have.
        pub enable_channelz: bool = false, "enable-channelz", unused;
        /// Form of log lines: logfmt or json.
        pub log_format: LogFormat, "/log.format";
        /// Least severity that is logged: debug, info, warn or error.
        pub log_level: LogLevel, "/log.level";
        /// Log the addresses of clients.
        pub log_source_ips_enabled: bool = false, "log-source-ips-enabled", unused;
        /// Header that holds a client's address.
        pub log_source_ips_header: String, "log-source-ips-header", unused;
        /// Expression that finds the address in that header.
        pub log_source_ips_regex: String, "log-source-ips-regex", unused;
        /// Log the headers of requests.
        pub log_request_headers: bool = false, "log-request-headers", unused;
        /// Log requests at level info instead of debug.
        pub log_request_at_info_level_enabled: bool = false, "log-request-at-info-level-enabled";
        /// Headers not to log, separated by commas.
        pub log_request_exclude_headers_list: String, "log-request-headers-exclude-list", unused;
        /// Path below which everything is served, such as /v1.
        pub http_path_prefix: String, "path-prefix";
        /// File with the bearer token that admin actions then require; empty means none (ringkit's own key).
        pub admin_token_file: String, "admin-token-file";
    }
}

section! {
    /// TLS of a listener.
    pub struct ListenerTlsConfig {
        /// Certificate file (PEM).
        pub cert_file: String, "cert-path";
        /// Key file (PEM).
        pub key_file: String, "key-path";
        /// What is asked of a client's certificate.
        pub client_auth_type: String, "client-auth";
        /// CA certificates file for clients (PEM).
        pub client_ca_file: String, "ca-path";
    }
}

section! {
    /// Cortex's HTTP API as a whole.
    pub struct ApiConfig {
        /// Compress answers with gzip.
        pub response_compression_enabled: bool = false, "api.response-compression-enabled", unused;
        /// Path of Cortex's Alertmanager, which ringkit does not have.
        pub alertmanager_http_prefix: String = "/alertmanager".into(), "http.alertmanager-http-prefix", unused;
        /// Path below which the Prometheus API is served.
        pub prometheus_http_prefix: String = "/prometheus".into(), "http.prometheus-http-prefix";
        /// Request headers to log.
        pub http_request_headers_to_log: Vec<String>, "api.http-request-headers-to-log", unused;
        /// Header that identifies a request.
        pub request_id_header: String, "api.request-id-header", unused;
        /// Allowed origins, an anchored expression.
        pub cors_origin: String = ".*".into(), "server.cors-origin", unused;
        /// Serve build information.
        pub build_info_enabled: bool = false, "api.build-info-enabled", unused;
        /// Codec of queriers' answers.
        pub querier_default_codec: String = "json".into(), "api.querier-default-codec", unused;
    }
}

impl ServerConfig {
    pub(crate) fn validate(&self, rules: &mut Rules<'_>) {
        let Self {
            http_listen_network,
            http_listen_address,
            http_listen_port,
            http_listen_conn_limit: _,
            grpc_listen_network,
            grpc_listen_address,
            grpc_listen_port,
            grpc_listen_conn_limit: _,
            tls_cipher_suites: _,
            tls_min_version: _,
            http_tls_config,
            grpc_tls_config,
            register_instrumentation: _,
            graceful_shutdown_timeout: _,
            http_server_read_timeout: _,
            http_server_write_timeout: _,
            http_server_idle_timeout: _,
            grpc_server_max_recv_msg_size,
            grpc_server_max_send_msg_size,
            grpc_server_max_concurrent_streams: _,
            grpc_server_num_stream_workers: _,
            grpc_server_max_connection_idle: _,
            grpc_server_max_connection_age: _,
            grpc_server_max_connection_age_grace: _,
            grpc_server_keepalive_time: _,
            grpc_server_keepalive_timeout: _,
            grpc_server_min_time_between_pings: _,
            grpc_server_ping_without_stream_allowed: _,
            enable_channelz: _,
            log_format: _,
            log_level: _,
            log_source_ips_enabled: _,
            log_source_ips_header: _,
            log_source_ips_regex: _,
            log_request_headers: _,
            log_request_at_info_level_enabled: _,
            log_request_exclude_headers_list: _,
            http_path_prefix,
            admin_token_file: _,
        } = self;
        for (key, network) in
            [("http_listen_network", http_listen_network), ("grpc_listen_network", grpc_listen_network)]
        {
            rules.require(
                ["tcp", "tcp4", "tcp6"].contains(&network.as_str()),
                key,
                "expected tcp, tcp4 or tcp6",
            );
        }
        rules.require(
            *http_listen_port == 0
                || http_listen_port != grpc_listen_port
                || http_listen_address != grpc_listen_address,
            "grpc_listen_port",
            "is the HTTP listener's port too",
        );
        http_tls_config.validate(&mut rules.below("http_tls_config"));
        grpc_tls_config.validate(&mut rules.below("grpc_tls_config"));
        rules.require(
            *grpc_server_max_recv_msg_size > 0,
            "grpc_server_max_recv_msg_size",
            "must be at least 1",
        );
        rules.require(
            *grpc_server_max_send_msg_size > 0,
            "grpc_server_max_send_msg_size",
            "must be at least 1",
        );
        rules.require(
            http_path_prefix.is_empty() || http_path_prefix.starts_with('/'),
            "http_path_prefix",
            "a path starts with a slash",
        );
    }
}

impl ListenerTlsConfig {
    /// Until TLS is built, a listener that was to have it must not come up in plain text.
    fn validate(&self, rules: &mut Rules<'_>) {
        let Self { cert_file, key_file, client_auth_type, client_ca_file } = self;
        let set =
            [cert_file, key_file, client_auth_type, client_ca_file].iter().any(|value| !value.is_empty());
        rules.require(
            !set,
            "",
            "TLS of listeners is not built yet: remove the block to listen in plain text",
        );
    }
}

impl ApiConfig {
    pub(crate) fn validate(&self, rules: &mut Rules<'_>) {
        let Self {
            response_compression_enabled: _,
            alertmanager_http_prefix: _,
            prometheus_http_prefix,
            http_request_headers_to_log: _,
            request_id_header: _,
            cors_origin: _,
            build_info_enabled: _,
            querier_default_codec: _,
        } = self;
        rules.require(
            prometheus_http_prefix.is_empty() || prometheus_http_prefix.starts_with('/'),
            "prometheus_http_prefix",
            "a path starts with a slash",
        );
    }
}
