//! [`RingService`]: follows the stored ring and publishes snapshots of it.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use ringkit_kv::{Client, Update, Watch};
use ringkit_runtime::{Backoff, CancellationToken, Cause, Service};
use tokio::time::Instant;
use tracing::{info, warn};

use crate::compare::Comparison;
use crate::desc::Desc;
use crate::follow::{follow, follow_changed};
use crate::ring::Shared;

/// Follows the stored ring and publishes snapshots of it.
///
/// Starts once it has read the ring, and keeps trying until it can; an absent ring is an empty one. Later the last good
/// ring is kept whatever happens to the store; also when the key vanishes, because an empty answer of a store that
/// restarted must not look like a ring that everybody left.
pub struct RingService {
    shared: Arc<Shared>,
    client: Client<Desc>,
    watch: Option<Watch<Desc>>,
    /// When the newest snapshot was made, if it is of what the watch delivered last.
    in_step_since: Option<i64>,
}

/// Waits between attempts to read the ring at first.
const FIRST_RETRY: Duration = Duration::from_millis(100);
const LAST_RETRY: Duration = Duration::from_secs(5);

impl RingService {
    pub(crate) fn new(shared: Arc<Shared>, client: Client<Desc>) -> Self {
        Self { shared, client, watch: None, in_step_since: None }
    }

    /// Opens the watch and takes its first value, however long the store takes to answer.
    async fn open(&mut self) -> Result<(), Cause> {
        let key = &self.shared.options.key;
        let mut backoff = Backoff::new(FIRST_RETRY, LAST_RETRY);
        let mut watch = loop {
            match self.client.watch(key).await {
                Ok(watch) => break watch,
                Err(error) if error.is_retryable() => {
                    warn!(ring = self.shared.options.name, key, %error, "cannot read the ring yet, trying again");
                    tokio::time::sleep(backoff.next()).await;
                }
                Err(error) => return Err(error.into()),
            }
        };
        let first = watch.next().await.ok_or(ringkit_kv::Error::Closed)?;
        self.take(&first);
        self.watch = Some(watch);
        Ok(())
    }

    fn take(&mut self, update: &Update<Desc>) {
        let name = &self.shared.options.name;
        let Some(desc) = &update.value else {
            info!(
                ring = name,
                key = self.shared.options.key,
                "the store holds no ring; keeping what is known"
            );
            self.in_step_since = None;
            return;
        };
        let now = self.shared.clock.now_secs();
        let known = self.shared.load();
        let in_step = self.in_step_since.is_some_and(|since| since <= now);
        let quick = in_step && update.removed.is_empty() && update.seen.is_empty();
        let followed = quick.then(|| follow_changed(&known, desc, &update.changed, now)).flatten();
        let followed = followed.unwrap_or_else(|| {
            let heard = |at: Instant| now.saturating_sub_unsigned(at.elapsed().as_secs());
            follow(&known, desc, now, |id| update.seen.get(id).copied().map(heard))
        });
        if followed.comparison == Comparison::Different {
            info!(ring = name, instances = followed.snapshot.instances().len(), "ring changed");
        }
        self.shared.publish(followed.snapshot, followed.notable);
        self.in_step_since = Some(now);
    }
}

#[async_trait]
impl Service for RingService {
    async fn start(&mut self, _stop: &CancellationToken) -> Result<(), Cause> {
        self.open().await
    }

    async fn run(&mut self, stop: CancellationToken) -> Result<(), Cause> {
        loop {
            let Some(watch) = &mut self.watch else { return Err(ringkit_kv::Error::Closed.into()) };
            let update = tokio::select! {
                () = stop.cancelled() => return Ok(()),
                update = watch.next() => update.ok_or(ringkit_kv::Error::Closed)?,
            };
            self.take(&update);
        }
    }
}

impl std::fmt::Debug for RingService {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RingService").field("name", &self.shared.options.name).finish_non_exhaustive()
    }
}
