//! What a good file means.

use std::time::Duration;

use ringkit_config::{AutoDuration, Config, KvStore, LogFormat, Secret, WalSync};

use crate::{good, warnings};

#[test]
fn an_empty_file_is_the_defaults() {
    for text in ["", "\n\n", "# nothing\n", "---\n", "---\n...\n", "{}", "null"] {
        let loaded = good(text);
        assert_eq!(loaded.config, Config::default(), "{text:?}");
        assert!(loaded.warnings.is_empty(), "{text:?}: {:?}", loaded.warnings);
    }
}

#[test]
fn only_the_first_document_is_read() {
    let loaded = good("auth_enabled: false\n---\nnonsense: 1\n");
    assert!(!loaded.config.auth_enabled);
    assert_eq!(warnings(&loaded), ["test.yaml:2:1: a second document starts here: only the first is read"]);
}

#[test]
fn durations_are_gos_and_those_of_limits_prometheus_too() {
    let config = good(
        "\
distributor: {remote_timeout: 1h30m0.5s}
ingester_client: {grpc_client_config: {connect_timeout: 1.5ms}}
ingester: {lifecycler: {observe_period: 0s, join_after: auto}}
limits: {reject_old_samples_max_age: 2w, creation_grace_period: 1h30m, compactor_blocks_retention_period: 1y}
",
    )
    .config;
    assert_eq!(config.distributor.remote_timeout, Duration::from_millis(5_400_500));
    assert_eq!(config.ingester_client.grpc_client_config.connect_timeout, Duration::from_micros(1500));
    assert_eq!(config.ingester.lifecycler.observe_period, AutoDuration::After(Duration::ZERO));
    assert_eq!(config.ingester.lifecycler.join_after, AutoDuration::Auto);
    assert_eq!(config.limits.reject_old_samples_max_age, Duration::from_secs(14 * 86_400));
    assert_eq!(config.limits.creation_grace_period, Duration::from_secs(5400));
    assert_eq!(config.limits.compactor_blocks_retention_period, Duration::from_secs(365 * 86_400));
}

#[test]
fn scalars_are_read_as_cortex_reads_them() {
    let config = good(
        "\
target: 'ingester, distributor'
auth_enabled: no
http_prefix: /5
server: {http_listen_port: 0x1F90, log_format: JSON, grpc_server_max_recv_msg_size: 1e6, http_listen_address: 127.0.0.1}
ingester: {lifecycler: {id: 17, availability_zone: true, ring: {excluded_zones: 'a,b', replication_factor: 1_0}}}
memberlist: {cluster_label: !!str 5, join_members: [a, 5]}
blocks_storage: {tsdb: {wal_sync: commit, block_ranges_period: [2h, 12h]}}
limits: {ingestion_rate: 1e3}
",
    )
    .config;
    assert_eq!(config.target, ["ingester", "distributor"]);
    assert!(!config.auth_enabled);
    assert_eq!(config.server.http_listen_port, 8080);
    assert_eq!(config.server.log_format, LogFormat::Json);
    assert_eq!(config.server.grpc_server_max_recv_msg_size, 1_000_000);
    assert_eq!(config.ingester.lifecycler.id, "17");
    assert_eq!(config.ingester.lifecycler.availability_zone, "true");
    assert_eq!(config.ingester.lifecycler.ring.excluded_zones, ["a", "b"]);
    assert_eq!(config.ingester.lifecycler.ring.replication_factor, 10);
    assert_eq!(config.memberlist.cluster_label, "5");
    assert_eq!(config.memberlist.join_members, ["a", "5"]);
    assert_eq!(config.blocks_storage.tsdb.wal_sync, WalSync::Commit);
    assert_eq!(config.blocks_storage.tsdb.block_ranges_period, [7200, 43_200].map(Duration::from_secs));
    assert_eq!(config.limits.ingestion_rate, 1000.0);
}

#[test]
fn anchors_aliases_and_merges_work() {
    let config = good(
        "\
distributor:
  ring:
    kvstore: &kv
      store: etcd
      etcd: &etcd {endpoints: ['e:2379']}
ingester:
  lifecycler:
    ring:
      kvstore: *kv
store_gateway:
  sharding_ring:
    kvstore:
      <<: *kv
      prefix: gateways/
",
    )
    .config;
    assert_eq!(config.ingester.lifecycler.ring.kvstore.etcd.endpoints, ["e:2379"]);
    assert_eq!(config.store_gateway.sharding_ring.kvstore.store, KvStore::Etcd);
    assert_eq!(config.store_gateway.sharding_ring.kvstore.prefix, "gateways/");
}

#[test]
fn secrets_are_never_shown() {
    let loaded = good("ingester: {lifecycler: {ring: {kvstore: {consul: {acl_token: hush}}}}}");
    let config = &loaded.config;
    assert_eq!(config.ingester.lifecycler.ring.kvstore.consul.acl_token, Secret::new("hush"));
    assert_eq!(config.ingester.lifecycler.ring.kvstore.consul.acl_token.expose(), "hush");
    let json = serde_json::to_string(config).unwrap();
    for shown in [config.to_yaml(), config.diff_yaml(), format!("{config:?}"), loaded.origins_yaml(), json] {
        assert!(shown.contains("********") && !shown.contains("hush"), "{shown}");
    }
    assert!(
        crate::bad("ingester: {lifecycler: {ring: {kvstore: {consul: {acl_token: '********'}}}}}")[0]
            .contains("mask")
    );
}

#[test]
fn the_difference_to_the_defaults_is_small_and_sorted() {
    assert_eq!(good("").config.diff_yaml(), "{}\n");
    let config = good("server: {log_level: warn, http_listen_port: 80}\nauth_enabled: false\n").config;
    assert_eq!(config.diff_yaml(), "auth_enabled: false\nserver:\n  log_level: warn\n");
    assert!(Config::defaults_yaml().contains("\nauth_enabled: true\n"));
}

#[test]
fn infinite_keepalives_are_gos_longest_duration() {
    let infinite = "2562047h47m16.854775807s";
    let yaml = Config::default().to_yaml();
    assert!(
        yaml.contains(&format!("grpc_server_max_connection_age: {infinite}\n")) || yaml.contains(infinite),
        "{yaml}"
    );
    assert!(good(&format!("server: {{grpc_server_max_connection_idle: {infinite}}}")).warnings.is_empty());
}
