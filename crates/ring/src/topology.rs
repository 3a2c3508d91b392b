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
        Self {
            tokens: claims.iter().map(|&claim| (claim >> 32) as u32).collect(),
            owners,
            zones: zones.into(),
            zone_of,
            walkable,
            duplicates,
            ownership: OnceLock::new(),
        }
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
