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

fn same(packed: &[u8], tokens: &[u32]) -> bool {
    let mut rest = packed;
    tokens.iter().all(|&token| take_token(&mut rest).is_ok_and(|read| read == Some(token))) && rest.is_empty()
}

fn unpack(packed: &[u8], list: &mut Vec<u32>) -> Result<(), DecodeError> {
    // Each varint has exactly one byte without the continuation bit.
    list.reserve_exact(packed.iter().filter(|&&byte| byte < 0x80).count());
    let mut rest = packed;
    while let Some(token) = take_token(&mut rest)? {
        list.push(token);
    }
    Ok(())
}

/// The next of the packed tokens.
#[inline]
fn take_token(packed: &mut &[u8]) -> Result<Option<u32>, DecodeError> {
    // Fifteen tokens of sixteen take five bytes: four with the continuation bit, one without.
    if let Some(&five) = packed.first_chunk::<5>() {
        let [a, b, c, d, e] = five.map(u32::from);
        if a & b & c & d & 0x80 != 0 && e < 0x80 {
            *packed = &packed[5..];
            let bits = |byte: u32| byte & 0x7F;
            return Ok(Some(bits(a) | bits(b) << 7 | bits(c) << 14 | bits(d) << 21 | e << 28));
        }
    }
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
