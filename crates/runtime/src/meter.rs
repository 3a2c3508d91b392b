//! Metric handles without a global recorder: a recorder and the labels inherited on the way down to a component.

use std::fmt;
use std::sync::{Arc, Weak};

use metrics::{
    Counter, Gauge, Histogram, Key, KeyName, Label, Level, Metadata, Recorder, SharedString, Unit,
};

use crate::collect::{Collect, CollectGuard, Collectors};

/// Hands out metric handles that write to one recorder with inherited labels. Cheap to clone.
///
/// Components ask for their handles once, when they are built, and keep them: a handle is an atomic, a lookup hashes
/// strings. Names are complete (`cortex_ring_members`); nothing is prefixed.
#[derive(Clone)]
pub struct Meter {
    root: Option<Root>,
    labels: Arc<[Label]>,
}

#[derive(Clone)]
struct Root {
    recorder: Arc<dyn Recorder + Send + Sync>,
    collectors: Arc<Collectors>,
}

impl fmt::Debug for Meter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Meter").field("enabled", &self.root.is_some()).field("labels", &self.labels).finish()
    }
}

impl Default for Meter {
    fn default() -> Self {
        Self::disabled()
    }
}

impl Meter {
    /// A meter whose handles do nothing.
    pub fn disabled() -> Self {
        Self { root: None, labels: Arc::default() }
    }

    /// A meter that writes to `recorder`, without labels yet.
    pub fn new(recorder: Arc<dyn Recorder + Send + Sync>) -> Self {
        Self { root: Some(Root { recorder, collectors: Arc::default() }), labels: Arc::default() }
    }

    /// The same meter with one more label on everything made from it; replaces an inherited label of that name.
    ///
    /// Values must come from a closed set or from configuration, never from a request.
    #[must_use]
    pub fn with(&self, label: &'static str, value: impl Into<SharedString>) -> Self {
        let kept = self.labels.iter().filter(|inherited| inherited.key() != label).cloned();
        let added = Label::new(label, value);
        Self { root: self.root.clone(), labels: kept.chain([added]).collect() }
    }

    /// A counter that only grows. The same name and labels give the same counter.
    pub fn counter(&self, name: &'static str, unit: Unit, help: &'static str) -> Counter {
        let Some(Root { recorder, .. }) = &self.root else { return Counter::noop() };
        recorder.describe_counter(KeyName::from_const_str(name), Some(unit), SharedString::const_str(help));
        recorder.register_counter(&self.key(name), &METADATA)
    }

    /// A value that goes up and down. The same name and labels give the same gauge.
    pub fn gauge(&self, name: &'static str, unit: Unit, help: &'static str) -> Gauge {
        let Some(Root { recorder, .. }) = &self.root else { return Gauge::noop() };
        recorder.describe_gauge(KeyName::from_const_str(name), Some(unit), SharedString::const_str(help));
        recorder.register_gauge(&self.key(name), &METADATA)
    }

    /// A distribution. Its buckets are the recorder's business.
    pub fn histogram(&self, name: &'static str, unit: Unit, help: &'static str) -> Histogram {
        let Some(Root { recorder, .. }) = &self.root else { return Histogram::noop() };
        recorder.describe_histogram(KeyName::from_const_str(name), Some(unit), SharedString::const_str(help));
        recorder.register_histogram(&self.key(name), &METADATA)
    }

    /// Registers values computed at scrape time. The collector is kept until the returned guard drops.
    pub fn collect(&self, collector: Arc<dyn Collect>) -> CollectGuard {
        match &self.root {
            Some(root) => root.collectors.add(Arc::clone(&self.labels), collector),
            None => CollectGuard { registry: Weak::new(), id: 0 },
        }
    }

    /// The series of all collectors of this recorder (not only of this meter) in the Prometheus text format.
    pub fn render_collected(&self) -> String {
        self.root.as_ref().map(|root| root.collectors.render()).unwrap_or_default()
    }

    fn key(&self, name: &'static str) -> Key {
        Key::from_parts(name, self.labels.to_vec())
    }
}

static METADATA: Metadata<'static> = Metadata::new(module_path!(), Level::INFO, None);

#[cfg(test)]
mod tests {
    use metrics_exporter_prometheus::PrometheusBuilder;

    use super::*;

    #[test]
    fn handles_write_to_their_own_recorder_with_inherited_labels() {
        let [one, two] = [(); 2].map(|()| PrometheusBuilder::new().build_recorder());
        let (one_text, two_text) = (one.handle(), two.handle());
        let (one, two) = (Meter::new(Arc::new(one)), Meter::new(Arc::new(two)));
        one.with("name", "ingester").counter("requests_total", Unit::Count, "Requests").increment(2);
        one.with("name", "x").with("name", "y").gauge("level", Unit::Count, "Level").set(1.5);
        two.counter("requests_total", Unit::Count, "Requests").increment(1);
        assert!(one_text.render().contains("requests_total{name=\"ingester\"} 2\n"));
        assert!(one_text.render().contains("level{name=\"y\"} 1.5\n"));
        assert!(two_text.render().contains("requests_total 1\n"));
        assert!(!two_text.render().contains("ingester"));
    }

    #[test]
    fn a_disabled_meter_gives_handles_that_do_nothing() {
        let meter = Meter::disabled().with("a", "b");
        meter.counter("c", Unit::Count, "").increment(1);
        meter.gauge("g", Unit::Count, "").set(1.0);
        meter.histogram("h", Unit::Seconds, "").record(1.0);
        assert_eq!(meter.render_collected(), "");
    }
}
