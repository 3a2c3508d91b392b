//! Snappy blocks for rings, written faster than a general compressor can.
//!
//! Most of a ring is packed tokens, which are as good as random: nothing in them repeats, and looking for it is what
//! costs. So they are passed on as they are, and only what lies between them is searched: ids, addresses, zones. Any
//! reader of Snappy blocks reads the result. Reading is left to the `snap` crate.

use std::ops::Range;

/// How many bytes are hashed to find a repetition.
const HASHED: usize = 4;
/// Shortest repetition worth a copy: readers take longer over many short ones than over plain bytes.
const MIN_MATCH: usize = 8;
/// No copy reaches back further; two bytes hold it.
const MAX_DISTANCE: usize = 0xFFFF;
/// Longest copy of one element.
const MAX_COPY: usize = 64;

/// The Snappy block of `bytes`. `random` are ascending ranges in which no repetition is to be expected.
///
/// Deterministic. At most a few bytes larger than `bytes`.
///
/// # Source
///
/// Google's `format_description.txt` of Snappy.
pub(super) fn compress(bytes: &[u8], random: &[Range<usize>]) -> Vec<u8> {
    let mut block = Block::new(bytes);
    let mut from = 0;
    for range in random {
        block.search(from..range.start);
        from = range.end;
    }
    block.search(from..bytes.len());
    block.finish()
}

struct Block<'a> {
    bytes: &'a [u8],
    out: Vec<u8>,
    /// Up to where everything is written.
    written: usize,
    /// Per hash of four bytes, where they were last seen.
    last_seen: Vec<u32>,
}

impl<'a> Block<'a> {
    fn new(bytes: &'a [u8]) -> Self {
        let mut out = Vec::with_capacity(bytes.len() + bytes.len() / 64 + 16);
        super::wire::put_varint(&mut out, bytes.len() as u64);
        // About as many places as there are bytes outside of tokens within the reach of a copy.
        let places = (bytes.len() / 8).next_power_of_two().clamp(1 << 8, 1 << 13);
        Self { bytes, out, written: 0, last_seen: vec![0; places] }
    }

    /// Writes what repeats within `range`; the rest waits to be written as it is.
    fn search(&mut self, range: Range<usize>) {
        let shift = 32 - self.last_seen.len().ilog2();
        let mut at = range.start;
        while at + HASHED <= range.end {
            let Some(here) = four_at(self.bytes, at) else { return };
            let place = &mut self.last_seen[(here.wrapping_mul(0x1E35_A7BD) >> shift) as usize];
            let before = std::mem::replace(place, at as u32) as usize;
            let reachable = before < at && at - before <= MAX_DISTANCE;
            if !reachable || four_at(self.bytes, before) != Some(here) {
                at += 1;
                continue;
            }
            let ahead = self.bytes[at..range.end].iter().zip(&self.bytes[before..]);
            let length = ahead.take_while(|(a, b)| a == b).count();
            if length < MIN_MATCH {
                at += 1;
                continue;
            }
            self.literal(at);
            self.copy(at - before, length);
            at += length;
            self.written = at;
        }
    }

    /// Writes everything before `end` that is not yet written, as it is.
    fn literal(&mut self, end: usize) {
        let text = &self.bytes[self.written..end];
        self.written = end;
        let Some(length) = text.len().checked_sub(1) else { return };
        match length {
            0..60 => self.out.push((length as u8) << 2),
            60..0x100 => self.out.extend_from_slice(&[60 << 2, length as u8]),
            0x100..0x1_0000 => self.out.extend_from_slice(&[61 << 2, length as u8, (length >> 8) as u8]),
            _ => {
                self.out.push(63 << 2);
                self.out.extend_from_slice(&(length as u32).to_le_bytes());
            }
        }
        self.out.extend_from_slice(text);
    }

    fn copy(&mut self, distance: usize, mut length: usize) {
        while length > 0 {
            let now = length.min(MAX_COPY);
            length -= now;
            if (4..12).contains(&now) && distance < 1 << 11 {
                let tag = 1 | (now - 4) << 2 | distance >> 8 << 5;
                self.out.extend_from_slice(&[tag as u8, distance as u8]);
            } else {
                self.out.extend_from_slice(&[
                    2 | ((now - 1) << 2) as u8,
                    distance as u8,
                    (distance >> 8) as u8,
                ]);
            }
        }
    }

    fn finish(mut self) -> Vec<u8> {
        self.literal(self.bytes.len());
        self.out
    }
}

#[inline]
fn four_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().copied().map(u32::from_le_bytes)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn unpacked(block: &[u8]) -> Vec<u8> {
        snap::raw::Decoder::new().decompress_vec(block).unwrap()
    }

    proptest! {
        #[test]
        fn a_block_unpacks_to_what_was_packed(
            words in prop::collection::vec(0..12u32, 0..600), noise in prop::collection::vec(any::<u8>(), 0..300),
            cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..8),
        ) {
            let mut bytes: Vec<u8> = words.iter().flat_map(|word| format!("{word}-and-so-on").into_bytes()).collect();
            bytes.extend(&noise);
            bytes.extend_from_within(..bytes.len() / 2);
            let mut cuts: Vec<_> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
            cuts.sort_unstable();
            let random: Vec<_> = cuts.chunks_exact(2).map(|pair| pair[0]..pair[1]).collect();
            let block = compress(&bytes, &random);
            prop_assert_eq!(unpacked(&block), &bytes[..]);
            prop_assert!(block.len() <= bytes.len() + bytes.len() / 64 + 16, "no second allocation");
        }
    }

    #[test]
    fn literals_and_copies_of_all_lengths_survive() {
        for length in [0, 1, 59, 60, 61, 255, 256, 257, 65_535, 65_536, 65_537, 200_000] {
            let mut random = 1u32;
            let mut noise = || {
                random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                (random >> 24) as u8
            };
            let noise: Vec<u8> = (0..length).map(|_| noise()).collect();
            for bytes in [noise.clone(), vec![7; length], [noise.as_slice(), &noise].concat()] {
                assert_eq!(unpacked(&compress(&bytes, &[])), bytes, "{length}");
                let all = 0..bytes.len();
                let block = compress(&bytes, std::slice::from_ref(&all));
                assert_eq!(unpacked(&block), bytes, "{length}, not searched");
            }
        }
    }

    #[test]
    fn what_repeats_is_written_once() {
        let text = "10.0.0.17:9095 zone-a ".repeat(100);
        assert!(compress(text.as_bytes(), &[]).len() < 150);
    }
}
