//! [`Sim`]: members in a network in memory, in virtual time.
//!
//! Everything that a real network does to members can be done to these: datagrams are lost, doubled, late and out of order,
//! links are cut in one direction or both, members stop for a while, crash, and come back, and clocks jump. One seed decides
//! all that is left to chance: the same seed and the same calls lead to the same [trace](Sim::trace_hash), byte for byte.
//!
//! Beside the network, a simulation keeps a record of what was written where, and can [tell](Sim::check) whether the members
//! agree on it once they have come to rest.

mod account;
mod agenda;
mod check;
mod course;
mod links;
mod model;
mod pipes;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use bytes::Bytes;
use smol_str::SmolStr;
use xxhash_rust::xxh3::Xxh3;

pub use self::account::Traffic;

use self::account::Account;
use self::agenda::{Agenda, Due, What};
use self::links::Links;
use self::model::Model;
use self::pipes::Pipes;
use crate::api::{Command, Config, Event, Input, Output, Phase, StreamEvent, StreamId};
use crate::node::{ConfigError, Node};
use crate::register::{Body, EntryId, Register};
use crate::store::{Limits, Slot};
use crate::time::Now;

/// Wall time when a simulation begins, in milliseconds since 1970.
pub const START_MS: u64 = 1_700_000_000_000;

/// The port of all members.
const PORT: u16 = 7946;
/// A deadline that has passed is seen this much later: no timer is exact, and nobody is to be asked without end at one moment.
const TICK: Duration = Duration::from_millis(1);
/// How often [`Sim::run_until`] looks.
const STEP: Duration = Duration::from_millis(10);
/// How often seeds are resolved.
const RESOLVE: Duration = Duration::from_secs(30);
/// After what time a stream that cannot be opened, or that is cut, is given up.
const GIVE_UP: Duration = Duration::from_secs(3);
/// How many bytes of datagrams wait for a member that stands still; more is lost, as in a socket.
const MAX_BACKLOG_BYTES: usize = 4 << 20;

/// What is simulated.
#[derive(Clone, Debug)]
pub struct Options {
    /// Decides all that is left to chance.
    pub seed: u64,
    /// How many members there may be. None of them runs until it is [started](Sim::start).
    pub nodes: usize,
    /// In how many zones they are, by turns; 0 = no zones.
    pub zones: usize,
    /// How many of the last members are in none of them.
    pub without_zone: usize,
    /// How many of the first members are the seeds of all.
    pub seeds: usize,
    /// Shortest and longest time that a message is under way.
    pub latency: (Duration, Duration),
    /// How many of the datagrams are lost, 0 to 1. In streams this much is late.
    pub loss: f64,
    /// How many of the datagrams come twice, 0 to 1.
    pub duplicate: f64,
    /// How many of the streams cannot be opened although the link works, 0 to 1.
    pub open_failures: f64,
    /// By how much wall clocks are wrong at most, either way.
    pub clock_spread: Duration,
    /// Changes the defaults of every member.
    pub configure: Option<fn(&mut Config)>,
}

impl Options {
    /// In which zone a member is, if in any.
    fn zone_of(&self, node: usize) -> Option<usize> {
        let has_zone = node < self.nodes.saturating_sub(self.without_zone);
        node.checked_rem(self.zones).filter(|_| has_zone)
    }
}

impl Default for Options {
    fn default() -> Self {
        Self {
            seed: 0,
            nodes: 3,
            zones: 0,
            without_zone: 0,
            seeds: 1,
            latency: (Duration::from_millis(1), Duration::from_millis(50)),
            loss: 0.0,
            duplicate: 0.0,
            open_failures: 0.0,
            clock_spread: Duration::from_millis(500),
            configure: None,
        }
    }
}

/// What a member sent, over all its lives.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sent {
    /// Datagrams.
    pub datagrams: u64,
    /// Their bytes, without headers of the network.
    pub datagram_bytes: u64,
    /// Streams asked for.
    pub streams: u64,
    /// Bytes in streams, whoever opened them.
    pub stream_bytes: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Down,
    Up,
    Paused,
}

/// A machine, and the member on it.
struct Host {
    node: Node,
    state: State,
    /// How many times it was started.
    lives: u32,
    generation: u64,
    /// What it stores, by its configuration.
    limits: Limits,
    /// And how many bytes of what others wrote it keeps to be told.
    max_queued: usize,
    /// When the present life began, which is when its monotonic time began.
    born: Duration,
    /// By how much its wall clock is wrong.
    offset_ms: i64,
    /// Whether its clock has been so wrong in this life that it and the others refuse what the other wrote.
    astray: bool,
    /// When it is woken next.
    wake_at: Duration,
    streams: BTreeMap<StreamId, (u64, usize)>,
    /// The last number of a stream that came in.
    last_inbound: u64,
    /// What came while it stood still.
    backlog: VecDeque<What>,
    backlog_bytes: usize,
    /// Since when it has run without standing still.
    ran_since: Duration,
    /// Whether it was told to leave in this life.
    leaves: bool,
    /// Whether it left or failed, as it says.
    finished: bool,
    failure: Option<String>,
    sent: Sent,
}

/// Members in a simulated network. Members are numbered from 0.
///
/// To name a member that is not there is an error of the caller, and panics.
pub struct Sim {
    options: Options,
    now: Duration,
    hosts: Vec<Host>,
    links: Links,
    pipes: Pipes,
    agenda: Agenda,
    model: Model,
    trace: Xxh3,
    /// Kept for its memory.
    out: Vec<Output>,
    /// Kept for its memory.
    text: String,
    account: Account,
    /// Members by the hashes of their names.
    names: BTreeMap<u64, usize>,
    /// When links were healed last.
    healed_at: Duration,
}

impl Sim {
    /// A network in which nobody runs yet.
    ///
    /// # Errors
    ///
    /// [`ConfigError`] if [`Options::configure`] makes of the defaults what no member takes.
    pub fn new(options: Options) -> Result<Self, ConfigError> {
        let mut links = Links::new(options.seed, options.nodes, options.latency);
        links.loss = options.loss;
        links.duplicate = options.duplicate;
        let spread = signed_millis(options.clock_spread);
        let mut hosts = Vec::with_capacity(options.nodes);
        for place in 0..options.nodes {
            let config = config_of(&options, place, START_MS);
            let (limits, max_queued) = (config.limits, config.queue.max_bytes);
            let now = Now { mono: Duration::ZERO, wall_ms: START_MS };
            hosts.push(Host {
                node: Node::new(config, links.number(), now)?,
                state: State::Down,
                lives: 0,
                generation: 0,
                limits,
                max_queued,
                born: Duration::ZERO,
                offset_ms: links.between(-spread, spread),
                astray: false,
                wake_at: Duration::MAX,
                streams: BTreeMap::new(),
                last_inbound: 0,
                backlog: VecDeque::new(),
                backlog_bytes: 0,
                ran_since: Duration::ZERO,
                leaves: false,
                finished: false,
                failure: None,
                sent: Sent::default(),
            });
        }
        let names = hosts.iter().enumerate().map(|(place, host)| (host.node.id().name, place)).collect();
        Ok(Self {
            options,
            now: Duration::ZERO,
            hosts,
            links,
            pipes: Pipes::default(),
            agenda: Agenda::default(),
            model: Model::default(),
            trace: Xxh3::new(),
            out: Vec::new(),
            text: String::new(),
            account: Account::default(),
            names,
            healed_at: Duration::ZERO,
        })
    }

    /// Where a member listens.
    pub fn addr(node: usize) -> SocketAddr {
        addr_of(node)
    }

    /// Virtual time since the beginning.
    pub fn now(&self) -> Duration {
        self.now
    }

    /// How many members there are, running or not.
    pub fn nodes(&self) -> usize {
        self.hosts.len()
    }

    /// A member, as it is or was last.
    pub fn node(&self, node: usize) -> &Node {
        &self.hosts[node].node
    }

    /// The members that run, without those that stand still, in order.
    pub fn live(&self) -> impl Iterator<Item = usize> {
        (0..self.hosts.len()).filter(move |node| self.hosts[*node].state == State::Up)
    }

    /// Whether a member runs and does not stand still.
    pub fn is_live(&self, node: usize) -> bool {
        self.hosts[node].state == State::Up
    }

    /// What a member sent.
    pub fn sent(&self, node: usize) -> Sent {
        self.hosts[node].sent
    }

    /// Tells two runs apart by all that happened in them.
    pub fn trace_hash(&self) -> u64 {
        self.trace.digest()
    }

    /// Starts a member with an empty store in a new life, if it does not run, and tells it the seeds. One that would be its only
    /// seed is told of another member, if one runs: it is to find its cluster again.
    ///
    /// # Errors
    ///
    /// As [`Sim::new`].
    pub fn start(&mut self, node: usize) -> Result<(), ConfigError> {
        if self.hosts[node].state != State::Down {
            return Ok(());
        }
        let seed = self.links.number();
        let now = Now { mono: Duration::ZERO, wall_ms: self.wall_ms(node) };
        let generation = now.wall_ms.max(self.hosts[node].generation.saturating_add(1));
        let config = config_of(&self.options, node, generation);
        let (limits, max_queued) = (config.limits, config.queue.max_bytes);
        let made = Node::new(config, seed, now)?;
        let born = self.now;
        let host = &mut self.hosts[node];
        host.node = made;
        host.state = State::Up;
        host.lives += 1;
        host.generation = generation;
        host.limits = limits;
        host.max_queued = max_queued;
        host.born = born;
        host.astray = false;
        host.wake_at = Duration::MAX;
        host.ran_since = born;
        host.leaves = false;
        host.finished = false;
        host.failure = None;
        let life = host.lives;
        self.note_clock(node);
        self.resolve(node, life);
        Ok(())
    }

    /// [Starts](Sim::start) all that do not run, at once.
    ///
    /// # Errors
    ///
    /// As [`Sim::new`].
    pub fn start_all(&mut self) -> Result<(), ConfigError> {
        for node in 0..self.hosts.len() {
            self.start(node)?;
        }
        Ok(())
    }

    /// Ends a member at once, so that it tells nobody. What nobody else has is lost.
    pub fn crash(&mut self, node: usize) {
        if self.hosts[node].state != State::Down {
            self.stop(node);
            self.doubt();
        }
    }

    /// [Crashes](Sim::crash) a member if it runs, and [starts](Sim::start) it.
    ///
    /// # Errors
    ///
    /// As [`Sim::new`].
    pub fn restart(&mut self, node: usize) -> Result<(), ConfigError> {
        self.crash(node);
        self.start(node)
    }

    /// Lets a member stand still: what comes to it waits, and its time does not seem to pass.
    pub fn pause(&mut self, node: usize) {
        let host = &mut self.hosts[node];
        if host.state == State::Up {
            host.state = State::Paused;
            host.wake_at = Duration::MAX;
        }
    }

    /// Lets a member go on. What waited comes at once, before or after it sees what time it is.
    pub fn resume(&mut self, node: usize) {
        let tick_first = self.links.happens(0.5);
        let host = &mut self.hosts[node];
        if host.state != State::Paused {
            return;
        }
        host.state = State::Up;
        host.ran_since = self.now;
        host.backlog_bytes = 0;
        let backlog = std::mem::take(&mut host.backlog);
        if tick_first {
            self.feed(node, Input::Tick);
        }
        for what in backlog {
            if self.hosts[node].state == State::Up {
                self.happen(node, what);
            }
        }
        self.schedule(node);
    }

    /// Lets messages through only within each of these groups. Members in none are with the first.
    pub fn partition(&mut self, groups: &[Vec<usize>]) {
        self.links.partition(groups);
        self.break_streams();
    }

    /// Lets nothing more through from one member to another. Streams need both directions.
    pub fn cut(&mut self, from: usize, to: usize) {
        self.links.cut(from, to);
        self.break_streams();
    }

    /// Ends all [partitions](Sim::partition) and [cuts](Sim::cut).
    pub fn heal(&mut self) {
        self.links.heal();
        self.healed_at = self.now;
    }

    /// From now on, this much of the datagrams is lost, 0 to 1.
    pub fn set_loss(&mut self, loss: f64) {
        self.links.loss = loss;
    }

    /// The wall clock of a member jumps, forwards or backwards.
    pub fn jump_clock(&mut self, node: usize, by_ms: i64) {
        let host = &mut self.hosts[node];
        host.offset_ms = host.offset_ms.saturating_add(by_ms);
        self.note_clock(node);
    }

    /// Gives a member a command, or lets it wait for one that stands still. One that does not run hears nothing.
    pub fn command(&mut self, node: usize, command: Command) {
        match self.hosts[node].state {
            State::Up => self.obey(node, command),
            State::Paused => self.hosts[node].backlog.push_back(What::Command(command)),
            State::Down => {}
        }
    }

    /// A member writes one register, or removes it.
    pub fn write(&mut self, node: usize, key: &str, entry: &EntryId, body: Option<&[u8]>) {
        let changes = vec![(entry.clone(), body.map(Bytes::copy_from_slice))];
        self.command(node, Command::Upsert { key: SmolStr::new(key), changes });
    }

    /// Lets time pass.
    pub fn run_for(&mut self, time: Duration) {
        self.run_to(self.now.saturating_add(time));
    }

    /// Lets time pass until this holds, but not more than `limit`. Returns how much passed, exact to 10 ms; `None` if it never
    /// held when it was looked at.
    pub fn run_until(&mut self, mut holds: impl FnMut(&Self) -> bool, limit: Duration) -> Option<Duration> {
        let began = self.now;
        let end = began.saturating_add(limit);
        loop {
            if holds(self) {
                return Some(self.now.saturating_sub(began));
            }
            if self.now >= end {
                return None;
            }
            self.run_to(self.now.saturating_add(STEP).min(end));
        }
    }

    /// Whether all live members say that they reflect the cluster.
    pub fn all_synced(&self) -> bool {
        self.live().all(|node| self.node(node).status().synced)
    }

    /// Whether the stores of all live members on the same side of a partition are equal. Those with clocks that are too wrong
    /// do not count.
    pub fn all_equal(&self) -> bool {
        self.first_difference().is_none()
    }

    /// Whether every live member holds as many for live as there are on its side of a partition. Those that stand still are
    /// counted by nobody.
    pub fn members_agree(&self) -> bool {
        let mut counts: BTreeMap<usize, usize> = BTreeMap::new();
        for node in self.live() {
            *counts.entry(self.links.group(node)).or_insert(0) += 1;
        }
        self.live().all(|node| counts.get(&self.links.group(node)) == Some(&self.node(node).status().members))
    }

    /// Whether the members have come to rest: they are [synced](Sim::all_synced), [equal](Sim::all_equal), and
    /// [agree](Sim::members_agree) on who there is.
    pub fn is_settled(&self) -> bool {
        self.all_equal() && self.members_agree() && self.all_synced()
    }

    /// How many live members have this body in this place, or nothing live there.
    pub fn count_having(&self, key: &str, entry: &EntryId, body: Option<&[u8]>) -> usize {
        self.live().filter(|node| self.has(*node, key, entry, body)).count()
    }

    /// Whether all live members have this body in this place, or nothing live there.
    pub fn everybody_has(&self, key: &str, entry: &EntryId, body: Option<&[u8]>) -> bool {
        self.live().all(|node| self.has(node, key, entry, body))
    }

    /// Whether a member has this body in this place, or nothing live there.
    pub fn has(&self, node: usize, key: &str, entry: &EntryId, body: Option<&[u8]>) -> bool {
        let held = self.node(node).store().get(key, entry).map(Slot::register);
        let held = held.and_then(|register| match &register.body {
            Body::Live(bytes) => Some(&bytes[..]),
            Body::Tombstone => None,
        });
        held == body
    }
}

fn config_of(options: &Options, node: usize, generation: u64) -> Config {
    let mut config = Config::new(format!("member-{node}"), addr_of(node), generation);
    if let Some(zone) = options.zone_of(node) {
        config.zone = SmolStr::from(format!("zone-{zone}"));
    }
    // Otherwise stores are never at rest for long.
    config.beacon_interval = Duration::ZERO;
    if let Some(configure) = options.configure {
        configure(&mut config);
    }
    config
}

/// From 10.0.0.1 on.
fn addr_of(node: usize) -> SocketAddr {
    let first = u32::from(Ipv4Addr::new(10, 0, 0, 1));
    let ip = first.saturating_add(u32::try_from(node).unwrap_or(u32::MAX));
    SocketAddr::from((Ipv4Addr::from(ip), PORT))
}

fn signed_millis(time: Duration) -> i64 {
    i64::try_from(time.as_millis()).unwrap_or(i64::MAX)
}

fn length(bytes: &[u8]) -> u64 {
    length_of(bytes.len())
}

fn length_of(number: usize) -> u64 {
    u64::try_from(number).unwrap_or(u64::MAX)
}
