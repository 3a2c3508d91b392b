//! Every role as a process of its own, which find each other by gossip and have no store to ask.

use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use ringkit_testkit::ports::free_port;
use ringkit_testkit::{Signal, eventually_ok, http};
use tokio::net::UdpSocket;
use tokio::time::sleep;

use crate::loading::Loading;
use crate::rolling::{ORDERS, rolls};
use crate::stores::{Fleet, Member, Pace, REAL, SCALED, SOON, write_config};

/// Where each process gossips: in a file, so that it comes back where it was.
const PORTS: &str = "gossip.ports";

/// All processes that tests start.
pub(crate) const NAMES: [&str; 5] =
    ["distributor", "store-gateway", "ingester-1", "ingester-2", "ingester-3"];

/// What a process of a cluster that gossips is told beside its configuration; nothing in other clusters.
pub(crate) fn flags(dir: &Path, name: &str) -> Vec<String> {
    let Ok(ports) = std::fs::read_to_string(dir.join(PORTS)) else { return Vec::new() };
    let port = ports.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')).unwrap_or("0");
    vec![
        format!("-memberlist.nodename={name}"),
        "-memberlist.randomize-node-name=false".to_owned(),
        "-memberlist.bind-addr=127.0.0.1".to_owned(),
        format!("-memberlist.bind-port={port}"),
    ]
}

fn write_ports(dir: &Path) -> Vec<SocketAddr> {
    let ports: Vec<u16> = NAMES.iter().map(|_| free_port().unwrap()).collect();
    let lines: Vec<_> = NAMES.iter().zip(&ports).map(|(name, port)| format!("{name} {port}\n")).collect();
    std::fs::write(dir.join(PORTS), lines.concat()).unwrap();
    ports.into_iter().map(|port| SocketAddr::from(([127, 0, 0, 1], port))).collect()
}

/// A cluster that gossips, with the first two processes and `more` as seeds.
fn configure(dir: &Path, pace: Pace, more: &[&str]) -> Vec<SocketAddr> {
    let addrs = write_ports(dir);
    write_config(dir, "memberlist", "", pace);
    let mut seeds: Vec<String> = addrs[..2].iter().map(ToString::to_string).collect();
    seeds.extend(more.iter().map(ToString::to_string));
    append(
        dir,
        &format!("memberlist: {{cluster_label: test, join_members: {seeds:?}, min_join_backoff: 200ms}}\n"),
    );
    addrs
}

pub(crate) fn append(dir: &Path, text: &str) {
    let path = dir.join("config.yaml");
    let config = std::fs::read_to_string(&path).unwrap() + text;
    std::fs::write(path, config).unwrap();
}

pub(crate) async fn memberlist(addr: SocketAddr) -> serde_json::Value {
    let accept = [("accept", "application/json")];
    let page = http::request(addr, "GET", "/memberlist", &accept, b"").await.unwrap();
    serde_json::from_slice(&page.body).unwrap_or_else(|error| panic!("{error}: {}", page.text()))
}

pub(crate) fn tokens(mut ring: Vec<(String, String, serde_json::Value)>) -> Vec<(String, String)> {
    ring.sort_by(|a, b| a.0.cmp(&b.0));
    ring.into_iter().map(|shard| (shard.0, shard.2.to_string())).collect()
}

/// Everybody who keeps the ring of ingesters sees all of them.
pub(crate) async fn all_see_all(fleet: &Fleet, within: Duration) {
    let deadline = Instant::now() + within;
    for viewer in fleet.ingesters.iter().chain([&fleet.distributor]) {
        for number in 1..=3 {
            let left = deadline.saturating_duration_since(Instant::now());
            viewer.sees(&format!("ingester-{number}"), true, left).await;
        }
    }
}

async fn terminate(member: &mut Member) {
    member.process.signal(Signal::Terminate).unwrap();
    let status = member.process.wait(SOON).await.unwrap();
    assert!(status.success(), "{status}: {}", member.process.last_output());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_is_active_in_every_view_within_two_seconds_and_a_killed_one_costs_no_write() {
    let dir = tempfile::tempdir().unwrap();
    configure(dir.path(), SCALED, &[]);
    let mut fleet = Fleet::start(dir.path(), SCALED).await;
    all_see_all(&fleet, SOON).await;
    let before = tokens(fleet.distributor.ring().await);

    terminate(&mut fleet.ingesters[2]).await;
    let began = Instant::now();
    fleet.ingesters[2] = Member::ingester(dir.path(), 3).await;
    all_see_all(&fleet, SOON).await;
    let took = began.elapsed();
    println!("from exec to ACTIVE in every view: {took:.2?}");
    assert!(took < Duration::from_secs(2), "{took:?}");

    let loading = Loading::start(fleet.distributor.addr);
    sleep(Duration::from_secs(1)).await;
    fleet.ingesters[1].process.kill().unwrap();
    fleet.distributor.sees("ingester-2", false, fleet.pace.timeout + Duration::from_secs(4)).await;
    fleet.ingesters[1] = Member::ingester(dir.path(), 2).await;
    fleet.ingesters[1].ready().await;
    all_see_all(&fleet, SOON).await;
    loading.lost_nothing().await;
    assert_eq!(tokens(fleet.distributor.ring().await), before, "somebody came back with other tokens");

    // Nobody is remembered twice.
    let members = memberlist(fleet.distributor.addr).await;
    let members = members["SortedMembers"].as_array().unwrap().len();
    assert_eq!(members, 5);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_whole_cluster_that_stops_and_starts_is_complete_with_the_same_tokens() {
    let dir = tempfile::tempdir().unwrap();
    // Whoever stops stays in the ring, as in rolling restarts; so does whoever is killed.
    configure(dir.path(), SCALED, &[]);
    let mut fleet = Fleet::start(dir.path(), SCALED).await;
    all_see_all(&fleet, SOON).await;
    let before = tokens(fleet.distributor.ring().await);
    for round in ["in order", "killed"] {
        let Fleet { distributor, gateway, ingesters, .. } = &mut fleet;
        for member in ingesters.iter_mut().chain([distributor, gateway]) {
            if round == "killed" {
                member.process.kill().unwrap();
            } else {
                terminate(member).await;
            }
        }
        fleet = Fleet::start(dir.path(), SCALED).await;
        all_see_all(&fleet, SOON).await;
        assert_eq!(tokens(fleet.distributor.ring().await), before, "{round}");
    }
    let loading = Loading::start(fleet.distributor.addr);
    sleep(Duration::from_secs(2)).await;
    loading.lost_nothing().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_seeds_are_told_and_do_no_harm() {
    // The cluster of another label that one of the seeds belongs to.
    let other = tempfile::tempdir().unwrap();
    let stranger = configure(other.path(), SCALED, &[])[0];
    let config = std::fs::read_to_string(other.path().join("config.yaml")).unwrap();
    std::fs::write(
        other.path().join("config.yaml"),
        config.replace("cluster_label: test", "cluster_label: other"),
    )
    .unwrap();
    let mut other_distributor = Member::start(other.path(), "distributor", "distributor", &[]).await;

    let stranger_page = other_distributor.addr;

    let dead = format!("127.0.0.1:{}", free_port().unwrap());
    let dir = tempfile::tempdir().unwrap();
    let addrs = configure(dir.path(), SCALED, &[&dead, &stranger.to_string(), "nobody.invalid:7946"]);
    let fleet = Fleet::start(dir.path(), SCALED).await;
    all_see_all(&fleet, SOON).await;

    // All of it is on the page.
    let page = memberlist(fleet.ingesters[0].addr).await;
    let seeds = page["Ringkit"]["seeds"].to_string();
    assert!(seeds.contains(&dead) && seeds.contains("nobody.invalid"), "{seeds}");
    assert_eq!(page["SortedMembers"].as_array().unwrap().len(), 5, "{page}");

    // Whoever knows only such seeds starts no cluster of its own, and says why.
    let lost = tempfile::tempdir().unwrap();
    write_ports(lost.path());
    write_config(lost.path(), "memberlist", "", SCALED);
    append(
        lost.path(),
        &format!(
            "memberlist: {{cluster_label: test, join_members: ['{dead}', '{stranger}'], min_join_backoff: 100ms, \
             max_join_backoff: 200ms, abort_if_cluster_join_fails: false}}\n"
        ),
    );
    let alone = Member::ingester(lost.path(), 1).await;
    let told = || async {
        let text = http::get(alone.addr, "/ready").await.unwrap().text();
        if text.contains("has not joined the gossip cluster") { Ok(()) } else { Err(text) }
    };
    eventually_ok(SOON, told).await.unwrap();
    let refused = || async {
        let page = memberlist(stranger_page).await;
        let refused = page["Ringkit"]["refused"]["label"].as_u64().unwrap_or_default();
        if refused > 0 { Ok(()) } else { Err(page.to_string()) }
    };
    eventually_ok(SOON, refused).await.unwrap();

    // As Cortex does unless told otherwise: whoever cannot join ends, and names whom it asked.
    let config = std::fs::read_to_string(lost.path().join("config.yaml")).unwrap();
    let config = config.replace("abort_if_cluster_join_fails: false", "max_join_retries: 3");
    std::fs::write(lost.path().join("config.yaml"), config).unwrap();
    let mut ends = Member::ingester(lost.path(), 2).await;
    let status = ends.process.wait(SOON).await.unwrap();
    let output = ends.process.output();
    assert!(!status.success(), "{output}");
    assert!(output.contains("failed to join memberlist cluster") && output.contains(&dead), "{output}");
    assert!(addrs.len() == NAMES.len());
    other_distributor.process.kill().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn ingesters_restarted_in_turn_on_gossip_lose_nothing() {
    let dir = tempfile::tempdir().unwrap();
    configure(dir.path(), SCALED, &[]);
    rolls(dir.path(), &ORDERS[2..3], SCALED).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "soak"]
async fn soak_ingesters_restarted_in_all_orders_on_gossip() {
    let dir = tempfile::tempdir().unwrap();
    configure(dir.path(), REAL, &[]);
    rolls(dir.path(), &ORDERS, REAL).await;
}

/// Garbage as fast as one sender can, by datagram and by stream: memory stays where it is, nobody is taken for dead, and
/// everybody is ready and takes writes.
async fn garbage_does_no_harm(duration: Duration) {
    let dir = tempfile::tempdir().unwrap();
    let addrs = configure(dir.path(), SCALED, &[]);
    let mut fleet = Fleet::start(dir.path(), SCALED).await;
    all_see_all(&fleet, SOON).await;
    let target = addrs[2];
    let memory = |pid: u32| -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    };
    let pid = fleet.ingesters[0].process.id();
    let before = memory(pid);
    let loading = Loading::start(fleet.distributor.addr);
    let until = Instant::now() + duration;
    let flood = tokio::task::spawn_blocking(move || {
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let (mut sent, mut noise) = (0_u64, 0x9e37_79b9_7f4a_7c15_u64);
        let mut bytes = [0_u8; 1400];
        while Instant::now() < until {
            for _ in 0..256 {
                for chunk in bytes.chunks_mut(8) {
                    noise ^= noise << 13;
                    noise ^= noise >> 7;
                    noise ^= noise << 17;
                    chunk.copy_from_slice(&noise.to_le_bytes()[..chunk.len()]);
                }
                // Half of it begins as if it were of the cluster.
                if noise & 1 == 0 {
                    bytes[..3].copy_from_slice(&[0x9b, 0x10, 0]);
                }
                sent += u64::from(socket.send_to(&bytes, target).is_ok());
            }
        }
        sent
    });
    let streams = tokio::spawn(async move {
        let mut opened = 0_u64;
        while Instant::now() < until {
            let Ok(mut stream) = tokio::net::TcpStream::connect(target).await else { continue };
            let first = [0x9b, 0x9c, 0x9d, b'G', 0x16, 0xff][opened as usize % 6];
            let noise = [&[first][..], &[0xff; 64]].concat();
            drop(tokio::io::AsyncWriteExt::write_all(&mut stream, &noise).await);
            opened += 1;
        }
        opened
    });
    let mut slowest = Duration::ZERO;
    while Instant::now() < until {
        let asked = Instant::now();
        let answer = http::get(fleet.ingesters[0].addr, "/ready").await.unwrap();
        assert_eq!(answer.status, 200, "{}", answer.text());
        slowest = slowest.max(asked.elapsed());
        sleep(Duration::from_millis(200)).await;
    }
    let (sent, opened) = (flood.await.unwrap(), streams.await.unwrap());
    let after = memory(pid);
    println!(
        "{sent} datagrams and {opened} streams of garbage in {duration:?}: memory {before} -> {after} KiB, slowest answer {slowest:?}"
    );
    assert!(after < before + 64 * 1024, "{before} -> {after} KiB");
    // Nobody was taken for dead meanwhile, so nobody had to come back.
    let page = memberlist(fleet.distributor.addr).await;
    let members = page["Ringkit"]["members"].as_array().unwrap();
    assert!(members.len() == 5 && members.iter().all(|member| member["state"] == "alive"), "{page}");
    all_see_all(&fleet, Duration::from_secs(2)).await;
    fleet.is_ready().await;
    loading.lost_nothing().await;
    let refused = memberlist(fleet.ingesters[0].addr).await["Ringkit"]["refused"].clone();
    assert!(refused["not_ours"].as_u64().unwrap_or_default() > 0, "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn garbage_at_line_rate_does_no_harm() {
    garbage_does_no_harm(Duration::from_secs(5)).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "soak"]
async fn soak_a_minute_of_garbage_at_line_rate() {
    garbage_does_no_harm(Duration::from_secs(60)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn strangers_on_the_gossip_port_are_told_or_left() {
    let dir = tempfile::tempdir().unwrap();
    let addrs = configure(dir.path(), SCALED, &[]);
    let distributor = Member::start(dir.path(), "distributor", "distributor", &[]).await;
    let answer = http::get(addrs[0], "/ready").await.unwrap();
    assert_eq!(answer.status, 400);
    assert!(answer.text().contains("gossip"), "{}", answer.text());
    let udp = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    udp.send_to(b"GET / HTTP/1.1\r\n", addrs[0]).await.unwrap();
    let counted = || async {
        let metrics = http::get(distributor.addr, "/metrics").await.unwrap().text();
        let has = |line: &str| metrics.lines().any(|text| text.starts_with(line));
        if has("memberlist_client_refused_total{reason=\"not_ours\"} 1") { Ok(()) } else { Err(metrics) }
    };
    eventually_ok(SOON, counted).await.unwrap();
}
