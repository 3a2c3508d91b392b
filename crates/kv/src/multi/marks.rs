//! [`Marks`]: which entries were removed. And [`Ages`]: when their owners were last heard. Times are Unix seconds.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::store::EntryId;

/// Entries that were removed, by the time at which their owners had written them: what is not newer does not count.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Marks {
    marks: BTreeMap<EntryId, Mark>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Mark {
    timestamp: i64,
    until: i64,
    /// It is not known when the entry had been written, only when it was removed, by somebody else's clock than its owner's.
    weak: bool,
}

impl Marks {
    pub(super) const fn new() -> Self {
        Self { marks: BTreeMap::new() }
    }

    /// An entry that its owner had written at `timestamp` was removed. That is remembered at least `until` then.
    pub(super) fn set(&mut self, id: &EntryId, timestamp: i64, until: i64) {
        let mark = self.marks.entry(id.clone()).or_insert(Mark { timestamp, until, weak: false });
        // Now it is known which entry was meant.
        let known = if std::mem::take(&mut mark.weak) { timestamp } else { mark.timestamp };
        mark.timestamp = known.max(timestamp);
        mark.until = mark.until.max(until);
    }

    /// An entry was removed at `removed_at`; when its owner had written it is not known. What is older than that is believed to
    /// be what was meant, until its owner is [heard](Self::heard): a store that removes by the order of writes, and not by what
    /// they say of their time, lets whoever comes back come back, whatever its clock says. Says nothing where more is known.
    pub(super) fn set_weak(&mut self, id: &EntryId, removed_at: i64, until: i64) {
        self.marks.entry(id.clone()).or_insert(Mark { timestamp: removed_at, until, weak: true });
    }

    /// The owner of an entry gave a sign of life after its entry was removed.
    pub(super) fn heard(&mut self, id: &str) {
        if self.marks.get(id).is_some_and(|mark| mark.weak) {
            self.marks.remove(id);
        }
    }

    /// Somebody who knows of the removal writes the entry again.
    pub(super) fn lift(&mut self, id: &str) {
        self.marks.remove(id);
    }

    /// When the entry that was removed had been written, or else when it was removed.
    pub(super) fn timestamp(&self, id: &str) -> Option<i64> {
        self.marks.get(id).map(|mark| mark.timestamp)
    }

    /// Whether an entry that its owner wrote at `timestamp` is one that was removed.
    pub(super) fn hide(&self, id: &str, timestamp: i64) -> bool {
        self.timestamp(id).is_some_and(|removed| timestamp <= removed)
    }

    /// Forgets what was remembered long enough.
    pub(super) fn expire(&mut self, now: i64) {
        self.marks.retain(|_, mark| mark.until >= now);
    }

    pub(super) fn len(&self) -> usize {
        self.marks.len()
    }
}

/// When owners were last heard: at first sight at the time that their entry says, but never in the future; afterwards whenever
/// that time advances. So a wrong clock neither kills an instance nor keeps its entry alive after it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Ages {
    ages: BTreeMap<EntryId, Age>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Age {
    timestamp: i64,
    heard: i64,
    /// When a sign of life was seen last, and not merely what was there already.
    moved: Option<i64>,
}

impl Ages {
    /// An entry was seen that its owner wrote at `timestamp`. What a store holds when it is looked at for the `first` time may be
    /// old, although it is newer than what the other one holds. Returns whether it is a sign of life.
    pub(super) fn see(&mut self, id: &EntryId, timestamp: i64, now: i64, first: bool) -> bool {
        let unknown = Age { timestamp, heard: timestamp.min(now), moved: None };
        let is_known = self.ages.contains_key(id);
        let age = self.ages.entry(id.clone()).or_insert(unknown);
        let advances = timestamp > age.timestamp;
        if advances {
            age.timestamp = timestamp;
            age.heard = if first { age.heard.max(unknown.heard) } else { now };
        }
        let is_sign = !first && (advances || !is_known);
        if is_sign {
            age.moved = Some(now);
        }
        is_sign
    }

    /// The owner itself wrote its entry `now`, whatever time that says.
    pub(super) fn wrote(&mut self, id: &str, now: i64) {
        if let Some(age) = self.ages.get_mut(id) {
            age.moved = Some(now);
        }
    }

    /// Whether the owner gave a sign of life at this time or later.
    pub(super) fn moved_since(&self, id: &str, at: i64) -> bool {
        self.ages.get(id).is_some_and(|age| age.moved >= Some(at))
    }

    /// Whether the owner was heard within `timeout`; 0 = that does not matter.
    pub(super) fn is_fresh(&self, id: &str, now: i64, timeout: Duration) -> bool {
        let from = if timeout.is_zero() { i64::MIN } else { now.saturating_sub_unsigned(timeout.as_secs()) };
        self.ages.get(id).is_some_and(|age| age.heard >= from)
    }

    /// The newest time that was seen in an entry.
    pub(super) fn timestamp(&self, id: &str) -> Option<i64> {
        self.ages.get(id).map(|age| age.timestamp)
    }

    /// Forgets those of whom nothing is left.
    pub(super) fn retain(&mut self, keep: impl Fn(&EntryId) -> bool) {
        self.ages.retain(|id, _| keep(id));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    #[test]
    fn a_mark_hides_what_is_not_newer_until_it_expires() {
        let (mut marks, id) = (Marks::new(), EntryId::from("a"));
        marks.set(&id, 100, 200);
        marks.set(&id, 90, 150);
        assert!(marks.hide("a", 100) && !marks.hide("a", 101) && !marks.hide("b", 1));
        marks.expire(200);
        assert_eq!(marks.len(), 1);
        marks.expire(201);
        assert_eq!((marks.len(), marks.hide("a", 1)), (0, false));
        marks.set(&id, 100, 200);
        marks.lift("a");
        assert!(!marks.hide("a", 100));
    }

    #[test]
    fn a_weak_mark_hides_until_its_owner_is_heard_or_more_is_known() {
        let (mut marks, id) = (Marks::new(), EntryId::from("a"));
        marks.set_weak(&id, 100, 200);
        assert!(marks.hide("a", 100) && !marks.hide("a", 101));
        marks.heard("a");
        assert!(!marks.hide("a", 1));
        // Which entry was meant is known better where it was seen, before or after.
        marks.set_weak(&id, 100, 200);
        marks.set(&id, 90, 150);
        marks.set_weak(&id, 100, 200);
        assert!(marks.hide("a", 90) && !marks.hide("a", 91));
        marks.heard("a");
        assert!(marks.hide("a", 90), "that one is gone for good");
        marks.expire(200);
        assert_eq!(marks.len(), 1);
    }

    #[test]
    fn what_was_there_already_is_no_sign_of_life() {
        let (mut ages, id) = (Ages::default(), EntryId::from("a"));
        assert!(!ages.see(&id, 100, 1000, true) && !ages.see(&id, 100, 1001, false));
        assert!(!ages.moved_since("a", 0));
        assert!(ages.see(&id, 101, 1002, false), "what advances is, however late it is");
        assert!(ages.moved_since("a", 1002) && !ages.moved_since("a", 1003));
        ages.wrote("a", 1003);
        assert!(ages.moved_since("a", 1003) && !ages.moved_since("b", 0));
        assert!(ages.see(&"b".into(), 100, 1000, false), "and what comes");
    }

    #[test]
    fn an_owner_is_heard_when_its_time_advances() {
        let (mut ages, id) = (Ages::default(), EntryId::from("a"));
        assert!(!ages.is_fresh("a", 0, Duration::ZERO), "of whom nothing is known");
        ages.see(&id, 100, 1000, true);
        assert!(!ages.is_fresh("a", 1000, MINUTE), "what is old at first sight");
        ages.see(&id, 200, 1000, true);
        assert!(!ages.is_fresh("a", 1000, MINUTE), "and what the other store holds is too");
        ages.see(&id, 201, 1000, false);
        assert!(ages.is_fresh("a", 1060, MINUTE) && !ages.is_fresh("a", 1061, MINUTE));
        ages.see(&id, 201, 1050, false);
        assert!(!ages.is_fresh("a", 1061, MINUTE), "the same again is no sign of life");
        assert!(ages.is_fresh("a", i64::MAX, Duration::ZERO));
        let ahead = EntryId::from("b");
        ages.see(&ahead, 5000, 1000, true);
        assert!(!ages.is_fresh("b", 1061, MINUTE), "nobody is heard in the future");
        ages.retain(|id| id == "b");
        assert_eq!((ages.timestamp("a"), ages.timestamp("b")), (None, Some(5000)));
    }
}
