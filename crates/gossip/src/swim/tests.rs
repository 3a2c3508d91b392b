mod intake;
mod net;

use foca::Message;
use rand::RngExt as _;

use super::codec::read_message;
use super::effects::tells_death;
use super::*;
use net::{Net, START_MS, addr, id, millis, secs};

/// Without the look at the member before its suspicion ends, foca tells it at the deadline that it is dead: it rejoins.
#[test]
fn f1_a_suspicion_that_was_answered_ends_without_a_word() {
    let mut net = Net::cluster(2, 1);
    net.cut.extend([(addr(1), addr(2)), (addr(2), addr(1))]);
    assert!(net.run_until(secs(20), |net| net.state(1, 2) == Some(State::Suspect)));
    net.cut.clear();
    net.run(secs(60));

    assert_eq!(net.state(1, 2), Some(State::Alive));
    assert!(net.node(1).counts().ended_suspicions > 0);
    assert_eq!((net.deaths(), net.rejoins()), (0, 0));
}

/// With broadcasts of foca, what is given to it for that would be kept, and sent behind the members.
#[test]
fn f2_nothing_but_members_rides_in_messages() {
    let mut net = Net::cluster(30, 2);
    for number in 1..=30 {
        net.act(number, |swim, _, _| assert!(swim.foca.add_broadcast(b"a register").is_err()));
    }
    net.run(secs(10));
    assert!((1..=30).all(|number| net.node(number).foca.custom_broadcast_backlog() == 0));
    let mut updates = Vec::new();
    assert!(net.log.len() > 100);
    for (_, _, bytes) in &net.log {
        assert!(bytes.len() <= Config::default().max_packet_bytes);
        assert!(read_message(bytes, &mut updates).is_ok());
    }

    let before: Vec<_> = net.node(1).export().collect();
    let newcomer = [Member::new(id(99), 0, State::Alive)];
    let tail = [&net.message(2, 1, Message::Gossip, &newcomer)[..], &[0, 1, 7]].concat();
    assert!(matches!(net.hand(1, &tail), Err(SwimError::Malformed(BadMessage::Trailing(3)))));
    assert_eq!(net.node(1).export().collect::<Vec<_>>(), before);
}

/// Without streams, or without the made-up answer after them, members die as in the second turn.
#[test]
fn f3_streams_save_members_that_no_datagram_reaches() {
    for members in [2, 3] {
        for streams in [true, false] {
            let mut net = Net::cluster(members, 3);
            net.streams = streams;
            net.loss = 1.0;
            net.run(secs(120));
            assert_eq!(net.deaths() == 0, streams, "{members} members");
            assert!(net.count(|event| matches!(event, SwimEvent::ProbeOverStream { .. })) > 0);
            assert!(!streams || net.node(1).score() == 0);
        }
    }
}

/// Otherwise an answer from before would save a member that died since.
#[test]
fn f3_an_answer_counts_for_its_own_probe_only() {
    let mut net = Net::cluster(2, 3);
    net.loss = 1.0;
    let probe = |net: &Net| {
        net.events.iter().find_map(|(_, at, event)| match event {
            SwimEvent::ProbeOverStream { probe, .. } if *at == addr(1) => Some(*probe),
            _ => None,
        })
    };
    assert!(net.run_until(secs(5), |net| probe(net).is_some()));
    let old = probe(&net).unwrap();
    net.run(secs(2));
    net.act(1, |swim, now, out| swim.stream_probe_answered(now, old, 1, out));
    net.run(secs(1));
    assert_eq!(net.state(1, 2), Some(State::Suspect));
    assert_eq!(net.node(1).counts().engine_errors, 0);
}

/// Unless the target hears that it is suspected, and its answer tells that it did, suspicions end with its death.
#[test]
fn f3_an_answer_over_a_stream_ends_a_suspicion() {
    let mut net = Net::cluster(2, 3);
    net.loss = 1.0;
    assert!(net.run_until(secs(20), |net| net.state(1, 2) == Some(State::Suspect)));
    net.streams = true;
    net.run(secs(60));
    assert_eq!(net.state(1, 2), Some(State::Alive));
    assert_eq!((net.deaths(), net.rejoins()), (0, 0));
    assert!(net.node(1).counts().ended_suspicions > 0);
}

/// Taken as it is told, a death would be one at once, and the member, which lives, would have to begin a new life.
#[test]
fn f4_a_death_that_another_one_tells_is_only_a_suspicion() {
    let mut net = Net::cluster(3, 4);
    let told = MemberState { id: id(3), incarnation: 0, state: State::Down };
    net.act(1, |swim, now, out| swim.apply(now, [told], out));
    assert_eq!(net.state(1, 3), Some(State::Suspect));
    net.run(secs(30));
    assert_eq!(net.state(1, 3), Some(State::Alive));
    assert_eq!((net.deaths(), net.rejoins()), (0, 0));

    // Who is not known does not come to life by its death.
    let stranger = MemberState { id: id(99), ..told };
    net.act(1, |swim, now, out| swim.apply(now, [stranger], out));
    assert_eq!(net.state(1, 99), None);
}

/// Taken for a suspicion as well, one's own death would be answered, which who believes in it does not hear.
#[test]
fn f4_ones_own_death_begins_a_new_life() {
    let mut net = Net::cluster(3, 4);
    let told = MemberState { id: id(1), incarnation: 0, state: State::Down };
    net.act(1, |swim, now, out| swim.apply(now, [told], out));
    assert_eq!((net.node(1).id().generation, net.rejoins()), (START_MS + 1, 1));
    net.run(secs(10));
    for other in 2..=3 {
        assert!(net.node(other).members().any(|member| member == net.node(1).id()));
    }
    assert_eq!(net.rejoins(), 1);
}

#[test]
fn f4_a_session_makes_all_members_known_at_once() {
    let mut net = Net::cluster(30, 4);
    net.start(id(31), Config::default());
    let known: Vec<_> = net.node(1).export().collect();
    net.act(31, |swim, now, out| swim.apply(now, known, out));
    assert_eq!(net.node(31).num_members(), 30);
    assert_ne!(net.node(31).digest(), net.node(1).digest());
    net.run(secs(20));
    assert!((1..=31).all(|number| net.node(number).digest() == net.node(1).digest()));
}

#[test]
fn f4_two_halves_find_together_again() {
    let mut net = Net::cluster(6, 4);
    for (one, other) in (1..=3).flat_map(|one| (4..=6).map(move |other| (addr(one), addr(other)))) {
        net.cut.extend([(one, other), (other, one)]);
    }
    net.run(secs(120));
    assert!(net.deaths() > 0);
    net.cut.clear();
    net.run(secs(90));
    for number in 1..=6 {
        assert_eq!(net.node(number).num_members(), 5, "known to {number}");
        assert_eq!(net.node(number).digest(), net.node(1).digest());
    }
}

/// Without the bucket all 2,000 of a flood would be members; without the limit 400.
#[test]
fn f5_forged_members_come_in_slowly_and_only_so_many() {
    let config = Config { max_members: 300, ..Config::default() };
    let mut net = Net::cluster_with(&config, 2, 5);
    let forged = |number: u64| NodeId::new(&format!("forged-{number}"), 1, addr(200));
    let flood = |net: &mut Net, numbers: std::ops::Range<u64>| {
        let dst = net.node(1).id();
        let mut taken = 0;
        for number in numbers {
            let header = Header { src: forged(number), src_incarnation: 0, dst, message: Message::Gossip };
            taken += usize::from(net.hand(1, &write_message(&header, None).unwrap()).is_ok());
        }
        taken
    };
    assert_eq!(flood(&mut net, 0..2_000), 200);
    assert_eq!(net.node(1).num_members(), 201);
    net.pause(secs(1));
    assert_eq!(flood(&mut net, 2_000..4_000), 99);
    assert_eq!(net.node(1).num_members(), 300);

    // Who is known is heard, without the strangers it tells of.
    let strangers = [Member::new(forged(9_999), 0, State::Alive), Member::new(id(1), 0, State::Suspect)];
    let message = net.message(2, 1, Message::Gossip, &strangers);
    assert!(net.hand(1, &message).is_ok());
    assert_eq!(net.node(1).num_members(), 300);
    assert_eq!(net.node(1).score(), 1, "the suspicion was answered");
    assert_eq!(net.node(1).counts().refused_members, 1_800 + 1_901 + 1);
}

/// As above, for members that others tell of.
#[test]
fn f5_told_members_come_in_slowly() {
    let mut net = Net::cluster(2, 5);
    for batch in 0..50 {
        let told: Vec<_> = (0..20)
            .map(|number| NodeId::new(&format!("told-{batch}-{number}"), 1, addr(200)))
            .map(|id| Member::new(id, 0, State::Alive))
            .collect();
        let message = net.message(2, 1, Message::Gossip, &told);
        assert!(net.hand(1, &message).is_ok());
    }
    assert_eq!(net.node(1).num_members(), 201);
}

/// Without the score, the first of the others would be dead 8 s after the start: 4 s of probing, 4 s of suspicion.
#[test]
fn f6_who_hears_nothing_accuses_late() {
    let mut net = Net::cluster(4, 6);
    net.cut.extend((2..=4).map(|other| (addr(other), addr(1))));
    net.run(secs(12));
    assert!(net.node(1).score() >= 2);
    let accused = |net: &Net| {
        net.events.iter().any(|(_, at, event)| *at == addr(1) && matches!(event, SwimEvent::MemberDown(_)))
    };
    assert!(!accused(&net));
    assert!(net.run_until(secs(60), accused));
}

/// Without the score, it would have probed 15 times. Without its limit, it would wait ever longer.
#[test]
fn f6_who_hears_nothing_probes_rarely() {
    let mut net = Net::cluster(6, 6);
    net.cut.extend((2..=6).map(|other| (addr(other), addr(1))));
    net.run(secs(30));
    let mut updates = Vec::new();
    let mut is_ping = |bytes: &[u8]| {
        let (header, _) = read_message(bytes, &mut updates).unwrap();
        matches!(header.message, Message::Ping(_))
    };
    // After 2, 4, 12 and 26 s, each time with three relays that are silent.
    let pings = net.log.iter().filter(|(from, _, bytes)| *from == addr(1) && is_ping(bytes)).count();
    assert_eq!((pings, net.node(1).score()), (4, 7));
    assert_eq!(net.node(1).counts().engine_errors, 0);
}

/// Without receipts of the relays, all of them would be silent, and finding a member dead would slow down who finds it.
#[test]
fn f6_finding_a_dead_member_is_no_fault() {
    let mut net = Net::cluster(4, 6);
    net.dead.insert(addr(4));
    assert!(!net.run_until(secs(30), |net| (1..=3).any(|number| net.node(number).score() > 0)));
    assert!((1..=3).all(|number| net.state(number, 4) == Some(State::Down)));
}

/// Without counting answers to suspicions, the score would stay.
#[test]
fn f6_being_suspected_is_a_fault_that_good_probes_make_up_for() {
    let mut net = Net::cluster(2, 6);
    let suspicion = [Member::new(id(1), 0, State::Suspect)];
    let message = net.message(2, 1, Message::Gossip, &suspicion);
    assert!(net.hand(1, &message).is_ok());
    assert_eq!(net.node(1).score(), 1);
    net.run(secs(10));
    assert_eq!(net.node(1).score(), 0);
}

/// Without giving up, they would outlive each other for ever: no conflict, and rejoins as long as this runs.
#[test]
fn f7_of_two_members_with_one_name_one_gives_up() {
    let mut net = Net::cluster(3, 7);
    let rival = NodeId { generation: START_MS + 1_000_000, addr: addr(9), ..id(1) };
    net.start(rival, Config::default());
    net.act(9, |swim, now, out| swim.announce_at(now, addr(2), out));
    net.run(secs(60));

    assert_eq!(net.count(|event| matches!(event, SwimEvent::NameConflict { .. })), 1);
    let (one, other) = (net.node(1), net.node(9));
    assert_ne!(one.next_deadline().is_none(), other.next_deadline().is_none());
    let left = if one.next_deadline().is_none() { other } else { one };
    assert!((2..=3).all(|number| net.node(number).members().any(|member| member == left.id())));

    let rejoins = net.rejoins();
    assert!(rejoins < 10);
    net.run(secs(60));
    assert_eq!(net.rejoins(), rejoins);
}

/// Without being told of its later life, it would go on by one life for each message that is refused, a million times.
#[test]
fn f7_who_restarts_with_an_earlier_clock_is_back_in_one_step() {
    let mut net = Net::cluster(3, 7);
    net.run(secs(5));
    net.start(NodeId { generation: START_MS - 1_000_000, ..id(3) }, Config::default());
    net.act(3, |swim, now, out| swim.announce_at(now, addr(1), out));
    net.run(secs(10));
    assert_eq!(net.rejoins(), 1);
    for other in 1..=2 {
        assert!(net.node(other).members().any(|member| member == net.node(3).id()));
    }
    assert_eq!(net.node(3).num_members(), 2);
}

/// Without the event nobody would know that nothing is tried any more: but for forgetting the dead, no timer is left.
#[test]
fn f8_losing_the_last_member_is_told() {
    let mut net = Net::cluster(2, 8);
    net.dead.insert(addr(2));
    net.run(secs(60));
    assert_eq!(net.count(|event| *event == SwimEvent::Idle), 1);
    assert!(net.node(1).next_deadline().unwrap() > net.now().mono + secs(600));

    net.events.clear();
    net.start(NodeId { generation: START_MS + 1, ..id(2) }, Config::default());
    net.act(1, |swim, now, out| swim.announce_at(now, addr(2), out));
    net.run(secs(5));
    assert!(net.events.iter().any(|(_, at, event)| *at == addr(1) && *event == SwimEvent::Active));
    assert_eq!((net.node(1).num_members(), net.node(2).num_members()), (1, 1));
}

/// Told once, the death would be in three messages; fed on, the leaver would hear of it and rejoin.
#[test]
fn f9_who_leaves_is_heard_and_stays_away() {
    let mut net = Net::cluster(5, 9);
    net.run(secs(5));
    net.act(1, Swim::leave);
    let undead = net.message(2, 1, Message::TurnUndead, &[]);
    assert!(net.hand(1, &undead).is_ok());
    net.run(secs(1));
    let heard = net.count(|event| *event == SwimEvent::MemberDown(id(1)));
    assert_eq!(heard, 4, "within a second");
    net.run(secs(60));

    let told = net.log.iter().filter(|(from, _, bytes)| *from == addr(1) && tells_death(bytes, id(1)));
    assert_eq!(told.count(), 4);
    assert_eq!(net.count(|event| *event == SwimEvent::Left), 1);
    assert_eq!((net.node(1).id(), net.node(1).next_deadline()), (id(1), None));
    assert_eq!((net.deaths(), net.rejoins()), (4, 0));
}

/// Fed on, a leaver that hears of its own death would begin a new life, while it leaves and afterwards.
#[test]
fn f9_who_leaves_does_not_come_back_when_it_hears_of_its_death() {
    let mut net = Net::cluster(5, 9);
    net.run(secs(5));
    net.act(1, Swim::leave);
    for wait in [0, 5] {
        net.run(secs(wait));
        let death = MemberState { id: id(1), incarnation: 0, state: State::Down };
        let gossip = net.message(2, 1, Message::Gossip, &[death.into()]);
        assert!(net.hand(1, &gossip).is_ok());
        net.act(1, |swim, now, out| swim.apply(now, [death], out));
        assert_eq!((net.node(1).id(), net.rejoins()), (id(1), 0), "after {wait} s");
    }
}

/// Without the limit, the only other member would be told four times, which takes 600 ms.
#[test]
fn f9_leaving_takes_no_longer_than_it_may() {
    let mut net = Net::cluster_with(&Config { leave_timeout: millis(300), ..Config::default() }, 2, 9);
    net.act(1, Swim::leave);
    net.run(millis(299));
    assert_eq!(net.count(|event| *event == SwimEvent::Left), 0);
    net.run(millis(1));
    assert_eq!(net.count(|event| *event == SwimEvent::Left), 1);
}

#[test]
fn f9_leaving_ends_even_if_nobody_is_there_to_hear() {
    let mut net = Net::new(9);
    net.start(id(1), Config::default());
    net.act(1, Swim::leave);
    assert_eq!(net.count(|event| *event == SwimEvent::Left), 1);
}

/// In any other order foca would find its probes incomplete, which is an error.
#[test]
fn f10_late_timers_come_in_order() {
    let mut net = Net::cluster(3, 10);
    for _ in 0..5 {
        net.run(millis(2_100));
        net.pause(secs(10));
    }
    net.run(secs(10));
    for number in 1..=3 {
        assert_eq!(net.node(number).counts().engine_errors, 0);
        assert_eq!(net.node(number).num_members(), 2);
    }
}

/// Each probe is asked for by the one before: were it dropped for coming late, there would be no other one.
#[test]
fn f10_late_timers_are_not_dropped() {
    let mut net = Net::cluster(3, 10);
    net.dead.insert(addr(3));
    net.run(millis(2_100));
    net.pause(secs(600));
    let is_found = |net: &Net| (1..=2).all(|number| net.state(number, 3) == Some(State::Down));
    assert!(net.run_until(secs(60), is_found));
}

#[test]
fn members_find_each_other_through_any_one() {
    let mut net = Net::new(11);
    for number in 1..=10 {
        net.start(id(number), Config::default());
    }
    for number in 2..=10 {
        net.act(number, |swim, now, out| swim.announce_at(now, addr(number - 1), out));
    }
    net.run(secs(90));
    assert!((1..=10).all(|number| net.node(number).num_members() == 9));
    assert_eq!(net.deaths(), 0);
}

#[test]
fn lost_datagrams_alone_kill_nobody() {
    for loss in [0.1, 0.3] {
        let mut net = Net::cluster(20, 12);
        net.streams = true;
        net.loss = loss;
        net.run(secs(120));
        assert_eq!((net.deaths(), net.rejoins()), (0, 0), "{loss} lost");
    }
}

#[test]
fn answers_tell_how_far_away_a_member_is_while_it_lives() {
    let mut net = Net::cluster(3, 16);
    net.streams = true;
    let rtt = |net: &Net, other: u8| net.node(1).rtt(id(other).name);
    assert_eq!(rtt(&net, 2), None);
    net.run(secs(30));
    for other in 2..=3 {
        let rtt = rtt(&net, other).unwrap();
        assert!((millis(2)..=millis(40)).contains(&rtt), "{rtt:?}");
    }

    // Answers over relays and streams take longer, for reasons of their own.
    net.cut.extend([(addr(1), addr(2)), (addr(2), addr(1))]);
    net.run(secs(1));
    let before = rtt(&net, 2);
    net.run(secs(30));
    assert_eq!((net.state(1, 2), rtt(&net, 2)), (Some(State::Alive), before));

    net.cut.clear();
    net.run(secs(5));
    net.dead.insert(addr(3));
    assert!(net.run_until(secs(120), |net| net.state(1, 3) == Some(State::Down)));
    assert_eq!(rtt(&net, 3), None);
    assert!(net.node(1).knows(id(3).name) && !net.node(1).knows(id(99).name));
}

#[test]
fn the_same_seed_gives_the_same_run() {
    let run = || {
        let mut net = Net::cluster(10, 13);
        net.loss = 0.3;
        net.run(secs(60));
        (net.log, net.events)
    };
    assert_eq!(run(), run());
}

#[test]
fn what_foca_is_told_follows_the_number_of_members() {
    let mut net = Net::cluster(30, 14);
    assert_eq!(net.node(1).configured_for, 30);
    for number in 11..=30 {
        net.act(number, Swim::leave);
        net.run(millis(500));
    }
    net.run(secs(5));
    assert!(net.node(1).configured_for <= 15);
}

#[test]
fn lives_of_the_dead_do_not_pile_up() {
    let mut net = Net::cluster(2, 15);
    for generation in 1..=5_000 {
        let life = NodeId { generation, ..id(99) };
        let message = net.message(2, 1, Message::Gossip, &[Member::new(life, 0, State::Down)]);
        assert!(net.hand(1, &message).is_ok());
    }
    assert!(net.node(1).timers.len() < 1_100);
}

#[test]
fn no_bytes_do_harm() {
    for seed in 0..20 {
        let mut net = Net::cluster(3, seed);
        net.run(secs(5));
        let mut rng: SmallRng = rand::SeedableRng::seed_from_u64(seed);
        let seen: Vec<_> = net.log.iter().filter(|(_, to, _)| *to == addr(1)).cloned().collect();
        for _ in 0..500 {
            let (_, _, bytes) = &seen[rng.random_range(0..seen.len())];
            let mut bytes = bytes.to_vec();
            for _ in 0..rng.random_range(1..=3) {
                let place = rng.random_range(0..bytes.len());
                bytes[place] = rng.random();
            }
            bytes.truncate(rng.random_range(0..=2 * bytes.len()));
            // Whether it is refused depends on the bytes; all that counts is to live on.
            let _ = net.hand(1, &bytes);
        }
        net.run(secs(30));
        assert!(net.node(1).num_members() <= 500);
    }
}
