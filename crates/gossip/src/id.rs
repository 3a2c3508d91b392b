//! Who is who: a member's name, and one of its lives.

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use bytes::{Buf as _, BufMut, TryGetError};
use xxhash_rust::xxh3::xxh3_64;

/// One life of a member. A restart under the same name, at whatever address, is the same member in a later life.
///
/// Names are carried as their hash; what a hash stands for is in a register of its owner.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NodeId {
    /// Hash of the member's name.
    pub name: u64,
    /// Which life: larger ones are later.
    pub generation: u64,
    /// Where it listens, for datagrams and streams.
    pub addr: SocketAddr,
}

/// The hash that stands for a member's name.
pub fn name_hash(name: &str) -> u64 {
    xxh3_64(name.as_bytes())
}

/// Largest encoded id, in bytes.
pub const MAX_ENCODED_BYTES: usize = 8 + 8 + 1 + 16 + 2;

impl NodeId {
    /// This life of the member called `name`.
    pub fn new(name: &str, generation: u64, addr: SocketAddr) -> Self {
        Self { name: name_hash(name), generation, addr }
    }

    /// Appends it: 23 bytes with an IPv4 address.
    pub fn encode(&self, out: &mut impl BufMut) {
        out.put_u64_le(self.name);
        out.put_u64_le(self.generation);
        match self.addr {
            SocketAddr::V4(addr) => {
                out.put_u8(4);
                out.put_slice(&addr.ip().octets());
            }
            SocketAddr::V6(addr) => {
                out.put_u8(6);
                out.put_slice(&addr.ip().octets());
            }
        }
        out.put_u16_le(self.addr.port());
    }

    /// Reads one and moves on behind it.
    ///
    /// # Errors
    ///
    /// [`BadId`] if the bytes end early or are none.
    pub fn decode(bytes: &mut &[u8]) -> Result<Self, BadId> {
        let (name, generation) = (bytes.try_get_u64_le()?, bytes.try_get_u64_le()?);
        let ip = match bytes.try_get_u8()? {
            4 => {
                let mut octets = [0; 4];
                bytes.try_copy_to_slice(&mut octets)?;
                Ipv4Addr::from(octets).into()
            }
            6 => {
                let mut octets = [0; 16];
                bytes.try_copy_to_slice(&mut octets)?;
                Ipv6Addr::from(octets).into()
            }
            kind => return Err(BadId::Address(kind)),
        };
        Ok(Self { name, generation, addr: SocketAddr::new(ip, bytes.try_get_u16_le()?) })
    }
}

impl fmt::Debug for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}/{}@{}", self.name, self.generation, self.addr)
    }
}

/// Bytes that are no id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadId {
    /// They end early.
    #[error("a member's id ends early")]
    Short,
    /// They name no kind of address.
    #[error("a member's id has an address of unknown kind {0}")]
    Address(u8),
}

impl From<TryGetError> for BadId {
    fn from(_: TryGetError) -> Self {
        Self::Short
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_come_back_as_they_were_and_cut_ones_do_not() {
        for (addr, len) in [("10.0.0.1:7946", 23), ("[2001:db8::1]:7946", 35)] {
            let id = NodeId::new("ingester-1", 7, addr.parse().unwrap());
            let mut bytes = Vec::new();
            id.encode(&mut bytes);
            assert!(bytes.len() == len && len <= MAX_ENCODED_BYTES);
            let mut rest = &[&bytes[..], b"rest"].concat()[..];
            assert_eq!(NodeId::decode(&mut rest).unwrap(), id);
            assert_eq!(rest, b"rest");
            for end in 0..bytes.len() {
                assert_eq!(NodeId::decode(&mut &bytes[..end]), Err(BadId::Short));
            }
        }
        let wrong = [&[0; 16][..], &[9, 1, 2, 3, 4, 5, 6]].concat();
        assert_eq!(NodeId::decode(&mut &wrong[..]), Err(BadId::Address(9)));
    }
}
