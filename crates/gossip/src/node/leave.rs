//! How a member leaves: not before somebody else has all that it wrote.

use std::time::Duration;

use super::Node;
use crate::api::{Output, Phase};
use crate::swim::SwimOut;
use crate::time::Now;

/// How long to wait for an answer before another member is asked.
const ASK_AGAIN_AFTER: Duration = Duration::from_millis(500);

/// How far leaving has got.
#[derive(Debug)]
pub(super) struct Leave {
    /// When the others are told, whatever they have by then.
    until: Duration,
    /// When somebody is asked next whether it has what this member has.
    ask_at: Duration,
    /// Who was asked last.
    asked: Option<u64>,
    /// Whether somebody has all that this member wrote.
    kept: bool,
    /// Whether the others have been told that this member leaves.
    told: bool,
}

impl Leave {
    pub(super) fn is_told(&self) -> bool {
        self.told
    }
}

impl Node {
    /// Whether somebody was told that this member leaves, or there was nobody to tell.
    pub fn has_told_leave(&self) -> bool {
        self.swim.has_told_leave()
    }

    pub(super) fn begin_leave(&mut self, now: Now, out: &mut Vec<Output>) {
        if self.phase == Phase::Leaving {
            return;
        }
        self.set_phase(Phase::Leaving, out);
        self.leave = Some(Leave {
            until: now.mono.saturating_add(self.config.leave_timeout),
            ask_at: now.mono,
            asked: None,
            kept: false,
            told: false,
        });
        self.about_at = None;
        self.remove_about(now);
    }

    /// When [`run_leave`](Self::run_leave) has something to do even if nothing comes.
    pub(super) fn leave_deadline(&self) -> Option<Duration> {
        let leave = self.leave.as_ref().filter(|leave| !leave.told)?;
        let asks = self.settled && !self.queue.has_own_news() && !self.peers.is_empty();
        Some(if asks { leave.ask_at.min(leave.until) } else { leave.until })
    }

    pub(super) fn run_leave(&mut self, now: Now, out: &mut Vec<Output>) {
        let Some(leave) = self.leave.as_ref().filter(|leave| !leave.told) else { return };
        let is_late = leave.until <= now.mono;
        if !is_late && !self.peers.is_empty() {
            if self.queue.has_own_news() {
                return;
            }
            // What others have is not to be compared with what was not complete here.
            if self.settled && !leave.kept {
                self.ask_whether_kept(now, out);
                return;
            }
        }
        if let Some(leave) = &mut self.leave {
            leave.told = true;
        }
        let mut did = SwimOut::default();
        self.swim.leave(now, &mut did);
        self.follow_swim(now, did, out);
    }

    /// Another member has all that this one has.
    pub(super) fn was_kept(&mut self) {
        if let Some(leave) = &mut self.leave {
            leave.kept = true;
        }
    }

    /// This member wrote something that nobody else has yet.
    pub(super) fn wrote_more(&mut self) {
        if let Some(leave) = &mut self.leave {
            leave.kept = false;
        }
    }

    fn ask_whether_kept(&mut self, now: Now, out: &mut Vec<Output>) {
        let Some(leave) = self.leave.as_mut().filter(|leave| leave.ask_at <= now.mono) else { return };
        leave.ask_at = now.mono.saturating_add(ASK_AGAIN_AFTER);
        let another = self.peers.sync_target(&mut self.random, leave.asked.as_slice());
        let target = another.or_else(|| self.peers.sync_target(&mut self.random, &[]));
        leave.asked = target.map(|target| target.name);
        if let Some(target) = target {
            self.send_digest(now, target.addr, out);
        }
    }
}
