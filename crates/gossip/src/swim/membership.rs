//! What the rest needs of an engine of membership, whichever protocol it speaks.

use std::net::SocketAddr;
use std::time::Duration;

use super::{MemberState, ProbeId, Swim, SwimError, SwimOut};
use crate::time::Now;

/// An engine that knows who is alive, without I/O.
pub trait Membership {
    /// A message about members came from `from`.
    ///
    /// # Errors
    ///
    /// [`SwimError`] if it was refused.
    fn on_packet(
        &mut self,
        now: Now,
        from: SocketAddr,
        payload: &[u8],
        out: &mut SwimOut,
    ) -> Result<(), SwimError>;

    /// A probe that was to be made over a stream was answered by the very life that was asked for, which has refuted so many
    /// suspicions.
    fn on_stream_probe(&mut self, now: Now, probe: ProbeId, incarnation: u16, out: &mut SwimOut);

    /// [`Membership::next_deadline`] has come.
    fn on_deadline(&mut self, now: Now, out: &mut SwimOut);

    /// When something is to be done even if nothing comes, in monotonic time.
    fn next_deadline(&self) -> Option<Duration>;

    /// All it knows, for another one to [`import`](Membership::import).
    fn export(&self) -> impl Iterator<Item = MemberState>;

    /// Takes in what another one knows.
    fn import(&mut self, now: Now, members: &mut dyn Iterator<Item = MemberState>, out: &mut SwimOut);

    /// Begins to leave.
    fn leave(&mut self, now: Now, out: &mut SwimOut);
}

impl Membership for Swim {
    fn on_packet(
        &mut self,
        now: Now,
        _from: SocketAddr,
        payload: &[u8],
        out: &mut SwimOut,
    ) -> Result<(), SwimError> {
        self.handle_datagram(now, payload, out)
    }

    fn on_stream_probe(&mut self, now: Now, probe: ProbeId, incarnation: u16, out: &mut SwimOut) {
        self.stream_probe_answered(now, probe, incarnation, out);
    }

    fn on_deadline(&mut self, now: Now, out: &mut SwimOut) {
        self.handle_due(now, out);
    }

    fn next_deadline(&self) -> Option<Duration> {
        Self::next_deadline(self)
    }

    fn export(&self) -> impl Iterator<Item = MemberState> {
        Self::export(self)
    }

    fn import(&mut self, now: Now, members: &mut dyn Iterator<Item = MemberState>, out: &mut SwimOut) {
        self.apply(now, members, out);
    }

    fn leave(&mut self, now: Now, out: &mut SwimOut) {
        Self::leave(self, now, out);
    }
}
