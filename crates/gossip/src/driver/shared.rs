//! What the tasks of one member share.

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, timeout, timeout_at};

use super::counts::Counts;
use super::options::Tls;
use super::places::Places;
use super::streams::Writes;
use crate::api::StreamId;

/// Most bytes read from or written to a connection at a time.
pub(super) const CHUNK_BYTES: usize = 64 << 10;
/// How much of what came on connections waits for the actor. Then nothing more is read from them, so that senders wait.
pub(super) const MAX_INCOMING: usize = 64;
/// How often the same remark is logged at most.
const REMARK_PERIOD: Duration = Duration::from_secs(60);

/// What comes to the actor from the other tasks.
#[derive(Debug)]
pub(super) enum Incoming {
    /// A stream of a member came in.
    Accepted {
        id: StreamId,
        peer: SocketAddr,
        /// Its first byte.
        first: u8,
        /// Where to put what is to be written to it.
        writes: Writes,
    },
    /// A stream that the member wanted is there.
    Opened { id: StreamId },
    /// These bytes came on a stream.
    Data { id: StreamId, bytes: Bytes },
    /// A stream is gone: the other end closed it, or this went wrong.
    Closed { id: StreamId, error: Option<io::Error> },
    /// A datagram came over TCP.
    Datagram { from: SocketAddr, bytes: Vec<u8> },
    /// Seeds were found here.
    Seeds(Vec<SocketAddr>),
    /// Seeds were looked up, and none was found.
    Unresolved,
}

/// What the tasks of one member share.
pub(super) struct Shared {
    pub(super) counts: Arc<Counts>,
    /// To the actor.
    pub(super) incoming: mpsc::Sender<Incoming>,
    pub(super) tls: Option<Tls>,
    pub(super) dial_timeout: Duration,
    pub(super) read_timeout: Duration,
    pub(super) write_timeout: Duration,
    /// Of connections that come in.
    pub(super) places: Arc<Places>,
    pub(super) remarks: Remarks,
    /// The last number of a stream that came in.
    pub(super) last_inbound: AtomicU64,
    /// Whoever waits for the end waits until this is dropped. So who owns a socket must drop it before its share of this.
    pub(super) _running: watch::Receiver<()>,
}

impl Shared {
    /// A number for a stream that came in: they are even.
    pub(super) fn next_inbound(&self) -> StreamId {
        StreamId(self.last_inbound.fetch_add(2, Ordering::Relaxed).wrapping_add(2))
    }

    /// Tells the actor something, and returns whether it is still there. Waits while it has too much to do.
    pub(super) async fn tell(&self, incoming: Incoming) -> bool {
        self.incoming.send(incoming).await.is_ok()
    }
}

/// Remarks that anybody can provoke, and that are therefore made rarely.
#[derive(Debug, Default)]
pub(super) struct Remarks {
    pub(super) http: Seldom,
    pub(super) tls: Seldom,
    pub(super) unknown: Seldom,
    pub(super) rejected: Seldom,
    pub(super) not_accepted: Seldom,
    pub(super) handshake: Seldom,
    pub(super) packets: Seldom,
}

/// Something done once a minute at most.
#[derive(Debug, Default)]
pub(super) struct Seldom(Mutex<Option<Instant>>);

impl Seldom {
    /// Whether it is to be done now.
    pub(super) fn is_due(&self) -> bool {
        let now = Instant::now();
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let due = last.is_none_or(|last| now.saturating_duration_since(last) >= REMARK_PERIOD);
        if due {
            *last = Some(now);
        }
        due
    }
}

/// A connection, encrypted or not.
pub(super) type Connection = Box<dyn Io>;

/// What can be read and written.
pub(super) trait Io: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

/// Lets something take so long and no longer; zero = as long as it takes.
pub(super) async fn within<T>(limit: Duration, doing: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    if limit.is_zero() {
        return doing.await;
    }
    let late = |_| Err(io::Error::new(io::ErrorKind::TimedOut, format!("no answer within {limit:?}")));
    timeout(limit, doing).await.unwrap_or_else(late)
}

/// When something that begins now is late; None = never, if the limit is zero.
pub(super) fn deadline(limit: Duration) -> Option<Instant> {
    if limit.is_zero() { None } else { Instant::now().checked_add(limit) }
}

/// Lets something take until then and no longer.
pub(super) async fn until<T>(
    deadline: Option<Instant>,
    doing: impl Future<Output = io::Result<T>>,
) -> io::Result<T> {
    let Some(deadline) = deadline else { return doing.await };
    timeout_at(deadline, doing).await.unwrap_or_else(|_| Err(late("it took too long")))
}

/// The error of something that takes too long.
pub(super) fn late(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, what)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn remarks_are_made_once_a_minute() {
        let remark = Seldom::default();
        assert!(remark.is_due());
        assert!(!remark.is_due());
        tokio::time::advance(REMARK_PERIOD).await;
        assert!(remark.is_due());
    }

    #[tokio::test(start_paused = true)]
    async fn what_takes_too_long_is_given_up() {
        let never = within(Duration::from_secs(1), std::future::pending::<io::Result<()>>()).await;
        assert_eq!(never.unwrap_err().kind(), io::ErrorKind::TimedOut);
        let long = async {
            tokio::time::sleep(Duration::from_secs(3600)).await;
            Ok(())
        };
        within(Duration::ZERO, long).await.unwrap();

        assert_eq!(deadline(Duration::ZERO), None);
        let (soon, never) = (deadline(Duration::from_secs(1)), std::future::pending::<io::Result<()>>());
        assert_eq!(until(soon, never).await.unwrap_err().kind(), io::ErrorKind::TimedOut);
    }
}
