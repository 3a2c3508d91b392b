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

/// Makes times that grow whatever the wall clock does.
#[derive(Clone, Debug, Default)]
pub struct Clock {
    last: Hlc,
}

impl Clock {
    /// A time later than any made or [heard of](Clock::heard) before, and not before `now`.
    pub fn next(&mut self, now: Now) -> Hlc {
        self.last = Hlc(self.last.0.saturating_add(1)).max(Hlc::from_ms(now.wall_ms));
        self.last
    }

    /// Others are as far as `time`. Whether their clocks may be believed is for the caller to judge.
    pub fn heard(&mut self, time: Hlc) {
        self.last = self.last.max(time);
    }

    /// The last time made or heard of.
    pub fn last(&self) -> Hlc {
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
        for ms in [5, 5, 5, 7, 3, 0, 8, u64::MAX, u64::MAX] {
            let next = clock.next(at(ms));
            assert!(next > last || next.0 == u64::MAX, "{next:?} after {last:?}");
            last = next;
        }
        assert_eq!(Hlc::from_ms(1_700_000_000_123).ms(), 1_700_000_000_123);
    }

    #[test]
    fn what_was_heard_is_before_what_is_made() {
        let mut clock = Clock::default();
        clock.heard(Hlc::from_ms(1_000));
        assert!(clock.next(at(10)) > Hlc::from_ms(1_000));
        assert_eq!(clock.next(at(2_000)), Hlc::from_ms(2_000));
    }
}
