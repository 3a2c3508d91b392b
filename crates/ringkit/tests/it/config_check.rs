//! `ringctl config check` on its own and against a process.

use std::path::Path;
use std::process::Command;

use ringkit_config::Config;
use ringkit_server::App;

fn ringctl(args: &[&str]) -> (i32, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_ringctl")).args(args).output().unwrap();
    let text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    (output.status.code().unwrap(), text)
}

/// The configuration of a process that only reads a ring.
fn yaml(more: &str) -> String {
    format!(
        "target: ring\n\
         ring: {{store: inmemory}}\n\
         server: {{http_listen_address: 127.0.0.1, grpc_listen_address: 127.0.0.1, http_listen_port: 0, grpc_listen_port: 0}}\n\
         {more}"
    )
}

/// Writes the file and checks it with these flags behind.
#[track_caller]
fn check(dir: &Path, more: &str, flags: &[&str], code: i32, parts: &[&str]) {
    let file = dir.join("new.yaml");
    std::fs::write(&file, yaml(more)).unwrap();
    let (status, text) = ringctl(&[&["config", "check", file.to_str().unwrap()][..], flags].concat());
    assert_eq!(status, code, "{more}: {text}");
    for part in parts {
        assert!(text.contains(part), "{more}: `{part}` is not in: {text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_file_is_told_what_it_would_do_to_a_process() {
    let dir = tempfile::tempdir().unwrap();
    let loaded = ringkit_config::parse_yaml("old.yaml", &yaml("limits: {ingestion_rate: 7}\n")).unwrap();
    let running = App::builder(Config::default()).loaded(loaded).start().await.unwrap();
    running.ready().await.unwrap();
    let url = format!("http://{}", running.http_addr);
    let against = ["--against", &url];
    let same = "limits:\n  ingestion_rate: 7\n";
    check(dir.path(), same, &against, 0, &["nothing to do"]);
    let restart =
        ["needs a restart: 1\n", "  limits.ingestion_rate: 7 -> 9 (", "new.yaml:4:26; for a tenant"];
    check(dir.path(), "limits: {ingestion_rate: 9}\n", &against, 1, &restart);
    check(dir.path(), "", &against, 1, &["limits.ingestion_rate: 7 -> 25000 (the default"]);
    let flag = ["--against", &url, "--flag", "-distributor.ingestion-rate-limit=7"];
    check(dir.path(), "", &flag, 0, &["nothing to do"]);
    let refused = ["new.yaml:4:10: limits.ingestion_rat: unknown key", "refused: "];
    check(dir.path(), "limits: {ingestion_rat: 9}\n", &against, 2, &refused);

    let runtime = dir.path().join("runtime.yaml");
    std::fs::write(&runtime, "overrides: {t: {ingestion_rate: fast}}").unwrap();
    let named = format!("{same}runtime_config: {{file: '{}'}}\n", runtime.display());
    check(
        dir.path(),
        &named,
        &against,
        2,
        &["runtime.yaml:1:33: overrides.t.ingestion_rate: expected a number"],
    );
    std::fs::write(&runtime, "overrides: {t: {ingestion_rate: 5}}").unwrap();
    check(dir.path(), &named, &against, 1, &["runtime_config.file: \"\" -> "]);
    std::fs::remove_file(&runtime).unwrap();
    check(dir.path(), &named, &[], 0, &["warning: runtime_config.file: ", "cannot read this file here"]);

    let _ = running.stop().await;
    check(dir.path(), same, &against, 3, &["ringctl config check: http://"]);
    check(dir.path(), same, &["--against", "nonsense"], 2, &["--against: "]);
}
