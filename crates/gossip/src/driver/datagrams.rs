//! UDP sockets. The system queues what came, and drops the newest when it has no room.

use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::task::Poll;

use tokio::net::UdpSocket;

use super::bind::canonical;
use super::counts::{Counts, add, one};

/// The most that UDP carries, and more: nothing is cut off.
pub(super) const BUFFER_BYTES: usize = 65_535;

/// UDP sockets, or none.
pub(super) struct Sockets(Vec<Socket>);

struct Socket {
    udp: UdpSocket,
    is_v4: bool,
}

impl Socket {
    fn new(socket: std::net::UdpSocket) -> io::Result<Self> {
        let is_v4 = socket.local_addr()?.is_ipv4();
        Ok(Self { udp: UdpSocket::from_std(socket)?, is_v4 })
    }
}

impl Sockets {
    /// # Errors
    ///
    /// If the runtime does not take them.
    pub(super) fn new(sockets: Vec<std::net::UdpSocket>) -> io::Result<Self> {
        Ok(Self(sockets.into_iter().map(Socket::new).collect::<io::Result<_>>()?))
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// Waits until they can be written to: before the runtime has looked, they seem full.
    pub(super) async fn writable(&self) {
        for socket in &self.0 {
            // If not, each datagram will fail and be counted.
            let _ = socket.udp.writable().await;
        }
    }

    /// Waits until something may have come. For ever, if there are no sockets.
    pub(super) async fn readable(&self) {
        poll_fn(|cx| {
            // All are asked, so that each wakes the task.
            let mut ready = Poll::Pending;
            for socket in &self.0 {
                if let Poll::Ready(Ok(())) = socket.udp.poll_recv_ready(cx) {
                    ready = Poll::Ready(());
                }
            }
            ready
        })
        .await;
    }

    /// Takes what came to one of them. Errors concern what was sent earlier, and are not the end.
    pub(super) fn receive(
        &self,
        socket: usize,
        buffer: &mut [u8],
        counts: &Counts,
    ) -> Option<io::Result<(usize, SocketAddr)>> {
        match self.0.get(socket)?.udp.try_recv_from(buffer) {
            Ok((len, from)) => {
                one(&counts.datagrams_in);
                add(&counts.datagram_bytes_in, len);
                Some(Ok((len, canonical(from))))
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => None,
            Err(error) => {
                one(&counts.receive_errors);
                Some(Err(error))
            }
        }
    }

    /// Sends a datagram now or never.
    pub(super) fn send(&self, to: SocketAddr, bytes: &[u8], counts: &Counts) {
        match self.try_send(to, bytes) {
            Ok(_) => {
                one(&counts.datagrams_out);
                add(&counts.datagram_bytes_out, bytes.len());
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => one(&counts.datagrams_dropped),
            Err(error) => {
                tracing::trace!(%to, %error, "cannot send a datagram");
                one(&counts.datagram_errors);
            }
        }
    }

    fn try_send(&self, to: SocketAddr, bytes: &[u8]) -> io::Result<usize> {
        if let Some(socket) = self.0.iter().find(|socket| socket.is_v4 == to.is_ipv4()) {
            return socket.udp.try_send_to(bytes, to);
        }
        match (self.0.first(), to) {
            // A socket for IPv6 may serve IPv4 as well.
            (Some(socket), SocketAddr::V4(v4)) => {
                socket.udp.try_send_to(bytes, SocketAddr::new(v4.ip().to_ipv6_mapped().into(), v4.port()))
            }
            _ => Err(io::ErrorKind::AddrNotAvailable.into()),
        }
    }
}
