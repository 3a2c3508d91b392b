//! Which address an instance advertises.
//!
//! In this order: the configured address; the address its gRPC server listens on, if that is a single one; the first
//! IPv4 address of the configured interfaces, link-local ones (169.254/16) last; the address of the interface with the
//! default route; loopback, with a warning.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use tracing::{info, warn};

/// What the configuration asks for.
#[derive(Clone, Copy, Debug)]
pub struct Wanted<'a> {
    /// The address to advertise; empty = find one.
    pub address: &'a str,
    /// Path of the key that holds `address`, for messages.
    pub address_key: &'static str,
    /// The port to advertise; 0 = that of the gRPC server.
    pub port: u16,
    /// Interfaces to look at, in order of preference.
    pub interfaces: &'a [String],
    /// Path of the key that holds `interfaces`, for messages.
    pub interfaces_key: &'static str,
}

/// An interface of this machine and one of its addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InterfaceAddress {
    /// Name, such as `eth0`.
    pub interface: String,
    /// The address.
    pub address: Ipv4Addr,
    /// Whether the default route leaves through this interface.
    pub default_route: bool,
}

/// Where an advertised address comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Source {
    Configured,
    Listener,
    Interface(String),
    DefaultRoute(String),
    Loopback,
}

/// The `host:port` that others are to dial, for a gRPC server that listens on `grpc`. Says in the log why.
pub fn advertised(wanted: &Wanted<'_>, grpc: SocketAddr) -> String {
    let (host, source) = choose(wanted, grpc, interface_addresses);
    let port = if wanted.port == 0 { grpc.port() } else { wanted.port };
    let addr = with_port(&host, port);
    match &source {
        Source::Configured => info!(addr, "advertising the address of `{}`", wanted.address_key),
        Source::Listener => info!(addr, "advertising the only address that the gRPC server listens on"),
        Source::Interface(name) => info!(
            addr,
            interface = name,
            "advertising the address of an interface named in `{}`",
            wanted.interfaces_key
        ),
        Source::DefaultRoute(name) => info!(
            addr,
            interface = name,
            "advertising the address of the default route: no interface of `{}` has one",
            wanted.interfaces_key
        ),
        Source::Loopback => warn!(
            addr,
            "no address found, advertising loopback, which other machines cannot reach: set `{}`, or name an interface in `{}`",
            wanted.address_key,
            wanted.interfaces_key
        ),
    }
    addr
}

fn choose(
    wanted: &Wanted<'_>,
    grpc: SocketAddr,
    interface_addresses: impl FnOnce() -> Vec<InterfaceAddress>,
) -> (String, Source) {
    if !wanted.address.is_empty() {
        return (wanted.address.to_owned(), Source::Configured);
    }
    if !grpc.ip().is_unspecified() {
        return (grpc.ip().to_string(), Source::Listener);
    }
    let found = interface_addresses();
    let named = wanted.interfaces.iter().flat_map(|name| found.iter().filter(move |a| a.interface == *name));
    if let Some(best) = preferred(named) {
        return (best.address.to_string(), Source::Interface(best.interface.clone()));
    }
    if let Some(best) = preferred(found.iter().filter(|a| a.default_route)) {
        return (best.address.to_string(), Source::DefaultRoute(best.interface.clone()));
    }
    (Ipv4Addr::LOCALHOST.to_string(), Source::Loopback)
}

/// The first address that is not link-local, else the first.
fn preferred<'a>(candidates: impl Iterator<Item = &'a InterfaceAddress>) -> Option<&'a InterfaceAddress> {
    // The first of the smallest wins, and false is smaller.
    candidates.min_by_key(|a| a.address.is_link_local())
}

fn with_port(host: &str, port: u16) -> String {
    match host.parse() {
        Ok(IpAddr::V6(ip)) => SocketAddr::from((ip, port)).to_string(),
        _ => format!("{host}:{port}"),
    }
}

/// The IPv4 addresses of this machine by interface, as Linux shows them under `/proc/net`; empty elsewhere.
pub fn interface_addresses() -> Vec<InterfaceAddress> {
    let read = |path| std::fs::read_to_string(path).unwrap_or_default();
    parse(&read("/proc/net/route"), &read("/proc/net/fib_trie"))
}

/// A network that an interface is attached to.
struct Network {
    interface: String,
    destination: u32,
    mask: u32,
    is_default: bool,
}

impl fmt::Debug for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} on {}", Ipv4Addr::from(self.destination), self.interface)
    }
}

/// `route` tells which networks are on which interface, `trie` which addresses are ours: the two joined.
fn parse(route: &str, trie: &str) -> Vec<InterfaceAddress> {
    let networks: Vec<Network> = route.lines().skip(1).filter_map(network).collect();
    let has_default =
        |name: &str| networks.iter().any(|network| network.is_default && network.interface == name);
    let attached = |address: Ipv4Addr| {
        let covers = |network: &&Network| {
            !network.is_default && u32::from(address) & network.mask == network.destination
        };
        let network = networks.iter().filter(covers).max_by_key(|network| network.mask)?;
        Some(InterfaceAddress {
            interface: network.interface.clone(),
            address,
            default_route: has_default(&network.interface),
        })
    };
    local_addresses(trie).into_iter().filter_map(attached).collect()
}

/// One line of `/proc/net/route`: interface, destination, gateway, flags, three numbers, mask; in hexadecimal, bytes in
/// the order of the machine.
fn network(line: &str) -> Option<Network> {
    let fields: Vec<&str> = line.split_whitespace().collect();
    let hex = |field: usize| {
        let number = u32::from_str_radix(fields.get(field)?, 16).ok()?;
        Some(u32::from_be_bytes(number.to_ne_bytes()))
    };
    let (destination, gateway, mask) = (hex(1)?, hex(2)?, hex(7)?);
    let is_default = mask == 0;
    if gateway != 0 && !is_default {
        return None; // reached through a router: none of our own networks
    }
    Some(Network { interface: (*fields.first()?).to_owned(), destination, mask, is_default })
}

/// Addresses that `/proc/net/fib_trie` calls `/32 host LOCAL`, in its order, each once.
fn local_addresses(trie: &str) -> Vec<Ipv4Addr> {
    let mut addresses = Vec::new();
    let mut latest = None;
    for line in trie.lines() {
        let line = line.trim_start();
        if let Some(leaf) = line.strip_prefix("|-- ") {
            latest = leaf.trim().parse().ok();
        } else if line.starts_with("/32 host LOCAL")
            && let Some(address) = latest
            && !addresses.contains(&address)
        {
            addresses.push(address);
        }
    }
    addresses
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROUTE: &str = "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n\
        wlan0\t00000000\t0101A8C0\t0003\t0\t0\t600\t00000000\t0\t0\t0\n\
        eth0\t0000FEA9\t00000000\t0001\t0\t0\t0\t0000FFFF\t0\t0\t0\n\
        eth0\t0000000A\t00000000\t0001\t0\t0\t0\t000000FF\t0\t0\t0\n\
        far0\t0000000A\t0101A8C0\t0003\t0\t0\t0\t0000FFFF\t0\t0\t0\n\
        wlan0\t0001A8C0\t00000000\t0001\t0\t0\t600\t00FFFFFF\t0\t0\t0\n";

    const TRIE: &str = "Main:\n  +-- 0.0.0.0/0 3 0 5\n     |-- 10.0.0.0\n        /8 link UNICAST\n     |-- 10.0.0.7\n        /32 host LOCAL\n\
        \x20    |-- 127.0.0.1\n        /32 host LOCAL\n     |-- 169.254.3.4\n        /32 host LOCAL\n\
        \x20    |-- 192.168.1.5\n        /32 host LOCAL\n     |-- 192.168.1.255\n        /32 link BROADCAST\n\
        Local:\n     |-- 10.0.0.7\n        /32 host LOCAL\n";

    fn wanted<'a>(address: &'a str, interfaces: &'a [String]) -> Wanted<'a> {
        Wanted { address, address_key: "a", port: 0, interfaces, interfaces_key: "i" }
    }

    fn choice(wanted: &Wanted<'_>, listener: &str, found: &[InterfaceAddress]) -> (String, Source) {
        choose(wanted, listener.parse().unwrap(), || found.to_vec())
    }

    fn on(interface: &str, address: [u8; 4], default_route: bool) -> InterfaceAddress {
        InterfaceAddress { interface: interface.into(), address: address.into(), default_route }
    }

    #[test]
    #[cfg(target_endian = "little")]
    fn addresses_are_found_by_interface() {
        let expected = [
            on("eth0", [10, 0, 0, 7], false),
            on("eth0", [169, 254, 3, 4], false),
            on("wlan0", [192, 168, 1, 5], true),
        ];
        assert_eq!(parse(ROUTE, TRIE), expected);
    }

    #[test]
    fn nonsense_under_proc_is_no_address() {
        assert_eq!(parse("", ""), []);
        assert_eq!(parse("head\neth0\neth0 x y z\neth0 0 0 0 0 0 0 zz\n", "|-- x\n/32 host LOCAL\n"), []);
        assert_eq!(parse("", TRIE), []);
    }

    #[test]
    fn the_most_explicit_address_wins() {
        let interfaces = ["en0".to_owned(), "eth0".to_owned()];
        let found = [
            on("wlan0", [192, 168, 1, 5], true),
            on("eth0", [169, 254, 3, 4], false),
            on("eth0", [10, 0, 0, 7], false),
        ];
        let any = wanted("", &interfaces);
        let configured = wanted("example.org", &interfaces);
        assert_eq!(choice(&configured, "127.0.0.1:1", &found), ("example.org".into(), Source::Configured));
        assert_eq!(choice(&any, "127.0.0.1:1", &found), ("127.0.0.1".into(), Source::Listener));
        assert_eq!(choice(&any, "0.0.0.0:1", &found), ("10.0.0.7".into(), Source::Interface("eth0".into())));
        assert_eq!(
            choice(&any, "[::]:1", &found[..2]),
            ("169.254.3.4".into(), Source::Interface("eth0".into()))
        );
        assert_eq!(
            choice(&any, "0.0.0.0:1", &found[..1]),
            ("192.168.1.5".into(), Source::DefaultRoute("wlan0".into()))
        );
        assert_eq!(choice(&any, "0.0.0.0:1", &[]), ("127.0.0.1".into(), Source::Loopback));
    }

    #[test]
    fn the_port_is_the_configured_one_or_the_listeners() {
        let listener = "127.0.0.1:9095".parse().unwrap();
        assert_eq!(advertised(&wanted("", &[]), listener), "127.0.0.1:9095");
        assert_eq!(advertised(&Wanted { port: 1, ..wanted("host", &[]) }, listener), "host:1");
        assert_eq!(advertised(&wanted("fe80::1", &[]), listener), "[fe80::1]:9095");
    }
}
