//! Two processes that go from one store to the other together, or one after the other; and stores that keep each entry under a key
//! of its own.

use std::sync::atomic::Ordering;
use std::time::Duration;

use ringkit_config::{KvStore, MultiConfig};
use ringkit_ring::State;
use tokio::time::sleep;

use crate::world::{KEY, Process, World, config, holds, ids, instance};

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);

/// Both stores hold these, and both processes show them.
async fn all_have(world: &World, processes: [&Process; 2], expected: &[&str]) {
    for store in [&world.consul, &world.memberlist] {
        holds(store, expected).await;
    }
    for process in processes {
        assert_eq!(ids(&process.sees().await), expected);
    }
}

/// An instance comes, is seen everywhere, and goes.
async fn comes_and_goes(world: &World, processes: [&Process; 2], through: &Process, id: &str) {
    let client = &through.client;
    client.upsert_own(KEY, id, &instance(world.now(), State::Active)).await.unwrap();
    all_have(world, processes, &["i1", "i2", id]).await;
    sleep(SECOND).await;
    client.upsert_own(KEY, id, &instance(world.now(), State::Leaving)).await.unwrap();
    sleep(SECOND).await;
    client.remove_own(KEY, id).await.unwrap();
    sleep(SECOND).await;
    all_have(world, processes, &["i1", "i2"]).await;
}

/// Mirrored, there, back, and no longer mirrored: nobody notices.
async fn there_and_back(apart: [bool; 2]) {
    let world = World::apart(apart);
    let (one, two) = (&world.process(config()), &world.process(config()));
    let both = [one, two];
    world.beats(&one.client, "i1");
    // So that what one of them knows of the other is always old.
    sleep(2 * SECOND).await;
    world.beats(&two.client, "i2");
    for store in [&world.consul, &world.memberlist] {
        holds(store, &["i1", "i2"]).await;
    }
    let lapses = both.map(|process| world.observe(&process.client, &["i1", "i2"]));
    for (to, name) in [(KvStore::Memberlist, "memberlist"), (KvStore::Consul, "consul")] {
        for (process, id) in [(one, "i3"), (two, "i4")] {
            process.says(|runtime| runtime.primary = Some(to));
            process.is_on(name).await;
            comes_and_goes(&world, both, process, id).await;
            sleep(MINUTE / 2).await;
        }
    }
    for process in both {
        process.says(|runtime| runtime.mirror_enabled = Some(false));
        process.mirrors(false).await;
    }
    let writes = world.memberlist.num_writes();
    sleep(MINUTE).await;
    assert_eq!(world.memberlist.num_writes(), writes, "{apart:?}");
    for process in both {
        let sees = process.sees().await;
        let is_fresh = sees.iter().all(|(_, timestamp, _)| world.now() - timestamp <= 6);
        assert!(ids(&sees) == ["i1", "i2"] && is_fresh, "{apart:?} {sees:?}");
    }
    assert_eq!(lapses.map(|lapses| lapses.load(Ordering::Relaxed)), [0, 0], "{apart:?}");
}

#[tokio::test(start_paused = true)]
async fn nobody_notices_a_move_there_and_back_however_entries_are_laid_out() {
    for apart in [[true, true], [true, false], [false, true]] {
        there_and_back(apart).await;
    }
}

#[tokio::test(start_paused = true)]
async fn two_primaries_at_once_lose_nothing_until_the_last_process_has_heard_of_the_switch() {
    let world = World::new();
    // Nothing but their writes goes from one store to the other.
    let config = || MultiConfig { reconcile_interval: Duration::ZERO, ..config() };
    let (early, late) = (&world.process(config()), &world.process(config()));
    let both = [early, late];
    world.beats(&early.client, "i1");
    world.beats(&late.client, "i2");
    for store in [&world.consul, &world.memberlist] {
        holds(store, &["i1", "i2"]).await;
    }
    let lapses = both.map(|process| world.observe(&process.client, &["i1", "i2"]));
    early.says(|runtime| runtime.primary = Some(KvStore::Memberlist));
    early.is_on("memberlist").await;
    for process in both {
        comes_and_goes(&world, both, process, "i3").await;
    }
    sleep(MINUTE / 2).await;
    for store in [&world.consul, &world.memberlist] {
        let held = store.holds().await;
        assert!(held.iter().all(|(_, timestamp, _)| world.now() - timestamp <= 6), "{held:?}");
    }
    // To each the other one's primary is as good as its own.
    for (process, primary) in [(early, "memberlist"), (late, "consul")] {
        let report = process.report();
        assert!(report.primary == primary && report.mirror, "{report:?}");
        let switch = &report.switch;
        assert!(
            switch.gate_open && switch.wanted_primary.is_none() && switch.blocked.is_empty(),
            "{switch:?}"
        );
    }
    late.says(|runtime| runtime.primary = Some(KvStore::Memberlist));
    late.is_on("memberlist").await;
    comes_and_goes(&world, both, late, "i4").await;
    assert_eq!(lapses.map(|lapses| lapses.load(Ordering::Relaxed)), [0, 0]);
}
