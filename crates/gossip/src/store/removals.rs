//! [`Removals`]: what was removed longer ago than the horizon.

use std::collections::BTreeMap;

use smol_str::SmolStr;

use crate::register::{Body, EntryId, Register, Version};

/// Most memory that removals take, in bytes, about: some 30,000 with short names.
const MAX_BYTES: usize = 8 << 20;
/// What one takes beside its texts, in bytes, about.
const REMOVAL_BYTES: usize = 256;

#[derive(Clone, Copy, Debug)]
struct Removal {
    version: Version,
    author: u64,
    turn: u64,
}

/// Tombstones that have expired. No digest tells of them, and no size of the store; the first that came are forgotten first.
#[derive(Clone, Debug, Default)]
pub(super) struct Removals {
    keys: BTreeMap<SmolStr, BTreeMap<EntryId, Removal>>,
    /// All places, in the order in which they came.
    turns: BTreeMap<u64, (SmolStr, EntryId)>,
    next_turn: u64,
    bytes: usize,
}

impl Removals {
    /// Remembers that a place was removed, unless a later removal of it is known.
    pub(super) fn insert(&mut self, key: &str, entry: &EntryId, tombstone: &Register) {
        if self.get(key, entry).is_some_and(|known| !tombstone.supersedes(&known)) {
            return;
        }
        self.take_out(key, entry);
        let turn = self.next_turn;
        self.next_turn += 1;
        let key = SmolStr::new(key);
        let Register { version, author, .. } = *tombstone;
        self.bytes += removal_bytes(&key, entry);
        self.keys.entry(key.clone()).or_default().insert(entry.clone(), Removal { version, author, turn });
        self.turns.insert(turn, (key, entry.clone()));
        while self.bytes > MAX_BYTES
            && let Some((_, (key, entry))) = self.turns.first_key_value()
        {
            let (key, entry) = (key.clone(), entry.clone());
            self.take_out(&key, &entry);
        }
    }

    /// The tombstone that was in this place.
    pub(super) fn get(&self, key: &str, entry: &EntryId) -> Option<Register> {
        let Removal { version, author, .. } = *self.keys.get(key)?.get(entry)?;
        Some(Register { version, author, body: Body::Tombstone })
    }

    /// Forgets a place, of which something else is known now.
    pub(super) fn take_out(&mut self, key: &str, entry: &EntryId) {
        let Some(places) = self.keys.get_mut(key) else { return };
        let Some(removal) = places.remove(entry) else { return };
        if places.is_empty() {
            self.keys.remove(key);
        }
        self.turns.remove(&removal.turn);
        self.bytes = self.bytes.saturating_sub(removal_bytes(key, entry));
    }

    /// All places, in order.
    pub(super) fn places(&self) -> impl Iterator<Item = (&SmolStr, &EntryId)> {
        self.keys.iter().flat_map(|(key, places)| places.keys().map(move |entry| (key, entry)))
    }
}

/// Both texts are kept twice.
fn removal_bytes(key: &str, entry: &EntryId) -> usize {
    REMOVAL_BYTES + 2 * (key.len() + entry.id.len())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::Hlc;

    fn tombstone(ms: u64) -> Register {
        Register { version: Version { epoch: 0, hlc: Hlc::from_ms(ms) }, author: 1, body: Body::Tombstone }
    }

    #[test]
    fn the_latest_removal_of_a_place_is_remembered() {
        let mut removals = Removals::default();
        let entry = EntryId::new("i", 0);
        for ms in [2, 1, 3, 3] {
            removals.insert("k", &entry, &tombstone(ms));
        }
        assert_eq!(removals.get("k", &entry), Some(tombstone(3)));
        assert_eq!(removals.places().collect::<Vec<_>>(), [(&SmolStr::new("k"), &entry)]);
        assert_eq!(removals.get("l", &entry), None);
        assert_eq!(removals.get("k", &EntryId::new("i", 1)), None);
        removals.take_out("k", &entry);
        assert_eq!(removals.get("k", &entry), None);
        assert_eq!((removals.keys.len(), removals.turns.len(), removals.bytes), (0, 0, 0));
    }

    #[test]
    fn the_first_are_forgotten_when_there_are_too_many() {
        let mut removals = Removals::default();
        let place = |number: usize| EntryId::new(format!("{number:0>250}"), 0);
        for number in 0..20_000 {
            removals.insert("k", &place(number), &tombstone(1));
            assert!(removals.bytes <= MAX_BYTES);
        }
        let kept = removals.places().count();
        assert!((5_000..20_000).contains(&kept), "{kept}");
        assert!(removals.get("k", &place(0)).is_none() && removals.get("k", &place(19_999)).is_some());
        assert_eq!(removals.turns.len(), kept);
    }
}
