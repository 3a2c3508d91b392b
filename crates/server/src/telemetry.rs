//! Logs and metrics of a process. [`init`] is the only global of this crate, and only `main` calls it.

use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusRecorder};
use ringkit_config::{LogFormat, LogLevel};
use tracing_subscriber::filter::{EnvFilter, LevelFilter};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

use crate::error::Error;

/// Sends this process's logs to standard error in the given form. Does nothing if somebody did so before.
///
/// Fields of spans, such as `instance`, appear on every line below them.
pub fn init(format: LogFormat, level: LogLevel) {
    let filter = filter(level);
    let registry = tracing_subscriber::registry().with(filter);
    // An error means that logs go somewhere already: fine for a process that embeds this one.
    let _ = match format {
        LogFormat::Logfmt => registry
            .with(tracing_logfmt::builder().with_span_name(false).layer().with_writer(std::io::stderr))
            .try_init(),
        LogFormat::Json => registry
            .with(tracing_subscriber::fmt::layer().json().flatten_event(true).with_writer(std::io::stderr))
            .try_init(),
    };
}

/// What is logged at `level`. The Consul client's crates log every request at info: that is our debug.
fn filter(level: LogLevel) -> EnvFilter {
    let level = match level {
        LogLevel::Debug => LevelFilter::DEBUG,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Error => LevelFilter::ERROR,
    };
    let quiet = LevelFilter::WARN.min(level);
    ["rustify", "consulrs", "h2", "hyper", "hyper_util", "tower", "foca"].iter().fold(
        EnvFilter::default().add_directive(level.into()),
        |filter, noisy| match format!("{noisy}={quiet}").parse() {
            Ok(directive) => filter.add_directive(directive),
            Err(_) => filter,
        },
    )
}

/// A recorder whose histograms have Cortex's buckets. One per [`App`](crate::App).
///
/// # Errors
///
/// [`Error::Recorder`] when the bucket table is malformed.
pub fn recorder() -> Result<PrometheusRecorder, Error> {
    let refused =
        |error: metrics_exporter_prometheus::BuildError| Error::Recorder { message: error.to_string() };
    let mut builder = PrometheusBuilder::new().set_buckets(&DEFAULT_BUCKETS).map_err(refused)?;
    for (name, buckets) in BUCKETS {
        builder =
            builder.set_buckets_for_metric(Matcher::Full((*name).to_owned()), buckets).map_err(refused)?;
    }
    Ok(builder.build_recorder())
}

/// weaveworks/common's `instrument.DefBuckets`, in seconds.
const DEFAULT_BUCKETS: [f64; 14] =
    [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 25.0, 50.0, 100.0];

/// What is not [`DEFAULT_BUCKETS`].
const BUCKETS: &[(&str, &[f64])] = &[
    ("cortex_request_message_bytes", &MESSAGE_BYTES),
    ("cortex_response_message_bytes", &MESSAGE_BYTES),
    // 0.001·4ᵏ and 0.008·4ᵏ seconds.
    ("cortex_ingester_client_request_duration_seconds", &[0.001, 0.004, 0.016, 0.064, 0.256, 1.024, 4.096]),
    (
        "cortex_storegateway_client_request_duration_seconds",
        &[0.008, 0.032, 0.128, 0.512, 2.048, 8.192, 32.768],
    ),
    // 10·2ᵏ seconds.
    ("cortex_shutdown_duration_seconds", &[10.0, 20.0, 40.0, 80.0, 160.0, 320.0, 640.0, 1280.0]),
    (
        "cortex_distributor_query_duration_seconds",
        &[0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 30.0],
    ),
    (
        "cortex_ingester_queried_samples",
        &[10.0, 80.0, 640.0, 5120.0, 40960.0, 327_680.0, 2_621_440.0, 20_971_520.0],
    ),
    ("cortex_ingester_queried_series", &[10.0, 80.0, 640.0, 5120.0, 40960.0, 327_680.0]),
    ("cortex_ingester_queried_chunks", &[10.0, 80.0, 640.0, 5120.0, 40960.0, 327_680.0, 2_621_440.0]),
    // Waits for a disk: finer than the default.
    (
        "ringkit_wal_commit_seconds",
        &[0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5],
    ),
    ("ringkit_replicas_acked", &[0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0]),
];

const MESSAGE_BYTES: [f64; 8] = [1e6, 2.5e6, 5e6, 10e6, 25e6, 50e6, 100e6, 250e6];

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use metrics::Unit;
    use ringkit_runtime::Meter;

    use super::*;

    #[test]
    fn histograms_have_cortexs_buckets() {
        let recorder = recorder().unwrap();
        let text = recorder.handle();
        let meter = Meter::new(Arc::new(recorder));
        meter.histogram("cortex_request_duration_seconds", Unit::Seconds, "").record(0.3);
        meter.histogram("cortex_shutdown_duration_seconds", Unit::Seconds, "").record(15.0);
        let text = text.render();
        assert!(text.contains("cortex_request_duration_seconds_bucket{le=\"0.25\"} 0\n"), "{text}");
        assert!(text.contains("cortex_request_duration_seconds_bucket{le=\"0.5\"} 1\n"));
        assert!(text.contains("cortex_request_duration_seconds_bucket{le=\"100\"} 1\n"));
        assert!(text.contains("cortex_shutdown_duration_seconds_bucket{le=\"10\"} 0\n"));
        assert!(text.contains("cortex_shutdown_duration_seconds_bucket{le=\"1280\"} 1\n"));
    }

    #[test]
    fn every_bucket_list_grows() {
        for (name, buckets) in BUCKETS {
            assert!(buckets.is_sorted_by(|a, b| a < b), "{name}");
        }
    }
}
