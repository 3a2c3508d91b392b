//! What this role measures, under Cortex's names where Cortex has one. Handles are looked up once; values per tenant
//! and per ingester are read when somebody scrapes.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use metrics::{Counter, Histogram, Unit};
use parking_lot::RwLock;
use ringkit_kv::EntryId;
use ringkit_runtime::{Families, Meter};
use tokio::time::Instant;

/// Handles and counters of one distributor.
pub(crate) struct Metrics {
    pub(crate) raw_series: Counter,
    pub(crate) reencoded_series: Counter,
    pub(crate) quorum_ok: Counter,
    pub(crate) quorum_client_error: Counter,
    pub(crate) quorum_server_error: Counter,
    pub(crate) quorum_too_few: Counter,
    pub(crate) replicas_acked: Histogram,
    pub(crate) push_timeouts: Counter,
    pub(crate) query_duration: Histogram,
    pub(crate) read_shortfalls: Counter,
    rejected: Vec<(&'static str, Counter)>,
    calls: [[Histogram; Status::ALL.len()]; Call::ALL.len()],
    pub(crate) inflight_pushes: AtomicI64,
    pub(crate) inflight_calls: AtomicI64,
    pub(crate) peers: Peers,
}

/// The ingester methods this role calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Call {
    Push,
    QueryStream,
    LabelNames,
    LabelValues,
    Series,
    UserStats,
    AllUserStats,
}

impl Call {
    const ALL: [Self; 7] = [
        Self::Push,
        Self::QueryStream,
        Self::LabelNames,
        Self::LabelValues,
        Self::Series,
        Self::UserStats,
        Self::AllUserStats,
    ];

    fn operation(self) -> &'static str {
        match self {
            Self::Push => "/cortex.Ingester/Push",
            Self::QueryStream => "/cortex.Ingester/QueryStream",
            Self::LabelNames => "/cortex.Ingester/LabelNames",
            Self::LabelValues => "/cortex.Ingester/LabelValues",
            Self::Series => "/cortex.Ingester/MetricsForLabelMatchers",
            Self::UserStats => "/cortex.Ingester/UserStats",
            Self::AllUserStats => "/cortex.Ingester/AllUserStats",
        }
    }
}

/// How a call ended, as coarse as Cortex's label `status_code`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Status {
    Success,
    Client,
    Server,
    Cancelled,
    Broken,
}

impl Status {
    const ALL: [Self; 5] = [Self::Success, Self::Client, Self::Server, Self::Cancelled, Self::Broken];

    fn as_str(self) -> &'static str {
        match self {
            Self::Success => "2xx",
            Self::Client => "4xx",
            Self::Server => "5xx",
            Self::Cancelled => "cancel",
            Self::Broken => "error",
        }
    }
}

/// Why a request was refused before any series was looked at.
pub(crate) const REJECTED: [&str; 7] =
    ["tenant", "overload", "content_type", "too_large", "interrupted", "snappy", "protobuf"];

impl Metrics {
    pub(crate) fn register(meter: &Meter) -> Self {
        let count = |label: &'static str, value: &'static str, name: &'static str, help: &'static str| {
            meter.with(label, value).counter(name, Unit::Count, help)
        };
        let forwarded = |path| {
            let help = "Series sent on, by whether their bytes were forwarded as they came or encoded anew";
            count("path", path, "ringkit_forwarded_series_total", help)
        };
        let quorum = |outcome| {
            let help = "Writes by what the replicas decided";
            count("outcome", outcome, "ringkit_quorum_outcomes_total", help)
        };
        let rejected = |reason: &'static str| {
            let help = "Requests refused as a whole before any series was looked at";
            (reason, count("reason", reason, "ringkit_rejected_requests_total", help))
        };
        let call = |call: Call| {
            let meter = meter.with("operation", call.operation());
            Status::ALL.map(|status| {
                let help = "Time spent doing requests to ingesters";
                meter.with("status_code", status.as_str()).histogram(
                    "cortex_ingester_client_request_duration_seconds",
                    Unit::Seconds,
                    help,
                )
            })
        };
        Self {
            raw_series: forwarded("raw"),
            reencoded_series: forwarded("reencoded"),
            quorum_ok: quorum("ok"),
            quorum_client_error: quorum("client_error"),
            quorum_server_error: quorum("server_error"),
            quorum_too_few: quorum("too_few_replicas"),
            replicas_acked: meter.histogram(
                "ringkit_replicas_acked",
                Unit::Count,
                "Ingesters that had acknowledged their part of a write when it was answered",
            ),
            push_timeouts: meter.counter(
                "cortex_distributor_ingester_push_timeouts_total",
                Unit::Count,
                "The total number of push requests to ingesters that were canceled due to timeout",
            ),
            query_duration: meter.histogram(
                "cortex_distributor_query_duration_seconds",
                Unit::Seconds,
                "Time spent executing expression and exemplar queries",
            ),
            read_shortfalls: meter.counter(
                "ringkit_read_quorum_shortfalls_total",
                Unit::Count,
                "Queries refused because too few of the ingesters that were there at their start answered",
            ),
            rejected: REJECTED.map(rejected).into(),
            calls: Call::ALL.map(call),
            inflight_pushes: AtomicI64::new(0),
            inflight_calls: AtomicI64::new(0),
            peers: Peers::default(),
        }
    }

    /// Counts a request refused for one of [`REJECTED`].
    pub(crate) fn reject(&self, reason: &str) {
        if let Some((_, counter)) = self.rejected.iter().find(|(known, _)| *known == reason) {
            counter.increment(1);
        }
    }

    /// Times a call to an ingester that begins now. One that is dropped before its end counts as cancelled.
    pub(crate) fn time(&self, call: Call) -> Timing<'_> {
        Timing { histograms: &self.calls[call as usize], status: Status::Cancelled, started: Instant::now() }
    }

    /// Adds what is computed at scrape time.
    pub(crate) fn collect(&self, out: &mut Families) {
        let help = "Current number of inflight push requests in distributor.";
        let inflight = self.inflight_pushes.load(Ordering::Relaxed) as f64;
        out.gauge("cortex_distributor_inflight_push_requests", help, &[], inflight);
        let help = "Current number of inflight client requests in distributor.";
        let inflight = self.inflight_calls.load(Ordering::Relaxed) as f64;
        out.gauge("cortex_distributor_inflight_client_requests", help, &[], inflight);
        self.peers.collect(out);
    }
}

/// A call under way.
pub(crate) struct Timing<'a> {
    histograms: &'a [Histogram; Status::ALL.len()],
    status: Status,
    started: Instant,
}

impl Timing<'_> {
    /// Records the call.
    pub(crate) fn ended(mut self, status: Status) {
        self.status = status;
    }
}

impl Drop for Timing<'_> {
    fn drop(&mut self) {
        self.histograms[self.status as usize].record(self.started.elapsed().as_secs_f64());
    }
}

/// Counts up while it lives.
pub(crate) struct InFlight<'a>(&'a AtomicI64);

impl<'a> InFlight<'a> {
    /// The guard, and how many there are now, this one included.
    pub(crate) fn enter(counter: &'a AtomicI64) -> (Self, i64) {
        let now = counter.fetch_add(1, Ordering::Relaxed) + 1;
        (Self(counter), now)
    }
}

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Counters per ingester, for as long as it is in the ring.
#[derive(Debug, Default)]
pub(crate) struct Peers {
    by_id: RwLock<HashMap<EntryId, Arc<Peer>>>,
}

/// What was asked of one ingester.
#[derive(Debug, Default)]
pub(crate) struct Peer {
    pub(crate) inflight_pushes: AtomicI64,
    pub(crate) appends: AtomicU64,
    pub(crate) failures_client: AtomicU64,
    pub(crate) failures_server: AtomicU64,
    pub(crate) queries: AtomicU64,
    pub(crate) query_failures: AtomicU64,
}

impl Peers {
    /// The counters of ingester `id`. Takes a shared lock.
    pub(crate) fn get(&self, id: &EntryId) -> Arc<Peer> {
        if let Some(peer) = self.by_id.read().get(id) {
            return Arc::clone(peer);
        }
        Arc::clone(self.by_id.write().entry(id.clone()).or_default())
    }

    /// Forgets ingesters that have left the ring.
    pub(crate) fn retain(&self, keep: impl Fn(&EntryId) -> bool) {
        self.by_id.write().retain(|id, _| keep(id));
    }

    fn collect(&self, out: &mut Families) {
        let peers: Vec<_> =
            self.by_id.read().iter().map(|(id, peer)| (id.clone(), Arc::clone(peer))).collect();
        for (id, peer) in peers {
            let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed) as f64;
            let (id, samples) = (("ingester", id.as_str()), ("type", "samples"));
            let help = "Number of inflight push requests.";
            let inflight = peer.inflight_pushes.load(Ordering::Relaxed) as f64;
            out.gauge("cortex_ingester_client_inflight_push_requests", help, &[id], inflight);
            let help = "The total number of batch appends sent to ingesters.";
            out.counter(
                "cortex_distributor_ingester_appends_total",
                help,
                &[id, samples],
                get(&peer.appends),
            );
            for (status, failures) in [("4xx", &peer.failures_client), ("5xx", &peer.failures_server)] {
                let labels = [id, samples, ("status", status)];
                let help = "The total number of failed batch appends sent to ingesters.";
                out.counter(
                    "cortex_distributor_ingester_append_failures_total",
                    help,
                    &labels,
                    get(failures),
                );
            }
            let help = "The total number of queries sent to ingesters.";
            out.counter("cortex_distributor_ingester_queries_total", help, &[id], get(&peer.queries));
            let help = "The total number of failed queries sent to ingesters.";
            let failures = get(&peer.query_failures);
            out.counter("cortex_distributor_ingester_query_failures_total", help, &[id], failures);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn enums_stand_at_their_own_index() {
        assert!(Call::ALL.into_iter().enumerate().all(|(index, call)| call as usize == index));
        assert!(Status::ALL.into_iter().enumerate().all(|(index, status)| status as usize == index));
    }

    #[test]
    fn guards_count_what_is_under_way() {
        let counter = AtomicI64::new(0);
        let (first, one) = InFlight::enter(&counter);
        let (_second, two) = InFlight::enter(&counter);
        assert_eq!((one, two), (1, 2));
        drop(first);
        assert_eq!(counter.load(Ordering::Relaxed), 1);
    }
}
