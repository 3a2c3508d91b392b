//! Where a member listens, and what it says of it.

use std::io;
use std::net::{SocketAddr, TcpListener, UdpSocket};

use rustix::net::sockopt::set_socket_recv_buffer_size;

use super::StartError;
use super::options::Transport;

/// How many free ports of TCP are tried until one is free in UDP, too.
const TRIES: usize = 16;
/// What is asked for of the kernel: the queue of datagrams that have come. It gives as much as it is set up to give.
const RECEIVE_BUFFER_BYTES: usize = 4 << 20;

/// Sockets that are listened to.
#[derive(Debug, Default)]
pub(super) struct Bound {
    /// Where, in the order asked for.
    pub(super) addrs: Vec<SocketAddr>,
    pub(super) tcp: Vec<TcpListener>,
    /// Where they are free, if datagrams travel over TCP.
    pub(super) udp: Vec<UdpSocket>,
}

/// Listens at all of these addresses, over TCP and over UDP: whichever way the datagrams of this member travel, those of others
/// may come the other way.
pub(super) fn bind(addrs: &[SocketAddr], transport: Transport) -> Result<Bound, StartError> {
    let first = addrs.first().ok_or(StartError::NoAddress)?;
    let tries = if first.port() == 0 { TRIES } else { 1 };
    for _ in 1..tries {
        match bind_all(addrs, true) {
            Ok(bound) => return Ok(bound),
            // The port that was free in one place may not be in another.
            Err(error) if is_taken(&error) => (),
            Err(_) => break,
        }
    }
    bind_all(addrs, transport == Transport::Udp)
}

fn is_taken(error: &StartError) -> bool {
    matches!(error, StartError::Bind { source, .. } if source.kind() == io::ErrorKind::AddrInUse)
}

fn bind_all(addrs: &[SocketAddr], needs_udp: bool) -> Result<Bound, StartError> {
    let mut bound = Bound::default();
    for addr in addrs {
        let mut addr = *addr;
        if let Some(first) = bound.addrs.first()
            && addr.port() == 0
        {
            addr.set_port(first.port());
        }
        let failed = |protocol| move |source| StartError::Bind { addr, protocol, source };
        let (listener, local) = listen(addr).map_err(failed("TCP"))?;
        bound.addrs.push(local);
        bound.tcp.push(listener);
        match receive(local) {
            Ok(socket) => bound.udp.push(socket),
            Err(source) if needs_udp => return Err(failed("UDP")(source)),
            Err(error) => {
                tracing::warn!(addr = %local, %error, "cannot listen over UDP: datagrams come over TCP only");
            }
        }
    }
    Ok(bound)
}

fn listen(addr: SocketAddr) -> io::Result<(TcpListener, SocketAddr)> {
    let listener = TcpListener::bind(addr)?;
    listener.set_nonblocking(true)?;
    let local = listener.local_addr()?;
    Ok((listener, local))
}

fn receive(addr: SocketAddr) -> io::Result<UdpSocket> {
    let socket = UdpSocket::bind(addr)?;
    socket.set_nonblocking(true)?;
    // A smaller queue works, too.
    let _ = set_socket_recv_buffer_size(&socket, RECEIVE_BUFFER_BYTES);
    Ok(socket)
}

/// Where others reach a member that listens at `bound`.
pub(super) fn advertised(asked: Option<SocketAddr>, bound: &[SocketAddr]) -> Result<SocketAddr, StartError> {
    let first = *bound.first().ok_or(StartError::NoAddress)?;
    let mut addr = asked.unwrap_or(first);
    if addr.port() == 0 {
        addr.set_port(first.port());
    }
    if addr.ip().is_unspecified() { Err(StartError::Unreachable { addr }) } else { Ok(addr) }
}

/// The address that others use for what a socket for both kinds of addresses calls `::ffff:10.0.0.1`.
pub(super) fn canonical(addr: SocketAddr) -> SocketAddr {
    match addr {
        SocketAddr::V4(_) => addr,
        SocketAddr::V6(v6) => match v6.ip().to_ipv4_mapped() {
            Some(ip) => SocketAddr::new(ip.into(), v6.port()),
            None => addr,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addr(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    #[test]
    fn all_sockets_share_one_port_that_the_system_chose() {
        let bound = bind(&[addr("127.0.0.1:0"), addr("127.0.0.2:0")], Transport::Udp).unwrap();
        let ports: Vec<u16> = bound.addrs.iter().map(SocketAddr::port).collect();
        assert!(ports[0] != 0 && ports[0] == ports[1], "{ports:?}");
        for (socket, addr) in bound.udp.iter().zip(&bound.addrs) {
            assert_eq!(socket.local_addr().unwrap(), *addr);
        }
        let taken = bind(&bound.addrs, Transport::Udp).unwrap_err();
        assert!(matches!(taken, StartError::Bind { protocol: "TCP", .. }), "{taken}");
    }

    #[test]
    fn who_sends_datagrams_over_tcp_needs_no_udp() {
        let bound = bind(&[addr("127.0.0.1:0")], Transport::Tcp).unwrap();
        assert_eq!(bound.udp[0].local_addr().unwrap(), bound.addrs[0]);
        for _ in 0..100 {
            let taken = UdpSocket::bind("127.0.0.1:0").unwrap();
            let at = [taken.local_addr().unwrap()];
            // It may not be free over TCP either.
            let Ok(bound) = bind(&at, Transport::Tcp) else { continue };
            assert!(bound.udp.is_empty());
            drop(bound);
            let refused = bind(&at, Transport::Udp).unwrap_err();
            assert!(matches!(refused, StartError::Bind { protocol: "UDP", .. }), "{refused}");
            return;
        }
        panic!("no port is free over TCP");
    }

    #[test]
    fn what_is_advertised_can_be_reached() {
        let bound = [addr("0.0.0.0:7946")];
        assert!(matches!(advertised(None, &bound), Err(StartError::Unreachable { .. })));
        assert_eq!(advertised(Some(addr("10.0.0.1:0")), &bound).unwrap(), addr("10.0.0.1:7946"));
        assert_eq!(advertised(Some(addr("10.0.0.1:80")), &bound).unwrap(), addr("10.0.0.1:80"));
        assert_eq!(advertised(None, &[addr("10.0.0.2:1")]).unwrap(), addr("10.0.0.2:1"));
        assert!(matches!(bind(&[], Transport::Udp), Err(StartError::NoAddress)));
    }

    #[test]
    fn addresses_are_those_that_others_use() {
        for (seen, used) in
            [("[::ffff:10.0.0.1]:7", "10.0.0.1:7"), ("[::1]:7", "[::1]:7"), ("1.2.3.4:5", "1.2.3.4:5")]
        {
            assert_eq!(canonical(addr(seen)), addr(used));
        }
    }
}
