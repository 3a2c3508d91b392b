//! Keys and tenants that end up where they should not.

use std::sync::Arc;

use ringkit_kv::{Client, InMemory};
use ringkit_ring::{Desc, InstanceDesc, Operation, Ring, RingOptions, Shard, Snapshot, State, merge};
use ringkit_runtime::{Clock, Meter, ServiceHandle};

use crate::answers;
use crate::support::active;

const NOW: i64 = 1000;

fn zone_aware() -> RingOptions {
    RingOptions { zone_awareness_enabled: true, ..RingOptions::default() }
}

fn owner(desc: &Desc, options: &RingOptions, key: u32) -> String {
    let one = RingOptions { replication_factor: 1, ..options.clone() };
    let found = answers::get(&Snapshot::first_sight(desc, NOW, &one), key, Operation::READ, NOW);
    found.unwrap().0.remove(0)
}

/// A token that two claim belongs to the greatest id for Cortex's readers, and to the smallest for its merge. By default
/// that is so here too, since all readers and writers of a ring must agree; and it can be seen.
#[test]
fn h18_a_token_claimed_twice_belongs_to_the_greatest_id_by_default_and_is_counted() {
    let mut desc: Desc = [active("a", "", &[10]), active("b", "", &[10, 20])].into_iter().collect();
    let snapshot = Snapshot::first_sight(&desc, NOW, &RingOptions::default());
    assert_eq!((snapshot.duplicate_tokens(), snapshot.tokens()), (1, &[10, 10, 20][..]));
    assert_eq!(owner(&desc, &RingOptions::default(), 5), "b");
    let rejoins =
        [("a", InstanceDesc { timestamp: NOW + 1, state: State::Joining, ..active("a", "", &[10]).1 })];
    merge(&mut desc, &rejoins.into_iter().collect(), false, NOW);
    assert_eq!(owner(&desc, &RingOptions::default(), 5), "a", "the merge leaves it with the smallest");
}

/// In the other dialect the owner of such a token is drawn by lot in every process, and the greatest token of all can be
/// lost when several hold it.
#[test]
fn h18_the_greatest_token_of_the_circle_is_not_lost_when_many_claim_it() {
    let desc: Desc = ["a", "b", "c"].map(|id| active(id, "", &[u32::MAX, 7])).into_iter().collect();
    let snapshot = Snapshot::first_sight(&desc, NOW, &RingOptions::default());
    assert_eq!(snapshot.tokens(), [7, 7, 7, u32::MAX, u32::MAX, u32::MAX]);
    for key in [7, u32::MAX - 1] {
        assert_eq!(owner(&desc, &RingOptions::default(), key), "c");
    }
}

/// One PENDING instance without tokens in a new zone lowers the replicas of every key from three to two in Cortex, whose
/// quota counts that zone. By default that is so here too, since all must agree.
#[test]
fn h19_a_zone_without_tokens_takes_a_share_of_the_quota_by_default() {
    let mut desc: Desc = [
        active("a1", "a", &[10]),
        active("a2", "a", &[20]),
        active("b1", "b", &[30]),
        active("b2", "b", &[40]),
    ]
    .into_iter()
    .collect();
    let replicas = |desc: &Desc, options: &RingOptions| {
        answers::get(&Snapshot::first_sight(desc, NOW, options), 5, Operation::WRITE, NOW).unwrap()
    };
    assert_eq!(replicas(&desc, &zone_aware()).0, ["a1", "a2", "b1"]);
    let mut pending = active("c1", "c", &[]);
    pending.1.state = State::Pending;
    desc.insert(pending.0, pending.1);
    assert_eq!(replicas(&desc, &zone_aware()), (vec!["a1".to_owned(), "b1".to_owned()], 0, 0));
}

/// Where quotas cannot be met Cortex visits all tokens for every key, and dskit stops early; who is found is the same.
#[test]
fn a_quota_that_cannot_be_met_ends_with_those_who_can() {
    // Nine LEAVING in one zone, which extend and never fill it; nobody to replace them.
    let mut desc: Desc = (0..9u32).map(|n| active(&format!("a{n}"), "a", &[n, n + 100, n + 200])).collect();
    for n in 0..9 {
        let mut leaving = (**desc.get(&format!("a{n}")).unwrap()).clone();
        leaving.state = State::Leaving;
        desc.insert(format!("a{n}"), leaving);
    }
    for (id, entry) in [active("b", "b", &[1_000]), active("c", "c", &[2_000])] {
        desc.insert(id, entry);
    }
    let snapshot = Snapshot::first_sight(&desc, NOW, &zone_aware());
    let found = answers::get(&snapshot, 5, Operation::WRITE, NOW).unwrap();
    assert_eq!(found, (vec!["b".to_owned(), "c".to_owned()], 0, 0));
}

/// With the fix switched on, in all readers and writers of a ring, lookups and merge name the same owner.
#[test]
fn h18_with_the_fix_a_token_belongs_to_whom_a_merge_leaves_it() {
    let fixed = RingOptions { merge_winner_owns_duplicates: true, ..RingOptions::default() };
    let states = [State::Active, State::Leaving, State::Left, State::Joining, State::ReadOnly];
    for first in states {
        for second in states {
            let entry = |id: &str, state| (id.to_owned(), InstanceDesc { state, ..active(id, "", &[10]).1 });
            let desc: Desc = [entry("a", first), entry("b", second)].into_iter().collect();
            let mut merged = Desc::new();
            merge(&mut merged, &desc, false, NOW);
            let keeps = |id: &str| merged.get(id).is_some_and(|entry| !entry.tokens.is_empty());
            let Some(winner) = ["a", "b"].into_iter().find(|id| keeps(id)) else { continue };
            let one = RingOptions { replication_factor: 1, ..fixed.clone() };
            let set = answers::get(&Snapshot::first_sight(&desc, NOW, &one), 5, Operation::REPORTING, NOW);
            assert_eq!(set.unwrap().0, [winner], "{first} and {second}");
        }
    }
}

/// With the fix switched on, in all readers and writers of a ring, a zone shares the replicas once it owns a token.
#[test]
fn h19_with_the_fix_a_zone_shares_replicas_once_it_owns_tokens() {
    let fixed = RingOptions { zones_with_tokens_only: true, ..zone_aware() };
    let mut desc: Desc = [("a1", "a", 10), ("a2", "a", 20), ("b1", "b", 30), ("b2", "b", 40)]
        .map(|(id, zone, token)| active(id, zone, &[token]))
        .into_iter()
        .collect();
    let replicas = |desc: &Desc| {
        answers::get(&Snapshot::first_sight(desc, NOW, &fixed), 5, Operation::WRITE, NOW).unwrap().0
    };
    assert_eq!(replicas(&desc), ["a1", "a2", "b1"]);
    let (id, entry) = active("c1", "c", &[]);
    desc.insert(id.clone(), InstanceDesc { state: State::Pending, ..entry });
    assert_eq!(replicas(&desc), ["a1", "a2", "b1"]);
    desc.insert(id, active("c1", "c", &[50]).1);
    assert_eq!(replicas(&desc), ["a1", "b1", "c1"]);
}

/// Thirty instances in three zones, all registered long ago.
fn thirty() -> Desc {
    let zone = |n: u32| ["a", "b", "c"][n as usize % 3];
    (0..30u32).map(|n| active(&format!("i{n:02}"), zone(n), &[n * 140_000_000, n * 77_000_001 + 5])).collect()
}

fn ids(shard: &Shard<'_>) -> Vec<String> {
    shard.instances().map(|instance| instance.id.to_string()).collect()
}

/// A tenant's part of a ring forgets in Cortex which key of the store it was read from: on a store that has its own idea of
/// when instances were heard, the dead among a tenant's instances look alive, and nobody is found by address.
#[test]
fn h02_a_shard_judges_heartbeats_as_its_ring_does_and_finds_members_by_address() {
    let ring = thirty();
    // The store's word counts, not the timestamps: it last heard of the even ones a minute and a second ago.
    let even = |id: &str| id.as_bytes().last().is_some_and(|digit| digit.is_multiple_of(2));
    let seen = |id: &ringkit_kv::EntryId, _: &InstanceDesc| if even(id) { NOW - 61 } else { NOW };
    let snapshot = Snapshot::build(&ring, seen, &zone_aware());
    let shard = snapshot.shuffle_shard("tenant", 9);
    let members = ids(&shard);
    assert_eq!((members.len(), shard.is_whole()), (9, false));
    let (healthy, dead): (Vec<_>, Vec<_>) = members.iter().partition(|id| !even(id));
    assert!(!healthy.is_empty() && !dead.is_empty());
    let (found, lost) = shard.split_by_health(Operation::WRITE, NOW).unwrap();
    assert!(found.iter().map(|instance| instance.id.as_str()).eq(healthy));
    assert!(lost.iter().map(|instance| instance.id.as_str()).eq(dead));
    for id in &members {
        assert_eq!(shard.id_by_addr(&format!("{id}:1")).unwrap(), id);
    }
    assert!(shard.id_by_addr("nobody:1").is_none());
}

/// Who becomes READONLY makes room for another in every shard. Cortex drops its cache then, but a shard that was worked out
/// just before and is stored just after stays, one member short, until somebody joins or leaves.
#[tokio::test]
async fn h03_a_shard_worked_out_for_an_older_ring_is_never_given_for_a_newer_one() {
    let client: Client<Desc> = Client::new(Arc::new(InMemory::default()), &Meter::disabled());
    for (id, entry) in &thirty() {
        client.upsert_own("ring", id, entry).await.unwrap();
    }
    let (ring, service) =
        Ring::new(zone_aware(), client.clone(), Clock::manual(NOW * 1000).0, &Meter::disabled());
    let service = ServiceHandle::new("ring", Box::new(service));
    service.start_async().unwrap();
    service.await_running().await.unwrap();

    let old = ring.snapshot();
    let leaver = ids(&old.shuffle_shard("a tenant who asks early", 3)).remove(0);
    let read_only = InstanceDesc {
        state: State::ReadOnly,
        timestamp: NOW + 1,
        ..(**thirty().get(&leaver).unwrap()).clone()
    };
    client.upsert_own("ring", &leaver, &read_only).await.unwrap();
    while ring.snapshot().instance(&leaver).is_none_or(|instance| instance.state() != State::ReadOnly) {
        tokio::task::yield_now().await;
    }
    let new = ring.snapshot();
    for tenant in ["a tenant who asks early", "late"] {
        for size in [1, 3, 9] {
            // Worked out for the old ring, and kept there, after the new one was published.
            let before = ids(&old.shuffle_shard(tenant, size));
            let fresh = Snapshot::build(&whole(&new), |_, _| NOW, &zone_aware());
            let expected = ids(&fresh.shuffle_shard(tenant, size));
            assert_eq!(ids(&new.shuffle_shard(tenant, size)), expected, "{tenant}, {size}");
            assert_eq!(ids(&old.shuffle_shard(tenant, size)), before, "the old ring keeps its own");
        }
    }
    assert_eq!(ids(&new.shuffle_shard("a tenant who asks early", 3)).len(), 4);
}

fn whole(snapshot: &Snapshot) -> Desc {
    snapshot.instances().iter().map(|one| (one.id.clone(), Arc::clone(&one.desc))).collect()
}

/// Finding a tenant's shard in the cache takes a write lock in Cortex and rewrites every entry of one object that all
/// requests of the tenant share. Here the same selection serves views of several snapshots at once, each with its own states
/// and heartbeats, none of which changes under who holds it.
#[test]
fn h08_a_shard_from_the_cache_is_a_view_that_nobody_changes() {
    let old = Snapshot::first_sight(&thirty(), NOW, &zone_aware());
    let cold = old.shuffle_shard("tenant", 9);
    let held = old.shuffle_shard("tenant", 9);
    let leaving = ids(&held).remove(4);
    let mut desc = thirty();
    desc.insert(
        leaving.clone(),
        InstanceDesc { state: State::Leaving, ..(**desc.get(&leaving).unwrap()).clone() },
    );
    let new = Snapshot::first_sight(&desc, NOW, &zone_aware());
    let newer = new.shuffle_shard("tenant", 9);
    assert_eq!((ids(&held), ids(&newer)), (ids(&cold), ids(&cold)), "the same members");
    let state = |shard: &Shard<'_>| shard.instances().find(|one| one.id == leaving).unwrap().state();
    assert_eq!((state(&held), state(&newer)), (State::Active, State::Leaving));
    // Instances are those of the ring itself, not copies.
    assert!(held.instances().all(|one| Arc::ptr_eq(one, &old.instance(&one.id).unwrap())));
    // Many at once, each waiting for none: were there a lock to hold, this would not end.
    let views: Vec<_> = (0..100).map(|_| old.shuffle_shard("tenant", 9)).collect();
    assert!(views.iter().all(|view| ids(view) == ids(&cold)));
}
