//! [`Watch`]: a typed watch that says which entries changed.

use std::fmt;
use std::sync::Arc;

use crate::entries::Entries;
use crate::store::{EntryId, Subscription};
use crate::value::Value;
use crate::view::{Decoder, Seen};

/// What a watch saw: the value now, and how it differs from what the same watch delivered before.
#[derive(Clone, Debug, PartialEq)]
pub struct Update<V> {
    /// The value; `None` = the key is absent.
    pub value: Option<Arc<V>>,
    /// Ids of entries that are new or different, sorted. All of them on the first update.
    pub changed: Vec<EntryId>,
    /// Ids of entries that are gone, sorted.
    pub removed: Vec<EntryId>,
    /// Opaque; grows with every change of the key. 0 for an absent key.
    pub version: u64,
    /// When owners were last heard, where the backend knows.
    pub seen: Seen,
}

/// A running typed watch of one key. Dropping it ends the watch.
///
/// Entries that cannot be read are logged, counted and left out of the values; all others keep coming.
pub struct Watch<V: Value> {
    subscription: Subscription,
    decoder: Arc<Decoder<V>>,
    key: Arc<str>,
    delivered: Arc<V>,
}

impl<V: Value> Watch<V> {
    pub(crate) fn new(subscription: Subscription, decoder: Arc<Decoder<V>>, key: Arc<str>) -> Self {
        Self { subscription, decoder, key, delivered: Arc::default() }
    }

    /// Waits for the next update: at first the current value, then whatever is newest. `None` = the store closed.
    ///
    /// A slow caller misses intermediate values, never the last one. Cancel safe.
    pub async fn next(&mut self) -> Option<Update<V>> {
        let Some(stored) = self.subscription.changed().await? else {
            self.decoder.forget(&self.key);
            let gone = std::mem::take(&mut self.delivered);
            let removed = gone.entries().keys().cloned().collect();
            return Some(Update {
                value: None,
                changed: Vec::new(),
                removed,
                version: 0,
                seen: Seen::default(),
            });
        };
        let view = self.decoder.decode(&self.key, &stored).view.clone();
        let (changed, removed) = difference(&*self.delivered, &*view.value);
        self.delivered = Arc::clone(&view.value);
        Some(Update { value: Some(view.value), changed, removed, version: view.version, seen: view.seen })
    }
}

impl<V: Value> fmt::Debug for Watch<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watch").field("key", &self.key).finish_non_exhaustive()
    }
}

/// Ids that are new or different in `after`, and ids that `after` lacks, both sorted. Costs what the two do not share.
pub(crate) fn difference<V: Value>(before: &V, after: &V) -> (Vec<EntryId>, Vec<EntryId>) {
    let (mut changed, mut removed) = (Vec::new(), Vec::new());
    Entries::compare(before.entries(), after.entries(), |id, was, is| match (was, is) {
        (Some(was), Some(is)) if Arc::ptr_eq(was, is) || was == is => (),
        (_, Some(_)) => changed.push(id.clone()),
        (_, None) => removed.push(id.clone()),
    });
    (changed, removed)
}
