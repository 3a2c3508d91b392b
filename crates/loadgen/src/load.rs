//! The schedule: which batch is due when, whatever the server does.
//!
//! Each range of series has a task of its own that sends its batches one after the other, since a series must arrive in
//! order. Batches are due by the clock alone (open loop), and latency counts from there: a server that stalls shows in the
//! latency of all batches it delayed, not only in the one it had in hand.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::task::JoinSet;
use tokio::time::{Instant, interval_at, sleep_until, timeout_at};
use tokio_util::sync::CancellationToken;

use crate::encode::EncodedRange;
use crate::error::Error;
use crate::ledger::{Batch, Ledger};
use crate::plan::Plan;
use crate::push::{Outcome, Pusher};
use crate::summary::{Progress, Stats, Summary};

/// A ledger may be this far ahead of the clock: the load then waits for its first new timestamp.
const MAX_AHEAD: Duration = Duration::from_secs(600);

/// Where the ledger of a load is kept.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum LedgerAt {
    /// In this process only.
    #[default]
    Memory,
    /// In a file, which is continued if it exists.
    File(PathBuf),
}

/// What to send, where to, and for how long.
#[derive(Clone, Debug)]
pub struct LoadOptions {
    /// Addresses of remote write; `/api/v1/push` is added to one without a path. Batches take turns.
    pub urls: Vec<String>,
    /// Value of `X-Scope-OrgID`; `None` sends no such header.
    pub tenant: Option<String>,
    /// See [`Plan::seed`].
    pub seed: u64,
    /// Number of series.
    pub series: u32,
    /// Samples per second over all series. Together with `series` it gives the interval, which is a whole number of
    /// milliseconds and at least one.
    pub rate: f64,
    /// Series per request.
    pub batch: u32,
    /// See [`Plan::special_permille`].
    pub special_permille: u16,
    /// No new batch is due after this; `None` runs until stopped.
    pub duration: Option<Duration>,
    /// Requests in flight at most.
    pub concurrency: usize,
    /// A request without an answer is given up after this, and tried again.
    pub timeout: Duration,
    /// After the end, batches under way get this long to be acknowledged.
    pub drain_timeout: Duration,
    /// A range further behind its schedule than this leaves timestamps out.
    pub max_lag: Duration,
    /// Where the ledger is kept.
    pub ledger: LedgerAt,
    /// How often progress is reported.
    pub report_period: Duration,
}

impl Default for LoadOptions {
    fn default() -> Self {
        Self {
            urls: Vec::new(),
            tenant: None,
            seed: 1,
            series: 1000,
            rate: 1000.0,
            batch: 500,
            special_permille: 0,
            duration: None,
            concurrency: 64,
            timeout: Duration::from_secs(30),
            drain_timeout: Duration::from_secs(10),
            max_lag: Duration::from_secs(300),
            ledger: LedgerAt::Memory,
            report_period: Duration::from_secs(1),
        }
    }
}

impl LoadOptions {
    /// The plan that follows from these options.
    ///
    /// # Errors
    ///
    /// [`Error::Option`] naming the option that is out of range.
    pub fn plan(&self) -> Result<Plan, Error> {
        let Self { seed, series, rate, batch, special_permille, .. } = *self;
        if !rate.is_finite() || rate <= 0.0 {
            return Err(Error::option("rate", format!("must be above 0 samples/s, not {rate}")));
        }
        let interval_ms = (f64::from(series) * 1000.0 / rate).round();
        if interval_ms < 1.0 {
            let needed = (rate / 1000.0).ceil();
            let problem = format!(
                "{rate} samples/s need at least {needed} series: a series has one sample per millisecond at most"
            );
            return Err(Error::option("rate", problem));
        }
        if interval_ms > f64::from(u32::MAX) {
            return Err(Error::option("rate", format!("{rate} samples/s is too slow for {series} series")));
        }
        Plan { seed, series, interval_ms: interval_ms as u32, batch, special_permille }.checked()
    }
}

type OnProgress = Box<dyn Fn(&Progress) + Send + Sync>;

/// A load, ready to run.
pub struct Load {
    options: LoadOptions,
    shared: Arc<Shared>,
    on_progress: Option<OnProgress>,
}

/// What the tasks of all ranges share.
struct Shared {
    plan: Plan,
    pusher: Pusher,
    ledger: Arc<Ledger>,
    stats: Stats,
}

/// When batches are due.
#[derive(Clone, Copy)]
struct Schedule {
    plan: Plan,
    start: Instant,
    first_timestamp_ms: i64,
    end: Option<Instant>,
    max_lag: Duration,
}

impl Load {
    /// Checks the options and opens the ledger.
    ///
    /// # Errors
    ///
    /// [`Error::Option`] naming the option at fault; the ledger's errors.
    pub fn new(options: LoadOptions) -> Result<Self, Error> {
        let plan = options.plan()?;
        let pusher = Pusher::new(&options)?;
        let ledger = match &options.ledger {
            LedgerAt::Memory => Ledger::in_memory(plan),
            LedgerAt::File(path) => Ledger::open(path, plan)?,
        };
        if options.report_period.is_zero() {
            return Err(Error::option("report_period", "must be above 0"));
        }
        let shared = Shared { plan, pusher, ledger: Arc::new(ledger), stats: Stats::default() };
        Ok(Self { options, shared: Arc::new(shared), on_progress: None })
    }

    /// Calls `report` once per [`LoadOptions::report_period`] while the load runs. It must not block.
    #[must_use]
    pub fn on_progress(mut self, report: impl Fn(&Progress) + Send + Sync + 'static) -> Self {
        self.on_progress = Some(Box::new(report));
        self
    }

    /// The ledger, which grows while the load runs.
    pub fn ledger(&self) -> Arc<Ledger> {
        Arc::clone(&self.shared.ledger)
    }

    /// Has batches go to these addresses from now on, instead of [`LoadOptions::urls`]: as a load balancer does when a server
    /// leaves or enters its rotation. What is being sent is not disturbed.
    ///
    /// # Errors
    ///
    /// [`Error::Option`] for an address that is none, or without any; nothing has changed then.
    pub fn set_urls(&self, urls: &[String]) -> Result<(), Error> {
        self.shared.pusher.set_targets(urls)
    }

    /// Sends until `stop` or the end of [`LoadOptions::duration`], then waits up to [`LoadOptions::drain_timeout`] for the
    /// batches under way. Dropping the future stops everything at once; the ledger stays right.
    ///
    /// # Errors
    ///
    /// The ledger's errors, which end the load: an acknowledgement that cannot be noted must not be forgotten quietly.
    pub async fn run(&self, stop: CancellationToken) -> Result<Summary, Error> {
        let plan = self.shared.plan;
        let ranges: Vec<EncodedRange> =
            (0..plan.num_ranges()).map(|range| EncodedRange::new(plan, plan.range(range))).collect();
        let schedule = self.schedule()?;
        // Our own stop: also cancelled when one of the tasks fails.
        let stop = stop.child_token();
        let mut tasks = JoinSet::new();
        for (number, range) in ranges.into_iter().enumerate() {
            let (shared, stop) = (Arc::clone(&self.shared), stop.clone());
            tasks.spawn(async move { send_range(&shared, schedule, number as u32, &range, &stop).await });
        }
        let result = self.watch(&mut tasks, schedule, &stop).await;
        tasks.shutdown().await;
        result?;
        Ok(self.shared.stats.summary(plan, &self.options.urls, schedule.start.elapsed()))
    }

    fn schedule(&self) -> Result<Schedule, Error> {
        let (plan, now) = (self.shared.plan, Instant::now());
        let interval = i64::from(plan.interval_ms);
        let now_ms = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as i64);
        let mut first = now_ms - now_ms.rem_euclid(interval);
        if let Some((_, last)) = self.shared.ledger.sent_bounds() {
            first = first.max(last + interval);
        }
        let ahead = Duration::from_millis(u64::try_from(first - now_ms).unwrap_or(0));
        if ahead > MAX_AHEAD.max(Duration::from_millis(2 * u64::from(plan.interval_ms))) {
            let problem = format!("its last timestamp is {ahead:?} ahead of the clock: use another file");
            return Err(Error::option("ledger", problem));
        }
        let start = now + ahead;
        let end = self.options.duration.map(|duration| start + duration);
        Ok(Schedule { plan, start, first_timestamp_ms: first, end, max_lag: self.options.max_lag })
    }

    /// Waits for all tasks, reports meanwhile, and bounds the time after the end.
    async fn watch(
        &self,
        tasks: &mut JoinSet<Result<(), Error>>,
        schedule: Schedule,
        stop: &CancellationToken,
    ) -> Result<(), Error> {
        let stats = &self.shared.stats;
        let mut report = interval_at(Instant::now() + self.options.report_period, self.options.report_period);
        let (mut last, mut acked) = (Instant::now(), 0);
        let mut give_up = schedule.end.map(|end| end + self.options.drain_timeout);
        let mut stopped = false;
        loop {
            tokio::select! {
                ended = tasks.join_next() => match ended {
                    None => return Ok(()),
                    Some(Ok(Ok(()))) => {}
                    Some(Ok(Err(error))) => return Err(error),
                    Some(Err(error)) => match error.try_into_panic() {
                        Ok(panic) => std::panic::resume_unwind(panic),
                        Err(_cancelled) => {}
                    },
                },
                now = report.tick() => {
                    let progress = stats.progress(schedule.start.elapsed(), now.saturating_duration_since(last), acked);
                    (last, acked) = (now, progress.acked_samples);
                    if let Some(on_progress) = &self.on_progress {
                        on_progress(&progress);
                    }
                }
                () = stop.cancelled(), if !stopped => {
                    stopped = true;
                    let deadline = Instant::now() + self.options.drain_timeout;
                    give_up = Some(give_up.map_or(deadline, |at| at.min(deadline)));
                }
                () = sleep_until_some(give_up) => return Ok(()),
            }
        }
    }
}

async fn sleep_until_some(at: Option<Instant>) {
    match at {
        Some(at) => sleep_until(at).await,
        None => std::future::pending().await,
    }
}

impl Schedule {
    fn interval(&self) -> Duration {
        Duration::from_millis(u64::from(self.plan.interval_ms))
    }

    /// Ranges are spread evenly over the interval.
    fn due(&self, range: u32, tick: u64) -> Instant {
        let offset = self.interval() * range / self.plan.num_ranges().max(1);
        self.start + Duration::from_millis(u64::from(self.plan.interval_ms) * tick) + offset
    }

    fn timestamp_ms(&self, tick: u64) -> i64 {
        self.first_timestamp_ms + i64::from(self.plan.interval_ms) * tick as i64
    }

    /// How many ticks to leave out at `now`, so that the range is at most `max_lag` behind.
    fn ticks_to_skip(&self, range: u32, tick: u64, now: Instant) -> u64 {
        let behind = now.saturating_duration_since(self.due(range, tick)).saturating_sub(self.max_lag);
        u64::try_from(behind.as_millis() / self.interval().as_millis().max(1)).unwrap_or(0)
    }
}

/// Sends the batches of one range, each after the one before has ended.
async fn send_range(
    shared: &Shared,
    schedule: Schedule,
    range: u32,
    encoded: &EncodedRange,
    stop: &CancellationToken,
) -> Result<(), Error> {
    let series = shared.plan.range(range);
    let (first, count) = (series.start, series.end - series.start);
    let mut tick = 0;
    loop {
        let skip = schedule.ticks_to_skip(range, tick, Instant::now());
        shared.stats.skipped(skip * u64::from(count));
        tick += skip;
        let due = schedule.due(range, tick);
        if schedule.end.is_some_and(|end| due >= end) || timeout_at(due, stop.cancelled()).await.is_ok() {
            return Ok(());
        }
        let batch = Batch { first, count, timestamp_ms: schedule.timestamp_ms(tick) };
        let body = encoded.body(batch.timestamp_ms);
        shared.ledger.sent(batch)?;
        shared.stats.sent(u64::from(count));
        match shared.pusher.deliver(&body, &shared.stats).await {
            Outcome::Acked => {
                shared.ledger.acked(batch)?;
                shared.stats.acked(u64::from(count), due.elapsed());
            }
            Outcome::Refused => shared.stats.refused(u64::from(count)),
        }
        tick += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rate_and_series_give_the_interval() {
        let options = LoadOptions { series: 10_000, rate: 20_000.0, ..LoadOptions::default() };
        assert_eq!(options.plan().unwrap().interval_ms, 500);
        let text = |rate: f64, series: u32| {
            LoadOptions { rate, series, ..options.clone() }.plan().unwrap_err().to_string()
        };
        assert!(text(0.0, 1).contains("`rate`"));
        assert!(text(f64::NAN, 1).contains("`rate`"));
        assert!(text(20_000.0, 1).contains("at least 20 series"), "{}", text(20_000.0, 1));
        assert!(text(1.0, 0).contains("`series`") || text(1.0, 0).contains("`rate`"));
        assert!(text(0.0001, 20_000_000).contains("too slow"));
    }

    #[test]
    fn batches_are_due_evenly_and_a_late_range_skips_only_beyond_the_allowed_lag() {
        let plan = Plan { seed: 1, series: 100, interval_ms: 1000, batch: 25, special_permille: 0 };
        let start = Instant::now();
        let schedule =
            Schedule { plan, start, first_timestamp_ms: 5000, end: None, max_lag: Duration::from_secs(10) };
        let due_ms = |range, tick| schedule.due(range, tick).duration_since(start).as_millis();
        assert_eq!(
            [due_ms(0, 0), due_ms(1, 0), due_ms(3, 0), due_ms(0, 1), due_ms(3, 7)],
            [0, 250, 750, 1000, 7750]
        );
        assert_eq!(schedule.timestamp_ms(3), 8000);
        let at = |seconds| start + Duration::from_secs(seconds);
        assert_eq!(schedule.ticks_to_skip(0, 0, at(10)), 0);
        assert_eq!(schedule.ticks_to_skip(0, 0, at(15)), 5);
        assert_eq!(schedule.ticks_to_skip(0, 20, at(15)), 0);
    }
}
