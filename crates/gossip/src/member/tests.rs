//! Members with keys, with others and with none, whose streams arrive in pieces of any size.

mod hostile;
mod net;

use std::time::Duration;

use bytes::Bytes;
use smol_str::SmolStr;

use self::net::{Net, START_MS, addr, config, place, secs, value};
use super::*;
use crate::api::Phase;
use crate::seal::{Direction, StreamOpener, StreamSealer};
use crate::wire::{FLAG_SEALED, Frame, VERSION};

fn key(number: u8) -> ClusterKey {
    ClusterKey::from_bytes(&[number; 32]).unwrap()
}

fn keys(numbers: &[u8]) -> Vec<ClusterKey> {
    numbers.iter().copied().map(key).collect()
}

/// Has these keys, and requires them.
fn strict(numbers: &[u8]) -> Security {
    Security { keyring: Keyring::new(keys(numbers)), require_sealed: true }
}

/// Has these keys, or none, and requires nothing.
fn lenient(numbers: &[u8]) -> Security {
    Security { keyring: Keyring::new(keys(numbers)), require_sealed: false }
}

fn is_sealed(datagram: &[u8]) -> bool {
    datagram[2] & FLAG_SEALED != 0
}

#[test]
fn sealed_members_join_and_have_the_same() {
    let mut net = Net::cluster(2, &strict(&[1]));
    let large = Bytes::from(vec![7; 100_000]);
    net.upsert(1, vec![(place(0), value("small")), (place(1), Some(large.clone()))]);
    net.upsert(2, (10..2_010).map(|number| (place(number), value("one of many"))).collect());
    net.run(secs(5));
    net.start(3, config(3), &strict(&[1]));
    net.join(3);
    net.run(secs(20));
    for number in 1..=3 {
        assert_eq!(net.live(number, &place(0)), value("small"), "at {number}");
        assert_eq!(net.live(number, &place(1)), Some(large.clone()), "at {number}");
        let status = net.member(number).node().status();
        assert_eq!((status.phase, status.synced, status.members), (Phase::Active, true, 3));
        let [key] = net.member(number).keys()[..] else { panic!("there is one key") };
        assert_eq!(
            (key.id, key.seals, net.member(number).unopenable()),
            (super::tests::key(1).id(), true, 0)
        );
        assert!(key.opened > 10, "{}", key.opened);
    }
    net.assert_equal();
    assert!(net.datagrams.iter().all(|(_, _, bytes)| is_sealed(bytes)));
    assert!(net.first_bytes.iter().all(|(_, byte)| *byte == SEALED_MAGIC) && net.first_bytes.len() > 2);
    // Room was left for the seal, and used.
    let longest = net.datagrams.iter().map(|(_, _, bytes)| bytes.len()).max();
    assert!(longest.is_some_and(|longest| (1301..=1400).contains(&longest)), "{longest:?}");
}

#[test]
fn who_has_another_key_stays_out_and_is_counted() {
    for security in [strict(&[2]), lenient(&[2]), lenient(&[])] {
        let mut net = Net::cluster(2, &strict(&[1]));
        net.upsert(1, vec![(place(0), value("secret"))]);
        net.start(3, config(3), &security);
        net.join(3);
        net.run(secs(20));
        assert_eq!(net.member(3).node().status().phase, Phase::Joining);
        assert_eq!(net.live(3, &place(0)), None);
        assert_eq!(net.member(1).node().status().members, 2);
        if security.keyring.is_empty() {
            assert!(net.refused(1, "unsealed"));
        } else {
            assert!(net.refused(1, "unknown_key") && net.member(1).unopenable() > 0);
        }
    }
}

#[test]
fn members_without_a_key_say_and_hear_what_their_nodes_do() {
    let mut member = Member::new(config(1), lenient(&[]), 5, now()).unwrap();
    // The seal's room is left in case that a key comes later.
    let mut node = Node::new(Config { packet_size: 1384, ..config(1) }, 5, now()).unwrap();
    let hello = Frame::Hello {
        version: VERSION,
        label: SmolStr::default(),
        node: crate::id::NodeId::new("m2", 1, addr(2)),
        name: "m2".into(),
        build: SmolStr::default(),
        settled: true,
    };
    let stream = |number, event| Input::Stream { id: StreamId(number), event };
    let (opened, hello) = (StreamEvent::Opened { peer: addr(2) }, hello.encode().unwrap());
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    let seeds = [addr(2)];
    let inputs = || {
        [
            Input::Seeds(&seeds),
            Input::Datagram { from: addr(2), bytes: &[1, 2, 3] },
            stream(1, opened),
            stream(1, StreamEvent::Data(&hello)),
            stream(2, opened),
            stream(2, StreamEvent::Data(&[MAGIC])),
            stream(2, StreamEvent::Data(&hello)),
            stream(4, opened),
            stream(4, StreamEvent::Data(b"GET / HTTP/1.1")),
            stream(2, StreamEvent::Closed),
        ]
    };
    for (input, same) in inputs().into_iter().zip(inputs()) {
        member.handle(now(), input, &mut ours);
        node.handle(now(), same, &mut theirs);
    }
    assert_eq!(ours, theirs);
    assert!(ours.iter().any(|output| matches!(output, Output::Write { id: StreamId(2), .. })));
    assert_eq!(member.next_deadline(), node.next_deadline());
    assert_eq!((member.keys(), member.unopenable()), (Vec::new(), 0));

    // But what is sealed is noticed.
    let mut sealer = Sealer::new(1, "");
    let datagram = sealer.seal_datagram(&Keyring::new(keys(&[1])), plain().to_vec().into()).unwrap();
    member.handle(now(), Input::Datagram { from: addr(2), bytes: &datagram }, &mut ours);
    member.handle(now(), stream(6, opened), &mut ours);
    member.handle(now(), stream(6, StreamEvent::Data(&[SEALED_MAGIC])), &mut ours);
    assert_eq!(member.unopenable(), 2);
    let refusal = Output::Event(Event::Refused { reason: "unknown_key" });
    assert_eq!(ours.iter().filter(|output| **output == refusal).count(), 2);
    assert!(ours.contains(&Output::Close { id: StreamId(6) }));
}

/// One begins with a key and one without, and either joins the other; then the key comes to all, and then it is required.
#[test]
fn a_cluster_begins_to_seal() {
    for (first, second) in [(lenient(&[1]), lenient(&[])), (lenient(&[]), lenient(&[1]))] {
        let has_key = u8::from(first.keyring.is_empty()) + 1;
        let mut net = Net::default();
        for (number, security) in [(1, &first), (2, &second)] {
            net.start(number, config(number), security);
            net.join(number);
            net.run(secs(1));
        }
        net.run(secs(20));
        for number in [1, 2] {
            let status = net.member(number).node().status();
            assert_eq!((status.phase, status.synced, status.members), (Phase::Active, true, 2), "{number}");
        }
        let large = Bytes::from(vec![7; 100_000]);
        net.upsert(1, vec![(place(1), value("one"))]);
        net.upsert(2, vec![(place(2), Some(large.clone()))]);
        net.run(secs(60));
        net.assert_equal();
        for number in [1, 2] {
            assert!(!net.happened(number, |event| matches!(event, Event::MemberDown { .. })), "{number}");
        }

        net.set_keys(3 - has_key, keys(&[1]));
        net.run(secs(60));
        net.datagrams.clear();
        net.run(secs(60));
        assert!(net.datagrams.len() > 50 && net.datagrams.iter().all(|(_, _, bytes)| is_sealed(bytes)));

        net.start(3, config(3), &strict(&[1]));
        net.join(3);
        net.run(secs(20));
        assert!(net.member(3).node().status().synced);
        // One that is begun anew, and requires it.
        net.start(2, Config { generation: START_MS + 200_000, ..config(2) }, &strict(&[1]));
        net.join(2);
        net.upsert(3, vec![(place(3), value("three"))]);
        net.run(secs(60));
        for number in 1..=3 {
            assert_eq!(net.live(number, &place(1)), value("one"), "at {number}");
            assert_eq!(net.live(number, &place(2)), Some(large.clone()), "at {number}");
            assert_eq!(net.live(number, &place(3)), value("three"), "at {number}");
            assert_eq!(net.member(number).node().status().members, 3);
        }
    }
}

#[test]
fn a_key_is_changed_in_three_steps() {
    let mut net = Net::default();
    for number in 1..=3 {
        net.start(number, Config { sync_interval: secs(1), ..config(number) }, &strict(&[1]));
        net.join(number);
        net.run(secs(2));
    }
    net.run(secs(5));
    let mut written = 0;
    for step in [&[1, 2][..], &[2, 1], &[2]] {
        for number in 1..=3 {
            net.set_keys(number, keys(step));
            for author in 1..=3 {
                let large = Bytes::from(format!("{written} ").repeat(2_000));
                net.upsert(author, vec![(place(written), value("a")), (place(written + 1), Some(large))]);
                written += 2;
                net.run(Duration::from_millis(300));
            }
        }
        net.run(secs(2));
    }
    for number in 1..=3 {
        for written in 0..written {
            assert!(net.live(number, &place(written)).is_some(), "{written} at {number}");
        }
        assert_eq!(net.member(number).unopenable(), 0);
        let [key] = net.member(number).keys()[..] else { panic!("there is one key") };
        assert!(key.id == super::tests::key(2).id() && key.seals && key.opened > 10, "{key:?}");
        assert!(!net.happened(number, |event| {
            matches!(event, Event::MemberDown { .. } | Event::Refused { reason: "forged" | "unknown_key" })
        }));
    }
    net.assert_equal();
}

#[test]
fn streams_of_a_key_that_is_removed_are_closed() {
    let (mut member, mut out) = (strict_member(), Vec::new());
    let mut peer = Peer::open(&mut member, 2, &mut out);
    let answer = peer.heard(&out);
    assert!(matches!(answer[..], [Frame::Hello { .. }]), "{answer:?}");
    // One that has not said anything is not of any key.
    member.handle(now(), opened(4), &mut out);

    out.clear();
    member.set_keys(keys(&[2, 1]), &mut out);
    assert!(out.is_empty(), "{out:?}");
    let info = |number, seals, opened| {
        let key = key(number);
        KeyInfo { id: key.id(), print: key.print(), seals, opened }
    };
    let [one, other] = [1, 2].map(|number| info(number, true, 0));
    assert!(one.print[0] == one.id && one.print != other.print);
    assert_eq!(member.keys(), [info(2, true, 0), info(1, false, 1)]);

    member.set_keys(keys(&[2]), &mut out);
    assert_eq!(out, [Output::Close { id: StreamId(2) }]);
    out.clear();
    let ping = peer.seal(&Frame::Ping { nonce: 1 });
    member.handle(now(), data(2, &ping), &mut out);
    member.handle(now(), Input::Stream { id: StreamId(2), event: StreamEvent::Closed }, &mut out);
    assert!(out.is_empty(), "{out:?}");
    assert_eq!((member.keys(), member.streams.len()), (vec![info(2, true, 0)], 1));
}

#[test]
fn without_its_last_key_nothing_is_said_where_it_is_required() {
    let (mut member, mut out) = (strict_member(), Vec::new());
    member.set_keys(Vec::new(), &mut out);
    member.handle(now(), Input::Seeds(&[addr(2)]), &mut out);
    let id = out.iter().find_map(|output| match output {
        Output::Open { id, .. } => Some(*id),
        _ => None,
    });
    let id = id.unwrap();
    member.handle(now(), opened(id.0), &mut out);
    assert!(out.contains(&Output::Close { id }));
    assert!(out.contains(&Output::Event(Event::Refused { reason: "unsealable" })));
    assert!(!out.iter().any(|output| matches!(output, Output::Write { .. } | Output::Datagram { .. })));
    assert!(member.streams.is_empty());
}

#[test]
fn a_cluster_changes_its_label() {
    let labelled = |number, own: &str, accepted: &str| Config {
        label: own.into(),
        accepted_labels: vec![accepted.into()],
        ..config(number)
    };
    let mut net = Net::default();
    net.start(1, labelled(1, "old", "new"), &strict(&[1]));
    net.start(2, labelled(2, "new", "old"), &strict(&[1]));
    net.start(3, labelled(3, "newer", "newest"), &strict(&[1]));
    for number in 1..=3 {
        net.join(number);
    }
    net.upsert(1, vec![(place(1), value("one"))]);
    net.run(secs(20));
    assert_eq!(net.live(2, &place(1)), value("one"));
    assert_eq!(net.member(1).node().status().members, 2);
    assert_eq!(net.member(3).node().status().phase, Phase::Joining);
    assert!(net.refused(1, "label"));
    assert_eq!(net.member(1).unopenable(), 0);
}

#[test]
fn what_cannot_work_is_refused() {
    let sized = |packet_size| Config { packet_size, ..config(1) };
    let is_good = |config, security| Member::new(config, security, 1, now()).is_ok();
    assert!(is_good(sized(600), lenient(&[])) && is_good(sized(65_507), strict(&[1])));
    assert!(is_good(sized(616), strict(&[1])) && is_good(sized(616), lenient(&[1])));
    for (config, security) in [
        (sized(615), strict(&[1])),
        (sized(615), lenient(&[1])),
        (sized(599), lenient(&[])),
        (sized(65_508), strict(&[1])),
        (sized(65_508), lenient(&[])),
        (config(1), strict(&[])),
    ] {
        assert!(!is_good(config, security));
    }
}

fn now() -> Now {
    Now { mono: secs(1), wall_ms: START_MS }
}

/// An empty datagram.
fn plain() -> [u8; crate::wire::HEADER_BYTES] {
    Header::new(label_hash(""), 0).encode()
}

fn opened(number: u64) -> Input<'static> {
    Input::Stream { id: StreamId(number), event: StreamEvent::Opened { peer: addr(2) } }
}

fn data(number: u64, bytes: &[u8]) -> Input<'_> {
    Input::Stream { id: StreamId(number), event: StreamEvent::Data(bytes) }
}

fn strict_member() -> Member {
    Member::new(config(1), strict(&[1]), 5, now()).unwrap()
}

/// Who opened a stream to a member, and seals it by hand.
struct Peer {
    id: StreamId,
    sealer: StreamSealer,
}

impl Peer {
    const SESSION: u64 = 77;

    fn begun(number: u64) -> (Self, Vec<u8>) {
        let keyring = Keyring::new(keys(&[1]));
        let sealer = StreamSealer::try_new(&keyring, Self::SESSION, number, Direction::Forth).unwrap();
        let mut peer = Self { id: StreamId(number), sealer };
        let hello = peer.seal(&Frame::Hello {
            version: VERSION,
            label: SmolStr::default(),
            node: crate::id::NodeId::new("m2", 1, addr(2)),
            name: "m2".into(),
            build: SmolStr::default(),
            settled: true,
        });
        let numbers = [Self::SESSION.to_le_bytes(), number.to_le_bytes()].concat();
        (peer, [&[SEALED_MAGIC][..], &numbers[..], &hello[..]].concat())
    }

    /// Says who it is.
    fn open(member: &mut Member, number: u64, out: &mut Vec<Output>) -> Self {
        let (peer, bytes) = Self::begun(number);
        member.handle(now(), opened(number), out);
        member.handle(now(), data(number, &bytes), out);
        peer
    }

    fn seal(&mut self, frame: &Frame) -> Vec<u8> {
        self.sealer.seal_frame(&frame.encode().unwrap()).unwrap()
    }

    /// All that the member said from the beginning of the stream.
    fn heard(&self, out: &[Output]) -> Vec<Frame> {
        let writes = out.iter().filter_map(|output| match output {
            Output::Write { id, bytes } if *id == self.id => Some(&bytes[..]),
            _ => None,
        });
        let stream = writes.collect::<Vec<_>>().concat();
        let (numbers, mut frames) = stream.split_at(16);
        let [session, number] =
            [&numbers[..8], &numbers[8..]].map(|le| u64::from_le_bytes(le.try_into().unwrap()));
        let back = Direction::Back { session: Self::SESSION, stream: self.id.0 };
        let mut opener = StreamOpener::new(&Keyring::new(keys(&[1])), session, number, back);
        let mut heard = Vec::new();
        while let Some(frame) = opener.next_frame(&mut frames).unwrap() {
            heard.push(Frame::decode(&frame).unwrap());
        }
        heard
    }
}
