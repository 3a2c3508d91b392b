mod laws;

use std::cell::Cell;

use bytes::Bytes;

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

/// The entries of a datagram to other zones with room for so many.
fn told_far(queue: &mut Queue, now: Now, room: usize) -> Vec<SmolStr> {
    let mut ids = Vec::new();
    queue.fill_far(
        now,
        room,
        |_| 1,
        |item| {
            ids.push(item.entry.id.clone());
            true
        },
    );
    ids
}

/// How often the item of this entry was sent, if it is there.
fn sent(queue: &Queue, id: &str) -> Option<u32> {
    queue.get(KEY, &EntryId::new(id, 0)).map(|item| item.sent)
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
fn what_was_never_told_goes_before_what_was() {
    let mut queue = Queue::new(Config::default());
    push(&mut queue, at(0), "own", By::Us, written(1));
    push(&mut queue, at(0), "own-hb", By::UsBeating, written(1));
    assert_eq!(told(&mut queue, 2), ["own", "own-hb"]);
    push(&mut queue, at(0), "foreign-hb", By::OthersBeating, written(1));
    push(&mut queue, at(0), "foreign", By::Others, written(1));
    // The fourth that is sent is a repeat in any case.
    assert_eq!(told(&mut queue, 100), ["foreign", "own", "foreign-hb", "own-hb"]);
}

#[test]
fn who_writes_much_still_tells_that_it_lives_and_what_others_wrote() {
    let mut queue = Queue::new(Config::default());
    queue.set_members(100);
    let mut waited = Vec::new();
    for tick in 0..100_u64 {
        // Each is to be told twelve times, and there is room for three or four.
        for number in 0..7 {
            push(&mut queue, at(0), &format!("own-{tick}-{number}"), By::Us, written(1));
        }
        if tick % 10 == 0 {
            push(&mut queue, at(0), "own-hb", By::UsBeating, written(tick));
            push(&mut queue, at(0), "foreign", By::Others, written(tick));
            push(&mut queue, at(0), "foreign-hb", By::OthersBeating, written(tick));
        }
        for _ in 0..3 {
            told(&mut queue, 8);
        }
        let all_sent =
            ["own-hb", "foreign", "foreign-hb"].iter().all(|id| sent(&queue, id).is_none_or(|sent| sent > 0));
        waited.push(!all_sent);
    }
    assert!(queue.has_own_news(), "there is no room for all");
    assert_eq!(waited, [false; 100]);
}

#[test]
fn what_is_ours_gets_told_often_enough_however_much_others_write() {
    for by in [By::UsBeating, By::Others, By::OthersBeating] {
        let mut queue = Queue::new(Config::default());
        push(&mut queue, at(0), "own", By::Us, written(1));
        let mut messages = 0;
        while queue.has_own_news() {
            for number in 0..5 {
                push(&mut queue, at(0), &format!("new-{number}"), by, written(2 + messages));
            }
            told(&mut queue, 2);
            messages += 1;
            assert!(messages < 20, "it goes out in some of the messages");
        }
        assert!(sent(&queue, "own").is_none() && !queue.is_empty());
    }
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
    // News of others that was not told yet goes before a heartbeat that was.
    assert_eq!(told(&mut queue, 100), ["b", "hb"]);
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

    // Three were sent, so that now it is the turn of a repeat.
    assert_eq!(told(&mut queue, 1), ["a"]);

    // What is refused is not counted, and nothing as large is offered after it.
    let mut offered = Vec::new();
    let count = queue.fill(at(0), 100, size_of, |item| {
        offered.push(item.entry.id.clone());
        item.entry.id != "b"
    });
    assert_eq!((count, &offered[..]), (3, &["b", "d", "c", "e"].map(SmolStr::new)[..]));
    assert_eq!(sent(&queue, "b"), Some(0));
    assert_eq!(queue.stats().sent, 7);
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
    // The heartbeat was not told yet.
    assert_eq!(told(&mut queue, 100), ["hb", "b", "a"]);
}

#[test]
fn a_heartbeat_goes_along_with_news_of_its_entry_that_nobody_was_told_yet() {
    let put = |queue: &mut Queue, ms, id, facet, heartbeat| {
        queue.push(at(ms), SmolStr::new(KEY), EntryId::new(id, facet), written(ms), true, heartbeat);
    };
    let mut queue = Queue::new(Config::default());
    put(&mut queue, 1, "a", 0, false);
    put(&mut queue, 1, "a", 2, true);
    // There is no news of this one.
    put(&mut queue, 1, "b", 2, true);
    assert!(queue.take_eager(at(11)));
    assert_eq!(told_eagerly(&mut queue, at(11), 1, 100), ["a", "a"]);

    // What was told already does not call for another round.
    put(&mut queue, 20, "a", 2, true);
    assert_eq!(queue.next_deadline(), None);
    // Nor do heartbeats do so for each other.
    put(&mut queue, 20, "b", 1, true);
    put(&mut queue, 20, "b", 2, true);
    assert_eq!(queue.next_deadline(), None);
    assert!(told_eagerly(&mut queue, at(30), 1, 100).is_empty());
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
fn other_zones_are_told_once_however_often_it_was_told_near() {
    let mut queue = Queue::new(Config::default());
    queue.set_zone_aware(true);
    push(&mut queue, at(0), "hb", By::UsBeating, written(1));
    push(&mut queue, at(0), "foreign", By::Others, written(1));
    push(&mut queue, at(0), "a", By::Us, written(1));
    // Even if it leaves the line before the round.
    assert_eq!(messages_until_empty(&mut queue), 5);
    assert_eq!((queue.len(), queue.bytes(), queue.is_empty()), (0, 0, false));
    assert!(queue.has_own_news() && queue.has_far_news());
    assert_eq!(queue.next_deadline(), Some(Duration::from_millis(10)));
    assert!(queue.take_eager(at(10)));
    assert_eq!(told_far(&mut queue, at(10), 100), ["hb", "a"]);
    assert!(told_far(&mut queue, at(10), 100).is_empty());
    assert!(queue.is_empty() && !queue.has_own_news() && queue.next_deadline().is_none());

    // And those near are told as often when it went far before.
    push(&mut queue, at(20), "b", By::Us, written(1));
    assert_eq!(told_far(&mut queue, at(20), 100), ["b"]);
    assert_eq!((sent(&queue, "b"), queue.next_deadline()), (Some(0), Some(Duration::from_millis(30))));
    assert_eq!(messages_until_empty(&mut queue), 4);
    assert_eq!(queue.next_deadline(), None);
}

#[test]
fn heartbeats_for_other_zones_keep_no_round_and_nobody_waiting() {
    let mut queue = Queue::new(Config::default());
    queue.set_zone_aware(true);
    for id in ["hb-1", "hb-2"] {
        push(&mut queue, at(0), id, By::UsBeating, written(1));
    }
    push(&mut queue, at(0), "foreign", By::Others, written(1));
    told(&mut queue, 100);
    assert_eq!((queue.next_deadline(), queue.has_own_news()), (None, false));
    assert_eq!(told_far(&mut queue, at(10), 1), ["hb-1"]);
    assert_eq!((queue.next_deadline(), queue.has_far_news()), (None, true));
}

#[test]
fn other_zones_are_told_all_of_what_fits_no_datagram() {
    let mut queue = Queue::new(Config::default());
    queue.set_zone_aware(true);
    for id in ["a", "b", "c", "d", "e"] {
        push(&mut queue, at(0), id, By::Us, written(1));
    }
    let mut far = Vec::new();
    for ms in [10, 20, 30] {
        assert!(queue.take_eager(at(ms)));
        far.push(told_far(&mut queue, at(ms), 2).join(" "));
        for _ in 0..3 {
            told_eagerly(&mut queue, at(ms), 3, 100);
        }
    }
    assert_eq!(far, ["a b", "c d", "e"]);
    assert_eq!((queue.next_deadline(), queue.has_far_news()), (None, false));

    // What does not fit at all needs no further round.
    push(&mut queue, at(40), "a", By::Us, written(2));
    assert!(queue.take_eager(at(50)));
    assert_eq!(queue.fill_far(at(50), 10, |_| 11, |_| true), 0);
    assert_eq!(queue.next_deadline(), None);
    assert!(queue.has_far_news(), "it is left to the tick");
}

#[test]
fn what_rounds_were_too_many_for_still_waits_for_other_zones() {
    let mut queue = Queue::new(Config { eager_rounds_per_second: 1, ..Config::default() });
    queue.set_zone_aware(true);
    push(&mut queue, at(0), "a", By::Us, written(1));
    assert!(queue.take_eager(at(10)));
    assert_eq!(told_far(&mut queue, at(10), 100), ["a"]);
    push(&mut queue, at(20), "b", By::Us, written(1));
    assert!(!queue.take_eager(at(30)));
    assert_eq!(messages_until_empty(&mut queue), 4);
    assert!(queue.has_far_news() && !queue.is_empty());
    assert_eq!(told_far(&mut queue, at(200), 100), ["b"]);
}

#[test]
fn other_zones_are_told_the_newest_that_is_ours() {
    let mut queue = Queue::new(Config::default());
    // What nobody was told yet when zones appear counts.
    push(&mut queue, at(0), "told", By::Us, written(1));
    told(&mut queue, 1);
    for (id, by) in [("hb", By::UsBeating), ("foreign", By::Others), ("a", By::Us), ("b", By::Us)] {
        push(&mut queue, at(0), id, by, written(1));
    }
    queue.set_zone_aware(true);
    for (id, by) in [("c", By::Us), ("d", By::Us), ("e", By::Us)] {
        push(&mut queue, at(0), id, by, written(1));
    }
    // A newer one has the turn of the one before, told near or not; what is not ours any more is told by others.
    assert_eq!(told(&mut queue, 3), ["a", "b", "told"]);
    push(&mut queue, at(0), "a", By::Us, removed(2));
    push(&mut queue, at(0), "c", By::Others, written(2));
    push(&mut queue, at(0), "d", By::UsBeating, written(2));
    assert_eq!(queue.remove(KEY, &EntryId::new("e", 0)).map(|item| item.sent), Some(0));
    let mut registers = Vec::new();
    queue.fill_far(
        at(0),
        100,
        |_| 1,
        |item| {
            registers.push((item.entry.id.clone(), item.register.clone()));
            true
        },
    );
    let expected = [("hb", written(1)), ("a", removed(2)), ("b", written(1)), ("d", written(2))];
    assert_eq!(registers, expected.map(|(id, register)| (SmolStr::new(id), register)));

    // When the zones are gone, there is nobody else to tell.
    push(&mut queue, at(0), "f", By::Us, written(1));
    queue.set_zone_aware(false);
    assert!(!queue.has_far_news() && told_far(&mut queue, at(0), 100).is_empty());
    push(&mut queue, at(0), "g", By::Us, written(1));
    assert!(!queue.has_far_news());
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
fn heartbeats_wait_while_only_news_is_asked_for() {
    let mut queue = Queue::new(Config::default());
    for (id, by) in
        [("hb", By::UsBeating), ("a", By::Us), ("foreign-hb", By::OthersBeating), ("b", By::Others)]
    {
        push(&mut queue, at(0), id, by, written(1));
    }
    let mut ids = Vec::new();
    let taken = queue.fill_news(
        at(0),
        100,
        |_| 1,
        |item| {
            ids.push(item.entry.id.clone());
            true
        },
    );
    assert_eq!((taken, &ids[..]), (2, &["a", "b"].map(SmolStr::new)[..]));
    assert_eq!((sent(&queue, "hb"), sent(&queue, "a"), queue.next_deadline()), (Some(0), Some(1), None));
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
    // What was never told goes before its repeats, of which the first is the fourth message.
    for id in ["o", "hb", "f", "o", "o", "o"] {
        assert!(queue.has_own_news());
        assert_eq!(told(&mut queue, 1), [id]);
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
