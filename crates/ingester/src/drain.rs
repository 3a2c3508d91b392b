//! When an ingester may go: nobody writes to it any more, and what it holds is held by enough others, or so old that nobody
//! asks ingesters for it.
//!
//! That is compared sample by sample, and not assumed because every write went to a quorum: a sample of which only this and
//! one other ingester have a copy would be missing from reads that happen not to hear the other one.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;
use ringkit_config::Config;
use ringkit_grpc::pool::{Pool, PoolOptions};
use ringkit_lifecycler::{Condition, Missing};
use ringkit_proto::client::ingester_client::IngesterClient;
use ringkit_proto::client::{LabelMatcher, MatchType, QueryRequest, QueryStreamResponse};
use ringkit_ring::{Instance, Operation, Ring, State};
use ringkit_runtime::Cause;
use ringkit_server::tenant;
use ringkit_tsdb::xor;
use tokio::time::Instant;
use tonic::Request;
use xxhash_rust::xxh3::xxh3_64;

use crate::head::Tenant;
use crate::ingester::Ingester;
use crate::query::Cursor;

/// Nobody sends any more when nothing came for this long: longer than any distributor needs to hear of it.
const QUIET: Duration = Duration::from_secs(3);
/// Samples are compared by windows of at most this length, shorter where there are more than [`MAX_SAMPLES`] in one.
const WINDOW_MS: i64 = 10 * 60 * 1000;
/// Samples compared at once, at some 60 bytes each.
const MAX_SAMPLES: usize = 2_000_000;
/// How far ahead of our clock samples are looked for.
const FUTURE_MS: i64 = 60 * 60 * 1000;
/// How often samples that too few others have are looked for again.
const COMPARE_PERIOD: Duration = Duration::from_secs(10);
/// How long a peer may take over one window.
const PEER_TIMEOUT: Duration = Duration::from_secs(60);

/// See the module.
pub(crate) struct Emptied {
    ingester: Arc<Ingester>,
    ring: Ring,
    pool: Pool,
    max_recv_bytes: usize,
    /// Since when the ring shows that nothing is to be sent here.
    shown_since: Mutex<Option<Instant>>,
    /// The last comparison that found something missing.
    failed: Mutex<Option<Failed>>,
}

/// A comparison that is not repeated at once.
struct Failed {
    at: Instant,
    pause: Duration,
    missing: Missing,
}

/// The own samples, each with how many others have a copy and which was the last of them.
type Own = HashMap<Sample, (usize, usize)>;

/// What of the own samples too few others have.
#[derive(Debug, Default, PartialEq, Eq)]
struct Lacking {
    samples: u64,
    newest_ms: i64,
}

/// A sample: series, time, bits of the value.
type Sample = (u64, i64, u64);

impl Emptied {
    pub(crate) fn new(ingester: Arc<Ingester>, ring: Ring, config: &Config) -> Self {
        let client = &config.ingester_client.grpc_client_config;
        let options = PoolOptions {
            connect_timeout: client.connect_timeout,
            max_recv_bytes: client.max_recv_msg_size,
            max_send_bytes: client.max_send_msg_size,
            ..PoolOptions::default()
        };
        let pool = Pool::new(options, metrics::Gauge::noop());
        Self {
            ingester,
            ring,
            pool,
            max_recv_bytes: client.max_recv_msg_size,
            shown_since: Mutex::default(),
            failed: Mutex::default(),
        }
    }

    /// Compares everything with the others.
    async fn compare(&self) -> Result<(), Missing> {
        let Some(open) = self.ingester.opened() else { return Ok(()) };
        let (snapshot, now) = (self.ring.snapshot(), self.ring.clock().now_secs());
        // Only those who stay: whoever is on his way out as well must not be relied on, nor rely on us.
        let peers: Vec<Arc<Instance>> = snapshot
            .instances()
            .iter()
            .filter(|instance| *instance.id != *self.ingester.id)
            .filter(|instance| snapshot.is_healthy(&instance.id, Operation::WRITE, now))
            .cloned()
            .collect();
        // As many others as a write waits for: then reads that miss as many as they may still hear one of them.
        let enough = snapshot.options().replication_factor / 2 + 1;
        // What is older than this is asked of nobody any more, and others have dropped it perhaps.
        let retention = self.ingester.config.blocks_storage.tsdb.retention_period;
        let retention_ms = i64::try_from(retention.as_millis()).unwrap_or(i64::MAX);
        let newest = self.ingester.clock.now_ms().saturating_add(FUTURE_MS);
        let oldest = self.ingester.clock.now_ms().saturating_sub(retention_ms);
        let mut lacking = Lacking::default();
        for tenant in open.head.tenants() {
            let found = self.compare_tenant(&tenant, &peers, enough, (oldest, newest)).await;
            let found = found.map_err(|cause| Missing {
                reason: format!(
                    "cannot compare the samples of tenant `{}` with the others: {cause}",
                    tenant.id
                ),
                estimate: None,
            })?;
            lacking.samples += found.samples;
            lacking.newest_ms = lacking.newest_ms.max(found.newest_ms);
        }
        if lacking.samples == 0 {
            return Ok(());
        }
        let age = self.ingester.clock.now_ms().saturating_sub(lacking.newest_ms);
        let age = Duration::from_millis(u64::try_from(age).unwrap_or_default());
        Err(Missing {
            reason: format!(
                "{} samples are on fewer than {enough} other ingesters that stay: they are kept here until they are older than \
                 `blocks_storage.tsdb.retention_period`",
                lacking.samples
            ),
            estimate: Some(retention.saturating_sub(age)),
        })
    }

    async fn compare_tenant(
        &self,
        tenant: &Arc<Tenant>,
        peers: &[Arc<Instance>],
        enough: usize,
        (oldest, newest): (i64, i64),
    ) -> Result<Lacking, Cause> {
        let mut lacking = Lacking::default();
        let (mut from, mut length) = (oldest, WINDOW_MS);
        while from <= newest {
            let to = from.saturating_add(length - 1).min(newest);
            let Some(mut own) = self.own(tenant, from, to).await? else {
                // Too many to be compared at once.
                length = (length / 2).max(1);
                continue;
            };
            if !own.is_empty() {
                for (number, peer) in peers.iter().enumerate() {
                    let compared = self.peer(peer, &tenant.id, from, to, |sample| {
                        // A peer may send a sample twice.
                        if let Some((copies, last)) = own.get_mut(&sample)
                            && *last != number
                        {
                            (*copies, *last) = (*copies + 1, number);
                        }
                    });
                    if let Err(cause) = compared.await {
                        // Who cannot be asked has no copy that could be relied on; the others may be enough.
                        tracing::debug!(peer = %peer.id, cause, "cannot compare samples with a peer");
                    }
                }
            }
            for ((_, time, _), _) in own.iter().filter(|(_, (copies, _))| *copies < enough) {
                lacking.samples += 1;
                lacking.newest_ms = lacking.newest_ms.max(*time);
            }
            if own.len() < MAX_SAMPLES / 4 {
                length = (length * 2).min(WINDOW_MS);
            }
            if to == newest {
                break;
            }
            from = to + 1;
        }
        Ok(lacking)
    }

    /// The samples of a window, each with how many others have a copy and which was the last of them; `None` if there are too
    /// many at once.
    async fn own(&self, tenant: &Arc<Tenant>, from: i64, to: i64) -> Result<Option<Own>, Cause> {
        let mut cursor = self.cursor(tenant, from, to)?;
        // Walks all series: not on a thread that heartbeats wait for.
        let walk = move || {
            let mut own = Own::new();
            while let Some(message) = cursor.next_message() {
                samples(&message, from, to, &mut |sample| {
                    own.insert(sample, (0, usize::MAX));
                })?;
                if own.len() > MAX_SAMPLES && to > from {
                    return Ok(None);
                }
            }
            Ok::<_, Cause>(Some(own))
        };
        tokio::task::spawn_blocking(walk).await?
    }

    fn cursor(&self, tenant: &Arc<Tenant>, from: i64, to: i64) -> Result<Cursor, Cause> {
        let (id, metrics) = (Arc::clone(&self.ingester.id), self.ingester.metrics.clone());
        Ok(Cursor::new(Some(Arc::clone(tenant)), &everything(from, to), id, metrics)?)
    }

    async fn peer(
        &self,
        peer: &Instance,
        tenant: &str,
        from: i64,
        to: i64,
        mut take: impl FnMut(Sample) + Send,
    ) -> Result<(), Cause> {
        let mut client = IngesterClient::new(self.pool.channel(peer.addr())?)
            .max_decoding_message_size(self.max_recv_bytes);
        let mut request = Request::new(everything(from, to));
        request.metadata_mut().insert(tenant::HEADER, tenant.parse()?);
        let compare = async {
            let mut stream = client.query_stream(request).await?.into_inner();
            while let Some(message) = stream.message().await? {
                samples(&message, from, to, &mut take)?;
            }
            Ok::<_, Cause>(())
        };
        let compared = tokio::time::timeout(PEER_TIMEOUT, compare).await;
        compared.map_err(|_| format!("{} did not answer within {PEER_TIMEOUT:?}", peer.id))?
    }
}

#[async_trait]
impl Condition for Emptied {
    async fn check(&self) -> Result<(), Missing> {
        self.quiet()?;
        if let Some(failed) = &*self.failed.lock()
            && failed.at.elapsed() < failed.pause
        {
            return Err(failed.missing.clone());
        }
        let began = Instant::now();
        let result = self.compare().await;
        // What came meanwhile was not compared.
        if self.ingester.last_push().is_some_and(|at| at >= began) {
            self.quiet()?;
        }
        if let Err(missing) = &result {
            let pause = (began.elapsed() * 4).max(COMPARE_PERIOD);
            *self.failed.lock() = Some(Failed { at: Instant::now(), pause, missing: missing.clone() });
        }
        result
    }

    fn seal(&self, sealed: bool) {
        self.ingester.seal(sealed);
    }
}

impl Emptied {
    /// Whether everybody has heard that nothing is to be sent here: the ring shows it, and nothing came for a while since.
    fn quiet(&self) -> Result<(), Missing> {
        let snapshot = self.ring.snapshot();
        let own = snapshot.instance(&self.ingester.id).map(|own| own.state());
        let mut shown = self.shown_since.lock();
        if !matches!(own, Some(State::ReadOnly | State::Leaving) | None) {
            *shown = None;
            let reason = "the ring does not show yet that nothing is to be sent here".to_owned();
            return Err(Missing { reason, estimate: Some(QUIET) });
        }
        let since = *shown.get_or_insert_with(Instant::now);
        let since = self.ingester.last_push().map_or(since, |push| push.max(since));
        let left = QUIET.saturating_sub(since.elapsed());
        if left.is_zero() && self.ingester.inflight_pushes.load(Ordering::SeqCst) == 0 {
            return Ok(());
        }
        let reason = "distributors have not all heard yet that nothing is to be sent here".to_owned();
        Err(Missing { reason, estimate: Some(left.max(Duration::from_secs(1))) })
    }
}

/// All series in a range of time, both ends inclusive.
fn everything(from: i64, to: i64) -> QueryRequest {
    // The empty text matches too: a series need not have a name.
    let matcher =
        LabelMatcher { r#type: MatchType::RegexMatch.into(), name: "__name__".into(), value: ".*".into() };
    QueryRequest { start_timestamp_ms: from, end_timestamp_ms: to, matchers: vec![matcher] }
}

/// Every sample of a message that lies in the range.
fn samples(
    message: &QueryStreamResponse,
    from: i64,
    to: i64,
    take: &mut impl FnMut(Sample),
) -> Result<(), Cause> {
    let mut name = Vec::new();
    for series in &message.chunkseries {
        name.clear();
        for label in &series.labels {
            // Neither names nor values hold this byte.
            name.extend_from_slice(&label.name);
            name.push(0xff);
            name.extend_from_slice(&label.value);
            name.push(0xff);
        }
        let hash = xxh3_64(&name);
        for chunk in &series.chunks {
            for sample in xor::iter(&chunk.data) {
                let (time, value) = sample?;
                if (from..=to).contains(&time) {
                    take((hash, time, value.to_bits()));
                }
            }
        }
    }
    Ok(())
}
