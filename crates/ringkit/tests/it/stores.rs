//! Every role as a process of its own, on a real Consul and a real etcd, while the store fails in every way.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ringkit_config::{ConsulConfig, EtcdConfig, KvStore, KvStoreConfig, Layout};
use ringkit_kv::{Change, Client, Key, Precondition, Stores, Value};
use ringkit_ring::Desc;
use ringkit_runtime::{Clock, Meter};
use ringkit_testkit::{Consul, Etcd, Process, ProcessBuilder, Proxy, Signal, eventually_ok, http};
use tokio::time::sleep;

use crate::loading::Loading;

pub(crate) const SOON: Duration = Duration::from_secs(30);

/// How fast instances live and how long the store is away: once for longer than after which heartbeats are stale.
#[derive(Clone, Copy)]
pub(crate) struct Pace {
    pub(crate) heartbeat: Duration,
    pub(crate) timeout: Duration,
    /// The store is dead, or cannot be reached.
    pub(crate) outage: Duration,
    /// The store hangs.
    pub(crate) hang: Duration,
}

pub(crate) const SCALED: Pace = Pace {
    heartbeat: Duration::from_secs(1),
    timeout: Duration::from_secs(12),
    outage: Duration::from_secs(3),
    hang: Duration::from_secs(16),
};
pub(crate) const REAL: Pace = Pace {
    heartbeat: Duration::from_secs(5),
    timeout: Duration::from_secs(60),
    outage: Duration::from_secs(60),
    hang: Duration::from_secs(90),
};

/// A program of the workspace, which was built together with this test.
pub(crate) fn program(name: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_BIN_EXE_ringkit")).with_file_name(name);
    assert!(path.exists(), "there is no {}: run `cargo build --workspace --bins --tests`", path.display());
    path
}

/// A process of one role and where it serves HTTP.
pub(crate) struct Member {
    pub(crate) process: Process,
    pub(crate) addr: SocketAddr,
    pub(crate) grpc: SocketAddr,
}

impl Member {
    pub(crate) async fn start(dir: &Path, target: &str, name: &str, flags: &[String]) -> Self {
        let builder = ProcessBuilder::new(name, program(target));
        Self::launch(builder, dir, &[&crate::gossip::flags(dir, name), flags].concat()).await
    }

    /// A process of the program that `builder` runs.
    pub(crate) async fn launch(builder: ProcessBuilder, dir: &Path, flags: &[String]) -> Self {
        let config = format!("-config.file={}", dir.join("config.yaml").display());
        let mut process = builder.arg(config).args(flags).dir(dir).start().unwrap();
        let line = process.wait_for_output("http=", SOON).await.unwrap();
        let addr = |name: &str| {
            let addr = line.split(name).nth(1).unwrap().split_whitespace().next().unwrap();
            addr.trim_matches('"').parse().unwrap()
        };
        Self { process, addr: addr("http="), grpc: addr("grpc=") }
    }

    pub(crate) async fn ingester(dir: &Path, number: usize) -> Self {
        Self::start(dir, "ingester", &format!("ingester-{number}"), &Self::ingester_flags(dir, number)).await
    }

    pub(crate) fn ingester_flags(dir: &Path, number: usize) -> [String; 3] {
        let name = format!("ingester-{number}");
        [
            format!("-ingester.lifecycler.ID={name}"),
            format!("-blocks-storage.tsdb.dir={}", dir.join(&name).display()),
            format!("-ingester.tokens-file-path={}", dir.join(format!("{name}.tokens")).display()),
        ]
    }

    pub(crate) async fn ready(&mut self) {
        let addr = self.addr;
        let ready = || async move {
            match http::get(addr, "/ready").await {
                Ok(answer) if answer.status == 200 => Ok(()),
                Ok(answer) => Err(answer.text()),
                Err(error) => Err(error.to_string()),
            }
        };
        let ready = eventually_ok(SOON, ready).await;
        ready.unwrap_or_else(|error| panic!("{error}\n{}", self.process.last_output()));
    }

    /// The ring of ingesters as this process sees it: id, state, tokens.
    pub(crate) async fn ring(&self) -> Vec<(String, String, serde_json::Value)> {
        let accept = [("accept", "application/json")];
        let page = http::request(self.addr, "GET", "/ingester/ring", &accept, b"").await.unwrap();
        let page: serde_json::Value = serde_json::from_slice(&page.body).unwrap();
        let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
        let shards = page["shards"].as_array().cloned().unwrap_or_default();
        shards.iter().map(|s| (text(&s["id"]), text(&s["state"]), s["tokens"].clone())).collect()
    }

    /// The addresses in the ring of ingesters as this process sees it.
    pub(crate) async fn addresses(&self) -> Vec<String> {
        let accept = [("accept", "application/json")];
        let page = http::request(self.addr, "GET", "/ingester/ring", &accept, b"").await.unwrap();
        let page: serde_json::Value = serde_json::from_slice(&page.body).unwrap();
        let shards = page["shards"].as_array().cloned().unwrap_or_default();
        shards.iter().map(|shard| shard["address"].as_str().unwrap_or_default().to_owned()).collect()
    }

    pub(crate) async fn sees(&self, id: &str, active: bool, within: Duration) {
        let seen = || async {
            let ring = self.ring().await;
            let state = ring.iter().find(|shard| shard.0 == id).map(|shard| shard.1.clone());
            if (state.as_deref() == Some("ACTIVE")) == active {
                Ok(())
            } else {
                Err(format!("{id} is {state:?}"))
            }
        };
        eventually_ok(within, seen).await.unwrap();
    }
}

pub(crate) fn write_config(dir: &Path, store: &str, kvstore: &str, pace: Pace) {
    let beats = format!(
        "heartbeat_period: {}s, heartbeat_timeout: {}s",
        pace.heartbeat.as_secs(),
        pace.timeout.as_secs()
    );
    let text = format!(
        "auth_enabled: false\n\
         ring: {{store: {store}, kvstore: {{{kvstore}}}}}\n\
         server: {{http_listen_address: 127.0.0.1, http_listen_port: 0, grpc_listen_address: 127.0.0.1, grpc_listen_port: 0}}\n\
         limits: {{ingestion_rate: 1e7, ingestion_burst_size: 10000000}}\n\
         distributor: {{shard_by_all_labels: true, ring: {{instance_addr: 127.0.0.1, {beats}}}}}\n\
         store_gateway: {{sharding_enabled: true, sharding_ring: {{instance_addr: 127.0.0.1, {beats}, wait_stability_min_duration: 0s}}}}\n\
         ingester: {{lifecycler: {{address: 127.0.0.1, min_ready_duration: 0s, final_sleep: 0s, heartbeat_period: {}s, \
         ring: {{replication_factor: 3, heartbeat_timeout: {}s}}}}}}\n",
        pace.heartbeat.as_secs(),
        pace.timeout.as_secs(),
    );
    std::fs::write(dir.join("config.yaml"), text).unwrap();
}

/// A server and the ways in which it fails.
trait Server {
    fn kill(&mut self);
    fn wipe(&mut self);
    async fn start_again(&mut self);
    fn signal(&mut self, signal: Signal);
    async fn ready(&mut self);
}

impl Server for Consul {
    fn kill(&mut self) {
        Consul::kill(self).unwrap();
    }
    fn wipe(&mut self) {
        Consul::wipe(self).unwrap();
    }
    async fn start_again(&mut self) {
        Consul::start_again(self).await.unwrap();
    }
    fn signal(&mut self, signal: Signal) {
        self.process().signal(signal).unwrap();
    }
    async fn ready(&mut self) {
        self.wait_ready().await.unwrap();
    }
}

impl Server for Etcd {
    fn kill(&mut self) {
        Etcd::kill(self, 0).unwrap();
    }
    fn wipe(&mut self) {
        Etcd::wipe(self, 0).unwrap();
    }
    async fn start_again(&mut self) {
        Etcd::start_again(self, 0).await.unwrap();
    }
    fn signal(&mut self, signal: Signal) {
        self.process(0).signal(signal).unwrap();
    }
    async fn ready(&mut self) {
        self.wait_ready().await.unwrap();
    }
}

/// A distributor, a store-gateway and three ingesters, each a process.
pub(crate) struct Fleet {
    pub(crate) distributor: Member,
    pub(crate) gateway: Member,
    pub(crate) ingesters: [Member; 3],
    pub(crate) pace: Pace,
}

impl Fleet {
    pub(crate) async fn start(dir: &Path, pace: Pace) -> Self {
        // All at once.
        let (distributor, gateway, a, b, c) = tokio::join!(
            Member::start(dir, "distributor", "distributor", &[]),
            Member::start(dir, "store-gateway", "store-gateway", &[]),
            Member::ingester(dir, 1),
            Member::ingester(dir, 2),
            Member::ingester(dir, 3),
        );
        let mut fleet = Self { distributor, gateway, ingesters: [a, b, c], pace };
        fleet.is_ready().await;
        fleet.sees_all().await;
        fleet
    }

    pub(crate) async fn is_ready(&mut self) {
        for member in self.ingesters.iter_mut().chain([&mut self.distributor, &mut self.gateway]) {
            member.ready().await;
        }
    }

    pub(crate) async fn sees_all(&self) {
        for number in 1..=3 {
            self.distributor.sees(&format!("ingester-{number}"), true, SOON).await;
        }
    }

    /// While the store is away, everybody serves what was last known and says on `/ready` what is the matter.
    async fn goes_on_without(&self, store: &str) {
        for member in self.ingesters.iter().chain([&self.distributor]) {
            let tells = || async {
                let answer = http::get(member.addr, "/ready").await.unwrap();
                let text = answer.text();
                assert_eq!(answer.status, 200, "not ready during an outage: {text}");
                if text.contains(&format!("`{store}` has not answered")) { Ok(()) } else { Err(text) }
            };
            eventually_ok(SOON, tells).await.unwrap();
        }
        let ring = self.distributor.ring().await;
        assert!(ring.len() == 3 && ring.iter().all(|shard| shard.1 == "ACTIVE"), "{ring:?}");
    }

    /// Two heartbeats after the store is back, every instance is fresh in it, and nobody complains any more.
    async fn is_back(&mut self, stored: &Client<Desc>, store: &str) {
        let since = Clock::system().now_secs();
        // Timestamps have whole seconds; a heartbeat that waits out its back-off comes up to a second late.
        let fresh = || async {
            let view = stored.get("ring").await.map_err(|error| error.to_string())?.ok_or("no ring")?;
            let entries = view.value.entries();
            let late: Vec<_> = entries.iter().filter(|(_, entry)| entry.timestamp < since).collect();
            if entries.len() == 3 && late.is_empty() {
                Ok(())
            } else {
                Err(format!("since {since}: {entries:?}"))
            }
        };
        let within = 2 * self.pace.heartbeat + Duration::from_millis(1500);
        eventually_ok(within, fresh).await.unwrap();
        self.sees_all().await;
        self.is_ready().await;
        let clear = || async {
            let text = http::get(self.distributor.addr, "/ready").await.unwrap().text();
            if text.contains(store) { Err(text) } else { Ok(()) }
        };
        eventually_ok(SOON, clear).await.unwrap();
    }
}

/// Under load, one ingester of three is killed and comes back; then the store fails in every way, one after the other.
async fn survives(dir: &Path, mut server: impl Server, proxy: &Proxy, stored: KvStoreConfig, pace: Pace) {
    let name = stored.store.to_string();
    let stored = Stores::new().client::<Desc>(&stored, "test", &Meter::disabled(), &Clock::system()).unwrap();
    let mut fleet = Fleet::start(dir, pace).await;
    let tokens = |ring: &[(String, String, serde_json::Value)]| {
        let mut tokens: Vec<_> = ring.iter().map(|shard| (shard.0.clone(), shard.2.to_string())).collect();
        tokens.sort();
        tokens
    };
    let before = tokens(&fleet.distributor.ring().await);
    let loading = Loading::start(fleet.distributor.addr);

    fleet.ingesters[1].process.kill().unwrap();
    fleet.distributor.sees("ingester-2", false, pace.timeout + Duration::from_secs(4)).await;
    fleet.ingesters[1] = Member::ingester(dir, 2).await;
    fleet.ingesters[1].ready().await;
    fleet.sees_all().await;

    for wiped in [false, true] {
        server.kill();
        if wiped {
            server.wipe();
        }
        let outage = sleep(pace.outage);
        fleet.goes_on_without(&name).await;
        outage.await;
        server.start_again().await;
        fleet.is_back(&stored, &name).await;
    }
    server.signal(Signal::Pause);
    let hang = sleep(pace.hang);
    if pace.hang > Duration::from_secs(30) {
        fleet.goes_on_without(&name).await;
    }
    hang.await;
    server.signal(Signal::Resume);
    server.ready().await;
    fleet.is_back(&stored, &name).await;
    for _ in 0..2 {
        proxy.cut();
        let outage = sleep(pace.outage);
        fleet.goes_on_without(&name).await;
        outage.await;
        proxy.restore();
        fleet.is_back(&stored, &name).await;
    }

    assert_eq!(tokens(&fleet.distributor.ring().await), before, "somebody came back with other tokens");
    loading.lost_nothing().await;
}

async fn survives_on_consul(layout: Layout, pace: Pace) {
    let dir = tempfile::tempdir().unwrap();
    let server = Consul::start().await.unwrap();
    let (addr, proxy) = (server.addr(), Proxy::start(server.addr()).await.unwrap());
    let kvstore = format!("layout: {layout}, consul: {{host: '{}'}}", proxy.addr());
    write_config(dir.path(), "consul", &kvstore, pace);
    survives(dir.path(), server, &proxy, config(KvStore::Consul, addr, layout), pace).await;
}

async fn survives_on_etcd(layout: Layout, pace: Pace) {
    let dir = tempfile::tempdir().unwrap();
    let server = Etcd::start().await.unwrap();
    let (addr, proxy) = (server.addr(), Proxy::start(server.addr()).await.unwrap());
    let kvstore = format!("layout: {layout}, etcd: {{endpoints: ['{}'], dial_timeout: 2s}}", proxy.addr());
    write_config(dir.path(), "etcd", &kvstore, pace);
    survives(dir.path(), server, &proxy, config(KvStore::Etcd, addr, layout), pace).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn processes_on_consul_survive_a_killed_ingester_and_what_consul_does() {
    survives_on_consul(Layout::Single, SCALED).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn processes_on_etcd_survive_a_killed_ingester_and_what_etcd_does() {
    survives_on_etcd(Layout::PerInstance, SCALED).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "soak"]
async fn soak_processes_on_both_stores_in_both_layouts() {
    for layout in [Layout::Single, Layout::PerInstance] {
        tokio::join!(survives_on_consul(layout, REAL), survives_on_etcd(layout, REAL));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_rings_are_under_the_keys_of_cortex() {
    let dir = tempfile::tempdir().unwrap();
    let server = Consul::start().await.unwrap();
    write_config(dir.path(), "consul", &format!("consul: {{host: '{}'}}", server.addr()), SCALED);
    let _fleet = Fleet::start(dir.path(), SCALED).await;
    let keys = http::get(server.addr(), "/v1/kv/collectors/?keys").await.unwrap().text();
    for key in ["collectors/ring", "collectors/distributor", "collectors/store-gateway"] {
        assert!(keys.contains(&format!("\"{key}\"")), "{keys}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn processes_that_start_before_their_store_wait_for_it_and_say_so() {
    let dir = tempfile::tempdir().unwrap();
    let mut server = Consul::start().await.unwrap();
    server.kill().unwrap();
    write_config(dir.path(), "consul", &format!("consul: {{host: '{}'}}", server.addr()), SCALED);
    let mut ingester = Member::ingester(dir.path(), 1).await;
    let mut distributor = Member::start(dir.path(), "distributor", "distributor", &[]).await;
    for member in [&ingester, &distributor] {
        let answer = http::get(member.addr, "/ready").await.unwrap();
        assert_ne!(answer.status, 200, "{}", answer.text());
    }
    server.start_again().await.unwrap();
    ingester.ready().await;
    distributor.ready().await;
    distributor.sees("ingester-1", true, SOON).await;
}

pub(crate) fn config(store: KvStore, addr: SocketAddr, layout: Layout) -> KvStoreConfig {
    KvStoreConfig {
        store,
        layout,
        consul: ConsulConfig { host: addr.to_string(), ..ConsulConfig::default() },
        etcd: EtcdConfig { endpoints: vec![addr.to_string()], ..EtcdConfig::default() },
        ..KvStoreConfig::default()
    }
}

/// The value that Cortex wrote in the recorded exchange.
pub(crate) fn written_by_go() -> Vec<u8> {
    let recorded: serde_json::Value =
        serde_json::from_str(include_str!("../../../kv/tests/vectors/consul_wire.json")).unwrap();
    let hex = recorded["cas_after_consul_restarted_empty"][3]["request_body_hex"].as_str().unwrap();
    hex.as_bytes()
        .chunks(2)
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap())
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ring_written_by_go_is_read_and_keeps_what_is_unknown_of_it() {
    let server = Consul::start().await.unwrap();
    let codec = Desc::codec();
    let mut entries = codec.split(&written_by_go()).unwrap();
    // A later version of Cortex may have fields that are not known here: number 99, a varint.
    let entry = [&entries["ingester-1"][..], &[0x98, 0x06, 0x07]].concat();
    entries.insert("ingester-1".into(), entry.into());
    let path = "/v1/kv/collectors/ring";
    http::request(server.addr(), "PUT", path, &[], &codec.join(&entries)).await.unwrap();

    let config = config(KvStore::Consul, server.addr(), Layout::Single);
    let open = || Stores::new().open(&config, "test", &Meter::disabled(), &Clock::system()).unwrap();
    let client = Client::<Desc>::new(open(), &Meter::disabled());
    let view = client.get("ring").await.unwrap().unwrap();
    let go = view.value.entries().get("ingester-1").unwrap().clone();
    assert_eq!(go.addr, "127.0.0.1:21602");
    client.upsert_own("ring", "ingester-2", &go).await.unwrap();

    let raw = http::get(server.addr(), "/v1/kv/collectors/ring?raw").await.unwrap();
    let now = codec.split(&raw.body).unwrap();
    assert_eq!(now["ingester-1"], entries["ingester-1"], "not touched, so not changed");
    // Also when the entry itself is rewritten.
    client.upsert_own("ring", "ingester-1", &go).await.unwrap();
    let raw = http::get(server.addr(), "/v1/kv/collectors/ring?raw").await.unwrap();
    assert!(codec.split(&raw.body).unwrap()["ingester-1"].ends_with(&[0x98, 0x06, 0x07]));
    // What was written decodes to what was meant.
    let again = client.get("ring").await.unwrap().unwrap();
    assert_eq!(again.value.entries().get("ingester-2").unwrap().tokens, go.tokens);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_of_another_layout_is_refused_by_name_and_left_alone() {
    let server = Consul::start().await.unwrap();
    for (here, there) in [(Layout::Single, Layout::PerInstance), (Layout::PerInstance, Layout::Single)] {
        let open = |layout| {
            let config = config(KvStore::Consul, server.addr(), layout);
            Stores::new().open(&config, "test", &Meter::disabled(), &Clock::system()).unwrap()
        };
        let key = Key::new(format!("ring-{here}"), Desc::codec());
        let entry = Desc::codec().split(&written_by_go()).unwrap()["ingester-1"].clone();
        let change = Change::upsert("ingester-1", entry);
        open(here).apply(&key, change.clone(), Precondition::None).await.unwrap();
        let error = open(there).apply(&key, change, Precondition::None).await.unwrap_err().to_string();
        assert!(error.contains(&format!("kvstore.layout: {here}")), "{error}");
        assert_eq!(open(here).get(&key).await.unwrap().unwrap().entries.len(), 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_value_beyond_the_limit_is_refused_with_what_helps() {
    let server = Consul::start().await.unwrap();
    let store = Stores::new()
        .open(
            &config(KvStore::Consul, server.addr(), Layout::Single),
            "test",
            &Meter::disabled(),
            &Clock::system(),
        )
        .unwrap();
    let key = Key::new("ring", Desc::codec());
    let put = async |id: &str, bytes: usize| {
        // Field 1, the address, of random-looking bytes.
        let mut entry = vec![0x0a];
        let mut length = bytes;
        while length >= 0x80 {
            entry.push(u8::try_from(length & 0x7f).unwrap() | 0x80);
            length >>= 7;
        }
        entry.push(u8::try_from(length).unwrap());
        let mut noise = 1_u32;
        entry.extend((0..bytes).map(|_| {
            noise = noise.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            b'!' + u8::try_from((noise >> 24) % 90).unwrap()
        }));
        store.apply(&key, Change::upsert(id, entry), Precondition::None).await
    };
    put("a", 200_000).await.unwrap();
    // Too large for a transaction, but not for a value.
    put("b", 200_000).await.unwrap();
    let error = put("c", 200_000).await.unwrap_err().to_string();
    assert!(error.contains("524288") && error.contains("layout: per_instance"), "{error}");
    assert_eq!(store.get(&key).await.unwrap().unwrap().entries.len(), 2);
}
