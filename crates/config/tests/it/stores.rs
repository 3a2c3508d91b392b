//! Which ring is on which store.

use ringkit_config::{Config, KvStore, RingName};

use crate::{good, warnings};

fn stores(config: &Config) -> [KvStore; 3] {
    RingName::ALL.map(|ring| config.kv(ring).store)
}

#[test]
fn without_a_word_every_ring_is_on_consul_as_in_cortex() {
    assert_eq!(stores(&Config::default()), [KvStore::Consul; 3]);
    assert_eq!(Config::default().kv(RingName::Distributor).prefix, "collectors/");
    assert!(good("").warnings.is_empty());
}

#[test]
fn one_default_serves_all_rings_and_each_may_differ() {
    let loaded = good(
        "ring: {store: inmemory}\nstore_gateway: {sharding_enabled: true, sharding_ring: {kvstore: {store: consul}}}\n",
    );
    assert_eq!(stores(&loaded.config), [KvStore::Inmemory, KvStore::Inmemory, KvStore::Consul]);
    let told = warnings(&loaded).join("\n");
    assert!(
        told.contains("test.yaml:1:15: ring.store: the rings of this process are on different stores"),
        "{told}"
    );
}

#[test]
fn rings_that_this_process_does_not_use_are_not_complained_about() {
    let text = "ring: {store: inmemory}\nstore_gateway: {sharding_ring: {kvstore: {store: consul}}}\n";
    assert!(good(text).warnings.is_empty(), "{:?}", good(text).warnings);
}

#[test]
fn a_ring_without_a_store_follows_the_ingester_ring_and_says_so_where_it_matters() {
    let ingester = "ingester: {lifecycler: {ring: {kvstore: {store: etcd, etcd: {endpoints: [e]}}}}}\n";
    let loaded = good(ingester);
    assert_eq!(stores(&loaded.config), [KvStore::Etcd; 3]);
    assert_eq!(loaded.config.kv(RingName::Distributor).etcd.endpoints, ["e"]);
    assert!(loaded.warnings.is_empty());
    let loaded = good(&format!("{ingester}limits: {{ingestion_rate_strategy: global}}"));
    let told = warnings(&loaded);
    assert!(told.len() == 1 && told[0].contains("`ring.store` is not set"), "{told:?}");
    assert!(told[0].contains("distributor.ring.kvstore.store"), "{told:?}");
}

#[test]
fn following_the_ingester_ring_to_where_cortex_would_go_anyway_is_not_worth_a_word() {
    let loaded = good(
        "\
ingester: {lifecycler: {ring: {kvstore: {store: consul}}}}
limits: {ingestion_rate_strategy: global}
",
    );
    assert!(loaded.warnings.is_empty(), "{:?}", loaded.warnings);
}

#[test]
fn an_ingester_ring_left_on_the_default_beside_a_ring_that_is_set_is_warned_about() {
    let loaded =
        good("store_gateway: {sharding_enabled: true, sharding_ring: {kvstore: {store: inmemory}}}\n");
    assert_eq!(stores(&loaded.config), [KvStore::Consul, KvStore::Consul, KvStore::Inmemory]);
    let told = warnings(&loaded).join("\n");
    assert!(
        told.contains("ingester.lifecycler.ring.kvstore.store: the ingester ring is left on the default"),
        "{told}"
    );
}

#[test]
fn a_default_outside_the_migration_is_left_alone() {
    let loaded = good(
        "\
ring: {store: inmemory}
ingester: {lifecycler: {ring: {kvstore: {store: multi, multi: {primary: consul, secondary: memberlist}}}}}
memberlist: {join_members: [a]}
",
    );
    assert_eq!(stores(&loaded.config), [KvStore::Multi, KvStore::Inmemory, KvStore::Inmemory]);
}

#[test]
fn a_store_given_explicitly_is_kept_even_if_it_is_the_default() {
    let loaded = good("ring: {store: inmemory}\ndistributor: {ring: {kvstore: {store: consul}}}\n");
    assert_eq!(stores(&loaded.config), [KvStore::Inmemory, KvStore::Consul, KvStore::Inmemory]);
}

#[test]
fn backend_blocks_come_from_the_shared_block_then_from_the_ingester_ring() {
    let loaded = good(
        "\
ring: {store: consul, kvstore: {consul: {host: shared:8500}}}
ingester: {lifecycler: {ring: {kvstore: {etcd: {endpoints: [e]}}}}}
store_gateway: {sharding_ring: {kvstore: {consul: {host: own:8500}}}}
",
    );
    let host = |ring| loaded.config.kv(ring).consul.host;
    assert_eq!(host(RingName::Ingester), "shared:8500");
    assert_eq!(host(RingName::Distributor), "shared:8500");
    assert_eq!(host(RingName::StoreGateway), "own:8500");
    assert_eq!(loaded.config.kv(RingName::StoreGateway).etcd.endpoints, ["e"]);
}

#[test]
fn a_configuration_built_in_code_follows_the_same_rules() {
    let mut config = Config::default();
    config.ring.store = Some(KvStore::Inmemory);
    assert_eq!(stores(&config), [KvStore::Inmemory; 3]);
    let mut config = Config::default();
    config.ingester.lifecycler.ring.kvstore.store = KvStore::Inmemory;
    assert_eq!(stores(&config), [KvStore::Inmemory; 3]);
}

#[test]
fn what_kv_says_is_also_what_is_shown() {
    let config = good("ring: {store: inmemory}\n").config;
    for ring in RingName::ALL {
        assert_eq!(config.kv(ring).store, KvStore::Inmemory);
    }
    assert_eq!(config.to_yaml().matches("store: inmemory").count(), 4, "{}", config.to_yaml());
}
