//! The layout `per_instance`: where the entries of a key are when each has a key of its own.
//!
//! | key in the store | holds |
//! |---|---|
//! | `<key>` | [`NOTICE`]: no Cortex value, so that whoever expects one fails instead of writing over it |
//! | `<key>/_entries/` | the marker: present while the value is; written anew whenever an entry comes or goes |
//! | `<key>/_entries/<id>` | one entry, as [`crate::Value::decode_entry`] reads it |
//!
//! A heartbeat writes its own entry and nothing else. What a value with a single entry would gain is nothing, but it works.

use std::fmt::Write as _;

use bytes::Bytes;

use crate::store::EntryId;

/// What stands under the key itself. It begins like no Snappy block of a ring does, and tells a person where to look.
pub(crate) const NOTICE: &[u8] = b"ringkit layout per_instance: entries are below this key, in _entries/\n";

/// What the marker is to hold from now on: never the same twice, because Consul takes no notice of a write that changes
/// nothing. Its contents mean nothing, its version does.
pub(crate) fn new_marker() -> Bytes {
    Bytes::from(format!("ringkit {:016x}\n", rand::random::<u64>()))
}

const BELOW: &str = "/_entries/";

/// Whether these bytes, found under a key itself, say that its entries have keys of their own.
pub(crate) fn is_notice(stored: &[u8]) -> bool {
    stored.starts_with(b"ringkit layout ")
}

/// Names of the keys that make up one value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct EntryKeys {
    below: String,
}

impl EntryKeys {
    /// Those of the value called `key`.
    pub(crate) fn of(key: &str) -> Self {
        Self { below: format!("{key}{BELOW}") }
    }

    /// The marker's name, which is also the prefix of all entries' names.
    pub(crate) fn marker(&self) -> &str {
        &self.below
    }

    /// The name of one entry's key.
    ///
    /// Bytes that an HTTP path or a person would stumble over are written as `%` and two hexadecimal digits.
    pub(crate) fn entry(&self, id: &str) -> String {
        let mut name = self.below.clone();
        let dots = !id.is_empty() && id.bytes().all(|byte| byte == b'.');
        for byte in id.bytes() {
            match byte {
                b'.' if !dots => name.push('.'),
                b'-' | b'_' | b':' | b'@' | b'0'..=b'9' | b'a'..=b'z' | b'A'..=b'Z' => {
                    name.push(char::from(byte));
                }
                _ => {
                    let _ = write!(name, "%{byte:02X}");
                }
            }
        }
        if id.is_empty() {
            name.push('%');
        }
        name
    }

    /// The entry whose key has this name; `None` for the marker, for names outside, and for names that nobody wrote.
    pub(crate) fn id(&self, name: &str) -> Option<EntryId> {
        let escaped = name.strip_prefix(&self.below)?;
        if escaped == "%" {
            return Some(EntryId::default());
        }
        let mut bytes = Vec::with_capacity(escaped.len());
        let mut rest = escaped.bytes();
        while let Some(byte) = rest.next() {
            bytes.push(match byte {
                b'%' => hex(rest.next()?)? << 4 | hex(rest.next()?)?,
                plain => plain,
            });
        }
        let id = EntryId::from(String::from_utf8(bytes).ok()?);
        // One name per id: another spelling of it would be a second entry of the same id.
        (!id.is_empty() && self.entry(&id) == name).then_some(id)
    }

    /// The value whose marker has this name.
    pub(crate) fn key_of_marker(name: &str) -> Option<&str> {
        name.strip_suffix(BELOW)
    }
}

fn hex(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'A'..=b'F' => Some(digit - b'A' + 10),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn names_are_readable_and_their_own_inverse() {
        let keys = EntryKeys::of("collectors/ring");
        assert_eq!(keys.marker(), "collectors/ring/_entries/");
        assert_eq!(keys.entry("ingester-1.zone_a"), "collectors/ring/_entries/ingester-1.zone_a");
        assert_eq!(keys.entry("10.0.0.1:9095"), "collectors/ring/_entries/10.0.0.1:9095");
        assert_eq!(keys.entry("a/../b c"), "collectors/ring/_entries/a%2F..%2Fb%20c");
        assert_eq!(keys.entry(".."), "collectors/ring/_entries/%2E%2E");
        assert_eq!(keys.id(keys.marker()), None);
        assert_eq!(keys.id("collectors/ring"), None);
        for other in ["a/b", "%2e", "%", "%2", "%61", "a b"] {
            let name = format!("collectors/ring/_entries/{other}");
            assert_eq!(keys.id(&name).map(|id| id.to_string()), (other == "%").then(String::new), "{other}");
        }
        assert_eq!(EntryKeys::key_of_marker(keys.marker()), Some("collectors/ring"));
        assert_eq!(EntryKeys::key_of_marker("collectors/ring"), None);
    }

    proptest! {
        #[test]
        fn every_id_has_one_name(id in any::<String>()) {
            let keys = EntryKeys::of("k");
            prop_assert_eq!(keys.id(&keys.entry(&id)), Some(EntryId::from(id.as_str())));
        }
    }
}
