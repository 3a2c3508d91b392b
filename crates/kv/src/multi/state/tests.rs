use std::time::Duration;

use super::*;
use crate::multi::control::Freshness;
use crate::multi::laws::{Timed, entry};

const FIRST: Landing = Landing { place: Place::First, whole: true };
const SECOND: Landing = Landing { place: Place::Second, whole: true };
/// Where each entry has a key of its own.
const APART: Landing = Landing { place: Place::First, whole: false };

fn context() -> Context {
    let mode = Mode {
        primary: Place::First,
        mirror: true,
        union: true,
        secondary_counts: true,
        stands_in: false,
        epoch: 1,
    };
    Context {
        mode,
        codec: &Timed,
        now: 1000,
        freshness: Freshness::default(),
        removals_are_meant: Both::default(),
    }
}

fn stored(version: u64, entries: &[(EntryId, EntryBytes)]) -> Stored {
    Stored { version, entries: Arc::new(entries.iter().cloned().collect()) }
}

fn upsert(entry: &(EntryId, EntryBytes)) -> Change {
    Change::upsert(entry.0.clone(), entry.1.bytes.clone())
}

/// Both stores hold this as their version 1.
fn both_hold(entries: &[(EntryId, EntryBytes)]) -> State {
    let mut state = State::default();
    for place in Place::BOTH {
        state.learn(&context(), place, Some(stored(1, entries)), How::Watch);
    }
    state
}

/// Something is written, and lands.
fn write(state: &mut State, change: &Change, answer: Stored, landing: Landing) {
    let begun = state.begin(&context(), change, Precondition::None).unwrap();
    state.commit(&context(), &begun, change, answer, landing, &|_| true);
}

fn ids(state: &State, place: Place) -> Vec<EntryId> {
    state.batch(place, usize::MAX).map(|batch| batch.items.into_keys().collect()).unwrap_or_default()
}

/// What was under way to the primary while its writer removed it there, and came there last.
#[test]
fn what_lands_after_its_removal_goes_again() {
    let written = entry("a", 990, "x");
    for is_told_first in [true, false] {
        let mut state = both_hold(&[]);
        write(&mut state, &upsert(&written), stored(2, std::slice::from_ref(&written)), SECOND);
        assert_eq!(ids(&state, Place::First), ["a"], "it goes to the primary, too");
        let batch = state.batch(Place::First, usize::MAX).unwrap();
        let lands = |state: &mut State| {
            let answer = Some((upsert(&written), stored(2, std::slice::from_ref(&written))));
            state.told(&context(), &batch, answer, FIRST);
        };
        // Of what was not there, the removal leaves the version as it is.
        let is_removed = |state: &mut State| write(state, &Change::remove("a"), stored(1, &[]), FIRST);
        if is_told_first {
            lands(&mut state);
            is_removed(&mut state);
        } else {
            is_removed(&mut state);
            assert!(ids(&state, Place::First).is_empty(), "nothing is known to go");
            lands(&mut state);
        }
        let batch = state.batch(Place::First, usize::MAX).unwrap();
        assert_eq!(batch.items["a"].op, Op::Remove { timestamp: 990 }, "{is_told_first}");
        state.adopt(&context());
        let shown = state.publish(&context(), || 1).unwrap().unwrap();
        assert!(shown.entries.is_empty(), "{is_told_first}");
    }
}

#[test]
fn what_was_read_as_absent_does_not_hide_what_came_meanwhile() {
    let mut state = State::default();
    let how = state.begin_read(Place::First);
    let held = stored(5, &[entry("a", 990, "x")]);
    state.learn(&context(), Place::First, Some(held.clone()), How::Watch);
    state.learn(&context(), Place::First, None, how);
    assert_eq!(state.snapshot(Place::First), Some(Some(held.clone())));
    // Nor does a write that found nothing to do.
    write(&mut state, &Change::remove("b"), Stored::absent(), FIRST);
    assert_eq!(state.snapshot(Place::First), Some(Some(held)));
    // What is read afterwards counts.
    let how = state.begin_read(Place::First);
    state.learn(&context(), Place::First, None, how);
    assert_eq!(state.snapshot(Place::First), Some(None));
}

#[test]
fn what_is_written_after_a_key_was_deleted_stays_although_the_store_hears_of_that_later() {
    let value = |says: &'static str| (EntryId::from("value"), EntryBytes::new(says.into()));
    let mut state = both_hold(&[value("old")]);
    let begun = state.begin_deletion(&context(), Precondition::None).unwrap();
    state.commit_deletion(&context(), &begun, Place::Second);
    state.adopt(&context());
    assert_eq!(state.publish(&context(), || 1), Some(None), "the primary does not count with what goes");
    let new = value("new");
    let held = stored(2, std::slice::from_ref(&new));
    write(&mut state, &upsert(&new), held.clone(), FIRST);
    let shown = state.publish(&context(), || 2).unwrap().unwrap();
    assert_eq!(shown.entries["value"].bytes, "new");
    let batch = state.batch(Place::First, usize::MAX).unwrap();
    let plan = state.plan(&context(), &batch, Some(&held), &|_| true);
    assert!(batch.deletion.is_some() && !plan.deletes && plan.change.is_empty(), "{plan:?}");
}

/// Whether readers see an entry.
fn sees(state: &State, id: &str) -> bool {
    state.pair(&context()).entry(&id.into()).is_some()
}

/// What the secondary, where removals are meant, tells of an entry that was removed so long ago.
fn tells_of_removal(state: &mut State, id: &str, ago: Duration) {
    let traces = Traces { removed: BTreeMap::from([(id.into(), ago)]), ..Traces::default() };
    state.trace(&gossiping(), Place::Second, traces);
}

/// With a secondary where removals are meant.
fn gossiping() -> Context {
    Context { removals_are_meant: Both::new(false, true), ..context() }
}

/// The primary holds `entry`, the secondary nothing.
fn primary_holds(entry: &(EntryId, EntryBytes)) -> State {
    let mut state = State::default();
    state.learn(&gossiping(), Place::First, Some(stored(1, std::slice::from_ref(entry))), How::Watch);
    state.learn(&gossiping(), Place::Second, Some(stored(1, &[])), How::Watch);
    state
}

#[test]
fn a_tombstone_hides_what_is_older_and_nobody_who_was_heard_since() {
    const AGO: Duration = Duration::from_secs(30);
    // Removed at 970, by clocks that agree.
    let mut state = primary_holds(&entry("a", 970, "x"));
    tells_of_removal(&mut state, "a", AGO);
    assert!(!sees(&state, "a"), "it may have been written in the same second");
    let mut state = primary_holds(&entry("a", 971, "x"));
    tells_of_removal(&mut state, "a", AGO);
    assert!(sees(&state, "a"));

    // Its owner beats, by a clock that is slow.
    let mut state = primary_holds(&entry("a", 950, "x"));
    tells_of_removal(&mut state, "a", AGO);
    assert!(!sees(&state, "a"));
    state.learn(&gossiping(), Place::First, Some(stored(2, &[entry("a", 960, "x")])), How::Watch);
    assert!(sees(&state, "a"));
    // The same tombstone does not hide it again, nor one that is told only afterwards.
    tells_of_removal(&mut state, "a", AGO);
    assert!(sees(&state, "a"));
    let mut state = primary_holds(&entry("a", 950, "x"));
    state.learn(&gossiping(), Place::First, Some(stored(2, &[entry("a", 960, "x")])), How::Watch);
    tells_of_removal(&mut state, "a", AGO);
    assert!(sees(&state, "a"));

    // It comes back where it was removed: that store knows what came after what.
    let mut state = primary_holds(&entry("a", 966, "x"));
    tells_of_removal(&mut state, "a", AGO);
    state.learn(&gossiping(), Place::Second, Some(stored(2, &[entry("a", 965, "x")])), How::Watch);
    assert!(sees(&state, "a"));
}

#[test]
fn a_tombstone_does_not_keep_back_what_this_process_writes_itself() {
    // In the same second, by a clock that was set back, and the same again as was removed.
    for (timestamp, ago) in
        [(1000, Duration::ZERO), (1000, Duration::from_millis(900)), (980, Duration::ZERO)]
    {
        let written = entry("a", timestamp, "x");
        for was_there in [false, true] {
            let mut state = both_hold(if was_there { std::slice::from_ref(&written) } else { &[] });
            if was_there {
                for place in Place::BOTH {
                    state.learn(&gossiping(), place, Some(stored(2, &[])), How::Watch);
                }
            }
            tells_of_removal(&mut state, "a", ago);
            write(&mut state, &upsert(&written), stored(3, std::slice::from_ref(&written)), FIRST);
            tells_of_removal(&mut state, "a", ago);
            assert!(sees(&state, "a"), "{timestamp} {ago:?} {was_there}");
            let batch = state.batch(Place::Second, usize::MAX).unwrap();
            let plan = state.plan(&gossiping(), &batch, Some(&stored(2, &[])), &|_| true);
            assert!(plan.change.upserts.contains_key("a"), "{plan:?}");
        }
    }
}

/// The primary did not answer while an instance said that it goes, which it therefore said to the secondary.
#[test]
fn who_was_last_seen_going_and_is_gone_does_not_come_back_from_the_other_store() {
    let mut state = both_hold(&[entry("a", 990, "x"), entry("b", 990, "x")]);
    let goes = stored(2, &[entry("a", 995, "P"), entry("b", 995, "x")]);
    state.learn(&context(), Place::Second, Some(goes), How::Watch);
    let lost = state.learn(&context(), Place::First, Some(stored(2, &[])), How::Watch);
    assert!(lost, "who did not go is lost, and not removed");
    assert!(!sees(&state, "a") && sees(&state, "b"));
    for foreign in [false, true] {
        state.reconcile(&context(), foreign);
    }
    assert_eq!(ids(&state, Place::First), ["b"]);
    let batch = state.batch(Place::Second, usize::MAX).unwrap();
    assert_eq!(batch.items["a"].op, Op::Remove { timestamp: 995 });
}

#[test]
fn who_goes_itself_is_still_told_to_a_primary_that_comes_back_empty() {
    let mut state = both_hold(&[entry("a", 990, "x")]);
    let goes = entry("a", 995, "P");
    write(&mut state, &upsert(&goes), stored(2, std::slice::from_ref(&goes)), SECOND);
    state.learn(&context(), Place::First, None, How::Watch);
    assert!(sees(&state, "a"));
    let batch = state.batch(Place::First, usize::MAX).unwrap();
    let plan = state.plan(&context(), &batch, None, &|_| true);
    assert_eq!(plan.change, upsert(&goes));
}

/// Readers are shown this, as the time and the words of each entry.
fn shows(state: &mut State) -> Vec<String> {
    state.adopt(&context());
    state.publish(&context(), || 1);
    let shown = state.shown().flatten();
    let entries = shown.iter().flat_map(|stored| stored.entries.iter());
    entries.map(|(id, entry)| format!("{id}={}", String::from_utf8_lossy(&entry.bytes))).collect()
}

#[test]
fn what_is_written_while_a_key_is_being_deleted_stays_however_late_that_is_answered() {
    // In the same second, so that no time tells them apart.
    let (old, new) = ([entry("a", 990, "old"), entry("b", 990, "old")], entry("a", 990, "new"));
    for landing in [FIRST, APART] {
        for is_mirrored_first in [false, true] {
            let mut state = both_hold(&old);
            let begun = state.begin_deletion(&context(), Precondition::None).unwrap();
            write(&mut state, &upsert(&new), stored(2, std::slice::from_ref(&new)), landing);
            let mut secondary = stored(1, &old);
            if is_mirrored_first {
                let batch = state.batch(Place::Second, usize::MAX).unwrap();
                secondary = stored(2, &[new.clone(), old[1].clone()]);
                state.told(&context(), &batch, Some((upsert(&new), secondary.clone())), SECOND);
            }
            state.commit_deletion(&context(), &begun, Place::First);
            assert_eq!(shows(&mut state), ["a=990 new"], "{landing:?} {is_mirrored_first}");
            let batch = state.batch(Place::Second, usize::MAX).unwrap();
            let plan = state.plan(&context(), &batch, Some(&secondary), &|_| true);
            assert!(!plan.deletes && plan.change.removals == ["b".into()].into(), "{plan:?}");
            assert_eq!(plan.change.upserts.contains_key("a"), !is_mirrored_first, "{plan:?}");
            // The watch comes last of all.
            state.learn(&context(), Place::First, Some(stored(2, std::slice::from_ref(&new))), How::Watch);
            assert_eq!(shows(&mut state), ["a=990 new"], "{landing:?} {is_mirrored_first}");
        }
    }
}

#[test]
fn what_was_heard_of_after_a_mirrored_deletion_stays_although_that_is_answered_later() {
    for is_heard_first in [true, false] {
        let mut state = both_hold(&[entry("a", 990, "x")]);
        let begun = state.begin_deletion(&context(), Precondition::None).unwrap();
        state.commit_deletion(&context(), &begun, Place::First);
        let batch = state.batch(Place::Second, usize::MAX).unwrap();
        let newer = stored(3, &[entry("b", 995, "x")]);
        let hears = |state: &mut State| {
            state.learn(&context(), Place::Second, Some(newer.clone()), How::Watch);
        };
        if is_heard_first {
            hears(&mut state);
        }
        state.told_deletion(&context(), &batch, Place::Second, 1);
        if !is_heard_first {
            assert_eq!(state.snapshot(Place::Second), Some(None));
            // What was deleted is no news any more.
            let old = stored(1, &[entry("a", 990, "x")]);
            state.learn(&context(), Place::Second, Some(old), How::Watch);
            assert_eq!(state.snapshot(Place::Second), Some(None));
            hears(&mut state);
        }
        assert_eq!(state.snapshot(Place::Second), Some(Some(newer)), "{is_heard_first}");
        assert!(state.batch(Place::Second, usize::MAX).is_none());
        assert_eq!(shows(&mut state), ["b=995 x"]);
    }
}

#[test]
fn a_read_that_finds_what_was_taken_for_absent_is_believed() {
    let held = stored(5, &[entry("a", 990, "x")]);
    let mut state = both_hold(&[]);
    state.learn(&context(), Place::First, Some(held.clone()), How::Watch);
    let how = state.begin_read(Place::First);
    state.learn(&context(), Place::First, None, how);
    // What a watch says may be from before.
    let early = state.begin_read(Place::First);
    state.learn(&context(), Place::First, Some(held.clone()), How::Watch);
    assert_eq!(state.snapshot(Place::First), Some(None));
    state.learn(&context(), Place::First, Some(held.clone()), early);
    assert_eq!(state.snapshot(Place::First), Some(Some(held)));
}

#[test]
fn an_own_write_is_gone_once_the_key_is_read_as_absent_after_it() {
    let written = entry("a", 990, "x");
    let mut state = State::default();
    state.learn(&context(), Place::First, None, How::Watch);
    state.learn(&context(), Place::Second, None, How::Watch);
    let early = state.begin_read(Place::First);
    write(&mut state, &upsert(&written), stored(2, std::slice::from_ref(&written)), APART);
    state.learn(&context(), Place::First, None, early);
    // What is on its way to the other store would show it, too.
    assert_eq!(state.held[Place::First].unseen.len(), 1, "that read began before the write");
    assert_eq!(shows(&mut state), ["a=990 x"]);
    let how = state.begin_read(Place::First);
    state.learn(&context(), Place::First, None, how);
    assert!(state.held[Place::First].unseen.is_empty());
}

/// Whoever looks what became of a write may be told how things were before something that this process did since.
#[test]
fn what_was_undone_since_is_not_taken_for_what_landed() {
    let written = entry("a", 990, "x");
    let landed = |state: &State, change: &Change| state.landed(&Timed, Place::First, change);
    for landing in [FIRST, APART] {
        let mut state = both_hold(&[]);
        let held = stored(2, std::slice::from_ref(&written));
        state.learn(&context(), Place::First, Some(held), How::Watch);
        assert_eq!(landed(&state, &upsert(&written)), upsert(&written));
        assert!(landed(&state, &Change::remove("a")).is_empty());
        write(&mut state, &Change::remove("a"), stored(3, &[]), landing);
        assert!(landed(&state, &upsert(&written)).is_empty(), "{landing:?}");
        assert_eq!(landed(&state, &Change::remove("a")), Change::remove("a"), "{landing:?}");
    }
}
