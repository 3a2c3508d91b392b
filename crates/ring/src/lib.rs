//! Who owns which token: the ring as it is stored, merged, read and asked, in agreement with Cortex to the last bit.
//!
//! A [`Ring`] follows the stored [`Desc`] and hands out immutable [`Snapshot`]s; a lookup reads one without a lock.
//!
//! ```
//! use ringkit_ring::{Desc, InstanceDesc, Operation, RingOptions, Snapshot, TokenGenerator, token};
//!
//! // Six instances in three zones. A service gets this from its store, by way of `Ring` and `RingService`.
//! let (mut desc, mut tokens) = (Desc::new(), TokenGenerator::random(Some(1)));
//! let now = 1_700_000_000;
//! for place in 0..6 {
//!     let entry = InstanceDesc {
//!         addr: format!("10.0.0.{place}:9095").into(),
//!         timestamp: now,
//!         zone: ["a", "b", "c"][place % 3].into(),
//!         tokens: tokens.generate(128, &desc).into(),
//!         ..InstanceDesc::default()
//!     };
//!     desc.insert(format!("worker-{place}"), entry);
//! }
//! let options = RingOptions { zone_awareness_enabled: true, ..RingOptions::default() };
//! let snapshot = Snapshot::first_sight(&desc, now, &options);
//!
//! // Who holds this key: three healthy instances in three zones, one of which may fail.
//! let key = token::shard_by_metric_name("tenant", "up");
//! let owners = snapshot.get(key, Operation::WRITE, now)?;
//! assert_eq!((owners.len(), owners.zone_count(), owners.max_errors()), (3, 3, 1));
//!
//! // The three instances that serve this tenant, and who among them holds the key.
//! let shard = snapshot.shuffle_shard("tenant", 3);
//! assert_eq!((shard.len(), shard.get(key, Operation::WRITE, now)?.len()), (3, 3));
//! # Ok::<(), ringkit_ring::Error>(())
//! ```
//!
//! [`do_batch`] writes to owners until a quorum has each item, [`do_until_quorum`] reads from as few as suffice, and
//! [`Movement`] tells what a change of the ring moves.

#[cfg(test)]
extern crate self as ringkit_ring;

mod balance;
mod batch;
#[doc(hidden)]
pub mod bench_support;
mod blocks;
mod cancel;
mod codec;
mod compare;
mod counts;
mod desc;
mod difference;
mod error;
mod follow;
mod generate;
mod go_rand;
mod health;
mod listing;
mod lookup;
mod members;
mod merge;
mod metrics;
mod movement;
mod operation;
mod options;
mod ownership;
pub mod quorum;
mod reader;
mod replicas;
mod ring;
mod rows;
mod set_changes;
mod sets;
mod shard;
mod snapshot;
mod strategy;
pub mod token;
mod token_ranges;
mod tokens;
mod topology;
mod until_quorum;
mod vanish;
mod view;
mod waits;
mod walk;

pub use self::balance::Balance;
pub use self::batch::{BatchError, BatchReport, CallError, do_batch};
pub use self::blocks::{gateways_of, owns_block, owns_tenant};
pub use self::cancel::{Cancellation, Cancelled};
pub use self::codec::{MAX_DECODED_BYTES, RingCodec, decode_single, encode_single};
pub use self::compare::Comparison;
pub use self::counts::{Count, Counts};
pub use self::desc::{Desc, InstanceDesc, NotReady, State, UnknownState};
pub use self::difference::{Difference, find_difference};
pub use self::error::Error;
pub use self::generate::{
    GenerateError, MinimizeSpread, SpreadMinimizing, SpreadMinimizingError, TokenGenerator, TokenRequest,
    TokenStrategy, ZonePlacement,
};
pub use self::health::{first_seen, is_fresh};
pub use self::listing::ListingSet;
pub use self::members::{Members, MembersIter};
pub use self::merge::{FutureTimestamp, MAX_CLOCK_SKEW_SECS, Merged, merge, remove_tombstones};
pub use self::movement::{Holding, Movement, ShardMovement};
pub use self::operation::Operation;
pub use self::options::{Dialect, RingOptions};
pub use self::ownership::{Ownership, Share};
pub use self::quorum::Family;
pub use self::reader::RingService;
pub use self::replicas::{Replicas, ReplicationSet};
pub use self::ring::Ring;
pub use self::set_changes::Ignoring;
pub use self::sets::Instances;
pub use self::shard::{Shard, expected_instances, shard_seed};
pub use self::snapshot::{Instance, Snapshot};
pub use self::strategy::Strategy;
pub use self::token::search_token;
pub use self::token_ranges::{TokenRanges, TokenRangesError};
pub use self::tokens::Tokens;
pub use self::until_quorum::{
    Answers, DoAllOptions, ErrorTest, FanoutError, Fault, PartialData, ReplicaCall, UntilQuorumOptions,
    ZoneOrder, ZoneSorter, do_all, do_multi_until_quorum, do_multi_until_quorum_keeping_successes,
    do_until_quorum, do_until_quorum_in_background, do_until_quorum_keeping_successes,
};
pub use self::view::View;
pub use self::waits::Unsettled;
pub use ringkit_kv::EntryId;
