//! What the benchmarks share: rings, a plain Rust rendering of how Go does the same (`go_*`), and the figures to compare.
//!
//! A [`Row`] is one figure at one size with two arms, ours and Go's way; criterion measures the arms in detail, the report
//! prints them next to the goals.

#![allow(dead_code, unused_imports, reason = "each benchmark uses a part of this")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    reason = "benchmarks stop at what is wrong with them, and print"
)]

pub(crate) mod figures;
pub(crate) mod go_batch;
pub(crate) mod go_codec;
pub(crate) mod go_merge;
pub(crate) mod go_rand;
pub(crate) mod go_ring;
pub(crate) mod go_shard;
pub(crate) mod rings;
pub(crate) mod rows;

use std::hint::black_box;
use std::time::Duration;

use criterion::{BenchmarkId, Criterion};

/// Runs something so many times and tells how long that took.
pub(crate) type Arm = Box<dyn FnMut(u64) -> Duration>;

/// One figure at one size.
pub(crate) struct Row {
    pub(crate) figure: &'static str,
    pub(crate) instances: usize,
    pub(crate) ours: Arm,
    pub(crate) go: Option<Arm>,
    pub(crate) goal: Goal,
    /// What Go itself took, measured once.
    pub(crate) recorded: Option<Duration>,
}

/// What a figure has to reach.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Goal {
    /// At most one so-manieth of Go's way.
    OneIn(u32),
    /// At most this long, whatever the size.
    Within(Duration),
    /// At most so many times the figure of this name at the same size.
    TimesOwn(u32, &'static str),
    /// Shown, not judged.
    None,
}

impl Row {
    pub(crate) fn new(figure: &'static str, instances: usize, goal: Goal, ours: Arm) -> Self {
        Self { figure, instances, ours, go: None, goal, recorded: None }
    }

    pub(crate) fn against(mut self, go: Arm) -> Self {
        self.go = Some(go);
        self
    }

    /// With what Go itself took at 100, 1,000 and 10,000 instances, in nanoseconds; 0 = not known.
    pub(crate) fn recorded(mut self, nanoseconds: [u64; 3]) -> Self {
        let place = [100, 1_000, 10_000].iter().position(|n| *n == self.instances);
        self.recorded = place.map(|at| Duration::from_nanos(nanoseconds[at])).filter(|time| !time.is_zero());
        self
    }
}

/// An arm that runs `work` again and again.
pub(crate) fn timed<T>(mut work: impl FnMut() -> T + 'static) -> Arm {
    Box::new(move |times| {
        let start = cpu_time();
        for _ in 0..times {
            black_box(work());
        }
        cpu_time() - start
    })
}

/// An arm in which each run gets what `prepare` makes of the state; only `work` counts, without the end of what it returns.
pub(crate) fn timed_with<S: 'static, I, T>(
    mut state: S,
    mut prepare: impl FnMut(&mut S) -> I + 'static,
    mut work: impl FnMut(&mut S, I) -> T + 'static,
) -> Arm {
    let look = look_at_the_clock();
    Box::new(move |times| {
        let mut total = Duration::ZERO;
        for _ in 0..times {
            let input = black_box(prepare(&mut state));
            let start = cpu_time();
            let output = black_box(work(&mut state, input));
            total += (cpu_time() - start).saturating_sub(look);
            drop(output);
        }
        total
    })
}

/// How long this thread has run: on a quiet machine as good as the time of day, and on a busy one much better.
fn cpu_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// How much of a time measured is the measuring.
fn look_at_the_clock() -> Duration {
    let look = || {
        let start = cpu_time();
        cpu_time() - start
    };
    let mut looks: Vec<_> = std::iter::repeat_with(look).take(101).collect();
    looks.sort_unstable();
    looks[looks.len() / 2]
}

/// Keys spread over the circle, the same for everybody.
pub(crate) fn keys() -> impl FnMut() -> u32 {
    let mut key = 0u32;
    move || {
        key = key.wrapping_add(2_654_435_761);
        key
    }
}

/// Hands all rows of `subjects` to criterion.
pub(crate) fn detail(subjects: &[rows::Rows]) {
    let limits = Criterion::default().sample_size(20).measurement_time(Duration::from_secs(2));
    let mut criterion = limits.warm_up_time(Duration::from_millis(500)).configure_from_args();
    for subject in subjects {
        for mut row in rows::SIZES.into_iter().flat_map(subject) {
            let mut group = criterion.benchmark_group(row.figure);
            group.bench_function(BenchmarkId::new("ours", row.instances), |bencher| {
                bencher.iter_custom(&mut row.ours);
            });
            if let Some(go) = &mut row.go {
                group.bench_function(BenchmarkId::new("Go's way", row.instances), |bencher| {
                    bencher.iter_custom(go.as_mut());
                });
            }
            group.finish();
        }
    }
    criterion.final_summary();
}
