//! What a member needs now and then: keys read anew, and a look at it for those who cannot ask.

use std::cmp::Reverse;
use std::sync::Arc;
use std::time::Duration;

use ringkit_gossip::driver::{Access, Handle, State};
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};
use tracing::{info, warn};

use super::is_internal;
use super::keys::KeysFile;
use super::observed::{KeySize, Latest, Observed};
use super::report::lost_for;
use super::views::Views;

/// How often a member is looked at.
const PERIOD: Duration = Duration::from_secs(1);
/// How often it is looked whether the file with the keys changed.
const KEYS_PERIOD: Duration = Duration::from_secs(5);
/// How long a seed may be no member before that is remarked upon.
const LOST_AFTER: Duration = Duration::from_secs(60);
/// How many keys are counted each for itself: the largest.
const MAX_KEYS: usize = 64;

/// Runs until the member has ended.
pub(super) async fn run(handle: Handle<Views>, observed: Arc<Observed>, mut keys: Option<KeysFile>) {
    let mut state = handle.state();
    let mut ticks = interval(PERIOD);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut read_keys_at = Instant::now() + KEYS_PERIOD;
    loop {
        tokio::select! {
            _ = ticks.tick() => {
                if let Some(keys) = &mut keys
                    && read_keys_at <= Instant::now()
                {
                    renew(&handle, &observed, keys).await;
                    // What is new there is looked at once more, and soon.
                    let wait = if keys.is_changing() { Duration::ZERO } else { KEYS_PERIOD };
                    read_keys_at = Instant::now() + wait;
                }
                let before = observed.latest();
                let look = move |access: &mut Access<'_, Views>| latest(access, before.as_deref());
                match handle.call(look).await {
                    Ok(latest) => observed.set_latest(latest),
                    Err(_) => return,
                }
            }
            changed = state.changed() => {
                if changed.is_err() {
                    return;
                }
                // Who waits for the cluster, and is not told that it is there, is told not to wait.
                if state.borrow_and_update().gave_up {
                    observed.synced.send_if_modified(|synced| !std::mem::replace(synced, true));
                }
            }
        }
    }
}

/// Has reads and writes go on after a while, if the cluster was not found by then.
pub(super) async fn proceed_after(after: Duration, state: watch::Receiver<State>, observed: Arc<Observed>) {
    sleep(after).await;
    if !state.borrow().synced {
        warn!(?after, "the gossip cluster was not found in time: reads and writes go on without it");
        observed.proceed();
    }
}

/// Takes over keys from their file if it changed.
async fn renew(handle: &Handle<Views>, observed: &Observed, file: &mut KeysFile) {
    match file.poll().await {
        None => (),
        Some(Ok(keys)) => {
            let number = keys.len();
            observed.told().bad_key_file = None;
            if handle.call(move |access| access.set_keys(keys)).await.is_ok() {
                info!(path = file.path(), number, "the keys of gossip were read anew");
            }
        }
        Some(Err(reason)) => {
            let mut told = observed.told();
            told.bad_key_files += 1;
            told.bad_key_file = Some((file.path(), reason.clone()));
            drop(told);
            warn!(path = file.path(), %reason, "the file with the keys of gossip cannot be used: going on with those from before");
        }
    }
}

fn latest(access: &Access<'_, Views>, before: Option<&Latest>) -> Latest {
    let (node, now) = (access.node(), access.now());
    let store = node.store();
    let keys = store.keys().filter(|key| !is_internal(key));
    let mut keys: Vec<_> = keys.map(|key| (key, store.key_sizes(key))).collect();
    let num_keys = keys.len();
    keys.sort_by_key(|(_, sizes)| Reverse(sizes.entries));
    let largest = keys.into_iter().take(MAX_KEYS).map(|(key, sizes)| KeySize {
        key: key.to_owned(),
        registers: sizes.entries,
        tombstones: sizes.tombstones,
        bytes: sizes.bytes,
    });
    let unopenable = access.member().unopenable();
    let (known, noticed_at) = before.map_or((0, None), |before| before.unopenable);
    let noticed_at = if unopenable > known { Some(Instant::now()) } else { noticed_at };
    let lost_seeds = lost_for(node, now).into_iter().filter(|(_, lost)| *lost >= LOST_AFTER);
    Latest {
        status: node.status(),
        queue: node.queue_stats(),
        num_keys,
        keys: largest.collect(),
        clock_ahead: node.clock_offset_ms(),
        unopenable: (unopenable, noticed_at),
        takes_clear: access.member().takes_clear(),
        only_streams: node.hears_streams_only(now),
        lost_seeds: lost_seeds.collect(),
    }
}
