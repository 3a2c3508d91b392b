//! Comparing one answer with what the ledger says, without I/O.

use std::collections::HashMap;

use super::{PodLogs, VerifyReport};
use crate::plan::Plan;
use crate::series::{self, FingerprintHasher};

/// Timestamps from `start` to before `end`, milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Window {
    pub(super) start: i64,
    pub(super) end: i64,
}

/// One series of an answer.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct ReadSeries {
    /// Sorted by name.
    pub(super) labels: Vec<(String, String)>,
    /// Timestamp in milliseconds, value.
    pub(super) samples: Vec<(i64, f64)>,
}

/// Collects what is found in one pod.
pub(super) struct PodCheck {
    plan: Plan,
    /// Series by fingerprint of their labels.
    known: HashMap<u128, u32, FingerprintHasher>,
    report: VerifyReport,
    max_examples: usize,
    examples_by_kind: [usize; 4],
    pod: std::ops::Range<u32>,
    exact_nan: bool,
}

#[derive(Clone, Copy)]
enum Fault {
    Missing,
    Wrong,
    Extra,
    Duplicate,
}

impl PodCheck {
    /// With `exact_nan` every NaN has to keep its bits; text formats cannot.
    pub(super) fn new(plan: Plan, pod: u32, max_examples: usize, exact_nan: bool) -> Self {
        let pod = plan.pod(pod);
        let known = pod.clone().map(|index| (fingerprint(&series::labels(&plan, index)), index)).collect();
        Self {
            plan,
            known,
            report: VerifyReport::default(),
            max_examples,
            examples_by_kind: [0; 4],
            pod,
            exact_nan,
        }
    }

    /// Notes one query that was answered after `failures` failed attempts.
    pub(super) fn queried(&mut self, failures: u64) {
        self.report.queries += 1 + failures;
        self.report.failed_queries += failures;
    }

    pub(super) fn report(self) -> VerifyReport {
        self.report
    }

    /// Compares all that was read for a window with what the ledger holds for it.
    pub(super) fn window(&mut self, logs: &PodLogs, window: Window, answer: &[ReadSeries]) {
        let mut found: HashMap<u32, Vec<(i64, f64)>> = HashMap::new();
        for read in answer {
            match self.known.get(&fingerprint(&read.labels)) {
                Some(index) => found.entry(*index).or_default().extend(&read.samples),
                None => {
                    let text =
                        || format!("unknown series {:?} with {} samples", read.labels, read.samples.len());
                    self.fault(Fault::Extra, read.samples.len() as u64, text);
                }
            }
        }
        for index in self.pod.clone() {
            let samples = found.remove(&index).unwrap_or_default();
            self.one_series(logs, window, index, samples);
        }
    }

    fn one_series(&mut self, logs: &PodLogs, window: Window, index: u32, samples: Vec<(i64, f64)>) {
        let Some(log) = logs.log(index) else { return };
        let mut present = Vec::with_capacity(samples.len());
        let mut last = i64::MIN;
        for (t, value) in samples {
            let at = || format!("series {index} at {t}");
            if t <= last {
                self.fault(Fault::Duplicate, 1, || format!("{}: twice or out of order", at()));
                continue;
            }
            last = t;
            let inside = (window.start..window.end).contains(&t);
            if !inside || !log.sent.contains(t) {
                self.fault(Fault::Extra, 1, || format!("{}: found {value} which was never sent", at()));
                continue;
            }
            present.push(t);
            let wanted = series::value(&self.plan, index, t);
            let lenient = !self.exact_nan && value.is_nan() && wanted.is_nan();
            if !lenient && !series::same(value, wanted) {
                let (is, should) = (value.to_bits(), wanted.to_bits());
                let text = || format!("{}: found {value} ({is:#x}) instead of {wanted} ({should:#x})", at());
                self.fault(Fault::Wrong, 1, text);
            } else if log.acked.contains(t) {
                self.report.found += 1;
            } else {
                self.report.found_unacked += 1;
            }
        }
        for t in log.acked.between(window.start, window.end) {
            self.report.acked += 1;
            if present.binary_search(&t).is_err() {
                self.fault(Fault::Missing, 1, || format!("series {index} at {t}: acknowledged, but missing"));
            }
        }
    }

    fn fault(&mut self, kind: Fault, count: u64, text: impl FnOnce() -> String) {
        *match kind {
            Fault::Missing => &mut self.report.missing,
            Fault::Wrong => &mut self.report.wrong,
            Fault::Extra => &mut self.report.extra,
            Fault::Duplicate => &mut self.report.duplicates,
        } += count;
        let shown = &mut self.examples_by_kind[kind as usize];
        if *shown < self.max_examples {
            *shown += 1;
            self.report.examples.push(text());
        }
    }
}

fn fingerprint<N: AsRef<str>>(labels: &[(N, String)]) -> u128 {
    series::fingerprint(labels.iter().map(|(name, value)| (name.as_ref().as_bytes(), value.as_bytes())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::{Batch, Ledger};

    const PLAN: Plan = Plan { seed: 1, series: 3, interval_ms: 10, batch: 2, special_permille: 300 };

    /// Series 0 and 1: sent 10 to 50, all but 50 acknowledged. Series 2: nothing.
    fn ledger() -> Ledger {
        let ledger = Ledger::in_memory(PLAN);
        for timestamp_ms in [10, 20, 30, 40, 50] {
            let batch = Batch { first: 0, count: 2, timestamp_ms };
            ledger.sent(batch).unwrap();
            if timestamp_ms < 50 {
                ledger.acked(batch).unwrap();
            }
        }
        ledger
    }

    fn stored() -> Vec<ReadSeries> {
        let series = |index| ReadSeries {
            labels: series::labels(&PLAN, index).into_iter().map(|(n, v)| (n.to_owned(), v)).collect(),
            samples: [10, 20, 30, 40].map(|t| (t, series::value(&PLAN, index, t))).to_vec(),
        };
        vec![series(0), series(1)]
    }

    fn check(answer: &[ReadSeries]) -> VerifyReport {
        let logs = PodLogs::of(&ledger(), 0);
        let mut check = PodCheck::new(PLAN, 0, 2, true);
        check.window(&logs, Window { start: 10, end: 60 }, answer);
        check.report()
    }

    fn faults(report: &VerifyReport) -> [u64; 4] {
        [report.missing, report.wrong, report.extra, report.duplicates]
    }

    #[test]
    fn a_faithful_store_is_clean_with_and_without_the_unacknowledged_sample() {
        let report = check(&stored());
        assert!(report.is_clean(), "{report}");
        assert_eq!((report.acked, report.found, report.found_unacked), (8, 8, 0));
        let mut more = stored();
        more[1].samples.push((50, series::value(&PLAN, 1, 50)));
        let report = check(&more);
        assert!(report.is_clean(), "{report}");
        assert_eq!((report.found, report.found_unacked), (8, 1));
    }

    #[test]
    fn every_kind_of_fault_is_found_and_named() {
        let changed = |change: fn(&mut Vec<ReadSeries>)| {
            let mut answer = stored();
            change(&mut answer);
            check(&answer)
        };
        let lost = changed(|a| a[1].samples.retain(|(t, _)| *t != 30));
        assert_eq!(faults(&lost), [1, 0, 0, 0]);
        assert_eq!(lost.examples, ["series 1 at 30: acknowledged, but missing"]);
        assert_eq!(faults(&changed(|a| drop(a.remove(0)))), [4, 0, 0, 0]);
        // One bit, which == would not see in a NaN.
        assert_eq!(
            faults(&changed(|a| a[0].samples[1].1 = f64::from_bits(a[0].samples[1].1.to_bits() ^ 1))),
            [0, 1, 0, 0]
        );
        assert_eq!(faults(&changed(|a| a[0].samples.insert(1, (15, 1.0)))), [0, 0, 1, 0]);
        assert_eq!(faults(&changed(|a| a[0].samples.insert(0, (0, 1.0)))), [0, 0, 1, 0]);
        assert_eq!(faults(&changed(|a| a[0].labels[0].1.push('x'))), [4, 0, 4, 0]);
        assert_eq!(
            faults(&changed(|a| {
                let twice = a[0].samples[1];
                a[0].samples.insert(1, twice);
            })),
            [0, 0, 0, 1]
        );
        assert_eq!(
            faults(&changed(|a| {
                let twice = a[0].clone();
                a.push(twice);
            })),
            [0, 0, 0, 4]
        );
    }

    #[test]
    fn examples_are_few_however_many_faults_there_are() {
        let report = check(&[]);
        assert_eq!((report.missing, report.examples.len()), (8, 2));
    }
}
