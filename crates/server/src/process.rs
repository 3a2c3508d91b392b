//! What a role sees of its process, and what it may add to it.

use std::any::{Any, TypeId};
use std::collections::{BTreeMap, HashMap};
use std::convert::Infallible;
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use ringkit_config::{Config, RuntimeConfig};
use ringkit_kv::Client;
use ringkit_ring::{Desc, Ring};
use ringkit_runtime::{Cause, Clock, Live, Meter, Service, Supervisor};
use tokio::sync::watch;
use tonic::body::Body;
use tonic::server::NamedService;
use tonic::service::RoutesBuilder;

use crate::admin::Admin;
use crate::drain::Drains;
use crate::pages;

/// Builds a role; may return no service.
pub type RoleInit = fn(&mut Process) -> Result<Option<Box<dyn Service>>, Cause>;

/// A module of a process, written by the crate that knows what it does.
#[derive(Clone, Copy, Debug)]
pub struct Role {
    /// Its name, as in `-target=`.
    pub name: &'static str,
    /// Whether users are told of it as a target; the target `all` means all visible roles.
    pub visible: bool,
    /// Roles that must be built and running before it. The listeners (`server`) always are.
    pub dependencies: &'static [&'static str],
    /// Builds it: adds routes, pages and checks to the process, and returns the service that does the work.
    pub init: RoleInit,
}

/// The process under construction.
pub struct Process {
    /// The configuration.
    pub config: Arc<Config>,
    /// What the runtime configuration says, for who acts on a change of it. Loaded before any role is built; without a file it
    /// is what the configuration says, and stays so.
    pub runtime_config: watch::Receiver<Arc<RuntimeConfig>>,
    /// The same for every request: the limits of tenants, read without a lock.
    pub live_config: Live<RuntimeConfig>,
    /// Where metrics go.
    pub meter: Meter,
    /// Wall time.
    pub clock: Clock,
    /// The key-value stores, shared by all roles.
    pub stores: ringkit_kv::Stores,
    /// Background work of this process; ends after all services.
    pub supervisor: Supervisor,
    /// Where HTTP is served: the bound address, with its real port.
    pub http_addr: SocketAddr,
    /// Where gRPC is served: the bound address, with its real port.
    pub grpc_addr: SocketAddr,
    pub(crate) admin: Admin,
    pub(crate) routers: Vec<axum::Router>,
    pub(crate) grpc: RoutesBuilder,
    pub(crate) links: Vec<Link>,
    pub(crate) checks: Vec<Check>,
    pub(crate) stop_deadlines: BTreeMap<&'static str, Duration>,
    pub(crate) provided: Provided,
    pub(crate) drains: Drains,
    pub(crate) scrapes: watch::Sender<u64>,
}

/// Handles that roles left, by their type.
#[derive(Default)]
pub(crate) struct Provided(HashMap<TypeId, Box<dyn Any + Send + Sync>>);

impl Provided {
    pub(crate) fn get<T: Any + Send + Sync + Clone>(&self) -> Option<T> {
        self.0.get(&TypeId::of::<T>()).and_then(|value| value.downcast_ref()).cloned()
    }
}

/// A link of the index page.
#[derive(Clone, Debug)]
pub(crate) struct Link {
    pub(crate) section: &'static str,
    pub(crate) path: String,
    pub(crate) title: String,
}

/// A condition of readiness.
pub(crate) struct Check {
    pub(crate) name: &'static str,
    pub(crate) holds: Box<dyn Fn() -> Result<(), String> + Send + Sync>,
}

impl fmt::Debug for Process {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Process")
            .field("http_addr", &self.http_addr)
            .field("grpc_addr", &self.grpc_addr)
            .finish()
    }
}

impl Process {
    pub(crate) fn new(
        (config, live_config): (Arc<Config>, Live<RuntimeConfig>),
        meter: Meter,
        clock: Clock,
        stores: ringkit_kv::Stores,
        supervisor: Supervisor,
        (http_addr, grpc_addr): (SocketAddr, SocketAddr),
        admin: Admin,
    ) -> Self {
        Self {
            config,
            runtime_config: live_config.changes(),
            live_config,
            meter,
            clock,
            stores,
            supervisor,
            http_addr,
            grpc_addr,
            admin,
            routers: Vec::new(),
            grpc: RoutesBuilder::default(),
            links: Vec::new(),
            checks: Vec::new(),
            stop_deadlines: BTreeMap::new(),
            provided: Provided::default(),
            drains: Drains::default(),
            scrapes: watch::Sender::new(0),
        }
    }

    /// How often `/metrics` was asked for.
    pub fn scrapes(&self) -> watch::Receiver<u64> {
        self.scrapes.subscribe()
    }

    /// Where instances are added that `/drain` takes out of service.
    pub fn drains(&self) -> Drains {
        self.drains.clone()
    }

    /// Adds HTTP routes, as absolute paths below `server.http_path_prefix`. A path that another role serves as well
    /// fails the start.
    pub fn http(&mut self, router: axum::Router) {
        self.routers.push(router);
    }

    /// Adds HTTP routes that change something: they answer to POST only, not to foreign pages, and ask for the token of
    /// `server.admin_token_file` if there is one.
    pub fn admin(&mut self, router: axum::Router) {
        let guarded = self.admin.guard(router);
        self.http(guarded);
    }

    /// Adds a gRPC service: a generated `…Server`, with its message sizes already limited to
    /// `server.grpc_server_max_recv_msg_size` and `…_max_send_msg_size`.
    pub fn grpc<S>(&mut self, service: S)
    where
        S: tower::Service<http::Request<Body>, Error = Infallible>
            + NamedService
            + Clone
            + Send
            + Sync
            + 'static,
        S::Response: axum::response::IntoResponse,
        S::Future: Send + 'static,
    {
        self.grpc.add_service(service);
    }

    /// Adds a link to the index page. Sections as in Cortex: `Admin Endpoints:` and `Dangerous:`.
    pub fn link(&mut self, section: &'static str, path: &str, title: &str) {
        self.links.push(Link { section, path: path.to_owned(), title: title.to_owned() });
    }

    /// Adds a condition of readiness. `check` answers with the reason, in plain words, why `name` is not ready yet; it
    /// is asked on every `/ready` and must not block.
    pub fn ready_check(
        &mut self,
        name: &'static str,
        check: impl Fn() -> Result<(), String> + Send + Sync + 'static,
    ) {
        self.checks.push(Check { name, holds: Box::new(check) });
    }

    /// Leaves a handle for later roles, by its type; replaces an earlier one of that type.
    pub fn provide<T: Any + Send + Sync + Clone>(&mut self, value: T) {
        self.provided.0.insert(TypeId::of::<T>(), Box::new(value));
    }

    /// The handle of type `T` left by an earlier role.
    pub fn get<T: Any + Send + Sync + Clone>(&self) -> Option<T> {
        self.provided.get()
    }

    /// Serves the state of `ring` under `path`, as HTML and, by `Accept: application/json`, in Cortex's JSON.
    pub fn ring_page(&mut self, path: &str, title: &str, ring: Ring) {
        self.http(pages::ring::routes(path, title, ring));
        self.link(pages::ADMIN, path, title);
    }

    /// The same page, on which an instance can also be forgotten: removed from the ring through `client`, by POST of
    /// `forget=<id>` as in Cortex, guarded like [`admin`](Self::admin).
    pub fn ring_page_with_forget(&mut self, path: &str, title: &str, ring: Ring, client: Client<Desc>) {
        self.http(pages::ring::routes_with_forget(path, title, ring, client, self.admin.clone()));
        self.link(pages::ADMIN, path, title);
    }

    /// Gives the service of role `name` this long to stop, instead of the default (`server.graceful_shutdown_timeout`,
    /// the longest `final_sleep`, and half a minute).
    pub fn stop_deadline(&mut self, name: &'static str, deadline: Duration) {
        self.stop_deadlines.insert(name, deadline);
    }
}
