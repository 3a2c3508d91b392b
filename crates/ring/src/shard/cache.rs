//! [`ShardCache`]: shards that were selected before.
//!
//! A cache belongs to one placement: ids, zones, tokens, registrations, and who is READONLY. A snapshot hands it on to its
//! successor while only heartbeats and other states change, and else the successor starts with an empty one. So a shard
//! selected from an old placement can only be stored where nobody looks for a new one. States and heartbeats are not in
//! here; a shard reads them from the snapshot it is a view of.

use std::sync::atomic::{AtomicI64, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use arc_swap::ArcSwapOption;
use smol_str::SmolStr;
use xxhash_rust::xxh3::xxh3_64;

use crate::shard::circles::Circles;
use crate::shard::facts::Facts;
use crate::shard::members::ShardMembers;
use crate::shard::select::{Mode, Request};
use crate::snapshot::Snapshot;

/// How many tenants hash to different places.
const SETS: usize = 1 << 10;
/// How many shards are kept per place.
const WAYS: usize = 8;
/// How much memory the shards kept may take, in bytes. Enough for as many as there are places, of common sizes.
const BUDGET: usize = 16 << 20;

/// Shards by tenant, size and mode; at most `SETS * WAYS` of them, and no more than take up `BUDGET`.
///
/// Reads are lock-free and allocate nothing. Writes are too, and may lose against each other, which costs a later
/// selection.
#[derive(Default)]
pub(crate) struct ShardCache {
    facts: Facts,
    circles: Arc<Circles>,
    // By hash of the tenant alone, so that all shards of a tenant are found in one place.
    sets: OnceLock<Box<[OnceLock<Box<Set>>]>>,
    turn: AtomicUsize,
    /// When a shard with look-back was kept last, in Unix seconds: the only clock that plain ones have.
    last_put: AtomicI64,
    /// What the shards kept take, and how many there are.
    bytes: AtomicUsize,
    len: AtomicUsize,
    /// Goes on from placement to placement.
    evictions: Arc<AtomicU64>,
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

    /// Memory taken, in bytes.
    fn bytes(&self) -> usize {
        let name = if self.identifier.is_heap_allocated() { self.identifier.len() } else { 0 };
        size_of::<Self>() + name + self.members.as_ref().map_or(0, |members| members.size())
    }
}

impl ShardCache {
    /// An empty one for `snapshot`, whose topology is that of `known` if that is given.
    pub(crate) fn new(snapshot: &Snapshot, known: Option<&Self>) -> Self {
        Self {
            facts: Facts::gather(snapshot),
            circles: known.map(|known| Arc::clone(&known.circles)).unwrap_or_default(),
            evictions: known.map(|known| Arc::clone(&known.evictions)).unwrap_or_default(),
            ..Self::default()
        }
    }

    /// Counts on from `known`, the cache of another placement.
    pub(crate) fn count_on_from(&mut self, known: &Self) {
        self.evictions = Arc::clone(&known.evictions);
    }

    /// What selecting wants to know about the ring that this cache belongs to.
    #[inline]
    pub(crate) fn facts(&self) -> &Facts {
        &self.facts
    }

    #[inline]
    pub(crate) fn circles(&self) -> &Circles {
        &self.circles
    }

    /// How many shards are kept.
    pub(crate) fn len(&self) -> usize {
        self.len.load(Ordering::Relaxed)
    }

    /// How many shards, still valid, had to go or were not kept for want of room.
    pub(crate) fn evictions(&self) -> u64 {
        self.evictions.load(Ordering::Relaxed)
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
    pub(crate) fn put(&self, request: &Request<'_>, until: Option<i64>, members: Part) {
        let has_window = matches!(request.mode, Mode::Lookback(_));
        let from = if has_window { request.now } else { i64::MIN };
        let until = until.unwrap_or(i64::MAX);
        if until <= from {
            return;
        }
        if has_window {
            self.last_put.store(request.now, Ordering::Relaxed);
        }
        let now = self.last_put.load(Ordering::Relaxed);
        let hash = xxh3_64(request.identifier.as_bytes());
        let sets = self.sets.get_or_init(|| (0..SETS).map(|_| OnceLock::new()).collect());
        let identifier = request.identifier.into();
        let entry = Entry { identifier, size: request.size, mode: request.mode, from, until, members };
        let bytes = entry.bytes();
        if !self.make_room(sets, bytes, now) {
            self.evictions.fetch_add(1, Ordering::Relaxed);
            return;
        }
        let set = sets[place(hash)].get_or_init(Box::default);
        let way = self.way_for(set, request, now);
        self.replace(way, Some(Arc::new(entry)), |old| !old.is_for(request) && old.until > now);
        way.tag.store(tag(hash, request), Ordering::Relaxed);
    }

    /// Takes `bytes` of the budget, if need be from others. Gives up where that takes many.
    fn make_room(&self, sets: &[OnceLock<Box<Set>>], bytes: usize, now: i64) -> bool {
        const LOOKED_AT: usize = 64;
        if bytes > BUDGET / 8 {
            return false;
        }
        for _ in 0..=LOOKED_AT {
            if self.bytes.fetch_add(bytes, Ordering::Relaxed) + bytes <= BUDGET {
                return true;
            }
            self.bytes.fetch_sub(bytes, Ordering::Relaxed);
            let set = &sets[self.turn.fetch_add(1, Ordering::Relaxed) % SETS];
            for way in set.get().into_iter().flat_map(|set| set.iter()) {
                self.replace(way, None, |old| old.until > now);
            }
        }
        false
    }

    /// Where to put a shard: where the like of it is, else where there is room, else where it is the turn.
    ///
    /// The like of it did not serve the request, or it would not be selected anew: it is over, or comes from a clock that
    /// was ahead.
    fn way_for<'a>(&self, set: &'a Set, request: &Request<'_>, now: i64) -> &'a Way {
        let mut room = None;
        for way in set {
            match &*way.entry.load() {
                Some(old) if old.is_for(request) => return way,
                Some(old) if old.until > now => (),
                Some(_) | None => room = room.or(Some(way)),
            }
        }
        room.unwrap_or_else(|| &set[self.turn.fetch_add(1, Ordering::Relaxed) % WAYS])
    }

    /// Puts `next` into `way`; what was there is an eviction if `counts` says so.
    fn replace(&self, way: &Way, next: Option<Arc<Entry>>, counts: impl Fn(&Entry) -> bool) {
        self.len.fetch_add(usize::from(next.is_some()), Ordering::Relaxed);
        if let Some(old) = way.entry.swap(next) {
            self.len.fetch_sub(1, Ordering::Relaxed);
            self.bytes.fetch_sub(old.bytes(), Ordering::Relaxed);
            self.evictions.fetch_add(u64::from(counts(&old)), Ordering::Relaxed);
        }
    }

    /// Forgets the shards of `identifier`.
    pub(crate) fn forget(&self, identifier: &str) {
        let hash = xxh3_64(identifier.as_bytes());
        let Some(set) = self.sets.get().and_then(|sets| sets[place(hash)].get()) else { return };
        for way in &**set {
            if way.entry.load().as_deref().is_some_and(|entry| entry.identifier == identifier) {
                self.replace(way, None, |_| false);
            }
        }
    }

    /// What the shards kept take in memory, counted anew.
    #[cfg(test)]
    pub(crate) fn counted(&self) -> (usize, usize) {
        let sets = self.sets.get().into_iter().flatten().filter_map(OnceLock::get);
        let entries = sets.flat_map(|set| set.iter()).filter_map(|way| way.entry.load_full());
        let sizes: Vec<_> = entries.map(|entry| entry.bytes()).collect();
        (sizes.len(), sizes.iter().sum())
    }

    #[cfg(test)]
    pub(crate) fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }
}

impl std::fmt::Debug for ShardCache {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ShardCache").field("facts", &self.facts).finish_non_exhaustive()
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
