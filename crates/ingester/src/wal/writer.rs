//! The thread that writes what has piled up in the log's buffer: one write (and one sync) for everybody who waits.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use parking_lot::{Condvar, Mutex};
use tokio::sync::watch;

use super::files::{Files, Output};
use super::segment::{HEADER_LEN, Kind, batch_header};
use super::{Failed, Metrics};

/// What pushes and the writer share.
pub(super) struct Shared {
    state: Mutex<State>,
    wake: Condvar,
    progress: watch::Sender<Progress>,
    /// Positions of all segments, oldest first.
    segments: Mutex<Vec<u64>>,
}

/// The buffer and what is wanted of the writer.
struct State {
    buffer: Vec<u8>,
    /// Where the next record begins.
    position: u64,
    rotate: bool,
    closing: Option<Closing>,
    failed: Option<Failed>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Closing {
    /// Write what is in the buffer first.
    Flush,
    /// As if the process were killed.
    Abandon,
}

/// How far the writer has come.
#[derive(Clone, Debug, Default)]
pub(super) struct Progress {
    /// Everything before this position is written (and synced, if the log syncs).
    pub(super) committed: u64,
    /// Where the current segment begins.
    pub(super) segment: u64,
    pub(super) failed: Option<Failed>,
}

impl Shared {
    /// A log that goes on at `position`, after `segments`.
    pub(super) fn new(position: u64, mut segments: Vec<u64>) -> Self {
        segments.retain(|&segment| segment != position);
        segments.push(position);
        let state = State { buffer: Vec::new(), position, rotate: false, closing: None, failed: None };
        let progress = Progress { committed: position, segment: position, failed: None };
        Self {
            state: Mutex::new(state),
            wake: Condvar::new(),
            progress: watch::Sender::new(progress),
            segments: Mutex::new(segments),
        }
    }

    /// Puts whole records into the buffer and says where they end.
    pub(super) fn append(&self, frames: &[u8]) -> Result<u64, Failed> {
        let mut state = self.state.lock();
        if let Some(failed) = &state.failed {
            return Err(failed.clone());
        }
        if state.closing.is_some() {
            return Err(Failed::closed());
        }
        let first = state.buffer.is_empty();
        if first {
            let header = batch_header(state.position);
            state.buffer.extend_from_slice(&header);
            state.position += header.len() as u64;
        }
        state.buffer.extend_from_slice(frames);
        state.position += frames.len() as u64;
        let end = state.position;
        drop(state);
        if first {
            self.wake.notify_one();
        }
        Ok(end)
    }

    pub(super) fn position(&self) -> u64 {
        self.state.lock().position
    }

    /// How many bytes wait for the writer, or why none may.
    pub(super) fn pending(&self) -> Result<usize, Failed> {
        let state = self.state.lock();
        match &state.failed {
            Some(failed) => Err(failed.clone()),
            None if state.closing.is_some() => Err(Failed::closed()),
            None => Ok(state.buffer.len()),
        }
    }

    /// Position of the oldest segment, and how many there are.
    pub(super) fn segments(&self) -> (u64, usize) {
        let segments = self.segments.lock();
        (segments.first().copied().unwrap_or_default(), segments.len())
    }

    /// Segments before `position` are gone.
    pub(super) fn forget_segments(&self, position: u64) {
        self.segments.lock().retain(|&segment| segment >= position);
    }

    /// Asks for a new segment and says from which position on it counts as done.
    pub(super) fn rotate(&self) -> u64 {
        let mut state = self.state.lock();
        state.rotate = true;
        let position = state.position;
        drop(state);
        self.wake.notify_one();
        position
    }

    pub(super) fn close(&self, closing: Closing) {
        self.state.lock().closing.get_or_insert(closing);
        self.wake.notify_one();
    }

    pub(super) fn progress(&self) -> watch::Receiver<Progress> {
        self.progress.subscribe()
    }
}

/// The writer's own side.
pub(super) struct Writer {
    pub(super) shared: Arc<Shared>,
    pub(super) files: Arc<dyn Files>,
    pub(super) dir: PathBuf,
    pub(super) sync: bool,
    pub(super) max_segment_bytes: u64,
    pub(super) metrics: Metrics,
    pub(super) output: Box<dyn Output>,
    pub(super) segment_bytes: u64,
}

impl Writer {
    /// Writes until the log is closed or a write fails.
    pub(super) fn run(mut self) {
        let mut batch = Vec::new();
        loop {
            let mut state = self.shared.state.lock();
            while state.buffer.is_empty() && !state.rotate && state.closing.is_none() {
                self.shared.wake.wait(&mut state);
            }
            if state.closing == Some(Closing::Abandon) {
                let failed = Failed::closed();
                state.failed = Some(failed.clone());
                drop(state);
                self.shared.progress.send_modify(|progress| progress.failed = Some(failed));
                return;
            }
            batch.clear();
            std::mem::swap(&mut batch, &mut state.buffer);
            let rotate = std::mem::take(&mut state.rotate);
            let closing = state.closing.is_some();
            let position = state.position;
            drop(state);
            if let Err(failed) = self.commit(&batch, position, rotate) {
                self.shared.state.lock().failed = Some(failed.clone());
                self.metrics.failed.set(1.0);
                tracing::error!(error = %failed, "the write-ahead log has failed: no more samples are accepted until this process is restarted on a healthy disk");
                self.shared.progress.send_modify(|progress| progress.failed = Some(failed));
                return;
            }
            if closing {
                // Nothing was appended after closing.
                let failed = Failed::closed();
                self.shared.progress.send_modify(|progress| progress.failed = Some(failed));
                return;
            }
        }
    }

    /// Writes a batch that ends at `end`, then begins a new segment if asked to.
    fn commit(&mut self, batch: &[u8], end: u64, rotate: bool) -> Result<(), Failed> {
        let started = Instant::now();
        let begin = end - batch.len() as u64;
        let full = self.segment_bytes > 0 && self.segment_bytes + batch.len() as u64 > self.max_segment_bytes;
        if full && !batch.is_empty() {
            self.begin_segment(begin)?;
        }
        if !batch.is_empty() {
            let name = || self.dir.join(Kind::Segment.file_name(begin - self.segment_bytes));
            self.output.write_all(batch).map_err(|error| Failed::write(&name(), &error))?;
            if self.sync {
                self.output.sync().map_err(|error| Failed::write(&name(), &error))?;
            }
            self.segment_bytes += batch.len() as u64;
            self.metrics.written_bytes.increment(batch.len() as u64);
            self.metrics.commit_seconds.record(started.elapsed().as_secs_f64());
        }
        if rotate && self.segment_bytes > 0 {
            self.begin_segment(end)?;
        }
        let segment = end - self.segment_bytes;
        self.shared.progress.send_modify(|progress| {
            progress.committed = end;
            progress.segment = segment;
        });
        Ok(())
    }

    fn begin_segment(&mut self, position: u64) -> Result<(), Failed> {
        let path = self.dir.join(Kind::Segment.file_name(position));
        self.output = create_segment(&*self.files, &self.dir, position)
            .map_err(|error| Failed::write(&path, &error))?;
        self.segment_bytes = 0;
        self.shared.segments.lock().push(position);
        Ok(())
    }
}

/// Creates an empty segment so that it survives a crash.
pub(super) fn create_segment(
    files: &dyn Files,
    dir: &std::path::Path,
    position: u64,
) -> io::Result<Box<dyn Output>> {
    let mut output = files.create(&dir.join(Kind::Segment.file_name(position)))?;
    output.write_all(&Kind::Segment.header(position))?;
    output.sync()?;
    files.sync_dir(dir)?;
    debug_assert_eq!(Kind::Segment.header(position).len(), HEADER_LEN);
    Ok(output)
}
