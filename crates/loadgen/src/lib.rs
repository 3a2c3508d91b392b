//! Deterministic load for anything that takes Prometheus remote write, and the proof that nothing acknowledged was lost.
//!
//! A [`Load`] sends series that follow from a [`Plan`] alone (seed, number of series, interval), at a given rate and on an
//! open-loop schedule. What the server acknowledged goes into a [`Ledger`], which outlives the loader's own death.
//! [`verify()`] later reads everything back and compares it bit by bit: acknowledged samples must be there, samples that
//! were never sent must not.
//!
//! - [`plan`]: the numbers everything follows from; [`series`]: labels and values of one series
//! - [`load`]: the schedule; [`push`]: one batch, its retries and targets; [`summary`]: what is reported
//! - [`ledger`]: what was sent and what was acknowledged, in memory and on disk
//! - [`verify`](mod@verify): reading back and comparing
//! - [`histogram`]: bounded latency histogram; [`http`]: the small client all of this uses

pub mod error;
pub mod histogram;
pub mod http;
pub mod ledger;
pub mod load;
pub mod plan;
pub mod push;
pub mod series;
pub mod summary;
pub mod verify;

mod encode;

pub use error::Error;
pub use histogram::Histogram;
pub use ledger::Ledger;
pub use load::{LedgerAt, Load, LoadOptions};
pub use plan::Plan;
pub use summary::{Progress, Summary};
pub use verify::{VerifyOptions, VerifyReport, verify};
