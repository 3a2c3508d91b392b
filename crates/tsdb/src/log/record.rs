//! Payloads of log records, read in place.

use crate::varint;

pub(super) const SERIES: u8 = 1;
pub(super) const SAMPLES: u8 = 2;
pub(super) const TENANT_REMOVED: u8 = 3;
pub(super) const CHUNK: u8 = 4;

/// One record, borrowed from the log and checked in full.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Record<'a> {
    /// A new series.
    Series {
        /// Its number, unique in the log.
        id: u64,
        /// Whose it is.
        tenant: &'a str,
        /// Name and value of each label, as written.
        labels: Labels<'a>,
    },
    /// Samples of series declared before.
    Samples(Samples<'a>),
    /// All series of a tenant are gone.
    TenantRemoved {
        /// Whose they were.
        tenant: &'a str,
    },
    /// A chunk of a series declared before. Its contents are not checked here.
    Chunk {
        /// The series.
        id: u64,
        /// An encoded XOR chunk.
        data: &'a [u8],
    },
}

/// Why a payload could not be read.
pub(super) enum Unreadable {
    Kind,
    Payload,
}

impl<'a> Record<'a> {
    pub(super) fn parse(kind: u8, mut payload: &'a [u8]) -> Result<Self, Unreadable> {
        let record = match kind {
            SERIES => parse_series(&mut payload),
            SAMPLES => parse_samples(&mut payload),
            TENANT_REMOVED => take_str(&mut payload).map(|tenant| Self::TenantRemoved { tenant }),
            CHUNK => {
                varint::take(&mut payload).map(|id| Self::Chunk { id, data: std::mem::take(&mut payload) })
            }
            _ => return Err(Unreadable::Kind),
        };
        record.filter(|_| payload.is_empty()).ok_or(Unreadable::Payload)
    }
}

fn parse_series<'a>(payload: &mut &'a [u8]) -> Option<Record<'a>> {
    let id = varint::take(payload)?;
    let tenant = take_str(payload)?;
    let left = usize::try_from(varint::take(payload)?).ok()?;
    // Each label takes two bytes at least: a lying count is found before anybody believes it.
    if left > payload.len() / 2 {
        return None;
    }
    let labels = Labels { rest: payload, left };
    let mut walk = labels.clone();
    if walk.by_ref().count() != left {
        return None;
    }
    *payload = walk.rest;
    Some(Record::Series { id, tenant, labels })
}

fn parse_samples<'a>(payload: &mut &'a [u8]) -> Option<Record<'a>> {
    /// Two numbers and a value.
    const MIN_SAMPLE: usize = 10;
    let left = usize::try_from(varint::take(payload)?).ok()?;
    if left > payload.len() / MIN_SAMPLE {
        return None;
    }
    let samples = Samples { rest: payload, left, id: 0, time: 0 };
    let mut walk = samples.clone();
    if walk.by_ref().count() != left {
        return None;
    }
    *payload = walk.rest;
    Some(Record::Samples(samples))
}

fn take_bytes<'a>(bytes: &mut &'a [u8]) -> Option<&'a [u8]> {
    let len = usize::try_from(varint::take(bytes)?).ok()?;
    let (taken, rest) = bytes.split_at_checked(len)?;
    *bytes = rest;
    Some(taken)
}

fn take_str<'a>(bytes: &mut &'a [u8]) -> Option<&'a str> {
    std::str::from_utf8(take_bytes(bytes)?).ok()
}

/// Name and value of each label of a series.
#[derive(Clone, Debug)]
pub struct Labels<'a> {
    rest: &'a [u8],
    left: usize,
}

impl<'a> Iterator for Labels<'a> {
    type Item = (&'a [u8], &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        self.left = self.left.checked_sub(1)?;
        Some((take_bytes(&mut self.rest)?, take_bytes(&mut self.rest)?))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left, Some(self.left))
    }
}

impl ExactSizeIterator for Labels<'_> {}

/// Series, timestamp (milliseconds) and value of each sample.
#[derive(Clone, Debug)]
pub struct Samples<'a> {
    rest: &'a [u8],
    left: usize,
    id: u64,
    time: i64,
}

impl Iterator for Samples<'_> {
    type Item = (u64, i64, f64);

    fn next(&mut self) -> Option<Self::Item> {
        self.left = self.left.checked_sub(1)?;
        let id = varint::unzigzag(varint::take(&mut self.rest)?);
        let time = varint::unzigzag(varint::take(&mut self.rest)?);
        let (value, rest) = self.rest.split_first_chunk()?;
        self.rest = rest;
        self.id = self.id.wrapping_add_signed(id);
        self.time = self.time.wrapping_add(time);
        Some((self.id, self.time, f64::from_bits(u64::from_le_bytes(*value))))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left, Some(self.left))
    }
}

impl ExactSizeIterator for Samples<'_> {}
