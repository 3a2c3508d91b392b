//! The schema against Cortex's, and the files that are written from it.

use std::path::{Path, PathBuf};

use ringkit_config::{Config, flags_help, json_schema, load, parse_yaml, reference_yaml};
use serde_json::Value;

/// Blocks of Cortex's components that ringkit does not have.
const ABSENT: [&str; 2] = ["compactor", "ruler"];

/// [yaml path, flag, type, default] from Cortex's own structs.
fn cortex() -> Vec<[String; 4]> {
    let vectors: Value = serde_json::from_str(include_str!("../vectors/config_reference.json")).unwrap();
    let rows = vectors["fields"].as_array().unwrap();
    rows.iter().map(|row| [0, 1, 2, 3].map(|i| row[i].as_str().unwrap().to_owned())).collect()
}

/// The schema node of a dotted path.
fn at<'a>(schema: &'a Value, path: &str) -> Option<&'a Value> {
    path.split('.').try_fold(schema, |node, key| node["properties"].get(key))
}

/// kind and flag of each path, from the reference file.
fn reference() -> std::collections::BTreeMap<String, (String, String)> {
    let mut path: Vec<String> = Vec::new();
    let mut out = std::collections::BTreeMap::new();
    for line in reference_yaml().lines() {
        let depth = (line.len() - line.trim_start().len()) / 2;
        let bare = line.trim_start();
        let bare = bare.strip_prefix("# ").filter(|rest| rest.contains("  # this machine")).unwrap_or(bare);
        if bare.starts_with('#') || bare.is_empty() {
            continue;
        }
        let (key, rest) = bare.split_once(':').unwrap();
        path.truncate(depth);
        path.push(key.to_owned());
        if let Some((_, note)) = rest.split_once("  # ") {
            let note = note.strip_prefix("this machine's name; ").unwrap_or(note);
            let (kind, flag) = note.rsplit_once(", -").unwrap();
            out.insert(path.join("."), (kind.to_owned(), flag.to_owned()));
        }
    }
    out
}

#[test]
fn every_key_of_cortex_for_our_components_is_there_with_flag_type_and_default() {
    let (schema, reference) = (json_schema(), reference());
    let defaults = serde_json::to_value(Config::default()).unwrap();
    let mut wrong = Vec::new();
    let mut seen = 0;
    for [path, flag, kind, default] in cortex() {
        let block = path.split('.').next().unwrap();
        if ABSENT.contains(&block) || path.starts_with('(') {
            continue;
        }
        seen += 1;
        let Some(property) = at(&schema, &path) else {
            wrong.push(format!("{path}: no such key"));
            continue;
        };
        let (our_kind, our_flag) = &reference[&path];
        if *our_flag != flag {
            wrong.push(format!("{path}: flag {our_flag}, Cortex's is {flag}"));
        }
        if *our_kind != kind {
            wrong.push(format!("{path}: type {our_kind}, Cortex's is {kind}"));
        }
        assert!(
            property["description"].as_str().is_some_and(|doc| doc.ends_with('.')),
            "{path} has no sentence"
        );
        // The two defaults that differ, and the machine's name.
        let excepted = ["ingester.lifecycler.join_after", "ingester.lifecycler.observe_period"];
        if excepted.contains(&path.as_str()) {
            assert_eq!(defaults.pointer(&format!("/{}", path.replace('.', "/"))).unwrap(), "auto");
        } else if default != "<hostname>" {
            let ours = defaults.pointer(&format!("/{}", path.replace('.', "/"))).unwrap();
            if !same(ours, &default) {
                wrong.push(format!("{path}: default {ours}, Cortex's is {default}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(seen > 220, "only {seen} rows were looked at");
}

/// Whether our rendered default is what Cortex prints.
fn same(ours: &Value, cortex: &str) -> bool {
    match ours {
        Value::String(text) => {
            text == cortex || seconds(text).is_some_and(|ours| seconds(cortex) == Some(ours))
        }
        Value::Number(number) => cortex.parse::<f64>().ok() == number.as_f64(),
        Value::Array(items) => {
            let items: Vec<_> = items.iter().map(|item| item.as_str().unwrap()).collect();
            format!("[{}]", items.join(" ")) == cortex
        }
        Value::Bool(value) => cortex.parse() == Ok(*value),
        _ => false,
    }
}

/// A duration through the loader itself.
fn seconds(text: &str) -> Option<std::time::Duration> {
    let loaded = parse_yaml("d", &format!("limits: {{creation_grace_period: '{text}'}}")).ok()?;
    Some(loaded.config.limits.creation_grace_period)
}

#[test]
fn the_kvstore_blocks_of_all_rings_have_cortexs_flags() {
    let reference = reference();
    for (block, prefix, key_prefix) in [
        ("distributor.ring.kvstore", "distributor.ring.", "collectors/"),
        ("distributor.ha_tracker.kvstore", "distributor.ha-tracker.", "ha-tracker/"),
        ("store_gateway.sharding_ring.kvstore", "store-gateway.sharding-ring.", "collectors/"),
    ] {
        for (key, flag) in [
            ("store", "store"),
            ("prefix", "prefix"),
            ("consul.host", "consul.hostname"),
            ("etcd.ping-without-stream-allowed", "etcd.ping-without-stream-allowed"),
            ("multi.mirror_timeout", "multi.mirror-timeout"),
        ] {
            assert_eq!(reference[&format!("{block}.{key}")].1, format!("{prefix}{flag}"));
        }
        let defaults = serde_json::to_value(Config::default()).unwrap();
        assert_eq!(defaults.pointer(&format!("/{}/prefix", block.replace('.', "/"))).unwrap(), key_prefix);
    }
}

#[test]
fn no_two_keys_share_a_flag() {
    let mut seen = std::collections::BTreeMap::new();
    for (path, (_, flag)) in reference() {
        if let Some(other) = seen.insert(flag.clone(), path.clone()) {
            panic!("-{flag} belongs to {other} and to {path}");
        }
    }
}

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

#[test]
fn the_reference_file_is_up_to_date() {
    let path = repository().join("config/reference.yaml");
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(&path, reference_yaml()).unwrap();
    }
    let written = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        written == reference_yaml(),
        "config/reference.yaml is out of date: run `UPDATE=1 cargo test -p ringkit-config reference` and commit it"
    );
}

#[test]
fn the_reference_file_is_the_defaults() {
    let loaded = parse_yaml("reference.yaml", &reference_yaml()).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(loaded.config, Config::default());
}

#[test]
fn the_file_that_every_binary_reads_is_good() {
    let path = repository().join("config/ringkit.yaml");
    let loaded =
        load([format!("-config.file={}", path.display())], []).unwrap_or_else(|error| panic!("{error}"));
    assert!(loaded.warnings.is_empty(), "{:?}", loaded.warnings);
    assert_eq!(loaded.config.server.http_listen_port, 9009);
    assert_eq!(loaded.config.server.grpc_listen_port, 9095);
    assert!(!loaded.config.auth_enabled);
    assert_eq!(
        loaded.config.kv(ringkit_config::RingName::Ingester).store,
        ringkit_config::KvStore::Memberlist
    );
}

#[test]
fn the_json_schema_knows_types_defaults_and_choices() {
    let schema = json_schema();
    assert_eq!(at(&schema, "server.http_listen_port").unwrap()["maximum"], 65535);
    assert_eq!(at(&schema, "server.http_listen_port").unwrap()["default"], 80);
    assert_eq!(at(&schema, "server.log_level").unwrap()["enum"][0], "info");
    assert_eq!(at(&schema, "distributor.remote_timeout").unwrap()["default"], "2s");
    assert!(at(&schema, "distributor.remote_timeout").unwrap()["pattern"].is_string());
    assert_eq!(at(&schema, "server").unwrap()["additionalProperties"], false);
    assert!(at(&schema, "ingester.lifecycler.id").unwrap().get("default").is_none());
    assert_eq!(at(&schema, "memberlist.abort_if_join_fails").unwrap()["default"], true);
    assert_eq!(at(&schema, "distributor.ha_tracker.kvstore.prefix").unwrap()["default"], "ha-tracker/");
}

#[test]
fn help_lists_every_flag() {
    let help = flags_help();
    for (_, (_, flag)) in reference() {
        assert!(help.contains(&format!("  -{flag} ")), "{flag}");
    }
    assert!(help.contains("  -config.file string"));
}
