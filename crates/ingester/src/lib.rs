//! The ingester: keeps the newest samples of its series in memory, after writing them to a log on disk, and answers
//! queries about them. It speaks Cortex's `cortex.Ingester` service and registers in the ring under the key `ring`.
//!
//! [`ROLE`] is the module for a process. What is acknowledged is in the write-ahead log, written to the operating
//! system or, with `blocks_storage.tsdb.wal_sync: commit`, to the disk.

mod datadir;
mod drain;
mod head;
mod http;
mod ingester;
mod metrics;
mod push;
mod query;
mod rate;
mod rpc;
mod service;
#[cfg(test)]
mod testing;
mod wal;

use std::sync::Arc;

use ringkit_config::RingName;
use ringkit_lifecycler::Options;
use ringkit_proto::client::ingester_server::IngesterServer;
use ringkit_ring::Desc;
use ringkit_runtime::{Cause, Families, Service};
use ringkit_server::{IngesterRing, Process, Role};

use crate::ingester::Ingester;
use crate::metrics::Metrics;
use crate::service::IngesterService;

/// The ingester as a module of a process.
pub const ROLE: Role = Role { name: "ingester", visible: true, dependencies: &["ring"], init };

/// The ingester ring has not been provided: the role was started without the role `ring`.
#[derive(Debug, thiserror::Error)]
#[error("the ingester needs the role `ring` in the same process")]
struct NoRing;

fn init(process: &mut Process) -> Result<Option<Box<dyn Service>>, Cause> {
    let config = Arc::clone(&process.config);
    let ring = process.get::<IngesterRing>().map(|IngesterRing(ring)| ring).ok_or(NoRing)?;
    let options = Options::ingester(&config, process.grpc_addr)?;
    let kv = config.kv(RingName::Ingester);
    let client = process.stores.client::<Desc>(&kv, "ingester-lifecycler", &process.meter, &process.clock)?;
    let metrics = Metrics::register(&process.meter);
    let limits = (config.server.grpc_server_max_recv_msg_size, config.server.grpc_server_max_send_msg_size);
    let ingester =
        Arc::new(Ingester::new(config, process.live_config.clone(), process.clock.clone(), metrics));

    let service = IngesterServer::new(rpc::Service(Arc::clone(&ingester)));
    process.grpc(service.max_decoding_message_size(limits.0).max_encoding_message_size(limits.1));
    process.http(http::routes(Arc::clone(&ingester)));
    process.admin(http::admin_routes(Arc::clone(&ingester)));
    process.link("Admin Endpoints:", "/ingester/all_user_stats", "Ingester: series and rates by tenant");
    process.link("Admin Endpoints:", "/ingester/tsdb", "Ingester: head and write-ahead log");
    let asked = Arc::clone(&ingester);
    process.ready_check("Ingester", move || asked.ready());
    let told = Arc::clone(&ingester);
    let collector = process.meter.collect(Arc::new(move |out: &mut Families| told.collect(out)));

    process.drains().announce();
    Ok(Some(Box::new(IngesterService {
        ingester,
        options,
        client,
        meter: process.meter.clone(),
        dir: None,
        lifecycler: None,
        ring,
        drains: process.drains(),
        drain: None,
        scrapes: process.scrapes(),
        _collector: collector,
    })))
}
