//! What rings take of memory, ours next to Go's way: as they stay, and at the peak of a change.
//!
//! `cargo bench -p ringkit-ring --bench memory`. Apart from the report, because counting replaces the allocator.

#![allow(
    clippy::expect_used,
    clippy::print_stdout,
    reason = "a benchmark stops at what is wrong with it, and prints"
)]

#[path = "common/mod.rs"]
mod common;

use std::sync::Arc;

use allocation_counter::measure;
use common::rings::{NOW, Zone, options, ring};
use common::rows::{Change, SIZES};
use common::{go_codec, go_ring};
use ringkit_ring::{Desc, Snapshot};

fn main() {
    println!(
        "{:<46} {:>6} {:>7} {:>11} {:>11} {:>7}   {:<20} met",
        "bytes of", "n", "tokens", "ours", "Go's way", "ratio", "goal"
    );
    for instances in SIZES {
        for tokens in [128, 512] {
            stays(instances, tokens);
            peak(instances, tokens);
        }
    }
}

/// A ring that was decoded and made ready for lookups.
fn stays(instances: usize, tokens: usize) {
    let stored = ring(instances, tokens, Zone::Healthy).encode();
    let mut kept = None;
    let decoded = measure(|| kept = Desc::decode(&stored).ok());
    let desc = kept.expect("a ring");
    let mut kept = None;
    let derived = measure(|| kept = Some(Snapshot::first_sight(&desc, NOW, &options(true))));
    drop(kept);
    let mut kept = None;
    let plain_decoded = measure(|| kept = go_codec::decode(&stored));
    drop(kept);
    // Names are shared with what was decoded, as Go's are.
    let entries = Arc::new(go_ring::entries(&desc));
    let mut kept = None;
    let plain_derived = measure(|| kept = Some(go_ring::Ring::build(entries, true)));
    drop(kept);
    print(
        "the stored ring, decoded",
        instances,
        tokens,
        decoded.bytes_current,
        plain_decoded.bytes_current,
        None,
    );
    print("its lookup tables", instances, tokens, derived.bytes_current, plain_derived.bytes_current, None);
}

/// The most that is held at once, beyond what was held before, while an instance joins.
fn peak(instances: usize, tokens: usize) {
    let mut change = Change::new(instances, tokens);
    let ours = measure(|| change.ours()).bytes_max as i64;
    let go = measure(|| change.go()).bytes_max as i64;
    print("the peak of a topology change", instances, tokens, ours, go, Some(10));
}

fn print(what: &str, instances: usize, tokens: usize, ours: i64, go: i64, goal: Option<i64>) {
    let (goal, met) = match goal {
        Some(part) => (format!("<= 1/{part} of Go's way"), if ours * part <= go { "yes" } else { "NO" }),
        None => ("-".to_owned(), "-"),
    };
    let ratio = format!("1/{:.1}", go as f64 / ours.max(1) as f64);
    println!(
        "{what:<46} {instances:>6} {tokens:>7} {:>11} {:>11} {ratio:>7}   {goal:<20} {met}",
        size(ours),
        size(go)
    );
}

fn size(bytes: i64) -> String {
    match bytes {
        b if b < 10_000 => format!("{b} B"),
        b if b < 10_000_000 => format!("{:.1} KB", b as f64 / 1e3),
        b => format!("{:.1} MB", b as f64 / 1e6),
    }
}
