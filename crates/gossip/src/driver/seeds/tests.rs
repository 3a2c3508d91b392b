//! Seeds are read as Cortex reads them, and mean what a name server says, or said last.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use hickory_resolver::Hosts;
use hickory_resolver::config::{ResolverConfig, ResolverOpts};
use hickory_resolver::proto::op::{Message, MessageType, Query, ResponseCode};
use hickory_resolver::proto::rr::rdata::{A, AAAA, CNAME, SRV};
use hickory_resolver::proto::rr::{RData, Record, RecordType};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::task::JoinSet;

use super::resolver::{MAX_TARGETS, Setup};
use super::*;

fn seed(text: &str) -> Seed {
    Seed::parse(text).unwrap()
}

fn name(text: &str) -> Name {
    Name::from_ascii(text).unwrap()
}

fn addrs(texts: &[&str]) -> Vec<SocketAddr> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

#[test]
fn seeds_are_read_as_cortex_writes_them() {
    let addr = |text: &str| Target::Addr(text.parse().unwrap());
    let host = |text, port| Target::Host { name: name(text), port };
    let service = |text, port| Target::Service { name: name(text), port };
    let table = [
        ("10.0.0.1:7000", addr("10.0.0.1:7000")),
        ("10.0.0.1", addr("10.0.0.1:7946")),
        ("[fd00::1]:7000", addr("[fd00::1]:7000")),
        ("[fd00::1]", addr("[fd00::1]:7946")),
        ("fd00::1", addr("[fd00::1]:7946")),
        ("seeds:7000", host("seeds", 7000)),
        ("seeds", host("seeds", 7946)),
        ("Seeds.example.org.", host("seeds.example.org.", 7946)),
        ("my_seeds-1.example.org:65535", host("my_seeds-1.example.org", 65535)),
        ("123456789012", host("123456789012", 7946)),
        ("ingester-1/10.0.0.1:7000", addr("10.0.0.1:7000")),
        ("ingester-1/seeds", host("seeds", 7946)),
        ("dns+seeds:7000", host("seeds", 7000)),
        ("dns+10.0.0.1:7000", addr("10.0.0.1:7000")),
        ("dns+[fd00::1]:7000", addr("[fd00::1]:7000")),
        ("dnsdualstack+seeds:7000", host("seeds", 7000)),
        ("dnssrv+_gossip._udp.example.org", service("_gossip._udp.example.org", None)),
        ("dnssrv+example.org:7000", service("example.org", Some(7000))),
        ("dnssrvnoa+_gossip._udp.example.org", service("_gossip._udp.example.org", None)),
        ("dnssrvnoa+example.org:7000", service("example.org", Some(7000))),
    ];
    for (text, target) in table {
        let seed = seed(text);
        assert_eq!(seed.target, target, "{text}");
        assert_eq!(seed.to_string(), text);
    }
}

#[test]
fn what_is_wrong_with_a_seed_is_said() {
    let text = String::from;
    for (seed, scheme) in [("srv+seeds:7000", "srv"), ("+seeds", ""), ("DNS+seeds:7000", "DNS")] {
        let bad = BadSeed::Scheme { seed: text(seed), scheme: text(scheme) };
        assert_eq!(Seed::parse(seed), Err(bad));
    }
    for (seed, port) in
        [("seeds:", ""), ("seeds:0", "0"), ("10.0.0.1:65536", "65536"), ("dns+seeds:+7", "+7")]
    {
        assert_eq!(Seed::parse(seed), Err(BadSeed::Port { seed: text(seed), port: text(port) }));
    }
    for seed in ["dns+seeds", "dnsdualstack+10.0.0.1", "dns+fd00::1"] {
        assert_eq!(Seed::parse(seed), Err(BadSeed::NoPort { seed: text(seed) }));
    }
    let long = "a".repeat(64);
    let hosts = [
        "",
        "a b",
        "a..b",
        ".",
        "10.0.0.256",
        "[seeds]",
        "[fd00::1]7000",
        "http://seeds",
        "sömething",
        &long,
    ];
    for host in hosts {
        let bad = Seed::parse(host);
        assert!(matches!(bad, Err(BadSeed::Host { .. })), "{host}: {bad:?}");
    }
    for seed in ["dnssrv+10.0.0.1", "dnssrvnoa+", "dnssrv+[fd00::1]:7000"] {
        let bad = Seed::parse(seed);
        assert!(matches!(bad, Err(BadSeed::Service { .. })), "{seed}: {bad:?}");
    }
    assert_eq!(
        Seed::parse("dsn+seeds:7000").unwrap_err().to_string(),
        "`dsn+seeds:7000`: there is no lookup scheme `dsn`; known are dns, dnsdualstack, dnssrv, dnssrvnoa"
    );
}

/// What the name server says: records by name and type. Names that are not there do not exist.
#[derive(Default)]
struct Zone {
    records: BTreeMap<String, Vec<RData>>,
    /// Questions that it fails to answer, or does not answer at all.
    failing: BTreeSet<(String, RecordType)>,
    silent: BTreeSet<(String, RecordType)>,
    asked: Vec<(String, RecordType)>,
}

impl Zone {
    fn answer(&mut self, request: &Message) -> Option<Message> {
        let query = request.query().unwrap();
        let question = (query.name().to_lowercase().to_ascii(), query.query_type());
        self.asked.push(question.clone());
        if self.silent.contains(&question) {
            return None;
        }
        let mut response = Message::new();
        response.set_id(request.id()).set_message_type(MessageType::Response).set_recursion_available(true);
        response.add_query(query.clone());
        if self.failing.contains(&question) {
            response.set_response_code(ResponseCode::ServFail);
        } else if !self.add(&mut response, query, query.name()) {
            response.set_response_code(ResponseCode::NXDomain);
        }
        Some(response)
    }

    /// Follows aliases, as name servers do. `false` if there is no such name.
    fn add(&self, response: &mut Message, query: &Query, name: &Name) -> bool {
        let Some(records) = self.records.get(&name.to_lowercase().to_ascii()) else { return false };
        for record in records {
            if record.record_type() == query.query_type() || record.record_type() == RecordType::CNAME {
                response.add_answer(Record::from_rdata(name.clone(), 60, record.clone()));
            }
            match record {
                RData::CNAME(CNAME(other)) if query.query_type() != RecordType::CNAME => {
                    self.add(response, query, other);
                }
                _ => {}
            }
        }
        true
    }
}

/// The longest answer that goes into a datagram.
const MAX_DATAGRAM_BYTES: usize = 512;

async fn answer_datagrams(socket: UdpSocket, zone: Arc<Mutex<Zone>>) {
    let mut buffer = [0; MAX_DATAGRAM_BYTES];
    loop {
        let (len, from) = socket.recv_from(&mut buffer).await.unwrap();
        let request = Message::from_vec(&buffer[..len]).unwrap();
        let response = zone.lock().unwrap().answer(&request);
        let Some(response) = response else { continue };
        let mut bytes = response.to_vec().unwrap();
        if bytes.len() > MAX_DATAGRAM_BYTES {
            bytes = response.truncate().to_vec().unwrap();
        }
        socket.send_to(&bytes, from).await.unwrap();
    }
}

async fn answer_streams(listener: TcpListener, zone: Arc<Mutex<Zone>>) {
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        // One after the other; the client closes when it has what it wants.
        let _ = answer_stream(stream, &zone).await;
    }
}

async fn answer_stream(mut stream: TcpStream, zone: &Mutex<Zone>) -> std::io::Result<()> {
    loop {
        let mut buffer = vec![0; usize::from(stream.read_u16().await?)];
        stream.read_exact(&mut buffer).await?;
        let response = zone.lock().unwrap().answer(&Message::from_vec(&buffer).unwrap());
        if let Some(response) = response {
            let bytes = response.to_vec().unwrap();
            stream.write_u16(u16::try_from(bytes.len()).unwrap()).await?;
            stream.write_all(&bytes).await?;
        }
    }
}

/// A name server on the loopback address, over UDP and TCP; ends when dropped.
struct Server {
    addr: SocketAddr,
    zone: Arc<Mutex<Zone>>,
    _tasks: JoinSet<()>,
}

impl Server {
    async fn start() -> Self {
        let (listener, socket) = loop {
            let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
            // The port may be taken for UDP.
            if let Ok(socket) = UdpSocket::bind(listener.local_addr().unwrap()).await {
                break (listener, socket);
            }
        };
        let (addr, zone) = (socket.local_addr().unwrap(), Arc::<Mutex<Zone>>::default());
        let mut tasks = JoinSet::new();
        tasks.spawn(answer_datagrams(socket, Arc::clone(&zone)));
        tasks.spawn(answer_streams(listener, Arc::clone(&zone)));
        Self { addr, zone, _tasks: tasks }
    }

    /// With these instead of what there was. Names are written without the last dot.
    fn set(&self, name: &str, records: impl IntoIterator<Item = RData>) {
        self.zone.lock().unwrap().records.insert(format!("{name}."), records.into_iter().collect());
    }

    fn remove(&self, name: &str) {
        self.zone.lock().unwrap().records.remove(&format!("{name}."));
    }

    fn fail(&self, name: &str, kinds: &[RecordType]) {
        let questions = kinds.iter().map(|kind| (format!("{name}."), *kind));
        self.zone.lock().unwrap().failing.extend(questions);
    }

    fn repair(&self) {
        self.zone.lock().unwrap().failing.clear();
    }

    fn asked(&self) -> Vec<(String, RecordType)> {
        self.zone.lock().unwrap().asked.clone()
    }

    fn resolver(&self) -> Resolver {
        Resolver::with_server(self.addr)
    }

    fn setup(&self) -> Setup {
        Setup::of_server(self.addr)
    }
}

fn with_setup(setup: Setup) -> Resolver {
    Resolver { setup: Some(Arc::new(setup)), ..Resolver::new() }
}

const HOST: &[RecordType] = &[RecordType::A, RecordType::AAAA];

fn v4(last: u8) -> RData {
    RData::A(A(Ipv4Addr::new(10, 0, 0, last)))
}

fn v6(last: u16) -> RData {
    RData::AAAA(AAAA(Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, last)))
}

fn srv(port: u16, target: &str) -> RData {
    RData::SRV(SRV::new(0, 0, port, name(target)))
}

async fn resolve_one(resolver: &Resolver, text: &str) -> Resolved {
    let mut resolved = resolver.resolve(&[seed(text)], &[]).await;
    assert_eq!(resolved.len(), 1);
    resolved.remove(0)
}

/// The addresses, if there is no error.
async fn good(resolver: &Resolver, text: &str) -> Vec<SocketAddr> {
    let resolved = resolve_one(resolver, text).await;
    assert_eq!(resolved.error, None, "{text}");
    resolved.addrs
}

#[tokio::test]
async fn addresses_are_not_looked_up() {
    let server = Server::start().await;
    let seeds = ["10.0.0.1", "[fd00::1]:7000", "dns+10.0.0.2:7001"].map(seed);
    let resolved = server.resolver().resolve(&seeds, &[]).await;
    let found: Vec<SocketAddr> = resolved.iter().flat_map(|resolved| resolved.addrs.clone()).collect();
    assert_eq!(found, addrs(&["10.0.0.1:7946", "[fd00::1]:7000", "10.0.0.2:7001"]));
    assert!(
        resolved
            .iter()
            .zip(&seeds)
            .all(|(resolved, seed)| resolved.seed == *seed && resolved.error.is_none())
    );
    assert!(server.asked().is_empty());
}

#[tokio::test]
async fn all_addresses_of_a_host_are_found_sorted_and_once() {
    let server = Server::start().await;
    server.set("seeds.test", [v6(2), v4(3), v4(1), v6(1), v4(3)]);
    server.set("alias.test", [RData::CNAME(CNAME(name("seeds.test.")))]);
    let resolver = server.resolver();
    let all = addrs(&["10.0.0.1:7000", "10.0.0.3:7000", "[fd00::1]:7000", "[fd00::2]:7000"]);
    for text in
        ["seeds.test:7000", "dns+seeds.test:7000", "dnsdualstack+SEEDS.test.:7000", "dns+alias.test:7000"]
    {
        assert_eq!(good(&resolver, text).await, all, "{text}");
    }
    assert_eq!(good(&resolver, "member/seeds.test").await.first(), Some(&"10.0.0.1:7946".parse().unwrap()));
}

#[tokio::test]
async fn a_name_without_addresses_is_no_error() {
    let server = Server::start().await;
    // There, but for other types.
    server.set("there.test", [RData::CNAME(CNAME(name("nowhere.test.")))]);
    let resolver = server.resolver();
    let texts =
        ["nowhere.test", "dns+there.test:7000", "dnssrv+nowhere.test", "dnssrvnoa+there.test", "a.invalid"];
    for text in texts {
        assert!(good(&resolver, text).await.is_empty(), "{text}");
    }
}

#[tokio::test]
async fn the_last_good_answer_is_kept_while_lookups_fail() {
    let server = Server::start().await;
    server.set("seeds.test", [v4(1), v4(2)]);
    server.set("service.test", [srv(7000, "seeds.test.")]);
    let resolver = server.resolver();
    let seeds = [seed("dns+seeds.test:7946"), seed("dnssrv+service.test")];

    server.fail("seeds.test", HOST);
    let never = resolver.resolve(&seeds, &[]).await;
    assert!(never.iter().all(|resolved| resolved.addrs.is_empty() && resolved.error.is_some()));

    server.repair();
    let known = resolver.resolve(&seeds, &never).await;
    assert_eq!(known[0].addrs, addrs(&["10.0.0.1:7946", "10.0.0.2:7946"]));
    assert_eq!(known[1].addrs, addrs(&["10.0.0.1:7000", "10.0.0.2:7000"]));
    assert!(known.iter().all(|resolved| resolved.error.is_none()));

    server.fail("seeds.test", HOST);
    server.fail("service.test", &[RecordType::SRV]);
    let kept = resolver.resolve(&seeds, &known).await;
    for (kept, known) in kept.iter().zip(&known) {
        assert_eq!((&kept.seed, &kept.addrs, kept.at), (&known.seed, &known.addrs, known.at));
        assert!(
            kept.error.as_ref().unwrap().ends_with("test.: the name server says: Server Failure"),
            "{kept:?}"
        );
    }
    // What was kept once is kept again.
    assert_eq!(resolver.resolve(&seeds, &kept).await, kept);

    server.repair();
    server.remove("seeds.test");
    let gone = resolver.resolve(&seeds, &kept).await;
    assert!(gone.iter().all(|resolved| resolved.addrs.is_empty() && resolved.error.is_none()), "{gone:?}");
    assert!(gone[0].at > known[0].at);
}

#[tokio::test]
async fn one_kind_of_address_is_enough() {
    let server = Server::start().await;
    server.set("seeds.test", [v4(1), v6(1)]);
    server.fail("seeds.test", &[RecordType::AAAA]);
    assert_eq!(good(&server.resolver(), "seeds.test").await, addrs(&["10.0.0.1:7946"]));
    server.repair();
    server.fail("seeds.test", &[RecordType::A]);
    assert_eq!(good(&server.resolver(), "seeds.test").await, addrs(&["[fd00::1]:7946"]));
    // But none of that kind is not.
    server.set("seeds.test", [v4(1)]);
    assert!(resolve_one(&server.resolver(), "seeds.test").await.error.is_some());
}

#[tokio::test]
async fn a_name_server_that_says_nothing_is_given_up() {
    let server = Server::start().await;
    server.set("seeds.test", [v4(1), v6(1)]);
    server.zone.lock().unwrap().silent.insert(("seeds.test.".to_owned(), RecordType::A));
    let resolver = Resolver { timeout: Duration::from_millis(300), ..server.resolver() };
    assert_eq!(good(&resolver, "seeds.test").await, addrs(&["[fd00::1]:7946"]));
    server.set("seeds.test", []);
    let resolved = resolve_one(&resolver, "seeds.test").await;
    assert_eq!(resolved.error.as_deref(), Some("A of seeds.test.: no answer in time"));
}

#[tokio::test]
async fn services_lead_to_hosts_with_their_ports() {
    let server = Server::start().await;
    server.set("a.test", [v4(1), v6(1)]);
    server.set("b.test", [v4(2)]);
    let services = [srv(7001, "a.test."), srv(7002, "b.test."), srv(7003, "nowhere.test."), srv(7004, ".")];
    server.set("_gossip._udp.test", services.into_iter().chain([srv(0, "b.test.")]));
    server.set("alias.test", [RData::CNAME(CNAME(name("_gossip._udp.test.")))]);
    let resolver = server.resolver();
    let all = addrs(&["10.0.0.1:7001", "10.0.0.2:7002", "[fd00::1]:7001"]);
    for text in ["dnssrv+_gossip._udp.test", "dnssrvnoa+_gossip._udp.test", "dnssrv+alias.test"] {
        assert_eq!(good(&resolver, text).await, all, "{text}");
    }
    let all = addrs(&["10.0.0.1:7000", "10.0.0.2:7000", "[fd00::1]:7000"]);
    assert_eq!(good(&resolver, "dnssrv+_gossip._udp.test:7000").await, all);

    // The others are found while one host fails.
    server.fail("a.test", HOST);
    let part = resolve_one(&resolver, "dnssrv+_gossip._udp.test").await;
    assert_eq!(part.addrs, addrs(&["10.0.0.2:7002"]));
    assert!(part.error.is_some());
}

#[tokio::test]
async fn a_large_service_comes_over_tcp_and_the_first_hosts_are_enough() {
    let server = Server::start().await;
    let few = u8::try_from(MAX_TARGETS).unwrap() + 5;
    for host in 0..few {
        server.set(&format!("{host}.test"), [v4(host)]);
    }
    // The host that is listed last has the best priority.
    let hosts = (0..few).map(|host| {
        let priority = u16::from(few - host);
        RData::SRV(SRV::new(priority, 0, 7000, name(&format!("{host}.test."))))
    });
    server.set("many.test", hosts);
    let some = resolve_one(&server.resolver(), "dnssrv+many.test").await;
    assert_eq!(some.error.as_deref(), Some("only 64 of 69 hosts are looked up"));
    let expected: Vec<SocketAddr> =
        (5..few).map(|host| SocketAddr::from((Ipv4Addr::new(10, 0, 0, host), 7000))).collect();
    assert_eq!(some.addrs, expected);
}

#[tokio::test]
async fn short_names_are_completed() {
    let server = Server::start().await;
    let servers = server.setup().config.name_servers().to_vec();
    let search = vec![name("a.test"), name("b.test")];
    let setup = |domain| Setup {
        config: ResolverConfig::from_parts(Some(name(domain)), search.clone(), servers.clone()),
        ..server.setup()
    };
    let resolver = with_setup(setup("not-asked.test"));
    server.set("seeds.b.test", [v4(2)]);
    server.set("seeds", [v4(3)]);
    server.set("x.seeds", [v4(4)]);
    assert_eq!(good(&resolver, "seeds").await, addrs(&["10.0.0.2:7946"]));
    assert_eq!(good(&resolver, "seeds.").await, addrs(&["10.0.0.3:7946"]));
    assert_eq!(good(&resolver, "x.seeds").await, addrs(&["10.0.0.4:7946"]));
    let asked: Vec<String> = server.asked().into_iter().map(|(name, _)| name).collect();
    let names = ["seeds.a.test.", "seeds.a.test.", "seeds.b.test.", "seeds.b.test."];
    assert_eq!(asked, [names.as_slice(), &["seeds.", "seeds.", "x.seeds.", "x.seeds."]].concat());

    // What failed is not forgotten when the rest does not exist.
    server.remove("seeds.b.test");
    server.remove("seeds");
    server.fail("seeds.a.test", HOST);
    let resolved = resolve_one(&resolver, "seeds").await;
    assert!(resolved.error.unwrap().contains("seeds.a.test."));

    // Without a list of domains, the own one is tried.
    let config = ResolverConfig::from_parts(Some(name("own.test")), Vec::new(), servers.clone());
    server.set("seeds.own.test", [v4(5)]);
    let resolver = with_setup(Setup { config, ..server.setup() });
    assert_eq!(good(&resolver, "seeds").await, addrs(&["10.0.0.5:7946"]));
}

#[tokio::test]
async fn the_hosts_file_goes_first_and_needs_no_name_server() {
    let server = Server::start().await;
    server.set("seeds.test", [v4(9), v6(9)]);
    server.set("service.test", [srv(7000, "seeds.test.")]);
    let mut hosts = Hosts::default();
    hosts.read_hosts_conf("10.0.0.1 seeds.test other\n127.0.0.2 localhost\n".as_bytes()).unwrap();
    let resolver = with_setup(Setup { hosts, ..server.setup() });
    assert_eq!(good(&resolver, "Seeds.test").await, addrs(&["10.0.0.1:7946"]));
    assert_eq!(good(&resolver, "localhost").await, addrs(&["127.0.0.2:7946"]));
    assert!(server.asked().is_empty());
    assert_eq!(good(&resolver, "dnssrv+service.test").await, addrs(&["10.0.0.1:7000"]));

    let mut hosts = Hosts::default();
    hosts.read_hosts_conf("fd00::1 seeds.test\n".as_bytes()).unwrap();
    let broken = Some("/etc/resolv.conf: gone".to_owned());
    let (config, options) = (ResolverConfig::new(), ResolverOpts::default());
    let resolver = with_setup(Setup { config, options, hosts, broken });
    assert_eq!(good(&resolver, "dns+seeds.test:7000").await, addrs(&["[fd00::1]:7000"]));
    // Every system knows this one.
    assert_eq!(good(&resolver, "localhost:7000").await, addrs(&["127.0.0.1:7000", "[::1]:7000"]));
    let resolved = resolve_one(&resolver, "dns+elsewhere.test:7000").await;
    assert_eq!(resolved.error.as_deref(), Some("A of elsewhere.test.: /etc/resolv.conf: gone"));
}

#[tokio::test]
async fn the_system_knows_its_own_address() {
    let found = good(&Resolver::new(), "localhost:7000").await;
    assert!(!found.is_empty() && found.iter().all(|addr| addr.ip().is_loopback()), "{found:?}");
}
