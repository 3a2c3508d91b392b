//! [`RingService`]: follows the stored ring and publishes snapshots of it.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use ringkit_kv::{Client, EntryId, Seen, Trouble, Update, Watch};
use ringkit_runtime::{Backoff, CancellationToken, Cause, Service};
use tokio::sync::watch;
use tokio::time::Instant;
use tracing::{error, info, warn};

use crate::compare::Comparison;
use crate::desc::Desc;
use crate::follow::{Followed, discount, follow, follow_changed};
use crate::ring::Shared;
use crate::snapshot::Snapshot;
use crate::vanish::{self, Event, Guard};

/// Follows the stored ring and publishes snapshots of it.
///
/// Starts once it has read the ring, and keeps trying until it can; an absent ring is an empty one. Later the last good
/// ring is kept whatever happens to the store; also when the key vanishes, because an empty answer of a store that
/// restarted must not look like a ring that everybody left. For the same reason removals are held back when too many
/// members vanish at once, see [`crate::RingOptions::max_vanish_fraction`].
///
/// Time during which the store does not answer makes nobody older: instances cannot renew their heartbeats in it, and must not
/// be taken for dead because of that, neither meanwhile nor in the moment when it is back.
pub struct RingService {
    shared: Arc<Shared>,
    client: Client<Desc>,
    watch: Option<Watch<Desc>>,
    guard: Guard,
    /// What the watch delivered last, while that is a ring.
    latest: Option<(Arc<Desc>, Seen)>,
    /// When the newest snapshot was made, if it is of what the watch delivered last.
    in_step_since: Option<i64>,
    /// When the store last told of a ring; heartbeats are judged by that, not by how long it was silent.
    heard_at: Option<i64>,
    /// Whether the store answers.
    trouble: watch::Receiver<Option<Trouble>>,
    /// Up to when the time of its silence is discounted already; `None` while it answers.
    discounted: Option<Instant>,
    /// Time of silence that is not yet taken off anybody's age.
    owed: Duration,
}

/// When the store heard of this instance last, in Unix seconds, if it knows.
fn heard_at(seen: &Seen, id: &EntryId, now: i64) -> Option<i64> {
    seen.get(id).map(|at| now.saturating_sub_unsigned(at.elapsed().as_secs()))
}

/// A silence that is noticed as late as this began when the store was last heard.
const LATE_NOTICE: Duration = Duration::from_secs(2);
/// How often the time of a store's silence is discounted while it lasts.
const DISCOUNT_PERIOD: Duration = Duration::from_secs(1);
/// Waits between attempts to read the ring at first.
const FIRST_RETRY: Duration = Duration::from_millis(100);
const LAST_RETRY: Duration = Duration::from_secs(5);

impl RingService {
    pub(crate) fn new(shared: Arc<Shared>, client: Client<Desc>) -> Self {
        let options = &shared.options;
        let guard = Guard::new(options.max_vanish_fraction, options.vanish_grace());
        let trouble = client.trouble();
        Self {
            shared,
            client,
            watch: None,
            guard,
            latest: None,
            in_step_since: None,
            heard_at: None,
            trouble,
            discounted: None,
            owed: Duration::ZERO,
        }
    }

    /// Opens the watch and takes its first value, however long the store takes to answer.
    async fn open(&mut self) -> Result<(), Cause> {
        self.check().await?;
        let key = &self.shared.options.key;
        let mut backoff = Backoff::new(FIRST_RETRY, LAST_RETRY);
        let mut watch = loop {
            match self.client.watch(key).await {
                Ok(watch) => break watch,
                Err(error) if error.is_retryable() => {
                    warn!(ring = self.shared.options.name, key, %error, "cannot read the ring yet, trying again");
                    tokio::time::sleep(backoff.next()).await;
                }
                Err(error) => return Err(error.into()),
            }
        };
        let first = watch.next().await.ok_or(ringkit_kv::Error::Closed)?;
        self.take(&first);
        self.watch = Some(watch);
        Ok(())
    }

    /// Reads once, because a watch says nothing of a value that it will never be able to read: one that is no ring, or that
    /// is kept in another layout than configured. Waits for a store that does not answer.
    async fn check(&self) -> Result<(), Cause> {
        let mut backoff = Backoff::new(FIRST_RETRY, LAST_RETRY);
        loop {
            match self.client.get(&self.shared.options.key).await {
                // A single entry that cannot be read is skipped later.
                Ok(_) | Err(ringkit_kv::Error::Decode { entry: Some(_), .. }) => return Ok(()),
                Err(error) if error.is_retryable() => {
                    let (ring, key) = (&self.shared.options.name, &self.shared.options.key);
                    warn!(ring, key, %error, "cannot read the ring yet, trying again");
                    tokio::time::sleep(backoff.next()).await;
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn take(&mut self, update: &Update<Desc>) {
        let Some(desc) = &update.value else {
            info!(
                ring = self.shared.options.name,
                key = self.shared.options.key,
                "the store holds no ring; keeping what is known"
            );
            self.guard.handle_absent();
            (self.latest, self.in_step_since) = (None, None);
            return;
        };
        let now = self.shared.clock.now_secs();
        let known = self.shared.load();
        let removes = self.hold_back(&known, update, desc, now);
        let in_step = self.in_step_since.is_some_and(|since| since <= now);
        let quick = in_step && !removes;
        let heard = |id: &EntryId| heard_at(&update.seen, id, now);
        let followed = quick.then(|| follow_changed(&known, desc, &update.changed, now, heard)).flatten();
        let followed = followed.unwrap_or_else(|| self.follow_whole(&known, desc, &update.seen, now));
        drop(known);
        self.publish(followed, now);
        self.latest = Some((Arc::clone(desc), Arc::clone(&update.seen)));
    }

    /// Lets the guard decide about who is gone. True if anybody is to be removed.
    fn hold_back(&mut self, known: &Snapshot, update: &Update<Desc>, desc: &Desc, now: i64) -> bool {
        // What the update removed says nothing about what is served after the key was absent, or at first.
        let gone: Vec<(usize, &EntryId)> = if self.in_step_since.is_some() {
            update.removed.iter().filter_map(|id| Some((known.members.place_of(id)?, id))).collect()
        } else {
            let members = known.members.iter().map(|member| &member.id).enumerate();
            members.filter(|(_, id)| !desc.contains(id) && !self.guard.holds(id)).collect()
        };
        let heard = self.heard_at.map_or(now, |at| at.min(now));
        let lost = gone
            .iter()
            .filter(|(place, _)| vanish::is_losable(known, *place, heard))
            .map(|(_, id)| (*id).clone());
        let served = |guard: &Guard| {
            let others = known.members.iter().enumerate().filter(|(_, member)| !guard.holds(&member.id));
            let losable = others.filter(|(place, _)| vanish::is_losable(known, *place, heard)).count();
            vanish::Served { members: known.members.len(), losable }
        };
        let events = self.guard.handle_update(Instant::now(), &update.changed, lost.collect(), served);
        self.tell(&events);
        gone.iter().any(|(_, id)| !self.guard.holds(id))
    }

    /// Removes those whose grace period is over.
    fn let_go(&mut self) {
        let (released, event) = self.guard.handle_time(Instant::now());
        self.tell(event.as_slice());
        if let (true, Some((desc, seen))) = (released, &self.latest) {
            let now = self.shared.clock.now_secs();
            let followed = self.follow_whole(&self.shared.load(), desc, seen, now);
            self.publish(followed, now);
        }
    }

    /// The snapshot of `desc` and of those who are held back.
    fn follow_whole(&self, known: &Snapshot, desc: &Arc<Desc>, seen: &Seen, now: i64) -> Followed {
        let mut desc = Arc::clone(desc);
        for id in self.guard.held() {
            if let Some(member) = known.instance(id) {
                Arc::make_mut(&mut desc).insert(id.clone(), Arc::clone(&member.desc));
            }
        }
        follow(known, &desc, now, |id| heard_at(seen, id, now))
    }

    fn publish(&mut self, followed: Followed, now: i64) {
        if followed.comparison == Comparison::Different {
            let instances = followed.snapshot.instances().len();
            info!(ring = self.shared.options.name, instances, "ring changed");
        }
        self.shared.publish(followed.snapshot, followed.notable);
        (self.in_step_since, self.heard_at) = (Some(now), Some(now));
    }

    /// Takes the time of the store's silence, up to now, off everybody's age.
    fn discount(&mut self) {
        let (now, trouble) = (Instant::now(), self.trouble.borrow_and_update().clone());
        let Some(from) = self.discounted.or(trouble.as_ref().map(began)) else { return };
        self.owed += now.saturating_duration_since(from);
        self.discounted = trouble.map(|_| now);
        // Ages have whole seconds; what is left of one is owed for the next time.
        let lost = self.owed.as_secs();
        if lost == 0 {
            return;
        }
        self.owed -= Duration::from_secs(lost);
        let unix_secs = self.shared.clock.now_secs();
        let lost = i64::try_from(lost).unwrap_or(i64::MAX);
        let Followed { snapshot, notable, .. } = discount(&self.shared.load(), lost, unix_secs);
        self.shared.publish(snapshot, notable);
    }

    /// Tells operators, in the log and by metrics.
    fn tell(&self, events: &[Event]) {
        let begins = events.iter().any(|event| matches!(event, Event::Began(_)));
        self.shared.vanish.set(self.guard.held().len(), begins);
        events.iter().for_each(|&event| self.log(event));
    }

    fn log(&self, event: Event) {
        let (ring, key) = (&self.shared.options.name, &self.shared.options.key);
        let held_for = self.shared.options.vanish_grace();
        match event {
            Event::Began(alarm) => {
                let until_unix = self.shared.clock.now_secs().saturating_add_unsigned(held_for.as_secs());
                error!(
                    ring,
                    key,
                    lost = alarm.lost,
                    of = alarm.of,
                    held = alarm.held,
                    ?held_for,
                    until_unix,
                    "too many members vanished from the store at once; serving the ring with them until they are back or \
                     the time is over: check whether the store lost its contents, and if they were removed on purpose \
                     do nothing"
                );
            }
            Event::Grew(alarm) => {
                warn!(
                    ring,
                    key,
                    lost = alarm.lost,
                    of = alarm.of,
                    held = alarm.held,
                    ?held_for,
                    "more members vanished, held back too"
                );
            }
            Event::Ended(ended) => {
                let message = "no vanished members are held back any longer";
                info!(ring, key, returned = ended.returned, let_go = ended.let_go, message);
            }
        }
    }
}

/// When a silence began. Before it was noticed, if that took long; else at that moment, so that failures which come and go
/// between answers do not add up to a silence.
fn began(trouble: &Trouble) -> Instant {
    let noticed_after = trouble.since.saturating_duration_since(trouble.heard);
    if noticed_after >= LATE_NOTICE { trouble.heard } else { trouble.since }
}

/// Sleeps until `deadline`; for ever without one.
async fn reached(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

#[async_trait]
impl Service for RingService {
    async fn start(&mut self, _stop: &CancellationToken) -> Result<(), Cause> {
        self.open().await
    }

    async fn run(&mut self, stop: CancellationToken) -> Result<(), Cause> {
        loop {
            let Some(watch) = &mut self.watch else { return Err(ringkit_kv::Error::Closed.into()) };
            tokio::select! {
                () = stop.cancelled() => return Ok(()),
                update = watch.next() => {
                    let update = update.ok_or(ringkit_kv::Error::Closed)?;
                    self.take(&update);
                }
                () = reached(self.guard.deadline()) => self.let_go(),
                Ok(()) = self.trouble.changed() => self.discount(),
                () = tokio::time::sleep(DISCOUNT_PERIOD), if self.discounted.is_some() => self.discount(),
            }
        }
    }
}

impl std::fmt::Debug for RingService {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RingService").field("name", &self.shared.options.name).finish_non_exhaustive()
    }
}
