//! What arrives in detail: every figure at every size, ours and Go's way.

#[path = "common/mod.rs"]
mod common;

use common::rows::{heartbeats, joins};

fn main() {
    common::detail(&[heartbeats, joins]);
}
