//! Two stores that are one, as a configuration asks for them.

use std::sync::Arc;

use ringkit_config::{KvStore, KvStoreConfig, MultiConfig};
use ringkit_kv::{Error, Store, Stores};
use ringkit_runtime::{Clock, Meter};

use crate::world::config;

fn configured(primary: KvStore, secondary: KvStore) -> KvStoreConfig {
    let multi = MultiConfig { primary: Some(primary), secondary: Some(secondary), ..config() };
    KvStoreConfig { store: KvStore::Multi, prefix: "collectors/".into(), multi, ..KvStoreConfig::default() }
}

fn open(stores: &Stores, config: &KvStoreConfig, meter: &Meter) -> Result<Arc<dyn Store>, Error> {
    stores.open(config, "ingester-ring", meter, &Clock::system())
}

#[tokio::test]
async fn a_block_that_makes_no_sense_is_refused() {
    let refused =
        |config: &KvStoreConfig| open(&Stores::new(), config, &Meter::disabled()).err().unwrap().to_string();
    let error = refused(&configured(KvStore::Inmemory, KvStore::Inmemory));
    assert!(error.contains("must be different"), "{error}");
    let error = refused(&configured(KvStore::Inmemory, KvStore::Multi));
    assert!(error.contains("cannot be multi-stores"), "{error}");
    let mut unset = configured(KvStore::Inmemory, KvStore::Consul);
    unset.multi.secondary = None;
    let error = refused(&unset);
    assert!(error.contains("primary or secondary store not set"), "{error}");
}

/// How this process is a member of a gossip cluster.
#[cfg(feature = "memberlist")]
fn member() -> ringkit_kv::memberlist::MemberlistOptions {
    ringkit_kv::memberlist::MemberlistOptions {
        config: ringkit_config::MemberlistConfig {
            bind_addr: vec!["127.0.0.1".into()],
            bind_port: 0,
            ..ringkit_config::MemberlistConfig::default()
        },
        zone: String::new(),
        build: String::new(),
        meter: Meter::disabled(),
        clock: Clock::system(),
        proceed_after: None,
    }
}

#[cfg(feature = "memberlist")]
#[tokio::test]
async fn h4_a_switch_reaches_every_ring_of_the_process() {
    use metrics_exporter_prometheus::PrometheusBuilder;
    use ringkit_kv::multi::MultiRuntime;
    use ringkit_testkit::eventually_ok;
    use tokio::sync::watch;

    use crate::world::{SOON, sum};

    const RINGS: [&str; 4] =
        ["ingester-lifecycler", "ingester-ring", "distributor-lifecycler", "store-gateway"];
    let stores = Stores::new();
    stores.set_memberlist(member());
    let runtime = watch::Sender::new(MultiRuntime::default());
    stores.set_multi_runtime(runtime.subscribe());
    let recorder = PrometheusBuilder::new().build_recorder();
    let rendered = recorder.handle();
    let meter = Meter::new(Arc::new(recorder));
    let config = configured(KvStore::Inmemory, KvStore::Memberlist);
    let open = |kv_name: &str| stores.open(&config, kv_name, &meter, &Clock::system()).unwrap();
    let _opened = RINGS.map(open);
    runtime.send_modify(|runtime| {
        runtime.primary = Some(KvStore::Memberlist);
        runtime.force = true;
    });
    let multis = stores.multis();
    assert_eq!(multis.len(), RINGS.len());
    for multi in &multis {
        let switched = || async {
            let report = multi.report();
            let is_switched = report.primary == "memberlist";
            if is_switched { Ok(()) } else { Err(format!("{} is on {}", report.kv_name, report.primary)) }
        };
        eventually_ok(SOON, switched).await.unwrap();
    }
    let primary = |kv_name: &str, store: &str| {
        let (kv_name, store) = (format!(r#"kv_name="{kv_name}""#), format!(r#"store="{store}""#));
        sum(&rendered.render(), "cortex_multikv_primary_store", &[kv_name.as_str(), store.as_str()])
    };
    for kv_name in RINGS {
        assert_eq!((primary(kv_name, "memberlist"), primary(kv_name, "inmemory")), (1.0, 0.0), "{kv_name}");
    }
    // Also one that is opened when all is done.
    let _late = open("late");
    assert_eq!(primary("late", "memberlist"), 1.0);
    stores.leave().await;
}

#[cfg(feature = "memberlist")]
#[tokio::test]
async fn requests_are_timed_for_both_and_the_whole_and_keys_have_one_prefix() {
    use metrics_exporter_prometheus::PrometheusBuilder;
    use ringkit_kv::Client;
    use ringkit_kv::conformance::Counters;

    let stores = Stores::new();
    stores.set_memberlist(member());
    let recorder = PrometheusBuilder::new().build_recorder();
    let rendered = recorder.handle();
    let meter = Meter::new(Arc::new(recorder));
    let config = configured(KvStore::Inmemory, KvStore::Memberlist);
    let client = Client::<Counters>::new(open(&stores, &config, &meter).unwrap(), &Meter::disabled());
    client.upsert_own("ring", "a", &1).await.unwrap();
    assert_eq!(client.list("").await.unwrap(), ["ring"]);
    assert!(stores.multis().iter().all(|multi| multi.report().keys[0].key == "collectors/ring"));
    assert_eq!(stores.multis().len(), 1);
    // Everything is mirrored before the member leaves.
    stores.leave().await;
    let mut found: Vec<(String, String)> = Vec::new();
    let text = rendered.render();
    for line in text.lines().filter(|line| line.starts_with("cortex_kv_request_duration_seconds_count{")) {
        let label = |name: &str| {
            let value = line.split(&format!("{name}=\"")).nth(1).unwrap();
            value.split('"').next().unwrap().to_owned()
        };
        if label("operation") == "CAS" && !line.ends_with(" 0") {
            found.push((label("type"), label("role")));
        }
    }
    found.sort();
    found.dedup();
    let expected = [("inmemory", "primary"), ("memberlist", "secondary"), ("multi", "primary")];
    assert_eq!(found, expected.map(|(kind, role)| (kind.to_owned(), role.to_owned())), "{text}");
}

#[cfg(all(feature = "consul", feature = "etcd"))]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn consul_and_etcd_conform_together() {
    use ringkit_config::{ConsulConfig, EtcdConfig};
    use ringkit_kv::conformance::{Traits, all};
    use ringkit_testkit::{Consul, Etcd};

    let (consul, etcd) = (Consul::start().await.unwrap(), Etcd::start().await.unwrap());
    for (primary, secondary) in [(KvStore::Consul, KvStore::Etcd), (KvStore::Etcd, KvStore::Consul)] {
        let host = consul.addr().to_string();
        let config = KvStoreConfig {
            consul: ConsulConfig { host, watch_rate_limit: 0.0, ..ConsulConfig::default() },
            etcd: EtcdConfig { endpoints: vec![etcd.addr().to_string()], ..EtcdConfig::default() },
            ..configured(primary, secondary)
        };
        let store = open(&Stores::new(), &config, &Meter::disabled()).unwrap();
        all(&store, Traits::default()).await;
    }
}
