//! How members and messages about them are written: fixed fields, little-endian, nothing optional.

use bytes::{Buf, BufMut, TryGetError};
use foca::{Header, Member, Message, State};

use crate::id::{BadId, MAX_ENCODED_BYTES, NodeId};

/// Longest header: three ids, an incarnation, a kind and the number of a probe.
pub(super) const MAX_HEADER_BYTES: usize = 3 * MAX_ENCODED_BYTES + 2 + 1 + 1;
/// Longest member.
pub(super) const MAX_MEMBER_BYTES: usize = MAX_ENCODED_BYTES + 2 + 1;
/// How much shorter an id with an IPv4 address is.
const IPV4_SAVES: usize = 12;

const PING: u8 = 1;
const ACK: u8 = 2;
const PING_REQ: u8 = 3;
const INDIRECT_PING: u8 = 4;
const INDIRECT_ACK: u8 = 5;
const FORWARDED_ACK: u8 = 6;
const ANNOUNCE: u8 = 7;
const FEED: u8 = 8;
const GOSSIP: u8 = 9;
const BROADCAST: u8 = 10;
const TURN_UNDEAD: u8 = 11;

/// What one member thinks of another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemberState {
    /// Of whom.
    pub id: NodeId,
    /// Which of its answers to suspicions this is about: a later one overrules an earlier one.
    pub incarnation: u16,
    /// Whether it is alive.
    pub state: State,
}

impl MemberState {
    /// Appends it.
    pub fn encode(&self, out: &mut impl BufMut) {
        self.id.encode(out);
        out.put_u16_le(self.incarnation);
        out.put_u8(match self.state {
            State::Alive => 0,
            State::Suspect => 1,
            State::Down => 2,
        });
    }

    /// Reads one and moves on behind it.
    ///
    /// # Errors
    ///
    /// [`BadMessage`] if the bytes end early or are none.
    pub fn decode(bytes: &mut &[u8]) -> Result<Self, BadMessage> {
        let id = NodeId::decode(bytes)?;
        let incarnation = bytes.try_get_u16_le()?;
        let state = match bytes.try_get_u8()? {
            0 => State::Alive,
            1 => State::Suspect,
            2 => State::Down,
            state => return Err(BadMessage::State(state)),
        };
        Ok(Self { id, incarnation, state })
    }
}

impl From<&Member<NodeId>> for MemberState {
    fn from(member: &Member<NodeId>) -> Self {
        Self { id: *member.id(), incarnation: member.incarnation(), state: member.state() }
    }
}

impl From<MemberState> for Member<NodeId> {
    fn from(member: MemberState) -> Self {
        Self::new(member.id, member.incarnation, member.state)
    }
}

/// Bytes that are no message about members.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BadMessage {
    /// They end early.
    #[error("a message about members ends early")]
    Short,
    /// They go on behind the end.
    #[error("{0} bytes follow the end of a message about members")]
    Trailing(usize),
    /// They are a message of no known kind.
    #[error("a message about members is of unknown kind {0}")]
    Kind(u8),
    /// They tell a state that there is not.
    #[error("a member is in unknown state {0}")]
    State(u8),
    /// They name a member that cannot be.
    #[error(transparent)]
    Id(#[from] BadId),
    /// What is to be written is longer than the room for it.
    #[error("no room is left for a message about members")]
    NoRoom,
}

impl From<TryGetError> for BadMessage {
    fn from(_: TryGetError) -> Self {
        Self::Short
    }
}

/// Reads and writes for foca.
#[derive(Clone, Copy, Debug)]
pub(super) struct Codec;

impl foca::Codec<NodeId> for Codec {
    type Error = BadMessage;

    fn encode_header(&mut self, header: &Header<NodeId>, mut buf: impl BufMut) -> Result<(), BadMessage> {
        write_header(header, &mut buf)
    }

    fn decode_header(&mut self, mut buf: impl Buf) -> Result<Header<NodeId>, BadMessage> {
        read_from(&mut buf, read_header)
    }

    fn encode_member(&mut self, member: &Member<NodeId>, mut buf: impl BufMut) -> Result<(), BadMessage> {
        write_member(member, &mut buf)
    }

    fn decode_member(&mut self, mut buf: impl Buf) -> Result<Member<NodeId>, BadMessage> {
        read_from(&mut buf, |bytes| MemberState::decode(bytes).map(Member::from))
    }
}

/// Reads a whole message: its header, and into `updates` the members that follow. Also tells whether members may follow at all:
/// a message may end before their number.
pub(super) fn read_message(
    mut bytes: &[u8],
    updates: &mut Vec<Member<NodeId>>,
) -> Result<(Header<NodeId>, bool), BadMessage> {
    updates.clear();
    let header = read_header(&mut bytes)?;
    if bytes.is_empty() {
        return Ok((header, false));
    }
    // foca itself writes and reads this number, in network order.
    let count = bytes.try_get_u16()?;
    for _ in 0..count {
        updates.push(MemberState::decode(&mut bytes)?.into());
    }
    if bytes.is_empty() { Ok((header, true)) } else { Err(BadMessage::Trailing(bytes.len())) }
}

/// A whole message. Without `updates` it ends before their number.
pub(super) fn write_message(
    header: &Header<NodeId>,
    updates: Option<&[Member<NodeId>]>,
) -> Result<Vec<u8>, BadMessage> {
    let count = updates.map_or(0, <[_]>::len);
    let mut bytes = Vec::with_capacity(MAX_HEADER_BYTES + 2 + count * MAX_MEMBER_BYTES);
    write_header(header, &mut bytes)?;
    if let Some(updates) = updates {
        bytes.put_u16(u16::try_from(count).map_err(|_| BadMessage::NoRoom)?);
        for member in updates {
            write_member(member, &mut bytes)?;
        }
    }
    Ok(bytes)
}

fn read_header(bytes: &mut &[u8]) -> Result<Header<NodeId>, BadMessage> {
    let kind = bytes.try_get_u8()?;
    let src_incarnation = bytes.try_get_u16_le()?;
    let src = NodeId::decode(bytes)?;
    let dst = NodeId::decode(bytes)?;
    let message = match kind {
        PING => Message::Ping(bytes.try_get_u8()?),
        ACK => Message::Ack(bytes.try_get_u8()?),
        PING_REQ => Message::PingReq { probe_number: bytes.try_get_u8()?, target: NodeId::decode(bytes)? },
        INDIRECT_PING => {
            Message::IndirectPing { probe_number: bytes.try_get_u8()?, origin: NodeId::decode(bytes)? }
        }
        INDIRECT_ACK => {
            Message::IndirectAck { probe_number: bytes.try_get_u8()?, target: NodeId::decode(bytes)? }
        }
        FORWARDED_ACK => {
            Message::ForwardedAck { probe_number: bytes.try_get_u8()?, origin: NodeId::decode(bytes)? }
        }
        ANNOUNCE => Message::Announce,
        FEED => Message::Feed,
        GOSSIP => Message::Gossip,
        TURN_UNDEAD => Message::TurnUndead,
        // Nobody sends broadcasts this way, so their kind is as unknown as any other.
        kind => return Err(BadMessage::Kind(kind)),
    };
    Ok(Header { src, src_incarnation, dst, message })
}

fn write_header(header: &Header<NodeId>, buf: &mut impl BufMut) -> Result<(), BadMessage> {
    let (kind, number, third) = match &header.message {
        Message::Ping(number) => (PING, Some(*number), None),
        Message::Ack(number) => (ACK, Some(*number), None),
        Message::PingReq { target, probe_number } => (PING_REQ, Some(*probe_number), Some(target)),
        Message::IndirectPing { origin, probe_number } => (INDIRECT_PING, Some(*probe_number), Some(origin)),
        Message::IndirectAck { target, probe_number } => (INDIRECT_ACK, Some(*probe_number), Some(target)),
        Message::ForwardedAck { origin, probe_number } => (FORWARDED_ACK, Some(*probe_number), Some(origin)),
        Message::Announce => (ANNOUNCE, None, None),
        Message::Feed => (FEED, None, None),
        Message::Gossip => (GOSSIP, None, None),
        Message::Broadcast => return Err(BadMessage::Kind(BROADCAST)),
        Message::TurnUndead => (TURN_UNDEAD, None, None),
    };
    let ids = id_bytes(&header.src) + id_bytes(&header.dst) + third.map_or(0, id_bytes);
    if buf.remaining_mut() < 1 + 2 + ids + usize::from(number.is_some()) {
        return Err(BadMessage::NoRoom);
    }
    buf.put_u8(kind);
    buf.put_u16_le(header.src_incarnation);
    header.src.encode(buf);
    header.dst.encode(buf);
    if let Some(number) = number {
        buf.put_u8(number);
    }
    if let Some(third) = third {
        third.encode(buf);
    }
    Ok(())
}

fn write_member(member: &Member<NodeId>, buf: &mut impl BufMut) -> Result<(), BadMessage> {
    if buf.remaining_mut() < id_bytes(member.id()) + 2 + 1 {
        return Err(BadMessage::NoRoom);
    }
    MemberState::from(member).encode(buf);
    Ok(())
}

fn id_bytes(id: &NodeId) -> usize {
    if id.addr.is_ipv4() { MAX_ENCODED_BYTES - IPV4_SAVES } else { MAX_ENCODED_BYTES }
}

/// Reads from the front of `buf`, which foca promises to be one piece.
fn read_from<T>(
    buf: &mut impl Buf,
    read: impl FnOnce(&mut &[u8]) -> Result<T, BadMessage>,
) -> Result<T, BadMessage> {
    let mut bytes = buf.chunk();
    let before = bytes.len();
    let item = read(&mut bytes)?;
    let used = before - bytes.len();
    buf.advance(used);
    Ok(item)
}

#[cfg(test)]
mod tests {
    use foca::Codec as _;

    use super::*;

    fn ids() -> [NodeId; 3] {
        [
            NodeId::new("a", 1, "10.0.0.1:7946".parse().unwrap()),
            NodeId::new("b", 2, "[2001:db8::2]:7946".parse().unwrap()),
            NodeId::new("c", 3, "[2001:db8::3]:7946".parse().unwrap()),
        ]
    }

    fn headers() -> Vec<Header<NodeId>> {
        let [src, dst, third] = ids();
        [
            Message::Ping(7),
            Message::Ack(8),
            Message::PingReq { target: third, probe_number: 9 },
            Message::IndirectPing { origin: third, probe_number: 10 },
            Message::IndirectAck { target: third, probe_number: 11 },
            Message::ForwardedAck { origin: third, probe_number: 12 },
            Message::Announce,
            Message::Feed,
            Message::Gossip,
            Message::TurnUndead,
        ]
        .into_iter()
        .map(|message| Header { src, src_incarnation: 513, dst, message })
        .collect()
    }

    fn members() -> Vec<Member<NodeId>> {
        let [a, b, c] = ids();
        vec![
            Member::new(a, 0, State::Alive),
            Member::new(b, 1, State::Suspect),
            Member::new(c, u16::MAX, State::Down),
        ]
    }

    #[test]
    fn messages_come_back_as_they_were_and_cut_ones_do_not() {
        let mut updates = Vec::new();
        for header in headers() {
            let bytes = write_message(&header, Some(&members())).unwrap();
            assert_eq!(read_message(&bytes, &mut updates), Ok((header.clone(), true)));
            assert_eq!(updates, members());
            let bare = write_message(&header, None).unwrap();
            assert!(bare.len() <= MAX_HEADER_BYTES && bytes.starts_with(&bare));
            assert_eq!(read_message(&bare, &mut updates), Ok((header, false)));
            for end in (0..bytes.len()).filter(|end| *end != bare.len()) {
                assert!(read_message(&bytes[..end], &mut updates).is_err(), "cut at {end}");
            }
            let longer = [&bytes[..], &[0]].concat();
            assert_eq!(read_message(&longer, &mut updates), Err(BadMessage::Trailing(1)));
        }
    }

    #[test]
    fn kinds_and_states_that_there_are_not_are_told_apart() {
        let mut bytes = write_message(&headers()[0], Some(&members())).unwrap();
        let mut updates = Vec::new();
        bytes[0] = BROADCAST;
        assert_eq!(read_message(&bytes, &mut updates), Err(BadMessage::Kind(BROADCAST)));
        bytes[0] = PING;
        *bytes.last_mut().unwrap() = 3;
        assert_eq!(read_message(&bytes, &mut updates), Err(BadMessage::State(3)));
    }

    #[test]
    fn what_does_not_fit_leaves_no_trace() {
        for header in headers() {
            let whole = write_message(&header, None).unwrap();
            for room in 0..whole.len() {
                let mut buf = Vec::<u8>::new().limit(room);
                assert_eq!(Codec.encode_header(&header, &mut buf), Err(BadMessage::NoRoom));
                assert!(buf.get_ref().is_empty());
            }
            assert_eq!(Codec.decode_header(&whole[..]), Ok(header));
        }
        for member in members() {
            let mut whole = Vec::new();
            Codec.encode_member(&member, &mut whole).unwrap();
            assert!(whole.len() <= MAX_MEMBER_BYTES);
            let mut buf = Vec::<u8>::new().limit(whole.len() - 1);
            assert_eq!(Codec.encode_member(&member, &mut buf), Err(BadMessage::NoRoom));
            assert!(buf.get_ref().is_empty());
            let mut rest = &[&whole[..], b"rest"].concat()[..];
            assert_eq!(Codec.decode_member(&mut rest), Ok(member));
            assert_eq!(rest, b"rest");
        }
    }
}
