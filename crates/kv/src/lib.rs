//! Key-value stores that hold maps of entries: one [`Store`] trait for backends, one typed [`Client`] for everybody else.
//!
//! A ring is `instance id → entry`. Backends speak in entries, not in blobs, so that a heartbeat costs its own few bytes
//! and a stale writer cannot erase an entry that it never touched. How entries become stored bytes is told by the value's
//! [`Codec`].

pub mod client;
pub mod codec;
pub mod conformance;
#[cfg(feature = "consul")]
mod consul;
mod entries;
pub mod error;
#[cfg(feature = "etcd")]
mod etcd;
#[cfg(any(feature = "consul", feature = "etcd"))]
mod flat;
pub mod inmemory;
#[cfg(any(feature = "consul", feature = "etcd"))]
mod layered;
#[cfg(any(feature = "consul", feature = "etcd"))]
mod layout;
#[cfg(feature = "memberlist")]
pub mod memberlist;
mod metered;
mod metrics;
pub mod multi;
pub mod open;
mod prefix;
#[cfg_attr(
    not(any(feature = "consul", feature = "etcd")),
    expect(dead_code, reason = "what it shares is for stores behind a network")
)]
mod shared;
#[cfg(any(feature = "consul", feature = "etcd"))]
mod size;
pub mod store;
pub mod value;
mod view;
mod watch;

pub use client::{CasOutcome, Client, Decision};
pub use codec::{Codec, DecodeError, Facets, Stamp, StringCodec};
pub use entries::{Entries, EntriesIter};
pub use error::Error;
pub use inmemory::InMemory;
pub use multi::Multi;
pub use open::Stores;
pub use shared::Trouble;
pub use store::{
    Applied, Change, EntryBytes, EntryId, Key, Limits, Precondition, Standing, Store, Stored, Subscription,
    Traces,
};
pub use value::{Text, Value};
pub use view::{Seen, View};
pub use watch::{Update, Watch};
