//! `main` as a process of its own: this test binary runs itself, as the test `as_a_process`.

use std::io::{BufRead as _, BufReader, Read as _};
use std::process::{Child, Command, Output, Stdio};

use async_trait::async_trait;
use ringkit_runtime::{CancellationToken, Cause, Service};
use rustix::process::{Pid, Signal, kill_process};

use super::*;

const ARGS: &str = "RINGKIT_TEST_ARGS";
const SEPARATOR: char = '\n';

/// The other side: not a test on its own.
#[test]
fn as_a_process() {
    let Ok(args) = std::env::var(ARGS) else { return };
    let args = args.split(SEPARATOR).filter(|arg| !arg.is_empty()).map(str::to_owned).collect();
    let fine = Role { name: "fine", visible: true, dependencies: &[], init: |_| Ok(Some(Box::new(Fine))) };
    let deaf = Role {
        name: "deaf",
        visible: true,
        dependencies: &[],
        init: |process| {
            process.stop_deadline("deaf", std::time::Duration::from_secs(600));
            Ok(Some(Box::new(Deaf)))
        },
    };
    let broken =
        Role { name: "broken", visible: true, dependencies: &[], init: |_| Ok(Some(Box::new(Broken))) };
    let code = obey("toy", args, "fine", &[fine, deaf, broken]);
    std::process::exit(i32::from(code));
}

struct Fine;

#[async_trait]
impl Service for Fine {
    async fn run(&mut self, stop: CancellationToken) -> Result<(), Cause> {
        stop.cancelled().await;
        Ok(())
    }
}

struct Deaf;

#[async_trait]
impl Service for Deaf {
    async fn run(&mut self, _: CancellationToken) -> Result<(), Cause> {
        std::future::pending().await
    }
}

struct Broken;

#[async_trait]
impl Service for Broken {
    async fn run(&mut self, _: CancellationToken) -> Result<(), Cause> {
        Err("the spring snapped".into())
    }
}

/// Flags that let it run anywhere.
const ANYWHERE: [&str; 4] = [
    "-server.http-listen-address=127.0.0.1",
    "-server.http-listen-port=0",
    "-server.grpc-listen-address=127.0.0.1",
    "-server.grpc-listen-port=0",
];

fn command(args: &[&str]) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    let args = args.join(&SEPARATOR.to_string());
    command.args(["--exact", "run::tests::as_a_process", "--nocapture"]).env(ARGS, args);
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Exit code, standard output, standard error.
fn outcome(args: &[&str]) -> (Option<i32>, String, String) {
    let Output { status, stdout, stderr } = command(args).output().unwrap();
    (status.code(), String::from_utf8(stdout).unwrap(), String::from_utf8(stderr).unwrap())
}

/// Runs until the log says so, and gives the rest of the log to read.
fn run_until(args: &[&str], line: &str) -> (Child, String, BufReader<std::process::ChildStderr>) {
    let mut child = command(&[args, &ANYWHERE].concat()).spawn().unwrap();
    let mut log = BufReader::new(child.stderr.take().unwrap());
    let mut read = String::new();
    while !read.contains(line) {
        assert!(log.read_line(&mut read).unwrap() > 0, "it ended before `{line}`: {read}");
    }
    (child, read, log)
}

fn signal(child: &Child, signal: Signal) {
    kill_process(Pid::from_child(child), signal).unwrap();
}

#[test]
fn sigterm_stops_in_order_with_success() {
    let (mut child, mut read, mut log) = run_until(&[], "all services are running");
    signal(&child, Signal::TERM);
    log.read_to_string(&mut read).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(0), "{read}");
    assert!(read.contains("signal=SIGTERM"), "{read}");
    assert!(read.contains("steps=\"fine "), "{read}");
    let lines = read.lines().filter(|line| line.contains("level="));
    assert!(
        lines.clone().count() > 3 && lines.clone().filter(|line| line.contains("listening")).count() == 1
    );
    for line in lines.filter(|line| !line.contains("signal")) {
        assert!(line.contains("instance="), "{line}");
    }
}

#[test]
fn a_second_signal_ends_at_once() {
    let (mut child, mut read, mut log) = run_until(&["-target=deaf"], "all services are running");
    signal(&child, Signal::INT);
    while !read.contains("signal=SIGINT") {
        assert!(log.read_line(&mut read).unwrap() > 0, "{read}");
    }
    signal(&child, Signal::TERM);
    log.read_to_string(&mut read).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(143), "{read}");
}

#[test]
fn sigquit_tells_the_state_and_goes_on() {
    let (mut child, mut read, mut log) = run_until(&[], "all services are running");
    signal(&child, Signal::QUIT);
    while !read.contains("fine: Running, server: Running") {
        assert!(log.read_line(&mut read).unwrap() > 0, "{read}");
    }
    signal(&child, Signal::TERM);
    log.read_to_string(&mut read).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(0), "{read}");
}

#[test]
fn a_failed_service_is_named_and_exit_1() {
    let (code, _, log) = outcome(&[&["-target=broken", "-log.format=json"][..], &ANYWHERE].concat());
    assert_eq!(code, Some(1), "{log}");
    assert!(log.contains("`broken` failed while running: the spring snapped"), "{log}");
    let line = log.lines().find(|line| line.contains("spring")).unwrap();
    assert!(line.starts_with('{') && line.contains("\"instance\":"), "{line}");
}

#[test]
fn a_taken_port_is_exit_1_with_the_key() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = format!("-server.http-listen-port={}", taken.local_addr().unwrap().port());
    let (code, _, log) = outcome(&[&ANYWHERE[..], &[&port]].concat());
    assert_eq!(code, Some(1), "{log}");
    assert!(log.contains("server.http_listen_port"), "{log}");
}

#[test]
fn a_bad_command_line_is_exit_2_and_a_bad_file_exit_1_with_every_problem() {
    for args in [&["-no.such.flag=1"][..], &["stray"]] {
        let (code, _, complaint) = outcome(args);
        assert_eq!(code, Some(2), "{complaint}");
        assert!(
            complaint.contains(args[0].trim_start_matches('-').split('=').next().unwrap()),
            "{complaint}"
        );
    }
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "server:\n  http_listen_prot: 1\n  no_such_key: 2\n").unwrap();
    let (code, _, complaint) = outcome(&[&format!("-config.file={}", file.path().display())]);
    assert_eq!(code, Some(1), "{complaint}");
    assert!(complaint.contains("http_listen_prot") && complaint.contains("no_such_key"), "{complaint}");
}

#[test]
fn help_version_and_modules_are_printed_with_success() {
    let (code, help, _) = outcome(&["-help"]);
    assert_eq!(code, Some(0));
    assert!(help.contains("Usage of toy:"), "{help}");
    let (code, version, _) = outcome(&["--version"]);
    assert_eq!(code, Some(0));
    assert!(version.contains(&format!("toy, version {}\n", env!("CARGO_PKG_VERSION"))), "{version}");
    let (code, modules, _) = outcome(&["-modules"]);
    assert_eq!(code, Some(0));
    assert!(modules.contains("all\nbroken\ndeaf\nfine\n"), "{modules}");
}

#[test]
fn the_configuration_can_be_printed_at_start() {
    let (_, out, _) = outcome(&[&["-print.config", "-target=broken"][..], &ANYWHERE].concat());
    assert!(out.contains("\nserver:\n") && out.contains("http_listen_port: 0"), "{out}");
}
