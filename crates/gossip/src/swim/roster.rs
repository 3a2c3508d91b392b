//! Whom foca knows, by name: foca itself looks through all of them for each question.

use std::collections::{BTreeMap, BTreeSet};
use std::mem;
use std::time::Duration;

use foca::{Identity as _, Member, State};
use xxhash_rust::xxh3::xxh3_64;

use super::MemberState;
use crate::id::{MAX_ENCODED_BYTES, NodeId};

/// What foca knows. It is told which names foca may change, before, and looks at those afterwards.
#[derive(Default)]
pub(super) struct Roster {
    seats: BTreeMap<u64, Seat>,
    /// Names of the dead, in the order in which they died, but for those that foca is being told of.
    dead: BTreeMap<u64, u64>,
    deaths: u64,
    /// Of the lives that are not over.
    digest: u64,
    /// Names of which foca may think otherwise after what it is being told.
    touched: BTreeSet<u64>,
    /// How many of these have no seat yet.
    newcomers: usize,
}

struct Seat {
    member: MemberState,
    /// Which death it was, if it is dead.
    death: Option<u64>,
    /// Until then nothing is given on what sessions tell of this life's death.
    doubted_until: Duration,
}

impl Roster {
    pub(super) fn get(&self, name: u64) -> Option<&MemberState> {
        self.seats.get(&name).map(|seat| &seat.member)
    }

    pub(super) fn knows(&self, name: u64) -> bool {
        self.seats.contains_key(&name)
    }

    /// Whether this very life is known.
    pub(super) fn knows_life(&self, id: &NodeId) -> bool {
        self.get(id.name).is_some_and(|known| known.id == *id)
    }

    /// Whether this very life is known, and not to be over.
    pub(super) fn lives(&self, id: &NodeId) -> bool {
        self.get(id.name).is_some_and(|known| known.id == *id && known.state != State::Down)
    }

    /// Whether this life is suspected, and has refuted so many suspicions.
    pub(super) fn is_suspect(&self, id: &NodeId, incarnation: u16) -> bool {
        self.suspicion(id) == Some(incarnation)
    }

    /// If this life is suspected: how many suspicions it has refuted.
    pub(super) fn suspicion(&self, id: &NodeId) -> Option<u16> {
        let known = self.get(id.name).filter(|known| known.id == *id && known.state == State::Suspect);
        known.map(|known| known.incarnation)
    }

    /// How many names are known, with those that foca is being told of.
    pub(super) fn len(&self) -> usize {
        self.seats.len() + self.newcomers
    }

    /// Equal for those that know the same lives to be alive.
    pub(super) fn digest(&self) -> u64 {
        self.digest
    }

    /// Who has been dead for the longest.
    pub(super) fn oldest_dead(&self) -> Option<NodeId> {
        let (_, name) = self.dead.first_key_value()?;
        self.get(*name).map(|member| member.id)
    }

    /// Whether foca would change what it knows for this.
    pub(super) fn is_news(&self, told: &MemberState) -> bool {
        let Some(known) = self.get(told.id.name) else { return true };
        if known.id != told.id {
            return !known.id.win_addr_conflict(&told.id);
        }
        match (known.state, told.state) {
            (State::Down, _) => false,
            (_, State::Down) => true,
            (State::Alive, State::Suspect) => told.incarnation >= known.incarnation,
            _ => told.incarnation > known.incarnation,
        }
    }

    /// Whether foca is being told of this name.
    pub(super) fn is_touched(&self, name: u64) -> bool {
        self.touched.contains(&name)
    }

    /// foca is about to be told of this name.
    pub(super) fn touch(&mut self, name: u64) {
        let is_first = self.touched.insert(name);
        match self.seats.get(&name) {
            // Whoever may come back makes room for nobody.
            Some(Seat { death: Some(death), .. }) => {
                self.dead.remove(death);
            }
            Some(_) => (),
            None => self.newcomers += usize::from(is_first),
        }
    }

    /// Looks up those that were touched among all that foca knows.
    pub(super) fn refresh<'a>(&mut self, known: impl Iterator<Item = &'a Member<NodeId>>) {
        if self.touched.is_empty() {
            return;
        }
        self.newcomers = 0;
        let mut touched = mem::take(&mut self.touched);
        for member in known {
            if touched.remove(&member.id().name) {
                self.put(member.into());
                if touched.is_empty() {
                    return;
                }
            }
        }
        for name in touched {
            self.remove(name);
        }
    }

    /// Whether nothing is given for now on what sessions tell of this life's death.
    pub(super) fn is_doubted(&self, id: &NodeId, now: Duration) -> bool {
        self.seats.get(&id.name).is_some_and(|seat| seat.member.id == *id && seat.doubted_until > now)
    }

    /// Until then nothing is given on that.
    pub(super) fn doubt(&mut self, name: u64, until: Duration) {
        if let Some(seat) = self.seats.get_mut(&name) {
            seat.doubted_until = until;
        }
    }

    /// foca does not know this name any more.
    pub(super) fn remove(&mut self, name: u64) {
        let Some(Seat { member, death, .. }) = self.seats.remove(&name) else { return };
        match death {
            Some(death) => {
                self.dead.remove(&death);
            }
            None => self.digest ^= hash_of(&member.id),
        }
    }

    fn put(&mut self, member: MemberState) {
        let name = member.id.name;
        let known = self.seats.get(&name).filter(|seat| seat.member.id == member.id);
        if let Some(Seat { death, .. }) = known.filter(|seat| seat.member == member) {
            if let Some(death) = *death {
                self.dead.insert(death, name);
            }
            return;
        }
        let doubted_until = known.map_or(Duration::ZERO, |seat| seat.doubted_until);
        self.remove(name);
        let death = (member.state == State::Down).then(|| {
            self.deaths += 1;
            self.deaths
        });
        match death {
            Some(death) => {
                self.dead.insert(death, name);
            }
            None => self.digest ^= hash_of(&member.id),
        }
        self.seats.insert(name, Seat { member, death, doubted_until });
    }
}

/// What one life adds to a digest.
pub(super) fn hash_of(id: &NodeId) -> u64 {
    let mut bytes = Vec::with_capacity(MAX_ENCODED_BYTES);
    id.encode(&mut bytes);
    xxh3_64(&bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(name: u64, generation: u64, state: State) -> Member<NodeId> {
        Member::new(NodeId { name, generation, addr: "10.0.0.1:7946".parse().unwrap() }, 0, state)
    }

    fn roster(members: &[Member<NodeId>]) -> Roster {
        let mut roster = Roster::default();
        tell(&mut roster, members);
        roster
    }

    fn tell(roster: &mut Roster, members: &[Member<NodeId>]) {
        for member in members {
            roster.touch(member.id().name);
            roster.refresh(members.iter());
        }
    }

    #[test]
    fn the_dead_are_in_the_order_in_which_they_died() {
        let mut members: Vec<_> = (1..=3).map(|name| state(name, 1, State::Alive)).collect();
        let mut roster = roster(&members);
        assert_eq!(roster.oldest_dead(), None);
        for name in [2, 3, 1] {
            members.retain(|member| member.id().name != name);
            members.push(state(name, 1, State::Down));
            tell(&mut roster, &members);
        }
        assert_eq!(roster.oldest_dead(), Some(*state(2, 1, State::Down).id()));

        // Who is being told of stays dead unless it is known better afterwards.
        roster.touch(2);
        assert_eq!(roster.oldest_dead(), Some(*state(3, 1, State::Down).id()));
        roster.refresh(members.iter());
        assert_eq!(roster.oldest_dead(), Some(*state(2, 1, State::Down).id()));
        members.push(state(2, 2, State::Alive));
        members.retain(|member| *member.id() != *state(2, 1, State::Down).id());
        roster.touch(2);
        roster.refresh(members.iter());
        assert_eq!(roster.oldest_dead(), Some(*state(3, 1, State::Down).id()));
        roster.remove(3);
        assert_eq!((roster.oldest_dead(), roster.len()), (Some(*state(1, 1, State::Down).id()), 2));
    }

    #[test]
    fn digests_are_of_the_lives_that_are_not_over_however_that_came() {
        let alive = |names: &[u64]| {
            let members: Vec<_> = names.iter().map(|name| state(*name, 1, State::Alive)).collect();
            roster(&members).digest()
        };
        let (suspect, dead) = (state(3, 1, State::Suspect), state(2, 1, State::Down));
        let mut one = roster(&[suspect, state(1, 1, State::Alive), dead]);
        assert_eq!(one.digest(), alive(&[1, 3]));
        assert_ne!(one.digest(), alive(&[1, 2, 3]));
        tell(&mut one, &[state(2, 2, State::Alive)]);
        assert_ne!(one.digest(), alive(&[1, 2, 3]), "a later life");
        tell(&mut one, &[state(2, 2, State::Down), state(3, 1, State::Down)]);
        assert_eq!(one.digest(), alive(&[1]));
        tell(&mut one, &[state(1, 1, State::Down)]);
        assert_eq!(one.digest(), 0);
    }

    #[test]
    fn those_that_foca_is_being_told_of_are_counted_once() {
        let mut roster = roster(&[state(1, 1, State::Alive)]);
        for name in [1, 2, 2, 3] {
            roster.touch(name);
        }
        assert!(roster.len() == 3 && roster.is_touched(2) && !roster.knows(2));
        roster.refresh([state(1, 1, State::Alive), state(2, 1, State::Alive)].iter());
        assert!(roster.len() == 2 && roster.knows(2) && !roster.is_touched(3));
    }

    #[test]
    fn doubt_ends_with_a_life_or_its_time() {
        let secs = Duration::from_secs;
        let mut roster = roster(&[state(1, 1, State::Alive)]);
        let id = *state(1, 1, State::Alive).id();
        roster.doubt(1, secs(60));
        tell(&mut roster, &[state(1, 1, State::Suspect)]);
        assert!(roster.is_doubted(&id, secs(59)) && !roster.is_doubted(&id, secs(60)));
        tell(&mut roster, &[state(1, 2, State::Alive)]);
        let later = *state(1, 2, State::Alive).id();
        assert!(!roster.is_doubted(&id, secs(1)) && !roster.is_doubted(&later, secs(1)));
    }
}
