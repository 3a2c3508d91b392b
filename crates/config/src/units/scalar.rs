//! Booleans and numbers.

use super::{Kind, Leaf, Raw, Tree, json, shown};

impl Leaf for bool {
    fn kind() -> Kind {
        Kind { stands_alone: true, ..Kind::named("boolean") }
    }
    fn parse(raw: &Raw, _notes: &mut Vec<String>) -> Result<Self, String> {
        let value = match raw {
            // The YAML library of Cortex knows these words.
            Raw::Plain(text) => match text.to_ascii_lowercase().as_str() {
                "true" | "yes" | "on" | "y" => Some(true),
                "false" | "no" | "off" | "n" => Some(false),
                _ => None,
            },
            // And its flag library these.
            Raw::Text(text) => match text.as_str() {
                "true" | "True" | "TRUE" | "t" | "T" | "1" => Some(true),
                "false" | "False" | "FALSE" | "f" | "F" | "0" => Some(false),
                _ => None,
            },
            _ => None,
        };
        value.ok_or_else(|| format!("expected `true` or `false`, found {}", shown(raw)))
    }
    fn render(&self) -> Tree {
        Tree::Bool(*self)
    }
    fn schema() -> serde_json::Value {
        json!({"type": "boolean"})
    }
}

/// A whole number between 0 and `max`, or what is wrong with it.
fn whole(raw: &Raw, max: u64) -> Result<u64, String> {
    let expected =
        if max == u64::MAX { "a whole number".to_owned() } else { format!("a whole number from 0 to {max}") };
    let wrong = |why: &str| Err(format!("expected {expected}, found {}{why}", shown(raw)));
    let text = match raw {
        Raw::Plain(text) | Raw::Text(text) => text.trim().replace('_', ""),
        Raw::Quoted(text) if text.parse::<u64>().is_ok() => return wrong(": write it without quotes"),
        _ => return wrong(""),
    };
    let digits = text.strip_prefix('+').unwrap_or(&text);
    let lower = digits.to_ascii_lowercase();
    let radix = [("0x", 16), ("0o", 8), ("0b", 2)]
        .into_iter()
        .find_map(|(prefix, radix)| lower.strip_prefix(prefix).map(|rest| u64::from_str_radix(rest, radix)));
    let value = match radix {
        Some(value) => value.ok(),
        None if digits.len() > 1 && digits.starts_with('0') && digits.bytes().all(|b| b.is_ascii_digit()) => {
            return wrong(": leading zeros are ambiguous");
        }
        None if digits.starts_with('-') && digits.len() > 1 => return wrong(": it cannot be negative"),
        None => digits.parse::<u64>().ok().or_else(|| integral(digits)),
    };
    match value {
        Some(value) if value <= max => Ok(value),
        Some(_) => wrong(": it is too large"),
        None if is_sized(digits) => wrong(": write the number of bytes, without a unit"),
        None => wrong(""),
    }
}

/// `1e6` and `128.0` are whole numbers too.
fn integral(text: &str) -> Option<u64> {
    /// Above this, not every whole number is a float.
    const EXACT: f64 = 9_007_199_254_740_992.0;
    let value: f64 = text.parse().ok()?;
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "checked: whole, 0..=2^53")]
    let whole = value as u64;
    (value.fract() == 0.0 && (0.0..=EXACT).contains(&value)).then_some(whole)
}

/// Looks like `128MiB` or `4k`.
fn is_sized(text: &str) -> bool {
    let unit = text.trim_start_matches(|c: char| c.is_ascii_digit() || c == '.').trim();
    unit.len() < text.len()
        && ["k", "m", "g", "t", "kb", "mb", "gb", "tb", "ki", "mi", "gi", "kib", "mib", "gib", "tib", "b"]
            .contains(&unit.to_ascii_lowercase().as_str())
}

macro_rules! whole_number {
    ($($ty:ty),*) => { $(
        impl Leaf for $ty {
            fn kind() -> Kind {
                Kind::named("int")
            }
            fn parse(raw: &Raw, _notes: &mut Vec<String>) -> Result<Self, String> {
                let max = u64::try_from(<$ty>::MAX).unwrap_or(u64::MAX);
                let value = whole(raw, max)?;
                <$ty>::try_from(value).map_err(|_| format!("{value} is too large"))
            }
            fn render(&self) -> Tree {
                Tree::Int(u64::try_from(*self).unwrap_or(u64::MAX))
            }
            fn schema() -> serde_json::Value {
                match u64::try_from(<$ty>::MAX) {
                    Ok(u64::MAX) | Err(_) => json!({"type": "integer", "minimum": 0}),
                    Ok(max) => json!({"type": "integer", "minimum": 0, "maximum": max}),
                }
            }
        }
    )* };
}
whole_number!(u16, u32, u64, usize);

impl Leaf for f64 {
    fn kind() -> Kind {
        Kind::named("float")
    }
    fn parse(raw: &Raw, _notes: &mut Vec<String>) -> Result<Self, String> {
        let wrong = || format!("expected a number, found {}", shown(raw));
        let (Raw::Plain(text) | Raw::Text(text)) = raw else { return Err(wrong()) };
        let value: f64 = text.trim().replace('_', "").parse().map_err(|_| wrong())?;
        if value.is_finite() { Ok(value) } else { Err(wrong()) }
    }
    fn render(&self) -> Tree {
        Tree::Float(*self)
    }
    fn schema() -> serde_json::Value {
        json!({"type": "number"})
    }
}
