//! How two copies of a ring become one: newer entries win, claims on one token are settled the same way everywhere.

use std::collections::{BTreeMap, BTreeSet};
use std::iter::Peekable;
use std::sync::Arc;

use ringkit_kv::{EntriesIter, EntryId};

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
/// Costs O(c log n) for c incoming entries and n local ones; with new tokens one look at each token of the others, and a
/// sort of all tokens only if one is claimed twice, or if `local` does not come from earlier merges.
///
/// # Source
///
/// Cortex's `Desc.mergeWithTime`. Differs for an entry from more than [`MAX_CLOCK_SKEW_SECS`] ahead: only that entry is
/// rejected, where Cortex fails in the middle of the merge.
pub fn merge(local: &mut Desc, incoming: &Desc, local_cas: bool, now: i64) -> Merged {
    let limit = now.saturating_add(MAX_CLOCK_SKEW_SECS);
    let mut rejected = Vec::new();
    let mut updates = Vec::new();
    let mut newcomers = Vec::new();
    let mut tokens_changed = false;
    let mut known = Known::new(local, incoming.len());
    for (id, entry) in incoming {
        if entry.timestamp > limit {
            rejected.push(FutureTimestamp { id: id.clone(), timestamp: entry.timestamp, limit });
            continue;
        }
        let current = known.entry(id).map(Arc::as_ref);
        if !supersedes(entry, current) {
            continue;
        }
        let entry = normalized(entry);
        tokens_changed |= current.map_or(&[][..], |current| &current.tokens) != entry.tokens.as_slice();
        if entry.claims_beyond(current) {
            newcomers.push(Arc::clone(&entry));
        }
        updates.push((id.clone(), entry));
    }
    if local_cas {
        let mut known = Known::new(incoming, local.len());
        let present = local.iter().filter(|(_, entry)| entry.state != State::Left);
        let gone = present.filter(|(id, _)| known.entry(id).is_none());
        updates.extend(gone.map(|(id, entry)| (id.clone(), tombstone(entry, now))));
    }
    if updates.is_empty() {
        return Merged { change: None, rejected };
    }
    let was_settled = local.is_settled();
    for (id, entry) in &updates {
        local.insert(id.clone(), Arc::clone(entry));
    }
    // Of a ring without disputes only new claims can be disputed, so most often there is nothing to look for.
    if (tokens_changed || local.joining() > 0) && !local.is_settled() {
        if !was_settled || is_disputed(local, &newcomers) {
            resolve_conflicts(local);
            for (id, entry) in &mut updates {
                if let Some(current) = local.get(id) {
                    entry.clone_from(current);
                }
            }
        } else {
            local.settle();
        }
    }
    Merged { change: Some(updates.into_iter().collect()), rejected }
}

/// Finds the entries of ascending ids: one by one if they are few, else by going through all entries alongside.
enum Known<'a> {
    Few(&'a Desc),
    Many(Peekable<EntriesIter<'a, Arc<InstanceDesc>>>),
}

impl<'a> Known<'a> {
    fn new(desc: &'a Desc, sought: usize) -> Self {
        /// Up to how many steps alongside cost less than a search.
        const STEPS: usize = 8;
        if sought < desc.len() / STEPS { Self::Few(desc) } else { Self::Many(desc.iter().peekable()) }
    }

    /// The entry of `id`, which must be greater than the ids asked for before.
    fn entry(&mut self, id: &EntryId) -> Option<&'a Arc<InstanceDesc>> {
        match self {
            Self::Few(desc) => desc.get(id),
            Self::Many(entries) => {
                while entries.next_if(|(other, _)| *other < id).is_some() {}
                entries.next_if(|(other, _)| *other == id).map(|(_, entry)| entry)
            }
        }
    }
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

/// Whether somebody claims a token of `newcomers`, entries of `desc` in its order with sorted tokens, none of them LEFT.
/// That nobody else's token is claimed twice must be known.
fn is_disputed(desc: &Desc, newcomers: &[Arc<InstanceDesc>]) -> bool {
    let mut claimed: Vec<u32> = newcomers.iter().flat_map(|entry| entry.tokens.iter().copied()).collect();
    if newcomers.len() > 1 {
        claimed.sort_unstable();
        if claimed.windows(2).any(|pair| pair[0] == pair[1]) {
            return true;
        }
    }
    let near = Sieve::new(&claimed);
    let mut newcomers = newcomers.iter().peekable();
    // First who is to be looked at, then their tokens: so the memory of many is fetched at once.
    let others: Vec<&[u32]> = desc
        .iter()
        .filter(|(_, entry)| newcomers.next_if(|newcomer| Arc::ptr_eq(newcomer, entry)).is_none())
        .filter(|(_, entry)| entry.state != State::Left)
        .map(|(_, entry)| entry.tokens.as_slice())
        .collect();
    others.iter().any(|tokens| near.hits(tokens, &claimed))
}

/// Where on the circle tokens lie, one flag per part: tells nearly all others apart from them at the cost of one look.
struct Sieve {
    parts: Box<[u8]>,
    shift: u32,
}

impl Sieve {
    fn new(tokens: &[u32]) -> Self {
        // Many parts per token, and few enough for the nearest cache if there are few tokens.
        let parts = (tokens.len() * 32).next_power_of_two().clamp(1 << 14, 1 << 22);
        let mut sieve = Self { parts: vec![0; parts].into(), shift: 32 - parts.ilog2() };
        for token in tokens {
            sieve.parts[(token >> sieve.shift) as usize] = 1;
        }
        sieve
    }

    /// Whether one of `tokens` is among the ascending `claimed` that this was made of.
    fn hits(&self, tokens: &[u32], claimed: &[u32]) -> bool {
        // Eight looks, one decision: the looks do not wait for each other.
        tokens.chunks(8).any(|tokens| {
            let near = tokens.iter().fold(0, |near, token| near | self.parts[(token >> self.shift) as usize]);
            near != 0 && tokens.iter().any(|token| claimed.binary_search(token).is_ok())
        })
    }
}

/// Leaves each token that several instances claim with one of them, and returns whose tokens changed.
///
/// If there is such a token at all, every instance's list comes out sorted.
pub(crate) fn resolve_conflicts(desc: &mut Desc) -> BTreeSet<EntryId> {
    let lost = lost_tokens(desc);
    if lost.is_empty() {
        desc.settle();
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
    desc.settle();
    changed
}

/// Which of several claimants of one token keeps it, by their states in the order of their ids: the first who is not LEAVING,
/// else the first. Who has LEFT claims nothing; `None` if all have.
pub(crate) fn merge_winner(claimants: usize, state: impl Fn(usize) -> State) -> Option<usize> {
    let first = |wanted: fn(State) -> bool| (0..claimants).find(|claimant| wanted(state(*claimant)));
    first(|state| !matches!(state, State::Left | State::Leaving))
        .or_else(|| first(|state| state != State::Left))
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
        let winner = merge_winner(rivals.len(), |rival| claimant(rivals[rival]).1.state);
        let winner = winner.map_or(rivals[0], |winner| rivals[winner]);
        for &loser in rivals.iter().filter(|claim| **claim != winner) {
            lost.entry(claimant(loser).0.clone()).or_default().push((loser >> 32) as u32);
        }
    }
    lost
}

/// Deletes LEFT entries older than `limit` (Unix seconds), or all of them without a limit.
///
/// Returns how many LEFT entries remain and how many were deleted.
///
/// Costs nothing if there are none, else O(n).
pub fn remove_tombstones(desc: &mut Desc, limit: Option<i64>) -> (usize, usize) {
    if desc.left() == 0 {
        return (0, 0);
    }
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
