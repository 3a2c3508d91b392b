//! The ingester's metrics. Handles are looked up once; what is told by tenant is computed when somebody scrapes.

use metrics::{Counter, Histogram, Unit};
use ringkit_runtime::Meter;

use crate::wal;

/// See the module.
#[derive(Clone, Debug)]
pub(crate) struct Metrics {
    pub(crate) ingested: Counter,
    pub(crate) failures: Counter,
    pub(crate) duplicates: Counter,
    pub(crate) push_errors: Counter,
    pub(crate) queries: Counter,
    pub(crate) queried_series: Histogram,
    pub(crate) queried_samples: Histogram,
    pub(crate) queried_chunks: Histogram,
    pub(crate) series_created: Counter,
    pub(crate) series_removed: Counter,
    pub(crate) replay_seconds: Histogram,
    pub(crate) wal: wal::Metrics,
}

impl Metrics {
    pub(crate) fn register(meter: &Meter) -> Self {
        let counter = |name, help| meter.counter(name, Unit::Count, help);
        let histogram = |name, help| meter.histogram(name, Unit::Count, help);
        Self {
            ingested: counter("cortex_ingester_ingested_samples_total", "Samples stored"),
            failures: counter(
                "cortex_ingester_ingested_samples_failures_total",
                "Samples that were not stored",
            ),
            duplicates: counter(
                "ringkit_ingester_duplicate_samples_total",
                "Samples that were stored already, bit for bit, and accepted again",
            ),
            push_errors: counter("cortex_ingester_push_errors_total", "Push requests answered with 5xx"),
            queries: counter("cortex_ingester_queries_total", "Queries"),
            queried_series: histogram("cortex_ingester_queried_series", "Series per query"),
            queried_samples: histogram("cortex_ingester_queried_samples", "Samples per query"),
            queried_chunks: histogram("cortex_ingester_queried_chunks", "Chunks per query"),
            series_created: counter("cortex_ingester_memory_series_created_total", "Series created"),
            series_removed: counter("cortex_ingester_memory_series_removed_total", "Series removed"),
            replay_seconds: meter.histogram(
                "cortex_ingester_tsdb_wal_replay_duration_seconds",
                Unit::Seconds,
                "Time to read snapshot and write-ahead log at start",
            ),
            wal: wal::Metrics::register(meter),
        }
    }
}
