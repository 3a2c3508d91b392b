//! Members on real sockets, on the loopback interface.

#![cfg(feature = "driver")]
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use ringkit_gossip::api::{Config, Event, Phase};
use ringkit_gossip::driver::seeds::Seed;
use ringkit_gossip::driver::{Closed, Counts, Handle, Observer, Options, StartError, State};
use ringkit_gossip::member::Security;
use ringkit_gossip::node::Node;
use ringkit_gossip::register::{Body, EntryId};
use ringkit_gossip::seal::{ClusterKey, Keyring};
use ringkit_gossip::time::Now;
use ringkit_gossip::wire::{DatagramWriter, Header, label_hash};
use smol_str::SmolStr;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpStream, UdpSocket};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

#[path = "driver/transports.rs"]
mod transports;

/// How long anything may take before the test has failed.
const LIMIT: Duration = Duration::from_secs(60);
/// The key that is written to.
const KEY: &str = "ring";

/// What a member's observer saw.
#[derive(Clone, Debug, Default)]
struct Seen {
    bodies: BTreeMap<SmolStr, Option<Bytes>>,
    refused: BTreeMap<&'static str, u64>,
    failed: Option<String>,
}

struct Watching(watch::Sender<Seen>);

impl Observer for Watching {
    fn changed(&mut self, node: &Node, _now: Now, key: &SmolStr, entries: &[EntryId]) {
        if key.as_str() != KEY {
            return;
        }
        let all = || node.store().registers(KEY).map(|(entry, _)| entry.clone()).collect();
        let entries: Vec<EntryId> = if entries.is_empty() { all() } else { entries.to_vec() };
        self.0.send_modify(|seen| {
            for entry in entries {
                let body = node.store().get(KEY, &entry).and_then(|slot| match &slot.register().body {
                    Body::Live(bytes) => Some(bytes.clone()),
                    Body::Tombstone => None,
                });
                seen.bodies.insert(entry.id, body);
            }
        });
    }

    fn event(&mut self, _node: &Node, _now: Now, event: &Event) {
        self.0.send_modify(|seen| match event {
            Event::Refused { reason } => *seen.refused.entry(*reason).or_default() += 1,
            Event::Failed { reason } => seen.failed = Some(reason.clone()),
            _ => (),
        });
    }
}

/// A running member.
struct Peer {
    handle: Handle<Watching>,
    seen: watch::Receiver<Seen>,
}

impl Peer {
    fn try_start(options: Options) -> Result<Self, StartError> {
        let (seen_out, seen) = watch::channel(Seen::default());
        Ok(Self { handle: Handle::start(options, Watching(seen_out))?, seen })
    }

    fn start(options: Options) -> Self {
        Self::try_start(options).unwrap()
    }

    fn addr(&self) -> SocketAddr {
        self.handle.addr()
    }

    fn count(&self, counter: impl Fn(&Counts) -> &AtomicU64) -> u64 {
        counter(self.handle.counts()).load(Ordering::Relaxed)
    }

    async fn until(&self, what: &str, is_so: impl FnMut(&State) -> bool) -> State {
        let mut state = self.handle.state();
        let reached =
            timeout(LIMIT, state.wait_for(is_so)).await.map(|state| state.map(|state| state.clone()));
        match reached {
            Ok(Ok(state)) => state,
            _ => panic!("{what}: not so, but {:?}", self.handle.state().borrow()),
        }
    }

    async fn until_joined(&self, members: usize) {
        self.until("joined", |state| state.synced && state.members == members).await;
    }

    async fn until_seen(&self, what: &str, is_so: impl FnMut(&Seen) -> bool) {
        let mut seen = self.seen.clone();
        let reached = timeout(LIMIT, seen.wait_for(is_so)).await.is_ok();
        assert!(reached, "{what}: not so, but {:?}", self.seen.borrow());
    }

    async fn until_counted(&self, what: &str, counter: impl Fn(&Counts) -> &AtomicU64, number: u64) {
        let counted = async {
            while self.count(&counter) < number {
                sleep(Duration::from_millis(5)).await;
            }
        };
        assert!(
            timeout(LIMIT, counted).await.is_ok(),
            "{what}: {} instead of {number}",
            self.count(&counter)
        );
    }

    async fn write(&self, id: &str, body: &'static str) {
        let changes = vec![(EntryId::new(id, 0), Some(Bytes::from_static(body.as_bytes())))];
        let written = self.handle.call(|access| {
            let written = access.upsert(&SmolStr::new(KEY), changes);
            (written, access.observer.0.borrow().bodies.len())
        });
        let (written, num_seen) = written.await.unwrap();
        assert_eq!(written, Ok(()));
        assert!(num_seen > 0, "the observer is told first");
    }
}

fn generation() -> u64 {
    u64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis()).unwrap()
}

/// A member that is quick to find others, to tell news, and to see that somebody died.
fn options(name: &str, seeds: &[SocketAddr]) -> Options {
    let loopback: SocketAddr = "127.0.0.1:0".parse().unwrap();
    let mut config = Config::new(name, loopback, generation());
    config.gossip_interval = Duration::from_millis(50);
    config.sync_interval = Duration::from_secs(1);
    config.join_backoff = (Duration::from_millis(50), Duration::from_millis(500));
    config.leave_timeout = Duration::from_secs(5);
    config.inbound_sessions = 32;
    // All members share an address here.
    config.inbound_sessions_per_address = 32;
    config.swim.probe_period = Duration::from_millis(500);
    config.swim.probe_rtt = Duration::from_millis(200);
    config.swim.suspicion_timeout = Duration::from_secs(1);
    config.swim.gossip_period = Duration::from_millis(50);
    let mut options = Options::new(config, vec![loopback], Security::default());
    options.seeds = seeds.iter().map(|seed| Seed::parse(&seed.to_string()).unwrap()).collect();
    options.resolve_interval = Duration::from_secs(1);
    options.max_join_attempts = 0;
    options
}

/// Members that have found each other.
async fn cluster(num: usize, change: impl Fn(&mut Options)) -> Vec<Peer> {
    let mut peers: Vec<Peer> = Vec::new();
    for number in 0..num {
        let seeds: Vec<SocketAddr> = peers.first().map(Peer::addr).into_iter().collect();
        let mut options = options(&format!("member-{number}"), &seeds);
        change(&mut options);
        peers.push(Peer::start(options));
    }
    for peer in &peers {
        peer.until_joined(num).await;
    }
    peers
}

/// Each member writes, and all see it.
async fn write_and_see(peers: &[Peer]) {
    for (number, peer) in peers.iter().enumerate() {
        peer.write(&format!("instance-{number}"), "is here").await;
    }
    for peer in peers {
        peer.until_seen("all is seen", |seen| {
            let live = seen.bodies.values().flatten().filter(|body| ***body == b"is here"[..]);
            live.count() == peers.len()
        })
        .await;
    }
}

/// Says something to a port, and returns what is said there until the connection is closed.
async fn talk(addr: SocketAddr, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(addr).await.unwrap();
    stream.write_all(bytes).await.unwrap();
    let mut answer = Vec::new();
    // To be cut off is to be closed as well.
    let _ = timeout(LIMIT, stream.read_to_end(&mut answer)).await.unwrap();
    String::from_utf8(answer).unwrap()
}

/// Where nobody listens, for the moment.
fn free_addr() -> SocketAddr {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

#[tokio::test]
async fn members_find_each_other_by_seeds_and_see_what_they_write() {
    for num in [2, 5] {
        let peers = cluster(num, |_| ()).await;
        write_and_see(&peers).await;
        for peer in &peers {
            assert_eq!(peer.handle.bound(), [peer.addr()]);
            assert!(peer.count(|counts| &counts.datagrams_out) > 0);
            assert!(peer.count(|counts| &counts.stream_bytes_in) > 0);
        }
        let seeds = peers[1].handle.seeds();
        assert_eq!(seeds.borrow()[0].addrs, [peers[0].addr()]);
    }
}

#[tokio::test]
async fn a_refused_write_says_why() {
    let peer = Peer::start(options("alone", &[]));
    peer.until_joined(1).await;
    let refused = peer.handle.call(|access| {
        let key = SmolStr::new(KEY);
        let too_long = access.upsert(&key, vec![(EntryId::new("x".repeat(300), 0), Some(Bytes::new()))]);
        let internal = access.upsert(&"_members".into(), vec![(EntryId::new("x", 0), None)]);
        (too_long, internal)
    });
    assert_eq!(refused.await.unwrap(), (Err("id_too_long"), Err("internal_key")));
}

#[tokio::test]
async fn who_leaves_is_known_to_have_left() {
    // Who dies is not noticed within the test.
    let slow = |options: &mut Options| options.config.swim.suspicion_timeout = LIMIT * 10;
    let peers = cluster(3, slow).await;
    let (left, again) = tokio::join!(peers[2].handle.leave(), peers[2].handle.leave());
    assert!(left.told, "{left:?}");
    assert_eq!(again, left);
    for peer in &peers[..2] {
        peer.until("one has left", |state| state.members == 2).await;
    }
    assert_eq!(peers[2].handle.state().borrow().phase, Phase::Left);
    assert_eq!(peers[2].handle.call(|_| ()).await, Err(Closed));
    assert_eq!(peers[2].handle.leave().await, left);
    assert!(TcpStream::connect(peers[2].addr()).await.is_err(), "nobody listens any more");
}

#[tokio::test]
async fn who_is_dropped_has_crashed_and_is_missed() {
    let mut peers = cluster(2, |_| ()).await;
    let Peer { handle, .. } = peers.pop().unwrap();
    let clone = handle.clone();
    drop(handle);
    clone.call(|_| ()).await.unwrap();
    let (addr, state) = (clone.addr(), clone.state());
    drop(clone);
    peers[0].until("one died", |state| state.members == 1).await;
    assert!(TcpStream::connect(addr).await.is_err(), "nobody listens any more");
    assert_ne!(state.borrow().phase, Phase::Left);
}

#[tokio::test]
async fn a_panic_on_the_members_task_is_told() {
    let peer = Peer::start(options("alone", &[]));
    assert_eq!(peer.handle.call::<()>(|_| panic!("on purpose")).await, Err(Closed));
    let state = peer.until("failed", |state| state.failure.is_some()).await;
    assert_eq!(state.phase, Phase::Failed);
    assert!(!peer.handle.leave().await.told);
}

#[tokio::test]
async fn what_is_not_ours_is_closed_and_counted() {
    let peer = Peer::start(options("alone", &[]));
    let answer = talk(peer.addr(), b"GET /metrics HTTP/1.1\r\nHost: gossip\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 400 ") && answer.contains("http port"), "{answer}");
    assert_eq!(peer.count(|counts| &counts.http_connections), 1);
    assert_eq!(talk(peer.addr(), b"\x16\x03\x01\x02\x00").await, "");
    assert_eq!(peer.count(|counts| &counts.tls_connections), 1);
    assert_eq!(talk(peer.addr(), b"\x00garbage").await, "");
    assert_eq!(peer.count(|counts| &counts.unknown_connections), 1);
    assert_eq!(peer.count(|counts| &counts.streams_in), 0);
}

#[tokio::test]
async fn hostile_streams_of_datagrams_are_closed_and_counted() {
    let peer = Peer::start(options("alone", &[]));
    for hostile in [&b"\x9d\x03abc"[..], b"\x9d\x0b127.0.0.1:1\xff\xff"] {
        assert_eq!(talk(peer.addr(), hostile).await, "", "{hostile:?}");
    }
    peer.until_counted("errors", |counts| &counts.inbound_stream_errors, 2).await;
    let mut stream = TcpStream::connect(peer.addr()).await.unwrap();
    stream.write_all(b"\x9d\x0b127.0.0.1:1\x05\x00short").await.unwrap();
    peer.until_seen("it is refused", |seen| !seen.refused.is_empty()).await;
    assert_eq!(peer.count(|counts| &counts.datagrams_in), 1);
    assert_eq!(peer.count(|counts| &counts.datagram_bytes_in), 5);
}

#[tokio::test]
async fn connections_over_the_limit_are_rejected() {
    let mut few = options("alone", &[]);
    few.max_connections = 2;
    let peer = Peer::start(few);
    let first = TcpStream::connect(peer.addr()).await.unwrap();
    let _second = TcpStream::connect(peer.addr()).await.unwrap();
    peer.until_counted("two are open", |counts| &counts.connections, 2).await;
    assert_eq!(talk(peer.addr(), b"").await, "");
    assert_eq!(peer.count(|counts| &counts.connections_rejected), 1);
    drop(first);
    let freed = async {
        while peer.count(|counts| &counts.connections) > 1 {
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(LIMIT, freed).await.unwrap();
    assert!(talk(peer.addr(), b"GET / HTTP/1.1\r\n\r\n").await.starts_with("HTTP/1.1 400"));
}

#[tokio::test]
async fn streams_of_datagrams_leave_room_for_others() {
    let mut few = options("alone", &[]);
    few.max_connections = 1;
    let peer = Peer::start(few);
    let mut lanes = Vec::new();
    for number in 1..=5 {
        let mut lane = TcpStream::connect(peer.addr()).await.unwrap();
        lane.write_all(b"\x9d\x0b127.0.0.1:1\x05\x00short").await.unwrap();
        peer.until_counted("it came", |counts| &counts.datagrams_in, number).await;
        lanes.push(lane);
    }
    let ended = timeout(LIMIT, lanes[0].read(&mut [0; 1])).await.unwrap();
    assert_eq!(ended.unwrap(), 0, "the one that was used least recently");
    assert_eq!(peer.count(|counts| &counts.connections_rejected), 1);
    assert!(talk(peer.addr(), b"GET / HTTP/1.1\r\n\r\n").await.starts_with("HTTP/1.1 400"));
    lanes[1].write_all(b"\x05\x00short").await.unwrap();
    peer.until_counted("it still comes", |counts| &counts.datagrams_in, 6).await;
}

#[tokio::test]
async fn who_says_nothing_complete_is_not_waited_for() {
    let mut impatient = options("alone", &[]);
    impatient.read_timeout = Duration::from_millis(100);
    let peer = Peer::start(impatient);
    let halves = [&b"\x9b"[..], b"\x9b\xff\x00", b"\x9d\x0b127.0.0.1:1\x05\x00sh"];
    for (number, half) in (1..).zip(halves) {
        assert_eq!(talk(peer.addr(), half).await, "", "{half:?}");
        peer.until_counted("errors", |counts| &counts.inbound_stream_errors, number).await;
    }
}

#[tokio::test]
async fn a_stranger_gets_no_answer_by_datagram() {
    let peer = Peer::start(options("alone", &[]));
    peer.until_joined(1).await;
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let mut writer = DatagramWriter::new(1400, Header::new(label_hash(""), 1));
    assert!(writer.try_push_digest(1, &[(SmolStr::default(), 1)]) && writer.try_push_stale(1));
    socket.send_to(&writer.finish(), peer.addr()).await.unwrap();
    peer.until_seen("it is refused", |seen| seen.refused.contains_key("stranger")).await;
    assert_eq!(peer.count(|counts| &counts.datagrams_out), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_port_of_one_that_was_ended_is_free() {
    let mut peer = Peer::start(options("alone", &[]));
    for _ in 0..10 {
        let _open = TcpStream::connect(peer.addr()).await.unwrap();
        peer.until_counted("one is open", |counts| &counts.connections, 1).await;
        peer.handle.abort();
        timeout(LIMIT, peer.handle.ended()).await.unwrap();
        let mut again = options("alone", &[]);
        again.bind = vec![peer.addr()];
        peer = Peer::start(again);
    }
}

#[tokio::test]
async fn a_cluster_with_keys_keeps_others_out() {
    let sealed = |secret: u8| Security {
        keyring: Keyring::new(vec![ClusterKey::from_bytes(&[secret; 32]).unwrap()]),
        require_sealed: true,
    };
    let peers = cluster(3, |options| options.security = sealed(1)).await;
    write_and_see(&peers).await;

    let reason = reason_of_failure(options("in-clear", &[peers[0].addr()])).await;
    assert!(reason.contains("key"), "{reason}");
    let mut other_key = options("other-key", &[peers[0].addr()]);
    other_key.security = sealed(2);
    let reason = reason_of_failure(other_key).await;
    assert!(reason.contains("key"), "{reason}");

    let second = ClusterKey::from_bytes(&[2; 32]).unwrap();
    peers[0].handle.call(move |access| access.set_keys(vec![second])).await.unwrap();
    let keys = peers[0].handle.call(|access| access.member().keys().len()).await.unwrap();
    assert_eq!(keys, 1);
}

/// Lets a member fail to join, and returns what it says then.
async fn reason_of_failure(mut options: Options) -> String {
    options.max_join_attempts = 2;
    options.abort_if_join_fails = true;
    let peer = Peer::start(options);
    let state = peer.until("failed", |state| state.failure.is_some()).await;
    assert!(state.phase == Phase::Failed && !state.synced && !state.gave_up, "{state:?}");
    let reason = state.failure.unwrap();
    assert!(reason.starts_with("failed to join memberlist cluster on startup: "), "{reason}");
    assert_eq!(peer.seen.borrow().failed.as_ref(), Some(&reason));
    // It ends after it has said so.
    timeout(LIMIT, async { while peer.handle.call(|_| ()).await.is_ok() {} }).await.unwrap();
    reason
}

#[tokio::test]
async fn a_seed_that_nobody_listens_at_is_told() {
    let dead = free_addr();
    let reason = reason_of_failure(options("alone", &[dead])).await;
    assert!(reason.contains(&dead.to_string()) && reason.to_lowercase().contains("refused"), "{reason}");
}

#[tokio::test]
async fn a_seed_of_another_cluster_is_told() {
    let mut other = options("other", &[]);
    other.config.label = "production".into();
    let other = Peer::start(other);
    other.until_joined(1).await;
    let mut member = options("member", &[other.addr()]);
    member.config.label = "staging".into();
    let reason = reason_of_failure(member).await;
    assert!(reason.contains("label"), "{reason}");
    other.until_joined(1).await;
}

#[tokio::test]
async fn a_member_that_is_its_own_seed_begins_a_cluster() {
    let peer = loop {
        let addr = free_addr();
        let mut options = options("alone", &[addr]);
        options.bind = vec![addr];
        options.max_join_attempts = 1;
        options.abort_if_join_fails = true;
        match Peer::try_start(options) {
            Ok(peer) => break peer,
            // Somebody else was quicker.
            Err(error) => assert!(matches!(error, StartError::Bind { .. }), "{error}"),
        }
    };
    let state = peer.until("synced", |state| state.synced).await;
    assert_eq!((state.phase, state.members, state.failure), (Phase::Active, 1, None));
}

#[tokio::test]
async fn a_member_that_may_goes_on_looking_for_its_cluster() {
    let mut lost = options("lost", &[free_addr()]);
    lost.max_join_attempts = 2;
    let peer = Peer::start(lost);
    let state = peer.until("gave up", |state| state.gave_up).await;
    assert_eq!((state.phase, state.synced, state.failure), (Phase::Joining, false, None));
    peer.write("instance-0", "is here").await;
    assert!(peer.handle.leave().await.told);
}

#[tokio::test]
async fn a_member_whose_seeds_cannot_be_looked_up_founds_no_cluster() {
    let unknown = |name: &str| {
        let mut options = options(name, &[]);
        options.seeds = vec![Seed::parse("dns+no-such-host.invalid:7946").unwrap()];
        options.max_join_attempts = 1;
        options
    };
    let patient = Peer::start(unknown("patient"));
    let (state, reason) = tokio::join!(
        patient.until("gave up", |state| state.gave_up),
        reason_of_failure(unknown("impatient"))
    );
    assert_eq!((state.phase, state.synced, state.members), (Phase::Resolving, false, 1));
    assert!(reason.contains("no seed was found") && reason.contains("no-such-host.invalid"), "{reason}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_of_garbage_leaves_a_member_answering() {
    let peers = cluster(2, |_| ()).await;
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    for number in 0..20_000_u32 {
        let garbage = number.to_le_bytes().repeat(100);
        socket.send_to(&garbage, peers[0].addr()).await.unwrap();
        if number % 1000 == 0 {
            timeout(LIMIT, peers[0].handle.call(|access| access.now())).await.unwrap().unwrap();
        }
    }
    peers[0].until_seen("it is refused", |seen| seen.refused.values().sum::<u64>() > 100).await;
    write_and_see(&peers).await;
}

#[test]
fn without_a_runtime_nothing_is_started() {
    assert!(matches!(Peer::try_start(options("alone", &[])), Err(StartError::NoRuntime)));
}
