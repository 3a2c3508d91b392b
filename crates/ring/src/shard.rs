//! [`Shard`]: the part of a ring that serves one tenant, as a view of a snapshot.
//!
//! Which members a shard has is decided in [`select`] and remembered in [`cache`]; everything else is the snapshot's.

mod cache;
mod circles;
mod facts;
mod get;
mod members;
mod select;
mod sets;

use std::sync::Arc;
use std::time::Duration;

use smol_str::SmolStr;

pub(crate) use self::cache::ShardCache;
use self::members::{PlaceSet, ShardMembers};
use self::select::{Mode, Request, select};
pub use self::select::{expected_instances, shard_seed};
use crate::compare::Comparison;
use crate::operation::Operation;
use crate::snapshot::{Instance, Snapshot};

/// The part of a ring that serves one tenant: some members of a snapshot, looked at as a ring of their own.
///
/// States, heartbeats and health are those of the snapshot, tokens too; a shard copies nothing. Its zones are those in
/// which it has members. A token that is claimed twice and owned outside the shard is nobody's in it.
#[derive(Clone, Debug)]
pub struct Shard<'a> {
    snapshot: &'a Snapshot,
    /// `None` = the whole ring.
    members: Option<Arc<ShardMembers>>,
}

impl Snapshot {
    /// The shard of the tenant `identifier` with `size` members, or the whole ring if it has no more or `size` is
    /// not above 0.
    ///
    /// With zone awareness every zone gives as many, so `size` is rounded up. Members in the state READONLY count in
    /// addition. The same tenant has the same shard everywhere; another member, or one more or less in `size`, changes
    /// it as little as can be. Shards are kept, so asking again costs some nanoseconds and no lock.
    ///
    /// # Source
    ///
    /// Cortex's `ShuffleShard`, or dskit's.
    pub fn shuffle_shard(&self, identifier: &str, size: i64) -> Shard<'_> {
        self.shard(&Request::new(identifier, size, Mode::Plain, 0))
    }

    /// The shard of the tenant `identifier` together with everybody who was in it in the `period` before `now` (Unix
    /// seconds): who may have what was written since. For reading only; zones may have different numbers of members.
    ///
    /// A `period` of zero gives [`Snapshot::shuffle_shard`].
    ///
    /// # Source
    ///
    /// Cortex's `ShuffleShardWithLookback`, or dskit's.
    pub fn shuffle_shard_with_lookback(
        &self,
        identifier: &str,
        size: i64,
        period: Duration,
        now: i64,
    ) -> Shard<'_> {
        let mode = if period.is_zero() { Mode::Plain } else { Mode::Lookback(period) };
        self.shard(&Request::new(identifier, size, mode, now))
    }

    /// As [`Snapshot::shuffle_shard`], but with zone awareness of `size` members exactly, dealt out to the zones in the
    /// order of their names; one more or less in `size` changes one member at most.
    ///
    /// # Source
    ///
    /// Cortex's `ShuffleShardWithZoneStability`.
    pub fn shuffle_shard_zone_stable(&self, identifier: &str, size: i64) -> Shard<'_> {
        self.shard(&Request::new(identifier, size, Mode::ZoneStable, 0))
    }

    /// The members whose state serves `op`, whatever their heartbeats, looked at as a ring of their own. Not kept: costs
    /// O(n) for n members.
    ///
    /// # Source
    ///
    /// dskit's `GetSubringForOperationStates`.
    pub fn subring_for_states(&self, op: Operation) -> Shard<'_> {
        let mut set = PlaceSet::new(self.members.len());
        let serving = (0..self.members.len()).filter(|place| op.accepts_code(self.states[*place]));
        serving.for_each(|place| set.insert(place));
        let is_part = set.len() < self.members.len();
        Shard { snapshot: self, members: is_part.then(|| Arc::new(ShardMembers::new(set, self))) }
    }

    /// Forgets the shards kept for the tenant `identifier`, as when it is idle. Asking for them again is only slower.
    pub fn cleanup_shards(&self, identifier: &str) {
        self.shards.forget(identifier);
    }

    /// Takes over from `known`, from which this snapshot, with the same topology, differs by so much, the shards that are
    /// still right.
    pub(crate) fn keep_shards(&mut self, known: &Self, change: Comparison) {
        self.shards = match change {
            Comparison::Equal | Comparison::EqualButStatesAndTimestamps => Arc::clone(&known.shards),
            Comparison::EqualButReadOnly | Comparison::Different => {
                Arc::new(ShardCache::new(self, Some(&known.shards)))
            }
        };
    }

    /// As [`Snapshot::keep_shards`], where the topology is another: nothing stays but what was counted.
    pub(crate) fn count_shards_on_from(&mut self, known: &Self) {
        if let Some(new) = Arc::get_mut(&mut self.shards) {
            new.count_on_from(&known.shards);
        }
    }

    fn shard(&self, request: &Request<'_>) -> Shard<'_> {
        if request.wants_all(self, self.shards.facts()) {
            return Shard { snapshot: self, members: None };
        }
        let kept = if self.options.shard_cache { self.shards.get(request) } else { None };
        let members = kept.unwrap_or_else(|| self.select_shard(request));
        Shard { snapshot: self, members }
    }

    #[cold]
    fn select_shard(&self, request: &Request<'_>) -> Option<Arc<ShardMembers>> {
        let selection = select(self, &self.shards, request);
        // A shard with everybody in it is the ring, and answers faster as such.
        let is_part = selection.members.len() < self.members.len();
        let until = selection.earliest_in_window.map(|at| request.valid_until(at, self.options.dialect));
        let members = is_part.then(|| Arc::new(ShardMembers::new(selection.members, self)));
        if self.options.shard_cache {
            self.shards.put(request, until, members.clone());
        }
        members
    }
}

impl<'a> Shard<'a> {
    /// The snapshot of which this is a part.
    pub fn snapshot(&self) -> &'a Snapshot {
        self.snapshot
    }

    /// Whether this is the whole ring.
    pub fn is_whole(&self) -> bool {
        self.members.is_none()
    }

    /// How many members there are, whatever their state.
    pub fn len(&self) -> usize {
        self.members.as_ref().map_or(self.snapshot.members.len(), |members| members.len())
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether the member called `id` is in the shard.
    pub fn contains(&self, id: &str) -> bool {
        self.snapshot.members.place_of(id).is_some_and(|place| self.has(place))
    }

    /// The members in the byte order of their ids.
    pub fn instances(&self) -> impl Iterator<Item = &'a Arc<Instance>> {
        let members = &self.snapshot.members;
        self.places().map(|place| &members[place])
    }

    /// The id of the member reached on `addr`; of several the greatest.
    pub fn id_by_addr(&self, addr: &str) -> Option<&'a ringkit_kv::EntryId> {
        self.instances().filter(|member| member.addr() == addr).last().map(|member| &member.id)
    }

    /// The zones in which the shard has members, sorted.
    pub fn zones(&self) -> impl Iterator<Item = &'a SmolStr> {
        let all = &self.snapshot.topology.zones;
        let (everywhere, some) = match &self.members {
            None => (&**all, &[][..]),
            Some(members) => (&[][..], members.zones()),
        };
        everywhere.iter().chain(some.iter().map(|there| &all[there.zone as usize]))
    }

    #[inline]
    fn has(&self, place: usize) -> bool {
        self.members.as_ref().is_none_or(|members| members.contains(place))
    }

    /// The places of the members, ascending.
    fn places(&self) -> impl Iterator<Item = usize> {
        let everybody = if self.is_whole() { 0..self.snapshot.members.len() } else { 0..0 };
        everybody.chain(self.members.iter().flat_map(|members| members.iter()))
    }
}

#[cfg(test)]
mod tests;
