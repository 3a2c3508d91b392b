//! The small parts that everything on the wire is made of, written and read.

use crate::id::{BadId, NodeId};
use crate::register::{MAX_FACETS, MAX_ID_BYTES, Version};
use crate::time::Hlc;

use super::{Fault, WireError};

/// Appends with `put`; if that fails, or makes `out` longer than `max`, `out` is left as it was. Returns whether it fitted.
pub(super) fn put_fitting(
    out: &mut Vec<u8>,
    max: usize,
    put: impl FnOnce(&mut Vec<u8>) -> Result<(), Fault>,
) -> bool {
    let before = out.len();
    let fits = put(out).is_ok() && out.len() <= max;
    if !fits {
        out.truncate(before);
    }
    fits
}

pub(super) fn put_u64(out: &mut Vec<u8>, value: u64) {
    out.extend_from_slice(&value.to_le_bytes());
}

pub(super) fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push((value as u8) | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

pub(super) fn put_bytes(out: &mut Vec<u8>, bytes: &[u8], max: usize) -> Result<(), Fault> {
    let len = bytes.len() as u64;
    if bytes.len() > max {
        return Err(Fault::TooLong { len, max });
    }
    put_varint(out, len);
    out.extend_from_slice(bytes);
    Ok(())
}

pub(super) fn put_entry(out: &mut Vec<u8>, id: &str, facet: u8) -> Result<(), Fault> {
    if facet >= MAX_FACETS {
        return Err(Fault::Facet(facet));
    }
    put_bytes(out, id.as_bytes(), MAX_ID_BYTES)?;
    out.push(facet);
    Ok(())
}

pub(super) fn put_version(out: &mut Vec<u8>, version: Version) {
    put_varint(out, version.epoch.into());
    put_u64(out, version.hlc.0);
}

/// What is still to be read, and where in its datagram or frame that is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cursor<'a> {
    rest: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    /// At the beginning of `rest`, which is at `at` of the whole.
    pub(super) fn new(rest: &'a [u8], at: usize) -> Self {
        Self { rest, at }
    }

    /// An error at this place.
    pub(super) fn error(&self, fault: Fault) -> WireError {
        WireError { at: self.at, fault }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// Makes sure that this is the end.
    pub(super) fn end(&self) -> Result<(), WireError> {
        if self.is_empty() { Ok(()) } else { Err(self.error(Fault::Trailing)) }
    }

    /// Reads one item of a list that goes on to the end. An error ends the list, because where the next item begins is then
    /// unknown.
    pub(super) fn item<T>(
        &mut self,
        read: impl FnOnce(&mut Self) -> Result<T, WireError>,
    ) -> Option<Result<T, WireError>> {
        if self.is_empty() {
            return None;
        }
        let item = read(self);
        if item.is_err() {
            self.rest = &[];
        }
        Some(item)
    }

    pub(super) fn take(&mut self, len: usize) -> Result<&'a [u8], WireError> {
        let Some((taken, rest)) = self.rest.split_at_checked(len) else {
            return Err(self.error(Fault::Short));
        };
        self.rest = rest;
        self.at += len;
        Ok(taken)
    }

    pub(super) fn take_rest(&mut self) -> &'a [u8] {
        self.at += self.rest.len();
        std::mem::take(&mut self.rest)
    }

    /// The next `len` bytes, to be read on their own.
    pub(super) fn part(&mut self, len: usize) -> Result<Self, WireError> {
        let at = self.at;
        Ok(Self { rest: self.take(len)?, at })
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], WireError> {
        let Some((taken, rest)) = self.rest.split_first_chunk::<N>() else {
            return Err(self.error(Fault::Short));
        };
        self.rest = rest;
        self.at += N;
        Ok(*taken)
    }

    pub(super) fn u8(&mut self) -> Result<u8, WireError> {
        self.array().map(u8::from_le_bytes)
    }

    pub(super) fn u16(&mut self) -> Result<u16, WireError> {
        self.array().map(u16::from_le_bytes)
    }

    pub(super) fn u32(&mut self) -> Result<u32, WireError> {
        self.array().map(u32::from_le_bytes)
    }

    pub(super) fn u64(&mut self) -> Result<u64, WireError> {
        self.array().map(u64::from_le_bytes)
    }

    pub(super) fn u128(&mut self) -> Result<u128, WireError> {
        self.array().map(u128::from_le_bytes)
    }

    pub(super) fn bool(&mut self) -> Result<bool, WireError> {
        let start = *self;
        match self.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            other => Err(start.error(Fault::Bool(other))),
        }
    }

    pub(super) fn varint(&mut self) -> Result<u64, WireError> {
        let start = *self;
        let mut value = 0_u64;
        for shift in (0..u64::BITS).step_by(7) {
            let byte = self.u8()?;
            // Ten times seven bits are more than fit: of the tenth byte only one bit may be set.
            if shift + 7 > u64::BITS && byte > 1 {
                break;
            }
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                // A last byte of zero could have been left out. One form for each value lets equal things be equal bytes.
                if byte == 0 && shift > 0 {
                    break;
                }
                return Ok(value);
            }
        }
        Err(start.error(Fault::Number))
    }

    pub(super) fn bytes(&mut self, max: usize) -> Result<&'a [u8], WireError> {
        let start = *self;
        let len = self.varint()?;
        match usize::try_from(len) {
            Ok(len) if len <= max => self.take(len),
            _ => Err(start.error(Fault::TooLong { len, max })),
        }
    }

    pub(super) fn text(&mut self, max: usize) -> Result<&'a str, WireError> {
        let start = *self;
        std::str::from_utf8(self.bytes(max)?).map_err(|_| start.error(Fault::Text))
    }

    pub(super) fn entry(&mut self) -> Result<(&'a str, u8), WireError> {
        let id = self.text(MAX_ID_BYTES)?;
        let start = *self;
        let facet = self.u8()?;
        if facet >= MAX_FACETS {
            return Err(start.error(Fault::Facet(facet)));
        }
        Ok((id, facet))
    }

    pub(super) fn version(&mut self) -> Result<Version, WireError> {
        let start = *self;
        let epoch = u32::try_from(self.varint()?).map_err(|_| start.error(Fault::Number))?;
        Ok(Version { epoch, hlc: Hlc(self.u64()?) })
    }

    pub(super) fn node(&mut self) -> Result<NodeId, WireError> {
        let mut rest = self.rest;
        let node = NodeId::decode(&mut rest).map_err(|bad| {
            self.error(match bad {
                BadId::Short => Fault::Short,
                BadId::Address(kind) => Fault::Address(kind),
            })
        })?;
        self.at += self.rest.len() - rest.len();
        self.rest = rest;
        Ok(node)
    }
}
