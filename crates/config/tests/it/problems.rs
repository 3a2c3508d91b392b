//! What a bad file is told.

use crate::{bad, good, warnings};

#[test]
fn an_unknown_key_names_its_place_and_the_nearest_key() {
    assert_eq!(
        bad("server:\n  http_listen_prt: 80\n"),
        ["test.yaml:2:3: server.http_listen_prt: unknown key (did you mean `http_listen_port`?)"]
    );
    assert_eq!(bad("sever: {}\n"), ["test.yaml:1:1: sever: unknown key (did you mean `server`?)"]);
    assert_eq!(bad("zzz: 1\n"), ["test.yaml:1:1: zzz: unknown key"]);
}

#[test]
fn a_key_in_the_wrong_block_is_sent_to_the_right_one() {
    assert_eq!(
        bad("ingester:\n  lifecycler:\n    replication_factor: 3\n"),
        ["test.yaml:3:5: ingester.lifecycler.replication_factor: unknown key (did you mean \
          `ingester.lifecycler.ring.replication_factor`?)"]
    );
}

#[test]
fn a_wrong_unit_says_which_there_are_and_what_was_meant() {
    assert_eq!(
        bad("ingester:\n  lifecycler:\n    join_after: 1d\n"),
        [
            "test.yaml:3:17: ingester.lifecycler.join_after: expected `auto` or a duration such as `200ms`, `60s` or \
          `1h30m`, found `1d`: there is no unit `d`, only ns, us, ms, s, m, h (did you mean `24h`?)"
        ]
    );
    let told = bad("distributor: {remote_timeout: 2sec}").join("");
    assert!(told.contains("did you mean `2s`?"), "{told}");
    let told = bad("distributor: {remote_timeout: '2'}").join("");
    assert!(told.contains("a unit is missing (did you mean `2s`?)"), "{told}");
    let told = bad("distributor: {remote_timeout: -2s}").join("");
    assert!(told.contains("cannot be negative"), "{told}");
    let told = bad("distributor: {max_recv_msg_size: 100MB}").join("");
    assert!(told.contains("number of bytes, without a unit"), "{told}");
}

#[test]
fn a_bare_number_is_nanoseconds_as_in_cortex_and_warned_about() {
    let loaded = good("distributor:\n  remote_timeout: 2000000000\n");
    assert_eq!(loaded.config.distributor.remote_timeout, std::time::Duration::from_secs(2));
    let told = warnings(&loaded);
    assert!(
        told[0].starts_with("test.yaml:2:19: distributor.remote_timeout: `2000000000` has no unit"),
        "{told:?}"
    );
    assert!(warnings(&good("distributor: {remote_timeout: 1s, extra_queue_delay: 0}")).is_empty());
}

#[test]
fn a_wrong_type_says_what_is_expected() {
    for (text, expected) in [
        ("auth_enabled: perhaps", "1:15: auth_enabled: expected `true` or `false`, found `perhaps`"),
        (
            "server: {http_listen_port: high}",
            "1:28: server.http_listen_port: expected a whole number from 0 to 65535, found `high`",
        ),
        ("server: {http_listen_port: 70000}", "found `70000`: it is too large"),
        ("server: {http_listen_port: '80'}", "found the string `80`: write it without quotes"),
        ("server: {http_listen_port: -1}", "found `-1`: it cannot be negative"),
        ("server: {http_listen_port: 080}", "leading zeros are ambiguous"),
        ("server: 80", "1:9: server: expected a block of keys, found `80`"),
        ("server: [a]", "server: expected a block of keys, found a list"),
        ("auth_enabled: {a: 1}", "auth_enabled: expected `true` or `false`, found a block of keys"),
        ("limits: {ingestion_rate: .inf}", "expected a number, found `.inf`"),
        ("memberlist: {join_members: a}", "expected a list of strings, found one string: write `[a]`"),
        ("target: [all]", "expected one string with commas"),
        (
            "server: {log_level: inf}",
            "`inf` is not one of `info`, `debug`, `warn`, `error` (did you mean `info`?)",
        ),
        (
            "ingester: {lifecycler: {tokens_generator_strategy: even}}",
            "invalid token generator strategy: `even` is not one of `random`, `minimize-spread`",
        ),
        ("ring: {store: dynamodb}", "`dynamodb` is a store of Cortex that ringkit does not have"),
        ("blocks_storage: {tsdb: {block_ranges_period: 2h}}", "expected a list of durations"),
    ] {
        let told = bad(text);
        assert_eq!(told.len(), 1, "{told:#?}");
        assert!(told[0].contains(expected), "{}\nexpected: {expected}", told[0]);
    }
}

#[test]
fn a_tab_is_named_as_what_it_is() {
    assert_eq!(
        bad("server:\n\thttp_listen_port: 80\n"),
        ["test.yaml:2:1: the line is indented with a tab; YAML allows only spaces there"]
    );
    assert_eq!(
        bad("server:\n  http_tls_config:\n  \tcert_file: a\n"),
        ["test.yaml:3:3: the line is indented with a tab; YAML allows only spaces there"]
    );
}

#[test]
fn a_duplicate_key_is_an_error_at_its_second_place() {
    assert_eq!(
        bad("auth_enabled: true\nserver:\n  log_level: info\n  log_level: warn\nauth_enabled: false\n"),
        [
            "test.yaml:4:3: `log_level` is already set in this block, at line 3",
            "test.yaml:5:1: `auth_enabled` is already set in this block, at line 1",
        ]
    );
    let told = bad("memberlist:\n  abort_if_join_fails: false\n  abort_if_cluster_join_fails: true\n");
    assert!(told[0].contains("test.yaml:3:3") && told[0].contains("already set at test.yaml:2"), "{told:?}");
}

#[test]
fn several_problems_are_told_at_once_each_with_its_place() {
    let told = bad("\
auth_enabled: maybe
server:
  http_listen_port: many
  colour: red
limits:
  ingestion_rate: -1
ingester:
  lifecycler:
    heartbeat_period: 5
    join_after: 1w
    ring:
      replication_factor: 0
");
    let places: Vec<_> =
        told.iter().map(|line| line.split(": ").take(2).collect::<Vec<_>>().join(" ")).collect();
    assert_eq!(
        places,
        [
            "test.yaml:1:15 auth_enabled",
            "test.yaml:3:21 server.http_listen_port",
            "test.yaml:4:3 server.colour",
            "test.yaml:10:17 ingester.lifecycler.join_after",
            "test.yaml:12:27 ingester.lifecycler.ring.replication_factor",
            "test.yaml:6:19 limits.ingestion_rate",
        ],
        "{told:#?}"
    );
}

#[test]
fn broken_yaml_is_told_with_its_place() {
    for text in [
        "server: [1, 2",
        "a: b: c",
        "server:\n  a: 1\n b: 2\n",
        "'open",
        "? {a: b}: c",
        "a: *nobody",
        "%YAML 9\n---\n",
    ] {
        let told = bad(text);
        assert!(told[0].starts_with("test.yaml:"), "{text:?}: {told:?}");
    }
}

#[test]
fn size_depth_and_aliases_are_bounded() {
    let deep = format!("a: {}{}", "[".repeat(5_000), "]".repeat(5_000));
    assert!(bad(&deep)[0].contains("test.yaml:1:"), "{:?}", bad(&deep));
    let mut block = String::new();
    for depth in 0..200 {
        block.push_str(&format!("{}a:\n", " ".repeat(depth)));
    }
    assert!(bad(&block)[0].contains("nested deeper than 64 levels"));
    // Half the bound, nested, is still fine.
    let long = format!("memberlist: {{join_members: [{}]}}", vec!["a"; 90_000].join(","));
    assert_eq!(good(&long).config.memberlist.join_members.len(), 90_000);
    let mut bomb = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
    for level in 1..12 {
        let previous = format!("*a{}", level - 1);
        bomb.push_str(&format!("a{level}: &a{level} [{}]\n", [previous.as_str(); 10].join(", ")));
    }
    assert!(bad(&bomb)[0].contains("more than 200000 values"), "{:?}", &bad(&bomb)[0]);
    assert!(bad(&format!("# {}", "x".repeat(5 << 20)))[0].contains("larger than"));
}

#[test]
fn keys_of_cortex_that_are_not_implemented_are_warned_about_by_name() {
    let loaded = good(
        "\
ruler:
  enable_sharding: true
  anything: [1]
compactor: {data_dir: /x}
ingester:
  active_series_metrics_enabled: false
querier:
  timeout: 1m
blocks_storage:
  bucket_store:
    index_cache: {backend: memcached}
distributor:
  sign_write_requests: true
tenant_federation: {enabled: true}
",
    );
    let told = warnings(&loaded).join("\n");
    for name in [
        "test.yaml:1:1: ruler:",
        "test.yaml:4:1: compactor:",
        "test.yaml:6:3: ingester.active_series_metrics_enabled:",
        "test.yaml:8:3: querier.timeout:",
        "test.yaml:11:5: blocks_storage.bucket_store.index_cache:",
        "test.yaml:13:24: distributor.sign_write_requests:",
        "test.yaml:14:1: tenant_federation:",
    ] {
        assert!(told.contains(name), "{name}\n{told}");
    }
    assert_eq!(told.lines().count(), 7, "{told}");
}

#[test]
fn tls_that_is_not_built_is_an_error_never_plain_text() {
    for text in [
        "server: {http_tls_config: {cert_file: a.pem}}",
        "server: {grpc_tls_config: {client_ca_file: a.pem}}",
        "ingester_client: {grpc_client_config: {tls_enabled: true}}",
        "querier: {store_gateway_client: {tls_enabled: true}}",
    ] {
        let told = bad(text);
        assert!(
            told.len() == 1 && told[0].starts_with("test.yaml:1:") && told[0].contains("not built yet"),
            "{told:?}"
        );
    }
}

#[test]
fn gossip_that_could_not_work_is_refused_and_secrets_are_not_told() {
    for (text, about) in [
        ("{tls_enabled: true}", "tls_cert_path: is empty"),
        ("{tls_cert_path: a.pem}", "goes with `tls_key_path`"),
        ("{packet_size: 100}", "600 to 65507"),
        ("{encryption_keys: [c2VjcmV0], encryption_keys_file: keys}", "use one of them"),
        ("{encryption_keys: c2VjcmV0}", "write it in brackets"),
        ("{max_clock_skew: 0s}", "max_clock_skew"),
        ("{tombstone_horizon: 10s}", "removed entries would come back"),
        ("{dialect: hashicorp}", "does not speak yet"),
        ("{packet_transport: quic}", "quic"),
    ] {
        let told = bad(&format!("memberlist: {text}\n"));
        assert!(told.len() == 1 && told[0].contains(about), "{text}: {told:?}");
        assert!(!told[0].contains("c2VjcmV0"), "{told:?}");
    }
    let config = good("memberlist: {encryption_keys: [c2VjcmV0, b3RoZXI=]}\n").config;
    assert_eq!(config.memberlist.encryption_keys[1].expose(), "b3RoZXI=");
    assert!(!format!("{:?}", config.memberlist).contains("c2VjcmV0"));
}

#[test]
fn more_tokens_than_an_entry_can_carry_are_refused() {
    let with = |num_tokens: &str| format!("ingester: {{lifecycler: {{num_tokens: {num_tokens}}}}}\n");
    assert_eq!(good(&with("65536")).config.ingester.lifecycler.num_tokens, 65_536);
    for num_tokens in ["65537", "18446744073709551615"] {
        let told = bad(&with(num_tokens));
        assert_eq!(told.len(), 1, "{told:?}");
        assert!(told[0].contains("ingester.lifecycler.num_tokens: is above 65536"), "{told:?}");
    }
}

#[test]
fn an_empty_block_is_an_error_at_the_top_and_a_warning_below() {
    assert_eq!(
        bad("memberlist:\nauth_enabled: true\n"),
        ["test.yaml:1:1: memberlist: the block is empty: give it keys, or remove the line"]
    );
    let loaded = good("ingester:\n  lifecycler:\n  admin_limit_message: hi\n");
    assert_eq!(loaded.config.ingester.lifecycler.num_tokens, 128);
    assert!(warnings(&loaded)[0].starts_with("test.yaml:2:3: ingester.lifecycler: the block is empty"));
    let loaded = good("server:\n  http_listen_port:\n  http_path_prefix:\n");
    assert_eq!(loaded.config.server.http_listen_port, 80);
    assert_eq!(warnings(&loaded).len(), 1);
}

#[test]
fn rules_across_keys_are_told_all_at_once() {
    let told = bad("\
server: {http_listen_port: 9095}
distributor: {sharding_strategy: shuffle-sharding}
memberlist: {min_join_backoff: 2m}
ingester:
  lifecycler:
    ring: {kvstore: {store: multi, multi: {primary: consul, secondary: consul}}}
");
    assert_eq!(told.len(), 4, "{told:#?}");
    assert!(
        told.iter().any(|line| line.contains("server.grpc_listen_port: is the HTTP listener's port too")),
        "{told:#?}"
    );
    assert!(
        told.iter().any(|line| line.starts_with("test.yaml:2:34: distributor.sharding_strategy")),
        "{told:#?}"
    );
    assert!(told.iter().any(|line| line.contains("memberlist.min_join_backoff")), "{told:#?}");
    assert!(told.iter().any(|line| line.contains("multi.secondary: is the primary too")), "{told:#?}");
}

#[test]
fn a_look_back_that_ends_before_the_store_is_asked_is_told() {
    let limits = |lookback: &str| {
        format!("limits: {{query_store_after: 2h, shuffle_sharding_ingesters_lookback_period: {lookback}}}\n")
    };
    for (lookback, told) in [("0s", false), ("1h", true), ("2h", false)] {
        let loaded = good(&limits(lookback));
        let about = |line: &String| {
            line.contains("shuffle_sharding_ingesters_lookback_period: is below `query_store_after`")
        };
        assert_eq!(warnings(&loaded).iter().any(about), told, "{lookback}: {:#?}", warnings(&loaded));
    }
}

#[test]
fn a_problem_is_not_told_twice_by_what_follows_from_it() {
    let told = bad(
        "ingester: {lifecycler: {ring: {kvstore: {store: multi, multi: {primary: cosul, secondary: etcd}}}}}",
    );
    assert_eq!(told.iter().filter(|line| line.contains("multi.primary")).count(), 1, "{told:#?}");
}

#[test]
fn saying_false_to_sharding_by_all_labels_is_answered() {
    let loaded = good("distributor: {shard_by_all_labels: false}");
    assert!(
        warnings(&loaded)[0].contains("always places a series by all its labels"),
        "{:?}",
        warnings(&loaded)
    );
    assert!(warnings(&good("distributor: {shard_by_all_labels: true}")).is_empty());
}
