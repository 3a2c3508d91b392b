//! Which ingesters serve a tenant: all of them, or with shuffle sharding those of its shard.

use std::time::Duration;

use ringkit_config::ShardingStrategy;
use ringkit_ring::{Shard, Snapshot};

use crate::distributor::Distributor;

impl Distributor {
    /// Whom the series of `tenant` are written to. Everybody without shuffle sharding, or for a tenant without a size.
    pub(crate) fn write_shard<'a>(&self, ring: &'a Snapshot, tenant: &str) -> Shard<'a> {
        ring.shuffle_shard(tenant, self.shard_size(tenant))
    }

    /// Who may have series of `tenant`: its shard, and who was in it during the look-back period that ends `now` (Unix
    /// seconds). Everybody without such a period: who was in the shard before is not known then.
    ///
    /// # Source
    ///
    /// Cortex's `GetIngestersForQuery` and `GetIngestersForMetadata`.
    pub(crate) fn read_shard<'a>(&self, ring: &'a Snapshot, tenant: &str, now: i64) -> Shard<'a> {
        match (self.shard_size(tenant), self.limits(tenant).shuffle_sharding_ingesters_lookback_period) {
            (0, _) | (_, Duration::ZERO) => ring.shuffle_shard(tenant, 0),
            (size, period) => ring.shuffle_shard_with_lookback(tenant, size, period, now),
        }
    }

    /// How many ingesters the tenant has; 0 = all.
    fn shard_size(&self, tenant: &str) -> i64 {
        match self.config.distributor.sharding_strategy {
            ShardingStrategy::Default => 0,
            ShardingStrategy::ShuffleSharding => {
                i64::try_from(self.limits(tenant).ingestion_tenant_shard_size).unwrap_or(i64::MAX)
            }
        }
    }
}
