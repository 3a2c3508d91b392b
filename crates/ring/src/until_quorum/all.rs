//! [`do_all`]: everybody is asked, everything that came before the quorum is returned. Cortex's older way to read.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::ReplicaCall;
use super::engine::{Dropped, Engine};
use super::error::{FanoutError, PartialData};
use super::options::DoAllOptions;
use super::tracker::{Action, Call, Decide, Reply, Verdict};
use crate::quorum::{ReadTracker, tolerated};
use crate::replicas::ReplicationSet;

/// What [`do_all`] got.
#[derive(Debug)]
pub struct Answers<T, E> {
    /// Results in order of arrival.
    pub results: Vec<T>,
    /// Why they may not be all, if they may not; only where [`DoAllOptions::partial_data`] allows it.
    pub partial: Option<PartialData<E>>,
}

/// Asks every instance of `set`, concurrently, and returns what had been answered when there was a quorum.
///
/// By zone if [`ReplicationSet::max_unavailable_zones`] is not 0, else by instance; one of them has to answer in any case.
/// Unlike
/// [`do_until_quorum`](super::do_until_quorum) it returns all results so far and lets the calls of a failed zone go on.
/// When it returns, or is dropped, the calls left are cancelled and dropped. Cancel-safe in this sense.
///
/// # Errors
///
/// [`FanoutError::Failed`] when too many failed, unless a part of the answer is allowed and worth giving: not every
/// instance (zone) failed, nor half the instances in too many zones. [`FanoutError::Terminal`] for a limit error,
/// [`FanoutError::Cancelled`] when it is stopped.
///
/// # Source
///
/// Cortex's `ReplicationSet.Do`. Differs in never waiting for itself: there, more failures than delayed calls block for
/// ever when a part of the answer is allowed.
pub async fn do_all<T, E, F, Fut>(
    set: &ReplicationSet,
    options: &DoAllOptions<E>,
    call: F,
) -> Result<Answers<T, E>, FanoutError<E>>
where
    E: fmt::Display,
    F: Fn(ReplicaCall) -> Fut,
    Fut: Future<Output = Result<T, E>>,
{
    let tracker = AllTracker::new(set, options.delay, options.zone_results_quorum, options.partial_data);
    let engine = Engine {
        set,
        stop: &options.stop,
        parent: options.stop.token().clone(),
        is_terminal: &*options.is_limit_error,
        cleanup: drop,
        leftovers: Dropped,
        keep_tokens: false,
    };
    let outcome = engine.run(tracker, call).await?;
    let fault = |(place, fault): (usize, _)| (Arc::clone(&set.instances[place]), fault);
    let partial = outcome.is_partial.then(|| PartialData {
        faults: outcome.faults.into_iter().map(fault).collect(),
        by_zone: set.max_unavailable_zones > 0,
    });
    Ok(Answers { results: outcome.results.into_iter().map(|(_, result)| result).collect(), partial })
}

/// Decides as Cortex's `ReplicationSet.Do`. Pure.
#[derive(Debug)]
pub(super) struct AllTracker {
    replies: ReadTracker,
    calls: Vec<Call>,
    held: VecDeque<usize>,
    delay: Duration,
    zone_results_quorum: bool,
    partial_data: bool,
    actions: VecDeque<Action>,
    verdict: Verdict,
}

impl AllTracker {
    pub(super) fn new(
        set: &ReplicationSet,
        delay: Duration,
        zone_results_quorum: bool,
        partial_data: bool,
    ) -> Self {
        let replies = ReadTracker::new(set);
        let by_zone = matches!(replies, ReadTracker::Zones(_));
        let num_held = if delay.is_zero() || by_zone { 0 } else { tolerated(set.len(), set.max_errors) };
        let mut tracker = Self {
            verdict: if replies.succeeded() { Verdict::Reached } else { Verdict::Pending },
            replies,
            calls: vec![Call::Held; set.len()],
            held: (set.len() - num_held..set.len()).collect(),
            delay,
            zone_results_quorum,
            partial_data,
            actions: VecDeque::new(),
        };
        if tracker.verdict == Verdict::Pending {
            (0..set.len() - num_held).for_each(|place| tracker.start(place));
        }
        tracker
    }

    fn start(&mut self, place: usize) {
        self.calls[place] = Call::Running;
        self.actions.push_back(Action::Start(place));
    }

    fn judge(&self) -> Verdict {
        let replies = &self.replies;
        if replies.succeeded() {
            Verdict::Reached
        } else if replies.failed() && (!self.partial_data || replies.failed_completely()) {
            Verdict::Failed
        } else if replies.finished() {
            Verdict::Partly
        } else {
            Verdict::Pending
        }
    }
}

impl Decide for AllTracker {
    fn handle_reply(&mut self, place: usize, reply: Reply) {
        if self.verdict != Verdict::Pending || self.calls.get(place) != Some(&Call::Running) {
            return;
        }
        let ok = reply == Reply::Ok;
        self.calls[place] = if ok { Call::Succeeded } else { Call::Failed };
        self.replies.record(place, ok);
        self.verdict = if reply == Reply::Terminal { Verdict::Terminal } else { self.judge() };
        if !ok
            && self.verdict == Verdict::Pending
            && let Some(next) = self.held.pop_front()
        {
            self.start(next);
        }
    }

    fn handle_tick(&mut self) {
        while let Some(next) = self.held.pop_front() {
            self.start(next);
        }
    }

    fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    fn tick_after(&self) -> Option<Duration> {
        (!self.held.is_empty()).then_some(self.delay)
    }

    fn verdict(&self) -> Verdict {
        self.verdict
    }

    fn keeps(&self, place: usize) -> bool {
        let counts = match &self.replies {
            ReadTracker::Zones(zones) if self.zone_results_quorum => zones.zone_finished(place),
            ReadTracker::Zones(_) | ReadTracker::Count(_) => true,
        };
        counts && self.calls.get(place) == Some(&Call::Succeeded)
    }
}
