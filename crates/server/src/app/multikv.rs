//! Module `multi-kv`: what the process has to do with rings that are kept in two stores. Every role depends on it: before them
//! it says what the runtime configuration asks for, and after them it waits until everything is mirrored.
//!
//! The stores do the rest: see [`ringkit_kv::multi`].

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::future::join_all;
use ringkit_config::{Config, KvStore, MultiRuntimeConfig, RingName, RingSwitch, RuntimeConfig};
use ringkit_kv::Stores;
use ringkit_kv::multi::{Freshness, MultiRuntime, PerRing};
use ringkit_runtime::{CancellationToken, Cause, Module, Service};
use tokio::sync::watch;

use super::{SERVER, memberlist, runtime_config};
use crate::pages;
use crate::process::Process;

/// The module's name. It depends on gossip, so that what is on its way to members is waited for before they are left.
pub(super) const NAME: &str = "multi-kv";

/// How much longer than the longest `mirror_drain_timeout` stopping may take: the stores themselves keep to that.
const STOP_MARGIN: Duration = Duration::from_secs(1);

/// The module. Without a ring in two stores there is nothing to run.
pub(super) fn module() -> Module<Process> {
    Module {
        name: NAME,
        visible: false,
        dependencies: vec![SERVER, memberlist::NAME, runtime_config::NAME],
        init: Box::new(|process| Ok(init(process))),
    }
}

fn init(process: &mut Process) -> Option<Box<dyn Service>> {
    let config = Arc::clone(&process.config);
    let drain_within = drain_timeout(&config)?;
    for ring in RingName::ALL {
        let freshness = freshness(&config, ring);
        kv_names(ring).iter().for_each(|kv_name| process.stores.set_multi_freshness(kv_name, freshness));
    }
    let said = asked(&process.runtime_config.borrow().multi_kv_config);
    let said = watch::Sender::new(said);
    process.stores.set_multi_runtime(said.subscribe());
    process.link(pages::ADMIN, "/multikv", pages::multikv::TITLE);
    process.stop_deadline(NAME, drain_within.saturating_add(STOP_MARGIN));
    let changes = process.runtime_config.clone();
    Some(Box::new(MultiKv { stores: process.stores.clone(), changes, said }))
}

/// The longest that a ring in two stores waits at the end; `None` if no ring is.
fn drain_timeout(config: &Config) -> Option<Duration> {
    let stores = RingName::ALL.into_iter().map(|ring| config.kv(ring));
    stores.filter(|kv| kv.store == KvStore::Multi).map(|kv| kv.multi.mirror_drain_timeout).max()
}

/// What the stores of a ring are called by those who open them.
fn kv_names(ring: RingName) -> &'static [&'static str] {
    match ring {
        RingName::Ingester => &["ingester-lifecycler", "ingester-ring"],
        RingName::Distributor => &["distributor-lifecycler"],
        RingName::StoreGateway => &["store-gateway"],
    }
}

fn freshness(config: &Config, ring: RingName) -> Freshness {
    let (lifecycler, distributor) = (&config.ingester.lifecycler, &config.distributor.ring);
    let gateway = &config.store_gateway.sharding_ring;
    let (heartbeat_period, heartbeat_timeout) = match ring {
        RingName::Ingester => (lifecycler.heartbeat_period, lifecycler.ring.heartbeat_timeout),
        RingName::Distributor => (distributor.heartbeat_period, distributor.heartbeat_timeout),
        RingName::StoreGateway => (gateway.heartbeat_period, gateway.heartbeat_timeout),
    };
    let left_timeout = config.memberlist.left_ingesters_timeout;
    Freshness { heartbeat_period, heartbeat_timeout, left_timeout }
}

/// What the runtime configuration asks for, as the stores understand it.
fn asked(config: &MultiRuntimeConfig) -> MultiRuntime {
    let of_ring =
        |switch: &RingSwitch| PerRing { primary: switch.primary, mirror_enabled: switch.mirror_enabled };
    MultiRuntime {
        primary: config.primary,
        mirror_enabled: config.mirror_enabled,
        force: config.force,
        generation: config.generation,
        per_ring: config.per_ring.iter().map(|(ring, switch)| (ring.clone(), of_ring(switch))).collect(),
    }
}

struct MultiKv {
    stores: Stores,
    changes: watch::Receiver<Arc<RuntimeConfig>>,
    /// Kept as long as the stores are to hear of changes.
    said: watch::Sender<MultiRuntime>,
}

#[async_trait]
impl Service for MultiKv {
    async fn run(&mut self, stop: CancellationToken) -> Result<(), Cause> {
        loop {
            let asked = asked(&self.changes.borrow_and_update().multi_kv_config);
            self.said.send_if_modified(|said| {
                let is_news = *said != asked;
                *said = asked;
                is_news
            });
            tokio::select! {
                () = stop.cancelled() => return Ok(()),
                changed = self.changes.changed() => {
                    if changed.is_err() {
                        stop.cancelled().await;
                        return Ok(());
                    }
                }
            }
        }
    }

    async fn stop(&mut self, _: Option<&Cause>) -> Result<(), Cause> {
        // Those who write have ended. Each store gives up, and says so, by itself.
        let multis = self.stores.multis();
        join_all(multis.iter().map(|multi| multi.drain())).await;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::path::Path;

    use ringkit_kv::multi::MultiReport;

    use super::*;
    use crate::app::App;
    use crate::running::Running;

    /// A process that does nothing but read the ingester ring, which is in memory and moves to gossip.
    fn config(runtime: &Path) -> Config {
        let mut config = Config { target: vec!["ring".into()], ..Config::default() };
        let server = &mut config.server;
        (server.http_listen_address, server.grpc_listen_address) = ("127.0.0.1".into(), "127.0.0.1".into());
        (server.http_listen_port, server.grpc_listen_port) = (0, 0);
        let kv = &mut config.ingester.lifecycler.ring.kvstore;
        kv.store = KvStore::Multi;
        (kv.multi.primary, kv.multi.secondary) = (Some(KvStore::Inmemory), Some(KvStore::Memberlist));
        // What a switch waits for is tested where it is decided.
        kv.multi.switch_gate = false;
        let memberlist = &mut config.memberlist;
        (memberlist.node_name, memberlist.randomize_node_name) = ("reader".into(), false);
        (memberlist.bind_addr, memberlist.bind_port) = (vec!["127.0.0.1".into()], 0);
        config.runtime_config.file = runtime.to_string_lossy().into_owned();
        config.runtime_config.period = Duration::from_millis(20);
        config
    }

    async fn reports(stores: &Stores, what: &str, holds: impl Fn(&MultiReport) -> bool) {
        const WITHIN: Duration = Duration::from_secs(30);
        let reported = async {
            while !stores.multis().iter().all(|multi| holds(&multi.report())) {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        assert!(tokio::time::timeout(WITHIN, reported).await.is_ok(), "{what} was not reported");
    }

    async fn page(running: &Running) -> String {
        let answer = reqwest::get(format!("http://{}/", running.http_addr)).await.unwrap();
        answer.text().await.unwrap()
    }

    #[tokio::test]
    async fn stores_follow_the_runtime_configuration_and_stop_between_roles_and_gossip() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let ask = |text: &str| std::fs::write(file.path(), format!("multi_kv_config: {text}\n")).unwrap();
        ask("{mirror_enabled: true, generation: 1}");
        let stores = Stores::new();
        let running = App::builder(config(file.path())).stores(stores.clone()).start().await.unwrap();
        running.ready().await.unwrap();
        assert_eq!(stores.multis().len(), 1);
        reports(&stores, "what the file says at the start", |report| {
            report.mirror && report.switch.generation == 1 && report.primary == "inmemory"
        })
        .await;
        ask("{primary: memberlist, mirror_enabled: true, generation: 2}");
        reports(&stores, "a switch", |report| report.primary == "memberlist").await;
        ask("{per_ring: {ingester-ring: {primary: inmemory, mirror_enabled: false}}, generation: 3}");
        reports(&stores, "what is said for one ring", |report| {
            report.primary == "inmemory" && !report.mirror
        })
        .await;
        assert!(page(&running).await.contains("<a href=\"/multikv\">Multi KV Status</a>"));

        let report = running.stop().await;
        assert!(report.is_clean(), "{report}");
        let at = |name: &str| report.steps.iter().position(|step| step.name == name).unwrap();
        assert!(at("ring") < at(NAME) && at(NAME) < at(memberlist::NAME), "{report}");
    }

    #[tokio::test]
    async fn without_a_ring_in_two_stores_there_is_nothing_to_run() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let mut config = config(file.path());
        config.ingester.lifecycler.ring.kvstore.store = KvStore::Inmemory;
        let running = App::builder(config).start().await.unwrap();
        running.ready().await.unwrap();
        assert!(!running.services().contains_key(NAME));
        assert!(!page(&running).await.contains("/multikv"));
        let _ = running.stop().await;
    }

    #[test]
    fn owners_give_signs_of_life_as_their_ring_is_configured() {
        let mut config = Config::default();
        config.ingester.lifecycler.heartbeat_period = Duration::from_secs(1);
        config.store_gateway.sharding_ring.heartbeat_timeout = Duration::from_secs(2);
        config.memberlist.left_ingesters_timeout = Duration::from_secs(3);
        let ingester = freshness(&config, RingName::Ingester);
        let expected = Freshness { heartbeat_period: Duration::from_secs(1), ..Freshness::default() };
        assert_eq!(ingester, Freshness { left_timeout: Duration::from_secs(3), ..expected });
        let gateway = freshness(&config, RingName::StoreGateway);
        assert_eq!(gateway.heartbeat_timeout, Duration::from_secs(2));
        assert_eq!(gateway.heartbeat_period, config.store_gateway.sharding_ring.heartbeat_period);
    }

    #[test]
    fn all_that_is_asked_for_reaches_the_stores() {
        let own = RingSwitch { primary: Some(KvStore::Etcd), mirror_enabled: Some(false) };
        let config = MultiRuntimeConfig {
            primary: Some(KvStore::Consul),
            mirror_enabled: Some(true),
            force: true,
            generation: 7,
            per_ring: BTreeMap::from([("store-gateway".to_owned(), own)]),
        };
        let asked = asked(&config);
        assert_eq!((asked.force, asked.generation), (true, 7));
        assert_eq!(
            asked.of("store-gateway"),
            PerRing { primary: Some(KvStore::Etcd), mirror_enabled: Some(false) }
        );
        assert_eq!(
            asked.of("ingester-ring"),
            PerRing { primary: Some(KvStore::Consul), mirror_enabled: Some(true) }
        );
    }
}
