//! [`Ownership`]: how much of the circle each member owns.

use crate::token::distance;
use crate::topology::Topology;

/// How much of the circle each member owns; members are told by their place in [`crate::Snapshot::instances`].
///
/// A token claimed by several counts for the owner each time, with a whole circle for each repetition, as in Cortex.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ownership {
    circle: Box<[Share]>,
    zone: Box<[Share]>,
}

/// What one member owns.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Share {
    /// Tokens.
    pub tokens: usize,
    /// Positions that these tokens own, out of 2³².
    pub positions: u64,
}

impl Share {
    /// Owned positions as a fraction of the circle, 0 to 1.
    pub fn fraction(&self) -> f64 {
        self.positions as f64 / crate::token::CIRCLE as f64
    }
}

impl Ownership {
    /// Share of each member in the whole circle.
    pub fn of_circle(&self) -> &[Share] {
        &self.circle
    }

    /// Share of each member when only tokens of its own zone count; the shares of a zone make a whole circle.
    pub fn of_zone(&self) -> &[Share] {
        &self.zone
    }

    pub(crate) fn count(topology: &Topology) -> Self {
        let members = topology.zone_of.len();
        let mut circle = Tally::new(members, 1);
        let mut zone = Tally::new(members, topology.zones.len());
        for (position, &token) in topology.tokens.iter().enumerate() {
            let owner = topology.owner(position);
            circle.add(0, token, owner);
            zone.add(topology.zone_of[owner] as usize, token, owner);
        }
        Self { circle: circle.finish(), zone: zone.finish() }
    }
}

/// Shares under way, in several circles at once.
struct Tally {
    shares: Box<[Share]>,
    // Per circle: the first token with its owner, and the token met last.
    ends: Box<[Option<(u32, usize, u32)>]>,
}

impl Tally {
    fn new(members: usize, circles: usize) -> Self {
        Self { shares: vec![Share::default(); members].into(), ends: vec![None; circles].into() }
    }

    fn add(&mut self, circle: usize, token: u32, owner: usize) {
        self.shares[owner].tokens += 1;
        match &mut self.ends[circle] {
            Some((_, _, previous)) => {
                self.shares[owner].positions += distance(*previous, token);
                *previous = token;
            }
            end @ None => *end = Some((token, owner, token)),
        }
    }

    /// The first token of a circle owns what lies behind the last one.
    fn finish(mut self) -> Box<[Share]> {
        for (first, owner, last) in self.ends.iter().flatten() {
            self.shares[*owner].positions += distance(*last, *first);
        }
        self.shares
    }
}
