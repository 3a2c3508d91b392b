//! The runtime configuration of a process: its first load, its page, and its reloads.

use std::path::Path;
use std::time::Duration;

use ringkit_config::{Config, RuntimeConfig};
use ringkit_runtime::{Live, ServiceState};
use ringkit_server::Running;

use crate::toy::{app, config, eventually, get_from, start, url};

fn with_file(path: &Path) -> Config {
    let mut config = config("");
    config.runtime_config.file = path.to_str().unwrap().into();
    config.runtime_config.period = Duration::from_millis(20);
    config
}

/// The two headers of the page that tools read.
async fn headers(running: &Running) -> (String, String) {
    let answer = reqwest::get(url(running, "/runtime_config")).await.unwrap();
    let header = |name: &str| answer.headers()[name].to_str().unwrap().to_owned();
    (header("x-ringkit-config-hash"), header("x-ringkit-config-generation"))
}

fn rate(running: &Running) -> f64 {
    let live = running.get::<Live<RuntimeConfig>>().unwrap();
    live.with(|live| live.limits("t").ingestion_rate)
}

#[tokio::test]
async fn a_first_load_that_fails_fails_the_start() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("runtime.yaml");
    let error = app(with_file(&path)).start().await.unwrap_err().to_string();
    let begin = format!("failed to load runtime config: {}: cannot read this file: ", path.display());
    assert!(error.starts_with(&begin), "{error}");
    std::fs::write(&path, "overrides: {t: {ingestion_rat: 1}}").unwrap();
    let error = app(with_file(&path)).start().await.unwrap_err().to_string();
    let expected = format!(
        "failed to load runtime config: {}:1:17: overrides.t.ingestion_rat: unknown key (did you mean `ingestion_rate`?)",
        path.display()
    );
    assert_eq!(error, expected);
}

#[tokio::test]
async fn it_is_there_from_the_start_shown_and_read_again() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("runtime.yaml");
    std::fs::write(&path, "overrides: {t: {ingestion_rate: 1}}\nmulti_kv_config: {generation: 7}\n").unwrap();
    let running = app(with_file(&path)).start().await.unwrap();
    assert_eq!(rate(&running), 1.0);
    eventually("it runs", async || running.services()["runtime-config"] == ServiceState::Running).await;

    let (status, all) = get_from(&running, "/runtime_config").await;
    assert_eq!(status, 200);
    assert!(
        all.contains("    ingestion_rate: 1\n") && all.contains("    ingestion_burst_size: 50000\n"),
        "{all}"
    );
    let (_, diff) = get_from(&running, "/runtime_config?mode=diff").await;
    assert_eq!(diff, "multi_kv_config:\n  generation: 7\noverrides:\n  t:\n    ingestion_rate: 1\n");
    assert_eq!(get_from(&running, "/runtime_config?mode=odd").await.0, 400);
    let index = get_from(&running, "/").await.1;
    assert!(
        index.contains("href=\"/runtime_config\"") && index.contains("href=\"/runtime_config?mode=diff\"")
    );
    let (first_hash, generation) = headers(&running).await;
    assert_eq!((first_hash.len(), generation.as_str()), (64, "7"));
    assert!(
        running.metrics().contains(&format!("cortex_runtime_config_hash{{sha256=\"{first_hash}\"}} 1\n"))
    );

    std::fs::write(&path, "overrides: {t: {ingestion_rate: 2}}").unwrap();
    eventually("the change", async || rate(&running) == 2.0).await;
    let (hash, generation) = headers(&running).await;
    assert_ne!(hash, first_hash);
    assert_eq!(generation, "0");

    let successful = |value: u8| {
        let line = format!("cortex_runtime_config_last_reload_successful {value}\n");
        running.metrics().contains(&line)
    };
    assert!(successful(1));
    std::fs::write(&path, "overrides: {t: {ingestion_rate: 3}").unwrap();
    eventually("a failure", async || successful(0)).await;
    assert_eq!((rate(&running), headers(&running).await.0), (2.0, hash.clone()));
    std::fs::write(&path, "overrides: {t: {ingestion_rate: 4}}").unwrap();
    eventually("a success", async || successful(1)).await;
    assert_eq!(rate(&running), 4.0);
    std::fs::remove_file(&path).unwrap();
    eventually("a failure", async || successful(0)).await;
    assert_eq!(rate(&running), 4.0);
    let report = running.stop().await;
    let steps: Vec<&str> = report.steps.iter().map(|step| step.name.as_str()).collect();
    assert_eq!(steps, ["toy", "ring", "runtime-config", "server", "background work"]);
}

#[tokio::test]
async fn without_a_file_there_is_nothing_to_run() {
    let running = start("").await;
    assert_eq!(
        get_from(&running, "/runtime_config").await,
        (200, "runtime config file doesn't exist".to_owned())
    );
    assert!(!running.services().contains_key("runtime-config"));
    assert!(!get_from(&running, "/").await.1.contains("runtime_config"));
    assert!(!running.metrics().contains("cortex_runtime_config"));
    assert_eq!(rate(&running), Config::default().limits.ingestion_rate);
    let _ = running.stop().await;
}
