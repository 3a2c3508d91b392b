//! What holds for any registers in any order.

use super::*;

proptest! {
    #[test]
    fn the_same_registers_in_any_order_make_equal_stores((items, others) in items_and_shuffled_twice()) {
        let (mut one, mut other) = (store(), store());
        merge_all(&mut one, &items);
        merge_all(&mut other, &others);
        assert_equal(&one, &other);
        assert_equal(&one, &rebuilt(&one, at(5)));
        // And what is there already changes nothing.
        let version = (one.local_version("ring"), one.local_version("other"));
        one.take_changes();
        for (key, entry, register) in contents(&other) {
            prop_assert_eq!(one.merge(at(6), &key, &entry, &register, None), Merged::Same);
        }
        for (key, entry, register) in &items {
            prop_assert!(!one.merge(at(6), key, entry, register, None).is_change());
        }
        prop_assert!(one.take_changes().is_empty());
        prop_assert_eq!(version, (one.local_version("ring"), one.local_version("other")));
    }

    #[test]
    fn each_place_holds_the_greatest_register_it_was_given(items in prop::collection::vec(item(FAIR_TIMES), 0..60)) {
        let mut store = store();
        merge_all(&mut store, &items);
        let mut greatest = BTreeMap::new();
        for (key, entry, register) in &items {
            let held = greatest.entry((*key, entry)).or_insert(register);
            if register.order() > held.order() {
                *held = register;
            }
        }
        let greatest: BTreeMap<_, _> =
            greatest.into_iter().map(|((key, entry), register)| ((key.to_owned(), entry.clone()), register.clone())).collect();
        let contents: BTreeMap<_, _> =
            contents(&store).into_iter().map(|(key, entry, register)| ((key, entry), register)).collect();
        prop_assert_eq!(contents, greatest);
    }

    #[test]
    fn digests_are_equal_exactly_if_stores_are(
        items in prop::collection::vec(item(FAIR_TIMES), 0..12),
        mores in prop::collection::vec(item(FAIR_TIMES), 0..3),
    ) {
        let mut one = store();
        merge_all(&mut one, &items);
        let mut other = one.clone();
        merge_all(&mut other, &mores);
        let mut equal = true;
        for key in ["ring", "other"] {
            let same = settled(&one, key) == settled(&other, key);
            prop_assert_eq!(one.key_digest(key) == other.key_digest(key), same);
            prop_assert_eq!(one.buckets(key) == other.buckets(key), same);
            equal &= same;
        }
        prop_assert_eq!(one.root() == other.root(), equal);
    }

    #[test]
    fn own_writes_count_over_all_there_is(
        items in prop::collection::vec(item(WILD_TIMES), 0..40),
        text in prop::sample::select(vec![None, Some("own")]),
    ) {
        // Our name is that of one author, so that some are from a former life of ours.
        let mut store = Store::new(Limits::default(), 1);
        let mut other = Store::new(Limits::default(), OWN);
        merge_all(&mut store, &items);
        merge_all(&mut other, &items);
        let mut clock = Clock::default();
        for (key, entry, _) in &items {
            let written = store.write(at(5), key, entry, body(text), &mut clock).unwrap();
            prop_assert_eq!(store.get(key, entry).map(Slot::register), Some(&written));
            prop_assert!(other.merge(at(5), key, entry, &written, None).is_change());
        }
        for (key, entry, register) in &items {
            prop_assert!(!store.merge(at(5), key, entry, register, None).is_change());
            prop_assert!(!other.merge(at(5), key, entry, register, None).is_change());
        }
        assert_equal(&store, &rebuilt(&store, at(5)));
    }

    #[test]
    fn what_others_send_stays_within_bounds(
        items in prop::collection::vec(item(WILD_TIMES), 0..120),
        max_bytes in 2_000..4_000_usize,
    ) {
        let limits = Limits { max_keys: 1, max_entries_per_key: 1, max_bytes, ..Limits::default() };
        let mut store = Store::new(limits, OWN);
        for (key, entry, register) in &items {
            let _ = store.merge(at(5), key, entry, register, None);
            prop_assert!(store.num_keys() <= limits.max_keys);
            prop_assert!(store.sizes().live_ids <= SLACK * limits.max_entries_per_key);
            prop_assert!(store.sizes().bytes <= SLACK * limits.max_bytes);
        }
        // What expires leaves nothing behind, and what lives stays.
        assert_equal(&store, &rebuilt(&store, at(5)));
        let lives = store.sizes().entries - store.sizes().tombstones;
        let ticked = store.tick(at(LATE), &mut Clock::default());
        prop_assert!(ticked.restamped.is_empty());
        prop_assert_eq!((store.sizes().entries, store.sizes().tombstones), (lives, 0));
        prop_assert_eq!(store.removals().count(), ticked.expired.len());
        assert_equal(&store, &rebuilt(&store, at(LATE)));
    }

    #[test]
    fn entries_count_if_anything_of_them_lives(items in prop::collection::vec(item(FAIR_TIMES), 0..60)) {
        let mut store = store();
        merge_all(&mut store, &items);
        let mut live_ids = BTreeSet::new();
        for key in ["ring", "other"] {
            let live = store.live(key).filter(|(entry, _)| entry.facet <= HEARTBEAT_FACET);
            live_ids.extend(live.map(|(entry, _)| (key, entry.id.clone())));
        }
        prop_assert_eq!(store.sizes().live_ids, live_ids.len());
    }
}
