//! The head as a whole, with a log that only counts or collects.

use parking_lot::Mutex;
use proptest::prelude::*;
use ringkit_proto::cortexpb;

use super::*;
use crate::testing::{contents, encode_series, head, samples};

/// Keeps what is appended.
#[derive(Default)]
struct Collected(Mutex<Vec<u8>>);

impl Journal for Collected {
    fn append(&self, frames: &[u8]) -> Result<u64, wal::Failed> {
        let mut log = self.0.lock();
        log.extend_from_slice(frames);
        Ok(log.len() as u64)
    }

    fn position(&self) -> u64 {
        self.0.lock().len() as u64
    }
}

const NO_BOUND: i64 = i64::MIN;

fn push(tenant: &Tenant, series: &[Vec<u8>], bound: i64, limits: &Limits, log: &Collected) -> Outcome {
    tenant.push(series.iter().map(|bytes| &bytes[..]), bound, limits, log).unwrap()
}

fn up(instance: &str, of: &[(i64, f64)]) -> Vec<u8> {
    encode_series(&[("__name__", "up"), ("instance", instance)], of)
}

#[test]
fn a_sample_is_stored_once_however_often_it_is_sent() {
    let (head, log) = (head(), Collected::default());
    let tenant = head.open_tenant("a", 0).unwrap();
    let request = [up("x", &[(10, 1.0), (20, 2.0)]), up("y", &[(10, 3.0)])];
    let first = push(&tenant, &request, NO_BOUND, &Limits::NONE, &log);
    assert_eq!((first.stored, first.duplicates, first.first), (3, 0, None));
    let again = push(&tenant, &request, NO_BOUND, &Limits::NONE, &log);
    assert_eq!((again.stored, again.duplicates, again.first), (0, 3, None));
    assert_eq!(again.position, log.position(), "a repetition waits for the original");
    assert_eq!(samples(&head, "a", "{__name__=\"up\", instance=\"x\"}"), [(10, 1.0), (20, 2.0)]);
    assert_eq!(tenant.num_series(), 2);
}

#[test]
fn labels_in_disorder_are_the_same_series_and_encodings_do_not_matter() {
    let (head, log) = (head(), Collected::default());
    let tenant = head.open_tenant("a", 0).unwrap();
    for number in 0..200 {
        let instance = format!("i{number}");
        let sorted = up(&instance, &[(1, 1.0)]);
        let reversed =
            encode_series(&[("instance", &instance), ("empty", ""), ("__name__", "up")], &[(2, 2.0)]);
        // Samples before labels, and labels torn apart by samples.
        let mut apart = encode_series(&[("__name__", "up")], &[(3, 3.0)]);
        apart.extend(encode_series(&[("instance", &instance)], &[]));
        let outcome = push(&tenant, &[reversed, apart, sorted], NO_BOUND, &Limits::NONE, &log);
        // The form in disorder may be looked up after the others, so the order of the three is not fixed.
        assert_eq!(outcome.stored + outcome.num_discarded(), 3);
        let last = encode_series(&[("instance", &instance), ("__name__", "up")], &[(4, 4.0)]);
        assert_eq!(push(&tenant, &[last], NO_BOUND, &Limits::NONE, &log).stored, 1);
    }
    assert_eq!(tenant.num_series(), 200);
}

#[test]
fn what_is_valid_is_stored_and_the_first_refusal_is_told() {
    let (head, log) = (head(), Collected::default());
    let tenant = head.open_tenant("a", 0).unwrap();
    push(&tenant, &[up("x", &[(1000, 1.0)])], NO_BOUND, &Limits::NONE, &log);
    let request = [
        up("new", &[(1000, 1.0)]),
        up("x", &[(1000, 2.0), (999, 1.0), (100, 1.0), (1001, 1.0)]),
        encode_series(&[("a", "1"), ("a", "2")], &[(1000, 1.0), (1001, 1.0)]),
        vec![0xff],
        up("old", &[(1, 1.0), (2, 1.0)]),
    ];
    let outcome = push(&tenant, &request, 500, &Limits::NONE, &log);
    assert_eq!((outcome.stored, outcome.duplicates), (2, 0));
    let (index, reject) = outcome.first.clone().unwrap();
    assert_eq!((index, reject), (1, Reject::OtherValue { time: 1000, existing: 1.0, new: 2.0 }));
    let count = |reason: reject::Reason| outcome.discarded[reason as usize];
    assert_eq!(count(reject::Reason::OtherValue), 1);
    assert_eq!(count(reject::Reason::OutOfOrder), 1);
    assert_eq!(count(reject::Reason::OutOfBounds), 1 + 2);
    assert_eq!(count(reject::Reason::DuplicateLabels), 2);
    assert_eq!(count(reject::Reason::Malformed), 1);
    assert_eq!(tenant.num_series(), 2, "a series without a sample is not made");
}

#[test]
fn native_histograms_are_refused_and_floats_beside_them_stored() {
    let (head, log) = (head(), Collected::default());
    let tenant = head.open_tenant("a", 0).unwrap();
    let mut both = up("x", &[(1, 1.0)]);
    both.extend([0x22, 0]);
    let outcome = push(&tenant, &[both], NO_BOUND, &Limits::NONE, &log);
    assert_eq!((outcome.stored, outcome.num_discarded()), (1, 1));
    assert_eq!(outcome.first, Some((0, Reject::Histogram)));
}

#[test]
fn series_limits_hold_for_tenant_metric_and_process() {
    let (head, log) = (head(), Collected::default());
    let tenant = head.open_tenant("a", 0).unwrap();
    let series = |metric: &str, number: usize| {
        encode_series(&[("__name__", metric), ("n", &number.to_string())], &[(1, 1.0)])
    };
    let per_metric = Limits { per_metric: 2, ..Limits::NONE };
    let request: Vec<_> = (0..3).map(|number| series("m", number)).collect();
    let outcome = push(&tenant, &request, NO_BOUND, &per_metric, &log);
    assert_eq!((outcome.stored, outcome.first.unwrap().1), (2, Reject::PerMetricLimit));
    let per_user = Limits { per_user: 3, ..Limits::NONE };
    let request: Vec<_> = (0..3).map(|number| series("n", number)).collect();
    let outcome = push(&tenant, &request, NO_BOUND, &per_user, &log);
    assert_eq!((outcome.stored, outcome.first.unwrap().1), (1, Reject::PerUserLimit));
    let other = head.open_tenant("b", 0).unwrap();
    let outcome = push(&other, &[series("m", 1)], NO_BOUND, &Limits { instance: 3, ..Limits::NONE }, &log);
    assert_eq!((outcome.stored, outcome.first.unwrap().1), (0, Reject::InstanceLimit));
    // What is there goes on.
    let outcome = push(&tenant, &[series("n", 0)], NO_BOUND, &per_user, &log);
    assert_eq!((outcome.duplicates, outcome.first), (1, None));
}

#[test]
fn named_metrics_are_exempt_from_the_limit_per_metric_only() {
    let totals = crate::testing::totals().with_unlimited_metrics(["up".to_owned()]);
    let (head, log) = (Head::new(i64::MAX, totals), Collected::default());
    let tenant = head.open_tenant("a", 0).unwrap();
    let limits = Limits { per_metric: 1, per_user: 3, ..Limits::NONE };
    let request: Vec<_> = (0..4).map(|n| up(&n.to_string(), &[(1, 1.0)])).collect();
    let outcome = push(&tenant, &request, NO_BOUND, &limits, &log);
    assert_eq!((outcome.stored, outcome.first.unwrap().1), (3, Reject::PerUserLimit));
}

#[test]
fn old_chunks_and_idle_series_go_and_their_places_are_used_again() {
    let (head, log) = (Head::new(1000, crate::testing::totals()), Collected::default());
    let tenant = head.open_tenant("a", 0).unwrap();
    let limits = Limits { per_user: 101, per_metric: 101, instance: 101 };
    for round in 0..50 {
        let time = round * 10_000;
        tenant.last_push_ms.store(time, Ordering::Relaxed);
        let request: Vec<_> = (0..100).map(|n| up(&format!("r{round}-{n}"), &[(time, 1.0)])).collect();
        let outcome = push(&tenant, &request, head.lower_bound(&tenant, time), &limits, &log);
        assert_eq!((outcome.stored, outcome.first), (100, None), "round {round}");
        // A newer sample moves the bound, so that all the others are idle.
        let newest = up("newest", &[(time + 2000, 1.0)]);
        push(&tenant, &[newest], head.lower_bound(&tenant, time), &limits, &log);
        tenant.last_push_ms.store(time + 2000, Ordering::Relaxed);
        assert_eq!(tenant.num_series(), 101);
        head.expire(time + 2000, &log).unwrap();
        assert_eq!(tenant.num_series(), 1);
        let slots: Vec<Slot> = tenant
            .shards()
            .iter()
            .flat_map(|shard| shard.read().iter().map(|(slot, _)| slot).collect::<Vec<_>>())
            .collect();
        assert!(slots.into_iter().all(|slot| slot < 101), "places are used again");
    }
    assert_eq!(samples(&head, "a", "{__name__=\"up\", instance=\"newest\"}").len(), 50);
}

#[test]
fn samples_that_retention_would_drop_are_out_of_bounds() {
    let (head, log) = (Head::new(1000, crate::testing::totals()), Collected::default());
    let tenant = head.open_tenant("a", 0).unwrap();
    assert_eq!(head.lower_bound(&tenant, 1_000_000), i64::MIN, "an empty tenant takes anything");
    push(&tenant, &[up("x", &[(50_000, 1.0)])], NO_BOUND, &Limits::NONE, &log);
    assert_eq!(head.lower_bound(&tenant, 1_000_000), 49_000);
    push(&tenant, &[up("x", &[(2_000_000, 1.0)])], NO_BOUND, &Limits::NONE, &log);
    assert_eq!(
        head.lower_bound(&tenant, 1_000_000),
        999_000,
        "a sample from the future does not shut others out"
    );
}

#[test]
fn a_quiet_tenant_goes_and_nobody_writes_into_its_remains() {
    let (head, log) = (Head::new(1000, crate::testing::totals()), Collected::default());
    let tenant = head.open_tenant("a", 0).unwrap();
    tenant.last_push_ms.store(10, Ordering::Relaxed);
    push(&tenant, &[up("x", &[(10, 1.0)])], NO_BOUND, &Limits::NONE, &log);
    assert_eq!(head.expire(1000, &log).unwrap(), 0);
    assert_eq!(head.expire(2000, &log).unwrap(), 1);
    assert_eq!((head.num_tenants(), head.totals.series.load(Ordering::Relaxed)), (0, 0));
    let series = up("x", &[(20, 1.0)]);
    let late = tenant.push([&series[..]].into_iter(), NO_BOUND, &Limits::NONE, &log);
    assert_eq!(late.unwrap_err(), PushError::Dead);
}

#[test]
fn a_push_that_comes_before_the_removal_of_its_tenant_prevents_it() {
    let (head, log) = (Head::new(1000, crate::testing::totals()), Collected::default());
    let tenant = head.open_tenant("a", 0).unwrap();
    // Seen as quiet since 10; then somebody pushes; then the removal gets the locks.
    tenant.last_push_ms.store(2000, Ordering::Relaxed);
    push(&tenant, &[up("x", &[(10, 1.0)])], NO_BOUND, &Limits::NONE, &log);
    let removed = tenant.remove_if_quiet(10, || panic!("nothing is to be recorded"));
    assert_eq!(removed, Ok(None));
    assert_eq!(tenant.num_series(), 1);
    let refused = wal::Failed::new(&"refused");
    assert_eq!(
        tenant.remove_if_quiet(2000, || Err(refused.clone())),
        Err(refused),
        "not removed without a record"
    );
    assert_eq!(tenant.num_series(), 1);
    assert_eq!(tenant.remove_if_quiet(2000, || Ok(())), Ok(Some(1)));
    assert_eq!(tenant.num_series(), 0);
}

#[test]
fn a_tenant_limit_holds_for_new_tenants_only() {
    let head = head();
    head.open_tenant("a", 1).unwrap();
    head.open_tenant("a", 1).unwrap();
    assert_eq!(head.open_tenant("b", 1).unwrap_err(), TooManyTenants);
}

#[test]
fn matchers_agree_with_a_walk_over_all_series() {
    use ringkit_tsdb::matcher::{Matcher, Op};
    let (head, log) = (head(), Collected::default());
    let tenant = head.open_tenant("a", 0).unwrap();
    let mut all = Vec::new();
    for number in 0..60_usize {
        let (n, parity) = (number.to_string(), ["", "odd"][number % 2]);
        let labels = [("__name__", ["a", "b", "c"][number % 3]), ("n", &*n), ("parity", parity)];
        push(&tenant, &[encode_series(&labels, &[(1, 1.0)])], NO_BOUND, &Limits::NONE, &log);
        all.push(labels.map(|(name, value)| (name.to_owned(), value.to_owned())));
    }
    let conditions = [
        (Op::Equal, "__name__", "a"),
        (Op::Equal, "parity", ""),
        (Op::Equal, "missing", "x"),
        (Op::NotEqual, "parity", ""),
        (Op::NotEqual, "n", "7"),
        (Op::NotEqual, "missing", ""),
        (Op::Regex, "n", "1.|2"),
        (Op::Regex, "n", "3|4|3|nothing"),
        (Op::Regex, "parity", ".*"),
        (Op::Regex, "parity", "(odd)?"),
        (Op::NotRegex, "n", "1.*"),
        (Op::NotRegex, "parity", ".+"),
        (Op::Regex, "__name__", "a|c"),
    ];
    let matchers = conditions.map(|(op, name, value)| Matcher::try_new(op, name, value).unwrap());
    for first in &matchers {
        for second in &matchers {
            let both = [first.clone(), second.clone()];
            let found: usize = tenant.shards().iter().map(|shard| shard.read().select(&both).len()).sum();
            let fits = |labels: &&[(String, String); 3]| {
                both.iter().all(|matcher| {
                    let value = labels.iter().find(|(name, _)| name == matcher.name());
                    matcher.matches(value.map_or("", |(_, value)| value))
                })
            };
            assert_eq!(found, all.iter().filter(fits).count(), "{first} {second}");
        }
    }
}

proptest! {
    #[test]
    fn the_head_keeps_the_newest_in_order_whatever_comes(
        requests in prop::collection::vec((0_usize..4, 0_i64..40, 0_u8..2), 1..200),
    ) {
        let (head, log) = (head(), Collected::default());
        let tenant = head.open_tenant("a", 0).unwrap();
        let mut model = vec![Vec::<(i64, f64)>::new(); 4];
        for (series, time, value) in requests {
            let value = f64::from(value);
            let outcome = push(&tenant, &[up(&series.to_string(), &[(time, value)])], NO_BOUND, &Limits::NONE, &log);
            let known = model[series].iter().find(|(at, _)| *at == time);
            let newest = model[series].last().is_none_or(|(last, _)| *last < time);
            match known {
                Some((_, existing)) if *existing == value => prop_assert_eq!(outcome.duplicates, 1),
                Some(_) => prop_assert_eq!(outcome.discarded[reject::Reason::OtherValue as usize], 1),
                None if newest => {
                    prop_assert_eq!(outcome.stored, 1);
                    model[series].push((time, value));
                }
                None => prop_assert_eq!(outcome.discarded[reject::Reason::OutOfOrder as usize], 1),
            }
            prop_assert_eq!(outcome.stored + outcome.duplicates + outcome.num_discarded(), 1);
        }
        let kept: usize = model.iter().map(Vec::len).sum();
        prop_assert_eq!(contents(&head).values().map(Vec::len).sum::<usize>(), kept);
    }
}

#[test]
fn encoded_series_are_what_prost_writes() {
    use prost::Message as _;
    let series = cortexpb::TimeSeries::decode(&up("x", &[(5, 1.5)])[..]).unwrap();
    assert_eq!(series.samples[0].timestamp_ms, 5);
    assert_eq!(series.labels[1].value, "x");
}

/// Not a test: `cargo test --release -p ringkit-ingester -- --ignored --nocapture throughput` prints what one core does.
#[test]
#[ignore = "a measurement: wants a release build and a quiet machine"]
fn throughput_of_pushes_without_network() {
    const SERIES: usize = 100_000;
    const REQUEST: usize = 1000;
    const ROUNDS: i64 = 20;
    let (head, log) = (head(), Discard);
    let tenant = head.open_tenant("a", 0).unwrap();
    let labels: Vec<Vec<(String, String)>> = (0..SERIES)
        .map(|n| {
            let own = [
                ("__name__", format!("metric_{}", n % 100)),
                ("instance", format!("10.0.{}.{}:9100", n / 250, n % 250)),
            ];
            let common = ["cluster", "environment", "job", "namespace", "region", "team"]
                .map(|name| (name, format!("{name}-1")));
            own.into_iter().chain(common).map(|(name, value)| (name.to_owned(), value)).collect()
        })
        .collect();
    let mut spent = std::time::Duration::ZERO;
    for round in 0..ROUNDS {
        let requests: Vec<Vec<Vec<u8>>> = labels
            .chunks(REQUEST)
            .map(|part| {
                let encode = |labels: &Vec<(String, String)>| {
                    let mut pairs: Vec<_> = labels.iter().map(|(name, value)| (&**name, &**value)).collect();
                    pairs.sort_unstable();
                    encode_series(&pairs, &[(round * 15_000, (round * 7 % 5) as f64)])
                };
                part.iter().map(encode).collect()
            })
            .collect();
        let started = std::time::Instant::now();
        for request in &requests {
            let outcome =
                tenant.push(request.iter().map(|bytes| &bytes[..]), NO_BOUND, &Limits::NONE, &log).unwrap();
            assert_eq!(outcome.stored, REQUEST as u64);
        }
        if round > 0 {
            spent += started.elapsed();
        }
    }
    let samples = (ROUNDS - 1) as f64 * SERIES as f64;
    println!("{:.2} M samples/s", samples / spent.as_secs_f64() / 1e6);
}

struct Discard;

impl Journal for Discard {
    fn append(&self, frames: &[u8]) -> Result<u64, wal::Failed> {
        Ok(frames.len() as u64)
    }

    fn position(&self) -> u64 {
        0
    }
}
