//! [`Peers`]: the other members as this one sees them, and the choice of those to talk to.
//!
//! Kept up from what the membership engine reports, because that one scans its whole list for every question. To add, remove
//! and choose costs the same however many members there are. Equal reports and equal random numbers lead to equal choices.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;

use rand::RngExt as _;
use rand::rngs::SmallRng;
use rand::seq::index::sample;
use smol_str::SmolStr;

use crate::id::NodeId;

/// Most zones that [`Peers::first_targets_of_other_zones`] chooses from, so that members who each call themselves a zone do not
/// make one message many. The others hear of it from ticks and anti-entropy.
pub const MAX_FIRST_ZONES: usize = 32;

/// How many members there may be, and how often one talks to those far away.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Most members in the table, dead ones included.
    pub max_members: usize,
    /// Of a hundred ticks, how many go to another zone.
    pub cross_zone_ticks_percent: u32,
    /// Of a hundred rounds of anti-entropy, how many go to another zone.
    pub cross_zone_syncs_percent: u32,
}

impl Default for Config {
    fn default() -> Self {
        Self { max_members: 20_000, cross_zone_ticks_percent: 5, cross_zone_syncs_percent: 20 }
    }
}

/// Another member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Its latest life that is known.
    pub id: NodeId,
    /// Where it runs, if it has said so.
    pub zone: Option<SmolStr>,
    /// Whether it is believed to live. One that is only suspected is.
    pub alive: bool,
}

/// What an [`update`](Peers::update) changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Updated {
    /// The member was not in the table.
    Added,
    /// Something about it is new.
    Changed,
    /// All of it was known.
    Same,
    /// A [later](Peers::update) life of it is known: nothing changed.
    Stale,
    /// It is this member itself, which is not in its own table.
    Own,
    /// The table is full of members that live.
    Refused,
}

/// A peer, and where in the lists it is.
#[derive(Clone, Debug)]
struct Seat {
    peer: Peer,
    /// In `live` or `dead`.
    at: usize,
    /// In the list of its zone, while it lives.
    at_in_zone: usize,
}

#[derive(Clone, Debug)]
struct Zone {
    name: Option<SmolStr>,
    /// Names of its live members. Never empty.
    live: Vec<u64>,
}

/// The other members, live and dead.
///
/// With more than one zone, what is relayed stays within a zone, and few messages go between zones. A zone is what members say
/// it is; those that have said nothing are as one more zone, but alone they make nobody aware of zones.
#[derive(Clone, Debug)]
pub struct Peers {
    config: Config,
    own_name: u64,
    own_zone: Option<SmolStr>,
    /// By name. The maps are never iterated over, as their order is another in each process; their keys come from the network,
    /// so the hashes must be ones that nobody can predict.
    seats: HashMap<u64, Seat>,
    /// The live members that were said to listen at an address, the last one last; never none. Usually it is one, but a name
    /// that is said to be where another one is must not make a stranger of that one for longer than it lives itself.
    by_addr: HashMap<SocketAddr, Vec<u64>>,
    live: Vec<u64>,
    dead: Vec<u64>,
    /// Those with live members.
    zones: Vec<Zone>,
    /// Where in `zones` a zone is.
    zone_places: HashMap<Option<SmolStr>, usize>,
    refused: u64,
}

impl Peers {
    /// An empty table of the member with this name, by its hash, and zone.
    pub fn new(own_name: u64, own_zone: Option<SmolStr>, config: Config) -> Self {
        Self {
            config,
            own_name,
            own_zone: said(own_zone),
            seats: HashMap::new(),
            by_addr: HashMap::new(),
            live: Vec::new(),
            dead: Vec::new(),
            zones: Vec::new(),
            zone_places: HashMap::new(),
            refused: 0,
        }
    }

    /// Adds a member or what is new about it. A member that is dead stays in the table until it is [removed](Self::remove), or
    /// until a live one needs its place. An empty zone is none.
    ///
    /// Of two lives the one with the larger generation is later, then the one with the larger address: the membership engine
    /// says so as well, and goes on to talk of that one only.
    pub fn update(&mut self, id: NodeId, zone: Option<SmolStr>, alive: bool) -> Updated {
        if id.name == self.own_name {
            return Updated::Own;
        }
        let peer = Peer { id, zone: said(zone), alive };
        let Some(seat) = self.seats.get(&id.name) else {
            let is_full = self.seats.len() >= self.config.max_members;
            let has_room = !is_full || (alive && self.forget_a_dead_one());
            if !has_room {
                self.refused += 1;
                return Updated::Refused;
            }
            self.put(peer);
            return Updated::Added;
        };
        let known = &seat.peer.id;
        if is_later(known, &id) {
            return Updated::Stale;
        }
        if seat.peer == peer {
            return Updated::Same;
        }
        self.take(id.name);
        self.put(peer);
        Updated::Changed
    }

    /// A later life of a known member took the place of the one before: it lives or not as that one did, in the same zone until
    /// it says otherwise. False if the member is not known, or not in an earlier life.
    pub fn rename(&mut self, id: NodeId) -> bool {
        match self.get(id.name) {
            Some(peer) if is_later(&id, &peer.id) => {
                let (zone, alive) = (peer.zone.clone(), peer.alive);
                self.update(id, zone, alive) == Updated::Changed
            }
            _ => false,
        }
    }

    /// What a member says about its zone. False if that was known, or the member is not.
    pub fn set_zone(&mut self, name: u64, zone: Option<SmolStr>) -> bool {
        let Some(peer) = self.get(name) else { return false };
        let (id, alive) = (peer.id, peer.alive);
        self.update(id, zone, alive) == Updated::Changed
    }

    /// Where this member runs itself.
    pub fn set_own_zone(&mut self, zone: Option<SmolStr>) {
        self.own_zone = said(zone);
    }

    /// Forgets a member, unless a later life of it is known.
    pub fn remove(&mut self, id: NodeId) -> Option<Peer> {
        let known = self.get(id.name)?.id;
        if is_later(&known, &id) { None } else { self.take(id.name) }
    }

    /// The member with this name, live or dead.
    pub fn get(&self, name: u64) -> Option<&Peer> {
        self.seats.get(&name).map(|seat| &seat.peer)
    }

    /// The live member that was last said to listen at this address.
    pub fn by_addr(&self, addr: SocketAddr) -> Option<&Peer> {
        self.get(*self.by_addr.get(&addr)?.last()?)
    }

    /// Whether the member with this name lives.
    pub fn is_live(&self, name: u64) -> bool {
        self.get(name).is_some_and(|peer| peer.alive)
    }

    /// How many members live, beside this one.
    pub fn len(&self) -> usize {
        self.live.len()
    }

    /// Whether this member is alone.
    pub fn is_empty(&self) -> bool {
        self.live.is_empty()
    }

    /// How many members are known to be dead.
    pub fn num_dead(&self) -> usize {
        self.dead.len()
    }

    /// How many updates were refused because the table was full.
    pub fn num_refused(&self) -> u64 {
        self.refused
    }

    /// The members that live, in no useful order, but the same wherever the same was reported.
    pub fn live(&self) -> impl Iterator<Item = &Peer> {
        self.live.iter().filter_map(|name| self.get(*name))
    }

    /// How many members live in each zone, beside this one.
    pub fn count_by_zone(&self) -> BTreeMap<Option<SmolStr>, usize> {
        self.zones.iter().map(|zone| (zone.name.clone(), zone.live.len())).collect()
    }

    /// Where this member runs, if it has said so.
    pub fn own_zone(&self) -> Option<&SmolStr> {
        self.own_zone.as_ref()
    }

    /// Whether zones matter to the choices: somebody lives in another one than this member, which may have none.
    pub fn is_zone_aware(&self) -> bool {
        // Looks at three zones at most, and without hashing their names: it is asked whenever something comes in.
        let is_other = |zone: &Zone| zone.name.is_some() && zone.name != self.own_zone;
        self.zones.iter().any(is_other)
    }

    /// Whether what is relayed goes to the member at this address: it is in the own zone, or in none that is known of.
    pub fn is_near(&self, addr: SocketAddr) -> bool {
        let stays = self.is_zone_aware() && self.own_zone_place().is_some();
        !stays || self.by_addr(addr).is_none_or(|peer| peer.zone == self.own_zone)
    }

    /// Whom to tell what is new: `k` live members, or as many as there are, without those named in `exclude`. With zones, of
    /// the own zone; a member that is alone in its zone tells anybody, as otherwise it would tell nobody.
    ///
    /// Costs O((k + e)²) for e names in `exclude`, which is less than it sounds for the few there should be.
    pub fn gossip_targets(&self, random: &mut SmallRng, k: usize, exclude: &[u64]) -> Vec<NodeId> {
        self.pick(random, self.near(), k, exclude)
    }

    /// As [`gossip_targets`](Self::gossip_targets), for a tick: with zones, some of the ticks go to another zone, so that what
    /// the author's first messages did not carry there need not wait for anti-entropy.
    pub fn tick_targets(&self, random: &mut SmallRng, k: usize, exclude: &[u64]) -> Vec<NodeId> {
        let list = self.near_or_far(random, self.config.cross_zone_ticks_percent);
        self.pick(random, list, k, exclude)
    }

    /// Whom an author tells first beside its own zone: `per_zone` members of each other zone, of at most [`MAX_FIRST_ZONES`].
    /// None without zones, when all are reached alike.
    pub fn first_targets_of_other_zones(&self, random: &mut SmallRng, per_zone: usize) -> Vec<NodeId> {
        if !self.is_zone_aware() {
            return Vec::new();
        }
        let own = self.own_zone_place();
        let others = self.zones.len() - usize::from(own.is_some());
        let mut targets = Vec::new();
        for drawn in sample(random, others, others.min(MAX_FIRST_ZONES)) {
            let live = &self.zones[beside(own, drawn)].live;
            targets.extend(self.pick(random, live, per_zone, &[]));
        }
        targets
    }

    /// With whom to compare stores: one live member that is not named in `exclude`. With zones, of the own zone, or in some of
    /// the rounds of another; where there is nobody to choose, of any.
    pub fn sync_target(&self, random: &mut SmallRng, exclude: &[u64]) -> Option<NodeId> {
        let list = self.near_or_far(random, self.config.cross_zone_syncs_percent);
        let target = self.pick(random, list, 1, exclude).pop();
        target.or_else(|| self.pick(random, &self.live, 1, exclude).pop())
    }

    /// The live members of the own zone, or all if that says nothing.
    fn near(&self) -> &[u64] {
        match self.own_zone_place() {
            Some(place) if self.is_zone_aware() => &self.zones[place].live,
            _ => &self.live,
        }
    }

    /// With zones, in `percent` of the cases the live members of another zone, each being as likely.
    fn near_or_far(&self, random: &mut SmallRng, percent: u32) -> &[u64] {
        if !self.is_zone_aware() || random.random_range(0..100) >= percent {
            return self.near();
        }
        let own = self.own_zone_place();
        let others = self.zones.len() - usize::from(own.is_some());
        &self.zones[beside(own, random.random_range(0..others))].live
    }

    /// `k` distinct ones of a list of names, each as likely as any other, without those named in `exclude`.
    fn pick(&self, random: &mut SmallRng, list: &[u64], k: usize, exclude: &[u64]) -> Vec<NodeId> {
        // Enough of them are drawn, in random order, that k are left when all that are excluded were among them.
        let drawn = list.len().min(k.saturating_add(exclude.len()));
        sample(random, list.len(), drawn)
            .into_iter()
            .map(|place| list[place])
            .filter(|name| !exclude.contains(name))
            .filter_map(|name| self.get(name))
            .map(|peer| peer.id)
            .take(k)
            .collect()
    }

    /// Where in `zones` the own zone is, if other live members are in it.
    fn own_zone_place(&self) -> Option<usize> {
        self.zone_places.get(&self.own_zone).copied()
    }

    fn forget_a_dead_one(&mut self) -> bool {
        let Some(name) = self.dead.first().copied() else { return false };
        self.take(name).is_some()
    }

    /// Enters a peer that has no seat.
    fn put(&mut self, peer: Peer) {
        let name = peer.id.name;
        let (at, at_in_zone) = if peer.alive {
            self.by_addr.entry(peer.id.addr).or_default().push(name);
            let zone = self.enter_zone(&peer.zone);
            (push(&mut self.live, name), push(&mut self.zones[zone].live, name))
        } else {
            (push(&mut self.dead, name), 0)
        };
        self.seats.insert(name, Seat { peer, at, at_in_zone });
    }

    /// Takes a peer out of everything.
    fn take(&mut self, name: u64) -> Option<Peer> {
        let Seat { peer, at, at_in_zone } = self.seats.remove(&name)?;
        let list = if peer.alive { &mut self.live } else { &mut self.dead };
        list.swap_remove(at);
        // The last one is now where this one was.
        if let Some(moved) = list.get(at)
            && let Some(moved) = self.seats.get_mut(moved)
        {
            moved.at = at;
        }
        if peer.alive {
            self.leave_zone(&peer.zone, at_in_zone);
            if let Entry::Occupied(mut names) = self.by_addr.entry(peer.id.addr) {
                names.get_mut().retain(|other| *other != name);
                if names.get().is_empty() {
                    names.remove();
                }
            }
        }
        Some(peer)
    }

    fn enter_zone(&mut self, name: &Option<SmolStr>) -> usize {
        if let Some(place) = self.zone_places.get(name) {
            return *place;
        }
        let place = self.zones.len();
        self.zones.push(Zone { name: name.clone(), live: Vec::new() });
        self.zone_places.insert(name.clone(), place);
        place
    }

    fn leave_zone(&mut self, name: &Option<SmolStr>, at: usize) {
        let Some(place) = self.zone_places.get(name).copied() else { return };
        let live = &mut self.zones[place].live;
        live.swap_remove(at);
        if let Some(moved) = live.get(at)
            && let Some(moved) = self.seats.get_mut(moved)
        {
            moved.at_in_zone = at;
        }
        // Zones without members are not kept: their names come from the network, and nobody counts them.
        if live.is_empty() {
            self.zone_places.remove(name);
            self.zones.swap_remove(place);
            if let Some(moved) = self.zones.get(place) {
                self.zone_places.insert(moved.name.clone(), place);
            }
        }
    }
}

/// Whether one life of a member is later than another one of it.
fn is_later(life: &NodeId, other: &NodeId) -> bool {
    (life.generation, life.addr) > (other.generation, other.addr)
}

/// A zone that was said in earnest.
fn said(zone: Option<SmolStr>) -> Option<SmolStr> {
    zone.filter(|zone| !zone.is_empty())
}

/// The place of the n-th zone when the own one is not counted.
fn beside(own: Option<usize>, nth: usize) -> usize {
    if own.is_some_and(|own| nth >= own) { nth + 1 } else { nth }
}

/// Appends a name and returns where it is.
fn push(list: &mut Vec<u64>, name: u64) -> usize {
    list.push(name);
    list.len() - 1
}

#[cfg(test)]
mod tests;
