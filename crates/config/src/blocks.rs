//! Where samples are kept: the ingesters' own storage, and blocks in a bucket.

use std::time::Duration;

use crate::{
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
        pub backend: BucketBackend, "backend";
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
        pub dir: String, "dir";
    }
}

section! {
    /// How store-gateways read the bucket.
    pub struct BucketStoreConfig {
        /// Directory for what is kept of the bucket locally.
        pub sync_dir: String = "tsdb-sync".into(), "sync-dir";
        /// Time between two looks for new blocks.
        pub sync_interval: Duration = Duration::from_secs(900), "sync-interval";
        /// Age of a deletion mark after which its block is no longer read.
        pub ignore_deletion_mark_delay: Duration = Duration::from_secs(6 * 3600), "ignore-deletion-marks-delay";
        /// The index of the bucket.
        pub bucket_index: BucketIndexConfig, "bucket-index.";
    }
}

section! {
    /// The index of the bucket.
    pub struct BucketIndexConfig {
        /// Read blocks from the index instead of listing the bucket.
        pub enabled: bool = true, "enabled";
        /// Wait after a failed read of the index.
        pub update_on_error_interval: Duration = Duration::from_secs(60), "update-on-error-interval";
        /// Time without queries after which a tenant's index is dropped from memory.
        pub idle_timeout: Duration = Duration::from_secs(3600), "idle-timeout";
        /// Age of the index above which queries fail.
        pub max_stale_period: Duration = Duration::from_secs(3600), "max-stale-period";
    }
}

section! {
    /// How ingesters keep recent samples.
    pub struct TsdbConfig {
        /// Directory for log, head and blocks.
        pub dir: String = "tsdb".into(), "dir";
        /// Time ranges of blocks; the first is what an ingester cuts.
        pub block_ranges_period: Vec<Duration> = vec![Duration::from_secs(2 * 3600)], "block-ranges-period";
        /// How long blocks stay in the ingester. Must exceed the time range of a block and the age at which queries go to the bucket.
        pub retention_period: Duration = Duration::from_secs(6 * 3600), "retention-period";
        /// Time between two looks for blocks to ship; 0 means never.
        pub ship_interval: Duration = Duration::from_secs(60), "ship-interval";
        /// Tenants whose blocks are shipped at once.
        pub ship_concurrency: usize = 10, "ship-concurrency";
        /// Time between two looks whether a block can be cut.
        pub head_compaction_interval: Duration = Duration::from_secs(60), "head-compaction-interval";
        /// Time without samples after which the head becomes a block; 0 means never.
        pub head_compaction_idle_timeout: Duration = Duration::from_secs(3600), "head-compaction-idle-timeout";
        /// Size of a segment of the log, in bytes.
        pub wal_segment_size_bytes: u64 = 134_217_728, "wal-segment-size-bytes";
        /// Cut and ship everything at shutdown.
        pub flush_blocks_on_shutdown: bool = false, "flush-blocks-on-shutdown";
        /// When a write is acknowledged: write (survives a crash of the process) or commit (of the machine) (ringkit's own key).
        pub wal_sync: WalSync, "wal-sync";
        /// Size of the log, in bytes, after which a snapshot replaces it; 0 means at each cut only (ringkit's own key).
        pub wal_snapshot_bytes: u64 = 1_073_741_824, "wal-snapshot-bytes";
        /// Start although the log is damaged in the middle, leaving out what cannot be read (ringkit's own key).
        pub wal_repair: bool = false, "wal-repair";
    }
}
