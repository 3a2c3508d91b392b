//! The message compression `snappy-block`, Go's default between Cortex's services, which tonic does not know.
//!
//! Each message is one raw snappy block. The layers sit outside tonic, over all services (Go peers compress health
//! checks too), and leave tonic with uncompressed messages. A server answers compressed exactly if it was asked
//! compressed, as grpc-go does; a client understands both answers whatever it sends.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, header};
use pin_project_lite::pin_project;
use tonic::body::Body;
use tower::{BoxError, Layer, Service};

use crate::reframe::{Direction, Reframed};

/// The name on the wire.
pub const ENCODING: &str = "snappy-block";

const GRPC_ENCODING: HeaderName = HeaderName::from_static("grpc-encoding");
const GRPC_ACCEPT_ENCODING: HeaderName = HeaderName::from_static("grpc-accept-encoding");
const SNAPPY_BLOCK: HeaderValue = HeaderValue::from_static(ENCODING);

/// What a client does with the messages it sends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Compression {
    /// Sends them as they are.
    None,
    /// Compresses them with `snappy-block`, as Cortex does by default.
    #[default]
    SnappyBlock,
}

/// Adds `snappy-block` to a server or to a channel.
#[derive(Clone, Copy, Debug)]
pub struct SnappyLayer {
    side: Side,
    max_message_bytes: usize,
}

#[derive(Clone, Copy, Debug)]
enum Side {
    Server,
    Client(Compression),
}

impl SnappyLayer {
    /// For servers. A compressed stream's message over `max_message_bytes`, before or after decompression, ends its
    /// call with `RESOURCE_EXHAUSTED` before anything is allocated for it; for uncompressed streams the limit is
    /// tonic's `max_decoding_message_size`.
    pub fn server(max_message_bytes: usize) -> Self {
        Self { side: Side::Server, max_message_bytes }
    }

    /// For channels: what to do with requests, and the limit on answers, as in [`SnappyLayer::server`].
    pub fn client(compression: Compression, max_message_bytes: usize) -> Self {
        Self { side: Side::Client(compression), max_message_bytes }
    }

    fn decompress(self) -> Direction {
        Direction::Decompress { max_message_bytes: self.max_message_bytes }
    }
}

impl<S> Layer<S> for SnappyLayer {
    type Service = Snappy<S>;

    fn layer(&self, inner: S) -> Snappy<S> {
        Snappy { inner, layer: *self }
    }
}

/// The service of [`SnappyLayer`].
#[derive(Clone, Debug)]
pub struct Snappy<S> {
    inner: S,
    layer: SnappyLayer,
}

impl<S, Q, R> Service<Request<Q>> for Snappy<S>
where
    S: Service<Request<Body>, Response = Response<R>>,
    Q: http_body::Body<Data = Bytes> + Send + 'static,
    Q::Error: Into<BoxError>,
    R: http_body::Body<Data = Bytes> + Send + 'static,
    R::Error: Into<BoxError>,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = SnappyFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<Q>) -> Self::Future {
        let headers = request.headers_mut();
        let (direction, answer) = match self.layer.side {
            Side::Server => match take_encoding(headers) {
                true => (Some(self.layer.decompress()), Answer::Send { compressed: true }),
                false => (None, Answer::Send { compressed: false }),
            },
            Side::Client(compression) => {
                accept(headers);
                // One that has an encoding already was compressed by tonic.
                let compress =
                    compression == Compression::SnappyBlock && !headers.contains_key(GRPC_ENCODING);
                let direction = compress.then(|| {
                    headers.insert(GRPC_ENCODING, SNAPPY_BLOCK);
                    headers.remove(header::CONTENT_LENGTH);
                    Direction::Compress
                });
                (direction, Answer::Receive(self.layer.decompress()))
            }
        };
        SnappyFuture { inner: self.inner.call(request.map(|body| reframe(body, direction))), answer }
    }
}

/// What to do with an answer.
#[derive(Clone, Copy, Debug)]
enum Answer {
    Send { compressed: bool },
    Receive(Direction),
}

pin_project! {
    /// The future of [`Snappy`].
    pub struct SnappyFuture<F> {
        #[pin]
        inner: F,
        answer: Answer,
    }
}

impl<F, R, E> Future for SnappyFuture<F>
where
    F: Future<Output = Result<Response<R>, E>>,
    R: http_body::Body<Data = Bytes> + Send + 'static,
    R::Error: Into<BoxError>,
{
    type Output = Result<Response<Body>, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let mut response = ready!(this.inner.poll(cx))?;
        let headers = response.headers_mut();
        let direction = match *this.answer {
            Answer::Send { compressed } => {
                accept(headers);
                // An answer that is an error from the start has no messages, one with an encoding has its own.
                let compress = compressed
                    && !headers.contains_key("grpc-status")
                    && !headers.contains_key(GRPC_ENCODING);
                compress.then(|| {
                    headers.insert(GRPC_ENCODING, SNAPPY_BLOCK);
                    headers.remove(header::CONTENT_LENGTH);
                    Direction::Compress
                })
            }
            Answer::Receive(decompress) => take_encoding(headers).then_some(decompress),
        };
        Poll::Ready(Ok(response.map(|body| reframe(body, direction))))
    }
}

fn reframe<B>(body: B, direction: Option<Direction>) -> Body
where
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    match direction {
        Some(direction) => Body::new(Reframed::new(body, direction)),
        None => Body::new(body),
    }
}

/// Whether messages are `snappy-block`; then tonic shall not know.
fn take_encoding(headers: &mut HeaderMap) -> bool {
    let found = headers.get(GRPC_ENCODING) == Some(&SNAPPY_BLOCK);
    if found {
        headers.remove(GRPC_ENCODING);
        headers.remove(header::CONTENT_LENGTH);
    }
    found
}

/// Announces that we understand `snappy-block`, besides what tonic says it does.
fn accept(headers: &mut HeaderMap) {
    let accepted = match headers.get(GRPC_ACCEPT_ENCODING).and_then(|others| others.to_str().ok()) {
        Some(others) => HeaderValue::try_from(format!("{others},{ENCODING}")).unwrap_or(SNAPPY_BLOCK),
        None => SNAPPY_BLOCK,
    };
    headers.insert(GRPC_ACCEPT_ENCODING, accepted);
}
