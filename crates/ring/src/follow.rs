//! The next snapshot after an update of the stored ring. Pure.

use ringkit_kv::EntryId;

use crate::compare::{Comparison, compare_entries};
use crate::desc::{Desc, InstanceDesc};
use crate::health::{first_seen, is_fresh};
use crate::snapshot::Snapshot;

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
pub(crate) fn follow(
    known: &Snapshot,
    desc: &Desc,
    now: i64,
    heard: impl Fn(&EntryId) -> Option<i64>,
) -> Followed {
    let seen = |before: Option<usize>, id: &EntryId, entry: &InstanceDesc| {
        heard(id).unwrap_or_else(|| match before {
            None => first_seen(entry.timestamp, now),
            Some(place) if entry.timestamp > known.members[place].desc.timestamp => {
                now.max(known.seen[place])
            }
            Some(place) => known.seen[place],
        })
    };
    let snapshot = known.successor(desc, seen).unwrap_or_else(|| {
        let seen = |id: &EntryId, entry: &InstanceDesc| seen(known.index_of(id), id, entry);
        Snapshot::build_shared(desc, seen, known.options.clone())
    });
    let (comparison, revived) = compare(known, &snapshot, now);
    let notable = revived || comparison > Comparison::Equal && !only_timestamps(known, &snapshot);
    Followed { snapshot, comparison, notable }
}

/// How much two snapshots differ, and whether somebody counted as dead before who is alive now.
fn compare(known: &Snapshot, next: &Snapshot, now: i64) -> (Comparison, bool) {
    if known.members.len() != next.members.len() {
        return (Comparison::Different, false);
    }
    let (mut comparison, mut revived) = (Comparison::Equal, false);
    let timeout = known.options.heartbeat_timeout;
    for (place, (a, b)) in known.members.iter().zip(&next.members).enumerate() {
        if a.id != b.id {
            return (Comparison::Different, false);
        }
        if !std::sync::Arc::ptr_eq(&a.desc, &b.desc) {
            comparison = comparison.max(compare_entries(&a.desc, &b.desc));
        }
        revived |= !is_fresh(known.seen[place], now, timeout) && is_fresh(next.seen[place], now, timeout);
    }
    (comparison, revived)
}

fn only_timestamps(known: &Snapshot, next: &Snapshot) -> bool {
    known.members.len() == next.members.len()
        && known.members.iter().zip(&next.members).all(|(a, b)| {
            a.id == b.id
                && a.state() == b.state()
                && compare_entries(&a.desc, &b.desc) <= Comparison::EqualButStatesAndTimestamps
        })
}
