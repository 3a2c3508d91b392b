//! What becomes of what was removed.

use super::*;

/// A removal at 2 that has expired, and what was removed by it.
fn forgotten() -> (Store, Register, Register) {
    let mut store = store();
    let (live, tombstone) = (register(0, 1, PEER, Some("b")), register(0, 2, PEER, None));
    let _ = store.merge(at(5), "k", &entry("i"), &live, None);
    let _ = store.merge(at(5), "k", &entry("i"), &tombstone, None);
    let ticked = store.tick(at(LATE), &mut Clock::default());
    assert_eq!(ticked, Ticked { restamped: Vec::new(), expired: vec![("k".into(), entry("i"))] });
    (store, live, tombstone)
}

#[test]
fn tombstones_expire_and_what_was_removed_does_not_come_back() {
    let mut young = store();
    let tombstone = register(0, 2, PEER, None);
    let _ = young.merge(at(5), "k", &entry("i"), &tombstone, None);
    assert_eq!(young.tick(at(DAY), &mut Clock::default()), Ticked::default());
    assert_eq!(young.sizes().tombstones, 1);

    let (mut store, live, tombstone) = forgotten();
    assert_eq!((store.num_keys(), store.root(), store.sizes()), (0, 0, Sizes::default()));
    assert!(store.local_version("k") > young.local_version("k"));
    assert_eq!(store.removal("k", &entry("i")), Some(tombstone.clone()));
    assert_eq!(store.removals().count(), 1);
    store.take_changes();
    assert_eq!(store.merge(at(LATE), "k", &entry("i"), &live, None), Merged::Older);
    let refused = Merged::Refused(Reason::TombstoneTooOld);
    assert_eq!(store.merge(at(LATE), "k", &entry("i"), &tombstone, None), refused);
    assert!(store.num_keys() == 0 && store.take_changes().is_empty());

    // Who still has it is told the tombstone, and remembers it in turn.
    let mut other = Store::new(Limits::default(), PEER);
    let _ = other.merge(at(5), "k", &entry("i"), &live, None);
    assert_eq!(other.merge(at(LATE), "k", &entry("i"), &tombstone, None), Merged::Changed);
    assert_eq!(other.tick(at(LATE), &mut Clock::default()).expired.len(), 1);
    assert_eq!(other.merge(at(LATE), "k", &entry("i"), &live, None), Merged::Older);
    assert_equal(&store, &other);
}

#[test]
fn what_is_written_after_a_removal_counts_whoever_remembers_that() {
    let (mut store, ..) = forgotten();
    let mut other = Store::new(Limits::default(), PEER);
    let mut clock = Clock::default();
    let written = other.upsert(at(LATE), "k", &entry("i"), Bytes::new(), &mut clock).unwrap();
    assert_eq!(store.merge(at(LATE), "k", &entry("i"), &written, None), Merged::New);
    assert_eq!(store.removal("k", &entry("i")), None);

    // By a clock that is far behind, but over the tombstone.
    let (mut store, ..) = forgotten();
    let behind = Now { wall_ms: WALL - DAY, ..at(LATE) };
    let written = store.upsert(behind, "k", &entry("i"), Bytes::new(), &mut Clock::default()).unwrap();
    assert_eq!((written.version.epoch, written.version.hlc), (1, Hlc::from_ms(WALL - DAY)));
    let (mut store, ..) = forgotten();
    assert_eq!(store.merge(at(LATE), "k", &entry("i"), &written, None), Merged::New);
}

#[test]
fn epochs_that_are_forgotten_with_a_tombstone_do_not_remove_what_was_written_later() {
    let tombstone = register(3, 2, PEER, None);
    let mut remembers = store();
    remembers.remember("k", &entry("i"), &tombstone);
    // By somebody to whom the place was new.
    let later = register(0, DAY, PEER, Some("b"));
    assert_eq!(remembers.merge(at(LATE), "k", &entry("i"), &later, None), Merged::New);
    let refused = Merged::Refused(Reason::TombstoneTooOld);
    assert_eq!(remembers.merge(at(LATE), "k", &entry("i"), &tombstone, None), refused);
    assert_eq!(held(&remembers, "k", "i"), Some(&later));
    // While it has not expired, it counts as any other.
    let fresh = register(3, DAY - HOUR, PEER, None);
    assert_eq!(remembers.merge(at(LATE), "k", &entry("i"), &fresh, None), Merged::Changed);
}

#[test]
fn an_expired_tombstone_is_taken_only_for_what_it_removed() {
    let mut store = store();
    let (tombstone, live) = (register(0, 2, PEER, None), register(0, 1, PEER, Some("b")));
    let refused = Merged::Refused(Reason::TombstoneTooOld);
    assert_eq!(store.merge(at(LATE), "k", &entry("i"), &tombstone, None), refused);
    assert_eq!(store.merge(at(LATE), "k", &entry("i"), &live, None), Merged::New);
    assert_eq!(store.merge(at(LATE), "k", &entry("i"), &tombstone, None), Merged::Changed);
    assert_eq!(store.merge(at(DAY), "k", &entry("j"), &tombstone, None), Merged::New, "not yet expired");
}

#[test]
fn a_removal_by_a_clock_that_is_a_little_behind_lasts_as_well() {
    // Written, and removed at once by somebody whose clock was behind.
    let (live, tombstone) = (register(0, 1_000, PEER, Some("b")), register(1, 900, OWN, None));
    let mut remembers = store();
    remembers.remember("k", &entry("i"), &tombstone);
    assert_eq!(remembers.merge(at(LATE), "k", &entry("i"), &live, None), Merged::Older);
    let mut other = Store::new(Limits::default(), PEER);
    assert_eq!(other.merge(at(LATE), "k", &entry("i"), &live, None), Merged::New);
    assert_eq!(other.merge(at(LATE), "k", &entry("i"), &tombstone, None), Merged::Changed);
}

#[test]
fn what_lives_is_kept_however_old_it_is() {
    let mut store = store();
    let live = register(0, 1, PEER, Some("b"));
    let _ = store.merge(at(5), "k", &entry("i"), &live, None);
    for days in 1..100 {
        assert_eq!(store.tick(at(days * DAY), &mut Clock::default()), Ticked::default());
    }
    assert_eq!(held(&store, "k", "i"), Some(&live));
    let mut fresh = Store::new(Limits::default(), OWN + 1);
    assert_eq!(fresh.merge(at(100 * DAY), "k", &entry("i"), &live, None), Merged::New);
    assert_equal(&store, &fresh);
}

#[test]
fn all_members_drop_the_same_tombstones_wherever_in_a_period_they_look() {
    let mut one = store();
    for number in 0..100 {
        let tombstone = register(0, number * 1_000, PEER, None);
        let place = entry(&number.to_string());
        assert_eq!(one.merge(at(100_000), "k", &place, &tombstone, None), Merged::New);
    }
    let mut other = one.clone();
    let mut sizes = BTreeSet::new();
    // From one tick to the next but one, and so on, until all have expired.
    for tick in (0..8).map(|period| DAY - 20_000 + period * 60_000) {
        one.tick(at(tick), &mut Clock::default());
        other.tick(at(tick + 59_999), &mut Clock::default());
        assert_equal(&one, &other);
        sizes.insert(one.sizes().tombstones);
    }
    assert!(sizes.len() > 2 && sizes.contains(&100) && sizes.contains(&0), "{sizes:?}");
}

#[test]
fn only_removals_of_what_is_not_there_are_remembered() {
    let mut store = store();
    let (live, tombstone) = (register(0, 1, PEER, Some("b")), register(0, 2, PEER, None));
    let _ = store.merge(at(5), "k", &entry("i"), &live, None);
    store.remember("k", &entry("i"), &tombstone);
    store.remember("k", &entry("j"), &live);
    store.remember(&"x".repeat(MAX_ID_BYTES + 1), &entry("j"), &tombstone);
    store.remember("k", &entry("j"), &register(MAX_EPOCH + 1, 2, PEER, None));
    assert_eq!(store.removals().count(), 0);
    store.remember("k", &entry("j"), &tombstone);
    assert_eq!(store.removals().collect::<Vec<_>>(), [(&SmolStr::new("k"), &entry("j"))]);
}
