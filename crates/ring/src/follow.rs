//! The next snapshot after an update of the stored ring. Pure.

use std::sync::Arc;

use ringkit_kv::EntryId;

use crate::compare::{Comparison, compare_entries};
use crate::desc::{Desc, InstanceDesc};
use crate::health::{first_seen, is_fresh};
use crate::operation::StateCode;
use crate::snapshot::{Snapshot, is_excluded};

/// A snapshot and how it came about.
pub(crate) struct Followed {
    pub(crate) snapshot: Snapshot,
    pub(crate) comparison: Comparison,
    /// Whether more changed than heartbeats of the living.
    pub(crate) notable: bool,
}

/// The snapshot of `desc` at `now` (Unix seconds), after `known`.
///
/// `heard` is what the store knows about when an owner was last heard. Where it knows nothing, an instance counts as heard
/// at its timestamp when it is first met, but not in the future; and from then on whenever its timestamp advances, at the
/// time when that is noticed. So a wrong clock of an instance neither kills it nor keeps its entry alive after it.
///
/// Costs O(n log n) for n instances, and builds the lookup tables anew only if ids, zones or tokens changed.
pub(crate) fn follow(
    known: &Snapshot,
    desc: &Desc,
    now: i64,
    heard: impl Fn(&EntryId) -> Option<i64>,
) -> Followed {
    let seen = |id: &EntryId, entry: &InstanceDesc| {
        heard(id).unwrap_or_else(|| match known.members.place_of(id) {
            Some(place) => seen_next(known, place, entry, now),
            None => first_seen(entry.timestamp, now),
        })
    };
    match known.successor(desc, seen) {
        Some(mut snapshot) => {
            let places = 0..known.members.len();
            let changes = places.map(|place| Change::between(known, &snapshot, place, now));
            let Change { comparison, notable } = changes.fold(Change::NONE, Change::and);
            snapshot.keep_shards(known, comparison);
            Followed { snapshot, comparison, notable }
        }
        None => {
            let mut snapshot = known.next(desc, seen);
            snapshot.count_shards_on_from(known);
            Followed { snapshot, comparison: Comparison::Different, notable: true }
        }
    }
}

/// As [`follow`], where only the entries of `changed` differ from those that `known` was made of.
///
/// Costs O(c log n) for c changes and n instances, whatever the number of tokens, plus a list of one pointer for every 128
/// instances, and a byte per instance where a state changes. `None` if lookup tables change.
pub(crate) fn follow_changed(
    known: &Snapshot,
    desc: &Desc,
    changed: &[EntryId],
    now: i64,
    heard: impl Fn(&EntryId) -> Option<i64>,
) -> Option<Followed> {
    let mut snapshot = known.clone();
    let mut change = Change::NONE;
    for id in changed {
        let entry = desc.get(id)?;
        let Some(place) = known.members.place_of(id) else {
            if is_excluded(entry, &known.options) {
                continue;
            }
            return None;
        };
        if entry.state != known.members[place].state() && known.topology.depends_on_states(&known.options) {
            return None;
        }
        let seen = heard(id).unwrap_or_else(|| seen_next(known, place, entry, now));
        snapshot.replace(place, known.members[place].followed_by(entry)?, seen);
        change = change.and(Change::between(known, &snapshot, place, now));
    }
    let Change { comparison, notable } = change;
    snapshot.keep_shards(known, comparison);
    Some(Followed { snapshot, comparison, notable })
}

/// `known`, where nobody is the older for the `lost` seconds before `now` (Unix seconds) in which the store took no heartbeats.
pub(crate) fn discount(known: &Snapshot, lost: i64, now: i64) -> Followed {
    let mut snapshot = known.clone();
    // Nobody counts as heard in the future.
    snapshot.seen = known.seen.iter().map(|seen| seen.saturating_add(lost).min(now.max(seen))).collect();
    let places = 0..known.members.len();
    let changes = places.map(|place| Change::between(known, &snapshot, place, now));
    let Change { comparison, notable } = changes.fold(Change::NONE, Change::and);
    snapshot.keep_shards(known, comparison);
    Followed { snapshot, comparison, notable }
}

/// When the member at `place` counts as heard, now that its entry is `entry`. Never in the future, also when the clock of
/// this process was set back.
fn seen_next(known: &Snapshot, place: usize, entry: &InstanceDesc, now: i64) -> i64 {
    if entry.timestamp > known.members[place].desc.timestamp { now } else { known.seen[place].min(now) }
}

/// What changed about one member or several.
#[derive(Clone, Copy)]
struct Change {
    comparison: Comparison,
    notable: bool,
}

impl Change {
    const NONE: Self = Self { comparison: Comparison::Equal, notable: false };

    fn and(self, other: Self) -> Self {
        Self { comparison: self.comparison.max(other.comparison), notable: self.notable | other.notable }
    }

    /// The change of the member at `place` in both snapshots.
    fn between(known: &Snapshot, next: &Snapshot, place: usize, now: i64) -> Self {
        let fresh =
            |snapshot: &Snapshot| is_fresh(snapshot.seen[place], now, known.options.heartbeat_timeout);
        let revived = fresh(next) && !fresh(known);
        let (a, b) = (&known.members[place], &next.members[place]);
        if Arc::ptr_eq(a, b) {
            return Self { comparison: Comparison::Equal, notable: revived };
        }
        let comparison = compare_entries(&a.desc, &b.desc);
        let only_timestamp = comparison <= Comparison::EqualButStatesAndTimestamps && a.state() == b.state();
        Self { comparison, notable: revived || !only_timestamp }
    }
}

impl Snapshot {
    /// Puts `member`, heard at `seen`, in the place of the one with the same id, zone and tokens.
    fn replace(&mut self, place: usize, member: Arc<crate::Instance>, seen: i64) {
        let (old, new) = (self.states[place], StateCode::from(member.state()));
        if old != new {
            Arc::make_mut(&mut self.states)[place] = new;
            if self.topology.walkable[place] {
                let zone = self.topology.zone_of[place] as usize;
                let counts = &mut Arc::make_mut(&mut self.walkable)[zone];
                counts[old.class()] -= 1;
                counts[new.class()] += 1;
            }
        }
        self.members.replace(place, member);
        self.seen.replace(place, seen);
    }
}

#[cfg(test)]
mod model;
#[cfg(test)]
mod tests;
