//! What strangers, and those who listened, can do to a member: nothing but be counted.

use super::net::Given;
use super::*;

fn refusals(out: &[Output]) -> Vec<&'static str> {
    let reasons = out.iter().filter_map(|output| match output {
        Output::Event(Event::Refused { reason }) => Some(*reason),
        _ => None,
    });
    reasons.collect()
}

fn random_bytes(random: &mut SmallRng, max: usize) -> Vec<u8> {
    let len = random.random_range(0..max);
    (0..len).map(|_| random.random()).collect()
}

#[test]
fn datagrams_that_come_again_are_refused() {
    let mut net = Net::cluster(2, &strict(&[1]));
    let sent: Vec<_> = net.datagrams.iter().filter(|(from, ..)| *from == addr(2)).cloned().collect();
    let roots = net.member(1).node().store().root();
    let opened = net.member(1).keys()[0].opened;
    assert!(!net.refused(1, "replayed") && sent.len() > 3);
    for (from, _, bytes) in sent {
        net.give(1, Given::Datagram(from, bytes));
    }
    assert!(net.refused(1, "replayed"));
    assert_eq!(net.member(1).keys()[0].opened, opened);
    // They were opened once, so there is no key that is missing.
    assert_eq!(net.member(1).unopenable(), 0);
    assert_eq!(net.member(1).node().store().root(), roots);
}

#[test]
fn own_datagrams_that_come_back_are_known() {
    let mut net = Net::cluster(2, &strict(&[1]));
    let own = net.datagrams.iter().find(|(from, ..)| *from == addr(1)).cloned().unwrap();
    net.give(1, Given::Datagram(addr(2), own.2));
    assert!(net.refused(1, "own_datagram"));
}

#[test]
fn what_is_not_sealed_or_sealed_wrongly_is_refused() {
    let (mut member, mut sealer) = (strict_member(), Sealer::new(1, ""));
    let keyring = |number| Keyring::new(keys(&[number]));
    let good = sealer.seal_datagram(&keyring(1), plain().to_vec().into()).unwrap();
    let mut forged = good.clone();
    *forged.last_mut().unwrap() ^= 1;
    let unknown = sealer.seal_datagram(&keyring(2), plain().to_vec().into()).unwrap();
    let elsewhere = Header::new(label_hash("elsewhere"), 0).encode().to_vec();
    let elsewhere = sealer.seal_datagram(&keyring(1), elsewhere.into()).unwrap();
    let clear = plain().to_vec();
    let cases: [(&[u8], &str); 8] = [
        (&clear, "unsealed"),
        (&forged, "forged"),
        (&unknown, "unknown_key"),
        (&good[..good.len() - 1], "seal_short"),
        (&good[..crate::wire::HEADER_BYTES + 3], "seal_short"),
        (&good[..20], "short"),
        (&elsewhere, "label"),
        (b"GET", "not_ours"),
    ];
    for (datagram, reason) in cases {
        let mut out = Vec::new();
        member.handle(now(), Input::Datagram { from: addr(2), bytes: datagram }, &mut out);
        member.handle_datagram(now(), addr(2), &mut datagram.to_vec(), &mut out);
        assert_eq!(refusals(&out), [reason, reason]);
    }
    assert_eq!(member.unopenable(), 8);
    let mut out = Vec::new();
    member.handle(now(), Input::Datagram { from: addr(2), bytes: &good }, &mut out);
    assert_eq!((refusals(&out), member.keys()[0].opened), (Vec::new(), 1));
}

#[test]
fn any_label_is_taken_but_not_sealed() {
    let config = Config { verify_label: false, ..config(1) };
    let mut member = Member::new(config, lenient(&[1]), 5, now()).unwrap();
    let elsewhere = Header::new(label_hash("elsewhere"), 0).encode().to_vec();
    let sealed = Sealer::new(1, "elsewhere").seal_datagram(&member.keyring, elsewhere.into()).unwrap();
    let mut out = Vec::new();
    member.handle(now(), Input::Datagram { from: addr(2), bytes: &sealed }, &mut out);
    assert_eq!((refusals(&out), member.unopenable()), (vec!["label"], 1));
}

#[test]
fn a_stream_that_is_not_sealed_is_refused() {
    let (mut member, mut out) = (strict_member(), Vec::new());
    member.handle(now(), opened(2), &mut out);
    member.handle(now(), data(2, &[]), &mut out);
    assert_eq!(refusals(&out), [""; 0]);
    member.handle(now(), data(2, &[MAGIC]), &mut out);
    assert_eq!((refusals(&out), out.last()), (vec!["unsealed"], Some(&Output::Close { id: StreamId(2) })));

    // Who requires nothing answers as it was asked.
    let mut member = Member::new(config(1), lenient(&[1]), 5, now()).unwrap();
    let (mut out, hello) = (Vec::new(), Frame::Ping { nonce: 1 }.encode().unwrap());
    member.handle(now(), opened(2), &mut out);
    member.handle(now(), data(2, &[&[MAGIC][..], &hello[..]].concat()), &mut out);
    let answer = Frame::Error { code: 1, text: "no_hello".into() }.encode().unwrap();
    assert!(out.contains(&Output::Write { id: StreamId(2), bytes: answer }));
}

#[test]
fn a_stream_is_the_same_in_whatever_pieces_it_comes() {
    let (_, bytes) = Peer::begun(2);
    let outputs = |size| {
        let (mut member, mut out) = (strict_member(), Vec::new());
        member.handle(now(), opened(2), &mut out);
        for piece in bytes.chunks(size) {
            member.handle(now(), data(2, piece), &mut out);
        }
        out
    };
    let whole = outputs(bytes.len());
    assert!(whole.iter().any(|output| matches!(output, Output::Write { .. })));
    for size in 1..bytes.len() {
        assert_eq!(outputs(size), whole, "{size}");
    }
}

#[test]
fn a_stream_that_is_damaged_is_closed_once() {
    let (_, bytes) = Peer::begun(2);
    for at in 1..bytes.len() {
        let (mut member, mut out) = (strict_member(), Vec::new());
        let mut damaged = bytes.clone();
        damaged[at] ^= 0x40;
        member.handle(now(), opened(2), &mut out);
        member.handle(now(), data(2, &damaged), &mut out);
        // Behind the numbers and a length: as much as any damaged length may want.
        member.handle(now(), data(2, &vec![0; if (17..21).contains(&at) { 2 << 20 } else { 0 }]), &mut out);
        let (refused, closed) =
            (refusals(&out), out.iter().filter(|output| matches!(output, Output::Close { .. })));
        assert_eq!((refused.len(), closed.count(), member.unopenable()), (1, 1, 1), "{at}: {refused:?}");
        assert!(!out.iter().any(|output| matches!(output, Output::Write { .. })), "{at}");
        assert!(member.streams.is_empty());

        out.clear();
        member.handle(now(), data(2, &bytes), &mut out);
        member.handle(now(), Input::Stream { id: StreamId(2), event: StreamEvent::Closed }, &mut out);
        assert!(out.is_empty(), "{out:?}");
    }
}

#[test]
fn a_stream_that_is_played_again_is_answered_with_other_numbers() {
    let (mut member, mut out) = (strict_member(), Vec::new());
    let (_, bytes) = Peer::begun(2);
    for number in [2, 4] {
        member.handle(now(), opened(number), &mut out);
        member.handle(now(), data(number, &bytes), &mut out);
    }
    let written = |number| {
        let write = out.iter().find_map(|output| match output {
            Output::Write { id: StreamId(id), bytes } if *id == number => Some(bytes.clone()),
            _ => None,
        });
        write.unwrap()
    };
    let (first, second) = (written(2), written(4));
    assert_eq!((&first[..8], first.len()), (&second[..8], second.len()));
    assert_ne!(first[8..16], second[8..16]);
    assert_ne!(first[21..], second[21..]);
}

#[test]
fn garbage_is_refused() {
    let mut net = Net::cluster(2, &strict(&[1]));
    let mut random = SmallRng::seed_from_u64(1);
    let mut member = strict_member();
    let mut out = Vec::new();
    for turn in 0..2_000_u64 {
        let id = 1_000 + 2 * turn;
        member.handle(now(), opened(id), &mut out);
        let mut junk = random_bytes(&mut random, 60);
        if let Some(first) = junk.first_mut().filter(|_| turn % 4 > 0) {
            *first = SEALED_MAGIC;
        }
        // A short length, so that there is something to open.
        if let Some(length) = junk.get_mut(17..21).filter(|_| turn.is_multiple_of(2)) {
            length.copy_from_slice(&[random.random_range(10..30), 0, 0, 0]);
        }
        for piece in junk.chunks(random.random_range(1..30)) {
            member.handle(now(), data(id, piece), &mut out);
        }
        let closed = Input::Stream { id: StreamId(id), event: StreamEvent::Closed };
        member.handle(now(), closed, &mut out);

        let mut datagram = random_bytes(&mut random, 100);
        if turn % 2 == 1 {
            let header = Header::new(label_hash(""), random.random()).sealed(key(1).id(), random.random());
            datagram = [&header.encode()[..], &datagram[..]].concat();
        }
        net.give(1, Given::Datagram(addr(9), datagram.into()));
    }
    assert!(member.streams.is_empty());
    assert!(!out.iter().any(|output| matches!(output, Output::Write { .. })));
    let refused = refusals(&out);
    for reason in ["unknown_key", "frame_too_long", "not_ours", "seal_short"] {
        assert!(refused.contains(&reason), "{reason}");
    }
    for reason in ["not_ours", "short", "forged", "seal_short"] {
        assert!(net.refused(1, reason), "{reason}");
    }
    net.run(secs(20));
    assert_eq!(net.member(1).node().status().members, 2);
}
