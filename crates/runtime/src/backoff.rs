//! Waiting times between attempts: exponential, bounded, with full jitter from a seedable source.

use std::time::Duration;

use rand::rngs::SmallRng;
use rand::{RngExt as _, SeedableRng as _};

/// Waiting times between attempts.
///
/// The n-th wait is drawn evenly from zero to `min·2ⁿ`, never above `max`: attempts of many processes spread out
/// instead of returning in step.
#[derive(Clone, Debug)]
pub struct Backoff {
    min: Duration,
    max: Duration,
    ceiling: Duration,
    attempts: u32,
    random: SmallRng,
}

impl Backoff {
    /// A backoff with its own random seed. A `max` below `min` counts as `min`.
    pub fn new(min: Duration, max: Duration) -> Self {
        Self::with_seed(min, max, rand::random())
    }

    /// The same, reproducible: one seed gives one sequence.
    pub fn with_seed(min: Duration, max: Duration, seed: u64) -> Self {
        let random = SmallRng::seed_from_u64(seed);
        Self { min, max: max.max(min), ceiling: min, attempts: 0, random }
    }

    /// How long to wait before the next attempt.
    #[expect(clippy::should_implement_trait, reason = "an endless sequence that nobody iterates over")]
    pub fn next(&mut self) -> Duration {
        let share = self.random.random_range(0.0..=1.0);
        let wait = Duration::try_from_secs_f64(self.ceiling.as_secs_f64() * share).unwrap_or(self.ceiling);
        self.ceiling = self.ceiling.saturating_mul(2).min(self.max);
        self.attempts = self.attempts.saturating_add(1);
        wait
    }

    /// Waits drawn since the start or the last reset.
    pub fn attempts(&self) -> u32 {
        self.attempts
    }

    /// Starts over, after a success.
    pub fn reset(&mut self) {
        self.ceiling = self.min;
        self.attempts = 0;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn waits_stay_under_a_doubling_ceiling(min in 1u64..2_000, max in 1u64..60_000, seed: u64) {
            let (min, max) = (Duration::from_millis(min), Duration::from_millis(max));
            let mut backoff = Backoff::with_seed(min, max, seed);
            for attempt in 0..40 {
                let ceiling = min.saturating_mul(1 << attempt.min(30)).min(max.max(min));
                prop_assert!(backoff.next() <= ceiling);
            }
            prop_assert_eq!(backoff.attempts(), 40);
            backoff.reset();
            prop_assert!(backoff.next() <= min);
        }
    }

    #[test]
    fn one_seed_gives_one_sequence_and_different_seeds_spread() {
        let draw = |seed| {
            let mut backoff = Backoff::with_seed(Duration::from_millis(100), Duration::from_secs(10), seed);
            (0..8).map(|_| backoff.next()).collect::<Vec<_>>()
        };
        assert_eq!(draw(7), draw(7));
        assert_ne!(draw(7), draw(8));
    }

    #[test]
    fn the_waits_use_the_whole_range() {
        let one = Duration::from_secs(1);
        let mut backoff = Backoff::with_seed(one, one, 1);
        let waits: Vec<f64> = (0..1000).map(|_| backoff.next().as_secs_f64()).collect();
        let mean = waits.iter().sum::<f64>() / 1000.0;
        assert!((0.45..0.55).contains(&mean), "full jitter averages half the ceiling, not {mean}");
    }

    #[test]
    fn a_huge_range_does_not_overflow() {
        let mut backoff = Backoff::with_seed(Duration::MAX / 3, Duration::MAX, 1);
        for _ in 0..10 {
            backoff.next();
        }
    }
}
