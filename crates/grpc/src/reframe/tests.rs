use std::collections::VecDeque;

use futures::FutureExt as _;
use http_body_util::BodyExt as _;
use proptest::prelude::*;

use super::*;

const MAX: Direction = Direction::Decompress { max_message_bytes: 1 << 20 };

fn framed(flag: u8, payload: &[u8]) -> Vec<u8> {
    let len = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&[flag], &len[..], payload].concat()
}

/// A body of the given pieces, each ready at once.
struct Pieces(VecDeque<Bytes>);

impl http_body::Body for Pieces {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        Poll::Ready(self.0.pop_front().map(|piece| Ok(Frame::data(piece))))
    }
}

fn pieces(bytes: &[u8], size: usize) -> Pieces {
    Pieces(bytes.chunks(size.max(1)).map(Bytes::copy_from_slice).collect())
}

fn run(bytes: &[u8], size: usize, direction: Direction) -> Result<Vec<u8>, Status> {
    let body = Reframed::new(pieces(bytes, size), direction);
    body.collect().now_or_never().unwrap().map(|body| body.to_bytes().to_vec())
}

#[test]
fn a_compressed_message_is_a_snappy_block_behind_flag_one() {
    let payload = [7; 1000];
    let out = run(&framed(0, &payload), 10_000, Direction::Compress).unwrap();
    assert_eq!(out[0], 1);
    assert_eq!(out[1..5], u32::try_from(out.len() - 5).unwrap().to_be_bytes());
    assert_eq!(snap::raw::Decoder::new().decompress_vec(&out[5..]).unwrap(), payload);
}

#[test]
fn a_message_that_does_not_shrink_stays_as_it_is() {
    for payload in [&b""[..], b"abc"] {
        let message = framed(0, payload);
        assert_eq!(run(&message, 3, Direction::Compress).unwrap(), message);
    }
}

#[test]
fn a_compressed_empty_message_is_empty() {
    // Old Go peers compress even these.
    assert_eq!(run(&framed(1, &[0]), 6, MAX).unwrap(), framed(0, b""));
}

#[test]
fn an_oversized_message_is_refused_by_its_claim_alone() {
    let max = Direction::Decompress { max_message_bytes: 100 };
    let header = [&[0][..], &101_u32.to_be_bytes()].concat();
    assert_eq!(run(&header, 5, max).unwrap_err().code(), tonic::Code::ResourceExhausted);
    let claim = framed(1, &[101, 0, 0]);
    assert_eq!(run(&claim, 5, max).unwrap_err().code(), tonic::Code::ResourceExhausted);
    let within = framed(0, &[1; 100]);
    assert_eq!(run(&within, 5, max).unwrap(), within);
}

#[test]
fn a_claim_no_block_of_that_size_can_keep_is_refused() {
    // One MiB out of six bytes.
    let error = run(&framed(1, &[0x80, 0x80, 0x40, 0, 0, 0]), 100, MAX).unwrap_err();
    assert!(error.message().contains("claims"), "{error}");
}

#[test]
fn the_best_compressible_message_passes() {
    let payload = vec![0; 1 << 20];
    let compressed = run(&framed(0, &payload), 1 << 21, Direction::Compress).unwrap();
    assert!(compressed.len() * 21 < payload.len(), "not near the bound: {}", compressed.len());
    assert_eq!(run(&compressed, 1000, MAX).unwrap(), framed(0, &payload));
}

#[test]
fn a_stream_cut_inside_a_message_is_an_error() {
    let whole = framed(1, &[0]);
    for cut in 1..whole.len() {
        assert!(run(&whole[..cut], 2, MAX).is_err(), "{cut}");
    }
}

#[test]
fn an_unknown_flag_is_an_error() {
    assert!(run(&framed(2, b""), 5, MAX).is_err());
}

proptest! {
    #[test]
    fn messages_survive_both_directions_in_any_pieces(
        messages in prop::collection::vec(prop::collection::vec(0..4_u8, 0..300), 0..5),
        first in 1..700_usize,
        second in 1..700_usize,
    ) {
        let plain: Vec<u8> = messages.iter().flat_map(|message| framed(0, message)).collect();
        let compressed = run(&plain, first, Direction::Compress).unwrap();
        prop_assert_eq!(run(&compressed, second, MAX).unwrap(), plain);
    }

    #[test]
    fn arbitrary_bytes_end_in_messages_or_an_error(
        bytes in prop::collection::vec(any::<u8>(), 0..300),
        size in 1..100_usize,
    ) {
        let _ = run(&bytes, size, MAX);
        let _ = run(&framed(1, &bytes), size, MAX);
        let _ = run(&bytes, size, Direction::Compress);
    }
}
