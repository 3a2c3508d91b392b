//! When a heartbeat is fresh.

use std::time::Duration;

/// Whether an instance last heard at `seen` is alive at `now` (both Unix seconds): at most `timeout` ago, to the second
/// and the bound included. A timeout of zero switches the check off; a time in the future is fresh.
#[inline]
pub fn is_fresh(seen: i64, now: i64, timeout: Duration) -> bool {
    seen >= fresh_from(now, timeout)
}

/// The earliest time of being heard that [`is_fresh`] at `now`.
#[inline]
pub(crate) fn fresh_from(now: i64, timeout: Duration) -> i64 {
    if timeout.is_zero() { i64::MIN } else { now.saturating_sub_unsigned(timeout.as_secs()) }
}

/// When an instance whose entry says `timestamp` counts as heard when it is met for the first time at `now`: at its
/// timestamp, but never in the future.
#[inline]
pub fn first_seen(timestamp: i64, now: i64) -> i64 {
    timestamp.min(now)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_heartbeat_is_fresh_up_to_and_including_the_timeout() {
        let minute = Duration::from_secs(60);
        assert!(is_fresh(40, 100, minute));
        assert!(!is_fresh(39, 100, minute));
        assert!(is_fresh(500, 100, minute), "from the future");
        assert!(is_fresh(i64::MIN, i64::MAX, Duration::ZERO), "no timeout");
        assert!(!is_fresh(i64::MIN, i64::MAX, minute));
    }

    #[test]
    fn a_fraction_of_a_second_is_rounded_up_to_the_next_whole_age() {
        assert!(is_fresh(100, 100, Duration::from_millis(500)));
        assert!(!is_fresh(99, 100, Duration::from_millis(500)));
    }
}
