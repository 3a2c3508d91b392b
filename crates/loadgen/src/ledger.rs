//! What was sent, and what the server acknowledged.
//!
//! A batch is noted as *sent* before its first attempt and as *acknowledged* after a 2xx answer. What was sent but never
//! acknowledged may or may not be in the store; what was never sent must not be.
//!
//! Batches of one range of series follow each other at whole intervals, so in memory they are a few [`Runs`] per range,
//! however long the load goes on. On disk they are records of 21 bytes, see [`file`](mod@file).

use std::collections::BTreeMap;
use std::path::Path;

use parking_lot::Mutex;

use crate::error::Error;
use crate::plan::Plan;

pub mod file;
mod runs;

pub use runs::Runs;

/// One batch: all series of a range at one timestamp.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Batch {
    /// First series of the range.
    pub first: u32,
    /// Number of series.
    pub count: u32,
    /// Timestamp of all samples in milliseconds.
    pub timestamp_ms: i64,
}

/// Timestamps sent and acknowledged of one range of series.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RangeLog {
    /// Timestamps that were sent at least once.
    pub sent: Runs,
    /// Timestamps that were acknowledged: a subset of `sent`.
    pub acked: Runs,
}

/// The ledger of one load; shared by reference, all methods lock briefly.
#[derive(Debug)]
pub struct Ledger {
    plan: Plan,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// By first series of the range.
    ranges: BTreeMap<u32, RangeLog>,
    acked_samples: u64,
    file: Option<file::Appender>,
}

impl Ledger {
    /// A ledger that ends with the process.
    pub fn in_memory(plan: Plan) -> Self {
        Self { plan, state: Mutex::default() }
    }

    /// Opens a ledger file for a load, creating it if absent; a torn end, as a kill leaves it, is cut off.
    ///
    /// # Errors
    ///
    /// [`Error::LedgerIo`]; [`Error::LedgerCorrupt`] when the file is damaged elsewhere than at its end;
    /// [`Error::LedgerPlan`] when it was written with another plan.
    pub fn open(path: &Path, plan: Plan) -> Result<Self, Error> {
        let mut state = State::default();
        let (found, appender) = file::open(path, &plan, |record| state.apply(&plan, record))?;
        if found != plan {
            let (path, found, wanted) = (path.to_owned(), found.to_string(), plan.to_string());
            return Err(Error::LedgerPlan { path, found, wanted });
        }
        state.file = Some(appender);
        Ok(Self { plan, state: Mutex::new(state) })
    }

    /// Reads a ledger file without changing it. A torn end is ignored: what it would have said was never relied upon.
    ///
    /// # Errors
    ///
    /// [`Error::LedgerIo`]; [`Error::LedgerCorrupt`] when the file is damaged elsewhere than at its end.
    pub fn read(path: &Path) -> Result<Self, Error> {
        let mut state = State::default();
        let plan = file::read(path, |plan, record| state.apply(plan, record))?;
        Ok(Self { plan, state: Mutex::new(state) })
    }

    /// The plan of the load.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// Notes that a batch is about to be sent. On success the note is with the operating system, so it outlives this process.
    ///
    /// # Errors
    ///
    /// [`Error::LedgerIo`]; the batch must then not be sent.
    pub fn sent(&self, batch: Batch) -> Result<(), Error> {
        self.note(file::Record::Sent(batch))
    }

    /// Notes that a batch was acknowledged.
    ///
    /// # Errors
    ///
    /// [`Error::LedgerIo`]; the acknowledgement is then not counted.
    pub fn acked(&self, batch: Batch) -> Result<(), Error> {
        self.note(file::Record::Acked(batch))
    }

    /// Number of acknowledged samples.
    pub fn num_acked(&self) -> u64 {
        self.state.lock().acked_samples
    }

    /// First and last timestamp sent, in milliseconds.
    pub fn sent_bounds(&self) -> Option<(i64, i64)> {
        let state = self.state.lock();
        let first = state.ranges.values().filter_map(|range| range.sent.first()).min()?;
        let last = state.ranges.values().filter_map(|range| range.sent.last()).max()?;
        Some((first, last))
    }

    /// The timestamps of one range, by the number of the range.
    pub fn range(&self, range: u32) -> RangeLog {
        let first = self.plan.range(range).start;
        self.state.lock().ranges.get(&first).cloned().unwrap_or_default()
    }

    fn note(&self, record: file::Record) -> Result<(), Error> {
        let mut state = self.state.lock();
        if let Some(file) = &mut state.file {
            file.append(record)?;
        }
        state.apply(&self.plan, record);
        Ok(())
    }
}

impl State {
    fn apply(&mut self, plan: &Plan, record: file::Record) {
        let step = i64::from(plan.interval_ms);
        match record {
            file::Record::Sent(batch) => {
                self.ranges.entry(batch.first).or_default().sent.push(batch.timestamp_ms, step);
            }
            file::Record::Acked(batch) => {
                let added = self.ranges.entry(batch.first).or_default().acked.push(batch.timestamp_ms, step);
                if added {
                    self.acked_samples += u64::from(batch.count);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan() -> Plan {
        Plan { seed: 3, series: 10, interval_ms: 100, batch: 5, special_permille: 0 }
    }

    fn batch(timestamp_ms: i64) -> Batch {
        Batch { first: 5, count: 5, timestamp_ms }
    }

    #[test]
    fn a_ledger_is_the_same_after_reading_it_back() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ledger");
        let ledger = Ledger::open(&path, plan()).unwrap();
        for t in [100, 200, 300, 600] {
            ledger.sent(batch(t)).unwrap();
            if t != 300 {
                ledger.acked(batch(t)).unwrap();
            }
        }
        let read = Ledger::read(&path).unwrap();
        assert_eq!(read.plan(), &plan());
        assert_eq!(read.range(1), ledger.range(1));
        assert_eq!(read.num_acked(), 15);
        assert_eq!(read.sent_bounds(), Some((100, 600)));
        assert_eq!(read.range(0), RangeLog::default());

        drop(ledger);
        let again = Ledger::open(&path, plan()).unwrap();
        again.sent(batch(700)).unwrap();
        assert_eq!(Ledger::read(&path).unwrap().sent_bounds(), Some((100, 700)));
    }

    #[test]
    fn a_file_of_another_plan_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ledger");
        drop(Ledger::open(&path, plan()).unwrap());
        let error = Ledger::open(&path, Plan { seed: 4, ..plan() }).unwrap_err().to_string();
        assert!(error.contains("seed 3") && error.contains("seed 4"), "{error}");
    }

    #[test]
    fn a_file_torn_anywhere_keeps_every_whole_record() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ledger");
        let ledger = Ledger::open(&path, plan()).unwrap();
        let mut ends = Vec::new();
        for t in 1..=5 {
            ledger.sent(batch(t * 100)).unwrap();
            ends.push(std::fs::metadata(&path).unwrap().len());
        }
        let whole = std::fs::read(&path).unwrap();
        let header_end = file::HEADER_BYTES as u64;
        for cut in header_end..=whole.len() as u64 {
            std::fs::write(&path, &whole[..cut as usize]).unwrap();
            let kept = ends.iter().filter(|end| **end <= cut).count() as u64;
            assert_eq!(Ledger::read(&path).unwrap().range(1).sent.len(), kept, "cut at {cut}");
            // Appending after the tear must not hide what follows.
            let resumed = Ledger::open(&path, plan()).unwrap();
            resumed.sent(batch(9000)).unwrap();
            assert_eq!(Ledger::read(&path).unwrap().range(1).sent.len(), kept + 1, "cut at {cut}");
        }
    }

    #[test]
    fn damage_before_the_end_is_an_error_and_not_a_shorter_ledger() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ledger");
        let ledger = Ledger::open(&path, plan()).unwrap();
        for t in 1..=5 {
            ledger.acked(batch(t * 100)).unwrap();
        }
        drop(ledger);
        let mut bytes = std::fs::read(&path).unwrap();
        bytes[file::HEADER_BYTES + 8] ^= 1;
        std::fs::write(&path, &bytes).unwrap();
        assert!(
            matches!(Ledger::read(&path), Err(Error::LedgerCorrupt { offset, .. }) if offset == file::HEADER_BYTES as u64)
        );
        assert!(matches!(Ledger::open(&path, plan()), Err(Error::LedgerCorrupt { .. })));
        assert_eq!(std::fs::read(&path).unwrap(), bytes, "a damaged file is left as it is");
    }
}
