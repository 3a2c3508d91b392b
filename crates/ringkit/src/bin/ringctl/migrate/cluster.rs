//! Who is there to be asked: from one process on, through the rings and the gossip that it sees, to all others.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use futures::future::join_all;
use ringkit_loadgen::{Error, http};
use serde::Deserialize;
use serde_json::Value;

use super::page::{Page, Process, Shard, Silent};
use crate::args::{BadFlag, Parsed};
use crate::gossip::{Gossip, Member};

const TIMEOUT: Duration = Duration::from_secs(5);

/// The rings that have a page, which are called as the role that is in them.
pub(super) const RINGS: [&str; 3] = ["ingester", "store-gateway", "distributor"];

/// Where to begin, and how to go on.
#[derive(Debug, Default)]
pub(super) struct Targets {
    /// Addresses without a path of a page, and without a slash at the end.
    given: Vec<String>,
    http_port: Option<u16>,
}

/// All processes that are known, each once.
#[derive(Clone, Debug, Default)]
pub(super) struct Cluster {
    pub(super) processes: Vec<Process>,
    /// Those that could not be asked, or not be found.
    pub(super) silent: Vec<Silent>,
}

impl Targets {
    pub(super) fn of(args: &Parsed) -> Result<Self, BadFlag> {
        let mut given = Vec::new();
        for flag in ["url", "member"] {
            for address in args.all(flag) {
                let url = http::endpoint("url", &address, "/").map_err(|error| match error {
                    Error::Option { problem, .. } => BadFlag::new(flag, problem),
                    other => BadFlag::new(flag, other.to_string()),
                })?;
                given.push(url.as_str().trim_end_matches('/').to_owned());
            }
        }
        if !args.has("url") {
            return Err(BadFlag::new("url", "is needed: any process of the cluster"));
        }
        let http_port = args.has("http-port").then(|| args.number("http-port", 0)).transpose()?;
        Ok(Self { given, http_port })
    }

    /// Asks all that can be found.
    pub(super) async fn discover(&self) -> Cluster {
        let mut found = Found::default();
        let mut next = self.given.clone();
        while !next.is_empty() {
            found.known.extend(next.iter().cloned());
            let answers = join_all(next.iter().map(|url| ask(url))).await;
            for (url, answer) in next.into_iter().zip(answers) {
                match answer {
                    Ok(process) => found.add(process),
                    Err(problem) => {
                        found.failed.insert(url, problem);
                    }
                }
            }
            let others = found.unmet().into_iter().filter_map(|unmet| unmet.url(self.http_port));
            let others: BTreeSet<String> = others.filter(|url| !found.known.contains(url)).collect();
            next = others.into_iter().collect();
        }
        found.finish(self)
    }
}

/// What is known while processes are being looked for.
#[derive(Default)]
struct Found {
    processes: Vec<Process>,
    /// Addresses that were asked.
    known: BTreeSet<String>,
    /// Those of them that did not answer, and why.
    failed: BTreeMap<String, String>,
}

/// Somebody that a process sees and that none of those that answered is.
struct Unmet {
    who: String,
    /// Where others reach it, not by HTTP.
    address: String,
    /// Who sees it.
    seen_by: String,
    is_healthy: bool,
}

impl Unmet {
    /// Where it may be asked: at its own host, else as the process that sees it.
    fn url(&self, http_port: Option<u16>) -> Option<String> {
        let (host, _) = self.address.rsplit_once(':')?;
        let mut url = http::endpoint("url", &self.seen_by, "/").ok()?;
        url.set_host(Some(host)).ok()?;
        if http_port.is_some() {
            url.set_port(http_port).ok()?;
        }
        Some(url.as_str().trim_end_matches('/').to_owned())
    }
}

impl Found {
    /// Adds a process, unless it is one that answered at another address.
    fn add(&mut self, process: Process) {
        if self.processes.iter().all(|known| known.identity() != process.identity()) {
            self.processes.push(process);
        }
    }

    /// Who is seen, and has not answered itself.
    fn unmet(&self) -> Vec<Unmet> {
        let mut unmet: BTreeMap<String, Unmet> = BTreeMap::new();
        for process in &self.processes {
            let seen_by = &process.url;
            for (ring, shards) in &process.views {
                let is_unmet = |shard: &&Shard| shard.state != "LEFT" && !self.is_instance(ring, shard);
                for shard in shards.iter().filter(is_unmet) {
                    let who = format!("{ring} `{}`", shard.id);
                    unmet.entry(who.clone()).or_insert_with(|| Unmet {
                        who,
                        address: shard.address.clone(),
                        seen_by: seen_by.clone(),
                        is_healthy: shard.healthy,
                    });
                }
            }
        }
        let hosts: BTreeSet<String> = unmet.values().filter_map(|unmet| host(&unmet.address)).collect();
        for process in &self.processes {
            let members = process.gossip.iter().flat_map(|gossip| &gossip.members);
            let alive = members.filter(|member| member.state == "alive" && !self.is_member(member));
            for member in alive {
                // It probably is the one that was seen in a ring.
                if host(&member.addr).is_some_and(|host| hosts.contains(&host)) {
                    continue;
                }
                let who = format!("gossip member `{}`", member.name);
                unmet.entry(who.clone()).or_insert_with(|| Unmet {
                    who,
                    address: member.addr.clone(),
                    seen_by: process.url.clone(),
                    is_healthy: true,
                });
            }
        }
        unmet.into_values().collect()
    }

    fn is_instance(&self, ring: &str, shard: &Shard) -> bool {
        let mut instances = self.processes.iter().flat_map(|process| &process.page.instances);
        instances.any(|instance| instance.target == ring && instance.name == shard.id)
    }

    fn is_member(&self, member: &Member) -> bool {
        let mut gossip = self.processes.iter().filter_map(|process| process.gossip.as_ref());
        gossip.any(|gossip| gossip.is(member))
    }

    fn finish(self, targets: &Targets) -> Cluster {
        let mut silent = Vec::new();
        for url in &targets.given {
            if let Some(problem) = self.failed.get(url) {
                silent.push(Silent { who: url.clone(), problem: problem.clone() });
            }
        }
        for unmet in self.unmet() {
            let asked = unmet.url(targets.http_port).and_then(|url| self.failed.get_key_value(&url));
            let problem = match asked {
                Some((url, problem)) => format!("{url}: {problem}"),
                None => "nobody who answered is it; say with --member where it serves HTTP".to_owned(),
            };
            let hint = if unmet.is_healthy { "" } else { " (unhealthy: bring it back, or forget it)" };
            silent.push(Silent { who: format!("{} at {}{hint}", unmet.who, unmet.address), problem });
        }
        let mut processes = self.processes;
        name(&mut processes);
        Cluster { processes, silent }
    }
}

fn host(address: &str) -> Option<String> {
    address.rsplit_once(':').map(|(host, _)| host.to_owned())
}

/// Calls each process by what it is, or else by where it is.
fn name(processes: &mut [Process]) {
    for process in &mut *processes {
        let instances = process.page.instances.iter().map(|instance| instance.name.clone());
        let mut names: Vec<String> = instances.filter(|name| !name.is_empty()).collect();
        names.dedup();
        process.name = match (&process.gossip, names.is_empty()) {
            (Some(gossip), true) if !gossip.name.is_empty() => gossip.name.clone(),
            (_, true) => process.url.clone(),
            (_, false) => names.join("+"),
        };
    }
    // Several roles on one machine may call themselves the same.
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    for process in &*processes {
        *counts.entry(process.name.clone()).or_default() += 1;
    }
    let is_taken = |process: &&mut Process| counts.get(&process.name).is_some_and(|count| *count > 1);
    for process in processes.iter_mut().filter(is_taken) {
        process.name = format!("{} ({})", process.name, process.url);
    }
    processes.sort_by(|a, b| a.name.cmp(&b.name));
}

/// Asks the process at `url` how its stores stand.
async fn ask_page(url: &str) -> Result<(Page, Value), String> {
    let raw = match get(url, "/multikv").await {
        Ok(raw) => raw,
        Err(Unanswered::Missing) => return Err("it has no page /multikv, and so cannot migrate".to_owned()),
        Err(Unanswered::Other(problem)) => return Err(problem),
    };
    let page = Page::deserialize(&raw);
    let page = page.map_err(|cause| format!("its page /multikv cannot be read: {cause}"))?;
    Ok((page, raw))
}

/// Asks the process at `url` who it is and what it sees.
async fn ask(url: &str) -> Result<Process, String> {
    let (page, raw) = ask_page(url).await?;
    let views = join_all(RINGS.map(|ring| async move { (ring, view(url, ring).await) }));
    let (gossip, views) = tokio::join!(gossip(url), views);
    let mut process = Process { url: url.to_owned(), page, raw, gossip: gossip?, ..Process::default() };
    for (ring, view) in views {
        if let Some(view) = view? {
            process.views.insert(ring, view);
        }
    }
    Ok(process)
}

/// The gossip of the process at `url`; `None` if it does not.
async fn gossip(url: &str) -> Result<Option<Gossip>, String> {
    match get(url, "/memberlist").await {
        Ok(page) => {
            let gossip = Gossip::of(&page);
            gossip.map(Some).map_err(|problem| format!("its page /memberlist {problem}"))
        }
        Err(Unanswered::Missing) => Ok(None),
        Err(Unanswered::Other(problem)) if problem.contains("doesn't use memberlist") => Ok(None),
        Err(Unanswered::Other(problem)) => Err(problem),
    }
}

/// A ring as the process at `url` sees it; `None` if it does not.
async fn view(url: &str, ring: &str) -> Result<Option<Vec<Shard>>, String> {
    #[derive(Deserialize)]
    struct View {
        /// `null` for an empty ring.
        shards: Option<Vec<Shard>>,
    }
    match get(url, &format!("/{ring}/ring?tokens=false")).await {
        Ok(page) => match View::deserialize(&page) {
            Ok(view) => Ok(Some(view.shards.unwrap_or_default())),
            Err(cause) => Err(format!("its page of the {ring} ring cannot be read: {cause}")),
        },
        Err(Unanswered::Missing) => Ok(None),
        Err(Unanswered::Other(problem)) => Err(problem),
    }
}

/// Why there is no JSON.
pub(super) enum Unanswered {
    /// The process has no such page.
    Missing,
    Other(String),
}

/// A page of the process at `url` as JSON.
pub(super) async fn get(url: &str, path: &str) -> Result<Value, Unanswered> {
    let answer = http::get_json(&format!("{url}{path}"), path, TIMEOUT).await;
    answer.map_err(|error| match error {
        Error::Http { problem, .. } if problem.starts_with("status 404") => Unanswered::Missing,
        Error::Http { problem, .. } => Unanswered::Other(problem),
        other => Unanswered::Other(other.to_string()),
    })
}

impl Cluster {
    /// Asks the same processes again, all that there is. Who does not answer any more is silent.
    pub(super) async fn again(&self) -> Self {
        let asked = self.processes.iter().map(|known| ask(&known.url));
        self.with(join_all(asked).await)
    }

    /// The same, and only how their stores stand: what they see beside is as it was.
    pub(super) async fn stores_again(&self) -> Self {
        let asked = self.processes.iter().map(|known| async move {
            let (page, raw) = ask_page(&known.url).await?;
            Ok::<_, String>(Process { page, raw, ..known.clone() })
        });
        self.with(join_all(asked).await)
    }

    /// The same processes, as they answered.
    fn with(&self, answers: Vec<Result<Process, String>>) -> Self {
        let mut cluster = Self { processes: Vec::new(), silent: self.silent.clone() };
        for (known, answer) in self.processes.iter().zip(answers) {
            match answer {
                Ok(process) => cluster.processes.push(Process { name: known.name.clone(), ..process }),
                Err(problem) => {
                    let who = format!("{} ({})", known.name, known.url);
                    cluster.silent.push(Silent { who, problem });
                }
            }
        }
        cluster
    }
}

#[cfg(test)]
pub(super) mod tests;
