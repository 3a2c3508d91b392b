use proptest::prelude::*;

use super::*;

/// A record that owns its contents, for comparing. Values as bits.
#[derive(Clone, Debug, PartialEq)]
enum Owned {
    Series(u64, String, Vec<(Vec<u8>, Vec<u8>)>),
    Samples(Vec<(u64, i64, u64)>),
    TenantRemoved(String),
    Chunk(u64, Vec<u8>),
}

impl Owned {
    fn put(&self, out: &mut Vec<u8>) {
        match self {
            Self::Series(id, tenant, labels) => {
                put_series(out, *id, tenant, labels.iter().map(|(name, value)| (&name[..], &value[..])))
            }
            Self::Samples(samples) => {
                put_samples(out, samples.iter().map(|&(id, time, value)| (id, time, f64::from_bits(value))))
            }
            Self::TenantRemoved(tenant) => put_tenant_removed(out, tenant),
            Self::Chunk(id, data) => put_chunk(out, *id, data),
        }
        .unwrap();
    }

    fn of(record: Record<'_>) -> Self {
        match record {
            Record::Series { id, tenant, labels } => Self::Series(
                id,
                tenant.to_owned(),
                labels.map(|(name, value)| (name.to_vec(), value.to_vec())).collect(),
            ),
            Record::Samples(samples) => {
                Self::Samples(samples.map(|(id, time, value)| (id, time, value.to_bits())).collect())
            }
            Record::TenantRemoved { tenant } => Self::TenantRemoved(tenant.to_owned()),
            Record::Chunk { id, data } => Self::Chunk(id, data.to_vec()),
        }
    }
}

fn record() -> impl Strategy<Value = Owned> {
    let bytes = || prop::collection::vec(any::<u8>(), 0..20);
    prop_oneof![
        (any::<u64>(), "[a-zé]{0,10}", prop::collection::vec((bytes(), bytes()), 0..6))
            .prop_map(|(id, tenant, labels)| Owned::Series(id, tenant, labels)),
        prop::collection::vec(any::<(u64, i64, u64)>(), 0..20).prop_map(Owned::Samples),
        "[a-zé]{0,10}".prop_map(Owned::TenantRemoved),
        (any::<u64>(), bytes()).prop_map(|(id, data)| Owned::Chunk(id, data)),
    ]
}

/// A log and where each record begins, with the end as the last.
fn log_of(records: &[Owned]) -> (Vec<u8>, Vec<usize>) {
    let mut out = Vec::new();
    let mut offsets = vec![0];
    for record in records {
        record.put(&mut out);
        offsets.push(out.len());
    }
    (out, offsets)
}

/// The whole records and the error behind them.
fn read(bytes: &[u8]) -> (Vec<Owned>, Option<Error>) {
    let mut records = Vec::new();
    for record in Reader::new(bytes) {
        match record {
            Ok(record) => records.push(Owned::of(record)),
            Err(error) => return (records, Some(error)),
        }
    }
    (records, None)
}

#[test]
fn the_bytes_of_a_record_are_as_documented() {
    let mut out = Vec::new();
    put_series(&mut out, 300, "t1", [(&b"job"[..], &b"a"[..])].into_iter()).unwrap();
    let content = b"\x01\xac\x02\x02t1\x01\x03job\x01a";
    assert_eq!(out[..4], 13_u32.to_le_bytes());
    assert_eq!(out[4..8], crc32c::crc32c(content).to_le_bytes());
    assert_eq!(&out[8..], content);

    out.clear();
    put_samples(&mut out, [(1, -1, 1.0), (1, 1, 0.0)].into_iter()).unwrap();
    assert_eq!(&out[8..], b"\x02\x02\x02\x01\0\0\0\0\0\0\xf0\x3f\0\x04\0\0\0\0\0\0\0\0");
}

#[test]
fn the_checksum_is_crc32c() {
    assert_eq!(crc32c::crc32c(b"123456789"), 0xe306_9283);
}

#[test]
fn zeros_at_the_end_are_a_torn_tail_but_not_in_the_middle() {
    let (mut bytes, offsets) = log_of(&[Owned::TenantRemoved("a".into())]);
    bytes.extend([0; 100]);
    assert_eq!(read(&bytes).1, Some(Error::Torn { offset: offsets[1] }));
    bytes.push(1);
    let corrupt = Error::Corrupt { offset: offsets[1], reason: Damage::Length };
    assert_eq!(read(&bytes), (vec![Owned::TenantRemoved("a".into())], Some(corrupt)));
}

#[test]
fn a_record_of_a_newer_version_is_neither_torn_nor_corrupt() {
    let (mut bytes, offsets) = log_of(&[Owned::TenantRemoved("a".into())]);
    put_frame(&mut bytes, 200, |out| out.push(1)).unwrap();
    assert_eq!(read(&bytes).1, Some(Error::Unsupported { offset: offsets[1], kind: 200 }));
}

#[test]
fn a_count_that_lies_under_a_right_checksum_is_corrupt() {
    for (kind, payload) in [
        (record::SERIES, &b"\x01\x01t\xff\xff\xff\xff\x0f"[..]),
        (record::SERIES, b"\x01\x01t\x01\x01a"),
        (record::SERIES, b"\x01\x01\xff\x00"),
        (record::SAMPLES, b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"),
        (record::SAMPLES, b"\x00rest"),
        (record::TENANT_REMOVED, b"\x01"),
        (record::CHUNK, b""),
    ] {
        let mut bytes = Vec::new();
        put_frame(&mut bytes, kind, |out| out.extend_from_slice(payload)).unwrap();
        assert_eq!(
            read(&bytes).1,
            Some(Error::Corrupt { offset: 0, reason: Damage::Payload }),
            "{payload:?}"
        );
    }
}

#[test]
fn an_oversized_record_is_refused_and_leaves_the_buffer_alone() {
    let mut out = b"before".to_vec();
    let error = put_chunk(&mut out, 0, &vec![0; MAX_CONTENT_BYTES]).unwrap_err();
    assert_eq!(error, TooLarge { bytes: MAX_CONTENT_BYTES + 2 });
    assert_eq!(out, b"before");
    let len = u32::try_from(MAX_CONTENT_BYTES + 1).unwrap().to_le_bytes();
    let claim = [&len[..], &[0; 20]].concat();
    assert_eq!(read(&claim).1, Some(Error::Corrupt { offset: 0, reason: Damage::Length }));
}

proptest! {
    #[test]
    fn records_come_back_as_they_went_in(records in prop::collection::vec(record(), 0..8)) {
        let (bytes, _) = log_of(&records);
        prop_assert_eq!(read(&bytes), (records, None));
    }

    #[test]
    fn a_shortened_log_is_torn_behind_the_last_whole_record(
        records in prop::collection::vec(record(), 1..8),
        cut in any::<prop::sample::Index>(),
    ) {
        let (bytes, offsets) = log_of(&records);
        let cut = cut.index(bytes.len());
        let whole = offsets.iter().filter(|offset| **offset <= cut).count() - 1;
        let error = (offsets[whole] != cut).then_some(Error::Torn { offset: offsets[whole] });
        prop_assert_eq!(read(&bytes[..cut]), (records[..whole].to_vec(), error));
    }

    #[test]
    fn a_flipped_bit_is_found_in_the_record_it_hit(
        records in prop::collection::vec(record(), 1..8),
        hit in any::<prop::sample::Index>(),
        bit in 0..8_u32,
    ) {
        let (mut bytes, offsets) = log_of(&records);
        let hit = hit.index(bytes.len());
        bytes[hit] ^= 1 << bit;
        let whole = offsets.iter().filter(|offset| **offset <= hit).count() - 1;
        let (read, error) = read(&bytes);
        prop_assert_eq!(read, &records[..whole]);
        prop_assert_eq!(error.unwrap().offset(), offsets[whole]);
    }

    #[test]
    fn a_reader_that_fills_its_buffer_on_demand_sees_the_same_records(
        records in prop::collection::vec(record(), 0..8),
    ) {
        let (bytes, _) = log_of(&records);
        let (mut start, mut end, mut seen) = (0, 0, Vec::new());
        while start < bytes.len() {
            match decode(&bytes[start..end]) {
                Decoded::Record(record, len) => {
                    seen.push(Owned::of(record));
                    start += len;
                }
                Decoded::Incomplete(needed) => {
                    prop_assert!(start + needed > end);
                    end = start + needed;
                }
                other => prop_assert!(false, "{:?}", other),
            }
        }
        prop_assert_eq!(seen, records);
    }

    #[test]
    fn arbitrary_bytes_are_read_to_an_end(
        bytes in prop::collection::vec(any::<u8>(), 0..300),
        kind in 0..6_u8,
    ) {
        let mut reader = Reader::new(&bytes);
        for _ in reader.by_ref() {}
        prop_assert!(reader.offset() <= bytes.len());
        let mut framed = Vec::new();
        put_frame(&mut framed, kind, |out| out.extend_from_slice(&bytes)).unwrap();
        read(&framed);
    }
}
