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
//! keys. An answer to a forged address costs one connection until it fails, and there are no more of them than allowed: when there
//! are too many, the one that was used least recently ends, at either end.

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
use tokio::time::{Instant, sleep, timeout};
use tracing::Instrument as _;

use super::counts::{add, one};
use super::dial::dial;
use super::places::LanePlace;
use super::shared::{CHUNK_BYTES, Connection, Incoming, Shared, until, within};
use super::sniff::PACKETS;
use crate::wire::MAX_DATAGRAM_BYTES;

/// How many datagrams wait for a connection.
const QUEUE: usize = 256;
/// After what time without datagrams the sender closes a connection. The receiver waits for longer, so that nothing is sent on
/// connections that it has closed.
const IDLE: Duration = Duration::from_secs(60);
/// How soon after a connection broke, or was refused, another one is tried.
const REST: Duration = Duration::from_millis(200);
/// For each lane that there may be, how many may still be sending what they had when they had to end.
const TASKS_PER_LANE: usize = 2;

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
    lanes: BTreeMap<SocketAddr, Outlet>,
    /// What there was to send, by now.
    turn: u64,
    tasks: JoinSet<()>,
    /// How many there may be.
    most: usize,
    preamble: Arc<[u8]>,
}

/// The near end of a lane.
struct Outlet {
    queue: mpsc::Sender<Bytes>,
    /// When it was last used: later turns are larger.
    turn: u64,
}

impl Lanes {
    /// None yet, and never more than `most`. `addr` is what this member advertises.
    pub(super) fn new(addr: SocketAddr, most: usize) -> Self {
        let (lanes, tasks) = (BTreeMap::new(), JoinSet::new());
        Self { lanes, turn: 0, tasks, most, preamble: preamble(addr).into() }
    }

    /// Sends a datagram, if there is room. If there are too many lanes for one more, the one that was used least recently ends.
    pub(super) fn send(&mut self, to: SocketAddr, bytes: Bytes, shared: &Arc<Shared>) {
        self.turn += 1;
        let bytes = match self.lanes.get_mut(&to) {
            Some(lane) => {
                lane.turn = self.turn;
                match lane.queue.try_send(bytes) {
                    Ok(()) => return,
                    Err(TrySendError::Full(_)) => {
                        one(&shared.counts.datagrams_dropped);
                        return;
                    }
                    Err(TrySendError::Closed(bytes)) => bytes,
                }
            }
            None => bytes,
        };
        // Those that ended are let go of here, so that they do not heap up.
        while self.tasks.try_join_next().is_some() {}
        self.lanes.retain(|_, lane| !lane.queue.is_closed());
        if self.tasks.len() >= self.most.saturating_mul(TASKS_PER_LANE) {
            one(&shared.counts.datagrams_dropped);
            return;
        }
        if self.lanes.len() >= self.most
            && let Some(last) = self.least_used()
        {
            // What it has is still sent.
            self.lanes.remove(&last);
        }
        let (lane, queue) = mpsc::channel(QUEUE);
        // A new one has room.
        let _ = lane.try_send(bytes);
        self.lanes.insert(to, Outlet { queue: lane, turn: self.turn });
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

    fn least_used(&self) -> Option<SocketAddr> {
        self.lanes.iter().min_by_key(|(_, lane)| lane.turn).map(|(to, _)| *to)
    }

    /// Waits until all is sent, and ends.
    pub(super) async fn finish(&mut self) {
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
        self.connect_until_idle().await;
        // From here on there is room for another lane. What came just before is lost with this one.
        self.queue.close();
        self.drop_unsent();
    }

    async fn connect_until_idle(&mut self) {
        let mut wait = IDLE;
        while let Ok(Some(datagram)) = timeout(wait, self.queue.recv()).await {
            self.unsent = 1;
            match self.connect_and_send(datagram).await {
                Ok(Over::Idle) => return,
                // It may do so again at once.
                Ok(Over::ClosedThere) => (),
                Err(error) => {
                    tracing::debug!(to = %self.to, %error, "cannot send datagrams over TCP");
                    one(&self.shared.counts.outbound_stream_errors);
                    // What has waited for so long is not worth much any more.
                    self.drop_unsent();
                }
            }
            sleep(REST).await;
            // Without a connection it is only in the way of others.
            wait = Duration::ZERO;
        }
    }

    fn drop_unsent(&mut self) {
        while self.queue.try_recv().is_ok() {
            self.unsent += 1;
        }
        add(&self.shared.counts.datagrams_dropped, std::mem::take(&mut self.unsent));
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

/// A connection came in and turned out to be one for datagrams. `by` then the first of them must have come.
pub(super) async fn receive(
    connection: Connection,
    peer: SocketAddr,
    by: Option<Instant>,
    place: &LanePlace,
    shared: &Shared,
) {
    // Its first byte is read already.
    let mut reader = BufReader::with_capacity(CHUNK_BYTES, connection);
    let result = tokio::select! {
        result = receive_all(&mut reader, by, place, shared) => result,
        () = place.lost() => {
            tracing::debug!(%peer, "too many connections for datagrams: closed the one that was used least recently");
            one(&shared.counts.connections_rejected);
            return;
        }
    };
    if let Err(error) = result {
        one(&shared.counts.inbound_stream_errors);
        one(&shared.counts.receive_errors);
        if shared.remarks.packets.is_due() {
            tracing::warn!(%peer, %error, "a connection for datagrams broke");
        }
    }
}

async fn receive_all(
    reader: &mut (impl AsyncRead + Unpin),
    by: Option<Instant>,
    place: &LanePlace,
    shared: &Shared,
) -> io::Result<()> {
    let limit = shared.read_timeout;
    let (from, mut bytes) = until(by, begin(reader)).await?;
    loop {
        place.heard();
        one(&shared.counts.datagrams_in);
        add(&shared.counts.datagram_bytes_in, bytes.len());
        if !shared.tell(Incoming::Datagram { from, bytes }).await {
            return Ok(());
        }
        let len = match within(IDLE.saturating_add(limit), read_len(reader)).await {
            Ok(len) => len,
            // Between datagrams, both are ways to end.
            Err(error) if matches!(error.kind(), io::ErrorKind::UnexpectedEof | io::ErrorKind::TimedOut) => {
                return Ok(());
            }
            Err(error) => return Err(error),
        };
        bytes = within(limit, read_bytes(reader, len)).await?;
    }
}

/// Reads who sends, and the first datagram.
async fn begin(reader: &mut (impl AsyncRead + Unpin)) -> io::Result<(SocketAddr, Vec<u8>)> {
    let len = usize::from(reader.read_u8().await?);
    let text = read_bytes(reader, len).await?;
    let from = announced(&text).ok_or_else(|| invalid("it comes from no address"))?;
    let len = read_len(reader).await?;
    Ok((from, read_bytes(reader, len).await?))
}

/// Reads the length of a datagram.
async fn read_len(reader: &mut (impl AsyncRead + Unpin)) -> io::Result<usize> {
    let len = usize::from(reader.read_u16_le().await?);
    if len > MAX_DATAGRAM_BYTES { Err(invalid("a datagram is too long")) } else { Ok(len) }
}

async fn read_bytes(reader: &mut (impl AsyncRead + Unpin), len: usize) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; len];
    reader.read_exact(&mut bytes).await?;
    Ok(bytes)
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
    use std::sync::atomic::{AtomicU64, Ordering};

    use tokio::net::TcpListener;
    use tokio::sync::watch;

    use super::super::places::Places;
    use super::super::shared::Remarks;
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

    /// Of a member that nobody drives.
    fn shared() -> Arc<Shared> {
        let limit = Duration::from_secs(5);
        let (incoming, _) = mpsc::channel(1);
        let (_, _running) = watch::channel(());
        Arc::new(Shared {
            counts: Arc::default(),
            incoming,
            tls: None,
            dial_timeout: limit,
            read_timeout: limit,
            write_timeout: limit,
            places: Arc::new(Places::new(1)),
            remarks: Remarks::default(),
            last_inbound: AtomicU64::new(0),
            _running,
        })
    }

    async fn listener() -> (TcpListener, SocketAddr) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        (listener, addr)
    }

    #[tokio::test]
    async fn the_lane_that_was_used_least_recently_ends_for_another_one() {
        let shared = shared();
        let mut lanes = Lanes::new("10.0.0.1:1".parse().unwrap(), 2);
        let ((_first, first), (second, to_second), (_third, third)) =
            (listener().await, listener().await, listener().await);
        for to in [first, to_second, first, third] {
            lanes.send(to, Bytes::from_static(b"news"), &shared);
        }
        assert!(lanes.lanes.keys().eq(&std::collections::BTreeSet::from([first, third])));
        // What it had was sent.
        let mut came = Vec::new();
        let (mut stream, _) = second.accept().await.unwrap();
        stream.read_to_end(&mut came).await.unwrap();
        assert!(came.ends_with(b"\x04\x00news"), "{came:?}");
        assert_eq!(shared.counts.datagrams_dropped.load(Ordering::Relaxed), 0);
    }

    #[tokio::test]
    async fn a_lane_to_nobody_ends() {
        let shared = shared();
        let mut lanes = Lanes::new("10.0.0.1:1".parse().unwrap(), 2);
        let (listener, nobody) = listener().await;
        drop(listener);
        lanes.send(nobody, Bytes::from_static(b"news"), &shared);
        lanes.tasks.join_next().await.unwrap().unwrap();
        assert!(lanes.lanes[&nobody].queue.is_closed());
        assert_eq!(shared.counts.datagrams_dropped.load(Ordering::Relaxed), 1);
    }
}
