//! Ingesters are restarted one after the other under load, each as a process of its own, on real stores.

use std::path::Path;
use std::time::Duration;

use ringkit_config::Layout;
use ringkit_testkit::{Consul, Etcd, Signal, eventually_ok};

use crate::loading::Loading;
use crate::stores::{Fleet, Member, Pace, REAL, SCALED, SOON, write_config};

pub(crate) const ORDERS: [[usize; 3]; 6] = [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]];

/// Restarts the ingesters in these orders; no write fails, nothing is lost, and everybody has the same tokens as before.
pub(crate) async fn rolls(dir: &Path, orders: &[[usize; 3]], pace: Pace) {
    let mut fleet = Fleet::start(dir, pace).await;
    let tokens = async |fleet: &Fleet| {
        let ring = fleet.distributor.ring().await;
        let mut tokens: Vec<_> = ring.into_iter().map(|shard| (shard.0, shard.2.to_string())).collect();
        tokens.sort();
        tokens
    };
    let before = tokens(&fleet).await;
    let loading = Loading::start(fleet.distributor.addr);
    for place in orders.iter().flatten().copied() {
        // Writes go on in every state that the ring is in.
        tokio::time::sleep(Duration::from_millis(500)).await;
        let old = &mut fleet.ingesters[place].process;
        old.signal(Signal::Terminate).unwrap();
        let status = old.wait(SOON).await.unwrap();
        assert!(status.success(), "{status}: {}", old.last_output());
        fleet.ingesters[place] = Member::ingester(dir, place + 1).await;
        fleet.ingesters[place].ready().await;
        // As long as `min_ready_duration` gives everybody where restarts follow upon readiness.
        let (addr, distributor) = (fleet.ingesters[place].grpc, &fleet.distributor);
        let known = || async {
            let ring = distributor.addresses().await;
            if ring.contains(&addr.to_string()) { Ok(()) } else { Err(format!("{addr} is not in {ring:?}")) }
        };
        eventually_ok(SOON, known).await.unwrap();
        fleet.sees_all().await;
    }
    assert_eq!(tokens(&fleet).await, before);
    loading.lost_nothing().await;
}

async fn rolls_on_consul(orders: &[[usize; 3]], pace: Pace) {
    let dir = tempfile::tempdir().unwrap();
    let server = Consul::start().await.unwrap();
    let kvstore = format!("layout: {}, consul: {{host: '{}'}}", Layout::Single, server.addr());
    write_config(dir.path(), "consul", &kvstore, pace);
    rolls(dir.path(), orders, pace).await;
}

async fn rolls_on_etcd(orders: &[[usize; 3]], pace: Pace) {
    let dir = tempfile::tempdir().unwrap();
    let server = Etcd::start().await.unwrap();
    let kvstore = format!("layout: {}, etcd: {{endpoints: ['{}']}}", Layout::PerInstance, server.addr());
    write_config(dir.path(), "etcd", &kvstore, pace);
    rolls(dir.path(), orders, pace).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ingesters_restarted_in_turn_on_consul_lose_nothing() {
    rolls_on_consul(&ORDERS[3..4], SCALED).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ingesters_restarted_in_turn_on_etcd_lose_nothing() {
    rolls_on_etcd(&ORDERS[4..5], SCALED).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "soak"]
async fn soak_ingesters_restarted_in_all_orders_on_both_stores() {
    let pace = Pace { outage: Duration::ZERO, ..REAL };
    tokio::join!(rolls_on_consul(&ORDERS, pace), rolls_on_etcd(&ORDERS, pace));
}
