//! When an ingester may go: nobody writes to it any more, and what it holds is held by enough others, or so old that nobody
//! asks ingesters for it.
//!
//! That is compared sample by sample, and not assumed because every write went to a quorum: a sample of which only this and
//! one other ingester have a copy would be missing from reads that happen not to hear the other one.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use ringkit_config::Config;
use ringkit_grpc::pool::{Pool, PoolOptions};
use ringkit_lifecycler::{Condition, Missing};
use ringkit_proto::client::ingester_client::IngesterClient;
use ringkit_proto::client::{LabelMatcher, MatchType, QueryRequest, QueryStreamResponse};
use ringkit_ring::{Instance, Operation, Ring};
use ringkit_runtime::Cause;
use ringkit_server::tenant;
use ringkit_tsdb::xor;
use tokio::sync::Mutex;
use tokio::time::Instant;
use tonic::Request;
use xxhash_rust::xxh3::xxh3_64;

use crate::head::Tenant;
use crate::ingester::Ingester;
use crate::query::Cursor;

/// Nobody sends any more when nothing came for this long: longer than any distributor needs to hear of it.
const QUIET: Duration = Duration::from_secs(3);
/// Samples are compared by windows of this length, so that memory is bounded by how many samples lie in one.
const WINDOW_MS: i64 = 10 * 60 * 1000;
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
    /// When was compared last, with which result.
    compared: Mutex<Option<(Instant, Result<(), Missing>)>>,
}

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
        Self { ingester, ring, pool, max_recv_bytes: client.max_recv_msg_size, compared: Mutex::default() }
    }

    /// Compares everything with the others.
    async fn compare(&self) -> Result<(), Missing> {
        let Some(open) = self.ingester.opened() else { return Ok(()) };
        let (snapshot, now) = (self.ring.snapshot(), self.ring.clock().now_secs());
        let peers: Vec<Arc<Instance>> = snapshot
            .instances()
            .iter()
            .filter(|instance| *instance.id != *self.ingester.id)
            .filter(|instance| snapshot.is_healthy(&instance.id, Operation::READ, now))
            .cloned()
            .collect();
        // As many others as a write waits for: then reads that miss as many as they may still hear one of them.
        let factor = snapshot.options().replication_factor;
        let enough = (factor / 2 + 1).min(peers.len()).max(1);
        let mut lacking = Lacking::default();
        for tenant in open.head.tenants() {
            let found = self.compare_tenant(&tenant, &peers, enough).await;
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
        let retention = self.ingester.config.blocks_storage.tsdb.retention_period;
        let age = self.ingester.clock.now_ms().saturating_sub(lacking.newest_ms);
        let age = Duration::from_millis(u64::try_from(age).unwrap_or_default());
        Err(Missing {
            reason: format!(
                "{} samples are on fewer than {enough} other ingesters: they stay here until they are older than \
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
    ) -> Result<Lacking, Cause> {
        let mut lacking = Lacking::default();
        let Some((oldest, newest)) = self.own_range(tenant)? else { return Ok(lacking) };
        let mut from = oldest;
        while from <= newest {
            let to = from.saturating_add(WINDOW_MS - 1).min(newest);
            // How many have a copy, and which was the last of them, since a peer may send a sample twice.
            let mut own: HashMap<Sample, (usize, usize)> = HashMap::new();
            self.own(tenant, from, to, |sample| {
                own.insert(sample, (0, usize::MAX));
            })?;
            if !own.is_empty() {
                for (number, peer) in peers.iter().enumerate() {
                    self.peer(peer, &tenant.id, from, to, |sample| {
                        if let Some((copies, last)) = own.get_mut(&sample)
                            && *last != number
                        {
                            (*copies, *last) = (*copies + 1, number);
                        }
                    })
                    .await?;
                }
            }
            for ((_, time, _), _) in own.iter().filter(|(_, (copies, _))| *copies < enough) {
                lacking.samples += 1;
                lacking.newest_ms = lacking.newest_ms.max(*time);
            }
            from = to.saturating_add(1);
        }
        Ok(lacking)
    }

    /// From the oldest to the newest sample.
    fn own_range(&self, tenant: &Arc<Tenant>) -> Result<Option<(i64, i64)>, Cause> {
        let mut range: Option<(i64, i64)> = None;
        let mut cursor = self.cursor(tenant, i64::MIN, i64::MAX)?;
        while let Some(message) = cursor.next_message() {
            for chunk in message.chunkseries.iter().flat_map(|series| &series.chunks) {
                let (from, to) = (chunk.start_timestamp_ms, chunk.end_timestamp_ms);
                range = Some(range.map_or((from, to), |(a, b)| (a.min(from), b.max(to))));
            }
        }
        Ok(range)
    }

    fn cursor(&self, tenant: &Arc<Tenant>, from: i64, to: i64) -> Result<Cursor, Cause> {
        let (id, metrics) = (Arc::clone(&self.ingester.id), self.ingester.metrics.clone());
        Ok(Cursor::new(Some(Arc::clone(tenant)), &everything(from, to), id, metrics)?)
    }

    fn own(
        &self,
        tenant: &Arc<Tenant>,
        from: i64,
        to: i64,
        mut take: impl FnMut(Sample),
    ) -> Result<(), Cause> {
        let mut cursor = self.cursor(tenant, from, to)?;
        while let Some(message) = cursor.next_message() {
            samples(&message, from, to, &mut take)?;
        }
        Ok(())
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
        if let Some(left) = self.ingester.still_written_to(QUIET) {
            let reason = "distributors have not all heard yet that nothing is to be sent here".to_owned();
            return Err(Missing { reason, estimate: Some(left) });
        }
        let mut compared = self.compared.lock().await;
        if let Some((at, result)) = &*compared
            && at.elapsed() < COMPARE_PERIOD
        {
            return result.clone();
        }
        let result = self.compare().await;
        *compared = Some((Instant::now(), result.clone()));
        result
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
