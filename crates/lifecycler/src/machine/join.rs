//! Choosing tokens, and making sure that nobody else has them.

use std::collections::BTreeSet;
use std::time::Duration;

use rand::RngExt as _;
use ringkit_config::AutoDuration;
use ringkit_ring::{
    Desc, EntryId, GenerateError, InstanceDesc, State, TokenRequest, TokenStrategy, Tokens, is_fresh,
};

use super::{Machine, Notice, Now, Phase, Turn};
use crate::options::Options;

/// How often an instance that waits for others to choose tokens asks whether it is its turn, if nothing happens.
const TURN_PERIOD: Duration = Duration::from_secs(1);

/// How long it waits for the same one at most; less where the heartbeat timeout is less.
const MAX_PATIENCE: Duration = Duration::from_secs(60);

/// How long it waits for further ones, once it has given up on somebody. They have waited for the same one, so they give
/// up at about the same time and then need a moment only; and many that never choose do not add up.
const FURTHER_PATIENCE: Duration = Duration::from_secs(5);

/// Why an instance that wants to join has to wait.
enum Obstacle {
    /// This one is to choose tokens first.
    Turn(EntryId),
    /// There is not a single token to be had.
    NoTokens,
}

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
        if let Err(obstacle) = self.draw_in_turn(now) {
            self.tokens = before;
            self.wait(now, obstacle);
            return;
        }
        self.turn = None;
        self.passed_over.clear();
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
    pub(super) fn top_up(&mut self, now: Now) {
        self.unverified = self.draw(now, true).unwrap_or_default().into_iter().collect();
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

    /// Drops `number` tokens at random and draws others.
    pub(super) fn exchange(&mut self, now: Now, number: usize) -> usize {
        let mut left = self.tokens.to_vec();
        let dropped: BTreeSet<u32> =
            (0..number).map(|_| left.swap_remove(self.random.random_range(0..left.len()))).collect();
        self.drop_tokens(&dropped);
        let fresh = self.draw(now, true).unwrap_or_default();
        self.unverified.extend(fresh);
        dropped.len()
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
            let fresh = self.draw(now, true).unwrap_or_default();
            self.unverified.extend(fresh);
        }
        if let Phase::Joining { observe_until } = &mut self.phase {
            *observe_until = None;
            if self.has_none_of_its_tokens() {
                self.phase = Phase::Pending { join_at: Some(now.elapsed + TURN_PERIOD) };
                self.become_state(State::Pending, now);
            }
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

    /// Which of our tokens are somebody else's in the eyes of readers, because his id is greater. They are left over when a life
    /// ended after tokens were drawn and before anybody looked whether others had drawn them too.
    pub(super) fn held_by_greater(&self) -> BTreeSet<u32> {
        let own: BTreeSet<u32> = self.tokens.iter().copied().collect();
        let greater = self
            .ring
            .iter()
            .filter(|(id, entry)| id.as_str() > self.options.id.as_str() && entry.state != State::Left);
        let theirs = greater.flat_map(|(_, entry)| entry.tokens.iter().copied());
        theirs.filter(|token| own.contains(token)).collect()
    }

    pub(super) fn drop_tokens(&mut self, dropped: &BTreeSet<u32>) {
        if !dropped.is_empty() {
            self.tokens = self.tokens.iter().copied().filter(|token| !dropped.contains(token)).collect();
            self.unverified.retain(|token| !dropped.contains(token));
        }
    }

    fn has_none_of_its_tokens(&self) -> bool {
        self.tokens.is_empty() && self.options.num_tokens > 0
    }

    /// Draws the tokens that are missing to the configured number, or as many as there are, and returns them. With `force`
    /// it does not wait for others to choose first.
    fn draw(&mut self, now: Now, force: bool) -> Result<Vec<u32>, GenerateError> {
        let missing = self.options.num_tokens.saturating_sub(self.tokens.len());
        if missing == 0 {
            return Ok(Vec::new());
        }
        // The ring as this instance knows it: what it has counts, whether or not it was published yet.
        let mut ring = Desc::clone(&self.ring);
        let others = self.ring.iter().filter(|(_, entry)| entry.tokens.is_empty());
        for (id, _) in others.filter(|(id, entry)| !self.will_choose(id, entry, now)) {
            ring.remove(id);
        }
        ring.insert(self.options.id.as_str(), self.desired(self.last_timestamp));
        // The configured zone: what the ring says of a new instance, or of one that was moved, is not where it is.
        let Options { id, zone, num_tokens, .. } = &self.options;
        let fresh = match self.generator.generate(&TokenRequest { id, zone, n: missing, force }, &ring) {
            Err(GenerateError::Exhausted { tokens, .. }) => {
                let available = self.tokens.len() + tokens.len();
                if self.told_available.replace(available) != Some(available) {
                    self.notices.push_back(Notice::TooFewTokens { wanted: *num_tokens, available });
                }
                tokens
            }
            generated => {
                self.told_available = None;
                generated?
            }
        };
        self.tokens = Tokens::from([&self.tokens[..], &fresh[..]].concat()).normalized();
        Ok(fresh)
    }

    /// Whether an instance without tokens is one to wait for, and to share with: on its way into the ring, alive, and not
    /// given up on.
    fn will_choose(&self, id: &EntryId, entry: &InstanceDesc, now: Now) -> bool {
        matches!(entry.state, State::Pending | State::Joining)
            && is_fresh(entry.timestamp, now.unix_secs, self.options.heartbeat_timeout)
            && !self.passed_over.contains(id)
    }

    /// Draws once it is this instance's turn, or once whoever is to choose first did not for so long that the others must
    /// do without.
    fn draw_in_turn(&mut self, now: Now) -> Result<(), Obstacle> {
        self.lose_patience(now);
        if self.options.num_tokens > self.tokens.len() {
            let own = EntryId::from(self.options.id.as_str());
            let shown = self.ring.get(&own).is_some_and(|entry| entry.state != State::Left);
            let shows_itself = matches!(self.generator, TokenStrategy::MinimizeSpread(_));
            if shows_itself && !shown && !self.passed_over.contains(&own) {
                // Others can only let us go first if they see us.
                return Err(Obstacle::Turn(own));
            }
            if let Err(GenerateError::PredecessorMissing { predecessor }) =
                self.generator.can_join(&self.ring)
            {
                let first = EntryId::from(predecessor.as_str());
                if !self.passed_over.contains(&first) {
                    return Err(Obstacle::Turn(first));
                }
            }
        }
        match self.draw(now, false) {
            Err(GenerateError::Contended { before }) => Err(Obstacle::Turn(before)),
            Ok(_) | Err(_) if self.has_none_of_its_tokens() => Err(Obstacle::NoTokens),
            // With fewer tokens than configured an instance does its work too.
            Ok(_) | Err(_) => Ok(()),
        }
    }

    /// Gives up on the one that is waited for, if that has been long enough.
    fn lose_patience(&mut self, now: Now) {
        let patience = match self.options.heartbeat_timeout {
            _ if self.passed_over.iter().any(|id| *id != self.options.id) => FURTHER_PATIENCE,
            Duration::ZERO => MAX_PATIENCE,
            timeout => timeout.min(MAX_PATIENCE),
        };
        let Some(turn) = self.turn.take_if(|turn| now.elapsed >= turn.since + patience) else { return };
        if turn.before != self.options.id {
            let waited = now.elapsed - turn.since;
            self.notices.push_back(Notice::GaveUpOn { first: turn.before.clone(), waited });
        }
        self.passed_over.insert(turn.before);
    }

    /// Stays PENDING, for all to see, and asks again whenever the ring changes, and now and then.
    fn wait(&mut self, now: Now, obstacle: Obstacle) {
        self.phase = Phase::Pending { join_at: Some(now.elapsed + TURN_PERIOD) };
        let last = self.turn.take();
        if let Obstacle::Turn(before) = obstacle {
            let begins = last.as_ref().is_none_or(|last| last.before == self.options.id);
            if begins && before != self.options.id {
                self.notices.push_back(Notice::WaitsFor(before.clone()));
            }
            let same = last.filter(|last| last.before == before);
            self.turn = Some(same.unwrap_or(Turn { before, since: now.elapsed }));
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
