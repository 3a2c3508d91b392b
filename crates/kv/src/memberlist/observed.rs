//! [`Observed`]: what a member has been seen to do, for metrics, the status page and remarks.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use metrics::Histogram;
use parking_lot::{Mutex, MutexGuard};
use ringkit_gossip::api::{Event, Status};
use ringkit_gossip::driver::State;
use ringkit_gossip::node::{Node, QueueStats};
use ringkit_gossip::register::{Body, EntryId as Place};
use ringkit_gossip::time::Now;
use smol_str::SmolStr;
use tokio::sync::watch;
use tokio::time::Instant;
use tracing::{info, warn};

use super::history::History;
use super::is_internal;
use super::report::MessageReport;
use super::views::is_marker;

/// How many beacons are remembered.
const MAX_DELAYS: usize = 256;
/// How many authors with a wrong clock are told apart: anybody may make some up.
const MAX_AUTHORS: usize = 64;
/// How often the same author's clock is remarked upon.
const REMARK_PERIOD: Duration = Duration::from_secs(60);

/// What a member has been seen to do.
pub(super) struct Observed {
    /// Whether reads reflect the cluster, or the wait for that was given up.
    pub(super) synced: watch::Sender<bool>,
    /// Whether reads and writes no longer wait for that.
    pub(super) proceeds: watch::Sender<bool>,
    delay: Histogram,
    told: Mutex<Told>,
    latest: Mutex<Option<Arc<Latest>>>,
}

/// What happened since the start.
#[derive(Default)]
pub(super) struct Told {
    /// Things from the network that were refused, by reason.
    pub(super) refused: BTreeMap<&'static str, u64>,
    /// Registers refused because the clock of their author is ahead, by the hash of its name.
    pub(super) quarantined: BTreeMap<u64, Quarantined>,
    /// Those of further authors.
    pub(super) quarantined_others: u64,
    /// How long the last beacons took.
    pub(super) delays: VecDeque<Duration>,
    /// Beacons since the start.
    pub(super) num_delays: u64,
    /// Registers taken from others, and the bytes of their bodies.
    pub(super) taken: (u64, u64),
    /// Writes that were asked for, that were done, and that were not.
    pub(super) writes: (u64, u64, u64),
    /// How often the file with the keys changed and could not be used.
    pub(super) bad_key_files: u64,
    /// Where it is and what is wrong with it, since it was read last.
    pub(super) bad_key_file: Option<(String, String)>,
    pub(super) history: History,
    remarked_at: Option<Instant>,
}

/// What was refused of one author.
pub(super) struct Quarantined {
    /// Its name, as far as it was known.
    pub(super) author: String,
    /// How many registers.
    pub(super) count: u64,
}

/// How the member stood a moment ago, for those who cannot wait to ask it.
pub(super) struct Latest {
    pub(super) status: Status,
    pub(super) queue: QueueStats,
    pub(super) num_keys: usize,
    /// The largest of them.
    pub(super) keys: Vec<KeySize>,
    /// How many members say that our clock is ahead, and by how many milliseconds.
    pub(super) clock_ahead: Option<(usize, i64)>,
    /// Sealed things that no key opened since the start, and when the last one was noticed.
    pub(super) unopenable: (u64, Option<Instant>),
    /// Whether there are keys, and what is not sealed is taken nevertheless.
    pub(super) takes_clear: bool,
    /// Whether streams work, and no datagram has come from anybody for a while.
    pub(super) only_streams: bool,
    /// Seeds that have been no members for a while, and for how long.
    pub(super) lost_seeds: Vec<(SocketAddr, Duration)>,
}

/// How large a key is.
pub(super) struct KeySize {
    pub(super) key: String,
    pub(super) registers: usize,
    pub(super) tombstones: usize,
    pub(super) bytes: usize,
}

impl Observed {
    /// Nothing yet. Of messages at most `history_bytes` are kept in each direction.
    pub(super) fn new(delay: Histogram, history_bytes: usize) -> Self {
        let told = Told { history: History::new(history_bytes), ..Told::default() };
        Self {
            synced: watch::Sender::new(false),
            proceeds: watch::Sender::new(false),
            delay,
            told: Mutex::new(told),
            latest: Mutex::new(None),
        }
    }

    /// From now on reads and writes no longer wait for the cluster.
    pub(super) fn proceed(&self) {
        self.proceeds.send_if_modified(|proceeds| !std::mem::replace(proceeds, true));
    }

    /// Whether reads and writes go on without the cluster, which was not found.
    pub(super) fn goes_on_without(&self, state: &State) -> bool {
        !state.synced && (state.gave_up || *self.proceeds.borrow())
    }

    pub(super) fn told(&self) -> MutexGuard<'_, Told> {
        self.told.lock()
    }

    pub(super) fn latest(&self) -> Option<Arc<Latest>> {
        self.latest.lock().clone()
    }

    pub(super) fn set_latest(&self, latest: Latest) {
        *self.latest.lock() = Some(Arc::new(latest));
    }

    /// Registers were written, here or by others.
    pub(super) fn changed(&self, node: &Node, now: Now, key: &SmolStr, places: &[Place]) {
        if is_internal(key) {
            return;
        }
        let own = node.id().name;
        let mut told = self.told.lock();
        for place in places {
            let Some(slot) = node.store().get(key, place) else { continue };
            let register = slot.register();
            let (size, tombstone) = match &register.body {
                Body::Live(bytes) => (bytes.len(), false),
                Body::Tombstone => (0, true),
            };
            let is_own = register.author == own;
            if !is_own {
                told.taken.0 += 1;
                told.taken.1 += size as u64;
            }
            if told.history.is_kept() && !is_marker(place) {
                let (epoch, hlc) = (register.version.epoch, register.version.hlc);
                let message = MessageReport {
                    id: 0,
                    at_ms: now.wall_ms,
                    key: key.to_string(),
                    entry: place.id.to_string(),
                    facet: place.facet,
                    size,
                    tombstone,
                    author: name(node, register.author),
                    version: format!("{epoch}/{}.{}", hlc.ms(), hlc.0 & 0xFFFF),
                };
                told.history.add(message, is_own);
            }
        }
    }

    /// Something else happened.
    pub(super) fn event(&self, node: &Node, event: &Event) {
        match event {
            Event::Synced => {
                self.synced.send_replace(true);
            }
            Event::MemberUp { name: hash, addr } => {
                info!(member = name(node, *hash), %addr, "a member of the gossip cluster is up");
            }
            Event::MemberDown { name: hash } => {
                info!(member = name(node, *hash), "a member of the gossip cluster is down");
            }
            Event::Refused { reason } => *self.told.lock().refused.entry(*reason).or_default() += 1,
            Event::Quarantined { author, ahead } => self.quarantined(node, *author, *ahead),
            Event::Propagation { took } => {
                self.delay.record(*took);
                let mut told = self.told.lock();
                told.num_delays += 1;
                if told.delays.len() >= MAX_DELAYS {
                    told.delays.pop_front();
                }
                told.delays.push_back(*took);
            }
            _ => (),
        }
    }

    fn quarantined(&self, node: &Node, author: u64, ahead: Duration) {
        let member = name(node, author);
        let mut told = self.told.lock();
        if let Some(known) = told.quarantined.get_mut(&author) {
            known.count += 1;
        } else if told.quarantined.len() < MAX_AUTHORS {
            told.quarantined.insert(author, Quarantined { author: member.clone(), count: 1 });
        } else {
            told.quarantined_others += 1;
        }
        let is_due = told.remarked_at.is_none_or(|at| at.elapsed() >= REMARK_PERIOD);
        if is_due {
            told.remarked_at = Some(Instant::now());
            warn!(member, ?ahead, "what this member writes is refused: its clock is ahead");
        }
    }
}

/// The name that this hash stands for, as far as it is known.
pub(super) fn name(node: &Node, hash: u64) -> String {
    node.name_of(hash).map_or_else(|| format!("{hash:016x}"), |name| name.to_string())
}
