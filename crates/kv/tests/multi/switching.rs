//! How the primary changes, and what holds meanwhile.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use ringkit_config::{KvStore, MultiConfig, ReadMode};
use ringkit_kv::{Applied, Change, Error, Key, Precondition, Store as _, Value as _};
use ringkit_ring::{Desc, InstanceDesc, State};
use ringkit_testkit::eventually_ok;
use tokio::time::{Instant, sleep, timeout};

use crate::world::{HEARTBEAT, KEY, SOON, Weather, World, config, holds, ids, instance};

const MINUTE: Duration = Duration::from_secs(60);

fn ring() -> Key {
    Key::new(KEY, Desc::codec())
}

fn upsert(id: &str, entry: &InstanceDesc) -> Change {
    Change::upsert(id, Desc::encode_entry(entry))
}

#[tokio::test(start_paused = true)]
async fn a_write_that_is_under_way_ends_in_the_old_primary_and_comes_to_the_new_one() {
    let world = World::new();
    let process = world.process(config());
    process.client.upsert_own(KEY, "i1", &instance(world.now(), State::Active)).await.unwrap();
    holds(&world.memberlist, &["i1"]).await;
    let read = process.multi.get(&ring()).await.unwrap().unwrap();
    world.consul.set_latency(Duration::from_secs(1));
    let (multi, when) = (Arc::clone(&process.multi), Precondition::Version(Some(read.version)));
    let change = upsert("i2", &instance(world.now(), State::Active));
    let writing = tokio::spawn(async move { multi.apply(&ring(), change, when).await });
    sleep(Duration::from_millis(100)).await;
    process.says(|runtime| (runtime.primary, runtime.force) = (Some(KvStore::Memberlist), true));
    sleep(Duration::from_millis(100)).await;
    assert_eq!(process.report().primary, "memberlist");
    let written = writing.await.unwrap().unwrap();
    assert!(matches!(&written, Applied::Done(stored) if stored.entries.contains_key("i2")), "{written:?}");
    for store in [&world.consul, &world.memberlist] {
        holds(store, &["i1", "i2"]).await;
    }
    // What was read before builds on another primary.
    let change = upsert("i3", &instance(world.now(), State::Active));
    assert_eq!(process.multi.apply(&ring(), change.clone(), when).await.unwrap(), Applied::Conflict);
    let read = process.multi.get(&ring()).await.unwrap().unwrap();
    let when = Precondition::Version(Some(read.version));
    assert!(matches!(process.multi.apply(&ring(), change, when).await.unwrap(), Applied::Done(_)));
}

#[tokio::test(start_paused = true)]
async fn a_decision_does_not_overlook_what_only_the_secondary_knows_yet() {
    let world = World::new();
    let process = world.process(config());
    process.client.upsert_own(KEY, "i1", &instance(world.now(), State::Active)).await.unwrap();
    holds(&world.memberlist, &["i1"]).await;
    let read = process.multi.get(&ring()).await.unwrap().unwrap();
    let newer = instance(world.now() + 1, State::Active);
    world.memberlist.direct().upsert_own(KEY, "i1", &newer).await.unwrap();
    sleep(Duration::from_millis(100)).await;
    let when = Precondition::Version(Some(read.version));
    let removed = process.multi.apply(&ring(), Change::remove("i1"), when).await.unwrap();
    assert_eq!(removed, Applied::Conflict, "it was seen with another heartbeat");
    // Of others it does not matter.
    let other = upsert("i2", &instance(world.now(), State::Active));
    let written = process.multi.apply(&ring(), other, when).await.unwrap();
    assert!(matches!(written, Applied::Done(_)));
}

#[tokio::test(start_paused = true)]
async fn an_earlier_generation_and_an_unknown_store_change_nothing() {
    let world = World::new();
    let process = world.process(config());
    process.client.upsert_own(KEY, "i1", &instance(world.now(), State::Active)).await.unwrap();
    process.says(|runtime| (runtime.primary, runtime.generation) = (Some(KvStore::Memberlist), 2));
    process.is_on("memberlist").await;
    let applied_at_ms = process.report().switch.applied_at_ms;
    assert!(applied_at_ms.is_some());
    process.says(|runtime| (runtime.primary, runtime.generation) = (Some(KvStore::Consul), 1));
    sleep(MINUTE).await;
    let report = process.report();
    assert_eq!((report.primary.as_str(), report.switch.generation), ("memberlist", 2));
    assert_eq!(report.switch.applied_at_ms, applied_at_ms);
    process.says(|runtime| (runtime.primary, runtime.generation) = (Some(KvStore::Etcd), 3));
    sleep(MINUTE).await;
    assert_eq!(process.report().primary, "memberlist");
    // Nothing said is nothing taken back.
    process.says(|runtime| (runtime.primary, runtime.generation) = (None, 4));
    sleep(MINUTE).await;
    let report = process.report();
    assert_eq!((report.primary.as_str(), report.mirror, report.epoch), ("memberlist", true, 2));
    // A ring may go its own way.
    process.says(|runtime| {
        let own = ringkit_kv::multi::PerRing { primary: Some(KvStore::Consul), mirror_enabled: None };
        runtime.per_ring.insert("test".into(), own);
        runtime.generation = 5;
    });
    process.is_on("consul").await;
}

#[tokio::test(start_paused = true)]
async fn the_gate_is_shut_while_the_other_store_lags_and_can_be_overridden() {
    let world = World::new();
    let process = world.process(config());
    world.beats(&process.client, "i1");
    holds(&world.memberlist, &["i1"]).await;
    sleep(HEARTBEAT / 2).await;
    assert!(process.report().switch.gate_open, "{:?}", process.report().switch);
    world.memberlist.set(Weather::Silent);
    process.says(|runtime| runtime.primary = Some(KvStore::Memberlist));
    sleep(MINUTE).await;
    let switch = process.report().switch;
    for reason in ["unreachable", "queue", "reconcile", "skew"] {
        assert!(switch.blocked.contains_key(reason), "{switch:?}");
    }
    assert_eq!(switch.wanted_primary.as_deref(), Some("memberlist"));
    assert!(process.multi.remarks().iter().any(|remark| remark.contains("has to wait")));
    world.memberlist.set(Weather::Fine);
    process.is_on("memberlist").await;
    // Back, although nobody would be there.
    world.consul.set(Weather::Refusing);
    sleep(MINUTE).await;
    process.says(|runtime| (runtime.primary, runtime.force) = (Some(KvStore::Consul), true));
    process.is_on("consul").await;
    assert_eq!(ids(&process.sees().await), ["i1"], "what was last known");
}

#[tokio::test(start_paused = true)]
async fn the_new_primary_is_asked_once_more_before_it_decides() {
    const SECOND: Duration = Duration::from_secs(1);
    let world = World::new();
    let process = world.process(config());
    process.client.upsert_own(KEY, "i1", &instance(world.now(), State::Active)).await.unwrap();
    sleep(HEARTBEAT).await;
    assert!(process.report().switch.gate_open, "{:?}", process.report().switch);
    world.memberlist.set_latency(SECOND);
    process.says(|runtime| runtime.primary = Some(KvStore::Memberlist));
    sleep(SECOND / 2).await;
    assert_eq!(process.report().primary, "consul", "the other one has not answered yet");
    sleep(SECOND).await;
    assert_eq!(process.report().primary, "memberlist");
    world.memberlist.set_latency(Duration::ZERO);
    sleep(HEARTBEAT).await;
    // Whoever thinks better of it meanwhile is heard.
    assert!(process.report().switch.gate_open, "{:?}", process.report().switch);
    world.consul.set_latency(SECOND);
    process.says(|runtime| runtime.primary = Some(KvStore::Consul));
    sleep(SECOND / 2).await;
    process.says(|runtime| runtime.primary = Some(KvStore::Memberlist));
    sleep(MINUTE).await;
    let report = process.report();
    assert_eq!((report.primary.as_str(), report.epoch), ("memberlist", 2));
    // One that falls silent just then is not taken, but by force.
    world.consul.set_latency(Duration::ZERO);
    world.consul.set(Weather::Refusing);
    process.says(|runtime| runtime.primary = Some(KvStore::Consul));
    sleep(MINUTE).await;
    let report = process.report();
    assert!(
        report.primary == "memberlist" && report.switch.blocked.contains_key("unreachable"),
        "{report:?}"
    );
    process.says(|runtime| runtime.force = true);
    process.is_on("consul").await;
}

#[tokio::test(start_paused = true)]
async fn a_switch_that_waits_too_long_is_given_up_until_it_is_asked_for_again() {
    let world = World::new();
    let patience = Duration::from_secs(20);
    let process = world.process(MultiConfig { switch_gate_timeout: patience, ..config() });
    world.beats(&process.client, "i1");
    world.memberlist.set(Weather::Silent);
    process.says(|runtime| runtime.primary = Some(KvStore::Memberlist));
    sleep(MINUTE).await;
    assert!(process.report().switch.given_up);
    world.memberlist.set(Weather::Fine);
    sleep(2 * MINUTE).await;
    assert_eq!(process.report().primary, "consul");
    process.says(|runtime| runtime.generation += 1);
    process.is_on("memberlist").await;
}

#[tokio::test(start_paused = true)]
async fn mirroring_ends_only_once_the_secondary_has_nothing_that_the_primary_lacks() {
    let world = World::new();
    // Nobody brings to the primary what it lacks.
    let process = world.process(MultiConfig { reconcile_interval: Duration::ZERO, ..config() });
    process.client.upsert_own(KEY, "i1", &instance(world.now(), State::Active)).await.unwrap();
    sleep(Duration::from_secs(10)).await;
    let foreign = instance(world.now(), State::Active);
    world.memberlist.direct().upsert_own(KEY, "i2", &foreign).await.unwrap();
    process.says(|runtime| runtime.mirror_enabled = Some(false));
    sleep(MINUTE / 2).await;
    let report = process.report();
    assert!(report.mirror && report.switch.blocked.contains_key("foreign"), "{report:?}");
    assert_eq!(report.keys[0].foreign.ids, ["i2"]);
    assert_eq!(ids(&process.sees().await), ["i1", "i2"], "until then both are seen");
    // It is not heard of again.
    sleep(MINUTE).await;
    let report = process.report();
    assert!(!report.mirror && report.switch.blocked.is_empty(), "{report:?}");
    assert_eq!(ids(&process.sees().await), ["i1"]);
    process.client.upsert_own(KEY, "i3", &instance(world.now(), State::Active)).await.unwrap();
    sleep(MINUTE).await;
    assert_eq!(ids(&world.memberlist.holds().await), ["i1", "i2"], "nothing is mirrored any more");
}

#[tokio::test(start_paused = true)]
async fn a_store_that_lost_everything_is_filled_again_and_nobody_notices() {
    let world = World::new();
    let (one, two) = (world.process(config()), world.process(config()));
    world.beats(&one.client, "i1");
    world.beats(&two.client, "i2");
    let single = world.consul.direct();
    world.beats(&single, "i3");
    for store in [&world.consul, &world.memberlist] {
        holds(store, &["i1", "i2", "i3"]).await;
    }
    let lapses = world.observe(&two.client, &["i1", "i2"]);
    for store in [&world.memberlist, &world.consul] {
        store.direct().delete(KEY).await.unwrap();
        // Sooner than with the next heartbeats, which come every five seconds.
        let filled = || async {
            let held = store.holds().await;
            if held.len() == 3 { Ok(()) } else { Err(format!("{held:?}")) }
        };
        eventually_ok(Duration::from_secs(4), filled).await.unwrap();
        sleep(MINUTE).await;
    }
    assert_eq!(lapses.load(Ordering::Relaxed), 0);
}

#[tokio::test(start_paused = true)]
async fn what_was_removed_does_not_come_back() {
    let world = World::new();
    let (one, two) = (world.process(config()), world.process(config()));
    world.beats(&two.client, "i2");
    let leaves = instance(world.now(), State::Leaving);
    one.client.upsert_own(KEY, "i1", &leaves).await.unwrap();
    for store in [&world.consul, &world.memberlist] {
        holds(store, &["i1", "i2"]).await;
    }
    // The other one hears of it late.
    world.memberlist.set(Weather::Silent);
    one.client.remove_own(KEY, "i1").await.unwrap();
    sleep(Duration::from_secs(10)).await;
    assert_eq!(ids(&world.memberlist.holds().await), ["i1", "i2"]);
    for process in [&one, &two] {
        assert_eq!(ids(&process.sees().await), ["i2"], "a mark hides it");
        assert_eq!(process.report().keys[0].num_marks, 1);
    }
    world.memberlist.set(Weather::Fine);
    holds(&world.memberlist, &["i2"]).await;
    sleep(2 * MINUTE).await;
    for store in [&world.consul, &world.memberlist] {
        assert_eq!(ids(&store.holds().await), ["i2"]);
    }
    // Who comes anew is welcome.
    one.client.upsert_own(KEY, "i1", &instance(world.now(), State::Active)).await.unwrap();
    holds(&world.memberlist, &["i1", "i2"]).await;
    assert_eq!(ids(&two.sees().await), ["i1", "i2"]);
    sleep(10 * MINUTE).await;
    assert_eq!(two.report().keys[0].num_marks, 0, "marks are forgotten in the end");
}

#[tokio::test(start_paused = true)]
async fn a_removal_that_only_one_of_two_processes_knows_of_holds() {
    let world = World::new();
    let (one, two) = (world.process(config()), world.process(config()));
    world.beats(&two.client, "i2");
    one.client.upsert_own(KEY, "i1", &instance(world.now(), State::Active)).await.unwrap();
    for store in [&world.consul, &world.memberlist] {
        holds(store, &["i1", "i2"]).await;
    }
    // Active, and gone: to the other process that looks like a loss.
    one.client.remove_own(KEY, "i1").await.unwrap();
    for store in [&world.consul, &world.memberlist] {
        holds(store, &["i2"]).await;
    }
    sleep(2 * MINUTE).await;
    for store in [&world.consul, &world.memberlist] {
        assert_eq!(ids(&store.holds().await), ["i2"]);
    }
    assert_eq!(ids(&two.sees().await), ["i2"]);
}

#[tokio::test(start_paused = true)]
async fn a_key_is_deleted_in_both_also_if_one_of_them_is_away() {
    for silent in [KvStore::Consul, KvStore::Memberlist] {
        let world = World::new();
        let process = world.process(config());
        process.client.upsert_own(KEY, "i1", &instance(world.now(), State::Active)).await.unwrap();
        holds(&world.memberlist, &["i1"]).await;
        let store = if silent == KvStore::Consul { &world.consul } else { &world.memberlist };
        store.set(Weather::Silent);
        sleep(Duration::from_secs(20)).await;
        process.client.delete(KEY).await.unwrap();
        assert!(process.client.get(KEY).await.unwrap().is_none(), "{silent}");
        assert!(process.client.list("").await.unwrap().is_empty(), "{silent}");
        store.set(Weather::Fine);
        for store in [&world.consul, &world.memberlist] {
            let gone = || async {
                let view = store.direct().get(KEY).await.unwrap();
                if view.is_none() { Ok(()) } else { Err(format!("{view:?}")) }
            };
            eventually_ok(SOON, gone).await.unwrap();
        }
        sleep(MINUTE).await;
        assert!(process.client.get(KEY).await.unwrap().is_none(), "{silent}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_process_starts_with_the_secondary_if_the_primary_is_silent_for_long() {
    let world = World::new();
    let now = world.now();
    world.memberlist.direct().upsert_own(KEY, "i1", &instance(now, State::Active)).await.unwrap();
    world.consul.set(Weather::Silent);
    world.consul.set_synced(false);
    let process = world.process(config());
    let began = Instant::now();
    let mut synced = process.client.synced();
    let mut watch = process.client.watch(KEY).await.unwrap();
    let error = process.client.get(KEY).await.unwrap_err();
    assert!(matches!(error, Error::Deadline { .. }), "{error}");
    let first = watch.next().await.unwrap();
    let waited = began.elapsed();
    assert!((10_000..12_000).contains(&waited.as_millis()), "{waited:?}");
    assert_eq!(first.changed, ["i1"]);
    synced.wait_for(|synced| *synced).await.unwrap();
    process.client.upsert_own(KEY, "i2", &instance(world.now(), State::Active)).await.unwrap();
    assert_eq!(ids(&process.sees().await), ["i1", "i2"]);
    // What the secondary alone has, and nobody renews, counts no longer than it is fresh. What this process wrote is on its way to
    // the primary, and counts as there.
    sleep(2 * MINUTE).await;
    assert_eq!(ids(&process.sees().await), ["i2"]);
    world.consul.set_synced(true);
    world.consul.set(Weather::Fine);
    holds(&world.consul, &["i2"]).await;
}

#[tokio::test(start_paused = true)]
async fn a_secondary_that_is_not_synced_neither_counts_nor_delays() {
    let world = World::new();
    let now = world.now();
    world.memberlist.direct().upsert_own(KEY, "i2", &instance(now, State::Active)).await.unwrap();
    world.memberlist.set_synced(false);
    let process = world.process(config());
    process.client.upsert_own(KEY, "i1", &instance(now, State::Active)).await.unwrap();
    sleep(Duration::from_secs(5)).await;
    assert_eq!(ids(&process.sees().await), ["i1"]);
    assert!(!process.report().secondary_counts && *process.client.synced().borrow());
    assert_eq!(world.memberlist.num_writes(), 0);
    world.memberlist.set_synced(true);
    sleep(Duration::from_secs(5)).await;
    assert_eq!(ids(&process.sees().await), ["i1", "i2"]);
    holds(&world.consul, &["i1", "i2"]).await;
}

#[tokio::test(start_paused = true)]
async fn two_stores_of_one_process_over_the_same_key_do_not_fight() {
    let world = World::new();
    let lifecycler = world.process(config());
    let ring = world.twin(&lifecycler, config());
    world.beats(&lifecycler.client, "i1");
    let lapses = world.observe(&ring.client, &["i1"]);
    holds(&world.memberlist, &["i1"]).await;
    let before = [world.consul.num_writes(), world.memberlist.num_writes()];
    sleep(10 * HEARTBEAT).await;
    let after = [world.consul.num_writes(), world.memberlist.num_writes()];
    let writes = [after[0] - before[0], after[1] - before[1]];
    assert!(writes.iter().all(|writes| (9..=11).contains(writes)), "only heartbeats: {writes:?}");
    assert_eq!(lapses.load(Ordering::Relaxed), 0);
    // Both follow the same runtime configuration.
    lifecycler.says(|runtime| runtime.primary = Some(KvStore::Memberlist));
    lifecycler.is_on("memberlist").await;
    ring.is_on("memberlist").await;
}

#[tokio::test(start_paused = true)]
async fn what_is_on_its_way_is_waited_for_at_the_end() {
    let world = World::new();
    let process = world.process(config());
    process.client.upsert_own(KEY, "i1", &instance(world.now(), State::Leaving)).await.unwrap();
    holds(&world.memberlist, &["i1"]).await;
    world.memberlist.set_latency(Duration::from_secs(1));
    process.client.remove_own(KEY, "i1").await.unwrap();
    let began = Instant::now();
    assert!(process.multi.drain().await);
    assert!(began.elapsed() >= Duration::from_secs(1));
    assert!(world.memberlist.holds().await.is_empty());
    world.memberlist.set(Weather::Silent);
    process.client.upsert_own(KEY, "i1", &instance(world.now(), State::Active)).await.unwrap();
    let began = Instant::now();
    assert!(!process.multi.drain().await);
    assert_eq!(began.elapsed().as_secs(), 5, "and no longer than configured");
}

#[tokio::test(start_paused = true)]
async fn a_watch_ends_with_the_store() {
    let world = World::new();
    let process = world.process(MultiConfig { read_mode: ReadMode::Union, ..config() });
    let mut watch = process.client.watch(KEY).await.unwrap();
    assert!(watch.next().await.unwrap().value.is_none());
    drop(process);
    assert!(timeout(SOON, watch.next()).await.unwrap().is_none());
}
