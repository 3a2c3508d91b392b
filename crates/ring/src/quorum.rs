//! When enough replicas have answered: pure counters, fed one reply after the other.
//!
//! [`ItemTracker`] decides a write of one item; [`CountTracker`] and [`ZoneTracker`] decide a read from a
//! [`crate::ReplicationSet`]; [`ReadTracker`] is the one of the two that a set asks for.

mod item;
mod read;

pub use item::{Failure, FailureReason, Family, ItemTracker, Verdict};
pub(crate) use read::tolerated;
pub use read::{CountTracker, ReadTracker, ZoneTracker};
