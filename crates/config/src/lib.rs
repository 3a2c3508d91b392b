//! The configuration of every ringkit process: one schema, with Cortex's keys, flags, notation and defaults.
//!
//! A configuration is layered: defaults, YAML files, `RINGKIT_` environment variables, flags. Every value knows where it
//! came from, and all problems of a configuration are reported at once.
//!
//! ```
//! let loaded = ringkit_config::parse_yaml("ringkit.yaml", "ring: {store: inmemory}").unwrap();
//! let ring = ringkit_config::RingName::Ingester;
//! assert_eq!(loaded.config.kv(ring).store, ringkit_config::KvStore::Inmemory);
//! let error = ringkit_config::parse_yaml("ringkit.yaml", "ring: {stor: inmemory}").unwrap_err();
//! assert_eq!(error.to_string(), "ringkit.yaml:1:8: ring.stor: unknown key (did you mean `store`?)");
//! ```

mod args;
mod blocks;
mod check;
mod compare;
mod cortex;
mod distributor;
mod env;
mod ingester;
mod kv;
mod lifecycler;
mod limits;
mod load;
mod memberlist;
mod problems;
mod reference;
mod ring;
mod runtime;
mod schema;
mod server;
mod store_gateway;
mod stores;
mod units;
mod validate;
mod yaml;

pub use args::Ask;
pub use blocks::{
    BlocksStorageConfig, BucketBackend, BucketIndexConfig, BucketStoreConfig, FilesystemConfig, S3Config,
    TsdbConfig, WalSync,
};
pub use compare::{Comparison, Difference};
pub use distributor::{
    DistributorConfig, DistributorInstanceLimits, DistributorRingConfig, HaTrackerConfig, PoolConfig,
    ReadQuorum, ShardingStrategy,
};
pub use ingester::{
    BackoffConfig, GrpcClientConfig, GrpcCompression, HealthcheckConfig, IngesterClientConfig,
    IngesterConfig, IngesterInstanceLimits,
};
pub use kv::{
    ConsulConfig, DynamoDbConfig, EtcdConfig, KvStore, KvStoreConfig, Layout, MirrorMode, MultiConfig, Own,
    ReadMode,
};
pub use lifecycler::{
    LifecyclerConfig, MAX_NUM_TOKENS, ReadinessCheck, TokensFileOnCorrupt, TokensGeneratorStrategy,
};
pub use limits::{IngestionRateStrategy, LimitsConfig};
pub use load::{Loaded, Origins, load, load_process, parse_yaml};
pub use memberlist::{Dialect, MemberlistConfig, PacketTransport};
pub use problems::{LoadError, Origin, Problem, Warning};
pub use reference::{flags_help, json_schema, reference_yaml};
pub use ring::{BackendsConfig, RingConfig, RingDefaults};
pub use runtime::{
    MultiRuntimeConfig, RingSwitch, RuntimeConfig, RuntimeConfigDir, RuntimeConfigSource, RuntimeFile,
};
pub use server::{ApiConfig, ListenerTlsConfig, LogFormat, LogLevel, ServerConfig};
pub use store_gateway::{
    QuerierConfig, StoreGatewayClientConfig, StoreGatewayConfig, StoreGatewayRingConfig,
};
pub use units::{AutoDuration, Secret};
pub use validate::TARGETS;

use schema::section;
use units::Csv;

section! {
    /// The configuration of every ringkit process.
    pub struct Config {
        /// What this process runs, separated by commas: all, distributor, ingester, store-gateway.
        pub target: Vec<String> as Csv = vec!["all".into()], "target";
        /// Require a tenant in `X-Scope-OrgID`; otherwise everything belongs to the tenant `fake`.
        pub auth_enabled: bool = true, "auth.enabled";
        /// Older path below which the API is served too.
        pub http_prefix: String = "/api/prom".into(), "http.prefix";
        /// HTTP API.
        pub api: ApiConfig, "";
        /// HTTP and gRPC listeners, and logs.
        pub server: ServerConfig, "server.";
        /// The distributor.
        pub distributor: DistributorConfig, "distributor.";
        /// Queries, as far as they concern store-gateways.
        pub querier: QuerierConfig, "querier.";
        /// How ingesters are called.
        pub ingester_client: IngesterClientConfig, "ingester.client.";
        /// The ingester.
        pub ingester: IngesterConfig, "ingester.";
        /// Limits per tenant.
        pub limits: LimitsConfig, "";
        /// Where samples are kept.
        pub blocks_storage: BlocksStorageConfig, "blocks-storage.";
        /// The store-gateway.
        pub store_gateway: StoreGatewayConfig, "store-gateway.";
        /// Defaults for every ring of this process (ringkit's own block).
        pub ring: RingDefaults, "";
        /// Gossip.
        pub memberlist: MemberlistConfig, "memberlist.";
        /// The file that is read again while the process runs.
        pub runtime_config: RuntimeConfigSource, "runtime-config.";
    }
}

/// One of the rings.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum RingName {
    /// Key `ring`: who holds which series.
    Ingester,
    /// Key `distributor`: how many distributors share a global rate.
    Distributor,
    /// Key `store-gateway`: who serves which blocks.
    StoreGateway,
}
