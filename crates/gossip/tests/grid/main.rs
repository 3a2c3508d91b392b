//! The grid: clusters in a simulated network, over many seeds, each with its own loss and trouble, and what must hold for all.
//!
//! Promised is that news reaches all in time, that all have the same once nobody writes, that what was removed stays removed,
//! that a wrong clock harms only what its member writes, that partitions, restarts and leaves end well by themselves, and that
//! hardly anybody is taken for dead who lives. What a seed leads to is in [`cell`]; a seed that fails is named, and can be run
//! alone. Long versions, and the figures, are soaks.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod cell;
mod large;
mod measure;
mod run;
mod seeds;
mod soak;
mod table;
mod troubles;

use std::time::Duration;

use ringkit_gossip::api::Config;
use ringkit_gossip::sim::{Options, Sim};

use cell::{CELLS, Cell, Trouble};
use run::{Fault, KEY, ensure, place, run, secs, settle};
use seeds::{hold, run_all, seeds};

/// Each trouble three times with each loss.
const SEEDS: u64 = 3 * CELLS;

#[test]
fn fifty_members_hear_of_each_other_in_time() {
    let troubles = [Trouble::Calm, Trouble::OneWay, Trouble::Leave];
    run_all("fifty_members_hear_of_each_other_in_time", 50, 0..SEEDS, &troubles);
}

#[test]
fn fifty_members_survive_partitions() {
    let troubles = [Trouble::Halves, Trouble::One, Trouble::Zone];
    run_all("fifty_members_survive_partitions", 50, 0..SEEDS, &troubles);
}

#[test]
fn fifty_members_survive_crashes_restarts_and_pauses() {
    let troubles = [Trouble::Crash, Trouble::Restart, Trouble::Pause];
    run_all("fifty_members_survive_crashes_restarts_and_pauses", 50, 0..SEEDS, &troubles);
}

#[test]
fn fifty_members_survive_wrong_clocks_and_chaos() {
    let troubles = [Trouble::ClockAhead, Trouble::ClockBehind, Trouble::Chaos];
    run_all("fifty_members_survive_wrong_clocks_and_chaos", 50, 0..SEEDS, &troubles);
}

/// How many live members are taken for dead in two minutes.
#[test]
fn fifty_members_take_hardly_anybody_for_dead_who_lives() {
    for seed in seeds(0..6) {
        let loss = if seed % 2 == 0 { 10 } else { 30 };
        let cell = Cell { seed, trouble: Trouble::Calm, loss };
        let test = "fifty_members_take_hardly_anybody_for_dead_who_lives";
        let counted = false_deaths(cell, 50).and_then(|deaths| {
            ensure(deaths <= cell.false_deaths(), || format!("{deaths} members were taken for dead"))
        });
        hold(test, seed, &format!("50 members, {cell}"), counted);
    }
}

/// Idle members for two minutes; how many count for dead though they live.
fn false_deaths(cell: Cell, nodes: usize) -> Result<u64, Fault> {
    let options = Options { seed: cell.seed, nodes, seeds: 3, ..Options::default() };
    let mut sim = Sim::new(options).map_err(|error| error.to_string())?;
    sim.start_all().map_err(|error| error.to_string())?;
    settle(&mut sim, cell.rest(), "start")?;
    sim.run_for(secs(30));
    sim.set_loss(cell.loss());
    let before = sim.false_deaths();
    sim.run_for(secs(120));
    Ok(sim.false_deaths() - before)
}

#[test]
fn five_hundred_members_come_out_of_trouble_too() {
    let test = "five_hundred_members_come_out_of_trouble_too";
    for seed in seeds(0..3) {
        let (trouble, loss) = [(Trouble::Crash, 10), (Trouble::Halves, 0), (Trouble::Leave, 30)]
            [usize::try_from(seed % 3).unwrap()];
        let cell = Cell { seed, trouble, loss };
        hold(test, seed, &format!("500 members, {cell}"), run(cell, 500));
    }
}

/// Takes about three gigabytes.
#[test]
fn two_thousand_members_find_together() {
    for seed in seeds(0..1) {
        hold("two_thousand_members_find_together", seed, "2000 members", large::run(seed, 2_000));
    }
}

#[test]
fn one_seed_leads_to_one_trace() {
    let traced = |seed| {
        let cell = Cell::of(seed);
        hold("one_seed_leads_to_one_trace", seed, &format!("20 members, {cell}"), run(cell, 20)).trace
    };
    let mut traces = Vec::new();
    // Halves at no loss, and chaos at a tenth.
    for seed in seeds([1, 23]) {
        let trace = traced(seed);
        assert_eq!(trace, traced(seed), "seed {seed} leads to something else the second time");
        assert!(!traces.contains(&trace), "two seeds lead to the same");
        traces.push(trace);
    }
}

/// What is removed is remembered for this long here.
const HORIZON: Duration = Duration::from_secs(120);

fn forgetful(config: &mut Config) {
    config.limits.tombstone_horizon = HORIZON;
}

#[test]
fn what_was_removed_does_not_come_back_from_those_who_were_away_too_long() {
    let test = "what_was_removed_does_not_come_back_from_those_who_were_away_too_long";
    for seed in seeds(0..4) {
        // One member alone, or as many as there are on the other side.
        let cut_off = if seed % 2 == 0 { 1 } else { 10 };
        hold(test, seed, &format!("{cut_off} away"), removed_long_ago(seed, cut_off));
    }
}

fn removed_long_ago(seed: u64, cut_off: usize) -> Result<(), Fault> {
    let options =
        Options { seed, nodes: 20, seeds: 3, loss: 0.01, configure: Some(forgetful), ..Options::default() };
    let mut sim = Sim::new(options).map_err(|error| error.to_string())?;
    sim.start_all().map_err(|error| error.to_string())?;
    settle(&mut sim, secs(120), "start")?;
    let (kept, removed) = (place("kept"), place("removed"));
    sim.write(0, KEY, &kept, Some(b"kept"));
    sim.write(1, KEY, &removed, Some(b"removed"));
    sim.run_for(secs(5));
    settle(&mut sim, secs(60), "writes")?;
    let away: Vec<usize> = (20 - cut_off..20).collect();
    sim.partition(&[(0..20 - cut_off).collect(), away.clone()]);
    sim.run_for(secs(5));
    sim.write(0, KEY, &removed, None);
    sim.run_for(HORIZON + secs(20));
    let forgotten = (0..20 - cut_off).all(|node| sim.node(node).store().get(KEY, &removed).is_none());
    ensure(forgotten, || "somebody remembers what was removed longer than the horizon".to_owned())?;
    for node in away {
        ensure(sim.has(node, KEY, &removed, Some(b"removed")), || format!("{node} heard of it"))?;
    }
    sim.heal();
    settle(&mut sim, secs(120), "after")?;
    ensure(sim.everybody_has(KEY, &removed, None), || "it came back".to_owned())?;
    ensure(sim.everybody_has(KEY, &kept, Some(b"kept")), || "what was kept is gone".to_owned())?;
    sim.run_for(secs(60));
    settle(&mut sim, secs(120), "later")?;
    ensure(sim.everybody_has(KEY, &removed, None), || "it came back later".to_owned())
}
