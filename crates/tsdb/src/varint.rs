//! Variable-length numbers as in Go's `encoding/binary`: seven bits a byte, lowest first; signed ones in zigzag.

/// The longest encoding of 64 bits.
const MAX_LEN: u32 = 10;

pub(crate) const fn zigzag(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)).cast_unsigned()
}

pub(crate) const fn unzigzag(value: u64) -> i64 {
    (value >> 1).cast_signed() ^ -((value & 1).cast_signed())
}

pub(crate) fn put(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value.to_le_bytes()[0] | 0x80);
        value >>= 7;
    }
    out.push(value.to_le_bytes()[0]);
}

/// Reads one number from the bytes `next` hands out; `None` if they end early or exceed 64 bits.
pub(crate) fn read(mut next: impl FnMut() -> Option<u8>) -> Option<u64> {
    let mut value = 0;
    for index in 0..MAX_LEN {
        let byte = next()?;
        if index == MAX_LEN - 1 && byte > 1 {
            return None;
        }
        value |= u64::from(byte & 0x7f) << (7 * index);
        if byte < 0x80 {
            return Some(value);
        }
    }
    None
}

/// Reads one number from the front of `bytes` and cuts it off.
pub(crate) fn take(bytes: &mut &[u8]) -> Option<u64> {
    read(|| {
        let (&byte, rest) = bytes.split_first()?;
        *bytes = rest;
        Some(byte)
    })
}
