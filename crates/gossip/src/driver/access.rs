//! [`Access`]: what those may do who have their turn on a member's task.

use bytes::Bytes;
use smol_str::SmolStr;

use super::Observer;
use super::machine::Machine;
use crate::api::{Command, Input};
use crate::member::Member;
use crate::node::Node;
use crate::register::EntryId;
use crate::seal::ClusterKey;
use crate::time::Now;

/// A turn on a member's task, given by [`Handle::call`](super::Handle::call). While it lasts, the member does nothing else.
pub struct Access<'a, O> {
    /// Who observes the member.
    pub observer: &'a mut O,
    pub(super) machine: &'a mut Machine,
}

impl<O: Observer> Access<'_, O> {
    /// The member, without its keys.
    pub fn node(&self) -> &Node {
        self.machine.member().node()
    }

    /// The member.
    pub fn member(&self) -> &Member {
        self.machine.member()
    }

    /// This moment.
    pub fn now(&self) -> Now {
        self.machine.now()
    }

    /// Writes registers of a key as this member's own, whatever is there; `None` removes. The observer has been told when this
    /// returns, and the others hear of it within milliseconds.
    ///
    /// # Errors
    ///
    /// Why a register was refused, as a word for a metric's label. Those before it were written. `left` if the member has left, or
    /// failed, be it meanwhile.
    pub fn upsert(
        &mut self,
        key: &SmolStr,
        changes: Vec<(EntryId, Option<Bytes>)>,
    ) -> Result<(), &'static str> {
        if self.machine.is_over() {
            return Err("left");
        }
        // What is due is done first, so that what is refused then is not taken for a refusal of this.
        self.machine.tick(self.observer);
        if self.machine.is_over() {
            return Err("left");
        }
        let now = self.machine.now();
        let refused = self.command(now, Command::Upsert { key: key.clone(), changes });
        match refused {
            Some(reason) => Err(reason),
            // What was written with its last breath nobody hears of.
            None if self.machine.is_over() => Err("left"),
            None => Ok(()),
        }
    }

    /// Repairs what no ordinary write can: see [`Command::Heal`]. Returns how many registers were written.
    pub fn heal(&mut self, key: &SmolStr, id: Option<SmolStr>) -> usize {
        let healed = |access: &Self| access.node().status().totals.healed;
        let (now, before) = (self.machine.now(), healed(self));
        self.command(now, Command::Heal { key: key.clone(), id });
        usize::try_from(healed(self).saturating_sub(before)).unwrap_or(usize::MAX)
    }

    /// From now on, the first of these keys seals and all of them open. Streams sealed with others are closed.
    pub fn set_keys(&mut self, keys: Vec<ClusterKey>) {
        self.machine.set_keys(self.observer, keys);
    }

    pub(super) fn leave(&mut self) {
        let now = self.machine.now();
        self.command(now, Command::Leave);
    }

    fn command(&mut self, now: Now, command: Command) -> Option<&'static str> {
        self.machine.feed(self.observer, now, Input::Command(command))
    }
}
