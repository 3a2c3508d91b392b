//! Wall time, injected, so that tests set it and a paused tokio runtime carries it along.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::time::Instant;

/// A source of wall time. Cheap to clone; clones agree.
///
/// Intervals and deadlines come from `tokio::time`; this is only for timestamps that leave the process.
#[derive(Clone, Debug)]
pub struct Clock(Source);

#[derive(Clone, Debug)]
enum Source {
    System,
    Following { origin: Instant, start_ms: i64 },
    Manual(Arc<AtomicI64>),
}

impl Clock {
    /// The operating system's clock.
    pub fn system() -> Self {
        Self(Source::System)
    }

    /// A clock that reads `start_ms` now (milliseconds since 1970) and then follows tokio's [`Instant`]: virtual
    /// time under `tokio::time::pause()`.
    pub fn paused_at(start_ms: i64) -> Self {
        Self(Source::Following { origin: Instant::now(), start_ms })
    }

    /// A clock that stands at `start_ms` until its [`ManualClock`] moves it.
    pub fn manual(start_ms: i64) -> (Self, ManualClock) {
        let now = Arc::new(AtomicI64::new(start_ms));
        (Self(Source::Manual(Arc::clone(&now))), ManualClock(now))
    }

    /// Milliseconds since 1970-01-01 UTC; negative before.
    pub fn now_ms(&self) -> i64 {
        match &self.0 {
            Source::System => match SystemTime::now().duration_since(UNIX_EPOCH) {
                Ok(after) => whole_ms(after),
                Err(before) => -whole_ms(before.duration()),
            },
            Source::Following { origin, start_ms } => start_ms.saturating_add(whole_ms(origin.elapsed())),
            Source::Manual(now) => now.load(Ordering::Acquire),
        }
    }

    /// Whole seconds since 1970-01-01 UTC, rounded down.
    pub fn now_secs(&self) -> i64 {
        self.now_ms().div_euclid(1000)
    }

    /// The same instant as a [`SystemTime`], to one millisecond except on the system clock.
    pub fn now(&self) -> SystemTime {
        match &self.0 {
            Source::System => SystemTime::now(),
            _ => {
                let ms = self.now_ms();
                let distance = Duration::from_millis(ms.unsigned_abs());
                let moved =
                    if ms < 0 { UNIX_EPOCH.checked_sub(distance) } else { UNIX_EPOCH.checked_add(distance) };
                moved.unwrap_or(UNIX_EPOCH)
            }
        }
    }
}

/// Sets the time of a [`Clock::manual`].
#[derive(Clone, Debug)]
pub struct ManualClock(Arc<AtomicI64>);

impl ManualClock {
    /// Sets the clock, forwards or backwards, to milliseconds since 1970.
    pub fn set_ms(&self, ms: i64) {
        self.0.store(ms, Ordering::Release);
    }

    /// Moves the clock forward by whole milliseconds.
    pub fn advance(&self, by: Duration) {
        self.0.fetch_add(whole_ms(by), Ordering::AcqRel);
    }
}

fn whole_ms(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_paused_clock_follows_virtual_time() {
        let clock = Clock::paused_at(1_700_000_000_999);
        assert_eq!(clock.now_secs(), 1_700_000_000);
        tokio::time::advance(Duration::from_millis(1)).await;
        assert_eq!(clock.now_secs(), 1_700_000_001);
        assert_eq!(clock.now(), UNIX_EPOCH + Duration::from_secs(1_700_000_001));
    }

    #[test]
    fn a_manual_clock_moves_only_when_told_even_before_1970() {
        let (clock, hand) = Clock::manual(500);
        let twin = clock.clone();
        hand.set_ms(-1);
        assert_eq!((clock.now_ms(), clock.now_secs()), (-1, -1), "seconds round down, not towards zero");
        assert_eq!(clock.now(), UNIX_EPOCH - Duration::from_millis(1));
        hand.advance(Duration::from_secs(2));
        assert_eq!(twin.now_ms(), 1999);
    }

    #[test]
    fn the_system_clock_agrees_with_the_operating_system() {
        let clock = Clock::system();
        let before = SystemTime::now();
        let now = clock.now();
        assert!(before <= now && now <= SystemTime::now());
        assert!(clock.now_ms() > 1_600_000_000_000);
    }
}
