//! Rings that somebody made to do harm, or that a bug made: every question about them has an answer or a named error.

use std::time::Duration;

use proptest::prelude::*;
use ringkit_kv::{Codec, Value as _};
use ringkit_ring::{
    Desc, InstanceDesc, MAX_CLOCK_SKEW_SECS, Operation, RingCodec, RingOptions, Snapshot, State, Tokens,
    find_difference, first_seen, is_fresh, merge, remove_tombstones,
};

use crate::answers::{self, OPERATIONS, difference, telling_keys};
use crate::nasty::{self, NOW};
use crate::plain::Plain;

/// The ends of the range of times, and what lies around other edges.
const TIMES: [i64; 13] = [
    i64::MIN,
    i64::MIN + 1,
    i64::MIN + MAX_CLOCK_SKEW_SECS,
    -62_135_596_800,
    -1,
    0,
    1,
    NOW - 61,
    NOW,
    NOW + 61,
    i64::MAX - MAX_CLOCK_SKEW_SECS,
    i64::MAX - 1,
    i64::MAX,
];

/// Asks everything there is to ask, and compares with what Cortex would say where that is told in plain words.
fn ask(desc: &Desc, now: i64, options: &RingOptions, keys: &[u32]) -> Result<(), String> {
    let snapshot = Snapshot::first_sight(desc, now, options);
    let plain = Plain::new(desc, now, options);
    let keys = telling_keys(&snapshot, keys, 3);
    let text = |error: ringkit_ring::Error| error.to_string();
    for op in OPERATIONS {
        let (found, expected) =
            (answers::replication_set(&snapshot, op, now).map_err(text), plain.replication_set(op));
        if found != expected {
            return Err(format!("replication_set {:#x}: {found:?}, not {expected:?}", op.bits()));
        }
        for &key in &keys {
            let (found, expected) = (answers::get(&snapshot, key, op, now).map_err(text), plain.get(key, op));
            if found != expected {
                return Err(format!("get {key} {:#x}: {found:?}, not {expected:?}", op.bits()));
            }
            for more in [1, 4] {
                let factor = options.replication_factor + more;
                let found = answers::get_with_factor(&snapshot, key, op, factor, now).map_err(text);
                let expected = plain.get_with_factor(key, op, factor);
                if found != expected {
                    return Err(format!(
                        "get {key} {:#x} of {factor}: {found:?}, not {expected:?}",
                        op.bits()
                    ));
                }
            }
        }
    }
    // All other questions too; a ring answers as itself.
    difference(&snapshot, &snapshot.clone(), &[], now).map_or(Ok(()), Err)
}

fn stored(proto: &[u8]) -> Vec<u8> {
    snap::raw::Encoder::new().compress_vec(proto).unwrap()
}

fn proto(desc: &Desc) -> Vec<u8> {
    snap::raw::Decoder::new().decompress_vec(&desc.encode()).unwrap()
}

/// Three entries with all fields of both dialects, an unknown field and an unknown state.
fn every_field() -> Desc {
    let full = |n: u32| InstanceDesc {
        addr: format!("10.0.0.{n}:9095").into(),
        timestamp: NOW - i64::from(n),
        state: [State::Active, State::Unknown(77), State::Left][n as usize % 3],
        tokens: vec![n, 300 + n, u32::MAX - n].into(),
        zone: "z".into(),
        registered_timestamp: -1,
        id: format!("i{n}").into(),
        read_only_updated_timestamp: 7,
        read_only: true,
        versions: [(1, 2), (u64::MAX, 0)].into(),
        // Field 2000 as text, field 99 as a group with a varint inside.
        unknown: vec![0x82, 0x7d, 2, b'h', b'i', 0x9b, 0x06, 0x08, 1, 0x9c, 0x06].into(),
    };
    (0..3).map(|n| (format!("i{n}"), full(n))).collect()
}

/// A ring that decodes is one that can be used and written again.
fn usable(bytes: &[u8], what: &str, thoroughly: bool) -> bool {
    let Ok(desc) = Desc::decode(bytes) else { return false };
    assert_eq!(Desc::decode(&desc.encode()).as_ref(), Ok(&desc), "{what}");
    let options = RingOptions { zone_awareness_enabled: true, ..RingOptions::default() };
    if thoroughly {
        ask(&desc, NOW, &options, &[9]).unwrap_or_else(|wrong| panic!("{what}: {wrong}"));
    }
    let mut local = every_field();
    merge(&mut local, &desc, true, NOW);
    assert_eq!(merge(&mut local, &desc, true, NOW).change, None, "{what}");
    true
}

#[test]
fn a_ring_cut_off_anywhere_is_refused_or_ends_with_a_whole_entry() {
    let desc = every_field();
    let (whole, proto) = (desc.encode(), proto(&desc));
    assert!(usable(&whole, "whole", true));
    for cut in 0..whole.len() {
        assert!(Desc::decode(&whole[..cut]).is_err(), "compressed, cut at {cut}");
        assert!(RingCodec.split(&whole[..cut]).is_err(), "compressed, cut at {cut}");
    }
    let mut read = Vec::new();
    for cut in 0..proto.len() {
        if usable(&stored(&proto[..cut]), &format!("cut at {cut}"), true) {
            let shorter = Desc::decode(&stored(&proto[..cut])).unwrap();
            assert!(shorter.iter().all(|(id, entry)| desc.get(id) == Some(entry)), "cut at {cut}");
            read.push(shorter.len());
        }
    }
    assert_eq!(read, [0, 1, 2], "at the entries' ends and nowhere else");
}

#[test]
fn a_ring_with_any_bit_flipped_is_refused_or_usable() {
    let proto = proto(&every_field());
    let (mut refused, mut read) = (0, 0);
    for bit in 0..proto.len() * 8 {
        let mut flipped = proto.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        *if usable(&stored(&flipped), &format!("bit {bit}"), bit % 16 == 0) {
            &mut read
        } else {
            &mut refused
        } += 1;
    }
    assert!(refused > 500 && read > 500, "{refused} refused, {read} read");
    // And where the compression is broken instead.
    let whole = every_field().encode();
    for bit in 0..whole.len() * 8 {
        let mut flipped = whole.to_vec();
        flipped[bit / 8] ^= 1 << (bit % 8);
        usable(&flipped, &format!("compressed, bit {bit}"), bit % 16 == 0);
    }
}

#[test]
fn lengths_beyond_the_end_are_refused_without_reserving_them() {
    let endless: [&[u8]; 6] = [
        &[0x7f],
        &[0xff, 0x7f],
        &[0xff, 0xff, 0xff, 0xff, 0x07],
        &[0xff, 0xff, 0xff, 0xff, 0x0f],
        &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f],
        &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01],
    ];
    for length in endless {
        // The ring's entry, its id, its value.
        for before in [&[0x0a][..], &[0x0a, 30, 0x0a], &[0x0a, 30, 0x12]] {
            let bytes = stored(&[before, length, b"x"].concat());
            assert!(Desc::decode(&bytes).is_err(), "{before:x?} {length:x?}");
            assert!(RingCodec.split(&bytes).is_err(), "{before:x?} {length:x?}");
        }
        // Address, packed tokens, zone, id, a version, an unknown field.
        for field in [0x0a, 0x32, 0x3a, 0x4a, 0x62, 0x6a] {
            let bytes = [&[field][..], length, b"x"].concat();
            assert!(Desc::decode_entry("x", &bytes).is_err(), "{field:x} {length:x?}");
        }
    }
}

#[test]
fn groups_nested_deeper_than_any_stack_are_read_without_one() {
    const DEPTH: usize = 1 << 20;
    let nested = [vec![0x6b; DEPTH], vec![0x6c; DEPTH]].concat();
    let entry = Desc::decode_entry("x", &nested).unwrap();
    assert_eq!(entry.unknown.len(), nested.len());
    assert!(Desc::decode_entry("x", &nested[..nested.len() - 1]).is_err(), "one end is missing");
    assert_eq!(Desc::decode(&stored(&nested)), Ok(Desc::new()));
}

#[test]
fn an_id_repeated_without_end_is_one_instance() {
    let one =
        proto(&[("same", InstanceDesc { timestamp: 5, ..InstanceDesc::default() })].into_iter().collect());
    let desc = Desc::decode(&stored(&one.repeat(50_000))).unwrap();
    assert_eq!(desc.len(), 1);
}

#[test]
fn what_this_version_does_not_know_survives_heartbeats_merges_and_rewrites() {
    let before = every_field();
    let mut local = Desc::new();
    merge(&mut local, &before, false, NOW);
    let beating = local
        .iter()
        .map(|(id, entry)| (id.clone(), InstanceDesc { timestamp: NOW + 1, ..(**entry).clone() }));
    let beating: Desc = beating.collect();
    merge(&mut local, &beating, true, NOW);
    // Tokens move, and the entries that lose some are written anew.
    let thief = InstanceDesc {
        timestamp: NOW,
        tokens: (0..500).collect(),
        state: State::Joining,
        ..InstanceDesc::default()
    };
    merge(&mut local, &[("a", thief)].into_iter().collect(), false, NOW);
    let local = Desc::decode(&local.encode()).unwrap();
    for (id, entry) in &before {
        let now = local.get(id).unwrap();
        assert_eq!((now.state, &now.unknown, &now.versions), (entry.state, &entry.unknown, &entry.versions));
        assert!(now.tokens.iter().all(|token| *token >= 500), "{id} lost its small tokens");
    }
    // An entry that is deleted keeps them in its tombstone.
    let mut local = before.clone();
    merge(&mut local, &Desc::new(), true, NOW);
    assert!(local.iter().all(|(id, entry)| entry.unknown == before.get(id).unwrap().unknown));
}

#[test]
fn no_time_is_too_far_away_to_be_told() {
    let entry = |timestamp: i64, n: usize| InstanceDesc {
        addr: format!("{n}:1").into(),
        timestamp,
        state: [State::Active, State::Left, State::Joining, State::ReadOnly][n % 4],
        tokens: vec![n as u32].into(),
        registered_timestamp: timestamp,
        read_only_updated_timestamp: timestamp,
        ..InstanceDesc::default()
    };
    let of = |from: usize| -> Desc {
        let times = TIMES.iter().cycle().skip(from).take(TIMES.len()).enumerate();
        times.map(|(n, &at)| (format!("i{n:02}"), entry(at, n + from))).collect()
    };
    let timeouts = [Duration::ZERO, Duration::from_nanos(1), Duration::from_secs(60), Duration::MAX];
    for now in TIMES {
        for timeout in timeouts {
            let options = RingOptions { heartbeat_timeout: timeout, ..RingOptions::default() };
            ask(&of(0), now, &options, &[3]).unwrap_or_else(|wrong| panic!("{now} {timeout:?}: {wrong}"));
            let _ = of(0).check_ready(now, timeout);
            for seen in TIMES {
                let age = i128::from(now) - i128::from(seen);
                let fresh = timeout.is_zero() || age <= i128::from(timeout.as_secs());
                assert_eq!(is_fresh(seen, now, timeout), fresh, "{seen} at {now} within {timeout:?}");
                assert_eq!(first_seen(seen, now), seen.min(now));
            }
        }
        for (from, local_cas) in [(0, false), (1, true), (5, false), (9, true)] {
            let (mut local, incoming) = (of(0), of(from));
            let merged = merge(&mut local, &incoming, local_cas, now);
            let limit = now.saturating_add(MAX_CLOCK_SKEW_SECS);
            let future = incoming.iter().filter(|(_, entry)| entry.timestamp > limit).count();
            assert_eq!(merged.rejected.len(), future);
            assert_eq!(merge(&mut local, &incoming, local_cas, now).change, None);
            let mut new = incoming.clone();
            find_difference(Some(&local), Some(&mut new));
            remove_tombstones(&mut local, Some(now));
            assert!(local.iter().all(|(_, entry)| entry.state != State::Left || entry.timestamp >= now));
        }
    }
}

/// `n` instances in three zones, made by `make` from their number.
fn crowd(n: u32, make: impl Fn(u32) -> InstanceDesc) -> Desc {
    let entry = |number: u32| InstanceDesc {
        addr: format!("{number}:1").into(),
        timestamp: NOW,
        zone: ["a", "b", "c"][number as usize % 3].into(),
        ..make(number)
    };
    (0..n).map(|number| (format!("i{number:06}"), entry(number))).collect()
}

/// More instances than a `u16` can number, so that the wide tables are made too.
const CROWD: u32 = 100_000;

fn zone_aware() -> RingOptions {
    RingOptions { zone_awareness_enabled: true, ..RingOptions::default() }
}

#[test]
fn a_hundred_thousand_instances_are_read_merged_and_asked() {
    let desc = crowd(CROWD, |number| InstanceDesc {
        tokens: vec![number.wrapping_mul(2_654_435_761)].into(),
        ..InstanceDesc::default()
    });
    let desc = Desc::decode(&desc.encode()).unwrap();
    assert_eq!(desc.len(), CROWD as usize);
    let mut merged = Desc::new();
    merge(&mut merged, &desc, false, NOW);
    assert_eq!(merge(&mut merged, &desc, true, NOW).change, None);
    for options in [zone_aware(), RingOptions::default()] {
        let snapshot = Snapshot::first_sight(&merged, NOW, &options);
        assert_eq!(snapshot.tokens().len(), CROWD as usize);
        for key in [0, 1 << 20, 1 << 31, u32::MAX] {
            let found = answers::get(&snapshot, key, Operation::WRITE, NOW).unwrap();
            assert_eq!((found.0.len(), found.1), (3, 1), "{key}");
        }
        let set = answers::replication_set(&snapshot, Operation::READ, NOW).unwrap();
        assert_eq!(set.0.len(), CROWD as usize);
    }
}

/// PENDING is read and makes room for one more: such a read takes everybody, once, without looking for each among all.
#[test]
fn a_hundred_thousand_replicas_of_one_key_are_found() {
    let pending = |number: u32| InstanceDesc {
        tokens: vec![number].into(),
        state: State::Pending,
        ..InstanceDesc::default()
    };
    let desc = crowd(CROWD, pending);
    for options in [zone_aware(), RingOptions::default()] {
        let snapshot = Snapshot::first_sight(&desc, NOW, &options);
        let set = answers::get(&snapshot, 5, Operation::READ, NOW).unwrap();
        assert_eq!((set.0.len(), set.1), (CROWD as usize, CROWD as usize / 2 - 1));
        let error = snapshot.get(5, Operation::WRITE, NOW).unwrap_err();
        assert!(error.to_string().contains("required") && error.to_string().contains("99999:1"));
    }
}

#[test]
fn tokens_that_everybody_claims_belong_to_the_greatest_id_in_a_snapshot_and_the_smallest_in_a_merge() {
    const MANY: u32 = 20_000;
    let desc =
        crowd(MANY, |_| InstanceDesc { tokens: vec![u32::MAX, 7, 0, 7].into(), ..InstanceDesc::default() });
    let snapshot = Snapshot::first_sight(&desc, NOW, &RingOptions::default());
    assert_eq!(snapshot.tokens().len(), 4 * MANY as usize);
    assert_eq!(snapshot.duplicate_tokens(), 4 * MANY as usize - 3);
    let one = RingOptions { replication_factor: 1, ..RingOptions::default() };
    let found = answers::get(&Snapshot::first_sight(&desc, NOW, &one), 3, Operation::WRITE, NOW).unwrap();
    assert_eq!(found.0, [format!("i{:06}", MANY - 1)]);
    let error = snapshot.get(3, Operation::WRITE, NOW).unwrap_err().to_string();
    assert_eq!(error, "at least 2 live replicas required, could only find 1");

    let mut merged = Desc::new();
    let change = merge(&mut merged, &desc, false, NOW).change.unwrap();
    assert_eq!(change, merged);
    assert_eq!(merged.all_tokens(), [0, 7, u32::MAX]);
    assert_eq!(merged.get("i000000").unwrap().tokens.len(), 3);
}

#[test]
fn a_list_of_very_many_unsorted_tokens_is_one_list() {
    let tokens: Tokens = (0..100_000u32).map(|n| n.wrapping_mul(2_654_435_761).wrapping_add(n % 3)).collect();
    let entry = InstanceDesc { tokens, timestamp: NOW, ..InstanceDesc::default() };
    let desc: Desc = [("a", entry.clone()), ("b", entry)].into_iter().collect();
    let desc = Desc::decode(&desc.encode()).unwrap();
    let snapshot = Snapshot::first_sight(&desc, NOW, &RingOptions::default());
    assert!(snapshot.tokens().is_sorted() && snapshot.tokens().len() == 200_000);
    let mut merged = Desc::new();
    merge(&mut merged, &desc, false, NOW);
    assert!(merged.get("a").unwrap().tokens.is_sorted_by(|a, b| a < b));
    assert!(merged.get("b").unwrap().tokens.is_empty());
}

proptest! {
    #[test]
    fn any_ring_is_answered_as_cortex_would(
        desc in nasty::ring(14), options in nasty::options(), keys in prop::collection::vec(nasty::token(), 1..4),
        now in prop_oneof![6 => Just(NOW), 1 => prop::sample::select(TIMES.to_vec())],
    ) {
        ask(&desc, now, &options, &keys).map_err(TestCaseError::fail)?;
    }

    #[test]
    fn any_rings_are_merged_to_one_that_a_second_merge_leaves_alone(
        a in nasty::ring(10), b in nasty::ring(10), local_cas: bool,
        now in prop_oneof![6 => Just(NOW), 1 => prop::sample::select(TIMES.to_vec())],
    ) {
        let mut local = Desc::new();
        merge(&mut local, &a, false, now);
        let before = local.clone();
        let merged = merge(&mut local, &b, local_cas, now);
        for rejected in &merged.rejected {
            prop_assert!(rejected.timestamp > now.saturating_add(MAX_CLOCK_SKEW_SECS));
            prop_assert_eq!(local.get(&rejected.id).map(|entry| entry.timestamp), before.get(&rejected.id).map(|entry| entry.timestamp));
        }
        for (id, entry) in merged.change.iter().flatten() {
            prop_assert_eq!(local.get(id), Some(entry));
            prop_assert!(entry.tokens.is_normal());
            prop_assert!(entry.state != State::Left || entry.tokens.is_empty());
        }
        let again = merge(&mut local.clone(), &b, local_cas, now);
        prop_assert_eq!(again.change, None);
        prop_assert_eq!(again.rejected, merged.rejected);
    }

    #[test]
    fn any_ring_survives_its_encoding(desc in nasty::ring(14)) {
        prop_assert_eq!(Desc::decode(&desc.encode()).unwrap(), desc);
    }
}
