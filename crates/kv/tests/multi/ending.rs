//! How mirroring ends, what does not end it, and processes that start when it is to end, or when the primary was switched.

use std::sync::atomic::Ordering;
use std::time::Duration;

use ringkit_config::{KvStore, MultiConfig};
use ringkit_kv::multi::MultiRuntime;
use ringkit_ring::State;
use tokio::time::{sleep, timeout};

use crate::world::{HEARTBEAT, KEY, Weather, World, config, holds, ids, instance};

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);

#[tokio::test(start_paused = true)]
async fn a_process_that_starts_after_the_end_of_mirroring_asks_the_gate_before_it_switches() {
    let world = World::new();
    // As long as the other store is away, nothing is brought there, and nothing is in the way of the end.
    world.memberlist.set(Weather::Refusing);
    world.beats(&world.consul.direct(), "i2");
    let ended = MultiRuntime { mirror_enabled: Some(false), ..MultiRuntime::default() };
    let process = world.told(config(), ended);
    world.beats(&process.client, "i1");
    let lapses = world.observe(&process.client, &["i1", "i2"]);
    process.mirrors(false).await;
    world.memberlist.set(Weather::Fine);
    process.says(|runtime| runtime.primary = Some(KvStore::Memberlist));
    sleep(MINUTE).await;
    let report = process.report();
    let why = &report.switch.blocked;
    assert!(report.primary == "consul" && why.contains_key("missing"), "{report:?}");
    assert!(world.memberlist.holds().await.is_empty());
    process.says(|runtime| runtime.mirror_enabled = Some(true));
    process.is_on("memberlist").await;
    holds(&world.memberlist, &["i1", "i2"]).await;
    assert_eq!(lapses.load(Ordering::Relaxed), 0);
}

#[tokio::test(start_paused = true)]
async fn a_process_that_starts_after_the_switch_reads_both_until_the_new_primary_has_everything() {
    let world = World::new();
    let now = world.now();
    for id in ["i1", "i2"] {
        world.consul.direct().upsert_own(KEY, id, &instance(now, State::Active)).await.unwrap();
    }
    // The steps came too fast for somebody: the new primary has nothing yet.
    let finished = MultiRuntime {
        primary: Some(KvStore::Memberlist),
        mirror_enabled: Some(false),
        ..MultiRuntime::default()
    };
    let process = world.told(config(), finished);
    let report = process.report();
    assert_eq!((report.primary.as_str(), report.mirror), ("memberlist", true));
    let lapses = world.observe(&process.client, &["i1", "i2"]);
    process.mirrors(false).await;
    assert_eq!(ids(&world.memberlist.holds().await), ["i1", "i2"]);
    assert_eq!(ids(&process.sees().await), ["i1", "i2"]);
    sleep(HEARTBEAT).await;
    assert_eq!(lapses.load(Ordering::Relaxed), 0);
}

#[tokio::test(start_paused = true)]
async fn a_process_that_starts_with_another_primary_is_synced_once_that_one_is() {
    let world = World::new();
    let start = || {
        let switched = MultiRuntime { primary: Some(KvStore::Memberlist), ..MultiRuntime::default() };
        world.told(config(), switched)
    };
    world.memberlist.set_synced(false);
    let process = start();
    assert!(process.report().secondary_counts, "which is the store that is configured as the primary");
    let mut synced = process.client.synced();
    assert!(!*synced.borrow());
    // Not so long that the secondary would stand in.
    sleep(HEARTBEAT).await;
    assert!(!*synced.borrow());
    world.memberlist.set_synced(true);
    timeout(SECOND, synced.wait_for(|synced| *synced)).await.unwrap().unwrap();

    world.consul.set_synced(false);
    let process = start();
    assert!(*process.client.synced().borrow(), "the other one is not waited for");
    assert!(!process.report().secondary_counts);
}

#[tokio::test(start_paused = true)]
async fn what_is_still_on_its_way_when_mirroring_ends_is_dropped() {
    let world = World::new();
    let process = world.process(config());
    let told = world.now();
    process.client.upsert_own(KEY, "i1", &instance(told, State::Active)).await.unwrap();
    holds(&world.memberlist, &["i1"]).await;
    world.memberlist.set(Weather::Refusing);
    sleep(HEARTBEAT).await;
    process.client.upsert_own(KEY, "i1", &instance(world.now(), State::Active)).await.unwrap();
    process.client.upsert_own(KEY, "i2", &instance(world.now(), State::Active)).await.unwrap();
    sleep(SECOND).await;
    assert_eq!(process.report().keys[0].stores[1].queue_length, 2);
    process.says(|runtime| runtime.mirror_enabled = Some(false));
    process.mirrors(false).await;
    assert_eq!(process.report().keys[0].queue_length, 0);
    let writes = world.memberlist.num_writes();
    world.memberlist.set(Weather::Fine);
    sleep(MINUTE).await;
    process.client.upsert_own(KEY, "i2", &instance(world.now(), State::Active)).await.unwrap();
    sleep(MINUTE).await;
    assert_eq!(world.memberlist.holds().await, [("i1".to_owned(), told, State::Active)]);
    assert_eq!(world.memberlist.num_writes(), writes);
}

#[tokio::test(start_paused = true)]
async fn a_look_at_both_stores_that_outlasts_mirroring_tells_nobody_what_it_lacks() {
    let world = World::new();
    let process = world.process(config());
    process.client.upsert_own(KEY, "i1", &instance(world.now(), State::Active)).await.unwrap();
    holds(&world.memberlist, &["i1"]).await;
    sleep(2 * SECOND).await;
    // A loss is looked into within three quarters of a second, and from here on that takes a whole one.
    world.memberlist.set_latency(SECOND);
    world.memberlist.direct().remove_own(KEY, "i1").await.unwrap();
    sleep(SECOND).await;
    process.says(|runtime| runtime.mirror_enabled = Some(false));
    process.mirrors(false).await;
    let writes = world.memberlist.num_writes();
    sleep(MINUTE).await;
    assert_eq!((world.memberlist.num_writes(), world.memberlist.holds().await.len()), (writes, 0));
    assert_eq!(process.report().keys[0].queue_length, 0);
}

#[tokio::test(start_paused = true)]
async fn a_switch_that_is_given_up_does_not_end_mirroring_which_was_to_end_after_it() {
    let world = World::new();
    let patience = Duration::from_secs(20);
    let process = world.process(MultiConfig { switch_gate_timeout: patience, ..config() });
    world.beats(&process.client, "i1");
    holds(&world.memberlist, &["i1"]).await;
    world.memberlist.set(Weather::Silent);
    process.says(|runtime| {
        runtime.primary = Some(KvStore::Memberlist);
        runtime.mirror_enabled = Some(false);
    });
    sleep(MINUTE).await;
    let report = process.report();
    assert!(report.switch.given_up && report.mirror, "{report:?}");
    world.memberlist.set(Weather::Fine);
    sleep(2 * MINUTE).await;
    let report = process.report();
    assert_eq!((report.primary.as_str(), report.mirror), ("consul", true));
    let held = world.memberlist.holds().await;
    assert!(held.iter().all(|(_, timestamp, _)| world.now() - timestamp <= 6), "{held:?}");
    // Asked for anew, both happen.
    process.says(|runtime| runtime.generation += 1);
    process.is_on("memberlist").await;
    process.mirrors(false).await;
}

#[tokio::test(start_paused = true)]
async fn mirroring_does_not_end_while_entries_are_in_the_primary_only_because_they_are_brought_there() {
    let world = World::new();
    world.memberlist.tells_who_wrote();
    let process = world.turned(config());
    world.beats(&process.client, "i1");
    world.beats(&world.consul.direct(), "i2");
    holds(&world.memberlist, &["i1", "i2"]).await;
    process.says(|runtime| runtime.mirror_enabled = Some(false));
    sleep(MINUTE).await;
    let report = process.report();
    let why = report.switch.blocked.get("foreign");
    assert!(report.mirror && why.is_some_and(|why| why.contains("i2")), "{report:?}");
    assert_eq!(report.keys[0].stores[0].relayed.ids, ["i2"]);
    // From here on its owner writes to both.
    world.beats(&world.memberlist.direct(), "i2");
    process.mirrors(false).await;
    assert_eq!(ids(&process.sees().await), ["i1", "i2"]);
}
