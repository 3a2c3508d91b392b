//! Streams of a member: probes, sessions, and large registers that are asked for.

mod greeting;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use rand::RngExt as _;
use smol_str::SmolStr;

use super::join::Compared;
use super::{Node, RESYNC_AFTER, refuse};
use crate::api::{Output, StreamEvent, StreamId};
use crate::id::NodeId;
use crate::register::EntryId;
use crate::store::Store;
use crate::swim::{MemberState, ProbeId, State, SwimOut};
use crate::sync::{Host, Session, Taken};
use crate::time::Now;
use crate::wire::{Fault, Frame, FrameReader, MAGIC, MemberEntry, Record, WireError};

/// How many streams that came in there may be for each session that may: others are probes, or have not said what they want.
const STREAMS_PER_SESSION: usize = 4;
/// How many members are probed over streams at a time.
const MAX_PINGS: usize = 8;

/// The stream ended before all was said, or could not be opened. Nobody refused anything.
const CLOSED: &str = "closed";
/// The stream leads to this member itself.
pub(super) const OWN_ADDRESS: &str = "own_address";

/// Why a member compares with another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Why {
    /// It asks whoever is at this address for the cluster.
    Seed,
    /// After that it asks the member with this name, to be sure.
    Second(u64),
    /// Something differs, or may.
    Repair,
}

/// What a stream is for.
#[derive(Debug)]
enum Purpose {
    /// The other end knows.
    Answer,
    Compare(Why),
    Fetch(BTreeMap<SmolStr, Vec<EntryId>>),
    Ping {
        probe: ProbeId,
        target: NodeId,
        nonce: u64,
    },
}

/// One stream.
#[derive(Debug)]
pub(super) struct Stream {
    peer: SocketAddr,
    /// For whom it counts: the host at the other end, or the member there once it is known.
    counted_for: SocketAddr,
    purpose: Purpose,
    /// Whether the first byte came, or went.
    begun: bool,
    reader: FrameReader,
    /// Bytes both ways.
    bytes: usize,
    until: Duration,
    /// Who is at the other end, and whether it had joined when it said so.
    node: Option<NodeId>,
    settled: bool,
    session: Option<Session>,
}

impl Stream {
    /// When it is given up.
    pub(super) fn until(&self) -> Duration {
        self.until
    }

    fn is_inbound(&self) -> bool {
        matches!(self.purpose, Purpose::Answer)
    }

    fn in_session(&self) -> bool {
        self.is_inbound() && self.session.as_ref().is_some_and(Session::has_begun)
    }
}

/// A member while one of its sessions goes on.
struct Hosted<'a> {
    node: &'a mut Node,
    now: Now,
    out: &'a mut Vec<Output>,
}

impl Host for Hosted<'_> {
    fn now(&self) -> Now {
        self.now
    }

    fn store(&self) -> &Store {
        &self.node.store
    }

    fn take(&mut self, record: &Record<'_>) -> Taken {
        // A member that joins takes what everybody has.
        let relayed = self.node.settled;
        self.node.take_record(self.now, record, relayed, self.out)
    }

    fn member_hash(&self) -> u64 {
        self.node.swim.digest()
    }

    fn members(&self) -> Vec<MemberEntry> {
        self.node.swim.export().map(entry_of).collect()
    }

    fn take_members(&mut self, members: Vec<MemberEntry>) {
        let mut known = Vec::with_capacity(members.len());
        for MemberEntry { node: id, incarnation, state } in members {
            let state = match state {
                0 => State::Alive,
                1 => State::Suspect,
                2 => State::Down,
                _ => {
                    refuse("member_state", self.out);
                    continue;
                }
            };
            known.push(MemberState { id, incarnation, state });
        }
        let mut did = SwimOut::default();
        self.node.swim.apply(self.now, known, &mut did);
        self.node.follow_swim(self.now, did, self.out);
    }
}

impl Node {
    pub(super) fn on_stream(
        &mut self,
        now: Now,
        id: StreamId,
        event: StreamEvent<'_>,
        out: &mut Vec<Output>,
    ) {
        let known = self.streams.remove(&id);
        match (event, known) {
            (StreamEvent::Opened { peer }, None) => self.accept(now, id, peer, out),
            (StreamEvent::Opened { .. }, Some(mut stream)) => {
                let result =
                    if stream.begun { Err("opened_twice") } else { self.begin(now, id, &mut stream, out) };
                self.go_on(now, id, stream, result, out);
            }
            (StreamEvent::Data(bytes), Some(mut stream)) => {
                let result = self.read(now, id, &mut stream, bytes, out);
                self.go_on(now, id, stream, result, out);
            }
            (StreamEvent::Closed, Some(stream)) => self.ended(now, stream, Err(CLOSED), out),
            (StreamEvent::Data(_) | StreamEvent::Closed, None) => (),
        }
    }

    /// A stream came in.
    fn accept(&mut self, now: Now, id: StreamId, peer: SocketAddr, out: &mut Vec<Output>) {
        // An odd one was given up here before it was there.
        if id.0 % 2 == 1 {
            return;
        }
        let mut stream = Stream {
            counted_for: SocketAddr::new(peer.ip(), 0),
            ..self.stream(now, peer, Purpose::Answer, self.config.session_timeout)
        };
        let all = self.config.inbound_sessions.saturating_mul(STREAMS_PER_SESSION);
        let each = self.config.inbound_sessions_per_address.saturating_mul(STREAMS_PER_SESSION);
        let inbound = |other: &&Stream| other.is_inbound();
        let same = |other: &&Stream| other.counted_for == stream.counted_for;
        if self.streams.values().filter(inbound).count() >= all {
            refuse("too_many_streams", out);
            out.push(Output::Close { id });
        } else if self.streams.values().filter(inbound).filter(same).count() >= each {
            refuse("too_many_streams_of_one", out);
            out.push(Output::Close { id });
        } else {
            stream.session = Some(Session::accept(self.config.session_bytes));
            self.streams.insert(id, stream);
        }
    }

    fn stream(&self, now: Now, peer: SocketAddr, purpose: Purpose, timeout: Duration) -> Stream {
        Stream {
            peer,
            counted_for: peer,
            purpose,
            begun: false,
            reader: FrameReader::default(),
            bytes: 0,
            until: now.mono.saturating_add(timeout),
            node: None,
            settled: false,
            session: None,
        }
    }

    fn open(&mut self, now: Now, to: SocketAddr, purpose: Purpose, out: &mut Vec<Output>) {
        let timeout = match purpose {
            Purpose::Ping { .. } => self.config.swim.probe_period,
            _ => self.config.session_timeout,
        };
        let id = StreamId(self.next_stream);
        self.next_stream += 2;
        let stream = self.stream(now, to, purpose, timeout);
        self.streams.insert(id, stream);
        out.push(Output::Open { id, to });
    }

    fn num_open(&self, counts: impl Fn(&Purpose) -> bool) -> usize {
        self.streams.values().filter(|stream| counts(&stream.purpose)).count()
    }

    /// How many seeds are being asked.
    pub(super) fn num_seeds_asked(&self) -> usize {
        self.num_open(|purpose| matches!(purpose, Purpose::Compare(Why::Seed)))
    }

    /// Whether this member began a comparison with this address that is not over.
    pub(super) fn is_comparing_with(&self, addr: SocketAddr) -> bool {
        let mut streams = self.streams.values();
        streams.any(|stream| stream.peer == addr && matches!(stream.purpose, Purpose::Compare(_)))
    }

    /// Begins to compare all there is with whoever is at `to`, unless that is under way, or too much else is.
    pub(super) fn compare_with(&mut self, now: Now, to: SocketAddr, why: Why, out: &mut Vec<Output>) {
        let repairs = self.num_open(|purpose| matches!(purpose, Purpose::Compare(Why::Repair)));
        let is_full = why == Why::Repair && repairs >= self.config.outbound_sessions;
        if is_full || self.is_comparing_with(to) {
            return;
        }
        self.open(now, to, Purpose::Compare(why), out);
    }

    /// Asks a member that did not answer to a datagram whether it lives.
    pub(super) fn open_ping(&mut self, now: Now, probe: ProbeId, target: NodeId, out: &mut Vec<Output>) {
        if self.num_open(|purpose| matches!(purpose, Purpose::Ping { .. })) < MAX_PINGS {
            let nonce = self.random.random();
            self.open(now, target.addr, Purpose::Ping { probe, target, nonce }, out);
        }
    }

    /// Asks for large registers that were offered.
    pub(super) fn run_fetches(&mut self, now: Now, out: &mut Vec<Output>) {
        while self.num_open(|purpose| matches!(purpose, Purpose::Fetch(_))) < self.config.outbound_sessions {
            let Some((from, keys)) = self.wanted.pop_first() else { return };
            self.open(now, from, Purpose::Fetch(keys), out);
        }
    }

    /// Whether a register is being asked for.
    pub(super) fn is_wanted(&self, key: &str, entry: &EntryId) -> bool {
        let asked = self.streams.values().filter_map(|stream| match &stream.purpose {
            Purpose::Fetch(keys) => Some(keys),
            _ => None,
        });
        let mut all = asked.chain(self.wanted.values());
        all.any(|keys| keys.get(key).is_some_and(|entries| entries.contains(entry)))
    }

    /// Gives up what takes too long.
    pub(super) fn expire_streams(&mut self, now: Now, out: &mut Vec<Output>) {
        let late = self.streams.iter().filter(|(_, stream)| stream.until <= now.mono);
        let late: Vec<StreamId> = late.map(|(id, _)| *id).collect();
        for id in late {
            if let Some(stream) = self.streams.remove(&id) {
                out.push(Output::Close { id });
                // What never came to be was refused by nobody.
                let reason = if stream.node.is_some() || stream.is_inbound() { "too_slow" } else { CLOSED };
                self.ended(now, stream, Err(reason), out);
            }
        }
    }

    pub(super) fn close_all(&mut self, out: &mut Vec<Output>) {
        let streams = std::mem::take(&mut self.streams);
        out.extend(streams.into_keys().map(|id| Output::Close { id }));
    }

    /// Keeps a stream or ends it.
    fn go_on(
        &mut self,
        now: Now,
        id: StreamId,
        stream: Stream,
        result: Result<bool, &'static str>,
        out: &mut Vec<Output>,
    ) {
        if self.is_over() {
            out.push(Output::Close { id });
            return;
        }
        match result {
            Ok(false) => {
                self.streams.insert(id, stream);
            }
            Ok(true) => {
                out.push(Output::Close { id });
                self.ended(now, stream, Ok(()), out);
            }
            Err(reason) => {
                // Whoever speaks something else would not understand it.
                if stream.begun
                    && reason != "peer_error"
                    && let Ok(bytes) = (Frame::Error { code: 1, text: reason.into() }).encode()
                {
                    out.push(Output::Write { id, bytes });
                }
                out.push(Output::Close { id });
                self.ended(now, stream, Err(reason), out);
            }
        }
    }

    /// The first that is said on a stream that was opened here.
    fn begin(
        &mut self,
        now: Now,
        id: StreamId,
        stream: &mut Stream,
        out: &mut Vec<Output>,
    ) -> Result<bool, &'static str> {
        stream.begun = true;
        out.push(Output::Write { id, bytes: Bytes::from_static(&[MAGIC]) });
        let mut frames = vec![self.hello()];
        let max_bytes = self.config.session_bytes;
        match &stream.purpose {
            Purpose::Answer => return Err("opened_twice"),
            Purpose::Compare(_) => {
                let joins = !self.settled;
                let (session, request) =
                    Session::open(&Hosted { node: &mut *self, now, out: &mut *out }, joins, max_bytes);
                stream.session = Some(session);
                frames.push(request);
            }
            Purpose::Fetch(keys) => {
                let (session, requests) = Session::fetch(keys.clone(), max_bytes);
                stream.session = Some(session);
                frames.extend(requests);
            }
            Purpose::Ping { target, nonce, .. } => {
                // Told before the question, a suspicion is over with the answer.
                if let Some(incarnation) = self.swim.suspicion(target) {
                    let suspect = MemberState { id: *target, incarnation, state: State::Suspect };
                    frames.push(Frame::Members(vec![entry_of(suspect)]));
                }
                frames.push(Frame::Ping { nonce: *nonce });
            }
        }
        self.say(id, stream, &frames, out)?;
        Ok(false)
    }

    fn say(
        &self,
        id: StreamId,
        stream: &mut Stream,
        frames: &[Frame],
        out: &mut Vec<Output>,
    ) -> Result<(), &'static str> {
        for frame in frames {
            let bytes = if self.config.compress {
                frame.encode_packed().map_err(|_| "unsendable")?
            } else {
                frame.encode().map_err(|_| "unsendable")?
            };
            self.count(stream, bytes.len())?;
            out.push(Output::Write { id, bytes });
        }
        Ok(())
    }

    fn count(&self, stream: &mut Stream, bytes: usize) -> Result<(), &'static str> {
        stream.bytes = stream.bytes.saturating_add(bytes);
        if stream.bytes > self.config.session_bytes { Err("session_bytes") } else { Ok(()) }
    }

    /// Takes in what came on a stream, and returns whether all was said.
    fn read(
        &mut self,
        now: Now,
        id: StreamId,
        stream: &mut Stream,
        mut bytes: &[u8],
        out: &mut Vec<Output>,
    ) -> Result<bool, &'static str> {
        if !stream.begun {
            let Some((first, rest)) = bytes.split_first() else { return Ok(false) };
            if !stream.is_inbound() || *first != MAGIC {
                return Err("not_ours");
            }
            stream.begun = true;
            bytes = rest;
        }
        self.count(stream, bytes.len())?;
        loop {
            let frame = stream.reader.next_frame(&mut bytes).map_err(|error| word_for(&error))?;
            let Some(frame) = frame else { return Ok(false) };
            if self.on_frame(now, id, stream, frame, out)? {
                return Ok(true);
            }
            if self.is_over() {
                return Ok(false);
            }
        }
    }

    fn on_frame(
        &mut self,
        now: Now,
        id: StreamId,
        stream: &mut Stream,
        frame: Frame,
        out: &mut Vec<Output>,
    ) -> Result<bool, &'static str> {
        if stream.node.is_none() {
            self.on_hello(now, id, stream, frame, out)?;
            return Ok(false);
        }
        match (&stream.purpose, &frame) {
            (purpose, Frame::Ping { nonce }) if !matches!(purpose, Purpose::Ping { .. }) => {
                // In a session it asks whether what was said has come, and otherwise whether this member lives, and nothing else.
                if let Some(session) = &mut stream.session {
                    session.on_ping()?;
                }
                let is_all = stream.is_inbound() && !stream.in_session();
                let own = self.swim.export().next().filter(|own| own.id == self.id());
                let incarnation = own.map_or(0, |own| own.incarnation);
                let pong = Frame::Pong { nonce: *nonce, node: self.id(), incarnation };
                self.say(id, stream, &[pong], out)?;
                return Ok(is_all);
            }
            // Whoever is about to ask suspects us: hearing of it before the answer, we refute that with it.
            (Purpose::Answer, Frame::Members(about))
                if !stream.in_session() && matches!(about[..], [one] if one.node == self.id()) =>
            {
                let about = about.clone();
                Hosted { node: &mut *self, now, out: &mut *out }.take_members(about);
                return Ok(false);
            }
            (Purpose::Ping { probe, target, nonce }, Frame::Pong { nonce: answered, node, incarnation }) => {
                // Another life is not the one that was asked for.
                if (nonce, target) != (answered, node) {
                    return Err("wrong_pong");
                }
                let mut did = SwimOut::default();
                self.swim.stream_probe_answered(now, *probe, *incarnation, &mut did);
                self.follow_swim(now, did, out);
                return Ok(true);
            }
            _ => (),
        }
        let begins = stream.is_inbound() && !stream.in_session();
        if begins {
            self.check_session(stream)?;
        }
        let Some(session) = &mut stream.session else { return Err("out_of_turn") };
        let mut frames = Vec::new();
        let is_done =
            session.on_frame(frame, &mut Hosted { node: &mut *self, now, out: &mut *out }, &mut frames)?;
        self.say(id, stream, &frames, out)?;
        Ok(is_done)
    }

    /// Why what this member has is not what the other one has, although they have compared.
    fn trouble_of(&self, session: &Session) -> Option<&'static str> {
        if session.num_full() > 0 {
            return Some("store_full");
        }
        // Most others cannot all be wrong.
        (session.num_ahead() * 2 > self.peers.len()).then_some("clock_behind")
    }

    /// A stream is no more.
    fn ended(&mut self, now: Now, stream: Stream, result: Result<(), &'static str>, out: &mut Vec<Output>) {
        if let Err(reason) = result
            && reason != CLOSED
            && reason != OWN_ADDRESS
        {
            refuse(reason, out);
        }
        let Stream { peer, purpose, node, settled, session, .. } = stream;
        let asked = matches!(purpose, Purpose::Compare(_));
        let is_session = asked || session.as_ref().is_some_and(Session::compares);
        if is_session && result != Err(OWN_ADDRESS) {
            self.totals.count_session(result.is_ok());
        }
        let compared = session.filter(|session| result.is_ok() && session.compares());
        if let (Some(session), Some(node)) = (&compared, node) {
            self.compared_at = Some(now.mono);
            self.was_answered(node.addr);
            // What was written here meanwhile may be missing there, but then it still waits to be told.
            if !self.queue.has_own_news() {
                self.was_kept();
            }
            // Whoever joins compares with somebody else anyway.
            if self.settled && session.moved() > 0 && self.resync.is_none() {
                self.resync = Some((now.mono.saturating_add(RESYNC_AFTER), node.name));
            }
        }
        match purpose {
            Purpose::Compare(why) => match (compared, node) {
                (Some(session), Some(with)) => {
                    let (moved, trouble) = (session.moved_here(), self.trouble_of(&session));
                    self.on_compared(now, why, Compared { with, settled, moved, trouble }, out);
                }
                _ => self.on_not_compared(now, why, peer, result == Err(OWN_ADDRESS), out),
            },
            Purpose::Answer | Purpose::Fetch(_) | Purpose::Ping { .. } => (),
        }
    }
}

fn entry_of(MemberState { id: node, incarnation, state }: MemberState) -> MemberEntry {
    let state = match state {
        State::Alive => 0,
        State::Suspect => 1,
        State::Down => 2,
    };
    MemberEntry { node, incarnation, state }
}

/// Why a frame cannot be read, as a word.
fn word_for(error: &WireError) -> &'static str {
    match error.fault {
        Fault::TooLong { .. } => "frame_too_long",
        Fault::Type(_) => "frame_type",
        _ => "bad_frame",
    }
}
