//! Which members a shard has. Pure: a shard follows from the tenant, the size, and who owns which token.

use std::time::Duration;

use md5::{Digest as _, Md5};

use crate::desc::State;
use crate::go_rand::GoRand;
use crate::options::Dialect;
use crate::shard::cache::ShardCache;
use crate::shard::circles::Circles;
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
/// Copies no tokens. Whatever the ring, the cost stays within some steps for each of its tokens, members and zones.
///
/// # Source
///
/// Cortex's `shuffleShard`, or dskit's.
pub(crate) fn select(snapshot: &Snapshot, cache: &ShardCache, request: &Request<'_>) -> Selection {
    select_within(snapshot, cache, request, Limits::of(snapshot))
}

/// Where a selection changes to a way that costs more to begin with and less from then on. What it finds is the same.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// With more zones than this, each is walked by its own list of tokens; and where tokens are claimed twice, which
    /// only those lists know by zone.
    pub(crate) zones: usize,
    /// After so many steps through the tokens of other zones as well.
    pub(crate) passed: usize,
    /// After so many rounds, the tokens of those already chosen are cut out.
    pub(crate) rounds: usize,
}

impl Limits {
    fn of(snapshot: &Snapshot) -> Self {
        Self { zones: 16, passed: 1024 + snapshot.topology.tokens.len() / 64, rounds: 1 }
    }
}

/// As [`select`], within limits of its own.
pub(crate) fn select_within(
    snapshot: &Snapshot,
    cache: &ShardCache,
    request: &Request<'_>,
    limits: Limits,
) -> Selection {
    let topology = &*snapshot.topology;
    let mut selector = Selector {
        snapshot,
        topology,
        facts: cache.facts(),
        circles: cache.circles(),
        limits,
        window_start: request.window_start(),
        dskit: snapshot.options.dialect == Dialect::Dskit,
        chosen: PlaceSet::new(snapshot.members.len()),
        by_zone: None,
        earliest_in_window: None,
    };
    if request.size == 0 {
        (0..snapshot.members.len()).for_each(|place| selector.take_if_eligible(place));
    } else if snapshot.options.zone_awareness_enabled {
        let zones = topology.zones.len().max(1);
        for (zone, name) in (0u32..).zip(&topology.zones) {
            let share = match request.mode {
                Mode::ZoneStable => {
                    request.size / zones + usize::from((zone as usize) < request.size % zones)
                }
                Mode::Plain | Mode::Lookback(_) => request.size.div_ceil(zones),
            };
            // Only with zone awareness: else dskit draws, and who owns no token is never drawn.
            if selector.dskit && share >= selector.facts.of(Some(zone)).members {
                selector.take_eligible(zone);
            } else {
                selector.draw(request.identifier, name, Some(zone), share);
            }
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
    circles: &'a Circles,
    limits: Limits,
    window_start: Option<i64>,
    dskit: bool,
    chosen: PlaceSet,
    by_zone: Option<ByZone>,
    earliest_in_window: Option<i64>,
}

/// The tokens that draws from a zone walk along, and how.
struct Track<'a> {
    zone: Option<u32>,
    /// Positions of the tokens; `None` = all there are, those of other zones too.
    list: Option<&'a [u32]>,
    len: usize,
    /// How many members can still be chosen at most.
    left: usize,
    /// How many steps were taken, and after how many another way is taken.
    passed: usize,
    limit: usize,
    /// Per place on the track, one from which to look on for somebody who can be chosen: itself, or a later one. Empty
    /// until there were too many steps.
    skips: Vec<u32>,
}

impl<'a> Track<'a> {
    fn walk_list(&mut self, list: &'a [u32], limits: Limits) {
        (self.list, self.len, self.passed) = (Some(list), list.len(), 0);
        self.limit = list.len().saturating_mul(limits.rounds);
    }

    #[inline]
    fn position(&self, at: usize) -> usize {
        self.list.map_or(at, |list| list[at] as usize)
    }

    /// The first place at or after `at` where one can be chosen; the end if there is none. Those it comes by are cut out.
    fn next_where(&mut self, mut at: usize, can_be_chosen: impl Fn(usize) -> bool) -> usize {
        while at < self.len {
            let next = self.skips[at] as usize;
            if next != at {
                // Halves the way for the next one.
                if next < self.len {
                    self.skips[at] = self.skips[next];
                }
                at = next;
            } else if can_be_chosen(self.position(at)) {
                break;
            } else {
                self.skips[at] += 1;
            }
        }
        at
    }
}

impl<'a> Selector<'a> {
    /// Draws `share` members of `zone` (`None`: of all), and those that extend the shard.
    fn draw(&mut self, identifier: &str, name: &str, zone: Option<u32>, share: usize) {
        // Where tokens are claimed twice, the walk through one zone may meet members of another.
        let countable = self.topology.duplicates == 0;
        let left = if countable { self.facts.of(zone).with_tokens } else { usize::MAX };
        let count = self.topology.tokens.len();
        let limit =
            if zone.is_some() { self.limits.passed } else { count.saturating_mul(self.limits.rounds) };
        let mut track = Track { zone, list: None, len: count, left, passed: 0, limit, skips: Vec::new() };
        if !countable || (zone.is_some() && self.topology.zones.len() > self.limits.zones) {
            track.walk_list(self.circles.of(self.snapshot, zone), self.limits);
        }
        if track.len == 0 {
            return;
        }
        let mut rand = GoRand::new(shard_seed(identifier, name));
        for _ in 0..share {
            if !self.draw_one(rand.next_u32(), &mut track) {
                break;
            }
        }
    }

    /// Chooses the first member after `key` that is not chosen yet, and goes on while the chosen extend the shard.
    /// False when nobody is left.
    fn draw_one(&mut self, key: u32, track: &mut Track<'a>) -> bool {
        while track.skips.is_empty() {
            if let Some(drawn) = self.walk(key, track) {
                return drawn;
            }
            // The same draw goes on the other way: whom it chose already it passes over.
            if track.zone.is_some() && track.list.is_none() {
                track.walk_list(self.circles.of(self.snapshot, track.zone), self.limits);
            } else {
                track.skips = (0..track.len as u32).collect();
            }
        }
        let mut at = self.start(key, track);
        let mut rounded = false;
        while track.left > 0 {
            at = track.next_where(at, |position| self.is_candidate(position, None));
            if at < track.len {
                track.left -= 1;
                let member = self.topology.owner(track.position(at));
                if !self.choose(member) {
                    return true;
                }
            } else if rounded {
                break;
            } else {
                (at, rounded) = (0, true);
            }
        }
        false
    }

    /// Draws step by step; `None` after too many steps.
    fn walk(&mut self, key: u32, track: &mut Track<'a>) -> Option<bool> {
        if track.left == 0 {
            return Some(false);
        }
        let others = track.zone.filter(|_| track.list.is_none());
        let mut at = self.start(key, track);
        for _ in 0..track.len {
            let position = track.position(at);
            if self.is_candidate(position, others) {
                track.left -= 1;
                if !self.choose(self.topology.owner(position)) {
                    return Some(true);
                }
                if track.left == 0 {
                    break;
                }
            }
            if track.passed >= track.limit {
                return None;
            }
            track.passed += 1;
            at = if at + 1 == track.len { 0 } else { at + 1 };
        }
        Some(false)
    }

    /// Where on the track the walk from `key` begins.
    #[inline]
    fn start(&self, key: u32, track: &Track<'_>) -> usize {
        let position = self.topology.search(key);
        let Some(list) = track.list else { return position };
        let at = list.partition_point(|before| (*before as usize) < position);
        if at == list.len() { 0 } else { at }
    }

    /// Whether the owner of the token at `position` can be chosen, if that is in `zone` where one is given.
    #[inline]
    fn is_candidate(&self, position: usize, zone: Option<u32>) -> bool {
        let member = self.topology.owner(position);
        zone.is_none_or(|zone| self.topology.zone_of[member] == zone)
            && !self.chosen.contains(member)
            && self.is_eligible(member)
    }

    /// Chooses everybody in `zone` who may be in a shard.
    fn take_eligible(&mut self, zone: u32) {
        let by_zone = self.by_zone.take().unwrap_or_else(|| ByZone::sort(self.topology));
        by_zone.of(zone).iter().for_each(|place| self.take_if_eligible(*place as usize));
        self.by_zone = Some(by_zone);
    }

    fn take_if_eligible(&mut self, place: usize) {
        if self.is_eligible(place) {
            self.choose(place);
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

/// The members of each zone.
struct ByZone {
    places: Vec<u32>,
    /// Where each zone begins, and the end.
    starts: Vec<usize>,
}

impl ByZone {
    fn sort(topology: &Topology) -> Self {
        let mut places: Vec<u32> = (0..topology.zone_of.len() as u32).collect();
        let zone_of = |place: &u32| topology.zone_of[*place as usize];
        places.sort_by_key(zone_of);
        let zones = 0..=topology.zones.len() as u32;
        let starts = zones.map(|zone| places.partition_point(|place| zone_of(place) < zone)).collect();
        Self { places, starts }
    }

    fn of(&self, zone: u32) -> &[u32] {
        &self.places[self.starts[zone as usize]..self.starts[zone as usize + 1]]
    }
}
