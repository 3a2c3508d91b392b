//! Every figure of the ring, with both arms.

mod lookup;
mod shard;
mod stored;
mod update;

pub(crate) use self::lookup::{batches, gets, sets};
pub(crate) use self::shard::shards;
pub(crate) use self::stored::{codec, tokens};
pub(crate) use self::update::{Change, heartbeats, joins};

use super::Row;

/// The sizes at which everything is measured.
pub(crate) const SIZES: [usize; 3] = [100, 1_000, 10_000];

/// The rows of one subject at one size. Made when they are measured, because the large ones take room.
pub(crate) type Rows = fn(usize) -> Vec<Row>;
