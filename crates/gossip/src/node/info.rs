//! What a member can tell about itself and the others, for people to read.

use std::net::SocketAddr;
use std::time::Duration;

use smol_str::SmolStr;

use super::leave::Leave;
use super::{About, Node};
use crate::api::Status;
use crate::id::NodeId;
use crate::swim::State;
use crate::time::Now;

/// For how many times as long as there is between two comparisons no datagram may come until none is taken to get through.
const STREAMS_ONLY_SYNCS: u32 = 3;

/// A member, as this one knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemberInfo {
    /// Its latest life that is known.
    pub id: NodeId,
    /// Its name, if it has said that.
    pub name: Option<SmolStr>,
    /// Its zone, if it has said to be in one.
    pub zone: Option<SmolStr>,
    /// What program it runs, if it has said that.
    pub build: Option<SmolStr>,
    /// Whether it lives.
    pub state: State,
    /// How long it takes to answer a datagram, there and back and smoothed, if it has answered one.
    pub rtt: Option<Duration>,
    /// How far its wall clock is ahead of ours, in milliseconds, if its heartbeats tell. It looks late by as long as those are
    /// under way.
    pub clock_offset_ms: Option<i64>,
    /// Whether it is this member itself.
    pub own: bool,
}

/// How much is still to be told to others.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct QueueStats {
    /// Registers.
    pub len: usize,
    /// Their memory in bytes, about.
    pub bytes: usize,
    /// How many of the registers this member wrote.
    pub own: usize,
    /// How many registers of others were not told on since the start, because there was no room for them.
    pub dropped: u64,
}

impl Node {
    /// How it stands.
    pub fn status(&self) -> Status {
        let sizes = self.store.sizes();
        Status {
            phase: self.phase,
            synced: self.synced,
            settled: self.settled,
            join_attempts: self.join.attempts(),
            join_trouble: self.join.trouble(),
            members: self.peers.len() + 1,
            score: u32::from(self.swim.score()),
            registers: sizes.entries,
            bytes: sizes.bytes,
            queued: self.queue.len(),
            lost_seeds: self.join.num_lost(),
            totals: self.totals,
        }
    }

    /// Whether streams work and datagrams do not: for three times as long as there is between two comparisons no datagram has
    /// come from anybody, and all there is was compared with somebody. A network may block UDP.
    pub fn hears_streams_only(&self, now: Now) -> bool {
        let a_while = self.config.sync_interval.saturating_mul(STREAMS_ONLY_SYNCS);
        let since = now.mono.saturating_sub(a_while);
        let compares = self.compared_at.is_some_and(|at| at >= since);
        self.settled && !self.peers.is_empty() && self.heard_at < since && compares
    }

    /// Whether its store is as good as anybody's: see [`Status::settled`].
    pub fn is_settled(&self) -> bool {
        self.settled
    }

    /// All members that are known, the dead too for as long as they are remembered: this one first, then by name, then those
    /// that have not said their name. Costs O(n log n).
    pub fn members(&self) -> Vec<MemberInfo> {
        let leaves = self.leave.as_ref().is_some_and(Leave::is_told);
        let own_state = if leaves || self.is_over() { State::Down } else { State::Alive };
        let others = self.swim.export().filter(|member| member.id.name != self.own_name);
        let mut others: Vec<MemberInfo> = others.map(|member| self.info(member.id, member.state)).collect();
        others.sort_by(|one, other| {
            let rank = |info: &MemberInfo| info.name.is_none();
            (rank(one), &one.name, one.id).cmp(&(rank(other), &other.name, other.id))
        });
        let mut members = vec![self.info(self.id(), own_state)];
        members.append(&mut others);
        members
    }

    /// How much it has still to tell to others. Costs O(n) of its own registers among that.
    pub fn queue_stats(&self) -> QueueStats {
        let crate::queue::Stats { dropped, dropped_heartbeats, .. } = self.queue.stats();
        QueueStats {
            len: self.queue.len(),
            bytes: self.queue.bytes(),
            own: self.queue.num_own(),
            dropped: dropped.saturating_add(dropped_heartbeats),
        }
    }

    /// The name of the member whose name has this hash, if it has said that once and it is not forgotten.
    pub fn name_of(&self, hash: u64) -> Option<SmolStr> {
        if hash == self.own_name {
            return Some(self.config.name.clone());
        }
        self.store.find(super::MEMBERS_KEY, hash, 0).map(|entry| entry.id.clone())
    }

    /// The seeds in use, and since which moment of monotonic time each of them is no member; `None` if it is one, or if nobody
    /// has looked yet.
    pub fn seeds(&self) -> Vec<(SocketAddr, Option<Duration>)> {
        self.join.seeds().collect()
    }

    /// If our wall clock is ahead: how many members say so by their heartbeats, which are at least half of those that say
    /// anything, and by how many milliseconds, as the median of them. Less than a second does not count.
    pub fn clock_offset_ms(&self) -> Option<(usize, i64)> {
        self.clocks.behind()
    }

    fn info(&self, id: NodeId, state: State) -> MemberInfo {
        let own = id.name == self.own_name;
        let About { zone, build, .. } =
            if own { self.about() } else { self.about_of(id.name).unwrap_or_default() };
        let said = |text: SmolStr| Some(text).filter(|text| !text.is_empty());
        MemberInfo {
            id,
            name: self.name_of(id.name),
            zone: said(zone),
            build: said(build),
            state,
            rtt: self.swim.rtt(id.name),
            clock_offset_ms: self.clocks.offset_ms(id.name),
            own,
        }
    }
}
