//! The module that owns the listeners: everything depends on it, so that it starts first and stops last.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use axum::Router;
use parking_lot::Mutex;
use ringkit_config::ServerConfig;
use ringkit_runtime::{CancellationToken, Cause, Service};

use crate::dead::Dead;
use crate::serve::{Listener, Manner, serve};

/// Serves both ports. The routes are complete only when all modules are built: it takes them when it starts.
pub(crate) struct Shell {
    listeners: Option<(Listener, Listener)>,
    manner: Arc<Manner>,
    routes: Routes,
    serving: Option<(Router, Router)>,
    drain: Duration,
}

/// Where the routes are left for the shell.
#[derive(Clone, Default)]
pub(crate) struct Routes(Arc<Mutex<Option<(Router, Router)>>>);

impl Routes {
    /// Leaves them: HTTP and gRPC.
    pub(crate) fn complete(&self, http: Router, grpc: Router) {
        *self.0.lock() = Some((http, grpc));
    }
}

impl Shell {
    /// A shell, and where to leave its routes before it is started.
    pub(crate) fn new(http: Listener, grpc: Listener, config: &ServerConfig, dead: Dead) -> (Self, Routes) {
        let routes = Routes::default();
        let shell = Self {
            listeners: Some((http, grpc)),
            manner: Arc::new(Manner::new(config, dead)),
            routes: routes.clone(),
            serving: None,
            drain: config.graceful_shutdown_timeout,
        };
        (shell, routes)
    }
}

#[async_trait]
impl Service for Shell {
    async fn start(&mut self, _: &CancellationToken) -> Result<(), Cause> {
        self.serving = self.routes.0.lock().take();
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
