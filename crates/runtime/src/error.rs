//! What goes wrong in the life of a process, named by the service or module at fault.

use std::sync::Arc;

use crate::ServiceState;

/// Any error, as services and module constructors return it.
pub type Cause = Box<dyn std::error::Error + Send + Sync + 'static>;

/// Why a service cannot be used, or a set of modules not be started.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A service was asked for something that its state does not allow, or did not get where it was awaited.
    #[error("service `{service}` is {actual}, expected {expected}{}", because(failure.as_deref()))]
    State {
        /// The service.
        service: Arc<str>,
        /// The state it is in.
        actual: ServiceState,
        /// The state it was expected in.
        expected: ServiceState,
        /// Why it failed, if it did.
        #[source]
        failure: Option<Arc<Failure>>,
    },
    /// Two modules have one name.
    #[error("module `{name}` is registered twice: give one of them another name")]
    DuplicateModule {
        /// The name.
        name: String,
    },
    /// A target names no module.
    #[error("unknown target `{name}`: known targets are {}", known.join(", "))]
    UnknownTarget {
        /// What was asked for.
        name: String,
        /// What could be asked for.
        known: Vec<String>,
    },
    /// A module depends on one that does not exist.
    #[error("module `{module}` depends on `{dependency}`, which is not registered: known modules are {}", known.join(", "))]
    UnknownDependency {
        /// The dependent module.
        module: String,
        /// What it asks for.
        dependency: String,
        /// What there is.
        known: Vec<String>,
    },
    /// Modules depend on each other in a circle.
    #[error("modules depend on each other in a circle: {}", path.join(" -> "))]
    Cycle {
        /// The circle; first and last are the same.
        path: Vec<String>,
    },
    /// A module's constructor failed.
    #[error("error initialising module `{module}`: {cause}")]
    Init {
        /// The module.
        module: String,
        /// What its constructor returned.
        #[source]
        cause: Arc<dyn std::error::Error + Send + Sync>,
    },
    /// A module's service did not come up.
    #[error("error starting module: {0}")]
    Start(#[source] Arc<Failure>),
    /// Stopping was requested before all services were running.
    #[error("stopped while starting: these were not running yet: {}", pending.join(", "))]
    Interrupted {
        /// The modules that were not running.
        pending: Vec<String>,
    },
}

fn because(failure: Option<&Failure>) -> String {
    failure.map(|failure| format!(", failure: {}", failure.cause)).unwrap_or_default()
}

/// Which part of a service's life failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// [`Service::start`](crate::Service::start).
    Start,
    /// [`Service::run`](crate::Service::run), or a supervised task.
    Run,
    /// [`Service::stop`](crate::Service::stop).
    Stop,
}

impl std::fmt::Display for Phase {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Start => "starting",
            Self::Run => "running",
            Self::Stop => "stopping",
        })
    }
}

/// The failure of a service or of a supervised task.
#[derive(Debug, thiserror::Error)]
#[error("`{name}` failed while {phase}: {cause}")]
pub struct Failure {
    /// The service or task.
    pub name: Arc<str>,
    /// When in its life.
    pub phase: Phase,
    /// What it returned, or how it panicked.
    #[source]
    pub cause: Cause,
}

impl Failure {
    /// Whether this is an orderly request to stop the process: see [`StopProcess`].
    pub fn is_stop_request(&self) -> bool {
        let mut next: Option<&(dyn std::error::Error + 'static)> = Some(self.cause.as_ref());
        while let Some(error) = next {
            if error.is::<StopProcess>() {
                return true;
            }
            next = error.source();
        }
        false
    }
}

/// Returned by a service's `run` to end the whole process in order, with success.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("the process was asked to stop")]
pub struct StopProcess;

/// The words of a panic, as an error.
#[derive(Debug, thiserror::Error)]
#[error("panicked: {0}")]
pub(crate) struct Panicked(String);

impl Panicked {
    pub(crate) fn new(payload: &(dyn std::any::Any + Send)) -> Self {
        let words = payload.downcast_ref::<&str>().map(|words| (*words).to_owned());
        let words = words.or_else(|| payload.downcast_ref::<String>().cloned());
        Self(words.unwrap_or_else(|| "without a message".to_owned()))
    }
}
