//! A process while it runs: from the start of its services to the report of its shutdown.

use std::any::Any;
use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use metrics_exporter_prometheus::PrometheusHandle;
use ringkit_runtime::{
    CancellationToken, CollectGuard, Failure, Group, Meter, ServiceHandle, ServiceState, ShutdownReport,
    Supervisor,
};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tracing::{Instrument as _, Span};

use crate::dead::Dead;
use crate::pages;
use crate::process::Provided;
use crate::ready::Ready;
use crate::serve::Closer;

/// A running process.
#[must_use = "dropping it ends the process as abruptly as `abort`"]
pub struct Running {
    /// Where HTTP is served.
    pub http_addr: SocketAddr,
    /// Where gRPC is served.
    pub grpc_addr: SocketAddr,
    group: Group,
    ready: Ready,
    closers: [Arc<Closer>; 2],
    dead: Dead,
    provided: Provided,
    metrics: Metrics,
    stop: CancellationToken,
    reason: watch::Sender<Option<ExitReason>>,
    life: Option<JoinHandle<ShutdownReport>>,
}

/// What a process is built of, once nothing can go wrong any more.
pub(crate) struct Parts {
    pub(crate) http_addr: SocketAddr,
    pub(crate) grpc_addr: SocketAddr,
    pub(crate) group: Group,
    pub(crate) ready: Ready,
    pub(crate) closers: [Arc<Closer>; 2],
    pub(crate) dead: Dead,
    pub(crate) supervisor: Supervisor,
    pub(crate) provided: Provided,
    pub(crate) metrics: Metrics,
}

/// Where a process's metrics are read from.
pub(crate) struct Metrics {
    pub(crate) recorded: PrometheusHandle,
    pub(crate) meter: Meter,
    pub(crate) _own: CollectGuard,
}

impl fmt::Debug for Running {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Running")
            .field("http_addr", &self.http_addr)
            .field("grpc_addr", &self.grpc_addr)
            .finish()
    }
}

/// Why a process ends.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum ExitReason {
    /// [`Running::stop`] was called.
    Stopped,
    /// A service asked for it, in order.
    Requested {
        /// The service.
        by: String,
    },
    /// A service or task failed.
    Failed(Arc<Failure>),
    /// The services could not be started.
    NotStarted(ringkit_runtime::Error),
}

impl ExitReason {
    /// Whether the process did what it was asked to.
    pub fn is_success(&self) -> bool {
        matches!(self, Self::Stopped | Self::Requested { .. })
    }
}

impl fmt::Display for ExitReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stopped => f.write_str("stopped"),
            Self::Requested { by } => write!(f, "`{by}` asked the process to stop"),
            Self::Failed(failure) => write!(f, "{failure}"),
            Self::NotStarted(error) => write!(f, "{error}"),
        }
    }
}

impl Running {
    /// Begins to start the services; from here on the process lives on its own.
    pub(crate) fn begin(parts: Parts, deadlines: Deadlines, span: &Span) -> Self {
        let Parts { http_addr, grpc_addr, group, ready, closers, dead, supervisor, provided, metrics } =
            parts;
        let (stop, reason) = (CancellationToken::new(), watch::Sender::new(None));
        let life = Life {
            group: group.clone(),
            supervisor,
            stop: stop.clone(),
            dead: dead.clone(),
            reason: reason.clone(),
        };
        let life = Some(tokio::spawn(life.live(deadlines).instrument(span.clone())));
        Self { http_addr, grpc_addr, group, ready, closers, dead, provided, metrics, stop, reason, life }
    }

    /// Waits until `/ready` would answer 200.
    ///
    /// # Errors
    ///
    /// What is in the way, when that cannot happen any more because a service has ended.
    pub async fn ready(&self) -> Result<(), String> {
        if self.ready.wait().await {
            return Ok(());
        }
        let reason = self.reason.borrow().as_ref().map(ToString::to_string);
        Err(reason.unwrap_or_else(|| self.ready.check().err().unwrap_or_default()))
    }

    /// Why `/ready` does not answer 200 right now.
    ///
    /// # Errors
    ///
    /// The text of the 503.
    pub fn check_ready(&self) -> Result<(), String> {
        self.ready.check()
    }

    /// Name and state of every service, sorted by name.
    pub fn services(&self) -> BTreeMap<String, ServiceState> {
        self.ready.services().map(|(name, state)| (name.to_owned(), state)).collect()
    }

    /// The handle of type `T` that a role left with [`Process::provide`](crate::Process::provide).
    pub fn get<T: Any + Send + Sync + Clone>(&self) -> Option<T> {
        self.provided.get()
    }

    /// What `/metrics` would answer.
    pub fn metrics(&self) -> String {
        pages::metrics_text(&self.metrics.recorded, &self.metrics.meter)
    }

    /// The service of one module, to stop or watch it alone.
    pub fn service(&self, name: &str) -> Option<ServiceHandle> {
        self.group.service(name).cloned()
    }

    /// Waits until the process has a reason to end; stopping has then begun. Cancel-safe.
    pub async fn wait(&mut self) -> ExitReason {
        let mut reasons = self.reason.subscribe();
        // The sender lives in `self`, so that waiting cannot fail.
        match reasons.wait_for(Option::is_some).await {
            Ok(reason) => reason.clone().unwrap_or(ExitReason::Stopped),
            Err(_) => ExitReason::Stopped,
        }
    }

    /// Stops everything in order, roles first and listeners last, and says who was late. Dropping the future aborts.
    pub async fn stop(mut self) -> ShutdownReport {
        self.stop.cancel();
        let Some(life) = self.life.as_mut() else { return ShutdownReport::default() };
        // Joining fails only if the runtime ends under us: then there is nothing to report.
        let report = life.await.unwrap_or_default();
        self.life = None;
        report
    }

    /// Ends everything as SIGKILL would: once this returns, the ports are free and no connection gets another byte; tasks are
    /// dropped at their next await, nothing is flushed, and nothing said to the ring.
    pub fn abort(self) {
        drop(self);
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(life) = self.life.take() {
            // In this order: services that are dropped look like services that failed, and nobody must react to that.
            self.dead.set();
            life.abort();
            self.closers.iter().for_each(|closer| closer.close());
            self.group.abort();
        }
    }
}

/// What runs while the process does: starts the services, waits for a reason to end, stops the services.
struct Life {
    group: Group,
    supervisor: Supervisor,
    stop: CancellationToken,
    dead: Dead,
    reason: watch::Sender<Option<ExitReason>>,
}

impl Life {
    async fn live(self, deadlines: Deadlines) -> ShutdownReport {
        let reason = self.until_over().await;
        if self.dead.is_set() {
            return ShutdownReport::default();
        }
        if reason.is_success() {
            tracing::info!(%reason, "stopping");
        } else {
            tracing::error!(%reason, "stopping: failed services");
        }
        self.reason.send_replace(Some(reason));
        let mut report = self.group.stop(|name| deadlines.of(name)).await;
        report.extend(self.supervisor.shutdown(deadlines.default).await);
        if report.is_clean() {
            tracing::info!(steps = %report, "stopped");
        } else {
            tracing::warn!(steps = %report, late = report.late.join(", "), "stopped, not in time");
        }
        report
    }

    async fn until_over(&self) -> ExitReason {
        let started = async {
            match self.group.start(&self.stop).await {
                Err(error) if !self.stop.is_cancelled() => error,
                started => {
                    if started.is_ok() {
                        tracing::info!("all services are running");
                    }
                    std::future::pending().await
                }
            }
        };
        tokio::select! {
            biased;
            () = self.stop.cancelled() => ExitReason::Stopped,
            failure = self.group.failed() => reason_of(failure),
            failure = self.supervisor.failed() => reason_of(failure),
            error = started => ExitReason::NotStarted(error),
        }
    }
}

impl Drop for Life {
    fn drop(&mut self) {
        self.supervisor.abort_all();
        self.group.abort();
    }
}

fn reason_of(failure: Arc<Failure>) -> ExitReason {
    if failure.is_stop_request() {
        ExitReason::Requested { by: failure.name.to_string() }
    } else {
        ExitReason::Failed(failure)
    }
}

/// How long each service may take to stop.
pub(crate) struct Deadlines {
    pub(crate) default: Duration,
    pub(crate) by_name: BTreeMap<&'static str, Duration>,
}

impl Deadlines {
    fn of(&self, name: &str) -> Duration {
        self.by_name.get(name).copied().unwrap_or(self.default)
    }
}
