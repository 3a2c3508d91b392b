//! Reading vector files, and small rings.

use ringkit_ring::{Desc, InstanceDesc, RingOptions, State, Strategy};
use serde_json::Value;

/// The cases of one vector file.
pub(crate) fn vectors(file: &str) -> Value {
    let path = format!("{}/tests/vectors/{file}.json", env!("CARGO_MANIFEST_DIR"));
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

/// The list under `field`; nothing there means an empty one.
pub(crate) fn list<'a>(value: &'a Value, field: &str) -> &'a [Value] {
    match &value[field] {
        Value::Array(list) => list,
        Value::Null => &[],
        other => panic!("`{field}` is no list: {other}"),
    }
}

pub(crate) fn text<'a>(value: &'a Value, field: &str) -> &'a str {
    value[field].as_str().unwrap_or_default()
}

pub(crate) fn number(value: &Value, field: &str) -> i64 {
    value[field].as_i64().unwrap_or_default()
}

pub(crate) fn count(value: &Value, field: &str) -> usize {
    usize::try_from(number(value, field)).unwrap()
}

pub(crate) fn token(value: &Value) -> u32 {
    u32::try_from(value.as_u64().unwrap()).unwrap()
}

pub(crate) fn state(name: &str) -> State {
    name.parse().unwrap()
}

pub(crate) fn instance(value: &Value) -> InstanceDesc {
    InstanceDesc {
        addr: text(value, "addr").into(),
        timestamp: number(value, "timestamp"),
        state: state(text(value, "state")),
        tokens: list(value, "tokens").iter().map(token).collect(),
        zone: text(value, "zone").into(),
        registered_timestamp: number(value, "registered_timestamp"),
        read_only: value["read_only"].as_bool().unwrap_or_default(),
        read_only_updated_timestamp: number(value, "read_only_updated_timestamp"),
        ..InstanceDesc::default()
    }
}

/// A ring from a list of instances.
pub(crate) fn ring(instances: &[Value]) -> Desc {
    instances.iter().map(|value| (text(value, "id"), instance(value))).collect()
}

pub(crate) fn options(config: &Value) -> RingOptions {
    RingOptions {
        heartbeat_timeout: std::time::Duration::from_secs(count(config, "heartbeat_timeout_s") as u64),
        replication_factor: count(config, "replication_factor"),
        zone_awareness_enabled: config["zone_awareness_enabled"].as_bool().unwrap_or_default(),
        excluded_zones: list(config, "excluded_zones")
            .iter()
            .map(|zone| zone.as_str().unwrap().to_owned())
            .collect(),
        strategy: strategy(text(config, "strategy")),
        ..RingOptions::default()
    }
}

pub(crate) fn strategy(name: &str) -> Strategy {
    match name {
        "default" => Strategy::Quorum,
        "ignore_unhealthy" => Strategy::IgnoreUnhealthy,
        other => panic!("unknown strategy {other}"),
    }
}

/// An ACTIVE instance heard at second 1000 on `<id>:1`.
pub(crate) fn active(id: &str, zone: &str, tokens: &[u32]) -> (String, InstanceDesc) {
    let desc = InstanceDesc {
        addr: format!("{id}:1").into(),
        timestamp: 1000,
        zone: zone.into(),
        tokens: tokens.into(),
        ..InstanceDesc::default()
    };
    (id.to_owned(), desc)
}
