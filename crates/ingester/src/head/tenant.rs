//! One tenant's series, in shards, with limits and retention.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, AtomicUsize, Ordering};

use hashbrown::HashMap;
use parking_lot::{Mutex, RwLock};

use super::labels::Canonical;
use super::reject::{Reason, Reject};
use super::shard::{Shard, Slot};
use super::{Limits, Totals};
use crate::rate::Rate;
use crate::wal;

/// How many shards a tenant has: pushes and queries of one tenant meet at a lock one time in so many.
pub(crate) const SHARDS: usize = 8;

/// See the module.
#[derive(Debug)]
pub(crate) struct Tenant {
    pub(crate) id: Arc<str>,
    pub(super) shards: [RwLock<Shard>; SHARDS],
    pub(super) totals: Arc<Totals>,
    num_series: AtomicUsize,
    /// Series per metric, touched when series come and go only.
    per_metric: Mutex<HashMap<String, usize>>,
    /// The newest sample ever stored, in milliseconds.
    pub(super) max_time: AtomicI64,
    /// What lies before may have been dropped; never goes back.
    bound: AtomicI64,
    /// Wall time of the last push, in milliseconds.
    pub(crate) last_push_ms: AtomicI64,
    pub(crate) usage: Usage,
}

/// What is counted by tenant.
#[derive(Debug, Default)]
pub(crate) struct Usage {
    /// Samples stored per second.
    pub(crate) rate: Rate,
    discarded: [AtomicU64; Reason::COUNT],
}

impl Usage {
    pub(crate) fn discard(&self, samples: &[u64; Reason::COUNT]) {
        for (total, samples) in self.discarded.iter().zip(samples).filter(|(_, samples)| **samples > 0) {
            total.fetch_add(*samples, Ordering::Relaxed);
        }
    }

    /// Samples discarded so far, for each reason that has occurred.
    pub(crate) fn discarded(&self) -> impl Iterator<Item = (Reason, u64)> {
        let totals = self.discarded.iter().map(|total| total.load(Ordering::Relaxed));
        Reason::ALL.into_iter().zip(totals).filter(|(_, total)| *total > 0)
    }
}

pub(super) fn shard_of(hash: u64) -> usize {
    // Neither the highest nor the lowest bits: the hash table inside the shard lives on those.
    (hash >> 32) as usize % SHARDS
}

impl Tenant {
    pub(crate) fn new(id: Arc<str>, totals: Arc<Totals>) -> Self {
        Self {
            id,
            shards: Default::default(),
            totals,
            num_series: AtomicUsize::new(0),
            per_metric: Mutex::default(),
            max_time: AtomicI64::new(i64::MIN),
            bound: AtomicI64::new(i64::MIN),
            last_push_ms: AtomicI64::new(i64::MIN),
            usage: Usage::default(),
        }
    }

    /// Samples before this time (milliseconds) are not taken: `retention_ms` before the newest sample, or before now
    /// if a sample lies in the future.
    pub(crate) fn lower_bound(&self, now_ms: i64, retention_ms: i64) -> i64 {
        let newest = self.max_time.load(Ordering::Relaxed).min(now_ms);
        newest.saturating_sub(retention_ms).max(self.bound.load(Ordering::Relaxed))
    }

    /// Makes room for a new series in all counts, or says which is full.
    pub(super) fn admit(&self, metric: Option<&str>, limits: &Limits) -> Result<(), Reject> {
        let full = |limit: usize, count: usize| limit > 0 && count >= limit;
        if full(limits.instance, self.totals.series.load(Ordering::Relaxed)) {
            return Err(Reject::InstanceLimit);
        }
        // Counted first: of two who come for the last place one must go away.
        if full(limits.per_user, self.num_series.fetch_add(1, Ordering::Relaxed)) {
            self.num_series.fetch_sub(1, Ordering::Relaxed);
            return Err(Reject::PerUserLimit);
        }
        if let Some(metric) = metric {
            let mut counts = self.per_metric.lock();
            let count = counts.entry_ref(metric).or_insert(0);
            if full(limits.per_metric, *count) && !self.totals.unlimited_metrics.contains(metric) {
                self.num_series.fetch_sub(1, Ordering::Relaxed);
                return Err(Reject::PerMetricLimit);
            }
            *count += 1;
        }
        self.totals.series.fetch_add(1, Ordering::Relaxed);
        self.totals.created.increment(1);
        Ok(())
    }

    fn dismiss(&self, metric: Option<&str>) {
        self.num_series.fetch_sub(1, Ordering::Relaxed);
        self.totals.series.fetch_sub(1, Ordering::Relaxed);
        self.totals.removed.increment(1);
        let Some(metric) = metric else { return };
        let mut counts = self.per_metric.lock();
        if let Some(count) = counts.get_mut(metric) {
            *count -= 1;
            if *count == 0 {
                counts.remove(metric);
            }
        }
    }

    pub(crate) fn num_series(&self) -> usize {
        self.num_series.load(Ordering::Relaxed)
    }

    /// The newest sample's time, in milliseconds.
    pub(crate) fn max_time(&self) -> Option<i64> {
        Some(self.max_time.load(Ordering::Relaxed)).filter(|time| *time != i64::MIN)
    }

    pub(crate) fn shards(&self) -> &[RwLock<Shard>; SHARDS] {
        &self.shards
    }

    /// Drops chunks and series that end before `bound`; one shard is locked at a time. Returns the number of chunks.
    pub(crate) fn expire(&self, bound: i64) -> usize {
        self.bound.fetch_max(bound, Ordering::Relaxed);
        self.shards.iter().map(|shard| shard.write().expire(bound, |metric| self.dismiss(metric))).sum()
    }

    /// Drops everything and lets nobody in any more, if nobody has pushed since `quiet_since` (wall time in
    /// milliseconds). `record` is called while nobody can be inside. Returns the number of chunks, if it came to that.
    ///
    /// # Errors
    ///
    /// What `record` returns; then nothing has changed.
    pub(crate) fn remove_if_quiet(
        &self,
        quiet_since: i64,
        record: impl FnOnce() -> Result<(), wal::Failed>,
    ) -> Result<Option<usize>, wal::Failed> {
        let mut shards = self.shards.each_ref().map(RwLock::write);
        // Who pushes says so before going for a lock.
        if self.last_push_ms.load(Ordering::Relaxed) > quiet_since {
            return Ok(None);
        }
        record()?;
        let mut chunks = 0;
        for shard in &mut shards {
            chunks += shard.iter().map(|(_, series)| series.num_chunks()).sum::<usize>();
            shard.clear(|metric| self.dismiss(metric));
            shard.dead = true;
        }
        Ok(Some(chunks))
    }

    /// Replay: drops all series.
    pub(crate) fn clear(&self) {
        for shard in &self.shards {
            shard.write().clear(|metric| self.dismiss(metric));
        }
    }

    /// Replay: finds or makes a series. Limits do not apply: what is in the log was acknowledged.
    pub(crate) fn restore_series(&self, id: u64, labels: &Canonical<'_>) -> (usize, Slot) {
        let number = shard_of(labels.hash);
        let Some(shard) = self.shards.get(number) else { return (number, Slot::MAX) };
        let mut shard = shard.write();
        if let Some(slot) = shard.find(labels.hash, &labels.bytes) {
            return (number, slot);
        }
        let metric = metric_of(labels);
        let _ = self.admit(metric, &Limits::NONE);
        (number, shard.insert(id, labels))
    }

    /// Replay: appends a sample, unless it is there already.
    pub(crate) fn restore_sample(&self, shard: usize, slot: Slot, time: i64, value: f64) -> bool {
        let Some(shard) = self.shards.get(shard) else { return false };
        let mut shard = shard.write();
        let Some(series) = shard.get_mut(slot) else { return false };
        if series.last_time().is_some_and(|last| time <= last) {
            return false;
        }
        series.append(time, value);
        self.max_time.fetch_max(time, Ordering::Relaxed);
        true
    }

    /// Replay: appends a chunk of a snapshot.
    pub(crate) fn restore_chunk(
        &self,
        shard: usize,
        slot: Slot,
        chunk: &[u8],
    ) -> Result<(), ringkit_tsdb::xor::Error> {
        let Some(shard) = self.shards.get(shard) else { return Ok(()) };
        let mut shard = shard.write();
        let Some(series) = shard.get_mut(slot) else { return Ok(()) };
        series.restore(chunk)?;
        if let Some(last) = series.last_time() {
            self.max_time.fetch_max(last, Ordering::Relaxed);
        }
        Ok(())
    }
}

pub(super) fn metric_of<'a>(labels: &Canonical<'a>) -> Option<&'a str> {
    labels.pairs.iter().find(|(name, _)| *name == "__name__").map(|(_, value)| *value)
}
