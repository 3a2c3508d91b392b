//! What the members ought to agree on: of each place the register that supersedes all that were ever written there.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use smol_str::SmolStr;

use crate::register::{EntryId, Register};
use crate::store::{HEARTBEAT_FACET, Slot, Store};

type Place = (SmolStr, EntryId);

#[derive(Debug)]
struct Known {
    register: Register,
    /// Whether somebody must still have it: an author may die with what it told nobody.
    certain: bool,
}

/// What was written.
#[derive(Debug, Default)]
pub(super) struct Model {
    places: BTreeMap<Place, Known>,
    /// Written by a clock so far ahead that the others refuse it: who has what there depends on when they may take it.
    spoiled: BTreeSet<Place>,
}

impl Model {
    /// An author stored this.
    pub(super) fn wrote(&mut self, key: &str, entry: &EntryId, register: &Register, is_ahead: bool) {
        // What members tell of themselves is theirs to rewrite and to forget.
        if key.starts_with('_') {
            return;
        }
        let place = (SmolStr::new(key), entry.clone());
        if is_ahead {
            self.spoiled.insert(place);
            return;
        }
        match self.places.get_mut(&place) {
            Some(known) if register.supersedes(&known.register) => {
                *known = Known { register: register.clone(), certain: true };
            }
            Some(_) => {}
            None => {
                self.places.insert(place, Known { register: register.clone(), certain: true });
            }
        }
    }

    /// Only these stores are left: what none of them has may be lost for ever, or still be under way.
    pub(super) fn doubt(&mut self, stores: &[&Store]) {
        for ((key, entry), known) in &mut self.places {
            let order = known.register.order();
            let held = stores
                .iter()
                .any(|store| store.get(key, entry).is_some_and(|slot| slot.register().order() >= order));
            known.certain &= held;
        }
    }

    /// Whether a member has all that it should, and nothing that was removed.
    pub(super) fn check(&self, store: &Store, wall_ms: u64, horizon: Duration) -> Result<(), String> {
        for (place, known) in &self.places {
            if known.certain && !self.spoiled.contains(place) {
                check_place(place, &known.register, store, wall_ms, horizon)?;
            }
        }
        Ok(())
    }
}

fn check_place(
    (key, entry): &Place,
    written: &Register,
    store: &Store,
    wall_ms: u64,
    horizon: Duration,
) -> Result<(), String> {
    let what = format!("`{key}` `{}` {}", entry.id, entry.facet);
    let Some(held) = store.get(key, entry).map(Slot::register) else {
        let age = Duration::from_millis(wall_ms.saturating_sub(written.version.hlc.ms()));
        // Tombstones are forgotten some day, and clocks differ a little about when.
        if written.is_tombstone() && age.saturating_add(Duration::from_secs(1)) >= horizon {
            return Ok(());
        }
        return Err(format!("{what} is lost: nothing instead of {written:?}"));
    };
    // Which heartbeat a member has is a matter of chance: that it has one is not.
    let any_will_do = entry.facet == HEARTBEAT_FACET && !written.is_tombstone() && !held.is_tombstone();
    if any_will_do {
        return Ok(());
    }
    if held.order() < written.order() {
        let verb = if written.is_tombstone() { "came back" } else { "is out of date" };
        return Err(format!("{what} {verb}: {held:?} instead of {written:?}"));
    }
    // Later than all that was asked for is what its author stamped again, which changes no body.
    if held.body != written.body {
        return Err(format!("{what} was written by nobody: {held:?} instead of {written:?}"));
    }
    Ok(())
}
