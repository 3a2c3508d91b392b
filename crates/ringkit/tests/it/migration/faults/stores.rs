//! A store hangs, dies, or comes back empty, while the rings are in two.

use ringkit_testkit::Proxy;
use tokio::time::sleep;

use crate::migration::ctl::{gate_is_open, is_complete, primary_is};
use crate::migration::pair::{Pair, Servers};
use crate::migration::site::{Site, Timing};
use crate::migration::world::World;

/// What a ring write may cost more while the secondary hangs: what this machine does beside it.
const NOISE: f64 = 0.05;

/// Ring writes of the ingesters: how many there were, and their mean time in seconds.
struct Writes {
    number: f64,
    seconds: f64,
}

impl Writes {
    async fn of(world: &World) -> Self {
        let parts = ["type=\"multi\"", "kv_name=\"ingester-lifecycler\"", "operation=\"CAS\""];
        let (mut number, mut seconds) = (0.0, 0.0);
        for node in &world.ingesters {
            number += node.metric("cortex_kv_request_duration_seconds_count", &parts).await;
            seconds += node.metric("cortex_kv_request_duration_seconds_sum", &parts).await;
        }
        Self { number, seconds }
    }

    /// Number and mean time of those since.
    fn since(&self, before: &Self) -> (f64, f64) {
        let number = self.number - before.number;
        (number, (self.seconds - before.seconds) / number.max(1.0))
    }
}

/// The secondary hangs, then is dead, then comes back empty: nobody waits for it, and it is told all that it missed.
pub(crate) async fn the_secondary_fails(timing: Timing) {
    let mut servers = Servers::start(["consul", "etcd"]).await;
    let proxy = Proxy::start(servers.etcd.as_ref().unwrap().addr()).await.unwrap();
    let pair = Pair { etcd: Some(proxy.addr()), ..Pair::of(&servers, "consul", "etcd") };
    let mut world = pair.mirrored(Site::new(timing, 3)).await;
    let begin = Writes::of(&world).await;
    let outage = timing.outage.max(6 * timing.heartbeat);
    sleep(outage).await;
    let before = Writes::of(&world).await;

    proxy.pause();
    sleep(outage).await;
    let during = Writes::of(&world).await;
    let ((_, usual), (number, hung)) = (before.since(&begin), during.since(&before));
    println!("a ring write: {:.1} ms, {:.1} ms while the secondary hangs", usual * 1e3, hung * 1e3);
    // Three ingesters, of whose heartbeats one each may be under way.
    let expected = 3.0 * (outage.as_secs_f64() / timing.heartbeat.as_secs_f64() - 2.0);
    assert!(number >= expected, "{number} heartbeats of {expected}");
    assert!(hung <= usual + NOISE, "{usual} s, then {hung} s");
    // It is told, and the switch refused.
    let told = world.refuses("status", "etcd").await;
    assert!(told.text.contains("etcd"), "{}", told.text);
    world.refuses("switch", "etcd").await;
    world.everywhere(|report| primary_is(report, "consul")).await;
    proxy.restore();
    world.everywhere(gate_is_open).await;

    let etcd = servers.etcd.as_mut().unwrap();
    etcd.kill(0).unwrap();
    sleep(outage).await;
    world.refuses("status", "etcd").await;
    etcd.wipe(0).unwrap();
    etcd.start_again(0).await.unwrap();
    world.everywhere(|report| is_complete(report, "etcd")).await;
    world.everywhere(gate_is_open).await;
    world.done();
    world.verdict("the secondary hangs, dies, is empty").await;
}

/// The primary is dead for a while, in which a process restarts, and comes back empty.
pub(crate) async fn the_primary_fails(timing: Timing) {
    let mut servers = Servers::start(["consul", "memberlist"]).await;
    let mut world = Pair::of(&servers, "consul", "memberlist").mirrored(Site::new(timing, 3)).await;
    let consul = servers.consul.as_mut().unwrap();
    consul.kill().unwrap();
    sleep(timing.outage / 2).await;
    world.restart("ingester-2").await;
    world.restart("store-gateway-1").await;
    world.restart("distributor-1").await;
    sleep(timing.outage / 2).await;
    world.sees_all().await;
    consul.wipe().unwrap();
    consul.start_again().await.unwrap();
    world.everywhere(|report| is_complete(report, "consul")).await;
    world.done();
    sleep(5 * timing.heartbeat).await;
    world.sees_all().await;
    world.verdict("the primary dies, comes back empty").await;
}

/// The secondary takes no value as large as the ring: that is told, and nothing else happens.
pub(crate) async fn the_ring_is_too_large(timing: Timing) {
    let servers = Servers::start(["consul", "memberlist"]).await;
    let limit = ", max_value_bytes: 1000";
    let pair = Pair { more: limit, ..Pair::of(&servers, "memberlist", "consul") };
    let mut world = pair.start(Site::new(timing, 3)).await;
    // What fits is there, and what does not is named.
    sleep(3 * timing.reconcile + 2 * timing.heartbeat).await;
    let mut refused = 0.0;
    for node in &world.ingesters {
        refused += node.metric("cortex_multikv_mirror_outcomes_total", &["outcome=\"too_large\""]).await;
    }
    assert!(refused > 0.0, "nothing was too large");
    let told = world.refuses("status", "consul").await;
    assert!(told.text.contains("consul") && told.text.contains("ingester-"), "{}", told.text);
    world.refuses("switch", "consul").await;
    world.everywhere(|report| primary_is(report, "memberlist")).await;
    world.done();
    world.verdict("the ring does not fit").await;
}
