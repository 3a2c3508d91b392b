//! [`Moves`]: when each entry of a key moved last. A write that builds on an older look is in the way of nobody, unless what it
//! names has moved since.

use std::collections::BTreeMap;

use crate::store::EntryId;

/// At which version of a key each of its entries moved last.
#[derive(Default)]
pub(super) struct Moves {
    at: BTreeMap<EntryId, u64>,
    /// Those that are not in there did not move later than that.
    others: u64,
}

impl Moves {
    /// Nothing that was seen of the key before this version holds: it was not there, or had an entry that is gone.
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
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_moved_later_is_known_until_nothing_holds_any_more() {
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
}
