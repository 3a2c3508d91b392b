//! A value that is replaced as a whole while others use it.

use std::sync::Arc;

use arc_swap::ArcSwap;
use tokio::sync::watch;

/// A value that may be replaced at any time. Clones see the same one.
#[derive(Debug)]
pub struct Live<T> {
    current: Arc<ArcSwap<T>>,
    /// Kept here too, so that whoever waits for a change of what nobody changes waits.
    changes: watch::Sender<Arc<T>>,
}

impl<T> Clone for Live<T> {
    fn clone(&self) -> Self {
        Self { current: Arc::clone(&self.current), changes: self.changes.clone() }
    }
}

impl<T> Live<T> {
    /// A value that stays.
    pub fn fixed(value: T) -> Self {
        Publisher::new(value).live()
    }

    /// Looks at the value as it is now. Takes no lock and counts no reference, so that it may be called for every request;
    /// `look` should be short.
    pub fn with<R>(&self, look: impl FnOnce(&T) -> R) -> R {
        let current = self.current.load();
        look(&current)
    }

    /// The value as it is now.
    pub fn get(&self) -> Arc<T> {
        self.current.load_full()
    }

    /// Tells when the value is replaced, for as long as a clone of this lives. Looking at the value through it takes a lock.
    pub fn changes(&self) -> watch::Receiver<Arc<T>> {
        self.changes.subscribe()
    }
}

/// Replaces the value of a [`Live`].
#[derive(Debug)]
pub struct Publisher<T>(Live<T>);

impl<T> Publisher<T> {
    /// Begins with this value.
    pub fn new(value: T) -> Self {
        let value = Arc::new(value);
        let current = Arc::new(ArcSwap::new(Arc::clone(&value)));
        Self(Live { current, changes: watch::Sender::new(value) })
    }

    /// What others see.
    pub fn live(&self) -> Live<T> {
        self.0.clone()
    }

    /// Replaces the value. Whoever hears of the change sees the new value everywhere.
    pub fn publish(&self, value: T) {
        let value = Arc::new(value);
        self.0.current.store(Arc::clone(&value));
        self.0.changes.send_replace(value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn everybody_sees_what_was_published_last() {
        let publisher = Publisher::new(1);
        let (live, twin) = (publisher.live(), publisher.live().clone());
        let mut changes = live.changes();
        assert_eq!((**changes.borrow(), *live.get(), twin.with(|value| *value)), (1, 1, 1));
        publisher.publish(2);
        changes.changed().await.unwrap();
        assert_eq!((**changes.borrow_and_update(), *live.get(), twin.with(|value| *value)), (2, 2, 2));
    }

    #[tokio::test(start_paused = true)]
    async fn a_fixed_value_never_changes() {
        let live = Live::fixed(1);
        let mut changes = live.changes();
        let day = std::time::Duration::from_secs(86_400);
        assert!(tokio::time::timeout(day, changes.changed()).await.is_err());
    }
}
