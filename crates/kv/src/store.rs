//! [`Store`], the trait that backends implement, and the untyped data that passes through it.

use std::any::Any;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::codec::Codec;
use crate::entries::Entries;
use crate::error::Error;
use crate::shared::{Heard, Trouble};

/// Name of an entry within a value, for example an instance id.
pub type EntryId = smol_str::SmolStr;

/// A key and how its value is encoded.
#[derive(Clone)]
pub struct Key {
    /// Full name as the backend sees it, prefixes included.
    pub name: Arc<str>,
    /// How the value's entries become stored bytes.
    pub codec: &'static dyn Codec,
}

impl Key {
    /// A key called `name` whose value is encoded by `codec`.
    pub fn new(name: impl Into<Arc<str>>, codec: &'static dyn Codec) -> Self {
        Self { name: name.into(), codec }
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Key").field("name", &self.name).field("codec", &self.codec.id()).finish()
    }
}

/// What a backend holds under one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    /// Opaque; grows with every change of the key, also across a delete and a new creation. 0 stands for a key that is absent.
    pub version: u64,
    /// The entries. Cheap to clone; a backend replaces the map, it never edits a shared one. It makes the next one from a
    /// clone of the last: what versions share is neither decoded nor compared again.
    pub entries: Arc<Entries<EntryBytes>>,
}

impl Stored {
    /// What [`Store::apply`] answers for a change that left an absent key absent.
    pub fn absent() -> Self {
        Self { version: 0, entries: Arc::default() }
    }
}

/// One entry as stored.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct EntryBytes {
    /// What [`crate::Value::decode_entry`] reads.
    pub bytes: Bytes,
    /// When the owner was last heard, if the backend knows better than the timestamp within the entry.
    pub seen: Option<Instant>,
}

impl EntryBytes {
    /// An entry about whose owner nothing else is known.
    pub fn new(bytes: Bytes) -> Self {
        Self { bytes, seen: None }
    }

    /// The same entry, whose owner was last heard at `seen`.
    #[must_use]
    pub fn seen_at(self, seen: Instant) -> Self {
        Self { seen: Some(seen), ..self }
    }
}

impl From<Bytes> for EntryBytes {
    fn from(bytes: Bytes) -> Self {
        Self::new(bytes)
    }
}

/// What to do to the entries of one key. Entries not named are not touched.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Change {
    /// Entries to write, replacing what is there.
    pub upserts: BTreeMap<EntryId, Bytes>,
    /// Entries to remove; unknown ids are ignored. An id that is also in `upserts` is written, not removed.
    pub removals: BTreeSet<EntryId>,
    /// Which of `upserts` are not their writer's own, but brought here from elsewhere: a store that can tells it as
    /// [`Traces::relayed`].
    pub relayed: BTreeSet<EntryId>,
}

impl Change {
    /// Writes one entry.
    pub fn upsert(id: impl Into<EntryId>, entry: impl Into<Bytes>) -> Self {
        Self { upserts: BTreeMap::from([(id.into(), entry.into())]), ..Self::default() }
    }

    /// Removes one entry.
    pub fn remove(id: impl Into<EntryId>) -> Self {
        Self { removals: BTreeSet::from([id.into()]), ..Self::default() }
    }

    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.upserts.is_empty() && self.removals.is_empty()
    }
}

impl Change {
    /// What of it makes a difference to `known`; `None` if nothing does.
    pub(crate) fn effective(&self, known: &Entries<EntryBytes>) -> Option<Self> {
        let mut change = self.clone();
        change.removals.retain(|id| known.contains_key(id) && !self.upserts.contains_key(id));
        change.upserts.retain(|id, entry| known.get(id).is_none_or(|stored| stored.bytes != *entry));
        (!change.is_empty()).then_some(change)
    }

    /// Does it to `entries`.
    #[cfg(any(feature = "consul", feature = "etcd"))]
    pub(crate) fn carry_out(self, entries: &mut Entries<EntryBytes>) {
        for id in &self.removals {
            entries.remove(id);
        }
        for (id, entry) in self.upserts {
            entries.insert(id, EntryBytes::new(entry));
        }
    }
}

/// When a [`Change`] may be applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Precondition {
    /// Whatever the key holds.
    None,
    /// Only if the key is at this version; `None` = only if the key is absent. A store that knows when each entry moved may also
    /// apply a change if the key moved since, but nothing that the change names did.
    Version(Option<u64>),
    /// Only if nothing that the change names moved since the key was at this version; `None` = only if the key is absent. A
    /// store that does not know when each entry moved takes it as [`Precondition::Version`].
    Entries(Option<u64>),
}

/// What became of a [`Change`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Applied {
    /// The key now holds this; the version is the old one if the change changed nothing.
    Done(Stored),
    /// The key moved: nothing was changed, read again.
    Conflict,
}

/// A key-value backend whose values are maps of entries.
///
/// Every method may be called at any time and from any task. Callers put a deadline on each call; a backend must not
/// rely on being polled to the end, and a call dropped half-way may or may not have taken effect.
#[async_trait]
pub trait Store: Send + Sync + 'static {
    /// Short name for logs and metrics, such as `inmemory`.
    fn backend(&self) -> &'static str;

    /// What the key holds; `None` = absent. A key whose last entry was removed is present and empty.
    async fn get(&self, key: &Key) -> Result<Option<Stored>, Error>;

    /// Names of the present keys that begin with `prefix`, prefix included, sorted.
    async fn list(&self, prefix: &str) -> Result<Vec<String>, Error>;

    /// Removes the key. An absent key is success.
    async fn delete(&self, key: &Key) -> Result<(), Error>;

    /// Removes the key if it is at this version, so that nothing goes that nobody looked at. Returns whether it did.
    ///
    /// If it did not, the key may be empty all the same, where each entry has a key of its own: what was looked at went, and
    /// somebody else came.
    async fn delete_at(&self, key: &Key, version: u64) -> Result<bool, Error>;

    /// Applies `change` atomically if `when` holds.
    ///
    /// A change that changes nothing moves no version and wakes no watcher; it does not create an absent key.
    /// Where each entry has a key of its own, what is answered holds other entries as this process last heard of them.
    async fn apply(&self, key: &Key, change: Change, when: Precondition) -> Result<Applied, Error>;

    /// Whether what [`Store::apply`] answers is the whole value right after the change, whatever others wrote meanwhile.
    fn answers_whole(&self) -> bool {
        true
    }

    /// Follows the key: starts with the current value, resumes by itself after faults, and coalesces what a slow reader
    /// misses into the newest value.
    async fn watch(&self, key: &Key) -> Result<Subscription, Error>;

    /// True once reads reflect the cluster. Always true for a store that reads through.
    fn synced(&self) -> watch::Receiver<bool>;

    /// From now on reads and writes no longer wait until the store is [`synced`](Store::synced), if they did.
    fn proceed_unsynced(&self) {}

    /// Whether an entry that is gone was removed by somebody: such a store never loses one by itself.
    fn removals_are_meant(&self) -> bool {
        false
    }

    /// Whether what is behind the store answers; `Some` while it does not. Watches go on from what they know meanwhile.
    fn trouble(&self) -> watch::Receiver<Option<Trouble>> {
        watch::Sender::new(None).subscribe()
    }

    /// How this process stands among those that are the store together; `None` for a store that is elsewhere.
    fn standing(&self) -> Option<Standing> {
        None
    }

    /// What the store knows of a key beyond its entries, without asking anybody; `None` if it knows nothing of the kind.
    async fn traces(&self, _key: &Key) -> Option<Traces> {
        None
    }
}

/// How a process stands among those that are a store together: see [`Store::standing`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    /// Whether it found the others. Who gave up to look for them has not.
    pub joined: bool,
    /// Live processes besides this one.
    pub num_others: usize,
}

/// What a store knows of a key beyond its entries: see [`Store::traces`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Traces {
    /// Entries that others than their owners [brought here](Change::relayed), and that the owners have not written since: that
    /// they are here does not show that their owners are.
    pub relayed: BTreeSet<EntryId>,
    /// Entries that were removed, and how long ago.
    pub removed: BTreeMap<EntryId, Duration>,
}

/// A running watch of one key. Dropping it ends the watch.
pub struct Subscription {
    source: Source,
    first: bool,
    // Whatever must live as long as the watch: a task's abort handle, a timer.
    _guards: Vec<Box<dyn Any + Send + Sync>>,
}

enum Source {
    /// Holds the current value already.
    Known(watch::Receiver<Option<Stored>>),
    /// Holds nothing until a server answered.
    Heard(watch::Receiver<Heard>),
}

impl Subscription {
    /// A watch fed by `values`, which holds the current value already.
    pub fn new(values: watch::Receiver<Option<Stored>>) -> Self {
        Self { source: Source::Known(values), first: true, _guards: Vec::new() }
    }

    /// A watch fed by a follower, which may still be waiting for its first answer.
    pub(crate) fn shared(heard: watch::Receiver<Heard>) -> Self {
        Self { source: Source::Heard(heard), first: true, _guards: Vec::new() }
    }

    /// The same watch, dropping `guard` when it ends.
    #[must_use]
    pub fn with_guard(mut self, guard: impl Any + Send + Sync) -> Self {
        self._guards.push(Box::new(guard));
        self
    }

    /// Waits for the next value: at first the current one, then the newest that was not yet returned.
    ///
    /// `None` = the store closed; `Some(None)` = the key is absent. Cancel safe: no value is lost.
    pub async fn changed(&mut self) -> Option<Option<Stored>> {
        let value = match &mut self.source {
            Source::Known(values) => {
                if !self.first {
                    values.changed().await.ok()?;
                }
                values.borrow_and_update().clone()
            }
            Source::Heard(heard) => {
                if self.first {
                    heard.wait_for(|heard| heard.value.is_some()).await.ok()?;
                } else {
                    heard.changed().await.ok()?;
                }
                heard.borrow_and_update().value.clone()?
            }
        };
        self.first = false;
        Some(value)
    }
}

impl fmt::Debug for Subscription {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Subscription").finish_non_exhaustive()
    }
}

/// How large one key may become. Writes beyond it fail with [`Error::TooLarge`] and change nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of an entry's id.
    pub max_id_bytes: usize,
    /// Bytes of one entry.
    pub max_entry_bytes: usize,
    /// Bytes of all entries of a key, ids included.
    pub max_value_bytes: usize,
    /// Keys in the store.
    pub max_keys: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_id_bytes: 1 << 10,
            max_entry_bytes: 4 << 20,
            max_value_bytes: 256 << 20,
            max_keys: 1 << 20,
        }
    }
}

impl Limits {
    /// Checks the parts of a change that do not depend on what is stored.
    ///
    /// # Errors
    ///
    /// [`Error::TooLarge`] naming the key and the first limit that is exceeded.
    pub fn check(&self, key: &Key, change: &Change) -> Result<(), Error> {
        let too_large =
            |what, bytes, limit| Err(Error::TooLarge { key: key.name.to_string(), what, size: bytes, limit });
        for (id, entry) in &change.upserts {
            if id.len() > self.max_id_bytes {
                return too_large("bytes of an entry id", id.len(), self.max_id_bytes);
            }
            if entry.len() > self.max_entry_bytes {
                return too_large("bytes of one entry", entry.len(), self.max_entry_bytes);
            }
        }
        Ok(())
    }
}
