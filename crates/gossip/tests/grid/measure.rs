//! How long things take, and how that is told.

use std::collections::BTreeMap;
use std::iter::repeat_n;
use std::time::Duration;

use rand::RngExt as _;
use rand::rngs::SmallRng;
use ringkit_gossip::register::EntryId;
use ringkit_gossip::sim::Sim;

use crate::run::{Fault, KEY, STEP};

/// What a piece of news says.
const NEWS: &[u8] = b"about as many bytes as an address, a zone, a state and a few numbers";

/// What was measured in one run or in many, by the loss in percent.
#[derive(Debug, Default)]
pub(crate) struct Figures {
    /// From a write to each of its receivers, while nothing but datagrams was lost.
    pub(crate) news: BTreeMap<u32, Vec<Duration>>,
    /// From a write to the last of its receivers.
    pub(crate) all: BTreeMap<u32, Vec<Duration>>,
    /// From a crash until all knew of it.
    pub(crate) deaths: BTreeMap<u32, Vec<Duration>>,
    /// From the end of a partition until all knew all.
    pub(crate) reunions: BTreeMap<u32, Vec<Duration>>,
    /// From the first who knew that a member had left to each of the others.
    pub(crate) leaves: BTreeMap<u32, Vec<Duration>>,
    /// Members taken for dead though they lived, run by run.
    pub(crate) false_deaths: BTreeMap<u32, Vec<u64>>,
}

impl Figures {
    pub(crate) fn add(&mut self, other: Self) {
        let Self { news, all, deaths, reunions, leaves, false_deaths } = other;
        for (ours, theirs) in [
            (&mut self.news, news),
            (&mut self.all, all),
            (&mut self.deaths, deaths),
            (&mut self.reunions, reunions),
            (&mut self.leaves, leaves),
        ] {
            for (loss, mut more) in theirs {
                ours.entry(loss).or_default().append(&mut more);
            }
        }
        for (loss, mut more) in false_deaths {
            self.false_deaths.entry(loss).or_default().append(&mut more);
        }
    }

    /// A line for each of what there is.
    pub(crate) fn lines(&self) -> Vec<String> {
        let mut lines = Vec::new();
        for (what, figures) in [
            ("news, each receiver", &self.news),
            ("news, all receivers", &self.all),
            ("death known by all", &self.deaths),
            ("reunion", &self.reunions),
            ("leave, each of the others", &self.leaves),
        ] {
            lines.extend(figures.iter().map(|(loss, took)| format!("{what}, {loss} % loss: {}", told(took))));
        }
        for (loss, counts) in &self.false_deaths {
            let (most, sum) = (counts.iter().max().copied().unwrap_or(0), counts.iter().sum::<u64>());
            lines
                .push(format!("false deaths, {loss} % loss: {sum} in {} runs, at most {most}", counts.len()));
        }
        lines
    }
}

/// The part of what there is, in order, that this much of a hundred is below.
pub(crate) fn percentile(took: &[Duration], percent: usize) -> Duration {
    let mut sorted = took.to_vec();
    sorted.sort_unstable();
    let place = (sorted.len() * percent).div_ceil(100).saturating_sub(1);
    sorted.get(place).copied().unwrap_or_default()
}

/// Median, 99 of a hundred, and worst.
pub(crate) fn told(took: &[Duration]) -> String {
    let [median, most, worst] = [50, 99, 100].map(|percent| percentile(took, percent).as_secs_f64());
    format!("{median:.2} / {most:.2} / {worst:.2} s of {}", took.len())
}

/// How long some writes were under way.
#[derive(Debug, Default)]
pub(crate) struct Spread {
    /// To each receiver.
    pub(crate) each: Vec<Duration>,
    /// To the last receiver, of each write.
    pub(crate) last: Vec<Duration>,
}

/// A write that has not reached all.
struct Open {
    entry: EntryId,
    at: Duration,
    lacking: Vec<usize>,
}

/// Lets members drawn at random write, every `apart`, and waits until all others that live have it.
pub(crate) fn spread(
    sim: &mut Sim,
    random: &mut SmallRng,
    name: &str,
    writes: usize,
    apart: Duration,
    limit: Duration,
) -> Result<Spread, Fault> {
    let mut spread = Spread::default();
    let (mut open, mut written, mut next_at) = (Vec::new(), 0, sim.now());
    while written < writes || !open.is_empty() {
        if written < writes && sim.now() >= next_at {
            let mut lacking: Vec<usize> = sim.live().collect();
            let author = lacking.remove(random.random_range(0..lacking.len()));
            let entry = EntryId::new(format!("{name}-{written}"), 0);
            sim.write(author, KEY, &entry, Some(NEWS));
            open.push(Open { entry, at: sim.now(), lacking });
            written += 1;
            next_at += apart;
        }
        sim.run_for(STEP);
        for Open { entry, at, lacking } in &mut open {
            let (took, before) = (sim.now().saturating_sub(*at), lacking.len());
            lacking.retain(|node| !sim.has(*node, KEY, entry, Some(NEWS)));
            spread.each.extend(repeat_n(took, before - lacking.len()));
            if lacking.is_empty() {
                spread.last.push(took);
            } else if took > limit {
                return Err(format!("`{}` is not with {lacking:?} after {limit:?}", entry.id));
            }
        }
        open.retain(|write| !write.lacking.is_empty());
    }
    Ok(spread)
}
