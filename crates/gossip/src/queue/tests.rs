use std::cell::Cell;

use bytes::Bytes;
use proptest::prelude::*;

use super::*;
use crate::register::Version;
use crate::time::Hlc;

const KEY: &str = "k";

fn at(ms: u64) -> Now {
    Now { mono: Duration::from_millis(ms), wall_ms: 0 }
}

fn written(hlc: u64) -> Register {
    let version = Version { epoch: 0, hlc: Hlc(hlc) };
    Register { version, author: 1, body: Body::Live(Bytes::from_static(b"body")) }
}

fn removed(hlc: u64) -> Register {
    Register { body: Body::Tombstone, ..written(hlc) }
}

/// Who writes what.
#[derive(Clone, Copy)]
enum By {
    Us,
    UsBeating,
    Others,
    OthersBeating,
}

fn push(queue: &mut Queue, now: Now, id: &str, by: By, register: Register) -> Pushed {
    let own = matches!(by, By::Us | By::UsBeating);
    let heartbeat = matches!(by, By::UsBeating | By::OthersBeating);
    queue.push(now, SmolStr::new(KEY), EntryId::new(id, 0), register, own, heartbeat)
}

/// The entries of a message with room for so many.
fn told(queue: &mut Queue, room: usize) -> Vec<SmolStr> {
    let mut ids = Vec::new();
    queue.fill(
        at(0),
        room,
        |_| 1,
        |item| {
            ids.push(item.entry.id.clone());
            true
        },
    );
    ids
}

/// The entries of an eager datagram with room for so many.
fn told_eagerly(queue: &mut Queue, now: Now, times: u32, room: usize) -> Vec<SmolStr> {
    let mut ids = Vec::new();
    queue.fill_eager(
        now,
        times,
        room,
        |_| 1,
        |item| {
            ids.push(item.entry.id.clone());
            true
        },
    );
    ids
}

/// How many messages with room for all the queue fills until it is empty.
fn messages_until_empty(queue: &mut Queue) -> usize {
    let mut messages = 0;
    while !told(queue, 1_000).is_empty() {
        messages += 1;
    }
    messages
}

#[test]
fn own_goes_before_foreign_and_news_before_heartbeats() {
    let mut queue = Queue::new(Config::default());
    push(&mut queue, at(0), "foreign-hb", By::OthersBeating, written(1));
    push(&mut queue, at(0), "foreign", By::Others, written(1));
    push(&mut queue, at(0), "own-hb", By::UsBeating, written(1));
    push(&mut queue, at(0), "own", By::Us, written(1));
    push(&mut queue, at(0), "own-hb-removed", By::UsBeating, removed(1));
    assert_eq!(told(&mut queue, 100), ["own", "own-hb-removed", "own-hb", "foreign", "foreign-hb"]);
}

#[test]
fn what_was_sent_less_goes_first_and_among_those_the_oldest() {
    let mut queue = Queue::new(Config::default());
    for id in ["a", "b", "c"] {
        push(&mut queue, at(0), id, By::Us, written(1));
    }
    assert_eq!(told(&mut queue, 2), ["a", "b"]);
    assert_eq!(told(&mut queue, 2), ["c", "a"]);
    assert_eq!(told(&mut queue, 2), ["b", "c"]);
    assert_eq!(told(&mut queue, 2), ["a", "b"]);
}

#[test]
fn a_newer_register_replaces_and_others_change_nothing() {
    let mut queue = Queue::new(Config::default());
    assert_eq!(push(&mut queue, at(0), "a", By::Us, written(2)), Pushed::Added);
    assert_eq!(told(&mut queue, 1), ["a"]);
    let before = queue.bytes();
    assert_eq!(push(&mut queue, at(0), "a", By::Us, written(1)), Pushed::Stale);
    assert_eq!(push(&mut queue, at(0), "a", By::Us, written(2)), Pushed::Stale);
    assert_eq!((queue.len(), queue.bytes(), queue.stats().stale), (1, before, 2));
    let entry = EntryId::new("a", 0);
    assert_eq!(queue.get(KEY, &entry).unwrap().sent, 1);

    assert_eq!(push(&mut queue, at(0), "a", By::Others, removed(3)), Pushed::Replaced);
    let item = queue.get(KEY, &entry).unwrap();
    assert_eq!((&item.register, item.sent, item.own), (&removed(3), 0, false));
    assert_eq!(queue.len(), 1);
    assert!(queue.bytes() < before, "a tombstone has no body");

    assert_eq!(queue.remove(KEY, &entry).unwrap().register, removed(3));
    assert!(queue.is_empty() && queue.bytes() == 0 && queue.remove(KEY, &entry).is_none());
}

#[test]
fn what_was_never_sent_keeps_its_turn_when_replaced() {
    let mut queue = Queue::new(Config::default());
    push(&mut queue, at(0), "a", By::Us, written(1));
    push(&mut queue, at(0), "b", By::Us, written(1));
    push(&mut queue, at(0), "a", By::Us, written(2));
    assert_eq!(told(&mut queue, 1), ["a"]);
    push(&mut queue, at(0), "a", By::Us, written(3));
    assert_eq!(told(&mut queue, 1), ["b"]);
    assert_eq!(told(&mut queue, 1), ["a"]);
}

#[test]
fn an_item_is_sent_as_often_as_the_cluster_is_large() {
    for (members, times) in [(0, 4), (1, 4), (9, 4), (10, 8), (99, 8), (100, 12), (20_000, 20)] {
        let mut queue = Queue::new(Config::default());
        queue.set_members(members);
        push(&mut queue, at(0), "a", By::Others, written(1));
        assert_eq!(messages_until_empty(&mut queue), times, "{members} members");
        push(&mut queue, at(0), "a", By::Others, written(1));
        assert_eq!(messages_until_empty(&mut queue), times, "what is spent is forgotten");
        push(&mut queue, at(0), "a", By::OthersBeating, written(2));
        assert_eq!(messages_until_empty(&mut queue), 5, "a heartbeat among {members} members");
        assert_eq!(queue.bytes(), 0);
    }
    // Without a factor, once.
    let mut queue = Queue::new(Config { retransmit_factor: 0, ..Config::default() });
    push(&mut queue, at(0), "a", By::Us, written(1));
    assert_eq!(messages_until_empty(&mut queue), 1);
}

#[test]
fn what_was_sent_often_enough_leaves_when_the_cluster_shrinks() {
    let mut queue = Queue::new(Config::default());
    queue.set_members(100);
    push(&mut queue, at(0), "a", By::Us, written(1));
    push(&mut queue, at(0), "hb", By::UsBeating, written(1));
    for _ in 0..4 {
        told(&mut queue, 2);
    }
    push(&mut queue, at(0), "b", By::Others, written(1));
    queue.set_members(9);
    assert_eq!(told(&mut queue, 100), ["hb", "b"]);
}

#[test]
fn smaller_items_fill_the_room_that_larger_ones_leave() {
    let sizes = [("a", 60), ("b", 60), ("c", 30), ("d", 20), ("e", 10)];
    let size_of = |item: &Item| sizes.iter().find(|(id, _)| item.entry.id == *id).unwrap().1;
    let mut queue = Queue::new(Config::default());
    for (id, _) in sizes {
        push(&mut queue, at(0), id, By::Us, written(1));
    }
    let mut taken = Vec::new();
    let count = queue.fill(at(0), 100, size_of, |item| {
        taken.push(item.entry.id.clone());
        true
    });
    assert_eq!((count, &taken[..]), (3, &["a", "c", "e"].map(SmolStr::new)[..]));

    // What is refused is not counted, and nothing as large is offered after it.
    let mut offered = Vec::new();
    let count = queue.fill(at(0), 100, size_of, |item| {
        offered.push(item.entry.id.clone());
        item.entry.id != "b"
    });
    assert_eq!((count, &offered[..]), (3, &["b", "d", "c", "e"].map(SmolStr::new)[..]));
    assert_eq!(queue.get(KEY, &EntryId::new("b", 0)).unwrap().sent, 0);
    assert_eq!(queue.stats().sent, 6);
}

#[test]
fn a_long_line_of_what_does_not_fit_is_not_walked() {
    let mut queue = Queue::new(Config::default());
    for number in 0..1_000 {
        push(&mut queue, at(0), &format!("{number:04}"), By::Us, written(1));
    }
    let looks = Cell::new(0_usize);
    let size_of = |_: &Item| {
        looks.set(looks.get() + 1);
        101
    };
    assert_eq!(queue.fill(at(0), 100, size_of, |_| true), 0);
    assert_eq!(looks.get(), MAX_MISSES);
    looks.set(0);
    // Each is refused although the next is said to be smaller.
    let shrinking = |_: &Item| {
        looks.set(looks.get() + 1);
        100 - looks.get()
    };
    assert_eq!(queue.fill(at(0), 100, shrinking, |_| false), 0);
    assert_eq!(looks.get(), MAX_MISSES);
    assert_eq!(queue.fill(at(0), 100, |_| 0, |_| true), 100, "nothing is smaller than a byte");
    assert_eq!(queue.fill(at(0), 0, |_| 0, |_| true), 0);
}

#[test]
fn news_is_due_soon_and_heartbeats_wait_for_the_tick() {
    let mut queue = Queue::new(Config::default());
    push(&mut queue, at(0), "hb", By::UsBeating, written(1));
    assert_eq!(queue.next_deadline(), None);
    push(&mut queue, at(3), "a", By::Others, written(1));
    // Neither other news nor newer news puts the round off.
    push(&mut queue, at(5), "b", By::Us, written(1));
    push(&mut queue, at(6), "a", By::Others, written(2));
    assert_eq!(queue.next_deadline(), Some(Duration::from_millis(13)));
    assert!(!queue.eager(at(12)) && !queue.take_eager(at(12)));
    assert!(queue.eager(at(13)) && queue.take_eager(at(13)));
    assert!(!queue.eager(at(13)) && !queue.take_eager(at(14)));
    // Three peers are told, and no more than that.
    for _ in 0..3 {
        assert_eq!(told_eagerly(&mut queue, at(13), 3, 100), ["b", "a"]);
    }
    assert!(told_eagerly(&mut queue, at(13), 3, 100).is_empty());
    assert_eq!(queue.next_deadline(), None);
    assert_eq!(told(&mut queue, 100), ["b", "hb", "a"]);
}

#[test]
fn news_that_went_out_otherwise_needs_no_round() {
    let mut queue = Queue::new(Config::default());
    push(&mut queue, at(0), "a", By::Us, written(1));
    told(&mut queue, 1);
    assert_eq!(queue.next_deadline(), None);
    push(&mut queue, at(20), "b", By::Us, written(1));
    assert_eq!(queue.next_deadline(), Some(Duration::from_millis(30)));
    queue.remove(KEY, &EntryId::new("b", 0));
    assert_eq!(queue.next_deadline(), None);
}

#[test]
fn news_that_fits_no_round_has_another_unless_none_would_help() {
    let mut queue = Queue::new(Config::default());
    push(&mut queue, at(0), "a", By::Us, written(1));
    push(&mut queue, at(0), "b", By::Us, written(1));
    assert!(queue.take_eager(at(10)));
    assert_eq!(told_eagerly(&mut queue, at(10), 1, 1), ["a"]);
    assert_eq!(queue.next_deadline(), Some(Duration::from_millis(20)));
    assert!(queue.take_eager(at(20)));
    assert_eq!(queue.fill_eager(at(20), 1, 10, |_| 11, |_| true), 0);
    assert_eq!(queue.next_deadline(), None);
    assert_eq!(told(&mut queue, 1), ["b"]);
}

#[test]
fn no_second_sees_more_than_fifty_rounds() {
    let mut queue = Queue::new(Config::default());
    let mut rounds = Vec::new();
    for ms in 0..10_000 {
        push(&mut queue, at(ms), "a", By::Us, written(ms));
        if queue.take_eager(at(ms)) {
            rounds.push(ms);
        }
    }
    assert!(rounds.windows(51).all(|rounds| rounds[50] - rounds[0] >= 1_000), "{rounds:?}");
    assert!(rounds.len() >= 380, "{}", rounds.len());
    assert!(queue.stats().eager_limited > 0);
    // What was limited is still told.
    assert_eq!(told(&mut queue, 1), ["a"]);
}

#[test]
fn without_eager_rounds_all_waits_for_the_tick() {
    let mut queue = Queue::new(Config { eager_rounds_per_second: 0, ..Config::default() });
    push(&mut queue, at(0), "a", By::Us, written(1));
    assert_eq!(queue.next_deadline(), None);
    assert!(!queue.take_eager(at(1_000)));
}

#[test]
fn when_full_others_heartbeats_go_first_then_their_news_and_ours_never() {
    let each = OVERHEAD_BYTES + KEY.len() + "a1".len() + "body".len();
    let mut queue = Queue::new(Config { max_bytes: 5 * each, ..Config::default() });
    for id in ["h1", "h2", "h3"] {
        assert_eq!(push(&mut queue, at(0), id, By::OthersBeating, written(1)), Pushed::Added);
    }
    for id in ["f1", "f2", "f3"] {
        assert_eq!(push(&mut queue, at(0), id, By::Others, written(1)), Pushed::Added);
    }
    assert_eq!(queue.bytes(), 5 * each);
    assert_eq!(push(&mut queue, at(0), "h4", By::OthersBeating, written(1)), Pushed::Dropped);
    for id in ["o1", "o2", "o3"] {
        assert_eq!(push(&mut queue, at(0), id, By::Us, written(1)), Pushed::Added);
    }
    assert_eq!((queue.stats().dropped_heartbeats, queue.stats().dropped), (4, 1));
    for id in ["o4", "o5"] {
        push(&mut queue, at(0), id, By::UsBeating, written(1));
    }
    assert_eq!((queue.len(), queue.stats().dropped), (5, 3));
    push(&mut queue, at(0), "o6", By::Us, written(1));
    assert_eq!(queue.bytes(), 6 * each, "what is ours is kept beyond the bound");
    assert_eq!(push(&mut queue, at(0), "f4", By::Others, written(1)), Pushed::Dropped);
    assert_eq!(told(&mut queue, 100), ["o1", "o2", "o3", "o6", "o4", "o5"]);
}

#[test]
fn own_news_is_pending_until_its_last_transmission() {
    let mut queue = Queue::new(Config::default());
    push(&mut queue, at(0), "hb", By::UsBeating, written(1));
    push(&mut queue, at(0), "f", By::Others, written(1));
    assert!(!queue.has_own_news());
    push(&mut queue, at(0), "o", By::Us, written(1));
    for _ in 0..4 {
        assert!(queue.has_own_news());
        told(&mut queue, 1);
    }
    assert!(!queue.has_own_news());
}

#[test]
fn the_time_before_the_first_transmission_is_measured() {
    let mut queue = Queue::new(Config::default());
    push(&mut queue, at(100), "a", By::Us, written(1));
    push(&mut queue, at(130), "a", By::Us, written(2));
    for ms in [150, 400] {
        queue.fill(at(ms), 10, |_| 1, |_| true);
    }
    let stats = queue.stats();
    assert_eq!((stats.first_sent, stats.sent, stats.waited), (1, 2, Duration::from_millis(50)));
}

#[test]
fn a_heartbeat_is_told_by_its_facet_unless_it_was_removed() {
    let config = Config::default();
    assert!(config.is_heartbeat(&EntryId::new("a", 2), &written(1)));
    assert!(!config.is_heartbeat(&EntryId::new("a", 1), &written(1)));
    assert!(!config.is_heartbeat(&EntryId::new("a", 2), &removed(1)));
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Push { place: u64, hlc: u64, own: bool, heartbeat: bool },
    Fill(usize),
    FillEagerly(usize),
    Members(usize),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let push = (0u64..8, 0u64..12, any::<bool>(), any::<bool>())
        .prop_map(|(place, hlc, own, heartbeat)| Step::Push { place, hlc, own, heartbeat });
    let step = prop_oneof![
        4 => push,
        3 => (0usize..6).prop_map(Step::Fill),
        1 => (0usize..6).prop_map(Step::FillEagerly),
        1 => (0usize..200).prop_map(Step::Members),
    ];
    proptest::collection::vec(step, 1..150)
}

#[derive(Clone, Debug)]
struct Plain {
    place: u64,
    hlc: u64,
    own: bool,
    heartbeat: bool,
    sent: usize,
    turn: usize,
}

/// The same queue, without any order kept: it sorts whenever it is asked.
struct Model {
    items: Vec<Plain>,
    turns: usize,
    budget: usize,
}

impl Model {
    fn push(&mut self, place: u64, hlc: u64, own: bool, heartbeat: bool) -> Pushed {
        self.turns += 1;
        let mut item = Plain { place, hlc, own, heartbeat, sent: 0, turn: self.turns };
        let Some(known) = self.items.iter_mut().find(|known| known.place == place) else {
            self.items.push(item);
            return Pushed::Added;
        };
        if hlc <= known.hlc {
            return Pushed::Stale;
        }
        if known.sent == 0 {
            item.turn = known.turn;
        }
        *known = item;
        Pushed::Replaced
    }

    fn fill(&mut self, room: usize, eligible: impl Fn(&Plain) -> bool) -> Vec<(u64, u64)> {
        self.items.sort_by_key(|item| (!item.own, item.heartbeat, item.sent, item.turn));
        let mut taken = Vec::new();
        for item in self.items.iter_mut().filter(|item| eligible(item)).take(room) {
            item.sent += 1;
            taken.push((item.place, item.hlc));
        }
        self.forget_spent();
        taken
    }

    fn set_members(&mut self, members: usize) {
        let digits = (members as f64 + 1.0).log10().ceil() as usize;
        self.budget = 4 * digits.max(1);
        self.forget_spent();
    }

    fn forget_spent(&mut self) {
        let budget = self.budget;
        self.items.retain(|item| item.sent < if item.heartbeat { 5 } else { budget });
    }
}

fn id_of(place: u64) -> EntryId {
    EntryId::new(place.to_string(), 0)
}

fn seen(item: &Item) -> (u64, u64) {
    (item.entry.id.parse().unwrap(), item.register.version.hlc.0)
}

proptest! {
    #[test]
    fn it_does_what_a_sorted_list_would(steps in steps()) {
        let mut queue = Queue::new(Config::default());
        let mut model = Model { items: Vec::new(), turns: 0, budget: 4 };
        for (number, step) in steps.into_iter().enumerate() {
            let now = at(number as u64);
            let mut taken = Vec::new();
            let take = |item: &Item| {
                taken.push(seen(item));
                true
            };
            match step {
                Step::Push { place, hlc, own, heartbeat } => {
                    let pushed =
                        queue.push(now, SmolStr::new(KEY), id_of(place), written(hlc), own, heartbeat);
                    prop_assert_eq!(pushed, model.push(place, hlc, own, heartbeat));
                }
                Step::Fill(room) => {
                    queue.fill(now, room, |_| 1, take);
                    prop_assert_eq!(taken, model.fill(room, |_| true));
                }
                Step::FillEagerly(room) => {
                    queue.fill_eager(now, 2, room, |_| 1, take);
                    prop_assert_eq!(taken, model.fill(room, |item| !item.heartbeat && item.sent < 2));
                }
                Step::Members(members) => {
                    queue.set_members(members);
                    model.set_members(members);
                }
            }
            prop_assert_eq!(queue.len(), model.items.len());
            for plain in &model.items {
                let item = queue.get(KEY, &id_of(plain.place)).unwrap();
                prop_assert_eq!(seen(item), (plain.place, plain.hlc));
                prop_assert_eq!((item.sent as usize, item.own), (plain.sent, plain.own));
            }
            let has_news = model.items.iter().any(|item| !item.heartbeat && item.sent == 0);
            prop_assert!(has_news || queue.next_deadline().is_none());
            prop_assert_eq!(queue.is_empty(), queue.bytes() == 0);
        }
    }

    #[test]
    fn each_is_offered_as_often_as_its_budget_says(
        places in proptest::collection::vec((any::<bool>(), any::<bool>()), 1..30),
        members in 1usize..2_000,
        room in 1usize..8,
    ) {
        let mut queue = Queue::new(Config::default());
        queue.set_members(members);
        for (place, (own, heartbeat)) in places.iter().enumerate() {
            queue.push(at(0), SmolStr::new(KEY), id_of(place as u64), written(1), *own, *heartbeat);
        }
        let mut offers = vec![0; places.len()];
        while !queue.is_empty() {
            let take = |item: &Item| {
                offers[seen(item).0 as usize] += 1;
                true
            };
            prop_assert!(queue.fill(at(0), room, |_| 1, take) > 0);
        }
        let budget = 4 * members.to_string().len();
        for ((_, heartbeat), offers) in places.iter().zip(offers) {
            prop_assert_eq!(offers, if *heartbeat { 5 } else { budget });
        }
    }

    #[test]
    fn the_bound_holds_for_what_others_wrote_and_never_costs_ours(steps in steps(), most in 0usize..8) {
        let max_bytes = most * (OVERHEAD_BYTES + 6);
        let mut queue = Queue::new(Config { max_bytes, ..Config::default() });
        // Places of ours that were not told yet as often as they should be.
        let mut own = BTreeMap::new();
        for step in steps {
            match step {
                Step::Push { place, hlc, own: by_us, heartbeat } => {
                    let pushed =
                        queue.push(at(0), SmolStr::new(KEY), id_of(place), written(hlc), by_us, heartbeat);
                    match (pushed, by_us) {
                        (Pushed::Stale, _) => (),
                        (Pushed::Dropped, by_us) => {
                            prop_assert!(!by_us);
                            own.remove(&place);
                        }
                        (_, true) => {
                            own.insert(place, hlc);
                        }
                        (_, false) => {
                            own.remove(&place);
                        }
                    }
                }
                Step::Fill(room) | Step::FillEagerly(room) => {
                    queue.fill(at(0), room, |_| 1, |item| {
                        let last = if item.heartbeat { 4 } else { 3 };
                        if item.own && item.sent == last {
                            own.remove(&seen(item).0);
                        }
                        true
                    });
                }
                Step::Members(_) => (),
            }
            let kept = own.iter().all(|(place, hlc)| {
                queue.get(KEY, &id_of(*place)).is_some_and(|item| item.own && seen(item).1 == *hlc)
            });
            prop_assert!(kept, "{own:?}");
            prop_assert!(queue.bytes() <= max_bytes || queue.len() == own.len());
        }
    }
}
