//! Leaving, with and without somebody who hears it.

use super::*;

#[test]
fn leaving_takes_no_time_if_all_goes_well() {
    let mut net = Net::cluster(3);
    net.upsert(3, vec![(place(0), value("last words"))]);
    net.give(3, Given::Command(Command::Leave));
    net.run(secs(1));
    assert!(net.has(3, &Event::Phase(Phase::Left)));
    for number in [1, 2] {
        assert_eq!(net.body(number, &place(0)), live("last words"));
        let said = net.node(number).store().get(MEMBERS_KEY, &EntryId::new("m3", 0));
        assert!(said.unwrap().register().is_tombstone());
    }
}

#[test]
fn who_leaves_sees_to_it_that_somebody_has_its_last_words() {
    let mut net = Net::cluster(3);
    net.deaf.insert(addr(3));
    net.upsert(3, vec![(place(0), value("last words"))]);
    net.give(3, Given::Command(Command::Leave));
    net.run(secs(5));
    assert!(net.has(3, &Event::Phase(Phase::Left)));
    assert!((1..=2).any(|number| net.body(number, &place(0)) == live("last words")));
}

#[test]
fn an_answer_that_tells_of_something_else_is_none() {
    let mut net = Net::cluster(2);
    // Nobody is there any more, but that is not known yet.
    net.nodes.remove(&addr(2));
    net.upsert(1, vec![(place(0), value("last words"))]);
    net.give(1, Given::Command(Command::Leave));
    net.run(secs(2));
    let answer = |net: &mut Net, root| {
        let mut writer = DatagramWriter::new(1400, Header::new(label_hash(""), 77));
        assert!(writer.try_push_digest(0, &[(ANSWER_KEY.into(), root)]));
        net.give(1, Given::Datagram(addr(2), writer.finish()));
    };
    let root = net.node(1).store().root();
    answer(&mut net, root ^ 1);
    net.run(secs(1));
    assert_eq!(net.node(1).status().phase, Phase::Leaving);
    assert!(!net.node(1).leave.as_ref().is_some_and(Leave::is_told));
    answer(&mut net, root);
    assert!(net.node(1).leave.as_ref().is_some_and(Leave::is_told));
}

#[test]
fn who_leaves_waits_for_nobody_for_long() {
    let mut net = Net::cluster(2);
    net.nodes.remove(&addr(2));
    net.upsert(1, vec![(place(0), value("last words"))]);
    net.give(1, Given::Command(Command::Leave));
    net.run(secs(5));
    assert_eq!(net.node(1).status().phase, Phase::Leaving);
    net.run(secs(20));
    assert_eq!(net.node(1).status().phase, Phase::Left);
}

#[test]
fn who_is_alone_leaves_at_once() {
    let mut net = Net::cluster(1);
    net.give(1, Given::Command(Command::Leave));
    assert_eq!(net.node(1).status().phase, Phase::Left);
}
