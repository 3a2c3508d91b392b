//! Frames that are packed: they come back, and those that are made up take no more room than allowed.

use lz4_flex::block;

use super::*;

/// A frame that says this is a block of so many bytes.
fn packed(claimed: usize, block: &[u8]) -> Bytes {
    let claimed = u32::try_from(claimed).unwrap().to_le_bytes();
    [&[PACKED][..], &claimed, block].concat().into()
}

/// Registers that have much in common.
fn alike(num: usize) -> Frame {
    let records: Vec<Owned> = (0..num)
        .map(|number| Owned::new("ring", &format!("ingester-{number}"), b"10.0.0.1:9095 zone-a ACTIVE"))
        .collect();
    Frame::Records(list(&records, MAX_FRAME_BYTES).0)
}

fn read_one(mut stream: &[u8]) -> Result<Option<Frame>, WireError> {
    let mut reader = FrameReader::default();
    let frame = reader.next_frame(&mut stream)?;
    assert!(stream.is_empty());
    Ok(frame)
}

#[test]
fn what_repeats_itself_is_sent_shorter() {
    let frame = alike(1_000);
    let (whole, packed) = (frame.encode().unwrap(), frame.encode_packed().unwrap());
    assert!(packed.len() < whole.len() / 3, "{} of {}", packed.len(), whole.len());
    let block = packed[9..].to_vec();
    let expected = self::packed(whole.len() - 4, &block);
    assert_eq!((packed.len() - 4, &packed[4..]), (expected.len(), &expected[..]));
    assert_eq!(packed[..4], u32::try_from(expected.len()).unwrap().to_le_bytes());
    assert_eq!(read_one(&packed), Ok(Some(frame)));
}

#[test]
fn what_is_short_or_has_no_pattern_is_sent_as_it_is() {
    let mut noise = 1_u64;
    let body: Vec<u8> = (0..10_000)
        .map(|_| {
            noise = noise.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (noise >> 56) as u8
        })
        .collect();
    let (list, _) = list(&[Owned::new("ring", "id", &body)], MAX_FRAME_BYTES);
    let short = Frame::Error { code: 1, text: SmolStr::new("x".repeat(500)) };
    for frame in [Frame::Records(list), short, Frame::Ping { nonce: 1 }] {
        assert_eq!(frame.encode_packed(), frame.encode());
    }
}

#[test]
fn what_no_reader_would_take_is_not_packed_either() {
    // Packed it would be short.
    let entries = vec![EntryId::new("0123456789abcdef", 0); MAX_FRAME_ITEMS];
    let fetch = Frame::Fetch { key: "key".into(), entries };
    assert!(matches!(fetch.encode_packed(), Err(Fault::TooLong { max: MAX_FRAME_BYTES, .. })));
}

#[test]
fn more_is_claimed_than_there_may_be() {
    // All that fits into a frame, which turns into what it says and is more than allowed.
    let bomb = vec![0; MAX_UNPACKED_BYTES + 1];
    let block = block::compress(&bomb);
    assert!(block.len() < MAX_FRAME_BYTES);
    let too_long = Fault::TooLong { len: bomb.len() as u64, max: MAX_UNPACKED_BYTES };
    assert_fault(decode(&packed(bomb.len(), &block)), 5, too_long);
    // Says less than it turns into, or more.
    assert_fault(decode(&packed(MAX_UNPACKED_BYTES, &block)), 9, Fault::Packed);
    assert_fault(decode(&packed(1_000, &block)), 9, Fault::Packed);
    assert_fault(decode(&packed(1_000, &block::compress(&[0; 900]))), 9, Fault::Packed);
    // A block that short cannot turn into as much.
    assert_fault(decode(&packed(MAX_UNPACKED_BYTES, &[0; 100])), 9, Fault::Packed);
    assert_fault(decode(&packed(1, &[])), 9, Fault::Packed);
    let largest = Fault::TooLong { len: u32::MAX.into(), max: MAX_UNPACKED_BYTES };
    assert_fault(decode(&packed(u32::MAX as usize, &[0; 100])), 5, largest);
}

#[test]
fn as_much_as_may_be_is_unpacked() {
    let body = [&[99_u8][..], &vec![0; MAX_UNPACKED_BYTES - 1]].concat();
    assert_fault(decode(&packed(body.len(), &block::compress(&body))), 4, Fault::Type(99));
}

#[test]
fn what_is_packed_twice_is_none() {
    let once = packed(9, &block::compress(&payload(&Frame::Ping { nonce: 1 })));
    assert_eq!(decode(&once), Ok(Frame::Ping { nonce: 1 }));
    assert_fault(decode(&packed(once.len(), &block::compress(&once))), 4, Fault::Nested);
    // Nothing in it is none either.
    assert_fault(decode(&packed(0, &block::compress(&[]))), 4, Fault::Short);
}

#[test]
fn a_frame_that_cannot_be_unpacked_does_not_hide_the_next() {
    let (bad, done) = (packed(700, &[0xff; 20]), Frame::Done { moved: 1 });
    let length = u32::try_from(bad.len()).unwrap().to_le_bytes();
    let stream = [&length[..], &bad[..], &done.encode().unwrap()[..]].concat();
    let (mut reader, mut input) = (FrameReader::default(), &stream[..]);
    assert_fault(reader.next_frame(&mut input), 9, Fault::Packed);
    assert_eq!(reader.next_frame(&mut input), Ok(Some(done)));
}

#[test]
fn a_packed_frame_that_is_cut_is_none() {
    let frame = alike(40);
    let whole = frame.encode_packed().unwrap().slice(4..);
    assert_eq!((whole[0], decode(&whole)), (PACKED, Ok(frame)));
    for end in 0..whole.len() {
        let fault = decode(&whole.slice(..end)).unwrap_err().fault;
        assert_eq!(fault, if end < 5 { Fault::Short } else { Fault::Packed }, "{end}");
    }
}

proptest! {
    #[test]
    fn packed_frames_come_back_in_whatever_pieces_they_arrive(
        frames in prop::collection::vec((frame(), 0..60_usize), 0..4),
        size in 1..200_usize,
    ) {
        let frames: Vec<Frame> = frames.into_iter().flat_map(|(frame, num)| [frame, alike(num)]).collect();
        let stream: Vec<u8> = frames.iter().flat_map(|frame| frame.encode_packed().unwrap()).collect();
        let mut reader = FrameReader::default();
        let mut read = Vec::new();
        for mut piece in stream.chunks(size) {
            while let Some(frame) = reader.next_frame(&mut piece).unwrap() {
                read.push(frame);
            }
        }
        prop_assert_eq!(reader.finish(), Ok(()));
        prop_assert_eq!(read, frames);
    }

    #[test]
    fn a_damaged_packed_frame_ends_in_a_frame_or_an_error(
        num in 20..60_usize,
        damages in prop::collection::vec((any::<Index>(), any::<u8>()), 1..4),
    ) {
        let mut damaged = alike(num).encode_packed().unwrap()[4..].to_vec();
        for (at, byte) in damages {
            let at = at.index(damaged.len());
            damaged[at] = byte;
        }
        let _ = Frame::decode(&damaged.into());
    }

    #[test]
    fn arbitrary_blocks_end_in_frames_or_an_error(claimed in 0..5_000_usize, block in bytes(0..300)) {
        let _ = Frame::decode(&packed(claimed, &block));
    }
}
