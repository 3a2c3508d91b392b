//! What goes into a member and what comes out of it.
//!
//! Nothing here waits, listens or reads a clock: whoever drives a member does that, be it a network of sockets or a simulated
//! one. Streams are numbered by their driver when they come in, and by the member when it opens them.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use smol_str::SmolStr;

use crate::register::{EntryId, Register};
use crate::store::Limits;
use crate::{peers, queue, swim};

/// How a member lives.
#[derive(Clone, Debug)]
pub struct Config {
    /// Its name, unique in the cluster and the same over restarts.
    pub name: SmolStr,
    /// Where others reach it, by datagram and by stream.
    pub addr: SocketAddr,
    /// Which life: larger than that of any before. Milliseconds since 1970 do.
    pub generation: u64,
    /// Its zone; empty = none.
    pub zone: SmolStr,
    /// What others are to see of the program.
    pub build: SmolStr,
    /// What this member calls its cluster. Members with another label are not of it.
    pub label: SmolStr,
    /// Labels that are understood beside [`label`](Self::label), for as long as a cluster goes over from one to another.
    pub accepted_labels: Vec<SmolStr>,
    /// Whether labels tell clusters apart; false = any label is taken.
    pub verify_label: bool,
    /// Whether what is said on streams is packed with lz4 where that makes it shorter.
    pub compress: bool,
    /// Largest datagram sent, in bytes.
    pub packet_size: usize,
    /// Time between two rounds of gossip.
    pub gossip_interval: Duration,
    /// How many members a round of gossip goes to.
    pub gossip_nodes: usize,
    /// Time between two comparisons with some other member, before jitter.
    pub sync_interval: Duration,
    /// Records larger than this are not pushed but offered, in bytes.
    pub max_pushed_bytes: usize,
    /// Longest session, and largest.
    pub session_timeout: Duration,
    /// See there.
    pub session_bytes: usize,
    /// Sessions at a time that others began, in all and per address; and that this member began.
    pub inbound_sessions: usize,
    /// See there.
    pub inbound_sessions_per_address: usize,
    /// See there.
    pub outbound_sessions: usize,
    /// How many seeds are asked at a time when joining.
    pub join_parallel: usize,
    /// First and last pause between attempts to join.
    pub join_backoff: (Duration, Duration),
    /// How often a member that has joined compares all it has with some seeds, whether or not it misses anybody; zero = never.
    pub rejoin_interval: Duration,
    /// How long leaving may wait until somebody has all that this member wrote; and once more for as long, until the others
    /// were told that it leaves.
    pub leave_timeout: Duration,
    /// How long what a member said about itself is kept when it is no longer even known to have died, as after a crash: longer
    /// than a member is away that comes back under its name.
    pub forget_members_after: Duration,
    /// Time between two beacons of the cluster, by which the time is measured that news takes; zero = none.
    pub beacon_interval: Duration,
    /// What is stored, and for how long what was removed is remembered.
    pub limits: Limits,
    /// Who is alive.
    pub swim: swim::Config,
    /// What is still to be told.
    pub queue: queue::Config,
    /// Whom to tell.
    pub peers: peers::Config,
}

impl Config {
    /// The defaults for a member of this name at this address, in this life.
    pub fn new(name: impl Into<SmolStr>, addr: SocketAddr, generation: u64) -> Self {
        Self {
            name: name.into(),
            addr,
            generation,
            zone: SmolStr::default(),
            build: SmolStr::default(),
            label: SmolStr::default(),
            accepted_labels: Vec::new(),
            verify_label: true,
            compress: true,
            packet_size: 1400,
            gossip_interval: Duration::from_millis(200),
            gossip_nodes: 3,
            sync_interval: Duration::from_secs(10),
            max_pushed_bytes: 768,
            session_timeout: Duration::from_secs(30),
            session_bytes: 64 << 20,
            inbound_sessions: 8,
            inbound_sessions_per_address: 2,
            outbound_sessions: 2,
            join_parallel: 3,
            join_backoff: (Duration::from_secs(1), Duration::from_secs(60)),
            rejoin_interval: Duration::ZERO,
            leave_timeout: Duration::from_secs(10),
            forget_members_after: Duration::from_secs(60 * 60),
            beacon_interval: Duration::from_secs(60),
            limits: Limits::default(),
            swim: swim::Config::default(),
            queue: queue::Config::default(),
            peers: peers::Config::default(),
        }
    }
}

/// A stream of bytes to one peer. Even numbers are the driver's, for those that come in; odd ones the member's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamId(pub u64);

/// What happens to a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StreamEvent<'a> {
    /// It came in from here, or what the member asked for is there.
    Opened {
        /// The other end.
        peer: SocketAddr,
    },
    /// These bytes came.
    Data(&'a [u8]),
    /// It is gone, or could not be opened. Nothing more will come.
    Closed,
}

/// What a member is given.
#[derive(Debug)]
pub enum Input<'a> {
    /// A datagram came.
    Datagram {
        /// From here.
        from: SocketAddr,
        /// All of it.
        bytes: &'a [u8],
    },
    /// Something happened to a stream.
    Stream {
        /// To which.
        id: StreamId,
        /// What.
        event: StreamEvent<'a>,
    },
    /// Where members may be: resolved anew now and then. The first of these begins the join; an empty one, or one that names
    /// this member only, begins a new cluster.
    Seeds(&'a [SocketAddr]),
    /// Somebody wants something.
    Command(Command),
    /// Time has passed.
    Tick,
}

/// What somebody may want.
#[derive(Clone, Debug)]
pub enum Command {
    /// Write registers of one's own, whatever is there.
    Upsert {
        /// The key.
        key: SmolStr,
        /// What to write; `None` = remove.
        changes: Vec<(EntryId, Option<Bytes>)>,
    },
    /// Write if nothing of it moved since the key's local version was this.
    Apply {
        /// Told with the outcome.
        ticket: u64,
        /// The key.
        key: SmolStr,
        /// The local version that the changes were made for.
        expected: u64,
        /// What to write; `None` = remove.
        changes: Vec<(EntryId, Option<Bytes>)>,
    },
    /// Write anew, with the same bodies and as this member, what a clock that was ahead has written: it would outlast what others
    /// write. Whoever owns an entry overrules that with its next write.
    Heal {
        /// The key.
        key: SmolStr,
        /// All registers of this entry, whatever their time; `None` = those of all entries that are ahead of this member's clock.
        id: Option<SmolStr>,
    },
    /// Leave for good.
    Leave,
}

/// What a member wants done, in order.
#[derive(Clone, Debug, PartialEq)]
pub enum Output {
    /// Send a datagram.
    Datagram {
        /// To here.
        to: SocketAddr,
        /// All of it.
        bytes: Bytes,
    },
    /// Open a stream, then tell [`StreamEvent::Opened`] or [`StreamEvent::Closed`].
    Open {
        /// Under this number.
        id: StreamId,
        /// To here.
        to: SocketAddr,
    },
    /// Write to a stream.
    Write {
        /// To which.
        id: StreamId,
        /// What.
        bytes: Bytes,
    },
    /// Close a stream once what was written is sent; nothing of it is to be told any more.
    Close {
        /// Which.
        id: StreamId,
    },
    /// Something happened that others want to know.
    Event(Event),
}

/// How far a member has got.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// Has no seeds yet.
    Resolving,
    /// Asks seeds for the cluster.
    Joining,
    /// Takes part.
    Active,
    /// Takes part, and hears of nobody.
    Lonely,
    /// On its way out.
    Leaving,
    /// Gone.
    Left,
    /// Cannot go on: see [`Event::Failed`].
    Failed,
}

/// What happens to a member.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// It is in this phase now.
    Phase(Phase),
    /// Its store reflects the cluster: told once.
    Synced,
    /// A member came to life.
    MemberUp {
        /// The hash of its name.
        name: u64,
        /// Where it is.
        addr: SocketAddr,
    },
    /// A member died or left.
    MemberDown {
        /// The hash of its name.
        name: u64,
    },
    /// Registers of a key changed: look at them.
    Changed {
        /// The key.
        key: SmolStr,
        /// Which; empty = look at all.
        entries: Vec<EntryId>,
    },
    /// What became of [`Command::Apply`].
    Applied {
        /// The ticket.
        ticket: u64,
        /// The registers written, or `None` because something had moved.
        written: Option<Vec<(EntryId, Register)>>,
    },
    /// Something from the network was refused.
    Refused {
        /// Why: a word for a metric's label.
        reason: &'static str,
    },
    /// A register was refused because its time is too far ahead, beside [`Refused`](Self::Refused) with the reason `clock_ahead`.
    Quarantined {
        /// Who wrote it: the hash of a member's name.
        author: u64,
        /// By how much it is ahead of this member's wall clock, exact to a millisecond.
        ahead: Duration,
    },
    /// How long a beacon took to get here.
    Propagation {
        /// Since it was made.
        took: Duration,
    },
    /// It cannot go on.
    Failed {
        /// Why, and what to do.
        reason: String,
    },
}

/// How a member stands.
#[derive(Clone, Debug, PartialEq)]
pub struct Status {
    /// How far it has got.
    pub phase: Phase,
    /// Whether its store reflects the cluster, or did at some time.
    pub synced: bool,
    /// Whether it has joined, so that its store is as good as anybody's.
    pub settled: bool,
    /// Since the join began, or the search for those who are lost: how many rounds of asking seeds came to nothing.
    pub join_attempts: u32,
    /// Why the last member that was asked could not let it in although it answered: `clock_behind` if most of the others wrote
    /// what is from the future by this member's clock, `store_full` if there was no room for what they have.
    pub join_trouble: Option<&'static str>,
    /// Live members, itself included.
    pub members: usize,
    /// How unhealthy it thinks it is itself: 0 = not at all, up to 7.
    pub score: u32,
    /// Registers, tombstones included.
    pub registers: usize,
    /// Bytes of what is stored.
    pub bytes: usize,
    /// What is still to be told.
    pub queued: usize,
    /// Seeds that answer to nothing or are no members.
    pub lost_seeds: usize,
    /// What it has done.
    pub totals: Totals,
}

impl Status {
    /// [`join_trouble`](Self::join_trouble) in words, without an end.
    pub fn join_trouble_in_words(&self) -> Option<&'static str> {
        self.join_trouble.map(|trouble| match trouble {
            "clock_behind" => {
                "this machine's clock is behind: by it, most members write what is from the future, which is refused"
            }
            "store_full" => "there is no room in this member's store for all that the others have",
            other => other,
        })
    }
}

/// What a member has done since its start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Sessions in which it compared all there is with another member, whoever began them.
    pub sessions_done: u64,
    /// Those that came to nothing, also because nobody answered.
    pub sessions_failed: u64,
    /// Digests of all there is that came from others and were equal to its own.
    pub roots_equal: u64,
    /// Those that were not.
    pub roots_different: u64,
    /// Beacons that it sent.
    pub beacons: u64,
    /// Registers that it [healed](Command::Heal).
    pub healed: u64,
}

impl Totals {
    pub(crate) fn count_session(&mut self, done: bool) {
        let total = if done { &mut self.sessions_done } else { &mut self.sessions_failed };
        *total = total.saturating_add(1);
    }

    pub(crate) fn count_root(&mut self, equal: bool) {
        let total = if equal { &mut self.roots_equal } else { &mut self.roots_different };
        *total = total.saturating_add(1);
    }
}
