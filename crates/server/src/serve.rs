//! From a bound port to served connections: limits, stalls, graceful and sudden ends.

use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use hyper::rt::Executor;
use hyper::server::conn::{http1, http2};
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use metrics::{Gauge, Unit};
use parking_lot::Mutex;
use ringkit_runtime::{Backoff, CancellationToken, Meter};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::Sleep;
use tracing::Instrument as _;

use crate::error::Error;

/// Binds a listener, or says which key to change.
pub(crate) fn bind(protocol: &'static str, address: &str, port: u16) -> Result<std::net::TcpListener, Error> {
    let host = if address.is_empty() { "0.0.0.0" } else { address };
    let bound = std::net::TcpListener::bind((host, port));
    bound.map_err(|cause| {
        let advice = match cause.kind() {
            io::ErrorKind::AddrInUse => {
                "another process has this port: stop it or choose another port (0 takes any free one)"
            }
            io::ErrorKind::PermissionDenied => {
                "ports below 1024 need privileges: choose a higher port, such as 9009 for http and 9095 for grpc"
            }
            io::ErrorKind::AddrNotAvailable => "this machine has no such address: leave it empty to listen on all",
            _ => "check the address",
        };
        let address = if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") };
        Error::Listen { protocol, address, cause, advice }
    })
}

/// A bound port, with what it counts and allows.
pub(crate) struct Listener {
    protocol: &'static str,
    io: TcpListener,
    closer: Arc<Closer>,
    limit: Option<Arc<Semaphore>>,
    connections: Gauge,
    accept_errors: metrics::Counter,
}

impl Listener {
    /// Takes over a bound port; `limit` is the number of connections at a time, 0 = any.
    pub(crate) fn new(
        protocol: &'static str,
        io: std::net::TcpListener,
        limit: usize,
        meter: &Meter,
    ) -> io::Result<Self> {
        io.set_nonblocking(true)?;
        let closer = Arc::new(Closer(Mutex::new(Some(io.try_clone()?.into()))));
        let meter = meter.with("protocol", protocol);
        let help = "The max number of TCP connections that can be accepted (0 means no limit).";
        #[expect(clippy::cast_precision_loss, reason = "a number of connections")]
        meter.gauge("cortex_tcp_connections_limit", Unit::Count, help).set(limit as f64);
        Ok(Self {
            protocol,
            io: TcpListener::from_std(io)?,
            closer,
            limit: (limit > 0).then(|| Arc::new(Semaphore::new(limit.min(Semaphore::MAX_PERMITS)))),
            connections: meter.gauge(
                "cortex_tcp_connections",
                Unit::Count,
                "Current number of accepted TCP connections.",
            ),
            accept_errors: meter.counter(
                "ringkit_tcp_accept_errors_total",
                Unit::Count,
                "Connections that could not be accepted.",
            ),
        })
    }

    pub(crate) fn local_addr(&self) -> io::Result<SocketAddr> {
        self.io.local_addr()
    }

    /// Frees the port at once, from outside, as the end of a process would.
    pub(crate) fn closer(&self) -> Arc<Closer> {
        Arc::clone(&self.closer)
    }
}

/// Stops a port from listening, whoever holds the listener.
pub(crate) struct Closer(Mutex<Option<OwnedFd>>);

impl Closer {
    pub(crate) fn close(&self) {
        if let Some(socket) = self.0.lock().take() {
            // An error means that it is not listening any more.
            let _ = rustix::net::shutdown(&socket, rustix::net::Shutdown::Both);
        }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.closer.close();
    }
}

/// What is spoken on a port.
pub(crate) enum Protocol {
    /// HTTP/1.1; a write that makes no progress for `write_timeout` ends the connection.
    Http1 { builder: http1::Builder, write_timeout: Duration },
    /// HTTP/2 without prior negotiation, as gRPC.
    Http2 { builder: http2::Builder<Streams>, streams: CancellationToken },
}

/// Runs what a connection's streams spawn, and drops it with the server.
#[derive(Clone, Debug)]
pub(crate) struct Streams(pub(crate) CancellationToken);

impl<F> Executor<F> for Streams
where
    F: Future + Send + 'static,
    F::Output: Send,
{
    fn execute(&self, stream: F) {
        let kill = self.0.clone();
        let stream = async move {
            kill.run_until_cancelled_owned(stream).await;
        };
        tokio::spawn(stream.in_current_span());
    }
}

/// Accepts and serves until `stop`, then lets connections finish what they are at, for at most `drain`. Returns how many
/// had to be cut. Dropping the future ends everything at once.
pub(crate) async fn serve(
    listener: Listener,
    protocol: Protocol,
    service: axum::Router,
    stop: CancellationToken,
    drain: Duration,
) -> usize {
    let protocol = Arc::new(protocol);
    // Streams are tasks of their own: they end with this future, however it ends.
    let _kill_streams = match protocol.as_ref() {
        Protocol::Http1 { .. } => None,
        Protocol::Http2 { streams, .. } => Some(streams.clone().drop_guard()),
    };
    let mut connections = JoinSet::new();
    let mut backoff = Backoff::new(Duration::from_millis(20), Duration::from_secs(1));
    loop {
        let permit = match &listener.limit {
            None => None,
            Some(limit) => tokio::select! {
                biased;
                () = stop.cancelled() => break,
                permit = Arc::clone(limit).acquire_owned() => permit.ok(),
            },
        };
        let (stream, peer) = tokio::select! {
            biased;
            () = stop.cancelled() => break,
            accepted = listener.io.accept() => match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    listener.accept_errors.increment(1);
                    tracing::warn!(protocol = listener.protocol, %error, "cannot accept a connection");
                    // Out of file descriptors, most likely: time must pass before trying again is worth it.
                    tokio::time::sleep(backoff.next()).await;
                    continue;
                }
            },
            Some(_) = connections.join_next(), if !connections.is_empty() => continue,
        };
        backoff.reset();
        let open = Open::new(&listener.connections);
        let connection = serve_one(Arc::clone(&protocol), stream, service.clone(), stop.clone());
        let connection = async move {
            if let Err(error) = connection.await {
                tracing::debug!(%peer, error = %error, "connection ended");
            }
            drop((open, permit));
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

async fn serve_one(
    protocol: Arc<Protocol>,
    stream: TcpStream,
    service: axum::Router,
    stop: CancellationToken,
) -> hyper::Result<()> {
    // Answers are small and waited for.
    let _ = stream.set_nodelay(true);
    let service = TowerToHyperService::new(service);
    match protocol.as_ref() {
        Protocol::Http1 { builder, write_timeout } => {
            let io = TokioIo::new(Unstalled::new(stream, *write_timeout));
            let mut connection = pin!(builder.serve_connection(io, service));
            tokio::select! {
                ended = connection.as_mut() => return ended,
                () = stop.cancelled() => connection.as_mut().graceful_shutdown(),
            }
            connection.await
        }
        Protocol::Http2 { builder, .. } => {
            let mut connection = pin!(builder.serve_connection(TokioIo::new(stream), service));
            tokio::select! {
                ended = connection.as_mut() => return ended,
                () = stop.cancelled() => connection.as_mut().graceful_shutdown(),
            }
            connection.await
        }
    }
}

/// Counts a connection for as long as it is open.
struct Open(Gauge);

impl Open {
    fn new(gauge: &Gauge) -> Self {
        gauge.increment(1.0);
        Self(gauge.clone())
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.decrement(1.0);
    }
}

/// A stream whose peer must take what is written to it: a write that waits longer than the timeout fails.
struct Unstalled {
    stream: TcpStream,
    timeout: Duration,
    stalled: Option<Pin<Box<Sleep>>>,
}

impl Unstalled {
    fn new(stream: TcpStream, timeout: Duration) -> Self {
        Self { stream, timeout, stalled: None }
    }

    fn watch<T>(&mut self, cx: &mut Context<'_>, written: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.stalled = None;
            return written;
        }
        if self.timeout.is_zero() {
            return Poll::Pending;
        }
        let timeout = self.timeout;
        let stalled = self.stalled.get_or_insert_with(|| Box::pin(tokio::time::sleep(timeout)));
        stalled.as_mut().poll(cx).map(|()| Err(io::ErrorKind::TimedOut.into()))
    }
}

impl AsyncRead for Unstalled {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Unstalled {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.watch(cx, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, slices);
        self.watch(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
