use ringkit_ring::token::shard_block;
use ringkit_ring::{
    EntryId, Instance, Operation, RingOptions, Snapshot, Strategy, gateways_of, owns_block, owns_tenant,
};
use serde_json::Value;

use crate::support::{count, list, ring, text, vectors};

const NOW: i64 = 1_700_000_000;

/// The 16 bytes of a ULID in its text of 26 characters.
fn ulid(text: &str) -> [u8; 16] {
    let digit = |c: char| "0123456789ABCDEFGHJKMNPQRSTVWXYZ".find(c).unwrap() as u128;
    text.chars().fold(0u128, |number, c| number << 5 | digit(c)).to_be_bytes()
}

fn ids(value: &Value) -> Vec<&str> {
    value.as_array().into_iter().flatten().map(|id| id.as_str().unwrap()).collect()
}

fn snapshot(case: &Value) -> Snapshot {
    let options = RingOptions {
        heartbeat_timeout: std::time::Duration::ZERO,
        replication_factor: count(case, "replication_factor"),
        zone_awareness_enabled: case["zone_awareness_enabled"] == true,
        strategy: Strategy::IgnoreUnhealthy,
        ..RingOptions::default()
    };
    Snapshot::first_sight(&ring(list(case, "instances")), NOW, &options)
}

/// The ids of the members for which `is_chosen` holds.
fn chosen(snapshot: &Snapshot, is_chosen: impl Fn(&Instance) -> bool) -> Vec<&str> {
    let members = snapshot.instances().iter();
    members.filter(|member| is_chosen(member)).map(|member| member.id.as_str()).collect()
}

#[test]
fn store_gateways_own_tenants_and_blocks_as_in_cortex() {
    let file = vectors("block_sharding");
    let mut blocks = 0;
    for case in list(&file, "rings") {
        let snapshot = snapshot(case);
        let limit = case["tenant_shard_size"].as_f64().unwrap();
        let zone_stable = case["zone_stable"] == true;
        let shard = |tenant: &str| gateways_of(&snapshot, tenant, limit, zone_stable);
        for (tenant, owners) in case["tenant_owned_by"].as_object().unwrap() {
            let owning = chosen(&snapshot, |member| owns_tenant(&shard(tenant), &member.id));
            assert_eq!(owning, ids(owners), "{tenant}");
        }
        for block in list(case, "blocks") {
            let id = ulid(text(block, "ulid"));
            for (field, op) in [
                ("owner_sync", Operation::BLOCKS_OWNER_SYNC),
                ("owner_read", Operation::BLOCKS_OWNER_READ),
                ("blocks_read", Operation::BLOCKS_READ),
            ] {
                let found = snapshot
                    .get(shard_block(&id), op, NOW)
                    .map(|owners| owners.ids().map(EntryId::as_str).collect::<Vec<_>>());
                assert_eq!(found.unwrap_or_default(), ids(&block[field]), "{block}");
            }
            for (tenant, owners) in block["owner_sync_by_tenant"].as_object().unwrap() {
                let gateways = shard(tenant);
                let owning =
                    chosen(&snapshot, |member| owns_block(&gateways, member.addr(), &id, false, NOW));
                assert_eq!(owning, ids(owners), "{tenant} {block}");
            }
            blocks += 1;
        }
    }
    assert_eq!(blocks, 4 * 8);
}

#[test]
fn a_loaded_block_is_kept_until_somebody_else_serves_it() {
    let ring = |state: &str| -> Snapshot {
        let member = serde_json::json!({"id": "aa", "addr": "aa:1", "state": state, "tokens": [1]});
        snapshot(&serde_json::json!({"replication_factor": 1, "instances": [member]}))
    };
    let id = [0; 16];
    let owns = |ring: &Snapshot, addr: &str, is_loaded: bool| owns_block(ring, addr, &id, is_loaded, NOW);
    let joining = ring("JOINING");
    assert!(owns(&joining, "aa:1", false), "the new owner loads it");
    assert!(owns(&joining, "c:1", true), "the old one keeps it meanwhile");
    assert!(!owns(&joining, "c:1", false));
    let active = ring("ACTIVE");
    assert!(owns(&active, "aa:1", false) && !owns(&active, "c:1", true), "and drops it then");
    let nobody = ring("PENDING");
    assert!(owns(&nobody, "c:1", true) && !owns(&nobody, "c:1", false), "nobody is known to own it");
}
