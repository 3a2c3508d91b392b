//! The stored form of a ring: Snappy block of a protobuf `Desc`, a map from id to `InstanceDesc`.
//!
//! Written by hand, because three things matter that generated code does not give: fields that this version does not know
//! survive a rewrite, equal rings give equal bytes, and no input makes the reader panic, recurse or allocate more than
//! its own size warrants.

mod entry;
mod wire;

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use ringkit_kv::{Codec, DecodeError, EntryId};

pub(crate) use self::entry::{decode_entry, encode_entry};
use self::wire::{Reader, WireType, put_varint, varint_len};
use crate::desc::Desc;

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
        compress(&join_proto(entries))
    }

    fn check_entry(&self, id: &str, entry: &[u8]) -> Result<(), DecodeError> {
        decode_entry(id, entry, None).map(drop)
    }
}

pub(crate) fn decode(stored: &[u8]) -> Result<Desc, DecodeError> {
    let proto = decompress(stored)?;
    let mut desc = Desc::new();
    each_entry(&proto, |id, bytes| {
        let entry = decode_entry(&id, bytes, None)?;
        desc.insert(id, Arc::new(entry));
        Ok(())
    })?;
    Ok(desc)
}

pub(crate) fn encode(desc: &Desc) -> Bytes {
    let entries = desc.iter().map(|(id, entry)| (id.clone(), encode_entry(entry))).collect();
    compress(&join_proto(&entries))
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
    compress(&encode_entry(entry))
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

fn join_proto(entries: &BTreeMap<EntryId, Bytes>) -> Vec<u8> {
    let len = |bytes: &[u8]| 1 + varint_len(bytes.len() as u64) + bytes.len();
    let inner = |id: &EntryId, entry: &Bytes| len(id.as_bytes()) + len(entry);
    let total =
        entries.iter().map(|(id, entry)| inner(id, entry)).map(|n| 1 + varint_len(n as u64) + n).sum();
    let mut out = Vec::with_capacity(total);
    for (id, entry) in entries {
        out.push(0x0A);
        put_varint(&mut out, inner(id, entry) as u64);
        wire::put_bytes(&mut out, 1, id.as_bytes());
        wire::put_bytes(&mut out, 2, entry);
    }
    out
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

#[expect(
    clippy::expect_used,
    reason = "invariant: compression fails only beyond 4 GiB, stores refuse far less"
)]
fn compress(proto: &[u8]) -> Bytes {
    snap::raw::Encoder::new().compress_vec(proto).expect("a ring of less than 4 GiB").into()
}
