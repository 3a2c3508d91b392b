//! The rules of the root. Every section states its own rules in its own file, taking itself apart in full so that a new
//! key cannot be forgotten. Every broken rule is reported; what Cortex accepts is at most a warning, unless it would go
//! wrong silently.

use crate::{Config, KvStore, KvStoreConfig, RingName, problems::Rules};

/// What `-target` may name.
pub const TARGETS: [&str; 4] = ["all", "distributor", "ingester", "store-gateway"];

impl Config {
    pub(crate) fn validate(&self, rules: &mut Rules<'_>) {
        let Self {
            target,
            auth_enabled: _,
            http_prefix,
            api,
            server,
            distributor,
            querier,
            ingester_client,
            ingester,
            limits,
            blocks_storage,
            store_gateway,
            ring,
            memberlist,
            runtime_config,
        } = self;
        rules.require(
            !target.is_empty(),
            "target",
            "name at least one of all, distributor, ingester, store-gateway",
        );
        rules.require(
            http_prefix.is_empty() || http_prefix.starts_with('/'),
            "http_prefix",
            "a path starts with a slash",
        );
        api.validate(&mut rules.below("api"));
        server.validate(&mut rules.below("server"));
        distributor.validate(limits, &mut rules.below("distributor"));
        querier.validate(&mut rules.below("querier"));
        ingester_client.validate(&mut rules.below("ingester_client"));
        ingester.validate(&mut rules.below("ingester"));
        limits.validate(&mut rules.below("limits"));
        blocks_storage.validate(&mut rules.below("blocks_storage"));
        store_gateway.validate(limits, &mut rules.below("store_gateway"));
        ring.validate(&mut rules.below("ring"));
        let gossips = RingName::ALL
            .into_iter()
            .any(|ring| self.uses(ring) && self.kvstore(ring).uses(KvStore::Memberlist));
        memberlist.validate(gossips, &mut rules.below("memberlist"));
        runtime_config.validate(&mut rules.below("runtime_config"));
        self.validate_stores(rules);
    }

    /// The stores of the rings that this process uses; what is wrong with one that rings share is said once.
    fn validate_stores(&self, rules: &mut Rules<'_>) {
        let ingester = self.kvstore(RingName::Ingester);
        for ring in RingName::ALL.into_iter().filter(|ring| self.uses(*ring)) {
            let kvstore = self.kvstore(ring);
            let mut rules = rules.below(ring.kvstore_path());
            rules.advise(
                kvstore.prefix.is_empty() || kvstore.prefix.ends_with('/'),
                "prefix",
                "does not end with a slash: keys will run into it",
            );
            let shared = KvStoreConfig { prefix: ingester.prefix.clone(), ..kvstore.clone() } == *ingester;
            if ring == RingName::Ingester || !shared {
                kvstore.validate(&mut rules);
            }
        }
    }
}

/// The rule between heartbeats and the age at which an instance looks dead.
pub(crate) fn heartbeats(period: std::time::Duration, timeout: std::time::Duration, rules: &mut Rules<'_>) {
    rules.advise(
        period.is_zero() || timeout.is_zero() || timeout > period.saturating_mul(2),
        "heartbeat_period",
        "one lost heartbeat will make a live instance look dead: keep it under half of the ring's `heartbeat_timeout`",
    );
    rules.advise(
        !period.is_zero() || timeout.is_zero(),
        "heartbeat_period",
        "heartbeats are off, but the ring's `heartbeat_timeout` is not: this instance will look dead",
    );
}
