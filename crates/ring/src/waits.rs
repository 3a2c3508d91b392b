//! Waiting for a ring: until an instance is in a state, until nobody comes or goes any more.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::desc::{InstanceDesc, State};
use crate::operation::Operation;
use crate::ring::Ring;
use crate::snapshot::Instance;

/// How often a ring that should settle is looked at. Health changes with time, so waiting for updates is not enough.
const LOOK_PERIOD: Duration = Duration::from_secs(1);

/// A ring that kept changing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the ring did not stay unchanged for {least:?} within {most:?}")]
pub struct Unsettled {
    /// How long it should have stayed unchanged.
    pub least: Duration,
    /// How long it was waited for.
    pub most: Duration,
}

impl Ring {
    /// Waits until this reader sees instance `id` in `state`; for ever, so put it under a timeout. Cancel safe.
    pub async fn wait_instance_state(&self, id: &str, state: State) {
        let mut changes = self.changed();
        loop {
            changes.borrow_and_update();
            if self.load().instance(id).is_some_and(|instance| instance.state() == state) {
                return;
            }
            if changes.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }

    /// Waits until the instances healthy for `op` stay the same for `least`, heartbeats aside. Cancel safe.
    ///
    /// # Errors
    ///
    /// [`Unsettled`] once `most` has passed without that.
    pub async fn wait_settled(
        &self,
        op: Operation,
        least: Duration,
        most: Duration,
    ) -> Result<(), Unsettled> {
        self.settled(op, least, most, |entry| InstanceDesc { timestamp: 0, ..entry.clone() }).await
    }

    /// As [`Ring::wait_settled`], where states may change too.
    ///
    /// # Errors
    ///
    /// [`Unsettled`] once `most` has passed without that.
    pub async fn wait_tokens_settled(
        &self,
        op: Operation,
        least: Duration,
        most: Duration,
    ) -> Result<(), Unsettled> {
        let what_counts =
            |entry: &InstanceDesc| InstanceDesc { timestamp: 0, state: State::Active, ..entry.clone() };
        self.settled(op, least, most, what_counts).await
    }

    async fn settled(
        &self,
        op: Operation,
        least: Duration,
        most: Duration,
        what_counts: impl Fn(&InstanceDesc) -> InstanceDesc,
    ) -> Result<(), Unsettled> {
        // An empty ring has nobody who is healthy; that may settle too.
        let look = || self.load().all_healthy(op, self.clock().now_secs()).unwrap_or_default();
        let same = |a: &[Arc<Instance>], b: &[Arc<Instance>]| {
            a.len() == b.len()
                && a.iter().zip(b).all(|(a, b)| {
                    Arc::ptr_eq(a, b) || a.id == b.id && what_counts(&a.desc) == what_counts(&b.desc)
                })
        };
        let started = Instant::now();
        let (mut known, mut since) = (look(), started);
        loop {
            if since.elapsed() >= least {
                return Ok(());
            }
            if started.elapsed() >= most {
                return Err(Unsettled { least, most });
            }
            tokio::time::sleep(LOOK_PERIOD).await;
            let now = look();
            if !same(&known, &now) {
                (known, since) = (now, Instant::now());
            }
        }
    }
}
