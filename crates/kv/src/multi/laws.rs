//! What must hold of unions and of what stores are told, whatever they hold. And the small world in which that is tested.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;
use proptest::collection::{btree_map, vec};
use proptest::prelude::*;
use tokio::time::Instant;

use super::compare::compare;
use super::delta::{Op, Verdict, judge, plan};
use super::marks::{Ages, Marks};
use super::place::{Both, Place};
use super::queue::Queue;
use super::reconcile::{Pushes, pushes};
use super::union::{Facts, Known, Pair, Side};
use crate::codec::{Codec, DecodeError, Facets, Stamp};
use crate::entries::Entries;
use crate::store::{Change, EntryBytes, EntryId};

const TIMEOUT: Duration = Duration::from_secs(60);
const MAX_LAG: u64 = 15;

/// Entries are a time in seconds, a space, and what they say; `L…` has left, `P…` is about to go.
pub(super) struct Timed;

impl Codec for Timed {
    fn id(&self) -> &'static str {
        "timed"
    }

    fn split(&self, _stored: &[u8]) -> Result<BTreeMap<EntryId, Bytes>, DecodeError> {
        Err(DecodeError::new("never stored"))
    }

    fn join(&self, _entries: &BTreeMap<EntryId, Bytes>) -> Bytes {
        Bytes::new()
    }

    fn check_entry(&self, _id: &str, _entry: &[u8]) -> Result<(), DecodeError> {
        Ok(())
    }

    fn facets(&self, _id: &str, entry: &Bytes) -> Facets {
        match parts(entry) {
            Some((timestamp, says)) => {
                let timestamp = Bytes::from(timestamp.to_string());
                [Some(Bytes::copy_from_slice(says.as_bytes())), None, Some(timestamp)]
            }
            None => [Some(entry.clone()), None, None],
        }
    }

    fn stamp(&self, _id: &str, entry: &[u8]) -> Option<Stamp> {
        let (timestamp, says) = parts(entry)?;
        Some(Stamp { timestamp, left: says.starts_with('L'), passing: says.starts_with('P') })
    }
}

fn parts(entry: &[u8]) -> Option<(i64, &str)> {
    let (timestamp, says) = std::str::from_utf8(entry).ok()?.split_once(' ')?;
    Some((timestamp.parse().ok()?, says))
}

/// An entry of [`Timed`].
pub(super) fn entry(id: &str, timestamp: i64, says: &str) -> (EntryId, EntryBytes) {
    (id.into(), EntryBytes::new(format!("{timestamp} {says}").into()))
}

/// What is known beside two stores.
pub(super) struct Model {
    pub(super) now: i64,
    pub(super) marks: Marks,
    pub(super) ages: Ages,
    pub(super) watched: bool,
}

impl Model {
    pub(super) fn at(now: i64) -> Self {
        Self { now, marks: Marks::new(), ages: Ages::default(), watched: false }
    }

    /// A store that holds these, looked at for the first time.
    pub(super) fn store(&mut self, entries: &[(EntryId, EntryBytes)]) -> Entries<EntryBytes> {
        for (id, entry) in entries {
            if let Some(stamp) = Timed.stamp(id, &entry.bytes) {
                self.ages.see(id, stamp.timestamp, self.now, true);
            }
        }
        entries.iter().cloned().collect()
    }

    pub(super) fn facts(&self) -> Facts<'_> {
        Facts {
            codec: &Timed,
            marks: &self.marks,
            ages: &self.ages,
            deleted: false,
            watched: self.watched,
            now: self.now,
            timeout: TIMEOUT,
        }
    }

    fn pair<'a>(&'a self, primary: &'a Entries<EntryBytes>, secondary: &'a Entries<EntryBytes>) -> Pair<'a> {
        let side = |entries| Side::plain(Known::Entries(entries));
        Pair { primary: side(primary), secondary: Some(side(secondary)), facts: self.facts() }
    }
}

type Content = BTreeMap<u8, (i64, u8)>;

/// Two stores, marks, and which of some changes come to which store.
#[derive(Clone, Debug)]
struct World {
    stores: [Content; 2],
    marks: BTreeMap<u8, i64>,
}

const NOW: i64 = 1000;

fn content() -> impl Strategy<Value = Content> {
    // Some long dead, some living, often at the same time.
    let timestamp = prop_oneof![Just(100i64), Just(101), 930..950i64, 990..1000i64];
    btree_map(0..8u8, (timestamp, 0..4u8), 0..8)
}

fn world() -> impl Strategy<Value = World> {
    let marks = btree_map(0..8u8, prop_oneof![Just(100i64), 930..1000i64], 0..3);
    (content(), content(), marks).prop_map(|(one, other, marks)| World { stores: [one, other], marks })
}

fn id(number: u8) -> EntryId {
    format!("i{number}").into()
}

impl World {
    fn build(&self) -> (Model, [Entries<EntryBytes>; 2]) {
        let mut model = Model::at(NOW);
        let stores = [0, 1].map(|place: usize| {
            let says = |number: u8| ["x", "y", "L", "P"][usize::from(number)];
            let entries = self.stores[place].iter();
            let entries = entries.map(|(number, (timestamp, says_what))| {
                let (_, bytes) = entry("", *timestamp, says(*says_what));
                (id(*number), bytes)
            });
            model.store(&entries.collect::<Vec<_>>())
        });
        for (number, timestamp) in &self.marks {
            model.marks.set(&id(*number), *timestamp, NOW + 1000);
        }
        (model, stores)
    }
}

/// Tells a store all of this, as its own rules have it.
fn tell(store: &mut Entries<EntryBytes>, pushed: &[(EntryId, Op)], marks: &Marks) -> usize {
    let mut queue = Queue::default();
    for (id, op) in pushed {
        queue.push(&Timed, id.clone(), op.clone(), false, 0, Instant::now());
    }
    let Some(batch) = queue.batch(usize::MAX) else { return 0 };
    let plan = plan(&Timed, &batch, Some(&*store), marks, &|_| true);
    for id in &plan.change.removals {
        store.remove(id);
    }
    for (id, bytes) in plan.change.upserts {
        store.insert(id, EntryBytes::new(bytes));
    }
    plan.verdicts.iter().filter(|verdict| **verdict == Verdict::Applied).count()
}

fn tell_both(stores: &mut [Entries<EntryBytes>; 2], pushed: &Pushes, marks: &Marks) -> usize {
    let [primary, secondary] = stores;
    tell(secondary, &pushed.to_secondary, marks)
        + tell(primary, &pushed.to_primary, marks)
        + tell(primary, &pushed.foreign, marks)
}

fn timestamp(entries: &Entries<EntryBytes>, id: &str) -> Option<i64> {
    Timed.stamp(id, &entries.get(id)?.bytes).map(|stamp| stamp.timestamp)
}

proptest! {
    #[test]
    fn a_store_with_itself_is_itself_without_what_was_removed(world in world()) {
        let (model, [store, _]) = world.build();
        let mut expected = store.clone();
        expected.retain(|id, entry| {
            model.facts().counts(id, Timed.stamp(id, &entry.bytes))
        });
        prop_assert_eq!(model.pair(&store, &store).entries(), expected);
    }

    #[test]
    fn a_union_has_every_living_entry_in_its_newest_form_and_no_removed_one(world in world()) {
        let (model, [one, other]) = world.build();
        let union = model.pair(&one, &other).entries();
        let facts = model.facts();
        for number in 0..8 {
            let id = id(number);
            let newest = timestamp(&one, &id).max(timestamp(&other, &id));
            let counts = newest.is_some_and(|newest| !model.marks.hide(&id, newest));
            let expected = newest.filter(|_| counts && (one.contains_key(&id) || facts.is_fresh(&id)));
            // What the primary has may be a removed one, while the other has a newer one that is too old to be alone.
            let hidden = timestamp(&one, &id).is_some_and(|at| model.marks.hide(&id, at));
            if facts.is_fresh(&id) || !hidden {
                prop_assert_eq!(timestamp(&union, &id), expected, "{}", id);
            }
            let resurrected = timestamp(&union, &id).is_some_and(|at| model.marks.hide(&id, at));
            prop_assert!(!resurrected);
        }
    }

    #[test]
    fn it_does_not_matter_which_store_is_which_but_for_ties_and_the_dead(world in world()) {
        let (model, [one, other]) = world.build();
        let (union, turned) = (model.pair(&one, &other).entries(), model.pair(&other, &one).entries());
        for number in 0..8 {
            let id = id(number);
            if model.facts().is_fresh(&id) {
                prop_assert_eq!(timestamp(&union, &id), timestamp(&turned, &id));
                if timestamp(&one, &id) != timestamp(&other, &id) {
                    prop_assert_eq!(union.get(&id), turned.get(&id));
                }
            }
        }
    }

    #[test]
    fn two_stores_converge_and_what_was_removed_stays_so(world in world()) {
        let (model, mut stores) = world.build();
        let facts = model.facts();
        let [primary, secondary] = &stores;
        let union = model.pair(primary, secondary).entries();
        let first = pushes(primary, secondary, MAX_LAG, &facts);
        tell_both(&mut stores, &first, &model.marks);
        let [primary, secondary] = &stores;
        // Nothing is lost, nothing comes back, nothing is made older.
        for (id, entry) in &model.pair(primary, secondary).entries() {
            prop_assert_eq!(union.get(id).map(|union| &union.bytes), Some(&entry.bytes));
        }
        prop_assert_eq!(model.pair(primary, secondary).entries().len(), union.len());
        for store in &stores {
            for (id, entry) in store {
                prop_assert!(facts.counts(id, Timed.stamp(id, &entry.bytes)), "{} came back", id);
            }
        }
        // Once is enough.
        let [primary, secondary] = &stores;
        prop_assert_eq!(pushes(primary, secondary, MAX_LAG, &facts), Pushes::default());
        let held = Both::of(|place| Some(if place == Place::First { primary } else { secondary }));
        let nobody = BTreeSet::new();
        let found = compare(&held, Place::First, &Both::of(|_| &nobody), &facts);
        prop_assert_eq!((found.missing[Place::First].num, found.missing[Place::Second].num), (0, 0));
        prop_assert_eq!(found.mismatched.num, 0);
        prop_assert!(found.skew_secs <= MAX_LAG);
    }

    #[test]
    fn changes_of_an_owner_come_to_the_same_in_any_order_and_number(
        changes in vec((0..3u8, 0..20i64), 1..20),
        order in vec(any::<prop::sample::Index>(), 0..40),
    ) {
        // An owner never says two things at the same time.
        let change = |(number, at): (u8, i64)| {
            let (_, bytes) = entry("", at, if at % 5 == 4 { "L" } else { "x" });
            (id(number), Op::Upsert { bytes: bytes.bytes, wins_ties: true })
        };
        let apply = |store: &mut Entries<EntryBytes>, (id, op): (EntryId, Op)| {
            if judge(&Timed, &id, &op, store.get(&id)) == Verdict::Applied
                && let Op::Upsert { bytes, .. } = op
            {
                store.insert(id, EntryBytes::new(bytes));
            }
        };
        let (mut straight, mut shuffled) = (Entries::new(), Entries::new());
        changes.iter().for_each(|one| apply(&mut straight, change(*one)));
        order.iter().for_each(|index| apply(&mut shuffled, change(*index.get(&changes))));
        changes.iter().rev().for_each(|one| apply(&mut shuffled, change(*one)));
        prop_assert_eq!(&straight, &shuffled);
        // A queue keeps the newest of each, and telling it twice changes nothing.
        let told: Vec<_> = changes.iter().rev().map(|one| change(*one)).collect();
        let mut queued = Entries::new();
        tell(&mut queued, &told, &Marks::new());
        prop_assert_eq!(&straight, &queued);
        prop_assert_eq!(tell(&mut queued, &told, &Marks::new()), 0);
    }
}

#[test]
fn at_the_same_time_left_wins_else_what_the_primary_has() {
    let mut model = Model::at(NOW);
    let one = model.store(&[entry("a", 990, "x"), entry("b", 990, "x"), entry("c", 990, "L")]);
    let other = model.store(&[entry("a", 990, "y"), entry("b", 990, "L"), entry("c", 990, "x")]);
    let says = |union: &Entries<EntryBytes>| {
        let says = union.values().map(|entry| String::from_utf8_lossy(&entry.bytes).into_owned());
        says.collect::<Vec<_>>()
    };
    assert_eq!(says(&model.pair(&one, &other).entries()), ["990 x", "990 L", "990 L"]);
    assert_eq!(says(&model.pair(&other, &one).entries()), ["990 y", "990 L", "990 L"]);
}

#[test]
fn what_is_under_way_counts_as_there() {
    let model = Model::at(NOW);
    let (held, nothing) = (Entries::from_iter([entry("a", 900, "x"), entry("b", 900, "x")]), Entries::new());
    let mut queue = Queue::default();
    let now = Instant::now();
    let op = |timestamp| Op::Upsert { bytes: entry("", timestamp, "y").1.bytes, wins_ties: true };
    queue.push(&Timed, "a".into(), op(901), true, 1, now);
    queue.push(&Timed, "b".into(), op(899), true, 1, now);
    let unseen = [(7, Change::upsert("c", entry("", 902, "z").1.bytes))];
    let known = Known::Entries(&held);
    let primary = Side { known, unseen: &unseen, queue: Some(&queue) };
    let secondary = Some(Side::plain(Known::Entries(&nothing)));
    let pair = Pair { primary, secondary, facts: model.facts() };
    let times = |entries: &Entries<EntryBytes>| ["a", "b", "c"].map(|id| timestamp(entries, id));
    assert_eq!(times(&pair.entries()), [Some(901), Some(900), Some(902)]);
    let removed = BTreeMap::from([("a".into(), 900), ("b".into(), 900)]);
    queue.push_deletion(removed, BTreeSet::new(), queue.last(), now);
    let pair =
        Pair { primary: Side { known, unseen: &[], queue: Some(&queue) }, ..model.pair(&held, &nothing) };
    assert!(
        pair.entries().is_empty() && !pair.is_present(&Entries::new()),
        "a key that is being deleted is gone"
    );
}

#[test]
fn a_value_without_times_is_the_primarys_as_long_as_it_has_one() {
    let model = Model::at(NOW);
    let plain = |id: &str, says: &'static str| (EntryId::from(id), EntryBytes::new(says.into()));
    let (one, other) =
        (Entries::from_iter([plain("a", "1")]), Entries::from_iter([plain("a", "2"), plain("b", "2")]));
    let nothing = Entries::new();
    let secondary = Some(Side::plain(Known::Entries(&other)));
    let pair = |known| Pair { primary: Side::plain(known), secondary, facts: model.facts() };
    assert_eq!(pair(Known::Entries(&one)).entries(), one);
    assert_eq!(pair(Known::Entries(&nothing)).entries(), nothing);
    for known in [Known::Absent, Known::Unheard] {
        assert_eq!(pair(known).entries(), other);
        let deleted = Pair { facts: Facts { deleted: true, ..model.facts() }, ..pair(known) };
        assert!(deleted.entries().is_empty() && !deleted.is_present(&deleted.entries()));
    }
    assert!(pair(Known::Entries(&one)).is_present(&one));
}

#[test]
fn a_key_is_deleted_unless_somebody_has_written_since() {
    let mut queue = Queue::default();
    let now = Instant::now();
    queue.push(&Timed, "b".into(), Op::Remove { timestamp: 1 }, false, 1, now);
    queue.push_deletion(BTreeMap::from([("a".into(), 900)]), BTreeSet::new(), queue.last(), now);
    assert_eq!(queue.len(), 1, "what was under way before does not matter any more");
    let batch = queue.batch(usize::MAX).unwrap();
    let told = |held: Option<&Entries<EntryBytes>>| {
        let plan = plan(&Timed, &batch, held, &Marks::new(), &|_| true);
        (plan.deletes, plan.change)
    };
    let held = Entries::from_iter([entry("a", 900, "x")]);
    assert_eq!(told(Some(&held)), (true, Change::default()));
    assert_eq!(told(None), (false, Change::default()));
    let held = Entries::from_iter([entry("a", 900, "x"), entry("b", 950, "x")]);
    assert_eq!(told(Some(&held)), (false, Change::remove("a")));
    queue.push(&Timed, "a".into(), Op::Remove { timestamp: 1 }, false, 2, now);
    queue.settle_deletion(&batch);
    assert_eq!((queue.deletes(), queue.len()), (false, 1));
}
