//! The alerts and the dashboard of a migration: Prometheus takes them, they name what processes have, and nothing that a process
//! tells of its two stores is left out.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use ringkit_config::{Config, KvStore};
use ringkit_server::App;
use ringkit_testkit::eventually_ok;
use ringkit_testkit::prometheus::promtool;
use serde_json::{Value, json};

const ALERTS: &str = "alerts-migration.yaml";
const DASHBOARD: &str = "dashboard-migration.json";

fn path(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../config").join(name).canonicalize().unwrap()
}

fn text(name: &str) -> String {
    std::fs::read_to_string(path(name)).unwrap()
}

/// All words that are names of metrics.
fn names(text: &str) -> BTreeSet<String> {
    const FAMILIES: [&str; 4] =
        ["cortex_", "memberlist_client_", "memberlist_propagation_", "memberlist_tcp_transport_"];
    let words = text.split(|letter: char| !letter.is_ascii_alphanumeric() && letter != '_');
    let named = words.filter(|word| FAMILIES.iter().any(|family| word.starts_with(family)));
    named.map(str::to_owned).collect()
}

/// The queries of the dashboard, by panel.
fn queries(dashboard: &Value) -> Vec<(String, String)> {
    let mut queries = Vec::new();
    for panel in dashboard["panels"].as_array().unwrap() {
        for target in panel["targets"].as_array().into_iter().flatten() {
            let of = |value: &Value| value.as_str().unwrap().to_owned();
            queries.push((of(&panel["title"]), of(&target["expr"])));
        }
    }
    queries
}

/// Runs `promtool` on a file.
#[track_caller]
fn accepted(args: &[&str], file: &Path) {
    let output = Command::new(promtool().unwrap()).args(args).arg(file).output().unwrap();
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(output.status.success(), "{args:?} {}: {said}", file.display());
}

#[test]
fn prometheus_takes_the_alerts_and_the_queries() {
    accepted(&["check", "rules"], &path(ALERTS));
    // A query is checked as a rule that keeps what it gives.
    let dashboard: Value = serde_json::from_str(&text(DASHBOARD)).unwrap();
    let queries = queries(&dashboard);
    assert!(queries.len() > 20, "{queries:?}");
    let rules: Vec<Value> = queries
        .iter()
        .enumerate()
        .map(|(number, (_, query))| {
            let query = query.replace("$__rate_interval", "5m");
            json!({ "record": format!("dashboard:query_{number}"), "expr": query })
        })
        .collect();
    let file = tempfile::NamedTempFile::new().unwrap();
    let groups = json!({ "groups": [{ "name": "dashboard", "rules": rules }] });
    std::fs::write(file.path(), groups.to_string()).unwrap();
    accepted(&["check", "rules"], file.path());
}

#[test]
fn an_alert_goes_off_where_it_should_and_not_beside() {
    let test = format!(
        r#"
rule_files: ["{}"]
evaluation_interval: 30s
tests:
  - interval: 30s
    input_series:
      - {{series: 'cortex_multikv_mirror_enabled{{job="j", instance="a", kv_name="ring"}}', values: 1x40}}
      - {{series: 'cortex_multikv_mirror_enabled{{job="j", instance="b", kv_name="ring"}}', values: 0x40}}
      - {{series: 'cortex_multikv_entries_missing{{job="j", instance="a", kv_name="ring", store="etcd"}}', values: 2x40}}
      - {{series: 'cortex_multikv_entries_missing{{job="j", instance="b", kv_name="ring", store="etcd"}}', values: 2x40}}
      - {{series: 'cortex_multikv_primary_store{{job="j", instance="a", kv_name="ring", store="etcd"}}', values: 1x40}}
      - {{series: 'cortex_multikv_primary_store{{job="j", instance="b", kv_name="ring", store="consul"}}', values: 1x10 0x30}}
      - {{series: 'cortex_multikv_store_up{{job="j", instance="a", kv_name="ring", store="consul"}}', values: 0x40}}
    alert_rule_test:
      - eval_time: 10m
        alertname: MigrationEntriesMissing
        exp_alerts:
          - exp_labels: {{severity: warning, job: j, instance: a, kv_name: ring, store: etcd}}
            exp_annotations:
              summary: 2 living instances of ring are missing in etcd, as a sees it.
              description: Their processes do not mirror, or the store refuses their entries, or gossip refuses them because of a clock.
      - eval_time: 10m
        alertname: MigrationSplitPrimaries
        exp_alerts: []
      - eval_time: 10m
        alertname: MigrationPrimaryDown
        exp_alerts: []
"#,
        path(ALERTS).display()
    );
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), test).unwrap();
    accepted(&["test", "rules"], file.path());
}

#[tokio::test(flavor = "multi_thread")]
async fn every_metric_that_is_named_is_one_that_a_process_has() {
    let runtime = tempfile::NamedTempFile::new().unwrap();
    let mut config = Config { target: vec!["ring".into()], ..Config::default() };
    let server = &mut config.server;
    (server.http_listen_address, server.grpc_listen_address) = ("127.0.0.1".into(), "127.0.0.1".into());
    (server.http_listen_port, server.grpc_listen_port) = (0, 0);
    let kv = &mut config.ingester.lifecycler.ring.kvstore;
    kv.store = KvStore::Multi;
    (kv.multi.primary, kv.multi.secondary) = (Some(KvStore::Inmemory), Some(KvStore::Memberlist));
    (config.memberlist.bind_addr, config.memberlist.bind_port) = (vec!["127.0.0.1".into()], 0);
    config.runtime_config.file = runtime.path().to_str().unwrap().to_owned();
    let running = App::builder(config).start().await.unwrap();
    running.ready().await.unwrap();

    let named: BTreeSet<String> = names(&text(ALERTS)).union(&names(&text(DASHBOARD))).cloned().collect();
    assert!(named.len() > 20, "{named:?}");
    // What a member tells of itself it does not tell at once.
    let all_there = || async {
        let there = names(&running.metrics());
        let missing: Vec<&String> = named.difference(&there).collect();
        if missing.is_empty() { Ok(()) } else { Err(format!("no process has {missing:?}")) }
    };
    eventually_ok(Duration::from_secs(30), all_there).await.unwrap();

    let shown = names(&text(DASHBOARD));
    let told = names(&running.metrics()).into_iter();
    let of_two_stores = told.filter(|name| name.starts_with("cortex_multikv_"));
    let hidden: Vec<String> = of_two_stores.filter(|name| !shown.contains(name)).collect();
    assert!(hidden.is_empty(), "the dashboard does not show {hidden:?}");
    let _ = running.stop().await;
}
