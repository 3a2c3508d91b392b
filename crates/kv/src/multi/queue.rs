//! [`Queue`]: what is still to be told to a store, the newest of each entry. Pure.

use std::collections::BTreeMap;

use tokio::time::Instant;

use super::delta::Op;
use crate::codec::Codec;
use crate::store::{EntryBytes, EntryId};

/// How many entries go in one attempt.
const MAX_BATCH: usize = 256;

/// Changes of one key on their way to one store.
#[derive(Clone, Debug, Default)]
pub(super) struct Queue {
    items: BTreeMap<EntryId, Item>,
    deletion: Option<Deletion>,
    last: u64,
}

/// A change of one entry.
#[derive(Clone, Debug)]
pub(super) struct Item {
    pub(super) op: Op,
    /// This process writes the entry, and nobody else does.
    pub(super) own: bool,
    /// Since when the store lacks something of this entry.
    since: Instant,
    number: u64,
    /// The version with which it was committed to the other store; 0 if it was not.
    order: u64,
}

/// The removal of a key with all that was in it.
#[derive(Clone, Debug)]
pub(super) struct Deletion {
    removed: BTreeMap<EntryId, i64>,
    since: Instant,
    number: u64,
}

/// What goes in one attempt.
#[derive(Clone, Debug, Default)]
pub(super) struct Batch {
    pub(super) deletion: Option<Deletion>,
    pub(super) items: BTreeMap<EntryId, Item>,
}

impl Queue {
    /// Adds a change that was committed to the other store as its version `order`, and returns its number. What is known to be
    /// newer stays.
    pub(super) fn push(
        &mut self,
        codec: &dyn Codec,
        id: EntryId,
        op: Op,
        own: bool,
        order: u64,
        now: Instant,
    ) -> u64 {
        let known = self.items.get(&id);
        if let Some(known) = known.filter(|known| order < known.order || is_older(codec, &id, &op, &known.op))
        {
            return known.number;
        }
        let since = known.map_or(now, |known| known.since);
        self.last += 1;
        self.items.insert(id, Item { op, own, since, number: self.last, order });
        self.last
    }

    /// Adds the removal of the key, whose entries had been written at these times, and returns its number.
    pub(super) fn push_deletion(&mut self, removed: BTreeMap<EntryId, i64>, now: Instant) -> u64 {
        self.items.clear();
        self.last += 1;
        let since = self.deletion.as_ref().map_or(now, |known| known.since);
        self.deletion = Some(Deletion { removed, since, number: self.last });
        self.last
    }

    pub(super) fn op(&self, id: &str) -> Option<&Op> {
        self.items.get(id).map(|item| &item.op)
    }

    pub(super) fn ids(&self) -> impl Iterator<Item = &EntryId> {
        self.items.keys()
    }

    /// Whether the removal of the key is still to be told.
    pub(super) fn deletes(&self) -> bool {
        self.deletion.is_some()
    }

    pub(super) fn len(&self) -> usize {
        self.items.len() + usize::from(self.deletion.is_some())
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Since when the oldest change has been waiting.
    pub(super) fn oldest(&self) -> Option<Instant> {
        let deletion = self.deletion.as_ref().map(|deletion| deletion.since);
        self.items.values().map(|item| item.since).chain(deletion).min()
    }

    /// The number of the last change that was added.
    pub(super) fn last(&self) -> u64 {
        self.last
    }

    /// What is to be told next; `None` if nothing is.
    pub(super) fn batch(&self) -> Option<Batch> {
        let items = self.items.iter().take(MAX_BATCH).map(|(id, item)| (id.clone(), item.clone()));
        (!self.is_empty()).then(|| Batch { deletion: self.deletion.clone(), items: items.collect() })
    }

    /// Whether all changes in a batch are still to be told, and none of them was replaced.
    pub(super) fn holds(&self, batch: &Batch) -> bool {
        let held = |(id, item): (&EntryId, &Item)| {
            self.items.get(id).is_some_and(|known| known.number == item.number)
        };
        batch.items.iter().all(held)
    }

    /// What was told need not be told again, unless something newer came meanwhile.
    pub(super) fn settle(&mut self, told: &Batch) {
        for (id, item) in &told.items {
            self.drop_until(id, item.number);
        }
    }

    /// As [`Queue::settle`], of the removal of the key alone.
    pub(super) fn settle_deletion(&mut self, told: &Batch) {
        let told = told.deletion.as_ref().map(|deletion| deletion.number);
        self.deletion =
            self.deletion.take().filter(|deletion| told.is_none_or(|told| deletion.number > told));
    }

    /// The store has been told something newer of an entry than what was added up to the change with this number.
    pub(super) fn drop_until(&mut self, id: &str, number: u64) {
        if self.items.get(id).is_some_and(|item| item.number <= number) {
            self.items.remove(id);
        }
    }

    /// The store has been told to remove the key after the change with this number.
    pub(super) fn drop_all_until(&mut self, number: u64) {
        self.items.retain(|_, item| item.number > number);
        self.deletion = self.deletion.take().filter(|deletion| deletion.number > number);
    }
}

impl Batch {
    /// The highest number in it.
    pub(super) fn last(&self) -> u64 {
        let deletion = self.deletion.as_ref().map(|deletion| deletion.number);
        self.items.values().map(|item| item.number).chain(deletion).max().unwrap_or(0)
    }

    /// How many changes it holds.
    pub(super) fn len(&self) -> usize {
        self.items.len() + usize::from(self.deletion.is_some())
    }

    /// Whether nobody else writes these entries, so that nothing can come in between.
    pub(super) fn is_own(&self, codec: &dyn Codec) -> bool {
        let own = |(id, item): (&EntryId, &Item)| match &item.op {
            // Without a time in it, an older one must not land after a newer one.
            Op::Upsert { bytes, .. } => item.own && codec.stamp(id, bytes).is_some(),
            Op::Remove { .. } => false,
        };
        self.deletion.is_none() && self.items.iter().all(own)
    }
}

impl Deletion {
    /// Whether an entry is one of those that the removal of the key meant.
    pub(super) fn removes(&self, codec: &dyn Codec, id: &str, entry: &EntryBytes) -> bool {
        match codec.stamp(id, &entry.bytes) {
            Some(stamp) => self.removed.get(id).is_some_and(|removed| stamp.timestamp <= *removed),
            None => true,
        }
    }
}

/// Whether the owner wrote `new` before `known`.
fn is_older(codec: &dyn Codec, id: &str, new: &Op, known: &Op) -> bool {
    let (Op::Upsert { bytes: new, .. }, Op::Upsert { bytes: known, .. }) = (new, known) else { return false };
    match (codec.stamp(id, new), codec.stamp(id, known)) {
        (Some(new), Some(known)) => new.timestamp < known.timestamp,
        _ => false,
    }
}
