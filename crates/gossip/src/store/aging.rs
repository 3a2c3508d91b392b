//! What time does to a store: tombstones go, own registers are restamped, and what was removed long ago is told from what is new.

use smol_str::SmolStr;

use super::{Slot, Store, id_hash};
use crate::register::{EntryId, Register, Version};
use crate::time::{Clock, Hlc, Now};

impl Store {
    /// Forgets the tombstones that are older than the horizon, and restamps live registers of our own well before they are, and
    /// what is from a former life with a wrong clock: same body, later version. Returns the restamped ones, for the others to be
    /// told.
    ///
    /// Costs a walk over all registers; see [`Limits::tick_period`](super::Limits::tick_period).
    pub fn tick(&mut self, now: Now, clock: &mut Clock) -> Vec<(SmolStr, EntryId)> {
        let last = clock.last();
        let expired = self.select(|_, slot| {
            slot.register().is_tombstone() && self.limits.is_old(now, slot.register().version)
        });
        let due = self.select(|entry, slot| self.is_due(now, last, entry, slot.register()));
        for (key, entry) in &expired {
            self.forget(key, entry);
        }
        for (key, entry) in &due {
            self.restamp(now, key, entry, clock);
        }
        due
    }

    /// Forgets all that others wrote, for a member that was cut off so long that it can no longer tell what was removed.
    /// Returns how many registers those were.
    pub fn forget_foreign(&mut self) -> usize {
        let foreign = self.select(|_, slot| slot.register().author != self.own);
        for (key, entry) in &foreign {
            self.forget(key, entry);
        }
        foreign.len()
    }

    /// Whether a live register that another member offers was removed here so long ago that nothing is known of it: to be
    /// refused, and the other to be told that it is [gone](Store::gone).
    ///
    /// Only a member that has all the others have may ask; to one that is joining everything is unknown.
    pub fn is_gone(&self, now: Now, key: &str, entry: &EntryId, version: Version) -> bool {
        self.get(key, entry).is_none() && self.limits.is_old(now, version)
    }

    /// Forgets a register of another author that some member says [is gone](Store::is_gone), and says whether it did: only at
    /// that very version, and only if our clock too says that its author would have restamped it long ago.
    pub fn gone(&mut self, now: Now, key: &str, entry: &EntryId, version: Version) -> bool {
        let gone = self.get(key, entry).map(Slot::register).is_some_and(|held| {
            held.author != self.own && held.version == version && self.limits.is_old(now, version)
        });
        gone && self.forget(key, entry)
    }

    /// The places that `wanted` names, in order.
    fn select(&self, wanted: impl Fn(&EntryId, &Slot) -> bool) -> Vec<(SmolStr, EntryId)> {
        let mut selected = Vec::new();
        for (key, held) in &self.keys {
            for (entry, slot) in held.slots() {
                if wanted(entry, slot) {
                    selected.push((key.clone(), entry.clone()));
                }
            }
        }
        selected
    }

    /// Whether a register is one of our own to be restamped; `last` is the last time of our clock.
    fn is_due(&self, now: Now, last: Hlc, entry: &EntryId, register: &Register) -> bool {
        if register.author != self.own {
            return false;
        }
        // From a former life with a wrong clock: the others refuse it as it is. What our own clock made this time it would only
        // make again.
        let overtaken = self.limits.is_ahead(now, register.version) && register.version.hlc > last;
        let stale = self.limits.is_stale(now, register.version, id_hash(&entry.id));
        overtaken || (stale && !register.is_tombstone())
    }

    fn restamp(&mut self, now: Now, key: &str, entry: &EntryId, clock: &mut Clock) {
        let Some(slot) = self.get(key, entry) else { return };
        // That it is known to be wanted does not mean that somebody is alive to have written it.
        let (body, seen_ms) = (slot.register().body.clone(), slot.seen_ms());
        let version = self.next_version(now, key, entry, clock);
        self.put(key, entry, Register { version, author: self.own, body }, seen_ms);
    }
}
