//! The life of one ring entry, without I/O: time and the ring come in as arguments, work goes out as data.
//!
//! The machine knows what its entry should say and asks for a write whenever the ring says something else: after a change
//! of its own, at each heartbeat, after a failure, and when somebody else removed or changed the entry. Only one write is
//! under way at a time, and it always carries the newest content, so nothing is lost by writing late.
//!
//! Joining needs no lock. Tokens are first published as JOINING; whoever then reads, in the ring as it is after his own
//! write, that another instance has one of his tokens, gives it up and draws another. Of two writes one is later, and its
//! writer sees the other: so both never keep the token.

mod entry;
#[cfg(test)]
mod hazards;
mod join;
mod leave;
#[cfg(test)]
mod model;
mod start;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod turns;
#[cfg(test)]
mod vectors;

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use rand::SeedableRng as _;
use rand::rngs::SmallRng;
use ringkit_config::AutoDuration;
use ringkit_ring::{
    Desc, EntryId, InstanceDesc, MinimizeSpread, State, TokenGenerator, TokenStrategy, Tokens,
};
use ringkit_runtime::Backoff;

use crate::error::Error;
use crate::options::{Options, RegisteredAt, TokenChoice};
use crate::tokens_file::TokensFile;

/// A moment, in the two times that matter here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Now {
    /// Monotonic time since any fixed moment.
    pub elapsed: Duration,
    /// Wall time in Unix seconds.
    pub unix_secs: i64,
}

/// What the machine is told.
#[derive(Clone, Debug)]
pub enum Event {
    /// The store reflects its cluster.
    Synced,
    /// What the ring holds now; `None` = there is no such key.
    Ring(Option<Arc<Desc>>),
    /// The write worked, and this is the ring right after it.
    Written(Arc<Desc>),
    /// The write failed; it may have landed all the same.
    WriteFailed,
    /// The removal worked, or was given up.
    Removed,
    /// Join the ring now.
    Join,
    /// Time has passed.
    Timeout,
    /// Leave the ring.
    Stop,
    /// Whatever the final sleep waits for is through: it may end.
    Rested,
}

/// What the machine wants done, in order.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Write the own entry, then tell [`Event::Written`] or [`Event::WriteFailed`].
    Write {
        /// The entry.
        entry: Box<InstanceDesc>,
        /// Whether this is (also) a heartbeat.
        heartbeat: bool,
        /// Whether what is told of the ring must have been read after the write, because tokens depend on it.
        decisive: bool,
    },
    /// Save the tokens. Failure is the shell's to report; the machine goes on.
    Save(TokensFile),
    /// Remove the own entry, then tell [`Event::Removed`].
    Remove,
    /// The instance has left; nothing more will come.
    Finished,
}

/// What an operator may want to know, apart from changes of state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Notice {
    /// It waits until this instance, or one after it, has chosen its tokens.
    WaitsFor(EntryId),
    /// That instance seemed alive and did not choose: it is waited for no longer.
    GaveUpOn {
        /// Who did not choose.
        first: EntryId,
        /// How long it was waited for.
        waited: Duration,
    },
    /// Another process lives under the same id, at this address.
    Rival {
        /// Where.
        addr: String,
    },
    /// There are not as many tokens as wanted. It joins with those that there are; with none it stays PENDING and tries
    /// again.
    TooFewTokens {
        /// How many were to be owned.
        wanted: usize,
        /// How many there are, those owned already included.
        available: usize,
    },
}

/// How far the instance has got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Has not seen the ring yet.
    Unregistered,
    /// Owns nothing yet; joins at this time, or when told.
    Pending { join_at: Option<Duration> },
    /// Has published tokens and watches for others who chose the same, until this time once they are published.
    Joining { observe_until: Option<Duration> },
    /// Takes part.
    Joined,
    /// On its way out since this time. Once stopping, it goes after the final sleep.
    Leaving { since: Duration, stopping: bool },
    /// The entry is being removed.
    Removing,
    /// Gone for good.
    Gone,
}

/// Pauses between failed writes. The store's client has tried several times already when it reports a failure.
const MIN_RETRY: Duration = Duration::from_millis(100);
const MAX_RETRY: Duration = Duration::from_secs(5);

/// Somebody who is to choose tokens first, and since when.
#[derive(Debug)]
struct Turn {
    before: EntryId,
    since: Duration,
}

/// The life of one ring entry. Tell it events, then do what [`Machine::poll_action`] says until there is nothing left,
/// and come back with [`Event::Timeout`] at [`Machine::poll_timeout`].
#[derive(Debug)]
pub struct Machine {
    options: Options,
    file: Option<TokensFile>,
    generator: TokenStrategy,
    random: SmallRng,
    retry: Backoff,
    actions: VecDeque<Action>,

    phase: Phase,
    state: State,
    /// The state that joining ends in.
    target: State,
    /// The state to go back to after a restart: ACTIVE or READONLY.
    resume_as: State,
    tokens: Tokens,
    registered_at: i64,
    /// Parts of the entry that are not ours to decide, as the ring had them at the start.
    foreign: InstanceDesc,
    /// Whether the ring is to hold the entry.
    registered: bool,
    join_requested: bool,
    unregister: bool,
    /// For whom choosing tokens waits, and for whom it waits no longer.
    turn: Option<Turn>,
    passed_over: BTreeSet<EntryId>,
    /// How many tokens there were when fewer than wanted were last told of.
    told_available: Option<usize>,
    notices: VecDeque<Notice>,
    /// Tokens of which no read has shown yet that nobody else has them.
    unverified: BTreeSet<u32>,
    /// Whether the tokens were joined with, and whether the file knows.
    joined_once: bool,
    save_due: bool,
    rested: bool,
    /// Whether what the ring has for us does not count.
    draws_anew: bool,

    synced: bool,
    /// The newest look at the ring, and whether there was one.
    ring: Arc<Desc>,
    ring_known: bool,
    written: Option<InstanceDesc>,
    writing: Option<InstanceDesc>,
    /// Whether the state to leave with was not yet tried to be written.
    farewell_due: bool,
    write_at: Option<Duration>,
    beat_at: Option<Duration>,
    reasserted_at: Option<Duration>,
    /// Newest timestamp that was tried to write, and when it last moved.
    last_timestamp: i64,
    timestamp_moved_at: Duration,
    /// Newest timestamp seen on the own entry.
    seen_timestamp: i64,
    /// When another process was last seen to write the own entry, and when that was last told.
    rival_seen_at: Option<Duration>,
    rival_told_at: Option<Duration>,
}

impl Machine {
    /// An instance that has not seen its ring yet. `file` is what its tokens file says, `seed` decides tokens and jitter.
    pub fn new(options: Options, file: Option<TokensFile>, seed: u64) -> Self {
        let target = match &file {
            Some(file) if options.join_as != State::Joining && file.previous_state == State::ReadOnly => {
                State::ReadOnly
            }
            _ => options.join_as,
        };
        // Instances of one test share a seed; their tokens must differ all the same.
        let seed = options
            .id
            .bytes()
            .fold(seed, |seed, byte| (seed ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3));
        Self {
            generator: match &options.token_choice {
                TokenChoice::Random => TokenStrategy::Random(TokenGenerator::random(Some(seed))),
                TokenChoice::MinimizeSpread => TokenStrategy::MinimizeSpread(MinimizeSpread::new(Some(seed))),
                TokenChoice::SpreadMinimizing(fixed) => TokenStrategy::SpreadMinimizing(Arc::clone(fixed)),
            },
            random: SmallRng::seed_from_u64(seed),
            retry: Backoff::with_seed(MIN_RETRY, MAX_RETRY, seed),
            actions: VecDeque::new(),
            phase: Phase::Unregistered,
            state: State::Pending,
            target,
            resume_as: State::Active,
            tokens: Tokens::empty(),
            registered_at: 0,
            foreign: InstanceDesc::default(),
            registered: false,
            join_requested: options.auto_join,
            unregister: options.unregister_on_shutdown,
            turn: None,
            passed_over: BTreeSet::new(),
            told_available: None,
            notices: VecDeque::new(),
            unverified: BTreeSet::new(),
            joined_once: false,
            save_due: false,
            rested: false,
            draws_anew: false,
            synced: false,
            ring: Arc::default(),
            ring_known: false,
            written: None,
            writing: None,
            farewell_due: false,
            write_at: None,
            beat_at: None,
            reasserted_at: None,
            last_timestamp: 0,
            timestamp_moved_at: Duration::ZERO,
            seen_timestamp: 0,
            rival_seen_at: None,
            rival_told_at: None,
            options,
            file,
        }
    }

    /// Before the start: the tokens that the ring has for the instance are not taken over either.
    pub fn draw_anew(&mut self) {
        self.draws_anew = true;
    }

    /// The state the instance considers itself in; the ring may lag behind.
    pub fn state(&self) -> State {
        self.state
    }

    /// The tokens the instance considers its own, sorted.
    pub fn tokens(&self) -> &Tokens {
        &self.tokens
    }

    /// When the instance registered, in Unix seconds; 0 = unknown.
    pub fn registered_at(&self) -> i64 {
        self.registered_at
    }

    /// Whether joining is done.
    pub fn is_joined(&self) -> bool {
        self.joined_once
    }

    /// Whether the last write that worked said what the instance considers true.
    pub fn is_published(&self) -> bool {
        self.registered && self.written.as_ref().is_some_and(|written| self.is_as_desired(written))
    }

    /// Whether the ring is to know nothing of the instance any more: nothing that it changes will be published.
    pub fn is_forgotten(&self) -> bool {
        self.joined_once && !self.registered
    }

    /// The instance that is to choose its tokens before this one can; `None` = nobody, or there is nothing to choose.
    ///
    /// While the ring does not show the own entry yet, that is the instance itself.
    pub fn waits_for(&self) -> Option<&EntryId> {
        self.turn.as_ref().map(|turn| &turn.before)
    }

    /// What there is to tell; to be asked until there is nothing left, after each event and change of state.
    pub fn poll_notice(&mut self) -> Option<Notice> {
        self.notices.pop_front()
    }

    /// Whether the entry is removed at the end.
    pub fn set_unregister(&mut self, unregister: bool) {
        self.unregister = unregister;
    }

    /// What to do next; `None` = wait for an event or for [`Machine::poll_timeout`].
    ///
    /// A write is put together only when it is asked for here, so that it carries the newest state.
    pub fn poll_action(&mut self, now: Now) -> Option<Action> {
        self.actions.pop_front().or_else(|| self.leave_if_due(now)).or_else(|| self.write_if_due(now))
    }

    /// When [`Event::Timeout`] is due, on the clock of [`Now::elapsed`]; `None` = never.
    pub fn poll_timeout(&self) -> Option<Duration> {
        let phase = match self.phase {
            Phase::Pending { join_at } => join_at,
            Phase::Joining { observe_until } => observe_until,
            // Not before the last write is through, which has a time of its own.
            Phase::Leaving { since, stopping: true } if !self.waits_for_farewell() => {
                Some(since + self.final_sleep())
            }
            _ => None,
        };
        let writes = if self.writing.is_none() && self.holds_entry() {
            [self.write_at, self.beat_at]
        } else {
            [None, None]
        };
        [phase].into_iter().chain(writes).flatten().min()
    }

    /// Takes in what happened.
    pub fn handle_event(&mut self, now: Now, event: Event) {
        match event {
            Event::Synced => {
                self.synced = true;
            }
            Event::Ring(ring) => {
                self.ring = ring.unwrap_or_default();
                self.note_own_timestamp(now);
                match self.phase {
                    Phase::Unregistered => self.start_if_possible(now, true),
                    _ => self.compare_with_ring(now),
                }
                self.ask_for_turn(now);
            }
            Event::Written(ring) => {
                self.ring = ring;
                self.written = self.writing.take();
                self.retry.reset();
                self.write_at = None;
                self.verify_after_write(now);
                if !self.is_published() && self.registered {
                    self.write_at = Some(now.elapsed);
                }
                self.ask_for_turn(now);
            }
            Event::WriteFailed => {
                self.writing = None;
                // It may have landed: the next one must say something newer, whatever it says.
                self.written = None;
                self.write_at = Some(now.elapsed + self.retry.next());
            }
            Event::Removed => {
                self.phase = Phase::Gone;
                self.actions.push_back(Action::Finished);
            }
            Event::Join => self.request_join(now),
            Event::Timeout => (),
            Event::Stop => self.stop(now),
            Event::Rested => self.rested = true,
        }
        self.advance(now);
    }

    /// Goes to another state on request. Going to the present state is success.
    ///
    /// From PENDING or JOINING, ACTIVE and READONLY are where joining will end.
    ///
    /// # Errors
    ///
    /// [`Error::Disallowed`]; nothing changed.
    pub fn change_state(&mut self, now: Now, to: State) -> Result<(), Error> {
        let from = self.state;
        match (self.phase, from, to) {
            (Phase::Removing | Phase::Gone, ..) => return Err(Error::NotRunning),
            _ if from == to => return Ok(()),
            (Phase::Unregistered | Phase::Pending { .. }, State::Pending, State::Joining) => {
                self.request_join(now);
            }
            (
                Phase::Unregistered | Phase::Pending { .. } | Phase::Joining { .. },
                _,
                State::Active | State::ReadOnly,
            ) => {
                self.target = to;
                self.request_join(now);
            }
            (Phase::Joining { .. }, State::Joining, State::Pending) => {
                self.phase = Phase::Pending { join_at: None };
                self.join_requested = false;
                self.become_state(State::Pending, now);
            }
            (Phase::Joined, State::Joining | State::Active, State::Active | State::ReadOnly) => {
                self.become_state(to, now);
            }
            (Phase::Joined, State::ReadOnly, State::Active) => {
                self.registered_at = self.registration_time(now);
                self.become_state(to, now);
            }
            (Phase::Joined, _, State::Leaving) => {
                self.phase = Phase::Leaving { since: now.elapsed, stopping: false };
                self.become_state(to, now);
            }
            _ => return Err(Error::Disallowed { from, to }),
        }
        if self.joined_once && matches!(to, State::Active | State::ReadOnly) {
            self.save_due = true;
        }
        self.advance(now);
        Ok(())
    }

    /// As [`Machine::change_state`], but the next life is what this one was before.
    ///
    /// # Errors
    ///
    /// As [`Machine::change_state`].
    pub fn change_state_for_now(&mut self, now: Now, to: State) -> Result<(), Error> {
        let (resume_as, save_due) = (self.resume_as, self.save_due);
        let changed = self.change_state(now, to);
        (self.resume_as, self.save_due) = (resume_as, save_due);
        changed
    }

    /// Gives up this part of the tokens, chosen at random, for new ones, and tells how many. What they stand for is then
    /// others' and others' is ours, so it is for rings that may be reshuffled a little.
    ///
    /// # Errors
    ///
    /// [`Error::NotJoined`]; nothing changed.
    ///
    /// # Source
    ///
    /// Cortex `pkg/ring/lifecycler.go`, `RenewTokens`.
    pub fn renew_tokens(&mut self, now: Now, ratio: f64) -> Result<usize, Error> {
        if self.phase != Phase::Joined {
            return Err(Error::NotJoined { state: self.state });
        }
        #[expect(clippy::cast_precision_loss, reason = "at most 65,536 tokens")]
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "between 0 and as many as there are"
        )]
        let number = (self.options.num_tokens as f64 * ratio.clamp(0.0, 1.0)).floor() as usize;
        let renewed = self.exchange(now, number.min(self.tokens.len()));
        if renewed > 0 {
            self.save_due = true;
            self.write_now(now);
        }
        Ok(renewed)
    }

    fn become_state(&mut self, state: State, now: Now) {
        if let State::Active | State::ReadOnly = state {
            self.resume_as = state;
        }
        self.state = state;
        self.write_now(now);
    }

    fn write_now(&mut self, now: Now) {
        self.write_at = Some(now.elapsed);
    }

    /// Whether this machine may write: not before it knows the ring, and never again once removal began.
    fn holds_entry(&self) -> bool {
        self.registered && !matches!(self.phase, Phase::Unregistered | Phase::Removing | Phase::Gone)
    }

    fn registration_time(&self, now: Now) -> i64 {
        match self.options.registered_at {
            RegisteredAt::Now => now.unix_secs,
            RegisteredAt::Known(at) => at,
        }
    }

    /// Does what is due.
    fn advance(&mut self, now: Now) {
        if self.phase == Phase::Unregistered {
            self.start_if_possible(now, false);
        }
        match self.phase {
            Phase::Pending { join_at: Some(at) } if at <= now.elapsed => self.start_join(now),
            Phase::Joining { observe_until: Some(until) } if until <= now.elapsed => {
                self.end_observation(now);
            }
            _ => (),
        }
        self.save_if_due();
    }

    fn save_if_due(&mut self) {
        if self.save_due && self.unverified.is_empty() && self.is_published() {
            self.save_due = false;
            let file = TokensFile { tokens: self.tokens.clone(), previous_state: self.resume_as };
            if self.file.as_ref() != Some(&file) {
                self.file = Some(file.clone());
                self.actions.push_back(Action::Save(file));
            }
        }
    }

    fn join_delay(&self) -> Duration {
        match self.options.join_after {
            AutoDuration::Auto => Duration::ZERO,
            AutoDuration::After(delay) => delay,
        }
    }
}
