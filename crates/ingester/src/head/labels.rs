//! The canonical encoded form of a label set: sorted by name, without empty values, in protobuf's shortest form. It is
//! what well-behaved senders send, so that a series seen before is found without parsing its labels.

use ringkit_proto::SeriesView;
use xxhash_rust::xxh3::xxh3_64;

/// Why a label set cannot name a series.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum LabelError {
    #[error("series has no labels")]
    Empty,
    #[error("label name or value is not valid UTF-8")]
    NotUtf8,
    #[error("label name is empty")]
    EmptyName,
    #[error("duplicate label name `{0}`")]
    Duplicate(String),
    #[error("labels take more than {MAX_LABEL_BYTES} bytes")]
    TooLong,
}

/// Far above what distributors let through; keeps records of the log small.
const MAX_LABEL_BYTES: usize = 1 << 20;

/// A label set in canonical form.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Canonical<'a> {
    pub(crate) pairs: Vec<(&'a str, &'a str)>,
    pub(crate) bytes: Vec<u8>,
    pub(crate) hash: u64,
}

impl<'a> Canonical<'a> {
    /// Brings the labels of a series into canonical form.
    ///
    /// # Errors
    ///
    /// [`LabelError`] if they cannot name a series.
    pub(crate) fn of(labels: impl Iterator<Item = (&'a [u8], &'a [u8])>) -> Result<Self, LabelError> {
        let mut pairs = Vec::new();
        for (name, value) in labels {
            let text = |bytes| std::str::from_utf8(bytes).map_err(|_| LabelError::NotUtf8);
            let (name, value) = (text(name)?, text(value)?);
            if name.is_empty() {
                return Err(LabelError::EmptyName);
            }
            if !value.is_empty() {
                pairs.push((name, value));
            }
        }
        if pairs.is_empty() {
            return Err(LabelError::Empty);
        }
        pairs.sort_unstable();
        if let Some(twice) =
            pairs.windows(2).find(|pair| pair.first().map(|p| p.0) == pair.last().map(|p| p.0))
        {
            return Err(LabelError::Duplicate(twice.first().map_or("", |pair| pair.0).to_owned()));
        }
        let mut bytes = Vec::new();
        for (name, value) in &pairs {
            put_label(&mut bytes, name, value);
        }
        if bytes.len() > MAX_LABEL_BYTES {
            return Err(LabelError::TooLong);
        }
        let hash = hash(&bytes);
        Ok(Self { pairs, bytes, hash })
    }
}

/// What series are found by.
pub(crate) fn hash(label_bytes: &[u8]) -> u64 {
    xxh3_64(label_bytes)
}

/// Whether `bytes` are the canonical form of `pairs`, which must be in canonical order.
pub(crate) fn is_form_of<'a>(mut bytes: &[u8], pairs: impl Iterator<Item = (&'a str, &'a str)>) -> bool {
    let rest = &mut bytes;
    for (name, value) in pairs {
        let len = field_len(name.len()) + field_len(value.len());
        let same = take_tag(rest, 0x0a, len)
            && take_tag(rest, 0x0a, name.len())
            && take_text(rest, name)
            && take_tag(rest, 0x12, value.len())
            && take_text(rest, value);
        if !same {
            return false;
        }
    }
    rest.is_empty()
}

/// Appends one label of a series in its shortest form.
pub(crate) fn put_label(out: &mut Vec<u8>, name: &str, value: &str) {
    out.push(0x0a);
    put_len(out, field_len(name.len()) + field_len(value.len()));
    out.push(0x0a);
    put_len(out, name.len());
    out.extend_from_slice(name.as_bytes());
    out.push(0x12);
    put_len(out, value.len());
    out.extend_from_slice(value.as_bytes());
}

fn put_len(out: &mut Vec<u8>, mut len: usize) {
    while len >= 0x80 {
        out.push(len.to_le_bytes()[0] | 0x80);
        len >>= 7;
    }
    out.push(len.to_le_bytes()[0]);
}

/// Encoded length of a field with a text of `len` bytes.
fn field_len(len: usize) -> usize {
    let bits = usize::BITS - (len | 1).leading_zeros();
    1 + bits.div_ceil(7) as usize + len
}

fn take_tag(rest: &mut &[u8], tag: u8, mut len: usize) -> bool {
    let Some((&first, mut tail)) = rest.split_first() else { return false };
    if first != tag {
        return false;
    }
    loop {
        let low = len.to_le_bytes()[0] & 0x7f;
        len >>= 7;
        let wanted = if len == 0 { low } else { low | 0x80 };
        let Some((&byte, after)) = tail.split_first() else { return false };
        if byte != wanted {
            return false;
        }
        tail = after;
        if len == 0 {
            *rest = tail;
            return true;
        }
    }
}

fn take_text(rest: &mut &[u8], text: &str) -> bool {
    let Some((head, tail)) = rest.split_at_checked(text.len()) else { return false };
    *rest = tail;
    head == text.as_bytes()
}

/// A label set as Prometheus prints it: `{__name__="up", job="x"}`.
pub(crate) fn display(view: &SeriesView<'_>) -> String {
    let mut out = String::from("{");
    for (index, (name, value)) in view.labels().enumerate() {
        if index > 0 {
            out.push_str(", ");
        }
        out.push_str(&String::from_utf8_lossy(name));
        out.push('=');
        out.push_str(&quoted(&String::from_utf8_lossy(value)));
    }
    out.push('}');
    out
}

fn quoted(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            '\r' => out.push_str("\\r"),
            _ => out.push(c),
        }
    }
    out.push('"');
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn encode(pairs: &[(&str, &str)]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for (name, value) in pairs {
            put_label(&mut bytes, name, value);
        }
        bytes
    }

    fn canonical(pairs: &[(&str, &str)]) -> Result<Vec<u8>, LabelError> {
        let bytes = encode(pairs);
        Canonical::of(SeriesView::parse(&bytes).unwrap().labels()).map(|form| form.bytes)
    }

    #[test]
    fn order_and_empty_values_do_not_matter() {
        let sorted = encode(&[("a", "1"), ("b", "2")]);
        assert_eq!(canonical(&[("a", "1"), ("b", "2")]).unwrap(), sorted);
        assert_eq!(canonical(&[("b", "2"), ("c", ""), ("a", "1")]).unwrap(), sorted);
    }

    #[test]
    fn what_cannot_name_a_series_is_refused() {
        assert_eq!(canonical(&[]), Err(LabelError::Empty));
        assert_eq!(canonical(&[("a", "")]), Err(LabelError::Empty));
        assert_eq!(canonical(&[("", "1")]), Err(LabelError::EmptyName));
        assert_eq!(canonical(&[("a", "1"), ("a", "2")]), Err(LabelError::Duplicate("a".into())));
    }

    #[test]
    fn series_are_printed_as_prometheus_does() {
        let bytes = encode(&[("__name__", "up"), ("path", "C:\\\"x\"")]);
        let text = display(&SeriesView::parse(&bytes).unwrap());
        assert_eq!(text, r#"{__name__="up", path="C:\\\"x\""}"#);
    }

    proptest! {
        #[test]
        fn a_form_is_recognised_and_nothing_else_is(
            pairs in prop::collection::btree_map("[a-c]{1,3}", "[x-z]{1,150}", 1..4),
            flip in any::<prop::sample::Index>(),
        ) {
            let pairs: Vec<(&str, &str)> = pairs.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
            let mut bytes = encode(&pairs);
            prop_assert_eq!(canonical(&pairs).unwrap(), bytes.clone());
            prop_assert!(is_form_of(&bytes, pairs.iter().copied()));
            prop_assert!(!is_form_of(&bytes[..bytes.len() - 1], pairs.iter().copied()));
            let place = flip.index(bytes.len());
            bytes[place] ^= 1;
            prop_assert!(!is_form_of(&bytes, pairs.iter().copied()));
        }
    }
}
