//! Keys that end up where they should not.

use ringkit_ring::{Desc, Operation, RingOptions, Snapshot, State, merge};

use crate::answers;
use crate::support::active;

const NOW: i64 = 1000;

fn zone_aware() -> RingOptions {
    RingOptions { zone_awareness_enabled: true, ..RingOptions::default() }
}

fn owner(desc: &Desc, options: &RingOptions, key: u32) -> String {
    let one = RingOptions { replication_factor: 1, ..options.clone() };
    let found = answers::get(&Snapshot::first_sight(desc, NOW, &one), key, Operation::READ, NOW);
    found.unwrap().0.remove(0)
}

/// A token that two claim belongs to the greatest id for Cortex's readers, and to the smallest for its merge. By default
/// that is so here too, since all readers and writers of a ring must agree; and it can be seen.
#[test]
fn h18_a_token_claimed_twice_belongs_to_the_greatest_id_by_default_and_is_counted() {
    let mut desc: Desc = [active("a", "", &[10]), active("b", "", &[10, 20])].into_iter().collect();
    let snapshot = Snapshot::first_sight(&desc, NOW, &RingOptions::default());
    assert_eq!((snapshot.duplicate_tokens(), snapshot.tokens()), (1, &[10, 10, 20][..]));
    assert_eq!(owner(&desc, &RingOptions::default(), 5), "b");
    let rejoins = [(
        "a",
        ringkit_ring::InstanceDesc { timestamp: NOW + 1, state: State::Joining, ..active("a", "", &[10]).1 },
    )];
    merge(&mut desc, &rejoins.into_iter().collect(), false, NOW);
    assert_eq!(owner(&desc, &RingOptions::default(), 5), "a", "the merge leaves it with the smallest");
}

/// In the other dialect the owner of such a token is drawn by lot in every process, and the greatest token of all can be
/// lost when several hold it.
#[test]
fn h18_the_greatest_token_of_the_circle_is_not_lost_when_many_claim_it() {
    let desc: Desc = ["a", "b", "c"].map(|id| active(id, "", &[u32::MAX, 7])).into_iter().collect();
    let snapshot = Snapshot::first_sight(&desc, NOW, &RingOptions::default());
    assert_eq!(snapshot.tokens(), [7, 7, 7, u32::MAX, u32::MAX, u32::MAX]);
    for key in [7, u32::MAX - 1] {
        assert_eq!(owner(&desc, &RingOptions::default(), key), "c");
    }
}

/// One PENDING instance without tokens in a new zone lowers the replicas of every key from three to two in Cortex, whose
/// quota counts that zone. By default that is so here too, since all must agree.
#[test]
fn h19_a_zone_without_tokens_takes_a_share_of_the_quota_by_default() {
    let mut desc: Desc = [
        active("a1", "a", &[10]),
        active("a2", "a", &[20]),
        active("b1", "b", &[30]),
        active("b2", "b", &[40]),
    ]
    .into_iter()
    .collect();
    let replicas = |desc: &Desc, options: &RingOptions| {
        answers::get(&Snapshot::first_sight(desc, NOW, options), 5, Operation::WRITE, NOW).unwrap()
    };
    assert_eq!(replicas(&desc, &zone_aware()).0, ["a1", "a2", "b1"]);
    let mut pending = active("c1", "c", &[]);
    pending.1.state = State::Pending;
    desc.insert(pending.0, pending.1);
    assert_eq!(replicas(&desc, &zone_aware()), (vec!["a1".to_owned(), "b1".to_owned()], 0, 0));
}

/// Where quotas cannot be met Cortex visits all tokens for every key, and dskit stops early; who is found is the same.
#[test]
fn a_quota_that_cannot_be_met_ends_with_those_who_can() {
    // Nine LEAVING in one zone, which extend and never fill it; nobody to replace them.
    let mut desc: Desc = (0..9u32).map(|n| active(&format!("a{n}"), "a", &[n, n + 100, n + 200])).collect();
    for n in 0..9 {
        let mut leaving = (**desc.get(&format!("a{n}")).unwrap()).clone();
        leaving.state = State::Leaving;
        desc.insert(format!("a{n}"), leaving);
    }
    for (id, entry) in [active("b", "b", &[1_000]), active("c", "c", &[2_000])] {
        desc.insert(id, entry);
    }
    let snapshot = Snapshot::first_sight(&desc, NOW, &zone_aware());
    let found = answers::get(&snapshot, 5, Operation::WRITE, NOW).unwrap();
    assert_eq!(found, (vec!["b".to_owned(), "c".to_owned()], 0, 0));
}
