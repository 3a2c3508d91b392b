//! Writes: which registers a [`Change`] of entries changes. All of it happens in one turn of the member's task, so that nothing
//! comes in between what was looked at and what is written.

use bytes::Bytes;
use ringkit_gossip::driver::Access;
use ringkit_gossip::register::{Body, EntryId as Place, MAX_BODY_BYTES, MAX_ID_BYTES};
use ringkit_gossip::store::Store as Registers;
use smol_str::SmolStr;

use super::BACKEND;
use super::views::{Views, marker, relay_mark};
use crate::codec::Facets;
use crate::error::Error;
use crate::store::{Applied, Change, EntryId, Key, Precondition, Stored};

/// What is counted when a part of an entry is too large. Of what there is, only tokens can be.
const LARGE_PART: &str = "bytes of one part of an entry, such as the tokens that `num_tokens` asks for,";

/// Registers to write; `None` removes.
type Writes = Vec<(Place, Option<Bytes>)>;

/// Applies a change if `when` holds.
pub(super) fn apply(
    access: &mut Access<'_, Views>,
    key: &Key,
    change: &Change,
    when: Precondition,
) -> Result<Applied, Error> {
    let current = access.observer.open(access.node(), access.now(), key)?;
    let holds = match when {
        Precondition::None => true,
        Precondition::Version(None) | Precondition::Entries(None) => current.is_none(),
        Precondition::Version(Some(version)) | Precondition::Entries(Some(version)) => {
            access.observer.is_as_it_was(access.node().store(), &key.name, change, version)
        }
    };
    if !holds {
        access.observer.forget_unused(&key.name);
        return Ok(Applied::Conflict);
    }
    let writes = writes(access.node().store(), key, change)?;
    write(access, key, writes)?;
    let stored = access.observer.shown(&key.name).unwrap_or_else(Stored::absent);
    access.observer.forget_unused(&key.name);
    Ok(Applied::Done(stored))
}

/// Removes a key with all its entries.
pub(super) fn delete(access: &mut Access<'_, Views>, key: &Key) -> Result<(), Error> {
    let live = access.node().store().live(&key.name);
    let writes: Writes = live.map(|(place, _)| (place.clone(), None)).collect();
    write(access, key, writes)?;
    access.observer.forget_unused(&key.name);
    Ok(())
}

/// Removes a key with all its entries if it is at this version; returns whether it was.
pub(super) fn delete_at(access: &mut Access<'_, Views>, key: &Key, version: u64) -> Result<bool, Error> {
    let current = access.observer.open(access.node(), access.now(), key)?;
    let is_meant = current.is_some_and(|stored| stored.version == version);
    if is_meant {
        delete(access, key)?;
    } else {
        access.observer.forget_unused(&key.name);
    }
    Ok(is_meant)
}

fn write(access: &mut Access<'_, Views>, key: &Key, writes: Writes) -> Result<(), Error> {
    if writes.is_empty() {
        return Ok(());
    }
    access.upsert(&SmolStr::new(&key.name), writes).map_err(|reason| match reason {
        "left" => Error::Closed,
        other => Error::Refused { backend: BACKEND, reason: other.to_owned() },
    })
}

/// What is to be written so that the registers hold what `change` says. Fails before anything is written.
fn writes(registers: &Registers, key: &Key, change: &Change) -> Result<Writes, Error> {
    let too_large = |what, size, limit| Err(Error::TooLarge { key: key.name.to_string(), what, size, limit });
    if key.name.len() > MAX_ID_BYTES {
        return too_large("bytes of the key", key.name.len(), MAX_ID_BYTES);
    }
    let mut writes = Writes::new();
    for (id, entry) in &change.upserts {
        if id.len() > MAX_ID_BYTES {
            return too_large("bytes of an entry id", id.len(), MAX_ID_BYTES);
        }
        let facets = key.codec.facets(id, entry);
        let largest = facets.iter().flatten().map(Bytes::len).max().unwrap_or(0);
        if largest > MAX_BODY_BYTES {
            return too_large(LARGE_PART, largest, MAX_BODY_BYTES);
        }
        // What is not as it should be is written, also where others removed it.
        let known = writes.len();
        each_facet(id, facets, |place, bytes| {
            if live(registers, key, &place) != bytes.as_ref() {
                writes.push((place, bytes));
            }
        });
        let (mark, is_relayed) = (relay_mark(id), change.relayed.contains(id));
        let is_marked = live(registers, key, &mark).is_some();
        // Whoever brings what is there already has brought nothing.
        if is_marked != is_relayed && (is_marked || writes.len() > known) {
            writes.push((mark, is_relayed.then(Bytes::new)));
        }
    }
    for id in change.removals.iter().filter(|id| !change.upserts.contains_key(*id)) {
        each_facet(id, Facets::default(), |place, _| {
            if live(registers, key, &place).is_some() {
                writes.push((place, None));
            }
        });
        let mark = relay_mark(id);
        if live(registers, key, &mark).is_some() {
            writes.push((mark, None));
        }
    }
    let marker = marker();
    if !writes.is_empty() && live(registers, key, &marker).is_none() {
        // From the first entry on, and not only when the last one goes: several may remove one each at the same time, and what
        // they leave is empty, not absent. Only who deletes the key removes this.
        writes.insert(0, (marker, Some(Bytes::new())));
    }
    Ok(writes)
}

fn each_facet(id: &EntryId, facets: Facets, mut each: impl FnMut(Place, Option<Bytes>)) {
    for (facet, bytes) in (0..).zip(facets) {
        each(Place { id: id.clone(), facet }, bytes);
    }
}

fn live<'a>(registers: &'a Registers, key: &Key, place: &Place) -> Option<&'a Bytes> {
    match &registers.get(&key.name, place)?.register().body {
        Body::Live(bytes) => Some(bytes),
        Body::Tombstone => None,
    }
}
