//! What must hold for two arbitrary rings, one after the other in a store: looked up, merged, followed.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use ringkit_kv::{Client, InMemory};
use ringkit_ring::{
    Comparison, Desc, Dialect, Operation, Ring, RingOptions, Snapshot, State, Strategy, find_difference,
    merge, remove_tombstones,
};
use ringkit_runtime::{CancellationToken, Clock, Meter, Service as _};

#[path = "../../crates/ring/tests/it/answers.rs"]
mod answers;
#[path = "../../crates/ring/tests/it/plain.rs"]
mod plain;

use answers::{OPERATIONS, difference, telling_keys};
use plain::Plain;

/// How a question to two rings lies in the input: this many bytes, then both rings as bare protobuf.
///
/// Options, operation, time and both fixes, where the second ring begins (2 bytes, little end first), key (4 bytes), one to spare.
const HEADER: usize = 10;

/// Instances beyond these make each run slow and say nothing new.
const MOST_INSTANCES: usize = 40;

/// Times to ask at: those that fuzzers find by themselves in entries, and the ends.
const TIMES: [i64; 8] = [100, 160, 1_000, 0, -1, i64::MIN, i64::MAX, 1_700_000_000];

struct Question {
    options: RingOptions,
    op: Operation,
    now: i64,
    keys: [u32; 2],
    first: Desc,
    second: Desc,
}

impl Question {
    fn read(bytes: &[u8]) -> Option<Self> {
        let (&[how, op, when, low, high, a, b, c, d, spare], rings) = bytes.split_first_chunk::<HEADER>()?;
        let (first, second) = rings.split_at_checked(usize::from(u16::from_le_bytes([low, high])))?;
        let ring = |proto: &[u8]| Desc::decode(&snap::raw::Encoder::new().compress_vec(proto).ok()?).ok();
        let options = RingOptions {
            replication_factor: usize::from(how & 7),
            zone_awareness_enabled: how & 8 != 0,
            strategy: if how & 16 != 0 { Strategy::IgnoreUnhealthy } else { Strategy::Quorum },
            heartbeat_timeout: Duration::from_secs(if how & 32 != 0 { 0 } else { 60 }),
            max_vanish_fraction: 0.0,
            dialect: if how & 128 != 0 { Dialect::Dskit } else { Dialect::Cortex },
            zones_with_tokens_only: when & 16 != 0,
            merge_winner_owns_duplicates: when & 32 != 0,
            excluded_zones: if how & 64 != 0 { vec!["b".into()] } else { Vec::new() },
            ..RingOptions::default()
        };
        let key = u32::from_le_bytes([a, b, c, d]);
        let question = Self {
            options,
            op: OPERATIONS[usize::from(op) % OPERATIONS.len()],
            now: TIMES[usize::from(when) % TIMES.len()],
            keys: [key, key.rotate_left(u32::from(spare))],
            first: ring(first)?,
            second: ring(second)?,
        };
        (question.first.len().max(question.second.len()) <= MOST_INSTANCES).then_some(question)
    }
}

/// Two rings that anybody may have stored: every lookup agrees with Cortex told in plain words, a merge keeps its laws, and
/// following from one to the other ends where beginning with the other begins.
pub fn ring_lookup(bytes: &[u8]) {
    let Some(question) = Question::read(bytes) else { return };
    look_up(&question);
    merges(&question);
    follow(&question);
}

fn look_up(question: &Question) {
    let Question { options, op, now, keys, first, .. } = question;
    let snapshot = Snapshot::first_sight(first, *now, options);
    let plain = Plain::new(first, *now, options);
    let text = |error: ringkit_ring::Error| error.to_string();
    assert_eq!(answers::replication_set(&snapshot, *op, *now).map_err(text), plain.replication_set(*op));
    for key in telling_keys(&snapshot, keys, 4) {
        assert_eq!(
            answers::get(&snapshot, key, *op, *now).map_err(text),
            plain.get(key, *op),
            "key {key}, operation {:#x}",
            op.bits()
        );
    }
    let again = Snapshot::first_sight(&Desc::decode(&first.encode()).unwrap_or_default(), *now, options);
    assert_eq!(difference(&snapshot, &again, keys, *now), None, "read again");
    let _ = first.check_ready(*now, options.heartbeat_timeout);
    shards(question, &snapshot);
}

/// A shard answers as a ring made of copies of its members; where a token is claimed twice, it may know of an owner outside.
fn shards(question: &Question, snapshot: &Snapshot) {
    let Question { options, op, now, keys, .. } = question;
    if snapshot.duplicate_tokens() > 0 {
        return;
    }
    for size in [1, 2, 5] {
        let shard = snapshot.shuffle_shard("tenant", size);
        let copy: Desc = shard.instances().map(|one| (one.id.clone(), Arc::clone(&one.desc))).collect();
        let copy = Snapshot::build(&copy, |id, _| snapshot.seen(id).unwrap_or(0), options);
        assert_eq!(shard.split_by_health(*op, *now), copy.split_by_health(*op, *now));
        let told = |set: ringkit_ring::Replicas<'_>| set.to_set();
        assert_eq!(
            shard.replication_set(*op, *now).map(told),
            copy.replication_set(*op, *now).map(told),
            "shard of {size}"
        );
        for key in telling_keys(&copy, keys, 3) {
            let (found, expected) = (shard.get(key, *op, *now).map(told), copy.get(key, *op, *now).map(told));
            assert_eq!(found, expected, "key {key} in a shard of {size}");
        }
    }
}

fn merges(question: &Question) {
    let Question { now, first, second, .. } = question;
    for local_cas in [false, true] {
        let mut local = Desc::new();
        merge(&mut local, first, false, *now);
        let merged = merge(&mut local, second, local_cas, *now);
        for (id, entry) in merged.change.iter().flatten() {
            assert_eq!(local.get(id), Some(entry), "a change is what is there");
            assert!(entry.tokens.is_normal() && (entry.state != State::Left || entry.tokens.is_empty()));
        }
        if local.iter().any(|(_, entry)| entry.state == State::Joining) && merged.change.is_some() {
            let tokens = local.all_tokens();
            assert!(tokens.is_sorted_by(|a, b| a < b), "claims are settled while somebody joins");
        }
        let once = local.clone();
        assert_eq!(merge(&mut local, second, local_cas, *now).change, None, "a second time changes nothing");
        assert_eq!(local, once);
        assert_eq!(local.compare(&once), Comparison::Equal);
        let (left, removed) = remove_tombstones(&mut local, Some(*now));
        assert_eq!(left + removed + others(&local), once.len());
    }
    let mut new = second.clone();
    let difference = find_difference(Some(first), Some(&mut new));
    assert!(difference.to_delete.iter().all(|id| first.contains(id) && !second.contains(id)));
    assert!(difference.to_update.iter().all(|(id, entry)| new.get(id) == Some(entry)));
}

fn others(desc: &Desc) -> usize {
    desc.iter().filter(|(_, entry)| entry.state != State::Left).count()
}

/// What a reader shows of a ring.
fn visible(desc: &Desc, options: &RingOptions) -> Desc {
    let mut shown = desc.clone();
    shown.retain(|_, entry| !options.excluded_zones.iter().any(|zone| entry.zone == *zone));
    shown
}

fn shown(ring: &Ring) -> Desc {
    let snapshot = ring.snapshot();
    snapshot.instances().iter().map(|instance| (instance.id.clone(), Arc::clone(&instance.desc))).collect()
}

fn follow(question: &Question) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
    let Ok(runtime) = runtime else { return };
    runtime.block_on(async {
        let Question { options, now, keys, first, second, .. } = question;
        let now = (*now).clamp(-1_000_000, 10_000_000_000);
        let client: Client<Desc> = Client::new(Arc::new(InMemory::default()), &Meter::disabled());
        for (id, entry) in first {
            assert!(client.upsert_own("ring", id, entry).await.is_ok());
        }
        let (clock, _hand) = Clock::manual(now * 1000);
        let (ring, mut service) = Ring::new(options.clone(), client.clone(), clock, &Meter::disabled());
        let stop = CancellationToken::new();
        assert!(service.start(&stop).await.is_ok());
        assert_eq!(shown(&ring), visible(first, options));

        for (id, entry) in second {
            assert!(client.upsert_own("ring", id, entry).await.is_ok());
        }
        // Whoever is in both stays; of the others, every second one leaves.
        let gone: BTreeSet<_> =
            first.iter().map(|(id, _)| id.clone()).filter(|id| !second.contains(id)).step_by(2).collect();
        for id in &gone {
            assert!(client.remove_own("ring", id).await.is_ok());
        }
        let mut stored = first.clone();
        second.iter().for_each(|(id, entry)| drop(stored.insert(id.clone(), Arc::clone(entry))));
        stored.retain(|id, _| !gone.contains(id));
        let expected = visible(&stored, options);
        let reached = async {
            for _ in 0..10_000 {
                if shown(&ring) == expected {
                    return true;
                }
                tokio::task::yield_now().await;
            }
            false
        };
        let reached = tokio::select! { _ = service.run(stop) => false, reached = reached => reached };
        assert!(reached, "the ring never shows what is stored");
        let followed = ring.snapshot();
        let scratch = Snapshot::build(&stored, |id, _| followed.seen(id).unwrap_or(0), options);
        assert_eq!(difference(&followed, &scratch, &telling_keys(&scratch, keys, 2), now), None, "followed");
    });
}
