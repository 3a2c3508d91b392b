//! What stands in files and makes no sense: it is told, counted, and changes nothing.

use ringkit_testkit::{ProcessBuilder, eventually_ok, http};

use super::ctl::{self, mirror_is, primary_is};
use super::pair::{Pair, Servers};
use super::site::{Role, Site, Timing};
use super::world::World;
use crate::stores::{SOON, program};

const REFUSED: &str = "cortex_multikv_runtime_config_refused_total";
const SUCCESSFUL: &str = "cortex_runtime_config_last_reload_successful";

/// Within a while the metric says so in every process, of all series that have `part`.
async fn metric_is(world: &World, name: &str, part: &str, holds: impl Fn(f64) -> bool) {
    let holds = &holds;
    let all = || async move {
        for node in world.nodes() {
            let value = node.metric(name, &[part]).await;
            if !holds(value) {
                return Err(format!("{}: {name} is {value}", node.name));
            }
        }
        Ok(())
    };
    eventually_ok(world.site.timing.settled_within(), all).await.unwrap();
}

/// Everybody goes on as before.
async fn nothing_changed(world: &World) {
    world
        .everywhere(|report| {
            primary_is(report, "consul")?;
            mirror_is(report, true)
        })
        .await;
    world.sees_all().await;
}

/// The runtime configuration becomes what makes no sense, in every way.
pub(super) async fn of_the_runtime_configuration(timing: Timing) {
    let servers = Servers::start(["consul", "memberlist"]).await;
    let mut world = Pair::of(&servers, "consul", "memberlist").mirrored(Site::new(timing, 3)).await;
    // Unknown stores, two stores as one, text that is cut off or no YAML, keys that do not exist: the old file holds.
    for text in [
        "multi_kv_config: {primary: zookeeper, generation: 9}\n",
        "multi_kv_config: {primary: multi, generation: 9}\n",
        "multi_kv_config: {primary: [memberlist\n",
        "multi_kv_config:\n\tprimary: memberlist\n",
        "multi_kv_config: {primary: memberlist, mirror: false, generation: 9}\n",
        "multi_kv_config: {primary: memberlist, mirror_enabled: perhaps, generation: 9}\n",
        "multi_kv_config: {primary: memberlist}\n---\nmulti_kv_config: {primary: memberlist}\n",
    ] {
        world.site.write_runtime(text);
        metric_is(&world, SUCCESSFUL, "", |value| value == 0.0).await;
        nothing_changed(&world).await;
        world.site.write_runtime("multi_kv_config: {generation: 1}\n");
        metric_is(&world, SUCCESSFUL, "", |value| value == 1.0).await;
    }
    // So it does when there is none any more.
    std::fs::remove_file(world.site.runtime()).unwrap();
    metric_is(&world, SUCCESSFUL, "", |value| value == 0.0).await;
    nothing_changed(&world).await;
    world.site.write_runtime("multi_kv_config: {generation: 2}\n");
    metric_is(&world, SUCCESSFUL, "", |value| value == 1.0).await;
    // A store that is none of the two, although there is such a kind.
    world.site.write_runtime("multi_kv_config: {primary: etcd, generation: 3}\n");
    metric_is(&world, REFUSED, "reason=\"unknown_store\"", |value| value > 0.0).await;
    nothing_changed(&world).await;
    // The store that decides already: nothing to do.
    world.site.write_runtime("multi_kv_config: {primary: consul, generation: 4}\n");
    nothing_changed(&world).await;
    // A step from before.
    world
        .site
        .write_runtime("multi_kv_config: {primary: memberlist, mirror_enabled: false, generation: 2}\n");
    metric_is(&world, REFUSED, "reason=\"generation\"", |value| value > 0.0).await;
    nothing_changed(&world).await;
    world.done();
    world.verdict("runtime configurations that make no sense").await;
}

/// A configuration that no process can be started with says why.
pub(super) async fn of_the_configuration() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("bad.yaml");
    for (multi, parts) in [
        ("primary: consul, secondary: consul, mirror_enabled: true", ["multi.secondary", "must differ"]),
        ("primary: consul, mirror_enabled: true", ["multi.secondary", "is not set"]),
        ("secondary: memberlist, mirror_enabled: true", ["multi.primary", "is not set"]),
        ("primary: multi, secondary: memberlist", ["multi.primary", "cannot be multi"]),
        ("primary: zookeeper, secondary: memberlist", ["multi.primary", "zookeeper"]),
    ] {
        let text = format!("ring: {{store: multi, kvstore: {{multi: {{{multi}}}}}}}\n");
        std::fs::write(&file, text).unwrap();
        let flag = format!("-config.file={}", file.display());
        let builder = ProcessBuilder::new("ringkit", program("ringkit")).arg(flag).dir(dir.path());
        let mut process = builder.start().unwrap();
        let status = process.wait(SOON).await.unwrap();
        // All of its output is there once it is known to have ended.
        let told = process.check_running().unwrap_err().to_string();
        assert_eq!(status.code(), Some(1), "{multi}: {told}");
        for part in parts {
            assert!(told.contains(part), "{multi}: {part} is not in: {told}");
        }
    }
}

/// Processes on one store, whom the runtime configuration tells of two, go on.
pub(super) async fn of_processes_on_one_store() {
    let mut site = Site::new(Timing::SCALED, 1);
    let runtime = site.runtime();
    let text = format!(
        "ring: {{store: inmemory}}\nruntime_config: {{file: '{}', period: 200ms}}\n",
        runtime.display()
    );
    site.configure(&[("stores.yaml", &text)]);
    let mut alone = site.launch("ingester-1", Role::Ingester).await;
    alone.ready().await;
    site.ask("memberlist", true);
    let taken = || async {
        let page = http::get(alone.addr, "/runtime_config").await.map_err(|error| error.to_string())?.text();
        if page.contains("mirror_enabled: true") { Ok(()) } else { Err(page) }
    };
    eventually_ok(SOON, taken).await.unwrap();
    assert!(ctl::multikv(alone.addr).await.unwrap().is_empty());
    let answer = http::get(alone.addr, "/ready").await.unwrap();
    assert_eq!(answer.status, 200, "{}", answer.text());
}
