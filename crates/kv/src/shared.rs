//! What backends behind a network share: [`Followers`], one follower per key however many watch it; [`Epoch`], versions that
//! grow although a server came back empty; [`Pulse`], whether the server answers. No protocol lives here.

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::error::Error;
use crate::store::{Key, Stored, Subscription};

/// One running follower per watched key. It ends with the last watch of the key, or with this.
#[derive(Default)]
pub(crate) struct Followers {
    running: Mutex<HashMap<Arc<str>, Weak<Running>>>,
}

/// Kept alive by the subscriptions of one key.
struct Running {
    feed: Feed,
    // Aborts the follower when the last subscription drops.
    _task: JoinSet<()>,
}

/// Where a follower, and everybody who learns what a key holds, puts it.
#[derive(Clone)]
pub(crate) struct Feed {
    heard: Arc<watch::Sender<Heard>>,
}

/// What is known of a key.
#[derive(Clone, Debug, Default)]
pub(crate) struct Heard {
    /// `None` until the server answered for the first time; then what the key holds, `None` = absent.
    pub(crate) value: Option<Option<Stored>>,
    /// The version of that; for an absent key, the version at which it was seen absent.
    version: u64,
}

impl Followers {
    /// Watches `key`, whose follower is what `follow` makes unless it runs already. Its future never ends by itself; it is
    /// dropped when the last subscription is.
    pub(crate) fn subscribe<F>(&self, key: &Key, follow: impl FnOnce(Feed) -> F) -> Subscription
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let mut running = self.running.lock();
        let known = running.get(&key.name).and_then(Weak::upgrade);
        let shared = known.unwrap_or_else(|| {
            running.retain(|_, follower| follower.strong_count() > 0);
            let feed = Feed { heard: Arc::default() };
            let mut task = JoinSet::new();
            task.spawn(follow(feed.clone()));
            let shared = Arc::new(Running { feed, _task: task });
            running.insert(Arc::clone(&key.name), Arc::downgrade(&shared));
            shared
        });
        Subscription::shared(shared.feed.heard.subscribe()).with_guard(shared)
    }

    /// What is known of a key that is being watched; `None` if it is not, or if nothing was heard yet.
    pub(crate) fn latest(&self, key: &str) -> Option<Option<Stored>> {
        let shared = self.running.lock().get(key).and_then(Weak::upgrade)?;
        let heard = shared.feed.heard.borrow();
        heard.value.clone()
    }

    /// Tells watchers of `key` at once what a read or write of this process learned, if it is news to them.
    pub(crate) fn offer(&self, key: &str, version: u64, value: Option<Stored>) {
        let shared = self.running.lock().get(key).and_then(Weak::upgrade);
        if let Some(shared) = shared {
            shared.feed.publish(version, value);
        }
    }

    /// How many keys are being followed.
    #[cfg(test)]
    pub(crate) fn num_running(&self) -> usize {
        self.running.lock().values().filter(|follower| follower.strong_count() > 0).count()
    }
}

impl fmt::Debug for Followers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Followers").field("known", &self.running.lock().len()).finish()
    }
}

impl Feed {
    /// Tells the watchers what the key holds as of `version`. What is older than what they know, or the same, is dropped.
    pub(crate) fn publish(&self, version: u64, value: Option<Stored>) {
        self.heard.send_if_modified(|heard| {
            let news = match &heard.value {
                None => true,
                Some(_) if version < heard.version => false,
                Some(known) => {
                    known.as_ref().map(|stored| stored.version) != value.as_ref().map(|stored| stored.version)
                }
            };
            if news || version > heard.version {
                heard.version = version.max(heard.version);
            }
            if news {
                heard.value = Some(value);
            }
            news
        });
    }
}

/// Makes versions of a server's own indexes, such that they grow even when the server's start again from a low one.
///
/// The server's index is in the low 48 bits, how often it went backwards above them.
#[derive(Debug, Default)]
pub(crate) struct Epoch(AtomicU64);

const INDEX_BITS: u32 = 48;

impl Epoch {
    /// The version of what the server keeps at `index`.
    pub(crate) fn version(&self, index: u64) -> u64 {
        self.0.load(Ordering::Relaxed) << INDEX_BITS | index & ((1 << INDEX_BITS) - 1)
    }

    /// The server's index of a version, if it is of this epoch.
    pub(crate) fn index(&self, version: u64) -> Option<u64> {
        (version >> INDEX_BITS == self.0.load(Ordering::Relaxed)).then_some(version & ((1 << INDEX_BITS) - 1))
    }

    /// The server began anew.
    pub(crate) fn advance(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

/// Why a store does not answer.
#[derive(Clone, Debug)]
pub struct Trouble {
    /// When it answered last; if it never did, when it was opened.
    pub heard: Instant,
    /// When it was first noticed that it does not.
    pub since: Instant,
    /// The failure that was seen last.
    pub cause: Arc<str>,
}

/// Whether the server answers: the last word of whoever talked to it.
#[derive(Debug)]
pub(crate) struct Pulse {
    trouble: watch::Sender<Option<Trouble>>,
    heard: Mutex<Instant>,
}

impl Default for Pulse {
    fn default() -> Self {
        Self { trouble: watch::Sender::new(None), heard: Mutex::new(Instant::now()) }
    }
}

impl Pulse {
    /// The server answered, whatever it said.
    pub(crate) fn beats(&self) {
        *self.heard.lock() = Instant::now();
        self.trouble.send_if_modified(|trouble| trouble.take().is_some());
    }

    /// The server did not answer, or cannot do its work.
    pub(crate) fn fails(&self, error: &Error) {
        let heard = *self.heard.lock();
        self.trouble.send_modify(|trouble| {
            let since = trouble.as_ref().map_or_else(Instant::now, |trouble| trouble.since);
            *trouble = Some(Trouble { heard, since, cause: error.to_string().into() });
        });
    }

    /// Follows it.
    pub(crate) fn subscribe(&self) -> watch::Receiver<Option<Trouble>> {
        self.trouble.subscribe()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::StringCodec;

    fn stored(version: u64) -> Stored {
        Stored { version, entries: Arc::default() }
    }

    #[tokio::test]
    async fn watches_of_a_key_share_one_follower_which_ends_with_the_last() {
        let followers = Followers::default();
        let key = Key::new("k", &StringCodec);
        let (ended, mut end) = tokio::sync::mpsc::channel::<()>(1);
        let mut first = followers.subscribe(&key, |feed| async move {
            let _ended = ended;
            feed.publish(1, Some(stored(1)));
            std::future::pending::<()>().await;
        });
        assert_eq!(first.changed().await.unwrap(), Some(stored(1)));
        let mut second = followers.subscribe(&key, |_| async { panic!("a second follower") });
        assert_eq!(second.changed().await.unwrap(), Some(stored(1)), "begins with what is known");
        assert_eq!(followers.num_running(), 1);
        drop(first);
        followers.offer("k", 2, Some(stored(2)));
        assert_eq!(second.changed().await.unwrap(), Some(stored(2)));
        drop(second);
        assert_eq!(end.recv().await, None, "the follower was dropped");
        assert_eq!(followers.num_running(), 0);
    }

    #[test]
    fn what_is_old_or_known_is_not_told() {
        let feed = Feed { heard: Arc::default() };
        let mut heard = feed.heard.subscribe();
        feed.publish(5, None);
        assert!(heard.has_changed().unwrap(), "absence is news at first");
        heard.mark_unchanged();
        feed.publish(7, None);
        feed.publish(6, Some(stored(6)));
        assert!(!heard.has_changed().unwrap(), "older than the absence");
        feed.publish(8, Some(stored(8)));
        assert!(heard.has_changed().unwrap());
        heard.mark_unchanged();
        feed.publish(8, Some(stored(8)));
        assert!(!heard.has_changed().unwrap());
    }

    #[test]
    fn versions_grow_over_a_new_beginning() {
        let epoch = Epoch::default();
        let old = epoch.version(1000);
        assert_eq!(epoch.index(old), Some(1000));
        epoch.advance();
        assert!(epoch.version(1) > old);
        assert_eq!(epoch.index(old), None);
    }
}
