//! Who reaches whom, how soon and how surely; and all chance, so that one seed decides all of it.

use std::collections::BTreeSet;
use std::time::Duration;

use rand::rngs::SmallRng;
use rand::{RngExt as _, SeedableRng as _};

/// What a lost segment of a stream costs until it is sent again.
const RETRANSMISSION: Duration = Duration::from_millis(200);
/// How often that happens to a segment at most.
const MAX_RETRANSMISSIONS: u32 = 5;

/// The links between all members.
#[derive(Debug)]
pub(super) struct Links {
    latency: (Duration, Duration),
    pub(super) loss: f64,
    pub(super) duplicate: f64,
    /// Which side of a partition each member is on.
    groups: Vec<usize>,
    /// Links that carry nothing in this direction.
    cuts: BTreeSet<(usize, usize)>,
    random: SmallRng,
}

impl Links {
    pub(super) fn new(seed: u64, nodes: usize, latency: (Duration, Duration)) -> Self {
        Self {
            latency,
            loss: 0.0,
            duplicate: 0.0,
            groups: vec![0; nodes],
            cuts: BTreeSet::new(),
            random: SmallRng::seed_from_u64(seed),
        }
    }

    pub(super) fn number(&mut self) -> u64 {
        self.random.random()
    }

    /// A number between these, both included.
    pub(super) fn between(&mut self, least: i64, most: i64) -> i64 {
        if least < most { self.random.random_range(least..=most) } else { least }
    }

    pub(super) fn happens(&mut self, probability: f64) -> bool {
        probability > 0.0 && self.random.random_bool(probability.min(1.0))
    }

    /// How long a message is under way: drawn for each, so later ones may overtake.
    pub(super) fn delay(&mut self) -> Duration {
        let (least, most) = self.latency;
        let spread = u64::try_from(most.saturating_sub(least).as_nanos()).unwrap_or(u64::MAX);
        if spread == 0 {
            return least;
        }
        least + Duration::from_nanos(self.random.random_range(0..=spread))
    }

    /// As [`delay`](Self::delay) in a stream, where what is lost is sent again.
    pub(super) fn stream_delay(&mut self) -> Duration {
        let mut delay = self.delay();
        for _ in 0..MAX_RETRANSMISSIONS {
            if !self.happens(self.loss) {
                break;
            }
            delay += RETRANSMISSION;
        }
        delay
    }

    pub(super) fn is_open(&self, from: usize, to: usize) -> bool {
        self.groups[from] == self.groups[to] && (self.cuts.is_empty() || !self.cuts.contains(&(from, to)))
    }

    pub(super) fn group(&self, node: usize) -> usize {
        self.groups[node]
    }

    /// Those named in no group are on the side of the first.
    pub(super) fn partition(&mut self, groups: &[Vec<usize>]) {
        self.groups.fill(0);
        for (group, members) in groups.iter().enumerate() {
            for member in members {
                self.groups[*member] = group;
            }
        }
    }

    pub(super) fn cut(&mut self, from: usize, to: usize) {
        self.cuts.insert((from, to));
    }

    pub(super) fn heal(&mut self) {
        self.groups.fill(0);
        self.cuts.clear();
    }

    pub(super) fn is_partitioned(&self) -> bool {
        self.groups.iter().any(|group| *group != 0)
    }
}
