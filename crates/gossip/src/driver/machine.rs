//! [`Machine`]: the member, and what is done for it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::watch;
use tokio::time::Instant;

use super::datagrams::Sockets;
use super::joining::{Joining, meaning, why_closed};
use super::options::{Transport, WallClock};
use super::packets::Lanes;
use super::shared::{Incoming, Shared};
use super::streams::Streams;
use super::{Observer, State};
use crate::api::{Event, Input, Output, Phase, StreamEvent, StreamId};
use crate::member::Member;
use crate::seal::ClusterKey;
use crate::time::Now;
use crate::wire::Header;

/// Nobody is asked what is due without a pause, whatever is said.
const TICK: Duration = Duration::from_millis(1);
/// Longer waits are interrupted, which does no harm.
const LONGEST_WAIT: Duration = Duration::from_secs(3600);

/// Where what the member sends goes.
pub(super) struct Net {
    pub(super) sockets: Sockets,
    /// For datagrams that travel over TCP.
    pub(super) lanes: Lanes,
    pub(super) transport: Transport,
    pub(super) streams: Streams,
    /// Dropped last: who waits for the end waits for the sockets, too.
    pub(super) shared: Arc<Shared>,
}

impl Net {
    fn send(&mut self, to: SocketAddr, bytes: Bytes) {
        if travels_over_tcp(self.transport, self.shared.tls.is_some(), &bytes) {
            self.lanes.send(to, bytes, &self.shared);
        } else {
            self.sockets.send(to, &bytes, &self.shared.counts);
        }
    }
}

/// Whether a datagram travels over TCP. Where there is TLS, what is not sealed never leaves in another way.
fn travels_over_tcp(transport: Transport, has_tls: bool, datagram: &[u8]) -> bool {
    transport == Transport::Tcp || has_tls && is_clear(datagram)
}

/// Whether a datagram is one that is not sealed.
fn is_clear(datagram: &[u8]) -> bool {
    Header::parse(datagram).is_ok_and(|header| !header.is_sealed())
}

/// The member, and what is done for it: whatever is put in comes out of it at once.
pub(super) struct Machine {
    member: Member,
    /// When monotonic time began.
    start: Instant,
    wall: WallClock,
    pub(super) net: Net,
    joining: Joining,
    state: Published,
    /// Whether the others were told that the member leaves.
    told: Arc<AtomicBool>,
    /// Why the member ends.
    failure: Option<String>,
    /// Kept for its memory.
    out: Vec<Output>,
}

impl Machine {
    pub(super) fn new(
        member: Member,
        (start, wall): (Instant, WallClock),
        net: Net,
        joining: Joining,
        state: watch::Sender<State>,
        told: Arc<AtomicBool>,
    ) -> Self {
        Self {
            member,
            start,
            wall,
            net,
            joining,
            state: Published(state),
            told,
            failure: None,
            out: Vec::new(),
        }
    }

    pub(super) fn member(&self) -> &Member {
        &self.member
    }

    pub(super) fn now(&self) -> Now {
        Now { mono: self.start.elapsed(), wall_ms: self.wall.now_ms() }
    }

    /// When to ask what is due, if until now that was to be asked at `armed`. What comes meanwhile does not put it off.
    pub(super) fn wake_at(&self, armed: Instant) -> Instant {
        let now = Instant::now();
        let last = now.saturating_duration_since(self.start).saturating_add(LONGEST_WAIT);
        let due = self.start + self.member.next_deadline().min(last);
        let soonest = now + TICK;
        if due < soonest { armed.min(soonest) } else { due }
    }

    /// Does what is due.
    pub(super) fn tick<O: Observer>(&mut self, observer: &mut O) {
        let now = self.now();
        self.feed(observer, now, Input::Tick);
    }

    /// A moment before which more will be due.
    pub(super) fn far_off() -> Instant {
        Instant::now() + LONGEST_WAIT
    }

    pub(super) fn phase(&self) -> Phase {
        if self.failure.is_some() { Phase::Failed } else { self.member.node().status().phase }
    }

    /// Whether nothing more can come of it.
    pub(super) fn is_over(&self) -> bool {
        matches!(self.phase(), Phase::Left | Phase::Failed)
    }

    /// Puts something in, and returns the first thing that was refused.
    pub(super) fn feed<O: Observer>(
        &mut self,
        observer: &mut O,
        now: Now,
        input: Input<'_>,
    ) -> Option<&'static str> {
        let mut out = std::mem::take(&mut self.out);
        self.member.handle(now, input, &mut out);
        self.carry_out(observer, now, out)
    }

    /// A datagram came. What it is sealed with is taken off in place.
    pub(super) fn feed_datagram<O: Observer>(
        &mut self,
        observer: &mut O,
        from: SocketAddr,
        bytes: &mut [u8],
    ) {
        let now = self.now();
        let mut out = std::mem::take(&mut self.out);
        self.member.handle_datagram(now, from, bytes, &mut out);
        self.carry_out(observer, now, out);
    }

    /// The same for one that came over UDP. Where there is TLS, none comes from members there that is not sealed.
    pub(super) fn feed_udp<O: Observer>(&mut self, observer: &mut O, from: SocketAddr, bytes: &mut [u8]) {
        if self.net.shared.tls.is_some() && is_clear(bytes) {
            let now = self.now();
            self.tell(observer, now, &Event::Refused { reason: "unsealed" });
        } else {
            self.feed_datagram(observer, from, bytes);
        }
    }

    /// From now on, these are the keys.
    pub(super) fn set_keys<O: Observer>(&mut self, observer: &mut O, keys: Vec<ClusterKey>) {
        let now = self.now();
        let mut out = std::mem::take(&mut self.out);
        self.member.set_keys(keys, &mut out);
        self.carry_out(observer, now, out);
    }

    /// Something came from another task.
    pub(super) fn take<O: Observer>(&mut self, observer: &mut O, incoming: Incoming) {
        match incoming {
            Incoming::Datagram { from, mut bytes } => self.feed_datagram(observer, from, &mut bytes),
            Incoming::Accepted { id, peer, first, writes } => {
                self.net.streams.accept(id, writes);
                self.feed_stream(observer, id, StreamEvent::Opened { peer });
                if self.net.streams.get(id).is_some() {
                    self.feed_stream(observer, id, StreamEvent::Data(&[first]));
                }
            }
            Incoming::Opened { id } => {
                // None if the member does not want it any more.
                if let Some(peer) = self.net.streams.get(id).and_then(|link| link.dialled) {
                    self.feed_stream(observer, id, StreamEvent::Opened { peer });
                }
            }
            Incoming::Data { id, bytes } => {
                if let Some(link) = self.net.streams.get_mut(id) {
                    link.heard = true;
                    self.feed_stream(observer, id, StreamEvent::Data(&bytes));
                }
            }
            Incoming::Closed { id, error } => {
                let Some(link) = self.net.streams.close(id) else { return };
                if let Some(to) = link.dialled
                    && let Some(what) = why_closed(error.as_ref(), link.heard)
                {
                    self.joining.trouble(to, what);
                }
                self.feed_stream(observer, id, StreamEvent::Closed);
            }
            Incoming::Seeds(seeds) => {
                let now = self.now();
                self.feed(observer, now, Input::Seeds(&seeds));
            }
            Incoming::Unresolved => self.joining.unresolved = self.joining.unresolved.saturating_add(1),
        }
    }

    fn feed_stream<O: Observer>(&mut self, observer: &mut O, id: StreamId, event: StreamEvent<'_>) {
        let to = self.net.streams.get(id).and_then(|link| link.dialled);
        let now = self.now();
        let refused = self.feed(observer, now, Input::Stream { id, event });
        if let (Some(to), Some(refused)) = (to, refused) {
            self.joining.trouble(to, meaning(refused).to_owned());
        }
    }

    /// Does what the member wants done, in order, and returns the first thing that it refused.
    fn carry_out<O: Observer>(
        &mut self,
        observer: &mut O,
        now: Now,
        mut out: Vec<Output>,
    ) -> Option<&'static str> {
        let mut refused = None;
        for output in out.drain(..) {
            match output {
                Output::Datagram { to, bytes } => self.net.send(to, bytes),
                Output::Open { id, to } => self.net.streams.open(id, to, &self.net.shared),
                Output::Write { id, bytes } => {
                    self.net.streams.write(id, bytes, &self.net.shared.counts);
                }
                Output::Close { id } => {
                    self.net.streams.close(id);
                }
                Output::Event(event) => {
                    if let Event::Refused { reason } = &event {
                        refused = refused.or(Some(*reason));
                    }
                    self.tell(observer, now, &event);
                }
            }
        }
        self.out = out;
        while let Some(id) = self.net.streams.take_overfull() {
            let now = self.now();
            self.feed(observer, now, Input::Stream { id, event: StreamEvent::Closed });
        }
        refused
    }

    fn tell<O: Observer>(&mut self, observer: &mut O, now: Now, event: &Event) {
        let node = self.member.node();
        match event {
            Event::Changed { key, entries } => {
                observer.changed(node, now, key, entries);
                return;
            }
            Event::Applied { .. } => return,
            Event::Failed { reason } => {
                tracing::error!(%reason, "the gossip member cannot go on");
                self.failure = Some(reason.clone());
            }
            Event::Phase(phase) => tracing::info!(?phase, "the gossip member is in another phase"),
            Event::Synced => {
                let members = node.status().members;
                if members > 1 {
                    tracing::info!(members, "joined the gossip cluster");
                } else {
                    tracing::info!("{}", self.joining.why_alone());
                }
            }
            _ => (),
        }
        observer.event(node, now, event);
    }

    /// Draws conclusions from all that happened in a turn, and lets others see how it stands.
    pub(super) fn conclude<O: Observer>(&mut self, observer: &mut O) {
        let status = self.member.node().status();
        if status.synced {
            self.joining.succeeded();
        }
        if self.failure.is_none() && self.joining.is_in_vain(&status) {
            self.give_up(observer);
        }
        if self.member.node().has_told_leave() {
            self.told.store(true, Ordering::Relaxed);
        }
        let state = State {
            phase: if self.failure.is_some() { Phase::Failed } else { status.phase },
            synced: status.synced,
            gave_up: self.joining.gave_up,
            members: status.members,
            failure: self.failure.clone(),
        };
        self.state.0.send_if_modified(|last| {
            let changed = *last != state;
            *last = state;
            changed
        });
    }

    fn give_up<O: Observer>(&mut self, observer: &mut O) {
        let trouble = self.member.node().status().join_trouble_in_words();
        if self.joining.abort_if_it_fails {
            let reason = self.joining.reason(trouble);
            let now = self.now();
            self.tell(observer, now, &Event::Failed { reason });
        } else if !self.joining.gave_up {
            self.joining.gave_up = true;
            let reason = self.joining.reason(trouble);
            tracing::warn!(%reason, "no gossip cluster was found: going on without it, and looking for it still");
        }
    }
}

/// How the member stands, for others to see; also if its task ends by a panic.
struct Published(watch::Sender<State>);

impl Drop for Published {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.send_modify(|state| {
                state.phase = Phase::Failed;
                state.failure = Some("the gossip member panicked: this is a bug, see the log".to_owned());
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::seal::{Keyring, Sealer};

    #[test]
    fn where_there_is_tls_nothing_in_clear_leaves_over_udp() {
        let clear = Header::new(1, 2).encode();
        let key = ClusterKey::from_bytes(&[7; 32]).unwrap();
        let mut sealer = Sealer::new(1, "");
        let sealed = sealer.seal_datagram(&Keyring::new(vec![key]), Bytes::copy_from_slice(&clear)).unwrap();
        let over_tcp = |transport, has_tls| {
            [&clear[..], &sealed[..]].map(|datagram| travels_over_tcp(transport, has_tls, datagram))
        };
        assert_eq!(over_tcp(Transport::Udp, false), [false, false]);
        assert_eq!(over_tcp(Transport::Udp, true), [true, false]);
        for has_tls in [false, true] {
            assert_eq!(over_tcp(Transport::Tcp, has_tls), [true, true]);
        }
    }
}
