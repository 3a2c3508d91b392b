//! The registers of one key, and what is kept up to date with them: an index by hash, digests and sizes.

use std::collections::{BTreeMap, BTreeSet, btree_map};
use std::ops::Bound;
use std::time::Duration;

use bytes::Bytes;
use smol_str::SmolStr;
use xxhash_rust::xxh3::{xxh3_64, xxh3_128};

use super::HEARTBEAT_FACET;
use crate::register::{Body, EntryId, Register, Version};
use crate::time::Now;

/// Into how many parts a key is divided to find what differs.
pub const BUCKETS: usize = 256;

/// What a register takes in memory beside its id and body, in bytes: its places in two maps, about.
const REGISTER_BYTES: usize = 256;
/// What a key takes in memory beside its name and registers, in bytes.
const KEY_BYTES: usize = 8 * BUCKETS + 256;

/// The hash that may stand for the id of an entry.
pub fn id_hash(id: &str) -> u64 {
    xxh3_64(id.as_bytes())
}

/// The bucket of an entry with all its facets, below [`BUCKETS`]: the first byte of its [hash](id_hash).
pub fn bucket_of(id: &str) -> u8 {
    bucket_of_hash(id_hash(id))
}

/// Where a register stands among those of its bucket: behind all smaller ones.
pub type Mark = (u64, EntryId);

/// The [mark](Mark) of a register's place.
pub fn mark_of(entry: &EntryId) -> Mark {
    (id_hash(&entry.id), entry.clone())
}

fn bucket_of_hash(id_hash: u64) -> u8 {
    let [bucket, ..] = id_hash.to_be_bytes();
    bucket
}

/// How much is stored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sizes {
    /// Registers, tombstones too.
    pub entries: usize,
    /// How many of them are tombstones.
    pub tombstones: usize,
    /// Entries of which something lives in a facet up to [`HEARTBEAT_FACET`].
    pub live_ids: usize,
    /// Memory in bytes, about.
    pub bytes: usize,
}

impl Sizes {
    fn of(entry: &EntryId, register: &Register) -> Self {
        Self {
            entries: 1,
            tombstones: usize::from(register.is_tombstone()),
            // For the key to count, which knows the other facets.
            live_ids: 0,
            bytes: register_bytes(entry, &register.body),
        }
    }

    /// Counts `after` where `before` was counted.
    pub(super) fn replace(&mut self, before: Self, after: Self) {
        let replaced =
            |sum: usize, before: usize, after: usize| sum.saturating_sub(before).saturating_add(after);
        self.entries = replaced(self.entries, before.entries, after.entries);
        self.tombstones = replaced(self.tombstones, before.tombstones, after.tombstones);
        self.live_ids = replaced(self.live_ids, before.live_ids, after.live_ids);
        self.bytes = replaced(self.bytes, before.bytes, after.bytes);
    }
}

/// The size of a body, in bytes.
pub(super) fn body_bytes(body: &Body) -> usize {
    match body {
        Body::Live(bytes) => bytes.len(),
        Body::Tombstone => 0,
    }
}

/// What a register takes in memory, in bytes.
pub(super) fn register_bytes(entry: &EntryId, body: &Body) -> usize {
    REGISTER_BYTES + entry.id.len() + body_bytes(body)
}

/// What a key takes in memory beside its registers, in bytes.
pub(super) fn key_bytes(key: &str) -> usize {
    KEY_BYTES + key.len()
}

/// Whole milliseconds.
pub(super) fn millis(time: Duration) -> i64 {
    i64::try_from(time.as_millis()).unwrap_or(i64::MAX)
}

/// A register, and what this member knows of it.
#[derive(Clone, Debug)]
pub struct Slot {
    register: Register,
    hash: u64,
    /// In monotonic milliseconds, when its author wrote it: before 0 if that was before our monotonic time began.
    seen_ms: i64,
    changed: u64,
    written: bool,
    only_beats: bool,
}

impl Slot {
    /// `written` if this process made what it holds, rather than took it from another; `lived` if what it takes the place of was
    /// live.
    pub(super) fn new(
        key: &str,
        entry: &EntryId,
        register: Register,
        seen_ms: i64,
        changed: u64,
        written: bool,
        lived: bool,
    ) -> Self {
        let beats = entry.facet == HEARTBEAT_FACET && !register.is_tombstone();
        let hash = if beats {
            // That there is one, and nothing else of it.
            let body = Body::Live(Bytes::new());
            Register { version: Version::default(), author: 0, body }.hash(key, entry)
        } else {
            register.hash(key, entry)
        };
        Self { register, hash, seen_ms, changed, written, only_beats: beats && lived }
    }

    /// What is stored.
    pub fn register(&self) -> &Register {
        &self.register
    }

    /// How long ago its author wrote it, in monotonic time and as far as known: the time that each message was under way is not
    /// counted, and restamping is no writing. To be told to others along with it.
    pub fn age(&self, now: Now) -> Duration {
        let age_ms = millis(now.mono).saturating_sub(self.seen_ms);
        Duration::from_millis(u64::try_from(age_ms).unwrap_or(0))
    }

    /// The [local version](super::Store::local_version) of its key when it changed last.
    pub fn local_version(&self) -> u64 {
        self.changed
    }

    /// What it adds to the digest of its bucket.
    pub fn hash(&self) -> u64 {
        self.hash
    }

    /// Whether it is a heartbeat that took the place of another one, so that all it says is that its entry is still alive. The
    /// first one of an entry says more: it is a part without which nobody can show the entry.
    pub fn only_beats(&self) -> bool {
        self.only_beats
    }

    pub(super) fn seen_ms(&self) -> i64 {
        self.seen_ms
    }

    pub(super) fn is_written(&self) -> bool {
        self.written
    }

    fn is_live(&self) -> bool {
        !self.register.is_tombstone()
    }
}

/// The registers of one key.
#[derive(Clone, Debug)]
pub(super) struct Key {
    slots: BTreeMap<EntryId, Slot>,
    /// The same places by the hash of their id, so that a bucket is a range.
    by_hash: BTreeSet<Mark>,
    buckets: Box<[u64; BUCKETS]>,
    digest: u128,
    /// Of the registers alone.
    sizes: Sizes,
    own_bytes: usize,
    changed: u64,
    dropped: u64,
}

impl Key {
    /// A key without registers, whose former ones were forgotten at the local version `dropped` at the latest.
    pub(super) fn new(key: &str, dropped: u64) -> Self {
        Self {
            slots: BTreeMap::new(),
            by_hash: BTreeSet::new(),
            buckets: Box::new([0; BUCKETS]),
            digest: 0,
            sizes: Sizes::default(),
            own_bytes: key_bytes(key),
            changed: dropped,
            dropped,
        }
    }

    pub(super) fn put(&mut self, entry: &EntryId, slot: Slot) {
        let id_hash = id_hash(&entry.id);
        let (hash, sizes) = (slot.hash, Sizes::of(entry, &slot.register));
        self.changed = slot.changed;
        let lives = slot.is_live();
        let before = self.slots.insert(entry.clone(), slot);
        self.count_life(entry, before.as_ref().is_some_and(Slot::is_live), lives);
        if let Some(before) = before {
            self.fold(id_hash, before.hash);
            self.sizes.replace(Sizes::of(entry, &before.register), sizes);
        } else {
            self.by_hash.insert((id_hash, entry.clone()));
            self.sizes.replace(Sizes::default(), sizes);
        }
        self.fold(id_hash, hash);
    }

    /// Takes a place out at the local version `dropped`, and says whether there was something.
    pub(super) fn forget(&mut self, entry: &EntryId, dropped: u64) -> bool {
        let Some(slot) = self.slots.remove(entry) else { return false };
        self.count_life(entry, slot.is_live(), false);
        let id_hash = id_hash(&entry.id);
        self.by_hash.remove(&(id_hash, entry.clone()));
        self.fold(id_hash, slot.hash);
        self.sizes.replace(Sizes::of(entry, &slot.register), Sizes::default());
        self.changed = dropped;
        self.dropped = dropped;
        true
    }

    /// Whether something of this entry lives in a facet that makes it count, other than in `besides`.
    pub(super) fn has_live(&self, id: &SmolStr, besides: Option<u8>) -> bool {
        let mut facets = (0..=HEARTBEAT_FACET).filter(|facet| Some(*facet) != besides);
        facets.any(|facet| self.slots.get(&EntryId { id: id.clone(), facet }).is_some_and(Slot::is_live))
    }

    /// A place came to life, or died.
    fn count_life(&mut self, entry: &EntryId, lived: bool, lives: bool) {
        let counts = entry.facet <= HEARTBEAT_FACET && lived != lives;
        if counts && !self.has_live(&entry.id, Some(entry.facet)) {
            let (before, after) = (usize::from(lived), usize::from(lives));
            self.sizes.live_ids = self.sizes.live_ids.saturating_sub(before) + after;
        }
    }

    /// Puts a hash into the digests, or takes it out.
    fn fold(&mut self, id_hash: u64, hash: u64) {
        let bucket = bucket_of_hash(id_hash);
        let value = &mut self.buckets[usize::from(bucket)];
        self.digest ^= bucket_digest(bucket, *value);
        *value ^= hash;
        self.digest ^= bucket_digest(bucket, *value);
    }

    pub(super) fn get(&self, entry: &EntryId) -> Option<&Slot> {
        self.slots.get(entry)
    }

    /// All registers of an entry, in the order of their facets.
    pub(super) fn facets(&self, id: &SmolStr) -> impl Iterator<Item = (u8, &Slot)> {
        let first = EntryId { id: id.clone(), facet: 0 };
        let following = self.slots.range(first..);
        following.take_while(move |(entry, _)| entry.id == *id).map(|(entry, slot)| (entry.facet, slot))
    }

    pub(super) fn slots(&self) -> btree_map::Iter<'_, EntryId, Slot> {
        self.slots.iter()
    }

    pub(super) fn find(&self, id_hash: u64, facet: u8) -> Option<&EntryId> {
        let mut found = self.starting_at(id_hash).take_while(|(hash, _)| *hash == id_hash);
        let (_, first) = found.find(|(_, entry)| entry.facet == facet)?;
        // Nobody can tell which of two is meant.
        let ambiguous = found.any(|(_, entry)| entry.facet == facet);
        (!ambiguous).then_some(first)
    }

    /// Those of a bucket behind `after` and up to `upto`, by their marks.
    pub(super) fn bucket(
        &self,
        bucket: u8,
        after: Option<Mark>,
        upto: Option<Mark>,
    ) -> impl Iterator<Item = (&EntryId, &Slot)> {
        let first = (u64::from(bucket) << 56, EntryId::new("", 0));
        let start = after.map_or(Bound::Included(first), Bound::Excluded);
        // Without an end, which may be before the start, and is then no range.
        self.by_hash
            .range((start, Bound::Unbounded))
            .take_while(move |mark| {
                bucket_of_hash(mark.0) == bucket && upto.as_ref().is_none_or(|upto| *mark <= upto)
            })
            .filter_map(move |(_, entry)| self.slots.get_key_value(entry))
    }

    fn starting_at(&self, id_hash: u64) -> impl Iterator<Item = &Mark> {
        self.by_hash.range((id_hash, EntryId::new("", 0))..)
    }

    pub(super) fn buckets(&self) -> &[u64; BUCKETS] {
        &self.buckets
    }

    pub(super) fn digest(&self) -> u128 {
        self.digest
    }

    /// Nothing without registers: the key is dropped then.
    pub(super) fn sizes(&self) -> Sizes {
        if self.slots.is_empty() {
            return Sizes::default();
        }
        Sizes { bytes: self.own_bytes.saturating_add(self.sizes.bytes), ..self.sizes }
    }

    pub(super) fn changed(&self) -> u64 {
        self.changed
    }

    /// The local version of the last change that left no register to tell of it.
    pub(super) fn dropped(&self) -> u64 {
        self.dropped
    }
}

/// What a bucket adds to the digest of its key. An empty one adds nothing, so a key without registers is one that is not there.
fn bucket_digest(bucket: u8, value: u64) -> u128 {
    if value == 0 {
        return 0;
    }
    let [a, b, c, d, e, f, g, h] = value.to_le_bytes();
    xxh3_128(&[bucket, a, b, c, d, e, f, g, h])
}
