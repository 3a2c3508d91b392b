//! What must hold for arbitrary bytes that come to a member of a gossip cluster: no panic, nothing beyond its bounds, and it
//! goes on to live and to write. Used by the fuzz targets and by the test that replays their corpora.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use ringkit_gossip::api::{Command, Input, Output, Phase, StreamEvent, StreamId};
use ringkit_gossip::id::NodeId;
use ringkit_gossip::member::{Member, SEALED_MAGIC};
use ringkit_gossip::node::About;
use ringkit_gossip::register::{Body, EntryId};
use ringkit_gossip::seal::{
    Direction, Keyring, OpenError, Opener, Sealer, StreamOpener, StreamSealer, TAG_BYTES,
};
use ringkit_gossip::store::Slot;
use ringkit_gossip::wire::{
    Datagram, DatagramWriter, Frame, FrameReader, HEADER_BYTES, Header, MAGIC, MAX_DATAGRAM_BYTES,
    MAX_FRAME_BYTES, RecordsWriter, Section, Sections, VERSION, WireError, label_hash,
};
use smol_str::SmolStr;
use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

pub mod pair;

use pair::{KEY, LABEL, LIMITS, MAX_MEMBERS, NAMES, Pair, START_MS, addr, keyring, now_at};

/// The numbers by which bytes are sealed here.
pub const SESSION: u64 = 0x1122_3344_5566_7788;
/// See there.
pub const STREAM: u64 = 3;

/// Kinds of sections, and the type of the frame that has records.
const SWIM: u8 = 1;
const RECORDS: u8 = 2;
const ADVERTS: u8 = 3;
const DIGEST: u8 = 4;
const STALE: u8 = 5;
const BEACON: u8 = 6;
const RECORDS_FRAME: u8 = 8;
/// Bytes of a frame before what is said.
const LENGTH_BYTES: usize = 4;
/// No datagram of a member is longer.
const PACKET_BYTES: usize = 1_400;

/// A member that has found another one, and is given what nobody should send.
struct Watched {
    member: Member,
    now: Duration,
    sealed: bool,
    next_stream: u64,
}

impl Watched {
    fn new(sealed: bool) -> Self {
        let Pair { members: [member, _], now, .. } = Pair::new(sealed);
        Self { member, now, sealed, next_stream: 1 << 32 }
    }

    fn root(&self) -> u128 {
        self.member.node().store().root()
    }

    fn look(&self, out: &[Output]) {
        for output in out {
            match output {
                Output::Datagram { bytes, .. } => {
                    assert!(bytes.len() <= PACKET_BYTES, "a datagram of {} bytes", bytes.len());
                    let is_sealed = Header::parse(bytes).is_ok_and(Header::is_sealed);
                    assert_eq!(is_sealed, self.sealed, "a datagram is sealed as all are");
                }
                Output::Write { bytes, .. } => {
                    assert!(bytes.len() <= MAX_FRAME_BYTES + 64, "a frame of {} bytes", bytes.len());
                }
                _ => {}
            }
        }
    }

    fn feed(&mut self, input: Input<'_>) -> Vec<Output> {
        let mut out = Vec::new();
        self.member.handle(now_at(self.now), input, &mut out);
        self.look(&out);
        out
    }

    /// A datagram comes from the other member.
    fn datagram(&mut self, bytes: &[u8]) {
        let mut out = Vec::new();
        self.member.handle_datagram(now_at(self.now), addr(1), &mut bytes.to_vec(), &mut out);
        self.look(&out);
    }

    /// A stream comes from the other member's host, in pieces of this size, and ends.
    fn stream(&mut self, said: &[u8], size: usize) {
        self.next_stream += 2;
        let id = StreamId(self.next_stream);
        let peer = SocketAddr::new(addr(1).ip(), 40_000);
        let is_closed = |out: &[Output]| out.contains(&Output::Close { id });
        let mut closed = is_closed(&self.feed(Input::Stream { id, event: StreamEvent::Opened { peer } }));
        for piece in pieces(said, size) {
            if closed {
                return;
            }
            closed = is_closed(&self.feed(Input::Stream { id, event: StreamEvent::Data(piece) }));
        }
        if !closed {
            self.feed(Input::Stream { id, event: StreamEvent::Closed });
        }
    }

    /// Time passes; all bounds hold; and what the member writes itself counts.
    fn lives_on(&mut self) {
        for _ in 0..8 {
            let soonest = self.now + Duration::from_millis(1);
            self.now = self.member.next_deadline().clamp(soonest, self.now + Duration::from_secs(5));
            self.feed(Input::Tick);
        }
        self.check_bounds();
        if matches!(self.member.node().status().phase, Phase::Left | Phase::Failed | Phase::Leaving) {
            return;
        }
        let entry = EntryId::new("own", 0);
        let changes = vec![(entry.clone(), Some(Bytes::from_static(b"mine")))];
        self.feed(Input::Command(Command::Upsert { key: SmolStr::new(KEY), changes }));
        let held = self.member.node().store().get(KEY, &entry).map(Slot::register);
        assert!(held.is_some_and(|held| held.body == Body::Live(Bytes::from_static(b"mine"))), "{held:?}");
    }

    fn check_bounds(&self) {
        let (node, store) = (self.member.node(), self.member.node().store());
        // What is known already, or of one's own, may take as much again, and what the member writes itself more.
        assert!(store.sizes().bytes <= 2 * LIMITS.max_bytes + 4_096, "{} bytes stored", store.sizes().bytes);
        assert!(store.num_keys() <= 2 * LIMITS.max_keys + 2, "{} keys", store.num_keys());
        for key in store.keys() {
            let entries = store.key_sizes(key).entries;
            assert!(entries <= 2 * LIMITS.max_entries_per_key + 8, "{entries} registers in a key");
        }
        let status = node.status();
        assert!(status.queued <= status.registers, "{} of {} are queued", status.queued, status.registers);
        assert!(status.members <= MAX_MEMBERS + 1, "{} members", status.members);
        assert!(node.members().len() <= MAX_MEMBERS + 1, "{} members are known", node.members().len());
    }
}

/// All of it at once if `size` is 0.
fn pieces(bytes: &[u8], size: usize) -> impl Iterator<Item = &[u8]> {
    bytes.chunks(if size == 0 { bytes.len().max(1) } else { size })
}

/// The items of a list up to an error, which is its end and says where it is.
fn items<T>(mut list: impl Iterator<Item = Result<T, WireError>>, end: usize) -> Vec<T> {
    let mut read = Vec::new();
    while let Some(item) = list.next() {
        match item {
            Ok(item) => read.push(item),
            Err(error) => {
                assert!(error.at <= end, "an error at byte {} of {end}", error.at);
                assert!(list.next().is_none(), "a list goes on after an error");
            }
        }
    }
    read
}

/// A section with as much of these bytes as it can have.
fn section(kind: u8, body: &[u8]) -> Vec<u8> {
    let body = &body[..body.len().min(usize::from(u16::MAX))];
    let [low, high] = u16::try_from(body.len()).unwrap_or(u16::MAX).to_le_bytes();
    [&[kind, low, high][..], body].concat()
}

/// The checksum keeps most bytes from getting further: these are made the sections of a datagram that has a true one.
fn framed(sections: &[u8]) -> Vec<u8> {
    let mut datagram = Header::new(label_hash(LABEL), SESSION).encode().to_vec();
    datagram.extend_from_slice(sections);
    let checksum = xxh3_64_with_seed(sections, xxh3_64(&datagram[..HEADER_BYTES - 8]));
    datagram[HEADER_BYTES - 8..HEADER_BYTES].copy_from_slice(&checksum.to_le_bytes());
    datagram
}

fn read_datagram(bytes: &[u8]) {
    match Datagram::parse(bytes) {
        Ok(datagram) => read_sections(datagram.sections, bytes.len()),
        Err(error) => assert!(error.at <= bytes.len(), "an error at byte {} of {}", error.at, bytes.len()),
    }
}

fn read_sections(sections: Sections<'_>, end: usize) {
    for section in items(sections, end) {
        match section {
            Section::Records(records) => drop(items(records, end)),
            Section::Adverts(adverts) => drop(items(adverts, end)),
            Section::Digest(digest) => drop(items(digest.roots, end)),
            Section::Stale(stale) => drop(items(stale, end)),
            Section::Swim(_) | Section::Beacon(_) => {}
        }
    }
}

/// A datagram that comes to a member without keys.
pub fn datagram(bytes: &[u8]) {
    let swim = section(SWIM, bytes);
    let (sections, swim) = (framed(bytes), framed(&swim));
    let mut member = Watched::new(false);
    for datagram in [bytes, &sections[..], &swim[..]] {
        read_datagram(datagram);
        member.datagram(datagram);
    }
    assert!(Datagram::parse(&sections).is_ok(), "a true checksum is not taken");
    member.lives_on();
}

/// A stream that comes to a member without keys. The first byte says in pieces of what size; 0 is all at once.
pub fn stream(bytes: &[u8]) {
    let Some((size, said)) = bytes.split_first() else { return };
    let size = usize::from(*size);
    // Behind the byte that a stream begins with, and as if that were not there.
    let behind = said.strip_prefix(&[MAGIC]).unwrap_or(said);
    let frames = read_frames(behind, size);
    assert_eq!(frames, read_frames(behind, 0), "it depends on the pieces");
    frames.iter().flatten().for_each(comes_back);
    let mut member = Watched::new(false);
    member.stream(said, size);
    // And behind what every stream has first.
    let greeted = [&[MAGIC][..], &hello()[..], said].concat();
    member.stream(&greeted, size);
    member.lives_on();
}

/// What the other member says first on a stream.
pub fn hello() -> Bytes {
    let node = NodeId::new(NAMES[1], START_MS, addr(1));
    let (label, name) = (LABEL.into(), NAMES[1].into());
    let hello =
        Frame::Hello { version: VERSION, label, node, name, build: SmolStr::default(), settled: true };
    hello.encode().unwrap_or_default()
}

fn read_frames(said: &[u8], size: usize) -> Vec<Result<Frame, WireError>> {
    let (mut reader, mut frames) = (FrameReader::default(), Vec::new());
    for mut piece in pieces(said, size) {
        loop {
            let before = piece.len();
            match reader.next_frame(&mut piece) {
                Ok(Some(frame)) => frames.push(Ok(frame)),
                Ok(None) => {
                    assert!(piece.is_empty(), "nothing more is read, and something is left");
                    break;
                }
                // Nothing more can be read: the last error repeats.
                Err(error) if piece.len() == before => {
                    assert_eq!(frames.last(), Some(&Err(error)));
                    return frames;
                }
                Err(error) => frames.push(Err(error)),
            }
        }
    }
    frames
}

/// A frame that was read is written and read again, packed or not.
fn comes_back(frame: &Frame) {
    for bytes in [frame.encode(), frame.encode_packed()].into_iter().flatten() {
        assert_eq!(Frame::decode(&bytes.slice(LENGTH_BYTES..)).as_ref(), Ok(frame));
    }
    if let Frame::Records(records) = frame {
        items(records.iter(), usize::MAX);
    }
}

/// Lists and what is in them, without what is around: what can be read is written and read again.
pub fn record(bytes: &[u8]) {
    // Longer ones are cut by sections.
    let bytes = &bytes[..bytes.len().min(MAX_DATAGRAM_BYTES / 2)];
    records(bytes);
    for kind in [ADVERTS, DIGEST, STALE, BEACON] {
        let sections = section(kind, bytes);
        for section in items(Sections::new(&sections), HEADER_BYTES + sections.len()) {
            section_comes_back(section);
        }
    }
    if let Some(about) = About::decode(bytes) {
        assert!(about.name.len() + about.zone.len() + about.build.len() + 6 <= bytes.len());
    }
    let mut rest = bytes;
    if let Ok(id) = NodeId::decode(&mut rest) {
        let mut again = Vec::new();
        id.encode(&mut again);
        assert_eq!(again, bytes[..bytes.len() - rest.len()]);
    }
}

fn records(bytes: &[u8]) {
    let frame = Bytes::from([&[RECORDS_FRAME][..], bytes].concat());
    let Ok(Frame::Records(list)) = Frame::decode(&frame) else { panic!("records are not read one by one") };
    let read = items(list.iter(), LENGTH_BYTES + 1 + bytes.len());
    for record in &read {
        let register = record.register();
        assert!(!register.supersedes(&register) && register.order() == record.register().order());
        assert_eq!(record.body.is_none(), register.is_tombstone());
    }
    let mut writer = RecordsWriter::new(usize::MAX);
    assert!(read.iter().all(|record| writer.try_push(record)), "what was read cannot be written");
    let again = writer.finish();
    assert_eq!(items(again.iter(), usize::MAX), read);
    let sections = section(RECORDS, bytes);
    let mut sections = Sections::new(&sections);
    let Some(Ok(Section::Records(in_section))) = sections.next() else {
        panic!("records are another section")
    };
    assert_eq!(items(in_section, usize::MAX), read, "in a datagram it is something else");
}

/// A section that was read is written and read again.
fn section_comes_back(section: Section<'_>) {
    let mut writer = DatagramWriter::new(MAX_DATAGRAM_BYTES, Header::new(0, 0));
    match section {
        Section::Adverts(adverts) => {
            let read = items(adverts, usize::MAX);
            assert!(read.iter().all(|advert| writer.try_push_advert(advert)), "{read:?} cannot be written");
            let bytes = writer.finish();
            let again = match only(&bytes) {
                Some(Section::Adverts(again)) => items(again, 0),
                _ => Vec::new(),
            };
            assert_eq!(again, read);
        }
        Section::Digest(digest) => {
            let roots = items(digest.roots, usize::MAX);
            let owned: Vec<_> = roots.iter().map(|(key, root)| (SmolStr::new(key), *root)).collect();
            assert!(writer.try_push_digest(digest.member_hash, &owned), "{roots:?} cannot be written");
            let bytes = writer.finish();
            let Some(Section::Digest(again)) = only(&bytes) else { panic!("a digest is something else") };
            assert_eq!((again.member_hash, items(again.roots, 0)), (digest.member_hash, roots));
        }
        Section::Stale(stale) => {
            let read = items(stale, usize::MAX);
            assert!(read.iter().all(|hash| writer.try_push_stale(*hash)), "{read:?} cannot be written");
            let bytes = writer.finish();
            let again = match only(&bytes) {
                Some(Section::Stale(again)) => items(again, 0),
                _ => Vec::new(),
            };
            assert_eq!(again, read);
        }
        Section::Beacon(beacon) => {
            assert!(writer.try_push_beacon(beacon), "{beacon:?} cannot be written");
            let bytes = writer.finish();
            let Some(Section::Beacon(again)) = only(&bytes) else { panic!("a beacon is something else") };
            assert_eq!(again, beacon);
        }
        Section::Swim(_) | Section::Records(_) => panic!("a section is of another kind"),
    }
}

/// The only section of a datagram.
fn only(datagram: &[u8]) -> Option<Section<'_>> {
    let mut sections = Datagram::parse(datagram).ok()?.sections;
    let only = sections.next()?.ok()?;
    sections.next().is_none().then_some(only)
}

/// What is sealed, or claims to be, and comes to a member that takes nothing else.
pub fn seal(bytes: &[u8]) {
    let keyring = keyring();
    let opened = opens_once(&keyring, bytes);
    opens_in_order(&keyring, bytes);
    sealed_opens_unless_damaged(&keyring, bytes);
    let mut member = Watched::new(true);
    let before = member.root();
    member.datagram(bytes);
    assert!(opened || member.root() == before, "what cannot be opened changed something");
    let sealed = [&[SEALED_MAGIC][..], bytes].concat();
    member.stream(&sealed, 0);
    member.stream(bytes, 5);
    member.lives_on();
}

/// Whether this is a sealed datagram that these keys open; if so, they do it once.
fn opens_once(keyring: &Keyring, bytes: &[u8]) -> bool {
    let mut lenient = Opener::new(false);
    if let Ok(datagram) = lenient.open_datagram(keyring, LABEL, &mut bytes.to_vec()) {
        read_sections(datagram.sections, bytes.len());
    }
    let mut opener = Opener::new(true);
    let opened = opener.open_datagram(keyring, LABEL, &mut bytes.to_vec()).is_ok();
    if opened {
        let again = opener.open_datagram(keyring, LABEL, &mut bytes.to_vec()).map(drop);
        assert_eq!(again, Err(OpenError::Replayed));
    }
    opened
}

/// Frames come out of a stream until something is wrong, and nothing after that.
fn opens_in_order(keyring: &Keyring, bytes: &[u8]) {
    let mut opener = StreamOpener::new(keyring, SESSION, STREAM, Direction::Forth);
    for mut piece in pieces(bytes, 7) {
        loop {
            match opener.next_frame(&mut piece) {
                Ok(Some(frame)) => drop(Frame::decode(&frame)),
                Ok(None) => {
                    assert!(piece.is_empty(), "nothing more is read, and something is left");
                    break;
                }
                Err(error) => {
                    assert_eq!(opener.next_frame(&mut piece), Err(error), "a broken stream goes on");
                    assert_eq!(opener.finish(), Err(error));
                    return;
                }
            }
        }
    }
}

/// Whatever is sealed comes out as it was, unless one bit is flipped on its way.
fn sealed_opens_unless_damaged(keyring: &Keyring, bytes: &[u8]) {
    let body = &bytes[..bytes.len().min(MAX_DATAGRAM_BYTES - HEADER_BYTES - TAG_BYTES)];
    let header = Header::new(label_hash(LABEL), SESSION).sealed(0, 0).encode();
    let plain = [&header[..], body].concat();
    let sealed = match Sealer::new(SESSION, LABEL).seal_datagram(keyring, plain.into()) {
        Ok(sealed) => sealed,
        Err(error) => panic!("a datagram is not sealed: {error}"),
    };
    let mut whole = sealed.clone();
    assert!(Opener::new(true).open_datagram(keyring, LABEL, &mut whole).is_ok());
    assert_eq!(&whole[HEADER_BYTES..HEADER_BYTES + body.len()], body);
    let mut damaged = flipped(&sealed);
    assert!(Opener::new(true).open_datagram(keyring, LABEL, &mut damaged).is_err(), "damaged, and opened");

    let length = u32::try_from(body.len()).unwrap_or(0).to_le_bytes();
    let frame = [&length[..], body].concat();
    let sealer = StreamSealer::try_new(keyring, SESSION, STREAM, Direction::Forth);
    let sealed = match sealer.and_then(|mut sealer| sealer.seal_frame(&frame)) {
        Ok(sealed) => sealed,
        Err(error) => panic!("a frame is not sealed: {error}"),
    };
    let mut opener = StreamOpener::new(keyring, SESSION, STREAM, Direction::Forth);
    assert_eq!(opener.next_frame(&mut &sealed[..]), Ok(Some(Bytes::copy_from_slice(body))));
    let mut opener = StreamOpener::new(keyring, SESSION, STREAM, Direction::Forth);
    let damaged = flipped(&sealed);
    let opened = opener.next_frame(&mut &damaged[..]);
    // With a longer length it goes on to wait for the rest.
    assert!(opened.is_err() || (opened == Ok(None) && opener.finish().is_err()), "damaged, and opened");
}

/// With one bit flipped, which one depends on all of them.
fn flipped(bytes: &[u8]) -> Vec<u8> {
    let mut flipped = bytes.to_vec();
    let bit = usize::try_from(xxh3_64(bytes) % (bytes.len() as u64 * 8)).unwrap_or(0);
    flipped[bit / 8] ^= 1 << (bit % 8);
    flipped
}
