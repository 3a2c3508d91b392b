//! Every role as a process of its own, on a real Consul and a real etcd.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use ringkit_config::{ConsulConfig, EtcdConfig, KvStore, KvStoreConfig, Layout};
use ringkit_kv::{Change, Client, Key, Precondition, Stores, Value};
use ringkit_loadgen::{Load, LoadOptions, VerifyOptions, verify};
use ringkit_ring::Desc;
use ringkit_runtime::{CancellationToken, Clock, Meter};
use ringkit_testkit::{Consul, Etcd, Process, ProcessBuilder, eventually_ok, http};

const SOON: Duration = Duration::from_secs(30);
const HEARTBEAT_TIMEOUT: Duration = Duration::from_secs(6);

/// A process of one role and where it serves HTTP.
struct Member {
    process: Process,
    addr: SocketAddr,
}

impl Member {
    async fn start(dir: &Path, target: &str, name: &str, flags: &[String]) -> Self {
        let mut process = ProcessBuilder::new(name, env!("CARGO_BIN_EXE_ringkit"))
            .arg(format!("-target={target}"))
            .arg(format!("-config.file={}", dir.join("config.yaml").display()))
            .args(flags)
            .dir(dir)
            .start()
            .unwrap();
        let line = process.wait_for_output("http=", SOON).await.unwrap();
        let addr = line.split("http=").nth(1).unwrap().split_whitespace().next().unwrap();
        Self { process, addr: addr.trim_matches('"').parse().unwrap() }
    }

    async fn ingester(dir: &Path, number: usize) -> Self {
        let name = format!("ingester-{number}");
        let data = dir.join(&name);
        let flags = [
            format!("-ingester.lifecycler.ID={name}"),
            format!("-blocks-storage.tsdb.dir={}", data.display()),
            format!("-ingester.tokens-file-path={}", dir.join(format!("{name}.tokens")).display()),
        ];
        Self::start(dir, "ingester", &name, &flags).await
    }

    async fn ready(&mut self) {
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
    async fn ring(&self) -> Vec<(String, String, serde_json::Value)> {
        let accept = [("accept", "application/json")];
        let page = http::request(self.addr, "GET", "/ingester/ring", &accept, b"").await.unwrap();
        let page: serde_json::Value = serde_json::from_slice(&page.body).unwrap();
        let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
        let shards = page["shards"].as_array().cloned().unwrap_or_default();
        shards.iter().map(|s| (text(&s["id"]), text(&s["state"]), s["tokens"].clone())).collect()
    }

    async fn sees(&self, id: &str, active: bool, within: Duration) {
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

fn write_config(dir: &Path, store: &str, kvstore: &str) {
    let text = format!(
        "auth_enabled: false\n\
         ring: {{store: {store}, kvstore: {{{kvstore}}}}}\n\
         server: {{http_listen_address: 127.0.0.1, http_listen_port: 0, grpc_listen_address: 127.0.0.1, grpc_listen_port: 0}}\n\
         limits: {{ingestion_rate: 1e7, ingestion_burst_size: 10000000}}\n\
         distributor: {{shard_by_all_labels: true, ring: {{instance_addr: 127.0.0.1, heartbeat_period: 1s, heartbeat_timeout: 6s}}}}\n\
         store_gateway: {{sharding_enabled: true, sharding_ring: {{instance_addr: 127.0.0.1, heartbeat_period: 1s, heartbeat_timeout: 6s, wait_stability_min_duration: 0s}}}}\n\
         ingester: {{lifecycler: {{address: 127.0.0.1, min_ready_duration: 0s, final_sleep: 0s, heartbeat_period: 1s, \
         ring: {{replication_factor: 3, heartbeat_timeout: 6s}}}}}}\n"
    );
    std::fs::write(dir.join("config.yaml"), text).unwrap();
}

/// One ingester of three is killed under load and comes back; then `outage` is done to the store.
async fn survives(dir: &Path, outage: impl AsyncFnOnce()) {
    let mut distributor = Member::start(dir, "distributor", "distributor", &[]).await;
    let mut gateway = Member::start(dir, "store-gateway", "store-gateway", &[]).await;
    let mut ingesters =
        [Member::ingester(dir, 1).await, Member::ingester(dir, 2).await, Member::ingester(dir, 3).await];
    for member in ingesters.iter_mut().chain([&mut distributor, &mut gateway]) {
        member.ready().await;
    }
    for number in 1..=3 {
        distributor.sees(&format!("ingester-{number}"), true, SOON).await;
    }
    let before = distributor.ring().await;

    let url = format!("http://{}", distributor.addr);
    let load = LoadOptions {
        urls: vec![url.clone()],
        series: 200,
        rate: 2_000.0,
        batch: 100,
        ..LoadOptions::default()
    };
    let load = Load::new(load).unwrap();
    let ledger = load.ledger();
    let stop = CancellationToken::new();
    let loading = tokio::spawn({
        let stop = stop.clone();
        async move { load.run(stop).await }
    });

    ingesters[1].process.kill().unwrap();
    distributor.sees("ingester-2", false, HEARTBEAT_TIMEOUT + Duration::from_secs(4)).await;
    ingesters[1] = Member::ingester(dir, 2).await;
    ingesters[1].ready().await;
    distributor.sees("ingester-2", true, SOON).await;
    let tokens = |ring: &[(String, String, serde_json::Value)]| {
        ring.iter().find(|shard| shard.0 == "ingester-2").map(|shard| shard.2.clone())
    };
    assert_eq!(tokens(&distributor.ring().await), tokens(&before), "it came back with other tokens");

    outage().await;
    for number in 1..=3 {
        distributor.sees(&format!("ingester-{number}"), true, SOON).await;
    }
    for member in ingesters.iter_mut().chain([&mut distributor, &mut gateway]) {
        member.ready().await;
    }
    stop.cancel();
    let summary = loading.await.unwrap().unwrap();
    assert_eq!(summary.failed_writes, 0, "{summary}");
    let options = VerifyOptions { url, ..VerifyOptions::default() };
    let report = verify(&ledger, &options).await.unwrap();
    assert!(report.missing + report.wrong == 0 && report.acked > 0, "{report:?}");
    println!("{summary}");
}

#[tokio::test(flavor = "multi_thread")]
async fn processes_on_consul_survive_a_killed_ingester_and_a_restart_of_consul() {
    let dir = tempfile::tempdir().unwrap();
    let mut server = Consul::start().await.unwrap();
    write_config(dir.path(), "consul", &format!("consul: {{host: '{}'}}", server.addr()));
    survives(dir.path(), async || {
        server.kill().unwrap();
        tokio::time::sleep(Duration::from_secs(3)).await;
        server.start_again().await.unwrap();
    })
    .await;
    // The whole ring came together in the key that Cortex uses, and the other rings in theirs.
    let keys = http::get(server.addr(), "/v1/kv/collectors/?keys").await.unwrap().text();
    for key in ["collectors/ring", "collectors/distributor", "collectors/store-gateway"] {
        assert!(keys.contains(&format!("\"{key}\"")), "{keys}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn processes_on_etcd_survive_a_killed_ingester_and_a_restart_of_etcd() {
    let dir = tempfile::tempdir().unwrap();
    let mut server = Etcd::start().await.unwrap();
    let kvstore =
        format!("layout: per_instance, etcd: {{endpoints: ['{}'], dial_timeout: 2s}}", server.addr());
    write_config(dir.path(), "etcd", &kvstore);
    survives(dir.path(), async || {
        server.kill(0).unwrap();
        tokio::time::sleep(Duration::from_secs(3)).await;
        server.start_again(0).await.unwrap();
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn processes_that_start_before_their_store_wait_for_it_and_say_so() {
    let dir = tempfile::tempdir().unwrap();
    let mut server = Consul::start().await.unwrap();
    server.kill().unwrap();
    write_config(dir.path(), "consul", &format!("consul: {{host: '{}'}}", server.addr()));
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

fn config(store: KvStore, addr: SocketAddr, layout: Layout) -> KvStoreConfig {
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
