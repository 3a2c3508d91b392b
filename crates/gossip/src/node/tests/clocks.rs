//! Members whose clocks are wrong, or were.

use super::*;

const DAY_MS: i64 = 24 * 60 * 60 * 1_000;

#[test]
fn a_clock_that_was_ahead_for_one_write_harms_that_write_only() {
    let mut net = Net::cluster(2);
    net.ahead.insert(addr(1), 2 * DAY_MS);
    net.upsert(1, vec![(place(0), value("from the future"))]);
    net.run(Duration::from_millis(20));
    assert!(net.refused(2, "clock_ahead"));
    net.ahead.clear();
    net.upsert(1, vec![(place(1), value("a"))]);
    net.run(Duration::from_millis(20));
    assert_eq!([0, 1].map(|number| net.body(2, &place(number))), [None, live("a")]);
    // What was written then is written anew, without anybody's help.
    net.run(secs(70));
    assert_eq!(net.body(2, &place(0)), live("from the future"));
}

#[test]
fn a_write_of_this_life_counts_over_those_of_a_former_one() {
    // Its clock was ahead, or it had overruled somebody.
    for overrules in [false, true] {
        let mut net = Net::cluster(3);
        net.ahead.insert(addr(if overrules { 3 } else { 1 }), 50_000);
        if overrules {
            net.upsert(3, vec![(place(0), value("of another"))]);
            net.run(secs(1));
        }
        net.upsert(1, vec![(place(0), value("former"))]);
        net.run(secs(1));
        let stored = net.node(2).store().get("ring", &place(0)).unwrap().register().clone();
        assert_eq!((stored.version.epoch, stored.author), (u32::from(overrules), name_hash("m1")));
        net.ahead.clear();

        net.start(Config { generation: START_MS + 100_000, ..config(1) });
        net.upsert(1, vec![(place(0), value("now"))]);
        net.events.clear();
        net.give(1, Given::Seeds(vec![addr(2)]));
        net.run(secs(10));
        for number in 1..=3 {
            assert_eq!(net.body(number, &place(0)), live("now"), "at {number}");
        }
        assert_eq!(net.node(1).status().phase, Phase::Active);
    }
}

#[test]
fn two_that_write_under_one_name_do_not_do_so_at_full_speed() {
    let mut net = Net::cluster(2);
    net.upsert(1, vec![(place(0), value("ours"))]);
    let mut times = 0;
    let mut epoch = 0;
    for _ in 0..100 {
        let held = net.node(1).store().get("ring", &place(0)).unwrap().register().clone();
        if held.body == Body::Live(Bytes::from_static(b"ours")) {
            times += 1;
            epoch = held.version.epoch + 1;
        }
        let rival = Register {
            version: crate::register::Version { epoch, hlc: held.version.hlc },
            author: net.node(1).id().name,
            body: Body::Live(Bytes::from_static(b"theirs")),
        };
        let mut writer = DatagramWriter::new(1400, Header::new(label_hash(""), 77));
        assert!(writer.try_push_record(&crate::wire::Record::new("ring", &place(0), &rival, None)));
        net.give(1, Given::Datagram(addr(2), writer.finish()));
        net.run(Duration::from_millis(50));
    }
    // In five seconds.
    assert!((4..=7).contains(&times), "{times}");
    net.run(secs(2));
    assert_eq!([1, 2].map(|number| net.body(number, &place(0))), [live("ours"), live("ours")]);
}

#[test]
fn who_is_so_far_behind_that_it_refuses_everything_does_not_join() {
    let mut net = Net::cluster(3);
    for number in 1..=3 {
        net.upsert(number, vec![(place(usize::from(number)), value("a"))]);
    }
    net.run(secs(2));
    net.ahead.insert(addr(4), -2 * 60 * 60 * 1_000);
    net.start(config(4));
    net.join(4);
    net.run(secs(30));
    let status = net.node(4).status();
    assert_eq!(
        (status.phase, status.settled, status.join_trouble),
        (Phase::Joining, false, Some("clock_behind"))
    );
    assert!(!net.has(4, &Event::Synced) && net.refused(4, "clock_behind") && status.join_attempts > 1);

    net.ahead.clear();
    net.run(secs(90));
    let status = net.node(4).status();
    assert_eq!((status.phase, status.settled, status.join_trouble), (Phase::Active, true, None));
    assert_eq!(net.body(4, &place(1)), live("a"));
}

#[test]
fn one_clock_that_is_ahead_keeps_nobody_from_joining() {
    let mut net = Net::cluster(3);
    net.ahead.insert(addr(3), 120_000);
    net.upsert(3, vec![(place(0), value("from the future"))]);
    net.upsert(2, vec![(place(1), value("a"))]);
    net.run(secs(2));
    for seed in [1, 3] {
        let number = 10 + seed;
        net.start(config(number));
        net.give(number, Given::Seeds(vec![addr(seed)]));
        net.run(secs(2));
        assert!(net.node(number).is_settled(), "by {seed}");
        assert_eq!(net.body(number, &place(1)), live("a"));
    }
}

#[test]
fn who_has_no_room_for_what_the_others_have_does_not_join() {
    let mut net = Net::cluster(2);
    net.upsert(1, (0..50).map(|number| (place(number), value("a"))).collect());
    net.run(secs(2));
    let small = |config: Config| {
        let limits = crate::store::Limits { max_entries_per_key: 20, ..config.limits };
        Config { limits, ..config }
    };
    net.start(small(config(3)));
    net.join(3);
    net.run(secs(10));
    let status = net.node(3).status();
    assert_eq!((status.settled, status.join_trouble), (false, Some("store_full")));
    // Once there is.
    net.upsert(1, (0..40).map(|number| (place(number), None)).collect());
    net.run(secs(60));
    let status = net.node(3).status();
    assert_eq!((status.settled, status.join_trouble), (true, None));
}
