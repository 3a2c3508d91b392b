//! The conformance suite on real servers, in both layouts.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
#![cfg(all(feature = "consul", feature = "etcd"))]

use std::sync::Arc;

use ringkit_config::{ConsulConfig, EtcdConfig, KvStore, KvStoreConfig, Layout};
use ringkit_kv::conformance::Counters;
use ringkit_kv::conformance::{self, Traits};
use ringkit_kv::{Client, Store, Stores};
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

/// What an own-entry write returns must hold what the same process has already been told of the others.
async fn own_writes_know_what_was_heard(config: &KvStoreConfig) {
    let client = || Client::<Counters>::new(open(config), &Meter::disabled());
    let (own, other) = (client(), client());
    let mut watch = own.watch("ring").await.unwrap();
    own.upsert_own("ring", "own", &1).await.unwrap();
    for count in 1..=3 {
        other.upsert_own("ring", "other", &count).await.unwrap();
        loop {
            let heard = watch.next().await.unwrap().value;
            if heard.is_some_and(|value| value.count("other") == Some(count)) {
                break;
            }
        }
        let view = own.upsert_own("ring", "own", &(count + 1)).await.unwrap();
        assert_eq!(view.value.count("other"), Some(count), "{} {}", config.store, config.layout);
        assert_eq!(view.value.count("own"), Some(count + 1));
    }
    other.remove_own("ring", "other").await.unwrap();
    while watch.next().await.unwrap().value.is_some_and(|value| value.count("other").is_some()) {}
    let view = own.upsert_own("ring", "own", &9).await.unwrap();
    assert_eq!(view.value.count("other"), None, "{} {}", config.store, config.layout);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_own_write_returns_what_was_heard_of_others() {
    let (a, b) = (Consul::start().await.unwrap(), Etcd::start().await.unwrap());
    own_writes_know_what_was_heard(&consul(&a, Layout::PerInstance)).await;
    own_writes_know_what_was_heard(&etcd(&b, Layout::PerInstance)).await;
}
