//! The role in a process of its own, with a ring in memory.

use std::net::TcpListener;
use std::time::Duration;

use ringkit_config::{Config, KvStore, RingName};
use ringkit_kv::Stores;
use ringkit_ring::{Desc, InstanceDesc, Tokens};
use ringkit_runtime::{Clock, Meter};
use ringkit_server::{App, Running};

use super::fake::Fake;
use super::harness::{compressed, eventually, many, write_request};

fn config() -> Config {
    let mut config = Config::default();
    config.ring.store = Some(KvStore::Inmemory);
    config.distributor.ring.instance_addr = "127.0.0.1".to_owned();
    config.distributor.ring.instance_id = "distributor-1".to_owned();
    config.target = vec!["distributor".to_owned()];
    config
}

async fn start(stores: &Stores) -> Running {
    start_with(config(), stores).await
}

async fn start_with(config: Config, stores: &Stores) -> Running {
    let listener = || TcpListener::bind("127.0.0.1:0").unwrap();
    let app =
        App::builder(config).roles(&[crate::ROLE]).stores(stores.clone()).listeners(listener(), listener());
    app.start().await.unwrap()
}

/// The body of a write of `num` samples of now.
fn write_of(num: usize) -> Vec<u8> {
    let mut series = many(num);
    for one in &mut series {
        one.samples[0].timestamp_ms = Clock::system().now_ms();
    }
    compressed(&write_request(&series))
}

async fn register(stores: &Stores, fakes: &[Fake]) {
    let kv = config().kv(RingName::Ingester);
    let client = stores.client::<Desc>(&kv, "test", &Meter::disabled(), &Clock::system()).unwrap();
    for (index, fake) in (0u32..).zip(fakes) {
        let entry = InstanceDesc {
            addr: fake.addr.to_string().into(),
            timestamp: Clock::system().now_secs(),
            tokens: Tokens::from(vec![index + 1, index + 1_000_000_000, index + 3_000_000_000]),
            ..InstanceDesc::default()
        };
        client.upsert_own("ring", &format!("ingester-{index}"), &entry).await.unwrap();
    }
}

/// One HTTP/1.1 exchange; the whole answer as text.
async fn exchange(running: &Running, request: &str, body: &[u8]) -> String {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let mut stream = tokio::net::TcpStream::connect(running.http_addr).await.unwrap();
    let length = body.len();
    let head = format!(
        "{request} HTTP/1.1\r\nhost: x\r\nconnection: close\r\nx-scope-orgid: tenant\r\ncontent-length: {length}\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    stream.write_all(body).await.unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    String::from_utf8_lossy(&answer).into_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_is_ready_once_it_knows_ingesters_and_leaves_its_ring_at_the_end() {
    let stores = Stores::new();
    let running = start(&stores).await;
    let answer = exchange(&running, "GET /ready", b"").await;
    assert!(answer.starts_with("HTTP/1.1 503"), "{answer}");

    let fakes: Vec<_> = (0..3).map(|_| Fake::start()).collect();
    register(&stores, &fakes).await;
    tokio::time::timeout(Duration::from_secs(10), running.ready()).await.expect("ready in time").unwrap();
    assert!(exchange(&running, "GET /ready", b"").await.starts_with("HTTP/1.1 200"));

    let answer = exchange(&running, "POST /api/v1/push", &write_of(10)).await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    eventually("all replicas", || fakes.iter().all(|fake| fake.num_samples("tenant") == 10)).await;

    let ring = exchange(&running, "GET /distributor/ring", b"").await;
    assert!(ring.contains("distributor-1"), "{ring}");
    let metrics = exchange(&running, "GET /metrics", b"").await;
    for series in [
        "cortex_distributor_received_samples_total{user=\"tenant\",type=\"float\"} 10\n",
        "cortex_distributor_replication_factor 3\n",
        "cortex_distributor_ingester_clients 3\n",
    ] {
        assert!(metrics.contains(series), "{series} is missing in {metrics}");
    }

    let report = running.stop().await;
    assert!(report.late.is_empty(), "{:?}", report.late);
    let kv = config().kv(RingName::Distributor);
    let client = stores.client::<Desc>(&kv, "test", &Meter::disabled(), &Clock::system()).unwrap();
    let left = client.get("distributor").await.unwrap();
    assert!(left.is_none_or(|view| !view.value.contains("distributor-1")), "the entry is removed");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tenants_limit_changes_with_the_file_and_without_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("runtime.yaml");
    std::fs::write(&file, "overrides: {tenant: {ingestion_burst_size: 5}}").unwrap();
    let mut config = config();
    config.runtime_config.file = file.to_str().unwrap().to_owned();
    config.runtime_config.period = Duration::from_millis(20);
    let stores = Stores::new();
    let running = start_with(config, &stores).await;
    let fakes: Vec<_> = (0..3).map(|_| Fake::start()).collect();
    register(&stores, &fakes).await;
    tokio::time::timeout(Duration::from_secs(10), running.ready()).await.expect("ready in time").unwrap();

    let push = async || exchange(&running, "POST /api/v1/push", &write_of(10)).await;
    let becomes = async |status: &str| {
        let deadline = tokio::time::Instant::now() + Duration::from_secs(10);
        let head = format!("HTTP/1.1 {status}");
        loop {
            let answer = push().await;
            if answer.starts_with(&head) {
                return;
            }
            assert!(tokio::time::Instant::now() < deadline, "still waiting for {status}: {answer}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    assert!(push().await.starts_with("HTTP/1.1 429"), "the file was read before the first request");
    std::fs::write(&file, "overrides: {tenant: {ingestion_burst_size: 5000}}").unwrap();
    becomes("200").await;
    std::fs::write(&file, "overrides: {tenant: {ingestion_burst_size: 5}}").unwrap();
    becomes("429").await;
    // What cannot be read changes nothing.
    std::fs::write(&file, "overrides: {tenant: {ingestion_burst_size: many}}").unwrap();
    eventually("the failure", || {
        running.metrics().contains("cortex_runtime_config_last_reload_successful 0\n")
    })
    .await;
    assert!(push().await.starts_with("HTTP/1.1 429"));
    std::fs::write(&file, "").unwrap();
    becomes("200").await;
    assert!(running.stop().await.late.is_empty());
}
