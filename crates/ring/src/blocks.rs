//! Which tenants and blocks a store-gateway serves.

use crate::operation::Operation;
use crate::shard::Shard;
use crate::snapshot::Snapshot;
use crate::token::{dynamic_shard_size, shard_block};
use crate::view::View;

/// The store-gateways that serve `tenant`. `limit` is below 1 a fraction of the ring, otherwise a number of members, and
/// none above 0 means all of them.
pub fn gateways_of<'a>(snapshot: &'a Snapshot, tenant: &str, limit: f64, zone_stable: bool) -> Shard<'a> {
    let size = dynamic_shard_size(limit, snapshot.instances().len());
    if zone_stable {
        snapshot.shuffle_shard_zone_stable(tenant, size)
    } else {
        snapshot.shuffle_shard(tenant, size)
    }
}

/// Whether the store-gateway called `id` serves the tenant whose shard this is.
///
/// # Source
///
/// Cortex's `FilterUsers` of store-gateways.
pub fn owns_tenant(shard: &Shard<'_>, id: &str) -> bool {
    shard.contains(id)
}

/// Whether the store-gateway reached on `addr` is to serve the block with this ULID (16 bytes, not its text), where
/// `gateways` are those of the tenant.
///
/// A block that it has `is_loaded` is kept as long as the ring cannot say who should have it, or nobody else does.
///
/// # Source
///
/// Cortex's `FilterBlocks` of store-gateways.
pub fn owns_block(gateways: &impl View, addr: &str, ulid: &[u8; 16], is_loaded: bool, now: i64) -> bool {
    let token = shard_block(ulid);
    match gateways.get(token, Operation::BLOCKS_OWNER_SYNC, now) {
        Ok(owners) if owners.includes(addr) => true,
        // Until the new owners are ACTIVE a querier would find the block nowhere.
        Ok(_) => is_loaded && gateways.get(token, Operation::BLOCKS_OWNER_READ, now).is_err(),
        Err(_) => is_loaded,
    }
}
