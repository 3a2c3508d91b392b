//! What foca asks for, gathered until its call is over; and what becomes of it.

use std::net::SocketAddr;
use std::time::Duration;
use std::{mem, slice};

use bytes::Bytes;
use foca::{Header, Message, Notification, OwnedNotification, Runtime, State, Timer};

use super::codec::{read_message, write_message};
use super::{MemberState, Phase, Swim, SwimEvent, SwimOut};
use crate::id::NodeId;
use crate::time::Now;

/// In the order in which it came. Every datagram has a note of its own, [`OwnedNotification::DataSent`].
#[derive(Default)]
pub(super) struct Effects {
    pub(super) notes: Vec<OwnedNotification<NodeId>>,
    pub(super) datagrams: Vec<(NodeId, Bytes)>,
    pub(super) timers: Vec<(Duration, Timer<NodeId>)>,
}

impl Runtime<NodeId> for Effects {
    fn notify(&mut self, notification: Notification<'_, NodeId>) {
        self.notes.push(notification.to_owned());
    }

    fn send_to(&mut self, to: NodeId, data: &[u8]) {
        self.datagrams.push((to, Bytes::copy_from_slice(data)));
    }

    fn submit_after(&mut self, event: Timer<NodeId>, after: Duration) {
        self.timers.push((after, event));
    }
}

impl Swim {
    /// Does what foca asked for.
    pub(super) fn absorb(&mut self, now: Now, out: &mut SwimOut) {
        let mut effects = mem::take(&mut self.effects);
        let mut datagrams = effects.datagrams.drain(..);
        for note in effects.notes.drain(..) {
            match note {
                OwnedNotification::MemberUp(id) => out.events.push(SwimEvent::MemberUp(id)),
                OwnedNotification::MemberDown(id) => {
                    self.probes.lost(id.name);
                    out.events.push(SwimEvent::MemberDown(id));
                }
                OwnedNotification::Rename(old, new) => {
                    self.probes.lost(new.name);
                    out.events.push(SwimEvent::Renamed(old, new));
                }
                OwnedNotification::Active => out.events.push(SwimEvent::Active),
                OwnedNotification::Idle => {
                    self.probes.clear();
                    out.events.push(SwimEvent::Idle);
                }
                OwnedNotification::Defunct => {
                    self.probes.clear();
                    // Who leaves is defunct as well, by its own will.
                    if self.is_live() {
                        out.events.push(SwimEvent::Defunct);
                    }
                }
                OwnedNotification::Rejoin(id) => {
                    self.probes.clear();
                    self.reborn = true;
                    out.events.push(SwimEvent::Rejoined(id));
                }
                OwnedNotification::DataReceived(header) => self.received(now, &header, out),
                OwnedNotification::DataSent(header) => {
                    if let Some((to, bytes)) = datagrams.next() {
                        out.datagrams.push((to.addr, self.sent(now, &header, bytes)));
                    }
                    if matches!(header.message, Message::Ping(_)) {
                        out.datagrams.extend(self.accusation(header.dst));
                    }
                }
                OwnedNotification::ProbeFailed(number, id) => {
                    self.roster.touch(id.name);
                    self.probes.failed(number);
                }
            }
        }
        out.datagrams.extend(datagrams.map(|(to, bytes)| (to.addr, bytes)));
        for (delay, timer) in effects.timers.drain(..) {
            // The indirect probe keeps its delay, and so stays before the next probe.
            let delay = match timer {
                Timer::ProbeRandomMember(token) => {
                    self.token = token;
                    self.stretched(delay)
                }
                Timer::ChangeSuspectToDown { .. } => self.stretched(delay),
                _ => delay,
            };
            if self.is_live() {
                self.timers.push(now.mono.saturating_add(delay), timer);
            }
        }
        self.effects = effects;
        self.roster.refresh(self.foca.iter_membership_state());
    }

    /// A wait of ours before we accuse others.
    pub(super) fn stretched(&self, delay: Duration) -> Duration {
        delay.saturating_mul(u32::from(self.probes.score()) + 1)
    }

    /// foca takes in a message with this header.
    fn received(&mut self, now: Now, header: &Header<NodeId>, out: &mut SwimOut) {
        self.probes.received(now.mono, header);
        if self.roster.suspicion(&header.src).is_some_and(|suspected| header.src_incarnation <= suspected) {
            // It lives. But only it can say so, and nobody told it that it must if the news of the suspicion was lost.
            out.datagrams.extend(self.accusation(header.src));
        }
        if matches!(header.message, Message::PingReq { .. }) {
            // Tells whoever asked that we heard, whatever the target does. An empty message is enough.
            let me = self.id();
            let receipt = Header {
                src: me,
                src_incarnation: self.incarnation(),
                dst: header.src,
                message: Message::Gossip,
            };
            if let Ok(bytes) = write_message(&receipt, None) {
                out.datagrams.push((header.src.addr, Bytes::from(bytes)));
            }
        }
    }

    /// Tells a member that it is suspected here, so that it refutes that, if it is.
    fn accusation(&self, suspect: NodeId) -> Option<(SocketAddr, Bytes)> {
        let incarnation = self.roster.suspicion(&suspect)?;
        let header = Header {
            src: self.id(),
            src_incarnation: self.incarnation(),
            dst: suspect,
            message: Message::Gossip,
        };
        let suspected = MemberState { id: suspect, incarnation, state: super::State::Suspect }.into();
        let bytes = write_message(&header, Some(slice::from_ref(&suspected))).ok()?;
        Some((suspect.addr, Bytes::from(bytes)))
    }

    /// foca sends `bytes` with this header. Returns what is to be sent.
    fn sent(&mut self, now: Now, header: &Header<NodeId>, bytes: Bytes) -> Bytes {
        let (speaker, incarnation) = self.spoke;
        if header.src == speaker && header.src_incarnation > incarnation {
            // We were suspected and answered.
            self.probes.worsen(1);
        }
        self.spoke = (header.src, header.src_incarnation);
        self.probes.sent(now.mono, header);
        if header.message == Message::TurnUndead {
            return self.explained(header, bytes);
        }
        if let Phase::Leaving(leave) = &mut self.phase {
            leave.told += usize::from(tells_death(&bytes, header.src));
        }
        bytes
    }

    /// Tells a member that counts for dead because of a later one of its name which one that is.
    fn explained(&self, header: &Header<NodeId>, bytes: Bytes) -> Bytes {
        let dead = header.dst;
        let mut members = self.foca.iter_membership_state();
        let later = members.find(|member| member.id().name == dead.name && *member.id() > dead);
        match later.map(|later| write_message(header, Some(slice::from_ref(later)))) {
            Some(Ok(explained)) => Bytes::from(explained),
            _ => bytes,
        }
    }
}

/// Whether a message tells that `id` is dead.
pub(super) fn tells_death(bytes: &[u8], id: NodeId) -> bool {
    let mut updates = Vec::new();
    read_message(bytes, &mut updates).is_ok()
        && updates.iter().any(|member| *member.id() == id && member.state() == State::Down)
}
