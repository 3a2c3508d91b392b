//! Who is at the other end of a stream, and whether it may go on.

use super::{Node, OWN_ADDRESS, Stream};
use crate::api::{Output, StreamId};
use crate::id::name_hash;
use crate::time::Now;
use crate::wire::{Frame, VERSION, is_compatible};

impl Node {
    pub(super) fn hello(&self) -> Frame {
        let config = &self.config;
        Frame::Hello {
            version: VERSION,
            label: config.label.clone(),
            node: self.id(),
            name: config.name.clone(),
            build: config.build.clone(),
            settled: self.settled,
        }
    }

    /// Who is at the other end.
    pub(super) fn on_hello(
        &mut self,
        now: Now,
        id: StreamId,
        stream: &mut Stream,
        frame: Frame,
        out: &mut Vec<Output>,
    ) -> Result<(), &'static str> {
        let (version, label, node, name, settled) = match frame {
            Frame::Hello { version, label, node, name, settled, .. } => (version, label, node, name, settled),
            Frame::Error { .. } => return Err("peer_error"),
            _ => return Err("no_hello"),
        };
        if !is_compatible(version) {
            return Err("version");
        }
        if !self.takes_label(&label) {
            return Err("label");
        }
        if name_hash(&name) != node.name {
            return Err("wrong_name");
        }
        if stream.is_inbound() {
            let hello = self.hello();
            self.say(id, stream, &[hello], out)?;
            // Members that share a host do not share what a stranger may have.
            let is_there = stream.peer.ip() == node.addr.ip();
            if is_there && self.peers.by_addr(node.addr).is_some_and(|peer| peer.id == node) {
                stream.counted_for = node.addr;
            }
        } else if node == self.id() {
            return Err(OWN_ADDRESS);
        }
        if node.name == self.own_name {
            return Err("own_name");
        }
        if !stream.is_inbound() {
            self.join.answered(now.mono, stream.peer, node, settled);
        }
        stream.node = Some(node);
        stream.settled = settled;
        Ok(())
    }

    /// Whether one more session may be begun by others.
    pub(super) fn check_session(&self, stream: &Stream) -> Result<(), &'static str> {
        let others = self.streams.values().filter(|other| other.in_session());
        let (mut all, mut same) = (0, 0);
        for other in others {
            all += 1;
            same += usize::from(other.counted_for == stream.counted_for);
        }
        if all >= self.config.inbound_sessions {
            return Err("too_many_sessions");
        }
        if same >= self.config.inbound_sessions_per_address {
            return Err("too_many_sessions_of_one");
        }
        Ok(())
    }
}
