//! Timestamps that mostly follow each other at one distance, as a short list of runs.

/// A growing set of timestamps, kept as runs of equal steps.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Runs {
    runs: Vec<Run>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Run {
    first: i64,
    /// At least 1.
    count: u64,
    step: i64,
}

impl Run {
    fn last(&self) -> i64 {
        self.first + (self.count as i64 - 1) * self.step
    }

    /// Number of members below `t`.
    fn below(&self, t: i64) -> u64 {
        if t <= self.first {
            return 0;
        }
        let steps = (t - 1 - self.first) / self.step;
        self.count.min(steps as u64 + 1)
    }
}

impl Runs {
    /// Adds a timestamp greater than all before it. A timestamp that is not greater is left out; returns whether it was added.
    /// `step` is the usual distance and at least 1.
    pub fn push(&mut self, t: i64, step: i64) -> bool {
        let step = step.max(1);
        match self.runs.last_mut() {
            Some(run) if t <= run.last() => return false,
            Some(run) if run.step == step && t - run.last() == step => run.count += 1,
            _ => self.runs.push(Run { first: t, count: 1, step }),
        }
        true
    }

    /// Whether a timestamp is a member.
    pub fn contains(&self, t: i64) -> bool {
        self.next_at_or_after(t) == Some(t)
    }

    /// The smallest member not below `t`.
    pub fn next_at_or_after(&self, t: i64) -> Option<i64> {
        let run = self.runs.get(self.runs.partition_point(|run| run.last() < t))?;
        Some(run.first + run.below(t) as i64 * run.step)
    }

    /// Members from `start` to before `end`.
    pub fn between(&self, start: i64, end: i64) -> impl Iterator<Item = i64> + '_ {
        let from = self.runs.partition_point(|run| run.last() < start);
        self.runs[from..].iter().take_while(move |run| run.first < end).flat_map(move |run| {
            (run.below(start)..run.below(end)).map(move |index| run.first + index as i64 * run.step)
        })
    }

    /// The smallest member.
    pub fn first(&self) -> Option<i64> {
        self.runs.first().map(|run| run.first)
    }

    /// The largest member.
    pub fn last(&self) -> Option<i64> {
        self.runs.last().map(Run::last)
    }

    /// Number of members.
    pub fn len(&self) -> u64 {
        self.runs.iter().map(|run| run.count).sum()
    }

    /// Whether there is no member.
    pub fn is_empty(&self) -> bool {
        self.runs.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn runs_behave_as_a_set(gaps in proptest::collection::vec(0_i64..4, 0..60), start in -3_i64..70, width in 0_i64..40) {
            let (mut runs, mut set, mut t) = (Runs::default(), BTreeSet::new(), 0);
            for gap in gaps {
                t += gap;
                let added = runs.push(t, 1);
                prop_assert_eq!(added, set.insert(t));
            }
            let end = start + width;
            prop_assert_eq!(runs.between(start, end).collect::<Vec<_>>(), set.range(start..end).copied().collect::<Vec<_>>());
            prop_assert_eq!(runs.next_at_or_after(start), set.range(start..).next().copied());
            prop_assert_eq!(runs.contains(start), set.contains(&start));
            prop_assert_eq!(runs.len(), set.len() as u64);
            prop_assert_eq!((runs.first(), runs.last()), (set.first().copied(), set.last().copied()));
        }
    }

    #[test]
    fn a_steady_load_stays_one_run() {
        let mut runs = Runs::default();
        for tick in 0..100_000 {
            runs.push(tick * 500, 500);
        }
        assert_eq!((runs.runs.len(), runs.len()), (1, 100_000));
    }
}
