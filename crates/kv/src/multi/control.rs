//! [`Control`]: what a process tells its multi stores, and they each other. One for all of them.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use ringkit_config::KvStore;
use tokio::sync::watch;

use crate::store::EntryId;

/// Where values that are kept in two stores are to be, instead of what the configuration says. What is `None` stays as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MultiRuntime {
    /// Store that decides.
    pub primary: Option<KvStore>,
    /// Whether writes are mirrored to the other store.
    pub mirror_enabled: Option<bool>,
    /// Do it at once, whatever the other store may lack.
    pub force: bool,
    /// Raised with every step of a migration: what has a lower one than what was taken over already is ignored.
    pub generation: u64,
    /// Rings that go their own way, by the name of their store's client.
    pub per_ring: BTreeMap<String, PerRing>,
}

/// What is said for one ring alone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PerRing {
    /// As [`MultiRuntime::primary`].
    pub primary: Option<KvStore>,
    /// As [`MultiRuntime::mirror_enabled`].
    pub mirror_enabled: Option<bool>,
}

impl MultiRuntime {
    /// What is said for one ring: what it has of its own, else what is said for all.
    pub fn of(&self, kv_name: &str) -> PerRing {
        let own = self.per_ring.get(kv_name).copied().unwrap_or_default();
        PerRing {
            primary: own.primary.or(self.primary),
            mirror_enabled: own.mirror_enabled.or(self.mirror_enabled),
        }
    }
}

/// How owners of entries give signs of life. Cortex's defaults.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Freshness {
    /// How often an owner renews its entry.
    pub heartbeat_period: Duration,
    /// How long after that its entry still counts; 0 = for ever.
    pub heartbeat_timeout: Duration,
    /// How long it is remembered that somebody left.
    pub left_timeout: Duration,
}

impl Default for Freshness {
    fn default() -> Self {
        Self {
            heartbeat_period: Duration::from_secs(5),
            heartbeat_timeout: Duration::from_secs(60),
            left_timeout: Duration::from_secs(300),
        }
    }
}

impl Freshness {
    /// How long removals are remembered, in seconds.
    pub(super) fn remembered_secs(&self) -> i64 {
        let longest = self.left_timeout.max(self.heartbeat_timeout.saturating_mul(2));
        i64::try_from(longest.as_secs()).unwrap_or(i64::MAX)
    }
}

/// What a process tells its multi stores while they run. Cheap to clone; clones are the same.
#[derive(Clone)]
pub struct Control {
    shared: Arc<Shared>,
}

struct Shared {
    runtime: watch::Receiver<MultiRuntime>,
    freshness: Mutex<BTreeMap<String, Freshness>>,
    /// Which entries of each key this process writes as its own.
    own: Mutex<BTreeMap<Arc<str>, BTreeSet<EntryId>>>,
}

impl Control {
    /// Multi stores follow `runtime`, beginning with what it holds. Once its sender is gone, nothing changes any more.
    pub fn new(runtime: watch::Receiver<MultiRuntime>) -> Self {
        let shared = Shared { runtime, freshness: Mutex::default(), own: Mutex::default() };
        Self { shared: Arc::new(shared) }
    }

    /// The same for stores that follow another runtime configuration: what was said so far holds for both.
    #[must_use]
    pub fn with_runtime(&self, runtime: watch::Receiver<MultiRuntime>) -> Self {
        let known = self.shared.freshness.lock().clone();
        let shared = Shared { runtime, freshness: Mutex::new(known), own: Mutex::default() };
        Self { shared: Arc::new(shared) }
    }

    /// Says how owners of the entries give signs of life that the store called `kv_name` holds. To be said before it is opened.
    pub fn set_freshness(&self, kv_name: impl Into<String>, freshness: Freshness) {
        self.shared.freshness.lock().insert(kv_name.into(), freshness);
    }

    pub(super) fn freshness(&self, kv_name: &str) -> Freshness {
        self.shared.freshness.lock().get(kv_name).copied().unwrap_or_default()
    }

    pub(super) fn runtime(&self) -> watch::Receiver<MultiRuntime> {
        self.shared.runtime.clone()
    }

    /// This process writes these entries of a key, or no longer.
    pub(super) fn set_own<'a>(&self, key: &Arc<str>, ids: impl Iterator<Item = &'a EntryId>, own: bool) {
        let mut known = self.shared.own.lock();
        let of_key = known.entry(Arc::clone(key)).or_default();
        for id in ids {
            if own {
                of_key.insert(id.clone());
            } else {
                of_key.remove(id);
            }
        }
    }

    /// Whether this process writes an entry.
    pub(super) fn is_own(&self, key: &str, id: &str) -> bool {
        self.shared.own.lock().get(key).is_some_and(|ids| ids.contains(id))
    }
}

impl Default for Control {
    /// Nothing changes while the process runs.
    fn default() -> Self {
        Self::new(watch::Sender::new(MultiRuntime::default()).subscribe())
    }
}

impl fmt::Debug for Control {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Control").field("runtime", &*self.shared.runtime.borrow()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_for_a_ring_comes_first() {
        let own = PerRing { primary: Some(KvStore::Etcd), mirror_enabled: None };
        let runtime = MultiRuntime {
            primary: Some(KvStore::Consul),
            mirror_enabled: Some(true),
            per_ring: BTreeMap::from([("ingester-ring".to_owned(), own)]),
            ..MultiRuntime::default()
        };
        let own = PerRing { primary: Some(KvStore::Etcd), mirror_enabled: Some(true) };
        assert_eq!(runtime.of("ingester-ring"), own);
        assert_eq!(runtime.of("store-gateway"), PerRing { primary: Some(KvStore::Consul), ..own });
    }

    #[test]
    fn own_entries_are_known_to_all_stores_of_a_process() {
        let control = Control::default();
        let (key, id) = (Arc::from("ring"), EntryId::from("a"));
        control.clone().set_own(&key, [&id].into_iter(), true);
        assert!(control.is_own("ring", "a") && !control.is_own("ring", "b") && !control.is_own("other", "a"));
        control.set_own(&key, [&id].into_iter(), false);
        assert!(!control.is_own("ring", "a"));
    }
}
