//! A member on tokio: sockets, streams, names and clocks around [`Member`](crate::member::Member), which has none.
//!
//! One task, the actor, owns the member and whoever [observes](Observer) it. It never waits for anything but its turn: what
//! comes in is handed to the member, what the member wants done is done or handed on at once, and whatever has no room is
//! dropped and [counted](Counts). Each connection has a task of its own, which ends with the actor.
//!
//! ```text
//!  UDP sockets ──────────────┐                     ┌──▶ UDP sockets, or one lane of packets for each peer
//!  listeners ─▶ connections ─┤                     ├──▶ writers of connections, dials
//!  resolver ─────────────────┼──▶ actor: Member ───┤
//!  Handle::call ─────────────┤                     ├──▶ Observer
//!  the member's deadline ────┘                     └──▶ State
//! ```
//!
//! The first byte of a connection says what it is: `0x9b` a stream of a member in clear, `0x9c` a sealed one, `0x9d` a stream
//! of datagrams, for networks that carry no UDP. Anything else is closed, those who speak HTTP with a word of advice.
//!
//! What members say to each other is not here, nor where seeds are looked up: that is [`seeds`].

mod access;
mod actor;
mod bind;
mod counts;
mod datagrams;
mod dial;
mod handle;
mod joining;
mod listener;
mod machine;
mod options;
mod packets;
mod places;
pub mod seeds;
mod shared;
mod sniff;
mod streams;

use std::io;
use std::net::SocketAddr;

use smol_str::SmolStr;
pub use tokio_rustls::rustls;

pub use self::access::Access;
pub use self::counts::Counts;
pub use self::handle::{Handle, LeaveReport};
pub use self::options::{Options, Tls, Transport, WallClock};
use crate::api::{Event, Phase};
use crate::node::{ConfigError, Node};
use crate::register::EntryId;
use crate::time::Now;

/// Is told what happens to a member, on the member's task: whatever takes long here keeps the member from answering.
pub trait Observer: Send + 'static {
    /// These registers of a key changed (empty = look at all). Called before anything else sees the change.
    fn changed(&mut self, node: &Node, now: Now, key: &SmolStr, entries: &[EntryId]);

    /// Anything else happened: every event but [`Event::Changed`] and [`Event::Applied`].
    fn event(&mut self, node: &Node, now: Now, event: &Event);
}

/// How a member stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct State {
    /// How far it has got.
    pub phase: Phase,
    /// Whether its store reflects the cluster.
    pub synced: bool,
    /// Whether it asked for the cluster as often as it may, in vain. It goes on asking; once it is synced, this is false again.
    pub gave_up: bool,
    /// Live members, itself included.
    pub members: usize,
    /// Why it ended, if it did not leave.
    pub failure: Option<String>,
}

/// The member has ended: it left, failed, or was stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the gossip member has ended")]
pub struct Closed;

/// Why a member was not started.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// There is no tokio runtime to run it on.
    #[error("a gossip member needs a tokio runtime")]
    NoRuntime,
    /// It was to listen nowhere.
    #[error("a gossip member needs an address to listen at")]
    NoAddress,
    /// It cannot listen there.
    #[error("cannot listen at {addr} over {protocol}")]
    Bind {
        /// Where.
        addr: SocketAddr,
        /// `TCP` or `UDP`.
        protocol: &'static str,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Nobody can reach it there.
    #[error("nobody can reach a member at {addr}: advertise an address of this machine")]
    Unreachable {
        /// Where.
        addr: SocketAddr,
    },
    /// Its configuration cannot work.
    #[error(transparent)]
    Config(#[from] ConfigError),
}
