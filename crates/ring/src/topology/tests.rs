use proptest::prelude::*;

use crate::desc::{Desc, InstanceDesc};
use crate::operation::Operation;
use crate::options::{Dialect, RingOptions};
use crate::rows::Rows;
use crate::snapshot::Snapshot;
use crate::token::search_token;

proptest! {
    #[test]
    fn the_indexed_search_finds_what_the_plain_one_finds(
        spread in prop::collection::vec(any::<u32>(), 0..500),
        crowd in prop::collection::vec(any::<u8>(), 0..300),
        at: u32, keys in prop::collection::vec(any::<u32>(), 20),
    ) {
        let crowd = crowd.into_iter().map(|token| at.wrapping_add(token.into()));
        let tokens = spread.iter().copied().chain(crowd).collect();
        let desc: Desc = [("a", InstanceDesc { tokens, ..InstanceDesc::default() })].into_iter().collect();
        let snapshot = Snapshot::first_sight(&desc, 0, &RingOptions::default());
        let near = snapshot.tokens().iter().flat_map(|&token| [token.wrapping_sub(1), token, token.wrapping_add(1)]);
        for key in near.chain(keys).chain([0, u32::MAX]) {
            prop_assert_eq!(snapshot.topology.search(key), search_token(snapshot.tokens(), key));
        }
    }
}

const NOW: i64 = 1_000;

#[derive(Clone, Debug)]
enum Step {
    Set(u8, u8, Vec<u32>),
    Remove(u8),
}

fn tokens(most: usize) -> impl Strategy<Value = Vec<u32>> {
    // Few positions now and then, so that tokens meet, and both ends of the circle.
    let token = prop_oneof![2_000 => any::<u32>(), 1 => 0..40u32, 1 => Just(u32::MAX)];
    prop::collection::vec(token, 0..most)
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        5 => (0..40u8, 0..4u8, tokens(6)).prop_map(|(id, zone, tokens)| Step::Set(id, zone, tokens)),
        2 => (0..40u8).prop_map(Step::Remove),
    ]
}

/// Everything that lookups read.
fn contents(snapshot: &Snapshot) -> String {
    let topology = &*snapshot.topology;
    let rows = (0..topology.tokens.len()).map(|position| {
        let mut row = Vec::new();
        topology.rows.all(position, |place| {
            row.push(place);
            true
        });
        row
    });
    let (tokens, zones, zone_of) = (&topology.tokens, &topology.zones, &topology.zone_of);
    let rows: Vec<_> = rows.collect();
    let complete = topology.rows.is_complete();
    let rest =
        (&topology.walkable, topology.sharing, topology.duplicates, &snapshot.walkable, &snapshot.states);
    format!("{tokens:?} {zones:?} {zone_of:?} {rows:?} {complete} {rest:?}")
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn tables_after_changes_equal_tables_made_anew(
        start in prop::collection::vec(tokens(40), 0..40), steps in prop::collection::vec(step(), 1..8),
        factor in 1..11usize, zone_awareness_enabled: bool, zones in 1..5u8, fixes: (bool, bool), dskit: bool,
    ) {
        let options = RingOptions {
            replication_factor: factor,
            zone_awareness_enabled,
            zones_with_tokens_only: fixes.0,
            merge_winner_owns_duplicates: fixes.1,
            dialect: if dskit { Dialect::Dskit } else { Dialect::Cortex },
            ..RingOptions::default()
        };
        let entry = |zone: u8, tokens: Vec<u32>| {
            let zone = ["a", "b", "", "c"][usize::from(zone % zones)].into();
            InstanceDesc { timestamp: NOW, zone, tokens: tokens.into(), ..InstanceDesc::default() }
        };
        let named = start.into_iter().enumerate().map(|(id, tokens)| (format!("i{id:02}"), entry(id as u8, tokens)));
        let mut desc: Desc = named.collect();
        let mut snapshot = Snapshot::first_sight(&desc, NOW, &options);
        for step in steps {
            match step {
                Step::Set(id, zone, tokens) => drop(desc.insert(format!("i{id:02}"), entry(zone, tokens))),
                Step::Remove(id) => drop(desc.remove(&format!("i{id:02}"))),
            }
            snapshot = snapshot.next(&desc, |_, _| NOW);
            prop_assert_eq!(contents(&snapshot), contents(&Snapshot::first_sight(&desc, NOW, &options)));
        }
    }
}

/// At 65,536 members places no longer fit into two bytes.
#[test]
fn tables_widen_and_narrow_with_the_number_of_members() {
    const MOST: u32 = u16::MAX as u32;
    let entry = |place: u32| {
        let token = place.wrapping_mul(2_654_435_761);
        InstanceDesc { timestamp: NOW, tokens: vec![token].into(), ..InstanceDesc::default() }
    };
    let mut desc: Desc = (0..MOST).map(|place| (format!("i{place:05}"), entry(place))).collect();
    let options = RingOptions::default();
    let check = |snapshot: &Snapshot, desc: &Desc, wide: bool| {
        assert_eq!(matches!(snapshot.topology.rows, Rows::Wide(_)), wide);
        let scratch = Snapshot::first_sight(desc, NOW, &options);
        for key in (0..500u32).map(|n| n.wrapping_mul(97_654_321)) {
            let ids = |snapshot: &Snapshot| -> Vec<String> {
                let found = snapshot.get(key, Operation::WRITE, NOW).unwrap();
                found.ids().map(ToString::to_string).collect()
            };
            // The owner of a token is who claims it, and those behind it follow.
            let start = search_token(snapshot.tokens(), key);
            let owners = (0..3).map(|n| snapshot.topology.owner((start + n) % snapshot.tokens().len()));
            let owners: Vec<_> = owners.map(|owner| snapshot.members[owner].id.to_string()).collect();
            assert_eq!(ids(snapshot), owners);
            assert_eq!(ids(snapshot), ids(&scratch));
        }
    };
    let narrow = Snapshot::first_sight(&desc, NOW, &options);
    check(&narrow, &desc, false);
    desc.insert("h", entry(MOST));
    let wide = narrow.next(&desc, |_, _| NOW);
    check(&wide, &desc, true);
    desc.insert("g", entry(MOST + 1));
    let wider = wide.next(&desc, |_, _| NOW);
    check(&wider, &desc, true);
    desc.remove("i00007");
    desc.remove("g");
    check(&wider.next(&desc, |_, _| NOW), &desc, false);
}
