//! The distributor itself: what one process knows and does, apart from HTTP.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use ringkit_config::{Config, IngestionRateStrategy, LimitsConfig, RuntimeConfig};
use ringkit_proto::cortexpb::WriteRequest;
use ringkit_ring::Ring;
use ringkit_runtime::{Clock, Collect, CollectGuard, Families, Live, Meter, Supervisor};
use ringkit_server::Tenant;

use crate::clients::Ingesters;
use crate::error::Refusal;
use crate::limits::IngestionRate;
use crate::metrics::{InFlight, Metrics};
use crate::prepare;
use crate::tenants::Tenants;
use crate::validate::Rules;

/// Tells how many distributors share a tenant's rate. At least 1 is assumed.
pub(crate) type HealthyDistributors = Box<dyn Fn() -> usize + Send + Sync>;

/// One distributor.
pub(crate) struct Distributor {
    pub(crate) config: Arc<Config>,
    /// What may change while this runs: the limits of tenants.
    live_config: Live<RuntimeConfig>,
    pub(crate) clock: Clock,
    pub(crate) ring: Ring,
    pub(crate) ingesters: Ingesters,
    pub(crate) metrics: Metrics,
    pub(crate) tenants: Tenants,
    pub(crate) rate: IngestionRate,
    /// Owns the calls that go on after an early answer.
    pub(crate) background: Supervisor,
    healthy_distributors: HealthyDistributors,
}

impl Distributor {
    pub(crate) fn new(
        (config, live_config): (Arc<Config>, Live<RuntimeConfig>),
        clock: Clock,
        ring: Ring,
        ingesters: Ingesters,
        meter: &Meter,
        background: Supervisor,
        healthy_distributors: HealthyDistributors,
    ) -> Self {
        Self {
            config,
            live_config,
            clock,
            ring,
            ingesters,
            metrics: Metrics::register(meter),
            tenants: Tenants::default(),
            rate: IngestionRate::default(),
            background,
            healthy_distributors,
        }
    }

    /// Publishes what is computed at scrape time, for as long as the guard and the distributor live.
    pub(crate) fn publish(self: &Arc<Self>, meter: &Meter) -> CollectGuard {
        let weak = Arc::downgrade(self);
        let collector: Arc<dyn Collect> = Arc::new(move |out: &mut Families| {
            if let Some(distributor) = weak.upgrade() {
                distributor.collect(out);
            }
        });
        meter.collect(collector)
    }

    fn collect(&self, out: &mut Families) {
        self.metrics.collect(out);
        self.tenants.collect(out);
        let help = "The configured replication factor.";
        let factor = self.ring.options().replication_factor as f64;
        out.gauge("cortex_distributor_replication_factor", help, &[], factor);
        let help = "Current ingestion rate in samples/sec that distributor is using to limit access.";
        let rate = self.rate.per_second();
        out.gauge("cortex_distributor_ingestion_rate_samples_per_second", help, &[], rate);
    }

    /// The limits of one tenant, as they are now. To be asked once per request, so that a request keeps to one set.
    pub(crate) fn limits(&self, tenant: &str) -> Arc<LimitsConfig> {
        self.live_config.with(|live| Arc::clone(live.limits(tenant)))
    }

    /// Takes a write request of `tenant`: validates, limits, and sends each series to its replicas.
    ///
    /// When this returns `Ok`, every sample of the request is acknowledged by a quorum of the replicas of its series.
    /// Dropping the future leaves the calls under way to finish in the background.
    ///
    /// # Errors
    ///
    /// 400 with the first broken rule, when all series without fault are safe; else the status that says whose fault it
    /// is. After a 5xx some samples may be stored on some replicas; repeating the request is harmless.
    pub(crate) async fn push(
        self: &Arc<Self>,
        tenant: &Tenant,
        request: &WriteRequest,
    ) -> Result<(), Refusal> {
        let id = tenant.as_str();
        let now_ms = self.clock.now_ms();
        let limits = self.limits(id);
        let rules = Rules::new(&limits, now_ms);
        let batch = prepare::prepare(id, &request.timeseries, &rules).map_err(|error| {
            self.metrics.reject("protobuf");
            Refusal::new(400, format!("the body is not a remote-write request: {error}"))
        })?;
        let metadata = request.metadata.len() as u64;
        let counters = self.tenants.get(id, now_ms);
        counters.received(&batch.counts, metadata);

        let (rate, burst) = (self.tenant_rate(&limits), limits.ingestion_burst_size);
        let num = batch.counts.samples + batch.counts.exemplars + metadata;
        if let Err(retry_after) = counters.limiter.take(rate, burst, num) {
            counters.rate_limited(&batch.counts, metadata);
            let samples = batch.counts.samples;
            let text = format!(
                "ingestion rate limit ({rate}) exceeded while adding {samples} samples and {metadata} metadata"
            );
            return Err(Refusal::too_fast(text, retry_after));
        }
        counters.accepted(&batch.counts, metadata);
        self.rate.add(num);
        self.metrics.raw_series.increment(batch.counts.raw);
        self.metrics.reencoded_series.increment(batch.counts.reencoded);

        if !batch.series.is_empty() {
            self.replicate(tenant, batch.series, &batch.tokens).await?;
        }
        batch.first_rejection.map_or(Ok(()), |text| Err(Refusal::new(400, text)))
    }

    /// Lets one more write request in, to be held for as long as it takes. Asked before the body is read, so that an
    /// overloaded process does not fill its memory with what it is going to refuse.
    ///
    /// # Errors
    ///
    /// 503 over one of `distributor.instance_limits`.
    pub(crate) fn admit(&self) -> Result<InFlight<'_>, Refusal> {
        let (inflight, pushes) = InFlight::enter(&self.metrics.inflight_pushes);
        self.check_instance_limits(pushes).inspect_err(|_| self.metrics.reject("overload"))?;
        Ok(inflight)
    }

    fn check_instance_limits(&self, pushes: i64) -> Result<(), Refusal> {
        let limits = &self.config.distributor.instance_limits;
        let over = |limit: usize, actual: i64| {
            limit > 0 && usize::try_from(actual).is_ok_and(|actual| actual > limit)
        };
        let refuse = |text: &str| Err(Refusal::new(503, text));
        if over(limits.max_inflight_push_requests, pushes) {
            return refuse("too many inflight push requests in distributor");
        }
        if limits.max_ingestion_rate > 0.0 && self.rate.per_second() >= limits.max_ingestion_rate {
            return refuse("distributor's samples push rate limit reached");
        }
        let calls = self.metrics.inflight_calls.load(Ordering::Relaxed);
        if over(limits.max_inflight_client_requests, calls) {
            return refuse("too many inflight ingester client requests in distributor");
        }
        Ok(())
    }

    /// What this process may take of a tenant's rate.
    fn tenant_rate(&self, limits: &LimitsConfig) -> f64 {
        match limits.ingestion_rate_strategy {
            IngestionRateStrategy::Local => limits.ingestion_rate,
            IngestionRateStrategy::Global => {
                limits.ingestion_rate / (self.healthy_distributors)().max(1) as f64
            }
        }
    }

    /// Why this process cannot serve yet, in plain words.
    pub(crate) fn ready(&self) -> Result<(), String> {
        if self.ring.snapshot().instances().is_empty() {
            return Err(
                "the ingester ring is empty: no ingester has joined yet, or the ring has not been read"
                    .into(),
            );
        }
        Ok(())
    }

    /// Forgets ingesters that have left the ring.
    pub(crate) fn ring_changed(&self) {
        let snapshot = self.ring.snapshot();
        self.metrics.peers.retain(|id| snapshot.instance(id).is_some());
        self.ingesters.retain(snapshot.instances().iter().map(|instance| instance.addr().as_str()));
    }
}
