//! Connections that come in.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::AsyncReadExt as _;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tracing::Instrument as _;

use super::bind::canonical;
use super::counts::{Open, one};
use super::places::Place;
use super::shared::{Connection, Shared, deadline, until, within};
use super::sniff::{First, turn_away};
use super::{packets, streams};

/// First and last pause when no connection can be accepted: out of file descriptors, most likely.
const PAUSES: (Duration, Duration) = (Duration::from_millis(5), Duration::from_secs(1));

/// Accepts connections.
pub(super) struct Listening {
    /// Dropped first: who waits for the end waits for that.
    pub(super) listener: TcpListener,
    pub(super) shared: Arc<Shared>,
}

impl Listening {
    /// Accepts connections for ever. Dropping the future ends them all.
    pub(super) async fn run(self) {
        listen(&self.listener, &self.shared).await;
    }
}

async fn listen(listener: &TcpListener, shared: &Arc<Shared>) {
    let mut connections = JoinSet::new();
    let mut pause = PAUSES.0;
    loop {
        let accepted = tokio::select! {
            Some(_) = connections.join_next(), if !connections.is_empty() => continue,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, peer)) => {
                pause = PAUSES.0;
                let peer = canonical(peer);
                match shared.places.take(peer.ip()) {
                    Some(place) => {
                        let connection = serve(Arc::clone(shared), stream, peer, place);
                        connections.spawn(connection.in_current_span());
                    }
                    None => reject(peer, shared),
                }
            }
            Err(error) => {
                if shared.remarks.not_accepted.is_due() {
                    tracing::warn!(%error, "cannot accept a connection to the gossip port");
                }
                tokio::time::sleep(pause).await;
                pause = pause.saturating_mul(2).min(PAUSES.1);
            }
        }
    }
}

fn reject(peer: SocketAddr, shared: &Shared) {
    one(&shared.counts.connections_rejected);
    if shared.remarks.rejected.is_due() {
        tracing::warn!(%peer, "too many connections to the gossip port, in all or from there: closed");
    }
}

async fn serve(shared: Arc<Shared>, stream: TcpStream, peer: SocketAddr, place: Place) {
    let _open = Open::new(&shared.counts);
    // What is written at a time belongs together, and is waited for. Without it, it is only slower.
    let _ = stream.set_nodelay(true);
    let Some(mut connection) = encrypt(stream, peer, &shared).await else { return };
    // Who has not said anything complete by then is not waited for.
    let by = deadline(shared.read_timeout);
    // Whoever opens a connection and says nothing, or closes it, is not worth a word: load balancers do.
    let Ok(first) = until(by, connection.read_u8()).await else { return };
    match First::of(first) {
        First::Member => streams::accept(connection, first, peer, by, &shared).await,
        First::Packets => packets::receive(connection, peer, by, &place.into_lane(), &shared).await,
        other => turn_away(connection, other, peer, &shared).await,
    }
}

/// Shakes hands, where TLS is enabled. None if that is the end.
async fn encrypt(stream: TcpStream, peer: SocketAddr, shared: &Shared) -> Option<Connection> {
    let Some(tls) = &shared.tls else { return Some(Box::new(stream)) };
    // Who does not speak TLS would not understand its alerts.
    let mut first = [0];
    let len = within(shared.read_timeout, stream.peek(&mut first)).await.ok()?;
    if len == 0 {
        return None;
    }
    let what = First::of(first[0]);
    if what != First::Tls {
        turn_away(Box::new(stream), what, peer, shared).await;
        return None;
    }
    let acceptor = TlsAcceptor::from(Arc::clone(&tls.server));
    match within(shared.read_timeout, acceptor.accept(stream)).await {
        Ok(stream) => Some(Box::new(stream)),
        Err(error) => {
            one(&shared.counts.inbound_stream_errors);
            if shared.remarks.handshake.is_due() {
                tracing::warn!(%peer, %error, "no TLS connection came to be on the gossip port");
            }
            None
        }
    }
}
