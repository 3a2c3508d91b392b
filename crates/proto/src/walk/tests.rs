use proptest::prelude::*;
use prost::Message as _;

use super::*;
use crate::cortexpb::{Exemplar, LabelPair, Sample, TimeSeries, WriteRequest};

fn pair(name: impl Into<Vec<u8>>, value: impl Into<Vec<u8>>) -> LabelPair {
    LabelPair { name: name.into().into(), value: value.into().into() }
}

/// Labels, and samples with values as bits.
type Contents = (Vec<(Vec<u8>, Vec<u8>)>, Vec<(i64, u64)>);

/// What a view shows.
fn contents(view: &SeriesView<'_>) -> Contents {
    let labels = view.labels().map(|(name, value)| (name.to_vec(), value.to_vec())).collect();
    (labels, view.samples().map(|(at, value)| (at, value.to_bits())).collect())
}

/// What prost shows.
fn expected(series: &TimeSeries) -> Contents {
    let labels = series.labels.iter().map(|pair| (pair.name.to_vec(), pair.value.to_vec())).collect();
    (labels, series.samples.iter().map(|sample| (sample.timestamp_ms, sample.value.to_bits())).collect())
}

fn series() -> impl Strategy<Value = TimeSeries> {
    let bytes = || prop::collection::vec(any::<u8>(), 0..12);
    let label = move || (bytes(), bytes()).prop_map(|(name, value)| pair(name, value));
    let sample = any::<(u64, i64)>()
        .prop_map(|(bits, timestamp_ms)| Sample { value: f64::from_bits(bits), timestamp_ms });
    let exemplar = (prop::collection::vec(label(), 0..3), any::<(u64, i64)>()).prop_map(
        |(labels, (bits, timestamp_ms))| Exemplar { labels, value: f64::from_bits(bits), timestamp_ms },
    );
    (
        prop::collection::vec(label(), 0..5),
        prop::collection::vec(sample, 0..5),
        prop::collection::vec(exemplar, 0..3),
        prop::collection::vec(bytes(), 0..2),
    )
        .prop_map(|(labels, samples, exemplars, histograms)| TimeSeries {
            labels,
            samples,
            exemplars,
            histograms: histograms.into_iter().map(Into::into).collect(),
        })
}

#[test]
fn a_series_is_read_in_place() {
    let series = TimeSeries {
        labels: vec![pair("__name__", "up"), pair("job", "a")],
        samples: vec![Sample { value: 1.5, timestamp_ms: -7 }, Sample { value: 0.0, timestamp_ms: 0 }],
        ..Default::default()
    };
    let bytes = series.encode_to_vec();
    let view = SeriesView::parse(&bytes).unwrap();
    assert_eq!(view.labels().collect::<Vec<_>>(), [(&b"__name__"[..], &b"up"[..]), (b"job", b"a")]);
    assert_eq!(view.samples().collect::<Vec<_>>(), [(-7, 1.5), (0, 0.0)]);
    assert_eq!((view.num_labels(), view.num_samples()), (2, 2));
    assert!(view.is_plain());
    let labels = TimeSeries { labels: series.labels, ..Default::default() }.encode_to_vec();
    assert_eq!(view.label_bytes(), Some(&labels[..]));
}

#[test]
fn an_empty_series_is_plain() {
    let view = SeriesView::parse(b"").unwrap();
    assert!(view.is_plain());
    assert_eq!(view.label_bytes(), Some(&b""[..]));
}

#[test]
fn whatever_is_not_known_in_its_place_is_not_plain() {
    for (what, bytes) in [
        ("unknown field", &b"\x28\x01"[..]),
        ("unknown field of 32 bits", b"\x2d\x01\x02\x03\x04"),
        ("histogram", b"\x22\x00"),
        ("unknown field of a label", b"\x0a\x02\x18\x01"),
        ("name twice", b"\x0a\x06\x0a\x01a\x0a\x01b"),
        ("value of a sample twice", b"\x12\x12\x09\0\0\0\0\0\0\0\0\x09\0\0\0\0\0\0\0\0"),
        ("unknown field of a sample", b"\x12\x02\x18\x01"),
        ("unknown field of a label of an exemplar", b"\x1a\x04\x0a\x02\x18\x01"),
    ] {
        assert!(!SeriesView::parse(bytes).unwrap().is_plain(), "{what}");
        assert!(TimeSeries::decode(bytes).is_ok(), "{what}");
    }
}

#[test]
fn a_repeated_name_counts_by_its_last_occurrence() {
    let view = SeriesView::parse(b"\x0a\x06\x0a\x01a\x0a\x01b").unwrap();
    assert_eq!(view.labels().collect::<Vec<_>>(), [(&b"b"[..], &b""[..])]);
}

#[test]
fn scattered_labels_have_no_bytes_of_their_own_but_are_all_seen() {
    let label =
        |name: &str| TimeSeries { labels: vec![pair(name, "x")], ..Default::default() }.encode_to_vec();
    let sample = b"\x12\x00".to_vec();
    let bytes = [sample.clone(), label("a"), label("b"), sample, label("c")].concat();
    let view = SeriesView::parse(&bytes).unwrap();
    assert_eq!(view.label_bytes(), None);
    assert_eq!((view.labels().count(), view.samples().count()), (3, 2));
    let together = [b"\x12\x00".to_vec(), label("a"), label("b")].concat();
    let labels = [label("a"), label("b")].concat();
    assert_eq!(SeriesView::parse(&together).unwrap().label_bytes(), Some(&labels[..]));
}

#[test]
fn errors_name_what_is_wrong() {
    for (bytes, expected) in [
        (&b"\x0a\x05a"[..], WalkError::Truncated),
        (b"\x12\x09\x09\0\0\0\0\0\0\0", WalkError::Truncated),
        (b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", WalkError::Truncated),
        (b"\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\x02", WalkError::Overlong),
        (b"\x08\x80\x80\x80\x80\x80\x80\x80\x80\x80\x80\x00", WalkError::Overlong),
        (b"\x02\x00", WalkError::Key(2)),
        (b"\x0b\x0c", WalkError::Key(11)),
        (b"\x0f", WalkError::Key(15)),
        (b"\xff\xff\xff\xff\x7f\x00", WalkError::Key(0x7_ffff_ffff)),
        (b"\x08\x01", WalkError::WireType { message: "TimeSeries", field: 1, wire: 0 }),
        (b"\x12\x05\x0d\0\0\0\0", WalkError::WireType { message: "Sample", field: 1, wire: 5 }),
    ] {
        assert_eq!(SeriesView::parse(bytes).map(drop), Err(expected), "{bytes:x?}");
        assert!(TimeSeries::decode(bytes).is_err(), "{bytes:x?}");
    }
}

#[test]
fn a_write_request_hands_out_slices_of_itself() {
    let series = TimeSeries { labels: vec![pair("job", "a")], ..Default::default() };
    let request = WriteRequest { timeseries: vec![series.encode_to_vec().into()], ..Default::default() };
    let bytes = bytes::Bytes::from(request.encode_to_vec());
    let decoded = WriteRequest::decode(bytes.clone()).unwrap();
    assert!(bytes.as_ptr_range().contains(&decoded.timeseries[0].as_ptr()));
}

proptest! {
    #[test]
    fn a_series_looks_as_prost_would_show_it(series in series()) {
        let bytes = series.encode_to_vec();
        let view = SeriesView::parse(&bytes).unwrap();
        prop_assert_eq!(contents(&view), expected(&series));
        prop_assert_eq!(view.num_labels(), series.labels.len());
        prop_assert_eq!(view.num_samples(), series.samples.len());
        prop_assert_eq!(view.num_exemplars(), series.exemplars.len());
        prop_assert_eq!(view.num_histograms(), series.histograms.len());
        prop_assert_eq!(view.is_plain(), series.histograms.is_empty());
        prop_assert!(view.label_bytes().is_some());
    }

    #[test]
    fn a_damaged_series_is_judged_as_prost_does(
        series in series(),
        at in any::<prop::sample::Index>(),
        byte in any::<u8>(),
        cut in any::<bool>(),
    ) {
        let mut bytes = series.encode_to_vec();
        prop_assume!(!bytes.is_empty());
        let at = at.index(bytes.len());
        if cut { bytes.truncate(at) } else { bytes[at] = byte }
        match (SeriesView::parse(&bytes), TimeSeries::decode(&bytes[..])) {
            (Ok(view), decoded) => prop_assert_eq!(contents(&view), expected(&decoded.unwrap())),
            // Groups are the one thing we refuse and prost reads.
            (Err(WalkError::Key(key)), Ok(_)) => prop_assert!(matches!(key & 7, 3 | 4)),
            (Err(error), decoded) => prop_assert!(decoded.is_err(), "{error}"),
        }
    }

    #[test]
    fn arbitrary_bytes_are_judged_as_prost_does(
        bytes in prop::collection::vec(prop_oneof![any::<u8>(), 0..40_u8], 0..60),
    ) {
        match (SeriesView::parse(&bytes), TimeSeries::decode(&bytes[..])) {
            (Ok(view), decoded) => {
                prop_assert_eq!(contents(&view), expected(&decoded.unwrap()));
                prop_assert_eq!(view.labels().count(), view.num_labels());
                prop_assert_eq!(view.samples().count(), view.num_samples());
            }
            (Err(WalkError::Key(key)), Ok(_)) => prop_assert!(matches!(key & 7, 3 | 4)),
            (Err(error), decoded) => prop_assert!(decoded.is_err(), "{error}"),
        }
    }
}
