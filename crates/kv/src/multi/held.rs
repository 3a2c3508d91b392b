//! [`Held`]: what is known of one store.

use super::place::Place;
use super::queue::Queue;
use super::union::{Known, Side};
use crate::entries::Entries;
use crate::store::{Change, EntryId, Stored, Traces};

/// Own changes that a store has not told back yet. Beyond so many, the oldest are believed to have been.
const MAX_UNSEEN: usize = 64;

/// What is known of one store.
#[derive(Default)]
pub(super) struct Held {
    /// `None` = it was never heard, `Some(None)` = the key is absent.
    pub(super) snapshot: Option<Option<Stored>>,
    /// The highest version that was heard.
    pub(super) newest: u64,
    /// How often it was learned what the store holds.
    pub(super) learned: u64,
    /// How often it answered a write without saying what it holds.
    pub(super) answered: u64,
    /// Changes that were written and not heard back yet, with their versions.
    pub(super) unseen: Vec<(u64, Change)>,
    pub(super) queue: Queue,
    pub(super) traces: Traces,
}

/// How it was learned what a store holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum How {
    /// Its watch said so.
    Watch,
    /// It was read, beginning when [`Held::moves`] was this.
    Read(u64),
    /// It answered a write.
    Write,
}

/// Where a change was written.
#[derive(Clone, Copy, Debug)]
pub(super) struct Landing {
    pub(super) place: Place,
    /// What the store answered is all that it holds.
    pub(super) whole: bool,
}

impl Held {
    pub(super) fn known(&self) -> Known<'_> {
        match &self.snapshot {
            None => Known::Unheard,
            Some(None) => Known::Absent,
            Some(Some(stored)) => Known::Entries(&stored.entries),
        }
    }

    /// The store as readers are shown it.
    pub(super) fn side(&self) -> Side<'_> {
        Side { known: self.known(), unseen: &self.unseen, queue: Some(&self.queue) }
    }

    /// The store as it is, as far as that is known: without what is still on its way to it.
    pub(super) fn side_without_queue(&self) -> Side<'_> {
        Side { queue: None, ..self.side() }
    }

    /// Whether the key is known to be there.
    pub(super) fn is_present(&self) -> bool {
        matches!(self.snapshot, Some(Some(_)))
    }

    pub(super) fn version(&self) -> Option<u64> {
        self.snapshot.as_ref()?.as_ref().map(|stored| stored.version)
    }

    /// How often something was learned of it. Whoever finds it unchanged knows the latest.
    pub(super) fn moves(&self) -> u64 {
        self.learned + self.answered
    }

    /// The highest version that was heard, or written and not heard back yet.
    pub(super) fn latest(&self) -> u64 {
        self.unseen.iter().map(|(version, _)| *version).fold(self.newest, u64::max)
    }

    /// Adds a change that was written as this version, and that is not heard back yet.
    pub(super) fn push_unseen(&mut self, version: u64, change: Change) {
        self.answered += 1;
        // Answers may come in another order than the writes.
        let at = self.unseen.partition_point(|(known, _)| *known <= version);
        self.unseen.insert(at, (version, change));
        if self.unseen.len() > MAX_UNSEEN {
            self.unseen.remove(0);
        }
    }

    /// Whether what was learned is news.
    pub(super) fn accepts(&self, value: Option<&Stored>, how: How) -> bool {
        let Some(stored) = value else {
            // Absence has no version: whatever was learned while it was read is from later.
            return !matches!(how, How::Read(began) if began != self.moves());
        };
        match &self.snapshot {
            _ if stored.version < self.newest => false,
            Some(Some(known)) if stored.version == self.newest => {
                // What somebody deleted by hand may leave no newer version behind.
                matches!(how, How::Read(_)) && known.entries != stored.entries
            }
            // Versions are not repeated: what was there before, and is there still, never went.
            Some(None) if stored.version == self.newest => how == How::Read(self.moves()),
            _ => true,
        }
    }

    pub(super) fn ids(&self) -> impl Iterator<Item = &EntryId> {
        let known = self.known().entries().into_iter().flat_map(Entries::keys);
        let unseen = self.unseen.iter().flat_map(|(_, change)| change.upserts.keys().chain(&change.removals));
        known.chain(unseen).chain(self.queue.ids())
    }
}
