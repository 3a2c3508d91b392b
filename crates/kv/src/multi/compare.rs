//! How two stores differ. Pure.

use std::collections::BTreeSet;

use super::delta::is_same;
use super::place::{Both, Place};
use super::union::{Facts, side_by_side};
use crate::entries::Entries;
use crate::store::{EntryBytes, EntryId};

/// How many entries of a kind are named.
pub(super) const MAX_NAMED: usize = 20;

/// Entries of a kind: how many there are, and the first of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Listed {
    pub(super) num: usize,
    pub(super) ids: Vec<EntryId>,
}

/// How what two stores hold differs. What was removed, and is merely still there, does not count.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Comparison {
    /// How many entries each holds.
    pub(super) entries: Both<usize>,
    /// Entries of living owners that the other one has and this one has not.
    pub(super) missing: Both<Listed>,
    /// Entries of living owners that are there only because others than their owners put them there.
    pub(super) relayed: Both<Listed>,
    /// Entries of owners that were not heard for long, which only this one has: what is left of instances that went while it was
    /// not told.
    pub(super) ghosts: Both<Listed>,
    /// Entries that were written at the same time and say something else.
    pub(super) mismatched: Listed,
    /// Entries that only the secondary has, whether their owners live or not.
    pub(super) foreign: Listed,
    /// The largest difference between the times of a living owner's entries, in seconds.
    pub(super) skew_secs: u64,
}

impl Listed {
    fn add(&mut self, id: &EntryId) {
        self.num += 1;
        if self.ids.len() < MAX_NAMED {
            self.ids.push(id.clone());
        }
    }

    /// For a sentence: some of the ids.
    pub(super) fn names(&self) -> String {
        const MAX_SAID: usize = 5;
        let mut names: Vec<&str> = self.ids.iter().take(MAX_SAID).map(EntryId::as_str).collect();
        if self.num > names.len() {
            names.push("…");
        }
        names.join(", ")
    }
}

/// Compares what both hold. `relayed` are entries that others than their owners wrote to a store.
pub(super) fn compare(
    held: &Both<Option<&Entries<EntryBytes>>>,
    primary: Place,
    relayed: &Both<&BTreeSet<EntryId>>,
    facts: &Facts<'_>,
) -> Comparison {
    let nothing = Entries::new();
    let [first, second] = Place::BOTH.map(|place| held[place].unwrap_or(&nothing));
    let mut found = Comparison::default();
    side_by_side(first, second, |id, one, other| {
        let entries = Both::of(|place| match place {
            Place::First => one,
            Place::Second => other,
        });
        compare_entry(&mut found, id, &entries, primary, relayed, facts);
    });
    found
}

fn compare_entry(
    found: &mut Comparison,
    id: &EntryId,
    entries: &Both<Option<&EntryBytes>>,
    primary: Place,
    relayed: &Both<&BTreeSet<EntryId>>,
    facts: &Facts<'_>,
) {
    let stamps = Both::of(|place| entries[place].and_then(|entry| facts.stamp(id, entry)));
    let counts = Both::of(|place| entries[place].is_some() && facts.counts(id, stamps[place]));
    let newest = stamps.iter().flatten().max_by_key(|stamp| stamp.timestamp);
    let lives = newest.is_none_or(|newest| !newest.left && facts.is_fresh(id));
    for place in Place::BOTH {
        if !counts[place] {
            continue;
        }
        found.entries[place] += 1;
        if lives && newest.is_some() && relayed[place].contains(id) {
            found.relayed[place].add(id);
        }
        if counts[place.other()] {
            continue;
        }
        if lives {
            found.missing[place.other()].add(id);
        } else if stamps[place].is_some_and(|stamp| !stamp.left) {
            found.ghosts[place].add(id);
        }
        if place != primary {
            found.foreign.add(id);
        }
    }
    let (Some(one), Some(other)) = (entries[Place::First], entries[Place::Second]) else { return };
    if !counts[Place::First] || !counts[Place::Second] {
        return;
    }
    let skew = match (stamps[Place::First], stamps[Place::Second]) {
        (Some(one), Some(other)) => one.timestamp.abs_diff(other.timestamp),
        _ => 0,
    };
    if lives {
        found.skew_secs = found.skew_secs.max(skew);
    }
    if skew == 0 && !is_same(facts.codec, id, &one.bytes, &other.bytes) {
        found.mismatched.add(id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::multi::laws::{Model, entry};

    #[test]
    fn what_differs_is_told_apart() {
        let mut model = Model::at(1000);
        // Old ones, living ones, one that left, one that was removed.
        let first = model.store(&[
            entry("both", 1000, "x"),
            entry("old", 10, "x"),
            entry("tied", 990, "x"),
            entry("only", 999, "x"),
            entry("gone", 10, "x"),
        ]);
        let second = model.store(&[
            entry("both", 980, "x"),
            entry("old", 900, "x"),
            entry("tied", 990, "y"),
            entry("foreign", 999, "x"),
            entry("ghost", 10, "x"),
            entry("left", 999, "L"),
            entry("removed", 950, "x"),
        ]);
        model.marks.set(&"removed".into(), 950, 2000);
        let held = Both::of(|place| Some(if place == Place::First { &first } else { &second }));
        let relayed = Both::of(|place| match place {
            Place::First => BTreeSet::new(),
            Place::Second => ["both", "ghost"].map(EntryId::from).into(),
        });
        let found = compare(&held, Place::First, &Both::of(|place| &relayed[place]), &model.facts());
        let ids = |listed: &Listed| listed.ids.join(" ");
        assert_eq!((found.entries[Place::First], found.entries[Place::Second]), (5, 6));
        assert_eq!(ids(&found.missing[Place::Second]), "only");
        assert_eq!(ids(&found.missing[Place::First]), "foreign");
        assert_eq!(ids(&found.foreign), "foreign ghost left");
        assert_eq!(ids(&found.mismatched), "tied");
        assert_eq!(ids(&found.relayed[Place::Second]), "both");
        assert_eq!(found.skew_secs, 20);
        // The other way round it is the other one's entries that are foreign.
        let found = compare(&held, Place::Second, &Both::of(|place| &relayed[place]), &model.facts());
        assert_eq!(ids(&found.foreign), "gone only");
    }

    #[test]
    fn only_some_are_named() {
        let mut listed = Listed::default();
        (0..100).for_each(|number| listed.add(&format!("i{number}").into()));
        assert_eq!((listed.num, listed.ids.len()), (100, MAX_NAMED));
        assert_eq!(listed.names(), "i0, i1, i2, i3, i4, …");
    }
}
