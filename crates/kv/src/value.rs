//! [`Value`]: a typed value, which is a map of entries; and [`Text`], the simplest one.

use std::fmt::Debug;
use std::sync::Arc;

use bytes::Bytes;

use crate::codec::{Codec, DecodeError, StringCodec};
use crate::entries::Entries;
use crate::store::EntryId;

/// A typed value: a map of entries. A value that is one thing is a map with one entry.
pub trait Value: Clone + Default + PartialEq + Debug + Send + Sync + 'static {
    /// What stands under one id.
    type Entry: Clone + PartialEq + Debug + Send + Sync + 'static;

    /// How entries become stored bytes.
    fn codec() -> &'static dyn Codec;

    /// Reads one entry.
    ///
    /// # Errors
    ///
    /// [`DecodeError`] saying what is wrong with `bytes`; `id` serves for the message and for fields equal to it.
    fn decode_entry(id: &str, bytes: &[u8]) -> Result<Self::Entry, DecodeError>;

    /// Reads the successor of `previous` under the same id. Override it to share with `previous` what did not change.
    ///
    /// # Errors
    ///
    /// As [`Value::decode_entry`].
    fn decode_next(id: &str, bytes: &[u8], previous: &Self::Entry) -> Result<Self::Entry, DecodeError> {
        let _ = previous;
        Self::decode_entry(id, bytes)
    }

    /// Writes one entry. Deterministic.
    fn encode_entry(entry: &Self::Entry) -> Bytes;

    /// A value made of these entries.
    fn from_entries(entries: Entries<Arc<Self::Entry>>) -> Self;

    /// The entries, by id.
    fn entries(&self) -> &Entries<Arc<Self::Entry>>;
}

/// A single text, stored as it is. For tests and tools.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Text {
    entries: Entries<Arc<String>>,
}

impl Text {
    /// A value holding `text`.
    pub fn new(text: impl Into<String>) -> Self {
        let entry = (EntryId::new_static(StringCodec::ENTRY), Arc::new(text.into()));
        Self::from_entries([entry].into_iter().collect())
    }

    /// The text; empty for a value without one.
    pub fn as_str(&self) -> &str {
        self.entries.get(StringCodec::ENTRY).map_or("", |text| text.as_str())
    }
}

impl Value for Text {
    type Entry = String;

    fn codec() -> &'static dyn Codec {
        &StringCodec
    }

    fn decode_entry(_id: &str, bytes: &[u8]) -> Result<String, DecodeError> {
        String::from_utf8(bytes.to_vec()).map_err(|error| DecodeError::new(error.to_string()))
    }

    fn encode_entry(entry: &String) -> Bytes {
        Bytes::copy_from_slice(entry.as_bytes())
    }

    fn from_entries(entries: Entries<Arc<String>>) -> Self {
        Self { entries }
    }

    fn entries(&self) -> &Entries<Arc<String>> {
        &self.entries
    }
}
