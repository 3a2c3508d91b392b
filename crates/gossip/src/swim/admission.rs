//! How fast datagrams may make members known: foca itself would add whoever one names.

use std::time::Duration;

/// What a member new from a datagram costs, in the unit in which the bucket fills by the rate in each nanosecond.
const TOKEN: u64 = 1_000_000_000;

/// A bucket of tokens.
pub(super) struct Admission {
    rate: u64,
    level: u64,
    filled_at: Duration,
}

impl Admission {
    /// No more than `rate` members a second.
    pub(super) fn new(rate: u32, now: Duration) -> Self {
        let rate = u64::from(rate);
        Self { rate, level: rate * TOKEN, filled_at: now }
    }

    /// Whether one more may come in now; if so, it counts as one that did.
    pub(super) fn admits(&mut self, now: Duration) -> bool {
        self.fill(now);
        let level = self.level.checked_sub(TOKEN);
        self.level = level.unwrap_or(self.level);
        level.is_some()
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
    fn members_come_in_no_faster_than_the_rate() {
        let mut admission = Admission::new(10, Duration::ZERO);
        let flood =
            |millis: u64| (0..100).filter(|_| admission.admits(Duration::from_millis(millis))).count();
        let admitted = [0, 99, 100, 60_000, 60_000, 60_250].map(flood);
        assert_eq!(admitted, [10, 0, 1, 10, 0, 2]);
    }

    #[test]
    fn small_steps_fill_as_much_as_large_ones() {
        let mut admission = Admission::new(10, Duration::ZERO);
        assert!((0..10).all(|_| admission.admits(Duration::ZERO)));
        let steps = (1..=1_000_000_u64).filter(|step| admission.admits(Duration::from_nanos(step * 100)));
        assert_eq!(steps.take(1).collect::<Vec<_>>(), [1_000_000]);
    }
}
