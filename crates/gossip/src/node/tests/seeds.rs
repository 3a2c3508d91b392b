//! Seeds that are not where the members behind them say to be.

use super::*;

/// The name of a service, say.
fn alias() -> SocketAddr {
    SocketAddr::from(([10, 1, 0, 1], 7946))
}

#[test]
fn a_seed_by_which_a_member_answered_is_found_while_that_one_lives() {
    let mut net = Net::cluster(2);
    net.aliases.insert(alias(), addr(1));
    net.start(config(3));
    net.give(3, Given::Seeds(vec![alias()]));
    net.run(secs(100));
    let status = net.node(3).status();
    assert_eq!((status.phase, status.lost_seeds, status.members), (Phase::Active, 0, 3));
    assert!(!net.has(3, &Event::Phase(Phase::Lonely)));

    // Nobody is there any more,
    net.nodes.remove(&addr(1));
    net.run(secs(120));
    let status = net.node(3).status();
    assert_eq!((status.phase, status.lost_seeds, status.members), (Phase::Lonely, 1, 2));
    // until somebody else is.
    net.aliases.insert(alias(), addr(2));
    net.run(secs(90));
    let status = net.node(3).status();
    assert_eq!((status.phase, status.lost_seeds), (Phase::Active, 0));
}

#[test]
fn a_seed_that_leads_to_the_member_itself_is_never_lost() {
    let mut net = Net::cluster(2);
    net.aliases.insert(alias(), addr(3));
    net.start(config(3));
    net.give(3, Given::Seeds(vec![addr(1), alias()]));
    net.run(secs(5));
    for _ in 0..4 {
        // Names are looked up again and again.
        net.give(3, Given::Seeds(vec![addr(1), alias()]));
        net.run(secs(30));
    }
    let status = net.node(3).status();
    assert_eq!((status.phase, status.lost_seeds, status.members), (Phase::Active, 0, 3));
    assert_eq!(net.node(3).seeds(), [(addr(1), None)]);
}
