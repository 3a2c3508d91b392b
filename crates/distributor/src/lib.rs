//! The distributor: takes Prometheus remote write in, sends each series to its replicas, and reads them back.
//!
//! *A write*: HTTP (`routes`, `push`, `body`) → series checked and repaired (`prepare`, `validate`) → limits
//! (`limits`, `tenants`) → replicas and their quorum (`replicate`). *A read*: a question (`remote_read`,
//! `api`, `selector`, `stats`) → fan-out and quorum (`query`, `read_quorum`) → one answer (`merge`).
//! `clients` calls ingesters; `service` puts it all into a process.

mod api;
mod body;
mod clients;
mod distributor;
mod encode;
mod error;
mod limits;
mod merge;
mod metrics;
mod prepare;
mod push;
mod query;
mod read_quorum;
mod remote_read;
mod replicate;
mod routes;
mod selector;
mod service;
mod shards;
mod stats;
mod tenants;
#[cfg(test)]
mod tests;
mod text;
mod validate;

pub use self::service::ROLE;
