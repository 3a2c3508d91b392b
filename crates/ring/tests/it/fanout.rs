//! Reads from sets of instances that answer, fail, panic or hang.

mod all;
mod cancelling;
mod laws;
mod minimizing;
mod multi;
mod quorum;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ringkit_ring::{
    FanoutError, Instance, InstanceDesc, ReplicaCall, ReplicationSet, UntilQuorumOptions, do_until_quorum,
};
use ringkit_runtime::CancellationToken;
use tokio::time::{Instant, sleep};

/// Instances `a1 a2 b1 …`, where the letter is the zone.
fn set(ids: &str, max_errors: usize, max_unavailable_zones: usize) -> ReplicationSet {
    let instance = |id: &str| {
        let desc =
            InstanceDesc { addr: format!("{id}:1").into(), zone: id[..1].into(), ..InstanceDesc::default() };
        Arc::new(Instance { id: id.into(), desc: Arc::new(desc) })
    };
    let instances = ids.split_whitespace().map(instance).collect();
    ReplicationSet { instances, max_errors, max_unavailable_zones, ..ReplicationSet::default() }
}

/// What an instance does, and after how many seconds.
#[derive(Clone, Copy, Debug)]
enum Does {
    Answer(u64),
    Fail(u64),
    /// An error that speaks for all.
    Fatal(u64),
    Panic(u64),
    /// When it is called, before there is a future.
    PanicAtOnce,
    Hang,
    /// Answers a second after its token is cancelled, never before.
    AnswerLate,
}

/// Instances and all that is seen of them. Those without a role answer after a second.
#[derive(Clone, Default)]
struct Stage {
    roles: BTreeMap<&'static str, Does>,
    seen: Arc<Mutex<Seen>>,
}

#[derive(Default)]
struct Seen {
    called: Vec<String>,
    tokens: BTreeMap<String, CancellationToken>,
    answered: Vec<String>,
    cleaned: Vec<String>,
    dropped: Vec<String>,
}

fn stage<const N: usize>(roles: [(&'static str, Does); N]) -> Stage {
    Stage { roles: roles.into(), seen: Arc::default() }
}

impl Stage {
    async fn call(self, call: ReplicaCall) -> Result<String, String> {
        let id = call.instance.id.to_string();
        let does = self.roles.get(id.as_str()).copied().unwrap_or(Does::Answer(1));
        let mut watch = DropWatch { stage: &self, id: Some(id.clone()) };
        let outcome = match does {
            Does::Answer(after) => {
                sleep(Duration::from_secs(after)).await;
                Ok(id.clone())
            }
            Does::Fail(after) => {
                sleep(Duration::from_secs(after)).await;
                Err(format!("{id} failed"))
            }
            Does::Fatal(after) => {
                sleep(Duration::from_secs(after)).await;
                Err(format!("{id} is fatal"))
            }
            Does::Panic(after) => {
                sleep(Duration::from_secs(after)).await;
                watch.id = None;
                panic!("{id} panicked")
            }
            Does::AnswerLate => {
                call.cancel.cancelled().await;
                sleep(Duration::from_secs(1)).await;
                Ok(id.clone())
            }
            Does::PanicAtOnce | Does::Hang => std::future::pending().await,
        };
        watch.id = None;
        if outcome.is_ok() {
            self.seen.lock().unwrap().answered.push(id);
        }
        outcome
    }

    fn calls(&self) -> impl Fn(ReplicaCall) -> futures::future::BoxFuture<'static, Result<String, String>> {
        let stage = self.clone();
        move |call| {
            let id = call.instance.id.to_string();
            {
                let mut seen = stage.seen.lock().unwrap();
                seen.called.push(id.clone());
                seen.tokens.insert(id.clone(), call.cancel.clone());
            }
            assert!(
                !matches!(stage.roles.get(id.as_str()), Some(Does::PanicAtOnce)),
                "{id} panicked at once"
            );
            Box::pin(stage.clone().call(call))
        }
    }

    fn cleanup(&self) -> impl Fn(String) + Send + Sync + 'static {
        let seen = Arc::clone(&self.seen);
        move |result| seen.lock().unwrap().cleaned.push(result)
    }

    async fn ask(
        &self,
        set: &ReplicationSet,
        options: &UntilQuorumOptions<String>,
    ) -> Result<Vec<String>, FanoutError<String>> {
        do_until_quorum(set, options, self.calls(), self.cleanup()).await
    }

    fn called(&self) -> Vec<String> {
        sorted(&self.seen.lock().unwrap().called)
    }

    fn cleaned(&self) -> Vec<String> {
        sorted(&self.seen.lock().unwrap().cleaned)
    }

    fn answered(&self) -> Vec<String> {
        sorted(&self.seen.lock().unwrap().answered)
    }

    /// Calls whose futures were dropped before they were done.
    fn dropped(&self) -> Vec<String> {
        sorted(&self.seen.lock().unwrap().dropped)
    }

    /// Those whose tokens are cancelled by now.
    fn cancelled(&self) -> Vec<String> {
        let seen = self.seen.lock().unwrap();
        seen.tokens.iter().filter(|(_, token)| token.is_cancelled()).map(|(id, _)| id.clone()).collect()
    }

    fn token(&self, id: &str) -> CancellationToken {
        self.seen.lock().unwrap().tokens[id].clone()
    }
}

struct DropWatch<'a> {
    stage: &'a Stage,
    id: Option<String>,
}

impl Drop for DropWatch<'_> {
    fn drop(&mut self) {
        if let Some(id) = self.id.take() {
            self.stage.seen.lock().unwrap().dropped.push(id);
        }
    }
}

fn sorted(ids: &[String]) -> Vec<String> {
    let mut ids = ids.to_vec();
    ids.sort();
    ids
}

fn everybody() -> UntilQuorumOptions<String> {
    UntilQuorumOptions {
        is_terminal_error: Arc::new(|error| error.ends_with("fatal")),
        ..UntilQuorumOptions::default()
    }
}

fn minimizing() -> UntilQuorumOptions<String> {
    UntilQuorumOptions { minimize_requests: true, seed: Some(1), ..everybody() }
}

/// What came of it as text: results joined by spaces, or the error.
fn told<E: fmt::Display>(outcome: Result<Vec<String>, E>) -> String {
    outcome.map_or_else(|error| error.to_string(), |results| results.join(" "))
}

/// Runs `work` and tells how many seconds it took as well.
async fn timed<T>(work: impl Future<Output = T>) -> (T, u64) {
    let begun = Instant::now();
    (work.await, begun.elapsed().as_secs())
}
