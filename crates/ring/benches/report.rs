//! One table of all figures of the ring: ours next to Go's way and to the goal. Criterion has the details.
//!
//! `cargo bench -p ringkit-ring --bench report`, with names of [`SUBJECTS`] to measure only those.

#[path = "common/mod.rs"]
mod common;

use common::figures::Report;
use common::rows::{Rows, SIZES, batches, codec, gets, heartbeats, joins, sets, shards, tokens};

const SUBJECTS: [(&str, Rows); 8] = [
    ("get", gets),
    ("batch", batches),
    ("sets", sets),
    ("heartbeat", heartbeats),
    ("join", joins),
    ("shard", shards),
    ("codec", codec),
    ("tokens", tokens),
];

fn main() {
    let wanted: Vec<String> = std::env::args().skip(1).filter(|arg| !arg.starts_with("--")).collect();
    let mut report = Report::default();
    Report::head();
    for (name, rows) in SUBJECTS {
        if wanted.is_empty() || wanted.iter().any(|wanted| wanted == name) {
            SIZES.into_iter().flat_map(rows).for_each(|row| report.row(row));
        }
    }
    report.foot();
}
