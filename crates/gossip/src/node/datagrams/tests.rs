use bytes::Bytes;

use super::*;
use crate::api::{Command, Config, Input};
use crate::id::{NodeId, name_hash};
use crate::register::{EntryId, Version};
use crate::time::Hlc;
use crate::wire::label_hash;

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
fn a_tick_tells_heartbeats_to_one_member_of_the_own_zone_unless_all_are_told_anyway() {
    let (beat, news) = (EntryId::new("i", HEARTBEAT_FACET), EntryId::new("e", 0));
    for (are_many, hear_beats) in [(true, 1), (false, 3)] {
        let mut node = in_two_zones(0);
        for number in 4..=6 {
            node.peers.update(
                NodeId::new(&format!("m{number}"), 1, addr(number)),
                Some("b".into()),
                are_many,
            );
        }
        let write = |node: &mut Node, ms: u64, entries: &[&EntryId]| {
            let change = |entry: &&EntryId| (EntryId::clone(entry), Some(Bytes::from(ms.to_string())));
            let changes = entries.iter().map(change).collect();
            let command = Command::Upsert { key: "ring".into(), changes };
            node.handle(at(ms), Input::Command(command), &mut Vec::new());
        };
        write(&mut node, 5_000, &[&beat]);
        for ms in (5_010..8_000).step_by(10) {
            node.handle(at(ms), Input::Tick, &mut Vec::new());
        }
        assert!(node.queue.is_empty());

        // Both in one datagram, and what else is told is the news.
        write(&mut node, 8_000, &[&beat, &news]);
        let mut out = Vec::new();
        node.handle(at(8_200), Input::Tick, &mut out);
        let far = if are_many { FIRST_PER_ZONE } else { 0 };
        assert_eq!((told(&out, &beat).len(), told(&out, &news).len()), (hear_beats + far, 3 + far));
    }
}

#[test]
fn heartbeats_that_fit_no_datagram_go_to_the_next_member_at_the_same_tick() {
    let mut node = in_two_zones(0);
    for number in 4..=6 {
        node.peers.update(NodeId::new(&format!("m{number}"), 1, addr(number)), Some("b".into()), false);
    }
    node.config.gossip_nodes = 2;
    let beats: Vec<EntryId> =
        (10..70).map(|number| EntryId::new(format!("i{number}"), HEARTBEAT_FACET)).collect();
    let write = |node: &mut Node, ms: u64| {
        let body = Some(Bytes::from(ms.to_string()));
        let changes = beats.iter().map(|beat| (beat.clone(), body.clone())).collect();
        node.handle(at(ms), Input::Command(Command::Upsert { key: "ring".into(), changes }), &mut Vec::new());
    };
    write(&mut node, 5_000);
    tell_all(&mut node, 5_010, 10_000);
    write(&mut node, 10_000);
    let mut out = Vec::new();
    node.handle(at(10_200), Input::Tick, &mut out);
    let times: Vec<usize> = beats.iter().map(|beat| told(&out, beat).len()).collect();
    assert!(times.iter().all(|times| *times > 0) && times.contains(&1), "{times:?}");
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
fn no_heartbeats_ride_with_answers_to_another_zone() {
    let mut node = in_two_zones(50);
    write_parts(&mut node, 5_000, &[0, 1, 2]);
    tell_all(&mut node, 5_010, 8_000);
    write_parts(&mut node, 8_000, &[2]);
    let mut out = Vec::new();
    node.send_swim(at(8_005), addr(4), b"answer", &mut out);
    assert!(told(&out, &part(2)).is_empty());
    node.send_swim(at(8_005), addr(1), b"answer", &mut out);
    assert_eq!(told(&out, &part(2)), [addr(1)]);
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

fn part(facet: u8) -> EntryId {
    EntryId::new("i", facet)
}

/// Writes these parts of an entry at once.
fn write_parts(node: &mut Node, ms: u64, facets: &[u8]) {
    let body = Some(Bytes::from(ms.to_string()));
    let changes = facets.iter().map(|facet| (part(*facet), body.clone())).collect();
    node.handle(at(ms), Input::Command(Command::Upsert { key: "ring".into(), changes }), &mut Vec::new());
}

/// A datagram with these parts of an entry, which another member has written, comes in.
fn hear_parts(node: &mut Node, ms: u64, facets: &[u8]) {
    let version = Version { epoch: 0, hlc: Hlc::from_ms(at(ms).wall_ms) };
    let body = ms.to_string();
    let mut writer = DatagramWriter::new(1400, Header::new(label_hash(""), 77));
    for &facet in facets {
        let (author, body) = (name_hash("m1"), Some(body.as_bytes()));
        let record = Record { key: "ring", id: "i", facet, version, author, age_ms: Some(0), body };
        assert!(writer.try_push_record(&record));
    }
    let bytes = writer.finish();
    node.handle(at(ms), Input::Datagram { from: addr(1), bytes: &bytes }, &mut Vec::new());
}

/// How many of the own zone are told of each part when it is looked what is due.
fn told_near(node: &mut Node, ms: u64) -> [usize; 3] {
    let mut out = Vec::new();
    node.handle(at(ms), Input::Tick, &mut out);
    [0, 1, 2].map(|facet| told(&out, &part(facet)).iter().filter(|to| !is_far(to)).count())
}

/// Lets everything be told until then.
fn tell_all(node: &mut Node, from_ms: u64, until_ms: u64) {
    for ms in (from_ms..until_ms).step_by(10) {
        node.handle(at(ms), Input::Tick, &mut Vec::new());
    }
    assert!(node.queue.is_empty());
}

#[test]
fn an_entry_is_told_as_a_whole_at_once_and_mere_heartbeats_wait_for_the_tick() {
    for gives in [write_parts, hear_parts] {
        let mut node = in_two_zones(50);
        gives(&mut node, 5_000, &[0, 1, 2]);
        assert_eq!(told_near(&mut node, 5_010), [3, 3, 3], "a new entry");
        tell_all(&mut node, 5_020, 8_000);

        gives(&mut node, 8_000, &[2]);
        assert_eq!(told_near(&mut node, 8_010), [0, 0, 0], "it only lives on");
        tell_all(&mut node, 8_020, 11_000);

        gives(&mut node, 11_000, &[0, 2]);
        assert_eq!(told_near(&mut node, 11_010), [3, 0, 3], "another state, and when that was");
    }
}

#[test]
fn the_part_that_an_entry_still_lacked_is_told_at_once() {
    for gives in [write_parts, hear_parts] {
        let mut node = in_two_zones(50);
        gives(&mut node, 5_000, &[0, 1]);
        tell_all(&mut node, 5_010, 8_000);
        gives(&mut node, 8_000, &[2]);
        assert_eq!(told_near(&mut node, 8_010), [0, 0, 3]);
    }
}
