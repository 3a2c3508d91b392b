//! Which ingesters serve a tenant: all of them, or with shuffle sharding those of its shard.

use std::time::Duration;

use ringkit_config::{LimitsConfig, ShardingStrategy};
use ringkit_ring::{Shard, Snapshot};

use crate::distributor::Distributor;

impl Distributor {
    /// Whom the series of `tenant` are written to. Everybody without shuffle sharding, or for a tenant without a size.
    pub(crate) fn write_shard<'a>(&self, ring: &'a Snapshot, tenant: &str) -> Shard<'a> {
        ring.shuffle_shard(tenant, self.shard_size(&self.limits(tenant)))
    }

    /// Who may have series of `tenant`, with samples from `start_ms` on if that is given: its shard, and who was in it since
    /// then, or during the look-back period if that is longer. Everybody without such a period: who was in the shard before is not known then.
    ///
    /// Members are known to have been in a shard by when others registered. So it is not known whom a larger shard had
    /// before the tenant's size was lowered, or set for the first time, nor who stood in for an instance that was READONLY:
    /// what only they hold is not asked for, as in Cortex. Lower a size, or set one, when blocks cover what was written before.
    ///
    /// # Source
    ///
    /// Cortex's `GetIngestersForQuery` and `GetIngestersForMetadata`. Differs in looking back as far as the query.
    pub(crate) fn read_shard<'a>(
        &self,
        ring: &'a Snapshot,
        tenant: &str,
        start_ms: Option<i64>,
    ) -> Shard<'a> {
        // Registrations are other machines' times. The earlier of two clocks looks back further, which is never wrong.
        let now = self.clock.now_secs().min(self.ring.clock().now_secs());
        let limits = self.limits(tenant);
        match (self.shard_size(&limits), limits.shuffle_sharding_ingesters_lookback_period) {
            (0, _) | (_, Duration::ZERO) => ring.shuffle_shard(tenant, 0),
            (size, period) => {
                let asked = start_ms.map_or(Duration::ZERO, |start| whole_hours(now, start));
                ring.shuffle_shard_with_lookback(tenant, size, period.max(asked), now)
            }
        }
    }

    /// How many ingesters a tenant with these limits has; 0 = all.
    fn shard_size(&self, limits: &LimitsConfig) -> i64 {
        match self.config.distributor.sharding_strategy {
            ShardingStrategy::Default => 0,
            ShardingStrategy::ShuffleSharding => {
                i64::try_from(limits.ingestion_tenant_shard_size).unwrap_or(i64::MAX)
            }
        }
    }
}

/// From `start_ms` to `now` (Unix seconds), rounded up, so that queries of one length share a shard that is kept.
fn whole_hours(now: i64, start_ms: i64) -> Duration {
    const HOUR: u64 = 3600;
    let seconds = now.saturating_sub(start_ms.div_euclid(1000)).max(0).unsigned_abs();
    Duration::from_secs(seconds.div_ceil(HOUR).saturating_mul(HOUR))
}
