//! Questions about a shard as a whole, as [`crate::sets`] answers them for a ring.

use std::sync::Arc;

use smallvec::SmallVec;

use crate::error::Error;
use crate::operation::Operation;
use crate::replicas::Replicas;
use crate::sets::Instances;
use crate::shard::Shard;
use crate::snapshot::Instance;
use crate::walk::Places;

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
        let is_healthy = |place: usize| snapshot.is_healthy_at(place, op, now);
        let factor = snapshot.replication_factor();
        let mut healthy = Places::new();
        if !snapshot.options.zone_awareness_enabled {
            healthy.extend(members.iter().filter(|place| is_healthy(*place)).map(|place| place as u32));
            let required = members.len().max(factor) - factor / 2;
            let spare = healthy.len().checked_sub(required);
            let max_errors = spare.ok_or(Error::TooManyUnhealthyInstances)?;
            return Ok(Replicas { snapshot, places: healthy, max_errors, max_unavailable_zones: 0 });
        }
        // A zone with one unhealthy member is left out as a whole.
        let zone_of = |place: usize| snapshot.topology.zone_of[place] as usize;
        let mut failing: SmallVec<[bool; 16]> = SmallVec::from_elem(false, snapshot.topology.zones.len());
        for place in members.iter().filter(|place| !is_healthy(*place)) {
            failing[zone_of(place)] = true;
        }
        let lost = failing.iter().filter(|failing| **failing).count();
        let tolerated = members.zones().len().min(factor) / 2;
        let max_unavailable_zones = tolerated.checked_sub(lost).ok_or(Error::TooManyUnhealthyInstances)?;
        let left = members.iter().filter(|place| !failing[zone_of(*place)]);
        healthy.extend(left.map(|place| place as u32));
        Ok(Replicas { snapshot, places: healthy, max_errors: 0, max_unavailable_zones })
    }
}
