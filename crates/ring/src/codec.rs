//! The stored form of a ring: Snappy block of a protobuf `Desc`, a map from id to `InstanceDesc`.
//!
//! Written by hand, because three things matter that generated code does not give: fields that this version does not know
//! survive a rewrite, equal rings give equal bytes, and no input makes the reader panic, recurse or allocate more than
//! its own size warrants.

mod block;
mod entry;
mod facets;
mod wire;

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use ringkit_kv::{Codec, DecodeError, EntryId, Facets, Stamp};

use self::entry::{EntryLen, decode_entry_in, packed_tokens, put_entry};
pub(crate) use self::entry::{decode_entry, encode_entry};
use self::wire::{Reader, WireType, put_varint, varint_len};
use crate::desc::{Desc, State};

/// Codec of the ring, called `ringDesc` by Cortex and dskit alike.
#[derive(Clone, Copy, Debug, Default)]
pub struct RingCodec;

impl RingCodec {
    /// Name of the codec in gossip messages.
    pub const ID: &'static str = "ringDesc";
}

/// No ring is larger than this; a stored value that claims to be is not unpacked.
pub const MAX_DECODED_BYTES: usize = 256 << 20;

/// No Snappy element makes more than 64 bytes out of 2, so a claim beyond that is false.
const MAX_EXPANSION: usize = 32;

impl Codec for RingCodec {
    fn id(&self) -> &'static str {
        Self::ID
    }

    fn split(&self, stored: &[u8]) -> Result<BTreeMap<EntryId, Bytes>, DecodeError> {
        let proto = Bytes::from(decompress(stored)?);
        let mut entries = BTreeMap::new();
        each_entry(&proto, |id, entry| {
            entries.insert(id, proto.slice_ref(entry));
            Ok(())
        })?;
        Ok(entries)
    }

    fn join(&self, entries: &BTreeMap<EntryId, Bytes>) -> Bytes {
        let mut ring = RingWriter::new(
            entries.iter().map(|(id, entry)| entry_len(id, entry.len())).sum(),
            entries.len(),
        );
        for (id, entry) in entries {
            ring.put(id, entry.len(), |out| {
                out.extend_from_slice(entry);
                packed_tokens(entry)
            });
        }
        ring.finish()
    }

    fn check_entry(&self, id: &str, entry: &[u8]) -> Result<(), DecodeError> {
        decode_entry(id, entry, None).map(drop)
    }

    fn facets(&self, id: &str, entry: &Bytes) -> Facets {
        facets::take_apart(id, entry)
    }

    fn unite(&self, _id: &str, facets: &Facets) -> Result<Option<Bytes>, DecodeError> {
        facets::unite(facets)
    }

    fn stamp(&self, _id: &str, entry: &[u8]) -> Option<Stamp> {
        stamp(entry).ok()
    }
}

/// Of an entry only when it was written and whether its owner goes; the tokens are passed over.
fn stamp(entry: &[u8]) -> Result<Stamp, DecodeError> {
    let (mut timestamp, mut state, mut read_only) = (0, State::default(), false);
    let mut reader = Reader::new(entry);
    while !reader.is_empty() {
        match reader.tag()? {
            (2, WireType::Varint) => timestamp = reader.varint()?.cast_signed(),
            (3, WireType::Varint) => state = State::from_i32(reader.varint()? as i32),
            (11, WireType::Varint) => read_only = reader.varint()? != 0,
            (2 | 3 | 11, _) => return Err(DecodeError::new("wrong wire type for timestamp or state")),
            (_, wire_type) => reader.skip(wire_type)?,
        }
    }
    let passing = read_only || matches!(state, State::Leaving | State::ReadOnly);
    Ok(Stamp { timestamp, left: state == State::Left, passing })
}

pub(crate) fn decode(stored: &[u8]) -> Result<Desc, DecodeError> {
    let proto = decompress(stored)?;
    let mut entries = Vec::new();
    let mut room = Vec::new();
    each_entry(&proto, |id, bytes| {
        let entry = decode_entry_in(&id, bytes, None, &mut room)?;
        entries.push((id, Arc::new(entry)));
        Ok(())
    })?;
    // Of entries with the same id the last one stays.
    Ok(entries.into_iter().collect())
}

pub(crate) fn encode(desc: &Desc) -> Bytes {
    let lengths: Vec<_> = desc.iter().map(|(_, entry)| EntryLen::of(entry)).collect();
    let total = desc.iter().zip(&lengths).map(|((id, _), length)| entry_len(id, length.total)).sum();
    let mut ring = RingWriter::new(total, lengths.len());
    for ((id, entry), length) in desc.iter().zip(lengths) {
        ring.put(id, length.total, |out| put_entry(out, entry, length));
    }
    ring.finish()
}

/// Reads one entry of the form in which stores with a row per instance keep it: Snappy block of the entry alone.
///
/// # Errors
///
/// [`DecodeError`] as for a whole ring.
pub fn decode_single(id: &str, stored: &[u8]) -> Result<crate::InstanceDesc, DecodeError> {
    decode_entry(id, &decompress(stored)?, None)
}

/// Writes one entry in the form that [`decode_single`] reads.
pub fn encode_single(entry: &crate::InstanceDesc) -> Bytes {
    let length = EntryLen::of(entry);
    let mut proto = Vec::with_capacity(length.total);
    let tokens = put_entry(&mut proto, entry, length);
    block::compress(&proto, &[tokens]).into()
}

/// Calls `found` for each entry of an encoded `Desc`, in wire order; of a repeated id the last one counts.
fn each_entry<'a>(
    proto: &'a [u8],
    mut found: impl FnMut(EntryId, &'a [u8]) -> Result<(), DecodeError>,
) -> Result<(), DecodeError> {
    let mut reader = Reader::new(proto);
    while !reader.is_empty() {
        match reader.tag()? {
            (1, WireType::Len) => {
                let (id, entry) = map_entry(reader.len_delimited()?)?;
                found(id, entry)?;
            }
            (1, _) => return Err(DecodeError::new("wrong wire type for field `ingesters`")),
            (_, wire_type) => reader.skip(wire_type)?,
        }
    }
    Ok(())
}

/// Key and value of a map entry; either may come first, or be missing, which means empty.
fn map_entry(bytes: &[u8]) -> Result<(EntryId, &[u8]), DecodeError> {
    let (mut id, mut entry) = (EntryId::default(), &[][..]);
    let mut reader = Reader::new(bytes);
    while !reader.is_empty() {
        match reader.tag()? {
            (1, WireType::Len) => id = text(reader.len_delimited()?, "instance id")?,
            (2, WireType::Len) => entry = reader.len_delimited()?,
            (1 | 2, _) => return Err(DecodeError::new("wrong wire type in an entry of `ingesters`")),
            (_, wire_type) => reader.skip(wire_type)?,
        }
    }
    Ok((id, entry))
}

fn text(bytes: &[u8], what: &str) -> Result<EntryId, DecodeError> {
    let text = std::str::from_utf8(bytes);
    text.map(EntryId::new).map_err(|error| DecodeError::new(format!("{what} is not UTF-8: {error}")))
}

/// How many bytes an entry of `length` bytes takes in a ring.
fn entry_len(id: &str, length: usize) -> usize {
    let pair = pair_len(id, length);
    1 + varint_len(pair as u64) + pair
}

fn pair_len(id: &str, length: usize) -> usize {
    let field = |length: usize| 1 + varint_len(length as u64) + length;
    field(id.len()) + field(length)
}

/// A ring on its way to bytes: one buffer for all entries, and where in it tokens lie.
struct RingWriter {
    proto: Vec<u8>,
    tokens: Vec<Range<usize>>,
}

impl RingWriter {
    fn new(bytes: usize, entries: usize) -> Self {
        Self { proto: Vec::with_capacity(bytes), tokens: Vec::with_capacity(entries) }
    }

    /// Adds an entry of `length` bytes; `put` writes them and returns where among them the packed tokens are.
    fn put(&mut self, id: &str, length: usize, put: impl FnOnce(&mut Vec<u8>) -> Range<usize>) {
        let proto = &mut self.proto;
        proto.push(1 << 3 | 2);
        put_varint(proto, pair_len(id, length) as u64);
        wire::put_bytes(proto, 1, id.as_bytes());
        proto.push(2 << 3 | 2);
        put_varint(proto, length as u64);
        let start = proto.len();
        let tokens = put(proto);
        self.tokens.push(start + tokens.start..start + tokens.end);
    }

    fn finish(self) -> Bytes {
        block::compress(&self.proto, &self.tokens).into()
    }
}

fn decompress(stored: &[u8]) -> Result<Vec<u8>, DecodeError> {
    let not_snappy = |error: snap::Error| DecodeError::new(format!("not a snappy block: {error}"));
    let length = snap::raw::decompress_len(stored).map_err(not_snappy)?;
    if length > MAX_DECODED_BYTES || length > stored.len().saturating_mul(MAX_EXPANSION) {
        return Err(DecodeError::new(format!(
            "{} bytes claim to unpack to {length}, more than they can or than the {MAX_DECODED_BYTES} allowed",
            stored.len()
        )));
    }
    snap::raw::Decoder::new().decompress_vec(stored).map_err(not_snappy)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::InstanceDesc;

    #[test]
    fn a_stamp_says_when_an_entry_was_written_and_whether_its_owner_goes() {
        let entry = |state, read_only| InstanceDesc {
            addr: "10.0.0.1:9095".into(),
            timestamp: 1_700_000_000,
            state,
            tokens: vec![7, 1 << 20, u32::MAX].into(),
            read_only,
            ..InstanceDesc::default()
        };
        let stamp = |entry: &InstanceDesc| RingCodec.stamp("here", &encode_entry(entry)).unwrap();
        for state in State::KNOWN {
            let expected = Stamp {
                timestamp: 1_700_000_000,
                left: state == State::Left,
                passing: matches!(state, State::Leaving | State::ReadOnly),
            };
            assert_eq!(stamp(&entry(state, false)), expected, "{state}");
        }
        assert!(stamp(&entry(State::Active, true)).passing, "read-only in the other dialect");
        assert_eq!(stamp(&InstanceDesc { timestamp: -7, ..InstanceDesc::default() }).timestamp, -7);
        assert_eq!(RingCodec.stamp("here", &[0x08]), None, "cut off");
        assert_eq!(RingCodec.stamp("here", &[0x12, 0x00]), None, "a timestamp that is none");
    }
}
