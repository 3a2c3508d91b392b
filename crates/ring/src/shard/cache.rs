//! [`ShardCache`]: shards that were selected before.
//!
//! A cache belongs to one placement: ids, zones, tokens, registrations, and who is READONLY. A snapshot hands it on to its
//! successor while only heartbeats and other states change, and else the successor starts with an empty one. So a shard
//! selected from an old placement can only be stored where nobody looks for a new one. States and heartbeats are not in
//! here; a shard reads them from the snapshot it is a view of.

use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use arc_swap::ArcSwapOption;
use smol_str::SmolStr;
use xxhash_rust::xxh3::xxh3_64;

use crate::shard::facts::Facts;
use crate::shard::members::ShardMembers;
use crate::shard::select::{Mode, Request};
use crate::snapshot::Snapshot;

/// How many tenants hash to different places.
const SETS: usize = 1 << 10;
/// How many shards are kept per place.
const WAYS: usize = 8;

/// Shards by tenant, size and mode; at most `SETS * WAYS` of them.
///
/// Reads are lock-free and allocate nothing. Writes are too, and may lose against each other, which costs a later
/// selection.
#[derive(Default)]
pub(crate) struct ShardCache {
    facts: OnceLock<Facts>,
    // By hash of the tenant alone, so that all shards of a tenant are found in one place.
    sets: OnceLock<Box<[OnceLock<Box<Set>>]>>,
    turn: AtomicUsize,
}

type Set = [Way; WAYS];

#[derive(Default)]
struct Way {
    // Tells most strangers apart without looking at the entry.
    tag: AtomicU32,
    entry: ArcSwapOption<Entry>,
}

/// The members of a shard; `None` = the whole ring.
pub(crate) type Part = Option<Arc<ShardMembers>>;

/// A shard kept.
struct Entry {
    identifier: SmolStr,
    size: usize,
    mode: Mode,
    /// From when until when it is what a selection would find, in Unix seconds.
    from: i64,
    until: i64,
    members: Part,
}

impl Entry {
    #[inline]
    fn is_for(&self, request: &Request<'_>) -> bool {
        self.size == request.size && self.mode == request.mode && self.identifier == request.identifier
    }
}

impl ShardCache {
    /// What selecting wants to know about `snapshot`, which this cache belongs to.
    #[inline]
    pub(crate) fn facts(&self, snapshot: &Snapshot) -> &Facts {
        self.facts.get_or_init(|| Facts::gather(snapshot))
    }

    /// The shard asked for, if it is kept and still valid.
    #[inline]
    pub(crate) fn get(&self, request: &Request<'_>) -> Option<Part> {
        let hash = xxh3_64(request.identifier.as_bytes());
        let (set, tag) = (self.sets.get()?[place(hash)].get()?, tag(hash, request));
        set.iter().filter(|way| way.tag.load(Ordering::Relaxed) == tag).find_map(|way| {
            let entry = way.entry.load();
            let entry = entry.as_deref()?;
            let is_valid = entry.from <= request.now && request.now < entry.until;
            (is_valid && entry.is_for(request)).then(|| entry.members.clone())
        })
    }

    /// Keeps `members` for requests like this one, made from now on and before `until` (Unix seconds; `None` = for good).
    ///
    /// A shard selected for a later time is not replaced by one for an earlier time.
    pub(crate) fn put(&self, request: &Request<'_>, until: Option<i64>, members: Part) {
        let has_window = matches!(request.mode, Mode::Lookback(_));
        let from = if has_window { request.now } else { i64::MIN };
        let until = until.unwrap_or(i64::MAX);
        if until <= from {
            return;
        }
        let hash = xxh3_64(request.identifier.as_bytes());
        let sets = self.sets.get_or_init(|| (0..SETS).map(|_| OnceLock::new()).collect());
        let set = sets[place(hash)].get_or_init(Box::default);
        let identifier = request.identifier.into();
        let entry = Entry { identifier, size: request.size, mode: request.mode, from, until, members };
        let Some(way) = self.way_for(set, &entry, request) else { return };
        way.entry.store(Some(Arc::new(entry)));
        way.tag.store(tag(hash, request), Ordering::Relaxed);
    }

    /// Where to put `new`: where the like of it is, else where there is room, else where it is the turn.
    fn way_for<'a>(&self, set: &'a Set, new: &Entry, request: &Request<'_>) -> Option<&'a Way> {
        let mut room = None;
        for way in set {
            match &*way.entry.load() {
                Some(old) if old.is_for(request) => return (old.from <= new.from).then_some(way),
                Some(old) if old.until > new.from => (),
                Some(_) | None => room = room.or(Some(way)),
            }
        }
        room.or_else(|| set.get(self.turn.fetch_add(1, Ordering::Relaxed) % WAYS))
    }

    /// Forgets the shards of `identifier`.
    pub(crate) fn forget(&self, identifier: &str) {
        let hash = xxh3_64(identifier.as_bytes());
        let Some(set) = self.sets.get().and_then(|sets| sets[place(hash)].get()) else { return };
        for way in &**set {
            if way.entry.load().as_deref().is_some_and(|entry| entry.identifier == identifier) {
                way.entry.store(None);
            }
        }
    }

    /// How many shards are kept.
    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        let sets = self.sets.get().into_iter().flatten().filter_map(OnceLock::get);
        sets.flat_map(|set| set.iter()).filter(|way| way.entry.load().is_some()).count()
    }
}

impl std::fmt::Debug for ShardCache {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ShardCache").field("facts", &self.facts.get()).finish_non_exhaustive()
    }
}

#[inline]
fn place(hash: u64) -> usize {
    hash as usize % SETS
}

#[inline]
fn tag(hash: u64, request: &Request<'_>) -> u32 {
    let mode = match request.mode {
        Mode::Plain => 0,
        Mode::ZoneStable => 1,
        Mode::Lookback(period) => period.as_secs().wrapping_add(2),
    };
    let mixed = (request.size as u64 ^ mode.rotate_left(32)).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    ((hash ^ mixed) >> 32) as u32
}
