//! The contract of a [`Store`] as tests: one function per rule, named as a sentence.
//!
//! A backend runs all of them with [`conformance_tests!`](crate::conformance_tests). Where backends legitimately
//! differ, a rule reads [`Traits`]; no rule is left out. A rule panics when it is broken.

#![expect(
    clippy::expect_used,
    reason = "these are tests that live in the library, so that other crates can run them"
)]

mod conditions;

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::{Buf, BufMut, Bytes, BytesMut};
use ringkit_runtime::Meter;
use tokio::sync::watch;
use tokio::task::{JoinSet, yield_now};
use tokio::time::timeout;

use crate::client::{Client, Decision};
use crate::codec::{Codec, DecodeError};
use crate::entries::Entries;
use crate::error::Error;
use crate::store::{Applied, Change, EntryId, Key, Precondition, Store, Stored, Subscription};
use crate::value::Value;

pub use self::conditions::{
    a_change_conflicts_only_by_what_it_names_if_it_says_so,
    a_key_that_moved_is_not_deleted_by_what_was_read_of_it,
};

/// Where backends legitimately differ.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Traits {
    /// A deleted key reads as present and empty instead of absent, until its tombstone expires.
    pub delete_tombstones: bool,
    /// How long a change may take until watchers hear of it.
    pub settle: Duration,
}

impl Default for Traits {
    fn default() -> Self {
        Self { delete_tombstones: false, settle: Duration::from_secs(5) }
    }
}

impl Traits {
    /// See [`Traits::delete_tombstones`].
    #[must_use]
    pub fn with_delete_tombstones(self) -> Self {
        Self { delete_tombstones: true, ..self }
    }

    /// See [`Traits::settle`].
    #[must_use]
    pub fn with_settle(self, settle: Duration) -> Self {
        Self { settle, ..self }
    }
}

/// Makes a named test of each rule, for the store that `$store` creates: `conformance_tests!(InMemory::default());`
/// A second argument gives the store's [`Traits`](crate::conformance::Traits).
#[macro_export]
macro_rules! conformance_tests {
    ($store:expr) => {
        $crate::conformance_tests!($store, $crate::conformance::Traits::default());
    };
    ($store:expr, $traits:expr) => {
        $crate::conformance_rules!(conformance_tests_of $store, $traits);
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! conformance_tests_of {
    ($store:expr, $traits:expr, $($rule:ident)+) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
            async fn $rule() {
                let store: ::std::sync::Arc<dyn $crate::Store> = ::std::sync::Arc::new($store);
                $crate::conformance::$rule(store, $traits).await;
            }
        )+
    };
}

/// The names of all rules, handed to another macro after its arguments.
#[doc(hidden)]
#[macro_export]
macro_rules! conformance_rules {
    ($then:ident $($argument:expr),*) => {
        $crate::$then! { $($argument,)*
            an_absent_key_reads_as_none
            what_is_written_is_read_back
            entries_that_are_not_named_stay_untouched
            an_upsert_wins_over_a_removal_of_the_same_id
            removing_unknown_ids_changes_nothing
            a_change_that_changes_nothing_moves_no_version
            a_change_that_changes_nothing_creates_no_key
            a_change_that_changes_nothing_wakes_no_watcher
            a_stale_version_conflicts_and_changes_nothing
            a_key_is_created_only_if_absent
            versions_grow_and_are_not_repeated_after_a_delete
            removing_the_last_entry_leaves_an_empty_value
            delete_removes_the_key_and_an_absent_key_is_success
            a_key_that_moved_is_not_deleted_by_what_was_read_of_it
            a_change_conflicts_only_by_what_it_names_if_it_says_so
            list_names_present_keys_below_a_prefix_in_order
            a_watch_starts_with_the_current_value
            a_watch_of_an_absent_key_reports_absence_then_creation
            a_watch_reports_deletion_and_new_creation
            a_watch_reports_a_removed_entry
            a_removal_makes_earlier_reads_stale
            a_slow_watcher_gets_the_newest_value_once
            a_watch_hears_only_of_its_own_key
            concurrent_changes_of_different_entries_all_land
            concurrent_increments_are_all_counted
            a_key_deleted_between_read_and_write_costs_one_attempt
            a_hostile_entry_spares_its_neighbours
            the_store_becomes_synced
        }
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! conformance_run_of {
    ($store:expr, $traits:expr, $($rule:ident)+) => {
        [$((stringify!($rule), tokio::spawn($rule(Arc::clone($store), $traits)))),+]
    };
}

/// Plays all rules at once on one store, for a store behind which stands a server that takes time to start.
///
/// # Panics
///
/// With the names of the rules that are broken; what each said is on standard error.
pub async fn all(store: &Arc<dyn Store>, traits: Traits) {
    let mut broken = Vec::new();
    for (rule, running) in crate::conformance_rules!(conformance_run_of store, traits) {
        if running.await.is_err() {
            broken.push(rule);
        }
    }
    assert!(broken.is_empty(), "{} breaks: {}", store.backend(), broken.join(", "));
}

/// Counters by name: the value that the rules are played with.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Counters(Entries<Arc<u64>>);

impl Counters {
    /// Counters with these values.
    pub fn of(counters: &[(&str, u64)]) -> Self {
        Self(counters.iter().map(|(id, count)| (EntryId::new(id), Arc::new(*count))).collect())
    }

    /// The counter called `id`, if there is one.
    pub fn count(&self, id: &str) -> Option<u64> {
        self.0.get(id).map(|count| **count)
    }

    /// Sets the counter called `id`.
    pub fn set(&mut self, id: &str, count: u64) {
        self.0.insert(EntryId::new(id), Arc::new(count));
    }
}

impl Value for Counters {
    type Entry = u64;

    fn codec() -> &'static dyn Codec {
        &CountersCodec
    }

    fn decode_entry(_id: &str, bytes: &[u8]) -> Result<u64, DecodeError> {
        let bytes = bytes.try_into().map_err(|_| DecodeError::new("a counter has eight bytes"))?;
        Ok(u64::from_be_bytes(bytes))
    }

    fn encode_entry(entry: &u64) -> Bytes {
        Bytes::copy_from_slice(&entry.to_be_bytes())
    }

    fn from_entries(entries: Entries<Arc<u64>>) -> Self {
        Self(entries)
    }

    fn entries(&self) -> &Entries<Arc<u64>> {
        &self.0
    }
}

/// Entries one after another, each as length, id, length, bytes; a leading zero, so that no entries are not no bytes.
struct CountersCodec;

impl Codec for CountersCodec {
    fn id(&self) -> &'static str {
        "counters"
    }

    fn split(&self, stored: &[u8]) -> Result<BTreeMap<EntryId, Bytes>, DecodeError> {
        let mut rest = Bytes::copy_from_slice(stored.strip_prefix(&[0]).ok_or_else(truncated)?);
        let mut entries = BTreeMap::new();
        while rest.has_remaining() {
            let id = take(&mut rest)?;
            let id =
                std::str::from_utf8(&id).map_err(|error| DecodeError::new(error.to_string()))?.to_owned();
            entries.insert(EntryId::from(id), take(&mut rest)?);
        }
        Ok(entries)
    }

    fn join(&self, entries: &BTreeMap<EntryId, Bytes>) -> Bytes {
        let mut joined = BytesMut::from(&[0][..]);
        for part in entries.iter().flat_map(|(id, entry)| [id.as_bytes(), entry]) {
            joined.put_u32(u32::try_from(part.len()).unwrap_or(u32::MAX));
            joined.put_slice(part);
        }
        joined.freeze()
    }

    fn check_entry(&self, id: &str, entry: &[u8]) -> Result<(), DecodeError> {
        Counters::decode_entry(id, entry).map(drop)
    }
}

fn truncated() -> DecodeError {
    DecodeError::new("truncated counters")
}

fn take(rest: &mut Bytes) -> Result<Bytes, DecodeError> {
    let len = rest.try_get_u32().map_err(|_| truncated())? as usize;
    if len > rest.len() {
        return Err(truncated());
    }
    Ok(rest.split_to(len))
}

type Shared = Arc<dyn Store>;

/// Lets every other task have a turn between any two calls, so that races happen for certain instead of by luck.
struct Interleaved(Shared);

#[async_trait]
impl Store for Interleaved {
    fn backend(&self) -> &'static str {
        self.0.backend()
    }

    async fn get(&self, key: &Key) -> Result<Option<Stored>, Error> {
        let read = self.0.get(key).await;
        yield_now().await;
        read
    }

    async fn list(&self, prefix: &str) -> Result<Vec<String>, Error> {
        self.0.list(prefix).await
    }

    async fn delete(&self, key: &Key) -> Result<(), Error> {
        self.0.delete(key).await
    }

    async fn delete_at(&self, key: &Key, version: u64) -> Result<bool, Error> {
        self.0.delete_at(key, version).await
    }

    async fn apply(&self, key: &Key, change: Change, when: Precondition) -> Result<Applied, Error> {
        yield_now().await;
        self.0.apply(key, change, when).await
    }

    async fn watch(&self, key: &Key) -> Result<Subscription, Error> {
        self.0.watch(key).await
    }

    fn synced(&self) -> watch::Receiver<bool> {
        self.0.synced()
    }
}

/// A client whose every write can be overtaken by another one.
fn racing_client(store: &Shared) -> Client<Counters> {
    Client::new(Arc::new(Interleaved(Arc::clone(store))), &Meter::disabled())
}

/// A key that no other rule and no earlier run uses.
fn fresh_key() -> Key {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let (run, number) = (rand::random::<u32>(), NEXT.fetch_add(1, Ordering::Relaxed));
    Key::new(format!("conformance/{run:08x}/{number}"), &CountersCodec)
}

fn set(id: &str, count: u64) -> Change {
    Change::upsert(id, Counters::encode_entry(&count))
}

async fn must<T>(call: impl Future<Output = Result<T, Error>>) -> T {
    call.await.expect("the call works")
}

async fn apply(store: &Shared, key: &Key, change: Change) -> Stored {
    match must(store.apply(key, change, Precondition::None)).await {
        Applied::Done(stored) => stored,
        Applied::Conflict => panic!("conflict without a precondition"),
    }
}

async fn counters(store: &Shared, key: &Key) -> Option<Counters> {
    must(store.get(key)).await.map(|stored| of_stored(&stored))
}

fn of_stored(stored: &Stored) -> Counters {
    let decode = |(id, entry): (&EntryId, &crate::store::EntryBytes)| {
        (id.clone(), Arc::new(Counters::decode_entry(id, &entry.bytes).expect("a counter")))
    };
    Counters(stored.entries.iter().map(decode).collect())
}

async fn hear(watch: &mut Subscription, traits: Traits) -> Option<Counters> {
    let heard = timeout(traits.settle, watch.changed()).await.expect("the watch reports in time");
    heard.expect("the store stays open").as_ref().map(of_stored)
}

/// Waits until the watch reports `expected`; what comes before does not matter.
async fn hear_at_last(watch: &mut Subscription, traits: Traits, expected: &Counters) {
    let expected = Some(expected.clone());
    timeout(traits.settle, async { while hear(watch, traits).await != expected {} })
        .await
        .expect("the watch reports the final value in time");
}

fn is_deleted(value: Option<&Counters>, traits: Traits) -> bool {
    match value {
        None => true,
        Some(value) => traits.delete_tombstones && value.0.is_empty(),
    }
}

/// Reading a key that nobody wrote is success.
pub async fn an_absent_key_reads_as_none(store: Shared, _: Traits) {
    assert_eq!(counters(&store, &fresh_key()).await, None);
}

/// A write returns what the key holds afterwards, and a read gives the same.
pub async fn what_is_written_is_read_back(store: Shared, _: Traits) {
    let key = fresh_key();
    let written = apply(&store, &key, set("a", 1)).await;
    assert_eq!(of_stored(&written), Counters::of(&[("a", 1)]));
    let read = must(store.get(&key)).await.expect("present");
    assert_eq!((read.version, of_stored(&read)), (written.version, of_stored(&written)));
}

/// A change touches the entries it names and no others.
pub async fn entries_that_are_not_named_stay_untouched(store: Shared, _: Traits) {
    let key = fresh_key();
    for id in ["a", "b", "c"] {
        apply(&store, &key, set(id, 1)).await;
    }
    let mut change = set("a", 2);
    change.removals.insert("b".into());
    let after = apply(&store, &key, change).await;
    assert_eq!(of_stored(&after), Counters::of(&[("a", 2), ("c", 1)]));
}

/// Naming an id in both parts of a change writes it.
pub async fn an_upsert_wins_over_a_removal_of_the_same_id(store: Shared, _: Traits) {
    let key = fresh_key();
    apply(&store, &key, set("a", 1)).await;
    let mut change = set("a", 2);
    change.removals.insert("a".into());
    assert_eq!(of_stored(&apply(&store, &key, change).await), Counters::of(&[("a", 2)]));
}

/// Removing what is not there is a no-op.
pub async fn removing_unknown_ids_changes_nothing(store: Shared, _: Traits) {
    let key = fresh_key();
    let before = apply(&store, &key, set("a", 1)).await;
    let after = apply(&store, &key, Change::remove("b")).await;
    assert_eq!((after.version, of_stored(&after)), (before.version, of_stored(&before)));
}

/// Writing what is there already is a no-op.
pub async fn a_change_that_changes_nothing_moves_no_version(store: Shared, _: Traits) {
    let key = fresh_key();
    let before = apply(&store, &key, set("a", 1)).await;
    assert_eq!(apply(&store, &key, set("a", 1)).await.version, before.version);
    assert_eq!(apply(&store, &key, Change::default()).await.version, before.version);
}

/// A key comes into being with its first entry.
pub async fn a_change_that_changes_nothing_creates_no_key(store: Shared, _: Traits) {
    let key = fresh_key();
    assert_eq!(apply(&store, &key, Change::remove("a")).await, Stored::absent());
    assert_eq!(apply(&store, &key, Change::default()).await, Stored::absent());
    assert_eq!(counters(&store, &key).await, None);
}

/// A watcher hears the value before and the value after, nothing in between.
pub async fn a_change_that_changes_nothing_wakes_no_watcher(store: Shared, traits: Traits) {
    let key = fresh_key();
    apply(&store, &key, set("a", 1)).await;
    let mut watch = must(store.watch(&key)).await;
    hear_at_last(&mut watch, traits, &Counters::of(&[("a", 1)])).await;
    apply(&store, &key, set("a", 1)).await;
    apply(&store, &key, Change::remove("b")).await;
    apply(&store, &key, set("a", 2)).await;
    assert_eq!(hear(&mut watch, traits).await, Some(Counters::of(&[("a", 2)])));
}

/// A write based on an old read is refused as a whole.
pub async fn a_stale_version_conflicts_and_changes_nothing(store: Shared, _: Traits) {
    let key = fresh_key();
    let old = apply(&store, &key, set("a", 1)).await;
    let new = apply(&store, &key, set("a", 2)).await;
    let mut change = set("a", 3);
    change.upserts.insert("b".into(), Counters::encode_entry(&1));
    let when = Precondition::Version(Some(old.version));
    assert_eq!(must(store.apply(&key, change.clone(), when)).await, Applied::Conflict);
    assert_eq!(must(store.apply(&key, change, Precondition::Version(None))).await, Applied::Conflict);
    assert_eq!(counters(&store, &key).await, Some(Counters::of(&[("a", 2)])));
    let when = Precondition::Version(Some(new.version));
    let Applied::Done(stored) = must(store.apply(&key, set("a", 3), when)).await else {
        panic!("the current version must not conflict")
    };
    assert_eq!(of_stored(&stored), Counters::of(&[("a", 3)]));
}

/// "Only if absent" holds once.
pub async fn a_key_is_created_only_if_absent(store: Shared, _: Traits) {
    let key = fresh_key();
    let version = Precondition::Version(Some(1 << 40));
    assert_eq!(must(store.apply(&key, set("a", 1), version)).await, Applied::Conflict);
    assert_eq!(counters(&store, &key).await, None);
    let created = must(store.apply(&key, set("a", 1), Precondition::Version(None))).await;
    assert!(matches!(created, Applied::Done(_)));
    assert_eq!(must(store.apply(&key, set("a", 2), Precondition::Version(None))).await, Applied::Conflict);
}

/// A version identifies one content of a key for good.
pub async fn versions_grow_and_are_not_repeated_after_a_delete(store: Shared, _: Traits) {
    let key = fresh_key();
    let first = apply(&store, &key, set("a", 1)).await.version;
    let second = apply(&store, &key, set("a", 2)).await.version;
    must(store.delete(&key)).await;
    let third = apply(&store, &key, set("a", 3)).await.version;
    assert!(0 < first && first < second && second < third, "{first} {second} {third}");
    let stale = must(store.apply(&key, set("a", 4), Precondition::Version(Some(second)))).await;
    assert_eq!(stale, Applied::Conflict);
}

/// An empty value is not an absent one.
pub async fn removing_the_last_entry_leaves_an_empty_value(store: Shared, _: Traits) {
    let key = fresh_key();
    apply(&store, &key, set("a", 1)).await;
    assert_eq!(of_stored(&apply(&store, &key, Change::remove("a")).await), Counters::default());
    assert_eq!(counters(&store, &key).await, Some(Counters::default()));
    assert_eq!(must(store.list(&key.name)).await, [key.name.to_string()]);
}

/// Deleting is idempotent, and the key can be created anew.
pub async fn delete_removes_the_key_and_an_absent_key_is_success(store: Shared, traits: Traits) {
    let key = fresh_key();
    must(store.delete(&key)).await;
    apply(&store, &key, set("a", 1)).await;
    must(store.delete(&key)).await;
    must(store.delete(&key)).await;
    assert!(is_deleted(counters(&store, &key).await.as_ref(), traits));
    assert_eq!(must(store.list(&key.name)).await, [""; 0]);
    assert_eq!(of_stored(&apply(&store, &key, set("b", 2)).await), Counters::of(&[("b", 2)]));
}

/// Names are complete, absent and foreign keys are left out.
pub async fn list_names_present_keys_below_a_prefix_in_order(store: Shared, _: Traits) {
    let base = fresh_key().name;
    let name = |suffix: &str| format!("{base}{suffix}");
    for suffix in ["/b", "/a", "/a/1", "-other", "/gone"] {
        apply(&store, &Key::new(name(suffix), &CountersCodec), set("x", 1)).await;
    }
    must(store.delete(&Key::new(name("/gone"), &CountersCodec))).await;
    assert_eq!(must(store.list(&name("/"))).await, [name("/a"), name("/a/1"), name("/b")]);
}

/// The first report needs no change.
pub async fn a_watch_starts_with_the_current_value(store: Shared, traits: Traits) {
    let key = fresh_key();
    apply(&store, &key, set("a", 1)).await;
    let mut watch = must(store.watch(&key)).await;
    assert_eq!(hear(&mut watch, traits).await, Some(Counters::of(&[("a", 1)])));
}

/// The absence of a key is a value too.
pub async fn a_watch_of_an_absent_key_reports_absence_then_creation(store: Shared, traits: Traits) {
    let key = fresh_key();
    let mut watch = must(store.watch(&key)).await;
    assert_eq!(hear(&mut watch, traits).await, None);
    apply(&store, &key, set("a", 1)).await;
    hear_at_last(&mut watch, traits, &Counters::of(&[("a", 1)])).await;
}

/// A deletion reaches the watcher, and so does what is created afterwards.
pub async fn a_watch_reports_deletion_and_new_creation(store: Shared, traits: Traits) {
    let key = fresh_key();
    apply(&store, &key, set("a", 1)).await;
    let mut watch = must(store.watch(&key)).await;
    hear_at_last(&mut watch, traits, &Counters::of(&[("a", 1)])).await;
    must(store.delete(&key)).await;
    assert!(is_deleted(hear(&mut watch, traits).await.as_ref(), traits));
    apply(&store, &key, set("b", 1)).await;
    hear_at_last(&mut watch, traits, &Counters::of(&[("b", 1)])).await;
}

/// What a slow reader misses is coalesced; the newest value is never lost.
pub async fn a_slow_watcher_gets_the_newest_value_once(store: Shared, traits: Traits) {
    let key = fresh_key();
    let mut slow = must(store.watch(&key)).await;
    let mut quick = must(store.watch(&key)).await;
    for count in 1..=100 {
        apply(&store, &key, set("a", count)).await;
    }
    let last = Counters::of(&[("a", 100)]);
    hear_at_last(&mut quick, traits, &last).await;
    hear_at_last(&mut slow, traits, &last).await;
    apply(&store, &key, set("a", 101)).await;
    assert_eq!(hear(&mut slow, traits).await, Some(Counters::of(&[("a", 101)])));
}

/// Keys that begin alike are different keys.
pub async fn a_watch_hears_only_of_its_own_key(store: Shared, traits: Traits) {
    let key = fresh_key();
    let longer = Key::new(format!("{}x", key.name), key.codec);
    let mut watch = must(store.watch(&key)).await;
    assert_eq!(hear(&mut watch, traits).await, None);
    apply(&store, &longer, set("other", 1)).await;
    apply(&store, &key, set("own", 1)).await;
    assert_eq!(hear(&mut watch, traits).await, Some(Counters::of(&[("own", 1)])));
}

/// An entry that goes is heard of, also when nothing else is written.
pub async fn a_watch_reports_a_removed_entry(store: Shared, traits: Traits) {
    let key = fresh_key();
    let mut both = set("a", 1);
    both.upserts.insert("b".into(), Counters::encode_entry(&2));
    apply(&store, &key, both).await;
    let mut watch = must(store.watch(&key)).await;
    hear_at_last(&mut watch, traits, &Counters::of(&[("a", 1), ("b", 2)])).await;
    // First the newest entry, then one that is older than what is left.
    apply(&store, &key, Change::remove("b")).await;
    hear_at_last(&mut watch, traits, &Counters::of(&[("a", 1)])).await;
    apply(&store, &key, set("c", 3)).await;
    apply(&store, &key, Change::remove("a")).await;
    hear_at_last(&mut watch, traits, &Counters::of(&[("c", 3)])).await;
}

/// A write based on a read before an entry went is refused.
pub async fn a_removal_makes_earlier_reads_stale(store: Shared, _: Traits) {
    let key = fresh_key();
    apply(&store, &key, set("a", 1)).await;
    let old = apply(&store, &key, set("b", 2)).await;
    let new = apply(&store, &key, Change::remove("a")).await;
    assert!(new.version > old.version, "{} after {}", new.version, old.version);
    let when = Precondition::Version(Some(old.version));
    assert_eq!(must(store.apply(&key, set("b", 3), when)).await, Applied::Conflict);
    assert_eq!(counters(&store, &key).await, Some(Counters::of(&[("b", 2)])));
}

/// Writers of different entries do not disturb each other.
pub async fn concurrent_changes_of_different_entries_all_land(store: Shared, traits: Traits) {
    const WRITERS: u64 = 16;
    let key = fresh_key();
    let client = racing_client(&store);
    let mut watch = must(store.watch(&key)).await;
    let mut writers = JoinSet::new();
    for writer in 0..WRITERS {
        let (client, name) = (client.clone(), Arc::clone(&key.name));
        writers.spawn(async move {
            for count in 0..10 {
                must(client.upsert_own(&name, &format!("writer-{writer}"), &count)).await;
            }
        });
    }
    writers.join_all().await;
    let expected = Counters((0..WRITERS).map(|w| (format!("writer-{w}").into(), Arc::new(9))).collect());
    assert_eq!(counters(&store, &key).await, Some(expected.clone()));
    hear_at_last(&mut watch, traits, &expected).await;
}

/// No increment is lost and none is counted twice.
pub async fn concurrent_increments_are_all_counted(store: Shared, _: Traits) {
    const WRITERS: u64 = 4;
    const INCREMENTS: u64 = 10;
    let key = fresh_key();
    let client = racing_client(&store);
    let mut writers = JoinSet::new();
    for _ in 0..WRITERS {
        let (client, name) = (client.clone(), Arc::clone(&key.name));
        writers.spawn(async move {
            for _ in 0..INCREMENTS {
                while let Err(error) = client.cas(&name, |now| Decision::Write(incremented(now), ())).await {
                    assert!(error.is_retryable(), "{error}");
                }
            }
        });
    }
    writers.join_all().await;
    assert_eq!(counters(&store, &key).await, Some(Counters::of(&[("a", WRITERS * INCREMENTS)])));
}

fn incremented(now: Option<&Counters>) -> Counters {
    let mut next = now.cloned().unwrap_or_default();
    next.set("a", next.count("a").unwrap_or(0) + 1);
    next
}

/// The version to compare with comes from each attempt's own read.
pub async fn a_key_deleted_between_read_and_write_costs_one_attempt(store: Shared, _: Traits) {
    let key = fresh_key();
    let client = Client::<Counters>::new(Arc::clone(&store), &Meter::disabled());
    apply(&store, &key, set("a", 7)).await;
    let read = must(store.get(&key)).await.expect("present");
    must(store.delete(&key)).await;
    let stale = must(store.apply(&key, set("a", 8), Precondition::Version(Some(read.version)))).await;
    assert_eq!(stale, Applied::Conflict);
    let outcome = must(client.cas(&key.name, |now| Decision::Write(incremented(now), ()))).await;
    assert_eq!(outcome.view.expect("present").value.count("a"), Some(1));
    assert_eq!(outcome.attempts, 1);
}

/// One unreadable entry fails a read by name, but neither writers nor watchers of the others.
pub async fn a_hostile_entry_spares_its_neighbours(store: Shared, traits: Traits) {
    let key = fresh_key();
    let client = Client::<Counters>::new(Arc::clone(&store), &Meter::disabled());
    apply(&store, &key, set("good", 1)).await;
    if store.apply(&key, Change::upsert("bad", "?"), Precondition::None).await.is_err() {
        return; // A store that checks entries itself does not let it in at all.
    }
    let error = client.get(&key.name).await.expect_err("the value is not readable as a whole").to_string();
    assert!(error.contains("`bad`") && error.contains(&*key.name), "{error}");
    let view = must(client.upsert_own(&key.name, "good", &2)).await;
    assert_eq!(*view.value, Counters::of(&[("good", 2)]));
    let mut watch = must(client.watch(&key.name)).await;
    let update = timeout(traits.settle, watch.next()).await.expect("in time").expect("open");
    assert_eq!(update.value.as_deref(), Some(&Counters::of(&[("good", 2)])));
}

/// A store that stands alone, or whose cluster is reachable, says so in the end.
pub async fn the_store_becomes_synced(store: Shared, traits: Traits) {
    let mut synced = store.synced();
    let became = timeout(traits.settle, synced.wait_for(|synced| *synced)).await;
    assert!(*became.expect("in time").expect("open"));
}
