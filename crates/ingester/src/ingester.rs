//! What RPCs, pages and the service share.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use parking_lot::Mutex;
use ringkit_config::{Config, IngesterInstanceLimits, RuntimeConfig};
use ringkit_grpc::http_status;
use ringkit_lifecycler::{Drain, Handle};
use ringkit_runtime::{CancellationToken, Clock, Drainable as _, Families, Gate, Live, Stage};
use tokio::sync::{Notify, watch};
use tokio::time::Instant;
use tonic::Status;

use crate::head::Head;
use crate::metrics::Metrics;
use crate::rate::Rate;
use crate::wal::Log;

/// See the module.
pub(crate) struct Ingester {
    pub(crate) config: Arc<Config>,
    /// What may change while this runs: the limits of tenants and of the process.
    pub(crate) live_config: Live<RuntimeConfig>,
    pub(crate) clock: Clock,
    pub(crate) metrics: Metrics,
    /// Id in the ring.
    pub(crate) id: Arc<str>,
    /// Closed when no more samples are taken.
    pub(crate) gate: Gate,
    pub(crate) inflight_pushes: Arc<AtomicU64>,
    pub(crate) inflight_queries: Arc<AtomicU64>,
    /// When the last push came; `None` = never.
    last_push: Mutex<Option<Instant>>,
    last_query: Mutex<Option<Instant>>,
    /// Samples stored per second, over all tenants.
    pub(crate) rate: Rate,
    /// Somebody wants this ingester to leave the ring and end.
    pub(crate) shutdown: CancellationToken,
    /// Whether the service has ended.
    pub(crate) ended: watch::Sender<bool>,
    /// Somebody wants a snapshot.
    pub(crate) flush: Notify,
    /// How many snapshots have been tried.
    pub(crate) flushed: watch::Sender<u64>,
    open: OnceLock<Open>,
    handle: OnceLock<Handle>,
    drain: OnceLock<Drain>,
    /// Nothing more is taken: what is held was compared with the others.
    sealed: AtomicBool,
}

/// What there is once the log has been replayed.
pub(crate) struct Open {
    pub(crate) head: Arc<Head>,
    pub(crate) log: Log,
}

/// A request under way.
#[derive(Debug)]
pub(crate) struct Inflight {
    count: Arc<AtomicU64>,
    /// How many there are with this one.
    pub(crate) number: u64,
}

impl Inflight {
    pub(crate) fn enter(count: &Arc<AtomicU64>) -> Self {
        let number = count.fetch_add(1, Ordering::Relaxed) + 1;
        Self { count: Arc::clone(count), number }
    }
}

impl Drop for Inflight {
    fn drop(&mut self) {
        self.count.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Ingester {
    pub(crate) fn new(
        config: Arc<Config>,
        live_config: Live<RuntimeConfig>,
        clock: Clock,
        metrics: Metrics,
    ) -> Self {
        let id = config.ingester.lifecycler.id.as_str().into();
        Self {
            config,
            live_config,
            clock,
            metrics,
            id,
            gate: Gate::new(),
            inflight_pushes: Arc::default(),
            inflight_queries: Arc::default(),
            last_push: Mutex::default(),
            last_query: Mutex::default(),
            rate: Rate::default(),
            shutdown: CancellationToken::new(),
            ended: watch::Sender::new(false),
            flush: Notify::new(),
            flushed: watch::Sender::new(0),
            open: OnceLock::new(),
            handle: OnceLock::new(),
            drain: OnceLock::new(),
            sealed: AtomicBool::new(false),
        }
    }

    /// Head and log.
    ///
    /// # Errors
    ///
    /// 503 while the log is replayed.
    pub(crate) fn open(&self) -> Result<&Open, Status> {
        self.open.get().ok_or_else(|| http_status(503, "ingester is starting: replaying the write-ahead log"))
    }

    pub(crate) fn set_drain(&self, drain: Drain) {
        let _ = self.drain.set(drain);
    }

    /// Whether somebody wants this ingester out of service.
    pub(crate) fn is_draining(&self) -> bool {
        self.drain.get().is_some_and(|drain| drain.progress().stage != Stage::None)
    }

    /// Takes nothing more, or takes what comes again.
    pub(crate) fn seal(&self, sealed: bool) {
        self.sealed.store(sealed, Ordering::SeqCst);
    }

    pub(crate) fn is_sealed(&self) -> bool {
        self.sealed.load(Ordering::SeqCst)
    }

    /// When the last push came.
    pub(crate) fn last_push(&self) -> Option<Instant> {
        *self.last_push.lock()
    }

    /// A push comes in.
    pub(crate) fn note_push(&self) {
        *self.last_push.lock() = Some(Instant::now());
    }

    /// As [`Self::still_written_to`], for queries as well.
    pub(crate) fn still_busy(&self, quiet: Duration) -> Option<Duration> {
        let asked = self.last_query.lock().map(|at| at.elapsed()).filter(|since| *since < quiet);
        let reading = self.inflight_queries.load(Ordering::Relaxed) > 0;
        let reads = if reading { Some(quiet) } else { asked.map(|since| quiet - since) };
        self.still_written_to(quiet).max(reads)
    }

    /// How much longer nothing must come until nothing came for `quiet`; `None` if that is so already.
    pub(crate) fn still_written_to(&self, quiet: Duration) -> Option<Duration> {
        if self.inflight_pushes.load(Ordering::Relaxed) > 0 {
            return Some(quiet);
        }
        let since = (*self.last_push.lock())?.elapsed();
        (since < quiet).then(|| quiet - since)
    }

    /// Counts a query until it ends.
    ///
    /// # Errors
    ///
    /// 503 if there are as many as there may be.
    pub(crate) fn begin_query(&self) -> Result<Inflight, Status> {
        let limit = self.instance_limits().max_inflight_query_requests;
        *self.last_query.lock() = Some(Instant::now());
        let inflight = Inflight::enter(&self.inflight_queries);
        if limit > 0 && inflight.number > limit {
            return Err(http_status(503, "cannot query: too many inflight query requests in ingester"));
        }
        Ok(inflight)
    }

    /// The limits of the process, as they are now.
    pub(crate) fn instance_limits(&self) -> IngesterInstanceLimits {
        self.live_config.with(|live| live.ingester_limits().clone())
    }

    pub(crate) fn opened(&self) -> Option<&Open> {
        self.open.get()
    }

    pub(crate) fn set_open(&self, open: Open) {
        let _ = self.open.set(open);
    }

    /// The ring entry, once there is one.
    pub(crate) fn handle(&self) -> Option<&Handle> {
        self.handle.get()
    }

    pub(crate) fn set_handle(&self, handle: Handle) {
        let _ = self.handle.set(handle);
    }

    /// Why this ingester cannot be relied on yet, or any more.
    pub(crate) fn ready(&self) -> Result<(), String> {
        let Some(open) = self.opened() else { return Err("replaying the write-ahead log".to_owned()) };
        if let Some(failed) = open.log.failure() {
            return Err(format!("the write-ahead log has failed: {failed}; restart on a healthy disk"));
        }
        match self.handle() {
            Some(handle) => handle.ready(),
            None => Err("not in the ring yet".to_owned()),
        }
    }

    /// Tells metrics that are computed at scrape time.
    pub(crate) fn collect(&self, out: &mut Families) {
        let Some(open) = self.opened() else { return };
        let tenants = open.head.tenants();
        let series: usize = tenants.iter().map(|tenant| tenant.num_series()).sum();
        out.gauge("cortex_ingester_memory_series", "Series in memory", &[], series as f64);
        out.gauge("cortex_ingester_memory_users", "Tenants in memory", &[], tenants.len() as f64);
        let (bytes, segments) = open.log.usage();
        out.gauge("ringkit_wal_bytes", "Bytes of log since the last snapshot", &[], bytes as f64);
        out.gauge("ringkit_wal_segments", "Files of the write-ahead log", &[], segments as f64);
        for tenant in tenants {
            let user = ("user", &*tenant.id);
            let help = "Series with samples within the retention period, by tenant";
            out.gauge("cortex_ingester_active_series", help, &[user], tenant.num_series() as f64);
            for (reason, samples) in tenant.usage.discarded() {
                let labels = [("reason", reason.label()), user];
                let help = "Samples refused, by reason and tenant";
                out.counter("cortex_discarded_samples_total", help, &labels, samples as f64);
            }
        }
    }
}
