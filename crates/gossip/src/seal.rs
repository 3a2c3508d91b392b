//! Sealing: who has no key of the cluster can neither read nor make what its members send.
//!
//! ```text
//! datagram  header, flagged as sealed | sealed sections | tag 16
//! frame     u32 length | u8 key id | sealed type and bytes | tag 16       the length is of all that follows it
//! ```
//!
//! The cipher is AES-256-GCM, which is broken by a key that sees a nonce twice. Members that share a key cannot agree on nonces,
//! and random ones would meet within days. So nobody seals with the cluster's key itself: every process makes up a random number
//! at its start, its session, derives keys of its own from both, and counts. The key is `HKDF-SHA-256(secret: cluster key,
//! salt: u64 session, info)`, where info is `datagram` for datagrams, `stream | u64 number | 0` for streams, and for what comes
//! back on them `stream | u64 number | 1 | u64 session, u64 number of who opened the stream`; the nonce is the u64 counter and
//! four zeros. What is sealed is bound to what precedes it, and datagrams to the cluster's label.
//!
//! Against replays an [`Opener`] remembers which datagrams it opened. It does not know what others opened, what was opened
//! before it was made, or which streams were opened to it: those open once more. What they do must be harmless when done again.
//! An answer opens on the stream that it was given on, and on no other.

mod datagram;
mod sessions;
mod stream;
#[cfg(test)]
mod tests;

use std::fmt;

use ring::aead::{AES_256_GCM, Aad, LessSafeKey, MAX_TAG_LEN, NONCE_LEN, Nonce, Tag};
use ring::error::Unspecified;
use ring::{hkdf, hmac};

pub use self::datagram::{Opener, Sealer};
pub use self::sessions::{MAX_SESSIONS, REPLAY_WINDOW};
pub use self::stream::{Direction, StreamOpener, StreamSealer};

use crate::wire::WireError;

/// How many bytes a datagram grows when it is sealed: room that is to be left when it is written.
pub const TAG_BYTES: usize = MAX_TAG_LEN;

/// What keys are hashed with, so that their hash is of use for nothing else.
const PRINT_OF: &[u8] = b"ringkit key id";

/// A secret that the members of a cluster share.
#[derive(Clone, PartialEq, Eq)]
pub struct ClusterKey {
    print: Print,
    secret: Box<[u8]>,
}

/// A hash that tells keys apart without being one.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Print([u8; 32]);

impl Print {
    /// What its key is called in what it seals.
    pub(crate) fn id(self) -> u8 {
        self.0[0]
    }

    /// Enough of it to tell any two keys apart.
    pub(crate) fn beginning(self) -> [u8; 8] {
        let [a, b, c, d, e, f, g, h, ..] = self.0;
        [a, b, c, d, e, f, g, h]
    }
}

impl ClusterKey {
    /// The key with these 16, 24 or 32 bytes. Whatever their number, what is sealed is sealed with AES-256.
    ///
    /// # Errors
    ///
    /// [`BadKey`] if there are more or less.
    pub fn from_bytes(secret: &[u8]) -> Result<Self, BadKey> {
        if !matches!(secret.len(), 16 | 24 | 32) {
            return Err(BadKey { len: secret.len() });
        }
        let hash = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret), PRINT_OF);
        let mut print = [0; 32];
        print.copy_from_slice(hash.as_ref());
        Ok(Self { print: Print(print), secret: secret.into() })
    }

    /// What it is called in what it seals: the same with every member, and perhaps that of another key too.
    pub fn id(&self) -> u8 {
        self.print.id()
    }

    /// The first bytes of a hash of it, of which [`id`](Self::id) is the first: the same with every member, and hardly ever that of
    /// another key too.
    pub fn print(&self) -> [u8; 8] {
        self.print.beginning()
    }

    /// The key that `session` seals with. Fails only for keys longer than HKDF makes them.
    fn derive(&self, session: u64, info: &[&[u8]]) -> Result<LessSafeKey, Unspecified> {
        let salt = hkdf::Salt::new(hkdf::HKDF_SHA256, &session.to_le_bytes());
        let extracted = salt.extract(&self.secret);
        let expanded = extracted.expand(info, &AES_256_GCM)?;
        Ok(LessSafeKey::new(expanded.into()))
    }
}

impl fmt::Debug for ClusterKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClusterKey").field("id", &self.id()).finish_non_exhaustive()
    }
}

impl fmt::Debug for Print {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Who guesses a weak key could make sure with its hash.
        f.write_str("Print(..)")
    }
}

/// The keys of a member: the first one seals, all of them open.
///
/// To change the key of a running cluster, add the new one at the end with every member, then move it to the front with every
/// member, then remove the old one. So those who are a step ahead and those who are not understand each other.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Keyring {
    keys: Vec<ClusterKey>,
}

impl Keyring {
    /// A ring of these keys. One without any seals and opens nothing.
    pub fn new(keys: Vec<ClusterKey>) -> Self {
        Self { keys }
    }

    /// From now on has these keys.
    ///
    /// What an [`Opener`] remembers of keys that stay remains; with those that are removed it opens no more. A stream goes on
    /// with the key that it was opened with: close those of keys that are removed.
    pub fn replace(&mut self, keys: Vec<ClusterKey>) {
        self.keys = keys;
    }

    /// Whether it has no key.
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// What tells its keys apart, in their order.
    pub(crate) fn prints(&self) -> impl Iterator<Item = Print> {
        self.keys.iter().map(|key| key.print)
    }

    /// Whether it has the key with this print.
    pub(crate) fn has(&self, print: Print) -> bool {
        self.prints().any(|other| other == print)
    }

    fn sealing(&self) -> Result<&ClusterKey, SealError> {
        self.keys.first().ok_or(SealError::NoKey)
    }

    fn with_id(&self, id: u8) -> impl Iterator<Item = &ClusterKey> {
        self.keys.iter().filter(move |key| key.id() == id)
    }
}

/// The bytes are no key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a key has 16, 24 or 32 bytes, not {len}")]
pub struct BadKey {
    /// How many there are.
    pub len: usize,
}

/// Why something was not sealed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SealError {
    /// The keyring is empty.
    #[error("there is no key to seal with")]
    NoKey,
    /// It is no datagram, or not one frame.
    #[error("what is to be sealed cannot be read")]
    Wire(#[from] WireError),
    /// To seal more, a nonce would have to be used twice.
    #[error("all nonces are used up")]
    Exhausted,
    /// The cipher refused, as it does only for lengths that neither datagrams nor frames have.
    #[error("the cipher refused to seal")]
    Cipher,
}

/// Why something was not opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// It cannot be read, sealed or not.
    #[error("what is to be opened cannot be read")]
    Wire(#[from] WireError),
    /// It is not sealed, but should be.
    #[error("it is not sealed")]
    Unsealed,
    /// It is too short to have a tag, or ends before it is complete.
    #[error("it ends early")]
    Short,
    /// It was sealed with a key that is not in the keyring.
    #[error("it is sealed with an unknown key of id {id:#04x}")]
    UnknownKey {
        /// What that key is called.
        id: u8,
    },
    /// Nobody sealed this: not with a key of that id, not for this cluster, or not so and in this place.
    #[error("its seal is not genuine")]
    Forged,
    /// It was opened before, or is so old that this cannot be told.
    #[error("it was there before")]
    Replayed,
}

/// Seals `body`. `key` must not have seen `counter` before.
fn seal_with(key: &LessSafeKey, counter: u64, bound: &[u8], body: &mut [u8]) -> Result<Tag, SealError> {
    key.seal_in_place_separate_tag(nonce(counter), Aad::from(bound), body).map_err(|_| SealError::Cipher)
}

/// Opens `body`, which ends with its tag. What cannot be opened is destroyed.
fn open_with(key: &LessSafeKey, counter: u64, bound: &[u8], body: &mut [u8]) -> Result<(), OpenError> {
    key.open_in_place(nonce(counter), Aad::from(bound), body).map_err(|_| OpenError::Forged)?;
    Ok(())
}

fn nonce(counter: u64) -> Nonce {
    let mut bytes = [0; NONCE_LEN];
    bytes[..8].copy_from_slice(&counter.to_le_bytes());
    Nonce::assume_unique_for_key(bytes)
}
