//! [`do_batch`]: items written to the instances that own them, answered as soon as the outcome is certain.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use futures::FutureExt as _;
use ringkit_runtime::Supervisor;
use tokio::sync::mpsc;

use crate::error::Error;
use crate::operation::Operation;
use crate::quorum::{Failure, FailureReason, Family, ItemTracker, Verdict};
use crate::snapshot::{Instance, Snapshot};
use crate::view::View;

/// What one call to an instance failed with.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct CallError {
    /// Whose fault it is.
    pub family: Family,
    /// HTTP status code.
    pub code: u16,
    /// What happened, in plain words.
    pub message: String,
}

impl CallError {
    /// An error whose family follows from its HTTP status: codes 400–499 are the caller's fault, all others the replica's.
    pub fn new(code: u16, message: impl Into<String>) -> Self {
        let family = if code / 100 == 4 { Family::Client } else { Family::Server };
        Self { family, code, message: message.into() }
    }
}

/// A batch that was written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BatchReport {
    /// How many instances were called.
    pub calls: usize,
    /// How many of them had not answered yet; their calls go on in the background.
    pub unanswered: usize,
}

/// Why a batch was not written, or not for certain.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BatchError {
    /// There is nobody to write to. Nothing was called.
    #[error("DoBatch: InstancesCount <= 0")]
    NoInstances,
    /// Some item has no quorum of healthy owners. Nothing was called.
    #[error(transparent)]
    Ring(#[from] Error),
    /// Some item could not be written to enough of its owners. Others may have been.
    #[error("{message}")]
    Failed {
        /// HTTP status code of the error that decided.
        code: u16,
        /// How the replies decided, which instance's reply was the last straw, and the text of the error.
        message: String,
    },
}

/// Writes an item per token to the instances that own it in `view`, a ring or a tenant's shard of it: `call` is run once
/// per instance, concurrently, with the indexes of its items in ascending order.
///
/// Returns as soon as every item is on a quorum of its owners, or one item cannot be. The calls not yet answered then go
/// on, at most one per instance, as work of `background`, which also bounds their life; so they do when this future is
/// dropped. A call that panics, or ends without an answer because `background` stopped, counts as a server error.
/// `now` is in Unix seconds.
///
/// `call`, with all that it has captured, is dropped once: when the last call has ended, even if one panicked, or at once
/// if nobody is called. What belongs to the request and is to be freed or counted then belongs into it. A deadline is the
/// caller's: a timeout around this future, or [`Cancellation::until`](crate::Cancellation::until) for one with a cause.
///
/// # Errors
///
/// See [`BatchError`]; [`BatchError::Failed`] names the first decisive reply.
///
/// # Source
///
/// Cortex's `DoBatch`. Differs in two points: each item is counted as done once, where further successes of one item
/// stood in for another; and instances are told apart by id, where two on one address were one with a double vote. Of a
/// failed item's errors the dialect chooses.
pub async fn do_batch<F, Fut>(
    view: &impl View,
    op: Operation,
    tokens: &[u32],
    now: i64,
    background: &Supervisor,
    call: F,
) -> Result<BatchReport, BatchError>
where
    F: Fn(Arc<Instance>, Vec<usize>) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<(), CallError>> + Send + 'static,
{
    let Plan { items, calls } = Plan::new(view, op, tokens, now)?;
    let call = Arc::new(call);
    let (answers, mut answered) = mpsc::channel(calls.len().max(1));
    for (number, planned) in calls.iter().enumerate() {
        let answer = Answer { answers: Some(answers.clone()), number };
        let (call, instance, indexes) =
            (Arc::clone(&call), Arc::clone(&planned.instance), planned.items.clone());
        background.spawn_detached_work("batch call", async move {
            // The call is made inside the future too, so that a panic of either kind is caught.
            let outcome = AssertUnwindSafe(async { call(instance, indexes).await }).catch_unwind().await;
            answer.give(outcome.unwrap_or_else(|panic| Err(panicked(&*panic))));
        });
    }
    drop(answers);
    let mut tracker = Tracker::new(items, calls);
    while !tracker.is_done() {
        // Every call answers exactly once, also when it is dropped unrun; the channel cannot run dry before.
        let Some((number, outcome)) = answered.recv().await else {
            // Success needs every item satisfied, whatever becomes of the calls.
            return Err(BatchError::Failed { code: 500, message: "calls ended without an answer".into() });
        };
        tracker.record(number, outcome)?;
    }
    Ok(tracker.report())
}

/// Who gets which items.
struct Plan {
    items: Vec<ItemTracker>,
    calls: Vec<PlannedCall>,
}

struct PlannedCall {
    instance: Arc<Instance>,
    items: Vec<usize>,
}

impl Plan {
    fn new(view: &impl View, op: Operation, tokens: &[u32], now: i64) -> Result<Self, BatchError> {
        const NO_CALL: u32 = u32::MAX;
        if view.is_empty() {
            return Err(BatchError::NoInstances);
        }
        let Snapshot { members, options, .. } = view.snapshot();
        let dialect = options.dialect;
        let mut items = Vec::with_capacity(tokens.len());
        let mut calls: Vec<PlannedCall> = Vec::new();
        let mut call_of = vec![NO_CALL; members.len()];
        for (item, &token) in tokens.iter().enumerate() {
            let replicas = view.get(token, op, now)?;
            items.push(ItemTracker::in_dialect(replicas.len(), replicas.max_errors(), dialect));
            for place in replicas.places {
                let call = &mut call_of[place as usize];
                if *call == NO_CALL {
                    *call = calls.len() as u32;
                    let instance = Arc::clone(&members[place as usize]);
                    calls.push(PlannedCall { instance, items: Vec::new() });
                }
                calls[*call as usize].items.push(item);
            }
        }
        Ok(Self { items, calls })
    }
}

/// Counts answers until the outcome is certain. Pure.
struct Tracker {
    items: Vec<ItemTracker>,
    calls: Vec<PlannedCall>,
    errors: Vec<Option<CallError>>,
    unsatisfied: usize,
    answered: usize,
}

impl Tracker {
    fn new(items: Vec<ItemTracker>, calls: Vec<PlannedCall>) -> Self {
        let (unsatisfied, errors) = (items.len(), vec![None; calls.len()]);
        Self { items, calls, errors, unsatisfied, answered: 0 }
    }

    fn is_done(&self) -> bool {
        self.unsatisfied == 0
    }

    fn report(&self) -> BatchReport {
        BatchReport { calls: self.calls.len(), unanswered: self.calls.len() - self.answered }
    }

    fn record(&mut self, number: usize, outcome: Result<(), CallError>) -> Result<(), BatchError> {
        self.answered += 1;
        let family = outcome.as_ref().err().map(|error| error.family);
        self.errors[number] = outcome.err();
        for &item in &self.calls[number].items {
            let item = &mut self.items[item];
            let verdict = match family {
                None => item.success(),
                Some(family) => item.error(family, number as u32),
            };
            match verdict {
                Verdict::Pending => (),
                Verdict::Satisfied => self.unsatisfied -= 1,
                Verdict::Failed(failure) => return Err(self.failed(failure, number)),
            }
        }
        Ok(())
    }

    fn failed(&self, failure: Failure, number: usize) -> BatchError {
        let reason = match failure.reason {
            FailureReason::TooManyErrors => "maxFailure (quorum) on a given error family",
            FailureReason::NoneRemaining => "not enough remaining instances to try",
        };
        let decisive = &self.calls[number].instance;
        let (addr, state, zone) = (decisive.addr(), decisive.state(), decisive.zone());
        let error = self.errors.get(failure.reply as usize).and_then(Option::as_ref);
        let (code, text) = error.map_or((500, ""), |error| (error.code, error.message.as_str()));
        BatchError::Failed {
            code,
            message: format!("{reason}, addr={addr} state={state} zone={zone}, {text}"),
        }
    }
}

/// Delivers the answer of one call, also when the call is dropped.
struct Answer {
    answers: Option<mpsc::Sender<(usize, Result<(), CallError>)>>,
    number: usize,
}

impl Answer {
    fn give(mut self, outcome: Result<(), CallError>) {
        self.send(outcome);
    }

    fn send(&mut self, outcome: Result<(), CallError>) {
        if let Some(answers) = self.answers.take() {
            // There is room for one answer per call. Nobody listens any more once the outcome was certain.
            let _ = answers.try_send((self.number, outcome));
        }
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        self.send(Err(CallError::new(500, "the call ended without an answer")));
    }
}

fn panicked(panic: &(dyn std::any::Any + Send)) -> CallError {
    let text = panic.downcast_ref::<&str>().copied();
    let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("no text");
    tracing::error!(panic = text, "a batch call panicked");
    CallError::new(500, format!("the call panicked: {text}"))
}
