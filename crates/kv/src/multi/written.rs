//! [`Written`]: which entries this process has written, and when: so that what was written after something else began is known as
//! such when that ends.

use std::collections::{BTreeMap, BTreeSet};

use crate::store::EntryId;

/// The entries of a key that this process has written, by the number of the last write of each.
#[derive(Debug, Default)]
pub(super) struct Written {
    last: u64,
    at: BTreeMap<EntryId, u64>,
}

impl Written {
    /// These were written.
    pub(super) fn note<'a>(&mut self, ids: impl Iterator<Item = &'a EntryId>) {
        self.last += 1;
        self.at.extend(ids.map(|id| (id.clone(), self.last)));
    }

    /// The number of the last write.
    pub(super) fn last(&self) -> u64 {
        self.last
    }

    /// What was written after the write with this number.
    pub(super) fn since(&self, number: u64) -> BTreeSet<EntryId> {
        self.at.iter().filter(|(_, at)| **at > number).map(|(id, _)| id.clone()).collect()
    }

    /// Forgets those of whom nothing is left.
    pub(super) fn retain(&mut self, keep: impl Fn(&EntryId) -> bool) {
        self.at.retain(|id, _| keep(id));
    }
}
