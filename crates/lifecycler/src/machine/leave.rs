//! Leaving the ring.

use std::time::Duration;

use ringkit_ring::State;

use super::{Action, Machine, Now, Phase};

impl Machine {
    pub(super) fn stop(&mut self, now: Now) {
        let since = match self.phase {
            Phase::Removing | Phase::Gone => return,
            Phase::Leaving { since, .. } => since,
            _ => now.elapsed,
        };
        // From JOINING back to PENDING: nobody was promised anything, and the next start joins anew with these tokens.
        let state = match (self.phase, self.state) {
            (Phase::Joining { .. }, _) if self.target != State::Joining => State::Pending,
            // Going to LEAVING is a delegate's decision, made before this.
            (_, state) if !self.options.delegates.is_empty() => state,
            (Phase::Joining { .. } | Phase::Joined, State::Active | State::Joining) => State::Leaving,
            (_, state) => state,
        };
        self.phase = Phase::Leaving { since, stopping: true };
        self.turn = None;
        if state != self.state {
            self.farewell_due = self.registered;
            self.become_state(state, now);
        }
    }

    pub(super) fn leave_if_due(&mut self, now: Now) -> Option<Action> {
        let Phase::Leaving { since, stopping: true } = self.phase else { return None };
        if self.waits_for_farewell() || now.elapsed < since + self.final_sleep() {
            return None;
        }
        if self.registered && self.unregister {
            self.phase = Phase::Removing;
            return Some(Action::Remove);
        }
        self.phase = Phase::Gone;
        Some(Action::Finished)
    }

    /// The last state is tried once to be published. If the store is down, the exit does not wait for it.
    pub(super) fn waits_for_farewell(&self) -> bool {
        self.writing.is_some() || (self.farewell_due && self.holds_entry())
    }

    /// Who never took part has nobody to wait for.
    pub(super) fn final_sleep(&self) -> Duration {
        if self.joined_once && !self.rested { self.options.final_sleep } else { Duration::ZERO }
    }
}
