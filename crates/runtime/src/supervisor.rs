//! Named tasks with one owner: the first failure cancels the rest, and nothing outlives the owner.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::Instrument as _;

use crate::error::{Cause, Failure, Phase};
use crate::service::caught;
use crate::shutdown::{ShutdownReport, Step};

/// After an abort, how long tasks get to reach their next await before they are given up on.
const ABORT_GRACE: Duration = Duration::from_secs(1);

/// Owns tasks. Clones share the ownership: when the last one drops, all tasks are aborted.
///
/// A task that holds a clone of its own supervisor keeps it alive; it then ends by [`stop_token`](Self::stop_token),
/// [`shutdown`](Self::shutdown) or [`abort_all`](Self::abort_all).
#[derive(Clone, Debug)]
pub struct Supervisor(Arc<Owner>);

impl Supervisor {
    /// A supervisor without tasks. The name appears in logs and reports.
    pub fn new(name: impl Into<Arc<str>>) -> Self {
        Self(Arc::new(Owner(Arc::new(Shared {
            name: name.into(),
            stop: CancellationToken::new(),
            kill: CancellationToken::new(),
            tasks: Mutex::default(),
            idle: Notify::new(),
            failure: watch::Sender::new(None),
        }))))
    }

    /// Starts a task on the current tokio runtime. Its first error or panic is kept (see [`failed`](Self::failed))
    /// and cancels the stop token for all. After a shutdown the future is dropped unpolled.
    pub fn spawn(&self, name: &str, work: impl Future<Output = Result<(), Cause>> + Send + 'static) {
        let Some(task) = self.0.0.register(Cow::Owned(name.to_owned())) else { return };
        let span = tracing::info_span!("task", task = name);
        let name: Arc<str> = name.into();
        let supervised = async move {
            let Some(Err(cause)) = task.shared.kill.run_until_cancelled(caught(work)).await else { return };
            task.shared.fail(Failure { name, phase: Phase::Run, cause });
        };
        tokio::spawn(supervised.instrument(span));
    }

    /// Starts work that answers to nobody, such as the calls that remain after an early answer. The caller bounds
    /// how much of it there is; it ends with the owner. A panic is logged and concerns nobody else.
    pub fn spawn_detached_work(&self, name: &'static str, work: impl Future<Output = ()> + Send + 'static) {
        let Some(task) = self.0.0.register(Cow::Borrowed(name)) else { return };
        let supervised = async move {
            let work = caught(async {
                work.await;
                Ok(())
            });
            if let Some(Err(cause)) = task.shared.kill.run_until_cancelled(work).await {
                tracing::error!(task = name, error = %cause, "background work failed");
            }
        };
        tokio::spawn(supervised.in_current_span());
    }

    /// Cancelled by the first failure, by [`shutdown`](Self::shutdown) and by [`abort_all`](Self::abort_all).
    pub fn stop_token(&self) -> CancellationToken {
        self.0.0.stop.clone()
    }

    /// The first failure so far.
    pub fn failure(&self) -> Option<Arc<Failure>> {
        self.0.0.failure.borrow().clone()
    }

    /// Waits for the first failure; for ever if there is none. Cancel-safe.
    pub async fn failed(&self) -> Arc<Failure> {
        let mut failures = self.0.0.failure.subscribe();
        loop {
            if let Some(failure) = failures.borrow_and_update().clone() {
                return failure;
            }
            if failures.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }

    /// Tasks that have not ended yet.
    pub fn num_tasks(&self) -> usize {
        self.0.0.tasks.lock().running.len()
    }

    /// Cancels the stop token and waits for all tasks; those not done after `deadline` are aborted and reported.
    /// No task can be spawned afterwards.
    pub async fn shutdown(&self, deadline: Duration) -> ShutdownReport {
        let shared = &self.0.0;
        let started = Instant::now();
        shared.stop.cancel();
        let in_time = tokio::time::timeout(deadline, shared.idle()).await.is_ok();
        let mut late = shared.close();
        late.sort();
        if !in_time {
            tracing::warn!(supervisor = %shared.name, tasks = ?late, ?deadline, "tasks did not end in time");
            shared.kill.cancel();
            let _ = tokio::time::timeout(ABORT_GRACE, shared.idle()).await;
        }
        let step = Step { name: shared.name.to_string(), took: started.elapsed(), late: !in_time };
        ShutdownReport { steps: vec![step], late }
    }

    /// Drops all tasks at their next await. No task can be spawned afterwards.
    pub fn abort_all(&self) {
        self.0.0.abort();
    }
}

/// Held by supervisors only, never by tasks.
struct Owner(Arc<Shared>);

impl fmt::Debug for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Supervisor").field(&self.0.name).finish()
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        self.0.abort();
    }
}

struct Shared {
    name: Arc<str>,
    stop: CancellationToken,
    kill: CancellationToken,
    tasks: Mutex<Tasks>,
    /// Notified when the last task ends.
    idle: Notify,
    failure: watch::Sender<Option<Arc<Failure>>>,
}

#[derive(Default)]
struct Tasks {
    closed: bool,
    next_id: u64,
    running: HashMap<u64, Cow<'static, str>>,
}

impl Shared {
    fn register(self: &Arc<Self>, name: Cow<'static, str>) -> Option<Task> {
        let mut tasks = self.tasks.lock();
        if tasks.closed {
            tracing::debug!(supervisor = %self.name, task = %name, "task not started: its owner has stopped");
            return None;
        }
        let id = tasks.next_id;
        tasks.next_id += 1;
        tasks.running.insert(id, name);
        Some(Task { shared: Arc::clone(self), id })
    }

    fn fail(&self, failure: Failure) {
        tracing::error!(supervisor = %self.name, task = %failure.name, error = %failure.cause, "task failed");
        self.failure.send_if_modified(|first| {
            let is_first = first.is_none();
            first.get_or_insert_with(|| Arc::new(failure));
            is_first
        });
        self.stop.cancel();
    }

    fn close(&self) -> Vec<String> {
        let mut tasks = self.tasks.lock();
        tasks.closed = true;
        tasks.running.values().map(ToString::to_string).collect()
    }

    fn abort(&self) {
        self.close();
        // In this order: nobody gets to act on a request to stop.
        self.kill.cancel();
        self.stop.cancel();
    }

    async fn idle(&self) {
        loop {
            // Made before the tasks are counted: it hears of everything from here on, polled or not.
            let idle = self.idle.notified();
            if self.tasks.lock().running.is_empty() {
                return;
            }
            idle.await;
        }
    }
}

/// A task's entry in the register: removed when the task ends or is dropped.
struct Task {
    shared: Arc<Shared>,
    id: u64,
}

impl Drop for Task {
    fn drop(&mut self) {
        let mut tasks = self.shared.tasks.lock();
        tasks.running.remove(&self.id);
        if tasks.running.is_empty() {
            self.shared.idle.notify_waiters();
        }
    }
}

#[cfg(test)]
mod tests;
