//! Packed frames: one frame in another one, with lz4.

use bytes::Bytes;
use lz4_flex::block;

use super::code::Cursor;
use super::frame::LENGTH_BYTES;
use super::{Fault, MAX_FRAME_BYTES, WireError};

/// Longest frame that a packed one may turn into, in bytes behind its length.
pub const MAX_UNPACKED_BYTES: usize = 4 * MAX_FRAME_BYTES;

/// The type of a frame that has another one in it.
pub(super) const PACKED: u8 = 13;

/// Up to this length packing is not worth the work, in bytes behind the length.
const MIN_BYTES: usize = 512;
/// Where the block begins: behind length, type, and length of what is in it.
const BLOCK_AT: usize = LENGTH_BYTES + 1 + 4;
/// For how many bytes one byte of a block can stand at most.
const MAX_RATIO: usize = 255;

/// A frame as it is encoded, packed. `None` if that does not make it shorter by at least an eighth.
pub(super) fn pack(frame: &[u8]) -> Option<Bytes> {
    let body = frame.get(LENGTH_BYTES..)?;
    if body.len() <= MIN_BYTES {
        return None;
    }
    let mut packed = vec![0_u8; BLOCK_AT + block::get_maximum_output_size(body.len())];
    let block_len = block::compress_into(body, &mut packed[BLOCK_AT..]).ok()?;
    packed.truncate(BLOCK_AT + block_len);
    let len = packed.len() - LENGTH_BYTES;
    if len > body.len() - body.len() / 8 {
        return None;
    }
    // Neither can be cut off: no frame is that long.
    packed[..LENGTH_BYTES].copy_from_slice(&(len as u32).to_le_bytes());
    packed[LENGTH_BYTES] = PACKED;
    packed[LENGTH_BYTES + 1..BLOCK_AT].copy_from_slice(&(body.len() as u32).to_le_bytes());
    Some(packed.into())
}

/// What is in a packed frame, of which `cursor` is behind the type.
pub(super) fn unpack(mut cursor: Cursor<'_>) -> Result<Bytes, WireError> {
    let start = cursor;
    let len = cursor.u32()?;
    let claimed = len as usize;
    if claimed > MAX_UNPACKED_BYTES {
        return Err(start.error(Fault::TooLong { len: len.into(), max: MAX_UNPACKED_BYTES }));
    }
    let start = cursor;
    let block = cursor.take_rest();
    // No room is made for more than the block can stand for, whatever is claimed.
    if claimed > block.len().saturating_mul(MAX_RATIO) {
        return Err(start.error(Fault::Packed));
    }
    let mut unpacked = vec![0_u8; claimed];
    match block::decompress_into(block, &mut unpacked) {
        Ok(len) if len == claimed => Ok(unpacked.into()),
        _ => Err(start.error(Fault::Packed)),
    }
}
