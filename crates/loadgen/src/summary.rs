//! What a load counts, and how it is reported while running and at the end.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use serde::Serialize;

use crate::histogram::Histogram;
use crate::plan::Plan;

/// Reasons are statuses and three words, so this is never reached; it bounds a server that invents statuses.
const MAX_REASONS: usize = 64;

/// Counters of a running load. Shared, lock-free except for failures.
#[derive(Default)]
pub(crate) struct Stats {
    sent_batches: AtomicU64,
    sent_samples: AtomicU64,
    acked_samples: AtomicU64,
    acked_batches: AtomicU64,
    refused_samples: AtomicU64,
    refused_batches: AtomicU64,
    skipped_samples: AtomicU64,
    rounds: AtomicU64,
    failovers: AtomicU64,
    failed: Mutex<BTreeMap<String, u64>>,
    latency: Histogram,
    recent: Histogram,
}

impl Stats {
    pub(crate) fn sent(&self, samples: u64) {
        self.sent_batches.fetch_add(1, Ordering::Relaxed);
        self.sent_samples.fetch_add(samples, Ordering::Relaxed);
    }

    pub(crate) fn acked(&self, samples: u64, latency: Duration) {
        self.acked_batches.fetch_add(1, Ordering::Relaxed);
        self.acked_samples.fetch_add(samples, Ordering::Relaxed);
        self.latency.record(latency);
        self.recent.record(latency);
    }

    pub(crate) fn refused(&self, samples: u64) {
        self.refused_batches.fetch_add(1, Ordering::Relaxed);
        self.refused_samples.fetch_add(samples, Ordering::Relaxed);
    }

    pub(crate) fn skipped(&self, samples: u64) {
        self.skipped_samples.fetch_add(samples, Ordering::Relaxed);
    }

    pub(crate) fn round(&self) {
        self.rounds.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn failover(&self) {
        self.failovers.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn failed(&self, reason: &str) {
        let mut failed = self.failed.lock();
        if let Some(count) = failed.get_mut(reason) {
            *count += 1;
        } else if failed.len() < MAX_REASONS {
            failed.insert(reason.to_owned(), 1);
        }
    }

    pub(crate) fn progress(&self, elapsed: Duration, since_last: Duration, acked_before: u64) -> Progress {
        let acked = self.acked_samples.load(Ordering::Relaxed);
        let seconds = since_last.as_secs_f64().max(0.001);
        let progress = Progress {
            elapsed_seconds: elapsed.as_secs_f64(),
            rate: acked.saturating_sub(acked_before) as f64 / seconds,
            acked_samples: acked,
            errors: self.failed.lock().clone(),
            latency: Latency::of(&self.recent),
        };
        self.recent.reset();
        progress
    }

    pub(crate) fn summary(&self, plan: Plan, targets: &[String], elapsed: Duration) -> Summary {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let errors = self.failed.lock().clone();
        let (acked_samples, refused_samples) = (get(&self.acked_samples), get(&self.refused_samples));
        Summary {
            targets: targets.to_vec(),
            seed: plan.seed,
            series: plan.series,
            interval_ms: plan.interval_ms,
            batch: plan.batch,
            elapsed_seconds: elapsed.as_secs_f64(),
            wanted_rate: plan.rate(),
            rate: acked_samples as f64 / elapsed.as_secs_f64().max(0.001),
            sent_samples: get(&self.sent_samples),
            acked_samples,
            refused_samples,
            unacked_samples: get(&self.sent_samples).saturating_sub(acked_samples + refused_samples),
            skipped_samples: get(&self.skipped_samples),
            acked_batches: get(&self.acked_batches),
            refused_batches: get(&self.refused_batches),
            writes: get(&self.rounds),
            failed_writes: errors.values().sum(),
            failovers: get(&self.failovers),
            errors,
            latency: Latency::of(&self.latency),
        }
    }
}

/// Latencies in milliseconds, counted from the moment a batch was due: waiting for a slot, for an earlier batch of the same
/// series and for retries is included.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Latency {
    /// Half of the batches were not slower.
    pub p50_ms: f64,
    /// 90 % were not slower.
    pub p90_ms: f64,
    /// 99 % were not slower.
    pub p99_ms: f64,
    /// 99.9 % were not slower.
    pub p999_ms: f64,
    /// The slowest.
    pub max_ms: f64,
    /// The mean.
    pub mean_ms: f64,
}

impl Latency {
    fn of(histogram: &Histogram) -> Self {
        let ms = |duration: Duration| duration.as_secs_f64() * 1000.0;
        Self {
            p50_ms: ms(histogram.quantile(0.5)),
            p90_ms: ms(histogram.quantile(0.9)),
            p99_ms: ms(histogram.quantile(0.99)),
            p999_ms: ms(histogram.quantile(0.999)),
            max_ms: ms(histogram.max()),
            mean_ms: ms(histogram.mean()),
        }
    }
}

impl fmt::Display for Latency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { p50_ms, p99_ms, max_ms, .. } = self;
        write!(f, "p50 {p50_ms:.1} p99 {p99_ms:.1} max {max_ms:.1} ms")
    }
}

/// One line about a running load. Rate and latency are those since the line before.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Progress {
    /// Since the start.
    pub elapsed_seconds: f64,
    /// Acknowledged samples per second.
    pub rate: f64,
    /// Acknowledged since the start.
    pub acked_samples: u64,
    /// Failed writes since the start, by reason; see [`Summary::errors`].
    pub errors: BTreeMap<String, u64>,
    /// Latency of acknowledged batches.
    pub latency: Latency,
}

impl fmt::Display for Progress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { elapsed_seconds, rate, acked_samples, errors, latency } = self;
        write!(
            f,
            "{elapsed_seconds:.0}s  {rate:.0} samples/s  {acked_samples} acked  errors {}  {latency}",
            Reasons(errors)
        )
    }
}

/// What a load did.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Summary {
    /// Where it was sent to at first.
    pub targets: Vec<String>,
    /// See [`Plan::seed`].
    pub seed: u64,
    /// See [`Plan::series`].
    pub series: u32,
    /// See [`Plan::interval_ms`].
    pub interval_ms: u32,
    /// See [`Plan::batch`].
    pub batch: u32,
    /// From the first batch due to the last answer.
    pub elapsed_seconds: f64,
    /// Samples per second that the schedule asked for.
    pub wanted_rate: f64,
    /// Acknowledged samples per second.
    pub rate: f64,
    /// Samples sent at least once.
    pub sent_samples: u64,
    /// Samples answered 2xx.
    pub acked_samples: u64,
    /// Samples answered 4xx, which is final.
    pub refused_samples: u64,
    /// Samples sent, but neither acknowledged nor refused when the load ended.
    pub unacked_samples: u64,
    /// Samples left out because the load had fallen too far behind, see [`crate::LoadOptions::max_lag`].
    pub skipped_samples: u64,
    /// Batches answered 2xx.
    pub acked_batches: u64,
    /// Batches answered 4xx.
    pub refused_batches: u64,
    /// Writes tried: each is one attempt, plus one on the next target after a refused or cut connection.
    pub writes: u64,
    /// Writes without a 2xx answer: the sum of `errors`.
    pub failed_writes: u64,
    /// How often the next target was tried after a refused or cut connection. Such a write only counts as failed if that failed too.
    pub failovers: u64,
    /// Failed writes by reason: the status, or `connect`, `cut`, `timeout`.
    pub errors: BTreeMap<String, u64>,
    /// Latency of acknowledged batches.
    pub latency: Latency,
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { seed, series, interval_ms, elapsed_seconds, wanted_rate, rate, .. } = self;
        writeln!(
            f,
            "load        seed {seed}, {series} series every {interval_ms} ms, {elapsed_seconds:.1} s"
        )?;
        writeln!(f, "rate        {rate:.0} of {wanted_rate:.0} samples/s")?;
        writeln!(f, "acked       {} of {} samples sent", self.acked_samples, self.sent_samples)?;
        for (name, samples) in [
            ("refused", self.refused_samples),
            ("unanswered", self.unacked_samples),
            ("skipped", self.skipped_samples),
        ] {
            if samples > 0 {
                writeln!(f, "{name:<11} {samples} samples")?;
            }
        }
        writeln!(
            f,
            "writes      {}, failed {}, failovers {}",
            self.writes, self.failed_writes, self.failovers
        )?;
        writeln!(f, "errors      {}", Reasons(&self.errors))?;
        let Latency { p50_ms, p90_ms, p99_ms, p999_ms, max_ms, .. } = &self.latency;
        write!(
            f,
            "latency ms  p50 {p50_ms:.1}  p90 {p90_ms:.1}  p99 {p99_ms:.1}  p99.9 {p999_ms:.1}  max {max_ms:.1}"
        )
    }
}

struct Reasons<'a>(&'a BTreeMap<String, u64>);

impl fmt::Display for Reasons<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("none");
        }
        let list: Vec<String> = self.0.iter().map(|(reason, count)| format!("{reason}:{count}")).collect();
        f.write_str(&list.join(" "))
    }
}
