//! Files that are read again while the process runs. What is in them is the owner's business: its parse function makes a value
//! of them, which is handed on when they have changed. When they cannot be read or understood, the last good value stays.
//!
//! # Source
//!
//! Cortex `pkg/util/runtimeconfig/manager.go`: the metrics, and that the first load fails the start. Differs in reading a
//! changed file twice, in parsing only what has changed, and in telling a failure once.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;
use sha2::{Digest as _, Sha256};
use tokio::time::{Instant, MissedTickBehavior, interval_at, sleep};
use tokio_util::sync::CancellationToken;

use crate::collect::{CollectGuard, Families};
use crate::error::Cause;
use crate::live::{Live, Publisher};
use crate::meter::Meter;
use crate::service::Service;

/// A change counts once two reads this far apart agree: until then somebody may still be writing.
const SETTLE: Duration = Duration::from_millis(100);
/// After this many reads that all differ, the change is left to the next period.
const MAX_READS: usize = 5;

/// Which files are read, and how often.
#[derive(Clone, Debug)]
pub struct ReloadOptions {
    /// The files, in the order in which they are parsed.
    pub files: Vec<PathBuf>,
    /// Time between two reads. 0 counts as a millisecond.
    pub period: Duration,
    /// Longest file in bytes; a longer one cannot be read.
    pub max_bytes: u64,
}

/// All files as they were read.
#[derive(Clone, Debug)]
pub struct Contents {
    /// Each file with its name, in the order of the options.
    pub files: Vec<(String, Vec<u8>)>,
    /// SHA-256 of the files one behind the other, in hexadecimal: of a single one, what `sha256sum` prints.
    pub sha256: Arc<str>,
}

/// What tells contents from others.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Print {
    lengths: Vec<usize>,
    sha256: Arc<str>,
}

impl Contents {
    fn print(&self) -> Print {
        let lengths = self.files.iter().map(|(_, bytes)| bytes.len()).collect();
        Print { lengths, sha256: Arc::clone(&self.sha256) }
    }
}

type Parse<T> = dyn Fn(&Contents) -> Result<T, Cause> + Send + Sync;

/// Where values come from.
struct Source<T> {
    options: ReloadOptions,
    parse: Box<Parse<T>>,
}

impl<T> Source<T> {
    fn read(&self) -> Result<Contents, String> {
        let mut files = Vec::new();
        let mut hasher = Sha256::new();
        for path in &self.options.files {
            let name = path.display().to_string();
            let bytes = read_file(path, self.options.max_bytes)
                .map_err(|error| format!("{name}: cannot read this file: {error}"))?;
            hasher.update(&bytes);
            files.push((name, bytes));
        }
        let mut sha256 = String::new();
        for byte in hasher.finalize() {
            // Writing to a string cannot fail.
            let _ = write!(sha256, "{byte:02x}");
        }
        Ok(Contents { files, sha256: sha256.into() })
    }

    fn parse(&self, contents: &Contents) -> Result<T, String> {
        (self.parse)(contents).map_err(|cause| cause.to_string())
    }
}

fn read_file(path: &Path, max_bytes: u64) -> io::Result<Vec<u8>> {
    // Opening something else, such as a pipe, might wait for ever.
    if !fs::metadata(path)?.is_file() {
        return Err(io::Error::other("it is no file"));
    }
    let mut bytes = Vec::new();
    File::open(path)?.take(max_bytes.saturating_add(1)).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > max_bytes {
        return Err(io::Error::other(format!("it is larger than {max_bytes} bytes")));
    }
    Ok(bytes)
}

/// Does what may block, with the logs of whoever asked.
async fn blocking<R: Send + 'static>(
    work: impl FnOnce() -> Result<R, String> + Send + 'static,
) -> Result<R, String> {
    let span = tracing::Span::current();
    match tokio::task::spawn_blocking(move || span.in_scope(work)).await {
        Ok(done) => done,
        Err(error) => Err(format!("loading broke off: {error}")),
    }
}

/// Reads files again and again, and hands on what they mean. Does the first load before it is a service, so that nobody
/// begins without a value.
pub struct Reload<T> {
    source: Arc<Source<T>>,
    publisher: Publisher<T>,
    state: Arc<Mutex<State>>,
    /// The contents that the value came from.
    in_use: Print,
    /// The contents that were refused last, and why: they need not be parsed again.
    refused: Option<(Print, String)>,
    _collector: Option<CollectGuard>,
}

/// What the metrics tell.
struct State {
    /// Of the value in use.
    sha256: Arc<str>,
    /// Why the last load failed, if it did.
    failure: Option<String>,
}

impl<T: Send + Sync + 'static> Reload<T> {
    /// Loads for the first time. `parse` is called for contents that have changed, where it may block. Cancel-safe.
    ///
    /// # Errors
    ///
    /// A file that cannot be read, and what `parse` says.
    pub async fn open(
        options: ReloadOptions,
        parse: impl Fn(&Contents) -> Result<T, Cause> + Send + Sync + 'static,
    ) -> Result<Self, Cause> {
        let source = Arc::new(Source { options, parse: Box::new(parse) });
        let first = Arc::clone(&source);
        let loaded = blocking(move || {
            let contents = first.read()?;
            Ok((first.parse(&contents)?, contents.print()))
        });
        let (value, in_use) = loaded.await?;
        let state = State { sha256: Arc::clone(&in_use.sha256), failure: None };
        Ok(Self {
            source,
            publisher: Publisher::new(value),
            state: Arc::new(Mutex::new(state)),
            in_use,
            refused: None,
            _collector: None,
        })
    }

    /// The value, now and later.
    pub fn live(&self) -> Live<T> {
        self.publisher.live()
    }

    /// Publishes Cortex's metrics of the runtime configuration, for as long as this lives.
    #[must_use]
    pub fn with_metrics(mut self, meter: &Meter) -> Self {
        let state = Arc::clone(&self.state);
        let collect = move |out: &mut Families| {
            let state = state.lock();
            let successful = if state.failure.is_none() { 1.0 } else { 0.0 };
            let help = "Whether the last runtime-config reload attempt was successful.";
            out.gauge("cortex_runtime_config_last_reload_successful", help, &[], successful);
            let help = "Hash of the currently active runtime config file.";
            out.gauge("cortex_runtime_config_hash", help, &[("sha256", &*state.sha256)], 1.0);
        };
        self._collector = Some(meter.collect(Arc::new(collect)));
        self
    }

    /// Reads once more, and publishes what is new. Tells a change of the outcome only.
    async fn reload(&mut self) {
        match self.attempt().await {
            Ok(new) => {
                let failed = self.state.lock().failure.take().is_some();
                if let Some((value, print)) = new {
                    tracing::info!(sha256 = %print.sha256, "loaded the runtime configuration anew");
                    self.state.lock().sha256 = Arc::clone(&print.sha256);
                    self.in_use = print;
                    self.publisher.publish(value);
                } else if failed {
                    tracing::info!("the runtime configuration is again what is in use");
                }
                self.refused = None;
            }
            Err(problem) => {
                let mut state = self.state.lock();
                if state.failure.as_ref() != Some(&problem) {
                    tracing::error!(
                        error = problem,
                        "failed to load config: the last good runtime configuration stays in use"
                    );
                    state.failure = Some(problem);
                }
            }
        }
    }

    /// What the files mean now; `None` if that is in use already.
    async fn attempt(&mut self) -> Result<Option<(T, Print)>, String> {
        let contents = self.settled().await?;
        let print = contents.print();
        if print == self.in_use {
            return Ok(None);
        }
        if let Some((_, problem)) = self.refused.as_ref().filter(|(refused, _)| *refused == print) {
            return Err(problem.clone());
        }
        let source = Arc::clone(&self.source);
        match blocking(move || source.parse(&contents)).await {
            Ok(value) => Ok(Some((value, print))),
            Err(problem) => {
                self.refused = Some((print, problem.clone()));
                Err(problem)
            }
        }
    }

    /// The files, once nobody is writing to them any more.
    async fn settled(&self) -> Result<Contents, String> {
        let mut before = self.read().await;
        if before.as_ref().is_ok_and(|contents| self.is_known(&contents.print())) {
            return before;
        }
        for _ in 0..MAX_READS {
            sleep(SETTLE).await;
            let now = self.read().await;
            let agree = match (&before, &now) {
                (Ok(before), Ok(now)) => before.print() == now.print(),
                (Err(_), Err(_)) => true,
                _ => false,
            };
            if agree {
                return now;
            }
            before = now;
        }
        Err("the files change while they are read".to_owned())
    }

    async fn read(&self) -> Result<Contents, String> {
        let source = Arc::clone(&self.source);
        blocking(move || source.read()).await
    }

    fn is_known(&self, print: &Print) -> bool {
        *print == self.in_use || self.refused.as_ref().is_some_and(|(refused, _)| refused == print)
    }
}

#[async_trait]
impl<T: Send + Sync + 'static> Service for Reload<T> {
    async fn run(&mut self, stop: CancellationToken) -> Result<(), Cause> {
        let period = self.source.options.period.max(Duration::from_millis(1));
        // The first load is done.
        let mut ticks = interval_at(Instant::now() + period, period);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = stop.cancelled() => return Ok(()),
                _ = ticks.tick() => (),
            }
            // A disk that does not answer is no reason to stay.
            tokio::select! {
                () = stop.cancelled() => return Ok(()),
                () = self.reload() => (),
            }
        }
    }
}

#[cfg(test)]
mod tests;
