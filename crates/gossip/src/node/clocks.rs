//! [`Clocks`]: how far the wall clocks of others are from ours, as far as their heartbeats tell.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::time::{Hlc, Now};

/// A clock that is behind ours by more than this many milliseconds is taken for one that says that ours is ahead: more than a
/// heartbeat is under way, which makes it look late.
const BEHIND_MS: i64 = 1_000;
/// How long what a heartbeat told counts: our own clock may have been set since.
const KEPT_FOR: Duration = Duration::from_secs(10 * 60);

/// The wall clocks of live members.
///
/// A heartbeat tells when it was written by its author's clock, and how long ago that was by everybody's monotonic ones. The
/// time that it was under way is not counted: clocks look late by that.
#[derive(Debug, Default)]
pub(super) struct Clocks {
    /// By member: its time less ours in milliseconds, and when it told.
    told: BTreeMap<u64, (i64, Duration)>,
}

impl Clocks {
    /// A heartbeat was written at `hlc` by its author's clock, `age_ms` ago.
    pub(super) fn note(&mut self, now: Now, author: u64, hlc: Hlc, age_ms: u64) {
        let signed = |ms: u64| i64::try_from(ms).unwrap_or(i64::MAX);
        let offset = signed(hlc.ms().saturating_add(age_ms)).saturating_sub(signed(now.wall_ms));
        self.told.insert(author, (offset, now.mono));
    }

    /// The member is no more, or in a later life.
    pub(super) fn forget(&mut self, author: u64) {
        self.told.remove(&author);
    }

    /// Forgets what was told too long ago.
    pub(super) fn forget_old(&mut self, now: Now) {
        self.told.retain(|_, (_, at)| now.mono.saturating_sub(*at) < KEPT_FOR);
    }

    /// How far the clock of a member is ahead of ours, in milliseconds.
    pub(super) fn offset_ms(&self, author: u64) -> Option<i64> {
        self.told.get(&author).map(|(offset, _)| *offset)
    }

    /// If at least half of the clocks are behind ours by more than a second: how many those are, and the median of by how many
    /// milliseconds.
    pub(super) fn behind(&self) -> Option<(usize, i64)> {
        let behind_by = self.told.values().map(|(offset, _)| offset.saturating_neg());
        let mut behind: Vec<i64> = behind_by.filter(|by| *by > BEHIND_MS).collect();
        if behind.len() * 2 < self.told.len() {
            return None;
        }
        behind.sort_unstable();
        let median = behind.get(behind.len() / 2)?;
        Some((behind.len(), *median))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Now {
        Now { mono: Duration::from_millis(ms), wall_ms: 1_000_000 + ms }
    }

    fn clocks(offsets: &[i64]) -> Clocks {
        let mut clocks = Clocks::default();
        for (author, offset) in (1..).zip(offsets) {
            clocks.note(at(0), author, Hlc::from_ms(999_000_u64.saturating_add_signed(*offset)), 1_000);
        }
        clocks
    }

    #[test]
    fn half_of_the_others_and_more_than_a_second_make_ours_wrong() {
        assert_eq!(clocks(&[]).behind(), None);
        assert_eq!(clocks(&[5_000]).behind(), None);
        assert_eq!(clocks(&[-1_000]).behind(), None);
        assert_eq!(clocks(&[-1_001]).behind(), Some((1, 1_001)));
        assert_eq!(clocks(&[-5_000, 0]).behind(), Some((1, 5_000)));
        assert_eq!(clocks(&[-5_000, 0, 0]).behind(), None);
        assert_eq!(clocks(&[-5_000, -7_000, -90_000, 0]).behind(), Some((3, 7_000)));
        assert_eq!(clocks(&[-5_000, 3_000]).offset_ms(2), Some(3_000));
    }

    #[test]
    fn what_was_told_long_ago_or_by_somebody_who_is_gone_does_not_count() {
        let mut clocks = clocks(&[-5_000, -6_000]);
        clocks.note(at(1_000), 2, Hlc::from_ms(990_000), 0);
        clocks.forget_old(at(600_500));
        assert_eq!((clocks.offset_ms(1), clocks.behind()), (None, Some((1, 11_000))));
        clocks.forget(2);
        assert_eq!(clocks.behind(), None);
    }

    #[test]
    fn times_at_their_ends_do_not_panic() {
        let mut clocks = Clocks::default();
        for wall_ms in [0, u64::MAX] {
            for ms in [0, u64::MAX] {
                clocks.note(Now { mono: Duration::MAX, wall_ms }, 1, Hlc::from_ms(ms), ms);
                let _ = clocks.behind();
            }
        }
    }
}
