//! Cortex's ring client over hash maps: what it keeps, how it rebuilds that, and how it looks keys up.
//!
//! Strings are leaked once, so that copying one costs two words as in Go, and token lists are shared as Go's slices are.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::collections::binary_heap::PeekMut;
use std::sync::{Arc, RwLock};

use hashbrown::{HashMap, HashSet};
use ringkit_ring::{Operation, State};

use super::rings::{FACTOR, NOW, TIMEOUT};

/// An entry, copied by value wherever Go does so.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Entry {
    pub(crate) addr: &'static str,
    pub(crate) timestamp: i64,
    pub(crate) state: State,
    pub(crate) tokens: Arc<[u32]>,
    pub(crate) zone: &'static str,
    pub(crate) registered: i64,
}

pub(crate) type Entries = HashMap<&'static str, Entry>;

/// The same ring as maps; token lists are copied, as they are when Go decodes a value.
pub(crate) fn entries(desc: &ringkit_ring::Desc) -> Entries {
    let leaked = |text: &str| &*text.to_owned().leak();
    let entry = |entry: &ringkit_ring::InstanceDesc| Entry {
        addr: leaked(&entry.addr),
        timestamp: entry.timestamp,
        state: entry.state,
        tokens: entry.tokens.as_slice().into(),
        zone: leaked(&entry.zone),
        registered: entry.registered_timestamp,
    };
    desc.iter().map(|(id, desc)| (leaked(id), entry(desc))).collect()
}

/// What a ring client derives from its entries.
#[derive(Debug, Default)]
pub(crate) struct Ring {
    pub(crate) entries: Arc<Entries>,
    pub(crate) tokens: Vec<u32>,
    pub(crate) tokens_by_zone: HashMap<&'static str, Vec<u32>>,
    pub(crate) owners: Arc<HashMap<u32, Owner>>,
    pub(crate) zones: Vec<&'static str>,
    pub(crate) id_by_addr: HashMap<&'static str, &'static str>,
    pub(crate) zone_aware: bool,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Owner {
    pub(crate) id: &'static str,
    pub(crate) zone: &'static str,
}

pub(crate) fn is_healthy(entry: &Entry, op: Operation) -> bool {
    op.accepts(entry.state) && NOW - entry.timestamp <= TIMEOUT
}

/// Ascending lists made into one by a heap of their heads.
pub(crate) fn merge_tokens(lists: &[Arc<[u32]>]) -> Vec<u32> {
    let mut all = Vec::with_capacity(lists.iter().map(|list| list.len()).sum());
    let heads = lists.iter().enumerate().filter_map(|(at, list)| Some(Reverse((*list.first()?, at, 0usize))));
    let mut heap: BinaryHeap<_> = heads.collect();
    while let Some(mut head) = heap.peek_mut() {
        let Reverse((token, list, at)) = *head;
        all.push(token);
        match lists[list].get(at + 1) {
            Some(&next) => *head = Reverse((next, list, at + 1)),
            None => drop(PeekMut::pop(head)),
        }
    }
    all
}

/// Per zone, all tokens in order.
pub(crate) fn tokens_by_zone(entries: &Entries) -> HashMap<&'static str, Vec<u32>> {
    let mut lists: HashMap<&'static str, Vec<Arc<[u32]>>> = HashMap::new();
    for entry in entries.values() {
        lists.entry(entry.zone).or_default().push(sorted(&entry.tokens));
    }
    lists.into_iter().map(|(zone, lists)| (zone, merge_tokens(&lists))).collect()
}

/// All tokens in order.
pub(crate) fn all_tokens(entries: &Entries) -> Vec<u32> {
    merge_tokens(&entries.values().map(|entry| sorted(&entry.tokens)).collect::<Vec<_>>())
}

fn sorted(tokens: &Arc<[u32]>) -> Arc<[u32]> {
    if tokens.is_sorted() {
        return Arc::clone(tokens);
    }
    let mut tokens = tokens.to_vec();
    tokens.sort_unstable();
    tokens.into()
}

pub(crate) fn search(tokens: &[u32], key: u32) -> usize {
    let at = tokens.partition_point(|token| *token <= key);
    if at < tokens.len() { at } else { 0 }
}

impl Ring {
    /// Everything derived anew, as after a change of topology.
    pub(crate) fn build(entries: Arc<Entries>, zone_aware: bool) -> Self {
        let tokens = all_tokens(&entries);
        let tokens_by_zone = tokens_by_zone(&entries);
        let mut ids: Vec<_> = entries.keys().copied().collect();
        ids.sort_unstable();
        let mut owners = HashMap::with_capacity(tokens.len());
        for id in ids {
            let entry = &entries[id];
            owners.extend(entry.tokens.iter().map(|token| (*token, Owner { id, zone: entry.zone })));
        }
        let mut zones: Vec<_> = tokens_by_zone.keys().copied().collect();
        zones.sort_unstable();
        let id_by_addr = entries.iter().map(|(id, entry)| (entry.addr, *id)).collect();
        Self { entries, tokens, tokens_by_zone, owners: owners.into(), zones, id_by_addr, zone_aware }
    }

    /// How many tokens and positions everybody owns, for the metrics.
    pub(crate) fn count_tokens(&self) -> HashMap<&'static str, (u32, u64)> {
        let mut owned: HashMap<&'static str, (u32, u64)> = HashMap::with_capacity(self.entries.len());
        let mut before = self.tokens.last().copied().unwrap_or_default();
        for &token in &self.tokens {
            let distance = if before < token {
                u64::from(token - before)
            } else {
                (1 << 32) - u64::from(before) + u64::from(token)
            };
            let (tokens, positions) = owned.entry(self.owners[&token].id).or_default();
            *tokens += 1;
            *positions += distance;
            before = token;
        }
        owned
    }

    /// The walk; results lie in `found`, which the caller brings along with `hosts`, as Go's callers do.
    pub(crate) fn get(
        &self,
        key: u32,
        op: Operation,
        hosts: &mut Vec<&'static str>,
        found: &mut Vec<Entry>,
    ) -> Option<usize> {
        hosts.clear();
        found.clear();
        let number = self.zones.len();
        let (base, mut extra, mut size) = (FACTOR / number, FACTOR % number, FACTOR);
        let mut per_zone: HashMap<&'static str, usize> = HashMap::with_capacity(number);
        let start = search(&self.tokens, key);
        let mut at = start;
        for _ in 0..self.tokens.len() {
            if hosts.len() >= size {
                break;
            }
            let Owner { id, zone } = *self.owners.get(&self.tokens[at])?;
            at = if at + 1 == self.tokens.len() { 0 } else { at + 1 };
            if hosts.contains(&id) {
                continue;
            }
            let limited = self.zone_aware && !zone.is_empty();
            let taken = if limited { per_zone.get(zone).copied().unwrap_or(0) } else { 0 };
            if limited && taken >= base + usize::from(extra > 0) {
                continue;
            }
            hosts.push(id);
            let entry = self.entries.get(id)?;
            if op.extends_on(entry.state) {
                size += 1;
            } else if limited {
                extra -= usize::from(taken > 0 && taken >= base);
                per_zone.insert(zone, taken + 1);
            }
            found.push(entry.clone());
        }
        found.retain(|entry| is_healthy(entry, op));
        let required = FACTOR.max(found.len()) / 2 + 1;
        found.len().checked_sub(required)
    }

    /// All instances for an operation, whole zones left out if one of theirs is unhealthy.
    pub(crate) fn replication_set(&self, op: Operation) -> Option<(Vec<Entry>, usize)> {
        let mut healthy = Vec::with_capacity(self.entries.len());
        let mut failing: HashSet<&'static str> = HashSet::new();
        let mut unhealthy = 0;
        for entry in self.entries.values() {
            if is_healthy(entry, op) {
                healthy.push(entry.clone());
            } else {
                failing.insert(entry.zone);
                unhealthy += 1;
            }
        }
        if !self.zone_aware {
            let required = (healthy.len() + unhealthy).max(FACTOR) - FACTOR / 2;
            let max_errors = healthy.len().checked_sub(required)?;
            return Some((healthy, max_errors));
        }
        let unavailable = (self.zones.len().min(FACTOR) / 2).checked_sub(failing.len())?;
        if !failing.is_empty() {
            let mut kept = Vec::with_capacity(healthy.len());
            kept.extend(healthy.into_iter().filter(|entry| !failing.contains(entry.zone)));
            healthy = kept;
        }
        Some((healthy, unavailable))
    }
}

/// How much two rings differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Difference {
    Equal,
    StatesAndTimestamps,
    ReadOnly,
    Topology,
}

/// Every entry against its counterpart, tokens and all.
pub(crate) fn compare(a: &Entries, b: &Entries) -> Difference {
    if a.len() != b.len() {
        return Difference::Topology;
    }
    let mut result = Difference::Equal;
    for (id, a) in a {
        let Some(b) = b.get(id) else { return Difference::Topology };
        // Slice by slice: who compares `Arc`s of slices may be spared the work, Go is not.
        let same = a.addr == b.addr
            && a.zone == b.zone
            && a.registered == b.registered
            && a.tokens.len() == b.tokens.len()
            && a.tokens.iter().eq(b.tokens.iter());
        if !same {
            return Difference::Topology;
        }
        if a.state != b.state && (a.state == State::ReadOnly || b.state == State::ReadOnly) {
            result = result.max(Difference::ReadOnly);
        } else if a.state != b.state || a.timestamp != b.timestamp {
            result = result.max(Difference::StatesAndTimestamps);
        }
    }
    result
}

/// A client: its ring behind a lock.
#[derive(Debug, Default)]
pub(crate) struct Client {
    pub(crate) ring: RwLock<Ring>,
    zone_aware: bool,
}

impl Client {
    pub(crate) fn new(entries: Arc<Entries>, zone_aware: bool) -> Self {
        Self { ring: RwLock::new(Ring::build(entries, zone_aware)), zone_aware }
    }

    /// A new value arrives.
    pub(crate) fn update(&self, entries: Arc<Entries>) -> Difference {
        let known = Arc::clone(&self.ring.read().unwrap().entries);
        let difference = compare(&known, &entries);
        if difference < Difference::Topology {
            self.ring.write().unwrap().entries = entries;
            return difference;
        }
        let built = Ring::build(entries, self.zone_aware);
        let mut ring = self.ring.write().unwrap();
        *ring = built;
        std::hint::black_box(ring.count_tokens());
        difference
    }
}
