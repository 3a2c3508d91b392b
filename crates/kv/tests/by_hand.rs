//! What people and other programs do to the keys of a real server, keys of all kinds, and servers that answer oddly.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
#![cfg(all(feature = "consul", feature = "etcd"))]

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use ringkit_config::{ConsulConfig, EtcdConfig, KvStore, KvStoreConfig, Layout};
use ringkit_kv::conformance::Counters;
use ringkit_kv::{Applied, Change, Client, Error, Key, Precondition, Store, Stores, Value as _, Watch};
use ringkit_runtime::{Clock, Meter};
use ringkit_testkit::{Consul, Etcd, http};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::task::JoinSet;

const SOON: Duration = Duration::from_secs(10);

fn consul(addr: SocketAddr, layout: Layout) -> KvStoreConfig {
    let consul = ConsulConfig { host: addr.to_string(), watch_rate_limit: 0.0, ..ConsulConfig::default() };
    KvStoreConfig { store: KvStore::Consul, layout, consul, ..KvStoreConfig::default() }
}

fn etcd(endpoints: &[SocketAddr], layout: Layout) -> KvStoreConfig {
    let endpoints = endpoints.iter().map(ToString::to_string).collect();
    let etcd = EtcdConfig { endpoints, dial_timeout: Duration::from_secs(2), ..EtcdConfig::default() };
    KvStoreConfig { store: KvStore::Etcd, layout, etcd, ..KvStoreConfig::default() }
}

fn store(config: &KvStoreConfig) -> Arc<dyn Store> {
    Stores::new().open(config, "test", &Meter::disabled(), &Clock::system()).unwrap()
}

fn client(config: &KvStoreConfig) -> Client<Counters> {
    Client::new(store(config), &Meter::disabled())
}

/// Waits until the watch shows exactly these counters.
async fn shows(watch: &mut Watch<Counters>, counters: &[(&str, u64)]) {
    let expected = Counters::of(counters);
    let mut last = None;
    let seen = async {
        loop {
            last = Some(watch.next().await.unwrap().value.map(|value| Counters::clone(&value)));
            if last == Some(Some(expected.clone())) {
                return;
            }
        }
    };
    let seen = tokio::time::timeout(SOON, seen).await;
    assert!(seen.is_ok(), "waited for {expected:?}, saw {last:?}");
}

/// Deletes one key, as an operator does.
enum Hand {
    Consul(SocketAddr),
    Etcd(SocketAddr),
}

impl Hand {
    async fn delete(&self, key: &str) {
        let answer = match self {
            Self::Consul(addr) => {
                let path = format!("/v1/kv/{key}");
                http::request(*addr, "DELETE", &path, &[], b"").await.unwrap()
            }
            Self::Etcd(addr) => {
                let body = format!("{{\"key\":\"{}\"}}", STANDARD.encode(key));
                http::post(*addr, "/v3/kv/deleterange", &[], body.as_bytes()).await.unwrap()
            }
        };
        assert_eq!(answer.status, 200, "{}", answer.text());
    }
}

/// A Consul and an etcd, with each a hand to meddle.
async fn both<F: Future<Output = ()>>(layout: Layout, test: impl Fn(KvStoreConfig, Hand) -> F) {
    let (a, b) = (Consul::start().await.unwrap(), Etcd::start().await.unwrap());
    test(consul(a.addr(), layout), Hand::Consul(a.addr())).await;
    test(etcd(&[b.addr()], layout), Hand::Etcd(b.addr())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_entry_deleted_by_hand_is_told_at_once() {
    both(Layout::PerInstance, |config, hand| async move {
        let writer = client(&config);
        for id in ["a", "b", "c"] {
            writer.upsert_own("ring", id, &1).await.unwrap();
        }
        let mut watch = client(&config).watch("ring").await.unwrap();
        shows(&mut watch, &[("a", 1), ("b", 1), ("c", 1)]).await;
        // One that is not the newest, then the newest, without any other write.
        hand.delete("collectors/ring/_entries/a").await;
        shows(&mut watch, &[("b", 1), ("c", 1)]).await;
        hand.delete("collectors/ring/_entries/c").await;
        shows(&mut watch, &[("b", 1)]).await;
        writer.upsert_own("ring", "c", &2).await.unwrap();
        shows(&mut watch, &[("b", 1), ("c", 2)]).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_marker_deleted_by_hand_is_made_again_by_the_next_heartbeat() {
    both(Layout::PerInstance, |config, hand| async move {
        let (a, b) = (client(&config), client(&config));
        a.upsert_own("ring", "a", &1).await.unwrap();
        b.upsert_own("ring", "b", &1).await.unwrap();
        let mut watch = a.watch("ring").await.unwrap();
        shows(&mut watch, &[("a", 1), ("b", 1)]).await;
        hand.delete("collectors/ring/_entries/").await;
        // Both live on, one that watches and one that does not, and nobody is missing.
        a.upsert_own("ring", "a", &2).await.unwrap();
        b.upsert_own("ring", "b", &2).await.unwrap();
        shows(&mut watch, &[("a", 2), ("b", 2)]).await;
        a.remove_own("ring", "a").await.unwrap();
        shows(&mut watch, &[("b", 2)]).await;
        assert_eq!(a.list("").await.unwrap(), ["ring"]);
        b.delete("ring").await.unwrap();
        assert!(a.get("ring").await.unwrap().is_none());
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_of_the_other_layout_is_neither_read_nor_written_nor_deleted() {
    for (here, there) in [(Layout::Single, Layout::PerInstance), (Layout::PerInstance, Layout::Single)] {
        both(here, |config, _| async move {
            let elsewhere = client(&KvStoreConfig { layout: there, ..config.clone() });
            let here = client(&config);
            here.upsert_own("ring", "a", &1).await.unwrap();
            let refused = |result: Result<(), Error>| {
                let error = result.unwrap_err();
                assert!(matches!(error, Error::OtherLayout { .. }), "{error}");
            };
            refused(elsewhere.get("ring").await.map(drop));
            refused(elsewhere.upsert_own("ring", "b", &1).await.map(drop));
            refused(elsewhere.delete("ring").await);
            assert_eq!(*here.get("ring").await.unwrap().unwrap().value, Counters::of(&[("a", 1)]));
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_and_ids_may_hold_any_character() {
    for layout in [Layout::Single, Layout::PerInstance] {
        both(layout, |config, _| async move {
            let (writer, reader) = (client(&config), client(&config));
            for key in ["prod eu", "50%", "a?b#c", "grün/日本", "x\"y\\z", "a+b=c&d;e,f", "%2F", "{}|^`<>"]
            {
                let id = format!("id of {key}");
                let mut watch = reader.watch(key).await.unwrap();
                writer.upsert_own(key, &id, &1).await.unwrap();
                shows(&mut watch, &[(&id, 1)]).await;
                assert!(writer.list("").await.unwrap().iter().any(|name| name == key), "{key}");
                writer.delete(key).await.unwrap();
                assert!(reader.get(key).await.unwrap().is_none(), "{key}");
            }
            assert_eq!(writer.list("").await.unwrap(), [""; 0]);
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_read_after_an_own_write_shows_what_others_had_written() {
    both(Layout::PerInstance, |config, _| async move {
        let (a, b) = (client(&config), client(&config));
        a.upsert_own("ring", "a", &1).await.unwrap();
        for count in 1..=5 {
            // Nobody watches, so that nothing is heard.
            b.upsert_own("ring", "b", &count).await.unwrap();
            let view = a.upsert_own_and_read("ring", "a", &count).await.unwrap();
            assert_eq!(*view.value, Counters::of(&[("a", count), ("b", count)]));
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_of_several_entries_is_not_judged_by_what_is_remembered() {
    both(Layout::PerInstance, |config, _| async move {
        let (own, other) = (store(&config), client(&config));
        let key = Key::new("ring", Counters::codec());
        let change = |a: u64, b: u64| {
            let entry = |count: u64| Counters::encode_entry(&count);
            let upserts = [("a".into(), entry(a)), ("b".into(), entry(b))].into();
            Change { upserts, ..Change::default() }
        };
        own.apply(&key, change(1, 1), Precondition::None).await.unwrap();
        other.upsert_own("ring", "b", &7).await.unwrap();
        let done = own.apply(&key, change(2, 1), Precondition::None).await.unwrap();
        assert!(matches!(done, Applied::Done(_)));
        assert_eq!(*other.get("ring").await.unwrap().unwrap().value, Counters::of(&[("a", 2), ("b", 1)]));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ring_of_many_megabytes_is_read_and_watched() {
    let (a, b) = (Consul::start().await.unwrap(), Etcd::start().await.unwrap());
    for config in [consul(a.addr(), Layout::PerInstance), etcd(&[b.addr()], Layout::PerInstance)] {
        let writer = store(&config);
        let key = Key::new("ring", &Opaque);
        let entry = |byte: u8| Bytes::from(vec![byte; 16 << 10]);
        let upserts = (0..400).map(|number| (format!("i-{number}").into(), entry(1))).collect();
        writer.apply(&key, Change { upserts, ..Change::default() }, Precondition::None).await.unwrap();
        let reader = store(&config);
        assert_eq!(reader.get(&key).await.unwrap().unwrap().entries.len(), 400, "{}", config.store);
        let mut watch = reader.watch(&key).await.unwrap();
        let first = tokio::time::timeout(SOON, watch.changed()).await.unwrap().unwrap().unwrap();
        assert_eq!(first.entries.len(), 400);
        writer.apply(&key, Change::upsert("i-0", entry(2)), Precondition::None).await.unwrap();
        let next = tokio::time::timeout(SOON, watch.changed()).await.unwrap().unwrap().unwrap();
        assert_eq!(next.entries["i-0"].bytes[0], 2);
    }
}

/// Entries of any bytes.
struct Opaque;

impl ringkit_kv::Codec for Opaque {
    fn id(&self) -> &'static str {
        "opaque"
    }

    fn split(
        &self,
        _stored: &[u8],
    ) -> Result<std::collections::BTreeMap<ringkit_kv::EntryId, Bytes>, ringkit_kv::DecodeError> {
        Err(ringkit_kv::DecodeError::new("only entries"))
    }

    fn join(&self, _entries: &std::collections::BTreeMap<ringkit_kv::EntryId, Bytes>) -> Bytes {
        Bytes::new()
    }

    fn check_entry(&self, _id: &str, _entry: &[u8]) -> Result<(), ringkit_kv::DecodeError> {
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_etcd_endpoint_that_is_dead_fails_nothing() {
    let server = Etcd::start().await.unwrap();
    let dead = {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        listener.local_addr().unwrap()
    };
    for layout in [Layout::Single, Layout::PerInstance] {
        // Where entries have keys of their own, writes go out without a read before them.
        let key = Key::new(format!("{layout}"), Counters::codec());
        let config = etcd(&[dead, server.addr()], layout);
        client(&config).upsert_own(&key.name, "a", &1).await.unwrap();
        for _ in 0..6 {
            let store = store(&config);
            store.get(&key).await.unwrap();
            for count in 0..3 {
                let change = Change::upsert("a", Counters::encode_entry(&count));
                store.apply(&key, change, Precondition::None).await.unwrap();
            }
        }
    }
    let store = store(&etcd(&[dead, server.addr()], Layout::Single));
    let key = Key::new("ring", Counters::codec());
    for count in 0..50 {
        // Without the retries of a client.
        let change = Change::upsert("a", Counters::encode_entry(&count));
        store.apply(&key, change, Precondition::None).await.unwrap();
        store.get(&key).await.unwrap().unwrap();
        store.list("").await.unwrap();
    }
    let mut watch = client(&etcd(&[dead, server.addr()], Layout::Single)).watch("ring").await.unwrap();
    shows(&mut watch, &[("a", 49)]).await;
}

/// A server that answers the requests of one watch by their number and path.
async fn scripted(
    answer: impl Fn(usize, &str) -> String + Send + Sync + 'static,
) -> (SocketAddr, JoinSet<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let (answer, number) = (Arc::new(answer), Arc::new(AtomicUsize::new(0)));
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        let mut connections = JoinSet::new();
        while let Ok((mut peer, _)) = listener.accept().await {
            let (answer, number) = (Arc::clone(&answer), Arc::clone(&number));
            connections.spawn(async move {
                let mut request = vec![0; 16 << 10];
                let len = peer.read(&mut request).await.unwrap_or_default();
                let request = String::from_utf8_lossy(&request[..len]).into_owned();
                let line = request.lines().next().unwrap_or_default();
                let text = answer(number.fetch_add(1, Ordering::SeqCst), line);
                let _ = peer.write_all(text.as_bytes()).await;
            });
        }
    });
    (addr, tasks)
}

/// An answer of Consul with the counter `a`.
fn counter(index: Option<u64>, modified: u64, count: u64) -> String {
    let value = Counters::codec().join(&[("a".into(), Counters::encode_entry(&count))].into());
    let body = format!(
        "[{{\"Key\":\"collectors/ring\",\"Value\":\"{}\",\"ModifyIndex\":{modified}}}]",
        STANDARD.encode(value)
    );
    let header = index.map_or(String::new(), |index| format!("x-consul-index: {index}\r\n"));
    format!("HTTP/1.1 200 OK\r\n{header}content-length: {}\r\nconnection: close\r\n\r\n{body}", body.len())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_consul_that_lags_behind_is_not_one_that_began_anew() {
    let (addr, _tasks) = scripted(|number, line| match number {
        0 => counter(Some(10), 10, 10),
        1 => "HTTP/1.1 500 Oops\r\ncontent-length: 0\r\nconnection: close\r\n\r\n".to_owned(),
        // A follower that has not heard of the last write, unless the leader is asked.
        2 | 3 if line.contains("consistent") => counter(Some(10), 10, 10),
        2 | 3 => counter(Some(8), 8, 8),
        _ => counter(Some(12), 12, 12),
    })
    .await;
    let mut watch = client(&consul(addr, Layout::Single)).watch("ring").await.unwrap();
    let mut seen = Vec::new();
    while seen.last() != Some(&12) {
        let update = tokio::time::timeout(SOON, watch.next()).await.unwrap().unwrap();
        seen.push(update.value.unwrap().count("a").unwrap());
    }
    assert_eq!(seen, [10, 12], "went back in time");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_consul_that_tells_no_index_is_read_at_a_pace() {
    let (asked, counted) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let count = Arc::clone(&asked);
    let (addr, _tasks) = scripted(move |number, _| {
        count.store(number, Ordering::SeqCst);
        counter(None, number as u64 + 1, number as u64 + 1)
    })
    .await;
    let mut watch = client(&consul(addr, Layout::Single)).watch("ring").await.unwrap();
    let began = std::time::Instant::now();
    while counted.load(Ordering::SeqCst) < 3 {
        let update = tokio::time::timeout(SOON, watch.next()).await.unwrap().unwrap();
        counted.store(usize::try_from(update.value.unwrap().count("a").unwrap()).unwrap(), Ordering::SeqCst);
    }
    let (asked, secs) = (asked.load(Ordering::SeqCst), began.elapsed().as_secs_f64());
    assert!(asked as f64 <= secs + 2.0, "{asked} requests in {secs} s");
}
