//! The guard against a store that forgets: which removals a reader believes at once, and which it holds back. Pure: time
//! and what is known come in, decisions go out; [`crate::RingService`] reads, publishes and logs.
//!
//! A store that restarts empty, or loses part of what it held, looks like a ring that everybody left. Moving all data for
//! that would be worse than the fault, so removals beyond a fraction of the ring are held back for a grace period in which
//! the members write themselves in again. Only removals are held back; everything else passes.
//!
//! The rules:
//!
//! - A member is *lost* if its entry is gone although it was last seen neither LEAVING nor LEFT and was alive when the store
//!   was last heard: a store that fell silent for long and comes back empty killed nobody. All others left, or are dead
//!   anyway; they never count and go at once.
//! - Losses within one grace period count together, so that a store which loses its entries in steps is caught too: the
//!   new losses, those held back, and those let go less than a grace period ago that did not return. If they are more than
//!   the fraction of the members that could have been lost, the new losses are held back. Those let go before stay gone.
//! - One lost member in an update is no mass: so an instance looks that unregistered in a hurry, its LEAVING and its removal
//!   arriving as one. It counts for what comes after, but is itself held back only if others are already. (A store that
//!   loses one entry after the other is believed, therefore.) Nor is a ring of fewer than [`MIN_MEMBERS`] guarded.
//! - Each loss is held back for one grace period of its own, or until its member returns. The hold goes on until all of
//!   them are back or let go: that a store has half recovered does not mean the other half left.
//! - While the key is absent as a whole nothing is removed; the grace period begins anew with the next value.

use std::collections::BTreeMap;
use std::time::Duration;

use ringkit_kv::EntryId;
use tokio::time::Instant;

use crate::desc::State;
use crate::health::is_fresh;
use crate::snapshot::Snapshot;

/// Rings smaller than this are not guarded: with two members, one that is gone is half of the ring.
pub(crate) const MIN_MEMBERS: usize = 3;

/// Fewer members lost by one update are no mass.
const MIN_LOST: usize = 2;

/// Decides which removals are held back.
#[derive(Debug)]
pub(crate) struct Guard {
    max_fraction: f64,
    grace: Duration,
    /// Lost members whose removal is held back, and until when.
    held: BTreeMap<EntryId, Instant>,
    /// Lost members that were let go at once, and when. Those older than a grace period no longer count.
    let_go: BTreeMap<EntryId, Instant>,
    /// The key is absent: grace periods stand still.
    absent: bool,
    /// How those held back by the running hold ended so far.
    ended: Ended,
}

/// The ring that is served before an update is taken.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Served {
    /// Its members, those held back included.
    pub(crate) members: usize,
    /// Those that would count as lost, those held back not included.
    pub(crate) losable: usize,
}

/// What an operator should hear of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    /// Removals are held back from now on.
    Began(Alarm),
    /// More removals are held back.
    Grew(Alarm),
    /// Nothing is held back any longer.
    Ended(Ended),
}

/// How much was lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Alarm {
    /// Members lost within a grace period.
    pub(crate) lost: usize,
    /// Of how many that could have been.
    pub(crate) of: usize,
    /// How many of the lost are held back.
    pub(crate) held: usize,
}

/// How a hold ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Ended {
    /// Members that returned.
    pub(crate) returned: usize,
    /// Members that did not, and were let go.
    pub(crate) let_go: usize,
}

impl Guard {
    /// Holds back losses beyond `max_fraction` of the members, 0 to 1, for `grace`. Zero for either switches it off.
    pub(crate) fn new(max_fraction: f64, grace: Duration) -> Self {
        Self {
            max_fraction,
            grace,
            held: BTreeMap::new(),
            let_go: BTreeMap::new(),
            absent: false,
            ended: Ended::default(),
        }
    }

    /// Takes in an update: `present` are ids that it brings or changes, `lost` those of served members that it lacks,
    /// see [`is_losable`]. Afterwards [`Guard::holds`] tells which of the lost are to be kept.
    ///
    /// `served` is asked only if somebody is lost.
    pub(crate) fn handle_update<'a>(
        &mut self,
        now: Instant,
        present: impl IntoIterator<Item = &'a EntryId>,
        lost: Vec<EntryId>,
        served: impl FnOnce(&Self) -> Served,
    ) -> Vec<Event> {
        let mut events = Vec::new();
        if std::mem::take(&mut self.absent) {
            let until = now + self.grace;
            self.held.values_mut().for_each(|at| *at = until);
        }
        if !self.held.is_empty() || !self.let_go.is_empty() {
            for id in present {
                self.let_go.remove(id);
                self.ended.returned += usize::from(self.held.remove(id).is_some());
            }
            events.extend(self.end());
        }
        if !lost.is_empty() && self.is_on() {
            let grace = self.grace;
            self.let_go.retain(|_, at| now < *at + grace);
            events.extend(self.handle_losses(now, lost, |guard| served(guard)));
        }
        events
    }

    fn handle_losses(
        &mut self,
        now: Instant,
        lost: Vec<EntryId>,
        served: impl FnOnce(&Self) -> Served,
    ) -> Option<Event> {
        let served = served(self);
        let gone = self.let_go.len();
        let (all, of) = (lost.len() + self.held.len() + gone, served.losable + self.held.len() + gone);
        let alone = lost.len() < MIN_LOST && self.held.is_empty();
        let guarded = served.members + gone >= MIN_MEMBERS && !alone;
        if !guarded || all as f64 <= self.max_fraction * of as f64 {
            self.let_go.extend(lost.into_iter().map(|id| (id, now)));
            return None;
        }
        let runs = !self.held.is_empty();
        let until = now + self.grace;
        self.held.extend(lost.into_iter().map(|id| (id, until)));
        let alarm = Alarm { lost: all, of, held: self.held.len() };
        Some(if runs { Event::Grew(alarm) } else { Event::Began(alarm) })
    }

    /// The key became absent.
    pub(crate) fn handle_absent(&mut self) {
        self.absent = true;
    }

    /// Lets go whose grace period is over. True if there were any.
    pub(crate) fn handle_time(&mut self, now: Instant) -> (bool, Option<Event>) {
        if self.deadline().is_none_or(|deadline| now < deadline) {
            return (false, None);
        }
        let before = self.held.len();
        self.held.retain(|_, until| now < *until);
        self.ended.let_go += before - self.held.len();
        (true, self.end())
    }

    /// When [`Guard::handle_time`] has something to do.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        if self.absent { None } else { self.held.values().min().copied() }
    }

    /// Whether the member called `id` is kept although it is no longer stored.
    pub(crate) fn holds(&self, id: &EntryId) -> bool {
        self.held.contains_key(id)
    }

    /// Who is kept although no longer stored.
    pub(crate) fn held(&self) -> impl ExactSizeIterator<Item = &EntryId> {
        self.held.keys()
    }

    fn is_on(&self) -> bool {
        self.max_fraction > 0.0 && !self.grace.is_zero()
    }

    fn end(&mut self) -> Option<Event> {
        let ends = self.held.is_empty() && self.ended != Ended::default();
        ends.then(|| Event::Ended(std::mem::take(&mut self.ended)))
    }
}

/// Whether the member at `place` of `known` counts as lost if its entry is gone, where the store was last heard at `heard`
/// (Unix seconds).
pub(crate) fn is_losable(known: &Snapshot, place: usize, heard: i64) -> bool {
    !matches!(known.members[place].state(), State::Leaving | State::Left)
        && is_fresh(known.seen[place], heard, known.options.heartbeat_timeout)
}

#[cfg(test)]
mod tests;
