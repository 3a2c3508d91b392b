//! Bit streams, highest bit first.

use super::{Fault, HEADER};
use crate::varint;

/// Appends bits to bytes.
#[derive(Clone, Debug)]
pub(super) struct Writer {
    bytes: Vec<u8>,
    /// Unused low bits of the last byte, 0..=7. They are zero.
    free: u32,
}

impl Writer {
    /// Continues after the whole of `bytes`.
    pub(super) fn new(bytes: Vec<u8>) -> Self {
        Self { bytes, free: 0 }
    }

    /// Continues a copy of `bytes` at the bit `position`.
    pub(super) fn resume(bytes: &[u8], position: usize) -> Self {
        let mut bytes = bytes[..position.div_ceil(8).min(bytes.len())].to_vec();
        let free = (8 - (position % 8) as u32) % 8;
        if let Some(last) = bytes.last_mut() {
            *last &= 0xff << free;
        }
        Self { bytes, free }
    }

    /// Appends the lowest `len` bits (1 to 64) of `value`; higher ones must be zero.
    #[inline]
    pub(super) fn push(&mut self, value: u64, len: u32) {
        debug_assert!((1..=64).contains(&len) && (len == 64 || value >> len == 0));
        let mut value = value << (64 - len);
        let mut left = len;
        if self.free > 0
            && let Some(last) = self.bytes.last_mut()
        {
            let taken = self.free.min(left);
            *last |= (value >> (64 - self.free)).to_le_bytes()[0];
            self.free -= taken;
            left -= taken;
            if left == 0 {
                return;
            }
            value <<= taken;
        }
        let whole = left.div_ceil(8);
        self.bytes.extend_from_slice(&value.to_be_bytes()[..whole as usize]);
        self.free = whole * 8 - left;
    }

    /// Appends a variable-length number. Only called on a byte boundary.
    pub(super) fn push_varint(&mut self, value: u64) {
        debug_assert_eq!(self.free, 0);
        varint::put(&mut self.bytes, value);
    }

    pub(super) fn set_header(&mut self, header: [u8; HEADER]) {
        if let Some(first) = self.bytes.first_chunk_mut() {
            *first = header;
        }
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    pub(super) fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }
}

/// Takes bits off bytes.
#[derive(Clone, Debug)]
pub(super) struct Reader<'a> {
    bytes: &'a [u8],
    /// Bits taken so far.
    position: usize,
}

impl<'a> Reader<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, position: 0 }
    }

    pub(super) fn position(&self) -> usize {
        self.position
    }

    /// How many bits are left.
    pub(super) fn left(&self) -> usize {
        self.bytes.len() * 8 - self.position
    }

    /// Takes `len` bits (1 to 64), or none if fewer are left.
    #[inline]
    pub(super) fn take(&mut self, len: u32) -> Option<u64> {
        let tail = self.bytes.get(self.position / 8..)?;
        let skip = (self.position % 8) as u32;
        if len as usize > self.left() {
            return None;
        }
        let word = tail.first_chunk().copied().unwrap_or_else(|| {
            let mut padded = [0; 8];
            for (to, from) in padded.iter_mut().zip(tail) {
                *to = *from;
            }
            padded
        });
        let mut value = u64::from_be_bytes(word) << skip;
        if len + skip > 64
            && let Some(&ninth) = tail.get(8)
        {
            value |= u64::from(ninth) >> (8 - skip);
        }
        self.position += len as usize;
        Some(value >> (64 - len))
    }

    /// Takes a variable-length number.
    pub(super) fn take_varint(&mut self) -> Result<u64, Fault> {
        let mut ended = false;
        varint::read(|| {
            let byte = self.take(8);
            ended = byte.is_none();
            byte.map(|byte| byte.to_le_bytes()[0])
        })
        .ok_or(if ended { Fault::Truncated } else { Fault::Corrupt })
    }
}
