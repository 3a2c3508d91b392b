//! Frames: what members say to each other on streams.

use bytes::{Bytes, BytesMut};
use smol_str::SmolStr;

use crate::id::NodeId;
use crate::register::{EntryId, Version};

use super::code::{Cursor, put_bytes, put_entry, put_u64, put_version};
use super::list::{RecordList, put_root, read_root};
use super::pack::{PACKED, pack, unpack};
use super::{Fault, MAX_KEY_BYTES, MAX_TEXT_BYTES, WireError};

/// Longest frame, in bytes behind its length.
pub const MAX_FRAME_BYTES: usize = 1 << 20;
/// How many items a list in a frame may have; records are bounded by their bytes alone.
///
/// In memory an item takes several times its bytes on the wire: this bounds what one frame can take.
pub const MAX_FRAME_ITEMS: usize = 1 << 16;

pub(super) const LENGTH_BYTES: usize = 4;

const HELLO: u8 = 1;
const PING: u8 = 2;
const PONG: u8 = 3;
const SYNC_REQUEST: u8 = 4;
const BUCKETS: u8 = 5;
const ENTRIES: u8 = 6;
const MEMBERS: u8 = 7;
const RECORDS: u8 = 8;
const FETCH: u8 = 9;
const DONE: u8 = 11;
const ERROR: u8 = 12;
// 10 is nothing, and 13 a packed one.
const BEATS: u8 = 14;

/// One thing said on a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame {
    /// Who opens a stream, and who answers.
    Hello {
        /// What it speaks: see [`is_compatible`](super::is_compatible).
        version: u8,
        /// The cluster it belongs to, in full.
        label: SmolStr,
        /// Which member it is.
        node: NodeId,
        /// The member's name.
        name: SmolStr,
        /// What program it runs.
        build: SmolStr,
        /// Whether it has joined, so that what it has is as good as anybody's.
        settled: bool,
    },
    /// Are you alive?
    Ping {
        /// Comes back in the answer.
        nonce: u64,
    },
    /// Yes.
    Pong {
        /// Of the question.
        nonce: u64,
        /// Who answers.
        node: NodeId,
        /// How often it refuted its death.
        incarnation: u16,
    },
    /// Let us compare what we have.
    SyncRequest {
        /// The sender has nothing yet and takes everything.
        join: bool,
        /// Hash of the members it knows.
        member_hash: u64,
        /// Its keys, and the hash of what each holds.
        roots: Vec<(SmolStr, u128)>,
    },
    /// Hashes of parts of a key.
    Buckets {
        /// The key.
        key: SmolStr,
        /// Which part, and its hash; ascending, without those that need not be told.
        buckets: Vec<(u8, u64)>,
    },
    /// What is in one part of a key.
    Entries {
        /// The key.
        key: SmolStr,
        /// The part.
        bucket: u8,
        /// Registers and their hashes.
        entries: Vec<(EntryId, u64)>,
    },
    /// Members as the sender knows them.
    Members(Vec<MemberEntry>),
    /// Registers.
    Records(RecordList),
    /// Send me these.
    Fetch {
        /// The key.
        key: SmolStr,
        /// Of it these registers.
        entries: Vec<EntryId>,
    },
    /// The heartbeats of a key that the sender has, of which digests tell nothing.
    Beats {
        /// The key.
        key: SmolStr,
        /// The hashes of the ids of their entries, ascending, and their versions.
        beats: Vec<(u64, Version)>,
    },
    /// That was all.
    Done {
        /// How many registers moved, both ways.
        moved: u64,
    },
    /// It goes no further.
    Error {
        /// Why, for programs.
        code: u8,
        /// Why, for people. Cut at [`MAX_TEXT_BYTES`] when sent.
        text: SmolStr,
    },
}

/// A member as somebody knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemberEntry {
    /// Who.
    pub node: NodeId,
    /// How often it refuted its death.
    pub incarnation: u16,
    /// Whether it is alive, as the membership engine codes it.
    pub state: u8,
}

impl Frame {
    /// As it is sent, with its length.
    ///
    /// # Errors
    ///
    /// If no reader would take it: a text, a list or the whole is over its limit, or buckets do not ascend.
    pub fn encode(&self) -> Result<Bytes, Fault> {
        let mut out = vec![0; LENGTH_BYTES];
        self.put(&mut out)?;
        let len = out.len() - LENGTH_BYTES;
        if len > MAX_FRAME_BYTES {
            return Err(Fault::TooLong { len: len as u64, max: MAX_FRAME_BYTES });
        }
        // Cannot be cut off: it was compared with the limit.
        out[..LENGTH_BYTES].copy_from_slice(&(len as u32).to_le_bytes());
        Ok(out.into())
    }

    /// The same, packed with lz4 if that makes it shorter by at least an eighth.
    ///
    /// # Errors
    ///
    /// As [`encode`](Self::encode): what would be too long unpacked is too long.
    pub fn encode_packed(&self) -> Result<Bytes, Fault> {
        let whole = self.encode()?;
        Ok(pack(&whole).unwrap_or(whole))
    }

    fn put(&self, out: &mut Vec<u8>) -> Result<(), Fault> {
        match self {
            Self::Hello { version, label, node, name, build, settled } => {
                out.extend_from_slice(&[HELLO, *version]);
                put_bytes(out, label.as_bytes(), MAX_TEXT_BYTES)?;
                node.encode(out);
                put_bytes(out, name.as_bytes(), MAX_TEXT_BYTES)?;
                put_bytes(out, build.as_bytes(), MAX_TEXT_BYTES)?;
                out.push(u8::from(*settled));
                Ok(())
            }
            Self::Ping { nonce } => {
                out.push(PING);
                put_u64(out, *nonce);
                Ok(())
            }
            Self::Pong { nonce, node, incarnation } => {
                out.push(PONG);
                put_u64(out, *nonce);
                node.encode(out);
                out.extend_from_slice(&incarnation.to_le_bytes());
                Ok(())
            }
            Self::SyncRequest { join, member_hash, roots } => {
                out.extend_from_slice(&[SYNC_REQUEST, u8::from(*join)]);
                put_u64(out, *member_hash);
                put_items(out, roots, put_root)
            }
            Self::Buckets { key, buckets } => {
                if !buckets.is_sorted_by(|one, next| one.0 < next.0) {
                    return Err(Fault::Order);
                }
                out.push(BUCKETS);
                put_bytes(out, key.as_bytes(), MAX_KEY_BYTES)?;
                put_items(out, buckets, |out, (bucket, hash)| {
                    out.push(*bucket);
                    put_u64(out, *hash);
                    Ok(())
                })
            }
            Self::Entries { key, bucket, entries } => {
                out.push(ENTRIES);
                put_bytes(out, key.as_bytes(), MAX_KEY_BYTES)?;
                out.push(*bucket);
                put_items(out, entries, |out, (entry, hash)| {
                    put_entry(out, &entry.id, entry.facet)?;
                    put_u64(out, *hash);
                    Ok(())
                })
            }
            Self::Members(members) => {
                out.push(MEMBERS);
                put_items(out, members, |out, member| {
                    member.node.encode(out);
                    out.extend_from_slice(&member.incarnation.to_le_bytes());
                    out.push(member.state);
                    Ok(())
                })
            }
            Self::Records(records) => {
                out.push(RECORDS);
                out.extend_from_slice(&records.bytes);
                Ok(())
            }
            Self::Fetch { key, entries } => {
                out.push(FETCH);
                put_bytes(out, key.as_bytes(), MAX_KEY_BYTES)?;
                put_items(out, entries, |out, entry| put_entry(out, &entry.id, entry.facet))
            }
            Self::Beats { key, beats } => {
                if !beats.is_sorted_by(|one, next| one.0 < next.0) {
                    return Err(Fault::Order);
                }
                out.push(BEATS);
                put_bytes(out, key.as_bytes(), MAX_KEY_BYTES)?;
                put_items(out, beats, |out, (id_hash, version)| {
                    put_u64(out, *id_hash);
                    put_version(out, *version);
                    Ok(())
                })
            }
            Self::Done { moved } => {
                out.push(DONE);
                put_u64(out, *moved);
                Ok(())
            }
            Self::Error { code, text } => {
                out.extend_from_slice(&[ERROR, *code]);
                // Half a reason is better than none.
                let text = &text[..text.floor_char_boundary(MAX_TEXT_BYTES)];
                put_bytes(out, text.as_bytes(), MAX_TEXT_BYTES)
            }
        }
    }

    /// Reads what follows a frame's length, all of it, packed or not. Of records only that they are there: they are read one by
    /// one later.
    ///
    /// # Errors
    ///
    /// If it is no frame, or would be longer than [`MAX_UNPACKED_BYTES`](super::MAX_UNPACKED_BYTES). The stream's next one can
    /// be read nevertheless.
    pub fn decode(frame: &Bytes) -> Result<Self, WireError> {
        let mut cursor = Cursor::new(frame, LENGTH_BYTES);
        let start = cursor;
        if cursor.u8()? != PACKED {
            return Self::read(frame);
        }
        let unpacked = unpack(cursor)?;
        // Else a short one could take as long to read as it likes.
        if unpacked.first() == Some(&PACKED) {
            return Err(start.error(Fault::Nested));
        }
        Self::read(&unpacked)
    }

    fn read(frame: &Bytes) -> Result<Self, WireError> {
        let mut cursor = Cursor::new(frame, LENGTH_BYTES);
        let start = cursor;
        let decoded = match cursor.u8()? {
            HELLO => Self::Hello {
                version: cursor.u8()?,
                label: cursor.text(MAX_TEXT_BYTES)?.into(),
                node: cursor.node()?,
                name: cursor.text(MAX_TEXT_BYTES)?.into(),
                build: cursor.text(MAX_TEXT_BYTES)?.into(),
                settled: cursor.bool()?,
            },
            PING => Self::Ping { nonce: cursor.u64()? },
            PONG => Self::Pong { nonce: cursor.u64()?, node: cursor.node()?, incarnation: cursor.u16()? },
            SYNC_REQUEST => Self::SyncRequest {
                join: cursor.bool()?,
                member_hash: cursor.u64()?,
                roots: read_items(&mut cursor, |cursor| {
                    let (key, root) = read_root(cursor)?;
                    Ok((SmolStr::new(key), root))
                })?,
            },
            BUCKETS => {
                Self::Buckets { key: cursor.text(MAX_KEY_BYTES)?.into(), buckets: read_buckets(&mut cursor)? }
            }
            ENTRIES => Self::Entries {
                key: cursor.text(MAX_KEY_BYTES)?.into(),
                bucket: cursor.u8()?,
                entries: read_items(&mut cursor, |cursor| Ok((read_entry(cursor)?, cursor.u64()?)))?,
            },
            MEMBERS => Self::Members(read_items(&mut cursor, |cursor| {
                Ok(MemberEntry { node: cursor.node()?, incarnation: cursor.u16()?, state: cursor.u8()? })
            })?),
            RECORDS => Self::Records(RecordList { bytes: frame.slice_ref(cursor.take_rest()) }),
            FETCH => Self::Fetch {
                key: cursor.text(MAX_KEY_BYTES)?.into(),
                entries: read_items(&mut cursor, read_entry)?,
            },
            BEATS => Self::Beats { key: cursor.text(MAX_KEY_BYTES)?.into(), beats: read_beats(&mut cursor)? },
            DONE => Self::Done { moved: cursor.u64()? },
            ERROR => Self::Error { code: cursor.u8()?, text: cursor.text(MAX_TEXT_BYTES)?.into() },
            other => return Err(start.error(Fault::Type(other))),
        };
        cursor.end()?;
        Ok(decoded)
    }
}

fn put_items<T>(
    out: &mut Vec<u8>,
    items: &[T],
    mut put: impl FnMut(&mut Vec<u8>, &T) -> Result<(), Fault>,
) -> Result<(), Fault> {
    if items.len() > MAX_FRAME_ITEMS {
        return Err(Fault::TooLong { len: items.len() as u64, max: MAX_FRAME_ITEMS });
    }
    items.iter().try_for_each(|item| put(out, item))
}

fn read_items<'a, T>(
    cursor: &mut Cursor<'a>,
    mut read: impl FnMut(&mut Cursor<'a>) -> Result<T, WireError>,
) -> Result<Vec<T>, WireError> {
    let mut items = Vec::new();
    loop {
        let start = *cursor;
        let Some(item) = cursor.item(&mut read) else { return Ok(items) };
        items.push(item?);
        if items.len() > MAX_FRAME_ITEMS {
            return Err(start.error(Fault::TooLong { len: items.len() as u64, max: MAX_FRAME_ITEMS }));
        }
    }
}

fn read_entry(cursor: &mut Cursor<'_>) -> Result<EntryId, WireError> {
    let (id, facet) = cursor.entry()?;
    Ok(EntryId::new(id, facet))
}

fn read_buckets(cursor: &mut Cursor<'_>) -> Result<Vec<(u8, u64)>, WireError> {
    let mut last: Option<u8> = None;
    read_items(cursor, |cursor| {
        let start = *cursor;
        let (bucket, hash) = (cursor.u8()?, cursor.u64()?);
        // So that there are never more than there can be.
        if last.is_some_and(|last| last >= bucket) {
            return Err(start.error(Fault::Order));
        }
        last = Some(bucket);
        Ok((bucket, hash))
    })
}

fn read_beats(cursor: &mut Cursor<'_>) -> Result<Vec<(u64, Version)>, WireError> {
    let mut last: Option<u64> = None;
    read_items(cursor, |cursor| {
        let start = *cursor;
        let (id_hash, version) = (cursor.u64()?, cursor.version()?);
        // So that nothing is told twice.
        if last.is_some_and(|last| last >= id_hash) {
            return Err(start.error(Fault::Order));
        }
        last = Some(id_hash);
        Ok((id_hash, version))
    })
}

/// Puts frames together from the pieces in which a stream arrives. Holds one frame at most.
#[derive(Debug, Default)]
pub struct FrameReader {
    /// What there is of the frame that is arriving, with its length.
    buffer: BytesMut,
    broken: Option<WireError>,
}

impl FrameReader {
    /// Takes from the front of `input` what the frame that is arriving lacks, and returns the frame if it is then complete.
    /// To be called until it returns nothing: `input` is then used up.
    ///
    /// # Errors
    ///
    /// A frame that cannot be [decoded](Frame::decode), which is then passed over. A frame that is too long: no more can be
    /// read from such a stream, and the error repeats.
    pub fn next_frame(&mut self, input: &mut &[u8]) -> Result<Option<Frame>, WireError> {
        if let Some(error) = self.broken {
            return Err(error);
        }
        self.fill(LENGTH_BYTES, input);
        let Some(length) = self.buffer.first_chunk::<LENGTH_BYTES>() else { return Ok(None) };
        let len = u32::from_le_bytes(*length) as usize;
        if len > MAX_FRAME_BYTES {
            let fault = Fault::TooLong { len: len as u64, max: MAX_FRAME_BYTES };
            let error = WireError { at: 0, fault };
            self.broken = Some(error);
            return Err(error);
        }
        // Grows with what arrives, not with what is announced.
        self.fill(LENGTH_BYTES + len, input);
        if self.buffer.len() < LENGTH_BYTES + len {
            return Ok(None);
        }
        let frame = std::mem::take(&mut self.buffer).freeze();
        Frame::decode(&frame.slice(LENGTH_BYTES..)).map(Some)
    }

    /// Makes sure that the stream, which has ended, did so between two frames.
    ///
    /// # Errors
    ///
    /// [`Fault::Short`] if it did not.
    pub fn finish(&self) -> Result<(), WireError> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        Err(WireError { at: self.buffer.len(), fault: Fault::Short })
    }

    fn fill(&mut self, len: usize, input: &mut &[u8]) {
        let lacking = len.saturating_sub(self.buffer.len());
        let (now, later) = input.split_at(lacking.min(input.len()));
        self.buffer.extend_from_slice(now);
        *input = later;
    }
}
