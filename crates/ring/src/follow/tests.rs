use std::time::Duration;

use proptest::collection::{btree_map, vec};
use proptest::prelude::*;

use super::*;
use crate::desc::State;
use crate::options::RingOptions;

const NOW: i64 = 10_000;

fn options() -> RingOptions {
    RingOptions {
        heartbeat_timeout: Duration::from_secs(60),
        zone_awareness_enabled: true,
        excluded_zones: vec!["out".into()],
        ..RingOptions::default()
    }
}

fn entry() -> impl Strategy<Value = InstanceDesc> {
    let state = prop_oneof![4 => Just(State::Active), 2 => prop::sample::select(State::KNOWN.to_vec())];
    let zone = prop::sample::select(vec!["a", "a", "a", "b", "out"]);
    let tokens = prop::sample::select(vec![vec![], vec![1, 5], vec![1, 5], vec![7]]);
    (state, zone, tokens, -70i64..70).prop_map(|(state, zone, tokens, age)| InstanceDesc {
        addr: "a:1".into(),
        state,
        zone: zone.into(),
        tokens: tokens.into(),
        timestamp: NOW - age,
        ..InstanceDesc::default()
    })
}

fn ring() -> impl Strategy<Value = Desc> {
    btree_map(0..200u32, entry(), 0..150)
        .prop_map(|entries| entries.into_iter().map(|(id, entry)| (format!("i{id}"), entry)).collect())
}

/// Everything that lookups read.
fn contents(snapshot: &Snapshot) -> (Vec<(String, InstanceDesc, i64)>, String) {
    let members = snapshot.members.iter().enumerate();
    let members = members.map(|(at, m)| (m.id.to_string(), (*m.desc).clone(), snapshot.seen[at])).collect();
    (members, format!("{:?} {:?} {:?}", snapshot.states, snapshot.walkable, snapshot.topology.tokens))
}

proptest! {
    #[test]
    fn following_changes_leads_where_following_the_whole_leads(
        before in ring(), changes in vec((any::<prop::sample::Index>(), entry()), 0..4), later in 0..120i64,
    ) {
        let known = Snapshot::first_sight(&before, NOW, &options());
        let mut after = before.clone();
        let mut changed = Vec::new();
        for (at, entry) in changes.into_iter().filter(|_| !before.is_empty()) {
            let id = before.iter().nth(at.index(before.len())).unwrap().0.clone();
            after.insert(id.clone(), entry);
            changed.push(id);
        }
        let now = NOW + later;
        let whole = follow(&known, &after, now, |_| None);
        prop_assert_eq!(
            contents(&whole.snapshot).1,
            contents(&Snapshot::first_sight(&after, now, &options())).1,
            "the tables are those of a fresh start"
        );
        if let Some(quick) = follow_changed(&known, &after, &changed, now, |_| None) {
            prop_assert_eq!(contents(&quick.snapshot), contents(&whole.snapshot));
            prop_assert_eq!((quick.comparison, quick.notable), (whole.comparison, whole.notable));
        } else {
            prop_assert_eq!(whole.comparison, Comparison::Different);
        }
    }
}

fn one(timestamp: i64) -> Desc {
    let entry = InstanceDesc { timestamp, tokens: vec![1].into(), ..InstanceDesc::default() };
    [("a", entry)].into_iter().collect()
}

#[test]
fn a_clock_set_back_does_not_keep_the_dead_alive() {
    let known = Snapshot::first_sight(&one(NOW), NOW, &options());
    let back = NOW - 3_600;
    let followed = follow(&known, &one(NOW), back, |_| None);
    assert_eq!(followed.snapshot.seen("a"), Some(back));
    let followed = follow(&known, &one(NOW + 5), back, |_| None);
    assert_eq!(followed.snapshot.seen("a"), Some(back), "neither when it still beats");
}

#[test]
fn what_the_store_heard_counts_more_than_timestamps() {
    let known = Snapshot::first_sight(&one(NOW), NOW, &options());
    let followed = follow(&known, &one(NOW + 5), NOW + 100, |id| (id == "a").then_some(NOW + 30));
    assert_eq!(followed.snapshot.seen("a"), Some(NOW + 30));
}

#[test]
fn a_timestamp_that_falls_back_is_the_one_to_beat_from_then_on() {
    let known = Snapshot::first_sight(&one(NOW + 3_600), NOW, &options());
    let fallen = follow(&known, &one(NOW + 10), NOW + 10, |_| None).snapshot;
    assert_eq!(fallen.seen("a"), Some(NOW), "the owner's clock was set right: no heartbeat by itself");
    let beating = follow(&fallen, &one(NOW + 15), NOW + 15, |_| None).snapshot;
    assert_eq!(beating.seen("a"), Some(NOW + 15), "but the next one counts");
}

#[test]
fn a_member_that_comes_back_is_met_anew() {
    let known = Snapshot::first_sight(&one(NOW), NOW, &options());
    let gone = follow(&known, &Desc::new(), NOW + 10, |_| None).snapshot;
    let back = follow(&gone, &one(NOW), NOW + 100, |_| None).snapshot;
    assert_eq!(back.seen("a"), Some(NOW));
}
