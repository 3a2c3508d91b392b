//! Questions about a ring as a whole: who is healthy, and which instances together hold every key.

use std::sync::Arc;

use smallvec::SmallVec;

use crate::desc::State;
use crate::error::Error;
use crate::health::fresh_from;
use crate::operation::{Operation, StateCode};
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
        let fresh_from = fresh_from(now, self.options.heartbeat_timeout);
        if self.is_all_active(op) && self.seen.all_since(fresh_from) && !self.options.zones_with_tokens_only {
            return self.everybody();
        }
        let members = self.states.iter().zip(self.seen.iter());
        let members = (0..)
            .zip(members)
            .map(|(place, (&state, seen))| (place, op.accepts_code(state) && seen >= fresh_from));
        let owns = |zone: usize| self.walkable[zone].iter().any(|count| *count > 0);
        let zone_of = |place: u32| self.topology.zone_of[place as usize] as usize;
        self.choose(members, self.members.len(), self.topology.zones.len(), owns, zone_of)
    }

    /// Whether all members are ACTIVE, and so serve `op`.
    fn is_all_active(&self, op: Operation) -> bool {
        op.accepts(State::Active)
            && self.states.iter().fold(true, |all, state| all & (*state == StateCode::ACTIVE))
    }

    /// The set of the whole ring when everybody is healthy; as [`Snapshot::choose`] has it, without looking at each.
    fn everybody(&self) -> Result<Replicas<'_>, Error> {
        let (factor, count) = (self.replication_factor(), self.members.len());
        let places: Vec<u32> = (0..count as u32).collect();
        let (max_errors, max_unavailable_zones) = if self.options.zone_awareness_enabled {
            (0, self.topology.zones.len().min(factor) / 2)
        } else {
            let required = count.max(factor) - factor / 2;
            (count.checked_sub(required).ok_or(Error::TooManyUnhealthyInstances)?, 0)
        };
        Ok(Replicas { snapshot: self, places: places.into(), max_errors, max_unavailable_zones })
    }

    /// The set chosen from `count` members, given by place and whether they are healthy, in `zones` zones, of which
    /// `owns` tells whether they own a token, and `zone_of` in which one a member is.
    ///
    /// A zone with one unhealthy member is left out as a whole. So is one that has no share of the replicas: its members
    /// hold nothing, and their answers would stand for those of a zone that does.
    pub(crate) fn choose(
        &self,
        members: impl Iterator<Item = (u32, bool)>,
        count: usize,
        zones: usize,
        owns: impl Fn(usize) -> bool,
        zone_of: impl Fn(u32) -> usize,
    ) -> Result<Replicas<'_>, Error> {
        let factor = self.replication_factor();
        let mut places = Places::with_capacity(count);
        if !self.options.zone_awareness_enabled {
            places.extend(members.filter(|(_, is_healthy)| *is_healthy).map(|(place, _)| place));
            let required = count.max(factor) - factor / 2;
            let max_errors = places.len().checked_sub(required).ok_or(Error::TooManyUnhealthyInstances)?;
            return Ok(Replicas { snapshot: self, places, max_errors, max_unavailable_zones: 0 });
        }
        let mut left_out: SmallVec<[bool; 16]> = SmallVec::from_elem(false, zones);
        if self.options.zones_with_tokens_only {
            left_out.iter_mut().enumerate().for_each(|(zone, out)| *out = !owns(zone));
        }
        let idle = left_out.iter().filter(|out| **out).count();
        for (place, is_healthy) in members {
            if is_healthy {
                places.push(place);
            } else {
                left_out[zone_of(place)] = true;
            }
        }
        let out = left_out.iter().filter(|out| **out).count();
        let tolerated = (zones - idle).min(factor) / 2;
        let max_unavailable_zones =
            tolerated.checked_sub(out - idle).ok_or(Error::TooManyUnhealthyInstances)?;
        if out > 0 {
            places.retain(|place| !left_out[zone_of(*place)]);
        }
        Ok(Replicas { snapshot: self, places, max_errors: 0, max_unavailable_zones })
    }
}
