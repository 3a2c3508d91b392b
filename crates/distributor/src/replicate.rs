//! Sending series to their replicas and deciding whether enough of them have it.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use ringkit_proto::cortexpb::WriteRequest;
use ringkit_ring::{BatchError, CallError, Instance, Operation, do_batch};
use ringkit_server::Tenant;

use crate::clients;
use crate::distributor::Distributor;
use crate::error::Refusal;
use crate::metrics::{Call, InFlight, Status};

impl Distributor {
    /// Writes each of `series` to the replicas of its token among the tenant's ingesters; returns as soon as every one is decided. The calls that
    /// are left then go on in the background, at most for `distributor.remote_timeout`.
    ///
    /// # Errors
    ///
    /// The status that a quorum of replicas gave, 500 if too few replicas are alive. Never `Ok` without a quorum for
    /// every series.
    pub(crate) async fn replicate(
        self: &Arc<Self>,
        tenant: &Tenant,
        series: Vec<Bytes>,
        tokens: &[u32],
    ) -> Result<(), Refusal> {
        let op =
            if self.config.distributor.extend_writes { Operation::WRITE } else { Operation::WRITE_NO_EXTEND };
        let snapshot = self.ring.snapshot();
        let shard = self.write_shard(&snapshot, tenant.as_str());
        let series: Arc<[Bytes]> = series.into();
        let (this, tenant) = (Arc::clone(self), tenant.clone());
        let acked = Arc::new(AtomicUsize::new(0));
        let acks = Arc::clone(&acked);
        let call = move |instance: Arc<Instance>, items: Vec<usize>| {
            let (this, tenant, acks) = (Arc::clone(&this), tenant.clone(), Arc::clone(&acks));
            let timeseries: Vec<Bytes> = items.iter().filter_map(|item| series.get(*item)).cloned().collect();
            async move {
                this.push_to(&instance, &tenant, timeseries).await?;
                acks.fetch_add(1, Ordering::Relaxed);
                Ok(())
            }
        };
        let now = self.ring.clock().now_secs();
        match do_batch(&shard, op, tokens, now, &self.background, call).await {
            Ok(_report) => {
                self.metrics.quorum_ok.increment(1);
                self.metrics.replicas_acked.record(acked.load(Ordering::Relaxed) as f64);
                Ok(())
            }
            Err(error) => Err(self.failed(&error)),
        }
    }

    fn failed(&self, error: &BatchError) -> Refusal {
        let (counter, status) = match error {
            BatchError::Ring(_) | BatchError::NoInstances => (&self.metrics.quorum_too_few, 500),
            BatchError::Failed { code, .. } if code / 100 == 4 => (&self.metrics.quorum_client_error, *code),
            BatchError::Failed { code, .. } => (&self.metrics.quorum_server_error, *code),
            _ => (&self.metrics.quorum_server_error, 500),
        };
        counter.increment(1);
        Refusal::new(status, error.to_string())
    }

    /// One `Push` to one ingester.
    async fn push_to(
        &self,
        instance: &Instance,
        tenant: &Tenant,
        timeseries: Vec<Bytes>,
    ) -> Result<(), CallError> {
        let (_inflight, _) = InFlight::enter(&self.metrics.inflight_calls);
        let peer = self.metrics.peers.get(&instance.id);
        let (_peer_inflight, pushes) = InFlight::enter(&peer.inflight_pushes);
        let limit = self.config.ingester_client.max_inflight_push_requests;
        if limit > 0 && u64::try_from(pushes).is_ok_and(|pushes| pushes > limit) {
            return Err(CallError::new(500, "too many inflight push requests to this ingester"));
        }
        peer.appends.fetch_add(1, Ordering::Relaxed);
        let timing = self.metrics.time(Call::Push);
        let timeout = self.config.distributor.remote_timeout;
        let request = WriteRequest { timeseries, ..WriteRequest::default() };
        let answer = match tokio::time::timeout(
            timeout,
            self.ingesters.push(instance, tenant.as_str(), request),
        )
        .await
        {
            Ok(answer) => answer,
            Err(_elapsed) => {
                self.metrics.push_timeouts.increment(1);
                Err(CallError::new(500, format!("no answer within {}s", timeout.as_secs_f64())))
            }
        };
        let status = clients::status_of(&answer);
        timing.ended(status);
        match status {
            Status::Success => (),
            Status::Client => _ = peer.failures_client.fetch_add(1, Ordering::Relaxed),
            _ => _ = peer.failures_server.fetch_add(1, Ordering::Relaxed),
        }
        answer
    }
}
