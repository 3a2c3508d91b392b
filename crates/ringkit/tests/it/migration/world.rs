//! [`World`]: a cluster of processes under load that is watched while something is done to it, and the verdict.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures::future::join_all;
use ringkit_testkit::{Signal, eventually_ok, http};
use serde_json::Value;
use tokio::time::{Instant, sleep};

use super::ctl::{self, Told};
use super::record::{Recorder, view};
use super::site::{Role, Site};
use super::traffic::Traffic;
use crate::stores::{Member, SOON};

/// How long a distributor is out of the rotation before it is told to stop.
const ROTATION: Duration = Duration::from_secs(1);
/// How long a step is tried that cannot be.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long the cluster is left alone first, to compare with.
const QUIET: Duration = Duration::from_secs(3);

/// In which order processes are restarted: in each role one at a time, the next only after the one before is ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Order {
    IngestersFirst,
    DistributorsFirst,
    /// The three roles beside each other.
    Parallel,
}

impl Order {
    pub(super) const ALL: [Self; 3] = [Self::IngestersFirst, Self::DistributorsFirst, Self::Parallel];
}

/// A process.
pub(super) struct Node {
    pub(super) name: String,
    role: Role,
    pub(super) member: Member,
}

impl Node {
    async fn start(site: &Site, name: String, role: Role) -> Self {
        let member = site.launch(&name, role).await;
        Self { name, role, member }
    }

    pub(super) fn url(&self) -> String {
        format!("http://{}", self.member.addr)
    }

    async fn ready(&self, within: Duration) {
        let addr = self.member.addr;
        let ready = || async move {
            match http::get(addr, "/ready").await {
                Ok(answer) if answer.status == 200 => Ok(()),
                Ok(answer) => Err(answer.text()),
                Err(error) => Err(error.to_string()),
            }
        };
        let ready = eventually_ok(within, ready).await;
        ready.unwrap_or_else(|error| panic!("{}: {error}\n{}", self.name, self.member.process.last_output()));
    }

    /// Ends it in order.
    async fn stop(&mut self) {
        let process = &mut self.member.process;
        process.signal(Signal::Terminate).unwrap();
        let status = process.wait(SOON).await;
        let status = status.unwrap_or_else(|error| panic!("{}: {error}", self.name));
        assert!(status.success(), "{}: {status}: {}", self.name, process.last_output());
    }

    /// The sum of a metric over all series whose line has all of `parts`.
    pub(super) async fn metric(&self, name: &str, parts: &[&str]) -> f64 {
        let text = http::get(self.member.addr, "/metrics").await.unwrap().text();
        text.lines()
            .filter(|line| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' '])))
            .filter(|line| parts.iter().all(|part| line.contains(part)))
            .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
            .sum()
    }
}

/// A cluster under load, watched.
pub(super) struct World {
    pub(super) site: Site,
    pub(super) ingesters: Vec<Node>,
    pub(super) distributors: Vec<Node>,
    pub(super) gateways: Vec<Node>,
    recorder: Recorder,
    traffic: Traffic,
    /// Addresses of processes that `ringctl` asks besides.
    guests: Vec<String>,
    restarts: AtomicUsize,
    /// When something was begun to be done to it.
    began: Instant,
    /// How many restarts that took, and how long, once it is done.
    took: Option<(usize, Duration)>,
}

/// What it takes to restart a process.
struct Crew<'a> {
    site: &'a Site,
    recorder: &'a Recorder,
    traffic: &'a Traffic,
    restarts: &'a AtomicUsize,
}

impl Crew<'_> {
    async fn restart(&self, node: &mut Node) {
        if node.role == Role::Distributor {
            self.traffic.leaves(&node.name);
            sleep(ROTATION).await;
        }
        self.recorder.goes(&node.name);
        node.stop().await;
        self.start(node).await;
    }

    /// Starts it anew after its end.
    async fn start(&self, node: &mut Node) {
        node.member = self.site.launch(&node.name, node.role).await;
        node.ready(self.site.timing.ready_within()).await;
        self.recorder.comes(&node.name, node.role, node.member.addr);
        if node.role == Role::Distributor {
            self.traffic.enters(&node.name, node.url());
        }
        self.restarts.fetch_add(1, Ordering::Relaxed);
    }

    async fn roll(&self, nodes: &mut [Node]) {
        for node in nodes {
            self.restart(node).await;
        }
    }
}

impl World {
    /// All processes are ready and see each other, and the load has run for a while.
    pub(super) async fn start(site: Site) -> Self {
        let starts = site.processes().into_iter().map(|(name, role)| Node::start(&site, name, role));
        let nodes = join_all(starts).await;
        let recorder = Recorder::start();
        let (mut ingesters, mut distributors, mut gateways) = (Vec::new(), Vec::new(), Vec::new());
        for node in nodes {
            node.ready(site.timing.ready_within()).await;
            match node.role {
                Role::Ingester => ingesters.push(node),
                Role::Distributor => distributors.push(node),
                Role::StoreGateway => gateways.push(node),
            }
        }
        let traffic = Traffic::start(distributors.iter().map(|node| (node.name.clone(), node.url())));
        let mut world = Self {
            site,
            ingesters,
            distributors,
            gateways,
            recorder,
            traffic,
            guests: Vec::new(),
            restarts: AtomicUsize::new(0),
            began: Instant::now(),
            took: None,
        };
        world.sees_all().await;
        for node in world.nodes() {
            world.recorder.comes(&node.name, node.role, node.member.addr);
        }
        sleep(QUIET).await;
        world.traffic.begins();
        world.began = Instant::now();
        world
    }

    pub(super) fn nodes(&self) -> impl Iterator<Item = &Node> {
        self.ingesters.iter().chain(&self.distributors).chain(&self.gateways)
    }

    /// Every ring that somebody follows holds whom it should, all of them ACTIVE, and nobody else.
    pub(super) async fn sees_all(&self) {
        let complete = || async {
            for viewer in self.nodes() {
                for page in viewer.role.views() {
                    let seen = view(viewer.member.addr, page).await?;
                    let expected = self.nodes().filter(|node| node.role.ring() == *page);
                    let expected: Vec<&str> = expected.map(|node| node.name.as_str()).collect();
                    let is_active = |name: &&str| seen.get(*name).is_some_and(|seen| seen.state == "ACTIVE");
                    if seen.len() != expected.len() || !expected.iter().all(is_active) {
                        return Err(format!("{} on {page}: {seen:?}", viewer.name));
                    }
                }
            }
            Ok(())
        };
        eventually_ok(self.site.timing.settled_within(), complete).await.unwrap();
    }

    /// Restarts every process, with the files as they are now.
    pub(super) async fn roll(&mut self, order: Order) {
        let Self { site, recorder, traffic, restarts, ingesters, distributors, gateways, .. } = self;
        let crew = Crew { site, recorder, traffic, restarts };
        match order {
            Order::IngestersFirst => {
                for nodes in [ingesters, gateways, distributors] {
                    crew.roll(nodes).await;
                }
            }
            Order::DistributorsFirst => {
                for nodes in [distributors, gateways, ingesters] {
                    crew.roll(nodes).await;
                }
            }
            Order::Parallel => {
                tokio::join!(crew.roll(ingesters), crew.roll(gateways), crew.roll(distributors));
            }
        }
    }

    /// Restarts one process.
    pub(super) async fn restart(&mut self, name: &str) {
        self.with(name, async |crew, node| crew.restart(node).await).await;
    }

    /// Kills one process; what it was told to do is not finished.
    pub(super) async fn kill(&mut self, name: &str) {
        self.with(name, async |crew, node| {
            if node.role == Role::Distributor {
                crew.traffic.leaves(&node.name);
            }
            crew.recorder.goes(&node.name);
            node.member.process.kill().unwrap();
        })
        .await;
    }

    /// Starts one process that was killed.
    pub(super) async fn revive(&mut self, name: &str) {
        self.with(name, async |crew, node| crew.start(node).await).await;
    }

    async fn with(&mut self, name: &str, work: impl AsyncFnOnce(&Crew<'_>, &mut Node)) {
        let Self { site, recorder, traffic, restarts, ingesters, distributors, gateways, .. } = self;
        let crew = Crew { site, recorder, traffic, restarts };
        let mut nodes = ingesters.iter_mut().chain(distributors).chain(gateways);
        let node = nodes.find(|node| node.name == name).unwrap();
        work(&crew, node).await;
    }

    /// A process that is none of the cluster's own comes, and is asked by `ringctl` as well.
    pub(super) fn receives(&mut self, url: String) {
        self.guests.push(url);
    }

    /// What was to be done to it is done.
    pub(super) fn done(&mut self) {
        self.took = Some((self.restarts.load(Ordering::Relaxed), self.began.elapsed()));
    }

    /// Runs a step of `ringctl migrate` towards the store `to`.
    pub(super) async fn migrate(&self, step: &str, to: &str) -> Told {
        ctl::run(self.command(step, to, self.site.timing.settled_within())).await
    }

    /// The same, and no longer than this.
    pub(super) async fn migrate_within(&self, step: &str, to: &str, within: Duration) -> Told {
        ctl::run(self.command(step, to, within)).await
    }

    /// Runs a step that must be refused.
    pub(super) async fn refuses(&self, step: &str, to: &str) -> Told {
        self.migrate_within(step, to, PATIENCE).await.expect(1)
    }

    /// The command line of such a step.
    pub(super) fn command(&self, step: &str, to: &str, within: Duration) -> Vec<String> {
        let urls: Vec<String> = self.nodes().map(Node::url).chain(self.guests.iter().cloned()).collect();
        ctl::command(step, to, &urls, &self.site.runtime(), within)
    }

    /// Within a while this holds of every store of two, in every process.
    pub(super) async fn everywhere(&self, holds: impl Fn(&Value) -> Result<(), String>) {
        self.everywhere_but(&[], holds).await;
    }

    /// The same, these processes left out.
    pub(super) async fn everywhere_but(
        &self,
        left_out: &[&str],
        holds: impl Fn(&Value) -> Result<(), String>,
    ) {
        let holds = &holds;
        let all = || async move {
            for node in self.nodes().filter(|node| !left_out.contains(&node.name.as_str())) {
                let reports = ctl::multikv(node.member.addr).await?;
                if reports.is_empty() {
                    return Err(format!("{} has no store of two", node.name));
                }
                for report in &reports {
                    let held = holds(report);
                    held.map_err(|why| format!("{}, {}: {why}", node.name, report["kv_name"]))?;
                }
            }
            Ok(())
        };
        eventually_ok(self.site.timing.settled_within(), all).await.unwrap();
    }

    /// Prints the row of the table, and fails unless no write failed, nothing was lost, and nobody was missed by anybody.
    pub(super) async fn verdict(self, title: &str) {
        let (restarts, took) =
            self.took.unwrap_or_else(|| (self.restarts.load(Ordering::Relaxed), self.began.elapsed()));
        let findings = self.recorder.ends().await;
        let extra_ms = self.traffic.extra_ms();
        let (summary, report) = self.traffic.ends().await;
        let found = findings.total();
        let (missing, wall) = (found.missing.as_secs_f64(), took.as_secs_f64());
        println!(
            "| | restarts | writes | failed | samples lost of | LEFT | flaps | missing-view s | extra ms per write | wall s |\n\
             | {title} | {restarts} | {} | {} | {} of {} | {} | {} | {missing:.1} | {extra_ms:.1} | {wall:.0} |",
            summary.writes,
            summary.failed_writes,
            report.missing + report.wrong,
            report.acked,
            found.left,
            found.flaps,
        );
        assert_eq!(summary.failed_writes, 0, "{title}: {summary}");
        assert!(report.missing + report.wrong == 0 && report.acked > 0, "{title}: {report:?}");
        let is_well = found.missing.is_zero() && found.left + found.flaps + found.unanswered == 0;
        assert!(is_well && findings.looks > 0, "{title}:\n{findings}");
    }
}
