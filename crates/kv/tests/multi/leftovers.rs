//! Entries whose owners do not write them where they are: what is left of instances that went, and what was brought to gossip for
//! instances that are not there.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use metrics_exporter_prometheus::PrometheusBuilder;
use ringkit_config::{KvStore, MultiConfig};
use ringkit_ring::State;
use ringkit_runtime::Meter;
use tokio::time::sleep;

use crate::world::{HEARTBEAT, KEY, Weather, World, config, holds, ids, instance, sum};

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);

#[tokio::test(start_paused = true)]
async fn who_left_while_the_secondary_was_down_shuts_the_gate_until_it_is_gone_from_there() {
    let world = World::new();
    let one = world.process(config());
    for id in ["i1", "i2"] {
        one.client.upsert_own(KEY, id, &instance(world.now(), State::Active)).await.unwrap();
    }
    holds(&world.memberlist, &["i1", "i2"]).await;
    world.memberlist.set(Weather::Refusing);
    one.client.remove_own(KEY, "i2").await.unwrap();
    // Nobody is left who knows of it.
    drop(one);
    sleep(2 * MINUTE).await;
    assert_eq!(ids(&world.consul.holds().await), ["i1"]);
    world.memberlist.set(Weather::Fine);

    let two = world.process(config());
    world.beats(&two.client, "i1");
    let sightings = world.sightings(&two.client, "i2");
    two.says(|runtime| runtime.primary = Some(KvStore::Memberlist));
    // It may be somebody's who writes there alone: that shows within a heartbeat timeout.
    sleep(MINUTE - 8 * SECOND).await;
    let report = two.report();
    let why = report.switch.blocked.get("foreign");
    assert!(report.primary == "consul" && why.is_some_and(|why| why.contains("i2")), "{report:?}");
    assert_eq!(report.keys[0].foreign.ids, ["i2"]);
    assert_eq!(ids(&world.memberlist.holds().await), ["i1", "i2"]);
    two.is_on("memberlist").await;
    assert_eq!(ids(&world.memberlist.holds().await), ["i1"]);
    assert_eq!(ids(&two.sees().await), ["i1"]);
    assert_eq!(sightings.load(Ordering::Relaxed), 0, "it was no entry of the primary at any time");
}

#[tokio::test(start_paused = true)]
async fn who_left_while_nothing_was_mirrored_goes_from_the_secondary_once_something_is() {
    let world = World::new();
    let process = world.process(MultiConfig { mirror_enabled: false, ..config() });
    world.beats(&process.client, "i1");
    process.client.upsert_own(KEY, "i2", &instance(world.now(), State::Leaving)).await.unwrap();
    // From a time when it was.
    world.memberlist.direct().upsert_own(KEY, "i2", &instance(world.now(), State::Active)).await.unwrap();
    sleep(HEARTBEAT).await;
    process.client.remove_own(KEY, "i2").await.unwrap();
    let sightings = world.sightings(&process.client, "i2");
    // Longer than removals are remembered.
    sleep(6 * MINUTE).await;
    assert_eq!(process.report().keys[0].num_marks, 0);
    process.says(|runtime| runtime.primary = Some(KvStore::Memberlist));
    sleep(MINUTE / 2).await;
    let report = process.report();
    let why = report.switch.blocked.get("foreign");
    assert!(report.primary == "consul" && why.is_some_and(|why| why.contains("i2")), "{report:?}");
    assert_eq!(ids(&world.memberlist.holds().await), ["i2"]);
    process.says(|runtime| runtime.mirror_enabled = Some(true));
    process.is_on("memberlist").await;
    assert_eq!(ids(&world.memberlist.holds().await), ["i1"]);
    assert_eq!(ids(&process.sees().await), ["i1"]);
    assert_eq!(sightings.load(Ordering::Relaxed), 0);
}

#[tokio::test(start_paused = true)]
async fn who_is_in_the_secondary_alone_and_lives_is_not_taken_for_what_is_left_of_somebody() {
    let world = World::new();
    // Of an instance with a slow clock nothing but the advance of its heartbeats shows that it lives.
    let single = world.memberlist.direct();
    world.beats_behind(&single, "i3", 600);
    holds(&world.memberlist, &["i3"]).await;
    let lapses = world.observe(&single, &["i3"]);
    sleep(SECOND).await;
    let process = world.process(config());
    world.beats(&process.client, "i1");
    holds(&world.consul, &["i1", "i3"]).await;
    sleep(5 * MINUTE).await;
    for store in [&world.consul, &world.memberlist] {
        assert_eq!(ids(&store.holds().await), ["i1", "i3"]);
    }
    assert_eq!(ids(&process.sees().await), ["i1", "i3"]);
    assert_eq!(lapses.load(Ordering::Relaxed), 0);
}

#[tokio::test(start_paused = true)]
async fn what_was_brought_to_gossip_shuts_the_gate_until_its_owner_writes_there() {
    let recorder = PrometheusBuilder::new().build_recorder();
    let rendered = recorder.handle();
    let missing = || sum(&rendered.render(), "cortex_multikv_entries_missing", &[r#"store="memberlist""#]);
    let world = World::new();
    world.memberlist.tells_who_wrote();
    let entry = instance(world.now(), State::Active);
    world.consul.direct().upsert_own(KEY, "i2", &entry).await.unwrap();
    let one = world.metered(config(), &Meter::new(Arc::new(recorder)));
    world.beats(&one.client, "i1");
    holds(&world.memberlist, &["i1", "i2"]).await;
    one.says(|runtime| runtime.primary = Some(KvStore::Memberlist));
    sleep(MINUTE / 3).await;
    let report = one.report();
    let switch = &report.switch;
    assert!(report.primary == "consul" && switch.blocked.contains_key("relayed"), "{switch:?}");
    assert!(switch.gate_reasons.keys().eq(["relayed"]), "nothing else is in the way: {switch:?}");
    assert_eq!(report.keys[0].stores[1].relayed.ids, ["i2"]);
    assert_eq!(missing(), 1.0);
    // Its owner is restarted as one that writes to both.
    let two = world.process(config());
    world.beats(&two.client, "i2");
    one.is_on("memberlist").await;
    sleep(SECOND).await;
    assert_eq!(missing(), 0.0);
    assert_eq!(ids(&one.sees().await), ["i1", "i2"]);
}

#[tokio::test(start_paused = true)]
async fn what_was_brought_to_the_secondary_does_not_bring_back_who_left() {
    let world = World::new();
    world.memberlist.tells_who_wrote();
    let single = world.consul.direct();
    single.upsert_own(KEY, "i2", &instance(world.now(), State::Active)).await.unwrap();
    let process = world.process(config());
    world.beats(&process.client, "i1");
    holds(&world.memberlist, &["i1", "i2"]).await;
    // ACTIVE, and gone from the only store that it knows: as if that had lost it.
    single.remove_own(KEY, "i2").await.unwrap();
    let returns = world.sightings(&single, "i2");
    sleep(MINUTE + MINUTE / 2).await;
    assert_eq!(returns.load(Ordering::Relaxed), 0);
    for store in [&world.consul, &world.memberlist] {
        assert_eq!(ids(&store.holds().await), ["i1"]);
    }
    assert_eq!(ids(&process.sees().await), ["i1"]);
}
