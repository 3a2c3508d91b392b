//! `/drain` on whole processes: one ingester of four goes under load, and nothing is missing afterwards.

use std::path::Path;
use std::time::Duration;

use ringkit_testkit::{Consul, Etcd, eventually_ok, http};

use crate::loading::Loading;
use crate::stores::{Fleet, Member, SCALED, SOON, write_config};

/// What `/drain` tells of the first instance of a process.
async fn progress(member: &Member) -> serde_json::Value {
    let answer = http::get(member.addr, "/drain").await.unwrap();
    assert_eq!(answer.status, 200, "{}", answer.text());
    serde_json::from_slice::<serde_json::Value>(&answer.body).unwrap()["drains"][0].take()
}

async fn drain(member: &Member, force: bool) -> (u16, String) {
    let answer = http::post(member.addr, &format!("/drain?force={force}"), &[], b"").await.unwrap();
    (answer.status, answer.text())
}

/// Waits until the process has ended by itself, with exit status 0 and gone from the ring.
async fn ends(member: &mut Member, distributor: &Member, id: &str) {
    let status = member.process.wait(Duration::from_secs(60)).await;
    let status = status.unwrap_or_else(|error| panic!("{error}\n{}", member.process.output()));
    assert!(status.success(), "{status}: {}", member.process.last_output());
    let gone = || async {
        let ring = distributor.ring().await;
        if ring.iter().any(|shard| shard.0 == id) { Err(format!("{ring:?}")) } else { Ok(()) }
    };
    eventually_ok(SOON, gone).await.unwrap();
}

async fn one_of_four_goes(dir: &Path) {
    let fleet = Fleet::start(dir, SCALED).await;
    let mut fourth = Member::ingester(dir, 4).await;
    fourth.ready().await;
    fleet.distributor.sees("ingester-4", true, SOON).await;
    assert_eq!(progress(&fourth).await["stage"], "none");

    let loading = Loading::start(fleet.distributor.addr);
    let stored = || async {
        let report = http::get(fourth.addr, "/ingester/tsdb").await.unwrap().text();
        if report.contains("200") { Ok(()) } else { Err(report) }
    };
    let _ = eventually_ok(Duration::from_secs(5), stored).await;

    let (status, text) = drain(&fourth, false).await;
    assert_eq!(status, 202, "{text}");
    // Asking again changes nothing.
    assert_eq!(drain(&fourth, false).await.0, 202);
    let waits = || async {
        let now = progress(&fourth).await;
        if now["stage"] == "waiting" && now["state"] == "READONLY" { Ok(()) } else { Err(now.to_string()) }
    };
    eventually_ok(SOON, waits).await.unwrap();
    let now = progress(&fourth).await;
    assert!(!now["missing"].as_array().unwrap().is_empty() && now["estimate_seconds"].is_u64(), "{now}");
    ends(&mut fourth, &fleet.distributor, "ingester-4").await;

    tokio::time::sleep(Duration::from_secs(2)).await;
    loading.lost_nothing().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_of_four_ingesters_on_consul_goes_under_load_and_nothing_is_missing() {
    let dir = tempfile::tempdir().unwrap();
    let server = Consul::start().await.unwrap();
    write_config(dir.path(), "consul", &format!("consul: {{host: '{}'}}", server.addr()), SCALED);
    one_of_four_goes(dir.path()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_of_four_ingesters_on_etcd_goes_under_load_and_nothing_is_missing() {
    let dir = tempfile::tempdir().unwrap();
    let server = Etcd::start().await.unwrap();
    let kvstore = format!("layout: per_instance, etcd: {{endpoints: ['{}']}}", server.addr());
    write_config(dir.path(), "etcd", &kvstore, SCALED);
    one_of_four_goes(dir.path()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drain_that_would_break_a_quorum_is_refused_unless_forced() {
    let dir = tempfile::tempdir().unwrap();
    let server = Etcd::start().await.unwrap();
    write_config(dir.path(), "etcd", &format!("etcd: {{endpoints: ['{}']}}", server.addr()), SCALED);
    let mut fleet = Fleet::start(dir.path(), SCALED).await;
    let bad = http::post(fleet.distributor.addr, "/drain?force=perhaps", &[], b"").await.unwrap();
    assert_eq!(bad.status, 400, "{}", bad.text());
    // Two of three are enough for every write, once it knows of them.
    let begins = || async {
        let (status, text) = drain(&fleet.ingesters[0], false).await;
        if status == 202 { Ok(()) } else { Err(format!("{status}: {text}")) }
    };
    eventually_ok(SOON, begins).await.unwrap();
    ends(&mut fleet.ingesters[0], &fleet.distributor, "ingester-1").await;
    let refused = || async {
        let (status, text) = drain(&fleet.ingesters[1], false).await;
        if status == 409 { Ok(text) } else { Err(format!("{status}: {text}")) }
    };
    let text = refused().await.unwrap();
    assert!(text.contains("ingester-2") && text.contains("force=true"), "{text}");
    assert_eq!(progress(&fleet.ingesters[1]).await["stage"], "none");
    assert_eq!(drain(&fleet.ingesters[1], true).await.0, 202);
    ends(&mut fleet.ingesters[1], &fleet.distributor, "ingester-2").await;
    // The others of the process are drained by the same way.
    assert_eq!(drain(&fleet.gateway, false).await.0, 202);
    assert!(fleet.gateway.process.wait(SOON).await.unwrap().success());
    assert_eq!(drain(&fleet.distributor, false).await.0, 202);
    assert!(fleet.distributor.process.wait(SOON).await.unwrap().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_ingester_changes_its_mode_and_renews_tokens_and_refuses_what_makes_no_sense() {
    let dir = tempfile::tempdir().unwrap();
    let server = Etcd::start().await.unwrap();
    write_config(dir.path(), "etcd", &format!("etcd: {{endpoints: ['{}']}}", server.addr()), SCALED);
    let fleet = Fleet::start(dir.path(), SCALED).await;
    let ingester = &fleet.ingesters[0];
    let post = async |path: &str| {
        let answer = http::post(ingester.addr, path, &[], b"").await.unwrap();
        (answer.status, answer.text())
    };
    for mode in ["LEAVING", "ASLEEP", ""] {
        let (status, text) = post(&format!("/ingester/mode?mode={mode}")).await;
        assert!(status == 400 && text.contains("READONLY or ACTIVE"), "{status}: {text}");
    }
    let shown = async |state: &str| {
        let seen = || async {
            let ring = fleet.distributor.ring().await;
            if ring.iter().any(|shard| shard.0 == "ingester-1" && shard.1 == state) {
                Ok(())
            } else {
                Err(format!("{ring:?}"))
            }
        };
        eventually_ok(SOON, seen).await.unwrap();
    };
    assert_eq!(post("/ingester/mode?mode=readonly").await, (200, "Ingester mode READONLY".to_owned()));
    shown("READONLY").await;
    assert_eq!(post("/ingester/mode?mode=ACTIVE").await.0, 200);
    shown("ACTIVE").await;

    let tokens = async || {
        let ring = fleet.distributor.ring().await;
        let shard = ring.into_iter().find(|shard| shard.0 == "ingester-1").unwrap();
        serde_json::from_value::<Vec<u32>>(shard.2).unwrap()
    };
    let before = tokens().await;
    assert_eq!(post("/ingester/renewTokens").await.0, 204);
    let renewed = || async {
        let now = tokens().await;
        let kept = now.iter().filter(|token| before.contains(token)).count();
        // A tenth of 128, rounded down.
        if (now.len(), kept) == (128, 116) { Ok(()) } else { Err(format!("{kept} of {}", now.len())) }
    };
    eventually_ok(SOON, renewed).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn roles_that_have_nothing_to_hand_over_do_not_take_down_one_that_has() {
    let dir = tempfile::tempdir().unwrap();
    let server = Etcd::start().await.unwrap();
    write_config(dir.path(), "etcd", &format!("etcd: {{endpoints: ['{}']}}", server.addr()), SCALED);
    let fleet = Fleet::start(dir.path(), SCALED).await;
    let flags = [
        "-target=ingester,distributor,store-gateway".to_owned(),
        "-ingester.lifecycler.ID=ingester-4".to_owned(),
        "-distributor.ring.instance-id=distributor-2".to_owned(),
        "-store-gateway.sharding-ring.instance-id=store-gateway-2".to_owned(),
        format!("-blocks-storage.tsdb.dir={}", dir.path().join("all").display()),
    ];
    let mut all = Member::start(dir.path(), "ringkit", "all", &flags).await;
    all.ready().await;
    fleet.distributor.sees("ingester-4", true, SOON).await;
    let loading = Loading::start(fleet.distributor.addr);
    tokio::time::sleep(Duration::from_secs(2)).await;

    assert_eq!(drain(&all, false).await.0, 202);
    // The others are done at once; the process stays, because the ingester still compares.
    let waits = || async {
        let answer = http::get(all.addr, "/drain").await.map_err(|error| error.to_string())?.text();
        let stages = |stage: &str| answer.matches(&format!("\"stage\":\"{stage}\"")).count();
        if (stages("done"), stages("waiting")) == (2, 1) { Ok(()) } else { Err(answer) }
    };
    eventually_ok(Duration::from_secs(10), waits).await.unwrap();
    ends(&mut all, &fleet.distributor, "ingester-4").await;
    loading.lost_nothing().await;
}
