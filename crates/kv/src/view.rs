//! Typed views of stored values. Each entry is decoded once and shared until its bytes change.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::time::Instant;
use tracing::warn;

use crate::codec::DecodeError;
use crate::metrics::ClientMetrics;
use crate::store::{EntryBytes, EntryId, Stored};
use crate::value::Value;

/// When owners were last heard, for those entries of which the backend knows it better than the entry's own timestamp.
pub type Seen = Arc<BTreeMap<EntryId, Instant>>;

/// A typed value as it was read.
#[derive(Clone, Debug, PartialEq)]
pub struct View<V> {
    /// Opaque; grows with every change of the key.
    pub version: u64,
    /// The value.
    pub value: Arc<V>,
    /// When owners were last heard, where the backend knows.
    pub seen: Seen,
}

/// A stored value and what its entries mean.
pub(crate) struct Decoded<V> {
    source: Arc<BTreeMap<EntryId, EntryBytes>>,
    pub(crate) view: View<V>,
    /// Entries that do not decode; they are absent from the view.
    pub(crate) hostile: BTreeMap<EntryId, DecodeError>,
}

/// Decodes values of one client, reusing what was decoded before.
pub(crate) struct Decoder<V> {
    latest: Mutex<BTreeMap<Arc<str>, Arc<Decoded<V>>>>,
    metrics: ClientMetrics,
}

/// A client reads a handful of keys. Beyond this many, reuse starts afresh instead of growing.
const MAX_REMEMBERED_KEYS: usize = 1024;

impl<V: Value> Decoder<V> {
    pub(crate) fn new(metrics: ClientMetrics) -> Self {
        Self { latest: Mutex::default(), metrics }
    }

    pub(crate) fn decode(&self, key: &Arc<str>, stored: &Stored) -> Arc<Decoded<V>> {
        let previous = self.latest.lock().get(key).cloned();
        if let Some(previous) = &previous
            && previous.view.version == stored.version
            && Arc::ptr_eq(&previous.source, &stored.entries)
        {
            return Arc::clone(previous);
        }
        let decoded = Arc::new(self.decode_after(key, stored, previous.as_deref()));
        let mut latest = self.latest.lock();
        if latest.len() >= MAX_REMEMBERED_KEYS && !latest.contains_key(key) {
            latest.clear();
        }
        // A slow reader must not replace what a faster one decoded from a newer value.
        if latest.get(key).is_none_or(|known| known.view.version <= stored.version) {
            latest.insert(Arc::clone(key), Arc::clone(&decoded));
        }
        decoded
    }

    pub(crate) fn forget(&self, key: &str) {
        self.latest.lock().remove(key);
    }

    fn decode_after(&self, key: &str, stored: &Stored, previous: Option<&Decoded<V>>) -> Decoded<V> {
        let mut entries = BTreeMap::new();
        let mut hostile = BTreeMap::new();
        let mut seen = BTreeMap::new();
        for (id, entry) in stored.entries.iter() {
            let known = previous.and_then(|p| p.view.value.entries().get(id));
            let unchanged =
                previous.and_then(|p| p.source.get(id)).is_some_and(|p| same(&p.bytes, &entry.bytes));
            let known_hostile = previous.and_then(|p| p.hostile.get(id));
            let result = match (known, known_hostile) {
                (Some(known), _) if unchanged => Ok(Arc::clone(known)),
                (_, Some(error)) if unchanged => Err(error.clone()),
                (known, _) => self.decode_changed(key, id, &entry.bytes, known),
            };
            match result {
                Ok(value) => {
                    if let Some(at) = entry.seen {
                        seen.insert(id.clone(), at);
                    }
                    entries.insert(id.clone(), value);
                }
                Err(error) => {
                    hostile.insert(id.clone(), error);
                }
            }
        }
        let value = Arc::new(V::from_entries(entries));
        let view = View { version: stored.version, value, seen: Arc::new(seen) };
        Decoded { source: Arc::clone(&stored.entries), view, hostile }
    }

    /// Decodes bytes not seen before, so that a hostile entry is reported once and not on each update of its neighbours.
    fn decode_changed(
        &self,
        key: &str,
        id: &EntryId,
        bytes: &[u8],
        previous: Option<&Arc<V::Entry>>,
    ) -> Result<Arc<V::Entry>, DecodeError> {
        let entry = match previous {
            Some(previous) => V::decode_next(id, bytes, previous),
            None => V::decode_entry(id, bytes),
        };
        entry.map(Arc::new).inspect_err(|error| {
            self.metrics.undecodable_entries.increment(1);
            warn!(key, entry = %id, %error, "skipped an entry that cannot be read");
        })
    }
}

fn same(a: &Bytes, b: &Bytes) -> bool {
    a.len() == b.len() && (std::ptr::eq(a.as_ptr(), b.as_ptr()) || a == b)
}
