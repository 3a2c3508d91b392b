//! The write-ahead log: one for all tenants of a process, so that one sync covers everybody.
//!
//! Records are put into a buffer under the lock of the shard they are about, so the log's order is the head's. A
//! thread writes the buffer (group commit); who pushed waits for that. A failed write is final: the log takes nothing
//! any more, and nothing is acknowledged from memory.

mod files;
mod replay;
mod segment;
mod snapshot;
mod writer;

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;

use metrics::{Counter, Gauge, Histogram, Unit};
use parking_lot::Mutex;
use ringkit_runtime::Meter;

use crate::head::Head;

#[cfg(test)]
pub(crate) use self::files::faulty::Faulty;
pub(crate) use self::files::{Disk, Files};
pub(crate) use self::replay::{Replayed, replay};
#[cfg(test)]
use self::segment::Kind;
use self::snapshot::write_snapshot;
use self::writer::{Closing, Shared, Writer, create_segment};

/// Bytes that may wait for the writer before pushes are turned away.
const MAX_PENDING_BYTES: usize = 256 << 20;

/// Where the head's changes are recorded.
pub(crate) trait Journal {
    /// Takes whole records, in the order of calls; once [committed](Log::committed) up to the returned position they
    /// survive a crash. Does not wait.
    fn append(&self, frames: &[u8]) -> Result<u64, Failed>;
    /// The end of what was appended so far.
    fn position(&self) -> u64;
}

/// The log takes nothing any more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Failed(Arc<str>);

impl Failed {
    pub(crate) fn new(reason: &dyn fmt::Display) -> Self {
        Self(reason.to_string().into())
    }

    fn write(path: &Path, error: &std::io::Error) -> Self {
        Self::new(&format_args!("cannot write `{}`: {error}", path.display()))
    }

    fn closed() -> Self {
        Self::new(&"the write-ahead log is closed")
    }
}

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Failed {}

/// The log's metrics.
#[derive(Clone, Debug)]
pub(crate) struct Metrics {
    commit_seconds: Histogram,
    written_bytes: Counter,
    failed: Gauge,
    pub(crate) corruptions: Counter,
    pub(crate) torn_tails: Counter,
    pub(crate) replayed_records: Counter,
    pub(crate) snapshots: Counter,
    pub(crate) snapshot_failures: Counter,
}

impl Metrics {
    pub(crate) fn register(meter: &Meter) -> Self {
        let counter = |name, help| meter.counter(name, Unit::Count, help);
        Self {
            commit_seconds: meter.histogram(
                "ringkit_wal_commit_seconds",
                Unit::Seconds,
                "Time to write (and sync, if configured) one batch of the write-ahead log",
            ),
            written_bytes: meter.counter(
                "ringkit_wal_written_bytes_total",
                Unit::Bytes,
                "Bytes written to the write-ahead log",
            ),
            failed: meter.gauge(
                "ringkit_wal_failed",
                Unit::Count,
                "Whether the write-ahead log has failed and no samples are accepted",
            ),
            corruptions: counter(
                "ringkit_wal_corruptions_total",
                "Places where the log or a snapshot could not be read, and data was dropped by `wal_repair`",
            ),
            torn_tails: counter(
                "ringkit_wal_torn_tails_total",
                "Unfinished last batches that were cut off at start",
            ),
            replayed_records: counter("ringkit_wal_replayed_records_total", "Records read at start"),
            snapshots: counter("ringkit_wal_snapshots_total", "Snapshots written"),
            snapshot_failures: counter(
                "ringkit_wal_snapshot_failures_total",
                "Snapshots that could not be written",
            ),
        }
    }
}

/// Where and how to write.
#[derive(Clone)]
pub(crate) struct Options {
    pub(crate) files: Arc<dyn Files>,
    pub(crate) dir: PathBuf,
    /// Whether a commit waits for the disk.
    pub(crate) sync: bool,
    pub(crate) max_segment_bytes: u64,
    pub(crate) metrics: Metrics,
}

/// The log, open for appending. Dropping it is like killing the process: what is not committed may be lost.
pub(crate) struct Log {
    shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<()>>>,
    options: Options,
}

impl Log {
    /// Begins a new segment where the replay ended, and starts the writer. `owner` is dropped when the
    /// writer has ended: nothing is written after that.
    ///
    /// # Errors
    ///
    /// If the segment cannot be created.
    pub(crate) fn open(
        options: Options,
        replayed: &Replayed,
        owner: impl Send + 'static,
    ) -> std::io::Result<Self> {
        let output = create_segment(&*options.files, &options.dir, replayed.end)?;
        let shared = Arc::new(Shared::new(replayed.end, replayed.segments.clone()));
        let writer = Writer {
            shared: Arc::clone(&shared),
            files: Arc::clone(&options.files),
            dir: options.dir.clone(),
            sync: options.sync,
            max_segment_bytes: options.max_segment_bytes,
            metrics: options.metrics.clone(),
            output,
            segment_bytes: 0,
        };
        let run = move || {
            writer.run();
            drop(owner);
        };
        let thread = std::thread::Builder::new().name("wal-writer".to_owned()).spawn(run)?;
        Ok(Self { shared, thread: Mutex::new(Some(thread)), options })
    }

    /// Says whether a push may begin. Room is checked here: later the head has changed already.
    ///
    /// # Errors
    ///
    /// [`Failed`] if it may not; that need not be final.
    pub(crate) fn admit(&self) -> Result<(), Failed> {
        match self.shared.pending()? {
            pending if pending > MAX_PENDING_BYTES => Err(Failed::new(&"the write-ahead log cannot keep up")),
            _ => Ok(()),
        }
    }

    /// Why the log takes nothing any more, if so.
    pub(crate) fn failure(&self) -> Option<Failed> {
        self.shared.pending().err()
    }

    /// Waits until everything before `position` is committed. Cancel-safe.
    ///
    /// # Errors
    ///
    /// [`Failed`] if that will never be.
    pub(crate) async fn committed(&self, position: u64) -> Result<(), Failed> {
        let mut progress = self.shared.progress();
        let done =
            progress.wait_for(|progress| progress.committed >= position || progress.failed.is_some()).await;
        match done {
            Ok(progress) if progress.committed >= position => Ok(()),
            Ok(progress) => Err(progress.failed.clone().unwrap_or_else(Failed::closed)),
            Err(_) => Err(Failed::closed()),
        }
    }

    /// Begins a new segment and returns its position: everything appended before this call is in older ones.
    pub(crate) async fn rotate(&self) -> Result<u64, Failed> {
        let wanted = self.shared.rotate();
        let mut progress = self.shared.progress();
        let done =
            progress.wait_for(|progress| progress.segment >= wanted || progress.failed.is_some()).await;
        match done {
            Ok(progress) if progress.segment >= wanted => Ok(progress.segment),
            Ok(progress) => Err(progress.failed.clone().unwrap_or_else(Failed::closed)),
            Err(_) => Err(Failed::closed()),
        }
    }

    /// Writes what is in the buffer and ends the writer. Blocks.
    ///
    /// # Errors
    ///
    /// [`Failed`] if something could not be written.
    pub(crate) fn close(&self) -> Result<(), Failed> {
        let position = self.shared.position();
        self.shared.close(Closing::Flush);
        if let Some(thread) = self.thread.lock().take()
            && thread.join().is_err()
        {
            return Err(Failed::new(&"the write-ahead log's thread panicked"));
        }
        let progress = self.shared.progress().borrow().clone();
        if progress.committed >= position {
            Ok(())
        } else {
            Err(progress.failed.unwrap_or_else(Failed::closed))
        }
    }

    /// Ends the writer as if the process were killed: what is not written yet is lost.
    pub(crate) fn abandon(&self) {
        self.shared.close(Closing::Abandon);
    }

    /// Bytes of the log since the last snapshot, and number of segments.
    pub(crate) fn usage(&self) -> (u64, usize) {
        let (oldest, count) = self.shared.segments();
        (self.shared.position().saturating_sub(oldest), count)
    }

    /// Writes a snapshot of `head`, in which everything before `position` is recorded, and drops the log before it.
    /// `position` comes from [`rotate`](Self::rotate). Blocks.
    ///
    /// # Errors
    ///
    /// If the snapshot cannot be written; then everything is as it was.
    pub(crate) fn snapshot(&self, head: &Head, position: u64) -> std::io::Result<u64> {
        let bytes = write_snapshot(&*self.options.files, &self.options.dir, head, position)?;
        self.shared.forget_segments(position);
        Ok(bytes)
    }
}

impl Journal for Log {
    fn append(&self, frames: &[u8]) -> Result<u64, Failed> {
        self.shared.append(frames)
    }

    fn position(&self) -> u64 {
        self.shared.position()
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        self.abandon();
    }
}

#[cfg(test)]
mod tests;
