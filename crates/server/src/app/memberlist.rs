//! Module `memberlist-kv`: the process as a member of the cluster that keeps its keys by gossip. Every role depends on it, so
//! that the member is there before them and leaves after them.
//!
//! The store makes the member; here is only what the process has to do with it: its options, its failure, its leave.

use std::time::Duration;

use async_trait::async_trait;
use ringkit_config::{AutoDuration, Config, KvStore, RingName};
use ringkit_kv::Stores;
use ringkit_kv::memberlist::MemberlistOptions;
use ringkit_runtime::{CancellationToken, Cause, Clock, Meter, Module, Service};

use super::SERVER;
use crate::pages;
use crate::process::Process;

/// The module's name, as in Cortex.
pub(super) const NAME: &str = "memberlist-kv";

/// How much longer than twice `memberlist.leave_timeout` leaving may take: the member itself keeps to less.
const LEAVE_MARGIN: Duration = Duration::from_secs(4);
/// How much longer the service may take, so that it gives up before it is given up on.
const STOP_MARGIN: Duration = Duration::from_secs(1);

/// Whose the member is that this process keeps its keys with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Owner {
    /// This app's: it leaves when the app stops.
    App,
    /// That of whoever made the stores, which other apps may use as well.
    Other,
}

/// Tells the stores how the member is to be, unless they have one already. Nothing is started before a role opens a store on
/// it.
pub(super) fn configure(stores: &Stores, config: &Config, meter: &Meter, clock: &Clock) -> Owner {
    if stores.memberlist().is_some() {
        return Owner::Other;
    }
    stores.set_memberlist(MemberlistOptions {
        config: config.memberlist.clone(),
        zone: zone(config).to_owned(),
        build: env!("CARGO_PKG_VERSION").to_owned(),
        meter: meter.clone(),
        clock: clock.clone(),
        proceed_after: proceed_after(config),
    });
    Owner::App
}

/// After what time this process goes on without having found its cluster: whoever gives `join_after` means it.
fn proceed_after(config: &Config) -> Option<Duration> {
    match config.ingester.lifecycler.join_after {
        AutoDuration::After(delay) if !delay.is_zero() => Some(delay),
        AutoDuration::Auto | AutoDuration::After(_) => None,
    }
}

/// The zone that this process is in, by the first of its rings that says so; empty = none.
fn zone(config: &Config) -> &str {
    let ingester = config.ingester.lifecycler.availability_zone.as_str();
    let gateway = config.store_gateway.sharding_ring.instance_availability_zone.as_str();
    if ingester.is_empty() { gateway } else { ingester }
}

/// Whether a ring is on gossip, alone or as one of two stores.
fn is_used(config: &Config) -> bool {
    RingName::ALL.into_iter().any(|ring| {
        let kv = config.kv(ring);
        let multi = [kv.multi.primary, kv.multi.secondary];
        kv.store == KvStore::Memberlist
            || kv.store == KvStore::Multi && multi.contains(&Some(KvStore::Memberlist))
    })
}

/// The module. Without a ring on gossip there is nothing to run.
pub(super) fn module(owner: Owner) -> Module<Process> {
    Module {
        name: NAME,
        visible: false,
        dependencies: vec![SERVER],
        init: Box::new(move |process| Ok(init(process, owner))),
    }
}

fn init(process: &mut Process, owner: Owner) -> Option<Box<dyn Service>> {
    if owner == Owner::App && !is_used(&process.config) {
        return None;
    }
    process.link(pages::ADMIN, "/memberlist", pages::memberlist::TITLE);
    let leave_within = process.config.memberlist.leave_timeout.saturating_mul(2).saturating_add(LEAVE_MARGIN);
    process.stop_deadline(NAME, leave_within.saturating_add(STOP_MARGIN));
    Some(Box::new(MemberlistKv { stores: process.stores.clone(), owner, leave_within }))
}

struct MemberlistKv {
    stores: Stores,
    owner: Owner,
    leave_within: Duration,
}

#[async_trait]
impl Service for MemberlistKv {
    async fn run(&mut self, stop: CancellationToken) -> Result<(), Cause> {
        // Without any role that uses such a ring there is no member.
        let Some(member) = self.stores.memberlist() else {
            stop.cancelled().await;
            return Ok(());
        };
        tokio::select! {
            () = stop.cancelled() => Ok(()),
            failure = member.failed() => Err(failure.into()),
        }
    }

    async fn stop(&mut self, failure: Option<&Cause>) -> Result<(), Cause> {
        // A member that failed has nothing to say any more.
        if self.owner == Owner::Other || failure.is_some() {
            return Ok(());
        }
        let Some(member) = self.stores.memberlist() else { return Ok(()) };
        if tokio::time::timeout(self.leave_within, member.leave()).await.is_err() {
            let within = self.leave_within;
            tracing::warn!(
                ?within,
                "could not leave the gossip cluster in time: others will find this member dead"
            );
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use ringkit_runtime::ServiceState;

    use super::*;
    use crate::app::App;

    /// A process that does nothing but read the ingester ring, which is on gossip.
    fn config() -> Config {
        let mut config = Config { target: vec!["ring".into()], ..Config::default() };
        let server = &mut config.server;
        (server.http_listen_address, server.grpc_listen_address) = ("127.0.0.1".into(), "127.0.0.1".into());
        (server.http_listen_port, server.grpc_listen_port) = (0, 0);
        config.ingester.lifecycler.ring.kvstore.store = KvStore::Memberlist;
        let memberlist = &mut config.memberlist;
        (memberlist.node_name, memberlist.randomize_node_name) = ("reader".into(), false);
        (memberlist.bind_addr, memberlist.bind_port) = (vec!["127.0.0.1".into()], 0);
        config
    }

    #[test]
    fn the_zone_is_that_of_the_first_ring_with_one() {
        let mut config = Config::default();
        assert_eq!(zone(&config), "");
        config.store_gateway.sharding_ring.instance_availability_zone = "b".into();
        assert_eq!(zone(&config), "b");
        config.ingester.lifecycler.availability_zone = "a".into();
        assert_eq!(zone(&config), "a");
    }

    #[test]
    fn one_of_two_stores_counts() {
        let mut config = config();
        assert!(is_used(&config));
        let kv = &mut config.ingester.lifecycler.ring.kvstore;
        kv.store = KvStore::Multi;
        (kv.multi.primary, kv.multi.secondary) = (Some(KvStore::Consul), Some(KvStore::Inmemory));
        assert!(!is_used(&config));
        config.ingester.lifecycler.ring.kvstore.multi.secondary = Some(KvStore::Memberlist);
        assert!(is_used(&config));
    }

    #[tokio::test]
    async fn the_member_is_there_before_the_roles_and_leaves_after_them() {
        let running = App::builder(config()).start().await.unwrap();
        running.ready().await.unwrap();
        let names = ["memberlist-kv", "ring", "server"].map(|name| (name.to_owned(), ServiceState::Running));
        assert_eq!(running.services(), BTreeMap::from(names));
        let get = async |path: &str| {
            let answer = reqwest::get(format!("http://{}{path}", running.http_addr)).await.unwrap();
            answer.text().await.unwrap()
        };
        assert!(get("/memberlist").await.contains("reader"));
        assert!(get("/").await.contains("<a href=\"/memberlist\">"));
        let report = running.stop().await;
        assert!(report.is_clean(), "{report}");
        let steps: Vec<&str> = report.steps.iter().map(|step| step.name.as_str()).collect();
        assert_eq!(steps, ["ring", "memberlist-kv", "server", "background work"]);
    }

    #[tokio::test]
    async fn a_member_that_cannot_join_ends_the_process() {
        let mut config = config();
        let memberlist = &mut config.memberlist;
        memberlist.join_members = vec!["127.0.0.1:1".into()];
        (memberlist.max_join_retries, memberlist.abort_if_cluster_join_fails) = (1, true);
        memberlist.min_join_backoff = Duration::from_millis(10);
        memberlist.max_join_backoff = Duration::from_millis(10);
        let mut running = App::builder(config).start().await.unwrap();
        let reason = tokio::time::timeout(Duration::from_secs(30), running.wait()).await.unwrap();
        assert!(!reason.is_success());
        assert!(reason.to_string().starts_with("`memberlist-kv` failed while running: "), "{reason}");
        let _ = running.stop().await;
    }

    #[tokio::test]
    async fn without_a_ring_on_gossip_the_page_says_so() {
        let mut config = config();
        config.ingester.lifecycler.ring.kvstore.store = KvStore::Inmemory;
        let running = App::builder(config).start().await.unwrap();
        running.ready().await.unwrap();
        assert!(!running.services().contains_key(NAME));
        let get = async |path: &str| {
            let answer = reqwest::get(format!("http://{}{path}", running.http_addr)).await.unwrap();
            answer.text().await.unwrap()
        };
        assert_eq!(get("/memberlist").await, "This instance doesn't use memberlist.");
        assert!(!get("/").await.contains("/memberlist"));
        let _ = running.stop().await;
    }
}
