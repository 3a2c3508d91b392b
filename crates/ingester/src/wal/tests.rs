//! Log and head together: what was acknowledged is there after any crash.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, Ordering};

use proptest::prelude::*;

use super::replay::Error;
use super::*;
use crate::head::{Head, Limits, Outcome};
use crate::testing::{contents, encode_series, head};

const DIR: &str = "/wal";

fn metrics() -> Metrics {
    Metrics::register(&Meter::disabled())
}

fn options(files: &Faulty, max_segment_bytes: u64) -> Options {
    let files = Arc::new(files.clone());
    Options { files, dir: DIR.into(), sync: true, max_segment_bytes, metrics: metrics() }
}

fn read(files: &Faulty, repair: bool) -> Result<(Head, Replayed), Error> {
    let head = head();
    let replayed = replay(files, DIR.as_ref(), repair, &head, &metrics(), &AtomicBool::new(false))?;
    Ok((head, replayed))
}

/// Replays and goes on, as a start of the process does.
fn start(files: &Faulty, max_segment_bytes: u64) -> (Head, Log) {
    let (head, replayed) = read(files, false).unwrap();
    let log = Log::open(options(files, max_segment_bytes), &replayed, ()).unwrap();
    (head, log)
}

fn series(number: usize, samples: &[(i64, f64)]) -> Vec<u8> {
    encode_series(&[("__name__", "m"), ("n", &number.to_string())], samples)
}

fn put(head: &Head, log: &Log, tenant: &str, request: &[Vec<u8>]) -> Outcome {
    let tenant = head.open_tenant(tenant, 0).unwrap();
    tenant.push(request.iter().map(|bytes| &bytes[..]), i64::MIN, &Limits::NONE, log).unwrap()
}

fn wait(log: &Log, position: u64) -> Result<(), Failed> {
    futures::executor::block_on(log.committed(position))
}

fn segments(files: &Faulty) -> Vec<PathBuf> {
    let is_segment = |path: &PathBuf| path.extension().is_some_and(|extension| extension == "wal");
    files.paths().into_iter().filter(is_segment).collect()
}

fn only_segment(files: &Faulty) -> PathBuf {
    let segments = segments(files);
    assert_eq!(segments.len(), 1, "{segments:?}");
    segments.into_iter().next().unwrap()
}

/// A log of one batch per sample, and what the head held after each of them, by position.
fn one_batch_each(files: &Faulty, samples: usize) -> Vec<(u64, Contents)> {
    let (head, log) = start(files, u64::MAX);
    let mut states = vec![(0, contents(&head))];
    for number in 0..samples {
        let request = [series(number % 5, &[(number as i64, number as f64)])];
        let outcome = put(&head, &log, ["a", "b"][number % 2], &request);
        wait(&log, outcome.position).unwrap();
        states.push((outcome.position, contents(&head)));
    }
    log.close().unwrap();
    states
}

type Contents = BTreeMap<(String, String), Vec<(i64, u64)>>;

#[test]
fn a_crash_at_any_byte_keeps_every_batch_before_it() {
    let files = Faulty::default();
    let states = one_batch_each(&files, 24);
    let path = only_segment(&files);
    let len = files.read(&path).unwrap().len();
    for cut in 0..len {
        let crashed = files.fork();
        crashed.edit(&path, |bytes| bytes.truncate(cut));
        let (head, replayed) = read(&crashed, false).unwrap();
        let whole = cut.saturating_sub(segment::HEADER_LEN) as u64;
        let (_, expected) = states.iter().rev().find(|(position, _)| *position <= whole).unwrap();
        let found = contents(&head);
        for (name, samples) in expected {
            assert!(found[name].starts_with(samples), "cut at {cut}");
        }
        // Going on after the crash, and another start, find nothing wrong.
        let log = Log::open(options(&crashed, u64::MAX), &replayed, ()).unwrap();
        put(&head, &log, "a", &[series(0, &[(1000, 1.0)]), series(77, &[(1000, 7.0)])]);
        log.close().unwrap();
        let (again, replayed) = read(&crashed, false).unwrap();
        assert_eq!(replayed.torn_bytes, 0, "cut at {cut}");
        assert_eq!(contents(&again), contents(&head), "cut at {cut}");
    }
}

#[test]
fn zeros_at_the_end_are_an_unfinished_write() {
    let files = Faulty::default();
    let states = one_batch_each(&files, 5);
    files.edit(&only_segment(&files), |bytes| bytes.extend([0; 5000]));
    let (head, replayed) = read(&files, false).unwrap();
    assert_eq!(replayed.torn_bytes, 5000);
    assert_eq!(contents(&head), states.last().unwrap().1);
}

#[test]
fn a_flipped_bit_is_never_taken_for_data_and_never_drops_what_was_safe() {
    let files = Faulty::default();
    let states = one_batch_each(&files, 12);
    let path = only_segment(&files);
    let len = files.read(&path).unwrap().len();
    // The last batch is not followed by another: damage there looks like a crash.
    let before_last = states[states.len() - 2].0 as usize + segment::HEADER_LEN;
    let complete = &states.last().unwrap().1;
    for at in 0..len {
        let damaged = files.fork();
        damaged.edit(&path, |bytes| bytes[at] ^= 1 << (at % 8));
        match read(&damaged, false) {
            Err(Error::Damaged { offset, .. }) => assert!(offset <= at && at < before_last, "{offset} {at}"),
            Err(error) => panic!("bit in byte {at}: {error}"),
            Ok((head, replayed)) => {
                assert!(at >= before_last, "a bit in byte {at} was not noticed");
                assert!(replayed.torn_bytes > 0, "a bit in byte {at} was not noticed");
                assert_eq!(contents(&head), states[states.len() - 2].1);
            }
        }
        let (head, replayed) = read(&damaged, true).unwrap();
        assert_eq!(replayed.damages, u64::from(at < before_last));
        for (name, samples) in contents(&head) {
            assert!(samples.iter().all(|sample| complete[&name].contains(sample)), "made-up data");
        }
    }
}

#[test]
fn repair_drops_no_more_than_the_damaged_batch() {
    let files = Faulty::default();
    let states = one_batch_each(&files, 20);
    // The last sample of the sixth batch: its series were declared before.
    let at = states[6].0 as usize + segment::HEADER_LEN - 1;
    files.edit(&only_segment(&files), |bytes| bytes[at] ^= 1);
    let (head, replayed) = read(&files, true).unwrap();
    assert_eq!(replayed.damages, 1);
    let complete: usize = states.last().unwrap().1.values().map(Vec::len).sum();
    assert_eq!(contents(&head).values().map(Vec::len).sum::<usize>(), complete - 1);
}

#[test]
fn damage_before_the_last_segment_is_refused_even_at_its_end() {
    let files = Faulty::default();
    let (head, log) = start(&files, 200);
    for number in 0..20 {
        let outcome = put(&head, &log, "a", &[series(number, &[(1, 1.0)])]);
        wait(&log, outcome.position).unwrap();
    }
    log.close().unwrap();
    let segments = segments(&files);
    assert!(segments.len() > 3);
    assert_eq!(contents(&read(&files, false).unwrap().0), contents(&head));
    for path in &segments[..segments.len() - 1] {
        let damaged = files.fork();
        damaged.edit(path, |bytes| bytes.truncate(bytes.len() - 1));
        let before = damaged.read(path).unwrap();
        assert!(matches!(read(&damaged, false), Err(Error::Damaged { .. })));
        assert_eq!(damaged.read(path).unwrap(), before, "what is refused is left as it was");
        let gone = files.fork();
        gone.remove(path).unwrap();
        assert!(
            matches!(read(&gone, false), Err(Error::Damaged { .. })),
            "a missing segment was not noticed"
        );
        assert_eq!(read(&gone, true).unwrap().1.damages, 1);
    }
}

#[test]
fn a_snapshot_replaces_the_log_before_it() {
    let files = Faulty::default();
    let (head, log) = start(&files, 300);
    for number in 0..400 {
        put(
            &head,
            &log,
            ["a", "b"][number % 2],
            &[series(number % 7, &[(number as i64, 0.1 * number as f64)])],
        );
    }
    let position = futures::executor::block_on(log.rotate()).unwrap();
    put(&head, &log, "a", &[series(1, &[(1000, 1.0)])]);
    write_snapshot(&files, DIR.as_ref(), &head, position).unwrap();
    assert_eq!(segments(&files).len(), 1);
    put(&head, &log, "a", &[series(1, &[(1001, 1.0)]), series(100, &[(1, 1.0)])]);
    log.close().unwrap();
    let (again, replayed) = read(&files, false).unwrap();
    assert_eq!(contents(&again), contents(&head));
    assert_eq!(replayed.samples, 2, "what is in the snapshot is not read again");
    // A second snapshot replaces the first.
    let log = Log::open(options(&files, 300), &replayed, ()).unwrap();
    let position = futures::executor::block_on(log.rotate()).unwrap();
    write_snapshot(&files, DIR.as_ref(), &again, position).unwrap();
    log.close().unwrap();
    assert_eq!(files.paths().len(), 2, "{:?}", files.paths());
    assert_eq!(contents(&read(&files, false).unwrap().0), contents(&head));
}

#[test]
fn a_snapshot_that_is_damaged_or_without_its_log_is_refused() {
    let files = Faulty::default();
    let (head, log) = start(&files, 300);
    put(&head, &log, "a", &[series(1, &[(1, 1.0)]), series(2, &[(1, 1.0)])]);
    let position = futures::executor::block_on(log.rotate()).unwrap();
    write_snapshot(&files, DIR.as_ref(), &head, position).unwrap();
    log.close().unwrap();
    let path = PathBuf::from(DIR).join(Kind::Snapshot.file_name(position));
    let len = files.read(&path).unwrap().len();
    for at in 0..len {
        let damaged = files.fork();
        damaged.edit(&path, |bytes| bytes[at] ^= 1 << (at % 8));
        assert!(matches!(read(&damaged, false), Err(Error::Damaged { .. })), "bit in byte {at}");
        let cut = files.fork();
        cut.edit(&path, |bytes| bytes.truncate(at));
        assert!(matches!(read(&cut, false), Err(Error::Damaged { .. })), "cut at {at}");
    }
    files.remove(&only_segment(&files)).unwrap();
    assert!(matches!(read(&files, false), Err(Error::Damaged { .. })));
}

#[test]
fn a_full_disk_costs_the_snapshot_and_nothing_else() {
    let files = Faulty::default();
    let (head, log) = start(&files, u64::MAX);
    put(&head, &log, "a", &[series(1, &[(1, 1.0)])]);
    let position = futures::executor::block_on(log.rotate()).unwrap();
    files.set_budget(Some(30));
    write_snapshot(&files, DIR.as_ref(), &head, position).unwrap_err();
    files.set_budget(None);
    assert_eq!(segments(&files).len(), 2);
    assert_eq!(files.paths().len(), 2, "the unfinished snapshot is gone");
    let outcome = put(&head, &log, "a", &[series(1, &[(2, 1.0)])]);
    wait(&log, outcome.position).unwrap();
    log.close().unwrap();
    assert_eq!(contents(&read(&files, false).unwrap().0), contents(&head));
}

#[test]
fn a_crash_while_old_segments_are_dropped_does_no_harm() {
    let files = Faulty::default();
    let (head, log) = start(&files, 100);
    for number in 0..10 {
        let outcome = put(&head, &log, "a", &[series(number, &[(1, 1.0)])]);
        wait(&log, outcome.position).unwrap();
    }
    let position = futures::executor::block_on(log.rotate()).unwrap();
    let before = files.fork();
    write_snapshot(&files, DIR.as_ref(), &head, position).unwrap();
    log.close().unwrap();
    let snapshot = Kind::Snapshot.file_name(position);
    let bytes = files.read(&PathBuf::from(DIR).join(&snapshot)).unwrap();
    for dropped in 0..segments(&before).len() {
        let crashed = before.fork();
        crashed.create(&PathBuf::from(DIR).join(&snapshot)).unwrap().write_all(&bytes).unwrap();
        for path in &segments(&before)[..dropped] {
            crashed.remove(path).unwrap();
        }
        // An unfinished snapshot of a later attempt lies about too.
        crashed.create(&PathBuf::from(DIR).join(snapshot::TEMPORARY)).unwrap().write_all(b"x").unwrap();
        assert_eq!(contents(&read(&crashed, false).unwrap().0), contents(&head));
        assert_eq!(crashed.paths().len(), 2, "{:?}", crashed.paths());
    }
    // The order that makes this true: durable before visible, visible before the old goes.
    let calls = files.calls().join("\n");
    let order = format!("sync snapshot.tmp\nrename {snapshot}\nsync_dir wal\nremove");
    assert!(calls.contains(&order), "{calls}");
}

#[test]
fn a_failed_sync_is_a_failed_write() {
    let files = Faulty::default();
    let (head, log) = start(&files, u64::MAX);
    files.fail_syncs(true);
    let outcome = put(&head, &log, "a", &[series(1, &[(1, 1.0)])]);
    assert!(wait(&log, outcome.position).unwrap_err().to_string().contains("injected"));
    files.fail_syncs(false);
    assert!(log.admit().is_err(), "the log does not recover by itself");
    assert!(log.append(b"x").is_err());
    assert!(futures::executor::block_on(log.rotate()).is_err());
    assert!(log.close().is_err());
}

#[test]
fn a_removed_tenant_stays_removed() {
    let files = Faulty::default();
    let (_, log) = start(&files, u64::MAX);
    let head = Head::new(1000, crate::testing::totals());
    for tenant in ["a", "b"] {
        put(&head, &log, tenant, &[series(1, &[(1, 1.0)])]);
    }
    head.tenant("a").unwrap().last_push_ms.store(0, Ordering::Relaxed);
    head.tenant("b").unwrap().last_push_ms.store(5000, Ordering::Relaxed);
    head.expire(5000, &log).unwrap();
    assert_eq!(head.num_tenants(), 1);
    put(&head, &log, "a", &[series(2, &[(7, 1.0)])]);
    log.close().unwrap();
    assert_eq!(contents(&read(&files, false).unwrap().0), contents(&head));
}

/// Several threads push at once, to the same series too; some samples lose a race and are refused.
fn push_concurrently(head: &Head, log: &Log, threads: usize, rounds: usize, seed: usize) -> Contents {
    let barrier = Barrier::new(threads);
    let acked = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads)
            .map(|thread| {
                let barrier = &barrier;
                scope.spawn(move || {
                    let mut acked = Vec::new();
                    barrier.wait();
                    for round in 0..rounds {
                        let own = (1000 + thread, round as i64);
                        let shared = ((seed + round * 7 + thread) % 5, (round * threads + thread) as i64);
                        let tenant = ["a", "b"][(seed + round) % 2];
                        let request =
                            [own, shared].map(|(number, time)| series(number, &[(time, thread as f64)]));
                        let outcome = put(head, log, tenant, &request);
                        if wait(log, outcome.position).is_ok() {
                            let labels = |number| format!("{{__name__=\"m\", n=\"{number}\"}}");
                            acked.push((
                                (tenant.to_owned(), labels(own.0)),
                                (own.1, (thread as f64).to_bits()),
                            ));
                            if outcome.first.is_none() {
                                acked.push((
                                    (tenant.to_owned(), labels(shared.0)),
                                    (shared.1, (thread as f64).to_bits()),
                                ));
                            }
                        }
                    }
                    acked
                })
            })
            .collect();
        workers.into_iter().flat_map(|worker| worker.join().unwrap()).collect::<Vec<_>>()
    });
    let mut contents = Contents::new();
    for (series, sample) in acked {
        contents.entry(series).or_default().push(sample);
    }
    contents
}

fn assert_contains(found: &Contents, acked: &Contents) {
    for (series, samples) in acked {
        for sample in samples {
            assert!(
                found.get(series).is_some_and(|found| found.contains(sample)),
                "lost {series:?} {sample:?}"
            );
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn concurrent_pushes_replay_to_the_same_head(threads in 2_usize..6, seed in 0_usize..100, segment in 200_u64..5000) {
        let files = Faulty::default();
        let (head, log) = start(&files, segment);
        let acked = push_concurrently(&head, &log, threads, 60, seed);
        log.close().unwrap();
        let (again, _) = read(&files, false).unwrap();
        prop_assert_eq!(contents(&again), contents(&head));
        assert_contains(&contents(&again), &acked);
    }

    #[test]
    fn what_was_acknowledged_survives_a_disk_that_fills_up_at_any_byte(
        threads in 1_usize..5, seed in 0_usize..100, budget in 0_usize..20_000, segment in 200_u64..5000,
    ) {
        let files = Faulty::default();
        let (head, log) = start(&files, segment);
        files.set_budget(Some(budget));
        let acked = push_until_failure(&head, &log, threads, seed);
        drop(log);
        let crashed = files.fork();
        let (again, _) = read(&crashed, false).unwrap();
        assert_contains(&contents(&again), &acked);
    }

    #[test]
    fn snapshots_during_pushes_lose_nothing(threads in 2_usize..4, seed in 0_usize..100) {
        let files = Faulty::default();
        let (head, log) = start(&files, 1000);
        let done = AtomicBool::new(false);
        let acked = std::thread::scope(|scope| {
            let snapshots = scope.spawn(|| {
                let mut copies = Vec::new();
                while !done.load(Ordering::Relaxed) {
                    let position = futures::executor::block_on(log.rotate()).unwrap();
                    write_snapshot(&files, DIR.as_ref(), &head, position).unwrap();
                    copies.push(files.fork());
                }
                copies
            });
            let acked = push_concurrently(&head, &log, threads, 40, seed);
            done.store(true, Ordering::Relaxed);
            for copy in snapshots.join().unwrap() {
                read(&copy, false).unwrap();
            }
            acked
        });
        log.close().unwrap();
        let (again, _) = read(&files, false).unwrap();
        prop_assert_eq!(contents(&again), contents(&head));
        assert_contains(&contents(&again), &acked);
    }
}

/// Like [`push_concurrently`], but each thread stops at the first failure.
fn push_until_failure(head: &Head, log: &Log, threads: usize, seed: usize) -> Contents {
    let mut contents = Contents::new();
    let acked = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads)
            .map(|thread| {
                scope.spawn(move || {
                    let mut acked = Vec::new();
                    for round in 0..200_usize {
                        let number = 1000 + thread * 10 + (seed + round) % 3;
                        let request = series(number, &[(round as i64, 1.0)]);
                        let tenant = head.open_tenant("a", 0).unwrap();
                        let outcome = tenant.push([&request[..]].into_iter(), i64::MIN, &Limits::NONE, log);
                        let Ok(outcome) = outcome else { break };
                        if wait(log, outcome.position).is_err() {
                            break;
                        }
                        let labels = format!("{{__name__=\"m\", n=\"{number}\"}}");
                        acked.push((("a".to_owned(), labels), (round as i64, 1.0_f64.to_bits())));
                    }
                    acked
                })
            })
            .collect();
        workers.into_iter().flat_map(|worker| worker.join().unwrap()).collect::<Vec<_>>()
    });
    for (series, sample) in acked {
        contents.entry(series).or_default().push(sample);
    }
    contents
}
