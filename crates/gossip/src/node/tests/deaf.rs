//! Members that no datagram reaches: a network that carries no UDP.

use super::*;
use crate::store::HEARTBEAT_FACET;

/// The instance of a member says so often that it lives, and for so long a time without being heard it counts as dead.
const BEAT: Duration = Duration::from_secs(5);
const DEAD_AFTER: Duration = Duration::from_secs(60);

fn beat(number: u8) -> EntryId {
    EntryId::new(format!("i{number}"), HEARTBEAT_FACET)
}

fn oldest(net: &Net) -> Duration {
    let ages = (1..=3).flat_map(|at| {
        let now = net.now(addr(at));
        (1..=3).map(move |of| net.node(at).store().get("ring", &beat(of)).unwrap().age(now))
    });
    ages.max().unwrap()
}

/// Whether each of them finds that datagrams do not get through.
fn only_streams(net: &Net) -> Vec<bool> {
    (1..=3).map(|at| net.node(at).hears_streams_only(net.now(addr(at)))).collect()
}

#[test]
fn heartbeats_get_through_where_datagrams_do_not() {
    let mut net = Net::cluster(3);
    let go_on = |net: &mut Net, times: u8| {
        let mut worst = Duration::ZERO;
        for count in 0..times {
            for number in 1..=3 {
                net.upsert(number, vec![(beat(number), Some(Bytes::from(vec![count])))]);
            }
            net.run(BEAT);
            worst = worst.max(oldest(net));
        }
        worst
    };
    let worst = go_on(&mut net, 10);
    assert!(worst <= BEAT + secs(1), "{worst:?}");
    assert_eq!(only_streams(&net), [false; 3]);

    let before = [1, 2, 3].map(|at| net.node(at).status().totals);
    net.deaf.extend((1..=3).map(addr));
    let worst = go_on(&mut net, 60);
    assert!(worst < DEAD_AFTER, "{worst:?}");
    assert_eq!(only_streams(&net), [true; 3]);
    for (at, before) in (1..).zip(before) {
        let status = net.node(at).status();
        assert_eq!(status.members, 3, "at {at}");
        // One every ten seconds that each of them began, and about as many that the others did.
        let sessions = status.totals.sessions_done - before.sessions_done;
        assert!((40..=90).contains(&sessions), "{sessions} at {at}");
        assert_eq!(status.totals.roots_equal, before.roots_equal, "nobody was asked");
    }

    net.deaf.clear();
    net.run(secs(10));
    assert_eq!(only_streams(&net), [false; 3]);
}

#[test]
fn what_members_do_is_counted() {
    let mut net = Net::cluster_of(2, |config| Config { beacon_interval: secs(10), ..config });
    let joined = net.node(2).status().totals;
    assert!(joined.sessions_done >= 1 && joined.sessions_failed == 0, "{joined:?}");
    net.run(secs(60));
    let [one, two] = [1, 2].map(|at| net.node(at).status().totals);
    assert!(one.roots_equal > 2 && two.roots_equal > 2, "{one:?} {two:?}");
    assert!(one.beacons + two.beacons >= 4, "{one:?} {two:?}");

    net.upsert(1, vec![(place(0), value("a"))]);
    net.run(secs(1));
    net.give(2, Given::Command(Command::Heal { key: "ring".into(), id: Some("e0".into()) }));
    assert_eq!(net.node(2).status().totals.healed, 1);
    net.give(2, Given::Command(Command::Heal { key: "ring".into(), id: Some("none".into()) }));
    assert_eq!(net.node(2).status().totals.healed, 1);

    net.nodes.remove(&addr(1));
    net.run(secs(60));
    assert!(net.node(2).status().totals.sessions_failed > 0);
}
