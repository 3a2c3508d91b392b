//! The stored form, and new tokens in detail: every figure at every size, ours and Go's way.

#[path = "common/mod.rs"]
mod common;

use common::rows::{codec, tokens};

fn main() {
    common::detail(&[codec, tokens]);
}
