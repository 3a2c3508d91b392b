//! What went wrong with whole values, and without a look at the other store. H4 is in `stores`, where the rings of a process are.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use metrics_exporter_prometheus::PrometheusBuilder;
use ringkit_config::{KvStore, MirrorMode, MultiConfig, ReadMode};
use ringkit_kv::{Client, Decision, Limits, Standing};
use ringkit_ring::{Desc, InstanceDesc, State};
use ringkit_runtime::Meter;
use ringkit_testkit::eventually_ok;
use tokio::time::{Instant, sleep};

use crate::world::{HEARTBEAT, KEY, Process, SOON, Weather, World, config, holds, ids, instance, sum};

const MINUTE: Duration = Duration::from_secs(60);

/// Two processes write to both stores, one more to a single one: nobody ever sees it missing, anywhere.
async fn nobody_flaps(world: &World, both: [Process; 2], single: &Client<Desc>) {
    const ALL: &[&str] = &["i1", "i2", "i3"];
    let [one, two] = both;
    world.beats(&one.client, "i1");
    world.beats(&two.client, "i2");
    world.beats(single, "i3");
    let everywhere = [&one.client, &two.client, &world.consul.direct(), &world.memberlist.direct()];
    let observed = everywhere.map(|client| world.observe(client, ALL));
    // Whoever writes to one store alone is brought to the other one, too.
    for store in [&world.consul, &world.memberlist] {
        holds(store, ALL).await;
    }
    sleep(2 * MINUTE).await;
    let lapses = observed.map(|lapses| lapses.load(Ordering::Relaxed));
    assert_eq!(lapses, [0; 4]);
    for process in [one, two] {
        let sees = process.sees().await;
        assert_eq!(ids(&sees), ALL);
        let oldest = sees.iter().map(|(_, timestamp, _)| *timestamp).min().unwrap();
        assert!(world.now() - oldest <= HEARTBEAT.as_secs().cast_signed() + 1, "{sees:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn h1_who_is_only_in_the_secondary_is_left_alone() {
    let world = World::new();
    let both = [world.process(config()), world.process(config())];
    nobody_flaps(&world, both, &world.memberlist.direct()).await;
}

#[tokio::test(start_paused = true)]
async fn h1b_so_it_is_in_the_other_direction() {
    let world = World::new();
    let both = [world.turned(config()), world.turned(config())];
    nobody_flaps(&world, both, &world.consul.direct()).await;
}

#[tokio::test(start_paused = true)]
async fn h2_a_silent_secondary_costs_writers_nothing() {
    let world = World::new();
    world.memberlist.set(Weather::Silent);
    let process = world.process(config());
    for _ in 0..3 {
        let before = Instant::now();
        process.client.upsert_own(KEY, "i1", &instance(world.now(), State::Active)).await.unwrap();
        process.client.get(KEY).await.unwrap();
        assert_eq!(before.elapsed(), Duration::ZERO);
        sleep(HEARTBEAT).await;
    }
    let last = world.now() - HEARTBEAT.as_secs().cast_signed();
    let report = process.report();
    assert!(!report.stores[1].up && report.keys[0].queue_length == 1, "{report:?}");
    world.memberlist.set(Weather::Fine);
    holds(&world.memberlist, &["i1"]).await;
    assert_eq!(world.memberlist.holds().await, [("i1".to_owned(), last, State::Active)]);
}

#[tokio::test(start_paused = true)]
async fn h2_whoever_asks_for_it_waits_for_the_first_attempt_and_no_longer() {
    let world = World::new();
    let process = world.process(MultiConfig { mirror_mode: MirrorMode::Sync, ..config() });
    process.client.upsert_own(KEY, "i1", &instance(world.now(), State::Active)).await.unwrap();
    assert_eq!(ids(&world.memberlist.holds().await), ["i1"], "it is there when the write returns");
    world.memberlist.set(Weather::Silent);
    let before = Instant::now();
    process.client.upsert_own(KEY, "i1", &instance(world.now() + 1, State::Active)).await.unwrap();
    let took = before.elapsed();
    assert!((1900..2200).contains(&took.as_millis()), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn h3_a_switch_waits_until_everything_is_there() {
    let world = World::new();
    let process = world.process(MultiConfig { mirror_enabled: false, ..config() });
    world.beats(&process.client, "i1");
    world.beats(&world.consul.direct(), "i2");
    let lapses = world.observe(&process.client, &["i1", "i2"]);
    process.says(|runtime| runtime.primary = Some(KvStore::Memberlist));
    sleep(MINUTE).await;
    let report = process.report();
    assert_eq!((report.primary.as_str(), report.read_mode.as_str()), ("consul", "primary"));
    let why = &report.switch.blocked;
    assert!(why.contains_key("missing") && why.contains_key("reconcile"), "{why:?}");
    assert!(world.memberlist.holds().await.is_empty());

    process.says(|runtime| runtime.mirror_enabled = Some(true));
    process.is_on("memberlist").await;
    holds(&world.memberlist, &["i1", "i2"]).await;
    let report = process.report();
    assert!(report.switch.blocked.is_empty() && report.switch.wanted_primary.is_none(), "{report:?}");
    assert_eq!((report.secondary.as_str(), report.read_mode.as_str()), ("consul", "union"));
    // The old one stays of use.
    sleep(MINUTE).await;
    let held = world.consul.holds().await;
    assert!(held.iter().all(|(_, timestamp, _)| world.now() - timestamp <= 6), "{held:?}");
    assert_eq!(lapses.load(Ordering::Relaxed), 0);
}

#[tokio::test(start_paused = true)]
async fn h5_attempts_and_failures_are_told_apart() {
    let recorder = PrometheusBuilder::new().build_recorder();
    let rendered = recorder.handle();
    let world = World::new();
    let process = world.metered(config(), &Meter::new(Arc::new(recorder)));
    process.client.upsert_own(KEY, "i1", &instance(world.now(), State::Active)).await.unwrap();
    holds(&world.memberlist, &["i1"]).await;
    let count =
        |name: &str, labels: &[&str]| sum(&rendered.render(), &format!("cortex_multikv_{name}"), labels);
    let outcome = |outcome: &str| count("mirror_outcomes_total", &[&format!(r#"outcome="{outcome}""#)]);
    assert_eq!((outcome("applied"), count("mirror_write_errors_total", &[])), (1.0, 0.0));

    world.memberlist.set(Weather::Refusing);
    process.client.upsert_own(KEY, "i1", &instance(world.now() + 1, State::Active)).await.unwrap();
    sleep(MINUTE).await;
    let failed = outcome("error");
    assert!(failed >= 5.0, "{failed} attempts in a minute");
    assert_eq!(count("mirror_write_errors_total", &[]), failed);
    assert_eq!(count("mirror_queue_length", &[]), 1.0);
    assert!(count("mirror_lag_seconds", &[]) > 50.0);
    assert_eq!(count("store_up", &[r#"store="memberlist""#]), 0.0);
    assert_eq!(count("store_up", &[r#"store="consul""#]), 1.0);

    world.memberlist.set(Weather::Silent);
    sleep(MINUTE).await;
    assert!(outcome("timeout") >= 5.0);
    // What is there already is no failure.
    let newest = instance(world.now(), State::Active);
    world.memberlist.direct().upsert_own(KEY, "i1", &newest).await.unwrap();
    let failures = outcome("error") + outcome("timeout") + outcome("too_large");
    world.memberlist.set(Weather::Fine);
    let mirrored = || async {
        let queued = count("mirror_queue_length", &[]);
        if queued == 0.0 { Ok(()) } else { Err(queued) }
    };
    eventually_ok(SOON, mirrored).await.unwrap();
    assert!(outcome("stale") >= 1.0);
    assert!(count("mirror_write_errors_total", &[]) <= failures + 1.0);
    let outcomes = ["applied", "noop", "stale", "too_large", "timeout", "error"].map(outcome);
    assert_eq!(count("mirror_writes_total", &[]), outcomes.iter().sum::<f64>());
    assert_eq!(count("primary_store", &[r#"store="consul""#, r#"kv_name="test""#]), 1.0);
    assert_eq!(count("mirror_enabled", &[]), 1.0);
    assert!(count("last_reconcile_timestamp_seconds", &[]) > 1.6e9);
    let totals = ["entries_missing", "entries_mismatched", "foreign_entries", "max_timestamp_skew_seconds"];
    assert!(totals.iter().all(|name| rendered.render().contains(&format!("cortex_multikv_{name}{{"))));
}

#[tokio::test(start_paused = true)]
async fn h6_time_never_goes_back_in_the_secondary() {
    const ALL: &[&str] = &["i1", "i2", "i3"];
    let world = World::new();
    let processes = [(); 3].map(|()| world.process(config()));
    for (process, id) in processes.iter().zip(ALL) {
        world.beats(&process.client, id);
    }
    let lapses = world.observe(&world.memberlist.direct(), ALL);
    // Slower than the primary, and of changing slowness.
    for latency_ms in [1500, 10, 900, 0, 1900, 300] {
        world.memberlist.set_latency(Duration::from_millis(latency_ms));
        sleep(MINUTE / 2).await;
    }
    assert_eq!(lapses.load(Ordering::Relaxed), 0);
    let held = world.memberlist.holds().await;
    assert!(held.len() == 3 && held.iter().all(|(_, timestamp, _)| world.now() - timestamp <= 6), "{held:?}");
}

#[tokio::test(start_paused = true)]
async fn h6_a_heartbeat_that_comes_late_does_not_replace_a_newer_one() {
    let world = World::new();
    let process = world.process(config());
    let now = world.now();
    process.client.upsert_own(KEY, "i1", &instance(now, State::Active)).await.unwrap();
    holds(&world.memberlist, &["i1"]).await;
    let direct = world.memberlist.direct();
    let lapses = world.observe(&direct, &["i1"]);
    world.memberlist.set_latency(Duration::from_secs(1));
    process.client.upsert_own(KEY, "i1", &instance(now + 1, State::Active)).await.unwrap();
    sleep(Duration::from_millis(500)).await;
    // Another life of the same instance, while that one is under way.
    direct.upsert_own(KEY, "i1", &instance(now + 9, State::Active)).await.unwrap();
    sleep(MINUTE / 2).await;
    assert_eq!(world.memberlist.holds().await, [("i1".to_owned(), now + 9, State::Active)]);
    assert_eq!((lapses.load(Ordering::Relaxed), process.report().keys[0].queue_length), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn h7_changes_within_a_second_arrive_in_the_end() {
    let world = World::new();
    let process = world.process(config());
    let now = world.now();
    for state in [State::Pending, State::Joining, State::Active] {
        process.client.upsert_own(KEY, "i1", &instance(now, state)).await.unwrap();
        tokio::task::yield_now().await;
    }
    let arrived = || async {
        let held = world.memberlist.holds().await;
        let is_there = held == [("i1".to_owned(), now, State::Active)];
        if is_there { Ok(()) } else { Err(format!("{held:?}")) }
    };
    // Long before anything is compared.
    eventually_ok(Duration::from_secs(1), arrived).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn h8_heartbeats_go_on_while_the_primary_is_silent_and_come_to_it_later() {
    let world = World::new();
    let (one, two) = (world.process(config()), world.process(config()));
    world.beats(&one.client, "i1");
    world.beats(&two.client, "i2");
    for store in [&world.consul, &world.memberlist] {
        holds(store, &["i1", "i2"]).await;
    }
    let lapses = world.observe(&two.client, &["i1", "i2"]);
    world.consul.set(Weather::Silent);
    sleep(3 * MINUTE).await;
    for sees in [one.sees().await, two.sees().await, world.memberlist.holds().await] {
        assert!(
            sees.len() == 2 && sees.iter().all(|(_, timestamp, _)| world.now() - timestamp <= 8),
            "{sees:?}"
        );
    }
    assert!(one.multi.remarks().iter().any(|remark| remark.contains("consul")), "{:?}", one.multi.remarks());
    // Who comes meanwhile comes, and who goes goes.
    two.client.upsert_own(KEY, "i3", &instance(world.now(), State::Active)).await.unwrap();
    one.client.upsert_own(KEY, "i4", &instance(world.now(), State::Leaving)).await.unwrap();
    sleep(Duration::from_secs(1)).await;
    one.client.remove_own(KEY, "i4").await.unwrap();
    sleep(Duration::from_secs(3)).await;
    assert_eq!(ids(&one.sees().await), ["i1", "i2", "i3"]);
    world.consul.set(Weather::Fine);
    holds(&world.consul, &["i1", "i2", "i3"]).await;
    sleep(MINUTE / 2).await;
    assert_eq!(ids(&two.sees().await), ["i1", "i2", "i3"]);
    assert_eq!(lapses.load(Ordering::Relaxed), 0);
}

#[tokio::test(start_paused = true)]
async fn h9_processes_with_different_primaries_do_not_disturb_each_other() {
    let world = World::new();
    let both = [world.process(config()), world.turned(config())];
    nobody_flaps(&world, both, &world.memberlist.direct()).await;
    let world = World::new();
    let both = [world.turned(config()), world.process(config())];
    nobody_flaps(&world, both, &world.memberlist.direct()).await;
}

#[tokio::test(start_paused = true)]
async fn h10_after_a_switch_a_watch_shows_what_the_new_primary_holds() {
    let world = World::new();
    let now = world.now();
    world.consul.direct().upsert_own(KEY, "old", &instance(now, State::Active)).await.unwrap();
    world.memberlist.direct().upsert_own(KEY, "new", &instance(now, State::Active)).await.unwrap();
    let single = MultiConfig { mirror_enabled: false, read_mode: ReadMode::Primary, ..config() };
    let process = world.process(single);
    let mut watch = process.client.watch(KEY).await.unwrap();
    let first = watch.next().await.unwrap();
    assert_eq!(first.changed, ["old"]);
    let switch = |to| {
        process.says(|runtime| {
            runtime.primary = Some(to);
            runtime.force = true;
        });
    };
    switch(KvStore::Memberlist);
    let second = watch.next().await.unwrap();
    assert_eq!((second.changed, second.removed), (vec!["new".into()], vec!["old".into()]));
    assert!(second.version > first.version);
    // Also if it is the same.
    let old = instance(now, State::Active);
    world
        .consul
        .direct()
        .cas(KEY, |_| Decision::Write([("new", old.clone())].into_iter().collect(), ()))
        .await
        .unwrap();
    sleep(Duration::from_secs(1)).await;
    switch(KvStore::Consul);
    let third = watch.next().await.unwrap();
    assert!(third.changed.is_empty() && third.removed.is_empty(), "{third:?}");
    // And goes on from there.
    world.consul.direct().upsert_own(KEY, "next", &instance(now, State::Active)).await.unwrap();
    assert_eq!(watch.next().await.unwrap().changed, ["next"]);
}

/// What is stored does not change any more once it is there. But it is told some time after it was written, and must neither be
/// something else by then, nor be taken for what was written meanwhile.
#[tokio::test(start_paused = true)]
async fn h11_what_is_under_way_to_the_secondary_is_what_was_written() {
    const SECOND: Duration = Duration::from_secs(1);
    let world = World::new();
    // Nobody but its writer brings anything to the secondary.
    let process = world.turned(MultiConfig { reconcile_interval: Duration::ZERO, ..config() });
    assert!(process.sees().await.is_empty());
    sleep(HEARTBEAT).await;
    world.consul.set_latency(SECOND);
    let now = world.now();
    let ring: Desc = [("i1", instance(now, State::Active))].into_iter().collect();
    let outcome = process.client.cas(KEY, |_| Decision::Write(ring.clone(), ())).await.unwrap();
    sleep(SECOND / 2).await;
    // The primary goes on changing: by the same writer, and by others.
    process.client.upsert_own(KEY, "i1", &instance(now + 1, State::Leaving)).await.unwrap();
    world.memberlist.direct().upsert_own(KEY, "i2", &instance(now, State::Active)).await.unwrap();
    sleep(SECOND).await;
    assert_eq!(world.consul.holds().await, [("i1".to_owned(), now, State::Active)]);
    sleep(SECOND).await;
    assert_eq!(world.consul.holds().await, [("i1".to_owned(), now + 1, State::Leaving)]);
    assert_eq!(*outcome.view.unwrap().value, ring, "what its writer was given stays, too");
}

#[tokio::test(start_paused = true)]
async fn h12_who_only_reads_stays_where_it_is_until_it_has_found_the_others() {
    let world = World::new();
    // Gossip as this process has it: it is to find its cluster yet.
    let gossip = &world.memberlist;
    gossip.tells_who_wrote();
    gossip.set_synced(false);
    gossip.set_standing(Standing { joined: false, num_others: 0 });
    for id in ["i1", "i2"] {
        world.beats(&world.consul.direct(), id);
    }
    let reader = world.process(config());
    let lapses = world.observe(&reader.client, &["i1", "i2"]);
    reader.says(|runtime| runtime.primary = Some(KvStore::Memberlist));
    sleep(MINUTE).await;
    let report = reader.report();
    assert!(report.primary == "consul" && report.switch.blocked.contains_key("join"), "{report:?}");
    assert!(gossip.holds().await.is_empty(), "nobody there");
    // It no longer looks for them, and is alone: with what it brought there itself.
    gossip.set_synced(true);
    sleep(MINUTE).await;
    assert_eq!(ids(&gossip.holds().await), ["i1", "i2"]);
    let report = reader.report();
    let why = &report.switch.blocked;
    assert!(report.primary == "consul" && why.contains_key("join") && why.contains_key("relayed"), "{why:?}");
    assert_eq!(ids(&reader.sees().await), ["i1", "i2"]);
    // It finds them, and what they write there.
    gossip.set_standing(Standing { joined: true, num_others: 2 });
    for id in ["i1", "i2"] {
        world.beats(&gossip.direct(), id);
    }
    reader.is_on("memberlist").await;
    assert_eq!(ids(&reader.sees().await), ["i1", "i2"]);
    assert_eq!(lapses.load(Ordering::Relaxed), 0);
}

#[tokio::test(start_paused = true)]
async fn h13_a_value_that_is_too_large_is_not_tried_again_and_again() {
    let world = World::with_limits(Limits { max_value_bytes: 100, ..Limits::default() });
    let recorder = PrometheusBuilder::new().build_recorder();
    let rendered = recorder.handle();
    let process = world.metered(config(), &Meter::new(Arc::new(recorder)));
    for id in ["i1", "i2", "i3", "i4", "i5"] {
        process.client.upsert_own(KEY, id, &instance(world.now(), State::Active)).await.unwrap();
    }
    sleep(MINUTE).await;
    assert_eq!(process.sees().await.len(), 5, "the primary has it");
    let text = rendered.render();
    let refused = sum(&text, "cortex_multikv_mirror_outcomes_total", &[r#"outcome="too_large""#]);
    assert!(refused > 0.0, "{text}");
    assert!(world.memberlist.num_writes() <= 20, "{} writes in a minute", world.memberlist.num_writes());
    let report = process.report();
    assert!(report.keys[0].queue_length > 0 && report.keys[0].stores[1].missing.num > 0, "{report:?}");
}

#[tokio::test(start_paused = true)]
async fn h13_an_entry_that_is_too_large_does_not_keep_others_back() {
    let world = World::with_limits(Limits { max_entry_bytes: 100, ..Limits::default() });
    let process = world.process(config());
    let large = InstanceDesc { tokens: (0..1000).collect(), ..instance(world.now(), State::Active) };
    let small = instance(world.now(), State::Active);
    for (id, entry) in [("i1", &small), ("i2", &large), ("i3", &small)] {
        process.client.upsert_own(KEY, id, entry).await.unwrap();
    }
    holds(&world.memberlist, &["i1", "i3"]).await;
    // Nor what comes later.
    sleep(HEARTBEAT).await;
    let newest = world.now();
    process.client.upsert_own(KEY, "i3", &instance(newest, State::Active)).await.unwrap();
    let arrived = || async {
        let held = world.memberlist.holds().await;
        let is_there = held.iter().any(|(id, timestamp, _)| id == "i3" && *timestamp == newest);
        if is_there { Ok(()) } else { Err(format!("{held:?}")) }
    };
    eventually_ok(Duration::from_secs(1), arrived).await.unwrap();
    assert_eq!(process.report().keys[0].queue_length, 1, "it is not forgotten");
}

#[tokio::test(start_paused = true)]
async fn h13_a_limit_of_our_own_spares_the_store() {
    let world = World::new();
    let process = world.process(MultiConfig { max_value_bytes: 10, ..config() });
    process.client.upsert_own(KEY, "i1", &instance(world.now(), State::Active)).await.unwrap();
    sleep(MINUTE).await;
    assert_eq!((world.memberlist.num_writes(), world.memberlist.holds().await.len()), (0, 0));
    assert_eq!(process.report().keys[0].queue_length, 1);
}
