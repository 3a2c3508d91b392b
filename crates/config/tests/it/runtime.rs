//! The runtime configuration as its users meet it.

use std::time::Duration;

use ringkit_config::{Config, KvStore, LoadError, RuntimeConfig, RuntimeFile, Warning};

use crate::good;

/// A main configuration that is not the default.
fn base() -> Config {
    good("limits: {ingestion_rate: 7, drop_labels: [a, b]}\ningester: {instance_limits: {max_tenants: 3}}\n")
        .config
}

fn read(files: &[(&str, &str)]) -> Result<(RuntimeConfig, Vec<Warning>), LoadError> {
    let files: Vec<_> =
        files.iter().map(|&(name, text)| RuntimeFile { name, bytes: text.as_bytes() }).collect();
    RuntimeConfig::new(&base()).read(&files)
}

/// Reads a file that must be good and give no warning.
fn fine(text: &str) -> RuntimeConfig {
    let (config, warnings) = read(&[("r.yaml", text)]).unwrap_or_else(|error| panic!("{error}\n{text}"));
    assert!(warnings.is_empty(), "{warnings:?}");
    config
}

/// Reads a file that must be bad; its problems.
fn bad(text: &str) -> Vec<String> {
    match read(&[("r.yaml", text)]) {
        Ok(_) => panic!("this was accepted:\n{text}"),
        Err(error) => error.problems.iter().map(ToString::to_string).collect(),
    }
}

fn warned(text: &str) -> Vec<String> {
    let (_, warnings) = read(&[("r.yaml", text)]).unwrap_or_else(|error| panic!("{error}\n{text}"));
    warnings.iter().map(ToString::to_string).collect()
}

#[test]
fn an_empty_file_says_nothing() {
    for text in [
        "",
        "# nothing\n",
        "{}",
        "null",
        "overrides:\nmulti_kv_config:\ningester_limits:\n",
        "overrides: {a: }",
    ] {
        let config = fine(text);
        assert_eq!(config, RuntimeConfig::new(&base()), "{text:?}");
        assert_eq!(config.limits("a").ingestion_rate, 7.0);
    }
}

#[test]
fn overrides_begin_at_the_main_configuration() {
    let config = fine(
        "overrides:\n  a:\n    ingestion_rate: 9\n    creation_grace_period: 1d\n  b.c: {drop_labels: []}\n",
    );
    let a = config.limits("a");
    assert_eq!((a.ingestion_rate, a.creation_grace_period), (9.0, Duration::from_secs(86_400)));
    assert_eq!((a.drop_labels.len(), a.ingestion_burst_size), (2, 50_000));
    assert_eq!((config.limits("b.c").ingestion_rate, config.limits("b.c").drop_labels.len()), (7.0, 0));
    assert_eq!(config.limits("somebody").ingestion_rate, 7.0);
}

#[test]
fn what_an_earlier_reading_said_is_gone() {
    let earlier = fine("overrides: {a: {ingestion_rate: 9}}\nmulti_kv_config: {generation: 4}\n");
    let file = RuntimeFile { name: "r.yaml", bytes: b"overrides: {b: {ingestion_rate: 1}}" };
    let (later, _) = earlier.read(&[file]).unwrap();
    assert_eq!((later.limits("a").ingestion_rate, later.limits("b").ingestion_rate), (7.0, 1.0));
    assert_eq!(later.multi_kv_config.generation, 0);
}

#[test]
fn limits_of_the_ingester_are_overridden_too() {
    let config = fine("ingester_limits: {max_series: 5}\n");
    let limits = config.ingester_limits();
    assert_eq!((limits.max_series, limits.max_tenants), (5, 3));
    assert_eq!(fine("").ingester_limits().max_tenants, 3);
}

#[test]
fn rings_are_told_where_to_be_one_by_one_or_together() {
    let multi = fine(
        "multi_kv_config:\n  primary: memberlist\n  mirror_enabled: true\n  force: true\n  generation: 3\n  per_ring:\n    \
         ring: {mirror_enabled: false}\n    other.ring: {primary: consul}\n",
    )
    .multi_kv_config;
    assert_eq!((multi.force, multi.generation), (true, 3));
    let of = |ring: &str| (multi.of(ring).primary, multi.of(ring).mirror_enabled);
    assert_eq!(of("ring"), (Some(KvStore::Memberlist), Some(false)));
    assert_eq!(of("other.ring"), (Some(KvStore::Consul), Some(true)));
    assert_eq!(of("any"), (Some(KvStore::Memberlist), Some(true)));
    for empty in [
        "",
        "multi_kv_config: {primary: '', mirror_enabled: null, per_ring: {}}",
        "multi_kv_config: {mirror_enabled: }",
    ] {
        let multi = fine(empty).multi_kv_config;
        assert_eq!((multi.primary, multi.mirror_enabled, multi.generation), (None, None, 0), "{empty}");
    }
}

#[test]
fn of_several_files_the_later_wins_key_by_key() {
    let one = "overrides:\n  a: {ingestion_rate: 1, ingestion_burst_size: 2, drop_labels: [x, y]}\n  b: {ingestion_rate: 3}\n\
               multi_kv_config: {primary: consul, mirror_enabled: true, per_ring: {r: {primary: etcd}}}\n";
    let two = "overrides:\n  a: {ingestion_rate: 10, drop_labels: [z]}\n  c: {ingestion_rate: 4}\n\
               multi_kv_config: {mirror_enabled: null, per_ring: {r: {mirror_enabled: false}}}\n";
    let (config, _) = read(&[("one.yaml", one), ("two.yaml", two)]).unwrap();
    let a = config.limits("a");
    assert_eq!(
        (a.ingestion_rate, a.ingestion_burst_size, &a.drop_labels[..]),
        (10.0, 2, &["z".to_owned()][..])
    );
    assert_eq!((config.limits("b").ingestion_rate, config.limits("c").ingestion_rate), (3.0, 4.0));
    assert_eq!(config.multi_kv_config.primary, Some(KvStore::Consul));
    assert_eq!(config.multi_kv_config.mirror_enabled, None);
    let r = &config.multi_kv_config.per_ring["r"];
    assert_eq!((r.primary, r.mirror_enabled), (Some(KvStore::Etcd), Some(false)));
    let error =
        read(&[("one.yaml", "a: 1"), ("two.yaml", "overrides: {a: {ingestion_rate: -1}}")]).unwrap_err();
    assert_eq!(
        error.to_string(),
        "one.yaml:1:1: a: unknown key\ntwo.yaml:1:33: overrides.a.ingestion_rate: cannot be negative"
    );
}

#[test]
fn problems_have_a_place_and_the_key_that_was_meant() {
    assert_eq!(
        bad("override:\n  a: {}\noverrides:\n  t:\n    ingestion_rat: 1\n    ingestion_burst_size: many\n"),
        [
            "r.yaml:1:1: override: unknown key (did you mean `overrides`?)",
            "r.yaml:5:5: overrides.t.ingestion_rat: unknown key (did you mean `ingestion_rate`?)",
            "r.yaml:6:27: overrides.t.ingestion_burst_size: expected a whole number, found `many`",
        ]
    );
    for (text, expected) in [
        ("overrides: [a]", "r.yaml:1:12: overrides: expected a block of keys, found a list"),
        ("overrides: {t: 5}", "r.yaml:1:16: overrides.t: expected a block of keys, found `5`"),
        ("- a", "expected a block of keys, found a list"),
        ("overrides: {t: {num_tokens: 5}}", "r.yaml:1:17: overrides.t.num_tokens: unknown key"),
        (
            "overrides: {t: {ingestion_rate: -1}}",
            "r.yaml:1:33: overrides.t.ingestion_rate: cannot be negative",
        ),
        ("multi_kv_config: {per_rng: {}}", "multi_kv_config.per_rng: unknown key (did you mean `per_ring`?)"),
        ("multi_kv_config: {primary: multi}", "r.yaml:1:28: multi_kv_config.primary: cannot be multi itself"),
        ("multi_kv_config: {primary: cnsul}", "did you mean `consul`?"),
        ("multi_kv_config: {secondary: consul}", "multi_kv_config.secondary: unknown key"),
        (
            "multi_kv_config: {per_ring: {r: {force: true}}}",
            "r.yaml:1:34: multi_kv_config.per_ring.r.force: unknown key",
        ),
        (
            "ingester_limits: {max_ingestion_rate: -1}",
            "r.yaml:1:39: ingester_limits.max_ingestion_rate: cannot be negative; 0 means no limit",
        ),
        ("overrides: {a: {}, a: {}}", "r.yaml:1:20: `a` is already set in this block, at line 1"),
        (
            "overrides: {}\n---\n",
            "r.yaml:2:1: the provided runtime configuration contains multiple documents",
        ),
        ("overrides: {t: {ingestion_rate: 1}", "r.yaml:"),
    ] {
        let told = bad(text);
        assert!(told.iter().any(|line| line.contains(expected)), "{text}: {told:#?}\nexpected: {expected}");
    }
    let file = RuntimeFile { name: "r.yaml", bytes: b"overrides: \xff" };
    let error = RuntimeConfig::new(&base()).read(&[file]).unwrap_err();
    assert_eq!(error.to_string(), "r.yaml: this file is not UTF-8, from byte 11 on");
}

#[test]
fn what_has_no_effect_is_a_warning_that_names_it() {
    for (text, expected) in [
        ("hard_overrides: {a: {}}", "r.yaml:1:1: hard_overrides: this key is Cortex's"),
        ("api_allowed_limits: [a]", "api_allowed_limits: this key is Cortex's"),
        (
            "ingester_stream_chunks_when_using_blocks: true",
            "ingester_stream_chunks_when_using_blocks: this key",
        ),
        (
            "overrides: {t: {max_query_lookback: 1d}}",
            "r.yaml:1:17: overrides.t.max_query_lookback: this key is Cortex's",
        ),
        (
            "overrides: {t: {accept_ha_samples: true}}",
            "r.yaml:1:36: overrides.t.accept_ha_samples: is not implemented yet",
        ),
        ("overrides: {t: {ingestion_burst_size: 0}}", "r.yaml:1:39: overrides.t.ingestion_burst_size: is 0"),
        (
            "overrides: {t: {ha_cluster_label: '${X}'}}",
            "overrides.t.ha_cluster_label: `${…}` stands for itself",
        ),
    ] {
        let told = warned(text);
        assert!(told.iter().any(|line| line.contains(expected)), "{text}: {told:#?}\nexpected: {expected}");
    }
    assert!(warned("overrides: {t: {accept_ha_samples: false}}").is_empty());
}

#[test]
fn what_is_odd_about_the_main_configuration_is_not_said_again_for_every_tenant() {
    let base = good("limits: {ingestion_burst_size: 0}").config;
    let file = RuntimeFile { name: "r.yaml", bytes: b"overrides: {t: {ingestion_rate: 5}}" };
    let (_, warnings) = RuntimeConfig::new(&base).read(&[file]).unwrap();
    assert!(warnings.is_empty(), "{warnings:?}");
}

#[test]
fn it_is_shown_in_full_and_as_difference() {
    let text = "overrides: {'7': {ingestion_rate: 9}, \"*!'\": {ingestion_rate: 7}, a.b: {drop_labels: [c]}}\n\
                multi_kv_config: {primary: etcd, per_ring: {r: {mirror_enabled: true}}}\ningester_limits: {max_series: 5}\n";
    let config = fine(text);
    assert_eq!(fine(&config.to_yaml()), config, "{}", config.to_yaml());
    assert_eq!(
        config.diff_yaml(),
        "ingester_limits:\n  max_series: 5\nmulti_kv_config:\n  per_ring:\n    r:\n      primary: \"\"\n      \
         mirror_enabled: true\n  primary: etcd\noverrides:\n  \"7\":\n    ingestion_rate: 9\n  a.b:\n    drop_labels: [c]\n"
    );
    assert_eq!(fine("").diff_yaml(), "{}\n");
    let empty = fine("").to_yaml();
    assert_eq!(
        empty,
        "overrides: {}\nmulti_kv_config:\n  primary: \"\"\n  mirror_enabled: null\n  force: false\n  generation: 0\n  \
         per_ring: {}\ningester_limits: null\n"
    );
}

#[test]
fn the_source_names_its_files() {
    let paths = |yaml: &str| {
        let paths = good(yaml).config.runtime_config.paths();
        paths.iter().map(|path| path.display().to_string()).collect::<Vec<_>>()
    };
    assert!(paths("").is_empty());
    assert!(paths("runtime_config: {file: ' , '}").is_empty());
    assert_eq!(paths("runtime_config: {file: 'a.yaml, /b/c.yaml'}"), ["a.yaml", "/b/c.yaml"]);
    assert_eq!(paths("runtime_config: {file: a.yaml, filesystem: {dir: /etc}}"), ["/etc/a.yaml"]);
    assert!(crate::bad("runtime_config: {file: a, backend: s3}")[0].contains("is not built yet"));
}
