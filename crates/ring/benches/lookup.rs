//! Lookups in detail: every figure at every size, ours and Go's way.

#[path = "common/mod.rs"]
mod common;

use common::rows::{batches, gets, sets};

fn main() {
    common::detail(&[gets, batches, sets]);
}
