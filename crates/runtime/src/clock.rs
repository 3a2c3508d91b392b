//! Wall time, injected, so that tests set it and a paused tokio runtime carries it along; and [`Clock::steady`], wall time
//! without the jumps.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::time::Instant;

/// A source of wall time. Cheap to clone; clones agree.
///
/// Intervals and deadlines come from `tokio::time`; this is only for timestamps that leave the process, or came into it.
#[derive(Clone, Debug)]
pub struct Clock(Source);

#[derive(Clone, Debug)]
enum Source {
    System,
    Following { origin: Instant, start_ms: i64 },
    Jumping { origin: Instant, start_ms: i64, jumped_ms: Arc<AtomicI64> },
    Manual(Arc<AtomicI64>),
    Steady(Arc<Steady>),
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

    /// As [`Clock::paused_at`], with somebody who sets it wrong and right again: stands for a machine's clock in tests.
    pub fn jumping(start_ms: i64) -> (Self, Jumps) {
        let jumped_ms = Arc::new(AtomicI64::new(0));
        let jumps = Jumps(Arc::clone(&jumped_ms));
        (Self(Source::Jumping { origin: Instant::now(), start_ms, jumped_ms }), jumps)
    }

    /// This clock without its jumps: begins at what this one shows, goes on as fast as time really passes, and comes
    /// closer to this one by a tenth of the time that passes, so that one set wrong at the start of a process heals.
    ///
    /// For what is told by differences of wall times within this process, such as the age of heartbeats: a clock set an
    /// hour ahead must not make an hour pass. Clones of the result agree; two results made at different times need not. A
    /// clock that only tests move stays as it is.
    #[must_use]
    pub fn steady(self) -> Self {
        match &self.0 {
            Source::System | Source::Jumping { .. } => Self(Source::Steady(Arc::new(Steady::new(self)))),
            Source::Following { .. } | Source::Manual(_) | Source::Steady(_) => self,
        }
    }

    /// Milliseconds since 1970-01-01 UTC; negative before.
    pub fn now_ms(&self) -> i64 {
        match &self.0 {
            Source::System => match SystemTime::now().duration_since(UNIX_EPOCH) {
                Ok(after) => whole_ms(after),
                Err(before) => -whole_ms(before.duration()),
            },
            Source::Following { origin, start_ms } => start_ms.saturating_add(whole_ms(origin.elapsed())),
            Source::Jumping { origin, start_ms, jumped_ms } => start_ms
                .saturating_add(whole_ms(origin.elapsed()))
                .saturating_add(jumped_ms.load(Ordering::Acquire)),
            Source::Manual(now) => now.load(Ordering::Acquire),
            Source::Steady(steady) => steady.now_ms(),
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

/// Sets a [`Clock::jumping`] wrong.
#[derive(Clone, Debug)]
pub struct Jumps(Arc<AtomicI64>);

impl Jumps {
    /// Sets the clock ahead by `ms`, or back if negative.
    pub fn jump_ms(&self, ms: i64) {
        self.0.fetch_add(ms, Ordering::AcqRel);
    }
}

/// A clock that follows another one evenly.
#[derive(Debug)]
struct Steady {
    followed: Clock,
    /// What passes: real time, or tokio's where tests turn it.
    origin: Origin,
    /// What to add to the time passed.
    offset_ms: AtomicI64,
    /// How much time had passed when the offset was last corrected.
    corrected_at_ms: AtomicI64,
}

#[derive(Clone, Copy, Debug)]
enum Origin {
    Real(std::time::Instant),
    Tokio(Instant),
}

impl Steady {
    /// The other clock is looked at no oftener.
    const CORRECTION_PERIOD_MS: i64 = 100;
    /// What passes unobserved beyond this does not add to a correction, so that one after a long silence is no jump.
    const MAX_CORRECTED_MS: i64 = 1000;
    /// Part of the time passed by which the other clock is approached.
    const APPROACH: i64 = 10;

    fn new(followed: Clock) -> Self {
        let origin = match followed.0 {
            Source::System => Origin::Real(std::time::Instant::now()),
            _ => Origin::Tokio(Instant::now()),
        };
        let offset_ms = AtomicI64::new(followed.now_ms());
        Self { followed, origin, offset_ms, corrected_at_ms: AtomicI64::new(0) }
    }

    fn now_ms(&self) -> i64 {
        let passed = whole_ms(match self.origin {
            Origin::Real(origin) => origin.elapsed(),
            Origin::Tokio(origin) => origin.elapsed(),
        });
        let now = passed.saturating_add(self.offset_ms.load(Ordering::Acquire));
        let corrected_at = self.corrected_at_ms.load(Ordering::Acquire);
        let since = passed.saturating_sub(corrected_at);
        if since < Self::CORRECTION_PERIOD_MS {
            return now;
        }
        // Whoever is first corrects; to the others it makes no difference worth waiting for.
        let order = (Ordering::AcqRel, Ordering::Relaxed);
        if self.corrected_at_ms.compare_exchange(corrected_at, passed, order.0, order.1).is_err() {
            return now;
        }
        let most = since.min(Self::MAX_CORRECTED_MS) / Self::APPROACH;
        let correction = self.followed.now_ms().saturating_sub(now).clamp(-most, most);
        self.offset_ms.fetch_add(correction, Ordering::AcqRel);
        now.saturating_add(correction)
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

    #[tokio::test(start_paused = true)]
    async fn a_steady_clock_does_not_jump_and_comes_closer() {
        for hour in [3_600_000, -3_600_000] {
            let (clock, jumps) = Clock::jumping(10_000_000);
            let steady = clock.clone().steady();
            jumps.jump_ms(hour);
            assert_eq!((clock.now_ms(), steady.now_ms()), (10_000_000 + hour, 10_000_000));
            tokio::time::advance(Duration::from_millis(60_000)).await;
            let after = steady.now_ms();
            assert!(
                (10_059_900..=10_060_100).contains(&after),
                "one correction at most, whatever passed: {after}"
            );
            for _ in 0..600 {
                tokio::time::advance(Duration::from_millis(100)).await;
                steady.now_ms();
            }
            let drift = steady.now_ms() - after - 60_000;
            assert_eq!(drift, hour.signum() * 6_000, "a tenth of what passed");
            for _ in 0..36_000 {
                tokio::time::advance(Duration::from_secs(1)).await;
                steady.now_ms();
            }
            assert_eq!(steady.now_ms(), clock.now_ms(), "healed");
        }
    }

    #[test]
    fn a_steady_clock_shows_the_time_and_a_manual_one_is_steady() {
        let (system, steady) = (Clock::system(), Clock::system().steady());
        assert!((system.now_ms() - steady.now_ms()).abs() < 10_000);
        let (clock, hand) = Clock::manual(500);
        let steady = clock.clone().steady();
        hand.set_ms(9_000);
        assert_eq!(steady.now_ms(), 9_000);
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
