//! The two times of a member, and [`Hlc`], the clock that orders writes.

use std::time::Duration;

/// A moment, in the two times that matter here. Both come in from outside.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Now {
    /// Monotonic time since any fixed moment of this process: for waiting and for ages.
    pub mono: Duration,
    /// Wall time in milliseconds since 1970, which may be wrong and may jump.
    pub wall_ms: u64,
}

/// How many bits of a hybrid time count writes within a millisecond.
const COUNTER_BITS: u32 = 16;

/// A hybrid time: 48 bits of wall milliseconds, then 16 bits that count.
///
/// # Source
///
/// Kulkarni, Demirbas, Madappa, Avva, Leone: Logical Physical Clocks (2014).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Hlc(pub u64);

impl Hlc {
    /// The first time of a millisecond. Milliseconds beyond 48 bits, some 8,900 years, are the last there is.
    pub fn from_ms(ms: u64) -> Self {
        Self(ms.min((1 << (64 - COUNTER_BITS)) - 1) << COUNTER_BITS)
    }

    /// Its milliseconds since 1970.
    pub fn ms(self) -> u64 {
        self.0 >> COUNTER_BITS
    }
}

/// Makes times that grow although the wall clock may stand still or jump back.
///
/// Only if it jumps back by more than a limit the times go back with it: then it was ahead before, by as much as others do not
/// believe, and what is written from now on must not be refused because of that.
#[derive(Clone, Debug)]
pub struct Clock {
    last: Hlc,
    /// How far ahead of the wall clock times may be, in milliseconds.
    max_ahead_ms: u64,
}

impl Default for Clock {
    /// With a limit of a minute.
    fn default() -> Self {
        Self::new(Duration::from_secs(60))
    }
}

impl Clock {
    /// A clock that has made no time yet, and makes none that is ahead of the wall clock by more than `max_ahead`.
    pub fn new(max_ahead: Duration) -> Self {
        Self { last: Hlc::default(), max_ahead_ms: u64::try_from(max_ahead.as_millis()).unwrap_or(u64::MAX) }
    }

    /// A time not before `now`, and later than any made before, unless those were too far ahead of `now`.
    pub fn next(&mut self, now: Now) -> Hlc {
        let wall = Hlc::from_ms(now.wall_ms);
        let was_ahead = self.last.ms() > now.wall_ms.saturating_add(self.max_ahead_ms);
        self.last = if was_ahead { wall } else { wall.max(Hlc(self.last.0.saturating_add(1))) };
        self.last
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(wall_ms: u64) -> Now {
        Now { mono: Duration::ZERO, wall_ms }
    }

    #[test]
    fn times_grow_over_clocks_that_stand_jump_back_or_end() {
        let mut clock = Clock::default();
        let mut last = Hlc::default();
        for ms in [5, 5, 5, 7, 3, 0, 8, 60_000, 0, u64::MAX, u64::MAX] {
            let next = clock.next(at(ms));
            assert!(next > last || next.0 == u64::MAX, "{next:?} after {last:?}");
            last = next;
        }
        assert_eq!(Hlc::from_ms(1_700_000_000_123).ms(), 1_700_000_000_123);
    }

    #[test]
    fn a_clock_that_was_too_far_ahead_is_believed_no_longer() {
        const DAY: u64 = 24 * 60 * 60 * 1_000;
        let mut clock = Clock::new(Duration::from_secs(60));
        let wrong = clock.next(at(3 * DAY));
        assert_eq!(clock.next(at(DAY)), Hlc::from_ms(DAY));
        assert!(clock.next(at(DAY)) > Hlc::from_ms(DAY), "and grows from there");
        // As much as others take is kept.
        assert_eq!(clock.next(at(DAY + 60_000)), Hlc::from_ms(DAY + 60_000));
        let kept = clock.next(at(DAY));
        assert!(kept > Hlc::from_ms(DAY + 60_000) && kept < wrong);
    }
}
