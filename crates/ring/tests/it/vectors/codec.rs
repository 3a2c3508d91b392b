use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use ringkit_kv::{Codec, Value as _};
use ringkit_ring::{Desc, InstanceDesc, RingCodec, decode_single, encode_single};
use serde_json::Value;

use crate::support::{list, ring, text, vectors};

fn bytes(value: &Value) -> Vec<u8> {
    BASE64_STANDARD.decode(value.as_str().unwrap()).unwrap()
}

/// What Cortex's own fields hold; it knows no others.
fn as_cortex_sees(desc: &Desc) -> Desc {
    desc.iter()
        .map(|(id, entry)| {
            let InstanceDesc { addr, timestamp, state, tokens, zone, registered_timestamp, .. } =
                (**entry).clone();
            let seen = InstanceDesc {
                addr,
                timestamp,
                state,
                tokens,
                zone,
                registered_timestamp,
                ..Default::default()
            };
            (id.clone(), seen)
        })
        .collect()
}

#[test]
fn stored_rings_decode_to_what_cortex_decodes() {
    let file = vectors("desc_codec");
    assert_eq!(text(&file, "codec_id"), RingCodec.id());
    assert_eq!(list(&file, "cases").len(), 27);
    for case in list(&file, "cases") {
        let (name, stored) = (text(case, "name"), bytes(&case["snappy_base64"]));
        let decoded = Desc::decode(&stored);
        if !text(case, "decode_error").is_empty() {
            assert!(decoded.is_err(), "{name}");
            let split = RingCodec.split(&stored);
            let entry_fails = split
                .is_ok_and(|entries| entries.iter().any(|(id, e)| RingCodec.check_entry(id, e).is_err()));
            assert!(entry_fails || RingCodec.split(&stored).is_err(), "{name}: by entries");
            continue;
        }
        let decoded = decoded.unwrap();
        assert_eq!(as_cortex_sees(&decoded), ring(list(case, "decoded")), "{name}");
        let by_entries = RingCodec.split(&stored).unwrap();
        let by_entries =
            by_entries.iter().map(|(id, entry)| (id.clone(), Desc::decode_entry(id, entry).unwrap()));
        assert_eq!(by_entries.collect::<Desc>(), decoded, "{name}: by entries");
        assert_eq!(Desc::decode(&decoded.encode()).unwrap(), decoded, "{name}: again");
    }
}

#[test]
fn rings_encode_to_the_bytes_that_cortex_writes() {
    let file = vectors("desc_codec");
    let deterministic = |case: &&Value| case["encoder_output_is_deterministic"] == true;
    for case in list(&file, "cases").iter().filter(deterministic) {
        let stored = Desc::decode(&bytes(&case["snappy_base64"])).unwrap().encode();
        let proto = snap::raw::Decoder::new().decompress_vec(&stored).unwrap();
        assert_eq!(proto, bytes(&case["proto_base64"]), "{}", text(case, "name"));
    }
    assert_eq!(Desc::new().encode(), [0].as_slice(), "the empty ring is one byte");
}

#[test]
fn rows_of_a_store_with_one_row_per_instance_are_read_and_written() {
    let file = vectors("desc_codec");
    let rows = file["multikey"].as_object().unwrap();
    let decoded: Desc = rows.iter().map(|(id, row)| (id, decode_single(id, &bytes(row)).unwrap())).collect();
    assert_eq!(decoded, ring(list(&file, "multikey_decoded")));
    for (id, row) in rows {
        let entry = decode_single(id, &bytes(row)).unwrap();
        assert_eq!(decode_single(id, &encode_single(&entry)).unwrap(), entry);
    }
}

#[test]
fn fields_of_the_other_dialect_and_unknown_ones_survive_a_rewrite() {
    let file = vectors("desc_codec");
    for name in ["dskit-fields-9-to-12-ignored", "unknown-field-99-fixed64-ignored"] {
        let case = list(&file, "cases").iter().find(|case| text(case, "name") == name).unwrap();
        let proto = bytes(&case["proto_base64"]);
        let stored = Desc::decode(&bytes(&case["snappy_base64"])).unwrap().encode();
        assert_eq!(snap::raw::Decoder::new().decompress_vec(&stored).unwrap(), proto, "{name}");
    }
}

#[test]
fn the_id_within_an_entry_never_overrules_the_key() {
    let with_id = Desc::decode_entry("x", &[0x4a, 1, b'y']).unwrap();
    assert_eq!(with_id.id, "x");
    let without_id = Desc::decode_entry("x", &[]).unwrap();
    assert_eq!(without_id.id, "", "and is not written where it was not");
}

#[test]
fn a_value_that_claims_to_unpack_to_more_than_it_can_is_refused_before_it_does() {
    for (claim, stored) in
        [("4294967295", &[0xff, 0xff, 0xff, 0xff, 0x0f, 0][..]), ("1048576", &[0x80, 0x80, 0x40, 0])]
    {
        let error = Desc::decode(stored).unwrap_err();
        assert!(error.to_string().contains(&format!("claim to unpack to {claim},")), "{error}");
    }
    // The most that a block can be packed: a megabyte of fields that nobody knows, by copies of 64 bytes each.
    let stored = snap::raw::Encoder::new().compress_vec(&[0x78; 1 << 20]).unwrap();
    assert_eq!(Desc::decode(&stored), Ok(Desc::new()));
}

#[test]
fn hostile_entries_are_refused() {
    let hostile: [(&str, &[u8]); 10] = [
        ("wrong wire type of state", &[0x1a, 0]),
        ("wrong wire type of tokens", &[0x35, 0, 0, 0, 0]),
        ("wrong wire type of read_only", &[0x5a, 0]),
        ("field number 0", &[0x02, 0]),
        ("field number that wraps below 0", &[0xfa, 0xff, 0xff, 0xff, 0x7f, 0]),
        ("wire type 7", &[0x6f]),
        ("end of a group that did not begin", &[0x6c]),
        ("group without an end", &[0x6b, 0x08, 1]),
        ("varint of 11 bytes", &[0x10, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 1]),
        ("packed token cut off", &[0x32, 1, 0x80]),
    ];
    for (name, bytes) in hostile {
        assert!(Desc::decode_entry("x", bytes).is_err(), "{name}");
    }
    assert!(Desc::decode_entry("x", &[0x0a, 1, 0xff]).is_err(), "address that is not UTF-8");
}

#[test]
fn balanced_groups_are_kept_as_unknown() {
    let group = [0x6b, 0x73, 0x10, 1, 0x74, 0x6c];
    let entry = Desc::decode_entry("x", &group).unwrap();
    assert_eq!(entry.unknown.as_ref(), group);
    assert_eq!(Desc::encode_entry(&entry).as_ref(), group);
}

#[test]
fn a_heartbeat_shares_the_tokens_of_the_entry_before() {
    let before = InstanceDesc { timestamp: 1, tokens: vec![5, 300, u32::MAX].into(), ..Default::default() };
    let after = Desc::encode_entry(&InstanceDesc { timestamp: 2, ..before.clone() });
    let decoded = Desc::decode_next("x", &after, &before).unwrap();
    assert_eq!(decoded.timestamp, 2);
    assert!(decoded.tokens.ptr_eq(&before.tokens));
    for tokens in [vec![5, 300], vec![5, 300, 7], vec![5, 300, u32::MAX, 1], vec![]] {
        let changed = InstanceDesc { tokens: tokens.clone().into(), ..before.clone() };
        let decoded = Desc::decode_next("x", &Desc::encode_entry(&changed), &before).unwrap();
        assert_eq!(decoded.tokens.as_slice(), tokens);
    }
}
