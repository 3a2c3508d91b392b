//! [`Unsettled`]: a write that a store was asked for and that it has not answered. Whoever wanted it may go away meanwhile, and it
//! may land all the same: then the store shows that it has, and note is taken of it.

use std::sync::Arc;
use std::time::Duration;

use ringkit_runtime::Backoff;
use tokio::time::{Instant, sleep};

use super::core::Core;
use super::delta::landed;
use super::key::OpenKey;
use super::place::Place;
use super::state::Begun;
use super::tasks::Tasks;
use crate::store::{Change, EntryId, Stored};

/// Waits between looks at what became of a write.
const MIN_LOOK: Duration = Duration::from_millis(50);
const MAX_LOOK: Duration = Duration::from_secs(2);
/// What does not show within that is believed not to have landed.
const LOOK_TIMEOUT: Duration = Duration::from_secs(10);

/// A write that is not answered yet. Dropped as such, it is looked after.
pub(super) struct Unsettled<'a> {
    pub(super) core: &'a Arc<Core>,
    pub(super) tasks: &'a Tasks,
    pub(super) open: &'a Arc<OpenKey>,
    pub(super) begun: &'a Begun,
    /// What was to be written; `None` = the key was to be removed.
    pub(super) change: Option<&'a Change>,
    pub(super) place: Place,
}

/// One whose writer is gone.
struct Left {
    core: Arc<Core>,
    open: Arc<OpenKey>,
    begun: Begun,
    change: Option<Change>,
    place: Place,
}

impl Unsettled<'_> {
    /// It is known what became of it.
    pub(super) fn settle(self) {
        // Nothing in it wants to be dropped, but itself.
        std::mem::forget(self);
    }
}

impl Drop for Unsettled<'_> {
    fn drop(&mut self) {
        let left = Left {
            core: Arc::clone(self.core),
            open: Arc::clone(self.open),
            begun: self.begun.clone(),
            change: self.change.cloned(),
            place: self.place,
        };
        self.tasks.spawn(left.look());
    }
}

impl Left {
    /// Looks at the store until it shows what became of the write. It is not written again: its writer may have thought better of
    /// it by now.
    async fn look(mut self) {
        let began = Instant::now();
        let mut backoff = Backoff::new(MIN_LOOK, MAX_LOOK);
        while began.elapsed() < LOOK_TIMEOUT {
            sleep(backoff.next().max(MIN_LOOK)).await;
            let read = self.core.read(&self.open, self.place).await;
            if let Ok(stored) = read
                && self.note(stored)
            {
                return;
            }
        }
    }

    /// Takes note of what landed, going by what the store holds. Returns whether all of it did.
    fn note(&mut self, stored: Option<Stored>) -> bool {
        let (codec, place) = (self.open.key.codec, self.place);
        let is_known = || self.open.look(|state| matches!(state.snapshot(place), Some(Some(_))));
        let number = match &mut self.change {
            // What was read may be from before something that was learned meanwhile.
            None if stored.is_some() || is_known() => return false,
            None => self.core.commit_deletion(&self.open, &self.begun, place),
            Some(change) => {
                let held = |id: &str| stored.as_ref()?.entries.get(id).map(|entry| entry.bytes.clone());
                let landed = landed(codec, change, held);
                // Or that this process did: what it removed since is not to come back.
                let landed = self.open.look(|state| state.landed(codec, place, &landed));
                if landed.is_empty() {
                    return false;
                }
                // The rest may be still to come.
                change.upserts.retain(|id, _| !landed.upserts.contains_key(id));
                let is_done = |id: &EntryId| landed.removals.contains(id) || landed.upserts.contains_key(id);
                change.removals.retain(|id| !is_done(id));
                let (begun, stored) = (self.begun.of(&landed), stored.unwrap_or_else(Stored::absent));
                self.core.commit(&self.open, &begun, &landed, stored, place)
            }
        };
        if number.is_some() {
            self.open.queued[place.other()].notify_one();
        }
        self.change.as_ref().is_none_or(Change::is_empty)
    }
}
