//! What the other store is told, while others write to it and those who wrote go away.

use std::sync::atomic::Ordering;
use std::time::Duration;

use ringkit_config::MultiConfig;
use ringkit_kv::{Change, Key, Precondition, Store as _, Value as _};
use ringkit_ring::{Desc, State};
use tokio::time::{sleep, timeout};

use crate::world::{KEY, Process, World, config, holds, ids, instance};

const MOMENT: Duration = Duration::from_millis(100);
const SECOND: Duration = Duration::from_secs(1);

/// Soon the key is in neither store, and it does not come back.
async fn is_gone_for_good(world: &World, process: &Process) {
    holds(&world.memberlist, &[]).await;
    sleep(20 * SECOND).await;
    for store in [&world.memberlist, &world.consul] {
        assert!(store.holds().await.is_empty(), "it came back");
    }
    assert!(process.sees().await.is_empty());
}

#[tokio::test(start_paused = true)]
async fn an_entry_that_comes_late_does_not_replace_a_newer_one_where_each_has_a_key_of_its_own() {
    let world = World::new();
    world.memberlist.set_apart();
    let process = world.process(config());
    let now = world.now();
    process.client.upsert_own(KEY, "i1", &instance(now, State::Active)).await.unwrap();
    holds(&world.memberlist, &["i1"]).await;
    let direct = world.memberlist.direct();
    let lapses = world.observe(&direct, &["i1"]);
    world.memberlist.set_latency(SECOND);
    process.client.upsert_own(KEY, "i1", &instance(now + 1, State::Active)).await.unwrap();
    sleep(SECOND / 2).await;
    // Another life of the same instance, while that one is under way.
    direct.upsert_own(KEY, "i1", &instance(now + 9, State::Active)).await.unwrap();
    sleep(30 * SECOND).await;
    assert_eq!(world.memberlist.holds().await, [("i1".to_owned(), now + 9, State::Active)]);
    assert_eq!((lapses.load(Ordering::Relaxed), process.report().keys[0].queue_length), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn who_comes_while_a_key_is_being_removed_stays() {
    let world = World::new();
    let process = world.process(config());
    process.client.upsert_own(KEY, "i1", &instance(world.now(), State::Active)).await.unwrap();
    holds(&world.memberlist, &["i1"]).await;
    let direct = world.memberlist.direct();
    world.memberlist.set_latency(4 * MOMENT);
    process.client.delete(KEY).await.unwrap();
    // By now it was looked at, and is about to be removed.
    sleep(6 * MOMENT).await;
    assert_eq!(ids(&world.memberlist.holds().await), ["i1"]);
    direct.upsert_own(KEY, "i2", &instance(world.now(), State::Active)).await.unwrap();
    let lapses = world.observe(&direct, &["i2"]);
    for store in [&world.memberlist, &world.consul] {
        holds(store, &["i2"]).await;
    }
    sleep(10 * SECOND).await;
    assert_eq!(ids(&process.sees().await), ["i2"]);
    assert_eq!((lapses.load(Ordering::Relaxed), process.report().keys[0].queue_length), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn who_writes_before_a_removal_of_the_key_is_answered_stays() {
    let world = World::new();
    let process = world.process(config());
    process.client.upsert_own(KEY, "i1", &instance(world.now(), State::Active)).await.unwrap();
    holds(&world.memberlist, &["i1"]).await;
    world.consul.set_late(SECOND);
    let client = process.client.clone();
    let deleting = tokio::spawn(async move { client.delete(KEY).await });
    sleep(MOMENT).await;
    world.consul.set_late(Duration::ZERO);
    process.client.upsert_own(KEY, "i2", &instance(world.now(), State::Active)).await.unwrap();
    assert!(!deleting.is_finished());
    deleting.await.unwrap().unwrap();
    assert_eq!(ids(&process.sees().await), ["i2"]);
    for store in [&world.memberlist, &world.consul] {
        holds(store, &["i2"]).await;
    }
    sleep(20 * SECOND).await;
    for store in [&world.memberlist, &world.consul] {
        assert_eq!(ids(&store.holds().await), ["i2"]);
    }
    assert_eq!(ids(&process.sees().await), ["i2"]);
}

#[tokio::test(start_paused = true)]
async fn what_was_written_is_mirrored_although_its_writer_went_away() {
    let world = World::new();
    // Nobody else tells the other store.
    let process = world.process(MultiConfig { reconcile_interval: Duration::ZERO, ..config() });
    process.client.upsert_own(KEY, "i1", &instance(world.now(), State::Active)).await.unwrap();
    holds(&world.memberlist, &["i1"]).await;
    sleep(5 * SECOND).await;
    world.consul.set_late(SECOND);
    let entry = instance(world.now(), State::Active);
    assert!(timeout(MOMENT, process.client.upsert_own(KEY, "i2", &entry)).await.is_err());
    holds(&world.memberlist, &["i1", "i2"]).await;
    assert!(timeout(MOMENT, process.client.remove_own(KEY, "i1")).await.is_err());
    holds(&world.memberlist, &["i2"]).await;
    // What did not come to the store is not made up for.
    world.consul.set_latency(SECOND);
    assert!(timeout(MOMENT, process.client.upsert_own(KEY, "i3", &entry)).await.is_err());
    sleep(20 * SECOND).await;
    for store in [&world.memberlist, &world.consul] {
        assert_eq!(ids(&store.holds().await), ["i2"], "and what was removed did not come back");
    }
    assert_eq!(ids(&process.sees().await), ["i2"]);
}

#[tokio::test(start_paused = true)]
async fn a_key_is_removed_in_both_although_whoever_asked_for_it_went_away() {
    let world = World::new();
    let process = world.process(config());
    process.client.upsert_own(KEY, "i1", &instance(world.now(), State::Active)).await.unwrap();
    holds(&world.memberlist, &["i1"]).await;
    world.consul.set_late(SECOND);
    assert!(timeout(MOMENT, process.client.delete(KEY)).await.is_err());
    is_gone_for_good(&world, &process).await;
}

#[tokio::test(start_paused = true)]
async fn a_key_that_nobody_used_yet_is_removed_in_both() {
    let world = World::new();
    for store in [&world.memberlist, &world.consul] {
        store.direct().upsert_own(KEY, "i1", &instance(world.now(), State::Active)).await.unwrap();
    }
    let process = world.process(config());
    process.client.delete(KEY).await.unwrap();
    is_gone_for_good(&world, &process).await;
}

#[tokio::test(start_paused = true)]
async fn what_was_decided_is_mirrored_although_the_answer_of_the_store_is_lost() {
    let world = World::new();
    let process = world.process(config());
    for id in ["i1", "i2"] {
        process.client.upsert_own(KEY, id, &instance(world.now(), State::Active)).await.unwrap();
    }
    holds(&world.memberlist, &["i1", "i2"]).await;
    let key = Key::new(KEY, Desc::codec());
    let read = process.multi.get(&key).await.unwrap().unwrap();
    world.consul.lose_answers(true);
    // Somebody who does not ask twice.
    let when = Precondition::Version(Some(read.version));
    assert!(process.multi.apply(&key, Change::remove("i1"), when).await.is_err());
    world.consul.lose_answers(false);
    holds(&world.memberlist, &["i2"]).await;
    sleep(30 * SECOND).await;
    for store in [&world.memberlist, &world.consul] {
        assert_eq!(ids(&store.holds().await), ["i2"], "and it did not come back");
    }
    assert_eq!(ids(&process.sees().await), ["i2"]);
}

#[tokio::test(start_paused = true)]
async fn an_entry_that_can_never_be_told_keeps_no_other_back() {
    let world = World::new();
    world.memberlist.set_contended("i2");
    let process = world.process(config());
    world.beats(&world.consul.direct(), "i2");
    world.beats(&process.client, "i1");
    holds(&world.memberlist, &["i1"]).await;
    sleep(300 * SECOND).await;
    let held = world.memberlist.holds().await;
    assert!(ids(&held) == ["i1"] && world.now() - held[0].1 <= 12, "{held:?}");
    let report = process.report();
    assert_eq!(report.keys[0].stores[1].missing.ids, ["i2"]);
}
