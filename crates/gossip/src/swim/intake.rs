//! What others say about members, and what of it is taken in.

use std::time::Duration;
use std::{iter, mem};

use foca::{Header, Member, Message, State, Timer};

use super::codec::{read_message, write_message};
use super::config::MAX_PACKET_BYTES;
use super::{ANYONE, MemberState, Phase, Swim, SwimError, SwimEvent, SwimOut};
use crate::id::NodeId;
use crate::time::Now;

/// Lives begin when they do, by some wall clock. No clock that may be believed is ahead by as much as a leap year, and whoever
/// was given a life out of reach could never begin another one.
const MAX_AHEAD_MS: u64 = 366 * 24 * 60 * 60 * 1000;
/// Who was suspected because another one told its death is not suspected for the same reason before this is over: as long as
/// somebody cannot believe that it lives, this will be told again and again.
const DOUBT_AGAIN: Duration = Duration::from_secs(60);

impl Swim {
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
        if payload.len() > MAX_PACKET_BYTES {
            return Err(SwimError::TooLong { bytes: payload.len(), max: MAX_PACKET_BYTES });
        }
        let mut updates = mem::take(&mut self.updates);
        let result = self.take_in(now, payload, &mut updates, out);
        self.updates = updates;
        self.settle(now, out);
        result
    }

    /// Takes in what another member knows. What is known already costs next to nothing.
    ///
    /// Whoever it takes for dead is suspected here, and dead if it does not answer in the time that our own suspects have.
    pub fn apply(&mut self, now: Now, members: impl IntoIterator<Item = MemberState>, out: &mut SwimOut) {
        if !self.is_live() {
            return;
        }
        let me = self.id();
        let known_before = self.roster.len();
        let (mut claim, mut newcomers, mut doubted) = (None, Vec::new(), Vec::new());
        let mut updates = mem::take(&mut self.updates);
        updates.clear();
        for mut told in members {
            if !self.takes_life(now, &told.id) {
                continue;
            }
            if told.id.name == me.name {
                // Of ourselves a death is a death: who believes in it takes us back in a later life only.
                if told.id == me {
                    self.roster.touch(me.name);
                    updates.push(told.into());
                } else {
                    claim = later(claim, told);
                }
                continue;
            }
            let known = self.roster.get(told.id.name).copied();
            if told.state == State::Down {
                // Deaths are not worth learning of, only lives are.
                let Some(known) = known else { continue };
                if known.state != State::Down {
                    if self.roster.is_doubted(&told.id, now.mono) {
                        continue;
                    }
                    // It may be that only the other one, or its side of the network, lost it: so it may speak for itself first.
                    told.state = State::Suspect;
                    if known.id == told.id {
                        told.incarnation = told.incarnation.max(known.incarnation);
                    }
                    doubted.push(told.id);
                }
            }
            if !self.roster.is_news(&told) {
                continue;
            }
            if self.admit(now, &told, false).is_err() {
                self.counts.refused_members += 1;
            } else if known.is_none() {
                newcomers.push(told.into());
            } else {
                updates.push(told.into());
            }
        }
        // To whom most is new, it is to nobody else: it joins.
        let tells = newcomers.len() <= known_before;
        let result = self.foca.apply_many(newcomers.into_iter(), tells, &mut self.effects);
        self.note(&result);
        let result = self.foca.apply_many(updates.drain(..), true, &mut self.effects);
        self.note(&result);
        self.updates = updates;
        if let Some(claim) = claim {
            self.contest(now, claim, None, out);
        }
        self.settle(now, out);
        for id in doubted {
            self.set_deadline(now, id);
        }
    }

    /// foca itself sets one only for those whom it did not reach itself, and its turn to try comes late among many.
    fn set_deadline(&mut self, now: Now, id: NodeId) {
        let Some(incarnation) = self.roster.suspicion(&id).filter(|_| self.is_live()) else { return };
        let wait = self.stretched(self.config.suspect_to_down_after(self.configured_for));
        let at = now.mono.saturating_add(wait);
        self.timers.push(at, Timer::ChangeSuspectToDown { member_id: id, incarnation, token: self.token });
        self.roster.doubt(id.name, at.max(now.mono.saturating_add(DOUBT_AGAIN)));
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
        if !self.takes_life(now, &header.src) {
            return Err(SwimError::FarAhead);
        }
        let before = updates.len();
        updates.retain(|member| self.takes_life(now, member.id()));
        if let Some(claim) = claim_of(me, &header, updates) {
            let teller = (header.src.name != me.name).then_some(header.src);
            self.contest(now, claim, teller, out);
            return Ok(());
        }
        if header.src.name == me.name {
            return Err(SwimError::OwnName);
        }
        let src = MemberState { id: header.src, incarnation: header.src_incarnation, state: State::Alive };
        if self.roster.is_news(&src) {
            if let Err(refusal) = self.admit(now, &src, true) {
                self.counts.refused_members += 1;
                return Err(refusal);
            }
        } else if !self.roster.lives(&src.id) {
            // foca does not listen to the dead either.
            updates.clear();
        }
        updates.retain(|member| {
            let told = MemberState::from(member);
            if told.id.name == me.name {
                // What ends this life foca may note among the others.
                self.roster.touch(me.name);
                // Our earlier lives end by themselves wherever we are heard.
                return told.id == me;
            }
            if !self.roster.is_news(&told) {
                return false;
            }
            let admitted = self.admit(now, &told, true).is_ok();
            self.counts.refused_members += u64::from(!admitted);
            admitted
        });
        // foca takes nothing that is longer than what it sends.
        let at_once = if payload.len() > self.config.max_packet_bytes { 0 } else { updates.len() };
        let (first, rest) = updates.split_at(at_once);
        let result = if for_anyone || first.len() < before {
            let changed = write_message(&header, has_updates.then_some(first))?;
            self.foca.handle_data(&changed, &mut self.effects)
        } else {
            self.foca.handle_data(payload, &mut self.effects)
        };
        result?;
        if !rest.is_empty() {
            self.foca.apply_many(rest.iter().cloned(), true, &mut self.effects)?;
        }
        Ok(())
    }

    /// Whether a life may have begun; if not, that is counted.
    fn takes_life(&mut self, now: Now, id: &NodeId) -> bool {
        let last = now.wall_ms.max(self.born).saturating_add(MAX_AHEAD_MS);
        // A clock that was set back does not make lives of which it was told before impossible.
        let takes = id.generation <= last || *id == self.id() || self.roster.knows_life(id);
        self.counts.refused_lives += u64::from(!takes);
        takes
    }

    /// Lets foca have what is told of a member. There are only so many, and so many new ones a second if datagrams tell of them.
    fn admit(&mut self, now: Now, told: &MemberState, by_datagram: bool) -> Result<(), SwimError> {
        let name = told.id.name;
        if !self.roster.knows(name) && !self.roster.is_touched(name) {
            let is_full = self.roster.len() >= self.config.max_members;
            // The dead make room for the living.
            let oldest = self.roster.oldest_dead().filter(|_| is_full && told.state != State::Down);
            if is_full && oldest.is_none() {
                return Err(SwimError::TooManyMembers);
            }
            if by_datagram && !self.admission.admits(now.mono) {
                return Err(SwimError::TooFast);
            }
            if let Some(oldest) = oldest {
                let result = self.foca.handle_timer(Timer::RemoveDown(oldest), &mut self.effects);
                self.note(&result);
                self.roster.remove(oldest.name);
            }
        }
        self.roster.touch(name);
        Ok(())
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
        // Once it may be our own past: a clock was set back in between.
        let insists = self.rivals.claimed(now.mono);
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
