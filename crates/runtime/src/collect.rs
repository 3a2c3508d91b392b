//! Metrics computed when somebody scrapes: no stale series, no cost for those who change the state.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::{Arc, Weak};

use metrics::Label;
use parking_lot::Mutex;

/// Computes metric values at scrape time.
pub trait Collect: Send + Sync {
    /// Adds this collector's series to `out`. Called for every scrape, on the scraping task: it must not block.
    fn collect(&self, out: &mut Families);
}

impl<F: Fn(&mut Families) + Send + Sync> Collect for F {
    fn collect(&self, out: &mut Families) {
        self(out);
    }
}

/// Keeps a registered collector; dropping it removes the collector.
#[derive(Debug)]
#[must_use = "the collector is removed when the guard drops"]
pub struct CollectGuard {
    pub(crate) registry: Weak<Collectors>,
    pub(crate) id: u64,
}

impl Drop for CollectGuard {
    fn drop(&mut self) {
        if let Some(registry) = self.registry.upgrade() {
            registry.entries.lock().remove(self.id);
        }
    }
}

/// The collectors of one recorder.
#[derive(Default)]
pub(crate) struct Collectors {
    entries: Mutex<Entries>,
}

#[derive(Default)]
struct Entries {
    next_id: u64,
    by_id: BTreeMap<u64, Entry>,
}

#[derive(Clone)]
struct Entry {
    labels: Arc<[Label]>,
    collector: Arc<dyn Collect>,
}

impl Entries {
    fn remove(&mut self, id: u64) -> Option<Entry> {
        self.by_id.remove(&id)
    }
}

impl std::fmt::Debug for Collectors {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Collectors").field("len", &self.entries.lock().by_id.len()).finish()
    }
}

impl Collectors {
    pub(crate) fn add(self: &Arc<Self>, labels: Arc<[Label]>, collector: Arc<dyn Collect>) -> CollectGuard {
        let mut entries = self.entries.lock();
        let id = entries.next_id;
        entries.next_id += 1;
        entries.by_id.insert(id, Entry { labels, collector });
        CollectGuard { registry: Arc::downgrade(self), id }
    }

    pub(crate) fn render(&self) -> String {
        // Collectors run outside the lock: one may drop a guard.
        let entries: Vec<Entry> = self.entries.lock().by_id.values().cloned().collect();
        let mut families = Families::default();
        for entry in entries {
            families.inherited = entry.labels;
            entry.collector.collect(&mut families);
        }
        families.render()
    }
}

/// What collectors add their series to: grouped by metric name, so that `# HELP` and `# TYPE` appear once.
#[derive(Debug, Default)]
pub struct Families {
    inherited: Arc<[Label]>,
    by_name: BTreeMap<String, Family>,
}

#[derive(Debug)]
struct Family {
    kind: &'static str,
    help: String,
    series: String,
}

impl Families {
    /// Adds one gauge series. `name` is the full metric name; labels given here win over inherited ones.
    pub fn gauge(&mut self, name: &str, help: &str, labels: &[(&str, &str)], value: f64) {
        self.add("gauge", name, help, labels, value);
    }

    /// Adds one counter series. `name` is the full metric name, with its `_total`.
    pub fn counter(&mut self, name: &str, help: &str, labels: &[(&str, &str)], value: f64) {
        self.add("counter", name, help, labels, value);
    }

    fn add(&mut self, kind: &'static str, name: &str, help: &str, labels: &[(&str, &str)], value: f64) {
        if !self.by_name.contains_key(name) {
            let family = Family { kind, help: help.to_owned(), series: String::new() };
            self.by_name.insert(name.to_owned(), family);
        }
        let Some(family) = self.by_name.get_mut(name) else { return };
        if family.kind != kind {
            tracing::warn!(metric = name, is = family.kind, wanted = kind, "metric collected with two types");
            return;
        }
        let out = &mut family.series;
        out.push_str(name);
        let own = labels.iter().copied();
        let inherited = self.inherited.iter().map(|label| (label.key(), label.value()));
        let inherited = inherited.filter(|(key, _)| labels.iter().all(|(own, _)| own != key));
        let mut separator = '{';
        for (key, value) in inherited.chain(own) {
            out.push(separator);
            out.push_str(key);
            out.push_str("=\"");
            push_escaped(out, value, true);
            out.push('"');
            separator = ',';
        }
        if separator == ',' {
            out.push('}');
        }
        out.push(' ');
        push_value(out, value);
        out.push('\n');
    }

    fn render(&self) -> String {
        let mut out = String::new();
        for (name, family) in &self.by_name {
            out.push_str("# HELP ");
            out.push_str(name);
            out.push(' ');
            push_escaped(&mut out, &family.help, false);
            out.push_str("\n# TYPE ");
            out.push_str(name);
            out.push(' ');
            out.push_str(family.kind);
            out.push('\n');
            out.push_str(&family.series);
        }
        out
    }
}

fn push_escaped(out: &mut String, text: &str, quotes: bool) {
    // Nearly always there is nothing to escape, and there may be many thousand series.
    if !text.bytes().any(|byte| matches!(byte, b'\\' | b'\n' | b'"')) {
        out.push_str(text);
        return;
    }
    for c in text.chars() {
        match c {
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '"' if quotes => out.push_str("\\\""),
            c => out.push(c),
        }
    }
}

fn push_value(out: &mut String, value: f64) {
    // Prometheus' spelling of what Rust prints as `inf` and `NaN`.
    if value.is_infinite() {
        out.push_str(if value > 0.0 { "+Inf" } else { "-Inf" });
    } else {
        // Writing to a string cannot fail.
        let _ = write!(out, "{value}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Meter;

    fn meter() -> Meter {
        Meter::new(Arc::new(metrics::NoopRecorder))
    }

    #[test]
    fn series_of_one_name_share_their_help_and_type_whoever_collects_them() {
        let meter = meter();
        let ring = |name: &'static str| {
            let members = move |out: &mut Families| {
                out.gauge(
                    "cortex_ring_members",
                    "Number of members in the ring",
                    &[("state", "ACTIVE")],
                    3.0,
                );
            };
            meter.with("name", name).collect(Arc::new(members))
        };
        let _guards = [ring("ingester"), ring("store-gateway")];
        assert_eq!(
            meter.render_collected(),
            "# HELP cortex_ring_members Number of members in the ring\n\
             # TYPE cortex_ring_members gauge\n\
             cortex_ring_members{name=\"ingester\",state=\"ACTIVE\"} 3\n\
             cortex_ring_members{name=\"store-gateway\",state=\"ACTIVE\"} 3\n"
        );
    }

    #[test]
    fn a_dropped_guard_removes_its_series() {
        let meter = meter();
        let guard = meter.collect(Arc::new(|out: &mut Families| out.counter("a_total", "A", &[], 1.0)));
        assert_eq!(meter.render_collected(), "# HELP a_total A\n# TYPE a_total counter\na_total 1\n");
        drop(guard);
        assert_eq!(meter.render_collected(), "");
    }

    #[test]
    fn hostile_label_values_and_odd_numbers_stay_within_the_format() {
        let meter = meter().with("zone", "inherited");
        let _guard = meter.collect(Arc::new(|out: &mut Families| {
            out.gauge("g", "two\nlines \\", &[("zone", "a\"} 1\n\\")], f64::INFINITY);
            out.gauge("g", "", &[], f64::NEG_INFINITY);
            out.gauge("g", "", &[], f64::NAN);
        }));
        assert_eq!(
            meter.render_collected(),
            "# HELP g two\\nlines \\\\\n# TYPE g gauge\ng{zone=\"a\\\"} 1\\n\\\\\"} +Inf\n\
             g{zone=\"inherited\"} -Inf\ng{zone=\"inherited\"} NaN\n"
        );
    }

    #[test]
    fn one_name_keeps_its_first_type() {
        let meter = meter();
        let _guard = meter.collect(Arc::new(|out: &mut Families| {
            out.gauge("g", "G", &[], 1.0);
            out.counter("g", "G", &[], 2.0);
        }));
        assert_eq!(meter.render_collected(), "# HELP g G\n# TYPE g gauge\ng 1\n");
    }

    #[test]
    fn a_disabled_meter_collects_nothing() {
        let meter = Meter::disabled();
        let _guard = meter.collect(Arc::new(|out: &mut Families| out.gauge("g", "G", &[], 1.0)));
        assert_eq!(meter.render_collected(), "");
    }
}
