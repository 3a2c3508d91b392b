//! What several write at the same time, or before they have heard of each other.

use ringkit_kv::Applied;

use super::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_whose_last_entries_go_at_the_same_time_is_empty_and_not_absent() {
    let processes = cluster(2).await;
    let [a, b] = [&processes[0], &processes[1]];
    for round in 0..10 {
        let key = format!("ring-{round}");
        let [one, other] = [a, b].map(Process::counters);
        one.upsert_own(&key, "a", &1).await.unwrap();
        other.upsert_own(&key, "b", &1).await.unwrap();
        for process in [a, b] {
            let mut watch = process.counters().watch(&key).await.unwrap();
            see(&mut watch, |update| ["a", "b"].iter().all(|id| counts(update, id) == Some(1))).await;
        }
        let (gone, gone_too) = tokio::join!(one.remove_own(&key, "a"), other.remove_own(&key, "b"));
        gone.unwrap();
        gone_too.unwrap();
        for process in [a, b] {
            let mut watch = process.counters().watch(&key).await.unwrap();
            let empty = Some(Counters::default());
            see(&mut watch, |update| update.value.as_deref() == empty.as_ref()).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_others_write_is_in_the_way_only_of_who_names_it() {
    let processes = cluster(2).await;
    let [a, b] = [&processes[0], &processes[1]];
    a.counters().upsert_own(KEY, "a", &1).await.unwrap();
    b.counters().upsert_own(KEY, "b", &1).await.unwrap();
    must_see(a, "b", Some(1)).await;
    let key = Key::new(KEY, Counters::codec());
    let read = a.store.get(&key).await.unwrap().unwrap();
    b.counters().upsert_own(KEY, "b", &2).await.unwrap();
    must_see(a, "b", Some(2)).await;

    let when = Precondition::Version(Some(read.version));
    let set = |id: &str| Change::upsert(id, Counters::encode_entry(&7));
    assert_eq!(a.store.apply(&key, set("b"), when).await.unwrap(), Applied::Conflict);
    let applied = a.store.apply(&key, set("a"), when).await.unwrap();
    assert!(matches!(applied, Applied::Done(stored) if stored.version > read.version));
    assert_eq!(a.store.apply(&key, set("a"), when).await.unwrap(), Applied::Conflict, "it is written now");
    must_see(b, "a", Some(7)).await;
    must_see(a, "b", Some(2)).await;
}
