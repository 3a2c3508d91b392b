//! Who seals and who does not, as far as it is known, while a cluster begins to seal.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use super::stream::{Manner, Stream};
use crate::time::Now;

/// Of how many addresses something is known.
const MAX_KNOWN: usize = 20_000;
/// How long after its last sealed word somebody who speaks in clear is taken to have lost the key. Those who have it say everything
/// twice at first, in any order.
const LOST_AFTER: Duration = Duration::from_secs(60);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Habit {
    /// Last at this monotonic time.
    Seals(Duration),
    Clear,
}

/// What is known of others. Anybody who can forge an address can make it wrong, as anybody can join as long as it is used.
#[derive(Debug, Default)]
pub(super) struct Habits {
    known: BTreeMap<SocketAddr, Habit>,
}

impl Habits {
    /// Whether this one surely opens what is sealed.
    pub(super) fn seals(&self, addr: SocketAddr) -> bool {
        matches!(self.known.get(&addr), Some(Habit::Seals(_)))
    }

    /// Whether this one is likelier to understand a stream that is not sealed.
    pub(super) fn is_clear(&self, addr: SocketAddr) -> bool {
        self.known.get(&addr) == Some(&Habit::Clear)
    }

    /// Something of this one was opened.
    pub(super) fn sealed(&mut self, now: Now, addr: SocketAddr) {
        self.note(addr, Habit::Seals(now.mono));
    }

    /// Something of this one came in clear.
    pub(super) fn spoke_clear(&mut self, now: Now, addr: SocketAddr) {
        match self.known.get(&addr) {
            Some(Habit::Seals(at)) if now.mono < at.saturating_add(LOST_AFTER) => (),
            _ => self.note(addr, Habit::Clear),
        }
    }

    /// A stream was closed by the other end.
    pub(super) fn ended(&mut self, stream: &Stream) {
        let Some(to) = stream.to.filter(|_| !stream.heard) else { return };
        // Who says nothing at all may not have understood: the next one is tried in the other manner.
        match (&stream.manner, self.known.get(&to)) {
            (Manner::Sealed(_), None) => self.note(to, Habit::Clear),
            (Manner::Clear, Some(Habit::Clear)) => {
                self.known.remove(&to);
            }
            _ => (),
        }
    }

    fn note(&mut self, addr: SocketAddr, habit: Habit) {
        // Of whom nothing is known is spoken to in both manners, so it does not matter much who is forgotten.
        if self.known.len() >= MAX_KNOWN && !self.known.contains_key(&addr) {
            self.known.pop_first();
        }
        self.known.insert(addr, habit);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(secs: u64) -> Now {
        Now { mono: Duration::from_secs(secs), wall_ms: 0 }
    }

    fn addr(number: u32) -> SocketAddr {
        SocketAddr::from((number.to_be_bytes(), 7946))
    }

    #[test]
    fn who_seals_is_not_taken_to_have_lost_the_key_at_once() {
        let mut habits = Habits::default();
        habits.spoke_clear(at(1), addr(1));
        assert!(habits.is_clear(addr(1)));
        habits.sealed(at(10), addr(1));
        habits.spoke_clear(at(69), addr(1));
        assert!(habits.seals(addr(1)) && !habits.is_clear(addr(1)));
        habits.spoke_clear(at(70), addr(1));
        assert!(!habits.seals(addr(1)) && habits.is_clear(addr(1)));
    }

    #[test]
    fn who_answers_nothing_is_asked_in_the_other_manner() {
        let mut habits = Habits::default();
        let sealed = || Manner::Sealed(Box::new(super::super::stream::Sealed::accept()));
        let silent = |manner| Stream { manner, ..Stream::asked(addr(1)) };
        for _ in 0..2 {
            habits.ended(&silent(sealed()));
            assert!(habits.is_clear(addr(1)));
            habits.ended(&silent(Manner::Clear));
            assert!(!habits.is_clear(addr(1)) && !habits.seals(addr(1)));
        }
        // One that was not spoken on, or that came in, says nothing.
        habits.ended(&silent(Manner::Unknown));
        habits.ended(&Stream { manner: sealed(), ..Stream::accepted() });
        habits.ended(&Stream { heard: true, ..silent(sealed()) });
        assert!(!habits.is_clear(addr(1)));
        // Nor does one of somebody who is known to seal: there may have been too many.
        habits.sealed(at(1), addr(1));
        habits.ended(&silent(sealed()));
        assert!(habits.seals(addr(1)));
    }

    #[test]
    fn no_more_are_known_than_there_may_be() {
        let mut habits = Habits::default();
        for number in 0..30_000 {
            habits.spoke_clear(at(1), addr(number));
            assert!(habits.is_clear(addr(number)));
        }
        assert_eq!(habits.known.len(), MAX_KNOWN);
    }
}
