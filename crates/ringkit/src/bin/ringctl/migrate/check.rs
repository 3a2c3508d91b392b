//! What stands in the way of a step. Pure: from what processes told to reasons, each with the process and the ring it is about.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::Serialize;

use super::cluster::Cluster;
use super::page::{Child, Process, Store};
use crate::gossip::Gossip;

/// Why a step is refused, or not done yet.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub(super) struct Reason {
    /// `None` if it is about all of them.
    pub(super) process: Option<String>,
    /// `None` if it is about all of them.
    pub(super) ring: Option<String>,
    pub(super) why: String,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.process, &self.ring) {
            (Some(process), Some(ring)) => write!(f, "{process}, {ring}: {}", self.why),
            (Some(of), None) | (None, Some(of)) => write!(f, "{of}: {}", self.why),
            (None, None) => f.write_str(&self.why),
        }
    }
}

impl Reason {
    pub(super) fn general(why: impl Into<String>) -> Self {
        Self { process: None, ring: None, why: why.into() }
    }

    fn of(process: &Process, why: impl Into<String>) -> Self {
        Self { process: Some(process.name.clone()), ring: None, why: why.into() }
    }

    fn of_ring(process: &Process, ring: &str, why: impl Into<String>) -> Self {
        Self { ring: Some(ring.to_owned()), ..Self::of(process, why) }
    }
}

/// What a step is to come to.
#[derive(Clone, Debug)]
pub(super) struct Goal {
    pub(super) generation: u64,
    /// Of the file that was written.
    pub(super) hash: Option<String>,
    pub(super) primary: String,
    pub(super) mirror: bool,
}

impl Cluster {
    fn stores(&self) -> impl Iterator<Item = (&Process, &Store)> {
        let processes = self.processes.iter();
        processes.flat_map(|process| process.page.stores.iter().map(move |store| (process, store)))
    }

    fn gossip(&self) -> impl Iterator<Item = (&Process, &Gossip)> {
        self.processes.iter().filter_map(|process| Some((process, process.gossip.as_ref()?)))
    }

    /// The highest generation that anybody knows.
    pub(super) fn generation(&self) -> u64 {
        let files = self.processes.iter().map(|process| process.page.generation);
        let taken_over = self.stores().map(|(_, store)| store.switch.generation);
        files.chain(taken_over).max().unwrap_or(0)
    }

    /// The stores that decide now, for any ring of any process.
    pub(super) fn primaries(&self) -> BTreeSet<&str> {
        self.stores().map(|(_, store)| store.primary.as_str()).collect()
    }

    /// The stores that decide by the main configurations.
    pub(super) fn configured(&self) -> BTreeSet<&str> {
        let rings = self.processes.iter().flat_map(|process| &process.page.rings);
        rings.filter_map(|ring| ring.multi.as_ref()?.primary.as_deref()).collect()
    }

    /// Whether all rings of all processes are mirrored.
    pub(super) fn mirrors(&self) -> bool {
        self.stores().all(|(_, store)| store.mirror)
    }

    /// Whether no ring of any process is.
    pub(super) fn mirrors_nothing(&self) -> bool {
        self.stores().all(|(_, store)| !store.mirror)
    }

    /// Whether anybody still waits to do what was asked for.
    pub(super) fn waits(&self) -> bool {
        let mut switches = self.stores().map(|(_, store)| &store.switch);
        switches.any(|switch| switch.wanted_primary.is_some() || !switch.blocked.is_empty())
    }

    /// Whether anybody gave up to wait, and does nothing more until it is asked anew.
    pub(super) fn gave_up(&self) -> bool {
        self.stores().any(|(_, store)| store.switch.given_up)
    }
}

/// Why the processes, as they are configured, cannot all come to `to`.
pub(super) fn configuration(cluster: &Cluster, to: &str) -> Vec<Reason> {
    let mut reasons = followers(cluster);
    let left: BTreeSet<&str> = cluster.primaries().into_iter().filter(|store| *store != to).collect();
    for process in &cluster.processes {
        let alone = process.page.rings.iter().filter(|ring| ring.multi.is_none());
        for ring in alone.filter(|ring| left.contains(ring.store.as_str())) {
            let why = format!("is kept in {} alone, and would stay there", ring.store);
            reasons.push(Reason::of_ring(process, &ring.ring, why));
        }
    }
    for (process, store) in cluster.stores() {
        if store.primary != to && store.secondary != to {
            let why = format!("is kept in {} and {}, not in {to}", store.primary, store.secondary);
            reasons.push(Reason::of_ring(process, &store.kv_name, why));
        }
    }
    reasons.extend(odd_ones(cluster, "two stores", |store| {
        let (one, other) = store.pair();
        format!("{one} and {other}")
    }));
    reasons
}

/// Why processes would not do what their runtime configuration is made to say.
pub(super) fn followers(cluster: &Cluster) -> Vec<Reason> {
    let mut reasons = Vec::new();
    for process in &cluster.processes {
        let page = &process.page;
        if page.stores.is_empty() {
            reasons.push(Reason::of(process, "keeps no ring in two stores (`store: multi`)"));
        }
        if page.config_hash.is_none() {
            let why = "has no `runtime_config.file`, and would not hear of the migration";
            reasons.push(Reason::of(process, why));
        }
        for ring in &page.runtime.per_ring {
            let why = "has a block of its own in `per_ring`, and would not follow: remove it";
            reasons.push(Reason::of_ring(process, ring, why));
        }
    }
    reasons
}

/// Who has another runtime configuration than most.
pub(super) fn hashes(cluster: &Cluster) -> Vec<Reason> {
    let hash = |process: &Process| process.page.config_hash.clone();
    let Some(common) = most_common(cluster.processes.iter().filter_map(hash)) else { return Vec::new() };
    let odd = cluster.processes.iter().filter_map(|process| {
        let hash = hash(process).filter(|hash| *hash != common)?;
        let (hash, common) = (brief(&hash), brief(&common));
        let why = format!("runs with the runtime configuration {hash}, others with {common}");
        Some(Reason::of(process, why))
    });
    odd.collect()
}

/// Who runs with another runtime configuration than the file that is to be changed, which is called `name` here.
pub(super) fn file(cluster: &Cluster, name: &str, sha256: &str) -> Vec<Reason> {
    let odd = cluster.processes.iter().filter_map(|process| {
        let hash = process.page.config_hash.as_deref().filter(|hash| *hash != sha256)?;
        let (hash, here) = (brief(hash), brief(sha256));
        let why = format!("runs with the runtime configuration {hash}, but {name} is {here} here");
        Some(Reason::of(process, why))
    });
    odd.collect()
}

/// Who has another primary than most, ring by ring.
pub(super) fn primaries(cluster: &Cluster) -> Vec<Reason> {
    odd_ones(cluster, "primary", |store| store.primary.clone())
}

/// Which stores differ in `what` from most of the same ring.
fn odd_ones(cluster: &Cluster, what: &str, of: impl Fn(&Store) -> String) -> Vec<Reason> {
    let mut by_ring: BTreeMap<&str, Vec<(&Process, &Store)>> = BTreeMap::new();
    for (process, store) in cluster.stores() {
        by_ring.entry(store.ring()).or_default().push((process, store));
    }
    let mut reasons = Vec::new();
    for stores in by_ring.values() {
        let Some(common) = most_common(stores.iter().map(|&(_, store)| of(store))) else { continue };
        for &(process, store) in stores.iter().filter(|&&(_, store)| of(store) != common) {
            let why = format!("has {} for its {what}, others have {common}", of(store));
            reasons.push(Reason::of_ring(process, &store.kv_name, why));
        }
    }
    reasons
}

/// Which stores do not answer whom; also those to which nothing is mirrored, if they are about to be needed.
pub(super) fn outages(cluster: &Cluster, needs_all: bool) -> Vec<Reason> {
    let mut reasons = Vec::new();
    for (process, store) in cluster.stores() {
        let is_needed = |child: &Child| needs_all || store.mirror || child.name == store.primary;
        for child in store.stores.iter().filter(|child| !child.up && is_needed(child)) {
            let lasts = child.down_secs.map(|down| format!(" for {down} s")).unwrap_or_default();
            let cause = child.cause.as_deref().unwrap_or("no reason is known");
            let why = format!("{} has not answered{lasts}: {cause}", child.name);
            reasons.push(Reason::of_ring(process, &store.kv_name, why));
        }
    }
    reasons
}

/// What is amiss with gossip, if a ring is to be, or is, kept by it.
pub(super) fn gossip(cluster: &Cluster) -> Vec<Reason> {
    let mut reasons = Vec::new();
    let users: Vec<&Process> = cluster.processes.iter().filter(|process| process.is_on_gossip()).collect();
    if users.is_empty() {
        return reasons;
    }
    for process in users.into_iter().filter(|process| process.gossip.is_none()) {
        reasons.push(Reason::of(process, "does not gossip"));
    }
    let common = most_common(cluster.gossip().map(|(_, gossip)| gossip.label.clone())).unwrap_or_default();
    for (process, gossip) in cluster.gossip() {
        let mut say = |why: String| reasons.push(Reason::of(process, why));
        if gossip.label.is_empty() {
            say("has no `memberlist.cluster_label`: another cluster could join this one".to_owned());
        } else if gossip.label != common && !common.is_empty() {
            say(format!("has the cluster label `{}`, others have `{common}`", gossip.label));
        }
        if !gossip.synced {
            say(format!("has not joined its gossip cluster: it is {}", gossip.phase));
        }
        for seed in &gossip.seeds {
            let problem = match (&seed.error, seed.lost_for_secs) {
                (Some(error), _) => format!("cannot be looked up: {error}"),
                (None, Some(lost)) => format!("is nobody, for {lost} s now"),
                (None, None) if seed.addrs.is_empty() => "has no address".to_owned(),
                (None, None) => continue,
            };
            say(format!("its seed `{}` {problem}", seed.seed));
        }
        if let Some(clock) = &gossip.own_clock {
            say(format!("its clock is ahead of those of {} others, by {} ms", clock.ahead_of, clock.by_ms));
        }
        for author in gossip.quarantined.keys() {
            say(format!("refused what `{author}` wrote, whose clock is ahead"));
        }
    }
    reasons.extend(strangers(cluster));
    reasons
}

/// Who does not know whom.
fn strangers(cluster: &Cluster) -> Vec<Reason> {
    let mut reasons = Vec::new();
    for (process, gossip) in cluster.gossip() {
        let unknown = cluster.gossip().filter(|(_, other)| !gossip.sees(other));
        let unknown: BTreeSet<&str> = unknown.map(|(_, other)| other.name.as_str()).collect();
        if !unknown.is_empty() {
            let unknown: Vec<&str> = unknown.into_iter().collect();
            let why = format!("does not see as living members of gossip: {}", unknown.join(", "));
            reasons.push(Reason::of(process, why));
        }
    }
    reasons
}

/// Which rings are not mirrored, or do not have the same in both stores. Those that are at `to` already have passed.
pub(super) fn contents(cluster: &Cluster, to: Option<&str>) -> Vec<Reason> {
    let mut reasons = Vec::new();
    for (process, store) in cluster.stores() {
        let mut say = |why: String| reasons.push(Reason::of_ring(process, &store.kv_name, why));
        if !store.mirror {
            say("is not mirrored".to_owned());
            continue;
        }
        if to == Some(store.primary.as_str()) {
            continue;
        }
        if !store.switch.gate_open {
            store.switch.gate_reasons.values().for_each(|why| say(why.clone()));
        }
        for key in store.keys.iter().filter(|key| key.mismatched.num > 0) {
            let (named, names) = (&key.mismatched, key.mismatched.names());
            say(format!("{} entries of `{}` differ between the stores: {names}", named.num, key.key));
        }
    }
    reasons
}

/// Why what was asked for is not done: of each ring, what it waits for.
pub(super) fn waiting(cluster: &Cluster) -> Vec<Reason> {
    let mut reasons = Vec::new();
    for (process, store) in cluster.stores() {
        let switch = &store.switch;
        if switch.given_up {
            let why = "gave up to wait until it could switch (`switch_gate_timeout`)";
            reasons.push(Reason::of_ring(process, &store.kv_name, why));
        }
        for why in switch.blocked.values() {
            reasons.push(Reason::of_ring(process, &store.kv_name, format!("what is asked for waits: {why}")));
        }
    }
    reasons
}

/// Who has not come to a goal yet.
pub(super) fn short_of(cluster: &Cluster, goal: &Goal) -> Vec<Reason> {
    let mut reasons = Vec::new();
    for process in &cluster.processes {
        let hash = process.page.config_hash.as_deref();
        if let Some(wanted) = goal.hash.as_deref().filter(|wanted| hash != Some(*wanted)) {
            let (has, wanted) = (hash.map_or_else(|| "none".to_owned(), brief), brief(wanted));
            let why = format!("runs with the runtime configuration {has} and has not read {wanted} yet");
            reasons.push(Reason::of(process, why));
            // All else follows from that.
            continue;
        }
        for store in &process.page.stores {
            let why = store_short_of(store, goal);
            reasons.extend(why.map(|why| Reason::of_ring(process, &store.kv_name, why)));
        }
    }
    reasons
}

fn store_short_of(store: &Store, goal: &Goal) -> Option<String> {
    let waits = || {
        let why = store.switch.blocked.values().map(String::as_str).collect::<Vec<_>>().join("; ");
        if why.is_empty() { String::new() } else { format!(": {why}") }
    };
    if store.switch.generation < goal.generation {
        let (has, wanted) = (store.switch.generation, goal.generation);
        return Some(format!("has taken over generation {has} and not yet {wanted}"));
    }
    if store.primary != goal.primary {
        return Some(format!("its primary is still {}{}", store.primary, waits()));
    }
    match (store.mirror, goal.mirror) {
        (true, false) => Some(format!("is still mirrored{}", waits())),
        (false, true) => Some("is not mirrored yet".to_owned()),
        _ => None,
    }
}

/// Who sees other instances in a ring than most do.
pub(super) fn memberships(cluster: &Cluster) -> Vec<Reason> {
    let mut views: BTreeMap<&str, Vec<(&Process, BTreeSet<&str>)>> = BTreeMap::new();
    for process in &cluster.processes {
        for (ring, shards) in &process.views {
            let members = shards.iter().filter(|shard| shard.state != "LEFT");
            let ids = members.map(|shard| shard.id.as_str()).collect();
            views.entry(ring).or_default().push((process, ids));
        }
    }
    let mut reasons = Vec::new();
    for (ring, views) in &views {
        let Some(common) = most_common(views.iter().map(|(_, ids)| ids.clone())) else { continue };
        for (process, ids) in views.iter().filter(|(_, ids)| *ids != common) {
            let lacks = common.difference(ids).copied().collect::<Vec<_>>().join(", ");
            let has = ids.difference(&common).copied().collect::<Vec<_>>().join(", ");
            let lacks = if lacks.is_empty() { "nobody" } else { lacks.as_str() };
            let has = if has.is_empty() { "nobody" } else { has.as_str() };
            let why = format!("sees other instances than most: {lacks} is missing, {has} is there besides");
            reasons.push(Reason::of_ring(process, ring, why));
        }
    }
    reasons
}

/// What nobody must change, but somebody may want to know.
pub(super) fn notes(cluster: &Cluster) -> Vec<Reason> {
    let mut notes = Vec::new();
    for process in &cluster.processes {
        for ring in &process.page.rings {
            let Some(pair) = &ring.multi else { continue };
            if !pair.switch_gate {
                let why = "switches at once, whatever the other store may lack (`switch_gate: false`)";
                notes.push(Reason::of_ring(process, &ring.ring, why));
            }
            if pair.read_mode == "primary" {
                let why = "reads its primary alone while it is mirrored (`read_mode: primary`)";
                notes.push(Reason::of_ring(process, &ring.ring, why));
            }
        }
    }
    notes
}

/// What there is most of; of several, the first by their order.
fn most_common<T: Ord>(items: impl Iterator<Item = T>) -> Option<T> {
    let mut counts: BTreeMap<T, usize> = BTreeMap::new();
    items.for_each(|item| *counts.entry(item).or_default() += 1);
    counts.into_iter().rev().max_by_key(|(_, count)| *count).map(|(item, _)| item)
}

/// So much of a hash as tells it from others.
pub(super) fn brief(hash: &str) -> String {
    const SHOWN: usize = 12;
    hash.chars().take(SHOWN).collect()
}

#[cfg(test)]
mod tests;
