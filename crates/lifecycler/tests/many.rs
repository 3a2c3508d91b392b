//! Many whole instances on one real server: they join in the same instant, and they beat for long.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
#![expect(clippy::print_stderr, reason = "the figures of long runs")]

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use ringkit_config::{
    AutoDuration, ConsulConfig, EtcdConfig, KvStore, KvStoreConfig, Layout, ReadinessCheck,
};
use ringkit_kv::{Stores, Value as _};
use ringkit_lifecycler::tokens_file::OnCorrupt;
use ringkit_lifecycler::{Delegates, Handle, Options, RegisteredAt, TokenChoice};
use ringkit_ring::{Desc, State};
use ringkit_runtime::{Clock, Meter, ServiceHandle};
use ringkit_testkit::{Consul, Etcd, Proxy};

const TOKENS: usize = 128;

/// What a slow machine takes for a hundred; a fast one is done in five seconds.
const JOIN_WITHIN: Duration = Duration::from_secs(240);

fn consul(addr: SocketAddr, layout: Layout) -> KvStoreConfig {
    let consul = ConsulConfig { host: addr.to_string(), ..ConsulConfig::default() };
    KvStoreConfig { store: KvStore::Consul, layout, consul, ..KvStoreConfig::default() }
}

fn etcd(addr: SocketAddr, layout: Layout) -> KvStoreConfig {
    let etcd = EtcdConfig { endpoints: vec![addr.to_string()], ..EtcdConfig::default() };
    KvStoreConfig { store: KvStore::Etcd, layout, etcd, ..KvStoreConfig::default() }
}

/// A Consul that takes more than 200 connections from one address: here that address stands for many hosts.
async fn roomy_consul() -> Consul {
    Consul::start_with("limits { http_max_conns_per_client = 2000 }").await.unwrap()
}

struct Instance {
    service: ServiceHandle,
    handle: Handle,
}

/// What all instances count together.
struct Counts {
    rendered: PrometheusHandle,
    meter: Meter,
}

impl Counts {
    fn new() -> Self {
        let recorder = PrometheusBuilder::new().build_recorder();
        Self { rendered: recorder.handle(), meter: Meter::new(Arc::new(recorder)) }
    }

    /// The sum of all series of this name whose labels contain `label`.
    fn sum(&self, name: &str, label: &str) -> f64 {
        let text = self.rendered.render();
        let series = text.lines().filter(|line| line.starts_with(name) && line.contains(label));
        series.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
    }
}

fn start(
    config: &KvStoreConfig,
    stores: &Stores,
    number: u32,
    counts: &Counts,
    token_choice: TokenChoice,
) -> Instance {
    let clock = Clock::system();
    let client = stores.client::<Desc>(config, "ingester-lifecycler", &counts.meter, &clock).unwrap();
    let options = Options {
        name: "ingester",
        key: "ring".into(),
        id: format!("ingester-{number}"),
        addr: format!("10.0.{}.{}:9095", number / 250, number % 250),
        zone: format!("zone-{}", number % 3),
        num_tokens: TOKENS,
        token_choice,
        heartbeat_period: Duration::from_secs(5),
        heartbeat_timeout: Duration::from_secs(60),
        observe_period: AutoDuration::Auto,
        join_after: AutoDuration::Auto,
        min_ready_duration: Duration::ZERO,
        final_sleep: Duration::ZERO,
        tokens_file_path: None,
        unregister_on_shutdown: true,
        on_corrupt: OnCorrupt::Ring,
        readiness_check: ReadinessCheck::Own,
        auto_forget: None,
        basic_metrics: false,
        delegates: Delegates::default(),
        auto_join: true,
        registered_at: RegisteredAt::Now,
        join_as: State::Active,
    };
    let (lifecycler, handle) = ringkit_lifecycler::new(options, client, clock, &counts.meter, None);
    let service = ServiceHandle::new(format!("lifecycler-{number}"), Box::new(lifecycler));
    service.start_async().unwrap();
    Instance { service, handle }
}

async fn all_active(instances: &[Instance], within: Duration) {
    let deadline = tokio::time::Instant::now() + within;
    for (number, instance) in instances.iter().enumerate() {
        let mut status = instance.handle.watch();
        let active = status.wait_for(|status| status.published && status.state == State::Active);
        let joined = tokio::time::timeout_at(deadline, active).await.map(|status| drop(status.unwrap()));
        joined.unwrap_or_else(|_| panic!("instance {number} is {:?}", instance.handle.watch().borrow()));
    }
}

/// Each with a client and a watch of its own, as so many processes have.
async fn join_in_the_same_instant(
    config: &KvStoreConfig,
    number: u32,
    within: Duration,
    choice: TokenChoice,
) {
    let counts = Counts::new();
    let started_at = Instant::now();
    let instances: Vec<Instance> =
        (0..number).map(|number| start(config, &Stores::new(), number, &counts, choice.clone())).collect();
    all_active(&instances, within).await;
    eprintln!("{} {}: {number} joined within {:.1?}", config.store, config.layout, started_at.elapsed());

    let client = Stores::new().client::<Desc>(config, "test", &Meter::disabled(), &Clock::system()).unwrap();
    let view = client.get("ring").await.unwrap().unwrap();
    let entries = view.value.entries();
    assert_eq!(entries.len(), number as usize);
    assert!(entries.values().all(|entry| entry.state == State::Active && entry.tokens.len() == TOKENS));
    let tokens: BTreeSet<u32> = entries.values().flat_map(|entry| entry.tokens.iter().copied()).collect();
    assert_eq!(tokens.len(), number as usize * TOKENS, "a token has two owners");

    // All leave in the same instant as well, and nobody stays behind.
    instances.iter().for_each(|instance| instance.service.stop_async());
    for instance in &instances {
        instance.service.await_terminated().await.unwrap();
    }
    let left = client.get("ring").await.unwrap();
    assert!(left.is_none_or(|view| view.value.entries().is_empty()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_join_consul_in_the_same_instant_in_one_value() {
    let server = roomy_consul().await;
    join_in_the_same_instant(&consul(server.addr(), Layout::Single), 100, JOIN_WITHIN, TokenChoice::Random)
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_join_consul_in_the_same_instant_with_a_key_each() {
    let server = roomy_consul().await;
    join_in_the_same_instant(
        &consul(server.addr(), Layout::PerInstance),
        100,
        JOIN_WITHIN,
        TokenChoice::Random,
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_join_etcd_in_the_same_instant_in_one_value() {
    let server = Etcd::start().await.unwrap();
    join_in_the_same_instant(&etcd(server.addr(), Layout::Single), 100, JOIN_WITHIN, TokenChoice::Random)
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_join_etcd_in_the_same_instant_with_a_key_each() {
    let server = Etcd::start().await.unwrap();
    join_in_the_same_instant(
        &etcd(server.addr(), Layout::PerInstance),
        100,
        JOIN_WITHIN,
        TokenChoice::Random,
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn those_that_choose_tokens_by_what_the_ring_holds_choose_apart() {
    let (a, b) = (Consul::start().await.unwrap(), Etcd::start().await.unwrap());
    for layout in [Layout::PerInstance, Layout::Single] {
        for config in [consul(a.addr(), layout), etcd(b.addr(), layout)] {
            let config = KvStoreConfig { prefix: format!("{layout}/"), ..config };
            // Somebody is there already, so that the rest need not create the key.
            let first = start(&config, &Stores::new(), 100, &Counts::new(), TokenChoice::MinimizeSpread);
            let first = [first];
            all_active(&first, Duration::from_secs(30)).await;
            first[0].service.abort();
            let client =
                Stores::new().client::<Desc>(&config, "test", &Meter::disabled(), &Clock::system()).unwrap();
            client.remove_own("ring", "ingester-100").await.unwrap();
            join_in_the_same_instant(&config, 6, Duration::from_secs(60), TokenChoice::MinimizeSpread).await;
        }
    }
}

/// Instances share clients and watches, as if in fewer processes: what three hundred would read does not fit one machine. In one
/// value, where every heartbeat is the whole value to every watch, there is one, and fewer instances.
async fn beat(config: KvStoreConfig, proxy: Proxy, number: u32) {
    const RUN: Duration = Duration::from_secs(60);
    let processes = if config.layout == Layout::Single { 1 } else { 10 };
    let counts = Counts::new();
    let stores: Vec<Stores> = (0..processes).map(|_| Stores::new()).collect();
    let mut instances = Vec::new();
    for instance in 0..number {
        // Not all at once: that is another test.
        tokio::time::sleep(Duration::from_millis(100)).await;
        instances.push(start(
            &config,
            &stores[instance as usize % processes],
            instance,
            &counts,
            TokenChoice::Random,
        ));
    }
    all_active(&instances, Duration::from_secs(300)).await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    let requests = || match config.store {
        KvStore::Consul => counts.sum("cortex_consul_request_duration_seconds_count", ""),
        _ => counts.sum("cortex_kv_request_duration_seconds_count", ""),
    };
    let beats = || counts.sum("cortex_member_consul_heartbeats_total", "");
    let errors = || counts.sum("cortex_kv_request_duration_seconds_count", "status_code=\"500\"");
    let before = (requests(), beats(), errors(), proxy.num_bytes());
    let began = Instant::now();
    tokio::time::sleep(RUN).await;
    let secs = began.elapsed().as_secs_f64();
    let sent = beats() - before.1;
    let failed = errors() - before.2;
    eprintln!(
        "{} {}: {sent} heartbeats of {number} in {secs:.0} s, {failed} requests failed, {:.0} requests/s, {:.2} MB/s",
        config.store,
        config.layout,
        (requests() - before.0) / secs,
        (proxy.num_bytes() - before.3) as f64 / secs / 1e6,
    );
    assert_eq!(failed, 0.0);
    assert!(sent >= f64::from(number) * 11.0, "{sent} heartbeats");
    for instance in &instances {
        instance.service.abort();
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "soak"]
async fn soak_300_lifecyclers_on_consul_with_a_key_each() {
    let server = roomy_consul().await;
    let proxy = Proxy::start(server.addr()).await.unwrap();
    beat(consul(proxy.addr(), Layout::PerInstance), proxy, 300).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "soak"]
async fn soak_300_lifecyclers_on_etcd_with_a_key_each() {
    let server = Etcd::start().await.unwrap();
    let proxy = Proxy::start(server.addr()).await.unwrap();
    beat(etcd(proxy.addr(), Layout::PerInstance), proxy, 300).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "soak"]
async fn soak_100_lifecyclers_on_consul_in_one_value() {
    let server = roomy_consul().await;
    let proxy = Proxy::start(server.addr()).await.unwrap();
    beat(consul(proxy.addr(), Layout::Single), proxy, 100).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "soak"]
async fn soak_100_lifecyclers_on_etcd_in_one_value() {
    let server = Etcd::start().await.unwrap();
    let proxy = Proxy::start(server.addr()).await.unwrap();
    beat(etcd(proxy.addr(), Layout::Single), proxy, 100).await;
}
