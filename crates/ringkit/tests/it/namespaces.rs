//! Processes that gossip, each on a machine of its own as far as the network goes: links are cut, and packets are lost.

use std::path::Path;
use std::time::{Duration, Instant};

use ringkit_testkit::netns::Network;
use tokio::time::sleep;

use crate::gossip::{NAMES, all_see_all, append, memberlist, tokens};
use crate::loading::Loading;
use crate::stores::{Fleet, Member, Pace, REAL, SCALED, SOON, program, write_config};

/// Where in [`NAMES`] the ingester with this number is.
const fn place_of(ingester: usize) -> usize {
    ingester + 1
}

/// The process called `NAMES[place]`, on the machine with that number.
async fn start(network: &Network, dir: &Path, place: usize) -> Member {
    let (name, addr) = (NAMES[place], network.addr(place));
    let role = if place < 2 { name } else { "ingester" };
    let mut flags = vec![
        format!("-server.http-listen-address={addr}"),
        format!("-server.grpc-listen-address={addr}"),
        format!("-ingester.lifecycler.addr={addr}"),
        format!("-distributor.ring.instance-addr={addr}"),
        format!("-store-gateway.sharding-ring.instance-addr={addr}"),
        format!("-memberlist.nodename={name}"),
        "-memberlist.randomize-node-name=false".to_owned(),
        format!("-memberlist.bind-addr={addr}"),
    ];
    if place >= 2 {
        flags.extend(Member::ingester_flags(dir, place - 1));
    }
    Member::launch(network.process(place, name, program(role)), dir, &flags).await
}

async fn start_all(network: &Network, dir: &Path, pace: Pace) -> Fleet {
    write_config(dir, "memberlist", "", pace);
    let seeds = [network.addr(0), network.addr(2)].map(|addr| format!("{addr}:7946"));
    append(
        dir,
        &format!("memberlist: {{cluster_label: test, join_members: {seeds:?}, min_join_backoff: 200ms}}\n"),
    );
    let (distributor, gateway, a, b, c) = tokio::join!(
        start(network, dir, 0),
        start(network, dir, 1),
        start(network, dir, 2),
        start(network, dir, 3),
        start(network, dir, 4),
    );
    let mut fleet = Fleet { distributor, gateway, ingesters: [a, b, c], pace };
    fleet.is_ready().await;
    all_see_all(&fleet, SOON).await;
    fleet
}

/// What everybody thinks of everybody, once it is as it should be: nobody twice, nobody dead.
async fn no_ghosts(fleet: &Fleet) {
    for member in fleet.ingesters.iter().chain([&fleet.distributor, &fleet.gateway]) {
        let alive = || async {
            let page = memberlist(member.addr).await;
            let members = page["Ringkit"]["members"].as_array().cloned().unwrap_or_default();
            let well =
                members.len() == NAMES.len() && members.iter().all(|member| member["state"] == "alive");
            if well { Ok(()) } else { Err(format!("{members:#?}")) }
        };
        ringkit_testkit::eventually_ok(SOON, alive).await.unwrap();
    }
    assert_eq!(fleet.distributor.ring().await.len(), 3);
}

/// Is killed, cut off alone, cut into two halves and loses packets; all under load, and nobody helps.
async fn survives(pace: Pace, partition: Duration) {
    if let Some(reason) = Network::unavailable() {
        println!("skipped, as there is no network to cut: {reason}");
        return;
    }
    let (network, dir) = (Network::create(NAMES.len()).unwrap(), tempfile::tempdir().unwrap());
    let mut fleet = start_all(&network, dir.path(), pace).await;
    let before = tokens(fleet.distributor.ring().await);
    let loading = Loading::start(fleet.distributor.addr);

    // One is killed and comes back.
    sleep(Duration::from_secs(1)).await;
    fleet.ingesters[1].process.kill().unwrap();
    fleet.distributor.sees("ingester-2", false, pace.timeout + Duration::from_secs(4)).await;
    let began = Instant::now();
    fleet.ingesters[1] = start(&network, dir.path(), place_of(2)).await;
    all_see_all(&fleet, SOON).await;
    let took = began.elapsed();
    println!("from exec to ACTIVE in every view: {took:.2?}");
    assert!(took < Duration::from_secs(2), "{took:?}");
    fleet.ingesters[1].ready().await;

    // One is cut off.
    let lost = place_of(3);
    let others: Vec<usize> = (0..NAMES.len()).filter(|place| *place != lost).collect();
    network.cut(&[lost], &others).unwrap();
    if partition > pace.timeout + Duration::from_secs(2) {
        fleet.distributor.sees("ingester-3", false, partition).await;
    }
    sleep(partition).await;
    network.heal().unwrap();
    let began = Instant::now();
    all_see_all(&fleet, Duration::from_secs(60)).await;
    println!("healed {:.1?} after a partition of {partition:?}", began.elapsed());
    no_ghosts(&fleet).await;
    assert_eq!(tokens(fleet.distributor.ring().await), before);

    // Two of three ingesters are with the distributor: a majority.
    network.cut(&[0, place_of(1), place_of(2)], &[1, lost]).unwrap();
    sleep(partition).await;
    network.heal().unwrap();
    let began = Instant::now();
    all_see_all(&fleet, Duration::from_secs(60)).await;
    println!("healed {:.1?} after it was split for {partition:?}", began.elapsed());
    no_ghosts(&fleet).await;

    // One hears nobody, but is heard.
    network.cut_one_way(&others, &[lost]).unwrap();
    sleep(partition / 2).await;
    network.heal().unwrap();
    all_see_all(&fleet, Duration::from_secs(60)).await;
    no_ghosts(&fleet).await;
    loading.lost_nothing().await;

    // Without load: writes are slow where every third packet is lost, gossip need not be.
    (0..NAMES.len()).try_for_each(|place| network.loss(place, 30)).unwrap();
    let until = Instant::now() + partition;
    while Instant::now() < until {
        let ring = fleet.distributor.ring().await;
        assert!(ring.len() == 3 && ring.iter().all(|shard| shard.1 == "ACTIVE"), "{ring:?}");
        sleep(Duration::from_millis(500)).await;
    }
    network.heal().unwrap();
    no_ghosts(&fleet).await;
    assert_eq!(tokens(fleet.distributor.ring().await), before, "somebody came back with other tokens");
    fleet.is_ready().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_that_is_cut_apart_and_loses_packets_heals_by_itself() {
    survives(SCALED, Duration::from_secs(15)).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "soak"]
async fn soak_a_cluster_cut_apart_for_a_minute() {
    survives(REAL, Duration::from_secs(60)).await;
}
