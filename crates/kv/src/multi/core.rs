//! [`Core`]: what all tasks and callers of a multi store share.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use ringkit_config::{MultiConfig, ReadMode};
use ringkit_runtime::Clock;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, timeout};
use tracing::{info, warn};

use super::control::{Control, Freshness};
use super::gate::{KeyFacts, StoreFacts};
use super::health::{Health, is_outage};
use super::held::Landing;
use super::key::OpenKey;
use super::metrics::{Metrics, Totals};
use super::mode::{Context, Mode};
use super::place::{Both, Place};
use super::state::{Begun, State};
use super::store::Child;
use super::switch::Wishes;
use crate::codec::Codec;
use crate::error::Error;
use crate::shared::Trouble;
use crate::store::{Change, Precondition, Stored};

/// Longest wait for a read while something is known without it.
pub(super) const READ_TIMEOUT: Duration = Duration::from_secs(2);
/// Longest wait for what a store knows beyond its entries.
const TRACES_TIMEOUT: Duration = Duration::from_secs(1);
/// Longest wait for the primary to take a change that the other store can take in its stead.
pub(super) const FAILOVER_TIMEOUT: Duration = Duration::from_secs(2);

/// What all tasks and callers of a multi store share.
pub(super) struct Core {
    pub(super) config: MultiConfig,
    pub(super) kv_name: String,
    pub(super) children: Both<Child>,
    pub(super) freshness: Freshness,
    pub(super) control: Control,
    pub(super) clock: Clock,
    pub(super) metrics: Metrics,
    pub(super) health: Both<Health>,
    pub(super) mode: watch::Sender<Mode>,
    pub(super) wishes: Mutex<Wishes>,
    pub(super) keys: Mutex<BTreeMap<Arc<str>, Arc<OpenKey>>>,
    pub(super) synced: watch::Sender<bool>,
    pub(super) trouble: watch::Sender<Option<Trouble>>,
    /// Something happened for which a switch may have waited.
    pub(super) nudge: Notify,
    pub(super) started_at: Instant,
    removals_are_meant: Both<bool>,
    versions: AtomicU64,
}

/// What a [`Core`] is made of.
pub(super) struct Parts {
    pub(super) config: MultiConfig,
    pub(super) kv_name: String,
    pub(super) children: Both<Child>,
    pub(super) control: Control,
    pub(super) clock: Clock,
    pub(super) metrics: Metrics,
}

impl Core {
    pub(super) fn new(parts: Parts) -> Self {
        let Parts { config, kv_name, children, control, clock, metrics } = parts;
        let mode = Mode {
            primary: Place::First,
            mirror: config.mirror_enabled,
            union: reads_union(&config, config.mirror_enabled),
            secondary_counts: *children[Place::Second].store.synced().borrow(),
            stands_in: false,
            epoch: 1,
        };
        metrics.set_mode(mode.primary, mode.mirror);
        let synced = *children[Place::First].store.synced().borrow();
        Self {
            freshness: control.freshness(&kv_name),
            removals_are_meant: Both::of(|place| children[place].store.removals_are_meant()),
            clock: clock.steady(),
            health: Both::of(|_| Health::new()),
            mode: watch::Sender::new(mode),
            wishes: Mutex::default(),
            keys: Mutex::default(),
            synced: watch::Sender::new(synced),
            trouble: watch::Sender::new(None),
            nudge: Notify::new(),
            started_at: Instant::now(),
            versions: AtomicU64::new(0),
            config,
            kv_name,
            children,
            control,
            metrics,
        }
    }

    pub(super) fn mode(&self) -> Mode {
        *self.mode.borrow()
    }

    pub(super) fn next_version(&self) -> u64 {
        self.versions.fetch_add(1, Ordering::Relaxed) + 1
    }

    pub(super) fn context(&self, codec: &'static dyn Codec) -> Context {
        Context {
            mode: self.mode(),
            codec,
            now: self.clock.now_secs(),
            freshness: self.freshness,
            removals_are_meant: self.removals_are_meant,
        }
    }

    /// The keys that are in use.
    pub(super) fn open_keys(&self) -> Vec<Arc<OpenKey>> {
        self.keys.lock().values().cloned().collect()
    }

    /// Asks a store, and takes note of whether it answers.
    pub(super) async fn call<T>(
        &self,
        place: Place,
        operation: &'static str,
        key: &str,
        within: Option<Duration>,
        call: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, Error> {
        let result = match within {
            None => call.await,
            Some(after) => timeout(after, call).await.unwrap_or_else(|_| {
                let backend = self.children[place].store.backend();
                Err(Error::Deadline { operation, key: key.to_owned(), backend, after })
            }),
        };
        match &result {
            Err(error) if is_outage(error) => self.fails(place, error),
            _ => self.answers(place),
        }
        result
    }

    /// A store did not answer.
    fn fails(&self, place: Place, error: &Error) {
        if self.health[place].fails(error) {
            warn!(kv_name = self.kv_name, store = self.children[place].name(), %error, "a store of two does not answer");
            self.nudge.notify_one();
        }
    }

    fn answers(&self, place: Place) {
        if self.health[place].answers() {
            info!(kv_name = self.kv_name, store = self.children[place].name(), "the store answers again");
            self.nudge.notify_one();
            // What it missed is known now, and what it has not told yet soon will be.
            for open in self.open_keys() {
                open.overdue.notify_one();
                open.urgent[place].notify_one();
            }
        }
    }

    /// Reads a key from a store, takes in what it holds, and returns it; no longer than it is worth waiting for.
    pub(super) async fn read(&self, open: &OpenKey, place: Place) -> Result<Option<Stored>, Error> {
        let key = &open.key;
        let how = open.look(|state| state.begin_read(place));
        let get = self.children[place].store.get(key);
        let stored = self.call(place, "GET", &key.name, Some(READ_TIMEOUT), get).await?;
        open.learn(self, place, stored.clone(), how);
        Ok(stored)
    }

    /// Takes in what a store knows of a key beyond its entries. Returns whether it said so, or knows nothing of the kind.
    pub(super) async fn trace(&self, open: &OpenKey, place: Place) -> bool {
        let traces = timeout(TRACES_TIMEOUT, self.children[place].plain.traces(&open.key)).await;
        let answered = traces.is_ok();
        if let Ok(Some(traces)) = traces {
            open.with(self, |state, context| state.trace(context, place, traces));
        }
        answered
    }

    /// Whether this process writes an entry as its own.
    pub(super) fn is_own(&self, open: &OpenKey, id: &str) -> bool {
        self.control.is_own(&open.key.name, id)
    }

    /// Takes note of a change that was written. Returns under which number the other store is to be told of it.
    pub(super) fn commit(
        &self,
        open: &OpenKey,
        begun: &Begun,
        change: &Change,
        stored: Stored,
        place: Place,
    ) -> Option<u64> {
        // Whoever writes an entry whatever else there is writes its own.
        let is_own = begun.when == Precondition::None;
        if is_own {
            self.control.set_own(&open.key.name, change.upserts.keys(), true);
            let removed = change.removals.iter().filter(|id| !change.upserts.contains_key(*id));
            self.control.set_own(&open.key.name, removed, false);
        }
        let landing = Landing { place, whole: self.children[place].store.answers_whole() };
        let number = open.with(self, |state, context| {
            state.commit(context, begun, change, stored, landing, &|id| is_own || self.is_own(open, id))
        });
        open.news.notify_one();
        // What was under way to the same store may have come too late.
        open.queued[place].notify_one();
        number
    }

    /// Takes note of the removal of a key. Returns under which number the other store is to be told of it.
    pub(super) fn commit_deletion(&self, open: &OpenKey, begun: &Begun, place: Place) -> Option<u64> {
        let number = open.with(self, |state, context| state.commit_deletion(context, begun, place));
        open.news.notify_one();
        number
    }

    /// Compares what the stores hold of a key.
    pub(super) fn compare(&self, open: &OpenKey) {
        open.with(self, State::compare);
    }

    /// Goes about things differently from now on.
    pub(super) fn set_mode(&self, change: impl FnOnce(&mut Mode)) {
        let mut is_news = false;
        self.mode.send_if_modified(|mode| {
            let before = *mode;
            change(mode);
            mode.union = reads_union(&self.config, mode.mirror);
            is_news = *mode != before;
            is_news
        });
        if is_news {
            let mode = self.mode();
            self.metrics.set_mode(mode.primary, mode.mirror);
            // Whoever acts on a key from here on does so in the new way; whoever did before is caught up with.
            self.open_keys().iter().for_each(|open| open.with(self, |_, _| ()));
        }
    }

    /// What is known of a store.
    pub(super) fn store_facts(&self, place: Place) -> StoreFacts {
        let child = &self.children[place];
        StoreFacts {
            name: child.name(),
            up: !self.health[place].is_down(),
            synced: *child.store.synced().borrow(),
            standing: child.plain.standing(),
        }
    }

    /// What is known of each key in use, compared at this moment, where `place` is the store that is to be told all.
    pub(super) fn key_facts(&self, place: Place) -> Vec<KeyFacts> {
        let facts = |open: &Arc<OpenKey>| {
            self.compare(open);
            open.look(|state| KeyFacts {
                name: open.key.name.to_string(),
                heard: Both::of(|place| state.snapshot(place).is_some()),
                comparison: state.compared().cloned(),
                queued: state.queued(place).0,
                refused: state.refusal(place).map(str::to_owned),
                reconciled: state.reconciled().map(|reconciled| reconciled.at.elapsed()),
            })
        };
        self.open_keys().iter().map(facts).collect()
    }

    /// What all keys show together, by their last comparisons.
    pub(super) fn totals(&self) -> Totals {
        let mut totals = Totals { reconciled_secs: f64::INFINITY, ..Totals::default() };
        for open in self.open_keys() {
            open.look(|state| {
                for place in Place::BOTH {
                    let (length, oldest) = state.queued(place);
                    totals.queue_length += length;
                    let waits = oldest.map_or(0.0, |since| since.elapsed().as_secs_f64());
                    totals.lag_secs = totals.lag_secs.max(waits);
                }
                let at_secs = state.reconciled().map_or(0.0, |reconciled| reconciled.at_ms as f64 / 1000.0);
                totals.reconciled_secs = totals.reconciled_secs.min(at_secs);
                let Some(found) = state.compared() else {
                    // Of a store that was never heard, all that the other one has is missing.
                    let held =
                        |place| state.snapshot(place).map(|held| held.map_or(0, |held| held.entries.len()));
                    for place in Place::BOTH.into_iter().filter(|place| held(*place).is_none()) {
                        totals.missing[place] += held(place.other()).unwrap_or(0);
                    }
                    return;
                };
                for place in Place::BOTH {
                    totals.missing[place] += found.missing[place].num + found.relayed[place].num;
                }
                totals.mismatched += found.mismatched.num;
                totals.foreign += found.foreign.num;
                totals.skew_secs = totals.skew_secs.max(found.skew_secs);
            });
        }
        if totals.reconciled_secs.is_infinite() {
            totals.reconciled_secs = 0.0;
        }
        totals
    }

    /// A key that nobody uses is no longer followed. Returns whether that is so.
    pub(super) fn retire(&self, open: &Arc<OpenKey>, after: Duration) -> bool {
        let mut keys = self.keys.lock();
        // Held by the map and by its own task, and by nobody who is about to use it.
        let is_unused = Arc::strong_count(open) <= 2 && open.is_idle(after);
        if is_unused {
            keys.remove(&open.key.name);
        }
        is_unused
    }
}

/// Whether readers see both stores together.
fn reads_union(config: &MultiConfig, mirror: bool) -> bool {
    match config.read_mode {
        ReadMode::Union => true,
        ReadMode::Primary => false,
        ReadMode::Auto => mirror,
    }
}
