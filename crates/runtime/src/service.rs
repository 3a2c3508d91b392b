//! One part of a process: how it starts, runs and stops, and the state others see.

use std::fmt;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, OnceLock};

use async_trait::async_trait;
use futures::FutureExt as _;
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::task::AbortHandle;
use tokio_util::sync::CancellationToken;
use tracing::Instrument as _;

use crate::error::{Cause, Error, Failure, Panicked, Phase};

/// A part of a process with a life of its own.
///
/// States: `New → Starting → Running → Stopping → Terminated | Failed`. A panic in any method counts as its error.
///
/// # Source
///
/// The service model of dskit `services/basic_service.go`. Differs in one point: a `start` that is under way when
/// stopping is requested is dropped, and `stop` is called for what it had done so far.
#[async_trait]
pub trait Service: Send + 'static {
    /// Gets ready. On an error the service is `Failed` and `stop` is *not* called. When stopping is requested
    /// meanwhile, this future is dropped at its next await, and `stop` follows.
    async fn start(&mut self, stop: &CancellationToken) -> Result<(), Cause> {
        let _ = stop;
        Ok(())
    }

    /// Works until `stop` is cancelled. Returning, with or without an error, leads to `stop`.
    async fn run(&mut self, stop: CancellationToken) -> Result<(), Cause>;

    /// Cleans up; `failure` is what `run` returned. The first error of `run` and `stop` is the service's failure.
    async fn stop(&mut self, failure: Option<&Cause>) -> Result<(), Cause> {
        let _ = failure;
        Ok(())
    }
}

/// Where a service is in its life. Displayed as in Cortex: `New`, `Starting`, …
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ServiceState {
    /// Built, not started.
    New,
    /// Getting ready.
    Starting,
    /// Ready and working.
    Running,
    /// Cleaning up.
    Stopping,
    /// Ended in order.
    Terminated,
    /// Ended with an error.
    Failed,
}

impl ServiceState {
    /// All states, in the order of a life.
    pub const ALL: [Self; 6] =
        [Self::New, Self::Starting, Self::Running, Self::Stopping, Self::Terminated, Self::Failed];

    /// Whether the service has ended, in order or not.
    pub fn is_final(self) -> bool {
        matches!(self, Self::Terminated | Self::Failed)
    }
}

impl fmt::Display for ServiceState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// Starts, stops and observes one service. Clones share it; the service's task is aborted when the last one drops.
#[derive(Clone, Debug)]
pub struct ServiceHandle(Arc<Owner>);

impl ServiceHandle {
    /// Takes a service in state `New`.
    pub fn new(name: impl Into<Arc<str>>, service: Box<dyn Service>) -> Self {
        let shared = Shared {
            name: name.into(),
            state: watch::Sender::new(ServiceState::New),
            failure: OnceLock::new(),
            stop: CancellationToken::new(),
        };
        Self(Arc::new(Owner {
            shared: Arc::new(shared),
            service: Mutex::new(Some(service)),
            task: OnceLock::new(),
        }))
    }

    /// The service's name.
    pub fn name(&self) -> &str {
        &self.0.shared.name
    }

    /// The state right now.
    pub fn state(&self) -> ServiceState {
        *self.0.shared.state.borrow()
    }

    /// The state, now and later. A quick life may be seen with states left out, never out of order.
    pub fn watch(&self) -> watch::Receiver<ServiceState> {
        self.0.shared.state.subscribe()
    }

    /// Why the service is `Failed`.
    pub fn failure(&self) -> Option<Arc<Failure>> {
        self.0.shared.failure.get().cloned()
    }

    /// Starts the service on the current tokio runtime and returns at once.
    ///
    /// # Errors
    ///
    /// [`Error::State`] unless the service is `New`.
    pub fn start_async(&self) -> Result<(), Error> {
        let shared = &self.0.shared;
        let Some(service) = self.0.service.lock().take() else {
            return Err(shared.unexpected(ServiceState::New));
        };
        shared.state.send_replace(ServiceState::Starting);
        let span = tracing::info_span!("service", service = %shared.name);
        let task = tokio::spawn(drive(Arc::clone(shared), service).instrument(span));
        let _ = self.0.task.set(task.abort_handle());
        Ok(())
    }

    /// Asks the service to stop and returns at once. A service that was never started is `Terminated` by this.
    pub fn stop_async(&self) {
        if self.0.service.lock().take().is_some() {
            self.0.shared.state.send_replace(ServiceState::Terminated);
        }
        self.0.shared.stop.cancel();
    }

    /// Drops the service's work at its next await. It is not asked to stop and sees no cancelled token before it is
    /// dropped: `Failed`, unless it had ended before. One that was never started is `Terminated`.
    pub fn abort(&self) {
        match self.0.task.get() {
            Some(task) => task.abort(),
            None => self.stop_async(),
        }
    }

    /// Waits for `Running`. Cancel-safe.
    ///
    /// # Errors
    ///
    /// [`Error::State`] when the service has got past it.
    pub async fn await_running(&self) -> Result<(), Error> {
        match self.wait_for(|state| state >= ServiceState::Running).await {
            ServiceState::Running => Ok(()),
            _ => Err(self.0.shared.unexpected(ServiceState::Running)),
        }
    }

    /// Waits for the end. Cancel-safe.
    ///
    /// # Errors
    ///
    /// [`Error::State`] when the service ended as `Failed`.
    pub async fn await_terminated(&self) -> Result<(), Error> {
        match self.wait_for(ServiceState::is_final).await {
            ServiceState::Terminated => Ok(()),
            _ => Err(self.0.shared.unexpected(ServiceState::Terminated)),
        }
    }

    /// Waits for a state and returns it. Cancel-safe.
    pub(crate) async fn wait_for(&self, wanted: impl Fn(ServiceState) -> bool) -> ServiceState {
        let mut states = self.watch();
        // The sender lives in `self`, so that waiting cannot fail; a closed channel would mean the end anyway.
        states.wait_for(|state| wanted(*state)).await.map_or(ServiceState::Failed, |state| *state)
    }
}

#[derive(Debug)]
struct Shared {
    name: Arc<str>,
    state: watch::Sender<ServiceState>,
    failure: OnceLock<Arc<Failure>>,
    stop: CancellationToken,
}

impl Shared {
    fn unexpected(&self, expected: ServiceState) -> Error {
        let (service, actual) = (Arc::clone(&self.name), *self.state.borrow());
        Error::State { service, actual, expected, failure: self.failure.get().cloned() }
    }

    fn fail(&self, phase: Phase, cause: Cause) {
        let _ = self.failure.set(Arc::new(Failure { name: Arc::clone(&self.name), phase, cause }));
        self.stop.cancel();
        self.state.send_replace(ServiceState::Failed);
    }
}

/// Held by handles only, never by the service's task: dropping the last handle ends the task.
struct Owner {
    shared: Arc<Shared>,
    service: Mutex<Option<Box<dyn Service>>>,
    task: OnceLock<AbortHandle>,
}

impl fmt::Debug for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Service")
            .field("name", &self.shared.name)
            .field("state", &*self.shared.state.borrow())
            .finish()
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        if let Some(task) = self.task.get() {
            task.abort();
        }
    }
}

async fn drive(shared: Arc<Shared>, service: Box<dyn Service>) {
    // Dropped with the task: an aborted service must not look alive for ever.
    let guard = Aborted(Arc::clone(&shared));
    // Declared after the guard, so that it is gone before anybody is told.
    let mut service = service;
    let stop = shared.stop.clone();
    let started = tokio::select! {
        biased;
        started = caught(service.start(&stop)) => started,
        () = stop.cancelled() => Ok(()),
    };
    if let Err(cause) = started {
        return shared.fail(Phase::Start, cause);
    }
    let mut failure = None;
    if !stop.is_cancelled() {
        shared.state.send_replace(ServiceState::Running);
        failure = caught(service.run(stop.clone())).await.err();
    }
    shared.state.send_replace(ServiceState::Stopping);
    stop.cancel();
    let stopped = caught(service.stop(failure.as_ref())).await;
    // What the service holds is gone before anybody is told that it ended.
    drop(service);
    match (failure, stopped) {
        (Some(cause), _) => shared.fail(Phase::Run, cause),
        (None, Err(cause)) => shared.fail(Phase::Stop, cause),
        (None, Ok(())) => {
            shared.state.send_replace(ServiceState::Terminated);
        }
    }
    drop(guard);
}

/// Turns a panic into an error.
pub(crate) async fn caught(work: impl Future<Output = Result<(), Cause>>) -> Result<(), Cause> {
    match AssertUnwindSafe(work).catch_unwind().await {
        Ok(result) => result,
        Err(payload) => Err(Panicked::new(payload.as_ref()).into()),
    }
}

struct Aborted(Arc<Shared>);

impl Drop for Aborted {
    fn drop(&mut self) {
        let state = *self.0.state.borrow();
        if !state.is_final() {
            let phase = match state {
                ServiceState::New | ServiceState::Starting => Phase::Start,
                ServiceState::Stopping => Phase::Stop,
                _ => Phase::Run,
            };
            self.0.fail(phase, "aborted".into());
        }
    }
}

#[cfg(test)]
mod tests;
