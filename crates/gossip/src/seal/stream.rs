//! Sealed frames on streams.

use bytes::{Bytes, BytesMut};
use ring::aead::LessSafeKey;
use ring::error::Unspecified;

use super::{ClusterKey, Keyring, OpenError, Print, SealError, TAG_BYTES, open_with, seal_with};
use crate::wire::{Fault, MAX_FRAME_BYTES, WireError};

const LENGTH_BYTES: usize = 4;
/// Where what is sealed begins: behind length and key id.
const BODY_AT: usize = LENGTH_BYTES + 1;
/// How many bytes behind its length a frame has more when it is sealed.
const SEAL_BYTES: usize = 1 + TAG_BYTES;

/// Which way a frame goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// From who opened the stream to who accepted it.
    Forth,
    /// From who accepted it to who opened it with these numbers: for any other stream, the same answer does not open.
    Back {
        /// The session of who opened it.
        session: u64,
        /// Its number there.
        stream: u64,
    },
}

/// Seals the frames of one direction of a stream. It cannot be copied, because the copy would use its nonces again.
#[derive(Debug)]
pub struct StreamSealer {
    print: Print,
    key: LessSafeKey,
    /// Of the next frame.
    pub(super) counter: u64,
}

impl StreamSealer {
    /// For a stream of the [`Sealer`](super::Sealer)'s own session and with a [new number](super::Sealer::next_stream) of its
    /// own. They are no secrets, and the other end must be told. Each end needs numbers of its own: who sealed with those that it
    /// is told would use its nonces again as soon as somebody plays the same stream to it again.
    ///
    /// # Errors
    ///
    /// [`SealError::NoKey`] if the keyring is empty.
    pub fn try_new(
        keyring: &Keyring,
        session: u64,
        stream: u64,
        direction: Direction,
    ) -> Result<Self, SealError> {
        let cluster_key = keyring.sealing()?;
        let key = derive(cluster_key, session, stream, direction).map_err(|_| SealError::Cipher)?;
        Ok(Self { print: cluster_key.print, key, counter: 0 })
    }

    /// What tells which key it seals with.
    pub(crate) fn print(&self) -> Print {
        self.print
    }

    /// Seals one frame as it is [encoded](crate::wire::Frame::encode). To be sent in the order of sealing.
    ///
    /// # Errors
    ///
    /// [`SealError::Wire`] if it is not one frame of an allowed length; [`SealError::Exhausted`] after 2^64 - 1 of them.
    pub fn seal_frame(&mut self, frame: &[u8]) -> Result<Vec<u8>, SealError> {
        let body = body_of(frame)?;
        let counter = self.counter;
        // Used up even if sealing fails.
        self.counter = counter.checked_add(1).ok_or(SealError::Exhausted)?;
        let mut sealed = Vec::with_capacity(BODY_AT + body.len() + TAG_BYTES);
        // Cannot be cut off: it was compared with the limit.
        sealed.extend_from_slice(&((SEAL_BYTES + body.len()) as u32).to_le_bytes());
        sealed.push(self.print.id());
        sealed.extend_from_slice(body);
        let (head, body) = sealed.split_at_mut(BODY_AT);
        let tag = seal_with(&self.key, counter, head, body)?;
        sealed.extend_from_slice(tag.as_ref());
        Ok(sealed)
    }
}

/// Puts sealed frames together from the pieces in which a stream arrives, and opens them in the order they were sealed. Holds
/// one frame at most.
#[derive(Debug)]
pub struct StreamOpener {
    /// The keys that may have sealed; from the first frame on only the one that did.
    keys: Vec<(Print, LessSafeKey)>,
    /// Known once a frame was opened.
    sealed_with: Option<Print>,
    /// Of the next frame.
    counter: u64,
    /// What there is of the frame that is arriving.
    buffer: BytesMut,
    broken: Option<OpenError>,
}

impl StreamOpener {
    /// For what was sealed with the same numbers, and any key of the keyring.
    pub fn new(keyring: &Keyring, session: u64, stream: u64, direction: Direction) -> Self {
        let keys = keyring.keys.iter();
        let keys = keys.filter_map(|key| Some((key.print, derive(key, session, stream, direction).ok()?)));
        Self { keys: keys.collect(), sealed_with: None, counter: 0, buffer: BytesMut::new(), broken: None }
    }

    /// What tells which key sealed, once a frame was opened.
    pub(crate) fn print(&self) -> Option<Print> {
        self.sealed_with
    }

    /// Opens no more with keys that are not in the keyring. Returns whether it still opens with any.
    pub(crate) fn keep(&mut self, keyring: &Keyring) -> bool {
        self.keys.retain(|(print, _)| keyring.has(*print));
        !self.keys.is_empty()
    }

    /// Takes from the front of `input` what the frame that is arriving lacks, and if it is then complete returns what followed
    /// its length before it was sealed, for [`Frame::decode`](crate::wire::Frame::decode). To be called until it returns
    /// nothing: `input` is then used up.
    ///
    /// # Errors
    ///
    /// If a frame is too long, too short or not genuine, or is not the next one. No more can be read from such a stream, and
    /// the error repeats.
    pub fn next_frame(&mut self, input: &mut &[u8]) -> Result<Option<Bytes>, OpenError> {
        if let Some(error) = self.broken {
            return Err(error);
        }
        let result = self.read_frame(input);
        if let Err(error) = &result {
            self.broken = Some(*error);
        }
        result
    }

    /// Makes sure that the stream, which has ended, did so between two frames. Whether more were to come the seal cannot tell.
    ///
    /// # Errors
    ///
    /// [`OpenError::Short`] if it did not; what [`next_frame`](Self::next_frame) returned, if that was an error.
    pub fn finish(&self) -> Result<(), OpenError> {
        match self.broken {
            Some(error) => Err(error),
            None if self.buffer.is_empty() => Ok(()),
            None => Err(OpenError::Short),
        }
    }

    fn read_frame(&mut self, input: &mut &[u8]) -> Result<Option<Bytes>, OpenError> {
        self.fill(LENGTH_BYTES, input);
        let Some(length) = self.buffer.first_chunk::<LENGTH_BYTES>() else { return Ok(None) };
        let len = u32::from_le_bytes(*length) as usize;
        if len < SEAL_BYTES {
            return Err(OpenError::Short);
        }
        let max = SEAL_BYTES + MAX_FRAME_BYTES;
        if len > max {
            return Err(too_long(len, max).into());
        }
        // Grows with what arrives, not with what is announced.
        self.fill(LENGTH_BYTES + len, input);
        if self.buffer.len() < LENGTH_BYTES + len {
            return Ok(None);
        }
        let frame = std::mem::take(&mut self.buffer);
        self.open(frame).map(Some)
    }

    fn fill(&mut self, len: usize, input: &mut &[u8]) {
        let lacking = len.saturating_sub(self.buffer.len());
        let (now, later) = input.split_at(lacking.min(input.len()));
        self.buffer.extend_from_slice(now);
        *input = later;
    }

    /// Opens a frame that is whole, and no shorter than one without a body.
    fn open(&mut self, mut frame: BytesMut) -> Result<Bytes, OpenError> {
        let counter = self.counter;
        self.counter = counter.checked_add(1).ok_or(OpenError::Replayed)?;
        let end = frame.len().saturating_sub(TAG_BYTES);
        let (head, body) = frame.split_at_mut(BODY_AT);
        let id = head[LENGTH_BYTES];
        // The first try may leave nothing for the second.
        let sealed = (self.keys.len() > 1).then(|| body.to_vec());
        let mut refusal = OpenError::UnknownKey { id };
        let opened_with = self.keys.iter().position(|(print, key)| {
            if print.id() != id {
                return false;
            }
            refusal = OpenError::Forged;
            if let Some(sealed) = &sealed {
                body.copy_from_slice(sealed);
            }
            open_with(key, counter, head, body).is_ok()
        });
        let Some(opened_with) = opened_with else { return Err(refusal) };
        self.keys.swap(0, opened_with);
        self.keys.truncate(1);
        self.sealed_with = self.keys.first().map(|(print, _)| *print);
        Ok(frame.freeze().slice(BODY_AT..end))
    }
}

/// What follows the length of a frame, if that is all of it.
fn body_of(frame: &[u8]) -> Result<&[u8], WireError> {
    let short = WireError { at: frame.len(), fault: Fault::Short };
    let (length, body) = frame.split_first_chunk::<LENGTH_BYTES>().ok_or(short)?;
    let len = u32::from_le_bytes(*length) as usize;
    if len > MAX_FRAME_BYTES {
        return Err(too_long(len, MAX_FRAME_BYTES));
    }
    if body.len() < len {
        return Err(short);
    }
    if body.len() > len {
        return Err(WireError { at: LENGTH_BYTES + len, fault: Fault::Trailing });
    }
    Ok(body)
}

fn too_long(len: usize, max: usize) -> WireError {
    WireError { at: 0, fault: Fault::TooLong { len: len as u64, max } }
}

fn derive(
    key: &ClusterKey,
    session: u64,
    stream: u64,
    direction: Direction,
) -> Result<LessSafeKey, Unspecified> {
    let (text, number) = (&b"stream"[..], stream.to_le_bytes());
    match direction {
        Direction::Forth => key.derive(session, &[text, &number, &[0]]),
        Direction::Back { session: asker, stream: asked } => {
            key.derive(session, &[text, &number, &[1], &asker.to_le_bytes(), &asked.to_le_bytes()])
        }
    }
}
