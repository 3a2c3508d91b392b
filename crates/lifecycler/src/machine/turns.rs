//! How tokens are chosen: as configured, in turn, and no more than configured.

use proptest::prelude::*;
use ringkit_ring::{RingOptions, Snapshot, SpreadMinimizing};

use super::tests::{Life, START, entry, options, secs};
use super::*;

fn minimizing() -> Options {
    Options { token_choice: TokenChoice::MinimizeSpread, ..options() }
}

/// A living instance of `zone` that registered before all others and has no tokens yet.
fn waiting(zone: &str) -> InstanceDesc {
    InstanceDesc { zone: zone.into(), timestamp: START + 100_000, ..entry(State::Pending, &[]) }
}

fn waits_for(life: &Life) -> Option<&str> {
    life.machine.waits_for().map(EntryId::as_str)
}

fn ring_of(members: &[(&str, InstanceDesc)]) -> Desc {
    members.iter().cloned().collect()
}

/// How much of its zone an instance owns.
fn share(ring: &Desc, id: &str) -> f64 {
    let snapshot = Snapshot::first_sight(ring, START, &RingOptions::default());
    let place = snapshot.instances().iter().position(|member| member.id == id).unwrap();
    snapshot.ownership().of_zone()[place].fraction()
}

#[test]
fn who_minimizes_spread_shows_itself_before_it_chooses() {
    let mut life = Life::start(minimizing());
    let expected = ["0 write PENDING/0", "0 write JOINING/4", "0 write ACTIVE/4", "0 save ACTIVE/4"];
    assert_eq!(life.done(), expected);
}

#[test]
fn who_minimizes_spread_gets_its_fair_part_of_the_configured_zone() {
    let other = InstanceDesc { zone: "zone-a".into(), ..entry(State::Active, &[1 << 29, (7 << 29) + 5]) };
    let elsewhere = InstanceDesc { zone: "zone-b".into(), ..entry(State::Active, &[1 << 31]) };
    // What the ring says about the own zone is out of date.
    let own = InstanceDesc { zone: "zone-b".into(), ..entry(State::Pending, &[]) };
    let ring = ring_of(&[("a", other), ("b", elsewhere), ("me", own)]);
    let life = Life::start_on(minimizing(), ring);
    assert_eq!((life.own().state, &*life.own().zone), (State::Active, "zone-a"));
    assert!((share(&life.ring, "me") - 0.5).abs() < 1e-6, "{}", share(&life.ring, "me"));
}

#[test]
fn it_waits_for_its_turn_and_goes_on_when_the_one_before_has_tokens() {
    let mut life = Life::start_on(minimizing(), ring_of(&[("first", waiting("zone-a"))]));
    life.pass_to(30);
    assert_eq!(life.done(), ["0 write PENDING/0"], "it stays PENDING and beats");
    assert_eq!((life.own().timestamp > START + 20, waits_for(&life)), (true, Some("first")));
    let joined = InstanceDesc { state: State::Joining, tokens: vec![7, 8].into(), ..waiting("zone-a") };
    life.ring.insert("first", joined);
    life.look();
    assert_eq!(life.done(), ["30 write JOINING/4", "30 write ACTIVE/4", "30 save ACTIVE/4"]);
    assert_eq!(life.machine.waits_for(), None);
}

#[test]
fn it_waits_for_nobody_of_another_zone_nor_for_who_has_left_or_came_later() {
    let left = InstanceDesc { state: State::Left, ..waiting("zone-a") };
    let later = InstanceDesc { registered_timestamp: START + 1, ..waiting("zone-a") };
    let ring = ring_of(&[("elsewhere", waiting("zone-b")), ("left", left), ("later", later)]);
    let life = Life::start_on(minimizing(), ring);
    assert_eq!(life.own().state, State::Active);
}

#[test]
fn it_does_not_wait_for_ever_for_one_that_never_chooses() {
    let mut life = Life::start_on(minimizing(), ring_of(&[("stuck", waiting("zone-a"))]));
    life.done();
    life.pass_to(59);
    assert_eq!((life.done(), life.own().state), (vec![], State::Pending));
    life.pass_to(61);
    assert_eq!((life.own().state, life.own().tokens.len()), (State::Active, 4));
}

#[test]
fn when_its_patience_ends_it_still_gets_its_fair_part() {
    let other = InstanceDesc { zone: "zone-a".into(), ..entry(State::Active, &[1 << 29, (7 << 29) + 5]) };
    let mut life = Life::start_on(minimizing(), ring_of(&[("a", other), ("stuck", waiting("zone-a"))]));
    assert_eq!(told(&mut life), [Notice::WaitsFor("stuck".into())]);
    life.pass_to(61);
    assert_eq!((life.own().state, life.machine.waits_for()), (State::Active, None));
    let [Notice::GaveUpOn { first, waited }] = &told(&mut life)[..] else { panic!("it says so") };
    assert!(first == "stuck" && (secs(60)..secs(62)).contains(waited), "{first} {waited:?}");
    assert!((share(&life.ring, "me") - 0.5).abs() < 1e-6, "{}", share(&life.ring, "me"));
}

#[test]
fn whoever_is_dead_or_will_not_choose_holds_up_nobody() {
    let dead = InstanceDesc { timestamp: START - 61, ..waiting("zone-a") };
    let dying = InstanceDesc { timestamp: START - 50, ..waiting("zone-a") };
    let in_state = |state| InstanceDesc { state, ..waiting("zone-a") };
    let other = InstanceDesc { zone: "zone-a".into(), ..entry(State::Active, &[1 << 29, (7 << 29) + 5]) };
    for (blocker, joins_after) in [
        (dead, 0),
        (dying, 11),
        (in_state(State::Active), 0),
        (in_state(State::ReadOnly), 0),
        (in_state(State::Leaving), 0),
        (in_state(State::Joining), 60),
    ] {
        let ring = ring_of(&[("a", other.clone()), ("blocker", blocker.clone())]);
        let mut life = Life::start_on(minimizing(), ring);
        if joins_after > 0 {
            life.pass_to(joins_after - 1);
            assert_eq!(life.own().state, State::Pending, "{blocker:?}");
            life.pass_to(joins_after + 1);
        }
        assert_eq!(life.own().state, State::Active, "{blocker:?}");
        assert!((share(&life.ring, "me") - 0.5).abs() < 1e-6, "{blocker:?}");
    }
}

#[test]
fn who_left_before_shows_itself_like_anybody_else() {
    let left = InstanceDesc { state: State::Left, ..waiting("zone-a") };
    let mut life = Life::start_on(minimizing(), ring_of(&[("me", left)]));
    assert_eq!(life.done()[..2], ["0 write PENDING/0", "0 write JOINING/4"]);
}

/// An instance whose tokens are the 512 of its number.
fn numbered(ring: Desc) -> Life {
    let fixed = SpreadMinimizing::try_new("me-0", "zone-a", &["zone-a"], false).unwrap();
    let token_choice = TokenChoice::SpreadMinimizing(fixed.into());
    Life::start_on(Options { num_tokens: 600, token_choice, ..options() }, ring)
}

fn told(life: &mut Life) -> Vec<Notice> {
    std::iter::from_fn(|| life.machine.poll_notice()).collect()
}

#[test]
fn what_tokens_there_are_it_takes() {
    let mut life = numbered(Desc::new());
    assert_eq!((life.own().state, life.own().tokens.len()), (State::Active, 512));
    assert_eq!(told(&mut life), [Notice::TooFewTokens { wanted: 600, available: 512 }]);
}

#[test]
fn without_any_token_it_stays_pending_until_there_are_some() {
    let all: Vec<u32> = (0..512).map(|place| place << 23).collect();
    let mut life = numbered(ring_of(&[("other", entry(State::Active, &all))]));
    life.pass_to(100);
    assert_eq!(life.done(), ["0 write PENDING/0"], "it beats and asks again");
    assert_eq!(told(&mut life), [Notice::TooFewTokens { wanted: 600, available: 0 }], "once");
    life.ring.insert("other", entry(State::Active, &all[3..]));
    life.look();
    life.pass_to(105);
    assert_eq!((life.own().state, life.own().tokens.as_slice()), (State::Active, &all[..3]));
}

#[test]
fn its_patience_is_for_each_that_comes_before_it() {
    let ring = ring_of(&[("first", waiting("zone-a")), ("second", waiting("zone-a"))]);
    let mut life = Life::start_on(minimizing(), ring);
    life.pass_to(50);
    life.ring.insert("first", InstanceDesc { tokens: vec![7].into(), ..waiting("zone-a") });
    life.look();
    life.pass_to(100);
    assert_eq!((life.own().state, waits_for(&life)), (State::Pending, Some("second")));
    life.ring.remove("second");
    life.look();
    assert_eq!(life.own().state, State::Active);
}

#[test]
fn many_that_never_choose_do_not_add_up_and_a_long_timeout_is_not_waited_for() {
    let names: Vec<String> = (0..10).map(|number| format!("stuck-{number}")).collect();
    let ring = names.iter().map(|name| (name.as_str(), waiting("zone-a"))).collect();
    let options = Options { heartbeat_timeout: secs(600), ..minimizing() };
    let mut life = Life::start_on(options, ring);
    life.pass_to(59);
    assert_eq!(waits_for(&life), Some("stuck-0"));
    life.pass_to(61);
    assert_eq!((told(&mut life).len(), waits_for(&life)), (3, Some("stuck-1")));
    life.pass_to(60 + 9 * 5 + 1);
    assert_eq!((life.own().state, life.own().tokens.len()), (State::Active, 4));
}

#[test]
fn numbered_instances_join_in_turn_and_not_never() {
    let in_turn = SpreadMinimizing::try_new("me-1", "zone-a", &["zone-a"], true).unwrap();
    let in_turn = TokenChoice::SpreadMinimizing(in_turn.into());
    let start = || Life::start(Options { num_tokens: 512, token_choice: in_turn.clone(), ..options() });
    let mut life = start();
    life.pass_to(30);
    assert_eq!((life.done(), waits_for(&life)), (vec!["0 write PENDING/0".into()], Some("me-0")));
    life.ring.insert("me-0", entry(State::Active, &[7]));
    life.look();
    assert_eq!((life.own().state, life.own().tokens.len(), waits_for(&life)), (State::Active, 512, None));
    let mut alone = start();
    alone.pass_to(59);
    assert_eq!(alone.own().state, State::Pending);
    alone.pass_to(61);
    assert_eq!((alone.own().state, alone.own().tokens.len()), (State::Active, 512));
}

#[test]
fn who_loses_its_last_token_while_joining_is_pending_again() {
    let fixed = SpreadMinimizing::try_new("me-0", "zone-a", &["zone-a"], false).unwrap();
    let token_choice = TokenChoice::SpreadMinimizing(fixed.into());
    let observe_period = AutoDuration::After(secs(5));
    let mut life = Life::start(Options { num_tokens: 512, token_choice, observe_period, ..options() });
    assert_eq!(life.own().state, State::Joining);
    let mine = life.own().tokens.to_vec();
    life.ring.insert("other", entry(State::Active, &mine));
    life.look();
    life.pass_to(30);
    assert_eq!((life.own().state, life.own().tokens.len()), (State::Pending, 0));
    life.ring.remove("other");
    life.look();
    life.pass_to(40);
    assert_eq!((life.own().state, life.own().tokens.len()), (State::Active, 512));
}

#[test]
fn a_failing_store_does_not_make_it_give_up() {
    let mut life = Life::new(minimizing(), Desc::new(), None);
    life.store_is_down = true;
    life.tell(Event::Synced);
    life.look();
    life.pass_to(30);
    life.store_is_down = false;
    life.pass_to(40);
    assert_eq!((life.own().state, life.own().tokens.len()), (State::Active, 4));
}

#[test]
fn an_instance_that_waits_can_be_stopped() {
    let mut life = Life::start_on(minimizing(), ring_of(&[("first", waiting("zone-a"))]));
    life.done();
    life.tell(Event::Stop);
    assert_eq!((life.done(), life.machine.waits_for()), (vec!["0 remove".into(), "0 finished".into()], None));
}

#[test]
fn who_has_all_its_tokens_waits_for_nobody() {
    let file = TokensFile { tokens: vec![1, 2, 3, 4].into(), previous_state: State::Active };
    let mut life = Life::new(minimizing(), ring_of(&[("first", waiting("zone-a"))]), Some(file));
    life.tell(Event::Synced);
    life.look();
    assert_eq!((life.own().state, life.own().tokens.as_slice()), (State::Active, &[1, 2, 3, 4][..]));
}

#[test]
fn fewer_configured_tokens_trim_who_joins() {
    const TOKENS: [u32; 6] = [10, 20, 30, 40, 50, 60];
    let checked = |life: &Life| {
        let own = life.own();
        assert_eq!((own.state, own.tokens.len()), (State::Active, 4));
        assert!(own.tokens.iter().all(|token| TOKENS.contains(token)) && own.tokens.is_normal());
        assert_eq!(life.file.as_ref().unwrap().tokens, own.tokens, "the file knows");
    };
    for choice in [TokenChoice::Random, TokenChoice::MinimizeSpread] {
        let options = || Options { token_choice: choice.clone(), ..options() };
        for state in [State::Pending, State::Joining, State::Leaving] {
            let mut life = Life::start_on(options(), ring_of(&[("me", entry(state, &TOKENS))]));
            checked(&life);
            let kept = life.own().tokens.clone();
            life.pass_to(60);
            assert_eq!(life.own().tokens, kept, "and it stays so");
        }
        let file = TokensFile { tokens: TOKENS.as_slice().into(), previous_state: State::Active };
        let mut life = Life::new(options(), Desc::new(), Some(file));
        life.tell(Event::Synced);
        life.look();
        checked(&life);
    }
}

proptest! {
    /// Joiners that minimize spread, looking and writing in any order: none waits for ever, and no token is ever shared
    /// by two that take part, not even where old looks at the ring make two believe that it is their turn.
    #[test]
    fn joiners_that_minimize_spread_take_turns(
        turns in proptest::collection::vec((0..4usize, any::<bool>()), 1..80), zones in 1..3usize,
    ) {
        let mut ring = Desc::new();
        let now = Now { elapsed: Duration::ZERO, unix_secs: START };
        let mut machines: Vec<Machine> = (0..4).map(|number| {
            let options =
                Options { id: format!("i{number}"), zone: format!("z{}", number % zones), num_tokens: 8, ..minimizing() };
            let mut machine = Machine::new(options, None, 1);
            machine.handle_event(now, Event::Synced);
            machine.handle_event(now, Event::Ring(None));
            machine
        }).collect();
        let everybody = (0..100).flat_map(|turn| [(turn % 4, true), (turn % 4, false)]);
        for (turn, looks) in turns.into_iter().chain(everybody) {
            let machine = &mut machines[turn];
            if looks {
                machine.handle_event(now, Event::Ring(Some(Arc::new(ring.clone()))));
            } else if let Some(Action::Write { entry, .. }) = machine.poll_action(now) {
                ring.insert(format!("i{turn}"), *entry);
                machine.handle_event(now, Event::Written(Arc::new(ring.clone())));
            }
            let taking_part = ring.iter().filter(|(_, entry)| entry.state == State::Active);
            let tokens: Vec<u32> = taking_part.flat_map(|(_, entry)| entry.tokens.to_vec()).collect();
            let distinct: BTreeSet<u32> = tokens.iter().copied().collect();
            prop_assert_eq!(tokens.len(), distinct.len());
        }
        for (_, entry) in &ring {
            prop_assert_eq!((entry.state, entry.tokens.len()), (State::Active, 8));
        }
    }
}

#[test]
fn who_joins_one_after_the_other_owns_alike() {
    let mut ring = Desc::new();
    for number in 0..8 {
        let mut life = Life::start_on(Options { num_tokens: 32, ..minimizing() }, ring);
        ring = std::mem::take(&mut life.ring);
        let own = ring.remove("me").unwrap();
        ring.insert(format!("i{number}"), own);
    }
    let shares: Vec<f64> = ring.iter().map(|(id, _)| share(&ring, id)).collect();
    assert!(shares.iter().all(|share| (share * 8.0 - 1.0).abs() < 0.05), "{shares:?}");
}

#[test]
fn the_patience_is_a_minute_where_nobody_counts_as_dead() {
    let options = Options { heartbeat_timeout: Duration::ZERO, ..minimizing() };
    let mut life = Life::start_on(options, ring_of(&[("stuck", waiting("zone-a"))]));
    life.pass_to(59);
    assert_eq!(life.own().state, State::Pending);
    life.pass_to(61);
    assert_eq!((life.own().state, life.now.elapsed), (State::Active, secs(61)));
}
