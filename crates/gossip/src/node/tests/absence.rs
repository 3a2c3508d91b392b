//! What becomes of what a member knows, and of what is known of it, while it is away.

use super::*;
use crate::store::Limits;
use crate::swim;

/// Tombstones are forgotten after so many seconds.
const HORIZON_SECS: u64 = 640;

fn forgetful(config: Config) -> Config {
    let limits = Limits { tombstone_horizon: secs(HORIZON_SECS), ..config.limits };
    Config { limits, ..config }
}

#[test]
fn what_one_side_removed_and_forgot_does_not_come_back_from_the_other() {
    let mut net = Net::cluster_of(4, forgetful);
    // By one of each side.
    net.upsert(1, vec![(place(0), value("a")), (place(1), value("b"))]);
    net.upsert(3, vec![(place(2), value("c")), (place(3), value("d"))]);
    net.run(secs(5));
    net.apart.extend([addr(3), addr(4)]);
    net.upsert(1, vec![(place(0), None), (place(2), None)]);
    net.upsert(4, vec![(place(4), value("new"))]);
    net.run(secs(HORIZON_SECS + 160));
    for removed in [place(0), place(2)] {
        let held = [1, 2, 3, 4].map(|number| net.body(number, &removed).is_some());
        assert_eq!(held, [false, false, true, true]);
    }

    net.apart.clear();
    net.run(secs(300));
    for number in 1..=4 {
        assert_eq!(net.node(number).status().members, 4, "at {number}");
        let bodies = [0, 1, 2, 3, 4].map(|number_of_place| net.body(number, &place(number_of_place)));
        assert_eq!(bodies, [None, live("b"), None, live("d"), live("new")], "at {number}");
    }
}

#[test]
fn who_was_cut_off_for_long_brings_nothing_back_and_loses_nothing() {
    let mut net = Net::cluster_of(4, forgetful);
    // Of somebody who dies, so that nobody writes it again.
    net.upsert(4, vec![(place(0), value("of the dead"))]);
    net.upsert(1, vec![(place(1), value("removed"))]);
    net.upsert(3, vec![(place(2), value("own")), (place(3), value("own, and removed"))]);
    net.run(secs(5));
    net.nodes.remove(&addr(4));
    net.run(secs(60));
    net.apart.insert(addr(3));
    net.upsert(1, vec![(place(1), None), (place(3), None)]);
    net.run(secs(2 * HORIZON_SECS));
    assert_eq!(net.body(3, &place(1)), live("removed"));

    net.events.clear();
    net.apart.clear();
    net.run(secs(200));
    for number in 1..=3 {
        let status = net.node(number).status();
        assert_eq!((status.phase, status.settled, status.members), (Phase::Active, true, 3), "at {number}");
        let bodies = [0, 1, 2, 3].map(|number_of_place| net.body(number, &place(number_of_place)));
        assert_eq!(bodies, [live("of the dead"), None, live("own"), None], "at {number}");
    }
    let touched = net.events.iter().any(|(_, event)| {
        let Event::Changed { key, entries } = event else { return false };
        key == "ring" && (entries.is_empty() || entries.contains(&place(0)))
    });
    assert!(!touched, "what nobody removed is there all the time");
}

#[test]
fn members_that_lost_each_other_do_not_lose_what_they_have() {
    let mut net = Net::cluster_of(3, forgetful);
    net.upsert(3, vec![(place(0), value("of the dead"))]);
    net.upsert(1, vec![(place(1), value("of one"))]);
    net.upsert(2, vec![(place(2), value("of the other"))]);
    net.run(secs(5));
    net.nodes.remove(&addr(3));
    net.run(secs(60));
    net.apart.insert(addr(2));
    net.run(secs(2 * HORIZON_SECS));
    net.apart.clear();
    net.run(secs(200));
    for number in 1..=2 {
        let bodies = [0, 1, 2].map(|number_of_place| net.body(number, &place(number_of_place)));
        assert_eq!(bodies, [live("of the dead"), live("of one"), live("of the other")], "at {number}");
    }
}

#[test]
fn what_nobody_touches_is_written_once_and_stays() {
    let mut net = Net::cluster_of(3, forgetful);
    net.upsert(1, vec![(place(0), value("a"))]);
    net.upsert(3, vec![(place(1), value("of the dead"))]);
    net.run(secs(5));
    net.nodes.remove(&addr(3));
    net.events.clear();
    net.run(secs(5 * HORIZON_SECS));
    assert!(
        net.events.iter().all(|(_, event)| !matches!(event, Event::Changed { key, .. } if key == "ring"))
    );
    // Also with those who come later.
    net.nodes.remove(&addr(2));
    for number in [2, 5] {
        net.start(forgetful(Config { generation: START_MS + 3_600_000, ..config(number) }));
        net.join(number);
        net.run(secs(30));
    }
    for number in [1, 2, 5] {
        let bodies = [0, 1].map(|number_of_place| net.body(number, &place(number_of_place)));
        assert_eq!(bodies, [live("a"), live("of the dead")], "at {number}");
    }
}

#[test]
fn who_began_a_cluster_of_its_own_removes_nothing_from_the_one_it_finds() {
    let mut net = Net::cluster_of(3, forgetful);
    net.upsert(2, vec![(place(0), value("of the dead"))]);
    net.run(secs(5));
    net.nodes.remove(&addr(2));
    // The first time it looked, it found nobody else.
    net.start(forgetful(config(5)));
    net.give(5, Given::Seeds(Vec::new()));
    net.upsert(5, vec![(place(1), value("of another cluster"))]);
    assert!(net.node(5).is_settled());
    net.run(secs(3 * HORIZON_SECS));
    net.give(5, Given::Seeds(vec![addr(1)]));
    net.run(secs(120));
    for number in [1, 3, 5] {
        assert_eq!(net.node(number).status().members, 3, "at {number}");
        let bodies = [0, 1].map(|number_of_place| net.body(number, &place(number_of_place)));
        assert_eq!(bodies, [live("of the dead"), live("of another cluster")], "at {number}");
    }
}

#[test]
fn who_joins_learns_what_was_removed_before() {
    let mut net = Net::cluster_of(3, forgetful);
    net.upsert(3, vec![(place(0), value("a")), (place(1), value("b"))]);
    net.run(secs(5));
    net.apart.insert(addr(3));
    net.upsert(1, vec![(place(0), None)]);
    net.run(secs(HORIZON_SECS + 160));
    net.start(forgetful(config(4)));
    net.join(4);
    net.run(secs(5));
    // Nobody is left who saw it happen.
    net.nodes.remove(&addr(1));
    net.nodes.remove(&addr(2));
    net.run(secs(60));
    net.apart.clear();
    net.give(3, Given::Seeds(vec![addr(4)]));
    net.run(secs(200));
    for number in [3, 4] {
        assert_eq!(
            [0, 1].map(|number_of_place| net.body(number, &place(number_of_place))),
            [None, live("b")]
        );
    }
}

#[test]
fn what_was_removed_while_nobody_heard_of_it_does_not_wait_for_ever() {
    let mut net = Net::cluster_of(2, forgetful);
    net.upsert(1, vec![(place(0), value("a"))]);
    net.run(secs(5));
    net.apart.insert(addr(2));
    net.run(secs(60));
    net.upsert(1, vec![(place(0), None)]);
    assert!(net.node(1).queue.get("ring", &place(0)).is_some());
    net.run(secs(HORIZON_SECS + 160));
    assert_eq!(net.node(1).queue.get("ring", &place(0)), None);
    net.apart.clear();
    net.run(secs(200));
    assert_eq!([1, 2].map(|number| net.body(number, &place(0))), [None, None]);
}

#[test]
fn what_a_member_that_crashed_said_about_itself_is_removed_after_a_while() {
    let brief = swim::Config { remove_down_after: secs(60), ..swim::Config::default() };
    let mut net =
        Net::cluster_of(3, |config| Config { forget_members_after: secs(60), swim: brief.clone(), ..config });
    let is_removed = |net: &Net, number| {
        let slot = net.node(number).store().get(MEMBERS_KEY, &EntryId::new("m3", 0));
        slot.map(|slot| slot.register().is_tombstone())
    };
    net.nodes.remove(&addr(3));
    net.run(secs(60));
    assert_eq!([1, 2].map(|number| is_removed(&net, number)), [Some(false); 2]);
    net.run(secs(1_200));
    assert_eq!([1, 2].map(|number| is_removed(&net, number)), [Some(true); 2]);
    assert_eq!(net.node(1).name_of(name_hash("m3")), Some("m3".into()), "what it wrote may still be there");

    net.start(Config { generation: START_MS + 1_500_000, ..config(3) });
    net.join(3);
    net.run(secs(10));
    assert_eq!([1, 2, 3].map(|number| is_removed(&net, number)), [Some(false); 3]);
}
