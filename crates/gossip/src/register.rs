//! [`Register`]: the unit that is stored, sent and merged. Of two registers of one place the one with the larger version counts:
//! that is the only rule of merging, and it is idempotent, commutative and associative because versions are totally ordered.

use bytes::Bytes;
use smol_str::SmolStr;
use xxhash_rust::xxh3::xxh3_64;

use crate::time::Hlc;

/// Longest id of an entry, in bytes.
pub const MAX_ID_BYTES: usize = 256;
/// Longest body of a register, in bytes.
pub const MAX_BODY_BYTES: usize = 256 << 10;
/// How many facets an entry may have.
pub const MAX_FACETS: u8 = 4;
/// The last epoch. In it, a later time is all that can overrule a register.
pub const MAX_EPOCH: u32 = u32::MAX - 1;

/// Which register of a key: an entry may be kept in several, so that what changes often is small.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EntryId {
    /// The entry, such as an instance's id.
    pub id: SmolStr,
    /// Its part, below [`MAX_FACETS`].
    pub facet: u8,
}

impl EntryId {
    /// The register of this entry and part.
    pub fn new(id: impl Into<SmolStr>, facet: u8) -> Self {
        Self { id: id.into(), facet }
    }
}

/// When a register was written. Compared by epoch, then by time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version {
    /// 0, unless somebody had to overrule versions from a clock that was ahead. At most [`MAX_EPOCH`].
    pub epoch: u32,
    /// By the author's clock.
    pub hlc: Hlc,
}

/// What a register holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Body {
    /// These bytes.
    Live(Bytes),
    /// It was removed.
    Tombstone,
}

/// One register.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Register {
    /// When it was written.
    pub version: Version,
    /// By whom: the hash of a member's name.
    pub author: u64,
    /// What it holds.
    pub body: Body,
}

/// The place of a register in the order of all that may be written to its place.
pub type Order = (Version, u64, u64);

impl Register {
    /// What it is compared by: version, then author, then body. Registers that compare equal are the same.
    pub fn order(&self) -> Order {
        (self.version, self.author, self.body_hash())
    }

    /// Whether it counts where `other` is.
    pub fn supersedes(&self, other: &Self) -> bool {
        // Hashing bodies is for ties only.
        match (self.version, self.author).cmp(&(other.version, other.author)) {
            std::cmp::Ordering::Equal => self.body_hash() > other.body_hash(),
            order => order.is_gt(),
        }
    }

    /// Whether it was removed.
    pub fn is_tombstone(&self) -> bool {
        self.body == Body::Tombstone
    }

    /// A hash of its body; of a tombstone the largest, so that on a tie a removal counts.
    pub fn body_hash(&self) -> u64 {
        match &self.body {
            Body::Live(bytes) => xxh3_64(bytes).min(u64::MAX - 1),
            Body::Tombstone => u64::MAX,
        }
    }

    /// A hash of all of it, for digests.
    pub fn hash(&self, key: &str, entry: &EntryId) -> u64 {
        let mut bytes = Vec::with_capacity(64 + key.len() + entry.id.len());
        for text in [key, &entry.id] {
            bytes.extend_from_slice(&(text.len() as u64).to_le_bytes());
            bytes.extend_from_slice(text.as_bytes());
        }
        bytes.push(entry.facet);
        bytes.extend_from_slice(&self.version.epoch.to_le_bytes());
        for number in [self.version.hlc.0, self.author, self.body_hash()] {
            bytes.extend_from_slice(&number.to_le_bytes());
        }
        xxh3_64(&bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn register(epoch: u32, hlc: u64, author: u64, body: Option<&'static [u8]>) -> Register {
        let body = body.map_or(Body::Tombstone, |bytes| Body::Live(Bytes::from_static(bytes)));
        Register { version: Version { epoch, hlc: Hlc(hlc) }, author, body }
    }

    #[test]
    fn versions_count_first_then_authors_then_bodies() {
        let ascending = [
            register(0, 1, 9, Some(b"z")),
            register(0, 2, 1, Some(b"z")),
            register(0, 2, 2, Some(b"a")),
            register(0, 2, 2, None),
            register(1, 0, 0, Some(b"a")),
        ];
        for (place, one) in ascending.iter().enumerate() {
            for (other_place, other) in ascending.iter().enumerate() {
                assert_eq!(one.supersedes(other), place > other_place, "{one:?} and {other:?}");
                assert_eq!(one.order() > other.order(), place > other_place);
            }
        }
    }

    #[test]
    fn digests_tell_every_part_apart() {
        let one = register(0, 1, 2, Some(b"a"));
        let place = EntryId::new("i", 0);
        let hash = one.hash("k", &place);
        assert_eq!(hash, one.clone().hash("k", &place));
        let others = [
            one.hash("l", &place),
            one.hash("k", &EntryId::new("j", 0)),
            one.hash("k", &EntryId::new("i", 1)),
            register(1, 1, 2, Some(b"a")).hash("k", &place),
            register(0, 2, 2, Some(b"a")).hash("k", &place),
            register(0, 1, 3, Some(b"a")).hash("k", &place),
            register(0, 1, 2, Some(b"b")).hash("k", &place),
            register(0, 1, 2, None).hash("k", &place),
        ];
        assert!(others.iter().all(|other| *other != hash));
    }
}
