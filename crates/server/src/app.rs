//! From configuration to a running process and to its end. Nothing here is global: a process may hold many apps.

mod memberlist;
mod multikv;
mod runtime_config;

use std::sync::Arc;
use std::time::Duration;

use ringkit_config::{Config, Loaded, RuntimeConfig};
use ringkit_kv::Stores;
use ringkit_runtime::{Clock, Meter, Module, Modules, Reload, Supervisor};
use tracing::Instrument as _;

use crate::admin::Admin;
use crate::dead::Dead;
use crate::drain;
use crate::error::Error;
use crate::process::{Process, Role};
use crate::ready::Ready;
use crate::running::{Deadlines, Metrics, Parts, Running};
use crate::serve::{Listener, Port};
use crate::shell::Shell;
use crate::{grpc, http, pages, rings, self_metrics, telemetry};

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

    /// Loads the runtime configuration, binds the listeners, builds the modules, and begins to start their services. Await
    /// [`Running::ready`] for the rest. When it fails, nothing is left running.
    ///
    /// # Errors
    ///
    /// A runtime configuration that cannot be used, a port that is taken, an unknown target, or a module that could not be
    /// built.
    pub async fn start(self) -> Result<Running, Error> {
        let instance = self.instance.clone().unwrap_or_else(|| self.config.ingester.lifecycler.id.clone());
        let span = tracing::info_span!("app", instance);
        let inner = span.clone();
        let started = async move {
            let opened = runtime_config::open(&self.config).await?;
            self.start_in(opened, &inner)
        };
        started.instrument(span).await
    }

    fn start_in(self, opened: runtime_config::Opened, span: &tracing::Span) -> Result<Running, Error> {
        for warning in &self.warnings {
            tracing::warn!(warning, "configuration");
        }
        let recorder = telemetry::recorder()?;
        let rendered = recorder.handle();
        let meter = Meter::new(Arc::new(recorder));
        self_metrics::build_info(&meter);
        let own_metrics = meter.collect(Arc::new(self_metrics::process));
        let config = Arc::new(self.config);
        let admin = Admin::open(&config.server)?;
        let (http, grpc) = listen(&config, self.listeners, &meter)?;
        let (http_addr, grpc_addr) = (http.local_addr()?, grpc.local_addr()?);
        let closers = [http.closer(), grpc.closer()];
        tracing::info!(http = %http_addr, grpc = %grpc_addr, "listening");

        let supervisor = Supervisor::new("background work");
        let stores = self.stores.unwrap_or_default();
        let owner = memberlist::configure(&stores, &config, &meter, &self.clock);
        let runtime_config::Opened { live, reload } = opened;
        let mut process = Process::new(
            (Arc::clone(&config), live),
            meter.clone(),
            self.clock,
            stores,
            supervisor.clone(),
            (http_addr, grpc_addr),
            admin,
        );
        let dead = Dead::default();
        let (shell, routes) = Shell::new(http, grpc, &config.server, dead.clone());
        let targets = self.targets.unwrap_or_else(|| config.target.clone());
        let group = modules(&self.roles, shell, owner, reload)?.init(&targets, &mut process)?;

        let drains = process.drains();
        process.http(drain::routes(drains.clone()));
        process.admin(drain::admin_routes(drains));
        process.http(pages::memberlist::routes(&process));
        process.http(pages::multikv::routes(&process, |role| group.service(role).is_some()));
        let Process {
            routers, grpc: services, links, checks, stores, stop_deadlines, provided, scrapes, ..
        } = process;
        let ready = Ready::new(&group, checks, stores);
        let pages = pages::routes(&config, &ready, links, rendered.clone(), &meter, scrapes);
        let http_routes = http::router(routers.into_iter().chain([pages]), &config.server, &meter)?;
        let grpc_routes = grpc::router(services, ready.clone(), &config.server, &meter);
        routes.complete(http_routes, grpc_routes);
        let deadlines = Deadlines { default: default_deadline(&config), by_name: stop_deadlines };
        let metrics = Metrics { recorded: rendered, meter, _own: own_metrics };
        let parts =
            Parts { http_addr, grpc_addr, group, ready, closers, dead, supervisor, provided, metrics };
        Ok(Running::begin(parts, deadlines, span))
    }
}

fn modules(
    roles: &[Role],
    shell: Shell,
    owner: memberlist::Owner,
    reload: Option<Reload<RuntimeConfig>>,
) -> Result<Modules<Process>, Error> {
    let mut modules = Modules::new();
    modules.register(Module {
        name: SERVER,
        visible: false,
        dependencies: vec![],
        init: Box::new(move |_| Ok(Some(Box::new(shell)))),
    })?;
    modules.register(memberlist::module(owner))?;
    modules.register(runtime_config::module(reload))?;
    modules.register(multikv::module())?;
    let own = [rings::ROLE];
    let own = own.iter().filter(|own| roles.iter().all(|role| role.name != own.name));
    let mut visible = Vec::new();
    for role in own.chain(roles) {
        let shared = [SERVER, memberlist::NAME, runtime_config::NAME, multikv::NAME];
        let dependencies = role.dependencies.iter().copied().chain(shared).collect();
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

fn default_deadline(config: &Config) -> Duration {
    const MARGIN: Duration = Duration::from_secs(30);
    let sleeps = [config.ingester.lifecycler.final_sleep, config.store_gateway.sharding_ring.final_sleep];
    let longest = sleeps.into_iter().max().unwrap_or_default();
    config.server.graceful_shutdown_timeout.saturating_add(longest).saturating_add(MARGIN)
}
