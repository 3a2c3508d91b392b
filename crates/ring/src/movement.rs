//! [`Movement`]: what a change of a ring moves, measured along the whole circle.
//!
//! Pure: two snapshots in, numbers out. How evenly the load lies is in [`crate::Balance`]; hypothetical rings are made by
//! whoever asks, as descriptors.

mod shards;

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use ringkit_kv::EntryId;
use smol_str::SmolStr;

pub use self::shards::ShardMovement;
use crate::balance::Balance;
use crate::desc::State;
use crate::operation::{Operation, StateCode};
use crate::options::RingOptions;
use crate::snapshot::{Instance, Snapshot};
use crate::strategy::Strategy;
use crate::token::CIRCLE;
use crate::walk::Places;

/// What moves when one ring becomes another: which keys change hands, who gives and who takes.
///
/// Only placement counts: every member is taken as healthy and ACTIVE, whatever its state and heartbeat. Positions are
/// counted out of 2³²; a key with three replicas covers its position three times.
#[derive(Clone, Debug, PartialEq)]
pub struct Movement {
    holdings: Vec<Holding>,
    changed: u64,
    newcomer_quorum: u64,
    before: Coverage,
    after: Coverage,
    even: f64,
}

/// What one instance holds before and after. `after - before` is `taken - given`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holding {
    /// Its id.
    pub id: EntryId,
    /// Its zone: the new one if that changed.
    pub zone: SmolStr,
    /// Whether it has tokens before, and after.
    pub owns: (bool, bool),
    /// Positions of which it holds a replica before.
    pub before: u64,
    /// Positions of which it holds a replica after.
    pub after: u64,
    /// Positions that it holds after and did not before: data that it has to get.
    pub taken: u64,
    /// Positions that it held before and does not after: data that it may drop.
    pub given: u64,
}

/// How many replicas the positions of the circle have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Coverage {
    begun: bool,
    replicas: u64,
    fewest: usize,
}

impl Movement {
    /// Measures what moves from `before` to `after`. The two may differ in anything, also in their options.
    ///
    /// Exact: between neighbouring tokens of both rings the replica sets are constant, so one lookup per token of either
    /// ring and the lengths of the arcs tell everything. Costs as much as that many lookups; allocates once per instance,
    /// and per arc only for sets of more than eight.
    pub fn between(before: &Snapshot, after: &Snapshot) -> Self {
        let mut tally = Tally::new(before, after);
        let mut sides = (Side::new(before), Side::new(after));
        let first = match (sides.0.next_token(), sides.1.next_token()) {
            (Some(a), Some(b)) => a.min(b),
            (Some(only), None) | (None, Some(only)) => only,
            (None, None) => return tally.finish(before, after),
        };
        // Each arc reaches from one token of either ring up to the next; the last one around to the first.
        let mut from = Some(first);
        while let Some(start) = from {
            sides.0.enter(start);
            sides.1.enter(start);
            from = match (sides.0.next_token(), sides.1.next_token()) {
                (Some(a), Some(b)) => Some(a.min(b)),
                (a, b) => a.or(b),
            };
            let end = from.map_or(CIRCLE + u64::from(first), u64::from);
            tally.add(end - u64::from(start), &sides.0.holders, &sides.1.holders);
        }
        tally.finish(before, after)
    }

    /// Every instance of either ring, in the byte order of their ids.
    pub fn holdings(&self) -> &[Holding] {
        &self.holdings
    }

    /// Share of the circle, 0 to 1, whose replica set changes in any member.
    pub fn changed(&self) -> f64 {
        share_of(self.changed, CIRCLE)
    }

    /// Share of the circle, 0 to 1, for which members that are new to the set make a quorum by themselves: a read of a
    /// quorum can miss what was written before, until the data has moved.
    pub fn newcomer_quorum(&self) -> f64 {
        share_of(self.newcomer_quorum, CIRCLE)
    }

    /// Share of all replicas of the new ring, 0 to 1, that an instance has to take which did not hold them: the data to
    /// move.
    pub fn moved(&self) -> f64 {
        share_of(self.holdings.iter().map(|holding| holding.taken).sum(), self.after.replicas)
    }

    /// What [`Movement::moved`] must be at least for everybody to hold as much after as they do: the sum of what
    /// instances gain on balance. No placement with the same shares moves less.
    pub fn least_moved(&self) -> f64 {
        let gain = |holding: &Holding| holding.after.saturating_sub(holding.before);
        share_of(self.holdings.iter().map(gain).sum(), self.after.replicas)
    }

    /// What [`Movement::least_moved`] would be if, before and after, all instances with tokens held alike (those of one
    /// zone in a zone-aware ring): the theoretical minimum, about one in n for the n-th instance.
    pub fn even_moved(&self) -> f64 {
        self.even
    }

    /// How many replicas a position has on average, before and after: the replication factor, unless instances or zones
    /// are too few.
    pub fn mean_replicas(&self) -> (f64, f64) {
        (share_of(self.before.replicas, CIRCLE), share_of(self.after.replicas, CIRCLE))
    }

    /// How many replicas the position with the fewest has, before and after.
    pub fn fewest_replicas(&self) -> (usize, usize) {
        (self.before.fewest, self.after.fewest)
    }

    /// How many instances take something.
    pub fn takers(&self) -> usize {
        self.holdings.iter().filter(|holding| holding.taken > 0).count()
    }

    /// How many instances give something up.
    pub fn givers(&self) -> usize {
        self.holdings.iter().filter(|holding| holding.given > 0).count()
    }

    /// How evenly the replicas lie on the instances that have tokens, in the new ring.
    pub fn balance(&self) -> Balance {
        let owners = self.holdings.iter().filter(|holding| holding.owns.1);
        Balance::of(owners.map(|holding| holding.after as f64))
    }
}

/// A part of a whole; nothing of nothing is nothing.
fn share_of(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 }
}

/// One of the two rings, entered arc by arc.
struct Side {
    snapshot: Snapshot,
    /// How many tokens lie behind.
    passed: usize,
    /// Places of those who hold the arc that was entered last; none in a ring without tokens.
    holders: Places,
}

impl Side {
    fn new(snapshot: &Snapshot) -> Self {
        Self { snapshot: by_placement_alone(snapshot), passed: 0, holders: Places::new() }
    }

    /// The first token that does not lie behind.
    fn next_token(&self) -> Option<u32> {
        self.snapshot.tokens().get(self.passed).copied()
    }

    /// Enters the arc that begins with `start`, which is at most the next token.
    fn enter(&mut self, start: u32) {
        let is_first = self.passed == 0 && self.holders.is_empty();
        let before = self.passed;
        while self.next_token() == Some(start) {
            self.passed += 1;
        }
        if is_first || self.passed > before {
            let found = self.snapshot.get(start, Operation::COMPACTOR, 0);
            self.holders = found.map(|replicas| replicas.places).unwrap_or_default();
        }
    }
}

/// The same ring with everybody ACTIVE and healthy, in which one replica is enough: its lookups tell placement.
fn by_placement_alone(snapshot: &Snapshot) -> Snapshot {
    let options = RingOptions {
        heartbeat_timeout: Duration::ZERO,
        strategy: Strategy::IgnoreUnhealthy,
        ..snapshot.options().clone()
    };
    let states = vec![StateCode::from(State::Active); snapshot.members.len()];
    let walkable = snapshot.topology.count_states(&states);
    Snapshot { options: options.into(), states: states.into(), walkable, ..snapshot.clone() }
}

/// Sums under way.
struct Tally {
    movement: Movement,
    /// Per place before, and after, the place in `holdings`.
    before: Vec<usize>,
    after: Vec<usize>,
}

impl Tally {
    fn new(before: &Snapshot, after: &Snapshot) -> Self {
        let (mut old, mut new) = (before.instances().iter().peekable(), after.instances().iter().peekable());
        let mut holdings = Vec::with_capacity(before.instances().len().max(after.instances().len()));
        let mut places = (Vec::new(), Vec::new());
        loop {
            let order = match (old.peek(), new.peek()) {
                (Some(a), Some(b)) => a.id.cmp(&b.id),
                (Some(_), None) => Ordering::Less,
                (None, Some(_)) => Ordering::Greater,
                (None, None) => break,
            };
            let was = if order.is_le() { old.next() } else { None };
            let is = if order.is_ge() { new.next() } else { None };
            if was.is_some() {
                places.0.push(holdings.len());
            }
            if is.is_some() {
                places.1.push(holdings.len());
            }
            holdings.extend(Holding::none(was, is));
        }
        let movement = Movement {
            holdings,
            changed: 0,
            newcomer_quorum: 0,
            before: Coverage::default(),
            after: Coverage::default(),
            even: 0.0,
        };
        Self { movement, before: places.0, after: places.1 }
    }

    /// Adds an arc of `width` positions.
    fn add(&mut self, width: u64, before: &[u32], after: &[u32]) {
        self.movement.before.add(width, before.len());
        self.movement.after.add(width, after.len());
        let same = |a: u32, b: u32| self.before[a as usize] == self.after[b as usize];
        let (mut gone, mut come) = (0, 0);
        for &place in before {
            let stays = after.iter().any(|&other| same(place, other));
            gone += usize::from(!stays);
            let holding = &mut self.movement.holdings[self.before[place as usize]];
            holding.before += width;
            holding.given += if stays { 0 } else { width };
        }
        for &place in after {
            let stayed = before.iter().any(|&other| same(other, place));
            come += usize::from(!stayed);
            let holding = &mut self.movement.holdings[self.after[place as usize]];
            holding.after += width;
            holding.taken += if stayed { 0 } else { width };
        }
        if gone + come > 0 {
            self.movement.changed += width;
        }
        // What nobody held before cannot be missed.
        if !before.is_empty() && come > after.len() / 2 {
            self.movement.newcomer_quorum += width;
        }
    }

    fn finish(mut self, before: &Snapshot, after: &Snapshot) -> Movement {
        let holdings = &self.movement.holdings;
        let mut gains = even_shares(after, &self.after, holdings, |holding| holding.after);
        let had = even_shares(before, &self.before, holdings, |holding| holding.before);
        gains.iter_mut().zip(had).for_each(|(gain, had)| *gain -= had);
        let gained: f64 = gains.into_iter().filter(|gain| *gain > 0.0).sum();
        if self.movement.after.replicas > 0 {
            self.movement.even = gained / self.movement.after.replicas as f64;
        }
        self.movement
    }
}

/// What each of `holdings` would hold in `ring` if what a zone holds (without zone awareness: what all hold) were spread
/// evenly over those of its instances that have tokens.
fn even_shares(
    ring: &Snapshot,
    places: &[usize],
    holdings: &[Holding],
    held: impl Fn(&Holding) -> u64,
) -> Vec<f64> {
    let zone_aware = ring.options().zone_awareness_enabled;
    let group = |member: &Instance| if zone_aware { member.zone().clone() } else { SmolStr::default() };
    let mut groups: BTreeMap<SmolStr, (u64, u64)> = BTreeMap::new();
    for (member, &place) in ring.instances().iter().zip(places) {
        let (sum, owners) = groups.entry(group(member)).or_default();
        *sum += held(&holdings[place]);
        *owners += u64::from(!member.desc.tokens.is_empty());
    }
    let mut shares = vec![0.0; holdings.len()];
    for (member, &place) in ring.instances().iter().zip(places) {
        if let Some(&(sum, owners)) = groups.get(&group(member))
            && !member.desc.tokens.is_empty()
        {
            shares[place] = share_of(sum, owners);
        }
    }
    shares
}

impl Holding {
    /// An instance that holds nothing yet. `None` if it is in neither ring.
    fn none(before: Option<&Arc<Instance>>, after: Option<&Arc<Instance>>) -> Option<Self> {
        let instance = after.or(before)?;
        let owns =
            |member: Option<&Arc<Instance>>| member.is_some_and(|member| !member.desc.tokens.is_empty());
        Some(Self {
            id: instance.id.clone(),
            zone: instance.zone().clone(),
            owns: (owns(before), owns(after)),
            before: 0,
            after: 0,
            taken: 0,
            given: 0,
        })
    }
}

impl Coverage {
    fn add(&mut self, width: u64, replicas: usize) {
        self.fewest = if self.begun { self.fewest.min(replicas) } else { replicas };
        self.begun = true;
        self.replicas += width * replicas as u64;
    }
}
