//! [`Topology`]: the part of a snapshot that moves seldom, in the form in which lookups read it.

use std::sync::{Arc, OnceLock};

use smol_str::SmolStr;

use crate::members::Members;
use crate::operation::StateCode;
use crate::ownership::Ownership;
use crate::snapshot::StateCounts;

/// Members' tokens and zones as flat tables. A member is its index in the byte order of ids.
#[derive(Debug)]
pub(crate) struct Topology {
    /// Ascending, duplicates kept.
    pub(crate) tokens: Box<[u32]>,
    /// Where to begin the search for a token.
    index: Index,
    /// Owner of the token at the same position.
    pub(crate) owners: Owners,
    /// Sorted names.
    pub(crate) zones: Box<[SmolStr]>,
    /// Per member, its zone's place in `zones`.
    pub(crate) zone_of: Box<[u32]>,
    /// Per member, whether the walk can meet it: it owns at least one token.
    pub(crate) walkable: Box<[bool]>,
    /// Tokens in excess of the distinct ones.
    pub(crate) duplicates: usize,
    ownership: OnceLock<Ownership>,
}

/// Member indexes, as narrow as their number allows: half the memory is half the cache misses.
#[derive(Debug)]
pub(crate) enum Owners {
    Narrow(Box<[u16]>),
    Wide(Box<[u32]>),
}

impl Owners {
    #[inline]
    pub(crate) fn get(&self, position: usize) -> usize {
        match self {
            Self::Narrow(owners) => usize::from(owners[position]),
            Self::Wide(owners) => owners[position] as usize,
        }
    }
}

impl Topology {
    /// `members` in the byte order of their ids.
    pub(crate) fn build(members: &Members) -> Self {
        let mut zones: Vec<_> = members.iter().map(|member| member.zone().clone()).collect();
        zones.sort_unstable();
        zones.dedup();
        let zone_of =
            members.iter().map(|member| zones.partition_point(|zone| zone < member.zone()) as u32).collect();

        // One word per token, its owner in the low half: sorting the words sorts the tokens, and puts the greatest id
        // last among those that claim the same one.
        let mut claims: Vec<u64> =
            Vec::with_capacity(members.iter().map(|member| member.desc.tokens.len()).sum());
        for (index, member) in (0u64..).zip(members) {
            claims.extend(member.desc.tokens.iter().map(|&token| u64::from(token) << 32 | index));
        }
        claims.sort_unstable();
        let mut duplicates = 0;
        for at in (1..claims.len()).rev() {
            if claims[at] >> 32 == claims[at - 1] >> 32 {
                claims[at - 1] = claims[at];
                duplicates += 1;
            }
        }

        let mut walkable = vec![false; members.len()].into_boxed_slice();
        claims.iter().for_each(|&claim| walkable[claim as u32 as usize] = true);
        let owners = if members.len() <= usize::from(u16::MAX) + 1 {
            Owners::Narrow(claims.iter().map(|&claim| claim as u16).collect())
        } else {
            Owners::Wide(claims.iter().map(|&claim| claim as u32).collect())
        };
        let tokens: Box<[u32]> = claims.iter().map(|&claim| (claim >> 32) as u32).collect();
        Self {
            index: Index::build(&tokens),
            tokens,
            owners,
            zones: zones.into(),
            zone_of,
            walkable,
            duplicates,
            ownership: OnceLock::new(),
        }
    }

    /// Where the walk from `key` begins; as [`crate::search_token`], in fewer steps.
    #[inline]
    pub(crate) fn search(&self, key: u32) -> usize {
        let (from, to) = self.index.around(key);
        // What lies before `from` is not greater than the key, what lies from `to` on is.
        let after = from + self.tokens[from..to].partition_point(|&token| token <= key);
        if after < self.tokens.len() { after } else { 0 }
    }

    /// Per zone and class of state, how many members the walk can meet.
    pub(crate) fn count_states(&self, states: &[StateCode]) -> Arc<[StateCounts]> {
        let mut counts = vec![StateCounts::default(); self.zones.len()];
        for ((&zone, &walkable), state) in self.zone_of.iter().zip(&self.walkable).zip(states) {
            counts[zone as usize][state.class()] += u32::from(walkable);
        }
        counts.into()
    }

    pub(crate) fn ownership(&self) -> &Ownership {
        self.ownership.get_or_init(|| Ownership::count(self))
    }
}

/// The circle in equal parts, and where in the list of tokens each part begins. Tokens lie about evenly, so a search looks
/// at one line of memory here and one there; when they do not, it is a binary search of what lies in one part.
#[derive(Debug)]
struct Index {
    starts: Box<[u32]>,
    shift: u32,
}

impl Index {
    /// How many tokens a part holds on average: as many as a line of memory.
    const TOKENS_PER_PART: usize = 16;

    fn build(tokens: &[u32]) -> Self {
        let parts = (tokens.len() / Self::TOKENS_PER_PART).next_power_of_two().clamp(2, 1 << 24);
        let shift = 32 - parts.ilog2();
        let start = |part: usize| tokens.partition_point(|&token| ((token >> shift) as usize) < part) as u32;
        Self { starts: (0..=parts).map(start).collect(), shift }
    }

    /// Between which positions the first token greater than `key` lies, the end included.
    #[inline]
    fn around(&self, key: u32) -> (usize, usize) {
        let part = (key >> self.shift) as usize;
        (self.starts[part] as usize, self.starts[part + 1] as usize)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use crate::desc::{Desc, InstanceDesc};
    use crate::options::RingOptions;
    use crate::snapshot::Snapshot;
    use crate::token::search_token;

    proptest! {
        #[test]
        fn the_indexed_search_finds_what_the_plain_one_finds(
            spread in prop::collection::vec(any::<u32>(), 0..500),
            crowd in prop::collection::vec(any::<u8>(), 0..300),
            at: u32, keys in prop::collection::vec(any::<u32>(), 20),
        ) {
            let crowd = crowd.into_iter().map(|token| at.wrapping_add(token.into()));
            let tokens = spread.iter().copied().chain(crowd).collect();
            let desc: Desc = [("a", InstanceDesc { tokens, ..InstanceDesc::default() })].into_iter().collect();
            let snapshot = Snapshot::first_sight(&desc, 0, &RingOptions::default());
            let near = snapshot.tokens().iter().flat_map(|&token| [token.wrapping_sub(1), token, token.wrapping_add(1)]);
            for key in near.chain(keys).chain([0, u32::MAX]) {
                prop_assert_eq!(snapshot.topology.search(key), search_token(snapshot.tokens(), key));
            }
        }
    }
}
