//! One tenant's series, in shards, and how samples get in.

use std::cell::RefCell;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, AtomicUsize, Ordering};

use hashbrown::HashMap;
use parking_lot::{Mutex, RwLock};
use ringkit_proto::SeriesView;
use ringkit_tsdb::log::{put_samples, put_series};

use super::labels::{self, Canonical};
use super::reject::{Reason, Reject};
use super::series::Verdict;
use super::shard::{Shard, Slot};
use super::{Limits, Totals};
use crate::rate::Rate;
use crate::wal::{self, Journal};

/// How many shards a tenant has: pushes and queries of one tenant meet at a lock one time in so many.
pub(crate) const SHARDS: usize = 8;

/// Samples in one record of the log; keeps records far below the longest that can be read.
const MAX_RECORD_SAMPLES: usize = 1 << 20;

/// See the module.
#[derive(Debug)]
pub(crate) struct Tenant {
    pub(crate) id: Arc<str>,
    shards: [RwLock<Shard>; SHARDS],
    totals: Arc<Totals>,
    num_series: AtomicUsize,
    /// Series per metric, touched when series come and go only.
    per_metric: Mutex<HashMap<String, usize>>,
    /// The newest sample ever stored, in milliseconds.
    max_time: AtomicI64,
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

/// What became of a request's samples.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    /// Samples stored now.
    pub(crate) stored: u64,
    /// Samples that were there already.
    pub(crate) duplicates: u64,
    /// Samples refused, by [`Reason`].
    pub(crate) discarded: [u64; Reason::COUNT],
    /// The first refusal in the order of the request: which series, and why.
    pub(crate) first: Option<(usize, Reject)>,
    /// Once the log is committed up to here, what was stored (or was there already) is safe.
    pub(crate) position: u64,
}

impl Outcome {
    fn reject(&mut self, index: usize, samples: usize, reject: Reject) {
        if let Some(count) = self.discarded.get_mut(reject.reason() as usize) {
            *count += samples as u64;
        }
        if self.first.as_ref().is_none_or(|(first, _)| index < *first) {
            self.first = Some((index, reject));
        }
    }

    pub(crate) fn num_discarded(&self) -> u64 {
        self.discarded.iter().sum()
    }
}

/// Why a whole request was not taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum PushError {
    /// The tenant was removed in between: ask the head for it again.
    Dead,
    /// The log does not take records any more.
    Log(wal::Failed),
}

/// One series of a request, ready to be looked up.
struct Item<'a> {
    index: usize,
    hash: u64,
    view: SeriesView<'a>,
    /// If the labels did not come in canonical form, as far as is known yet.
    canonical: Option<Canonical<'a>>,
    done: bool,
}

impl Item<'_> {
    fn label_bytes(&self) -> &[u8] {
        match &self.canonical {
            Some(canonical) => &canonical.bytes,
            None => self.view.label_bytes().unwrap_or_default(),
        }
    }
}

/// Memory reused from request to request.
#[derive(Default)]
struct Scratch {
    frames: Vec<u8>,
    samples: Vec<(u64, i64, f64)>,
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}

fn shard_of(hash: u64) -> usize {
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

    /// Puts the series of a request into the head and the log. `series` are encoded as in a write request.
    ///
    /// Each shard is locked once. The lock is held over "check, apply, copy into the log's buffer", so the log has
    /// each series' samples in the head's order by construction.
    ///
    /// # Errors
    ///
    /// [`PushError`] if nothing is acknowledged. What cannot be stored of a request that is taken is in the outcome.
    pub(crate) fn push<'a>(
        &self,
        series: impl ExactSizeIterator<Item = &'a [u8]>,
        bound: i64,
        limits: &Limits,
        log: &impl Journal,
    ) -> Result<Outcome, PushError> {
        let mut outcome = Outcome::default();
        let mut items = parse(series, &mut outcome);
        let mut newest = i64::MIN;
        SCRATCH.with_borrow_mut(|scratch| {
            // A series whose labels turn out to be in disorder moves to the shard of its canonical form. That one may
            // have had its turn: second round.
            for _ in 0..2 {
                for shard in 0..SHARDS {
                    let mine = |item: &&mut Item<'_>| !item.done && shard_of(item.hash) == shard;
                    let mut batch = Batch {
                        tenant: self,
                        limits,
                        bound,
                        newest: &mut newest,
                        outcome: &mut outcome,
                        scratch,
                    };
                    batch.push(shard, items.iter_mut().filter(mine), log)?;
                }
                if items.iter().all(|item| item.done) {
                    break;
                }
            }
            Ok(())
        })?;
        self.max_time.fetch_max(newest, Ordering::Relaxed);
        if outcome.duplicates > 0 {
            // The first attempt may still be on its way to the disk.
            outcome.position = outcome.position.max(log.position());
        }
        Ok(outcome)
    }

    /// Makes room for a new series in all counts, or says which is full.
    fn admit(&self, metric: Option<&str>, limits: &Limits) -> Result<(), Reject> {
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
            if full(limits.per_metric, *count) {
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

fn metric_of<'a>(labels: &Canonical<'a>) -> Option<&'a str> {
    labels.pairs.iter().find(|(name, _)| *name == "__name__").map(|(_, value)| *value)
}

fn parse<'a>(series: impl ExactSizeIterator<Item = &'a [u8]>, outcome: &mut Outcome) -> Vec<Item<'a>> {
    let mut items = Vec::with_capacity(series.len());
    for (index, bytes) in series.enumerate() {
        let view = match SeriesView::parse(bytes) {
            Ok(view) => view,
            Err(error) => {
                // How many samples it was meant to hold is not known; one series, one count.
                outcome.reject(index, 1, Reject::Malformed(error));
                continue;
            }
        };
        if view.num_histograms() > 0 {
            outcome.reject(index, view.num_histograms(), Reject::Histogram);
        }
        if view.num_samples() == 0 {
            continue;
        }
        match view.label_bytes() {
            Some(bytes) => {
                items.push(Item { index, hash: labels::hash(bytes), view, canonical: None, done: false })
            }
            None => match Canonical::of(view.labels()) {
                Ok(form) => {
                    items.push(Item { index, hash: form.hash, view, canonical: Some(form), done: false })
                }
                Err(error) => outcome.reject(index, view.num_samples(), Reject::Labels(error)),
            },
        }
    }
    items
}

/// The part of a request that goes to one shard.
struct Batch<'b> {
    tenant: &'b Tenant,
    limits: &'b Limits,
    bound: i64,
    newest: &'b mut i64,
    outcome: &'b mut Outcome,
    scratch: &'b mut Scratch,
}

impl Batch<'_> {
    fn push<'i, 'a: 'i>(
        &mut self,
        shard: usize,
        items: impl Iterator<Item = &'i mut Item<'a>>,
        log: &impl Journal,
    ) -> Result<(), PushError> {
        let mut items = items.peekable();
        let Some(lock) = self.tenant.shards.get(shard).filter(|_| items.peek().is_some()) else {
            return Ok(());
        };
        let mut shard_guard = lock.write();
        if shard_guard.dead {
            return Err(PushError::Dead);
        }
        self.scratch.frames.clear();
        self.scratch.samples.clear();
        for item in items {
            item.done = true;
            match self.find_or_insert(&mut shard_guard, shard, item) {
                Ok(Some(slot)) => self.append(&mut shard_guard, slot, item),
                Ok(None) => item.done = false,
                Err(reject) => self.outcome.reject(item.index, item.view.num_samples(), reject),
            }
        }
        let Scratch { frames, samples } = &mut *self.scratch;
        for samples in samples.chunks(MAX_RECORD_SAMPLES) {
            put_samples(frames, samples.iter().copied())
                .map_err(|error| PushError::Log(wal::Failed::new(&error)))?;
        }
        if !frames.is_empty() {
            self.outcome.position = log.append(frames).map_err(PushError::Log)?;
        }
        Ok(())
    }

    /// Finds the series of an item or makes it. `None` if it belongs to another shard.
    fn find_or_insert(
        &mut self,
        shard: &mut Shard,
        number: usize,
        item: &mut Item<'_>,
    ) -> Result<Option<Slot>, Reject> {
        if let Some(slot) = shard.find(item.hash, item.label_bytes()) {
            return Ok(Some(slot));
        }
        if item.canonical.is_none() {
            let form = Canonical::of(item.view.labels()).map_err(Reject::Labels)?;
            let changed = form.hash != item.hash;
            item.hash = form.hash;
            item.canonical = Some(form);
            if changed {
                if shard_of(item.hash) != number {
                    return Ok(None);
                }
                if let Some(slot) = shard.find(item.hash, item.label_bytes()) {
                    return Ok(Some(slot));
                }
            }
        }
        let Some(form) = &item.canonical else { return Ok(None) };
        // A series without a sample would never expire.
        let mut times = item.view.samples().map(|(time, _)| time);
        if let Some(time) =
            times.next().filter(|&first| first < self.bound && times.all(|time| time < self.bound))
        {
            return Err(Reject::OutOfBounds { time });
        }
        self.tenant.admit(metric_of(form), self.limits)?;
        let id = self.tenant.totals.next_id();
        let slot = shard.insert(id, form);
        let pairs = form.pairs.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes()));
        // Labels are limited to far less than what a record can hold.
        let _ = put_series(&mut self.scratch.frames, id, &self.tenant.id, pairs);
        Ok(Some(slot))
    }

    fn append(&mut self, shard: &mut Shard, slot: Slot, item: &Item<'_>) {
        let Some(series) = shard.get_mut(slot) else { return };
        let id = series.id;
        for (time, value) in item.view.samples() {
            let reject = match series.check(time, value) {
                _ if time < self.bound => Reject::OutOfBounds { time },
                Verdict::New => {
                    series.append(time, value);
                    self.scratch.samples.push((id, time, value));
                    *self.newest = time.max(*self.newest);
                    self.outcome.stored += 1;
                    continue;
                }
                Verdict::Duplicate => {
                    self.outcome.duplicates += 1;
                    continue;
                }
                Verdict::OtherValue { existing } => {
                    Reject::OtherValue { time, existing: f64::from_bits(existing), new: value }
                }
                Verdict::OutOfOrder => Reject::OutOfOrder { time },
            };
            self.outcome.reject(item.index, 1, reject);
        }
    }
}
