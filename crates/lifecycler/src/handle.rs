//! [`Handle`]: what the rest of a process sees of an instance's life, and how it intervenes.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use ringkit_ring::{Desc, EntryId, State, Tokens, is_fresh};
use ringkit_runtime::Clock;
use tokio::sync::{Notify, mpsc, oneshot, watch};
use tokio::time::Instant;

use crate::error::Error;
use crate::metrics::Metrics;
use crate::options::Options;
use crate::readiness::{Readiness, Subject};

/// Where an instance stands.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Status {
    /// The state the instance considers itself in.
    pub state: State,
    /// The tokens it considers its own, sorted.
    pub tokens: Tokens,
    /// When it registered, in Unix seconds; 0 = unknown.
    pub registered_at: i64,
    /// Another instance that is to choose its tokens before this one does; `None` = nobody.
    pub waits_for: Option<EntryId>,
    /// Whether joining is done.
    pub joined: bool,
    /// Whether the ring says the same, as far as is known.
    pub published: bool,
}

/// A question to the service, with the place for its answer.
pub(crate) struct ChangeState {
    pub(crate) to: State,
    /// Whether the next life is to know nothing of it.
    pub(crate) for_now: bool,
    pub(crate) reply: oneshot::Sender<Result<(), Error>>,
}

/// What a handle asks of the service.
pub(crate) enum Request {
    Change(ChangeState),
    Renew { ratio: f64, reply: oneshot::Sender<Result<usize, Error>> },
    Rested,
}

/// Requests wait here while a write is under way.
pub(crate) const MAX_QUEUED_CHANGES: usize = 16;

/// What the service and its handles share.
pub(crate) struct Shared {
    pub(crate) options: Options,
    pub(crate) clock: Clock,
    pub(crate) metrics: Metrics,
    pub(crate) status: watch::Sender<Status>,
    pub(crate) join: Notify,
    pub(crate) unregister: AtomicBool,
    pub(crate) readiness: Mutex<Readiness>,
    healthy_instances: AtomicUsize,
    origin: Instant,
}

impl Shared {
    pub(crate) fn new(options: Options, clock: Clock, metrics: Metrics) -> Self {
        let status = Status {
            state: State::Pending,
            tokens: Tokens::empty(),
            registered_at: 0,
            waits_for: None,
            joined: false,
            published: false,
        };
        Self {
            unregister: AtomicBool::new(options.unregister_on_shutdown),
            options,
            clock,
            metrics,
            status: watch::Sender::new(status),
            join: Notify::new(),
            readiness: Mutex::default(),
            healthy_instances: AtomicUsize::new(0),
            origin: Instant::now(),
        }
    }

    pub(crate) fn elapsed(&self) -> Duration {
        self.origin.elapsed()
    }

    /// The moment `elapsed` after the origin.
    pub(crate) fn instant(&self, elapsed: Duration) -> Instant {
        self.origin + elapsed
    }

    /// Takes in the ring as last seen; `None` = there is no such key.
    pub(crate) fn saw_ring(&self, ring: Option<Arc<Desc>>) {
        let now = self.clock.now_secs();
        let timeout = self.options.heartbeat_timeout;
        let healthy = ring.as_deref().map_or(0, |ring| {
            let is_healthy = |entry: &ringkit_ring::InstanceDesc| {
                entry.state == State::Active && is_fresh(entry.timestamp, now, timeout)
            };
            ring.iter().filter(|(_, entry)| is_healthy(entry)).count()
        });
        self.healthy_instances.store(healthy, Ordering::Relaxed);
        self.readiness.lock().saw_ring(ring);
        // Asked now, so that the time of being ready counts from when it began, not from the first probe.
        let _ = self.ready();
    }

    pub(crate) fn ready(&self) -> Result<(), String> {
        let tokens = self.status.borrow().tokens.clone();
        let subject = Subject {
            id: &self.options.id,
            tokens: &tokens,
            heartbeat_timeout: self.options.heartbeat_timeout,
            min_ready_duration: self.options.min_ready_duration,
            zone: &self.options.zone,
            check: self.options.readiness_check,
        };
        self.readiness.lock().check(&subject, self.elapsed(), self.clock.now_secs())
    }
}

/// What the rest of a process sees of an instance's life. Cheap to clone.
#[derive(Clone)]
pub struct Handle {
    pub(crate) shared: Arc<Shared>,
    pub(crate) changes: mpsc::Sender<Request>,
}

impl Handle {
    /// The instance's id in the ring.
    pub fn id(&self) -> &str {
        &self.shared.options.id
    }

    /// The state the instance considers itself in; the ring may lag behind.
    pub fn state(&self) -> State {
        self.shared.status.borrow().state
    }

    /// The status now and each time it changes.
    pub fn watch(&self) -> watch::Receiver<Status> {
        self.shared.status.subscribe()
    }

    /// Joins the ring, after `join_after`. Never blocks; before the start it is remembered, a second time it does nothing.
    pub fn join(&self) {
        self.shared.join.notify_one();
    }

    /// Goes to another state and waits until the ring says so. From PENDING or JOINING, ACTIVE and READONLY mean to join
    /// and to end there. Going to the present state is success.
    ///
    /// Waits for the service to be running. Cancel safe in that the change, once taken in, is not undone.
    ///
    /// # Errors
    ///
    /// [`Error::Disallowed`]: nothing changed. [`Error::Unpublished`]: the state changed, but the store failed to take it;
    /// it is tried again until it does. [`Error::NotRunning`] after the end.
    pub async fn change_state(&self, to: State) -> Result<(), Error> {
        self.ask_for_state(to, false).await
    }

    /// As [`Handle::change_state`], of which the tokens file is not told: after a restart the instance is what it was before.
    ///
    /// # Errors
    ///
    /// As [`Handle::change_state`].
    pub async fn change_state_for_now(&self, to: State) -> Result<(), Error> {
        self.ask_for_state(to, true).await
    }

    async fn ask_for_state(&self, to: State, for_now: bool) -> Result<(), Error> {
        let (reply, answer) = oneshot::channel();
        let change = Request::Change(ChangeState { to, for_now, reply });
        self.changes.send(change).await.map_err(|_| Error::NotRunning)?;
        answer.await.unwrap_or(Err(Error::NotRunning))
    }

    /// Gives up this part of the tokens, between 0 and 1, for new ones, and tells how many.
    ///
    /// # Errors
    ///
    /// [`Error::NotJoined`] or [`Error::NotRunning`].
    pub async fn renew_tokens(&self, ratio: f64) -> Result<usize, Error> {
        let (reply, answer) = oneshot::channel();
        self.changes.send(Request::Renew { ratio, reply }).await.map_err(|_| Error::NotRunning)?;
        answer.await.unwrap_or(Err(Error::NotRunning))
    }

    /// Whatever the final sleep waits for is through: it ends, now or when it begins.
    pub async fn end_final_sleep(&self) {
        // Who has ended does not sleep.
        let _ = self.changes.send(Request::Rested).await;
    }

    /// Becomes ACTIVE: for a member that registered as JOINING and has loaded what it needs.
    ///
    /// # Errors
    ///
    /// As [`Handle::change_state`].
    pub async fn activate(&self) -> Result<(), Error> {
        self.change_state(State::Active).await
    }

    /// Whether the instance is ready to serve. Once it was, it stays so.
    ///
    /// # Errors
    ///
    /// The reason, in plain words.
    pub fn ready(&self) -> Result<(), String> {
        self.shared.ready()
    }

    /// How many instances of the ring take writes: ACTIVE with a fresh heartbeat, as of the last look at the ring.
    pub fn healthy_instances(&self) -> usize {
        self.shared.healthy_instances.load(Ordering::Relaxed)
    }

    /// When the instance registered, in Unix seconds; 0 = unknown.
    pub fn registered_at(&self) -> i64 {
        self.shared.status.borrow().registered_at
    }

    /// Whether the entry is removed from the ring at the end. May be changed until then.
    pub fn set_unregister_on_shutdown(&self, unregister: bool) {
        self.shared.unregister.store(unregister, Ordering::Relaxed);
    }

    /// Whether the entry is removed from the ring at the end.
    pub fn unregister_on_shutdown(&self) -> bool {
        self.shared.unregister.load(Ordering::Relaxed)
    }

    /// Reports how long handing over data at shutdown took, as `cortex_shutdown_duration_seconds{op="flush"}`.
    pub fn record_flush(&self, took: Duration, succeeded: bool) {
        self.shared.metrics.flushed(took, succeeded);
    }
}

impl std::fmt::Debug for Handle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Handle").field("id", &self.shared.options.id).field("state", &self.state()).finish()
    }
}
