//! What there is to do, what happened, and why something did not.

use std::net::SocketAddr;

use bytes::Bytes;

use super::codec::BadMessage;
use super::probes::ProbeId;
use crate::id::NodeId;

/// What is to be done, in order.
#[derive(Debug, Default)]
pub struct SwimOut {
    /// Messages to send, and where to.
    pub datagrams: Vec<(SocketAddr, Bytes)>,
    /// What happened.
    pub events: Vec<SwimEvent>,
}

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SwimEvent {
    /// A member is alive.
    MemberUp(NodeId),
    /// A member that was alive is dead, or left.
    MemberDown(NodeId),
    /// A member is in a later life: the first id is now the second.
    Renamed(NodeId, NodeId),
    /// There are others alive.
    Active,
    /// No others are alive any more. Nothing is tried from here on: somebody has to look for them anew.
    Idle,
    /// Others took us for dead, so we live on under this id.
    Rejoined(NodeId),
    /// Others took us for dead, and there is no later life.
    Defunct,
    /// Another member goes by our name, from this address, and insists. We gave up and do nothing any more.
    NameConflict {
        /// Where it is.
        addr: SocketAddr,
    },
    /// A member is late with its answer to a datagram: ask it over a stream, after telling it what
    /// [suspicion](super::Swim::suspicion) it is under, and report its [answer](super::Swim::stream_probe_answered).
    ProbeOverStream {
        /// Which probe.
        probe: ProbeId,
        /// Of which life of which member; another life's answer is none.
        target: NodeId,
    },
    /// Leaving is over. We do nothing any more.
    Left,
}

/// Why a datagram was refused. Nothing is changed by it, but for [`SwimError::Engine`].
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SwimError {
    /// It is longer than any datagram.
    #[error("a message about members has {bytes} bytes, more than {max}")]
    TooLong {
        /// Its length.
        bytes: usize,
        /// The longest there may be.
        max: usize,
    },
    /// It is no message.
    #[error(transparent)]
    Malformed(#[from] BadMessage),
    /// Its sender has our name, in an earlier life than ours.
    #[error("a message about members is from an earlier member of our name")]
    OwnName,
    /// Its sender is in a life that is to begin in more than a year.
    #[error("a message about members is from a life that cannot have begun")]
    FarAhead,
    /// Its sender is new, and so were many others just before.
    #[error("new members come too fast")]
    TooFast,
    /// Its sender is new, and there are too many members.
    #[error("there are too many members")]
    TooManyMembers,
    /// foca refused it.
    #[error("a message about members was refused")]
    Engine(#[from] foca::Error),
}

/// How often something happened since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Counts {
    /// Members not taken in because there were too many, or too many at once.
    pub refused_members: u64,
    /// Lives not taken in because they are to begin in more than a year.
    pub refused_lives: u64,
    /// Suspicions that were over before their deadline.
    pub ended_suspicions: u64,
    /// Errors of foca that have no caller to go to; none is expected.
    pub engine_errors: u64,
}
