//! The runtime configuration: what a process takes over while it runs. Here is what may stand in its files and what that
//! means over the main configuration; they are read by others.
//!
//! Unlike the main configuration's, its files know no environment variables and no flags, as in Cortex.
//!
//! # Source
//!
//! Cortex `pkg/cortex/runtime_config.go`: the keys, and that tenants begin at the main configuration's limits. dskit
//! `runtimeconfig/manager.go`: several files, of which the later wins. `force`, `generation` and `per_ring` are not there.

mod read;

use std::{
    borrow::Cow,
    collections::{BTreeMap, HashMap},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use crate::{
    BucketBackend, Config, IngesterInstanceLimits, KvStore, LimitsConfig, LoadError, Warning,
    problems::Rules,
    schema::{Section, Tree, section},
    units::{Nullable, Optional},
    yaml,
};

section! {
    /// The file that is read again while the process runs.
    pub struct RuntimeConfigSource {
        /// Time between two reads.
        pub period: Duration = Duration::from_secs(10), "reload-period";
        /// The file, or several separated by commas, of which the later wins; empty means none.
        pub file: String, "file";
        /// Where the file is: filesystem (Cortex's other backends are not built yet).
        pub backend: BucketBackend = BucketBackend::Filesystem, "backend";
        /// Files of the machine.
        pub filesystem: RuntimeConfigDir, "filesystem.";
    }
}

section! {
    /// Files of the machine.
    pub struct RuntimeConfigDir {
        /// The directory that a relative path starts from; empty means where the process was started.
        pub dir: String, "dir";
    }
}

impl RuntimeConfigSource {
    /// The files, in the order in which they are read; none if there is no runtime configuration.
    pub fn paths(&self) -> Vec<PathBuf> {
        let dir = Path::new(&self.filesystem.dir);
        let files = self.file.split(',').map(str::trim).filter(|file| !file.is_empty());
        files.map(|file| dir.join(file)).collect()
    }

    pub(crate) fn validate(&self, rules: &mut Rules<'_>) {
        let Self { period, file, backend, filesystem: RuntimeConfigDir { dir: _ } } = self;
        rules.require(!period.is_zero(), "period", "must be longer than 0");
        rules.require(
            file.is_empty() || *backend == BucketBackend::Filesystem,
            "backend",
            "is not built yet: the runtime configuration can only be a file (`filesystem`)",
        );
    }
}

section! {
    /// Where a ring that is kept in two stores is to be, instead of what the main configuration says.
    pub struct RingSwitch {
        /// Store that decides; empty leaves it as it is.
        pub primary: Option<KvStore> as Optional, "";
        /// Mirror writes to the other store; null leaves it as it is.
        pub mirror_enabled: Option<bool> as Nullable, "";
    }
}

section! {
    /// Moves rings from one store to the other while their processes run.
    pub struct MultiRuntimeConfig {
        /// Store that decides; empty leaves it as it is.
        pub primary: Option<KvStore> as Optional, "";
        /// Mirror writes to the other store; null leaves it as it is.
        pub mirror_enabled: Option<bool> as Nullable, "";
        /// Switch at once, whatever the other store may lack.
        pub force: bool = false, "";
        /// Raised with every step of a migration: a process ignores a generation lower than one that it has applied.
        pub generation: u64 = 0, "";
    }
    extra {
        /// Rings that go their own way, by the name of their store's client. Serde does not see them.
        pub per_ring: BTreeMap<String, RingSwitch>;
    }
}

impl MultiRuntimeConfig {
    /// What is said for one ring: what it has of its own, else what is said for all.
    pub fn of(&self, ring: &str) -> RingSwitch {
        let own = self.per_ring.get(ring);
        RingSwitch {
            primary: own.and_then(|own| own.primary).or(self.primary),
            mirror_enabled: own.and_then(|own| own.mirror_enabled).or(self.mirror_enabled),
        }
    }
}

/// One file of a runtime configuration.
#[derive(Clone, Copy, Debug)]
pub struct RuntimeFile<'a> {
    /// What problems call it.
    pub name: &'a str,
    /// What is in it.
    pub bytes: &'a [u8],
}

/// What holds beside the main configuration, until the files are read again.
#[derive(Clone, Debug, PartialEq)]
pub struct RuntimeConfig {
    /// SHA-256 of the files that this came from, in hexadecimal, as who read them says; `None` without any.
    pub sha256: Option<Arc<str>>,
    /// Moves of rings between stores.
    pub multi_kv_config: MultiRuntimeConfig,
    overrides: HashMap<String, Arc<LimitsConfig>>,
    ingester_limits: Option<IngesterInstanceLimits>,
    /// The main configuration's, for everybody without overrides.
    limits: Arc<LimitsConfig>,
    instance_limits: IngesterInstanceLimits,
}

impl RuntimeConfig {
    /// Longest file in bytes.
    pub const MAX_BYTES: u64 = yaml::MAX_BYTES as u64;

    /// What holds without any file: the main configuration.
    pub fn new(config: &Config) -> Self {
        Self {
            sha256: None,
            multi_kv_config: MultiRuntimeConfig::default(),
            overrides: HashMap::new(),
            ingester_limits: None,
            limits: Arc::new(config.limits.clone()),
            instance_limits: config.ingester.instance_limits.clone(),
        }
    }

    /// What holds with these files over the main configuration that this one came from. What earlier files said is gone. Of
    /// several files the later wins, key by key; a list replaces the one before. `sha256` is left to the caller.
    ///
    /// # Errors
    ///
    /// Everything that is wrong, at once.
    pub fn read(&self, files: &[RuntimeFile<'_>]) -> Result<(Self, Vec<Warning>), LoadError> {
        let base = Self {
            sha256: None,
            multi_kv_config: MultiRuntimeConfig::default(),
            overrides: HashMap::new(),
            ingester_limits: None,
            limits: Arc::clone(&self.limits),
            instance_limits: self.instance_limits.clone(),
        };
        read::read(base, files)
    }

    /// The limits of a tenant: its overrides, or else the main configuration's.
    pub fn limits(&self, tenant: &str) -> &Arc<LimitsConfig> {
        self.overrides.get(tenant).unwrap_or(&self.limits)
    }

    /// The limits of an ingester as a whole.
    pub fn ingester_limits(&self) -> &IngesterInstanceLimits {
        self.ingester_limits.as_ref().unwrap_or(&self.instance_limits)
    }

    /// As YAML that could be read again: tenants with all their limits, sorted.
    pub fn to_yaml(&self) -> String {
        yaml::write(&self.tree(), &())
    }

    /// What differs from the main configuration, as YAML.
    pub fn diff_yaml(&self) -> String {
        let defaults = Self {
            sha256: None,
            multi_kv_config: MultiRuntimeConfig::default(),
            overrides: self
                .overrides
                .keys()
                .map(|tenant| (tenant.clone(), Arc::clone(&self.limits)))
                .collect(),
            ingester_limits: self.ingester_limits.as_ref().map(|_| self.instance_limits.clone()),
            limits: Arc::clone(&self.limits),
            instance_limits: self.instance_limits.clone(),
        };
        yaml::write_diff(&self.tree(), &defaults.tree())
    }

    fn tree(&self) -> Tree {
        let mut tenants: Vec<_> = self.overrides.iter().collect();
        tenants.sort_unstable_by_key(|(tenant, _)| *tenant);
        let overrides =
            tenants.into_iter().map(|(tenant, limits)| (Cow::Owned(tenant.clone()), limits.tree()));
        let mut multi = self.multi_kv_config.tree();
        if let Tree::Map(entries) = &mut multi {
            let rings = self.multi_kv_config.per_ring.iter();
            let rings = rings.map(|(ring, switch)| (Cow::Owned(ring.clone()), switch.tree()));
            entries.push((read::PER_RING.into(), Tree::Map(rings.collect())));
        }
        Tree::Map(vec![
            (read::OVERRIDES.into(), Tree::Map(overrides.collect())),
            (read::MULTI.into(), multi),
            (read::INGESTER_LIMITS.into(), self.ingester_limits.as_ref().map_or(Tree::Null, Section::tree)),
        ])
    }
}
