//! What the own entry should say, when it is written, and what to do when the ring says something else.

use std::sync::Arc;
use std::time::Duration;

use rand::RngExt as _;
use ringkit_ring::{InstanceDesc, State};

use super::{Action, Machine, Notice, Now, Phase};

/// A timestamp further ahead of our clock than this is not believed: somebody else wrote it, and following it would carry
/// the entry's clock away for good. Moderate leads are followed, so that a clock that was set back keeps its entry alive.
const MAX_FOLLOWED_LEAD_SECS: i64 = 24 * 60 * 60;

/// How soon after the last one an entry that others removed or changed is written again.
const REASSERT_PERIOD: Duration = Duration::from_secs(1);

/// Two words of a rival within this time belong together; as often it is told.
const RIVAL_PERIOD: Duration = Duration::from_secs(60);

impl Machine {
    pub(super) fn write_if_due(&mut self, now: Now) -> Option<Action> {
        if !self.holds_entry() || self.writing.is_some() {
            return None;
        }
        let is_due = |at: Option<Duration>| at.is_some_and(|at| at <= now.elapsed);
        let heartbeat = is_due(self.beat_at);
        if !heartbeat && !is_due(self.write_at) {
            return None;
        }
        if heartbeat {
            self.beat_at = self.beat_at.map(|at| next_beat(at, self.options.heartbeat_period, now.elapsed));
        }
        self.write_at = None;
        self.farewell_due = false;
        let entry = self.entry(now);
        self.writing = Some(entry.clone());
        let joining = matches!(self.phase, Phase::Pending { .. } | Phase::Joining { .. });
        let decisive = joining || !self.unverified.is_empty();
        Some(Action::Write { entry: Box::new(entry), heartbeat, decisive })
    }

    /// Heartbeats begin at a random moment of the second half of the first period and keep that phase, so that instances
    /// started together do not beat together.
    pub(super) fn begin_heartbeats(&mut self, now: Now) {
        let period = self.options.heartbeat_period;
        if self.beat_at.is_none() && !period.is_zero() {
            let share = self.random.random_range(0.5..1.0);
            self.beat_at = Some(now.elapsed + period.mul_f64(share));
        }
    }

    pub(super) fn desired(&self, timestamp: i64) -> InstanceDesc {
        InstanceDesc {
            addr: self.options.addr.as_str().into(),
            timestamp,
            state: self.state,
            tokens: self.tokens.clone(),
            zone: self.options.zone.as_str().into(),
            registered_timestamp: self.registered_at,
            ..self.foreign.clone()
        }
    }

    pub(super) fn is_as_desired(&self, entry: &InstanceDesc) -> bool {
        *entry == self.desired(entry.timestamp)
    }

    /// The entry to write now, with a timestamp that is newer than any before if it says anything new.
    fn entry(&mut self, now: Now) -> InstanceDesc {
        let newest = self.last_timestamp.max(self.seen_timestamp);
        let says_something_new = !self.written.as_ref().is_some_and(|written| self.is_as_desired(written));
        let timestamp = if now.unix_secs > newest {
            now.unix_secs
        } else if says_something_new || now.elapsed >= self.timestamp_moved_at + Duration::from_secs(1) {
            // Also when our clock was set back: others count us alive as long as the timestamp advances, and it may
            // advance by one per second of real time without running away from a clock that is right.
            newest.saturating_add(1)
        } else {
            newest
        };
        if timestamp > self.last_timestamp {
            self.last_timestamp = timestamp;
            self.timestamp_moved_at = now.elapsed;
        }
        self.desired(timestamp)
    }

    pub(super) fn note_own_timestamp(&mut self, now: Now) {
        let Some(own) = self.ring.get(&self.options.id) else { return };
        if own.timestamp <= now.unix_secs.saturating_add(MAX_FOLLOWED_LEAD_SECS) {
            self.seen_timestamp = self.seen_timestamp.max(own.timestamp);
        }
    }

    /// Looks at what others did to the own entry since the last write.
    pub(super) fn compare_with_ring(&mut self, now: Now) {
        if self.writing.is_some() || !self.holds_entry() || self.write_at.is_some() {
            return; // A write is coming anyway, and it says everything.
        }
        let ring = Arc::clone(&self.ring);
        let own = ring.get(&self.options.id).filter(|own| own.state != State::Left);
        let leaving = matches!(self.phase, Phase::Leaving { .. });
        match own {
            None if leaving => self.registered = false, // Somebody removed us first: that is where we are going.
            None => {
                self.registered_at = self.registration_time(now);
                self.reassert(now);
            }
            Some(own) => {
                self.look_for_rival(now, own);
                self.verify(now);
                if !self.is_as_desired(own) {
                    self.reassert(now);
                }
            }
        }
    }

    /// Whether another process writes our entry: what it says differs in its address from what we last wrote, and is newer.
    /// Told once it has done so twice: the first may be the last word of our predecessor.
    fn look_for_rival(&mut self, now: Now, own: &InstanceDesc) {
        let written = self.written.as_ref().map_or(i64::MAX, |written| written.timestamp);
        if own.addr == self.options.addr || own.timestamp < written {
            return;
        }
        let before = self.rival_seen_at.replace(now.elapsed);
        let lately = |at: Option<Duration>| at.is_some_and(|at| now.elapsed - at <= RIVAL_PERIOD);
        if lately(before) && !lately(self.rival_told_at) {
            self.rival_told_at = Some(now.elapsed);
            self.notices.push_back(Notice::Rival { addr: own.addr.to_string() });
        }
    }

    fn reassert(&mut self, now: Now) {
        let at = self.reasserted_at.map_or(now.elapsed, |last| (last + REASSERT_PERIOD).max(now.elapsed));
        self.reasserted_at = Some(at);
        self.written = None;
        self.write_at = Some(at);
    }
}

/// The first beat after `now` in step with `last`. Beats that were missed are not made up for.
fn next_beat(last: Duration, period: Duration, now: Duration) -> Duration {
    let next = last + period;
    if next > now {
        return next;
    }
    let missed = (now - last).as_nanos() / period.as_nanos().max(1);
    last + period.saturating_mul(u32::try_from(missed).unwrap_or(u32::MAX).saturating_add(1))
}
