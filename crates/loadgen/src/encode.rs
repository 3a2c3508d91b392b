//! Remote write bodies, written straight into their wire form: the labels of a series never change, so they are encoded once.

use std::ops::Range;

use bytes::Bytes;
use prost::encoding::{encode_varint, encoded_len_varint};

use crate::plan::Plan;
use crate::series;

// Tags of WriteRequest.timeseries, TimeSeries.labels and .samples, LabelPair, Sample (Prometheus remote write 1.0).
const TIMESERIES: u8 = 1 << 3 | 2;
const LABELS: u8 = 1 << 3 | 2;
const SAMPLES: u8 = 2 << 3 | 2;
const NAME: u8 = 1 << 3 | 2;
const VALUE: u8 = 2 << 3 | 2;
const SAMPLE_VALUE: u8 = 1 << 3 | 1;
const SAMPLE_TIMESTAMP: u8 = 2 << 3;

/// The series of one range, labels encoded.
pub(crate) struct EncodedRange {
    plan: Plan,
    series: Range<u32>,
    labels: Vec<u8>,
    /// End of each series' labels.
    ends: Vec<usize>,
}

impl EncodedRange {
    pub(crate) fn new(plan: Plan, series: Range<u32>) -> Self {
        let (mut labels, mut ends) = (Vec::new(), Vec::new());
        for index in series.clone() {
            for (name, value) in series::labels(&plan, index) {
                labels.push(LABELS);
                encode_varint((string_len(name) + string_len(&value)) as u64, &mut labels);
                for (tag, text) in [(NAME, name), (VALUE, value.as_str())] {
                    labels.push(tag);
                    encode_varint(text.len() as u64, &mut labels);
                    labels.extend_from_slice(text.as_bytes());
                }
            }
            ends.push(labels.len());
        }
        labels.shrink_to_fit();
        Self { plan, series, labels, ends }
    }

    /// The body of a request with one sample for each series: snappy block of the protobuf.
    pub(crate) fn body(&self, timestamp_ms: i64) -> Bytes {
        let mut message = Vec::with_capacity(self.labels.len() + self.ends.len() * 32);
        let timestamp = timestamp_ms as u64;
        let sample_len = 1 + 8 + 1 + encoded_len_varint(timestamp);
        let mut start = 0;
        for (index, end) in self.series.clone().zip(&self.ends) {
            let labels = &self.labels[start..*end];
            start = *end;
            message.push(TIMESERIES);
            encode_varint((labels.len() + 2 + sample_len) as u64, &mut message);
            message.extend_from_slice(labels);
            message.extend_from_slice(&[SAMPLES, sample_len as u8, SAMPLE_VALUE]);
            message.extend_from_slice(&series::value(&self.plan, index, timestamp_ms).to_le_bytes());
            message.push(SAMPLE_TIMESTAMP);
            encode_varint(timestamp, &mut message);
        }
        compress(&message)
    }
}

/// Snappy block format, as remote write and remote read use it.
pub(crate) fn compress(message: &[u8]) -> Bytes {
    let mut out = vec![0; snap::raw::max_compress_len(message.len())];
    // Fails only for messages of 4 GiB and more, or a buffer shorter than it asked for.
    let len = snap::raw::Encoder::new().compress(message, &mut out).unwrap_or(0);
    out.truncate(len);
    out.into()
}

fn string_len(text: &str) -> usize {
    1 + encoded_len_varint(text.len() as u64) + text.len()
}
