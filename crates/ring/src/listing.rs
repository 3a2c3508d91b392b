//! The instances that together list everything that the ring holds, where one replica of each key is enough.

use crate::error::Error;
use crate::operation::Operation;
use crate::replicas::ReplicationSet;
use crate::snapshot::Snapshot;

impl Snapshot {
    /// The instances that can serve `op` at `now` (Unix seconds), and how many of them, or of their zones, may fail while
    /// one replica of every key still answers. As rulers ask each other for rules, with [`Operation::RULER_LIST`].
    ///
    /// With zone awareness and more than one zone, the healthy instances of failing zones are kept, and failing zones
    /// count among those that may fail: the caller counts them as failed from the start (they are the zones of the second
    /// list of [`Snapshot::split_by_health`]). A read until a quorum does not know of zones that are not in the set, and
    /// would be content with too few. Costs O(n) for n instances.
    ///
    /// # Errors
    ///
    /// [`Error::EmptyRing`] without instances; [`Error::TooManyUnhealthyInstances`] if some key may have no replica left.
    ///
    /// # Source
    ///
    /// Cortex's `GetReplicationSetForListRule`.
    pub fn replication_set_for_listing(&self, op: Operation, now: i64) -> Result<ReplicationSet, Error> {
        let (healthy, unhealthy) = self.split_by_health(op, now)?;
        let factor = self.replication_factor();
        let zones = self.zones().len();
        let (mut max_errors, mut max_unavailable_zones) = (0, 0);
        // In a single zone a key has its replicas among the members of that zone, as without zones.
        let zone_awareness_enabled = self.options.zone_awareness_enabled && zones > 1;
        if zone_awareness_enabled {
            let mut failing: Vec<_> = unhealthy.iter().map(|instance| instance.zone()).collect();
            failing.sort_unstable();
            failing.dedup();
            max_unavailable_zones = zones.min(factor) - 1;
            if failing.len() > max_unavailable_zones {
                return Err(Error::TooManyUnhealthyInstances);
            }
        } else {
            let required = (healthy.len() + unhealthy.len()).max(factor) - (factor - 1);
            let spare = healthy.len().checked_sub(required);
            max_errors = spare.ok_or(Error::TooManyUnhealthyInstances)?;
        }
        Ok(ReplicationSet {
            instances: healthy.into(),
            max_errors,
            max_unavailable_zones,
            zone_awareness_enabled,
        })
    }
}
