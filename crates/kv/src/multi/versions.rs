//! [`Versions`]: which version of the primary a version was made from that readers were given.

use std::collections::VecDeque;
use std::sync::Arc;

use super::place::Place;
use crate::entries::Entries;
use crate::store::{EntryBytes, Stored};

/// How many are remembered. Who builds on an older one reads again.
const MAX_REMEMBERED: usize = 256;

/// The versions that readers were given last.
#[derive(Debug, Default)]
pub(super) struct Versions {
    given: VecDeque<Version>,
}

/// A version that readers were given.
#[derive(Debug)]
pub(super) struct Version {
    ours: u64,
    /// Which store was the primary.
    pub(super) place: Place,
    /// Its version; `None` = the key was absent there.
    pub(super) theirs: Option<u64>,
    pub(super) entries: Arc<Entries<EntryBytes>>,
}

impl Versions {
    /// Readers are given this, made while the primary was at `theirs`.
    pub(super) fn add(&mut self, given: &Stored, place: Place, theirs: Option<u64>) {
        if self.given.len() == MAX_REMEMBERED {
            self.given.pop_front();
        }
        let entries = Arc::clone(&given.entries);
        self.given.push_back(Version { ours: given.version, place, theirs, entries });
    }

    /// The primary moved on, and that made no difference to readers.
    pub(super) fn move_last(&mut self, place: Place, theirs: Option<u64>) {
        if let Some(last) = self.given.back_mut() {
            (last.place, last.theirs) = (place, theirs);
        }
    }

    pub(super) fn find(&self, ours: u64) -> Option<&Version> {
        self.given.iter().rev().find(|version| version.ours == ours)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_versions_are_remembered() {
        let mut versions = Versions::default();
        let given = |version| Stored { version, entries: Arc::default() };
        for ours in 1..=300 {
            versions.add(&given(ours), Place::First, Some(1000 + ours));
        }
        assert!(versions.find(44).is_none() && versions.find(301).is_none());
        assert_eq!(versions.find(45).unwrap().theirs, Some(1045));
        versions.move_last(Place::First, None);
        assert_eq!(versions.find(300).unwrap().theirs, None);
    }
}
