//! Rendering a configuration and loading it gives the same configuration.

use proptest::prelude::*;
use ringkit_config::{AutoDuration, Config, KvStore, LogLevel, WalSync, parse_yaml};
use std::time::Duration;

/// Go's durations go up to 2^63 - 1 nanoseconds.
fn duration() -> impl Strategy<Value = Duration> {
    prop_oneof![
        (0..i64::MAX.unsigned_abs()).prop_map(Duration::from_nanos),
        (1u64..100_000).prop_map(Duration::from_millis),
        (1u64..1_000_000).prop_map(Duration::from_secs),
    ]
}

fn auto() -> impl Strategy<Value = AutoDuration> {
    prop_oneof![Just(AutoDuration::Auto), duration().prop_map(AutoDuration::After)]
}

fn text() -> impl Strategy<Value = String> {
    prop_oneof![
        any::<String>(),
        "[a-z0-9:./_ #'\"{}-]{0,12}",
        Just("null".into()),
        Just("1e3".into()),
        Just("5s".into())
    ]
}

fn name() -> impl Strategy<Value = String> {
    "[^, \t\r\n\u{85}\u{a0}\u{2028}\u{2029}\\s]{1,8}"
}

prop_compose! {
    fn config()(
        id in text().prop_filter("an instance needs a name", |id| !id.is_empty()),
        zones in prop::collection::vec(name(), 0..3),
        members in prop::collection::vec(text(), 0..4),
        auth in any::<bool>(),
        port in any::<u16>(),
        durations in (duration(), duration(), duration(), auto(), auto()),
        rate in 0.0..1e18f64,
        big in any::<u64>(),
        store in prop::sample::select(vec![KvStore::Consul, KvStore::Inmemory, KvStore::Memberlist]),
        level in prop::sample::select(LogLevel::ALL),
        sync in prop::sample::select(WalSync::ALL),
        message in text(),
    ) -> Config {
        let mut config = Config { auth_enabled: auth, ..Config::default() };
        config.server.http_listen_port = port;
        config.server.grpc_listen_port = port.wrapping_add(1);
        config.server.log_level = level;
        config.ingester.admin_limit_message = message;
        config.ingester.lifecycler.id = id;
        config.ingester.lifecycler.ring.excluded_zones = zones;
        config.ingester.lifecycler.heartbeat_period = durations.0;
        config.ingester.lifecycler.join_after = durations.3;
        config.ring.vanish_grace = durations.4;
        config.ring.store = Some(store);
        config.limits.creation_grace_period = durations.1;
        config.limits.reject_old_samples_max_age = durations.2;
        config.limits.ingestion_rate = rate;
        config.blocks_storage.tsdb.wal_snapshot_bytes = big;
        config.blocks_storage.tsdb.wal_sync = sync;
        config.memberlist.join_members = members;
        config
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn a_rendered_configuration_loads_as_itself(mut config in config()) {
        // What is loaded has its stores settled; settle these by the same public rule.
        let kv = ringkit_config::RingName::ALL.map(|ring| config.kv(ring));
        let [ingester, distributor, gateway] = kv;
        config.ingester.lifecycler.ring.kvstore = ingester;
        config.distributor.ring.kvstore = distributor;
        config.store_gateway.sharding_ring.kvstore = gateway;
        let yaml = config.to_yaml();
        let loaded = parse_yaml("rendered.yaml", &yaml).unwrap_or_else(|error| panic!("{error}\n{yaml}"));
        prop_assert_eq!(&loaded.config, &config);
        prop_assert_eq!(loaded.config.to_yaml(), yaml);
        // Through serde too, as an embedder would.
        let json = serde_json::to_value(&config).unwrap();
        let again: Config = serde_json::from_value(json).unwrap();
        prop_assert_eq!(again, config);
    }

    #[test]
    fn no_text_makes_the_loader_panic(text in "([a-z_]{1,10}|[:\\[\\]{}#&*!|>'\"%@`,?-]|\n|  |\t|[0-9.]{1,3}|server|ring|kvstore|store|é){0,60}") {
        let _ = parse_yaml("fuzz.yaml", &text);
    }

    #[test]
    fn no_arguments_make_the_loader_panic(args in prop::collection::vec("-{0,2}[a-z.=é-]{0,20}", 0..6)) {
        let args = args.into_iter().filter(|arg| !arg.contains("config.file"));
        let _ = ringkit_config::load(args, []);
    }
}
