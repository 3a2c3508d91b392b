//! What must hold for every ring.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;
use proptest::collection::{btree_map, btree_set, vec};
use proptest::prelude::*;
use ringkit_kv::{Codec, Value as _};
use ringkit_ring::quorum::{CountTracker, ReadTracker, ZoneTracker};
use ringkit_ring::{
    Comparison, Desc, InstanceDesc, Operation, RingCodec, RingOptions, Snapshot, State, Strategy as Filter,
    Tokens, find_difference, merge,
};

const NOW: i64 = 10_000;

fn state() -> impl Strategy<Value = State> {
    prop_oneof![4 => Just(State::Active), 3 => prop::sample::select(State::KNOWN.to_vec())]
}

/// Any entry that can be stored, with fields of both dialects and unknown ones.
fn any_entry() -> impl Strategy<Value = InstanceDesc> {
    let unknown = vec((13u32..3000, any::<u64>()), 0..3).prop_map(|fields| {
        let mut out = Vec::new();
        for (number, value) in fields {
            for mut varint in [u64::from(number) << 3, value] {
                while varint >= 0x80 {
                    out.push(varint as u8 | 0x80);
                    varint >>= 7;
                }
                out.push(varint as u8);
            }
        }
        Bytes::from(out)
    });
    let cortex = (".{0,30}", any::<i64>(), any::<i32>(), vec(any::<u32>(), 0..20), ".{0,8}", any::<i64>());
    let dskit = (any::<bool>(), any::<i64>(), any::<bool>(), btree_map(any::<u64>(), any::<u64>(), 0..3));
    (cortex, dskit, unknown).prop_map(|(cortex, dskit, unknown)| {
        let (addr, timestamp, state, tokens, zone, registered_timestamp) = cortex;
        let (has_id, read_only_updated_timestamp, read_only, versions) = dskit;
        InstanceDesc {
            addr: addr.into(),
            timestamp,
            state: State::from_i32(state),
            tokens: tokens.into(),
            zone: zone.into(),
            registered_timestamp,
            id: if has_id { "here".into() } else { "".into() },
            read_only_updated_timestamp,
            read_only,
            versions,
            unknown,
        }
    })
}

/// A ring of up to `n` instances in up to four zones, of which some are old, with tokens that nobody shares.
fn ring_of(n: usize) -> impl Strategy<Value = Desc> {
    let instance = (state(), 0..4usize, prop::bool::weighted(0.85), 1..5usize);
    (vec(instance, 1..=n), btree_set(any::<u32>(), n * 4), any::<u64>()).prop_map(
        |(instances, tokens, seed)| {
            // Tokens are dealt out by a stride, so that neighbours on the circle belong to different instances.
            let tokens: Vec<_> = tokens.into_iter().collect();
            let mut next = seed as usize % tokens.len();
            let mut deal = |count: usize| -> Tokens {
                let dealt: Vec<_> = (0..count).map(|i| tokens[(next + i * 7) % tokens.len()]).collect();
                next += 1;
                dealt.into()
            };
            let mut desc = Desc::new();
            let mut taken = BTreeSet::new();
            for (place, (state, zone, fresh, count)) in instances.into_iter().enumerate() {
                let tokens: Tokens =
                    deal(count).iter().copied().filter(|token| taken.insert(*token)).collect();
                let entry = InstanceDesc {
                    addr: format!("{place}:1").into(),
                    timestamp: if fresh { NOW } else { NOW - 61 },
                    state,
                    tokens: if state == State::Left { Tokens::empty() } else { tokens.normalized() },
                    zone: ["", "a", "b", "c"][zone].into(),
                    ..InstanceDesc::default()
                };
                desc.insert(format!("i{place}"), entry);
            }
            desc
        },
    )
}

fn options() -> impl Strategy<Value = RingOptions> {
    (1..6usize, any::<bool>(), any::<bool>()).prop_map(
        |(replication_factor, zone_awareness_enabled, quorum)| RingOptions {
            replication_factor,
            zone_awareness_enabled,
            strategy: if quorum { Filter::Quorum } else { Filter::IgnoreUnhealthy },
            heartbeat_timeout: Duration::from_secs(60),
            ..RingOptions::default()
        },
    )
}

fn operation() -> impl Strategy<Value = Operation> {
    prop::sample::select(vec![
        Operation::WRITE,
        Operation::WRITE_NO_EXTEND,
        Operation::READ,
        Operation::REPORTING,
        Operation::BLOCKS_OWNER_SYNC,
        Operation::RULER_LIST,
    ])
}

/// The walk as Cortex has it, over hash maps, step by step and without an early end.
fn plain_walk(desc: &Desc, options: &RingOptions, op: Operation, key: u32) -> Vec<String> {
    let mut owners = BTreeMap::new();
    for (id, entry) in desc {
        owners.extend(entry.tokens.iter().map(|token| (*token, id)));
    }
    let zones: BTreeSet<_> = desc.iter().map(|(_, entry)| entry.zone.clone()).collect();
    let (base, mut extra) =
        (options.replication_factor / zones.len(), options.replication_factor % zones.len());
    let mut size = options.replication_factor;
    let (mut hosts, mut per_zone) = (Vec::new(), BTreeMap::<_, usize>::new());
    let after = owners.range((std::ops::Bound::Excluded(key), std::ops::Bound::Unbounded));
    for (_, &id) in after.chain(owners.range(..=key)) {
        let entry = desc.get(id).unwrap();
        if hosts.len() >= size {
            break;
        }
        if hosts.contains(&id.to_string()) {
            continue;
        }
        let limited = options.zone_awareness_enabled && !entry.zone.is_empty();
        let limit = base + usize::from(extra > 0);
        if limited && per_zone.get(&entry.zone).copied().unwrap_or(0) >= limit {
            continue;
        }
        hosts.push(id.to_string());
        if op.extends_on(entry.state) {
            size += 1;
        } else if limited {
            match per_zone.get_mut(&entry.zone) {
                None => drop(per_zone.insert(entry.zone.clone(), 1)),
                Some(taken) if *taken < base => *taken += 1,
                Some(taken) => {
                    *taken += 1;
                    extra -= 1;
                }
            }
        }
    }
    hosts
}

proptest! {
    #[test]
    fn an_entry_survives_its_encoding(entry in any_entry()) {
        let bytes = Desc::encode_entry(&entry);
        let decoded = Desc::decode_entry("here", &bytes).unwrap();
        prop_assert_eq!(&decoded, &entry);
        let shared = Desc::decode_next("here", &bytes, &entry).unwrap();
        prop_assert!(shared.tokens.ptr_eq(&entry.tokens));
        prop_assert_eq!(shared, entry);
    }

    #[test]
    fn a_ring_survives_its_encoding_and_equal_rings_give_equal_bytes(entries in btree_map(".{0,9}", any_entry(), 0..6)) {
        let desc: Desc = entries.iter().map(|(id, entry)| {
            let id_field = if entry.id.is_empty() { "".into() } else { id.into() };
            (id.clone(), InstanceDesc { id: id_field, ..entry.clone() })
        }).collect();
        let stored = desc.encode();
        prop_assert_eq!(&Desc::decode(&stored).unwrap(), &desc);
        prop_assert_eq!(RingCodec.join(&RingCodec.split(&stored).unwrap()), stored);
    }

    #[test]
    fn no_bytes_make_the_codec_panic(bytes in vec(any::<u8>(), 0..200)) {
        let _ = Desc::decode(&bytes);
        let _ = RingCodec.split(&bytes);
        let _ = Desc::decode_entry("x", &bytes);
        let stored = snap::raw::Encoder::new().compress_vec(&bytes).unwrap();
        if let Ok(desc) = Desc::decode(&stored) {
            prop_assert_eq!(Desc::decode(&desc.encode()).unwrap(), desc);
        }
    }

    #[test]
    fn a_byte_changed_in_a_stored_ring_does_no_harm(desc in ring_of(6), at: prop::sample::Index, byte: u8) {
        let proto = snap::raw::Decoder::new().decompress_vec(&desc.encode()).unwrap();
        let mut changed = proto.clone();
        let at = at.index(proto.len());
        changed[at] = byte;
        let stored = snap::raw::Encoder::new().compress_vec(&changed).unwrap();
        if let Ok(desc) = Desc::decode(&stored) {
            prop_assert_eq!(Desc::decode(&desc.encode()).unwrap(), desc);
        }
    }

    #[test]
    fn the_walk_agrees_with_a_plain_rendering_of_cortex(
        desc in ring_of(14), options in options(), op in operation(), keys in vec(any::<u32>(), 1..20),
    ) {
        let snapshot = Snapshot::first_sight(&desc, NOW, &options);
        for key in keys {
            let walked = plain_walk(&desc, &options, op, key);
            let (healthy, unhealthy): (Vec<_>, Vec<_>) = walked.into_iter().partition(|id| snapshot.is_healthy(id, op, NOW));
            match snapshot.get(key, op, NOW) {
                Ok(set) => {
                    let found: Vec<_> = set.ids().map(ToString::to_string).collect();
                    prop_assert_eq!(found, healthy);
                }
                Err(error) if snapshot.tokens().is_empty() => prop_assert_eq!(error.to_string(), "empty ring"),
                Err(error) => {
                    prop_assert_eq!(options.strategy.tolerated(options.replication_factor, healthy.len()).ok(), None);
                    let unhealthy: Vec<_> = unhealthy.iter().map(|id| desc.get(id).unwrap().addr.to_string()).collect();
                    prop_assert!(error.to_string().ends_with(&unhealthy.join(",")), "{}: {:?}", error, unhealthy);
                }
            }
        }
    }

    #[test]
    fn replicas_of_a_key_are_distinct_and_spread_over_zones(desc in ring_of(14), key: u32, factor in 1..4usize) {
        let options = RingOptions { replication_factor: factor, zone_awareness_enabled: true, strategy: Filter::IgnoreUnhealthy, ..RingOptions::default() };
        let named = desc.iter().map(|(id, entry)| {
            let zone = if entry.zone.is_empty() { "a".into() } else { entry.zone.clone() };
            (id.clone(), InstanceDesc { zone, state: State::Active, ..(**entry).clone() })
        }).collect::<Desc>();
        let snapshot = Snapshot::first_sight(&named, NOW, &options);
        let Ok(set) = snapshot.get(key, Operation::WRITE, NOW) else { return Ok(()) };
        let ids: BTreeSet<_> = set.ids().collect();
        prop_assert_eq!(ids.len(), set.len());
        if factor <= snapshot.zones().len() {
            prop_assert_eq!(set.zone_count(), set.len());
        }
    }

    #[test]
    fn any_two_quorums_of_a_key_share_an_instance(factor in 1..8usize, healthy in 0..12usize) {
        if let Ok(tolerated) = Filter::Quorum.tolerated(factor, healthy) {
            prop_assert!(2 * (healthy - tolerated) > healthy);
            prop_assert!(2 * (healthy - tolerated) > factor);
        }
    }

    #[test]
    fn a_read_of_the_whole_ring_meets_every_acknowledged_write(
        desc in ring_of(9), zone_aware: bool, factor in 1..4usize, key: u32, lost in vec(any::<prop::sample::Index>(), 0..4),
    ) {
        // Zones as quorums are made for: each instance in one of `factor` zones.
        let desc = desc.iter().enumerate().map(|(place, (id, entry))| {
            let zone = ["a", "b", "c"][place % factor];
            (id.clone(), InstanceDesc { zone: zone.into(), state: State::Active, ..(**entry).clone() })
        }).collect::<Desc>();
        let options = RingOptions { replication_factor: factor, zone_awareness_enabled: zone_aware, ..RingOptions::default() };
        let snapshot = Snapshot::first_sight(&desc, NOW, &options);
        let (Ok(write), Ok(read)) = (snapshot.get(key, Operation::WRITE, NOW), snapshot.replication_set(Operation::READ, NOW)) else {
            return Ok(());
        };
        // The read loses as much as it may; whoever answers it is enough.
        let mut tracker = ReadTracker::new(&read.to_set());
        let lost: BTreeSet<_> = lost.iter().map(|index| index.index(read.len().max(1))).collect();
        let answered: BTreeSet<_> = (0..read.len()).filter(|place| !lost.contains(place)).collect();
        (0..read.len()).for_each(|place| tracker.record(place, answered.contains(&place)));
        if !tracker.succeeded() {
            return Ok(());
        }
        // However the write lost as many as it may, somebody who took it answers the read.
        let answered: BTreeSet<_> = answered.iter().map(|&place| &read.get(place).unwrap().id).collect();
        let silent = write.iter().filter(|instance| !answered.contains(&instance.id)).count();
        prop_assert!(silent < write.len() - write.max_errors(), "write {:?} read {:?} lost {:?}", write, read, lost);
    }

    #[test]
    fn merging_again_changes_nothing(a in ring_of(8), b in ring_of(8)) {
        let mut once = a;
        merge(&mut once, &b, false, NOW);
        let mut twice = once.clone();
        let merged = merge(&mut twice, &b, false, NOW);
        prop_assert_eq!(merged.change, None);
        prop_assert_eq!(twice, once);
    }

    #[test]
    fn merges_commute_and_associate_when_timestamps_differ(rings in distinct_rings(3)) {
        let merge_all = |order: [usize; 3]| {
            let mut all = Desc::new();
            order.iter().for_each(|&at| drop(merge(&mut all, &rings[at], false, NOW)));
            all
        };
        let all = merge_all([0, 1, 2]);
        for order in [[0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]] {
            prop_assert_eq!(&merge_all(order), &all);
        }
        let mut right = rings[1].clone();
        merge(&mut right, &rings[2], false, NOW);
        let mut left = rings[0].clone();
        merge(&mut left, &right, false, NOW);
        let mut start = Desc::new();
        merge(&mut start, &left, false, NOW);
        prop_assert_eq!(start, all);
    }

    #[test]
    fn a_change_brings_others_to_where_the_merge_went(rings in distinct_rings(2)) {
        let (mut here, mut there) = (rings[0].clone(), rings[0].clone());
        let merged = merge(&mut here, &rings[1], false, NOW);
        if let Some(change) = merged.change {
            merge(&mut there, &change, false, NOW);
        }
        prop_assert_eq!(there, here);
    }

    #[test]
    fn nobody_shares_a_token_after_a_merge_that_changed_tokens(a in ring_of(8), b in ring_of(8)) {
        let mut merged = Desc::new();
        merge(&mut merged, &a, false, NOW);
        merge(&mut merged, &b, false, NOW);
        let newer = b.iter().map(|(id, entry)| (id.clone(), InstanceDesc { timestamp: NOW + 1, state: State::Joining, ..(**entry).clone() })).collect();
        merge(&mut merged, &newer, false, NOW);
        let tokens = merged.all_tokens();
        prop_assert!(tokens.is_sorted_by(|a, b| a < b));
    }

    #[test]
    fn a_difference_applied_leads_to_the_new_ring_where_that_is_newer(a in ring_of(8), b in ring_of(8)) {
        let mut new: Desc = b.iter().map(|(id, entry)| (id.clone(), InstanceDesc { timestamp: NOW + 5, ..(**entry).clone() })).collect();
        let difference = find_difference(Some(&a), Some(&mut new));
        let mut applied = a;
        difference.to_delete.iter().for_each(|id| drop(applied.remove(id)));
        difference.to_update.iter().for_each(|(id, entry)| drop(applied.insert(id.clone(), entry.clone())));
        prop_assert_eq!(applied, new);
    }

    #[test]
    fn comparing_is_symmetric_and_equal_to_itself(a in ring_of(6), b in ring_of(6)) {
        prop_assert_eq!(a.compare(&a.clone()), Comparison::Equal);
        prop_assert_eq!(a.compare(&b), b.compare(&a));
    }

    #[test]
    fn trackers_by_count_and_by_zones_agree_when_each_zone_is_one_instance(
        n in 1..7usize, tolerated in 0..4usize, replies in vec(any::<bool>(), 7),
    ) {
        let zones: Vec<smol_str::SmolStr> = (0..n).map(|zone| zone.to_string().into()).collect();
        let (mut count, mut by_zone) = (CountTracker::new(n, tolerated), ZoneTracker::new(&zones, tolerated));
        for (place, &ok) in replies.iter().enumerate().take(n) {
            count.record(ok);
            by_zone.record(place, ok);
            prop_assert_eq!(count.succeeded(), by_zone.succeeded());
            prop_assert_eq!(count.failed(), by_zone.failed());
            prop_assert_eq!(count.finished(), by_zone.finished());
            prop_assert!(!(count.succeeded() && count.failed()));
        }
        prop_assert!(count.succeeded() != count.failed(), "all replies decide it");
    }
}

/// Tokens are not searched for repetitions, because there are none to be found.
#[test]
fn a_stored_ring_is_about_as_small_as_a_general_compressor_makes_it() {
    let mut generator = ringkit_ring::TokenGenerator::random(Some(5));
    let mut desc = Desc::new();
    for place in 0..100 {
        let entry = InstanceDesc {
            addr: format!("10.0.0.{place}:9095").into(),
            timestamp: 1_700_000_000 + place,
            tokens: generator.generate(128, &desc).into(),
            zone: format!("zone-{}", place % 3).into(),
            registered_timestamp: 1_600_000_000,
            ..InstanceDesc::default()
        };
        desc.insert(format!("ingester-{place}"), entry);
    }
    let stored = desc.encode();
    let proto = snap::raw::Decoder::new().decompress_vec(&stored).unwrap();
    let general = snap::raw::Encoder::new().compress_vec(&proto).unwrap();
    assert!(stored.len() <= general.len() + general.len() / 100, "{} and {}", stored.len(), general.len());
}

/// Rings of the same instances, none of which has two entries of one second, or a token of another.
fn distinct_rings(n: usize) -> impl Strategy<Value = Vec<Desc>> {
    vec(vec((prop::option::weighted(0.7, state()), 0..50u32), 6), n).prop_map(move |rings| {
        let entry = |ring: usize, place: usize, state: State, salt: u32| {
            let tokens = if state == State::Left { vec![] } else { vec![place as u32 * 100 + salt] };
            // Distinct per instance and ring, in no fixed order between rings.
            let timestamp = 1000 + i64::from(salt) * 10 + ring as i64;
            (
                format!("i{place}"),
                InstanceDesc { timestamp, state, tokens: tokens.into(), ..InstanceDesc::default() },
            )
        };
        let ring = |(ring, entries): (usize, Vec<(Option<State>, u32)>)| {
            let entries = entries.into_iter().enumerate();
            entries
                .filter_map(|(place, (state, salt))| Some(entry(ring, place, state?, salt)))
                .collect::<Desc>()
        };
        rings.into_iter().enumerate().map(ring).collect()
    })
}

/// PENDING instances are read, and each makes room for one more: such a walk takes everybody.
#[test]
fn a_walk_that_takes_everybody_agrees_with_a_plain_rendering_of_cortex() {
    for zone_awareness_enabled in [false, true] {
        let options = RingOptions { zone_awareness_enabled, ..RingOptions::default() };
        let instance = |place: u32| {
            let tokens =
                (0..3).map(|n| place.wrapping_mul(2_654_435_761).wrapping_add(n * 1_000_003)).collect();
            let state = if place.is_multiple_of(50) { State::Active } else { State::Pending };
            let zone = ["a", "b", "c"][place as usize % 3].into();
            let entry = InstanceDesc { timestamp: NOW, state, tokens, zone, ..InstanceDesc::default() };
            (format!("i{place}"), entry)
        };
        let desc: Desc = (0..200).map(instance).collect();
        let snapshot = Snapshot::first_sight(&desc, NOW, &options);
        for key in [0, 77_777_777, u32::MAX] {
            let set = snapshot.get(key, Operation::READ, NOW).unwrap();
            let found: Vec<_> = set.ids().map(ToString::to_string).collect();
            assert!(found.len() > 100);
            assert_eq!(found, plain_walk(&desc, &options, Operation::READ, key));
        }
    }
}

/// How many of 2,000 keys change more than one replica when an instance joins, and how many change at all.
fn moved(before: &Desc, after: &Desc, options: &RingOptions) -> (usize, usize) {
    let (before, after) =
        (Snapshot::first_sight(before, NOW, options), Snapshot::first_sight(after, NOW, options));
    let ids = |snapshot: &Snapshot, key| -> BTreeSet<_> {
        let set = snapshot.get(key, Operation::WRITE, NOW).unwrap();
        set.ids().cloned().collect()
    };
    let moved = (0..2_000u32)
        .map(|key| key.wrapping_mul(2_147_483))
        .map(|key| ids(&before, key).difference(&ids(&after, key)).count());
    let moved: Vec<_> = moved.collect();
    (moved.iter().filter(|n| **n > 1).count(), moved.iter().filter(|n| **n > 0).count())
}

#[test]
fn little_moves_when_one_joins_or_leaves() {
    for zones in [1, 3] {
        let mut generator = ringkit_ring::TokenGenerator::random(Some(7));
        let mut desc = Desc::new();
        for place in 0..30 {
            let tokens = generator.generate(128, &desc).into();
            let zone = format!("z{}", place % zones).into();
            desc.insert(
                format!("i{place:02}"),
                InstanceDesc { timestamp: NOW, tokens, zone, ..InstanceDesc::default() },
            );
        }
        let options = RingOptions { zone_awareness_enabled: zones > 1, ..RingOptions::default() };
        let mut fewer = desc.clone();
        fewer.remove("i13");
        for (before, after) in [(&fewer, &desc), (&desc, &fewer)] {
            let (many, some) = moved(before, after, &options);
            assert_eq!(many, 0, "at most one replica of a key moves");
            let fair = 2_000 * 3 / 30;
            assert!((fair / 2..fair * 2).contains(&some), "{some} of 2,000 keys moved, fair are {fair}");
        }
    }
}

#[test]
fn drawn_tokens_are_new_distinct_sorted_and_reproducible() {
    let draw = |seed, taken: &Desc| ringkit_ring::TokenGenerator::random(Some(seed)).generate(512, taken);
    let first = draw(1, &Desc::new());
    assert_eq!(first, draw(1, &Desc::new()));
    assert_ne!(first, draw(2, &Desc::new()));
    assert!(first.len() == 512 && first.is_sorted_by(|a, b| a < b));
    let taken = [("a", InstanceDesc { tokens: first.clone().into(), ..InstanceDesc::default() })]
        .into_iter()
        .collect();
    let second = draw(1, &taken);
    assert_eq!(second.len(), 512, "the same seed draws the same, finds it taken, and goes on");
    assert!(second.iter().all(|token| !first.contains(token)));
    assert!(ringkit_ring::TokenGenerator::random(None).generate(0, &taken).is_empty());
}
