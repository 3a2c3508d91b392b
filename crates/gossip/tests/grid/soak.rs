//! The long versions, which say what they measured.

#![expect(clippy::print_stderr, reason = "a soak says what it measured")]

use std::time::Instant;

use crate::cell::TROUBLES;
use crate::measure::{Figures, told};
use crate::seeds::{hold, run_all, seeds};
use crate::{large, table};

fn tell(what: &str, figures: &Figures, began: Instant) {
    eprintln!("{what}, in {:.0?}; median / 99 of 100 / worst:", began.elapsed());
    for line in figures.lines() {
        eprintln!("  {line}");
    }
}

#[test]
#[ignore = "soak"]
fn soak_fifty_members_on_a_thousand_seeds() {
    let began = Instant::now();
    let figures = run_all("soak_fifty_members_on_a_thousand_seeds", 50, 0..1_000, &TROUBLES);
    tell("50 members, 1000 seeds", &figures, began);
}

#[test]
#[ignore = "soak"]
fn soak_five_hundred_members_on_fifty_seeds() {
    let began = Instant::now();
    let figures = run_all("soak_five_hundred_members_on_fifty_seeds", 500, 0..50, &TROUBLES);
    tell("500 members, 50 seeds", &figures, began);
}

/// Everybody knows everybody, so what this takes grows with the square of the number of members, and the time with its cube:
/// with less memory there are fewer. `RINGKIT_NODES` says how many there are at most.
#[test]
#[ignore = "soak"]
fn soak_ten_thousand_members() {
    let asked = std::env::var("RINGKIT_NODES").ok().map(|text| text.parse().unwrap());
    let nodes = large::fitting(asked.unwrap_or(10_000));
    for seed in seeds(0..1) {
        let began = Instant::now();
        eprintln!("{nodes} members");
        let measured = hold("soak_ten_thousand_members", seed, "many members", large::run(seed, nodes));
        eprintln!(
            "  all know all after {:.1?}, news to all {}, death known by all after {:.1?}; took {:.0?}",
            measured.start,
            told(&measured.news),
            measured.death,
            began.elapsed()
        );
    }
}

/// What the simulator says to each line of the table of targets.
#[test]
#[ignore = "soak"]
fn soak_table() {
    for (what, row) in table::ROWS {
        let began = Instant::now();
        let text = hold("soak_table", 0, what, row());
        eprintln!("{what}: {text}   (in {:.1?})", began.elapsed());
    }
}
