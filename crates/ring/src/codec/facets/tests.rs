use proptest::collection::{btree_map, vec};
use proptest::prelude::*;

use super::*;
use crate::desc::{InstanceDesc, State};

/// Any entry that can be stored, with fields of both dialects and unknown ones.
fn any_entry() -> impl Strategy<Value = InstanceDesc> {
    let unknown = vec((13u32..3000, any::<u64>()), 0..3).prop_map(|fields| {
        let mut out = Vec::new();
        for (number, value) in fields {
            put_varint(&mut out, u64::from(number) << 3);
            put_varint(&mut out, value);
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

fn entry() -> InstanceDesc {
    InstanceDesc {
        addr: "10.0.0.1:9095".into(),
        timestamp: 1_700_000_000,
        state: State::Joining,
        tokens: vec![7, 1 << 20, u32::MAX].into(),
        zone: "a".into(),
        registered_timestamp: 1_600_000_000,
        ..InstanceDesc::default()
    }
}

fn facets_of(entry: &InstanceDesc) -> Facets {
    take_apart("here", &encode_entry(entry))
}

proptest! {
    #[test]
    fn parts_make_the_entry_that_they_were_taken_from(entry in any_entry()) {
        let bytes = encode_entry(&entry);
        prop_assert_eq!(unite(&take_apart("here", &bytes)), Ok(Some(bytes)));
    }

    #[test]
    fn an_entry_of_any_writer_comes_back_as_we_would_write_it(entry in any_entry(), seed in any::<prop::sample::Index>()) {
        // In another order of fields, of which some are there twice, and with one of long ago.
        let written = encode_entry(&entry);
        let mut foreign = vec![4 << 3, 1];
        foreign.extend_from_slice(&written);
        let mut fields = Vec::new();
        let mut reader = Reader::new(&written);
        while !reader.is_empty() {
            let start = reader.position();
            let (number, wire_type) = reader.tag().unwrap();
            reader.skip(wire_type).unwrap();
            if KNOWN.contains(&number) && number != TOKENS {
                fields.push(start..reader.position());
            }
        }
        if !fields.is_empty() {
            foreign.extend_from_slice(&written[seed.get(&fields).clone()]);
        }
        let decoded = decode_entry("here", &foreign, None).unwrap();
        prop_assert_eq!(&decoded, &entry);
        prop_assert_eq!(unite(&take_apart("here", &foreign.into())), Ok(Some(encode_entry(&decoded))));
    }

    #[test]
    fn bytes_that_are_no_entry_come_back_as_they_were(bytes in vec(any::<u8>(), 0..40)) {
        let bytes = Bytes::from(bytes);
        let expected = match decode_entry("here", &bytes, None) {
            Ok(entry) => encode_entry(&entry),
            Err(_) => bytes.clone(),
        };
        prop_assert_eq!(unite(&take_apart("here", &bytes)), Ok(Some(expected)));
    }

    #[test]
    fn no_parts_make_the_reader_panic(facets in vec(prop::option::of(vec(0..20u8, 0..30)), 3)) {
        let mut parts = facets.into_iter().map(|facet| facet.map(Bytes::from));
        let _ = unite(&std::array::from_fn(|_| parts.next().flatten()));
    }
}

#[test]
fn a_heartbeat_changes_the_third_part_and_a_state_the_first() {
    let before = facets_of(&entry());
    let beat = facets_of(&InstanceDesc { timestamp: 1_700_000_005, ..entry() });
    assert_eq!(before[..2], beat[..2]);
    assert!(before[2] != beat[2] && beat[2].as_ref().is_some_and(|facet| facet.len() <= 5));
    let active = facets_of(&InstanceDesc { state: State::Active, ..entry() });
    assert_eq!(before[1..], active[1..]);
    assert_ne!(before[0], active[0]);
    let other = facets_of(&InstanceDesc { tokens: vec![8].into(), ..entry() });
    assert_eq!(before[2], other[2]);
    assert!(before[0] != other[0] && before[1] != other[1], "the first says which tokens belong to it");
}

#[test]
fn what_does_not_belong_together_is_no_entry() {
    let before = facets_of(&entry());
    let after = facets_of(&InstanceDesc { tokens: vec![8].into(), ..entry() });
    for (first, tokens) in [(&before, &after), (&after, &before)] {
        let mixed = [first[0].clone(), tokens[1].clone(), first[2].clone()];
        assert_eq!(unite(&mixed), Ok(None));
    }
    for missing in 0..3 {
        let mut some = before.clone();
        some[missing] = None;
        assert_eq!(unite(&some), Ok(None), "without part {missing}");
    }
    assert_eq!(unite(&[None, None, None]), Ok(None));
}

#[test]
fn an_entry_without_tokens_and_timestamp_has_three_parts_too() {
    let bare = InstanceDesc { tokens: vec![].into(), timestamp: 0, ..entry() };
    let facets = facets_of(&bare);
    assert!(facets.iter().all(Option::is_some));
    assert_eq!(unite(&facets), Ok(Some(encode_entry(&bare))));
}

#[test]
fn parts_that_nobody_made_are_refused() {
    let [first, tokens, timestamp] = facets_of(&entry());
    let hash = xxh3_64(tokens.as_deref().unwrap()).to_le_bytes();
    let whole = [&[PARTED][..], &hash, &encode_entry(&entry())].concat();
    let long = [timestamp.as_deref().unwrap(), &[0]].concat();
    let backwards = [&[PARTED; 9][..], &[3 << 3, 1, 1 << 3 | 2, 0]].concat();
    for facets in [
        [Some(Bytes::new()), tokens.clone(), timestamp.clone()],
        [Some(Bytes::from_static(&[2, 0])), tokens.clone(), timestamp.clone()],
        [Some(Bytes::from_static(&[PARTED, 0])), tokens.clone(), timestamp.clone()],
        [Some(whole.into()), tokens.clone(), timestamp.clone()],
        [Some(backwards.into()), tokens.clone(), timestamp],
        [first, tokens, Some(long.into())],
    ] {
        assert!(unite(&facets).is_err(), "{facets:?}");
    }
}
