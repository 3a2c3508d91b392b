mod laws;
mod overruling;
mod removals;

use proptest::prelude::*;

use super::*;
use crate::register::{MAX_BODY_BYTES, MAX_FACETS, MAX_ID_BYTES};
use crate::time::Hlc;

const OWN: u64 = 9;
const PEER: u64 = 2;
/// Wall milliseconds when monotonic time began.
const WALL: u64 = 1_700_000_000_000;
const HOUR: u64 = 60 * 60 * 1_000;
const DAY: u64 = 24 * HOUR;

/// So many milliseconds after the beginning.
fn at(ms: u64) -> Now {
    Now { mono: Duration::from_millis(ms), wall_ms: WALL + ms }
}

fn body(text: Option<&'static str>) -> Body {
    text.map_or(Body::Tombstone, |text| Body::Live(Bytes::from_static(text.as_bytes())))
}

/// Written so many milliseconds after the beginning.
fn register(epoch: u32, ms: u64, author: u64, text: Option<&'static str>) -> Register {
    Register { version: Version { epoch, hlc: Hlc::from_ms(WALL + ms) }, author, body: body(text) }
}

fn entry(id: &str) -> EntryId {
    EntryId::new(id, 0)
}

fn store() -> Store {
    Store::new(Limits::default(), OWN)
}

fn held<'a>(store: &'a Store, key: &str, id: &str) -> Option<&'a Register> {
    store.get(key, &entry(id)).map(Slot::register)
}

fn contents(store: &Store) -> Vec<(String, EntryId, Register)> {
    let mut contents = Vec::new();
    for key in store.keys() {
        for (entry, slot) in store.registers(key) {
            contents.push((key.to_owned(), entry.clone(), slot.register().clone()));
        }
    }
    contents
}

/// So long after the beginning, which is 40 s before a tick, that all that was written within a minute of it has expired.
const LATE: u64 = DAY + 2 * 60_000;

/// A store that was given what `store` holds, and nothing before.
fn rebuilt(store: &Store, now: Now) -> Store {
    let mut rebuilt = Store::new(Limits { max_bytes: usize::MAX, ..Limits::default() }, OWN);
    for (key, entry, register) in contents(store) {
        assert_eq!(rebuilt.merge(now, &key, &entry, &register, None), Merged::New);
    }
    rebuilt
}

#[track_caller]
fn assert_equal(one: &Store, other: &Store) {
    assert_eq!(contents(one), contents(other));
    assert_eq!(one.root(), other.root());
    assert_eq!(one.sizes(), other.sizes());
    assert!(one.digests().eq(other.digests()));
    for key in one.keys() {
        assert_eq!(one.buckets(key), other.buckets(key));
        assert_eq!(one.key_sizes(key), other.key_sizes(key));
    }
}

#[test]
fn the_later_version_stays_whichever_comes_first() {
    let (early, late) = (register(0, 1, PEER, Some("early")), register(0, 2, PEER, Some("late")));
    let mut store = store();
    assert_eq!(store.merge(at(5), "k", &entry("i"), &early, None), Merged::New);
    assert_eq!(store.merge(at(5), "k", &entry("i"), &early, None), Merged::Same);
    assert_eq!(store.merge(at(5), "k", &entry("i"), &late, None), Merged::Changed);
    let version = store.local_version("k");
    assert_eq!(store.merge(at(5), "k", &entry("i"), &early, None), Merged::Older);
    assert_eq!(store.merge(at(5), "k", &entry("i"), &late, None), Merged::Same);
    assert_eq!(held(&store, "k", "i"), Some(&late));
    assert_eq!(store.local_version("k"), version);
    assert!(Merged::New.is_change() && Merged::Changed.is_change());
    assert!(!Merged::Same.is_change() && !Merged::Older.is_change());
    assert!(!Merged::Refused(Reason::ClockAhead).is_change());
}

#[test]
fn what_no_store_may_hold_is_refused_from_others_and_from_ourselves() {
    let mut store = store();
    let long = "x".repeat(MAX_ID_BYTES + 1);
    let large = Body::Live(Bytes::from(vec![0; MAX_BODY_BYTES + 1]));
    let cases = [
        (long.as_str(), entry("i"), body(Some("b")), Reason::KeyTooLong),
        ("k", entry(&long), body(Some("b")), Reason::IdTooLong),
        ("k", EntryId::new("i", MAX_FACETS), body(Some("b")), Reason::FacetOutOfRange),
        ("k", entry("i"), large, Reason::BodyTooLarge),
    ];
    for (key, entry, body, reason) in cases {
        let register = Register { body: body.clone(), ..register(0, 1, PEER, None) };
        assert_eq!(store.merge(at(5), key, &entry, &register, None), Merged::Refused(reason));
        let written = store.write(at(5), key, &entry, body.clone(), &mut Clock::default());
        assert_eq!(written, Err(reason));
        let Body::Live(bytes) = body else { panic!("a tombstone") };
        let changes = [(EntryId::new("fine", 0), None), (entry.clone(), Some(bytes))];
        let applied = store.apply(at(5), key, None, &changes, &mut Clock::default());
        let refused = if reason == Reason::KeyTooLong { EntryId::new("fine", 0) } else { entry };
        assert_eq!(applied, Err(NotApplied::Refused { entry: refused, reason }));
    }
    let beyond = register(MAX_EPOCH + 1, 1, PEER, Some("b"));
    let merged = store.merge(at(5), "k", &entry("i"), &beyond, None);
    assert_eq!(merged, Merged::Refused(Reason::EpochOutOfRange));
    assert_eq!(store.num_keys(), 0);
    assert!(store.take_changes().is_empty());

    let longest = "x".repeat(MAX_ID_BYTES);
    let largest = Body::Live(Bytes::from(vec![0; MAX_BODY_BYTES]));
    let place = EntryId::new(longest.as_str(), MAX_FACETS - 1);
    assert!(store.write(at(5), &longest, &place, largest, &mut Clock::default()).is_ok());
}

#[test]
fn a_clock_that_is_ahead_is_refused_unless_it_was_our_own() {
    let mut store = store();
    for (author, ms, merged) in [
        (PEER, 60_005, Merged::New),
        (PEER, 60_006, Merged::Refused(Reason::ClockAhead)),
        (OWN, 60_006, Merged::Changed),
        (OWN, 1_000 * DAY, Merged::Changed),
    ] {
        let ahead = register(0, ms, author, Some("b"));
        assert_eq!(store.merge(at(5), "k", &entry("i"), &ahead, None), merged, "{author} at {ms}");
    }
    // What is stored is known for what it is, also when our clock has jumped back.
    let stored = held(&store, "k", "i").unwrap().clone();
    let mut other = Store::new(Limits::default(), PEER);
    let before = Now { wall_ms: WALL + 2_000 * DAY, ..at(5) };
    assert_eq!(other.merge(before, "k", &entry("i"), &stored, None), Merged::New);
    assert_eq!(other.merge(at(5), "k", &entry("i"), &stored, None), Merged::Same);
}

#[test]
fn a_full_store_refuses_what_is_new_and_of_others() {
    let limits = Limits { max_keys: 2, max_entries_per_key: 2, ..Limits::default() };
    let mut store = Store::new(limits, OWN);
    let (peer, own) = (register(0, 1, PEER, Some("b")), register(0, 1, OWN, Some("b")));
    for (key, id, register, merged) in [
        ("a", "1", &peer, Merged::New),
        ("a", "2", &peer, Merged::New),
        ("a", "3", &peer, Merged::Refused(Reason::TooManyEntries)),
        ("a", "3", &own, Merged::New),
        ("b", "1", &peer, Merged::New),
        ("c", "1", &peer, Merged::Refused(Reason::TooManyKeys)),
        ("c", "1", &own, Merged::New),
        ("c", "2", &peer, Merged::New),
        // Even those that look like our own have an end.
        ("a", "4", &own, Merged::New),
        ("a", "5", &own, Merged::Refused(Reason::TooManyEntries)),
        ("d", "1", &own, Merged::New),
        ("e", "1", &own, Merged::Refused(Reason::TooManyKeys)),
    ] {
        assert_eq!(store.merge(at(5), key, &entry(id), register, None), merged, "{key} {id}");
    }
    let later = register(0, 2, PEER, Some("longer"));
    assert_eq!(store.merge(at(5), "a", &entry("1"), &later, None), Merged::Changed);
    // As many facets as there may be are one entry, and what was removed is none.
    for facet in 1..MAX_FACETS {
        assert_eq!(store.merge(at(5), "b", &EntryId::new("1", facet), &peer, None), Merged::New);
    }
    let removed = register(0, 3, PEER, None);
    for id in ["2", "3", "4"] {
        assert_eq!(store.merge(at(5), "b", &entry(id), &removed, None), Merged::New);
    }
    assert_eq!((store.key_sizes("b").live_ids, store.key_sizes("b").entries), (1, 7));
    assert_eq!(store.merge(at(5), "b", &entry("5"), &peer, None), Merged::New);
    assert_eq!(store.merge(at(5), "b", &entry("6"), &peer, None), Merged::Refused(Reason::TooManyEntries));
    // What is beside the facets of entries counts by its bytes only.
    let beside = EntryId::new("6", HEARTBEAT_FACET + 1);
    assert_eq!(store.merge(at(5), "b", &beside, &peer, None), Merged::New);
    let mut clock = Clock::default();
    assert!(store.write(at(5), "a", &entry("6"), body(Some("b")), &mut clock).is_ok());
    assert!(store.write(at(5), "f", &entry("1"), body(Some("b")), &mut clock).is_ok());
}

#[test]
fn a_store_full_of_bytes_takes_tombstones_and_some_of_what_it_knows() {
    const BODY: usize = 10_000;
    let sized = |ms: u64, bytes: usize| Register {
        body: Body::Live(Bytes::from(vec![0; bytes])),
        ..register(0, ms, PEER, None)
    };
    let full = Merged::Refused(Reason::TooManyBytes);
    let mut store = Store::new(Limits { max_bytes: 2 * BODY, ..Limits::default() }, OWN);
    assert_eq!(store.merge(at(5), "k", &entry("i"), &sized(1, BODY), None), Merged::New);
    assert_eq!(store.merge(at(5), "k", &entry("j"), &sized(1, BODY), None), full);
    // An update passes the limit, but not twice the limit.
    assert_eq!(store.merge(at(5), "k", &entry("i"), &sized(2, 3 * BODY), None), Merged::Changed);
    assert_eq!(store.merge(at(5), "k", &entry("i"), &sized(3, 4 * BODY), None), full);
    assert_eq!(store.merge(at(5), "k", &entry("i"), &sized(3, 3 * BODY), None), Merged::Changed);
    let written =
        store.upsert(at(5), "k", &entry("own"), Bytes::from(vec![0; 2 * BODY]), &mut Clock::default());
    assert!(written.is_ok() && store.sizes().bytes > 5 * BODY);
    assert_eq!(store.merge(at(5), "k", &entry("i"), &sized(4, 3 * BODY), None), Merged::Changed);
    let tombstone = register(0, 5, PEER, None);
    assert_eq!(store.merge(at(5), "k", &entry("i"), &tombstone, None), Merged::Changed);
    assert!(store.sizes().bytes < 3 * BODY);
}

#[test]
fn removing_leaves_a_tombstone_where_there_was_something() {
    let mut store = store();
    let mut clock = Clock::default();
    assert_eq!(store.remove(at(5), "k", &entry("i"), &mut clock), None);
    let written = store.upsert(at(5), "k", &entry("i"), Bytes::from_static(b"b"), &mut clock).unwrap();
    assert_eq!(store.live("k").map(|(entry, _)| entry.id.as_str()).collect::<Vec<_>>(), ["i"]);
    let removed = store.remove(at(5), "k", &entry("i"), &mut clock).unwrap();
    assert!(removed.is_tombstone() && removed.supersedes(&written));
    assert_eq!(store.remove(at(5), "k", &entry("i"), &mut clock), None);
    assert_eq!((store.live("k").count(), store.registers("k").count()), (0, 1));
    assert_eq!((store.sizes().entries, store.sizes().tombstones), (1, 1));
}

#[test]
fn ages_are_told_by_the_sender_and_grow_here() {
    let mut store = store();
    let heartbeat = EntryId::new("i", HEARTBEAT_FACET);
    let age = |store: &Store, ms| store.get("k", &heartbeat).unwrap().age(at(ms)).as_millis();
    let beat = |store: &mut Store, now, ms, age: Option<u64>| {
        let age = age.map(Duration::from_millis);
        store.merge(at(now), "k", &heartbeat, &register(0, ms, PEER, Some("beat")), age)
    };
    // Older than this process.
    assert_eq!(beat(&mut store, 1_000, 1, Some(30_000)), Merged::New);
    assert_eq!((age(&store, 1_000), age(&store, 3_500)), (30_000, 32_500));
    // The same once more is no sign of life.
    assert_eq!(beat(&mut store, 2_000, 1, Some(0)), Merged::Same);
    assert_eq!(age(&store, 2_000), 31_000);
    assert_eq!(beat(&mut store, 4_000, 2, Some(1_500)), Merged::Changed);
    assert_eq!(age(&store, 4_000), 1_500);
    // Later, but by a longer way.
    assert_eq!(beat(&mut store, 5_000, 3, Some(60_000)), Merged::Changed);
    assert_eq!(age(&store, 5_000), 2_500);
    assert_eq!(beat(&mut store, 6_000, 4, None), Merged::Changed);
    assert_eq!((age(&store, 6_000), age(&store, 0)), (0, 0));
    let heard = store.merge(at(7_000), "k", &entry("i"), &register(0, 1, PEER, None), Some(Duration::MAX));
    assert_eq!(heard, Merged::New);
    assert!(store.get("k", &entry("i")).unwrap().age(at(7_000)) > Duration::from_secs(1 << 50));
}

#[test]
fn a_heartbeat_only_beats_where_another_one_was_before() {
    let mut store = store();
    let mut clock = Clock::default();
    let heartbeat = EntryId::new("i", HEARTBEAT_FACET);
    let mut only_beats = |place: &EntryId, ms, text| {
        assert!(store.merge(at(ms), "k", place, &register(0, ms, PEER, text), None).is_change());
        store.get("k", place).unwrap().only_beats()
    };
    assert!(!only_beats(&heartbeat, 1, Some("first")));
    assert!(only_beats(&heartbeat, 2, Some("second")));
    assert!(!only_beats(&heartbeat, 3, None));
    assert!(!only_beats(&heartbeat, 4, Some("anew")));
    assert!(!only_beats(&entry("i"), 1, Some("one")) && !only_beats(&entry("i"), 2, Some("two")));
    // What is written here is no different.
    let other = EntryId::new("j", HEARTBEAT_FACET);
    for expected in [false, true] {
        store.write(at(5), "k", &other, body(Some("own")), &mut clock).unwrap();
        assert_eq!(store.get("k", &other).unwrap().only_beats(), expected);
    }
}

#[test]
fn changes_are_applied_all_or_none_and_conflict_by_the_entry() {
    let mut store = store();
    let mut clock = Clock::default();
    let bytes = || Some(Bytes::from_static(b"b"));
    let (i, j) = (entry("i"), entry("j"));
    let read = store.local_version("k");
    let both = [(i.clone(), bytes()), (j.clone(), bytes())];
    let written = store.apply(at(5), "k", Some(read), &both, &mut clock).unwrap();
    assert_eq!(written.iter().map(|(entry, _)| entry).collect::<Vec<_>>(), [&i, &j]);
    assert!(written.iter().all(|(entry, register)| store.get("k", entry).unwrap().register() == register));

    // Based on what was before: the place is not what it was.
    let conflict: Result<Vec<(EntryId, Register)>, _> = Err(NotApplied::Conflict { entry: i.clone() });
    let mixed = [(entry("new"), bytes()), (i.clone(), bytes())];
    assert_eq!(store.apply(at(5), "k", Some(read), &mixed, &mut clock), conflict);
    assert!(store.get("k", &entry("new")).is_none());

    // Somebody else changed another entry.
    let read = store.local_version("k");
    let _ = store.merge(at(6), "k", &j, &register(1, 6, PEER, Some("c")), None);
    assert!(store.local_version("k") > read);
    let only_i = [(i.clone(), None), (entry("never there"), None)];
    let removed = store.apply(at(6), "k", Some(read), &only_i, &mut clock).unwrap();
    assert!(removed.len() == 1 && removed[0].1.is_tombstone());
    assert!(store.apply(at(6), "k", Some(read), &[(j.clone(), None)], &mut clock).is_err());
    assert_eq!(store.apply(at(6), "k", None, &[(j.clone(), None)], &mut clock).unwrap().len(), 1);

    // Forgotten since: nothing is left to tell when that place changed.
    let read = store.local_version("k");
    assert_eq!(store.tick(at(2 * DAY), &mut clock).expired.len(), 2);
    assert_eq!(store.num_keys(), 0);
    assert_eq!(store.apply(at(2 * DAY), "k", Some(read), &[(i.clone(), bytes())], &mut clock), conflict);
    let again = store.local_version("k");
    assert!(store.apply(at(2 * DAY), "k", Some(again), &[(j, bytes())], &mut clock).is_ok());
    assert_eq!(store.apply(at(2 * DAY), "k", Some(read), &[(i.clone(), bytes())], &mut clock), conflict);
    assert!(store.apply(at(2 * DAY), "k", Some(again), &[(i, bytes())], &mut clock).is_ok());
}

#[test]
fn changes_are_told_once_and_not_without_end() {
    let mut store = store();
    let one = register(0, 1, PEER, Some("b"));
    for _ in 0..2 {
        let _ = store.merge(at(5), "k", &entry("i"), &one, None);
    }
    store.upsert(at(5), "l", &entry("i"), Bytes::new(), &mut Clock::default()).unwrap();
    let changes = store.take_changes();
    let expected = BTreeSet::from([(SmolStr::new("k"), entry("i")), (SmolStr::new("l"), entry("i"))]);
    assert_eq!(changes, Changes { everything: false, entries: expected });
    assert!(!changes.is_empty() && store.take_changes().is_empty());

    let mut changes = Changes::default();
    for number in 0..=MAX_CHANGES {
        assert!(!changes.everything);
        changes.note("k", &entry(&number.to_string()));
    }
    changes.note("k", &entry("one more"));
    assert_eq!(changes, Changes { everything: true, entries: BTreeSet::new() });
    assert!(!changes.is_empty());
}

#[test]
fn buckets_find_what_differs() {
    let mut store = store();
    assert_eq!(store.buckets("k"), &[0; BUCKETS]);
    for number in 0..1_000 {
        for facet in 0..MAX_FACETS {
            let place = EntryId::new(format!("i{number}"), facet);
            let _ = store.merge(at(5), "k", &place, &register(0, 1, PEER, Some("b")), None);
        }
    }
    let mut listed = Vec::new();
    for bucket in 0..=u8::MAX {
        let mut digest = 0;
        for (place, hash, version) in store.entries_of_bucket("k", bucket) {
            let slot = store.get("k", place).unwrap();
            assert_eq!((bucket_of(&place.id), slot.hash(), slot.register().version), (bucket, hash, version));
            assert_eq!(store.find("k", id_hash(&place.id), place.facet), Some(place));
            digest ^= hash;
            listed.push(place.clone());
        }
        assert_eq!(digest, store.buckets("k")[usize::from(bucket)]);
    }
    listed.sort();
    assert!(listed.iter().eq(store.registers("k").map(|(place, _)| place)));
    assert_eq!(store.find("k", 0, 0), None);
    assert_eq!(store.entries_of_bucket("unknown", 0).count(), 0);

    let (before, root) = (*store.buckets("k"), store.root());
    let _ = store.merge(at(5), "k", &entry("i7"), &register(0, 2, PEER, Some("b")), None);
    let differing: Vec<_> =
        (0..BUCKETS).filter(|bucket| before[*bucket] != store.buckets("k")[*bucket]).collect();
    assert_eq!(differing, [usize::from(bucket_of("i7"))]);
    assert!(store.root() != root && store.root() == store.key_digest("k"));
}

#[test]
fn digests_tell_that_there_is_a_heartbeat_and_not_which() {
    let mut store = store();
    let heartbeat = EntryId::new("i", HEARTBEAT_FACET);
    let mut root = |epoch, ms, text| {
        let merged = store.merge(at(5), "k", &heartbeat, &register(epoch, ms, PEER, text), None);
        assert!(merged.is_change());
        store.root()
    };
    let live = root(0, 1, Some("one"));
    assert_ne!(live, 0);
    assert_eq!(root(0, 2, Some("two")), live);
    let removed = root(0, 3, None);
    assert!(removed != live && removed != 0);
    assert_ne!(root(0, 4, None), removed);
    assert_eq!(root(1, 1, Some("three")), live);
}

#[test]
fn what_is_stored_does_not_hold_on_to_the_message_it_came_in() {
    let mut store = store();
    let message = Bytes::from(vec![7; 1_000]);
    let register = Register { body: Body::Live(message.slice(10..20)), ..register(0, 1, PEER, None) };
    let _ = store.merge(at(5), "k", &entry("i"), &register, None);
    assert_eq!(held(&store, "k", "i"), Some(&register));
    let Body::Live(stored) = &held(&store, "k", "i").unwrap().body else { panic!("a tombstone") };
    assert_ne!(stored.as_ptr(), message[10..].as_ptr());
}

#[test]
fn ticks_are_due_a_few_times_within_every_horizon() {
    for (horizon, period) in [(24 * 60 * 60, 60_000), (64, 1_000), (0, 100), (u64::MAX, 60_000)] {
        let limits = Limits { tombstone_horizon: Duration::from_secs(horizon), ..Limits::default() };
        assert_eq!(limits.tick_period(), Duration::from_millis(period));
        // Wherever a member begins, the next one is when the wall clock shows a multiple of that.
        for ms in [0, 1, period - 1] {
            let now = Now { wall_ms: 7 * period + ms, ..at(0) };
            assert_eq!(limits.until_tick(now), Duration::from_millis(period - ms));
        }
    }
}

#[test]
fn times_at_their_ends_do_not_panic() {
    for limit in [Duration::ZERO, Duration::MAX] {
        let limits = Limits { max_clock_skew: limit, tombstone_horizon: limit, ..Limits::default() };
        let mut store = Store::new(limits, OWN);
        let mut clock = Clock::default();
        let end = Now { mono: Duration::MAX, wall_ms: u64::MAX };
        for now in [Now::default(), end, at(5), Now::default(), end] {
            for hlc in [0, 1, u64::MAX] {
                for (author, text) in [(OWN, Some("b")), (PEER, Some("b")), (PEER, None)] {
                    let version = Version { epoch: MAX_EPOCH, hlc: Hlc(hlc) };
                    let register = Register { version, author, body: body(text) };
                    let _ = store.merge(now, "k", &entry("i"), &register, Some(limit));
                    let _ = store.write(now, "k", &entry("j"), body(text), &mut clock);
                    store.remember("k", &entry("l"), &register);
                    let _ = store.heal(now, "k", &entry("i"), &mut clock);
                    let _ = limits.until_tick(now);
                    store.tick(now, &mut clock);
                }
            }
            for (_, slot) in store.registers("k") {
                slot.age(now);
            }
        }
    }
}

type Item = (&'static str, EntryId, Register);

/// Registers of few places and versions, so that many meet; their times are some of `times`.
fn item(times: &'static [u64]) -> impl Strategy<Value = Item> {
    let place = (
        prop::sample::select(vec!["ring", "other"]),
        prop::sample::select(vec!["a", "b", "c"]),
        0..MAX_FACETS,
    );
    let text = prop::sample::select(vec![None, Some("x"), Some("y"), Some("longer")]);
    (place, 0..3_u32, prop::sample::select(times), 1..4_u64, text).prop_map(
        |((key, id, facet), epoch, ms, author, text)| {
            (key, EntryId::new(id, facet), register(epoch, ms, author, text))
        },
    )
}

/// Within the horizon and the skew that is allowed.
const FAIR_TIMES: &[u64] = &[1, 2, 3, 30_000];
/// And from clocks that are far ahead.
const WILD_TIMES: &[u64] = &[1, 2, 30_000, 10 * 365 * DAY];

fn merge_all(store: &mut Store, items: &[Item]) {
    for (key, entry, register) in items {
        let _ = store.merge(at(5), key, entry, register, None);
    }
}

/// All that digests tell.
fn settled(store: &Store, key: &str) -> Vec<(EntryId, Option<Register>)> {
    let settled = store.registers(key).map(|(entry, slot)| {
        let register = slot.register();
        let beats = entry.facet == HEARTBEAT_FACET && !register.is_tombstone();
        (entry.clone(), (!beats).then(|| register.clone()))
    });
    settled.collect()
}

fn items_and_shuffled_twice() -> impl Strategy<Value = (Vec<Item>, Vec<Item>)> {
    prop::collection::vec(item(FAIR_TIMES), 0..60).prop_flat_map(|items| {
        let twice = [items.clone(), items.clone()].concat();
        (Just(items), Just(twice).prop_shuffle())
    })
}
