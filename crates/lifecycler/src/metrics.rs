//! Metric handles of this crate, looked up once.

use std::time::Duration;

use metrics::{Counter, Gauge, Histogram, Unit};
use ringkit_runtime::Meter;

use crate::options::Options;

/// What a lifecycler reports.
pub(crate) struct Metrics {
    heartbeats: Counter,
    counts_only_successes: bool,
    pub(crate) tokens_owned: Gauge,
    pub(crate) tokens_to_own: Gauge,
    pub(crate) store_errors: Counter,
    pub(crate) forgotten: Counter,
    pub(crate) forgetting_held_back: Counter,
    pub(crate) rivals: Counter,
    flush_succeeded: Histogram,
    flush_failed: Histogram,
}

impl Metrics {
    pub(crate) fn register(meter: &Meter, options: &Options) -> Self {
        let meter = meter.with("name", options.name);
        let basic = options.basic_metrics;
        let (heartbeats, help, owned, to_own) = if basic {
            (
                "cortex_ring_member_heartbeats_total",
                "The total number of heartbeats sent.",
                "cortex_ring_member_tokens_owned",
                "cortex_ring_member_tokens_to_own",
            )
        } else {
            (
                "cortex_member_consul_heartbeats_total",
                "The total number of heartbeats sent to consul.",
                "cortex_member_ring_tokens_owned",
                "cortex_member_ring_tokens_to_own",
            )
        };
        let flush = |status| {
            meter.with("op", "flush").with("status", status).histogram(
                "cortex_shutdown_duration_seconds",
                Unit::Seconds,
                "Duration (in seconds) of shutdown procedure (ie transfer or flush).",
            )
        };
        Self {
            heartbeats: meter.counter(heartbeats, Unit::Count, help),
            counts_only_successes: basic,
            tokens_owned: meter.gauge(owned, Unit::Count, "The number of tokens owned in the ring."),
            tokens_to_own: meter.gauge(to_own, Unit::Count, "The number of tokens to own in the ring."),
            store_errors: meter.counter(
                "ringkit_lifecycler_store_errors_total",
                Unit::Count,
                "Failures of the key-value store that were met and will be tried again.",
            ),
            forgotten: meter.counter(
                "ringkit_lifecycler_forgotten_total",
                Unit::Count,
                "Instances that this one removed from the ring because they were silent for too long.",
            ),
            forgetting_held_back: meter.counter(
                "ringkit_lifecycler_forgetting_held_back_total",
                Unit::Count,
                "Heartbeats at which instances were not removed from the ring because too few others are healthy.",
            ),
            rivals: meter.counter(
                "ringkit_lifecycler_rivals_total",
                Unit::Count,
                "Times that another process was found to live under the id of this one.",
            ),
            flush_succeeded: flush("success"),
            flush_failed: flush("fail"),
        }
    }

    pub(crate) fn heartbeat(&self, succeeded: bool) {
        if succeeded || !self.counts_only_successes {
            self.heartbeats.increment(1);
        }
    }

    pub(crate) fn flushed(&self, took: Duration, succeeded: bool) {
        if succeeded { &self.flush_succeeded } else { &self.flush_failed }.record(took);
    }
}
