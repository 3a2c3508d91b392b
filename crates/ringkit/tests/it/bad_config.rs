//! A process that cannot start says why, where, and what to do.

use std::net::TcpListener;
use std::process::{Command, Output};
use std::time::{Duration, Instant};

/// Runs `ringkit` with this configuration file; it must end by itself.
fn run(yaml: &str, flags: &[&str]) -> (Output, String) {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("ringkit.yaml");
    std::fs::write(&file, yaml).unwrap();
    let mut child = Command::new(env!("CARGO_BIN_EXE_ringkit"))
        .arg(format!("-config.file={}", file.display()))
        .args(flags)
        .current_dir(dir.path())
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let deadline = Instant::now() + Duration::from_secs(30);
    while child.try_wait().unwrap().is_none() {
        if Instant::now() > deadline {
            child.kill().unwrap();
            panic!("still running: {:?}", child.wait_with_output());
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    let output = child.wait_with_output().unwrap();
    let text = String::from_utf8_lossy(&[&output.stdout[..], &output.stderr[..]].concat()).into_owned();
    (output, text)
}

#[test]
fn every_problem_of_a_file_is_reported_at_once_with_its_place() {
    let yaml = "server:\n  http_listen_prot: 80\ningester:\n  lifecycler:\n    heartbeat_period: 1d\n    num_tokens: many\n";
    let (output, text) = run(yaml, &[]);
    assert_eq!(output.status.code(), Some(1), "{text}");
    for part in [
        "ringkit.yaml:2:3",
        "http_listen_port",
        "ringkit.yaml:5:23",
        "heartbeat_period",
        "ringkit.yaml:6:17",
        "num_tokens",
    ] {
        assert!(text.contains(part), "`{part}` is missing:\n{text}");
    }
}

#[test]
fn a_tab_for_indentation_is_named_as_such() {
    let (output, text) = run("server:\n\thttp_listen_port: 80\n", &[]);
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains("ringkit.yaml:2:") && text.to_lowercase().contains("tab"), "{text}");
}

#[test]
fn a_taken_port_is_named_with_its_key() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let yaml = format!(
        "ring: {{store: inmemory}}\nserver: {{http_listen_address: 127.0.0.1, http_listen_port: {port}, grpc_listen_port: 0}}\n"
    );
    let (output, text) = run(&yaml, &["-target=distributor"]);
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains(&port.to_string()) && text.contains("server.http_listen_port"), "{text}");
}

#[test]
fn a_directory_that_cannot_be_written_is_named_with_its_key() {
    let dir = tempfile::tempdir().unwrap();
    // A file where the directory should be: not even root can write into it.
    let file = dir.path().join("occupied");
    std::fs::write(&file, "").unwrap();
    let yaml = format!(
        "ring: {{store: inmemory}}\nserver: {{http_listen_address: 127.0.0.1, http_listen_port: 0, grpc_listen_port: 0}}\n\
         ingester: {{lifecycler: {{address: 127.0.0.1}}}}\nblocks_storage: {{tsdb: {{dir: '{}'}}}}\n",
        file.join("tsdb").display()
    );
    let (output, text) = run(&yaml, &["-target=ingester"]);
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains("occupied") && text.contains("blocks_storage.tsdb.dir"), "{text}");
}

#[test]
fn a_store_that_is_not_there_is_refused_by_name() {
    for (store, about) in [("multi", "primary"), ("dynamodb", "dynamodb")] {
        let yaml = format!(
            "ring: {{store: {store}}}\nserver: {{http_listen_address: 127.0.0.1, http_listen_port: 0, grpc_listen_port: 0}}\n"
        );
        let (output, text) = run(&yaml, &["-target=distributor"]);
        assert_eq!(output.status.code(), Some(1), "{store}: {text}");
        assert!(text.contains(about), "{store}: {text}");
    }
}

#[test]
fn an_unknown_target_or_flag_is_refused_with_the_known_ones() {
    let (output, text) = run("", &["-target=querier"]);
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains("querier") && text.contains("distributor"), "{text}");
    let (output, text) = run("", &["-ingester.join-aftr=1s"]);
    assert!(!output.status.success() && text.contains("join-after"), "{text}");
}
