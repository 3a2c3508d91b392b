//! Which ring is on which store.
//!
//! A ring's own `kvstore.store` decides; else `ring.store`; else the ingester ring's store. If the ingester ring is on
//! `multi` and another ring would get one of its two stores without having asked for it, that ring uses the same
//! `multi`, so that a migration of the store moves every ring. Backend blocks that a ring does not have come from
//! `ring.kvstore`, else from the ingester ring.

use crate::{Config, KvStore, KvStoreConfig, RingName, problems::Findings, problems::Origin};

impl RingName {
    /// All rings.
    pub const ALL: [Self; 3] = [Self::Ingester, Self::Distributor, Self::StoreGateway];

    /// The path of the ring's `kvstore` block.
    pub(crate) const fn kvstore_path(self) -> &'static str {
        match self {
            Self::Ingester => "ingester.lifecycler.ring.kvstore",
            Self::Distributor => "distributor.ring.kvstore",
            Self::StoreGateway => "store_gateway.sharding_ring.kvstore",
        }
    }
}

/// Where a ring's store was taken from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    /// Its own block.
    Own,
    /// `ring.store` or `ring.kvstore`.
    Ring,
    /// The ingester ring.
    Ingester,
    /// Nobody said anything.
    Default,
}

/// A ring's effective store and where its parts came from.
pub(crate) struct Resolved {
    pub(crate) kvstore: KvStoreConfig,
    pub(crate) store: Source,
    pub(crate) layout: Source,
    pub(crate) consul: Source,
    pub(crate) etcd: Source,
    pub(crate) multi: Source,
}

impl Config {
    /// The effective store of a ring, by the rules of which ring is on which store.
    ///
    /// In a configuration built in code, a ring's own store is one that differs from the default, and likewise its
    /// backend blocks.
    pub fn kv(&self, ring: RingName) -> KvStoreConfig {
        self.resolve(ring).kvstore
    }

    pub(crate) fn kvstore(&self, ring: RingName) -> &KvStoreConfig {
        match ring {
            RingName::Ingester => &self.ingester.lifecycler.ring.kvstore,
            RingName::Distributor => &self.distributor.ring.kvstore,
            RingName::StoreGateway => &self.store_gateway.sharding_ring.kvstore,
        }
    }

    pub(crate) fn kvstore_mut(&mut self, ring: RingName) -> &mut KvStoreConfig {
        match ring {
            RingName::Ingester => &mut self.ingester.lifecycler.ring.kvstore,
            RingName::Distributor => &mut self.distributor.ring.kvstore,
            RingName::StoreGateway => &mut self.store_gateway.sharding_ring.kvstore,
        }
    }

    pub(crate) fn resolve(&self, ring: RingName) -> Resolved {
        let mut kvstore = self.kvstore(ring).clone();
        let ingester = (ring != RingName::Ingester).then(|| self.resolve(RingName::Ingester));
        let shared = &self.ring.kvstore;
        let below = ingester.as_ref().map(|resolved| &resolved.kvstore);
        let layout = inherit(
            &mut kvstore.layout,
            kvstore.own.layout,
            &shared.layout,
            shared.own.layout,
            below.map(|k| &k.layout),
        );
        let consul = inherit(
            &mut kvstore.consul,
            kvstore.own.consul,
            &shared.consul,
            shared.own.consul,
            below.map(|k| &k.consul),
        );
        let etcd = inherit(
            &mut kvstore.etcd,
            kvstore.own.etcd,
            &shared.etcd,
            shared.own.etcd,
            below.map(|k| &k.etcd),
        );
        let mut multi = inherit(
            &mut kvstore.multi,
            kvstore.own.multi,
            &shared.multi,
            shared.own.multi,
            below.map(|k| &k.multi),
        );
        let store = if kvstore.own.store || kvstore.store != KvStore::default() {
            Source::Own
        } else {
            let follows = ingester.as_ref().filter(|ingester| ingester.store != Source::Default);
            let fallback = follows.map_or(KvStore::default(), |ingester| ingester.kvstore.store);
            kvstore.store = self.ring.store.unwrap_or(fallback);
            match follows {
                Some(ingester) if mirrors(&ingester.kvstore, kvstore.store) || self.ring.store.is_none() => {
                    kvstore.store = ingester.kvstore.store;
                    if kvstore.store == KvStore::Multi {
                        kvstore.multi = ingester.kvstore.multi.clone();
                        multi = Source::Ingester;
                    }
                    Source::Ingester
                }
                _ if self.ring.store.is_some() => Source::Ring,
                _ => Source::Default,
            }
        };
        Resolved { kvstore, store, layout, consul, etcd, multi }
    }

    /// Whether this process reads or joins the ring.
    pub(crate) fn uses(&self, ring: RingName) -> bool {
        let runs = |role: &str| self.target.iter().any(|target| target == "all" || target == role);
        match ring {
            RingName::Ingester => true,
            RingName::Distributor => {
                runs("distributor")
                    && self.limits.ingestion_rate_strategy == crate::IngestionRateStrategy::Global
            }
            RingName::StoreGateway => {
                self.store_gateway.sharding_enabled && (runs("store-gateway") || runs("distributor"))
            }
        }
    }

    /// Writes the effective stores into the rings' blocks and says what is odd about them.
    pub(crate) fn settle_stores(&mut self, findings: &mut Findings) -> Vec<(RingName, Resolved)> {
        let resolved: Vec<_> = RingName::ALL.into_iter().map(|ring| (ring, self.resolve(ring))).collect();
        self.advise_on_stores(&resolved, findings);
        for (ring, resolved) in &resolved {
            *self.kvstore_mut(*ring) = resolved.kvstore.clone();
        }
        resolved
    }

    fn advise_on_stores(&self, resolved: &[(RingName, Resolved)], findings: &mut Findings) {
        let [(_, ingester), others @ ..] = resolved else { return };
        for (ring, other) in others {
            let path = format!("{}.store", ring.kvstore_path());
            match (other.store, other.kvstore.store) {
                (Source::Ingester, KvStore::Multi) => {
                    let message = "sets no store of its own and would get one that the ingester ring mirrors: it uses \
                                   the ingester ring's `multi` block, so that both move together";
                    findings.warn(&Origin::Default, path, message);
                }
                (Source::Ingester, store) if self.uses(*ring) && store != KvStore::default() => {
                    let message = format!(
                        "sets no store of its own, and `ring.store` is not set: it follows the ingester ring to \
                         `{store}` (Cortex would use `consul`); say so with `ring.store: {store}`"
                    );
                    findings.warn(&Origin::Default, path, message);
                }
                _ => (),
            }
        }
        // A ring left at the default while another was moved away from it.
        let moved = others.iter().any(|(ring, other)| self.uses(*ring) && other.store == Source::Own);
        if ingester.store == Source::Default && moved {
            let path = format!("{}.store", RingName::Ingester.kvstore_path());
            let message =
                "the ingester ring is left on the default store `consul` while another ring's store is set";
            findings.warn(&Origin::Default, path, message);
        }
        let used: Vec<_> = resolved.iter().filter(|(ring, _)| self.uses(*ring)).collect();
        if used.windows(2).any(|pair| matches!(pair, [a, b] if a.1.kvstore.store != b.1.kvstore.store)) {
            let list: Vec<_> = used
                .iter()
                .map(|(ring, r)| format!("{} on `{}`", ring.kvstore_path(), r.kvstore.store))
                .collect();
            let message = format!("the rings of this process are on different stores: {}", list.join(", "));
            findings.warn(&Origin::Default, "ring.store", message);
        }
    }
}

/// Whether `store` is one of the two that this block mirrors.
fn mirrors(kvstore: &KvStoreConfig, store: KvStore) -> bool {
    kvstore.store == KvStore::Multi && [kvstore.multi.primary, kvstore.multi.secondary].contains(&Some(store))
}

/// Fills a backend block that was not given from the shared one, else from the ingester ring's.
fn inherit<T: Clone + Default + PartialEq>(
    block: &mut T,
    own: bool,
    shared: &T,
    shared_own: bool,
    ingester: Option<&T>,
) -> Source {
    let given = |block: &T, own: bool| own || *block != T::default();
    if given(block, own) {
        Source::Own
    } else if given(shared, shared_own) {
        *block = shared.clone();
        Source::Ring
    } else if let Some(ingester) = ingester {
        *block = ingester.clone();
        Source::Ingester
    } else {
        Source::Default
    }
}
