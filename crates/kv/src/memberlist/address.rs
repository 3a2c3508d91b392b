//! Which address a member advertises that listens at all of them: a private one, as in Cortex.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

/// Where packets to the outside would go; nothing is sent. Addresses of examples, which nobody has.
const OUTSIDE: [SocketAddr; 2] = [
    SocketAddr::new(IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)), 9),
    SocketAddr::new(IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1)), 9),
];

/// A private address of this machine: that from which packets leave it. Of IPv6 only if `v6` is wanted too. If none can leave it
/// at all, the first one.
pub(super) fn private(v6: bool) -> Option<IpAddr> {
    let leaving = OUTSIDE.into_iter().filter(|to| v6 || to.is_ipv4()).filter_map(leaving_to);
    choose(leaving.collect(), || {
        let trie = std::fs::read_to_string("/proc/net/fib_trie").unwrap_or_default();
        local(&trie).into_iter().map(IpAddr::V4).collect()
    })
}

/// Of the addresses from which packets leave, or of all of this machine.
fn choose(leaving: Vec<IpAddr>, all: impl FnOnce() -> Vec<IpAddr>) -> Option<IpAddr> {
    // Where packets leave, other addresses may be those of bridges, where nobody outside reaches anything.
    let from = if leaving.is_empty() { all() } else { leaving };
    from.into_iter().find(|ip| is_private(*ip))
}

/// From which address packets to this one leave.
fn leaving_to(to: SocketAddr) -> Option<IpAddr> {
    let any: IpAddr = if to.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind((any, 0)).ok()?;
    socket.connect(to).ok()?;
    Some(socket.local_addr().ok()?.ip())
}

/// Addresses that Linux calls `/32 host LOCAL`, in its order.
fn local(trie: &str) -> Vec<Ipv4Addr> {
    let mut addresses = Vec::new();
    let mut latest: Option<Ipv4Addr> = None;
    for line in trie.lines().map(str::trim_start) {
        if let Some(leaf) = line.strip_prefix("|-- ") {
            latest = leaf.trim().parse().ok();
        } else if line.starts_with("/32 host LOCAL") {
            addresses.extend(latest);
        }
    }
    addresses
}

/// Not to be reached from everywhere, but from other machines.
fn is_private(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => {
            let [first, second, ..] = ip.octets();
            // Behind a carrier's translation of addresses, too: some clouds give those out.
            ip.is_private() || (first == 100 && second & 0xC0 == 64)
        }
        IpAddr::V6(ip) => ip.is_unique_local(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn private_addresses_are_told_from_others() {
        for (ip, private) in [
            ("10.1.2.3", true),
            ("172.31.0.1", true),
            ("192.168.1.1", true),
            ("100.64.0.1", true),
            ("100.128.0.1", false),
            ("127.0.0.1", false),
            ("169.254.1.1", false),
            ("8.8.8.8", false),
            ("fd00::1", true),
            ("fe80::1", false),
            ("2001:db8::1", false),
        ] {
            assert_eq!(is_private(ip.parse().unwrap()), private, "{ip}");
        }
    }

    #[test]
    fn an_address_where_nothing_leaves_is_for_machines_that_nothing_leaves() {
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        let bridge = || vec![ip("127.0.0.1"), ip("172.17.0.1")];
        assert_eq!(choose(vec![ip("10.0.0.7")], bridge), Some(ip("10.0.0.7")));
        assert_eq!(choose(vec![ip("8.8.8.8"), ip("fd00::1")], bridge), Some(ip("fd00::1")));
        assert_eq!(choose(vec![ip("8.8.8.8")], bridge), None, "others reach it at another one");
        assert_eq!(choose(Vec::new(), bridge), Some(ip("172.17.0.1")));
        assert_eq!(choose(Vec::new(), Vec::new), None);
    }

    #[test]
    fn addresses_of_this_machine_are_read() {
        let trie = "Main:\n  +-- 0.0.0.0/0 3 0 5\n     |-- 10.0.0.0\n        /8 link UNICAST\n     |-- 10.0.0.7\n        /32 host LOCAL\n\
            \x20    |-- 10.255.255.255\n        /32 link BROADCAST\n     |-- 127.0.0.1\n        /32 host LOCAL\n";
        assert_eq!(local(trie), [Ipv4Addr::new(10, 0, 0, 7), Ipv4Addr::LOCALHOST]);
        assert!(local("/32 host LOCAL\n|-- x\n").is_empty());
    }
}
