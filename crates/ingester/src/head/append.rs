//! How the series of a request get into a tenant's shards and into the log.

use std::cell::RefCell;
use std::sync::atomic::Ordering;

use ringkit_proto::SeriesView;
use ringkit_tsdb::log::{put_samples, put_series};

use super::Limits;
use super::labels::{self, Canonical};
use super::reject::{Reason, Reject};
use super::series::Verdict;
use super::shard::{Shard, Slot};
use super::tenant::{SHARDS, Tenant, metric_of, shard_of};
use crate::wal::{self, Journal};

/// Samples in one record of the log; keeps records far below the longest that can be read.
const MAX_RECORD_SAMPLES: usize = 1 << 20;

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
    canonical: Option<Box<Canonical<'a>>>,
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

impl Tenant {
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
        let canonical = match view.label_bytes() {
            Some(_) => None,
            None => match Canonical::of(view.labels()) {
                Ok(form) => Some(Box::new(form)),
                Err(error) => {
                    outcome.reject(index, view.num_samples(), Reject::Labels(error));
                    continue;
                }
            },
        };
        let mut item = Item { index, hash: 0, view, canonical, done: false };
        item.hash = labels::hash(item.label_bytes());
        items.push(item);
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
            item.canonical = Some(Box::new(form));
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
