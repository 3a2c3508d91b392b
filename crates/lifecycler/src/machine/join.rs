//! Choosing tokens, and making sure that nobody else has them.

use std::collections::BTreeSet;
use std::time::Duration;

use rand::RngExt as _;
use ringkit_config::AutoDuration;
use ringkit_ring::{Desc, EntryId, GenerateError, State, TokenRequest, TokenStrategy, Tokens};

use super::{Machine, Now, Phase, Turn};
use crate::options::Options;

/// How often an instance that waits for others to choose tokens asks whether it is its turn, if nothing happens.
const TURN_PERIOD: Duration = Duration::from_secs(1);

/// How long it waits for the same one, if no heartbeat timeout says when that one counts as dead.
const DEFAULT_PATIENCE: Duration = Duration::from_secs(60);

impl Machine {
    /// Joins after `join_after`, if that was not asked for before. Without a ring to join yet, it is remembered.
    pub(super) fn request_join(&mut self, now: Now) {
        let first = !std::mem::replace(&mut self.join_requested, true);
        if let Phase::Pending { join_at: None } = self.phase
            && first
        {
            self.phase = Phase::Pending { join_at: Some(now.elapsed + self.join_delay()) };
        }
    }

    /// The tokens of the tokens file, each once.
    pub(super) fn file_tokens(&self) -> Tokens {
        self.file.as_ref().map(|file| file.tokens.normalized()).unwrap_or_default()
    }

    /// Publishes tokens as JOINING: those that the ring has for us, else those of the file, else new ones. If it is
    /// another's turn to choose, comes back later.
    pub(super) fn start_join(&mut self, now: Now) {
        self.registered = true;
        self.join_requested = true;
        let before = self.tokens.clone();
        if self.tokens.is_empty() {
            self.tokens = self.file_tokens();
        }
        // Tokens from a file, or from before a crash, may be somebody else's by now.
        self.drop_tokens(&self.held_by_others(self.tokens.iter().copied()));
        self.trim();
        if let Err(first) = self.draw_in_turn(now) {
            self.tokens = before;
            self.wait_for_turn(now, first);
            return;
        }
        self.turn = None;
        self.phase = Phase::Joining { observe_until: None };
        self.unverified = self.tokens.iter().copied().collect();
        self.become_state(State::Joining, now);
        self.begin_heartbeats(now);
    }

    /// The entry was written: what does the ring say right after it?
    pub(super) fn verify_after_write(&mut self, now: Now) {
        let clean = self.verify(now);
        if let Phase::Joining { observe_until: None } = self.phase
            && clean
            && self.is_published()
        {
            match self.options.observe_period {
                AutoDuration::After(period) if !period.is_zero() => {
                    self.phase = Phase::Joining { observe_until: Some(now.elapsed + period) };
                }
                _ => self.settle(now),
            }
        }
    }

    /// Nothing was found while observing: the tokens are ours.
    pub(super) fn end_observation(&mut self, now: Now) {
        if self.verify(now) {
            self.settle(now);
        }
    }

    /// Takes part from now on.
    pub(super) fn settle(&mut self, now: Now) {
        if let Phase::Joining { .. } = self.phase {
            self.unverified.clear();
            if self.target != self.state {
                self.become_state(self.target, now);
            }
        }
        self.phase = Phase::Joined;
        self.joined_once = true;
        self.save_due = true;
    }

    /// Draws what is missing to an instance that takes part already, for example because more tokens are configured.
    pub(super) fn top_up(&mut self) {
        self.unverified = self.draw(true).unwrap_or_default().into_iter().collect();
    }

    /// Drops tokens at random down to the configured number, for an instance that nobody reads from at the moment. One
    /// that takes part keeps what it has: its data is there.
    pub(super) fn trim(&mut self) {
        let excess = self.tokens.len().saturating_sub(self.options.num_tokens);
        let mut left = self.tokens.to_vec();
        let dropped =
            (0..excess).map(|_| left.swap_remove(self.random.random_range(0..left.len()))).collect();
        self.drop_tokens(&dropped);
    }

    /// Looks for tokens that the ring says are not ours, and replaces those not yet relied on. True if there are none.
    pub(super) fn verify(&mut self, now: Now) -> bool {
        let lost = self.lost_tokens();
        let contested: BTreeSet<u32> =
            self.held_by_others(self.unverified.iter().copied()).union(&lost).copied().collect();
        if contested.is_empty() {
            if !matches!(self.phase, Phase::Joining { .. }) && self.writing.is_none() && self.is_published() {
                self.unverified.clear();
            }
            return true;
        }
        let redraws = matches!(self.phase, Phase::Joining { .. }) || !self.unverified.is_disjoint(&contested);
        self.drop_tokens(&contested);
        if redraws {
            let fresh = self.draw(true).unwrap_or_default();
            self.unverified.extend(fresh);
        }
        if let Phase::Joining { observe_until } = &mut self.phase {
            *observe_until = None;
        }
        self.save_due |= self.joined_once;
        self.write_now(now);
        false
    }

    /// Tokens of ours that our entry in the ring lacks and that somebody else has: a merge gave them to him.
    fn lost_tokens(&self) -> BTreeSet<u32> {
        let Some(own) = self.ring.get(&self.options.id) else { return BTreeSet::new() };
        if own.tokens == self.tokens {
            return BTreeSet::new();
        }
        let kept: BTreeSet<u32> = own.tokens.iter().copied().collect();
        self.held_by_others(self.tokens.iter().copied().filter(|token| !kept.contains(token)))
    }

    /// Which of these tokens some other instance of the ring claims.
    fn held_by_others(&self, tokens: impl Iterator<Item = u32>) -> BTreeSet<u32> {
        let wanted: BTreeSet<u32> = tokens.collect();
        if wanted.is_empty() {
            return wanted;
        }
        let others =
            self.ring.iter().filter(|(id, entry)| **id != self.options.id && entry.state != State::Left);
        others
            .flat_map(|(_, entry)| entry.tokens.iter().copied())
            .filter(|token| wanted.contains(token))
            .collect()
    }

    fn drop_tokens(&mut self, dropped: &BTreeSet<u32>) {
        if !dropped.is_empty() {
            self.tokens = self.tokens.iter().copied().filter(|token| !dropped.contains(token)).collect();
            self.unverified.retain(|token| !dropped.contains(token));
        }
    }

    /// Draws the tokens that are missing to the configured number and returns them. With `force` it does not wait for
    /// others to choose first.
    fn draw(&mut self, force: bool) -> Result<Vec<u32>, GenerateError> {
        let missing = self.options.num_tokens.saturating_sub(self.tokens.len());
        if missing == 0 {
            return Ok(Vec::new());
        }
        // The ring as this instance knows it: what it has counts, whether or not it was published yet.
        let mut ring = Desc::clone(&self.ring);
        ring.insert(self.options.id.as_str(), self.desired(self.last_timestamp));
        // The configured zone: what the ring says of a new instance, or of one that was moved, is not where it is.
        let Options { id, zone, .. } = &self.options;
        let fresh = self.generator.generate(&TokenRequest { id, zone, n: missing, force }, &ring)?;
        self.tokens = Tokens::from([&self.tokens[..], &fresh[..]].concat()).normalized();
        Ok(fresh)
    }

    /// Draws once it is this instance's turn, or once who is to choose first did not for so long that it looks dead.
    ///
    /// # Errors
    ///
    /// Who is to choose first.
    fn draw_in_turn(&mut self, now: Now) -> Result<(), EntryId> {
        let patience = match self.options.heartbeat_timeout {
            Duration::ZERO => DEFAULT_PATIENCE,
            timeout => timeout,
        };
        let force = self.turn.as_ref().is_some_and(|turn| now.elapsed >= turn.since + patience);
        let takes_turns = matches!(self.generator, TokenStrategy::MinimizeSpread(_));
        let missing = self.options.num_tokens > self.tokens.len();
        if takes_turns && missing && !force && !self.ring.contains(&self.options.id) {
            // Others can only let us go first if they see us.
            return Err(self.options.id.as_str().into());
        }
        match self.draw(force) {
            Err(GenerateError::Contended { before }) => Err(before),
            // With fewer tokens than configured an instance does its work too.
            Ok(_) | Err(_) => Ok(()),
        }
    }

    /// Stays PENDING, for all to see, and asks again whenever the ring changes, and now and then.
    fn wait_for_turn(&mut self, now: Now, before: EntryId) {
        self.phase = Phase::Pending { join_at: Some(now.elapsed + TURN_PERIOD) };
        if self.turn.as_ref().is_none_or(|turn| turn.before != before) {
            self.turn = Some(Turn { before, since: now.elapsed });
        }
        if !self.is_published() && self.writing.is_none() && self.write_at.is_none() {
            self.write_now(now);
        }
        self.begin_heartbeats(now);
    }

    /// The ring was looked at: it may be our turn now.
    pub(super) fn ask_for_turn(&mut self, now: Now) {
        if let Phase::Pending { join_at: join_at @ Some(_) } = &mut self.phase
            && self.turn.is_some()
        {
            *join_at = Some(now.elapsed);
        }
    }
}
