//! How eagerly members are watched, and how that follows from how many there are.

use std::num::{NonZeroU8, NonZeroUsize};
use std::time::Duration;

use foca::PeriodicParams;

use super::codec::{MAX_HEADER_BYTES, MAX_MEMBER_BYTES};

/// Shortest wait: a timer that asks for none would be due for ever.
const TICK: Duration = Duration::from_millis(1);
/// Any header fits, with the number of members and one of them behind it.
const MIN_PACKET_BYTES: usize = MAX_HEADER_BYTES + 2 + MAX_MEMBER_BYTES;
/// The most that a UDP datagram carries: what others send is taken in up to this length.
pub(super) const MAX_PACKET_BYTES: usize = 65_507;

/// How members are watched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// How often one member is probed; more rarely while this one finds itself slow.
    pub probe_period: Duration,
    /// How long to wait for an answer before others, and a stream, are tried. Shorter than `probe_period`.
    pub probe_rtt: Duration,
    /// How many others are asked to probe a member that did not answer.
    pub num_indirect_probes: usize,
    /// News are sent this many times for every digit of the number of members.
    pub retransmit_factor: u32,
    /// How long a suspect has to answer among up to ten members; among more, longer with the logarithm of their number.
    pub suspicion_timeout: Duration,
    /// How long the dead are remembered.
    pub remove_down_after: Duration,
    /// How often news are sent.
    pub gossip_period: Duration,
    /// To how many members.
    pub gossip_nodes: usize,
    /// How often one member is asked whom it knows.
    pub announce_period: Duration,
    /// How often members taken for dead are asked whether they are: so parts of a cluster find together again.
    pub announce_to_down_period: Duration,
    /// How many of them.
    pub announce_to_down_nodes: usize,
    /// Longest message that is sent. Others may send longer ones.
    pub max_packet_bytes: usize,
    /// How many members are known at most, the remembered dead included.
    pub max_members: usize,
    /// How many members a second datagrams may make known. Sessions may make known any number.
    pub max_new_members_per_sec: u32,
    /// How long leaving may take.
    pub leave_timeout: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            probe_period: Duration::from_secs(2),
            probe_rtt: Duration::from_millis(500),
            num_indirect_probes: 3,
            retransmit_factor: 4,
            suspicion_timeout: Duration::from_secs(4),
            remove_down_after: Duration::from_secs(3600),
            gossip_period: Duration::from_millis(200),
            gossip_nodes: 3,
            announce_period: Duration::from_secs(30),
            announce_to_down_period: Duration::from_secs(20),
            announce_to_down_nodes: 2,
            max_packet_bytes: 1350,
            max_members: 20_000,
            max_new_members_per_sec: 200,
            leave_timeout: Duration::from_secs(20),
        }
    }
}

impl Config {
    /// The nearest one that works: no wait is zero, indirect probes come before the next probe, and any message fits.
    pub(super) fn workable(mut self) -> Self {
        for wait in [
            &mut self.probe_rtt,
            &mut self.suspicion_timeout,
            &mut self.remove_down_after,
            &mut self.gossip_period,
            &mut self.announce_period,
            &mut self.announce_to_down_period,
        ] {
            *wait = (*wait).max(TICK);
        }
        self.probe_period = self.probe_period.max(self.probe_rtt.saturating_add(TICK));
        self.max_packet_bytes = self.max_packet_bytes.clamp(MIN_PACKET_BYTES, MAX_PACKET_BYTES);
        self
    }

    /// What foca is told when there are `members`, this one included.
    pub(super) fn for_members(&self, members: usize) -> foca::Config {
        foca::Config {
            probe_period: self.probe_period,
            probe_rtt: self.probe_rtt,
            num_indirect_probes: at_least_one(self.num_indirect_probes),
            max_transmissions: self.max_transmissions(members),
            suspect_to_down_after: self.suspect_to_down_after(members),
            remove_down_after: Some(self.remove_down_after),
            max_packet_size: at_least_one(self.max_packet_bytes),
            notify_down_members: true,
            periodic_announce: periodic(self.announce_period, 1),
            periodic_announce_to_down_members: periodic(
                self.announce_to_down_period,
                self.announce_to_down_nodes,
            ),
            periodic_gossip: periodic(self.gossip_period, self.gossip_nodes),
        }
    }

    /// How often each piece of news is sent when there are `members`.
    pub(super) fn max_transmissions(&self, members: usize) -> NonZeroU8 {
        // The logarithm of `members + 1`, rounded up, is the number of digits of `members`.
        let digits = members.max(1).ilog10() + 1;
        let transmissions = self.retransmit_factor.saturating_mul(digits);
        NonZeroU8::new(u8::try_from(transmissions).unwrap_or(u8::MAX)).unwrap_or(NonZeroU8::MIN)
    }

    /// How long a suspect has to answer when there are `members`.
    pub(super) fn suspect_to_down_after(&self, members: usize) -> Duration {
        let factor = f64::from(u32::try_from(members).unwrap_or(u32::MAX)).log10().max(1.0);
        Duration::try_from_secs_f64(self.suspicion_timeout.as_secs_f64() * factor)
            .unwrap_or(self.suspicion_timeout)
    }
}

fn periodic(frequency: Duration, members: usize) -> Option<PeriodicParams> {
    Some(PeriodicParams { frequency, num_members: at_least_one(members) })
}

fn at_least_one(number: usize) -> NonZeroUsize {
    NonZeroUsize::new(number).unwrap_or(NonZeroUsize::MIN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn news_and_suspicions_last_longer_among_more_members() {
        let config = Config::default();
        for (members, transmissions, suspicion_secs) in
            [(0, 4, 4), (1, 4, 4), (9, 4, 4), (10, 8, 4), (99, 8, 7), (100, 12, 8), (10_000, 20, 16)]
        {
            let told = config.for_members(members);
            assert_eq!(told.max_transmissions.get(), transmissions, "{members} members");
            assert_eq!(told.suspect_to_down_after.as_secs(), suspicion_secs, "{members} members");
        }
        let eager = Config { retransmit_factor: u32::MAX, ..Config::default() };
        assert_eq!(eager.for_members(5).max_transmissions, NonZeroU8::MAX);
    }

    #[test]
    fn what_cannot_work_is_brought_to_the_nearest_that_can() {
        let config = Config {
            probe_period: Duration::ZERO,
            probe_rtt: Duration::ZERO,
            suspicion_timeout: Duration::ZERO,
            gossip_period: Duration::ZERO,
            num_indirect_probes: 0,
            max_packet_bytes: 0,
            ..Config::default()
        }
        .workable();
        assert!(config.probe_rtt >= TICK && config.probe_period > config.probe_rtt);
        assert!(config.suspicion_timeout >= TICK && config.gossip_period >= TICK);
        assert_eq!(config.max_packet_bytes, MIN_PACKET_BYTES);
        assert_eq!(config.for_members(1).num_indirect_probes.get(), 1);
        assert_eq!(Config::default().workable(), Config::default());
    }
}
