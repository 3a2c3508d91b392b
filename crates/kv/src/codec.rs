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

    /// The parts in which a store that can keeps an entry, so that what changes often is small. Deterministic; equal entries
    /// have equal parts. The first is always there; without it there is no entry. The third is written with every sign of
    /// life, and when it was written tells when the owner was last heard.
    fn facets(&self, _id: &str, entry: &Bytes) -> Facets {
        [Some(entry.clone()), None, None]
    }

    /// The entry that was taken apart into these, written as [`crate::Value::encode_entry`] would; `None` if they are not
    /// of one entry, because parts of it are still to come.
    ///
    /// # Errors
    ///
    /// [`DecodeError`] if no entry has such parts, whatever else is to come.
    fn unite(&self, _id: &str, facets: &Facets) -> Result<Option<Bytes>, DecodeError> {
        let [whole, ..] = facets;
        Ok(whole.clone())
    }

    /// What an entry says of when its owner wrote it. Cheap: it is asked of every entry again and again. `None` if entries of
    /// such values have no times of their own, or if this one cannot be read.
    fn stamp(&self, _id: &str, _entry: &[u8]) -> Option<Stamp> {
        None
    }
}

/// An entry in parts: see [`Codec::facets`].
pub type Facets = [Option<Bytes>; 3];

/// What an entry says of when its owner wrote it: see [`Codec::stamp`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    /// By the owner's clock, in Unix seconds.
    pub timestamp: i64,
    /// The owner has left: this is a tombstone.
    pub left: bool,
    /// The owner is about to go, or out of service: what is so may be removed at any time.
    pub passing: bool,
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
    fn an_entry_is_a_single_part_unless_its_codec_says_otherwise() {
        let entry = Bytes::from_static(b"hello");
        let facets = StringCodec.facets("value", &entry);
        assert_eq!(facets, [Some(entry.clone()), None, None]);
        assert_eq!(StringCodec.unite("value", &facets), Ok(Some(entry)));
        assert_eq!(StringCodec.unite("value", &[None, None, None]), Ok(None));
    }

    #[test]
    fn bytes_that_are_no_text_are_refused() {
        assert!(StringCodec.split(&[0xff]).is_err());
        assert!(StringCodec.check_entry("value", &[0xff]).is_err());
    }
}
