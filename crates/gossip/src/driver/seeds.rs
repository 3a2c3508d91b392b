//! Where other members may be, as it is written in a configuration, and what names mean at the moment.
//!
//! Written as in Cortex's `memberlist.join_members`:
//!
//! - `host:port`, `host`, `10.0.0.1:7946`, `10.0.0.1`, `[::1]:7946`, `::1`: an address, or all addresses of a host, IPv4 and
//!   IPv6. Without a port it is 7946. A member's name and a slash may stand before it and mean nothing.
//! - `dns+host:port`, `dnsdualstack+host:port`: the same, but the port must be given.
//! - `dnssrv+name`, `dnssrv+name:port`: the hosts that offer a service (SRV), with their ports unless one is given.
//! - `dnssrvnoa+name`, `dnssrvnoa+name:port`: the same. In Cortex the hosts' addresses are looked up later; a member needs them
//!   at once.
//!
//! How long a member asks whom is not here.

mod resolver;
#[cfg(test)]
mod tests;

use std::fmt;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::num::NonZeroU16;

use hickory_resolver::Name;
use tokio::time::Instant;

pub use self::resolver::{LOOKUP_TIMEOUT, Resolver};

/// The port of a seed that is written without one.
pub const DEFAULT_PORT: u16 = 7946;

/// What may stand before a `+`.
const SCHEMES: &str = "dns, dnsdualstack, dnssrv, dnssrvnoa";

/// A place where other members may be: an address, or a name that has addresses. Displayed as it was written.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Seed {
    text: String,
    target: Target,
}

/// What is to be looked up.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Target {
    /// Nothing: it is an address.
    Addr(SocketAddr),
    /// All addresses of a host.
    Host { name: Name, port: u16 },
    /// All addresses of the hosts that offer a service, with this port instead of theirs if there is one.
    Service { name: Name, port: Option<u16> },
}

/// Why a text is no seed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BadSeed {
    /// There is something before the first `+` that nobody knows.
    #[error("`{seed}`: there is no lookup scheme `{scheme}`; known are {SCHEMES}")]
    Scheme {
        /// All of it.
        seed: String,
        /// What stands before the `+`.
        scheme: String,
    },
    /// Neither an address nor a name of letters, digits, `-` and `_`.
    #[error("`{seed}`: `{host}` is neither an address nor the name of a host")]
    Host {
        /// All of it.
        seed: String,
        /// What stands where a host should be.
        host: String,
    },
    /// An address where the name of a service is wanted.
    #[error("`{seed}`: `{name}` is not the name of a service")]
    Service {
        /// All of it.
        seed: String,
        /// What stands where a name should be.
        name: String,
    },
    /// The port is not a number from 1 to 65535.
    #[error("`{seed}`: `{port}` is not a port")]
    Port {
        /// All of it.
        seed: String,
        /// What stands behind the last colon.
        port: String,
    },
    /// This scheme does not go without a port.
    #[error("`{seed}`: a port is missing, as in `dns+host:{DEFAULT_PORT}`")]
    NoPort {
        /// All of it.
        seed: String,
    },
}

impl Seed {
    /// Reads a seed. Asks nobody: a name may not exist.
    ///
    /// # Errors
    ///
    /// [`BadSeed`], with the text and what is wrong with it.
    pub fn parse(text: &str) -> Result<Self, BadSeed> {
        let target = match text.split_once('+') {
            None => {
                // The library that Cortex uses takes `name/host:port`. The name would only be used to check certificates.
                let (_, place) = text.split_once('/').unwrap_or(("", text));
                let (host, port) = split_port(place);
                Target::host(text, host, parse_port(text, port)?.unwrap_or(DEFAULT_PORT))?
            }
            Some(("dns" | "dnsdualstack", place)) => {
                let (host, port) = split_port(place);
                let port =
                    parse_port(text, port)?.ok_or_else(|| BadSeed::NoPort { seed: text.to_owned() })?;
                Target::host(text, host, port)?
            }
            Some(("dnssrv" | "dnssrvnoa", place)) => {
                let (name, port) = split_port(place);
                let port = parse_port(text, port)?;
                let bad = || BadSeed::Service { seed: text.to_owned(), name: name.to_owned() };
                Target::Service { name: parse_name(name).ok_or_else(bad)?, port }
            }
            Some((scheme, _)) => {
                return Err(BadSeed::Scheme { seed: text.to_owned(), scheme: scheme.to_owned() });
            }
        };
        Ok(Self { text: text.to_owned(), target })
    }
}

impl fmt::Display for Seed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Target {
    fn host(seed: &str, host: &str, port: u16) -> Result<Self, BadSeed> {
        if let Ok(ip) = host.parse::<IpAddr>() {
            return Ok(Self::Addr(SocketAddr::new(ip, port)));
        }
        let bad = || BadSeed::Host { seed: seed.to_owned(), host: host.to_owned() };
        Ok(Self::Host { name: parse_name(host).ok_or_else(bad)?, port })
    }
}

/// The host, without the brackets of an IPv6 address, and what stands behind the colon if there is one.
fn split_port(place: &str) -> (&str, Option<&str>) {
    if let Some((ip, rest)) = place.strip_prefix('[').and_then(|rest| rest.split_once(']'))
        && ip.parse::<Ipv6Addr>().is_ok()
    {
        match rest.strip_prefix(':') {
            Some(port) => return (ip, Some(port)),
            None if rest.is_empty() => return (ip, None),
            None => {}
        }
    }
    match place.rsplit_once(':') {
        // With more than one colon it is an IPv6 address without brackets, and all of it.
        Some((host, port)) if !host.contains(':') => (host, Some(port)),
        _ => (place, None),
    }
}

fn parse_port(seed: &str, port: Option<&str>) -> Result<Option<u16>, BadSeed> {
    let Some(port) = port else { return Ok(None) };
    // The parser takes a plus sign.
    let digits = port.bytes().all(|byte| byte.is_ascii_digit());
    match port.parse::<NonZeroU16>() {
        Ok(number) if digits => Ok(Some(number.get())),
        _ => Err(BadSeed::Port { seed: seed.to_owned(), port: port.to_owned() }),
    }
}

/// `None` unless it could be the name of a host or of a service: an address is not, nor what looks like one.
fn parse_name(text: &str) -> Option<Name> {
    let mut labels = text.strip_suffix('.').unwrap_or(text).split('.');
    let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    let is_name = labels.clone().all(|label| !label.is_empty() && label.bytes().all(is_allowed));
    // `10.0.0.256` is a slip, and `1234` a host: containers have such names.
    let is_number = text.contains('.') && labels.all(|label| label.bytes().all(|byte| byte.is_ascii_digit()));
    // The parser also knows the lengths that are allowed.
    if is_name && !is_number { Name::from_ascii(text).ok() } else { None }
}

/// What a seed means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resolved {
    /// The seed.
    pub seed: Seed,
    /// Its addresses, each once, those of IPv4 first, in order. Empty if its name does not exist or has none.
    pub addrs: Vec<SocketAddr>,
    /// What went wrong at the last attempt. The addresses are then those that were found nevertheless or, if there are none,
    /// those of the last good answer.
    pub error: Option<String>,
    /// When the addresses were found.
    pub at: Instant,
}
