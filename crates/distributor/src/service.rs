//! The role `distributor` of a process: how it is put together, and its life.

use std::sync::Arc;

use async_trait::async_trait;
use futures::future::select_all;
use metrics::Unit;
use ringkit_config::{Config, GrpcCompression, RingName};
use ringkit_grpc::{Compression, Pool, PoolOptions};
use ringkit_lifecycler::{self as lifecycler, Drain};
use ringkit_ring::{Desc, Operation, Ring, RingOptions, Strategy};
use ringkit_runtime::{CancellationToken, Cause, CollectGuard, Meter, Service, ServiceHandle, StopProcess};
use ringkit_server::{Drains, IngesterRing, Process, Role};
use tokio::time::{MissedTickBehavior, interval};

use crate::clients::Ingesters;
use crate::distributor::Distributor;
use crate::limits::IngestionRate;
use crate::routes;

/// The role `distributor`: takes samples in and reads them back, over HTTP.
///
/// Needs the role `ring`. Registers in the distributors' own ring, whatever the rate strategy: then its page tells who
/// there is, and switching the strategy to global needs no restart to know how many share the rate.
pub const ROLE: Role = Role { name: "distributor", visible: true, dependencies: &["ring"], init };

/// The key of the distributors' ring.
const KEY: &str = "distributor";
/// How often idle tenants are looked for, in ticks of the ingestion rate.
const TICKS_BETWEEN_CLEANUPS: u32 = 60;

/// The ingester ring has not been provided: the role was started without the role `ring`.
#[derive(Debug, thiserror::Error)]
#[error("the distributor needs the role `ring` in the same process")]
struct NoRing;

fn init(process: &mut Process) -> Result<Option<Box<dyn Service>>, Cause> {
    let IngesterRing(ring) = process.get::<IngesterRing>().ok_or(NoRing)?;
    let config = Arc::clone(&process.config);
    let kv = config.kv(RingName::Distributor);
    let client =
        process.stores.client::<Desc>(&kv, "distributor-lifecycler", &process.meter, &process.clock)?;

    let options = ring_options(&config);
    let client_of_page = client.clone();
    let (own_ring, own_ring_service) =
        Ring::new(options, client.clone(), process.clock.clone(), &process.meter);
    let options = lifecycler::Options::distributor(&config, process.grpc_addr)?;
    let (lifecycler, member) = lifecycler::new(options, client, process.clock.clone(), &process.meter, None);
    process.ring_page_with_forget("/distributor/ring", "Distributor Ring Status", own_ring, client_of_page);
    let drain = Drain::new(member.clone(), None, Vec::new());
    let drains = process.drains();
    drains.announce();
    drains.add(drain.clone());

    let (pool, pool_service) = ingester_pool(&config, &ring, &process.meter);
    let distributor = Arc::new(Distributor::new(
        (Arc::clone(&config), process.live_config.clone()),
        process.clock.clone(),
        ring.clone(),
        Ingesters::new(pool, &config),
        &process.meter,
        process.supervisor.clone(),
        Box::new(move || member.healthy_instances()),
    ));
    process.http(routes::routes(Arc::clone(&distributor))?);
    process.link("Admin Endpoints:", "/distributor/all_user_stats", "Usage Statistics");
    let check = Arc::clone(&distributor);
    process.ready_check("distributor", move || check.ready());

    let _published = distributor.publish(&process.meter);
    let part = |name: &str, service: Box<dyn Service>| ServiceHandle::new(name, service);
    Ok(Some(Box::new(DistributorService {
        distributor,
        parts: vec![
            part("distributor ring", Box::new(own_ring_service)),
            part("ingester clients", Box::new(pool_service)),
            part("distributor lifecycler", Box::new(lifecycler)),
        ],
        drain,
        drains,
        _published,
    })))
}

fn ring_options(config: &Config) -> RingOptions {
    let ring = &config.distributor.ring;
    RingOptions {
        name: "distributor".to_owned(),
        key: KEY.to_owned(),
        heartbeat_timeout: ring.heartbeat_timeout,
        replication_factor: 1,
        zone_awareness_enabled: false,
        excluded_zones: Vec::new(),
        strategy: Strategy::Quorum,
        detailed_metrics: ring.detailed_metrics_enabled,
        max_vanish_fraction: config.ring.max_vanish_fraction,
        vanish_grace: config.ring.vanish_grace.given(),
        ..RingOptions::default()
    }
}

fn ingester_pool(config: &Config, ring: &Ring, meter: &Meter) -> (Pool, ringkit_grpc::PoolService) {
    let client = &config.ingester_client.grpc_client_config;
    let compression = match client.grpc_compression {
        GrpcCompression::None => Compression::None,
        GrpcCompression::SnappyBlock => Compression::SnappyBlock,
        other => {
            tracing::warn!(grpc_compression = %other, "compression is not built; ingesters are called without");
            Compression::None
        }
    };
    let options = PoolOptions {
        name: "ingester",
        check_interval: config.distributor.pool.client_cleanup_period,
        check_timeout: config.distributor.remote_timeout,
        health_check: config.distributor.pool.health_check_ingesters,
        connect_timeout: client.connect_timeout,
        compression,
        max_recv_bytes: client.max_recv_msg_size,
        max_send_bytes: client.max_send_msg_size,
    };
    let help = "The current number of ingester clients";
    let pool = Pool::new(options, meter.gauge("cortex_distributor_ingester_clients", Unit::Count, help));
    let ring = ring.clone();
    let service = pool.service().with_discovery(move || {
        let instances = ring.snapshot().all_healthy(Operation::REPORTING, ring.clock().now_secs());
        // An empty ring means that nobody is there.
        let instances = instances.unwrap_or_default();
        Some(instances.iter().map(|instance| instance.addr().to_string()).collect())
    });
    (pool, service)
}

struct DistributorService {
    distributor: Arc<Distributor>,
    /// In the order of starting; stopped in reverse, so that the lifecycler leaves the ring first.
    parts: Vec<ServiceHandle>,
    drain: Drain,
    drains: Drains,
    _published: CollectGuard,
}

#[async_trait]
impl Service for DistributorService {
    async fn start(&mut self, _stop: &CancellationToken) -> Result<(), Cause> {
        for part in &self.parts {
            part.start_async()?;
            part.await_running().await?;
        }
        Ok(())
    }

    async fn run(&mut self, stop: CancellationToken) -> Result<(), Cause> {
        let mut ring_changes = self.distributor.ring.changed();
        let mut ticks = interval(IngestionRate::TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut until_cleanup = TICKS_BETWEEN_CLEANUPS;
        let parts = self.parts.clone();
        let mut ended = Box::pin(select_all(parts.iter().map(|part| Box::pin(part.await_terminated()))));
        let (drain, drains) = (self.drain.clone(), self.drains.clone());
        let mut drained = Box::pin(async move {
            drain.run().await;
            drains.all_done().await;
        });
        loop {
            tokio::select! {
                () = stop.cancelled() => return Ok(()),
                () = &mut drained => return Err(StopProcess.into()),
                (end, ..) = &mut ended => return end.map_err(Cause::from),
                Ok(()) = ring_changes.changed() => self.distributor.ring_changed(),
                _ = ticks.tick() => {
                    self.distributor.rate.tick();
                    until_cleanup -= 1;
                    if until_cleanup == 0 {
                        until_cleanup = TICKS_BETWEEN_CLEANUPS;
                        self.distributor.tenants.forget_idle(self.distributor.clock.now_ms());
                    }
                }
            }
        }
    }

    async fn stop(&mut self, _failure: Option<&Cause>) -> Result<(), Cause> {
        let mut first_error = Ok(());
        for part in self.parts.iter().rev() {
            part.stop_async();
            let ended = part.await_terminated().await;
            if first_error.is_ok() {
                first_error = ended.map_err(Cause::from);
            }
        }
        first_error
    }
}
