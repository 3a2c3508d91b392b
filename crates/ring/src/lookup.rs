//! Which instances own a token: the walk along the circle.

use std::sync::Arc;

use smallvec::SmallVec;

use crate::error::Error;
use crate::operation::{CodeSet, Operation};
use crate::snapshot::{Instance, Snapshot};
use crate::strategy::Strategy;

/// Instances that together hold a key or a whole ring, and how many of them an operation may lose.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ReplicationSet {
    /// For a key in walk order; for a whole ring in the byte order of ids. Up to five without allocating.
    pub instances: SmallVec<[Arc<Instance>; 5]>,
    /// How many of the instances may fail.
    pub max_errors: usize,
    /// In how many zones instances may fail; used instead of `max_errors` when it is not 0.
    pub max_unavailable_zones: usize,
}

impl ReplicationSet {
    /// How many instances there are.
    pub fn len(&self) -> usize {
        self.instances.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.instances.is_empty()
    }

    /// Whether the set has an instance that is reached on `addr`.
    pub fn includes(&self, addr: &str) -> bool {
        self.instances.iter().any(|instance| instance.addr() == addr)
    }

    /// Addresses in the order of the instances.
    pub fn addresses(&self) -> impl Iterator<Item = &str> {
        self.instances.iter().map(|instance| instance.addr().as_str())
    }

    /// How many different zones the instances are in; those without a zone count as one.
    pub fn zone_count(&self) -> usize {
        let mut zones: SmallVec<[&str; 8]> =
            self.instances.iter().map(|instance| instance.zone().as_str()).collect();
        zones.sort_unstable();
        zones.dedup();
        zones.len()
    }
}

/// Places of members, in walk order.
pub(crate) type Places = SmallVec<[u32; 8]>;

impl Snapshot {
    /// The healthy instances that hold `token`, in walk order, and how many of them may fail.
    ///
    /// `now` (Unix seconds) decides which heartbeats are fresh. Costs O(log T) for the search among T tokens plus the
    /// tokens walked over; ends as soon as no further token can add an instance. Takes no lock; allocates only for sets
    /// of more than five.
    ///
    /// # Errors
    ///
    /// [`Error::EmptyRing`] without tokens; [`Error::TooFewReplicas`] or, where one is enough,
    /// [`Error::NoHealthyReplica`] if too few owners are healthy.
    ///
    /// # Source
    ///
    /// The walk of Cortex's `Ring.Get` and its replication strategies.
    pub fn get(&self, token: u32, op: Operation, now: i64) -> Result<ReplicationSet, Error> {
        let (places, max_errors) = self.get_places(token, op, now)?;
        let instances = places.iter().map(|&place| Arc::clone(&self.members[place as usize])).collect();
        Ok(ReplicationSet { instances, max_errors, max_unavailable_zones: 0 })
    }

    /// As [`Snapshot::get`], with members told by their places.
    pub(crate) fn get_places(&self, token: u32, op: Operation, now: i64) -> Result<(Places, usize), Error> {
        if self.topology.tokens.is_empty() {
            return Err(Error::EmptyRing);
        }
        let mut places = self.walk(token, op, op.passed_over());
        places.retain(|place| self.is_healthy_at(*place as usize, op, now));
        match self.options.strategy.tolerated(self.replication_factor(), places.len()) {
            Ok(max_errors) => Ok((places, max_errors)),
            Err(required) => Err(self.too_few(token, op, now, required, places.len())),
        }
    }

    #[cold]
    fn too_few(&self, token: u32, op: Operation, now: i64, required: usize, found: usize) -> Error {
        let mut unhealthy = String::new();
        for place in self.walk(token, op, CodeSet::NONE) {
            if !self.is_healthy_at(place as usize, op, now) {
                if !unhealthy.is_empty() {
                    unhealthy.push(',');
                }
                unhealthy.push_str(self.members[place as usize].addr());
            }
        }
        match self.options.strategy {
            Strategy::Quorum => {
                let zone_aware = self.options.zone_awareness_enabled;
                Error::TooFewReplicas { required, found, zone_aware, unhealthy }
            }
            Strategy::IgnoreUnhealthy => Error::NoHealthyReplica { unhealthy },
        }
    }

    /// Members in the order in which the walk from `token` takes them, healthy or not.
    ///
    /// Members whose state is in `passed_over` are left out; give states that take a place and make one
    /// ([`Operation::passed_over`]), and the others come out the same. That matters when a whole zone is LEAVING: the
    /// full walk then collects every one of its members, at each lookup, to drop them all in the end.
    fn walk(&self, token: u32, op: Operation, passed_over: CodeSet) -> Places {
        let topology = &*self.topology;
        let count = topology.tokens.len();
        let mut position = topology.search(token);
        let mut hosts = Hosts::default();
        let mut quota = Quota::new(self, passed_over);
        let mut size = self.replication_factor();
        for _ in 0..count {
            let member = topology.owners.get(position);
            position = if position + 1 == count { 0 } else { position + 1 };
            let state = self.states[member];
            if passed_over.contains(state) || hosts.contains(member) {
                continue;
            }
            let zone = quota.zone_of(topology.zone_of[member]);
            if quota.is_full(zone) {
                continue;
            }
            hosts.push(member, self.members.len());
            let extends = op.extends_on_code(state);
            size += usize::from(extends);
            quota.take(zone, extends);
            if hosts.list.len() >= size || quota.is_used_up() {
                break;
            }
        }
        hosts.list
    }
}

/// The members taken so far.
#[derive(Default)]
struct Hosts {
    list: Places,
    // Set of members, kept once the list is too long to be searched.
    set: Vec<u64>,
}

impl Hosts {
    const SEARCHED: usize = 32;

    #[inline]
    fn contains(&self, member: usize) -> bool {
        if self.set.is_empty() {
            self.list.contains(&(member as u32))
        } else {
            (self.set[member / 64] >> (member % 64)) & 1 == 1
        }
    }

    fn push(&mut self, member: usize, members: usize) {
        self.list.push(member as u32);
        if !self.set.is_empty() {
            self.set[member / 64] |= 1 << (member % 64);
        } else if self.list.len() > Self::SEARCHED {
            self.set = vec![0; members.div_ceil(64)];
            self.list.iter().for_each(|&host| self.set[host as usize / 64] |= 1 << (host % 64));
        }
    }
}

/// How many members each zone may still give. Without zone awareness everything is one zone without a limit.
struct Quota {
    zones: SmallVec<[ZoneQuota; 8]>,
    zone_aware: bool,
    base: usize,
    extra: usize,
}

#[derive(Clone, Copy, Default)]
struct ZoneQuota {
    /// Members taken that do not extend the set.
    taken: usize,
    /// Members that the walk can still meet.
    left: u32,
    limited: bool,
}

impl Quota {
    fn new(snapshot: &Snapshot, passed_over: CodeSet) -> Self {
        let left = |counts: &[u32]| -> u32 {
            counts
                .iter()
                .enumerate()
                .map(|(class, &n)| if passed_over.contains_class(class) { 0 } else { n })
                .sum()
        };
        let zone_aware = snapshot.options.zone_awareness_enabled;
        let per_zone = snapshot.walkable.iter().map(|counts| left(counts));
        let names = &snapshot.topology.zones;
        let zones: SmallVec<[ZoneQuota; 8]> = if zone_aware {
            let named = per_zone.zip(names.iter());
            named.map(|(left, name)| ZoneQuota { taken: 0, left, limited: !name.is_empty() }).collect()
        } else {
            SmallVec::from_iter([ZoneQuota { left: per_zone.sum(), ..ZoneQuota::default() }])
        };
        let factor = snapshot.replication_factor();
        let number = names.len().max(1);
        Self { zones, zone_aware, base: factor / number, extra: factor % number }
    }

    #[inline]
    fn zone_of(&self, zone: u32) -> usize {
        if self.zone_aware { zone as usize } else { 0 }
    }

    #[inline]
    fn is_full(&self, zone: usize) -> bool {
        let zone = &self.zones[zone];
        zone.limited && zone.taken >= self.base + usize::from(self.extra > 0)
    }

    /// A member that extends the set does not count against its zone, so the replica it makes room for may come from
    /// there too. The first member of a zone never uses up the extra.
    #[inline]
    fn take(&mut self, zone: usize, extends: bool) {
        let zone = &mut self.zones[zone];
        zone.left -= 1;
        if extends || !zone.limited {
            return;
        }
        if zone.taken > 0 && zone.taken >= self.base {
            self.extra -= 1;
        }
        zone.taken += 1;
    }

    /// Whether no token further on can add a member.
    #[inline]
    fn is_used_up(&self) -> bool {
        (0..self.zones.len()).all(|zone| self.zones[zone].left == 0 || self.is_full(zone))
    }
}
