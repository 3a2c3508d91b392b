//! Frames of streams that are none, or at the edge of it.

use super::*;

#[test]
fn frames_that_no_reader_would_take_are_not_written() {
    let key = SmolStr::new("key");
    let fetch = |entries| Frame::Fetch { key: key.clone(), entries };
    let long = SmolStr::new("x".repeat(MAX_KEY_BYTES + 1));
    let too_long = |len: usize, max| Fault::TooLong { len: len as u64, max };
    let many = |num, id: &str| fetch(vec![EntryId::new(id, 0); num]);
    let buckets = Frame::Buckets { key: key.clone(), buckets: vec![(1, 0), (1, 0)] };
    let beats = Frame::Beats { key: key.clone(), beats: vec![(1, Version::default()); 2] };
    for (frame, fault) in [
        (fetch(vec![EntryId::new("id", MAX_FACETS)]), Fault::Facet(MAX_FACETS)),
        (many(1, &long[..MAX_ID_BYTES + 1]), too_long(MAX_ID_BYTES + 1, MAX_ID_BYTES)),
        (many(MAX_FRAME_ITEMS + 1, ""), too_long(MAX_FRAME_ITEMS + 1, MAX_FRAME_ITEMS)),
        (many(MAX_FRAME_ITEMS, "0123456789abcdef"), too_long(5 + MAX_FRAME_ITEMS * 18, MAX_FRAME_BYTES)),
        (Frame::Fetch { key: long, entries: Vec::new() }, too_long(MAX_KEY_BYTES + 1, MAX_KEY_BYTES)),
        (buckets, Fault::Order),
        (beats, Fault::Order),
    ] {
        assert_eq!(frame.encode(), Err(fault));
    }
    let most = many(MAX_FRAME_ITEMS, "");
    assert_eq!(decode(&payload(&most)).unwrap(), most);
}

#[test]
fn frames_that_are_none_say_why() {
    let decode = |bytes: &[u8]| decode(&Bytes::copy_from_slice(bytes));
    assert_fault(decode(b""), 4, Fault::Short);
    for unknown in [0, 10, 15, 99] {
        assert_fault(decode(&[unknown]), 4, Fault::Type(unknown));
    }
    assert_fault(decode(&[2, 0, 0]), 5, Fault::Short);
    assert_fault(decode(&[11, 0, 0, 0, 0, 0, 0, 0, 0, 0]), 13, Fault::Trailing);
    assert_fault(decode(&[4, 2]), 5, Fault::Bool(2));
    let bucket = |number: u8| [&[number][..], &[0; 8]].concat();
    let buckets = [vec![5, 0], bucket(3), bucket(3)].concat();
    assert_fault(decode(&buckets), 15, Fault::Order);
    let beat = [&[7_u8][..], &[0; 16]].concat();
    let beats = [vec![14, 0], beat.clone(), beat].concat();
    assert_fault(decode(&beats), 23, Fault::Order);
    let node = [&[3_u8][..], &[0; 24], &[9]].concat();
    assert_fault(decode(&node), 13, Fault::Address(9));
    let too_many = [&[9_u8, 0][..], &vec![0; 2 * MAX_FRAME_ITEMS + 2][..]].concat();
    let fault = Fault::TooLong { len: MAX_FRAME_ITEMS as u64 + 1, max: MAX_FRAME_ITEMS };
    assert_fault(decode(&too_many), 6 + 2 * MAX_FRAME_ITEMS, fault);
}

#[test]
fn a_long_reason_is_cut_between_characters() {
    let text = SmolStr::new(format!("a{}", "é".repeat(MAX_TEXT_BYTES)));
    let cut = SmolStr::new(&text[..MAX_TEXT_BYTES - 1]);
    let sent = decode(&payload(&Frame::Error { code: 1, text })).unwrap();
    assert_eq!(sent, Frame::Error { code: 1, text: cut });
}

#[test]
fn a_frame_may_be_as_long_as_the_limit_and_no_longer() {
    let mut writer = RecordsWriter::new(usize::MAX);
    let large = Owned::new("key", "id", &vec![1; MAX_BODY_BYTES - 100]);
    while writer.try_push(&large.record()) {}
    let small = Owned::new("key", "", b"");
    while writer.try_push(&small.record()) {}
    assert!(writer.len() < MAX_FRAME_BYTES && writer.len() > MAX_FRAME_BYTES - 40);
    let frame = Frame::Records(writer.finish());
    let stream = frame.encode().unwrap();
    let mut reader = FrameReader::default();
    assert_eq!(reader.next_frame(&mut &stream[..]).unwrap(), Some(frame));

    let too_long = u32::try_from(MAX_FRAME_BYTES + 1).unwrap().to_le_bytes();
    let fault = Fault::TooLong { len: MAX_FRAME_BYTES as u64 + 1, max: MAX_FRAME_BYTES };
    assert_fault(reader.next_frame(&mut &too_long[..]), 0, fault);
    // No frame can be found behind it.
    assert_fault(reader.next_frame(&mut &stream[..]), 0, fault);
}

#[test]
fn a_stream_that_ends_inside_a_frame_is_an_error() {
    let stream = Frame::Done { moved: 1 }.encode().unwrap();
    for end in 0..stream.len() {
        let mut reader = FrameReader::default();
        let mut input = &stream[..end];
        assert_eq!(reader.next_frame(&mut input), Ok(None));
        assert!(input.is_empty());
        assert_eq!(reader.finish().is_ok(), end == 0, "{end}");
    }
}

#[test]
fn a_frame_that_is_none_does_not_hide_the_next() {
    let done = Frame::Done { moved: 1 };
    let stream = [&[1_u8, 0, 0, 0, 99][..], &[0; 4], &done.encode().unwrap()[..]].concat();
    let mut reader = FrameReader::default();
    let mut input = &stream[..];
    assert_fault(reader.next_frame(&mut input), 4, Fault::Type(99));
    assert_fault(reader.next_frame(&mut input), 4, Fault::Short);
    assert_eq!(reader.next_frame(&mut input), Ok(Some(done)));
    assert_eq!(reader.next_frame(&mut input), Ok(None));
}
