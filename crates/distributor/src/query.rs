//! Asking the ingesters: fan-out to all that the tenant has, a quorum of answers, and a short grace for the rest.

use std::collections::HashSet;
use std::future::Future;
use std::hash::{BuildHasher as _, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use parking_lot::Mutex;
use prost::Message as _;
use ringkit_config::{LimitsConfig, ReadQuorum as ReadQuorumKind};
use ringkit_proto::client::{LabelMatcher, QueryRequest, QueryStreamResponse, TimeSeriesChunk};
use ringkit_ring::{CallError, Family, Instance, Operation};
use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep, timeout_at};

use crate::clients;
use crate::distributor::Distributor;
use crate::error::Refusal;
use crate::merge::{Merger, Series};
use crate::metrics::{Call, InFlight, Status};
use crate::read_quorum::{ReadQuorum, Verdict};

/// The longest that a query waits for a quorum. Cortex's `querier.timeout`.
const QUERY_TIMEOUT: Duration = Duration::from_secs(120);
/// Times are kept within these, in milliseconds, so that no arithmetic on them overflows here or in an ingester; they
/// lie beyond the smallest and largest instants that Prometheus knows.
const TIME_RANGE: std::ops::RangeInclusive<i64> = i64::MIN / 1000..=i64::MAX / 1000;
/// An answer with more chunks than this is merged off the async threads.
const INLINE_CHUNKS: usize = 2_000;

/// The status of a query that is over a limit. An ingester that says so speaks for all.
const OVER_LIMIT: u16 = 422;

/// Keeps a time that a client sent within what can be computed with.
pub(crate) fn clamp(time_ms: i64) -> i64 {
    time_ms.clamp(*TIME_RANGE.start(), *TIME_RANGE.end())
}

impl Distributor {
    /// All samples of `tenant` from `start_ms` to `end_ms`, both included, of the series that all `matchers` match:
    /// sorted by labels, each sorted by time.
    ///
    /// Whatever was acknowledged before this call began is in the answer.
    ///
    /// # Errors
    ///
    /// 422 over a limit, 5xx when too few ingesters answered. Never silently less.
    pub(crate) async fn select(
        &self,
        tenant: &str,
        start_ms: i64,
        end_ms: i64,
        matchers: Vec<LabelMatcher>,
    ) -> Result<Vec<Series>, Refusal> {
        let started = Instant::now();
        let limits = self.limits(tenant);
        let Some((start_ms, end_ms)) = self.ingesters_range(&limits, start_ms, end_ms) else {
            return Ok(Vec::new());
        };
        let request = QueryRequest { start_timestamp_ms: start_ms, end_timestamp_ms: end_ms, matchers };
        let fetched = Fetched::new(&limits);
        let ask = |instance: Arc<Instance>| {
            let request = request.clone();
            let fetched = &fetched;
            async move {
                let mut stream = self.ingesters.query_stream(&instance, tenant, request).await?;
                let mut series: Vec<TimeSeriesChunk> = Vec::new();
                while let Some(message) = stream.next().await? {
                    fetched.add(&message)?;
                    series.extend(message.chunkseries);
                }
                Ok(series)
            }
        };
        let answers = self.ask_all(Call::QueryStream, tenant, start_ms, ask).await?;
        let merge = move || {
            let mut merger = Merger::default();
            answers.into_iter().flatten().for_each(|series| merger.add(series));
            merger.finish(start_ms, end_ms)
        };
        let merged = if fetched.chunks.load(Ordering::Relaxed) <= INLINE_CHUNKS as u64 {
            merge()
        } else {
            let task = tokio::task::spawn_blocking(merge).await;
            task.map_err(|error| Refusal::new(500, format!("merging the answers failed: {error}")))?
        };
        self.metrics.query_duration.record(started.elapsed().as_secs_f64());
        merged.map_err(|error| Refusal::new(500, error.to_string()))
    }

    /// The part of a time range for which ingesters are asked; `None` if there is none.
    pub(crate) fn ingesters_range(
        &self,
        limits: &LimitsConfig,
        start_ms: i64,
        end_ms: i64,
    ) -> Option<(i64, i64)> {
        let (mut start_ms, end_ms) = (clamp(start_ms), clamp(end_ms));
        if !limits.query_ingesters_within.is_zero() {
            let within = i64::try_from(limits.query_ingesters_within.as_millis()).unwrap_or(i64::MAX);
            start_ms = start_ms.max(self.clock.now_ms().saturating_sub(within));
        }
        (start_ms <= end_ms).then_some((start_ms, end_ms))
    }

    /// Asks every ingester of `tenant` that can be read, and returns what a quorum of them, and those that were hardly slower,
    /// answered. `start_ms` is where the queried range begins: it decides who was there. Calls that are left are
    /// cancelled.
    ///
    /// # Errors
    ///
    /// What the ingesters said when too many failed, 5xx before 4xx. A limit error at once.
    pub(crate) async fn ask_all<T, F, Fut>(
        &self,
        call: Call,
        tenant: &str,
        start_ms: i64,
        ask: F,
    ) -> Result<Vec<T>, Refusal>
    where
        F: Fn(Arc<Instance>) -> Fut,
        Fut: Future<Output = Result<T, CallError>>,
    {
        let settings = &self.config.distributor;
        let (snapshot, now) = (self.ring.snapshot(), self.ring.clock().now_secs());
        // Names and series are asked for without a beginning as a rule; for them the look-back period is enough.
        let shard = self.read_shard(&snapshot, tenant, matches!(call, Call::QueryStream).then_some(start_ms));
        let set = shard
            .replication_set(Operation::READ, now)
            .map(|replicas| replicas.to_set())
            .map_err(|error| Refusal::new(500, error.to_string()))?;
        let aware = settings.read_quorum == ReadQuorumKind::Aware;
        let mut quorum = ReadQuorum::new(&shard, &set, start_ms, aware);

        // As in Cortex: those that are not needed wait, unless somebody fails.
        let delay = settings.extra_queue_delay;
        let spares = if delay.is_zero() || set.max_unavailable_zones > 0 { 0 } else { set.max_errors };
        let first_spare = set.instances.len().saturating_sub(spares);
        let released = Semaphore::new(0);
        let mut calls: FuturesUnordered<_> = set
            .instances
            .iter()
            .enumerate()
            .map(|(index, instance)| {
                let (instance, released, ask) = (Arc::clone(instance), &released, &ask);
                async move {
                    if index >= first_spare {
                        tokio::select! {
                            () = sleep(delay) => (),
                            _permit = released.acquire() => (),
                        }
                    }
                    (index, self.ask_one(call, &instance, ask(Arc::clone(&instance))).await)
                }
            })
            .collect();

        let deadline = Instant::now() + QUERY_TIMEOUT;
        let mut answers = Vec::with_capacity(set.instances.len());
        let mut last_error = None;
        loop {
            match quorum.verdict() {
                Verdict::Pending => (),
                Verdict::Reached => break,
                Verdict::Failed => return Err(refusal(last_error)),
                Verdict::Shortfall => {
                    self.metrics.read_shortfalls.increment(1);
                    return Err(Refusal::new(
                        500,
                        "too few of the ingesters that were there when the data was written have answered",
                    ));
                }
            }
            match timeout_at(deadline, calls.next()).await {
                Ok(Some((index, Ok(answer)))) => {
                    quorum.answered(index);
                    answers.push(answer);
                }
                Ok(Some((_, Err(error)))) if error.code == OVER_LIMIT => return Err(refusal(Some(error))),
                Ok(Some((index, Err(error)))) => {
                    quorum.failed(index);
                    released.add_permits(1);
                    // Mixed errors are worth a retry, so those of the ingesters themselves come first.
                    if error.family == Family::Server || last_error.is_none() {
                        last_error = Some(error);
                    }
                }
                Ok(None) => return Err(refusal(last_error)),
                Err(_elapsed) => return Err(Refusal::new(504, "too few ingesters have answered in time")),
            }
        }
        if spares == 0 && !settings.read_grace.is_zero() {
            let deadline = Instant::now() + settings.read_grace;
            while let Ok(Some((_, answer))) = timeout_at(deadline, calls.next()).await {
                answers.extend(answer.ok());
            }
        }
        Ok(answers)
    }

    /// One call to one ingester, counted.
    pub(crate) async fn ask_one<T>(
        &self,
        call: Call,
        instance: &Instance,
        ask: impl Future<Output = Result<T, CallError>>,
    ) -> Result<T, CallError> {
        let (_inflight, _) = InFlight::enter(&self.metrics.inflight_calls);
        let peer = self.metrics.peers.get(&instance.id);
        peer.queries.fetch_add(1, Ordering::Relaxed);
        let timing = self.metrics.time(call);
        let answer = ask.await;
        let status = clients::status_of(&answer);
        if status != Status::Success {
            peer.query_failures.fetch_add(1, Ordering::Relaxed);
        }
        timing.ended(status);
        answer
    }
}

pub(crate) fn refusal(error: Option<CallError>) -> Refusal {
    match error {
        Some(error) => Refusal::new(error.code, error.message),
        None => Refusal::new(500, "too few ingesters have answered"),
    }
}

/// What a query has fetched so far, from all ingesters, against the tenant's limits.
struct Fetched {
    max_series: u64,
    max_chunks: u64,
    max_chunk_bytes: u64,
    max_data_bytes: u64,
    chunks: AtomicU64,
    chunk_bytes: AtomicU64,
    data_bytes: AtomicU64,
    hasher: RandomState,
    series: Mutex<HashSet<u64>>,
}

impl Fetched {
    fn new(limits: &LimitsConfig) -> Self {
        Self {
            max_series: limits.max_fetched_series_per_query as u64,
            max_chunks: limits.max_fetched_chunks_per_query as u64,
            max_chunk_bytes: limits.max_fetched_chunk_bytes_per_query as u64,
            max_data_bytes: limits.max_fetched_data_bytes_per_query as u64,
            chunks: AtomicU64::new(0),
            chunk_bytes: AtomicU64::new(0),
            data_bytes: AtomicU64::new(0),
            hasher: RandomState::new(),
            series: Mutex::default(),
        }
    }

    /// Adds one message; chunks count as often as they come, series once. The texts are Cortex's.
    fn add(&self, message: &QueryStreamResponse) -> Result<(), CallError> {
        let chunks = || message.chunkseries.iter().flat_map(|series| &series.chunks);
        let num = chunks().count() as u64;
        if over(self.max_chunks, self.chunks.fetch_add(num, Ordering::Relaxed) + num) {
            let limit = self.max_chunks;
            return limited(format!("the query hit the max number of chunks limit (limit: {limit} chunks)"));
        }
        if self.max_series > 0 {
            let mut seen = self.series.lock();
            seen.extend(message.chunkseries.iter().map(|series| {
                let labels = series.labels.iter().map(|pair| (&pair.name, &pair.value));
                self.hasher.hash_one(labels.collect::<Vec<_>>())
            }));
            if over(self.max_series, seen.len() as u64) {
                let limit = self.max_series;
                return limited(format!(
                    "the query hit the max number of series limit (limit: {limit} series)"
                ));
            }
        }
        if self.max_chunk_bytes > 0 {
            let bytes = chunks().map(|chunk| chunk.encoded_len() as u64).sum::<u64>();
            if over(self.max_chunk_bytes, self.chunk_bytes.fetch_add(bytes, Ordering::Relaxed) + bytes) {
                let limit = self.max_chunk_bytes;
                return limited(format!(
                    "the query hit the aggregated chunks size limit (limit: {limit} bytes)"
                ));
            }
        }
        if self.max_data_bytes > 0 {
            let bytes = message.encoded_len() as u64;
            if over(self.max_data_bytes, self.data_bytes.fetch_add(bytes, Ordering::Relaxed) + bytes) {
                let limit = self.max_data_bytes;
                return limited(format!(
                    "the query hit the aggregated data size limit (limit: {limit} bytes)"
                ));
            }
        }
        Ok(())
    }
}

/// A limit of 0 is none.
fn over(limit: u64, actual: u64) -> bool {
    limit > 0 && actual > limit
}

fn limited(message: String) -> Result<(), CallError> {
    Err(CallError::new(OVER_LIMIT, message))
}

#[cfg(test)]
mod tests {
    use ringkit_proto::client::Chunk;

    use super::*;

    fn message(series: usize, chunks: usize) -> QueryStreamResponse {
        let one = |name: usize| TimeSeriesChunk {
            labels: vec![ringkit_proto::cortexpb::LabelPair {
                name: "__name__".into(),
                value: name.to_string().into(),
            }],
            chunks: vec![Chunk { data: vec![0; 10].into(), ..Chunk::default() }; chunks],
            ..TimeSeriesChunk::default()
        };
        QueryStreamResponse { chunkseries: (0..series).map(one).collect() }
    }

    #[test]
    fn replicas_chunks_add_up_and_their_series_do_not() {
        let limits = LimitsConfig {
            max_fetched_series_per_query: 2,
            max_fetched_chunks_per_query: 8,
            ..LimitsConfig::default()
        };
        let fetched = Fetched::new(&limits);
        for _ in 0..2 {
            fetched.add(&message(2, 2)).unwrap();
        }
        let error = fetched.add(&message(1, 1)).unwrap_err();
        assert_eq!((error.code, error.message.contains("chunks limit (limit: 8")), (422, true));
        let error = Fetched::new(&limits).add(&message(3, 1)).unwrap_err();
        assert_eq!((error.code, error.message.contains("series limit (limit: 2")), (422, true));
    }

    #[test]
    fn bytes_are_limited_too() {
        let limits = LimitsConfig { max_fetched_chunk_bytes_per_query: 20, ..LimitsConfig::default() };
        assert!(Fetched::new(&limits).add(&message(1, 1)).is_ok());
        assert_eq!(Fetched::new(&limits).add(&message(2, 1)).unwrap_err().code, 422);
        let limits = LimitsConfig { max_fetched_data_bytes_per_query: 20, ..LimitsConfig::default() };
        assert_eq!(Fetched::new(&limits).add(&message(1, 1)).unwrap_err().code, 422);
    }

    #[test]
    fn extreme_times_are_clamped() {
        assert!(clamp(i64::MIN).checked_mul(1000).is_some());
        assert!(clamp(i64::MAX).checked_mul(1000).is_some());
        assert_eq!(clamp(5), 5);
    }
}
