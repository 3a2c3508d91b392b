//! Looking for the cluster: where its seeds are, and what is said when none of them lets the member in.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::sleep;

use super::State;
use super::seeds::{Resolved, Resolver, Seed};
use super::shared::{Incoming, Shared};
use crate::api::{Phase, Status};

/// The first pause between looking seeds up, while the member is alone. It doubles.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// How many addresses are remembered that something went wrong with.
const MAX_TROUBLES: usize = 1024;
/// How many of them are told.
const MAX_TOLD: usize = 8;

const CLOSED_AT_ONCE: &str =
    "closed the connection without an answer: one of the two may use TLS, or a key, that the other does not";

/// Looks seeds up, again and again.
pub(super) struct Seeking {
    pub(super) seeds: Vec<Seed>,
    pub(super) resolver: Resolver,
    /// How often, once somebody else is there.
    pub(super) interval: Duration,
    pub(super) resolved: watch::Sender<Vec<Resolved>>,
    pub(super) state: watch::Receiver<State>,
    pub(super) shared: Arc<Shared>,
}

impl Seeking {
    pub(super) async fn run(self) {
        let mut last = Vec::new();
        let mut pause = FIRST_PAUSE;
        loop {
            let resolved = self.resolver.resolve(&self.seeds, &last).await;
            self.resolved.send_replace(resolved.clone());
            let addrs: BTreeSet<SocketAddr> =
                resolved.iter().flat_map(|seed| seed.addrs.iter().copied()).collect();
            last = resolved;
            // A member that is told of no seeds founds a cluster of its own. It must not, only because names cannot be looked up.
            let found = if addrs.is_empty() {
                Incoming::Unresolved
            } else {
                Incoming::Seeds(addrs.into_iter().collect())
            };
            if !self.shared.tell(found).await {
                return;
            }
            let alone = self.state.borrow().members <= 1;
            let (now, next) =
                if alone { (pause, pause.saturating_mul(2)) } else { (self.interval, FIRST_PAUSE) };
            sleep(now.min(self.interval)).await;
            pause = next.min(self.interval);
        }
    }
}

/// What came of looking for the cluster.
pub(super) struct Joining {
    /// Where this member can be reached.
    own: SocketAddr,
    /// How many rounds may come to nothing; 0 = any number.
    max_attempts: u32,
    pub(super) abort_if_it_fails: bool,
    resolved: watch::Receiver<Vec<Resolved>>,
    /// How many rounds came to nothing because no seed was found.
    pub(super) unresolved: u32,
    /// What went wrong last, by where.
    troubles: BTreeMap<SocketAddr, String>,
    /// Whether it was said that all was in vain.
    pub(super) gave_up: bool,
}

impl Joining {
    pub(super) fn new(
        own: SocketAddr,
        max_attempts: u32,
        abort_if_it_fails: bool,
        resolved: watch::Receiver<Vec<Resolved>>,
    ) -> Self {
        let troubles = BTreeMap::new();
        Self { own, max_attempts, abort_if_it_fails, resolved, unresolved: 0, troubles, gave_up: false }
    }

    /// Something went wrong with whoever is at this address.
    pub(super) fn trouble(&mut self, with: SocketAddr, what: String) {
        if self.troubles.len() < MAX_TROUBLES || self.troubles.contains_key(&with) {
            self.troubles.insert(with, what);
        }
    }

    /// Whether it was tried as often as it may.
    pub(super) fn is_in_vain(&self, status: &Status) -> bool {
        let looks = matches!(status.phase, Phase::Resolving | Phase::Joining) && !status.synced;
        let attempts = status.join_attempts.saturating_add(self.unresolved);
        looks && self.max_attempts > 0 && attempts >= self.max_attempts
    }

    /// The cluster was found, or begun.
    pub(super) fn succeeded(&mut self) {
        self.gave_up = false;
        self.troubles.clear();
    }

    /// Why nobody let this member in.
    pub(super) fn reason(&self) -> String {
        let resolved = self.resolved.borrow();
        let mut reasons = Vec::new();
        let mut addrs = BTreeSet::new();
        for Resolved { seed, addrs: found, error, .. } in &*resolved {
            addrs.extend(found.iter().copied());
            match error {
                Some(error) if found.is_empty() => reasons.push(format!("`{seed}` was not found: {error}")),
                None if found.is_empty() => reasons.push(format!("`{seed}` has no address")),
                _ => (),
            }
        }
        let what = if addrs.is_empty() { "no seed was found" } else { "no seed let this member in" };
        for addr in addrs {
            let why = self.troubles.get(&addr).map_or("gave no answer", String::as_str);
            let why = if addr == self.own { "is this member itself" } else { why };
            reasons.push(format!("{addr}: {why}"));
        }
        let untold = reasons.len().saturating_sub(MAX_TOLD);
        reasons.truncate(MAX_TOLD);
        if untold > 0 {
            reasons.push(format!("and {untold} more"));
        }
        format!("failed to join memberlist cluster on startup: {what} ({})", reasons.join("; "))
    }

    /// What is said when a member that nobody is with takes itself for the cluster.
    pub(super) fn why_alone(&self) -> &'static str {
        let resolved = self.resolved.borrow();
        if resolved.is_empty() {
            "no seeds are configured: this member begins a new cluster"
        } else {
            "no seed leads to anybody else: this member begins a new cluster"
        }
    }
}

/// What a refusal means, where there is more to say than the word it is counted by.
pub(super) fn meaning(refusal: &'static str) -> &'static str {
    match refusal {
        "label" => "belongs to a cluster with another label",
        "version" => "speaks another version of the protocol",
        "own_name" => "is called as this member is: give each its own name",
        "peer_error" => "refused this member, most likely because its label or its version is another one",
        "unsealed" => "does not encrypt, and this member demands it",
        "unknown_key" | "forged" => "encrypts with a key that this member does not have",
        "not_ours" => "speaks something else",
        "too_slow" => "did not answer in time",
        other => other,
    }
}

/// What is to be said of a stream that the other end closed, or that broke, whether or not anything was `heard` on it.
pub(super) fn why_closed(error: Option<&io::Error>, heard: bool) -> Option<String> {
    use io::ErrorKind::{BrokenPipe, ConnectionReset, UnexpectedEof};
    let closed = error.is_none_or(|error| {
        // What was not read before it was closed makes it look so.
        matches!(error.kind(), BrokenPipe | ConnectionReset | UnexpectedEof)
    });
    if closed && !heard { Some(CLOSED_AT_ONCE.to_owned()) } else { error.map(ToString::to_string) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn joining(max_attempts: u32) -> Joining {
        let (_, resolved) = watch::channel(Vec::new());
        Joining::new("10.0.0.1:1".parse().unwrap(), max_attempts, true, resolved)
    }

    fn status(phase: Phase, synced: bool, join_attempts: u32) -> Status {
        let config = crate::api::Config::new("a", "10.0.0.1:1".parse().unwrap(), 1);
        let node = crate::node::Node::new(config, 1, crate::time::Now::default()).unwrap();
        Status { phase, synced, join_attempts, ..node.status() }
    }

    #[test]
    fn rounds_without_seeds_and_rounds_without_answers_count_alike() {
        let mut joining = joining(3);
        joining.unresolved = 1;
        assert!(!joining.is_in_vain(&status(Phase::Joining, false, 1)));
        assert!(joining.is_in_vain(&status(Phase::Joining, false, 2)));
        assert!(!joining.is_in_vain(&status(Phase::Active, true, 2)));
        assert!(!joining.is_in_vain(&status(Phase::Leaving, false, 2)));
        joining.unresolved = 3;
        assert!(joining.is_in_vain(&status(Phase::Resolving, false, 0)));
    }

    #[test]
    fn whoever_closes_without_a_word_may_not_have_understood() {
        let of = |kind: io::ErrorKind, heard| why_closed(Some(&kind.into()), heard).unwrap();
        assert_eq!(of(io::ErrorKind::ConnectionReset, false), CLOSED_AT_ONCE);
        assert_eq!(why_closed(None, false).unwrap(), CLOSED_AT_ONCE);
        assert_eq!(of(io::ErrorKind::ConnectionRefused, false), "connection refused");
        assert_eq!(of(io::ErrorKind::ConnectionReset, true), "connection reset");
        assert_eq!(why_closed(None, true), None);
    }

    #[test]
    fn a_member_that_may_try_for_ever_never_fails() {
        let joining = joining(0);
        assert!(!joining.is_in_vain(&status(Phase::Joining, false, u32::MAX)));
    }
}
