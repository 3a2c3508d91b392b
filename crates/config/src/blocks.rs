//! Where samples are kept: the ingesters' own storage, and blocks in a bucket.

use std::time::Duration;

use crate::{
    problems::Rules,
    schema::section,
    units::{Secret, choice},
};

choice! {
    /// When a write to the log is acknowledged.
    pub enum WalSync {
        /// Once the operating system has it: survives a crash of the process.
        Write = "write",
        /// Once the disk has it: survives a crash of the machine.
        Commit = "commit",
    }
}

choice! {
    /// Where blocks are stored.
    pub enum BucketBackend {
        /// S3 or what speaks like it.
        S3 = "s3",
        /// Google Cloud Storage.
        Gcs = "gcs",
        /// Azure Blob Storage.
        Azure = "azure",
        /// OpenStack Swift.
        Swift = "swift",
        /// Oracle Cloud.
        Oci = "oci",
        /// A directory.
        Filesystem = "filesystem",
    }
}

section! {
    /// Where samples are kept.
    pub struct BlocksStorageConfig {
        /// Kind of bucket: filesystem (s3, gcs, azure, swift and oci are Cortex's and not built yet).
        pub backend: BucketBackend, "backend", unused;
        /// S3 (not built yet).
        pub s3: S3Config, "s3.";
        /// A directory as bucket.
        pub filesystem: FilesystemConfig, "filesystem.";
        /// How store-gateways read the bucket.
        pub bucket_store: BucketStoreConfig, "bucket-store.";
        /// How ingesters keep recent samples.
        pub tsdb: TsdbConfig, "tsdb.";
    }
}

section! {
    /// S3 (not built yet).
    pub struct S3Config {
        /// Address of the service.
        pub endpoint: String, "endpoint", unused;
        /// Region.
        pub region: String, "region", unused;
        /// Bucket.
        pub bucket_name: String, "bucket-name", unused;
        /// Secret key.
        pub secret_access_key: Secret, "secret-access-key", unused;
        /// Access key.
        pub access_key_id: String, "access-key-id", unused;
        /// Use HTTP instead of HTTPS.
        pub insecure: bool = false, "insecure", unused;
    }
}

section! {
    /// A directory as bucket.
    pub struct FilesystemConfig {
        /// The directory.
        pub dir: String, "dir", unused;
    }
}

section! {
    /// How store-gateways read the bucket.
    pub struct BucketStoreConfig {
        /// Directory for what is kept of the bucket locally.
        pub sync_dir: String = "tsdb-sync".into(), "sync-dir", unused;
        /// Time between two looks for new blocks.
        pub sync_interval: Duration = Duration::from_secs(900), "sync-interval", unused;
        /// Age of a deletion mark after which its block is no longer read.
        pub ignore_deletion_mark_delay: Duration = Duration::from_secs(6 * 3600), "ignore-deletion-marks-delay", unused;
        /// The index of the bucket.
        pub bucket_index: BucketIndexConfig, "bucket-index.";
    }
}

section! {
    /// The index of the bucket.
    pub struct BucketIndexConfig {
        /// Read blocks from the index instead of listing the bucket.
        pub enabled: bool = true, "enabled", unused;
        /// Wait after a failed read of the index.
        pub update_on_error_interval: Duration = Duration::from_secs(60), "update-on-error-interval", unused;
        /// Time without queries after which a tenant's index is dropped from memory.
        pub idle_timeout: Duration = Duration::from_secs(3600), "idle-timeout", unused;
        /// Age of the index above which queries fail.
        pub max_stale_period: Duration = Duration::from_secs(3600), "max-stale-period", unused;
    }
}

section! {
    /// How ingesters keep recent samples.
    pub struct TsdbConfig {
        /// Directory for log, head and blocks.
        pub dir: String = "tsdb".into(), "dir";
        /// Time ranges of blocks; the first is what an ingester cuts.
        pub block_ranges_period: Vec<Duration> = vec![Duration::from_secs(2 * 3600)], "block-ranges-period", unused;
        /// How long blocks stay in the ingester. Must exceed the time range of a block and the age at which queries go to the bucket.
        pub retention_period: Duration = Duration::from_secs(6 * 3600), "retention-period";
        /// Time between two looks for blocks to ship; 0 means never.
        pub ship_interval: Duration = Duration::from_secs(60), "ship-interval", unused;
        /// Tenants whose blocks are shipped at once.
        pub ship_concurrency: usize = 10, "ship-concurrency", unused;
        /// Time between two looks whether a block can be cut.
        pub head_compaction_interval: Duration = Duration::from_secs(60), "head-compaction-interval";
        /// Time without samples after which the head becomes a block; 0 means never.
        pub head_compaction_idle_timeout: Duration = Duration::from_secs(3600), "head-compaction-idle-timeout", unused;
        /// Size of a segment of the log, in bytes.
        pub wal_segment_size_bytes: u64 = 134_217_728, "wal-segment-size-bytes";
        /// Cut and ship everything at shutdown.
        pub flush_blocks_on_shutdown: bool = false, "flush-blocks-on-shutdown", unused;
        /// When a write is acknowledged: write (survives a crash of the process) or commit (of the machine) (ringkit's own key).
        pub wal_sync: WalSync, "wal-sync";
        /// Size of the log, in bytes, after which a snapshot replaces it; 0 means at each cut only (ringkit's own key).
        pub wal_snapshot_bytes: u64 = 1_073_741_824, "wal-snapshot-bytes";
        /// Start although the log is damaged in the middle, leaving out what cannot be read (ringkit's own key).
        pub wal_repair: bool = false, "wal-repair";
    }
}

impl BlocksStorageConfig {
    pub(crate) fn validate(&self, rules: &mut Rules<'_>) {
        // Which backend there is, is known to who opens it.
        let Self { backend: _, s3: _, filesystem: FilesystemConfig { dir: _ }, bucket_store, tsdb } = self;
        bucket_store.validate(&mut rules.below("bucket_store"));
        tsdb.validate(&mut rules.below("tsdb"));
    }
}

impl BucketStoreConfig {
    fn validate(&self, rules: &mut Rules<'_>) {
        let Self {
            sync_dir,
            sync_interval,
            ignore_deletion_mark_delay: _,
            bucket_index:
                BucketIndexConfig {
                    enabled: _,
                    update_on_error_interval: _,
                    idle_timeout: _,
                    max_stale_period: _,
                },
        } = self;
        rules.require(!sync_dir.is_empty(), "sync_dir", "is empty: name a directory");
        rules.require(!sync_interval.is_zero(), "sync_interval", "must be longer than 0");
    }
}

impl TsdbConfig {
    fn validate(&self, rules: &mut Rules<'_>) {
        /// Cortex's own bound.
        const LONGEST_COMPACTION_INTERVAL: Duration = Duration::from_secs(30 * 60);
        let Self {
            dir,
            block_ranges_period,
            retention_period,
            ship_interval,
            ship_concurrency,
            head_compaction_interval,
            head_compaction_idle_timeout: _,
            wal_segment_size_bytes,
            flush_blocks_on_shutdown: _,
            wal_sync: _,
            wal_snapshot_bytes: _,
            wal_repair: _,
        } = self;
        rules.require(!dir.is_empty(), "dir", "is empty: name a directory");
        rules.require(
            !block_ranges_period.is_empty() && block_ranges_period.iter().all(|range| !range.is_zero()),
            "block_ranges_period",
            "needs at least one time range, each longer than 0",
        );
        let nested =
            |pair: &[Duration]| matches!(pair, [a, b] if b > a && b.as_nanos() % a.as_nanos().max(1) == 0);
        rules.require(
            block_ranges_period.windows(2).all(nested),
            "block_ranges_period",
            "each time range must be a multiple of the one before",
        );
        rules.advise(
            block_ranges_period.first().is_none_or(|range| retention_period >= range),
            "retention_period",
            "is shorter than a block: blocks may be gone before store-gateways have them",
        );
        rules.require(
            ship_interval.is_zero() || *ship_concurrency > 0,
            "ship_concurrency",
            "must be at least 1, or no block is ever shipped",
        );
        rules.require(
            !head_compaction_interval.is_zero() && *head_compaction_interval <= LONGEST_COMPACTION_INTERVAL,
            "head_compaction_interval",
            "must be longer than 0 and at most 30m",
        );
        rules.require(*wal_segment_size_bytes > 0, "wal_segment_size_bytes", "must be at least 1");
    }
}
