//! What is done to the members of a run: a seed decides it.

use std::fmt;
use std::time::Duration;

/// What happens to some members, beside what is lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Trouble {
    /// Nothing.
    Calm,
    /// Half of the members are cut off from the other half.
    Halves,
    /// One member is cut off from all others.
    One,
    /// A zone is cut off from two others.
    Zone,
    /// Some members crash, and come back when they are known to be dead.
    Crash,
    /// Some members crash and come back at once, one of them twice.
    Restart,
    /// Some members stand still for a while.
    Pause,
    /// What one member sends does not reach some others, which it hears.
    OneWay,
    /// The clock of one member is an hour ahead for a while.
    ClockAhead,
    /// The clock of one member is an hour behind for a while.
    ClockBehind,
    /// One member leaves, and comes back.
    Leave,
    /// Some of all this, at random.
    Chaos,
}

use Trouble::{
    Calm, Chaos, ClockAhead, ClockBehind, Crash, Halves, Leave, One, OneWay, Pause, Restart, Zone,
};

/// All of them.
pub(crate) const TROUBLES: [Trouble; 12] =
    [Calm, Halves, One, Zone, Crash, Restart, Pause, OneWay, ClockAhead, ClockBehind, Leave, Chaos];
/// How many of a hundred datagrams are lost.
const LOSSES: [u32; 3] = [0, 10, 30];
/// With as many seeds in a row, each trouble comes once with each loss.
pub(crate) const CELLS: u64 = 36;

/// One place of the grid, with one of its many seeds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Cell {
    pub(crate) seed: u64,
    pub(crate) trouble: Trouble,
    /// In percent.
    pub(crate) loss: u32,
}

impl Cell {
    /// The place where this seed is, whatever test asks for it.
    pub(crate) fn of(seed: u64) -> Self {
        let place = usize::try_from(seed % CELLS).unwrap();
        let (loss, trouble) = (place / TROUBLES.len(), place % TROUBLES.len());
        Self { seed, trouble: TROUBLES[trouble], loss: LOSSES[loss] }
    }

    /// How many of the datagrams are lost, 0 to 1.
    pub(crate) fn loss(self) -> f64 {
        f64::from(self.loss) / 100.0
    }

    /// In how many zones the members are; 0 = none.
    pub(crate) fn zones(self) -> usize {
        if self.trouble == Zone { 3 } else { 0 }
    }

    fn is_lossy(self) -> bool {
        self.loss > 10
    }

    /// Until when 99 of 100 receivers have some news, while nothing but datagrams is lost.
    pub(crate) fn soon(self) -> Duration {
        if self.is_lossy() { Duration::from_secs(5) } else { Duration::from_millis(1_500) }
    }

    /// Until when all have it.
    pub(crate) fn at_last(self) -> Duration {
        Duration::from_secs(if self.is_lossy() { 45 } else { 15 })
    }

    /// Until when all know that a member is dead. Who loses much takes longer to be sure.
    pub(crate) fn death(self, nodes: usize) -> Duration {
        Duration::from_secs(match (self.is_lossy(), nodes > 100) {
            (false, false) => 20,
            (false, true) => 30,
            (true, _) => 60,
        })
    }

    /// Until when all know all again after a partition.
    pub(crate) fn reunion(self, nodes: usize) -> Duration {
        Duration::from_secs(if self.is_lossy() || nodes > 100 { 120 } else { 60 })
    }

    /// Until when all are at rest, with equal stores.
    pub(crate) fn rest(self) -> Duration {
        Duration::from_secs(if self.is_lossy() { 300 } else { 180 })
    }

    /// How many members may be taken for dead in two minutes though they live.
    pub(crate) fn false_deaths(self) -> u64 {
        if self.is_lossy() { 2 } else { 0 }
    }
}

impl fmt::Display for Cell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} at {} % loss", self.trouble, self.loss)
    }
}
