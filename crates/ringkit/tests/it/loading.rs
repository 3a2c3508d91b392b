//! A load on a distributor while something is done to its cluster, and what must have become of it.

use std::sync::Arc;

use ringkit_loadgen::{Ledger, Load, LoadOptions, Summary, VerifyOptions, verify};
use ringkit_runtime::CancellationToken;
use tokio::task::JoinHandle;

/// 2,000 samples per second until it is checked.
pub(crate) struct Loading {
    url: String,
    ledger: Arc<Ledger>,
    stop: CancellationToken,
    task: JoinHandle<Result<Summary, ringkit_loadgen::Error>>,
}

impl Loading {
    pub(crate) fn start(distributor: std::net::SocketAddr) -> Self {
        let url = format!("http://{distributor}");
        let options = LoadOptions {
            urls: vec![url.clone()],
            series: 200,
            rate: 2_000.0,
            batch: 100,
            ..LoadOptions::default()
        };
        let load = Load::new(options).unwrap();
        let (ledger, stop) = (load.ledger(), CancellationToken::new());
        let stopped = stop.clone();
        let task = tokio::spawn(async move { load.run(stopped).await });
        Self { url, ledger, stop, task }
    }

    /// Ends it: no write failed, and every sample that was acknowledged is read back.
    pub(crate) async fn lost_nothing(self) {
        self.stop.cancel();
        let summary = self.task.await.unwrap().unwrap();
        assert_eq!(summary.failed_writes, 0, "{summary}");
        let options = VerifyOptions { url: self.url, ..VerifyOptions::default() };
        let report = verify(&self.ledger, &options).await.unwrap();
        assert!(report.missing + report.wrong == 0 && report.acked > 0, "{report:?}");
        println!("{summary}");
    }
}
