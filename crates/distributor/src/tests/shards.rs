use std::collections::BTreeSet;
use std::time::Duration;

use ringkit_config::{Config, ShardingStrategy};
use ringkit_ring::{InstanceDesc, Tokens};

use super::harness::{Cluster, NOW, eventually, many};

const HOUR: Duration = Duration::from_secs(3_600);

/// Shuffle sharding with `size` ingesters per tenant. Reads wait for everybody who is asked.
fn sharded(size: usize, lookback: Duration) -> impl FnOnce(&mut Config) {
    move |config| {
        config.distributor.sharding_strategy = ShardingStrategy::ShuffleSharding;
        config.distributor.read_grace = Duration::from_secs(10);
        config.limits.ingestion_tenant_shard_size = size;
        config.limits.shuffle_sharding_ingesters_lookback_period = lookback;
    }
}

/// A cluster of `num` ingesters that registered a day ago and whose tokens lie all over the circle.
fn cluster(num: usize, change: impl FnOnce(&mut Config)) -> Cluster {
    Cluster::with(num, change, spread)
}

fn spread(number: usize, entry: &mut InstanceDesc) {
    entry.tokens = tokens_of(number).collect();
}

fn tokens_of(number: usize) -> impl Iterator<Item = u32> {
    let first = u32::try_from(number).unwrap() * 64;
    (first..first + 64).map(|token| (token + 1).wrapping_mul(2_654_435_761))
}

/// The numbers of the ingesters that the ring counts to the tenant's shard of `size`.
fn shard(cluster: &Cluster, size: i64) -> Vec<usize> {
    let snapshot = cluster.distributor.ring.snapshot();
    let shard = snapshot.shuffle_shard("tenant", size);
    (0..cluster.fakes.len()).filter(|number| shard.contains(&format!("ingester-{number}"))).collect()
}

fn holders(cluster: &Cluster) -> Vec<usize> {
    (0..cluster.fakes.len()).filter(|number| cluster.fakes[*number].num_samples("tenant") > 0).collect()
}

/// The numbers of the ingesters that were asked anything.
fn asked(cluster: &Cluster) -> Vec<usize> {
    let queries = |number: &usize| {
        let series = format!("cortex_distributor_ingester_queries_total{{ingester=\"ingester-{number}\"}}");
        cluster.metric(&series) > 0.0
    };
    (0..cluster.fakes.len()).filter(queries).collect()
}

async fn write(cluster: &Cluster, num: usize) {
    assert_eq!(cluster.push(&many(num)).await.status, 200);
    let total = || cluster.fakes.iter().map(|fake| fake.num_samples("tenant")).sum::<usize>();
    eventually("all replicas", || total() == 3 * num).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tenants_series_land_on_its_shard_only_and_are_read_from_there() {
    let cluster = cluster(9, sharded(4, HOUR));
    write(&cluster, 200).await;
    let shard = shard(&cluster, 4);
    assert_eq!((shard.len(), holders(&cluster)), (4, shard.clone()));
    assert_eq!(cluster.read(NOW - 10, NOW).await.unwrap().len(), 200);
    assert_eq!(asked(&cluster), shard);
}

#[tokio::test(flavor = "multi_thread")]
async fn labels_series_and_statistics_are_asked_of_the_shard() {
    let cluster = cluster(9, sharded(3, HOUR));
    write(&cluster, 20).await;
    for path in [
        "/prometheus/api/v1/labels",
        "/prometheus/api/v1/label/label/values",
        "/prometheus/api/v1/series?match[]=metric",
        "/api/v1/user_stats",
    ] {
        let answer = cluster.get(path).await;
        assert_eq!(answer.status, 200, "{path}: {}", answer.text());
    }
    assert_eq!(asked(&cluster), shard(&cluster, 3));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_smaller_shard_took_is_found_after_the_size_was_raised() {
    let cluster = cluster(9, sharded(3, HOUR));
    write(&cluster, 100).await;
    let before = holders(&cluster);
    let cluster = cluster.replaced(sharded(6, HOUR), spread);
    let after = shard(&cluster, 6);
    assert!(before.len() == 3 && before.iter().all(|number| after.contains(number)), "{before:?} {after:?}");
    assert_eq!(cluster.read(NOW - 10, NOW).await.unwrap().len(), 100);
    assert_eq!(asked(&cluster), after);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_made_room_for_a_newcomer_is_asked_for_as_long_as_one_looks_back() {
    // Ingester 8 has no tokens at first. When it has, they stand right before those of the others, so that it is in
    // every shard, and somebody has to go.
    let cluster = Cluster::with(9, sharded(3, HOUR), |number, entry| {
        entry.tokens = if number == 8 { Tokens::empty() } else { tokens_of(number).collect() };
    });
    write(&cluster, 50).await;
    let old = holders(&cluster);
    let joined_before = |secs: i64| {
        move |number: usize, entry: &mut InstanceDesc| {
            spread(number, entry);
            if number == 8 {
                entry.registered_timestamp = NOW / 1000 - secs;
                entry.tokens = (0..8).flat_map(tokens_of).map(|token| token - 1).collect();
            }
        }
    };
    let cluster = cluster.replaced(sharded(3, HOUR), joined_before(3_600));
    let new = shard(&cluster, 3);
    assert!(new.contains(&8) && !old.iter().all(|number| new.contains(number)), "{old:?} {new:?}");
    assert_eq!(cluster.read(NOW - 10, NOW).await.unwrap().len(), 50);
    let both: BTreeSet<usize> = old.iter().chain(&new).copied().collect();
    assert_eq!(asked(&cluster), both.into_iter().collect::<Vec<_>>());

    let cluster = cluster.replaced(sharded(3, HOUR), joined_before(3_601));
    assert_eq!(cluster.read(NOW - 10, NOW).await.unwrap().len(), 50);
    assert_eq!(asked(&cluster), new);

    // A query for what was written before looks back further by itself.
    let cluster = cluster.replaced(sharded(3, HOUR), joined_before(3_601));
    assert_eq!(cluster.read(NOW - 3_700_000, NOW).await.unwrap().len(), 50);
    let both: BTreeSet<usize> = old.iter().chain(&new).copied().collect();
    assert_eq!(asked(&cluster), both.into_iter().collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_look_back_everybody_is_asked() {
    let cluster = cluster(6, sharded(3, Duration::ZERO));
    write(&cluster, 50).await;
    assert_eq!(holders(&cluster), shard(&cluster, 3));
    assert_eq!(cluster.read(NOW - 10, NOW).await.unwrap().len(), 50);
    assert_eq!(asked(&cluster), [0, 1, 2, 3, 4, 5]);
}

#[tokio::test(flavor = "multi_thread")]
async fn tenants_without_a_size_and_the_default_strategy_use_everybody() {
    let by_default = |config: &mut Config| {
        sharded(3, HOUR)(config);
        config.distributor.sharding_strategy = ShardingStrategy::Default;
    };
    for cluster in [cluster(6, sharded(0, HOUR)), cluster(6, by_default)] {
        write(&cluster, 200).await;
        assert_eq!(holders(&cluster), [0, 1, 2, 3, 4, 5]);
        assert_eq!(cluster.read(NOW - 10, NOW).await.unwrap().len(), 200);
        assert_eq!(asked(&cluster), [0, 1, 2, 3, 4, 5]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_quorum_is_one_of_the_shard() {
    let mut cluster = cluster(9, sharded(3, HOUR));
    write(&cluster, 20).await;
    let shard = shard(&cluster, 3);
    // Everybody else may be dead, and one of the shard.
    for number in (0..9).filter(|number| !shard[1..].contains(number)) {
        cluster.fakes[number].kill();
    }
    assert_eq!(cluster.push(&many(20)).await.status, 200);
    assert_eq!(cluster.read(NOW - 10, NOW).await.unwrap().len(), 20);
    cluster.fakes[shard[1]].kill();
    assert!(cluster.push(&many(20)).await.status.is_server_error());
    assert!(cluster.read(NOW - 10, NOW).await.unwrap_err().status.is_server_error());
}
