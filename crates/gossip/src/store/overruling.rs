//! Which version counts over another one, and registers that are written anew.

use super::{Slot, Store};
use crate::register::{Body, EntryId, MAX_EPOCH, Register, Version};
use crate::time::{Clock, Hlc, Now};

/// What this process wrote, and what then was replaced by a register that says to be by this member as well.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Contested {
    body: Body,
    seen_ms: i64,
}

impl Store {
    /// Writes a live register anew as this member: same body, next epoch, our time. For one that would outlast whatever others
    /// write there, because the clock it is from is ahead. Returns what to tell the others; `None` if nothing live is there.
    ///
    /// Its owner's next write is later than that, or in a later epoch if the owner's clock is behind, and counts.
    pub fn heal(&mut self, now: Now, key: &str, entry: &EntryId, clock: &mut Clock) -> Option<Register> {
        let slot = self.get(key, entry).filter(|slot| !slot.register().is_tombstone())?;
        // Nobody need be alive for it.
        let (body, seen_ms) = (slot.register().body.clone(), slot.seen_ms());
        let version = next_epoch(slot.register().version, clock.next(now));
        let register = Register { version, author: self.own, body };
        self.put(key, entry, register.clone(), seen_ms, false);
        Some(register)
    }

    /// What this process wrote in a place, if `register` is about to take its place although it says to be by this member too:
    /// then it is from a former life, whose clock was ahead or which overruled others, and our body is
    /// [to be written again](Store::reissue) once it is merged.
    pub fn contested(&self, key: &str, entry: &EntryId, register: &Register) -> Option<Contested> {
        let slot = self.get(key, entry).filter(|slot| slot.is_written())?;
        let ours = slot.register();
        let contests = register.author == self.own && register.body != ours.body && register.supersedes(ours);
        contests.then(|| Contested { body: ours.body.clone(), seen_ms: slot.seen_ms() })
    }

    /// Writes again what was [contested](Store::contested), over what took its place. Returns what to tell the others; `None` if
    /// there is something else by now.
    pub fn reissue(
        &mut self,
        now: Now,
        key: &str,
        entry: &EntryId,
        contested: Contested,
        clock: &mut Clock,
    ) -> Option<Register> {
        let held = self.get(key, entry)?;
        if held.is_written() || held.register().author != self.own {
            return None;
        }
        let Contested { body, seen_ms } = contested;
        let register =
            Register { version: self.next_version(now, key, entry, clock), author: self.own, body };
        self.put(key, entry, register.clone(), seen_ms, true);
        Some(register)
    }

    /// Writes a register of our own anew, with the same body.
    pub(super) fn restamp(&mut self, now: Now, key: &str, entry: &EntryId, clock: &mut Clock) {
        let Some(slot) = self.get(key, entry) else { return };
        // That it is known to be wanted does not mean that somebody is alive to have written it.
        let (body, seen_ms, written) = (slot.register().body.clone(), slot.seen_ms(), slot.is_written());
        let version = self.next_version(now, key, entry, clock);
        self.put(key, entry, Register { version, author: self.own, body }, seen_ms, written);
    }

    /// A version that counts over what is in a place, or was there.
    pub(super) fn next_version(&self, now: Now, key: &str, entry: &EntryId, clock: &mut Clock) -> Version {
        let hlc = clock.next(now);
        let held = self.get(key, entry).map(Slot::register).map(|held| held.version);
        let held = held.or_else(|| self.removal(key, entry).map(|removal| removal.version));
        match held {
            None => Version { epoch: 0, hlc },
            Some(held) if held.hlc < hlc => Version { epoch: held.epoch, hlc },
            // Another clock may be ahead of ours, and ours may have been ahead. To take over such a time would make our register
            // one that others refuse.
            Some(held) => next_epoch(held, hlc),
        }
    }
}

/// The version at `hlc` in the epoch behind that of `held`, or as close to it as may be in the last one.
fn next_epoch(held: Version, hlc: Hlc) -> Version {
    if held.epoch < MAX_EPOCH {
        return Version { epoch: held.epoch + 1, hlc };
    }
    Version { epoch: MAX_EPOCH, hlc: hlc.max(Hlc(held.hlc.0.saturating_add(1))) }
}
