use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use async_trait::async_trait;
use metrics_exporter_prometheus::PrometheusBuilder;
use tokio::time::Instant;

use super::*;
use crate::codec::{Codec, DecodeError};
use crate::conformance::Counters;
use crate::inmemory::InMemory;
use crate::store::Subscription;
use crate::value::Text;
use crate::watch::Update;

const KEY: &str = "counters";

fn client() -> (InMemory, Client<Counters>) {
    let store = InMemory::default();
    (store.clone(), Client::new(Arc::new(store), &Meter::disabled()))
}

#[tokio::test]
async fn a_text_is_a_value_with_one_entry() {
    let client = Client::<Text>::new(Arc::new(InMemory::default()), &Meter::disabled());
    client.cas("greeting", |_| Decision::Write(Text::new("hello"), ())).await.unwrap();
    assert_eq!(client.get("greeting").await.unwrap().unwrap().value.as_str(), "hello");
    assert_eq!(client.list("gr").await.unwrap(), ["greeting"]);
    client.delete("greeting").await.unwrap();
    assert_eq!(client.get("greeting").await.unwrap(), None);
}

#[tokio::test]
async fn each_increment_sees_the_previous_one() {
    let (_, client) = client();
    for expected in 0..10 {
        let outcome = client
            .cas(KEY, |now| {
                let seen = now.and_then(|now| now.count("a"));
                Decision::Write(Counters::of(&[("a", seen.unwrap_or(0) + 1)]), seen)
            })
            .await
            .unwrap();
        assert_eq!(outcome.result, (expected > 0).then_some(expected));
        assert!(outcome.written);
    }
}

#[tokio::test]
async fn keeping_or_repeating_a_value_writes_nothing() {
    let (_, client) = client();
    let value = Counters::of(&[("a", 1)]);
    let version =
        client.cas(KEY, |_| Decision::Write(value.clone(), ())).await.unwrap().view.unwrap().version;
    let kept = client.cas(KEY, |_| Decision::Keep("kept")).await.unwrap();
    assert_eq!((kept.written, kept.result), (false, "kept"));
    let repeated = client.cas(KEY, |_| Decision::Write(value.clone(), ())).await.unwrap();
    assert!(!repeated.written);
    assert_eq!(repeated.view.unwrap().version, version);
}

#[tokio::test]
async fn only_entries_that_differ_are_written() {
    let store = Arc::new(Unreliable::default());
    let client = Client::<Counters>::new(Arc::clone(&store) as Arc<dyn Store>, &Meter::disabled());
    let write =
        async |value: Counters| client.cas(KEY, |_| Decision::Write(value.clone(), ())).await.unwrap();
    write(Counters::of(&[("a", 1), ("b", 1), ("c", 1)])).await;
    write(Counters::of(&[("a", 1), ("b", 2)])).await;
    let change = store.last_change.lock().unwrap().clone().unwrap();
    assert_eq!(change.upserts.keys().collect::<Vec<_>>(), ["b"]);
    assert_eq!(change.removals.iter().collect::<Vec<_>>(), ["c"]);
}

#[tokio::test]
async fn an_abort_stops_at_once_and_says_why() {
    let (_, client) = client();
    let mut calls = 0;
    let error = client
        .cas(KEY, |_| {
            calls += 1;
            Decision::<_, ()>::Abort("not today".into())
        })
        .await
        .unwrap_err();
    assert_eq!((calls, error.is_retryable()), (1, false));
    assert_eq!(error.to_string(), "compare-and-swap on `counters` was given up: not today");
}

#[tokio::test(start_paused = true)]
async fn a_decision_to_retry_is_asked_ten_times() {
    let (_, client) = client();
    let mut calls = 0;
    let error = client
        .cas(KEY, |_| {
            calls += 1;
            Decision::<_, ()>::Retry("later".into())
        })
        .await
        .unwrap_err();
    assert_eq!(calls, MAX_ATTEMPTS);
    assert!(error.to_string().ends_with("later"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn ten_lost_races_are_contention() {
    let store = Arc::new(Unreliable::default());
    let client = Client::<Counters>::new(Arc::clone(&store) as Arc<dyn Store>, &Meter::disabled());
    store.always_conflicts.store(true, Ordering::Relaxed);
    let error = client.cas(KEY, |_| Decision::Write(Counters::of(&[("a", 1)]), ())).await.unwrap_err();
    assert_eq!(error.to_string(), "compare-and-swap on `counters` lost 10 races in a row");
}

#[tokio::test(start_paused = true)]
async fn failures_are_retried_and_the_last_cause_is_told() {
    let store = Arc::new(Unreliable::default());
    let client = Client::<Counters>::new(Arc::clone(&store) as Arc<dyn Store>, &Meter::disabled());
    store.failures.store(MAX_ATTEMPTS - 1, Ordering::Relaxed);
    client.upsert_own(KEY, "a", &1).await.unwrap();
    store.failures.store(MAX_ATTEMPTS - 1, Ordering::Relaxed);
    let outcome = client.cas(KEY, |_| Decision::Write(Counters::of(&[("a", 2)]), ())).await.unwrap();
    assert_eq!(outcome.attempts, MAX_ATTEMPTS);
    store.failures.store(u32::MAX, Ordering::Relaxed);
    let error = client.upsert_own(KEY, "a", &3).await.unwrap_err();
    assert!(matches!(error, Error::Unavailable { backend: "unreliable", .. }), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_store_that_hangs_costs_a_deadline_not_forever() {
    let store = Arc::new(Unreliable::default());
    store.hangs.store(true, Ordering::Relaxed);
    let (call, whole) = (Duration::from_secs(1), Duration::from_secs(3));
    let client = Client::<Counters>::new(store, &Meter::disabled()).with_deadlines(call, whole);
    let started_at = Instant::now();
    let error = client.get(KEY).await.unwrap_err();
    assert_eq!(error.to_string(), "GET of `counters` on unreliable did not finish within 1s");
    assert_eq!(started_at.elapsed(), call);
    let started_at = Instant::now();
    assert!(matches!(client.upsert_own(KEY, "a", &1).await, Err(Error::Deadline { .. })));
    assert!(matches!(client.cas(KEY, |_| Decision::<_, ()>::Keep(())).await, Err(Error::Deadline { .. })));
    assert_eq!(started_at.elapsed(), 2 * whole);
    for error in [client.delete(KEY).await.err(), client.list("").await.err(), client.watch(KEY).await.err()]
    {
        assert!(matches!(error, Some(Error::Deadline { .. })));
    }
}

#[tokio::test]
async fn removing_an_own_entry_twice_is_success() {
    let (_, client) = client();
    client.remove_own(KEY, "a").await.unwrap();
    client.upsert_own(KEY, "a", &1).await.unwrap();
    client.upsert_own(KEY, "b", &1).await.unwrap();
    client.remove_own(KEY, "a").await.unwrap();
    client.remove_own(KEY, "a").await.unwrap();
    assert_eq!(*client.get(KEY).await.unwrap().unwrap().value, Counters::of(&[("b", 1)]));
}

#[tokio::test]
async fn a_watch_tells_which_entries_changed() {
    let (_, client) = client();
    let mut watch = client.watch(KEY).await.unwrap();
    let update = watch.next().await.unwrap();
    assert_eq!((update.value, update.version), (None, 0));
    let write =
        async |value: Counters| client.cas(KEY, |_| Decision::Write(value.clone(), ())).await.unwrap();
    let told = |update: Update<Counters>| {
        let text = |ids: Vec<EntryId>| ids.join(",");
        (text(update.changed), text(update.removed))
    };
    write(Counters::of(&[("a", 1), ("b", 1)])).await;
    assert_eq!(told(watch.next().await.unwrap()), ("a,b".into(), String::new()));
    write(Counters::of(&[("b", 2), ("c", 1)])).await;
    assert_eq!(told(watch.next().await.unwrap()), ("b,c".into(), "a".into()));
    client.delete(KEY).await.unwrap();
    assert_eq!(told(watch.next().await.unwrap()), (String::new(), "b,c".into()));
}

#[tokio::test]
async fn an_entry_is_decoded_once_while_its_bytes_are_unchanged() {
    let store = InMemory::default();
    let clients = Client::<Counted>::new(Arc::new(store.clone()), &Meter::disabled());
    for id in 0..100 {
        clients.upsert_own(KEY, &id.to_string(), &1).await.unwrap();
    }
    let mut watch = clients.watch(KEY).await.unwrap();
    watch.next().await.unwrap();
    let before = clients.get(KEY).await.unwrap().unwrap().value;
    let decodes = DECODES.load(Ordering::Relaxed);

    // One member's heartbeat, seen by the writer, a watcher and a reader of the same client.
    clients.upsert_own(KEY, "7", &2).await.unwrap();
    let update = watch.next().await.unwrap();
    let read = clients.get(KEY).await.unwrap().unwrap().value;

    assert_eq!(DECODES.load(Ordering::Relaxed), decodes + 1);
    assert_eq!(update.changed, ["7"]);
    assert!(Arc::ptr_eq(&read, update.value.as_ref().unwrap()));
    let shared = |id: &str| Arc::ptr_eq(&before.entries()[id], &read.entries()[id]);
    assert_eq!((0..100).filter(|id| shared(&id.to_string())).count(), 99);
}

#[tokio::test]
async fn a_hostile_entry_is_counted_once_and_heals() {
    let recorder = PrometheusBuilder::new().build_recorder();
    let rendered = recorder.handle();
    let store = InMemory::default();
    let client = Client::<Counters>::new(Arc::new(store.clone()), &Meter::new(Arc::new(recorder)));
    let key = Key::new(KEY, Counters::codec());
    let write = async |id: &'static str, bytes: Vec<u8>| {
        store.apply(&key, Change::upsert(id, bytes), Precondition::None).await.unwrap();
    };
    let good = |count| Counters::encode_entry(&count).to_vec();
    let mut watch = client.watch(KEY).await.unwrap();
    write("a", good(1)).await;
    write("b", b"?".to_vec()).await;
    watch.next().await.unwrap();
    for count in 2..5 {
        write("a", good(count)).await;
        assert_eq!(*watch.next().await.unwrap().value.unwrap(), Counters::of(&[("a", count)]));
    }
    assert!(rendered.render().contains("ringkit_kv_undecodable_entries_total 1"), "{}", rendered.render());
    assert!(client.get(KEY).await.is_err());
    write("b", good(7)).await;
    assert_eq!(watch.next().await.unwrap().changed, ["b"]);
    // An entry that turns hostile leaves the value instead of lingering as it was.
    write("b", b"?".to_vec()).await;
    assert_eq!(watch.next().await.unwrap().removed, ["b"]);
    assert!(rendered.render().contains("ringkit_kv_undecodable_entries_total 2"));
}

#[tokio::test(start_paused = true)]
async fn attempts_and_outcomes_are_counted() {
    let recorder = PrometheusBuilder::new().build_recorder();
    let rendered = recorder.handle();
    let store = Arc::new(Unreliable::default());
    let meter = Meter::new(Arc::new(recorder)).with("kv_name", "test");
    let client = Client::<Counters>::new(Arc::clone(&store) as Arc<dyn Store>, &meter);
    let write = async |count| client.cas(KEY, |_| Decision::Write(Counters::of(&[("a", count)]), ())).await;
    write(1).await.unwrap();
    client.cas(KEY, |_| Decision::Keep(())).await.unwrap();
    client.cas(KEY, |_| Decision::<_, ()>::Abort("no".into())).await.unwrap_err();
    store.failures.store(MAX_ATTEMPTS, Ordering::Relaxed);
    write(2).await.unwrap_err();
    store.always_conflicts.store(true, Ordering::Relaxed);
    write(3).await.unwrap_err();
    let text = rendered.render();
    for outcome in ["written", "kept", "aborted", "failed", "contended"] {
        let line = format!(r#"ringkit_kv_cas_total{{kv_name="test",outcome="{outcome}"}} 1"#);
        assert!(text.contains(&line), "{line} is missing in\n{text}");
    }
    assert!(text.contains(r#"ringkit_kv_cas_attempts_total{kv_name="test"} 23"#), "{text}");
}

/// Counters that count how often one of them is decoded.
#[derive(Clone, Debug, Default, PartialEq)]
struct Counted(Counters);

static DECODES: AtomicU32 = AtomicU32::new(0);

impl Value for Counted {
    type Entry = u64;

    fn codec() -> &'static dyn Codec {
        Counters::codec()
    }

    fn decode_entry(id: &str, bytes: &[u8]) -> Result<u64, DecodeError> {
        DECODES.fetch_add(1, Ordering::Relaxed);
        Counters::decode_entry(id, bytes)
    }

    fn encode_entry(entry: &u64) -> bytes::Bytes {
        Counters::encode_entry(entry)
    }

    fn from_entries(entries: crate::Entries<Arc<u64>>) -> Self {
        Self(Counters::from_entries(entries))
    }

    fn entries(&self) -> &crate::Entries<Arc<u64>> {
        self.0.entries()
    }
}

/// A store that fails, hangs or conflicts on demand.
#[derive(Default)]
struct Unreliable {
    inner: InMemory,
    failures: AtomicU32,
    hangs: AtomicBool,
    always_conflicts: AtomicBool,
    last_change: Mutex<Option<Change>>,
}

impl Unreliable {
    async fn trouble(&self) -> Result<(), Error> {
        if self.hangs.load(Ordering::Relaxed) {
            std::future::pending::<()>().await;
        }
        match self.failures.try_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)) {
            Ok(_) => Err(Error::Unavailable { backend: "unreliable", cause: "on demand".into() }),
            Err(_) => Ok(()),
        }
    }
}

#[async_trait]
impl Store for Unreliable {
    fn backend(&self) -> &'static str {
        "unreliable"
    }

    async fn get(&self, key: &Key) -> Result<Option<Stored>, Error> {
        self.trouble().await?;
        self.inner.get(key).await
    }

    async fn list(&self, prefix: &str) -> Result<Vec<String>, Error> {
        self.trouble().await?;
        self.inner.list(prefix).await
    }

    async fn delete(&self, key: &Key) -> Result<(), Error> {
        self.trouble().await?;
        self.inner.delete(key).await
    }

    async fn delete_at(&self, key: &Key, version: u64) -> Result<bool, Error> {
        self.trouble().await?;
        self.inner.delete_at(key, version).await
    }

    async fn apply(&self, key: &Key, change: Change, when: Precondition) -> Result<Applied, Error> {
        self.trouble().await?;
        if self.always_conflicts.load(Ordering::Relaxed) {
            return Ok(Applied::Conflict);
        }
        *self.last_change.lock().unwrap() = Some(change.clone());
        self.inner.apply(key, change, when).await
    }

    async fn watch(&self, key: &Key) -> Result<Subscription, Error> {
        self.trouble().await?;
        self.inner.watch(key).await
    }

    fn synced(&self) -> watch::Receiver<bool> {
        self.inner.synced()
    }
}
