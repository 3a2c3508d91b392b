//! Sealed datagrams.

use bytes::Bytes;
use ring::aead::LessSafeKey;
use smol_str::SmolStr;

use super::sessions::Sessions;
use super::{ClusterKey, Keyring, OpenError, Print, SealError, TAG_BYTES, open_with, seal_with};
use crate::wire::{Datagram, HEADER_BYTES, Header, Sections};

const INFO: &[&[u8]] = &[b"datagram"];

/// Seals what a process sends, from its start to its end. It cannot be copied, because the copy would use its nonces again.
#[derive(Debug)]
pub struct Sealer {
    session: u64,
    label: SmolStr,
    /// Of the next datagram.
    pub(super) counter: u64,
    /// Of the next stream.
    pub(super) stream: u64,
    /// With the key that sealed the last one.
    derived: Option<(Print, LessSafeKey)>,
}

impl Sealer {
    /// For the cluster with this label, in full. `session` must be a random number that this process made up at its start: no
    /// two processes may have the same, also not one after the other.
    pub fn new(session: u64, label: impl Into<SmolStr>) -> Self {
        Self { session, label: label.into(), counter: 0, stream: 0, derived: None }
    }

    /// What was given to it.
    pub fn session(&self) -> u64 {
        self.session
    }

    /// Seals a datagram as it was written, which becomes [`TAG_BYTES`] longer.
    ///
    /// Session, key id and nonce of its header are filled in here, and it is flagged as sealed, whatever there was before. Who
    /// writes it with a [sealed](Header::sealed) header only saves the checksum.
    ///
    /// # Errors
    ///
    /// [`SealError::NoKey`] if the keyring is empty; [`SealError::Wire`] if it has no header; [`SealError::Exhausted`] after
    /// 2^64 - 1 of them.
    pub fn seal_datagram(&mut self, keyring: &Keyring, datagram: Bytes) -> Result<Vec<u8>, SealError> {
        let header = Header::parse(&datagram)?;
        let cluster_key = keyring.sealing()?;
        // Used up even if sealing fails.
        let counter = take_next(&mut self.counter)?;
        let header = Header { session: self.session, ..header }.sealed(cluster_key.id(), counter);
        let bound = bound_to(header, &self.label);

        let mut sealed = Vec::from(datagram);
        sealed.reserve_exact(TAG_BYTES);
        let (head, body) = sealed.split_at_mut(HEADER_BYTES);
        head.copy_from_slice(&header.encode());
        let tag = seal_with(self.key(cluster_key)?, counter, &bound, body)?;
        sealed.extend_from_slice(tag.as_ref());
        Ok(sealed)
    }

    /// A number for a [stream](super::StreamSealer) to be sealed, which no other stream of this session has.
    ///
    /// # Errors
    ///
    /// [`SealError::Exhausted`] after 2^64 - 1 of them.
    pub fn next_stream(&mut self) -> Result<u64, SealError> {
        take_next(&mut self.stream)
    }

    /// What is sealed with. Made only when the cluster's key is not that of the last datagram.
    fn key(&mut self, cluster_key: &ClusterKey) -> Result<&LessSafeKey, SealError> {
        let derived = match self.derived.take() {
            Some(derived) if derived.0 == cluster_key.print => derived,
            _ => {
                let key = cluster_key.derive(self.session, INFO).map_err(|_| SealError::Cipher)?;
                (cluster_key.print, key)
            }
        };
        Ok(&self.derived.insert(derived).1)
    }
}

/// Opens what came in, and remembers that it did, so that it does so once.
#[derive(Debug)]
pub struct Opener {
    require_sealed: bool,
    sessions: Sessions,
}

impl Opener {
    /// Takes only what is sealed if `require_sealed`; else also what is not, as while a cluster begins to seal.
    pub fn new(require_sealed: bool) -> Self {
        Self { require_sealed, sessions: Sessions::default() }
    }

    /// How many sessions it remembers, at most [`MAX_SESSIONS`](super::MAX_SESSIONS).
    pub fn num_sessions(&self) -> usize {
        self.sessions.len()
    }

    /// Reads a datagram, sealed or not. It is opened where it is, and destroyed if it cannot be.
    ///
    /// `label` is that of the cluster, in full; which one, where several are accepted, the hash in the header tells.
    ///
    /// # Errors
    ///
    /// Any [`OpenError`]. Only what was opened changes what is remembered.
    pub fn open_datagram<'a>(
        &mut self,
        keyring: &Keyring,
        label: &str,
        datagram: &'a mut [u8],
    ) -> Result<Datagram<'a>, OpenError> {
        self.open(keyring, label, datagram).map(|(datagram, _)| datagram)
    }

    /// The same, with what tells which key sealed it. Nothing, if none did.
    pub(crate) fn open<'a>(
        &mut self,
        keyring: &Keyring,
        label: &str,
        datagram: &'a mut [u8],
    ) -> Result<(Datagram<'a>, Option<Print>), OpenError> {
        let header = Header::parse(datagram)?;
        if !header.is_sealed() {
            if self.require_sealed {
                return Err(OpenError::Unsealed);
            }
            return Ok((Datagram::parse(datagram)?, None));
        }
        let end = datagram.len().saturating_sub(TAG_BYTES);
        if end < HEADER_BYTES {
            return Err(OpenError::Short);
        }
        let bound = bound_to(header, label);
        let print = self.open_with_any(keyring, header, &bound, &mut datagram[HEADER_BYTES..])?;
        Ok((Datagram { header, sections: Sections::new(&datagram[HEADER_BYTES..end]) }, Some(print)))
    }

    fn open_with_any(
        &mut self,
        keyring: &Keyring,
        header: Header,
        bound: &[u8],
        body: &mut [u8],
    ) -> Result<Print, OpenError> {
        // Keys rarely share an id. Where they do, the first try would leave nothing for the second.
        let shared = keyring.with_id(header.key_id).count() > 1;
        let sealed = shared.then(|| body.to_vec());
        let mut refusal = OpenError::UnknownKey { id: header.key_id };
        for cluster_key in keyring.with_id(header.key_id) {
            if let Some(sealed) = &sealed {
                body.copy_from_slice(sealed);
            }
            match self.open_once(cluster_key, header, bound, body) {
                Ok(()) => return Ok(cluster_key.print),
                // It was opened with that key, so that it is forged by the others says nothing.
                Err(_) if refusal == OpenError::Replayed => {}
                Err(error) => refusal = error,
            }
        }
        Err(refusal)
    }

    fn open_once(
        &mut self,
        cluster_key: &ClusterKey,
        header: Header,
        bound: &[u8],
        body: &mut [u8],
    ) -> Result<(), OpenError> {
        let (place, counter) = ((header.session, cluster_key.print), header.nonce_or_checksum);
        let mut derived = None;
        match self.sessions.get(place) {
            Some((_, window)) if !window.is_new(counter) => return Err(OpenError::Replayed),
            Some((key, _)) => open_with(key, counter, bound, body)?,
            None => {
                let key = cluster_key.derive(header.session, INFO).map_err(|_| OpenError::Forged)?;
                open_with(&key, counter, bound, body)?;
                derived = Some(key);
            }
        }
        self.sessions.opened(place, counter, derived);
        Ok(())
    }
}

/// What a datagram's body is bound to. The header is first because its length is fixed: no part of the label passes for a part
/// of it.
fn bound_to(header: Header, label: &str) -> Vec<u8> {
    [&header.encode()[..], label.as_bytes()].concat()
}

fn take_next(next: &mut u64) -> Result<u64, SealError> {
    let taken = *next;
    *next = taken.checked_add(1).ok_or(SealError::Exhausted)?;
    Ok(taken)
}
