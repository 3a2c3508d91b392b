//! Two real stores, and processes that keep every ring in both.

use std::net::SocketAddr;

use ringkit_testkit::{Consul, Etcd};

use super::ctl::gate_is_open;
use super::site::{Site, ms};
use super::world::World;

/// The servers of two stores; gossip needs none.
#[derive(Default)]
pub(super) struct Servers {
    pub(super) consul: Option<Consul>,
    pub(super) etcd: Option<Etcd>,
}

impl Servers {
    /// Starts what these stores need.
    pub(super) async fn start(stores: [&str; 2]) -> Self {
        let mut servers = Self::default();
        for store in stores {
            match store {
                "consul" => servers.consul = Some(Consul::start().await.unwrap()),
                "etcd" => servers.etcd = Some(Etcd::start().await.unwrap()),
                _ => (),
            }
        }
        servers
    }

    /// Stops the server of a store for good.
    pub(super) fn stop(&mut self, store: &str) {
        match store {
            "consul" => self.consul = None,
            "etcd" => self.etcd = None,
            _ => (),
        }
    }
}

/// Every ring in two stores.
pub(super) struct Pair<'a> {
    pub(super) primary: &'a str,
    pub(super) secondary: &'a str,
    pub(super) mirror: bool,
    /// Where the servers are, as processes see it.
    pub(super) consul: Option<SocketAddr>,
    pub(super) etcd: Option<SocketAddr>,
    /// More keys of `multi`.
    pub(super) more: &'a str,
    /// Whether members are told of each other.
    pub(super) seeds: bool,
}

impl<'a> Pair<'a> {
    pub(super) fn of(servers: &Servers, primary: &'a str, secondary: &'a str) -> Self {
        Self {
            primary,
            secondary,
            mirror: true,
            consul: servers.consul.as_ref().map(Consul::addr),
            etcd: servers.etcd.as_ref().map(Etcd::addr),
            more: "",
            seeds: true,
        }
    }

    pub(super) fn yaml(&self, site: &Site) -> String {
        let Self { primary, secondary, mirror, more, .. } = self;
        let timing = &site.timing;
        let (reconcile, start, reload) = (ms(timing.reconcile), ms(timing.start_timeout), ms(timing.reload));
        let mut servers = String::new();
        if let Some(consul) = self.consul {
            servers += &format!("    consul: {{host: '{consul}'}}\n");
        }
        if let Some(etcd) = self.etcd {
            servers += &format!("    etcd: {{endpoints: ['{etcd}'], dial_timeout: 2s}}\n");
        }
        let seeds = if self.seeds { site.seeds() } else { Vec::new() };
        format!(
            "ring:\n  store: multi\n  kvstore:\n{servers}    multi: {{primary: {primary}, secondary: {secondary}, mirror_enabled: {mirror}, \
             reconcile_interval: {reconcile}, start_timeout: {start}, mirror_drain_timeout: 2s{more}}}\n\
             memberlist: {{cluster_label: test, join_members: {seeds:?}, abort_if_cluster_join_fails: false}}\n\
             runtime_config: {{file: '{}', period: {reload}}}\n",
            site.runtime().display(),
        )
    }

    /// A cluster on these two stores.
    pub(super) async fn start(&self, mut site: Site) -> World {
        let yaml = self.yaml(&site);
        site.configure(&[("stores.yaml", &yaml)]);
        World::start(site).await
    }

    /// The same, once both stores hold the same.
    pub(super) async fn mirrored(&self, site: Site) -> World {
        let world = self.start(site).await;
        world.everywhere(gate_is_open).await;
        world
    }
}
