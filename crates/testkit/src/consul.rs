//! A real Consul server for one test.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use tempfile::TempDir;
use tokio::time::{Instant, sleep};

use crate::certs::Certs;
use crate::error::Error;
use crate::http;
use crate::ports::free_port;
use crate::process::{Process, ProcessBuilder, find_program};
use crate::time::POLL_PERIOD;

/// The line that installs Consul where it can be installed.
pub const INSTALL: &str =
    "cargo xtask test  (installs it), or put a `consul` of version 1.8 or later on the PATH";
/// How long Consul may take to elect itself.
pub const START_TIMEOUT: Duration = Duration::from_secs(60);
/// Starts tried when another program took a port in between.
const START_ATTEMPTS: usize = 3;

/// A running Consul server that is alone and its own leader, with a data directory of its own. Killed, and the directory
/// removed, when dropped.
#[derive(Debug)]
pub struct Consul {
    // Before the directory, so that the process is gone when its files go.
    process: Process,
    builder: ProcessBuilder,
    addr: SocketAddr,
    https_addr: Option<SocketAddr>,
    dir: TempDir,
}

impl Consul {
    /// Starts a server that keeps its data on disk and waits until it answers reads and writes.
    ///
    /// # Errors
    ///
    /// [`Error::NotInstalled`]; [`Error::Ended`] with its output; [`Error::Late`].
    pub async fn start() -> Result<Self, Error> {
        Self::start_with("").await
    }

    /// As [`Consul::start_with`], serving HTTPS as well, at [`Consul::https_addr`], to clients with a certificate of the
    /// same authority.
    ///
    /// # Errors
    ///
    /// As [`Consul::start`].
    pub async fn start_with_tls(certs: &Certs, config: &str) -> Result<Self, Error> {
        let file = |name| certs.path(name).display().to_string();
        let config = format!(
            "ca_file = \"{}\"\ncert_file = \"{}\"\nkey_file = \"{}\"\nverify_incoming_https = true\n{config}",
            file("ca.pem"),
            file("server.pem"),
            file("server.key")
        );
        Self::start_some(&config, true).await
    }

    /// As [`Consul::start`], with more configuration: the text of an HCL file, such as `limits { kv_max_value_size = 1000 }`.
    ///
    /// # Errors
    ///
    /// As [`Consul::start`].
    pub async fn start_with(config: &str) -> Result<Self, Error> {
        Self::start_some(config, false).await
    }

    async fn start_some(config: &str, tls: bool) -> Result<Self, Error> {
        let program = find_program("consul", INSTALL)?;
        let mut attempt = 1;
        loop {
            let mut started = Self::launch(&program, config, tls)?;
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

    fn launch(program: &Path, config: &str, tls: bool) -> Result<Self, Error> {
        let dir = TempDir::with_prefix("ringkit-consul-")
            .map_err(|cause| Error::io("creating a directory for Consul", cause))?;
        let addr = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()?));
        let https_addr = if tls { Some(SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()?))) } else { None };
        let https = https_addr.map_or("-1".to_owned(), |addr| addr.port().to_string());
        let (server, serf_lan, serf_wan) = (free_port()?, free_port()?, free_port()?);
        // Raft as fast as it goes, because a test waits for the election; sync as in production.
        let text = format!(
            "bind_addr = \"127.0.0.1\"\nclient_addr = \"127.0.0.1\"\nserver = true\nbootstrap_expect = 1\n\
             disable_update_check = true\nperformance {{ raft_multiplier = 1 }}\nconnect {{ enabled = false }}\n\
             ports {{ http = {http}, https = {https}, server = {server}, serf_lan = {serf_lan}, serf_wan = {serf_wan}, dns = -1, grpc = -1 }}\n\
             {config}\n",
            http = addr.port(),
        );
        let file = dir.path().join("consul.hcl");
        std::fs::write(&file, text).map_err(|cause| Error::io("writing Consul's configuration", cause))?;
        let builder = ProcessBuilder::new("consul", program)
            .arg("agent")
            .arg(format!("-config-file={}", file.display()))
            .arg(format!("-data-dir={}", dir.path().join("data").display()))
            .arg("-log-level=warn")
            .dir(dir.path());
        Ok(Self { process: builder.start()?, builder, addr, https_addr, dir })
    }

    /// Waits until the server has a leader, which is itself, and answers reads.
    ///
    /// # Errors
    ///
    /// [`Error::Ended`] or [`Error::Late`].
    pub async fn wait_ready(&mut self) -> Result<(), Error> {
        let deadline = Instant::now() + START_TIMEOUT;
        loop {
            self.process.check_running()?;
            // A consistent read takes a leader; 403 is an answer too: one with access control.
            let read = http::get(self.addr, "/v1/kv/?keys&separator=/&consistent").await;
            if matches!(read, Ok(answer) if matches!(answer.status, 200 | 403 | 404)) {
                return Ok(());
            }
            if Instant::now() >= deadline {
                let detail = format!("\n{}", self.process.last_output());
                return Err(Error::Late { what: "Consul ready".to_owned(), within: START_TIMEOUT, detail });
            }
            sleep(POLL_PERIOD).await;
        }
    }

    /// Kills it with SIGKILL. Its address stays its own for [`Consul::start_again`].
    ///
    /// # Errors
    ///
    /// [`Error::Process`].
    pub fn kill(&mut self) -> Result<(), Error> {
        self.process.kill()
    }

    /// Starts it on its data after [`Consul::kill`], on the same address, and waits until it is ready.
    ///
    /// # Errors
    ///
    /// As [`Consul::start`].
    pub async fn start_again(&mut self) -> Result<(), Error> {
        self.process = self.builder.start()?;
        self.wait_ready().await
    }

    /// Removes its data after [`Consul::kill`]: it starts again empty.
    ///
    /// # Errors
    ///
    /// [`Error::Io`].
    pub fn wipe(&self) -> Result<(), Error> {
        std::fs::remove_dir_all(self.dir.path().join("data"))
            .map_err(|cause| Error::io("removing Consul's data", cause))
    }

    /// Where it listens for HTTP.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Where it listens for HTTPS, if it does.
    pub fn https_addr(&self) -> Option<SocketAddr> {
        self.https_addr
    }

    /// Its process, for signals.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn put(consul: &Consul, value: &[u8]) {
        let path = "/v1/kv/k";
        let answer = http::request(consul.addr(), "PUT", path, &[], value).await.unwrap();
        assert_eq!((answer.status, answer.text().trim()), (200, "true"));
    }

    #[tokio::test]
    async fn consul_keeps_its_data_over_a_kill_and_loses_it_when_wiped() {
        let mut consul = Consul::start().await.unwrap();
        put(&consul, b"v").await;
        consul.kill().unwrap();
        consul.start_again().await.unwrap();
        assert_eq!(http::get(consul.addr(), "/v1/kv/k?raw").await.unwrap().text(), "v");
        consul.kill().unwrap();
        consul.wipe().unwrap();
        consul.start_again().await.unwrap();
        assert_eq!(http::get(consul.addr(), "/v1/kv/k?raw").await.unwrap().status, 404);
    }
}
