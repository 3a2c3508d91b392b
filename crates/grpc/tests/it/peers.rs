use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use ringkit_grpc::pool::Error;
use ringkit_grpc::{Pool, PoolOptions, PoolService, http_code};
use ringkit_proto::client::ingester_client::IngesterClient;
use ringkit_proto::client::{LabelMatcher, QueryRequest, UserStatsRequest};
use ringkit_proto::cortexpb::WriteRequest;
use ringkit_runtime::{CancellationToken, Service as _};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tonic::Code;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;

use crate::rig::Rig;

/// Generous, for a loaded machine; nothing waits so long when it works.
const DEADLINE: Duration = Duration::from_secs(20);

fn options() -> PoolOptions {
    PoolOptions {
        check_interval: Duration::from_millis(20),
        check_timeout: Duration::from_millis(500),
        ..Default::default()
    }
}

/// A pool and what its gauge shows.
fn pool() -> (Pool, Arc<AtomicU64>) {
    let shown = Arc::new(AtomicU64::new(0));
    (Pool::new(options(), metrics::Gauge::from_arc(Arc::clone(&shown))), shown)
}

fn value(shown: &AtomicU64) -> f64 {
    f64::from_bits(shown.load(Ordering::SeqCst))
}

/// Runs the checks until dropped.
fn run(mut service: PoolService) -> JoinSet<()> {
    let mut tasks = JoinSet::new();
    tasks.spawn(async move { service.run(CancellationToken::new()).await.unwrap() });
    tasks
}

async fn wait_for(pool: &Pool, addresses: &[String]) {
    let reached = async {
        while pool.addresses() != addresses {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let in_time = tokio::time::timeout(DEADLINE, reached).await;
    assert!(in_time.is_ok(), "{:?} instead of {addresses:?}", pool.addresses());
}

async fn push(pool: &Pool, address: &str) -> Result<(), tonic::Status> {
    let mut client = IngesterClient::new(pool.channel(address).unwrap());
    client.push(WriteRequest::default()).await.map(drop)
}

#[tokio::test]
async fn an_address_has_one_channel_until_it_is_dropped() {
    let rig = Rig::start().await;
    let (pool, shown) = pool();
    let address = rig.address.to_string();
    push(&pool, &address).await.unwrap();
    push(&pool, &address).await.unwrap();
    assert_eq!((pool.addresses(), value(&shown)), (vec![address.clone()], 1.0));
    pool.retain([address.as_str(), "other:1"]);
    assert_eq!(value(&shown), 1.0);
    pool.retain([]);
    assert_eq!((pool.addresses(), value(&shown)), (vec![], 0.0));
    push(&pool, &address).await.unwrap();
    assert_eq!(value(&shown), 1.0);
}

#[tokio::test]
async fn only_host_and_port_make_an_address() {
    let (pool, shown) = pool();
    for address in ["", "host", "host:port", "a b:1", "host:1/path", "http://host:1"] {
        let error = pool.channel(address).map(drop).unwrap_err();
        assert_eq!(error, Error::Address { address: address.to_owned() });
    }
    for address in ["host:1", "127.0.0.1:9095", "[::1]:9095"] {
        pool.channel(address).unwrap();
    }
    assert_eq!(value(&shown), 3.0);
}

#[tokio::test]
async fn a_refused_connection_fails_the_call_at_once() {
    let rig = Rig::start().await;
    let address = rig.address.to_string();
    rig.stop().await;
    let (pool, _) = pool();
    let error = tokio::time::timeout(DEADLINE, push(&pool, &address)).await.unwrap().unwrap_err();
    assert_eq!(error.code(), Code::Unavailable);
}

#[tokio::test]
async fn a_peer_that_stops_serving_is_dropped_and_others_stay() {
    let (sick, well) = (Rig::start().await, Rig::start().await);
    let (pool, shown) = pool();
    let [sick_at, well_at] = [&sick, &well].map(|rig| rig.address.to_string());
    push(&pool, &sick_at).await.unwrap();
    push(&pool, &well_at).await.unwrap();
    let _checks = run(pool.service());
    sick.healthy.store(false, Ordering::SeqCst);
    wait_for(&pool, &[well_at]).await;
    assert_eq!(value(&shown), 1.0);
}

#[tokio::test]
async fn a_peer_that_died_and_one_that_hangs_are_dropped() {
    let (dead, well) = (Rig::start().await, Rig::start().await);
    // Accepts connections, by its backlog, and says nothing.
    let hung = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (pool, _) = pool();
    let well_at = well.address.to_string();
    for address in [dead.address, well.address, hung.local_addr().unwrap()] {
        pool.channel(&address.to_string()).unwrap();
    }
    dead.stop().await;
    let _checks = run(pool.service());
    wait_for(&pool, &[well_at]).await;
}

#[tokio::test]
async fn peers_that_left_are_dropped_unless_nobody_knows_who_is_there() {
    let rigs = [Rig::start().await, Rig::start().await];
    let (pool, _) = pool();
    let addresses = rigs.each_ref().map(|rig| rig.address.to_string());
    for address in &addresses {
        pool.channel(address).unwrap();
    }
    let (tell, told) = tokio::sync::watch::channel(None);
    let rounds = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&rounds);
    let _checks = run(pool.service().with_discovery(move || {
        counted.fetch_add(1, Ordering::SeqCst);
        told.borrow().clone()
    }));
    let two_rounds = async {
        while rounds.load(Ordering::SeqCst) < 2 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(DEADLINE, two_rounds).await.unwrap();
    assert_eq!(pool.addresses().len(), 2);
    tell.send_replace(Some(vec![addresses[0].clone()]));
    wait_for(&pool, &addresses[..1]).await;
}

#[tokio::test]
async fn a_call_outlives_its_channels_place_in_the_pool() {
    let rig = Rig::start().await;
    let (pool, _) = pool();
    let mut client = IngesterClient::new(pool.channel(&rig.address.to_string()).unwrap());
    pool.retain([]);
    client.push(WriteRequest::default()).await.unwrap();
    assert_eq!(client.user_stats(UserStatsRequest {}).await.unwrap_err().code(), Code::Unimplemented);
}

#[tokio::test]
async fn a_channel_connects_again_after_its_peer_restarted() {
    let rig = Rig::start().await;
    let at = rig.address;
    let (pool, _) = pool();
    let mut client = IngesterClient::new(pool.channel(&at.to_string()).unwrap());
    client.push(WriteRequest::default()).await.unwrap();
    rig.stop().await;
    client.push(WriteRequest::default()).await.unwrap_err();
    let _again = Rig::start_at(at).await;
    let reached = async { while client.push(WriteRequest::default()).await.is_err() {} };
    tokio::time::timeout(DEADLINE, reached).await.unwrap();
}

#[tokio::test]
async fn a_stream_goes_on_while_its_peer_sends_clients_away() {
    let rig = Rig::start().await;
    let (pool, _) = pool();
    let mut client = IngesterClient::new(pool.channel(&rig.address.to_string()).unwrap());
    let request = QueryRequest {
        start_timestamp_ms: 429,
        matchers: vec![LabelMatcher::default()],
        ..Default::default()
    };
    let mut stream = client.query_stream(request).await.unwrap().into_inner();
    assert!(stream.message().await.unwrap().is_some());
    rig.begin_stop();
    // Once new calls fail, the peer has been heard; the port is closed by then.
    let heard = async { while client.push(WriteRequest::default()).await.is_ok() {} };
    tokio::time::timeout(DEADLINE, heard).await.unwrap();
    rig.release();
    assert_eq!(http_code(&stream.message().await.unwrap_err()), Some(429));
    tokio::time::timeout(DEADLINE, rig.stop()).await.unwrap();
}

#[tokio::test]
async fn the_checks_end_when_told_to() {
    let (pool, _) = pool();
    let stop = CancellationToken::new();
    stop.cancel();
    tokio::time::timeout(DEADLINE, pool.service().run(stop)).await.unwrap().unwrap();
}

#[tokio::test]
async fn health_is_that_of_the_process_whatever_service_is_asked_for() {
    let rig = Rig::start().await;
    let (pool, _) = pool();
    let mut client = HealthClient::new(pool.channel(&rig.address.to_string()).unwrap());
    for (healthy, expected) in [(true, 1), (false, 2)] {
        rig.healthy.store(healthy, Ordering::SeqCst);
        for service in ["", "cortex.Ingester", "nobody"] {
            let request = HealthCheckRequest { service: service.to_owned() };
            assert_eq!(client.check(request).await.unwrap().into_inner().status, expected);
        }
    }
    let watched = client.watch(HealthCheckRequest::default()).await;
    assert_eq!(watched.unwrap_err().code(), Code::Unimplemented);
}
