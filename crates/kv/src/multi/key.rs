//! [`OpenKey`]: a key that is in use, what is known of it, and who is to be woken by what.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, timeout};

use super::core::Core;
use super::held::How;
use super::mode::Context;
use super::place::{Both, Place};
use super::state::State;
use crate::shared::Heard;
use crate::store::{Key, Stored, Subscription};

/// A key that is in use.
pub(super) struct OpenKey {
    pub(super) key: Key,
    state: Mutex<State>,
    /// What readers are shown.
    heard: watch::Sender<Heard>,
    /// Counts those who watch.
    watchers: Arc<()>,
    used_at: Mutex<Instant>,
    /// Something was learned, so that a comparison may come to something else.
    pub(super) news: Notify,
    /// The stores are to be told what they lack before it is time for that.
    pub(super) overdue: Notify,
    /// Something is to be told to a store.
    pub(super) queued: Both<Notify>,
    /// Somebody waits for that, and does not want to wait for the next attempt.
    pub(super) urgent: Both<Notify>,
    /// Up to which number something was told to a store, or was tried to.
    tried: Both<watch::Sender<u64>>,
}

impl OpenKey {
    pub(super) fn new(key: Key) -> Self {
        Self {
            key,
            state: Mutex::default(),
            heard: watch::Sender::new(Heard::default()),
            watchers: Arc::default(),
            used_at: Mutex::new(Instant::now()),
            news: Notify::new(),
            overdue: Notify::new(),
            queued: Both::of(|_| Notify::new()),
            urgent: Both::of(|_| Notify::new()),
            tried: Both::of(|_| watch::Sender::new(0)),
        }
    }

    /// Does something to what is known, by the mode that holds at that moment, and shows readers what came of it.
    pub(super) fn with<T>(&self, core: &Core, act: impl FnOnce(&mut State, &Context) -> T) -> T {
        let mut state = self.state.lock();
        let context = core.context(self.key.codec);
        state.adopt(&context);
        let result = act(&mut state, &context);
        if let Some(value) = state.publish(&context, || core.next_version()) {
            self.heard.send_modify(|heard| heard.value = Some(value));
        }
        result
    }

    /// Looks at what is known.
    pub(super) fn look<T>(&self, look: impl FnOnce(&State) -> T) -> T {
        look(&self.state.lock())
    }

    /// Takes in what a store holds.
    pub(super) fn learn(&self, core: &Core, place: Place, value: Option<Stored>, how: How) {
        let lost = self.with(core, |state, context| state.learn(context, place, value, how));
        self.news.notify_one();
        if lost {
            self.overdue.notify_one();
        }
    }

    /// Somebody uses the key.
    pub(super) fn touch(&self) {
        *self.used_at.lock() = Instant::now();
    }

    /// Whether somebody follows what readers are shown.
    pub(super) fn is_watched(&self) -> bool {
        Arc::strong_count(&self.watchers) > 1
    }

    /// Whether nobody has watched or used the key for so long, and nothing is on its way.
    pub(super) fn is_idle(&self, after: Duration) -> bool {
        let is_queued = || self.look(|state| Place::BOTH.iter().any(|place| state.queued(*place).0 > 0));
        !self.is_watched() && self.used_at.lock().elapsed() >= after && !is_queued()
    }

    /// Follows what readers are shown.
    pub(super) fn subscribe(&self) -> Subscription {
        Subscription::shared(self.heard.subscribe()).with_guard(Arc::clone(&self.watchers))
    }

    /// Everything up to this number was told to a store, or was tried to.
    pub(super) fn set_tried(&self, place: Place, number: u64) {
        self.tried[place].send_if_modified(|tried| {
            let is_later = number > *tried;
            *tried = number.max(*tried);
            is_later
        });
    }

    /// Waits until this was told to a store, or was tried to; no longer than `within`, if that is given.
    ///
    /// Cancel safe.
    pub(super) async fn tried(&self, place: Place, number: u64, within: Option<Duration>) {
        let mut tried = self.tried[place].subscribe();
        let told = tried.wait_for(|tried| *tried >= number);
        // Its sender is here, so it only ends when it was told.
        match within {
            Some(within) => drop(timeout(within, told).await),
            None => drop(told.await),
        }
    }
}
