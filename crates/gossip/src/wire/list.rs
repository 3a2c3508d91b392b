//! What sections and frames have many of: records, adverts, roots.

use std::collections::BTreeMap;

use bytes::Bytes;
use smol_str::SmolStr;

use crate::register::{Body, EntryId, MAX_BODY_BYTES, Register, Version};

use super::code::{Cursor, put_bytes, put_entry, put_fitting, put_u64, put_varint, put_version};
use super::{Fault, MAX_FRAME_BYTES, MAX_KEY_BYTES, WireError};

const TOMBSTONE: u8 = 1;
const HAS_AGE: u8 = 2;

/// The keys that a list being written has named, by their numbers.
#[derive(Debug, Default)]
pub(super) struct Keys(BTreeMap<SmolStr, u64>);

impl Keys {
    /// Appends the number of `key`, and its name if that is new.
    pub(super) fn put(&self, out: &mut Vec<u8>, key: &str) -> Result<(), Fault> {
        if let Some(number) = self.0.get(key) {
            put_varint(out, *number);
            return Ok(());
        }
        put_varint(out, self.0.len() as u64);
        put_bytes(out, key.as_bytes(), MAX_KEY_BYTES)
    }

    /// What was put of `key` stays: from now on its number will do.
    pub(super) fn keep(&mut self, key: &str) {
        let number = self.0.len() as u64;
        self.0.entry(key.into()).or_insert(number);
    }

    pub(super) fn clear(&mut self) {
        self.0.clear();
    }
}

fn read_key<'a>(cursor: &mut Cursor<'a>, keys: &mut Vec<&'a str>) -> Result<&'a str, WireError> {
    let start = *cursor;
    let number = cursor.varint()?;
    if let Some(key) = usize::try_from(number).ok().and_then(|number| keys.get(number)) {
        return Ok(*key);
    }
    if number != keys.len() as u64 {
        return Err(start.error(Fault::Key(number)));
    }
    let key = cursor.text(MAX_KEY_BYTES)?;
    keys.push(key);
    Ok(key)
}

/// A register on its way, with its key and its place there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record<'a> {
    /// The key it belongs to.
    pub key: &'a str,
    /// The entry it is of.
    pub id: &'a str,
    /// Which part of the entry.
    pub facet: u8,
    /// When it was written.
    pub version: Version,
    /// By whom.
    pub author: u64,
    /// How long ago the author wrote it, in milliseconds of the monotonic clocks of those who had it, where that matters.
    pub age_ms: Option<u64>,
    /// What it holds; nothing if it was removed.
    pub body: Option<&'a [u8]>,
}

impl<'a> Record<'a> {
    /// What to send of `register`.
    pub fn new(key: &'a str, entry: &'a EntryId, register: &'a Register, age_ms: Option<u64>) -> Self {
        let body = match &register.body {
            Body::Live(bytes) => Some(&bytes[..]),
            Body::Tombstone => None,
        };
        let Register { version, author, .. } = *register;
        Self { key, id: &entry.id, facet: entry.facet, version, author, age_ms, body }
    }

    /// Its place in the key.
    pub fn entry(&self) -> EntryId {
        EntryId::new(self.id, self.facet)
    }

    /// The register itself.
    ///
    /// Copies the body: kept as a part of what was received, it would keep all of that in memory.
    pub fn register(&self) -> Register {
        let body = self.body.map_or(Body::Tombstone, |bytes| Body::Live(Bytes::copy_from_slice(bytes)));
        Register { version: self.version, author: self.author, body }
    }

    /// Whether it is this very register. Costs no copy.
    pub fn holds(&self, register: &Register) -> bool {
        let body = match &register.body {
            Body::Live(bytes) => Some(&bytes[..]),
            Body::Tombstone => None,
        };
        (self.version, self.author, self.body) == (register.version, register.author, body)
    }

    /// Appends all but the key.
    pub(super) fn put(&self, out: &mut Vec<u8>) -> Result<(), Fault> {
        let mut flags = 0;
        if self.body.is_none() {
            flags |= TOMBSTONE;
        }
        if self.age_ms.is_some() {
            flags |= HAS_AGE;
        }
        put_entry(out, self.id, self.facet)?;
        put_version(out, self.version);
        put_u64(out, self.author);
        out.push(flags);
        if let Some(age_ms) = self.age_ms {
            put_varint(out, age_ms);
        }
        self.body.map_or(Ok(()), |body| put_bytes(out, body, MAX_BODY_BYTES))
    }

    fn read(cursor: &mut Cursor<'a>, keys: &mut Vec<&'a str>) -> Result<Self, WireError> {
        let key = read_key(cursor, keys)?;
        let (id, facet) = cursor.entry()?;
        let version = cursor.version()?;
        let author = cursor.u64()?;
        let start = *cursor;
        let flags = cursor.u8()?;
        if flags & !(TOMBSTONE | HAS_AGE) != 0 {
            return Err(start.error(Fault::Flags(flags)));
        }
        let age_ms = if flags & HAS_AGE == 0 { None } else { Some(cursor.varint()?) };
        let body = if flags & TOMBSTONE == 0 { Some(cursor.bytes(MAX_BODY_BYTES)?) } else { None };
        Ok(Self { key, id, facet, version, author, age_ms, body })
    }
}

/// The records of a section or frame. The first error is the last item.
#[derive(Clone, Debug)]
pub struct Records<'a> {
    cursor: Cursor<'a>,
    keys: Vec<&'a str>,
}

impl<'a> Records<'a> {
    pub(super) fn new(cursor: Cursor<'a>) -> Self {
        Self { cursor, keys: Vec::new() }
    }
}

impl<'a> Iterator for Records<'a> {
    type Item = Result<Record<'a>, WireError>;

    fn next(&mut self) -> Option<Self::Item> {
        let Self { cursor, keys } = self;
        cursor.item(|cursor| Record::read(cursor, keys))
    }
}

/// Where the list in a frame begins: behind length and type.
const LIST_AT: usize = 5;

/// Records of a frame, in their coded form.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RecordList {
    pub(super) bytes: Bytes,
}

impl RecordList {
    /// Reads them one by one.
    pub fn iter(&self) -> Records<'_> {
        Records::new(Cursor::new(&self.bytes, LIST_AT))
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }
}

impl<'a> IntoIterator for &'a RecordList {
    type Item = Result<Record<'a>, WireError>;
    type IntoIter = Records<'a>;

    fn into_iter(self) -> Records<'a> {
        self.iter()
    }
}

/// Collects records for a frame.
#[derive(Debug)]
pub struct RecordsWriter {
    max_bytes: usize,
    out: Vec<u8>,
    keys: Keys,
}

impl RecordsWriter {
    /// Takes at most `max_bytes` in coded form, and never more than a frame can hold.
    pub fn new(max_bytes: usize) -> Self {
        // One byte of a frame is its type.
        Self { max_bytes: max_bytes.min(MAX_FRAME_BYTES - 1), out: Vec::new(), keys: Keys::default() }
    }

    /// Takes `record` if it fits. What no reader would take, such as too long an id, never fits.
    pub fn try_push(&mut self, record: &Record<'_>) -> bool {
        // Asked first, so that a large body is not copied in vain.
        let room = self.max_bytes.saturating_sub(self.out.len());
        if record.body.is_some_and(|body| body.len() > room) {
            return false;
        }
        let fits = put_fitting(&mut self.out, self.max_bytes, |out| {
            self.keys.put(out, record.key)?;
            record.put(out)
        });
        if fits {
            self.keys.keep(record.key);
        }
        fits
    }

    /// How many bytes there are.
    pub fn len(&self) -> usize {
        self.out.len()
    }

    /// Whether nothing was taken yet.
    pub fn is_empty(&self) -> bool {
        self.out.is_empty()
    }

    /// What was taken.
    pub fn finish(self) -> RecordList {
        RecordList { bytes: self.out.into() }
    }
}

/// Word of a register that is too large to be pushed: who lacks it can ask for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Advert<'a> {
    /// The key it belongs to.
    pub key: &'a str,
    /// The entry it is of.
    pub id: &'a str,
    /// Which part of the entry.
    pub facet: u8,
    /// When it was written.
    pub version: Version,
    /// By whom.
    pub author: u64,
    /// How many bytes its body has, as the sender says.
    pub size: u64,
}

impl<'a> Advert<'a> {
    /// Its place in the key.
    pub fn entry(&self) -> EntryId {
        EntryId::new(self.id, self.facet)
    }

    /// Appends all but the key.
    pub(super) fn put(&self, out: &mut Vec<u8>) -> Result<(), Fault> {
        put_entry(out, self.id, self.facet)?;
        put_version(out, self.version);
        put_u64(out, self.author);
        put_varint(out, self.size);
        Ok(())
    }

    fn read(cursor: &mut Cursor<'a>, keys: &mut Vec<&'a str>) -> Result<Self, WireError> {
        let key = read_key(cursor, keys)?;
        let (id, facet) = cursor.entry()?;
        Ok(Self { key, id, facet, version: cursor.version()?, author: cursor.u64()?, size: cursor.varint()? })
    }
}

/// The adverts of a section. The first error is the last item.
#[derive(Clone, Debug)]
pub struct Adverts<'a> {
    cursor: Cursor<'a>,
    keys: Vec<&'a str>,
}

impl<'a> Adverts<'a> {
    pub(super) fn new(cursor: Cursor<'a>) -> Self {
        Self { cursor, keys: Vec::new() }
    }
}

impl<'a> Iterator for Adverts<'a> {
    type Item = Result<Advert<'a>, WireError>;

    fn next(&mut self) -> Option<Self::Item> {
        let Self { cursor, keys } = self;
        cursor.item(|cursor| Advert::read(cursor, keys))
    }
}

pub(super) fn put_root(out: &mut Vec<u8>, (key, root): &(SmolStr, u128)) -> Result<(), Fault> {
    put_bytes(out, key.as_bytes(), MAX_KEY_BYTES)?;
    out.extend_from_slice(&root.to_le_bytes());
    Ok(())
}

pub(super) fn read_root<'a>(cursor: &mut Cursor<'a>) -> Result<(&'a str, u128), WireError> {
    Ok((cursor.text(MAX_KEY_BYTES)?, cursor.u128()?))
}

/// Keys and the hashes of all they hold. The first error is the last item.
#[derive(Clone, Debug)]
pub struct Roots<'a>(pub(super) Cursor<'a>);

impl<'a> Iterator for Roots<'a> {
    type Item = Result<(&'a str, u128), WireError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.0.item(read_root)
    }
}
