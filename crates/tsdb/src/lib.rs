//! Formats of the metrics store, without I/O and without policy: XOR chunks, log records, label matchers, label sets.
//!
//! Whatever is read here may come from a damaged disk or a hostile peer: decoding returns errors, never panics, and
//! never allocates more than the input justifies.

pub mod labels;
pub mod log;
pub mod matcher;
mod varint;
pub mod xor;

pub use labels::Labels;
pub use matcher::{Matcher, Matchers, Op};
pub use xor::{XorChunk, XorIter};

/// The bits of the value that marks the end of a series: a NaN, so it must be compared by its bits.
pub const STALE_NAN_BITS: u64 = 0x7ff0_0000_0000_0002;
