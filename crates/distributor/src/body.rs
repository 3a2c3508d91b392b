//! Reading a compressed request body without ever holding more than was allowed.

use axum::body::Body;
use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use http_body_util::BodyExt as _;

/// Why a body was refused; decides the status and the label `reason` of `ringkit_rejected_requests_total`.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("received message larger than max ({size} vs {max})")]
    TooLarge { size: u64, max: usize },
    #[error("the body ended early: {0}")]
    Interrupted(axum::Error),
    #[error("the body is not a snappy block: {0}")]
    Snappy(snap::Error),
    #[error("the body is not a snappy block: {claimed} bytes cannot come out of {compressed}")]
    Lies { claimed: usize, compressed: usize },
}

impl Error {
    pub(crate) fn status(&self) -> u16 {
        match self {
            Self::TooLarge { .. } => 413,
            Self::Interrupted(_) | Self::Snappy(_) | Self::Lies { .. } => 400,
        }
    }

    pub(crate) fn reason(&self) -> &'static str {
        match self {
            Self::TooLarge { .. } => "too_large",
            Self::Interrupted(_) => "interrupted",
            Self::Snappy(_) | Self::Lies { .. } => "snappy",
        }
    }
}

/// Reads a body of at most `max` bytes; more is refused as soon as it shows, from `Content-Length` if it is there.
///
/// # Errors
///
/// [`Error::TooLarge`], or [`Error::Interrupted`] if the client went away.
pub(crate) async fn read(headers: &HeaderMap, mut body: Body, max: usize) -> Result<Bytes, Error> {
    let length =
        headers.get(http::header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    if let Some(size) = length.filter(|size| *size > max as u64) {
        return Err(Error::TooLarge { size, max });
    }
    // The first frame of a small request is often all of it: then nothing is copied.
    let mut first = Bytes::new();
    let mut rest = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame.map_err(Error::Interrupted)?.into_data() else { continue };
        let size = first.len() + rest.len() + data.len();
        if size > max {
            return Err(Error::TooLarge { size: size as u64, max });
        }
        if first.is_empty() && rest.is_empty() {
            first = data;
            continue;
        }
        if rest.is_empty() {
            // The claimed length is at most `max`, and is not believed beyond 1 MiB before the bytes are there.
            let expected = length.map_or(0, |length| usize::try_from(length).unwrap_or(max).min(1 << 20));
            rest.reserve(expected.max(size));
            rest.extend_from_slice(&first);
            first = Bytes::new();
        }
        rest.extend_from_slice(&data);
    }
    Ok(if rest.is_empty() { first } else { rest.freeze() })
}

/// Decompresses a snappy block (not the framed format) of at most `max` bytes.
///
/// # Errors
///
/// [`Error::TooLarge`] by the claimed length, and [`Error::Lies`] if that length is beyond what the format can reach:
/// both before anything is allocated. [`Error::Snappy`] otherwise.
pub(crate) fn decompress(compressed: &[u8], max: usize) -> Result<Bytes, Error> {
    // The densest element of the format is a copy of 64 bytes in three.
    const MAX_RATIO: usize = 22;
    let claimed = snap::raw::decompress_len(compressed).map_err(Error::Snappy)?;
    if claimed > max {
        return Err(Error::TooLarge { size: claimed as u64, max });
    }
    if claimed > compressed.len().saturating_mul(MAX_RATIO) {
        return Err(Error::Lies { claimed, compressed: compressed.len() });
    }
    let bytes = snap::raw::Decoder::new().decompress_vec(compressed).map_err(Error::Snappy)?;
    Ok(bytes.into())
}

#[cfg(test)]
mod tests {
    use futures::stream;
    use proptest::prelude::*;

    use super::*;

    fn chunked(chunks: &[&'static [u8]]) -> Body {
        let chunks: Vec<Result<Bytes, std::io::Error>> =
            chunks.iter().map(|c| Ok(Bytes::from_static(c))).collect();
        Body::from_stream(stream::iter(chunks))
    }

    #[tokio::test]
    async fn bodies_arrive_whole_however_they_are_cut() {
        for chunks in [&[&b"abcdef"[..]][..], &[b"ab", b"", b"cd", b"ef"], &[b"", b"abc", b"def"]] {
            assert_eq!(read(&HeaderMap::new(), chunked(chunks), 6).await.unwrap(), "abcdef");
        }
    }

    #[tokio::test]
    async fn too_much_is_refused_at_the_first_sign() {
        let error = read(&HeaderMap::new(), chunked(&[b"abc", b"def"]), 5).await.unwrap_err();
        assert_eq!(error.status(), 413);
        let headers = HeaderMap::from_iter([(http::header::CONTENT_LENGTH, http::HeaderValue::from(6))]);
        let endless = Body::from_stream(stream::pending::<Result<Bytes, std::io::Error>>());
        assert_eq!(read(&headers, endless, 5).await.unwrap_err().status(), 413);
    }

    #[test]
    fn lengths_are_checked_before_memory_is_taken() {
        let over = snap::raw::Encoder::new().compress_vec(&[7; 101]).unwrap();
        assert_eq!(decompress(&over, 100).unwrap_err().status(), 413);
        assert_eq!(decompress(&over, 101).unwrap().len(), 101);
        // Claims 100 000 bytes and holds none.
        let lie = [0xa0, 0x8d, 0x06];
        assert!(matches!(decompress(&lie, 1 << 20), Err(Error::Lies { claimed: 100_000, .. })));
        for broken in [&b""[..], b"\xff\xff\xff\xff\xff\xff", &over[..over.len() - 1]] {
            assert_eq!(decompress(broken, 1 << 20).unwrap_err().reason(), "snappy");
        }
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
            let _ = decompress(&bytes, 1 << 16);
        }

        #[test]
        fn whatever_was_compressed_comes_back(byte in any::<u8>(), len in 0usize..300_000) {
            let bytes = vec![byte; len];
            let compressed = snap::raw::Encoder::new().compress_vec(&bytes).unwrap();
            prop_assert_eq!(decompress(&compressed, len).unwrap(), bytes);
        }
    }
}
