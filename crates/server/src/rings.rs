//! Module `ring`: reads the ingester ring for everybody in the process, and shows it.

use ringkit_config::RingName;
use ringkit_ring::{Desc, Ring, RingOptions, Strategy};
use ringkit_runtime::{Cause, Service};

use crate::pages::ring::routes_with_forget;
use crate::process::{Process, Role};

/// The ingester ring as this process sees it, provided by module `ring`.
#[derive(Clone, Debug)]
pub struct IngesterRing(pub Ring);

/// The key under which ingesters register.
const KEY: &str = "ring";

const TITLE: &str = "Ingester Ring Status";

pub(crate) const ROLE: Role = Role { name: "ring", visible: false, dependencies: &[], init };

fn init(process: &mut Process) -> Result<Option<Box<dyn Service>>, Cause> {
    let config = &process.config.ingester.lifecycler.ring;
    let options = RingOptions {
        name: "ingester".to_owned(),
        key: KEY.to_owned(),
        heartbeat_timeout: config.heartbeat_timeout,
        replication_factor: config.replication_factor,
        zone_awareness_enabled: config.zone_awareness_enabled,
        excluded_zones: config.excluded_zones.clone(),
        strategy: Strategy::Quorum,
        detailed_metrics: config.detailed_metrics_enabled,
        max_vanish_fraction: process.config.ring.max_vanish_fraction,
        vanish_grace: process.config.ring.vanish_grace.given(),
        ..RingOptions::default()
    };
    let kv = process.config.kv(RingName::Ingester);
    let client = process.stores.client::<Desc>(&kv, "ingester-ring", &process.meter, &process.clock)?;
    let (ring, service) = Ring::new(options, client.clone(), process.clock.clone(), &process.meter);
    process.provide(IngesterRing(ring.clone()));
    process.ring_page_with_forget("/ingester/ring", TITLE, ring.clone(), client.clone());
    // The path of older versions; not linked.
    process.http(routes_with_forget("/ring", TITLE, ring, client, process.admin.clone()));
    Ok(Some(Box::new(service)))
}
