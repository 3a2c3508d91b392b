//! The stored form as gogo's generated code reads and writes it, under the same Snappy as ours.

use hashbrown::HashMap;
use ringkit_ring::State;

/// An entry that owns its parts, as a decoded one does.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Owned {
    pub(crate) addr: String,
    pub(crate) timestamp: i64,
    pub(crate) state: i32,
    pub(crate) tokens: Vec<u32>,
    pub(crate) zone: String,
    pub(crate) registered: i64,
}

pub(crate) type Ring = HashMap<String, Owned>;

pub(crate) fn owned(desc: &ringkit_ring::Desc) -> Ring {
    let entry = |entry: &ringkit_ring::InstanceDesc| Owned {
        addr: entry.addr.to_string(),
        timestamp: entry.timestamp,
        state: State::as_i32(entry.state),
        tokens: entry.tokens.to_vec(),
        zone: entry.zone.to_string(),
        registered: entry.registered_timestamp,
    };
    desc.iter().map(|(id, desc)| (id.to_string(), entry(desc))).collect()
}

/// An entry about to be written, whoever owns its parts.
#[derive(Clone, Copy)]
pub(crate) struct Fields<'a> {
    pub(crate) addr: &'a str,
    pub(crate) timestamp: i64,
    pub(crate) state: i32,
    pub(crate) tokens: &'a [u32],
    pub(crate) zone: &'a str,
    pub(crate) registered: i64,
}

pub(crate) fn encode(ring: &Ring) -> Vec<u8> {
    encode_fields(ring.iter().map(|(id, entry)| (id.as_str(), entry.fields())))
}

/// First the size of everything, then one buffer of that size, then Snappy.
pub(crate) fn encode_fields<'a>(entries: impl Iterator<Item = (&'a str, Fields<'a>)> + Clone) -> Vec<u8> {
    let sized = |id: &str, entry: Fields<'_>| {
        let entry = entry.size();
        1 + varint_len(id.len() as u64) + id.len() + 1 + varint_len(entry as u64) + entry
    };
    let sizes = entries.clone().map(|(id, entry)| sized(id, entry));
    let mut out = Vec::with_capacity(sizes.map(|n| 1 + varint_len(n as u64) + n).sum());
    for (id, entry) in entries {
        out.push(0x0A);
        put_varint(&mut out, sized(id, entry) as u64);
        put_bytes(&mut out, 0x0A, id.as_bytes());
        out.push(0x12);
        put_varint(&mut out, entry.size() as u64);
        entry.put(&mut out);
    }
    snap::raw::Encoder::new().compress_vec(&out).unwrap()
}

impl Fields<'_> {
    fn size(&self) -> usize {
        let text =
            |text: &str| if text.is_empty() { 0 } else { 1 + varint_len(text.len() as u64) + text.len() };
        let int = |value: i64| if value == 0 { 0 } else { 1 + varint_len(value as u64) };
        let tokens: usize = self.tokens.iter().map(|token| varint_len((*token).into())).sum();
        let tokens = if self.tokens.is_empty() { 0 } else { 1 + varint_len(tokens as u64) + tokens };
        let ints = int(self.timestamp) + int(self.state.into()) + int(self.registered);
        text(self.addr) + text(self.zone) + ints + tokens
    }

    fn put(&self, out: &mut Vec<u8>) {
        put_text(out, 0x0A, self.addr);
        put_int(out, 0x10, self.timestamp);
        put_int(out, 0x18, self.state.into());
        if !self.tokens.is_empty() {
            // The generated code packs into a buffer of its own, large enough for anything, and copies.
            let mut packed = Vec::with_capacity(self.tokens.len() * 10);
            self.tokens.iter().for_each(|token| put_varint(&mut packed, (*token).into()));
            put_bytes(out, 0x32, &packed);
        }
        put_text(out, 0x3A, self.zone);
        put_int(out, 0x40, self.registered);
    }
}

impl Owned {
    fn fields(&self) -> Fields<'_> {
        let Self { timestamp, state, registered, .. } = *self;
        Fields { addr: &self.addr, timestamp, state, tokens: &self.tokens, zone: &self.zone, registered }
    }

    fn read(bytes: &[u8]) -> Option<Self> {
        let mut entry = Self::default();
        let mut rest = bytes;
        while !rest.is_empty() {
            match varint(&mut rest)? {
                0x0A => entry.addr = text(&mut rest)?,
                0x10 => entry.timestamp = varint(&mut rest)? as i64,
                0x18 => entry.state = varint(&mut rest)? as i32,
                0x32 => {
                    let mut packed = delimited(&mut rest)?;
                    let count = packed.iter().filter(|byte| **byte < 0x80).count();
                    entry.tokens.reserve_exact(count);
                    while !packed.is_empty() {
                        entry.tokens.push(varint(&mut packed)? as u32);
                    }
                }
                0x3A => entry.zone = text(&mut rest)?,
                0x40 => entry.registered = varint(&mut rest)? as i64,
                _ => return None,
            }
        }
        Some(entry)
    }
}

pub(crate) fn decode(stored: &[u8]) -> Option<Ring> {
    let proto = snap::raw::Decoder::new().decompress_vec(stored).ok()?;
    let mut ring = Ring::new();
    let mut rest = proto.as_slice();
    while !rest.is_empty() {
        if varint(&mut rest)? != 0x0A {
            return None;
        }
        let mut pair = delimited(&mut rest)?;
        let (mut id, mut entry) = (String::new(), Owned::default());
        while !pair.is_empty() {
            match varint(&mut pair)? {
                0x0A => id = text(&mut pair)?,
                0x12 => entry = Owned::read(delimited(&mut pair)?)?,
                _ => return None,
            }
        }
        ring.insert(id, entry);
    }
    Some(ring)
}

#[inline]
fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let (mut value, mut shift) = (0, 0);
    loop {
        let (&byte, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u64::from(byte & 0x7F) << shift;
        if byte < 0x80 {
            return Some(value);
        }
        shift += 7;
        if shift >= 64 {
            return None;
        }
    }
}

fn delimited<'a>(bytes: &mut &'a [u8]) -> Option<&'a [u8]> {
    let length = varint(bytes)? as usize;
    let (field, rest) = bytes.split_at_checked(length)?;
    *bytes = rest;
    Some(field)
}

fn text(bytes: &mut &[u8]) -> Option<String> {
    // Go does not check that it is UTF-8; the check costs next to nothing at these lengths.
    String::from_utf8(delimited(bytes)?.to_vec()).ok()
}

fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn put_bytes(out: &mut Vec<u8>, tag: u8, bytes: &[u8]) {
    out.push(tag);
    put_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

fn put_text(out: &mut Vec<u8>, tag: u8, text: &str) {
    if !text.is_empty() {
        put_bytes(out, tag, text.as_bytes());
    }
}

fn put_int(out: &mut Vec<u8>, tag: u8, value: i64) {
    if value != 0 {
        out.push(tag);
        put_varint(out, value as u64);
    }
}

fn varint_len(value: u64) -> usize {
    (64 - (value | 1).leading_zeros() as usize).div_ceil(7)
}
