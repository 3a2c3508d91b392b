//! What goes wrong with lifecyclers in the field, one test each, by the numbers of the specification (section 13).
//!
//! H10 is tested in `forget`, H27 in `tokens_file`; H15, a failure that is swallowed, where forgetting is answered.

use ringkit_config::AutoDuration;
use ringkit_ring::{Desc, InstanceDesc, State};

use super::tests::{Life, START, entry, options, secs};
use super::*;

fn ring_with(own: InstanceDesc) -> Desc {
    let mut ring = Desc::new();
    ring.insert("me", own);
    ring
}

#[test]
fn h05_a_crash_while_joining_is_written_away_at_once() {
    let mut life = Life::start_on(options(), ring_with(entry(State::Joining, &[1, 2, 3, 4])));
    let done = life.done();
    assert!(done.first().is_some_and(|line| line.starts_with("0 write")), "{done:?}");
    assert_eq!((life.own().state, &life.own().tokens[..]), (State::Active, &[1, 2, 3, 4][..]));
    // Also where joining waits for something: the entry says so.
    let waits = Options { auto_join: false, ..options() };
    let mut life = Life::start_on(waits, ring_with(entry(State::Joining, &[1, 2, 3, 4])));
    assert_eq!(life.done(), ["0 write PENDING/4"]);
    assert!(life.own().timestamp > START - 1);
}

#[test]
fn h06_no_heartbeat_follows_the_removal() {
    // Stopped before the first heartbeat, which in Cortex is a timer of its own.
    let mut life = Life::start(Options { final_sleep: Duration::ZERO, ..options() });
    life.tell(Event::Stop);
    assert_eq!(life.machine.poll_timeout(), None);
    life.pass_to(1_000);
    let done = life.done();
    assert_eq!(&done[done.len() - 2..], ["0 remove", "0 finished"]);
    assert_eq!(life.ring.get("me"), None);
}

#[test]
fn h07_renewed_tokens_leave_those_of_others_alone() {
    let mut life = Life::start(Options { num_tokens: 40, ..options() });
    let before = life.ring.get("me").unwrap().clone();
    let tokens = before.tokens.to_vec();
    assert_eq!(life.machine.renew_tokens(life.now, 0.1).unwrap(), 4);
    life.tell(Event::Timeout);
    let after = life.own().tokens.to_vec();
    assert_eq!(after.iter().filter(|token| tokens.contains(token)).count(), 36);
    assert!(after.len() == 40 && after.is_sorted_by(|a, b| a < b));
    assert_eq!(before.tokens.to_vec(), tokens, "whoever holds the older list still reads what it was");
    // The file knows as well, and more than all is all.
    assert_eq!(life.file.as_ref().unwrap().tokens.to_vec(), after);
    assert_eq!(life.machine.renew_tokens(life.now, 7.0).unwrap(), 40);
    life.tell(Event::Stop);
    assert!(life.machine.renew_tokens(life.now, 0.1).is_err());
}

#[test]
fn h11_fewer_tokens_than_before_are_no_obstacle() {
    let many: Vec<u32> = (1..=9).collect();
    for state in [State::Pending, State::Joining, State::Leaving, State::Active] {
        let auto_join = state != State::Leaving;
        let mut life = Life::start_on(Options { auto_join, ..options() }, ring_with(entry(state, &many)));
        life.tell(Event::Join);
        let own = life.own();
        assert_eq!(own.state, State::Active, "from {state}");
        // Who takes part keeps what is read from it.
        assert_eq!(own.tokens.len(), if state == State::Active { 9 } else { 4 }, "from {state}");
    }
    let file = TokensFile { tokens: many.as_slice().into(), previous_state: State::Active };
    let mut life = Life::new(options(), Desc::new(), Some(file));
    life.tell(Event::Synced);
    life.look();
    assert_eq!((life.own().state, life.own().tokens.len()), (State::Active, 4));
}

#[test]
fn h12_leaving_without_tokens_is_no_dead_end() {
    let life = Life::start_on(options(), ring_with(entry(State::Leaving, &[])));
    assert_eq!((life.own().state, life.own().tokens.len()), (State::Active, 4));
}

#[test]
fn h13_the_tokens_file_is_not_emptied_by_an_entry_without_tokens() {
    let file = TokensFile { tokens: vec![1, 2, 3, 4].into(), previous_state: State::Active };
    let waits = Options { auto_join: false, ..options() };
    let mut life = Life::new(waits, ring_with(entry(State::Pending, &[])), Some(file.clone()));
    life.tell(Event::Synced);
    life.look();
    life.pass_to(100);
    assert!(life.done().iter().all(|line| !line.contains("save")));
    assert_eq!(life.file, Some(file));
    life.tell(Event::Join);
    assert_eq!(life.own().tokens.to_vec(), [1, 2, 3, 4]);
}

#[test]
fn h14_an_unknown_registration_time_stays_unknown() {
    let unknown = InstanceDesc { registered_timestamp: 0, ..entry(State::Active, &[1, 2, 3, 4]) };
    let mut life = Life::start_on(options(), ring_with(unknown));
    life.pass_to(60);
    assert_eq!(life.own().registered_timestamp, 0);
}

#[test]
fn h17_who_vanished_registers_anew() {
    let mut life = Life::start(options());
    life.pass_to(1_000);
    life.ring.remove("me");
    life.look();
    life.pass_to(1_010);
    assert!(life.own().registered_timestamp >= START + 1_000, "{}", life.own().registered_timestamp);
}

#[test]
fn h18_of_two_who_come_back_with_one_token_the_greater_id_keeps_it() {
    for (other, keeps) in [("zz", false), ("aa", true)] {
        let mut ring = ring_with(entry(State::Active, &[1, 2, 3, 4]));
        ring.insert(other, entry(State::Active, &[2, 100]));
        let mut life = Life::start_on(options(), ring);
        life.pass_to(10);
        let tokens = life.own().tokens.to_vec();
        assert_eq!((tokens.len(), tokens.contains(&2)), (4, keeps), "beside {other}");
        assert!([1, 3, 4].iter().all(|token| tokens.contains(token)));
    }
}

#[test]
fn h26_stopping_while_joining_leaves_nobody_joining() {
    let observes = AutoDuration::After(secs(60));
    for unregister_on_shutdown in [true, false] {
        let options = Options { observe_period: observes, unregister_on_shutdown, ..options() };
        let mut life = Life::start(options);
        assert_eq!(life.own().state, State::Joining);
        life.tell(Event::Stop);
        life.pass_to(100);
        let left = life.ring.get("me").map(|own| own.state);
        assert_eq!(left, if unregister_on_shutdown { None } else { Some(State::Pending) });
    }
}

#[test]
fn h28_tokens_are_drawn_for_the_configured_zone() {
    let spread = Options { token_choice: TokenChoice::MinimizeSpread, ..options() };
    // What the ring says of a new instance has no zone yet.
    let life =
        Life::start_on(spread, ring_with(InstanceDesc { zone: "".into(), ..entry(State::Pending, &[]) }));
    assert_eq!((&*life.own().zone, life.own().tokens.len()), ("zone-a", 4));
}

#[test]
fn a_final_sleep_ends_when_what_it_waits_for_is_through() {
    let mut life = Life::start(Options { final_sleep: secs(30), ..options() });
    life.tell(Event::Stop);
    life.pass_to(5);
    assert_eq!(life.own().state, State::Leaving);
    life.tell(Event::Rested);
    assert_eq!(life.done().last().map(String::as_str), Some("5 finished"));
}
