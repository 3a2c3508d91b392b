//! Laws of chosen tokens, of the keys that follow from them, and of what is counted.

use std::collections::BTreeSet;

use proptest::prelude::*;
use ringkit_ring::{
    Count, Desc, Dialect, GenerateError, InstanceDesc, MinimizeSpread, Operation, RingOptions, Share,
    Snapshot, SpreadMinimizing, State, TokenGenerator, TokenRangesError, TokenRequest, TokenStrategy,
    ZonePlacement, search_token,
};

const NOW: i64 = 1_700_000_000;

fn entry(zone: &str, tokens: &[u32]) -> InstanceDesc {
    InstanceDesc { timestamp: NOW, zone: zone.into(), tokens: tokens.into(), ..InstanceDesc::default() }
}

fn minimize_spread(seed: u64) -> TokenStrategy {
    TokenStrategy::MinimizeSpread(MinimizeSpread::new(Some(seed)))
}

/// Tokens as they may be: near each other, at both ends, and anywhere.
fn any_token() -> impl Strategy<Value = u32> {
    prop_oneof![4 => any::<u32>(), 1 => 0..8u32, 1 => u32::MAX - 8..=u32::MAX]
}

prop_compose! {
    /// Any ring, with instances without tokens, tokens that several claim, and tombstones.
    fn any_ring()(members in prop::collection::vec(
        (0..3usize, prop::collection::vec(any_token(), 0..12), 0..4i64, 0..6i32), 0..12,
    )) -> Desc {
        let member = |(place, (zone, tokens, registered_timestamp, state)): (usize, (usize, Vec<u32>, i64, i32))| {
            let state = State::from_i32(state);
            let entry = InstanceDesc { state, registered_timestamp, ..entry(["", "a", "b"][zone], &tokens) };
            (format!("i{place:02}"), entry)
        };
        members.into_iter().enumerate().map(member).collect()
    }
}

fn check_tokens(tokens: &[u32], n: usize, ring: &Desc) -> Result<(), TestCaseError> {
    prop_assert_eq!(tokens.len(), n);
    prop_assert!(tokens.is_sorted_by(|a, b| a < b), "ascending and distinct: {:?}", tokens);
    let taken = ring.all_tokens();
    prop_assert!(tokens.iter().all(|token| taken.binary_search(token).is_err()), "none is taken");
    Ok(())
}

proptest! {
    #[test]
    fn chosen_tokens_are_new_distinct_ascending_and_as_many_as_asked_for(
        ring in any_ring(), n in 0..200usize, seed: u64, place in 0..14usize, zone in 0..3usize, force: bool,
    ) {
        let id = format!("i{place:02}");
        let request = TokenRequest { id: &id, zone: ["", "a", "b"][zone], n, force };
        let random = TokenStrategy::Random(TokenGenerator::random(Some(seed))).generate(&request, &ring).unwrap();
        check_tokens(&random, n, &ring)?;
        match minimize_spread(seed).generate(&request, &ring) {
            Ok(tokens) => check_tokens(&tokens, n, &ring)?,
            Err(GenerateError::Contended { before }) => {
                prop_assert!(!force && n > 0);
                let before = ring.get(&before).unwrap();
                prop_assert!(before.tokens.is_empty() && before.zone == request.zone && before.state != State::Left);
            }
            Err(other) => prop_assert!(false, "{}", other),
        }
    }

    /// Of those that wait in a zone there is always one whose turn it is, so nobody waits for ever.
    #[test]
    fn somebody_is_always_next(ring in any_ring()) {
        let waiting: Vec<_> = ring
            .iter()
            .filter(|(_, entry)| entry.tokens.is_empty() && entry.state != State::Left)
            .collect();
        let zones: BTreeSet<_> = waiting.iter().map(|(_, entry)| entry.zone.clone()).collect();
        for zone in zones {
            let may_choose = waiting.iter().filter(|(id, entry)| {
                let request = TokenRequest { id, zone: &zone, n: 3, force: false };
                entry.zone == zone && minimize_spread(1).generate(&request, &ring).is_ok()
            });
            prop_assert_eq!(may_choose.count(), 1);
        }
    }

    /// With one replica per zone, `token_ranges` says of each key and member what a lookup says.
    #[test]
    fn an_instance_holds_the_keys_that_lookups_find_it_for(
        members in prop::collection::vec((0..3usize, prop::collection::vec(any_token(), 0..8)), 1..12),
        keys in prop::collection::vec(any_token(), 20),
        zones_with_tokens_only: bool, merge_winner_owns_duplicates: bool, dskit: bool,
    ) {
        let ring: Desc = members
            .iter()
            .enumerate()
            .map(|(place, (zone, tokens))| (format!("i{place:02}"), entry(["a", "b", "c"][*zone], tokens)))
            .collect();
        let mut options = RingOptions {
            zone_awareness_enabled: true,
            // One that holds the key is enough: zones may be empty here.
            strategy: ringkit_ring::Strategy::IgnoreUnhealthy,
            dialect: if dskit { Dialect::Dskit } else { Dialect::Cortex },
            zones_with_tokens_only,
            merge_winner_owns_duplicates,
            ..RingOptions::default()
        };
        let sharing: BTreeSet<_> = {
            let snapshot = Snapshot::first_sight(&ring, NOW, &options);
            let shares = snapshot.instances().iter().zip(snapshot.ownership().of_circle());
            let counts = shares.filter(|(_, share)| !zones_with_tokens_only || share.tokens > 0);
            counts.map(|(member, _)| member.zone().clone()).collect()
        };
        if sharing.is_empty() {
            return Ok(()); // Without tokens there is nothing to hold.
        }
        options.replication_factor = sharing.len();
        let snapshot = Snapshot::first_sight(&ring, NOW, &options);
        let near = ring.all_tokens();
        let near = near.iter().flat_map(|token| [token.wrapping_sub(1), *token, token.wrapping_add(1)]);
        for key in near.chain(keys) {
            let set = snapshot.get(key, Operation::WRITE, NOW);
            for id in ring.iter().map(|(id, _)| id) {
                let holds = set.as_ref().is_ok_and(|set| set.contains(id));
                prop_assert_eq!(snapshot.token_ranges(id).unwrap().includes(key), holds, "{} of {}", key, id);
            }
        }
        for zone in snapshot.zones() {
            let members = snapshot.instances().iter().zip(snapshot.ownership().of_zone());
            let of_zone: Vec<_> = members.filter(|(member, _)| member.zone() == zone).collect();
            let owns_any = of_zone.iter().any(|(_, share)| share.tokens > 0);
            let keys: u64 = of_zone.iter().map(|(member, _)| snapshot.token_ranges(&member.id).unwrap().keys()).sum();
            prop_assert_eq!(keys, if owns_any { 1 << 32 } else { 0 }, "every key has one holder in {}", zone);
        }
    }
}

/// A ring of one zone after the given number of instances joined one by one, and how much each owns of the circle.
fn grown(mut strategy: TokenStrategy, instances: usize) -> Vec<f64> {
    let mut ring = Desc::new();
    for place in 0..instances {
        let id = format!("i{place:03}");
        ring.insert(id.as_str(), InstanceDesc { registered_timestamp: NOW, ..entry("a", &[]) });
        let request = TokenRequest { id: &id, zone: "a", n: 64, force: false };
        let tokens = strategy.generate(&request, &ring).unwrap();
        ring.insert(id, entry("a", &tokens));
    }
    let snapshot = Snapshot::first_sight(&ring, NOW, &RingOptions::default());
    snapshot.ownership().of_zone().iter().map(Share::fraction).collect()
}

/// The greatest share over the smallest.
fn spread(shares: &[f64]) -> f64 {
    let (least, most) =
        shares.iter().fold((f64::MAX, 0.0f64), |(a, b), share| (a.min(*share), b.max(*share)));
    most / least
}

#[test]
fn minimizing_spread_keeps_it_below_that_of_random_tokens() {
    for instances in [2, 3, 5, 10, 30] {
        for seed in 0..4 {
            let random = spread(&grown(TokenStrategy::Random(TokenGenerator::random(Some(seed))), instances));
            let shares = grown(minimize_spread(seed), instances);
            let minimized = spread(&shares);
            assert!(minimized < random, "{instances}, seed {seed}: {minimized} and {random}");
            assert!(minimized < 1.02, "{instances}, seed {seed}: {minimized}");
            let newest = shares.last().unwrap() * instances as f64;
            assert!((newest - 1.0).abs() < 1e-6, "{instances}, seed {seed}: {newest} of a fair part");
        }
    }
}

#[test]
fn a_newcomer_that_minimizes_spread_gets_its_fair_part() {
    for (instances, seed) in [(2, 1), (3, 2), (7, 3), (20, 4)] {
        // After others that chose at random there is enough to split.
        let mut random = TokenGenerator::random(Some(seed));
        let mut ring = Desc::new();
        for place in 0..instances - 1 {
            ring.insert(format!("i{place:02}"), entry("a", &random.generate(64, &ring)));
            ring.insert(format!("j{place:02}"), entry("b", &random.generate(64, &ring)));
        }
        let request = TokenRequest { id: "new", zone: "a", n: 64, force: false };
        let tokens = minimize_spread(seed).generate(&request, &ring).unwrap();
        ring.insert("new", entry("a", &tokens));
        let snapshot = Snapshot::first_sight(&ring, NOW, &RingOptions::default());
        let place = snapshot.instances().iter().position(|member| member.id == "new").unwrap();
        let owned = snapshot.ownership().of_zone()[place].fraction() * f64::from(instances);
        assert!((owned - 1.0).abs() < 0.001, "{instances} instances: {owned} of its part");
    }
}

#[test]
fn what_another_zone_does_is_nothing_to_a_zone_that_minimizes_spread() {
    let mut ring: Desc =
        [("a1", entry("a", &[1_000, 2_000_000_000])), ("new", entry("a", &[]))].into_iter().collect();
    let request = TokenRequest { id: "new", zone: "a", n: 4, force: false };
    let alone = minimize_spread(1).generate(&request, &ring).unwrap();
    ring.insert("b1", entry("b", &[5, 500_000, 3_000_000_000]));
    ring.insert("b0", entry("b", &[]));
    assert_eq!(minimize_spread(1).generate(&request, &ring).unwrap(), alone);
}

#[test]
fn who_left_or_is_not_in_the_ring_holds_up_nobody() {
    let waiting = InstanceDesc { registered_timestamp: 1, ..entry("a", &[]) };
    let left = InstanceDesc { state: State::Left, ..waiting.clone() };
    let mut ring: Desc = [("gone", left), ("old", entry("a", &[7]))].into_iter().collect();
    let request = TokenRequest { id: "new", zone: "a", n: 4, force: false };
    assert_eq!(minimize_spread(1).generate(&request, &ring).unwrap().len(), 4);
    // Who waits is before somebody that the ring does not know yet, whatever the ids.
    ring.insert("next", waiting);
    let contended = GenerateError::Contended { before: "next".into() };
    assert_eq!(minimize_spread(1).generate(&request, &ring), Err(contended));
    let forced = TokenRequest { force: true, ..request };
    assert_eq!(minimize_spread(1).generate(&forced, &ring).unwrap().len(), 4);
}

#[test]
fn a_range_that_is_exactly_as_long_as_the_part_asked_for_is_used_up() {
    // The longest range goes around the end of the circle, where Cortex's step lands one above the token that ends it.
    let old = entry("a", &[5, 805_306_373, 1_610_612_741, 2_415_919_109, 3_221_225_478]);
    let ring: Desc = [("old", old), ("new", entry("a", &[]))].into_iter().collect();
    let request = TokenRequest { id: "new", zone: "a", n: 2, force: false };
    assert_eq!(minimize_spread(1).generate(&request, &ring), Ok(vec![6, 3_221_225_477]));
}

proptest! {
    /// Ranges of equal or nearly equal length, where parts and ranges fit each other to the position.
    #[test]
    fn equal_ranges_are_split_without_getting_out_of_count(
        ranges in 1..40u32, offset in any_token(), longer in 0..3u32, n in 1..80usize, sellers in 1..4usize,
    ) {
        let part = u32::MAX / ranges;
        let mut ring: Desc = [("new", entry("a", &[]))].into_iter().collect();
        for seller in 0..sellers {
            let of_seller = (0..ranges).filter(|range| *range as usize % sellers == seller);
            let tokens: Vec<u32> = of_seller
                .map(|range| offset.wrapping_add(range * part).wrapping_add(if range == 0 { longer } else { 0 }))
                .collect();
            ring.insert(format!("s{seller}"), InstanceDesc { tokens: tokens.into(), ..entry("a", &[]) });
        }
        let request = TokenRequest { id: "new", zone: "a", n, force: true };
        check_tokens(&minimize_spread(1).generate(&request, &ring).unwrap(), n, &ring)?;
    }
}

#[test]
fn more_tokens_than_anybody_needs_are_refused_without_being_made_room_for() {
    // One of the old tokens is a numbered instance's.
    let ring: Desc = [("old", entry("a", &[5, 1 << 31])), ("new", entry("a", &[]))].into_iter().collect();
    for n in [65_537, usize::MAX] {
        let request = TokenRequest { id: "new", zone: "a", n, force: false };
        for (mut strategy, most) in strategies().into_iter().zip([65_536, 65_536, 511]) {
            let Err(GenerateError::Exhausted { requested, tokens }) = strategy.generate(&request, &ring)
            else {
                panic!("{strategy:?} gave {n} tokens")
            };
            assert_eq!((requested, tokens.len()), (n, most));
            assert!(tokens.is_sorted_by(|a, b| a < b) && !tokens.contains(&5));
        }
    }
}

fn strategies() -> [TokenStrategy; 3] {
    let fixed = SpreadMinimizing::try_new("new-0", "a", &["a"], false).unwrap();
    let random = TokenStrategy::Random(TokenGenerator::random(Some(1)));
    [random, minimize_spread(1), TokenStrategy::SpreadMinimizing(fixed.into())]
}

#[test]
fn spread_minimizing_tokens_of_all_instances_and_zones_differ_and_own_the_same() {
    const INSTANCES: usize = 40;
    let mut all = Vec::new();
    for zone in 0..8 {
        let mut of_zone = Vec::new();
        for tokens in ZonePlacement::new(zone).take(INSTANCES) {
            assert!(tokens.len() == 512 && tokens.is_sorted_by(|a, b| a < b));
            assert!(tokens.iter().all(|token| *token as usize % 8 == zone), "zones never collide");
            all.extend_from_slice(&tokens);
            of_zone.push(tokens);
        }
        let ring: Desc =
            of_zone.iter().enumerate().map(|(i, own)| (format!("i{i:03}"), entry("", own))).collect();
        let snapshot = Snapshot::first_sight(&ring, NOW, &RingOptions::default());
        let shares: Vec<_> = snapshot.ownership().of_circle().iter().map(Share::fraction).collect();
        assert!(spread(&shares) < 1.005, "{}", spread(&shares));
    }
    all.sort_unstable();
    all.dedup();
    assert_eq!(all.len(), 8 * INSTANCES * 512);
}

#[test]
fn keys_cannot_be_told_where_they_depend_on_more_than_one_zone() {
    let ring: Desc = [("a", entry("za", &[10])), ("b", entry("zb", &[20])), ("none", entry("", &[30]))]
        .into_iter()
        .collect();
    let ranges = |id: &str, zone_awareness_enabled, replication_factor| {
        let options = RingOptions { zone_awareness_enabled, replication_factor, ..RingOptions::default() };
        Snapshot::first_sight(&ring, NOW, &options).token_ranges(id).map(|ranges| ranges.len())
    };
    assert_eq!(ranges("nobody", true, 3), Err(TokenRangesError::InstanceNotFound));
    assert_eq!(ranges("none", true, 3), Err(TokenRangesError::ZoneNotSet));
    assert_eq!(ranges("a", false, 3), Err(TokenRangesError::Unsupported));
    assert_eq!(ranges("a", true, 2), Err(TokenRangesError::Unsupported));
    assert_eq!(
        ranges("a", true, 3),
        Err(TokenRangesError::Unsupported),
        "a member without a zone takes any place"
    );
}

#[test]
fn members_are_counted_by_kind_and_zone() {
    let empty = Snapshot::first_sight(&Desc::new(), NOW, &RingOptions::default()).counts();
    assert_eq!(
        (empty.total, empty.zones().len(), empty.oldest_registered_timestamp),
        (Count::default(), 0, 0)
    );

    let registered =
        |at, zone, tokens: &[u32]| InstanceDesc { registered_timestamp: at, ..entry(zone, tokens) };
    let mut ring: Desc = [
        ("a1", registered(50, "a", &[1])),
        ("a2", registered(40, "a", &[])),
        ("a3", InstanceDesc { state: State::ReadOnly, ..registered(60, "a", &[2]) }),
        (
            "b1",
            InstanceDesc { read_only: true, read_only_updated_timestamp: 70, ..registered(45, "b", &[3]) },
        ),
    ]
    .into_iter()
    .collect();
    let counts = |ring: &Desc| Snapshot::first_sight(ring, NOW, &RingOptions::default()).counts();
    let count =
        |instances, with_tokens, writable_with_tokens| Count { instances, with_tokens, writable_with_tokens };
    let found = counts(&ring);
    assert_eq!(
        (found.total, found.of_zone("a"), found.of_zone("b")),
        (count(4, 3, 1), count(3, 2, 1), count(1, 1, 0))
    );
    assert_eq!(found.of_zone("c"), Count::default());
    assert_eq!(found.zones().map(|(zone, _)| zone).collect::<Vec<_>>(), ["a", "b"]);
    assert_eq!((found.oldest_registered_timestamp, found.read_only), (40, 2));
    assert_eq!(found.oldest_read_only_updated_timestamp, 0, "since when a3 is read-only is not known");
    ring.remove("a3");
    assert_eq!(counts(&ring).oldest_read_only_updated_timestamp, 70);
    ring.insert("a4", registered(-62_135_596_800, "a", &[]));
    assert_eq!(counts(&ring).oldest_registered_timestamp, 0, "one is unknown");
}

#[test]
fn a_listing_needs_one_replica_of_each_key_and_no_quorum() {
    let list = |members: &[(State, &str)], zone_awareness_enabled, replication_factor| {
        let member = |&(state, zone): &(State, &str)| InstanceDesc { state, ..entry(zone, &[7]) };
        let named = members.iter().enumerate().map(|(i, of)| (format!("i{i}"), member(of)));
        let options = RingOptions { zone_awareness_enabled, replication_factor, ..RingOptions::default() };
        Snapshot::first_sight(&named.collect(), NOW, &options)
            .replication_set_for_listing(Operation::RULER_LIST, NOW)
            .map(|set| (set.iter().count(), set.max_errors(), set.max_unavailable_zones()))
            .map_err(|error| error.to_string())
    };
    let (up, down) = (State::Active, State::Pending);
    let too_many = Err("too many unhealthy instances in the ring".to_owned());
    assert_eq!(list(&[], false, 2), Err("empty ring".into()));
    // Without zones all but one replica may be missing.
    assert_eq!(list(&[(up, ""); 3], false, 1), Ok((3, 0, 0)));
    assert_eq!(list(&[(up, ""); 3], false, 2), Ok((3, 1, 0)));
    assert_eq!(list(&[(up, ""), (State::Leaving, ""), (down, "")], false, 2), Ok((2, 0, 0)));
    assert_eq!(list(&[(up, ""), (down, ""), (down, "")], false, 2), too_many);
    assert_eq!(
        list(&[(up, "")], false, 3),
        Ok((1, 0, 0)),
        "with fewer instances than replicas one is enough"
    );
    // With zones all but one may fail; healthy instances of a failing zone are asked all the same.
    let zones = [(up, "a"), (down, "a"), (up, "b"), (up, "c")];
    assert_eq!(list(&zones, true, 3), Ok((3, 0, 2)));
    assert_eq!(list(&zones, true, 2), Ok((3, 0, 1)));
    assert_eq!(list(&[(up, "a"), (down, "b"), (down, "c")], true, 3), Ok((1, 0, 2)));
    assert_eq!(list(&[(up, "a"), (down, "b"), (down, "c")], true, 2), too_many);
    assert_eq!(list(&[(up, "a"), (down, "b")], true, 1), too_many, "every zone may be a key's only one");
    assert_eq!(list(&[(up, "a"), (up, "a"), (down, "a")], true, 2), Ok((2, 0, 0)), "one zone counts as none");
}

/// Who asks everybody and counts zones, those that fail from the start included, never takes an incomplete list for one.
#[test]
fn a_listing_names_the_zones_that_fail_before_anybody_is_asked() {
    let member =
        |(id, state): (&str, State)| (id.to_owned(), InstanceDesc { state, ..entry(&id[..1], &[7]) });
    let members =
        [("a1", State::Active), ("a2", State::Pending), ("b1", State::Pending), ("c1", State::Active)];
    let desc: Desc = members.into_iter().map(member).collect();
    let list = |zone_awareness_enabled| {
        let options = RingOptions { zone_awareness_enabled, replication_factor: 3, ..RingOptions::default() };
        let ring = Snapshot::first_sight(&desc, NOW, &options);
        let set = ring.replication_set_for_listing(Operation::RULER_LIST, NOW).unwrap();
        let asked: Vec<_> = set.iter().map(|instance| instance.id.to_string()).collect();
        let failing: Vec<_> = set.failing_zones().map(ToString::to_string).collect();
        assert!(!set.is_empty() && set.len() == asked.len());
        (asked.join(" "), failing.join(" "), set.is_by_zone(), set.max_errors(), set.max_unavailable_zones())
    };
    assert_eq!(list(true), ("a1 c1".into(), "a b".into(), true, 0, 2), "c must answer");
    assert_eq!(list(false), ("a1 c1".into(), String::new(), false, 0, 0));
}

#[test]
fn a_key_at_a_token_belongs_to_the_next_one() {
    let ring: Desc = [("a", entry("z", &[10, 30])), ("b", entry("z", &[20]))].into_iter().collect();
    let options =
        RingOptions { replication_factor: 1, zone_awareness_enabled: true, ..RingOptions::default() };
    let snapshot = Snapshot::first_sight(&ring, NOW, &options);
    let ranges = |id| snapshot.token_ranges(id).unwrap().iter().collect::<Vec<_>>();
    assert_eq!(ranges("b"), [(10, 19)]);
    assert_eq!(ranges("a"), [(0, 9), (20, u32::MAX)]);
    assert_eq!(search_token(snapshot.tokens(), 10), 1);
}
