//! The instances that together list everything that the ring holds, where one replica of each key is enough.

use std::sync::Arc;

use smol_str::SmolStr;

use crate::error::Error;
use crate::operation::Operation;
use crate::sets::Instances;
use crate::snapshot::{Instance, Snapshot};

/// Instances that together list what a ring holds.
///
/// Ask every one of them, and count failures yourself: functions that read until a quorum do not take this set, because
/// they stop asking once they believe to have enough, and because they do not know of zones that fail before anybody is
/// asked. What the instances answer together is complete if at most [`ListingSet::max_errors`] of them fail, or, where
/// [`ListingSet::is_by_zone`], if at most [`ListingSet::max_unavailable_zones`] zones do, those included that
/// [`ListingSet::failing_zones`] names.
#[derive(Clone, Debug, PartialEq)]
pub struct ListingSet<'a> {
    healthy: Instances,
    /// Ascending.
    failing_zones: Vec<&'a SmolStr>,
    max_errors: usize,
    max_unavailable_zones: usize,
    is_by_zone: bool,
}

impl<'a> ListingSet<'a> {
    /// How many instances there are to ask.
    pub fn len(&self) -> usize {
        self.healthy.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.healthy.is_empty()
    }

    /// The instances to ask, in the byte order of ids, the healthy ones of failing zones among them.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &Arc<Instance>> {
        self.healthy.iter()
    }

    /// Whether failures count by zones, not by instances.
    pub fn is_by_zone(&self) -> bool {
        self.is_by_zone
    }

    /// How many of the instances may fail; 0 where failures count by zones.
    pub fn max_errors(&self) -> usize {
        self.max_errors
    }

    /// How many zones may fail, those that fail already included; 0 where failures count by instances.
    pub fn max_unavailable_zones(&self) -> usize {
        self.max_unavailable_zones
    }

    /// The zones that fail from the start, for an instance that is not healthy; none where failures count by instances.
    pub fn failing_zones(&self) -> impl ExactSizeIterator<Item = &'a SmolStr> + use<'a, '_> {
        self.failing_zones.iter().copied()
    }
}

impl Snapshot {
    /// The instances that can serve `op` at `now` (Unix seconds), and how many of them, or of their zones, may fail while
    /// one replica of every key still answers. As rulers ask each other for rules, with [`Operation::RULER_LIST`].
    ///
    /// With zone awareness and more than one zone, failures count by zones: the healthy instances of failing zones are kept,
    /// and failing zones count among those that may fail. Costs O(n) for n instances of few zones.
    ///
    /// # Errors
    ///
    /// [`Error::EmptyRing`] without instances; [`Error::TooManyUnhealthyInstances`] if some key may have no replica left.
    ///
    /// # Source
    ///
    /// Cortex's `GetReplicationSetForListRule`.
    pub fn replication_set_for_listing(&self, op: Operation, now: i64) -> Result<ListingSet<'_>, Error> {
        let (healthy, unhealthy) = self.split_by_health(op, now)?;
        let factor = self.replication_factor();
        let zones = self.zones().len();
        let (mut max_errors, mut max_unavailable_zones) = (0, 0);
        // In a single zone a key has its replicas among the members of that zone, as without zones.
        let is_by_zone = self.options.zone_awareness_enabled && zones > 1;
        let mut failing_zones = Vec::new();
        if is_by_zone {
            let is_failing = |zone: &&SmolStr| unhealthy.iter().any(|instance| instance.zone() == *zone);
            failing_zones = self.zones().iter().filter(is_failing).collect();
            max_unavailable_zones = zones.min(factor).saturating_sub(1);
            if failing_zones.len() > max_unavailable_zones {
                return Err(Error::TooManyUnhealthyInstances);
            }
        } else {
            let required = (healthy.len() + unhealthy.len()).max(factor) - (factor - 1);
            let spare = healthy.len().checked_sub(required);
            max_errors = spare.ok_or(Error::TooManyUnhealthyInstances)?;
        }
        Ok(ListingSet { healthy, failing_zones, max_errors, max_unavailable_zones, is_by_zone })
    }
}
