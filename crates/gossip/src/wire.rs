//! How members talk: [`Datagram`]s for what may get lost, [`Frame`]s on streams for what may not.
//!
//! ```text
//! datagram  0x9b | u8 version | u8 flags | u8 key id | u64 label hash | u64 session | u64 nonce or checksum | section*
//! section   u8 kind | u16 length | bytes         1 SWIM  2 records  3 adverts  4 root digest  5 stale heartbeats  6 beacon
//! frame     u32 length | u8 type | bytes         the length is of all that follows it
//! packed    u32 length | u8 13 | u32 unpacked length | lz4 block of the type and bytes of another frame
//!
//! record    key | entry | version | u64 author | u8 flags | varint age_ms, if flagged | text body, unless a tombstone
//! advert    key | entry | version | u64 author | varint size
//! digest    u64 hash of members | (text key | u128 root)*
//! stale     u64*
//! beacon    u64 author | u64 hlc | varint age_ms
//!
//! key       varint number, and where that number is the next one: text name. Numbers start anew in every list
//! entry     text id | u8 facet
//! version   varint epoch | u64 hlc
//! text      varint length | bytes
//! varint    LEB128 of at most 64 bits, in as few bytes as possible
//! ```
//!
//! All integers are little-endian. Lists have no count: they go on until their section or frame ends.
//!
//! Sealing is done elsewhere: [`Header::parse`] tells whether it is needed, [`Sections::new`] reads what was opened.
//!
//! Whatever comes in may come from a hostile peer: reading returns errors that say where, never panics, and allocates only
//! for what is there, whatever a length claims. What is packed takes up to [`MAX_UNPACKED_BYTES`] for a moment.

mod code;
mod datagram;
mod frame;
mod label;
mod list;
mod pack;

pub use self::datagram::{
    Beacon, Datagram, DatagramWriter, Digest, FLAG_SEALED, HEADER_BYTES, Header, MAX_DATAGRAM_BYTES, Section,
    Sections, Stale,
};
pub use self::frame::{Frame, FrameReader, MAX_FRAME_BYTES, MAX_FRAME_ITEMS, MemberEntry};
pub use self::label::label_hash;
pub use self::list::{Advert, Adverts, Record, RecordList, Records, RecordsWriter, Roots};
pub use self::pack::MAX_UNPACKED_BYTES;

/// The first byte of every datagram, and of every stream, before its frames.
pub const MAGIC: u8 = 0x9b;
/// What is spoken here: the major version in the upper four bits, the minor one in the lower four.
pub const VERSION: u8 = 0x10;
/// Longest key, in bytes.
pub const MAX_KEY_BYTES: usize = 1 << 10;
/// Longest text that is neither key nor id, such as a label, in bytes.
pub const MAX_TEXT_BYTES: usize = 1 << 10;

/// Whether somebody who speaks `version` can be understood: the major version counts, the minor one does not.
pub fn is_compatible(version: u8) -> bool {
    version >> 4 == VERSION >> 4
}

/// What came in cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{fault}, at byte {at}")]
pub struct WireError {
    /// Where: counted from the first byte of the datagram, or of the frame's length; in what was packed, as if it had come
    /// unpacked.
    pub at: usize,
    /// Why.
    pub fault: Fault,
}

/// Why something cannot be read, or why nobody could read it if it were sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Fault {
    /// The bytes end before the value does.
    #[error("it ends early")]
    Short,
    /// It does not begin as ours do.
    #[error("it begins with {0:#04x}, which is not ours")]
    Magic(u8),
    /// The sender speaks another major version.
    #[error("its version {0:#04x} cannot be read")]
    Version(u8),
    /// A flag is set that is not known, and that may change what the rest means.
    #[error("flags {0:#04x} are not all known")]
    Flags(u8),
    /// It must be opened first.
    #[error("it is sealed")]
    Sealed(Header),
    /// It was damaged on its way.
    #[error("its checksum does not match")]
    Checksum,
    /// A number is longer than it need be, or larger than it may be.
    #[error("a number is longer or larger than it may be")]
    Number,
    /// More bytes or items than allowed.
    #[error("its length of {len} is over the limit of {max}")]
    TooLong {
        /// How many there are, or are said to be.
        len: u64,
        /// How many there may be.
        max: usize,
    },
    /// A text is not UTF-8.
    #[error("a text is not UTF-8")]
    Text,
    /// A key's number was not given out yet.
    #[error("no key has number {0}")]
    Key(u64),
    /// No entry has such a part.
    #[error("no entry has a facet {0}")]
    Facet(u8),
    /// A member's address is of no known kind.
    #[error("a member's address is of unknown kind {0}")]
    Address(u8),
    /// What may be there once is there twice.
    #[error("it is there twice")]
    Repeated,
    /// What is packed cannot be unpacked, or not to what it is said to be.
    #[error("it cannot be unpacked")]
    Packed,
    /// Something packed is packed once more.
    #[error("it is packed twice")]
    Nested,
    /// A frame is of no known type.
    #[error("its type {0} is not known")]
    Type(u8),
    /// A truth value is neither 0 nor 1.
    #[error("{0} is no truth value")]
    Bool(u8),
    /// What must ascend does not.
    #[error("its items do not ascend")]
    Order,
    /// Something follows what should be all.
    #[error("something follows its end")]
    Trailing,
}

#[cfg(test)]
mod tests;
