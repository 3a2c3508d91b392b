//! The ledger on disk: a header with the plan, then one record per event, each with its own checksum.
//!
//! ```text
//! header  "ringkit ledger 1"  seed u64  series u32  interval_ms u32  batch u32  special u16   crc32c u32
//! record  kind u8 (1 sent, 2 acknowledged)  first u32  count u32  timestamp i64               crc32c u32
//! ```
//!
//! All little-endian. Every record is one `write`, so a killed loader loses nothing that it acted upon.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};

use super::Batch;
use crate::error::Error;
use crate::plan::Plan;

const MAGIC: &[u8; 16] = b"ringkit ledger 1";
/// Length of the header.
pub const HEADER_BYTES: usize = 16 + 8 + 4 + 4 + 4 + 2 + 4;
/// Length of a record.
pub const RECORD_BYTES: usize = 1 + 4 + 4 + 8 + 4;

const SENT: u8 = 1;
const ACKED: u8 = 2;

/// One event of a ledger.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Record {
    /// A batch is about to be sent.
    Sent(Batch),
    /// A batch was acknowledged.
    Acked(Batch),
}

/// Writes records at the end of a ledger file.
#[derive(Debug)]
pub(super) struct Appender {
    path: PathBuf,
    file: File,
}

impl Appender {
    pub(super) fn append(&mut self, record: Record) -> Result<(), Error> {
        self.file.write_all(&encode(record)).map_err(|cause| io_error(&self.path, cause))
    }
}

/// Opens for appending; hands out the records found and cuts off a torn end.
pub(super) fn open(path: &Path, plan: &Plan, each: impl FnMut(Record)) -> Result<(Plan, Appender), Error> {
    let fail = |cause| io_error(path, cause);
    let mut options = OpenOptions::new();
    let mut file = options.read(true).append(true).create(true).open(path).map_err(fail)?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes).map_err(fail)?;
    let found = if bytes.len() < HEADER_BYTES && encode_header(plan).starts_with(&bytes) {
        // New, or killed while the header was written.
        file.set_len(0).map_err(fail)?;
        file.write_all(&encode_header(plan)).map_err(fail)?;
        *plan
    } else {
        let found = decode_header(path, &bytes)?;
        let whole = records(path, &bytes, each)?;
        file.set_len(whole as u64).map_err(fail)?;
        found
    };
    Ok((found, Appender { path: path.to_owned(), file }))
}

/// Reads all records, leaving the file as it is.
pub(super) fn read(path: &Path, mut each: impl FnMut(&Plan, Record)) -> Result<Plan, Error> {
    let bytes = std::fs::read(path).map_err(|cause| io_error(path, cause))?;
    let plan = decode_header(path, &bytes)?;
    records(path, &bytes, |record| each(&plan, record))?;
    Ok(plan)
}

/// Hands out every whole record and returns where the last one ends.
fn records(path: &Path, bytes: &[u8], mut each: impl FnMut(Record)) -> Result<usize, Error> {
    let mut offset = HEADER_BYTES;
    while let Some(record) = bytes.get(offset..offset + RECORD_BYTES) {
        match decode(record) {
            Ok(record) => each(record),
            Err(problem) => {
                let rest = &bytes[offset..];
                // The last record, or a tail of zeros as a crashed file system leaves it, may be bad: it was never relied upon.
                if rest.len() < 2 * RECORD_BYTES || rest[RECORD_BYTES..].iter().all(|byte| *byte == 0) {
                    break;
                }
                return Err(Error::LedgerCorrupt { path: path.to_owned(), offset: offset as u64, problem });
            }
        }
        offset += RECORD_BYTES;
    }
    Ok(offset)
}

fn encode(record: Record) -> [u8; RECORD_BYTES] {
    let (kind, Batch { first, count, timestamp_ms }) = match record {
        Record::Sent(batch) => (SENT, batch),
        Record::Acked(batch) => (ACKED, batch),
    };
    let mut bytes = [0; RECORD_BYTES];
    bytes[0] = kind;
    bytes[1..5].copy_from_slice(&first.to_le_bytes());
    bytes[5..9].copy_from_slice(&count.to_le_bytes());
    bytes[9..17].copy_from_slice(&timestamp_ms.to_le_bytes());
    let crc = crc32c::crc32c(&bytes[..17]);
    bytes[17..].copy_from_slice(&crc.to_le_bytes());
    bytes
}

fn decode(bytes: &[u8]) -> Result<Record, &'static str> {
    let (mut body, crc) = bytes.split_at(RECORD_BYTES - 4);
    if crc32c::crc32c(body).to_le_bytes() != crc {
        return Err("checksum mismatch");
    }
    let [kind] = take(&mut body).ok_or("short record")?;
    let first = take(&mut body).map(u32::from_le_bytes).ok_or("short record")?;
    let count = take(&mut body).map(u32::from_le_bytes).ok_or("short record")?;
    let timestamp_ms = take(&mut body).map(i64::from_le_bytes).ok_or("short record")?;
    let batch = Batch { first, count, timestamp_ms };
    match kind {
        SENT => Ok(Record::Sent(batch)),
        ACKED => Ok(Record::Acked(batch)),
        _ => Err("unknown kind of record"),
    }
}

fn encode_header(plan: &Plan) -> Vec<u8> {
    let Plan { seed, series, interval_ms, batch, special_permille } = plan;
    let mut bytes = MAGIC.to_vec();
    bytes.extend_from_slice(&seed.to_le_bytes());
    for number in [series, interval_ms, batch] {
        bytes.extend_from_slice(&number.to_le_bytes());
    }
    bytes.extend_from_slice(&special_permille.to_le_bytes());
    let crc = crc32c::crc32c(&bytes);
    bytes.extend_from_slice(&crc.to_le_bytes());
    bytes
}

fn decode_header(path: &Path, bytes: &[u8]) -> Result<Plan, Error> {
    let corrupt = |problem| Error::LedgerCorrupt { path: path.to_owned(), offset: 0, problem };
    let header =
        bytes.get(..HEADER_BYTES).ok_or_else(|| corrupt("no header: the file is no ledger or empty"))?;
    let (body, crc) = header.split_at(HEADER_BYTES - 4);
    let mut rest = body.strip_prefix(MAGIC).ok_or_else(|| corrupt("the file is no ledger"))?;
    if crc32c::crc32c(body).to_le_bytes() != crc {
        return Err(corrupt("checksum of the header does not match"));
    }
    let plan = (|| {
        Some(Plan {
            seed: u64::from_le_bytes(take(&mut rest)?),
            series: u32::from_le_bytes(take(&mut rest)?),
            interval_ms: u32::from_le_bytes(take(&mut rest)?),
            batch: u32::from_le_bytes(take(&mut rest)?),
            special_permille: u16::from_le_bytes(take(&mut rest)?),
        })
    })();
    plan.and_then(|plan: Plan| plan.checked().ok())
        .ok_or_else(|| corrupt("the header holds an impossible plan"))
}

fn take<const N: usize>(bytes: &mut &[u8]) -> Option<[u8; N]> {
    let (head, tail) = bytes.split_first_chunk()?;
    *bytes = tail;
    Some(*head)
}

fn io_error(path: &Path, cause: io::Error) -> Error {
    Error::LedgerIo { path: path.to_owned(), cause }
}
