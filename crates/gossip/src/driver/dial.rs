//! Opening connections.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::ServerName;

use super::shared::{Connection, Shared, within};

/// Opens a connection, with TLS where that is enabled.
pub(super) async fn dial(to: SocketAddr, shared: &Shared) -> io::Result<Connection> {
    within(shared.dial_timeout, connect(to, shared)).await
}

async fn connect(to: SocketAddr, shared: &Shared) -> io::Result<Connection> {
    let stream = TcpStream::connect(to).await?;
    // What is written at a time belongs together, and is waited for. Without it, it is only slower.
    let _ = stream.set_nodelay(true);
    let Some(tls) = &shared.tls else { return Ok(Box::new(stream)) };
    let name = tls.server_name.clone().unwrap_or_else(|| ServerName::from(to.ip()));
    let stream = TlsConnector::from(Arc::clone(&tls.client)).connect(name, stream).await?;
    Ok(Box::new(stream))
}
