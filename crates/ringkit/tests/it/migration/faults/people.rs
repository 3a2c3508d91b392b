//! What operators and their tools do at the wrong moment.

use std::time::Duration;

use ringkit_testkit::eventually_ok;
use serde_json::Value;
use tokio::time::sleep;

use crate::migration::ctl::{self, mirror_is, primary_is};
use crate::migration::pair::{Pair, Servers};
use crate::migration::site::{Site, Timing};
use crate::migration::world::World;

/// The process whose runtime configuration is its own.
const ODD: &str = "store-gateway-2";

async fn mirrored(timing: Timing, change: impl FnOnce(&mut Site)) -> (Servers, World) {
    let servers = Servers::start(["consul", "memberlist"]).await;
    let mut site = Site::new(timing, 3);
    change(&mut site);
    let world = Pair::of(&servers, "consul", "memberlist").mirrored(site).await;
    (servers, world)
}

/// An ingester is killed as soon as the first process has switched, and comes back.
pub(crate) async fn an_ingester_is_killed_mid_switch(timing: Timing) {
    let (_servers, mut world) = mirrored(timing, |_| ()).await;
    let line = world.command("switch", "memberlist", timing.settled_within());
    let switch = tokio::spawn(ctl::run(line));
    let begun = || async {
        for node in world.nodes() {
            let reports = ctl::multikv(node.member.addr).await?;
            if reports.iter().any(|report| primary_is(report, "memberlist").is_ok()) {
                return Ok(());
            }
        }
        Err("nobody has switched yet".to_owned())
    };
    eventually_ok(timing.settled_within(), begun).await.unwrap();
    world.kill("ingester-2").await;
    // Done already, refused, or somebody cannot be asked; in no case does it end half-way.
    let told = switch.await.unwrap();
    assert!([0, 1, 3].contains(&told.code), "{told:?}");
    world.revive("ingester-2").await;
    world.migrate("switch", "memberlist").await.expect(0);
    world.everywhere(|report| primary_is(report, "memberlist")).await;
    world.done();
    world.sees_all().await;
    world.verdict("an ingester killed mid-switch").await;
}

/// One process reads its file long after the others; the step after next is refused until it has.
pub(crate) async fn one_process_reloads_late(timing: Timing) {
    let late = timing.reload + timing.timeout;
    let flag = format!("-runtime-config.reload-period={}s", late.as_secs());
    let (_servers, mut world) = mirrored(timing, |site| site.own_flag(ODD, &flag)).await;
    world.site.ask("memberlist", true);
    world.everywhere_but(&[ODD], |report| primary_is(report, "memberlist")).await;
    // Two primaries at once do no harm.
    sleep(3 * timing.heartbeat).await;
    world.sees_all().await;
    eventually_ok(late + timing.settled_within(), || async {
        let told = world.migrate_within("finish", "memberlist", Duration::from_secs(5)).await;
        if told.code == 0 { Ok(()) } else { Err(told.text) }
    })
    .await
    .unwrap();
    world.everywhere(|report| mirror_is(report, false)).await;
    world.done();
    world.sees_all().await;
    world.verdict("one process reloads late").await;
}

/// One process restarts with the file of the step before.
pub(crate) async fn one_process_restarts_with_the_old_file(timing: Timing) {
    const OWN: &str = "own.yaml";
    let (_servers, mut world) = mirrored(timing, |site| {
        let old = std::fs::read_to_string(site.runtime()).unwrap();
        site.replace(OWN, &old);
        let flag = format!("-runtime-config.file={}", site.path().join(OWN).display());
        site.own_flag(ODD, &flag);
    })
    .await;
    let old = std::fs::read_to_string(world.site.runtime()).unwrap();
    world.site.ask("memberlist", true);
    let new = std::fs::read_to_string(world.site.runtime()).unwrap();
    world.site.replace(OWN, &new);
    world.everywhere(|report| primary_is(report, "memberlist")).await;

    world.site.replace(OWN, &old);
    world.restart(ODD).await;
    world.everywhere_but(&[ODD], |report| primary_is(report, "memberlist")).await;
    sleep(3 * timing.heartbeat).await;
    world.sees_all().await;
    let told = world.refuses("finish", "memberlist").await;
    assert!(told.text.contains(ODD), "{}", told.text);

    let now = std::fs::read_to_string(world.site.runtime()).unwrap();
    world.site.replace(OWN, &now);
    world.everywhere(|report| primary_is(report, "memberlist")).await;
    world.done();
    world.sees_all().await;
    world.verdict("one process restarts with the old file").await;
}

/// Two operators take steps at once: the same, and then ones that contradict each other.
pub(crate) async fn two_operators_at_once(timing: Timing) {
    let (_servers, mut world) = mirrored(timing, |_| ()).await;
    let both = async |one: &str, other: &str| {
        let (one, other) = tokio::join!(world.migrate(one, "memberlist"), world.migrate(other, "memberlist"));
        let is_fine = [one.code, other.code].iter().all(|code| [0, 1].contains(code));
        assert!(is_fine && (one.code == 0 || other.code == 0), "{one:?}\n{other:?}");
    };
    both("switch", "switch").await;
    world.everywhere(|report| primary_is(report, "memberlist")).await;
    both("finish", "abort").await;
    all_agree(&world).await;
    world.done();
    world.sees_all().await;
    world.verdict("two operators at once").await;
}

/// Within a while all processes stand where one of them stands, and nothing waits.
async fn all_agree(world: &World) {
    let standing = |report: &Value| {
        let parts = [&report["primary"], &report["mirror"], &report["switch"]["generation"]];
        parts.map(ToString::to_string).join(" ")
    };
    let agree = || async {
        let mut first = None;
        for node in world.nodes() {
            for report in ctl::multikv(node.member.addr).await? {
                let own = standing(&report);
                let first = first.get_or_insert_with(|| own.clone());
                let waits = report["switch"]["wanted_primary"].is_string();
                if *first != own || waits {
                    return Err(format!("{}: {own}, elsewhere {first}: {}", node.name, report["switch"]));
                }
            }
        }
        Ok(())
    };
    eventually_ok(world.site.timing.settled_within(), agree).await.unwrap();
}
