//! [`Rounds`]: what is known of the seeds while a member joins: whether any of them leads to somebody who has joined already.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

/// For how long it is believed that nobody is at a seed, once it matters.
const FRESH: Duration = Duration::from_secs(30);

/// Who answered at a seed. The later ones say more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Answer {
    Nobody,
    /// Somebody who has not joined.
    Unsettled,
    Settled,
}

/// What asking the seeds came to in this round, in which each is asked once.
#[derive(Debug, Default)]
pub(super) struct Rounds {
    answers: BTreeMap<SocketAddr, (Duration, Answer)>,
    /// Somebody who has not joined, and was compared with.
    candidate: Option<u64>,
}

impl Rounds {
    pub(super) fn begin(&mut self) {
        self.answers.clear();
        self.candidate = None;
    }

    /// Somebody else is at this seed.
    pub(super) fn answered(&mut self, now: Duration, seed: SocketAddr, settled: bool) {
        self.note(now, seed, if settled { Answer::Settled } else { Answer::Unsettled });
    }

    /// Asking there came to nothing. Who answered before that is known nevertheless.
    pub(super) fn failed(&mut self, now: Duration, addr: SocketAddr) {
        self.note(now, addr, Answer::Nobody);
    }

    fn note(&mut self, now: Duration, addr: SocketAddr, answer: Answer) {
        let known = self.answers.entry(addr).or_insert((now, answer));
        *known = (now, known.1.max(answer));
    }

    /// This member, which has not joined, was compared with.
    pub(super) fn compared(&mut self, now: Duration, with: u64) {
        if self.candidate.is_none() {
            // Among many dead seeds a round takes long, and whoever was not there at its beginning may be there now.
            let is_fresh = |at: Duration| now.saturating_sub(at) < FRESH;
            self.answers.retain(|_, (at, answer)| *answer != Answer::Nobody || is_fresh(*at));
        }
        self.candidate = Some(with);
    }

    pub(super) fn candidate(&self) -> Option<u64> {
        self.candidate
    }

    /// Whether it is known who is at this seed.
    pub(super) fn is_known(&self, seed: SocketAddr) -> bool {
        self.answers.contains_key(&seed)
    }

    /// Whether all of these were asked, and none leads to somebody who has joined.
    pub(super) fn is_cold(&self, seeds: &[SocketAddr]) -> bool {
        seeds.iter().all(|seed| self.answers.get(seed).is_some_and(|(_, answer)| *answer != Answer::Settled))
    }
}
