//! `ringctl kv` and `ringctl ring` on a real Consul and a real etcd, with a ring that Cortex wrote.

use std::io::Write as _;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use ringkit_kv::Value as _;
use ringkit_ring::{Desc, State};
use ringkit_testkit::{Consul, Etcd, http};

/// Runs `ringctl` with `typed` on standard input, and returns its exit status and the bytes that it printed, both streams.
fn ringctl_bytes(args: &[&str], typed: &str) -> (i32, Vec<u8>) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ringctl"));
    command.args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    // A command that reads nothing may be gone already.
    let _ = child.stdin.take().unwrap().write_all(typed.as_bytes());
    let output = child.wait_with_output().unwrap();
    (output.status.code().unwrap(), [output.stdout, output.stderr].concat())
}

fn ringctl(args: &[&str], typed: &str) -> (i32, String) {
    let (code, bytes) = ringctl_bytes(args, typed);
    (code, String::from_utf8_lossy(&bytes).into_owned())
}

/// Runs `ringctl` with these words and then the flags of a store, or of two.
fn run(words: &[&str], flags: &[&[&str]]) -> (i32, String) {
    ringctl(&[words, &flags.concat()].concat(), "")
}

/// Runs it and checks its exit status and that all of `parts` are in what it printed.
#[track_caller]
fn expect(words: &[&str], flags: &[&[&str]], code: i32, parts: &[&str]) {
    let (status, text) = run(words, flags);
    assert_eq!(status, code, "{words:?}: {text}");
    for part in parts {
        assert!(text.contains(part), "{words:?}: {part} is not in: {text}");
    }
}

async fn put(consul: &Consul, key: &str, value: &[u8]) {
    let path = format!("/v1/kv/collectors/{key}");
    let answer = http::request(consul.addr(), "PUT", &path, &[], value).await.unwrap();
    assert_eq!(answer.status, 200, "{}", answer.text());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ring_of_cortex_is_shown_copied_compared_and_deleted() {
    let (consul, etcd) = (Consul::start().await.unwrap(), Etcd::start().await.unwrap());
    let written = crate::stores::written_by_go();
    put(&consul, "ring", &written).await;
    let (host, endpoint) = (consul.addr().to_string(), etcd.addr().to_string());
    let on_consul = ["--store", "consul", "--host", &host];

    assert_eq!(run(&["kv", "list"], &[&on_consul]), (0, "ring\n".to_owned()));
    let shown = ["ingester-1", "ACTIVE", "127.0.0.1:21602"];
    for command in [&["kv", "get", "ring"][..], &["ring", "show"], &["ring", "watch", "--for", "2s"]] {
        expect(command, &[&on_consul], 0, &shown);
    }
    for command in [&["kv", "get", "ring", "--format", "json"][..], &["ring", "show", "--json"]] {
        let (code, text) = run(command, &[&on_consul]);
        let json: serde_json::Value = serde_json::from_str(&text).unwrap();
        let tokens = json["ingester-1"]["tokens"].as_array();
        assert!(code == 0 && tokens.is_some_and(|tokens| !tokens.is_empty()), "{text}");
    }
    let raw = [&["kv", "get", "ring", "--format", "raw"][..], &on_consul].concat();
    assert_eq!(ringctl_bytes(&raw, ""), (0, written), "byte for byte");

    for (layout, other) in [("single", "per_instance"), ("per_instance", "single")] {
        // The two layouts do not share a key.
        let prefix = format!("{layout}/");
        let place = ["--store", "etcd", "--endpoints", &endpoint, "--prefix", &prefix];
        let on_etcd = [&place[..], &["--layout", layout]].concat();
        let to_etcd = ["--to-store", "etcd", "--to-endpoints", &endpoint, "--to-prefix", &prefix];
        let to_etcd = [&to_etcd[..], &["--to-layout", layout]].concat();

        expect(&["kv", "diff", "ring"], &[&on_consul, &to_etcd], 1, &["ingester-1: missing in the second"]);
        expect(&["kv", "copy", "ring"], &[&on_consul, &to_etcd], 0, &["ingester-1\n1 of 1 entries written"]);
        expect(&["kv", "copy", "ring"], &[&on_consul, &to_etcd], 0, &["0 of 1 entries written"]);
        expect(&["kv", "diff", "ring"], &[&on_consul, &to_etcd], 0, &["1 entries, largest skew 0 s"]);
        expect(&["kv", "get", "ring"], &[&on_etcd], 0, &shown);
        assert_eq!(run(&["kv", "list"], &[&on_etcd]), (0, "ring\n".to_owned()));

        // In the other layout it is not there, or not readable; in no case may a part of it be deleted.
        let elsewhere = [&place[..], &["--layout", other]].concat();
        expect(&["kv", "delete", "ring", "--yes"], &[&elsewhere], 1, &["layout"]);
        expect(&["kv", "diff", "ring"], &[&on_consul, &to_etcd], 0, &[]);

        expect(&["ring", "forget", "nobody"], &[&on_etcd], 1, &["`nobody`"]);
        expect(&["ring", "forget", "ingester-1"], &[&on_etcd], 0, &["ingester-1 is forgotten"]);
        expect(&["kv", "diff", "ring"], &[&on_consul, &to_etcd], 1, &["missing in the second"]);
        expect(&["kv", "delete", "ring", "--yes"], &[&on_etcd], 0, &["ring is deleted"]);
        assert_eq!(run(&["kv", "list"], &[&on_etcd]), (0, String::new()));
    }

    let delete = [&["kv", "delete", "ring"][..], &on_consul].concat();
    for typed in ["", "y\n", "rin\n"] {
        let (code, text) = ringctl(&delete, typed);
        assert!(code == 1 && text.contains("not deleted"), "{typed:?}: {text}");
    }
    assert_eq!(run(&["kv", "list"], &[&on_consul]).1, "ring\n");
    let (code, text) = ringctl(&delete, "ring\n");
    assert!(code == 0 && text.contains("ring is deleted"), "{text}");
    assert_eq!(run(&["kv", "list"], &[&on_consul]), (0, String::new()));
    expect(&["kv", "delete", "ring", "--yes"], &[&on_consul], 1, &["no key `ring`"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_differs_is_named_and_what_is_newer_is_kept() {
    let consul = Consul::start().await.unwrap();
    let host = consul.addr().to_string();
    let old = Desc::decode(&crate::stores::written_by_go()).unwrap();
    let mut newer = old.clone();
    let mut entry = (**old.get("ingester-1").unwrap()).clone();
    entry.timestamp += 7;
    entry.state = State::Leaving;
    newer.insert("ingester-1", entry.clone());
    // A clock that is far off, and states of a later version.
    entry.timestamp = i64::MIN;
    entry.state = State::Unknown(77);
    newer.insert("ingester-2", entry);
    put(&consul, "ring", &old.encode()).await;
    let path = "/v1/kv/other/ring";
    http::request(consul.addr(), "PUT", path, &[], &newer.encode()).await.unwrap();

    let from = ["--store", "consul", "--host", &host];
    let to = ["--to-store", "consul", "--to-host", &host, "--to-prefix", "other/"];
    let (copy, diff) = (["kv", "copy", "ring"], ["kv", "diff", "ring"]);
    let named = [
        "ingester-1: differs in state; heartbeats are 7 s apart",
        "ingester-2: missing in the first store",
        "2 entries, largest skew 7 s",
    ];
    expect(&diff, &[&from, &to], 1, &named);
    expect(&["kv", "get", "ring"], &[&from, &["--prefix", "other/"]], 0, &["ingester-2", "77"]);
    expect(&copy, &[&from, &to], 1, &["ingester-1", "nothing was written", "--force"]);
    expect(&diff, &[&from, &to], 1, &named);
    expect(&[&copy[..], &["--force"]].concat(), &[&from, &to], 0, &["ingester-1\n1 of 1 entries written"]);
    expect(&diff, &[&from, &to], 1, &["ingester-2: missing in the first store", "largest skew 0 s"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_tells_what_changes_and_what_goes() {
    let consul = Consul::start().await.unwrap();
    let host = consul.addr().to_string();
    put(&consul, "ring", &crate::stores::written_by_go()).await;
    let on_consul = ["--store", "consul", "--host", &host];
    let watching = [&["ring", "watch", "--for", "6s"][..], &on_consul].concat().join(" ");
    let watch = tokio::task::spawn_blocking(move || {
        let started = Instant::now();
        let (code, text) = ringctl(&watching.split(' ').collect::<Vec<_>>(), "");
        (code, text, started.elapsed())
    });
    tokio::time::sleep(Duration::from_secs(2)).await;
    expect(&["ring", "forget", "ingester-1"], &[&on_consul], 0, &[]);
    let (code, text, took) = watch.await.unwrap();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(code, 0, "{text}");
    assert!(lines.len() == 2 && lines[0].starts_with("ingester-1 "), "{text}");
    assert!(lines[1].starts_with("ingester-1 ") && lines[1].ends_with("gone"), "{text}");
    assert!(took >= Duration::from_secs(6), "{took:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_ring_or_not_there_is_said_with_what_to_do() {
    let consul = Consul::start().await.unwrap();
    let host = consul.addr().to_string();
    let on_consul = ["--store", "consul", "--host", &host];
    let to_consul = ["--to-store", "consul", "--to-host", &host];
    let bytes = b"no ring \xff";
    put(&consul, "other", bytes).await;
    for command in [&["kv", "get", "other"][..], &["ring", "show", "--ring", "other"]] {
        expect(command, &[&on_consul], 1, &["no ring", "`ringctl kv get other --format raw`"]);
    }
    let raw = [&["kv", "get", "other", "--format", "raw"][..], &on_consul].concat();
    assert_eq!(ringctl_bytes(&raw, ""), (0, bytes.to_vec()));
    expect(&["kv", "get", "rign"], &[&on_consul], 1, &["no key `rign`", "kv list"]);
    expect(&["kv", "diff", "rign"], &[&on_consul, &to_consul], 1, &["no key `rign` in either store"]);
    expect(&["kv", "copy", "rign"], &[&on_consul, &to_consul], 1, &["no key `rign`"]);
    expect(&["ring", "forget", "x", "--ring", "rign"], &[&on_consul], 1, &["no key `rign`"]);

    // Nobody listens on port 1.
    let nowhere = ["--store", "consul", "--host", "127.0.0.1:1"];
    for command in [&["kv", "get", "ring"][..], &["kv", "list"], &["ring", "watch", "--for", "1m"]] {
        let (code, text) = run(command, &[&nowhere]);
        assert!(code == 1 && text.contains("consul") && !text.contains("raw"), "{command:?}: {text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_tells_when_the_store_is_gone_and_back() {
    let mut consul = Consul::start().await.unwrap();
    let host = consul.addr().to_string();
    put(&consul, "ring", &crate::stores::written_by_go()).await;
    let watch = tokio::task::spawn_blocking(move || {
        ringctl(&["ring", "watch", "--for", "15s", "--store", "consul", "--host", &host], "")
    });
    tokio::time::sleep(Duration::from_secs(2)).await;
    consul.kill().unwrap();
    tokio::time::sleep(Duration::from_secs(2)).await;
    consul.start_again().await.unwrap();
    let (code, text) = watch.await.unwrap();
    assert_eq!(code, 0, "{text}");
    for part in ["ingester-1", "consul", "the store answers again"] {
        assert!(text.contains(part), "{part} is not in: {text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_entry_that_cannot_be_read_is_named_and_can_be_forgotten() {
    let consul = Consul::start().await.unwrap();
    let host = consul.addr().to_string();
    let codec = Desc::codec();
    let mut entries = codec.split(&crate::stores::written_by_go()).unwrap();
    // Field 1, of a length that is not there.
    entries.insert("broken".into(), vec![0x0a, 0x7f].into());
    put(&consul, "ring", &codec.join(&entries)).await;
    let on_consul = ["--store", "consul", "--host", &host];
    expect(&["ring", "show"], &[&on_consul], 1, &["broken", "`ringctl ring forget`"]);
    expect(&["ring", "forget", "broken"], &[&on_consul], 0, &["broken is forgotten"]);
    expect(&["ring", "show"], &[&on_consul], 0, &["ingester-1"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_store_of_a_configuration_file_is_used_with_all_that_it_says() {
    let consul = Consul::start().await.unwrap();
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("config.yaml");
    let text = format!(
        "ring: {{store: consul, kvstore: {{layout: per_instance, consul: {{host: '{}'}}}}}}\n\
         distributor: {{ring: {{kvstore: {{store: inmemory}}}}}}\n",
        consul.addr()
    );
    std::fs::write(&file, text).unwrap();
    put(&consul, "ring-of-go", &crate::stores::written_by_go()).await;
    let host = consul.addr().to_string();
    let (by_flags, by_file) = (["--store", "consul", "--host", &host], ["--config", file.to_str().unwrap()]);
    let to_file = ["--to-config", file.to_str().unwrap(), "--to-prefix", "x/"];
    expect(&["kv", "copy", "ring-of-go"], &[&by_flags, &to_file], 2, &["--to-prefix: does not go with"]);
    // In the file's layout the key is not there; under the very name nothing else can be.
    let to_file = &to_file[..2];
    expect(&["kv", "copy", "ring-of-go"], &[&by_flags, to_file], 1, &["`kvstore.layout` in ", "`single`"]);
    expect(&["kv", "list"], &[&by_file], 0, &[]);
    let on_inmemory = ["--config", file.to_str().unwrap(), "--ring", "distributor"];
    expect(&["ring", "show"], &[&on_inmemory], 2, &["--config", "`inmemory`"]);
    expect(&["ring", "show"], &[&["--config", "/does/not/exist"]], 1, &["/does/not/exist"]);
}

#[test]
fn a_wrong_command_line_names_its_flag() {
    for (line, part) in [
        ("kv list", "--store: or --config is needed"),
        ("kv list --store zookeeper", "--store: `zookeeper`"),
        ("kv list --store consul --layout both", "--layout: `both`"),
        ("kv list --store etcd --host a:1", "--host: does not go with --store etcd"),
        ("kv list --store consul --endpoints a:1", "--endpoints: does not go with --store consul"),
        ("kv get ring --store consul --format xml", "--format: `xml`"),
        ("kv diff ring --store consul", "--to-store: or --to-config is needed"),
        ("kv copy ring --store consul --to-store etcd --to-host a:1", "--to-host: does not go with"),
        ("ring show", "--url: this, --store or --config is needed"),
        ("ring show --url http://a --store consul", "--url: cannot be combined with a store"),
        ("ring show --url http://a --host b:1", "--host: goes with --store only"),
        ("ring watch --store consul --for long", "--for: `long`"),
        ("ring forget --store consul", "ID is missing"),
    ] {
        expect(&line.split(' ').collect::<Vec<_>>(), &[], 2, &[part]);
    }
}
