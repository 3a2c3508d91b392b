//! The store-gateway: a member of the ring that will own blocks.
//!
//! Here live its membership (registered as JOINING, ACTIVE once its first sync is done) and its pages. It holds no blocks yet: a
//! sync of none is done at once.

mod gateway;
mod stability;

use std::sync::Arc;

use ringkit_config::RingName;
use ringkit_lifecycler::{Drain, Options};
use ringkit_ring::{Desc, Ring, RingOptions, Strategy};
use ringkit_runtime::{Cause, Service, ServiceHandle};
use ringkit_server::{Process, Role};

use crate::gateway::{Gateway, Waits};

/// The store-gateway as a module of a process.
pub const ROLE: Role = Role { name: "store-gateway", visible: true, dependencies: &[], init };

/// The ring of the store-gateways, left for other roles of the process.
#[derive(Clone, Debug)]
pub struct StoreGatewayRing(pub Ring);

fn init(process: &mut Process) -> Result<Option<Box<dyn Service>>, Cause> {
    let config = Arc::clone(&process.config);
    let ring_config = &config.store_gateway.sharding_ring;
    if !config.store_gateway.sharding_enabled {
        tracing::warn!(
            "store_gateway.sharding_enabled is false: this store-gateway joins its ring all the same, there is no other mode"
        );
    }
    let kv = config.kv(RingName::StoreGateway);
    let options = Options::store_gateway(&config, process.grpc_addr)?;
    let id = options.id.clone();
    let reader = RingOptions {
        name: "store-gateway".into(),
        key: options.key.clone(),
        heartbeat_timeout: ring_config.heartbeat_timeout,
        replication_factor: ring_config.replication_factor,
        zone_awareness_enabled: ring_config.zone_awareness_enabled,
        excluded_zones: Vec::new(),
        strategy: Strategy::IgnoreUnhealthy,
        detailed_metrics: ring_config.detailed_metrics_enabled,
        max_vanish_fraction: config.ring.max_vanish_fraction,
        vanish_grace: config.ring.vanish_grace.given(),
        ..RingOptions::default()
    };

    let client = process.stores.client::<Desc>(&kv, "store-gateway", &process.meter, &process.clock)?;
    let client_of_page = client.clone();
    let (ring, ring_service) = Ring::new(reader, client.clone(), process.clock.clone(), &process.meter);
    let (lifecycler, handle) =
        ringkit_lifecycler::new(options, client, process.clock.clone(), &process.meter, None);

    process.ring_page_with_forget(
        "/store-gateway/ring",
        "Store Gateway Ring Status",
        ring.clone(),
        client_of_page,
    );
    let drain = Drain::new(handle.clone(), None, Vec::new());
    let drains = process.drains();
    drains.announce();
    drains.add(drain.clone());
    process.provide(StoreGatewayRing(ring.clone()));
    let readiness = handle.clone();
    process.ready_check("store-gateway", move || readiness.ready());

    Ok(Some(Box::new(Gateway {
        reader: ServiceHandle::new("store-gateway ring", Box::new(ring_service)),
        lifecycler: ServiceHandle::new("store-gateway lifecycler", Box::new(lifecycler)),
        ring,
        handle,
        drain,
        drains,
        id,
        waits: Waits {
            state: ring_config.wait_instance_state_timeout,
            stable_for: ring_config.wait_stability_min_duration,
            stable_within: ring_config.wait_stability_max_duration,
        },
    })))
}
