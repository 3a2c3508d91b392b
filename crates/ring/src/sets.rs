//! Questions about a ring as a whole: who is healthy, and which instances together hold every key.

use std::sync::Arc;

use smallvec::SmallVec;

use crate::error::Error;
use crate::health::fresh_from;
use crate::operation::Operation;
use crate::replicas::Replicas;
use crate::snapshot::{Instance, Snapshot};
use crate::walk::Places;

/// Members in the byte order of their ids.
pub type Instances = Vec<Arc<Instance>>;

impl Snapshot {
    /// All instances that can serve `op` at `now` (Unix seconds), in the byte order of ids; no quorum is asked for.
    ///
    /// # Errors
    ///
    /// [`Error::EmptyRing`] without instances.
    pub fn all_healthy(&self, op: Operation, now: i64) -> Result<Vec<Arc<Instance>>, Error> {
        Ok(self.split_by_health(op, now)?.0)
    }

    /// All instances, those that can serve `op` at `now` (Unix seconds) apart from the others.
    ///
    /// # Errors
    ///
    /// [`Error::EmptyRing`] without instances.
    pub fn split_by_health(&self, op: Operation, now: i64) -> Result<(Instances, Instances), Error> {
        if self.members.is_empty() {
            return Err(Error::EmptyRing);
        }
        let places =
            (0..self.members.len()).map(|place| (self.is_healthy_at(place, op, now), &self.members[place]));
        let (mut healthy, mut unhealthy) = (Vec::with_capacity(self.members.len()), Vec::new());
        for (is_healthy, member) in places {
            if is_healthy { &mut healthy } else { &mut unhealthy }.push(Arc::clone(member));
        }
        Ok((healthy, unhealthy))
    }

    /// The instances that together hold every key, and how many of them, or of their zones, an operation may lose.
    ///
    /// With zone awareness a zone with one unhealthy instance is left out as a whole.
    ///
    /// # Errors
    ///
    /// [`Error::EmptyRing`] without tokens; [`Error::TooManyUnhealthyInstances`] if some key may lack a quorum.
    ///
    /// # Source
    ///
    /// Cortex's `GetReplicationSetForOperation`.
    pub fn replication_set(&self, op: Operation, now: i64) -> Result<Replicas<'_>, Error> {
        if self.topology.tokens.is_empty() {
            return Err(Error::EmptyRing);
        }
        let factor = self.replication_factor();
        let zone_of = |place: u32| self.topology.zone_of[place as usize] as usize;
        let mut failing: SmallVec<[bool; 16]> = SmallVec::from_elem(false, self.topology.zones.len());
        let mut places = Places::with_capacity(self.members.len());
        let fresh_from = fresh_from(now, self.options.heartbeat_timeout);
        for (place, (&state, &seen)) in (0..).zip(self.states.iter().zip(self.seen.slices().flatten())) {
            if op.accepts_code(state) && seen >= fresh_from {
                places.push(place);
            } else {
                failing[zone_of(place)] = true;
            }
        }

        if self.options.zone_awareness_enabled {
            let tolerated = failing.len().min(factor) / 2;
            let lost = failing.iter().filter(|failing| **failing).count();
            let max_unavailable_zones =
                tolerated.checked_sub(lost).ok_or(Error::TooManyUnhealthyInstances)?;
            if lost > 0 {
                places.retain(|place| !failing[zone_of(*place)]);
            }
            return Ok(Replicas { snapshot: self, places, max_errors: 0, max_unavailable_zones });
        }

        let required = self.members.len().max(factor) - factor / 2;
        let max_errors = places.len().checked_sub(required).ok_or(Error::TooManyUnhealthyInstances)?;
        Ok(Replicas { snapshot: self, places, max_errors, max_unavailable_zones: 0 })
    }
}
