//! A bound port: how to bind one, how to say why that failed, and how to close one from outside.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener as StdListener};
use std::os::fd::OwnedFd;
use std::sync::Arc;

use metrics::{Counter, Gauge, Unit};
use parking_lot::Mutex;
use ringkit_config::ServerConfig;
use ringkit_runtime::Meter;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::error::Error;

/// Which of the two ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Port {
    Http,
    Grpc,
}

impl Port {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Grpc => "grpc",
        }
    }

    /// Binds what the configuration says.
    ///
    /// # Errors
    ///
    /// [`Error::Listen`], which names the keys to change.
    pub(crate) fn bind(self, config: &ServerConfig) -> Result<StdListener, Error> {
        let (network, address, port) = match self {
            Self::Http => (&config.http_listen_network, &config.http_listen_address, config.http_listen_port),
            Self::Grpc => (&config.grpc_listen_network, &config.grpc_listen_address, config.grpc_listen_port),
        };
        bind(network, address, port).map_err(|cause| Error::Listen {
            protocol: self.name(),
            address: if address.contains(':') {
                format!("[{address}]:{port}")
            } else {
                format!("{address}:{port}")
            },
            advice: advice(&cause),
            cause,
        })
    }

    fn conn_limit(self, config: &ServerConfig) -> usize {
        match self {
            Self::Http => config.http_listen_conn_limit,
            Self::Grpc => config.grpc_listen_conn_limit,
        }
    }
}

/// An empty address means all: of both families where there are both, as in Go.
fn bind(network: &str, address: &str, port: u16) -> io::Result<StdListener> {
    let all_v4 = || StdListener::bind((Ipv4Addr::UNSPECIFIED, port));
    let all_v6 = || StdListener::bind((Ipv6Addr::UNSPECIFIED, port));
    match (address, network) {
        ("", "tcp4") => all_v4(),
        ("", "tcp6") => all_v6(),
        ("", _) => match all_v6() {
            Err(error) if error.kind() != io::ErrorKind::AddrInUse => all_v4(),
            bound => bound,
        },
        (address, _) => StdListener::bind((address, port)),
    }
}

fn advice(cause: &io::Error) -> &'static str {
    match cause.kind() {
        io::ErrorKind::AddrInUse => {
            "another process has this port: stop it or choose another port (0 takes any free one)"
        }
        io::ErrorKind::PermissionDenied => {
            "ports below 1024 need privileges: choose a higher port, such as 9009 for http and 9095 for grpc"
        }
        io::ErrorKind::AddrNotAvailable => {
            "this machine has no such address: leave it empty to listen on all"
        }
        _ => "check the address",
    }
}

/// A bound port, with what it counts and allows.
pub(crate) struct Listener {
    pub(crate) port: Port,
    io: TcpListener,
    closer: Arc<Closer>,
    limit: Option<Arc<Semaphore>>,
    connections: Gauge,
    accept_errors: Counter,
}

impl Listener {
    /// Takes over a bound port, with the configured number of connections at a time.
    ///
    /// # Errors
    ///
    /// When `io` is not a listening socket, or the process is out of file descriptors.
    pub(crate) fn new(
        port: Port,
        io: StdListener,
        config: &ServerConfig,
        meter: &Meter,
    ) -> Result<Self, Error> {
        Self::adopt(port, io, port.conn_limit(config), meter).map_err(|cause| Error::Listen {
            protocol: port.name(),
            address: "the given listener".to_owned(),
            cause,
            advice: "hand over a listener that is bound",
        })
    }

    fn adopt(port: Port, io: StdListener, limit: usize, meter: &Meter) -> io::Result<Self> {
        io.set_nonblocking(true)?;
        let closer = Arc::new(Closer(Mutex::new(Some(io.try_clone()?.into()))));
        let meter = meter.with("protocol", port.name());
        let help = "The max number of TCP connections that can be accepted (0 means no limit).";
        #[expect(clippy::cast_precision_loss, reason = "a number of connections")]
        meter.gauge("cortex_tcp_connections_limit", Unit::Count, help).set(limit as f64);
        let help = "Current number of accepted TCP connections.";
        let connections = meter.gauge("cortex_tcp_connections", Unit::Count, help);
        let help = "Connections that could not be accepted.";
        let accept_errors = meter.counter("ringkit_tcp_accept_errors_total", Unit::Count, help);
        let limit = (limit > 0).then(|| Arc::new(Semaphore::new(limit.min(Semaphore::MAX_PERMITS))));
        Ok(Self { port, io: TcpListener::from_std(io)?, closer, limit, connections, accept_errors })
    }

    /// The bound address.
    pub(crate) fn local_addr(&self) -> Result<SocketAddr, Error> {
        self.io.local_addr().map_err(|cause| Error::Listen {
            protocol: self.port.name(),
            address: "the given listener".to_owned(),
            cause,
            advice: "hand over a listener that is bound",
        })
    }

    /// Closes the port from outside.
    pub(crate) fn closer(&self) -> Arc<Closer> {
        Arc::clone(&self.closer)
    }

    /// Waits for room under the limit, then for a connection. Cancel-safe.
    pub(crate) async fn accept(&self) -> io::Result<(TcpStream, SocketAddr, Open)> {
        let permit = match &self.limit {
            // The semaphore is never closed.
            Some(limit) => Arc::clone(limit).acquire_owned().await.ok(),
            None => None,
        };
        match self.io.accept().await {
            Ok((stream, peer)) => {
                self.connections.increment(1.0);
                Ok((stream, peer, Open { connections: self.connections.clone(), _permit: permit }))
            }
            Err(error) => {
                self.accept_errors.increment(1);
                Err(error)
            }
        }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.closer.close();
    }
}

/// Counts a connection, and holds its place, for as long as it is open.
pub(crate) struct Open {
    connections: Gauge,
    _permit: Option<OwnedSemaphorePermit>,
}

impl Drop for Open {
    fn drop(&mut self) {
        self.connections.decrement(1.0);
    }
}

/// Stops a port from listening, whoever holds the listener.
pub(crate) struct Closer(Mutex<Option<OwnedFd>>);

impl Closer {
    /// Nobody can connect any more, and the port is free for others.
    pub(crate) fn close(&self) {
        if let Some(socket) = self.0.lock().take() {
            // An error means that it is not listening any more.
            let _ = rustix::net::shutdown(&socket, rustix::net::Shutdown::Both);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_address_listens_on_all() {
        for (network, v4) in [("tcp4", true), ("tcp", false)] {
            let bound = bind(network, "", 0).unwrap().local_addr().unwrap();
            assert!(bound.ip().is_unspecified());
            assert!(!v4 || bound.is_ipv4(), "{network} bound {bound}");
        }
    }

    #[test]
    fn a_foreign_address_is_said_to_be_none_of_this_machine() {
        let config = ServerConfig { grpc_listen_address: "192.0.2.1".into(), ..ServerConfig::default() };
        let error = Port::Grpc.bind(&config).unwrap_err().to_string();
        assert!(error.starts_with("cannot listen on 192.0.2.1:9095: "), "{error}");
        assert!(error.contains("`server.grpc_listen_address`"), "{error}");
        assert!(
            error.ends_with("this machine has no such address: leave it empty to listen on all"),
            "{error}"
        );
    }
}
