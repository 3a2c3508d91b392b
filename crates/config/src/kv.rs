//! Where a ring is stored: `kvstore` blocks and the backends' own blocks.

use std::time::Duration;

use crate::{
    problems::Rules,
    schema::section,
    units::{Optional, Secret, choice},
};

choice! {
    /// A key-value backend.
    pub enum KvStore {
        /// HashiCorp Consul.
        Consul = "consul",
        /// etcd.
        Etcd = "etcd",
        /// This process's memory: for one process and for tests.
        Inmemory = "inmemory",
        /// Gossip among the processes themselves.
        Memberlist = "memberlist",
        /// A primary and a secondary store, mirrored.
        Multi = "multi",
    }
    not { "dynamodb" => "is a store of Cortex that ringkit does not have: use one of `consul`, `etcd`, `inmemory`, `memberlist`, `multi`" }
}

choice! {
    /// How the entries of a value become keys of Consul or etcd.
    pub enum Layout {
        /// All entries in one key, as Cortex keeps them.
        Single = "single",
        /// One key for each entry: a heartbeat writes that and nothing else. Cortex cannot read it.
        PerInstance = "per_instance",
    }
}

choice! {
    /// When a write to the primary store returns.
    pub enum MirrorMode {
        /// Once the primary has it; the secondary follows in the background.
        Async = "async",
        /// After the first attempt on the secondary, as in Cortex.
        Sync = "sync",
    }
}

choice! {
    /// What a reader of a multi store sees.
    pub enum ReadMode {
        /// The union while mirroring is on, otherwise the primary.
        Auto = "auto",
        /// The primary alone, as in Cortex.
        Primary = "primary",
        /// Both stores, merged by entry.
        Union = "union",
    }
}

section! {
    /// A ring's key-value store.
    pub struct KvStoreConfig {
        /// Backend: consul, etcd, inmemory, memberlist or multi. A ring that does not set it uses `ring.store`, if that is set.
        pub store: KvStore, "store|ring.store";
        /// Prefix of the keys in the store; should end with a slash.
        pub prefix: String = "collectors/".into(), "prefix|ring.prefix";
        /// Keys in Consul and etcd: single (one for the whole ring, as Cortex) or per_instance (one for each instance, for large rings). The same for all processes of a ring.
        pub layout: Layout, "layout";
        /// Consul client. A ring without this block uses the one of `ring.kvstore`, else the ingester ring's; so for the other backends.
        pub consul: ConsulConfig, "consul.";
        /// DynamoDB client of Cortex, which ringkit does not have.
        pub dynamodb: DynamoDbConfig, "dynamodb.";
        /// etcd client.
        pub etcd: EtcdConfig, "etcd.";
        /// Two stores at once, to move a ring from one to the other.
        pub multi: MultiConfig, "multi.";
    }
    extra {
        /// Which parts were given for this very ring, rather than inherited or left at their defaults. Set by the loader.
        #[doc(hidden)]
        pub own: Own;
    }
}

/// Which parts of a `kvstore` block were given. Never makes two blocks differ.
#[derive(Clone, Copy, Debug, Default)]
#[doc(hidden)]
pub struct Own {
    pub(crate) store: bool,
    pub(crate) layout: bool,
    pub(crate) consul: bool,
    pub(crate) etcd: bool,
    pub(crate) multi: bool,
}

impl PartialEq for Own {
    fn eq(&self, _other: &Self) -> bool {
        true
    }
}

section! {
    /// Consul client.
    pub struct ConsulConfig {
        /// Address of the agent, host:port.
        pub host: String = "localhost:8500".into(), "hostname";
        /// ACL token.
        pub acl_token: Secret, "acl-token";
        /// Datacenter whose keys are used; the agent's own if empty.
        pub datacenter: String, "datacenter";
        /// Longest wait for an answer, long polls excluded.
        pub http_client_timeout: Duration = Duration::from_secs(20), "client-timeout";
        /// Read from the leader only.
        pub consistent_reads: bool = false, "consistent-reads";
        /// Most watch requests per second; 0 means no limit.
        pub watch_rate_limit: f64 = 1.0, "watch-rate-limit";
        /// Watch requests that may exceed the rate at once.
        pub watch_burst_size: usize = 1, "watch-burst-size";
        /// Largest value that the servers accept, in bytes: their `kv_max_value_size`. Larger ones are refused before they are sent.
        pub max_value_bytes: u64 = 512 * 1024, "max-value-bytes";
        /// Use TLS.
        pub tls_enabled: bool = false, "tls-enabled";
        /// Client certificate file (PEM).
        pub tls_cert_path: String, "tls-cert-path";
        /// Client key file (PEM).
        pub tls_key_path: String, "tls-key-path";
        /// CA certificates file (PEM); the system's if empty.
        pub tls_ca_path: String, "tls-ca-path";
        /// Name expected in the server's certificate.
        pub tls_server_name: String, "tls-server-name";
        /// Do not verify the server's certificate.
        pub tls_insecure_skip_verify: bool = false, "tls-insecure-skip-verify";
    }
}

section! {
    /// DynamoDB client of Cortex; accepted, never used.
    pub struct DynamoDbConfig {
        /// Region.
        pub region: String, "region", unused;
        /// Table.
        pub table_name: String, "table-name", unused;
        /// Time after which an entry may be dropped; 0 means never.
        pub ttl: Duration = Duration::ZERO, "ttl-time", unused;
        /// Time between two reads of the table.
        pub puller_sync_time: Duration = Duration::from_secs(60), "puller-sync-time", unused;
        /// Attempts of a compare-and-swap.
        pub max_cas_retries: usize = 10, "max-cas-retries", unused;
        /// Longest wait for an answer.
        pub timeout: Duration = Duration::from_secs(120), "timeout", unused;
    }
}

section! {
    /// etcd client.
    pub struct EtcdConfig {
        /// Addresses of the members, host:port or URL.
        pub endpoints: Vec<String>, "endpoints";
        /// Longest wait for a connection.
        pub dial_timeout: Duration = Duration::from_secs(10), "dial-timeout";
        /// Attempts of an operation.
        pub max_retries: usize = 10, "max-retries";
        /// Largest request that the servers accept, in bytes: their `--max-request-bytes`. Larger values are refused before they are sent.
        pub max_value_bytes: u64 = 1536 * 1024, "max-value-bytes";
        /// Use TLS.
        pub tls_enabled: bool = false, "tls-enabled";
        /// Client certificate file (PEM).
        pub tls_cert_path: String, "tls-cert-path";
        /// Client key file (PEM).
        pub tls_key_path: String, "tls-key-path";
        /// CA certificates file (PEM); the system's if empty.
        pub tls_ca_path: String, "tls-ca-path";
        /// Name expected in the server's certificate.
        pub tls_server_name: String, "tls-server-name";
        /// Do not verify the server's certificate.
        pub tls_insecure_skip_verify: bool = false, "tls-insecure-skip-verify";
        /// User name.
        pub username: String, "username";
        /// Password.
        pub password: Secret, "password";
        /// Send keepalive pings on idle connections too.
        pub ping_without_stream_allowed("ping-without-stream-allowed"): bool = true, "ping-without-stream-allowed";
    }
}

section! {
    /// Two stores at once: every write goes to the primary and, mirrored, to the secondary.
    pub struct MultiConfig {
        /// Store that decides.
        pub primary: Option<KvStore> as Optional, "primary";
        /// Store that is mirrored to.
        pub secondary: Option<KvStore> as Optional, "secondary";
        /// Mirror writes to the secondary.
        pub mirror_enabled: bool = false, "mirror-enabled";
        /// Longest attempt to mirror one change; 0 means no limit.
        pub mirror_timeout: Duration = Duration::from_secs(2), "mirror-timeout";
        /// When a write returns: async (once the primary has it) or sync (after the first attempt on the secondary, as Cortex).
        pub mirror_mode: MirrorMode, "mirror-mode";
        /// What readers see: auto (the union while mirroring), primary or union.
        pub read_mode: ReadMode, "read-mode";
        /// Time between two comparisons of the stores; 0 means never.
        pub reconcile_interval: Duration = Duration::from_secs(30), "reconcile-interval";
        /// Longest wait at shutdown for what is still to be mirrored.
        pub mirror_drain_timeout: Duration = Duration::from_secs(5), "mirror-drain-timeout";
        /// Switch the primary only once the other store is known to hold everything.
        pub switch_gate: bool = true, "switch-gate";
        /// Longest wait for that; 0 means for ever.
        pub switch_gate_timeout: Duration = Duration::ZERO, "switch-gate-timeout";
        /// Largest mirrored value in bytes; 0 means the secondary's own limit (524288 for Consul).
        pub max_value_bytes: u64 = 0, "max-value-bytes";
        /// Longest wait at start for the primary, after which a synced secondary is enough.
        pub start_timeout: Duration = Duration::from_secs(10), "start-timeout";
    }
}

impl KvStoreConfig {
    /// Whether values go to `store`, alone or as one of two.
    pub(crate) fn uses(&self, store: KvStore) -> bool {
        self.store == store
            || self.store == KvStore::Multi
                && [self.multi.primary, self.multi.secondary].contains(&Some(store))
    }

    pub(crate) fn validate(&self, rules: &mut Rules<'_>) {
        let Self { store: _, prefix: _, layout: _, consul, dynamodb: _, etcd, multi, own: _ } = self;
        if self.uses(KvStore::Consul) {
            consul.validate(&mut rules.below("consul"));
        }
        if self.uses(KvStore::Etcd) {
            etcd.validate(&mut rules.below("etcd"));
        }
        if self.store == KvStore::Multi {
            multi.validate(&mut rules.below("multi"));
        }
    }
}

impl ConsulConfig {
    fn validate(&self, rules: &mut Rules<'_>) {
        let Self {
            host,
            acl_token: _,
            datacenter: _,
            http_client_timeout,
            consistent_reads: _,
            watch_rate_limit,
            watch_burst_size,
            max_value_bytes,
            tls_enabled: _,
            tls_cert_path,
            tls_key_path,
            tls_ca_path: _,
            tls_server_name: _,
            tls_insecure_skip_verify: _,
        } = self;
        rules.require(!host.is_empty(), "host", "is empty, but the store is consul: give host:port");
        rules.require(!http_client_timeout.is_zero(), "http_client_timeout", "must be longer than 0");
        rules.require(*max_value_bytes > 0, "max_value_bytes", "must be more than 0");
        rules.require(*watch_rate_limit >= 0.0, "watch_rate_limit", "cannot be negative");
        rules.require(
            *watch_rate_limit == 0.0 || *watch_burst_size > 0,
            "watch_burst_size",
            "must be at least 1 with a rate limit, or no watch will ever run",
        );
        both_or_neither(tls_cert_path, tls_key_path, rules);
    }
}

impl EtcdConfig {
    fn validate(&self, rules: &mut Rules<'_>) {
        let Self {
            endpoints,
            dial_timeout,
            max_retries: _,
            max_value_bytes,
            tls_enabled: _,
            tls_cert_path,
            tls_key_path,
            tls_ca_path: _,
            tls_server_name: _,
            tls_insecure_skip_verify: _,
            username,
            password,
            ping_without_stream_allowed: _,
        } = self;
        rules.require(
            !endpoints.is_empty(),
            "endpoints",
            "is empty, but the store is etcd: list its members",
        );
        rules.require(*max_value_bytes > 0, "max_value_bytes", "must be more than 0");
        rules.require(!dial_timeout.is_zero(), "dial_timeout", "must be longer than 0");
        rules.require(
            password.is_empty() || !username.is_empty(),
            "username",
            "is empty, but `password` is set: one is useless without the other",
        );
        both_or_neither(tls_cert_path, tls_key_path, rules);
    }
}

fn both_or_neither(cert: &str, key: &str, rules: &mut Rules<'_>) {
    let lonely = if cert.is_empty() { "tls_key_path" } else { "tls_cert_path" };
    let both = "set both `tls_cert_path` and `tls_key_path`, or neither";
    rules.require(cert.is_empty() == key.is_empty(), lonely, both);
}

impl MultiConfig {
    fn validate(&self, rules: &mut Rules<'_>) {
        let Self {
            primary,
            secondary,
            mirror_enabled,
            mirror_timeout: _,
            mirror_mode: _,
            read_mode,
            reconcile_interval: _,
            mirror_drain_timeout: _,
            switch_gate: _,
            switch_gate_timeout: _,
            max_value_bytes: _,
            start_timeout: _,
        } = self;
        for (key, store) in [("primary", primary), ("secondary", secondary)] {
            rules.require(
                store.is_some(),
                key,
                "is not set, but the store is multi: it needs a primary and a secondary",
            );
            rules.require(*store != Some(KvStore::Multi), key, "cannot be multi itself");
        }
        rules.require(
            primary.is_none() || primary != secondary,
            "secondary",
            "is the primary too: the two stores must differ",
        );
        rules.advise(
            *mirror_enabled || *read_mode == ReadMode::Union,
            "mirror_enabled",
            "is false: the secondary gets no writes until the runtime configuration says otherwise",
        );
    }
}
