//! [`Traffic`]: a load over all distributors that are in the rotation, and what became of it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;
use ringkit_loadgen::{Load, LoadOptions, Summary, VerifyOptions, VerifyReport, verify};
use ringkit_runtime::CancellationToken;
use tokio::task::JoinHandle;

/// 20 writes of 100 series per second. A write is one attempt, and one more on another distributor if the connection was refused
/// or cut.
pub(super) struct Traffic {
    load: Arc<Load>,
    stop: CancellationToken,
    task: JoinHandle<Result<Summary, ringkit_loadgen::Error>>,
    /// The distributors that are written to, by name.
    rotation: Mutex<BTreeMap<String, String>>,
    /// Mean latency in milliseconds, second by second.
    latencies: Arc<Mutex<Vec<f64>>>,
    /// How many of these are from before anything was done.
    quiet: AtomicUsize,
}

impl Traffic {
    /// `distributors`: name and address of each.
    pub(super) fn start(distributors: impl Iterator<Item = (String, String)>) -> Self {
        let rotation: BTreeMap<String, String> = distributors.collect();
        let options = LoadOptions {
            urls: rotation.values().cloned().collect(),
            series: 200,
            rate: 2_000.0,
            batch: 100,
            ..LoadOptions::default()
        };
        let latencies = Arc::new(Mutex::new(Vec::new()));
        let noted = Arc::clone(&latencies);
        let load = Load::new(options).unwrap();
        let load = Arc::new(load.on_progress(move |progress| noted.lock().push(progress.latency.mean_ms)));
        let (stop, running) = (CancellationToken::new(), Arc::clone(&load));
        let stopped = stop.clone();
        let task = tokio::spawn(async move { running.run(stopped).await });
        let rotation = Mutex::new(rotation);
        Self { load, stop, task, rotation, latencies, quiet: AtomicUsize::new(0) }
    }

    /// A distributor leaves the rotation.
    pub(super) fn leaves(&self, name: &str) {
        let mut rotation = self.rotation.lock();
        rotation.remove(name);
        self.load.set_urls(&urls(&rotation)).unwrap();
    }

    /// A distributor enters it.
    pub(super) fn enters(&self, name: &str, url: String) {
        let mut rotation = self.rotation.lock();
        rotation.insert(name.to_owned(), url);
        self.load.set_urls(&urls(&rotation)).unwrap();
    }

    /// From now on something is done to the cluster.
    pub(super) fn begins(&self) {
        self.quiet.store(self.latencies.lock().len(), Ordering::Relaxed);
    }

    /// How much longer a write took since then, in milliseconds.
    pub(super) fn extra_ms(&self) -> f64 {
        let latencies = self.latencies.lock();
        let (before, after) = latencies.split_at(self.quiet.load(Ordering::Relaxed).min(latencies.len()));
        mean(after) - mean(before)
    }

    /// Ends it and reads back all that was acknowledged.
    pub(super) async fn ends(self) -> (Summary, VerifyReport) {
        self.stop.cancel();
        let summary = self.task.await.unwrap().unwrap();
        let url = self.rotation.lock().values().next().cloned().unwrap();
        let options = VerifyOptions { url, ..VerifyOptions::default() };
        let report = verify(&self.load.ledger(), &options).await.unwrap();
        (summary, report)
    }
}

fn urls(rotation: &BTreeMap<String, String>) -> Vec<String> {
    rotation.values().cloned().collect()
}

fn mean(values: &[f64]) -> f64 {
    let number = u32::try_from(values.len()).unwrap_or(u32::MAX).max(1);
    values.iter().sum::<f64>() / f64::from(number)
}
