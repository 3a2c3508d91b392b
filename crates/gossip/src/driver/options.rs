//! [`Options`]: how a member is driven.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio_rustls::rustls::pki_types::ServerName;
use tokio_rustls::rustls::{ClientConfig, ServerConfig};

use super::seeds::Seed;
use crate::api::Config;
use crate::member::Security;

/// How a member is driven.
pub struct Options {
    /// The member. Its `addr` is overwritten by what is advertised.
    pub config: Config,
    /// Where to listen: at least one address. Port 0 = any that is free, the same for UDP and TCP; further addresses with port 0
    /// get the port of the first. `[::]` takes IPv4, too.
    ///
    /// Others know a member by the address it advertises, so datagrams should leave from there: those to IPv4 leave by the first
    /// IPv4 address, those to IPv6 by the first IPv6 one.
    pub bind: Vec<SocketAddr>,
    /// Where others reach it; port 0 = the one it listens at. `None` = the first address of `bind`, which must be a real one then.
    pub advertise: Option<SocketAddr>,
    /// Where other members may be. Without any, it begins a cluster of its own.
    pub seeds: Vec<Seed>,
    /// How often seeds are looked up anew. More often, from once a second on, until one is found and somebody else is there.
    pub resolve_interval: Duration,
    /// How often seeds are looked up and asked anew beside that; zero = never.
    pub rejoin_interval: Duration,
    /// How datagrams travel.
    pub transport: Transport,
    /// Whether streams are encrypted by TLS, and how. If so, datagrams that are not sealed travel over TCP, too, and are refused
    /// over UDP.
    pub tls: Option<Tls>,
    /// Whether datagrams, and streams within or without TLS, are sealed.
    pub security: Security,
    /// How long opening a stream may take, with TLS; zero = as long as it takes, as for the next two.
    pub dial_timeout: Duration,
    /// How long a connection that came in may take to shake hands, and then until the first that it has to say is complete; and
    /// each further datagram on one of datagrams. Streams end when for twice as long nothing goes either way.
    pub read_timeout: Duration,
    /// How long each piece of up to 64 KiB may take to be written to a stream, and all that is left when it is closed.
    pub write_timeout: Duration,
    /// Most connections that come in at a time, and a quarter of that from each address, but at least 8: more are closed at once.
    /// Those for datagrams are not among them: there are four times as many, and as many that go out. One more ends the one that
    /// was used least recently.
    pub max_connections: usize,
    /// How many rounds of looking for the cluster may come to nothing before it [fails](Options::abort_if_join_fails) or says so;
    /// 0 = any number.
    pub max_join_attempts: u32,
    /// Whether a member that does not find its cluster ends. If not, it goes on looking.
    pub abort_if_join_fails: bool,
    /// What it takes for the time of day.
    pub wall: WallClock,
}

impl Options {
    /// The defaults for a member that listens at `bind`, without seeds and without encryption.
    pub fn new(config: Config, bind: Vec<SocketAddr>, security: Security) -> Self {
        Self {
            config,
            bind,
            advertise: None,
            seeds: Vec::new(),
            resolve_interval: Duration::from_secs(30),
            rejoin_interval: Duration::ZERO,
            transport: Transport::Udp,
            tls: None,
            security,
            dial_timeout: Duration::from_secs(2),
            read_timeout: Duration::from_secs(5),
            write_timeout: Duration::from_secs(5),
            max_connections: 512,
            max_join_attempts: 10,
            abort_if_join_fails: false,
            wall: WallClock::default(),
        }
    }
}

/// What a member takes for the time of day; by default the machine's clock.
#[derive(Clone)]
pub struct WallClock(Arc<dyn Fn() -> u64 + Send + Sync>);

impl WallClock {
    /// A clock that shows what `now_ms` returns: milliseconds since 1970. It may stand still or jump.
    pub fn new(now_ms: impl Fn() -> u64 + Send + Sync + 'static) -> Self {
        Self(Arc::new(now_ms))
    }

    /// Milliseconds since 1970.
    pub(super) fn now_ms(&self) -> u64 {
        (self.0)()
    }
}

impl Default for WallClock {
    fn default() -> Self {
        Self::new(|| {
            let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
        })
    }
}

impl fmt::Debug for WallClock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("WallClock").field(&self.now_ms()).finish()
    }
}

/// How the datagrams of a member travel. Those of others are taken in whichever way they come, so that members of both kinds
/// understand each other. Streams always travel over TCP.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Transport {
    /// Over UDP.
    #[default]
    Udp,
    /// Over TCP, one connection to each peer: for networks that carry no UDP, and so that TLS encrypts datagrams, too.
    Tcp,
}

/// How streams are encrypted.
#[derive(Clone, Debug)]
pub struct Tls {
    /// Of streams that the member opens.
    pub client: Arc<ClientConfig>,
    /// Of streams that come in. Who is let in is decided here.
    pub server: Arc<ServerConfig>,
    /// What the certificates of the others must be for; `None` = for the address that is dialled.
    pub server_name: Option<ServerName<'static>>,
}
