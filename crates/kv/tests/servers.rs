//! The conformance suite on real servers, in both layouts.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
#![cfg(all(feature = "consul", feature = "etcd"))]

use std::sync::Arc;

use ringkit_config::{ConsulConfig, EtcdConfig, KvStore, KvStoreConfig, Layout};
use ringkit_kv::conformance::{self, Traits};
use ringkit_kv::{Store, Stores};
use ringkit_runtime::{Clock, Meter};
use ringkit_testkit::{Consul, Etcd};

fn open(config: &KvStoreConfig) -> Arc<dyn Store> {
    Stores::new().open(config, "test", &Meter::disabled(), &Clock::system()).unwrap()
}

fn consul(server: &Consul, layout: Layout) -> KvStoreConfig {
    let consul =
        ConsulConfig { host: server.addr().to_string(), watch_rate_limit: 0.0, ..ConsulConfig::default() };
    KvStoreConfig {
        store: KvStore::Consul,
        prefix: "collectors/".into(),
        layout,
        consul,
        ..KvStoreConfig::default()
    }
}

fn etcd(server: &Etcd, layout: Layout) -> KvStoreConfig {
    let etcd = EtcdConfig { endpoints: vec![server.addr().to_string()], ..EtcdConfig::default() };
    KvStoreConfig {
        store: KvStore::Etcd,
        prefix: "collectors/".into(),
        layout,
        etcd,
        ..KvStoreConfig::default()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn consul_conforms_in_the_single_layout() {
    let server = Consul::start().await.unwrap();
    conformance::all(&open(&consul(&server, Layout::Single)), Traits::default()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn consul_conforms_with_a_key_per_instance() {
    let server = Consul::start().await.unwrap();
    conformance::all(&open(&consul(&server, Layout::PerInstance)), Traits::default()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn etcd_conforms_in_the_single_layout() {
    let server = Etcd::start().await.unwrap();
    conformance::all(&open(&etcd(&server, Layout::Single)), Traits::default()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn etcd_conforms_with_a_key_per_instance() {
    let server = Etcd::start().await.unwrap();
    conformance::all(&open(&etcd(&server, Layout::PerInstance)), Traits::default()).await;
}
