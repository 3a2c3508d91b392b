//! [`Snapshot`]: one immutable view of a ring, made for lookups.
//!
//! What moves seldom (ids, zones, tokens) is a [`Topology`] shared between snapshots; entries, states and heartbeats lie
//! beside it in arrays indexed alike, which snapshots share in part. So an update that brings only those makes a new
//! snapshot without touching a token, and at a cost that hardly grows with the ring. All lookups go through a snapshot; see [`crate::lookup`] and [`crate::sets`].

use std::sync::Arc;

use ringkit_kv::EntryId;
use smol_str::SmolStr;

use crate::desc::{Desc, InstanceDesc, State};
use crate::health::{first_seen, is_fresh};
use crate::members::{Heard, Members};
use crate::operation::{Operation, StateCode};
use crate::options::RingOptions;
use crate::ownership::Ownership;
use crate::shard::ShardCache;
use crate::topology::Topology;
use crate::walk::StateCounts;

/// One member of a ring: its id and its entry.
#[derive(Clone, Debug, PartialEq)]
pub struct Instance {
    /// Its id, unique within the ring.
    pub id: EntryId,
    /// Its entry as stored.
    pub desc: Arc<InstanceDesc>,
}

impl Instance {
    /// `host:port` on which it is reached.
    pub fn addr(&self) -> &SmolStr {
        &self.desc.addr
    }

    /// Its failure domain; empty = none.
    pub fn zone(&self) -> &SmolStr {
        &self.desc.zone
    }

    /// What it takes part in.
    pub fn state(&self) -> State {
        self.desc.state
    }

    /// When it first registered, in Unix seconds; 0 = unknown.
    pub fn registered_timestamp(&self) -> i64 {
        self.desc.registered_at()
    }

    /// The same member with a new entry, if that has the same zone and tokens. Keeps the storage of the tokens, so that
    /// the next comparison is one of pointers.
    pub(crate) fn followed_by(self: &Arc<Self>, entry: &Arc<InstanceDesc>) -> Option<Arc<Self>> {
        if Arc::ptr_eq(&self.desc, entry) {
            return Some(Arc::clone(self));
        }
        if self.desc.zone != entry.zone || self.desc.tokens != entry.tokens {
            return None;
        }
        let mut desc = Arc::clone(entry);
        if !desc.tokens.ptr_eq(&self.desc.tokens) {
            Arc::make_mut(&mut desc).tokens = self.desc.tokens.clone();
        }
        Some(Arc::new(Self { id: self.id.clone(), desc }))
    }
}

/// One immutable view of a ring. Lookups take no lock; see the methods.
#[derive(Clone, Debug)]
pub struct Snapshot {
    pub(crate) options: Arc<RingOptions>,
    pub(crate) topology: Arc<Topology>,
    // The arrays below share one index: the member's place in the byte order of ids.
    pub(crate) members: Members,
    pub(crate) states: Arc<[StateCode]>,
    pub(crate) seen: Heard,
    // Per zone and class of state, how many members own a token.
    pub(crate) walkable: Arc<[StateCounts]>,
    pub(crate) shards: Arc<ShardCache>,
    pub(crate) generation: u64,
}

impl Snapshot {
    /// The view that `options` give of `desc`, where `seen` tells when an instance was last heard (Unix seconds).
    pub fn build(desc: &Desc, seen: impl Fn(&EntryId, &InstanceDesc) -> i64, options: &RingOptions) -> Self {
        Self::build_shared(desc, seen, Arc::new(options.clone()))
    }

    pub(crate) fn build_shared(
        desc: &Desc,
        seen: impl Fn(&EntryId, &InstanceDesc) -> i64,
        options: Arc<RingOptions>,
    ) -> Self {
        let members: Members = desc
            .iter()
            .filter(|(_, entry)| !is_excluded(entry, &options))
            .map(|(id, entry)| Arc::new(Instance { id: id.clone(), desc: Arc::clone(entry) }))
            .collect();
        let topology = Arc::new(Topology::build(&members, &options));
        Self::assemble(options, topology, members, seen)
    }

    /// The view of `desc`, by way of what changed since this one.
    pub(crate) fn next(&self, desc: &Desc, seen: impl Fn(&EntryId, &InstanceDesc) -> i64) -> Self {
        let mut known = self.members.iter().peekable();
        let members: Members = desc
            .iter()
            .filter(|(_, entry)| !is_excluded(entry, &self.options))
            .map(|(id, entry)| {
                while known.next_if(|member| member.id < *id).is_some() {}
                let followed =
                    known.next_if(|member| member.id == *id).and_then(|member| member.followed_by(entry));
                followed.unwrap_or_else(|| Arc::new(Instance { id: id.clone(), desc: Arc::clone(entry) }))
            })
            .collect();
        let topology = Topology::next(&self.topology, &self.members, &members, &self.options);
        Self::assemble(Arc::clone(&self.options), Arc::new(topology), members, seen)
    }

    /// The view of a ring that is first met at `now` (Unix seconds): instances count as heard at their timestamps.
    pub fn first_sight(desc: &Desc, now: i64, options: &RingOptions) -> Self {
        Self::build(desc, |_, entry| first_seen(entry.timestamp, now), options)
    }

    /// The successor of this view in which the same members own the same tokens: shares the lookup tables.
    ///
    /// `None` if ids, zones or tokens differ, or states that decide who owns a token claimed twice.
    pub(crate) fn successor(
        &self,
        desc: &Desc,
        seen: impl Fn(&EntryId, &InstanceDesc) -> i64,
    ) -> Option<Self> {
        let mut members = Vec::with_capacity(self.members.len());
        for (id, entry) in desc.iter().filter(|(_, entry)| !is_excluded(entry, &self.options)) {
            let before = self.members.get(members.len()).filter(|before| before.id == *id)?;
            if before.state() != entry.state && self.topology.depends_on_states(&self.options) {
                return None;
            }
            members.push(before.followed_by(entry)?);
        }
        if members.len() < self.members.len() {
            return None;
        }
        let (options, topology) = (Arc::clone(&self.options), Arc::clone(&self.topology));
        Some(Self::assemble(options, topology, members.into_iter().collect(), seen))
    }

    fn assemble(
        options: Arc<RingOptions>,
        topology: Arc<Topology>,
        members: Members,
        seen: impl Fn(&EntryId, &InstanceDesc) -> i64,
    ) -> Self {
        let states: Arc<[_]> = members.iter().map(|member| StateCode::from(member.state())).collect();
        let seen = members.iter().map(|member| seen(&member.id, &member.desc)).collect();
        let walkable = topology.count_states(&states);
        let shards = Arc::default();
        let mut snapshot = Self { options, topology, members, states, seen, walkable, shards, generation: 0 };
        snapshot.shards = Arc::new(ShardCache::new(&snapshot, None));
        snapshot
    }

    /// How the ring is looked at.
    pub fn options(&self) -> &RingOptions {
        &self.options
    }

    /// Grows whenever the ring changed in more than heartbeats; see [`crate::Ring::changed`].
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// All members in the byte order of their ids, whatever their state; excluded zones are left out.
    pub fn instances(&self) -> &Members {
        &self.members
    }

    /// The member called `id`.
    pub fn instance(&self, id: &str) -> Option<Arc<Instance>> {
        self.members.place_of(id).map(|index| Arc::clone(&self.members[index]))
    }

    /// The id of the member reached on `addr`; of several the greatest.
    pub fn id_by_addr(&self, addr: &str) -> Option<&EntryId> {
        self.members.iter().rev().find(|member| member.addr() == addr).map(|member| &member.id)
    }

    /// When member `id` was last heard, in Unix seconds by this process's clock.
    pub fn seen(&self, id: &str) -> Option<i64> {
        self.members.place_of(id).map(|index| self.seen[index])
    }

    /// Whether `member` can serve `op` at `now` (Unix seconds): its state allows it and it was heard of lately. False
    /// for an id that is not in the ring.
    pub fn is_healthy(&self, id: &str, op: Operation, now: i64) -> bool {
        self.members.place_of(id).is_some_and(|index| self.is_healthy_at(index, op, now))
    }

    /// The zones of all members, sorted. Members without a zone make the zone of the empty name.
    pub fn zones(&self) -> &[SmolStr] {
        &self.topology.zones
    }

    /// All tokens of all members in ascending order, duplicates kept.
    pub fn tokens(&self) -> &[u32] {
        &self.topology.tokens
    }

    /// How many tokens are claimed more than once, each counted as often as it is in excess.
    pub fn duplicate_tokens(&self) -> usize {
        self.topology.duplicates
    }

    /// Who owns how much of the circle. Computed at the first call for these members and tokens.
    pub fn ownership(&self) -> &Ownership {
        self.topology.ownership()
    }

    #[inline]
    pub(crate) fn is_healthy_at(&self, index: usize, op: Operation, now: i64) -> bool {
        op.accepts_code(self.states[index]) && is_fresh(self.seen[index], now, self.options.heartbeat_timeout)
    }

    #[inline]
    pub(crate) fn replication_factor(&self) -> usize {
        self.options.replication_factor.max(1)
    }
}

pub(crate) fn is_excluded(entry: &InstanceDesc, options: &RingOptions) -> bool {
    options.excluded_zones.iter().any(|zone| entry.zone == *zone)
}
