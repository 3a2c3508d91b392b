//! Metric handles of this crate, looked up once.

use metrics::{Counter, Histogram, Unit};
use ringkit_runtime::Meter;

use crate::error::Error;

/// What typed clients count.
#[derive(Clone)]
pub(crate) struct ClientMetrics {
    pub(crate) cas_attempts: Counter,
    pub(crate) cas_written: Counter,
    pub(crate) cas_kept: Counter,
    pub(crate) cas_contended: Counter,
    pub(crate) cas_aborted: Counter,
    pub(crate) cas_failed: Counter,
    pub(crate) undecodable_entries: Counter,
}

impl ClientMetrics {
    pub(crate) fn register(meter: &Meter) -> Self {
        let outcome = |outcome| {
            meter.with("outcome", outcome).counter(
                "ringkit_kv_cas_total",
                Unit::Count,
                "Compare-and-swaps and writes of own entries by what became of them.",
            )
        };
        Self {
            cas_attempts: meter.counter(
                "ringkit_kv_cas_attempts_total",
                Unit::Count,
                "Attempts that compare-and-swaps and writes of own entries took, the first one included.",
            ),
            cas_written: outcome("written"),
            cas_kept: outcome("kept"),
            cas_contended: outcome("contended"),
            cas_aborted: outcome("aborted"),
            cas_failed: outcome("failed"),
            undecodable_entries: meter.counter(
                "ringkit_kv_undecodable_entries_total",
                Unit::Count,
                "Stored entries that could not be read and were skipped.",
            ),
        }
    }
}

impl ClientMetrics {
    /// Counts what became of a write: whether anything was written, or why not.
    pub(crate) fn ended(&self, outcome: Result<bool, &Error>) {
        match outcome {
            Ok(true) => &self.cas_written,
            Ok(false) => &self.cas_kept,
            Err(Error::Contended { .. }) => &self.cas_contended,
            Err(Error::Aborted { .. }) => &self.cas_aborted,
            Err(_) => &self.cas_failed,
        }
        .increment(1);
    }
}

/// Durations of one operation, by outcome.
pub(crate) struct OperationMetrics {
    pub(crate) ok: Histogram,
    pub(crate) failed: Histogram,
}

/// Durations of all operations of one store.
pub(crate) struct RequestMetrics {
    pub(crate) list: OperationMetrics,
    pub(crate) get: OperationMetrics,
    pub(crate) delete: OperationMetrics,
    pub(crate) cas: OperationMetrics,
    pub(crate) watch_key: OperationMetrics,
}

impl RequestMetrics {
    /// `role` is fixed at construction and does not follow a switch of the primary.
    pub(crate) fn register(meter: &Meter, backend: &'static str, role: &'static str, kv_name: &str) -> Self {
        let meter = meter.with("type", backend).with("role", role).with("kv_name", kv_name.to_owned());
        let operation = |operation: &'static str| {
            let status = |code: &'static str| {
                meter.with("operation", operation).with("status_code", code).histogram(
                    "cortex_kv_request_duration_seconds",
                    Unit::Seconds,
                    "Time spent on kv store requests.",
                )
            };
            OperationMetrics { ok: status("200"), failed: status("500") }
        };
        Self {
            list: operation("List"),
            get: operation("GET"),
            delete: operation("Delete"),
            cas: operation("CAS"),
            watch_key: operation("WatchKey"),
        }
    }
}
