//! [`Multi`]: two stores at once, so that values can move from one to the other while everybody uses them.
//!
//! One of them is the primary: it decides, and a write has happened once it has it. While mirroring is on, the other one is told of
//! every change, entry by entry and never as a whole value; each is also told what it lacks, now and then; and readers see what both
//! hold together. Who is the primary is switched while the process runs, once the other one is known to hold everything.
//!
//! | here | is |
//! |---|---|
//! | `union` | what two stores hold together: of each entry what its owner wrote last |
//! | `marks` | what was removed, so that it does not come back from the other store; and who was heard when |
//! | `delta`, `queue`, `reconcile` | what a store is to be told, and what becomes of it there |
//! | `compare`, `gate`, `ask` | how the stores differ, and whether that stands in the way of a switch |
//! | `held`, `written`, `state` | all of that for one key |
//! | `unsettled` | what becomes of a write whose writer does not wait for the answer |
//! | `key`, `core`, `worker`, `switch` | the tasks: one for each key, one for the store as a whole |
//!
//! Which writes count as whose: a change without a precondition is its writer's own entry. Values whose
//! [`Codec`](crate::Codec) knows no [times](crate::Codec::stamp) are the primary's, and are mirrored as they are written.
//!
//! # Source
//!
//! Cortex `pkg/ring/kv/multi.go`: the configuration, the metrics, and how the primary is switched. Differs in nearly everything
//! else: there, whole values are mirrored, and nothing is checked before a switch.

mod ask;
mod compare;
mod control;
mod core;
mod delta;
mod gate;
mod health;
mod held;
mod key;
#[cfg(test)]
mod laws;
mod marks;
mod metrics;
mod mode;
mod place;
mod queue;
mod reconcile;
mod report;
mod state;
mod store;
mod switch;
mod tasks;
mod union;
mod unsettled;
mod versions;
mod worker;
mod written;

pub use self::control::{Control, Freshness, MultiRuntime, PerRing};
pub use self::report::{MultiKeyReport, MultiKeyStoreReport, MultiReport, Named, StoreReport, SwitchReport};
pub(crate) use self::store::check;
pub use self::store::{Child, Multi, MultiOptions};
