//! Points in time as Go prints them, in UTC.

use std::time::{SystemTime, UNIX_EPOCH};

/// RFC 3339 with as many fractional digits as it takes: Go's `time.RFC3339Nano`.
pub(crate) fn rfc3339(time: SystemTime) -> String {
    let (seconds, nanos) = match time.duration_since(UNIX_EPOCH) {
        Ok(after) => (i64::try_from(after.as_secs()).unwrap_or(i64::MAX), after.subsec_nanos()),
        Err(before) => {
            let before = before.duration();
            let whole = -i64::try_from(before.as_secs()).unwrap_or(i64::MAX);
            match before.subsec_nanos() {
                0 => (whole, 0),
                nanos => (whole - 1, 1_000_000_000 - nanos),
            }
        }
    };
    let Civil { year, month, day, hour, minute, second } = Civil::of(seconds);
    let fraction = format!(".{nanos:09}");
    let fraction = fraction.trim_end_matches('0').trim_end_matches('.');
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}{fraction}Z")
}

/// Go's default formatting of a time with whole seconds: `2023-11-14 22:13:20 +0000 UTC`.
pub(crate) fn go_default(unix_seconds: i64) -> String {
    let Civil { year, month, day, hour, minute, second } = Civil::of(unix_seconds);
    format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02} +0000 UTC")
}

/// How long ago, in words that a person reads at a glance: `3s`, `5m 20s`, `2h 5m`, `3d 4h`.
pub(crate) fn age(seconds: i64) -> String {
    let (sign, seconds) =
        if seconds < 0 { ("-", seconds.unsigned_abs()) } else { ("", seconds.unsigned_abs()) };
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86400);
    match seconds {
        0..60 => format!("{sign}{seconds}s"),
        60..3600 => format!("{sign}{minutes}m {}s", seconds % 60),
        3600..86400 => format!("{sign}{hours}h {}m", minutes % 60),
        _ => format!("{sign}{days}d {}h", hours % 24),
    }
}

/// A date and a time of day in the Gregorian calendar, carried backwards without end.
struct Civil {
    year: i64,
    month: i64,
    day: i64,
    hour: i64,
    minute: i64,
    second: i64,
}

impl Civil {
    fn of(unix_seconds: i64) -> Self {
        const DAY: i64 = 86400;
        const DAYS_IN_400_YEARS: i64 = 146_097;
        /// From 0000-03-01 to 1970-01-01.
        const EPOCH: i64 = 719_468;
        let of_day = unix_seconds.rem_euclid(DAY);
        // Years begin in March, so that the leap day is a year's last.
        let days = unix_seconds.div_euclid(DAY) + EPOCH;
        let (era, of_era) = (days.div_euclid(DAYS_IN_400_YEARS), days.rem_euclid(DAYS_IN_400_YEARS));
        let year_of_era = (of_era - of_era / 1460 + of_era / 36524 - of_era / 146_096) / 365;
        let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let from_march = (5 * of_year + 2) / 153;
        let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
        Self {
            year: era * 400 + year_of_era + i64::from(month <= 2),
            month,
            day: of_year - (153 * from_march + 2) / 5 + 1,
            hour: of_day / 3600,
            minute: of_day / 60 % 60,
            second: of_day % 60,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn times_are_printed_as_go_prints_them() {
        assert_eq!(go_default(1_700_000_000), "2023-11-14 22:13:20 +0000 UTC");
        assert_eq!(go_default(951_782_400), "2000-02-29 00:00:00 +0000 UTC");
        assert_eq!(go_default(-1), "1969-12-31 23:59:59 +0000 UTC");
        assert_eq!(go_default(4_107_542_399), "2100-02-28 23:59:59 +0000 UTC");
        assert_eq!(go_default(4_107_542_400), "2100-03-01 00:00:00 +0000 UTC");
        let at = |nanos| rfc3339(UNIX_EPOCH + Duration::new(1_700_000_000, nanos));
        assert_eq!(at(500), "2023-11-14T22:13:20.0000005Z");
        assert_eq!(at(346_478_294), "2023-11-14T22:13:20.346478294Z");
        assert_eq!(at(0), "2023-11-14T22:13:20Z");
        assert_eq!(rfc3339(UNIX_EPOCH - Duration::from_millis(250)), "1969-12-31T23:59:59.75Z");
    }

    #[test]
    fn ages_have_at_most_two_units() {
        let ages = [3, 59, 60, 3599, 7500, 266_400, -5].map(age);
        assert_eq!(ages, ["3s", "59s", "1m 0s", "59m 59s", "2h 5m", "3d 2h", "-5s"]);
    }
}
