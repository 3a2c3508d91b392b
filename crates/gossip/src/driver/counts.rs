//! [`Counts`]: what went through the sockets.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::api::StreamId;

/// What went through a member's sockets since its start. Each number stands for itself: they are not read at one moment.
#[derive(Debug, Default)]
pub struct Counts {
    /// Datagrams that came, over UDP or TCP.
    pub datagrams_in: AtomicU64,
    /// Datagrams that the network took.
    pub datagrams_out: AtomicU64,
    /// Their bytes, without what the network adds.
    pub datagram_bytes_in: AtomicU64,
    /// Their bytes, without what the network adds.
    pub datagram_bytes_out: AtomicU64,
    /// Datagrams not sent because a socket or a queue was full, or the connection to their receiver broke.
    pub datagrams_dropped: AtomicU64,
    /// Datagrams that a socket refused to send.
    pub datagram_errors: AtomicU64,
    /// Errors of sockets that datagrams come to, and connections for datagrams that came in and broke.
    pub receive_errors: AtomicU64,
    /// Streams of members that came in.
    pub streams_in: AtomicU64,
    /// Streams of the member that were opened.
    pub streams_out: AtomicU64,
    /// Connections, of streams or of datagrams, that came in and broke, or that no TLS connection came to be on.
    pub inbound_stream_errors: AtomicU64,
    /// Connections, of streams or of datagrams, that could not be opened, or were opened here and broke.
    pub outbound_stream_errors: AtomicU64,
    /// Bytes that came in streams of members, before encryption by TLS.
    pub stream_bytes_in: AtomicU64,
    /// Bytes written to streams of members, before encryption by TLS.
    pub stream_bytes_out: AtomicU64,
    /// Connections that came in and are open now.
    pub connections: AtomicU64,
    /// Connections closed because there were too many, in all or from one address: at once, or, with datagrams, for a newer one.
    pub connections_rejected: AtomicU64,
    /// Connections closed because they did not begin as any that is known.
    pub unknown_connections: AtomicU64,
    /// Connections closed because they spoke HTTP.
    pub http_connections: AtomicU64,
    /// Connections closed because they spoke TLS, which this member does not.
    pub tls_connections: AtomicU64,
}

impl Counts {
    /// Of streams that went wrong, those of this one's direction.
    pub(super) fn stream_errors(&self, id: StreamId) -> &AtomicU64 {
        // Even numbers are those of streams that came in.
        if id.0.is_multiple_of(2) { &self.inbound_stream_errors } else { &self.outbound_stream_errors }
    }
}

/// Counts one.
pub(super) fn one(counter: &AtomicU64) {
    add(counter, 1);
}

/// Counts many.
pub(super) fn add(counter: &AtomicU64, number: usize) {
    counter.fetch_add(number as u64, Ordering::Relaxed);
}

/// Counts a connection as open for as long as this lives.
pub(super) struct Open(Arc<Counts>);

impl Open {
    pub(super) fn new(counts: &Arc<Counts>) -> Self {
        one(&counts.connections);
        Self(Arc::clone(counts))
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.connections.fetch_sub(1, Ordering::Relaxed);
    }
}
