//! Members in virtual time, whose datagrams and streams arrive at once, or not at all.

mod absence;
mod clocks;
mod deaf;
mod joining;
mod leave;
mod probes;
mod reports;
mod seeds;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

use super::*;
use crate::register::Body;
use crate::sync::PIECE_BYTES;
use crate::wire::{DatagramWriter, Frame, Header, MAGIC, VERSION};

const START_MS: u64 = 1_700_000_000_000;

enum Given {
    Datagram(SocketAddr, Bytes),
    Opened(StreamId, SocketAddr),
    Data(StreamId, Bytes),
    Closed(StreamId),
    Seeds(Vec<SocketAddr>),
    Command(Command),
    Tick,
}

#[derive(Default)]
struct Net {
    now: Duration,
    nodes: BTreeMap<SocketAddr, Node>,
    pending: VecDeque<(SocketAddr, Given)>,
    pipes: BTreeMap<(SocketAddr, StreamId), (SocketAddr, StreamId)>,
    next_stream: u64,
    /// Datagrams from and to these are lost.
    deaf: BTreeSet<SocketAddr>,
    /// Nothing gets through between these and the others.
    apart: BTreeSet<SocketAddr>,
    /// By how many milliseconds wall clocks are ahead.
    ahead: BTreeMap<SocketAddr, i64>,
    /// Addresses that lead to others.
    aliases: BTreeMap<SocketAddr, SocketAddr>,
    events: Vec<(SocketAddr, Event)>,
    started: u64,
}

fn addr(number: u8) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, number], 7946))
}

fn config(number: u8) -> Config {
    let config = Config::new(format!("m{number}"), addr(number), START_MS);
    Config { beacon_interval: Duration::ZERO, ..config }
}

fn place(number: usize) -> EntryId {
    EntryId::new(format!("e{number}"), 0)
}

impl Net {
    /// Member 1 begins a cluster, and the others join it one after another.
    fn cluster(size: u8) -> Self {
        Self::cluster_of(size, |config| config)
    }

    /// The same, of members that differ from the others.
    fn cluster_of(size: u8, configure: impl Fn(Config) -> Config) -> Self {
        let mut net = Self::default();
        for number in 1..=size {
            net.start(configure(config(number)));
            net.join(number);
            net.run(secs(1));
        }
        net.run(secs(5));
        net
    }

    fn now(&self, at: SocketAddr) -> Now {
        let ms = START_MS + u64::try_from(self.now.as_millis()).unwrap();
        let ahead = self.ahead.get(&at).copied().unwrap_or(0);
        Now { mono: self.now, wall_ms: ms.saturating_add_signed(ahead) }
    }

    fn reaches(&self, from: SocketAddr, to: SocketAddr) -> bool {
        self.nodes.contains_key(&to) && self.apart.contains(&from) == self.apart.contains(&to)
    }

    fn led_to(&self, addr: SocketAddr) -> SocketAddr {
        self.aliases.get(&addr).copied().unwrap_or(addr)
    }

    fn start(&mut self, config: Config) {
        // Equal seeds would make two processes look like one.
        self.started += 1;
        let at = config.addr;
        self.nodes.insert(at, Node::new(config, self.started, self.now(at)).unwrap());
    }

    fn join(&mut self, number: u8) {
        self.give(number, Given::Seeds(vec![addr(1)]));
    }

    fn node(&self, number: u8) -> &Node {
        &self.nodes[&addr(number)]
    }

    fn give(&mut self, number: u8, given: Given) {
        self.pending.push_back((addr(number), given));
        self.deliver();
    }

    fn deliver(&mut self) {
        while let Some((at, given)) = self.pending.pop_front() {
            let now = self.now(at);
            let Some(node) = self.nodes.get_mut(&at) else { continue };
            let mut out = Vec::new();
            match given {
                Given::Datagram(from, bytes) => {
                    node.handle(now, Input::Datagram { from, bytes: &bytes }, &mut out);
                }
                Given::Opened(id, peer) => {
                    node.handle(now, Input::Stream { id, event: StreamEvent::Opened { peer } }, &mut out);
                }
                Given::Data(id, bytes) => {
                    node.handle(now, Input::Stream { id, event: StreamEvent::Data(&bytes) }, &mut out);
                }
                Given::Closed(id) => {
                    node.handle(now, Input::Stream { id, event: StreamEvent::Closed }, &mut out);
                }
                Given::Seeds(seeds) => node.handle(now, Input::Seeds(&seeds), &mut out),
                Given::Command(command) => node.handle(now, Input::Command(command), &mut out),
                Given::Tick => node.handle(now, Input::Tick, &mut out),
            }
            let written = out.iter().map(|output| match output {
                Output::Write { bytes, .. } => bytes.len(),
                _ => 0,
            });
            assert!(written.sum::<usize>() <= 2 * PIECE_BYTES, "too much at once");
            for output in out {
                self.route(at, output);
            }
        }
    }

    fn route(&mut self, at: SocketAddr, output: Output) {
        match output {
            Output::Datagram { to, bytes } => {
                let to = self.led_to(to);
                assert!(bytes.len() <= 1400);
                if self.reaches(at, to) && !self.deaf.contains(&at) && !self.deaf.contains(&to) {
                    self.pending.push_back((to, Given::Datagram(at, bytes)));
                }
            }
            Output::Open { id, to: dialled } if self.reaches(at, self.led_to(dialled)) => {
                let to = self.led_to(dialled);
                self.next_stream += 2;
                let other = StreamId(self.next_stream);
                self.pipes.insert((at, id), (to, other));
                self.pipes.insert((to, other), (at, id));
                self.pending.push_back((to, Given::Opened(other, at)));
                self.pending.push_back((at, Given::Opened(id, dialled)));
            }
            Output::Open { id, .. } => self.pending.push_back((at, Given::Closed(id))),
            Output::Write { id, bytes } => {
                if let Some((to, other)) = self.pipes.get(&(at, id)) {
                    self.pending.push_back((*to, Given::Data(*other, bytes)));
                }
            }
            Output::Close { id } => {
                if let Some((to, other)) = self.pipes.remove(&(at, id)) {
                    self.pipes.remove(&(to, other));
                    self.pending.push_back((to, Given::Closed(other)));
                }
            }
            Output::Event(event) => self.events.push((at, event)),
        }
    }

    fn run(&mut self, time: Duration) {
        let end = self.now + time;
        for _ in 0..1_000_000 {
            let next = self.nodes.iter().map(|(at, node)| (node.next_deadline(), *at)).min();
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

    fn upsert(&mut self, number: u8, changes: Vec<(EntryId, Option<Bytes>)>) {
        self.give(number, Given::Command(Command::Upsert { key: "ring".into(), changes }));
    }

    fn body(&self, number: u8, entry: &EntryId) -> Option<Body> {
        self.node(number).store().get("ring", entry).map(|slot| slot.register().body.clone())
    }

    fn has(&self, number: u8, event: &Event) -> bool {
        self.events.iter().any(|(at, happened)| *at == addr(number) && happened == event)
    }

    fn refused(&self, number: u8, reason: &'static str) -> bool {
        self.has(number, &Event::Refused { reason })
    }
}

fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

fn value(text: &'static str) -> Option<Bytes> {
    Some(Bytes::from_static(text.as_bytes()))
}

fn live(text: &'static str) -> Option<Body> {
    Some(Body::Live(Bytes::from_static(text.as_bytes())))
}

#[test]
fn who_joins_is_synced_and_equal() {
    let net = Net::cluster(2);
    for number in [1, 2] {
        let status = net.node(number).status();
        assert_eq!((status.phase, status.synced, status.members), (Phase::Active, true, 2));
        assert!(net.has(number, &Event::Synced));
        let other = addr(3 - number);
        let name = net.nodes[&other].id().name;
        assert!(net.has(number, &Event::MemberUp { name, addr: other }));
    }
    assert_eq!(net.node(1).store().root(), net.node(2).store().root());
    assert_eq!(net.node(1).store().registers(MEMBERS_KEY).count(), 2);
}

#[test]
fn a_write_reaches_the_other_at_once() {
    let mut net = Net::cluster(2);
    net.upsert(1, vec![(place(0), value("a"))]);
    net.run(Duration::from_millis(20));
    assert_eq!(net.body(2, &place(0)), live("a"));
    let changed = Event::Changed { key: "ring".into(), entries: vec![place(0)] };
    assert!(net.has(1, &changed) && net.has(2, &changed));

    // What is already there is told to nobody again.
    net.run(secs(5));
    assert_eq!(net.node(2).status().queued, 0);
}

/// Otherwise members that have the same would not tell each other whom they know.
#[test]
fn who_knows_others_is_compared_with_although_it_has_the_same() {
    let mut net = Net::cluster(2);
    let (known, root) = (net.node(1).swim.digest(), net.node(1).store().root());
    let mut sessions_after = |known| {
        let mut writer = DatagramWriter::new(1400, Header::new(label_hash(""), 77));
        assert!(writer.try_push_digest(known, &[(SmolStr::default(), root)]));
        net.give(1, Given::Datagram(addr(2), writer.finish()));
        net.node(1).status().totals.sessions_done
    };
    let before = sessions_after(known);
    assert_eq!([sessions_after(known), sessions_after(!known)], [before, before + 1]);
}

#[test]
fn large_registers_are_offered_and_fetched() {
    let mut net = Net::cluster(2);
    let large = Bytes::from(vec![7; 100_000]);
    net.upsert(1, vec![(place(0), Some(large.clone()))]);
    net.run(Duration::from_millis(20));
    assert_eq!(net.body(2, &place(0)), Some(Body::Live(large)));
}

#[test]
fn a_third_whose_datagrams_are_lost_gets_everything_by_streams() {
    let mut net = Net::cluster(2);
    net.deaf.insert(addr(3));
    net.start(config(3));
    net.join(3);
    net.run(secs(2));
    assert!(net.node(3).status().synced);
    net.upsert(1, vec![(place(0), value("a"))]);
    net.upsert(3, vec![(place(1), value("b"))]);
    net.run(secs(30));
    for number in 1..=3 {
        assert_eq!(net.body(number, &place(0)), live("a"), "at {number}");
        assert_eq!(net.body(number, &place(1)), live("b"), "at {number}");
    }
}

#[test]
fn what_was_removed_stays_removed() {
    let mut net = Net::cluster(3);
    net.upsert(1, vec![(place(0), value("a"))]);
    net.run(secs(2));
    assert_eq!(net.body(3, &place(0)), live("a"));
    net.deaf.insert(addr(3));
    net.upsert(2, vec![(place(0), None)]);
    net.run(secs(30));
    net.deaf.clear();
    net.run(secs(30));
    for number in 1..=3 {
        assert_eq!(net.body(number, &place(0)), Some(Body::Tombstone), "at {number}");
    }
}

#[test]
fn who_leaves_is_heard() {
    let mut net = Net::cluster(3);
    net.upsert(3, vec![(place(0), value("last words"))]);
    net.give(3, Given::Command(Command::Leave));
    net.run(secs(5));
    assert!(net.has(3, &Event::Phase(Phase::Left)));
    assert_eq!(net.node(3).next_deadline(), Duration::MAX);
    let name = net.node(3).id().name;
    for number in [1, 2] {
        assert!(net.has(number, &Event::MemberDown { name }));
        assert_eq!(net.node(number).status().members, 2);
        assert_eq!(net.body(number, &place(0)), live("last words"));
    }
    let apply = Command::Apply { ticket: 7, key: "ring".into(), expected: 0, changes: Vec::new() };
    net.give(3, Given::Command(apply));
    assert!(net.has(3, &Event::Applied { ticket: 7, written: None }));
}

#[test]
fn thousands_of_registers_move_in_one_session() {
    let mut net = Net::cluster(1);
    net.upsert(1, (0..2000).map(|number| (place(number), value("a value of some length"))).collect());
    net.start(config(2));
    net.join(2);
    assert_eq!(net.node(2).store().key_sizes("ring").entries, 2000);
    net.run(secs(2));
    assert_eq!(net.node(1).store().root(), net.node(2).store().root());
    assert!(net.node(2).status().synced);
}

#[test]
fn what_takes_many_pieces_moves_in_one_session() {
    let mut net = Net::cluster(1);
    // Random, so that it does not become small when it is packed.
    let mut random = SmallRng::seed_from_u64(1);
    let mut body = || Some((0..200_000).map(|_| random.random::<u8>()).collect::<Bytes>());
    net.upsert(1, (0..40).map(|number| (place(number), body())).collect());
    net.start(config(2));
    net.upsert(2, (40..80).map(|number| (place(number), body())).collect());
    net.join(2);
    assert_eq!(net.node(2).store().key_sizes("ring").entries, 80);
    assert_eq!(net.node(1).store().root(), net.node(2).store().root());
    assert!(net.node(2).status().synced);
}

#[test]
fn changes_that_came_too_late_are_not_applied() {
    let mut net = Net::cluster(2);
    let expected = net.node(1).store().local_version("ring");
    for (ticket, text) in [(1, "first"), (2, "second")] {
        let changes = vec![(place(0), value(text))];
        net.give(1, Given::Command(Command::Apply { ticket, key: "ring".into(), expected, changes }));
    }
    let outcomes: Vec<(u64, bool)> = net
        .events
        .iter()
        .filter_map(|(_, event)| match event {
            Event::Applied { ticket, written } => Some((*ticket, written.is_some())),
            _ => None,
        })
        .collect();
    assert_eq!(outcomes, [(1, true), (2, false)]);
    net.run(secs(1));
    assert_eq!(net.body(2, &place(0)), live("first"));
}

#[test]
fn zones_are_learned_and_beacons_timed() {
    let mut net = Net::default();
    for (number, zone) in [(1, "a"), (2, "b")] {
        net.start(Config { zone: zone.into(), beacon_interval: secs(10), ..config(number) });
        net.join(number);
    }
    net.run(secs(40));
    assert!(net.node(1).peers.is_zone_aware() && net.node(2).peers.is_zone_aware());
    let timed = |event: &Event| matches!(event, Event::Propagation { took } if *took < secs(1));
    assert!(net.events.iter().any(|(_, event)| timed(event)));
}

#[test]
fn who_is_left_alone_finds_back() {
    let mut net = Net::cluster(2);
    net.nodes.remove(&addr(1));
    net.run(secs(60));
    assert_eq!(net.node(2).status().phase, Phase::Lonely);
    net.start(Config { generation: START_MS + 60_000, ..config(1) });
    net.give(1, Given::Seeds(Vec::new()));
    net.run(secs(120));
    assert_eq!(net.node(2).status().phase, Phase::Active);
    assert_eq!(net.node(1).status().members, 2);
}

#[test]
fn who_is_left_alone_looks_for_others_at_once() {
    // So that a death is noticed between two looks at the seeds, which come every second.
    let mut net = Net::cluster_of(2, |config| {
        let swim = crate::swim::Config { suspicion_timeout: Duration::from_millis(4_500), ..config.swim };
        Config { swim, ..config }
    });
    let death = Event::MemberDown { name: net.node(1).id().name };
    net.nodes.remove(&addr(1));
    let is_noticed = (0..6_000).any(|_| {
        net.run(Duration::from_millis(10));
        net.has(2, &death)
    });
    assert!(is_noticed);
    let status = net.node(2).status();
    assert_eq!((status.phase, status.join_attempts), (Phase::Lonely, 1));
}

#[test]
fn another_label_is_refused() {
    let mut net = Net::cluster(1);
    net.start(Config { label: "other".into(), ..config(2) });
    net.join(2);
    net.run(secs(3));
    assert!(net.refused(1, "label"));
    assert_eq!(net.node(2).status().phase, Phase::Joining);
    assert_eq!(net.node(1).status().members, 1);

    net.events.clear();
    let mut writer = DatagramWriter::new(1400, Header::new(label_hash("other"), 1));
    assert!(writer.try_push_digest(0, &[]));
    net.give(1, Given::Datagram(addr(2), writer.finish()));
    assert!(net.refused(1, "label"));
}

#[test]
fn who_asks_only_itself_begins_a_cluster() {
    let mut net = Net::default();
    net.start(config(1));
    net.join(1);
    assert!(net.has(1, &Event::Synced));
    assert_eq!(net.node(1).status().phase, Phase::Active);
}

#[test]
fn garbage_is_refused() {
    let mut net = Net::cluster(2);
    let mut random = SmallRng::seed_from_u64(1);
    let stranger = addr(9);
    let hello = Frame::Hello {
        version: VERSION,
        label: SmolStr::default(),
        node: NodeId::new("m9", 1, stranger),
        name: "m9".into(),
        build: SmolStr::default(),
        settled: true,
    };
    let hello = [&[MAGIC][..], &hello.encode().unwrap()[..]].concat();
    let root = net.node(1).store().root();
    for turn in 0..2_000_u64 {
        let len = random.random_range(0..200);
        let mut junk: Vec<u8> = (0..len).map(|_| random.random()).collect();
        net.give(1, Given::Datagram(stranger, junk.clone().into()));

        // With a right header, and sections of known kinds.
        if let Some(kind) = junk.first_mut() {
            *kind %= 7;
        }
        let mut header = Header::new(label_hash(""), 5);
        header.nonce_or_checksum = xxh3_64_with_seed(&junk, xxh3_64(&header.encode()[..HEADER_BYTES - 8]));
        net.give(1, Given::Datagram(stranger, [&header.encode()[..], &junk[..]].concat().into()));

        let id = StreamId(1_000_000 + 2 * turn);
        net.give(1, Given::Opened(id, stranger));
        if turn % 2 == 1 {
            net.give(1, Given::Data(id, hello.clone().into()));
            // A frame of a known type and a right length.
            if let Some(kind) = junk.first_mut() {
                *kind = random.random_range(1..=12);
            }
            let len = u32::try_from(junk.len()).unwrap();
            junk = [&len.to_le_bytes()[..], &junk[..]].concat();
        }
        net.give(1, Given::Data(id, junk.into()));
        net.give(1, Given::Closed(id));
    }
    for reason in ["not_ours", "short", "bad_frame", "out_of_turn"] {
        assert!(net.refused(1, reason), "{reason}");
    }
    assert_eq!(net.node(1).store().root(), root);
    assert!(net.node(1).streams.is_empty());
    net.run(secs(10));
    assert_eq!(net.node(1).status().members, 2);
}

#[test]
fn too_many_streams_are_refused() {
    let mut net = Net::cluster(1);
    for number in 0..100_u64 {
        net.give(1, Given::Opened(StreamId(1_000_000 + 2 * number), addr(9)));
    }
    assert!(net.refused(1, "too_many_streams_of_one"));
    assert_eq!(net.node(1).streams.len(), 8);
    net.run(secs(31));
    assert!(net.node(1).streams.is_empty(), "nothing was said on them");
    assert!(net.refused(1, "too_slow"));
}

#[test]
fn what_cannot_work_is_refused() {
    let wrong = [
        Config { name: "".into(), ..config(1) },
        Config { addr: "0.0.0.0:7946".parse().unwrap(), ..config(1) },
        Config { packet_size: 100, ..config(1) },
        Config { sync_interval: Duration::ZERO, ..config(1) },
    ];
    for config in wrong {
        assert!(Node::new(config, 1, Now::default()).is_err());
    }
}
