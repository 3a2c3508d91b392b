//! How two copies of a ring become one: newer entries win, claims on one token are settled the same way everywhere.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use ringkit_kv::EntryId;

use crate::desc::{Desc, InstanceDesc, State};
use crate::tokens::Tokens;

/// How far ahead of the receiver's clock an entry's timestamp may be, in seconds.
pub const MAX_CLOCK_SKEW_SECS: i64 = 1800;

/// What a merge did.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Merged {
    /// The entries that changed, as they are now; none if nothing changed. Entries that only lost tokens to others are
    /// not among them and keep their timestamps.
    pub change: Option<Desc>,
    /// Entries of the incoming ring that were left out; the others were merged.
    pub rejected: Vec<FutureTimestamp>,
}

/// An entry that claims to be written too far in the future. Somebody's clock is wrong: set it, and the entry is taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("ingester {id} timestamp in the future, expected max of {limit}, got {timestamp}")]
pub struct FutureTimestamp {
    /// Whose entry it is.
    pub id: EntryId,
    /// What it says, in Unix seconds.
    pub timestamp: i64,
    /// What would have been accepted.
    pub limit: i64,
}

/// Merges `incoming` into `local` at `now` (Unix seconds).
///
/// Per entry the newer timestamp wins; at the same second only LEFT replaces what is there. `local_cas` is for a ring that
/// the receiver itself changed: there, what is missing from `incoming` was deleted and becomes LEFT. `local` must come
/// from earlier merges. If tokens changed, or somebody is JOINING, each token that several claim stays with one of them:
/// not with a LEAVING instance if there is another, else with the smallest id.
///
/// Idempotent; commutative and associative for distinct timestamps while no token is claimed twice.
///
/// # Source
///
/// Cortex's `Desc.mergeWithTime`. Differs for an entry from more than [`MAX_CLOCK_SKEW_SECS`] ahead: only that entry is
/// rejected, where Cortex fails in the middle of the merge.
pub fn merge(local: &mut Desc, incoming: &Desc, local_cas: bool, now: i64) -> Merged {
    let limit = now.saturating_add(MAX_CLOCK_SKEW_SECS);
    let mut rejected = Vec::new();
    let mut updated = BTreeSet::new();
    let mut tokens_changed = false;
    for (id, entry) in incoming {
        if entry.timestamp > limit {
            rejected.push(FutureTimestamp { id: id.clone(), timestamp: entry.timestamp, limit });
            continue;
        }
        let current = local.get(id).map(Arc::as_ref);
        if !supersedes(entry, current) {
            continue;
        }
        let entry = normalized(entry);
        tokens_changed |= current.map_or(&[][..], |current| &current.tokens) != entry.tokens.as_slice();
        updated.insert(id.clone());
        local.insert(id.clone(), entry);
    }
    if local_cas {
        let gone = local.iter().filter(|(id, entry)| entry.state != State::Left && !incoming.contains(id));
        let gone: Vec<_> = gone.map(|(id, entry)| (id.clone(), tombstone(entry, now))).collect();
        for (id, entry) in gone {
            updated.insert(id.clone());
            local.insert(id, entry);
        }
    }
    if updated.is_empty() {
        return Merged { change: None, rejected };
    }
    if tokens_changed || local.iter().any(|(_, entry)| entry.state == State::Joining) {
        resolve_conflicts(local);
    }
    let changed = |id: EntryId| local.get(&id).map(Arc::clone).map(|entry| (id, entry));
    Merged { change: Some(updated.into_iter().filter_map(changed).collect()), rejected }
}

/// Whether an entry replaces the one that is there. An absent one counts as ACTIVE at time 0.
pub(crate) fn supersedes(entry: &InstanceDesc, current: Option<&InstanceDesc>) -> bool {
    let (timestamp, state) = current.map_or((0, State::Active), |current| (current.timestamp, current.state));
    entry.timestamp > timestamp
        || (entry.timestamp == timestamp && entry.state == State::Left && state != State::Left)
}

/// Without tokens if LEFT, else with sorted ones. Shares the entry if it is so already.
fn normalized(entry: &Arc<InstanceDesc>) -> Arc<InstanceDesc> {
    let tokens = if entry.state == State::Left { Tokens::empty() } else { entry.tokens.normalized() };
    if tokens == entry.tokens {
        return Arc::clone(entry);
    }
    Arc::new(InstanceDesc { tokens, ..(**entry).clone() })
}

fn tombstone(entry: &InstanceDesc, now: i64) -> Arc<InstanceDesc> {
    Arc::new(InstanceDesc { state: State::Left, timestamp: now, tokens: Tokens::empty(), ..entry.clone() })
}

/// Leaves each token that several instances claim with one of them, and returns whose tokens changed.
///
/// If there is such a token at all, every instance's list comes out sorted.
pub(crate) fn resolve_conflicts(desc: &mut Desc) -> BTreeSet<EntryId> {
    let lost = lost_tokens(desc);
    if lost.is_empty() {
        return BTreeSet::new();
    }
    let rebuilt: Vec<_> = desc
        .iter()
        .filter_map(|(id, entry)| {
            let lost = lost.get(id).map_or(&[][..], Vec::as_slice);
            let kept = entry.tokens.iter().copied().filter(|token| lost.binary_search(token).is_err());
            let tokens = if entry.state == State::Left {
                entry.tokens.clone()
            } else {
                Tokens::from_iter(kept).normalized()
            };
            (tokens != entry.tokens)
                .then(|| (id.clone(), Arc::new(InstanceDesc { tokens, ..(**entry).clone() })))
        })
        .collect();
    let changed = rebuilt.iter().map(|(id, _)| id.clone()).collect();
    for (id, entry) in rebuilt {
        desc.insert(id, entry);
    }
    changed
}

/// Tokens that an instance claims and does not keep, sorted.
fn lost_tokens(desc: &Desc) -> BTreeMap<EntryId, Vec<u32>> {
    let claimants: Vec<_> = desc.iter().filter(|(_, entry)| entry.state != State::Left).collect();
    let mut claims = Vec::with_capacity(claimants.iter().map(|(_, entry)| entry.tokens.len()).sum());
    for (index, (_, entry)) in (0u64..).zip(&claimants) {
        claims.extend(entry.tokens.iter().map(|&token| u64::from(token) << 32 | index));
    }
    claims.sort_unstable();
    claims.dedup();
    let claimant = |claim: u64| claimants[claim as u32 as usize];
    let mut lost = BTreeMap::<EntryId, Vec<u32>>::new();
    for rivals in claims.chunk_by(|a, b| a >> 32 == b >> 32).filter(|rivals| rivals.len() > 1) {
        // Claims on one token stand in the order of the ids.
        let staying = rivals.iter().copied().find(|&claim| claimant(claim).1.state != State::Leaving);
        let winner = staying.unwrap_or(rivals[0]);
        for &loser in rivals.iter().filter(|claim| **claim != winner) {
            lost.entry(claimant(loser).0.clone()).or_default().push((loser >> 32) as u32);
        }
    }
    lost
}

/// Deletes LEFT entries older than `limit` (Unix seconds), or all of them without a limit.
///
/// Returns how many LEFT entries remain and how many were deleted.
pub fn remove_tombstones(desc: &mut Desc, limit: Option<i64>) -> (usize, usize) {
    let (mut remaining, mut removed) = (0, 0);
    desc.retain(|_, entry| {
        if entry.state != State::Left {
            return true;
        }
        let keep = limit.is_some_and(|limit| entry.timestamp >= limit);
        *if keep { &mut remaining } else { &mut removed } += 1;
        keep
    });
    (remaining, removed)
}
