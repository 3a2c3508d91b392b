//! [`Facts`]: what selecting a shard wants to know about the ring as a whole.

use crate::desc::State;
use crate::snapshot::Snapshot;

/// What selecting a shard wants to know about the ring as a whole; changes only when shards do.
#[derive(Debug, Default)]
pub(crate) struct Facts {
    /// Per zone.
    zones: Box<[Headcount]>,
    all: Headcount,
    /// When the member known longest registered, in Unix seconds; 0 if that is unknown of one.
    pub(crate) oldest_registered: i64,
    /// How many are read-only in dskit's way.
    pub(crate) read_only: usize,
    /// How many are in the state READONLY.
    pub(crate) read_only_states: usize,
    /// When the one that is read-only longest became so, in Unix seconds; 0 if that is unknown of one.
    pub(crate) oldest_read_only_updated: i64,
}

/// How many members there are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Headcount {
    pub(crate) members: usize,
    /// How many of them own a token.
    pub(crate) with_tokens: usize,
}

impl Headcount {
    pub(crate) fn add(&mut self, with_tokens: bool) {
        self.members += 1;
        self.with_tokens += usize::from(with_tokens);
    }
}

impl Facts {
    /// Costs O(n) for n members.
    pub(crate) fn gather(snapshot: &Snapshot) -> Self {
        let topology = &*snapshot.topology;
        let mut zones = vec![Headcount::default(); topology.zones.len()];
        let mut all = Headcount::default();
        for (zone, walkable) in topology.zone_of.iter().zip(&topology.walkable) {
            zones[*zone as usize].add(*walkable);
            all.add(*walkable);
        }
        let mut facts = Self {
            zones: zones.into(),
            all,
            oldest_registered: i64::MAX,
            read_only: 0,
            read_only_states: 0,
            oldest_read_only_updated: i64::MAX,
        };
        for entry in snapshot.members.iter().map(|member| &*member.desc) {
            facts.oldest_registered = facts.oldest_registered.min(entry.registered_at());
            facts.read_only_states += usize::from(entry.state == State::ReadOnly);
            if entry.read_only {
                facts.read_only += 1;
                let changed = entry.read_only_updated_timestamp.max(0);
                facts.oldest_read_only_updated = facts.oldest_read_only_updated.min(changed);
            }
        }
        for oldest in [&mut facts.oldest_registered, &mut facts.oldest_read_only_updated] {
            *oldest = Some(*oldest).filter(|at| *at < i64::MAX).unwrap_or(0);
        }
        facts
    }

    /// How many members `zone` has; all of them for `None`.
    #[inline]
    pub(crate) fn of(&self, zone: Option<u32>) -> Headcount {
        zone.map_or(self.all, |zone| self.zones[zone as usize])
    }
}
