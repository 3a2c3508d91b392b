//! Reads: chunks, label names, label values, series.

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;
use ringkit_proto::client::{self, LabelMatchers, MatchType, QueryRequest, QueryStreamResponse};
use ringkit_proto::{ENCODING_PROMETHEUS_XOR, cortexpb};
use ringkit_tsdb::matcher::{Matcher, Op};

use crate::head::{Series, Shard, Slot, Tenant};
use crate::metrics::Metrics;

/// A message of a stream is sent when it has grown to this size.
const MESSAGE_BYTES: usize = 1 << 20;

/// Series copied under one lock.
const SERIES_PER_LOCK: usize = 512;

/// A range of time, both ends inclusive, in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Range {
    pub(crate) from: i64,
    pub(crate) to: i64,
}

/// Compiles matchers.
///
/// # Errors
///
/// The text of the first that is invalid.
pub(crate) fn compile(matchers: &[client::LabelMatcher]) -> Result<Vec<Matcher>, String> {
    let one = |matcher: &client::LabelMatcher| {
        let op = match MatchType::try_from(matcher.r#type) {
            Ok(MatchType::Equal) => Op::Equal,
            Ok(MatchType::NotEqual) => Op::NotEqual,
            Ok(MatchType::RegexMatch) => Op::Regex,
            Ok(MatchType::RegexNoMatch) => Op::NotRegex,
            Err(_) => return Err(format!("unknown matcher type {}", matcher.r#type)),
        };
        Matcher::try_new(op, matcher.name.as_str(), matcher.value.as_str()).map_err(|error| error.to_string())
    };
    matchers.iter().map(one).collect()
}

/// Compiles matchers that may be absent.
///
/// # Errors
///
/// As [`compile`].
pub(crate) fn compile_optional(matchers: Option<&LabelMatchers>) -> Result<Vec<Matcher>, String> {
    matchers.map_or_else(|| Ok(Vec::new()), |set| compile(&set.matchers))
}

/// A query under way: walks the tenant's shards and copies what matches, message by message.
pub(crate) struct Cursor {
    tenant: Option<Arc<Tenant>>,
    matchers: Vec<Matcher>,
    range: Range,
    ingester_id: Arc<str>,
    metrics: Metrics,
    shard: usize,
    /// Series of the current shard that are still to be copied, the next one last; with their hashes, since a slot
    /// may change hands between two locks.
    slots: Option<Vec<(Slot, u64)>>,
    series: u64,
    chunks: u64,
    samples: u64,
}

impl Cursor {
    /// # Errors
    ///
    /// The text about an invalid matcher.
    pub(crate) fn new(
        tenant: Option<Arc<Tenant>>,
        request: &QueryRequest,
        ingester_id: Arc<str>,
        metrics: Metrics,
    ) -> Result<Self, String> {
        let matchers = compile(&request.matchers)?;
        let range = Range { from: request.start_timestamp_ms, to: request.end_timestamp_ms };
        metrics.queries.increment(1);
        Ok(Self {
            tenant,
            matchers,
            range,
            ingester_id,
            metrics,
            shard: 0,
            slots: None,
            series: 0,
            chunks: 0,
            samples: 0,
        })
    }

    /// The next message, or nothing at the end.
    pub(crate) fn next_message(&mut self) -> Option<QueryStreamResponse> {
        let tenant = Arc::clone(self.tenant.as_ref()?);
        let mut message = Vec::new();
        let mut bytes = 0;
        while let Some(lock) = tenant.shards().get(self.shard) {
            let shard = lock.read();
            let slots = self.slots.get_or_insert_with(|| {
                let mut slots = matching(&shard, &self.matchers, self.range);
                slots.reverse();
                slots
            });
            for _ in 0..SERIES_PER_LOCK {
                if bytes >= MESSAGE_BYTES {
                    return Some(QueryStreamResponse { chunkseries: message });
                }
                let Some((slot, hash)) = slots.pop() else {
                    self.slots = None;
                    self.shard += 1;
                    break;
                };
                let Some(series) = shard.get(slot).filter(|series| series.hash == hash) else { continue };
                let chunks: Vec<_> = series.chunks(self.range.from, self.range.to).collect();
                if chunks.is_empty() {
                    continue;
                }
                self.series += 1;
                self.chunks += chunks.len() as u64;
                let samples =
                    chunks.iter().map(|chunk| ringkit_tsdb::xor::iter(&chunk.data).announced() as u64);
                self.samples += samples.sum::<u64>();
                let labels = encode_labels(&shard, series);
                bytes += labels.iter().map(|label| label.name.len() + label.value.len() + 8).sum::<usize>();
                bytes += chunks.iter().map(|chunk| chunk.data.len() + 24).sum::<usize>();
                message.push(client::TimeSeriesChunk {
                    from_ingester_id: self.ingester_id.to_string(),
                    user_id: tenant.id.to_string(),
                    labels,
                    chunks: chunks.into_iter().map(encode_chunk).collect(),
                });
            }
        }
        (!message.is_empty()).then_some(QueryStreamResponse { chunkseries: message })
    }
}

impl Drop for Cursor {
    fn drop(&mut self) {
        self.metrics.queried_series.record(self.series as f64);
        self.metrics.queried_chunks.record(self.chunks as f64);
        self.metrics.queried_samples.record(self.samples as f64);
    }
}

/// The series of a shard that match and have chunks in a range.
fn matching(shard: &Shard, matchers: &[Matcher], range: Range) -> Vec<(Slot, u64)> {
    let slots = shard.select(matchers).into_iter();
    slots
        .filter_map(|slot| {
            let series = shard.get(slot).filter(|series| series.overlaps(range.from, range.to))?;
            Some((slot, series.hash))
        })
        .collect()
}

fn encode_labels(shard: &Shard, series: &Series) -> Vec<cortexpb::LabelPair> {
    let bytes = |text: &str| Bytes::copy_from_slice(text.as_bytes());
    let labels = shard.labels_of(series);
    labels.map(|(name, value)| cortexpb::LabelPair { name: bytes(name), value: bytes(value) }).collect()
}

fn encode_chunk(chunk: crate::head::Chunk) -> client::Chunk {
    client::Chunk {
        start_timestamp_ms: chunk.min,
        end_timestamp_ms: chunk.max,
        encoding: ENCODING_PROMETHEUS_XOR,
        data: chunk.data,
    }
}

/// Label names of the series that match, sorted; at most `limit` (0: all).
pub(crate) fn label_names(tenant: &Tenant, matchers: &[Matcher], range: Range, limit: usize) -> Vec<String> {
    let mut names = BTreeSet::new();
    for shard in tenant.shards() {
        let shard = shard.read();
        let mut add = |name: &str| {
            if !names.contains(name) {
                names.insert(name.to_owned());
            }
        };
        if matchers.is_empty() {
            shard.names().for_each(add);
            continue;
        }
        for (slot, _) in matching(&shard, matchers, range) {
            let labels = shard.get(slot).into_iter().flat_map(|series| shard.labels_of(series));
            labels.for_each(|(name, _)| add(name));
        }
    }
    limited(names, limit)
}

/// Values that a label has in the series that match, sorted; at most `limit` (0: all).
pub(crate) fn label_values(
    tenant: &Tenant,
    label: &str,
    matchers: &[Matcher],
    range: Range,
    limit: usize,
) -> Vec<String> {
    let mut values = BTreeSet::new();
    for shard in tenant.shards() {
        let shard = shard.read();
        let mut add = |value: &str| {
            if !values.contains(value) {
                values.insert(value.to_owned());
            }
        };
        if matchers.is_empty() {
            shard.values(label).for_each(|(value, _)| add(value));
            continue;
        }
        for (slot, _) in matching(&shard, matchers, range) {
            let labels = shard.get(slot).into_iter().flat_map(|series| shard.labels_of(series));
            labels.filter(|(name, _)| *name == label).for_each(|(_, value)| add(value));
        }
    }
    limited(values, limit)
}

/// Label sets of the series that satisfy any of the sets of matchers; at most `limit` (0: all).
pub(crate) fn metrics(
    tenant: &Tenant,
    sets: &[Vec<Matcher>],
    range: Range,
    limit: usize,
) -> Vec<cortexpb::Metric> {
    let limit = if limit == 0 { usize::MAX } else { limit };
    let mut found = Vec::new();
    for shard in tenant.shards() {
        let shard = shard.read();
        let slots: BTreeSet<Slot> =
            sets.iter().flat_map(|set| matching(&shard, set, range)).map(|(slot, _)| slot).collect();
        let series = slots.into_iter().filter_map(|slot| shard.get(slot));
        let room = limit.saturating_sub(found.len());
        found.extend(
            series.take(room).map(|series| cortexpb::Metric { labels: encode_labels(&shard, series) }),
        );
    }
    found
}

fn limited(texts: BTreeSet<String>, limit: usize) -> Vec<String> {
    let limit = if limit == 0 { usize::MAX } else { limit };
    texts.into_iter().take(limit).collect()
}
