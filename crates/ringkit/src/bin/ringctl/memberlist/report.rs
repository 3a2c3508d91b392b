//! What a process reports of gossip, as far as it is shown here. What is missing is taken as nothing: processes of several
//! versions may be asked.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

use crate::Failure;

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Report {
    pub(super) name: String,
    pub(super) addr: String,
    pub(super) label: String,
    pub(super) zone: String,
    pub(super) build: String,
    pub(super) transport: String,
    pub(super) phase: String,
    pub(super) synced: bool,
    pub(super) gave_up: bool,
    pub(super) join_attempts: u64,
    pub(super) seeds: Vec<Seed>,
    pub(super) members: Vec<Member>,
    pub(super) keys: Vec<Key>,
    pub(super) queue: Queue,
    pub(super) refused: BTreeMap<String, u64>,
    pub(super) quarantined: BTreeMap<String, u64>,
    pub(super) propagation: Option<Propagation>,
    pub(super) own_clock: Option<OwnClock>,
    pub(super) keyring: Vec<ClusterKey>,
    pub(super) requires_sealed: Option<bool>,
    pub(super) unopenable: u64,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Seed {
    pub(super) seed: String,
    pub(super) addrs: Vec<String>,
    pub(super) error: Option<String>,
    pub(super) lost_for_secs: Option<u64>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Member {
    pub(super) name: String,
    pub(super) addr: String,
    pub(super) generation: u64,
    pub(super) zone: String,
    pub(super) build: String,
    pub(super) state: String,
    pub(super) rtt_ms: Option<f64>,
    pub(super) clock_offset_ms: Option<i64>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Key {
    pub(super) key: String,
    pub(super) codec: String,
    pub(super) entries: u64,
    pub(super) registers: u64,
    pub(super) tombstones: u64,
    pub(super) bytes: u64,
    pub(super) digest: String,
    pub(super) age_ms: u64,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Queue {
    pub(super) len: u64,
    pub(super) bytes: u64,
    pub(super) own: u64,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Propagation {
    pub(super) p50_ms: f64,
    pub(super) p99_ms: f64,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct OwnClock {
    pub(super) ahead_of: u64,
    pub(super) by_ms: i64,
}

/// A key that is shared by the cluster, by its id.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct ClusterKey {
    pub(super) id: String,
    pub(super) seals: bool,
    pub(super) opened: u64,
}

impl Report {
    /// Reads the page of the process at `url`.
    pub(super) fn of(url: &str, page: &Value) -> Result<Self, Failure> {
        let report = ringkit(url, page)?;
        Ok(Self::deserialize(report).map_err(|cause| format!("{url}: the report cannot be read: {cause}"))?)
    }
}

/// What of the page is told by ringkit only.
pub(super) fn ringkit<'a>(url: &str, page: &'a Value) -> Result<&'a Value, Failure> {
    let problem = || format!("{url}: this page comes from another program: it has no field `Ringkit`");
    Ok(page.get("Ringkit").ok_or_else(problem)?)
}
