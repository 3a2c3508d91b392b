//! [`Views`]: of each key that somebody asked for, the entries that its registers make, kept up to date as registers change.
//!
//! | register | holds |
//! |---|---|
//! | `(id, 0..=2)` | the parts of an entry: see [`Codec::facets`]. Without the first there is no entry |
//! | `(id, 3)` | a mark: others than the owner [brought](Change::relayed) the entry here, and the owner has not written it since |
//! | `("", 3)` | the marker: says of a key that it is there, also without entries. Whoever writes to the key writes it, and only who deletes the key removes it |

mod moves;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use ringkit_gossip::api::Event;
use ringkit_gossip::driver::Observer;
use ringkit_gossip::node::Node;
use ringkit_gossip::register::{Body, EntryId as Place};
use ringkit_gossip::store::{HEARTBEAT_FACET, Slot, Store as Registers};
use ringkit_gossip::time::Now;
use smol_str::SmolStr;
use tokio::sync::watch;
use tokio::time::Instant;

use self::moves::Moves;
use super::BACKEND;
use super::observed::Observed;
use crate::codec::{Codec, Facets};
use crate::entries::Entries;
use crate::error::Error;
use crate::store::{Change, EntryBytes, EntryId, Key, Stored, Subscription};

/// Facet of the marker, and of the marks of entries, which have an id.
const MARKER_FACET: u8 = 3;

/// The register that says of an entry that others than its owner brought it here.
pub(super) fn relay_mark(id: &EntryId) -> Place {
    Place { id: id.clone(), facet: MARKER_FACET }
}

/// Whether this is a [`relay_mark`].
pub(super) fn is_relay_mark(place: &Place) -> bool {
    place.facet == MARKER_FACET && !place.id.is_empty()
}

/// The register that says of a key, also of one without entries, that it is there.
pub(super) fn marker() -> Place {
    Place { id: SmolStr::default(), facet: MARKER_FACET }
}

/// Whether this is the [`marker`].
pub(super) fn is_marker(place: &Place) -> bool {
    place.facet == MARKER_FACET && place.id.is_empty()
}

/// Whether a key is there: it has an entry, even one of which parts are still to come, or the marker.
pub(super) fn is_present(registers: &Registers, key: &str) -> bool {
    registers.live(key).any(|(place, _)| place.facet == 0 || is_marker(place))
}

/// The views of a member. Clones share them.
#[derive(Clone)]
pub(super) struct Views {
    // Locked by the member's task, and for a moment when a watch ends: never while the member is told to do something.
    state: Arc<Mutex<State>>,
    observed: Arc<Observed>,
}

#[derive(Default)]
struct State {
    keys: BTreeMap<SmolStr, Shown>,
    /// One counter for all keys, so that a key that is deleted and created anew does not repeat a version.
    version: u64,
    /// Tokio's time when the member's own time began.
    origin: Option<Instant>,
}

/// A key that somebody asked for. Its value lives in the channel that watchers read.
struct Shown {
    codec: &'static dyn Codec,
    value: watch::Sender<Option<Stored>>,
    moves: Moves,
}

/// What the registers of an entry say.
enum Look {
    Entry(EntryBytes),
    /// Parts are still to come: what was shown before is shown on.
    Incomplete,
    /// It was removed, or nothing is known of it.
    Absent,
}

impl Views {
    pub(super) fn new(observed: Arc<Observed>) -> Self {
        Self { state: Arc::default(), observed }
    }

    /// What a key holds, which from now on is kept up to date.
    pub(super) fn open(&self, node: &Node, now: Now, key: &Key) -> Result<Option<Stored>, Error> {
        let mut state = self.state.lock();
        Ok(state.open(node, now, key)?.value.borrow().clone())
    }

    /// Follows a key.
    pub(super) fn watch(&self, node: &Node, now: Now, key: &Key) -> Result<Subscription, Error> {
        let values = self.state.lock().open(node, now, key)?.value.subscribe();
        let cleanup = Cleanup { state: Arc::downgrade(&self.state), key: Arc::clone(&key.name) };
        Ok(Subscription::new(values).with_guard(cleanup))
    }

    /// What an opened key holds.
    pub(super) fn shown(&self, key: &str) -> Option<Stored> {
        self.state.lock().keys.get(key)?.value.borrow().clone()
    }

    /// Whether an opened key is there, and nothing that `change` names has moved since it was at this version. That parts of
    /// an entry are still to come is a move, which goes on.
    pub(super) fn is_as_it_was(
        &self,
        registers: &Registers,
        key: &str,
        change: &Change,
        version: u64,
    ) -> bool {
        let state = self.state.lock();
        let Some(shown) = state.keys.get(key) else { return false };
        let current = shown.value.borrow().as_ref().map(|stored| stored.version);
        let moves = |id: &EntryId| {
            shown.moves.is_later(id, version)
                || matches!(look(registers, key, id, shown.codec, |_| None), Look::Incomplete)
        };
        current.is_some_and(|current| version <= current)
            && !change.upserts.keys().chain(&change.removals).any(moves)
    }

    /// How the entries of an opened key are read.
    pub(super) fn codec(&self, key: &str) -> Option<&'static dyn Codec> {
        Some(self.state.lock().keys.get(key)?.codec)
    }

    /// Shows an absent key no longer, unless somebody watches it.
    pub(super) fn forget_unused(&self, key: &str) {
        self.state.lock().forget_unused(key);
    }
}

impl Observer for Views {
    fn changed(&mut self, node: &Node, now: Now, key: &SmolStr, entries: &[Place]) {
        self.observed.changed(node, now, key, entries);
        let mut state = self.state.lock();
        if entries.is_empty() {
            state.rebuild(node, now, key);
        } else {
            state.update(node, now, key, entries.iter().map(|place| &place.id));
        }
    }

    fn event(&mut self, node: &Node, _: Now, event: &Event) {
        self.observed.event(node, event);
    }
}

impl State {
    fn open(&mut self, node: &Node, now: Now, key: &Key) -> Result<&Shown, Error> {
        if !self.keys.contains_key(&*key.name) {
            let name = SmolStr::new(&key.name);
            let shown = Shown { codec: key.codec, value: watch::Sender::new(None), moves: Moves::default() };
            self.keys.insert(name.clone(), shown);
            self.rebuild(node, now, &name);
        }
        match self.keys.get(&*key.name) {
            Some(shown) if shown.codec.id() == key.codec.id() => Ok(shown),
            shown => {
                let (used, asked) = (shown.map_or("", |shown| shown.codec.id()), key.codec.id());
                let reason =
                    format!("`{}` is read as `{used}` here, and cannot be as `{asked}` too", key.name);
                Err(Error::Refused { backend: BACKEND, reason })
            }
        }
    }

    /// Looks at all registers of a key.
    fn rebuild(&mut self, node: &Node, now: Now, key: &str) {
        let Some(shown) = self.keys.get(key) else { return };
        let known = shown.value.borrow().clone();
        let known = known.iter().flat_map(|stored| stored.entries.keys().cloned());
        let places = node.store().registers(key).map(|(place, _)| place.id.clone());
        let ids: BTreeSet<SmolStr> = known.chain(places).collect();
        self.update(node, now, key, &ids);
    }

    /// Looks at the registers of some entries, and tells the watchers if that makes a difference. A key that is gone, and that
    /// nobody watches, is shown no longer.
    fn update<'a>(&mut self, node: &Node, now: Now, key: &str, ids: impl IntoIterator<Item = &'a SmolStr>) {
        let Some(shown) = self.keys.get_mut(key) else { return };
        let origin = *self.origin.get_or_insert_with(|| {
            let began = Instant::now().checked_sub(now.mono);
            began.unwrap_or_else(Instant::now)
        });
        let registers = node.store();
        let before = shown.value.borrow().clone();
        let known = before.as_ref().map(|stored| Arc::clone(&stored.entries)).unwrap_or_default();
        let mut changed: Option<Entries<EntryBytes>> = None;
        let (mut moved, mut removed) = (Vec::new(), false);
        let mut last = None;
        for id in ids {
            // The parts of an entry follow each other.
            if last.replace(id) == Some(id) {
                continue;
            }
            match look(registers, key, id, shown.codec, |slot| heard_at(origin, now, slot)) {
                Look::Entry(entry) if known.get(id) == Some(&entry) => (),
                Look::Entry(entry) => {
                    let entries = changed.get_or_insert_with(|| Entries::clone(&known));
                    entries.insert(id.clone(), sharing(entry, known.get(id)));
                    moved.push(id);
                }
                // What is shown is not what is there any more: who builds on it has to look again.
                Look::Incomplete if known.contains_key(id) => moved.push(id),
                Look::Absent if known.contains_key(id) => {
                    changed.get_or_insert_with(|| Entries::clone(&known)).remove(id);
                    removed = true;
                }
                Look::Incomplete | Look::Absent => (),
            }
        }
        let after = match (is_present(registers, key), changed) {
            (true, None) if before.is_some() && moved.is_empty() && !removed => return,
            (true, entries) => {
                self.version += 1;
                Some(Stored { version: self.version, entries: entries.map_or(known, Arc::new) })
            }
            (false, _) if before.is_none() => return,
            (false, _) => None,
        };
        let is_gone = after.is_none();
        if !is_gone {
            // Whoever saw an entry that is gone may have counted on it, whatever is to be changed.
            if before.is_none() || removed {
                shown.moves.begin(self.version);
            }
            shown.moves.note(moved, self.version);
        }
        shown.value.send_replace(after);
        if is_gone && shown.value.is_closed() {
            self.keys.remove(key);
        }
    }

    fn forget_unused(&mut self, key: &str) {
        let unused = |shown: &Shown| shown.value.is_closed() && shown.value.borrow().is_none();
        if self.keys.get(key).is_some_and(unused) {
            self.keys.remove(key);
        }
    }
}

/// Puts an entry together from its registers.
fn look(
    registers: &Registers,
    key: &str,
    id: &SmolStr,
    codec: &'static dyn Codec,
    heard_at: impl Fn(&Slot) -> Option<Instant>,
) -> Look {
    let (mut facets, mut seen) = (Facets::default(), None);
    for (facet, slot) in registers.facets(key, id) {
        let (Some(part), Body::Live(bytes)) = (facets.get_mut(usize::from(facet)), &slot.register().body)
        else {
            continue;
        };
        *part = Some(bytes.clone());
        if facet == HEARTBEAT_FACET {
            seen = heard_at(slot);
        }
    }
    if facets.first().is_none_or(Option::is_none) {
        return Look::Absent;
    }
    let bytes = match codec.unite(id, &facets) {
        Ok(Some(bytes)) => bytes,
        Ok(None) => return Look::Incomplete,
        // Whoever reads the key is to find out, and why.
        Err(_) => {
            let [first, ..] = facets;
            first.unwrap_or_default()
        }
    };
    let entry = EntryBytes::new(bytes);
    Look::Entry(match seen {
        Some(seen) => entry.seen_at(seen),
        None => entry,
    })
}

/// When the author of a register wrote it. The same whenever it is asked: both times count whole milliseconds.
fn heard_at(origin: Instant, now: Now, slot: &Slot) -> Option<Instant> {
    let now_ms = u64::try_from(now.mono.as_millis()).unwrap_or(u64::MAX);
    origin.checked_add(Duration::from_millis(now_ms))?.checked_sub(slot.age(now))
}

/// The same entry, with the bytes that were shown before if they are equal: so readers see at a glance that they are.
fn sharing(entry: EntryBytes, before: Option<&EntryBytes>) -> EntryBytes {
    match before {
        Some(before) if before.bytes == entry.bytes => EntryBytes { bytes: before.bytes.clone(), ..entry },
        _ => entry,
    }
}

/// Shows an absent key no longer once nobody watches it.
struct Cleanup {
    state: Weak<Mutex<State>>,
    key: Arc<str>,
}

impl Drop for Cleanup {
    fn drop(&mut self) {
        if let Some(state) = self.state.upgrade() {
            state.lock().forget_unused(&self.key);
        }
    }
}
