//! [`InMemory`]: a store within one process, for tests, development and single binaries.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Weak};

use async_trait::async_trait;
use parking_lot::Mutex;
use tokio::sync::watch;

use crate::entries::Entries;
use crate::error::Error;
use crate::store::{
    Applied, Change, EntryBytes, EntryId, Key, Limits, Precondition, Store, Stored, Subscription,
};

/// Keeps entries per key under one mutex, which is held for the time of one change and never across an await.
///
/// Clones share the contents. What is written survives as long as any clone does.
#[derive(Clone)]
pub struct InMemory {
    shared: Arc<Shared>,
}

struct Shared {
    limits: Limits,
    keys: Mutex<Keys>,
    synced: watch::Sender<bool>,
}

#[derive(Default)]
struct Keys {
    slots: BTreeMap<Arc<str>, Slot>,
    present: usize,
    /// One counter for all keys, so that a key that is deleted and created anew does not repeat a version.
    version: u64,
}

/// One key: its value lives in the channel that watchers read. An absent key has a slot only while it is watched.
struct Slot {
    value: watch::Sender<Option<Stored>>,
    bytes: usize,
}

impl InMemory {
    /// An empty store that refuses writes beyond `limits`.
    pub fn new(limits: Limits) -> Self {
        let shared = Shared { limits, keys: Mutex::default(), synced: watch::Sender::new(true) };
        Self { shared: Arc::new(shared) }
    }
}

impl Default for InMemory {
    fn default() -> Self {
        Self::new(Limits::default())
    }
}

impl fmt::Debug for InMemory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("InMemory").field("keys", &self.shared.keys.lock().present).finish_non_exhaustive()
    }
}

#[async_trait]
impl Store for InMemory {
    fn backend(&self) -> &'static str {
        "inmemory"
    }

    async fn get(&self, key: &Key) -> Result<Option<Stored>, Error> {
        let keys = self.shared.keys.lock();
        Ok(keys.slots.get(&key.name).and_then(|slot| slot.value.borrow().clone()))
    }

    async fn list(&self, prefix: &str) -> Result<Vec<String>, Error> {
        let keys = self.shared.keys.lock();
        let from = Arc::<str>::from(prefix);
        let candidates = keys.slots.range(from..).take_while(|(name, _)| name.starts_with(prefix));
        Ok(candidates
            .filter(|(_, slot)| slot.value.borrow().is_some())
            .map(|(name, _)| name.to_string())
            .collect())
    }

    async fn delete(&self, key: &Key) -> Result<(), Error> {
        self.shared.keys.lock().delete(key);
        Ok(())
    }

    async fn delete_at(&self, key: &Key, version: u64) -> Result<bool, Error> {
        let mut keys = self.shared.keys.lock();
        let version_of = |slot: &Slot| slot.value.borrow().as_ref().map(|stored| stored.version);
        let is_meant = keys.slots.get(&key.name).and_then(version_of) == Some(version);
        if is_meant {
            keys.delete(key);
        }
        Ok(is_meant)
    }

    async fn apply(&self, key: &Key, change: Change, when: Precondition) -> Result<Applied, Error> {
        self.shared.limits.check(key, &change)?;
        self.shared.keys.lock().apply(&self.shared.limits, key, &change, when)
    }

    async fn watch(&self, key: &Key) -> Result<Subscription, Error> {
        let mut keys = self.shared.keys.lock();
        let slot = keys.slots.entry(Arc::clone(&key.name)).or_insert_with(Slot::absent);
        let cleanup = Cleanup { shared: Arc::downgrade(&self.shared), key: Arc::clone(&key.name) };
        Ok(Subscription::new(slot.value.subscribe()).with_guard(cleanup))
    }

    fn synced(&self) -> watch::Receiver<bool> {
        self.shared.synced.subscribe()
    }
}

impl Keys {
    fn apply(
        &mut self,
        limits: &Limits,
        key: &Key,
        change: &Change,
        when: Precondition,
    ) -> Result<Applied, Error> {
        let slot = self.slots.get(&key.name);
        let current = slot.and_then(|slot| slot.value.borrow().clone());
        if let Precondition::Version(expected) | Precondition::Entries(expected) = when
            && expected != current.as_ref().map(|stored| stored.version)
        {
            return Ok(Applied::Conflict);
        }
        let known = current.clone().unwrap_or_else(Stored::absent);
        let Some((entries, bytes)) =
            changed_entries(&known.entries, slot.map_or(0, |slot| slot.bytes), change)
        else {
            return Ok(Applied::Done(known));
        };
        let too_large =
            |what, size, limit| Err(Error::TooLarge { key: key.name.to_string(), what, size, limit });
        if bytes > limits.max_value_bytes {
            return too_large("bytes of all entries", bytes, limits.max_value_bytes);
        }
        if current.is_none() {
            if self.present >= limits.max_keys {
                return too_large("keys in the store", self.present + 1, limits.max_keys);
            }
            self.present += 1;
        }
        self.version += 1;
        let stored = Stored { version: self.version, entries: Arc::new(entries) };
        let slot = self.slots.entry(Arc::clone(&key.name)).or_insert_with(Slot::absent);
        slot.bytes = bytes;
        slot.value.send_replace(Some(stored.clone()));
        Ok(Applied::Done(stored))
    }

    fn delete(&mut self, key: &Key) {
        let Some(slot) = self.slots.get_mut(&key.name) else { return };
        slot.bytes = 0;
        // Watchers of a key that is absent already are not woken.
        if slot.value.send_if_modified(|value| value.take().is_some()) {
            self.present -= 1;
        }
        self.drop_if_unused(&key.name);
    }

    fn drop_if_unused(&mut self, key: &str) {
        if self.slots.get(key).is_some_and(|slot| slot.value.is_closed() && slot.value.borrow().is_none()) {
            self.slots.remove(key);
        }
    }
}

/// The entries after `change` and their size, given the size before; `None` if the change changes nothing.
fn changed_entries(
    known: &Entries<EntryBytes>,
    bytes: usize,
    change: &Change,
) -> Option<(Entries<EntryBytes>, usize)> {
    let Change { upserts, removals, .. } = change.effective(known)?;
    let size = |id: &EntryId, entry: &[u8]| id.len() + entry.len();
    let (mut entries, mut bytes) = (known.clone(), bytes);
    for id in removals {
        bytes -= entries.remove(&id).map_or(0, |old| size(&id, &old.bytes));
    }
    for (id, entry) in upserts {
        bytes += size(&id, &entry);
        if let Some(old) = entries.insert(id.clone(), EntryBytes::new(entry)) {
            bytes -= size(&id, &old.bytes);
        }
    }
    Some((entries, bytes))
}

impl Slot {
    fn absent() -> Self {
        Self { value: watch::Sender::new(None), bytes: 0 }
    }
}

/// Removes the slot of an absent key once nobody watches it.
struct Cleanup {
    shared: Weak<Shared>,
    key: Arc<str>,
}

impl Drop for Cleanup {
    fn drop(&mut self) {
        if let Some(shared) = self.shared.upgrade() {
            shared.keys.lock().drop_if_unused(&self.key);
        }
    }
}

#[cfg(test)]
mod tests;
