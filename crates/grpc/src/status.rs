//! HTTP status codes in gRPC errors, as Cortex's services exchange them.
//!
//! A Go service that wants to say 429 puts 429 into `grpc-status`, and again into `grpc-status-details-bin` together
//! with an `httpgrpc.HTTPResponse`. A Go client that sees the two disagree reports an internal error instead, which
//! would make every 400 look worth a retry. tonic knows no code above 16. So here the details are the truth: on the way
//! out [`HttpCodeLayer`] copies their code into `grpc-status`, on the way in [`http_code`] reads it from them. No
//! metadata key of ours travels, so there is none to forge, and a status received from one peer can be passed on
//! to another.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use base64::Engine as _;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response};
use http_body::{Frame, SizeHint};
use pin_project_lite::pin_project;
use prost::Message as _;
use prost::bytes::Buf;
use ringkit_proto::{httpgrpc, rpc};
use tonic::body::Body;
use tonic::{Code, Status};
use tower::{BoxError, Layer, Service};

/// The longest message carried, in bytes. It travels three times, and peers refuse header lists over 16 KiB:
/// the answer would be lost, and with it the code.
pub const MAX_MESSAGE_BYTES: usize = 2048;

const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
const GRPC_DETAILS: HeaderName = HeaderName::from_static("grpc-status-details-bin");
const TYPE_URL: &str = "type.googleapis.com/httpgrpc.HTTPResponse";

/// As in tonic, which panics on what this refuses.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &base64::alphabet::STANDARD,
    GeneralPurposeConfig::new()
        .with_encode_padding(false)
        .with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// An error with an HTTP status code. Messages over [`MAX_MESSAGE_BYTES`] are cut.
///
/// Needs [`HttpCodeLayer`] on the server, or Go peers will not see the code.
pub fn http_status(code: u16, message: impl Into<String>) -> Status {
    let mut message = message.into();
    if message.len() > MAX_MESSAGE_BYTES {
        const MARK: &str = "…";
        let fits = (0..=MAX_MESSAGE_BYTES - MARK.len()).rev().find(|end| message.is_char_boundary(*end));
        message.truncate(fits.unwrap_or(0));
        message.push_str(MARK);
    }
    let details = encode_details(code, &message);
    Status::with_details(Code::Unknown, message, details)
}

/// The HTTP status code (100 to 599) of an error, if it carries one: made by [`http_status`] here, by a peer of ours,
/// or by a Go peer.
pub fn http_code(status: &Status) -> Option<u16> {
    let details = rpc::Status::decode(status.details()).ok()?;
    let any = details.details.into_iter().find(|any| any.type_url.ends_with("/httpgrpc.HTTPResponse"))?;
    let response = httpgrpc::HttpResponse::decode(any.value.as_slice()).ok()?;
    valid_code(response.code)
}

fn valid_code(code: i32) -> Option<u16> {
    u16::try_from(code).ok().filter(|code| (100..600).contains(code))
}

fn encode_details(code: u16, message: &str) -> Bytes {
    let response = httpgrpc::HttpResponse {
        code: code.into(),
        headers: Vec::new(),
        body: Bytes::from(message.to_owned()),
    };
    let any = prost_types::Any { type_url: TYPE_URL.to_owned(), value: response.encode_to_vec() };
    let status = rpc::Status { code: code.into(), message: message.to_owned(), details: vec![any] };
    status.encode_to_vec().into()
}

/// Server side: makes `grpc-status` agree with the details of each error that has any.
///
/// Works on answers that are an error from the start and on errors behind a stream.
#[derive(Clone, Copy, Debug, Default)]
pub struct HttpCodeLayer;

impl<S> Layer<S> for HttpCodeLayer {
    type Service = MapStatus<S>;

    fn layer(&self, inner: S) -> MapStatus<S> {
        MapStatus { inner, map: outgoing }
    }
}

/// Client side: keeps HTTP codes that come without details, and details tonic would panic on away from it.
#[derive(Clone, Copy, Debug, Default)]
pub struct PeerStatusLayer;

impl<S> Layer<S> for PeerStatusLayer {
    type Service = MapStatus<S>;

    fn layer(&self, inner: S) -> MapStatus<S> {
        MapStatus { inner, map: incoming }
    }
}

fn outgoing(headers: &mut HeaderMap) {
    let Some(details) = headers.get(GRPC_DETAILS) else { return };
    let code = BASE64.decode(details).ok().and_then(|bytes| rpc::Status::decode(bytes.as_slice()).ok());
    // 0 would turn the error into a success.
    if let Some(code) = code.and_then(|details| u16::try_from(details.code).ok()).filter(|code| *code != 0) {
        headers.insert(GRPC_STATUS, HeaderValue::from(code));
    }
}

fn incoming(headers: &mut HeaderMap) {
    if let Some(details) = headers.get(GRPC_DETAILS) {
        if BASE64.decode(details).is_err() {
            headers.remove(GRPC_DETAILS);
        }
        return;
    }
    let code = headers.get(GRPC_STATUS).and_then(|code| code.to_str().ok()?.parse().ok());
    if let Some(code) = code.and_then(valid_code)
        && let Ok(details) = HeaderValue::try_from(BASE64.encode(encode_details(code, "")))
    {
        headers.insert(GRPC_DETAILS, details);
    }
}

/// The service of [`HttpCodeLayer`] and [`PeerStatusLayer`].
#[derive(Clone, Debug)]
pub struct MapStatus<S> {
    inner: S,
    map: fn(&mut HeaderMap),
}

impl<S, Q, R> Service<Request<Q>> for MapStatus<S>
where
    S: Service<Request<Q>, Response = Response<R>>,
    R: http_body::Body<Data = Bytes> + Send + 'static,
    R::Error: Into<BoxError>,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = MapStatusFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Q>) -> Self::Future {
        MapStatusFuture { inner: self.inner.call(request), map: self.map }
    }
}

pin_project! {
    /// The future of [`MapStatus`].
    pub struct MapStatusFuture<F> {
        #[pin]
        inner: F,
        map: fn(&mut HeaderMap),
    }
}

impl<F, R, E> Future for MapStatusFuture<F>
where
    F: Future<Output = Result<Response<R>, E>>,
    R: http_body::Body<Data = Bytes> + Send + 'static,
    R::Error: Into<BoxError>,
{
    type Output = Result<Response<Body>, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let map = *this.map;
        let mut response = ready!(this.inner.poll(cx))?;
        map(response.headers_mut());
        Poll::Ready(Ok(response.map(|inner| Body::new(MapTrailers { inner, map }))))
    }
}

pin_project! {
    /// A body whose trailers are changed when they come.
    struct MapTrailers<B> {
        #[pin]
        inner: B,
        map: fn(&mut HeaderMap),
    }
}

impl<B: http_body::Body<Data: Buf>> http_body::Body for MapTrailers<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        let this = self.project();
        let mut frame = ready!(this.inner.poll_frame(cx));
        if let Some(Ok(frame)) = &mut frame
            && let Some(trailers) = frame.trailers_mut()
        {
            (this.map)(trailers);
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a peer sees of `status`, after `map`.
    fn headers(status: &Status, map: fn(&mut HeaderMap)) -> HeaderMap {
        let mut headers = HeaderMap::new();
        status.add_header(&mut headers).unwrap();
        map(&mut headers);
        headers
    }

    #[test]
    fn the_code_a_go_peer_sees_agrees_with_the_details() {
        for code in [400, 422, 429, 500, 503] {
            let headers = headers(&http_status(code, "no: ü"), outgoing);
            assert_eq!(headers[GRPC_STATUS], code.to_string());
            let details = BASE64.decode(&headers[GRPC_DETAILS]).unwrap();
            let details = rpc::Status::decode(details.as_slice()).unwrap();
            assert_eq!((details.code, details.message.as_str()), (i32::from(code), "no: ü"));
            assert_eq!(details.details[0].type_url, TYPE_URL);
            let response = httpgrpc::HttpResponse::decode(details.details[0].value.as_slice()).unwrap();
            assert_eq!((response.code, &response.body[..]), (i32::from(code), "no: ü".as_bytes()));
        }
    }

    #[test]
    fn errors_without_details_keep_their_code() {
        let headers = headers(&Status::not_found("gone"), outgoing);
        assert_eq!(headers[GRPC_STATUS], "5");
    }

    #[test]
    fn details_cannot_turn_an_error_into_a_success() {
        let details = rpc::Status::default().encode_to_vec();
        let status =
            Status::with_details(Code::Internal, "broken", [details.as_slice(), &[0x08, 0]].concat().into());
        assert_eq!(headers(&status, outgoing)[GRPC_STATUS], "13");
    }

    #[test]
    fn a_code_above_16_without_details_is_kept() {
        let mut headers = HeaderMap::new();
        headers.insert(GRPC_STATUS, HeaderValue::from(429));
        headers.insert("grpc-message", HeaderValue::from_static("slow%20down"));
        incoming(&mut headers);
        let status = Status::from_header_map(&headers).unwrap();
        assert_eq!((http_code(&status), status.message()), (Some(429), "slow down"));
    }

    #[test]
    fn details_that_are_no_base64_are_dropped_before_tonic_sees_them() {
        let mut headers = HeaderMap::new();
        headers.insert(GRPC_STATUS, HeaderValue::from(2));
        headers.insert(GRPC_DETAILS, HeaderValue::from_static("not base64!"));
        incoming(&mut headers);
        assert_eq!(Status::from_header_map(&headers).unwrap().details(), b"");
    }

    #[test]
    fn a_code_is_only_read_from_an_http_response_in_range() {
        assert_eq!(http_code(&Status::internal("x")), None);
        assert_eq!(http_code(&Status::with_details(Code::Unknown, "x", Bytes::from_static(b"junk"))), None);
        assert_eq!(http_code(&http_status(99, "x")), None);
        assert_eq!(http_code(&http_status(599, "x")), Some(599));
    }

    #[test]
    fn a_long_message_is_cut_so_that_all_copies_fit_into_the_headers_a_peer_accepts() {
        let status = http_status(400, "ü".repeat(10_000));
        assert!(status.message().len() <= MAX_MESSAGE_BYTES && status.message().ends_with("ü…"));
        let size: usize = headers(&status, outgoing)
            .iter()
            .map(|(name, value)| name.as_str().len() + value.len() + 32)
            .sum();
        assert!(size < 15 << 10, "{size}");
    }
}
