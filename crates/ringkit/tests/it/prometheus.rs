//! A real Prometheus writes to `ringkit dev`; a second one, which has nothing but remote read, answers the same.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use ringkit_testkit::{ProcessBuilder, Prometheus, eventually};
use serde_json::Value;

use crate::http::now_ms;

/// What the committed configurations say, and the tests replace: ports that may be taken here.
const RINGKIT: &str = "localhost:9009";
const SELF: &str = "localhost:9090";

fn committed(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../config").join(name);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The value of each series of an instant query's answer, by its labels. The answer must come without warnings.
async fn vector(prometheus: &Prometheus, query: &str, at: f64) -> BTreeMap<String, f64> {
    let answer = prometheus.query_at(query, at).await.unwrap();
    let json: Value = serde_json::from_slice(&answer.body).unwrap();
    assert_eq!(json["status"], "success", "{query}: {json}");
    assert!(json.get("warnings").is_none(), "{query}: {json}");
    let result = json["data"]["result"].as_array().unwrap();
    let value = |series: &Value| series["value"][1].as_str().unwrap().parse().unwrap();
    result.iter().map(|series| (series["metric"].to_string(), value(series))).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_prometheus_reads_back_what_the_first_one_wrote() {
    let dir = tempfile::tempdir().unwrap();
    let started = Instant::now();
    let mut dev = ProcessBuilder::new("ringkit dev", env!("CARGO_BIN_EXE_ringkit"))
        .args(["dev", "--http-port", "0", "--data-dir"])
        .arg(dir.path().join("data"))
        .start()
        .unwrap();
    let line = dev.wait_for_output("/api/v1/push", Duration::from_secs(30)).await.unwrap();
    let ready_after = started.elapsed();
    assert!(ready_after < Duration::from_secs(5), "the cluster was ready after {ready_after:?}");
    let url = line.split_whitespace().find(|word| word.starts_with("http://")).unwrap();
    let ringkit: SocketAddr =
        url.strip_prefix("http://").unwrap().split('/').next().unwrap().parse().unwrap();

    let write_config = committed("prometheus.yaml").replace(RINGKIT, &ringkit.to_string());
    let mut writer = Prometheus::start(&write_config).await.unwrap();
    writer.reload(&write_config.replace(SELF, &writer.addr().to_string())).await.unwrap();
    let read_config = committed("prometheus-read.yaml").replace(RINGKIT, &ringkit.to_string());
    let reader = Prometheus::start(&read_config).await.unwrap();

    for query in ["count({__name__=~\".+\"})", "rate(prometheus_tsdb_head_samples_appended_total[1m])"] {
        let equal = || async {
            // The same moment for both, one scrape ago, so that what was scraped then has been sent since.
            let at = now_ms() as f64 / 1000.0 - 5.0;
            let (wrote, read) = (vector(&writer, query, at).await, vector(&reader, query, at).await);
            wrote.values().any(|value| *value > 0.0) && wrote == read
        };
        eventually(Duration::from_secs(90), equal).await.unwrap_or_else(|error| panic!("{query}: {error}"));
    }

    let ended = dev.signal(ringkit_testkit::Signal::Interrupt).map(|()| dev.wait(Duration::from_secs(20)));
    let status = ended.unwrap().await.unwrap();
    assert!(status.success(), "{status}\n{}", dev.last_output());
    assert!(dev.output().contains("stopped cleanly"), "{}", dev.last_output());
}
