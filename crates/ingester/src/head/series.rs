//! One series: its labels, closed chunks and the open one.

use bytes::Bytes;
use ringkit_tsdb::XorChunk;

use super::symbols::Symbol;

/// A chunk is closed at this many samples, as in Prometheus.
const MAX_SAMPLES: usize = 120;

/// A chunk does not reach over a multiple of this many milliseconds, so that sparse series can expire too.
const CHUNK_RANGE_MS: i64 = 2 * 60 * 60 * 1000;

/// A chunk that no longer changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Chunk {
    /// Timestamps of the first and last sample, in milliseconds.
    pub(crate) min: i64,
    pub(crate) max: i64,
    /// Prometheus' XOR encoding.
    pub(crate) data: Bytes,
}

/// What becomes of a sample.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It is newer than all others.
    New,
    /// It is there already, bit for bit.
    Duplicate,
    /// Another value is there for its time.
    OtherValue { existing: u64 },
    /// There are newer samples.
    OutOfOrder,
}

/// A series with at least one sample, once it is filled.
#[derive(Debug)]
pub(crate) struct Series {
    /// Of the canonical form of the labels.
    pub(crate) hash: u64,
    /// What the log calls it. Never given to another series.
    pub(crate) id: u64,
    /// Name and value, in the order of the names' texts.
    pub(crate) labels: Box<[(Symbol, Symbol)]>,
    closed: Vec<Chunk>,
    open: XorChunk,
}

impl Series {
    pub(crate) fn new(hash: u64, id: u64, labels: Box<[(Symbol, Symbol)]>) -> Self {
        Self { hash, id, labels, closed: Vec::new(), open: XorChunk::new() }
    }

    /// Says whether a sample may be appended.
    pub(crate) fn check(&self, time: i64, value: f64) -> Verdict {
        let (last, existing) = match self.open.last() {
            Some((last, existing)) => (last, existing.to_bits()),
            None => match self.closed.last() {
                Some(chunk) if chunk.max >= time => return self.look_back(time, value),
                _ => return Verdict::New,
            },
        };
        match time.cmp(&last) {
            std::cmp::Ordering::Greater => Verdict::New,
            std::cmp::Ordering::Equal if existing == value.to_bits() => Verdict::Duplicate,
            std::cmp::Ordering::Equal => Verdict::OtherValue { existing },
            std::cmp::Ordering::Less => self.look_back(time, value),
        }
    }

    /// A repeated request may hold several samples of a series: all but the last are older than what is stored, and
    /// repeating is harmless. Costs reading one chunk.
    fn look_back(&self, time: i64, value: f64) -> Verdict {
        let after = self.closed.partition_point(|chunk| chunk.max < time);
        let samples = match self.closed.get(after) {
            Some(chunk) => ringkit_tsdb::xor::iter(&chunk.data),
            None => self.open.iter(),
        };
        let found =
            samples.map_while(Result::ok).take_while(|(at, _)| *at <= time).find(|(at, _)| *at == time);
        match found {
            Some((_, existing)) if existing.to_bits() == value.to_bits() => Verdict::Duplicate,
            Some((_, existing)) => Verdict::OtherValue { existing: existing.to_bits() },
            None => Verdict::OutOfOrder,
        }
    }

    /// Appends a sample that [`check`](Self::check) called new. Tells whether a chunk was closed before it.
    pub(crate) fn append(&mut self, time: i64, value: f64) -> bool {
        let full = self.open.num_samples() >= MAX_SAMPLES
            || self.open.min_time().is_some_and(|min| other_range(min, time));
        if full {
            self.close_chunk();
        }
        if self.open.append(time, value).is_err() {
            // Cannot be: a chunk can count 65 535 samples.
            self.close_chunk();
            let _ = self.open.append(time, value);
        }
        full
    }

    fn close_chunk(&mut self) {
        let chunk = std::mem::take(&mut self.open);
        if let (Some(min), Some(max)) = (chunk.min_time(), chunk.max_time()) {
            self.closed.push(Chunk { min, max, data: chunk.into_bytes() });
        }
    }

    /// Takes up the chunks of a snapshot, oldest first; the last one is continued.
    ///
    /// # Errors
    ///
    /// If a chunk cannot be read.
    pub(crate) fn restore(&mut self, chunk: &[u8]) -> Result<(), ringkit_tsdb::xor::Error> {
        let chunk = XorChunk::from_bytes(chunk)?;
        self.close_chunk();
        self.open = chunk;
        Ok(())
    }

    /// The time of the newest sample.
    pub(crate) fn last_time(&self) -> Option<i64> {
        self.open.max_time().or_else(|| self.closed.last().map(|chunk| chunk.max))
    }

    /// Whether there may be samples between two times, both inclusive. Looks at chunks, not at samples.
    pub(crate) fn overlaps(&self, from: i64, to: i64) -> bool {
        let open = self.open.min_time().is_some_and(|min| min <= to)
            && self.open.max_time().is_some_and(|max| max >= from);
        open || self.closed.iter().any(|chunk| chunk.min <= to && chunk.max >= from)
    }

    /// The chunks that overlap a range of time, both ends inclusive; the open one is copied.
    pub(crate) fn chunks(&self, from: i64, to: i64) -> impl Iterator<Item = Chunk> {
        let open = self.open.min_time().zip(self.open.max_time());
        let open = open.map(|(min, max)| Chunk { min, max, data: Bytes::copy_from_slice(self.open.bytes()) });
        self.closed.iter().cloned().chain(open).filter(move |chunk| chunk.min <= to && chunk.max >= from)
    }

    pub(crate) fn num_chunks(&self) -> usize {
        self.closed.len() + usize::from(!self.open.is_empty())
    }

    /// Reads the counts in the chunks' headers.
    pub(crate) fn num_samples(&self) -> usize {
        let closed = self.closed.iter().map(|chunk| ringkit_tsdb::xor::iter(&chunk.data).announced());
        closed.sum::<usize>() + self.open.num_samples()
    }

    /// Drops chunks that end before `bound` and says how many.
    pub(crate) fn expire(&mut self, bound: i64) -> usize {
        let expired = self.closed.partition_point(|chunk| chunk.max < bound);
        if expired > 0 {
            self.closed.drain(..expired);
            self.closed.shrink_to_fit();
        }
        expired
    }
}

fn other_range(first: i64, time: i64) -> bool {
    first.div_euclid(CHUNK_RANGE_MS) != time.div_euclid(CHUNK_RANGE_MS)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn series(times: impl IntoIterator<Item = i64>) -> Series {
        let mut series = Series::new(1, 1, Box::default());
        for time in times {
            assert_eq!(series.check(time, 1.0), Verdict::New);
            series.append(time, 1.0);
        }
        series
    }

    #[test]
    fn repeating_a_sample_is_harmless_however_old_it_is() {
        let series = series((0..300).map(|i| i * 10));
        assert_eq!(series.num_chunks(), 3);
        for time in [0, 10, 1190, 1200, 2000, 2990] {
            assert_eq!(series.check(time, 1.0), Verdict::Duplicate, "{time}");
            assert_eq!(series.check(time, 2.0), Verdict::OtherValue { existing: 1.0f64.to_bits() }, "{time}");
        }
        assert_eq!(series.check(1195, 1.0), Verdict::OutOfOrder);
        assert_eq!(series.check(-5, 1.0), Verdict::OutOfOrder);
        assert_eq!(series.check(2991, 1.0), Verdict::New);
    }

    #[test]
    fn values_are_compared_by_their_bits() {
        let mut series = Series::new(1, 1, Box::default());
        let stale = f64::from_bits(ringkit_tsdb::STALE_NAN_BITS);
        series.append(5, stale);
        assert_eq!(series.check(5, stale), Verdict::Duplicate);
        assert_eq!(series.check(5, f64::NAN), Verdict::OtherValue { existing: stale.to_bits() });
        series.append(6, 0.0);
        assert_eq!(series.check(6, -0.0), Verdict::OtherValue { existing: 0 });
    }

    #[test]
    fn chunks_end_at_120_samples_and_at_block_boundaries() {
        let series = series([0, 1, CHUNK_RANGE_MS - 1, CHUNK_RANGE_MS, CHUNK_RANGE_MS + 1]);
        let ranges: Vec<_> = series.chunks(i64::MIN, i64::MAX).map(|chunk| (chunk.min, chunk.max)).collect();
        assert_eq!(ranges, [(0, CHUNK_RANGE_MS - 1), (CHUNK_RANGE_MS, CHUNK_RANGE_MS + 1)]);
        assert_eq!(self::series(0..241).num_chunks(), 3);
    }

    #[test]
    fn old_chunks_expire_and_the_rest_stays() {
        let mut series = series(0..300);
        assert_eq!(series.expire(120), 1);
        assert_eq!(series.chunks(i64::MIN, i64::MAX).next().unwrap().min, 120);
        assert_eq!(series.num_samples(), 180);
        assert_eq!(series.expire(120), 0);
        assert!(!series.overlaps(0, 119));
        assert!(series.overlaps(0, 120));
    }
}
