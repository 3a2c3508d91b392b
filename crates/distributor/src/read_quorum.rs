//! When a query has heard enough. Pure.
//!
//! Two rules, and both must hold. *Counting*, Cortex's rule: of all members no more than the ring tolerates are
//! missing, by number or by zone. *Being there*: of the members that had registered before the queried range began,
//! enough have answered for any write of that range to have met one of them. A member that came back empty has
//! registered anew, so it is asked, but cannot stand in for one that holds the data. In a ring younger than the range
//! nobody was there, and the second rule asks for nothing.

use std::collections::BTreeMap;

use ringkit_ring::quorum::ReadTracker;
use ringkit_ring::{Instance, ReplicationSet, Shard, State};

/// What the answers so far mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// More answers are needed.
    Pending,
    /// The query is complete.
    Reached,
    /// Too many have failed.
    Failed,
    /// Enough answered by count, but too few of those that were there.
    Shortfall,
}

/// Follows one query's answers.
#[derive(Clone, Debug)]
pub(crate) struct ReadQuorum {
    members: Vec<Member>,
    zones: usize,
    counting: ReadTracker,
    being_there: Option<Rule>,
}

#[derive(Clone, Debug)]
struct Member {
    zone: usize,
    /// Registered before the range began; by zone: and so did its whole zone.
    was_there: bool,
    answer: Answer,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Answer {
    Outstanding,
    Given,
    Failed,
}

/// How many must answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rule {
    Members(usize),
    /// A zone has answered when all its members have.
    Zones(usize),
}

impl ReadQuorum {
    /// A query to the members of `set`, taken from the tenant's `shard`, for data from `start_ms` on.
    ///
    /// `aware: false` leaves the second rule out, which is Cortex's behaviour.
    pub(crate) fn new(shard: &Shard<'_>, set: &ReplicationSet, start_ms: i64, aware: bool) -> Self {
        let options = shard.snapshot().options();
        let (factor, by_zone) = (options.replication_factor.max(1), options.zone_awareness_enabled);
        let mut zone_numbers: BTreeMap<&str, usize> = BTreeMap::new();
        for instance in &set.instances {
            let next = zone_numbers.len();
            zone_numbers.entry(instance.zone()).or_insert(next);
        }
        let zones = zone_numbers.len();

        let old = |instance: &Instance| instance.registered_timestamp().saturating_mul(1000) <= start_ms;
        let mut whole_zones: BTreeMap<&str, bool> = BTreeMap::new();
        let mut num_old = 0;
        for instance in shard.instances().filter(|instance| instance.state() != State::Left) {
            num_old += usize::from(old(instance));
            *whole_zones.entry(instance.zone()).or_insert(true) &= old(instance);
        }
        let member = |instance: &std::sync::Arc<Instance>| Member {
            zone: zone_numbers.get(instance.zone().as_str()).copied().unwrap_or_default(),
            was_there: if by_zone {
                whole_zones.get(instance.zone().as_str()).copied().unwrap_or(false)
            } else {
                old(instance)
            },
            answer: Answer::Outstanding,
        };

        let being_there = aware.then(|| {
            if by_zone {
                let old_zones = whole_zones.values().filter(|old| **old).count();
                Rule::Zones(required(old_zones, whole_zones.len().min(factor)))
            } else {
                Rule::Members(required(num_old, factor))
            }
        });
        Self {
            members: set.instances.iter().map(member).collect(),
            zones,
            counting: ReadTracker::new(set),
            being_there,
        }
    }

    /// Member number `index` of the set has answered.
    pub(crate) fn answered(&mut self, index: usize) {
        self.set(index, Answer::Given);
    }

    /// Member number `index` of the set will not answer.
    pub(crate) fn failed(&mut self, index: usize) {
        self.set(index, Answer::Failed);
    }

    fn set(&mut self, index: usize, answer: Answer) {
        // The first word of a member counts.
        if let Some(member) =
            self.members.get_mut(index).filter(|member| member.answer == Answer::Outstanding)
        {
            member.answer = answer;
            self.counting.record(index, answer == Answer::Given);
        }
    }

    /// What the answers so far mean.
    pub(crate) fn verdict(&self) -> Verdict {
        match self.being_there.map_or(Verdict::Reached, |rule| self.judge(rule)) {
            _ if self.counting.failed() => Verdict::Failed,
            Verdict::Failed => Verdict::Shortfall,
            Verdict::Reached if self.counting.succeeded() => Verdict::Reached,
            _ => Verdict::Pending,
        }
    }

    /// What the second rule says.
    fn judge(&self, rule: Rule) -> Verdict {
        let (needed, given, possible) = match rule {
            Rule::Members(needed) => {
                let with = |answer| self.members.iter().filter(|m| m.was_there && m.answer == answer).count();
                let given = with(Answer::Given);
                (needed, given, given + with(Answer::Outstanding))
            }
            Rule::Zones(needed) => {
                let (mut given, mut possible) = (0, 0);
                for zone in 0..self.zones {
                    let mut members =
                        self.members.iter().filter(|m| m.zone == zone && m.was_there).peekable();
                    let mut worst = members.peek().map_or(Answer::Failed, |_| Answer::Given);
                    for member in members {
                        worst = match (worst, member.answer) {
                            (Answer::Failed, _) | (_, Answer::Failed) => Answer::Failed,
                            (Answer::Outstanding, _) | (_, Answer::Outstanding) => Answer::Outstanding,
                            (Answer::Given, Answer::Given) => Answer::Given,
                        };
                    }
                    given += usize::from(worst == Answer::Given);
                    possible += usize::from(worst != Answer::Failed);
                }
                (needed, given, possible)
            }
        };
        if given >= needed {
            Verdict::Reached
        } else if possible < needed {
            Verdict::Failed
        } else {
            Verdict::Pending
        }
    }
}

/// How many of `old` must answer, so that none of their quorums can be missed: all but half the replicas, as for any read.
fn required(old: usize, replicas: usize) -> usize {
    old.min(old.max(replicas) - replicas / 2)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use ringkit_ring::{Desc, InstanceDesc, Operation, RingOptions, Snapshot, Tokens};

    use super::*;

    const NOW: i64 = 1_700_000_000;
    /// Before anybody registered.
    const LONG_AGO: i64 = 0;

    struct Cluster {
        desc: Desc,
        zone_aware: bool,
    }

    /// Members by zone and time of registration in seconds before now (0 = just now).
    fn cluster(members: &[(&str, i64)], zone_aware: bool) -> Cluster {
        let mut desc = Desc::new();
        for (index, (zone, age)) in members.iter().enumerate() {
            let number = u32::try_from(index).unwrap();
            let entry = InstanceDesc {
                addr: format!("10.0.0.{index}:9095").into(),
                timestamp: NOW,
                zone: (*zone).into(),
                tokens: Tokens::from(vec![number * 100 + 1]),
                registered_timestamp: NOW - age,
                ..InstanceDesc::default()
            };
            desc.insert(format!("i{index}"), entry);
        }
        Cluster { desc, zone_aware }
    }

    impl Cluster {
        fn dead(mut self, index: usize) -> Self {
            let id = format!("i{index}");
            let mut entry = InstanceDesc::clone(self.desc.get(&id).unwrap());
            entry.timestamp = NOW - 600;
            self.desc.insert(id, entry);
            self
        }

        /// The quorum of a query for the last `secs` seconds.
        fn query(&self, secs: i64, aware: bool) -> ReadQuorum {
            let options = RingOptions { zone_awareness_enabled: self.zone_aware, ..RingOptions::default() };
            let ring = Snapshot::first_sight(&self.desc, NOW, &options);
            let set = ring.replication_set(Operation::READ, NOW).unwrap().to_set();
            ReadQuorum::new(&ring.shuffle_shard("tenant", 0), &set, (NOW - secs) * 1000, aware)
        }
    }

    /// Feeds answers (`+index`, `-index` for failures, counted from 1) and tells the verdict after each.
    fn after(mut quorum: ReadQuorum, answers: &[i64]) -> Verdict {
        for answer in answers {
            let index = usize::try_from(answer.abs() - 1).unwrap();
            if *answer > 0 { quorum.answered(index) } else { quorum.failed(index) }
        }
        quorum.verdict()
    }

    const OLD: (&str, i64) = ("", 10_000);
    const YOUNG: (&str, i64) = ("", 10);

    #[test]
    fn two_of_three_are_enough_and_two_failures_too_many() {
        let quorum = cluster(&[OLD, OLD, OLD], false).query(60, true);
        assert_eq!(after(quorum.clone(), &[]), Verdict::Pending);
        assert_eq!(after(quorum.clone(), &[1]), Verdict::Pending);
        assert_eq!(after(quorum.clone(), &[1, 3]), Verdict::Reached);
        assert_eq!(after(quorum.clone(), &[-1, 2, 3]), Verdict::Reached);
        assert_eq!(after(quorum.clone(), &[-1, 3, -2]), Verdict::Failed);
        assert_eq!(after(quorum, &[1, 1, 1]), Verdict::Pending, "one member cannot answer twice");
    }

    #[test]
    fn a_member_that_came_back_empty_cannot_stand_in_for_one_that_was_there() {
        let cluster = cluster(&[OLD, OLD, YOUNG], false);
        let aware = cluster.query(60, true);
        assert_eq!(after(aware.clone(), &[1, 3]), Verdict::Pending);
        assert_eq!(after(aware.clone(), &[1, 3, 2]), Verdict::Reached);
        assert_eq!(after(aware.clone(), &[1, 2]), Verdict::Reached);
        assert_eq!(after(aware, &[1, 3, -2]), Verdict::Shortfall);
        assert_eq!(after(cluster.query(60, false), &[1, 3]), Verdict::Reached, "Cortex counts anybody");
    }

    #[test]
    fn a_dead_member_that_was_there_still_counts_for_what_is_needed() {
        let cluster = cluster(&[OLD, OLD, YOUNG], false).dead(0);
        // Of two that were there, both are needed, and one is dead.
        assert_eq!(after(cluster.query(60, true), &[]), Verdict::Shortfall);
        assert_eq!(after(cluster.query(60, false), &[1, 2]), Verdict::Reached);
    }

    #[test]
    fn a_ring_younger_than_the_range_counts_as_cortex_does() {
        let quorum = cluster(&[YOUNG, YOUNG, YOUNG], false).query(LONG_AGO + 3600, true);
        assert_eq!(after(quorum, &[1, 2]), Verdict::Reached);
    }

    #[test]
    fn an_unknown_registration_counts_as_old() {
        let quorum = cluster(&[("", NOW), ("", NOW), YOUNG], false).query(60, true);
        assert_eq!(after(quorum, &[1, 3]), Verdict::Pending);
    }

    #[test]
    fn zones_answer_as_a_whole() {
        let zones = [("a", 9000), ("a", 9000), ("b", 9000), ("b", 9000), ("c", 9000), ("c", 9000)];
        let quorum = cluster(&zones, true).query(60, true);
        assert_eq!(after(quorum.clone(), &[1, 2, 3]), Verdict::Pending);
        assert_eq!(after(quorum.clone(), &[1, 2, 3, 4]), Verdict::Reached);
        assert_eq!(after(quorum.clone(), &[-1, -2, 3, 4, 5]), Verdict::Pending);
        assert_eq!(after(quorum, &[-1, -3]), Verdict::Failed);
    }

    #[test]
    fn a_zone_with_an_emptied_member_cannot_stand_in_for_a_whole_one() {
        let zones = [("a", 9000), ("a", 10), ("b", 9000), ("b", 9000), ("c", 9000), ("c", 9000)];
        let quorum = cluster(&zones, true).query(60, true);
        assert_eq!(after(quorum.clone(), &[1, 2, 3, 4]), Verdict::Pending);
        assert_eq!(after(quorum.clone(), &[3, 4, 5, 6]), Verdict::Reached);
        assert_eq!(after(quorum, &[1, 2, 3, 4, -5]), Verdict::Shortfall);
    }

    #[test]
    fn with_one_zone_down_all_others_must_answer() {
        let zones = [("a", 9000), ("b", 9000), ("c", 9000)];
        let quorum = cluster(&zones, true).dead(2).query(60, true);
        assert_eq!(after(quorum.clone(), &[1]), Verdict::Pending);
        assert_eq!(after(quorum.clone(), &[1, -2]), Verdict::Failed);
        assert_eq!(after(quorum, &[1, 2]), Verdict::Reached);
    }

    proptest! {
        /// Whoever held a write quorum of old members, a reached read quorum has heard at least one of them.
        #[test]
        fn a_reached_quorum_meets_every_write_quorum(
            members in 3usize..7,
            answers in proptest::collection::vec((0usize..7, any::<bool>()), 0..20),
            writers in proptest::sample::subsequence((0..7).collect::<Vec<usize>>(), 2),
        ) {
            let all: Vec<_> = (0..members).map(|_| OLD).collect();
            let mut quorum = cluster(&all, false).query(60, true);
            let mut given = vec![false; members];
            for (index, ok) in answers {
                let index = index % members;
                let first = quorum.members[index].answer == Answer::Outstanding;
                if ok { quorum.answered(index) } else { quorum.failed(index) }
                given[index] |= first && ok;
                if quorum.verdict() == Verdict::Reached && writers.iter().all(|w| *w < members) {
                    prop_assert!(writers.iter().any(|w| given[*w]), "{writers:?} {given:?}");
                }
            }
        }
    }
}
