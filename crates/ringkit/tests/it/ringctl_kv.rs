//! `ringctl kv` and `ringctl ring` on a real Consul and a real etcd, with a ring that Cortex wrote.

use std::process::{Command, Stdio};

use ringkit_testkit::{Consul, Etcd, http};

/// Runs `ringctl` and returns its exit status and what it printed, both streams.
fn ringctl(args: &[&str]) -> (i32, String) {
    let output =
        Command::new(env!("CARGO_BIN_EXE_ringctl")).args(args).stdin(Stdio::null()).output().unwrap();
    let text = [output.stdout, output.stderr].concat();
    (output.status.code().unwrap(), String::from_utf8_lossy(&text).into_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ring_of_cortex_is_shown_copied_compared_and_deleted() {
    let (consul, etcd) = (Consul::start().await.unwrap(), Etcd::start().await.unwrap());
    let ring = crate::stores::written_by_go();
    http::request(consul.addr(), "PUT", "/v1/kv/collectors/ring", &[], &ring).await.unwrap();
    let (host, endpoint) = (consul.addr().to_string(), etcd.addr().to_string());
    let on_consul = ["--store", "consul", "--host", &host];
    let on_etcd = ["--store", "etcd", "--endpoints", &endpoint, "--layout", "per_instance"];
    let to_etcd = ["--to-store", "etcd", "--to-endpoints", &endpoint, "--to-layout", "per_instance"];
    let run = |words: &[&str], flags: &[&[&str]]| ringctl(&[words, &flags.concat()].concat());

    assert_eq!(run(&["kv", "list"], &[&on_consul]), (0, "ring\n".to_owned()));
    for command in [&["kv", "get", "ring"][..], &["ring", "show"], &["ring", "watch", "ring", "--for", "2s"]]
    {
        let (code, text) = run(command, &[&on_consul]);
        assert!(
            code == 0 && text.contains("ingester-1") && text.contains("127.0.0.1:21602"),
            "{command:?}: {text}"
        );
    }
    let (code, text) = run(&["kv", "get", "ring", "--format", "json"], &[&on_consul]);
    let json: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert!(code == 0 && json["ingester-1"]["tokens"].as_array().is_some_and(|t| !t.is_empty()), "{text}");

    assert_eq!(run(&["kv", "diff", "ring"], &[&on_consul, &to_etcd]).0, 1);
    let (code, text) = run(&["kv", "copy", "ring"], &[&on_consul, &to_etcd]);
    assert!(code == 0 && text.contains("1 of 1"), "{text}");
    let (code, text) = run(&["kv", "diff", "ring"], &[&on_consul, &to_etcd]);
    assert!(code == 0 && text.contains("1 entries"), "{text}");

    let (code, text) = run(&["ring", "forget", "ring", "nobody"], &[&on_etcd]);
    assert!(code == 1 && text.contains("`nobody`"), "{text}");
    assert_eq!(run(&["ring", "forget", "ring", "ingester-1"], &[&on_etcd]).0, 0);
    let (code, text) = run(&["kv", "diff", "ring"], &[&on_consul, &to_etcd]);
    assert!(code == 1 && text.contains("missing in the second"), "{text}");

    let (code, text) = run(&["kv", "delete", "ring"], &[&on_consul]);
    assert!(code == 1 && text.contains("not deleted"), "{text}");
    assert_eq!(run(&["kv", "delete", "ring", "--yes"], &[&on_consul]).0, 0);
    assert_eq!(run(&["kv", "list"], &[&on_consul]).1, "");

    http::request(consul.addr(), "PUT", "/v1/kv/collectors/other", &[], b"no ring").await.unwrap();
    let (code, text) = run(&["kv", "get", "other"], &[&on_consul]);
    assert!(code == 1 && text.contains("--format raw"), "{text}");
    assert_eq!(run(&["kv", "get", "other", "--format", "raw"], &[&on_consul]), (0, "no ring".to_owned()));
}
