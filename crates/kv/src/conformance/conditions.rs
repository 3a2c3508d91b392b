//! Rules of what is written, or removed, by what was read before.

use tokio::task::yield_now;
use tokio::time::timeout;

use super::{Counters, Shared, Traits, apply, counters, fresh_key, is_deleted, must, set};
use crate::store::{Applied, Change, Precondition, Stored};

/// With a key goes what was looked at, and nothing that came since.
pub async fn a_key_that_moved_is_not_deleted_by_what_was_read_of_it(store: Shared, traits: Traits) {
    let key = fresh_key();
    assert!(!must(store.delete_at(&key, 1 << 40)).await, "an absent key is at no version");
    let old = apply(&store, &key, set("a", 1)).await;
    apply(&store, &key, set("b", 2)).await;
    assert!(!must(store.delete_at(&key, old.version)).await);
    assert_eq!(counters(&store, &key).await, Some(Counters::of(&[("a", 1), ("b", 2)])));
    let deleted = async {
        loop {
            let read = must(store.get(&key)).await.expect("present");
            if must(store.delete_at(&key, read.version)).await {
                return;
            }
            yield_now().await;
        }
    };
    timeout(traits.settle, deleted).await.expect("in time");
    assert!(is_deleted(counters(&store, &key).await.as_ref(), traits));
    assert_eq!(must(store.list(&key.name)).await, [""; 0]);
}

/// Whoever names entries and not the whole key is refused once one of them moved. What becomes of it if only others did is the
/// store's to say.
pub async fn a_change_conflicts_only_by_what_it_names_if_it_says_so(store: Shared, _: Traits) {
    let key = fresh_key();
    let when = |stored: &Stored| Precondition::Entries(Some(stored.version));
    let created = must(store.apply(&key, set("a", 1), Precondition::Entries(None))).await;
    assert!(matches!(created, Applied::Done(_)));
    let again = must(store.apply(&key, set("a", 2), Precondition::Entries(None))).await;
    assert_eq!(again, Applied::Conflict, "it is there by now");
    let old = apply(&store, &key, set("b", 1)).await;
    let new = apply(&store, &key, set("b", 2)).await;
    assert_eq!(must(store.apply(&key, set("b", 3), when(&old))).await, Applied::Conflict);
    apply(&store, &key, set("c", 1)).await;
    apply(&store, &key, Change::remove("c")).await;
    assert_eq!(must(store.apply(&key, set("c", 2), when(&new))).await, Applied::Conflict, "it came and went");
    let written = must(store.apply(&key, set("a", 2), when(&new))).await;
    let count = if matches!(written, Applied::Done(_)) { 2 } else { 1 };
    assert_eq!(counters(&store, &key).await, Some(Counters::of(&[("a", count), ("b", 2)])));
    let last = apply(&store, &key, set("b", 4)).await;
    assert!(matches!(must(store.apply(&key, set("b", 5), when(&last))).await, Applied::Done(_)));
    assert_eq!(counters(&store, &key).await, Some(Counters::of(&[("a", count), ("b", 5)])));
}
