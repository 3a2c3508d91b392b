//! Measures rows side by side and prints them next to their goals.

use std::collections::HashMap;
use std::time::Duration;

use super::{Arm, Goal, Row};

/// Medians of one row, per run.
#[derive(Clone, Copy)]
struct Measured {
    ours: f64,
    go: Option<f64>,
}

/// How long a sample lasts at least: so short that few are interrupted, whatever else the machine does.
const SAMPLE: Duration = Duration::from_micros(100);
/// How long the samples of one arm last together.
const ARM: Duration = Duration::from_millis(120);
/// Where a single run takes longer than all samples should, fewer must do.
const SLOW_ARM: Duration = Duration::from_millis(600);
const MIN_SAMPLES: usize = 5;
const MAX_SAMPLES: usize = 501;

/// Measures and prints rows one by one.
#[derive(Default)]
pub(crate) struct Report {
    ours: HashMap<(&'static str, usize), f64>,
    met: usize,
    missed: usize,
}

impl Report {
    pub(crate) fn head() {
        println!(
            "{:<42} {:>6} {:>10} {:>11} {:>8}   {:>10} {:>8}   {:<22} met",
            "figure", "n", "ours", "Go's way", "ratio", "Go itself", "ratio", "goal"
        );
    }

    pub(crate) fn row(&mut self, mut row: Row) {
        let measured = measure(&mut row);
        self.ours.insert((row.figure, row.instances), measured.ours);
        let recorded = row.recorded.map(|time| time.as_nanos() as f64);
        let (goal, met) = self.judge(&row, measured);
        let ratio =
            |go: Option<f64>| go.map_or_else(|| "-".into(), |go| format!("1/{:.1}", go / measured.ours));
        println!(
            "{:<42} {:>6} {:>10} {:>11} {:>8}   {:>10} {:>8}   {:<22} {}",
            row.figure,
            row.instances,
            time(measured.ours),
            measured.go.map_or_else(|| "-".into(), time),
            ratio(measured.go),
            recorded.map_or_else(|| "-".into(), time),
            ratio(recorded),
            goal,
            match met {
                Some(true) => "yes",
                Some(false) => "NO",
                None => "-",
            }
        );
        match met {
            Some(true) => self.met += 1,
            Some(false) => self.missed += 1,
            None => (),
        }
    }

    pub(crate) fn foot(&self) {
        println!("{} figures meet their goals, {} do not", self.met, self.missed);
        println!("Times are medians of the thread's CPU time per run.");
        println!(
            "\"Go's way\" is a plain Rust rendering, measured here in the same run; the goal is judged by it. \
             \"Go itself\" was measured once, on a small two-core machine."
        );
    }

    fn judge(&self, row: &Row, measured: Measured) -> (String, Option<bool>) {
        match row.goal {
            Goal::OneIn(part) => {
                let met = measured.go.map(|go| measured.ours <= go / f64::from(part));
                (format!("<= 1/{part} of Go's way"), met)
            }
            Goal::Within(limit) => {
                let limit = limit.as_nanos() as f64;
                (format!("<= {}", time(limit)), Some(measured.ours <= limit))
            }
            Goal::TimesOwn(times, figure) => {
                let own = self.ours.get(&(figure, row.instances));
                let met = own.map(|own| measured.ours <= own * f64::from(times));
                (format!("<= {times} x own healthy"), met)
            }
            Goal::None => ("-".into(), None),
        }
    }
}

/// Both arms in turns, so that whatever else the machine does hits both alike.
fn measure(row: &mut Row) -> Measured {
    let mut ours = Sampled::new(&mut row.ours);
    let mut go = row.go.as_mut().map(Sampled::new);
    loop {
        let mut busy = ours.sample();
        if let Some(go) = &mut go {
            busy |= go.sample();
        }
        if !busy {
            break;
        }
    }
    Measured { ours: ours.median(), go: go.map(Sampled::median) }
}

struct Sampled<'a> {
    arm: &'a mut Arm,
    times: u64,
    spent: Duration,
    samples: Vec<f64>,
}

impl<'a> Sampled<'a> {
    /// Finds out how often to run the arm for one sample; that also warms it up.
    fn new(arm: &'a mut Arm) -> Self {
        let mut times = 1;
        while arm(times) < SAMPLE && times < 1 << 20 {
            times *= 2;
        }
        Self { arm, times, spent: Duration::ZERO, samples: Vec::new() }
    }

    /// Takes one more sample if need be.
    fn sample(&mut self) -> bool {
        let enough = self.samples.len() >= MIN_SAMPLES && self.spent >= ARM || self.spent >= SLOW_ARM;
        if enough || self.samples.len() >= MAX_SAMPLES {
            return false;
        }
        let spent = (self.arm)(self.times);
        self.spent += spent;
        self.samples.push(spent.as_nanos() as f64 / self.times as f64);
        true
    }

    fn median(mut self) -> f64 {
        self.samples.sort_unstable_by(f64::total_cmp);
        self.samples[self.samples.len() / 2]
    }
}

fn time(nanoseconds: f64) -> String {
    match nanoseconds {
        n if n < 1e3 => format!("{n:.1} ns"),
        n if n < 1e6 => format!("{:.2} us", n / 1e3),
        n if n < 1e9 => format!("{:.2} ms", n / 1e6),
        n => format!("{:.2} s", n / 1e9),
    }
}
