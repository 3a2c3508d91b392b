//! Streams of the member: what is written to them, what comes from them, and how they end.

use std::collections::BTreeMap;
use std::future::pending;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until};
use tracing::Instrument as _;

use super::counts::{Counts, add, one};
use super::dial::dial;
use super::shared::{CHUNK_BYTES, Connection, Incoming, Shared, deadline, late, until};
use super::sniff::linger;
use crate::api::StreamId;

/// There is always room for as much to be read at a time, and never for more than [`CHUNK_BYTES`].
const READ_BYTES: usize = CHUNK_BYTES / 4;

/// So many bytes may wait to be written to a stream. A member says a piece of what it has to say at a time, which is much less, and
/// waits until it has come: more wait only for somebody who asks, and does not read.
const MAX_QUEUED_BYTES: usize = 8 << 20;
/// For so many times the limit of reading, nothing may go either way.
const SILENT_TIMES: u32 = 2;

/// What is to be written to a stream.
fn queue() -> (Writes, Unwritten) {
    let (sender, receiver) = mpsc::unbounded_channel();
    let bytes = Arc::new(AtomicUsize::new(0));
    (Writes { queue: sender, bytes: Arc::clone(&bytes) }, Unwritten { queue: receiver, bytes })
}

/// Where to put what is to be written to a stream. Dropped, it is closed once that is written.
#[derive(Debug)]
pub(super) struct Writes {
    queue: mpsc::UnboundedSender<Bytes>,
    /// How many wait.
    bytes: Arc<AtomicUsize>,
}

impl Writes {
    /// False if there is no room.
    fn push(&self, bytes: Bytes) -> bool {
        let len = bytes.len();
        let waiting = self.bytes.fetch_add(len, Ordering::Relaxed).saturating_add(len);
        if waiting > MAX_QUEUED_BYTES {
            return false;
        }
        // A stream that broke says so by itself.
        let _ = self.queue.send(bytes);
        true
    }
}

/// The other end of [`Writes`].
struct Unwritten {
    queue: mpsc::UnboundedReceiver<Bytes>,
    bytes: Arc<AtomicUsize>,
}

impl Unwritten {
    async fn next(&mut self) -> Option<Bytes> {
        let bytes = self.queue.recv().await;
        self.took(bytes)
    }

    fn try_next(&mut self) -> Option<Bytes> {
        let bytes = self.queue.try_recv().ok();
        self.took(bytes)
    }

    fn took(&self, bytes: Option<Bytes>) -> Option<Bytes> {
        let len = bytes.as_ref().map_or(0, Bytes::len);
        self.bytes.fetch_sub(len, Ordering::Relaxed);
        bytes
    }

    /// Whether nothing will be added.
    fn is_closed(&self) -> bool {
        self.queue.is_closed()
    }
}

/// The actor's end of a stream. Dropped, what was written is sent, and the stream closed.
pub(super) struct Link {
    writes: Writes,
    /// To where the member opened it, if it did.
    pub(super) dialled: Option<SocketAddr>,
    /// Whether anything came.
    pub(super) heard: bool,
}

/// The streams of the member that are not closed.
#[derive(Default)]
pub(super) struct Streams {
    links: BTreeMap<StreamId, Link>,
    /// Those that were closed here, of which the member is still to be told.
    overfull: Vec<StreamId>,
    /// Those that the member opened, beyond their close.
    tasks: JoinSet<()>,
}

impl Streams {
    pub(super) fn get(&self, id: StreamId) -> Option<&Link> {
        self.links.get(&id)
    }

    pub(super) fn get_mut(&mut self, id: StreamId) -> Option<&mut Link> {
        self.links.get_mut(&id)
    }

    /// Opens one. What becomes of it comes as [`Incoming`].
    pub(super) fn open(&mut self, id: StreamId, to: SocketAddr, shared: &Arc<Shared>) {
        // Those that ended are let go of here, so that they do not heap up.
        while self.tasks.try_join_next().is_some() {}
        let (writes, unwritten) = queue();
        self.links.insert(id, Link { writes, dialled: Some(to), heard: false });
        self.tasks.spawn(open(id, to, unwritten, Arc::clone(shared)).in_current_span());
    }

    /// One came in.
    pub(super) fn accept(&mut self, id: StreamId, writes: Writes) {
        self.links.insert(id, Link { writes, dialled: None, heard: false });
    }

    /// Writes to one. If too much waits to be written to it, it is closed instead.
    pub(super) fn write(&mut self, id: StreamId, bytes: Bytes, counts: &Counts) {
        if self.links.get(&id).is_some_and(|link| !link.writes.push(bytes)) {
            tracing::debug!(stream = id.0, "too much waits to be written to a stream");
            one(counts.stream_errors(id));
            self.links.remove(&id);
            self.overfull.push(id);
        }
    }

    /// One that was closed because too much waited to be written to it, and of which the member is to be told.
    pub(super) fn take_overfull(&mut self) -> Option<StreamId> {
        self.overfull.pop()
    }

    /// Closes one once what was written is sent. Nothing of it is told any more.
    pub(super) fn close(&mut self, id: StreamId) -> Option<Link> {
        self.links.remove(&id)
    }
}

/// A connection came in and turned out to be a stream of a member. `by` then it has to have said which one.
pub(super) async fn accept(
    connection: Connection,
    first: u8,
    peer: SocketAddr,
    by: Option<Instant>,
    shared: &Shared,
) {
    one(&shared.counts.streams_in);
    let id = shared.next_inbound();
    let (writes, unwritten) = queue();
    if shared.tell(Incoming::Accepted { id, peer, first, writes }).await {
        converse(connection, id, unwritten, by, shared).await;
    }
}

async fn open(id: StreamId, to: SocketAddr, unwritten: Unwritten, shared: Arc<Shared>) {
    match dial(to, &shared).await {
        Ok(connection) => {
            one(&shared.counts.streams_out);
            if shared.tell(Incoming::Opened { id }).await {
                converse(connection, id, unwritten, None, &shared).await;
            }
        }
        Err(error) => {
            tracing::debug!(%to, %error, "cannot open a stream");
            one(shared.counts.stream_errors(id));
            shared.tell(Incoming::Closed { id, error: Some(error) }).await;
        }
    }
}

/// What went over a stream: how many pieces, each way.
#[derive(Default)]
struct Traffic {
    read: AtomicUsize,
    written: AtomicUsize,
}

impl Traffic {
    fn count(counter: &AtomicUsize) {
        counter.fetch_add(1, Ordering::Relaxed);
    }

    fn get(&self) -> (usize, usize) {
        (self.read.load(Ordering::Relaxed), self.written.load(Ordering::Relaxed))
    }
}

/// Reads and writes until both are over. If `greeted_by`, the member must have had reason to answer by then.
async fn converse(
    connection: Connection,
    id: StreamId,
    unwritten: Unwritten,
    greeted_by: Option<Instant>,
    shared: &Shared,
) {
    let (mut reader, writer) = tokio::io::split(connection);
    let traffic = Traffic::default();
    let result = {
        let mut reading = pin!(read_all(&mut reader, id, shared, &traffic));
        let mut writing = pin!(write_all(writer, unwritten, shared, &traffic));
        tokio::select! {
            read = &mut reading => match read {
                // The other end has said all that it has to say. What is still to be written may be of use to it.
                Ok(()) => {
                    if shared.tell(Incoming::Closed { id, error: None }).await {
                        let _ = writing.await;
                    }
                    return;
                }
                Err(error) => Err(error),
            },
            written = &mut writing => written,
            error = too_silent(&traffic, greeted_by, shared.read_timeout) => Err(error),
        }
    };
    match result {
        // The member has said all, and wants to hear no more.
        Ok(()) => linger(&mut reader).await,
        Err(error) => {
            tracing::debug!(stream = id.0, %error, "a stream broke");
            one(shared.counts.stream_errors(id));
            shared.tell(Incoming::Closed { id, error: Some(error) }).await;
        }
    }
}

/// Waits until a stream is to be given up: because nothing that the member answers to has come by then, or because nothing goes
/// either way.
async fn too_silent(traffic: &Traffic, greeted_by: Option<Instant>, limit: Duration) -> io::Error {
    if let Some(by) = greeted_by {
        sleep_until(by).await;
        // A member answers to the first that is said, if that was all of it.
        if traffic.get().1 == 0 {
            return late("it does not say who it is");
        }
    }
    if limit.is_zero() {
        return pending().await;
    }
    let (mut before, mut silent) = (traffic.get(), 0);
    while silent < SILENT_TIMES {
        sleep(limit).await;
        let now = traffic.get();
        silent = if now == before { silent + 1 } else { 0 };
        before = now;
    }
    late("nothing was said for too long")
}

/// Reads until the other end says that it ends. How long that may take is for others to say.
async fn read_all(
    reader: &mut (impl AsyncRead + Unpin),
    id: StreamId,
    shared: &Shared,
    traffic: &Traffic,
) -> io::Result<()> {
    let mut buffer = BytesMut::new();
    loop {
        buffer.reserve(READ_BYTES);
        let len = reader.read_buf(&mut buffer).await?;
        if len == 0 {
            return Ok(());
        }
        Traffic::count(&traffic.read);
        add(&shared.counts.stream_bytes_in, len);
        if !shared.tell(Incoming::Data { id, bytes: buffer.split().freeze() }).await {
            return Ok(());
        }
    }
}

/// Writes what is queued until the queue's other end is dropped, and says then that this is all. What is left by then has to be
/// written within the limit that is otherwise that of one piece.
async fn write_all(
    mut writer: impl AsyncWrite + Unpin,
    mut unwritten: Unwritten,
    shared: &Shared,
    traffic: &Traffic,
) -> io::Result<()> {
    let limit = shared.write_timeout;
    let mut gathered = Vec::new();
    let mut last = None;
    while let Some(bytes) = unwritten.next().await {
        gathered.clear();
        gathered.extend_from_slice(&bytes);
        // Small pieces that were written together go together.
        while gathered.len() < CHUNK_BYTES
            && let Some(bytes) = unwritten.try_next()
        {
            gathered.extend_from_slice(&bytes);
        }
        for piece in gathered.chunks(CHUNK_BYTES) {
            until(by(&unwritten, &mut last, limit), writer.write_all(piece)).await?;
            Traffic::count(&traffic.written);
            add(&shared.counts.stream_bytes_out, piece.len());
        }
        until(by(&unwritten, &mut last, limit), writer.flush()).await?;
    }
    until(by(&unwritten, &mut last, limit), writer.shutdown()).await
}

/// By when the next piece must be written. Of all that is left when nothing is added any more, the time is the same.
fn by(unwritten: &Unwritten, last: &mut Option<Instant>, limit: Duration) -> Option<Instant> {
    if !unwritten.is_closed() {
        return deadline(limit);
    }
    if last.is_none() {
        *last = deadline(limit);
    }
    *last
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_waits_than_may() {
        let (writes, mut unwritten) = queue();
        let half = Bytes::from(vec![0; MAX_QUEUED_BYTES / 2]);
        assert!(writes.push(half.clone()) && writes.push(half.clone()));
        assert_eq!(unwritten.try_next().map(|bytes| bytes.len()), Some(half.len()));
        assert!(writes.push(half.clone()));
        assert!(!writes.push(Bytes::from_static(b"x")));
    }

    #[tokio::test(start_paused = true)]
    async fn who_is_silent_is_given_up() {
        let limit = Duration::from_secs(5);
        let began = Instant::now();
        let traffic = Traffic::default();
        // Whoever sends and says nothing by it is not better than whoever is silent.
        Traffic::count(&traffic.read);
        too_silent(&traffic, Some(began + limit), limit).await;
        assert_eq!(began.elapsed().as_secs(), 5);

        Traffic::count(&traffic.written);
        too_silent(&traffic, Some(began + limit), limit).await;
        assert_eq!(began.elapsed().as_secs(), 15);

        let talk = async {
            for _ in 0..10 {
                sleep(limit).await;
                Traffic::count(&traffic.read);
            }
        };
        tokio::join!(too_silent(&traffic, None, limit), talk);
        assert!((70..=80).contains(&began.elapsed().as_secs()), "{:?}", began.elapsed());
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_left_at_the_end_takes_no_longer_than_one_piece_may() {
        let limit = Duration::from_secs(5);
        let (writes, unwritten) = queue();
        let mut last = None;
        let first = by(&unwritten, &mut last, limit);
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_ne!(by(&unwritten, &mut last, limit), first);
        drop(writes);
        let all = by(&unwritten, &mut last, limit);
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(by(&unwritten, &mut last, limit), all);
        assert_eq!(by(&unwritten, &mut None, Duration::ZERO), None);
    }
}
