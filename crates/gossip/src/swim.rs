//! Who is alive: foca's SWIM, without I/O, with what it lacks for clusters that restart, part and lose messages.
//!
//! - A suspicion that was answered is over ([`Swim::handle_due`]): foca alone would still tell the member that it is dead.
//! - Members ride alone in these messages: foca would fill them with its members first and send what else is queued much later.
//! - A probe that is late is made [over a stream](SwimEvent::ProbeOverStream) as well.
//! - Members are also taken from [sessions](Swim::apply), where the dead of others are only suspects.
//! - Datagrams can make known [only so many](Config::max_new_members_per_sec) members, and only so fast.
//! - A member that does badly [itself](Swim::score) takes its time before it accuses others.
//! - Two members with one name do not depose each other for ever: [one of them gives up](SwimEvent::NameConflict).
//! - A member that is [left alone](SwimEvent::Idle) says so, because foca then waits to be found.
//! - Who [leaves](Swim::leave) says so often enough to be heard, and is not called back.
//! - Timers come in order, however late.

mod admission;
mod codec;
mod config;
mod effects;
mod membership;
mod out;
mod probes;
mod rivals;
#[cfg(test)]
mod tests;
mod timers;

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Duration;
use std::{iter, mem};

use foca::{Foca, Header, Identity, Member, Message, NoCustomBroadcast, Timer};
use rand::SeedableRng as _;
use rand::rngs::SmallRng;
use xxhash_rust::xxh3::xxh3_64;

pub use codec::{BadMessage, MemberState};
pub use config::Config;
pub use foca::State;
pub use membership::Membership;
pub use out::{Counts, SwimError, SwimEvent, SwimOut};
pub use probes::ProbeId;

use crate::id::NodeId;
use crate::time::Now;
use admission::Admission;
use codec::{Codec, read_message, write_message};
use effects::Effects;
use probes::Probes;
use rivals::Rivals;
use timers::Timers;

/// Stands for the name of whoever is at an address: what is announced to it counts for any member.
const ANYONE: u64 = 0;

impl Identity for NodeId {
    /// The name: so a member that comes back from another address is the same one, and no text is compared in every scan.
    type Addr = u64;

    /// The next life. Nobody who leaves or gave up its name gets here, because nothing is handed to foca any more.
    fn renew(&self) -> Option<Self> {
        Some(Self { generation: self.generation.checked_add(1)?, ..*self })
    }

    fn addr(&self) -> u64 {
        self.name
    }

    fn win_addr_conflict(&self, adversary: &Self) -> bool {
        // Addresses are for ties only: without, each of two equal lives would win over the other one.
        (self.generation, self.addr) > (adversary.generation, adversary.addr)
    }
}

enum Phase {
    Live,
    Leaving(Leave),
    Over,
}

struct Leave {
    until: Duration,
    next_at: Duration,
    told: usize,
    wanted: usize,
}

/// Who is alive, as far as this member knows, and what it does to know.
pub struct Swim {
    config: Config,
    foca: Foca<NodeId, Codec, SmallRng, NoCustomBroadcast>,
    effects: Effects,
    timers: Timers,
    admission: Admission,
    probes: Probes,
    rivals: Rivals,
    phase: Phase,
    /// The life that last sent something, and its incarnation then.
    spoke: (NodeId, u16),
    /// Whether foca is in a new life that it has not begun yet.
    reborn: bool,
    /// The number of members that foca's configuration is for.
    configured_for: usize,
    /// Kept for its capacity.
    updates: Vec<Member<NodeId>>,
    counts: Counts,
}

impl Swim {
    /// A member that knows no other one yet.
    pub fn new(config: Config, id: NodeId, rng_seed: u64, now: Now) -> Self {
        let config = config.workable();
        let rng = SmallRng::seed_from_u64(rng_seed);
        let rate = config.max_new_members_per_sec;
        Self {
            foca: Foca::new(id, config.for_members(1), rng, Codec),
            effects: Effects::default(),
            timers: Timers::default(),
            admission: Admission::new(config.max_members, rate, now.mono),
            probes: Probes::default(),
            rivals: Rivals::default(),
            phase: Phase::Live,
            spoke: (id, 0),
            reborn: false,
            configured_for: 1,
            updates: Vec::new(),
            counts: Counts::default(),
            config,
        }
    }

    /// This life.
    pub fn id(&self) -> NodeId {
        *self.foca.identity()
    }

    /// The others that are alive, suspects included.
    pub fn members(&self) -> impl Iterator<Item = NodeId> {
        self.foca.iter_members().map(|member| *member.id())
    }

    /// How many others are alive.
    pub fn num_members(&self) -> usize {
        self.foca.num_members()
    }

    /// How badly this member does, from 0 to 7.
    pub fn score(&self) -> u8 {
        self.probes.score()
    }

    /// How often something happened.
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// All that is known, the dead included, and this member first: for others to [apply](Swim::apply).
    pub fn export(&self) -> impl Iterator<Item = MemberState> {
        let own = MemberState { id: self.id(), incarnation: self.incarnation(), state: State::Alive };
        let own = self.is_live().then_some(own);
        own.into_iter().chain(self.foca.iter_membership_state().map(MemberState::from))
    }

    /// Tells whether two members know the same lives to be alive, themselves included. Costs a hash for each.
    pub fn digest(&self) -> u64 {
        let mut bytes = Vec::new();
        let living = self.export().filter(|member| member.state != State::Down);
        living.fold(0, |digest, member| {
            bytes.clear();
            member.id.encode(&mut bytes);
            digest ^ xxh3_64(&bytes)
        })
    }

    /// When [`Swim::handle_due`] is to be called, in monotonic time.
    pub fn next_deadline(&self) -> Option<Duration> {
        match &self.phase {
            Phase::Live => self.timers.next_at(),
            Phase::Leaving(leave) => Some(leave.next_at.min(leave.until)),
            Phase::Over => None,
        }
    }

    /// Does what is due.
    pub fn handle_due(&mut self, now: Now, out: &mut SwimOut) {
        // What comes up meanwhile is due later, so this ends.
        while let Some(timer) = self.timers.pop_due(now.mono) {
            self.fire(now, timer, out);
        }
        if let Phase::Leaving(leave) = &self.phase
            && leave.next_at.min(leave.until) <= now.mono
        {
            let result = self.foca.gossip(&mut self.effects);
            self.note(&result);
            self.finish_leave_round(now, out);
        }
    }

    /// Takes in a message about members. Where it came from does not matter: it says who sent it.
    ///
    /// # Errors
    ///
    /// [`SwimError`] if it was refused.
    pub fn handle_datagram(&mut self, now: Now, payload: &[u8], out: &mut SwimOut) -> Result<(), SwimError> {
        // A leaver that hears of its own death would come back.
        if !self.is_live() {
            return Ok(());
        }
        if payload.len() > self.config.max_packet_bytes {
            return Err(SwimError::TooLong { bytes: payload.len(), max: self.config.max_packet_bytes });
        }
        let mut updates = mem::take(&mut self.updates);
        let result = self.take_in(now, payload, &mut updates, out);
        self.updates = updates;
        self.settle(now, out);
        result
    }

    /// Asks `to` to know us, and whom it knows.
    pub fn announce(&mut self, now: Now, to: NodeId, out: &mut SwimOut) {
        if self.is_live() && to.name != self.id().name {
            let result = self.foca.announce(to, &mut self.effects);
            self.note(&result);
            self.settle(now, out);
        }
    }

    /// Asks whoever is at `addr` to know us, and whom it knows.
    pub fn announce_at(&mut self, now: Now, addr: SocketAddr, out: &mut SwimOut) {
        if addr != self.id().addr {
            self.announce(now, NodeId { name: ANYONE, generation: 0, addr }, out);
        }
    }

    /// Takes in what another member knows.
    pub fn apply(&mut self, now: Now, members: impl IntoIterator<Item = MemberState>, out: &mut SwimOut) {
        if !self.is_live() {
            return;
        }
        let me = self.id();
        let living: BTreeSet<u64> = self.foca.iter_members().map(|member| member.id().name).collect();
        let mut updates = mem::take(&mut self.updates);
        updates.clear();
        let mut claim = None;
        for member in members {
            let name = member.id.name;
            if name == me.name {
                // Of ourselves a death is a death: who believes in it takes us back in a later life only.
                if member.id == me {
                    updates.push(member.into());
                } else {
                    claim = later(claim, member);
                }
                continue;
            }
            // Deaths are not worth learning of, only lives are.
            if member.state == State::Down && !self.admission.knows(name) {
                continue;
            }
            if self.admission.enlist(name).is_err() {
                self.counts.refused_members += 1;
                continue;
            }
            // It may be that only the other one, or its side of the network, lost it: so it may speak for itself first.
            let dies_here = member.state == State::Down && living.contains(&name);
            let state = if dies_here { State::Suspect } else { member.state };
            updates.push(MemberState { state, ..member }.into());
        }
        let result = self.foca.apply_many(updates.drain(..), true, &mut self.effects);
        self.note(&result);
        self.updates = updates;
        if let Some(claim) = claim {
            self.contest(now, claim, None, out);
        }
        self.settle(now, out);
    }

    /// A probe that was to be made over a stream was answered by its target, or was not.
    pub fn stream_probe_result(&mut self, now: Now, probe: ProbeId, answered: bool, out: &mut SwimOut) {
        if !answered || !self.is_live() || !self.probes.awaits(probe) {
            return;
        }
        let Some(target) = self.find(&probe.target()) else { return };
        // foca knows of datagrams only, so it gets the one that the target would have sent.
        let ack = Header {
            src: *target.id(),
            src_incarnation: target.incarnation(),
            dst: self.id(),
            message: probe.ack(),
        };
        if let Ok(bytes) = write_message(&ack, None) {
            let result = self.foca.handle_data(&bytes, &mut self.effects);
            self.note(&result);
            self.settle(now, out);
        }
    }

    /// Begins to leave; [`SwimEvent::Left`] tells when that is over.
    pub fn leave(&mut self, now: Now, out: &mut SwimOut) {
        if !self.is_live() {
            return;
        }
        self.timers.clear();
        self.probes.clear();
        self.phase = Phase::Leaving(Leave {
            until: now.mono.saturating_add(self.config.leave_timeout),
            next_at: now.mono,
            told: 0,
            wanted: self.config.max_transmissions(self.configured_for).get().into(),
        });
        let result = self.foca.leave_cluster(&mut self.effects);
        self.note(&result);
        self.finish_leave_round(now, out);
    }

    /// After news of our death were sent to a few.
    fn finish_leave_round(&mut self, now: Now, out: &mut SwimOut) {
        self.absorb(now, out);
        let lonely = self.foca.num_members() == 0;
        if let Phase::Leaving(leave) = &mut self.phase {
            leave.next_at = now.mono.saturating_add(self.config.gossip_period);
            if leave.told >= leave.wanted || leave.until <= now.mono || lonely {
                self.phase = Phase::Over;
                out.events.push(SwimEvent::Left);
            }
        }
    }

    fn take_in(
        &mut self,
        now: Now,
        payload: &[u8],
        updates: &mut Vec<Member<NodeId>>,
        out: &mut SwimOut,
    ) -> Result<(), SwimError> {
        let (mut header, has_updates) = read_message(payload, updates)?;
        let me = self.id();
        let announces = header.message == Message::Announce;
        let for_anyone = announces && header.dst.name == ANYONE;
        if for_anyone {
            header.dst = me;
        }
        // What foca would not take must not count either.
        if header.dst != me && !(announces && header.dst.name == me.name) {
            return Ok(());
        }
        if let Some(claim) = claim_of(me, &header, updates) {
            let teller = (header.src.name != me.name).then_some(header.src);
            self.contest(now, claim, teller, out);
            return Ok(());
        }
        if header.src.name == me.name {
            return Err(SwimError::OwnName);
        }
        if let Err(refusal) = self.admission.admit(now.mono, header.src.name) {
            self.counts.refused_members += 1;
            return Err(refusal);
        }
        let before = updates.len();
        let (admission, counts) = (&mut self.admission, &mut self.counts);
        updates.retain(|member| {
            let id = member.id();
            if id.name == me.name {
                // Our earlier lives end by themselves wherever we are heard.
                return *id == me;
            }
            let admitted = admission.admit(now.mono, id.name).is_ok();
            counts.refused_members += u64::from(!admitted);
            admitted
        });
        let result = if for_anyone || updates.len() < before {
            let changed = write_message(&header, has_updates.then_some(&updates[..]))?;
            self.foca.handle_data(&changed, &mut self.effects)
        } else {
            self.foca.handle_data(payload, &mut self.effects)
        };
        result.map_err(SwimError::from)
    }

    /// Somebody has our name in a later life than ours, so we count for dead wherever it is known.
    ///
    /// foca would go on by one life at a time, and never get there if the other one's clock was ahead by hours. Instead this
    /// goes beyond the other one at once, and tells `teller`, who is where the other one is known.
    fn contest(&mut self, now: Now, claim: MemberState, teller: Option<NodeId>, out: &mut SwimOut) {
        let me = self.id();
        if claim.id <= me {
            return;
        }
        // At our own address, or dead, it is our past: a clock was set back in between.
        let insists = claim.id.addr != me.addr && claim.state != State::Down && self.rivals.claimed(now.mono);
        let Some(generation) = claim.id.generation.checked_add(1).filter(|_| !insists) else {
            self.phase = Phase::Over;
            self.timers.clear();
            self.probes.clear();
            out.events.push(SwimEvent::NameConflict { addr: claim.id.addr });
            return;
        };
        let next = NodeId { generation: generation.max(now.wall_ms), ..me };
        let result = self.foca.change_identity(next, &mut self.effects);
        self.note(&result);
        self.probes.clear();
        self.reborn = true;
        out.events.push(SwimEvent::Rejoined(next));
        if let Some(teller) = teller {
            let result = self.foca.announce(teller, &mut self.effects);
            self.note(&result);
        }
    }

    fn fire(&mut self, now: Now, timer: Timer<NodeId>, out: &mut SwimOut) {
        // foca would tell the member that it is dead although it answered, and a healthy member would begin a new life.
        if let Timer::ChangeSuspectToDown { member_id, incarnation, .. } = &timer
            && !self.is_suspect(member_id, *incarnation)
        {
            self.counts.ended_suspicions += 1;
            return;
        }
        let (mut late, mut forgotten) = (None, None);
        match &timer {
            Timer::SendIndirectProbe { probed_id, .. } => late = Some(*probed_id),
            Timer::RemoveDown(id) => forgotten = Some(id.name),
            _ => (),
        }
        let known = self.foca.iter_membership_state().len();
        let result = self.foca.handle_timer(timer, &mut self.effects);
        self.note(&result);
        if let Some(name) = forgotten
            && self.foca.iter_membership_state().len() < known
        {
            self.admission.forget(name);
        }
        self.settle(now, out);
        if let Some(target) = late
            && self.find(&target).is_some_and(|member| member.state() != State::Down)
            && let Some(probe) = self.probes.overdue(&target)
        {
            out.events.push(SwimEvent::ProbeOverStream { probe, target });
        }
    }

    /// Finishes a call of foca.
    fn settle(&mut self, now: Now, out: &mut SwimOut) {
        self.absorb(now, out);
        if mem::take(&mut self.reborn) {
            // Otherwise foca would wait, without probing or gossip, until somebody speaks to the new life; and those who could
            // may not have heard of it.
            let result = self.foca.apply_many(iter::empty(), true, &mut self.effects);
            self.note(&result);
            self.absorb(now, out);
        }
        if self.admission.len() != self.foca.iter_membership_state().len() {
            // foca did not believe the sender.
            self.admission.reset(self.foca.iter_membership_state().map(|member| member.id().name));
        }
        let members = self.foca.num_members() + 1;
        if members >= 2 * self.configured_for || 2 * members <= self.configured_for {
            self.configured_for = members;
            let result = self.foca.set_config(self.config.for_members(members));
            self.note(&result);
        }
        if self.timers.are_many() {
            let known: BTreeSet<NodeId> =
                self.foca.iter_membership_state().map(|member| *member.id()).collect();
            self.timers.sweep(|id| known.contains(id));
        }
    }

    fn is_live(&self) -> bool {
        matches!(self.phase, Phase::Live)
    }

    /// How many suspicions this life has answered, as far as it has said so.
    fn incarnation(&self) -> u16 {
        let (speaker, incarnation) = self.spoke;
        if speaker == self.id() { incarnation } else { 0 }
    }

    fn find(&self, id: &NodeId) -> Option<&Member<NodeId>> {
        self.foca.iter_membership_state().find(|member| member.id() == id)
    }

    fn is_suspect(&self, id: &NodeId, incarnation: u16) -> bool {
        self.find(id)
            .is_some_and(|member| member.state() == State::Suspect && member.incarnation() == incarnation)
    }

    fn note(&mut self, result: &Result<(), foca::Error>) {
        self.counts.engine_errors += u64::from(result.is_err());
    }
}

/// The latest life of our name beyond `me` that a message tells of.
fn claim_of(me: NodeId, header: &Header<NodeId>, updates: &[Member<NodeId>]) -> Option<MemberState> {
    let src = MemberState { id: header.src, incarnation: header.src_incarnation, state: State::Alive };
    iter::once(src)
        .chain(updates.iter().map(MemberState::from))
        .filter(|member| member.id.name == me.name && member.id > me)
        .fold(None, later)
}

fn later(claim: Option<MemberState>, member: MemberState) -> Option<MemberState> {
    match claim {
        Some(claim) if claim.id >= member.id => Some(claim),
        _ => Some(member),
    }
}
