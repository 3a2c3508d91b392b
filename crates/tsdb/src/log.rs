//! Records of the write-ahead log and of its snapshots: framing, types, and a reader that tells a torn tail from damage.
//!
//! A frame is `length u32 LE | crc32c u32 LE | type u8 | payload`; the length counts type and payload, the checksum
//! covers both. Numbers in payloads are variable-length, signed ones in zigzag.
//!
//! | type | record | payload |
//! |---|---|---|
//! | 1 | series | id, tenant, number of labels, then name and value of each |
//! | 2 | samples | number of samples, then of each: id and timestamp (milliseconds) as differences to the one before, value (8 bytes LE) |
//! | 3 | tenant removed | tenant |
//! | 4 | chunk | id, encoded XOR chunk up to the end |
//!
//! Texts and byte strings are preceded by their length. A series' id is unique in the log, so samples need no tenant.
//! A type this reader does not know is neither damage nor torn: it was written by a newer version, and must not be
//! cut off.

mod record;

pub use record::{Labels, Record, Samples};

use crate::varint;

/// Bytes in front of the type.
const HEADER: usize = 8;

/// The longest frame content (type and payload). Writers refuse to exceed it, so a longer one is damage.
pub const MAX_CONTENT_BYTES: usize = 256 << 20;

/// A record would exceed [`MAX_CONTENT_BYTES`]. The buffer is as it was before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("log record of {bytes} bytes exceeds {MAX_CONTENT_BYTES}")]
pub struct TooLarge {
    /// The size it would have.
    pub bytes: usize,
}

/// Why reading stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The bytes end inside a frame, or in zeros: what a crash leaves behind. (A damaged length may look the same.)
    #[error("log ends inside a record at offset {offset}")]
    Torn {
        /// Where the frame begins: all before it is whole.
        offset: usize,
    },
    /// The frame is not what was written.
    #[error("log is corrupt at offset {offset}: {reason}")]
    Corrupt {
        /// Where the frame begins: all before it is whole.
        offset: usize,
        /// What is wrong.
        reason: Damage,
    },
    /// The frame is whole, but of a type this version does not know.
    #[error("log holds a record of unknown type {kind} at offset {offset}: written by a newer version")]
    Unsupported {
        /// Where the frame begins.
        offset: usize,
        /// Its type.
        kind: u8,
    },
}

impl Error {
    /// Where the frame begins that could not be read: all before it is whole.
    pub fn offset(&self) -> usize {
        match *self {
            Self::Torn { offset } | Self::Corrupt { offset, .. } | Self::Unsupported { offset, .. } => offset,
        }
    }
}

/// What is wrong with a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Damage {
    /// A length no writer writes.
    #[error("impossible length")]
    Length,
    /// Content and checksum differ.
    #[error("checksum mismatch")]
    Checksum,
    /// The checksum fits, but the payload is not a record of its type.
    #[error("malformed payload")]
    Payload,
}

/// Appends a series record: from now on samples may refer to it by `id`.
///
/// # Errors
///
/// [`TooLarge`], leaving `out` as it was, as with the other writers.
pub fn put_series<'a>(
    out: &mut Vec<u8>,
    id: u64,
    tenant: &str,
    labels: impl ExactSizeIterator<Item = (&'a [u8], &'a [u8])>,
) -> Result<(), TooLarge> {
    put_frame(out, record::SERIES, |out| {
        varint::put(out, id);
        put_bytes(out, tenant.as_bytes());
        varint::put(out, labels.len() as u64);
        for (name, value) in labels {
            put_bytes(out, name);
            put_bytes(out, value);
        }
    })
}

/// Appends a record of samples: (id, milliseconds, value), in the order given.
///
/// # Errors
///
/// [`TooLarge`].
pub fn put_samples(
    out: &mut Vec<u8>,
    samples: impl ExactSizeIterator<Item = (u64, i64, f64)>,
) -> Result<(), TooLarge> {
    put_frame(out, record::SAMPLES, |out| {
        varint::put(out, samples.len() as u64);
        let (mut last_id, mut last_time) = (0_u64, 0_i64);
        for (id, time, value) in samples {
            varint::put(out, varint::zigzag(id.wrapping_sub(last_id).cast_signed()));
            varint::put(out, varint::zigzag(time.wrapping_sub(last_time)));
            out.extend_from_slice(&value.to_bits().to_le_bytes());
            (last_id, last_time) = (id, time);
        }
    })
}

/// Appends the record that a tenant's series are gone.
///
/// # Errors
///
/// [`TooLarge`].
pub fn put_tenant_removed(out: &mut Vec<u8>, tenant: &str) -> Result<(), TooLarge> {
    put_frame(out, record::TENANT_REMOVED, |out| put_bytes(out, tenant.as_bytes()))
}

/// Appends a record of an encoded chunk of the series `id`.
///
/// # Errors
///
/// [`TooLarge`].
pub fn put_chunk(out: &mut Vec<u8>, id: u64, chunk: &[u8]) -> Result<(), TooLarge> {
    put_frame(out, record::CHUNK, |out| {
        varint::put(out, id);
        out.extend_from_slice(chunk);
    })
}

fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    varint::put(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

fn put_frame(out: &mut Vec<u8>, kind: u8, payload: impl FnOnce(&mut Vec<u8>)) -> Result<(), TooLarge> {
    let start = out.len();
    out.extend_from_slice(&[0; HEADER]);
    out.push(kind);
    payload(out);
    let content = &out[start + HEADER..];
    let bytes = content.len();
    let len = u32::try_from(bytes).ok().filter(|_| bytes <= MAX_CONTENT_BYTES);
    let Some(len) = len else {
        out.truncate(start);
        return Err(TooLarge { bytes });
    };
    let checksum = crc32c::crc32c(content);
    out[start..start + 4].copy_from_slice(&len.to_le_bytes());
    out[start + 4..start + HEADER].copy_from_slice(&checksum.to_le_bytes());
    Ok(())
}

/// What the front of some bytes is.
#[derive(Clone, Debug)]
pub enum Decoded<'a> {
    /// A whole record and how many bytes it took.
    Record(Record<'a>, usize),
    /// More bytes are needed: at least so many in all.
    Incomplete(usize),
    /// Not what was written.
    Corrupt(Damage),
    /// A whole frame of an unknown type.
    Unsupported(u8),
}

/// Reads one record off the front of `bytes`, for readers that fill a buffer as they go. Copies nothing.
///
/// Never asks for more than a frame of [`MAX_CONTENT_BYTES`].
pub fn decode(bytes: &[u8]) -> Decoded<'_> {
    let Some((header, rest)) = bytes.split_first_chunk::<HEADER>() else {
        return Decoded::Incomplete(HEADER);
    };
    let [l0, l1, l2, l3, c0, c1, c2, c3] = *header;
    let len = u32::from_le_bytes([l0, l1, l2, l3]) as usize;
    if len == 0 || len > MAX_CONTENT_BYTES {
        return Decoded::Corrupt(Damage::Length);
    }
    let Some(content) = rest.get(..len) else { return Decoded::Incomplete(HEADER + len) };
    if crc32c::crc32c(content) != u32::from_le_bytes([c0, c1, c2, c3]) {
        return Decoded::Corrupt(Damage::Checksum);
    }
    match content.split_first().map(|(&kind, payload)| (kind, Record::parse(kind, payload))) {
        Some((_, Ok(record))) => Decoded::Record(record, HEADER + len),
        Some((kind, Err(record::Unreadable::Kind))) => Decoded::Unsupported(kind),
        Some((_, Err(record::Unreadable::Payload))) | None => Decoded::Corrupt(Damage::Payload),
    }
}

/// The records of a segment. Ends after the first error.
#[derive(Clone, Debug)]
pub struct Reader<'a> {
    bytes: &'a [u8],
    offset: usize,
    failed: bool,
}

impl<'a> Reader<'a> {
    /// Reads a whole segment from its beginning.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, offset: 0, failed: false }
    }

    /// How many bytes have been read as whole records: where the next one begins.
    pub fn offset(&self) -> usize {
        self.offset
    }
}

impl<'a> Iterator for Reader<'a> {
    type Item = Result<Record<'a>, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        let offset = self.offset;
        let rest = self.bytes.get(offset..).filter(|rest| !rest.is_empty() && !self.failed)?;
        let error = match decode(rest) {
            Decoded::Record(record, len) => {
                self.offset += len;
                return Some(Ok(record));
            }
            Decoded::Incomplete(_) => Error::Torn { offset },
            // A file may have grown before its contents reached the disk.
            Decoded::Corrupt(Damage::Length) if rest.iter().all(|byte| *byte == 0) => Error::Torn { offset },
            Decoded::Corrupt(reason) => Error::Corrupt { offset, reason },
            Decoded::Unsupported(kind) => Error::Unsupported { offset, kind },
        };
        self.failed = true;
        Some(Err(error))
    }
}

#[cfg(test)]
mod tests;
