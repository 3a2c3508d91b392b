//! SIGKILL under load, again and again: every acknowledged sample is read back.

use std::time::Duration;

use rand::rngs::SmallRng;
use rand::{RngExt as _, SeedableRng as _};
use ringkit_loadgen::{Ledger, LedgerAt, Load, LoadOptions, VerifyOptions, verify};
use ringkit_runtime::CancellationToken;
use ringkit_testkit::{Process, ProcessBuilder};

const SOON: Duration = Duration::from_secs(30);

/// `ringkit -target=all` with a replication factor of 1 on the data in `dir`, and where it serves HTTP.
async fn start(dir: &std::path::Path) -> (Process, String) {
    let config = dir.join("config.yaml");
    let text = format!(
        "auth_enabled: false\n\
         ring: {{store: inmemory}}\n\
         server: {{http_listen_address: 127.0.0.1, http_listen_port: 0, grpc_listen_address: 127.0.0.1, grpc_listen_port: 0}}\n\
         limits: {{ingestion_rate: 1e7, ingestion_burst_size: 10000000}}\n\
         distributor: {{shard_by_all_labels: true, ring: {{instance_addr: 127.0.0.1}}}}\n\
         store_gateway: {{sharding_enabled: true, sharding_ring: {{instance_addr: 127.0.0.1, wait_stability_min_duration: 0s}}}}\n\
         ingester: {{lifecycler: {{address: 127.0.0.1, min_ready_duration: 0s, final_sleep: 0s, ring: {{replication_factor: 1}}}}}}\n\
         blocks_storage: {{tsdb: {{dir: '{}'}}}}\n",
        dir.join("tsdb").display()
    );
    std::fs::write(&config, text).unwrap();
    let mut process = ProcessBuilder::new("ringkit", env!("CARGO_BIN_EXE_ringkit"))
        .arg("-target=all")
        .arg(format!("-config.file={}", config.display()))
        .dir(dir)
        .start()
        .unwrap();
    let line = process.wait_for_output("http=", SOON).await.unwrap();
    let addr = line.split("http=").nth(1).unwrap().split_whitespace().next().unwrap();
    let url = format!("http://{}", addr.trim_matches('"'));
    let http = reqwest::Client::new();
    let ready = async || matches!(http.get(format!("{url}/ready")).send().await, Ok(answer) if answer.status() == 200);
    ringkit_testkit::eventually(SOON, ready)
        .await
        .unwrap_or_else(|error| panic!("{error}\n{}", process.last_output()));
    (process, url)
}

#[tokio::test(flavor = "multi_thread")]
async fn twenty_kills_under_load_lose_nothing_acknowledged() {
    kills_under_load(20, 2).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "soak"]
async fn soak_kills_with_five_seeds() {
    for seed in 1..=5 {
        kills_under_load(25, seed).await;
    }
}

/// Load, SIGKILL at a random moment, restart, read everything back: `rounds` times on the same data.
async fn kills_under_load(rounds: u64, seed: u64) {
    let dir = tempfile::tempdir().unwrap();
    let ledger = dir.path().join("ledger");
    let mut random = SmallRng::seed_from_u64(seed);
    let (mut process, mut url) = start(dir.path()).await;
    let mut acked_before = 0;
    for round in 0..rounds {
        let load = Load::new(LoadOptions {
            urls: vec![url.clone()],
            seed,
            series: 400,
            rate: 20_000.0,
            batch: 50,
            special_permille: 20,
            concurrency: 8,
            timeout: Duration::from_secs(2),
            drain_timeout: Duration::from_millis(50),
            ledger: LedgerAt::File(ledger.clone()),
            ..LoadOptions::default()
        })
        .unwrap();
        let stop = CancellationToken::new();
        let killer = async {
            tokio::time::sleep(Duration::from_millis(random.random_range(200..700))).await;
            process.kill().unwrap();
            stop.cancel();
        };
        let (summary, ()) = tokio::join!(load.run(stop.clone()), killer);
        summary.unwrap();
        drop(load);

        (process, url) = start(dir.path()).await;
        let kept = Ledger::read(&ledger).unwrap();
        let report =
            verify(&kept, &VerifyOptions { url: url.clone(), ..VerifyOptions::default() }).await.unwrap();
        assert!(report.is_clean(), "round {round}: {report:?}\n{}", process.last_output());
        assert!(report.acked > acked_before, "round {round} acknowledged nothing: {report:?}");
        acked_before = report.acked;
    }
    println!("seed {seed}: {rounds} kills, {acked_before} samples acknowledged, none missing");
}
