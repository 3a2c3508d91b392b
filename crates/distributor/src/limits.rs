//! How fast a tenant, and this process as a whole, may send.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use governor::clock::Clock as _;
use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};
use parking_lot::RwLock;

/// One tenant's token bucket. Replaced, and full again, when the tenant's rate changes.
#[derive(Debug, Default)]
pub(crate) struct Limiter {
    bucket: RwLock<Option<Arc<Bucket>>>,
}

#[derive(Debug)]
struct Bucket {
    rate: f64,
    burst: u32,
    limiter: DefaultDirectRateLimiter,
}

/// Rates beyond this are no limit: a nanosecond, the limiter's unit, is not short enough for them.
const UNLIMITED: f64 = 1e9;
/// The longest time that a client is asked to wait.
const MAX_WAIT: Duration = Duration::from_secs(60);

impl Limiter {
    /// Takes `num` items out of a bucket of `burst` that refills with `rate` per second.
    ///
    /// # Errors
    ///
    /// How long to wait, if they are not there; then nothing is taken. More than `burst` items never pass, as in Cortex.
    pub(crate) fn take(&self, rate: f64, burst: usize, num: u64) -> Result<(), Duration> {
        // A rate that is not a number must not lock everybody out.
        if num == 0 || rate >= UNLIMITED || rate.is_nan() {
            return Ok(());
        }
        let Some(burst) = NonZeroU32::new(u32::try_from(burst).unwrap_or(u32::MAX)) else {
            return Err(MAX_WAIT);
        };
        let Some(num) = u32::try_from(num).ok().and_then(NonZeroU32::new) else { return Err(MAX_WAIT) };
        let bucket = self.bucket(rate, burst);
        match bucket.limiter.check_n(num) {
            Ok(Ok(())) => Ok(()),
            Ok(Err(not_until)) => Err(not_until.wait_time_from(bucket.limiter.clock().now()).min(MAX_WAIT)),
            Err(_more_than_burst) => Err(MAX_WAIT),
        }
    }

    fn bucket(&self, rate: f64, burst: NonZeroU32) -> Arc<Bucket> {
        let fits = |bucket: &Bucket| bucket.rate.to_bits() == rate.to_bits() && bucket.burst == burst.get();
        if let Some(bucket) = self.bucket.read().as_ref().filter(|bucket| fits(bucket)) {
            return Arc::clone(bucket);
        }
        // The limiter multiplies in nanoseconds of 64 bits and panics beyond: the slowest refill is that of a whole
        // bucket in a century and a half.
        let slowest = Duration::from_nanos(u64::MAX / 4 / u64::from(burst.get()));
        let period = Duration::try_from_secs_f64(1.0 / rate.max(0.0)).unwrap_or(Duration::MAX);
        let period = period.clamp(Duration::from_nanos(1), slowest);
        let quota = Quota::with_period(period).unwrap_or(Quota::per_hour(NonZeroU32::MIN)).allow_burst(burst);
        let bucket = Arc::new(Bucket { rate, burst: burst.get(), limiter: RateLimiter::direct(quota) });
        *self.bucket.write() = Some(Arc::clone(&bucket));
        bucket
    }
}

/// Items per second over the last seconds, exponentially weighted; what `instance_limits.max_ingestion_rate` looks at.
#[derive(Debug, Default)]
pub(crate) struct IngestionRate {
    since_tick: AtomicU64,
    /// Bits of an `f64`.
    rate: AtomicU64,
}

impl IngestionRate {
    /// How often [`IngestionRate::tick`] must be called.
    pub(crate) const TICK: Duration = Duration::from_secs(1);
    /// The weight of the newest second, as in Cortex.
    const ALPHA: f64 = 0.2;

    pub(crate) fn add(&self, num: u64) {
        self.since_tick.fetch_add(num, Ordering::Relaxed);
    }

    /// Ends a period of [`IngestionRate::TICK`].
    pub(crate) fn tick(&self) {
        let newest = self.since_tick.swap(0, Ordering::Relaxed) as f64 / Self::TICK.as_secs_f64();
        let rate = self.per_second();
        let rate = if rate == 0.0 { newest } else { rate + Self::ALPHA * (newest - rate) };
        self.rate.store(rate.to_bits(), Ordering::Relaxed);
    }

    pub(crate) fn per_second(&self) -> f64 {
        f64::from_bits(self.rate.load(Ordering::Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_passes_and_then_the_client_waits() {
        let limiter = Limiter::default();
        assert_eq!(limiter.take(0.5, 10, 10), Ok(()));
        let wait = limiter.take(0.5, 10, 1).unwrap_err();
        assert!(wait > Duration::from_millis(1500) && wait <= Duration::from_secs(2), "{wait:?}");
    }

    #[test]
    fn what_did_not_pass_takes_nothing() {
        let limiter = Limiter::default();
        assert!(limiter.take(0.001, 10, 11).is_err());
        assert_eq!(limiter.take(0.001, 10, 10), Ok(()));
    }

    #[test]
    fn a_new_rate_counts_at_once() {
        let limiter = Limiter::default();
        assert_eq!(limiter.take(0.001, 1, 1), Ok(()));
        assert!(limiter.take(0.001, 1, 1).is_err());
        assert_eq!(limiter.take(0.002, 1, 1), Ok(()));
    }

    #[test]
    fn extreme_rates_neither_panic_nor_mislead() {
        for unlimited in [f64::INFINITY, f64::MAX, 1e9, f64::NAN] {
            assert_eq!(Limiter::default().take(unlimited, 0, u64::MAX), Ok(()));
        }
        for closed in [0.0, -1.0, f64::MIN_POSITIVE, f64::NEG_INFINITY] {
            let limiter = Limiter::default();
            assert_eq!(limiter.take(closed, usize::MAX, 5), Ok(()), "{closed}: the burst is there");
            assert!(Limiter::default().take(closed, 0, 1).is_err());
            assert!(Limiter::default().take(closed, 1, u64::MAX).is_err());
        }
        assert_eq!(Limiter::default().take(0.0, 0, 0), Ok(()));
    }

    #[test]
    fn the_rate_follows_what_comes_in() {
        let rate = IngestionRate::default();
        rate.add(100);
        rate.tick();
        assert!((rate.per_second() - 100.0).abs() < 1e-9);
        rate.tick();
        assert!((rate.per_second() - 80.0).abs() < 1e-9);
    }
}
