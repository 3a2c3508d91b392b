//! What time does to a store: tombstones expire, and what our own wrong clock wrote is written anew.

use smol_str::SmolStr;

use super::{Slot, Store, check_shape};
use crate::register::{EntryId, MAX_EPOCH, Register, Version};
use crate::time::{Clock, Now};

/// Places, by their keys.
type Places = Vec<(SmolStr, EntryId)>;

/// What a [tick](Store::tick) did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ticked {
    /// Registers that are to be told to others.
    pub restamped: Places,
    /// Places that hold nothing any more.
    pub expired: Places,
}

impl Store {
    /// Forgets the tombstones that are older than the horizon, but for [what is remembered](Store::removal) of them. And what is
    /// ahead of our clock although it says to be by us, because our clock was wrong, in this life or in a former one, is
    /// restamped: same body, later version.
    ///
    /// To be called when [`Limits::until_tick`](super::Limits::until_tick) says; costs a walk over all registers.
    pub fn tick(&mut self, now: Now, clock: &mut Clock) -> Ticked {
        let expired = self.select(|slot| {
            slot.register().is_tombstone() && self.limits.is_expired(now, slot.register().version)
        });
        // The others refuse it as it is. In the last epoch there is nothing to be done about it.
        let ahead = self.select(|slot| {
            let Register { version, author, .. } = *slot.register();
            author == self.own && version.epoch < MAX_EPOCH && self.limits.is_ahead(now, version)
        });
        for (key, entry) in &expired {
            let tombstone = self.get(key, entry).map(|slot| slot.register().clone());
            self.forget(key, entry);
            if let Some(tombstone) = tombstone {
                self.removals.insert(key, entry, &tombstone);
            }
        }
        for (key, entry) in &ahead {
            self.restamp(now, key, entry, clock);
        }
        Ticked { restamped: ahead, expired }
    }

    /// The tombstone of a place that holds nothing because that has expired, if it is remembered.
    ///
    /// What is older than it is refused as [older](super::Merged::Older); whoever has that is to be told the tombstone, which
    /// counts there as it always did.
    pub fn removal(&self, key: &str, entry: &EntryId) -> Option<Register> {
        self.removals.get(key, entry)
    }

    /// Whether a live register of this version is older than the [removal](Store::removal) of its place. As the epoch of that may be
    /// forgotten elsewhere, what was written long after it was not removed by it, in whatever epoch it is.
    pub(crate) fn was_removed(&self, key: &str, entry: &EntryId, version: Version) -> bool {
        self.removal(key, entry).is_some_and(|removal| {
            version <= removal.version && self.limits.was_before(version, removal.version)
        })
    }

    /// The places of all [removals](Store::removal), by their keys: for members that begin, so that they remember them too.
    pub fn removals(&self) -> impl Iterator<Item = (&SmolStr, &EntryId)> {
        self.removals.places()
    }

    /// Remembers a [removal](Store::removal) of a place that holds nothing.
    pub fn remember(&mut self, key: &str, entry: &EntryId, tombstone: &Register) {
        let fits = check_shape(key, entry, 0).is_ok() && tombstone.version.epoch <= MAX_EPOCH;
        if fits && tombstone.is_tombstone() && self.get(key, entry).is_none() {
            self.removals.insert(key, entry, tombstone);
        }
    }

    /// The places of such registers, in order.
    fn select(&self, wanted: impl Fn(&Slot) -> bool) -> Places {
        let mut selected = Vec::new();
        for (key, held) in &self.keys {
            for (entry, slot) in held.slots() {
                if wanted(slot) {
                    selected.push((key.clone(), entry.clone()));
                }
            }
        }
        selected
    }
}
