//! What is remembered of those whose datagrams were opened: their keys, and which datagrams these were.

use std::collections::BTreeMap;
use std::fmt;

use ring::aead::LessSafeKey;

use super::Print;

/// How many sessions an [`Opener`](super::Opener) remembers. The one that was longest unused is forgotten first.
///
/// A session that changes its key counts twice until then.
pub const MAX_SESSIONS: usize = 4_096;
/// How far behind the latest datagram of its session another may come.
pub const REPLAY_WINDOW: u64 = 1_024;

const WORDS: usize = (REPLAY_WINDOW / 64) as usize;

/// A session, and which of the cluster's keys it seals with.
///
/// Each key has a window of its own: otherwise who stole a key could, with one datagram from the end of a session's window,
/// silence that session for ever, even when the key was removed.
pub(super) type Place = (u64, Print);

#[derive(Default)]
pub(super) struct Sessions {
    known: BTreeMap<Place, Known>,
    /// By when they were last used, so that which one is forgotten depends on nothing else.
    by_use: BTreeMap<u64, Place>,
    uses: u64,
}

struct Known {
    key: LessSafeKey,
    window: Window,
    used: u64,
}

impl Sessions {
    pub(super) fn len(&self) -> usize {
        self.known.len()
    }

    /// What this session's datagrams are opened with, and which of them were.
    pub(super) fn get(&self, place: Place) -> Option<(&LessSafeKey, &Window)> {
        self.known.get(&place).map(|known| (&known.key, &known.window))
    }

    /// Remembers that a datagram was opened, with a new key if the place is new. To be told only of genuine ones: so nobody
    /// without a key of the cluster takes room from those who have one, or moves a window.
    pub(super) fn opened(&mut self, place: Place, counter: u64, new_key: Option<LessSafeKey>) {
        self.uses = self.uses.wrapping_add(1);
        if let Some(key) = new_key {
            self.make_room();
            let known = Known { key, window: Window::starting_with(counter), used: self.uses };
            self.known.insert(place, known);
        } else if let Some(known) = self.known.get_mut(&place) {
            known.window.add(counter);
            self.by_use.remove(&known.used);
            known.used = self.uses;
        }
        self.by_use.insert(self.uses, place);
    }

    fn make_room(&mut self) {
        while self.known.len() >= MAX_SESSIONS {
            let Some((_, place)) = self.by_use.pop_first() else { return };
            self.known.remove(&place);
        }
    }
}

impl fmt::Debug for Sessions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sessions").field("len", &self.len()).finish_non_exhaustive()
    }
}

/// The latest counters of a session, up to [`REPLAY_WINDOW`] behind the largest.
#[derive(Clone, Debug)]
pub(super) struct Window {
    largest: u64,
    /// A bit for every counter of the window, at the place that its lower bits name.
    seen: [u64; WORDS],
}

impl Window {
    pub(super) fn starting_with(counter: u64) -> Self {
        let mut window = Self { largest: counter, seen: [0; WORDS] };
        window.add(counter);
        window
    }

    /// Whether it is known that `counter` was not there yet.
    pub(super) fn is_new(&self, counter: u64) -> bool {
        if counter > self.largest {
            return true;
        }
        let (word, bit) = bit_of(counter);
        self.largest - counter < REPLAY_WINDOW && self.seen[word] & bit == 0
    }

    /// Takes a counter that is new, and moves on to it if it is the largest.
    pub(super) fn add(&mut self, counter: u64) {
        if counter.saturating_sub(self.largest) >= REPLAY_WINDOW {
            self.seen = [0; WORDS];
        } else {
            // Their places are those of counters that fall out of the window.
            for skipped in self.largest.saturating_add(1)..=counter {
                let (word, bit) = bit_of(skipped);
                self.seen[word] &= !bit;
            }
        }
        self.largest = self.largest.max(counter);
        let (word, bit) = bit_of(counter);
        self.seen[word] |= bit;
    }
}

fn bit_of(counter: u64) -> (usize, u64) {
    let at = counter % REPLAY_WINDOW;
    ((at / 64) as usize, 1 << (at % 64))
}
