//! The migration guide of Cortex, step by step.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Duration;

use ringkit_testkit::{Consul, Prometheus, eventually_ok};
use serde_json::Value;
use tokio::time::sleep;

use super::site::{Site, Timing, ms};
use super::world::{Order, World};

/// Where one begins.
const BEFORE: &str = r#"
ring:
  store: consul
ingester:
  lifecycler:
    ring:
      kvstore:
        store: consul
        consul:
          host: "consul.example:8500"
"#;

/// The guide's first file, word for word.
const FIRST: &str = r#"
ring:
  store: memberlist
memberlist:
  abort_if_join_fails: false
  bind_port: 7946
  join_members: ["gossip-ring.ns.svc.cluster.local:7946"]
ingester:
  lifecycler:
    join_after: 60s
    heartbeat_period: 5s
    ring:
      kvstore:
        store: multi
        multi:
          mirror_enabled: true
          primary: consul
          secondary: memberlist
        consul:
          host: "consul.example:8500"
"#;

/// The guide's second file, word for word, which takes the place of the same keys of the first.
const SECOND: &str = "
ingester:
  lifecycler:
    join_after: 60s
    heartbeat_period: 5s
    ring:
      kvstore:
        store: memberlist
";

/// The query by which the guide tells that mirroring works.
const GUIDE_QUERY: &str = "rate(cortex_multikv_mirror_writes_total[5m])";

/// A file of the guide with its placeholders filled in.
fn filled(text: &str, consul: SocketAddr, seeds: &[String]) -> String {
    let seeds: Vec<String> = seeds.iter().map(|seed| format!("{seed:?}")).collect();
    text.replace("consul.example:8500", &consul.to_string())
        .replace("\"gossip-ring.ns.svc.cluster.local:7946\"", &seeds.join(", "))
}

/// From Consul to gossip by the guide: two rollouts, after which Consul is stopped.
pub(super) async fn followed(timing: Timing, ingesters: usize, order: Order) {
    let consul = Consul::start().await.unwrap();
    let mut site = Site::new(timing, ingesters);
    // Not the guide's, and only of interest where time is scaled.
    site.flag(format!("-ingester.lifecycler.ring.kvstore.multi.reconcile-interval={}", ms(timing.reconcile)));
    let [before, first, second] =
        [BEFORE, FIRST, SECOND].map(|text| filled(text, consul.addr(), &site.seeds()));
    site.configure(&[("before.yaml", &before)]);
    let mut world = World::start(site).await;

    world.site.configure(&[("first.yaml", &first)]);
    world.roll(order).await;
    world.sees_all().await;
    mirroring_is_seen(&world).await;
    world.site.configure(&[("first.yaml", &first), ("second.yaml", &second)]);
    world.roll(order).await;
    drop(consul);
    world.done();
    sleep(5 * timing.heartbeat).await;
    world.sees_all().await;
    let join_after = timing.join_after.map_or("auto".to_owned(), |after| format!("{after:?}"));
    world.verdict(&format!("the guide, {ingesters} ingesters, join_after {join_after}, {order:?}")).await;
}

/// What the guide says to look at before the second rollout, as it says to: by Prometheus.
async fn mirroring_is_seen(world: &World) {
    let targets: Vec<String> = world.nodes().map(|node| node.member.addr.to_string()).collect();
    let config = format!(
        "global: {{scrape_interval: 1s}}\n\
         scrape_configs:\n- job_name: cortex\n  static_configs: [{{targets: {targets:?}}}]\n"
    );
    let prometheus = Prometheus::start(&config).await.unwrap();
    for (query, least) in [(GUIDE_QUERY, f64::MIN_POSITIVE), ("cortex_multikv_mirror_enabled", 1.0)] {
        let shown = || async {
            let answer = prometheus.query(query).await.map_err(|error| error.to_string())?;
            let answer: Value = serde_json::from_slice(&answer.body).map_err(|error| error.to_string())?;
            let series = answer["data"]["result"].as_array().cloned().unwrap_or_default();
            let value =
                |series: &Value| series["value"][1].as_str().and_then(|text| text.parse::<f64>().ok());
            let good = series.iter().filter(|series| value(series).is_some_and(|value| value >= least));
            let instances: BTreeSet<&str> =
                good.filter_map(|series| series["metric"]["instance"].as_str()).collect();
            if instances.len() == targets.len() { Ok(()) } else { Err(format!("{query}: {answer}")) }
        };
        eventually_ok(Duration::from_secs(60), shown).await.unwrap();
    }
}
