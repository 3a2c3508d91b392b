//! Gossip that is no cluster, or not one: every sign that mirroring works would be green if only writes were counted.

use std::time::Duration;

use ringkit_config::Config;
use ringkit_runtime::Clock;
use ringkit_server::App;
use tokio::time::sleep;

use crate::http::now_ms;
use crate::migration::ctl::{gate_is_open, primary_is};
use crate::migration::pair::{Pair, Servers};
use crate::migration::site::{Role, Site, Timing};
use crate::migration::world::World;

/// Within what a cluster that is none must be told.
const TOLD_WITHIN: Duration = Duration::from_secs(10);

/// Says that the switch cannot be, and does not make it where `stays` says so of the ring: others may switch, as all of their
/// instances are in one cluster.
async fn is_refused(world: &World, named: &str, stays: fn(&str) -> bool) {
    sleep(TOLD_WITHIN).await;
    let told = world.refuses("status", "memberlist").await;
    assert!(told.text.contains(named), "{named} is not in: {}", told.text);
    world.refuses("switch", "memberlist").await;
    // Nor by hand.
    world.site.ask("memberlist", true);
    sleep(2 * world.site.timing.reload + 3 * world.site.timing.reconcile).await;
    world
        .everywhere(|report| match report["kv_name"].as_str() {
            Some(ring) if !stays(ring) => Ok(()),
            _ => primary_is(report, "consul"),
        })
        .await;
    world.site.ask("consul", true);
}

/// Nobody is told of anybody.
pub(crate) async fn there_are_no_peers(timing: Timing) {
    let servers = Servers::start(["consul", "memberlist"]).await;
    let pair = Pair { seeds: false, ..Pair::of(&servers, "consul", "memberlist") };
    let mut world = pair.start(Site::new(timing, 3)).await;
    is_refused(&world, "memberlist", |_| true).await;
    world.done();
    world.verdict("no gossip peers").await;
}

/// Some are of a cluster of another label.
pub(crate) async fn the_label_is_split(timing: Timing) {
    let servers = Servers::start(["consul", "memberlist"]).await;
    let mut site = Site::new(timing, 3);
    for name in ["ingester-3", "distributor-2"] {
        site.own_flag(name, "-memberlist.cluster-label=other");
    }
    let mut world = Pair::of(&servers, "consul", "memberlist").start(site).await;
    is_refused(&world, "ingester-3", |ring| ring != "store-gateway").await;
    world.done();
    world.verdict("a split label").await;
}

/// The clock of one process is ten minutes ahead: what it writes is in Consul, and refused by the others' gossip. That is told with
/// its name, and over once it is gone.
pub(crate) async fn a_clock_is_wrong(timing: Timing) {
    const WRONG: &str = "store-gateway-3";
    let servers = Servers::start(["consul", "memberlist"]).await;
    let mut world = Pair::of(&servers, "consul", "memberlist").mirrored(Site::new(timing, 3)).await;

    let common = format!("-config.file={}", world.site.common().display());
    let flags = world.site.flags(WRONG, Role::StoreGateway);
    let loaded = ringkit_config::load([vec![common], flags].concat(), std::iter::empty()).unwrap();
    let (clock, _) = Clock::jumping(now_ms() + 600_000);
    let app = App::builder(Config::default()).roles(ringkit::roles::ALL).loaded(loaded).clock(clock);
    let wrong = app.targets(vec!["store-gateway".to_owned()]).start().await.unwrap();
    world.receives(format!("http://{}", wrong.http_addr));
    is_refused(&world, WRONG, |ring| ring == "store-gateway").await;

    let _ = wrong.stop().await;
    world.everywhere(gate_is_open).await;
    world.done();
    world.sees_all().await;
    world.verdict("a clock that is ten minutes ahead").await;
}
