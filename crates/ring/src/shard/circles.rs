//! [`Circles`]: the tokens of each zone by themselves, for selections to walk along.
//!
//! In most rings a selection does better without: with few zones and no token claimed twice, the walk through a zone passes
//! some tokens of others, and finds where to begin in fewer steps. Elsewhere it would pass nearly the whole ring for every
//! member it draws.

use std::sync::OnceLock;

use crate::shard::members::PlaceSet;
use crate::snapshot::Snapshot;
use crate::topology::Topology;

/// What is worked out about the tokens of a ring when the first selection or lookup needs it. Belongs to one topology.
///
/// Nobody waits for anybody: two who need the same at once both work it out.
#[derive(Debug, Default)]
pub(crate) struct Circles {
    rivals: OnceLock<Rivals>,
    lists: OnceLock<Lists>,
}

impl Circles {
    /// The positions of the tokens that `zone` claims (`None`: that anybody does), ascending, each token once.
    ///
    /// Costs O(t) for t tokens at the first call, and a sort of the claims to tokens claimed twice.
    pub(crate) fn of(&self, snapshot: &Snapshot, zone: Option<u32>) -> &[u32] {
        let by_zone = snapshot.options.zone_awareness_enabled;
        let lists = computed(&self.lists, || Lists::build(snapshot, self.rivals(snapshot), by_zone));
        lists.of(zone)
    }

    /// Whether the member at `place` claims a token that is claimed twice.
    #[inline]
    pub(crate) fn is_rival(&self, snapshot: &Snapshot, place: usize) -> bool {
        snapshot.topology.duplicates > 0 && self.rivals(snapshot).members.contains(place)
    }

    fn rivals(&self, snapshot: &Snapshot) -> &Rivals {
        computed(&self.rivals, || Rivals::find(snapshot))
    }
}

/// What `cell` holds, worked out by everybody who finds it empty.
fn computed<T>(cell: &OnceLock<T>, compute: impl FnOnce() -> T) -> &T {
    match cell.get() {
        Some(known) => known,
        None => {
            let found = compute();
            cell.get_or_init(|| found)
        }
    }
}

/// Who claims tokens that are claimed twice.
#[derive(Debug)]
struct Rivals {
    members: PlaceSet,
    /// Position of the token (the first of the equal ones) and zone of who claims it; ascending, each pair once.
    claims: Box<[(u32, u32)]>,
}

impl Rivals {
    fn find(snapshot: &Snapshot) -> Self {
        let topology = &*snapshot.topology;
        let mut members = PlaceSet::new(snapshot.members.len());
        if topology.duplicates == 0 {
            return Self { members, claims: Box::default() };
        }
        let contested: Vec<(u32, u32)> = runs(&topology.tokens)
            .filter(|run| run.1 > 1)
            .map(|(at, _)| (topology.tokens[at], at as u32))
            .collect();
        let mut claims = Vec::new();
        for (place, (member, &zone)) in snapshot.members.iter().zip(&topology.zone_of).enumerate() {
            // An entry may hold a token many times over.
            let mut last = None;
            for token in member.desc.tokens.iter() {
                if last.replace(token) == Some(token) {
                    continue;
                }
                if let Ok(found) = contested.binary_search_by_key(token, |(token, _)| *token) {
                    members.insert(place);
                    claims.push((contested[found].1, zone));
                }
            }
        }
        claims.sort_unstable();
        claims.dedup();
        Self { members, claims: claims.into() }
    }
}

/// Positions of tokens, of one zone after the other.
#[derive(Debug)]
struct Lists {
    positions: Box<[u32]>,
    /// Where each zone begins, and the end.
    starts: Box<[u32]>,
}

impl Lists {
    fn build(snapshot: &Snapshot, rivals: &Rivals, by_zone: bool) -> Self {
        let topology = &*snapshot.topology;
        if !by_zone {
            let positions: Box<[u32]> = runs(&topology.tokens).map(|(at, _)| at as u32).collect();
            let starts = [0, positions.len() as u32].into();
            return Self { positions, starts };
        }
        // One slot further than where the counts belong, so that they become the starts by being filled in.
        let mut next = vec![0u32; topology.zones.len() + 2];
        each_claim(topology, rivals, |_, zone| next[zone as usize + 2] += 1);
        (2..next.len()).for_each(|zone| next[zone] += next[zone - 1]);
        let mut positions = vec![0; next.last().map_or(0, |all| *all as usize)];
        each_claim(topology, rivals, |position, zone| {
            let slot = &mut next[zone as usize + 1];
            positions[*slot as usize] = position;
            *slot += 1;
        });
        next.pop();
        Self { positions: positions.into(), starts: next.into() }
    }

    fn of(&self, zone: Option<u32>) -> &[u32] {
        let zone = zone.map_or(0, |zone| zone as usize);
        &self.positions[self.starts[zone] as usize..self.starts[zone + 1] as usize]
    }
}

/// Calls `found` with position and zone for each token and each zone that claims it, by ascending position.
fn each_claim(topology: &Topology, rivals: &Rivals, mut found: impl FnMut(u32, u32)) {
    let mut claims = rivals.claims.iter().peekable();
    for (at, len) in runs(&topology.tokens) {
        if len == 1 {
            found(at as u32, topology.zone_of[topology.owner(at)]);
        }
        while let Some(&&(position, zone)) = claims.peek().filter(|claim| claim.0 as usize == at) {
            found(position, zone);
            claims.next();
        }
    }
}

/// Where each run of equal tokens begins, and how long it is.
fn runs(tokens: &[u32]) -> impl Iterator<Item = (usize, usize)> {
    tokens.chunk_by(|a, b| a == b).scan(0, |at, run| {
        let begun = *at;
        *at += run.len();
        Some((begun, run.len()))
    })
}
