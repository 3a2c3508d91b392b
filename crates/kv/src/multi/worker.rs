//! The task of one key: follows both stores, tells each what it lacks, and compares them. A store that does not answer delays
//! nothing that concerns the other.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use ringkit_runtime::Backoff;
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, sleep_until};
use tracing::{debug, info, warn};

use super::core::Core;
use super::delta::{Plan, Verdict};
use super::held::{How, Landing};
use super::key::OpenKey;
use super::metrics::Failure;
use super::mode::Mode;
use super::place::Place;
use super::queue::Batch;
use super::state::State;
use crate::error::{Error, ONE_ENTRY, WHOLE_VALUE};
use crate::store::{Applied, Change, EntryId, Precondition, Stored, Subscription};

/// Waits between attempts on a store that does not answer.
const MIN_RETRY: Duration = Duration::from_millis(100);
const MAX_RETRY: Duration = Duration::from_secs(5);
/// Waits after a lost race.
const MIN_RACE: Duration = Duration::from_millis(2);
const MAX_RACE: Duration = Duration::from_millis(500);
/// How many entries are told at once.
const MAX_BATCH: usize = 256;
/// After so many entries in a row that a store does not take, it is the value as a whole that is too large for it.
const MAX_REFUSALS: u32 = 3;
/// How often a store that is down is asked whether it is up again.
const PROBE_PERIOD: Duration = Duration::from_secs(1);
/// How often is looked at the time.
const TICK: Duration = Duration::from_secs(1);
/// How often the stores are compared even if nothing happens.
const COMPARE_PERIOD: Duration = Duration::from_secs(5);
/// However much happens, they are compared no oftener.
const MIN_COMPARE_PERIOD: Duration = Duration::from_millis(200);
/// At most so long is waited whether somebody else brings back to the primary what it lacks.
const MAX_FOREIGN_JITTER: Duration = Duration::from_secs(2);
/// However urgent it is, stores are told what they lack no oftener.
const MIN_RECONCILE_PERIOD: Duration = Duration::from_millis(500);
/// A key that nobody used for so long is no longer followed.
const IDLE_TIMEOUT: Duration = Duration::from_secs(600);

/// Runs until nobody uses the key any more.
pub(super) async fn run(core: Arc<Core>, open: Arc<OpenKey>) {
    tokio::select! {
        () = follow(&core, &open, Place::First) => (),
        () = follow(&core, &open, Place::Second) => (),
        () = mirror(&core, &open, Place::First) => (),
        () = mirror(&core, &open, Place::Second) => (),
        () = reconcile(&core, &open) => (),
        () = tend(&core, &open) => (),
    }
}

/// Takes in what a store tells. Never ends.
async fn follow(core: &Core, open: &OpenKey, place: Place) {
    let store = &core.children[place].store;
    let mut backoff = Backoff::new(MIN_RETRY, MAX_RETRY);
    if is_synced(core, place) {
        // Also tells whether it answers at all, which a watch does not. If it does not, the watch waits for it.
        let _ = core.read(open, place).await;
    }
    loop {
        match store.watch(&open.key).await {
            Ok(mut subscription) => {
                heed(core, open, place, &mut subscription).await;
                backoff.reset();
            }
            Err(error) => {
                let (key, store) = (&*open.key.name, core.children[place].name());
                debug!(key, store, %error, "cannot watch one of two stores, trying again");
            }
        }
        sleep(backoff.next().max(MIN_RETRY)).await;
    }
}

/// As long as a watch runs.
async fn heed(core: &Core, open: &OpenKey, place: Place, subscription: &mut Subscription) {
    let mut probes = interval(PROBE_PERIOD);
    probes.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut doubted = false;
    loop {
        tokio::select! {
            changed = subscription.changed() => match changed {
                None => return,
                Some(Some(stored)) => {
                    doubted = false;
                    open.learn(core, place, Some(stored), How::Watch);
                }
                // What is told of an absent key may be older than what a write has made of it since.
                Some(None) if open.look(|state| matches!(state.snapshot(place), Some(Some(_)))) => {
                    doubted = is_doubtful(core, open, place).await;
                }
                Some(None) => open.learn(core, place, None, How::Watch),
            },
            _ = probes.tick() => {
                if doubted || core.health[place].is_down() {
                    doubted &= is_doubtful(core, open, place).await;
                }
            }
        }
    }
}

/// Whether a key that a watch said is absent, and that is read again, is still known to be there: the read failed, or something
/// else that was learned meanwhile counted more than what it found.
async fn is_doubtful(core: &Core, open: &OpenKey, place: Place) -> bool {
    let read = core.read(open, place).await;
    !matches!(read, Ok(Some(_))) && open.look(|state| matches!(state.snapshot(place), Some(Some(_))))
}

fn is_synced(core: &Core, place: Place) -> bool {
    *core.children[place].store.synced().borrow()
}

/// Tells a store what is on its way to it. Never ends.
async fn mirror(core: &Core, open: &OpenKey, place: Place) {
    let mut backoff = Backoff::new(MIN_RETRY, MAX_RETRY);
    let (mut is_failing, mut is_refusing) = (false, false);
    // How much is told at once; how much of it was refused one after the other, and when that is told again.
    let (mut most, mut refusals, mut again_at) = (MAX_BATCH, 0_u32, Instant::now());
    loop {
        let (batch, last) = open.look(|state| (state.batch(place, most), state.last_queued(place)));
        let Some(batch) = batch else {
            // What need not be told any more is not waited for.
            open.set_tried(place, last);
            is_refusing = false;
            open.queued[place].notified().await;
            continue;
        };
        if batch.was_refused && Instant::now() < again_at {
            tokio::select! {
                () = sleep_until(again_at) => (),
                () = open.queued[place].notified() => (),
            }
            continue;
        }
        if !is_synced(core, place) {
            // It would only wait, and not for us.
            sleep(MIN_RETRY).await;
            continue;
        }
        let (key, store) = (&*open.key.name, core.children[place].name());
        let error = match tell(core, open, place, &batch, is_failing).await {
            Ok(None) => continue,
            Ok(Some(verdicts)) => {
                open.set_tried(place, batch.last());
                verdicts.into_iter().for_each(|verdict| core.metrics.mirrored(verdict));
                backoff.reset();
                (most, refusals) = (most.saturating_mul(2).min(MAX_BATCH), 0);
                if std::mem::take(&mut is_failing) {
                    info!(key, store, "changes are mirrored again");
                }
                core.nudge.notify_one();
                continue;
            }
            // One that is too large, or that the store is not done with, is not to keep others back: which it is shows if they
            // are told apart.
            Err(Error::TooLarge { .. } | Error::Contended { .. })
                if batch.items.len() > 1 && refusals < MAX_REFUSALS =>
            {
                most = batch.items.len() / 2;
                continue;
            }
            Err(error) => error,
        };
        open.set_tried(place, batch.last());
        let failure = failure_of(&error);
        core.metrics.failed(failure, batch.len());
        let is_refused =
            matches!(error, Error::TooLarge { .. } | Error::Contended { .. }) && !batch.items.is_empty();
        let is_known = if is_refused { &mut is_refusing } else { &mut is_failing };
        if std::mem::replace(is_known, true) {
            debug!(key, store, %error, "failed to update value in secondary store");
        } else {
            warn!(key, store, %error, "failed to update value in secondary store");
        }
        if is_refused {
            // It will hardly be another in a moment.
            open.with(core, |state, _| state.refuse(place, &batch, error.to_string()));
            (refusals, again_at) = (refusals.saturating_add(1), Instant::now() + MAX_RETRY);
            if refusals >= MAX_REFUSALS {
                most = MAX_BATCH;
            }
            continue;
        }
        tokio::select! {
            () = sleep(backoff.next().max(MIN_RETRY)) => (),
            () = open.urgent[place].notified() => (),
        }
    }
}

fn failure_of(error: &Error) -> Failure {
    match error {
        Error::TooLarge { .. } => Failure::TooLarge,
        Error::Deadline { .. } => Failure::Timeout,
        _ => Failure::Error,
    }
}

/// One attempt to tell a store of a batch: what became of each change in it; `None` if it is not what is to be told any more.
/// What is known of a store that is in `doubt` is read again before.
async fn tell(
    core: &Core,
    open: &OpenKey,
    place: Place,
    batch: &Batch,
    doubt: bool,
) -> Result<Option<Vec<Verdict>>, Error> {
    let (began, within) = (Instant::now(), core.config.mirror_timeout);
    let within = Some(within).filter(|within| !within.is_zero());
    let mut known = open.look(|state| state.snapshot(place)).filter(|_| !doubt && batch.deletion.is_none());
    let (mut backoff, mut attempts) = (Backoff::new(MIN_RACE, MAX_RACE), 0_u32);
    loop {
        let current = match known.take() {
            Some(known) => known,
            None => {
                let read = core.read(open, place).await?;
                // What was heard may be newer. But if the store does not go by that, what it says itself holds.
                if attempts == 0 { open.look(|state| state.snapshot(place)).flatten() } else { read }
            }
        };
        if !open.look(|state| state.is_current(place, batch)) {
            // Something newer was written while this waited.
            return Ok(None);
        }
        let plan = open.with(core, |state, context| {
            state.plan(context, batch, current.as_ref(), &|id| core.is_own(open, id))
        });
        let told = carry_out(core, open, place, batch, current.as_ref(), plan).await?;
        if told.is_some() {
            return Ok(told);
        }
        attempts += 1;
        sleep(backoff.next()).await;
        if within.is_some_and(|within| began.elapsed() >= within) {
            return Err(contended(open, attempts));
        }
    }
}

/// Does what is planned to what was looked at: what became of each change; `None` if that moved, and is to be looked at again.
///
/// Somebody else may have written a newer entry, even of our own: a former life, or whoever brings a store what it lacks. So
/// nothing is written, or removed, but what is as it was looked at. What others write to other entries is in nobody's way,
/// except that an entry which is new to the store waits while others come or go.
async fn carry_out(
    core: &Core,
    open: &OpenKey,
    place: Place,
    batch: &Batch,
    current: Option<&Stored>,
    plan: Plan,
) -> Result<Option<Vec<Verdict>>, Error> {
    let (store, key) = (&core.children[place].store, &open.key);
    let within = Some(core.config.mirror_timeout).filter(|within| !within.is_zero());
    let landing = Landing { place, whole: store.answers_whole() };
    let version = current.map(|stored| stored.version);
    if let Some(version) = version.filter(|_| plan.deletes) {
        let delete = store.delete_at(key, version);
        if !core.call(place, "Delete", &key.name, within, delete).await? {
            return Ok(None);
        }
        open.with(core, |state, context| state.told_deletion(context, batch, place, version));
        open.news.notify_one();
        // What else there is comes next.
        return Ok(Some(vec![Verdict::Applied]));
    }
    let is_gone = plan.change.removals.is_empty();
    let deletion = batch.deletion.as_ref().map(|_| if is_gone { Verdict::Noop } else { Verdict::Applied });
    let verdicts: Vec<Verdict> = plan.verdicts.into_iter().chain(deletion).collect();
    if plan.change.is_empty() {
        open.with(core, |state, context| state.told(context, batch, None, landing));
        return Ok(Some(verdicts));
    }
    check_size(core, open, place, current, &plan.change)?;
    let apply = store.apply(key, plan.change.clone(), Precondition::Entries(version));
    let applied = match core.call(place, "CAS", &key.name, within, apply).await {
        // What moved was a part of it. What landed before shows when it is looked at again.
        Err(Error::Partly { .. }) => Applied::Conflict,
        applied => applied?,
    };
    let Applied::Done(stored) = applied else { return Ok(None) };
    let answer = Some((plan.change, stored));
    open.with(core, |state, context| state.told(context, batch, answer, landing));
    open.news.notify_one();
    Ok(Some(verdicts))
}

fn contended(open: &OpenKey, attempts: u32) -> Error {
    Error::Contended { key: open.key.name.to_string(), attempts }
}

/// Refuses a mirrored value that is larger than configured, before the store does: the whole, or each entry where each has a key
/// of its own.
fn check_size(
    core: &Core,
    open: &OpenKey,
    place: Place,
    current: Option<&Stored>,
    change: &Change,
) -> Result<(), Error> {
    let limit = usize::try_from(core.config.max_value_bytes).unwrap_or(usize::MAX);
    // What goes makes room, however large the rest may be.
    if limit == 0 || place == core.mode().primary || change.upserts.is_empty() {
        return Ok(());
    }
    let too_large = |what, size| Err(Error::TooLarge { key: open.key.name.to_string(), what, size, limit });
    if !core.children[place].store.answers_whole() {
        let largest = change.upserts.values().map(Bytes::len).max().unwrap_or(0);
        return if largest > limit { too_large(ONE_ENTRY, largest) } else { Ok(()) };
    }
    let current = current.into_iter().flat_map(|stored| stored.entries.iter());
    let mut all: BTreeMap<EntryId, Bytes> =
        current.map(|(id, entry)| (id.clone(), entry.bytes.clone())).collect();
    all.retain(|id, _| !change.removals.contains(id));
    all.extend(change.upserts.iter().map(|(id, bytes)| (id.clone(), bytes.clone())));
    let size = open.key.codec.join(&all).len();
    if size > limit { too_large(WHOLE_VALUE, size) } else { Ok(()) }
}

/// Reads both stores now and then, and whenever there is reason to, and tells each what it lacks. Never ends.
async fn reconcile(core: &Core, open: &OpenKey) {
    let mut modes = core.mode.subscribe();
    loop {
        let mode = *modes.borrow_and_update();
        if !mode.mirror {
            // The sender is in the core.
            let _ = modes.changed().await;
            continue;
        }
        let pause = match (reconcile_once(core, open).await, core.config.reconcile_interval) {
            (false, _) => MAX_RETRY,
            (true, interval) if interval.is_zero() => Duration::MAX,
            (true, interval) => interval.mul_f64(rand::random_range(0.9..1.1)),
        };
        tokio::select! {
            () = sleep(pause) => (),
            () = open.overdue.notified() => (),
            () = moved(&mut modes, mode) => (),
        }
        // Not all processes at once, and not because of every entry.
        sleep(MIN_RECONCILE_PERIOD.mul_f64(rand::random_range(0.5..1.5))).await;
    }
}

/// Waits until another store is the primary, or mirroring begins or ends. Cancel safe.
async fn moved(modes: &mut watch::Receiver<Mode>, from: Mode) {
    let is_other = |now: &Mode| (now.primary, now.mirror) != (from.primary, from.mirror);
    let _ = modes.wait_for(is_other).await;
}

/// Whether both stores could be read.
async fn reconcile_once(core: &Core, open: &OpenKey) -> bool {
    if !Place::BOTH.iter().all(|place| is_synced(core, *place)) {
        return false;
    }
    let read = tokio::join!(core.read(open, Place::First), core.read(open, Place::Second));
    if read.0.is_err() || read.1.is_err() {
        return false;
    }
    // Also what was removed, or it would come back.
    if !core.trace(open, Place::First).await || !core.trace(open, Place::Second).await {
        return false;
    }
    let is_foreign = open.with(core, |state, context| state.reconcile(context, false));
    wake(open);
    if is_foreign {
        let interval = core.config.reconcile_interval;
        let most =
            if interval.is_zero() { MAX_FOREIGN_JITTER } else { MAX_FOREIGN_JITTER.min(interval / 10) };
        sleep(most.mul_f64(rand::random_range(0.0..1.0))).await;
        // As things are by now.
        open.with(core, |state, context| state.reconcile(context, true));
        wake(open);
    }
    let now_ms = core.clock.now_ms();
    open.with(core, |state, context| {
        // It may have ended meanwhile.
        if context.mode.mirror {
            state.set_reconciled(now_ms);
        }
    });
    open.news.notify_one();
    true
}

fn wake(open: &OpenKey) {
    Place::BOTH.iter().for_each(|place| open.queued[*place].notify_one());
}

/// Compares the stores whenever something happens, and looks at the time. Ends once nobody uses the key.
async fn tend(core: &Core, open: &Arc<OpenKey>) {
    let mut ticks = interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut looked_at: Option<Instant> = None;
    loop {
        let is_news = tokio::select! {
            _ = ticks.tick() => false,
            () = open.news.notified() => true,
        };
        if core.retire(open, IDLE_TIMEOUT) {
            debug!(key = &*open.key.name, "nobody uses the key any more");
            return;
        }
        let is_due = looked_at.is_none_or(|at| at.elapsed() >= COMPARE_PERIOD);
        if is_due {
            looked_at = Some(Instant::now());
            for place in Place::BOTH {
                core.trace(open, place).await;
            }
            open.with(core, State::pass_time);
        }
        if is_due || is_news {
            core.compare(open);
            core.nudge.notify_one();
            sleep(MIN_COMPARE_PERIOD).await;
        }
    }
}
