//! [`Gossip`]: what a process tells of gossip on its page `/memberlist`, as far as a command needs it. What is missing is
//! taken as nothing: processes of several versions may be asked.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

/// What the page has in the field that ringkit alone tells.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Gossip {
    pub(crate) name: String,
    pub(crate) addr: String,
    pub(crate) label: String,
    pub(crate) zone: String,
    pub(crate) build: String,
    pub(crate) transport: String,
    pub(crate) phase: String,
    pub(crate) synced: bool,
    pub(crate) gave_up: bool,
    pub(crate) join_attempts: u64,
    pub(crate) seeds: Vec<Seed>,
    pub(crate) members: Vec<Member>,
    pub(crate) keys: Vec<Key>,
    pub(crate) queue: Queue,
    pub(crate) refused: BTreeMap<String, u64>,
    pub(crate) quarantined: BTreeMap<String, u64>,
    pub(crate) propagation: Option<Propagation>,
    pub(crate) own_clock: Option<OwnClock>,
    pub(crate) keyring: Vec<ClusterKey>,
    pub(crate) requires_sealed: Option<bool>,
    pub(crate) unopenable: u64,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Seed {
    pub(crate) seed: String,
    pub(crate) addrs: Vec<String>,
    pub(crate) error: Option<String>,
    pub(crate) lost_for_secs: Option<u64>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Member {
    pub(crate) name: String,
    pub(crate) addr: String,
    pub(crate) generation: u64,
    pub(crate) zone: String,
    pub(crate) build: String,
    pub(crate) state: String,
    pub(crate) rtt_ms: Option<f64>,
    pub(crate) clock_offset_ms: Option<i64>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Key {
    pub(crate) key: String,
    pub(crate) codec: String,
    pub(crate) entries: u64,
    pub(crate) registers: u64,
    pub(crate) tombstones: u64,
    pub(crate) bytes: u64,
    pub(crate) digest: String,
    pub(crate) age_ms: u64,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Queue {
    pub(crate) len: u64,
    pub(crate) bytes: u64,
    pub(crate) own: u64,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Propagation {
    pub(crate) p50_ms: f64,
    pub(crate) p99_ms: f64,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct OwnClock {
    pub(crate) ahead_of: u64,
    pub(crate) by_ms: i64,
}

/// A key that is shared by the cluster, by its id.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct ClusterKey {
    pub(crate) id: String,
    pub(crate) seals: bool,
    pub(crate) opened: u64,
}

impl Gossip {
    /// Reads the page.
    ///
    /// # Errors
    ///
    /// Why it cannot be read, as the end of a sentence about the page.
    pub(crate) fn of(page: &Value) -> Result<Self, String> {
        Self::deserialize(ringkit(page)?).map_err(|cause| format!("cannot be read: {cause}"))
    }

    /// Whether this is who `member` is. Of whom nothing is taken in, as its clock is wrong, others know no name.
    pub(crate) fn is(&self, member: &Member) -> bool {
        member.name == self.name || !self.addr.is_empty() && member.addr == self.addr
    }

    /// Whether the other one is alive as far as this one knows.
    pub(crate) fn sees(&self, other: &Self) -> bool {
        let mut alive = self.members.iter().filter(|member| member.state == "alive");
        self.name == other.name || alive.any(|member| other.is(member))
    }
}

/// What of the page is told by ringkit only.
///
/// # Errors
///
/// As [`Gossip::of`].
pub(crate) fn ringkit(page: &Value) -> Result<&Value, String> {
    let problem = || "comes from another program: it has no field `Ringkit`".to_owned();
    page.get("Ringkit").ok_or_else(problem)
}
