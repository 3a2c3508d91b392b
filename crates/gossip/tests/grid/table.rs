//! The figures of the design that a simulated network can tell, one function for each line. Latencies are 1 to 50 ms.

use std::time::Duration;

use rand::SeedableRng as _;
use rand::rngs::SmallRng;
use ringkit_gossip::register::EntryId;
use ringkit_gossip::sim::{Options, Sim};

use crate::cell::{Cell, Trouble};
use crate::measure::{Spread, spread, told};
use crate::run::{Fault, KEY, secs, settle};

/// What UDP and IP add to a datagram, in bytes.
const HEADERS: u64 = 28;

type Row = fn() -> Result<String, Fault>;

pub(crate) const ROWS: [(&str, Row); 15] = [
    ("one update, 50 members, no loss", || news(50, 0.0)),
    ("one update, 50 members, 1 % loss", || news(50, 0.01)),
    ("one update, 50 members, 30 % loss", || news(50, 0.3)),
    ("one update, 500 members, 1 % loss", || news(500, 0.01)),
    ("one update, 500 members, 30 % loss", || news(500, 0.3)),
    ("one update, 2000 members, 1 % loss", || news(2_000, 0.01)),
    ("bytes out per member, 100 members of 128 tokens, heartbeat 5 s", ring),
    ("idle bytes out per member, 50 members", idle),
    ("death known by all, 50 members", || deaths(50, 10)),
    ("death known by all, 500 members", || deaths(500, 4)),
    ("false deaths in 2 min, 50 members, 10 % loss", || false_deaths(10)),
    ("false deaths in 2 min, 50 members, 30 % loss", || false_deaths(30)),
    ("halves apart for 60 s, 50 members", reunion),
    ("between zones, 99 members in 3 zones, 1 % loss", zones),
    ("heartbeats between zones, 99 members in 3 zones, 1 % loss", zones_beating),
];

fn settled(options: Options) -> Result<Sim, Fault> {
    let mut sim = Sim::new(options).map_err(|error| error.to_string())?;
    sim.start_all().map_err(|error| error.to_string())?;
    settle(&mut sim, secs(300), "start")?;
    // Of the start nothing is to be on its way any more.
    sim.run_for(secs(60));
    Ok(sim)
}

fn some(seed: u64, nodes: usize) -> Options {
    Options { seed, nodes, seeds: 3, ..Options::default() }
}

fn news(nodes: usize, loss: f64) -> Result<String, Fault> {
    let mut sim = settled(some(1, nodes))?;
    sim.set_loss(loss);
    let mut random = SmallRng::seed_from_u64(1);
    let writes = if nodes > 1_000 { 20 } else { 90 };
    let Spread { each, last } = spread(&mut sim, &mut random, "news", writes, secs(1), secs(60))?;
    Ok(format!("each receiver {}; all receivers {}", told(&each), told(&last)))
}

/// All that all members sent, with headers of datagrams.
fn sent(sim: &Sim) -> u64 {
    let all = (0..sim.nodes()).map(|node| sim.sent(node));
    all.map(|sent| sent.datagram_bytes + sent.datagrams * HEADERS + sent.stream_bytes).sum()
}

fn per_member(sim: &Sim, bytes: u64, time: Duration) -> String {
    let seconds = time.as_secs().max(1) * u64::try_from(sim.nodes()).unwrap();
    format!("{} B/s", bytes / seconds)
}

fn idle() -> Result<String, Fault> {
    let (mut sim, time) = (settled(some(2, 50))?, secs(300));
    let before = sent(&sim);
    sim.run_for(time);
    Ok(format!("{} with headers of UDP and IP", per_member(&sim, sent(&sim) - before, time)))
}

/// What an instance of a ring has: who it is, its tokens, and heartbeats.
fn ring() -> Result<String, Fault> {
    let nodes = 100;
    let mut sim = settled(some(3, nodes))?;
    let entry = |node: usize, facet| EntryId::new(format!("instance-{node}"), facet);
    for node in 0..nodes {
        sim.write(node, KEY, &entry(node, 0), Some(&[1; 60]));
        sim.write(node, KEY, &entry(node, 1), Some(&[2; 512]));
        sim.write(node, KEY, &entry(node, 2), Some(&[0; 12]));
    }
    sim.run_for(secs(30));
    settle(&mut sim, secs(60), "instances")?;
    let (before, time) = (sent(&sim), secs(60));
    // One after the other, each every five seconds.
    for round in 0..time.as_millis() / 50 {
        let node = usize::try_from(round).unwrap() % nodes;
        let beat = u64::try_from(round).unwrap();
        let body = [&beat.to_le_bytes()[..], &[0; 4]].concat();
        sim.write(node, KEY, &entry(node, 2), Some(&body));
        sim.run_for(Duration::from_millis(50));
    }
    Ok(format!("{} with headers of UDP and IP", per_member(&sim, sent(&sim) - before, time)))
}

fn deaths(nodes: usize, runs: u64) -> Result<String, Fault> {
    let mut took = Vec::new();
    for seed in 0..runs {
        let mut sim = settled(Options { loss: 0.01, ..some(seed, nodes) })?;
        sim.crash(nodes / 2);
        let death = sim.run_until(Sim::members_agree, secs(60));
        took.push(death.ok_or("not all know of a death")?);
    }
    Ok(told(&took))
}

fn false_deaths(loss: u32) -> Result<String, Fault> {
    let mut counts = Vec::new();
    for seed in 0..20 {
        let cell = Cell { seed, trouble: Trouble::Calm, loss };
        counts.push(crate::false_deaths(cell, 50)?);
    }
    let most = counts.iter().max().copied().unwrap_or(0);
    Ok(format!("{} in {} runs, at most {most}", counts.iter().sum::<u64>(), counts.len()))
}

fn reunion() -> Result<String, Fault> {
    let mut took = Vec::new();
    for seed in 0..10 {
        let mut sim = settled(Options { loss: 0.01, ..some(seed, 50) })?;
        sim.partition(&[(0..25).collect(), (25..50).collect()]);
        sim.run_for(secs(60));
        sim.heal();
        let all = sim.run_until(Sim::is_settled, secs(180));
        took.push(all.ok_or("not all know all again")?);
    }
    Ok(told(&took))
}

/// How much of it goes from zone to zone where there is nothing but heartbeats.
fn zones_beating() -> Result<String, Fault> {
    let nodes = 99;
    let mut sim = settled(Options { zones: 3, loss: 0.01, ..some(5, nodes) })?;
    let entry = |node: usize, facet| EntryId::new(format!("instance-{node}"), facet);
    for node in 0..nodes {
        sim.write(node, KEY, &entry(node, 0), Some(&[1; 60]));
        sim.write(node, KEY, &entry(node, 2), Some(&[0; 12]));
    }
    sim.run_for(secs(30));
    settle(&mut sim, secs(60), "instances")?;
    let before = [false, true].map(|between| sim.traffic(between).kv_bytes);
    for beat in 0..1_200_u64 {
        let node = usize::try_from(beat).unwrap() % nodes;
        let body = [&beat.to_le_bytes()[..], &[0; 4]].concat();
        sim.write(node, KEY, &entry(node, 2), Some(&body));
        sim.run_for(Duration::from_millis(50));
    }
    let [within, between] = [0_usize, 1].map(|place| sim.traffic(place == 1).kv_bytes - before[place]);
    let percent = between * 100 / (between + within).max(1);
    if percent > 10 {
        return Err(format!("{percent} % of the bytes of registers go between zones"));
    }
    Ok(format!("{percent} % of the bytes of registers in datagrams"))
}

/// How much of what is about registers goes from zone to zone, while something is written all the time.
fn zones() -> Result<String, Fault> {
    let mut sim = settled(Options { zones: 3, loss: 0.01, ..some(4, 99) })?;
    let before = [false, true].map(|between| sim.traffic(between));
    let mut random = SmallRng::seed_from_u64(4);
    let Spread { each, last } =
        spread(&mut sim, &mut random, "news", 120, Duration::from_millis(500), secs(60))?;
    let after = [false, true].map(|between| sim.traffic(between));
    let [[within, streams_within], [between, streams_between]] = [0_usize, 1].map(|place| {
        let (before, after) = (before[place], after[place]);
        [after.kv_bytes - before.kv_bytes, after.stream_bytes - before.stream_bytes]
    });
    let percent = |part: u64, rest: u64| part * 100 / (part + rest).max(1);
    Ok(format!(
        "{} % of the bytes of registers in datagrams, {} % with streams; each receiver {}, all receivers {}",
        percent(between, within),
        percent(between + streams_between, within + streams_within),
        told(&each),
        told(&last)
    ))
}
