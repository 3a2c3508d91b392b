//! [`Member`]: a [`Node`] behind its keyring. What the node says is sealed, what it is told was opened.
//!
//! ```text
//! stream    0x9c | u64 session | u64 number | sealed frame*     by who opened it
//!                  u64 session | u64 number | sealed frame*     by who accepted it
//! ```
//!
//! The numbers are those that the keys of the stream's [sealer](crate::seal::StreamSealer) are derived from, each end's own, and
//! for what comes back those of who opened the stream as well. All that follows is as [`seal`](crate::seal) describes. A stream
//! that begins as [`wire`](crate::wire) says is not sealed.
//!
//! # How a cluster begins to seal
//!
//! Members without a key cannot read what is sealed, and those that require it refuse everything else. So in between every
//! member has the key for a while and requires nothing: it then sends its datagrams twice, in clear too, to all but those that it
//! knows to seal, and speaks on streams as the other end does. Until sealing is required somewhere, nothing keeps out who has no
//! key.
//!
//! Which streams, sockets and names there are, and when keys change, is for others to say.

mod habits;
mod stream;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::iter;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use rand::rngs::SmallRng;
use rand::{RngExt as _, SeedableRng as _};
use smol_str::SmolStr;

use self::habits::Habits;
use self::stream::{Manner, Sealed, Stream};
use crate::api::{Config, Event, Input, Output, StreamEvent, StreamId};
use crate::node::{ConfigError, Node};
use crate::seal::{ClusterKey, Keyring, OpenError, Opener, Print, SealError, Sealer};
use crate::time::Now;
use crate::wire::{Header, MAGIC, MAX_DATAGRAM_BYTES, label_hash};

/// The first byte of a sealed stream.
pub const SEALED_MAGIC: u8 = 0x9c;

/// Makes another generator of a seed than the node's, whose first number anybody may see.
const SEALER_SEED: u64 = 0x7365_616c_6572_2031;

/// What is sealed, and with what.
#[derive(Clone, Debug, Default)]
pub struct Security {
    /// The keys. Without any nothing is sealed.
    pub keyring: Keyring,
    /// Whether what is not sealed is refused, and nothing said that is not. False without a key, and while a cluster
    /// [begins to seal](self#how-a-cluster-begins-to-seal).
    pub require_sealed: bool,
}

/// One key of a member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyInfo {
    /// What it is [called](ClusterKey::id).
    pub id: u8,
    /// What tells it [from others](ClusterKey::print).
    pub print: [u8; 8],
    /// Whether it is the one that seals.
    pub seals: bool,
    /// How many datagrams and frames it has opened since it was added.
    pub opened: u64,
}

/// One member that seals, if it has a key.
pub struct Member {
    node: Node,
    keyring: Keyring,
    require_sealed: bool,
    /// Those that are understood, and their hashes. The first is its own.
    labels: Vec<(u64, SmolStr)>,
    verify_label: bool,
    sealer: Sealer,
    opener: Opener,
    /// Those that the node has not closed and not been told to be closed.
    streams: BTreeMap<StreamId, Stream>,
    habits: Habits,
    opened: BTreeMap<Print, u64>,
    unopenable: u64,
    /// When something was last taken in.
    now: Now,
    /// What the node wants done. Empty but while that is looked at; kept for its room.
    said: Vec<Output>,
    /// Streams that were closed here, of which the node is still to be told.
    lost: Vec<StreamId>,
}

impl Member {
    /// A member that has not begun to join. Equal seeds and equal inputs lead to equal outputs.
    ///
    /// What is sealed is safe only if no two members with the same key, also not one after the other, have the same `seed`: outside
    /// of tests it must come from the operating system's randomness.
    ///
    /// # Errors
    ///
    /// [`ConfigError`] if it could not work: also if datagrams have no room for the seal, or if what is sealed is required and
    /// there is no key.
    pub fn new(mut config: Config, security: Security, seed: u64, now: Now) -> Result<Self, ConfigError> {
        let Security { keyring, require_sealed } = security;
        config.packet_size = Node::size_to_seal(config.packet_size, !keyring.is_empty(), require_sealed)?;
        let labels = iter::once(&config.label).chain(&config.accepted_labels);
        let session = SmallRng::seed_from_u64(seed ^ SEALER_SEED).random();
        Ok(Self {
            labels: labels.map(|label| (label_hash(label), label.clone())).collect(),
            verify_label: config.verify_label,
            sealer: Sealer::new(session, config.label.clone()),
            opener: Opener::new(require_sealed),
            node: Node::new(config, seed, now)?,
            keyring,
            require_sealed,
            streams: BTreeMap::new(),
            habits: Habits::default(),
            opened: BTreeMap::new(),
            unopenable: 0,
            now,
            said: Vec::new(),
            lost: Vec::new(),
        })
    }

    /// What is sealed and opened for. Its own datagrams are a little smaller than was asked for.
    pub fn node(&self) -> &Node {
        &self.node
    }

    /// When to call [`handle`](Self::handle) even if nothing comes, in monotonic time.
    pub fn next_deadline(&self) -> Duration {
        self.node.next_deadline()
    }

    /// Takes something in, does what is due, and appends what is to be done.
    ///
    /// A sealed datagram is copied: [`handle_datagram`](Self::handle_datagram) spares that.
    pub fn handle(&mut self, now: Now, input: Input<'_>, out: &mut Vec<Output>) {
        self.now = now;
        match input {
            Input::Datagram { from, bytes } => match sealed_header(bytes) {
                Some(header) => self.open(from, header, &mut bytes.to_vec(), out),
                None => self.take_clear(from, bytes, out),
            },
            Input::Stream { id, event } => self.on_stream(id, event, out),
            input => self.pass(input, out),
        }
    }

    /// The same for a datagram, which is opened where it is.
    pub fn handle_datagram(&mut self, now: Now, from: SocketAddr, bytes: &mut [u8], out: &mut Vec<Output>) {
        self.now = now;
        match sealed_header(bytes) {
            Some(header) => self.open(from, header, bytes, out),
            None => self.take_clear(from, bytes, out),
        }
    }

    /// From now on has these keys: the first seals, all of them open. Streams that were sealed with one that is gone are closed.
    ///
    /// How often keys that stay have opened something is remembered.
    pub fn set_keys(&mut self, keys: Vec<ClusterKey>, out: &mut Vec<Output>) {
        self.keyring.replace(keys);
        let keyring = &self.keyring;
        self.opened.retain(|print, _| keyring.has(*print));
        let closed =
            self.streams.iter_mut().filter_map(|(id, stream)| (!stream.keep(keyring)).then_some(*id));
        let closed: Vec<StreamId> = closed.collect();
        for id in closed {
            // What the node does about one may have ended another.
            if self.streams.remove(&id).is_some() {
                out.push(Output::Close { id });
                self.pass(Input::Stream { id, event: StreamEvent::Closed }, out);
            }
        }
    }

    /// Its keys, in their order.
    pub fn keys(&self) -> Vec<KeyInfo> {
        let keys = self.keyring.prints().enumerate().map(|(number, print)| KeyInfo {
            id: print.id(),
            print: print.beginning(),
            seals: number == 0,
            opened: self.opened.get(&print).copied().unwrap_or(0),
        });
        keys.collect()
    }

    /// How many sealed datagrams and streams came in, since the start, that no key opened, although they were for this cluster
    /// or may have been. Somebody may have other keys.
    pub fn unopenable(&self) -> u64 {
        self.unopenable
    }

    /// Whether what is not sealed is refused.
    pub fn requires_sealed(&self) -> bool {
        self.require_sealed
    }

    /// Whether it has keys and takes what is not sealed nevertheless: the cluster
    /// [begins to seal](self#how-a-cluster-begins-to-seal).
    pub fn takes_clear(&self) -> bool {
        self.is_lenient()
    }

    fn speaks_clear(&self) -> bool {
        self.keyring.is_empty() && !self.require_sealed
    }

    /// Whether others are told things in their own manner.
    fn is_lenient(&self) -> bool {
        !self.keyring.is_empty() && !self.require_sealed
    }

    /// A datagram that is not sealed, or is none.
    fn take_clear(&mut self, from: SocketAddr, bytes: &[u8], out: &mut Vec<Output>) {
        if let Ok(header) = Header::parse(bytes) {
            if self.require_sealed {
                self.refuse("unsealed", out);
                return;
            }
            let is_ours = !self.verify_label || self.labels.iter().any(|(hash, _)| *hash == header.label);
            if is_ours && self.is_lenient() {
                self.habits.spoke_clear(self.now, from);
            }
        }
        self.pass(Input::Datagram { from, bytes }, out);
    }

    /// A sealed datagram, which is opened where it is.
    fn open(&mut self, from: SocketAddr, header: Header, bytes: &mut [u8], out: &mut Vec<Output>) {
        if bytes.len() > MAX_DATAGRAM_BYTES {
            self.refuse("too_long", out);
            return;
        }
        if header.session == self.sealer.session() {
            self.refuse("own_datagram", out);
            return;
        }
        let Some((_, label)) = self.labels.iter().find(|(hash, _)| *hash == header.label) else {
            // The seal is bound to the label, which is not in it. So this cannot be opened even where any label is taken.
            self.unopenable += u64::from(!self.verify_label);
            self.refuse("label", out);
            return;
        };
        match self.opener.open(&self.keyring, label, bytes) {
            Ok((datagram, print)) => {
                self.count_opened(print, 1);
                if self.is_lenient() {
                    self.habits.sealed(self.now, from);
                }
                let now = self.now;
                self.run(out, |node, said| node.handle_opened(now, from, datagram, said));
            }
            Err(error) => {
                self.count_unopened(&error);
                self.refuse(word_for(&error), out);
            }
        }
    }

    fn on_stream(&mut self, id: StreamId, event: StreamEvent<'_>, out: &mut Vec<Output>) {
        match event {
            StreamEvent::Opened { .. } => {
                // Odd ones are known from when they were asked for, or have been given up.
                if id.0.is_multiple_of(2) {
                    self.streams.entry(id).or_insert_with(Stream::accepted);
                }
                self.pass(Input::Stream { id, event }, out);
            }
            StreamEvent::Data(bytes) => self.on_data(id, bytes, out),
            StreamEvent::Closed => {
                let Some(stream) = self.streams.remove(&id) else {
                    self.pass(Input::Tick, out);
                    return;
                };
                if self.is_lenient() {
                    self.habits.ended(&stream);
                }
                self.pass(Input::Stream { id, event }, out);
            }
        }
    }

    fn on_data(&mut self, id: StreamId, mut bytes: &[u8], out: &mut Vec<Output>) {
        let (Some(stream), Some((first, rest))) = (self.streams.get_mut(&id), bytes.split_first()) else {
            self.pass(Input::Tick, out);
            return;
        };
        stream.heard = true;
        if stream.awaits_manner() {
            match *first {
                SEALED_MAGIC if self.keyring.is_empty() => {
                    self.unopenable += 1;
                    self.end(id, "unknown_key", out);
                    return;
                }
                SEALED_MAGIC => {
                    stream.manner = Manner::Sealed(Box::new(Sealed::accept()));
                    bytes = rest;
                }
                MAGIC if self.require_sealed => {
                    self.end(id, "unsealed", out);
                    return;
                }
                // What is none of ours the node refuses.
                _ => stream.manner = Manner::Clear,
            }
        }
        let Manner::Sealed(sealed) = &mut stream.manner else {
            self.pass(Input::Stream { id, event: StreamEvent::Data(bytes) }, out);
            return;
        };
        let mut clear = Vec::new();
        let (num_frames, result) = sealed.open(&self.keyring, bytes, &mut clear);
        let (print, to) = (sealed.print(), stream.to);
        if num_frames > 0 {
            self.count_opened(print, num_frames);
            if let Some(to) = to.filter(|_| self.is_lenient()) {
                self.habits.sealed(self.now, to);
            }
        }
        if clear.is_empty() {
            self.pass(Input::Tick, out);
        } else {
            self.pass(Input::Stream { id, event: StreamEvent::Data(&clear) }, out);
        }
        // The node may have heard enough before.
        if let Err(error) = result
            && self.streams.contains_key(&id)
        {
            self.count_unopened(&error);
            self.end(id, word_for(&error), out);
        }
    }

    fn count_opened(&mut self, print: Option<Print>, num: u64) {
        if let Some(print) = print {
            *self.opened.entry(print).or_default() += num;
        }
    }

    fn count_unopened(&mut self, error: &OpenError) {
        let no_key_opens = !matches!(error, OpenError::Unsealed | OpenError::Replayed);
        self.unopenable += u64::from(no_key_opens);
    }

    /// Refuses what came in. What is due is done nevertheless.
    fn refuse(&mut self, reason: &'static str, out: &mut Vec<Output>) {
        refused(reason, out);
        self.pass(Input::Tick, out);
    }

    /// Refuses what came on a stream, and closes it.
    fn end(&mut self, id: StreamId, reason: &'static str, out: &mut Vec<Output>) {
        self.streams.remove(&id);
        refused(reason, out);
        out.push(Output::Close { id });
        self.pass(Input::Stream { id, event: StreamEvent::Closed }, out);
    }

    fn pass(&mut self, input: Input<'_>, out: &mut Vec<Output>) {
        let now = self.now;
        self.run(out, |node, said| node.handle(now, input, said));
    }

    /// Does something with the node, and seals what it then has to say.
    fn run(&mut self, out: &mut Vec<Output>, act: impl FnOnce(&mut Node, &mut Vec<Output>)) {
        let mut said = std::mem::take(&mut self.said);
        act(&mut self.node, &mut said);
        loop {
            for output in said.drain(..) {
                self.send(output, out);
            }
            let Some(id) = self.lost.pop() else { break };
            self.node.handle(self.now, Input::Stream { id, event: StreamEvent::Closed }, &mut said);
        }
        self.said = said;
    }

    fn send(&mut self, output: Output, out: &mut Vec<Output>) {
        match output {
            Output::Datagram { to, bytes } => self.send_datagram(to, bytes, out),
            Output::Open { id, to } => {
                self.streams.insert(id, Stream::asked(to));
                out.push(output);
            }
            Output::Write { id, bytes } => match self.write(id, bytes) {
                Ok(Some(bytes)) => out.push(Output::Write { id, bytes }),
                Ok(None) => (),
                Err(_) => {
                    self.streams.remove(&id);
                    self.lost.push(id);
                    refused("unsealable", out);
                    out.push(Output::Close { id });
                }
            },
            Output::Close { id } => {
                if self.streams.remove(&id).is_some() {
                    out.push(output);
                }
                // It was closed here, and the node does not have to hear of it any more.
                self.lost.retain(|lost| *lost != id);
            }
            Output::Event(_) => out.push(output),
        }
    }

    fn send_datagram(&mut self, to: SocketAddr, bytes: Bytes, out: &mut Vec<Output>) {
        if self.speaks_clear() {
            out.push(Output::Datagram { to, bytes });
            return;
        }
        if self.is_lenient() && !self.habits.seals(to) {
            out.push(Output::Datagram { to, bytes: bytes.clone() });
        }
        match self.sealer.seal_datagram(&self.keyring, bytes) {
            Ok(sealed) => out.push(Output::Datagram { to, bytes: sealed.into() }),
            Err(_) => refused("unsealable", out),
        }
    }

    /// What to write to a stream instead of this. Nothing, if it was closed here.
    fn write(&mut self, id: StreamId, bytes: Bytes) -> Result<Option<Bytes>, SealError> {
        let speaks_clear = self.speaks_clear();
        let Some(stream) = self.streams.get_mut(&id) else { return Ok(None) };
        match (&mut stream.manner, stream.to) {
            (Manner::Sealed(sealed), _) => sealed.seal(&self.keyring, &mut self.sealer, &bytes).map(Some),
            (Manner::Clear, _) => Ok(Some(bytes)),
            // The first that is said on a stream that was opened here is the one byte that frames follow.
            (manner, to) => {
                let in_clear = !self.require_sealed && to.is_some_and(|to| self.habits.is_clear(to));
                if speaks_clear || in_clear {
                    *manner = Manner::Clear;
                    return Ok(Some(bytes));
                }
                let (sealed, preamble) = Sealed::open_with(&self.keyring, &mut self.sealer)?;
                *manner = Manner::Sealed(Box::new(sealed));
                Ok(Some(preamble))
            }
        }
    }
}

/// The header of a datagram that is sealed.
fn sealed_header(bytes: &[u8]) -> Option<Header> {
    Header::parse(bytes).ok().filter(|header| header.is_sealed())
}

fn refused(reason: &'static str, out: &mut Vec<Output>) {
    out.push(Output::Event(Event::Refused { reason }));
}

/// Why something was not opened, as a word.
fn word_for(error: &OpenError) -> &'static str {
    match error {
        OpenError::Unsealed => "unsealed",
        OpenError::Short => "seal_short",
        OpenError::UnknownKey { .. } => "unknown_key",
        OpenError::Forged => "forged",
        OpenError::Replayed => "replayed",
        // Of a header that was read before nothing is left to be wrong.
        OpenError::Wire(_) => "frame_too_long",
    }
}
