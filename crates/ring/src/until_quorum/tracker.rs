//! What to do next and when it is decided: pure, fed one reply after the other.
//!
//! Asking by instance and asking by zone are one and the same here: calls come in *groups* that start, fail and count
//! together. By zone a group is a zone; by instance it is one instance.

use std::collections::VecDeque;
use std::time::Duration;

use rand::rngs::SmallRng;
use rand::seq::SliceRandom as _;
use rand::{RngExt as _, SeedableRng as _};
use smol_str::SmolStr;

use super::options::ZoneOrder;
use crate::quorum::{CountTracker, ReadTracker, ZoneTracker, tolerated};
use crate::replicas::ReplicationSet;

/// What the shell asks of whoever decides. Instances are told by their places in the set.
pub(super) trait Decide {
    /// Takes the reply of a call that was started. Of a call that was cancelled meanwhile, or has replied, it is ignored.
    fn handle_reply(&mut self, place: usize, reply: Reply);
    /// [`Decide::tick_after`] has passed.
    fn handle_tick(&mut self);
    /// What to do, in this order. To be drained before anything else is asked.
    fn poll_action(&mut self) -> Option<Action>;
    /// After how long to tick: counted from the first time that this is `Some`, and from each tick.
    fn tick_after(&self) -> Option<Duration>;
    /// What the replies so far mean.
    fn verdict(&self) -> Verdict;
    /// Whether the result of the call at `place` is part of the answer, once there is one.
    fn keeps(&self, place: usize) -> bool;
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reply {
    Ok,
    Failed,
    /// Failed in a way that no other instance can make good.
    Terminal,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Action {
    Start(usize),
    /// The call is of no use any more, nor is its result if it has one.
    Cancel(usize),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Pending,
    /// The kept results are the answer.
    Reached,
    /// The kept results are a part of the answer.
    Partly,
    /// The failure fed last decided it.
    Failed,
    /// As `Failed`, by a terminal error.
    Terminal,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Call {
    Held,
    Running,
    Succeeded,
    Failed,
    Cancelled,
}

/// Decides as dskit's `DoUntilQuorum`.
#[derive(Debug)]
pub(super) struct QuorumTracker {
    replies: ReadTracker,
    calls: Vec<Call>,
    // By the place of each call.
    group_of: Vec<usize>,
    groups: Vec<Group>,
    // Groups that have not been needed yet, next one first.
    held: VecDeque<usize>,
    hedging_delay: Option<Duration>,
    actions: VecDeque<Action>,
    verdict: Verdict,
}

#[derive(Debug, Default)]
struct Group {
    members: Vec<usize>,
    succeeded: usize,
    has_failed: bool,
}

impl QuorumTracker {
    /// `minimize` starts only as many groups as are needed, drawn with `seed`, and holds back the others; one more is
    /// released by each group that fails and by each tick.
    pub(super) fn new(
        set: &ReplicationSet,
        minimize: bool,
        hedging_delay: Option<Duration>,
        order: &ZoneOrder,
        seed: u64,
    ) -> Self {
        let by_zone = is_by_zone(set);
        let (group_of, names) = if by_zone { zones_of(set) } else { ((0..set.len()).collect(), Vec::new()) };
        let num_groups = if by_zone { names.len() } else { set.len() };
        let (may_fail, replies) = if by_zone {
            let zones = set.instances.iter().map(|instance| instance.zone());
            let tracker = ZoneTracker::new(zones, set.max_unavailable_zones);
            (set.max_unavailable_zones, ReadTracker::Zones(tracker))
        } else {
            (set.max_errors, ReadTracker::Count(CountTracker::new(set.len(), set.max_errors)))
        };
        let mut groups: Vec<Group> = (0..num_groups).map(|_| Group::default()).collect();
        group_of.iter().enumerate().for_each(|(place, &group)| groups[group].members.push(place));
        let mut tracker = Self {
            calls: vec![Call::Held; set.len()],
            group_of,
            groups,
            held: (0..num_groups).collect(),
            hedging_delay,
            actions: VecDeque::new(),
            verdict: if replies.succeeded() { Verdict::Reached } else { Verdict::Pending },
            replies,
        };
        if tracker.verdict == Verdict::Reached {
            return tracker;
        }
        let mut first = num_groups;
        if minimize {
            tracker.held = in_order(num_groups, &names, order, seed).into();
            first -= tolerated(num_groups, may_fail);
        }
        (0..first).for_each(|_| tracker.release());
        tracker
    }

    fn release(&mut self) {
        let Some(group) = self.held.pop_front() else { return };
        for &place in &self.groups[group].members {
            self.calls[place] = Call::Running;
            self.actions.push_back(Action::Start(place));
        }
    }

    fn fail(&mut self, place: usize) {
        self.replies.record(place, false);
        if self.replies.failed() {
            self.verdict = Verdict::Failed;
            return;
        }
        let group = &mut self.groups[self.group_of[place]];
        if !std::mem::replace(&mut group.has_failed, true) {
            for &member in &group.members {
                if self.calls[member] != Call::Failed {
                    self.calls[member] = Call::Cancelled;
                }
                self.actions.push_back(Action::Cancel(member));
            }
            self.release();
        }
    }
}

impl Decide for QuorumTracker {
    fn handle_reply(&mut self, place: usize, reply: Reply) {
        if self.verdict != Verdict::Pending || self.calls.get(place) != Some(&Call::Running) {
            return;
        }
        match reply {
            Reply::Ok => {
                self.calls[place] = Call::Succeeded;
                self.groups[self.group_of[place]].succeeded += 1;
                self.replies.record(place, true);
                if self.replies.succeeded() {
                    self.verdict = Verdict::Reached;
                }
            }
            Reply::Failed => {
                self.calls[place] = Call::Failed;
                self.fail(place);
            }
            Reply::Terminal => {
                self.calls[place] = Call::Failed;
                self.verdict = Verdict::Terminal;
            }
        }
    }

    fn handle_tick(&mut self) {
        if self.verdict == Verdict::Pending {
            self.release();
        }
    }

    fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    fn tick_after(&self) -> Option<Duration> {
        // Zero switches hedging off, as in dskit.
        self.hedging_delay.filter(|delay| !delay.is_zero() && !self.held.is_empty())
    }

    fn verdict(&self) -> Verdict {
        self.verdict
    }

    fn keeps(&self, place: usize) -> bool {
        let whole = |group: usize| self.groups[group].succeeded == self.groups[group].members.len();
        self.calls.get(place) == Some(&Call::Succeeded) && whole(self.group_of[place])
    }
}

/// Whether `set` is asked by zone. A set that is zone-aware stays so when it tolerates no further zone.
pub(super) fn is_by_zone(set: &ReplicationSet) -> bool {
    set.max_unavailable_zones > 0 || set.zone_awareness_enabled
}

/// The zone of each instance as a number, and the names of the zones, in the order in which the set has them.
fn zones_of(set: &ReplicationSet) -> (Vec<usize>, Vec<SmolStr>) {
    let mut numbers = std::collections::HashMap::new();
    let mut names: Vec<SmolStr> = Vec::new();
    let number = |instance: &std::sync::Arc<crate::snapshot::Instance>| {
        *numbers.entry(instance.zone().clone()).or_insert_with_key(|name| {
            names.push(name.clone());
            names.len() - 1
        })
    };
    let group_of = set.instances.iter().map(number).collect();
    (group_of, names)
}

/// All groups in the order in which they are released: shuffled, and if they are zones, then as `order` says.
fn in_order(num_groups: usize, zones: &[SmolStr], order: &ZoneOrder, seed: u64) -> Vec<usize> {
    let mut groups: Vec<usize> = (0..num_groups).collect();
    let mut random = SmallRng::seed_from_u64(seed);
    groups.shuffle(&mut random);
    if zones.is_empty() {
        return groups;
    }
    let ranked: Vec<SmolStr> = match order {
        ZoneOrder::Random => return groups,
        ZoneOrder::Preferred(names) => names.clone(),
        ZoneOrder::By(sort) => {
            let mut names: Vec<SmolStr> = groups.iter().map(|&group| zones[group].clone()).collect();
            sort(&mut names);
            names
        }
    };
    // Whatever a sorter makes of the names, each zone comes once: named ones first, the others as drawn.
    let rank = |group: &usize| ranked.iter().position(|name| *name == zones[*group]).unwrap_or(usize::MAX);
    groups.sort_by_key(rank);
    groups
}

/// A seed of its own for each of several sets that share one.
pub(super) fn seed_of(seed: Option<u64>, set: usize) -> u64 {
    seed.map_or_else(|| rand::rng().random(), |seed| seed.wrapping_add(set as u64))
}

#[cfg(test)]
mod tests;
