//! What several tests need: series to push, and a head's contents to compare.

use std::collections::BTreeMap;

use prost::Message as _;
use ringkit_proto::cortexpb::{LabelPair, Sample, TimeSeries};

use crate::head::{Head, Totals};

pub(crate) fn totals() -> Totals {
    Totals::new(metrics::Counter::noop(), metrics::Counter::noop())
}

/// A head that keeps everything.
pub(crate) fn head() -> Head {
    Head::new(i64::MAX, totals())
}

pub(crate) fn encode_series(labels: &[(&str, &str)], samples: &[(i64, f64)]) -> Vec<u8> {
    let label = |(name, value): &(&str, &str)| LabelPair {
        name: (*name).to_owned().into(),
        value: (*value).to_owned().into(),
    };
    let sample = |(timestamp_ms, value): &(i64, f64)| Sample { value: *value, timestamp_ms: *timestamp_ms };
    let series = TimeSeries {
        labels: labels.iter().map(label).collect(),
        samples: samples.iter().map(sample).collect(),
        ..TimeSeries::default()
    };
    series.encode_to_vec()
}

/// All samples of a head, by tenant and labels. Values as bits.
pub(crate) fn contents(head: &Head) -> BTreeMap<(String, String), Vec<(i64, u64)>> {
    let mut found = BTreeMap::new();
    for tenant in head.tenants() {
        for shard in tenant.shards() {
            let shard = shard.read();
            for (_, series) in shard.iter() {
                let labels: Vec<String> =
                    shard.labels_of(series).map(|(name, value)| format!("{name}={value:?}")).collect();
                let mut samples = Vec::new();
                for chunk in series.chunks(i64::MIN, i64::MAX) {
                    let read = ringkit_tsdb::xor::iter(&chunk.data).map(Result::unwrap);
                    samples.extend(read.map(|(time, value)| (time, value.to_bits())));
                }
                assert!(samples.is_sorted_by(|a, b| a.0 < b.0), "samples out of order");
                let twice =
                    found.insert((tenant.id.to_string(), format!("{{{}}}", labels.join(", "))), samples);
                assert!(twice.is_none(), "one label set, two series");
            }
        }
    }
    found
}

/// The samples of one series.
pub(crate) fn samples(head: &Head, tenant: &str, series: &str) -> Vec<(i64, f64)> {
    let all = contents(head);
    let samples = all.get(&(tenant.to_owned(), series.to_owned())).cloned().unwrap_or_default();
    samples.into_iter().map(|(time, bits)| (time, f64::from_bits(bits))).collect()
}
