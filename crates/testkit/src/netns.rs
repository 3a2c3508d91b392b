//! Several machines' worth of network on one machine: Linux network namespaces on a bridge, which can be cut apart and made to
//! lose packets. Every protocol feels it, as it would a switch that failed.
//!
//! Made with the programs `ip` and `nft`, by root only: see [`Network::unavailable`]. What runs inside is the test's business.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::hash::{BuildHasher as _, RandomState};
use std::io;
use std::net::Ipv4Addr;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;

use crate::process::ProcessBuilder;

/// Namespaces of one network: their addresses end in 1 to 250, and 254 is the test's own.
const MAX_SIZE: u8 = 250;
/// The last byte of the address of the test's own process.
const HOST: u8 = 254;
/// Draws of a network's address.
const ATTEMPTS: u64 = 1000;
/// The table of `nft` that holds what is cut and lost, in each namespace.
const TABLE: &str = "disorder";

/// A few network namespaces that reach each other, and are reached from the test's own process. Deleted when dropped; processes
/// inside should have ended by then, as their namespace would stay until they do.
#[derive(Debug)]
pub struct Network {
    spaces: Vec<Space>,
    /// The namespace of the bridge: nothing else is in it, so that networks cannot meet.
    hub: String,
    /// The device that leads from the test's own namespace to the bridge.
    leg: String,
    /// The first three bytes of all addresses.
    net: [u8; 3],
    disorder: Mutex<Disorder>,
}

#[derive(Debug)]
struct Space {
    name: String,
    addr: Ipv4Addr,
}

/// What does not work at the moment.
#[derive(Debug, Default)]
struct Disorder {
    /// Who is not heard (first), by whom.
    cut: BTreeSet<(usize, usize)>,
    /// How many percent of what comes in are lost, and where.
    loss: BTreeMap<usize, u8>,
}

impl Network {
    /// Makes a network of `size` namespaces, numbered from 0. What tests that were killed left behind is deleted first.
    ///
    /// # Errors
    ///
    /// What `ip` said, in words; `InvalidInput` unless `size` is 1 to 250; `AddrInUse` if no address is free. Nothing is left.
    pub fn create(size: usize) -> io::Result<Self> {
        static CREATED: AtomicUsize = AtomicUsize::new(0);
        let Ok(size @ 1..=MAX_SIZE) = u8::try_from(size) else {
            let problem = format!("a network has 1 to {MAX_SIZE} namespaces, not {size}");
            return Err(io::Error::new(io::ErrorKind::InvalidInput, problem));
        };
        sweep();
        for _ in 0..ATTEMPTS {
            let (process, number) = (std::process::id(), CREATED.fetch_add(1, Ordering::SeqCst));
            let mut network = Self {
                spaces: Vec::new(),
                hub: format!("rk{process}-{number}-hub"),
                // A device's name has at most 15 characters.
                leg: format!("rk{process}x{number}"),
                net: draw_net()?,
                disorder: Mutex::default(),
            };
            network.build(number, size)?;
            if network.is_alone()? {
                return Ok(network);
            }
        }
        Err(io::Error::new(io::ErrorKind::AddrInUse, "other networks were always faster"))
    }

    /// Why no network can be made here, or `None` if it can. Tried once per process.
    pub fn unavailable() -> Option<String> {
        static REASON: OnceLock<Option<String>> = OnceLock::new();
        let find = || {
            if !rustix::process::geteuid().is_root() {
                return Some("only root may make network namespaces".to_owned());
            }
            let tried = Self::create(1).and_then(|network| network.loss(0, 1));
            tried.err().map(|cause| cause.to_string())
        };
        REASON.get_or_init(find).clone()
    }

    /// The address of a namespace.
    ///
    /// # Panics
    ///
    /// If there is no such namespace, as all that take the number of one.
    pub fn addr(&self, number: usize) -> Ipv4Addr {
        self.spaces[number].addr
    }

    /// The address of the test's own process. It is never cut off and loses nothing.
    pub fn host_addr(&self) -> Ipv4Addr {
        let [a, b, c] = self.net;
        Ipv4Addr::new(a, b, c, HOST)
    }

    /// A command that will run in a namespace.
    pub fn command(&self, number: usize, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.spaces[number].name]).arg(program);
        command
    }

    /// A process that will run in a namespace; `name` appears in messages.
    pub fn process(
        &self,
        number: usize,
        name: impl Into<String>,
        program: impl AsRef<OsStr>,
    ) -> ProcessBuilder {
        // `ip` replaces itself by the program, so that signals reach it.
        ProcessBuilder::new(name, "ip").args(["netns", "exec", &self.spaces[number].name]).arg(program)
    }

    /// Lets nothing pass between two groups, in either direction, until [`Network::heal`].
    ///
    /// # Errors
    ///
    /// What `nft` said; some of the namespaces may be cut already.
    pub fn cut(&self, one: &[usize], other: &[usize]) -> io::Result<()> {
        self.cut_one_way(one, other)?;
        self.cut_one_way(other, one)
    }

    /// Lets nothing that these send arrive at those, until [`Network::heal`]; the senders do not notice.
    ///
    /// # Errors
    ///
    /// As for [`Network::cut`].
    pub fn cut_one_way(&self, from: &[usize], to: &[usize]) -> io::Result<()> {
        let mut disorder = self.disorder.lock();
        disorder.cut.extend(to.iter().flat_map(|to| from.iter().map(|from| (*from, *to))));
        to.iter().try_for_each(|to| self.apply(&disorder, *to))
    }

    /// Loses this share of what comes in from other namespaces, in percent, each packet by chance, until [`Network::heal`].
    ///
    /// # Errors
    ///
    /// What `nft` said.
    pub fn loss(&self, number: usize, percent: u8) -> io::Result<()> {
        let mut disorder = self.disorder.lock();
        disorder.loss.insert(number, percent.min(100));
        self.apply(&disorder, number)
    }

    /// Undoes all cuts and losses.
    ///
    /// # Errors
    ///
    /// What `nft` said; some of the namespaces may still be cut.
    pub fn heal(&self) -> io::Result<()> {
        let mut disorder = self.disorder.lock();
        let before = std::mem::take(&mut *disorder);
        let touched: BTreeSet<usize> =
            before.cut.iter().map(|(_, to)| *to).chain(before.loss.keys().copied()).collect();
        touched.into_iter().try_for_each(|number| self.apply(&disorder, number))
    }

    /// Makes everything. What is in `self` by then is what [`Drop`] deletes.
    fn build(&mut self, network: usize, size: u8) -> io::Result<()> {
        let (hub, leg) = (self.hub.clone(), self.leg.clone());
        ip(&["netns", "add", &hub])?;
        ip(&["-n", &hub, "link", "add", "bridge", "type", "bridge"])?;
        ip(&["-n", &hub, "link", "set", "bridge", "up"])?;
        ip(&["link", "add", &leg, "type", "veth", "peer", "name", "leg", "netns", &hub])?;
        ip(&["-n", &hub, "link", "set", "leg", "master", "bridge", "up"])?;
        ip(&["addr", "add", &format!("{}/24", self.host_addr()), "dev", &leg])?;
        ip(&["link", "set", &leg, "up"])?;
        let [a, b, c] = self.net;
        for last in 1..=size {
            let space = format!("rk{}-{network}-{}", std::process::id(), last - 1);
            let (port, addr) = (format!("port{last}"), Ipv4Addr::new(a, b, c, last));
            self.spaces.push(Space { name: space.clone(), addr });
            ip(&["netns", "add", &space])?;
            ip(&["-n", &space, "link", "set", "lo", "up"])?;
            ip(&["-n", &hub, "link", "add", &port, "type", "veth", "peer", "name", "eth0", "netns", &space])?;
            ip(&["-n", &hub, "link", "set", &port, "master", "bridge", "up"])?;
            ip(&["-n", &space, "addr", "add", &format!("{addr}/24"), "dev", "eth0"])?;
            ip(&["-n", &space, "link", "set", "eth0", "up"])?;
        }
        Ok(())
    }

    /// Whether nobody else drew the same addresses at the same moment: then there would be two ways to them.
    fn is_alone(&self) -> io::Result<bool> {
        let [a, b, c] = self.net;
        let ways = ip(&["-4", "route", "show", "exact", &format!("{a}.{b}.{c}.0/24")])?;
        Ok(ways.lines().count() == 1)
    }

    /// Tells a namespace what it must not hear. It is dropped where it arrives: nobody else can tell that it was sent.
    fn apply(&self, disorder: &Disorder, number: usize) -> io::Result<()> {
        // In one transaction; adding comes first as what is not there cannot be deleted.
        let mut script = format!("add table ip {TABLE}\ndelete table ip {TABLE}\n");
        let unheard: Vec<String> = disorder
            .cut
            .iter()
            .filter(|(_, to)| *to == number)
            .map(|(from, _)| self.addr(*from).to_string())
            .collect();
        let percent = disorder.loss.get(&number).copied().unwrap_or(0);
        if !unheard.is_empty() || percent > 0 {
            script += &format!("add table ip {TABLE}\n");
            script += &format!("add chain ip {TABLE} incoming {{ type filter hook input priority 0 ; }}\n");
        }
        if !unheard.is_empty() {
            let unheard = unheard.join(", ");
            script += &format!("add rule ip {TABLE} incoming iifname eth0 ip saddr {{ {unheard} }} drop\n");
        }
        if percent > 0 {
            // A number from 0 to 999 is drawn for each packet.
            let (host, last) = (self.host_addr(), u32::from(percent) * 10 - 1);
            script += &format!(
                "add rule ip {TABLE} incoming iifname eth0 ip saddr != {host} numgen random mod 1000 <= {last} drop\n"
            );
        }
        run(self.command(number, "nft").arg(script)).map(drop)
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        // Part of it may never have been made.
        let _ = ip(&["link", "del", &self.leg]);
        for name in self.spaces.iter().map(|space| &space.name).chain([&self.hub]) {
            let _ = ip(&["netns", "del", name]);
        }
    }
}

/// Deletes the namespaces of processes that are no more.
fn sweep() {
    let names = ip(&["netns", "list"]).unwrap_or_default();
    for name in names.lines().filter_map(|line| line.split_whitespace().next()) {
        let Some((process, _)) = name.strip_prefix("rk").and_then(|rest| rest.split_once('-')) else {
            continue;
        };
        let is_number = !process.is_empty() && process.bytes().all(|byte| byte.is_ascii_digit());
        if is_number && !Path::new("/proc").join(process).exists() {
            // Another test may be sweeping as well.
            let _ = ip(&["netns", "del", name]);
        }
    }
}

/// The first three bytes of addresses to which no route leads so far.
fn draw_net() -> io::Result<[u8; 3]> {
    let routes = ip(&["-4", "route", "show"])?;
    let routes: Vec<(u32, u32)> = routes.lines().filter_map(destination).collect();
    let random = RandomState::new();
    let draw = |attempt| {
        let [a, b, ..] = random.hash_one(attempt).to_le_bytes();
        [10, a, b]
    };
    let free = (0..ATTEMPTS).map(draw).find(|net| !routes.iter().any(|route| leads_to(*route, *net)));
    free.ok_or_else(|| io::Error::new(io::ErrorKind::AddrInUse, "routes lead to all of 10.0.0.0/8"))
}

/// The address and the length of the prefix in a line of `ip route`.
fn destination(line: &str) -> Option<(u32, u32)> {
    let prefix = |word: &str| {
        let (addr, len) = word.split_once('/').unwrap_or((word, "32"));
        Some((addr.parse::<Ipv4Addr>().ok()?.to_bits(), len.parse().ok()?))
    };
    // Before it there may be a word, as in `blackhole 10.1.0.0/16`.
    line.split_whitespace().take(2).find_map(prefix)
}

/// Whether a route leads to some of these addresses. One for all of 10.0.0.0/8 cannot be avoided, and ours is more specific.
fn leads_to((addr, len): (u32, u32), [a, b, c]: [u8; 3]) -> bool {
    let net = Ipv4Addr::new(a, b, c, 0).to_bits();
    (9..=32).contains(&len) && (addr ^ net) >> (32 - len.min(24)) == 0
}

fn ip(args: &[&str]) -> io::Result<String> {
    run(Command::new("ip").args(args))
}

/// Runs a command to its end and returns what it printed.
fn run(command: &mut Command) -> io::Result<String> {
    let output = command.stdin(Stdio::null()).output();
    let output = output.map_err(|cause| io::Error::other(format!("{command:?}: {cause}")))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(io::Error::other(format!("{command:?}: {}", said.trim())))
}

#[cfg(test)]
mod tests {
    use std::net::{SocketAddr, TcpStream};
    use std::time::Duration;

    use super::*;

    /// Nobody listens there: the kernel counts what comes.
    const PORT: u16 = 9;
    const SOON: Duration = Duration::from_secs(5);

    /// How many datagrams have arrived in a namespace.
    fn arrived(network: &Network, at: usize) -> u64 {
        let counters = run(network.command(at, "cat").arg("/proc/net/snmp")).unwrap();
        let numbers = counters.lines().filter(|line| line.starts_with("Udp:")).nth(1).unwrap();
        // After the name: datagrams to a port with a listener, and to one without.
        numbers.split_whitespace().nth(2).unwrap().parse().unwrap()
    }

    /// How many of so many datagrams arrive.
    fn arriving(network: &Network, from: usize, to: usize, sent: u64) -> u64 {
        let before = arrived(network, to);
        let addr = network.addr(to);
        let script = format!("for i in {{1..{sent}}}; do echo > /dev/udp/{addr}/{PORT}; done");
        run(network.command(from, "bash").args(["-c", &script])).unwrap();
        // An answer to this process, which is never cut off, says that what was sent before has been seen to.
        let refused = TcpStream::connect_timeout(&SocketAddr::from((addr, PORT)), SOON).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
        arrived(network, to) - before
    }

    fn hears(network: &Network, from: usize, to: usize) -> bool {
        arriving(network, from, to, 1) > 0
    }

    #[test]
    fn namespaces_can_be_cut_and_healed() {
        if let Some(reason) = Network::unavailable() {
            eprintln!("skipped, as there is no network to cut: {reason}");
            return;
        }
        let network = Network::create(3).unwrap();
        let heard = |from, to| hears(&network, from, to);
        let all = || heard(0, 1) && heard(1, 0) && heard(0, 2) && heard(2, 0) && heard(1, 2) && heard(2, 1);
        assert!(all());

        network.cut(&[0], &[1, 2]).unwrap();
        assert!(!heard(0, 1) && !heard(1, 0) && !heard(0, 2) && !heard(2, 0));
        assert!(heard(1, 2) && heard(2, 1));
        network.heal().unwrap();
        assert!(all());

        network.cut_one_way(&[0], &[1]).unwrap();
        assert!(!heard(0, 1));
        assert!(heard(1, 0) && heard(2, 1));
        // What is cut stays cut while packets are lost as well.
        network.loss(1, 30).unwrap();
        assert!(!heard(0, 1));
        let some = arriving(&network, 2, 1, 200);
        assert!((100..=180).contains(&some), "{some} of 200 with 30 % lost");
        network.loss(1, 100).unwrap();
        assert_eq!(arriving(&network, 2, 1, 20), 0);
        network.heal().unwrap();
        assert!(all());

        let names: Vec<String> = network.spaces.iter().map(|space| space.name.clone()).collect();
        drop(network);
        let left = ip(&["netns", "list"]).unwrap();
        assert!(names.iter().all(|name| !left.contains(name.as_str())), "{left}");
    }

    #[test]
    fn networks_do_not_meet() {
        if let Some(reason) = Network::unavailable() {
            eprintln!("skipped, as there is no network: {reason}");
            return;
        }
        let (one, other) = (Network::create(1).unwrap(), Network::create(2).unwrap());
        assert_ne!(one.net, other.net);
        assert!(hears(&other, 0, 1) && hears(&other, 1, 0));
        // No route leads from one to the other.
        let addr = other.addr(0);
        assert!(run(one.command(0, "bash").args(["-c", &format!("echo > /dev/udp/{addr}/{PORT}")])).is_err());
    }

    #[tokio::test]
    async fn processes_run_inside_with_their_output_captured() {
        if let Some(reason) = Network::unavailable() {
            eprintln!("skipped, as there is no network: {reason}");
            return;
        }
        let network = Network::create(1).unwrap();
        // The loopback device is up, or nothing would be there to send from.
        let script = "echo > /dev/udp/127.0.0.1/9 && echo sent && exec sleep 600";
        let mut process = network.process(0, "sleeper", "bash").args(["-c", script]).start().unwrap();
        process.wait_for_output("sent", SOON).await.unwrap();
        assert_eq!(arrived(&network, 0), 1);
        let inside = ip(&["netns", "pids", &network.spaces[0].name]).unwrap();
        assert_eq!(inside.trim(), process.id().to_string());
    }

    #[test]
    fn addresses_are_drawn_where_no_route_leads() {
        let near = [
            "10.3.4.0/24 dev a",
            "10.3.0.0/16 via 10.0.0.1 dev b",
            "blackhole 10.0.0.0/9",
            "10.3.4.77 dev c",
        ];
        for line in near {
            assert!(leads_to(destination(line).unwrap(), [10, 3, 4]), "{line}");
        }
        let far = ["10.3.5.0/24 dev a", "10.0.0.0/8 dev b", "192.0.2.0/24 dev c", "10.128.0.0/9 dev d"];
        for line in far {
            assert!(!leads_to(destination(line).unwrap(), [10, 3, 4]), "{line}");
        }
        assert_eq!(destination("default via 192.0.2.1 dev eth0"), None);
        assert_eq!(destination("default dev tun0"), None);
    }
}
