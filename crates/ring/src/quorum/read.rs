//! One question asked of several instances.

use std::collections::BTreeMap;

use smol_str::SmolStr;

use crate::replicas::ReplicationSet;

/// How many of `total` instances or zones may fail where `wanted` are asked for: one is always needed, if there is one.
pub(crate) fn tolerated(total: usize, wanted: usize) -> usize {
    wanted.min(total.saturating_sub(1))
}

/// Decides by the number of instances.
#[derive(Clone, Debug)]
pub struct CountTracker {
    total: usize,
    max_errors: usize,
    succeeded: usize,
    failed: usize,
}

impl CountTracker {
    /// `total` instances of which `max_errors` may fail, but never all: no answer is none.
    pub fn new(total: usize, max_errors: usize) -> Self {
        Self { total, max_errors: tolerated(total, max_errors), succeeded: 0, failed: 0 }
    }

    /// Takes the reply of one instance.
    pub fn record(&mut self, ok: bool) {
        *if ok { &mut self.succeeded } else { &mut self.failed } += 1;
    }

    /// Whether enough have answered. True at once without instances.
    pub fn succeeded(&self) -> bool {
        self.succeeded >= self.total.saturating_sub(self.max_errors)
    }

    /// Whether more have failed than may.
    pub fn failed(&self) -> bool {
        self.failed > self.max_errors
    }

    /// Whether all have failed.
    pub fn failed_completely(&self) -> bool {
        self.failed == self.total
    }

    /// Whether all have replied.
    pub fn finished(&self) -> bool {
        self.succeeded + self.failed >= self.total
    }
}

/// Decides by the number of zones: a zone counts once all its instances answered, and fails with the first of them.
#[derive(Clone, Debug)]
pub struct ZoneTracker {
    zones: Vec<Zone>,
    // Zone of each instance.
    zone_of: Vec<usize>,
    max_unavailable: usize,
    replied: usize,
    failed: usize,
}

#[derive(Clone, Debug, Default)]
struct Zone {
    waiting: usize,
    failed: usize,
}

impl ZoneTracker {
    /// Instances by their zones, of which `max_unavailable` may fail, but never all: no answer is none.
    pub fn new<'a>(zones: impl IntoIterator<Item = &'a SmolStr>, max_unavailable: usize) -> Self {
        let mut numbers = BTreeMap::new();
        let mut tracker =
            Self { zones: Vec::new(), zone_of: Vec::new(), max_unavailable, replied: 0, failed: 0 };
        for name in zones {
            let next = numbers.len();
            let zone = *numbers.entry(name).or_insert(next);
            if zone == tracker.zones.len() {
                tracker.zones.push(Zone::default());
            }
            tracker.zones[zone].waiting += 1;
            tracker.zone_of.push(zone);
        }
        tracker.max_unavailable = tolerated(tracker.zones.len(), max_unavailable);
        tracker
    }

    /// Takes the reply of the instance at `place` in the order given at first. An unknown place is ignored.
    pub fn record(&mut self, place: usize, ok: bool) {
        let Some(&zone) = self.zone_of.get(place) else { return };
        let zone = &mut self.zones[zone];
        zone.waiting = zone.waiting.saturating_sub(1);
        zone.failed += usize::from(!ok);
        self.replied += 1;
        self.failed += usize::from(!ok);
    }

    /// Whether all instances of enough zones have answered.
    pub fn succeeded(&self) -> bool {
        let good = self.zones.iter().filter(|zone| zone.waiting == 0 && zone.failed == 0).count();
        good >= self.zones.len().saturating_sub(self.max_unavailable)
    }

    /// Whether instances of more zones have failed than may.
    pub fn failed(&self) -> bool {
        self.failed_zones() > self.max_unavailable
    }

    /// Whether every zone has failed, or half of all instances where too many zones have.
    pub fn failed_completely(&self) -> bool {
        let all = self.failed_zones() == self.zones.len();
        all || (self.failed() && self.failed >= self.zone_of.len() / 2)
    }

    /// Whether all instances have replied.
    pub fn finished(&self) -> bool {
        self.replied >= self.zone_of.len()
    }

    /// Whether every instance in the zone of the one at `place` has replied.
    pub fn zone_finished(&self, place: usize) -> bool {
        self.zone_of.get(place).is_some_and(|&zone| self.zones[zone].waiting == 0)
    }

    fn failed_zones(&self) -> usize {
        self.zones.iter().filter(|zone| zone.failed > 0).count()
    }
}

/// The tracker that a replication set asks for: by zones if some may be unavailable, else by instances.
#[derive(Clone, Debug)]
pub enum ReadTracker {
    /// By the number of instances.
    Count(CountTracker),
    /// By the number of zones.
    Zones(ZoneTracker),
}

impl ReadTracker {
    /// The tracker for reads from `set`.
    pub fn new(set: &ReplicationSet) -> Self {
        if set.max_unavailable_zones > 0 {
            let zones = set.instances.iter().map(|instance| instance.zone());
            Self::Zones(ZoneTracker::new(zones, set.max_unavailable_zones))
        } else {
            Self::Count(CountTracker::new(set.len(), set.max_errors))
        }
    }

    /// Takes the reply of the instance at `place` in the set.
    pub fn record(&mut self, place: usize, ok: bool) {
        match self {
            Self::Count(tracker) => tracker.record(ok),
            Self::Zones(tracker) => tracker.record(place, ok),
        }
    }

    /// Whether enough have answered.
    pub fn succeeded(&self) -> bool {
        match self {
            Self::Count(tracker) => tracker.succeeded(),
            Self::Zones(tracker) => tracker.succeeded(),
        }
    }

    /// Whether too many have failed.
    pub fn failed(&self) -> bool {
        match self {
            Self::Count(tracker) => tracker.failed(),
            Self::Zones(tracker) => tracker.failed(),
        }
    }

    /// Whether so many have failed that not even a part of the answer is worth giving.
    pub fn failed_completely(&self) -> bool {
        match self {
            Self::Count(tracker) => tracker.failed_completely(),
            Self::Zones(tracker) => tracker.failed_completely(),
        }
    }

    /// Whether all have replied.
    pub fn finished(&self) -> bool {
        match self {
            Self::Count(tracker) => tracker.finished(),
            Self::Zones(tracker) => tracker.finished(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn zones(names: &str) -> Vec<SmolStr> {
        names.split(' ').map(SmolStr::new).collect()
    }

    #[test]
    fn nothing_is_asked_of_no_instances() {
        let tracker = CountTracker::new(0, 0);
        assert!(tracker.succeeded() && tracker.finished() && !tracker.failed());
    }

    #[test]
    fn of_some_at_least_one_must_answer_whatever_is_tolerated() {
        for tolerated in [2, 3, usize::MAX] {
            let mut count = CountTracker::new(2, tolerated);
            assert!(!count.succeeded());
            count.record(false);
            assert!(!count.failed());
            count.record(false);
            assert!(count.failed() && !count.succeeded(), "nobody is left to answer");
            let zones = zones("a a b");
            let mut by_zone = ZoneTracker::new(&zones, tolerated);
            assert!(!by_zone.succeeded());
            by_zone.record(0, false);
            assert!(!by_zone.failed());
            by_zone.record(2, false);
            assert!(by_zone.failed() && !by_zone.succeeded());
        }
        assert!(CountTracker::new(0, 1).succeeded() && ZoneTracker::new(&[], 1).succeeded());
    }

    #[test]
    fn a_zone_fails_with_one_instance_and_succeeds_with_all() {
        let zones = zones("a a b b c c");
        let mut tracker = ZoneTracker::new(&zones, 1);
        tracker.record(0, false);
        tracker.record(2, true);
        tracker.record(3, true);
        tracker.record(4, true);
        assert!(!tracker.succeeded(), "c has not replied in full");
        assert!(tracker.zone_finished(2) && !tracker.zone_finished(4) && !tracker.zone_finished(9));
        tracker.record(5, true);
        assert!(tracker.succeeded() && !tracker.failed() && !tracker.finished());
        tracker.record(1, false);
        assert!(tracker.finished() && !tracker.failed(), "two failures in one zone are one failed zone");
    }

    #[test]
    fn failures_in_more_zones_than_tolerated_fail_completely_once_half_the_instances_failed() {
        let zones = zones("a a b b c c");
        let mut tracker = ZoneTracker::new(&zones, 1);
        tracker.record(0, false);
        tracker.record(2, false);
        assert!(tracker.failed() && !tracker.failed_completely());
        tracker.record(3, false);
        assert!(tracker.failed_completely());
    }
}
