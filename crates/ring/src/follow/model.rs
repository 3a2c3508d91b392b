//! Whatever happens to a ring, following it update by update shows what building it from nothing shows.

use std::collections::BTreeMap;

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use answers::{difference, telling_keys};
use nasty::{NOW, Update};

#[path = "../../tests/it/answers.rs"]
mod answers;
#[path = "../../tests/it/nasty.rs"]
mod nasty;

/// When instances were heard, in the plainest way: per instance, the timestamp it had and when that was noticed.
#[derive(Clone, Default)]
struct Heard(BTreeMap<EntryId, (i64, i64)>);

impl Heard {
    fn take(&mut self, visible: &Desc, now: i64) {
        let at = |(id, entry): (&EntryId, &Arc<InstanceDesc>)| {
            let at = match self.0.get(id) {
                None => entry.timestamp.min(now),
                Some(&(timestamp, _)) if entry.timestamp > timestamp => now,
                Some(&(_, at)) => at.min(now),
            };
            (id.clone(), (entry.timestamp, at))
        };
        self.0 = visible.iter().map(at).collect();
    }

    fn at(&self, id: &str) -> i64 {
        self.0.get(id).map_or(i64::MIN, |(_, at)| *at)
    }
}

/// A reader that follows, next to everything needed to begin anew.
struct Model {
    options: Arc<crate::RingOptions>,
    stored: Desc,
    heard: Heard,
    followed: Snapshot,
    now: i64,
}

impl Model {
    fn new(stored: Desc, options: crate::RingOptions) -> Self {
        let (options, now) = (Arc::new(options), NOW);
        let followed = Snapshot::first_sight(&stored, now, &options);
        let mut heard = Heard::default();
        heard.take(&visible(&stored, &options), now);
        Self { options, stored, heard, followed, now }
    }

    /// The snapshot made from nothing.
    fn scratch(&self) -> Snapshot {
        Snapshot::build(&self.stored, |id, _| self.heard.at(id), &self.options)
    }

    /// Takes `update` as the reader does: by its changes alone if it may and `quickly`, else as a whole.
    fn take(&mut self, update: &Update, quickly: bool) -> Result<(), TestCaseError> {
        let next = update.apply(&self.stored);
        let now = self.now.saturating_add(update.clock);
        let changed: Vec<_> = next
            .iter()
            .filter(|(id, entry)| self.stored.get(id) != Some(entry))
            .map(|(id, _)| id.clone())
            .collect();
        let removed: Vec<_> =
            self.stored.iter().map(|(id, _)| id).filter(|id| !next.contains(id)).cloned().collect();
        let may = now >= self.now && removed.is_empty();
        let followed = if may && quickly {
            follow_changed(&self.followed, &next, &changed, now, |_| None)
        } else {
            None
        };
        let followed = followed.unwrap_or_else(|| follow(&self.followed, &next, now, |_| None));

        let (before, after) = (visible(&self.stored, &self.options), visible(&next, &self.options));
        let revived = before.iter().any(|(id, _)| {
            let timeout = self.options.heartbeat_timeout;
            let fresh =
                |snapshot: &Snapshot| snapshot.seen(id).is_some_and(|seen| is_fresh(seen, now, timeout));
            fresh(&followed.snapshot) && !fresh(&self.followed)
        });
        let states =
            after.iter().any(|(id, entry)| before.get(id).is_none_or(|known| known.state != entry.state));
        // States that decide who owns a token are as good as tokens.
        let decisive = self.options.merge_winner_owns_duplicates && self.followed.duplicate_tokens() > 0;
        let comparison = if states && decisive { Comparison::Different } else { before.compare(&after) };
        prop_assert_eq!(followed.comparison, comparison);
        let notable = comparison > Comparison::EqualButStatesAndTimestamps || states || revived;
        prop_assert_eq!(followed.notable, notable, "states {} revived {}", states, revived);

        self.heard.take(&after, now);
        (self.stored, self.followed, self.now) = (next, followed.snapshot, now);
        Ok(())
    }
}

/// What a reader sees of a ring.
fn visible(desc: &Desc, options: &crate::RingOptions) -> Desc {
    let shown =
        desc.iter().filter(|(_, entry)| !options.excluded_zones.iter().any(|zone| entry.zone == *zone));
    shown.map(|(id, entry)| (id.clone(), Arc::clone(entry))).collect()
}

fn same(followed: &Snapshot, scratch: &Snapshot, keys: &[u32], now: i64) -> Result<(), TestCaseError> {
    let keys = telling_keys(scratch, keys, 3);
    match difference(followed, scratch, &keys, now) {
        None => Ok(()),
        Some(difference) => {
            Err(TestCaseError::fail(format!("followed and from scratch differ in {difference}")))
        }
    }
}

fn follow_all(
    stored: Desc,
    options: crate::RingOptions,
    updates: &[(Update, bool)],
    keys: &[u32],
) -> Result<(), TestCaseError> {
    let mut model = Model::new(stored, options);
    let mut past = vec![(model.followed.clone(), model.scratch(), model.now)];
    same(&past[0].0, &past[0].1, keys, NOW)?;
    for (update, quickly) in updates {
        model.take(update, *quickly)?;
        let scratch = model.scratch();
        same(&model.followed, &scratch, keys, model.now)?;
        // The same later on, when nothing came.
        same(&model.followed, &scratch, &keys[..1], model.now.saturating_add(60))?;
        past.push((model.followed.clone(), scratch, model.now));
    }
    // Who still holds an older snapshot sees what it was.
    past.iter().try_for_each(|(followed, scratch, now)| same(followed, scratch, &keys[..1], *now))
}

/// So many of the usual number of cases, in eighths: each asks thousands of questions.
fn cases(eighths: u32) -> ProptestConfig {
    let usual = ProptestConfig::default();
    ProptestConfig { cases: (usual.cases * eighths).div_ceil(8), max_shrink_iters: 10_000, ..usual }
}

proptest! {
    #![proptest_config(cases(2))]

    #[test]
    fn following_any_updates_shows_what_starting_anew_shows(
        stored in nasty::ring(12), options in nasty::options(),
        updates in vec((nasty::update(14), prop::bool::weighted(0.8)), 0..8), keys in vec(nasty::token(), 1..5),
    ) {
        follow_all(stored, options, &updates, &keys)?;
    }
}

proptest! {
    #![proptest_config(cases(1))]

    /// Where tables are mended rather than made anew: no token is claimed twice, and little changes at once.
    #[test]
    fn following_a_sound_ring_shows_what_starting_anew_shows(
        stored in nasty::sound_ring(40), options in nasty::options(),
        updates in vec((nasty::sound_update(44), prop::bool::weighted(0.8)), 1..8), keys in vec(any::<u32>(), 1..5),
    ) {
        follow_all(stored, options, &updates, &keys)?;
    }
}

proptest! {
    #![proptest_config(cases(1))]

    /// Beyond one chunk of members and one part of the token index.
    #[test]
    fn following_a_larger_ring_shows_what_starting_anew_shows(
        stored in nasty::sound_ring(300), options in nasty::options(),
        updates in vec((nasty::sound_update(310), prop::bool::weighted(0.8)), 0..6), keys in vec(any::<u32>(), 1..4),
    ) {
        follow_all(stored, options, &updates, &keys)?;
    }
}
