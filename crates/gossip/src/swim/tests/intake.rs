//! What others tell of members, in messages and sessions, and what becomes of it.

use super::*;
use crate::swim::config::MAX_PACKET_BYTES;

/// Nobody probes.
fn calm() -> Config {
    Config { probe_period: secs(100_000), ..Config::default() }
}

fn told(number: u8, incarnation: u16, state: State) -> MemberState {
    MemberState { id: id(number), incarnation, state }
}

fn stranger(name: &str) -> NodeId {
    NodeId::new(name, 1, addr(200))
}

fn apply(net: &mut Net, members: &[MemberState]) {
    net.act(1, |swim, now, out| swim.apply(now, members.iter().copied(), out));
}

/// What member 2 tells member 1 by a datagram.
fn gossip(net: &mut Net, told: &[MemberState]) -> Result<(), SwimError> {
    let updates: Vec<_> = told.iter().copied().map(Member::from).collect();
    let message = net.message(2, 1, Message::Gossip, &updates);
    net.hand(1, &message)
}

fn counts(net: &Net) -> Counts {
    net.node(1).counts()
}

/// Without a deadline of its own, who did not hear of a death in time would believe in it when its own turn to probe comes.
#[test]
fn f4_a_death_that_another_one_tells_is_believed_without_a_probe() {
    let mut net = Net::cluster_with(&calm(), 3, 4);
    net.dead.insert(addr(3));
    for _ in 0..3 {
        apply(&mut net, &[told(3, 0, State::Down)]);
        net.run(secs(1));
        assert_eq!(net.state(1, 3), Some(State::Suspect));
    }
    net.run(millis(900));
    assert_eq!(net.state(1, 3), Some(State::Suspect));
    net.run(secs(1));
    assert!((1..=2).all(|number| net.state(number, 3) == Some(State::Down)), "as told");
    assert_eq!(counts(&net), Counts::default(), "told thrice, it had one deadline");

    let mut updates = Vec::new();
    let mut pings = net.log.iter().map(|(_, _, bytes)| read_message(bytes, &mut updates).unwrap().0.message);
    assert!(!pings.any(|message| matches!(message, Message::Ping(_))));
}

#[test]
fn f4_a_death_that_is_told_ends_a_suspicion_of_before() {
    let mut net = Net::cluster_with(&calm(), 3, 4);
    net.dead.insert(addr(3));
    gossip(&mut net, &[told(3, 0, State::Suspect)]).unwrap();
    net.run(secs(60));
    assert_eq!(net.state(1, 3), Some(State::Suspect), "it is for others to say whether it answered");
    apply(&mut net, &[told(3, 0, State::Down)]);
    net.run(secs(5));
    assert_eq!(net.state(1, 3), Some(State::Down));
}

/// Who leaves tells of its death as if it had never been suspected. That of others may be told for as long as they live on.
#[test]
fn f4_a_death_of_before_the_last_answer_is_heeded_once_in_a_while() {
    let mut net = Net::cluster_with(&calm(), 3, 4);
    gossip(&mut net, &[told(3, 1, State::Alive)]).unwrap();
    net.dead.insert(addr(3));
    apply(&mut net, &[told(3, 0, State::Down)]);
    net.run(secs(5));
    assert_eq!(net.state(1, 3), Some(State::Down));

    let mut net = Net::cluster(3, 4);
    for _ in 0..10 {
        apply(&mut net, &[told(3, 0, State::Down)]);
        net.run(secs(5));
    }
    assert_eq!(net.state(1, 3), Some(State::Alive));
    assert_eq!(net.node(3).export().next(), Some(told(3, 1, State::Alive)), "suspected once");
    assert_eq!((net.deaths(), net.rejoins()), (0, 0));
}

/// Otherwise each member would have to hear of it in a session of its own.
#[test]
fn f4_what_is_new_of_a_known_member_is_told_on() {
    let mut net = Net::cluster_with(&calm(), 3, 4);
    let later = MemberState { id: NodeId { generation: START_MS + 1, ..id(3) }, ..told(3, 0, State::Alive) };
    net.dead.insert(addr(3));
    apply(&mut net, &[later]);
    net.run(secs(1));
    assert!(net.node(2).members().any(|member| member == later.id));
}

/// Told on, every list of a large cluster that somebody gets at its start would be in all its messages for minutes.
#[test]
fn what_is_new_only_to_a_joiner_is_not_told_on() {
    let mut net = Net::cluster_with(&calm(), 30, 4);
    net.start(id(31), calm());
    let known: Vec<_> = net.node(1).export().collect();
    net.act(31, |swim, now, out| swim.apply(now, known, out));
    assert_eq!((net.node(31).num_members(), net.node(31).foca.updates_backlog()), (30, 0));

    let known: Vec<_> = net.node(31).export().collect();
    apply(&mut net, &known);
    assert_eq!((net.node(1).num_members(), net.node(1).foca.updates_backlog()), (30, 1));
    let digest = net.node(1).digest();
    let happened = net.events.len();
    apply(&mut net, &known);
    assert_eq!((net.events.len(), net.node(1).digest()), (happened, digest), "all of it is known");
    assert_eq!(digest, net.node(31).digest());
}

#[test]
fn nothing_is_dropped_as_known_that_foca_would_take() {
    let now = Now { mono: Duration::ZERO, wall_ms: START_MS };
    let mut all = Vec::new();
    for generation in START_MS..START_MS + 2 {
        for incarnation in 0..2 {
            for state in [State::Alive, State::Suspect, State::Down] {
                all.push(MemberState { id: NodeId { generation, ..id(2) }, incarnation, state });
            }
        }
    }
    for (known, told) in all.iter().flat_map(|known| all.iter().map(move |told| (*known, *told))) {
        let mut swim = Swim::new(Config::default(), id(1), 1, now);
        let apply = |swim: &mut Swim, member: MemberState| {
            swim.roster.touch(member.id.name);
            swim.foca.apply_many(iter::once(member.into()), false, &mut swim.effects).unwrap();
            swim.settle(now, &mut SwimOut::default());
            swim.export().nth(1)
        };
        assert_eq!(apply(&mut swim, known), Some(known));
        let is_news = swim.roster.is_news(&told);
        let changed = apply(&mut swim, told) != Some(known);
        assert_eq!(is_news, changed, "{known:?}, {told:?}");
    }
}

/// Otherwise the dead of an hour would keep out those who live.
#[test]
fn the_oldest_dead_make_room_for_who_lives() {
    let mut net = Net::cluster_with(&Config { max_members: 4, ..calm() }, 3, 17);
    let names = ["a", "b", "c", "d", "e"];
    let [a, b, c, d, e] = names.map(|name| MemberState { id: stranger(name), ..told(1, 0, State::Alive) });
    for member in [a, b] {
        gossip(&mut net, &[member]).unwrap();
        gossip(&mut net, &[MemberState { state: State::Down, ..member }]).unwrap();
    }
    let known = |net: &Net| {
        let known = [a, b, c, d, e].into_iter().filter(|member| net.node(1).knows(member.id.name));
        known.map(|member| member.id).collect::<Vec<_>>()
    };
    gossip(&mut net, &[MemberState { state: State::Down, ..c }]).unwrap();
    assert_eq!((known(&net), counts(&net).refused_members), (vec![a.id, b.id], 1), "not for a dead one");
    apply(&mut net, &[c]);
    assert_eq!(known(&net), [b.id, c.id], "in a session");
    gossip(&mut net, &[d]).unwrap();
    assert_eq!(known(&net), [c.id, d.id], "in a datagram");
    apply(&mut net, &[e]);
    assert_eq!((known(&net), counts(&net).refused_members), (vec![c.id, d.id], 2), "all live");
    assert_eq!((net.node(1).num_members(), counts(&net).engine_errors), (4, 0));
}

/// Otherwise members with a larger `packet_size` would not be heard as soon as they have much to tell.
#[test]
fn messages_longer_than_ours_are_taken_in() {
    let mut net = Net::cluster_with(&calm(), 2, 18);
    let strangers: Vec<_> =
        (0..150).map(|number| Member::new(stranger(&format!("m-{number}")), 0, State::Alive)).collect();
    let message = net.message(2, 1, Message::Ping(7), &strangers);
    assert!(message.len() > 2 * Config::default().max_packet_bytes);
    net.hand(1, &message).unwrap();
    assert_eq!(net.node(1).num_members(), 151);
    let (_, to, answer) = net.log.last().unwrap();
    assert_eq!((*to, answer.first()), (addr(2), net.message(1, 2, Message::Ack(7), &[]).first()));

    let longest = net.hand(1, &[0; MAX_PACKET_BYTES]);
    assert!(matches!(longest, Err(SwimError::Malformed(_))));
    let longer = net.hand(1, &[0; MAX_PACKET_BYTES + 1]);
    assert!(matches!(longer, Err(SwimError::TooLong { .. })));
}

/// One message with the last generation there is would be the end of whoever it names: no life comes after that.
#[test]
fn f7_lives_that_cannot_have_begun_are_not_heeded() {
    let mut net = Net::cluster_with(&calm(), 3, 7);
    let days = |days: u64| START_MS + days * 24 * 60 * 60 * 1000;
    let before: Vec<_> = net.node(1).export().collect();
    let mut refused = 0;
    for generation in [u64::MAX, u64::MAX - 1, days(400)] {
        for number in [1, 2, 99] {
            let id = NodeId { generation, addr: addr(9), ..id(number) };
            let far = MemberState { id, incarnation: 0, state: State::Alive };
            gossip(&mut net, &[far]).unwrap();
            apply(&mut net, &[far, MemberState { state: State::Down, ..far }]);
            let header = Header { src: id, src_incarnation: 0, dst: before[0].id, message: Message::Gossip };
            let spoke = net.hand(1, &write_message(&header, None).unwrap());
            assert!(matches!(spoke, Err(SwimError::FarAhead)));
            refused += 4;
        }
    }
    assert_eq!(net.node(1).export().collect::<Vec<_>>(), before);
    assert_eq!((counts(&net).refused_lives, net.rejoins()), (refused, 0));

    // A clock may well be ahead by some days.
    let ahead = NodeId { generation: days(300), ..id(2) };
    gossip(&mut net, &[MemberState { id: ahead, incarnation: 0, state: State::Alive }]).unwrap();
    assert!(net.node(1).members().any(|member| member == ahead));
}

/// One's own past is beyond one once, or twice. Who is there all the time has the same name and address.
#[test]
fn f7_the_third_later_life_within_a_minute_is_too_many_wherever_it_is() {
    for (at, state) in [(1, State::Alive), (1, State::Down), (9, State::Alive), (9, State::Down)] {
        let mut net = Net::cluster_with(&calm(), 3, 7);
        for turn in 1..=3 {
            let me = net.node(1).id();
            let later = NodeId { generation: me.generation + 1_000, addr: addr(at), ..me };
            gossip(&mut net, &[MemberState { id: later, incarnation: 0, state }]).unwrap();
            let conflict = SwimEvent::NameConflict { addr: addr(at) };
            let gave_up = net.count(|event| *event == conflict) > 0;
            assert_eq!((gave_up, net.node(1).id() > later), (turn == 3, turn < 3), "{at} {state:?}");
        }
    }
}

/// Whose suspicion nobody passes on, because it was alone when it had it, tells the suspect itself as soon as that is heard.
#[test]
fn a_suspect_that_is_heard_is_told_so_and_refutes_at_once() {
    let mut net = Net::cluster_with(&calm(), 2, 4);
    // Nothing gets through while the suspicion is told.
    net.dead.insert(addr(2));
    apply(&mut net, &[told(2, 0, State::Suspect)]);
    net.run(secs(3));
    net.dead.remove(&addr(2));
    net.run(millis(500));
    assert_eq!(net.state(1, 2), Some(State::Suspect), "it was told often enough");
    // Its suspect says something that has nothing to do with it.
    let message = net.message(2, 1, Message::Gossip, &[]);
    net.hand(1, &message).unwrap();
    net.run(millis(100));
    assert_eq!(net.state(1, 2), Some(State::Alive));
}
