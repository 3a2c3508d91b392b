//! [`Store`]: the registers of all keys, with digests that tell two copies apart.
//!
//! Of each place the register that [supersedes](Register::supersedes) the others is kept. So copies that were given the same
//! registers are equal, in whatever order and however often they came, unless a [limit](Limits) stood against one of them.
//!
//! # What was removed
//!
//! A removal is a register like others, a tombstone. After a while, the horizon, it expires: it no longer counts in digests and
//! is offered to nobody, or there would be ever more of them. But whoever had it [remembers](Store::removal) it, a bounded number
//! of them, and who joins is told. If somebody who was away comes back with what was removed meanwhile, those who remember answer
//! with the very tombstone, which counts over it as it would have at the time. So a removal lasts, however long anybody was
//! away, for as long as one member that knows of it can be reached, or one that joined by such a member, and so on; and until as
//! many others have expired after it as fit what is kept of them.
//!
//! Nothing is ever taken for removed only because it is old, or unknown to somebody: whatever lives is kept by all, whether
//! or not its author is still there to say so. And nothing is written anew to keep it young, because what a member has that was
//! cut off may have been removed where it does not hear of it: with a new time it would count over its removal.
//! The versions of all registers are those of their writes.

mod aging;
mod key;
mod limits;
mod overruling;
mod removals;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;
use smol_str::SmolStr;

pub use self::aging::Ticked;
pub use self::key::{BUCKETS, Mark, Sizes, Slot, bucket_of, id_hash, mark_of};
pub use self::limits::{Limits, Reason};
pub use self::overruling::Contested;

use self::key::{Key, body_bytes, key_bytes, millis, register_bytes};
use self::limits::check_shape;
use self::removals::Removals;
use crate::register::{Body, EntryId, MAX_EPOCH, Register, Version};
use crate::time::{Clock, Now};

/// The facet that is written all the time and says that its entry is alive, in every key.
///
/// Digests tell whether there is a live one, not what it holds: otherwise no two copies would be equal for long.
pub const HEARTBEAT_FACET: u8 = 2;

/// Most changes that are told apart until they are [taken](Store::take_changes).
const MAX_CHANGES: usize = 1 << 16;

/// How many times over a limit there is room for what the limit spares: larger bodies of known registers, and registers of our
/// own that come back from others. Whoever forges those fills this much and no more.
const SLACK: usize = 2;

/// The buckets of a key that is not there.
static NO_BUCKETS: [u64; BUCKETS] = [0; BUCKETS];

/// A member's copy of all registers.
#[derive(Clone, Debug)]
pub struct Store {
    limits: Limits,
    own: u64,
    keys: BTreeMap<SmolStr, Key>,
    removals: Removals,
    root: u128,
    sizes: Sizes,
    /// The local version of the last change.
    version: u64,
    /// The local version of the last change that left no register to tell of it.
    dropped: u64,
    changes: Changes,
}

/// What became of a register that was merged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Merged {
    /// Stored; there was none in its place.
    New,
    /// Stored instead of an older one.
    Changed,
    /// It was there already.
    Same,
    /// A later one is there, or [was](Store::removal); whoever sent it does not know that.
    Older,
    /// Not stored.
    Refused(Reason),
}

impl Merged {
    /// Whether the store is another one now, so that others should hear of the register too.
    pub fn is_change(self) -> bool {
        matches!(self, Self::New | Self::Changed)
    }
}

/// Which registers changed, for those who watch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// More changed than is told apart: `entries` is empty, and anything may be different.
    pub everything: bool,
    /// Keys and places whose register was written, merged, restamped or dropped.
    pub entries: BTreeSet<(SmolStr, EntryId)>,
}

impl Changes {
    /// Whether nothing changed.
    pub fn is_empty(&self) -> bool {
        !self.everything && self.entries.is_empty()
    }

    fn note(&mut self, key: &str, entry: &EntryId) {
        if self.everything {
            return;
        }
        self.entries.insert((SmolStr::new(key), entry.clone()));
        if self.entries.len() > MAX_CHANGES {
            self.entries.clear();
            self.everything = true;
        }
    }
}

/// Why changes were not applied. None of them was.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotApplied {
    /// A register that was to be changed is not the one that was read.
    #[error("`{}` changed since it was read", .entry.id)]
    Conflict {
        /// Which one.
        entry: EntryId,
    },
    /// A register cannot be stored by anybody.
    #[error("`{}` cannot be stored", .entry.id)]
    Refused {
        /// Which one.
        entry: EntryId,
        /// Why.
        #[source]
        reason: Reason,
    },
}

impl Store {
    /// An empty store of the member whose name has the hash `own`.
    pub fn new(limits: Limits, own: u64) -> Self {
        Self {
            limits,
            own,
            keys: BTreeMap::new(),
            removals: Removals::default(),
            root: 0,
            sizes: Sizes::default(),
            version: 0,
            dropped: 0,
            changes: Changes::default(),
        }
    }

    /// Takes a register from another member; `age` is how long ago its author wrote it, if the other knows.
    ///
    /// No clock moves by it. Where a write of our own has to be later than what it replaces, its [epoch](Version) is, so a clock
    /// that is ahead need not be followed, and is not handed on.
    pub fn merge(
        &mut self,
        now: Now,
        key: &str,
        entry: &EntryId,
        register: &Register,
        age: Option<Duration>,
    ) -> Merged {
        if let Err(reason) = check_shape(key, entry, body_bytes(&register.body)) {
            return Merged::Refused(reason);
        }
        let held = self.get(key, entry);
        if let Some(held) = held
            && !register.supersedes(held.register())
        {
            return if held.register() == register { Merged::Same } else { Merged::Older };
        }
        if held.is_none() && !register.is_tombstone() && self.was_removed(key, entry, register.version) {
            return Merged::Older;
        }
        if let Err(reason) = self.check_merge(now, key, entry, register, held) {
            return Merged::Refused(reason);
        }
        let merged = if held.is_some() { Merged::Changed } else { Merged::New };
        let seen_ms = millis(now.mono).saturating_sub(millis(age.unwrap_or_default()));
        // What is later was not written before what is earlier, however long that was under way.
        let seen_ms = held.map_or(seen_ms, |held| held.seen_ms().max(seen_ms));
        let body = match &register.body {
            // A slice of a message would keep all of the message in memory.
            Body::Live(bytes) => Body::Live(Bytes::copy_from_slice(bytes)),
            Body::Tombstone => Body::Tombstone,
        };
        self.put(key, entry, Register { body, ..*register }, seen_ms, false);
        merged
    }

    /// Writes as this member, over whatever is stored, and returns what to tell the others.
    ///
    /// How much may be stored limits what others send, not what is written here.
    ///
    /// # Errors
    ///
    /// A [`Reason`] for which every member would refuse the register. Nothing is stored then.
    pub fn write(
        &mut self,
        now: Now,
        key: &str,
        entry: &EntryId,
        body: Body,
        clock: &mut Clock,
    ) -> Result<Register, Reason> {
        check_shape(key, entry, body_bytes(&body))?;
        Ok(self.stamp(now, key, entry, body, clock))
    }

    /// [Writes](Store::write) these bytes.
    ///
    /// # Errors
    ///
    /// As [`Store::write`].
    pub fn upsert(
        &mut self,
        now: Now,
        key: &str,
        entry: &EntryId,
        bytes: Bytes,
        clock: &mut Clock,
    ) -> Result<Register, Reason> {
        self.write(now, key, entry, Body::Live(bytes), clock)
    }

    /// Writes a tombstone, unless there is nothing to remove.
    pub fn remove(&mut self, now: Now, key: &str, entry: &EntryId, clock: &mut Clock) -> Option<Register> {
        self.is_live(key, entry).then(|| self.stamp(now, key, entry, Body::Tombstone, clock))
    }

    /// Writes all of `changes`, where `None` removes, if they are based on what is stored: either `expected` is `None`, or it is
    /// the [local version](Store::local_version) that the key had when it was read, and no register that is to change did since.
    ///
    /// Returns what to tell the others; to remove what is not there is nothing to tell.
    ///
    /// # Errors
    ///
    /// [`NotApplied`], and nothing is written.
    pub fn apply(
        &mut self,
        now: Now,
        key: &str,
        expected: Option<u64>,
        changes: &[(EntryId, Option<Bytes>)],
        clock: &mut Clock,
    ) -> Result<Vec<(EntryId, Register)>, NotApplied> {
        for (entry, bytes) in changes {
            if let Err(reason) = check_shape(key, entry, bytes.as_ref().map_or(0, Bytes::len)) {
                return Err(NotApplied::Refused { entry: entry.clone(), reason });
            }
            if expected.is_some_and(|expected| self.changed_at(key, entry) > expected) {
                return Err(NotApplied::Conflict { entry: entry.clone() });
            }
        }
        let mut written = Vec::with_capacity(changes.len());
        for (entry, bytes) in changes {
            let register = match bytes {
                Some(bytes) => Some(self.stamp(now, key, entry, Body::Live(bytes.clone()), clock)),
                None => self.remove(now, key, entry, clock),
            };
            written.extend(register.map(|register| (entry.clone(), register)));
        }
        Ok(written)
    }

    /// What changed since this was asked last.
    pub fn take_changes(&mut self) -> Changes {
        std::mem::take(&mut self.changes)
    }

    /// The register of a place, a tombstone too.
    pub fn get(&self, key: &str, entry: &EntryId) -> Option<&Slot> {
        self.keys.get(key)?.get(entry)
    }

    /// All registers of an entry with their facets, in the order of these, tombstones too. As fast as [`get`](Self::get) of one.
    pub fn facets<'a>(
        &'a self,
        key: &str,
        id: &'a SmolStr,
    ) -> impl Iterator<Item = (u8, &'a Slot)> + use<'a> {
        self.keys.get(key).into_iter().flat_map(|key| key.facets(id))
    }

    /// The place in `key` whose id has this [hash](id_hash), if it is the only one.
    pub fn find(&self, key: &str, id_hash: u64, facet: u8) -> Option<&EntryId> {
        self.keys.get(key)?.find(id_hash, facet)
    }

    /// All registers of a key in order, tombstones too.
    pub fn registers<'a>(&'a self, key: &str) -> impl Iterator<Item = (&'a EntryId, &'a Slot)> + use<'a> {
        self.keys.get(key).into_iter().flat_map(Key::slots)
    }

    /// The live registers of a key in order.
    pub fn live<'a>(&'a self, key: &str) -> impl Iterator<Item = (&'a EntryId, &'a Slot)> + use<'a> {
        self.registers(key).filter(|(_, slot)| !slot.register().is_tombstone())
    }

    /// All keys that hold a register, in order.
    pub fn keys(&self) -> impl Iterator<Item = &str> {
        self.keys.keys().map(SmolStr::as_str)
    }

    /// How many keys hold a register.
    pub fn num_keys(&self) -> usize {
        self.keys.len()
    }

    /// A number that grows with every change of the key, on this member only.
    pub fn local_version(&self, key: &str) -> u64 {
        self.keys.get(key).map_or(self.dropped, Key::changed)
    }

    /// Tells copies of the store apart, but for what live [heartbeats](HEARTBEAT_FACET) hold. An empty one has 0.
    pub fn root(&self) -> u128 {
        self.root
    }

    /// As [`Store::root`], of one key.
    pub fn key_digest(&self, key: &str) -> u128 {
        self.keys.get(key).map_or(0, Key::digest)
    }

    /// All keys with their [digests](Store::key_digest), in order.
    pub fn digests(&self) -> impl Iterator<Item = (&str, u128)> {
        self.keys.iter().map(|(key, held)| (key.as_str(), held.digest()))
    }

    /// A digest of each [bucket](bucket_of) of a key; an empty one has 0.
    pub fn buckets(&self, key: &str) -> &[u64; BUCKETS] {
        self.keys.get(key).map_or(&NO_BUCKETS, Key::buckets)
    }

    /// The registers of one bucket, by the hashes of their ids: what each adds to the digest of the bucket, and its version.
    ///
    /// Costs O(log n) and what it returns.
    pub fn entries_of_bucket<'a>(
        &'a self,
        key: &str,
        bucket: u8,
    ) -> impl Iterator<Item = (&'a EntryId, u64, Version)> + use<'a> {
        self.entries_between(key, bucket, None, None)
    }

    /// As [`entries_of_bucket`](Store::entries_of_bucket), of those behind `after` and up to `upto`. They come in the order of
    /// their [marks](Mark).
    pub fn entries_between<'a>(
        &'a self,
        key: &str,
        bucket: u8,
        after: Option<Mark>,
        upto: Option<Mark>,
    ) -> impl Iterator<Item = (&'a EntryId, u64, Version)> + use<'a> {
        let held = self.keys.get(key).into_iter();
        let slots = held.flat_map(move |held| held.bucket(bucket, after.clone(), upto.clone()));
        slots.map(|(entry, slot)| (entry, slot.hash(), slot.register().version))
    }

    /// How much is stored.
    pub fn sizes(&self) -> Sizes {
        self.sizes
    }

    /// How much of it in this key.
    pub fn key_sizes(&self, key: &str) -> Sizes {
        self.keys.get(key).map(Key::sizes).unwrap_or_default()
    }

    fn is_live(&self, key: &str, entry: &EntryId) -> bool {
        self.get(key, entry).is_some_and(|slot| !slot.register().is_tombstone())
    }

    /// The local version of the last change of a place. Of one that holds nothing it is as late as it may have been.
    fn changed_at(&self, key: &str, entry: &EntryId) -> u64 {
        let Some(held) = self.keys.get(key) else { return self.dropped };
        held.get(entry).map_or(held.dropped(), Slot::local_version)
    }

    /// Whether a register that supersedes `held` is to be stored instead of it.
    fn check_merge(
        &self,
        now: Now,
        key: &str,
        entry: &EntryId,
        register: &Register,
        held: Option<&Slot>,
    ) -> Result<(), Reason> {
        if register.version.epoch > MAX_EPOCH {
            return Err(Reason::EpochOutOfRange);
        }
        // From our own former life with a wrong clock it has to be known, to be overruled.
        if register.author != self.own && self.limits.is_ahead(now, register.version) {
            return Err(Reason::ClockAhead);
        }
        // Of something unknown they would go round for ever: some members have just dropped what others send them. And epochs
        // are forgotten with the tombstones: what was written since then may be in an earlier one.
        let counts =
            held.is_some_and(|held| self.limits.was_before(held.register().version, register.version));
        if register.is_tombstone() && !counts && self.limits.is_expired(now, register.version) {
            return Err(Reason::TombstoneTooOld);
        }
        self.check_room(key, entry, register, held)
    }

    fn check_room(
        &self,
        key: &str,
        entry: &EntryId,
        register: &Register,
        held: Option<&Slot>,
    ) -> Result<(), Reason> {
        let spared = held.is_some() || register.author == self.own;
        let within = |limit: usize| limit.saturating_mul(if spared { SLACK } else { 1 });
        let known = self.keys.get(key);
        if known.is_none() && self.keys.len() >= within(self.limits.max_keys) {
            return Err(Reason::TooManyKeys);
        }
        let counts = !register.is_tombstone() && entry.facet <= HEARTBEAT_FACET;
        if counts && known.is_none_or(|known| !known.has_live(&entry.id, None)) {
            let entries = known.map_or(0, |known| known.sizes().live_ids);
            if entries >= within(self.limits.max_entries_per_key) {
                return Err(Reason::TooManyEntries);
            }
        }
        let grows_by = match held {
            Some(held) => body_bytes(&register.body).saturating_sub(body_bytes(&held.register().body)),
            None if known.is_some() => register_bytes(entry, &register.body),
            None => key_bytes(key).saturating_add(register_bytes(entry, &register.body)),
        };
        // What does not grow it is taken by a full store too.
        if grows_by > 0 && self.sizes.bytes.saturating_add(grows_by) > within(self.limits.max_bytes) {
            return Err(Reason::TooManyBytes);
        }
        Ok(())
    }

    /// Stores a register of our own that supersedes what is there.
    fn stamp(&mut self, now: Now, key: &str, entry: &EntryId, body: Body, clock: &mut Clock) -> Register {
        let version = self.next_version(now, key, entry, clock);
        let register = Register { version, author: self.own, body };
        self.put(key, entry, register.clone(), millis(now.mono), true);
        register
    }

    fn put(&mut self, key: &str, entry: &EntryId, register: Register, seen_ms: i64, written: bool) {
        self.removals.take_out(key, entry);
        self.version = self.version.saturating_add(1);
        let held = self.keys.entry(SmolStr::new(key)).or_insert_with(|| Key::new(key, self.dropped));
        let (digest, sizes) = (held.digest(), held.sizes());
        let lived = held.get(entry).is_some_and(|before| !before.register().is_tombstone());
        held.put(entry, Slot::new(key, entry, register, seen_ms, self.version, written, lived));
        self.root ^= digest ^ held.digest();
        self.sizes.replace(sizes, held.sizes());
        self.changes.note(key, entry);
    }

    /// Forgets a place without leaving a tombstone, and says whether there was something.
    fn forget(&mut self, key: &str, entry: &EntryId) -> bool {
        let Some(held) = self.keys.get_mut(key) else { return false };
        let (digest, sizes) = (held.digest(), held.sizes());
        let version = self.version.saturating_add(1);
        if !held.forget(entry, version) {
            return false;
        }
        self.version = version;
        self.dropped = version;
        self.root ^= digest ^ held.digest();
        let left = held.sizes();
        self.sizes.replace(sizes, left);
        if left.entries == 0 {
            self.keys.remove(key);
        }
        self.changes.note(key, entry);
        true
    }
}
