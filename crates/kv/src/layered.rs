//! [`Layered`]: the [`Store`] of a backend that keeps bytes under flat keys ([`Flat`]). Layouts, versions, races, the shared
//! watch and the size of values live here; requests and protocols do not.

mod delete;

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use metrics::{Counter, Unit};
use parking_lot::Mutex;
use ringkit_config::Layout;
use ringkit_runtime::{Backoff, Meter};
use tokio::sync::watch;
use tracing::warn;

use crate::entries::Entries;
use crate::error::{Error, ONE_ENTRY, WHOLE_VALUE};
use crate::flat::{Batch, Committed, Flat, Guard, Item, News, Page, Scope};
use crate::layout::{EntryKeys, NOTICE, is_notice, new_marker};
use crate::shared::{Epoch, Feed, Followers, Pulse, Trouble};
use crate::size::ValueSize;
use crate::store::{
    Applied, Change, EntryBytes, EntryId, Key, Limits, Precondition, Store, Stored, Subscription,
};

/// A [`Store`] over a [`Flat`] server. Clones share everything.
pub(crate) struct Layered<F> {
    core: Arc<Core<F>>,
}

struct Core<F> {
    flat: F,
    layout: Layout,
    followers: Followers,
    epoch: Epoch,
    pulse: Pulse,
    size: ValueSize,
    lost_races: Counter,
    limits: Limits,
    synced: watch::Sender<bool>,
    /// What was last read, heard or written of each key: a write in the layout `per_instance` begins with it instead of with
    /// a read. Of other entries it holds what was last heard, which for a key that nobody here watches may be long ago.
    known: Mutex<HashMap<Arc<str>, Known>>,
}

/// A value and the server's indexes of its parts.
#[derive(Clone, Debug)]
struct Known {
    stored: Stored,
    /// Of the single key, or of the marker.
    index: u64,
    /// Of each entry, in the layout `per_instance`.
    entries: Entries<u64>,
}

/// Keys whose last value is kept at hand. A process uses a handful.
const MAX_KNOWN: usize = 1024;
/// Waits after a lost race, when a write is to happen whatever the key holds.
const MIN_RACE_BACKOFF: Duration = Duration::from_millis(2);
const MAX_RACE_BACKOFF: Duration = Duration::from_millis(500);

impl<F: Flat> Layered<F> {
    /// `max_value_bytes` is what the server accepts under one key.
    pub(crate) fn new(flat: F, layout: Layout, max_value_bytes: u64, meter: &Meter) -> Self {
        let size = ValueSize::new(flat.backend(), max_value_bytes, meter);
        let lost_races = meter.with("type", flat.backend()).counter(
            "ringkit_kv_lost_races_total",
            Unit::Count,
            "Writes of own entries that lost a race to another writer and were tried again at once.",
        );
        let core = Core {
            lost_races,
            flat,
            layout,
            followers: Followers::default(),
            epoch: Epoch::default(),
            pulse: Pulse::default(),
            size,
            limits: Limits::default(),
            synced: watch::Sender::new(true),
            known: Mutex::default(),
        };
        Self { core: Arc::new(core) }
    }
}

impl<F> fmt::Debug for Layered<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Layered").field("layout", &self.core.layout).finish_non_exhaustive()
    }
}

#[async_trait]
impl<F: Flat> Store for Layered<F> {
    fn backend(&self) -> &'static str {
        self.core.flat.backend()
    }

    async fn get(&self, key: &Key) -> Result<Option<Stored>, Error> {
        let known = self.core.read(key).await?;
        Ok(known.map(|known| known.stored))
    }

    async fn list(&self, prefix: &str) -> Result<Vec<String>, Error> {
        let names = self.core.observed(self.core.flat.names(prefix).await)?;
        // Both layouts are told apart by names alone: a key with a marker stands for its entries.
        let mut present: Vec<String> = match self.core.layout {
            Layout::Single => names.into_iter().filter(|name| !name.contains("/_entries/")).collect(),
            Layout::PerInstance => {
                names.iter().filter_map(|name| EntryKeys::key_of_marker(name)).map(str::to_owned).collect()
            }
        };
        present.sort_unstable();
        present.dedup();
        Ok(present)
    }

    async fn delete(&self, key: &Key) -> Result<(), Error> {
        self.core.delete(key).await
    }

    async fn delete_at(&self, key: &Key, version: u64) -> Result<bool, Error> {
        self.core.delete_at(key, version).await
    }

    async fn apply(&self, key: &Key, change: Change, when: Precondition) -> Result<Applied, Error> {
        self.core.limits.check(key, &change)?;
        let mut backoff = Backoff::new(MIN_RACE_BACKOFF, MAX_RACE_BACKOFF);
        // An entry with a key of its own is as it was last written, unless somebody interfered: then the guards do not hold,
        // and what is there is read. A whole value has been written by others since.
        let mut base = match (self.core.layout, when) {
            (Layout::PerInstance, Precondition::None | Precondition::Entries(Some(_))) => {
                self.core.known.lock().get(&key.name).cloned().map(Some)
            }
            _ => None,
        };
        loop {
            let read = base.is_none();
            let known = match base.take() {
                Some(known) => known,
                None => self.core.read(key).await?,
            };
            if !self.core.holds(known.as_ref(), &change, when) {
                return Ok(Applied::Conflict);
            }
            let nothing = Entries::new();
            let entries = known.as_ref().map_or(&nothing, |known| &*known.stored.entries);
            let effective = change.effective(entries);
            // What is remembered of others' entries is no ground to leave a part of the change out.
            if !read && effective.as_ref() != Some(&change) {
                continue;
            }
            let Some(effective) = effective else {
                return Ok(Applied::Done(known.map_or_else(Stored::absent, |known| known.stored)));
            };
            match self.core.write(key, known, effective, when).await? {
                Some(stored) => return Ok(Applied::Done(stored)),
                None if read && when != Precondition::None => return Ok(Applied::Conflict),
                None => (),
            }
            // Lost to another writer. What was merely remembered is not worth a pause.
            self.core.lost_races.increment(1);
            if read {
                tokio::time::sleep(backoff.next()).await;
            }
        }
    }

    fn answers_whole(&self) -> bool {
        self.core.layout == Layout::Single
    }

    async fn watch(&self, key: &Key) -> Result<Subscription, Error> {
        let (core, followed) = (Arc::clone(&self.core), key.clone());
        Ok(self.core.followers.subscribe(key, move |feed| async move {
            let scope = core.scope(&followed);
            let news = |news| core.hear(&followed, &feed, news);
            core.flat.follow(&scope, &core.pulse, &news).await;
        }))
    }

    fn synced(&self) -> watch::Receiver<bool> {
        self.core.synced.subscribe()
    }

    fn trouble(&self) -> watch::Receiver<Option<Trouble>> {
        self.core.pulse.subscribe()
    }
}

impl Known {
    /// What became known while `writes` were under way, which made `after` of something older, up to the index `commit`.
    fn with(self, writes: &[(EntryId, Option<Bytes>)], after: &Self, commit: u64) -> Self {
        let mut merged = self;
        let mut entries = Entries::clone(&merged.stored.entries);
        for (id, _) in writes {
            // What is known of an entry may be from before or after.
            if merged.entries.get(id).is_some_and(|index| *index >= commit) {
                continue;
            }
            match (after.stored.entries.get(id), after.entries.get(id)) {
                (Some(entry), Some(index)) => {
                    entries.insert(id.clone(), entry.clone());
                    merged.entries.insert(id.clone(), *index);
                }
                _ => {
                    entries.remove(id);
                    merged.entries.remove(id);
                }
            }
        }
        merged.index = merged.index.max(after.index);
        let version = merged.stored.version.max(after.stored.version);
        merged.stored = Stored { version, entries: Arc::new(entries) };
        merged
    }
}

impl<F: Flat> Core<F> {
    fn scope(&self, key: &Key) -> Scope {
        match self.layout {
            Layout::Single => Scope::Key(key.name.to_string()),
            Layout::PerInstance => Scope::Below(EntryKeys::of(&key.name).marker().to_owned()),
        }
    }

    /// Takes note of whether the server answered.
    fn observed<T>(&self, result: Result<T, Error>) -> Result<T, Error> {
        match &result {
            Err(error @ (Error::Unavailable { .. } | Error::Deadline { .. })) => self.pulse.fails(error),
            // Says nothing of whether the server does its work.
            Err(Error::Refused { .. } | Error::Misconfigured { .. }) => (),
            _ => self.pulse.beats(),
        }
        result
    }

    async fn read(&self, key: &Key) -> Result<Option<Known>, Error> {
        let page = self.observed(self.flat.read(&self.scope(key)).await)?;
        let known = self.known_of(key, &page)?;
        if known.is_none() && self.layout == Layout::PerInstance {
            // What is absent in this layout may be there in the other.
            self.single(key).await?;
        }
        self.remember(key, known.as_ref());
        Ok(known)
    }

    /// What is under the key itself: in the layout `per_instance` a notice or nothing, in `single` a value or nothing.
    async fn single(&self, key: &Key) -> Result<Option<Item>, Error> {
        let page = self.observed(self.flat.read(&Scope::Key(key.name.to_string())).await)?;
        let found = page.items.into_iter().next();
        match (self.layout, found.as_ref().map(|item| is_notice(&item.value))) {
            (Layout::PerInstance, Some(false)) => Err(other_layout(key, "single")),
            (Layout::Single, Some(true)) => Err(other_layout(key, "per_instance")),
            _ => Ok(found),
        }
    }

    /// Whether a change may be made to what is known.
    fn holds(&self, known: Option<&Known>, change: &Change, when: Precondition) -> bool {
        match (when, known) {
            (Precondition::None, _) => true,
            (Precondition::Entries(Some(expected)), Some(known)) if self.layout == Layout::PerInstance => {
                // Whoever is not there may have gone since, and then the marker is newer.
                let index = |id: &EntryId| known.entries.get(id).copied().unwrap_or(known.index);
                let mut ids = change.upserts.keys().chain(&change.removals);
                ids.all(|id| self.epoch.version(index(id)) <= expected)
            }
            (Precondition::Version(expected) | Precondition::Entries(expected), _) => {
                expected == known.map(|known| known.stored.version)
            }
        }
    }

    fn remember(&self, key: &Key, is: Option<&Known>) {
        let mut known = self.known.lock();
        match is {
            None => drop(known.remove(&key.name)),
            Some(is) => put(&mut known, key, is.clone()),
        }
    }

    /// What the follower of a key heard goes to its watchers.
    fn hear(&self, key: &Key, feed: &Feed, news: News) {
        let page = match news {
            News::Page(page) => page,
            News::Restarted(page) => {
                self.epoch.advance();
                self.known.lock().remove(&key.name);
                warn!(
                    key = &*key.name,
                    backend = self.flat.backend(),
                    "the store began anew with lower indexes"
                );
                page
            }
        };
        match self.known_of(key, &page) {
            Ok(mut known) => {
                let heard = self.epoch.version(page.index);
                if let Some(known) = &mut known {
                    self.move_on(key, known, heard);
                }
                let version = known.as_ref().map_or(heard, |known| known.stored.version);
                // First, so that whoever acts on the news builds on it. What this process wrote since is newer.
                {
                    let mut memory = self.known.lock();
                    if memory.get(&key.name).is_none_or(|newest| version >= newest.stored.version) {
                        match &known {
                            None => drop(memory.remove(&key.name)),
                            Some(known) => put(&mut memory, key, known.clone()),
                        }
                    }
                }
                feed.publish(version, known.map(|known| known.stored));
            }
            // The last good value stays; a read says the same to whoever asks.
            Err(error) => warn!(key = &*key.name, %error, "skipped a stored value that cannot be read"),
        }
    }

    /// An entry that somebody deleted by hand leaves no newer index behind: such a value is as new as when it was `heard`.
    fn move_on(&self, key: &Key, known: &mut Known, heard: u64) {
        if self.layout == Layout::Single {
            return; // A whole value that changes has an index of its own.
        }
        let Some(Some(told)) = self.followers.latest(&key.name) else { return };
        let stored = &mut known.stored;
        if stored.version <= told.version && heard > told.version && stored.entries != told.entries {
            stored.version = heard;
        }
    }

    /// What a page says of a key. Shares with the value known before what did not change.
    fn known_of(&self, key: &Key, page: &Page) -> Result<Option<Known>, Error> {
        let before = self.known.lock().get(&key.name).map(|known| Arc::clone(&known.stored.entries));
        let before =
            before.or_else(|| self.followers.latest(&key.name).flatten().map(|stored| stored.entries));
        let before = before.unwrap_or_default();
        match self.layout {
            Layout::Single => {
                let Some(item) = page.items.first() else { return Ok(None) };
                if is_notice(&item.value) {
                    return Err(other_layout(key, "per_instance"));
                }
                let split = key.codec.split(&item.value).map_err(|cause| Error::Decode {
                    key: key.name.to_string(),
                    entry: None,
                    cause,
                })?;
                let entries = replaced(&before, split);
                let stored = Stored { version: self.epoch.version(item.index), entries: Arc::new(entries) };
                Ok(Some(Known { stored, index: item.index, entries: Entries::new() }))
            }
            Layout::PerInstance => {
                let keys = EntryKeys::of(&key.name);
                let (mut marker, mut newest) = (None, 0);
                let (mut values, mut indexes) = (BTreeMap::new(), Entries::new());
                for item in &page.items {
                    newest = newest.max(item.index);
                    if item.key == keys.marker() {
                        marker = Some(item.index);
                    } else if let Some(id) = keys.id(&item.key) {
                        values.insert(id.clone(), item.value.clone());
                        indexes.insert(id, item.index);
                    }
                }
                // Somebody may have deleted the marker alone, which does not make the entries go; the next write mends it.
                let index = match marker {
                    Some(index) => index,
                    None if indexes.is_empty() => return Ok(None),
                    None => 0,
                };
                let entries = Arc::new(replaced(&before, values));
                let stored = Stored { version: self.epoch.version(newest), entries };
                Ok(Some(Known { stored, index, entries: indexes }))
            }
        }
    }

    /// Writes what differs; `None` if somebody else was faster.
    async fn write(
        &self,
        key: &Key,
        known: Option<Known>,
        change: Change,
        when: Precondition,
    ) -> Result<Option<Stored>, Error> {
        match self.layout {
            Layout::Single => self.write_single(key, known, change).await,
            Layout::PerInstance => self.write_entries(key, known, change, when).await,
        }
    }

    async fn write_single(
        &self,
        key: &Key,
        known: Option<Known>,
        change: Change,
    ) -> Result<Option<Stored>, Error> {
        let mut entries =
            known.as_ref().map_or_else(Entries::new, |known| Entries::clone(&known.stored.entries));
        change.carry_out(&mut entries);
        let all = entries.iter().map(|(id, entry)| (id.clone(), entry.bytes.clone())).collect();
        let joined = key.codec.join(&all);
        self.size.check(&key.name, WHOLE_VALUE, joined.len())?;
        let name = key.name.to_string();
        let guard = match &known {
            Some(known) => Guard::At(name.clone(), known.index),
            None => Guard::Absent(name.clone()),
        };
        let batch = Batch { guards: vec![guard], puts: vec![(name, joined)], ..Batch::default() };
        match self.observed(self.flat.commit(&batch).await)? {
            Committed::Lost => {
                self.known.lock().remove(&key.name);
                Ok(None)
            }
            Committed::At(index) => {
                let stored = Stored { version: self.epoch.version(index), entries: Arc::new(entries) };
                let known = Known { stored: stored.clone(), index, entries: Entries::new() };
                self.remember(key, Some(&known));
                // The value is whole, so whoever watches it here need not wait for the server to tell.
                self.followers.offer(&key.name, stored.version, Some(stored.clone()));
                Ok(Some(stored))
            }
        }
    }

    /// Each entry is guarded by itself. Who comes or goes rewrites the marker, so that the key's version moves.
    ///
    /// A change that builds on a version of the key is also refused when entries came or went, and, where the server can tell,
    /// when any entry was written. More entries than a batch holds are written in several, each of which may lose its race.
    async fn write_entries(
        &self,
        key: &Key,
        known: Option<Known>,
        change: Change,
        when: Precondition,
    ) -> Result<Option<Stored>, Error> {
        let keys = EntryKeys::of(&key.name);
        let Change { upserts, removals, .. } = change;
        for entry in upserts.values() {
            self.size.check(&key.name, ONE_ENTRY, entry.len())?;
        }
        // A key comes into being together with its first entries: nobody sees it empty.
        let mut creation = match known {
            Some(_) => None,
            None => Some(self.creation(key, &keys).await?),
        };
        let mut known =
            known.unwrap_or_else(|| Known { stored: Stored::absent(), index: 0, entries: Entries::new() });
        let conditional = when != Precondition::None;
        let as_read = known.stored.version;
        let mut writes: Vec<(EntryId, Option<Bytes>)> =
            upserts.into_iter().map(|(id, entry)| (id, Some(entry))).collect();
        writes.extend(removals.into_iter().map(|id| (id, None)));
        let room = self.flat.max_batch() / 2 - 3;
        let (mut rest, mut last) = (&writes[..], 0);
        for number in 0.. {
            let (some, later) = rest.split_at(first_batch(rest, room.max(1), self.flat.max_batch_bytes()));
            if some.is_empty() {
                break;
            }
            rest = later;
            let creating = creation.is_some();
            let mut batch = creation.take().unwrap_or_default();
            // Without a marker there is one to be made.
            let unmarked = !creating && known.index == 0;
            let mut moved = creating || unmarked;
            for (id, entry) in some {
                let (name, at) = (keys.entry(id), known.entries.get(id).copied());
                batch.guards.push(match at {
                    Some(index) => Guard::At(name.clone(), index),
                    None => Guard::Absent(name.clone()),
                });
                moved |= at.is_none() || entry.is_none();
                match entry {
                    Some(entry) => batch.puts.push((name, entry.clone())),
                    None => batch.deletes.push(name),
                }
            }
            let marker = keys.marker().to_owned();
            if creating {
                // The creation's own guards say all.
            } else if unmarked {
                batch.guards.push(Guard::Absent(marker.clone()));
            } else if matches!(when, Precondition::Version(_)) {
                batch.guards.push(Guard::At(marker.clone(), known.index));
                batch.unchanged =
                    self.epoch.index(as_read).filter(|_| number == 0).map(|index| (marker.clone(), index));
            } else if conditional && some.iter().any(|(id, _)| !known.entries.contains_key(id)) {
                // That it is absent is not enough: it may have come and gone.
                batch.guards.push(Guard::At(marker.clone(), known.index));
            } else if moved {
                batch.guards.push(Guard::Present(marker.clone()));
            }
            if moved && !creating {
                batch.puts.push((marker, new_marker()));
            }
            let Committed::At(index) = self.observed(self.flat.commit(&batch).await)? else {
                self.known.lock().remove(&key.name);
                if conditional && number > 0 {
                    return Err(Error::Partly { key: key.name.to_string() });
                }
                return Ok(None);
            };
            last = last.max(index);
            let mut entries = Entries::clone(&known.stored.entries);
            for (id, entry) in some {
                match entry {
                    Some(entry) => {
                        entries.insert(id.clone(), EntryBytes::new(entry.clone()));
                        known.entries.insert(id.clone(), index);
                    }
                    None => {
                        entries.remove(id);
                        known.entries.remove(id);
                    }
                }
            }
            if moved {
                known.index = index;
            }
            known.stored = Stored {
                version: self.epoch.version(index).max(known.stored.version),
                entries: Arc::new(entries),
            };
        }
        // Not offered to watchers: what others wrote meanwhile is not in it, although its version is newer.
        let mut memory = self.known.lock();
        if let Some(heard) = memory.get(&key.name).filter(|heard| heard.stored.version > as_read) {
            known = heard.clone().with(&writes, &known, last);
        }
        put(&mut memory, key, known.clone());
        Ok(Some(known.stored))
    }

    /// What brings a key into being, to go with its first entries. Refuses a key that holds something in the other layout.
    async fn creation(&self, key: &Key, keys: &EntryKeys) -> Result<Batch, Error> {
        let (name, marker) = (key.name.to_string(), keys.marker().to_owned());
        let mut batch = Batch { guards: vec![Guard::Absent(marker.clone())], ..Batch::default() };
        if self.single(key).await?.is_none() {
            batch.guards.push(Guard::Absent(name.clone()));
            batch.puts.push((name, Bytes::from_static(NOTICE)));
        }
        batch.puts.push((marker, new_marker()));
        Ok(batch)
    }
}

fn put(known: &mut HashMap<Arc<str>, Known>, key: &Key, is: Known) {
    if known.len() >= MAX_KNOWN && !known.contains_key(&key.name) {
        known.clear();
    }
    known.insert(Arc::clone(&key.name), is);
}

/// `before`, made to hold `values`: what is the same stays shared.
fn replaced(before: &Entries<EntryBytes>, values: BTreeMap<EntryId, Bytes>) -> Entries<EntryBytes> {
    let mut entries = before.clone();
    entries.retain(|id, _| values.contains_key(id));
    for (id, value) in values {
        if entries.get(&id).is_none_or(|known| known.bytes != value) {
            // A copy: what is kept would otherwise keep the whole answer that it came in.
            entries.insert(id, EntryBytes::new(Bytes::copy_from_slice(&value)));
        }
    }
    entries
}

/// How many of `writes` go first, so that they fit into a batch; at least one, if there is any.
fn first_batch(writes: &[(EntryId, Option<Bytes>)], room: usize, max_bytes: usize) -> usize {
    let mut bytes = 0;
    let fits = |(_, entry): &&(EntryId, Option<Bytes>)| {
        bytes += entry.as_ref().map_or(0, Bytes::len);
        bytes <= max_bytes
    };
    let fitting = writes.iter().take(room).take_while(fits).count();
    fitting.max(1).min(writes.len())
}

fn other_layout(key: &Key, found: &'static str) -> Error {
    Error::OtherLayout { key: key.name.to_string(), found }
}

#[cfg(test)]
mod tests;
