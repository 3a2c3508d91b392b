//! What each of two stores is to be told so that both hold the same. Pure.

use std::cmp::Ordering;

use super::delta::{Op, is_same, is_same_but_for_time};
use super::union::{Facts, side_by_side};
use crate::codec::Stamp;
use crate::entries::Entries;
use crate::store::{EntryBytes, EntryId};

/// What each store is to be told.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Pushes {
    pub(super) to_secondary: Vec<(EntryId, Op)>,
    pub(super) to_primary: Vec<(EntryId, Op)>,
    /// What the primary lacks. Somebody else may be telling it just now, so that is no hurry.
    pub(super) foreign: Vec<(EntryId, Op)>,
}

/// What each store is to be told. Heartbeats of up to `max_lag_secs` are on their way, and are left alone.
///
/// What was removed goes from both. What the secondary alone has goes to the primary only while its owner is heard.
pub(super) fn pushes(
    primary: &Entries<EntryBytes>,
    secondary: &Entries<EntryBytes>,
    max_lag_secs: u64,
    facts: &Facts<'_>,
) -> Pushes {
    let mut pushes = Pushes::default();
    side_by_side(primary, secondary, |id, own, other| {
        let own = standing(id, own, facts, &mut pushes.to_primary);
        let other = standing(id, other, facts, &mut pushes.to_secondary);
        match (own, other) {
            (Some((own, stamp)), Some((other, other_stamp))) => {
                match compare(facts, id, (own, stamp), (other, other_stamp), max_lag_secs) {
                    Ordering::Equal => (),
                    Ordering::Greater => pushes.to_secondary.push(push(id, own)),
                    Ordering::Less => pushes.to_primary.push(push(id, other)),
                }
            }
            // Who has left need not be known by whoever never knew.
            (Some((own, stamp)), None) if stamp.is_none_or(|stamp| !stamp.left) => {
                pushes.to_secondary.push(push(id, own));
            }
            (None, Some((other, stamp))) if returns(id, stamp, primary, facts) => {
                pushes.foreign.push(push(id, other));
            }
            // It went while this store was not told.
            (None, Some((_, Some(stamp)))) if facts.watched && !primary.is_empty() && !facts.is_fresh(id) => {
                pushes.to_secondary.push((id.clone(), Op::Remove { timestamp: stamp.timestamp }));
            }
            _ => (),
        }
    });
    pushes
}

/// An entry, if it is one that counts; one that was removed goes from where it is.
fn standing<'a>(
    id: &EntryId,
    entry: Option<&'a EntryBytes>,
    facts: &Facts<'_>,
    removals: &mut Vec<(EntryId, Op)>,
) -> Option<(&'a EntryBytes, Option<Stamp>)> {
    let entry = entry?;
    let stamp = facts.stamp(id, entry);
    if facts.counts(id, stamp) {
        return Some((entry, stamp));
    }
    if let Some(timestamp) = facts.marks.timestamp(id) {
        removals.push((id.clone(), Op::Remove { timestamp }));
    }
    None
}

/// Whether an entry that the primary lacks is to come back to it.
fn returns(id: &str, stamp: Option<Stamp>, primary: &Entries<EntryBytes>, facts: &Facts<'_>) -> bool {
    match stamp {
        Some(stamp) => !stamp.left && facts.is_fresh(id),
        // A value without times is lost as a whole or not at all.
        None => primary.is_empty() && !facts.deleted,
    }
}

/// Which of two entries is to replace the other; equal if none is.
fn compare(
    facts: &Facts<'_>,
    id: &str,
    own: (&EntryBytes, Option<Stamp>),
    other: (&EntryBytes, Option<Stamp>),
    max_lag_secs: u64,
) -> Ordering {
    let ((own, stamp), (other, other_stamp)) = (own, other);
    match (stamp, other_stamp) {
        (Some(stamp), Some(other_stamp)) => match stamp.timestamp.cmp(&other_stamp.timestamp) {
            Ordering::Equal if stamp.left != other_stamp.left => stamp.left.cmp(&other_stamp.left),
            Ordering::Equal if is_same(facts.codec, id, &own.bytes, &other.bytes) => Ordering::Equal,
            Ordering::Equal => Ordering::Greater,
            order => {
                let lag = stamp.timestamp.abs_diff(other_stamp.timestamp);
                let is_heartbeat = is_same_but_for_time(facts.codec, id, &own.bytes, &other.bytes);
                if is_heartbeat && lag <= max_lag_secs { Ordering::Equal } else { order }
            }
        },
        // What cannot be read gives way to what can.
        (Some(_), None) => Ordering::Greater,
        (None, Some(_)) => Ordering::Less,
        (None, None) if own.bytes == other.bytes => Ordering::Equal,
        (None, None) => Ordering::Greater,
    }
}

fn push(id: &EntryId, entry: &EntryBytes) -> (EntryId, Op) {
    (id.clone(), Op::Upsert { bytes: entry.bytes.clone(), wins_ties: true })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::multi::laws::{Model, entry};

    #[test]
    fn each_store_is_told_what_it_lacks() {
        let mut model = Model::at(1000);
        let primary = model.store(&[
            entry("beats", 1000, "x"),
            entry("changed", 999, "new"),
            entry("late", 1000, "x"),
            entry("left", 990, "L"),
            entry("newer-there", 900, "x"),
            entry("old", 10, "x"),
            entry("removed", 950, "x"),
            entry("tied", 990, "own"),
        ]);
        let secondary = model.store(&[
            entry("beats", 990, "x"),
            entry("changed", 998, "old"),
            entry("fresh", 999, "x"),
            entry("ghost", 10, "x"),
            entry("gone", 999, "L"),
            entry("late", 900, "x"),
            entry("newer-there", 1000, "x"),
            entry("removed", 949, "x"),
            entry("tied", 990, "other"),
        ]);
        model.marks.set(&"removed".into(), 950, 2000);
        let pushes = pushes(&primary, &secondary, 15, &model.facts());
        let told = |pushes: &[(EntryId, Op)]| {
            let told = pushes.iter().map(|(id, op)| match op {
                Op::Upsert { bytes, .. } => format!("{id}={}", String::from_utf8_lossy(bytes)),
                Op::Remove { timestamp } => format!("{id}-{timestamp}"),
            });
            told.collect::<Vec<_>>()
        };
        let to_secondary = ["changed=999 new", "late=1000 x", "old=10 x", "removed-950", "tied=990 own"];
        assert_eq!(told(&pushes.to_secondary), to_secondary);
        assert_eq!(told(&pushes.to_primary), ["newer-there=1000 x", "removed-950"]);
        assert_eq!(told(&pushes.foreign), ["fresh=999 x"]);

        // Who was not heard while both were watched went while the secondary was not told; a primary that lost everything tells
        // nothing of the kind.
        model.watched = true;
        let watched = super::pushes(&primary, &secondary, 15, &model.facts());
        let ghosts: Vec<String> = told(&watched.to_secondary)
            .into_iter()
            .filter(|told| !to_secondary.contains(&told.as_str()))
            .collect();
        assert_eq!(ghosts, ["ghost-10"]);
        let emptied = super::pushes(&Entries::new(), &secondary, 15, &model.facts());
        assert_eq!(told(&emptied.to_secondary), ["removed-950"]);
    }
}
