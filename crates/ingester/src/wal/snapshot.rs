//! Snapshots: all heads in one file, so that the log before it can go.

use std::io;
use std::path::Path;

use ringkit_tsdb::log::{put_chunk, put_series};

use super::files::{Files, Output};
use super::segment::{Kind, footer};
use crate::head::{Chunk, Head, Tenant};

/// Bytes gathered before they are written.
const WRITE_BYTES: usize = 1 << 20;

/// Name of a snapshot that is not finished.
pub(super) const TEMPORARY: &str = "snapshot.tmp";

/// Writes all heads to a snapshot at `position`, which must be the beginning of the current segment, and drops what it
/// replaces: older segments and snapshots.
///
/// A shard is written as it is when its turn comes, so the snapshot may hold samples that are in the log after
/// `position` too: replay recognises them by their time. Nothing older than `position` is missing.
///
/// Blocks. A shard is locked while its chunks are copied.
///
/// # Errors
///
/// If the snapshot cannot be written; then everything is as it was.
pub(crate) fn write_snapshot(files: &dyn Files, dir: &Path, head: &Head, position: u64) -> io::Result<u64> {
    let temporary = dir.join(TEMPORARY);
    let bytes = match write(files, &temporary, head, position) {
        Ok(bytes) => bytes,
        Err(error) => {
            // The disk may be full: give back what we took. If that fails too, the next start removes it.
            let _ = files.remove(&temporary);
            return Err(error);
        }
    };
    files.rename(&temporary, &dir.join(Kind::Snapshot.file_name(position)))?;
    files.sync_dir(dir)?;
    drop_older(files, dir, position)?;
    Ok(bytes)
}

/// Removes segments and snapshots that a snapshot at `position` replaces.
pub(super) fn drop_older(files: &dyn Files, dir: &Path, position: u64) -> io::Result<()> {
    let mut names = files.list(dir)?;
    // Oldest first: what is left after a crash in between has no gap.
    names.sort_unstable();
    for name in names {
        let older = |kind: Kind| kind.position(&name).is_some_and(|at| at < position);
        if older(Kind::Segment) || older(Kind::Snapshot) {
            files.remove(&dir.join(&name))?;
        }
    }
    files.sync_dir(dir)
}

fn write(files: &dyn Files, path: &Path, head: &Head, position: u64) -> io::Result<u64> {
    let mut out =
        Sink { output: files.create(path)?, buffer: Vec::with_capacity(2 * WRITE_BYTES), written: 0 };
    out.buffer.extend_from_slice(&Kind::Snapshot.header(position));
    let mut records = 0;
    for tenant in head.tenants() {
        records += write_tenant(&tenant, &mut out)?;
    }
    out.buffer.extend_from_slice(&footer(records));
    out.flush()?;
    out.output.sync()?;
    Ok(out.written)
}

/// A series as it was under the lock.
struct Copied {
    id: u64,
    labels: Vec<(String, String)>,
    chunks: Vec<Chunk>,
}

fn write_tenant(tenant: &Tenant, out: &mut Sink) -> io::Result<u64> {
    let mut records = 0;
    for shard in tenant.shards() {
        let copies: Vec<Copied> = {
            let shard = shard.read();
            let copy = |series| {
                let series: &crate::head::Series = series;
                let labels = shard.labels_of(series).map(|(name, value)| (name.to_owned(), value.to_owned()));
                Copied {
                    id: series.id,
                    labels: labels.collect(),
                    chunks: series.chunks(i64::MIN, i64::MAX).collect(),
                }
            };
            shard.iter().map(|(_, series)| copy(series)).collect()
        };
        for Copied { id, labels, chunks } in copies {
            let labels = labels.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes()));
            put_series(&mut out.buffer, id, &tenant.id, labels).map_err(io::Error::other)?;
            for chunk in &chunks {
                put_chunk(&mut out.buffer, id, &chunk.data).map_err(io::Error::other)?;
            }
            records += 1 + chunks.len() as u64;
            if out.buffer.len() >= WRITE_BYTES {
                out.flush()?;
            }
        }
    }
    Ok(records)
}

struct Sink {
    output: Box<dyn Output>,
    buffer: Vec<u8>,
    written: u64,
}

impl Sink {
    fn flush(&mut self) -> io::Result<()> {
        self.output.write_all(&self.buffer)?;
        self.written += self.buffer.len() as u64;
        self.buffer.clear();
        Ok(())
    }
}
