//! Datagrams over TCP, for networks that carry no UDP.
//!
//! ```text
//! 0x9d | u8 length | address that the sender advertises, as text | (u16 length | datagram)*       little-endian
//! ```
//!
//! They may get lost as over UDP: when a connection breaks, what was under way is gone, and nobody asks for it again.
//!
//! Who sent a datagram is what the connection says of itself. That is worth no less than what UDP says, where anybody who can
//! send can forge the source: what matters is in the datagrams, by members that name themselves there, sealed where there are
//! keys. An answer to a forged address costs one connection for a while, and there are no more of them than allowed.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, BufReader};
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tracing::Instrument as _;

use super::counts::{add, one};
use super::dial::dial;
use super::shared::{CHUNK_BYTES, Connection, Incoming, Shared, within};
use super::sniff::PACKETS;
use crate::wire::MAX_DATAGRAM_BYTES;

/// How many datagrams wait for a connection.
const QUEUE: usize = 256;
/// After what time without datagrams the sender closes a connection. The receiver waits for longer, so that nothing is sent on
/// connections that it has closed.
const IDLE: Duration = Duration::from_secs(60);
/// How soon after a connection broke, or was refused, another one is tried.
const REST: Duration = Duration::from_millis(200);

/// What connections for datagrams begin with.
fn preamble(addr: SocketAddr) -> Vec<u8> {
    let text = addr.to_string();
    // Cannot be cut off: the longest address has some 60 characters.
    let mut preamble = vec![PACKETS, text.len() as u8];
    preamble.extend_from_slice(text.as_bytes());
    preamble
}

/// Connections to those that datagrams are sent to, one to each.
pub(super) struct Lanes {
    lanes: BTreeMap<SocketAddr, mpsc::Sender<Bytes>>,
    tasks: JoinSet<()>,
    /// How many there may be.
    most: usize,
    preamble: Arc<[u8]>,
}

impl Lanes {
    /// None yet, and never more than `most`. `addr` is what this member advertises.
    pub(super) fn new(addr: SocketAddr, most: usize) -> Self {
        Self { lanes: BTreeMap::new(), tasks: JoinSet::new(), most, preamble: preamble(addr).into() }
    }

    /// Sends a datagram, if there is room.
    pub(super) fn send(&mut self, to: SocketAddr, bytes: Bytes, shared: &Arc<Shared>) {
        let bytes = match self.lanes.get(&to) {
            Some(lane) => match lane.try_send(bytes) {
                Ok(()) => return,
                Err(TrySendError::Full(_)) => {
                    one(&shared.counts.datagrams_dropped);
                    return;
                }
                Err(TrySendError::Closed(bytes)) => bytes,
            },
            None => bytes,
        };
        // Those that ended are let go of here, so that they do not heap up.
        while self.tasks.try_join_next().is_some() {}
        self.lanes.retain(|_, lane| !lane.is_closed());
        if self.lanes.len() >= self.most {
            one(&shared.counts.datagrams_dropped);
            return;
        }
        let (lane, queue) = mpsc::channel(QUEUE);
        // A new one has room.
        let _ = lane.try_send(bytes);
        self.lanes.insert(to, lane);
        let lane = Lane {
            to,
            queue,
            preamble: Arc::clone(&self.preamble),
            shared: Arc::clone(shared),
            unsent: 0,
            buffer: Vec::new(),
        };
        self.tasks.spawn(lane.run().in_current_span());
    }

    /// Waits until all is sent, and ends.
    pub(super) async fn finish(mut self) {
        self.lanes.clear();
        while self.tasks.join_next().await.is_some() {}
    }
}

/// Why a lane sends no more on a connection that did not break.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Over {
    /// There is nothing to send.
    Idle,
    /// The other end closed it.
    ClosedThere,
}

/// One connection for datagrams, again and again.
struct Lane {
    to: SocketAddr,
    queue: mpsc::Receiver<Bytes>,
    preamble: Arc<[u8]>,
    shared: Arc<Shared>,
    /// How many datagrams were taken from the queue, and not yet by the network.
    unsent: usize,
    /// Kept for its memory.
    buffer: Vec<u8>,
}

impl Lane {
    async fn run(mut self) {
        while let Ok(Some(datagram)) = timeout(IDLE, self.queue.recv()).await {
            self.unsent = 1;
            match self.connect_and_send(datagram).await {
                Ok(Over::Idle) => return,
                // It may do so again at once.
                Ok(Over::ClosedThere) => sleep(REST).await,
                Err(error) => {
                    tracing::debug!(to = %self.to, %error, "cannot send datagrams over TCP");
                    let counts = &self.shared.counts;
                    one(&counts.stream_errors);
                    // What has waited for so long is not worth much any more.
                    while self.queue.try_recv().is_ok() {
                        self.unsent += 1;
                    }
                    add(&counts.datagrams_dropped, self.unsent);
                    sleep(REST).await;
                }
            }
        }
    }

    async fn connect_and_send(&mut self, first: Bytes) -> io::Result<Over> {
        let connection = dial(self.to, &self.shared).await?;
        let (mut reader, mut writer) = tokio::io::split(connection);
        self.buffer.clear();
        self.buffer.extend_from_slice(&self.preamble);
        let mut next = first;
        loop {
            self.write(&mut writer, next).await?;
            // Nobody answers here: it ends, or it is not what was meant.
            let mut scrap = [0; 1];
            let got = tokio::select! {
                _ = reader.read(&mut scrap) => return Ok(Over::ClosedThere),
                got = timeout(IDLE, self.queue.recv()) => got,
            };
            let Ok(Some(datagram)) = got else {
                within(self.shared.write_timeout, writer.shutdown()).await?;
                return Ok(Over::Idle);
            };
            next = datagram;
        }
    }

    /// Writes a datagram, with those that wait behind it.
    async fn write(&mut self, writer: &mut (impl AsyncWrite + Unpin), first: Bytes) -> io::Result<()> {
        let mut bytes = 0;
        self.unsent = 0;
        let mut next = Some(first);
        while let Some(datagram) = next {
            self.unsent += 1;
            // Longer ones are not made.
            if let Ok(len) = u16::try_from(datagram.len()) {
                self.buffer.extend_from_slice(&len.to_le_bytes());
                self.buffer.extend_from_slice(&datagram);
                bytes += datagram.len();
            }
            next = if self.buffer.len() < CHUNK_BYTES { self.queue.try_recv().ok() } else { None };
        }
        let buffer = &self.buffer;
        let write = async {
            writer.write_all(buffer).await?;
            writer.flush().await
        };
        within(self.shared.write_timeout, write).await?;
        add(&self.shared.counts.datagrams_out, self.unsent);
        add(&self.shared.counts.datagram_bytes_out, bytes);
        self.unsent = 0;
        self.buffer.clear();
        Ok(())
    }
}

/// A connection came in and turned out to be one for datagrams.
pub(super) async fn receive(connection: Connection, peer: SocketAddr, shared: &Shared) {
    // Its first byte is read already.
    let mut reader = BufReader::with_capacity(CHUNK_BYTES, connection);
    if let Err(error) = receive_all(&mut reader, shared).await {
        one(&shared.counts.stream_errors);
        if shared.remarks.packets.is_due() {
            tracing::warn!(%peer, %error, "a connection for datagrams broke");
        }
    }
}

async fn receive_all(reader: &mut (impl AsyncRead + Unpin), shared: &Shared) -> io::Result<()> {
    let limit = shared.read_timeout;
    let len = within(limit, reader.read_u8()).await?;
    let mut text = vec![0; usize::from(len)];
    within(limit, reader.read_exact(&mut text)).await?;
    let from = announced(&text).ok_or_else(|| invalid("it comes from no address"))?;
    loop {
        let len = match within(IDLE.saturating_add(limit), reader.read_u16_le()).await {
            Ok(len) => usize::from(len),
            // Between datagrams, both are ways to end.
            Err(error) if matches!(error.kind(), io::ErrorKind::UnexpectedEof | io::ErrorKind::TimedOut) => {
                return Ok(());
            }
            Err(error) => return Err(error),
        };
        if len > MAX_DATAGRAM_BYTES {
            return Err(invalid("a datagram is too long"));
        }
        let mut bytes = vec![0; len];
        within(limit, reader.read_exact(&mut bytes)).await?;
        one(&shared.counts.datagrams_in);
        add(&shared.counts.datagram_bytes_in, len);
        if !shared.tell(Incoming::Datagram { from, bytes }).await {
            return Ok(());
        }
    }
}

/// Where a sender says that it can be reached.
fn announced(text: &[u8]) -> Option<SocketAddr> {
    let addr: SocketAddr = std::str::from_utf8(text).ok()?.parse().ok()?;
    (addr.port() != 0 && !addr.ip().is_unspecified()).then_some(addr)
}

fn invalid(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_announced_is_what_is_understood() {
        for text in ["10.0.0.1:7946", "[2001:db8::1]:7946"] {
            let addr: SocketAddr = text.parse().unwrap();
            let preamble = preamble(addr);
            assert_eq!((preamble[0], usize::from(preamble[1])), (PACKETS, text.len()));
            assert_eq!(announced(&preamble[2..]), Some(addr));
        }
        for text in [&b""[..], b"10.0.0.1", b"10.0.0.1:0", b"0.0.0.0:7946", b"[::]:1", b"host:7946", b"\xff"]
        {
            assert_eq!(announced(text), None, "{text:?}");
        }
    }
}
