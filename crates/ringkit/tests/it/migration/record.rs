//! [`Recorder`]: asks every process for the rings that it follows, again and again, and tells afterwards who was not seen though
//! alive.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures::future::join_all;
use parking_lot::Mutex;
use ringkit_runtime::CancellationToken;
use ringkit_testkit::http;
use serde_json::Value;
use tokio::task::JoinHandle;
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::site::Role;

const PERIOD: Duration = Duration::from_millis(200);
/// Within what others must have heard of an instance that says it is ready.
const SEEN_WITHIN: Duration = Duration::from_secs(2);

/// An instance as a process sees it.
#[derive(Clone, Debug)]
pub(super) struct Seen {
    /// As it counts.
    pub(super) state: String,
    /// As it is stored.
    stored: String,
}

/// A ring as the process at `addr` sees it, by the id of the instances.
pub(super) async fn view(addr: SocketAddr, page: &str) -> Result<BTreeMap<String, Seen>, String> {
    let (path, accept) = (format!("{page}?tokens=false"), [("accept", "application/json")]);
    let answer = http::request(addr, "GET", &path, &accept, b"").await.map_err(|error| error.to_string())?;
    if answer.status != 200 {
        return Err(format!("{page}: {} {}", answer.status, answer.text()));
    }
    let page: Value = serde_json::from_slice(&answer.body).map_err(|error| error.to_string())?;
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let shards = page["shards"].as_array().cloned().unwrap_or_default();
    let seen = |shard: &Value| Seen { state: text(&shard["state"]), stored: text(&shard["stored_state"]) };
    Ok(shards.iter().map(|shard| (text(&shard["id"]), seen(shard))).collect())
}

/// A process that is ready, and is not told to stop.
#[derive(Clone, Copy, Debug)]
struct Alive {
    /// Another one after each restart.
    life: u64,
    role: Role,
    addr: SocketAddr,
    since: Instant,
}

/// What one process did not see.
#[derive(Clone, Debug, Default)]
pub(super) struct Found {
    /// How long a living instance was missing, or not ACTIVE; of several, added up.
    pub(super) missing: Duration,
    /// How often that began after the instance had been seen.
    pub(super) flaps: u64,
    /// How often a living instance was seen as LEFT.
    pub(super) left: u64,
    /// How often it did not answer.
    pub(super) unanswered: u64,
    /// What came first.
    first: Option<String>,
}

/// What all of them did not see.
#[derive(Clone, Debug, Default)]
pub(super) struct Findings {
    by_process: BTreeMap<String, Found>,
    /// How often was asked.
    pub(super) looks: u64,
}

impl Findings {
    /// All processes together.
    pub(super) fn total(&self) -> Found {
        let mut total = Found::default();
        for found in self.by_process.values() {
            total.missing += found.missing;
            total.flaps += found.flaps;
            total.left += found.left;
            total.unanswered += found.unanswered;
        }
        total
    }
}

/// By process, those with something to tell.
impl fmt::Display for Findings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, found) in &self.by_process {
            let Found { missing, flaps, left, unanswered, first: Some(first) } = found else { continue };
            writeln!(
                f,
                "{name}: missing {:.1} s, {flaps} flaps, {left} LEFT, {unanswered} unanswered, first: {first}",
                missing.as_secs_f64()
            )?;
        }
        Ok(())
    }
}

/// How one process saw an instance.
#[derive(Clone, Copy)]
struct Sight {
    /// Of both.
    lives: (u64, u64),
    is_there: bool,
    is_left: bool,
}

/// What is remembered between two looks.
#[derive(Default)]
struct Memory {
    findings: Findings,
    /// By viewer, page and instance.
    last: BTreeMap<(String, &'static str, String), Sight>,
}

struct Shared {
    roster: Mutex<BTreeMap<String, Alive>>,
    memory: Mutex<Memory>,
    began: Instant,
}

/// Looks until it is ended.
pub(super) struct Recorder {
    shared: Arc<Shared>,
    lives: AtomicU64,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Recorder {
    pub(super) fn start() -> Self {
        let shared =
            Arc::new(Shared { roster: Mutex::default(), memory: Mutex::default(), began: Instant::now() });
        let stop = CancellationToken::new();
        let task = tokio::spawn(run(Arc::clone(&shared), stop.clone()));
        Self { shared, lives: AtomicU64::new(0), stop, task }
    }

    /// A process is ready.
    pub(super) fn comes(&self, name: &str, role: Role, addr: SocketAddr) {
        let life = self.lives.fetch_add(1, Ordering::Relaxed);
        let alive = Alive { life, role, addr, since: Instant::now() };
        self.shared.roster.lock().insert(name.to_owned(), alive);
    }

    /// A process is about to be told to stop, or killed.
    pub(super) fn goes(&self, name: &str) {
        self.shared.roster.lock().remove(name);
    }

    /// What was found up to now.
    pub(super) async fn ends(self) -> Findings {
        self.stop.cancel();
        self.task.await.unwrap();
        self.shared.memory.lock().findings.clone()
    }
}

async fn run(shared: Arc<Shared>, stop: CancellationToken) {
    let mut ticks = interval(PERIOD);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut last = Instant::now();
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = ticks.tick() => (),
        }
        let now = Instant::now();
        shared.look(now.duration_since(last)).await;
        last = now;
    }
}

type Answer = (String, Alive, &'static str, Result<BTreeMap<String, Seen>, String>);

async fn ask(name: String, here: Alive, page: &'static str) -> Answer {
    let view = view(here.addr, page).await;
    (name, here, page, view)
}

impl Shared {
    /// Asks everybody. What is found stands for this `step` of time.
    async fn look(&self, step: Duration) {
        let before = self.roster.lock().clone();
        let asked_at = Instant::now();
        let asks = before.iter().flat_map(|(name, here)| {
            here.role.views().iter().copied().map(move |page| ask(name.clone(), *here, page))
        });
        let asks: Vec<_> = asks.collect();
        let answers = join_all(asks).await;
        let after = self.roster.lock().clone();
        // Whoever came or went meanwhile is left out.
        let stayed = |name: &str, alive: &Alive| after.get(name).is_some_and(|now| now.life == alive.life);
        let mut memory = self.memory.lock();
        let Memory { findings, last } = &mut *memory;
        findings.looks += 1;
        for (viewer, here, page, answer) in answers {
            if !stayed(&viewer, &here) {
                continue;
            }
            let found = findings.by_process.entry(viewer.clone()).or_default();
            let at = asked_at.duration_since(self.began).as_secs_f64();
            let view = match answer {
                Ok(view) => view,
                Err(error) => {
                    found.unanswered += 1;
                    found.first.get_or_insert_with(|| format!("after {at:.1} s: {error}"));
                    continue;
                }
            };
            for (id, there) in before.iter().filter(|(_, there)| there.role.ring() == page) {
                let is_known = asked_at.duration_since(there.since) >= SEEN_WITHIN;
                if !is_known || !stayed(id, there) {
                    continue;
                }
                let seen = view.get(id);
                let is_there = seen.is_some_and(|seen| seen.state == "ACTIVE");
                let is_left = seen.is_some_and(|seen| seen.stored == "LEFT");
                let now = Sight { lives: (here.life, there.life), is_there, is_left };
                let was = last.insert((viewer.clone(), page, id.clone()), now);
                let was = was.filter(|was| was.lives == now.lives);
                found.flaps += u64::from(!is_there && was.is_some_and(|was| was.is_there));
                found.left += u64::from(is_left && was.is_none_or(|was| !was.is_left));
                if !is_there {
                    found.missing += step;
                    let state = seen.map(|seen| seen.state.as_str());
                    found.first.get_or_insert_with(|| {
                        format!("after {at:.1} s {page}: {id} is {}", state.unwrap_or("not there"))
                    });
                }
            }
        }
    }
}
