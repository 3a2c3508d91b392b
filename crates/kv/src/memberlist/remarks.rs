//! What an operator should know of a member, a sentence each: for `/ready`, which asks without waiting.

use std::time::Duration;

use ringkit_gossip::api::Phase;
use ringkit_gossip::driver::State;
use ringkit_gossip::driver::seeds::Resolved;

use super::observed::{Latest, Observed};

/// How long it is remarked upon that something could not be opened.
const UNOPENABLE_FOR: Duration = Duration::from_secs(5 * 60);
/// How many things of a kind are named.
const MAX_NAMED: usize = 5;

const ONLY_STREAMS: &str = "Gossip streams work, and datagrams do not: none has come from any member for a while. Is UDP blocked at the \
                            gossip port? Where it is, `memberlist.packet_transport: tcp` helps";
const TAKES_CLEAR: &str = "Clear gossip is still accepted, although there are keys: once all members have one, set \
                           `memberlist.require_encryption: true`";

/// All there is to remark.
pub(super) fn remarks(state: &State, seeds: &[Resolved], observed: &Observed) -> Vec<String> {
    if let Some(failure) = &state.failure {
        return vec![format!("The gossip of this process has failed: {failure}")];
    }
    if matches!(state.phase, Phase::Leaving | Phase::Left) {
        return Vec::new();
    }
    let latest = observed.latest();
    let latest = latest.as_deref();
    let mut remarks = Vec::new();
    if !state.synced {
        remarks.push(not_synced(observed.goes_on_without(state), seeds, latest));
    }
    remarks.extend(seeds.iter().filter_map(|seed| {
        let error = seed.error.as_ref()?;
        Some(format!("The gossip seed `{}` was not found when it was looked up last: {error}", seed.seed))
    }));
    remarks.extend(observed.told().bad_key_file.as_ref().map(|(path, reason)| {
        format!("The file with the keys of gossip, `{path}`, cannot be used, and those from before are: it {reason}")
    }));
    if let Some(latest) = latest {
        remarks.extend(lost(latest));
        remarks.extend(latest.only_streams.then(|| ONLY_STREAMS.to_owned()));
        remarks.extend(latest.takes_clear.then(|| TAKES_CLEAR.to_owned()));
        remarks.extend(unopenable(latest));
        remarks.extend(latest.clock_ahead.map(|(members, by_ms)| {
            let by = Duration::from_millis(by_ms.unsigned_abs());
            format!(
                "This machine's clock is ahead of those of {members} members of the gossip cluster, by {by:?}"
            )
        }));
    }
    remarks
}

fn not_synced(goes_on: bool, seeds: &[Resolved], latest: Option<&Latest>) -> String {
    let attempts = latest.map_or(0, |latest| latest.status.join_attempts);
    let seeds = named(seeds.iter().map(|seed| seed.seed.to_string()));
    let so_far = if goes_on {
        "The gossip cluster was not found, and this process goes on without it"
    } else {
        "This process has not joined the gossip cluster yet"
    };
    let trouble = latest.and_then(|latest| latest.status.join_trouble_in_words());
    let trouble = trouble.map(|trouble| format!("; {trouble}")).unwrap_or_default();
    format!("{so_far}: {attempts} rounds of asking its seeds came to nothing ({seeds}){trouble}")
}

fn lost(latest: &Latest) -> Option<String> {
    let longest = latest.lost_seeds.iter().map(|(_, lost)| lost.as_secs()).max()?;
    let seeds = named(latest.lost_seeds.iter().map(|(addr, _)| addr.to_string()));
    Some(format!("Gossip seeds that are no members, for up to {longest} s: {seeds}"))
}

fn unopenable(latest: &Latest) -> Option<String> {
    let (count, noticed_at) = latest.unopenable;
    let secs = noticed_at?.elapsed().as_secs();
    (secs <= UNOPENABLE_FOR.as_secs()).then(|| {
        format!(
            "Gossip came in that no key opens, {count} times, the last {secs} s ago: is a key missing here, or has another member an old one?"
        )
    })
}

fn named(names: impl Iterator<Item = String>) -> String {
    let mut names: Vec<String> = names.collect();
    let untold = names.len().saturating_sub(MAX_NAMED);
    names.truncate(MAX_NAMED);
    if untold > 0 {
        names.push(format!("and {untold} more"));
    }
    if names.is_empty() { "no seeds known yet".to_owned() } else { names.join(", ") }
}

#[cfg(test)]
mod tests {
    use metrics::Histogram;
    use ringkit_gossip::api::{Config, Status};
    use ringkit_gossip::driver::seeds::Seed;
    use ringkit_gossip::node::{Node, QueueStats};
    use ringkit_gossip::time::Now;
    use tokio::time::Instant;

    use super::*;

    fn state(phase: Phase, synced: bool, gave_up: bool) -> State {
        State { phase, synced, gave_up, members: 1, failure: None }
    }

    fn latest() -> Latest {
        let config = Config::new("a", "127.0.0.1:1".parse().unwrap(), 1);
        let status: Status = Node::new(config, 1, Now::default()).unwrap().status();
        Latest {
            status: Status { join_attempts: 3, ..status },
            queue: QueueStats::default(),
            num_keys: 0,
            keys: Vec::new(),
            clock_ahead: None,
            unopenable: (0, None),
            takes_clear: false,
            only_streams: false,
            lost_seeds: Vec::new(),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_amiss_is_said_and_nothing_else() {
        let observed = Observed::new(Histogram::noop(), 0);
        let active = state(Phase::Active, true, false);
        observed.set_latest(latest());
        assert!(remarks(&active, &[], &observed).is_empty());
        let seed = Resolved {
            seed: Seed::parse("dns+gossip.example:7946").unwrap(),
            addrs: Vec::new(),
            error: Some("no such name".into()),
            at: Instant::now(),
        };
        let joining = remarks(&state(Phase::Joining, false, false), std::slice::from_ref(&seed), &observed);
        assert!(joining[0].contains("not joined") && joining[0].contains("3 rounds"), "{joining:?}");
        assert!(joining[0].contains("dns+gossip.example:7946"), "{joining:?}");
        assert!(joining[1].contains("no such name"), "{joining:?}");
        let alone = remarks(&state(Phase::Joining, false, true), &[], &observed);
        assert!(alone[0].contains("goes on without it"), "{alone:?}");
        let status = Status { join_trouble: Some("clock_behind"), ..latest().status };
        observed.set_latest(Latest { status, ..latest() });
        let behind = remarks(&state(Phase::Joining, false, false), &[], &observed);
        assert!(behind[0].contains("clock is behind"), "{behind:?}");
        observed.proceed();
        let proceeds = remarks(&state(Phase::Joining, false, false), &[], &observed);
        assert!(proceeds[0].contains("goes on without it"), "{proceeds:?}");

        observed.set_latest(Latest {
            clock_ahead: Some((2, 90_000)),
            unopenable: (7, Some(Instant::now())),
            lost_seeds: vec![("10.0.0.1:7946".parse().unwrap(), Duration::from_secs(61))],
            ..latest()
        });
        let amiss = remarks(&active, &[], &observed);
        assert_eq!(amiss.len(), 3, "{amiss:?}");
        assert!(amiss[0].contains("61 s: 10.0.0.1:7946"), "{amiss:?}");
        assert!(amiss[1].contains("7 times"), "{amiss:?}");
        assert!(amiss[2].contains("2 members") && amiss[2].contains("90s"), "{amiss:?}");
        tokio::time::advance(UNOPENABLE_FOR + Duration::from_secs(1)).await;
        assert_eq!(remarks(&active, &[], &observed).len(), 2, "that is long ago");

        observed.set_latest(Latest { takes_clear: true, only_streams: true, ..latest() });
        observed.told().bad_key_file = Some(("/keys".into(), "holds no key".into()));
        let amiss = remarks(&active, &[], &observed);
        assert_eq!(amiss.len(), 3, "{amiss:?}");
        assert!(amiss[0].contains("`/keys`") && amiss[0].ends_with("it holds no key"), "{amiss:?}");
        assert!(amiss[1].contains("datagrams do not"), "{amiss:?}");
        assert!(amiss[2].contains("Clear gossip"), "{amiss:?}");

        let failed = State { failure: Some("no seed".into()), ..state(Phase::Failed, false, false) };
        assert_eq!(remarks(&failed, &[], &observed), ["The gossip of this process has failed: no seed"]);
        assert!(remarks(&state(Phase::Leaving, true, false), &[], &observed).is_empty());
    }
}
