//! Which members of a shard own a token.
//!
//! In a small part of a large ring the walk along the circle would pass thousands of tokens of others. There each member
//! names its first token after the key, and they come along in that order, as the walk would meet them. Otherwise the
//! walk is that of the ring, without the others.

use smallvec::{SmallVec, smallvec};

use crate::error::Error;
use crate::operation::{CodeSet, Operation};
use crate::options::Dialect;
use crate::replicas::Replicas;
use crate::shard::Shard;
use crate::shard::members::{ShardMembers, ZoneMembers};
use crate::walk::{Crowd, Places, StateCounts, Walk};

impl<'a> Shard<'a> {
    /// The healthy members that hold `token`, in walk order, and how many of them may fail; see
    /// [`crate::Snapshot::get`].
    ///
    /// Costs about as much as the smaller of two: a search in the tokens of each member, or a step per token of the ring
    /// from the first replica to the last.
    ///
    /// # Errors
    ///
    /// Those of [`crate::Snapshot::get`].
    pub fn get(&self, token: u32, op: Operation, now: i64) -> Result<Replicas<'a>, Error> {
        let snapshot = self.snapshot;
        let Some(members) = &self.members else { return snapshot.get(token, op, now) };
        if !members.has_tokens() {
            return Err(Error::EmptyRing);
        }
        // As in a lookup in the whole ring: dskit counts a quorum of all candidates.
        let passed_over = match snapshot.options.dialect {
            Dialect::Cortex => op.passed_over(),
            Dialect::Dskit => CodeSet::NONE,
        };
        let mut places = self.walk(members, token, op, passed_over);
        let candidates = places.len();
        places.retain(|place| snapshot.is_healthy_at(*place as usize, op, now));
        snapshot.judge(places, candidates, || self.walk(members, token, op, CodeSet::NONE), op, now)
    }

    /// Members in the order in which the walk from `token` takes them, healthy or not; see [`Walk::new`].
    fn walk(&self, members: &ShardMembers, token: u32, op: Operation, passed_over: CodeSet) -> Places {
        let (snapshot, topology) = (self.snapshot, &*self.snapshot.topology);
        let counts = self.count_states(members, snapshot.replication_factor(), passed_over);
        let crowd = Crowd {
            options: &snapshot.options,
            // Sorted by name, so the zone without one can only come first.
            first_is_nameless: members
                .zones()
                .first()
                .is_some_and(|there| topology.zones[there.zone as usize].is_empty()),
            counts: &counts,
            sharing: members.sharing(snapshot.options.zones_with_tokens_only),
            members: snapshot.members.len(),
        };
        let mut walk = Walk::new(&crowd, op, snapshot.replication_factor(), passed_over);
        let zone_aware = snapshot.options.zone_awareness_enabled;
        let mut offer = |member: usize| {
            let zone = if zone_aware { self.slot_of(members, member) } else { 0 };
            walk.offer(member, zone, snapshot.states[member])
        };
        if members.is_searched(snapshot) {
            for (_, member) in self.by_distance(members, token) {
                if offer(member as usize) {
                    break;
                }
            }
        } else {
            let (from, count) = (topology.search(token), topology.tokens.len());
            let around = (from..count).chain(0..from).map(|position| topology.owner(position));
            for member in around.filter(|member| members.contains(*member)) {
                if offer(member) {
                    break;
                }
            }
        }
        walk.finish()
    }

    /// The members with tokens in the order in which the walk from `key` meets them, each with how far it is to there.
    fn by_distance(&self, members: &ShardMembers, key: u32) -> SmallVec<[(u32, u32); 16]> {
        let mut met: SmallVec<[(u32, u32); 16]> = SmallVec::new();
        for place in members.iter() {
            let tokens = &*self.snapshot.members[place].desc.tokens;
            let after = tokens.partition_point(|token| *token <= key);
            if let Some(token) = tokens.get(after).or(tokens.first()) {
                // One beyond the key is nearest, the key itself is a full circle away.
                met.push((token.wrapping_sub(key).wrapping_sub(1), place as u32));
            }
        }
        met.sort_unstable();
        met
    }

    /// Per zone with members how many the walk can meet, as members of a state that no walk passes over; without zone
    /// awareness of all zones in one. Costs no more than a look at each of those zones, or at each member where some of
    /// theirs are passed over.
    ///
    /// Too many may be counted where there are plenty: the counts only end walks that would find nobody else.
    fn count_states(
        &self,
        members: &ShardMembers,
        factor: usize,
        passed_over: CodeSet,
    ) -> SmallVec<[StateCounts; 12]> {
        let (snapshot, topology) = (self.snapshot, &*self.snapshot.topology);
        let is_met =
            |place: &usize| topology.walkable[*place] && !passed_over.contains(snapshot.states[*place]);
        if !snapshot.options.zone_awareness_enabled {
            // Some more than the walk takes will do.
            let enough = 2 * factor + 2;
            let met = members.iter().filter(is_met).take(enough).count();
            return smallvec![as_counts(if met < enough { met } else { members.with_tokens() })];
        }
        let is_passed_over = |there: &ZoneMembers| {
            let mut counts = snapshot.walkable[there.zone as usize].iter().enumerate();
            counts.any(|(class, count)| *count > 0 && passed_over.contains_class(class))
        };
        if !members.zones().iter().any(is_passed_over) {
            return members.zones().iter().map(|there| as_counts(there.count.with_tokens)).collect();
        }
        let mut counts: SmallVec<[StateCounts; 12]> =
            SmallVec::from_elem(StateCounts::default(), members.zones().len());
        for place in members.iter().filter(is_met) {
            if let Some(met) = counts[self.slot_of(members, place)].last_mut() {
                *met += 1;
            }
        }
        counts
    }

    /// The place of the member's zone among those of the shard; every member of the shard has one.
    #[inline]
    fn slot_of(&self, members: &ShardMembers, member: usize) -> usize {
        members.slot(self.snapshot.topology.zone_of[member]).unwrap_or(0)
    }
}

/// So many of the last class, that of unknown states, which are never passed over.
#[inline]
fn as_counts(met: usize) -> StateCounts {
    let mut counts = StateCounts::default();
    if let Some(last) = counts.last_mut() {
        *last = met as u32;
    }
    counts
}
