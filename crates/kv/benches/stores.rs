//! What a ring costs its store: writes per second and bytes per heartbeat, by layout, server and number of instances.
//!
//! `cargo bench -p ringkit-kv` starts the servers, prints one table and ends. An entry is as large as one with 128 tokens.

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a benchmark prints, and ends where it cannot go on"
)]

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use ringkit_config::{ConsulConfig, EtcdConfig, KvStore, KvStoreConfig, Layout};
use ringkit_kv::conformance::Counters;
use ringkit_kv::{Change, Key, Precondition, Store, Stores, Value as _};
use ringkit_runtime::{Clock, Meter};
use ringkit_testkit::{Consul, Etcd, Proxy};
use tokio::task::JoinSet;

const ENTRY_BYTES: usize = 700;
const RACE: Duration = Duration::from_secs(3);

fn config(store: KvStore, addr: SocketAddr, layout: Layout) -> KvStoreConfig {
    KvStoreConfig {
        store,
        layout,
        consul: ConsulConfig { host: addr.to_string(), ..ConsulConfig::default() },
        etcd: EtcdConfig { endpoints: vec![addr.to_string()], ..EtcdConfig::default() },
        ..KvStoreConfig::default()
    }
}

/// One instance: a process of its own as far as the store can tell.
#[derive(Clone)]
struct Instance {
    store: Arc<dyn Store>,
    key: Key,
    id: String,
}

impl Instance {
    fn all(config: &KvStoreConfig, number: usize) -> Vec<Self> {
        let key = Key::new(format!("bench-{}-{number}", config.layout), Counters::codec());
        let store = || Stores::new().open(config, "bench", &Meter::disabled(), &Clock::system()).unwrap();
        (0..number)
            .map(|id| Self { store: store(), key: key.clone(), id: format!("instance-{id}") })
            .collect()
    }

    async fn heartbeat(&self) {
        let entry: Vec<u8> = (0..ENTRY_BYTES / 4).flat_map(|_| rand::random::<[u8; 4]>()).collect();
        let change = Change::upsert(self.id.as_str(), Bytes::from(entry));
        self.store.apply(&self.key, change, Precondition::None).await.unwrap();
    }
}

async fn measure(store: KvStore, server: SocketAddr, layout: Layout, number: usize) {
    let proxy = Proxy::start(server).await.unwrap();
    let instances = Instance::all(&config(store, proxy.addr(), layout), number);
    for instance in &instances {
        instance.heartbeat().await;
    }
    let (before, mut longest) = (proxy.num_bytes(), Duration::ZERO);
    for instance in &instances {
        let started_at = Instant::now();
        instance.heartbeat().await;
        longest = longest.max(started_at.elapsed());
    }
    let bytes = (proxy.num_bytes() - before) / number as u64;

    let started_at = Instant::now();
    let mut racing = JoinSet::new();
    for instance in instances {
        racing.spawn(async move {
            let mut written = 0_u32;
            while started_at.elapsed() < RACE {
                instance.heartbeat().await;
                written += 1;
            }
            written
        });
    }
    let written: u32 = racing.join_all().await.into_iter().sum();
    let per_second = f64::from(written) / started_at.elapsed().as_secs_f64();
    println!("{store:<7} {layout:<13} {number:>9} {per_second:>17.0} {bytes:>20} {longest:>14.1?}");
}

#[tokio::main]
async fn main() {
    // `cargo test --benches` only wants to know that it builds.
    if !std::env::args().any(|arg| arg == "--bench") {
        return;
    }
    let (consul, etcd) = (Consul::start().await.unwrap(), Etcd::start().await.unwrap());
    println!("store   layout        instances  racing writes/s  bytes per heartbeat  slowest alone");
    for (store, addr) in [(KvStore::Consul, consul.addr()), (KvStore::Etcd, etcd.addr())] {
        for layout in [Layout::Single, Layout::PerInstance] {
            for number in [10, 50, 200] {
                measure(store, addr, layout, number).await;
            }
        }
    }
}
