//! Real etcd servers for one test: one, or a cluster of several.

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

/// The line that installs etcd on Debian.
pub const INSTALL: &str = "cargo xtask test  (installs it), or: sudo apt-get install -y --no-install-recommends etcd-server etcd-client";
/// How long a cluster may take to elect a leader.
pub const START_TIMEOUT: Duration = Duration::from_secs(60);
/// Starts tried when another program took a port in between.
const START_ATTEMPTS: usize = 3;

/// A running cluster of etcd servers on the loopback address, each with a data directory of its own. Killed, and the
/// directories removed, when dropped.
#[derive(Debug)]
pub struct Etcd {
    // Before the directory, so that the processes are gone when their files go.
    members: Vec<Member>,
    dir: TempDir,
}

#[derive(Debug)]
struct Member {
    process: Process,
    builder: ProcessBuilder,
    addr: SocketAddr,
    /// Where it tells of itself without TLS.
    plain: SocketAddr,
}

impl Etcd {
    /// Starts one server and waits until it is healthy.
    ///
    /// # Errors
    ///
    /// [`Error::NotInstalled`]; [`Error::Ended`] with its output; [`Error::Late`].
    pub async fn start() -> Result<Self, Error> {
        Self::start_with(1, &[]).await
    }

    /// Starts a cluster of `num_members` servers, each with more command line flags, and waits until all are healthy.
    ///
    /// # Errors
    ///
    /// As [`Etcd::start`].
    pub async fn start_with(num_members: usize, flags: &[&str]) -> Result<Self, Error> {
        Self::start_some(num_members, flags, "http").await
    }

    async fn start_some(num_members: usize, flags: &[&str], scheme: &str) -> Result<Self, Error> {
        let program = find_program("etcd", INSTALL)?;
        let mut attempt = 1;
        loop {
            let mut started = Self::launch(&program, num_members, flags, scheme)?;
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

    /// Starts one server that serves only clients with a certificate of the same authority, and waits until it is healthy.
    ///
    /// # Errors
    ///
    /// As [`Etcd::start`].
    pub async fn start_with_tls(certs: &Certs) -> Result<Self, Error> {
        let flag = |flag: &str, name| format!("--{flag}={}", certs.path(name).display());
        let flags = [
            flag("trusted-ca-file", "ca.pem"),
            flag("cert-file", "server.pem"),
            flag("key-file", "server.key"),
            "--client-cert-auth".to_owned(),
        ];
        let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
        Self::start_some(1, &flags, "https").await
    }

    fn launch(program: &Path, num_members: usize, flags: &[&str], scheme: &str) -> Result<Self, Error> {
        let dir = TempDir::with_prefix("ringkit-etcd-")
            .map_err(|cause| Error::io("creating a directory for etcd", cause))?;
        let mut addrs = Vec::new();
        for place in 0..num_members {
            addrs.push((format!("m{place}"), free_port()?, free_port()?, free_port()?));
        }
        let cluster: Vec<String> =
            addrs.iter().map(|(name, _, peer, _)| format!("{name}=http://127.0.0.1:{peer}")).collect();
        let mut members = Vec::new();
        for (name, client, peer, plain) in &addrs {
            let addr = SocketAddr::from((Ipv4Addr::LOCALHOST, *client));
            let plain = SocketAddr::from((Ipv4Addr::LOCALHOST, *plain));
            let builder = ProcessBuilder::new(format!("etcd-{name}"), program)
                .args(["--name", name, "--data-dir"])
                .arg(dir.path().join(name))
                .arg(format!("--listen-client-urls={scheme}://{addr}"))
                .arg(format!("--advertise-client-urls={scheme}://{addr}"))
                .arg(format!("--listen-metrics-urls=http://{plain}"))
                .arg(format!("--listen-peer-urls=http://127.0.0.1:{peer}"))
                .arg(format!("--initial-advertise-peer-urls=http://127.0.0.1:{peer}"))
                .arg(format!("--initial-cluster={}", cluster.join(",")))
                .arg("--logger=zap")
                .args(flags)
                .dir(dir.path());
            members.push(Member { process: builder.start()?, builder, addr, plain });
        }
        Ok(Self { members, dir })
    }

    /// Waits until every member that runs is healthy, which takes a leader.
    ///
    /// # Errors
    ///
    /// [`Error::Ended`] or [`Error::Late`].
    pub async fn wait_ready(&mut self) -> Result<(), Error> {
        for place in 0..self.members.len() {
            self.wait_member(place).await?;
        }
        Ok(())
    }

    async fn wait_member(&mut self, place: usize) -> Result<(), Error> {
        let member = &mut self.members[place];
        let deadline = Instant::now() + START_TIMEOUT;
        loop {
            member.process.check_running()?;
            let health = http::get(member.plain, "/health").await;
            if matches!(health, Ok(answer) if answer.status == 200 && answer.text().contains("true")) {
                return Ok(());
            }
            if Instant::now() >= deadline {
                let detail = format!("\n{}", member.process.last_output());
                return Err(Error::Late { what: "etcd healthy".to_owned(), within: START_TIMEOUT, detail });
            }
            sleep(POLL_PERIOD).await;
        }
    }

    /// Kills the member at `place` with SIGKILL. Its address stays its own for [`Etcd::start_again`].
    ///
    /// # Errors
    ///
    /// [`Error::Process`].
    ///
    /// # Panics
    ///
    /// If there is no such member.
    pub fn kill(&mut self, place: usize) -> Result<(), Error> {
        self.members[place].process.kill()
    }

    /// Starts a member on its data after [`Etcd::kill`], on the same address. With several members, wait with
    /// [`Etcd::wait_ready`] once enough of them run.
    ///
    /// # Errors
    ///
    /// [`Error::Process`]; for a single server also as [`Etcd::start`].
    ///
    /// # Panics
    ///
    /// If there is no such member.
    pub async fn start_again(&mut self, place: usize) -> Result<(), Error> {
        let member = &mut self.members[place];
        member.process = member.builder.start()?;
        if self.members.len() == 1 { self.wait_member(place).await } else { Ok(()) }
    }

    /// Removes the data of a member after [`Etcd::kill`]: a single server starts again empty, as another cluster.
    ///
    /// # Errors
    ///
    /// [`Error::Io`].
    pub fn wipe(&self, place: usize) -> Result<(), Error> {
        std::fs::remove_dir_all(self.dir.path().join(format!("m{place}")))
            .map_err(|cause| Error::io("removing etcd's data", cause))
    }

    /// The place of the member that leads at the moment, if any says so.
    pub async fn leader(&self) -> Option<usize> {
        for (place, member) in self.members.iter().enumerate() {
            let metrics = http::get(member.plain, "/metrics").await;
            if matches!(metrics, Ok(answer) if answer.text().contains("\netcd_server_is_leader 1\n")) {
                return Some(place);
            }
        }
        None
    }

    /// Where the first member listens for clients.
    pub fn addr(&self) -> SocketAddr {
        self.addrs()[0]
    }

    /// Where the members listen for clients.
    pub fn addrs(&self) -> Vec<SocketAddr> {
        self.members.iter().map(|member| member.addr).collect()
    }

    /// The process of a member, for signals.
    ///
    /// # Panics
    ///
    /// If there is no such member.
    pub fn process(&mut self, place: usize) -> &mut Process {
        &mut self.members[place].process
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_cluster_of_three_elects_another_leader_when_its_leader_is_killed() {
        let mut etcd = Etcd::start_with(3, &[]).await.unwrap();
        let first = etcd.leader().await.unwrap();
        etcd.kill(first).unwrap();
        crate::eventually(START_TIMEOUT, || async { etcd.leader().await.is_some_and(|now| now != first) })
            .await
            .unwrap();
        etcd.start_again(first).await.unwrap();
        etcd.wait_ready().await.unwrap();
    }
}
