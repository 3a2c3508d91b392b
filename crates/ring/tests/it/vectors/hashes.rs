use ringkit_ring::Operation;
use ringkit_ring::token::{
    dynamic_shard_size, fnv1, fnv1a, shard_block, shard_by_all_labels, shard_by_metric_name, shard_by_user,
    shard_compaction_group, shard_metadata, shard_rule_group,
};

use crate::support::{count, list, number, text, token, vectors};

#[test]
fn texts_series_and_metadata_hash_as_in_cortex() {
    let file = vectors("token_hash");
    for case in list(&file, "strings") {
        let input = text(case, "input");
        assert_eq!(fnv1(input), token(&case["fnv1_32"]), "{input}");
        assert_eq!(fnv1a(input), token(&case["fnv1a_32"]), "{input}");
        assert_eq!(shard_by_user(input), token(&case["fnv1a_32"]));
    }
    for case in list(&file, "series") {
        let label = |pair: &serde_json::Value| -> (String, String) {
            (pair[0].as_str().unwrap().to_owned(), pair[1].as_str().unwrap().to_owned())
        };
        let labels: Vec<_> = list(case, "labels").iter().map(label).collect();
        let name = labels.iter().find(|(name, _)| name == "__name__").map_or("", |(_, value)| value);
        let tenant = text(case, "tenant");
        let borrowed = labels.iter().map(|(name, value)| (name, value));
        assert_eq!(shard_by_all_labels(tenant, borrowed), token(&case["shard_by_all_labels"]), "{case}");
        if case["shard_by_metric_name"].is_number() {
            assert_eq!(shard_by_metric_name(tenant, name), token(&case["shard_by_metric_name"]), "{case}");
        }
    }
    for case in list(&file, "metadata") {
        let (tenant, family) = (text(case, "tenant"), text(case, "metric_family"));
        let by_all = token(&case["token_when_sharding_by_all_labels"]);
        assert_eq!(shard_metadata(tenant, family, true), by_all, "{case}");
        assert_eq!(shard_metadata(tenant, family, false), token(&case["token_otherwise"]), "{case}");
    }
}

#[test]
fn rule_groups_compactions_and_blocks_hash_as_in_cortex() {
    let file = vectors("token_hash");
    for case in list(&file, "rule_groups") {
        let found = shard_rule_group(text(case, "user"), text(case, "namespace"), text(case, "name"));
        assert_eq!(found, token(&case["token"]), "{case}");
    }
    for case in list(&file, "compaction_groups") {
        let (start, end) = (number(case, "range_start_ms"), number(case, "range_end_ms"));
        assert_eq!(shard_compaction_group(text(case, "user"), start, end), token(&case["hash"]), "{case}");
    }
    for case in list(&file, "blocks") {
        let ulid = u128::from_str_radix(text(case, "bytes_hex"), 16).unwrap().to_be_bytes();
        assert_eq!(shard_block(&ulid), token(&case["token"]), "{case}");
        assert_eq!(fnv1a(text(case, "ulid")), token(&case["fnv1a_of_string"]), "{case}");
    }
}

#[test]
fn shard_sizes_follow_limits_as_in_cortex() {
    for case in list(&vectors("token_hash"), "dynamic_shard_size") {
        let value = case["value"].as_f64().unwrap();
        assert_eq!(dynamic_shard_size(value, count(case, "instances")), number(case, "shard_size"), "{case}");
    }
}

#[test]
fn operations_have_the_bitmaps_of_cortex() {
    let ours = [
        ("alertmanager.RingOp", Operation::ALERTMANAGER),
        ("alertmanager.RingOpNoExtension", Operation::ALERTMANAGER_NO_EXTENSION),
        ("alertmanager.SyncRingOp", Operation::ALERTMANAGER_SYNC),
        ("alertmanager.SyncRingOpNoExtension", Operation::ALERTMANAGER_SYNC_NO_EXTENSION),
        ("compactor.RingOp", Operation::COMPACTOR),
        ("parquetconverter.RingOp", Operation::COMPACTOR),
        ("ring.Read", Operation::READ),
        ("ring.Reporting", Operation::REPORTING),
        ("ring.Write", Operation::WRITE),
        ("ring.WriteNoExtend", Operation::WRITE_NO_EXTEND),
        ("ruler.ListRuleRingOp", Operation::RULER_LIST),
        ("ruler.RingOp", Operation::RULER),
        ("storegateway.BlocksOwnerRead", Operation::BLOCKS_OWNER_READ),
        ("storegateway.BlocksOwnerSync", Operation::BLOCKS_OWNER_SYNC),
        ("storegateway.BlocksRead", Operation::BLOCKS_READ),
    ];
    let file = vectors("token_hash");
    assert_eq!(file["operations"].as_object().unwrap().len(), ours.len());
    for (name, operation) in ours {
        assert_eq!(operation.bits(), token(&file["operations"][name]), "{name}");
    }
}
