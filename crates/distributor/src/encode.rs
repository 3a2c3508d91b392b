//! Series as protobuf, written by hand for one reason: the usual encoders leave out fields with the value zero and take
//! `-0.0` for it, so that the sign gets lost. What we store and answer is what we were sent, bit by bit.
//!
//! `cortexpb.TimeSeries` and Prometheus' own `TimeSeries` have the same field numbers, so one form serves both.

use prost::encoding::{encode_varint, encoded_len_varint};

/// A label: name and value.
type Pair<'a> = (&'a [u8], &'a [u8]);

/// The key of field 1 with a length behind it, in every message here.
const FIELD_1: u8 = 0x0a;
/// The same of field 2.
const FIELD_2: u8 = 0x12;
/// Key of `Sample.value`.
const VALUE: u8 = 0x09;
/// Key of `Sample.timestamp`.
const TIMESTAMP: u8 = 0x10;

/// Bytes that [`put_series`] writes.
pub(crate) fn series_len<'a>(
    labels: impl Iterator<Item = Pair<'a>>,
    samples: impl Iterator<Item = (i64, f64)>,
) -> usize {
    let labels: usize = labels.map(|label| field_len(label_len(label))).sum();
    let samples: usize = samples.map(|(timestamp, _)| field_len(sample_len(timestamp))).sum();
    labels + samples
}

/// Writes a series: its labels, and its samples as (milliseconds, value).
pub(crate) fn put_series<'a>(
    out: &mut Vec<u8>,
    labels: impl Iterator<Item = Pair<'a>>,
    samples: impl Iterator<Item = (i64, f64)>,
) {
    for (name, value) in labels {
        put_header(out, FIELD_1, label_len((name, value)));
        put_header(out, FIELD_1, name.len());
        out.extend_from_slice(name);
        put_header(out, FIELD_2, value.len());
        out.extend_from_slice(value);
    }
    for (timestamp, value) in samples {
        put_header(out, FIELD_2, sample_len(timestamp));
        out.push(VALUE);
        out.extend_from_slice(&value.to_le_bytes());
        out.push(TIMESTAMP);
        encode_varint(timestamp.cast_unsigned(), out);
    }
}

/// Writes the key and length of a first field, whose contents are to follow.
pub(crate) fn put_first_field(out: &mut Vec<u8>, len: usize) {
    put_header(out, FIELD_1, len);
}

/// Bytes of a field with `len` bytes of contents.
pub(crate) fn field_len(len: usize) -> usize {
    1 + encoded_len_varint(len as u64) + len
}

fn label_len((name, value): Pair<'_>) -> usize {
    field_len(name.len()) + field_len(value.len())
}

fn sample_len(timestamp: i64) -> usize {
    1 + size_of::<f64>() + 1 + encoded_len_varint(timestamp.cast_unsigned())
}

fn put_header(out: &mut Vec<u8>, key: u8, len: usize) {
    out.push(key);
    encode_varint(len as u64, out);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use prost::Message as _;
    use ringkit_proto::{cortexpb, remote};

    use super::*;

    proptest! {
        #[test]
        fn both_kinds_of_receivers_read_what_was_written(
            labels in proptest::collection::vec(("[a-zäé]{0,200}", "[a-zäé]{0,5}"), 0..5),
            samples in proptest::collection::vec((any::<i64>(), any::<u64>().prop_map(f64::from_bits)), 0..5),
        ) {
            let pairs = || labels.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes()));
            let mut bytes = Vec::new();
            put_series(&mut bytes, pairs(), samples.iter().copied());
            prop_assert_eq!(bytes.len(), series_len(pairs(), samples.iter().copied()));

            let bits = |samples: Vec<(i64, f64)>| -> Vec<_> {
                samples.into_iter().map(|(timestamp, value)| (timestamp, value.to_bits())).collect()
            };
            let series = cortexpb::TimeSeries::decode(&bytes[..]).unwrap();
            let read = series.samples.iter().map(|sample| (sample.timestamp_ms, sample.value)).collect();
            prop_assert_eq!(bits(read), bits(samples.clone()));
            prop_assert!(series.labels.iter().map(|pair| (&pair.name[..], &pair.value[..])).eq(pairs()));

            let series = remote::TimeSeries::decode(&bytes[..]).unwrap();
            let read = series.samples.iter().map(|sample| (sample.timestamp, sample.value)).collect();
            prop_assert_eq!(bits(read), bits(samples.clone()));
            prop_assert_eq!(series.labels.len(), labels.len());
        }
    }

    #[test]
    fn negative_zero_keeps_its_sign() {
        let mut bytes = Vec::new();
        put_series(&mut bytes, std::iter::empty(), [(0, -0.0)].into_iter());
        let series = cortexpb::TimeSeries::decode(&bytes[..]).unwrap();
        assert_eq!(series.samples[0].value.to_bits(), (-0.0f64).to_bits());
    }
}
