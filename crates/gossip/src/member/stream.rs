//! What is known of one stream, and the seal of one that has it.

use std::net::SocketAddr;

use bytes::Bytes;

use super::SEALED_MAGIC;
use crate::seal::{Direction, Keyring, OpenError, Print, SealError, Sealer, StreamOpener, StreamSealer};
use crate::wire::MAGIC;

/// A session, and a number in it.
const NUMBERS_BYTES: usize = 16;

/// One stream.
pub(super) struct Stream {
    /// Where it was opened to, if it was opened here.
    pub(super) to: Option<SocketAddr>,
    /// Whether anything came.
    pub(super) heard: bool,
    pub(super) manner: Manner,
}

/// How is spoken on a stream, both ways.
pub(super) enum Manner {
    /// Nothing was said.
    Unknown,
    Clear,
    Sealed(Box<Sealed>),
}

impl Stream {
    /// One that came in.
    pub(super) fn accepted() -> Self {
        Self { to: None, heard: false, manner: Manner::Unknown }
    }

    /// One that is to be opened.
    pub(super) fn asked(to: SocketAddr) -> Self {
        Self { to: Some(to), ..Self::accepted() }
    }

    /// Whether the first byte that comes tells how is spoken.
    pub(super) fn awaits_manner(&self) -> bool {
        self.to.is_none() && matches!(self.manner, Manner::Unknown)
    }

    /// Opens no more with keys that are not in the keyring. Returns whether it can go on.
    pub(super) fn keep(&mut self, keyring: &Keyring) -> bool {
        match &mut self.manner {
            Manner::Unknown | Manner::Clear => true,
            Manner::Sealed(sealed) => sealed.keep(keyring),
        }
    }
}

/// The seal of a stream, both ways.
pub(super) struct Sealed {
    /// Which way what comes goes.
    comes: Direction,
    /// What there is of the numbers that it begins with.
    numbers: Vec<u8>,
    /// Once these are complete.
    opener: Option<StreamOpener>,
    /// From the first frame on that is sent.
    sealer: Option<StreamSealer>,
}

impl Sealed {
    /// That of a stream that came in, and whose first byte has been read.
    pub(super) fn accept() -> Self {
        Self { comes: Direction::Forth, numbers: Vec::new(), opener: None, sealer: None }
    }

    /// That of a stream that was opened here, and what it begins with.
    pub(super) fn open_with(keyring: &Keyring, numbers: &mut Sealer) -> Result<(Self, Bytes), SealError> {
        let mut preamble = vec![SEALED_MAGIC];
        let (sealer, comes) = begin(keyring, numbers, Direction::Forth, &mut preamble)?;
        let sealed = Self { comes, sealer: Some(sealer), ..Self::accept() };
        Ok((sealed, preamble.into()))
    }

    /// Seals one frame. The first one that goes back has the numbers before it.
    pub(super) fn seal(
        &mut self,
        keyring: &Keyring,
        numbers: &mut Sealer,
        frame: &[u8],
    ) -> Result<Bytes, SealError> {
        if let Some(sealer) = &mut self.sealer {
            return Ok(sealer.seal_frame(frame)?.into());
        }
        // Whoever accepted a stream does not speak first.
        let (session, stream) = read_numbers(&self.numbers).ok_or(SealError::NoKey)?;
        let mut bytes = Vec::new();
        let (sealer, _) = begin(keyring, numbers, Direction::Back { session, stream }, &mut bytes)?;
        let sealer = self.sealer.insert(sealer);
        bytes.extend(sealer.seal_frame(frame)?);
        Ok(bytes.into())
    }

    /// Appends the frames that are complete with what came, as they were before they were sealed, behind the byte that a stream
    /// begins with. Returns how many there are, and whether it goes on.
    pub(super) fn open(
        &mut self,
        keyring: &Keyring,
        mut bytes: &[u8],
        clear: &mut Vec<u8>,
    ) -> (u64, Result<(), OpenError>) {
        if self.opener.is_none() {
            let lacking = NUMBERS_BYTES.saturating_sub(self.numbers.len());
            let (now, later) = bytes.split_at(lacking.min(bytes.len()));
            self.numbers.extend_from_slice(now);
            bytes = later;
            let Some((session, stream)) = read_numbers(&self.numbers) else { return (0, Ok(())) };
            self.opener = Some(StreamOpener::new(keyring, session, stream, self.comes));
            if self.comes == Direction::Forth {
                clear.push(MAGIC);
            }
        }
        let mut num_frames = 0;
        while let Some(opener) = &mut self.opener {
            match opener.next_frame(&mut bytes) {
                Ok(Some(frame)) => {
                    // Cannot be cut off: no frame is that long.
                    clear.extend_from_slice(&(frame.len() as u32).to_le_bytes());
                    clear.extend_from_slice(&frame);
                    num_frames += 1;
                }
                Ok(None) => break,
                Err(error) => return (num_frames, Err(error)),
            }
        }
        (num_frames, Ok(()))
    }

    /// What tells which key sealed what was opened.
    pub(super) fn print(&self) -> Option<Print> {
        self.opener.as_ref().and_then(StreamOpener::print)
    }

    fn keep(&mut self, keyring: &Keyring) -> bool {
        let seals = self.sealer.as_ref().is_none_or(|sealer| keyring.has(sealer.print()));
        let opens = self.opener.as_mut().is_none_or(|opener| opener.keep(keyring));
        seals && opens
    }
}

/// Begins to seal, and appends the numbers with which. Also returns which way the answers to that go.
fn begin(
    keyring: &Keyring,
    numbers: &mut Sealer,
    direction: Direction,
    out: &mut Vec<u8>,
) -> Result<(StreamSealer, Direction), SealError> {
    let (session, stream) = (numbers.session(), numbers.next_stream()?);
    let sealer = StreamSealer::try_new(keyring, session, stream, direction)?;
    out.extend_from_slice(&session.to_le_bytes());
    out.extend_from_slice(&stream.to_le_bytes());
    Ok((sealer, Direction::Back { session, stream }))
}

fn read_numbers(bytes: &[u8]) -> Option<(u64, u64)> {
    let (session, rest) = bytes.split_first_chunk::<8>()?;
    let (stream, _) = rest.split_first_chunk::<8>()?;
    Some((u64::from_le_bytes(*session), u64::from_le_bytes(*stream)))
}
