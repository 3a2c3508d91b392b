//! [`Queue`]: what is still to be told to a store, the newest of each entry. Pure.

use std::collections::{BTreeMap, BTreeSet};

use tokio::time::Instant;

use super::delta::Op;
use crate::codec::Codec;
use crate::store::{EntryBytes, EntryId};

/// Changes of one key on their way to one store.
#[derive(Clone, Debug, Default)]
pub(super) struct Queue {
    items: BTreeMap<EntryId, Item>,
    deletion: Option<Deletion>,
    last: u64,
    refusals: u64,
}

/// A change of one entry.
#[derive(Clone, Debug)]
pub(super) struct Item {
    pub(super) op: Op,
    /// This process writes the entry, and nobody else does.
    own: bool,
    /// Since when the store lacks something of this entry.
    since: Instant,
    number: u64,
    /// The version with which it was committed to the other store; 0 if it was not.
    order: u64,
    /// Grows with every refusal by the store; 0 = it never refused the entry.
    refused: u64,
}

/// The removal of a key with all that was in it.
#[derive(Clone, Debug)]
pub(super) struct Deletion {
    removed: BTreeMap<EntryId, i64>,
    /// What was written to the store since.
    spared: BTreeSet<EntryId>,
    since: Instant,
    number: u64,
}

/// What goes in one attempt.
#[derive(Clone, Debug, Default)]
pub(super) struct Batch {
    pub(super) deletion: Option<Deletion>,
    pub(super) items: BTreeMap<EntryId, Item>,
    /// The store refused it before, and there is nothing else to be told.
    pub(super) was_refused: bool,
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
        // What its owner says anew may be taken, and what goes is.
        let may_be_taken = own || matches!(op, Op::Remove { .. });
        let refused = known.filter(|_| !may_be_taken).map_or(0, |known| known.refused);
        let since = known.map_or(now, |known| known.since);
        self.last += 1;
        self.items.insert(id, Item { op, own, since, number: self.last, order, refused });
        self.last
    }

    /// Adds the removal of the key, whose entries had been written at these times, and returns its number. It began when the
    /// change with the number `began` was the last one: what came later stays, and so does what was `spared` since, whether it is
    /// still to be told or has been.
    pub(super) fn push_deletion(
        &mut self,
        removed: BTreeMap<EntryId, i64>,
        spared: BTreeSet<EntryId>,
        began: u64,
        now: Instant,
    ) -> u64 {
        self.items.retain(|_, item| item.number > began);
        self.last += 1;
        let since = self.deletion.as_ref().map_or(now, |known| known.since);
        self.deletion = Some(Deletion { removed, spared, since, number: self.last });
        self.last
    }

    /// This entry was written to the store, so that a removal of the key, which was decided before, does not mean it.
    pub(super) fn spare(&mut self, id: &EntryId) {
        if let Some(deletion) = &mut self.deletion {
            deletion.spared.insert(id.clone());
        }
    }

    /// Whether an entry of the store goes with the removal of the key that is still to be told.
    pub(super) fn removes(&self, codec: &dyn Codec, id: &str, entry: &EntryBytes) -> bool {
        self.deletion.as_ref().is_some_and(|deletion| deletion.removes(codec, id, entry))
    }

    pub(super) fn op(&self, id: &str) -> Option<&Op> {
        self.items.get(id).map(|item| &item.op)
    }

    /// Whether what is on its way of this entry is its owner's own word, and the owner is this process.
    pub(super) fn is_own(&self, id: &str) -> bool {
        self.items.get(id).is_some_and(|item| item.own)
    }

    /// Whether the store refused something that is still to be told.
    pub(super) fn has_refused(&self) -> bool {
        self.items.values().any(|item| item.refused > 0)
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

    /// What is to be told next; `None` if nothing is. No more than so many entries, those first that have waited longest since
    /// they changed. What the store refused comes when there is nothing else, one after the other.
    pub(super) fn batch(&self, most: usize) -> Option<Batch> {
        if self.is_empty() {
            return None;
        }
        let mut items: Vec<(&EntryId, &Item)> =
            self.items.iter().filter(|(_, item)| item.refused == 0).collect();
        let most = most.max(1);
        if items.len() > most {
            items.select_nth_unstable_by_key(most - 1, |(_, item)| item.number);
            items.truncate(most);
        }
        let was_refused = items.is_empty() && self.deletion.is_none();
        if was_refused {
            items.extend(self.items.iter().min_by_key(|(_, item)| item.refused));
        }
        let items = items.into_iter().map(|(id, item)| (id.clone(), item.clone())).collect();
        Some(Batch { deletion: self.deletion.clone(), items, was_refused })
    }

    /// The store does not take what is in a batch: it is not to stand in the way of other changes.
    pub(super) fn refuse(&mut self, told: &Batch) {
        for id in told.items.keys() {
            if let Some(item) = self.items.get_mut(id) {
                self.refusals += 1;
                item.refused = self.refusals;
            }
        }
    }

    /// Whether all changes in a batch are still to be told, and none of them was replaced.
    pub(super) fn holds(&self, batch: &Batch) -> bool {
        let held = |(id, item): (&EntryId, &Item)| {
            self.items.get(id).is_some_and(|known| known.number == item.number)
        };
        let deletes = |told: &Deletion| {
            let known = self.deletion.as_ref();
            known.is_some_and(|known| known.number == told.number && known.spared == told.spared)
        };
        batch.deletion.as_ref().is_none_or(deletes) && batch.items.iter().all(held)
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
}

impl Deletion {
    /// Whether an entry is one of those that the removal of the key meant.
    pub(super) fn removes(&self, codec: &dyn Codec, id: &str, entry: &EntryBytes) -> bool {
        if self.spared.contains(id) {
            return false;
        }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::multi::laws::{Timed, entry};

    fn upsert(timestamp: i64) -> Op {
        Op::Upsert { bytes: entry("", timestamp, "x").1.bytes, wins_ties: true }
    }

    fn ids(batch: &Batch) -> String {
        batch.items.keys().map(EntryId::as_str).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn what_waited_longest_goes_first_and_what_was_refused_last() {
        let (mut queue, now) = (Queue::default(), Instant::now());
        for id in ["c", "b", "d", "a"] {
            queue.push(&Timed, id.into(), upsert(1), true, 1, now);
        }
        let first = queue.batch(2).unwrap();
        assert_eq!((ids(&first).as_str(), first.last()), ("b c", 2));
        queue.refuse(&first);
        assert_eq!(ids(&queue.batch(9).unwrap()), "a d");
        // Also in a newer form, if that is not from its owner.
        queue.push(&Timed, "b".into(), upsert(2), false, 2, now);
        let others = queue.batch(9).unwrap();
        assert!(!others.was_refused && ids(&others) == "a d");
        queue.settle(&others);
        for expected in ["b", "c", "b"] {
            let again = queue.batch(9).unwrap();
            assert!(again.was_refused && ids(&again) == expected, "{again:?}");
            queue.refuse(&again);
        }
        assert!(!queue.holds(&first), "one of them was replaced");
        queue.push(&Timed, "b".into(), upsert(3), true, 3, now);
        let owned = queue.batch(9).unwrap();
        assert!(!owned.was_refused && ids(&owned) == "b", "{owned:?}");
    }

    #[test]
    fn what_was_written_after_the_removal_of_a_key_stays() {
        let (mut queue, now) = (Queue::default(), Instant::now());
        let removed = BTreeMap::from([("a".into(), 100), ("b".into(), 100)]);
        queue.push_deletion(removed, BTreeSet::new(), 0, now);
        let before = queue.batch(9).unwrap();
        let removes =
            |queue: &Queue, id: &str, timestamp| queue.removes(&Timed, id, &entry("", timestamp, "x").1);
        assert!(removes(&queue, "a", 100) && !removes(&queue, "a", 101) && !removes(&queue, "c", 1));
        assert!(queue.removes(&Timed, "c", &EntryBytes::new("without a time".into())));
        queue.spare(&"a".into());
        assert!(!removes(&queue, "a", 100) && removes(&queue, "b", 100));
        assert!(!queue.holds(&before) && queue.holds(&queue.batch(9).unwrap()));
    }
}
