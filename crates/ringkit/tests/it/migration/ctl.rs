//! `ringctl migrate` as an operator runs it, and what a process tells of its stores of two.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use ringkit_testkit::http;
use serde_json::Value;

/// What a command said.
#[derive(Debug)]
pub(super) struct Told {
    pub(super) code: i32,
    /// Both streams.
    pub(super) text: String,
}

impl Told {
    /// It must have ended so.
    #[track_caller]
    pub(super) fn expect(self, code: i32) -> Self {
        assert_eq!(self.code, code, "{}", self.text);
        self
    }
}

/// The command line of a step towards the store `to`, for processes of which the first one is asked whom there is.
pub(super) fn command(
    step: &str,
    to: &str,
    urls: &[String],
    runtime_config: &Path,
    within: Duration,
) -> Vec<String> {
    let mut line = vec!["migrate".to_owned(), step.to_owned()];
    for (place, url) in urls.iter().enumerate() {
        let flag = if place == 0 { "--url" } else { "--member" };
        line.extend([flag.to_owned(), url.clone()]);
    }
    let file = runtime_config.display().to_string();
    let timeout = format!("{}s", within.as_secs());
    line.extend(["--to", to, "--runtime-config", &file, "--timeout", &timeout].map(str::to_owned));
    line
}

/// Runs `ringctl`.
pub(super) async fn run(line: Vec<String>) -> Told {
    let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_ringctl"));
    let output = command.args(&line).kill_on_drop(true).output().await.unwrap();
    let text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    Told { code: output.status.code().unwrap_or(-1), text: format!("ringctl {}\n{text}", line.join(" ")) }
}

/// What the process at `addr` tells of its stores of two, one after the other.
pub(super) async fn multikv(addr: SocketAddr) -> Result<Vec<Value>, String> {
    let accept = [("accept", "application/json")];
    let answer = http::request(addr, "GET", "/multikv", &accept, b"").await;
    let answer = answer.map_err(|error| error.to_string())?;
    let page: Value = serde_json::from_slice(&answer.body)
        .map_err(|error| format!("{error}: {} {}", answer.status, answer.text()))?;
    Ok(page["stores"].as_array().cloned().unwrap_or_default())
}

/// The store that decides.
pub(super) fn primary_is(report: &Value, store: &str) -> Result<(), String> {
    let primary = &report["primary"];
    if primary == store {
        Ok(())
    } else {
        Err(format!("{primary} is the primary, not {store}: {}", report["switch"]))
    }
}

/// Whether it mirrors.
pub(super) fn mirror_is(report: &Value, on: bool) -> Result<(), String> {
    let mirror = &report["mirror"];
    if *mirror == on { Ok(()) } else { Err(format!("mirroring is {mirror}: {}", report["switch"])) }
}

/// The other store holds all that the primary holds.
pub(super) fn gate_is_open(report: &Value) -> Result<(), String> {
    let switch = &report["switch"];
    if switch["gate_open"] == true {
        Ok(())
    } else {
        Err(format!("the gate is shut: {}", switch["gate_reasons"]))
    }
}

/// A store answers and lacks nothing.
pub(super) fn is_complete(report: &Value, store: &str) -> Result<(), String> {
    let all = |list: &Value| list.as_array().cloned().unwrap_or_default();
    let (stores, keys) = (all(&report["stores"]), all(&report["keys"]));
    let is_up = stores.iter().any(|found| found["name"] == store && found["up"] == true);
    let lacks_nothing = |key: &Value| {
        let stores = all(&key["stores"]);
        let held = stores.iter().find(|found| found["name"] == store);
        key["compared"] == true && held.is_some_and(|held| held["missing"]["num"] == 0)
    };
    if is_up && !keys.is_empty() && keys.iter().all(lacks_nothing) {
        Ok(())
    } else {
        Err(format!("{store} is not complete: {}, {}", report["stores"], report["keys"]))
    }
}
