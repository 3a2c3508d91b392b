//! Which members a shard has. Pure: a shard follows from the tenant, the size, and who owns which token.

use std::time::Duration;

use md5::{Digest as _, Md5};

use crate::desc::State;
use crate::go_rand::GoRand;
use crate::options::Dialect;
use crate::shard::facts::Facts;
use crate::shard::members::PlaceSet;
use crate::snapshot::Snapshot;
use crate::topology::Topology;

/// The seed from which the shard of `identifier` in `zone` is drawn; `zone` is empty where replicas are not spread over
/// zones.
///
/// # Source
///
/// Cortex's `ShuffleShardSeed`: the first eight bytes of an MD5.
pub fn shard_seed(identifier: &str, zone: &str) -> i64 {
    let mut md5 = Md5::new_with_prefix(identifier);
    if !zone.is_empty() {
        md5.update([0]);
        md5.update(zone);
    }
    let digest: [u8; 16] = md5.finalize().into();
    (u128::from_be_bytes(digest) >> 64) as i64
}

/// How many members a shard of `size` has in a ring of `zones` zones that all have enough: as many from each, so `size`
/// is rounded up. 0 where nothing is sharded.
pub fn expected_instances(size: i64, zones: usize) -> usize {
    let size = usize::try_from(size).unwrap_or(0);
    size.div_ceil(zones.max(1)).saturating_mul(zones)
}

/// How a shard is put together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// As many members from each zone.
    Plain,
    /// `size` members, dealt out to the zones in their order.
    ZoneStable,
    /// As plain, and whoever was in the shard within so long before now.
    Lookback(Duration),
}

/// A shard asked for: `now` is in Unix seconds and matters with look-back only.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Request<'a> {
    pub(crate) identifier: &'a str,
    /// At least 1, or 0 where all members are wanted that may be in a shard.
    pub(crate) size: usize,
    pub(crate) mode: Mode,
    pub(crate) now: i64,
}

impl<'a> Request<'a> {
    /// A `size` of 0 or less asks for no shard in particular.
    pub(crate) fn new(identifier: &'a str, size: i64, mode: Mode, now: i64) -> Self {
        Self { identifier, size: usize::try_from(size).unwrap_or(0), mode, now }
    }

    /// The start of the window looked back at, in Unix seconds.
    pub(crate) fn window_start(&self) -> Option<i64> {
        let Mode::Lookback(period) = self.mode else { return None };
        let whole_secs = i64::try_from(period.as_secs()).unwrap_or(i64::MAX);
        let begun = i64::from(period.subsec_nanos() > 0);
        Some(self.now.saturating_sub(whole_secs).saturating_sub(begun))
    }

    /// Until when (Unix seconds, itself excluded) a selection holds whose earliest event in the window was at `at`.
    pub(crate) fn valid_until(&self, at: i64, dialect: Dialect) -> i64 {
        let Mode::Lookback(period) = self.mode else { return i64::MAX };
        let whole_secs = i64::try_from(period.as_secs()).unwrap_or(i64::MAX);
        let end = at.saturating_add(whole_secs);
        match dialect {
            Dialect::Cortex => end,
            // Valid for windows that begin no later than the event.
            Dialect::Dskit => end.saturating_add(1 + i64::from(period.subsec_nanos() > 0)),
        }
    }

    /// Whether the shard is the ring itself.
    pub(crate) fn wants_all(&self, snapshot: &Snapshot, facts: &Facts) -> bool {
        let everybody = snapshot.members.len();
        match (snapshot.options.dialect, self.window_start()) {
            (Dialect::Cortex, _) => self.size == 0 || everybody <= self.size,
            (Dialect::Dskit, window) => match (self.size, window) {
                (0, None) => facts.read_only == 0,
                (0, Some(start)) => facts.read_only == 0 || facts.oldest_read_only_updated >= start,
                (_, None) => false,
                (_, Some(start)) => facts.oldest_registered > 0 && facts.oldest_registered >= start,
            },
        }
    }
}

/// Members selected, and what the selection rests on.
#[derive(Debug)]
pub(crate) struct Selection {
    pub(crate) members: PlaceSet,
    /// The earliest event, in Unix seconds, that falls into the window and made a member extend the shard: once the
    /// window begins later, the shard may be smaller.
    pub(crate) earliest_in_window: Option<i64>,
}

/// Selects the members of a shard that is not the whole ring; see [`Request::wants_all`].
///
/// Costs per member drawn a search among the tokens and the tokens walked over, most often as many as there are zones.
/// Copies no tokens.
///
/// # Source
///
/// Cortex's `shuffleShard`, or dskit's.
pub(crate) fn select(snapshot: &Snapshot, facts: &Facts, request: &Request<'_>) -> Selection {
    let topology = &*snapshot.topology;
    let mut selector = Selector {
        snapshot,
        topology,
        facts,
        window_start: request.window_start(),
        dskit: snapshot.options.dialect == Dialect::Dskit,
        chosen: PlaceSet::new(snapshot.members.len()),
        earliest_in_window: None,
    };
    if request.size == 0 {
        selector.take_eligible(None);
    } else if snapshot.options.zone_awareness_enabled {
        let zones = topology.zones.len().max(1);
        for (zone, name) in (0u32..).zip(&topology.zones) {
            let share = match request.mode {
                Mode::ZoneStable => {
                    request.size / zones + usize::from((zone as usize) < request.size % zones)
                }
                Mode::Plain | Mode::Lookback(_) => request.size.div_ceil(zones),
            };
            selector.draw(request.identifier, name, Some(zone), share);
        }
    } else {
        selector.draw(request.identifier, "", None, request.size);
    }
    Selection { members: selector.chosen, earliest_in_window: selector.earliest_in_window }
}

struct Selector<'a> {
    snapshot: &'a Snapshot,
    topology: &'a Topology,
    facts: &'a Facts,
    window_start: Option<i64>,
    dskit: bool,
    chosen: PlaceSet,
    earliest_in_window: Option<i64>,
}

impl Selector<'_> {
    /// Draws `share` members of `zone` (`None`: of all), and those that extend the shard.
    fn draw(&mut self, identifier: &str, name: &str, zone: Option<u32>, share: usize) {
        let there = self.facts.of(zone);
        if self.dskit && share >= there.members {
            return self.take_eligible(zone);
        }
        // Where tokens are claimed twice, the walk through one zone may meet members of another.
        let countable = self.topology.duplicates == 0;
        let mut left = if countable { there.with_tokens } else { usize::MAX };
        let mut rand = GoRand::new(shard_seed(identifier, name));
        for _ in 0..share {
            if !self.draw_one(rand.next_u32(), zone, &mut left) {
                break;
            }
        }
    }

    /// Chooses the first member after `key` that is not chosen yet, and goes on while the chosen extend the shard.
    /// False when nobody is left.
    fn draw_one(&mut self, key: u32, zone: Option<u32>, left: &mut usize) -> bool {
        let count = self.topology.tokens.len();
        let mut position = if *left == 0 || count == 0 { 0 } else { self.topology.search(key) };
        for _ in 0..count {
            if *left == 0 {
                break;
            }
            let member = self.topology.owner(position);
            let is_candidate = zone.is_none_or(|zone| {
                self.topology.zone_of[member] == zone || self.is_shared_with(zone, position)
            }) && !self.chosen.contains(member)
                && self.is_eligible(member);
            if is_candidate {
                *left -= 1;
                if !self.choose(member) {
                    return true;
                }
            }
            position = if position + 1 == count { 0 } else { position + 1 };
        }
        false
    }

    /// Whether the token at `position` is claimed in `zone` too, although its owner is elsewhere. The walk through the
    /// zone then meets that owner, as it does in Cortex.
    #[inline]
    fn is_shared_with(&self, zone: u32, position: usize) -> bool {
        self.topology.duplicates > 0 && self.is_duplicate(position) && self.is_claimed_in(zone, position)
    }

    fn is_duplicate(&self, position: usize) -> bool {
        let tokens = &self.topology.tokens;
        let same = |other: Option<&u32>| other == tokens.get(position);
        (position > 0 && same(tokens.get(position - 1))) || same(tokens.get(position + 1))
    }

    #[cold]
    fn is_claimed_in(&self, zone: u32, position: usize) -> bool {
        let token = self.topology.tokens[position];
        let members = self.snapshot.members.iter().zip(&self.topology.zone_of);
        members
            .filter(|(_, of)| **of == zone)
            // Stored lists need not be sorted, so they are not searched by halves.
            .any(|(member, _)| member.desc.tokens.contains(&token))
    }

    /// Chooses everybody in `zone` (`None`: at all) who may be in a shard.
    fn take_eligible(&mut self, zone: Option<u32>) {
        for (place, of) in self.topology.zone_of.iter().enumerate() {
            let in_zone = zone.is_none_or(|zone| *of == zone);
            if in_zone && self.is_eligible(place) {
                self.choose(place);
            }
        }
    }

    /// Whether a member may be in the shard at all. dskit leaves those out that are read-only for longer than the window.
    #[inline]
    fn is_eligible(&self, member: usize) -> bool {
        // Most often nobody is read-only, and no entry needs to be looked at.
        if !self.dskit || self.facts.read_only == 0 {
            return true;
        }
        let entry = &*self.snapshot.members[member].desc;
        !entry.read_only
            || self.window_start.is_some_and(|start| {
                let changed = entry.read_only_updated_timestamp;
                changed <= 0 || changed >= start
            })
    }

    /// Puts `member` into the shard. Whether it extends it: then another one is chosen in the same draw.
    fn choose(&mut self, member: usize) -> bool {
        self.chosen.insert(member);
        if self.window_start.is_none() && (self.dskit || self.facts.read_only_states == 0) {
            return false;
        }
        let entry = &*self.snapshot.members[member].desc;
        let read_only = !self.dskit && entry.state == State::ReadOnly;
        let Some(start) = self.window_start else { return read_only };
        let registered = Some(entry.registered_at());
        let changed = self.dskit.then_some(entry.read_only_updated_timestamp);
        let in_window =
            [registered, changed].into_iter().flatten().filter(|at| *at > 0 && *at >= start).min();
        self.earliest_in_window = [self.earliest_in_window, in_window].into_iter().flatten().min();
        in_window.is_some() || read_only || (self.dskit && entry.read_only)
    }
}
