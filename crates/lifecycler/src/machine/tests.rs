use proptest::prelude::*;
use ringkit_config::ReadinessCheck;

use super::*;
use crate::delegate::Delegates;
use crate::tokens_file::OnCorrupt;

/// The wall time at which lives begin.
pub(super) const START: i64 = 1_700_000_000;

/// An instance in virtual time on a ring that the test may edit. Writes work at once unless the store is down.
pub(super) struct Life {
    pub(super) machine: Machine,
    pub(super) ring: Desc,
    pub(super) file: Option<TokensFile>,
    pub(super) store_is_down: bool,
    /// How long a write takes.
    pub(super) write_takes: Duration,
    pub(super) now: Now,
    log: Vec<String>,
    beats: Vec<Duration>,
    timestamps: Vec<i64>,
}

pub(super) fn options() -> Options {
    Options {
        name: "ingester",
        key: "ring".into(),
        id: "me".into(),
        addr: "10.0.0.1:9095".into(),
        zone: "zone-a".into(),
        num_tokens: 4,
        token_choice: TokenChoice::Random,
        heartbeat_period: Duration::from_secs(5),
        heartbeat_timeout: Duration::from_secs(60),
        observe_period: AutoDuration::Auto,
        join_after: AutoDuration::Auto,
        min_ready_duration: Duration::ZERO,
        final_sleep: Duration::ZERO,
        tokens_file_path: None,
        unregister_on_shutdown: true,
        on_corrupt: OnCorrupt::Ring,
        readiness_check: ReadinessCheck::Own,
        auto_forget: None,
        basic_metrics: false,
        delegates: Delegates::default(),
        auto_join: true,
        registered_at: RegisteredAt::Now,
        join_as: State::Active,
    }
}

pub(super) fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

fn after(seconds: u64) -> AutoDuration {
    AutoDuration::After(secs(seconds))
}

pub(super) fn entry(state: State, tokens: &[u32]) -> InstanceDesc {
    InstanceDesc {
        addr: "other:1".into(),
        timestamp: START,
        state,
        tokens: tokens.into(),
        registered_timestamp: 1_000,
        ..InstanceDesc::default()
    }
}

impl Life {
    pub(super) fn new(options: Options, ring: Desc, file: Option<TokensFile>) -> Self {
        Self {
            machine: Machine::new(options, file.clone(), 1),
            ring,
            file,
            store_is_down: false,
            write_takes: Duration::ZERO,
            now: Now { elapsed: Duration::ZERO, unix_secs: START },
            log: Vec::new(),
            beats: Vec::new(),
            timestamps: Vec::new(),
        }
    }

    /// An instance that starts on an empty ring.
    pub(super) fn start(options: Options) -> Self {
        Self::start_on(options, Desc::new())
    }

    pub(super) fn start_on(options: Options, ring: Desc) -> Self {
        let mut life = Self::new(options, ring, None);
        life.tell(Event::Synced);
        life.look();
        life
    }

    /// The instance looks at the ring as it is now.
    pub(super) fn look(&mut self) {
        let ring = (!self.ring.is_empty()).then(|| Arc::new(self.ring.clone()));
        self.tell(Event::Ring(ring));
    }

    pub(super) fn tell(&mut self, event: Event) {
        self.machine.handle_event(self.now, event);
        self.act();
    }

    pub(super) fn change_state(&mut self, to: State) -> Result<(), String> {
        let result = self.machine.change_state(self.now, to).map_err(|error| error.to_string());
        self.act();
        result
    }

    fn act(&mut self) {
        while let Some(action) = self.machine.poll_action(self.now) {
            let at = self.now.elapsed.as_secs();
            match action {
                Action::Write { entry, heartbeat, .. } => {
                    let line = format!("{at} write {}/{}", entry.state, entry.tokens.len());
                    let says_more = self.ring.get("me").is_none_or(|known| {
                        InstanceDesc { timestamp: entry.timestamp, ..(**known).clone() } != *entry
                    });
                    if heartbeat {
                        self.beats.push(self.now.elapsed);
                    }
                    if says_more || !heartbeat {
                        self.log.push(line);
                    }
                    self.timestamps.push(entry.timestamp);
                    self.set_time(self.now.elapsed + self.write_takes);
                    let event = if self.store_is_down {
                        Event::WriteFailed
                    } else {
                        self.ring.insert("me", *entry);
                        Event::Written(Arc::new(self.ring.clone()))
                    };
                    self.machine.handle_event(self.now, event);
                }
                Action::Save(file) => {
                    self.log.push(format!("{at} save {}/{}", file.previous_state, file.tokens.len()));
                    self.file = Some(file);
                }
                Action::Remove => {
                    self.log.push(format!("{at} remove"));
                    self.ring.remove("me");
                    self.machine.handle_event(self.now, Event::Removed);
                }
                Action::Finished => self.log.push(format!("{at} finished")),
            }
        }
    }

    /// Lets time pass until `to` seconds after the start.
    pub(super) fn pass_to(&mut self, to: u64) {
        let to = secs(to);
        while let Some(due) = self.machine.poll_timeout().filter(|due| *due <= to) {
            self.set_time(due);
            self.tell(Event::Timeout);
        }
        self.set_time(to);
    }

    fn set_time(&mut self, elapsed: Duration) {
        self.now.elapsed = self.now.elapsed.max(elapsed);
        self.now.unix_secs = START + i64::try_from(self.now.elapsed.as_secs()).unwrap();
    }

    /// What was done since the last question, heartbeats left out.
    pub(super) fn done(&mut self) -> Vec<String> {
        std::mem::take(&mut self.log)
    }

    pub(super) fn own(&self) -> &InstanceDesc {
        self.ring.get("me").unwrap()
    }
}

#[test]
fn joins_as_soon_as_the_store_is_synced_and_one_round_shows_no_conflict() {
    let mut life = Life::new(options(), Desc::new(), None);
    life.look();
    life.pass_to(100);
    assert_eq!(life.done(), [""; 0], "an unsynced store shows an empty ring that may not be empty");
    life.tell(Event::Synced);
    assert_eq!(life.done(), ["100 write JOINING/4", "100 write ACTIVE/4", "100 save ACTIVE/4"]);
    let own = life.own();
    assert_eq!((&*own.addr, &*own.zone, own.registered_timestamp), ("10.0.0.1:9095", "zone-a", START + 100));
}

#[test]
fn a_given_join_after_delays_and_a_given_observe_period_observes() {
    let mut life = Life::start(Options { join_after: after(10), observe_period: after(5), ..options() });
    assert_eq!(life.done(), ["0 write PENDING/0"]);
    life.pass_to(9);
    assert_eq!(life.done(), [""; 0]);
    life.pass_to(14);
    assert_eq!(life.done(), ["10 write JOINING/4"]);
    life.pass_to(15);
    assert_eq!(life.done(), ["15 write ACTIVE/4", "15 save ACTIVE/4"]);
}

#[test]
fn a_given_join_after_does_not_wait_for_the_store_to_sync() {
    let mut life = Life::new(Options { join_after: after(0), ..options() }, Desc::new(), None);
    life.look();
    assert_eq!(life.done().len(), 3);
}

#[test]
fn waits_to_be_told_to_join() {
    let mut life = Life::start(Options { auto_join: false, ..options() });
    life.pass_to(50);
    assert_eq!(life.done(), ["0 write PENDING/0"]);
    life.tell(Event::Join);
    life.tell(Event::Join);
    assert_eq!(life.done(), ["50 write JOINING/4", "50 write ACTIVE/4", "50 save ACTIVE/4"]);
}

#[test]
fn a_join_that_comes_before_the_ring_is_known_is_remembered() {
    let mut life = Life::new(Options { auto_join: false, ..options() }, Desc::new(), None);
    life.tell(Event::Join);
    life.tell(Event::Synced);
    life.look();
    assert_eq!(life.machine.state(), State::Active);
}

#[test]
fn gives_up_tokens_that_another_instance_has_right_after_the_own_write() {
    let mut life = Life::start(Options { observe_period: after(5), ..options() });
    let mine = life.own().tokens.to_vec();
    life.done();
    // Another instance wrote the same two tokens before us, but our look at the ring was older.
    life.ring.insert("other", entry(State::Joining, &mine[..2]));
    life.store_is_down = true;
    life.tell(Event::Written(Arc::new(life.ring.clone())));
    life.store_is_down = false;
    life.pass_to(100);
    let own = life.own().tokens.to_vec();
    assert_eq!((life.own().state, own.len()), (State::Active, 4));
    assert!(own.iter().all(|token| !mine[..2].contains(token)), "{own:?} and {mine:?}");
    assert!(mine[2..].iter().all(|token| own.contains(token)), "tokens that nobody contests are kept");
}

#[test]
fn a_conflict_while_observing_redraws_and_observes_anew() {
    let mut life = Life::start(Options { observe_period: after(5), ..options() });
    life.pass_to(4);
    let mine = life.own().tokens.to_vec();
    life.ring.insert("other", entry(State::Active, &mine[..1]));
    life.look();
    assert_eq!(life.done(), ["0 write JOINING/4", "4 write JOINING/4"]);
    life.pass_to(8);
    assert_eq!(life.done(), [""; 0]);
    life.pass_to(9);
    assert_eq!(life.done(), ["9 write ACTIVE/4", "9 save ACTIVE/4"]);
    assert!(!life.own().tokens.contains(&mine[0]));
}

#[test]
fn tokens_lost_in_a_merge_while_observing_are_replaced() {
    let mut life = Life::start(Options { observe_period: after(5), ..options() });
    let mine = life.own().tokens.to_vec();
    let mut stripped = life.own().clone();
    stripped.tokens = mine[1..].into();
    life.ring.insert("me", stripped);
    life.ring.insert("other", entry(State::Active, &mine[..1]));
    life.look();
    life.pass_to(20);
    assert_eq!(life.own().tokens.len(), 4);
    assert!(!life.own().tokens.contains(&mine[0]));
}

#[test]
fn an_active_instance_keeps_its_tokens() {
    let mut life = Life::start(options());
    let mine = life.own().tokens.clone();
    life.ring.insert("other", entry(State::Joining, &mine));
    life.look();
    life.pass_to(20);
    assert_eq!(life.own().tokens, mine);
}

#[test]
fn an_active_instance_accepts_what_a_merge_gave_to_another() {
    let mut life = Life::start(options());
    let mine = life.own().tokens.to_vec();
    let mut stripped = life.own().clone();
    stripped.tokens = mine[1..].into();
    life.ring.insert("me", stripped);
    life.ring.insert("other", entry(State::Active, &mine[..1]));
    life.look();
    life.pass_to(20);
    assert_eq!(life.own().tokens.as_slice(), &mine[1..]);
}

#[test]
fn beats_once_per_period_beginning_in_the_second_half_of_the_first() {
    let mut life = Life::start(options());
    life.pass_to(500);
    assert_eq!(life.beats.len(), 100);
    assert!((secs(2)..secs(5)).contains(&life.beats[0]), "{:?}", life.beats[0]);
    assert!(life.beats.windows(2).all(|pair| pair[1] - pair[0] == secs(5)));
    assert!(life.timestamps.is_sorted_by(|a, b| a < b), "{:?}", life.timestamps);
    assert!(life.own().timestamp <= START + 500);
}

#[test]
fn a_period_of_zero_means_no_heartbeats() {
    let mut life = Life::start(Options { heartbeat_period: Duration::ZERO, ..options() });
    life.pass_to(1_000);
    assert!(life.beats.is_empty());
    assert_eq!(life.machine.poll_timeout(), None);
    life.change_state(State::ReadOnly).unwrap();
    assert_eq!(life.own().state, State::ReadOnly);
}

#[test]
fn an_entry_that_says_something_new_is_newer_than_anything_seen() {
    let mut ring = Desc::new();
    ring.insert("me", InstanceDesc { timestamp: START + 30, ..entry(State::Left, &[]) });
    let mut life = Life::start_on(options(), ring);
    life.change_state(State::ReadOnly).unwrap();
    let first = START + 31;
    assert_eq!(life.timestamps, [first, first + 1, first + 2], "JOINING, ACTIVE, READONLY within one second");
}

#[test]
fn an_absurd_timestamp_is_not_followed() {
    let mut ring = Desc::new();
    ring.insert("me", InstanceDesc { timestamp: i64::MAX, ..entry(State::Active, &[1, 2, 3, 4]) });
    let life = Life::start_on(options(), ring);
    assert_eq!(life.timestamps, [START]);
}

#[test]
fn the_timestamp_advances_even_when_the_clock_was_set_back() {
    let mut life = Life::start(options());
    life.pass_to(100);
    let before = *life.timestamps.last().unwrap();
    for beat in 0..5 {
        life.now.elapsed = secs(105 + beat * 5);
        life.now.unix_secs = START - 3_600;
        life.tell(Event::Timeout);
    }
    let timestamps = &life.timestamps[life.timestamps.len() - 5..];
    assert!(timestamps[0] > before && timestamps.is_sorted_by(|a, b| a < b), "{timestamps:?}");
}

#[test]
fn quick_heartbeats_do_not_carry_the_timestamp_away_from_the_clock() {
    let mut life = Life::start(Options { heartbeat_period: Duration::from_millis(50), ..options() });
    for at in 0..=60 {
        life.pass_to(at);
        assert!(life.own().timestamp <= life.now.unix_secs + 2, "{} at {at}", life.own().timestamp - START);
    }
    assert_eq!(life.own().timestamp, START + 60);
}

#[test]
fn an_entry_that_vanished_is_registered_anew() {
    let mut life = Life::start(options());
    life.pass_to(100);
    let mine = life.own().tokens.clone();
    life.done();
    life.ring = Desc::new();
    life.look();
    assert_eq!(life.done(), ["100 write ACTIVE/4"]);
    assert_eq!(
        (&life.own().tokens, life.own().registered_timestamp),
        (&mine, START + 100),
        "lookback must see the gap"
    );
    // At most once per second, should somebody insist.
    for _ in 0..10 {
        life.ring.remove("me");
        life.look();
    }
    assert_eq!(life.done(), [""; 0]);
    life.pass_to(101);
    assert_eq!(life.done(), ["101 write ACTIVE/4"]);
}

#[test]
fn an_entry_marked_as_left_by_others_is_registered_anew_with_a_newer_timestamp() {
    let mut life = Life::start(options());
    life.pass_to(50);
    let tombstone = InstanceDesc { timestamp: START + 70, ..entry(State::Left, &[]) };
    life.ring.insert("me", tombstone);
    life.look();
    assert_eq!((life.own().state, life.own().timestamp), (State::Active, START + 71));
}

#[test]
fn what_others_wrote_into_the_entry_is_corrected() {
    let mut life = Life::start(options());
    let right = life.own().clone();
    life.pass_to(10);
    life.ring.insert("me", InstanceDesc { zone: "".into(), state: State::Leaving, ..right.clone() });
    life.look();
    assert_eq!((&life.own().zone, life.own().state), (&right.zone, right.state));
    assert_eq!(life.own().registered_timestamp, right.registered_timestamp);
}

#[test]
fn a_known_registration_time_is_used_for_new_entries() {
    let mut life = Life::start(Options { registered_at: RegisteredAt::Known(7), ..options() });
    assert_eq!(life.own().registered_timestamp, 7);
    life.ring = Desc::new();
    life.look();
    assert_eq!(life.own().registered_timestamp, 7);
}

#[test]
fn an_unknown_or_negative_registration_time_stays_unknown() {
    for stored in [0, -62_135_596_800] {
        let mut ring = Desc::new();
        let own = InstanceDesc { registered_timestamp: stored, ..entry(State::Active, &[1, 2, 3, 4]) };
        ring.insert("me", own);
        let mut life = Life::start_on(options(), ring);
        life.pass_to(20);
        assert_eq!(life.own().registered_timestamp, 0);
    }
}

#[test]
fn what_the_dskit_dialect_stored_is_kept() {
    let own = InstanceDesc {
        id: "me".into(),
        versions: [(1, 2)].into(),
        unknown: bytes::Bytes::from_static(&[0x7a, 0x01, 0x61]),
        ..entry(State::Active, &[1, 2, 3, 4])
    };
    let life = Life::start_on(options(), [("me", own.clone())].into_iter().collect());
    assert_eq!(
        (&life.own().id, &life.own().versions, &life.own().unknown),
        (&own.id, &own.versions, &own.unknown)
    );
}

#[test]
fn more_configured_tokens_are_drawn_and_fewer_leave_who_takes_part_alone() {
    let restart = |num_tokens| {
        let own = entry(State::Active, &[10, 20, 30, 40]);
        Life::start_on(Options { num_tokens, ..options() }, [("me", own)].into_iter().collect())
    };
    let raised = restart(6);
    assert_eq!((raised.own().state, raised.own().tokens.len()), (State::Active, 6));
    assert!([10, 20, 30, 40].iter().all(|token| raised.own().tokens.contains(token)));
    // Data is read from an instance that takes part.
    let lowered = restart(2);
    assert_eq!(lowered.own().tokens.as_slice(), [10, 20, 30, 40]);
}

#[test]
fn tokens_of_the_file_that_somebody_took_meanwhile_are_replaced() {
    let file = TokensFile { tokens: vec![1, 2, 3, 4].into(), previous_state: State::Active };
    let mut life =
        Life::new(options(), [("other", entry(State::Active, &[2, 9]))].into_iter().collect(), Some(file));
    life.tell(Event::Synced);
    life.look();
    let tokens = life.own().tokens.to_vec();
    assert_eq!(tokens.len(), 4);
    assert!([1, 3, 4].iter().all(|token| tokens.contains(token)) && !tokens.contains(&2), "{tokens:?}");
}

#[test]
fn leaves_then_unregisters_after_the_final_sleep_and_never_comes_back() {
    let mut life = Life::start(Options { final_sleep: secs(30), ..options() });
    life.pass_to(100);
    life.done();
    let beats = life.beats.len();
    life.tell(Event::Stop);
    life.pass_to(129);
    assert_eq!(life.done(), ["100 write LEAVING/4"]);
    assert!((beats + 5..=beats + 6).contains(&life.beats.len()), "it stays alive while it sleeps");
    life.pass_to(130);
    assert_eq!(life.done(), ["130 remove", "130 finished"]);
    life.look();
    life.tell(Event::Join);
    life.pass_to(1_000);
    assert_eq!(life.done(), [""; 0]);
    assert!(life.ring.is_empty());
    assert_eq!(life.change_state(State::Active), Err("lifecycler not running".into()));
}

#[test]
fn the_final_sleep_counts_from_the_moment_of_leaving() {
    let mut life = Life::start(Options { final_sleep: secs(30), ..options() });
    life.done();
    life.pass_to(100);
    life.change_state(State::Leaving).unwrap();
    life.pass_to(120);
    life.tell(Event::Stop);
    life.pass_to(130);
    assert_eq!(life.done(), ["100 write LEAVING/4", "130 remove", "130 finished"]);
}

#[test]
fn without_unregistering_the_entry_stays_leaving() {
    let mut life = Life::start(options());
    life.machine.set_unregister(false);
    life.done();
    life.tell(Event::Stop);
    assert_eq!(life.done(), ["0 write LEAVING/4", "0 finished"]);
    assert_eq!(life.own().state, State::Leaving);
}

#[test]
fn who_is_forgotten_while_leaving_does_not_come_back() {
    let mut life = Life::start(Options { final_sleep: secs(30), ..options() });
    life.tell(Event::Stop);
    life.ring = Desc::new();
    life.look();
    life.pass_to(29);
    assert!(life.ring.is_empty());
    life.done();
    life.pass_to(100);
    assert_eq!(life.done(), ["30 finished"]);
}

#[test]
fn stopping_while_joining_goes_back_to_pending() {
    let mut life =
        Life::start(Options { observe_period: after(60), unregister_on_shutdown: false, ..options() });
    life.pass_to(5);
    life.done();
    life.tell(Event::Stop);
    assert_eq!(life.done(), ["5 write PENDING/4", "5 finished"]);
}

#[test]
fn stopping_before_the_ring_was_seen_writes_nothing() {
    let mut life = Life::new(Options { final_sleep: secs(30), ..options() }, Desc::new(), None);
    life.tell(Event::Stop);
    assert_eq!(life.done(), ["0 finished"]);
}

#[test]
fn a_read_only_instance_stays_so_over_stop_and_start() {
    let mut life = Life::start(Options { unregister_on_shutdown: false, ..options() });
    life.change_state(State::ReadOnly).unwrap();
    life.tell(Event::Stop);
    assert_eq!(life.own().state, State::ReadOnly);
    let file = life.file.clone().unwrap();
    assert_eq!(file.previous_state, State::ReadOnly);
    // Even if the ring was lost meanwhile.
    let mut again = Life::new(options(), Desc::new(), Some(file));
    again.tell(Event::Synced);
    again.look();
    assert_eq!((again.own().state, &again.own().tokens), (State::ReadOnly, &life.own().tokens));
}

#[test]
fn going_back_from_read_only_is_a_new_registration() {
    let mut life = Life::start(options());
    life.pass_to(10);
    life.change_state(State::ReadOnly).unwrap();
    assert_eq!(life.own().registered_timestamp, START);
    life.pass_to(20);
    life.change_state(State::Active).unwrap();
    assert_eq!(life.own().registered_timestamp, START + 20);
}

#[test]
fn a_change_of_state_while_joining_says_where_joining_ends() {
    let mut life = Life::start(Options { auto_join: false, ..options() });
    life.done();
    life.change_state(State::ReadOnly).unwrap();
    assert_eq!(life.done(), ["0 write JOINING/4", "0 write READONLY/4", "0 save READONLY/4"]);
}

#[test]
fn changes_that_make_no_sense_are_refused_by_name() {
    let mut life = Life::start(options());
    for to in [State::Pending, State::Joining, State::Left, State::Unknown(9)] {
        let expected = format!("changing instance state from ACTIVE -> {to} is disallowed");
        assert_eq!(life.change_state(to), Err(expected));
    }
    life.change_state(State::Active).unwrap();
    life.change_state(State::Leaving).unwrap();
    assert!(life.change_state(State::Active).is_err());
}

#[test]
fn a_store_gateway_registers_as_joining_and_is_activated_from_outside() {
    let options = || Options { join_as: State::Joining, ..options() };
    let mut life = Life::start(options());
    assert_eq!(life.done(), ["0 write JOINING/4", "0 save ACTIVE/4"]);
    life.pass_to(60);
    assert_eq!(life.own().state, State::Joining);
    life.change_state(State::Active).unwrap();
    assert_eq!(life.done(), ["60 write ACTIVE/4"]);
    // After a crash it has to load its blocks again, with the tokens it had.
    let tokens = life.own().tokens.clone();
    let mut again = Life::start_on(options(), life.ring.clone());
    again.pass_to(60);
    assert_eq!((again.own().state, &again.own().tokens), (State::Joining, &tokens));
    assert_eq!(again.own().registered_timestamp, START);
    again.tell(Event::Stop);
    assert_eq!(again.done().iter().filter(|line| line.contains("LEAVING")).count(), 1);
}

#[test]
fn an_outage_is_ridden_out_and_the_newest_state_is_written_afterwards() {
    let mut life = Life::new(options(), Desc::new(), None);
    life.store_is_down = true;
    life.tell(Event::Synced);
    life.look();
    life.pass_to(60);
    assert!(life.ring.is_empty());
    let attempts = life.timestamps.len();
    assert!((12..=60).contains(&attempts), "{attempts} attempts in a minute");
    life.store_is_down = false;
    life.pass_to(70);
    assert_eq!(life.own().state, State::Active);
    // The same when it is up already, with a change in between.
    life.store_is_down = true;
    life.pass_to(200);
    life.change_state(State::ReadOnly).unwrap();
    life.store_is_down = false;
    life.pass_to(210);
    assert_eq!(life.own().state, State::ReadOnly);
    assert!(life.own().timestamp <= START + 210 + 2, "trying again does not run ahead of the clock");
}

#[test]
fn a_store_that_is_down_does_not_hold_up_the_exit() {
    let mut life = Life::start(options());
    life.store_is_down = true;
    life.done();
    life.tell(Event::Stop);
    assert_eq!(life.done(), ["0 write LEAVING/4", "0 remove", "0 finished"]);
}

#[test]
fn writes_that_take_longer_than_a_period_do_not_hold_up_the_exit() {
    for store_is_down in [false, true] {
        let mut life = Life::start(options());
        (life.store_is_down, life.write_takes) = (store_is_down, secs(10));
        life.done();
        life.tell(Event::Stop);
        assert_eq!(life.done(), ["0 write LEAVING/4", "10 remove", "10 finished"]);
    }
}

#[test]
fn the_file_is_written_only_after_joining() {
    let mut life = Life::start(Options { auto_join: false, ..options() });
    life.pass_to(100);
    life.tell(Event::Stop);
    assert_eq!(life.file, None);
    let mut life = Life::start(Options { observe_period: after(10), ..options() });
    life.pass_to(9);
    assert_eq!(life.file, None);
    life.pass_to(10);
    assert_eq!(life.file.as_ref().unwrap().tokens, life.own().tokens);
}

proptest! {
    /// Any number of joiners, reading and writing one ring in any order: no token is ever shared by two that take part.
    #[test]
    fn joiners_never_share_a_token(turns in proptest::collection::vec(0..4usize, 1..60)) {
        // All draw from one stream, so that they choose the same tokens as long as nothing tells them not to.
        let mut ring = Desc::new();
        let now = Now { elapsed: Duration::ZERO, unix_secs: START };
        let mut machines: Vec<Machine> = (0..4).map(|number| {
            let mut machine = Machine::new(Options { id: format!("i{number}"), ..options() }, None, 1);
            machine.generator = TokenStrategy::Random(TokenGenerator::random(Some(1)));
            machine.handle_event(now, Event::Synced);
            machine.handle_event(now, Event::Ring(None));
            machine
        }).collect();
        let everybody = (0..100).flat_map(|_| 0..4);
        for turn in turns.into_iter().chain(everybody) {
            let machine = &mut machines[turn];
            if let Some(Action::Write { entry, .. }) = machine.poll_action(now) {
                ring.insert(format!("i{turn}"), *entry);
                machine.handle_event(now, Event::Written(Arc::new(ring.clone())));
            }
            let taking_part = ring.iter().filter(|(_, entry)| entry.state == State::Active);
            let tokens: Vec<u32> = taking_part.flat_map(|(_, entry)| entry.tokens.to_vec()).collect();
            let distinct: BTreeSet<u32> = tokens.iter().copied().collect();
            prop_assert_eq!(tokens.len(), distinct.len());
        }
        for (_, entry) in &ring {
            prop_assert_eq!((entry.state, entry.tokens.len()), (State::Active, 4));
        }
    }
}
