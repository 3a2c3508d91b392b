//! A histogram of durations with bounded memory and bounded relative error.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Buckets per power of two: 32, so that a reported quantile is at most 1/32 above the true one.
const SUB_BITS: u32 = 5;
const SUB: usize = 1 << SUB_BITS;
/// Values from here on share the last bucket: 2³⁶ µs are about 19 hours.
const MAX_BITS: u32 = 36;
const BUCKETS: usize = SUB * (MAX_BITS - SUB_BITS + 1) as usize + 1;

/// Counts durations in microseconds, log-linear as HDR histograms do: exact below 32 µs, within 3.2 % above. 8 KiB, lock-free.
pub struct Histogram {
    buckets: Box<[AtomicU64]>,
    sum_us: AtomicU64,
    max_us: AtomicU64,
}

impl Default for Histogram {
    fn default() -> Self {
        let buckets = std::iter::repeat_with(AtomicU64::default).take(BUCKETS).collect();
        Self { buckets, sum_us: AtomicU64::new(0), max_us: AtomicU64::new(0) }
    }
}

impl Histogram {
    /// Counts one duration.
    pub fn record(&self, duration: Duration) {
        let us = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        if let Some(bucket) = self.buckets.get(bucket_of(us)) {
            bucket.fetch_add(1, Ordering::Relaxed);
        }
        self.sum_us.fetch_add(us, Ordering::Relaxed);
        self.max_us.fetch_max(us, Ordering::Relaxed);
    }

    /// Number of durations counted.
    pub fn count(&self) -> u64 {
        self.buckets.iter().map(|bucket| bucket.load(Ordering::Relaxed)).sum()
    }

    /// The duration that a share of `q` (0 to 1) of all counted ones does not exceed; zero when nothing was counted.
    /// Never below the true quantile, never above the largest duration counted, at most 1/32 too high in between.
    pub fn quantile(&self, q: f64) -> Duration {
        let rank = (q.clamp(0.0, 1.0) * self.count() as f64).ceil().max(1.0) as u64;
        let mut seen = 0;
        for (index, bucket) in self.buckets.iter().enumerate() {
            seen += bucket.load(Ordering::Relaxed);
            if seen >= rank {
                return Duration::from_micros(upper_bound(index)).min(self.max());
            }
        }
        self.max()
    }

    /// The largest duration counted, exact.
    pub fn max(&self) -> Duration {
        Duration::from_micros(self.max_us.load(Ordering::Relaxed))
    }

    /// The mean, exact; zero when nothing was counted.
    pub fn mean(&self) -> Duration {
        Duration::from_micros(self.sum_us.load(Ordering::Relaxed).checked_div(self.count()).unwrap_or(0))
    }

    /// Forgets everything. A duration counted at the same moment may be forgotten or kept.
    pub fn reset(&self) {
        for bucket in &self.buckets {
            bucket.store(0, Ordering::Relaxed);
        }
        self.sum_us.store(0, Ordering::Relaxed);
        self.max_us.store(0, Ordering::Relaxed);
    }
}

/// Below 32 a bucket each; then 32 buckets per power of two.
fn bucket_of(us: u64) -> usize {
    if us >> MAX_BITS != 0 {
        return BUCKETS - 1;
    }
    let magnitude = us.max(1).ilog2();
    if magnitude < SUB_BITS {
        return us as usize;
    }
    let shift = magnitude - SUB_BITS;
    // The top bit is always set: the five bits below it choose among the 32.
    let within = (us >> shift) as usize - SUB;
    SUB * (shift as usize + 1) + within
}

/// The largest value of a bucket.
fn upper_bound(bucket: usize) -> u64 {
    let (row, within) = (bucket / SUB, (bucket % SUB) as u64);
    if row == 0 {
        return within;
    }
    if bucket + 1 == BUCKETS {
        return u64::MAX / 2;
    }
    let shift = row as u32 - 1;
    ((SUB as u64 + within + 1) << shift) - 1
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn every_bucket_begins_where_the_one_before_ends() {
        for bucket in 0..BUCKETS - 1 {
            let upper = upper_bound(bucket);
            assert_eq!(bucket_of(upper), bucket);
            assert_eq!(bucket_of(upper + 1), bucket + 1);
        }
        assert_eq!(bucket_of(u64::MAX), BUCKETS - 1);
    }

    #[test]
    fn an_empty_histogram_reports_zero() {
        let histogram = Histogram::default();
        assert_eq!((histogram.quantile(0.99), histogram.max(), histogram.mean()), Default::default());
    }

    proptest! {
        #[test]
        fn quantiles_are_never_low_and_at_most_a_32nd_high(
            mut values in proptest::collection::vec(0_u64..1 << 40, 1..200),
            q in 0.0..=1.0_f64,
        ) {
            let histogram = Histogram::default();
            for value in &values {
                histogram.record(Duration::from_micros(*value));
            }
            values.sort_unstable();
            let rank = ((q * values.len() as f64).ceil() as usize).max(1);
            let exact = values[rank - 1];
            let reported = u64::try_from(histogram.quantile(q).as_micros()).unwrap();
            prop_assert!(reported >= exact, "{reported} is below {exact}");
            prop_assert!(exact >= 1 << MAX_BITS || reported <= exact + exact / 32, "{reported} is far above {exact}");
            prop_assert_eq!(histogram.count(), values.len() as u64);
            prop_assert_eq!(histogram.max().as_micros(), u128::from(*values.last().unwrap()));
        }
    }
}
