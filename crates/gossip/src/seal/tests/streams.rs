//! Frames open in order, in the stream and for whom they were sealed.

use super::*;
use crate::wire::{Fault, MAX_FRAME_BYTES};

#[test]
fn frames_come_back_from_pieces_of_any_size() {
    let keys = keyring(&[1, 2]);
    let stream = sealed_frames(&mut stream_sealer(&keys), 5).concat();
    let expected: Vec<_> = (0..5).map(ping).collect();
    for size in 1..=stream.len() {
        let mut opener = stream_opener(&keys);
        let mut frames = Vec::new();
        for piece in stream.chunks(size) {
            let (read, result) = read(&mut opener, piece);
            assert_eq!(result, Ok(()));
            frames.extend(read);
        }
        assert_eq!(frames, expected);
        assert_eq!(opener.finish(), Ok(()));
    }
}

#[test]
fn frames_open_in_order_and_nothing_does_after_one_that_does_not() {
    let keys = keyring(&[1]);
    let frames = sealed_frames(&mut stream_sealer(&keys), 3);
    let forged = Err(OpenError::Forged);
    let cases: [(&[usize], usize); 4] = [(&[0, 0], 1), (&[1], 0), (&[0, 2, 1], 1), (&[0, 1, 0], 2)];
    for (order, num_read) in cases {
        let stream: Vec<u8> = order.iter().flat_map(|number| frames[*number].clone()).collect();
        let mut opener = stream_opener(&keys);
        let (read_before, result) = read(&mut opener, &stream);
        assert_eq!((read_before.len(), result), (num_read, forged), "{order:?}");
        assert_eq!(read(&mut opener, &frames[num_read]), (vec![], forged));
        assert_eq!(opener.finish(), forged);
    }
}

#[test]
fn frames_open_only_in_their_stream_and_direction() {
    let keys = keyring(&[1]);
    let frame = sealed_frames(&mut stream_sealer(&keys), 1).concat();
    for (session, stream, direction, opens) in [
        (SESSION, STREAM, Direction::Forth, true),
        (SESSION, STREAM, BACK, false),
        (SESSION, STREAM + 1, Direction::Forth, false),
        (SESSION + 1, STREAM, Direction::Forth, false),
    ] {
        let mut opener = StreamOpener::new(&keys, session, stream, direction);
        assert_eq!(read(&mut opener, &frame).1.is_ok(), opens, "{session} {stream} {direction:?}");
    }
    let unknown = OpenError::UnknownKey { id: key(1).id() };
    assert_eq!(read(&mut stream_opener(&keyring(&[2, 3])), &frame), (vec![], Err(unknown)));
}

/// Otherwise what was answered once could be played again to whoever asks later.
#[test]
fn answers_open_only_for_who_asked() {
    let keys = keyring(&[1]);
    let back = |session, stream| Direction::Back { session, stream };
    let mut sealer = StreamSealer::try_new(&keys, SESSION, STREAM, back(1, 2)).unwrap();
    let frame = sealed_frames(&mut sealer, 1).concat();
    for (direction, opens) in [
        (back(1, 2), true),
        (back(1, 3), false),
        (back(2, 2), false),
        (back(SESSION, STREAM), false),
        (Direction::Forth, false),
    ] {
        let mut opener = StreamOpener::new(&keys, SESSION, STREAM, direction);
        assert_eq!(read(&mut opener, &frame).1.is_ok(), opens, "{direction:?}");
    }
}

/// A frame with so many bytes behind its length.
fn frame_of(len: usize) -> Vec<u8> {
    let mut frame = u32::try_from(len).unwrap().to_le_bytes().to_vec();
    frame.resize(4 + len, 7);
    frame
}

#[test]
fn the_longest_frame_passes_and_longer_ones_do_not() {
    let keys = keyring(&[1]);
    let longest = frame_of(MAX_FRAME_BYTES);
    let sealed = stream_sealer(&keys).seal_frame(&longest).unwrap();
    let body = stream_opener(&keys).next_frame(&mut &sealed[..]).unwrap().unwrap();
    assert_eq!(body, longest[4..]);

    let longer = frame_of(MAX_FRAME_BYTES + 1);
    let one = ping(0).encode().unwrap();
    let two = [&one[..], &one[..]].concat();
    for wrong in [&longer[..], &two, &one[..one.len() - 1], &one[..2], &[]] {
        assert!(matches!(stream_sealer(&keys).seal_frame(wrong), Err(SealError::Wire(_))));
    }
    let len = (u32::from_le_bytes([sealed[0], sealed[1], sealed[2], sealed[3]]) + 1).to_le_bytes();
    let Err(OpenError::Wire(error)) = stream_opener(&keys).next_frame(&mut &len[..]) else { panic!() };
    assert!(matches!(error.fault, Fault::TooLong { .. }));
}

#[test]
fn cut_frames_are_missed() {
    let keys = keyring(&[1]);
    let frame = sealed_frames(&mut stream_sealer(&keys), 1).concat();
    for end in 1..frame.len() {
        let mut opener = stream_opener(&keys);
        assert_eq!(read(&mut opener, &frame[..end]), (vec![], Ok(())));
        assert_eq!(opener.finish(), Err(OpenError::Short));
    }
    for len in 0..=TAG_BYTES as u32 {
        let result = stream_opener(&keys).next_frame(&mut &len.to_le_bytes()[..]);
        assert_eq!(result, Err(OpenError::Short));
    }
}
