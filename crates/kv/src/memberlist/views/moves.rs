//! [`Moves`]: when each entry of a key moved last. A write that builds on an older look is in the way of nobody, unless what it
//! names has moved since.

use std::collections::BTreeMap;

use crate::entries::Entries;
use crate::store::{EntryBytes, EntryId};

/// How many entries that are gone are remembered beside as many as there are.
const MAX_GONE: usize = 1024;

/// At which version of a key each of its entries moved last.
#[derive(Default)]
pub(super) struct Moves {
    /// Also of entries that are gone.
    at: BTreeMap<EntryId, u64>,
    /// What is not in there did not move later than that.
    others: u64,
}

impl Moves {
    /// The key came to be at this version, and was not there before.
    pub(super) fn begin(&mut self, version: u64) {
        self.at.clear();
        self.others = version;
    }

    /// These entries moved at this version, the latest.
    pub(super) fn note<'a>(&mut self, ids: impl IntoIterator<Item = &'a EntryId>, version: u64) {
        self.at.extend(ids.into_iter().map(|id| (id.clone(), version)));
    }

    /// Whether this one moved later than at a version, or may have.
    pub(super) fn is_later(&self, id: &EntryId, version: u64) -> bool {
        self.at.get(id).copied().unwrap_or(self.others) > version
    }

    /// Forgets entries that are gone, if there are many of them.
    pub(super) fn prune(&mut self, there: &Entries<EntryBytes>) {
        if self.at.len() <= there.len().saturating_mul(2).saturating_add(MAX_GONE) {
            return;
        }
        let others = &mut self.others;
        self.at.retain(|id, version| {
            let is_there = there.contains_key(id);
            if !is_there {
                *others = (*others).max(*version);
            }
            is_there
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_moved_later_is_known_also_when_it_is_gone() {
        let mut moves = Moves::default();
        moves.begin(7);
        let [one, other] = ["one", "other"].map(EntryId::new);
        moves.note([&one], 8);
        assert!(moves.is_later(&one, 7) && !moves.is_later(&one, 8));
        // It was not there before, so that whoever knows an earlier version knows another key.
        assert!(moves.is_later(&other, 6) && !moves.is_later(&other, 7));
        moves.begin(9);
        assert!(moves.is_later(&one, 8) && !moves.is_later(&one, 9));
    }

    #[test]
    fn many_that_are_gone_are_not_told_apart() {
        let mut moves = Moves::default();
        let ids: Vec<EntryId> = (0..=MAX_GONE + 2).map(|number| EntryId::new(number.to_string())).collect();
        for (id, version) in ids.iter().zip(1..) {
            moves.note([id], version);
        }
        let mut there = Entries::default();
        there.insert(ids[0].clone(), EntryBytes::new("x".into()));
        moves.prune(&there);
        assert_eq!(moves.at.len(), 1);
        assert!(!moves.is_later(&ids[0], 1));
        let last = MAX_GONE as u64 + 3;
        assert!(moves.is_later(&ids[1], last - 1) && !moves.is_later(&ids[1], last));
    }
}
