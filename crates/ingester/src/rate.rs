//! Events per second, smoothed.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Weight of the newest interval, as in Cortex.
const WEIGHT: f64 = 0.2;

/// An exponentially weighted moving average. Adding costs one atomic.
#[derive(Debug, Default)]
pub(crate) struct Rate {
    events: AtomicU64,
    /// Bits of the average.
    average: AtomicU64,
    ticked: AtomicU64,
}

impl Rate {
    pub(crate) fn add(&self, events: u64) {
        self.events.fetch_add(events, Ordering::Relaxed);
    }

    /// Ends an interval. To be called by one task, every `interval`.
    pub(crate) fn tick(&self, interval: Duration) {
        let newest = self.events.swap(0, Ordering::Relaxed) as f64 / interval.as_secs_f64();
        let average = if self.ticked.fetch_add(1, Ordering::Relaxed) == 0 {
            newest
        } else {
            let before = self.per_second();
            before + WEIGHT * (newest - before)
        };
        self.average.store(average.to_bits(), Ordering::Relaxed);
    }

    pub(crate) fn per_second(&self) -> f64 {
        f64::from_bits(self.average.load(Ordering::Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_interval_counts_in_full_and_later_ones_by_their_weight() {
        let rate = Rate::default();
        assert_eq!(rate.per_second(), 0.0);
        rate.add(100);
        rate.tick(Duration::from_secs(2));
        assert_eq!(rate.per_second(), 50.0);
        rate.tick(Duration::from_secs(2));
        assert_eq!(rate.per_second(), 40.0);
    }
}
