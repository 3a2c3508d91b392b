//! What the page tells, as data: Cortex's JSON, and behind its fields what Cortex leaves the reader to find out.

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ringkit_kv::Client;
use ringkit_ring::{Desc, Instance, Operation, Ring, Snapshot, State, is_fresh};
use serde::Serialize;

use crate::pages::time::{age, go_default, rfc3339};

/// What Cortex calls an instance whose heartbeats have stopped, in place of its state.
const UNHEALTHY: &str = "Unhealthy";

/// How many tokens that several instances claim are listed; the others are counted.
pub(super) const MAX_CONFLICTS: usize = 100;

/// The page's JSON. Programs written for Cortex read the first fields; new ones go behind them.
///
/// # Source
///
/// Cortex `pkg/ring/http.go`, `httpResponse` and `ingesterDesc`. Times are in UTC here, in the server's zone there.
#[derive(Serialize)]
pub(super) struct Status {
    /// `null` for an empty ring, as Go writes a slice that was never filled.
    shards: Option<Vec<Shard>>,
    pub(super) now: String,
    #[serde(rename = "storageLastUpdated")]
    pub(super) storage_last_updated: String,

    /// Tokens that are claimed more than once, the first hundred of them.
    pub(super) token_conflicts: Vec<Conflict>,
    /// How many there are.
    pub(super) token_conflict_count: usize,
    /// Why the store does not answer, if it does not: what is shown is what was known before.
    pub(super) store_trouble: Option<String>,
    /// All of it in one line for a person.
    pub(super) summary: String,
}

#[derive(Serialize)]
pub(super) struct Shard {
    pub(super) id: String,
    pub(super) state: String,
    pub(super) address: String,
    pub(super) timestamp: String,
    pub(super) registered_timestamp: String,
    pub(super) zone: String,
    pub(super) tokens: Option<Vec<u32>>,

    /// By this process's clock since the heartbeat arrived, whatever the sender's clock says.
    pub(super) heartbeat_age_seconds: i64,
    pub(super) healthy: bool,
    /// Fraction of the circle, or of that of its zone.
    pub(super) ownership: f64,
    /// How much of what it owns is more, or less, than fair; `null` if it owns nothing.
    pub(super) ownership_diff: Option<f64>,
    pub(super) heartbeat_fresh: bool,
    /// The state that the unhealthy were in when they were last heard, too.
    pub(super) stored_state: String,
    pub(super) token_count: usize,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) versions: BTreeMap<u64, u64>,
    /// The colour that says the same as the state.
    #[serde(skip)]
    pub(super) class: &'static str,
}

/// A token and those who claim it, once per claim.
#[derive(Serialize)]
pub(super) struct Conflict {
    pub(super) token: u32,
    pub(super) owners: Vec<String>,
}

impl Status {
    pub(super) fn of(ring: &Ring, with_tokens: bool, store_trouble: Option<String>) -> Self {
        let (snapshot, now) = (ring.snapshot(), ring.clock().now_secs());
        let members = snapshot.instances().iter().zip(owned(&snapshot));
        let shards: Vec<Shard> = members
            .map(|(instance, owned)| Shard::of(&snapshot, instance, owned, now, with_tokens))
            .collect();
        let (token_conflict_count, token_conflicts) = conflicts(&snapshot);
        let newest = snapshot.instances().iter().filter_map(|instance| snapshot.seen(&instance.id)).max();
        let heard = match (&store_trouble, newest) {
            (Some(trouble), _) => trouble.clone(),
            (None, Some(newest)) => {
                let ago = age(now.saturating_sub(newest));
                format!("store last heard {} ({ago} ago)", rfc3339(since_epoch(newest)))
            }
            (None, None) => "nothing heard from the store".to_owned(),
        };
        let tokens = counted(snapshot.tokens().len(), "token");
        let conflicts = match token_conflict_count {
            0 => "no token conflicts".to_owned(),
            count => counted(count, "token conflict"),
        };
        let summary = format!("{}; {tokens}; {conflicts}; {heard}", population(&shards));
        Self {
            shards: (!shards.is_empty()).then_some(shards),
            now: rfc3339(ring.clock().now()),
            storage_last_updated: rfc3339(since_epoch(newest.unwrap_or(0))),
            token_conflicts,
            token_conflict_count,
            store_trouble,
            summary,
        }
    }

    pub(super) fn shards(&self) -> &[Shard] {
        self.shards.as_deref().unwrap_or_default()
    }

    pub(super) fn unhealthy(&self) -> usize {
        self.shards().iter().filter(|shard| !shard.healthy).count()
    }

    /// Whether nothing needs an operator.
    pub(super) fn is_good(&self) -> bool {
        self.unhealthy() == 0 && self.token_conflict_count == 0 && self.store_trouble.is_none()
    }
}

impl Shard {
    fn of(snapshot: &Snapshot, instance: &Instance, owned: Owned, now: i64, with_tokens: bool) -> Self {
        let desc = &instance.desc;
        let healthy = snapshot.is_healthy(&instance.id, Operation::REPORTING, now);
        let seen = snapshot.seen(&instance.id).unwrap_or(desc.timestamp);
        let stored_state = instance.state().to_string();
        Self {
            id: instance.id.to_string(),
            state: if healthy { stored_state.clone() } else { UNHEALTHY.to_owned() },
            address: desc.addr.to_string(),
            timestamp: go_default(desc.timestamp),
            registered_timestamp: registered(desc.registered_at()),
            zone: desc.zone.to_string(),
            tokens: (with_tokens && !desc.tokens.is_empty()).then(|| desc.tokens.to_vec()),
            heartbeat_age_seconds: now.saturating_sub(seen),
            healthy,
            ownership: owned.fraction,
            ownership_diff: owned.excess(),
            heartbeat_fresh: is_fresh(seen, now, snapshot.options().heartbeat_timeout),
            stored_state,
            token_count: desc.tokens.len(),
            versions: desc.versions.clone(),
            class: if healthy { class(instance.state()) } else { "bad" },
        }
    }
}

/// Why the store behind `client` does not answer, if it does not.
pub(super) fn trouble(client: &Client<Desc>) -> Option<String> {
    let trouble = client.trouble().borrow().clone()?;
    let silent = i64::try_from(trouble.heard.elapsed().as_secs()).unwrap_or(i64::MAX);
    Some(format!("{} has not answered for {}: {}", client.backend(), age(silent), trouble.cause))
}

fn class(state: State) -> &'static str {
    match state {
        State::Active => "good",
        State::Pending | State::Joining | State::Leaving => "busy",
        State::Left | State::ReadOnly | State::Unknown(_) => "idle",
    }
}

fn registered(seconds: i64) -> String {
    if seconds == 0 { String::new() } else { go_default(seconds) }
}

fn since_epoch(seconds: i64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(u64::try_from(seconds).unwrap_or(0))
}

/// How many there are, in which states.
fn population(shards: &[Shard]) -> String {
    let members = counted(shards.len(), "member");
    if shards.is_empty() {
        return members;
    }
    let mut states = by_state(shards, true);
    states.push(match by_state(shards, false).join(", ") {
        none if none.is_empty() => format!("0 {UNHEALTHY}"),
        stored => {
            let count = shards.iter().filter(|shard| !shard.healthy).count();
            format!("{count} {UNHEALTHY} (last known as {stored})")
        }
    });
    format!("{members}: {}", states.join(", "))
}

fn by_state(shards: &[Shard], healthy: bool) -> Vec<String> {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for shard in shards.iter().filter(|shard| shard.healthy == healthy) {
        *counts.entry(&shard.stored_state).or_default() += 1;
    }
    counts.into_iter().map(|(state, count)| format!("{count} {state}")).collect()
}

fn counted(count: usize, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

/// How many tokens are claimed more than once, and who claims the first of them.
fn conflicts(snapshot: &Snapshot) -> (usize, Vec<Conflict>) {
    if snapshot.duplicate_tokens() == 0 {
        return (0, Vec::new());
    }
    let (mut count, mut listed) = (0, BTreeMap::<u32, Vec<String>>::new());
    for claims in snapshot.tokens().chunk_by(|one, other| one == other).filter(|claims| claims.len() > 1) {
        count += 1;
        if count <= MAX_CONFLICTS {
            listed.insert(claims[0], Vec::new());
        }
    }
    for instance in snapshot.instances() {
        for token in instance.desc.tokens.iter() {
            if let Some(owners) = listed.get_mut(token) {
                owners.push(instance.id.to_string());
            }
        }
    }
    (count, listed.into_iter().map(|(token, owners)| Conflict { token, owners }).collect())
}

/// What a member owns and what would be fair, as fractions of the circle that it shares.
#[derive(Clone, Copy)]
struct Owned {
    fraction: f64,
    expected: f64,
}

impl Owned {
    /// How much of what it owns is more (or, negative, less) than fair: Cortex's measure. `None` if it owns nothing.
    fn excess(&self) -> Option<f64> {
        (self.fraction > 0.0).then(|| 1.0 - self.expected / self.fraction)
    }
}

/// With zone awareness, members share the circle with those of their zone only.
fn owned(snapshot: &Snapshot) -> Vec<Owned> {
    let by_zone = snapshot.options().zone_awareness_enabled;
    let ownership = snapshot.ownership();
    let shares = if by_zone { ownership.of_zone() } else { ownership.of_circle() };
    let mut sharing: HashMap<&str, usize> = HashMap::new();
    for instance in snapshot.instances() {
        *sharing.entry(circle_of(instance, by_zone)).or_default() += 1;
    }
    let owned = snapshot.instances().iter().zip(shares).map(|(instance, share)| {
        let sharing = sharing.get(circle_of(instance, by_zone)).copied().unwrap_or(1);
        #[expect(clippy::cast_precision_loss, reason = "a number of instances")]
        let expected = 1.0 / sharing as f64;
        Owned { fraction: share.fraction(), expected }
    });
    owned.collect()
}

fn circle_of(instance: &Instance, by_zone: bool) -> &str {
    if by_zone { instance.zone().as_str() } else { "" }
}
