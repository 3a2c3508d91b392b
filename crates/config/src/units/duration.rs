//! Durations in Go's and in Prometheus' notation.

use super::{Codec, Duration, Kind, Leaf, LeafShape, Raw, Shape, Tree, codec, json, shown};

/// The longest duration Go has, and Cortex' "infinite": 2^63 - 1 nanoseconds.
pub(crate) const LONGEST: Duration = Duration::from_nanos(i64::MAX.unsigned_abs());

const NANOS: &[(&str, u64)] = &[
    ("ns", 1),
    ("us", 1_000),
    ("µs", 1_000),
    ("μs", 1_000),
    ("ms", 1_000_000),
    ("s", 1_000_000_000),
    ("m", 60_000_000_000),
    ("h", 3_600_000_000_000),
];
const LONG_NANOS: &[(&str, u64)] =
    &[("d", 86_400_000_000_000), ("w", 604_800_000_000_000), ("y", 31_536_000_000_000_000)];

/// A duration in Go's notation: `1h30m`, `200ms`, `1.5s`, `0`.
pub(crate) fn parse_go(text: &str) -> Result<Duration, String> {
    parse(text, false)
}

/// A duration in Prometheus' notation, which adds `d`, `w` and `y`; Go's is accepted too.
pub(crate) fn parse_prometheus(text: &str) -> Result<Duration, String> {
    parse(text, true)
}

fn parse(text: &str, long: bool) -> Result<Duration, String> {
    let wrong = |why: String| {
        Err(format!("expected a duration such as `200ms`, `60s` or `1h30m`, found `{text}`{why}"))
    };
    let mut rest = text.strip_prefix('+').unwrap_or(text);
    if rest == "0" {
        return Ok(Duration::ZERO);
    }
    if rest.starts_with('-') {
        return wrong(": it cannot be negative".into());
    }
    if rest.is_empty() {
        return wrong(String::new());
    }
    let mut total: u128 = 0;
    while !rest.is_empty() {
        let digits = rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_digit() || c == '.').len();
        let (number, after) = rest.split_at(digits);
        let unit_len =
            after.len() - after.trim_start_matches(|c: char| !c.is_ascii_digit() && c != '.').len();
        let (unit, tail) = after.split_at(unit_len);
        if number.is_empty() || number == "." || number.matches('.').count() > 1 {
            return wrong(String::new());
        }
        let known = NANOS.iter().chain(LONG_NANOS.iter().filter(|_| long)).find(|(name, _)| *name == unit);
        let Some((_, nanos)) = known else { return wrong(unit_hint(number, unit)) };
        let Some(part) = scaled(number, *nanos) else { return wrong(": it is too long".into()) };
        total = total.saturating_add(part);
        rest = tail;
    }
    match u64::try_from(total) {
        Ok(total) if total <= LONGEST.as_nanos() as u64 => Ok(Duration::from_nanos(total)),
        _ => wrong(": it is too long".into()),
    }
}

/// `number` (with at most one point) times `nanos`, cut to whole nanoseconds.
fn scaled(number: &str, nanos: u64) -> Option<u128> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let whole: u128 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
    // The fraction in floating point, as Go does it, so that both read the same text as the same duration.
    let (mut digits, mut scale) = (0_u64, 1.0);
    for digit in fraction.bytes() {
        let more = digits.checked_mul(10).and_then(|ten| ten.checked_add(u64::from(digit - b'0')));
        let Some(more) = more.filter(|more| i64::try_from(*more).is_ok()) else { break };
        digits = more;
        scale *= 10.0;
    }
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "below one unit, and never negative"
    )]
    let part = (digits as f64 * (nanos as f64 / scale)) as u128;
    whole.checked_mul(nanos.into())?.checked_add(part)
}

/// What the writer may have meant by a unit that does not exist.
fn unit_hint(number: &str, unit: &str) -> String {
    if unit.is_empty() {
        return format!(": a unit is missing (did you mean `{number}s`?)");
    }
    let lower = unit.to_lowercase();
    let hours = |per: u64| {
        number
            .parse::<u64>()
            .ok()
            .and_then(|n| n.checked_mul(per))
            .map(|hours| format!(" (did you mean `{hours}h`?)"))
    };
    let hint = match lower.trim_end_matches('s') {
        "d" | "day" => hours(24),
        "w" | "week" => hours(24 * 7),
        "y" | "year" => hours(24 * 365),
        "sec" | "second" | "" => Some(format!(" (did you mean `{number}s`?)")),
        "min" | "minute" => Some(format!(" (did you mean `{number}m`?)")),
        "hr" | "hour" | "h" => Some(format!(" (did you mean `{number}h`?)")),
        "m" if lower == "m" => Some(format!(" (did you mean `{number}m`?)")),
        "milli" | "milli second" | "millisecond" | "msec" | "m" => {
            Some(format!(" (did you mean `{number}ms`?)"))
        }
        _ => None,
    };
    format!(": there is no unit `{unit}`, only ns, us, ms, s, m, h{}", hint.unwrap_or_default())
}

/// As Go prints it: `1m0s`, `1.5s`, `200ms`, `0s`.
pub(crate) fn format_go(value: Duration) -> String {
    let nanos = value.as_nanos();
    if nanos == 0 {
        return "0s".into();
    }
    if nanos < 1_000_000_000 {
        let (unit, per) = [("ms", 1_000_000), ("µs", 1_000)]
            .into_iter()
            .find(|(_, per)| nanos >= *per)
            .unwrap_or(("ns", 1));
        return format!("{}{unit}", with_fraction(nanos, per));
    }
    let seconds = with_fraction(nanos % 60_000_000_000, 1_000_000_000);
    let minutes = nanos / 60_000_000_000;
    match (minutes / 60, minutes % 60) {
        (0, 0) => format!("{seconds}s"),
        (0, minutes) => format!("{minutes}m{seconds}s"),
        (hours, minutes) => format!("{hours}h{minutes}m{seconds}s"),
    }
}

fn with_fraction(nanos: u128, per: u128) -> String {
    let (whole, fraction) = (nanos / per, nanos % per);
    if fraction == 0 {
        return whole.to_string();
    }
    let width = per.ilog10() as usize;
    let digits = format!("{fraction:0width$}");
    format!("{whole}.{}", digits.trim_end_matches('0'))
}

/// As Prometheus prints it: the units that are needed, `2w`, `1h30m`. Below a millisecond, as Go does.
fn format_prometheus(value: Duration) -> String {
    let millis = value.as_millis();
    if value.is_zero() || Duration::from_millis(u64::try_from(millis).unwrap_or(u64::MAX)) != value {
        return format_go(value);
    }
    let mut rest = millis;
    let mut text = String::new();
    // Years, weeks and days appear only where nothing is left over, as in Prometheus.
    let units = [
        ("y", 31_536_000_000, true),
        ("w", 604_800_000, true),
        ("d", 86_400_000, false),
        ("h", 3_600_000, false),
        ("m", 60_000, false),
        ("s", 1_000, false),
        ("ms", 1, false),
    ];
    for (unit, per, exact) in units {
        if exact && !rest.is_multiple_of(per) {
            continue;
        }
        if rest / per > 0 {
            text.push_str(&format!("{}{unit}", rest / per));
            rest %= per;
        }
    }
    text
}

/// The text of a duration, or the bare number of nanoseconds that Cortex accepts in YAML.
fn read(
    raw: &Raw,
    notes: &mut Vec<String>,
    parse: fn(&str) -> Result<Duration, String>,
) -> Result<Duration, String> {
    match raw {
        Raw::Plain(text) => match text.parse::<u64>() {
            Ok(0) => Ok(Duration::ZERO),
            Ok(nanos) if nanos <= LONGEST.as_nanos() as u64 => {
                notes.push(format!(
                    "`{text}` has no unit and means {text} nanoseconds, as in Cortex; write `{text}s` for seconds"
                ));
                Ok(Duration::from_nanos(nanos))
            }
            _ => parse(text),
        },
        Raw::Quoted(text) | Raw::Text(text) => parse(text),
        _ => Err(format!("expected a duration such as `200ms`, `60s` or `1h30m`, found {}", shown(raw))),
    }
}

const GO_PATTERN: &str = r"^\+?(0|([0-9]+(\.[0-9]*)?|\.[0-9]+)(ns|us|µs|μs|ms|s|m|h))+$";
const PROMETHEUS_PATTERN: &str = r"^\+?(0|([0-9]+(\.[0-9]*)?|\.[0-9]+)(ns|us|µs|μs|ms|s|m|h|d|w|y))+$";

impl Leaf for Duration {
    fn kind() -> Kind {
        Kind::named("duration")
    }
    fn parse(raw: &Raw, notes: &mut Vec<String>) -> Result<Self, String> {
        read(raw, notes, parse_go)
    }
    fn render(&self) -> Tree {
        Tree::Str(format_go(*self))
    }
    fn schema() -> serde_json::Value {
        json!({"type": ["string", "integer"], "pattern": GO_PATTERN})
    }
}

impl Leaf for Vec<Duration> {
    fn kind() -> Kind {
        Kind::named("list of duration")
    }
    fn parse(raw: &Raw, notes: &mut Vec<String>) -> Result<Self, String> {
        match raw {
            Raw::Seq(items) => items.iter().map(|item| read(item, notes, parse_go)).collect(),
            Raw::Text(text) => text.split(',').map(|part| parse_go(part.trim())).collect(),
            _ => Err(format!("expected a list of durations such as `[2h]`, found {}", shown(raw))),
        }
    }
    fn render(&self) -> Tree {
        Tree::Seq(self.iter().map(Leaf::render).collect())
    }
    fn schema() -> serde_json::Value {
        json!({"type": "array", "items": Duration::schema()})
    }
}

codec!(
    /// A duration of the limits, which Cortex reads in Prometheus' notation.
    pub(crate) PromDuration for Duration
);

impl Leaf for PromDuration {
    fn kind() -> Kind {
        Kind::named("duration")
    }
    fn parse(raw: &Raw, notes: &mut Vec<String>) -> Result<Self, String> {
        read(raw, notes, parse_prometheus).map(Self)
    }
    fn render(&self) -> Tree {
        Tree::Str(format_prometheus(self.0))
    }
    fn schema() -> serde_json::Value {
        json!({"type": ["string", "integer"], "pattern": PROMETHEUS_PATTERN})
    }
}

/// A wait that ringkit can choose by knowledge instead of by the clock.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AutoDuration {
    /// As soon as what is waited for is known to have happened.
    #[default]
    Auto,
    /// This long, as in Cortex.
    After(Duration),
}

impl AutoDuration {
    /// The wait that was given; `None` for `auto`.
    pub fn given(self) -> Option<Duration> {
        match self {
            Self::Auto => None,
            Self::After(wait) => Some(wait),
        }
    }
}

impl Leaf for AutoDuration {
    fn kind() -> Kind {
        Kind::named("duration")
    }
    fn parse(raw: &Raw, notes: &mut Vec<String>) -> Result<Self, String> {
        match raw {
            Raw::Plain(text) | Raw::Quoted(text) | Raw::Text(text) if text == "auto" => Ok(Self::Auto),
            raw => match read(raw, notes, parse_go) {
                Ok(duration) => Ok(Self::After(duration)),
                Err(wrong) => Err(wrong.replacen("expected a duration", "expected `auto` or a duration", 1)),
            },
        }
    }
    fn render(&self) -> Tree {
        match self {
            Self::Auto => Tree::Str("auto".into()),
            Self::After(duration) => Leaf::render(duration),
        }
    }
    fn schema() -> serde_json::Value {
        json!({"anyOf": [{"const": "auto"}, Duration::schema()]})
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    #[test]
    fn reads_and_prints_as_go_does() {
        for (text, nanos, printed) in [
            ("0", 0, "0s"),
            ("0s", 0, "0s"),
            ("1ns", 1, "1ns"),
            ("1100ns", 1100, "1.1µs"),
            ("2us", 2000, "2µs"),
            ("2µs", 2000, "2µs"),
            ("2200us", 2_200_000, "2.2ms"),
            ("200ms", 200 * MS, "200ms"),
            ("3.3s", 3300 * MS, "3.3s"),
            (".5s", 500 * MS, "500ms"),
            ("1.s", 1000 * MS, "1s"),
            ("+5m", 300_000 * MS, "5m0s"),
            ("245s", 245_000 * MS, "4m5s"),
            ("4m5s1ms", 245_001 * MS, "4m5.001s"),
            ("1h30m", 5_400_000 * MS, "1h30m0s"),
            ("30m1h", 5_400_000 * MS, "1h30m0s"),
            ("0.3333333333333333333h", 1_200_000 * MS, "20m0s"),
            ("2562047h47m16.854775807s", i64::MAX.unsigned_abs(), "2562047h47m16.854775807s"),
        ] {
            assert_eq!(parse_go(text), Ok(Duration::from_nanos(nanos)), "{text}");
            assert_eq!(format_go(Duration::from_nanos(nanos)), printed, "{text}");
        }
        for wrong in [
            "",
            "3",
            "-1s",
            "s",
            ".",
            ".s",
            "1.2.3s",
            "1d",
            "1 s",
            "+",
            "2562047h47m16.854775808s",
            "9e9h",
            "1é",
        ] {
            assert!(parse_go(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn reads_and_prints_limits_as_prometheus_does() {
        for (text, seconds, printed) in [
            ("2w", 14 * 86_400, "2w"),
            ("14d", 14 * 86_400, "2w"),
            ("1y", 365 * 86_400, "1y"),
            ("36h", 36 * 3600, "1d12h"),
            ("90m", 5400, "1h30m"),
            ("10m", 600, "10m"),
            ("0", 0, "0s"),
        ] {
            assert_eq!(parse_prometheus(text), Ok(Duration::from_secs(seconds)), "{text}");
            assert_eq!(format_prometheus(Duration::from_secs(seconds)), printed, "{text}");
        }
        assert_eq!(format_prometheus(Duration::from_millis(1500)), "1s500ms");
    }
}
