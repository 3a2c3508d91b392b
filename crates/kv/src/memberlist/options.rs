//! From the `memberlist` block of a configuration to a member's options.

#[cfg(test)]
mod tests;

use std::io::Write as _;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use ringkit_config::{MemberlistConfig, PacketTransport};
use ringkit_gossip::api::Config;
use ringkit_gossip::driver::seeds::Seed;
use ringkit_gossip::driver::{Options, Transport, WallClock};
use ringkit_gossip::member::Security;
use ringkit_gossip::seal::{ClusterKey, Keyring};
use ringkit_gossip::store::Limits;
use ringkit_gossip::{peers, queue, swim};
use ringkit_runtime::Clock;
use smol_str::SmolStr;
use tracing::{debug, warn};

use super::keys::{self, KeysFile};
use super::{BACKEND, MemberlistOptions, address, tls};
use crate::error::Error;

/// How often seeds are looked up anew.
const RESOLVE_INTERVAL: Duration = Duration::from_secs(30);
/// In `pull_push_interval` all that Cortex has is exchanged; here that is how long three comparisons take.
const SYNCS_PER_INTERVAL: u32 = 3;
/// How far ahead of the clock the number of the last life may be. One that is further ahead is from a clock that was wrong, and
/// members that do not know that life would take no word of the next one.
const MAX_AHEAD_MS: u64 = 366 * 24 * 60 * 60 * 1_000;
/// The file in `state_dir` that holds the number of the member's last life.
const GENERATION_FILE: &str = "generation";

/// What a member is started with.
pub(super) struct Prepared {
    pub(super) driver: Options,
    pub(super) facts: Facts,
    /// Whose changes are to be followed.
    pub(super) keys_file: Option<KeysFile>,
}

/// What is known of a member before it starts.
#[derive(Debug)]
pub(super) struct Facts {
    pub(super) name: String,
    pub(super) label: String,
    pub(super) zone: String,
    pub(super) build: String,
    pub(super) transport: &'static str,
}

/// Reads a configuration, and the files that it names. The number of the life that begins is written to `state_dir`.
pub(super) fn prepare(options: &MemberlistOptions) -> Result<Prepared, Error> {
    let MemberlistOptions { config, zone, build, meter: _, clock, proceed_after: _ } = options;
    say_what_means_nothing(config);
    let bind = bind(config)?;
    let advertise = advertise(config, &bind)?;
    let seeds = seeds(config)?;
    let (keys, keys_file) = keys(config)?;
    let tls = tls::configured(config)?;
    let in_clear = tls.is_some() && keys.is_empty();
    let transport = match config.packet_transport {
        PacketTransport::Tcp => Transport::Tcp,
        // Nothing leaves in clear where TLS was asked for.
        PacketTransport::Auto if in_clear => Transport::Tcp,
        PacketTransport::Udp if in_clear => {
            warn!(
                "`memberlist.packet_transport` is `udp`, but without `encryption_keys` datagrams would be in clear, and `tls_enabled` is set: they go over TLS"
            );
            Transport::Tcp
        }
        PacketTransport::Auto | PacketTransport::Udp => Transport::Udp,
    };
    let facts = Facts {
        name: name(config)?,
        label: config.cluster_label.clone(),
        zone: zone.clone(),
        build: build.clone(),
        transport: match (transport, &tls) {
            (Transport::Udp, None) => "udp",
            (Transport::Udp, Some(_)) => "udp+tls",
            (Transport::Tcp, None) => "tcp",
            (Transport::Tcp, Some(_)) => "tls",
        },
    };
    let addr = bind.first().copied().unwrap_or_else(|| SocketAddr::from(([0, 0, 0, 0], 0)));
    let node = node(config, &facts, addr, generation(config, clock)?)?;
    // Without a key nothing can be sealed, so nothing is asked to be.
    let require_sealed = config.require_encryption && !keys.is_empty();
    let driver = Options {
        advertise,
        seeds,
        resolve_interval: RESOLVE_INTERVAL,
        rejoin_interval: config.rejoin_interval,
        transport,
        tls,
        dial_timeout: config.packet_dial_timeout,
        read_timeout: config.packet_read_timeout,
        write_timeout: config.packet_write_timeout,
        max_connections: config.max_concurrent_connections,
        // The first attempt is not one of those that are made again.
        max_join_attempts: saturating(config.max_join_retries).saturating_add(1),
        abort_if_join_fails: config.abort_if_cluster_join_fails,
        wall: wall(clock),
        ..Options::new(node, bind, Security { keyring: Keyring::new(keys), require_sealed })
    };
    Ok(Prepared { driver, facts, keys_file })
}

fn wall(clock: &Clock) -> WallClock {
    let clock = clock.clone();
    WallClock::new(move || u64::try_from(clock.now_ms()).unwrap_or(0))
}

fn wrong(key: &'static str, reason: impl Into<String>) -> Error {
    Error::Misconfigured { backend: BACKEND, key, reason: reason.into() }
}

fn saturating(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

fn node(
    config: &MemberlistConfig,
    facts: &Facts,
    addr: SocketAddr,
    generation: u64,
) -> Result<Config, Error> {
    if config.pull_push_interval.is_zero() {
        return Err(wrong("pull_push_interval", "is 0: without comparing, what gets lost is never repaired"));
    }
    let retransmit_factor = saturating(config.retransmit_factor);
    let defaults = Config::new(facts.name.as_str(), addr, generation);
    Ok(Config {
        zone: SmolStr::new(&facts.zone),
        build: SmolStr::new(&facts.build),
        label: SmolStr::new(&facts.label),
        accepted_labels: config.cluster_label_accept.iter().map(SmolStr::new).collect(),
        verify_label: !config.cluster_label_verification_disabled,
        compress: config.compression_enabled,
        packet_size: config.packet_size,
        gossip_interval: config.gossip_interval,
        gossip_nodes: config.gossip_nodes,
        sync_interval: config.pull_push_interval / SYNCS_PER_INTERVAL,
        session_timeout: config.stream_timeout,
        join_backoff: (config.min_join_backoff, config.max_join_backoff),
        leave_timeout: config.leave_timeout,
        limits: Limits {
            max_clock_skew: config.max_clock_skew,
            tombstone_horizon: config.tombstone_horizon,
            ..defaults.limits
        },
        swim: swim::Config {
            retransmit_factor,
            gossip_period: config.gossip_interval,
            gossip_nodes: config.gossip_nodes,
            max_members: config.max_members,
            ..defaults.swim
        },
        queue: queue::Config { retransmit_factor, ..defaults.queue },
        peers: peers::Config { max_members: config.max_members, ..defaults.peers },
        ..defaults
    })
}

fn bind(config: &MemberlistConfig) -> Result<Vec<SocketAddr>, Error> {
    if config.bind_addr.is_empty() {
        return Ok(vec![SocketAddr::from(([0, 0, 0, 0], config.bind_port))]);
    }
    let addrs = config.bind_addr.iter().map(|addr| {
        let ip: IpAddr = addr.parse().map_err(|_| wrong("bind_addr", format!("is no address: `{addr}`")))?;
        Ok(SocketAddr::new(ip, config.bind_port))
    });
    addrs.collect()
}

/// Where others reach the member; `None` = where it listens.
fn advertise(config: &MemberlistConfig, bind: &[SocketAddr]) -> Result<Option<SocketAddr>, Error> {
    if !config.advertise_addr.is_empty() {
        let ip: IpAddr = config
            .advertise_addr
            .parse()
            .map_err(|_| wrong("advertise_addr", format!("is no address: `{}`", config.advertise_addr)))?;
        return Ok(Some(SocketAddr::new(ip, config.advertise_port)));
    }
    let Some(first) = bind.first().filter(|first| first.ip().is_unspecified()) else { return Ok(None) };
    let Some(ip) = address::private(first.is_ipv6()) else {
        let reason = "is not set, and this machine has no private address that packets leave it from: set `memberlist.advertise_addr` to the one that others reach";
        return Err(wrong("advertise_addr", reason));
    };
    // The port it listens at.
    Ok(Some(SocketAddr::new(ip, 0)))
}

fn seeds(config: &MemberlistConfig) -> Result<Vec<Seed>, Error> {
    let seeds = config.join_members.iter().map(|seed| Seed::parse(seed));
    let wrong = |cause| wrong("join_members", format!("has a member that is none: {cause}"));
    seeds.collect::<Result<_, _>>().map_err(wrong)
}

fn keys(config: &MemberlistConfig) -> Result<(Vec<ClusterKey>, Option<KeysFile>), Error> {
    if config.encryption_keys_file.is_empty() {
        return Ok((keys::configured(&config.encryption_keys)?, None));
    }
    if !config.encryption_keys.is_empty() {
        return Err(wrong("encryption_keys_file", "is set beside `encryption_keys`: use one of them"));
    }
    let (file, keys) = KeysFile::open(&config.encryption_keys_file)?;
    Ok((keys, Some(file)))
}

fn name(config: &MemberlistConfig) -> Result<String, Error> {
    let name = match config.node_name.as_str() {
        "" => gethostname::gethostname().to_string_lossy().into_owned(),
        name => name.to_owned(),
    };
    if name.is_empty() {
        return Err(wrong("node_name", "is not set, and this machine has no name"));
    }
    if config.randomize_node_name {
        return Ok(format!("{name}-{:08x}", rand::random::<u32>()));
    }
    Ok(name)
}

/// The number of the life that begins: by the clock, and after that of the last life even if the clock was set back.
fn generation(config: &MemberlistConfig, clock: &Clock) -> Result<u64, Error> {
    let now = u64::try_from(clock.now_ms()).unwrap_or(0);
    if config.state_dir.is_empty() {
        return Ok(now);
    }
    let dir = Path::new(&config.state_dir);
    let path = dir.join(GENERATION_FILE);
    let failed = |what: &str, cause: std::io::Error| {
        wrong("state_dir", format!("cannot be used: cannot {what} `{}`: {cause}", path.display()))
    };
    let last = match std::fs::read_to_string(&path) {
        Ok(text) => {
            let last: Option<u64> = text.trim().parse().ok();
            if last.is_none() {
                warn!(path = %path.display(), "this file should hold the number of a life, and does not: begun anew");
            }
            last.unwrap_or(0)
        }
        Err(cause) if cause.kind() == std::io::ErrorKind::NotFound => 0,
        Err(cause) => return Err(failed("read", cause)),
    };
    let last = if last >= now.saturating_add(MAX_AHEAD_MS) {
        warn!(
            path = %path.display(),
            last,
            now,
            "the number of the last life is more than a year ahead of this machine's clock, which must have been wrong then, or is now: begun anew"
        );
        0
    } else {
        last
    };
    let generation = now.max(last.saturating_add(1));
    write_whole(dir, &path, &format!("{generation}\n")).map_err(|cause| failed("write", cause))?;
    Ok(generation)
}

/// Replaces a file: whoever reads it finds the old text or the new one.
fn write_whole(dir: &Path, path: &Path, text: &str) -> std::io::Result<()> {
    std::fs::create_dir_all(dir)?;
    let new = dir.join(format!("{GENERATION_FILE}.new"));
    let mut file = std::fs::File::create(&new)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    std::fs::rename(&new, path)
}

/// Keys of Cortex that are accepted, and do nothing here.
fn say_what_means_nothing(config: &MemberlistConfig) {
    let default = MemberlistConfig::default();
    let set = [
        ("gossip_to_dead_nodes_time", config.gossip_to_dead_nodes_time != default.gossip_to_dead_nodes_time),
        ("dead_node_reclaim_time", config.dead_node_reclaim_time != default.dead_node_reclaim_time),
        ("max_packet_size", config.max_packet_size != default.max_packet_size),
        ("left_ingesters_timeout", config.left_ingesters_timeout != default.left_ingesters_timeout),
    ];
    for (key, _) in set.iter().filter(|(_, set)| *set) {
        debug!(
            "`memberlist.{key}` is set and has no meaning here: members with a later life replace earlier ones, and what was removed is gone"
        );
    }
    if config.cluster_label.is_empty() && !config.join_members.is_empty() {
        warn!(
            "`memberlist.cluster_label` is not set: members of another cluster that meet this one would become one with it"
        );
    }
}
