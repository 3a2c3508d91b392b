//! Typed views of stored values. Each entry is decoded once and shared until its bytes change.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::time::Instant;
use tracing::warn;

use crate::codec::DecodeError;
use crate::entries::Entries;
use crate::metrics::ClientMetrics;
use crate::store::{EntryBytes, EntryId, Stored};
use crate::value::Value;

/// When owners were last heard, for those entries of which the backend knows it better than the entry's own timestamp.
pub type Seen = Arc<Entries<Instant>>;

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
    source: Arc<Entries<EntryBytes>>,
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

    /// Decodes what `stored` does not share with the value that `previous` was made of, and shares the rest with it.
    fn decode_after(&self, key: &str, stored: &Stored, previous: Option<&Decoded<V>>) -> Decoded<V> {
        let nothing = Entries::new();
        let source = previous.map_or(&nothing, |previous| &*previous.source);
        let mut entries = previous.map_or_else(Entries::new, |p| p.view.value.entries().clone());
        let mut hostile = previous.map_or_else(BTreeMap::new, |p| p.hostile.clone());
        let mut seen = previous.map_or_else(Seen::default, |p| Arc::clone(&p.view.seen));
        Entries::compare(source, &stored.entries, |id, was, is| {
            let Some(is) = is else {
                entries.remove(id);
                hostile.remove(id);
                set_seen(&mut seen, id, None);
                return;
            };
            let same_bytes = was.is_some_and(|was| same(&was.bytes, &is.bytes));
            // Of the entries that lie beside one that changed, most did not: those need no search for what is known of them.
            if same_bytes && was.is_some_and(|was| was.seen == is.seen) {
                return;
            }
            if !same_bytes {
                match self.decode_changed(key, id, &is.bytes, entries.get(id)) {
                    Ok(entry) => {
                        entries.insert(id.clone(), entry);
                        hostile.remove(id);
                    }
                    Err(error) => {
                        entries.remove(id);
                        hostile.insert(id.clone(), error);
                    }
                }
            }
            set_seen(&mut seen, id, is.seen.filter(|_| !hostile.contains_key(id)));
        });
        let value = Arc::new(V::from_entries(entries));
        let view = View { version: stored.version, value, seen };
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

fn set_seen(seen: &mut Seen, id: &EntryId, at: Option<Instant>) {
    if seen.get(id).copied() == at {
        return;
    }
    let seen = Arc::make_mut(seen);
    match at {
        Some(at) => seen.insert(id.clone(), at),
        None => seen.remove(id),
    };
}

fn same(a: &Bytes, b: &Bytes) -> bool {
    a.len() == b.len() && (std::ptr::eq(a.as_ptr(), b.as_ptr()) || a == b)
}
