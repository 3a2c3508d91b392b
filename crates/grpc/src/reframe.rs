//! Rewrites the messages of a gRPC body, whatever pieces they come in.
//!
//! A message is preceded by five bytes: a flag (1: compressed) and its length (big-endian).

use std::cell::RefCell;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use http_body::Frame;
use pin_project_lite::pin_project;
use tonic::Status;
use tower::BoxError;

const HEADER: usize = 5;

/// No snappy block grows by more than this when decompressed: three bytes stand for at most 64.
const MAX_RATIO: usize = 22;

thread_local! {
    /// The compressor's tables, 32 KiB of them.
    static ENCODER: RefCell<snap::raw::Encoder> = RefCell::new(snap::raw::Encoder::new());
}

/// What to do with each message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Direction {
    Compress,
    /// Messages that take or claim more bytes are refused before anything is allocated for them.
    Decompress {
        max_message_bytes: usize,
    },
}

pin_project! {
    /// A body whose messages are rewritten.
    pub(crate) struct Reframed<B> {
        #[pin]
        inner: B,
        messages: Messages,
        direction: Direction,
        failed: bool,
    }
}

impl<B> Reframed<B> {
    pub(crate) fn new(inner: B, direction: Direction) -> Self {
        Self { inner, messages: Messages::default(), direction, failed: false }
    }
}

impl<B> http_body::Body for Reframed<B>
where
    B: http_body::Body<Data = Bytes>,
    B::Error: Into<BoxError>,
{
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = self.project();
        if *this.failed {
            return Poll::Ready(None);
        }
        let frame = ready!(this.messages.poll(this.inner, *this.direction, cx));
        *this.failed = matches!(frame, Some(Err(_)));
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.failed || self.messages.is_empty() && self.inner.is_end_stream()
    }
}

/// One message with its header.
struct Message {
    compressed: bool,
    /// Header and payload.
    bytes: Bytes,
}

/// Cuts pieces of a body into messages. A message that lies within one piece is not copied.
#[derive(Default)]
struct Messages {
    /// The beginning of a message, in front of `piece`.
    begun: BytesMut,
    piece: Bytes,
}

impl Messages {
    /// Adds a piece. The one before has been used up by `next`.
    fn push(&mut self, piece: Bytes) {
        debug_assert!(self.piece.is_empty());
        self.piece = piece;
    }

    fn is_empty(&self) -> bool {
        self.begun.is_empty() && self.piece.is_empty()
    }

    /// The next message of `body`, rewritten, or its trailers.
    fn poll<B>(
        &mut self,
        mut body: Pin<&mut B>,
        direction: Direction,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>>
    where
        B: http_body::Body<Data = Bytes>,
        B::Error: Into<BoxError>,
    {
        loop {
            if let Some(message) = self.next(direction)? {
                return Poll::Ready(Some(rewrite(message, direction).map(Frame::data)));
            }
            match ready!(body.as_mut().poll_frame(cx)) {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => self.push(data),
                    // An error in the trailers says more about a message cut short than we could.
                    Err(trailers) => return Poll::Ready(Some(Ok(trailers))),
                },
                Some(Err(error)) => return Poll::Ready(Some(Err(Status::from_error(error.into())))),
                None if self.is_empty() => return Poll::Ready(None),
                None => return Poll::Ready(Some(Err(Status::internal("stream ends inside a message")))),
            }
        }
    }

    fn next(&mut self, direction: Direction) -> Result<Option<Message>, Status> {
        let mut header = [0; HEADER];
        let available = self.begun.len() + self.piece.len();
        if available >= HEADER {
            (&self.begun[..]).chain(&self.piece[..]).copy_to_slice(&mut header);
            let [flag, length @ ..] = header;
            let len = u32::from_be_bytes(length) as usize;
            if let Direction::Decompress { max_message_bytes } = direction
                && len > max_message_bytes
            {
                return Err(too_large(len, max_message_bytes));
            }
            let whole = HEADER + len;
            if available >= whole {
                let compressed = match flag {
                    0 => false,
                    1 => true,
                    _ => return Err(Status::internal(format!("invalid message flag {flag}"))),
                };
                return Ok(Some(Message { compressed, bytes: self.take(whole) }));
            }
        }
        // Grows with what arrives, not with what a header claims.
        self.begun.put(std::mem::take(&mut self.piece));
        Ok(None)
    }

    fn take(&mut self, len: usize) -> Bytes {
        match len.checked_sub(self.begun.len()) {
            Some(len) if self.begun.is_empty() => self.piece.split_to(len),
            Some(missing) => {
                self.begun.put(self.piece.split_to(missing));
                self.begun.split().freeze()
            }
            None => self.begun.split_to(len).freeze(),
        }
    }
}

fn rewrite(message: Message, direction: Direction) -> Result<Bytes, Status> {
    match direction {
        Direction::Compress if !message.compressed => compress(message.bytes),
        Direction::Decompress { max_message_bytes } if message.compressed => {
            decompress(&message.bytes[HEADER..], max_message_bytes)
        }
        _ => Ok(message.bytes),
    }
}

/// Compresses a message, unless that makes it longer.
fn compress(message: Bytes) -> Result<Bytes, Status> {
    let payload = &message[HEADER..];
    let mut out = vec![0; HEADER + snap::raw::max_compress_len(payload.len())];
    let len = ENCODER
        .with_borrow_mut(|encoder| encoder.compress(payload, &mut out[HEADER..]))
        .map_err(|error| Status::internal(format!("cannot compress message: {error}")))?;
    if len >= payload.len() {
        return Ok(message);
    }
    out.truncate(HEADER + len);
    put_header(&mut out, true, len);
    Ok(out.into())
}

fn decompress(payload: &[u8], max_message_bytes: usize) -> Result<Bytes, Status> {
    let corrupt = |error: snap::Error| Status::internal(format!("cannot decompress message: {error}"));
    let len = snap::raw::decompress_len(payload).map_err(corrupt)?;
    if len > max_message_bytes {
        return Err(too_large(len, max_message_bytes));
    }
    if len > payload.len().saturating_mul(MAX_RATIO) {
        return Err(Status::internal("cannot decompress message: it claims more than it can hold"));
    }
    let mut out = vec![0; HEADER + len];
    let written = snap::raw::Decoder::new().decompress(payload, &mut out[HEADER..]).map_err(corrupt)?;
    debug_assert_eq!(written, len);
    put_header(&mut out, false, len);
    Ok(out.into())
}

fn put_header(out: &mut [u8], compressed: bool, len: usize) {
    let [.., a, b, c, d] = (len as u64).to_be_bytes();
    out[..HEADER].copy_from_slice(&[compressed.into(), a, b, c, d]);
}

/// As grpc-go puts it.
fn too_large(len: usize, max: usize) -> Status {
    Status::resource_exhausted(format!("grpc: received message larger than max ({len} vs. {max})"))
}

#[cfg(test)]
mod tests;
