//! The store-gateway's life: read the ring, join it, sync, become ACTIVE, leave.

use std::time::Duration;

use async_trait::async_trait;
use ringkit_lifecycler::{Drain, Handle};
use ringkit_ring::{Operation, Ring, State};
use ringkit_runtime::{CancellationToken, Cause, Service, ServiceHandle, ServiceState, StopProcess};
use ringkit_server::Drains;
use tracing::{info, warn};

use crate::stability;

/// How long the gateway waits for others before it starts to work.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Waits {
    /// For its own entry to appear in the ring that it reads.
    pub(crate) state: Duration,
    /// The ring must be quiet this long before the first sync; zero = do not wait.
    pub(crate) stable_for: Duration,
    /// For that quiet at most.
    pub(crate) stable_within: Duration,
}

/// The service of the role.
pub(crate) struct Gateway {
    pub(crate) reader: ServiceHandle,
    pub(crate) lifecycler: ServiceHandle,
    pub(crate) ring: Ring,
    pub(crate) handle: Handle,
    pub(crate) drain: Drain,
    pub(crate) drains: Drains,
    /// Its own id in the ring.
    pub(crate) id: String,
    pub(crate) waits: Waits,
}

#[async_trait]
impl Service for Gateway {
    async fn start(&mut self, _stop: &CancellationToken) -> Result<(), Cause> {
        for part in [&self.reader, &self.lifecycler] {
            part.start_async()?;
            part.await_running().await?;
        }
        self.wait_until_seen_as(State::Joining).await?;
        if !self.waits.stable_for.is_zero() {
            let Waits { stable_for, stable_within, .. } = self.waits;
            if !stability::wait(&self.ring, Operation::BLOCKS_OWNER_SYNC, stable_for, stable_within).await {
                // Blocks would move once more than needed, no more than that.
                warn!(within = ?stable_within, "the ring did not come to rest, going on");
            }
        }
        self.handle.change_state(State::Active).await?;
        self.wait_until_seen_as(State::Active).await?;
        info!(id = self.id, "active in the ring");
        Ok(())
    }

    async fn run(&mut self, stop: CancellationToken) -> Result<(), Cause> {
        let mut parts = [self.reader.watch(), self.lifecycler.watch()];
        let [reader, lifecycler] = &mut parts;
        tokio::select! {
            () = stop.cancelled() => Ok(()),
            () = async {
                self.drain.run().await;
                self.drains.all_done().await;
            } => Err(StopProcess.into()),
            _ = reader.wait_for(|state| *state > ServiceState::Running) => Err(ended(&self.reader)),
            _ = lifecycler.wait_for(|state| *state > ServiceState::Running) => Err(ended(&self.lifecycler)),
        }
    }

    async fn stop(&mut self, _failure: Option<&Cause>) -> Result<(), Cause> {
        // The lifecycler first: the ring is still read while this gateway leaves it.
        let mut first_error = Ok(());
        for part in [&self.lifecycler, &self.reader] {
            part.stop_async();
            if let Err(error) = part.await_terminated().await {
                first_error = first_error.and(Err(error.into()));
            }
        }
        first_error
    }
}

impl Gateway {
    async fn wait_until_seen_as(&self, state: State) -> Result<(), Cause> {
        let mut changes = self.ring.changed();
        let seen = async {
            loop {
                let snapshot = self.ring.snapshot();
                if snapshot.instance(&self.id).is_some_and(|instance| instance.state() == state) {
                    return;
                }
                drop(snapshot);
                if changes.changed().await.is_err() {
                    // The reader has ended, which `run` reports.
                    std::future::pending::<()>().await;
                }
            }
        };
        tokio::time::timeout(self.waits.state, seen).await.map_err(|_| {
            format!(
                "this store-gateway ({}) did not appear as {state} in its ring within {:?}: look at its key-value store, or raise \
                 store_gateway.sharding_ring.wait_instance_state_timeout",
                self.id, self.waits.state
            )
            .into()
        })
    }
}

fn ended(part: &ServiceHandle) -> Cause {
    match part.failure() {
        Some(failure) => failure.to_string().into(),
        None => format!("{} ended by itself", part.name()).into(),
    }
}
