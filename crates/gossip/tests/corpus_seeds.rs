//! Where the seeds of the fuzzers of gossip came from: what members really say, and a few things that they do not.
//!
//! Run it after adding one: `cargo test -p ringkit-gossip --test corpus_seeds -- --ignored`.

#![allow(clippy::unwrap_used, unreachable_pub, reason = "a test that cannot go on says where")]

#[allow(dead_code, reason = "most of it is for the checks")]
#[path = "../../../fuzz/src/gossip.rs"]
mod gossip;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use gossip::pair::{KEY, LABEL, NAMES, Pair, START_MS, addr, keyring};
use gossip::{SESSION, STREAM, hello};
use ringkit_gossip::id::{NodeId, name_hash};
use ringkit_gossip::member::SEALED_MAGIC;
use ringkit_gossip::node::MEMBERS_KEY;
use ringkit_gossip::register::{EntryId, Version};
use ringkit_gossip::seal::{Direction, Sealer, StreamSealer};
use ringkit_gossip::time::Hlc;
use ringkit_gossip::wire::{
    Advert, Beacon, Datagram, DatagramWriter, Frame, HEADER_BYTES, Header, MAGIC, MAX_DATAGRAM_BYTES,
    MemberEntry, Record, RecordsWriter, Section, label_hash,
};
use smol_str::SmolStr;

/// Of a frame, and of a section, before what is in it: length and type, or kind and length.
const FRAME_HEAD: usize = 5;
const SECTION_HEAD: usize = 3;

fn put(target: &str, name: &str, bytes: &[u8]) {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus").join(target);
    fs::create_dir_all(&corpus).unwrap();
    fs::write(corpus.join(name), bytes).unwrap();
}

fn header() -> Header {
    Header::new(label_hash(LABEL), SESSION)
}

fn version(epoch: u32, after_ms: u64) -> Version {
    Version { epoch, hlc: Hlc::from_ms(START_MS + after_ms) }
}

fn live<'a>(key: &'a str, id: &'a str, facet: u8, body: &'a [u8]) -> Record<'a> {
    let author = name_hash(NAMES[1]);
    Record { key, id, facet, version: version(0, 5), author, age_ms: None, body: Some(body) }
}

fn records() -> Vec<Record<'static>> {
    vec![
        live(KEY, "another", 0, b"10.0.0.2:9095"),
        Record { age_ms: Some(700), ..live(KEY, "another", 2, b"beats") },
        Record { body: None, version: version(3, 9), ..live(KEY, "instance", 0, b"") },
        live("a third key", "", 3, b""),
    ]
}

fn advert() -> Advert<'static> {
    let author = name_hash(NAMES[1]);
    Advert { key: KEY, id: "large", facet: 1, version: version(0, 7), author, size: 2_000 }
}

fn beacon() -> Beacon {
    Beacon { author: name_hash(NAMES[1]), hlc: Hlc::from_ms(START_MS), age_ms: 20 }
}

fn roots() -> Vec<(SmolStr, u128)> {
    vec![(SmolStr::default(), 1), (KEY.into(), u128::MAX)]
}

/// A datagram with what `fill` puts into it.
fn written(fill: impl FnOnce(&mut DatagramWriter)) -> Bytes {
    let mut writer = DatagramWriter::new(MAX_DATAGRAM_BYTES, header());
    fill(&mut writer);
    writer.finish()
}

/// Some records, alone.
fn with(records: &[Record<'_>]) -> Bytes {
    written(|writer| assert!(records.iter().all(|record| writer.try_push_record(record))))
}

fn encoded(frames: &[Frame]) -> Vec<u8> {
    frames.iter().flat_map(|frame| frame.encode().unwrap()).collect()
}

fn list(records: &[Record<'_>]) -> Frame {
    let mut writer = RecordsWriter::new(usize::MAX);
    assert!(records.iter().all(|record| writer.try_push(record)));
    Frame::Records(writer.finish())
}

#[test]
#[ignore = "writes fuzz/corpus"]
fn write_the_seeds() {
    datagrams();
    streams();
    lists();
    seals();
}

/// Datagrams that one member said to another in a minute, of each length one.
fn said(sealed: bool) -> Vec<Bytes> {
    let pair = Pair::new(sealed).go_on(Duration::from_secs(60));
    let lengths: BTreeMap<usize, Bytes> =
        pair.datagrams.into_iter().map(|datagram| (datagram.len(), datagram)).collect();
    assert!(lengths.len() >= 2, "hardly anything was said");
    lengths.into_values().collect()
}

fn datagrams() {
    let target = "gossip_datagram";
    let said = said(false);
    for (number, datagram) in said.iter().enumerate().take(12) {
        put(target, &format!("said_{number:02}"), datagram);
    }
    let swim = said.iter().find_map(|datagram| {
        Datagram::parse(datagram).unwrap().sections.find_map(|section| match section {
            Ok(Section::Swim(swim)) => Some(swim.to_vec()),
            _ => None,
        })
    });
    let swim = swim.unwrap();
    // What the check puts into a section of its own.
    put(target, "swim_alone", &swim);
    let everything = written(|writer| {
        assert!(writer.try_push_swim(&swim));
        assert!(records().iter().all(|record| writer.try_push_record(record)));
        assert!(writer.try_push_advert(&advert()));
        assert!(writer.try_push_digest(7, &roots()));
        assert!(writer.try_push_stale(name_hash("instance")) && writer.try_push_stale(1));
        assert!(writer.try_push_beacon(beacon()));
    });
    put(target, "everything", &everything);
    // Without its header, which the check puts before it.
    put(target, "everything_bare", &everything[HEADER_BYTES..]);
    let bare = |records: &[Record<'_>]| with(records)[HEADER_BYTES..].to_vec();
    let hour = 60 * 60 * 1_000;
    put(target, "from_the_future", &bare(&[Record { version: version(0, hour), ..live(KEY, "x", 0, b"x") }]));
    let own =
        Record { author: name_hash(NAMES[0]), version: version(0, hour), ..live(KEY, "own", 0, b"forged") };
    put(target, "own_from_the_future", &bare(&[own]));
    put(target, "last_epoch", &bare(&[Record { version: version(u32::MAX - 1, 1), ..own }]));
    put(target, "about_one", &bare(&[live(MEMBERS_KEY, NAMES[0], 0, b"nonsense")]));
    put(target, "about_other", &bare(&[live(MEMBERS_KEY, NAMES[1], 0, b"\x05\0other\x01\0z\0\0")]));
    let ids: Vec<String> = (0..200).map(|number| format!("entry-{number}")).collect();
    let many: Vec<Record<'_>> = ids.iter().map(|id| live(KEY, id, 0, b"")).collect();
    put(target, "more_entries_than_there_may_be", &bare(&many));
    let keys: Vec<Record<'_>> = ids.iter().map(|id| live(id, "", 0, b"")).collect();
    put(target, "more_keys_than_there_may_be", &bare(&keys));
}

fn streams() {
    let target = "gossip_stream";
    let said = Pair::new(false).streams;
    assert!(!said.is_empty());
    for (number, stream) in said.values().enumerate().take(4) {
        put(target, &format!("said_{number}_whole"), &[&[0_u8][..], &stream[..]].concat());
        put(target, &format!("said_{number}_in_sevens"), &[&[7_u8][..], &stream[..]].concat());
    }
    let node = NodeId::new("third", START_MS, "[2001:db8::1]:7946".parse().unwrap());
    let alive = MemberEntry { node, incarnation: 3, state: 0 };
    let dead = MemberEntry { node: NodeId::new(NAMES[1], START_MS, addr(1)), incarnation: 0, state: 2 };
    let entry = EntryId::new("instance", 0);
    let bucket = 17;
    let request = Frame::SyncRequest { join: true, member_hash: 1, roots: roots() };
    let done = Frame::Done { moved: 0 };
    let entries = Frame::Entries { key: KEY.into(), bucket, entries: vec![(entry.clone(), 1)] };
    let fetch = Frame::Fetch { key: KEY.into(), entries: vec![entry, EntryId::new("instance", 1)] };
    let conversations: [(&str, Vec<Frame>); 7] = [
        ("ping", vec![Frame::Ping { nonce: 9 }]),
        ("fetch", vec![fetch.clone(), done.clone()]),
        (
            "session",
            vec![
                request.clone(),
                Frame::Members(vec![alive, dead]),
                entries,
                done.clone(),
                fetch,
                list(&records()),
                Frame::Done { moved: 4 },
            ],
        ),
        ("session_cut", vec![request.clone(), list(&records())]),
        ("wrong_turns", vec![done, request, Frame::Pong { nonce: 1, node, incarnation: 1 }]),
        ("buckets", vec![Frame::Buckets { key: KEY.into(), buckets: vec![(0, 1), (bucket, 2), (255, 3)] }]),
        ("error", vec![Frame::Error { code: 1, text: "no".into() }]),
    ];
    for (name, frames) in conversations {
        // Behind the greeting that the check puts before it, and behind its own.
        let frames = encoded(&frames);
        put(target, name, &[&[0_u8][..], &frames[..]].concat());
        put(target, &format!("{name}_greeted"), &[&[3, MAGIC][..], &hello()[..], &frames[..]].concat());
    }
    let long = vec![b'a'; 3_000];
    let packed = list(&[live(KEY, "long", 0, &long)]).encode_packed().unwrap();
    assert!(packed.len() < long.len(), "it is not packed");
    put(target, "packed", &[&[0_u8][..], &packed[..]].concat());
    put(target, "too_long", &[&[0_u8][..], &u32::MAX.to_le_bytes(), b"x"].concat());
    put(target, "http", b"\0GET / HTTP/1.1\r\n\r\n");
}

fn lists() {
    let target = "gossip_record";
    put(target, "records", &encoded(&[list(&records())])[FRAME_HEAD..]);
    // Only these four have just one section, whose head goes too.
    let section = |datagram: &Bytes| datagram[HEADER_BYTES + SECTION_HEAD..].to_vec();
    put(
        target,
        "adverts",
        &section(&written(|writer| {
            assert!(writer.try_push_advert(&advert()));
            assert!(writer.try_push_advert(&Advert { key: "another key", id: "", ..advert() }));
        })),
    );
    put(target, "digest", &section(&written(|writer| assert!(writer.try_push_digest(7, &roots())))));
    put(
        target,
        "stale",
        &section(&written(|writer| {
            assert!((0..5).all(|hash| writer.try_push_stale(hash)));
        })),
    );
    put(target, "beacon", &section(&written(|writer| assert!(writer.try_push_beacon(beacon())))));
    put(target, "about", b"\x03\0one\x01\0z\x05\x001.2.3");
    for (name, at) in [("id_v4", "10.0.0.1:7946"), ("id_v6", "[2001:db8::1]:7946")] {
        let mut id = Vec::new();
        NodeId::new(name, START_MS, at.parse().unwrap()).encode(&mut id);
        put(target, name, &id);
    }
    // A number of a key that was not given out, a name that is given out twice, a number in more bytes than it takes.
    put(target, "unknown_key", &[5, 1, b'k']);
    let twice = encoded(&[list(&[live("a", "", 0, b"")])])[FRAME_HEAD..].to_vec();
    put(target, "key_twice", &[&twice[..], &[1], &twice[1..]].concat());
    put(target, "long_number", &[0x80, 0]);
    put(
        target,
        "claims_256_kib",
        &[&[0, 1, b'k', 1, b'i', 0, 0][..], &[0; 16], &[0, 0x80, 0x80, 0x10, 1]].concat(),
    );
}

fn seals() {
    let target = "gossip_seal";
    for (number, datagram) in said(true).iter().enumerate().take(6) {
        put(target, &format!("said_{number}"), datagram);
    }
    let streams = Pair::new(true).streams;
    assert!(!streams.is_empty());
    for (number, stream) in streams.values().enumerate().take(2) {
        // The check puts the first byte before it.
        put(target, &format!("stream_{number}"), stream.strip_prefix(&[SEALED_MAGIC]).unwrap());
    }
    let keyring = keyring();
    let mut sealer = Sealer::new(SESSION, LABEL);
    let plain = with(&records());
    let sealed = sealer.seal_datagram(&keyring, plain.clone()).unwrap();
    put(target, "datagram", &sealed);
    put(target, "datagram_short", &sealed[..HEADER_BYTES + 10]);
    put(
        target,
        "datagram_of_another_cluster",
        &Sealer::new(SESSION, "x").seal_datagram(&keyring, plain.clone()).unwrap(),
    );
    put(target, "datagram_unsealed", &plain);
    let mut stream = StreamSealer::try_new(&keyring, SESSION, STREAM, Direction::Forth).unwrap();
    let frames = [hello(), Frame::Ping { nonce: 1 }.encode().unwrap(), list(&records()).encode().unwrap()];
    let frames: Vec<u8> = frames.iter().flat_map(|frame| stream.seal_frame(frame).unwrap()).collect();
    put(target, "frames", &frames);
    let numbers = [SESSION.to_le_bytes(), STREAM.to_le_bytes()].concat();
    put(target, "stream_of_frames", &[&numbers[..], &frames[..]].concat());
    put(target, "empty", b"");
}
