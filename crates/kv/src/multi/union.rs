//! What two stores hold together. Pure.

#[cfg(test)]
use std::collections::BTreeSet;
use std::iter::Peekable;
use std::time::Duration;

use super::delta::{Op, Verdict, judge};
use super::marks::{Ages, Marks};
use super::queue::Queue;
use crate::codec::{Codec, Stamp};
use crate::entries::{Entries, EntriesIter};
use crate::store::{Change, EntryBytes, EntryId};

/// What a store held when it was last heard.
#[derive(Clone, Copy, Debug)]
pub(super) enum Known<'a> {
    /// It was never heard.
    Unheard,
    /// The key is absent.
    Absent,
    /// The key holds these.
    Entries(&'a Entries<EntryBytes>),
}

impl<'a> Known<'a> {
    /// The entries; none of a store that was never heard.
    pub(super) fn entries(self) -> Option<&'a Entries<EntryBytes>> {
        match self {
            Self::Unheard | Self::Absent => None,
            Self::Entries(entries) => Some(entries),
        }
    }
}

/// A store as it is known here: what it held when it was last heard, and what this process has written or is about to.
#[derive(Clone, Copy, Debug)]
pub(super) struct Side<'a> {
    pub(super) known: Known<'a>,
    /// Changes that were written and not heard back yet, with their versions.
    pub(super) unseen: &'a [(u64, Change)],
    /// Changes that are on their way.
    pub(super) queue: Option<&'a Queue>,
}

/// What is known beside the stores.
#[derive(Clone, Copy)]
pub(super) struct Facts<'a> {
    pub(super) codec: &'static dyn Codec,
    pub(super) marks: &'a Marks,
    pub(super) ages: &'a Ages,
    /// The key was deleted, and nobody was seen to write it since.
    pub(super) deleted: bool,
    /// Both stores have been followed for as long as an owner may be silent: whoever was not heard is not there.
    pub(super) watched: bool,
    /// In Unix seconds.
    pub(super) now: i64,
    /// How long after its owner was heard an entry is fresh; 0 = for ever.
    pub(super) timeout: Duration,
}

/// Both stores in their parts.
#[derive(Clone, Copy)]
pub(super) struct Pair<'a> {
    pub(super) primary: Side<'a>,
    /// `None` if it does not count.
    pub(super) secondary: Option<Side<'a>>,
    pub(super) facts: Facts<'a>,
}

impl<'a> Side<'a> {
    #[cfg(test)]
    pub(super) fn plain(known: Known<'a>) -> Self {
        Self { known, unseen: &[], queue: None }
    }

    /// What it holds as a whole. Of a key that is being deleted, there may be entries that stay.
    fn known(&self) -> Known<'a> {
        if self.queue.is_some_and(Queue::deletes) { Known::Absent } else { self.known }
    }

    /// The entry called `id`.
    pub(super) fn entry(&self, codec: &dyn Codec, id: &str) -> Option<EntryBytes> {
        let held = self.known.entries().and_then(|entries| entries.get(id));
        let stays = |entry: &EntryBytes| !self.queue.is_some_and(|queue| queue.removes(codec, id, entry));
        let mut entry = held.filter(|entry| stays(entry)).cloned();
        for (_, change) in self.unseen {
            if let Some(bytes) = change.upserts.get(id) {
                entry = Some(replaced(entry, bytes));
            } else if change.removals.contains(id) {
                entry = None;
            }
        }
        let Some(op) = self.queue.and_then(|queue| queue.op(id)) else { return entry };
        match op {
            op if judge(codec, id, op, entry.as_ref()) != Verdict::Applied => entry,
            Op::Upsert { bytes, .. } => Some(replaced(entry, bytes)),
            Op::Remove { .. } => None,
        }
    }

    #[cfg(test)]
    fn ids(&self) -> impl Iterator<Item = &'a EntryId> + use<'a> {
        let known = self.known.entries().into_iter().flat_map(Entries::keys);
        let unseen = self.unseen.iter().flat_map(|(_, change)| change.upserts.keys());
        known.chain(unseen).chain(self.queue.into_iter().flat_map(Queue::ids))
    }
}

/// The entry with these bytes, which is the one that is known if nothing changed.
fn replaced(known: Option<EntryBytes>, bytes: &bytes::Bytes) -> EntryBytes {
    match known {
        Some(known) if known.bytes == *bytes => known,
        _ => EntryBytes::new(bytes.clone()),
    }
}

impl Facts<'_> {
    pub(super) fn stamp(&self, id: &str, entry: &EntryBytes) -> Option<Stamp> {
        self.codec.stamp(id, &entry.bytes)
    }

    /// Whether an entry is none that was removed.
    pub(super) fn counts(&self, id: &str, stamp: Option<Stamp>) -> bool {
        stamp.is_none_or(|stamp| !self.marks.hide(id, stamp.timestamp))
    }

    pub(super) fn is_fresh(&self, id: &str) -> bool {
        self.ages.is_fresh(id, self.now, self.timeout)
    }
}

impl Pair<'_> {
    /// The entry called `id` in what both hold together: the one that its owner wrote last. At the same time LEFT wins, else
    /// what the primary has. What the secondary alone has counts only while its owner is heard.
    pub(super) fn entry(&self, id: &EntryId) -> Option<EntryBytes> {
        let look = |side: &Side<'_>| {
            let entry = side.entry(self.facts.codec, id)?;
            let stamp = self.facts.stamp(id, &entry);
            self.facts.counts(id, stamp).then_some((entry, stamp))
        };
        let secondary = self.secondary.as_ref().and_then(look);
        match (look(&self.primary), secondary) {
            (Some((entry, _)), None) => Some(entry),
            (None, Some((entry, stamp))) => self.is_shown_alone(id, stamp).then_some(entry),
            (Some((own, stamp)), Some((other, other_stamp))) => {
                Some(if beats(other_stamp, stamp) { other } else { own })
            }
            (None, None) => None,
        }
    }

    /// Whether an entry counts that only the secondary has.
    fn is_shown_alone(&self, id: &str, stamp: Option<Stamp>) -> bool {
        match stamp {
            Some(_) => self.facts.is_fresh(id),
            // Without times, a value is the primary's as a whole, as long as it has one.
            None => self.primary.known().entries().is_none() && !self.facts.deleted,
        }
    }

    /// The ids of all entries that might count.
    #[cfg(test)]
    pub(super) fn ids(&self) -> BTreeSet<EntryId> {
        let secondary = self.secondary.iter().flat_map(Side::ids);
        self.primary.ids().chain(secondary).cloned().collect()
    }

    /// Whether the key is there, given the entries that count.
    pub(super) fn is_present(&self, entries: &Entries<EntryBytes>) -> bool {
        let secondary = self.secondary.map(|side| side.known());
        !entries.is_empty()
            || match self.primary.known() {
                Known::Entries(_) => true,
                Known::Absent => false,
                Known::Unheard => matches!(secondary, Some(Known::Entries(_))) && !self.facts.deleted,
            }
    }

    /// All entries that count.
    #[cfg(test)]
    pub(super) fn entries(&self) -> Entries<EntryBytes> {
        self.ids().into_iter().filter_map(|id| self.entry(&id).map(|entry| (id, entry))).collect()
    }
}

/// Whether the secondary's entry is newer than the primary's.
fn beats(secondary: Option<Stamp>, primary: Option<Stamp>) -> bool {
    match (secondary, primary) {
        (Some(other), Some(own)) => {
            other.timestamp > own.timestamp || other.timestamp == own.timestamp && other.left && !own.left
        }
        // What cannot be read does not stand in the way of what can.
        (Some(_), None) => true,
        (None, _) => false,
    }
}

/// Calls `each` with every id that is in `one` or `other`, in order, and the entries there.
pub(super) fn side_by_side<'a, T>(
    one: &'a Entries<T>,
    other: &'a Entries<T>,
    mut each: impl FnMut(&'a EntryId, Option<&'a T>, Option<&'a T>),
) {
    let (mut one, mut other) = (one.iter().peekable(), other.iter().peekable());
    let take = |entries: &mut Peekable<EntriesIter<'a, T>>, id: &EntryId| {
        entries.next_if(|(next, _)| *next == id).map(|(_, entry)| entry)
    };
    loop {
        let id = match (one.peek(), other.peek()) {
            (None, None) => return,
            (Some((id, _)), None) | (None, Some((id, _))) => *id,
            (Some((first, _)), Some((second, _))) => std::cmp::min(*first, *second),
        };
        let (first, second) = (take(&mut one, id), take(&mut other, id));
        each(id, first, second);
    }
}
