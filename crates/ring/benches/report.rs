//! One table of all figures of the ring: ours next to Go's way and to the goal. Criterion has the details.
//!
//! `cargo bench -p ringkit-ring --bench report`, with parts of figures' names to measure only those.

#[path = "common/mod.rs"]
mod common;

use common::figures::Report;
use common::rows::{Rows, SIZES, batches, codec, gets, heartbeats, joins, sets, shards, tokens};

fn main() {
    let wanted: Vec<String> = std::env::args().skip(1).filter(|arg| !arg.starts_with("--")).collect();
    let is_wanted = |figure: &str| wanted.is_empty() || wanted.iter().any(|part| figure.contains(part));
    let subjects: [Rows; 8] = [gets, batches, sets, heartbeats, joins, shards, codec, tokens];
    let mut report = Report::default();
    Report::head();
    for subject in subjects {
        for instances in SIZES {
            subject(instances)
                .into_iter()
                .filter(|row| is_wanted(row.figure))
                .for_each(|row| report.row(row));
        }
    }
    report.foot();
}
