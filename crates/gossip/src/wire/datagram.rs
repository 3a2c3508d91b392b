//! Datagrams: a header, and sections of several kinds that share the room.

use bytes::Bytes;
use smol_str::SmolStr;
use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

use crate::time::Hlc;

use super::code::{Cursor, put_fitting, put_u64, put_varint};
use super::list::{Advert, Adverts, Keys, Record, Records, Roots, put_root};
use super::{Fault, MAGIC, VERSION, WireError, is_compatible};

/// How many bytes of a datagram come before its sections.
pub const HEADER_BYTES: usize = 28;
/// The largest datagram that UDP carries over IPv4.
pub const MAX_DATAGRAM_BYTES: usize = 65_507;
/// What follows the header is sealed. The next flag, 2, is kept for compression.
pub const FLAG_SEALED: u8 = 1;

/// Where the flags are.
const FLAGS_AT: usize = 2;
/// Where the checksum is: the last field of the header.
const CHECKSUM_AT: usize = HEADER_BYTES - 8;
/// Kind and length.
const SECTION_HEADER_BYTES: usize = 3;

pub(super) const SWIM: u8 = 1;
pub(super) const RECORDS: u8 = 2;
pub(super) const ADVERTS: u8 = 3;
pub(super) const DIGEST: u8 = 4;
pub(super) const STALE: u8 = 5;
pub(super) const BEACON: u8 = 6;

/// What every datagram begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// What the sender speaks.
    pub version: u8,
    /// [`FLAG_SEALED`] or nothing.
    pub flags: u8,
    /// Which key seals it.
    pub key_id: u8,
    /// [Hash](super::label_hash) of the cluster's label.
    pub label: u64,
    /// Random number of the sender's process.
    pub session: u64,
    /// If sealed, what makes the seal unique; else the checksum, which the writer fills in.
    pub nonce_or_checksum: u64,
}

impl Header {
    /// Of a datagram that will not be sealed.
    pub fn new(label: u64, session: u64) -> Self {
        Self { version: VERSION, flags: 0, key_id: 0, label, session, nonce_or_checksum: 0 }
    }

    /// The same for a datagram that will be.
    pub fn sealed(self, key_id: u8, nonce: u64) -> Self {
        Self { flags: self.flags | FLAG_SEALED, key_id, nonce_or_checksum: nonce, ..self }
    }

    /// Whether what follows is sealed.
    pub fn is_sealed(self) -> bool {
        self.flags & FLAG_SEALED != 0
    }

    /// As it is sent.
    pub fn encode(self) -> [u8; HEADER_BYTES] {
        let mut out = [0; HEADER_BYTES];
        out[..4].copy_from_slice(&[MAGIC, self.version, self.flags, self.key_id]);
        out[4..12].copy_from_slice(&self.label.to_le_bytes());
        out[12..CHECKSUM_AT].copy_from_slice(&self.session.to_le_bytes());
        out[CHECKSUM_AT..].copy_from_slice(&self.nonce_or_checksum.to_le_bytes());
        out
    }

    /// Reads the header of a datagram, sealed or not. What follows it is not looked at.
    ///
    /// # Errors
    ///
    /// If it is none, is of another major version, or has flags that are not known.
    pub fn parse(datagram: &[u8]) -> Result<Self, WireError> {
        let mut cursor = Cursor::new(datagram, 0);
        // In order of who is to blame: a stranger, a peer of another age, a damaged datagram.
        let start = cursor;
        let magic = cursor.u8()?;
        if magic != MAGIC {
            return Err(start.error(Fault::Magic(magic)));
        }
        let start = cursor;
        let version = cursor.u8()?;
        if !is_compatible(version) {
            return Err(start.error(Fault::Version(version)));
        }
        let start = cursor;
        let flags = cursor.u8()?;
        if flags & !FLAG_SEALED != 0 {
            return Err(start.error(Fault::Flags(flags)));
        }
        Ok(Self {
            version,
            flags,
            key_id: cursor.u8()?,
            label: cursor.u64()?,
            session: cursor.u64()?,
            nonce_or_checksum: cursor.u64()?,
        })
    }
}

/// Of a whole datagram, which is no shorter than its header: over the sections, with the other fields as the seed, so that a
/// flipped bit is found wherever it is.
fn checksum(datagram: &[u8]) -> u64 {
    xxh3_64_with_seed(&datagram[HEADER_BYTES..], xxh3_64(&datagram[..CHECKSUM_AT]))
}

pub(super) fn put_checksum(datagram: &mut [u8]) {
    let checksum = checksum(datagram);
    datagram[CHECKSUM_AT..HEADER_BYTES].copy_from_slice(&checksum.to_le_bytes());
}

/// A datagram that came in.
#[derive(Clone, Debug)]
pub struct Datagram<'a> {
    /// How it begins. Whether its label is the right one is for the caller to judge.
    pub header: Header,
    /// What is in it.
    pub sections: Sections<'a>,
}

impl<'a> Datagram<'a> {
    /// Reads the header and compares the checksum; sections are read as they are iterated over.
    ///
    /// # Errors
    ///
    /// As [`Header::parse`]; [`Fault::Checksum`] if it was damaged; [`Fault::Sealed`], with the header, if it must be opened
    /// first.
    pub fn parse(datagram: &'a [u8]) -> Result<Self, WireError> {
        let header = Header::parse(datagram)?;
        if header.is_sealed() {
            return Err(WireError { at: FLAGS_AT, fault: Fault::Sealed(header) });
        }
        if checksum(datagram) != header.nonce_or_checksum {
            return Err(WireError { at: CHECKSUM_AT, fault: Fault::Checksum });
        }
        Ok(Self { header, sections: Sections::new(&datagram[HEADER_BYTES..]) })
    }
}

/// One section of a datagram.
#[derive(Clone, Debug)]
pub enum Section<'a> {
    /// For the membership engine.
    Swim(&'a [u8]),
    /// Registers.
    Records(Records<'a>),
    /// Word of large registers.
    Adverts(Adverts<'a>),
    /// What the sender has, in short.
    Digest(Digest<'a>),
    /// Hashes of the entries whose heartbeats the sender misses.
    Stale(Stale<'a>),
    /// Something whose way is timed.
    Beacon(Beacon),
}

/// What a member has, in short: if hashes differ, so do what they are of.
#[derive(Clone, Debug)]
pub struct Digest<'a> {
    /// Of the members it knows.
    pub member_hash: u64,
    /// Of what its keys hold.
    pub roots: Roots<'a>,
}

/// Hashes of entries. The first error is the last item.
#[derive(Clone, Debug)]
pub struct Stale<'a>(Cursor<'a>);

impl Iterator for Stale<'_> {
    type Item = Result<u64, WireError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.0.item(Cursor::u64)
    }
}

/// Something that everybody gets to see now and then, to know how long that takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Beacon {
    /// Who sent it out.
    pub author: u64,
    /// When, by the author's clock: tells one from another.
    pub hlc: Hlc,
    /// How long ago, in milliseconds of the monotonic clocks of those who had it.
    pub age_ms: u64,
}

impl Beacon {
    fn put(self, out: &mut Vec<u8>) {
        put_u64(out, self.author);
        put_u64(out, self.hlc.0);
        put_varint(out, self.age_ms);
    }

    fn read(mut cursor: Cursor<'_>) -> Result<Self, WireError> {
        let beacon = Self { author: cursor.u64()?, hlc: Hlc(cursor.u64()?), age_ms: cursor.varint()? };
        cursor.end()?;
        Ok(beacon)
    }
}

/// The sections of a datagram. Unknown kinds are passed over; the first error is the last item.
#[derive(Clone, Debug)]
pub struct Sections<'a> {
    cursor: Cursor<'a>,
    has_swim: bool,
}

impl<'a> Sections<'a> {
    /// Reads `body`, all that follows the header, as it was before sealing.
    pub fn new(body: &'a [u8]) -> Self {
        Self { cursor: Cursor::new(body, HEADER_BYTES), has_swim: false }
    }
}

impl<'a> Iterator for Sections<'a> {
    type Item = Result<Section<'a>, WireError>;

    fn next(&mut self) -> Option<Self::Item> {
        let Self { cursor, has_swim } = self;
        loop {
            let section = cursor.item(|cursor| read_section(cursor, has_swim))?;
            if let Some(known) = section.transpose() {
                return Some(known);
            }
        }
    }
}

fn read_section<'a>(cursor: &mut Cursor<'a>, has_swim: &mut bool) -> Result<Option<Section<'a>>, WireError> {
    let start = *cursor;
    let kind = cursor.u8()?;
    let len = cursor.u16()?;
    let mut body = cursor.part(len.into())?;
    Ok(Some(match kind {
        SWIM => {
            if std::mem::replace(has_swim, true) {
                return Err(start.error(Fault::Repeated));
            }
            Section::Swim(body.take_rest())
        }
        RECORDS => Section::Records(Records::new(body)),
        ADVERTS => Section::Adverts(Adverts::new(body)),
        DIGEST => {
            let member_hash = body.u64()?;
            Section::Digest(Digest { member_hash, roots: Roots(body) })
        }
        STALE => Section::Stale(Stale(body)),
        BEACON => Section::Beacon(Beacon::read(body)?),
        // Of a later minor version.
        _ => return Ok(None),
    }))
}

/// Fills a datagram up to a size. What does not fit is refused and leaves nothing behind.
///
/// Items of one kind that are pushed one after another share a section.
#[derive(Debug)]
pub struct DatagramWriter {
    max_size: usize,
    header: Header,
    out: Vec<u8>,
    /// The section that is written at the end, if more may be added to it.
    open: Option<Open>,
    /// The keys that it has named.
    keys: Keys,
    has_swim: bool,
}

#[derive(Clone, Copy, Debug)]
struct Open {
    kind: u8,
    at: usize,
}

impl DatagramWriter {
    /// Begins a datagram of at most `max_size` bytes in all, or of [`MAX_DATAGRAM_BYTES`]; if the header alone is longer, of
    /// the header alone. If it will be sealed, the tag is for the caller to leave room for.
    pub fn new(max_size: usize, header: Header) -> Self {
        Self {
            max_size: max_size.clamp(HEADER_BYTES, MAX_DATAGRAM_BYTES),
            header,
            out: header.encode().to_vec(),
            open: None,
            keys: Keys::default(),
            has_swim: false,
        }
    }

    /// How many bytes the datagram has.
    pub fn len(&self) -> usize {
        self.out.len()
    }

    /// Whether it has no section yet. What does not fit into an empty datagram never will.
    pub fn is_empty(&self) -> bool {
        self.out.len() == HEADER_BYTES
    }

    /// How many bytes a new section could hold.
    pub fn room(&self) -> usize {
        self.max_size.saturating_sub(self.out.len() + SECTION_HEADER_BYTES)
    }

    /// Takes what the membership engine sends, once per datagram.
    pub fn try_push_swim(&mut self, bytes: &[u8]) -> bool {
        if self.has_swim || bytes.len() > self.room() {
            return false;
        }
        self.has_swim = self.try_push_alone(SWIM, |out| {
            out.extend_from_slice(bytes);
            Ok(())
        });
        self.has_swim
    }

    /// Takes `record`. What no reader would take, such as too long an id, never fits.
    pub fn try_push_record(&mut self, record: &Record<'_>) -> bool {
        // Asked first, so that a large body is not copied in vain.
        let room = self.max_size.saturating_sub(self.out.len());
        if record.body.is_some_and(|body| body.len() > room) {
            return false;
        }
        self.try_push(RECORDS, Some(record.key), |out| record.put(out))
    }

    /// Takes `advert`. What no reader would take, such as too long an id, never fits.
    pub fn try_push_advert(&mut self, advert: &Advert<'_>) -> bool {
        self.try_push(ADVERTS, Some(advert.key), |out| advert.put(out))
    }

    /// Takes all of a digest or nothing. Keys that do not fit into one can be sent in several.
    pub fn try_push_digest(&mut self, member_hash: u64, roots: &[(SmolStr, u128)]) -> bool {
        self.try_push_alone(DIGEST, |out| {
            put_u64(out, member_hash);
            roots.iter().try_for_each(|root| put_root(out, root))
        })
    }

    /// Takes the hash of an entry whose heartbeats are missed.
    pub fn try_push_stale(&mut self, entry_hash: u64) -> bool {
        self.try_push(STALE, None, |out| {
            put_u64(out, entry_hash);
            Ok(())
        })
    }

    /// Takes `beacon`.
    pub fn try_push_beacon(&mut self, beacon: Beacon) -> bool {
        self.try_push_alone(BEACON, |out| {
            beacon.put(out);
            Ok(())
        })
    }

    /// The datagram: whole if it is not sealed, else all that is to be sealed behind its header.
    pub fn finish(mut self) -> Bytes {
        if !self.header.is_sealed() {
            put_checksum(&mut self.out);
        }
        self.out.into()
    }

    /// Takes a section that is complete with what `put` appends.
    fn try_push_alone(&mut self, kind: u8, put: impl FnOnce(&mut Vec<u8>) -> Result<(), Fault>) -> bool {
        let fits = self.try_push(kind, None, put);
        if fits {
            self.open = None;
        }
        fits
    }

    /// Takes what `put` appends, behind its key if it has one, in the open section if that is of its kind.
    fn try_push(
        &mut self,
        kind: u8,
        key: Option<&str>,
        put: impl FnOnce(&mut Vec<u8>) -> Result<(), Fault>,
    ) -> bool {
        let open = self.open.filter(|open| open.kind == kind);
        let at = open.map_or(self.out.len(), |open| open.at);
        // A new section has named nothing. The open one is not given up before it is known that the new one fits.
        let none = Keys::default();
        let keys = if open.is_some() { &self.keys } else { &none };
        let fits = put_fitting(&mut self.out, self.max_size, |out| {
            if open.is_none() {
                out.extend_from_slice(&[kind, 0, 0]);
            }
            if let Some(key) = key {
                keys.put(out, key)?;
            }
            put(out)
        });
        if !fits {
            return false;
        }
        if open.is_none() {
            self.keys.clear();
        }
        if let Some(key) = key {
            self.keys.keep(key);
        }
        self.open = Some(Open { kind, at });
        // Kept right at all times, so that no way out of here leaves it wrong. It fits because no datagram is longer.
        let body_at = at + SECTION_HEADER_BYTES;
        let len = (self.out.len() - body_at) as u16;
        self.out[at + 1..body_at].copy_from_slice(&len.to_le_bytes());
        true
    }
}
