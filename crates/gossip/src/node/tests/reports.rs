//! What members tell of each other, and what they do about those who are not right.

use super::*;
use crate::store::HEARTBEAT_FACET;
use crate::swim::State;

fn heal(net: &mut Net, number: u8, key: &'static str, id: Option<&'static str>) {
    let command = Command::Heal { key: key.into(), id: id.map(SmolStr::new) };
    net.give(number, Given::Command(command));
    net.run(secs(1));
}

#[test]
fn members_are_known_by_what_they_said_and_how_they_answer() {
    let mut net = Net::cluster_of(3, |config| Config { zone: "z".into(), build: "1.2".into(), ..config });
    net.run(secs(10));
    let members = net.node(2).members();
    let names: Vec<SmolStr> = members.iter().map(|member| member.name.clone().unwrap()).collect();
    assert_eq!(names, ["m2", "m1", "m3"]);
    for (place, member) in members.iter().enumerate() {
        assert_eq!((member.zone.as_deref(), member.build.as_deref()), (Some("z"), Some("1.2")));
        assert_eq!((member.state, member.own), (State::Alive, place == 0));
        assert_eq!(member.rtt, (place > 0).then_some(Duration::ZERO), "there and back in no time");
    }
    assert_eq!(net.node(2).name_of(name_hash("m3")), Some("m3".into()));
    assert_eq!(net.node(2).name_of(name_hash("m4")), None);

    net.nodes.remove(&addr(3));
    net.run(secs(60));
    let members = net.node(2).members();
    let state = |name: &str| {
        let member = members.iter().find(|member| member.name.as_deref() == Some(name)).unwrap();
        (member.state, member.rtt.is_some())
    };
    assert_eq!([state("m1"), state("m3")], [(State::Alive, true), (State::Down, false)]);
}

#[test]
fn what_is_queued_and_who_are_the_seeds_can_be_seen() {
    let mut net = Net::cluster(2);
    net.upsert(2, vec![(place(0), value("a"))]);
    let stats = net.node(2).queue_stats();
    assert_eq!((stats.len, stats.own), (1, 1));
    assert!(stats.bytes > 0);
    assert_eq!(net.node(2).seeds(), [(addr(1), None)]);

    net.nodes.remove(&addr(1));
    net.run(secs(60));
    let lost = net.node(2).seeds();
    assert!(matches!(lost[..], [(seed, Some(since))] if seed == addr(1) && since <= net.now), "{lost:?}");
}

#[test]
fn rounds_of_asking_that_come_to_nothing_are_counted() {
    let mut net = Net::default();
    net.start(config(2));
    net.join(2);
    assert_eq!(net.node(2).status().join_attempts, 1);
    net.run(secs(10));
    let status = net.node(2).status();
    // At once, and after about 1, 2 and 4 s each.
    assert_eq!((status.phase, status.settled, status.join_attempts), (Phase::Joining, false, 4));
    net.start(config(1));
    net.join(1);
    net.run(secs(30));
    let status = net.node(2).status();
    assert_eq!((status.phase, status.settled, status.join_attempts), (Phase::Active, true, 0));
}

#[test]
fn other_labels_are_understood_if_they_are_to_be() {
    let labelled = |number, label: &'static str| Config { label: label.into(), ..config(number) };
    let accepting = |number, label, other: &'static str| Config {
        accepted_labels: vec![other.into()],
        ..labelled(number, label)
    };
    let careless = |number, label| Config { verify_label: false, ..labelled(number, label) };
    for [one, other] in
        [[accepting(1, "a", "b"), accepting(2, "b", "a")], [careless(1, "a"), careless(2, "b")]]
    {
        let mut net = Net::default();
        for (number, config) in [(1, one), (2, other)] {
            net.start(config);
            net.join(number);
            net.run(secs(2));
        }
        assert_eq!(net.node(1).status().members, 2);
        net.upsert(2, vec![(place(0), value("a"))]);
        net.run(Duration::from_millis(20));
        assert_eq!(net.body(1, &place(0)), live("a"));
        assert!(!net.refused(1, "label") && !net.refused(2, "label"));
    }
    let long = Config { accepted_labels: vec!["x".repeat(MAX_TEXT_BYTES + 1).into()], ..config(1) };
    assert!(Node::new(long, 1, Now::default()).is_err());
}

#[test]
fn of_two_members_with_one_name_one_fails_and_says_why() {
    let mut net = Net::cluster(3);
    net.start(Config { addr: addr(9), generation: START_MS + 1_000_000, ..config(1) });
    net.give(9, Given::Seeds(vec![addr(2)]));
    net.run(secs(60));
    let failed: Vec<u8> =
        [1, 9].into_iter().filter(|number| net.node(*number).status().phase == Phase::Failed).collect();
    let [loser] = failed[..] else { panic!("{failed:?} failed") };
    let winner = addr(10 - loser);
    let reason = net.events.iter().find_map(|(at, event)| match event {
        Event::Failed { reason } if *at == addr(loser) => Some(reason.clone()),
        _ => None,
    });
    let reason = reason.unwrap();
    assert!(reason.contains("`m1`") && reason.contains(&winner.to_string()), "{reason}");
    for number in [2, 3] {
        let name = name_hash("m1");
        let members = net.node(number).members();
        let member = members.iter().find(|member| member.id.name == name).unwrap();
        assert_eq!((member.id.addr, member.state), (winner, State::Alive));
    }
}

#[test]
fn a_clock_that_is_ahead_is_seen_by_the_heartbeats_of_the_others() {
    let mut net = Net::cluster(3);
    net.ahead.insert(addr(1), 5_000);
    let beats = |net: &mut Net, from: u8| {
        for count in from..from + 3 {
            for number in 1..=3 {
                let beat = EntryId::new(format!("i{number}"), HEARTBEAT_FACET);
                net.upsert(number, vec![(beat, Some(Bytes::from(vec![count])))]);
            }
            net.run(secs(1));
        }
    };
    let about_5_s = |ms: i64| (4_990..=5_010).contains(&ms);
    let offset = |net: &Net, of: &str| {
        let members = net.node(2).members();
        members.iter().find(|member| member.name.as_deref() == Some(of)).unwrap().clock_offset_ms
    };
    beats(&mut net, 0);
    assert!(matches!(net.node(1).clock_offset_ms(), Some((2, by)) if about_5_s(by)));
    assert_eq!(net.node(2).clock_offset_ms(), None);
    assert!(offset(&net, "m1").is_some_and(about_5_s));
    assert!(offset(&net, "m3").is_some_and(|ms| ms.abs() <= 10));

    // What another one writes in place of a heartbeat is none, nor is what overrules that.
    heal(&mut net, 2, "ring", Some("i3"));
    assert!(matches!(net.node(1).clock_offset_ms(), Some((2, by)) if about_5_s(by)));
    beats(&mut net, 10);
    assert!(matches!(net.node(1).clock_offset_ms(), Some((2, by)) if about_5_s(by)));

    net.nodes.remove(&addr(3));
    net.run(secs(60));
    assert!(matches!(net.node(1).clock_offset_ms(), Some((1, by)) if about_5_s(by)));
    assert_eq!(offset(&net, "m3"), None);
}

#[test]
fn who_writes_from_too_far_ahead_is_told_of() {
    let mut net = Net::cluster(2);
    net.ahead.insert(addr(1), 120_000);
    net.upsert(1, vec![(place(0), value("a"))]);
    net.run(Duration::from_millis(20));
    assert_eq!(net.body(2, &place(0)), None);
    assert!(net.refused(2, "clock_ahead"));
    let ahead = net.events.iter().find_map(|(at, event)| match event {
        Event::Quarantined { author, ahead } if *at == addr(2) && *author == name_hash("m1") => Some(*ahead),
        _ => None,
    });
    assert!((secs(119)..=secs(120)).contains(&ahead.unwrap()));
}

#[test]
fn what_a_clock_that_was_ahead_wrote_is_healed_and_stays_its_owners() {
    let mut net = Net::cluster(3);
    net.ahead.insert(addr(1), 30_000);
    net.upsert(1, vec![(place(0), value("a"))]);
    net.run(secs(1));
    net.ahead.clear();
    net.upsert(3, vec![(place(1), value("b"))]);
    net.run(secs(1));
    let stands = |net: &Net, entry: &EntryId, author: &str, epoch: u32, body: Option<Body>| {
        (1..=3).all(|number| {
            let register = net.node(number).store().get("ring", entry).unwrap().register();
            let is_of = (register.author, register.version.epoch) == (name_hash(author), epoch);
            is_of && Some(&register.body) == body.as_ref()
        })
    };
    assert!(stands(&net, &place(0), "m1", 0, live("a")));

    heal(&mut net, 2, "ring", None);
    assert!(stands(&net, &place(0), "m2", 1, live("a")));
    assert!(stands(&net, &place(1), "m3", 0, live("b")), "it was not ahead");
    let healed = net.node(3).store().get("ring", &place(0)).unwrap().register().version;
    assert!(healed.hlc.ms() <= net.now(addr(2)).wall_ms);

    // Its owner goes on as if nothing had been.
    net.upsert(1, vec![(place(0), value("c"))]);
    net.run(secs(1));
    assert!(stands(&net, &place(0), "m1", 1, live("c")));

    heal(&mut net, 2, "ring", Some("e1"));
    assert!(stands(&net, &place(1), "m2", 1, live("b")), "asked for by its id");
    net.upsert(3, vec![(place(1), None)]);
    net.run(secs(1));
    assert!(stands(&net, &place(1), "m3", 1, Some(Body::Tombstone)));
    heal(&mut net, 2, "ring", Some("e1"));
    assert!(stands(&net, &place(1), "m3", 1, Some(Body::Tombstone)), "what was removed stays removed");

    heal(&mut net, 2, MEMBERS_KEY, None);
    assert!(net.refused(2, "internal_key"));
}
