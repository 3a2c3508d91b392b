//! The page as data. New fields go behind those that are there: tools of several versions read them.

use std::sync::Arc;

use ringkit_config::{Config, KvStore, MultiRuntimeConfig, ReadMode, RingName, RuntimeConfig};
use ringkit_kv::multi::MultiReport;
use serde::Serialize;

/// All that is told.
#[derive(Serialize)]
pub(super) struct Status<'a> {
    /// `multi_kv_config.generation` of the runtime configuration in use.
    pub(super) generation: u64,
    /// SHA-256 of its files, in hexadecimal; `null` without any.
    pub(super) config_hash: Option<Arc<str>>,
    pub(super) instances: &'a [Instance],
    pub(super) stores: Vec<MultiReport>,
    /// What the runtime configuration asks for.
    runtime: Asked<'a>,
    /// Where the rings are that the process is in or reads, by the main configuration.
    rings: &'a [Ring],
}

/// Who the process is, and where its rings are. Stays as long as it runs.
pub(super) struct Identity {
    instances: Vec<Instance>,
    rings: Vec<Ring>,
}

/// One of the instances that the process is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Instance {
    /// As it calls itself in the ring.
    pub(super) name: String,
    /// What it runs; the ring is called the same.
    pub(super) target: &'static str,
}

#[derive(Serialize)]
struct Asked<'a> {
    primary: Option<KvStore>,
    mirror_enabled: Option<bool>,
    force: bool,
    /// Rings that go their own way.
    per_ring: Vec<&'a str>,
}

#[derive(Serialize)]
struct Ring {
    ring: &'static str,
    store: KvStore,
    /// The two that it is kept in.
    multi: Option<Pair>,
}

#[derive(Serialize)]
struct Pair {
    primary: Option<KvStore>,
    secondary: Option<KvStore>,
    mirror_enabled: bool,
    read_mode: ReadMode,
    switch_gate: bool,
}

impl Identity {
    /// `runs` tells which roles run.
    pub(super) fn of(config: &Config, runs: impl Fn(&str) -> bool) -> Self {
        let of_ring = |ring: RingName| match ring {
            RingName::Ingester => &config.ingester.lifecycler.id,
            RingName::Distributor => &config.distributor.ring.instance_id,
            RingName::StoreGateway => &config.store_gateway.sharding_ring.instance_id,
        };
        let own = RingName::ALL.into_iter().filter(|ring| runs(role(*ring)));
        let instances = own.map(|ring| Instance { name: of_ring(ring).clone(), target: role(ring) });
        // Whoever is in another ring reads that of the ingesters, too.
        let used = RingName::ALL
            .into_iter()
            .filter(|ring| runs(role(*ring)) || *ring == RingName::Ingester && runs("ring"));
        Self { instances: instances.collect(), rings: used.map(|ring| Ring::of(config, ring)).collect() }
    }
}

/// The role whose ring it is.
fn role(ring: RingName) -> &'static str {
    match ring {
        RingName::Ingester => "ingester",
        RingName::Distributor => "distributor",
        RingName::StoreGateway => "store-gateway",
    }
}

impl Ring {
    fn of(config: &Config, ring: RingName) -> Self {
        let kv = config.kv(ring);
        let pair = Pair {
            primary: kv.multi.primary,
            secondary: kv.multi.secondary,
            mirror_enabled: kv.multi.mirror_enabled,
            read_mode: kv.multi.read_mode,
            switch_gate: kv.multi.switch_gate,
        };
        Self { ring: role(ring), store: kv.store, multi: (kv.store == KvStore::Multi).then_some(pair) }
    }
}

impl<'a> Status<'a> {
    pub(super) fn of(config: &'a RuntimeConfig, identity: &'a Identity, stores: Vec<MultiReport>) -> Self {
        let MultiRuntimeConfig { primary, mirror_enabled, force, generation, per_ring } =
            &config.multi_kv_config;
        let per_ring = per_ring.keys().map(String::as_str).collect();
        Self {
            generation: *generation,
            config_hash: config.sha256.clone(),
            instances: &identity.instances,
            stores,
            runtime: Asked { primary: *primary, mirror_enabled: *mirror_enabled, force: *force, per_ring },
            rings: &identity.rings,
        }
    }
}
