//! From one store to the other while everybody uses them, without a restart.

use std::time::Duration;

use ringkit_testkit::eventually_ok;
use tokio::time::sleep;

use super::ctl::{gate_is_open, mirror_is, primary_is};
use super::pair::{Pair, Servers};
use super::site::{Site, Timing};
use super::world::{Order, World};

/// How long it is waited beyond the moment at which instances that beat in the wrong store would be dead.
const MARGIN: Duration = Duration::from_secs(3);

/// By `ringctl` from one store to the other, of which the former is then stopped for good; afterwards every process restarts, its
/// configuration as it was at the beginning.
pub(super) async fn moves(timing: Timing, from: &str, to: &str) {
    let mut servers = Servers::start([from, to]).await;
    let pair = Pair { mirror: false, ..Pair::of(&servers, from, to) };
    let mut world = pair.start(Site::new(timing, 3)).await;
    move_to(&world, from, to).await;
    servers.stop(from);
    world.done();
    sleep(timing.timeout + MARGIN).await;
    world.sees_all().await;
    world.roll(Order::Parallel).await;
    world.sees_all().await;
    world.everywhere(|report| primary_is(report, to)).await;
    world.verdict(&format!("{from} to {to} by ringctl")).await;
}

/// All steps, each of which is true everywhere before the next.
async fn move_to(world: &World, from: &str, to: &str) {
    world.migrate("plan", to).await.expect(0);
    world.migrate("start", to).await.expect(0);
    world
        .everywhere(|report| {
            primary_is(report, from)?;
            mirror_is(report, true)
        })
        .await;
    is_green(world, to).await;
    world.migrate("switch", to).await.expect(0);
    world
        .everywhere(|report| {
            primary_is(report, to)?;
            mirror_is(report, true)
        })
        .await;
    world.migrate("finish", to).await.expect(0);
    world
        .everywhere(|report| {
            primary_is(report, to)?;
            mirror_is(report, false)
        })
        .await;
}

/// Within a while `ringctl migrate status` has nothing to say against a switch.
async fn is_green(world: &World, to: &str) {
    let green = || async {
        let told = world.migrate("status", to).await;
        if told.code == 0 { Ok(()) } else { Err(told.text) }
    };
    eventually_ok(world.site.timing.settled_within(), green).await.unwrap();
}

/// There by hand, with every step called off once, and back by hand.
pub(super) async fn goes_there_and_back(timing: Timing, from: &str, to: &str) {
    let servers = Servers::start([from, to]).await;
    let pair = Pair { mirror: false, ..Pair::of(&servers, from, to) };
    let mut world = pair.start(Site::new(timing, 3)).await;

    // Called off before anything was done, while mirroring, and after the switch.
    world.migrate("abort", to).await.expect(0);
    world.everywhere(|report| primary_is(report, from)).await;
    mirrors(&world, from).await;
    called_off(&world, from, to).await;
    mirrors(&world, from).await;
    switches(&world, to).await;
    called_off(&world, from, to).await;

    mirrors(&world, from).await;
    switches(&world, to).await;
    ends(&world, to).await;
    world.sees_all().await;

    mirrors(&world, to).await;
    switches(&world, from).await;
    ends(&world, from).await;
    world.done();
    world.sees_all().await;
    world.verdict(&format!("{from} to {to} and back by hand")).await;
}

/// The whole way by `ringctl`, called off at its very end.
pub(super) async fn is_called_off_at_the_end(timing: Timing, from: &str, to: &str) {
    let servers = Servers::start([from, to]).await;
    let pair = Pair { mirror: false, ..Pair::of(&servers, from, to) };
    let mut world = pair.start(Site::new(timing, 3)).await;
    move_to(&world, from, to).await;
    called_off(&world, from, to).await;
    world.done();
    // And the other way by the same commands.
    move_to(&world, from, to).await;
    move_to(&world, to, from).await;
    world.sees_all().await;
    world.verdict(&format!("{from} to {to}, called off at the end")).await;
}

async fn mirrors(world: &World, from: &str) {
    world.site.ask(from, true);
    world
        .everywhere(|report| {
            primary_is(report, from)?;
            mirror_is(report, true)?;
            gate_is_open(report)
        })
        .await;
}

async fn switches(world: &World, to: &str) {
    world.site.ask(to, true);
    world.everywhere(|report| primary_is(report, to)).await;
}

async fn ends(world: &World, to: &str) {
    world.site.ask(to, false);
    world
        .everywhere(|report| {
            primary_is(report, to)?;
            mirror_is(report, false)
        })
        .await;
}

async fn called_off(world: &World, from: &str, to: &str) {
    world.migrate("abort", to).await.expect(0);
    world.everywhere(|report| primary_is(report, from)).await;
}
