//! The probe under way, and what probes say about ourselves and about the way to others.

use std::collections::BTreeMap;
use std::time::Duration;

use foca::{Header, Message, ProbeNumber};

use crate::id::NodeId;

/// The worst score.
const MAX_SCORE: u8 = 7;

/// One probe of one member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProbeId {
    number: ProbeNumber,
    target: NodeId,
}

/// The probe under way, and how well this member does.
///
/// The score goes from 0 to 7: one better for each member that answers, one worse for each relay that is not heard during a probe
/// that fails, and for each suspicion against ourselves. A member that is cut off or too slow so learns that it is not the others
/// who are, and takes more time before it accuses them.
///
/// # Source
///
/// Dadgar, Phillips, Currey: Lifeguard, Local Health Awareness for More Accurate Failure Detection (2018).
#[derive(Debug, Default)]
pub(super) struct Probes {
    current: Option<Probe>,
    score: u8,
    /// How long answers of members that live take, smoothed, by their names.
    rtts: BTreeMap<u64, Duration>,
}

#[derive(Debug)]
struct Probe {
    id: ProbeId,
    /// When the target was asked, until its own answer comes, or until one is made up for it.
    asked_at: Option<Duration>,
    answered: bool,
    streamed: bool,
    relays: Vec<NodeId>,
    /// Relays that nothing came from since they were asked.
    silent: Vec<NodeId>,
}

impl Probes {
    pub(super) fn score(&self) -> u8 {
        self.score
    }

    pub(super) fn worsen(&mut self, by: usize) {
        let by = u8::try_from(by).unwrap_or(MAX_SCORE);
        self.score = self.score.saturating_add(by).min(MAX_SCORE);
    }

    /// foca gave up the probe under way.
    pub(super) fn clear(&mut self) {
        self.current = None;
    }

    /// How long a member takes to answer, there and back.
    pub(super) fn rtt(&self, name: u64) -> Option<Duration> {
        self.rtts.get(&name).copied()
    }

    /// A member lives no more, or in a later life that may be elsewhere.
    pub(super) fn lost(&mut self, name: u64) {
        self.rtts.remove(&name);
        if let Some(probe) = self.current.as_mut().filter(|probe| probe.id.target.name == name) {
            probe.asked_at = None;
        }
    }

    /// The answer that foca gets next was not sent by the target.
    pub(super) fn made_up(&mut self) {
        if let Some(probe) = &mut self.current {
            probe.asked_at = None;
        }
    }

    /// foca sent this at `now`.
    pub(super) fn sent(&mut self, now: Duration, header: &Header<NodeId>) {
        match &header.message {
            Message::Ping(number) => {
                self.current = Some(Probe {
                    id: ProbeId { number: *number, target: header.dst },
                    asked_at: Some(now),
                    answered: false,
                    streamed: false,
                    relays: Vec::new(),
                    silent: Vec::new(),
                });
            }
            Message::PingReq { .. } => {
                if let Some(probe) = &mut self.current {
                    probe.relays.push(header.dst);
                    probe.silent.push(header.dst);
                }
            }
            _ => (),
        }
    }

    /// foca took in this at `now`.
    pub(super) fn received(&mut self, now: Duration, header: &Header<NodeId>) {
        let Some(probe) = &mut self.current else { return };
        probe.silent.retain(|relay| *relay != header.src);
        let answers = match &header.message {
            Message::Ack(number) => {
                let is_own = *number == probe.id.number && header.src == probe.id.target;
                if is_own && let Some(asked_at) = probe.asked_at.take() {
                    let took = now.saturating_sub(asked_at);
                    let rtt = self.rtts.entry(header.src.name).or_insert(took);
                    *rtt = smoothed(*rtt, took);
                }
                is_own
            }
            Message::ForwardedAck { probe_number, .. } => {
                *probe_number == probe.id.number && probe.relays.contains(&header.src)
            }
            _ => false,
        };
        if answers && !probe.answered {
            probe.answered = true;
            self.score = self.score.saturating_sub(1);
        }
    }

    /// foca had no answer to this probe.
    pub(super) fn failed(&mut self, number: ProbeNumber) {
        if let Some(probe) = self.current.take_if(|probe| probe.id.number == number) {
            self.worsen(probe.silent.len());
        }
    }

    /// The probe of `target` is so late that other ways are tried. Returns it the first time, unless it was answered.
    pub(super) fn overdue(&mut self, target: &NodeId) -> Option<ProbeId> {
        let probe = self.current.as_mut()?;
        if probe.id.target != *target || probe.answered || probe.streamed {
            return None;
        }
        probe.streamed = true;
        Some(probe.id)
    }

    /// Whether an answer to this probe still counts.
    pub(super) fn awaits(&self, id: ProbeId) -> bool {
        self.current.as_ref().is_some_and(|probe| probe.id == id && !probe.answered)
    }
}

/// A quarter of the last one, and three of those before.
fn smoothed(before: Duration, last: Duration) -> Duration {
    before.saturating_mul(3).saturating_add(last) / 4
}

impl ProbeId {
    pub(super) fn target(self) -> NodeId {
        self.target
    }

    pub(super) fn ack(self) -> Message<NodeId> {
        Message::Ack(self.number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn millis(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    fn header(src: &str, dst: &str, message: Message<NodeId>) -> Header<NodeId> {
        let id = |name| NodeId::new(name, 1, "10.0.0.1:7946".parse().unwrap());
        Header { src: id(src), src_incarnation: 0, dst: id(dst), message }
    }

    #[test]
    fn only_what_the_target_itself_answers_tells_how_far_away_it_is() {
        let mut probes = Probes::default();
        let name = header("b", "a", Message::Gossip).src.name;
        let ask = |probes: &mut Probes, number, at| {
            probes.sent(millis(at), &header("a", "b", Message::Ping(number)));
        };
        let answer = |probes: &mut Probes, number, at| {
            probes.received(millis(at), &header("b", "a", Message::Ack(number)));
        };
        ask(&mut probes, 1, 1_000);
        answer(&mut probes, 9, 1_010);
        assert_eq!(probes.rtt(name), None, "to another probe");
        answer(&mut probes, 1, 1_040);
        assert_eq!(probes.rtt(name), Some(millis(40)));
        answer(&mut probes, 1, 1_900);
        assert_eq!(probes.rtt(name), Some(millis(40)), "twice");
        ask(&mut probes, 2, 2_000);
        answer(&mut probes, 2, 2_080);
        assert_eq!(probes.rtt(name), Some(millis(50)), "smoothed");
        ask(&mut probes, 3, 3_000);
        probes.made_up();
        answer(&mut probes, 3, 3_900);
        assert_eq!(probes.rtt(name), Some(millis(50)), "made up");
        ask(&mut probes, 4, 4_000);
        probes.lost(name);
        answer(&mut probes, 4, 4_010);
        assert_eq!(probes.rtt(name), None, "gone");
    }
}
