//! [`FarNews`]: what this member wrote and no other zone was told yet.
//!
//! Apart from the line of all items, because it is another question: what was told often enough here may not have been told
//! there at all, and whoever relays it does so within its own zone.

use std::collections::BTreeMap;

use super::{Item, Place};

/// Items for other zones, each to be sent there once, in order of their turns.
#[derive(Clone, Debug, Default)]
pub(super) struct FarNews {
    items: BTreeMap<u64, Item>,
    /// The turn of each of them.
    turns: BTreeMap<Place, u64>,
    /// How many of them are no heartbeats.
    news: usize,
}

impl FarNews {
    /// Adds an item, or puts it where an older one of its place waits, so that what is often written has its turn, too.
    pub(super) fn put(&mut self, turn: u64, item: Item) {
        let turn = *self.turns.entry(item.place()).or_insert(turn);
        self.news += usize::from(!item.heartbeat);
        let old = self.items.insert(turn, item);
        self.news -= usize::from(old.is_some_and(|old| !old.heartbeat));
    }

    pub(super) fn remove(&mut self, place: &Place) -> Option<Item> {
        let turn = self.turns.remove(place)?;
        let item = self.items.remove(&turn)?;
        self.news -= usize::from(!item.heartbeat);
        Some(item)
    }

    /// Those with these turns were sent.
    pub(super) fn sent(&mut self, turns: &[u64]) {
        for turn in turns {
            if let Some(item) = self.items.remove(turn) {
                self.turns.remove(&item.place());
                self.news -= usize::from(!item.heartbeat);
            }
        }
    }

    pub(super) fn line(&self) -> impl Iterator<Item = (&u64, &Item)> {
        self.items.iter()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// Whether one of them is no heartbeat.
    pub(super) fn has_news(&self) -> bool {
        self.news > 0
    }

    pub(super) fn clear(&mut self) {
        self.items.clear();
        self.turns.clear();
        self.news = 0;
    }
}
