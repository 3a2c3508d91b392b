//! Listeners and port numbers from the operating system, on the loopback address.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};

use parking_lot::Mutex;

use crate::error::Error;

/// Numbers handed out by this process: the system may offer a released one again at once.
static HANDED_OUT: Mutex<BTreeSet<u16>> = Mutex::new(BTreeSet::new());
const ATTEMPTS: usize = 100;

/// A listener on a port that the system chose; for servers that live in this process. Nobody can take the port away.
///
/// # Errors
///
/// [`Error::Io`] if the system has no port left.
pub fn listener() -> Result<(TcpListener, SocketAddr), Error> {
    let bind = || {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        listener.set_nonblocking(true)?;
        let addr = listener.local_addr()?;
        Ok((listener, addr))
    };
    bind().map_err(|cause| Error::io("listening on a port of the system's choice", cause))
}

/// A port that was free a moment ago, never the same twice in a process; for servers in processes of their own. Another
/// program may take it in between, so a launcher tries again with another number when its server ends at once.
///
/// # Errors
///
/// [`Error::Io`] if the system has no port left.
pub fn free_port() -> Result<u16, Error> {
    // Rejected listeners stay open until the end, so that the system offers something else.
    let mut rejected = Vec::new();
    for _ in 0..ATTEMPTS {
        let (listener, addr) = listener()?;
        if HANDED_OUT.lock().insert(addr.port()) {
            return Ok(addr.port());
        }
        rejected.push(listener);
    }
    Err(Error::io("finding a free port", std::io::ErrorKind::AddrInUse.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_is_free_and_never_handed_out_twice() {
        let ports: Vec<u16> = (0..50).map(|_| free_port().unwrap()).collect();
        assert_eq!(ports.iter().collect::<BTreeSet<_>>().len(), ports.len());
        TcpListener::bind((Ipv4Addr::LOCALHOST, ports[0])).unwrap();
    }

    #[test]
    fn a_listener_can_be_reached() {
        let (_listener, addr) = listener().unwrap();
        std::net::TcpStream::connect(addr).unwrap();
    }
}
