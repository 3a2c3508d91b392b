//! How segments and snapshots are laid out around the records, which are `ringkit_tsdb::log`'s.
//!
//! A *position* counts the bytes of the log from its beginning, over all segments, without their headers.
//!
//! | file | content |
//! |---|---|
//! | `<position>.wal` | header; batches: `RKBATCH\n`, position u64 LE, records. No record begins like a batch: its length would be impossible |
//! | `<position>.snapshot` | header; series and chunk records; footer: `RKSNAPE\n`, number of records u64 LE, crc32c of both |
//!
//! A header is a magic of eight bytes, the position u64 LE, and the crc32c of both. That a batch begins means that the
//! one before it was written in full, and synced if the log syncs.

/// Bytes in front of a segment's first batch and of a snapshot's first record.
pub(crate) const HEADER_LEN: usize = 20;

/// Bytes in front of a batch's first record.
pub(crate) const BATCH_LEN: usize = 16;

const BATCH_MAGIC: [u8; 8] = *b"RKBATCH\n";

/// What a file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    Segment,
    Snapshot,
}

impl Kind {
    fn magic(self) -> [u8; 8] {
        match self {
            Self::Segment => *b"RKWAL01\n",
            Self::Snapshot => *b"RKSNAP1\n",
        }
    }

    fn suffix(self) -> &'static str {
        match self {
            Self::Segment => ".wal",
            Self::Snapshot => ".snapshot",
        }
    }

    /// The name of the file that begins at a position. Names sort by position.
    pub(crate) fn file_name(self, position: u64) -> String {
        format!("{position:020}{}", self.suffix())
    }

    /// The position in a file name of this kind.
    pub(crate) fn position(self, file_name: &str) -> Option<u64> {
        let digits = file_name.strip_suffix(self.suffix())?;
        digits.parse().ok().filter(|&position| self.file_name(position) == file_name)
    }

    /// The header of a file.
    pub(crate) fn header(self, position: u64) -> [u8; HEADER_LEN] {
        sealed(self.magic(), position)
    }
}

/// The end of a complete snapshot.
pub(crate) fn footer(num_records: u64) -> [u8; HEADER_LEN] {
    sealed(*b"RKSNAPE\n", num_records)
}

fn sealed(magic: [u8; 8], number: u64) -> [u8; HEADER_LEN] {
    let mut out = [0; HEADER_LEN];
    let (front, crc) = out.split_at_mut(BATCH_LEN);
    front.copy_from_slice(&tagged(magic, number));
    crc.copy_from_slice(&crc32c::crc32c(front).to_le_bytes());
    out
}

fn tagged(magic: [u8; 8], number: u64) -> [u8; BATCH_LEN] {
    let mut out = [0; BATCH_LEN];
    let (front, back) = out.split_at_mut(8);
    front.copy_from_slice(&magic);
    back.copy_from_slice(&number.to_le_bytes());
    out
}

/// What every batch begins with.
pub(crate) fn batch_header(position: u64) -> [u8; BATCH_LEN] {
    tagged(BATCH_MAGIC, position)
}

/// Whether a batch begins at the front of `bytes`, which lie at `position`.
pub(crate) fn is_batch(bytes: &[u8], position: u64) -> bool {
    bytes.starts_with(&batch_header(position))
}

/// Whether a batch begins anywhere in `body` after `from`; `body` lies at `base`.
pub(crate) fn next_batch(body: &[u8], base: u64, from: usize) -> Option<usize> {
    let mut at = from;
    loop {
        let rest = body.get(at..)?;
        let step = rest.windows(BATCH_MAGIC.len()).position(|window| window == BATCH_MAGIC)?;
        at += step;
        if is_batch(body.get(at..)?, base + at as u64) {
            return Some(at);
        }
        at += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_sort_by_position_and_nothing_else_is_taken_for_one() {
        let name = Kind::Segment.file_name(4096);
        assert_eq!(name, "00000000000000004096.wal");
        assert_eq!(Kind::Segment.position(&name), Some(4096));
        assert_eq!(Kind::Snapshot.position(&name), None);
        for other in ["4096.wal", "+0000000000000004096.wal", "x.wal", "00000000000000004096.wal.tmp"] {
            assert_eq!(Kind::Segment.position(other), None, "{other}");
        }
    }

    #[test]
    fn a_batch_is_found_only_where_it_says_it_is() {
        let mut body = vec![0; 50];
        body.extend_from_slice(&batch_header(7));
        body.extend_from_slice(&batch_header(1000 + 66));
        assert_eq!(next_batch(&body, 1000, 0), Some(66));
        assert_eq!(next_batch(&body, 1000, 67), None);
        assert_eq!(next_batch(&body, 0, 0), None);
    }

    #[test]
    fn no_record_begins_like_a_batch() {
        let front = batch_header(0);
        let len = u32::from_le_bytes([front[0], front[1], front[2], front[3]]) as usize;
        assert!(len > ringkit_tsdb::log::MAX_CONTENT_BYTES);
    }
}
