//! Whole loads against a small store over HTTP, honest or not.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on says where")]

mod store;

use std::time::Duration;

use ringkit_loadgen::{Ledger, LedgerAt, Load, LoadOptions, Summary, VerifyOptions, VerifyReport, verify};
use store::{Fault, Store};
use tokio_util::sync::CancellationToken;

/// 40 batches of 25 series: 1000 samples within 0.1 s.
fn options(store: &Store) -> LoadOptions {
    LoadOptions {
        urls: vec![store.url()],
        series: 100,
        rate: 10_000.0,
        batch: 25,
        special_permille: 100,
        duration: Some(Duration::from_millis(100)),
        ..LoadOptions::default()
    }
}

async fn load(options: LoadOptions) -> (Summary, std::sync::Arc<Ledger>) {
    let load = Load::new(options).unwrap();
    let summary = load.run(CancellationToken::new()).await.unwrap();
    (summary, load.ledger())
}

async fn check(store: &Store, ledger: &Ledger) -> VerifyReport {
    let options = VerifyOptions { url: store.url(), window_samples: 3, ..VerifyOptions::default() };
    verify(ledger, &options).await.unwrap()
}

#[tokio::test]
async fn all_that_an_honest_store_acknowledges_is_found_again() {
    let store = Store::start().await;
    let (summary, ledger) = load(options(&store)).await;
    assert_eq!((summary.sent_samples, summary.acked_samples, summary.acked_batches), (1000, 1000, 40));
    assert_eq!((summary.writes, summary.failed_writes, summary.unacked_samples), (40, 0, 0));
    assert!(summary.errors.is_empty());
    let report = check(&store, &ledger).await;
    assert!(report.is_clean(), "{report}");
    assert_eq!((report.acked, report.found), (1000, 1000));
}

#[tokio::test]
async fn every_series_arrives_in_order_even_with_failures_and_many_requests_in_flight() {
    let store = Store::start().await;
    store.set(Fault::EveryThirdIs(503));
    let (summary, ledger) = load(options(&store)).await;
    assert_eq!(summary.acked_samples, 1000, "{summary}");
    assert!(summary.errors["503"] > 0);
    assert_eq!(summary.failed_writes, summary.errors["503"]);
    assert_eq!(summary.writes, 40 + summary.failed_writes);
    assert_eq!(store.out_of_order(), 0);
    assert!(check(&store, &ledger).await.is_clean());
}

#[tokio::test]
async fn two_loads_with_one_plan_send_the_same() {
    let (one, two) = (Store::start().await, Store::start().await);
    let (_, ledger) = load(options(&one)).await;
    load(LoadOptions { seed: 1, ..options(&two) }).await;
    let (one, two) = (one.samples(), two.samples());
    assert_eq!(one.len(), 100);
    for (labels, samples) in &one {
        for (t, bits) in samples {
            // The clock chooses the timestamps; what they have in common must be equal.
            assert!(two[labels].get(t).is_none_or(|other| other == bits));
        }
    }
    assert_eq!(one.keys().collect::<Vec<_>>(), two.keys().collect::<Vec<_>>());
    assert_eq!(ledger.num_acked(), 1000);
}

#[tokio::test]
async fn a_store_that_loses_an_acknowledged_sample_is_found_out() {
    let store = Store::start().await;
    let (_, ledger) = load(options(&store)).await;
    store.lose_one();
    let report = check(&store, &ledger).await;
    assert_eq!((report.missing, report.wrong, report.extra), (1, 0, 0), "{report}");
    assert!(report.examples[0].contains("missing"));
}

#[tokio::test]
async fn a_store_that_acknowledges_what_it_drops_is_found_out() {
    let store = Store::start().await;
    store.set(Fault::AckAndDrop(7));
    let (summary, ledger) = load(options(&store)).await;
    assert_eq!(summary.acked_samples, 1000);
    let report = check(&store, &ledger).await;
    assert_eq!(report.missing, 25, "{report}");
}

#[tokio::test]
async fn one_flipped_bit_and_one_invented_sample_are_found() {
    let store = Store::start().await;
    let (_, ledger) = load(options(&store)).await;
    store.flip_one_bit();
    store.invent_one();
    let report = check(&store, &ledger).await;
    assert_eq!((report.missing, report.wrong, report.extra), (0, 1, 1), "{report}");
}

#[tokio::test]
async fn what_is_refused_is_neither_retried_nor_expected() {
    let store = Store::start().await;
    store.set(Fault::Always(400));
    let (summary, ledger) = load(options(&store)).await;
    assert_eq!((summary.refused_samples, summary.acked_samples, summary.writes), (1000, 0, 40));
    assert_eq!(summary.errors["400"], 40);
    let report = check(&store, &ledger).await;
    assert!(report.is_clean() && report.acked == 0, "{report}");
}

#[tokio::test]
async fn a_429_waits_as_long_as_the_server_asks() {
    let store = Store::start().await;
    store.set(Fault::FirstIs(429, "1"));
    let one =
        LoadOptions { series: 1, rate: 1.0, duration: Some(Duration::from_millis(500)), ..options(&store) };
    let (summary, _) = load(one).await;
    assert_eq!((summary.acked_samples, summary.errors["429"]), (1, 1));
    assert!(summary.latency.max_ms >= 1000.0, "{}", summary.latency.max_ms);
}

#[tokio::test]
async fn a_refused_connection_moves_the_batch_to_the_next_target_at_once() {
    let store = Store::start().await;
    let nobody = {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        format!("http://{}", listener.local_addr().unwrap())
    };
    let both = LoadOptions { urls: vec![nobody.clone(), store.url()], ..options(&store) };
    let (summary, ledger) = load(both).await;
    assert_eq!((summary.acked_samples, summary.failed_writes), (1000, 0), "{summary}");
    assert!(summary.failovers > 0);
    assert!(check(&store, &ledger).await.is_clean());

    let alone = LoadOptions { urls: vec![nobody], drain_timeout: Duration::ZERO, ..options(&store) };
    let (summary, _) = load(alone).await;
    assert_eq!(summary.acked_samples, 0);
    assert!(summary.errors["connect"] > 0 && summary.failovers == 0, "{summary}");
    assert!(summary.unacked_samples > 0);
}

#[tokio::test]
async fn a_stalled_store_shows_in_the_latency_of_every_batch_it_delayed() {
    let store = Store::start().await;
    store.set(Fault::StallOnce(Duration::from_millis(300)));
    // One range, so that nothing overtakes: 20 batches, 10 ms apart, all held up by the first.
    let options = LoadOptions {
        batch: 100,
        duration: Some(Duration::from_millis(200)),
        concurrency: 1,
        ..options(&store)
    };
    let (summary, _) = load(options).await;
    assert_eq!(summary.acked_batches, 20);
    assert!(summary.latency.max_ms >= 300.0, "{summary}");
    assert!(summary.latency.p50_ms >= 100.0, "the wait of later batches was omitted: {summary}");
}

#[tokio::test]
async fn a_stopped_load_can_be_continued_from_its_file_and_still_verifies() {
    let (store, dir) = (Store::start().await, tempfile::tempdir().unwrap());
    let path = dir.path().join("ledger");
    let with_file =
        || LoadOptions { ledger: LedgerAt::File(path.clone()), duration: None, ..options(&store) };
    for _ in 0..2 {
        let load = Load::new(with_file()).unwrap();
        let stop = CancellationToken::new();
        let (ledger, token) = (load.ledger(), stop.clone());
        let before = ledger.num_acked();
        let stopper = async {
            while ledger.num_acked() < before + 200 {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            token.cancel();
        };
        let (summary, ()) = tokio::join!(load.run(stop), stopper);
        assert_eq!(summary.unwrap().unacked_samples, 0);
    }
    let ledger = Ledger::read(&path).unwrap();
    assert!(ledger.num_acked() >= 400);
    let report = check(&store, &ledger).await;
    assert!(report.is_clean() && report.found == ledger.num_acked(), "{report}");
    assert_eq!(store.out_of_order(), 0);
}

#[tokio::test]
async fn a_killed_load_leaves_a_ledger_that_claims_nothing_false() {
    let (store, dir) = (Store::start().await, tempfile::tempdir().unwrap());
    let path = dir.path().join("ledger");
    let options = LoadOptions { ledger: LedgerAt::File(path.clone()), duration: None, ..options(&store) };
    let load = Load::new(options).unwrap();
    let (ledger, run) = (load.ledger(), load.run(CancellationToken::new()));
    // Dropped in the middle, with batches in flight.
    let some = async {
        while ledger.num_acked() < 300 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::select! { _ = run => panic!("ended by itself"), () = some => {} }
    let report = check(&store, &Ledger::read(&path).unwrap()).await;
    assert!(report.is_clean() && report.found >= 300, "{report}");
}

#[tokio::test]
async fn the_tenant_is_sent_with_writes_and_reads() {
    let store = Store::start().await;
    let tenant = Some("team-a".to_owned());
    let (summary, ledger) = load(LoadOptions { tenant: tenant.clone(), ..options(&store) }).await;
    assert_eq!(summary.acked_samples, 1000);
    let as_tenant = VerifyOptions { url: store.url(), tenant, ..VerifyOptions::default() };
    assert_eq!(verify(&ledger, &as_tenant).await.unwrap().found, 1000);
    assert_eq!(check(&store, &ledger).await.missing, 1000);
}

#[tokio::test]
async fn a_read_that_keeps_failing_is_an_error_and_not_a_loss() {
    let store = Store::start().await;
    let (_, ledger) = load(options(&store)).await;
    let twice = VerifyOptions { url: store.url(), attempts: 2, ..VerifyOptions::default() };
    store.fail_reads(1);
    let report = verify(&ledger, &twice).await.unwrap();
    assert!(report.is_clean() && report.failed_queries == 1, "{report}");
    store.fail_reads(u64::MAX);
    let error = verify(&ledger, &twice).await.unwrap_err().to_string();
    assert!(error.contains("status 500"), "{error}");
}

#[tokio::test]
async fn batches_go_where_they_are_sent_while_the_load_runs() {
    let (one, two) = (Store::start().await, Store::start().await);
    let load = Load::new(LoadOptions { duration: None, ..options(&one) }).unwrap();
    let stop = CancellationToken::new();
    let moves = async {
        while one.samples().is_empty() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        assert!(two.samples().is_empty());
        assert!(load.set_urls(&[]).is_err() && load.set_urls(&["nonsense".to_owned()]).is_err());
        load.set_urls(&[two.url()]).unwrap();
        while two.samples().is_empty() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        stop.cancel();
    };
    let (summary, ()) = tokio::join!(load.run(stop.clone()), moves);
    let summary = summary.unwrap();
    assert_eq!((summary.failed_writes, summary.failovers, summary.unacked_samples), (0, 0, 0), "{summary}");
}

#[tokio::test]
async fn progress_is_reported_while_running() {
    let store = Store::start().await;
    let (lines, mut seen) = tokio::sync::mpsc::unbounded_channel();
    let options = LoadOptions { report_period: Duration::from_millis(20), ..options(&store) };
    let load =
        Load::new(options).unwrap().on_progress(move |progress| drop(lines.send(progress.to_string())));
    load.run(CancellationToken::new()).await.unwrap();
    let line = seen.recv().await.unwrap();
    assert!(line.contains("samples/s") && line.contains("p99"), "{line}");
}
