//! [`Drain`]: how an instance is taken out of service without fear.
//!
//! READONLY, so that nobody sends it anything new → everything that it alone has is elsewhere, which the service's own
//! [`Condition`]s say → LEAVING → gone. Until LEAVING it answers reads as before. The process ends by itself once
//! everything of it is drained.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use ringkit_ring::{Desc, Operation, Ring, Snapshot, State};
use ringkit_runtime::{Drainable, Progress, Stage};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::error::Error;
use crate::handle::Handle;

/// How often conditions are asked.
const PERIOD: Duration = Duration::from_secs(1);
/// How often a change of state is tried while the store does not take it.
const RETRY: Duration = Duration::from_secs(1);
/// How many places of the ring are tried out before an instance may go.
const PLACES: usize = 4096;

/// What must hold before an instance may leave.
#[async_trait]
pub trait Condition: Send + Sync + 'static {
    /// Whether it holds; if not, what is missing, in plain words.
    async fn check(&self) -> Result<(), Missing>;

    /// Once all conditions hold: from now on nothing may happen that could make this one fail, or, with `false`, it may again.
    /// It is asked once more after that.
    fn seal(&self, _sealed: bool) {}
}

/// Why an instance must stay for now.
#[derive(Clone, Debug, PartialEq)]
pub struct Missing {
    /// What is missing, in plain words.
    pub reason: String,
    /// How long it will take, if that is known.
    pub estimate: Option<Duration>,
}

/// Takes an instance out of service. Cheap to clone.
#[derive(Clone)]
pub struct Drain {
    shared: Arc<Shared>,
}

struct Shared {
    handle: Handle,
    /// The ring of the instance, if others' replicas depend on it.
    ring: Option<Ring>,
    conditions: Vec<Arc<dyn Condition>>,
    progress: watch::Sender<Progress>,
}

impl Drain {
    /// Of the instance behind `handle`. With `ring`, it is refused while the others could not serve without it.
    pub fn new(handle: Handle, ring: Option<Ring>, conditions: Vec<Arc<dyn Condition>>) -> Self {
        let progress = Progress {
            instance: handle.id().to_owned(),
            stage: Stage::None,
            state: String::new(),
            forced: false,
            missing: Vec::new(),
            estimate: None,
        };
        let progress = watch::Sender::new(progress);
        Self { shared: Arc::new(Shared { handle, ring, conditions, progress }) }
    }

    /// Waits until it is asked for, then does it. To be polled beside the instance's life.
    pub async fn run(&self) {
        let mut asked = self.shared.progress.subscribe();
        if asked.wait_for(|progress| progress.stage != Stage::None).await.is_err() {
            return;
        }
        let began = Instant::now();
        let id = self.shared.handle.id();
        tracing::info!(instance = id, "draining: taking nothing new");
        // Who has not joined yet has nothing to hand over.
        self.become_read_only().await;
        self.stage(Stage::Waiting);
        self.wait_for_conditions().await;
        tracing::info!(instance = id, "draining: leaving the ring");
        self.stage(Stage::Leaving);
        if matches!(self.shared.handle.state(), State::ReadOnly | State::Active) {
            self.change_state(State::Leaving).await;
        }
        self.shared.handle.set_unregister_on_shutdown(true);
        self.stage(Stage::Done);
        tracing::info!(instance = id, took = ?began.elapsed(), "drained");
    }

    async fn become_read_only(&self) {
        if self.shared.handle.state() == State::Active {
            self.change_state(State::ReadOnly).await;
        }
    }

    fn stage(&self, stage: Stage) {
        self.shared.progress.send_modify(|progress| {
            progress.stage = stage;
            progress.missing.clear();
            progress.estimate = None;
        });
    }

    /// Until the ring knows, or nobody will ever tell it.
    async fn change_state(&self, to: State) {
        loop {
            match self.shared.handle.change_state_for_now(to).await {
                Ok(()) => return,
                Err(error @ (Error::Disallowed { .. } | Error::NotRunning | Error::Superseded { .. })) => {
                    tracing::warn!(%error, "draining goes on without this change of state");
                    return;
                }
                Err(error) => {
                    self.missing(vec![Missing { reason: error.to_string(), estimate: None }]);
                    if self.shared.progress.borrow().forced {
                        return;
                    }
                    tokio::time::sleep(RETRY).await;
                }
            }
        }
    }

    async fn wait_for_conditions(&self) {
        let mut told = Vec::new();
        loop {
            // It may have joined meanwhile, or somebody may have changed its state.
            self.become_read_only().await;
            let mut missing = self.missing_now().await;
            if missing.is_empty() {
                self.seal(true);
                missing = self.missing_now().await;
                if missing.is_empty() {
                    return;
                }
                self.seal(false);
            }
            self.missing(missing);
            let now = self.shared.progress.borrow().clone();
            if now.missing != told {
                tracing::info!(
                    instance = now.instance,
                    missing = now.missing.join("; "),
                    "draining: waiting"
                );
                told.clone_from(&now.missing);
            }
            if now.forced {
                tracing::warn!(
                    instance = now.instance,
                    missing = now.missing.join("; "),
                    "draining: forced to go all the same"
                );
                self.seal(true);
                return;
            }
            let mut asked = self.shared.progress.subscribe();
            tokio::select! {
                () = tokio::time::sleep(PERIOD) => (),
                _ = asked.wait_for(|progress| progress.forced) => (),
            }
        }
    }

    fn seal(&self, sealed: bool) {
        self.shared.conditions.iter().for_each(|condition| condition.seal(sealed));
    }

    /// What is missing; if it is forced meanwhile, what is known of that.
    async fn missing_now(&self) -> Vec<Missing> {
        // Others may have failed since it began.
        let alone = self.may_begin().err().map(|reason| Missing { reason, estimate: None });
        let mut missing: Vec<Missing> = alone.into_iter().collect();
        let mut forced = self.shared.progress.subscribe();
        for condition in &self.shared.conditions {
            tokio::select! {
                checked = condition.check() => missing.extend(checked.err()),
                _ = forced.wait_for(|progress| progress.forced) => {
                    let reason = "what it waited for was not looked at to the end".to_owned();
                    missing.push(Missing { reason, estimate: None });
                }
            }
        }
        missing
    }

    fn missing(&self, missing: Vec<Missing>) {
        let estimates: Option<Vec<Duration>> = missing.iter().map(|one| one.estimate).collect();
        let estimate = estimates.and_then(|estimates| estimates.into_iter().max());
        self.shared.progress.send_modify(|progress| {
            progress.estimate = estimate;
            progress.missing = missing.into_iter().map(|one| one.reason).collect();
        });
    }
}

impl Drainable for Drain {
    fn progress(&self) -> Progress {
        let progress = self.shared.progress.borrow().clone();
        Progress { state: self.shared.handle.state().to_string(), ..progress }
    }

    fn may_begin(&self) -> Result<(), String> {
        match &self.shared.ring {
            Some(ring) => can_do_without(ring, self.shared.handle.id()),
            None => Ok(()),
        }
    }

    fn begin(&self, force: bool) -> Result<(), String> {
        if !force && self.shared.progress.borrow().stage == Stage::None {
            self.may_begin()?;
        }
        self.shared.progress.send_modify(|progress| {
            progress.forced |= force;
            if progress.stage == Stage::None {
                progress.stage = Stage::ReadOnly;
            }
        });
        Ok(())
    }
}

impl std::fmt::Debug for Drain {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Drain").field("progress", &self.progress()).finish()
    }
}

/// Whether every place of the ring can be written to and read from without `id`.
fn can_do_without(ring: &Ring, id: &str) -> Result<(), String> {
    let (snapshot, now) = (ring.snapshot(), ring.clock().now_secs());
    let mut others = Desc::default();
    for instance in snapshot.instances().iter().filter(|instance| &*instance.id != id) {
        others.insert(instance.id.clone(), ringkit_ring::InstanceDesc::clone(&instance.desc));
    }
    let seen =
        |id: &ringkit_ring::EntryId, _: &ringkit_ring::InstanceDesc| snapshot.seen(id).unwrap_or_default();
    let without = Snapshot::build(&others, seen, snapshot.options());
    let tokens = without.tokens();
    let step = (tokens.len() / PLACES).max(1);
    for (name, op) in [("written to", Operation::WRITE), ("read", Operation::READ)] {
        if tokens.is_empty() {
            return Err(format!("nobody else is in the ring `{}`", ring.options().name));
        }
        for token in tokens.iter().step_by(step) {
            if let Err(error) = without.get(*token, op, now) {
                return Err(format!(
                    "without {id}, a part of the ring `{}` could not be {name}: {error}",
                    ring.options().name
                ));
            }
        }
    }
    Ok(())
}
