//! From what clients write to what ingesters understand: PromQL selectors, remote-read matchers, and times.

use promql_parser::label::MatchOp;
use promql_parser::parser::{self, Expr};
use ringkit_proto::client::{LabelMatcher, MatchType};
use ringkit_proto::remote;
use ringkit_tsdb::matcher::{Matcher, Op};

/// A selector, a matcher or a time that cannot be read: the client's fault, 400.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Invalid(String);

/// The longest selector or regular expression. Compiling one costs in proportion.
const MAX_LEN: usize = 16 * 1024;

/// Parses a series selector such as `up{job="x"}`. At least one matcher must not match the empty string, as in PromQL.
///
/// # Errors
///
/// [`Invalid`] for anything but a plain selector: no range, offset, `@` or `or`.
pub(crate) fn parse(selector: &str) -> Result<Vec<LabelMatcher>, Invalid> {
    if selector.len() > MAX_LEN {
        return Err(Invalid(format!("the selector is longer than {MAX_LEN} bytes")));
    }
    let invalid =
        |what: &str| Invalid(format!("invalid selector {}: {what}", crate::text::quote(selector.as_bytes())));
    let parsed = parser::parse(selector).map_err(|error| invalid(&error))?;
    let Expr::VectorSelector(parsed) = parsed else {
        return Err(invalid("only a plain series selector is possible here"));
    };
    if parsed.offset.is_some() || parsed.at.is_some() || !parsed.matchers.or_matchers.is_empty() {
        return Err(invalid("`offset`, `@` and `or` are not possible here"));
    }
    let named = parsed.name.into_iter().map(|name| (MatchType::Equal, "__name__".to_owned(), name));
    let others = parsed.matchers.matchers.into_iter().map(|matcher| {
        let kind = match matcher.op {
            MatchOp::Equal => MatchType::Equal,
            MatchOp::NotEqual => MatchType::NotEqual,
            MatchOp::Re(_) => MatchType::RegexMatch,
            MatchOp::NotRe(_) => MatchType::RegexNoMatch,
        };
        (kind, matcher.name, matcher.value)
    });
    named.chain(others).map(|(kind, name, value)| checked(kind, name, value)).collect()
}

/// Turns the matchers of a remote-read query into those of the ingesters' protocol.
///
/// # Errors
///
/// [`Invalid`] for an unknown type or an expression that does not compile.
pub(crate) fn from_remote(matchers: Vec<remote::LabelMatcher>) -> Result<Vec<LabelMatcher>, Invalid> {
    let convert = |matcher: remote::LabelMatcher| {
        // Both protocols number the types alike.
        let kind = MatchType::try_from(matcher.r#type)
            .map_err(|_| Invalid(format!("invalid matcher type {}", matcher.r#type)))?;
        checked(kind, matcher.name, matcher.value)
    };
    matchers.into_iter().map(convert).collect()
}

fn checked(kind: MatchType, name: String, value: String) -> Result<LabelMatcher, Invalid> {
    let op = match kind {
        MatchType::Equal => Op::Equal,
        MatchType::NotEqual => Op::NotEqual,
        MatchType::RegexMatch => Op::Regex,
        MatchType::RegexNoMatch => Op::NotRegex,
    };
    if value.len() > MAX_LEN {
        return Err(Invalid(format!("a matcher is longer than {MAX_LEN} bytes")));
    }
    Matcher::try_new(op, name.clone(), value.clone()).map_err(|error| {
        Invalid(format!("invalid matcher of label {}: {error}", crate::text::quote(name.as_bytes())))
    })?;
    Ok(LabelMatcher { r#type: kind.into(), name, value })
}

/// Reads a time as Prometheus' API does: Unix seconds with an optional fraction, or RFC 3339. In milliseconds;
/// what lies outside of them is clamped.
///
/// # Errors
///
/// [`Invalid`] for anything else.
pub(crate) fn parse_time(text: &str) -> Result<i64, Invalid> {
    if let Ok(seconds) = text.parse::<f64>() {
        if seconds.is_nan() {
            return Err(Invalid("a time must be a number".to_owned()));
        }
        // Saturates at both ends.
        return Ok((seconds * 1000.0).round() as i64);
    }
    rfc3339(text).ok_or_else(|| {
        let text = crate::text::quote(text.as_bytes());
        Invalid(format!("cannot parse {text} to a valid timestamp: use Unix seconds or RFC 3339"))
    })
}

/// `2006-01-02T15:04:05.999Z` or with `+01:00`.
fn rfc3339(text: &str) -> Option<i64> {
    let (date, time) = text.split_once(['T', 't', ' '])?;
    let mut parts = date.splitn(3, '-').map(digits);
    let (year, month, day) = (parts.next()??, parts.next()??, parts.next()??);
    let at = time.find(['Z', 'z', '+', '-'])?;
    let (clock, zone) = time.split_at(at);
    let (clock, millis) = match clock.split_once('.') {
        Some((clock, fraction)) => {
            digits(fraction)?;
            let fraction = format!("{fraction:0<3}");
            (clock, digits(fraction.get(..3)?)?)
        }
        None => (clock, 0),
    };
    let mut parts = clock.splitn(3, ':').map(digits);
    let (hour, minute, second) = (parts.next()??, parts.next()??, parts.next()??);
    let offset_minutes = match zone.split_at_checked(1)? {
        ("Z" | "z", "") => 0,
        (sign, rest) => {
            let (hours, minutes) = rest.split_once(':')?;
            let minutes = digits(hours)? * 60 + digits(minutes)?;
            if sign == "-" { -minutes } else { minutes }
        }
    };
    let valid =
        (1..=12).contains(&month) && (1..=31).contains(&day) && hour < 24 && minute < 60 && second < 61;
    if !valid || year > 9999 || offset_minutes.abs() > 24 * 60 {
        return None;
    }
    let minutes = (days_since_epoch(year, month, day) * 24 + hour) * 60 + minute - offset_minutes;
    Some((minutes * 60 + second) * 1000 + millis)
}

fn digits(text: &str) -> Option<i64> {
    let plain = !text.is_empty() && text.len() <= 9 && text.bytes().all(|byte| byte.is_ascii_digit());
    plain.then(|| text.parse().ok()).flatten()
}

/// Days from 1970-01-01 in the proleptic Gregorian calendar: years begin in March, so that leap days come last.
fn days_since_epoch(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let of_era = year - era * 400;
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn matchers(selector: &str) -> Vec<(MatchType, String, String)> {
        let matchers = parse(selector).unwrap();
        matchers.into_iter().map(|m| (m.r#type(), m.name, m.value)).collect()
    }

    #[test]
    fn selectors_become_matchers() {
        use MatchType::{Equal, NotEqual, RegexMatch, RegexNoMatch};
        let expected = |all: &[(MatchType, &str, &str)]| {
            all.iter()
                .map(|(kind, name, value)| (*kind, (*name).to_owned(), (*value).to_owned()))
                .collect::<Vec<_>>()
        };
        assert_eq!(matchers("up"), expected(&[(Equal, "__name__", "up")]));
        assert_eq!(
            matchers(r#"up{a="1",b!="2",c=~"x|y",d!~"z.*"}"#),
            expected(&[
                (Equal, "__name__", "up"),
                (Equal, "a", "1"),
                (NotEqual, "b", "2"),
                (RegexMatch, "c", "x|y"),
                (RegexNoMatch, "d", "z.*"),
            ])
        );
        assert_eq!(matchers(r#"{__name__=~".+"}"#), expected(&[(RegexMatch, "__name__", ".+")]));
    }

    #[test]
    fn everything_but_a_plain_selector_is_refused() {
        let long = format!("{{a=\"{}\"}}", "x".repeat(MAX_LEN));
        for text in
            ["", "{", "{}", "rate(up[5m])", "up[5m]", "up offset 5m", "up @ 5", "1", "{a=~\"(\"}", &long]
        {
            assert!(parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn remote_matchers_are_checked() {
        let matcher =
            |kind, value: &str| remote::LabelMatcher { r#type: kind, name: "a".into(), value: value.into() };
        assert_eq!(from_remote(vec![matcher(2, "x.*")]).unwrap()[0].r#type(), MatchType::RegexMatch);
        for bad in [matcher(4, ""), matcher(-1, ""), matcher(2, "("), matcher(3, "[")] {
            assert!(from_remote(vec![bad]).is_err());
        }
        // Not an expression, so no matter.
        assert!(from_remote(vec![matcher(0, "(")]).is_ok());
    }

    #[test]
    fn times_are_read_as_prometheus_does() {
        let cases = [
            ("0", 0),
            ("1.5", 1500),
            ("-1", -1000),
            ("1700000000.123", 1_700_000_000_123),
            ("1e400", i64::MAX),
            ("-9223372036854775808", i64::MIN),
            ("1970-01-01T00:00:00Z", 0),
            ("2024-02-29T12:34:56.789Z", 1_709_210_096_789),
            ("2024-02-29T12:34:56.7+01:00", 1_709_206_496_700),
            ("1969-12-31T23:59:59-00:30", 1_799_000),
        ];
        for (text, millis) in cases {
            assert_eq!(parse_time(text).unwrap(), millis, "{text}");
        }
        for text in ["", "NaN", "now", "2024-01-01", "2024-13-01T00:00:00Z", "2024-01-01T00:00:00", "é"] {
            assert!(parse_time(text).is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn arbitrary_text_never_panics(text in any::<String>(), bytes in "[0-9TZ:.+\\-]{0,30}") {
            let _ = parse(&text);
            let _ = parse_time(&text);
            let _ = parse_time(&bytes);
        }
    }
}
