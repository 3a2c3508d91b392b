use std::collections::BTreeMap;

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

fn id(of: u16) -> EntryId {
    format!("i{of}").into()
}

fn check(entries: &Entries<u8>) {
    assert!(entries.chunks.iter().all(|chunk| (1..=MAX_CHUNK).contains(&chunk.len())));
    assert!(entries.keys().is_sorted_by(|a, b| a < b));
    assert_eq!(entries.chunks.iter().map(|chunk| chunk.len()).sum::<usize>(), entries.len());
}

#[derive(Clone, Debug)]
enum Step {
    Insert(u16, u8),
    Remove(u16),
    RemoveRange(u16, u16),
}

fn steps(most: usize) -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        6 => (0..700u16, any::<u8>()).prop_map(|(id, entry)| Step::Insert(id, entry)),
        3 => (0..700u16).prop_map(Step::Remove),
        1 => (0..700u16, 0..300u16).prop_map(|(from, len)| Step::RemoveRange(from, len)),
    ];
    vec(step, 0..most)
}

fn apply(entries: &mut Entries<u8>, model: &mut BTreeMap<EntryId, u8>, step: &Step) {
    match *step {
        Step::Insert(of, entry) => assert_eq!(entries.insert(id(of), entry), model.insert(id(of), entry)),
        Step::Remove(of) => assert_eq!(entries.remove(&id(of)), model.remove(&id(of))),
        Step::RemoveRange(from, len) => {
            for of in from..from + len {
                assert_eq!(entries.remove(&id(of)), model.remove(&id(of)));
            }
        }
    }
}

proptest! {
    #[test]
    fn it_is_a_sorted_map_and_versions_tell_their_difference(
        start in 0..600u16, first in steps(300), then in steps(30),
    ) {
        let mut entries: Entries<u8> = (0..start).map(|of| (id(of), 0)).collect();
        let mut model: BTreeMap<EntryId, u8> = (0..start).map(|of| (id(of), 0)).collect();
        for step in &first {
            apply(&mut entries, &mut model, step);
        }
        check(&entries);
        prop_assert!(entries.iter().eq(model.iter()));
        prop_assert!(entries.iter().rev().eq(model.iter().rev()));
        for of in 0..1000 {
            prop_assert_eq!(entries.get(&id(of)), model.get(&id(of)));
        }

        let (before, old) = (entries.clone(), model.clone());
        for step in &then {
            apply(&mut entries, &mut model, step);
        }
        check(&entries);
        prop_assert!(before.iter().eq(old.iter()), "a clone stays as it was");
        let mut told = Vec::new();
        Entries::compare(&before, &entries, |id, was, is| {
            if was != is {
                told.push((id.clone(), was.copied(), is.copied()));
            }
        });
        let all: std::collections::BTreeSet<_> = old.keys().chain(model.keys()).collect();
        let differs = |id: &&EntryId| old.get(*id) != model.get(*id);
        let expected: Vec<_> = all
            .into_iter()
            .filter(differs)
            .map(|id| (id.clone(), old.get(id).copied(), model.get(id).copied()))
            .collect();
        prop_assert_eq!(told, expected);
        prop_assert_eq!(before == entries, old == model);
        let again: Entries<u8> = model.into_iter().collect();
        prop_assert_eq!(&again, &entries, "however they came to be");
        let evens = |_: &EntryId, entry: &u8| entry.is_multiple_of(2);
        let mut kept = entries.clone();
        kept.retain(evens);
        check(&kept);
        prop_assert!(kept.iter().eq(entries.iter().filter(|(id, entry)| evens(id, entry))));
    }
}

#[test]
fn iteration_from_both_ends_meets_in_the_middle() {
    let entries: Entries<u8> = (0..300).map(|of| (id(of), 0)).collect();
    for from_the_back in [0, 1, 100, 150, 299, 300] {
        let mut iter = entries.iter();
        let mut back: Vec<_> = iter.by_ref().rev().take(from_the_back).collect();
        assert_eq!(iter.len(), 300 - from_the_back);
        let mut all: Vec<_> = iter.collect();
        back.reverse();
        all.extend(back);
        assert!(all.into_iter().eq(entries.iter()));
    }
}

#[test]
fn one_changed_entry_is_found_without_looking_at_the_others() {
    let before: Entries<u8> = (0..10_000).map(|of| (id(of), 0)).collect();
    let mut after = before.clone();
    after.insert(id(5_000), 1);
    let mut looked_at = 0;
    Entries::compare(&before, &after, |_, _, _| looked_at += 1);
    assert!((1..=MAX_CHUNK).contains(&looked_at), "{looked_at}");
    let shared = before.chunks.iter().zip(&after.chunks).filter(|(a, b)| Arc::ptr_eq(a, b)).count();
    assert_eq!(shared, before.chunks.len() - 1);
}
