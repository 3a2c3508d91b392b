//! Who is taken for the cluster by those who join, and what becomes of them if nobody is there.

use super::*;

/// The name of a service, say.
fn alias() -> SocketAddr {
    SocketAddr::from(([10, 1, 0, 1], 7946))
}

/// Takes the only session that there may be with a member, for as long as it lets it go on.
fn occupy(net: &mut Net, number: u8) {
    let hello = Frame::Hello {
        version: VERSION,
        label: SmolStr::default(),
        node: NodeId::new("m9", 1, addr(9)),
        name: "m9".into(),
        build: SmolStr::default(),
        settled: true,
    };
    let request = Frame::SyncRequest { join: false, member_hash: 0, roots: Vec::new() };
    let said = [&[MAGIC][..], &hello.encode().unwrap()[..], &request.encode().unwrap()[..]].concat();
    net.give(number, Given::Opened(StreamId(1_000_000), addr(9)));
    net.give(number, Given::Data(StreamId(1_000_000), said.into()));
}

#[test]
fn nobody_joins_by_way_of_somebody_who_has_not_joined() {
    let mut net = Net::default();
    net.start(Config { inbound_sessions: 1, ..config(1) });
    net.join(1);
    net.upsert(1, vec![(place(0), value("a"))]);
    occupy(&mut net, 1);
    net.start(config(2));
    net.join(2);
    net.start(config(3));
    net.give(3, Given::Seeds(vec![addr(1), addr(2)]));
    net.run(secs(10));
    assert!(net.refused(1, "too_many_sessions"));
    for number in [2, 3] {
        let status = net.node(number).status();
        assert_eq!((status.phase, status.synced), (Phase::Joining, false), "at {number}");
    }
    assert_eq!(net.node(3).status().members, 2, "what they have is exchanged nevertheless");

    net.run(secs(150));
    for number in [2, 3] {
        assert!(net.node(number).status().synced, "at {number}");
        assert_eq!(net.body(number, &place(0)), live("a"), "at {number}");
    }
}

#[test]
fn members_that_start_together_begin_a_cluster_although_none_has_joined() {
    for dead in [vec![], vec![addr(8), addr(9)]] {
        let mut net = Net::default();
        for number in 1..=6 {
            net.start(config(number));
        }
        // None is its own seed only.
        let seeds = [vec![addr(1), addr(2), addr(3), addr(4)], dead].concat();
        for number in 1..=6 {
            net.give(number, Given::Seeds(seeds.clone()));
        }
        net.run(secs(10));
        for number in 1..=6 {
            let status = net.node(number).status();
            let stands = (status.phase, status.synced, status.members);
            assert_eq!(stands, (Phase::Active, true, 6), "at {number}");
        }
    }
}

#[test]
fn a_service_that_leads_to_the_member_itself_may_lead_to_others() {
    let mut net = Net::default();
    net.start(config(2));
    net.give(2, Given::Seeds(Vec::new()));
    net.aliases.insert(alias(), addr(1));
    net.start(config(1));
    net.give(1, Given::Seeds(vec![alias()]));
    assert!(!net.node(1).is_settled());
    net.aliases.insert(alias(), addr(2));
    net.run(secs(5));
    let status = net.node(1).status();
    assert_eq!((status.phase, status.synced, status.members), (Phase::Active, true, 2));
}

#[test]
fn who_founded_a_cluster_behind_a_service_asks_there_again() {
    let mut net = Net::default();
    net.start(config(2));
    net.give(2, Given::Seeds(Vec::new()));
    net.aliases.insert(alias(), addr(1));
    net.start(config(1));
    net.give(1, Given::Seeds(vec![alias()]));
    net.run(secs(10));
    let status = net.node(1).status();
    assert_eq!((status.phase, status.synced, status.members), (Phase::Active, true, 1));
    net.upsert(1, vec![(place(0), value("a"))]);

    net.run(secs(100));
    assert_eq!(net.node(1).status().phase, Phase::Active);
    net.aliases.insert(alias(), addr(2));
    net.run(secs(70));
    assert_eq!([1, 2].map(|number| net.node(number).status().members), [2, 2]);
    assert_eq!(net.node(1).seeds(), [(alias(), None)]);
    assert_eq!(net.body(2, &place(0)), live("a"));
}

#[test]
fn who_is_found_by_others_joins_them_although_its_seeds_are_dead() {
    for seeds in [None, Some(vec![addr(9)])] {
        let mut net = Net::cluster(2);
        net.upsert(1, vec![(place(0), value("a"))]);
        net.start(config(3));
        if let Some(seeds) = seeds.clone() {
            net.give(3, Given::Seeds(seeds));
        }
        net.run(secs(5));
        assert!(!net.node(3).is_settled());
        net.give(1, Given::Seeds(vec![addr(3)]));
        net.run(secs(200));
        let status = net.node(3).status();
        assert_eq!((status.settled, status.members), (true, 3), "{seeds:?}");
        assert_eq!(net.body(3, &place(0)), live("a"));
    }
}

#[test]
fn who_finds_nobody_for_a_second_session_settles_on_the_first() {
    let mut net = Net::cluster_of(11, |config| {
        let inbound_sessions = if config.name == "m1" { config.inbound_sessions } else { 0 };
        Config { inbound_sessions, ..config }
    });
    net.start(config(12));
    net.join(12);
    assert!(!net.node(12).is_settled());
    net.run(secs(10));
    assert!(net.node(12).is_settled());
    assert!(net.refused(12, "no_second"));
}

#[test]
fn seeds_are_compared_with_again_if_they_are_to_be() {
    let [never, often] = [0, 50].map(|interval| {
        let mut net = Net::cluster_of(2, |config| Config { rejoin_interval: secs(interval), ..config });
        let before = net.next_stream;
        net.run(secs(300));
        net.next_stream - before
    });
    assert!(often >= never + 8, "{often} instead of {never}");
}
