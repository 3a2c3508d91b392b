//! What a multi store counts. Names are Cortex's where it has the same thing.
//!
//! `cortex_multikv_mirror_writes_total` counts attempts, as in Cortex, one for each entry; of them
//! `cortex_multikv_mirror_write_errors_total` counts those that failed, which what was there already, or older than what was
//! there, did not.

use metrics::{Counter, Gauge, Unit};
use ringkit_runtime::Meter;

use super::delta::Verdict;
use super::gate::{Reason, Reasons};
use super::place::{Both, Place};

/// How an attempt to mirror an entry failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Failure {
    /// The value would be larger than the store takes.
    TooLarge,
    /// There was no answer in time.
    Timeout,
    /// Anything else.
    Error,
}

/// Handles, looked up once.
pub(super) struct Metrics {
    primary: Both<Gauge>,
    up: Both<Gauge>,
    missing: Both<Gauge>,
    mirror_enabled: Gauge,
    writes: Counter,
    write_errors: Counter,
    applied: Counter,
    noop: Counter,
    stale: Counter,
    too_large: Counter,
    timeout: Counter,
    error: Counter,
    queue_length: Gauge,
    lag_seconds: Gauge,
    mismatched: Gauge,
    foreign: Gauge,
    skew_seconds: Gauge,
    last_reconcile: Gauge,
    blocked: Vec<(Reason, Gauge)>,
    pub(super) stale_generations: Counter,
    pub(super) unknown_stores: Counter,
}

/// What all keys of a store show together.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Totals {
    pub(super) queue_length: usize,
    pub(super) lag_secs: f64,
    pub(super) missing: Both<usize>,
    pub(super) mismatched: usize,
    pub(super) foreign: usize,
    pub(super) skew_secs: u64,
    /// Of the key that was reconciled least lately, in Unix seconds; 0 if one never was.
    pub(super) reconciled_secs: f64,
}

impl Metrics {
    pub(super) fn register(meter: &Meter, kv_name: &str, stores: &Both<&'static str>) -> Self {
        let meter = meter.with("kv_name", kv_name.to_owned());
        let of_store = |name: &'static str, help: &'static str| {
            Both::of(|place| meter.with("store", stores[place]).gauge(name, Unit::Count, help))
        };
        let outcome = |outcome: &'static str| {
            meter.with("outcome", outcome).counter(
                "cortex_multikv_mirror_outcomes_total",
                Unit::Count,
                "Attempts to mirror an entry, by what became of them.",
            )
        };
        let refused = |reason: &'static str| {
            meter.with("reason", reason).counter(
                "cortex_multikv_runtime_config_refused_total",
                Unit::Count,
                "Runtime configurations that were not taken over.",
            )
        };
        let blocked = |reason: Reason| {
            let gauge = meter.with("reason", reason.as_str()).gauge(
                "cortex_multikv_switch_blocked",
                Unit::Count,
                "Whether the switch that is asked for, or the end of mirroring, has to wait for this reason.",
            );
            (reason, gauge)
        };
        let gauge = |name: &'static str, unit, help: &'static str| meter.gauge(name, unit, help);
        Self {
            primary: of_store(
                "cortex_multikv_primary_store",
                "Selected primary KV store, set to 1 for the primary and 0 for the other one.",
            ),
            up: of_store("cortex_multikv_store_up", "Whether the store answers."),
            missing: of_store(
                "cortex_multikv_entries_missing",
                "Entries of living owners that the other store has and this one has not.",
            ),
            mirror_enabled: gauge(
                "cortex_multikv_mirror_enabled",
                Unit::Count,
                "Whether mirroring to secondary store is enabled.",
            ),
            writes: meter.counter(
                "cortex_multikv_mirror_writes_total",
                Unit::Count,
                "Number of mirror-writes to secondary store: attempts, whatever became of them.",
            ),
            write_errors: meter.counter(
                "cortex_multikv_mirror_write_errors_total",
                Unit::Count,
                "Number of failures to mirror-write to secondary store; what the store has already is none.",
            ),
            applied: outcome("applied"),
            noop: outcome("noop"),
            stale: outcome("stale"),
            too_large: outcome("too_large"),
            timeout: outcome("timeout"),
            error: outcome("error"),
            queue_length: gauge(
                "cortex_multikv_mirror_queue_length",
                Unit::Count,
                "Changes that are still to be mirrored.",
            ),
            lag_seconds: gauge(
                "cortex_multikv_mirror_lag_seconds",
                Unit::Seconds,
                "How long the oldest of them has been waiting.",
            ),
            mismatched: gauge(
                "cortex_multikv_entries_mismatched",
                Unit::Count,
                "Entries that were written at the same time and differ between the stores.",
            ),
            foreign: gauge(
                "cortex_multikv_foreign_entries",
                Unit::Count,
                "Entries that only the secondary store has.",
            ),
            skew_seconds: gauge(
                "cortex_multikv_max_timestamp_skew_seconds",
                Unit::Seconds,
                "Largest difference between the heartbeats of a living owner in the two stores.",
            ),
            last_reconcile: gauge(
                "cortex_multikv_last_reconcile_timestamp_seconds",
                Unit::Seconds,
                "When both stores were last read and told what they lacked.",
            ),
            blocked: Reason::ALL.into_iter().map(blocked).collect(),
            stale_generations: refused("generation"),
            unknown_stores: refused("unknown_store"),
        }
    }

    pub(super) fn set_mode(&self, primary: Place, mirror: bool) {
        for place in Place::BOTH {
            self.primary[place].set(flag(place == primary));
        }
        self.mirror_enabled.set(flag(mirror));
    }

    pub(super) fn set_up(&self, place: Place, up: bool) {
        self.up[place].set(flag(up));
    }

    pub(super) fn set_blocked(&self, reasons: &Reasons) {
        for (reason, gauge) in &self.blocked {
            gauge.set(flag(reasons.contains_key(reason)));
        }
    }

    pub(super) fn set_totals(&self, totals: &Totals) {
        for place in Place::BOTH {
            self.missing[place].set(totals.missing[place] as f64);
        }
        self.queue_length.set(totals.queue_length as f64);
        self.lag_seconds.set(totals.lag_secs);
        self.mismatched.set(totals.mismatched as f64);
        self.foreign.set(totals.foreign as f64);
        self.skew_seconds.set(totals.skew_secs as f64);
        self.last_reconcile.set(totals.reconciled_secs);
    }

    /// An entry was mirrored, or need not be.
    pub(super) fn mirrored(&self, verdict: Verdict) {
        self.writes.increment(1);
        match verdict {
            Verdict::Applied => &self.applied,
            Verdict::Noop => &self.noop,
            Verdict::Stale => &self.stale,
        }
        .increment(1);
    }

    /// So many entries could not be mirrored.
    pub(super) fn failed(&self, failure: Failure, entries: usize) {
        let entries = entries as u64;
        self.writes.increment(entries);
        self.write_errors.increment(entries);
        match failure {
            Failure::TooLarge => &self.too_large,
            Failure::Timeout => &self.timeout,
            Failure::Error => &self.error,
        }
        .increment(entries);
    }
}

fn flag(is: bool) -> f64 {
    f64::from(u8::from(is))
}
