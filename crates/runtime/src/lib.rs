//! The life of a process: services and their states, modules started in dependency order, tasks that end with
//! their owner, shutdown with a deadline and a report, files that are read again, wall time and metric handles. Knows
//! nothing about rings.

mod backoff;
mod clock;
mod collect;
mod drain;
mod error;
mod gate;
mod live;
mod meter;
mod modules;
mod reload;
mod service;
mod shutdown;
mod supervisor;

pub use self::backoff::Backoff;
pub use self::clock::{Clock, Jumps, ManualClock};
pub use self::collect::{Collect, CollectGuard, Families};
pub use self::drain::{Drainable, Progress, Stage};
pub use self::error::{Cause, Error, Failure, Phase, StopProcess};
pub use self::gate::{Closed, Gate, Pass};
pub use self::live::{Live, Publisher};
pub use self::meter::Meter;
pub use self::modules::{Group, Init, Module, Modules};
pub use self::reload::{Contents, Reload, ReloadOptions};
pub use self::service::{Service, ServiceHandle, ServiceState};
pub use self::shutdown::{ShutdownReport, Signal, Signals, Step};
pub use self::supervisor::Supervisor;

/// Cancellation as used by every service: one token per owner, children cancelled with it.
pub use tokio_util::sync::CancellationToken;
