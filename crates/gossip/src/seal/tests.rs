//! What is sealed opens once, with the key, for the cluster and in the place it was sealed for; all else does not.

mod streams;

use std::collections::BTreeSet;

use bytes::Bytes;
use proptest::prelude::*;
use proptest::sample::Index;
use ring::aead::{self, UnboundKey};

use super::sessions::Window;
use super::*;
use crate::wire::{Datagram, DatagramWriter, Frame, HEADER_BYTES, Header, Section};

const LABEL: &str = "production";
const SESSION: u64 = 0x1122_3344_5566_7788;
const STREAM: u64 = 3;
/// Answers to who opened a stream with other numbers than ours.
const BACK: Direction = Direction::Back { session: 0x99, stream: 7 };

/// Keys 2 and 8 have the same id.
fn key(number: u8) -> ClusterKey {
    ClusterKey::from_bytes(&[number; 32]).unwrap()
}

fn keys(numbers: &[u8]) -> Vec<ClusterKey> {
    numbers.iter().copied().map(key).collect()
}

fn keyring(numbers: &[u8]) -> Keyring {
    Keyring::new(keys(numbers))
}

fn sealer() -> Sealer {
    Sealer::new(SESSION, LABEL)
}

/// A datagram that is to be sealed, with this for the membership engine.
fn plain(text: &[u8]) -> Bytes {
    let mut writer = DatagramWriter::new(1_400 - TAG_BYTES, Header::new(7, SESSION).sealed(0, 0));
    assert!(writer.try_push_swim(text));
    writer.finish()
}

fn sealed(sealer: &mut Sealer, keyring: &Keyring, text: &[u8]) -> Vec<u8> {
    sealer.seal_datagram(keyring, plain(text)).unwrap()
}

/// What the membership engine gets.
fn text(datagram: Datagram<'_>) -> Vec<u8> {
    let sections: Vec<_> = datagram.sections.map(Result::unwrap).collect();
    let [Section::Swim(text)] = &sections[..] else { panic!("{sections:?}") };
    text.to_vec()
}

fn opened_for(
    label: &str,
    opener: &mut Opener,
    keyring: &Keyring,
    datagram: &[u8],
) -> Result<Vec<u8>, OpenError> {
    let mut datagram = datagram.to_vec();
    opener.open_datagram(keyring, label, &mut datagram).map(text)
}

fn opened(opener: &mut Opener, keyring: &Keyring, datagram: &[u8]) -> Result<Vec<u8>, OpenError> {
    opened_for(LABEL, opener, keyring, datagram)
}

fn ping(nonce: u64) -> Frame {
    Frame::Ping { nonce }
}

fn stream_sealer(keyring: &Keyring) -> StreamSealer {
    StreamSealer::try_new(keyring, SESSION, STREAM, Direction::Forth).unwrap()
}

fn stream_opener(keyring: &Keyring) -> StreamOpener {
    StreamOpener::new(keyring, SESSION, STREAM, Direction::Forth)
}

/// The first frames of a stream, each sealed.
fn sealed_frames(sealer: &mut StreamSealer, num: u64) -> Vec<Vec<u8>> {
    (0..num).map(|nonce| sealer.seal_frame(&ping(nonce).encode().unwrap()).unwrap()).collect()
}

/// All frames of `input`, and the error that ends them.
fn read(opener: &mut StreamOpener, mut input: &[u8]) -> (Vec<Frame>, Result<(), OpenError>) {
    let mut frames = Vec::new();
    loop {
        match opener.next_frame(&mut input) {
            Ok(Some(frame)) => frames.push(Frame::decode(&frame).unwrap()),
            Ok(None) => {
                assert!(input.is_empty());
                return (frames, Ok(()));
            }
            Err(error) => return (frames, Err(error)),
        }
    }
}

#[test]
fn keys_have_as_many_bytes_as_those_of_memberlist() {
    for len in 0..100 {
        let key = ClusterKey::from_bytes(&vec![1; len]);
        if [16, 24, 32].contains(&len) {
            let keys = Keyring::new(vec![key.unwrap()]);
            let datagram = sealed(&mut sealer(), &keys, b"text");
            assert_eq!(opened(&mut Opener::new(true), &keys, &datagram), Ok(b"text".to_vec()));
        } else {
            assert_eq!(key, Err(BadKey { len }));
        }
    }
}

/// HKDF with HMAC alone, for one block of output.
fn derived(secret: &[u8], info: &[u8]) -> LessSafeKey {
    let extracted = hmac_of(&SESSION.to_le_bytes(), secret);
    let expanded = hmac_of(extracted.as_ref(), &[info, &[1]].concat());
    LessSafeKey::new(UnboundKey::new(&aead::AES_256_GCM, expanded.as_ref()).unwrap())
}

fn hmac_of(key: &[u8], data: &[u8]) -> hmac::Tag {
    hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), data)
}

fn sealed_by_hand(key: &LessSafeKey, counter: u8, bound: &[u8], body: &[u8]) -> Vec<u8> {
    let mut nonce = [0; 12];
    nonce[0] = counter;
    let mut sealed = body.to_vec();
    let nonce = Nonce::assume_unique_for_key(nonce);
    key.seal_in_place_append_tag(nonce, Aad::from(bound), &mut sealed).unwrap();
    [bound, &sealed[..]].concat()
}

#[test]
fn sealed_bytes_are_as_documented() {
    let secret: [u8; 16] = std::array::from_fn(|number| number as u8);
    let keys = Keyring::new(vec![ClusterKey::from_bytes(&secret).unwrap()]);

    // The second one, so that the counter shows. These bytes were made with another implementation.
    let datagram: &[u8] = &[
        0x9b, 0x10, 0x01, 0x9e, 0x07, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x88, 0x77, 0x66, 0x55, 0x44,
        0x33, 0x22, 0x11, 0x01, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x74, 0xb7, 0xdb, 0xb2, 0x14, 0x17,
        0xed, 0x21, 0x68, 0x4e, 0xb8, 0x53, 0x23, 0x44, 0x11, 0xfb, 0x9b, 0x5b, 0x2a, 0x29, 0x9a, 0x6b, 0x88,
    ];
    let mut sealer = sealer();
    sealed(&mut sealer, &keys, b"first");
    assert_eq!(sealed(&mut sealer, &keys, b"ping"), datagram);
    let header = &datagram[..HEADER_BYTES];
    let bound = [header, LABEL.as_bytes()].concat();
    let by_hand = sealed_by_hand(&derived(&secret, b"datagram"), 1, &bound, b"\x01\x04\x00ping");
    assert_eq!(by_hand, [&bound[..], &datagram[HEADER_BYTES..]].concat());

    let frame: &[u8] = &[
        0x1a, 0x00, 0x00, 0x00, 0x9e, 0x9e, 0xeb, 0x9f, 0xaf, 0xb9, 0xbe, 0xe7, 0x2d, 0x51, 0x45, 0x69, 0x29,
        0xf5, 0x28, 0x71, 0x28, 0x9c, 0xdf, 0xa8, 0x25, 0x2a, 0xbf, 0xa1, 0xd5, 0x39,
    ];
    let mut sealer = StreamSealer::try_new(&keys, SESSION, STREAM, BACK).unwrap();
    sealed_frames(&mut sealer, 1);
    assert_eq!(sealer.seal_frame(&ping(5).encode().unwrap()).unwrap(), frame);
    let info = b"stream\x03\0\0\0\0\0\0\0\x01\x99\0\0\0\0\0\0\0\x07\0\0\0\0\0\0\0";
    let key = derived(&secret, info);
    assert_eq!(sealed_by_hand(&key, 1, &frame[..5], b"\x02\x05\0\0\0\0\0\0\0"), frame);
}

#[test]
fn keys_are_not_printed() {
    let secret = *b"an ascii secret of 32 bytes long";
    let cluster_key = ClusterKey::from_bytes(&secret).unwrap();
    let keys = Keyring::new(vec![cluster_key.clone()]);
    let (mut sealer, mut opener) = (sealer(), Opener::new(true));
    let datagram = sealed(&mut sealer, &keys, b"text");
    opened(&mut opener, &keys, &datagram).unwrap();
    let (stream_sealer, stream_opener) = (stream_sealer(&keys), stream_opener(&keys));
    let printed = format!(
        "{cluster_key:?} {cluster_key:#?} {keys:?} {keys:#?} {sealer:?} {opener:?} {stream_sealer:?} {stream_opener:?} {:?}",
        ClusterKey::from_bytes(&secret[1..]),
    );
    let printed: String = printed.split_whitespace().collect();
    // As text, as numbers, and its hash, of which only the first byte is its id.
    let [_, one, other, ..] = cluster_key.print.0;
    let hash = format!("{one},{other}");
    for secret in ["anascii", "97,110", "616e20", &hash] {
        assert!(!printed.contains(secret), "{secret} in {printed}");
    }
    assert!(printed.contains("ClusterKey"));
}

#[test]
fn without_keys_nothing_is_sealed_or_opened() {
    let none = Keyring::default();
    assert!(none.is_empty() && !keyring(&[1]).is_empty());
    assert_eq!(sealer().seal_datagram(&none, plain(b"")), Err(SealError::NoKey));
    let stream = StreamSealer::try_new(&none, SESSION, STREAM, Direction::Forth);
    assert_eq!(stream.unwrap_err(), SealError::NoKey);

    let unknown = Err(OpenError::UnknownKey { id: key(1).id() });
    let datagram = sealed(&mut sealer(), &keyring(&[1]), b"");
    assert_eq!(opened(&mut Opener::new(false), &none, &datagram).map(drop), unknown);
    let frames = sealed_frames(&mut stream_sealer(&keyring(&[1])), 1).concat();
    assert_eq!(read(&mut stream_opener(&none), &frames), (vec![], unknown));
}

#[test]
fn what_is_not_sealed_is_taken_only_where_that_is_allowed() {
    let mut writer = DatagramWriter::new(1_400, Header::new(7, SESSION));
    assert!(writer.try_push_swim(b"text"));
    let datagram = writer.finish();
    let keys = keyring(&[1]);
    assert_eq!(opened(&mut Opener::new(true), &keys, &datagram), Err(OpenError::Unsealed));
    let mut opener = Opener::new(false);
    assert_eq!(opened(&mut opener, &keys, &datagram), Ok(b"text".to_vec()));
    assert_eq!(opened(&mut opener, &keys, &datagram), Ok(b"text".to_vec()));
    // It is sealed whatever its header said.
    let datagram = sealer().seal_datagram(&keys, datagram).unwrap();
    assert_eq!(opened(&mut Opener::new(true), &keys, &datagram), Ok(b"text".to_vec()));
}

#[test]
fn a_datagram_opens_with_its_key_for_its_cluster() {
    let datagram = sealed(&mut sealer(), &keyring(&[1]), b"text");
    let mut opener = Opener::new(true);
    let wrong_label = opened_for("staging", &mut opener, &keyring(&[1]), &datagram);
    assert_eq!(wrong_label, Err(OpenError::Forged));
    let unknown = OpenError::UnknownKey { id: key(1).id() };
    assert_eq!(opened(&mut opener, &keyring(&[2, 3]), &datagram), Err(unknown));
    // What says that it was sealed with another of our keys was not.
    let mut renamed = datagram.clone();
    renamed[3] = key(3).id();
    assert_eq!(opened(&mut opener, &keyring(&[3, 1]), &renamed), Err(OpenError::Forged));
    assert_eq!(opener.num_sessions(), 0);
    assert_eq!(opened(&mut opener, &keyring(&[2, 1]), &datagram), Ok(b"text".to_vec()));
    assert_eq!(opener.num_sessions(), 1);
}

#[test]
fn keys_of_one_id_are_all_tried() {
    assert_eq!(key(2).id(), key(8).id());
    let both = keyring(&[2, 8]);
    let mut opener = Opener::new(true);
    for number in [2, 8] {
        let own = keyring(&[number]);
        let datagram = sealed(&mut sealer(), &own, &[number]);
        assert_eq!(opened(&mut opener, &both, &datagram), Ok(vec![number]));
        assert_eq!(opened(&mut opener, &both, &datagram), Err(OpenError::Replayed));
        assert_eq!(
            opened(&mut Opener::new(true), &keyring(&[10 - number]), &datagram),
            Err(OpenError::Forged)
        );

        let frames = sealed_frames(&mut stream_sealer(&own), 3).concat();
        let expected = (vec![ping(0), ping(1), ping(2)], Ok(()));
        assert_eq!(read(&mut stream_opener(&both), &frames), expected);
    }
}

#[test]
fn cut_datagrams_are_refused() {
    const SHORTEST: usize = HEADER_BYTES + TAG_BYTES;
    let keys = keyring(&[1]);
    let datagram = sealed(&mut sealer(), &keys, b"text");
    let mut opener = Opener::new(true);
    for end in 0..datagram.len() {
        let error = opened(&mut opener, &keys, &datagram[..end]).unwrap_err();
        match end {
            ..HEADER_BYTES => assert!(matches!(error, OpenError::Wire(_)), "{error:?}"),
            HEADER_BYTES..SHORTEST => assert_eq!(error, OpenError::Short),
            _ => assert_eq!(error, OpenError::Forged),
        }
    }
    let longer = [&datagram[..], &[0]].concat();
    assert_eq!(opened(&mut opener, &keys, &longer), Err(OpenError::Forged));
    let header_alone = DatagramWriter::new(0, Header::new(7, SESSION).sealed(0, 0)).finish();
    let mut sealed = sealer().seal_datagram(&keys, header_alone).unwrap();
    assert_eq!(sealed.len(), SHORTEST);
    let opened = opener.open_datagram(&keys, LABEL, &mut sealed).unwrap();
    assert_eq!(opened.sections.count(), 0);
    let cut = sealer().seal_datagram(&keys, Bytes::from_static(b"\x9b"));
    assert!(matches!(cut, Err(SealError::Wire(_))));
}

#[test]
fn datagrams_may_overtake_each_other_within_the_window_and_open_once() {
    let keys = keyring(&[1]);
    let (mut sealer, mut opener) = (sealer(), Opener::new(true));
    let num = REPLAY_WINDOW as usize + 2;
    let sent: Vec<_> = (0..num).map(|_| sealed(&mut sealer, &keys, b"")).collect();
    let mut arrives = |number: usize| opened(&mut opener, &keys, &sent[number]).map(drop);
    let (fresh, replayed) = (Ok(()), Err(OpenError::Replayed));
    for (number, expected) in
        [(0, fresh), (0, replayed), (5, fresh), (3, fresh), (4, fresh), (3, replayed), (5, replayed)]
    {
        assert_eq!(arrives(number), expected, "{number}");
    }
    assert_eq!(arrives(num - 1), fresh);
    assert_eq!(arrives(1), replayed, "behind the window");
    assert_eq!(arrives(2), fresh, "the last of the window");
    assert_eq!(arrives(3), replayed);
    for number in 6..num - 1 {
        assert_eq!(arrives(number), fresh);
    }
    for number in 0..num {
        assert_eq!(arrives(number), replayed);
    }
}

#[test]
fn forged_datagrams_do_not_move_the_window() {
    let keys = keyring(&[1]);
    let (mut sealer, mut opener) = (sealer(), Opener::new(true));
    let sent = [0; 3].map(|_: u8| sealed(&mut sealer, &keys, b""));
    assert!(opened(&mut opener, &keys, &sent[1]).is_ok());
    let mut forged = sent[2].clone();
    forged[HEADER_BYTES - 1] = 0xff;
    assert_eq!(opened(&mut opener, &keys, &forged), Err(OpenError::Forged));
    for number in [0, 2] {
        assert!(opened(&mut opener, &keys, &sent[number]).is_ok());
    }
}

#[test]
fn a_stolen_key_does_not_silence_a_session_for_longer_than_it_is_a_key() {
    let (mut thief, mut sealer, mut opener) = (sealer(), sealer(), Opener::new(true));
    thief.counter = u64::MAX - 1;
    let last = sealed(&mut thief, &keyring(&[1]), b"");
    assert!(opened(&mut opener, &keyring(&[2, 1]), &last).is_ok());
    let datagram = sealed(&mut sealer, &keyring(&[1]), b"");
    assert_eq!(opened(&mut opener, &keyring(&[2, 1]), &datagram), Err(OpenError::Replayed));
    let datagram = sealed(&mut sealer, &keyring(&[2, 1]), b"");
    assert!(opened(&mut opener, &keyring(&[2]), &datagram).is_ok());
}

#[test]
fn a_key_is_changed_while_members_are_at_different_steps() {
    let steps: [&[u8]; 4] = [&[1], &[1, 2], &[2, 1], &[2]];
    let mut keyrings = [0; 2].map(|_: u8| keyring(steps[0]));
    let mut sealers = [1, 2].map(|session| Sealer::new(session, LABEL));
    let mut openers = [0; 2].map(|_: u8| Opener::new(true));
    for step in steps {
        for ahead in [0, 1] {
            keyrings[ahead].replace(keys(step));
            for (from, to) in [(0, 1), (1, 0)] {
                let datagram = sealed(&mut sealers[from], &keyrings[from], b"text");
                assert_eq!(opened(&mut openers[to], &keyrings[to], &datagram), Ok(b"text".to_vec()));
                let again = opened(&mut openers[to], &keyrings[to], &datagram);
                assert_eq!(again, Err(OpenError::Replayed));
                let frames = sealed_frames(&mut stream_sealer(&keyrings[from]), 2).concat();
                let read = read(&mut stream_opener(&keyrings[to]), &frames);
                assert_eq!(read, (vec![ping(0), ping(1)], Ok(())));
            }
        }
    }
    // Two steps apart, members would not all understand each other.
    for (from, to) in [(2, 0), (0, 3), (1, 3)] {
        let datagram = sealed(&mut sealer(), &keyring(steps[from]), b"");
        let error = opened(&mut Opener::new(true), &keyring(steps[to]), &datagram).unwrap_err();
        assert_eq!(error, OpenError::UnknownKey { id: keyring(steps[from]).keys[0].id() });
    }
}

#[test]
fn what_was_opened_with_keys_that_stay_is_remembered() {
    let mut keys = keyring(&[1]);
    let (mut sealer, mut opener) = (sealer(), Opener::new(true));
    let datagram = sealed(&mut sealer, &keys, b"");
    assert!(opened(&mut opener, &keys, &datagram).is_ok());
    keys.replace(self::keys(&[2, 1]));
    assert_eq!(opened(&mut opener, &keys, &datagram), Err(OpenError::Replayed));
    keys.replace(self::keys(&[2]));
    let late = sealed(&mut sealer, &keyring(&[1]), b"");
    let unknown = OpenError::UnknownKey { id: key(1).id() };
    assert_eq!(opened(&mut opener, &keys, &late), Err(unknown));
    keys.replace(self::keys(&[1]));
    assert_eq!(opened(&mut opener, &keys, &datagram), Err(OpenError::Replayed));
    assert!(opened(&mut opener, &keys, &late).is_ok());
    assert_eq!(opener.num_sessions(), 1);
}

#[test]
fn sessions_are_bounded_and_the_one_that_is_longest_unused_is_forgotten() {
    let keys = keyring(&[1]);
    let mut opener = Opener::new(true);
    let mut sealers: Vec<_> = (0..=MAX_SESSIONS as u64).map(|session| Sealer::new(session, LABEL)).collect();
    let sent: Vec<_> = sealers.iter_mut().map(|sealer| sealed(sealer, &keys, b"")).collect();
    for datagram in &sent[..MAX_SESSIONS] {
        assert!(opened(&mut opener, &keys, datagram).is_ok());
    }
    assert_eq!(opener.num_sessions(), MAX_SESSIONS);

    // The first one is used again, and the second one only by others.
    let second_of_first = sealed(&mut sealers[0], &keys, b"");
    assert!(opened(&mut opener, &keys, &second_of_first).is_ok());
    let mut forged = sealed(&mut sealers[1], &keys, b"");
    forged[HEADER_BYTES] ^= 1;
    assert_eq!(opened(&mut opener, &keys, &forged), Err(OpenError::Forged));
    assert_eq!(opened(&mut opener, &keys, &sent[1]), Err(OpenError::Replayed));
    for session in 0..100 {
        let mut forged = sealed(&mut Sealer::new(u64::MAX - session, LABEL), &keys, b"");
        forged[HEADER_BYTES] ^= 1;
        assert_eq!(opened(&mut opener, &keys, &forged), Err(OpenError::Forged));
    }
    for number in [0, 1, 2, MAX_SESSIONS - 1] {
        assert_eq!(opened(&mut opener, &keys, &sent[number]), Err(OpenError::Replayed));
    }

    assert!(opened(&mut opener, &keys, &sent[MAX_SESSIONS]).is_ok());
    assert_eq!(opener.num_sessions(), MAX_SESSIONS);
    for number in [0, 2, MAX_SESSIONS - 1, MAX_SESSIONS] {
        assert_eq!(opened(&mut opener, &keys, &sent[number]), Err(OpenError::Replayed));
    }
    assert!(opened(&mut opener, &keys, &sent[1]).is_ok());
    assert_eq!(opener.num_sessions(), MAX_SESSIONS);
}

#[test]
fn no_nonce_is_used_twice() {
    let mut keys = keyring(&[1]);
    let mut sealer = sealer();
    let mut nonces = BTreeSet::new();
    for number in 0..100_000 {
        if number == 50_000 {
            keys.replace(self::keys(&[2, 1]));
        }
        let datagram = sealed(&mut sealer, &keys, b"");
        let header = Header::parse(&datagram).unwrap();
        assert_eq!(header.session, SESSION);
        assert!(nonces.insert(header.nonce_or_checksum));
    }
}

#[test]
fn counters_end_rather_than_start_anew() {
    let keys = keyring(&[1]);
    let mut sealer = sealer();
    assert_eq!([sealer.next_stream(), sealer.next_stream()], [Ok(0), Ok(1)]);
    (sealer.counter, sealer.stream) = (u64::MAX - 1, u64::MAX - 1);
    assert!(sealer.seal_datagram(&keys, plain(b"")).is_ok());
    assert!(sealer.next_stream().is_ok());
    let mut stream = stream_sealer(&keys);
    stream.counter = u64::MAX - 1;
    let frame = ping(0).encode().unwrap();
    assert!(stream.seal_frame(&frame).is_ok());
    for _ in 0..2 {
        assert_eq!(sealer.seal_datagram(&keys, plain(b"")), Err(SealError::Exhausted));
        assert_eq!(sealer.next_stream(), Err(SealError::Exhausted));
        assert_eq!(stream.seal_frame(&frame), Err(SealError::Exhausted));
    }
}

fn bytes() -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(any::<u8>(), 0..100)
}

/// Counters near each other, near the ends of the window, and anywhere.
fn counters() -> impl Strategy<Value = Vec<u64>> {
    let counter = prop_oneof![
        4 => 0..20_u64,
        4 => REPLAY_WINDOW - 5..REPLAY_WINDOW + 20,
        2 => 0..4 * REPLAY_WINDOW,
        1 => u64::MAX - 2 * REPLAY_WINDOW..=u64::MAX,
    ];
    prop::collection::vec(counter, 1..200)
}

proptest! {
    #[test]
    fn datagrams_come_back(texts in prop::collection::vec(bytes(), 1..10)) {
        let keys = keyring(&[1, 2]);
        let (mut sealer, mut opener) = (sealer(), Opener::new(true));
        for text in texts {
            let plain = plain(&text);
            let datagram = sealer.seal_datagram(&keys, plain.clone()).unwrap();
            prop_assert_eq!(datagram.len(), plain.len() + TAG_BYTES);
            prop_assert!(text.len() < 8 || !datagram.windows(text.len()).any(|part| part == text));
            prop_assert_eq!(opened(&mut opener, &keys, &datagram), Ok(text));
        }
    }

    #[test]
    fn a_flipped_bit_of_a_datagram_is_found_wherever_it_is(
        text in bytes(),
        at in any::<Index>(),
        require in any::<bool>(),
    ) {
        let keys = keyring(&[1, 2]);
        let datagram = sealed(&mut sealer(), &keys, &text);
        let mut opener = Opener::new(require);
        let bit = at.index(datagram.len() * 8);
        let mut flipped = datagram.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        prop_assert!(opened(&mut opener, &keys, &flipped).is_err());
        prop_assert_eq!(opener.num_sessions(), 0);
        prop_assert_eq!(opened(&mut opener, &keys, &datagram), Ok(text));
    }

    #[test]
    fn a_flipped_bit_of_a_stream_is_found_wherever_it_is(at in any::<Index>()) {
        let keys = keyring(&[1, 2]);
        let frames = sealed_frames(&mut stream_sealer(&keys), 3);
        let bit = at.index(frames[0].len() * 3 * 8);
        let mut stream = frames.concat();
        stream[bit / 8] ^= 1 << (bit % 8);
        let mut opener = stream_opener(&keys);
        let (read, _) = read(&mut opener, &stream);
        let intact: Vec<_> = (0..(bit / 8 / frames[0].len()) as u64).map(ping).collect();
        prop_assert_eq!(read, intact);
        prop_assert!(opener.finish().is_err());
    }

    #[test]
    fn made_up_bytes_do_not_open(start in bytes(), body in bytes()) {
        let keys = keyring(&[1, 2, 8]);
        let mut opener = Opener::new(true);
        prop_assert!(opened(&mut opener, &keys, &body).is_err());
        let header = Header::new(7, SESSION).sealed(key(2).id(), 0).encode();
        let datagram = [&header[..], &body[..]].concat();
        prop_assert!(opened(&mut opener, &keys, &datagram).is_err());
        prop_assert_eq!(opener.num_sessions(), 0);
        prop_assert!(read(&mut stream_opener(&keys), &start).0.is_empty());
        let len = u32::try_from(body.len()).unwrap().to_le_bytes();
        let stream = [&len[..], &body[..], &start[..]].concat();
        prop_assert!(read(&mut stream_opener(&keys), &stream).0.is_empty());
    }

    #[test]
    fn the_window_takes_what_is_new_and_not_too_old(counters in counters()) {
        let mut window = Window::starting_with(counters[0]);
        let (mut seen, mut largest) = (BTreeSet::from([counters[0]]), counters[0]);
        for counter in counters {
            let is_new = !seen.contains(&counter) && largest.saturating_sub(counter) < REPLAY_WINDOW;
            prop_assert_eq!(window.is_new(counter), is_new);
            if is_new {
                window.add(counter);
                seen.insert(counter);
                largest = largest.max(counter);
            }
        }
    }
}
