//! What is written is read back; what is damaged, cut or made up is an error.

mod frames;
mod packed;

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::ops::Range;

use bytes::Bytes;
use proptest::prelude::*;
use proptest::sample::Index;
use smol_str::SmolStr;

use super::code::{Cursor, put_varint};
use super::datagram::{ADVERTS, BEACON, DIGEST, RECORDS, STALE, SWIM, put_checksum};
use super::pack::PACKED;
use super::*;
use crate::id::NodeId;
use crate::register::{Body, EntryId, MAX_BODY_BYTES, MAX_FACETS, MAX_ID_BYTES, Register, Version};
use crate::time::Hlc;

const HEADER: Header = Header {
    version: VERSION,
    flags: 0,
    key_id: 0,
    label: 0x0123_4567_89ab_cdef,
    session: 0x1122_3344_5566_7788,
    nonce_or_checksum: 0,
};

/// A record that owns its parts.
#[derive(Clone, Debug, PartialEq)]
struct Owned {
    key: SmolStr,
    entry: EntryId,
    register: Register,
    age_ms: Option<u64>,
}

impl Owned {
    fn new(key: &str, id: &str, body: &[u8]) -> Self {
        let version = Version { epoch: 0, hlc: Hlc::from_ms(1_700_000_000_000) };
        let register = Register { version, author: 7, body: Body::Live(Bytes::copy_from_slice(body)) };
        Self { key: key.into(), entry: EntryId::new(id, 1), register, age_ms: None }
    }

    fn of(record: &Record<'_>) -> Self {
        let (entry, register) = (record.entry(), record.register());
        Self { key: record.key.into(), entry, register, age_ms: record.age_ms }
    }

    fn record(&self) -> Record<'_> {
        Record::new(&self.key, &self.entry, &self.register, self.age_ms)
    }
}

/// What can be pushed into a datagram.
#[derive(Clone, Debug, PartialEq)]
enum Item {
    Swim(Vec<u8>),
    Record(Owned),
    Advert(SmolStr, EntryId, Version, u64, u64),
    Digest(u64, Vec<(SmolStr, u128)>),
    Stale(u64),
    Beacon(Beacon),
}

impl Item {
    fn push(&self, writer: &mut DatagramWriter) -> bool {
        match self {
            Self::Swim(bytes) => writer.try_push_swim(bytes),
            Self::Record(record) => writer.try_push_record(&record.record()),
            Self::Advert(key, entry, version, author, size) => writer.try_push_advert(&Advert {
                key,
                id: &entry.id,
                facet: entry.facet,
                version: *version,
                author: *author,
                size: *size,
            }),
            Self::Digest(member_hash, roots) => writer.try_push_digest(*member_hash, roots),
            Self::Stale(entry_hash) => writer.try_push_stale(*entry_hash),
            Self::Beacon(beacon) => writer.try_push_beacon(*beacon),
        }
    }
}

fn read_sections(sections: Sections<'_>) -> Result<Vec<Item>, WireError> {
    let mut items = Vec::new();
    for section in sections {
        match section? {
            Section::Swim(bytes) => items.push(Item::Swim(bytes.to_vec())),
            Section::Records(records) => {
                for record in records {
                    items.push(Item::Record(Owned::of(&record?)));
                }
            }
            Section::Adverts(adverts) => {
                for advert in adverts {
                    let advert = advert?;
                    let (key, entry) = (advert.key.into(), advert.entry());
                    items.push(Item::Advert(key, entry, advert.version, advert.author, advert.size));
                }
            }
            Section::Digest(digest) => {
                let mut roots = Vec::new();
                for root in digest.roots {
                    let (key, root) = root?;
                    roots.push((key.into(), root));
                }
                items.push(Item::Digest(digest.member_hash, roots));
            }
            Section::Stale(stale) => {
                for entry_hash in stale {
                    items.push(Item::Stale(entry_hash?));
                }
            }
            Section::Beacon(beacon) => items.push(Item::Beacon(beacon)),
        }
    }
    Ok(items)
}

fn read(datagram: &[u8]) -> Result<Vec<Item>, WireError> {
    read_sections(Datagram::parse(datagram)?.sections)
}

fn section(kind: u8, body: &[u8]) -> Vec<u8> {
    let len = u16::try_from(body.len()).unwrap().to_le_bytes();
    [&[kind][..], &len[..], body].concat()
}

/// An undamaged datagram around any bytes.
fn datagram(body: &[u8]) -> Vec<u8> {
    let mut datagram = [&HEADER.encode()[..], body].concat();
    put_checksum(&mut datagram);
    datagram
}

fn written(items: &[Item]) -> Bytes {
    let mut writer = DatagramWriter::new(MAX_DATAGRAM_BYTES, HEADER);
    for item in items {
        assert!(item.push(&mut writer), "{item:?}");
    }
    writer.finish()
}

/// One of each, so that each has a section of its own.
fn one_of_each() -> Vec<Item> {
    let version = Version { epoch: 300, hlc: Hlc(5) };
    let beacon = Beacon { author: 4, hlc: Hlc(5), age_ms: 600 };
    vec![
        Item::Swim(b"for the engine".to_vec()),
        Item::Record(Owned { age_ms: Some(700), ..Owned::new("ring", "ingester-1", b"body") }),
        Item::Advert("ring".into(), EntryId::new("ingester-2", 0), version, 8, 900),
        Item::Digest(6, vec![(SmolStr::new("ring"), 1_u128 << 100)]),
        Item::Stale(9),
        Item::Beacon(beacon),
    ]
}

#[track_caller]
fn assert_fault<T: std::fmt::Debug>(result: Result<T, WireError>, at: usize, fault: Fault) {
    assert_eq!(result.unwrap_err(), WireError { at, fault });
}

fn bytes(len: Range<usize>) -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(any::<u8>(), len)
}

/// Of all magnitudes alike.
fn number() -> impl Strategy<Value = u64> {
    (any::<u64>(), 0..64_u32).prop_map(|(number, shift)| number >> shift)
}

fn key() -> impl Strategy<Value = SmolStr> {
    "[a-cé]{0,2}".prop_map(SmolStr::new)
}

fn text() -> impl Strategy<Value = SmolStr> {
    "[a-zé]{0,30}".prop_map(SmolStr::new)
}

fn entry() -> impl Strategy<Value = EntryId> {
    ("[a-zé]{0,30}", 0..MAX_FACETS).prop_map(|(id, facet)| EntryId::new(id, facet))
}

fn version() -> impl Strategy<Value = Version> {
    (any::<u32>(), any::<u64>()).prop_map(|(epoch, hlc)| Version { epoch, hlc: Hlc(hlc) })
}

fn owned() -> impl Strategy<Value = Owned> {
    let body = prop_oneof![
        1 => Just(Body::Tombstone),
        3 => bytes(0..100).prop_map(|bytes| Body::Live(bytes.into())),
    ];
    (key(), entry(), version(), any::<u64>(), body, prop::option::of(number())).prop_map(
        |(key, entry, version, author, body, age_ms)| Owned {
            key,
            entry,
            register: Register { version, author, body },
            age_ms,
        },
    )
}

fn roots() -> impl Strategy<Value = Vec<(SmolStr, u128)>> {
    prop::collection::vec((text(), any::<u128>()), 0..5)
}

fn item() -> impl Strategy<Value = Item> {
    prop_oneof![
        1 => bytes(0..100).prop_map(Item::Swim),
        6 => owned().prop_map(Item::Record),
        3 => (key(), entry(), version(), any::<u64>(), number())
            .prop_map(|(key, entry, version, author, size)| Item::Advert(key, entry, version, author, size)),
        1 => (any::<u64>(), roots()).prop_map(|(member_hash, roots)| Item::Digest(member_hash, roots)),
        3 => any::<u64>().prop_map(Item::Stale),
        1 => (any::<u64>(), any::<u64>(), number())
            .prop_map(|(author, hlc, age_ms)| Item::Beacon(Beacon { author, hlc: Hlc(hlc), age_ms })),
    ]
}

fn node() -> impl Strategy<Value = NodeId> {
    let ip = prop_oneof![any::<[u8; 4]>().prop_map(IpAddr::from), any::<[u8; 16]>().prop_map(IpAddr::from)];
    (any::<u64>(), any::<u64>(), ip, any::<u16>()).prop_map(|(name, generation, ip, port)| NodeId {
        name,
        generation,
        addr: (ip, port).into(),
    })
}

fn list(records: &[Owned], max_bytes: usize) -> (RecordList, Vec<Owned>) {
    let mut writer = RecordsWriter::new(max_bytes);
    let fitted = records.iter().filter(|record| writer.try_push(&record.record())).cloned().collect();
    assert!(writer.len() <= max_bytes);
    (writer.finish(), fitted)
}

fn frame() -> impl Strategy<Value = Frame> {
    let buckets = prop::collection::btree_map(any::<u8>(), any::<u64>(), 0..40);
    let member = (node(), any::<u16>(), any::<u8>()).prop_map(|(node, incarnation, state)| MemberEntry {
        node,
        incarnation,
        state,
    });
    prop_oneof![
        (any::<u8>(), text(), node(), text(), text(), any::<bool>()).prop_map(
            |(version, label, node, name, build, settled)| {
                Frame::Hello { version, label, node, name, build, settled }
            }
        ),
        any::<u64>().prop_map(|nonce| Frame::Ping { nonce }),
        (any::<u64>(), node(), any::<u16>()).prop_map(|(nonce, node, incarnation)| Frame::Pong {
            nonce,
            node,
            incarnation
        }),
        (any::<bool>(), any::<u64>(), roots()).prop_map(|(join, member_hash, roots)| Frame::SyncRequest {
            join,
            member_hash,
            roots
        }),
        (key(), buckets)
            .prop_map(|(key, buckets)| Frame::Buckets { key, buckets: buckets.into_iter().collect() }),
        (key(), any::<u8>(), prop::collection::vec((entry(), any::<u64>()), 0..8))
            .prop_map(|(key, bucket, entries)| Frame::Entries { key, bucket, entries }),
        prop::collection::vec(member, 0..8).prop_map(Frame::Members),
        prop::collection::vec(owned(), 0..8)
            .prop_map(|records| Frame::Records(list(&records, MAX_FRAME_BYTES).0)),
        (key(), prop::collection::vec(entry(), 0..8))
            .prop_map(|(key, entries)| Frame::Fetch { key, entries }),
        (key(), prop::collection::btree_map(any::<u64>(), version(), 0..8))
            .prop_map(|(key, beats)| Frame::Beats { key, beats: beats.into_iter().collect() }),
        any::<u64>().prop_map(|moved| Frame::Done { moved }),
        (any::<u8>(), text()).prop_map(|(code, text)| Frame::Error { code, text }),
    ]
}

/// What follows the length of a frame.
fn payload(frame: &Frame) -> Bytes {
    frame.encode().unwrap().slice(4..)
}

/// Reads any bytes as a frame: what is read is coded in one way only, unless packed, and records in it end.
fn decode(payload: &Bytes) -> Result<Frame, WireError> {
    let frame = Frame::decode(payload)?;
    if payload[0] != PACKED {
        assert_eq!(frame.encode().unwrap()[4..], payload[..], "{frame:?}");
    }
    if let Frame::Records(records) = &frame {
        let _ = records.iter().count();
    }
    Ok(frame)
}

#[test]
fn the_bytes_of_a_record_are_as_documented() {
    let version = Version { epoch: 128, hlc: Hlc(0x0102) };
    let live = Register { version, author: 3, body: Body::Live(Bytes::from_static(b"xy")) };
    let removed = Register { body: Body::Tombstone, ..live.clone() };
    let entry = EntryId::new("a", 1);
    let mut writer = RecordsWriter::new(100);
    assert!(writer.is_empty());
    assert!(writer.try_push(&Record::new("ring", &entry, &live, Some(300))));
    assert!(writer.try_push(&Record::new("ring", &entry, &removed, None)));
    let first = b"\x00\x04ring\x01a\x01\x80\x01\x02\x01\0\0\0\0\0\0\x03\0\0\0\0\0\0\0\x02\xac\x02\x02xy";
    let second = b"\x00\x01a\x01\x80\x01\x02\x01\0\0\0\0\0\0\x03\0\0\0\0\0\0\0\x01";
    let frame = [&[8_u8][..], first, second].concat();
    assert_eq!(payload(&Frame::Records(writer.finish())), frame);
    let record = &datagram(&section(RECORDS, first))[..];
    let expected = Owned { key: "ring".into(), entry, register: live, age_ms: Some(300) };
    assert_eq!(read(record).unwrap(), [Item::Record(expected)]);
}

#[test]
fn a_record_holds_a_register_only_if_all_of_it_is_the_same() {
    let owned = Owned::new("k", "i", b"body");
    let holds = |register: &Register| owned.record().holds(register);
    let register = || owned.register.clone();
    assert!(holds(&register()));
    let version = Version { epoch: 1, ..register().version };
    assert!(!holds(&Register { version, ..register() }) && !holds(&Register { author: 8, ..register() }));
    for body in [Body::Live(Bytes::from_static(b"other")), Body::Live(Bytes::new()), Body::Tombstone] {
        assert!(!holds(&Register { body, ..register() }));
    }
}

#[test]
fn what_is_pushed_one_after_another_shares_a_section_and_names_a_key_once() {
    let records = ["a", "b", "c"].map(|id| Item::Record(Owned::new("a-long-name-of-a-key", id, b"")));
    let sizes: Vec<_> = (1..=3).map(|num| written(&records[..num]).len()).collect();
    let (first, later) = (sizes[0] - HEADER_BYTES, sizes[1] - sizes[0]);
    assert_eq!(first, 3 + 1 + "a-long-name-of-a-key".len() + later);
    assert_eq!(sizes[2] - sizes[1], later);
}

#[test]
fn one_of_each_comes_back() {
    let items = one_of_each();
    let datagram = written(&items);
    assert_eq!(read(&datagram).unwrap(), items);
    let header = Datagram::parse(&datagram).unwrap().header;
    assert_eq!(Header { nonce_or_checksum: 0, ..header }, HEADER);
}

#[test]
fn a_flipped_bit_is_found_wherever_it_is() {
    let datagram = written(&one_of_each());
    for bit in 0..datagram.len() * 8 {
        let mut damaged = datagram.to_vec();
        damaged[bit / 8] ^= 1 << (bit % 8);
        assert!(Datagram::parse(&damaged).is_err(), "bit {bit}");
    }
}

#[test]
fn a_cut_datagram_is_an_error() {
    let datagram = written(&one_of_each());
    for end in 0..datagram.len() {
        assert!(Datagram::parse(&datagram[..end]).is_err(), "{end}");
    }
}

#[test]
fn a_datagram_written_short_is_an_error_unless_it_ends_between_sections() {
    let whole = written(&one_of_each());
    let mut ends = BTreeSet::new();
    let mut at = HEADER_BYTES;
    while at < whole.len() {
        ends.insert(at);
        at += 3 + usize::from(u16::from_le_bytes([whole[at + 1], whole[at + 2]]));
    }
    assert_eq!(ends.len(), 6);
    for end in HEADER_BYTES..whole.len() {
        let short = datagram(&whole[HEADER_BYTES..end]);
        assert_eq!(read(&short).is_ok(), ends.contains(&end), "{end}");
    }
}

#[test]
fn a_section_that_ends_inside_an_item_is_an_error() {
    let mut items = one_of_each();
    items[3] = Item::Digest(6, Vec::new());
    for item in &items[1..] {
        let whole = written(std::slice::from_ref(item));
        let (kind, body) = (whole[HEADER_BYTES], &whole[HEADER_BYTES + 3..]);
        assert_eq!(read(&datagram(&section(kind, body))).unwrap(), std::slice::from_ref(item));
        for end in 1..body.len() {
            assert!(read(&datagram(&section(kind, &body[..end]))).is_err(), "{end} of {item:?}");
        }
    }
}

#[test]
fn strangers_other_versions_and_unknown_flags_are_told_apart() {
    let with = |at: usize, byte: u8| {
        let mut bytes = datagram(b"");
        bytes[at] = byte;
        put_checksum(&mut bytes);
        bytes
    };
    assert_fault(Header::parse(b""), 0, Fault::Short);
    assert_fault(Datagram::parse(&with(0, 1)), 0, Fault::Magic(1));
    assert_fault(Datagram::parse(&with(1, 0x20)), 1, Fault::Version(0x20));
    // Told even by somebody whose header has another form.
    assert_fault(Header::parse(&[MAGIC, 0x20]), 1, Fault::Version(0x20));
    assert_fault(Datagram::parse(&with(2, 2)), 2, Fault::Flags(2));
    assert_eq!(Datagram::parse(&with(1, VERSION + 1)).unwrap().header.version, VERSION + 1);
    let mut damaged = datagram(b"");
    damaged[27] ^= 1;
    assert_fault(Datagram::parse(&damaged), 20, Fault::Checksum);
}

#[test]
fn a_sealed_datagram_is_handed_on_with_its_header() {
    let header = HEADER.sealed(3, 9);
    let items = one_of_each();
    let mut writer = DatagramWriter::new(MAX_DATAGRAM_BYTES, header);
    for item in &items {
        assert!(item.push(&mut writer));
    }
    let datagram = writer.finish();
    assert_eq!(Header::parse(&datagram), Ok(header));
    assert_fault(Datagram::parse(&datagram), 2, Fault::Sealed(header));
    assert_eq!(read_sections(Sections::new(&datagram[HEADER_BYTES..])).unwrap(), items);
}

#[test]
fn unknown_kinds_of_sections_are_passed_over() {
    let stale = section(STALE, &7_u64.to_le_bytes());
    let body = [section(200, b"later"), stale.clone(), section(0, b""), stale, section(7, b"x")].concat();
    assert_eq!(read(&datagram(&body)).unwrap(), [Item::Stale(7), Item::Stale(7)]);
}

#[test]
fn a_datagram_has_one_message_of_the_engine() {
    let mut writer = DatagramWriter::new(100, HEADER);
    assert!(writer.try_push_swim(b"first") && writer.try_push_stale(1) && !writer.try_push_swim(b"second"));
    assert_eq!(read(&writer.finish()).unwrap(), [Item::Swim(b"first".to_vec()), Item::Stale(1)]);
    let twice = datagram(&[section(SWIM, b"first"), section(SWIM, b"second")].concat());
    assert_fault(read(&twice), HEADER_BYTES + 8, Fault::Repeated);
}

#[test]
fn the_room_said_to_be_left_is_there() {
    let mut writer = DatagramWriter::new(100, HEADER);
    assert!(writer.is_empty() && writer.try_push_stale(1) && !writer.is_empty());
    let room = writer.room();
    assert!(!writer.try_push_swim(&vec![0; room + 1]));
    assert!(writer.try_push_swim(&vec![0; room]));
    assert_eq!((writer.len(), writer.room()), (100, 0));
    assert!(DatagramWriter::new(0, HEADER).finish().len() == HEADER_BYTES);
}

#[test]
fn what_does_not_fit_leaves_nothing_behind() {
    let [first, last] = ["first", "last"].map(|id| Item::Record(Owned::new("key", id, b"body")));
    let refused = Item::Record(Owned::new("another key", "refused", &[1; 60]));
    let same_key = Item::Record(Owned::new("another key", "last", b""));
    let mut num_refused = 0;
    for max_size in HEADER_BYTES..300 {
        let mut tried = DatagramWriter::new(max_size, HEADER);
        let mut spared = DatagramWriter::new(max_size, HEADER);
        assert_eq!(first.push(&mut tried), first.push(&mut spared));
        if refused.push(&mut tried) {
            assert!(refused.push(&mut spared));
        } else {
            num_refused += 1;
        }
        for item in [&same_key, &last] {
            assert_eq!(item.push(&mut tried), item.push(&mut spared));
        }
        assert_eq!(tried.finish(), spared.finish());
    }
    assert!((50..270).contains(&num_refused), "{num_refused}");
}

#[test]
fn what_no_reader_would_take_is_not_written() {
    let too_long = ["x".repeat(MAX_KEY_BYTES + 1), "x".repeat(MAX_ID_BYTES + 1)];
    let wrong = [
        Owned::new(&too_long[0], "id", b""),
        Owned::new("key", &too_long[1], b""),
        Owned { entry: EntryId::new("id", MAX_FACETS), ..Owned::new("key", "id", b"") },
        Owned::new("key", "id", &vec![0; MAX_BODY_BYTES + 1]),
    ];
    let mut writer = DatagramWriter::new(MAX_DATAGRAM_BYTES, HEADER);
    let mut list = RecordsWriter::new(usize::MAX);
    for record in &wrong {
        assert!(!writer.try_push_record(&record.record()) && !list.try_push(&record.record()));
    }
    assert!(writer.is_empty() && list.is_empty());
    let longest = ["x".repeat(MAX_KEY_BYTES), "x".repeat(MAX_ID_BYTES)];
    assert!(list.try_push(&Owned::new(&longest[0], &longest[1], &vec![0; MAX_BODY_BYTES]).record()));
    assert!(list.finish().iter().all(|record| record.is_ok()));
}

#[test]
fn errors_say_where() {
    let at = HEADER_BYTES + 3;
    let read = |kind, body: &[u8]| read(&datagram(&section(kind, body)));
    assert_fault(read(STALE, &[0; 12]), at + 8, Fault::Short);
    assert_fault(read(RECORDS, &[5]), at, Fault::Key(5));
    assert_fault(read(RECORDS, &[0, 2, b'k']), at + 2, Fault::Short);
    assert_fault(read(ADVERTS, &[0, 1, 0xff]), at + 1, Fault::Text);
    assert_fault(read(ADVERTS, &[0, 1, b'k', 0, 4]), at + 4, Fault::Facet(4));
    assert_fault(read(ADVERTS, &[0, 1, b'k', 0, 3, 0x80, 0]), at + 5, Fault::Number);
    let too_long = Fault::TooLong { len: 16_383, max: MAX_KEY_BYTES };
    assert_fault(read(DIGEST, &[0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0x7f]), at + 8, too_long);
    assert_fault(read(BEACON, &[0; 18]), at + 17, Fault::Trailing);
    // Key, entry, version, author; then flags of which one is unknown.
    let record = [&[0, 1, b'k', 1, b'i', 0, 0][..], &[0; 16], &[4]].concat();
    assert_fault(read(RECORDS, &record), at + 23, Fault::Flags(4));
    assert_fault(super::tests::read(&datagram(&[STALE, 100, 0, 1])), at, Fault::Short);
}

#[test]
fn a_length_is_believed_only_if_the_bytes_are_there() {
    // A body of 256 KiB in four bytes, and a claim over what a body may have.
    for (claim, fault) in [
        (&[0x80_u8, 0x80, 0x10][..], Fault::Short),
        (&[0x81_u8, 0x80, 0x10][..], Fault::TooLong { len: MAX_BODY_BYTES as u64 + 1, max: MAX_BODY_BYTES }),
    ] {
        let record = [&[0, 1, b'k', 1, b'i', 0, 0][..], &[0; 16], &[0], claim, &[1]].concat();
        let result = read(&datagram(&section(RECORDS, &record)));
        assert_eq!(result.unwrap_err().fault, fault);
    }
}

#[test]
fn numbers_have_one_form() {
    let too_long = [&[0xff_u8; 10][..], &[0]].concat();
    let too_large = [&[0xff_u8; 9][..], &[2]].concat();
    for wrong in [&[0x80, 0][..], &[0xff, 0x80, 0][..], &too_long[..], &too_large[..]] {
        assert_fault(Cursor::new(wrong, 5).varint(), 5, Fault::Number);
    }
    assert_eq!(Cursor::new(&[&[0xff_u8; 9][..], &[1]].concat(), 0).varint(), Ok(u64::MAX));
}

proptest! {
    #[test]
    fn numbers_come_back_and_cut_ones_do_not(number in number()) {
        let mut out = Vec::new();
        put_varint(&mut out, number);
        prop_assert!(out.len() <= 10);
        let mut cursor = Cursor::new(&out, 0);
        prop_assert_eq!(cursor.varint(), Ok(number));
        prop_assert!(cursor.is_empty());
        for end in 0..out.len() {
            prop_assert!(Cursor::new(&out[..end], 0).varint().is_err());
        }
    }

    #[test]
    fn whatever_has_room_comes_back(items in prop::collection::vec(item(), 0..40)) {
        let mut writer = DatagramWriter::new(MAX_DATAGRAM_BYTES, HEADER);
        let mut fitted = items.clone();
        let mut has_swim = false;
        fitted.retain(|item| !matches!(item, Item::Swim(_)) || !std::mem::replace(&mut has_swim, true));
        let mut pushed = items;
        pushed.retain(|item| item.push(&mut writer));
        prop_assert_eq!(&pushed, &fitted);
        prop_assert_eq!(read(&writer.finish()).unwrap(), fitted);
    }

    #[test]
    fn a_writer_keeps_its_size_and_only_what_fitted(
        items in prop::collection::vec(item(), 0..40),
        max_size in 0..1_500_usize,
    ) {
        let mut writer = DatagramWriter::new(max_size, HEADER);
        let mut fitted = Vec::new();
        for item in items {
            let before = writer.len();
            if item.push(&mut writer) {
                fitted.push(item);
            } else {
                prop_assert_eq!(writer.len(), before);
            }
            prop_assert!(writer.len() <= max_size.max(HEADER_BYTES));
        }
        let size = writer.len();
        let datagram = writer.finish();
        prop_assert_eq!(datagram.len(), size);
        prop_assert_eq!(read(&datagram).unwrap(), fitted);
    }

    #[test]
    fn arbitrary_bytes_end_in_sections_or_an_error(body in bytes(0..300), kind in 0..8_u8) {
        let _ = read(&body);
        let _ = read(&datagram(&body));
        let _ = read(&datagram(&section(kind, &body)));
    }

    #[test]
    fn damage_that_the_checksum_does_not_show_ends_in_sections_or_an_error(
        items in prop::collection::vec(item(), 1..10),
        damages in prop::collection::vec((any::<Index>(), any::<u8>()), 1..4),
    ) {
        let mut writer = DatagramWriter::new(MAX_DATAGRAM_BYTES, HEADER);
        for item in &items {
            item.push(&mut writer);
        }
        let mut damaged = writer.finish().to_vec();
        for (at, byte) in damages {
            let at = at.index(damaged.len());
            damaged[at] = byte;
        }
        put_checksum(&mut damaged);
        let _ = read(&damaged);
    }

    #[test]
    fn frames_come_back_in_whatever_pieces_they_arrive(
        frames in prop::collection::vec(frame(), 0..6),
        size in 1..80_usize,
    ) {
        let stream: Vec<u8> = frames.iter().flat_map(|frame| frame.encode().unwrap()).collect();
        let mut reader = FrameReader::default();
        let mut read = Vec::new();
        for mut piece in stream.chunks(size) {
            while let Some(frame) = reader.next_frame(&mut piece).unwrap() {
                read.push(frame);
            }
            prop_assert!(piece.is_empty());
        }
        prop_assert_eq!(reader.finish(), Ok(()));
        prop_assert_eq!(read, frames);
    }

    #[test]
    fn a_frame_written_short_is_an_error_or_a_shorter_list(frame in frame()) {
        let whole = payload(&frame);
        let is_list = !matches!(
            frame,
            Frame::Hello { .. } | Frame::Ping { .. } | Frame::Pong { .. } | Frame::Done { .. } | Frame::Error { .. }
        );
        for end in 0..whole.len() {
            let short = decode(&whole.slice(..end));
            prop_assert!(short.is_err() || is_list, "{end} of {frame:?}");
        }
    }

    #[test]
    fn arbitrary_bytes_end_in_frames_or_an_error(body in bytes(0..300), kind in 0..16_u8, size in 1..40_usize) {
        let _ = decode(&Bytes::from([&[kind][..], &body[..]].concat()));
        let mut reader = FrameReader::default();
        for mut piece in body.chunks(size) {
            while let Ok(Some(_)) = reader.next_frame(&mut piece) {}
        }
        let _ = reader.finish();
    }

    #[test]
    fn a_damaged_frame_ends_in_a_frame_or_an_error(frame in frame(), at in any::<Index>(), byte in any::<u8>()) {
        let mut damaged = payload(&frame).to_vec();
        let at = at.index(damaged.len());
        damaged[at] = byte;
        let _ = decode(&damaged.into());
    }

    #[test]
    fn records_of_a_frame_come_back_as_far_as_they_fitted(
        records in prop::collection::vec(owned(), 0..20),
        max_bytes in 0..1_500_usize,
    ) {
        let (list, fitted) = list(&records, max_bytes);
        prop_assert_eq!(list.is_empty(), fitted.is_empty());
        let read: Result<Vec<_>, _> = list.iter().map(|record| record.map(|record| Owned::of(&record))).collect();
        prop_assert_eq!(read.unwrap(), fitted);
    }
}
