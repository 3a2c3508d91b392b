//! Shuffle sharding in detail: every figure at every size, ours and Go's way.

#[path = "common/mod.rs"]
mod common;

use common::rows::shards;

fn main() {
    common::detail(&[shards]);
}
