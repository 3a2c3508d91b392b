//! [`Node`]: one member, which is given bytes and time and returns bytes and deadlines.
//!
//! News is told at once to a few and then some more times; whatever that does not reach is found by comparing digests with one
//! other member after the other, so nothing depends on any message to arrive.

mod about;
mod clocks;
mod datagrams;
mod info;
mod join;
mod leave;
mod records;
mod rounds;
mod streams;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use rand::rngs::SmallRng;
use rand::{RngExt as _, SeedableRng as _};
use smol_str::SmolStr;

pub use self::about::About;
pub use self::info::{MemberInfo, QueueStats};

use self::clocks::Clocks;
use self::join::Join;
use self::leave::Leave;
use self::records::Reissue;
use self::streams::Stream;
use crate::api::{Command, Config, Event, Input, Output, Phase, StreamEvent, StreamId, Totals};
use crate::id::{NodeId, name_hash};
use crate::peers::{Peers, Updated};
use crate::queue::Queue;
use crate::register::{EntryId, MAX_ID_BYTES, Register};
use crate::store::{NotApplied, Store};
use crate::swim::{Swim, SwimEvent, SwimOut};
use crate::time::{Clock, Now};
use crate::wire::{HEADER_BYTES, MAX_DATAGRAM_BYTES, MAX_TEXT_BYTES, label_hash};

/// The key under which members say what they are: by name, each as [`About`].
pub const MEMBERS_KEY: &str = "_members";
/// The key of the register whose way through the cluster is timed.
pub const BEACON_KEY: &str = "_beacon";

/// Instead of a key, in a digest: says that it answers another one, and comes with the root of all keys.
const ANSWER_KEY: &str = "=";
/// The smallest datagram that word of a register with the longest key and id fits into, rounded up.
const MIN_PACKET_BYTES: usize = 600;
/// What a section takes beside what is in it.
const SECTION_BYTES: usize = 3;
/// Longer waits are as good as none, and can be multiplied without a thought.
const MAX_WAIT: Duration = Duration::from_secs(365 * 24 * 60 * 60);
/// How soon a session that moved something is followed by another one.
const RESYNC_AFTER: Duration = Duration::from_secs(1);
/// Of a compared digest: how long to wait for the answer before a stream is tried.
const ANSWER_WITHIN: Duration = Duration::from_secs(1);
/// How often it is looked whether seeds are members.
const SEED_CHECK: Duration = Duration::from_secs(1);

/// A configuration that cannot work.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ConfigError(String);

/// One member.
pub struct Node {
    config: Config,
    /// The hash of its label, and those of the others that are understood.
    label: u64,
    accepted_labels: Vec<u64>,
    /// Random number of this process.
    session: u64,
    own_name: u64,
    random: SmallRng,
    swim: Swim,
    store: Store,
    queue: Queue,
    peers: Peers,
    clock: Clock,
    /// Those of the others.
    clocks: Clocks,
    /// Members that said what they are and are not known to live or to have died, and since when.
    absent: BTreeMap<u64, Duration>,
    phase: Phase,
    /// Whether [`Event::Synced`] was told.
    synced: bool,
    /// Whether the store is as good as anybody's.
    settled: bool,
    join: Join,
    streams: BTreeMap<StreamId, Stream>,
    next_stream: u64,
    /// Large registers to ask for, by who offered them.
    wanted: BTreeMap<SocketAddr, BTreeMap<SmolStr, Vec<EntryId>>>,
    gossip_at: Duration,
    sync_at: Duration,
    store_tick_at: Duration,
    beacon_at: Duration,
    seed_check_at: Duration,
    /// When to say anew what this member is, because something else is known of it.
    about_at: Option<Duration>,
    /// When to compare with somebody other than this.
    resync: Option<(Duration, u64)>,
    /// Who was sent a digest, and until when an answer is awaited.
    asked: Option<(SocketAddr, Duration)>,
    /// What this process wrote and a former life of this member has replaced, and what was so a moment ago.
    reissues: BTreeMap<(SmolStr, EntryId), Reissue>,
    /// How far leaving has got, once it has begun.
    leave: Option<Leave>,
    /// When a datagram of the cluster came last, or it was found out that somebody else is there.
    heard_at: Duration,
    /// When all there is was compared with somebody last.
    compared_at: Option<Duration>,
    totals: Totals,
}

impl Node {
    /// A member that has not begun to join. Equal seeds and equal inputs lead to equal outputs.
    ///
    /// # Errors
    ///
    /// [`ConfigError`] if it could not work.
    pub fn new(config: Config, seed: u64, now: Now) -> Result<Self, ConfigError> {
        let config = checked(config)?;
        let mut random = SmallRng::seed_from_u64(seed);
        let own_name = name_hash(&config.name);
        let id = NodeId { name: own_name, generation: config.generation, addr: config.addr };
        let backoff = config.join_backoff.0;
        let mut node = Self {
            label: label_hash(&config.label),
            accepted_labels: config.accepted_labels.iter().map(|label| label_hash(label)).collect(),
            session: random.random(),
            own_name,
            swim: Swim::new(config.swim.clone(), id, random.random(), now),
            store: Store::new(config.limits, own_name),
            queue: Queue::new(config.queue.clone()),
            peers: Peers::new(own_name, Some(config.zone.clone()), config.peers.clone()),
            clock: Clock::new(config.limits.max_clock_skew),
            clocks: Clocks::default(),
            absent: BTreeMap::new(),
            phase: Phase::Resolving,
            synced: false,
            settled: false,
            join: Join::new(backoff),
            streams: BTreeMap::new(),
            next_stream: 1,
            wanted: BTreeMap::new(),
            gossip_at: now.mono,
            sync_at: now.mono,
            store_tick_at: now.mono.saturating_add(config.limits.until_tick(now)),
            beacon_at: now.mono,
            seed_check_at: now.mono,
            about_at: None,
            resync: None,
            asked: None,
            reissues: BTreeMap::new(),
            leave: None,
            heard_at: now.mono,
            compared_at: None,
            totals: Totals::default(),
            random,
            config,
        };
        node.write_about(now, &mut Vec::new());
        node.store.take_changes();
        Ok(node)
    }

    /// This life of this member.
    pub fn id(&self) -> NodeId {
        self.swim.id()
    }

    /// All that is stored.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// When to call [`handle`](Self::handle) even if nothing comes, in monotonic time.
    pub fn next_deadline(&self) -> Duration {
        if self.is_over() {
            return Duration::MAX;
        }
        let has_peers = !self.peers.is_empty();
        let deadlines = [
            Some(self.store_tick_at),
            self.swim.next_deadline(),
            self.queue.next_deadline(),
            (has_peers && !self.queue.is_empty()).then_some(self.gossip_at),
            (has_peers && self.settled).then_some(self.sync_at),
            self.has_beacons().then_some(self.beacon_at),
            self.about_at,
            self.reissue_deadline(),
            self.resync.map(|(at, _)| at),
            self.asked.map(|(_, until)| until),
            self.join_deadline(),
            self.streams.values().map(Stream::until).min(),
            self.leave_deadline(),
        ];
        deadlines.into_iter().flatten().min().unwrap_or(Duration::MAX)
    }

    /// Takes something in, does what is due, and appends what is to be done.
    pub fn handle(&mut self, now: Now, input: Input<'_>, out: &mut Vec<Output>) {
        if self.is_over() {
            refuse_all(&input, out);
            return;
        }
        match input {
            Input::Datagram { from, bytes } => self.on_datagram(now, from, bytes, out),
            Input::Stream { id, event } => self.on_stream(now, id, event, out),
            Input::Seeds(seeds) => self.on_seeds(now, seeds, out),
            Input::Command(command) => self.on_command(now, command, out),
            Input::Tick => (),
        }
        self.run_due(now, out);
        self.tell_changes(out);
    }

    fn run_due(&mut self, now: Now, out: &mut Vec<Output>) {
        if self.swim.next_deadline().is_some_and(|at| at <= now.mono) {
            let mut did = SwimOut::default();
            self.swim.handle_due(now, &mut did);
            self.follow_swim(now, did, out);
        }
        if self.is_over() {
            return;
        }
        self.expire_streams(now, out);
        self.run_store(now, out);
        self.run_join(now, out);
        self.run_syncs(now, out);
        self.run_fetches(now, out);
        self.run_gossip(now, out);
        self.run_leave(now, out);
    }

    fn on_command(&mut self, now: Now, command: Command, out: &mut Vec<Output>) {
        match command {
            Command::Upsert { key, changes } => self.upsert(now, &key, changes, out),
            Command::Apply { ticket, key, expected, changes } => {
                let written = self.apply(now, &key, expected, &changes, out);
                out.push(Output::Event(Event::Applied { ticket, written }));
            }
            Command::Heal { key, id } => self.heal(now, &key, id.as_ref(), out),
            Command::Leave => self.begin_leave(now, out),
        }
    }

    fn upsert(
        &mut self,
        now: Now,
        key: &SmolStr,
        changes: Vec<(EntryId, Option<Bytes>)>,
        out: &mut Vec<Output>,
    ) {
        if is_internal(key) {
            refuse("internal_key", out);
            return;
        }
        for (entry, bytes) in changes {
            let written = match bytes {
                Some(bytes) => self.store.upsert(now, key, &entry, bytes, &mut self.clock).map(Some),
                None => Ok(self.store.remove(now, key, &entry, &mut self.clock)),
            };
            match written {
                Ok(Some(register)) => self.push(now, key, &entry, register),
                Ok(None) => (),
                Err(reason) => refuse(reason.label(), out),
            }
        }
    }

    fn apply(
        &mut self,
        now: Now,
        key: &SmolStr,
        expected: u64,
        changes: &[(EntryId, Option<Bytes>)],
        out: &mut Vec<Output>,
    ) -> Option<Vec<(EntryId, Register)>> {
        if is_internal(key) {
            refuse("internal_key", out);
            return None;
        }
        if self.phase == Phase::Leaving {
            refuse("leaving", out);
            return None;
        }
        match self.store.apply(now, key, Some(expected), changes, &mut self.clock) {
            Ok(written) => {
                for (entry, register) in &written {
                    self.push(now, key, entry, register.clone());
                }
                Some(written)
            }
            Err(NotApplied::Conflict { .. }) => None,
            Err(NotApplied::Refused { reason, .. }) => {
                refuse(reason.label(), out);
                None
            }
        }
    }

    /// Does what the membership engine wants done.
    fn follow_swim(&mut self, now: Now, did: SwimOut, out: &mut Vec<Output>) {
        for event in did.events {
            self.on_swim_event(now, event, out);
        }
        for (to, bytes) in did.datagrams {
            self.send_swim(now, to, &bytes, out);
        }
    }

    fn on_swim_event(&mut self, now: Now, event: SwimEvent, out: &mut Vec<Output>) {
        match event {
            SwimEvent::MemberUp(id) => {
                let (lived, zone) = (self.peers.is_live(id.name), self.zone_of(id.name));
                match self.peers.update(id, zone, true) {
                    Updated::Added | Updated::Changed if !lived => {
                        if self.peers.len() == 1 {
                            self.heard_at = now.mono;
                        }
                        self.queue.set_members(self.peers.len() + 1);
                        out.push(Output::Event(Event::MemberUp { name: id.name, addr: id.addr }));
                    }
                    Updated::Refused => refuse("too_many_members", out),
                    _ => (),
                }
            }
            SwimEvent::MemberDown(id) => {
                let (lived, zone) = (self.peers.is_live(id.name), self.zone_of(id.name));
                self.peers.update(id, zone, false);
                self.clocks.forget(id.name);
                if lived && !self.peers.is_live(id.name) {
                    self.queue.set_members(self.peers.len() + 1);
                    out.push(Output::Event(Event::MemberDown { name: id.name }));
                }
            }
            SwimEvent::Renamed(_, id) => {
                self.clocks.forget(id.name);
                self.peers.rename(id);
            }
            SwimEvent::Idle => self.seek_at_once(now),
            SwimEvent::Active | SwimEvent::Rejoined(_) => (),
            SwimEvent::Defunct => {
                let reason =
                    "the others took this member for dead, and there is no later life: start it anew";
                self.fail(reason.to_owned(), out);
            }
            SwimEvent::NameConflict { addr } => {
                let name = &self.config.name;
                let reason = format!("the member at {addr} is also called `{name}`: give each its own name");
                self.fail(reason, out);
            }
            SwimEvent::ProbeOverStream { probe, target } => self.open_ping(now, probe, target, out),
            SwimEvent::Left => {
                self.set_phase(Phase::Left, out);
                self.close_all(out);
            }
        }
    }

    fn fail(&mut self, reason: String, out: &mut Vec<Output>) {
        self.set_phase(Phase::Failed, out);
        out.push(Output::Event(Event::Failed { reason }));
        self.close_all(out);
    }

    fn set_phase(&mut self, phase: Phase, out: &mut Vec<Output>) {
        if self.phase != phase {
            self.phase = phase;
            out.push(Output::Event(Event::Phase(phase)));
        }
    }

    /// Whether whoever calls its cluster so is of ours.
    fn takes_label(&self, label: &str) -> bool {
        let Config { label: own, accepted_labels, verify_label, .. } = &self.config;
        !verify_label || own == label || accepted_labels.iter().any(|accepted| accepted == label)
    }

    /// As [`takes_label`](Self::takes_label), by the hash of the label.
    fn takes_label_hash(&self, hash: u64) -> bool {
        !self.config.verify_label || hash == self.label || self.accepted_labels.contains(&hash)
    }

    fn is_over(&self) -> bool {
        matches!(self.phase, Phase::Left | Phase::Failed)
    }

    /// `base`, times something between `low` and `high`.
    fn jittered(&mut self, base: Duration, low: f64, high: f64) -> Duration {
        base.min(MAX_WAIT).mul_f64(self.random.random_range(low..high))
    }
}

/// Of a configuration, what is kept within bounds rather than refused is changed.
fn checked(mut config: Config) -> Result<Config, ConfigError> {
    let refused = |reason: String| Err(ConfigError(reason));
    if config.name.is_empty() || config.name.len() > MAX_ID_BYTES {
        return refused(format!("a member's name has 1 to {MAX_ID_BYTES} bytes"));
    }
    let labels = config.accepted_labels.iter().chain([&config.label]).map(|label| ("label", label));
    for (what, text) in [("zone", &config.zone), ("build", &config.build)].into_iter().chain(labels) {
        if text.len() > MAX_TEXT_BYTES {
            return refused(format!("a {what} has at most {MAX_TEXT_BYTES} bytes"));
        }
    }
    if config.addr.port() == 0 || config.addr.ip().is_unspecified() {
        return refused(format!("nobody can reach a member at {}", config.addr));
    }
    if !(MIN_PACKET_BYTES..=MAX_DATAGRAM_BYTES).contains(&config.packet_size) {
        let size = config.packet_size;
        return refused(format!(
            "a datagram has {MIN_PACKET_BYTES} to {MAX_DATAGRAM_BYTES} bytes, and {size} is not between"
        ));
    }
    for wait in [&config.gossip_interval, &config.sync_interval, &config.join_backoff.0] {
        if wait.is_zero() {
            return refused("the time between two rounds is not zero".to_owned());
        }
    }
    config.join_backoff.1 = config.join_backoff.1.max(config.join_backoff.0);
    config.swim.max_packet_bytes =
        config.swim.max_packet_bytes.min(config.packet_size - HEADER_BYTES - SECTION_BYTES);
    config.swim.leave_timeout = config.swim.leave_timeout.min(config.leave_timeout);
    Ok(config)
}

fn is_internal(key: &str) -> bool {
    // The empty name stands for all keys in digests, and one for answers.
    key.is_empty() || key == ANSWER_KEY || key == MEMBERS_KEY || key == BEACON_KEY
}

fn refuse(reason: &'static str, out: &mut Vec<Output>) {
    out.push(Output::Event(Event::Refused { reason }));
}

/// What becomes of inputs when all is over.
fn refuse_all(input: &Input<'_>, out: &mut Vec<Output>) {
    match input {
        Input::Stream { id, event: StreamEvent::Opened { .. } } => out.push(Output::Close { id: *id }),
        Input::Command(Command::Apply { ticket, .. }) => {
            out.push(Output::Event(Event::Applied { ticket: *ticket, written: None }));
        }
        _ => (),
    }
}
