//! A TCP proxy on the loopback address that can be cut, paused and slowed down.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::sleep;

use crate::error::Error;

/// What the network does at the moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    /// Bytes pass, each piece after this delay.
    Open(Duration),
    /// Connections are accepted and stay, no byte passes.
    Paused,
    /// Connections are closed, new ones at once.
    Cut,
}

/// A proxy in front of one address. Ends, with all its connections, when dropped.
#[derive(Debug)]
pub struct Proxy {
    addr: SocketAddr,
    mode: watch::Sender<Mode>,
    counters: Arc<Counters>,
    /// Holds the accepting task, which holds those of the connections.
    _tasks: JoinSet<()>,
}

#[derive(Debug, Default)]
struct Counters {
    open: AtomicUsize,
    accepted: AtomicU64,
    bytes: AtomicU64,
}

impl Proxy {
    /// Starts a proxy for `target`, which is connected to anew for each connection.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] if the system has no port left.
    pub async fn start(target: SocketAddr) -> Result<Self, Error> {
        let fail = |cause| Error::io("starting a proxy", cause);
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.map_err(fail)?;
        let addr = listener.local_addr().map_err(fail)?;
        let (mode, watched) = watch::channel(Mode::Open(Duration::ZERO));
        let counters = Arc::new(Counters::default());
        let mut tasks = JoinSet::new();
        tasks.spawn(accept(listener, target, watched, Arc::clone(&counters)));
        Ok(Self { addr, mode, counters, _tasks: tasks })
    }

    /// Where the proxy listens.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Closes all connections, and new ones at once, until [`Proxy::restore`].
    pub fn cut(&self) {
        self.mode.send_replace(Mode::Cut);
    }

    /// Holds all bytes back until [`Proxy::restore`]; connections stay open, as with a peer that hangs.
    pub fn pause(&self) {
        self.mode.send_replace(Mode::Paused);
    }

    /// Delays every piece by `delay`, in both directions.
    pub fn delay(&self, delay: Duration) {
        self.mode.send_replace(Mode::Open(delay));
    }

    /// Lets everything pass at once again; what was held back goes out.
    pub fn restore(&self) {
        self.mode.send_replace(Mode::Open(Duration::ZERO));
    }

    /// Connections open now.
    pub fn num_open(&self) -> usize {
        self.counters.open.load(Ordering::SeqCst)
    }

    /// Connections accepted since the start.
    pub fn num_accepted(&self) -> u64 {
        self.counters.accepted.load(Ordering::SeqCst)
    }

    /// Bytes passed on since the start, both directions.
    pub fn num_bytes(&self) -> u64 {
        self.counters.bytes.load(Ordering::SeqCst)
    }
}

async fn accept(
    listener: TcpListener,
    target: SocketAddr,
    mode: watch::Receiver<Mode>,
    counters: Arc<Counters>,
) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let Ok((client, _)) = accepted else { continue };
                counters.accepted.fetch_add(1, Ordering::SeqCst);
                connections.spawn(connection(client, target, mode.clone(), Arc::clone(&counters)));
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

/// Counts a connection as open while it lives, however it ends.
struct Open(Arc<Counters>);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::SeqCst);
    }
}

async fn connection(
    client: TcpStream,
    target: SocketAddr,
    mode: watch::Receiver<Mode>,
    counters: Arc<Counters>,
) {
    counters.open.fetch_add(1, Ordering::SeqCst);
    let _open = Open(Arc::clone(&counters));
    let mut cut = mode.clone();
    let pass = async {
        let Ok(server) = TcpStream::connect(target).await else { return };
        // The proxy delays when it is told to, not by itself.
        let _ = (client.set_nodelay(true), server.set_nodelay(true));
        let (client_in, client_out) = client.into_split();
        let (server_in, server_out) = server.into_split();
        tokio::join!(
            copy(client_in, server_out, mode.clone(), &counters),
            copy(server_in, client_out, mode.clone(), &counters)
        );
    };
    tokio::select! {
        () = pass => {}
        // Also when the proxy is gone.
        _ = cut.wait_for(|mode| *mode == Mode::Cut) => {}
    }
}

/// Passes bytes one way until the sender ends; the other way may go on (half-closed connections are kept).
async fn copy(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    mut mode: watch::Receiver<Mode>,
    counters: &Counters,
) {
    let mut buffer = vec![0; 16 << 10];
    while let Ok(len @ 1..) = from.read(&mut buffer).await {
        // Held back while paused, even if it was read before.
        let now = mode.wait_for(|mode| *mode != Mode::Paused).await.map(|mode| *mode);
        let Ok(Mode::Open(delay)) = now else { return };
        if !delay.is_zero() {
            sleep(delay).await;
        }
        if to.write_all(&buffer[..len]).await.is_err() {
            return;
        }
        counters.bytes.fetch_add(len as u64, Ordering::SeqCst);
    }
    // The reader of a connection that is gone is gone too.
    let _ = to.shutdown().await;
}

#[cfg(test)]
mod tests {
    use tokio::time::timeout;

    use super::*;
    use crate::time::eventually;

    const SOON: Duration = Duration::from_secs(5);

    /// Sends back whatever it gets.
    async fn echo() -> (SocketAddr, JoinSet<()>) {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let addr = listener.local_addr().unwrap();
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((mut stream, _)) = listener.accept().await {
                connections.spawn(async move {
                    let (mut from, mut to) = stream.split();
                    let _ = tokio::io::copy(&mut from, &mut to).await;
                });
            }
        });
        (addr, tasks)
    }

    async fn says_back(stream: &mut TcpStream, word: &[u8]) -> bool {
        if stream.write_all(word).await.is_err() {
            return false;
        }
        let mut answer = vec![0; word.len()];
        stream.read_exact(&mut answer).await.is_ok() && answer == word
    }

    #[tokio::test]
    async fn bytes_pass_in_both_directions() {
        let (target, _tasks) = echo().await;
        let proxy = Proxy::start(target).await.unwrap();
        let mut stream = TcpStream::connect(proxy.addr()).await.unwrap();
        assert!(says_back(&mut stream, b"hello").await);
        assert_eq!((proxy.num_accepted(), proxy.num_open(), proxy.num_bytes()), (1, 1, 10));
        drop(stream);
        eventually(SOON, || async { proxy.num_open() == 0 }).await.unwrap();
    }

    #[tokio::test]
    async fn a_cut_closes_connections_and_keeps_new_ones_out_until_restored() {
        let (target, _tasks) = echo().await;
        let proxy = Proxy::start(target).await.unwrap();
        let mut stream = TcpStream::connect(proxy.addr()).await.unwrap();
        assert!(says_back(&mut stream, b"hello").await);
        proxy.cut();
        assert!(!timeout(SOON, says_back(&mut stream, b"hello")).await.unwrap());
        let mut during = TcpStream::connect(proxy.addr()).await.unwrap();
        assert!(!timeout(SOON, says_back(&mut during, b"hello")).await.unwrap());
        proxy.restore();
        let mut after = TcpStream::connect(proxy.addr()).await.unwrap();
        assert!(says_back(&mut after, b"hello").await);
    }

    #[tokio::test]
    async fn a_pause_holds_bytes_back_and_loses_none() {
        let (target, _tasks) = echo().await;
        let proxy = Proxy::start(target).await.unwrap();
        let mut stream = TcpStream::connect(proxy.addr()).await.unwrap();
        assert!(says_back(&mut stream, b"before").await);
        proxy.pause();
        stream.write_all(b"during").await.unwrap();
        let mut answer = [0; 6];
        let held = timeout(Duration::from_millis(100), stream.read_exact(&mut answer)).await;
        assert!(held.is_err(), "bytes passed a paused proxy");
        proxy.restore();
        timeout(SOON, stream.read_exact(&mut answer)).await.unwrap().unwrap();
        assert_eq!(&answer, b"during");
    }
}
