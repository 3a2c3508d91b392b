//! A role that does as it is told, and what tests ask of a process.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use async_trait::async_trait;
use axum::Router;
use axum::routing::{get, post};
use ringkit_config::Config;
use ringkit_kv::Stores;
use ringkit_runtime::{CancellationToken, Cause, Service};
use ringkit_server::{App, AppBuilder, IngesterRing, Process, Role, Running};
use tokio::sync::Notify;
use tonic::body::Body;
use tonic::server::NamedService;

/// The strings with which a toy is steered; a role's constructor has no other way in than the configuration.
pub(crate) const FAIL_START: &str = "fail-start";
pub(crate) const FAIL_RUN: &str = "fail-run";
pub(crate) const FAIL_INIT: &str = "fail-init";
pub(crate) const SLOW_STOP: &str = "slow-stop";
pub(crate) const SLOW_START: &str = "slow-start";

pub(crate) const TOY: Role = Role { name: "toy", visible: true, dependencies: &["ring"], init };

/// How long `/toy/linger` takes to answer.
pub(crate) const LINGER: Duration = Duration::from_millis(300);

/// What the toy shares with its test.
#[derive(Clone, Default)]
pub(crate) struct Strings(pub(crate) Arc<Inner>);

/// A gRPC service whose calls never end.
#[derive(Clone)]
struct Endless(Strings);

impl NamedService for Endless {
    const NAME: &'static str = "toy.Endless";
}

impl tower::Service<http::Request<Body>> for Endless {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: http::Request<Body>) -> Self::Future {
        let call = Arc::clone(&self.0.0.calls);
        Box::pin(async move {
            let _call = call;
            std::future::pending().await
        })
    }
}

#[derive(Default)]
pub(crate) struct Inner {
    /// One reference for each endless call under way, and one more.
    pub(crate) calls: Arc<()>,
    pub(crate) ready: AtomicBool,
    /// Whether the toy was told to stop.
    pub(crate) stopped: AtomicBool,
    pub(crate) go: Notify,
}

struct Toy {
    how: String,
    strings: Strings,
}

fn init(process: &mut Process) -> Result<Option<Box<dyn Service>>, Cause> {
    let how = process.config.http_prefix.clone();
    if how == FAIL_INIT {
        return Err("the toy does not fit in the box".into());
    }
    assert!(process.get::<IngesterRing>().is_some(), "a dependency is built first");
    let strings = Strings::default();
    process.provide(strings.clone());
    let requests = process.meter.counter("toy_requests_total", metrics::Unit::Count, "Requests to the toy");
    let unready = strings.clone();
    process.ready_check("toy", move || {
        if unready.0.ready.load(Ordering::Acquire) { Ok(()) } else { Err("it is asleep".into()) }
    });
    let (wake, waiting) = (strings.clone(), strings.clone());
    process.http(
        Router::new()
            .route(
                "/toy/{id}",
                get(async move || {
                    requests.increment(1);
                    "toy"
                }),
            )
            .route("/toy/wake", post(async move || wake.0.ready.store(true, Ordering::Release)))
            .route("/toy/wait", get(async move || waiting.0.go.notified().await))
            .route(
                "/toy/go",
                post({
                    let strings = strings.clone();
                    async move || strings.0.go.notify_waiters()
                }),
            )
            .route("/toy/refuse", post(async || (http::StatusCode::PAYLOAD_TOO_LARGE, "too much")))
            .route("/toy/echo", post(async |body: String| body))
            .route(
                "/toy/linger",
                get(async || {
                    tokio::time::sleep(LINGER).await;
                    "at last"
                }),
            )
            .route("/toy/panic", get(async || -> &'static str { panic!("the toy broke") })),
    );
    process.grpc(Endless(strings.clone()));
    process.admin(Router::new().route("/toy/reset", axum::routing::any(async || "reset")));
    process.link("Dangerous:", "/toy/<1>", "Play & \"break\"");
    process.stop_deadline("toy", Duration::from_millis(200));
    Ok(Some(Box::new(Toy { how, strings })))
}

#[async_trait]
impl Service for Toy {
    async fn start(&mut self, _: &CancellationToken) -> Result<(), Cause> {
        match self.how.as_str() {
            FAIL_START => Err("the toy has no battery".into()),
            SLOW_START => {
                self.strings.0.go.notified().await;
                Ok(())
            }
            _ => Ok(()),
        }
    }

    async fn run(&mut self, stop: CancellationToken) -> Result<(), Cause> {
        if self.how == FAIL_RUN {
            return Err("the toy ran against a wall".into());
        }
        stop.cancelled().await;
        Ok(())
    }

    async fn stop(&mut self, _: Option<&Cause>) -> Result<(), Cause> {
        self.strings.0.stopped.store(true, Ordering::Release);
        if self.how == SLOW_STOP {
            std::future::pending::<()>().await;
        }
        Ok(())
    }
}

pub(crate) fn config(how: &str) -> Config {
    let mut config = Config { http_prefix: how.to_owned(), target: vec!["toy".into()], ..Config::default() };
    let server = &mut config.server;
    server.http_listen_address = "127.0.0.1".into();
    server.grpc_listen_address = "127.0.0.1".into();
    (server.http_listen_port, server.grpc_listen_port) = (0, 0);
    server.graceful_shutdown_timeout = Duration::from_secs(5);
    config.ingester.lifecycler.ring.kvstore.store = ringkit_config::KvStore::Inmemory;
    config
}

pub(crate) fn app(config: Config) -> AppBuilder {
    App::builder(config).roles(&[TOY]).stores(Stores::new())
}

pub(crate) async fn start(how: &str) -> Running {
    app(config(how)).start().await.unwrap()
}

/// Starts a toy and wakes it.
pub(crate) async fn start_ready(how: &str) -> Running {
    let running = start(how).await;
    post_to(&running, "/toy/wake").await;
    running.ready().await.unwrap();
    running
}

pub(crate) fn url(running: &Running, path: &str) -> String {
    format!("http://{}{path}", running.http_addr)
}

/// Status and text of an answer.
pub(crate) async fn get_from(running: &Running, path: &str) -> (u16, String) {
    get_as(running, path, "*/*").await
}

pub(crate) async fn get_as(running: &Running, path: &str, accept: &str) -> (u16, String) {
    let request = reqwest::Client::new().get(url(running, path)).header("accept", accept);
    let answer = request.send().await.unwrap();
    (answer.status().as_u16(), answer.text().await.unwrap())
}

pub(crate) async fn post_to(running: &Running, path: &str) -> u16 {
    reqwest::Client::new().post(url(running, path)).send().await.unwrap().status().as_u16()
}

/// Asks again until it holds; fails after ten seconds.
pub(crate) async fn eventually<F: Future<Output = bool>>(what: &str, mut holds: impl FnMut() -> F) {
    let asked = async {
        while !holds().await {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let result = tokio::time::timeout(Duration::from_secs(10), asked).await;
    assert!(result.is_ok(), "never came true: {what}");
}
