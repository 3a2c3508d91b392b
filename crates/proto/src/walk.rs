//! Reads one encoded [`TimeSeries`](crate::cortexpb::TimeSeries) in place: no copies, no allocation.
//!
//! The rules are prost's, so both accept the same bytes and see the same series, except that groups (a form no sender
//! of this message uses) are refused. Whether the bytes hold nothing but what we know is told by
//! [`SeriesView::is_plain`]: only then may they be forwarded as received.

use std::ops::Range;

/// Why bytes are not an encoded series.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum WalkError {
    /// The bytes end inside a field.
    #[error("series ends inside a field")]
    Truncated,
    /// A variable-length number has more than ten bytes or more than 64 bits.
    #[error("series holds an overlong number")]
    Overlong,
    /// A field key that protobuf does not allow.
    #[error("series holds an invalid field key {0:#x}")]
    Key(u64),
    /// A known field in another wire type than declared.
    #[error("field {field} of {message} has wire type {wire}")]
    WireType {
        /// The message the field belongs to.
        message: &'static str,
        /// The field's number.
        field: u32,
        /// The wire type found.
        wire: u8,
    },
}

/// A borrowed view of one encoded series, checked in full.
///
/// Costs one pass over the bytes to parse and one over the fields asked for afterwards.
#[derive(Clone, Debug)]
pub struct SeriesView<'a> {
    bytes: &'a [u8],
    /// Where the label fields begin and end, if nothing else lies between them.
    labels: Option<Range<usize>>,
    num_labels: usize,
    num_samples: usize,
    num_exemplars: usize,
    num_histograms: usize,
    plain: bool,
}

impl<'a> SeriesView<'a> {
    /// Checks that `bytes` is a series.
    ///
    /// # Errors
    ///
    /// [`WalkError`] where prost would refuse the same bytes, or on a group.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, WalkError> {
        let mut view = Self {
            bytes,
            labels: Some(0..0),
            num_labels: 0,
            num_samples: 0,
            num_exemplars: 0,
            num_histograms: 0,
            plain: true,
        };
        let mut fields = Fields::new(bytes);
        loop {
            let start = fields.offset();
            let Some((number, value)) = fields.next()? else { return Ok(view) };
            match number {
                1 => {
                    check_label(value.message("TimeSeries", 1)?, &mut view.plain)?;
                    view.labels = match view.labels {
                        _ if view.num_labels == 0 => Some(start..fields.offset()),
                        Some(range) if range.end == start => Some(range.start..fields.offset()),
                        _ => None,
                    };
                    view.num_labels += 1;
                }
                2 => {
                    check_sample(value.message("TimeSeries", 2)?, &mut view.plain)?;
                    view.num_samples += 1;
                }
                3 => {
                    check_exemplar(value.message("TimeSeries", 3)?, &mut view.plain)?;
                    view.num_exemplars += 1;
                }
                4 => {
                    value.message("TimeSeries", 4)?;
                    view.num_histograms += 1;
                }
                _ => view.plain = false,
            }
        }
    }

    /// Name and value of each label, as received and in that order.
    pub fn labels(&self) -> impl Iterator<Item = (&'a [u8], &'a [u8])> + Clone + use<'a> {
        Messages { fields: Fields::new(self.bytes), number: 1, left: self.num_labels }.map(label)
    }

    /// Timestamp (milliseconds since 1970) and value of each sample, as received and in that order.
    pub fn samples(&self) -> impl Iterator<Item = (i64, f64)> + Clone + use<'a> {
        Messages { fields: Fields::new(self.bytes), number: 2, left: self.num_samples }.map(sample)
    }

    /// How many labels there are.
    pub fn num_labels(&self) -> usize {
        self.num_labels
    }

    /// How many float samples there are.
    pub fn num_samples(&self) -> usize {
        self.num_samples
    }

    /// How many exemplars there are.
    pub fn num_exemplars(&self) -> usize {
        self.num_exemplars
    }

    /// How many native histograms there are. Their contents are not checked.
    pub fn num_histograms(&self) -> usize {
        self.num_histograms
    }

    /// Whether only known fields occur, each in its place and none repeated that should not be: then every receiver
    /// reads these bytes alike, and they may be forwarded as they are. Histograms count as unknown.
    pub fn is_plain(&self) -> bool {
        self.plain && self.num_histograms == 0
    }

    /// The encoded label fields, a ready key for looking up a series seen before: equal bytes mean equal labels.
    ///
    /// `None` if other fields lie between them, which no known sender does.
    pub fn label_bytes(&self) -> Option<&'a [u8]> {
        self.bytes.get(self.labels.clone()?)
    }

    /// The whole encoded series.
    pub fn bytes(&self) -> &'a [u8] {
        self.bytes
    }
}

fn check_label(bytes: &[u8], plain: &mut bool) -> Result<(), WalkError> {
    let mut seen = Once::new(plain);
    let mut fields = Fields::new(bytes);
    while let Some((number, value)) = fields.next()? {
        match number {
            1 | 2 => {
                value.message("LabelPair", number)?;
                seen.mark(number);
            }
            _ => seen.unknown(),
        }
    }
    Ok(())
}

fn check_sample(bytes: &[u8], plain: &mut bool) -> Result<(), WalkError> {
    let mut seen = Once::new(plain);
    let mut fields = Fields::new(bytes);
    while let Some((number, value)) = fields.next()? {
        match number {
            1 => {
                value.fixed64("Sample", 1)?;
                seen.mark(1);
            }
            2 => {
                value.varint("Sample", 2)?;
                seen.mark(2);
            }
            _ => seen.unknown(),
        }
    }
    Ok(())
}

fn check_exemplar(bytes: &[u8], plain: &mut bool) -> Result<(), WalkError> {
    let mut fields = Fields::new(bytes);
    let mut labels_plain = true;
    let mut seen = Once::new(plain);
    while let Some((number, value)) = fields.next()? {
        match number {
            1 => check_label(value.message("Exemplar", 1)?, &mut labels_plain)?,
            2 => {
                value.fixed64("Exemplar", 2)?;
                seen.mark(2);
            }
            3 => {
                value.varint("Exemplar", 3)?;
                seen.mark(3);
            }
            _ => seen.unknown(),
        }
    }
    *plain &= labels_plain;
    Ok(())
}

/// Reads a checked label; of a repeated field the last counts, as everywhere in protobuf.
fn label(bytes: &[u8]) -> (&[u8], &[u8]) {
    let (mut name, mut text) = (&[][..], &[][..]);
    let mut fields = Fields::new(bytes);
    while let Ok(Some((number, value))) = fields.next() {
        match (number, value) {
            (1, Value::Bytes(bytes)) => name = bytes,
            (2, Value::Bytes(bytes)) => text = bytes,
            _ => (),
        }
    }
    (name, text)
}

/// Reads a checked sample.
fn sample(bytes: &[u8]) -> (i64, f64) {
    let (mut at, mut bits) = (0, 0);
    let mut fields = Fields::new(bytes);
    while let Ok(Some((number, value))) = fields.next() {
        match (number, value) {
            (1, Value::Fixed64(value)) => bits = value,
            (2, Value::Varint(value)) => at = value.cast_signed(),
            _ => (),
        }
    }
    (at, f64::from_bits(bits))
}

/// Clears `plain` when a field that may occur once occurs again, or an unknown one does.
struct Once<'p> {
    seen: u8,
    plain: &'p mut bool,
}

impl<'p> Once<'p> {
    fn new(plain: &'p mut bool) -> Self {
        Self { seen: 0, plain }
    }

    fn mark(&mut self, number: u32) {
        let bit = 1 << (number & 7);
        *self.plain &= self.seen & bit == 0;
        self.seen |= bit;
    }

    fn unknown(&mut self) {
        *self.plain = false;
    }
}

/// The contents of the fields with one number; the bytes have been checked before.
#[derive(Clone)]
struct Messages<'a> {
    fields: Fields<'a>,
    number: u32,
    left: usize,
}

impl<'a> Iterator for Messages<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        // Counting saves the walk over the samples behind the last label.
        self.left = self.left.checked_sub(1)?;
        while let Ok(Some((number, value))) = self.fields.next() {
            if let (true, Value::Bytes(bytes)) = (number == self.number, value) {
                return Some(bytes);
            }
        }
        None
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left, Some(self.left))
    }
}

/// The value of one field.
#[derive(Clone, Copy)]
enum Value<'a> {
    Varint(u64),
    Fixed64(u64),
    Bytes(&'a [u8]),
    Fixed32,
}

impl<'a> Value<'a> {
    fn message(self, message: &'static str, field: u32) -> Result<&'a [u8], WalkError> {
        match self {
            Self::Bytes(bytes) => Ok(bytes),
            _ => Err(self.mismatch(message, field)),
        }
    }

    fn fixed64(self, message: &'static str, field: u32) -> Result<u64, WalkError> {
        match self {
            Self::Fixed64(value) => Ok(value),
            _ => Err(self.mismatch(message, field)),
        }
    }

    fn varint(self, message: &'static str, field: u32) -> Result<u64, WalkError> {
        match self {
            Self::Varint(value) => Ok(value),
            _ => Err(self.mismatch(message, field)),
        }
    }

    fn mismatch(self, message: &'static str, field: u32) -> WalkError {
        let wire = match self {
            Self::Varint(_) => 0,
            Self::Fixed64(_) => 1,
            Self::Bytes(_) => 2,
            Self::Fixed32 => 5,
        };
        WalkError::WireType { message, field, wire }
    }
}

/// A cursor over the fields of one message.
#[derive(Clone)]
struct Fields<'a> {
    rest: &'a [u8],
    len: usize,
}

impl<'a> Fields<'a> {
    fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes, len: bytes.len() }
    }

    fn offset(&self) -> usize {
        self.len - self.rest.len()
    }

    #[inline]
    fn next(&mut self) -> Result<Option<(u32, Value<'a>)>, WalkError> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        let key = self.varint()?;
        let number = u32::try_from(key).map_err(|_| WalkError::Key(key))? >> 3;
        if number == 0 {
            return Err(WalkError::Key(key));
        }
        let value = match key & 7 {
            0 => Value::Varint(self.varint()?),
            1 => Value::Fixed64(u64::from_le_bytes(self.array()?)),
            2 => {
                let len = usize::try_from(self.varint()?).map_err(|_| WalkError::Truncated)?;
                let (bytes, rest) = self.rest.split_at_checked(len).ok_or(WalkError::Truncated)?;
                self.rest = rest;
                Value::Bytes(bytes)
            }
            5 => {
                self.array::<4>()?;
                Value::Fixed32
            }
            _ => return Err(WalkError::Key(key)),
        };
        Ok(Some((number, value)))
    }

    #[inline]
    fn varint(&mut self) -> Result<u64, WalkError> {
        let mut value = 0;
        for shift in (0..70).step_by(7) {
            let (&byte, rest) = self.rest.split_first().ok_or(WalkError::Truncated)?;
            self.rest = rest;
            if shift == 63 && byte > 1 {
                return Err(WalkError::Overlong);
            }
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(WalkError::Overlong)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], WalkError> {
        let (bytes, rest) = self.rest.split_first_chunk().ok_or(WalkError::Truncated)?;
        self.rest = rest;
        Ok(*bytes)
    }
}

#[cfg(test)]
mod tests;
