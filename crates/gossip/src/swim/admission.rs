//! Whom to take in: foca itself would add whoever a datagram names.

use std::collections::BTreeSet;
use std::time::Duration;

use super::SwimError;

/// What a member new from a datagram costs, in the unit in which the bucket fills by the rate in each nanosecond.
const TOKEN: u64 = 1_000_000_000;

/// The names that foca has, and how many more it may get.
pub(super) struct Admission {
    known: BTreeSet<u64>,
    max: usize,
    rate: u64,
    level: u64,
    filled_at: Duration,
}

impl Admission {
    /// At most `max` members, and no more than `rate` a second from datagrams.
    pub(super) fn new(max: usize, rate: u32, now: Duration) -> Self {
        let rate = u64::from(rate);
        Self { known: BTreeSet::new(), max, rate, level: rate * TOKEN, filled_at: now }
    }

    pub(super) fn knows(&self, name: u64) -> bool {
        self.known.contains(&name)
    }

    pub(super) fn len(&self) -> usize {
        self.known.len()
    }

    /// Takes in a member from a session with another one.
    pub(super) fn enlist(&mut self, name: u64) -> Result<(), SwimError> {
        if !self.knows(name) {
            if self.len() >= self.max {
                return Err(SwimError::TooManyMembers);
            }
            self.known.insert(name);
        }
        Ok(())
    }

    /// Takes in a member from a datagram.
    pub(super) fn admit(&mut self, now: Duration, name: u64) -> Result<(), SwimError> {
        if self.knows(name) {
            return Ok(());
        }
        self.fill(now);
        if self.level < TOKEN {
            return Err(SwimError::TooFast);
        }
        self.enlist(name)?;
        self.level -= TOKEN;
        Ok(())
    }

    pub(super) fn forget(&mut self, name: u64) {
        self.known.remove(&name);
    }

    /// These are the names that foca has.
    pub(super) fn reset(&mut self, names: impl Iterator<Item = u64>) {
        self.known = names.collect();
    }

    fn fill(&mut self, now: Duration) {
        let nanos = u64::try_from(now.saturating_sub(self.filled_at).as_nanos()).unwrap_or(u64::MAX);
        self.filled_at = self.filled_at.max(now);
        self.level = self.level.saturating_add(nanos.saturating_mul(self.rate)).min(self.rate * TOKEN);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn datagrams_fill_no_faster_than_the_rate_and_nothing_fills_beyond_the_most() {
        let mut admission = Admission::new(25, 10, Duration::ZERO);
        let mut name = 0;
        let mut flood = |admission: &mut Admission, at: Duration| {
            (0..100)
                .filter(|_| {
                    name += 1;
                    admission.admit(at, name).is_ok()
                })
                .count()
        };
        assert_eq!(flood(&mut admission, Duration::ZERO), 10);
        assert_eq!(flood(&mut admission, Duration::from_millis(99)), 0);
        assert_eq!(flood(&mut admission, Duration::from_millis(100)), 1);
        assert_eq!(flood(&mut admission, Duration::from_secs(60)), 10);
        assert_eq!(flood(&mut admission, Duration::from_secs(120)), 4);
        assert_eq!(admission.len(), 25);
        assert!(admission.admit(Duration::from_secs(120), 1).is_ok(), "known already");
        assert!(admission.enlist(1_000).is_err());
        admission.forget(1);
        assert!(admission.enlist(1_000).is_ok());
        admission.reset([7, 8].into_iter());
        assert!(admission.len() == 2 && admission.knows(7));
    }

    #[test]
    fn small_steps_fill_as_much_as_large_ones() {
        let mut admission = Admission::new(100, 10, Duration::ZERO);
        for name in 0..10 {
            assert!(admission.admit(Duration::ZERO, name).is_ok());
        }
        let steps = (1..=1_000_000_u64).filter(|step| {
            let now = Duration::from_nanos(step * 100);
            admission.admit(now, 100).is_ok()
        });
        assert_eq!(steps.take(1).collect::<Vec<_>>(), [1_000_000]);
    }
}
