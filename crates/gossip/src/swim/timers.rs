//! Which timer is next.

use std::cmp::{Ordering, Reverse};
use std::collections::BinaryHeap;
use std::time::Duration;

use foca::Timer;

use crate::id::NodeId;

/// Fewer timers are not worth looking through.
const FEW: usize = 1024;

/// Timers by deadline, then in the order that foca wants, then as they came.
#[derive(Default)]
pub(super) struct Timers {
    heap: BinaryHeap<Reverse<Due>>,
    pushed: u64,
    left_by_sweep: usize,
}

impl Timers {
    pub(super) fn push(&mut self, at: Duration, timer: Timer<NodeId>) {
        self.pushed += 1;
        self.heap.push(Reverse(Due { at, timer, place: self.pushed }));
    }

    /// When the next one is due.
    pub(super) fn next_at(&self) -> Option<Duration> {
        self.heap.peek().map(|Reverse(due)| due.at)
    }

    /// Takes the next one that is due at `now`.
    pub(super) fn pop_due(&mut self, now: Duration) -> Option<Timer<NodeId>> {
        if self.next_at()? > now {
            return None;
        }
        self.heap.pop().map(|Reverse(due)| due.timer)
    }

    pub(super) fn clear(&mut self) {
        self.heap.clear();
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.heap.len()
    }

    /// Whether a [sweep](Timers::sweep) is worth while.
    pub(super) fn are_many(&self) -> bool {
        self.heap.len() > FEW.max(2 * self.left_by_sweep)
    }

    /// Forgets those about lives that nobody knows any more. They would do nothing, but each is kept for an hour,
    /// and a member can go through any number of lives in that time.
    pub(super) fn sweep(&mut self, is_known: impl Fn(&NodeId) -> bool) {
        self.heap.retain(|Reverse(due)| match &due.timer {
            Timer::RemoveDown(id) | Timer::ChangeSuspectToDown { member_id: id, .. } => is_known(id),
            _ => true,
        });
        self.left_by_sweep = self.heap.len();
    }
}

struct Due {
    at: Duration,
    timer: Timer<NodeId>,
    place: u64,
}

impl Ord for Due {
    fn cmp(&self, other: &Self) -> Ordering {
        let by_time = self.at.cmp(&other.at);
        // foca's order of timers is one of kinds only.
        by_time.then_with(|| self.timer.cmp(&other.timer)).then_with(|| self.place.cmp(&other.place))
    }
}

impl PartialOrd for Due {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Due {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Due {}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(name: &str) -> NodeId {
        NodeId::new(name, 1, "10.0.0.1:7946".parse().unwrap())
    }

    #[test]
    fn timers_come_by_deadline_then_in_the_order_of_foca_then_as_pushed() {
        let (early, late) = (Duration::from_secs(1), Duration::from_secs(2));
        let indirect = Timer::SendIndirectProbe { probed_id: id("a"), token: 0 };
        let mut timers = Timers::default();
        timers.push(late, Timer::PeriodicGossip(0));
        timers.push(late, Timer::ProbeRandomMember(0));
        timers.push(late, Timer::RemoveDown(id("b")));
        timers.push(late, indirect.clone());
        timers.push(late, Timer::RemoveDown(id("a")));
        timers.push(early, Timer::PeriodicAnnounce(0));

        assert_eq!(timers.next_at(), Some(early));
        assert_eq!(timers.pop_due(Duration::ZERO), None);
        let order: Vec<_> = std::iter::from_fn(|| timers.pop_due(late)).collect();
        let wanted = [
            Timer::PeriodicAnnounce(0),
            indirect,
            Timer::ProbeRandomMember(0),
            Timer::PeriodicGossip(0),
            Timer::RemoveDown(id("b")),
            Timer::RemoveDown(id("a")),
        ];
        assert_eq!(order, wanted);
        assert_eq!(timers.next_at(), None);
    }

    #[test]
    fn a_sweep_leaves_what_may_still_matter() {
        let mut timers = Timers::default();
        for _ in 0..FEW {
            timers.push(Duration::ZERO, Timer::RemoveDown(id("gone")));
        }
        assert!(!timers.are_many());
        timers.push(Duration::ZERO, Timer::RemoveDown(id("known")));
        assert!(timers.are_many());
        timers.push(Duration::ZERO, Timer::ProbeRandomMember(0));
        timers.sweep(|known| *known == id("known"));
        assert_eq!(timers.len(), 2);
        assert!(!timers.are_many());
    }
}
