//! What processes tell of themselves, as far as a migration needs it. What is missing is taken as nothing: processes of several
//! versions may be asked.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::gossip::Gossip;

/// The store whose processes are the store together.
pub(super) const GOSSIP: &str = "memberlist";

/// One process that answered.
#[derive(Clone, Debug, Default)]
pub(super) struct Process {
    pub(super) url: String,
    /// What it is called here.
    pub(super) name: String,
    pub(super) page: Page,
    /// The same page, as it came.
    pub(super) raw: Value,
    /// `None` if it does not gossip.
    pub(super) gossip: Option<Gossip>,
    /// Each ring that it shows, as it sees it.
    pub(super) views: BTreeMap<&'static str, Vec<Shard>>,
}

/// `/multikv`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Page {
    pub(super) generation: u64,
    pub(super) config_hash: Option<String>,
    pub(super) instances: Vec<Instance>,
    pub(super) stores: Vec<Store>,
    pub(super) runtime: Runtime,
    pub(super) rings: Vec<Ring>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(default)]
pub(super) struct Instance {
    pub(super) name: String,
    pub(super) target: String,
}

/// What the runtime configuration asks for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub(super) struct Runtime {
    pub(super) primary: Option<String>,
    pub(super) mirror_enabled: Option<bool>,
    pub(super) force: bool,
    pub(super) per_ring: Vec<String>,
}

/// Where a ring is by the main configuration.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Ring {
    pub(super) ring: String,
    pub(super) store: String,
    pub(super) multi: Option<Pair>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Pair {
    pub(super) primary: Option<String>,
    pub(super) read_mode: String,
    pub(super) switch_gate: bool,
}

/// One ring in two stores.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Store {
    pub(super) now_ms: i64,
    pub(super) kv_name: String,
    pub(super) primary: String,
    pub(super) secondary: String,
    pub(super) mirror: bool,
    pub(super) read_mode: String,
    pub(super) secondary_counts: bool,
    /// The primary first.
    pub(super) stores: Vec<Child>,
    pub(super) switch: Switch,
    pub(super) keys: Vec<Key>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Child {
    pub(super) name: String,
    pub(super) up: bool,
    pub(super) down_secs: Option<u64>,
    pub(super) cause: Option<String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Switch {
    pub(super) wanted_primary: Option<String>,
    pub(super) given_up: bool,
    pub(super) gate_open: bool,
    pub(super) gate_reasons: BTreeMap<String, String>,
    pub(super) blocked: BTreeMap<String, String>,
    pub(super) generation: u64,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Key {
    pub(super) key: String,
    pub(super) queue_length: u64,
    pub(super) lag_secs: f64,
    pub(super) compared: bool,
    /// The primary first.
    pub(super) stores: Vec<Held>,
    pub(super) mismatched: Named,
    pub(super) foreign: Named,
    pub(super) skew_secs: u64,
    pub(super) last_reconcile_ms: Option<i64>,
}

/// What one store holds of a key.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Held {
    pub(super) entries: u64,
    pub(super) missing: Named,
    pub(super) relayed: Named,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Named {
    pub(super) num: u64,
    pub(super) ids: Vec<String>,
}

impl Named {
    /// For a sentence: the first of them.
    pub(super) fn names(&self) -> String {
        const MAX_SAID: usize = 5;
        let mut names: Vec<&str> = self.ids.iter().take(MAX_SAID).map(String::as_str).collect();
        if self.num > names.len() as u64 {
            names.push("…");
        }
        names.join(", ")
    }
}

/// One instance on the page of a ring.
#[derive(Clone, Debug, Deserialize)]
#[serde(default)]
pub(super) struct Shard {
    pub(super) id: String,
    pub(super) state: String,
    pub(super) address: String,
    pub(super) healthy: bool,
}

impl Default for Shard {
    fn default() -> Self {
        Self { id: String::new(), state: String::new(), address: String::new(), healthy: true }
    }
}

/// A process, or what may be one, that cannot be asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Silent {
    pub(super) who: String,
    pub(super) problem: String,
}

impl std::fmt::Display for Silent {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.who, self.problem)
    }
}

impl Process {
    /// Whether it gossips for one of its rings.
    pub(super) fn is_on_gossip(&self) -> bool {
        let mut names = self.page.stores.iter().flat_map(|store| [&store.primary, &store.secondary]);
        names.any(|name| name == GOSSIP)
    }

    /// What tells it from others that were asked at another address.
    pub(super) fn identity(&self) -> (Vec<Instance>, Option<&str>, Option<&str>) {
        let gossip = self.gossip.as_ref().map(|gossip| gossip.name.as_str());
        let is_anonymous = self.page.instances.is_empty() && gossip.is_none();
        let mut instances = self.page.instances.clone();
        instances.sort();
        (instances, gossip, is_anonymous.then_some(self.url.as_str()))
    }
}

impl Store {
    /// The ring that it is, by its first key: processes call their stores of one ring differently.
    pub(super) fn ring(&self) -> &str {
        self.keys.first().map_or(self.kv_name.as_str(), |key| key.key.as_str())
    }

    /// Both stores in the order of their names.
    pub(super) fn pair(&self) -> (&str, &str) {
        let (one, other) = (self.primary.as_str(), self.secondary.as_str());
        (one.min(other), one.max(other))
    }

    /// What each key holds in the primary (0) or in the secondary (1).
    pub(super) fn held(&self, part: usize) -> impl Iterator<Item = &Held> {
        self.keys.iter().filter_map(move |key| key.stores.get(part))
    }
}
