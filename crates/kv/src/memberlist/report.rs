//! [`Report`]: how a member stands, for people and their tools to read. And [`KeyContents`]: what one key holds.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use ringkit_gossip::api::Phase;
use ringkit_gossip::driver::seeds::Resolved;
use ringkit_gossip::driver::{Access, State};
use ringkit_gossip::node::{MemberInfo, Node};
use ringkit_gossip::register::{Body, EntryId as Place};
use ringkit_gossip::store::Slot;
use ringkit_gossip::swim;
use ringkit_gossip::time::Now;
use serde::Serialize;

use super::observed::{Observed, Told, name};
use super::options::Facts;
use super::views::Views;
use super::{is_internal, millis};
use crate::codec::Codec;
use crate::store::EntryId;

/// How a member stands.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// When this was told, in milliseconds since 1970.
    pub now_ms: u64,
    /// The member's name.
    pub name: String,
    /// Where others reach it.
    pub addr: String,
    /// The label that its cluster shares.
    pub label: String,
    /// Its zone; empty = none.
    pub zone: String,
    /// What program it runs.
    pub build: String,
    /// How its datagrams travel, and whether its streams are encrypted: `udp`, `tcp`, `udp+tls` or `tls`.
    pub transport: String,
    /// How far it has got: `resolving`, `joining`, `active`, `lonely`, `leaving`, `left` or `failed`.
    pub phase: String,
    /// Whether its store reflects the cluster.
    pub synced: bool,
    /// Whether it goes on without having found the cluster.
    pub gave_up: bool,
    /// Rounds of asking seeds that came to nothing since the join began.
    pub join_attempts: u32,
    /// Why members that answered could not let it in, if the last one could not.
    pub join_trouble: Option<String>,
    /// Where it looks for the others.
    pub seeds: Vec<SeedReport>,
    /// How unhealthy it finds itself: 0 = not at all, up to 7.
    pub score: u32,
    /// Who is there: itself first, then by name.
    pub members: Vec<MemberReport>,
    /// What is stored, by key.
    pub keys: Vec<KeyReport>,
    /// What is still to be told.
    pub queue: QueueReport,
    /// What came from the network and was refused: how often for each reason.
    pub refused: BTreeMap<String, u64>,
    /// Registers that were refused because the clock of their author is ahead, by its name.
    pub quarantined: BTreeMap<String, u64>,
    /// How long beacons took to get here.
    pub propagation: Option<PropagationReport>,
    /// Set if this machine's clock is ahead of others.
    pub own_clock: Option<ClockReport>,
    /// What is sealed and opened with, in order.
    pub keyring: Vec<KeyringReport>,
    /// Whether what is not sealed is refused.
    pub requires_sealed: bool,
    /// Sealed things that no key opened.
    pub unopenable: u64,
    /// The last registers that were written here, oldest first.
    pub sent: Vec<MessageReport>,
    /// The last registers that were taken from others, oldest first.
    pub received: Vec<MessageReport>,
}

/// One place to look for others.
#[derive(Clone, Debug, Serialize)]
pub struct SeedReport {
    /// As it was configured.
    pub seed: String,
    /// Where that leads.
    pub addrs: Vec<String>,
    /// Why it was not found when it was looked up last.
    pub error: Option<String>,
    /// For how many seconds nobody who is a member has been there.
    pub lost_for_secs: Option<u64>,
}

/// Another member, or this one.
#[derive(Clone, Debug, Serialize)]
pub struct MemberReport {
    /// Its name; its hash, until it was told.
    pub name: String,
    /// Where it is reached.
    pub addr: String,
    /// Which of its lives it is in.
    pub generation: u64,
    /// Its zone; empty = none.
    pub zone: String,
    /// What program it runs.
    pub build: String,
    /// `alive`, `suspect` or `down`.
    pub state: String,
    /// How long it took to answer last, in milliseconds.
    pub rtt_ms: Option<f64>,
    /// How far its clock is ahead of this one's, in milliseconds.
    pub clock_offset_ms: Option<i64>,
    /// Whether it is this member.
    pub own: bool,
}

/// How large a key is, and how new.
#[derive(Clone, Debug, Serialize)]
pub struct KeyReport {
    /// The key.
    pub key: String,
    /// How its entries are read; empty if nobody here asked for it.
    pub codec: String,
    /// Entries that are there.
    pub entries: usize,
    /// Registers, tombstones too.
    pub registers: usize,
    /// How many of them are tombstones.
    pub tombstones: usize,
    /// Memory in bytes, about.
    pub bytes: usize,
    /// Equal on members that hold the same, but for heartbeats; hexadecimal.
    pub digest: String,
    /// Grows with every change, on this member only.
    pub version: u64,
    /// How long ago its newest register was written, in milliseconds.
    pub age_ms: u64,
}

/// What is still to be told.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct QueueReport {
    /// Registers.
    pub len: usize,
    /// Their memory in bytes, about.
    pub bytes: usize,
    /// How many of them were written here.
    pub own: usize,
}

/// How long beacons took to get here, of the last 256.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct PropagationReport {
    /// How many there were since the start.
    pub count: u64,
    /// Half of them took no longer, in milliseconds.
    pub p50_ms: f64,
    /// Nine of ten took no longer.
    pub p90_ms: f64,
    /// All but one of a hundred took no longer.
    pub p99_ms: f64,
}

/// This machine's clock is ahead.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct ClockReport {
    /// Of so many members.
    pub ahead_of: usize,
    /// By so many milliseconds.
    pub by_ms: i64,
}

/// A key that is sealed or opened with.
#[derive(Clone, Debug, Serialize)]
pub struct KeyringReport {
    /// What the key is called, the same by all members, and hardly ever that of another key: 16 hexadecimal digits.
    pub id: String,
    /// Whether it is the one that seals.
    pub seals: bool,
    /// How many things it opened.
    pub opened: u64,
}

/// A register that was written here, or taken from another member.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct MessageReport {
    /// Its number, by which it can be asked for.
    pub id: u64,
    /// When, in milliseconds since 1970.
    pub at_ms: u64,
    /// The key.
    pub key: String,
    /// The entry.
    pub entry: String,
    /// The part of the entry.
    pub facet: u8,
    /// Bytes of what it holds.
    pub size: usize,
    /// Whether it says that something was removed.
    pub tombstone: bool,
    /// Who wrote it.
    pub author: String,
    /// When its author wrote it, by its own clock: epoch, milliseconds since 1970, and a counter.
    pub version: String,
}

/// What a key holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyContents {
    /// How its entries are read; empty if nobody here asked for it.
    pub codec: String,
    /// Grows with every change, on this member only.
    pub version: u64,
    /// The whole value as a server would store it; without a codec the registers as JSON.
    pub stored: Bytes,
    /// The entries; without a codec their first parts.
    pub entries: BTreeMap<String, Bytes>,
    /// What was removed lately, and how many seconds ago.
    pub removed: Vec<(String, u64)>,
}

/// A register, where nobody knows what it means.
#[derive(Serialize)]
struct RawRegister<'a> {
    entry: &'a str,
    facet: u8,
    author: String,
    epoch: u32,
    written_ms: u64,
    tombstone: bool,
    body: String,
}

/// What is known of a member outside of its task.
pub(super) struct Outside {
    pub(super) facts: Arc<Facts>,
    pub(super) state: State,
    pub(super) seeds: Vec<Resolved>,
    pub(super) addr: String,
}

/// Reports on a member; on its task.
pub(super) fn report(access: &Access<'_, Views>, outside: &Outside, observed: &Observed) -> Report {
    let (node, now) = (access.node(), access.now());
    let status = node.status();
    let queue = node.queue_stats();
    let told = observed.told();
    let clock = node.clock_offset_ms();
    let Outside { facts, state, seeds, addr } = outside;
    Report {
        now_ms: now.wall_ms,
        name: facts.name.clone(),
        addr: addr.clone(),
        label: facts.label.clone(),
        zone: facts.zone.clone(),
        build: facts.build.clone(),
        transport: facts.transport.to_owned(),
        phase: phase(status.phase).to_owned(),
        synced: status.synced,
        gave_up: observed.goes_on_without(state),
        join_attempts: status.join_attempts,
        join_trouble: status.join_trouble_in_words().map(str::to_owned),
        seeds: seeds.iter().map(|seed| seed_report(node, now, seed)).collect(),
        score: status.score,
        members: node.members().iter().map(member_report).collect(),
        keys: keys(access),
        queue: QueueReport { len: queue.len, bytes: queue.bytes, own: queue.own },
        refused: told.refused.iter().map(|(reason, count)| ((*reason).to_owned(), *count)).collect(),
        quarantined: quarantined(node, &told),
        propagation: propagation(told.num_delays, told.delays.iter().copied()),
        own_clock: clock.map(|(ahead_of, by_ms)| ClockReport { ahead_of, by_ms }),
        keyring: keyring(access),
        requires_sealed: access.member().requires_sealed(),
        unopenable: access.member().unopenable(),
        sent: told.history.sent(),
        received: told.history.received(),
    }
}

fn quarantined(node: &Node, told: &Told) -> BTreeMap<String, u64> {
    // By names: what an author is called may have become known since.
    told.quarantined.iter().map(|(author, refused)| (name(node, *author), refused.count)).collect()
}

fn keyring(access: &Access<'_, Views>) -> Vec<KeyringReport> {
    let keys = access.member().keys();
    let id = |print: [u8; 8]| format!("{:016x}", u64::from_be_bytes(print));
    keys.iter().map(|key| KeyringReport { id: id(key.print), seals: key.seals, opened: key.opened }).collect()
}

/// The name of a phase.
pub(super) fn phase(phase: Phase) -> &'static str {
    match phase {
        Phase::Resolving => "resolving",
        Phase::Joining => "joining",
        Phase::Active => "active",
        Phase::Lonely => "lonely",
        Phase::Leaving => "leaving",
        Phase::Left => "left",
        Phase::Failed => "failed",
    }
}

fn seed_report(node: &Node, now: Now, resolved: &Resolved) -> SeedReport {
    let asked: BTreeMap<SocketAddr, Option<Duration>> = node.seeds().into_iter().collect();
    // This member itself is at those that it does not ask, which says nothing of the others.
    let others = resolved.addrs.iter().filter_map(|addr| asked.get(addr));
    // One address of a name is enough.
    let lost = others.map(|since| since.map(|since| now.mono.saturating_sub(since))).min().flatten();
    SeedReport {
        seed: resolved.seed.to_string(),
        addrs: resolved.addrs.iter().map(ToString::to_string).collect(),
        error: resolved.error.clone(),
        lost_for_secs: lost.map(|lost| lost.as_secs()),
    }
}

/// The addresses of seeds where no member is, and for how long.
pub(super) fn lost_for(node: &Node, now: Now) -> BTreeMap<SocketAddr, Duration> {
    let seeds = node.seeds().into_iter();
    seeds.filter_map(|(addr, since)| Some((addr, now.mono.saturating_sub(since?)))).collect()
}

fn member_report(member: &MemberInfo) -> MemberReport {
    let text = |text: &Option<smol_str::SmolStr>| text.as_deref().unwrap_or_default().to_owned();
    let state = match member.state {
        swim::State::Alive => "alive",
        swim::State::Suspect => "suspect",
        swim::State::Down => "down",
    };
    MemberReport {
        name: member.name.as_ref().map_or_else(|| format!("{:016x}", member.id.name), ToString::to_string),
        addr: member.id.addr.to_string(),
        generation: member.id.generation,
        zone: text(&member.zone),
        build: text(&member.build),
        state: state.to_owned(),
        rtt_ms: member.rtt.map(|rtt| rtt.as_secs_f64() * 1e3),
        clock_offset_ms: member.clock_offset_ms,
        own: member.own,
    }
}

fn keys(access: &Access<'_, Views>) -> Vec<KeyReport> {
    let (store, now) = (access.node().store(), access.now());
    let keys = store.keys().filter(|key| !is_internal(key));
    let report = |key: &str| {
        let sizes = store.key_sizes(key);
        let codec = access.observer.codec(key).map_or("", Codec::id);
        let age = store.registers(key).map(|(_, slot)| slot.age(now)).min();
        KeyReport {
            key: key.to_owned(),
            codec: codec.to_owned(),
            entries: store.live(key).filter(|(place, _)| place.facet == 0).count(),
            registers: sizes.entries,
            tombstones: sizes.tombstones,
            bytes: sizes.bytes,
            digest: format!("{:032x}", store.key_digest(key)),
            version: store.local_version(key),
            age_ms: age.map_or(0, millis),
        }
    };
    keys.map(report).collect()
}

fn propagation(count: u64, delays: impl Iterator<Item = Duration>) -> Option<PropagationReport> {
    let mut delays: Vec<f64> = delays.map(|delay| delay.as_secs_f64() * 1e3).collect();
    delays.sort_by(f64::total_cmp);
    // The smallest one that so many of a hundred do not exceed.
    let of_hundred = |percent: usize| {
        let place = (delays.len() * percent).div_ceil(100).saturating_sub(1);
        delays.get(place).copied()
    };
    Some(PropagationReport {
        count,
        p50_ms: of_hundred(50)?,
        p90_ms: of_hundred(90)?,
        p99_ms: of_hundred(99)?,
    })
}

/// What a key holds; `None` if nothing is known of it. What was removed is told for `removed_for`. On the member's task.
pub(super) fn contents(access: &Access<'_, Views>, key: &str, removed_for: Duration) -> Option<KeyContents> {
    let store = access.node().store();
    store.registers(key).next()?;
    let version = store.local_version(key);
    let removed = removed(access, key, removed_for);
    let Some(codec) = access.observer.codec(key) else {
        let first = |(place, slot): (&Place, &Slot)| match &slot.register().body {
            Body::Live(bytes) if place.facet == 0 => Some((place.id.to_string(), bytes.clone())),
            _ => None,
        };
        let entries = store.registers(key).filter_map(first).collect();
        let stored = raw(access.node(), key);
        return Some(KeyContents { codec: String::new(), version, stored, entries, removed });
    };
    let shown = access.observer.shown(key);
    let shown = shown.iter().flat_map(|stored| stored.entries.iter());
    let entries: BTreeMap<EntryId, Bytes> =
        shown.map(|(id, entry)| (id.clone(), entry.bytes.clone())).collect();
    let stored = codec.join(&entries);
    let entries = entries.into_iter().map(|(id, bytes)| (id.to_string(), bytes)).collect();
    Some(KeyContents { codec: codec.id().to_owned(), version, stored, entries, removed })
}

/// Entries that were removed, and how many seconds ago by the clock of whoever did.
fn removed(access: &Access<'_, Views>, key: &str, removed_for: Duration) -> Vec<(String, u64)> {
    let now_ms = access.now().wall_ms;
    let gone = access.node().store().registers(key).filter(|(place, _)| place.facet == 0);
    gone.filter(|(_, slot)| slot.register().is_tombstone())
        .map(|(place, slot)| {
            let age_ms = now_ms.saturating_sub(slot.register().version.hlc.ms());
            (place.id.to_string(), Duration::from_millis(age_ms))
        })
        .filter(|(_, age)| *age < removed_for)
        .map(|(id, age)| (id, age.as_secs()))
        .collect()
}

/// The registers of a key as JSON.
fn raw(node: &Node, key: &str) -> Bytes {
    let told = node.store().registers(key).map(|(place, slot)| {
        let register = slot.register();
        RawRegister {
            entry: &place.id,
            facet: place.facet,
            author: name(node, register.author),
            epoch: register.version.epoch,
            written_ms: register.version.hlc.ms(),
            tombstone: register.is_tombstone(),
            body: match &register.body {
                Body::Live(bytes) => STANDARD.encode(bytes),
                Body::Tombstone => String::new(),
            },
        }
    });
    let told: Vec<RawRegister<'_>> = told.collect();
    serde_json::to_vec(&told).unwrap_or_default().into()
}

#[cfg(test)]
mod tests {
    use ringkit_gossip::api::{Config, Input};
    use ringkit_gossip::driver::seeds::Seed;
    use tokio::time::Instant;

    use super::*;

    #[test]
    fn a_seed_that_is_also_this_member_itself_is_lost_when_the_others_are() {
        let [own, other]: [SocketAddr; 2] = ["127.0.0.1:1", "127.0.0.1:2"].map(|addr| addr.parse().unwrap());
        let at = |secs| Now { mono: Duration::from_secs(secs), wall_ms: 1_000_000 + 1_000 * secs };
        let mut node = Node::new(Config::new("a", own, 1), 1, at(0)).unwrap();
        for (secs, input) in
            [(0, Input::Seeds(&[])), (1, Input::Seeds(&[own, other])), (2, Input::Tick), (40, Input::Tick)]
        {
            node.handle(at(secs), input, &mut Vec::new());
        }
        let resolved = |addrs: &[SocketAddr]| Resolved {
            seed: Seed::parse("dns+gossip.example:1").unwrap(),
            addrs: addrs.to_vec(),
            error: None,
            at: Instant::now(),
        };
        let lost = |addrs: &[SocketAddr]| seed_report(&node, at(40), &resolved(addrs)).lost_for_secs;
        assert!(lost(&[other]).is_some_and(|secs| (38..=39).contains(&secs)), "{:?}", lost(&[other]));
        assert_eq!(lost(&[own, other]), lost(&[other]));
        assert_eq!((lost(&[own]), lost(&[])), (None, None));
    }

    #[test]
    fn delays_are_told_by_rank() {
        let told = |number: u64| propagation(7, (1..=number).map(Duration::from_millis));
        assert!(told(0).is_none());
        let one = told(1).unwrap();
        assert_eq!((one.count, one.p50_ms, one.p99_ms), (7, 1.0, 1.0));
        let hundred = told(100).unwrap();
        assert_eq!((hundred.p50_ms, hundred.p90_ms, hundred.p99_ms), (50.0, 90.0, 99.0));
    }
}
