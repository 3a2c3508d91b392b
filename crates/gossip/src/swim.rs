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
mod intake;
mod membership;
mod out;
mod probes;
mod rivals;
mod roster;
#[cfg(test)]
mod tests;
mod timers;

use std::net::SocketAddr;
use std::time::Duration;
use std::{iter, mem};

use foca::{Foca, Header, Identity, Member, NoCustomBroadcast, Timer, TimerToken};
use rand::SeedableRng as _;
use rand::rngs::SmallRng;

pub use codec::{BadMessage, MemberState};
pub use config::Config;
pub use foca::State;
pub use membership::Membership;
pub use out::{Counts, SwimError, SwimEvent, SwimOut};
pub use probes::ProbeId;

use crate::id::NodeId;
use crate::time::Now;
use admission::Admission;
use codec::{Codec, write_message};
use effects::Effects;
use probes::Probes;
use rivals::Rivals;
use roster::{Roster, hash_of};
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
    roster: Roster,
    admission: Admission,
    probes: Probes,
    rivals: Rivals,
    phase: Phase,
    /// Whether somebody was told that we leave, or there was nobody to tell.
    told_leave: bool,
    /// The generation of the first life.
    born: u64,
    /// Of the timers that foca still heeds.
    token: TimerToken,
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
            roster: Roster::default(),
            admission: Admission::new(rate, now.mono),
            probes: Probes::default(),
            rivals: Rivals::default(),
            phase: Phase::Live,
            told_leave: false,
            born: id.generation,
            token: TimerToken::default(),
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

    /// How long the live member with this name takes to answer a datagram, there and back and smoothed over its last answers.
    /// `None` until it has answered one.
    pub fn rtt(&self, name: u64) -> Option<Duration> {
        self.probes.rtt(name)
    }

    /// Whether anything is known of the member with this name, be it that it is dead.
    pub fn knows(&self, name: u64) -> bool {
        self.roster.knows(name)
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

    /// Tells whether two members know the same lives to be alive, themselves included.
    pub fn digest(&self) -> u64 {
        let own = if self.is_live() { hash_of(&self.id()) } else { 0 };
        self.roster.digest() ^ own
    }

    /// If this life of another member is suspected: how many suspicions it has refuted. It refutes this one as soon as it
    /// [hears](Swim::apply) of it.
    pub fn suspicion(&self, id: &NodeId) -> Option<u16> {
        self.roster.suspicion(id)
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

    /// A probe that was to be made over a stream was answered by its target, which has refuted so many suspicions.
    pub fn stream_probe_answered(&mut self, now: Now, probe: ProbeId, incarnation: u16, out: &mut SwimOut) {
        let target = probe.target();
        if !self.is_live() || !self.probes.awaits(probe) || !self.roster.knows_life(&target) {
            return;
        }
        // foca knows of datagrams only, so it gets the one that the target would have sent.
        let ack = Header { src: target, src_incarnation: incarnation, dst: self.id(), message: probe.ack() };
        if let Ok(bytes) = write_message(&ack, None) {
            self.probes.made_up();
            self.roster.touch(target.name);
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

    /// Whether somebody was told that we [leave](Self::leave), or there was nobody to tell.
    pub fn has_told_leave(&self) -> bool {
        self.told_leave
    }

    /// After news of our death were sent to a few.
    fn finish_leave_round(&mut self, now: Now, out: &mut SwimOut) {
        self.absorb(now, out);
        let lonely = self.foca.num_members() == 0;
        if let Phase::Leaving(leave) = &mut self.phase {
            leave.next_at = now.mono.saturating_add(self.config.gossip_period);
            self.told_leave = leave.told > 0 || lonely;
            if leave.told >= leave.wanted || leave.until <= now.mono || lonely {
                self.phase = Phase::Over;
                out.events.push(SwimEvent::Left);
            }
        }
    }

    fn fire(&mut self, now: Now, timer: Timer<NodeId>, out: &mut SwimOut) {
        // foca would tell the member that it is dead although it answered, and a healthy member would begin a new life.
        if let Timer::ChangeSuspectToDown { member_id, incarnation, .. } = &timer
            && !self.roster.is_suspect(member_id, *incarnation)
        {
            self.counts.ended_suspicions += 1;
            return;
        }
        let mut late = None;
        match &timer {
            Timer::SendIndirectProbe { probed_id, .. } => late = Some(*probed_id),
            Timer::RemoveDown(id) | Timer::ChangeSuspectToDown { member_id: id, .. } => {
                self.roster.touch(id.name);
            }
            _ => (),
        }
        let result = self.foca.handle_timer(timer, &mut self.effects);
        self.note(&result);
        self.settle(now, out);
        if let Some(target) = late.filter(|target| self.roster.lives(target))
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
        let members = self.foca.num_members() + 1;
        if members >= 2 * self.configured_for || 2 * members <= self.configured_for {
            self.configured_for = members;
            let result = self.foca.set_config(self.config.for_members(members));
            self.note(&result);
        }
        if self.timers.are_many() {
            self.timers.sweep(|id| self.roster.knows_life(id));
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

    fn note(&mut self, result: &Result<(), foca::Error>) {
        self.counts.engine_errors += u64::from(result.is_err());
    }
}
