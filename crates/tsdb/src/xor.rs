//! Prometheus' XOR chunk encoding of (timestamp, value) samples.
//!
//! Layout: the number of samples (two bytes, big-endian), then a bit stream.
//!
//! | sample | timestamp | value |
//! |---|---|---|
//! | first | signed varint | 64 bits |
//! | second | unsigned varint of the difference | see below |
//! | others | change of the difference: `0` if none, else `10`, `110`, `1110`, `1111` and 14, 17, 20, 64 bits | see below |
//!
//! A value is stored as the exclusive or with the one before: `0` if they are equal; `10` and the significant bits, if
//! they lie within the last window; else `11`, five bits of leading zeros, six bits of length (64 is written as 0) and
//! the significant bits, which become the window.
//!
//! Values are bits: NaNs, and so staleness markers, come back as they went in. Timestamps may be any `i64`, in any
//! order; differences wrap around.
//!
//! # Source
//!
//! Prometheus `tsdb/docs/format/chunks.md`; the idea is from the Gorilla paper, the bucket sizes are Prometheus'.

mod bits;

use bits::{Reader, Writer};
use bytes::Bytes;

use crate::varint;

/// How many bytes the count of samples takes.
const HEADER: usize = 2;

/// Sizes of the change of the difference, with the prefix that announces each: (bits of prefix, prefix, bits).
const DELTA_SIZES: [(u32, u64, u32); 3] = [(2, 0b10, 14), (3, 0b110, 17), (4, 0b1110, 20)];

/// Why bytes are not an XOR chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The chunk ends inside a sample (0: inside the header).
    #[error("chunk ends inside sample {sample}")]
    Truncated {
        /// The sample, counted from 1.
        sample: u16,
    },
    /// A number no encoder writes.
    #[error("chunk is corrupt at sample {sample}")]
    Corrupt {
        /// The sample, counted from 1.
        sample: u16,
    },
}

/// The chunk holds 65 535 samples, as many as its header can count. It is unchanged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("chunk is full: start a new one")]
pub struct Full;

/// A chunk that can be appended to and read at any time.
#[derive(Clone, Debug)]
pub struct XorChunk {
    bits: Writer,
    state: State,
    min: i64,
    max: i64,
}

/// What the next sample is encoded against.
#[derive(Clone, Copy, Debug, Default)]
struct State {
    count: u16,
    time: i64,
    delta: u64,
    value: u64,
    window: Window,
    /// Whether `window` has been set by a sample. Readers start with a window of all bits, writers with none.
    has_window: bool,
}

/// The bits of a value that may differ from the one before.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Window {
    leading: u8,
    trailing: u8,
}

impl Window {
    fn len(self) -> u32 {
        64 - u32::from(self.leading) - u32::from(self.trailing)
    }
}

impl Default for XorChunk {
    fn default() -> Self {
        Self::new()
    }
}

impl XorChunk {
    /// An empty chunk.
    pub fn new() -> Self {
        Self { bits: Writer::new(vec![0; HEADER]), state: State::default(), min: i64::MAX, max: i64::MIN }
    }

    /// Takes up an encoded chunk, so that it can be continued. Bytes after the last sample are dropped.
    ///
    /// # Errors
    ///
    /// [`Error`] if the bytes do not hold the samples their header announces.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, Error> {
        let mut samples = iter(bytes);
        let (mut min, mut max) = (i64::MAX, i64::MIN);
        for sample in samples.by_ref() {
            let (time, _) = sample?;
            min = min.min(time);
            max = max.max(time);
        }
        let mut bits = Writer::resume(bytes, samples.bits.position());
        if samples.total == 0 {
            bits = Writer::new(vec![0; HEADER]);
        }
        Ok(Self { bits, state: samples.state, min, max })
    }

    /// Appends a sample; `time` in milliseconds. Order and duplicates are the caller's business.
    ///
    /// # Errors
    ///
    /// [`Full`] after 65 535 samples.
    pub fn append(&mut self, time: i64, value: f64) -> Result<(), Full> {
        let value = value.to_bits();
        let state = &mut self.state;
        let count = state.count.checked_add(1).ok_or(Full)?;
        let delta = time.wrapping_sub(state.time).cast_unsigned();
        match state.count {
            0 => {
                self.bits.push_varint(varint::zigzag(time));
                self.bits.push(value, 64);
            }
            1 => {
                self.bits.push_varint(delta);
                push_value(&mut self.bits, state, value);
                state.delta = delta;
            }
            _ => {
                push_delta_change(&mut self.bits, delta.wrapping_sub(state.delta).cast_signed());
                push_value(&mut self.bits, state, value);
                state.delta = delta;
            }
        }
        state.count = count;
        state.time = time;
        state.value = value;
        self.min = self.min.min(time);
        self.max = self.max.max(time);
        self.bits.set_header(count.to_be_bytes());
        Ok(())
    }

    /// The encoded chunk.
    pub fn bytes(&self) -> &[u8] {
        self.bits.bytes()
    }

    /// The encoded chunk, without spare capacity, for keeping.
    pub fn into_bytes(self) -> Bytes {
        Bytes::from(self.bits.into_bytes().into_boxed_slice())
    }

    /// How many samples it holds.
    pub fn num_samples(&self) -> usize {
        usize::from(self.state.count)
    }

    /// Whether it holds no samples.
    pub fn is_empty(&self) -> bool {
        self.state.count == 0
    }

    /// The smallest timestamp, in milliseconds.
    pub fn min_time(&self) -> Option<i64> {
        (!self.is_empty()).then_some(self.min)
    }

    /// The largest timestamp, in milliseconds.
    pub fn max_time(&self) -> Option<i64> {
        (!self.is_empty()).then_some(self.max)
    }

    /// The sample appended last.
    pub fn last(&self) -> Option<(i64, f64)> {
        (!self.is_empty()).then(|| (self.state.time, f64::from_bits(self.state.value)))
    }

    /// The samples, in the order they were appended.
    pub fn iter(&self) -> XorIter<'_> {
        iter(self.bytes())
    }
}

impl<'a> IntoIterator for &'a XorChunk {
    type Item = Result<(i64, f64), Error>;
    type IntoIter = XorIter<'a>;

    fn into_iter(self) -> XorIter<'a> {
        self.iter()
    }
}

fn push_delta_change(bits: &mut Writer, change: i64) {
    if change == 0 {
        return bits.push(0, 1);
    }
    for (prefix_len, prefix, size) in DELTA_SIZES {
        let limit = 1_i64 << (size - 1);
        // Lopsided as in Prometheus: the lowest number of `size` bits stands for +limit instead.
        if -limit < change && change <= limit {
            let payload = change.cast_unsigned() & ((1 << size) - 1);
            return bits.push(prefix << size | payload, prefix_len + size);
        }
    }
    bits.push(0b1111, 4);
    bits.push(change.cast_unsigned(), 64);
}

fn push_value(bits: &mut Writer, state: &mut State, value: u64) {
    /// Five bits hold the number of leading zeros.
    const MAX_LEADING: u8 = 31;
    let xor = value ^ state.value;
    if xor == 0 {
        return bits.push(0, 1);
    }
    let [leading, trailing] = [xor.leading_zeros(), xor.trailing_zeros()].map(|zeros| zeros.to_le_bytes()[0]);
    let needed = Window { leading: leading.min(MAX_LEADING), trailing };
    let last = state.window;
    if state.has_window && needed.leading >= last.leading && needed.trailing >= last.trailing {
        bits.push(0b10, 2);
        return bits.push(xor >> last.trailing, last.len());
    }
    state.window = needed;
    state.has_window = true;
    let len = needed.len();
    // Two bits of control, five of leading zeros, six of length; a length of 64 overflows to 0.
    bits.push(0b11 << 11 | u64::from(needed.leading) << 6 | u64::from(len & 63), 13);
    bits.push(xor >> needed.trailing, len);
}

/// Reads the samples of an encoded chunk. Ends after the first error.
pub fn iter(bytes: &[u8]) -> XorIter<'_> {
    XorIter::new(bytes)
}

/// The samples of an encoded chunk: (milliseconds, value).
#[derive(Clone, Debug)]
pub struct XorIter<'a> {
    bits: Reader<'a>,
    total: u16,
    state: State,
    failed: bool,
}

impl<'a> XorIter<'a> {
    fn new(bytes: &'a [u8]) -> Self {
        let mut bits = Reader::new(bytes);
        let header = bits.take(16);
        let total =
            header.map_or(1, |count| u16::from_be_bytes([count.to_le_bytes()[1], count.to_le_bytes()[0]]));
        Self { bits, total, state: State::default(), failed: false }
    }

    /// How many samples the header announces.
    pub fn announced(&self) -> usize {
        usize::from(self.total)
    }

    fn read(&mut self) -> Result<(i64, f64), Fault> {
        let state = &mut self.state;
        let bits = &mut self.bits;
        match state.count {
            0 => {
                state.time = varint::unzigzag(bits.take_varint()?);
                state.value = bits.take(64).ok_or(Fault::Truncated)?;
            }
            1 => {
                state.delta = bits.take_varint()?;
                state.time = state.time.wrapping_add_unsigned(state.delta);
                read_value(bits, state)?;
            }
            _ => {
                let change = read_delta_change(bits).ok_or(Fault::Truncated)?;
                state.delta = state.delta.wrapping_add_signed(change);
                state.time = state.time.wrapping_add_unsigned(state.delta);
                read_value(bits, state)?;
            }
        }
        state.count += 1;
        Ok((state.time, f64::from_bits(state.value)))
    }
}

impl Iterator for XorIter<'_> {
    type Item = Result<(i64, f64), Error>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.failed || self.state.count == self.total {
            return None;
        }
        let sample = self.state.count + 1;
        Some(self.read().map_err(|fault| {
            self.failed = true;
            match fault {
                Fault::Truncated => Error::Truncated { sample },
                Fault::Corrupt => Error::Corrupt { sample },
            }
        }))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        // A sample takes at least two bits, so a lying header cannot make the caller reserve much.
        let left = usize::from(self.total - self.state.count);
        (0, Some(if self.failed { 0 } else { left.min(self.bits.left() / 2 + 1) }))
    }
}

/// What was wrong, before the sample is known.
enum Fault {
    Truncated,
    Corrupt,
}

fn read_delta_change(bits: &mut Reader<'_>) -> Option<i64> {
    if bits.take(1)? == 0 {
        return Some(0);
    }
    for (_, _, size) in DELTA_SIZES {
        if bits.take(1)? == 0 {
            let payload = bits.take(size)?.cast_signed();
            let limit = 1_i64 << (size - 1);
            return Some(if payload > limit { payload - 2 * limit } else { payload });
        }
    }
    Some(bits.take(64)?.cast_signed())
}

fn read_value(bits: &mut Reader<'_>, state: &mut State) -> Result<(), Fault> {
    if bits.take(1).ok_or(Fault::Truncated)? == 0 {
        return Ok(());
    }
    if bits.take(1).ok_or(Fault::Truncated)? == 1 {
        let [len, leading] = {
            let packed = bits.take(11).ok_or(Fault::Truncated)?;
            [packed & 63, packed >> 6].map(|part| part.to_le_bytes()[0])
        };
        let len = if len == 0 { 64 } else { len };
        let trailing = 64_u8.checked_sub(leading + len).ok_or(Fault::Corrupt)?;
        state.window = Window { leading, trailing };
        state.has_window = true;
    }
    let xor = bits.take(state.window.len()).ok_or(Fault::Truncated)?;
    state.value ^= xor << state.window.trailing;
    Ok(())
}

#[cfg(test)]
mod tests;
