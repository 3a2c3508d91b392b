//! Which members of a shard own a token.
//!
//! In a small part of a large ring the walk along the circle would pass thousands of tokens of others. There each member
//! names its first token after the key, and they come along in that order, as the walk would meet them. Otherwise the
//! walk is that of the ring, without the others.

use smallvec::SmallVec;

use crate::error::Error;
use crate::operation::{CodeSet, Operation};
use crate::options::Dialect;
use crate::replicas::Replicas;
use crate::shard::Shard;
use crate::shard::members::ShardMembers;
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
        let counts = self.count_states(members, passed_over);
        let crowd = Crowd {
            options: &snapshot.options,
            zones: &topology.zones,
            counts: &counts,
            sharing: members.sharing(snapshot.options.zones_with_tokens_only),
            members: snapshot.members.len(),
        };
        let mut walk = Walk::new(&crowd, op, snapshot.replication_factor(), passed_over);
        let mut offer =
            |member: usize| walk.offer(member, topology.zone_of[member] as usize, snapshot.states[member]);
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

    /// Per zone of the ring and class of state, how many members the walk can meet.
    fn count_states(&self, members: &ShardMembers, passed_over: CodeSet) -> SmallVec<[StateCounts; 8]> {
        let (snapshot, topology) = (self.snapshot, &*self.snapshot.topology);
        let mut counts: SmallVec<[StateCounts; 8]> =
            SmallVec::from_elem(StateCounts::default(), topology.zones.len());
        let is_passed_over = |(class, count): (usize, &u32)| *count > 0 && passed_over.contains_class(class);
        if snapshot.walkable.iter().any(|zone| zone.iter().enumerate().any(is_passed_over)) {
            for place in members.iter().filter(|place| topology.walkable[*place]) {
                counts[topology.zone_of[place] as usize][snapshot.states[place].class()] += 1;
            }
        } else {
            // Only sums matter then; the last class is that of unknown states, which are never passed over.
            for there in members.zones() {
                if let Some(all) = counts[there.zone as usize].last_mut() {
                    *all = there.count.with_tokens as u32;
                }
            }
        }
        counts
    }
}
