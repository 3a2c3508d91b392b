//! How much two rings differ, as far as readers care.

use crate::desc::{Desc, InstanceDesc, State};

/// How much two rings differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Comparison {
    /// Not at all.
    Equal,
    /// States or timestamps differ, READONLY aside.
    EqualButStatesAndTimestamps,
    /// Somebody became READONLY or ceased to be.
    EqualButReadOnly,
    /// Instances, addresses, zones, registrations or tokens differ.
    Different,
}

impl Desc {
    /// How much `other` differs from this ring.
    ///
    /// Entries and token lists that share their storage are not looked into. Costs O(n) then, else O(tokens).
    ///
    /// # Source
    ///
    /// Cortex's `RingCompare`, and dskit's for its read-only fields.
    pub fn compare(&self, other: &Self) -> Comparison {
        if self.len() != other.len() {
            return Comparison::Different;
        }
        let mut result = Comparison::Equal;
        for ((id, a), (other_id, b)) in self.iter().zip(other) {
            if id != other_id {
                return Comparison::Different;
            }
            if !std::sync::Arc::ptr_eq(a, b) {
                result = result.max(compare_entries(a, b));
            }
            if result == Comparison::Different {
                break;
            }
        }
        result
    }
}

pub(crate) fn compare_entries(a: &InstanceDesc, b: &InstanceDesc) -> Comparison {
    let same_place = a.addr == b.addr
        && a.zone == b.zone
        && a.registered_timestamp == b.registered_timestamp
        && a.read_only == b.read_only
        && a.read_only_updated_timestamp == b.read_only_updated_timestamp
        && a.tokens == b.tokens;
    if !same_place {
        Comparison::Different
    } else if a.state != b.state && (a.state == State::ReadOnly || b.state == State::ReadOnly) {
        Comparison::EqualButReadOnly
    } else if a.state != b.state || a.timestamp != b.timestamp {
        Comparison::EqualButStatesAndTimestamps
    } else {
        Comparison::Equal
    }
}
