//! Reads snapshot and log back into a head.
//!
//! What a crash leaves behind is an unfinished last batch: it was never acknowledged, and is cut off. Anything else
//! that cannot be read is damage to acknowledged data, and refused unless repair is asked for.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use hashbrown::HashMap;
use ringkit_tsdb::log::{Decoded, Record, decode};

use super::Metrics;
use super::files::Files;
use super::segment::{BATCH_LEN, HEADER_LEN, Kind, footer, is_batch, next_batch};
use super::snapshot::{TEMPORARY, drop_older};
use crate::head::{Canonical, Head, Slot, Tenant};

/// Why the log cannot be replayed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("cannot read `{}`: {cause}", path.display())]
    Read { path: PathBuf, cause: io::Error },
    #[error(
        "`{}` is damaged at byte {offset}: {reason}. Acknowledged samples would be missing: restore the directory, \
         remove it to start as a new ingester, or set `blocks_storage.tsdb.wal_repair: true` to drop what cannot be read",
        path.display()
    )]
    Damaged { path: PathBuf, offset: usize, reason: String },
    #[error("`{}` holds a record of unknown type {kind}: it was written by a newer version", path.display())]
    Newer { path: PathBuf, kind: u8 },
    #[error("replay was stopped")]
    Stopped,
}

/// What was found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Replayed {
    /// Where the log goes on.
    pub(crate) end: u64,
    /// Positions of the segments that were read, oldest first.
    pub(crate) segments: Vec<u64>,
    pub(crate) records: u64,
    /// Samples appended from the log; those of the snapshot are not counted.
    pub(crate) samples: u64,
    /// Bytes of an unfinished last batch that were cut off.
    pub(crate) torn_bytes: u64,
    /// Places that could not be read and were skipped.
    pub(crate) damages: u64,
    /// Whether there was any log or snapshot.
    pub(crate) found: bool,
}

/// Reads everything in `dir` into `head`, which must be empty, and cuts off an unfinished last batch.
///
/// With `repair`, damage is skipped up to the next batch and counted: write a snapshot before going on, so that the
/// next start does not find it again. `stop` ends the work early.
///
/// # Errors
///
/// [`Error`]; the head is to be thrown away then.
pub(crate) fn replay(
    files: &dyn Files,
    dir: &Path,
    repair: bool,
    head: &Head,
    metrics: &Metrics,
    stop: &AtomicBool,
) -> Result<Replayed, Error> {
    let mut reader = Replay {
        files,
        dir,
        repair,
        head,
        metrics,
        stop,
        series: HashMap::new(),
        tenants: HashMap::new(),
        done: Replayed::default(),
    };
    reader.run()?;
    metrics.replayed_records.increment(reader.done.records);
    Ok(reader.done)
}

struct Replay<'r> {
    files: &'r dyn Files,
    dir: &'r Path,
    repair: bool,
    head: &'r Head,
    metrics: &'r Metrics,
    stop: &'r AtomicBool,
    series: HashMap<u64, Place>,
    tenants: HashMap<String, Arc<Tenant>>,
    done: Replayed,
}

/// Where a series of the log is in the head.
struct Place {
    tenant: Arc<Tenant>,
    shard: usize,
    slot: Slot,
}

/// Why a file could not be read to its end.
struct Fault {
    offset: usize,
    reason: String,
    newer: Option<u8>,
}

impl Fault {
    fn new(offset: usize, reason: impl Into<String>) -> Self {
        Self { offset, reason: reason.into(), newer: None }
    }
}

impl Replay<'_> {
    fn run(&mut self) -> Result<(), Error> {
        let names =
            self.files.list(self.dir).map_err(|cause| Error::Read { path: self.dir.to_owned(), cause })?;
        if names.iter().any(|name| name == TEMPORARY) {
            // A snapshot that was not finished; the log it was to replace is all there.
            self.io(TEMPORARY, Files::remove)?;
        }
        let positions = |kind: Kind| {
            let mut found: Vec<u64> = names.iter().filter_map(|name| kind.position(name)).collect();
            found.sort_unstable();
            found
        };
        let (snapshots, mut segments) = (positions(Kind::Snapshot), positions(Kind::Segment));
        self.done.found = !snapshots.is_empty() || !segments.is_empty();
        let mut expected = 0;
        if let Some(&position) = snapshots.last() {
            self.read_snapshot(position)?;
            expected = position;
            // A crash may have come between the snapshot and the end of what it replaces.
            self.io("", |files, dir| drop_older(files, dir, position))?;
            segments.retain(|&segment| segment >= position);
        }
        let last = segments.last().copied();
        self.done.segments.clone_from(&segments);
        for base in segments {
            if base != expected {
                let reason = format!("the log before position {base} is missing from position {expected} on");
                self.damaged(&Kind::Segment.file_name(base), Fault::new(0, reason))?;
            }
            expected = self.read_segment(base, Some(base) == last)?;
        }
        if self.done.found && last.is_none() {
            self.damaged(
                &Kind::Segment.file_name(expected),
                Fault::new(0, "the log after the snapshot is missing"),
            )?;
        }
        self.done.end = expected;
        Ok(())
    }

    fn io<T>(&self, name: &str, call: impl FnOnce(&dyn Files, &Path) -> io::Result<T>) -> Result<T, Error> {
        let path = if name.is_empty() { self.dir.to_owned() } else { self.dir.join(name) };
        call(self.files, &path).map_err(|cause| Error::Read { path, cause })
    }

    /// Counts damage, or refuses to go on.
    fn damaged(&mut self, name: &str, fault: Fault) -> Result<(), Error> {
        let path = self.dir.join(name);
        let Fault { offset, reason, newer } = fault;
        if let Some(kind) = newer {
            return Err(Error::Newer { path, kind });
        }
        if !self.repair {
            return Err(Error::Damaged { path, offset, reason });
        }
        tracing::error!(path = %path.display(), offset, reason, "dropped a damaged part of the write-ahead log");
        self.metrics.corruptions.increment(1);
        self.done.damages += 1;
        Ok(())
    }

    fn read_snapshot(&mut self, position: u64) -> Result<(), Error> {
        let name = Kind::Snapshot.file_name(position);
        let bytes = self.io(&name, Files::read)?;
        if let Err(fault) = self.read_snapshot_records(&bytes, position)? {
            self.damaged(&name, fault)?;
        }
        Ok(())
    }

    fn read_snapshot_records(&mut self, bytes: &[u8], position: u64) -> Result<Result<(), Fault>, Error> {
        if !bytes.starts_with(&Kind::Snapshot.header(position)) {
            return Ok(Err(Fault::new(0, "not a snapshot of this position")));
        }
        let mut offset = HEADER_LEN;
        let mut records = 0;
        loop {
            let rest = bytes.get(offset..).unwrap_or_default();
            if rest == footer(records) {
                return Ok(Ok(()));
            }
            match self.read_record(rest, offset) {
                Ok(len) => offset += len,
                Err(fault) => return Ok(Err(fault)),
            }
            records += 1;
            self.check_stop()?;
        }
    }

    /// Reads one segment and returns the position where it ends.
    fn read_segment(&mut self, base: u64, last: bool) -> Result<u64, Error> {
        let name = Kind::Segment.file_name(base);
        let bytes = self.io(&name, Files::read)?;
        let header = Kind::Segment.header(base);
        let Some(body) = bytes.strip_prefix(&header) else {
            // The header is synced before the first batch is written, so only a crash right then cuts it.
            let unfinished =
                bytes.len() <= HEADER_LEN && (header.starts_with(&bytes) || bytes.iter().all(|b| *b == 0));
            if last && unfinished {
                self.torn(&name, bytes.len() as u64);
            } else {
                self.damaged(&name, Fault::new(0, "not a segment of this position"))?;
            }
            return Ok(base);
        };
        let mut at = 0;
        while at < body.len() {
            let fault = match self.read_batch(body, base, at)? {
                Ok(len) => {
                    at += len;
                    continue;
                }
                Err(fault) => fault,
            };
            let resume = next_batch(body, base, fault.offset + 1);
            if last && resume.is_none() && fault.newer.is_none() {
                // Of the last batch nobody was told that it is safe.
                let keep = HEADER_LEN + fault.offset;
                self.torn(&name, (bytes.len() - keep) as u64);
                self.io(&name, |files, path| files.truncate(path, keep as u64))?;
                return Ok(base + fault.offset as u64);
            }
            self.damaged(&name, Fault { offset: HEADER_LEN + fault.offset, ..fault })?;
            at = resume.unwrap_or(body.len());
        }
        Ok(base + body.len() as u64)
    }

    fn torn(&mut self, name: &str, bytes: u64) {
        tracing::warn!(file = name, bytes, "cut off an unfinished write at the end of the write-ahead log");
        self.metrics.torn_tails.increment(1);
        self.done.torn_bytes += bytes;
    }

    /// Reads the batch at `at` and returns its length.
    fn read_batch(&mut self, body: &[u8], base: u64, at: usize) -> Result<Result<usize, Fault>, Error> {
        let batch = body.get(at..).unwrap_or_default();
        if !is_batch(batch, base + at as u64) {
            return Ok(Err(Fault::new(at, "no batch begins here")));
        }
        let mut len = BATCH_LEN;
        loop {
            let rest = batch.get(len..).unwrap_or_default();
            let offset = at + len;
            if rest.is_empty() || is_batch(rest, base + offset as u64) {
                return Ok(Ok(len));
            }
            match self.read_record(rest, offset) {
                Ok(record) => len += record,
                Err(fault) => return Ok(Err(fault)),
            }
            self.check_stop()?;
        }
    }

    fn check_stop(&self) -> Result<(), Error> {
        if self.stop.load(Ordering::Relaxed) { Err(Error::Stopped) } else { Ok(()) }
    }

    /// Applies the record at the front of `bytes` and returns its length.
    fn read_record(&mut self, bytes: &[u8], offset: usize) -> Result<usize, Fault> {
        match decode(bytes) {
            Decoded::Record(record, len) => {
                self.apply(&record).map_err(|reason| Fault::new(offset, reason))?;
                self.done.records += 1;
                Ok(len)
            }
            Decoded::Incomplete(_) => Err(Fault::new(offset, "the file ends inside a record")),
            Decoded::Corrupt(damage) => Err(Fault::new(offset, damage.to_string())),
            Decoded::Unsupported(kind) => Err(Fault { offset, reason: String::new(), newer: Some(kind) }),
        }
    }

    fn apply(&mut self, record: &Record<'_>) -> Result<(), String> {
        match record {
            Record::Series { id, tenant, labels } => {
                let form = Canonical::of(labels.clone()).map_err(|error| error.to_string())?;
                let tenant = self.tenant(tenant);
                let (shard, slot) = tenant.restore_series(*id, &form);
                self.head.totals.take_id(*id);
                self.series.insert(*id, Place { tenant, shard, slot });
            }
            Record::Samples(samples) => {
                for (id, time, value) in samples.clone() {
                    // A series that had expired when the snapshot was taken is not there any more.
                    let Some(Place { tenant, shard, slot }) = self.series.get(&id) else { continue };
                    self.done.samples += u64::from(tenant.restore_sample(*shard, *slot, time, value));
                }
            }
            Record::Chunk { id, data } => {
                let Some(Place { tenant, shard, slot }) = self.series.get(id) else {
                    return Err(format!("chunk of series {id}, which is not there"));
                };
                tenant.restore_chunk(*shard, *slot, data).map_err(|error| error.to_string())?;
            }
            Record::TenantRemoved { tenant } => {
                self.tenants.remove(*tenant);
                self.head.forget_tenant(tenant);
                self.series.retain(|_, place| *place.tenant.id != **tenant);
            }
            _ => return Err("record of a kind that is not expected here".to_owned()),
        }
        Ok(())
    }

    fn tenant(&mut self, id: &str) -> Arc<Tenant> {
        if let Some(tenant) = self.tenants.get(id) {
            return Arc::clone(tenant);
        }
        let tenant = self.head.restore_tenant(id);
        self.tenants.insert(id.to_owned(), Arc::clone(&tenant));
        tenant
    }
}
