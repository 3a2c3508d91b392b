//! Channels to peers, one per address: connected lazily, checked, dropped when a peer fails or leaves.
//!
//! Looking up a known peer takes no lock. A dropped channel goes on serving the calls it has; the next lookup makes
//! a new one.

use std::collections::{BTreeSet, HashMap};
use std::str::FromStr as _;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use async_trait::async_trait;
use futures::StreamExt as _;
use http::uri::Authority;
use parking_lot::Mutex;
use ringkit_runtime::{CancellationToken, Cause, Service};
use tokio::time::MissedTickBehavior;
use tonic::metadata::MetadataValue;
use tonic::transport::{Channel, Endpoint};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use tower::Layer as _;

use crate::snappy::{Compression, Snappy, SnappyLayer};
use crate::status::{MapStatus, PeerStatusLayer};

/// How many peers are checked at the same time.
const MAX_CONCURRENT_CHECKS: usize = 16;

/// How often an idle connection is probed, and how long the answer may take. Cortex's values: its servers allow a
/// probe every 10 s.
const KEEPALIVE_PERIOD: Duration = Duration::from_secs(20);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(10);

/// The largest header list taken from a peer. Errors travel in headers, and Go peers do not cut their messages.
const MAX_HEADER_LIST_BYTES: u32 = 256 << 10;

/// A channel to one peer, for generated clients: `IngesterClient::new(channel)`. Cheap to clone.
///
/// Speaks `snappy-block` and keeps HTTP status codes. tonic's own message limits (4 MiB received) are set on the
/// generated client, from [`PoolOptions`].
pub type PeerChannel = MapStatus<Snappy<Channel>>;

/// Why a channel could not be made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The address is not `host:port`: whoever put it into the ring is misconfigured.
    #[error("peer address `{address}` is not host:port")]
    Address {
        /// The address.
        address: String,
    },
}

/// How a pool connects and checks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PoolOptions {
    /// What the peers are, for logs: `ingester`.
    pub name: &'static str,
    /// How often peers are checked, and those that left dropped. Zero: never.
    pub check_interval: Duration,
    /// How long a health check may take.
    pub check_timeout: Duration,
    /// Whether peers that fail their health check are dropped.
    pub health_check: bool,
    /// How long connecting may take. Zero: 20 s.
    pub connect_timeout: Duration,
    /// What to do with requests.
    pub compression: Compression,
    /// The largest answer taken, decompressed.
    pub max_recv_bytes: usize,
    /// The largest request sent, uncompressed. For `max_encoding_message_size` of the generated client.
    pub max_send_bytes: usize,
}

/// Cortex's defaults for distributors' pools of ingesters.
impl Default for PoolOptions {
    fn default() -> Self {
        Self {
            name: "ingester",
            check_interval: Duration::from_secs(15),
            check_timeout: Duration::from_secs(2),
            health_check: true,
            connect_timeout: Duration::from_secs(5),
            compression: Compression::SnappyBlock,
            max_recv_bytes: 100 << 20,
            max_send_bytes: 16 << 20,
        }
    }
}

/// A channel per address. Clones share it.
#[derive(Clone)]
pub struct Pool(Arc<Shared>);

struct Shared {
    options: PoolOptions,
    gauge: metrics::Gauge,
    peers: ArcSwap<Peers>,
    /// Serializes changes of `peers`.
    change: Mutex<u64>,
}

type Peers = HashMap<Arc<str>, Peer>;

#[derive(Clone)]
struct Peer {
    /// Tells this channel from a later one to the same address.
    serial: u64,
    channel: PeerChannel,
}

impl Pool {
    /// An empty pool. `gauge` shows the number of channels.
    pub fn new(options: PoolOptions, gauge: metrics::Gauge) -> Self {
        gauge.set(0.0);
        Self(Arc::new(Shared { options, gauge, peers: ArcSwap::default(), change: Mutex::new(0) }))
    }

    /// What the pool was made with.
    pub fn options(&self) -> &PoolOptions {
        &self.0.options
    }

    /// The channel to `address` (host:port), made if there is none. Does not wait: the first call connects. Must be
    /// called within a tokio runtime.
    ///
    /// # Errors
    ///
    /// [`Error::Address`].
    pub fn channel(&self, address: &str) -> Result<PeerChannel, Error> {
        if let Some(peer) = self.0.peers.load().get(address) {
            return Ok(peer.channel.clone());
        }
        let mut serial = self.0.change.lock();
        if let Some(peer) = self.0.peers.load().get(address) {
            return Ok(peer.channel.clone());
        }
        let channel = peer(address, &self.0.options)?;
        *serial += 1;
        let mut peers = Peers::clone(&self.0.peers.load());
        peers.insert(address.into(), Peer { serial: *serial, channel: channel.clone() });
        self.store(peers);
        Ok(channel)
    }

    /// The addresses with a channel, sorted.
    pub fn addresses(&self) -> Vec<String> {
        let mut addresses: Vec<_> = self.0.peers.load().keys().map(ToString::to_string).collect();
        addresses.sort_unstable();
        addresses
    }

    /// Drops the channels to all other addresses.
    pub fn retain<'a>(&self, addresses: impl IntoIterator<Item = &'a str>) {
        let keep: BTreeSet<&str> = addresses.into_iter().collect();
        self.remove_if("stale client", |address, _| !keep.contains(address));
    }

    /// Drops the channel to `address`, if there is one.
    pub fn remove(&self, address: &str) {
        self.remove_if("client", |candidate, _| candidate == address);
    }

    /// The task that checks the peers. Run it once, as a service.
    pub fn service(&self) -> PoolService {
        PoolService { pool: self.clone(), discover: None }
    }

    fn remove_if(&self, what: &str, mut unwanted: impl FnMut(&str, &Peer) -> bool) {
        let _change = self.0.change.lock();
        let mut peers = Peers::clone(&self.0.peers.load());
        let before = peers.len();
        peers.retain(|address, peer| {
            let unwanted = unwanted(address, peer);
            if unwanted {
                tracing::info!(pool = self.0.options.name, %address, "removing {what}");
            }
            !unwanted
        });
        if peers.len() != before {
            self.store(peers);
        }
    }

    /// Called under the lock of `change`.
    #[expect(clippy::cast_precision_loss, reason = "a gauge; there are not 2^52 peers")]
    fn store(&self, peers: Peers) {
        self.0.gauge.set(peers.len() as f64);
        self.0.peers.store(Arc::new(peers));
    }

    /// Checks all peers and drops those that fail.
    async fn check_all(&self) {
        let peers = self.0.peers.load_full();
        futures::stream::iter(peers.iter())
            .for_each_concurrent(MAX_CONCURRENT_CHECKS, |(address, peer)| async move {
                let Err(reason) = self.check(peer).await else { return };
                tracing::warn!(pool = self.0.options.name, %address, reason, "peer fails its health check");
                self.remove_failed(peer);
            })
            .await;
    }

    /// Drops this very channel: one made to the same address meanwhile has not failed.
    fn remove_failed(&self, peer: &Peer) {
        self.remove_if("client failing its health check", |_, other| other.serial == peer.serial);
    }

    async fn check(&self, peer: &Peer) -> Result<(), String> {
        let mut client = HealthClient::new(peer.channel.clone());
        let mut request = tonic::Request::new(HealthCheckRequest::default());
        request.metadata_mut().insert("x-scope-orgid", MetadataValue::from_static("0"));
        let answer = tokio::time::timeout(self.0.options.check_timeout, client.check(request))
            .await
            .map_err(|_| "no answer in time".to_owned())?
            .map_err(|status| status.to_string())?;
        match answer.into_inner().status() {
            ServingStatus::Serving => Ok(()),
            other => Err(other.as_str_name().to_owned()),
        }
    }
}

/// A channel of its own to `address` (host:port), with the options of a pool. Does not wait: the first call connects.
/// Must be called within a tokio runtime.
///
/// # Errors
///
/// [`Error::Address`].
pub fn peer(address: &str, options: &PoolOptions) -> Result<PeerChannel, Error> {
    /// What Go's gRPC library takes for "not set".
    const DEFAULT_CONNECT_TIMEOUT: Duration = Duration::from_secs(20);
    let connect_timeout = match options.connect_timeout {
        Duration::ZERO => DEFAULT_CONNECT_TIMEOUT,
        timeout => timeout,
    };
    let authority = Authority::from_str(address).ok().filter(|parsed| parsed.port_u16().is_some());
    let endpoint = authority
        .and_then(|_| Endpoint::from_shared(format!("http://{address}")).ok())
        .ok_or_else(|| Error::Address { address: address.to_owned() })?
        .connect_timeout(connect_timeout)
        .tcp_nodelay(true)
        .http2_keep_alive_interval(KEEPALIVE_PERIOD)
        .keep_alive_timeout(KEEPALIVE_TIMEOUT)
        .keep_alive_while_idle(true)
        .http2_max_header_list_size(MAX_HEADER_LIST_BYTES);
    let snappy = SnappyLayer::client(options.compression, options.max_recv_bytes);
    Ok(PeerStatusLayer.layer(snappy.layer(endpoint.connect_lazy())))
}

/// Tells which addresses peers have now; `None` if that is not known at the moment.
type Discover = Box<dyn Fn() -> Option<Vec<String>> + Send + Sync>;

/// Drops peers that left and peers that fail, every [`PoolOptions::check_interval`].
pub struct PoolService {
    pool: Pool,
    discover: Option<Discover>,
}

impl PoolService {
    /// Asks `discover` in each round which addresses there are, and drops the others. With `None` nothing is dropped
    /// in that round.
    #[must_use]
    pub fn with_discovery(self, discover: impl Fn() -> Option<Vec<String>> + Send + Sync + 'static) -> Self {
        Self { discover: Some(Box::new(discover)), ..self }
    }

    async fn round(&self) {
        if let Some(addresses) = self.discover.as_ref().and_then(|discover| discover()) {
            self.pool.retain(addresses.iter().map(String::as_str));
        }
        if self.pool.0.options.health_check {
            self.pool.check_all().await;
        }
    }
}

#[async_trait]
impl Service for PoolService {
    async fn run(&mut self, stop: CancellationToken) -> Result<(), Cause> {
        let interval = self.pool.0.options.check_interval;
        if interval.is_zero() {
            stop.cancelled().await;
            return Ok(());
        }
        let mut ticks = tokio::time::interval_at(tokio::time::Instant::now() + interval, interval);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let rounds = async {
            loop {
                ticks.tick().await;
                self.round().await;
            }
        };
        // Dropping a round half-way is fine: its checks end, and nothing else is left to do.
        tokio::select! {
            () = stop.cancelled() => Ok(()),
            () = rounds => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_failed_check_drops_only_the_channel_it_was_made_on() {
        let pool = Pool::new(PoolOptions::default(), metrics::Gauge::noop());
        pool.channel("a:1").unwrap();
        let failed = pool.0.peers.load().get("a:1").cloned().unwrap();
        pool.remove("a:1");
        pool.channel("a:1").unwrap();
        pool.remove_failed(&failed);
        assert_eq!(pool.addresses(), ["a:1"]);
        let failed = pool.0.peers.load().get("a:1").cloned().unwrap();
        pool.remove_failed(&failed);
        assert_eq!(pool.addresses(), [""; 0]);
    }
}
