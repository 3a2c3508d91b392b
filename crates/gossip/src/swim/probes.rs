//! The probe under way, and what probes say about ourselves.

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
}

#[derive(Debug)]
struct Probe {
    id: ProbeId,
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

    /// foca sent this.
    pub(super) fn sent(&mut self, header: &Header<NodeId>) {
        match &header.message {
            Message::Ping(number) => {
                let id = ProbeId { number: *number, target: header.dst };
                let probe =
                    Probe { id, answered: false, streamed: false, relays: Vec::new(), silent: Vec::new() };
                self.current = Some(probe);
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

    /// foca took in this.
    pub(super) fn received(&mut self, header: &Header<NodeId>) {
        let Some(probe) = &mut self.current else { return };
        probe.silent.retain(|relay| *relay != header.src);
        let answers = match &header.message {
            Message::Ack(number) => *number == probe.id.number && header.src == probe.id.target,
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

impl ProbeId {
    pub(super) fn target(self) -> NodeId {
        self.target
    }

    pub(super) fn ack(self) -> Message<NodeId> {
        Message::Ack(self.number)
    }
}
