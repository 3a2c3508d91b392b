//! What an instance finds when it starts, and what it makes of it.
//!
//! As Cortex's `initRing`, except on purpose:
//!
//! | found | Cortex | here | because |
//! |---|---|---|---|
//! | JOINING | the entry stays JOINING until a heartbeat | PENDING is written at once | on gossip Cortex cannot start after such a crash |
//! | LEAVING without tokens | stays LEAVING for ever | as PENDING | it owns nothing and can join |
//! | ACTIVE, READONLY or LEAVING with too few tokens | kept | topped up | `num_tokens` was raised |
//! | PENDING or LEAVING with too many tokens, or too many in the file | fails to join, or kept | trimmed | `num_tokens` was lowered; ACTIVE and READONLY keep theirs, because data is read from there |
//! | no tokens, but the file has some | new ones are drawn, the file is emptied | the file's | there is the instance's data |
//! | tokens of the file that others took | kept | replaced | a token has one owner |
//! | ACTIVE with tokens that others have as well | kept | the one with the greater id keeps them | readers send it what the token stands for already |
//! | a negative registration time | kept | 0 | it means unknown |

use ringkit_config::AutoDuration;
use ringkit_ring::{InstanceDesc, State, Tokens};

use super::{Machine, Now, Phase};
use crate::delegate::Place;

impl Machine {
    /// Starts once the ring is known. With `join_after: auto` that takes a store that reflects its cluster: on a gossip
    /// store the first look at the ring is an empty one.
    pub(super) fn start_if_possible(&mut self, now: Now, ring_is_new: bool) {
        self.ring_known |= ring_is_new;
        let must_sync = self.options.join_after == AutoDuration::Auto;
        if self.ring_known && (self.synced || !must_sync) {
            self.start(now);
        }
    }

    fn start(&mut self, now: Now) {
        let ring = std::sync::Arc::clone(&self.ring);
        let own = ring.get(&self.options.id).filter(|own| own.state != State::Left);
        match own {
            own if !self.options.delegates.is_empty() => self.start_delegated(now, own.map(|own| &**own)),
            None => self.start_absent(now),
            Some(own) => self.start_present(now, own),
        }
        if self.registered {
            self.write_now(now);
            self.begin_heartbeats(now);
        }
        if matches!(self.phase, Phase::Pending { .. }) && self.join_requested {
            self.phase = Phase::Pending { join_at: Some(now.elapsed + self.join_delay()) };
        }
    }

    /// The delegates know what to be.
    fn start_delegated(&mut self, now: Now, own: Option<&InstanceDesc>) {
        let ring = std::sync::Arc::clone(&self.ring);
        let id = self.options.id.clone();
        let delegates = self.options.delegates.clone();
        let registration = delegates.register(Place { id: &id, ring: &ring, entry: own });
        self.registered = true;
        self.registered_at = own.map_or_else(|| self.registration_time(now), InstanceDesc::registered_at);
        if let Some(own) = own {
            self.foreign = own.clone();
        }
        self.tokens = registration.tokens.normalized();
        self.target = registration.state;
        match registration.state {
            State::Pending => {
                self.phase = Phase::Pending { join_at: None };
                self.join_requested = false;
            }
            _ => self.start_join(now),
        }
    }

    /// Nobody knows us. With all its tokens from the file, an instance goes on where it was, without delay.
    fn start_absent(&mut self, now: Now) {
        self.registered_at = self.registration_time(now);
        let in_file = self.file_tokens().len();
        let has_all_tokens = in_file > 0 && in_file >= self.options.num_tokens;
        let joins_at_once =
            self.options.join_as == State::Joining || (self.options.auto_join && has_all_tokens);
        if joins_at_once {
            self.start_join(now);
        } else {
            // With tokens in the file, the ring hears of us when we join with them.
            self.registered = in_file == 0;
            self.phase = Phase::Pending { join_at: None };
        }
    }

    /// The ring knows us: its tokens count more than the file's, and its registration time is kept, also if unknown.
    fn start_present(&mut self, now: Now, own: &InstanceDesc) {
        self.registered = true;
        self.registered_at = own.registered_at();
        self.foreign = own.clone();
        self.tokens = if self.draws_anew { Tokens::empty() } else { own.tokens.normalized() };
        let goes_on = match own.state {
            _ if self.draws_anew => None,
            State::Active | State::ReadOnly => Some(own.state),
            // Left and came back before it was removed.
            State::Leaving if self.options.auto_join && !own.tokens.is_empty() => Some(self.target),
            _ => None,
        };
        match goes_on {
            _ if self.options.join_as == State::Joining => self.start_join(now),
            Some(state) => {
                if own.state == State::Leaving {
                    self.trim();
                }
                self.drop_tokens(&self.held_by_greater());
                self.become_state(state, now);
                self.settle(now);
                self.top_up(now);
            }
            None => self.phase = Phase::Pending { join_at: None },
        }
    }
}
