//! [`AutoForget`]: who is removed from the ring because nobody has heard of it for long. Pure; removing is the shell's.
//!
//! Forgetting is deletion by hearsay, so it is slow to believe. An instance is as old as the time since this process saw its
//! heartbeat advance, never as what its own clock says; time in which nothing was heard of the store counts for nobody; and
//! while too few are healthy, which is how it looks from the wrong side of a partition, nobody is removed.

use std::collections::BTreeMap;
use std::time::Duration;

use ringkit_ring::{Desc, EntryId};

/// When others are removed from the ring.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AutoForget {
    /// After not having been heard of for this long. Zero = never.
    pub after: Duration,
    /// Only while at least this part of the ring is healthy, between 0 and 1.
    pub min_healthy_fraction: f64,
}

/// Somebody to remove.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ghost {
    /// Who.
    pub id: EntryId,
    /// The timestamp of its entry: one that has moved since is not removed.
    pub timestamp: i64,
    /// For how long nothing was heard of it.
    pub silent_for: Duration,
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// These are to be removed; often nobody.
    Forget(Vec<Ghost>),
    /// So many would have to be removed, but too few are healthy.
    HeldBack {
        /// Who would have to go.
        ghosts: usize,
        /// Who is healthy.
        healthy: usize,
        /// Who is in the ring.
        of: usize,
    },
}

/// Remembers when each instance was heard last.
#[derive(Debug)]
pub struct Ghosts {
    rules: AutoForget,
    heartbeat_timeout: Duration,
    /// The longest time that may pass between two signs of the store's life and still count.
    longest_step: Duration,
    /// How much time has passed in which the store was alive.
    alive_for: Duration,
    last_sign: Option<Duration>,
    /// The newest timestamp of each, and when it was first seen, in the time above.
    heard: BTreeMap<EntryId, (i64, Duration)>,
}

impl Ghosts {
    /// `None` if nobody is ever to be forgotten: that also holds for a heartbeat timeout of zero, by which nobody is dead.
    pub fn new(rules: AutoForget, heartbeat_timeout: Duration, heartbeat_period: Duration) -> Option<Self> {
        let wanted = !rules.after.is_zero() && !heartbeat_timeout.is_zero() && !heartbeat_period.is_zero();
        wanted.then(|| Self {
            rules,
            heartbeat_timeout,
            longest_step: heartbeat_period * 2,
            alive_for: Duration::ZERO,
            last_sign: None,
            heard: BTreeMap::new(),
        })
    }

    /// The store told of the ring at `elapsed`, on a monotonic clock.
    pub fn saw(&mut self, elapsed: Duration, ring: &Desc) {
        self.sign_of_life(elapsed);
        self.heard.retain(|id, _| ring.contains(id));
        for (id, entry) in ring {
            let heard = self.heard.entry(id.clone()).or_insert((entry.timestamp, self.alive_for));
            // Whatever the timestamp says: somebody wrote it.
            if heard.0 != entry.timestamp {
                *heard = (entry.timestamp, self.alive_for);
            }
        }
    }

    /// The store took a write at `elapsed`. From longer silences only as much counts as lies between two heartbeats.
    pub fn sign_of_life(&mut self, elapsed: Duration) {
        let step = self.last_sign.map_or(Duration::ZERO, |last| elapsed.saturating_sub(last));
        self.alive_for += step.min(self.longest_step);
        self.last_sign = Some(elapsed);
    }

    /// Who is to be removed now, `own` never.
    pub fn verdict(&self, own: &str) -> Verdict {
        let silent_for = |at: Duration| self.alive_for.saturating_sub(at);
        let others = || self.heard.iter().filter(|(id, _)| id.as_str() != own);
        let ghosts: Vec<Ghost> = others()
            .filter(|(_, (_, at))| silent_for(*at) > self.rules.after)
            .map(|(id, (timestamp, at))| Ghost {
                id: id.clone(),
                timestamp: *timestamp,
                silent_for: silent_for(*at),
            })
            .collect();
        if ghosts.is_empty() {
            return Verdict::Forget(ghosts);
        }
        // Whoever asks is alive, whether or not the ring shows it.
        let healthy = 1 + others().filter(|(_, (_, at))| silent_for(*at) <= self.heartbeat_timeout).count();
        let of = 1 + others().count();
        #[expect(clippy::cast_precision_loss, reason = "numbers of instances")]
        let fraction = healthy as f64 / of as f64;
        if fraction < self.rules.min_healthy_fraction {
            return Verdict::HeldBack { ghosts: ghosts.len(), healthy, of };
        }
        Verdict::Forget(ghosts)
    }
}

#[cfg(test)]
mod tests {
    use ringkit_ring::InstanceDesc;

    use super::*;

    const RULES: AutoForget = AutoForget { after: Duration::from_secs(600), min_healthy_fraction: 0.5 };
    const TIMEOUT: Duration = Duration::from_secs(60);
    const PERIOD: Duration = Duration::from_secs(5);

    fn at(secs: u64) -> Duration {
        Duration::from_secs(secs)
    }

    fn ring(entries: &[(&str, i64)]) -> Desc {
        let mut ring = Desc::default();
        for (id, timestamp) in entries {
            ring.insert(*id, InstanceDesc { timestamp: *timestamp, ..InstanceDesc::default() });
        }
        ring
    }

    fn ghosts(rules: AutoForget) -> Ghosts {
        Ghosts::new(rules, TIMEOUT, PERIOD).unwrap()
    }

    /// Beats of `alive` every five seconds from `from` to `to`, while the others stay as they are.
    fn pass(ghosts: &mut Ghosts, from: u64, to: u64, alive: &[&str], dead: &[(&str, i64)]) {
        for secs in (from..=to).step_by(5) {
            let beats = alive.iter().map(|id| (*id, i64::try_from(secs).unwrap()));
            let entries: Vec<_> = beats.chain(dead.iter().copied()).collect();
            ghosts.saw(at(secs), &ring(&entries));
        }
    }

    fn names(verdict: &Verdict) -> Vec<&str> {
        match verdict {
            Verdict::Forget(ghosts) => ghosts.iter().map(|ghost| ghost.id.as_str()).collect(),
            Verdict::HeldBack { .. } => panic!("{verdict:?}"),
        }
    }

    #[test]
    fn who_is_silent_for_long_is_forgotten_and_nobody_else() {
        let mut ghosts = ghosts(RULES);
        // However old the entry looks at first, it has the whole time from then on.
        pass(&mut ghosts, 0, 600, &["own", "a"], &[("ghost", -100_000)]);
        assert!(names(&ghosts.verdict("own")).is_empty());
        pass(&mut ghosts, 605, 610, &["own", "a"], &[("ghost", -100_000)]);
        assert_eq!(names(&ghosts.verdict("own")), ["ghost"]);
        // A clock that is wrong kills nobody, and one sign is enough, even backwards.
        pass(&mut ghosts, 615, 615, &["own", "a"], &[("ghost", -200_000)]);
        assert!(names(&ghosts.verdict("own")).is_empty());
    }

    #[test]
    fn nobody_forgets_itself() {
        let mut ghosts = ghosts(RULES);
        pass(&mut ghosts, 0, 700, &["a", "b"], &[("own", 0)]);
        assert!(names(&ghosts.verdict("own")).is_empty());
        assert_eq!(names(&ghosts.verdict("a")), ["own"]);
    }

    #[test]
    fn while_the_store_is_silent_nobody_ages() {
        let mut ghosts = ghosts(RULES);
        pass(&mut ghosts, 0, 100, &["own"], &[("other", 0)]);
        // A day of silence, then everything is as it was.
        pass(&mut ghosts, 86_400, 86_400 + 400, &["own"], &[("other", 0)]);
        assert!(names(&ghosts.verdict("own")).is_empty());
        pass(&mut ghosts, 86_400 + 405, 86_400 + 600, &["own"], &[("other", 0)]);
        assert_eq!(names(&ghosts.verdict("own")), ["other"]);
    }

    #[test]
    fn a_minority_forgets_nobody() {
        let mut ghosts = ghosts(RULES);
        let others = [("a", 0), ("b", 0), ("c", 0)];
        pass(&mut ghosts, 0, 700, &["own"], &others);
        assert_eq!(ghosts.verdict("own"), Verdict::HeldBack { ghosts: 3, healthy: 1, of: 4 });
        pass(&mut ghosts, 705, 705, &["own", "a"], &others[1..]);
        assert_eq!(names(&ghosts.verdict("own")), ["b", "c"]);
    }

    #[test]
    fn h10_a_timeout_or_a_delay_of_zero_switches_it_off() {
        assert!(Ghosts::new(RULES, Duration::ZERO, PERIOD).is_none());
        assert!(Ghosts::new(AutoForget { after: Duration::ZERO, ..RULES }, TIMEOUT, PERIOD).is_none());
    }
}
