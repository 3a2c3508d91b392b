//! The greedy choice behind every lookup: members come along in circle order, and the quotas of their zones decide who is
//! taken. Pure. Who comes along, and how they are found, is the caller's business.

use smallvec::SmallVec;

use crate::operation::{CodeSet, Operation, StateCode};
use crate::options::{Dialect, RingOptions};
use crate::rows::MAX_WIDTH;

/// Places of members, in walk order.
pub(crate) type Places = SmallVec<[u32; MAX_WIDTH]>;

/// How many members there are of each class of state; see [`StateCode::class`].
pub(crate) type StateCounts = [u32; StateCode::KNOWN as usize + 1];

/// How many members a walk may take from one zone: `base`, and one more from each of the first `extra` zones that come to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Quota {
    pub(crate) base: usize,
    pub(crate) extra: usize,
}

impl Quota {
    /// The quota at a replication factor of `factor` where `zones` zones share the replicas.
    ///
    /// # Source
    ///
    /// Cortex divides the factor; below one replica per zone each zone gives at most one. In dskit each zone gives one, and
    /// more only where a call asks for a multiple of the configured factor.
    pub(crate) fn new(options: &RingOptions, factor: usize, zones: usize) -> Self {
        let configured = options.replication_factor.max(1);
        match options.dialect {
            Dialect::Cortex if factor < zones => Self { base: 1, extra: 0 },
            Dialect::Cortex => Self { base: factor / zones.max(1), extra: factor % zones.max(1) },
            Dialect::Dskit => Self { base: (factor / configured).max(1), extra: 0 },
        }
    }

    #[inline]
    pub(crate) fn is_full(&self, taken: usize) -> bool {
        taken >= self.base + usize::from(self.extra > 0)
    }

    /// Counts a member of a zone of which `taken` were taken before.
    #[inline]
    pub(crate) fn take(&mut self, taken: usize) {
        self.extra -= usize::from(taken >= self.base);
    }
}

/// Those whom a walk may meet: a whole ring, or the members of a shard.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Crowd<'a> {
    pub(crate) options: &'a RingOptions,
    /// Whether the first zone is that of the members without one, which is not limited.
    pub(crate) first_is_nameless: bool,
    /// Per zone and class of state, how many members own a token; all zones may be one where replicas are not spread over
    /// them. Zones are told by their places in this list.
    pub(crate) counts: &'a [StateCounts],
    /// How many zones share the replicas.
    pub(crate) sharing: usize,
    /// How many members there are.
    pub(crate) members: usize,
}

/// A walk under way.
pub(crate) struct Walk {
    taken: Taken,
    zones: SmallVec<[Zone; 12]>,
    /// How many zones have somebody who could still be taken.
    open: usize,
    quota: Quota,
    zone_aware: bool,
    size: usize,
    op: Operation,
    passed_over: CodeSet,
    members: usize,
}

#[derive(Clone, Copy, Default)]
struct Zone {
    /// Members taken that do not extend the set.
    taken: usize,
    /// Members that the walk can still take.
    left: u32,
    limited: bool,
}

impl Walk {
    /// A walk for `factor` replicas.
    ///
    /// Members whose state is in `passed_over` are left out; give states that take a place and make one
    /// ([`Operation::passed_over`]), and the others come out the same. That matters when a whole zone is LEAVING: the
    /// full walk then collects every one of its members, at each lookup, to drop them all in the end.
    pub(crate) fn new(crowd: &Crowd<'_>, op: Operation, factor: usize, passed_over: CodeSet) -> Self {
        let left = |counts: &StateCounts| -> u32 {
            let met = |class: &usize| !passed_over.contains_class(*class);
            (0..counts.len()).filter(met).map(|class| counts[class]).sum()
        };
        let zone_aware = crowd.options.zone_awareness_enabled;
        let zones = if zone_aware {
            let zone = |(place, counts)| Zone {
                taken: 0,
                left: left(counts),
                limited: place > 0 || !crowd.first_is_nameless,
            };
            crowd.counts.iter().enumerate().map(zone).collect()
        } else {
            SmallVec::from_iter([Zone { left: crowd.counts.iter().map(left).sum(), ..Zone::default() }])
        };
        let mut walk = Self {
            taken: Taken::default(),
            zones,
            open: 0,
            quota: Quota::new(crowd.options, factor, crowd.sharing),
            zone_aware,
            size: factor,
            op,
            passed_over,
            members: crowd.members,
        };
        walk.open = walk.count_open();
        walk
    }

    /// Offers the member at place `member`, of `zone`, in `state`; one that was offered before is not taken twice.
    /// Returns whether the walk is over.
    #[inline]
    pub(crate) fn offer(&mut self, member: usize, zone: usize, state: StateCode) -> bool {
        if self.passed_over.contains(state) || self.taken.contains(member) {
            return false;
        }
        let zone = if self.zone_aware { zone } else { 0 };
        let Zone { taken, limited, .. } = self.zones[zone];
        if limited && self.quota.is_full(taken) {
            return false;
        }
        self.taken.push(member, self.members);
        self.zones[zone].left -= 1;
        // A member that extends the set does not count against its zone, so the replica it makes room for may come from
        // there too.
        let extra = self.quota.extra;
        if self.op.extends_on_code(state) {
            self.size += 1;
        } else if limited {
            self.quota.take(taken);
            self.zones[zone].taken += 1;
        }
        if self.quota.extra == 0 && extra > 0 {
            // The last extra is gone, which closes other zones too.
            self.open = self.count_open();
        } else if !self.is_open(&self.zones[zone]) {
            self.open -= 1;
        }
        self.is_over()
    }

    /// Whether nobody who could still come along would be taken.
    #[inline]
    pub(crate) fn is_over(&self) -> bool {
        self.taken.list.len() >= self.size || self.open == 0
    }

    #[inline]
    fn is_open(&self, zone: &Zone) -> bool {
        zone.left > 0 && !(zone.limited && self.quota.is_full(zone.taken))
    }

    fn count_open(&self) -> usize {
        self.zones.iter().filter(|zone| self.is_open(zone)).count()
    }

    /// Who was taken, in order.
    pub(crate) fn finish(self) -> Places {
        self.taken.list
    }
}

/// The members taken so far.
#[derive(Default)]
struct Taken {
    list: Places,
    // Set of members, kept once the list is too long to be searched.
    set: Vec<u64>,
}

impl Taken {
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
