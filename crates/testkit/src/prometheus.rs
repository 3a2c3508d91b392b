//! A real Prometheus for one test.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use tempfile::TempDir;
use tokio::time::{Instant, sleep};

use crate::error::Error;
use crate::http;
use crate::ports::free_port;
use crate::process::{Process, ProcessBuilder, Signal, find_program};
use crate::time::POLL_PERIOD;

/// The line that installs Prometheus and promtool on Debian.
pub const INSTALL: &str =
    "cargo xtask test  (installs it), or: sudo apt-get install -y --no-install-recommends prometheus";
/// How long Prometheus may take to become ready.
pub const START_TIMEOUT: Duration = Duration::from_secs(60);
/// Starts tried when another program took the port in between.
const START_ATTEMPTS: usize = 3;

/// A running Prometheus with a data directory of its own; killed, and the directory removed, when dropped.
#[derive(Debug)]
pub struct Prometheus {
    // Before the directory, so that the process is gone when its files go.
    process: Process,
    builder: ProcessBuilder,
    addr: SocketAddr,
    dir: TempDir,
}

impl Prometheus {
    /// Starts Prometheus with the text of a configuration file and waits until it is ready.
    ///
    /// # Errors
    ///
    /// [`Error::NotInstalled`]; [`Error::Ended`] with its output if it refuses the configuration; [`Error::Late`].
    pub async fn start(config: &str) -> Result<Self, Error> {
        Self::start_with(config, &[]).await
    }

    /// As [`Prometheus::start`], with more command line flags.
    ///
    /// # Errors
    ///
    /// As [`Prometheus::start`].
    pub async fn start_with(config: &str, flags: &[&str]) -> Result<Self, Error> {
        let program = find_program("prometheus", INSTALL)?;
        let mut attempt = 1;
        loop {
            let mut started = Self::launch(&program, config, flags)?;
            match started.wait_ready().await {
                Ok(()) => return Ok(started),
                Err(Error::Ended { output, .. })
                    if attempt < START_ATTEMPTS && output.contains("address already in use") =>
                {
                    attempt += 1;
                }
                Err(error) => return Err(error),
            }
        }
    }

    fn launch(program: &Path, config: &str, flags: &[&str]) -> Result<Self, Error> {
        let dir = TempDir::with_prefix("ringkit-prometheus-")
            .map_err(|cause| Error::io("creating a directory for Prometheus", cause))?;
        let config_file = dir.path().join("prometheus.yaml");
        std::fs::write(&config_file, config)
            .map_err(|cause| Error::io("writing Prometheus' configuration", cause))?;
        let addr = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()?));
        let builder = ProcessBuilder::new("prometheus", program)
            .arg(format!("--config.file={}", config_file.display()))
            .arg(format!("--storage.tsdb.path={}", dir.path().join("data").display()))
            .arg(format!("--web.listen-address={addr}"))
            .arg("--web.enable-lifecycle")
            .args(flags)
            .dir(dir.path());
        Ok(Self { process: builder.start()?, builder, addr, dir })
    }

    async fn wait_ready(&mut self) -> Result<(), Error> {
        let deadline = Instant::now() + START_TIMEOUT;
        loop {
            self.process.check_running()?;
            if matches!(http::get(self.addr, "/-/ready").await, Ok(answer) if answer.status == 200) {
                return Ok(());
            }
            if Instant::now() >= deadline {
                let detail = format!("\n{}", self.process.last_output());
                return Err(Error::Late {
                    what: "Prometheus ready".to_owned(),
                    within: START_TIMEOUT,
                    detail,
                });
            }
            sleep(POLL_PERIOD).await;
        }
    }

    /// Kills it with SIGKILL and starts it again on its data.
    ///
    /// # Errors
    ///
    /// As [`Prometheus::start`].
    pub async fn restart(&mut self) -> Result<(), Error> {
        self.process.kill()?;
        self.process = self.builder.start()?;
        self.wait_ready().await
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Its address as text, without a slash at the end.
    pub fn url(&self) -> String {
        format!("http://{}", self.addr)
    }

    /// Its directory: `data` holds the blocks.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Its process.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    /// Evaluates a PromQL expression now and returns the JSON answer, whatever its status. Look for `warnings`: a failed
    /// remote read is one, beside an empty result.
    ///
    /// # Errors
    ///
    /// [`Error::Http`] without a complete answer.
    pub async fn query(&self, expression: &str) -> Result<http::Answer, Error> {
        http::get(self.addr, &format!("/api/v1/query?query={}", http::escape(expression))).await
    }

    /// As [`Prometheus::query`] at a moment, in seconds since 1970.
    ///
    /// # Errors
    ///
    /// [`Error::Http`] without a complete answer.
    pub async fn query_at(&self, expression: &str, seconds: f64) -> Result<http::Answer, Error> {
        http::get(self.addr, &format!("/api/v1/query?query={}&time={seconds}", http::escape(expression)))
            .await
    }

    /// Makes it read its configuration file again after writing `config` to it.
    ///
    /// # Errors
    ///
    /// [`Error::Http`] if it refuses; [`Error::Io`].
    pub async fn reload(&mut self, config: &str) -> Result<(), Error> {
        std::fs::write(self.dir.path().join("prometheus.yaml"), config)
            .map_err(|cause| Error::io("writing Prometheus' configuration", cause))?;
        let answer = http::post(self.addr, "/-/reload", &[], b"").await?;
        if answer.status != 200 {
            let url = format!("{}/-/reload", self.url());
            return Err(Error::Http { method: "POST", url, problem: answer.text() });
        }
        Ok(())
    }

    /// Stops it with SIGTERM, so that it writes out its data, and waits for the end.
    ///
    /// # Errors
    ///
    /// [`Error::Late`] if it is still there after `within`.
    pub async fn stop(&mut self, within: Duration) -> Result<(), Error> {
        self.process.signal(Signal::Terminate)?;
        self.process.wait(within).await.map(drop)
    }
}

/// Finds `promtool`, which comes with Prometheus.
///
/// # Errors
///
/// [`Error::NotInstalled`].
pub fn promtool() -> Result<PathBuf, Error> {
    find_program("promtool", INSTALL)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn prometheus_starts_answers_and_survives_a_restart() {
        let mut prometheus = Prometheus::start("global: {scrape_interval: 1h}\n").await.unwrap();
        let answer = prometheus.query("vector(1) + 1").await.unwrap();
        assert_eq!(answer.status, 200);
        assert!(answer.text().contains("\"2\""), "{}", answer.text());
        prometheus.restart().await.unwrap();
        assert_eq!(prometheus.query("1").await.unwrap().status, 200);
        prometheus.stop(Duration::from_secs(30)).await.unwrap();
    }

    #[tokio::test]
    async fn a_bad_configuration_is_reported_with_what_prometheus_said() {
        let error = Prometheus::start("no_such_key: 1\n").await.unwrap_err().to_string();
        assert!(error.contains("no_such_key"), "{error}");
    }
}
