//! The newest samples of all tenants, in memory: series, an index of their labels, chunks.

mod append;
mod labels;
mod postings;
mod reject;
mod series;
mod shard;
mod symbols;
mod tenant;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use hashbrown::{HashMap, HashSet};
use parking_lot::RwLock;

pub(crate) use self::append::{Outcome, PushError};
pub(crate) use self::labels::{Canonical, display};
pub(crate) use self::reject::Reject;
pub(crate) use self::series::{Chunk, Series};
pub(crate) use self::shard::{Shard, Slot};
pub(crate) use self::tenant::Tenant;
use crate::wal::{self, Journal};

/// How many series may be made. 0 means any number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Limits {
    /// In this process.
    pub(crate) instance: usize,
    /// Of a tenant, in this process.
    pub(crate) per_user: usize,
    /// Of a metric of a tenant, in this process.
    pub(crate) per_metric: usize,
}

impl Limits {
    pub(crate) const NONE: Self = Self { instance: 0, per_user: 0, per_metric: 0 };
}

/// What is counted over all tenants.
#[derive(Debug)]
pub(crate) struct Totals {
    pub(crate) series: AtomicUsize,
    pub(crate) created: metrics::Counter,
    pub(crate) removed: metrics::Counter,
    next_id: AtomicU64,
    /// Metrics without a limit of their own.
    unlimited_metrics: HashSet<String>,
}

impl Totals {
    pub(crate) fn new(created: metrics::Counter, removed: metrics::Counter) -> Self {
        Self {
            series: AtomicUsize::new(0),
            created,
            removed,
            next_id: AtomicU64::new(1),
            unlimited_metrics: HashSet::new(),
        }
    }

    /// Metrics whose number of series only the other limits bound.
    pub(crate) fn with_unlimited_metrics(self, names: impl IntoIterator<Item = String>) -> Self {
        Self { unlimited_metrics: names.into_iter().collect(), ..self }
    }

    /// A number for a series that no other series in the log has.
    fn next_id(&self) -> u64 {
        self.next_id.fetch_add(1, Ordering::Relaxed)
    }

    /// Replay: `id` is taken.
    pub(crate) fn take_id(&self, id: u64) {
        self.next_id.fetch_max(id.saturating_add(1), Ordering::Relaxed);
    }
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Head {
    tenants: RwLock<HashMap<Arc<str>, Arc<Tenant>>>,
    pub(crate) totals: Arc<Totals>,
    retention_ms: i64,
}

/// The process has as many tenants as it may.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TooManyTenants;

impl Head {
    /// An empty head that keeps samples for `retention_ms` milliseconds.
    pub(crate) fn new(retention_ms: i64, totals: Totals) -> Self {
        Self { tenants: RwLock::default(), totals: Arc::new(totals), retention_ms }
    }

    pub(crate) fn tenant(&self, id: &str) -> Option<Arc<Tenant>> {
        self.tenants.read().get(id).cloned()
    }

    /// All tenants, sorted by name.
    pub(crate) fn tenants(&self) -> Vec<Arc<Tenant>> {
        let mut tenants: Vec<_> = self.tenants.read().values().cloned().collect();
        tenants.sort_unstable_by(|a, b| a.id.cmp(&b.id));
        tenants
    }

    pub(crate) fn num_tenants(&self) -> usize {
        self.tenants.read().len()
    }

    /// A tenant, new if need be and if there are fewer than `limit` (0: any number).
    ///
    /// # Errors
    ///
    /// [`TooManyTenants`].
    pub(crate) fn open_tenant(&self, id: &str, limit: usize) -> Result<Arc<Tenant>, TooManyTenants> {
        if let Some(tenant) = self.tenant(id) {
            return Ok(tenant);
        }
        let mut tenants = self.tenants.write();
        if let Some(tenant) = tenants.get(id) {
            return Ok(Arc::clone(tenant));
        }
        if limit > 0 && tenants.len() >= limit {
            return Err(TooManyTenants);
        }
        Ok(self.add_tenant(&mut tenants, id))
    }

    fn add_tenant(&self, tenants: &mut HashMap<Arc<str>, Arc<Tenant>>, id: &str) -> Arc<Tenant> {
        let id: Arc<str> = id.into();
        let tenant = Arc::new(Tenant::new(Arc::clone(&id), Arc::clone(&self.totals)));
        tenants.insert(id, Arc::clone(&tenant));
        tenant
    }

    /// Replay: a tenant, whatever the limit.
    pub(crate) fn restore_tenant(&self, id: &str) -> Arc<Tenant> {
        let mut tenants = self.tenants.write();
        match tenants.get(id) {
            Some(tenant) => Arc::clone(tenant),
            None => self.add_tenant(&mut tenants, id),
        }
    }

    /// Replay: drops a tenant.
    pub(crate) fn forget_tenant(&self, id: &str) {
        let tenant = self.tenants.write().remove(id);
        if let Some(tenant) = tenant {
            tenant.clear();
        }
    }

    /// The time before which a tenant's samples are not taken, in milliseconds.
    pub(crate) fn lower_bound(&self, tenant: &Tenant, now_ms: i64) -> i64 {
        tenant.lower_bound(now_ms, self.retention_ms)
    }

    /// Drops what is older than the retention, and tenants that have sent nothing for as long. Returns the number of
    /// chunks dropped.
    ///
    /// # Errors
    ///
    /// If the log no longer takes records.
    pub(crate) fn expire(&self, now_ms: i64, log: &impl Journal) -> Result<usize, wal::Failed> {
        let mut chunks = 0;
        for tenant in self.tenants() {
            let quiet_since = tenant.last_push_ms.load(Ordering::Relaxed);
            if quiet_since == i64::MIN {
                // Came from the log: quiet since now, not for ever.
                tenant.last_push_ms.fetch_max(now_ms, Ordering::Relaxed);
            } else if quiet_since < now_ms.saturating_sub(self.retention_ms) {
                chunks += self.remove_tenant(&tenant, quiet_since, log)?;
                continue;
            }
            chunks += tenant.expire(self.lower_bound(&tenant, now_ms));
        }
        Ok(chunks)
    }

    fn remove_tenant(
        &self,
        tenant: &Tenant,
        quiet_since: i64,
        log: &impl Journal,
    ) -> Result<usize, wal::Failed> {
        // Nobody can open the tenant anew before it is gone from here and in the log.
        let mut tenants = self.tenants.write();
        let record = || {
            let mut frame = Vec::new();
            // A tenant's name is short.
            let _ = ringkit_tsdb::log::put_tenant_removed(&mut frame, &tenant.id);
            log.append(&frame).map(drop)
        };
        let removed = tenant.remove_if_quiet(quiet_since, record)?;
        if removed.is_some() {
            tenants.remove(&tenant.id);
        }
        Ok(removed.unwrap_or_default())
    }
}

#[cfg(test)]
mod tests;
