//! [`Codec`]: how a value's entries become the bytes that Cortex stores, and back.

use std::collections::BTreeMap;

use bytes::Bytes;

use crate::store::EntryId;

/// How a value's entries become stored bytes. One per value type.
pub trait Codec: Send + Sync + 'static {
    /// Stable name, carried by gossip messages: `ringDesc` for rings.
    fn id(&self) -> &'static str;

    /// Takes one Cortex value apart: entry bytes are what [`crate::Value::decode_entry`] reads.
    ///
    /// # Errors
    ///
    /// [`DecodeError`] if the value as a whole cannot be read. An entry that is broken by itself need not be noticed here.
    fn split(&self, stored: &[u8]) -> Result<BTreeMap<EntryId, Bytes>, DecodeError>;

    /// Joins entries into one Cortex value. Deterministic. No entries give the value of an empty map, never nothing.
    fn join(&self, entries: &BTreeMap<EntryId, Bytes>) -> Bytes;

    /// Whether `entry` decodes, without keeping the result.
    ///
    /// # Errors
    ///
    /// [`DecodeError`] as [`crate::Value::decode_entry`] would give it.
    fn check_entry(&self, id: &str, entry: &[u8]) -> Result<(), DecodeError>;
}

/// Why bytes are not a value or an entry.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct DecodeError {
    reason: String,
}

impl DecodeError {
    /// `reason` is a lower-case fragment such as `truncated varint at byte 12`.
    pub fn new(reason: impl Into<String>) -> Self {
        Self { reason: reason.into() }
    }
}

/// Stores one text as it is, under the single entry [`StringCodec::ENTRY`]. For tests and tools.
#[derive(Clone, Copy, Debug, Default)]
pub struct StringCodec;

impl StringCodec {
    /// Id of the only entry.
    pub const ENTRY: &'static str = "value";
}

impl Codec for StringCodec {
    fn id(&self) -> &'static str {
        "string"
    }

    fn split(&self, stored: &[u8]) -> Result<BTreeMap<EntryId, Bytes>, DecodeError> {
        self.check_entry(Self::ENTRY, stored)?;
        Ok(BTreeMap::from([(EntryId::new_static(Self::ENTRY), Bytes::copy_from_slice(stored))]))
    }

    fn join(&self, entries: &BTreeMap<EntryId, Bytes>) -> Bytes {
        entries.get(Self::ENTRY).cloned().unwrap_or_default()
    }

    fn check_entry(&self, _id: &str, entry: &[u8]) -> Result<(), DecodeError> {
        std::str::from_utf8(entry).map(drop).map_err(|error| DecodeError::new(error.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_survives_split_and_join() {
        let entries = StringCodec.split(b"hello").unwrap();
        assert_eq!(entries.len(), 1);
        assert_eq!(StringCodec.join(&entries), "hello");
    }

    #[test]
    fn bytes_that_are_no_text_are_refused() {
        assert!(StringCodec.split(&[0xff]).is_err());
        assert!(StringCodec.check_entry("value", &[0xff]).is_err());
    }
}
