//! Two members who talk to each other in memory, at once and without loss, until they know each other.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use ringkit_gossip::api::{Command, Config, Input, Output, StreamEvent, StreamId};
use ringkit_gossip::member::{Member, Security};
use ringkit_gossip::register::EntryId;
use ringkit_gossip::seal::{ClusterKey, Keyring};
use ringkit_gossip::store::Limits;
use ringkit_gossip::time::Now;
use smol_str::SmolStr;

/// What their cluster is called.
pub const LABEL: &str = "fuzz";
/// What the members are called. The first is the one that is looked at.
pub const NAMES: [&str; 2] = ["one", "other"];
/// Wall time at the beginning, and the lives of both.
pub const START_MS: u64 = 1_700_000_000_000;
/// What the first one has.
pub const KEY: &str = "ring";

/// Few, so that a few thousand bytes reach them.
pub const LIMITS: Limits = Limits {
    max_keys: 64,
    max_entries_per_key: 128,
    max_bytes: 1 << 20,
    max_clock_skew: Duration::from_secs(60),
    tombstone_horizon: Duration::from_secs(24 * 60 * 60),
};
/// The most that each knows beside itself.
pub const MAX_MEMBERS: usize = 64;

/// Steps until both must have found together.
const MAX_STEPS: usize = 1_000;

/// What comes to a member.
enum Given {
    Datagram(SocketAddr, Bytes),
    Opened(StreamId, SocketAddr),
    Data(StreamId, Bytes),
    Closed(StreamId),
}

pub struct Pair {
    pub members: [Member; 2],
    pub now: Duration,
    pending: VecDeque<(usize, Given)>,
    /// Each end of a stream, and the other one.
    pipes: BTreeMap<(usize, StreamId), (usize, StreamId)>,
    next_stream: u64,
    /// All that the second one said to the first.
    pub datagrams: Vec<Bytes>,
    /// On streams that it opened.
    pub streams: BTreeMap<StreamId, Vec<u8>>,
}

/// Where a member listens.
pub fn addr(place: usize) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, if place == 0 { 1 } else { 2 }], 7946))
}

/// Two keys with one name. That which is first seals.
pub fn keyring() -> Keyring {
    Keyring::new([2_u8, 8].iter().filter_map(|byte| ClusterKey::from_bytes(&[*byte; 32]).ok()).collect())
}

/// The moment that is this long after the beginning.
pub fn now_at(mono: Duration) -> Now {
    Now { mono, wall_ms: START_MS + u64::try_from(mono.as_millis()).unwrap_or(0) }
}

fn member(place: usize, sealed: bool) -> Member {
    let mut config = Config::new(NAMES[place], addr(place), START_MS);
    config.label = LABEL.into();
    config.limits = LIMITS;
    config.swim.max_members = MAX_MEMBERS;
    config.peers.max_members = MAX_MEMBERS;
    let security =
        if sealed { Security { keyring: keyring(), require_sealed: true } } else { Security::default() };
    // Whoever has the same number would be the same.
    let seed = if place == 0 { 1 } else { 2 };
    match Member::new(config, security, seed, now_at(Duration::ZERO)) {
        Ok(member) => member,
        Err(error) => panic!("no member is made: {error}"),
    }
}

impl Pair {
    /// Two who have found together, and of whom the first has something of each kind.
    pub fn new(sealed: bool) -> Self {
        let mut pair = Self {
            members: [member(0, sealed), member(1, sealed)],
            now: Duration::ZERO,
            pending: VecDeque::new(),
            pipes: BTreeMap::new(),
            next_stream: 0,
            datagrams: Vec::new(),
            streams: BTreeMap::new(),
        };
        pair.give(0, Input::Seeds(&[]));
        let write = |key: &str, id: &str, facet, bytes: Option<&[u8]>| Command::Upsert {
            key: SmolStr::new(key),
            changes: vec![(EntryId::new(id, facet), bytes.map(Bytes::copy_from_slice))],
        };
        for command in [
            write(KEY, "instance", 0, Some(b"10.0.0.1:9095, zone a, active")),
            write(KEY, "instance", 1, Some(&[7; 2_000])),
            write(KEY, "instance", 2, Some(b"beats")),
            write(KEY, "left", 0, Some(b"soon gone")),
            write(KEY, "left", 0, None),
            write("other", "", 3, Some(b"")),
        ] {
            pair.give(0, Input::Command(command));
        }
        pair.give(1, Input::Seeds(&[addr(0)]));
        for _ in 0..MAX_STEPS {
            if pair.members.iter().all(|one| one.node().is_settled() && one.node().status().members == 2) {
                return pair;
            }
            pair.step();
        }
        panic!("they do not find together");
    }

    /// They go on for a while.
    pub fn go_on(mut self, time: Duration) -> Self {
        let end = self.now + time;
        while self.now < end {
            self.step();
        }
        self
    }

    /// Until the next deadline.
    fn step(&mut self) {
        let at = self.members.iter().map(Member::next_deadline).min().unwrap_or(Duration::MAX);
        let soonest = self.now + Duration::from_millis(1);
        self.now = at.clamp(soonest, self.now + Duration::from_secs(1));
        for place in [0, 1] {
            self.give(place, Input::Tick);
        }
    }

    fn give(&mut self, place: usize, input: Input<'_>) {
        let mut out = Vec::new();
        self.members[place].handle(now_at(self.now), input, &mut out);
        self.route(place, out);
        while let Some((place, given)) = self.pending.pop_front() {
            let mut out = Vec::new();
            self.deliver(place, &given, &mut out);
            self.route(place, out);
        }
    }

    fn deliver(&mut self, place: usize, given: &Given, out: &mut Vec<Output>) {
        let (now, member) = (now_at(self.now), &mut self.members[place]);
        let (id, event) = match given {
            Given::Datagram(from, bytes) => {
                member.handle_datagram(now, *from, &mut bytes.to_vec(), out);
                return;
            }
            Given::Opened(id, peer) => (*id, StreamEvent::Opened { peer: *peer }),
            Given::Data(id, bytes) => (*id, StreamEvent::Data(bytes)),
            Given::Closed(id) => (*id, StreamEvent::Closed),
        };
        member.handle(now, Input::Stream { id, event }, out);
    }

    fn route(&mut self, place: usize, out: Vec<Output>) {
        let to = 1 - place;
        for output in out {
            match output {
                Output::Datagram { bytes, .. } => {
                    if to == 0 {
                        self.datagrams.push(bytes.clone());
                    }
                    self.pending.push_back((to, Given::Datagram(addr(place), bytes)));
                }
                Output::Open { id, .. } => {
                    self.next_stream += 2;
                    let other = StreamId(self.next_stream);
                    self.pipes.insert((place, id), (to, other));
                    self.pipes.insert((to, other), (place, id));
                    self.pending.push_back((to, Given::Opened(other, addr(place))));
                    self.pending.push_back((place, Given::Opened(id, addr(to))));
                }
                Output::Write { id, bytes } => {
                    let Some((to, other)) = self.pipes.get(&(place, id)).copied() else { continue };
                    if to == 0 && other.0.is_multiple_of(2) {
                        self.streams.entry(other).or_default().extend_from_slice(&bytes);
                    }
                    self.pending.push_back((to, Given::Data(other, bytes)));
                }
                Output::Close { id } => {
                    if let Some((to, other)) = self.pipes.remove(&(place, id)) {
                        self.pipes.remove(&(to, other));
                        self.pending.push_back((to, Given::Closed(other)));
                    }
                }
                Output::Event(_) => {}
            }
        }
    }
}
