//! What becomes of watches and heartbeats when a real server fails, in every way that has been reported of the field.
//!
//! Three writers renew an entry each every second, the first of which also watches. After each fault all entries must be
//! fresh again in that watch within two heartbeats, and no entry may ever be missing meanwhile, unless the server forgot.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
#![expect(clippy::print_stderr, reason = "the figures of long runs")]
#![cfg(all(feature = "consul", feature = "etcd"))]

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use ringkit_config::{ConsulConfig, EtcdConfig, KvStore, KvStoreConfig, Layout};
use ringkit_kv::conformance::Counters;
use ringkit_kv::{Change, Client, Key, Precondition, Stores, Value as _};
use ringkit_runtime::{Clock, Meter};
use ringkit_testkit::{Consul, Etcd, Proxy, Signal, eventually, eventually_ok, http};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, sleep};

/// How fast writers beat, and so how soon all must be fresh again; how long the server is away.
#[derive(Clone, Copy)]
struct Pace {
    heartbeat: Duration,
    outage: Duration,
}

impl Pace {
    /// Two heartbeats, and what it takes to notice.
    fn back(self) -> Duration {
        2 * self.heartbeat + Duration::from_millis(500)
    }
}

const SCALED: Pace = Pace { heartbeat: Duration::from_secs(1), outage: Duration::from_secs(4) };
const REAL: Pace = Pace { heartbeat: Duration::from_secs(5), outage: Duration::from_secs(90) };
const WRITERS: usize = 3;
const KEY: &str = "ring";

fn consul(addr: SocketAddr, layout: Layout) -> KvStoreConfig {
    let consul = ConsulConfig { host: addr.to_string(), ..ConsulConfig::default() };
    KvStoreConfig { store: KvStore::Consul, layout, consul, ..KvStoreConfig::default() }
}

fn etcd(addrs: &[SocketAddr], layout: Layout) -> KvStoreConfig {
    let endpoints = addrs.iter().map(ToString::to_string).collect();
    let etcd = EtcdConfig { endpoints, dial_timeout: Duration::from_secs(2), ..EtcdConfig::default() };
    KvStoreConfig { store: KvStore::Etcd, layout, etcd, ..KvStoreConfig::default() }
}

/// Entries as a watch shows them: the millisecond, since the fleet's start, of each writer's last heartbeat.
type Seen = BTreeMap<String, u64>;

struct Fleet {
    started_at: Instant,
    seen: Arc<Mutex<Seen>>,
    /// The fewest entries that the watch showed since it first showed all.
    fewest: Arc<AtomicU64>,
    store: Arc<dyn ringkit_kv::Store>,
    _tasks: JoinSet<()>,
}

impl Fleet {
    fn start(config: &KvStoreConfig, pace: Pace) -> Self {
        let started_at = Instant::now();
        let (seen, fewest) = (Arc::new(Mutex::new(Seen::new())), Arc::new(AtomicU64::new(u64::MAX)));
        let mut tasks = JoinSet::new();
        // Each writer has stores of its own, as a process has.
        let stores: Vec<Stores> = (0..WRITERS).map(|_| Stores::new()).collect();
        let open =
            |stores: &Stores| stores.open(config, "test", &Meter::disabled(), &Clock::system()).unwrap();
        for (number, stores) in stores.iter().enumerate() {
            let client = Client::<Counters>::new(open(stores), &Meter::disabled());
            tasks.spawn(async move {
                let mut ticks = interval(pace.heartbeat);
                ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
                loop {
                    ticks.tick().await;
                    let now = u64::try_from(started_at.elapsed().as_millis()).unwrap();
                    let _ = client.upsert_own(KEY, &format!("writer-{number}"), &now).await;
                }
            });
        }
        let client = Client::<Counters>::new(open(&stores[0]), &Meter::disabled());
        let (shown, least) = (Arc::clone(&seen), Arc::clone(&fewest));
        tasks.spawn(async move {
            let mut watch = client.watch(KEY).await.unwrap();
            let mut complete = false;
            while let Some(update) = watch.next().await {
                let value = update.value.unwrap_or_default();
                let now: Seen = value.entries().iter().map(|(id, count)| (id.to_string(), **count)).collect();
                complete |= now.len() == WRITERS;
                if complete {
                    least.fetch_min(now.len() as u64, Ordering::SeqCst);
                }
                *shown.lock() = now;
            }
        });
        Self { started_at, seen, fewest, store: open(&stores[0]), _tasks: tasks }
    }

    /// Waits until every entry was renewed after this call.
    async fn fresh_within(&self, within: Duration) {
        let since = u64::try_from(self.started_at.elapsed().as_millis()).unwrap();
        let fresh = || async {
            let seen = self.seen.lock().clone();
            let all = seen.len() == WRITERS && seen.values().all(|at| *at >= since);
            if all { Ok(()) } else { Err(format!("since {since} ms: {seen:?}")) }
        };
        eventually_ok(within, fresh).await.unwrap();
    }

    fn in_trouble(&self) -> bool {
        self.store.trouble().borrow().is_some()
    }

    fn assert_nobody_was_missing(&self) {
        assert_eq!(self.fewest.load(Ordering::SeqCst), WRITERS as u64, "an entry was missing for a while");
    }
}

const START: Duration = Duration::from_secs(20);
/// Requests or connections per second, of all three writers together, that are no storm.
const CALM: f64 = 40.0;

async fn layouts<F: Future<Output = ()>>(test: impl Fn(Layout) -> F) {
    tokio::join!(test(Layout::Single), test(Layout::PerInstance));
}

/// Every fault as a test with scaled values, and as a soak with real ones.
macro_rules! paced {
    ($($fault:ident,)*) => {
        mod scaled {
            $(
                #[tokio::test(flavor = "multi_thread")]
                async fn $fault() {
                    super::$fault(super::SCALED).await;
                }
            )*
        }
        mod soak {
            $(
                #[tokio::test(flavor = "multi_thread")]
                #[ignore = "soak"]
                async fn $fault() {
                    super::$fault(super::REAL).await;
                }
            )*
        }
    };
}

paced!(
    consul_killed_and_back_with_its_data_and_then_without,
    etcd_killed_and_back_with_its_data_and_then_without,
    servers_that_hang_for_a_while,
    servers_that_refuse_connections_at_first,
    connections_cut_under_a_watch,
    consul_answers_500,
    consul_answers_429_and_how_long_to_wait,
    etcd_compacted_while_a_watch_was_behind,
    etcd_loses_its_leader,
    an_etcd_that_falls_silent_is_noticed,
);

/// Lets `outage` pass and asserts that nobody storms the server through `proxy` meanwhile.
async fn calm(proxy: &Proxy, outage: Duration) {
    let before = proxy.num_accepted();
    sleep(outage).await;
    let per_second = (proxy.num_accepted() - before) as f64 / outage.as_secs_f64();
    assert!(per_second < CALM, "{per_second} connections per second");
}

async fn consul_killed_and_back_with_its_data_and_then_without(pace: Pace) {
    layouts(|layout| async move {
        let mut server = Consul::start().await.unwrap();
        let proxy = Proxy::start(server.addr()).await.unwrap();
        let fleet = Fleet::start(&consul(proxy.addr(), layout), pace);
        fleet.fresh_within(START).await;
        server.kill().unwrap();
        calm(&proxy, pace.outage).await;
        assert!(fleet.in_trouble());
        server.start_again().await.unwrap();
        fleet.fresh_within(pace.back()).await;
        fleet.assert_nobody_was_missing();
        assert!(!fleet.in_trouble());

        server.kill().unwrap();
        server.wipe().unwrap();
        sleep(Duration::from_secs(2)).await;
        server.start_again().await.unwrap();
        fleet.fresh_within(pace.back()).await;
    })
    .await;
}

async fn etcd_killed_and_back_with_its_data_and_then_without(pace: Pace) {
    layouts(|layout| async move {
        let mut server = Etcd::start().await.unwrap();
        let proxy = Proxy::start(server.addr()).await.unwrap();
        let fleet = Fleet::start(&etcd(&[proxy.addr()], layout), pace);
        fleet.fresh_within(START).await;
        server.kill(0).unwrap();
        calm(&proxy, pace.outage).await;
        assert!(fleet.in_trouble());
        server.start_again(0).await.unwrap();
        fleet.fresh_within(pace.back()).await;
        fleet.assert_nobody_was_missing();
        assert!(!fleet.in_trouble());

        server.kill(0).unwrap();
        server.wipe(0).unwrap();
        sleep(Duration::from_secs(2)).await;
        server.start_again(0).await.unwrap();
        fleet.fresh_within(pace.back()).await;
    })
    .await;
}

async fn servers_that_hang_for_a_while(pace: Pace) {
    let (mut a, mut b) = (Consul::start().await.unwrap(), Etcd::start().await.unwrap());
    let on_consul = Fleet::start(&consul(a.addr(), Layout::Single), pace);
    let on_etcd = Fleet::start(&etcd(&[b.addr()], Layout::Single), pace);
    on_consul.fresh_within(START).await;
    on_etcd.fresh_within(START).await;
    a.process().signal(Signal::Pause).unwrap();
    b.process(0).signal(Signal::Pause).unwrap();
    sleep(3 * pace.outage.min(Duration::from_secs(30))).await;
    a.process().signal(Signal::Resume).unwrap();
    b.process(0).signal(Signal::Resume).unwrap();
    // A server that was stopped for long elects itself anew first.
    a.wait_ready().await.unwrap();
    b.wait_ready().await.unwrap();
    on_consul.fresh_within(pace.back()).await;
    on_etcd.fresh_within(pace.back()).await;
    on_consul.assert_nobody_was_missing();
    on_etcd.assert_nobody_was_missing();
}

async fn servers_that_refuse_connections_at_first(pace: Pace) {
    let (mut a, mut b) = (Consul::start().await.unwrap(), Etcd::start().await.unwrap());
    a.kill().unwrap();
    b.kill(0).unwrap();
    let on_consul = Fleet::start(&consul(a.addr(), Layout::Single), pace);
    let on_etcd = Fleet::start(&etcd(&[b.addr()], Layout::PerInstance), pace);
    eventually(START, || async { on_consul.in_trouble() && on_etcd.in_trouble() }).await.unwrap();
    a.start_again().await.unwrap();
    on_consul.fresh_within(pace.back()).await;
    b.start_again(0).await.unwrap();
    on_etcd.fresh_within(pace.back()).await;
}

async fn connections_cut_under_a_watch(pace: Pace) {
    let (a, b) = (Consul::start().await.unwrap(), Etcd::start().await.unwrap());
    let (to_a, to_b) = (Proxy::start(a.addr()).await.unwrap(), Proxy::start(b.addr()).await.unwrap());
    let on_consul = Fleet::start(&consul(to_a.addr(), Layout::Single), pace);
    let on_etcd = Fleet::start(&etcd(&[to_b.addr()], Layout::Single), pace);
    for _ in 0..3 {
        on_consul.fresh_within(START).await;
        on_etcd.fresh_within(START).await;
        to_a.cut();
        to_b.cut();
        tokio::join!(calm(&to_a, pace.outage), calm(&to_b, pace.outage));
        to_a.restore();
        to_b.restore();
        tokio::join!(on_consul.fresh_within(pace.back()), on_etcd.fresh_within(pace.back()));
    }
    on_consul.assert_nobody_was_missing();
    on_etcd.assert_nobody_was_missing();
}

/// Answers requests itself with `answer` while `failing`, else passes them on.
async fn http_faults(
    target: SocketAddr,
    answer: &'static [u8],
    failing: Arc<AtomicBool>,
    requests: Arc<AtomicU64>,
) -> (SocketAddr, JoinSet<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        let mut connections = JoinSet::new();
        while let Ok((mut client, _)) = listener.accept().await {
            let (failing, requests) = (Arc::clone(&failing), Arc::clone(&requests));
            connections.spawn(async move {
                let mut buffer = vec![0; 64 << 10];
                if failing.load(Ordering::SeqCst) {
                    let _ = client.read(&mut buffer).await;
                    requests.fetch_add(1, Ordering::SeqCst);
                    let _ = client.write_all(answer).await;
                    return;
                }
                let Ok(mut server) = TcpStream::connect(target).await else { return };
                let copy = tokio::io::copy_bidirectional(&mut client, &mut server);
                let fails = async {
                    while !failing.load(Ordering::SeqCst) {
                        sleep(Duration::from_millis(20)).await;
                    }
                };
                tokio::select! { _ = copy => (), () = fails => () }
            });
        }
    });
    (addr, tasks)
}

async fn answers_of_errors(answer: &'static [u8], pace: Pace) {
    let server = Consul::start().await.unwrap();
    let (failing, requests) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let (addr, _tasks) =
        http_faults(server.addr(), answer, Arc::clone(&failing), Arc::clone(&requests)).await;
    let fleet = Fleet::start(&consul(addr, Layout::Single), pace);
    fleet.fresh_within(START).await;
    failing.store(true, Ordering::SeqCst);
    sleep(pace.outage).await;
    let per_second = requests.load(Ordering::SeqCst) as f64 / pace.outage.as_secs_f64();
    assert!(per_second > 0.0 && per_second < CALM, "{per_second} requests per second");
    assert!(fleet.in_trouble());
    failing.store(false, Ordering::SeqCst);
    fleet.fresh_within(pace.back() + Duration::from_secs(1)).await;
    fleet.assert_nobody_was_missing();
}

async fn consul_answers_500(pace: Pace) {
    answers_of_errors(
        b"HTTP/1.1 500 Internal Server Error\r\ncontent-length: 9\r\nconnection: close\r\n\r\nNo leader",
        pace,
    )
    .await;
}

async fn consul_answers_429_and_how_long_to_wait(pace: Pace) {
    answers_of_errors(
        b"HTTP/1.1 429 Too Many Requests\r\nretry-after: 1\r\ncontent-length: 0\r\nconnection: close\r\n\r\n",
        pace,
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn hostile_answers_are_errors_and_no_panic() {
    let answers: [&'static [u8]; 6] = [
        b"HTTP/1.1 200 OK\r\nx-consul-index: \xff\xfe\r\nretry-after: \xe9\r\ncontent-length: 2\r\nconnection: close\r\n\r\n[]",
        b"HTTP/1.1 200 OK\r\nx-consul-index: 99999999999999999999999\r\ncontent-length: 4\r\nconnection: close\r\n\r\n{\"a\"",
        b"HTTP/1.1 200 OK\r\nx-consul-index: -1\r\ncontent-length: 60\r\nconnection: close\r\n\r\n[{\"Key\":\"collectors/ring\",\"Value\":\"@@@@\",\"ModifyIndex\":1}]   ",
        b"HTTP/1.1 429 \xff\xff\r\nretry-after: \xff\r\ncontent-length: 0\r\nconnection: close\r\n\r\n",
        b"\xff\xfe\xfd\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nshort",
    ];
    for answer in answers {
        let failing = Arc::new(AtomicBool::new(true));
        let unused = SocketAddr::from(([127, 0, 0, 1], 1));
        let (addr, _tasks) = http_faults(unused, answer, failing, Arc::default()).await;
        let store = Stores::new()
            .open(&consul(addr, Layout::Single), "test", &Meter::disabled(), &Clock::system())
            .unwrap();
        let client = Client::<Counters>::new(store, &Meter::disabled())
            .with_deadlines(Duration::from_secs(2), Duration::from_secs(2));
        let _ = client.get(KEY).await;
        let mut watch = client.watch(KEY).await.unwrap();
        let _ = tokio::time::timeout(Duration::from_millis(300), watch.next()).await;
        assert!(client.upsert_own(KEY, "a", &1).await.is_err());
    }
}

async fn etcd_compacted_while_a_watch_was_behind(pace: Pace) {
    layouts(|layout| async move {
        let server = Etcd::start().await.unwrap();
        let proxy = Proxy::start(server.addr()).await.unwrap();
        let behind = Fleet::start(&etcd(&[proxy.addr()], layout), pace);
        behind.fresh_within(START).await;
        proxy.cut();
        // Somebody else writes on, and what lies between is compacted away.
        let other = Stores::new()
            .open(&etcd(&[server.addr()], layout), "other", &Meter::disabled(), &Clock::system())
            .unwrap();
        let other = Client::<Counters>::new(other, &Meter::disabled());
        for count in 0..20 {
            other.upsert_own("else", "x", &count).await.unwrap();
        }
        let status = http::post(server.addr(), "/v3/kv/range", &[], br#"{"key":"eA=="}"#).await.unwrap();
        let text = status.text();
        let revision = text.split("\"revision\":\"").nth(1).unwrap().split('"').next().unwrap();
        let body = format!("{{\"revision\":\"{revision}\",\"physical\":true}}");
        let done = http::post(server.addr(), "/v3/kv/compaction", &[], body.as_bytes()).await.unwrap();
        assert_eq!(done.status, 200, "{}", done.text());
        proxy.restore();
        behind.fresh_within(pace.back()).await;
        behind.assert_nobody_was_missing();
    })
    .await;
}

async fn etcd_loses_its_leader(pace: Pace) {
    let mut servers = Etcd::start_with(3, &[]).await.unwrap();
    let addrs: Vec<SocketAddr> = servers.addrs();
    let fleet = Fleet::start(&etcd(&addrs, Layout::Single), pace);
    fleet.fresh_within(START).await;
    let leader = servers.leader().await.unwrap();
    servers.kill(leader).unwrap();
    let next = || async { servers.leader().await.is_some_and(|now| now != leader) };
    eventually(START, next).await.unwrap();
    // What was under way when the leader died is asked again after three seconds, which is within two real heartbeats.
    fleet.fresh_within(pace.back() + Duration::from_secs(3)).await;
    fleet.assert_nobody_was_missing();
    servers.start_again(leader).await.unwrap();
    servers.wait_ready().await.unwrap();
    fleet.fresh_within(pace.back()).await;
}

async fn an_etcd_that_falls_silent_is_noticed(pace: Pace) {
    let server = Etcd::start().await.unwrap();
    let proxy = Proxy::start(server.addr()).await.unwrap();
    let fleet = Fleet::start(&etcd(&[proxy.addr()], Layout::Single), pace);
    fleet.fresh_within(START).await;
    // Connections stay open, no byte passes: as when a firewall forgets them.
    proxy.pause();
    eventually(Duration::from_secs(15), || async { fleet.in_trouble() }).await.unwrap();
    proxy.cut();
    proxy.restore();
    fleet.fresh_within(pace.back()).await;
    fleet.assert_nobody_was_missing();
}

#[tokio::test(flavor = "multi_thread")]
async fn no_task_outlives_its_watch() {
    let (a, b) = (Consul::start().await.unwrap(), Etcd::start().await.unwrap());
    let alive = || tokio::runtime::Handle::current().metrics().num_alive_tasks();
    let before = alive();
    for _ in 0..5 {
        let on_consul = Fleet::start(&consul(a.addr(), Layout::Single), SCALED);
        let on_etcd = Fleet::start(&etcd(&[b.addr()], Layout::PerInstance), SCALED);
        tokio::join!(on_consul.fresh_within(START), on_etcd.fresh_within(START));
    }
    eventually_ok(Duration::from_secs(10), || async {
        let now = alive();
        if now <= before + 2 { Ok(()) } else { Err(format!("{before} tasks before, {now} after")) }
    })
    .await
    .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_join_in_the_same_instant_and_none_fails() {
    let (a, b) = (Consul::start().await.unwrap(), Etcd::start().await.unwrap());
    for layout in [Layout::Single, Layout::PerInstance] {
        for config in [consul(a.addr(), layout), etcd(&[b.addr()], layout)] {
            let mut joining = JoinSet::new();
            for number in 0..100 {
                let store =
                    Stores::new().open(&config, "test", &Meter::disabled(), &Clock::system()).unwrap();
                let client = Client::<Counters>::new(store, &Meter::disabled());
                let key = format!("hundred-{layout}");
                joining.spawn(
                    async move { client.upsert_own(&key, &format!("i-{number}"), &1).await.map(drop) },
                );
            }
            for joined in joining.join_all().await {
                joined.unwrap();
            }
            let store = Stores::new().open(&config, "test", &Meter::disabled(), &Clock::system()).unwrap();
            let client = Client::<Counters>::new(store, &Meter::disabled());
            let view = client.get(&format!("hundred-{layout}")).await.unwrap().unwrap();
            assert_eq!(view.value.entries().len(), 100);
        }
    }
}

/// A Consul that takes more than 200 connections from one address: here that address stands for 300 hosts.
async fn roomy_consul() -> Consul {
    Consul::start_with("limits { http_max_conns_per_client = 2000 }").await.unwrap()
}

/// `number` instances renew an entry as large as one with 128 tokens every five seconds, spread evenly, for half a minute.
async fn heartbeats(config: impl Fn(SocketAddr) -> KvStoreConfig, server: SocketAddr, number: u32) {
    const PERIOD: Duration = Duration::from_secs(5);
    const ROUNDS: u32 = 6;
    let proxy = Proxy::start(server).await.unwrap();
    let config = config(proxy.addr());
    let key = Key::new(format!("many-{}", config.layout), Counters::codec());
    let mut beating = JoinSet::new();
    for instance in 0..number {
        let store = Stores::new().open(&config, "test", &Meter::disabled(), &Clock::system()).unwrap();
        let key = key.clone();
        beating.spawn(async move {
            sleep(PERIOD * instance / number).await;
            let (mut failed, mut slowest) = (0_u32, Duration::ZERO);
            let mut ticks = interval(PERIOD);
            for _ in 0..ROUNDS {
                ticks.tick().await;
                let started_at = Instant::now();
                let entry: Vec<u8> = (0..175).flat_map(|_| rand::random::<[u8; 4]>()).collect();
                let change = Change::upsert(format!("instance-{instance}"), entry);
                let written = store.apply(&key, change, Precondition::None);
                failed += u32::from(!matches!(tokio::time::timeout(PERIOD, written).await, Ok(Ok(_))));
                slowest = slowest.max(started_at.elapsed());
            }
            (failed, slowest)
        });
    }
    let started_at = Instant::now();
    let beaten = beating.join_all().await;
    let secs = started_at.elapsed().as_secs_f64();
    let failed: u32 = beaten.iter().map(|(failed, _)| failed).sum();
    let slowest = beaten.iter().map(|(_, slowest)| *slowest).max().unwrap_or_default();
    let (of, rate) = (number * ROUNDS, proxy.num_bytes() as f64 / secs / 1e6);
    eprintln!(
        "{} {}: {failed} of {of} heartbeats failed, {rate:.2} MB/s, slowest {slowest:.1?}",
        config.store, config.layout
    );
    assert_eq!(failed, 0);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "soak"]
async fn soak_300_heartbeat_with_a_key_each() {
    let (a, b) = (roomy_consul().await, Etcd::start().await.unwrap());
    heartbeats(|addr| consul(addr, Layout::PerInstance), a.addr(), 300).await;
    heartbeats(|addr| etcd(&[addr], Layout::PerInstance), b.addr(), 300).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "soak"]
async fn soak_300_heartbeat_in_one_value_on_consul() {
    let server = roomy_consul().await;
    heartbeats(|addr| consul(addr, Layout::Single), server.addr(), 300).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "soak"]
async fn soak_300_heartbeat_in_one_value_on_etcd() {
    let server = Etcd::start().await.unwrap();
    heartbeats(|addr| etcd(&[addr], Layout::Single), server.addr(), 300).await;
}
