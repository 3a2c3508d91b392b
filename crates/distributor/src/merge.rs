//! One answer out of many replicas' chunks: the union of their samples, the same whoever answered first. Pure.
//!
//! Equal timestamps collapse. If the values differ, which takes two writers of one series, the larger bit pattern wins.
//! Values are compared by bits throughout, so that a staleness marker stays the NaN it is.

use std::collections::HashMap;

use bytes::Bytes;
use ringkit_proto::client::{Chunk, TimeSeriesChunk};
use ringkit_tsdb::xor;

/// Milliseconds since the epoch, and a value.
pub(crate) type Sample = (i64, f64);

/// Label pairs, sorted by name.
pub(crate) type Labels = Vec<(Bytes, Bytes)>;

/// One series of an answer: samples in ascending, distinct times.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Series {
    pub(crate) labels: Labels,
    pub(crate) samples: Vec<Sample>,
}

impl Series {
    /// The labels as borrowed pairs.
    pub(crate) fn pairs(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.labels.iter().map(|(name, value)| (&name[..], &value[..]))
    }
}

/// A replica sent what we cannot read: the replica's fault or a newer format, never the client's.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("a chunk of an ingester has encoding {0}, of which only 4 (XOR) is supported")]
    Encoding(i32),
    #[error("a chunk of an ingester is corrupt")]
    Corrupt(#[source] xor::Error),
}

/// Collects replicas' answers and merges them.
#[derive(Debug, Default)]
pub(crate) struct Merger {
    series: HashMap<Vec<u8>, (Labels, Vec<Chunk>)>,
}

impl Merger {
    /// Adds one series of one replica.
    pub(crate) fn add(&mut self, part: TimeSeriesChunk) {
        let mut labels: Labels = part.labels.into_iter().map(|pair| (pair.name, pair.value)).collect();
        if !labels.is_sorted() {
            labels.sort();
        }
        let key = key(&labels);
        self.series.entry(key).or_insert_with(|| (labels, Vec::new())).1.extend(part.chunks);
    }

    /// All samples from `start_ms` to `end_ms`, both included; series without one are left out, the rest is sorted by labels.
    ///
    /// # Errors
    ///
    /// [`Error`] when a chunk cannot be decoded: an answer with a hole would be silently less.
    pub(crate) fn finish(self, start_ms: i64, end_ms: i64) -> Result<Vec<Series>, Error> {
        let mut merged = Vec::with_capacity(self.series.len());
        for (labels, chunks) in self.series.into_values() {
            let samples = merge_chunks(chunks, start_ms, end_ms)?;
            if !samples.is_empty() {
                merged.push(Series { labels, samples });
            }
        }
        merged.sort_unstable_by(|a, b| a.labels.cmp(&b.labels));
        Ok(merged)
    }
}

/// The label set as bytes that differ whenever the label sets differ.
fn key(labels: &Labels) -> Vec<u8> {
    let mut key = Vec::with_capacity(labels.iter().map(|(name, value)| name.len() + value.len() + 8).sum());
    for (name, value) in labels {
        for text in [name, value] {
            key.extend_from_slice(&(text.len() as u64).to_le_bytes()[..4]);
            key.extend_from_slice(text);
        }
    }
    key
}

fn merge_chunks(mut chunks: Vec<Chunk>, start_ms: i64, end_ms: i64) -> Result<Vec<Sample>, Error> {
    // Replicas that saw the same samples hold the same bytes: those are decoded once.
    chunks.sort_unstable_by(|a, b| {
        (a.start_timestamp_ms, a.end_timestamp_ms, &a.data).cmp(&(
            b.start_timestamp_ms,
            b.end_timestamp_ms,
            &b.data,
        ))
    });
    chunks.dedup_by(|a, b| a.data == b.data && a.encoding == b.encoding);
    let mut merged = Vec::new();
    let mut run = Vec::new();
    for chunk in &chunks {
        if chunk.encoding != XOR_ENCODING {
            return Err(Error::Encoding(chunk.encoding));
        }
        run.clear();
        for sample in xor::iter(&chunk.data) {
            let (timestamp, value) = sample.map_err(Error::Corrupt)?;
            if (start_ms..=end_ms).contains(&timestamp) {
                run.push((timestamp, value));
            }
        }
        merge_run(&mut merged, &mut run);
    }
    Ok(merged)
}

/// Cortex's number for Prometheus' XOR chunks.
const XOR_ENCODING: i32 = 4;

/// Merges `run` into `merged`, which is sorted and free of duplicates and stays so. Appending costs nothing extra.
pub(crate) fn merge_run(merged: &mut Vec<Sample>, run: &mut Vec<Sample>) {
    if !run.is_sorted_by(|a, b| a.0 < b.0) {
        // No ingester sends this, but the result must not depend on that.
        run.sort_unstable_by_key(|(timestamp, value)| (*timestamp, std::cmp::Reverse(value.to_bits())));
        run.dedup_by_key(|(timestamp, _)| *timestamp);
    }
    let Some(&(first, _)) = run.first() else { return };
    let overlap = merged.partition_point(|(timestamp, _)| *timestamp < first);
    let tail = merged.split_off(overlap);
    let (mut old, mut new) = (tail.iter().copied().peekable(), run.iter().copied().peekable());
    while let (Some(a), Some(b)) = (old.peek().copied(), new.peek().copied()) {
        if a.0 <= b.0 {
            old.next();
        }
        if b.0 <= a.0 {
            new.next();
        }
        merged.push(match a.0.cmp(&b.0) {
            std::cmp::Ordering::Less => a,
            std::cmp::Ordering::Greater => b,
            std::cmp::Ordering::Equal if a.1.to_bits() >= b.1.to_bits() => a,
            std::cmp::Ordering::Equal => b,
        });
    }
    merged.extend(old);
    merged.extend(new);
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;
    use ringkit_proto::cortexpb::LabelPair;

    use super::*;

    const STALE: u64 = 0x7ff0_0000_0000_0002;

    fn bits(samples: &[Sample]) -> Vec<(i64, u64)> {
        samples.iter().map(|(t, v)| (*t, v.to_bits())).collect()
    }

    fn chunk(samples: &[Sample]) -> Chunk {
        let mut appender = xor::XorChunk::new();
        for (timestamp, value) in samples {
            appender.append(*timestamp, *value).unwrap();
        }
        Chunk {
            start_timestamp_ms: samples.first().map_or(0, |s| s.0),
            end_timestamp_ms: samples.last().map_or(0, |s| s.0),
            encoding: XOR_ENCODING,
            data: Bytes::copy_from_slice(appender.bytes()),
        }
    }

    fn part(name: &'static str, chunks: Vec<Chunk>) -> TimeSeriesChunk {
        let label =
            LabelPair { name: Bytes::from_static(b"__name__"), value: Bytes::from_static(name.as_bytes()) };
        TimeSeriesChunk { labels: vec![label], chunks, ..TimeSeriesChunk::default() }
    }

    fn merged(parts: Vec<TimeSeriesChunk>) -> Vec<Series> {
        let mut merger = Merger::default();
        for part in parts {
            merger.add(part);
        }
        merger.finish(i64::MIN, i64::MAX).unwrap()
    }

    #[test]
    fn replicas_fill_each_others_gaps() {
        let series = merged(vec![
            part("up", vec![chunk(&[(1, 1.0), (3, 3.0)])]),
            part("up", vec![chunk(&[(2, 2.0), (3, 3.0)]), chunk(&[(9, 9.0)])]),
        ]);
        assert_eq!(series.len(), 1);
        assert_eq!(series[0].samples, [(1, 1.0), (2, 2.0), (3, 3.0), (9, 9.0)]);
    }

    #[test]
    fn staleness_markers_survive_and_the_larger_bits_win() {
        let stale = f64::from_bits(STALE);
        for parts in [[stale, 1.0], [1.0, stale]] {
            let series = merged(parts.map(|value| part("up", vec![chunk(&[(5, value)])])).to_vec());
            assert_eq!(bits(&series[0].samples), [(5, STALE)]);
        }
    }

    #[test]
    fn series_come_sorted_and_empty_ones_are_left_out() {
        let mut merger = Merger::default();
        merger.add(part("b", vec![chunk(&[(1, 1.0)])]));
        merger.add(part("a", vec![chunk(&[(1, 1.0)])]));
        merger.add(part("c", vec![chunk(&[(100, 1.0)])]));
        let series = merger.finish(0, 10).unwrap();
        let names: Vec<_> = series.iter().map(|s| s.labels[0].1.clone()).collect();
        assert_eq!(names, ["a", "b"]);
    }

    #[test]
    fn an_unreadable_chunk_fails_the_query() {
        let broken = Chunk { data: Bytes::from_static(b"\x00\x05\x01"), encoding: 4, ..Chunk::default() };
        let foreign = Chunk { encoding: 7, ..Chunk::default() };
        for chunk in [broken, foreign] {
            let mut merger = Merger::default();
            merger.add(part("up", vec![chunk]));
            assert!(merger.finish(0, 10).is_err());
        }
    }

    fn samples() -> impl Strategy<Value = Vec<Sample>> {
        let value = prop_oneof![Just(STALE), Just(0), Just((-0.0f64).to_bits()), any::<u64>()];
        proptest::collection::vec((0i64..40, value.prop_map(f64::from_bits)), 0..30)
    }

    /// The definition: the largest bit pattern of each timestamp.
    fn model(runs: &[Vec<Sample>]) -> Vec<(i64, u64)> {
        let mut all: BTreeMap<i64, u64> = BTreeMap::new();
        for (timestamp, value) in runs.iter().flatten() {
            let best = all.entry(*timestamp).or_insert(value.to_bits());
            *best = (*best).max(value.to_bits());
        }
        all.into_iter().collect()
    }

    fn merge_all(runs: &[Vec<Sample>]) -> Vec<(i64, u64)> {
        let mut all = Vec::new();
        for run in runs {
            merge_run(&mut all, &mut run.clone());
        }
        bits(&all)
    }

    proptest! {
        #[test]
        fn merging_is_the_union_in_any_order(runs in proptest::collection::vec(samples(), 0..5)) {
            let expected = model(&runs);
            prop_assert_eq!(merge_all(&runs), expected.clone());
            let reversed: Vec<_> = runs.iter().rev().cloned().collect();
            prop_assert_eq!(merge_all(&reversed), expected);
        }

        #[test]
        fn arbitrary_chunk_bytes_never_panic(data in proptest::collection::vec(any::<u8>(), 0..64)) {
            let mut merger = Merger::default();
            merger.add(part("up", vec![Chunk { data: data.into(), encoding: XOR_ENCODING, ..Chunk::default() }]));
            let _ = merger.finish(i64::MIN, i64::MAX);
        }
    }
}
