use bytes::Bytes;

use super::*;
use crate::api::{Command, Config, Input};
use crate::id::NodeId;
use crate::register::EntryId;

fn at(ms: u64) -> Now {
    Now { mono: Duration::from_millis(ms), wall_ms: 1_700_000_000_000 + ms }
}

fn addr(number: u8) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, number], 7946))
}

/// A member of zone a, with members 1 to 3, while 4 to 6 are of zone b. It has told all about itself.
fn in_two_zones(eager_rounds_per_second: u32) -> Node {
    let mut config = Config::new("m0", addr(9), 1);
    config.zone = "a".into();
    config.beacon_interval = Duration::ZERO;
    config.queue.eager_rounds_per_second = eager_rounds_per_second;
    let mut node = Node::new(config, 1, at(0)).unwrap();
    for number in 1..=6 {
        let zone = if number <= 3 { "a" } else { "b" };
        let id = NodeId::new(&format!("m{number}"), 1, addr(number));
        node.peers.update(id, Some(zone.into()), true);
    }
    for ms in (0..5_000).step_by(10) {
        node.handle(at(ms), Input::Tick, &mut Vec::new());
    }
    assert!(node.queue.is_empty());
    node
}

fn write(node: &mut Node, now: Now) -> EntryId {
    let entry = EntryId::new("e", 0);
    let changes = vec![(entry.clone(), Some(Bytes::from_static(b"news")))];
    let mut out = Vec::new();
    node.handle(now, Input::Command(Command::Upsert { key: "ring".into(), changes }), &mut out);
    assert!(told(&out, &entry).is_empty(), "it waits for more");
    entry
}

/// To whom datagrams with this entry go.
fn told(out: &[Output], entry: &EntryId) -> Vec<SocketAddr> {
    let holds = |bytes: &[u8]| {
        let mut sections = Datagram::parse(bytes).unwrap().sections;
        sections.any(|section| match section.unwrap() {
            Section::Records(mut records) => records.any(|record| record.unwrap().entry() == *entry),
            _ => false,
        })
    };
    let to = out.iter().filter_map(|output| match output {
        Output::Datagram { to, bytes } if holds(bytes) => Some(*to),
        _ => None,
    });
    to.collect()
}

fn is_far(to: &SocketAddr) -> bool {
    [addr(4), addr(5), addr(6)].contains(to)
}

#[test]
fn other_zones_are_told_what_rode_with_answers_before() {
    let mut node = in_two_zones(50);
    let entry = write(&mut node, at(5_000));
    let mut out = Vec::new();
    for _ in 0..4 {
        node.send_swim(at(5_005), addr(1), b"answer", &mut out);
    }
    assert_eq!(told(&out, &entry), [addr(1); 4]);
    assert_eq!(node.queue.len(), 0);

    assert!(node.next_deadline() <= at(5_010).mono);
    let mut out = Vec::new();
    node.handle(at(5_010), Input::Tick, &mut out);
    let to = told(&out, &entry);
    assert!(to.len() == FIRST_PER_ZONE && to.iter().all(is_far), "{to:?}");
    assert!(node.queue.is_empty());
}

#[test]
fn without_rounds_the_tick_tells_other_zones() {
    let mut node = in_two_zones(0);
    let entry = write(&mut node, at(5_000));
    assert!(node.next_deadline() <= at(5_200).mono);
    let mut out = Vec::new();
    node.handle(at(5_200), Input::Tick, &mut out);
    let to = told(&out, &entry);
    let far = to.iter().filter(|to| is_far(to)).count();
    // The tick itself goes to one zone.
    assert!(to.len() == FIRST_PER_ZONE + 3 && far >= FIRST_PER_ZONE, "{to:?}");
    assert!(!node.queue.has_far_news());
}
