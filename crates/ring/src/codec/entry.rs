//! One entry of the ring on the wire: protobuf `InstanceDesc`.

use std::collections::BTreeMap;
use std::ops::Range;

use bytes::Bytes;
use ringkit_kv::DecodeError;
use smol_str::SmolStr;

use super::text;
use super::wire::{Reader, WireType, put_bytes, put_int, put_varint, varint_len};
use crate::desc::{InstanceDesc, State};
use crate::tokens::Tokens;

/// Reads one entry. `id` is its key in the map; what equals `previous` shares its storage.
pub(crate) fn decode_entry(
    id: &str,
    bytes: &[u8],
    previous: Option<&InstanceDesc>,
) -> Result<InstanceDesc, DecodeError> {
    decode_entry_in(id, bytes, previous, &mut Vec::new())
}

/// As [`decode_entry`], with `room` for tokens on their way, so that the next entry need not ask for its own.
pub(super) fn decode_entry_in(
    id: &str,
    bytes: &[u8],
    previous: Option<&InstanceDesc>,
    room: &mut Vec<u32>,
) -> Result<InstanceDesc, DecodeError> {
    let mut entry = InstanceDesc::default();
    let mut tokens = TokenField::new(room);
    let mut unknown = Vec::new();
    let mut reader = Reader::new(bytes);
    while !reader.is_empty() {
        let start = reader.position();
        let (number, wire_type) = reader.tag()?;
        match (number, wire_type) {
            (1, WireType::Len) => {
                entry.addr = shared(reader.len_delimited()?, "addr", previous.map(|p| &p.addr))?;
            }
            (2, WireType::Varint) => entry.timestamp = reader.varint()?.cast_signed(),
            (3, WireType::Varint) => entry.state = State::from_i32(reader.varint()? as i32),
            (6, WireType::Len) => tokens.add_packed(reader.len_delimited()?)?,
            (6, WireType::Varint) => tokens.add(reader.varint()? as u32)?,
            (7, WireType::Len) => {
                entry.zone = shared(reader.len_delimited()?, "zone", previous.map(|p| &p.zone))?;
            }
            (8, WireType::Varint) => entry.registered_timestamp = reader.varint()?.cast_signed(),
            (9, WireType::Len) => {
                // Never trusted over the key, but kept where it was.
                text(reader.len_delimited()?, "id")?;
                entry.id = SmolStr::new(id);
            }
            (10, WireType::Varint) => entry.read_only_updated_timestamp = reader.varint()?.cast_signed(),
            (11, WireType::Varint) => entry.read_only = reader.varint()? != 0,
            (12, WireType::Len) => {
                let (component, version) = version(reader.len_delimited()?)?;
                entry.versions.insert(component, version);
            }
            (1..=3 | 6..=12, _) => {
                return Err(DecodeError::new(format!("wrong wire type for field {number}")));
            }
            // Fields of long ago: read over, never written.
            (4 | 5, wire_type) => reader.skip(wire_type)?,
            (_, wire_type) => {
                reader.skip(wire_type)?;
                unknown.extend_from_slice(&bytes[start..reader.position()]);
            }
        }
    }
    entry.tokens = tokens.finish(previous.map(|previous| &previous.tokens))?;
    entry.unknown = unknown.into();
    Ok(entry)
}

fn shared(bytes: &[u8], what: &str, previous: Option<&SmolStr>) -> Result<SmolStr, DecodeError> {
    match previous {
        Some(previous) if previous.as_bytes() == bytes => Ok(previous.clone()),
        _ => text(bytes, what),
    }
}

fn version(bytes: &[u8]) -> Result<(u64, u64), DecodeError> {
    let (mut component, mut version) = (0, 0);
    let mut reader = Reader::new(bytes);
    while !reader.is_empty() {
        match reader.tag()? {
            (1, WireType::Varint) => component = reader.varint()?,
            (2, WireType::Varint) => version = reader.varint()?,
            (1 | 2, _) => return Err(DecodeError::new("wrong wire type in an entry of field 12")),
            (_, wire_type) => reader.skip(wire_type)?,
        }
    }
    Ok((component, version))
}

/// Tokens as they arrive: one packed list as a rule, which then is read in place.
struct TokenField<'a, 'r> {
    packed: &'a [u8],
    list: &'r mut Vec<u32>,
}

impl<'a, 'r> TokenField<'a, 'r> {
    fn new(room: &'r mut Vec<u32>) -> Self {
        room.clear();
        Self { packed: &[], list: room }
    }

    fn add_packed(&mut self, packed: &'a [u8]) -> Result<(), DecodeError> {
        if self.packed.is_empty() && self.list.is_empty() {
            self.packed = packed;
            return Ok(());
        }
        self.unpack()?;
        unpack(packed, self.list)
    }

    fn add(&mut self, token: u32) -> Result<(), DecodeError> {
        self.unpack()?;
        self.list.push(token);
        Ok(())
    }

    fn unpack(&mut self) -> Result<(), DecodeError> {
        unpack(std::mem::take(&mut self.packed), self.list)
    }

    fn finish(mut self, previous: Option<&Tokens>) -> Result<Tokens, DecodeError> {
        if let Some(previous) = previous
            && self.list.is_empty()
            && same(self.packed, previous)
        {
            return Ok(previous.clone());
        }
        self.unpack()?;
        match previous {
            Some(previous) if previous.as_slice() == self.list => Ok(previous.clone()),
            _ => Ok(self.list.as_slice().into()),
        }
    }
}

/// Whether `packed` holds just `tokens`.
fn same(packed: &[u8], tokens: &[u32]) -> bool {
    let mut rest = packed;
    let mut left = tokens;
    while let (Some(eight), Some(expected)) = (rest.first_chunk().and_then(eight_tokens), left.first_chunk())
    {
        if eight != *expected {
            return false;
        }
        (rest, left) = (&rest[8 * 5..], &left[8..]);
    }
    let mut reader = Reader::new(rest);
    left.iter().all(|&token| !reader.is_empty() && reader.varint().is_ok_and(|read| read as u32 == token))
        && reader.is_empty()
}

fn unpack(packed: &[u8], list: &mut Vec<u32>) -> Result<(), DecodeError> {
    // Most tokens take five bytes, so this is room enough as a rule.
    list.reserve(packed.len() / 4);
    let mut rest = packed;
    loop {
        while let Some(eight) = rest.first_chunk().and_then(eight_tokens) {
            list.extend_from_slice(&eight);
            rest = &rest[8 * 5..];
        }
        match take_token(&mut rest)? {
            Some(token) => list.push(token),
            None => return Ok(()),
        }
    }
}

/// Of a token in five bytes: four have the continuation bit, the last has not.
const FIVE_BYTES: u64 = 0x00_8080_8080;

/// Eight tokens at once, if each takes five bytes, as fifteen of sixteen do. The bytes behind them do not matter.
#[inline]
fn eight_tokens(bytes: &[u8; 48]) -> Option<[u32; 8]> {
    let words = [0, 5, 10, 15, 20, 25, 30, 35].map(|at| word(bytes, at));
    let odd = words.iter().fold(0, |odd, word| odd | (word & 0x80_8080_8080 ^ FIVE_BYTES));
    (odd == 0).then(|| words.map(token_of_word))
}

/// The eight bytes from `at`, at most 40.
#[inline]
fn word(bytes: &[u8; 48], at: usize) -> u64 {
    u64::from_le_bytes(std::array::from_fn(|place| bytes[at + place]))
}

#[inline]
fn token_of_word(word: u64) -> u32 {
    let bits = |place: u32| (word >> (8 * place) & 0x7F) << (7 * place);
    // The fifth byte may carry more than 32 bits have room for; what exceeds them is lost, as in Go.
    (bits(0) | bits(1) | bits(2) | bits(3) | bits(4)) as u32
}

/// The next of the packed tokens.
fn take_token(packed: &mut &[u8]) -> Result<Option<u32>, DecodeError> {
    if packed.is_empty() {
        return Ok(None);
    }
    let mut reader = Reader::new(packed);
    let token = reader.varint()? as u32;
    *packed = &packed[reader.position()..];
    Ok(Some(token))
}

/// Where the packed tokens of an encoded entry lie, if they are one list; else nowhere.
pub(super) fn packed_tokens(entry: &[u8]) -> Range<usize> {
    let mut reader = Reader::new(entry);
    while let Ok((number, wire_type)) = reader.tag() {
        let before = reader.clone();
        if reader.skip(wire_type).is_err() {
            break;
        }
        if (number, wire_type) == (6, WireType::Len) {
            let mut field = before;
            let length = field.len_delimited().map_or(0, <[u8]>::len);
            return reader.position() - length..reader.position();
        }
    }
    0..0
}

/// How many bytes an entry takes, and its packed tokens alone.
#[derive(Clone, Copy)]
pub(super) struct EntryLen {
    pub(super) total: usize,
    packed: usize,
}

impl EntryLen {
    pub(super) fn of(entry: &InstanceDesc) -> Self {
        // Destructured in full, so that a new field cannot be forgotten here.
        let InstanceDesc {
            addr,
            timestamp,
            state,
            tokens,
            zone,
            registered_timestamp,
            id,
            read_only_updated_timestamp,
            read_only,
            versions,
            unknown,
        } = entry;
        let field = |length: usize| if length == 0 { 0 } else { 1 + varint_len(length as u64) + length };
        let int = |value: i64| if value == 0 { 0 } else { 1 + varint_len(value.cast_unsigned()) };
        let versions = versions.iter().map(|(&component, &version)| field(version_len(component, version)));
        let packed = tokens.iter().map(|&token| token_len(token)).sum();
        let total = field(addr.len())
            + int(*timestamp)
            + int(state.as_i32().into())
            + field(packed)
            + field(zone.len())
            + int(*registered_timestamp)
            + field(id.len())
            + int(*read_only_updated_timestamp)
            + int(i64::from(*read_only))
            + versions.sum::<usize>()
            + unknown.len();
        Self { total, packed }
    }
}

/// How many bytes a packed token takes. Without branches, so that many are counted at once.
#[inline]
fn token_len(token: u32) -> usize {
    [7, 14, 21, 28].iter().fold(1, |length, bits| length + usize::from(token >> bits != 0))
}

pub(crate) fn encode_entry(entry: &InstanceDesc) -> Bytes {
    let length = EntryLen::of(entry);
    let mut out = Vec::with_capacity(length.total);
    put_entry(&mut out, entry, length);
    out.into()
}

/// Writes an entry, and returns where among its bytes the packed tokens are.
pub(super) fn put_entry(out: &mut Vec<u8>, entry: &InstanceDesc, length: EntryLen) -> Range<usize> {
    // Destructured in full, so that a new field cannot be forgotten here.
    let InstanceDesc {
        addr,
        timestamp,
        state,
        tokens,
        zone,
        registered_timestamp,
        id,
        read_only_updated_timestamp,
        read_only,
        versions,
        unknown,
    } = entry;
    let start = out.len();
    put_text(out, 1, addr);
    put_int(out, 2, *timestamp);
    put_int(out, 3, state.as_i32().into());
    let mut packed = 0..0;
    if !tokens.is_empty() {
        out.push(6 << 3 | 2);
        put_varint(out, length.packed as u64);
        packed.start = out.len() - start;
        tokens.iter().for_each(|&token| put_token(out, token));
        packed.end = out.len() - start;
    }
    put_text(out, 7, zone);
    put_int(out, 8, *registered_timestamp);
    put_text(out, 9, id);
    put_int(out, 10, *read_only_updated_timestamp);
    put_int(out, 11, i64::from(*read_only));
    put_versions(out, versions);
    out.extend_from_slice(unknown);
    packed
}

#[inline]
fn put_token(out: &mut Vec<u8>, token: u32) {
    if token >> 28 == 0 {
        return put_varint(out, token.into());
    }
    let bits = |shift: u32| (token >> shift) as u8 | 0x80;
    out.extend_from_slice(&[bits(0), bits(7), bits(14), bits(21), (token >> 28) as u8]);
}

fn put_text(out: &mut Vec<u8>, number: u32, text: &str) {
    if !text.is_empty() {
        put_bytes(out, number, text.as_bytes());
    }
}

/// Both halves of a map entry are always written.
fn put_versions(out: &mut Vec<u8>, versions: &BTreeMap<u64, u64>) {
    for (&component, &version) in versions {
        put_varint(out, 12 << 3 | 2);
        put_varint(out, version_len(component, version) as u64);
        out.push(1 << 3);
        put_varint(out, component);
        out.push(2 << 3);
        put_varint(out, version);
    }
}

fn version_len(component: u64, version: u64) -> usize {
    2 + varint_len(component) + varint_len(version)
}
