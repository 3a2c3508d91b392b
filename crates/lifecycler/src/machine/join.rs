//! Choosing tokens, and making sure that nobody else has them.

use std::collections::BTreeSet;

use ringkit_config::AutoDuration;
use ringkit_ring::{State, Tokens};

use super::{Machine, Now, Phase};

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

    /// Publishes tokens as JOINING: those that the ring has for us, else those of the file, else new ones.
    pub(super) fn start_join(&mut self, now: Now) {
        self.phase = Phase::Joining { observe_until: None };
        self.registered = true;
        self.join_requested = true;
        if self.tokens.is_empty() {
            self.tokens = self.file_tokens();
        }
        // Tokens from a file, or from before a crash, may be somebody else's by now.
        self.drop_tokens(&self.held_by_others(self.tokens.iter().copied()));
        self.draw();
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
    /// Excess tokens are kept: dropping them would move data away from where it is.
    pub(super) fn top_up(&mut self) {
        self.unverified = self.draw().into_iter().collect();
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
            let fresh = self.draw();
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

    /// Draws the tokens that are missing to the configured number and returns them.
    fn draw(&mut self) -> Vec<u32> {
        let missing = self.options.num_tokens.saturating_sub(self.tokens.len());
        if missing == 0 {
            return Vec::new();
        }
        let taken = || self.ring.iter().flat_map(|(_, entry)| entry.tokens.iter().copied());
        let fresh = self.generator.generate_avoiding(missing, || taken().chain(self.tokens.iter().copied()));
        self.tokens = Tokens::from([&self.tokens[..], &fresh[..]].concat()).normalized();
        fresh
    }
}
