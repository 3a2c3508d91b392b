//! Streams of the member: what is written to them, what comes from them, and how they end.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tracing::Instrument as _;

use super::counts::{Counts, add, one};
use super::dial::dial;
use super::shared::{CHUNK_BYTES, Connection, Incoming, Shared, within};
use super::sniff::linger;
use crate::api::StreamId;

/// There is always room for as much to be read at a time, and never for more than [`CHUNK_BYTES`].
const READ_BYTES: usize = CHUNK_BYTES / 4;

/// The actor's end of a stream. Dropped, what was written is sent, and the stream closed.
pub(super) struct Link {
    writes: mpsc::UnboundedSender<Bytes>,
    /// To where the member opened it, if it did.
    pub(super) dialled: Option<SocketAddr>,
    /// Whether anything came.
    pub(super) heard: bool,
}

/// The streams of the member that are not closed.
#[derive(Default)]
pub(super) struct Streams {
    links: BTreeMap<StreamId, Link>,
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
        let (writes, queue) = mpsc::unbounded_channel();
        self.links.insert(id, Link { writes, dialled: Some(to), heard: false });
        self.tasks.spawn(open(id, to, queue, Arc::clone(shared)).in_current_span());
    }

    /// One came in.
    pub(super) fn accept(&mut self, id: StreamId, writes: mpsc::UnboundedSender<Bytes>) {
        self.links.insert(id, Link { writes, dialled: None, heard: false });
    }

    /// Writes to one. The member bounds what it writes to a stream, so nothing here does.
    pub(super) fn write(&self, id: StreamId, bytes: Bytes) {
        if let Some(link) = self.links.get(&id) {
            // One that broke says so by itself.
            let _ = link.writes.send(bytes);
        }
    }

    /// Closes one once what was written is sent. Nothing of it is told any more.
    pub(super) fn close(&mut self, id: StreamId) -> Option<Link> {
        self.links.remove(&id)
    }
}

/// A connection came in and turned out to be a stream of a member.
pub(super) async fn accept(connection: Connection, first: u8, peer: SocketAddr, shared: &Shared) {
    one(&shared.counts.streams_in);
    let id = shared.next_inbound();
    let (writes, queue) = mpsc::unbounded_channel();
    if shared.tell(Incoming::Accepted { id, peer, first, writes }).await {
        converse(connection, id, queue, shared).await;
    }
}

async fn open(id: StreamId, to: SocketAddr, queue: mpsc::UnboundedReceiver<Bytes>, shared: Arc<Shared>) {
    match dial(to, &shared).await {
        Ok(connection) => {
            one(&shared.counts.streams_out);
            if shared.tell(Incoming::Opened { id }).await {
                converse(connection, id, queue, &shared).await;
            }
        }
        Err(error) => {
            tracing::debug!(%to, %error, "cannot open a stream");
            one(&shared.counts.stream_errors);
            shared.tell(Incoming::Closed { id, error: Some(error) }).await;
        }
    }
}

/// Reads and writes until both are over.
async fn converse(
    connection: Connection,
    id: StreamId,
    queue: mpsc::UnboundedReceiver<Bytes>,
    shared: &Shared,
) {
    let (mut reader, writer) = tokio::io::split(connection);
    let result = {
        let mut reading = pin!(read_all(&mut reader, id, shared));
        let mut writing = pin!(write_all(writer, queue, shared.write_timeout, &shared.counts));
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
        }
    };
    match result {
        // The member has said all, and wants to hear no more.
        Ok(()) => linger(&mut reader).await,
        Err(error) => {
            tracing::debug!(stream = id.0, %error, "a stream broke");
            one(&shared.counts.stream_errors);
            shared.tell(Incoming::Closed { id, error: Some(error) }).await;
        }
    }
}

/// Reads until the other end says that it ends. How long that may take is for the member to say.
async fn read_all(reader: &mut (impl AsyncRead + Unpin), id: StreamId, shared: &Shared) -> io::Result<()> {
    let mut buffer = BytesMut::new();
    loop {
        buffer.reserve(READ_BYTES);
        let len = reader.read_buf(&mut buffer).await?;
        if len == 0 {
            return Ok(());
        }
        add(&shared.counts.stream_bytes_in, len);
        if !shared.tell(Incoming::Data { id, bytes: buffer.split().freeze() }).await {
            return Ok(());
        }
    }
}

/// Writes what is queued until the queue's other end is dropped, and says then that this is all.
async fn write_all(
    mut writer: impl AsyncWrite + Unpin,
    mut queue: mpsc::UnboundedReceiver<Bytes>,
    limit: Duration,
    counts: &Counts,
) -> io::Result<()> {
    let mut gathered = Vec::new();
    while let Some(bytes) = queue.recv().await {
        gathered.clear();
        gathered.extend_from_slice(&bytes);
        // Small pieces that were written together go together.
        while gathered.len() < CHUNK_BYTES
            && let Ok(bytes) = queue.try_recv()
        {
            gathered.extend_from_slice(&bytes);
        }
        for piece in gathered.chunks(CHUNK_BYTES) {
            within(limit, writer.write_all(piece)).await?;
            add(&counts.stream_bytes_out, piece.len());
        }
        within(limit, writer.flush()).await?;
    }
    within(limit, writer.shutdown()).await
}
