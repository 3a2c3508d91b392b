//! [`Mode`]: how a multi store goes about things at the moment. Whoever acts looks at it under the lock of the key it acts on.

use super::control::Freshness;
use super::place::{Both, Place};
use crate::codec::Codec;

/// How a multi store goes about things at the moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Mode {
    /// Who decides.
    pub(super) primary: Place,
    /// Whether changes go to the other store, too.
    pub(super) mirror: bool,
    /// Whether readers see both stores together.
    pub(super) union: bool,
    /// Whether the secondary reflects its cluster. Until then it does not count.
    pub(super) secondary_counts: bool,
    /// The primary is not there, and was waited for long enough: if it was never heard, the secondary will do.
    pub(super) stands_in: bool,
    /// Grows with every switch.
    pub(super) epoch: u64,
}

impl Mode {
    pub(super) fn secondary(&self) -> Place {
        self.primary.other()
    }
}

/// What a key needs to know to take something in.
#[derive(Clone)]
pub(super) struct Context {
    pub(super) mode: Mode,
    pub(super) codec: &'static dyn Codec,
    /// In Unix seconds.
    pub(super) now: i64,
    pub(super) freshness: Freshness,
    /// Whether what is gone from a store was removed by somebody.
    pub(super) removals_are_meant: Both<bool>,
}

impl Context {
    /// Until when a removal that happens now is remembered.
    pub(super) fn remembered_until(&self) -> i64 {
        self.now.saturating_add(self.freshness.remembered_secs())
    }
}
