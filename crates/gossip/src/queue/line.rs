//! The order in which items stand in line, and the choice of those that a message has room for.

use std::iter;
use std::ops::Range;

use super::{Item, MAX_MISSES};

/// Of how many offers one is an item that was sent before, while there are both: so that neither keeps the other from being
/// sent.
const REPEAT_EVERY: usize = 4;

/// Groups of items in the order of sending. The last is the first to suffer when there is no room.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Class {
    Own,
    OwnHeartbeat,
    Foreign,
    ForeignHeartbeat,
}

impl Class {
    pub(super) const ALL: [Self; 4] = [Self::Own, Self::OwnHeartbeat, Self::Foreign, Self::ForeignHeartbeat];
    /// Those that may be sent eagerly.
    pub(super) const NEWS: [Self; 2] = [Self::Own, Self::Foreign];

    pub(super) fn of(own: bool, heartbeat: bool) -> Self {
        match (own, heartbeat) {
            (true, false) => Self::Own,
            (true, true) => Self::OwnHeartbeat,
            (false, false) => Self::Foreign,
            (false, true) => Self::ForeignHeartbeat,
        }
    }

    /// The items of this class that were sent at least `from` times, but fewer than `below`, which is no less.
    pub(super) fn sent(self, from: u32, below: u32) -> Range<Rank> {
        Rank { class: self, sent: from, turn: 0 }..Rank { class: self, sent: below, turn: 0 }
    }
}

/// Where an item is kept: what its fields say counts in their order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Rank {
    pub(super) class: Class,
    pub(super) sent: u32,
    /// Larger ones came later. No two items have the same.
    pub(super) turn: u64,
}

/// Makes one line of that for first transmissions and that for repeated ones.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Interleaving {
    /// How many were sent since the last place of a repeat.
    place: usize,
}

impl Interleaving {
    /// Both lines as one: where [`REPEAT_EVERY`] says so comes a repeat, and where one line has ended, all of the other.
    pub(super) fn merge<T>(
        self,
        mut firsts: impl Iterator<Item = T>,
        mut repeats: impl Iterator<Item = T>,
    ) -> impl Iterator<Item = T> {
        let mut place = self.place;
        iter::from_fn(move || {
            place += 1;
            if place.is_multiple_of(REPEAT_EVERY) {
                repeats.next().or_else(|| firsts.next())
            } else {
                firsts.next().or_else(|| repeats.next())
            }
        })
    }

    /// So many were sent. Messages with room for a single item are also to carry a repeat now and then.
    pub(super) fn advance(&mut self, sent: usize) {
        self.place = (self.place + sent) % REPEAT_EVERY;
    }
}

/// Those of a line that fit a message and are taken, by what the line calls them.
pub(super) fn choose<'a, K: Copy + 'a>(
    line: impl Iterator<Item = (&'a K, &'a Item)>,
    budget_bytes: usize,
    size_of: impl Fn(&Item) -> usize,
    mut take: impl FnMut(&Item) -> bool,
) -> Vec<K> {
    let mut taken = Vec::new();
    let mut misses = 0;
    // What is left, and the largest that is still worth offering.
    let (mut room, mut largest) = (budget_bytes, budget_bytes);
    for (name, item) in line {
        if room == 0 || misses == MAX_MISSES {
            break;
        }
        // At least one, so that the number of items is bounded whatever is said of their sizes.
        let size = size_of(item).max(1);
        if size > room.min(largest) {
            misses += 1;
        } else if take(item) {
            room -= size;
            taken.push(*name);
        } else {
            largest = size - 1;
            misses += 1;
        }
    }
    taken
}
