//! Which writes count over which, and registers that are written anew.

use super::*;

#[test]
fn an_own_write_keeps_its_epoch_unless_what_it_replaces_is_later() {
    let mut store = store();
    let mut clock = Clock::default();
    let mut write = |store: &mut Store| {
        let held = held(store, "k", "i").cloned();
        let written = store.write(at(5), "k", &entry("i"), body(Some("own")), &mut clock).unwrap();
        assert_eq!(super::held(store, "k", "i"), Some(&written));
        assert!(held.is_none_or(|held| written.supersedes(&held)));
        // Whatever it overrules, others believe its time.
        assert!(written.version.hlc < Hlc::from_ms(WALL + 6));
        written.version.epoch
    };
    assert_eq!((write(&mut store), write(&mut store)), (0, 0));
    // By another one, but earlier: many who write in turn do not count up.
    let _ = store.merge(at(5), "k", &entry("i"), &register(1, 1, PEER, Some("foreign")), None);
    assert_eq!((write(&mut store), write(&mut store)), (1, 1));
    let _ = store.merge(at(5), "k", &entry("i"), &register(1, 50_000, PEER, Some("ahead")), None);
    assert_eq!((write(&mut store), write(&mut store)), (2, 2));
    let _ = store.merge(at(5), "k", &entry("i"), &register(7, 1, PEER, None), None);
    assert_eq!((write(&mut store), write(&mut store)), (7, 7));
    let former = register(7, 1_000 * DAY, OWN, Some("of a former life"));
    assert_eq!(store.merge(at(5), "k", &entry("i"), &former, None), Merged::Changed);
    assert_eq!((write(&mut store), write(&mut store)), (8, 8));
}

#[test]
fn in_the_last_epoch_the_time_counts() {
    let mut store = store();
    let mut clock = Clock::default();
    for (ms, merged) in [(1, Merged::New), (50_000, Merged::Changed)] {
        let last = register(MAX_EPOCH, ms, PEER, Some("as far as it goes"));
        assert_eq!(store.merge(at(5), "k", &entry("i"), &last, None), merged);
        for heals in [false, true] {
            let before = held(&store, "k", "i").unwrap().clone();
            let written = if heals {
                store.heal(at(5), "k", &entry("i"), &mut clock).unwrap()
            } else {
                store.write(at(5), "k", &entry("i"), body(Some("own")), &mut clock).unwrap()
            };
            assert!(written.version.epoch == MAX_EPOCH && written.supersedes(&before), "{written:?}");
            let mut other = Store::new(Limits::default(), PEER);
            let _ = other.merge(at(5), "k", &entry("i"), &last, None);
            assert_eq!(other.merge(at(5), "k", &entry("i"), &written, None), Merged::Changed);
        }
    }
}

#[test]
fn what_our_wrong_clock_wrote_is_restamped_once_it_is_right() {
    for (text, same_life) in [(Some("b"), false), (None, false), (Some("b"), true), (None, true)] {
        let mut store = store();
        let mut clock = Clock::default();
        if same_life {
            let wrong = Now { wall_ms: WALL + 2 * DAY, ..at(5) };
            store.write(wrong, "k", &entry("i"), body(text), &mut clock).unwrap();
            assert_eq!(store.tick(wrong, &mut clock), Ticked::default(), "it does not know");
        } else {
            let _ = store.merge(at(5), "k", &entry("i"), &register(0, 2 * DAY, OWN, text), None);
        }
        // What is written now is believed again,
        let next = store.upsert(at(5), "k", &entry("j"), Bytes::new(), &mut clock).unwrap();
        assert_eq!(next.version, Version { epoch: 0, hlc: Hlc::from_ms(WALL + 5) });
        // and what was written then as well.
        assert_eq!(store.tick(at(6), &mut clock).restamped, [(SmolStr::new("k"), entry("i"))]);
        let restamped = held(&store, "k", "i").unwrap();
        assert_eq!(restamped.version, Version { epoch: 1, hlc: Hlc::from_ms(WALL + 6) });
        assert_eq!(restamped.body, body(text));
        assert_eq!(store.tick(at(7), &mut clock), Ticked::default());
    }
}

#[test]
fn what_cannot_be_overruled_is_not_tried_for_ever() {
    let mut store = store();
    let last = register(MAX_EPOCH, 1_000 * DAY, OWN, Some("b"));
    assert_eq!(store.merge(at(5), "k", &entry("i"), &last, None), Merged::New);
    assert_eq!(store.tick(at(5), &mut Clock::default()), Ticked::default());
}

#[test]
fn restamping_is_no_sign_of_life() {
    let mut store = store();
    let mut clock = Clock::default();
    let heartbeat = EntryId::new("i", HEARTBEAT_FACET);
    let wrong = Now { wall_ms: WALL + DAY, ..at(0) };
    store.upsert(wrong, "k", &heartbeat, Bytes::from_static(b"b"), &mut clock).unwrap();
    assert_eq!(store.tick(at(7 * HOUR), &mut clock).restamped, [(SmolStr::new("k"), heartbeat.clone())]);
    let slot = store.get("k", &heartbeat).unwrap();
    assert_eq!(slot.age(at(7 * HOUR)), Duration::from_millis(7 * HOUR));
    let mut other = Store::new(Limits::default(), PEER);
    let age = Some(slot.age(at(7 * HOUR)));
    let young = Now { mono: Duration::from_millis(1), ..at(7 * HOUR) };
    assert_eq!(other.merge(young, "k", &heartbeat, slot.register(), age), Merged::New);
    assert_eq!(other.get("k", &heartbeat).unwrap().age(young), Duration::from_millis(7 * HOUR));
}

#[test]
fn what_is_healed_is_overruled_by_its_owner_at_once() {
    let (mut healer, mut owner) = (store(), Store::new(Limits::default(), PEER));
    let (mut clock, mut clock_of_owner) = (Clock::default(), Clock::default());
    let ahead = Now { wall_ms: WALL + 30_000, ..at(0) };
    let bytes = Bytes::from_static;
    let written = owner.upsert(ahead, "k", &entry("i"), bytes(b"b"), &mut clock_of_owner).unwrap();
    assert_eq!(healer.merge(at(5), "k", &entry("i"), &written, None), Merged::New);
    let healed = healer.heal(at(5), "k", &entry("i"), &mut clock).unwrap();
    assert_eq!(healed, register(1, 5, OWN, Some("b")));
    assert_eq!(held(&healer, "k", "i"), Some(&healed));
    assert_eq!(owner.merge(at(6), "k", &entry("i"), &healed, None), Merged::Changed);

    // Also if its clock is behind.
    for now in [at(7), Now { wall_ms: WALL - DAY, ..at(8) }] {
        let next = owner.upsert(now, "k", &entry("i"), bytes(b"c"), &mut clock_of_owner).unwrap();
        assert_eq!(next.author, PEER);
        assert_eq!(healer.merge(at(8), "k", &entry("i"), &next, None), Merged::Changed);
        assert_equal(&healer, &owner);
    }
}

#[test]
fn what_is_removed_is_not_healed() {
    let mut store = store();
    let mut clock = Clock::default();
    assert_eq!(store.merge(at(5), "k", &entry("gone"), &register(0, 1, PEER, None), None), Merged::New);
    for id in ["gone", "never there"] {
        assert_eq!(store.heal(at(6), "k", &entry(id), &mut clock), None, "{id}");
    }
}

#[test]
fn healing_is_no_sign_of_life() {
    let mut store = store();
    let mut clock = Clock::default();
    let heartbeat = EntryId::new("i", HEARTBEAT_FACET);
    let foreign = register(0, 0, PEER, Some("b"));
    assert_eq!(store.merge(at(0), "k", &heartbeat, &foreign, Some(Duration::ZERO)), Merged::New);
    assert!(store.heal(at(9_000), "k", &heartbeat, &mut clock).is_some());
    assert_eq!(store.get("k", &heartbeat).unwrap().age(at(9_000)), Duration::from_secs(9));
}

#[test]
fn what_this_life_wrote_is_written_again_over_a_former_life() {
    for (epoch, ms) in [(1, 1), (0, 30_000), (0, 1_000 * DAY)] {
        let mut store = store();
        let mut clock = Clock::default();
        let former = register(epoch, ms, OWN, Some("former"));
        store.upsert(at(5), "k", &entry("i"), Bytes::from_static(b"ours"), &mut clock).unwrap();
        let contested = store.contested("k", &entry("i"), &former).unwrap();
        assert_eq!(store.merge(at(9), "k", &entry("i"), &former, None), Merged::Changed);
        let again = store.reissue(at(9), "k", &entry("i"), contested.clone(), &mut clock).unwrap();
        assert!(again.supersedes(&former) && again.version.hlc < Hlc::from_ms(WALL + 10), "{again:?}");
        assert_eq!((again.author, &again.body), (OWN, &body(Some("ours"))));
        assert_eq!(held(&store, "k", "i"), Some(&again));
        assert_eq!(store.get("k", &entry("i")).unwrap().age(at(9)), Duration::from_millis(4));
        assert_eq!(store.reissue(at(9), "k", &entry("i"), contested, &mut clock), None, "it is there");
    }
}

#[test]
fn what_others_wrote_or_what_says_the_same_is_not_contested() {
    let mut store = store();
    let mut clock = Clock::default();
    let former = register(1, 1, OWN, Some("former"));
    assert_eq!(store.contested("k", &entry("i"), &former), None, "there is nothing");
    let _ = store.merge(at(5), "k", &entry("i"), &register(0, 1, OWN, Some("of an earlier life")), None);
    assert_eq!(store.contested("k", &entry("i"), &former), None, "this life did not write it");
    store.upsert(at(5), "k", &entry("i"), Bytes::from_static(b"ours"), &mut clock).unwrap();
    assert!(store.contested("k", &entry("i"), &former).is_some());
    for other in [
        register(1, 1, PEER, Some("former")),
        register(1, 1, OWN, Some("ours")),
        register(0, 1, OWN, Some("older")),
    ] {
        assert_eq!(store.contested("k", &entry("i"), &other), None, "{other:?}");
    }
    // And what others write after that counts.
    let contested = store.contested("k", &entry("i"), &former).unwrap();
    let _ = store.merge(at(6), "k", &entry("i"), &register(2, 1, PEER, Some("foreign")), None);
    assert_eq!(store.reissue(at(6), "k", &entry("i"), contested, &mut clock), None);
}
