//! What gossip costs and how fast it is: 50 members in one process on loopback, which share a ring of 100 instances with 128
//! tokens each. Prints latencies, bytes and CPU per member; `-- --members N --instances N --seconds N` changes the numbers.
//!
//! No alternative runs here: the figures of the Go originals are printed beside, as they were recorded elsewhere.
#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a benchmark that cannot go on has failed; it prints"
)]

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use parking_lot::Mutex;
use ringkit_config::{KvStore, KvStoreConfig, MemberlistConfig};
use ringkit_kv::memberlist::{Memberlist, MemberlistOptions};
use ringkit_kv::{Client, Stores};
use ringkit_ring::{Desc, InstanceDesc, State};
use ringkit_runtime::{Clock, Meter};
use tokio::time::sleep;

const KEY: &str = "ring";
const TOKENS: u32 = 128;
const HEARTBEAT: Duration = Duration::from_secs(5);
/// Between two measured updates.
const PAUSE: Duration = Duration::from_millis(400);

/// Of the process; in seconds.
fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<&str> = stat.rsplit(") ").next().unwrap().split(' ').collect();
    // Linux counts in hundredths of a second.
    (fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap()) / 100.0
}

fn unix_secs() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs().cast_signed()
}

struct Member {
    // Keeps the member alive.
    _stores: Stores,
    memberlist: Memberlist,
    client: Client<Desc>,
}

impl Member {
    async fn start(number: usize, seeds: &[String]) -> Self {
        let stores = Stores::new();
        let config = MemberlistConfig {
            node_name: format!("member-{number}"),
            randomize_node_name: false,
            bind_addr: vec!["127.0.0.1".into()],
            bind_port: 0,
            join_members: seeds.to_vec(),
            ..MemberlistConfig::default()
        };
        stores.set_memberlist(MemberlistOptions {
            config,
            zone: String::new(),
            build: String::new(),
            meter: Meter::disabled(),
            clock: Clock::system(),
            proceed_after: None,
        });
        let config = KvStoreConfig { store: KvStore::Memberlist, ..KvStoreConfig::default() };
        let client = stores.client(&config, "bench", &Meter::disabled(), &Clock::system()).unwrap();
        client.synced().wait_for(|synced| *synced).await.unwrap();
        let memberlist = stores.memberlist().unwrap();
        Self { _stores: stores, memberlist, client }
    }
}

fn instance(number: usize, mark: i64) -> InstanceDesc {
    let first = number as u32 * TOKENS;
    InstanceDesc {
        addr: format!("10.0.{}.{}:9095", number / 250, number % 250).into(),
        zone: format!("zone-{}", number % 3).into(),
        state: State::Active,
        timestamp: unix_secs(),
        registered_timestamp: mark,
        tokens: (first..first + TOKENS)
            .map(|token| token.wrapping_mul(2_654_435_761))
            .collect::<Vec<_>>()
            .into(),
        ..InstanceDesc::default()
    }
}

fn percentile(sorted: &[f64], part: f64) -> f64 {
    sorted.get(((sorted.len() as f64 - 1.0) * part) as usize).copied().unwrap_or(f64::NAN)
}

fn number(flag: &str, default: usize) -> usize {
    let mut args = std::env::args().skip_while(|arg| arg != flag).skip(1);
    args.next().and_then(|value| value.parse().ok()).unwrap_or(default)
}

/// (update, when it was seen)
type Arrivals = Arc<Mutex<Vec<(i64, Instant)>>>;

/// Writes updates one after the other from changing members; returns the delay of each arrival, and of the last of each.
async fn measure(
    members: &[Member],
    arrivals: &Arrivals,
    first_mark: i64,
    duration: Duration,
) -> (Vec<f64>, Vec<f64>, usize) {
    let until = Instant::now() + duration;
    let (mut mark, mut written) = (first_mark, Vec::new());
    while Instant::now() < until {
        let place = mark as usize % members.len();
        written.push((mark, Instant::now()));
        members[place]
            .client
            .upsert_own(KEY, &format!("i-{place:04}"), &instance(place, mark))
            .await
            .unwrap();
        mark += 1;
        sleep(PAUSE).await;
    }
    sleep(Duration::from_secs(3)).await;
    let arrived = arrivals.lock().clone();
    let (mut all, mut last, mut lost) = (Vec::new(), Vec::new(), 0);
    for (mark, at) in written {
        let delays = arrived.iter().filter(|arrival| arrival.0 == mark);
        let delays: Vec<f64> = delays.map(|arrival| arrival.1.duration_since(at).as_secs_f64()).collect();
        // The writer's own view counts too; it is there at once.
        lost += members.len().saturating_sub(delays.len());
        last.push(delays.iter().copied().fold(0.0, f64::max));
        all.extend(delays.into_iter().filter(|delay| *delay > 0.0005));
    }
    all.sort_by(f64::total_cmp);
    last.sort_by(f64::total_cmp);
    (all, last, lost)
}

fn main() {
    let (num_members, num_instances) = (number("--members", 50), number("--instances", 100));
    let seconds = number("--seconds", 30);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(run(num_members, num_instances, Duration::from_secs(seconds as u64)));
}

async fn run(num_members: usize, num_instances: usize, duration: Duration) {
    let began = Instant::now();
    let mut members = vec![Member::start(0, &[]).await];
    let seed = [members[0].memberlist.addr().to_string()];
    for number in 1..num_members {
        members.push(Member::start(number, &seed).await);
    }
    println!("{num_members} members joined one after the other in {:.2?}", began.elapsed());

    let arrivals = Arrivals::default();
    for member in &members {
        let (mut watch, arrivals) = (member.client.watch(KEY).await.unwrap(), Arc::clone(&arrivals));
        tokio::spawn(async move {
            while let Some(update) = watch.next().await {
                let now = Instant::now();
                let Some(value) = update.value else { continue };
                for id in &update.changed {
                    if let Some(entry) = value.get(id).filter(|entry| entry.registered_timestamp > 0) {
                        arrivals.lock().push((entry.registered_timestamp, now));
                    }
                }
            }
        });
    }

    // Nothing is stored: what membership itself costs.
    sleep(Duration::from_secs(5)).await;
    let idle = cost(&members, Duration::from_secs(10)).await;
    let (all, last, lost) = measure(&members, &arrivals, 1, Duration::from_secs(10)).await;
    println!("\n| figure | measured | must | Go Cortex, recorded elsewhere |\n|---|---|---|---|");
    println!(
        "| one update, idle: median / p99 / all members (median), s | {:.3} / {:.3} / {:.3}, {lost} not arrived | 0.14 / 0.30 / 0.28 | 0.28 / 0.61 / 0.55 |",
        percentile(&all, 0.5),
        percentile(&all, 0.99),
        percentile(&last, 0.5),
    );

    for place in 0..num_instances {
        let client = members[place % num_members].client.clone();
        tokio::spawn(async move {
            sleep(HEARTBEAT.mul_f64(place as f64 / num_instances as f64)).await;
            loop {
                // Half of them keep what the measured updates wrote.
                let id = format!("i-{:04}", place + num_members);
                client.upsert_own(KEY, &id, &instance(place + num_members, 0)).await.unwrap();
                sleep(HEARTBEAT).await;
            }
        });
    }
    // Until all that is new at the start was told as often as it is to be: what follows is what heartbeats cost.
    sleep(8 * HEARTBEAT).await;
    let busy = cost(&members, duration).await;
    arrivals.lock().clear();
    let (all, last, lost) = measure(&members, &arrivals, 1_000, duration).await;
    println!(
        "| the same beside {num_instances} instances that beat every 5 s | {:.3} / {:.3} / {:.3}, {lost} not arrived | – | – |",
        percentile(&all, 0.5),
        percentile(&all, 0.99),
        percentile(&last, 0.5),
    );
    println!(
        "| bytes out per member, {num_instances} x {TOKENS} tokens, heartbeat 5 s, kB/s | {:.2} (datagrams {:.2}) | 6 | 119 |",
        busy.kilobytes, busy.datagram_kilobytes
    );
    println!("| CPU per member, the same, views included, ms/s | {:.2} | 1 | 8 to 10 |", busy.cpu_ms);
    println!(
        "| idle bytes out per member, headers of the network included, kB/s | {:.2} | 0.4 | |",
        idle.kilobytes
    );
    println!("| idle CPU per member, ms/s | {:.2} | | |", idle.cpu_ms);
}

/// Per member and second.
struct Cost {
    kilobytes: f64,
    datagram_kilobytes: f64,
    cpu_ms: f64,
}

async fn cost(members: &[Member], duration: Duration) -> Cost {
    use std::sync::atomic::Ordering::Relaxed;
    /// Of IPv4 and UDP.
    const HEADERS: u64 = 28;
    let sent = || {
        members.iter().fold((0, 0), |sum, member| {
            let counts = member.memberlist.counts();
            let datagrams =
                counts.datagram_bytes_out.load(Relaxed) + HEADERS * counts.datagrams_out.load(Relaxed);
            (sum.0 + datagrams, sum.1 + counts.stream_bytes_out.load(Relaxed))
        })
    };
    let (cpu, before, began) = (cpu_seconds(), sent(), Instant::now());
    sleep(duration).await;
    let (cpu, after) = (cpu_seconds() - cpu, sent());
    let each = began.elapsed().as_secs_f64() * members.len() as f64;
    let (datagrams, streams) = ((after.0 - before.0) as f64, (after.1 - before.1) as f64);
    Cost {
        kilobytes: (datagrams + streams) / each / 1e3,
        datagram_kilobytes: datagrams / each / 1e3,
        cpu_ms: cpu / each * 1e3,
    }
}
