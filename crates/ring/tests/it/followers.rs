//! A reader on a store, whatever is written there: shows what a ring built from the stored entries shows.
//!
//! The same law as in the unit tests of `follow`, from outside: through codec, store, watch and service.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use proptest::collection::vec;
use proptest::prelude::*;
use ringkit_kv::{Client, InMemory};
use ringkit_ring::{Comparison, Desc, Ring, RingOptions, Snapshot};
use ringkit_runtime::{Clock, Meter, ServiceHandle};

use crate::answers::{difference, telling_keys};
use crate::nasty::{self, NOW, Update};

/// What a reader sees of a ring.
fn visible(desc: &Desc, options: &RingOptions) -> Desc {
    let mut shown = desc.clone();
    shown.retain(|_, entry| !options.excluded_zones.iter().any(|zone| entry.zone == *zone));
    shown
}

fn shown(ring: &Ring) -> Desc {
    let snapshot = ring.snapshot();
    snapshot.instances().iter().map(|instance| (instance.id.clone(), Arc::clone(&instance.desc))).collect()
}

async fn until(what: &str, reached: impl Fn() -> bool) -> Result<(), TestCaseError> {
    let waiting = async {
        while !reached() {
            tokio::task::yield_now().await;
        }
    };
    let late = |_| TestCaseError::fail(format!("the ring never shows {what}"));
    tokio::time::timeout(Duration::from_secs(10), waiting).await.map_err(late)
}

/// When instances were heard: per instance, the timestamp it had and when that was noticed.
type Heard = BTreeMap<String, (i64, i64)>;

fn hear(heard: &Heard, visible: &Desc, now: i64) -> Heard {
    let at = |id: &str, timestamp: i64| match heard.get(id) {
        None => timestamp.min(now),
        Some(&(before, _)) if timestamp > before => now,
        Some(&(_, at)) => at,
    };
    visible.iter().map(|(id, e)| (id.to_string(), (e.timestamp, at(id, e.timestamp)))).collect()
}

async fn follow_all(
    options: RingOptions,
    mut stored: Desc,
    updates: &[Update],
    keys: &[u32],
) -> Result<(), TestCaseError> {
    let client: Client<Desc> = Client::new(Arc::new(InMemory::default()), &Meter::disabled());
    for (id, entry) in &stored {
        client.upsert_own("ring", id, entry).await.unwrap();
    }
    let (clock, hand) = Clock::manual(NOW * 1000);
    let (ring, service) = Ring::new(options.clone(), client.clone(), clock, &Meter::disabled());
    let service = ServiceHandle::new("ring", Box::new(service));
    service.start_async().unwrap();
    service.await_running().await.unwrap();

    let (mut now, mut heard, mut seen_generation) = (NOW, Heard::new(), ring.changed());
    heard = hear(&heard, &visible(&stored, &options), now);
    for update in updates {
        // Beyond this a wall clock is not followed backwards from outside.
        let step = update.clock.max(0);
        now += step;
        hand.advance(Duration::from_secs(step.unsigned_abs()));
        let next = update.apply(&stored);
        for (id, entry) in next.iter().filter(|(id, entry)| stored.get(id) != Some(entry)) {
            client.upsert_own("ring", id, entry).await.unwrap();
        }
        for (id, _) in stored.iter().filter(|(id, _)| !next.contains(id)) {
            client.remove_own("ring", id).await.unwrap();
        }
        let (before, after) = (visible(&stored, &options), visible(&next, &options));
        until("what is stored", || shown(&ring) == after).await?;
        heard = hear(&heard, &after, now);

        let scratch = Snapshot::build(&next, |id, _| heard[id.as_str()].1, &options);
        let keys = telling_keys(&scratch, keys, 3);
        if let Some(difference) = difference(&ring.snapshot(), &scratch, &keys, now) {
            return Err(TestCaseError::fail(format!("followed and from scratch differ in {difference}")));
        }
        if before.compare(&after) > Comparison::EqualButStatesAndTimestamps {
            prop_assert!(seen_generation.has_changed().unwrap(), "who waits for changes is told");
        }
        prop_assert_eq!(*seen_generation.borrow_and_update(), ring.snapshot().generation());
        stored = next;
    }
    Ok(())
}

fn run(options: RingOptions, stored: Desc, updates: &[Update], keys: &[u32]) -> Result<(), TestCaseError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    runtime.block_on(follow_all(options, stored, updates, keys))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: ProptestConfig::default().cases.div_ceil(8), ..ProptestConfig::default() })]

    #[test]
    fn a_reader_of_any_store_shows_what_starting_anew_shows(
        stored in nasty::ring(10), options in nasty::options(), updates in vec(nasty::update(12), 1..6),
        keys in vec(nasty::token(), 1..3),
    ) {
        run(options, stored, &updates, &keys)?;
    }

    #[test]
    fn a_reader_of_a_sound_store_shows_what_starting_anew_shows(
        stored in nasty::sound_ring(30), options in nasty::options(), updates in vec(nasty::sound_update(32), 1..4),
        keys in vec(any::<u32>(), 1..3),
    ) {
        run(options, stored, &updates, &keys)?;
    }
}
