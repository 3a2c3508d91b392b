//! What is counted on the way: what was refused, who was taken for dead, and what went over which links.

use super::*;
use crate::wire::{Datagram, HEADER_BYTES, Section};

/// For so long after a member was started, or went on, or links were healed, it may count for dead by right; and of those who
/// take it for dead within this time, the later ones heard of it from the earlier ones.
const EPISODE: Duration = Duration::from_secs(30);
/// What a section of a datagram takes beside what is in it.
const SECTION_BYTES: usize = 3;

/// What was sent over some links, whether or not it arrived, in bytes without headers of the network.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Of datagrams, what is about members.
    pub swim_bytes: u64,
    /// Of datagrams, what is about registers.
    pub kv_bytes: u64,
    /// In streams, whatever it is about.
    pub stream_bytes: u64,
}

/// Counts.
#[derive(Debug, Default)]
pub(super) struct Account {
    refusals: BTreeMap<&'static str, u64>,
    /// How often somebody said that a member is dead.
    downs: u64,
    /// How often a member was taken for dead although it ran and could be reached.
    false_deaths: u64,
    /// When that was said of a member last.
    last_false: BTreeMap<usize, Duration>,
    /// By who refused what whom wrote, by the hash of the name.
    quarantined: BTreeMap<(usize, u64), u64>,
    /// Within zones, and between them.
    traffic: [Traffic; 2],
}

impl Account {
    pub(super) fn refused(&mut self, reason: &'static str) {
        let count = self.refusals.entry(reason).or_insert(0);
        *count = count.saturating_add(1);
    }

    pub(super) fn quarantined(&mut self, by: usize, author: u64) {
        let count = self.quarantined.entry((by, author)).or_insert(0);
        *count = count.saturating_add(1);
    }
}

impl Sim {
    /// What was refused, by the reasons told.
    pub fn refusals(&self) -> &BTreeMap<&'static str, u64> {
        &self.account.refusals
    }

    /// How often a member said that another is dead or has left.
    pub fn downs(&self) -> u64 {
        self.account.downs
    }

    /// How often a member was taken for dead although it ran, had no wish to leave, and could be reached by who said so. What
    /// several say of one member within half a minute counts once; what is said within half a minute after it was started or
    /// [resumed](Sim::resume), or links were [healed](Sim::heal), does not count.
    pub fn false_deaths(&self) -> u64 {
        self.account.false_deaths
    }

    /// How often a member refused for now what another one wrote, because that one's clock is ahead of its own.
    pub fn quarantined(&self, by: usize, author: usize) -> u64 {
        let author = self.hosts[author].node.id().name;
        self.account.quarantined.get(&(by, author)).copied().unwrap_or(0)
    }

    /// What went between members of different [zones](Options::zones), or else what went within zones. Without zones nothing is
    /// counted.
    pub fn traffic(&self, between_zones: bool) -> Traffic {
        self.account.traffic[usize::from(between_zones)]
    }

    /// A member says that the one of this name is dead.
    pub(super) fn note_death(&mut self, teller: usize, name: u64) {
        self.account.downs = self.account.downs.saturating_add(1);
        let Some(dead) = self.names.get(&name).copied() else { return };
        let host = &self.hosts[dead];
        let is_heard = self.links.is_open(teller, dead) && self.links.is_open(dead, teller);
        let calm_for = self.now.saturating_sub(host.ran_since.max(self.healed_at));
        if host.state != State::Up || host.leaves || !is_heard || calm_for < EPISODE {
            return;
        }
        let last = self.account.last_false.insert(dead, self.now);
        if last.is_none_or(|last| self.now.saturating_sub(last) >= EPISODE) {
            self.account.false_deaths = self.account.false_deaths.saturating_add(1);
        }
    }

    /// A datagram goes from one member to another.
    pub(super) fn note_datagram(&mut self, from: usize, to: usize, bytes: &[u8]) {
        let Some(traffic) = self.traffic_between(from, to) else { return };
        let swim = swim_bytes(bytes);
        traffic.swim_bytes = traffic.swim_bytes.saturating_add(length_of(swim));
        traffic.kv_bytes = traffic.kv_bytes.saturating_add(length_of(bytes.len().saturating_sub(swim)));
    }

    /// Bytes go from one member to another in a stream.
    pub(super) fn note_stream(&mut self, from: usize, to: usize, bytes: &[u8]) {
        if let Some(traffic) = self.traffic_between(from, to) {
            traffic.stream_bytes = traffic.stream_bytes.saturating_add(length(bytes));
        }
    }

    fn traffic_between(&mut self, one: usize, other: usize) -> Option<&mut Traffic> {
        if self.options.zones == 0 {
            return None;
        }
        let is_between = self.options.zone_of(one) != self.options.zone_of(other);
        self.account.traffic.get_mut(usize::from(is_between))
    }
}

/// How much of a datagram is about members: their section, and the header, which is needed for that anyway.
fn swim_bytes(bytes: &[u8]) -> usize {
    let Ok(mut datagram) = Datagram::parse(bytes) else { return 0 };
    let swim = datagram.sections.find_map(|section| match section {
        Ok(Section::Swim(swim)) => Some(swim.len()),
        _ => None,
    });
    swim.map_or(0, |swim| HEADER_BYTES + SECTION_BYTES + swim)
}
