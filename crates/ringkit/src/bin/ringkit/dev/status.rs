//! The status line: what the cluster is doing right now.

use std::io::Write as _;
use std::time::{Duration, Instant};

use ringkit::cluster::Cluster;
use ringkit_loadgen::Progress;
use ringkit_server::IngesterRing;

/// Shows one line again and again on a terminal, and a line now and then elsewhere.
pub(crate) struct Status {
    terminal: bool,
    loading: bool,
    started: Instant,
    last: Option<(Instant, u64)>,
}

/// Counts since the members started.
pub(crate) struct Totals {
    /// Samples that distributors took from clients.
    pub(crate) samples: u64,
    /// Series in the ingesters, replicas counted once per ingester.
    pub(crate) series: u64,
}

impl Status {
    pub(crate) fn new(terminal: bool, loading: bool) -> Self {
        Self { terminal, loading, started: Instant::now(), last: None }
    }

    /// Time between two lines.
    pub(crate) fn period(&self) -> Duration {
        Duration::from_secs(if self.terminal { 1 } else { 10 })
    }

    pub(crate) fn show(&mut self, cluster: &Cluster, load: Option<&Progress>) {
        let now = Instant::now();
        let totals = self.totals(cluster);
        let rate = match self.last {
            Some((then, before)) if now > then => {
                totals.samples.saturating_sub(before) as f64 / (now - then).as_secs_f64()
            }
            _ => 0.0,
        };
        self.last = Some((now, totals.samples));
        let mut line = format!(
            "{:>5.0}s  ingesters {}  {rate:.0} samples/s  {} samples  {} series",
            self.started.elapsed().as_secs_f64(),
            states(cluster),
            totals.samples,
            totals.series,
        );
        if let Some(load) = load.filter(|_| self.loading) {
            let failed: u64 = load.errors.values().sum();
            line += &format!("  load: {} acked, {failed} failed, {}", load.acked_samples, load.latency);
        }
        let mut out = std::io::stdout().lock();
        let _ = if self.terminal { write!(out, "\r\x1b[K{line}") } else { writeln!(out, "{line}") };
        let _ = out.flush();
    }

    /// Leaves the line as it is and begins a new one.
    pub(crate) fn end(&self) {
        if self.terminal {
            let _ = writeln!(std::io::stdout());
        }
    }

    pub(crate) fn totals(&self, cluster: &Cluster) -> Totals {
        let sum = |metric: &str| -> f64 {
            cluster
                .names()
                .filter_map(|name| cluster.member(name))
                .map(|member| metric_sum(&member.metrics(), metric))
                .sum()
        };
        Totals {
            samples: sum("cortex_distributor_received_samples_total") as u64,
            series: sum("cortex_ingester_memory_series") as u64,
        }
    }
}

/// `3 ACTIVE`, or every state with its count.
fn states(cluster: &Cluster) -> String {
    let ring = cluster
        .names()
        .filter_map(|name| cluster.member(name))
        .find_map(ringkit_server::Running::get::<IngesterRing>);
    let Some(IngesterRing(ring)) = ring else { return "unknown".into() };
    let snapshot = ring.snapshot();
    let mut counts = std::collections::BTreeMap::<String, usize>::new();
    for instance in snapshot.instances() {
        let healthy =
            snapshot.is_healthy(&instance.id, ringkit_ring::Operation::REPORTING, ring.clock().now_secs());
        let state = if healthy { instance.state().to_string() } else { "UNHEALTHY".into() };
        *counts.entry(state).or_default() += 1;
    }
    let counts: Vec<_> = counts.iter().map(|(state, count)| format!("{count} {state}")).collect();
    if counts.is_empty() { "none".into() } else { counts.join(", ") }
}

/// The sum over all series of a metric in the text exposition format.
fn metric_sum(text: &str, metric: &str) -> f64 {
    text.lines()
        .filter_map(|line| line.strip_prefix(metric))
        .filter(|rest| rest.starts_with(['{', ' ']))
        .filter_map(|rest| rest.rsplit(' ').next()?.parse::<f64>().ok())
        .sum()
}

#[cfg(test)]
mod tests {
    use super::metric_sum;

    #[test]
    fn a_metric_is_summed_over_its_series_and_nothing_else() {
        let text = "# TYPE a counter\na{user=\"x y\"} 2\na{user=\"z\"} 3\na_total 100\nb 7\n";
        assert!((metric_sum(text, "a") - 5.0).abs() < f64::EPSILON);
        assert!((metric_sum(text, "b") - 7.0).abs() < f64::EPSILON);
        assert!(metric_sum(text, "c").abs() < f64::EPSILON);
    }
}
