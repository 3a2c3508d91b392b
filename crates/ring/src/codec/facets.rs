//! An instance's entry in parts that change apart from each other, so that a heartbeat is a few bytes.
//!
//! | facet | holds |
//! |---|---|
//! | 0 | `1`, the hash of facet 1 in eight bytes, the entry without tokens and timestamp; or `0` and an entry that cannot be read |
//! | 1 | the packed tokens, as they are in the entry |
//! | 2 | the timestamp as a varint |
//!
//! An entry is cut up and put together again as bytes: its tokens are copied, never read. The hash makes sure that nobody sees
//! tokens with a state that they do not belong to, whichever of the two arrives first.

#[cfg(test)]
mod tests;

use std::ops::Range;

use bytes::Bytes;
use ringkit_kv::{DecodeError, Facets};
use xxhash_rust::xxh3::xxh3_64;

use super::entry::{decode_entry, encode_entry, packed_tokens};
use super::wire::{Reader, put_bytes, put_int, put_varint};

/// Begins the first facet of an entry that is not in parts.
const WHOLE: u8 = 0;
/// Begins the first facet of one that is.
const PARTED: u8 = 1;

/// The numbers of the fields that are known, in whose order an entry is written.
const KNOWN: Range<u32> = 1..13;
const TIMESTAMP: u32 = 2;
const STATE: u32 = 3;
const TOKENS: u32 = 6;

/// The parts of an entry; one that cannot be read is a part of its own.
pub(super) fn take_apart(id: &str, entry: &Bytes) -> Facets {
    parts(id, entry).unwrap_or_else(|_| [Some([&[WHOLE][..], entry].concat().into()), None, None])
}

fn parts(id: &str, entry: &Bytes) -> Result<Facets, DecodeError> {
    let decoded = decode_entry(id, entry, None)?;
    // Fields in the one order, each once, and none that is no longer used.
    let entry = encode_entry(&decoded);
    let places = Places::of(&entry)?;
    let tokens = entry.slice(packed_tokens(&entry));
    let mut first = Vec::with_capacity(1 + 8 + entry.len() - places.timestamp.len() - places.tokens.len());
    first.push(PARTED);
    first.extend_from_slice(&xxh3_64(&tokens).to_le_bytes());
    first.extend_from_slice(&entry[..places.timestamp.start]);
    first.extend_from_slice(&entry[places.timestamp.end..places.tokens.start]);
    first.extend_from_slice(&entry[places.tokens.end..]);
    let mut timestamp = Vec::new();
    put_varint(&mut timestamp, decoded.timestamp.cast_unsigned());
    Ok([Some(first.into()), Some(tokens), Some(timestamp.into())])
}

/// Puts an entry together. `None` if a part is missing, or if the tokens are not those that belong to the rest.
pub(super) fn unite(facets: &Facets) -> Result<Option<Bytes>, DecodeError> {
    let [Some(first), tokens, timestamp] = facets else { return Ok(None) };
    let rest = match first.first() {
        Some(&WHOLE) => return Ok(Some(first.slice(1..))),
        Some(&PARTED) => &first[1..],
        _ => return Err(DecodeError::new("an entry in parts of an unknown kind")),
    };
    let Some((hash, rest)) = rest.split_first_chunk() else {
        return Err(DecodeError::new("an entry in parts that ends early"));
    };
    let places = Places::of(rest)?;
    if !places.timestamp.is_empty() || !places.tokens.is_empty() {
        return Err(DecodeError::new("an entry in parts of which one holds another one's fields"));
    }
    let (Some(tokens), Some(timestamp)) = (tokens, timestamp) else { return Ok(None) };
    if xxh3_64(tokens) != u64::from_le_bytes(*hash) {
        return Ok(None);
    }
    let timestamp = read_timestamp(timestamp)?;
    // What precedes tokens and timestamp, at most.
    const HEADS: usize = 2 * (1 + 10);
    let mut entry = Vec::with_capacity(rest.len() + tokens.len() + HEADS);
    entry.extend_from_slice(&rest[..places.timestamp.start]);
    put_int(&mut entry, TIMESTAMP, timestamp);
    entry.extend_from_slice(&rest[places.timestamp.end..places.tokens.start]);
    if !tokens.is_empty() {
        put_bytes(&mut entry, TOKENS, tokens);
    }
    entry.extend_from_slice(&rest[places.tokens.end..]);
    Ok(Some(entry.into()))
}

fn read_timestamp(bytes: &[u8]) -> Result<i64, DecodeError> {
    let mut reader = Reader::new(bytes);
    let timestamp = reader.varint()?.cast_signed();
    if !reader.is_empty() {
        return Err(DecodeError::new("something follows the timestamp"));
    }
    Ok(timestamp)
}

/// Where timestamp and tokens are among the fields of an entry; where they would be, if they are not. The former comes first.
#[derive(Debug, Default)]
struct Places {
    timestamp: Range<usize>,
    tokens: Range<usize>,
}

impl Places {
    fn of(entry: &[u8]) -> Result<Self, DecodeError> {
        let (mut places, mut last) = (Self::default(), 0);
        let mut reader = Reader::new(entry);
        while !reader.is_empty() {
            let start = reader.position();
            let (number, wire_type) = reader.tag()?;
            reader.skip(wire_type)?;
            let end = reader.position();
            if !KNOWN.contains(&number) {
                continue;
            }
            if number < last {
                return Err(DecodeError::new("an entry in parts whose fields are out of order"));
            }
            last = number;
            match number {
                ..TIMESTAMP => places.timestamp = end..end,
                TIMESTAMP => places.timestamp = start..end,
                TOKENS => places.tokens = start..end,
                _ => (),
            }
            if number <= STATE {
                places.tokens = end..end;
            }
        }
        Ok(places)
    }
}
