//! Members in virtual time, whose datagrams arrive at once and whose streams piece by piece.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::*;
use crate::api::Command;
use crate::register::{Body, EntryId};

pub(super) const START_MS: u64 = 1_700_000_000_000;

/// Longest piece that a stream is cut into.
const MAX_PIECE: usize = 4_000;

pub(super) enum Given {
    Datagram(SocketAddr, Bytes),
    Opened(StreamId, SocketAddr),
    Flow(SocketAddr, StreamId),
    Seeds(Vec<SocketAddr>),
    Command(Command),
    Tick,
}

/// One end of a stream.
struct End {
    other: (SocketAddr, StreamId),
    /// What was written here and has not arrived.
    buffer: Vec<u8>,
    /// Whether the member here is still to be told of it, and may say something.
    open: bool,
    has_spoken: bool,
}

pub(super) struct Net {
    now: Duration,
    members: BTreeMap<SocketAddr, Member>,
    pending: VecDeque<(SocketAddr, Given)>,
    ends: BTreeMap<(SocketAddr, StreamId), End>,
    /// No more is to be said on these.
    closed: BTreeSet<(SocketAddr, StreamId)>,
    next_stream: u64,
    started: u64,
    random: SmallRng,
    events: Vec<(SocketAddr, Event)>,
    /// All that were sent: from, to, bytes.
    pub(super) datagrams: Vec<(SocketAddr, SocketAddr, Bytes)>,
    /// What streams began with, and who opened them.
    pub(super) first_bytes: Vec<(SocketAddr, u8)>,
}

impl Default for Net {
    fn default() -> Self {
        Self {
            now: Duration::ZERO,
            members: BTreeMap::new(),
            pending: VecDeque::new(),
            ends: BTreeMap::new(),
            closed: BTreeSet::new(),
            next_stream: 0,
            started: 0,
            random: SmallRng::seed_from_u64(7),
            events: Vec::new(),
            datagrams: Vec::new(),
            first_bytes: Vec::new(),
        }
    }
}

pub(super) fn addr(number: u8) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, number], 7946))
}

pub(super) fn config(number: u8) -> Config {
    let config = Config::new(format!("m{number}"), addr(number), START_MS);
    Config { beacon_interval: Duration::ZERO, ..config }
}

pub(super) fn place(number: usize) -> EntryId {
    EntryId::new(format!("e{number}"), 0)
}

pub(super) fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

pub(super) fn value(text: &'static str) -> Option<Bytes> {
    Some(Bytes::from_static(text.as_bytes()))
}

impl Net {
    /// Member 1 begins a cluster, and the others join it one after another.
    pub(super) fn cluster(size: u8, security: &Security) -> Self {
        let mut net = Self::default();
        for number in 1..=size {
            net.start(number, config(number), security);
            net.join(number);
            net.run(secs(1));
        }
        net.run(secs(5));
        net
    }

    fn now(&self) -> Now {
        let ms = u64::try_from(self.now.as_millis()).unwrap();
        Now { mono: self.now, wall_ms: START_MS + ms }
    }

    /// A new life of a member. Streams of the one before break.
    pub(super) fn start(&mut self, number: u8, config: Config, security: &Security) {
        self.started += 1;
        let member = Member::new(config, security.clone(), self.started, self.now()).unwrap();
        self.members.insert(addr(number), member);
        let broken: Vec<_> = self.ends.keys().filter(|(at, _)| *at == addr(number)).copied().collect();
        for (at, id) in broken {
            self.route(at, Output::Close { id });
        }
        // Its streams are counted anew.
        self.closed.retain(|(at, _)| *at != addr(number));
        self.deliver();
    }

    pub(super) fn join(&mut self, number: u8) {
        self.give(number, Given::Seeds(vec![addr(1)]));
    }

    pub(super) fn member(&self, number: u8) -> &Member {
        &self.members[&addr(number)]
    }

    pub(super) fn set_keys(&mut self, number: u8, keys: Vec<ClusterKey>) {
        let mut out = Vec::new();
        self.members.get_mut(&addr(number)).unwrap().set_keys(keys, &mut out);
        for output in out {
            self.route(addr(number), output);
        }
        self.deliver();
    }

    pub(super) fn upsert(&mut self, number: u8, changes: Vec<(EntryId, Option<Bytes>)>) {
        self.give(number, Given::Command(Command::Upsert { key: "ring".into(), changes }));
    }

    pub(super) fn give(&mut self, number: u8, given: Given) {
        self.pending.push_back((addr(number), given));
        self.deliver();
    }

    fn deliver(&mut self) {
        while let Some((at, given)) = self.pending.pop_front() {
            match &given {
                Given::Datagram(from, bytes) if self.random.random() => {
                    self.feed_datagram(at, *from, &mut bytes.to_vec());
                }
                Given::Datagram(from, bytes) => self.feed(at, Input::Datagram { from: *from, bytes }),
                Given::Opened(id, peer) => {
                    self.feed(at, Input::Stream { id: *id, event: StreamEvent::Opened { peer: *peer } });
                }
                Given::Flow(from, id) => {
                    if let Some((to, id, bytes)) = self.flow((*from, *id)) {
                        let is_end = bytes.is_empty();
                        let event = if is_end { StreamEvent::Closed } else { StreamEvent::Data(&bytes) };
                        self.feed(to, Input::Stream { id, event });
                    }
                }
                Given::Seeds(seeds) => self.feed(at, Input::Seeds(seeds)),
                Given::Command(command) => self.feed(at, Input::Command(command.clone())),
                Given::Tick => self.feed(at, Input::Tick),
            }
        }
    }

    /// The other way of taking one in, which is as good.
    fn feed_datagram(&mut self, at: SocketAddr, from: SocketAddr, bytes: &mut [u8]) {
        let (now, mut out) = (self.now(), Vec::new());
        let Some(member) = self.members.get_mut(&at) else { return };
        member.handle_datagram(now, from, bytes, &mut out);
        for output in out {
            self.route(at, output);
        }
    }

    fn feed(&mut self, at: SocketAddr, input: Input<'_>) {
        let (now, mut out) = (self.now(), Vec::new());
        let Some(member) = self.members.get_mut(&at) else { return };
        member.handle(now, input, &mut out);
        for output in out {
            self.route(at, output);
        }
    }

    /// What arrives next at the other end of a stream: bytes, or that it is closed if there are none.
    fn flow(&mut self, from: (SocketAddr, StreamId)) -> Option<(SocketAddr, StreamId, Vec<u8>)> {
        let end = self.ends.get_mut(&from)?;
        let (other, was_open) = (end.other, end.open);
        if end.buffer.is_empty() {
            if was_open {
                return None;
            }
            self.ends.remove(&from);
            let told = self.ends.remove(&other).filter(|end| end.open)?;
            self.closed.insert(other);
            assert_eq!(told.other, from);
            return Some((other.0, other.1, Vec::new()));
        }
        let longest = end.buffer.len().min(self.random.random_range(1..=MAX_PIECE));
        let len = self.random.random_range(1..=longest);
        let piece = end.buffer.drain(..len).collect();
        self.pending.push_back((other.0, Given::Flow(from.0, from.1)));
        let is_told = self.ends.get(&other).is_some_and(|end| end.open);
        is_told.then_some((other.0, other.1, piece))
    }

    fn route(&mut self, at: SocketAddr, output: Output) {
        match output {
            Output::Datagram { to, bytes } => {
                assert!(bytes.len() <= 1400, "{}", bytes.len());
                self.datagrams.push((at, to, bytes.clone()));
                self.pending.push_back((to, Given::Datagram(at, bytes)));
            }
            Output::Open { id, to } if self.members.contains_key(&to) => {
                self.next_stream += 2;
                let (here, there) = ((at, id), (to, StreamId(self.next_stream)));
                for (end, other) in [(here, there), (there, here)] {
                    let end_of = End { other, buffer: Vec::new(), open: true, has_spoken: end == there };
                    self.ends.insert(end, end_of);
                }
                self.pending.push_back((to, Given::Opened(there.1, SocketAddr::new(at.ip(), 40_000))));
                self.pending.push_back((at, Given::Opened(id, to)));
            }
            Output::Open { id, to } => {
                // Nobody is there.
                self.next_stream += 2;
                let nowhere = (to, StreamId(self.next_stream));
                self.ends.insert(
                    nowhere,
                    End { other: (at, id), buffer: Vec::new(), open: false, has_spoken: true },
                );
                let here = End { other: nowhere, buffer: Vec::new(), open: true, has_spoken: false };
                self.ends.insert((at, id), here);
                self.pending.push_back((at, Given::Flow(nowhere.0, nowhere.1)));
            }
            Output::Write { id, bytes } => {
                assert!(!self.closed.contains(&(at, id)), "it was closed, and something is said");
                let Some(end) = self.ends.get_mut(&(at, id)) else { return };
                if !std::mem::replace(&mut end.has_spoken, true) {
                    self.first_bytes.push((at, bytes[0]));
                }
                end.buffer.extend_from_slice(&bytes);
                self.pending.push_back((end.other.0, Given::Flow(at, id)));
            }
            Output::Close { id } => {
                assert!(self.closed.insert((at, id)), "it is closed twice");
                if let Some(end) = self.ends.get_mut(&(at, id)) {
                    end.open = false;
                    self.pending.push_back((end.other.0, Given::Flow(at, id)));
                }
            }
            Output::Event(event) => self.events.push((at, event)),
        }
    }

    pub(super) fn run(&mut self, time: Duration) {
        let end = self.now + time;
        for _ in 0..1_000_000 {
            let next = self.members.iter().map(|(at, member)| (member.next_deadline(), *at)).min();
            let Some((due, at)) = next.filter(|(due, _)| *due <= end) else {
                self.now = end;
                return;
            };
            self.now = self.now.max(due);
            self.pending.push_back((at, Given::Tick));
            self.deliver();
        }
        panic!("something is always due");
    }

    /// What a member has in a place.
    pub(super) fn live(&self, number: u8, entry: &EntryId) -> Option<Bytes> {
        match &self.member(number).node().store().get("ring", entry)?.register().body {
            Body::Live(bytes) => Some(bytes.clone()),
            Body::Tombstone => None,
        }
    }

    /// All members have the same.
    pub(super) fn assert_equal(&self) {
        let roots: BTreeSet<u128> =
            self.members.values().map(|member| member.node().store().root()).collect();
        assert_eq!(roots.len(), 1);
    }

    pub(super) fn happened(&self, number: u8, what: impl Fn(&Event) -> bool) -> bool {
        self.events.iter().any(|(at, event)| *at == addr(number) && what(event))
    }

    pub(super) fn refused(&self, number: u8, reason: &'static str) -> bool {
        self.happened(number, |event| *event == Event::Refused { reason })
    }
}
