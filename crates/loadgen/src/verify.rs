//! Reading everything back, and comparing it with the ledger.
//!
//! The verifier asks pod by pod and window by window, so that no answer is large, and knows four kinds of fault: a sample
//! that was acknowledged but is *missing*; one with the *wrong* value; one that is there although it was never sent
//! (*extra*); one that is there twice or out of order (*duplicate*). A sample that was sent but never acknowledged may be
//! there or not.
//!
//! Only windows in which something was sent are read: what else a store may hold at other times is another load's business.

use std::fmt;
use std::time::Duration;

use futures::{StreamExt as _, TryStreamExt as _, stream};
use serde::Serialize;

use crate::error::Error;
use crate::ledger::{Ledger, RangeLog};
use crate::plan::{Plan, SERIES_PER_POD};

mod check;
mod read;

use check::{PodCheck, Window};
use read::Reader;

/// What is asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ReadBy {
    /// Prometheus remote read, `POST /prometheus/api/v1/read`, answers of type `SAMPLES`.
    #[default]
    RemoteRead,
    /// Raw samples as JSON lines, `GET /api/v1/samples`.
    JsonLines,
}

/// Where and how to read back.
#[derive(Clone, Debug)]
pub struct VerifyOptions {
    /// Address to read from; the usual path of `by` is added to one without a path.
    pub url: String,
    /// Value of `X-Scope-OrgID`; `None` sends no such header.
    pub tenant: Option<String>,
    /// Which interface is read.
    pub by: ReadBy,
    /// Queries in flight at most.
    pub concurrency: usize,
    /// One query without a complete answer is given up after this.
    pub timeout: Duration,
    /// A failed query is tried this often in all; the last failure ends the verification.
    pub attempts: u32,
    /// Samples of one series in one answer at most; with 250 series in a pod this bounds an answer.
    pub window_samples: u32,
    /// Faults of each kind that the report describes one by one.
    pub max_examples: usize,
}

impl Default for VerifyOptions {
    fn default() -> Self {
        Self {
            url: String::new(),
            tenant: None,
            by: ReadBy::RemoteRead,
            concurrency: 4,
            timeout: Duration::from_secs(30),
            attempts: 5,
            window_samples: 240,
            max_examples: 10,
        }
    }
}

/// What reading back found. All numbers are samples unless said otherwise.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct VerifyReport {
    /// Acknowledged samples that were looked for.
    pub acked: u64,
    /// Acknowledged samples found with the right value.
    pub found: u64,
    /// Samples found that were sent but never acknowledged: allowed.
    pub found_unacked: u64,
    /// Acknowledged samples that are not there.
    pub missing: u64,
    /// Samples whose value is not the one sent, by bits.
    pub wrong: u64,
    /// Samples that were never sent, samples of unknown series included.
    pub extra: u64,
    /// Samples that are there twice, or out of order.
    pub duplicates: u64,
    /// Queries made.
    pub queries: u64,
    /// Queries that failed and were repeated.
    pub failed_queries: u64,
    /// Descriptions of the first faults of each kind.
    pub examples: Vec<String>,
}

impl VerifyReport {
    /// Whether no fault was found.
    pub fn is_clean(&self) -> bool {
        self.missing == 0 && self.wrong == 0 && self.extra == 0 && self.duplicates == 0
    }

    fn add(mut self, other: Self, max_examples: usize) -> Self {
        let Self {
            acked,
            found,
            found_unacked,
            missing,
            wrong,
            extra,
            duplicates,
            queries,
            failed_queries,
            examples,
        } = other;
        self.acked += acked;
        self.found += found;
        self.found_unacked += found_unacked;
        self.missing += missing;
        self.wrong += wrong;
        self.extra += extra;
        self.duplicates += duplicates;
        self.queries += queries;
        self.failed_queries += failed_queries;
        self.examples.extend(examples);
        self.examples.truncate(4 * max_examples);
        self
    }
}

impl fmt::Display for VerifyReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verdict = if self.is_clean() { "complete" } else { "NOT complete" };
        writeln!(f, "{verdict}: {} of {} acknowledged samples found", self.found, self.acked)?;
        write!(
            f,
            "missing {}, wrong {}, extra {}, duplicates {}; sent but never acknowledged and found {}; {} queries, {} repeated",
            self.missing,
            self.wrong,
            self.extra,
            self.duplicates,
            self.found_unacked,
            self.queries,
            self.failed_queries
        )?;
        for example in &self.examples {
            write!(f, "\n  {example}")?;
        }
        Ok(())
    }
}

/// Reads back all that a ledger knows and compares it bit by bit.
///
/// The ledger may still be growing; what is acknowledged while a pod is being read is not looked for. Dropping the future
/// leaves nothing behind.
///
/// # Errors
///
/// [`Error::Option`] naming the option at fault; [`Error::Read`] when a query failed on every attempt. Faults in the data
/// are no error: see [`VerifyReport::is_clean`].
pub async fn verify(ledger: &Ledger, options: &VerifyOptions) -> Result<VerifyReport, Error> {
    let reader = Reader::new(options)?;
    let plan = *ledger.plan();
    let pods = (0..plan.num_pods()).map(|pod| verify_pod(ledger, &reader, options, pod));
    stream::iter(pods)
        .buffered(options.concurrency.max(1))
        .try_fold(VerifyReport::default(), |sum, pod| {
            std::future::ready(Ok(sum.add(pod, options.max_examples)))
        })
        .await
}

async fn verify_pod(
    ledger: &Ledger,
    reader: &Reader,
    options: &VerifyOptions,
    pod: u32,
) -> Result<VerifyReport, Error> {
    let plan = *ledger.plan();
    let logs = PodLogs::of(ledger, pod);
    let mut check = PodCheck::new(plan, pod, options.max_examples, options.by == ReadBy::RemoteRead);
    let width = i64::from(plan.interval_ms) * i64::from(options.window_samples.max(1));
    let mut cursor = i64::MIN;
    while let Some(start) = logs.next_sent(cursor) {
        let window = Window { start, end: start.saturating_add(width) };
        let answer = reader.read(&plan, pod, window).await?;
        check.window(&logs, window, &answer.series);
        check.queried(answer.failures);
        cursor = window.end;
    }
    Ok(check.report())
}

/// What the ledger says about the series of one pod.
struct PodLogs {
    plan: Plan,
    first_range: u32,
    ranges: Vec<RangeLog>,
}

impl PodLogs {
    fn of(ledger: &Ledger, pod: u32) -> Self {
        let plan = *ledger.plan();
        let series = plan.pod(pod);
        debug_assert!(series.len() <= SERIES_PER_POD as usize);
        let (first_range, last_range) =
            (plan.range_of(series.start), plan.range_of(series.end.saturating_sub(1)));
        let ranges = (first_range..=last_range).map(|range| ledger.range(range)).collect();
        Self { plan, first_range, ranges }
    }

    fn log(&self, series: u32) -> Option<&RangeLog> {
        self.ranges.get(self.plan.range_of(series).checked_sub(self.first_range)? as usize)
    }

    fn next_sent(&self, from: i64) -> Option<i64> {
        self.ranges.iter().filter_map(|range| range.sent.next_at_or_after(from)).min()
    }
}
