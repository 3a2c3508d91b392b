//! Stores that gossip, on loopback: each is a member of its own, with sockets of its own.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
#![cfg(feature = "memberlist")]

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use metrics_exporter_prometheus::PrometheusBuilder;
use ringkit_config::{KvStore, KvStoreConfig, MemberlistConfig, Secret};
use ringkit_kv::conformance::{self, Counters, Traits};
use ringkit_kv::memberlist::{KeyContents, Memberlist, MemberlistOptions, Report};
use ringkit_kv::{Change, Client, Decision, Error, Key, Precondition, Store, Stores, Update, Value, Watch};
use ringkit_ring::{Desc, InstanceDesc};
use ringkit_runtime::{Clock, Meter};
use ringkit_testkit::ports::free_port;
use ringkit_testkit::{Certs, eventually_ok};
use tokio::time::timeout;

#[path = "memberlist/races.rs"]
mod races;
#[path = "memberlist/transports.rs"]
mod transports;

const SOON: Duration = Duration::from_secs(20);
/// How long nothing must happen.
const A_WHILE: Duration = Duration::from_millis(300);
const KEY: &str = "ring";

/// A process, as far as its store goes.
struct Process {
    stores: Stores,
    member: Memberlist,
    store: Arc<dyn Store>,
}

fn config(name: &str, seeds: &[&Process]) -> MemberlistConfig {
    MemberlistConfig {
        node_name: name.into(),
        randomize_node_name: false,
        bind_addr: vec!["127.0.0.1".into()],
        bind_port: 0,
        cluster_label: "test".into(),
        join_members: seeds.iter().map(|seed| seed.member.addr().to_string()).collect(),
        min_join_backoff: Duration::from_millis(20),
        max_join_backoff: Duration::from_millis(100),
        pull_push_interval: Duration::from_secs(3),
        leave_timeout: Duration::from_secs(2),
        message_history_buffer_bytes: 1 << 20,
        ..MemberlistConfig::default()
    }
}

fn start(config: MemberlistConfig) -> Process {
    start_metered(config, &Meter::disabled())
}

fn start_metered(config: MemberlistConfig, meter: &Meter) -> Process {
    start_with(MemberlistOptions { meter: meter.clone(), ..options(config) })
}

fn options(config: MemberlistConfig) -> MemberlistOptions {
    MemberlistOptions {
        config,
        zone: "z".into(),
        build: "test".into(),
        meter: Meter::disabled(),
        clock: Clock::system(),
        proceed_after: None,
    }
}

fn start_with(options: MemberlistOptions) -> Process {
    let stores = Stores::new();
    stores.set_memberlist(options);
    let config =
        KvStoreConfig { store: KvStore::Memberlist, prefix: String::new(), ..KvStoreConfig::default() };
    let store = stores.open(&config, "test", &Meter::disabled(), &Clock::system()).unwrap();
    let member = stores.memberlist().unwrap();
    Process { stores, member, store }
}

/// A cluster of this many, each of which has joined.
async fn cluster(number: usize) -> Vec<Process> {
    let mut processes = vec![start(config("member-0", &[]))];
    for place in 1..number {
        let process = start(config(&format!("member-{place}"), &[&processes[0]]));
        process.joined().await;
        processes.push(process);
    }
    processes
}

impl Process {
    fn client<V: Value>(&self) -> Client<V> {
        Client::new(Arc::clone(&self.store), &Meter::disabled())
    }

    fn counters(&self) -> Client<Counters> {
        self.client()
    }

    async fn joined(&self) {
        let mut synced = self.store.synced();
        timeout(SOON, synced.wait_for(|synced| *synced)).await.unwrap().unwrap();
    }

    async fn report(&self) -> Report {
        self.member.report().await.unwrap()
    }
}

/// Waits until the watch shows what is wanted.
async fn see<V: Value>(watch: &mut Watch<V>, wanted: impl Fn(&Update<V>) -> bool) -> Update<V> {
    let seen = async {
        loop {
            let update = watch.next().await.unwrap();
            if wanted(&update) {
                return update;
            }
        }
    };
    timeout(SOON, seen).await.unwrap()
}

fn counts(update: &Update<Counters>, id: &str) -> Option<u64> {
    update.value.as_ref()?.count(id)
}

async fn must_see(process: &Process, id: &str, count: Option<u64>) {
    let mut watch = process.counters().watch(KEY).await.unwrap();
    see(&mut watch, |update| counts(update, id) == count).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_alone_conforms() {
    let process = start(config("alone", &[]));
    conformance::all(&process.store, Traits::default()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_of_three_conforms() {
    let processes = cluster(3).await;
    conformance::all(&processes[1].store, Traits::default()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_one_writes_the_others_see_and_removals_too() {
    let processes = cluster(2).await;
    let [a, b] = [&processes[0], &processes[1]];
    let mut watch = b.counters().watch(KEY).await.unwrap();
    assert!(watch.next().await.unwrap().value.is_none());
    a.counters().upsert_own(KEY, "a", &1).await.unwrap();
    see(&mut watch, |update| counts(update, "a") == Some(1)).await;
    b.counters().upsert_own(KEY, "b", &2).await.unwrap();
    must_see(a, "b", Some(2)).await;
    assert_eq!(b.counters().list("").await.unwrap(), [KEY], "and none of the members' own keys");

    a.counters().remove_own(KEY, "a").await.unwrap();
    let update = see(&mut watch, |update| counts(update, "a").is_none()).await;
    assert_eq!((update.removed, counts(&see_now(b).await, "b")), (vec!["a".into()], Some(2)));
    assert!(b.counters().removals_are_meant());

    // The last entry goes: the key is empty everywhere, not absent. Then it is deleted.
    b.counters().remove_own(KEY, "b").await.unwrap();
    let mut watch = a.counters().watch(KEY).await.unwrap();
    let empty = Some(Counters::default());
    see(&mut watch, |update| update.value.as_deref() == empty.as_ref()).await;
    b.counters().delete(KEY).await.unwrap();
    see(&mut watch, |update| update.value.is_none()).await;
    assert!(a.counters().list("").await.unwrap().is_empty());
}

async fn see_now(process: &Process) -> Update<Counters> {
    process.counters().watch(KEY).await.unwrap().next().await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writers_of_different_entries_do_not_disturb_each_other() {
    const EACH: u64 = 50;
    let processes = cluster(2).await;
    let writes = processes.iter().enumerate().map(|(place, process)| {
        let (client, id) = (process.counters(), format!("own-{place}"));
        tokio::spawn(async move {
            for count in 1..=EACH {
                let view = client.upsert_own(KEY, &id, &count).await.unwrap();
                assert_eq!(view.value.count(&id), Some(count));
                // The other one writes all the time, and is not in the way.
                let counted = client.cas(KEY, |now| {
                    let mut next = now.cloned().unwrap_or_default();
                    let name = format!("cas-{id}");
                    next.set(&name, next.count(&name).unwrap_or(0) + 1);
                    Decision::Write(next, ())
                });
                counted.await.unwrap();
            }
        })
    });
    for write in writes.collect::<Vec<_>>() {
        write.await.unwrap();
    }
    for process in &processes {
        for place in 0..processes.len() {
            must_see(process, &format!("own-{place}"), Some(EACH)).await;
            must_see(process, &format!("cas-own-{place}"), Some(EACH)).await;
        }
    }
    let [one, other] = [processes[0].report().await, processes[1].report().await];
    assert_eq!(one.keys[0].digest, other.keys[0].digest);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_comes_back_under_its_name_finds_what_the_others_hold() {
    let processes = cluster(2).await;
    let [a, b]: [Process; 2] = processes.try_into().unwrap_or_else(|_| unreachable!());
    b.counters().upsert_own(KEY, "b", &1).await.unwrap();
    must_see(&a, "b", Some(1)).await;
    b.stores.leave().await;
    assert!(matches!(b.counters().get(KEY).await, Err(Error::Closed)));
    drop(b);
    // What it wrote stays, although it is gone.
    must_see(&a, "b", Some(1)).await;

    let b = start(config("member-1", &[&a]));
    let read = b.counters().get(KEY).await.unwrap().unwrap();
    assert_eq!(read.value.count("b"), Some(1), "the first read is complete");
    b.counters().upsert_own(KEY, "b", &2).await.unwrap();
    must_see(&a, "b", Some(2)).await;
    let known = || async {
        let members = a.report().await.members;
        let names: Vec<&str> = members.iter().map(|member| member.name.as_str()).collect();
        let alive = members.iter().all(|member| member.state == "alive");
        if names == ["member-0", "member-1"] && alive { Ok(()) } else { Err(format!("{members:?}")) }
    };
    eventually_ok(SOON, known).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_heartbeat_is_a_small_part_and_tells_when_it_was() {
    let processes = cluster(2).await;
    let [a, b] = [&processes[0], &processes[1]];
    let beats = |timestamp| InstanceDesc {
        addr: "10.0.0.1:9095".into(),
        timestamp,
        tokens: (0..128u32).map(|token| token.wrapping_mul(2_654_435_761)).collect(),
        ..InstanceDesc::default()
    };
    let mut watch = b.client::<Desc>().watch(KEY).await.unwrap();
    a.client::<Desc>().upsert_own(KEY, "i", &beats(1)).await.unwrap();
    a.member.clear_messages().await;
    let before = Instant::now();
    a.client::<Desc>().upsert_own(KEY, "i", &beats(2)).await.unwrap();
    let sent = a.report().await.sent;
    let facets: Vec<(u8, bool)> = sent.iter().map(|message| (message.facet, message.size < 8)).collect();
    assert_eq!(facets, [(2, true)], "{sent:?}");
    assert_eq!((sent[0].entry.as_str(), sent[0].author.as_str()), ("i", "member-0"));

    let update = see(&mut watch, |update| {
        let entry = update.value.as_ref().and_then(|desc| desc.get("i"));
        entry.is_some_and(|entry| entry.timestamp == 2)
    });
    let update = update.await;
    let entry = update.value.as_ref().unwrap().get("i").unwrap();
    assert_eq!(**entry, beats(2));
    let seen = update.seen["i"].into_std();
    assert!(seen + A_WHILE >= before && seen <= Instant::now() + A_WHILE, "heard when it was written");
    assert!(b.report().await.received.iter().any(|message| message.facet == 2));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reads_and_writes_wait_for_the_cluster_unless_told_not_to() {
    let nobody = format!("127.0.0.1:{}", free_port().unwrap());
    let process = start(MemberlistConfig {
        join_members: vec![nobody.clone()],
        max_join_retries: usize::MAX,
        ..config("early", &[])
    });
    let client = process.counters();
    timeout(A_WHILE, client.get(KEY)).await.unwrap_err();
    timeout(A_WHILE, client.upsert_own(KEY, "a", &1)).await.unwrap_err();
    timeout(A_WHILE, client.watch(KEY)).await.unwrap_err();
    assert!(!*client.synced().borrow());
    let remarked = || async {
        let remarks = process.stores.remarks();
        if remarks.iter().any(|remark| remark.contains(&nobody)) { Ok(()) } else { Err(remarks.join("\n")) }
    };
    eventually_ok(SOON, remarked).await.unwrap();

    let waiting = tokio::spawn({
        let client = client.clone();
        async move { client.get(KEY).await }
    });
    client.proceed_unsynced();
    timeout(SOON, waiting).await.unwrap().unwrap().unwrap();
    client.upsert_own(KEY, "a", &1).await.unwrap();
    assert!(!*client.synced().borrow(), "it does not know more than before");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reads_and_writes_wait_for_the_cluster_no_longer_than_they_are_to() {
    let config = MemberlistConfig {
        join_members: vec![format!("127.0.0.1:{}", free_port().unwrap())],
        max_join_retries: usize::MAX,
        ..config("early", &[])
    };
    let process = start_with(MemberlistOptions { proceed_after: Some(A_WHILE), ..options(config) });
    let began = Instant::now();
    timeout(SOON, process.counters().upsert_own(KEY, "a", &1)).await.unwrap().unwrap();
    assert!(began.elapsed() >= A_WHILE / 2, "{:?}", began.elapsed());
    assert!(!*process.counters().synced().borrow(), "it does not know more than before");
    let report = process.report().await;
    assert!(report.gave_up && !report.synced, "{report:?}");
    assert!(process.stores.remarks().iter().any(|remark| remark.contains("goes on without it")));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_gives_up_looking_goes_on_alone_if_it_may() {
    let process = start(MemberlistConfig {
        join_members: vec![format!("127.0.0.1:{}", free_port().unwrap())],
        max_join_retries: 1,
        abort_if_cluster_join_fails: false,
        ..config("alone", &[])
    });
    process.joined().await;
    process.counters().upsert_own(KEY, "a", &1).await.unwrap();
    let report = process.report().await;
    assert!(report.gave_up && !report.synced, "{report:?}");
}

/// Why a member ended.
async fn failure(process: &Process) -> String {
    let error = timeout(SOON, process.member.failed()).await.unwrap().to_string();
    let client = process.counters().with_deadlines(SOON, SOON);
    let read = client.get(KEY).await.unwrap_err();
    assert_eq!(read.to_string(), error);
    assert!(process.stores.remarks()[0].contains("failed"));
    error
}

/// Gives up soon.
fn hasty(config: MemberlistConfig) -> MemberlistConfig {
    let second = Duration::from_secs(1);
    MemberlistConfig { max_join_retries: 3, stream_timeout: second, packet_read_timeout: second, ..config }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_must_not_be_alone_fails_and_says_why() {
    let nobody = format!("127.0.0.1:{}", free_port().unwrap());
    let lonely = MemberlistConfig { join_members: vec![nobody.clone()], ..hasty(config("lonely", &[])) };
    let error = failure(&start(lonely)).await;
    assert!(error.contains("failed to join memberlist cluster on startup"), "{error}");
    assert!(error.contains(&nobody), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn labels_tell_clusters_apart() {
    let a = start(config("a", &[]));
    let stranger =
        start(MemberlistConfig { cluster_label: "other".into(), ..hasty(config("stranger", &[&a])) });
    let error = failure(&stranger).await;
    assert!(error.contains("label"), "{error}");
    assert_eq!(a.report().await.members.len(), 1);

    let tolerant = MemberlistConfig {
        cluster_label: "other".into(),
        cluster_label_accept: vec!["test".into()],
        ..config("tolerant", &[])
    };
    let tolerant = start(tolerant);
    let b =
        start(MemberlistConfig { cluster_label_accept: vec!["other".into()], ..config("b", &[&tolerant]) });
    b.joined().await;
    b.counters().upsert_own(KEY, "b", &1).await.unwrap();
    must_see(&tolerant, "b", Some(1)).await;
}

const FIRST: &str = "MDEyMzQ1Njc4OWFiY2RlZg==";
const SECOND: &str = "ZmVkY2JhOTg3NjU0MzIxMA==";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_has_no_key_stays_outside() {
    let sealed = |name: &str, key: &str, seeds: &[&Process]| MemberlistConfig {
        encryption_keys: vec![Secret::new(key)],
        ..hasty(config(name, seeds))
    };
    let a = start(sealed("a", FIRST, &[]));
    let b = start(sealed("b", FIRST, &[&a]));
    b.joined().await;
    a.counters().upsert_own(KEY, "a", &1).await.unwrap();
    must_see(&b, "a", Some(1)).await;
    let Report { keyring: keys, requires_sealed, .. } = b.report().await;
    assert!(keys.len() == 1 && keys[0].seals && keys[0].opened > 0, "{keys:?}");
    assert!(requires_sealed && keys[0].id.len() == 16, "{keys:?}");
    failure(&start(sealed("other-key", SECOND, &[&a]))).await;
    failure(&start(hasty(config("no-key", &[&a])))).await;
    let noticed = || async {
        let report = a.report().await;
        if report.unopenable > 0 { Ok(()) } else { Err(format!("{:?}", report.refused)) }
    };
    eventually_ok(SOON, noticed).await.unwrap();
    assert_eq!(a.report().await.members.len(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_rotate_while_members_run() {
    let path = std::env::temp_dir().join(format!("ringkit-rotation-{:016x}", rand::random::<u64>()));
    std::fs::write(&path, FIRST).unwrap();
    let sealed = |name: &str, seeds: &[&Process]| MemberlistConfig {
        encryption_keys_file: path.display().to_string(),
        ..config(name, seeds)
    };
    let a = start(sealed("a", &[]));
    let b = start(sealed("b", &[&a]));
    b.joined().await;
    // Added, then put first, then alone: so members that are a step ahead and those that are not understand each other.
    write(&path, &format!("# both for a while\n{FIRST}\n{SECOND}\n"));
    let both = rotated([&a, &b], |ids| ids.len() == 2).await;
    write(&path, &format!("{SECOND}\n{FIRST}\n"));
    let turned = rotated([&a, &b], |ids| ids[0] == both[1]).await;
    assert_eq!(turned[1], both[0]);
    a.counters().upsert_own(KEY, "a", &1).await.unwrap();
    must_see(&b, "a", Some(1)).await;
    write(&path, SECOND);
    assert_eq!(rotated([&a, &b], |ids| ids.len() == 1).await, [both[1].clone()]);
    b.counters().upsert_own(KEY, "b", &2).await.unwrap();
    must_see(&a, "b", Some(2)).await;
    std::fs::remove_file(&path).unwrap();
}

/// Waits until both have such keys, and returns what those are called.
async fn rotated(processes: [&Process; 2], wanted: impl Fn(&[String]) -> bool) -> Vec<String> {
    let mut ids = Vec::new();
    for process in processes {
        let has = || async {
            let keyring = process.report().await.keyring;
            let ids: Vec<String> = keyring.into_iter().map(|key| key.id).collect();
            if wanted(&ids) { Ok(ids) } else { Err(ids.join(" ")) }
        };
        ids = eventually_ok(SOON, has).await.unwrap();
    }
    ids
}

fn write(path: &Path, text: &str) {
    std::fs::write(path, text).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_verify_each_other_by_tls() {
    let (certs, others) = (Certs::new(&["127.0.0.1"]).unwrap(), Certs::new(&["127.0.0.1"]).unwrap());
    let encrypted = |name: &str, certs: &Certs, seeds: &[&Process]| MemberlistConfig {
        tls_enabled: true,
        tls_cert_path: certs.path("server.pem").display().to_string(),
        tls_key_path: certs.path("server.key").display().to_string(),
        tls_ca_path: certs.path("ca.pem").display().to_string(),
        ..hasty(config(name, seeds))
    };
    let a = start(encrypted("a", &certs, &[]));
    let b = start(encrypted("b", &certs, &[&a]));
    b.joined().await;
    a.counters().upsert_own(KEY, "a", &1).await.unwrap();
    must_see(&b, "a", Some(1)).await;
    b.counters().upsert_own(KEY, "b", &1).await.unwrap();
    must_see(&a, "b", Some(1)).await;
    assert_eq!(a.report().await.transport, "tls");
    failure(&start(encrypted("stranger", &others, &[&a]))).await;
    failure(&start(hasty(config("in-clear", &[&a])))).await;
    assert_eq!(a.report().await.members.len(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_stored_is_refused_before_anything_is_written() {
    let process = start(config("alone", &[]));
    let apply = async |key: &str, change: Change| {
        process.store.apply(&Key::new(key, Counters::codec()), change, Precondition::None).await
    };
    let long = "x".repeat(257);
    let mut change = Change::upsert("a", "small");
    change.upserts.insert("b".into(), vec![0u8; (256 << 10) + 1].into());
    for (key, change, what) in [
        (long.as_str(), Change::upsert("a", "small"), "bytes of the key exceed the limit of 256"),
        (KEY, Change::upsert(long.as_str(), "small"), "bytes of an entry id exceed the limit of 256"),
        (KEY, change, "exceed the limit of 262144"),
    ] {
        let error = apply(key, change).await.unwrap_err();
        assert!(matches!(error, Error::TooLarge { .. }) && error.to_string().contains(what), "{error}");
    }
    for key in ["_members", "_beacon", ""] {
        let error = apply(key, Change::upsert("a", "small")).await.unwrap_err();
        assert!(matches!(error, Error::Refused { .. }), "{error}");
        process.store.get(&Key::new(key, Counters::codec())).await.unwrap_err();
    }
    assert!(process.store.list("").await.unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_tells_how_it_stands_and_what_it_holds() {
    let processes = cluster(2).await;
    let [a, b] = [&processes[0], &processes[1]];
    a.counters().upsert_own(KEY, "one", &1).await.unwrap();
    a.counters().upsert_own(KEY, "two", &2).await.unwrap();
    a.counters().remove_own(KEY, "two").await.unwrap();
    must_see(b, "one", Some(1)).await;
    let complete = || async {
        let contents = b.member.contents(KEY).await.unwrap().unwrap();
        if contents.entries.len() == 1 && contents.removed.len() == 1 {
            Ok(contents)
        } else {
            Err(format!("{contents:?}"))
        }
    };
    let KeyContents { codec, entries, removed, stored, .. } = eventually_ok(SOON, complete).await.unwrap();
    assert_eq!((codec.as_str(), entries["one"].len(), removed[0].0.as_str()), ("counters", 8, "two"));
    assert_eq!(Counters::codec().split(&stored).unwrap().len(), 1);
    assert!(b.member.contents("unknown").await.unwrap().is_none());

    let report = b.report().await;
    assert_eq!((report.name.as_str(), report.phase.as_str(), report.synced), ("member-1", "active", true));
    assert_eq!(
        (report.addr, report.label.as_str(), report.zone.as_str()),
        (b.member.addr().to_string(), "test", "z")
    );
    assert_eq!(report.seeds[0].addrs, [a.member.addr().to_string()]);
    let members: Vec<_> = report.members.iter().map(|m| (m.name.as_str(), m.state.as_str(), m.own)).collect();
    assert_eq!(members, [("member-1", "alive", true), ("member-0", "alive", false)]);
    let key = &report.keys[0];
    assert_eq!(
        (report.keys.len(), key.key.as_str(), key.codec.as_str(), key.entries),
        (1, KEY, "counters", 1)
    );

    // A key that nobody here reads is told as it is.
    a.counters().upsert_own("other", "x", &7).await.unwrap();
    let arrived = || async {
        let contents = b.member.contents("other").await.unwrap();
        contents.filter(|contents| contents.entries.contains_key("x")).ok_or("not there yet")
    };
    let raw = eventually_ok(SOON, arrived).await.unwrap();
    assert_eq!((raw.codec.as_str(), raw.entries["x"].len()), ("", 8));
    let registers: Vec<serde_json::Value> = serde_json::from_slice(&raw.stored).unwrap();
    let register = registers.iter().find(|register| register["entry"] == "x").unwrap();
    assert_eq!(register["author"], "member-0");

    // Healing writes anew what is there, as this member.
    assert_eq!(b.member.heal(KEY, None).await.unwrap(), 0, "nothing is ahead");
    assert_eq!(b.member.heal(KEY, Some("one")).await.unwrap(), 1);
    let healed = || async {
        let received = a.report().await.received;
        let found = received.iter().any(|message| message.entry == "one" && message.author == "member-1");
        if found { Ok(()) } else { Err(format!("{received:?}")) }
    };
    eventually_ok(SOON, healed).await.unwrap();
    assert_eq!(a.counters().get(KEY).await.unwrap().unwrap().value.count("one"), Some(1));

    a.member.clear_messages().await;
    let report = a.report().await;
    assert!(report.sent.is_empty() && report.received.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_is_counted_for_as_long_as_it_lives() {
    let meter = Meter::new(Arc::new(PrometheusBuilder::new().build_recorder()));
    let process = start_metered(config("alone", &[]), &meter);
    process.counters().upsert_own(KEY, "a", &1).await.unwrap();
    let series = [
        "memberlist_client_phase{phase=\"active\"} 1\n",
        "memberlist_client_synced 1\n",
        "memberlist_client_cas_success_total 1\n",
        "memberlist_client_cluster_members_count 1\n",
        "memberlist_client_kv_store_count 1\n",
        "memberlist_client_kv_store_value_tombstones{key=\"ring\"} 0\n",
        "memberlist_tcp_transport_active_connections 0\n",
        "memberlist_tcp_transport_packets_received_errors_total 0\n",
        "memberlist_tcp_transport_incoming_stream_errors_total 0\n",
        "memberlist_client_messages_to_broadcast_dropped_total 0\n",
        "memberlist_client_sync_sessions_total{result=\"done\"} 0\n",
        "memberlist_client_root_checks_total{equal=\"true\"} 0\n",
        "memberlist_propagation_tracker_beacons_published_total 0\n",
    ];
    let counted = || async {
        let text = meter.render_collected();
        if series.iter().all(|line| text.contains(line)) { Ok(()) } else { Err(text) }
    };
    eventually_ok(SOON, counted).await.unwrap();
    drop(process);
    assert_eq!(meter.render_collected(), "");
}
