//! Which instances own a token: the walk along the circle, most of it precomputed.

use crate::error::Error;
use crate::health::fresh_from;
use crate::operation::{CodeSet, Operation};
use crate::options::Dialect;
use crate::replicas::Replicas;
use crate::rows::MAX_WIDTH;
use crate::snapshot::Snapshot;
use crate::strategy::Strategy;
use crate::walk::{Crowd, Places, StateCounts, Walk};

impl Snapshot {
    /// The healthy instances that hold `token`, in walk order, and how many of them may fail.
    ///
    /// `now` (Unix seconds) decides which heartbeats are fresh. Costs a search among the tokens and a few reads, whatever
    /// the number of instances; for a replication factor above eight, and where instances extend the set, the tokens walked
    /// over too, up to the last one that can add an instance. Takes no lock; allocates only for sets of more than eight, and
    /// for walks through more than eight zones.
    ///
    /// # Errors
    ///
    /// [`Error::EmptyRing`] without tokens; [`Error::TooFewReplicas`] or, where one is enough,
    /// [`Error::NoHealthyReplica`] if too few owners are healthy.
    ///
    /// # Source
    ///
    /// The walk of Cortex's `Ring.Get` and its replication strategies; in the dskit dialect those of dskit.
    #[inline]
    pub fn get(&self, token: u32, op: Operation, now: i64) -> Result<Replicas<'_>, Error> {
        let topology = &*self.topology;
        if topology.tokens.is_empty() {
            return Err(Error::EmptyRing);
        }
        let position = topology.search(token);
        let (passed_over, fresh_from) =
            (self.passed_over(op), fresh_from(now, self.options.heartbeat_timeout));
        let (mut buffer, mut len, mut passed) = ([0; MAX_WIDTH], 0, false);
        // The row holds unless somebody in it makes room for others. Who is not healthy is left out; the walk would have
        // taken them all the same.
        let holds = topology.rows.is_complete()
            && topology.rows.all(position, |member| {
                let state = self.states[member];
                if passed_over.contains(state) {
                    passed = true;
                    return true;
                }
                // Without a branch: who is not healthy is overwritten by the next.
                buffer[len % MAX_WIDTH] = member as u32;
                len += usize::from(op.accepts_code(state) & (self.seen[member] >= fresh_from));
                !op.extends_on_code(state)
            });
        if holds && !(passed && self.may_be_filled(position, passed_over)) {
            let places = Places::from_buf_and_len(buffer, len.min(MAX_WIDTH));
            let everybody = || self.walk(position, op, self.replication_factor(), CodeSet::NONE);
            return self.judge(places, topology.rows.width(), everybody, op, now);
        }
        self.get_by_walk(position, op, self.replication_factor(), now)
    }

    /// Whether others may take the places of those in the row at `position` whose states are in `passed_over`. They may not
    /// where each zone gives one member, and each has given it or has nobody else; as when a whole zone is LEAVING.
    #[inline]
    fn may_be_filled(&self, position: usize, passed_over: CodeSet) -> bool {
        let topology = &*self.topology;
        if !topology.one_per_zone {
            return true;
        }
        let mut given = 0u64;
        topology.rows.all(position, |member| {
            let passed = passed_over.contains(self.states[member]);
            given |= u64::from(!passed) << topology.zone_of[member];
            true
        });
        let has_others = |counts: &StateCounts| {
            counts.iter().enumerate().any(|(class, &count)| count > 0 && !passed_over.contains_class(class))
        };
        self.walkable.iter().enumerate().any(|(zone, counts)| given >> zone & 1 == 0 && has_others(counts))
    }

    /// The states that a walk may leave out. In the dskit dialect none, because it counts a quorum of all candidates, also
    /// of those that only make room for others.
    #[inline]
    fn passed_over(&self, op: Operation) -> CodeSet {
        match self.options.dialect {
            Dialect::Cortex => op.passed_over(),
            Dialect::Dskit => CodeSet::NONE,
        }
    }

    /// As [`Snapshot::get`], for `factor` replicas instead of as many as the ring is set to. Less than that is taken as that.
    ///
    /// # Errors
    ///
    /// Those of [`Snapshot::get`], and [`Error::FactorTooLarge`] where the strategy asks for a quorum of the factor that the
    /// ring is set to.
    ///
    /// # Source
    ///
    /// dskit's `GetWithOptions`.
    pub fn get_with_factor(
        &self,
        token: u32,
        op: Operation,
        factor: usize,
        now: i64,
    ) -> Result<Replicas<'_>, Error> {
        let configured = self.replication_factor();
        if factor <= configured {
            return self.get(token, op, now);
        }
        if self.options.strategy == Strategy::Quorum {
            return Err(Error::FactorTooLarge { factor, configured });
        }
        if self.topology.tokens.is_empty() {
            return Err(Error::EmptyRing);
        }
        self.get_by_walk(self.topology.search(token), op, factor, now)
    }

    fn get_by_walk(
        &self,
        position: usize,
        op: Operation,
        factor: usize,
        now: i64,
    ) -> Result<Replicas<'_>, Error> {
        let mut places = self.walk(position, op, factor, self.passed_over(op));
        let candidates = places.len();
        places.retain(|place| self.is_healthy_at(*place as usize, op, now));
        self.judge(places, candidates, || self.walk(position, op, factor, CodeSet::NONE), op, now)
    }

    /// `places` if they are enough of `candidates`; `all` finds everybody who was considered.
    #[inline]
    pub(crate) fn judge(
        &self,
        places: Places,
        candidates: usize,
        all: impl FnOnce() -> Places,
        op: Operation,
        now: i64,
    ) -> Result<Replicas<'_>, Error> {
        let counted = match self.options.dialect {
            Dialect::Cortex => places.len(),
            Dialect::Dskit => candidates,
        };
        match self.options.strategy.tolerated_of(self.replication_factor(), counted, places.len()) {
            Ok(max_errors) => Ok(Replicas { snapshot: self, places, max_errors, max_unavailable_zones: 0 }),
            Err(required) => Err(self.too_few(&all(), op, now, required, places.len())),
        }
    }

    #[cold]
    pub(crate) fn too_few(
        &self,
        all: &Places,
        op: Operation,
        now: i64,
        required: usize,
        found: usize,
    ) -> Error {
        let dead = all.iter().filter(|&&place| !self.is_healthy_at(place as usize, op, now));
        let addresses: Vec<_> = dead.map(|&place| self.members[place as usize].addr().as_str()).collect();
        let unhealthy = addresses.join(",");
        match self.options.strategy {
            Strategy::Quorum => {
                let zone_aware = self.options.zone_awareness_enabled;
                Error::TooFewReplicas { required, found, zone_aware, unhealthy }
            }
            Strategy::IgnoreUnhealthy => Error::NoHealthyReplica { unhealthy },
        }
    }

    fn crowd(&self) -> Crowd<'_> {
        Crowd {
            options: &self.options,
            first_is_nameless: self.topology.zones.first().is_some_and(smol_str::SmolStr::is_empty),
            counts: &self.walkable,
            sharing: self.topology.sharing,
            members: self.members.len(),
        }
    }

    /// Members in the order in which the walk from `position` takes them, healthy or not; see [`Walk::new`].
    fn walk(&self, position: usize, op: Operation, factor: usize, passed_over: CodeSet) -> Places {
        let topology = &*self.topology;
        let zone_of = |member: usize| topology.zone_of[member] as usize;
        if topology.rows.is_complete() && factor == self.replication_factor() {
            // Whoever is left of the row when those passed over are taken out is among those whom the walk takes. If there
            // is no room for others, or nobody to fill it, that is all of them.
            let mut walk = Walk::new(&self.crowd(), op, factor, passed_over);
            let plain = topology.rows.all(position, |member| {
                let state = self.states[member];
                walk.offer(member, zone_of(member), state);
                passed_over.contains(state) || !op.extends_on_code(state)
            });
            if plain && walk.is_over() {
                return walk.finish();
            }
        }
        let mut walk = Walk::new(&self.crowd(), op, factor, passed_over);
        let count = topology.tokens.len();
        let around = (position..count).chain(0..position);
        for member in around.map(|position| topology.owner(position)) {
            if walk.offer(member, zone_of(member), self.states[member]) {
                break;
            }
        }
        walk.finish()
    }
}
