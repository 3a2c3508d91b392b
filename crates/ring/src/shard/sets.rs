//! Questions about a shard as a whole, as [`crate::sets`] answers them for a ring.

use std::sync::Arc;

use crate::error::Error;
use crate::operation::Operation;
use crate::replicas::Replicas;
use crate::sets::Instances;
use crate::shard::Shard;
use crate::snapshot::Instance;

impl<'a> Shard<'a> {
    /// All members that can serve `op` at `now` (Unix seconds), in the byte order of ids; no quorum is asked for.
    ///
    /// # Errors
    ///
    /// [`Error::EmptyRing`] without members.
    pub fn all_healthy(&self, op: Operation, now: i64) -> Result<Vec<Arc<Instance>>, Error> {
        Ok(self.split_by_health(op, now)?.0)
    }

    /// All members, those that can serve `op` at `now` (Unix seconds) apart from the others.
    ///
    /// # Errors
    ///
    /// [`Error::EmptyRing`] without members.
    pub fn split_by_health(&self, op: Operation, now: i64) -> Result<(Instances, Instances), Error> {
        if self.is_whole() {
            return self.snapshot.split_by_health(op, now);
        }
        if self.is_empty() {
            return Err(Error::EmptyRing);
        }
        let (healthy, unhealthy): (Vec<_>, Vec<_>) =
            self.places().partition(|place| self.snapshot.is_healthy_at(*place, op, now));
        let pick = |places: Vec<usize>| -> Instances {
            places.into_iter().map(|place| Arc::clone(&self.snapshot.members[place])).collect()
        };
        Ok((pick(healthy), pick(unhealthy)))
    }

    /// The members that together hold every key of the tenant, and how many of them, or of their zones, an operation may
    /// lose; see [`crate::Snapshot::replication_set`].
    ///
    /// # Errors
    ///
    /// [`Error::EmptyRing`] without tokens; [`Error::TooManyUnhealthyInstances`] if some key may lack a quorum.
    ///
    /// # Source
    ///
    /// Cortex's `GetReplicationSetForOperation` on a subring.
    pub fn replication_set(&self, op: Operation, now: i64) -> Result<Replicas<'a>, Error> {
        let snapshot = self.snapshot;
        let Some(members) = &self.members else { return snapshot.replication_set(op, now) };
        if !members.has_tokens() {
            return Err(Error::EmptyRing);
        }
        let healthy = members.iter().map(|place| (place as u32, snapshot.is_healthy_at(place, op, now)));
        let zones = members.zones();
        let owns = |slot: usize| zones[slot].count.with_tokens > 0;
        // Every member is in one of the zones with members.
        let slot_of = |place: u32| members.slot(snapshot.topology.zone_of[place as usize]).unwrap_or(0);
        snapshot.choose(healthy, members.len(), zones.len(), owns, slot_of)
    }
}
