//! Clusters so large that to build them is most of the work.

use std::time::Duration;

use rand::SeedableRng as _;
use rand::rngs::SmallRng;
use ringkit_gossip::api::Config;
use ringkit_gossip::sim::{Options, Sim};

use crate::measure::spread;
use crate::run::{Fault, secs, settle, standing};

/// How many of the members are seeds of all.
const SEEDS: usize = 10;
/// How many are started at a time.
const BATCH: usize = 100;
/// What a member takes in memory for each that it knows, in bytes, with some to spare: a register, a place in three tables, and
/// what waits to be told.
const BYTES_PER_ACQUAINTANCE: usize = 1_000;

/// What was measured.
#[derive(Debug)]
pub(crate) struct Large {
    /// From the first start until all knew all.
    pub(crate) start: Duration,
    /// From a write to the last of its receivers, of each write.
    pub(crate) news: Vec<Duration>,
    /// From a crash until all knew of it.
    pub(crate) death: Duration,
}

/// That each of so many is known to each is told by all of them: by default often enough to reach all without the sessions
/// that would repair it, which takes most of the time here and is tried with fewer members.
fn terse(config: &mut Config) {
    config.swim.retransmit_factor = 2;
}

/// Members that start in batches, some news, and a crash.
pub(crate) fn run(seed: u64, nodes: usize) -> Result<Large, Fault> {
    let options =
        Options { seed, nodes, seeds: SEEDS, loss: 0.01, configure: Some(terse), ..Options::default() };
    let mut sim = Sim::new(options).map_err(|error| error.to_string())?;
    for node in 0..nodes {
        sim.start(node).map_err(|error| error.to_string())?;
        if (node + 1) % BATCH == 0 {
            sim.run_for(secs(2));
        }
    }
    settle(&mut sim, secs(300), "start")?;
    let start = sim.now();
    let mut random = SmallRng::seed_from_u64(!seed);
    let news = spread(&mut sim, &mut random, "news", 3, secs(1), secs(15))?.last;
    let slow = news.iter().find(|took| **took > secs(3));
    if let Some(slow) = slow {
        return Err(format!("news took {slow:?} to the last one"));
    }
    let victim = nodes / 2;
    sim.crash(victim);
    let Some(death) = sim.run_until(Sim::members_agree, secs(60)) else {
        return Err(format!("not all know of a death: {}", standing(&sim)));
    };
    settle(&mut sim, secs(120), "end")?;
    Ok(Large { start, news, death })
}

/// How many members there is memory for, at most so many.
pub(crate) fn fitting(most: usize) -> usize {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"));
    let kib = line.and_then(|line| line.trim().strip_suffix(" kB")?.parse::<usize>().ok());
    // Where that is not told, there may be enough.
    kib.map_or(most, |kib| (kib.saturating_mul(1024) / BYTES_PER_ACQUAINTANCE).isqrt().min(most))
}
