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
    /// Where this member can be reached, and where it listens.
    pub(super) own: SocketAddr,
    pub(super) bound: Vec<SocketAddr>,
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
        let mut known = BTreeSet::new();
        let mut pause = FIRST_PAUSE;
        loop {
            let resolved = self.resolver.resolve(&self.seeds, &last).await;
            self.resolved.send_replace(resolved.clone());
            let joins = matches!(self.state.borrow().phase, Phase::Resolving | Phase::Joining);
            let known_to_joiner = if joins { Some(&known) } else { None };
            let found = match seeds_of(&resolved, self.own, &self.bound, known_to_joiner) {
                Some(addrs) => {
                    known.clone_from(&addrs);
                    Incoming::Seeds(addrs.into_iter().collect())
                }
                None => Incoming::Unresolved,
            };
            last = resolved;
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

/// Where the member is to look for others; `known` is what it was told last, while it joins. `None` if nothing was found.
///
/// A member that is told of no seeds but itself founds a cluster of its own. It must not, only because the others cannot be
/// looked up. Names that nobody has yet are another matter: the first of a cluster comes up before the others.
fn seeds_of(
    resolved: &[Resolved],
    own: SocketAddr,
    bound: &[SocketAddr],
    known: Option<&BTreeSet<SocketAddr>>,
) -> Option<BTreeSet<SocketAddr>> {
    let addrs: BTreeSet<SocketAddr> =
        resolved.iter().flat_map(|seed| reachable(&seed.addrs, bound)).collect();
    let has_failed = resolved.iter().any(|seed| seed.error.is_some());
    // What fails now was found before, and may be the only way to the others.
    if let Some(known) = known
        && has_failed
        && addrs.len() < known.len()
    {
        return Some(known.clone());
    }
    let is_alone = addrs.iter().all(|addr| *addr == own);
    if is_alone && (has_failed || addrs.is_empty()) { None } else { Some(addrs) }
}

/// Of the addresses of one seed those that datagrams can be sent to from where this member listens: of the others it would never
/// hear that they are members. All, if there are only such.
fn reachable(addrs: &[SocketAddr], bound: &[SocketAddr]) -> Vec<SocketAddr> {
    let takes = |at: &SocketAddr, addr: &SocketAddr| {
        // An unspecified IPv6 address takes both.
        at.is_ipv6() == addr.is_ipv6() || (at.is_ipv6() && at.ip().is_unspecified())
    };
    let some: Vec<SocketAddr> =
        addrs.iter().copied().filter(|addr| bound.iter().any(|at| takes(at, addr))).collect();
    if some.is_empty() { addrs.to_vec() } else { some }
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

    /// Why nobody let this member in; `trouble` is what kept it out where it was let in.
    pub(super) fn reason(&self, trouble: Option<&'static str>) -> String {
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
        let trouble = trouble.map(|trouble| format!("; {trouble}")).unwrap_or_default();
        format!("failed to join memberlist cluster on startup: {what} ({}){trouble}", reasons.join("; "))
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
        "clock_ahead" | "clock_behind" => "has what is from the future by this machine's clock",
        "store_full" => "has more than there is room for here",
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

    fn addrs(texts: &[&str]) -> Vec<SocketAddr> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    fn resolved(seed: &str, found: &[&str], error: Option<&str>) -> Resolved {
        let (seed, at) = (Seed::parse(seed).unwrap(), tokio::time::Instant::now());
        Resolved { seed, addrs: addrs(found), error: error.map(str::to_owned), at }
    }

    fn found(resolved: &[Resolved], known: Option<&[&str]>) -> Option<Vec<SocketAddr>> {
        let known = known.map(|known| addrs(known).into_iter().collect());
        let (own, bound) = ("10.0.0.1:1".parse().unwrap(), addrs(&["0.0.0.0:1"]));
        seeds_of(resolved, own, &bound, known.as_ref()).map(|addrs| addrs.into_iter().collect())
    }

    #[test]
    fn who_finds_itself_only_founds_a_cluster_unless_others_cannot_be_looked_up() {
        let own = resolved("a", &["10.0.0.1:1"], None);
        assert_eq!(found(std::slice::from_ref(&own), None), Some(addrs(&["10.0.0.1:1"])));
        assert_eq!(found(&[own.clone(), resolved("b", &[], Some("no answer"))], None), None);
        // The first of those that come up one after the other.
        let first = [own.clone(), resolved("b", &[], None)];
        assert_eq!(found(&first, None), Some(addrs(&["10.0.0.1:1"])));
        assert_eq!(found(&[resolved("b", &[], None)], None), None);
        let partly = resolved("a", &["10.0.0.1:1"], Some("no answer"));
        assert_eq!(found(&[partly], None), None);
    }

    #[test]
    fn what_was_found_is_kept_by_who_joins_while_it_cannot_be_looked_up() {
        let poorer = [resolved("a", &["10.0.0.2:1"], Some("no answer"))];
        let known = ["10.0.0.2:1", "10.0.0.3:1"];
        assert_eq!(found(&poorer, Some(&known)), Some(addrs(&known)));
        assert_eq!(found(&poorer, None), Some(addrs(&["10.0.0.2:1"])));
        let fewer = [resolved("a", &["10.0.0.2:1"], None)];
        assert_eq!(found(&fewer, Some(&known)), Some(addrs(&["10.0.0.2:1"])));
    }

    #[test]
    fn where_nothing_can_be_sent_to_nobody_is_looked_for() {
        let both = addrs(&["10.0.0.2:1", "[fd00::2]:1"]);
        assert_eq!(reachable(&both, &addrs(&["10.0.0.1:1"])), both[..1]);
        assert_eq!(reachable(&both, &addrs(&["[fd00::1]:1"])), both[1..]);
        assert_eq!(reachable(&both, &addrs(&["[::]:1"])), both);
        assert_eq!(reachable(&both[1..], &addrs(&["0.0.0.0:1"])), both[1..], "nothing else is left");
    }

    #[test]
    fn what_kept_a_member_out_that_was_let_in_is_said() {
        let status = Status { join_trouble: Some("clock_behind"), ..status(Phase::Joining, false, 3) };
        let reason = joining(3).reason(status.join_trouble_in_words());
        assert!(reason.contains("no seed was found") && reason.contains("clock is behind"), "{reason}");
        assert!(!joining(3).reason(None).contains("clock"));
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
