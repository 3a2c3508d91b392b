//! A connection's stream: its peer must take what is written to it, and gets to read an answer that came early.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Sleep;

use crate::dead::Dead;

/// How long a connection stays half open for a peer that has not finished its request: closing it at once would reset it, and
/// the peer would lose the answer that tells it why. As Go's server does.
const LINGER: Duration = Duration::from_millis(500);

/// A stream on which a write that waits for longer than the timeout fails (zero means no timeout), and whose shutdown waits for
/// a peer that is still sending.
pub(crate) struct Patient<S> {
    stream: S,
    write_timeout: Duration,
    stalled: Option<Pin<Box<Sleep>>>,
    unread: Unread,
    lingering: Option<Pin<Box<Sleep>>>,
    dead: Dead,
}

impl<S> Patient<S> {
    /// Nothing is read or written any more once the process is dead, even by tasks that have not been dropped yet.
    fn check_alive(&self) -> io::Result<()> {
        if self.dead.is_set() { Err(io::ErrorKind::ConnectionAborted.into()) } else { Ok(()) }
    }

    pub(crate) fn new(stream: S, write_timeout: Duration, unread: Unread, dead: Dead) -> Self {
        Self { stream, write_timeout, stalled: None, unread, lingering: None, dead }
    }

    fn watch<T>(&mut self, cx: &mut Context<'_>, written: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.stalled = None;
            return written;
        }
        if self.write_timeout.is_zero() {
            return Poll::Pending;
        }
        let timeout = self.write_timeout;
        let stalled = self.stalled.get_or_insert_with(|| Box::pin(tokio::time::sleep(timeout)));
        stalled.as_mut().poll(cx).map(|()| Err(io::ErrorKind::TimedOut.into()))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Patient<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.check_alive()?;
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Patient<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.check_alive()?;
        let written = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.watch(cx, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.check_alive()?;
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, slices);
        self.watch(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.check_alive()?;
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.check_alive()?;
        if self.lingering.is_none() {
            ready!(Pin::new(&mut self.stream).poll_shutdown(cx))?;
            if !self.unread.get() {
                return Poll::Ready(Ok(()));
            }
        }
        let this = &mut *self;
        let lingering = this.lingering.get_or_insert_with(|| Box::pin(tokio::time::sleep(LINGER)));
        // A fast peer must not keep us in this loop for longer than its turn: the rest waits for the next one.
        for _ in 0..16 {
            if lingering.as_mut().poll(cx).is_ready() {
                return Poll::Ready(Ok(()));
            }
            let mut discarded = [0; 4096];
            let mut discarded = ReadBuf::new(&mut discarded);
            match ready!(Pin::new(&mut this.stream).poll_read(cx, &mut discarded)) {
                Ok(()) if !discarded.filled().is_empty() => (),
                // The peer is done, or gone.
                _ => return Poll::Ready(Ok(())),
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

/// Whether part of a request's body has not been read. Clones share it; one per connection.
#[derive(Clone, Debug, Default)]
pub(crate) struct Unread(Arc<AtomicBool>);

impl Unread {
    fn get(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }

    /// Follows the reading of a request's body.
    pub(crate) fn follow<B: Body>(&self, inner: B) -> Followed<B> {
        self.0.store(!inner.is_end_stream(), Ordering::Release);
        Followed { inner, unread: self.clone() }
    }
}

pin_project! {
    /// A body whose end is noted.
    pub(crate) struct Followed<B> {
        #[pin]
        inner: B,
        unread: Unread,
    }
}

impl<B: Body> Body for Followed<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        let this = self.project();
        let frame = ready!(this.inner.poll_frame(cx));
        if frame.is_none() {
            this.unread.0.store(false, Ordering::Release);
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        let ended = self.inner.is_end_stream();
        if ended {
            self.unread.0.store(false, Ordering::Release);
        }
        ended
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::time::Instant;

    use super::*;

    const TIMEOUT: Duration = Duration::from_secs(30);

    #[tokio::test(start_paused = true)]
    async fn a_write_that_nobody_takes_fails_after_the_timeout() {
        let (_peer, ours) = tokio::io::duplex(10);
        let mut ours = Patient::new(ours, TIMEOUT, Unread::default(), Dead::default());
        let begun = Instant::now();
        let error = ours.write_all(&[0; 100]).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert_eq!(begun.elapsed().as_secs(), TIMEOUT.as_secs());
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_reader_is_no_stall() {
        let (mut peer, ours) = tokio::io::duplex(10);
        let mut ours = Patient::new(ours, TIMEOUT, Unread::default(), Dead::default());
        let reading = async {
            let mut taken = [0; 10];
            for _ in 0..10 {
                tokio::time::sleep(TIMEOUT * 9 / 10).await;
                peer.read_exact(&mut taken).await.unwrap();
            }
        };
        let (written, ()) = futures::join!(ours.write_all(&[0; 100]), reading);
        written.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn zero_means_no_timeout() {
        let (_peer, ours) = tokio::io::duplex(10);
        let mut ours = Patient::new(ours, Duration::ZERO, Unread::default(), Dead::default());
        assert!(tokio::time::timeout(TIMEOUT * 1000, ours.write_all(&[0; 100])).await.is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn a_shutdown_waits_for_a_peer_that_is_still_sending_but_not_for_ever() {
        let (mut peer, ours) = tokio::io::duplex(10);
        let unread = Unread::default();
        let mut ours = Patient::new(ours, TIMEOUT, unread.clone(), Dead::default());
        let begun = Instant::now();
        let _body = unread.follow(String::from("more to come"));
        let sending = async {
            while begun.elapsed() < LINGER * 2 {
                let _ = tokio::time::timeout(LINGER, peer.write_all(&[0; 10])).await;
                tokio::time::sleep(LINGER / 10).await;
            }
        };
        let shutdown = async {
            ours.shutdown().await.unwrap();
            begun.elapsed()
        };
        let (took, ()) = futures::join!(shutdown, sending);
        assert!(took >= LINGER && took < LINGER * 2, "{took:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_shutdown_after_whole_requests_waits_for_nobody() {
        let (_peer, ours) = tokio::io::duplex(10);
        let unread = Unread::default();
        let mut ours = Patient::new(ours, TIMEOUT, unread.clone(), Dead::default());
        let mut body = Box::pin(unread.follow(String::from("all of it")));
        while std::future::poll_fn(|cx| body.as_mut().poll_frame(cx)).await.is_some() {}
        let begun = Instant::now();
        ours.shutdown().await.unwrap();
        assert_eq!(begun.elapsed(), Duration::ZERO);
    }
}
