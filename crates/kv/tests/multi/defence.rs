//! What a process must not believe of its stores, nor say of them.

use std::time::Duration;

use ringkit_config::MultiConfig;
use ringkit_kv::{Applied, Change, Key, Precondition, Store as _, Value as _};
use ringkit_ring::{Desc, InstanceDesc, State};
use tokio::time::sleep;

use crate::world::{KEY, Weather, World, config, holds, ids, instance};

const MINUTE: Duration = Duration::from_secs(60);

#[tokio::test(start_paused = true)]
async fn nobody_stands_in_for_a_primary_that_is_there() {
    for was_away in [false, true] {
        let world = World::new();
        // Of a former life, long ago: in the secondary it would not count.
        let own = instance(world.now() - 3600, State::Leaving);
        world.consul.direct().upsert_own(KEY, "own", &own).await.unwrap();
        if was_away {
            world.consul.set(Weather::Silent);
            world.consul.set_synced(false);
        }
        let process = world.process(config());
        // Longer than a primary is waited for.
        sleep(MINUTE).await;
        world.consul.set(Weather::Fine);
        world.consul.set_synced(true);
        sleep(MINUTE).await;
        let other = instance(world.now(), State::Active);
        world.memberlist.direct().upsert_own(KEY, "other", &other).await.unwrap();
        // The secondary is heard first.
        world.consul.set_latency(Duration::from_secs(1));
        let mut watch = process.client.watch(KEY).await.unwrap();
        let first = watch.next().await.unwrap();
        assert_eq!(first.changed, ["other", "own"], "{was_away}");
    }
}

#[tokio::test(start_paused = true)]
async fn to_wait_for_oneself_is_no_outage() {
    const SLOW: Duration = Duration::from_millis(1900);
    let world = World::new();
    world.memberlist.set_apart();
    let process = world.process(config());
    let entry = instance(world.now(), State::Active);
    process.client.upsert_own(KEY, "i1", &entry).await.unwrap();
    holds(&world.memberlist, &["i1"]).await;
    // What is mirrored keeps others back for nearly as long as is waited for a store.
    world.memberlist.set_latency(SLOW);
    process.client.upsert_own(KEY, "i2", &entry).await.unwrap();
    sleep(Duration::from_millis(10)).await;
    // Meanwhile another one goes there, too, because the primary does not take it.
    world.consul.set(Weather::Refusing);
    let change = Change::upsert("i3", Desc::encode_entry(&entry));
    let written = process.multi.apply(&Key::new(KEY, Desc::codec()), change, Precondition::None).await;
    assert!(matches!(&written, Ok(Applied::Done(_))), "{written:?}");
    let report = process.report();
    assert!(report.stores[1].up, "{:?}", report.stores);
    assert_eq!(ids(&world.memberlist.holds().await), ["i1", "i2", "i3"]);
}

/// An instance with so many tokens, of five bytes each, that are like no other's.
fn with_tokens(world: &World, number: u32, tokens: u32) -> InstanceDesc {
    let token = |token: u32| (1000 * number + token).wrapping_mul(2_654_435_761) | 1 << 31;
    let mut tokens: Vec<u32> = (0..tokens).map(token).collect();
    tokens.sort_unstable();
    InstanceDesc { tokens: tokens.into(), ..instance(world.now(), State::Active) }
}

/// What a store that is mirrored to in entries, or as a whole, is said not to take.
async fn refused(apart: bool, tokens: [u32; 4]) -> (Vec<String>, Option<String>) {
    const IDS: [&str; 4] = ["i1", "i2", "i3", "i4"];
    let world = World::new();
    if apart {
        world.memberlist.set_apart();
    }
    let process = world.process(MultiConfig { max_value_bytes: 600, ..config() });
    for (number, (id, tokens)) in (0..).zip(IDS.into_iter().zip(tokens)) {
        process.client.upsert_own(KEY, id, &with_tokens(&world, number, tokens)).await.unwrap();
    }
    sleep(MINUTE).await;
    let report = process.report();
    let why = report.keys[0].stores[1].refused.clone();
    let gate = report.switch.gate_reasons.get("queue");
    match &why {
        None => assert!(gate.is_none() && report.keys[0].queue_length == 0, "{report:?}"),
        Some(why) => {
            assert!(gate.is_some_and(|gate| gate.contains(why)), "{report:?}");
            let remarks = process.multi.remarks();
            assert!(remarks.iter().any(|remark| remark.contains(why)), "{remarks:?}");
        }
    }
    (ids(&world.memberlist.holds().await).into_iter().map(str::to_owned).collect(), why)
}

#[tokio::test(start_paused = true)]
async fn what_the_secondary_cannot_hold_is_named_in_both_layouts() {
    // Each is smaller than the limit, and all together are not.
    let (held, why) = refused(true, [50; 4]).await;
    assert_eq!((held.len(), why), (4, None), "each has a key of its own");
    let (held, why) = refused(false, [50; 4]).await;
    assert!(
        held.len() < 4 && why.as_ref().is_some_and(|why| why.contains("whole value")),
        "{held:?} {why:?}"
    );
    // One of them is not.
    let (held, why) = refused(true, [50, 50, 200, 50]).await;
    assert_eq!(held, ["i1", "i2", "i4"]);
    assert!(why.as_ref().is_some_and(|why| why.contains("one entry") && why.contains("600")), "{why:?}");
}

#[cfg(feature = "memberlist")]
#[tokio::test]
async fn a_store_ends_with_its_last_client_and_what_it_had_still_to_mirror() {
    use std::sync::Arc;

    use ringkit_config::{KvStore, KvStoreConfig, MemberlistConfig};
    use ringkit_kv::memberlist::MemberlistOptions;
    use ringkit_kv::{Client, Stores};
    use ringkit_runtime::{Clock, Meter};
    use ringkit_testkit::eventually_ok;

    use crate::world::SOON;

    let (stores, meter, clock) = (Stores::new(), Meter::disabled(), Clock::system());
    stores.set_memberlist(MemberlistOptions {
        config: MemberlistConfig {
            bind_addr: vec!["127.0.0.1".into()],
            bind_port: 0,
            ..MemberlistConfig::default()
        },
        zone: String::new(),
        build: String::new(),
        meter: meter.clone(),
        clock: clock.clone(),
        proceed_after: None,
    });
    let multi = MultiConfig { primary: Some(KvStore::Inmemory), ..config() };
    let config =
        KvStoreConfig { store: KvStore::Multi, prefix: String::new(), multi, ..KvStoreConfig::default() };
    let open = || stores.client::<Desc>(&config, "test", &meter, &clock).unwrap();

    let (one, other): (Client<Desc>, Client<Desc>) = (open(), open());
    drop(other);
    assert_eq!(stores.multis().len(), 1);
    let unused = Arc::downgrade(&stores.multis()[0]);
    one.upsert_own(KEY, "i1", &instance(clock.now_secs(), State::Active)).await.unwrap();
    // A watch goes on without the client that it was made by.
    let mut watch = open().watch(KEY).await.unwrap();
    assert_eq!(stores.multis().len(), 2);
    while !watch.next().await.unwrap().value.is_some_and(|ring| ring.contains("i1")) {}
    drop(watch);
    drop(one);
    let ended = || async {
        let left = stores.multis().len();
        if left == 0 { Ok(()) } else { Err(left) }
    };
    eventually_ok(SOON, ended).await.unwrap();
    assert!(unused.upgrade().is_none());
    let member = stores.memberlist().unwrap();
    let held = member.get(&Key::new(KEY, Desc::codec())).await.unwrap().unwrap();
    assert!(held.entries.contains_key("i1"));
}
