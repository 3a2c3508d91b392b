//! One run: members find together, write, get into trouble, and have to come out of it as promised.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use rand::rngs::SmallRng;
use rand::{RngExt as _, SeedableRng as _};
use ringkit_gossip::id::NodeId;
use ringkit_gossip::register::EntryId;
use ringkit_gossip::sim::{Options, Sim};
use ringkit_gossip::swim::State;

use crate::cell::Cell;
use crate::measure::{Figures, spread};
use crate::troubles;

/// Why a run failed.
pub(crate) type Fault = String;

/// The key that is written to.
pub(crate) const KEY: &str = "ring";
/// How often it is looked.
pub(crate) const STEP: Duration = Duration::from_millis(10);
/// How many entries are there before the trouble and are to stay.
const KEPT: usize = 10;
/// How many are there and are removed in the trouble.
const REMOVED: usize = 4;
/// Refusals that no network causes that only loses, doubles and delays: somebody sends what nobody can read.
const NEVER: [&str; 9] = [
    "malformed",
    "checksum",
    "swim_malformed",
    "swim_too_long",
    "bad_frame",
    "bad_record",
    "frame_type",
    "frame_too_long",
    "unsendable",
];

/// A run that goes on.
pub(crate) struct Run {
    pub(crate) cell: Cell,
    pub(crate) sim: Sim,
    pub(crate) random: SmallRng,
    pub(crate) figures: Figures,
    /// What is to be there at the end.
    pub(crate) kept: BTreeMap<EntryId, &'static [u8]>,
    /// What is there and may be removed.
    pub(crate) spare: Vec<EntryId>,
    /// What is to be gone at the end.
    pub(crate) removed: Vec<EntryId>,
}

/// What became of it.
pub(crate) struct Outcome {
    pub(crate) figures: Figures,
    pub(crate) trace: u64,
}

/// Says what is wrong unless this holds.
pub(crate) fn ensure(holds: bool, wrong: impl FnOnce() -> String) -> Result<(), Fault> {
    if holds { Ok(()) } else { Err(wrong()) }
}

pub(crate) fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

pub(crate) fn place(id: impl Into<String>) -> EntryId {
    EntryId::new(id.into(), 0)
}

/// Waits until all is at rest, and as it should be.
pub(crate) fn settle(sim: &mut Sim, limit: Duration, when: &str) -> Result<Duration, Fault> {
    let Some(took) = sim.run_until(Sim::is_settled, limit) else {
        return Err(format!("{when}: no rest within {limit:?}: {}", standing(sim)));
    };
    sim.check().map_err(|wrong| format!("{when}: {wrong}"))?;
    Ok(took)
}

/// Who counts a member twice, or in a life that is over.
fn ghost(sim: &Sim) -> Option<String> {
    let lives: BTreeSet<NodeId> = sim.live().map(|node| sim.node(node).id()).collect();
    sim.live().find_map(|node| {
        let members = sim.node(node).members();
        let living = members.iter().filter(|member| member.state != State::Down).map(|member| member.id);
        let mut names = BTreeSet::new();
        let mut strange = living.filter(|id| !lives.contains(id) || !names.insert(id.name));
        strange.next().map(|id| format!("member {node} counts {id:?}, which is no life, or is there twice"))
    })
}

/// How the members stand, in few words.
pub(crate) fn standing(sim: &Sim) -> String {
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    for node in sim.live() {
        let status = sim.node(node).status();
        let stands = format!("{:?}, synced {}, {} members", status.phase, status.synced, status.members);
        *counts.entry(stands).or_insert(0) += 1;
    }
    format!("{counts:?}; {:?}", sim.check().err())
}

/// Runs all of it.
pub(crate) fn run(cell: Cell, nodes: usize) -> Result<Outcome, Fault> {
    let options = Options {
        seed: cell.seed,
        nodes,
        zones: cell.zones(),
        seeds: 3,
        loss: cell.loss(),
        duplicate: 0.02,
        ..Options::default()
    };
    let mut run = Run {
        cell,
        sim: Sim::new(options).map_err(|error| error.to_string())?,
        random: SmallRng::seed_from_u64(!cell.seed),
        figures: Figures::default(),
        kept: BTreeMap::new(),
        spare: Vec::new(),
        removed: Vec::new(),
    };
    run.start_all()?;
    settle(&mut run.sim, cell.rest(), "start")?;
    run.fill()?;
    run.news("calm", 3, Duration::from_millis(300))?;
    troubles::make(&mut run)?;
    run.finish()
}

impl Run {
    pub(crate) fn settle(&mut self, when: &str) -> Result<Duration, Fault> {
        settle(&mut self.sim, self.cell.rest(), when)
    }

    /// Starts all that do not run.
    pub(crate) fn start_all(&mut self) -> Result<(), Fault> {
        self.sim.start_all().map_err(|error| error.to_string())
    }

    /// Lets a member crash if it runs, and starts it.
    pub(crate) fn restart(&mut self, node: usize) -> Result<(), Fault> {
        self.sim.restart(node).map_err(|error| error.to_string())
    }

    /// A member that lives, drawn at random.
    pub(crate) fn some(&mut self) -> usize {
        self.some_of(&[])
    }

    /// One that is none of these.
    pub(crate) fn some_of(&mut self, except: &[usize]) -> usize {
        let live: Vec<usize> = self.sim.live().filter(|node| !except.contains(node)).collect();
        live[self.random.random_range(0..live.len())]
    }

    /// So many, each another one.
    pub(crate) fn several(&mut self, many: usize) -> Vec<usize> {
        let mut drawn = Vec::new();
        for _ in 0..many {
            drawn.push(self.some_of(&drawn));
        }
        drawn
    }

    /// Writes what is to be there at the end.
    pub(crate) fn keep(&mut self, author: usize, id: impl Into<String>, body: &'static [u8]) {
        let entry = place(id);
        self.sim.write(author, KEY, &entry, Some(body));
        self.kept.insert(entry, body);
    }

    /// Removes something that is there, for good.
    pub(crate) fn remove(&mut self, by: usize) -> Result<EntryId, Fault> {
        let entry = self.spare.pop().ok_or("there is nothing left to remove")?;
        self.sim.write(by, KEY, &entry, None);
        self.removed.push(entry.clone());
        Ok(entry)
    }

    /// What is there before the trouble.
    fn fill(&mut self) -> Result<(), Fault> {
        for number in 0..KEPT {
            let author = self.some();
            self.keep(author, format!("kept-{number}"), b"kept");
        }
        for number in 0..REMOVED {
            let (author, entry) = (self.some(), place(format!("removed-{number}")));
            self.sim.write(author, KEY, &entry, Some(b"not yet"));
            self.spare.push(entry);
        }
        self.sim.run_for(Duration::from_millis(100));
        self.settle("first writes").map(drop)
    }

    /// Writes here and there while nothing but datagrams is lost, and notes how long that takes.
    pub(crate) fn news(&mut self, name: &str, writes: usize, apart: Duration) -> Result<(), Fault> {
        let limit = self.cell.at_last();
        let spread = spread(&mut self.sim, &mut self.random, name, writes, apart, limit)?;
        // Between zones less is sent, so that what is lost there takes longer.
        if self.cell.zones() == 0 {
            self.figures.news.entry(self.cell.loss).or_default().extend(spread.each);
            self.figures.all.entry(self.cell.loss).or_default().extend(spread.last);
        }
        Ok(())
    }

    /// Waits until every live member has this there.
    pub(crate) fn reaches_all(&mut self, id: &str, body: Option<&[u8]>) -> Result<(), Fault> {
        let (entry, limit) = (place(id), self.cell.at_last());
        let took = self.sim.run_until(|sim| sim.everybody_has(KEY, &entry, body), limit);
        let (having, live) = (self.sim.count_having(KEY, &entry, body), self.sim.live().count());
        ensure(took.is_some(), || format!("`{id}` is with {having} of {live} after {limit:?}"))
    }

    /// Until nobody counts a member in a life that is over: word of a new one may still be on its way.
    fn wait_for_ghosts(&mut self) -> Result<(), Fault> {
        let end = self.sim.now().saturating_add(self.cell.rest());
        while let Some(ghost) = ghost(&self.sim) {
            ensure(self.sim.now() < end, || ghost)?;
            self.sim.run_for(secs(1));
        }
        Ok(())
    }

    /// After all trouble.
    fn finish(mut self) -> Result<Outcome, Fault> {
        self.settle("end")?;
        for (entry, body) in &self.kept {
            let everywhere = self.sim.everybody_has(KEY, entry, Some(*body));
            ensure(everywhere, || format!("`{}` is not with all", entry.id))?;
        }
        for entry in &self.removed {
            ensure(self.sim.everybody_has(KEY, entry, None), || format!("`{}` came back", entry.id))?;
        }
        let live = self.sim.live().count();
        ensure(live == self.sim.nodes(), || format!("{live} members live at the end"))?;
        self.wait_for_ghosts()?;
        spread(&mut self.sim, &mut self.random, "last", 1, STEP, self.cell.at_last())?;
        self.sim.check_bounds()?;
        let refusals = self.sim.refusals();
        let bad: Vec<_> = NEVER.iter().filter(|reason| refusals.contains_key(**reason)).collect();
        ensure(bad.is_empty(), || format!("somebody sent what is {bad:?}"))?;
        Ok(Outcome { trace: self.sim.trace_hash(), figures: self.figures })
    }
}
