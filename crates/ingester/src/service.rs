//! The ingester's life: replay, join the ring, keep the head small and the log short, leave, close.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use ringkit_config::WalSync;
use ringkit_lifecycler::{Drain, Lifecycler, Options, RegisteredAt};
use ringkit_ring::{Desc, InstanceDesc, Ring};
use ringkit_runtime::{
    Backoff, CancellationToken, Cause, CollectGuard, Drainable as _, Meter, Service, Stage, StopProcess,
};
use ringkit_server::Drains;
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval};

use crate::datadir::{self, DataDir};
use crate::drain::Emptied;
use crate::head::{Head, Totals};
use crate::ingester::{Ingester, Open};
use crate::wal::{self, Disk, Files, Log, Replayed, replay};

/// How long to wait for a predecessor that is still letting go of the data directory.
const TAKE_OVER_TIMEOUT: Duration = Duration::from_secs(5);

/// For how long nobody must have sent or asked anything before the final sleep may end.
const REST: Duration = Duration::from_secs(3);

/// How long to wait for the ring's store to know the cluster.
const SYNC_TIMEOUT: Duration = Duration::from_secs(10);

/// How often the length of the log is looked at.
const LOG_CHECK_PERIOD: Duration = Duration::from_secs(5);

/// How long to let be after a snapshot that failed: the disk may be full.
const SNAPSHOT_RETRY_PERIOD: Duration = Duration::from_secs(60);

/// See the module.
pub(crate) struct IngesterService {
    pub(crate) ingester: Arc<Ingester>,
    pub(crate) options: Options,
    pub(crate) client: ringkit_kv::Client<Desc>,
    pub(crate) meter: Meter,
    pub(crate) dir: Option<Arc<DataDir>>,
    pub(crate) lifecycler: Option<Lifecycler>,
    pub(crate) ring: Ring,
    pub(crate) drains: Drains,
    pub(crate) drain: Option<Drain>,
    pub(crate) scrapes: watch::Receiver<u64>,
    /// Keeps the metrics that are computed at scrape time.
    pub(crate) _collector: CollectGuard,
}

/// Waits between questions to a store that does not answer at the start.
const MIN_STORE_BACKOFF: Duration = Duration::from_millis(100);
const MAX_STORE_BACKOFF: Duration = Duration::from_secs(2);

#[async_trait]
impl Service for IngesterService {
    async fn start(&mut self, stop: &CancellationToken) -> Result<(), Cause> {
        let dir = Arc::new(open_dir(&self.ingester).await?);
        self.dir = Some(Arc::clone(&dir));
        let replayed = open_log(Arc::clone(&self.ingester), Arc::clone(&dir)).await?;
        let now = self.ingester.clock.now_secs();
        let (key, id, client) = (self.options.key.clone(), self.options.id.clone(), self.client.clone());
        // Who has lost data must not stand in, as a replica, for somebody who has them: it counts as new.
        let registered_at = match dir.registered_at()? {
            Some(time) if replayed.found && replayed.damages == 0 => {
                if let Err(error) = correct_registration(&client, &key, &id, time, now).await {
                    tracing::warn!(%error, "cannot compare this ingester's registration with the ring's");
                }
                time
            }
            _ => {
                let mut synced = client.synced();
                // Before that the ring may know us and not tell.
                let _ = tokio::time::timeout(SYNC_TIMEOUT, synced.wait_for(|synced| *synced)).await;
                // A store that does not answer is waited for: without its word, an emptied replica would stand in.
                let mut backoff = Backoff::new(MIN_STORE_BACKOFF, MAX_STORE_BACKOFF);
                while let Err(error) = correct_registration(&client, &key, &id, now, now).await {
                    if !error.is_retryable() {
                        return Err(error.into());
                    }
                    tracing::warn!(%error, "waiting for the store of the ring before starting");
                    tokio::select! {
                        () = tokio::time::sleep(backoff.next()) => (),
                        () = stop.cancelled() => return Err(error.into()),
                    }
                }
                now
            }
        };
        dir.set_registered_at(registered_at)?;
        self.options.registered_at = RegisteredAt::Known(registered_at);
        let (mut lifecycler, handle) = ringkit_lifecycler::new(
            self.options.clone(),
            client,
            self.ingester.clock.clone(),
            &self.meter,
            None,
        );
        lifecycler.start(stop).await?;
        handle.join();
        let emptied = Emptied::new(Arc::clone(&self.ingester), self.ring.clone(), &self.ingester.config);
        let drain = Drain::new(handle.clone(), Some(self.ring.clone()), vec![Arc::new(emptied)]);
        self.drains.add(drain.clone());
        self.ingester.set_drain(drain.clone());
        self.drain = Some(drain);
        self.ingester.set_handle(handle);
        self.lifecycler = Some(lifecycler);
        Ok(())
    }

    async fn run(&mut self, stop: CancellationToken) -> Result<(), Cause> {
        let (Some(lifecycler), Some(drain)) = (&mut self.lifecycler, self.drain.clone()) else {
            return Ok(());
        };
        let (ingester, dir, drains) = (&self.ingester, self.dir.clone(), self.drains.clone());
        let inner = stop.child_token();
        let life = async {
            let result = lifecycler.run(inner.clone()).await;
            inner.cancel();
            result
        };
        let requested = async {
            tokio::select! {
                () = ingester.shutdown.cancelled() => inner.cancel(),
                () = async {
                    drain.run().await;
                    drains.all_done().await;
                } => inner.cancel(),
                () = inner.cancelled() => (),
            }
        };
        let (result, (), ()) = tokio::join!(life, requested, maintain(ingester, dir, inner.clone()));
        // Asked to stop by somebody else meanwhile, it stops for that.
        let drained = drain.progress().stage == Stage::Done && !stop.is_cancelled();
        if drained { Err(StopProcess.into()) } else { result }
    }

    async fn stop(&mut self, failure: Option<&Cause>) -> Result<(), Cause> {
        // Samples are taken until nobody sends any more: first the ring is told, then the door is closed.
        let rests = rests(Arc::clone(&self.ingester), self.scrapes.clone());
        let left = match &mut self.lifecycler {
            // A drained ingester has not failed: it leaves like any other.
            Some(lifecycler) => {
                let leaving = lifecycler.stop(failure.filter(|failure| !failure.is::<StopProcess>()));
                tokio::pin!(leaving);
                tokio::select! {
                    left = &mut leaving => left,
                    () = rests => leaving.await,
                }
            }
            None => Ok(()),
        };
        self.ingester.gate.close().await;
        let ingester = Arc::clone(&self.ingester);
        let closed =
            tokio::task::spawn_blocking(move || ingester.opened().map_or(Ok(()), |open| open.log.close()))
                .await;
        self.dir = None;
        self.ingester.ended.send_replace(true);
        closed??;
        left
    }
}

impl Drop for IngesterService {
    fn drop(&mut self) {
        // However this ends, nobody writes to the directory afterwards.
        if let Some(open) = self.ingester.opened() {
            open.log.abandon();
        }
        self.ingester.ended.send_replace(true);
    }
}

/// The final sleep is for those who have not heard yet that we leave, and for whoever collects metrics: it ends when nobody
/// has sent or asked anything for a while, and the metrics were collected once more after that.
async fn rests(ingester: Arc<Ingester>, mut scrapes: watch::Receiver<u64>) {
    // From now on, since only now others begin to hear of it.
    tokio::time::sleep(REST).await;
    while let Some(left) = ingester.still_busy(REST) {
        tokio::time::sleep(left).await;
    }
    scrapes.mark_unchanged();
    if scrapes.changed().await.is_err() {
        return;
    }
    if let Some(handle) = ingester.handle() {
        handle.end_final_sleep().await;
    }
}

async fn open_dir(ingester: &Ingester) -> Result<DataDir, datadir::Error> {
    let path = PathBuf::from(&ingester.config.blocks_storage.tsdb.dir);
    let deadline = Instant::now() + TAKE_OVER_TIMEOUT;
    loop {
        match DataDir::open(&path) {
            Err(datadir::Error::InUse { .. }) if Instant::now() < deadline => {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            result => return result,
        }
    }
}

/// Reads the log back and opens it for more.
async fn open_log(ingester: Arc<Ingester>, dir: Arc<DataDir>) -> Result<Replayed, Cause> {
    let shared = Arc::clone(&ingester);
    let stop = Arc::new(AtomicBool::new(false));
    // If starting is given up, this future is dropped while the thread works on.
    let _stop_on_drop = StopOnDrop(Arc::clone(&stop));
    let work = move || -> Result<(Open, Replayed), Cause> {
        let config = &ingester.config.blocks_storage.tsdb;
        let files: Arc<dyn Files> = Arc::new(Disk);
        let metrics = &ingester.metrics;
        let totals = Totals::new(metrics.series_created.clone(), metrics.series_removed.clone())
            .with_unlimited_metrics(ingester.config.ingester.ignore_series_limit_for_metric_names.clone());
        let retention_ms = i64::try_from(config.retention_period.as_millis()).unwrap_or(i64::MAX);
        let head = Arc::new(Head::new(retention_ms, totals));
        let started = std::time::Instant::now();
        let replayed = replay(&*files, &dir.wal(), config.wal_repair, &head, &metrics.wal, &stop)?;
        metrics.replay_seconds.record(started.elapsed().as_secs_f64());
        tracing::info!(
            records = replayed.records,
            samples = replayed.samples,
            tenants = head.num_tenants(),
            torn_bytes = replayed.torn_bytes,
            elapsed = ?started.elapsed(),
            "replayed the write-ahead log"
        );
        let options = wal::Options {
            files: Arc::clone(&files),
            dir: dir.wal(),
            sync: config.wal_sync == WalSync::Commit,
            max_segment_bytes: config.wal_segment_size_bytes,
            metrics: metrics.wal.clone(),
        };
        let log = Log::open(options, &replayed, Arc::clone(&dir))?;
        if replayed.damages > 0 {
            // What could not be read is not to be met again.
            log.snapshot(&head, replayed.end)?;
        }
        Ok((Open { head, log }, replayed))
    };
    let (open, replayed) = tokio::task::spawn_blocking(work).await??;
    shared.set_open(open);
    Ok(replayed)
}

/// Sees to it that the ring's entry of this ingester, if there is one, does not claim an earlier registration than
/// `registered_at` (Unix seconds): from then on it has its data.
async fn correct_registration(
    client: &ringkit_kv::Client<Desc>,
    key: &str,
    id: &str,
    registered_at: i64,
    now: i64,
) -> Result<(), ringkit_kv::Error> {
    let view = client.get(key).await?;
    let entry = view.as_ref().and_then(|view| view.value.get(id));
    let Some(entry) = entry.filter(|entry| entry.registered_timestamp < registered_at) else { return Ok(()) };
    tracing::warn!(
        was = entry.registered_timestamp,
        registered_timestamp = registered_at,
        "the ring knows this ingester from before the data it has: registering anew"
    );
    let entry = InstanceDesc {
        registered_timestamp: registered_at,
        // A change in the same second would be lost on gossip.
        timestamp: now.max(entry.timestamp.saturating_add(1)),
        ..InstanceDesc::clone(entry)
    };
    client.upsert_own(key, id, &entry).await.map(drop)
}

struct StopOnDrop(Arc<AtomicBool>);

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Rates, retention and snapshots, until stopped.
async fn maintain(ingester: &Arc<Ingester>, dir: Option<Arc<DataDir>>, stop: CancellationToken) {
    let config = &ingester.config;
    let every = |period: Duration| {
        let mut ticks = interval(period.max(Duration::from_millis(100)));
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        ticks
    };
    let mut seconds = every(Duration::from_secs(1));
    let mut rates = every(config.ingester.rate_update_period);
    let mut expiry = every(config.blocks_storage.tsdb.head_compaction_interval);
    let mut log_checks = every(LOG_CHECK_PERIOD);
    let mut not_before = Instant::now();
    loop {
        let forced = tokio::select! {
            () = stop.cancelled() => return,
            _ = seconds.tick() => {
                ingester.rate.tick(Duration::from_secs(1));
                continue;
            }
            _ = rates.tick() => {
                for tenant in ingester.opened().map(|open| open.head.tenants()).unwrap_or_default() {
                    tenant.usage.rate.tick(config.ingester.rate_update_period);
                }
                continue;
            }
            _ = expiry.tick() => {
                expire(ingester, dir.clone()).await;
                continue;
            }
            _ = log_checks.tick() => false,
            () = ingester.flush.notified() => true,
        };
        let limit = config.blocks_storage.tsdb.wal_snapshot_bytes;
        let due = || ingester.opened().is_some_and(|open| limit > 0 && open.log.usage().0 >= limit);
        if forced || (Instant::now() >= not_before && due()) {
            if let Err(error) = snapshot(ingester, dir.clone()).await {
                ingester.metrics.wal.snapshot_failures.increment(1);
                tracing::warn!(error, "cannot write a snapshot: the write-ahead log keeps growing");
                not_before = Instant::now() + SNAPSHOT_RETRY_PERIOD;
            }
            ingester.flushed.send_modify(|count| *count += 1);
        }
    }
}

async fn expire(ingester: &Arc<Ingester>, dir: Option<Arc<DataDir>>) {
    let ingester = Arc::clone(ingester);
    let work = move || {
        let _dir = dir;
        let Some(open) = ingester.opened() else { return };
        match open.head.expire(ingester.clock.now_ms(), &open.log) {
            Ok(0) => (),
            Ok(chunks) => tracing::debug!(chunks, "dropped what is older than the retention"),
            Err(error) => tracing::debug!(%error, "tenants without samples are kept"),
        }
    };
    if let Err(error) = tokio::task::spawn_blocking(work).await {
        tracing::error!(%error, "dropping old chunks failed");
    }
}

async fn snapshot(ingester: &Arc<Ingester>, dir: Option<Arc<DataDir>>) -> Result<(), String> {
    let Some(open) = ingester.opened() else { return Ok(()) };
    let position = open.log.rotate().await.map_err(|failed| failed.to_string())?;
    let metrics = ingester.metrics.wal.clone();
    let ingester = Arc::clone(ingester);
    let work = move || {
        // Keeps the directory ours as long as we write.
        let _dir = dir;
        let Some(open) = ingester.opened() else { return Ok(0) };
        open.log.snapshot(&open.head, position)
    };
    let started = Instant::now();
    let bytes = tokio::task::spawn_blocking(work).await.map_err(|error| error.to_string())?;
    let bytes = bytes.map_err(|error| error.to_string())?;
    metrics.snapshots.increment(1);
    tracing::info!(bytes, elapsed = ?started.elapsed(), "wrote a snapshot of all series; older log dropped");
    Ok(())
}
