use futures::FutureExt;
use proptest::collection::{btree_map, btree_set, vec};
use proptest::prelude::*;
use tokio::time::{Duration, timeout};

use super::*;
use crate::codec::StringCodec;

crate::conformance_tests!(InMemory::default());

type Model = BTreeMap<String, BTreeMap<EntryId, Vec<u8>>>;

#[derive(Clone, Debug)]
enum Operation {
    Apply { key: String, change: Change, only_if: OnlyIf },
    Delete { key: String },
}

#[derive(Clone, Copy, Debug)]
enum OnlyIf {
    Always,
    Unmoved,
    Absent,
    /// At a version that the key does not have.
    Moved,
}

fn operation() -> impl Strategy<Value = Operation> {
    let id = || "[a-d]".prop_map(EntryId::from);
    let change = (btree_map(id(), "[x-z]{0,2}".prop_map(bytes::Bytes::from), 0..3), btree_set(id(), 0..3))
        .prop_map(|(upserts, removals)| Change { upserts, removals, ..Change::default() });
    let only_if =
        prop_oneof![Just(OnlyIf::Always), Just(OnlyIf::Unmoved), Just(OnlyIf::Absent), Just(OnlyIf::Moved)];
    prop_oneof![
        9 => ("k[12]", change, only_if)
            .prop_map(|(key, change, only_if)| Operation::Apply { key, change, only_if }),
        1 => "k[12]".prop_map(|key| Operation::Delete { key }),
    ]
}

fn key(name: &str) -> Key {
    Key::new(name, &StringCodec)
}

fn get(store: &InMemory, name: &str) -> Option<Stored> {
    store.get(&key(name)).now_or_never().unwrap().unwrap()
}

fn plain(stored: &Stored) -> BTreeMap<EntryId, Vec<u8>> {
    stored.entries.iter().map(|(id, entry)| (id.clone(), entry.bytes.to_vec())).collect()
}

/// Plays one operation on the model; false if its precondition does not hold.
fn play(model: &mut Model, operation: &Operation) -> bool {
    match operation {
        Operation::Delete { key } => {
            model.remove(key);
        }
        Operation::Apply { key, change, only_if } => {
            let present = model.contains_key(key);
            match only_if {
                OnlyIf::Always | OnlyIf::Unmoved => (),
                OnlyIf::Absent if !present => (),
                OnlyIf::Absent | OnlyIf::Moved => return false,
            }
            if !present && change.upserts.is_empty() {
                return true;
            }
            let entries = model.entry(key.clone()).or_default();
            entries.retain(|id, _| !change.removals.contains(id));
            entries.extend(change.upserts.iter().map(|(id, entry)| (id.clone(), entry.to_vec())));
        }
    }
    true
}

proptest! {
    #[test]
    fn any_sequence_of_operations_equals_a_map_of_maps(operations in vec(operation(), 1..60)) {
        let store = InMemory::default();
        let mut model = Model::new();
        let mut watches: BTreeMap<String, Subscription> = ["k1", "k2"]
            .map(|name| (name.to_owned(), store.watch(&key(name)).now_or_never().unwrap().unwrap()))
            .into();
        let mut versions = BTreeMap::from([("k1".to_owned(), 0), ("k2".to_owned(), 0)]);
        for operation in operations {
            let before = model.clone();
            let accepted = play(&mut model, &operation);
            match operation {
                Operation::Delete { key: name } => store.delete(&key(&name)).now_or_never().unwrap().unwrap(),
                Operation::Apply { key: name, change, only_if } => {
                    let current = get(&store, &name).map(|stored| stored.version);
                    let when = match only_if {
                        OnlyIf::Always => Precondition::None,
                        OnlyIf::Unmoved => Precondition::Version(current),
                        OnlyIf::Absent => Precondition::Version(None),
                        OnlyIf::Moved => Precondition::Version(Some(current.unwrap_or(0) + 1)),
                    };
                    match store.apply(&key(&name), change, when).now_or_never().unwrap().unwrap() {
                        Applied::Conflict => prop_assert!(!accepted),
                        Applied::Done(stored) => {
                            prop_assert!(accepted);
                            prop_assert_eq!(&plain(&stored), &model.get(&name).cloned().unwrap_or_default());
                            let last = versions.insert(name.clone(), stored.version.max(versions[&name])).unwrap();
                            if model.get(&name) != before.get(&name) {
                                prop_assert!(stored.version > last, "a change moves the version");
                            } else if stored.version != 0 {
                                prop_assert_eq!(stored.version, last, "no change moves no version");
                            }
                        }
                    }
                }
            }
            for name in ["k1", "k2"] {
                prop_assert_eq!(get(&store, name).as_ref().map(plain), model.get(name).cloned());
                // A watcher is woken exactly if there is something new to hear.
                let heard = watches.get_mut(name).unwrap().changed().now_or_never();
                if model.get(name) != before.get(name) {
                    prop_assert_eq!(heard.unwrap().unwrap().as_ref().map(plain), model.get(name).cloned());
                } else {
                    prop_assert!(heard.is_none_or(|value| value.unwrap().is_none()), "only the first report repeats");
                }
            }
            let names: Vec<_> = model.keys().cloned().collect();
            prop_assert_eq!(store.list("k").now_or_never().unwrap().unwrap(), names);
        }
        let bytes = |entries: &BTreeMap<EntryId, Vec<u8>>| entries.iter().map(|(id, e)| id.len() + e.len()).sum();
        let accounted: BTreeMap<_, _> =
            store.shared.keys.lock().slots.iter().map(|(name, slot)| (name.to_string(), slot.bytes)).collect();
        for (name, size) in accounted {
            prop_assert_eq!(size, model.get(&name).map_or(0, bytes), "the size of {} is accounted for", name);
        }
        prop_assert_eq!(store.shared.keys.lock().present, model.len());
    }
}

#[tokio::test]
async fn a_write_beyond_a_limit_changes_nothing_and_says_which() {
    let store =
        InMemory::new(Limits { max_id_bytes: 2, max_entry_bytes: 4, max_value_bytes: 8, max_keys: 1 });
    let upsert = |id: &'static str, entry: &'static str| Change::upsert(id, entry);
    let attempt = async |name, change| store.apply(&key(name), change, Precondition::None).await;
    attempt("k", upsert("a", "1234")).await.unwrap();
    let refused = [
        ("k", upsert("aaa", ""), "bytes of an entry id"),
        ("k", upsert("a", "12345"), "bytes of one entry"),
        ("k", upsert("b", "1234"), "bytes of all entries"),
        ("other", upsert("a", "1"), "keys in the store"),
    ];
    for (name, change, what) in refused {
        let error = attempt(name, change).await.unwrap_err();
        assert!(error.to_string().contains(what) && !error.is_retryable(), "{error}");
    }
    assert_eq!(plain(&get(&store, "k").unwrap()).len(), 1);
    assert_eq!(store.list("").await.unwrap(), ["k"]);
    // What is freed can be used again.
    attempt("k", upsert("a", "1")).await.unwrap();
    attempt("k", upsert("b", "1")).await.unwrap();
    store.delete(&key("k")).await.unwrap();
    attempt("other", upsert("a", "1")).await.unwrap();
}

#[tokio::test]
async fn a_watch_ends_when_the_store_is_gone() {
    let store = InMemory::default();
    let mut watch = store.watch(&key("k")).await.unwrap();
    assert_eq!(watch.changed().await, Some(None));
    drop(store);
    let end = timeout(Duration::from_secs(5), watch.changed()).await;
    assert_eq!(end.unwrap(), None);
}

#[tokio::test]
async fn a_watch_of_an_absent_key_leaves_nothing_behind() {
    let store = InMemory::default();
    let watches = [store.watch(&key("k")).await.unwrap(), store.watch(&key("k")).await.unwrap()];
    assert_eq!(store.shared.keys.lock().slots.len(), 1);
    drop(watches);
    assert_eq!(store.shared.keys.lock().slots.len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn all_rules_hold_on_one_store_at_once() {
    let store: Arc<dyn Store> = Arc::new(InMemory::default());
    crate::conformance::all(&store, crate::conformance::Traits::default()).await;
}
