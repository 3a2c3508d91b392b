//! One entry of the ring on the wire: protobuf `InstanceDesc`.

use std::collections::BTreeMap;

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
    let mut entry = InstanceDesc::default();
    let mut tokens = TokenField::default();
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
#[derive(Default)]
struct TokenField<'a> {
    packed: &'a [u8],
    list: Vec<u32>,
}

impl<'a> TokenField<'a> {
    fn add_packed(&mut self, packed: &'a [u8]) -> Result<(), DecodeError> {
        if self.packed.is_empty() && self.list.is_empty() {
            self.packed = packed;
            return Ok(());
        }
        self.unpack()?;
        unpack(packed, &mut self.list)
    }

    fn add(&mut self, token: u32) -> Result<(), DecodeError> {
        self.unpack()?;
        self.list.push(token);
        Ok(())
    }

    fn unpack(&mut self) -> Result<(), DecodeError> {
        unpack(std::mem::take(&mut self.packed), &mut self.list)
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
            _ => Ok(self.list.into()),
        }
    }
}

fn same(packed: &[u8], tokens: &[u32]) -> bool {
    let mut reader = Reader::new(packed);
    tokens.iter().all(|&token| !reader.is_empty() && reader.varint() == Ok(token.into())) && reader.is_empty()
}

fn unpack(packed: &[u8], list: &mut Vec<u32>) -> Result<(), DecodeError> {
    // Each varint has exactly one byte without the continuation bit.
    list.reserve_exact(packed.iter().filter(|&&byte| byte < 0x80).count());
    let mut reader = Reader::new(packed);
    while !reader.is_empty() {
        list.push(reader.varint()? as u32);
    }
    Ok(())
}

pub(crate) fn encode_entry(entry: &InstanceDesc) -> Bytes {
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
    let packed: usize = tokens.iter().map(|&token| varint_len(token.into())).sum();
    let mut out = Vec::with_capacity(80 + addr.len() + packed + zone.len() + id.len() + unknown.len());
    put_text(&mut out, 1, addr);
    put_int(&mut out, 2, *timestamp);
    put_int(&mut out, 3, state.as_i32().into());
    if !tokens.is_empty() {
        out.push(6 << 3 | 2);
        put_varint(&mut out, packed as u64);
        tokens.iter().for_each(|&token| put_varint(&mut out, token.into()));
    }
    put_text(&mut out, 7, zone);
    put_int(&mut out, 8, *registered_timestamp);
    put_text(&mut out, 9, id);
    put_int(&mut out, 10, *read_only_updated_timestamp);
    put_int(&mut out, 11, i64::from(*read_only));
    put_versions(&mut out, versions);
    out.extend_from_slice(unknown);
    out.into()
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
        put_varint(out, (2 + varint_len(component) + varint_len(version)) as u64);
        out.push(1 << 3);
        put_varint(out, component);
        out.push(2 << 3);
        put_varint(out, version);
    }
}
