//! [`Topology`]: the part of a snapshot that moves seldom, in the form in which lookups read it.

use std::sync::{Arc, OnceLock};

use smol_str::SmolStr;

use crate::members::Members;
use crate::merge::merge_winner;
use crate::operation::StateCode;
use crate::options::RingOptions;
use crate::ownership::Ownership;
use crate::rows::{Change, Edit, Rows, Rules};
use crate::snapshot::Instance;
use crate::walk::{Quota, StateCounts};

/// Members' tokens and zones as flat tables. A member is its place in the byte order of ids.
#[derive(Debug)]
pub(crate) struct Topology {
    /// Ascending, duplicates kept.
    pub(crate) tokens: Box<[u32]>,
    /// Where to begin the search for a token.
    index: Index,
    /// Per token its owner and whom a walk takes from there.
    pub(crate) rows: Rows,
    /// Sorted names.
    pub(crate) zones: Box<[SmolStr]>,
    /// Per member, its zone's place in `zones`.
    pub(crate) zone_of: Box<[u32]>,
    /// Per member, whether the walk can meet it: it owns at least one token.
    pub(crate) walkable: Box<[bool]>,
    /// How many zones share the replicas of a key.
    pub(crate) sharing: usize,
    /// Whether each zone gives one member to a walk at most, and there are no more than 64 of them.
    pub(crate) one_per_zone: bool,
    /// Tokens in excess of the distinct ones.
    pub(crate) duplicates: usize,
    ownership: OnceLock<Ownership>,
}

/// Zones and what follows from them.
struct Zoning {
    zones: Box<[SmolStr]>,
    zone_of: Box<[u32]>,
    sharing: usize,
    quota: Option<Quota>,
    factor: usize,
}

impl Topology {
    /// `members` in the byte order of their ids.
    pub(crate) fn build(members: &Members, options: &RingOptions) -> Self {
        let (claims, duplicates) = Self::claims(members, options);
        let mut walkable = vec![false; members.len()].into_boxed_slice();
        claims.iter().for_each(|&claim| walkable[claim as u32 as usize] = true);
        let zoning = Zoning::of(members, &walkable, options);
        let rows = Rows::build(claims.iter().map(|&claim| claim as u32), &zoning.rules());
        let tokens: Box<[u32]> = claims.iter().map(|&claim| (claim >> 32) as u32).collect();
        drop(claims);
        Self::assemble(tokens, rows, zoning, walkable, duplicates)
    }

    /// The topology of `members` where `known` is that of `before`, by way of what changed.
    ///
    /// Costs a copy of the tables and work for the tokens that changed. Falls back on [`Topology::build`] where much changed,
    /// or tokens are claimed twice.
    pub(crate) fn next(known: &Self, before: &Members, members: &Members, options: &RingOptions) -> Self {
        known.edited(before, members, options).unwrap_or_else(|| Self::build(members, options))
    }

    fn edited(&self, before: &Members, members: &Members, options: &RingOptions) -> Option<Self> {
        if self.duplicates > 0 || self.tokens.is_empty() {
            return None;
        }
        let Moves { keep, gone, came } = Moves::between(before, members);
        let changed: usize = gone.iter().chain(&came).map(|(_, member)| member.desc.tokens.len()).sum();
        // Beyond that the gain is not worth it, and small rings take the plain way.
        if changed > self.tokens.len() / 4 {
            return None;
        }
        let mut changes = Vec::with_capacity(changed);
        for (_, member) in &gone {
            for &token in member.desc.tokens.iter() {
                changes.push((self.position_after(token) - 1, true, token, 0));
            }
        }
        for &(place, member) in &came {
            for &token in member.desc.tokens.iter() {
                changes.push((self.position_after(token), false, token, place));
            }
        }
        // A new token stands before the one at its position; a removed one is the one at its own. So what is added to a
        // position comes first.
        changes.sort_unstable();
        let count = self.tokens.len()
            + came.iter().map(|(_, member)| member.desc.tokens.len()).sum::<usize>()
            - gone.iter().map(|(_, member)| member.desc.tokens.len()).sum::<usize>();
        if count == 0 {
            return None;
        }
        let mut tokens = Vec::with_capacity(count);
        let mut copied = 0;
        for &(position, removed, token, _) in &changes {
            tokens.extend_from_slice(&self.tokens[copied..position]);
            copied = position;
            if removed {
                copied += 1;
            } else {
                // Claimed twice.
                if tokens.last() == Some(&token) {
                    return None;
                }
                tokens.push(token);
            }
        }
        tokens.extend_from_slice(&self.tokens[copied..]);

        let walkable: Box<[bool]> = members.iter().map(|member| !member.desc.tokens.is_empty()).collect();
        let zoning = Zoning::of(members, &walkable, options);
        let changes: Vec<_> = changes
            .into_iter()
            .map(|(position, removed, _, place)| Change { position, added: (!removed).then_some(place) })
            .collect();
        let edit = Edit { keep: &keep, changes: &changes, count };
        let same_quota = zoning.sharing == self.sharing || zoning.quota == self.quota(options);
        let rows = same_quota.then(|| self.rows.edited(&edit, &zoning.rules())).flatten()?;
        Some(Self::assemble(tokens.into(), rows, zoning, walkable, 0))
    }

    fn quota(&self, options: &RingOptions) -> Option<Quota> {
        let factor = options.replication_factor.max(1);
        options.zone_awareness_enabled.then(|| Quota::new(options, factor, self.sharing))
    }

    fn assemble(
        tokens: Box<[u32]>,
        rows: Rows,
        zoning: Zoning,
        walkable: Box<[bool]>,
        duplicates: usize,
    ) -> Self {
        let one_per_zone = zoning.one_per_zone();
        let Zoning { zones, zone_of, sharing, .. } = zoning;
        let index = Index::build(&tokens);
        Self {
            tokens,
            index,
            rows,
            zones,
            zone_of,
            walkable,
            sharing,
            one_per_zone,
            duplicates,
            ownership: OnceLock::new(),
        }
    }

    /// One word per token, its owner in the low half, in order; and how many are in excess.
    ///
    /// A token that several claim belongs to the greatest id, as in Cortex, or to whom a merge would leave it.
    fn claims(members: &Members, options: &RingOptions) -> (Vec<u64>, usize) {
        let mut claims: Vec<u64> =
            Vec::with_capacity(members.iter().map(|member| member.desc.tokens.len()).sum());
        for (place, member) in (0u64..).zip(members) {
            claims.extend(member.desc.tokens.iter().map(|&token| u64::from(token) << 32 | place));
        }
        claims.sort_unstable();
        let mut duplicates = 0;
        for rivals in claims.chunk_by_mut(|a, b| a >> 32 == b >> 32).filter(|rivals| rivals.len() > 1) {
            duplicates += rivals.len() - 1;
            let owner = if options.merge_winner_owns_duplicates {
                // Claims on one token stand in the order of the ids.
                merge_winner(rivals.len(), |rival| members[rivals[rival] as u32 as usize].state())
                    .map_or(rivals[0], |winner| rivals[winner])
            } else {
                rivals[rivals.len() - 1]
            };
            rivals.fill(owner);
        }
        (claims, duplicates)
    }

    /// Whether who owns a token depends on states.
    pub(crate) fn depends_on_states(&self, options: &RingOptions) -> bool {
        self.duplicates > 0 && options.merge_winner_owns_duplicates
    }

    /// The owner of the token at `position`.
    #[inline]
    pub(crate) fn owner(&self, position: usize) -> usize {
        self.rows.owner(position)
    }

    /// Where the walk from `key` begins; as [`crate::search_token`], in fewer steps.
    #[inline]
    pub(crate) fn search(&self, key: u32) -> usize {
        let (from, to) = self.index.around(key);
        // The rows that may be asked for are fetched from memory while the tokens are.
        self.rows.touch(from, to);
        let after = from + self.tokens[from..to].partition_point(|&token| token <= key);
        if after < self.tokens.len() { after } else { 0 }
    }

    /// Position of the first token greater than `key`, or the number of tokens.
    #[inline]
    fn position_after(&self, key: u32) -> usize {
        let (from, to) = self.index.around(key);
        // What lies before `from` is not greater than the key, what lies from `to` on is.
        from + self.tokens[from..to].partition_point(|&token| token <= key)
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

impl Zoning {
    fn of(members: &Members, walkable: &[bool], options: &RingOptions) -> Self {
        // There are few zones as a rule, so nearly every name is among the first ones met.
        const LOOKED_AT: usize = 16;
        let mut zones: Vec<SmolStr> = Vec::new();
        for member in members {
            if !zones.iter().take(LOOKED_AT).any(|zone| zone == member.zone()) {
                zones.push(member.zone().clone());
            }
        }
        zones.sort_unstable();
        zones.dedup();
        let zone_of: Box<[u32]> =
            members.iter().map(|member| zones.partition_point(|zone| zone < member.zone()) as u32).collect();
        let sharing = if options.zones_with_tokens_only {
            let mut owning = vec![false; zones.len()];
            zone_of.iter().zip(walkable).for_each(|(&zone, &walkable)| owning[zone as usize] |= walkable);
            owning.iter().filter(|owning| **owning).count()
        } else {
            zones.len()
        };
        let factor = options.replication_factor.max(1);
        let quota = options.zone_awareness_enabled.then(|| Quota::new(options, factor, sharing));
        Self { zones: zones.into(), zone_of, sharing, quota, factor }
    }

    fn one_per_zone(&self) -> bool {
        self.quota == Some(Quota { base: 1, extra: 0 })
            && self.zones.len() <= 64
            && !self.zones.iter().any(SmolStr::is_empty)
    }

    fn rules(&self) -> Rules<'_> {
        Rules { zone_of: &self.zone_of, zones: &self.zones, quota: self.quota, factor: self.factor }
    }
}

/// Who came and went between two lists of members. A member whose zone or tokens changed did both.
struct Moves<'a> {
    /// Per place in the old list the place in the new one; `u32::MAX` for those who went.
    keep: Vec<u32>,
    gone: Vec<(u32, &'a Arc<Instance>)>,
    came: Vec<(u32, &'a Arc<Instance>)>,
}

impl<'a> Moves<'a> {
    fn between(before: &'a Members, after: &'a Members) -> Self {
        let mut keep = vec![u32::MAX; before.len()];
        let (mut gone, mut came) = (Vec::new(), Vec::new());
        let mut old = (0u32..).zip(before).peekable();
        for (place, member) in (0u32..).zip(after) {
            while let Some(went) = old.next_if(|(_, known)| known.id < member.id) {
                gone.push(went);
            }
            match old.next_if(|(_, known)| known.id == member.id) {
                Some((was, known))
                    if known.zone() == member.zone() && known.desc.tokens == member.desc.tokens =>
                {
                    keep[was as usize] = place;
                }
                known => {
                    gone.extend(known);
                    came.push((place, member));
                }
            }
        }
        gone.extend(old);
        Self { keep, gone, came }
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
        let mut starts = Vec::with_capacity(parts + 1);
        for (position, token) in (0u32..).zip(tokens) {
            let part = (token >> shift) as usize;
            if starts.len() <= part {
                starts.resize(part + 1, position);
            }
        }
        starts.resize(parts + 1, tokens.len() as u32);
        Self { starts: starts.into(), shift }
    }

    /// Between which positions the first token greater than `key` lies, the end included.
    #[inline]
    fn around(&self, key: u32) -> (usize, usize) {
        let part = (key >> self.shift) as usize;
        (self.starts[part] as usize, self.starts[part + 1] as usize)
    }
}

#[cfg(test)]
mod tests;
