//! From configuration to a running process and to its end. Nothing here is global: a process may hold many apps.

use std::any::Any;
use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use metrics::Unit;
use metrics_exporter_prometheus::PrometheusHandle;
use parking_lot::Mutex;
use ringkit_config::{Config, Loaded};
use ringkit_kv::Stores;
use ringkit_runtime::{
    CancellationToken, Cause, Clock, Failure, Group, Meter, Module, Modules, Service, ServiceHandle,
    ServiceState, ShutdownReport, Supervisor,
};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tracing::Instrument as _;

use crate::error::Error;
use crate::process::{Process, Provided, Role};
use crate::ready::Ready;
use crate::serve::{Closer, Listener, Manner, Port, serve};
use crate::{grpc, http, pages, rings, telemetry};

/// The name of the module that owns the listeners.
pub(crate) const SERVER: &str = "server";

/// The target that stands for all visible roles.
const ALL: &str = "all";

/// A process under construction.
#[derive(Debug)]
pub struct App;

impl App {
    /// Starts with a configuration and no roles.
    pub fn builder(config: Config) -> AppBuilder {
        AppBuilder {
            config,
            roles: Vec::new(),
            targets: None,
            stores: None,
            listeners: None,
            clock: Clock::system(),
            instance: None,
            warnings: Vec::new(),
        }
    }
}

/// What a process is made of.
#[derive(Debug)]
#[must_use = "nothing runs before `start`"]
pub struct AppBuilder {
    config: Config,
    roles: Vec<Role>,
    targets: Option<Vec<String>>,
    stores: Option<Stores>,
    listeners: Option<(std::net::TcpListener, std::net::TcpListener)>,
    clock: Clock,
    instance: Option<String>,
    warnings: Vec<String>,
}

impl AppBuilder {
    /// Adds roles that targets may name.
    pub fn roles(mut self, roles: &[Role]) -> Self {
        self.roles.extend_from_slice(roles);
        self
    }

    /// What to run, instead of `target` of the configuration.
    pub fn targets(mut self, targets: Vec<String>) -> Self {
        self.targets = Some(targets);
        self
    }

    /// The opened key-value stores, to share them with other apps of this process.
    pub fn stores(mut self, stores: Stores) -> Self {
        self.stores = Some(stores);
        self
    }

    /// Bound listeners, instead of binding what the configuration says.
    pub fn listeners(mut self, http: std::net::TcpListener, grpc: std::net::TcpListener) -> Self {
        self.listeners = Some((http, grpc));
        self
    }

    /// Takes over the configuration and warnings of a load.
    pub fn loaded(mut self, loaded: Loaded) -> Self {
        self.warnings = loaded.warnings.iter().map(ToString::to_string).collect();
        self.config = loaded.config;
        self
    }

    /// Wall time, instead of the operating system's.
    pub fn clock(mut self, clock: Clock) -> Self {
        self.clock = clock;
        self
    }

    /// The name under which this app's logs appear, instead of the ingester's id.
    pub fn instance(mut self, name: impl Into<String>) -> Self {
        self.instance = Some(name.into());
        self
    }

    /// Binds the listeners, builds the modules, and begins to start their services. Await [`Running::ready`] for the
    /// rest. When it fails, nothing is left running.
    ///
    /// # Errors
    ///
    /// A port that is taken, an unknown target, or a module that could not be built.
    pub async fn start(self) -> Result<Running, Error> {
        let instance = self.instance.clone().unwrap_or_else(|| self.config.ingester.lifecycler.id.clone());
        let span = tracing::info_span!("app", instance);
        let inner = span.clone();
        async move { self.start_in(&inner) }.instrument(span).await
    }

    fn start_in(self, span: &tracing::Span) -> Result<Running, Error> {
        for warning in &self.warnings {
            tracing::warn!(warning, "configuration");
        }
        let recorder = telemetry::recorder()?;
        let rendered = recorder.handle();
        let meter = Meter::new(Arc::new(recorder));
        build_info(&meter);
        let config = Arc::new(self.config);
        let (http, grpc) = listen(&config, self.listeners, &meter)?;
        let (http_addr, grpc_addr) = (http.local_addr()?, grpc.local_addr()?);
        let closers = [http.closer(), grpc.closer()];
        tracing::info!(http = %http_addr, grpc = %grpc_addr, "listening");

        let supervisor = Supervisor::new("background work");
        let stores = self.stores.unwrap_or_default();
        let mut process = Process::new(
            Arc::clone(&config),
            meter.clone(),
            self.clock,
            stores,
            supervisor.clone(),
            http_addr,
            grpc_addr,
        );
        // The routes are complete only when all modules are built; the shell takes them when it starts.
        let routes = Arc::new(Mutex::new(None));
        let shell = Shell {
            listeners: Some((http, grpc)),
            manner: Arc::new(Manner::new(&config.server)),
            routes: Arc::clone(&routes),
            serving: None,
            drain: config.server.graceful_shutdown_timeout,
        };
        let targets = self.targets.unwrap_or_else(|| config.target.clone());
        let group = modules(&self.roles, shell)?.init(&targets, &mut process)?;
        let ready = Ready::new(&group, std::mem::take(&mut process.checks));
        let stop_deadlines = std::mem::take(&mut process.stop_deadlines);
        let grpc_router =
            grpc::router(std::mem::take(&mut process.grpc), ready.clone(), &config.server, &meter);
        let mut routers = std::mem::take(&mut process.routers);
        let links = std::mem::take(&mut process.links);
        routers.push(pages::routes(&config, &ready, links, rendered.clone(), &meter));
        let http_router = http::router(routers, &config.server, &meter)?;
        *routes.lock() = Some((http_router, grpc_router));
        let provided = process.into_provided();

        let stop = CancellationToken::new();
        let reason = watch::Sender::new(None);
        let life = Life { group: group.clone(), supervisor, stop: stop.clone(), reason: reason.clone() };
        let deadlines = Deadlines { default: default_deadline(&config), by_name: stop_deadlines };
        let control = tokio::spawn(life.live(deadlines).instrument(span.clone()));
        let control = Some(control);
        Ok(Running {
            http_addr,
            grpc_addr,
            group,
            ready,
            closers,
            stop,
            reason,
            control,
            provided,
            rendered,
            meter,
        })
    }
}

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
    stop: CancellationToken,
    reason: watch::Sender<Option<ExitReason>>,
    control: Option<JoinHandle<ShutdownReport>>,
    provided: Provided,
    rendered: PrometheusHandle,
    meter: Meter,
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

    /// The handle of type `T` that a role left with [`Process::provide`].
    pub fn get<T: Any + Send + Sync + Clone>(&self) -> Option<T> {
        self.provided.get()
    }

    /// What `/metrics` would answer.
    pub fn metrics(&self) -> String {
        pages::metrics_text(&self.rendered, &self.meter)
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

    /// Stops everything in order, roles first and listeners last, and says who was late.
    pub async fn stop(mut self) -> ShutdownReport {
        self.stop.cancel();
        match self.control.take() {
            // Joining fails only if the runtime ends under us: then there is nothing to report.
            Some(control) => control.await.unwrap_or_default(),
            None => ShutdownReport::default(),
        }
    }

    /// Ends everything as SIGKILL would: ports closed at once, tasks dropped at their next await, nothing flushed, and
    /// nothing said to the ring.
    pub fn abort(self) {
        drop(self);
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(control) = self.control.take() {
            for closer in &self.closers {
                closer.close();
            }
            self.group.abort();
            control.abort();
        }
    }
}

/// What runs while the process does: starts the services, waits for a reason to end, stops the services.
struct Life {
    group: Group,
    supervisor: Supervisor,
    stop: CancellationToken,
    reason: watch::Sender<Option<ExitReason>>,
}

impl Life {
    async fn live(self, deadlines: Deadlines) -> ShutdownReport {
        let reason = self.until_over().await;
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
struct Deadlines {
    default: Duration,
    by_name: BTreeMap<&'static str, Duration>,
}

impl Deadlines {
    fn of(&self, name: &str) -> Duration {
        self.by_name.get(name).copied().unwrap_or(self.default)
    }
}

fn default_deadline(config: &Config) -> Duration {
    const MARGIN: Duration = Duration::from_secs(30);
    let sleeps = [config.ingester.lifecycler.final_sleep, config.store_gateway.sharding_ring.final_sleep];
    let longest = sleeps.into_iter().max().unwrap_or_default();
    config.server.graceful_shutdown_timeout.saturating_add(longest).saturating_add(MARGIN)
}

fn modules(roles: &[Role], shell: Shell) -> Result<Modules<Process>, Error> {
    let mut modules = Modules::new();
    modules.register(Module {
        name: SERVER,
        visible: false,
        dependencies: vec![],
        init: Box::new(move |_| Ok(Some(Box::new(shell)))),
    })?;
    let own = [rings::ROLE];
    let own = own.iter().filter(|own| roles.iter().all(|role| role.name != own.name));
    let mut visible = Vec::new();
    for role in own.chain(roles) {
        let dependencies = role.dependencies.iter().copied().chain([SERVER]).collect();
        let init = role.init;
        modules.register(Module {
            name: role.name,
            visible: role.visible,
            dependencies,
            init: Box::new(init),
        })?;
        if role.visible {
            visible.push(role.name);
        }
    }
    if roles.iter().all(|role| role.name != ALL) {
        visible.push(SERVER);
        modules.register(Module {
            name: ALL,
            visible: true,
            dependencies: visible,
            init: Box::new(|_| Ok(None)),
        })?;
    }
    Ok(modules)
}

fn listen(
    config: &Config,
    bound: Option<(std::net::TcpListener, std::net::TcpListener)>,
    meter: &Meter,
) -> Result<(Listener, Listener), Error> {
    let server = &config.server;
    let (http, grpc) = match bound {
        Some(bound) => bound,
        None => (Port::Http.bind(server)?, Port::Grpc.bind(server)?),
    };
    let http = Listener::new(Port::Http, http, server, meter)?;
    let grpc = Listener::new(Port::Grpc, grpc, server, meter)?;
    Ok((http, grpc))
}

fn build_info(meter: &Meter) {
    let help = "A metric with a constant '1' value labeled by version, revision, branch and goversion.";
    meter
        .with("version", env!("CARGO_PKG_VERSION"))
        .with("revision", option_env!("RINGKIT_REVISION").unwrap_or("unknown"))
        .with("branch", option_env!("RINGKIT_BRANCH").unwrap_or("unknown"))
        .gauge("cortex_build_info", Unit::Count, help)
        .set(1.0);
}

/// The module that owns the listeners: everything depends on it, so that it stops last.
struct Shell {
    listeners: Option<(Listener, Listener)>,
    manner: Arc<Manner>,
    routes: Arc<Mutex<Option<(axum::Router, axum::Router)>>>,
    serving: Option<(axum::Router, axum::Router)>,
    drain: Duration,
}

#[async_trait]
impl Service for Shell {
    async fn start(&mut self, _: &CancellationToken) -> Result<(), Cause> {
        self.serving = self.routes.lock().take();
        if self.serving.is_some() { Ok(()) } else { Err("the routes are not complete".into()) }
    }

    async fn run(&mut self, stop: CancellationToken) -> Result<(), Cause> {
        let (Some((http, grpc)), Some((http_routes, grpc_routes))) =
            (self.listeners.take(), self.serving.take())
        else {
            return Err("the listeners are gone".into());
        };
        let (http_cut, grpc_cut) = futures::join!(
            serve(http, Arc::clone(&self.manner), http_routes, stop.clone(), self.drain),
            serve(grpc, Arc::clone(&self.manner), grpc_routes, stop.clone(), self.drain),
        );
        if http_cut + grpc_cut > 0 {
            tracing::warn!(http = http_cut, grpc = grpc_cut, after = ?self.drain, "connections were cut");
        }
        if stop.is_cancelled() { Ok(()) } else { Err("server stopped unexpectedly".into()) }
    }
}
