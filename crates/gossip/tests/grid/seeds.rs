//! Runs over many seeds, of which one that fails is named.

use std::ops::Range;
use std::time::Duration;

use crate::cell::{Cell, Trouble};
use crate::measure::Figures;
use crate::run::{Fault, run};

/// Runs that seed alone, be it in the range or not.
const SEED: &str = "RINGKIT_SEED";

fn asked_for() -> Option<u64> {
    let text = std::env::var(SEED).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{SEED} is a number, and `{text}` is none")))
}

/// All of these, or the one that is asked for.
pub(crate) fn seeds(all: impl IntoIterator<Item = u64>) -> Vec<u64> {
    asked_for().map_or_else(|| all.into_iter().collect(), |seed| vec![seed])
}

/// Panics with what is wrong, which seed it is wrong with, and how to see it again.
pub(crate) fn hold<T>(test: &str, seed: u64, what: &str, result: Result<T, Fault>) -> T {
    result.unwrap_or_else(|fault| {
        panic!(
            "{what}, seed {seed}: {fault}\n\
             this one alone: {SEED}={seed} cargo test -p ringkit-gossip --test grid -- --include-ignored {test}"
        )
    })
}

/// All seeds of the range whose trouble is one of these, or the one that is asked for if its trouble is. Nothing may be wrong,
/// and news may be late as seldom as promised.
pub(crate) fn run_all(test: &str, nodes: usize, range: Range<u64>, troubles: &[Trouble]) -> Figures {
    let mut figures = Figures::default();
    for cell in seeds(range).into_iter().map(Cell::of).filter(|cell| troubles.contains(&cell.trouble)) {
        let what = format!("{nodes} members, {cell}");
        figures.add(hold(test, cell.seed, &what, run(cell, nodes)).figures);
    }
    // Of one run nothing can be said.
    if asked_for().is_none() {
        for (loss, took) in &figures.news {
            let soon = Cell { seed: 0, trouble: Trouble::Calm, loss: *loss }.soon();
            assert_soon(&format!("{test}: news at {loss} % loss"), took, soon);
        }
        for (loss, took) in &figures.leaves {
            // In less than a second, where not much is lost.
            let soon = Duration::from_secs(if *loss > 10 { 5 } else { 1 });
            assert_soon(&format!("{test}: leaves at {loss} % loss"), took, soon);
        }
    }
    figures
}

/// Of what took longer than it should, there is at most one in a hundred.
fn assert_soon(what: &str, took: &[Duration], soon: Duration) {
    let (late, all) = (took.iter().filter(|took| **took > soon).count(), took.len());
    assert!(late * 100 <= all, "{what}: {late} of {all} took more than {soon:?}");
}
