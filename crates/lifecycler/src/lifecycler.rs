//! [`Lifecycler`]: the machine's shell, a service. Does what the machine says on a real store, clock and disk.

use std::future::{pending, ready};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use async_trait::async_trait;
use futures::future::BoxFuture;
use ringkit_config::AutoDuration;
use ringkit_kv::{Client, Decision, Update, Watch};
use ringkit_ring::{Desc, InstanceDesc};
use ringkit_runtime::{Backoff, CancellationToken, Cause, Clock, Meter, Service};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until};
use tracing::{debug, error, info, warn};

use crate::error::Error;
use crate::forget::{Ghost, Ghosts, Verdict};
use crate::handle::{ChangeState, Handle, MAX_QUEUED_CHANGES, Request, Shared, Status};
use crate::machine::{Action, Event, Machine, Notice, Now};
use crate::metrics::Metrics;
use crate::options::Options;
use crate::readiness::Part;
use crate::tokens_file::{self, Loaded, TokensFile};

/// One call to the store, and one write with all its attempts. The service handles nothing else while a write is under
/// way, so this also bounds how long a hanging store delays the shutdown.
const CALL_TIMEOUT: Duration = Duration::from_secs(5);
const WRITE_TIMEOUT: Duration = Duration::from_secs(10);

const MIN_WATCH_RETRY: Duration = Duration::from_millis(100);
const MAX_WATCH_RETRY: Duration = Duration::from_secs(5);

/// An instance's life as described by `options`, on the ring that `client` reaches: the service, and a handle to it.
///
/// `seed` makes tokens and jitter reproducible; without it the operating system seeds.
pub fn new(
    options: Options,
    client: Client<Desc>,
    clock: Clock,
    meter: &Meter,
    seed: Option<u64>,
) -> (Lifecycler, Handle) {
    let metrics = Metrics::register(meter, &options);
    metrics.tokens_to_own.set(options.num_tokens as f64);
    let client = client.with_deadlines(CALL_TIMEOUT, WRITE_TIMEOUT);
    let shared = Arc::new(Shared::new(options, clock, metrics));
    let (sender, receiver) = mpsc::channel(MAX_QUEUED_CHANGES);
    let follower = Follower::new(client.clone(), shared.options.key.clone());
    let ghosts = shared
        .options
        .auto_forget
        .or_else(|| shared.options.delegates.iter().find_map(|delegate| delegate.auto_forget()))
        .and_then(|rules| {
            Ghosts::new(rules, shared.options.heartbeat_timeout, shared.options.heartbeat_period)
        });
    let lifecycler = Lifecycler {
        ghosts,
        handle: Handle { shared: Arc::clone(&shared), changes: sender.clone() },
        machine: Machine::new(shared.options.clone(), None, 0),
        seed: seed.unwrap_or_else(rand::random),
        synced: Some(client.synced()),
        proceed_at: match shared.options.join_after {
            AutoDuration::After(delay) if !delay.is_zero() => Some(delay),
            AutoDuration::Auto | AutoDuration::After(_) => None,
        },
        client,
        follower,
        changes: receiver,
        unanswered: Vec::new(),
        version: 0,
        shared: Arc::clone(&shared),
    };
    (lifecycler, Handle { shared, changes: sender })
}

/// An instance's life in a ring, as a service.
///
/// Starting needs no store: while the store is down the service runs, tries again, and says so in its readiness.
/// Stopping announces the departure, stays for the final sleep and unregisters, all within the stopping phase.
/// A service that is dropped without being stopped says nothing to the ring, like a crash.
pub struct Lifecycler {
    shared: Arc<Shared>,
    client: Client<Desc>,
    machine: Machine,
    seed: u64,
    synced: Option<watch::Receiver<bool>>,
    /// When the store is used even if it does not reflect its cluster yet: whoever gives a duration means it. Who joins at once
    /// has no reason not to know who is there.
    proceed_at: Option<Duration>,
    follower: Follower,
    /// Who is to be forgotten, if anybody ever is.
    ghosts: Option<Ghosts>,
    /// For delegates.
    handle: Handle,
    changes: mpsc::Receiver<Request>,
    /// Changes of state that the ring does not know yet.
    unanswered: Vec<ChangeState>,
    /// The version of the ring after the own last write: older looks at the ring are out of date.
    version: u64,
}

#[async_trait]
impl Service for Lifecycler {
    async fn start(&mut self, _stop: &CancellationToken) -> Result<(), Cause> {
        let options = self.shared.options.clone();
        for delegate in options.delegates.iter() {
            let (delegate, id) = (Arc::clone(delegate), options.id.clone());
            tokio::task::spawn_blocking(move || delegate.prepare(&id)).await??;
        }
        let loaded = load_tokens(&options).await?;
        self.machine = Machine::new(options, loaded.file, self.seed);
        if loaded.regenerate {
            self.machine.draw_anew();
        }
        Ok(())
    }

    async fn run(&mut self, stop: CancellationToken) -> Result<(), Cause> {
        self.live(stop.cancelled()).await;
        Ok(())
    }

    async fn stop(&mut self, failure: Option<&Cause>) -> Result<(), Cause> {
        if failure.is_none() {
            let (delegates, handle) = (self.shared.options.delegates.clone(), self.handle.clone());
            if !delegates.is_empty() {
                // Heartbeats and changes of state go on meanwhile.
                self.live(async move {
                    for delegate in delegates.iter() {
                        delegate.on_stopping(&handle).await;
                    }
                })
                .await;
            }
            self.handle(Event::Stop);
            self.live(pending()).await;
        }
        self.changes.close();
        self.unanswered.clear();
        Ok(())
    }
}

impl Lifecycler {
    /// Does what the machine says until it is finished, or `until` is.
    async fn live(&mut self, until: impl Future<Output = ()>) {
        tokio::pin!(until);
        loop {
            // To completion, outside `select!`: a write dropped half-way could land after the removal. One at a time, so
            // that writes which take longer than a heartbeat period do not keep everything else waiting for ever.
            let acted = match self.machine.poll_action(self.now()) {
                Some(Action::Finished) => return,
                Some(action) => {
                    self.perform(action).await;
                    true
                }
                None => false,
            };
            self.publish_status();
            let timeout = self.machine.poll_timeout().map(|at| self.shared.instant(at));
            let proceed_at = self.proceed_at.map(|at| self.shared.instant(at));
            tokio::select! {
                biased;
                () = &mut until => return,
                () = self.shared.join.notified() => self.handle(Event::Join),
                () = becomes_true(&mut self.synced) => self.handle(Event::Synced),
                Some(request) = self.changes.recv() => self.take(request),
                () = sleep_until_some(timeout) => self.handle(Event::Timeout),
                () = sleep_until_some(proceed_at) => {
                    self.proceed_at = None;
                    self.client.proceed_unsynced();
                }
                seen = self.follower.next() => self.see(seen),
                () = ready(()), if acted => (),
            }
        }
    }

    fn now(&self) -> Now {
        Now { elapsed: self.shared.elapsed(), unix_secs: self.shared.clock.now_secs() }
    }

    fn handle(&mut self, event: Event) {
        self.machine.set_unregister(self.shared.unregister.load(Ordering::Relaxed));
        let (before, registered_at) = (self.machine.state(), self.machine.registered_at());
        let looks_at_ring = matches!(event, Event::Ring(_));
        self.machine.handle_event(self.now(), event);
        self.report(before);
        if looks_at_ring && registered_at != 0 && registered_at != self.machine.registered_at() {
            let options = &self.shared.options;
            warn!(
                ring = options.name,
                instance = options.id,
                "the ring had lost this instance, which registers anew"
            );
        }
    }

    fn take(&mut self, request: Request) {
        match request {
            Request::Change(change) => self.change_state(change),
            Request::Renew { ratio, reply } => {
                let renewed = self.machine.renew_tokens(self.now(), ratio);
                if let Ok(renewed) = renewed {
                    info!(ring = self.shared.options.name, renewed, "gave up tokens for new ones");
                }
                drop(reply.send(renewed));
            }
            Request::Rested => self.handle(Event::Rested),
        }
    }

    fn change_state(&mut self, change: ChangeState) {
        let before = self.machine.state();
        let changed = if change.for_now {
            self.machine.change_state_for_now(self.now(), change.to)
        } else {
            self.machine.change_state(self.now(), change.to)
        };
        match changed {
            Ok(()) => self.unanswered.push(change),
            Err(error) => drop(change.reply.send(Err(error))),
        }
        self.report(before);
    }

    fn report(&mut self, before: ringkit_ring::State) {
        let options = &self.shared.options;
        while let Some(notice) = self.machine.poll_notice() {
            if matches!(notice, Notice::Rival { .. }) {
                self.shared.metrics.rivals.increment(1);
            }
            log_notice(options, &notice);
        }
        let after = self.machine.state();
        if before != after {
            info!(ring = options.name, instance = options.id, from = %before, to = %after, "instance changed state");
        }
    }

    fn see(&mut self, seen: Result<Update<Desc>, ringkit_kv::Error>) {
        match seen {
            Ok(update) if update.value.is_some() && update.version < self.version => (),
            Ok(update) => {
                self.set_store_problem(Part::Watch, None);
                let elapsed = self.shared.elapsed();
                if let (Some(ghosts), Some(ring)) = (&mut self.ghosts, &update.value) {
                    ghosts.saw(elapsed, ring);
                }
                self.shared.saw_ring(update.value.clone());
                self.handle(Event::Ring(update.value));
            }
            Err(error) => self.set_store_problem(Part::Watch, Some(&error)),
        }
    }

    async fn perform(&mut self, action: Action) {
        match action {
            Action::Write { entry, heartbeat, decisive } => self.write(&entry, heartbeat, decisive).await,
            Action::Save(file) => self.save(file).await,
            Action::Remove => self.remove().await,
            Action::Finished => (),
        }
    }

    async fn write(&mut self, entry: &InstanceDesc, heartbeat: bool, decisive: bool) {
        let options = &self.shared.options;
        let result = if decisive {
            self.client.upsert_own_and_read(&options.key, &options.id, entry).await
        } else {
            self.client.upsert_own(&options.key, &options.id, entry).await
        };
        if heartbeat {
            self.shared.metrics.heartbeat(result.is_ok());
        }
        match result {
            Ok(view) => {
                debug!(ring = options.name, state = %entry.state, timestamp = entry.timestamp, "wrote the own entry");
                self.version = view.version;
                self.set_store_problem(Part::Write, None);
                self.handle(Event::Written(Arc::clone(&view.value)));
                self.publish_status();
                self.shared.saw_ring(Some(view.value));
                if heartbeat {
                    self.forget_ghosts().await;
                }
            }
            Err(error) => {
                self.set_store_problem(Part::Write, Some(&error));
                self.handle(Event::WriteFailed);
                for change in self.unanswered.drain(..) {
                    let (state, cause) = (self.machine.state(), error.to_string());
                    drop(change.reply.send(Err(Error::Unpublished { state, cause })));
                }
            }
        }
    }

    async fn save(&mut self, file: TokensFile) {
        let options = &self.shared.options;
        for delegate in options.delegates.iter() {
            let (delegate, id, tokens) = (Arc::clone(delegate), options.id.clone(), file.tokens.clone());
            let state = self.machine.state();
            let told = tokio::task::spawn_blocking(move || delegate.on_tokens(&id, &tokens, state)).await;
            if let Ok(Err(error)) = told {
                warn!(ring = options.name, instance = options.id, %error, "a delegate cannot keep the tokens");
            }
        }
        save_tokens(options, file).await;
    }

    /// Removes those of whom nobody has heard for long, unless they are heard of at the last moment.
    async fn forget_ghosts(&mut self) {
        let (shared, elapsed) = (Arc::clone(&self.shared), self.shared.elapsed());
        let (options, metrics) = (&shared.options, &shared.metrics);
        let Some(ghosts) = &mut self.ghosts else { return };
        ghosts.sign_of_life(elapsed);
        let ghosts = match ghosts.verdict(&options.id) {
            Verdict::Forget(ghosts) if ghosts.is_empty() => return,
            Verdict::Forget(ghosts) => ghosts,
            Verdict::HeldBack { ghosts, healthy, of } => {
                metrics.forgetting_held_back.increment(1);
                warn!(
                    ring = options.name,
                    ghosts,
                    healthy,
                    of,
                    "instances are silent for long, but too few are healthy to forget any"
                );
                return;
            }
        };
        let decide = |ring: Option<&Desc>| {
            let silent = |ghost: &&Ghost| {
                let entry = ring.and_then(|ring| ring.get(&ghost.id));
                entry.is_some_and(|entry| entry.timestamp == ghost.timestamp)
            };
            let gone: Vec<Ghost> = ghosts.iter().filter(silent).cloned().collect();
            let (Some(ring), false) = (ring, gone.is_empty()) else { return Decision::Keep(gone) };
            let mut ring = ring.clone();
            for ghost in &gone {
                ring.remove(&ghost.id);
            }
            Decision::Write(ring, gone)
        };
        match self.client.cas(&options.key, decide).await {
            Ok(outcome) => {
                for ghost in outcome.result {
                    metrics.forgotten.increment(1);
                    info!(
                        ring = options.name,
                        instance = %ghost.id,
                        by = options.id,
                        silent_for = ?ghost.silent_for,
                        "forgot an instance that nobody has heard of for long"
                    );
                }
            }
            // The next heartbeat tries again.
            Err(error) => debug!(ring = options.name, %error, "cannot forget instances"),
        }
    }

    async fn remove(&mut self) {
        let options = &self.shared.options;
        match self.client.remove_own(&options.key, &options.id).await {
            Ok(()) => {
                info!(ring = options.name, instance = options.id, "instance unregistered from the ring");
                self.shared.metrics.tokens_owned.set(0.0);
                self.shared.metrics.tokens_to_own.set(0.0);
            }
            Err(error) => warn!(
                ring = options.name,
                instance = options.id,
                %error,
                "could not unregister: the instance stays in the ring until it is forgotten there",
            ),
        }
        self.handle(Event::Removed);
    }

    /// Remembers why the store does not work, and logs when it stops working and when it works again.
    fn set_store_problem(&self, part: Part, problem: Option<&ringkit_kv::Error>) {
        if problem.is_some() {
            self.shared.metrics.store_errors.increment(1);
        }
        let is_news = self.shared.readiness.lock().set_store_problem(part, problem.map(ToString::to_string));
        let ring = self.shared.options.name;
        match problem {
            Some(error) if is_news => warn!(ring, %error, "the ring's store failed, trying again"),
            Some(error) => debug!(ring, %error, "the ring's store failed again"),
            None if is_news => info!(ring, "the ring's store works again"),
            None => (),
        }
    }

    fn publish_status(&mut self) {
        let machine = &self.machine;
        let status = Status {
            state: machine.state(),
            tokens: machine.tokens().clone(),
            registered_at: machine.registered_at(),
            waits_for: machine.waits_for().filter(|first| **first != self.shared.options.id).cloned(),
            joined: machine.is_joined(),
            published: machine.is_published(),
        };
        if status.published || machine.is_forgotten() {
            let (done, others): (Vec<_>, Vec<_>) =
                self.unanswered.drain(..).partition(|change| change.to == status.state);
            done.into_iter().for_each(|change| drop(change.reply.send(Ok(()))));
            if machine.is_joined() {
                let superseded = |to| Error::Superseded { to, state: status.state };
                others.into_iter().for_each(|change| drop(change.reply.send(Err(superseded(change.to)))));
            } else {
                self.unanswered = others;
            }
        }
        let shared = &self.shared;
        shared.status.send_if_modified(|known| {
            let changed = *known != status;
            if known.tokens != status.tokens {
                shared.metrics.tokens_owned.set(status.tokens.len() as f64);
            }
            *known = status;
            changed
        });
    }
}

fn log_notice(options: &Options, notice: &Notice) {
    let (ring, instance) = (options.name, &options.id);
    match notice {
        Notice::WaitsFor(first) => {
            info!(ring, instance, %first, "waiting for an instance to choose tokens first");
        }
        Notice::GaveUpOn { first, waited } => warn!(
            ring,
            instance,
            %first,
            ?waited,
            "an instance is alive and has not chosen tokens for too long: not waiting for it any more"
        ),
        Notice::Rival { addr } => error!(
            ring,
            instance,
            own_addr = options.addr,
            rival_addr = addr,
            "another process lives under the id of this one, and both write the same entry: stop one of them, or give it an \
             id of its own"
        ),
        Notice::TooFewTokens { wanted, available } => warn!(
            ring,
            instance,
            wanted,
            available,
            "there are fewer tokens than wanted: joining with those, or with none trying again"
        ),
    }
}

async fn load_tokens(options: &Options) -> Result<Loaded, Cause> {
    let Some(path) = options.tokens_file_path.clone() else { return Ok(Loaded::default()) };
    let (id, on_corrupt) = (options.id.clone(), options.on_corrupt);
    let loaded = tokio::task::spawn_blocking(move || tokens_file::load_or(&path, &id, on_corrupt)).await??;
    if let Some(problem) = &loaded.problem {
        warn!(%problem, "the tokens file is not as it was saved");
    }
    if let Some(file) = &loaded.file {
        info!(tokens = file.tokens.len(), state = %file.previous_state, "loaded the tokens file");
    }
    Ok(loaded)
}

async fn save_tokens(options: &Options, file: TokensFile) {
    let Some(path) = options.tokens_file_path.clone() else { return };
    let id = options.id.clone();
    let saved = tokio::task::spawn_blocking(move || tokens_file::save(&path, &id, &file)).await;
    if let Ok(Err(error)) = saved {
        warn!(%error, "the tokens would not survive the loss of the ring");
    }
}

async fn sleep_until_some(at: Option<Instant>) {
    match at {
        Some(at) => sleep_until(at).await,
        None => pending().await,
    }
}

/// Resolves once, when the value becomes true, and never again. Cancel safe.
async fn becomes_true(value: &mut Option<watch::Receiver<bool>>) {
    if let Some(receiver) = value
        && receiver.wait_for(|value| *value).await.is_ok()
    {
        *value = None;
        return;
    }
    *value = None;
    pending::<()>().await;
}

/// Follows the ring through faults of its store.
struct Follower {
    client: Client<Desc>,
    key: String,
    retry: Backoff,
    watch: Link,
}

/// Kept between polls, so that what was begun goes on when another branch of the `select!` was quicker.
enum Link {
    Opening(BoxFuture<'static, Result<Watch<Desc>, ringkit_kv::Error>>),
    Open(Watch<Desc>),
    Waiting(Instant),
}

impl Follower {
    fn new(client: Client<Desc>, key: String) -> Self {
        let retry = Backoff::new(MIN_WATCH_RETRY, MAX_WATCH_RETRY);
        Self { client, key, retry, watch: Link::Waiting(Instant::now()) }
    }

    /// The next look at the ring, or why there is none for now. Cancel safe.
    async fn next(&mut self) -> Result<Update<Desc>, ringkit_kv::Error> {
        loop {
            match &mut self.watch {
                Link::Waiting(until) => {
                    sleep_until(*until).await;
                    let (client, key) = (self.client.clone(), self.key.clone());
                    self.watch = Link::Opening(Box::pin(async move { client.watch(&key).await }));
                }
                Link::Opening(opening) => match opening.await {
                    Ok(watch) => self.watch = Link::Open(watch),
                    Err(error) => return Err(self.wait(error)),
                },
                Link::Open(watch) => match watch.next().await {
                    Some(update) => {
                        self.retry.reset();
                        return Ok(update);
                    }
                    None => return Err(self.wait(ringkit_kv::Error::Closed)),
                },
            }
        }
    }

    fn wait(&mut self, error: ringkit_kv::Error) -> ringkit_kv::Error {
        self.watch = Link::Waiting(Instant::now() + self.retry.next());
        error
    }
}

#[cfg(test)]
mod delegated;
#[cfg(test)]
mod tests;
