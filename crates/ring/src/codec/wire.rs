//! The protobuf wire format, as far as rings need it: bounded, without recursion, and without panics on any input.

use ringkit_kv::DecodeError;

/// How the bytes of a field end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum WireType {
    Varint,
    Fixed64,
    Len,
    StartGroup,
    EndGroup,
    Fixed32,
}

/// Reads fields from a slice, front to back.
#[derive(Clone)]
pub(super) struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.at >= self.bytes.len()
    }

    /// How many bytes were read.
    pub(super) fn position(&self) -> usize {
        self.at
    }

    /// A varint of at most 10 bytes; what exceeds 64 bits is lost, as in Go.
    #[inline]
    pub(super) fn varint(&mut self) -> Result<u64, DecodeError> {
        // Tags and lengths, mostly, take one byte.
        match self.bytes.get(self.at) {
            Some(&byte) if byte < 0x80 => {
                self.at += 1;
                Ok(byte.into())
            }
            _ => self.long_varint(),
        }
    }

    fn long_varint(&mut self) -> Result<u64, DecodeError> {
        let mut value = 0;
        for shift in (0..70).step_by(7) {
            let &byte = self.bytes.get(self.at).ok_or_else(|| self.truncated())?;
            self.at += 1;
            value |= u64::from(byte & 0x7F) << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(self.fault("varint longer than 10 bytes"))
    }

    /// The next field's number, from 1 up, and how it ends.
    #[inline]
    pub(super) fn tag(&mut self) -> Result<(u32, WireType), DecodeError> {
        let tag = self.varint()?;
        let number = (tag >> 3) as i32;
        let wire_type = match tag & 7 {
            0 => WireType::Varint,
            1 => WireType::Fixed64,
            2 => WireType::Len,
            3 => WireType::StartGroup,
            4 => WireType::EndGroup,
            5 => WireType::Fixed32,
            _ => return Err(self.fault("unknown wire type")),
        };
        match u32::try_from(number) {
            Ok(number) if number > 0 => Ok((number, wire_type)),
            _ => Err(self.fault("field number below 1")),
        }
    }

    /// The bytes of a field of type [`WireType::Len`].
    pub(super) fn len_delimited(&mut self) -> Result<&'a [u8], DecodeError> {
        let length = self.varint()?;
        self.take(length)
    }

    /// Passes over the rest of a field; a group must end, however deep it nests.
    pub(super) fn skip(&mut self, wire_type: WireType) -> Result<(), DecodeError> {
        let mut wire_type = wire_type;
        let mut depth = 0usize;
        loop {
            match wire_type {
                WireType::Varint => drop(self.varint()?),
                WireType::Fixed64 => drop(self.take(8)?),
                WireType::Fixed32 => drop(self.take(4)?),
                WireType::Len => drop(self.len_delimited()?),
                WireType::StartGroup => depth += 1,
                WireType::EndGroup => {
                    depth =
                        depth.checked_sub(1).ok_or_else(|| self.fault("group ends that did not begin"))?;
                }
            }
            if depth == 0 {
                return Ok(());
            }
            wire_type = self.tag()?.1;
        }
    }

    fn take(&mut self, length: u64) -> Result<&'a [u8], DecodeError> {
        let rest = &self.bytes[self.at..];
        let length = usize::try_from(length).ok().filter(|length| *length <= rest.len());
        let length = length.ok_or_else(|| self.truncated())?;
        self.at += length;
        Ok(&rest[..length])
    }

    #[cold]
    fn truncated(&self) -> DecodeError {
        DecodeError::new(format!("truncated after byte {}", self.bytes.len()))
    }

    #[cold]
    fn fault(&self, what: &str) -> DecodeError {
        DecodeError::new(format!("{what} before byte {}", self.at))
    }
}

pub(super) fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Writes a varint field, and nothing if it holds its default.
pub(super) fn put_int(out: &mut Vec<u8>, number: u32, value: i64) {
    if value != 0 {
        put_varint(out, u64::from(number) << 3);
        put_varint(out, value.cast_unsigned());
    }
}

/// Writes a length-delimited field, also an empty one.
pub(super) fn put_bytes(out: &mut Vec<u8>, number: u32, bytes: &[u8]) {
    put_varint(out, u64::from(number) << 3 | 2);
    put_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// How many bytes [`put_varint`] writes.
pub(super) fn varint_len(value: u64) -> usize {
    (64 - (value | 1).leading_zeros() as usize).div_ceil(7)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn varints_take_the_length_foretold() {
        for shift in 0..64 {
            for value in [(1u64 << shift) - 1, 1 << shift, (1 << shift) + 1] {
                let mut out = Vec::new();
                put_varint(&mut out, value);
                assert_eq!(out.len(), varint_len(value), "{value}");
                assert_eq!(Reader::new(&out).varint(), Ok(value));
            }
        }
    }

    #[test]
    fn a_million_nested_groups_need_no_stack() {
        let mut bytes = vec![0x0b; 1_000_000];
        bytes.extend(vec![0x0c; 1_000_000]);
        let mut reader = Reader::new(&bytes);
        let (_, wire_type) = reader.tag().unwrap();
        reader.skip(wire_type).unwrap();
        assert!(reader.is_empty());
    }

    #[test]
    fn varints_over_ten_bytes_are_refused() {
        assert!(Reader::new(&[0xFF; 11]).varint().is_err());
        let mut ten = [0xFF; 10];
        ten[9] = 0x7F;
        assert_eq!(Reader::new(&ten).varint(), Ok(u64::MAX));
    }
}
