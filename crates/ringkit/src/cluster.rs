//! A whole cluster in one process: each member is an app with its own configuration, listeners, metrics and data
//! directory; they find each other by gossip, as processes would, and talk to each other over gRPC on loopback.
//!
//! What `ringkit dev` runs, and what tests start and break. Members are named `distributor-1`, `ingester-1`, …

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::time::Duration;

use ringkit_config::{Config, KvStore};
use ringkit_kv::Stores;
use ringkit_kv::memberlist::Memberlist;
use ringkit_ring::{Ring, State};
use ringkit_runtime::ShutdownReport;
use ringkit_server::{App, IngesterRing, Running};

use crate::roles;

/// What a member of the cluster does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// Keeps samples.
    Ingester,
    /// Owns blocks.
    StoreGateway,
    /// Takes writes and answers reads.
    Distributor,
}

impl Kind {
    /// In the order in which members start; they stop in the reverse order.
    const ALL: [Self; 3] = [Self::Ingester, Self::StoreGateway, Self::Distributor];
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ingester => "ingester",
            Self::StoreGateway => "store-gateway",
            Self::Distributor => "distributor",
        })
    }
}

/// How large the cluster is, and what its members have in common.
#[derive(Clone, Debug)]
pub struct ClusterOptions {
    /// Where every member's configuration starts from. Listeners, names, zones and directories are set per member, and the
    /// waits that only make sense on a real network are switched off. `ring.store` is heeded if it is set; else members
    /// gossip (`memberlist`). An in-memory store is shared by all.
    pub config: Config,
    /// One directory per member is made below it.
    pub data_dir: PathBuf,
    /// HTTP port of `distributor-1`; 0 means any free one. All other ports are any free ones.
    pub http_port: u16,
    /// Number of distributors.
    pub distributors: usize,
    /// Number of ingesters, dealt to the zones in turn.
    pub ingesters: usize,
    /// Number of store-gateways, dealt to the zones in turn.
    pub store_gateways: usize,
    /// Number of zones: `zone-a`, `zone-b`, …; at most 26.
    pub zones: usize,
    /// Whether requests must name a tenant.
    pub auth_enabled: bool,
}

impl ClusterOptions {
    /// One distributor, three ingesters in three zones, one store-gateway.
    pub fn new(data_dir: impl Into<PathBuf>) -> Self {
        Self {
            config: Config::default(),
            data_dir: data_dir.into(),
            http_port: 0,
            distributors: 1,
            ingesters: 3,
            store_gateways: 1,
            zones: 3,
            auth_enabled: false,
        }
    }

    fn count(&self, kind: Kind) -> usize {
        match kind {
            Kind::Ingester => self.ingesters,
            Kind::StoreGateway => self.store_gateways,
            Kind::Distributor => self.distributors,
        }
    }
}

/// Why a cluster, or a member of it, did not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClusterError {
    /// A member did not start.
    #[error("{member} did not start: {cause}")]
    Member {
        /// Its name.
        member: String,
        /// What it said.
        #[source]
        cause: ringkit_server::Error,
    },
    /// A member ended by itself.
    #[error("{member} has ended: {reason}")]
    Ended {
        /// Its name.
        member: String,
        /// What it said.
        reason: String,
    },
    /// A member's directory could not be made.
    #[error("cannot make the data directory {}: {cause}; choose another with --data-dir", path.display())]
    DataDir {
        /// The directory.
        path: PathBuf,
        /// What the operating system said.
        #[source]
        cause: io::Error,
    },
    /// A listener could not be opened.
    #[error("cannot listen on {addr}: {cause}; choose another port with --http-port, or 0 for any free one")]
    Listen {
        /// The address.
        addr: SocketAddr,
        /// What the operating system said.
        #[source]
        cause: io::Error,
    },
    /// There is no such member.
    #[error("the cluster has no member `{0}`")]
    Unknown(String),
    /// The member is not stopped, or not running, as the call needs it.
    #[error("{member} is {actual}")]
    State {
        /// Its name.
        member: String,
        /// What it is.
        actual: &'static str,
    },
}

/// A running cluster. Dropping it ends every member at once, as SIGKILL would.
#[derive(Debug)]
pub struct Cluster {
    options: ClusterOptions,
    stores: Stores,
    members: BTreeMap<String, Member>,
}

#[derive(Debug)]
struct Member {
    kind: Kind,
    /// From 1.
    number: usize,
    /// Kept over restarts, so that a member comes back where it was.
    http_port: u16,
    /// It as a member of the cluster that gossips, running or not; kept for where that was, too.
    gossip: Option<Memberlist>,
    running: Option<Running>,
}

impl Cluster {
    /// Starts every member, ingesters first. Returns once all have started; see [`Cluster::ready`] for when it can be used.
    ///
    /// # Errors
    ///
    /// The first member's that does not start; those that did are ended.
    pub async fn start(options: ClusterOptions) -> Result<Self, ClusterError> {
        let mut cluster = Self { options, stores: Stores::new(), members: BTreeMap::new() };
        for kind in Kind::ALL {
            for number in 1..=cluster.options.count(kind) {
                let http_port = match (kind, number) {
                    (Kind::Distributor, 1) => cluster.options.http_port,
                    _ => 0,
                };
                let name = format!("{kind}-{number}");
                cluster
                    .members
                    .insert(name.clone(), Member { kind, number, http_port, gossip: None, running: None });
                cluster.restart(&name).await?;
            }
        }
        Ok(cluster)
    }

    /// Waits until every running member says that it is ready, and every distributor sees every running ingester as ACTIVE.
    /// Cancel-safe.
    ///
    /// # Errors
    ///
    /// [`ClusterError::Ended`] when a member has ended, so that this cannot happen any more.
    pub async fn ready(&self) -> Result<(), ClusterError> {
        for (name, running) in self.running(None) {
            let ready = running.ready().await;
            ready.map_err(|reason| ClusterError::Ended { member: name.to_owned(), reason })?;
        }
        for (_, distributor) in self.running(Some(Kind::Distributor)) {
            let Some(IngesterRing(ring)) = distributor.get() else { continue };
            let mut changes = ring.changed();
            while !self.sees_all_ingesters(&ring) {
                if changes.changed().await.is_err() {
                    break;
                }
            }
        }
        Ok(())
    }

    fn sees_all_ingesters(&self, ring: &Ring) -> bool {
        let snapshot = ring.snapshot();
        self.running(Some(Kind::Ingester)).all(|(name, _)| {
            snapshot.instance(name).is_some_and(|instance| instance.state() == State::Active)
        })
    }

    /// The running members of a kind, or of all kinds.
    fn running(&self, kind: Option<Kind>) -> impl Iterator<Item = (&str, &Running)> {
        self.members
            .iter()
            .filter(move |(_, member)| kind.is_none_or(|kind| member.kind == kind))
            .filter_map(|(name, member)| Some((name.as_str(), member.running.as_ref()?)))
    }

    /// The names of all members, running or not.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.members.keys().map(String::as_str)
    }

    /// A member, if it is running.
    pub fn member(&self, name: &str) -> Option<&Running> {
        self.members.get(name)?.running.as_ref()
    }

    /// Where the members of a kind serve HTTP, as `http://127.0.0.1:PORT`, in the order of their numbers.
    pub fn urls(&self, kind: Kind) -> Vec<String> {
        let mut members: Vec<_> = self.members.values().filter(|member| member.kind == kind).collect();
        members.sort_by_key(|member| member.number);
        members
            .into_iter()
            .filter_map(|member| Some(format!("http://{}", member.running.as_ref()?.http_addr)))
            .collect()
    }

    /// The directory below which members keep their data.
    pub fn data_dir(&self) -> &Path {
        &self.options.data_dir
    }

    /// Stops a member in order, as SIGTERM would.
    ///
    /// # Errors
    ///
    /// [`ClusterError::Unknown`], or [`ClusterError::State`] if it is stopped already.
    pub async fn stop_member(&mut self, name: &str) -> Result<ShutdownReport, ClusterError> {
        Ok(self.take(name)?.stop().await)
    }

    /// Ends a member at once, as SIGKILL would.
    ///
    /// # Errors
    ///
    /// [`ClusterError::Unknown`], or [`ClusterError::State`] if it is stopped already.
    pub fn kill_member(&mut self, name: &str) -> Result<(), ClusterError> {
        self.take(name)?.abort();
        if let Some(gossip) = self.members.get(name).and_then(|member| member.gossip.as_ref()) {
            gossip.abort();
        }
        Ok(())
    }

    /// Starts a stopped member again, on its data and its HTTP port.
    ///
    /// # Errors
    ///
    /// [`ClusterError::State`] if it is running, else as [`Cluster::start`].
    pub async fn restart(&mut self, name: &str) -> Result<(), ClusterError> {
        let member = self.members.get(name).ok_or_else(|| ClusterError::Unknown(name.to_owned()))?;
        if member.running.is_some() {
            return Err(ClusterError::State { member: name.to_owned(), actual: "running" });
        }
        let config = self.member_config(name, member)?;
        if let Some(former) = &member.gossip {
            // It gets the same port again.
            former.ended().await;
        }
        // A member that gossips does it for itself; an in-memory store is one for all.
        let gossips = config.ring.store == Some(KvStore::Memberlist);
        let stores = if gossips { Stores::new() } else { self.stores.clone() };
        let running = App::builder(config)
            .roles(roles::ALL)
            .targets(vec![member.kind.to_string()])
            .stores(stores.clone())
            .instance(name)
            .listeners(listen(member.http_port)?, listen(0)?)
            .start()
            .await
            .map_err(|cause| ClusterError::Member { member: name.to_owned(), cause })?;
        if let Some(member) = self.members.get_mut(name) {
            member.http_port = running.http_addr.port();
            member.gossip = stores.memberlist();
            member.running = Some(running);
        }
        Ok(())
    }

    /// Stops every member in order, distributors first, and tells how long each took.
    pub async fn stop(mut self) -> Vec<(String, ShutdownReport)> {
        let mut reports = Vec::new();
        for kind in Kind::ALL.into_iter().rev() {
            let names: Vec<_> =
                self.members.iter().filter(|(_, m)| m.kind == kind).map(|(name, _)| name.clone()).collect();
            for name in names {
                if let Ok(report) = self.stop_member(&name).await {
                    reports.push((name, report));
                }
            }
        }
        reports
    }

    fn take(&mut self, name: &str) -> Result<Running, ClusterError> {
        let member = self.members.get_mut(name).ok_or_else(|| ClusterError::Unknown(name.to_owned()))?;
        member
            .running
            .take()
            .ok_or_else(|| ClusterError::State { member: name.to_owned(), actual: "stopped" })
    }

    /// The common configuration, made this member's own.
    fn member_config(&self, name: &str, member: &Member) -> Result<Config, ClusterError> {
        let &Member { kind, number, ref gossip, .. } = member;
        let mut config = self.options.config.clone();
        let dir = self.options.data_dir.join(name);
        std::fs::create_dir_all(&dir).map_err(|cause| ClusterError::DataDir { path: dir.clone(), cause })?;
        let path = |leaf: &str| dir.join(leaf).to_string_lossy().into_owned();
        let zone = zone(number, self.options.zones);
        let loopback = || "127.0.0.1".to_owned();

        config.target = vec![kind.to_string()];
        config.auth_enabled = self.options.auth_enabled;
        config.ring.store.get_or_insert(KvStore::Memberlist);
        config.memberlist.node_name = name.to_owned();
        if config.memberlist.cluster_label.is_empty() {
            // It is on loopback, where others of its kind may be, too.
            config.memberlist.cluster_label = LABEL.to_owned();
        }
        config.memberlist.randomize_node_name = false;
        config.memberlist.bind_addr = vec![loopback()];
        config.memberlist.bind_port = gossip.as_ref().map_or(0, |gossip| gossip.addr().port());
        let others = self.members.iter().filter(|(other, _)| *other != name);
        let running = others.filter_map(|(_, other)| other.running.as_ref().and(other.gossip.as_ref()));
        let seeds = running.map(|gossip| gossip.addr().to_string());
        config.memberlist.join_members = seeds.take(MAX_SEEDS).collect();
        config.server.http_listen_address = loopback();
        config.server.grpc_listen_address = loopback();
        // How all members look at the rings.
        config.ingester.lifecycler.ring.zone_awareness_enabled = true;
        config.store_gateway.sharding_enabled = true;
        config.store_gateway.sharding_ring.zone_awareness_enabled = true;

        match kind {
            Kind::Ingester => {
                let own = &mut config.ingester.lifecycler;
                own.id = name.to_owned();
                own.address = loopback();
                own.availability_zone = zone;
                own.min_ready_duration = Duration::ZERO;
                own.final_sleep = Duration::ZERO;
                own.tokens_file_path = path("tokens.json");
                config.blocks_storage.tsdb.dir = path("tsdb");
            }
            Kind::StoreGateway => {
                let own = &mut config.store_gateway.sharding_ring;
                own.instance_id = name.to_owned();
                own.instance_addr = loopback();
                own.instance_availability_zone = zone;
                own.wait_stability_min_duration = Duration::ZERO;
                own.tokens_file_path = path("tokens.json");
            }
            Kind::Distributor => {
                let own = &mut config.distributor.ring;
                own.instance_id = name.to_owned();
                own.instance_addr = loopback();
            }
        }
        Ok(config)
    }
}

/// `memberlist.cluster_label`, unless configured.
const LABEL: &str = "ringkit-dev";

/// How many others a member is told of: if one is gone, the next one answers.
const MAX_SEEDS: usize = 3;

fn listen(port: u16) -> Result<TcpListener, ClusterError> {
    let addr = SocketAddr::from(([127, 0, 0, 1], port));
    TcpListener::bind(addr).map_err(|cause| ClusterError::Listen { addr, cause })
}

/// The zone of the `number`th member (from 1) of its kind.
fn zone(number: usize, zones: usize) -> String {
    let index = (number - 1) % zones.clamp(1, 26);
    // In range by the clamp above.
    format!("zone-{}", char::from(b'a' + index as u8))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_are_dealt_to_the_zones_in_turn() {
        let dealt: Vec<_> = (1..=5).map(|number| zone(number, 3)).collect();
        assert_eq!(dealt, ["zone-a", "zone-b", "zone-c", "zone-a", "zone-b"]);
    }
}
