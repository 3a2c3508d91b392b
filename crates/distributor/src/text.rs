//! Series and strings inside messages to clients, in the wording that users of Cortex know.
//!
//! What a client sent is quoted and cut, so that an answer stays one short line whatever was in the request.

use std::borrow::Cow;
use std::fmt::Write as _;

/// Characters kept of a client's string inside a message.
const MAX_QUOTED_CHARS: usize = 200;

/// Quotes at most the first 200 characters of `text` in Go's syntax: printable characters stay, invalid UTF-8
/// becomes `\xNN`.
pub(crate) fn quote(text: &[u8]) -> String {
    let mut out = String::with_capacity(text.len().min(MAX_QUOTED_CHARS) + 2);
    out.push('"');
    let mut left = MAX_QUOTED_CHARS;
    for part in text.utf8_chunks() {
        for char in part.valid().chars() {
            if left == 0 {
                break;
            }
            left -= 1;
            push_char(&mut out, char);
        }
        for byte in part.invalid() {
            if left == 0 {
                break;
            }
            left -= 1;
            let _ = write!(out, "\\x{byte:02x}");
        }
        if left == 0 {
            break;
        }
    }
    out.push('"');
    out
}

fn push_char(out: &mut String, char: char) {
    match char {
        '"' | '\\' => {
            out.push('\\');
            out.push(char);
        }
        '\n' => out.push_str("\\n"),
        '\r' => out.push_str("\\r"),
        '\t' => out.push_str("\\t"),
        _ if char.is_control() => {
            let _ = write!(out, "\\u{:04x}", u32::from(char));
        }
        _ => out.push(char),
    }
}

/// Writes a label set as `name{label="value", …}` in the order given; only the first metric name becomes the name.
pub(crate) fn series<'a>(labels: impl Iterator<Item = (&'a [u8], &'a [u8])>) -> String {
    let mut metric: Option<&[u8]> = None;
    let mut pairs = String::new();
    for (name, value) in labels {
        if name == b"__name__" && metric.is_none() && !value.is_empty() {
            metric = Some(value);
        } else if pairs.len() <= MAX_QUOTED_CHARS * 4 {
            let comma = if pairs.is_empty() { "" } else { ", " };
            let _ = write!(pairs, "{comma}{}={}", clipped(name), quote(value));
        }
    }
    let metric = metric.map(clipped);
    match (metric, pairs.is_empty()) {
        (Some(metric), true) => metric.into_owned(),
        (Some(metric), false) => format!("{metric}{{{pairs}}}"),
        (None, _) => format!("{{{pairs}}}"),
    }
}

/// The beginning of a name: enough to find it, however long it is.
fn clipped(name: &[u8]) -> Cow<'_, str> {
    String::from_utf8_lossy(name.get(..MAX_QUOTED_CHARS).unwrap_or(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes_as_go_does() {
        assert_eq!(quote(b"a\"b\\\n"), r#""a\"b\\\n""#);
        assert_eq!(quote("müsli".as_bytes()), "\"müsli\"");
        assert_eq!(quote(b"\xff\x00"), "\"\\xff\\u0000\"");
    }

    #[test]
    fn cuts_after_two_hundred_characters() {
        assert_eq!(quote("ä".repeat(500).as_bytes()).chars().count(), 202);
        assert_eq!(quote(&[0xff; 500]).len(), 200 * 4 + 2);
    }

    #[test]
    fn a_series_stays_short_however_long_its_parts_are() {
        let long = vec![b'x'; 1 << 20];
        let labels =
            std::iter::once((&b"__name__"[..], &long[..])).chain((0..1000).map(|_| (&long[..], &long[..])));
        assert!(series(labels).len() < 2000);
    }

    #[test]
    fn writes_label_sets_with_the_metric_in_front() {
        let write =
            |labels: &[(&str, &str)]| series(labels.iter().map(|(n, v)| (n.as_bytes(), v.as_bytes())));
        assert_eq!(write(&[]), "{}");
        assert_eq!(write(&[("__name__", "up")]), "up");
        assert_eq!(write(&[("a", "1"), ("__name__", "up"), ("__name__", "b")]), r#"up{a="1", __name__="b"}"#);
        assert_eq!(write(&[("a", "1")]), r#"{a="1"}"#);
    }
}
