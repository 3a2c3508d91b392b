//! From a bound port to served connections: limits, timeouts, graceful and sudden ends.

mod listener;
mod stream;

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use http::Request;
use hyper::body::Incoming;
use hyper::rt::Executor;
use hyper::server::conn::{http1, http2};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use ringkit_config::ServerConfig;
use ringkit_runtime::{Backoff, CancellationToken};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tower::ServiceExt as _;
use tracing::Instrument as _;

pub(crate) use self::listener::{Closer, Listener, Port};
use self::stream::{Patient, Unread};
use crate::dead::Dead;

/// How a port is served.
pub(crate) struct Manner {
    http: http1::Builder,
    http_write_timeout: Duration,
    grpc: ServerConfig,
    dead: Dead,
}

impl Manner {
    /// What the configuration says.
    ///
    /// HTTP: the next request's head must be complete within the longer of the idle and the read timeout; a peer that
    /// takes no bytes for the write timeout is cut off. 0 = no timeout. (How fast a body must come is the router's part.)
    pub(crate) fn new(config: &ServerConfig, dead: Dead) -> Self {
        let (read, idle) = (config.http_server_read_timeout, config.http_server_idle_timeout);
        let head = (!read.is_zero() && !idle.is_zero()).then_some(read.max(idle));
        let mut http = http1::Builder::new();
        http.timer(TokioTimer::new()).header_read_timeout(head);
        Self { http, http_write_timeout: config.http_server_write_timeout, grpc: config.clone(), dead }
    }

    /// HTTP/2 without prior negotiation, one builder per connection: its streams are counted.
    fn grpc(&self, streams: Streams) -> http2::Builder<Streams> {
        let config = &self.grpc;
        let at_once = config.grpc_server_max_concurrent_streams;
        let probe = config.grpc_server_keepalive_time;
        let mut builder = http2::Builder::new(streams);
        builder
            .timer(TokioTimer::new())
            .max_concurrent_streams((at_once > 0).then_some(at_once))
            .keep_alive_interval((!probe.is_zero()).then_some(probe))
            .keep_alive_timeout(config.grpc_server_keepalive_timeout);
        builder
    }
}

/// Accepts and serves until `stop`, then lets connections finish what they are at, for at most `drain`. Returns how many
/// had to be cut. Dropping the future ends everything at once.
pub(crate) async fn serve(
    listener: Listener,
    manner: Arc<Manner>,
    service: axum::Router,
    stop: CancellationToken,
    drain: Duration,
) -> usize {
    // Streams are tasks of their own. hyper lets them go when it notices that their connection is gone; this ends them with
    // this future, whatever they are waiting for.
    let kill = CancellationToken::new();
    let _kill_streams = kill.clone().drop_guard();
    let mut connections = JoinSet::new();
    let mut backoff = Backoff::new(Duration::from_millis(20), Duration::from_secs(1));
    let port = listener.port;
    loop {
        let accepted = tokio::select! {
            biased;
            () = stop.cancelled() => break,
            Some(_) = connections.join_next(), if !connections.is_empty() => continue,
            accepted = listener.accept() => accepted,
        };
        let (stream, peer, open) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(port = port.name(), %error, "cannot accept a connection");
                // Out of file descriptors, most likely: time must pass before trying again is worth it.
                let _ = tokio::time::timeout(backoff.next(), stop.cancelled()).await;
                continue;
            }
        };
        backoff.reset();
        // Answers are small and waited for.
        let _ = stream.set_nodelay(true);
        let (manner, service, stop, kill) =
            (Arc::clone(&manner), service.clone(), stop.clone(), kill.clone());
        let dead = manner.dead.clone();
        let connection = async move {
            let served = match port {
                Port::Http => serve_http(&manner, stream, service, stop, dead).await,
                Port::Grpc => serve_grpc(&manner, stream, service, stop, dead, kill).await,
            };
            if let Err(error) = served {
                tracing::debug!(%peer, %error, "connection ended");
            }
            drop(open);
        };
        connections.spawn(connection.in_current_span());
    }
    drop(listener);
    let drained = async { while connections.join_next().await.is_some() {} };
    if tokio::time::timeout(drain, drained).await.is_ok() {
        return 0;
    }
    let cut = connections.len();
    connections.abort_all();
    cut
}

async fn serve_http(
    manner: &Manner,
    stream: TcpStream,
    service: axum::Router,
    stop: CancellationToken,
    dead: Dead,
) -> hyper::Result<()> {
    let unread = Unread::default();
    let io = TokioIo::new(Patient::new(stream, manner.http_write_timeout, unread.clone(), dead));
    let service =
        service.map_request(move |request: Request<Incoming>| request.map(|body| unread.follow(body)));
    let mut connection = pin!(manner.http.serve_connection(io, TowerToHyperService::new(service)));
    tokio::select! {
        ended = connection.as_mut() => return ended,
        () = stop.cancelled() => connection.as_mut().graceful_shutdown(),
    }
    connection.await
}

async fn serve_grpc(
    manner: &Manner,
    stream: TcpStream,
    service: axum::Router,
    stop: CancellationToken,
    dead: Dead,
    kill: CancellationToken,
) -> hyper::Result<()> {
    let config = &manner.grpc;
    let longest_idle = config.grpc_server_max_connection_idle;
    // Counting costs something on every call: it is left out where nobody asks for it.
    let open = (longest_idle < FOREVER).then(|| watch::Sender::new(0));
    let idle = idle_for(open.as_ref().map(watch::Sender::subscribe), longest_idle);
    let streams = Streams { kill, open };
    let builder = manner.grpc(streams);
    // Keepalive finds peers that do not read; and HTTP/2 answers early by itself.
    let io = TokioIo::new(Patient::new(stream, Duration::ZERO, Unread::default(), dead));
    let mut connection = pin!(builder.serve_connection(io, TowerToHyperService::new(service)));
    tokio::select! {
        ended = connection.as_mut() => return ended,
        () = stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            return connection.await;
        }
        () = idle => (),
        () = tokio::time::sleep(config.grpc_server_max_connection_age) => (),
    }
    connection.as_mut().graceful_shutdown();
    let grace = config.grpc_server_max_connection_age_grace;
    tokio::time::timeout(grace, connection).await.unwrap_or(Ok(()))
}

/// Longer than any process lives: Cortex's way of saying that connections may stay.
const FOREVER: Duration = Duration::from_secs(100 * 365 * 24 * 3600);

/// Waits until no stream was open for `longest`; for ever if nobody counts.
async fn idle_for(open: Option<watch::Receiver<usize>>, longest: Duration) {
    let Some(mut open) = open else { return std::future::pending().await };
    loop {
        // The sender lives in the connection: when it is gone, nobody waits for this any more.
        let _ = open.wait_for(|open| *open == 0).await;
        if tokio::time::timeout(longest, open.changed()).await.is_err() {
            return;
        }
    }
}

/// Runs the streams of a connection, and drops them with the server.
#[derive(Clone)]
struct Streams {
    kill: CancellationToken,
    open: Option<watch::Sender<usize>>,
}

impl<F> Executor<F> for Streams
where
    F: Future + Send + 'static,
    F::Output: Send,
{
    fn execute(&self, stream: F) {
        let counted = self.open.clone().map(Counted::new);
        let kill = self.kill.clone();
        let stream = async move {
            let _counted = counted;
            kill.run_until_cancelled_owned(stream).await;
        };
        tokio::spawn(stream.in_current_span());
    }
}

struct Counted(watch::Sender<usize>);

impl Counted {
    fn new(open: watch::Sender<usize>) -> Self {
        open.send_modify(|open| *open += 1);
        Self(open)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.send_modify(|open| *open = open.saturating_sub(1));
    }
}
