//! The numbers from which every series, timestamp and value follows.

use std::fmt;
use std::ops::Range;

use crate::error::Error;

/// Series that share one `pod` label; the verifier reads back pod by pod.
pub const SERIES_PER_POD: u32 = 250;

/// Most series one load may have: the verifier keeps a few bytes for each.
pub const MAX_SERIES: u32 = 20_000_000;

/// What a load sends, apart from when: two loads with equal plans send equal samples at equal timestamps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Names the series (it is in their labels) and feeds their values.
    pub seed: u64,
    /// Number of series, 1 to [`MAX_SERIES`].
    pub series: u32,
    /// Milliseconds between two samples of one series, at least 1. Timestamps are multiples of it.
    pub interval_ms: u32,
    /// Series per request; the last range may be shorter.
    pub batch: u32,
    /// How many of a thousand samples are NaN, stale marker, +Inf or -Inf.
    pub special_permille: u16,
}

impl Plan {
    /// Checks the numbers.
    ///
    /// # Errors
    ///
    /// [`Error::Option`] naming the number that is out of range.
    pub fn checked(self) -> Result<Self, Error> {
        if self.series == 0 || self.series > MAX_SERIES {
            return Err(Error::option("series", format!("must be 1 to {MAX_SERIES}, not {}", self.series)));
        }
        if self.interval_ms == 0 {
            return Err(Error::option("interval_ms", "must be at least 1 ms"));
        }
        if self.batch == 0 || self.batch > 100_000 {
            return Err(Error::option("batch", format!("must be 1 to 100000 series, not {}", self.batch)));
        }
        if self.special_permille > 1000 {
            return Err(Error::option("special_permille", "must be 0 to 1000"));
        }
        Ok(self)
    }

    /// Number of series ranges, and so of requests per interval.
    pub fn num_ranges(&self) -> u32 {
        self.series.div_ceil(self.batch.max(1))
    }

    /// The series of one range. `range` counts from 0; a range beyond the last one is empty.
    pub fn range(&self, range: u32) -> Range<u32> {
        let start = range.saturating_mul(self.batch).min(self.series);
        start..start.saturating_add(self.batch).min(self.series)
    }

    /// The range that holds a series.
    pub fn range_of(&self, series: u32) -> u32 {
        series / self.batch.max(1)
    }

    /// Number of pods, see [`SERIES_PER_POD`].
    pub fn num_pods(&self) -> u32 {
        self.series.div_ceil(SERIES_PER_POD)
    }

    /// The series of one pod.
    pub fn pod(&self, pod: u32) -> Range<u32> {
        let start = pod.saturating_mul(SERIES_PER_POD).min(self.series);
        start..start.saturating_add(SERIES_PER_POD).min(self.series)
    }

    /// Samples per second that this plan makes: series over interval.
    pub fn rate(&self) -> f64 {
        f64::from(self.series) * 1000.0 / f64::from(self.interval_ms.max(1))
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { seed, series, interval_ms, batch, special_permille } = self;
        write!(f, "seed {seed}, {series} series every {interval_ms} ms, {batch} in a batch")?;
        if *special_permille > 0 {
            write!(f, ", {special_permille} ‰ special values")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_cover_every_series_once() {
        let plan = Plan { seed: 1, series: 1001, interval_ms: 1, batch: 100, special_permille: 0 };
        let all: Vec<u32> = (0..plan.num_ranges()).flat_map(|range| plan.range(range)).collect();
        assert_eq!(all, (0..1001).collect::<Vec<_>>());
        assert!((0..1001).all(|series| plan.range(plan.range_of(series)).contains(&series)));
        assert!(plan.range(plan.num_ranges()).is_empty());
        let pods: Vec<u32> = (0..plan.num_pods()).flat_map(|pod| plan.pod(pod)).collect();
        assert_eq!(pods, all);
    }

    #[test]
    fn a_number_out_of_range_is_named() {
        let good = Plan { seed: 1, series: 1, interval_ms: 1, batch: 1, special_permille: 0 };
        assert!(good.checked().is_ok());
        let text = |plan: Plan| plan.checked().unwrap_err().to_string();
        assert!(text(Plan { series: 0, ..good }).contains("`series`"));
        assert!(text(Plan { interval_ms: 0, ..good }).contains("`interval_ms`"));
        assert!(text(Plan { batch: 0, ..good }).contains("`batch`"));
        assert!(text(Plan { special_permille: 1001, ..good }).contains("`special_permille`"));
    }
}
