//! [`Metered`]: a store whose requests are timed as `cortex_kv_request_duration_seconds`.
//!
//! A compare-and-swap of the typed client shows as one `GET` and one `CAS` per attempt, an own-entry write as one `CAS`.
//! A lost race is an answer, not a failure. A watch is observed once, when it ends.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use metrics::Histogram;
use ringkit_runtime::Meter;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::error::Error;
use crate::metrics::{OperationMetrics, RequestMetrics};
use crate::shared::Trouble;
use crate::store::{Applied, Change, Key, Precondition, Store, Stored, Subscription};

pub(crate) struct Metered {
    inner: Arc<dyn Store>,
    metrics: RequestMetrics,
}

impl Metered {
    pub(crate) fn new(inner: Arc<dyn Store>, role: &'static str, kv_name: &str, meter: &Meter) -> Self {
        let metrics = RequestMetrics::register(meter, inner.backend(), role, kv_name);
        Self { inner, metrics }
    }
}

#[async_trait]
impl Store for Metered {
    fn backend(&self) -> &'static str {
        self.inner.backend()
    }

    async fn get(&self, key: &Key) -> Result<Option<Stored>, Error> {
        timed(&self.metrics.get, self.inner.get(key)).await
    }

    async fn list(&self, prefix: &str) -> Result<Vec<String>, Error> {
        timed(&self.metrics.list, self.inner.list(prefix)).await
    }

    async fn delete(&self, key: &Key) -> Result<(), Error> {
        timed(&self.metrics.delete, self.inner.delete(key)).await
    }

    async fn delete_at(&self, key: &Key, version: u64) -> Result<bool, Error> {
        timed(&self.metrics.delete, self.inner.delete_at(key, version)).await
    }

    async fn apply(&self, key: &Key, change: Change, when: Precondition) -> Result<Applied, Error> {
        timed(&self.metrics.cas, self.inner.apply(key, change, when)).await
    }

    async fn watch(&self, key: &Key) -> Result<Subscription, Error> {
        let running = Timer::start(&self.metrics.watch_key.failed);
        let subscription = self.inner.watch(key).await?;
        running.discard();
        Ok(subscription.with_guard(Timer::start(&self.metrics.watch_key.ok)))
    }

    fn answers_whole(&self) -> bool {
        self.inner.answers_whole()
    }

    fn synced(&self) -> watch::Receiver<bool> {
        self.inner.synced()
    }

    fn proceed_unsynced(&self) {
        self.inner.proceed_unsynced();
    }

    fn removals_are_meant(&self) -> bool {
        self.inner.removals_are_meant()
    }

    fn trouble(&self) -> watch::Receiver<Option<Trouble>> {
        self.inner.trouble()
    }
}

/// Times `call`. A call that its caller drops, for example at a deadline, counts as failed.
async fn timed<T>(
    metrics: &OperationMetrics,
    call: impl Future<Output = Result<T, Error>>,
) -> Result<T, Error> {
    let running = Timer::start(&metrics.failed);
    let result = call.await;
    if result.is_ok() {
        metrics.ok.record(running.discard());
    }
    result
}

/// Records the time since its start when dropped, unless discarded.
struct Timer {
    started_at: Instant,
    histogram: Option<Histogram>,
}

impl Timer {
    fn start(histogram: &Histogram) -> Self {
        Self { started_at: Instant::now(), histogram: Some(histogram.clone()) }
    }

    fn discard(mut self) -> Duration {
        self.histogram = None;
        self.started_at.elapsed()
    }
}

impl Drop for Timer {
    fn drop(&mut self) {
        if let Some(histogram) = &self.histogram {
            histogram.record(self.started_at.elapsed());
        }
    }
}

#[cfg(test)]
mod tests {
    use metrics_exporter_prometheus::PrometheusBuilder;

    use super::*;
    use crate::codec::StringCodec;
    use crate::inmemory::InMemory;
    use crate::store::Limits;

    crate::conformance_tests!(Metered::new(
        Arc::new(InMemory::default()),
        "primary",
        "test",
        &Meter::disabled()
    ));

    #[tokio::test]
    async fn requests_are_timed_by_operation_outcome_and_store() {
        let recorder = PrometheusBuilder::new().build_recorder();
        let rendered = recorder.handle();
        let inner = Arc::new(InMemory::new(Limits { max_entry_bytes: 3, ..Limits::default() }));
        let store = Metered::new(inner, "primary", "ingester-ring", &Meter::new(Arc::new(recorder)));
        let key = Key::new("k", &StringCodec);
        let put = async |text: &'static str| {
            store.apply(&key, Change::upsert("value", text), Precondition::None).await
        };
        put("abc").await.unwrap();
        put("abcd").await.unwrap_err();
        store.get(&key).await.unwrap();
        store.list("").await.unwrap();
        let running = store.watch(&key).await.unwrap();
        let count = |operation: &str, status: u32| {
            let start = format!(
                r#"cortex_kv_request_duration_seconds_count{{type="inmemory",role="primary",kv_name="ingester-ring",operation="{operation}",status_code="{status}"}} "#
            );
            let text = rendered.render();
            text.lines().find_map(|line| line.strip_prefix(&start)).map(str::to_owned)
        };
        assert_eq!(count("CAS", 200).as_deref(), Some("1"), "{}", rendered.render());
        assert_eq!(count("CAS", 500).as_deref(), Some("1"));
        assert_eq!(count("GET", 200).as_deref(), Some("1"));
        assert_eq!(count("List", 200).as_deref(), Some("1"));
        let before = count("WatchKey", 200);
        assert_ne!(before.as_deref(), Some("1"), "a watch is observed when it ends");
        drop(running);
        assert_eq!(count("WatchKey", 200).as_deref(), Some("1"));
    }
}
