//! What is kept per tenant: a rate limiter, and counters that are read when somebody scrapes. Idle tenants are
//! forgotten, so that neither memory nor the number of series grows with every tenant ever seen.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::RwLock;
use ringkit_runtime::Families;

use crate::limits::Limiter;
use crate::prepare::Counts;
use crate::validate::Reason;

/// After this long without a request a tenant's counters and limiter go.
const IDLE: Duration = Duration::from_secs(20 * 60);
/// More tenants at once are served, but not counted. Far beyond what one process should carry.
const MAX_TENANTS: usize = 50_000;

/// The tenants of the last minutes.
#[derive(Debug, Default)]
pub(crate) struct Tenants {
    by_id: RwLock<HashMap<Arc<str>, Arc<Tenant>>>,
}

/// One tenant's state in this process.
#[derive(Debug, Default)]
pub(crate) struct Tenant {
    pub(crate) limiter: Limiter,
    counters: Counters,
    /// Milliseconds since the epoch.
    last_seen_ms: AtomicI64,
}

#[derive(Debug, Default)]
struct Counters {
    samples_in: AtomicU64,
    histograms_in: AtomicU64,
    exemplars_in: AtomicU64,
    metadata_in: AtomicU64,
    samples: AtomicU64,
    exemplars: AtomicU64,
    metadata: AtomicU64,
    discarded_samples: [AtomicU64; Reason::ALL.len()],
    discarded_exemplars: [AtomicU64; Reason::ALL.len()],
    discarded_metadata_rate_limited: AtomicU64,
    latest_ms: AtomicI64,
}

impl Tenants {
    /// The state of `id`, made on first sight. Takes a shared lock.
    pub(crate) fn get(&self, id: &str, now_ms: i64) -> Arc<Tenant> {
        let known = self.by_id.read().get(id).cloned();
        let tenant = known.unwrap_or_else(|| self.insert(id));
        tenant.last_seen_ms.store(now_ms, Ordering::Relaxed);
        tenant
    }

    fn insert(&self, id: &str) -> Arc<Tenant> {
        let mut by_id = self.by_id.write();
        if by_id.len() >= MAX_TENANTS && !by_id.contains_key(id) {
            tracing::warn!(
                tenants = by_id.len(),
                "too many tenants: a new one is served without limits and counters"
            );
            return Arc::default();
        }
        Arc::clone(by_id.entry(id.into()).or_default())
    }

    /// Forgets who has been idle. To be called every few minutes.
    pub(crate) fn forget_idle(&self, now_ms: i64) {
        let idle_ms = i64::try_from(IDLE.as_millis()).unwrap_or(i64::MAX);
        let oldest = now_ms.saturating_sub(idle_ms);
        self.by_id.write().retain(|_, tenant| tenant.last_seen_ms.load(Ordering::Relaxed) >= oldest);
    }

    /// Adds the series of every tenant.
    pub(crate) fn collect(&self, out: &mut Families) {
        let tenants: Vec<_> =
            self.by_id.read().iter().map(|(id, t)| (Arc::clone(id), Arc::clone(t))).collect();
        for (id, tenant) in tenants {
            tenant.counters.collect(&id, out);
        }
    }
}

impl Tenant {
    /// Counts what came in, before anything is decided about it.
    pub(crate) fn received(&self, counts: &Counts, metadata: u64) {
        let counters = &self.counters;
        add(&counters.samples_in, counts.samples_in);
        add(&counters.histograms_in, counts.histograms_in);
        add(&counters.exemplars_in, counts.exemplars_in);
        add(&counters.metadata_in, metadata);
        for index in 0..Reason::ALL.len() {
            add(&counters.discarded_samples[index], counts.discarded[index]);
            add(&counters.discarded_exemplars[index], counts.discarded_exemplars[index]);
        }
        counters.latest_ms.fetch_max(counts.latest_ms, Ordering::Relaxed);
    }

    /// Counts what passed every check and goes on.
    pub(crate) fn accepted(&self, counts: &Counts, metadata: u64) {
        add(&self.counters.samples, counts.samples);
        add(&self.counters.exemplars, counts.exemplars);
        add(&self.counters.metadata, metadata);
    }

    /// Counts a request that came too fast: none of it is stored.
    pub(crate) fn rate_limited(&self, counts: &Counts, metadata: u64) {
        let index = Reason::RateLimited.index();
        add(&self.counters.discarded_samples[index], counts.samples);
        add(&self.counters.discarded_exemplars[index], counts.exemplars);
        add(&self.counters.discarded_metadata_rate_limited, metadata);
    }
}

fn add(counter: &AtomicU64, num: u64) {
    if num > 0 {
        counter.fetch_add(num, Ordering::Relaxed);
    }
}

impl Counters {
    fn collect(&self, user: &str, out: &mut Families) {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed) as f64;
        for (kind, samples_in, samples) in [
            ("float", get(&self.samples_in), get(&self.samples)),
            ("histogram", get(&self.histograms_in), 0.0),
        ] {
            let labels = [("user", user), ("type", kind)];
            let help = "The total number of samples that have come in to the distributor, including rejected or deduped samples.";
            out.counter("cortex_distributor_samples_in_total", help, &labels, samples_in);
            let help = "The total number of received samples, excluding rejected and deduped samples.";
            out.counter("cortex_distributor_received_samples_total", help, &labels, samples);
        }
        let user = ("user", user);
        let help = "The total number of exemplars that have come in to the distributor, including rejected or deduped exemplars.";
        out.counter("cortex_distributor_exemplars_in_total", help, &[user], get(&self.exemplars_in));
        let help = "The total number of received exemplars, excluding rejected and deduped exemplars. They are accepted and not stored.";
        out.counter("cortex_distributor_received_exemplars_total", help, &[user], get(&self.exemplars));
        let help = "The total number of metadata that have come in to the distributor, including rejected.";
        out.counter("cortex_distributor_metadata_in_total", help, &[user], get(&self.metadata_in));
        let help =
            "The total number of received metadata, excluding rejected. They are accepted and not stored.";
        out.counter("cortex_distributor_received_metadata_total", help, &[user], get(&self.metadata));
        let latest = self.latest_ms.load(Ordering::Relaxed);
        if latest > 0 {
            let help = "Unix timestamp of latest received sample per user.";
            let name = "cortex_distributor_latest_seen_sample_timestamp_seconds";
            out.gauge(name, help, &[user], latest as f64 / 1000.0);
        }
        for reason in Reason::ALL {
            let labels = [("reason", reason.as_str()), user];
            for (name, help, counters) in [
                (
                    "cortex_discarded_samples_total",
                    "The total number of samples that were discarded.",
                    &self.discarded_samples,
                ),
                (
                    "cortex_discarded_exemplars_total",
                    "The total number of exemplars that were discarded.",
                    &self.discarded_exemplars,
                ),
            ] {
                let value = get(&counters[reason.index()]);
                if value > 0.0 {
                    out.counter(name, help, &labels, value);
                }
            }
        }
        let metadata = get(&self.discarded_metadata_rate_limited);
        if metadata > 0.0 {
            let labels = [("reason", Reason::RateLimited.as_str()), user];
            let help = "The total number of metadata that were discarded.";
            out.counter("cortex_discarded_metadata_total", help, &labels, metadata);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn idle_tenants_are_forgotten_and_busy_ones_kept() {
        let tenants = Tenants::default();
        let idle_ms = i64::try_from(IDLE.as_millis()).unwrap();
        let first = tenants.get("idle", 0);
        tenants.get("busy", idle_ms);
        tenants.forget_idle(idle_ms + 1);
        assert!(!Arc::ptr_eq(&first, &tenants.get("idle", idle_ms + 1)));
        assert_eq!(tenants.by_id.read().len(), 2);
    }

    #[test]
    fn one_tenant_has_one_state() {
        let tenants = Tenants::default();
        assert!(Arc::ptr_eq(&tenants.get("a", 1), &tenants.get("a", 2)));
        assert!(!Arc::ptr_eq(&tenants.get("a", 1), &tenants.get("b", 2)));
    }
}
