//! What becomes of a change of entries in a store that may hold newer ones. Pure.

use std::cmp::Ordering;

use bytes::Bytes;

use super::marks::Marks;
use super::queue::Batch;
use crate::codec::Codec;
use crate::entries::Entries;
use crate::store::{Change, EntryBytes, EntryId};

/// What is to happen to one entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Op {
    /// It is to be this, unless what is there is newer. At the same time the first to come stays, unless this one `wins_ties`.
    Upsert { bytes: Bytes, wins_ties: bool },
    /// It is to go, unless its owner wrote it after this time.
    Remove { timestamp: i64 },
}

/// What a change means to what is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It is to be written.
    Applied,
    /// It is so already.
    Noop,
    /// What is there is newer.
    Stale,
}

/// What `op` means to the entry that is there.
pub(super) fn judge(codec: &dyn Codec, id: &str, op: &Op, current: Option<&EntryBytes>) -> Verdict {
    match (op, current) {
        (Op::Upsert { .. }, None) => Verdict::Applied,
        (Op::Upsert { bytes, .. }, Some(current)) if current.bytes == *bytes => Verdict::Noop,
        (Op::Upsert { bytes, wins_ties }, Some(current)) => {
            let stamps = (codec.stamp(id, bytes), codec.stamp(id, &current.bytes));
            // Without a time, the later write wins.
            let (Some(new), Some(old)) = stamps else { return Verdict::Applied };
            match new.timestamp.cmp(&old.timestamp) {
                Ordering::Greater => Verdict::Applied,
                Ordering::Less => Verdict::Stale,
                Ordering::Equal if new.left != old.left => {
                    if new.left {
                        Verdict::Applied
                    } else {
                        Verdict::Stale
                    }
                }
                Ordering::Equal if is_same(codec, id, bytes, &current.bytes) => Verdict::Noop,
                Ordering::Equal if *wins_ties => Verdict::Applied,
                Ordering::Equal => Verdict::Stale,
            }
        }
        (Op::Remove { .. }, None) => Verdict::Noop,
        (Op::Remove { timestamp }, Some(current)) => match codec.stamp(id, &current.bytes) {
            Some(stamp) if stamp.timestamp > *timestamp => Verdict::Stale,
            _ => Verdict::Applied,
        },
    }
}

/// Whether two entries say the same, though perhaps in other bytes.
pub(super) fn is_same(codec: &dyn Codec, id: &str, one: &Bytes, other: &Bytes) -> bool {
    one == other || codec.facets(id, one) == codec.facets(id, other)
}

/// What of a change is as it was to be, going by what is held of each entry. What somebody else wrote over since is theirs to tell.
pub(super) fn landed(codec: &dyn Codec, change: &Change, held: impl Fn(&str) -> Option<Bytes>) -> Change {
    let mut landed = change.clone();
    landed.upserts.retain(|id, bytes| held(id).is_some_and(|is| is_same(codec, id, &is, bytes)));
    landed.removals.retain(|id| !change.upserts.contains_key(id) && held(id).is_none());
    landed
}

/// Whether two entries say the same but for the time at which they were written.
pub(super) fn is_same_but_for_time(codec: &dyn Codec, id: &str, one: &Bytes, other: &Bytes) -> bool {
    if one == other {
        return true;
    }
    let ([one_first, one_second, one_time], [first, second, time]) =
        (codec.facets(id, one), codec.facets(id, other));
    one_first == first && one_second == second && one_time.is_some() == time.is_some()
}

/// What a batch does to a store.
#[derive(Clone, Debug, Default)]
pub(super) struct Plan {
    /// The key is to be removed. Whatever else is in the batch comes after that.
    pub(super) deletes: bool,
    /// What is to be written.
    pub(super) change: Change,
    /// What becomes of each item.
    pub(super) verdicts: Vec<Verdict>,
}

/// What `batch` does to a store that holds `current`; `None` = the key is absent. Entries for which `is_own` are this process's
/// to write; it only relays the others.
pub(super) fn plan(
    codec: &dyn Codec,
    batch: &Batch,
    current: Option<&Entries<EntryBytes>>,
    marks: &Marks,
    is_own: &dyn Fn(&str) -> bool,
) -> Plan {
    let mut plan = Plan::default();
    if let Some(deletion) = &batch.deletion {
        let is_meant = |(id, entry): &(&EntryId, &EntryBytes)| deletion.removes(codec, id, entry);
        let meant: Vec<EntryId> =
            current.into_iter().flatten().filter(is_meant).map(|(id, _)| id.clone()).collect();
        plan.deletes = current.is_some_and(|current| current.len() == meant.len());
        if plan.deletes {
            return plan;
        }
        // Others have written since: their entries stay.
        plan.change.removals.extend(meant);
    }
    for (id, item) in &batch.items {
        let there = current.and_then(|current| current.get(id));
        let there = there.filter(|_| !plan.change.removals.contains(id));
        let verdict = match &item.op {
            Op::Upsert { bytes, .. } if is_hidden(codec, id, bytes, marks) => Verdict::Stale,
            op => judge(codec, id, op, there),
        };
        plan.verdicts.push(verdict);
        match &item.op {
            _ if verdict != Verdict::Applied => (),
            Op::Upsert { bytes, .. } => {
                plan.change.upserts.insert(id.clone(), bytes.clone());
                if !is_own(id) {
                    plan.change.relayed.insert(id.clone());
                }
            }
            Op::Remove { .. } => {
                plan.change.removals.insert(id.clone());
            }
        }
    }
    plan
}

fn is_hidden(codec: &dyn Codec, id: &str, bytes: &Bytes, marks: &Marks) -> bool {
    // Most often nothing is marked, and the entry need not be read.
    marks.timestamp(id).is_some()
        && codec.stamp(id, bytes).is_some_and(|stamp| marks.hide(id, stamp.timestamp))
}
